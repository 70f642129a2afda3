//! SEAM: what the transaction coordinator of one broker asks of another. Plain types in both directions; the codes are
//! those of the wire. Behind a connection of `peer`, or in process.

use std::fmt::Debug;

use futures_util::future::BoxFuture;

use super::transaction::request::PartitionsRequest;
use crate::types::{BrokerId, TopicPartition, TransactionMarker};

/// No answer came, or none that can be read: what was asked may have been done all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NoAnswer(pub(crate) String);

/// Coordinator → leader of partitions, WriteTxnMarkers 1.
pub(crate) trait MarkerLink: Debug + Send + Sync + 'static {
    /// Ends transactions in partitions that `leader` is thought to lead; no producer comes twice with one partition. An
    /// error code for each marker, in order. Gives up by itself, after `request.timeout.ms`.
    fn write(
        &self,
        leader: BrokerId,
        markers: Vec<(TopicPartition, TransactionMarker)>,
    ) -> BoxFuture<'_, Result<Vec<i16>, NoAnswer>>;
}

/// Leader of partitions → coordinator, AddPartitionsToTxn 4 with `verify_only`.
pub(crate) trait VerifyLink: Debug + Send + Sync + 'static {
    /// Asks whether partitions are in open transactions; no transactional id comes twice. For each transaction an error
    /// code for each of its partitions, in order. Gives up by itself, after `request.timeout.ms`.
    fn verify(
        &self,
        coordinator: BrokerId,
        transactions: Vec<PartitionsRequest>,
    ) -> BoxFuture<'_, Result<Vec<Vec<i16>>, NoAnswer>>;
}
