//! What is under way for a shard: records that are being appended, the requests that wait for them, and what those are
//! told.

use std::collections::VecDeque;
use std::future::pending;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::context::Unavailable;
use super::shard::Shard;
use super::writer::{Appending, Entry, WriteError};
use crate::types::Offset;

/// How long requests wait for an append to be replicated. Source: Kafka `offsets.commit.timeout.ms`; its coordinators
/// give appends to their logs this time, or that of the member's rebalance.
const REPLICATION_PATIENCE: Duration = Duration::from_secs(5);

/// A request on its way to a shard.
pub(crate) struct Command<S: Shard> {
    pub(crate) request: S::Request,
    pub(crate) reply: Sender<S>,
}

pub(super) type Sender<S> = oneshot::Sender<Result<<S as Shard>::Reply, Unavailable>>;
pub(super) type Released<S> = (Sender<S>, <S as Shard>::Reply);

/// Records that are being appended, and the replies that wait for them.
pub(super) struct Flight<S: Shard> {
    /// Kept until it is in the log, because the shard has it already.
    pub(super) entry: Entry,
    pub(super) appended: Appending,
    pub(super) replies: Vec<Released<S>>,
    /// When its replies are given up.
    pub(super) patience_ends: Instant,
    /// They have been.
    pub(super) is_late: bool,
}

impl<S: Shard> Flight<S> {
    pub(super) fn new(entry: Entry, appended: Appending, replies: Vec<Released<S>>) -> Self {
        Self { entry, appended, replies, patience_ends: Instant::now() + REPLICATION_PATIENCE, is_late: false }
    }
}

/// The result of the oldest append; never, if there is none.
pub(super) async fn landed<S: Shard>(flights: &mut VecDeque<Flight<S>>) -> Result<Offset, WriteError> {
    match flights.front_mut() {
        Some(flight) => (&mut flight.appended).await,
        None => pending().await,
    }
}

/// What a request is told of an append that failed. Source: Kafka 3.9 `GroupMetadataManager.putCacheCallback`,
/// `TransactionStateManager.appendTransactionToLog`; for want of space see [`Unavailable::NotAvailable`].
pub(super) fn unavailable(error: &WriteError) -> Unavailable {
    match error {
        WriteError::NotLeader | WriteError::Storage(_) => Unavailable::NotCoordinator,
        WriteError::NotEnoughReplicas | WriteError::NotEnoughAfterAppend | WriteError::Full | WriteError::TooLarge => {
            Unavailable::NotAvailable
        }
        WriteError::Transaction(refusal) => Unavailable::Transaction(*refusal),
    }
}

pub(super) fn answer<S: Shard>(sender: Sender<S>, answer: Result<S::Reply, Unavailable>) {
    // The asker may have gone away, and then no answer is owed.
    drop(sender.send(answer));
}

pub(super) fn release<S: Shard>(replies: Vec<Released<S>>) {
    for (sender, reply) in replies {
        answer::<S>(sender, Ok(reply));
    }
}
