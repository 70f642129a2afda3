//! `/brokers/topics/T/partitions/P/state`: leader and ISR, written by the controller alone (I-13).
//!
//! `{"controller_epoch":5,"leader":1,"version":1,"leader_epoch":7,"isr":[1,2,3]}`; leader −1 is none; when the leader
//! was elected unclean and has not recovered, `"leader_recovery_state":1` follows. The node's data version is the
//! partition epoch. `/partitions` and `/partitions/P` are empty.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ZnodeError, from_json, to_json, topics};
use crate::types::{BrokerId, ControllerEpoch, LeaderEpoch, PartitionIndex};

/// Parent of a topic's partitions.
pub(crate) fn partitions_path(topic: &str) -> String {
    format!("{}/partitions", topics::path(topic))
}

pub(crate) fn partition_path(topic: &str, partition: PartitionIndex) -> String {
    format!("{}/{partition}", partitions_path(topic))
}

pub(crate) fn path(topic: &str, partition: PartitionIndex) -> String {
    format!("{}/state", partition_path(topic, partition))
}

/// Whether the leader's log may lack records that were acknowledged. KIP-704.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Recovery {
    #[default]
    Recovered,
    Recovering,
}

/// The data of the node; the partition epoch is the node's version and stands beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaderAndIsrNode {
    pub(crate) controller_epoch: ControllerEpoch,
    pub(crate) leader: Option<BrokerId>,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) isr: Vec<BrokerId>,
    pub(crate) recovery: Recovery,
}

#[derive(Serialize, Deserialize)]
struct Json {
    controller_epoch: i32,
    leader: i32,
    version: i32,
    leader_epoch: i32,
    isr: Vec<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    leader_recovery_state: Option<u8>,
}

pub(crate) fn encode(node: &LeaderAndIsrNode) -> Bytes {
    to_json(&Json {
        controller_epoch: node.controller_epoch.0,
        leader: node.leader.unwrap_or(BrokerId::NONE).0,
        version: 1,
        leader_epoch: node.leader_epoch.0,
        isr: node.isr.iter().map(|id| id.0).collect(),
        leader_recovery_state: (node.recovery == Recovery::Recovering).then_some(1),
    })
}

pub(crate) fn decode(path: &str, data: &[u8]) -> Result<LeaderAndIsrNode, ZnodeError> {
    let json: Json = from_json(path, data)?;
    Ok(LeaderAndIsrNode {
        controller_epoch: ControllerEpoch(json.controller_epoch),
        leader: (json.leader >= 0).then_some(BrokerId(json.leader)),
        leader_epoch: LeaderEpoch(json.leader_epoch),
        isr: json.isr.into_iter().map(BrokerId).collect(),
        recovery: if json.leader_recovery_state == Some(1) { Recovery::Recovering } else { Recovery::Recovered },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> LeaderAndIsrNode {
        LeaderAndIsrNode {
            controller_epoch: ControllerEpoch(5),
            leader: Some(BrokerId(1)),
            leader_epoch: LeaderEpoch(7),
            isr: vec![BrokerId(1), BrokerId(2), BrokerId(3)],
            recovery: Recovery::Recovered,
        }
    }

    #[test]
    fn golden() {
        let text = r#"{"controller_epoch":5,"leader":1,"version":1,"leader_epoch":7,"isr":[1,2,3]}"#;
        assert_eq!(encode(&node()), text);
        assert_eq!(decode("p", text.as_bytes()), Ok(node()));
        assert_eq!(path("T", PartitionIndex(4)), "/brokers/topics/T/partitions/4/state");
    }

    #[test]
    fn no_leader_is_minus_one_and_recovering_is_said() {
        let node = LeaderAndIsrNode { leader: None, recovery: Recovery::Recovering, ..node() };
        let text = concat!(
            r#"{"controller_epoch":5,"leader":-1,"version":1,"leader_epoch":7"#,
            r#","isr":[1,2,3],"leader_recovery_state":1}"#
        );
        assert_eq!(encode(&node), text);
        assert_eq!(decode("p", text.as_bytes()), Ok(node));
    }
}
