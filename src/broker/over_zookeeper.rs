//! The coordination over an external ZooKeeper, and the way to it.
//!
//! Over TLS the crate's client speaks to a relay in this process (`transport::relay`), which speaks with what
//! `security::tls` presents and trusts. The crate's own TLS is not used: see `ARCHITECTURE.md`.

use std::sync::Arc;
use std::time::Duration;

use super::refused::StartError;
use crate::cluster::znodes;
use crate::config::{self, TlsSettings};
use crate::coordination::SharedCoordination;
use crate::coordination::zookeeper::{Login, Way, ZookeeperConfig, ZookeeperCoordination};
use crate::security::tls::zookeeper::TowardsZookeeper;
use crate::task;
use crate::transport::relay::Relay;

/// The port of a host that is written without one.
const PORT: u16 = 2181;

/// Opens a session.
///
/// # Errors
/// The ensemble cannot be used, or a store of keys cannot.
pub(super) async fn connect(zookeeper: &config::ZookeeperConfig) -> Result<SharedCoordination, StartError> {
    let at = format!("{}{}", zookeeper.connect, zookeeper.chroot);
    let mut settings = settings(zookeeper);
    if let Some(tls) = &zookeeper.tls {
        let way = OverTls::open(&zookeeper.connect, tls, settings.session_timeout).await.map_err(StartError)?;
        settings.way = Some(Arc::new(way));
    }
    let connected = ZookeeperCoordination::connect(settings).await;
    connected
        .map(|store| Arc::new(store) as SharedCoordination)
        .map_err(|error| StartError(format!("ZooKeeper at {at} cannot be used: {error}")))
}

/// All but the way.
pub(super) fn settings(zookeeper: &config::ZookeeperConfig) -> ZookeeperConfig {
    let millis = |ms: i32| Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    ZookeeperConfig {
        session_timeout: millis(zookeeper.session_timeout_ms),
        connection_timeout: millis(zookeeper.connection_timeout_ms),
        max_in_flight: zookeeper.max_in_flight_requests,
        login: zookeeper
            .login
            .as_ref()
            .map(|login| Login { username: login.username.clone(), password: login.password.clone() }),
        acls: zookeeper.set_acl.then_some(znodes::NODE_ACLS),
        ..ZookeeperConfig::new(format!("{}{}", zookeeper.connect, zookeeper.chroot))
    }
}

/// The hosts over TLS.
#[derive(Debug)]
struct OverTls {
    relay: Relay,
    hosts: String,
}

impl OverTls {
    async fn open(connect: &str, settings: &TlsSettings, session_timeout: Duration) -> Result<Self, String> {
        let settings = settings.clone();
        let towards = task::blocking(move || TowardsZookeeper::open(&settings)).await?;
        let hosts = connect.split(',').map(host_and_port).collect();
        let session = Box::new(move |host: &str, address| towards.session(host, address));
        // As long as the crate waits for an answer.
        let opened = Relay::open(hosts, session, session_timeout * 2 / 5).await;
        let relay = opened.map_err(|error| format!("no port of loopback for the way to ZooKeeper: {error}"))?;
        let hosts: Vec<_> = relay.addresses().iter().map(ToString::to_string).collect();
        Ok(Self { relay, hosts: hosts.join(",") })
    }
}

impl Way for OverTls {
    fn hosts(&self) -> &str {
        &self.hosts
    }

    fn failure(&self) -> Option<String> {
        self.relay.failure()
    }
}

/// Of `host:port`, `host`, `[address]:port`; the port was checked with the settings.
fn host_and_port(text: &str) -> (String, u16) {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !host.ends_with(':') => (host, port.parse().ok()),
        _ => (text, None),
    };
    let (host, port) = if port.is_some() { (host, port) } else { (text, None) };
    (host.trim_start_matches('[').trim_end_matches(']').to_owned(), port.unwrap_or(PORT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_and_addresses_with_and_without_a_port() {
        for (text, host, port) in [
            ("zoo:2182", "zoo", 2182),
            ("zoo", "zoo", 2181),
            ("10.0.0.1:1", "10.0.0.1", 1),
            ("[::1]:2182", "::1", 2182),
            ("[::1]", "::1", 2181),
        ] {
            assert_eq!(host_and_port(text), (host.to_owned(), port), "{text}");
        }
    }
}
