//! The owner of what is followed at one leader through one link.
//!
//! A round: obey orders, cut what has to be cut, fetch, append, wait for the writes, pass on the leader's high
//! watermark. While a fetch is under way orders are obeyed at once: one that takes partitions away is answered, since
//! nothing of them is being appended, and one that brings some ends the fetch, so that they are not kept waiting.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::OptionFuture;
use futures_util::stream::{self, StreamExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::follow::{Backoff, Cut, Follow, Next};
use super::settings::{FetcherSettings, Key};
use crate::clock::{SharedClock, UnixMs};
use crate::cluster::registration::SharedBrokerEpoch;
use crate::log::fetched::FetchedError;
use crate::replica::leader_link::{FetchAnswer, FetchAsk, FetchRefused, LeaderLink, LinkError, LogEnd};
use crate::replica::partition::{NotReplicated, Partition, Replicated};
use crate::task;
use crate::types::{BrokerId, LeaderEpoch, Offset};

/// Logs that are cut at the same time; each waits for the disk.
const CUTS_AT_ONCE: usize = 32;

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
    /// The last partition that had records: the next ask begins behind it, so that each has its turn.
    served: Option<Key>,
    backoff: Backoff,
    /// The link has failed: when it is tried again.
    link_again: Option<Instant>,
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
            served: None,
            backoff: Backoff::default(),
            link_again: None,
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
                    self.follows.insert(key, Follow::new(partition, epoch, self.settings.backoff));
                }
                // It may be there by now: the controller says that it leads.
                (self.link_again, self.backoff) = (None, Backoff::default());
            }
            Order::Stop { partitions, done } => {
                for key in partitions {
                    self.follows.remove(&key);
                }
                // Whoever waits may have been dropped.
                done.send(()).unwrap_or_default();
            }
            Order::StopAll { done } => {
                self.follows.clear();
                done.send(()).unwrap_or_default();
            }
        }
    }

    /// Waits for the leader and obeys meanwhile.
    async fn call<T>(&mut self, call: impl Future<Output = T>) -> Called<T> {
        tokio::pin!(call);
        loop {
            tokio::select! {
                biased;
                order = self.mailbox.recv() => match order {
                    None => return Called::Ended,
                    Some(order @ Order::Follow(_)) => {
                        self.obey(order);
                        return Called::Interrupted;
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
            .follows
            .iter()
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
                    let to = Follow::truncation_offset(&partition, epoch, leader_end);
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
            if let Some(follow) = self.follows.get_mut(&key) {
                follow.cut(outcome);
            }
        }
    }

    /// Asks where the leader's log begins and ends, for those that are not within.
    async fn find_ranges(&mut self) -> Called<()> {
        let lost: Vec<Key> = self
            .follows
            .iter()
            .filter(|(_, follow)| follow.next == Next::FindRange)
            .map(|(key, _)| key.clone())
            .collect();
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
            let follow = self.follows.get_mut(&key).filter(|follow| follow.next == Next::FindRange);
            let Some(follow) = follow.filter(|follow| follow.leader_epoch == epoch) else { continue };
            match answer {
                Ok(Ok((start, end))) => follow.on_range(start, end),
                Ok(Err(_)) | Err(_) => follow.wait(),
            }
        }
        Called::Answered(())
    }

    async fn fetch(&mut self) -> Called<()> {
        let Some(ask) = self.ask() else { return self.idle().await };
        let link = Arc::clone(&self.link);
        match self.call(async move { link.fetch(ask).await }).await {
            Called::Answered(Ok(answer)) => {
                self.backoff.reset();
                self.take(answer).await;
                Called::Answered(())
            }
            Called::Answered(Err(error)) => {
                let pause = self.backoff.next(self.settings.backoff);
                // Each doubling once: a leader that is gone for long says no more.
                if pause < self.settings.backoff {
                    warn!(leader = %self.leader, %error, "the leader does not answer");
                }
                self.link_again = Some(Instant::now() + pause);
                Called::Answered(())
            }
            Called::Interrupted => Called::Interrupted,
            Called::Ended => Called::Ended,
        }
    }

    /// Waits for an order, or until something is to be tried again.
    async fn idle(&mut self) -> Called<()> {
        if self.follows.values().any(|follow| matches!(follow.next, Next::Cut(_) | Next::FindRange)) {
            return Called::Answered(());
        }
        let waits = self.follows.values().filter_map(|follow| match follow.next {
            Next::Wait(until) => Some(until),
            Next::Fetch => self.link_again,
            _ => None,
        });
        let wake = waits.min().map(|until| sleep_until(self.link_again.map_or(until, |again| until.max(again))));
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

    /// Everything that can be fetched now. Source: Kafka 3.9 `RemoteLeaderEndPoint.buildFetch`.
    fn ask(&mut self) -> Option<FetchAsk> {
        let now = Instant::now();
        if self.link_again.is_some_and(|again| again > now) {
            return None;
        }
        self.link_again = None;
        let first = match &self.served {
            Some(served) => Bound::Excluded(served.clone()),
            None => Bound::Unbounded,
        };
        let until = first.clone();
        let max_bytes = self.settings.partition_bytes;
        let mut partitions: Vec<_> = self
            .follows
            .range_mut((first, Bound::Unbounded))
            .filter_map(|(_, follow)| follow.ask(now, max_bytes))
            .collect();
        if let Bound::Excluded(served) = until {
            let rest = self.follows.range_mut(..=served);
            partitions.extend(rest.filter_map(|(_, follow)| follow.ask(now, max_bytes)));
        }
        (!partitions.is_empty()).then(|| FetchAsk {
            replica: self.me,
            replica_epoch: self.epoch.get(),
            max_wait_ms: self.max_wait_ms(now),
            min_bytes: self.settings.min_bytes,
            max_bytes: self.settings.response_bytes,
            partitions,
        })
    }

    /// A partition that waits is not kept waiting by a fetch that waits for others.
    fn max_wait_ms(&self, now: Instant) -> i32 {
        let waits = self.follows.values().filter_map(|follow| match follow.next {
            Next::Wait(until) => Some(until.saturating_duration_since(now).as_millis() as i32),
            Next::Cut(_) | Next::FindRange => Some(0),
            _ => None,
        });
        waits.min().map_or(self.settings.wait_ms, |wait| wait.min(self.settings.wait_ms))
    }

    /// Appends what came, waits until it is written, and passes on the leader's positions.
    async fn take(&mut self, answer: FetchAnswer) {
        let now = self.clock.now_ms();
        let mut rounds = Vec::new();
        for (id, outcome) in answer.partitions {
            let key = (id.topic, id.partition);
            let Some(follow) = self.follows.get_mut(&key) else { continue };
            if follow.partition.id.topic_id != id.topic_id || !follow.is_answered() {
                continue;
            }
            let fetched = match outcome {
                Ok(fetched) => fetched,
                Err(refused) => {
                    follow.refused(refused);
                    continue;
                }
            };
            follow.succeeded();
            if let Some((epoch, end)) = fetched.diverging {
                follow.next = Next::Cut(Cut::Diverging(epoch, end));
                continue;
            }
            if !fetched.records.is_empty() {
                self.served = Some(key.clone());
            }
            match append(follow, fetched.records, now).await {
                Ok(replicated) => rounds.push(Round {
                    key,
                    grew: replicated.unwritten.is_some(),
                    replicated,
                    high_watermark: fetched.high_watermark,
                    log_start_offset: fetched.log_start_offset,
                }),
                Err(error) => follow.not_replicated(&error),
            }
        }
        // All are queued; the last one that goes has them written.
        for round in &mut rounds {
            round.replicated.unwritten.take();
        }
        for round in rounds {
            self.finish(round).await;
        }
    }

    async fn finish(&mut self, round: Round) {
        let Round { key, replicated, grew, high_watermark, log_start_offset } = round;
        let written = replicated.written.await;
        let Some(follow) = self.follows.get_mut(&key) else { return };
        if let Err(error) = written {
            return follow.not_written(&error);
        }
        if grew {
            follow.changed();
        }
        let moved = follow.partition.advance_as_follower(follow.leader_epoch, high_watermark, log_start_offset);
        match moved.recorded().await {
            Ok(None) => {}
            Ok(Some(start)) => {
                let partition = Arc::clone(&follow.partition);
                task::blocking(move || partition.reclaim_below(start)).await;
            }
            Err(error) => return follow.cut(Err(error)),
        }
        if let Some(refused) = replicated.refused {
            follow.spoiled(&refused);
        }
    }
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
    let (partition, start) = (Arc::clone(&follow.partition), *base_offset);
    match task::blocking(move || partition.truncate_fully_and_start_at(start, now)).await {
        Ok(()) => follow.partition.append_fetched(follow.leader_epoch, records, now),
        // It is asked again.
        Err(_) => Ok(replicated),
    }
}
