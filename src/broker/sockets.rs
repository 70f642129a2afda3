//! The listening sockets of a broker, and the addresses it tells others.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use tracing::warn;

use crate::cluster::control::Endpoint;
use crate::config::Config;
use crate::metrics::ListenerMetrics;
use crate::net::listener::{self, Listener, SocketSizes};

/// A listener that could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("listener {name}://{host}:{port} cannot be bound: {error}")]
pub(super) struct BindError {
    name: String,
    host: String,
    port: u16,
    error: std::io::Error,
}

/// Bound listeners by name, not yet accepting.
pub(super) struct Sockets {
    pub(super) listeners: Vec<(String, Listener)>,
}

impl Sockets {
    /// Binds every listener of the configuration.
    pub(super) async fn bind(config: &Config) -> Result<Self, BindError> {
        let sizes = SocketSizes {
            send_buffer_bytes: config.socket_send_buffer_bytes.map(|bytes| bytes as usize),
            receive_buffer_bytes: config.socket_receive_buffer_bytes.map(|bytes| bytes as usize),
        };
        let mut listeners = Vec::with_capacity(config.listeners.len());
        for wanted in &config.listeners {
            let listener = listener::bind(&wanted.host, wanted.port, sizes).await.map_err(|error| BindError {
                name: wanted.name.clone(),
                host: wanted.host.clone(),
                port: wanted.port,
                error,
            })?;
            listeners.push((wanted.name.clone(), listener));
        }
        Ok(Self { listeners })
    }

    /// Local addresses in the order of `listeners`.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|(_, listener)| listener.local_addr().ok()).collect()
    }

    /// What is counted for each listener, in the order of `listeners`.
    pub(super) fn counts(&self) -> Vec<Arc<ListenerMetrics>> {
        self.listeners.iter().map(|(name, _)| ListenerMetrics::new(Arc::from(name.as_str()))).collect()
    }

    /// What others are told. An advertised port 0 is the one the listener of that name got.
    pub(super) fn endpoints(&self, config: &Config) -> Vec<Endpoint> {
        let port_of = |name: &str| {
            let socket = self.listeners.iter().find(|(listener, _)| listener == name);
            socket.and_then(|(_, listener)| listener.local_addr().ok()).map_or(0, |address| address.port())
        };
        config
            .advertised_listeners
            .iter()
            .map(|advertised| Endpoint {
                listener: advertised.name.clone(),
                security_protocol: advertised.security_protocol.name().to_owned(),
                host: advertised.host.clone(),
                port: if advertised.port == 0 { port_of(&advertised.name) } else { advertised.port },
            })
            .collect()
    }
}

/// `max.connections.per.ip.overrides` with its names resolved; one that does not resolve has no effect, as no
/// connection can come from it.
pub(super) fn per_ip_overrides(config: &Config) -> HashMap<IpAddr, usize> {
    let mut overrides = HashMap::new();
    for (host, max) in &config.max_connections_per_ip_overrides {
        match (host.as_str(), 0).to_socket_addrs() {
            Ok(addresses) => {
                let max = usize::try_from(*max).unwrap_or(usize::MAX);
                overrides.extend(addresses.map(|address| (address.ip().to_canonical(), max)));
            }
            Err(error) => warn!(host, %error, "max.connections.per.ip.overrides names an unknown host"),
        }
    }
    overrides
}
