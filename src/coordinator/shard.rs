//! What a coordinator's state machine is: a shard keeps the state of one partition of an internal topic, decides with
//! the `now` it is given, and answers with records and replies. It does no I/O, reads no clock and spawns nothing.
//!
//! The shell around it is `runtime`. The group coordinator is the first shard, the transaction coordinator the second.

use std::fmt::Debug;

use super::writer::{CoordinatorRecord, InTransaction};
use crate::clock::UnixMs;
use crate::types::{ProducerId, TransactionMarker};

/// A moment on both clocks: deadlines are monotonic, what is stored is wall time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) unix_ms: UnixMs,
    /// Milliseconds since some moment of this process; never goes back.
    pub(crate) monotonic_ms: i64,
}

/// A request that is owed a reply. The shell gives it out; a shard keeps it as long as the requester has to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Ticket(pub(crate) u64);

/// What a decision leads to. Records are appended in order; replies leave once they are replicated (I-18).
#[derive(Debug)]
pub(crate) struct Outcome<R> {
    pub(crate) records: Vec<CoordinatorRecord>,
    /// The transaction to which all of `records` belong. They are replayed as such, and fit one batch.
    pub(crate) transaction: Option<InTransaction>,
    /// Ends a transaction in this partition, after `records`.
    pub(crate) marker: Option<TransactionMarker>,
    /// To the request just handled, or to earlier ones that waited for this decision.
    pub(crate) replies: Vec<(Ticket, R)>,
}

impl<R> Default for Outcome<R> {
    fn default() -> Self {
        Self { records: Vec::new(), transaction: None, marker: None, replies: Vec::new() }
    }
}

impl<R> Outcome<R> {
    pub(crate) fn append(&mut self, record: CoordinatorRecord) {
        self.records.push(record);
    }

    pub(crate) fn reply(&mut self, ticket: Ticket, reply: R) {
        self.replies.push((ticket, reply));
    }
}

/// A record that a shard does not understand. It is skipped and counted; the rest of the log is still applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReplayError {
    /// Written by something newer, or left over from an upgrade that was undone.
    #[error("unknown key version {0}")]
    UnknownKeyVersion(i16),
    #[error("unknown value version {0}")]
    UnknownValueVersion(i16),
    #[error("malformed record")]
    Malformed,
    /// No transaction writes to this topic.
    #[error("a transactional record")]
    Transactional,
}

/// What a request has to do with the log. While the log takes no records (no space, too few replicas), the shell
/// refuses what would have to be stored before it is decided, so that nothing has to be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Shows what the log holds.
    Read,
    /// Shows what the log holds, and what is done with it cannot be taken back: it has to be replicated.
    Settled,
    /// May lead to records. The request is refused and comes again.
    Write,
    /// May lead to records, and is asked once: it is decided whatever the log says, and stored when the log takes it.
    WriteOnce,
    /// Neither: it is answered at any time.
    Presence,
}

/// The state machine of one partition of an internal topic.
///
/// What the log holds changes in [`Shard::replay`] alone (I-17): the shell calls it for each record it reads when the
/// partition is loaded, and for each record of an outcome right after that outcome. What the log does not hold (who
/// waits, who has rejoined, deadlines) may change in any method, and is lost with the shard.
pub(crate) trait Shard: Send + 'static {
    type Request: Send + 'static;
    type Reply: Debug + Send + 'static;

    /// What the shell may let a request do while the log takes no records.
    fn access(request: &Self::Request) -> Access;

    /// Decides one request. It is answered by a reply to `ticket`, now or in a later outcome.
    fn handle(&mut self, now: Moment, ticket: Ticket, request: Self::Request, out: &mut Outcome<Self::Reply>);

    /// Applies one record.
    fn replay(&mut self, record: &CoordinatorRecord) -> Result<(), ReplayError>;

    /// Applies one record of an open transaction: it counts once [`Shard::replay_marker`] says that it was committed.
    fn replay_in_transaction(&mut self, _: ProducerId, _: &CoordinatorRecord) -> Result<(), ReplayError> {
        Err(ReplayError::Transactional)
    }

    /// A producer's transaction has ended in this partition.
    fn replay_marker(&mut self, _: &TransactionMarker) -> Result<(), ReplayError> {
        Err(ReplayError::Transactional)
    }

    /// Replies that the shard has given were not passed on, because the log refused what they waited for. Their
    /// requests were told to ask again. The records are stored later, in their order.
    fn on_replies_lost(&mut self) {}

    /// The whole log has been replayed and is replicated: time runs from here on. Before it there may have been
    /// requests that read.
    fn on_loaded(&mut self, now: Moment, out: &mut Outcome<Self::Reply>);

    /// When [`Shard::on_time`] is to be called, on the monotonic clock.
    fn next_wake_ms(&self) -> Option<i64>;

    /// Does what is due.
    fn on_time(&mut self, now: Moment, out: &mut Outcome<Self::Reply>);
}
