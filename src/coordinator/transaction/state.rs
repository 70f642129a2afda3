//! What may happen to one transactional id: pure decisions over what is stored of it.
//!
//! ```text
//! Empty ──add──► Ongoing ──end──► PrepareCommit | PrepareAbort ──markers written──► CompleteCommit | CompleteAbort
//!   ▲               └─ InitProducerId, time-out: epoch + 1, PrepareAbort                        │ add: Ongoing
//!   └────────────────────────────────── InitProducerId ─────────────────────────────────────────┘
//! ```
//! Kafka keeps a second, pending state while a record is on its way to the log; here the next decision builds on the
//! first at once, and its reply waits for both.
//! Source: Kafka 3.9 `TransactionCoordinator`, `TransactionMetadata`.

use std::collections::BTreeSet;

use super::error::TransactionError;
use super::request::Producer;
use crate::clock::UnixMs;
use crate::types::{ProducerEpoch, ProducerId, TopicPartition, TransactionResult};

/// The highest epoch that a producer is given; the one after it is left to fence with.
/// Source: Kafka `TransactionMetadata.isEpochExhausted`.
const EPOCH_MAX: ProducerEpoch = ProducerEpoch(i16::MAX - 1);

/// State of a transactional id as stored. Kafka's `Dead` and `PrepareEpochFence` never are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Empty,
    Ongoing,
    PrepareCommit,
    PrepareAbort,
    CompleteCommit,
    CompleteAbort,
}

/// In the order of their codes.
const STATES: [State; 6] = [
    State::Empty,
    State::Ongoing,
    State::PrepareCommit,
    State::PrepareAbort,
    State::CompleteCommit,
    State::CompleteAbort,
];

/// All names of states that Kafka knows, also those that nothing here ever has.
pub(crate) fn state_names() -> impl Iterator<Item = &'static str> {
    STATES.into_iter().map(State::name).chain(["Dead", "PrepareEpochFence"])
}

impl State {
    pub(super) fn code(self) -> i8 {
        self as i8
    }

    pub(super) fn of_code(code: i8) -> Option<Self> {
        STATES.get(usize::try_from(code).ok()?).copied()
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::PrepareCommit => "PrepareCommit",
            Self::PrepareAbort => "PrepareAbort",
            Self::CompleteCommit => "CompleteCommit",
            Self::CompleteAbort => "CompleteAbort",
        }
    }

    /// The outcome that is decided and not yet complete.
    pub(super) fn prepared(self) -> Option<TransactionResult> {
        match self {
            Self::PrepareCommit => Some(TransactionResult::Commit),
            Self::PrepareAbort => Some(TransactionResult::Abort),
            Self::Empty | Self::Ongoing | Self::CompleteCommit | Self::CompleteAbort => None,
        }
    }
}

/// What is stored of a transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TransactionValue {
    pub(super) producer_id: ProducerId,
    pub(super) producer_epoch: ProducerEpoch,
    pub(super) timeout_ms: i32,
    pub(super) state: State,
    pub(super) partitions: BTreeSet<TopicPartition>,
    pub(super) last_update_ms: UnixMs,
    /// −1: no transaction was begun since the last InitProducerId.
    pub(super) start_ms: UnixMs,
}

/// A transactional id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transaction {
    pub(super) stored: TransactionValue,
    /// What the last InitProducerId replaced, so that its repetition is recognised (KIP-360). Not stored, so that a
    /// repetition at another coordinator fails, as in Kafka.
    pub(super) previous: Producer,
}

/// Nothing to recognise.
pub(super) const NO_PRODUCER: Producer = (ProducerId::NONE, ProducerEpoch::NONE);

/// A decision about InitProducerId.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Init {
    /// The producer has this id and epoch now.
    Given { next: TransactionValue, previous: Producer },
    /// The transaction that is open has to be aborted first; the producer is to come again.
    Fenced { next: TransactionValue },
    /// A new producer id is needed.
    NeedsProducerId,
}

/// A transactional id that is new.
pub(super) fn first(now_ms: UnixMs, producer_id: ProducerId, timeout_ms: i32) -> TransactionValue {
    TransactionValue {
        producer_id,
        producer_epoch: ProducerEpoch(0),
        timeout_ms,
        state: State::Empty,
        partitions: BTreeSet::new(),
        last_update_ms: now_ms,
        start_ms: -1,
    }
}

impl Transaction {
    pub(super) fn producer(&self) -> Producer {
        (self.stored.producer_id, self.stored.producer_epoch)
    }

    /// InitProducerId. Source: Kafka `TransactionCoordinator.prepareInitProducerIdTransit`.
    pub(super) fn init(
        &self,
        now_ms: UnixMs,
        timeout_ms: i32,
        expected: Option<Producer>,
        fresh: Option<ProducerId>,
    ) -> Result<Init, TransactionError> {
        let (producer_id, epoch) = self.producer();
        // The id of before the last change is right if its epochs were used up: the answer may have been lost.
        let is_known = |expected: Producer| {
            expected.0 == producer_id || (expected.0 == self.previous.0 && expected.1 >= EPOCH_MAX)
        };
        if !expected.is_none_or(is_known) {
            return Err(TransactionError::ProducerFenced);
        }
        match self.stored.state {
            State::PrepareCommit | State::PrepareAbort => return Err(TransactionError::ConcurrentTransactions),
            State::Ongoing => return Ok(Init::Fenced { next: self.fence(now_ms) }),
            State::Empty | State::CompleteCommit | State::CompleteAbort => {}
        }
        let last = expected.map_or(ProducerEpoch::NONE, |_| epoch);
        let given = |producer_id, producer_epoch, previous_epoch| Init::Given {
            next: TransactionValue { producer_epoch, ..first(now_ms, producer_id, timeout_ms) },
            previous: (self.stored.producer_id, previous_epoch),
        };
        match expected {
            Some(expected) if expected.1 != epoch => {
                // A repetition: no request came in between, which would have cleared what was before.
                if expected.1 == self.previous.1 {
                    return Ok(Init::Given { next: self.renewed(now_ms, timeout_ms), previous: self.previous });
                }
                Err(TransactionError::ProducerFenced)
            }
            _ if epoch >= EPOCH_MAX => match fresh {
                Some(fresh) => Ok(given(fresh, ProducerEpoch(0), last)),
                None => Ok(Init::NeedsProducerId),
            },
            _ => Ok(given(producer_id, ProducerEpoch(epoch.0 + 1), last)),
        }
    }

    /// Empty, with the producer it has.
    fn renewed(&self, now_ms: UnixMs, timeout_ms: i32) -> TransactionValue {
        let producer_epoch = self.stored.producer_epoch;
        TransactionValue { producer_epoch, ..first(now_ms, self.stored.producer_id, timeout_ms) }
    }

    /// The open transaction is aborted under an epoch that no producer was given. Source: Kafka
    /// `TransactionMetadata.prepareFenceProducerEpoch`.
    pub(super) fn fence(&self, now_ms: UnixMs) -> TransactionValue {
        let producer_epoch = ProducerEpoch(self.stored.producer_epoch.0.saturating_add(1));
        TransactionValue { producer_epoch, ..self.prepare(now_ms, TransactionResult::Abort) }
    }

    fn check(&self, producer: Producer) -> Result<(), TransactionError> {
        if producer.0 != self.stored.producer_id {
            return Err(TransactionError::InvalidProducerIdMapping);
        }
        if producer.1 != self.stored.producer_epoch {
            return Err(TransactionError::ProducerFenced);
        }
        Ok(())
    }

    /// AddPartitionsToTxn; `None`: they are all there already.
    /// Source: Kafka `TransactionCoordinator.handleAddPartitionsToTransaction`.
    pub(super) fn add(
        &self,
        now_ms: UnixMs,
        producer: Producer,
        partitions: Vec<TopicPartition>,
    ) -> Result<Option<TransactionValue>, TransactionError> {
        self.check(producer)?;
        let stored = &self.stored;
        let start_ms = match stored.state {
            State::PrepareCommit | State::PrepareAbort => return Err(TransactionError::ConcurrentTransactions),
            State::Ongoing if partitions.iter().all(|partition| stored.partitions.contains(partition)) => {
                return Ok(None);
            }
            State::Ongoing => stored.start_ms,
            State::Empty | State::CompleteCommit | State::CompleteAbort => now_ms,
        };
        let mut next = stored.clone();
        next.partitions.extend(partitions);
        let last_update_ms = now_ms.max(stored.last_update_ms);
        Ok(Some(TransactionValue { state: State::Ongoing, last_update_ms, start_ms, ..next }))
    }

    /// Whether each partition is in the transaction.
    /// Source: Kafka `TransactionCoordinator.handleVerifyPartitionsInTransaction`.
    pub(super) fn verify(
        &self,
        producer: Producer,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Result<(), TransactionError>>, TransactionError> {
        self.check(producer)?;
        if self.stored.state.prepared().is_some() {
            return Err(TransactionError::ConcurrentTransactions);
        }
        let is_in = |partition| self.stored.partitions.contains(partition);
        let verified = partitions.iter().map(|partition| is_in(partition).then_some(()));
        Ok(verified.map(|verified| verified.ok_or(TransactionError::InvalidTxnState)).collect())
    }

    /// EndTxn; `None`: it has ended so already. While it ends, Kafka answers CONCURRENT_TRANSACTIONS to either outcome,
    /// because a transition is pending. Source: Kafka `TransactionCoordinator.endTransaction`.
    pub(super) fn end(
        &self,
        now_ms: UnixMs,
        producer: Producer,
        result: TransactionResult,
    ) -> Result<Option<TransactionValue>, TransactionError> {
        self.check(producer)?;
        match (self.stored.state, result) {
            (State::Ongoing, _) => Ok(Some(self.prepare(now_ms, result))),
            (State::CompleteCommit, TransactionResult::Commit) | (State::CompleteAbort, TransactionResult::Abort) => {
                Ok(None)
            }
            (State::PrepareCommit | State::PrepareAbort, _) => Err(TransactionError::ConcurrentTransactions),
            (State::Empty | State::CompleteCommit | State::CompleteAbort, _) => Err(TransactionError::InvalidTxnState),
        }
    }

    fn prepare(&self, now_ms: UnixMs, result: TransactionResult) -> TransactionValue {
        let state = match result {
            TransactionResult::Commit => State::PrepareCommit,
            TransactionResult::Abort => State::PrepareAbort,
        };
        // The time tells the transaction from the next one of the same producer, so it does not stand still.
        let last_update_ms = now_ms.max(self.stored.last_update_ms.saturating_add(1));
        TransactionValue { state, last_update_ms, ..self.stored.clone() }
    }

    /// All markers are written; `None`: no outcome was decided. The start of the transaction stays, as in Kafka.
    pub(super) fn complete(&self, now_ms: UnixMs) -> Option<TransactionValue> {
        let state = match self.stored.state.prepared()? {
            TransactionResult::Commit => State::CompleteCommit,
            TransactionResult::Abort => State::CompleteAbort,
        };
        let last_update_ms = now_ms.max(self.stored.last_update_ms);
        Some(TransactionValue { state, partitions: BTreeSet::new(), last_update_ms, ..self.stored })
    }

    /// Whether the open transaction has lasted longer than its producer allowed it to.
    pub(super) fn has_timed_out(&self, now_ms: UnixMs) -> bool {
        let stored = &self.stored;
        stored.state == State::Ongoing && stored.start_ms.saturating_add(i64::from(stored.timeout_ms)) < now_ms
    }

    /// Whether it has not been used for so long that it may be forgotten.
    pub(super) fn has_expired(&self, now_ms: UnixMs, expiration_ms: i64) -> bool {
        match self.stored.state {
            State::Empty | State::CompleteCommit | State::CompleteAbort => {
                self.stored.last_update_ms <= now_ms.saturating_sub(expiration_ms)
            }
            State::Ongoing | State::PrepareCommit | State::PrepareAbort => false,
        }
    }
}
