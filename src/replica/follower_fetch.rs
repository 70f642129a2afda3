//! The leader's end of a follower's fetch: checked and counted, answered up to the log end, or parked until there is
//! something to answer with.
//!
//! In this order, so that an acknowledgement waits for nothing: the positions are noted, the fetch is counted (it may
//! raise the high watermark), then it is read. The answer tells the positions of before. It parks only if no partition
//! has anything to say; new data or another role end that at once, and that the high watermark or the log start moved
//! does after a moment, unless it can ride along with data before.
//! Source: Kafka 3.9 `ReplicaManager.fetchMessages`, `DelayedFetch`; there positions alone end no wait.
//!
//! A replica that is behind and throttled gets nothing while what its like may have is used up ([`super::throttle`]).
//!
//! A fetch costs as much as there are partitions to look at, see [`super::follower_session`].

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use super::alter_partition::IsrChanges;
use super::follower_session::{FollowerSession, Part};
use super::leader_link::{
    FetchAnswer, FetchAsk, FetchRefused, Fetched, LeaderLink, LinkError, LogEnd, PartitionId, SessionError,
};
use super::manager::ReplicaManager;
use super::partition::{Fetching, Partition};
use super::session_cache::Sessions;
use super::sessions::FIRST_EPOCH;
use super::view::PartitionView;
use crate::log::reading::find::{Find, Found, Span};
use crate::task;
use crate::types::limits::REPLY_RECORD_BYTES_MAX;
use crate::types::{BrokerEpoch, LeaderEpoch, Offset, TopicId};

/// How long positions without data wait for some to ride with. Source: ours; Kafka lets them wait for the fetch's end.
const NEWS_PATIENCE: Duration = Duration::from_millis(50);

/// Serves the followers of all partitions that this broker leads.
#[derive(Debug)]
pub(crate) struct FollowerFetches {
    replicas: Arc<ReplicaManager>,
    changes: Arc<IsrChanges>,
    sessions: Arc<Sessions>,
}

/// A fetch that is being answered.
#[derive(Debug)]
struct Turn {
    session: Arc<FollowerSession>,
    /// The session's; 0: it is of this fetch alone.
    id: i32,
    number: i32,
    /// Everything was named, and everything is told.
    full: bool,
    /// A session that was opened and whose id nobody was told yet: it goes if the fetch is dropped.
    unknown_in: Option<Arc<Sessions>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(sessions) = &self.unknown_in {
            sessions.close(self.id);
        }
    }
}

impl Turn {
    /// `now`: wall clock and monotonic clock, in milliseconds; `random`: for the id of a new session.
    /// Source: Kafka 3.9 `FetchManager.newContext`.
    fn begin(sessions: &Arc<Sessions>, ask: FetchAsk, now: (i64, i64), random: u128) -> Result<Self, SessionError> {
        let id = ask.session.id;
        if ask.session.is_full() {
            sessions.close(id);
            // Below version 13 there is no saying which topic of a name is meant.
            let opens = ask.session.opens() && !ask.by_name && !ask.partitions.is_empty();
            let session = FollowerSession::new(ask, now.1);
            let id = if opens { sessions.open_for_follower(&session, now.0, random) } else { None };
            let unknown_in = id.map(|_| Arc::clone(sessions));
            return Ok(Self { session, id: id.unwrap_or(0), number: FIRST_EPOCH, full: true, unknown_in });
        }
        let session = sessions.of_follower(id, now.0).ok_or(SessionError::NotFound)?;
        let number = session.go_on(ask, now.1)?;
        let is_over = session.len() == 0;
        if is_over {
            sessions.close(id);
        }
        Ok(Self { session, id: if is_over { 0 } else { id }, number, full: false, unknown_in: None })
    }

    fn answer(mut self, parts: Vec<Part>) -> Result<FetchAnswer, SessionError> {
        let partitions = self.session.tell(self.number, self.full, parts)?;
        self.unknown_in = None;
        Ok(FetchAnswer { session_id: self.id, partitions })
    }
}

/// What a fetch asks of all its partitions.
#[derive(Debug, Clone, Copy)]
struct Limits {
    max_bytes: usize,
    min_bytes: usize,
    max_wait: Duration,
}

impl Limits {
    fn of(ask: &FetchAsk) -> Self {
        let bytes = |bytes| usize::try_from(bytes).unwrap_or(0);
        let max_wait = Duration::from_millis(u64::try_from(ask.max_wait_ms).unwrap_or(0));
        Self { max_bytes: bytes(ask.max_bytes).min(REPLY_RECORD_BYTES_MAX), min_bytes: bytes(ask.min_bytes), max_wait }
    }
}

impl FollowerFetches {
    /// `changes`: where changes of ISRs go that a fetch gives rise to. `sessions`: all of this broker.
    pub(crate) fn new(replicas: Arc<ReplicaManager>, changes: Arc<IsrChanges>, sessions: Arc<Sessions>) -> Arc<Self> {
        Arc::new(Self { replicas, changes, sessions })
    }

    /// Answers one fetch. May be dropped at any time; it has been counted then.
    ///
    /// # Errors
    /// The session that it goes on with is not known, or is not where the follower takes it to be.
    pub(crate) async fn fetch(&self, ask: FetchAsk) -> Result<FetchAnswer, SessionError> {
        let (limits, epoch, clock) = (Limits::of(&ask), ask.replica_epoch, &self.replicas.surroundings.clock);
        let now = (clock.now_ms(), clock.monotonic_ms());
        let turn = Turn::begin(&self.sessions, ask, now, clock.random())?;
        let mut parts = turn.session.queued();
        for part in &mut parts {
            self.look(&turn, part);
            self.count(&turn, epoch, part);
        }
        let all = (0..parts.len()).collect();
        parts = read(parts, all, limits.max_bytes).await;
        let nothing_to_wait_for = limits.max_wait.is_zero() || turn.session.len() == 0;
        if !is_due(&parts, limits.min_bytes) && !nothing_to_wait_for {
            parts = self.park(&turn, parts, limits).await;
        }
        for part in &parts {
            if let Some(partition) = &part.replica {
                partition.count_sent(part.bytes);
            }
        }
        turn.answer(parts)
    }

    /// The end of a log, as a replica asks: above the high watermark, too. Source: Kafka 3.9
    /// `Partition.fetchOffsetForTimestamp` without an isolation level.
    pub(crate) fn list_offset(
        &self,
        id: &PartitionId,
        leader_epoch: Option<LeaderEpoch>,
        end: LogEnd,
    ) -> Result<Offset, FetchRefused> {
        let view = self.find(id)?.view();
        view.check_leading(leader_epoch)?;
        Ok(match end {
            LogEnd::Earliest => view.log_start_offset,
            LogEnd::Latest => view.log_end_offset,
        })
    }

    fn find(&self, id: &PartitionId) -> Result<Arc<Partition>, FetchRefused> {
        let index = id.partition;
        let known = id.topic.as_str().is_empty().then(|| self.replicas.surroundings.image.current());
        let topic = match &known {
            // Whoever asked knew no name for the id. There may be one by now.
            Some(image) => image.topic_by_id(id.topic_id).ok_or(FetchRefused::UnknownTopicId)?.name.as_str(),
            None => id.topic.as_str(),
        };
        let Some(partition) = self.replicas.get(topic, index) else {
            if self.replicas.is_offline(topic, index) {
                return Err(FetchRefused::Storage);
            }
            let known = self.replicas.surroundings.image.current().partition(topic, index).is_some();
            return Err(if known { FetchRefused::NotLeader } else { FetchRefused::UnknownPartition });
        };
        let (asked, here) = (id.topic_id, partition.id.topic_id);
        let by_name = asked == TopicId::ZERO;
        if by_name || asked == here { Ok(partition) } else { Err(FetchRefused::InconsistentTopicId) }
    }

    /// Finds the partition and its positions of now.
    fn look(&self, turn: &Turn, part: &mut Part) {
        let found = self.find(&part.ask.id);
        let (before, now) = (part.replica.as_ref(), found.as_ref().ok());
        if before.map(Arc::as_ptr) != now.map(Arc::as_ptr) {
            turn.session.found(part, now);
        }
        part.replica = now.cloned();
        part.held_back = now.is_some_and(|partition| partition.holds_back(turn.session.replica));
        part.found =
            found.and_then(|partition| partition.look_for_follower(turn.session.replica, &part.ask)).map(|look| {
                part.view = look.diverging.is_none().then_some(look.view);
                let PartitionView { high_watermark, log_start_offset, .. } = look.view;
                Fetched { high_watermark, log_start_offset, diverging: look.diverging, records: Vec::new() }
            });
    }

    /// Counts what the follower has, by the offset that it asks for.
    fn count(&self, turn: &Turn, broker_epoch: BrokerEpoch, part: &mut Part) {
        let (Some(partition), Some(view)) = (&part.replica, part.view) else { return };
        let by = Fetching { replica: turn.session.replica, broker_epoch, pulse: &turn.session.pulse };
        match partition.record_follower(&by, &part.ask, &view) {
            Ok(change) => {
                part.counted = true;
                change.into_iter().for_each(|change| self.changes.submit(change));
            }
            Err(refused) => {
                part.view = None;
                part.found = Err(refused);
            }
        }
    }

    /// Waits for news of any partition, and looks at those that have some. What the follower has was counted when it
    /// came.
    async fn park(&self, turn: &Turn, mut parts: Vec<Part>, limits: Limits) -> Vec<Part> {
        let deadline = Instant::now() + limits.max_wait;
        let mut places: HashMap<usize, usize> = parts.iter().enumerate().map(|(at, part)| (part.slot, at)).collect();
        let mut news_at = None;
        loop {
            let inbox = &turn.session.inbox;
            if news_at.is_none() && !turn.full {
                inbox.heed_positions();
            }
            // What was published before is found by this look, what comes after it wakes.
            let Some(marked) = turn.session.marked(turn.number) else { return parts };
            let mut fresh = Vec::new();
            for mut part in marked {
                self.look(turn, &mut part);
                let at = *places.entry(part.slot).or_insert(parts.len());
                match parts.get_mut(at) {
                    Some(known) => *known = part,
                    None => parts.push(part),
                }
                fresh.push(at);
            }
            if !fresh.is_empty() {
                parts = read(parts, fresh, limits.max_bytes).await;
            }
            let now = Instant::now();
            if is_due(&parts, limits.min_bytes) || now >= deadline {
                return parts;
            }
            if news_at.is_none() && !turn.full && parts.iter().any(Part::has_news) {
                news_at = Some(now + NEWS_PATIENCE);
            }
            let until = news_at.map_or(deadline, |at| at.min(deadline));
            if now >= until {
                return parts;
            }
            tokio::select! {
                biased;
                () = inbox.woken() => {}
                () = sleep_until(until) => {}
            }
        }
    }
}

impl LeaderLink for FollowerFetches {
    fn fetch(&self, ask: FetchAsk) -> BoxFuture<'_, Result<Result<FetchAnswer, SessionError>, LinkError>> {
        async move { Ok(self.fetch(ask).await) }.boxed()
    }

    fn list_offset(
        &self,
        id: PartitionId,
        leader_epoch: LeaderEpoch,
        end: LogEnd,
    ) -> BoxFuture<'_, Result<Result<Offset, FetchRefused>, LinkError>> {
        let found = self.list_offset(&id, Some(leader_epoch), end);
        async move { Ok(found) }.boxed()
    }
}

fn is_due(parts: &[Part], min_bytes: usize) -> bool {
    parts.iter().map(|part| part.bytes).sum::<usize>() >= min_bytes || parts.iter().any(Part::is_urgent)
}

/// What a fetch may still take while it goes through its partitions.
struct Room {
    left: usize,
    /// The first batch may be larger than all limits, lest a follower never get past it.
    empty_so_far: bool,
}

impl Room {
    /// What to read of this partition; `None`: there is nothing to read, or no room.
    fn of(&self, part: &Part) -> Option<(Arc<Partition>, Find)> {
        let (Some(partition), Some(view)) = (&part.replica, part.view) else { return None };
        let bytes = self.left.min(usize::try_from(part.ask.max_bytes).unwrap_or(0));
        let (from, upto, at_least_one) = (part.ask.fetch_offset, view.log_end_offset, self.empty_so_far);
        let span = Span { from, upto, max_bytes: bytes, at_least_one };
        let some = from < upto && (bytes > 0 || at_least_one) && !part.held_back;
        some.then(|| (Arc::clone(partition), Find { span, held_max: bytes, reads_ahead: false }))
    }

    fn take(&mut self, part: &mut Part, read: Found) {
        self.empty_so_far &= read.bytes == 0;
        self.left = self.left.saturating_sub(read.bytes);
        part.bytes = read.bytes;
        if let Ok(found) = &mut part.found {
            found.records = read.places;
        }
    }
}

/// Reads these parts up to the log end: from memory where it is there, and from the first one on where it is not, on a
/// thread that may block on the disk. What others have read counts against the limit.
async fn read(mut parts: Vec<Part>, which: Vec<usize>, max_bytes: usize) -> Vec<Part> {
    let have: usize = parts.iter().map(|part| part.bytes).sum();
    let mut room = Room { left: max_bytes.saturating_sub(have), empty_so_far: have == 0 };
    match read_memory(&mut parts, &which, &mut room) {
        None => parts,
        Some(first) => task::blocking(move || read_blocking(parts, &which[first..], room)).await,
    }
}

/// Gives the first one that has to be read from the disk.
fn read_memory(parts: &mut [Part], which: &[usize], room: &mut Room) -> Option<usize> {
    for (nth, &at) in which.iter().enumerate() {
        let part = &mut parts[at];
        let Some((partition, find)) = room.of(part) else { continue };
        let Some(read) = partition.reader().find_now(&find) else { return Some(nth) };
        room.take(part, read);
    }
    None
}

fn read_blocking(mut parts: Vec<Part>, which: &[usize], mut room: Room) -> Vec<Part> {
    for &at in which {
        let part = &mut parts[at];
        let Some((partition, find)) = room.of(part) else { continue };
        match partition.reader().find_blocking(&find) {
            Ok(read) => room.take(part, read),
            Err(failure) => {
                if partition.reader().is_news(&failure) {
                    tracing::error!(partition = %partition.name(), %failure, "a read for a follower failed");
                }
                part.found = Err(FetchRefused::Storage);
            }
        }
    }
    parts
}
