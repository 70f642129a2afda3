//! The coordinators' whole dependency on the log.

use std::fmt::Debug;
use std::ops::ControlFlow;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::clock::UnixMs;
use crate::types::{
    Fence, LeaderEpoch, LogOpening, Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicName, TransactionGuard,
    TransactionMarker,
};

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

/// The transaction of a producer to which records belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InTransaction {
    pub(crate) producer_id: ProducerId,
    pub(crate) producer_epoch: ProducerEpoch,
    /// From the verification, unless the transaction was open in the partition already.
    pub(crate) guard: Option<TransactionGuard>,
}

/// What one append adds to the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Records that count at once, or with `transaction` once that is committed. One batch.
    Records { transaction: Option<InTransaction>, records: Vec<CoordinatorRecord> },
    /// The end of a producer's transaction.
    Marker(TransactionMarker),
}

/// What a load finds in a log, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Loaded {
    Record {
        offset: Offset,
        timestamp: UnixMs,
        /// Of the transaction that it belongs to.
        producer_id: Option<ProducerId>,
        record: CoordinatorRecord,
    },
    Marker(TransactionMarker),
}

/// Gets what a load finds; it may end early.
pub(crate) type Visitor = Box<dyn FnMut(Loaded) -> ControlFlow<()> + Send>;

/// Why records could not be appended. Nothing is known to have been written, except after `Storage` and
/// `NotEnoughAfterAppend`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WriteError {
    /// This broker does not lead the partition, or has not without a gap since the epoch.
    #[error("not the leader")]
    NotLeader,
    /// The batch is larger than the topic's max.message.bytes.
    #[error("records are too large")]
    TooLarge,
    /// ISR below min.insync.replicas.
    #[error("not enough replicas")]
    NotEnoughReplicas,
    /// It is in the log, below the high watermark; but the ISR has become smaller than min.insync.replicas meanwhile.
    #[error("not enough replicas after the append")]
    NotEnoughAfterAppend,
    /// The disk's reserve is reached.
    #[error("no space left above the disk reserve")]
    Full,
    #[error("storage: {0}")]
    Storage(String),
    /// The log does not take this into a transaction. Nothing was written, and it goes on as before.
    #[error(transparent)]
    Transaction(#[from] TransactionRefusal),
}

impl WriteError {
    /// Whether the same append may be taken later, by the same log under the same leadership.
    pub(crate) fn passes(&self) -> bool {
        match self {
            Self::NotEnoughReplicas | Self::Full => true,
            Self::NotLeader | Self::TooLarge | Self::NotEnoughAfterAppend | Self::Storage(_) | Self::Transaction(_) => {
                false
            }
        }
    }
}

/// Why a log does not take what belongs to a transaction, or ends one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TransactionRefusal {
    /// The transaction is not open in the partition, and this was not verified or its transaction has ended since.
    #[error("the transaction is not open")]
    InvalidTxnState,
    /// A newer instance of the producer has written.
    #[error("the producer's epoch is old")]
    InvalidProducerEpoch,
    /// A newer coordinator has written.
    #[error("the coordinator's epoch is old")]
    CoordinatorFenced,
}

/// Appends to and reads one internal topic. Implemented by `replica`.
pub(crate) trait PartitionWriter: Debug + Send + Sync + 'static {
    /// Whether an append would be taken now, and the opening of the log that its fence has to name. Asked before
    /// something is decided that has to be stored; the append may be refused all the same. `epoch`: one under which
    /// this broker has led, without a gap since.
    fn may_append(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
        epoch: LeaderEpoch,
    ) -> Result<LogOpening, WriteError>;

    /// Appends the entry as one batch and answers, once the high watermark has passed it, the offset after its last
    /// record. Order of effects is the order of calls per partition: the call itself takes the place in the log before
    /// it returns the future, dropping the future does not undo it. If the future says that it was refused, every
    /// append after it with the same fence is refused as well.
    ///
    /// # Errors
    /// At once: the entry has no place in the log.
    fn append(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
        fence: Fence,
        entry: &Entry,
    ) -> Result<Appending, WriteError>;

    /// Whether the next transactional records of the producer have to be verified with its coordinator, and the guard
    /// to append them with; `None`: its transaction is open in the partition, or the partition is not led here.
    fn begin_verification(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
    ) -> Option<TransactionGuard>;

    /// Largest batch that the topic accepts now, in bytes: its max.message.bytes. Coordinators refuse what would not
    /// fit before they append it.
    fn batch_bytes_max(&self, _topic: &TopicName) -> usize {
        // Kafka's default of max.message.bytes.
        1_048_588
    }

    /// Visits records and markers from the log start to the log end, in order, on a thread that may block. A record
    /// outside of transactions may be skipped if a later one of the same key follows: compaction may take it at any
    /// time, so no state may depend on it.
    fn load(&self, topic: &TopicName, partition: PartitionIndex, visit: Visitor) -> Appending;

    /// Answers with `end` once the high watermark has reached it. `end` is what a load has answered with, `epoch` one
    /// under which this broker has led without a gap since.
    fn until_replicated(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
        epoch: LeaderEpoch,
        end: Offset,
    ) -> Appending;
}

/// An append, a load, or the wait for the high watermark: the offset it reached.
pub(crate) type Appending = BoxFuture<'static, Result<Offset, WriteError>>;

/// A shared writer.
pub(crate) type SharedWriter = Arc<dyn PartitionWriter>;
