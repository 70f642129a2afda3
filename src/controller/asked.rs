//! What administrators and brokers ask of the controller, and what they are told.

use std::collections::BTreeMap;

use crate::types::{BrokerId, PartitionIndex, TopicName, TopicPartition};

/// Which leader is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ElectionType {
    /// The preferred one, where it is in sync.
    Preferred,
    /// Any, where there is none. An unclean one is better than none, whatever the topic says.
    Unclean,
}

/// Why a partition has no new leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ElectionRefused {
    /// ELECTION_NOT_NEEDED (84)
    #[error("Leader election not needed for topic partition.")]
    NotNeeded,
    /// PREFERRED_LEADER_NOT_AVAILABLE (80)
    #[error("the preferred leader is not in sync, or not live")]
    PreferredNotAvailable,
    /// ELIGIBLE_LEADERS_NOT_AVAILABLE (83)
    #[error("no replica is live")]
    NoneAvailable,
    /// UNKNOWN_TOPIC_OR_PARTITION (3)
    #[error("The partition does not exist.")]
    UnknownPartition,
    /// INVALID_TOPIC_EXCEPTION (17)
    #[error("The topic is being deleted")]
    BeingDeleted,
}

/// The new leader of each partition that was asked for, or why it has none.
pub(crate) type ElectionResults = Vec<(TopicPartition, Result<BrokerId, ElectionRefused>)>;

/// The replicas that partitions are to have; `None` takes a reassignment back.
pub(crate) type Wishes = BTreeMap<TopicPartition, Option<Vec<BrokerId>>>;

/// A reassignment under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moving {
    pub(crate) partition: TopicPartition,
    /// The target, then what is left of the origin.
    pub(crate) replicas: Vec<BrokerId>,
    pub(crate) adding: Vec<BrokerId>,
    pub(crate) removing: Vec<BrokerId>,
}

/// Why a partition is not reassigned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReassignmentRefused {
    /// NO_REASSIGNMENT_IN_PROGRESS (85)
    #[error("No partition reassignment is in progress.")]
    NotInProgress,
    /// INVALID_REPLICA_ASSIGNMENT (39)
    #[error("{0}")]
    InvalidReplicas(String),
    /// INVALID_REPLICATION_FACTOR (38)
    #[error("The replication factor is changed from {from} to {to}")]
    FactorChanged { from: usize, to: usize },
    /// UNKNOWN_TOPIC_OR_PARTITION (3)
    #[error("The partition does not exist.")]
    UnknownPartition,
    /// UNKNOWN_SERVER_ERROR (−1): the topic's node cannot hold it, or cannot be read.
    #[error("the assignment cannot be written: {0}")]
    Unwritable(String),
}

/// One outcome per partition that was asked for. Success means begun.
pub(crate) type ReassignmentResults = Vec<(TopicPartition, Result<(), ReassignmentRefused>)>;

/// What a broker that wants to stop still leads.
pub(super) type StillLed = Vec<(TopicName, PartitionIndex)>;
