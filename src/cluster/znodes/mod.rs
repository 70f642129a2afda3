//! What Kafka 3.9 keeps in ZooKeeper: one file per area, each with its paths, encodings and one golden example.
//!
//! Pure: nothing here reads or writes a node. Readers take every older version and ignore keys they do not know;
//! writers write the newest version. Numbers that Kafka writes as text (timestamps, bounds of producer id blocks, the
//! version of the cluster id) are text here as well. Source: Kafka 3.9 `kafka.zk.ZkData`.

pub(crate) mod acls;
pub(crate) mod admin;
pub(crate) mod brokers;
pub(crate) mod cluster_id;
pub(crate) mod config;
pub(crate) mod controller;
pub(crate) mod features;
pub(crate) mod notifications;
pub(crate) mod partition_state;
pub(crate) mod producer_ids;
pub(crate) mod tokens;
pub(crate) mod topics;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::coordination::REQUEST_BYTES_MAX;
use crate::coordination::zookeeper::NodeAcls;
use crate::types::TopicPartition;

/// Parents that every broker creates at its start, if they are missing, with empty data.
///
/// `/latest_producer_id_block` is missing in this list because it must never be empty, see [`producer_ids`].
/// Source: Kafka 3.9 `KafkaZkClient.createTopLevelPaths`.
pub(crate) const TOP_LEVEL_PATHS: [&str; 13] = [
    "/consumers",
    brokers::IDS,
    topics::TOPICS,
    config::CHANGES,
    admin::DELETE_TOPICS,
    brokers::SEQUENCE,
    notifications::ISR_CHANGES,
    notifications::LOG_DIR_EVENTS,
    "/config/topics",
    "/config/clients",
    "/config/users",
    "/config/brokers",
    "/config/ips",
];

/// Who may do what to nodes where `zookeeper.set.acl` is on: whoever made one everything, everybody else may read it,
/// but for credentials, passwords and tokens. Old consumers write below `/consumers`. Source: Kafka 3.9
/// `ZkData.defaultAcls`, whose prefixes end with no slash either.
pub(crate) const NODE_ACLS: NodeAcls =
    NodeAcls { open: "/consumers", hidden: &["/config/users", "/config/brokers", tokens::TOKENS] };

/// Largest data we write to one node, in bytes: what one request takes less room for the operations beside it.
pub(crate) const NODE_BYTES_MAX: usize = REQUEST_BYTES_MAX - (64 << 10);

/// A node whose data we cannot read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("znode {path}: {reason}")]
pub(crate) struct ZnodeError {
    pub(crate) path: String,
    pub(crate) reason: String,
}

impl ZnodeError {
    fn new(path: &str, reason: impl ToString) -> Self {
        Self { path: path.into(), reason: reason.to_string() }
    }
}

#[derive(Deserialize)]
struct PartitionsJson {
    #[serde(default)]
    partitions: Vec<PartitionJson>,
}

#[derive(Deserialize)]
struct PartitionJson {
    topic: String,
    partition: i32,
}

/// The partitions that a note names: `{"version":1,"partitions":[{"topic":"T","partition":0}]}`.
fn decode_partitions<C: FromIterator<TopicPartition>>(path: &str, data: &[u8]) -> Result<C, ZnodeError> {
    let json: PartitionsJson = from_json(path, data)?;
    Ok(json.partitions.iter().map(|entry| TopicPartition::new(entry.topic.as_str(), entry.partition)).collect())
}

fn to_json<T: Serialize>(value: &T) -> Bytes {
    serde_json::to_vec(value).expect("maps with text or number keys and plain values always encode").into()
}

fn from_json<T: DeserializeOwned>(path: &str, data: &[u8]) -> Result<T, ZnodeError> {
    serde_json::from_slice(data).map_err(|error| ZnodeError::new(path, error))
}
