//! The coordinators' whole dependency on the log.

use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::types::{LeaderEpoch, Offset, PartitionIndex, TopicName};

/// One record of an internal topic. `value` `None` is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CoordinatorRecord {
    pub(crate) key: Bytes,
    pub(crate) value: Option<Bytes>,
}

impl CoordinatorRecord {
    /// Bytes of key and value.
    pub(crate) fn bytes(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Bytes::len)
    }
}

/// Why records could not be appended. Nothing is known to have been written, except after `Storage`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteError {
    /// This broker does not lead the partition, or under another epoch.
    #[error("not the leader")]
    NotLeader,
    /// The batch is larger than the topic's max.message.bytes.
    #[error("records are too large")]
    TooLarge,
    /// ISR below min.insync.replicas.
    #[error("not enough replicas")]
    NotEnoughReplicas,
    #[error("storage: {0}")]
    Storage(String),
}

/// Appends to and reads one internal topic. Implemented by `replica`.
pub(crate) trait PartitionWriter: Debug + Send + Sync + 'static {
    /// Appends the records as one batch under the epoch and answers, once the high watermark has passed it, the offset
    /// after its last record. Order of effects is the order of calls per partition: the call itself takes the place in
    /// the log before it returns the future, dropping the future does not undo it.
    fn append(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
        epoch: LeaderEpoch,
        records: Vec<CoordinatorRecord>,
    ) -> BoxFuture<'static, Result<Offset, WriteError>>;

    /// Largest batch that the topic accepts now, in bytes: its max.message.bytes. Coordinators refuse what would not
    /// fit before they append it.
    fn batch_bytes_max(&self, topic: &TopicName) -> usize {
        // Kafka's default of max.message.bytes.
        let _ = topic;
        1_048_588
    }

    /// Visits the records from the log start to the log end, in order, on a thread that may block. Control batches are
    /// skipped, and so may be a record that a later one of the same key follows: compaction may take it at any time, so
    /// no state may depend on it. The visitor may end early.
    fn load(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
        visit: Box<dyn FnMut(Offset, i64, CoordinatorRecord) -> ControlFlow<()> + Send>,
    ) -> BoxFuture<'static, Result<Offset, WriteError>>;
}

/// A shared writer.
pub(crate) type SharedWriter = Arc<dyn PartitionWriter>;
