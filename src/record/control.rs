//! Control batches: the markers that end a transaction in a partition's log.
//!
//! One record: key {version i16 = 0, type i16: 0 abort, 1 commit}, value {version i16 = 0, coordinator epoch i32}.
//! Consumers skip the batch, and readers of committed data learn from it what to drop.
//! Source: Kafka `EndTransactionMarker`, `ControlRecordType`.

use super::batch::NO_SEQUENCE;
use super::build::BatchBuilder;
use super::validate::ValidBatch;
use crate::clock::UnixMs;
use crate::types::{ProducerEpoch, ProducerId};

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum MarkerKind {
    Abort,
    Commit,
}

/// The end of one producer's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EndTransactionMarker {
    pub(crate) kind: MarkerKind,
    /// Epoch of the transaction coordinator that decided; older ones are fenced (I-20).
    pub(crate) coordinator_epoch: i32,
}

impl EndTransactionMarker {
    /// The marker as a batch, to be appended like any other.
    pub(crate) fn to_batch(self, producer_id: ProducerId, producer_epoch: ProducerEpoch, now: UnixMs) -> ValidBatch {
        let mut key = [0; 4];
        key[2..].copy_from_slice(&(self.kind as i16).to_be_bytes());
        let mut value = [0; 6];
        value[2..].copy_from_slice(&self.coordinator_epoch.to_be_bytes());
        let mut batch =
            BatchBuilder::new().transactional().control().producer(producer_id, producer_epoch, NO_SEQUENCE);
        batch.append(now, Some(&key), Some(&value));
        batch.finish()
    }

    /// Reads the record of a control batch. `None`: another kind of control record (later formats), or not one at all.
    /// Newer versions may have more bytes, never fewer.
    pub(crate) fn parse(key: Option<&[u8]>, value: Option<&[u8]>) -> Option<Self> {
        let (version, rest) = key?.split_first_chunk::<2>()?;
        let kind = match i16::from_be_bytes(*rest.first_chunk()?) {
            0 => MarkerKind::Abort,
            1 => MarkerKind::Commit,
            _ => return None,
        };
        let (value_version, rest) = value?.split_first_chunk::<2>()?;
        if i16::from_be_bytes(*version) < 0 || i16::from_be_bytes(*value_version) < 0 {
            return None;
        }
        Some(Self { kind, coordinator_epoch: i32::from_be_bytes(*rest.first_chunk()?) })
    }
}
