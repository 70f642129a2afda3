//! How a transaction ends in the partitions that take part.

use std::fmt;

use super::{ProducerEpoch, ProducerId};

/// The outcome of a transaction. Source: Kafka `TransactionResult`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TransactionResult {
    Abort,
    Commit,
}

impl fmt::Display for TransactionResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Abort => "ABORT",
            Self::Commit => "COMMIT",
        })
    }
}

/// What ends a producer's transaction in one partition, as a control batch in its log.
/// Source: Kafka `EndTransactionMarker`, `WriteTxnMarkersRequest.TxnMarkerEntry`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionMarker {
    pub producer_id: ProducerId,
    pub producer_epoch: ProducerEpoch,
    /// Leader epoch of the coordinator's partition of `__transaction_state`; a former coordinator has a lower one.
    pub coordinator_epoch: i32,
    pub result: TransactionResult,
}

/// A verification of a transaction that is under way in one partition: its holder may append the first batch of that
/// transaction, unless a marker came meanwhile. Source: Kafka 3.9 `VerificationGuard`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TransactionGuard(pub u64);
