//! The owner of what is followed at one leader through one link.
//!
//! A round: obey orders, cut what has to be cut, fetch, append, wait for the writes, pass on the leader's high
//! watermark. It costs as much as there are partitions where something happens: those are kept in `attention`, and the
//! fetches go on with a session that knows all others.
//!
//! While a fetch is under way orders are obeyed at once: one that takes partitions away is answered, since nothing of
//! them is being appended, and one that brings some ends the fetch, so that they are not kept waiting. That costs the
//! session, so it happens once: for as long as more of them come, fetches are short ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::OptionFuture;
use futures_util::stream::{self, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::follow::{Backoff, Cut, Follow, Next};
use super::session::{FetchSession, Saying};
use super::settings::{FetcherSettings, Key};
use crate::clock::{SharedClock, UnixMs};
use crate::cluster::registration::SharedBrokerEpoch;
use crate::log::fetched::FetchedError;
use crate::replica::leader_link::{
    FetchAnswer, FetchAsk, FetchKey, FetchRefused, Fetched, LeaderLink, LinkError, LogEnd, SessionError,
};
use crate::replica::partition::{NotReplicated, Partition, Replicated};
use crate::task;
use crate::types::place::Place;
use crate::types::{BrokerId, LeaderEpoch, Offset};

/// Logs that are cut at the same time; each waits for the disk.
const CUTS_AT_ONCE: usize = 32;

/// How long after partitions came others are expected, and how long a fetch waits for records meanwhile.
const BUSY: Duration = Duration::from_secs(1);
const BUSY_WAIT_MS: i32 = 20;
/// A call that takes longer is no short one.
const SHORT: Duration = Duration::from_millis(200);

/// How long nothing is asked where all that would be asked is held back.
const HELD_PAUSE: Duration = Duration::from_millis(200);

/// How often all partitions are looked at for what no answer brings about: a log start that retention has moved.
const SWEEP: Duration = Duration::from_secs(10);

/// What a fetcher is told.
#[derive(Debug)]
pub(super) enum Order {
    Follow(Vec<(Arc<Partition>, LeaderEpoch)>),
    Stop { partitions: Vec<Key>, done: oneshot::Sender<()> },
    StopAll { done: oneshot::Sender<()> },
}

/// How a call to the leader ended.
enum Called<T> {
    Answered(T),
    /// New partitions came.
    Interrupted,
    /// Nobody gives orders any more.
    Ended,
}

/// What was appended of one partition's answer.
struct Round {
    key: Key,
    replicated: Replicated,
    grew: bool,
    /// Records came.
    any: bool,
    high_watermark: Offset,
    log_start_offset: Offset,
}

pub(super) struct Fetcher {
    me: BrokerId,
    leader: BrokerId,
    epoch: SharedBrokerEpoch,
    link: Arc<dyn LeaderLink>,
    clock: SharedClock,
    settings: FetcherSettings,
    mailbox: mpsc::UnboundedReceiver<Order>,
    follows: BTreeMap<Key, Follow>,
    /// Where something has happened, or is to be done, since the last fetch was made up.
    attention: BTreeSet<Key>,
    session: FetchSession,
    busy_until: Instant,
    sweep_at: Instant,
    /// The last partition that had records: the next ask begins behind it, so that each has its turn.
    served: Option<Key>,
    backoff: Backoff,
    /// The link has failed: when it is tried again.
    link_again: Option<Instant>,
    /// Partitions are held back: when they are looked at again.
    held_until: Option<Instant>,
}

impl Fetcher {
    pub(super) fn new(
        me: BrokerId,
        leader: BrokerId,
        epoch: SharedBrokerEpoch,
        link: Arc<dyn LeaderLink>,
        clock: SharedClock,
        settings: &FetcherSettings,
        mailbox: mpsc::UnboundedReceiver<Order>,
    ) -> Self {
        Self {
            me,
            leader,
            epoch,
            link,
            clock,
            settings: settings.clone(),
            mailbox,
            follows: BTreeMap::new(),
            attention: BTreeSet::new(),
            session: FetchSession::new(),
            busy_until: Instant::now(),
            sweep_at: Instant::now() + SWEEP,
            served: None,
            backoff: Backoff::default(),
            link_again: None,
            held_until: None,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            while let Ok(order) = self.mailbox.try_recv() {
                self.obey(order);
            }
            self.cut().await;
            let went_on = match self.find_ranges().await {
                Called::Answered(()) => self.fetch().await,
                interrupted => interrupted,
            };
            if matches!(went_on, Called::Ended) {
                return;
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Follow(partitions) => {
                for (partition, epoch) in partitions {
                    let key = (partition.id.topic.clone(), partition.id.partition);
                    debug!(partition = %partition.name(), leader = %self.leader, leader_epoch = %epoch, "following");
                    self.attention.insert(key.clone());
                    self.follows.insert(key, Follow::new(partition, epoch, self.settings.backoff));
                }
                self.busy_until = Instant::now() + BUSY;
                // It may be there by now: the controller says that it leads.
                (self.link_again, self.backoff) = (None, Backoff::default());
            }
            Order::Stop { partitions, done } => {
                for key in partitions {
                    if self.follows.remove(&key).is_some() {
                        self.attention.insert(key);
                    }
                }
                // Whoever waits may have been dropped.
                done.send(()).unwrap_or_default();
            }
            Order::StopAll { done } => {
                self.attention.extend(std::mem::take(&mut self.follows).into_keys());
                done.send(()).unwrap_or_default();
            }
        }
    }

    /// Waits for the leader and obeys meanwhile.
    async fn call<T>(&mut self, call: impl Future<Output = T>) -> Called<T> {
        tokio::pin!(call);
        let began = Instant::now();
        loop {
            tokio::select! {
                biased;
                order = self.mailbox.recv() => match order {
                    None => return Called::Ended,
                    Some(order @ Order::Follow(_)) => {
                        let now = Instant::now();
                        let waits_long = self.busy_until <= now || now - began > SHORT;
                        self.obey(order);
                        if waits_long {
                            return Called::Interrupted;
                        }
                    }
                    Some(order) => self.obey(order),
                },
                answer = &mut call => return Called::Answered(answer),
            }
        }
    }

    /// Cuts the logs that part from the leader's.
    async fn cut(&mut self) {
        let cuts: Vec<(Key, Arc<Partition>, Cut)> = self
            .attended()
            .filter_map(|(key, follow)| match follow.next {
                Next::Cut(cut) => Some((key.clone(), Arc::clone(&follow.partition), cut)),
                _ => None,
            })
            .collect();
        if cuts.is_empty() {
            return;
        }
        let now = self.clock.now_ms();
        let outcomes = stream::iter(cuts).map(|(key, partition, cut)| async move {
            let outcome = task::blocking(move || match cut {
                Cut::Diverging(epoch, leader_end) => {
                    let to = partition.truncation_offset(epoch, leader_end);
                    info!(partition = %partition.name(), %to, leader_epoch = %epoch, %leader_end,
                        "truncating: the leader's log parts from this one");
                    partition.truncate_to(to, now).map(drop)
                }
                Cut::To(to) => partition.truncate_to(to, now).map(drop),
                Cut::StartAt(start) => partition.truncate_fully_and_start_at(start, now),
            });
            (key, outcome.await)
        });
        let mut outcomes = outcomes.buffer_unordered(CUTS_AT_ONCE);
        while let Some((key, outcome)) = outcomes.next().await {
            if let Some(follow) = self.attend(&key) {
                follow.cut(outcome);
            }
        }
    }

    /// Asks where the leader's log begins and ends, for those that are not within.
    async fn find_ranges(&mut self) -> Called<()> {
        let lost: Vec<Key> =
            self.attended().filter(|(_, follow)| follow.next == Next::FindRange).map(|(key, _)| key.clone()).collect();
        for key in lost {
            let Some(follow) = self.follows.get(&key) else { continue };
            let (id, epoch, link) = (follow.partition.id.clone(), follow.leader_epoch, Arc::clone(&self.link));
            let range = async move {
                let end = link.list_offset(id.clone(), epoch, LogEnd::Latest).await?;
                let start = link.list_offset(id, epoch, LogEnd::Earliest).await?;
                Ok::<Result<(Offset, Offset), FetchRefused>, LinkError>(start.and_then(|start| Ok((start, end?))))
            };
            let answer = match self.call(range).await {
                Called::Answered(answer) => answer,
                Called::Interrupted => return Called::Interrupted,
                Called::Ended => return Called::Ended,
            };
            // It may have been taken away meanwhile, and come back under another epoch.
            let follow = self.attend(&key).filter(|follow| follow.next == Next::FindRange);
            let Some(follow) = follow.filter(|follow| follow.leader_epoch == epoch) else { continue };
            match answer {
                Ok(Ok((start, end))) => follow.on_range(start, end),
                Ok(Err(_)) | Err(_) => follow.wait(),
            }
        }
        Called::Answered(())
    }

    /// What is followed, where something has happened.
    fn attended(&self) -> impl Iterator<Item = (&Key, &Follow)> {
        self.attention.iter().filter_map(|key| self.follows.get_key_value(key))
    }

    /// For a change.
    fn attend(&mut self, key: &Key) -> Option<&mut Follow> {
        let follow = self.follows.get_mut(key)?;
        if !self.attention.contains(key) {
            self.attention.insert(key.clone());
        }
        Some(follow)
    }

    async fn fetch(&mut self) -> Called<()> {
        let Some(ask) = self.ask() else { return self.idle().await };
        let (link, is_full) = (Arc::clone(&self.link), ask.session.is_full());
        match self.call(async move { link.fetch(ask).await }).await {
            Called::Answered(Ok(Ok(answer))) => {
                self.backoff.reset();
                match self.session.answered(answer.session_id) {
                    Ok(()) => self.take(answer).await,
                    Err(error) => debug!(leader = %self.leader, %error, "the fetch session begins anew"),
                }
                Called::Answered(())
            }
            Called::Answered(Ok(Err(error))) => {
                debug!(leader = %self.leader, %error, "the fetch session begins anew");
                match error {
                    SessionError::NotFound => self.session.lost(),
                    SessionError::InvalidEpoch | SessionError::TopicIdError => self.session.failed(),
                }
                if is_full {
                    // Which no session can be wrong about.
                    self.link_again = Some(Instant::now() + self.backoff.next(self.settings.backoff));
                }
                Called::Answered(())
            }
            Called::Answered(Err(error)) => {
                self.session.failed();
                let pause = self.backoff.next(self.settings.backoff);
                // Each doubling once: a leader that is gone for long says no more.
                if pause < self.settings.backoff {
                    warn!(leader = %self.leader, %error, "the leader does not answer");
                }
                self.link_again = Some(Instant::now() + pause);
                Called::Answered(())
            }
            Called::Interrupted => {
                self.session.failed();
                Called::Interrupted
            }
            Called::Ended => Called::Ended,
        }
    }

    /// Waits for an order, or until something is to be tried again.
    async fn idle(&mut self) -> Called<()> {
        if self.attended().any(|(_, follow)| matches!(follow.next, Next::Cut(_) | Next::FindRange)) {
            return Called::Answered(());
        }
        let waits = self.attended().filter_map(|(_, follow)| match follow.next {
            Next::Wait(until) => Some(self.link_again.map_or(until, |again| until.max(again))),
            _ => None,
        });
        // With the link, what is wanted is fetched again.
        let wake = waits.chain(self.link_again).chain(self.held_until).min().map(sleep_until);
        tokio::select! {
            biased;
            order = self.mailbox.recv() => match order {
                None => Called::Ended,
                Some(order) => {
                    self.obey(order);
                    Called::Interrupted
                }
            },
            Some(()) = OptionFuture::from(wake) => Called::Answered(()),
        }
    }

    /// The next fetch. Source: Kafka 3.9 `RemoteLeaderEndPoint.buildFetch`.
    fn ask(&mut self) -> Option<FetchAsk> {
        let now = Instant::now();
        if self.link_again.is_some_and(|again| again > now) {
            return None;
        }
        self.link_again = None;
        self.held_until = None;
        if self.sweep_at <= now {
            self.sweep_at = now + SWEEP;
            self.attention.extend(self.follows.keys().cloned());
        }
        for key in std::mem::take(&mut self.attention) {
            let Some(follow) = self.follows.get_mut(&key) else {
                self.session.forget(&key);
                continue;
            };
            match follow.ask(now, self.settings.partition_bytes) {
                Some(_) if follow.is_held_back() => {
                    self.session.forget(&key);
                    self.attention.insert(key);
                    self.held_until = Some(now + HELD_PAUSE);
                }
                Some(ask) => self.session.want(key, ask),
                None => {
                    self.session.forget(&key);
                    if follow.is_unsettled() {
                        self.attention.insert(key);
                    }
                }
            }
        }
        let max_wait_ms = self.max_wait_ms(now);
        let Saying { session, by_name, partitions, forgotten } = self.session.say(self.served.as_ref())?;
        Some(FetchAsk {
            replica: self.me,
            replica_epoch: self.epoch.get(),
            max_wait_ms,
            min_bytes: self.settings.min_bytes,
            max_bytes: self.settings.response_bytes,
            session,
            by_name,
            partitions,
            forgotten,
        })
    }

    /// A partition that waits is not kept waiting by a fetch that waits for others, and neither are those that come.
    fn max_wait_ms(&self, now: Instant) -> i32 {
        let waits = self.attended().filter_map(|(_, follow)| match follow.next {
            Next::Wait(until) => Some(until.saturating_duration_since(now).as_millis() as i32),
            Next::Cut(_) | Next::FindRange => Some(0),
            _ => None,
        });
        let busy = (now < self.busy_until).then_some(BUSY_WAIT_MS);
        waits.chain(busy).min().map_or(self.settings.wait_ms, |wait| wait.min(self.settings.wait_ms))
    }

    /// Appends what came, waits until it is written, and passes on the leader's positions.
    async fn take(&mut self, answer: FetchAnswer) {
        let now = self.clock.now_ms();
        let mut rounds = Vec::new();
        for (key, outcome) in answer.partitions {
            rounds.extend(self.append(key, outcome, now).await);
        }
        // All are queued; the last one that goes has them written.
        for round in &mut rounds {
            round.replicated.unwritten.take();
        }
        for round in rounds {
            self.finish(round).await;
        }
    }

    /// Appends what came of one partition. `None`: there is nothing to wait for.
    async fn append(&mut self, key: FetchKey, outcome: Result<Fetched, FetchRefused>, now: UnixMs) -> Option<Round> {
        let key = self.session.key(&key)?;
        let asked = self.session.asked(&key)?;
        let follow = self.follows.get(&key)?;
        if follow.partition.id.topic_id != asked.id.topic_id || !follow.still_asks(asked) {
            if outcome.is_ok() {
                // The leader takes it for told.
                self.session.failed();
            }
            return None;
        }
        let follow = self.attend(&key)?;
        let fetched = match outcome {
            Ok(fetched) => fetched,
            Err(refused) => {
                follow.refused(refused);
                return None;
            }
        };
        if let Some((epoch, end)) = fetched.diverging {
            follow.parted(Cut::Diverging(epoch, end));
            return None;
        }
        let Fetched { high_watermark, log_start_offset, records, .. } = fetched;
        follow.partition.count_received(records.iter().map(Place::len).sum());
        let any = !records.is_empty();
        let records = match in_memory(records).await {
            Ok(records) => records,
            Err(error) => {
                warn!(partition = %follow.partition.name(), %error, "what a leader in this process gave is unreadable");
                follow.refused(FetchRefused::Storage);
                return None;
            }
        };
        match append(follow, records, now).await {
            Ok(replicated) => {
                let grew = replicated.unwritten.is_some();
                if any {
                    self.served = Some(key.clone());
                }
                Some(Round { key, replicated, grew, any, high_watermark, log_start_offset })
            }
            Err(error) => {
                follow.not_replicated(&error);
                None
            }
        }
    }

    async fn finish(&mut self, round: Round) {
        let Round { key, replicated, grew, any, high_watermark, log_start_offset } = round;
        let written = replicated.written.await;
        let Some(follow) = self.follows.get_mut(&key) else { return };
        if let Err(error) = written {
            return follow.not_written(&error);
        }
        if grew {
            follow.changed();
        }
        follow.told(high_watermark);
        let moved = follow.partition.advance_as_follower(follow.leader_epoch, high_watermark, log_start_offset);
        match moved.recorded().await {
            Ok(None) => {}
            Ok(Some(start)) => {
                let partition = Arc::clone(&follow.partition);
                task::blocking(move || partition.reclaim_below(start)).await;
            }
            Err(error) => return follow.cut(Err(error)),
        }
        match replicated.refused {
            Some(refused) => follow.spoiled(&refused),
            // Not one whole batch that is for this epoch: the same would come at once, again and again.
            None if any && !grew => follow.wait(),
            None => follow.succeeded(),
        }
    }
}

/// What came over a connection is in memory; a leader in this process may give places in its files.
async fn in_memory(records: Vec<Place>) -> std::io::Result<Vec<Bytes>> {
    let all = |records: Vec<Place>| {
        let read: std::io::Result<Vec<Vec<Bytes>>> = records.into_iter().map(Place::into_memory).collect();
        Ok(read?.concat())
    };
    if records.iter().all(|place| place.held_bytes() == place.len()) {
        return all(records);
    }
    task::blocking(move || all(records)).await
}

/// Appends what came. A log without records begins where the leader's first batch does: where records were deleted,
/// that may be below the start of both logs, and no fetch asks from there.
/// Source: Kafka 3.9 `Partition.appendRecordsToFollowerOrFutureReplica`.
async fn append(follow: &Follow, records: Vec<Bytes>, now: UnixMs) -> Result<Replicated, NotReplicated> {
    let view = follow.partition.view();
    let again = (view.log_start_offset == view.log_end_offset).then(|| records.clone());
    let replicated = follow.partition.append_fetched(follow.leader_epoch, records, now)?;
    let (Some(FetchedError::Unexpected { base_offset, .. }), Some(records)) = (&replicated.refused, again) else {
        return Ok(replicated);
    };
    if *base_offset >= view.log_start_offset {
        // Batches that overlap each other: what lies below would be left out.
        return Ok(replicated);
    }
    let (partition, start) = (Arc::clone(&follow.partition), *base_offset);
    match task::blocking(move || partition.truncate_fully_and_start_at(start, now)).await {
        Ok(()) => follow.partition.append_fetched(follow.leader_epoch, records, now),
        // It is asked again.
        Err(_) => Ok(replicated),
    }
}
