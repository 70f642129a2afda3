//! Ending transactions in the partitions that took part: the transaction coordinator decides, this writes the markers.

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::group::GroupCoordinator;
use super::group::error::GroupError;
use super::replica_writer::append_replicated;
use super::writer::{TransactionRefusal, WriteError};
use crate::clock::SharedClock;
use crate::replica::manager::ReplicaManager;
use crate::types::topic::CONSUMER_OFFSETS;
use crate::types::{TopicPartition, TransactionMarker};

/// Why a marker is not in a partition's log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MarkerError {
    /// Not led here, or it does not exist; the image tells which.
    #[error("not the leader")]
    NotLeader,
    /// The ISR is smaller than min.insync.replicas: trying again helps.
    #[error("not enough replicas")]
    NotEnoughReplicas,
    /// It does not take it now: trying again helps.
    #[error("{0}")]
    NotAvailable(String),
    /// An answer that no broker should give: error code of another one.
    #[error("error code {0}")]
    Unexpected(i16),
    /// It never will: the transaction has ended there already, by a newer producer or coordinator.
    #[error(transparent)]
    Refused(#[from] TransactionRefusal),
}

impl From<WriteError> for MarkerError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::NotLeader => Self::NotLeader,
            WriteError::Transaction(refusal) => Self::Refused(refusal),
            WriteError::NotEnoughReplicas | WriteError::NotEnoughAfterAppend => Self::NotEnoughReplicas,
            WriteError::TooLarge | WriteError::Full | WriteError::Storage(_) => Self::NotAvailable(error.to_string()),
        }
    }
}

impl From<GroupError> for MarkerError {
    fn from(error: GroupError) -> Self {
        match error {
            GroupError::NotCoordinator => Self::NotLeader,
            GroupError::InvalidProducerEpoch => Self::Refused(TransactionRefusal::InvalidProducerEpoch),
            GroupError::TransactionCoordinatorFenced => Self::Refused(TransactionRefusal::CoordinatorFenced),
            GroupError::InvalidTxnState => Self::Refused(TransactionRefusal::InvalidTxnState),
            other => Self::NotAvailable(other.to_string()),
        }
    }
}

/// Writes markers: here, or wherever the partition is led ([`super::routed_markers`]). One attempt each.
pub(crate) trait Markers: Debug + Send + Sync + 'static {
    /// Answers once the marker is replicated.
    fn write(&self, to: TopicPartition, marker: TransactionMarker) -> BoxFuture<'static, Result<(), MarkerError>>;
}

/// A shared writer of markers.
pub(crate) type SharedMarkers = Arc<dyn Markers>;

/// Markers for partitions that this broker leads. The group coordinator writes those of `__consumer_offsets`, because
/// they decide about its offsets.
#[derive(Debug)]
pub(crate) struct LocalMarkers {
    replicas: Arc<ReplicaManager>,
    groups: Arc<GroupCoordinator>,
    clock: SharedClock,
}

impl LocalMarkers {
    pub(crate) fn new(replicas: Arc<ReplicaManager>, groups: Arc<GroupCoordinator>, clock: SharedClock) -> Arc<Self> {
        Arc::new(Self { replicas, groups, clock })
    }
}

impl Markers for LocalMarkers {
    fn write(&self, to: TopicPartition, marker: TransactionMarker) -> BoxFuture<'static, Result<(), MarkerError>> {
        if to.topic.as_str() == CONSUMER_OFFSETS {
            let groups = Arc::clone(&self.groups);
            return async move { Ok(groups.end_transaction(to.partition, marker).await?) }.boxed();
        }
        let Some(replica) = self.replicas.get(to.topic.as_str(), to.partition) else {
            return std::future::ready(Err(MarkerError::NotLeader)).boxed();
        };
        let now = self.clock.now_ms();
        let appended = append_replicated(|ack| Ok(replica.append_marker(&marker, ack, None, now)?));
        async move { Ok(appended?.await.map(drop)?) }.boxed()
    }
}
