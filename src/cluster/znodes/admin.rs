//! Wishes to the controller, below `/admin`; it deletes each once it is fulfilled.
//!
//! - `/admin/delete_topics/T`, empty: T is to be deleted. Made by the broker that handles DeleteTopics or by tools.
//! - `/admin/preferred_replica_election`: `{"version":1,"partitions":[{"topic":"T","partition":0}]}`, by tools.
//! - `/admin/reassign_partitions`:
//!   `{"version":1,"partitions":[{"topic":"T","partition":0,"replicas":[4,5,6]}]}`, by tools. Entries leave it as they
//!   are done.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ZnodeError, decode_partitions, from_json, to_json};
use crate::types::{BrokerId, TopicPartition};

pub(crate) const DELETE_TOPICS: &str = "/admin/delete_topics";
pub(crate) const PREFERRED_ELECTION: &str = "/admin/preferred_replica_election";
pub(crate) const REASSIGNMENT: &str = "/admin/reassign_partitions";

pub(crate) fn delete_topic_path(topic: &str) -> String {
    format!("{DELETE_TOPICS}/{topic}")
}

#[derive(Serialize, Deserialize)]
struct ReassignmentJson {
    version: i32,
    #[serde(default)]
    partitions: Vec<ReplicasJson>,
}

#[derive(Serialize, Deserialize)]
struct ReplicasJson {
    topic: String,
    partition: i32,
    replicas: Vec<i32>,
}

pub(crate) fn decode_preferred_election(data: &[u8]) -> Result<BTreeSet<TopicPartition>, ZnodeError> {
    decode_partitions(PREFERRED_ELECTION, data)
}

/// Partitions and the replicas they are to have. One that stands there twice has its last entry.
pub(crate) fn decode_reassignment(data: &[u8]) -> Result<BTreeMap<TopicPartition, Vec<BrokerId>>, ZnodeError> {
    let json: ReassignmentJson = from_json(REASSIGNMENT, data)?;
    let entry = |entry: ReplicasJson| {
        let replicas = entry.replicas.into_iter().map(BrokerId).collect();
        (TopicPartition::new(entry.topic.as_str(), entry.partition), replicas)
    };
    Ok(json.partitions.into_iter().map(entry).collect())
}

pub(crate) fn encode_reassignment(wishes: &BTreeMap<TopicPartition, Vec<BrokerId>>) -> Bytes {
    let entry = |(name, replicas): (&TopicPartition, &Vec<BrokerId>)| ReplicasJson {
        topic: name.topic.as_str().into(),
        partition: name.partition.0,
        replicas: replicas.iter().map(|id| id.0).collect(),
    };
    to_json(&ReassignmentJson { version: 1, partitions: wishes.iter().map(entry).collect() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let election = br#"{"version":1,"partitions":[{"topic":"T","partition":0}]}"#;
        assert_eq!(decode_preferred_election(election), Ok(BTreeSet::from([TopicPartition::new("T", 0)])));
        let text = r#"{"version":1,"partitions":[{"topic":"T","partition":0,"replicas":[4,5,6]}]}"#;
        let wishes = BTreeMap::from([(TopicPartition::new("T", 0), [4, 5, 6].map(BrokerId).to_vec())]);
        assert_eq!(decode_reassignment(text.as_bytes()), Ok(wishes.clone()));
        assert_eq!(encode_reassignment(&wishes), text);
        assert_eq!(decode_preferred_election(b"rubbish").unwrap_err().path, PREFERRED_ELECTION);
        assert_eq!(decode_reassignment(b"").unwrap_err().path, REASSIGNMENT);
    }
}
