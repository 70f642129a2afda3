//! The leader's end of a follower's fetch: checked and counted, answered up to the log end, or parked until there is
//! something to answer with.
//!
//! In this order, so that an acknowledgement waits for nothing: the positions are noted, the fetch is counted (it may
//! raise the high watermark), then it is read. The answer tells the positions of before. It parks only if no partition
//! has anything to say, and what wakes it is what publishes a partition's positions: new data, another role. That the
//! high watermark rose does not; it rides along.
//! Source: Kafka 3.9 `ReplicaManager.fetchMessages`, `DelayedFetch`.
//!
//! A fetch costs as much as it names partitions, each time it is looked at.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::alter_partition::IsrChanges;
use super::leader_link::{
    FetchAnswer, FetchAsk, FetchRefused, Fetched, LeaderLink, LinkError, LogEnd, PartitionAsk, PartitionId,
};
use super::manager::ReplicaManager;
use super::partition::Partition;
use super::view::PartitionView;
use super::wait::{FetchWaiter, WaitGuard};
use crate::log::reading::read::Read;
use crate::task;
use crate::types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, TopicId};

/// Serves the followers of all partitions that this broker leads.
#[derive(Debug)]
pub(crate) struct FollowerFetches {
    replicas: Arc<ReplicaManager>,
    changes: Arc<IsrChanges>,
}

/// One partition of a fetch.
struct Part {
    ask: PartitionAsk,
    replica: Option<Arc<Partition>>,
    found: Result<Fetched, FetchRefused>,
    /// Positions of before the read; `None`: nothing is to be read.
    view: Option<PartitionView>,
    bytes: usize,
}

impl Part {
    fn has_to_be_told(&self) -> bool {
        match &self.found {
            Ok(found) => found.diverging.is_some(),
            Err(_) => true,
        }
    }
}

impl FollowerFetches {
    /// `changes`: where changes of ISRs go that a fetch gives rise to.
    pub(crate) fn new(replicas: Arc<ReplicaManager>, changes: Arc<IsrChanges>) -> Arc<Self> {
        Arc::new(Self { replicas, changes })
    }

    /// Answers one fetch, with all partitions that it names. May be dropped at any time; it has been counted then.
    pub(crate) async fn fetch(&self, ask: FetchAsk) -> FetchAnswer {
        let FetchAsk { replica, replica_epoch, max_wait_ms, min_bytes, max_bytes, partitions } = ask;
        let nothing = |ask| Part { ask, replica: None, found: Err(FetchRefused::NotLeader), view: None, bytes: 0 };
        let mut parts: Vec<Part> = partitions.into_iter().map(nothing).collect();
        self.look(replica, &mut parts);
        self.count(replica, replica_epoch, &mut parts);
        let max_bytes = usize::try_from(max_bytes).unwrap_or(0);
        parts = read(parts, max_bytes).await;
        let min_bytes = usize::try_from(min_bytes).unwrap_or(0);
        let max_wait = Duration::from_millis(u64::try_from(max_wait_ms).unwrap_or(0));
        if !is_due(&parts, min_bytes) && !max_wait.is_zero() {
            parts = self.park(replica, parts, max_bytes, min_bytes, max_wait).await;
        }
        FetchAnswer { partitions: parts.into_iter().map(|part| (part.ask.id, part.found)).collect() }
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
        let (topic, index) = (id.topic.as_str(), id.partition);
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

    /// Finds each partition and its positions of now.
    fn look(&self, replica: BrokerId, parts: &mut [Part]) {
        for part in parts {
            part.bytes = 0;
            part.view = None;
            let found = self.find(&part.ask.id);
            part.replica = found.as_ref().ok().cloned();
            part.found = found.and_then(|partition| partition.look_for_follower(replica, &part.ask)).map(|look| {
                part.view = look.diverging.is_none().then_some(look.view);
                let PartitionView { high_watermark, log_start_offset, .. } = look.view;
                Fetched { high_watermark, log_start_offset, diverging: look.diverging, records: Vec::new() }
            });
        }
    }

    /// Counts what the follower has, by the offsets that it asks for.
    fn count(&self, replica: BrokerId, replica_epoch: BrokerEpoch, parts: &mut [Part]) {
        for part in parts {
            let (Some(partition), Some(view)) = (&part.replica, part.view) else { continue };
            match partition.record_follower(replica, replica_epoch, &part.ask, &view) {
                Ok(None) => {}
                Ok(Some(change)) => self.changes.submit(change),
                Err(refused) => {
                    part.view = None;
                    part.found = Err(refused);
                }
            }
        }
    }

    /// Waits for news of any partition, and looks again. What the follower has was counted when it came.
    async fn park(
        &self,
        replica: BrokerId,
        mut parts: Vec<Part>,
        max_bytes: usize,
        min_bytes: usize,
        max_wait: Duration,
    ) -> Vec<Part> {
        let deadline = tokio::time::sleep(max_wait);
        tokio::pin!(deadline);
        loop {
            let waiter = FetchWaiter::new(false);
            let _over = WaitGuard(Arc::clone(&waiter));
            for partition in parts.iter().filter_map(|part| part.replica.as_ref()) {
                partition.followers_waiting.register(&waiter);
            }
            // What was written before the registration is found by this look, what comes after it wakes the waiter.
            self.look(replica, &mut parts);
            parts = read(parts, max_bytes).await;
            if is_due(&parts, min_bytes) {
                return parts;
            }
            let have: usize = parts.iter().map(|part| part.bytes).sum();
            waiter.expect(min_bytes.saturating_sub(have) as i64);
            tokio::select! {
                biased;
                () = waiter.due() => {}
                () = &mut deadline => {
                    self.look(replica, &mut parts);
                    return read(parts, max_bytes).await;
                }
            }
        }
    }
}

impl LeaderLink for FollowerFetches {
    fn fetch(&self, ask: FetchAsk) -> BoxFuture<'_, Result<FetchAnswer, LinkError>> {
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
    parts.is_empty()
        || parts.iter().map(|part| part.bytes).sum::<usize>() >= min_bytes
        || parts.iter().any(Part::has_to_be_told)
}

/// What a fetch may still take while it goes through its partitions.
struct Room {
    left: usize,
    /// The first batch may be larger than all limits, lest a follower never get past it.
    empty_so_far: bool,
}

impl Room {
    /// How many bytes to read of this partition; `None`: there is nothing to read, or no room.
    fn of(&self, part: &Part) -> Option<(Arc<Partition>, Offset, usize)> {
        let (Some(partition), Some(view)) = (&part.replica, part.view) else { return None };
        let bytes = self.left.min(usize::try_from(part.ask.max_bytes).unwrap_or(0));
        let some = part.ask.fetch_offset < view.log_end_offset && (bytes > 0 || self.empty_so_far);
        some.then(|| (Arc::clone(partition), view.log_end_offset, bytes))
    }

    fn take(&mut self, part: &mut Part, read: Read) {
        self.empty_so_far &= read.bytes == 0;
        self.left = self.left.saturating_sub(read.bytes);
        part.bytes = read.bytes;
        if let Ok(found) = &mut part.found {
            found.records = read.batches;
        }
    }
}

/// Reads up to the log end: from memory where it is there, and from the first partition on where it is not, on a thread
/// that may block on the disk.
async fn read(mut parts: Vec<Part>, max_bytes: usize) -> Vec<Part> {
    let mut room = Room { left: max_bytes, empty_so_far: true };
    match read_memory(&mut parts, &mut room) {
        None => parts,
        Some(first) => task::blocking(move || read_blocking(parts, first, room)).await,
    }
}

/// Gives the first partition that has to be read from the disk.
fn read_memory(parts: &mut [Part], room: &mut Room) -> Option<usize> {
    for (index, part) in parts.iter_mut().enumerate() {
        let Some((partition, upto, bytes)) = room.of(part) else { continue };
        let read = partition.reader().read_memory(part.ask.fetch_offset, upto, bytes, room.empty_so_far);
        let Some(read) = read else { return Some(index) };
        room.take(part, read);
    }
    None
}

fn read_blocking(mut parts: Vec<Part>, first: usize, mut room: Room) -> Vec<Part> {
    for part in &mut parts[first..] {
        let Some((partition, upto, bytes)) = room.of(part) else { continue };
        match partition.reader().read(part.ask.fetch_offset, upto, bytes, room.empty_so_far) {
            Ok(read) => room.take(part, read),
            Err(failure) => {
                tracing::error!(partition = %partition.name(), %failure, "a read for a follower failed");
                part.found = Err(FetchRefused::Storage);
            }
        }
    }
    parts
}
