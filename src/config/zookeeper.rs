//! `zookeeper.connect` and what goes with it: whether the state of the cluster lies elsewhere, and where.

use super::ConfigError;
use super::reader::Reader;

/// How to reach an external ZooKeeper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZookeeperConfig {
    /// `host:port` separated by commas, without the chroot.
    pub connect: String,
    /// Begins with `/` and does not end with one; empty: none.
    pub chroot: String,
    pub session_timeout_ms: i32,
    /// The session time-out where none is set.
    pub connection_timeout_ms: i32,
    pub max_in_flight_requests: usize,
    /// `klamm.controller.eligible`.
    pub controller_eligible: bool,
}

/// `None`: the node coordinates itself.
pub(super) fn zookeeper(reader: &Reader<'_>) -> Result<Option<ZookeeperConfig>, ConfigError> {
    let connect = reader.text("zookeeper.connect").unwrap_or_default();
    let controller_eligible = reader.boolean("klamm.controller.eligible");
    if connect.is_empty() {
        if !controller_eligible {
            return Err(reader.invalid("klamm.controller.eligible", "a node alone has nobody else for controller"));
        }
        return Ok(None);
    }
    let (hosts, chroot) = connect.split_once('/').map_or((connect.as_str(), ""), |(hosts, path)| (hosts, path));
    let hosts: Vec<_> = hosts.split(',').map(str::trim).filter(|host| !host.is_empty()).collect();
    let has_port = |host: &&str| host.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_ok());
    if hosts.is_empty() || !hosts.iter().all(has_port) {
        return Err(reader.invalid("zookeeper.connect", "servers are written as host:port, separated by commas"));
    }
    let chroot = chroot.trim_matches('/');
    let session_timeout_ms = reader.int("zookeeper.session.timeout.ms");
    let connection_timeout_ms =
        reader.optional("zookeeper.connection.timeout.ms").and_then(|ms| i32::try_from(ms).ok());
    Ok(Some(ZookeeperConfig {
        controller_eligible,
        connect: hosts.join(","),
        chroot: if chroot.is_empty() { String::new() } else { format!("/{chroot}") },
        session_timeout_ms,
        connection_timeout_ms: connection_timeout_ms.unwrap_or(session_timeout_ms),
        max_in_flight_requests: reader.size("zookeeper.max.in.flight.requests"),
    }))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{config, error};

    #[test]
    fn zookeeper_connect_may_end_in_a_chroot() {
        let of = |connect| config(&[("zookeeper.connect", connect)]).zookeeper.expect("external");
        let zookeeper = of(" a:1, b:2/x/y/ ");
        assert_eq!((zookeeper.connect.as_str(), zookeeper.chroot.as_str()), ("a:1,b:2", "/x/y"));
        assert_eq!((zookeeper.session_timeout_ms, zookeeper.connection_timeout_ms), (18_000, 18_000));
        assert_eq!(of("a:1").chroot, "");
        assert!(error(&[("zookeeper.connect", "a:b")]).contains("host:port"));
        assert!(error(&[("klamm.controller.eligible", "false")]).contains("alone"));
    }
}
