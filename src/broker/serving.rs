//! Letting connections in, and who may speak through which listener.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::identity::millis;
use crate::api::context::{Audience, Handles};
use crate::api::dispatch::Origin;
use crate::api::security::authentication::SaslGate;
use crate::config::Config;
use crate::metrics::ListenerMetrics;
use crate::net::admission::Admission;
use crate::net::connection::Settings;
use crate::net::listener::{self, ConnectionLimits, Listener};
use crate::net::refusals::Refusals;
use crate::net::send_buffer::SendBuffers;
use crate::net::write_queue::WriteQueues;
use crate::security::principal::Principal;
use crate::security::sasl::authority::Authority;
use crate::security::tls::TlsListeners;
use crate::task;
use crate::types::limits::{BROKERS_REQUEST_BYTES_MAX, STRANGERS_REQUEST_BYTES_MAX};

/// Who speaks through the listener of this name.
pub(super) fn audience(config: &Config, listener: &str) -> Audience {
    match config.zookeeper {
        None => Audience::Alone,
        Some(_) if listener == config.inter_broker_listener => Audience::Brokers,
        Some(_) if Some(listener) == config.control_plane_listener.as_deref() => Audience::Brokers,
        Some(_) => Audience::Clients,
    }
}

/// A listener by name, and what is counted for it.
pub(super) type Counted = ((String, Listener), Arc<ListenerMetrics>);

/// Lets connections in, with one budget for all of them.
pub(super) struct Serving {
    handles: Arc<Handles>,
    admission: Arc<Admission>,
    of_brokers: Arc<Admission>,
    of_strangers: Arc<Admission>,
    refusals: Arc<Refusals>,
    write_queues: Arc<WriteQueues>,
    send_buffers: SendBuffers,
    limits: Arc<ConnectionLimits>,
    tls: Arc<TlsListeners>,
    authority: Arc<Authority>,
    config: Arc<Config>,
    stopped: watch::Receiver<bool>,
}

impl Serving {
    pub(super) fn new(
        config: &Arc<Config>,
        handles: &Arc<Handles>,
        limits: &Arc<ConnectionLimits>,
        authority: &Arc<Authority>,
        stopped: &watch::Receiver<bool>,
    ) -> Self {
        let reply_bytes = usize::try_from(config.reply_bytes).unwrap_or(usize::MAX);
        let send_buffer_bytes = config.socket_send_buffer_bytes.map(|bytes| bytes as usize);
        Self {
            handles: Arc::clone(handles),
            admission: Admission::new(usize::try_from(config.queued_max_request_bytes).unwrap_or(usize::MAX)),
            of_brokers: Admission::new(BROKERS_REQUEST_BYTES_MAX),
            of_strangers: Admission::new(STRANGERS_REQUEST_BYTES_MAX),
            refusals: Refusals::new(),
            write_queues: WriteQueues::new(reply_bytes),
            send_buffers: SendBuffers::new(send_buffer_bytes, reply_bytes),
            limits: Arc::clone(limits),
            tls: Arc::clone(&handles.tls),
            authority: Arc::clone(authority),
            config: Arc::clone(config),
            stopped: stopped.clone(),
        }
    }

    pub(super) fn accept(&self, listeners: Vec<Counted>) -> Vec<JoinHandle<()>> {
        listeners.into_iter().map(|((name, socket), counts)| self.accept_one(&name, socket, counts)).collect()
    }

    /// What clients of the listener have to prove first, if it asks for SASL.
    fn sasl_gate(&self, listener: &str, counts: &Arc<ListenerMetrics>) -> Option<Arc<SaslGate>> {
        let sasl = &self.config.sasl;
        let settings = sasl.listeners.get(listener)?;
        Some(Arc::new(SaslGate {
            settings: Arc::clone(settings),
            authority: Arc::clone(&self.authority),
            counts: Arc::clone(counts),
            frame_bytes_max: sasl.receive_bytes_max,
            failure_delay: millis(i64::from(sasl.failure_delay_ms)),
        }))
    }

    fn accept_one(&self, name: &str, socket: Listener, counts: Arc<ListenerMetrics>) -> JoinHandle<()> {
        let audience = audience(&self.config, name);
        let sasl = self.sasl_gate(name, &counts);
        let settings = Settings {
            origin: Origin {
                handles: Arc::clone(&self.handles),
                listener: Arc::from(name),
                audience,
                peer: UNKNOWN_PEER,
                principal: Arc::new(Principal::anonymous()),
                is_stranger: sasl.is_some(),
                mute: Arc::default(),
            },
            tls: self.tls.of(name).cloned(),
            admission: Arc::clone(&self.admission),
            of_brokers: (audience == Audience::Brokers).then(|| Arc::clone(&self.of_brokers)),
            of_strangers: Arc::clone(&self.of_strangers),
            refusals: Arc::clone(&self.refusals),
            write_queues: Arc::clone(&self.write_queues),
            send_buffers: self.send_buffers.clone(),
            sasl,
            frame_bytes_max: self.config.socket_request_max_bytes as usize,
            idle_max: self.config.connections_max_idle_ms.map_or(NEVER, millis),
            stopping: self.stopped.clone(),
        };
        let settings_of = move |peer| {
            let mut settings = settings.clone();
            settings.origin.peer = peer;
            settings.origin.mute = Arc::default();
            settings
        };
        task::spawn(listener::accept(socket, settings_of, Arc::clone(&self.limits), counts, self.stopped.clone()))
    }
}

/// Before a connection says from where it comes.
const UNKNOWN_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Long enough to mean "never" and short enough for the timer.
const NEVER: Duration = Duration::from_secs(60 * 60 * 24 * 365);
