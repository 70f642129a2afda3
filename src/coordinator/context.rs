//! What the shards of one coordinator have in common, and why one of them may not answer.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::shard::Shard;
use super::writer::{SharedWriter, TransactionRefusal};
use crate::clock::SharedClock;
use crate::types::TopicName;

/// Why a request has no answer. It may have been carried out all the same, as with any lost reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unavailable {
    /// The partition is not led here, or no longer.
    #[error("not the coordinator")]
    NotCoordinator,
    /// Its log is being replayed, or was and is not replicated yet.
    #[error("the coordinator is loading")]
    Loading,
    /// It takes nothing that has to be stored, or what it would show is not replicated, for the time being. What Kafka
    /// answers while the log has too few replicas (`GroupMetadataManager`, `TransactionStateManager`); for want of
    /// space, which stops a Kafka broker, the same: every client looks the coordinator up again, finds this one and
    /// repeats, until there is space.
    #[error("the coordinator is not available")]
    NotAvailable,
    /// It did not take this into a transaction, or end one so; nothing has changed.
    #[error(transparent)]
    Transaction(TransactionRefusal),
}

/// Makes the empty shard of a partition, before its log is replayed.
pub(crate) type MakeShard<S> = Arc<dyn Fn() -> S + Send + Sync>;

/// What all shards of a coordinator share.
pub(crate) struct Context<S: Shard> {
    pub(crate) topic: TopicName,
    pub(crate) writer: SharedWriter,
    pub(crate) clock: SharedClock,
    pub(crate) make: MakeShard<S>,
    /// Bounds how many logs are read at the same time.
    pub(crate) loads: Semaphore,
}
