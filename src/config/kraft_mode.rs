//! `process.roles`: a file made for one KRaft node starts here as well, since one node coordinates itself.
//!
//! A file that needs KRaft controllers elsewhere is refused: several nodes meet in ZooKeeper.

use super::ConfigError;
use super::reader::Reader;

/// True if the configuration is a KRaft node's. `zookeeper.connect` does not count then, as in Kafka.
///
/// # Errors
/// The node would need other KRaft nodes, or contradicts itself.
pub(crate) fn check(reader: &Reader<'_>) -> Result<bool, ConfigError> {
    const ROLES: &str = "process.roles";
    let roles = reader.list(ROLES);
    if roles.is_empty() {
        return Ok(false);
    }
    let has = |role: &str| roles.iter().any(|have| have == role);
    if roles.len() > 2 || (roles.len() == 2 && roles[0] == roles[1]) {
        let why = format!("Duplicate role names found in `process.roles`: {}", roles.join(", "));
        return Err(reader.invalid(ROLES, &why));
    }
    if !has("broker") || !has("controller") {
        let why = "only broker,controller on one node is supported; several nodes need zookeeper.connect";
        return Err(reader.invalid(ROLES, why));
    }
    voters(reader)?;
    Ok(true)
}

/// `id@host:port`, at most one, and that one this node.
fn voters(reader: &Reader<'_>) -> Result<(), ConfigError> {
    const VOTERS: &str = "controller.quorum.voters";
    let voters = reader.list(VOTERS);
    let id = |voter: &String| {
        let (id, address) = voter.split_once('@')?;
        address.rsplit_once(':')?.1.parse::<u16>().ok()?;
        id.trim().parse::<i32>().ok()
    };
    let ids: Option<Vec<i32>> = voters.iter().map(id).collect();
    let Some(ids) = ids else {
        return Err(reader.invalid(VOTERS, "Each entry should be in the form `{id}@{host}:{port}`."));
    };
    let node = reader.given("node.id");
    let node = node.and_then(|given| given.value.trim().parse::<i32>().ok());
    match (ids.as_slice(), node) {
        ([], _) | (_, None) => Ok(()),
        ([one], Some(node)) if *one == node => Ok(()),
        ([_], Some(node)) => {
            let why = format!(
                "If process.roles contains the 'controller' role, the node id {node} must be included in the set of \
                 voters"
            );
            Err(reader.invalid(VOTERS, &why))
        }
        _ => Err(reader.invalid(VOTERS, "a KRaft quorum of several nodes is not supported; use zookeeper.connect")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{config, error};
    use crate::types::BrokerId;

    /// What Kafka's image and most compose files set.
    const COMBINED: [(&str, &str); 6] = [
        ("process.roles", "broker,controller"),
        ("node.id", "1"),
        ("controller.quorum.voters", "1@localhost:9093"),
        ("controller.listener.names", "CONTROLLER"),
        ("listeners", "PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093"),
        ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT"),
    ];

    #[test]
    fn one_kraft_node_is_one_node_that_coordinates_itself() {
        let config = config(&COMBINED);
        assert!(config.coordinates_itself());
        assert_eq!(config.broker_id, Some(BrokerId(1)));
        assert_eq!(config.listeners.len(), 1);
        assert_eq!(config.advertised_listeners[0].to_string(), "PLAINTEXT://localhost:9092");
    }

    #[test]
    fn a_node_that_needs_other_kraft_nodes_is_refused() {
        let with = |key: &'static str, value: &'static str| {
            let mut given = COMBINED.to_vec();
            given.push((key, value));
            error(&given)
        };
        assert!(with("process.roles", "broker").contains("zookeeper.connect"));
        assert!(with("process.roles", "controller").contains("only broker,controller"));
        assert!(with("process.roles", "broker,broker").contains("Duplicate role names"));
        assert!(with("process.roles", "x").contains("String must be one of: broker, controller"));
        assert!(with("controller.quorum.voters", "1@a:1,2@b:1").contains("several nodes"));
        assert!(with("controller.quorum.voters", "2@a:1").contains("must be included in the set of voters"));
        assert!(with("controller.quorum.voters", "a").contains("{id}@{host}:{port}"));
        assert!(error(&[("process.roles", "broker,controller")]).contains("Missing configuration `node.id`"));
    }
}
