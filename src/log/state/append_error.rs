//! Why a log does not take a batch. Source: Kafka 3.9 `ProducerAppendInfo`, also for the texts.

use crate::types::{Offset, ProducerEpoch, ProducerId};

/// Why a batch was not accepted. Nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AppendError {
    #[error(
        "Out of order sequence number for producer {producer_id} with epoch {producer_epoch}: {got} (incoming seq. \
         number), {} (current end sequence number)",
        last_sequence.unwrap_or(-1)
    )]
    OutOfOrderSequence {
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
        got: i32,
        /// `None`: the epoch is new and must begin with sequence 0.
        last_sequence: Option<i32>,
    },
    #[error("Epoch of producer {producer_id} is {got}, which is smaller than the last seen epoch {current}")]
    InvalidProducerEpoch { producer_id: ProducerId, got: ProducerEpoch, current: ProducerEpoch },
    /// A transactional batch, though none of the producer's transactions is open here and no coordinator has said that
    /// this partition belongs to one.
    #[error("Record was not part of an ongoing transaction")]
    InvalidTxnState { producer_id: ProducerId },
    /// A batch outside of transactions, though one of the producer's is open here.
    #[error("Expected transactional write from producer {producer_id} at offset {offset}")]
    TransactionalExpected { producer_id: ProducerId, offset: Offset },
    /// A marker of a coordinator that another one has replaced.
    #[error("Invalid coordinator epoch for producerId {producer_id}: {got} (zombie), {current} (current)")]
    TransactionCoordinatorFenced { producer_id: ProducerId, got: i32, current: i32 },
}
