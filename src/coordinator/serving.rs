//! A loaded shard, served: receives, decides, appends, replays, and answers once that is durable.
//!
//! Decisions of one drain of the mailbox are appended together. Their records are replayed at once, so that the next
//! decision builds on them; replies are held until the high watermark has passed everything that was decided before
//! them, also when they only show state (I-18). What belongs to a producer's transaction, or ends it, is the log's to
//! refuse: it is appended first, by itself, and replayed if it was taken.
//!
//! While the log takes no records, for want of space or of replicas, what would have to be stored is refused before it
//! is decided. An append that is refused all the same, because space ran out in that moment, leaves the shard ahead of
//! its log. Its records are owed: they are appended, in their order and before any others, as soon as the log takes
//! them, so that the shard is the fold of its log again without being loaded anew (I-17). Requests that waited for them
//! are told at once to ask again, and until then nothing is shown that the log does not hold (I-18).
//!
//! An append that waits for followers longer than clients do keeps its place: it is in the log, and counts when they
//! have it, or is gone with this leadership. Requests that wait for it are told to ask again, and until the high
//! watermark moves nothing is decided or shown that would wait as well.

use std::collections::{HashMap, VecDeque};
use std::future::pending;
use std::pin::Pin;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::ready;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tracing::{error, info, warn};

use super::alarm::{Alarm, rung};
use super::context::{Context, Unavailable};
use super::flight::{Command, Flight, Released, Sender, answer, landed, release, unavailable};
use super::shard::{Access, Moment, Outcome, ReplayError, Shard, Ticket};
use super::writer::{Appending, CoordinatorRecord, Entry, WriteError};
use crate::types::{Fence, LeaderEpoch, LogOpening, Offset, PartitionIndex, limits};

/// Bytes that a record needs in a batch beside key and value, at most; and a batch beside its records.
pub(crate) const RECORD_OVERHEAD_BYTES: usize = 40;
pub(crate) const BATCH_OVERHEAD_BYTES: usize = 61;

/// Pause before the log is asked again whether it takes what it is owed.
const OWED_PAUSE: Duration = Duration::from_millis(500);

/// Least time between two lines that say that a log takes no records: a disk at its limit is full and not full by
/// turns.
const SAY_AGAIN_MS: i64 = 60_000;

/// How long what is due by time is put off while the log takes no records.
const PUT_OFF_MS: i64 = 1000;

/// Records and replies that are not under way yet.
struct Batch<S: Shard> {
    records: Vec<CoordinatorRecord>,
    bytes: usize,
    replies: Vec<Released<S>>,
}

/// A loaded shard and what is under way for it.
pub(super) struct Serving<'a, S: Shard> {
    context: &'a Context<S>,
    partition: PartitionIndex,
    epoch: LeaderEpoch,
    shard: S,
    /// Bytes of records that one batch takes.
    records_bytes_max: usize,
    next_ticket: u64,
    /// What was read is not replicated yet; see [`Self::begin`].
    unreplicated: Option<Appending>,
    /// What is asked once, until it is.
    deferred: Vec<Command<S>>,
    /// Requests that no decision has answered yet.
    waiting: HashMap<Ticket, (Sender<S>, Access)>,
    batch: Batch<S>,
    /// In the order of their appends; those that are late come first.
    flights: VecDeque<Flight<S>>,
    /// Of the log, as it was when it was asked last with nothing under way.
    opening: Option<LogOpening>,
    /// Why the log has refused an append and is owed it, and what follows it.
    refused: Option<WriteError>,
    /// In the order of their appends; all of them come before `flights`.
    owed: Vec<Entry>,
    /// When the log is asked whether it takes them.
    owed_due: Option<Pin<Box<Sleep>>>,
    /// When the shard is called by time.
    alarm: Alarm,
    /// When it was said last that the log takes nothing, monotonic; and whether that was of what it is owed now.
    said_ms: Option<i64>,
    is_said: bool,
    has_appended: &'a mut bool,
    /// Kept for its memory; empty between decisions.
    out: Outcome<S::Reply>,
}

impl<'a, S: Shard> Serving<'a, S> {
    /// `has_appended` is set when anything was.
    pub(super) fn new(
        context: &'a Context<S>,
        partition: PartitionIndex,
        epoch: LeaderEpoch,
        shard: S,
        has_appended: &'a mut bool,
    ) -> Self {
        let batch_bytes_max = context.writer.batch_bytes_max(&context.topic);
        Self {
            context,
            partition,
            epoch,
            shard,
            records_bytes_max: batch_bytes_max.saturating_sub(BATCH_OVERHEAD_BYTES),
            next_ticket: 0,
            unreplicated: None,
            deferred: Vec::new(),
            waiting: HashMap::new(),
            batch: Batch { records: Vec::new(), bytes: 0, replies: Vec::new() },
            flights: VecDeque::new(),
            opening: None,
            refused: None,
            owed: Vec::new(),
            owed_due: None,
            alarm: Alarm::default(),
            said_ms: None,
            is_said: false,
            has_appended,
            out: Outcome::default(),
        }
    }

    /// Serves until `stop`, or until the mailbox is closed.
    ///
    /// # Errors
    /// The shard cannot go on with this log; [`Self::fail`] answers what waits.
    pub(super) async fn run(
        &mut self,
        commands: &mut mpsc::Receiver<Command<S>>,
        stop: &mut oneshot::Receiver<()>,
    ) -> Result<(), WriteError> {
        let mut drained = Vec::new();
        let mut late: Option<(Instant, Pin<Box<Sleep>>)> = None;
        loop {
            self.arm();
            self.arm_late(&mut late);
            let accepting = self.is_stalled() || self.flights.len() < limits::COORDINATOR_APPENDS_IN_FLIGHT_MAX;
            tokio::select! {
                biased;
                _ = &mut *stop => return Ok(()),
                landed = landed(&mut self.flights) => self.on_landed(landed),
                reached = reached(&mut self.unreplicated) => self.on_replicated(reached),
                () = rung(&mut late) => {
                    self.on_late();
                    Ok(())
                }
                () = due(&mut self.owed_due) => self.append_owed(),
                () = self.alarm.ring(), if accepting => {
                    // Who has been heard is not late.
                    while drained.len() < limits::MAILBOX_COMMANDS_MAX && let Ok(command) = commands.try_recv() {
                        drained.push(command);
                    }
                    self.handle(&mut drained).and_then(|()| self.on_alarm())
                }
                received = commands.recv_many(&mut drained, limits::MAILBOX_COMMANDS_MAX), if accepting => {
                    if received == 0 {
                        return Ok(());
                    }
                    self.handle(&mut drained)
                }
            }?;
        }
    }

    fn now(&self) -> Moment {
        Moment { unix_ms: self.context.clock.now_ms(), monotonic_ms: self.context.clock.monotonic_ms() }
    }

    /// Sets the alarm to when the shard wants to be called.
    fn arm(&mut self) {
        let wakes = self.unreplicated.is_none().then(|| self.shard.next_wake_ms()).flatten();
        self.alarm.arm(wakes, self.context.clock.monotonic_ms());
    }

    /// Sets the alarm to when the next append is late.
    fn arm_late(&self, alarm: &mut Option<(Instant, Pin<Box<Sleep>>)>) {
        let late_at = self.flights.iter().find(|flight| !flight.is_late).map(|flight| flight.patience_ends);
        if alarm.as_ref().map(|(at, _)| *at) != late_at {
            *alarm = late_at.map(|at| (at, Box::pin(sleep_until(at))));
        }
    }

    /// Before [`Self::run`]. `unreplicated`: the high watermark has not come to the end of what was read, and this
    /// tells when it has. Until then what was read is shown, nothing is decided, and no time runs.
    pub(super) fn begin(&mut self, unreplicated: Option<Appending>) {
        self.unreplicated = unreplicated;
        if self.unreplicated.is_none() {
            self.on_loaded();
        }
    }

    fn on_replicated(&mut self, reached: Result<Offset, WriteError>) -> Result<(), WriteError> {
        self.unreplicated = None;
        reached?;
        info!(topic = %self.context.topic, partition = %self.partition, "what the coordinator has read is replicated");
        self.on_loaded();
        let mut deferred = std::mem::take(&mut self.deferred);
        self.handle(&mut deferred)
    }

    fn on_loaded(&mut self) {
        let now = self.now();
        self.shard.on_loaded(now, &mut self.out);
        self.settle(None);
        self.flush();
    }

    /// What is due by time, unless members may not have been heard.
    fn on_alarm(&mut self) -> Result<(), WriteError> {
        let now = self.now();
        if !self.alarm.is_due(now.monotonic_ms) {
            return Ok(());
        }
        if let Some(refused) = self.closed()? {
            self.alarm.put_off(PUT_OFF_MS, now.monotonic_ms);
            self.refuse_waiting(&refused);
            return Ok(());
        }
        self.shard.on_time(now, &mut self.out);
        self.settle(None);
        self.flush();
        Ok(())
    }

    /// What the time has come for cannot be stored: a request that waits for such a decision does not wait for space as
    /// well.
    fn refuse_waiting(&mut self, error: &WriteError) {
        let why = unavailable(error);
        let writing = self.waiting.extract_if(|_, (_, access)| *access == Access::Write);
        writing.for_each(|(_, (sender, _))| answer::<S>(sender, Err(why)));
    }

    fn handle(&mut self, commands: &mut Vec<Command<S>>) -> Result<(), WriteError> {
        let now = self.now();
        // Asked once for the whole drain, and only if it is of interest.
        let mut closed: Option<Option<WriteError>> = None;
        for Command { request, reply } in commands.drain(..) {
            let access = S::access(&request);
            if self.unreplicated.is_some() {
                match access {
                    Access::Read => {}
                    Access::Presence => {
                        answer::<S>(reply, Err(Unavailable::Loading));
                        continue;
                    }
                    Access::Settled | Access::Write => {
                        answer::<S>(reply, Err(Unavailable::NotAvailable));
                        continue;
                    }
                    Access::WriteOnce => {
                        self.deferred.push(Command { request, reply });
                        continue;
                    }
                }
            }
            let refused = match access {
                Access::Presence | Access::WriteOnce => None,
                Access::Read | Access::Settled => self.withheld(),
                Access::Write if self.withheld().is_some() => self.withheld(),
                Access::Write => match &closed {
                    Some(closed) => closed.clone(),
                    None => closed.insert(self.closed()?).clone(),
                },
            };
            if let Some(refused) = refused {
                answer::<S>(reply, Err(unavailable(&refused)));
                continue;
            }
            let ticket = Ticket(self.next_ticket);
            self.next_ticket += 1;
            self.shard.handle(now, ticket, request, &mut self.out);
            self.settle(Some((ticket, reply, access)));
        }
        self.flush();
        Ok(())
    }

    /// Why the log takes no records now, if so.
    ///
    /// # Errors
    /// This is no longer the leader.
    fn closed(&mut self) -> Result<Option<WriteError>, WriteError> {
        if let Some(why) = self.withheld() {
            return Ok(Some(why));
        }
        match self.may_append() {
            Ok(opening) if self.flights.is_empty() => {
                self.opening = Some(opening);
                Ok(None)
            }
            Ok(opening) if self.opening == Some(opening) => Ok(None),
            // It was opened anew, so it has refused something that is under way: its flight will tell.
            Ok(_) => Ok(Some(WriteError::Full)),
            Err(WriteError::NotLeader) => Err(WriteError::NotLeader),
            Err(error) => Ok(Some(error)),
        }
    }

    /// Why nothing may be shown that the shard has, if so: the log does not hold it, or followers do not.
    fn withheld(&self) -> Option<WriteError> {
        self.refused.clone().or_else(|| self.is_stalled().then_some(WriteError::NotEnoughReplicas))
    }

    /// Followers have not taken what was appended for longer than a request waits.
    fn is_stalled(&self) -> bool {
        self.flights.front().is_some_and(|flight| flight.is_late)
    }

    fn may_append(&self) -> Result<LogOpening, WriteError> {
        self.context.writer.may_append(&self.context.topic, self.partition, self.epoch)
    }

    /// Takes over one outcome: its records are replayed and go into the batch, its replies with them.
    fn settle(&mut self, mut asked: Option<(Ticket, Sender<S>, Access)>) {
        if self.out.transaction.is_some() || self.out.marker.is_some() {
            self.flush();
            if let Err(refusal) = self.append_in_transaction() {
                self.out.replies.clear();
                if let Some((_, sender, _)) = asked {
                    answer::<S>(sender, Err(refusal));
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
                Some((this, sender, _)) if this == ticket => Some(sender),
                other => {
                    asked = other;
                    self.waiting.remove(&ticket).map(|(sender, _)| sender)
                }
            };
            if let Some(sender) = sender {
                self.batch.replies.push((sender, reply));
            }
        }
        if let Some((ticket, sender, access)) = asked {
            self.waiting.insert(ticket, (sender, access));
        }
        self.out = out;
    }

    /// Appends what the outcome adds to a transaction, or ends one with, and replays it if the log took it. That this
    /// is no longer the leader, or has to be loaded anew, is told by the flight.
    fn append_in_transaction(&mut self) -> Result<(), Unavailable> {
        let records = std::mem::take(&mut self.out.records);
        let transaction = self.out.transaction.take();
        let marker = self.out.marker.take();
        let added = (!records.is_empty()).then(|| Entry::Records { transaction, records });
        for entry in added.into_iter().chain(marker.map(Entry::Marker)) {
            let appended = match self.try_append(&entry) {
                Ok(appended) => appended,
                Err(error @ (WriteError::NotLeader | WriteError::TooLarge)) => ready(Err(error)).boxed(),
                // It was not replayed, so nothing has changed.
                Err(error) => return Err(unavailable(&error)),
            };
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
            self.flights.push_back(Flight::new(entry, appended, Vec::new()));
        }
        Ok(())
    }

    fn say_if_unknown(&self, replayed: Result<(), ReplayError>) {
        if let Err(error) = replayed {
            error!(topic = %self.context.topic, %error, "a shard does not understand its own record");
        }
    }

    /// Appends the batch. Its replies wait for it; if it has no records, for what was appended before (I-18).
    fn flush(&mut self) {
        let replies = std::mem::take(&mut self.batch.replies);
        if self.batch.records.is_empty() {
            match self.flights.back_mut().filter(|flight| !flight.is_late) {
                Some(flight) => flight.replies.extend(replies),
                // While the log is owed something, or followers are, these show nothing of it, see `handle`.
                None => release::<S>(replies),
            }
            return;
        }
        self.batch.bytes = 0;
        let records = std::mem::take(&mut self.batch.records);
        self.append(Entry::Records { transaction: None, records }, replies);
    }

    /// Appends what the shard has replayed. A refusal is told by the flight, in response order; what follows it is not
    /// even tried, so that the order stays.
    fn append(&mut self, entry: Entry, replies: Vec<Released<S>>) {
        let appended = self.try_append(&entry).unwrap_or_else(|error| {
            if error.passes() {
                self.refused.get_or_insert(error.clone());
            }
            ready(Err(error)).boxed()
        });
        self.flights.push_back(Flight::new(entry, appended, replies));
    }

    fn try_append(&mut self, entry: &Entry) -> Result<Appending, WriteError> {
        if let Some(refused) = &self.refused {
            return Err(refused.clone());
        }
        let opening = match self.opening {
            Some(opening) => opening,
            None => *self.opening.insert(self.may_append()?),
        };
        let fence = Fence { epoch: self.epoch, opening };
        self.context.writer.append(&self.context.topic, self.partition, fence, entry)
    }

    /// The oldest append has returned.
    ///
    /// # Errors
    /// The shard cannot go on with this log.
    fn on_landed(&mut self, landed: Result<Offset, WriteError>) -> Result<(), WriteError> {
        let refused = match landed {
            Ok(_) | Err(WriteError::NotEnoughAfterAppend) if !self.owed.is_empty() => {
                return Err(WriteError::Storage("it took records behind those that it refused".into()));
            }
            Ok(_) => {
                *self.has_appended = true;
                if let Some(flight) = self.flights.pop_front() {
                    release::<S>(flight.replies);
                }
                return Ok(());
            }
            // It is stored; who asked is to know that fewer have it than were to.
            Err(error @ WriteError::NotEnoughAfterAppend) => {
                *self.has_appended = true;
                let replies = self.flights.pop_front().map(|flight| flight.replies);
                self.lose(replies.into_iter().flatten().collect(), &error);
                return Ok(());
            }
            Err(error) if error.passes() => error,
            Err(error) => return Err(error),
        };
        let Some(flight) = self.flights.pop_front() else { return Ok(()) };
        if self.owed.is_empty() {
            self.say_refused(&refused);
        }
        self.owed.push(flight.entry);
        self.lose(flight.replies, &refused);
        self.refused.get_or_insert(refused);
        self.owed_due = self.flights.is_empty().then(|| Box::pin(sleep(OWED_PAUSE)));
        Ok(())
    }

    /// Those that wait for what was decided are told to ask again.
    fn lose(&mut self, replies: Vec<Released<S>>, error: &WriteError) {
        let why = unavailable(error);
        replies.into_iter().for_each(|(sender, _)| answer::<S>(sender, Err(why)));
        self.shard.on_replies_lost();
    }

    /// Followers have not taken the oldest append that was in time until now.
    fn on_late(&mut self) {
        let now = Instant::now();
        let late = self.flights.iter_mut().take_while(|flight| flight.patience_ends <= now);
        let mut replies = Vec::new();
        for flight in late {
            flight.is_late = true;
            replies.append(&mut flight.replies);
        }
        self.lose(replies, &WriteError::NotEnoughReplicas);
        warn!(
            topic = %self.context.topic, partition = %self.partition,
            "what the coordinator appends is not replicated in time; nothing is decided or shown until it is"
        );
    }

    fn say_refused(&mut self, refused: &WriteError) {
        let now_ms = self.context.clock.monotonic_ms();
        if self.said_ms.is_none_or(|said_ms| now_ms - said_ms >= SAY_AGAIN_MS) {
            (self.said_ms, self.is_said) = (Some(now_ms), true);
            warn!(
                topic = %self.context.topic, partition = %self.partition, error = %refused,
                "the coordinator's log takes no records; what has to be stored is refused until it does"
            );
        }
    }

    /// Appends what the log is owed, if it takes it now.
    fn append_owed(&mut self) -> Result<(), WriteError> {
        // More may have been decided meanwhile: it is told by its flight and comes behind.
        self.owed_due = None;
        if !self.flights.is_empty() {
            return Ok(());
        }
        match self.may_append() {
            Ok(opening) => self.opening = Some(opening),
            Err(error) if error.passes() => {
                self.refused = Some(error);
                self.owed_due = Some(Box::pin(sleep(OWED_PAUSE)));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        if std::mem::take(&mut self.is_said) {
            let topic = &self.context.topic;
            info!(%topic, partition = %self.partition, "the coordinator's log takes records again");
        }
        self.refused = None;
        for entry in std::mem::take(&mut self.owed) {
            self.append(entry, Vec::new());
        }
        Ok(())
    }

    /// Tells every waiting request, in the mailbox too, that there will be no answer.
    pub(super) fn fail(self, error: &WriteError, commands: &mut mpsc::Receiver<Command<S>>) {
        let why = unavailable(error);
        let held = self.flights.into_iter().flat_map(|flight| flight.replies).chain(self.batch.replies);
        let senders = held.map(|(sender, _)| sender).chain(self.waiting.into_values().map(|(sender, _)| sender));
        senders.for_each(|sender| answer::<S>(sender, Err(why)));
        self.deferred.into_iter().for_each(|command| answer::<S>(command.reply, Err(why)));
        while let Ok(command) = commands.try_recv() {
            answer::<S>(command.reply, Err(why));
        }
    }
}

async fn due(sleep: &mut Option<Pin<Box<Sleep>>>) {
    match sleep {
        Some(sleep) => sleep.await,
        None => pending().await,
    }
}

/// What was read is replicated; never, if it is already.
async fn reached(unreplicated: &mut Option<Appending>) -> Result<Offset, WriteError> {
    match unreplicated {
        Some(unreplicated) => unreplicated.await,
        None => pending().await,
    }
}
