//! Partitions over the directory's twin in memory, for tests of this room and of those above it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use super::ack::{Ack, Completion};
use super::fetcher::{FetcherSettings, Fetchers};
use super::flush::FlushTimer;
use super::leader_link::{
    FetchAnswer, FetchAsk, FetchRefused, LeaderLink, LeaderLinks, LinkError, LogEnd, SessionError,
};
use super::partition::{AckAt, Home, Partition, Role, Upkeep};
use super::surroundings::Surroundings;
use super::throttle::Throttles;
use crate::clock::SharedClock;
use crate::clock::testing::ManualClock;
use crate::cluster::registration::SharedBrokerEpoch;
use crate::log::config::LogConfig;
use crate::log::partition_log::PartitionLog;
use crate::log::reading::tail::Tail;
use crate::record::BatchBuilder;
use crate::storage::testing::faulty::{Faults, FaultyDir};
use crate::storage::testing::memory::MemoryDir;
use crate::storage::{LogDir, PartitionId, SharedLogDir};
use crate::types::{BrokerId, LeaderEpoch, Offset, PartitionEpoch, PartitionIndex, TopicId};

/// This broker.
pub(crate) const ME: BrokerId = BrokerId(1);

/// A broker that knows of no other.
pub(crate) fn alone(me: BrokerId, clock: SharedClock) -> Arc<Surroundings> {
    let (image, lag_max) = (Arc::default(), Duration::from_secs(30));
    Arc::new(Surroundings { me, clock, image, lag_max, throttles: Throttles::default() })
}

/// `leader` leads alone, this broker and it are the replicas.
pub(crate) fn role(leader: i32, epoch: i32) -> Role {
    let leader = BrokerId(leader);
    let replicas = if leader == ME { vec![ME] } else { vec![leader, ME] };
    Role {
        leader: Some(leader),
        leader_epoch: LeaderEpoch(epoch),
        isr: vec![leader],
        partition_epoch: PartitionEpoch(epoch),
        replicas,
    }
}

/// Partition 0 of the topic `t`, in a directory of its own, that has no role yet.
pub(crate) fn closed() -> (Arc<Partition>, Arc<Faults>) {
    let topic_id = TopicId::from_random(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef).expect("a legal id");
    let id = PartitionId { topic: "t".into(), topic_id, partition: PartitionIndex(0) };
    let (dir, faults) = FaultyDir::around(MemoryDir::open());
    let family = dir.create(std::slice::from_ref(&id)).expect("created")[0];
    let (dir, tail): (SharedLogDir, _) = (dir, Tail::new(1 << 20));
    let log = PartitionLog::open(Arc::clone(&dir), id.clone(), family, LogConfig::default(), Arc::clone(&tail), 0);
    let upkeep = Upkeep { cleaner: Arc::default(), flush: FlushTimer::new(Arc::clone(&dir)) };
    (
        Partition::new(
            alone(ME, Arc::new(ManualClock::new(0, 1))),
            id,
            Home { at: 0, dir, family, tail, generation: 0 },
            upkeep,
            log.expect("opens"),
        ),
        faults,
    )
}

/// The same, led here under this epoch.
pub(crate) fn led(epoch: LeaderEpoch) -> (Arc<Partition>, Arc<Faults>) {
    let (partition, faults) = closed();
    take(&partition, role(ME.0, epoch.0));
    (partition, faults)
}

/// Has it take a role, and waits until that is recorded.
pub(crate) fn take(partition: &Arc<Partition>, role: Role) {
    partition.take_role(role).expect("taken").wait().expect("recorded");
}

/// Appends a batch of one record, and waits until it is written; who follows is not waited for.
pub(crate) fn append_unacknowledged(partition: &Arc<Partition>) {
    let mut builder = BatchBuilder::new();
    builder.append(0, None, Some(b"v"));
    let (completion, _) = Completion::new(1);
    let ack = AckAt::HighWatermark(Ack::new(&completion, 0));
    drop(partition.append(builder.finish(), ack, None, None, 0).expect("accepted"));
    partition.wait_for_writes().expect("written");
}

/// Appends so many batches of one record, and waits until they are written.
pub(crate) fn append(partition: &Arc<Partition>, count: usize) {
    for _ in 0..count {
        let mut builder = BatchBuilder::new();
        builder.append(0, None, Some(b"v"));
        let (completion, mut acked) = Completion::new(1);
        let ack = AckAt::HighWatermark(Ack::new(&completion, 0));
        drop(partition.append(builder.finish(), ack, None, None, 0).expect("accepted"));
        drop(completion);
        let outcomes = loop {
            match acked.try_all() {
                Some(outcomes) => break outcomes,
                None => std::thread::yield_now(),
            }
        };
        outcomes.into_iter().for_each(|outcome| outcome.expect("written"));
    }
}

/// Fetchers of a broker that is alone.
pub(crate) fn no_fetchers(clock: SharedClock, epoch: SharedBrokerEpoch) -> Arc<Fetchers> {
    Fetchers::new(ME, epoch, Arc::new(NoLeaders), clock, fetcher_settings())
}

/// Kafka's defaults.
pub(crate) fn fetcher_settings() -> FetcherSettings {
    FetcherSettings {
        fetchers: 1,
        response_bytes: 10 << 20,
        partition_bytes: 1 << 20,
        wait_ms: 500,
        min_bytes: 1,
        backoff: Duration::from_secs(1),
    }
}

/// Reaches no leader.
#[derive(Debug)]
pub(crate) struct NoLeaders;

impl LeaderLinks for NoLeaders {
    fn link(&self, _: BrokerId, _: u16) -> Arc<dyn LeaderLink> {
        Arc::new(Self)
    }
}

impl LeaderLink for NoLeaders {
    fn fetch(&self, _: FetchAsk) -> BoxFuture<'_, Result<Result<FetchAnswer, SessionError>, LinkError>> {
        ready(Err(LinkError("there is no way to another broker".into()))).boxed()
    }

    fn list_offset(
        &self,
        _: PartitionId,
        _: LeaderEpoch,
        _: LogEnd,
    ) -> BoxFuture<'_, Result<Result<Offset, FetchRefused>, LinkError>> {
        ready(Err(LinkError("there is no way to another broker".into()))).boxed()
    }
}
