//! What may be asked of a transactional id, and the answers, in the coordinator's own types.

use std::sync::Arc;

use super::error::TransactionError;
use crate::clock::UnixMs;
use crate::types::{LeaderEpoch, ProducerEpoch, ProducerId, TopicPartition, TransactionResult};

/// A producer id with its epoch.
pub(crate) type Producer = (ProducerId, ProducerEpoch);

/// A request to the shard that keeps the transactional id.
#[derive(Debug)]
pub(crate) enum TransactionRequest {
    Init(InitRequest),
    AddPartitions(PartitionsRequest),
    Verify(PartitionsRequest),
    End(EndRequest),
    Describe {
        id: Arc<str>,
    },
    List(ListRequest),
    /// The transactions whose markers are due, once there are some. From the one task that writes them, which has
    /// the epoch under which it leads.
    TakeMarkers {
        epoch: LeaderEpoch,
    },
    /// All markers of a transaction are written, by the task that leads under this epoch.
    MarkersWritten {
        epoch: LeaderEpoch,
        transaction: Ending,
    },
}

/// The answer to a [`TransactionRequest`], of the same name.
#[derive(Debug)]
pub(crate) enum TransactionReply {
    Init(Result<InitReply, TransactionError>),
    AddPartitions(Result<(), TransactionError>),
    /// One for each partition, in the order asked.
    Verify(Result<Vec<Result<(), TransactionError>>, TransactionError>),
    End(Result<(), TransactionError>),
    Describe(Option<Description>),
    List(Vec<Listing>),
    /// Nothing: a later leadership's task has asked.
    TakeMarkers(Vec<DueMarkers>),
    MarkersWritten,
}

/// InitProducerId.
#[derive(Debug, Clone)]
pub(crate) struct InitRequest {
    pub(crate) id: Arc<str>,
    pub(crate) timeout_ms: i32,
    /// What the producer believes to have (KIP-360, InitProducerId 3 and up).
    pub(crate) expected: Option<Producer>,
    /// An id that no producer has or had, once the shard has asked for one.
    pub(crate) fresh: Option<ProducerId>,
}

/// The answer to InitProducerId.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InitReply {
    Given(ProducerId, ProducerEpoch),
    /// To be asked again with [`InitRequest::fresh`]; nothing has changed.
    NeedsProducerId,
}

/// AddPartitionsToTxn and AddOffsetsToTxn, and the verification of partitions.
#[derive(Debug, Clone)]
pub(crate) struct PartitionsRequest {
    pub(crate) id: Arc<str>,
    pub(crate) producer: Producer,
    pub(crate) partitions: Vec<TopicPartition>,
}

/// EndTxn.
#[derive(Debug, Clone)]
pub(crate) struct EndRequest {
    pub(crate) id: Arc<str>,
    pub(crate) producer: Producer,
    pub(crate) result: TransactionResult,
}

/// DescribeTransactions of one transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) state: &'static str,
    pub(crate) timeout_ms: i32,
    /// −1: no transaction was ever begun.
    pub(crate) start_ms: UnixMs,
    pub(crate) producer: Producer,
    /// In order.
    pub(crate) partitions: Vec<TopicPartition>,
}

/// ListTransactions. Empty filters let everything pass.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListRequest {
    /// Names as Kafka writes them.
    pub(crate) states: Option<Vec<String>>,
    pub(crate) producer_ids: Vec<ProducerId>,
    /// Only transactions that began longer ago.
    pub(crate) duration_ms: Option<i64>,
}

/// One row of ListTransactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) id: Arc<str>,
    pub(crate) producer_id: ProducerId,
    pub(crate) state: &'static str,
}

/// One transaction that is being ended. The same producer's next one was prepared at another time.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Ending {
    pub(crate) id: Arc<str>,
    pub(crate) producer: Producer,
    pub(crate) prepared_ms: UnixMs,
}

/// A transaction whose outcome is decided and stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DueMarkers {
    pub(crate) transaction: Ending,
    pub(crate) result: TransactionResult,
    pub(crate) partitions: Vec<TopicPartition>,
}
