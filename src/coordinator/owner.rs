//! The task that owns one shard: loads it, then receives, decides, appends, replays, and answers once that is durable.
//!
//! Lifecycle: starts with an election, ends with the resignation or when the log says that another broker leads. A
//! panic ends the process. What it publishes: whether the shard is loaded.
//!
//! Decisions of one drain of the mailbox are appended together. Their records are replayed at once, so that the next
//! decision builds on them; replies are held until the high watermark has passed everything that was decided before
//! them, also when they only show state (I-18). If an append fails, the shard holds what the log does not: it is
//! dropped, who waits is told, and a new one is loaded from the log. What belongs to a producer's transaction, or ends
//! it, is the log's to refuse: it is appended first, by itself, and replayed if it was taken.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::ready;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Sleep, sleep};
use tracing::{error, info, warn};

use super::runtime::{Shared, Unavailable};
use super::shard::{Moment, Outcome, ReplayError, Shard, Ticket};
use super::writer::{Appending, CoordinatorRecord, Entry, Loaded, WriteError};
use crate::types::{LeaderEpoch, Offset, PartitionIndex, limits};

/// Bytes that a record needs in a batch beside key and value, at most; and a batch beside its records.
pub(crate) const RECORD_OVERHEAD_BYTES: usize = 40;
pub(crate) const BATCH_OVERHEAD_BYTES: usize = 61;

/// Pause before a load is tried again after it, or an append, failed.
const RELOAD_PAUSE: Duration = Duration::from_secs(1);

/// A request on its way to a shard.
pub(crate) struct Command<S: Shard> {
    pub(crate) request: S::Request,
    pub(crate) reply: Sender<S>,
}

type Sender<S> = oneshot::Sender<Result<<S as Shard>::Reply, Unavailable>>;
type Released<S> = (Sender<S>, <S as Shard>::Reply);

/// Records that are being appended, and the replies that wait for them.
struct Flight<S: Shard> {
    appended: Appending,
    replies: Vec<Released<S>>,
}

/// Records and replies that are not under way yet.
struct Batch<S: Shard> {
    records: Vec<CoordinatorRecord>,
    bytes: usize,
    replies: Vec<Released<S>>,
}

/// Why a shard is no longer served.
enum End {
    Stopped,
    Failed(WriteError),
}

/// Owner of the shard of one partition.
pub(crate) struct Owner<S: Shard> {
    shared: Arc<Shared<S>>,
    partition: PartitionIndex,
    epoch: LeaderEpoch,
    commands: mpsc::Receiver<Command<S>>,
    active: Arc<AtomicBool>,
}

impl<S: Shard> Owner<S> {
    pub(crate) fn new(
        shared: Arc<Shared<S>>,
        partition: PartitionIndex,
        epoch: LeaderEpoch,
        commands: mpsc::Receiver<Command<S>>,
        active: Arc<AtomicBool>,
    ) -> Self {
        Self { shared, partition, epoch, commands, active }
    }

    /// Runs until the handle is dropped, or until the log is led elsewhere.
    pub(crate) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        loop {
            let loaded = tokio::select! {
                biased;
                _ = &mut stop => return,
                loaded = self.load() => loaded,
            };
            let end = match loaded {
                Ok(shard) => self.serve(shard, &mut stop).await,
                Err(error) => End::Failed(error),
            };
            self.active.store(false, Ordering::Release);
            let partition = self.partition;
            match end {
                End::Stopped => return,
                End::Failed(WriteError::NotLeader) => {
                    info!(topic = %self.shared.topic, %partition, epoch = %self.epoch, "no longer the leader");
                    return;
                }
                End::Failed(error) => {
                    error!(topic = %self.shared.topic, %partition, %error, "coordinator log failed");
                }
            }
            tokio::select! {
                biased;
                _ = &mut stop => return,
                () = sleep(RELOAD_PAUSE) => {}
            }
        }
    }

    /// Replays the log into a new shard, on the thread that reads it.
    async fn load(&self) -> Result<S, WriteError> {
        let _permit = self.shared.loads.acquire().await.map_err(|_| WriteError::NotLeader)?;
        let started_ms = self.shared.clock.monotonic_ms();
        let loading = Arc::new(Mutex::new(Some(Loading { shard: (self.shared.make)(), records: 0, skipped: 0 })));
        let visited = loading.clone();
        let visit = move |found: Loaded| match &mut *visited.lock() {
            Some(loading) => {
                loading.replay(&found);
                ControlFlow::Continue(())
            }
            // Nobody waits for this load any more.
            None => ControlFlow::Break(()),
        };
        let abandon = AbandonLoad(loading);
        self.shared.writer.load(&self.shared.topic, self.partition, Box::new(visit)).await?;
        let Loading { shard, records, skipped } = abandon.0.lock().take().expect("only this function takes it");
        let elapsed_ms = self.shared.clock.monotonic_ms() - started_ms;
        info!(
            topic = %self.shared.topic, partition = %self.partition, epoch = %self.epoch, records, skipped, elapsed_ms,
            "coordinator loaded"
        );
        Ok(shard)
    }

    async fn serve(&mut self, shard: S, stop: &mut oneshot::Receiver<()>) -> End {
        let batch_bytes_max = self.shared.writer.batch_bytes_max(&self.shared.topic);
        let mut serving = Serving {
            shared: &self.shared,
            partition: self.partition,
            epoch: self.epoch,
            shard,
            records_bytes_max: batch_bytes_max.saturating_sub(BATCH_OVERHEAD_BYTES),
            next_ticket: 0,
            waiting: HashMap::new(),
            batch: Batch { records: Vec::new(), bytes: 0, replies: Vec::new() },
            flights: VecDeque::new(),
            out: Outcome::default(),
        };
        serving.on_loaded();
        self.active.store(true, Ordering::Release);
        let mut commands = Vec::new();
        let mut alarm: Option<(i64, Pin<Box<Sleep>>)> = None;
        loop {
            serving.arm(&mut alarm);
            let accepting = serving.flights.len() < limits::COORDINATOR_APPENDS_IN_FLIGHT_MAX;
            tokio::select! {
                biased;
                _ = &mut *stop => return End::Stopped,
                landed = landed(&mut serving.flights) => {
                    if let Err(error) = serving.on_landed(landed) {
                        self.active.store(false, Ordering::Release);
                        serving.fail(&error, &mut self.commands);
                        return End::Failed(error);
                    }
                }
                () = ring(&mut alarm), if accepting => {
                    alarm = None;
                    serving.on_time();
                }
                received = self.commands.recv_many(&mut commands, limits::MAILBOX_COMMANDS_MAX), if accepting => {
                    if received == 0 {
                        return End::Stopped;
                    }
                    serving.handle(&mut commands);
                }
            }
        }
    }
}

/// A shard while its log is read.
struct Loading<S> {
    shard: S,
    records: u64,
    skipped: u64,
}

impl<S: Shard> Loading<S> {
    fn replay(&mut self, found: &Loaded) {
        self.records += 1;
        let replayed = match found {
            Loaded::Record { producer_id: None, record, .. } => self.shard.replay(record),
            Loaded::Record { producer_id: Some(id), record, .. } => self.shard.replay_in_transaction(*id, record),
            Loaded::Marker(marker) => self.shard.replay_marker(marker),
        };
        if let Err(error) = replayed {
            self.skipped += 1;
            if self.skipped <= 10 {
                warn!(?found, %error, "a coordinator record is skipped");
            }
        }
    }
}

/// Takes the shard away from the reading thread when the load is given up, so that it stops at the next record.
struct AbandonLoad<S>(Arc<Mutex<Option<Loading<S>>>>);

impl<S> Drop for AbandonLoad<S> {
    fn drop(&mut self) {
        self.0.lock().take();
    }
}

/// The result of the oldest append; never, if there is none.
async fn landed<S: Shard>(flights: &mut VecDeque<Flight<S>>) -> Result<Offset, WriteError> {
    match flights.front_mut() {
        Some(flight) => (&mut flight.appended).await,
        None => pending().await,
    }
}

async fn ring(alarm: &mut Option<(i64, Pin<Box<Sleep>>)>) {
    match alarm {
        Some((_, sleep)) => sleep.await,
        None => pending().await,
    }
}

/// A loaded shard and what is under way for it.
struct Serving<'a, S: Shard> {
    shared: &'a Shared<S>,
    partition: PartitionIndex,
    epoch: LeaderEpoch,
    shard: S,
    /// Bytes of records that one batch takes.
    records_bytes_max: usize,
    next_ticket: u64,
    /// Requests that no decision has answered yet.
    waiting: HashMap<Ticket, Sender<S>>,
    batch: Batch<S>,
    /// In the order of their appends.
    flights: VecDeque<Flight<S>>,
    /// Kept for its memory; empty between decisions.
    out: Outcome<S::Reply>,
}

impl<S: Shard> Serving<'_, S> {
    fn now(&self) -> Moment {
        Moment { unix_ms: self.shared.clock.now_ms(), monotonic_ms: self.shared.clock.monotonic_ms() }
    }

    /// Sets the alarm to when the shard wants to be called; leaves it alone if that has not changed.
    fn arm(&self, alarm: &mut Option<(i64, Pin<Box<Sleep>>)>) {
        let wake_ms = self.shard.next_wake_ms();
        if alarm.as_ref().map(|(at, _)| *at) != wake_ms {
            let now_ms = self.shared.clock.monotonic_ms();
            *alarm = wake_ms.map(|at| (at, Box::pin(sleep(Duration::from_millis((at - now_ms).max(0) as u64)))));
        }
    }

    fn on_loaded(&mut self) {
        let now = self.now();
        self.shard.on_loaded(now, &mut self.out);
        self.settle(None);
        self.flush();
    }

    fn on_time(&mut self) {
        let now = self.now();
        self.shard.on_time(now, &mut self.out);
        self.settle(None);
        self.flush();
    }

    fn handle(&mut self, commands: &mut Vec<Command<S>>) {
        let now = self.now();
        for Command { request, reply } in commands.drain(..) {
            let ticket = Ticket(self.next_ticket);
            self.next_ticket += 1;
            self.shard.handle(now, ticket, request, &mut self.out);
            self.settle(Some((ticket, reply)));
        }
        self.flush();
    }

    /// Takes over one outcome: its records are replayed and go into the batch, its replies with them.
    fn settle(&mut self, mut asked: Option<(Ticket, Sender<S>)>) {
        if self.out.transaction.is_some() || self.out.marker.is_some() {
            self.flush();
            if let Err(refusal) = self.append_in_transaction() {
                self.out.replies.clear();
                if let Some((_, sender)) = asked {
                    drop(sender.send(Err(refusal)));
                }
                return;
            }
        }
        let size = |record: &CoordinatorRecord| record.bytes() + RECORD_OVERHEAD_BYTES;
        let bytes: usize = self.out.records.iter().map(size).sum();
        // An outcome that fits a batch is not torn apart.
        if !self.batch.records.is_empty() && self.batch.bytes + bytes > self.records_bytes_max {
            self.flush();
        }
        let mut out = std::mem::take(&mut self.out);
        for record in out.records.drain(..) {
            let replayed = self.shard.replay(&record);
            self.say_if_unknown(replayed);
            if !self.batch.records.is_empty() && self.batch.bytes + size(&record) > self.records_bytes_max {
                self.flush();
            }
            self.batch.bytes += size(&record);
            self.batch.records.push(record);
        }
        for (ticket, reply) in out.replies.drain(..) {
            let sender = match asked.take() {
                Some((this, sender)) if this == ticket => Some(sender),
                other => {
                    asked = other;
                    self.waiting.remove(&ticket)
                }
            };
            if let Some(sender) = sender {
                self.batch.replies.push((sender, reply));
            }
        }
        if let Some((ticket, sender)) = asked {
            self.waiting.insert(ticket, sender);
        }
        self.out = out;
    }

    /// Appends what the outcome adds to a transaction, or ends one with, and replays it if the log took it. Any other
    /// failure to append is told by the flight.
    fn append_in_transaction(&mut self) -> Result<(), Unavailable> {
        let records = std::mem::take(&mut self.out.records);
        let transaction = self.out.transaction.take();
        let marker = self.out.marker.take();
        let added = (!records.is_empty()).then(|| Entry::Records { transaction, records });
        for entry in added.into_iter().chain(marker.map(Entry::Marker)) {
            let appended = self.shared.writer.append(&self.shared.topic, self.partition, self.epoch, entry.clone());
            let appended = match appended {
                Ok(appended) => appended,
                Err(WriteError::Transaction(refusal)) => return Err(Unavailable::Transaction(refusal)),
                Err(error) => ready(Err(error)).boxed(),
            };
            self.flights.push_back(Flight { appended, replies: Vec::new() });
            let replayed = match &entry {
                Entry::Records { transaction: Some(transaction), records } => records
                    .iter()
                    .try_for_each(|record| self.shard.replay_in_transaction(transaction.producer_id, record)),
                Entry::Records { transaction: None, records } => {
                    records.iter().try_for_each(|record| self.shard.replay(record))
                }
                Entry::Marker(marker) => self.shard.replay_marker(marker),
            };
            self.say_if_unknown(replayed);
        }
        Ok(())
    }

    fn say_if_unknown(&self, replayed: Result<(), ReplayError>) {
        if let Err(error) = replayed {
            error!(topic = %self.shared.topic, %error, "a shard does not understand its own record");
        }
    }

    /// Appends the batch. Its replies wait for it; if it has no records, for what was appended before (I-18).
    fn flush(&mut self) {
        let replies = std::mem::take(&mut self.batch.replies);
        if self.batch.records.is_empty() {
            match self.flights.back_mut() {
                Some(flight) => flight.replies.extend(replies),
                None => release::<S>(replies),
            }
            return;
        }
        self.batch.bytes = 0;
        let entry = Entry::Records { transaction: None, records: std::mem::take(&mut self.batch.records) };
        let appended = self.shared.writer.append(&self.shared.topic, self.partition, self.epoch, entry);
        let appended = appended.unwrap_or_else(|error| ready(Err(error)).boxed());
        self.flights.push_back(Flight { appended, replies });
    }

    /// The oldest append has returned.
    fn on_landed(&mut self, landed: Result<Offset, WriteError>) -> Result<(), WriteError> {
        landed?;
        if let Some(flight) = self.flights.pop_front() {
            release::<S>(flight.replies);
        }
        Ok(())
    }

    /// Tells everybody who waits, in the mailbox too, that there will be no answer.
    fn fail(self, error: &WriteError, commands: &mut mpsc::Receiver<Command<S>>) {
        let why = match error {
            WriteError::NotLeader | WriteError::Storage(_) => Unavailable::NotCoordinator,
            WriteError::NotEnoughReplicas | WriteError::TooLarge => Unavailable::NotAvailable,
            WriteError::Transaction(refusal) => Unavailable::Transaction(*refusal),
        };
        let held = self.flights.into_iter().flat_map(|flight| flight.replies).chain(self.batch.replies);
        let senders = held.map(|(sender, _)| sender).chain(self.waiting.into_values());
        senders.for_each(|sender| drop(sender.send(Err(why))));
        while let Ok(command) = commands.try_recv() {
            drop(command.reply.send(Err(why)));
        }
    }
}

fn release<S: Shard>(replies: Vec<Released<S>>) {
    for (sender, reply) in replies {
        // Who asked may have gone away.
        drop(sender.send(Ok(reply)));
    }
}
