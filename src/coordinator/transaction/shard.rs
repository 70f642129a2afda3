//! All transactional ids of one partition of `__transaction_state`: routes requests to them, replays their records,
//! says whose markers are due, and keeps the time for them.

use std::collections::HashMap;
use std::sync::Arc;

use tracing::{debug, error, info};

use super::config::TransactionConfig;
use super::error::TransactionError;
use super::records;
use super::request::{
    Description, DueMarkers, EndRequest, Ending, InitReply, InitRequest, ListRequest, Listing, PartitionsRequest,
    TransactionReply, TransactionRequest,
};
use super::state::{self, Init, NO_PRODUCER, Transaction, TransactionValue};
use crate::coordinator::serving::{BATCH_OVERHEAD_BYTES, RECORD_OVERHEAD_BYTES};
use crate::coordinator::shard::{Access, Moment, Outcome, ReplayError, Shard, Ticket};
use crate::coordinator::writer::CoordinatorRecord;
use crate::types::{LeaderEpoch, ProducerEpoch, limits};

type Out = Outcome<TransactionReply>;

/// The transactional ids of one partition of `__transaction_state`.
#[derive(Debug)]
pub(super) struct TransactionShard {
    config: Arc<TransactionConfig>,
    batch_bytes_max: usize,
    transactions: HashMap<Arc<str>, Transaction>,
    /// The writer of the markers; until it has come there is none to tell.
    taker: Option<Taker>,
    /// When to look for transactions that timed out, and for ids that expired; monotonic.
    abort_sweep_ms: i64,
    expiry_sweep_ms: i64,
}

/// The task that writes markers.
#[derive(Debug)]
struct Taker {
    epoch: LeaderEpoch,
    /// Its request, if it waits.
    waits: Option<Ticket>,
    /// What it has to be given.
    due: Vec<DueMarkers>,
}

impl TransactionShard {
    /// A shard before its log is replayed. `batch_bytes_max`: the internal topic's max.message.bytes.
    pub(super) fn new(config: Arc<TransactionConfig>, batch_bytes_max: usize) -> Self {
        Self {
            config,
            batch_bytes_max,
            transactions: HashMap::new(),
            taker: None,
            abort_sweep_ms: i64::MAX,
            expiry_sweep_ms: i64::MAX,
        }
    }

    /// The ids for which `wanted` holds, in order: what is done to all is done in the same order in every run.
    fn ids(&self, wanted: impl Fn(&Transaction) -> bool) -> Vec<Arc<str>> {
        let wanted = self.transactions.iter().filter(|(_, transaction)| wanted(transaction));
        let mut ids: Vec<Arc<str>> = wanted.map(|(id, _)| id.clone()).collect();
        ids.sort_unstable();
        ids
    }

    fn find(&self, id: &str) -> Result<&Transaction, TransactionError> {
        self.transactions.get(id).ok_or(TransactionError::InvalidProducerIdMapping)
    }

    /// Appends the record of `next`; if that decides an outcome, its markers are due.
    fn store(&mut self, id: &Arc<str>, next: &TransactionValue, out: &mut Out) -> Result<(), TransactionError> {
        let record = records::record(id, Some(next)).map_err(|_| TransactionError::InvalidRequest)?;
        if record.bytes() + RECORD_OVERHEAD_BYTES + BATCH_OVERHEAD_BYTES > self.batch_bytes_max {
            return Err(TransactionError::UnknownServerError);
        }
        out.append(record);
        if let (Some(taker), Some(due)) = (&mut self.taker, due(id, next)) {
            taker.due.push(due);
        }
        Ok(())
    }

    fn init(
        &mut self,
        now: Moment,
        InitRequest { id, timeout_ms, expected, fresh }: InitRequest,
        out: &mut Out,
    ) -> Result<InitReply, TransactionError> {
        let Some(transaction) = self.transactions.get(&id) else {
            let Some(fresh) = fresh else {
                return Ok(InitReply::NeedsProducerId);
            };
            self.store(&id, &state::first(now.unix_ms, fresh, timeout_ms), out)?;
            return Ok(InitReply::Given(fresh, ProducerEpoch(0)));
        };
        let (next, previous, reply) = match transaction.init(now.unix_ms, timeout_ms, expected, fresh)? {
            Init::NeedsProducerId => return Ok(InitReply::NeedsProducerId),
            Init::Given { next, previous } => {
                let reply = InitReply::Given(next.producer_id, next.producer_epoch);
                (next, previous, Ok(reply))
            }
            Init::Fenced { next } => {
                info!(transactional_id = %id, "a new producer aborts what the former left open");
                (next, (transaction.previous.0, ProducerEpoch::NONE), Err(TransactionError::ConcurrentTransactions))
            }
        };
        self.store(&id, &next, out)?;
        if let Some(transaction) = self.transactions.get_mut(&id) {
            transaction.previous = previous;
        }
        reply
    }

    fn add(&mut self, now: Moment, request: PartitionsRequest, out: &mut Out) -> Result<(), TransactionError> {
        match self.find(&request.id)?.add(now.unix_ms, request.producer, request.partitions)? {
            Some(next) => self.store(&request.id, &next, out),
            None => Ok(()),
        }
    }

    fn end(&mut self, now: Moment, request: &EndRequest, out: &mut Out) -> Result<(), TransactionError> {
        match self.find(&request.id)?.end(now.unix_ms, request.producer, request.result)? {
            Some(next) => self.store(&request.id, &next, out),
            None => Ok(()),
        }
    }

    fn describe(&self, id: &str) -> Option<Description> {
        let transaction = self.transactions.get(id)?;
        let stored = &transaction.stored;
        Some(Description {
            state: stored.state.name(),
            timeout_ms: stored.timeout_ms,
            start_ms: stored.start_ms,
            producer: transaction.producer(),
            partitions: stored.partitions.iter().cloned().collect(),
        })
    }

    /// Source: Kafka `TransactionStateManager.listTransactionStates`.
    fn list(&self, now: Moment, request: &ListRequest) -> Vec<Listing> {
        let wanted = |stored: &TransactionValue| {
            let lasted_ms = now.unix_ms.saturating_sub(stored.start_ms);
            (request.producer_ids.is_empty() || request.producer_ids.contains(&stored.producer_id))
                && request.states.as_ref().is_none_or(|names| names.iter().any(|name| name == stored.state.name()))
                && request.duration_ms.is_none_or(|duration_ms| lasted_ms > duration_ms)
        };
        let found = self.transactions.iter().filter(|(_, transaction)| wanted(&transaction.stored));
        found
            .map(|(id, Transaction { stored, .. })| Listing {
                id: id.clone(),
                producer_id: stored.producer_id,
                state: stored.state.name(),
            })
            .collect()
    }

    /// Lets a task wait for markers. The first request of a leadership's task gets all that are due, because it knows
    /// of none; a former leadership's is sent away.
    fn take_markers(&mut self, ticket: Ticket, epoch: LeaderEpoch, out: &mut Out) {
        let taker = match self.taker.take() {
            Some(taker) if taker.epoch > epoch => {
                self.taker = Some(taker);
                return out.reply(ticket, TransactionReply::TakeMarkers(Vec::new()));
            }
            Some(taker) => {
                if let Some(former) = taker.waits {
                    out.reply(former, TransactionReply::TakeMarkers(Vec::new()));
                }
                (taker.epoch == epoch).then_some(taker.due)
            }
            None => None,
        };
        let all = || {
            let prepared = self.ids(|transaction| transaction.stored.state.prepared().is_some());
            prepared.iter().filter_map(|id| due(id, &self.transactions.get(id)?.stored)).collect()
        };
        let due = taker.unwrap_or_else(all);
        self.taker = Some(Taker { epoch, waits: Some(ticket), due });
    }

    /// Gives the task that waits for markers what is due.
    fn hand_out(&mut self, out: &mut Out) {
        if let Some(taker) = &mut self.taker
            && !taker.due.is_empty()
            && let Some(ticket) = taker.waits.take()
        {
            out.reply(ticket, TransactionReply::TakeMarkers(std::mem::take(&mut taker.due)));
        }
    }

    /// A former leadership's task does not complete what the present one was told of and writes markers for: those
    /// would come after the completion, and end the producer's next transaction.
    fn markers_written(&mut self, now: Moment, epoch: LeaderEpoch, ending: &Ending, out: &mut Out) {
        if self.taker.as_ref().is_some_and(|taker| taker.epoch > epoch) {
            return;
        }
        let Some(transaction) = self.transactions.get(&ending.id) else { return };
        let is_this =
            transaction.producer() == ending.producer && transaction.stored.last_update_ms == ending.prepared_ms;
        if let Some(next) = transaction.complete(now.unix_ms).filter(|_| is_this) {
            debug!(transactional_id = %ending.id, state = next.state.name(), "transaction complete");
            // Shorter than what is stored already.
            if let Err(error) = self.store(&ending.id, &next, out) {
                error!(transactional_id = %ending.id, %error, "a transaction whose markers are written cannot complete");
            }
        }
    }

    /// Aborts transactions that have lasted too long. Source: Kafka `TransactionCoordinator.abortTimedOutTransactions`.
    fn abort_timed_out(&mut self, now: Moment, out: &mut Out) {
        let late = self.ids(|transaction| transaction.has_timed_out(now.unix_ms));
        for id in late.into_iter().take(limits::COORDINATOR_SWEEP_RECORDS_MAX) {
            let Some(transaction) = self.transactions.get_mut(&id) else { continue };
            transaction.previous.1 = ProducerEpoch::NONE;
            let next = transaction.fence(now.unix_ms);
            info!(transactional_id = %id, epoch = %next.producer_epoch, "aborted: the transaction timed out");
            // As long as what is stored already.
            if let Err(error) = self.store(&id, &next, out) {
                error!(transactional_id = %id, %error, "a transaction that timed out cannot be aborted");
            }
        }
    }

    /// Forgets ids that are not used. Answers whether there were more than one sweep takes. Source: Kafka
    /// `TransactionStateManager.removeExpiredTransactionalIds`.
    fn forget_expired(&mut self, now: Moment, out: &mut Out) -> bool {
        let expired = self.ids(|transaction| transaction.has_expired(now.unix_ms, self.config.expiration_ms));
        for id in expired.iter().take(limits::COORDINATOR_SWEEP_RECORDS_MAX) {
            info!(transactional_id = %id, "expired");
            if let Ok(tombstone) = records::record(id, None) {
                out.append(tombstone);
            }
        }
        expired.len() > limits::COORDINATOR_SWEEP_RECORDS_MAX
    }
}

/// The markers of a transaction whose outcome is decided.
fn due(id: &Arc<str>, stored: &TransactionValue) -> Option<DueMarkers> {
    let result = stored.state.prepared()?;
    let producer = (stored.producer_id, stored.producer_epoch);
    Some(DueMarkers {
        transaction: Ending { id: id.clone(), producer, prepared_ms: stored.last_update_ms },
        result,
        partitions: stored.partitions.iter().cloned().collect(),
    })
}

impl Shard for TransactionShard {
    type Request = TransactionRequest;
    type Reply = TransactionReply;

    fn access(request: &TransactionRequest) -> Access {
        match request {
            TransactionRequest::Init(_)
            | TransactionRequest::AddPartitions(_)
            | TransactionRequest::End(_)
            | TransactionRequest::MarkersWritten { .. } => Access::Write,
            TransactionRequest::Describe { .. } | TransactionRequest::List(_) => Access::Read,
            TransactionRequest::Verify(_) | TransactionRequest::TakeMarkers { .. } => Access::Settled,
        }
    }

    /// The task that writes markers may not have heard of some: it is told of all again.
    fn on_replies_lost(&mut self) {
        self.taker.take_if(|taker| taker.waits.is_none());
    }

    fn handle(&mut self, now: Moment, ticket: Ticket, request: TransactionRequest, out: &mut Out) {
        let reply = match request {
            TransactionRequest::Init(request) => TransactionReply::Init(self.init(now, request, out)),
            TransactionRequest::AddPartitions(request) => TransactionReply::AddPartitions(self.add(now, request, out)),
            TransactionRequest::Verify(request) => {
                let found = self.find(&request.id);
                TransactionReply::Verify(found.and_then(|found| found.verify(request.producer, &request.partitions)))
            }
            TransactionRequest::End(request) => TransactionReply::End(self.end(now, &request, out)),
            TransactionRequest::Describe { id } => TransactionReply::Describe(self.describe(&id)),
            TransactionRequest::List(request) => TransactionReply::List(self.list(now, &request)),
            TransactionRequest::TakeMarkers { epoch } => {
                self.take_markers(ticket, epoch, out);
                return self.hand_out(out);
            }
            TransactionRequest::MarkersWritten { epoch, transaction } => {
                self.markers_written(now, epoch, &transaction, out);
                TransactionReply::MarkersWritten
            }
        };
        out.reply(ticket, reply);
        self.hand_out(out);
    }

    fn replay(&mut self, record: &CoordinatorRecord) -> Result<(), ReplayError> {
        let id = records::read_key(&record.key)?;
        let Some(value) = &record.value else {
            self.transactions.remove(id);
            return Ok(());
        };
        let stored = records::read_value(value)?;
        match self.transactions.get_mut(id) {
            Some(transaction) => transaction.stored = stored,
            None => {
                self.transactions.insert(id.into(), Transaction { stored, previous: NO_PRODUCER });
            }
        }
        Ok(())
    }

    fn on_loaded(&mut self, now: Moment, _: &mut Out) {
        self.abort_sweep_ms = now.monotonic_ms.saturating_add(self.config.abort_check_interval_ms);
        self.expiry_sweep_ms = now.monotonic_ms.saturating_add(self.config.expiration_check_interval_ms);
    }

    fn next_wake_ms(&self) -> Option<i64> {
        // Looks at nothing are not worth a wake-up.
        (!self.transactions.is_empty()).then(|| self.abort_sweep_ms.min(self.expiry_sweep_ms))
    }

    fn on_time(&mut self, now: Moment, out: &mut Out) {
        if now.monotonic_ms >= self.abort_sweep_ms {
            self.abort_sweep_ms = now.monotonic_ms.saturating_add(self.config.abort_check_interval_ms);
            self.abort_timed_out(now, out);
        }
        if now.monotonic_ms >= self.expiry_sweep_ms {
            let more = self.forget_expired(now, out);
            let pause_ms = if more { 0 } else { self.config.expiration_check_interval_ms };
            self.expiry_sweep_ms = now.monotonic_ms.saturating_add(pause_ms);
        }
        self.hand_out(out);
    }
}

#[cfg(test)]
impl TransactionShard {
    /// What the log holds of an id.
    pub(super) fn stored(&self, id: &str) -> Option<&TransactionValue> {
        self.transactions.get(id).map(|transaction| &transaction.stored)
    }
}
