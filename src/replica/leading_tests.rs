//! A leader over a directory in memory, two followers that a test drives by hand, and a controller that a test scripts:
//! the high watermark, acks, changes of the ISR and what a fetch is answered.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::ack::{Ack, AckError, Acked, Completion};
use super::alter_partition::{self, IsrChanges, expand_all, shrink_all};
use super::follower_fetch::FollowerFetches;
use super::leader_link::{
    FetchAnswer, FetchAsk, FetchRefused, Fetched, LogEnd, PartitionAsk, SessionAsk, SessionError,
};
use super::maintenance::checkpoint_high_watermarks;
use super::manager::{ReplicaConfig, ReplicaDir, ReplicaManager, WantedReplica};
use super::partition::{AckAt, AppendRefused, Partition, Role};
use super::session_cache::Sessions;
use super::surroundings::Surroundings;
use super::testing;
use super::throttle::Throttles;
use crate::clock::testing::ManualClock;
use crate::cluster::control::{
    AlterPartition, ControlHead, ControllerError, IsrLink, IsrRefused, IsrResults, LiveBroker, StoredIsr,
    UpdateMetadata,
};
use crate::cluster::image::ImagePublisher;
use crate::cluster::registration::SharedBrokerEpoch;
use crate::log::config::LogConfig;
use crate::log::reading::tail::Tail;
use crate::record::BatchBuilder;
use crate::storage::testing::memory::MemoryDir;
use crate::storage::{LogDir, PartitionId};
use crate::types::{
    BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, Offset, PartitionEpoch, PartitionIndex, TopicId,
};

const ME: BrokerId = BrokerId(1);
const LAG_MS: i64 = 30_000;

/// What the controller says to the next proposals; without a script it stores them.
#[derive(Debug, Default)]
struct Controller {
    script: Mutex<VecDeque<Option<IsrRefused>>>,
    asked: Mutex<Vec<AlterPartition>>,
}

impl Controller {
    /// `None`: it does not answer.
    fn says(&self, answer: Option<IsrRefused>) {
        self.script.lock().push_back(answer);
    }

    /// ISRs that were proposed since the last look.
    fn proposed(&self) -> Vec<Vec<i32>> {
        let asked = std::mem::take(&mut *self.asked.lock());
        let proposals = asked.into_iter().flat_map(|request| request.partitions);
        proposals.map(|proposal| proposal.isr.iter().map(|(id, _)| id.0).collect()).collect()
    }
}

impl IsrLink for Controller {
    fn alter_partition(&self, request: AlterPartition) -> BoxFuture<'_, Result<IsrResults, ControllerError>> {
        self.asked.lock().push(request.clone());
        let answer = match self.script.lock().pop_front() {
            Some(None) => Err(ControllerError::NotController),
            scripted => Ok(request
                .partitions
                .into_iter()
                .map(|proposal| {
                    let stored = StoredIsr {
                        leader: Some(request.broker),
                        leader_epoch: proposal.leader_epoch,
                        isr: proposal.isr.iter().map(|(id, _)| *id).collect(),
                        recovery: proposal.recovery,
                        partition_epoch: PartitionEpoch(proposal.partition_epoch.0 + 1),
                    };
                    let result = scripted.clone().flatten().map_or(Ok(stored), Err);
                    (proposal.topic_id, proposal.partition, result)
                })
                .collect()),
        };
        async move { answer }.boxed()
    }
}

struct Bench {
    disk: Arc<MemoryDir>,
    clock: Arc<ManualClock>,
    image: Arc<ImagePublisher>,
    replicas: Arc<ReplicaManager>,
    partition: Arc<Partition>,
    changes: Arc<IsrChanges>,
    fetches: Arc<FollowerFetches>,
    controller: Arc<Controller>,
}

fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().map(|&id| BrokerId(id)).collect()
}

/// Broker `leader` leads, three have replicas.
fn role(leader: i32, epoch: i32, isr: &[i32]) -> Role {
    Role {
        leader: Some(BrokerId(leader)),
        leader_epoch: LeaderEpoch(epoch),
        isr: ids(isr),
        partition_epoch: PartitionEpoch(epoch * 100),
        replicas: ids(&[1, 2, 3]),
    }
}

impl Bench {
    /// Leads under epoch 1 with these in sync; all brokers are alive. Nothing is sent to the controller by itself.
    fn new(isr: &[i32], min_insync_replicas: usize) -> Self {
        let bench = Self::over(MemoryDir::open(), min_insync_replicas);
        testing::take(&bench.partition, role(1, 1, isr));
        bench
    }

    /// The replica as a start opens it, without a role.
    fn over(disk: Arc<MemoryDir>, min_insync_replicas: usize) -> Self {
        let clock = Arc::new(ManualClock::new(1_000_000, 1));
        let image = Arc::new(ImagePublisher::default());
        let lag_max = Duration::from_millis(LAG_MS as u64);
        let around = Surroundings {
            me: ME,
            clock: Arc::clone(&clock) as _,
            image: Arc::clone(&image),
            lag_max,
            throttles: Throttles::default(),
        };
        let dirs = vec![ReplicaDir {
            dir: Arc::clone(&disk) as _,
            tail: Tail::new(1 << 20),
            may_lack_ends: false,
            configured: None,
        }];
        let config_of = Arc::new(move |_: &_| ReplicaConfig { log: LogConfig::default(), min_insync_replicas });
        let replicas = ReplicaManager::new(Arc::new(around), dirs, config_of).expect("readable");
        let topic_id = TopicId::from_random(1 << 64 | 7).expect("a legal id");
        let id = PartitionId { topic: "t".into(), topic_id, partition: PartitionIndex(0) };
        let partition = replicas.open(&[WantedReplica { id, is_new: true }]).remove(0).expect("opened");
        let changes = Arc::new(IsrChanges::default());
        let sessions = Arc::new(Sessions::new(10));
        let fetches = FollowerFetches::new(Arc::clone(&replicas), Arc::clone(&changes), sessions);
        let bench = Self { clock, image, replicas, partition, changes, fetches, controller: Arc::default(), disk };
        bench.alive(&[1, 2, 3]);
        bench
    }

    /// The same with a task that sends what is proposed.
    fn sending(isr: &[i32], min_insync_replicas: usize) -> Self {
        let bench = Self::new(isr, min_insync_replicas);
        let link: Arc<dyn IsrLink> = Arc::clone(&bench.controller) as _;
        let (replicas, changes) = (Arc::clone(&bench.replicas), Arc::clone(&bench.changes));
        alter_partition::start(replicas, changes, link, SharedBrokerEpoch::default());
        bench
    }

    fn alive(&self, brokers: &[i32]) {
        let live = |&id: &i32| LiveBroker { id: BrokerId(id), endpoints: Vec::new(), rack: None };
        let head =
            ControlHead { controller: ME, controller_epoch: ControllerEpoch(1), broker_epoch: BrokerEpoch::NONE };
        let live_brokers = brokers.iter().map(live).collect();
        self.image.apply(&UpdateMetadata { head, topics: Vec::new(), live_brokers });
    }

    /// Appends one batch with acks=all, and waits until it is written here.
    fn append(&self) -> Result<Acked, AppendRefused> {
        let (completion, acked) = Completion::new(1);
        self.append_for(AckAt::HighWatermark(Ack::new(&completion, 0)))?;
        Ok(acked)
    }

    fn append_for(&self, ack: AckAt) -> Result<(), AppendRefused> {
        let mut builder = BatchBuilder::new();
        builder.append(0, None, Some(b"v"));
        drop(self.partition.append(builder.finish(), ack, None, None, 0)?);
        self.partition.wait_for_writes().expect("written");
        Ok(())
    }

    fn ask(&self, replica: i32, offset: i64) -> FetchAsk {
        let partition = PartitionAsk {
            id: self.partition.id.clone(),
            fetch_offset: Offset(offset),
            last_fetched_epoch: (offset > 0).then_some(self.partition.view().leader_epoch),
            leader_epoch: Some(self.partition.view().leader_epoch),
            log_start_offset: Offset(0),
            max_bytes: 1 << 20,
        };
        FetchAsk {
            replica: BrokerId(replica),
            replica_epoch: BrokerEpoch(i64::from(replica) * 10),
            max_wait_ms: 0,
            min_bytes: 1,
            max_bytes: 10 << 20,
            session: SessionAsk::NONE,
            by_name: false,
            partitions: vec![partition],
            forgotten: Vec::new(),
        }
    }

    /// A follower's fetch that does not wait.
    async fn fetch(&self, replica: i32, offset: i64) -> Result<Fetched, FetchRefused> {
        only(self.fetches.fetch(self.ask(replica, offset)).await)
    }

    /// As [`Self::ask`], changed.
    async fn fetch_with(&self, change: impl FnOnce(&mut FetchAsk)) -> Result<Fetched, FetchRefused> {
        let mut ask = self.ask(2, 0);
        change(&mut ask);
        only(self.fetches.fetch(ask).await)
    }

    fn high_watermark(&self) -> i64 {
        self.partition.view().high_watermark.0
    }

    fn isr(&self) -> Vec<i32> {
        self.partition.role().isr.iter().map(|id| id.0).collect()
    }
}

fn only(answer: Result<FetchAnswer, SessionError>) -> Result<Fetched, FetchRefused> {
    let mut answer = answer.expect("outside of sessions");
    assert_eq!(answer.partitions.len(), 1);
    answer.partitions.remove(0).1
}

/// Lets the tasks run that have something to do.
async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_high_watermark_is_what_all_in_sync_have_and_acks_wait_for_it() {
    let bench = Bench::new(&[1, 2, 3], 1);
    let mut acked = bench.append().expect("accepted");
    bench.append().expect("accepted");
    let first = bench.fetch(2, 0).await.expect("served");
    assert_eq!((first.high_watermark, first.log_start_offset, first.records.len()), (Offset(0), Offset(0), 2));
    assert_eq!(bench.high_watermark(), 0, "3 has not been heard of");
    bench.fetch(3, 1).await.expect("served");
    assert_eq!(bench.high_watermark(), 0, "2 has nothing yet");
    assert!(acked.try_all().is_none());
    let second = bench.fetch(2, 2).await.expect("served");
    assert_eq!((second.high_watermark, second.records.len()), (Offset(0), 0), "positions of before");
    assert_eq!(bench.high_watermark(), 1);
    assert_eq!(acked.try_all(), Some(vec![Ok(())]));
    let third = bench.fetch(3, 2).await.expect("served");
    assert_eq!((third.high_watermark, bench.high_watermark()), (Offset(1), 2));
}

#[tokio::test(start_paused = true)]
async fn a_parked_fetch_ends_with_data_with_another_role_or_with_its_time() {
    let bench = Bench::new(&[1, 2, 3], 1);
    let waits = |max_wait_ms| FetchAsk { max_wait_ms, ..bench.ask(2, 0) };
    let begin = tokio::time::Instant::now();
    let empty = only(bench.fetches.fetch(waits(500)).await).expect("served");
    assert_eq!((empty.records.len(), begin.elapsed()), (0, Duration::from_millis(500)));

    let fetches = Arc::clone(&bench.fetches);
    let ask = waits(3_600_000);
    let parked = tokio::spawn(async move { fetches.fetch(ask).await });
    settle().await;
    bench.append().expect("accepted");
    assert_eq!(only(parked.await.expect("ends")).expect("served").records.len(), 1);

    let (fetches, ask) = (Arc::clone(&bench.fetches), FetchAsk { max_wait_ms: 3_600_000, ..bench.ask(2, 1) });
    let parked = tokio::spawn(async move { fetches.fetch(ask).await });
    settle().await;
    testing::take(&bench.partition, role(3, 2, &[1, 2, 3]));
    assert_eq!(only(parked.await.expect("ends")), Err(FetchRefused::FencedLeaderEpoch));
    assert!(begin.elapsed() < Duration::from_secs(60), "no time had to pass");
}

#[tokio::test]
async fn a_fetch_is_checked_in_kafkas_order() {
    let bench = Bench::new(&[1, 2, 3], 1);
    for _ in 0..3 {
        bench.append().expect("accepted");
    }
    let moved = bench.partition.change_log(|log, _, writes| log.advance_log_start(Offset(1), writes));
    moved.expect("open").written().expect("written");
    let part = |change: fn(&mut PartitionAsk)| {
        let mut ask = bench.ask(2, 2);
        change(&mut ask.partitions[0]);
        let fetches = Arc::clone(&bench.fetches);
        async move { only(fetches.fetch(ask).await) }
    };
    let other = |ask: &mut PartitionAsk| ask.id.topic_id = TopicId::from_random(9 << 64 | 7).expect("legal");
    assert_eq!(part(other).await, Err(FetchRefused::InconsistentTopicId));
    assert!(part(|ask| ask.id.topic_id = TopicId::ZERO).await.is_ok(), "by name");
    assert_eq!(part(|ask| ask.id.topic = "u".into()).await, Err(FetchRefused::UnknownPartition));
    assert_eq!(part(|ask| ask.leader_epoch = Some(LeaderEpoch(0))).await, Err(FetchRefused::FencedLeaderEpoch));
    assert_eq!(part(|ask| ask.leader_epoch = Some(LeaderEpoch(2))).await, Err(FetchRefused::UnknownLeaderEpoch));
    assert!(part(|ask| ask.leader_epoch = None).await.is_ok());
    let stranger = |with: bool| {
        bench.fetch_with(move |ask| {
            ask.replica = BrokerId(4);
            ask.partitions[0].fetch_offset = Offset(0);
            if !with {
                ask.partitions[0].leader_epoch = None;
            }
        })
    };
    assert_eq!(stranger(true).await, Err(FetchRefused::UnknownLeaderEpoch), "not among the replicas yet");
    assert_eq!(stranger(false).await, Err(FetchRefused::NotLeader));
    let below = |ask: &mut PartitionAsk| (ask.fetch_offset, ask.last_fetched_epoch) = (Offset(0), Some(LeaderEpoch(0)));
    assert_eq!(part(below).await, Err(FetchRefused::OffsetOutOfRange), "before divergence");
    let parted = part(|ask| ask.last_fetched_epoch = Some(LeaderEpoch(0))).await.expect("told");
    assert_eq!((parted.diverging, parted.records.len()), (Some((LeaderEpoch(0), Offset(1))), 0));
    let beyond = part(|ask| ask.fetch_offset = Offset(9)).await.expect("told");
    assert_eq!(beyond.diverging, Some((LeaderEpoch(1), Offset(3))));
    let blind = part(|ask| (ask.fetch_offset, ask.last_fetched_epoch) = (Offset(9), None)).await;
    assert_eq!(blind, Err(FetchRefused::OffsetOutOfRange));
    assert_eq!(bench.isr(), [1, 2, 3]);
    testing::take(&bench.partition, role(2, 2, &[1, 2, 3]));
    assert_eq!(part(|_| ()).await, Err(FetchRefused::NotLeader));
    assert_eq!(part(|ask| ask.leader_epoch = Some(LeaderEpoch(1))).await, Err(FetchRefused::FencedLeaderEpoch));
    let ends = |end| bench.fetches.list_offset(&bench.partition.id, Some(LeaderEpoch(2)), end);
    assert_eq!(ends(LogEnd::Latest), Err(FetchRefused::NotLeader));
    testing::take(&bench.partition, role(1, 3, &[1, 2, 3]));
    let ends = |end| bench.fetches.list_offset(&bench.partition.id, Some(LeaderEpoch(3)), end);
    assert_eq!((ends(LogEnd::Earliest), ends(LogEnd::Latest)), (Ok(Offset(1)), Ok(Offset(3))));
    assert!(bench.high_watermark() < 3, "a replica is told the log end");
}

#[tokio::test]
async fn a_fetch_takes_whole_batches_within_its_limits_but_the_first() {
    let bench = Bench::new(&[1, 2, 3], 1);
    for _ in 0..3 {
        bench.append().expect("accepted");
    }
    let all = bench.fetch(2, 0).await.expect("served").records;
    let size = all[0].len() as i32;
    assert_eq!(bench.fetch_with(|ask| ask.max_bytes = 1).await.expect("served").records, all[..1]);
    assert_eq!(bench.fetch_with(|ask| ask.max_bytes = 2 * size).await.expect("served").records, all[..2]);
    let narrow = bench.fetch_with(|ask| ask.partitions[0].max_bytes = 3 * size - 1).await;
    assert_eq!(narrow.expect("served").records, all[..2]);
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_lags_leaves_the_isr_and_the_high_watermark_goes_on() {
    let bench = Bench::sending(&[1, 2, 3], 1);
    let mut acked = bench.append().expect("accepted");
    bench.fetch(2, 1).await.expect("served");
    bench.clock.advance(LAG_MS);
    shrink_all(&bench.replicas, &bench.changes);
    settle().await;
    assert_eq!(bench.controller.proposed(), Vec::<Vec<i32>>::new(), "not yet");
    bench.clock.advance(1);
    shrink_all(&bench.replicas, &bench.changes);
    assert_eq!((bench.isr(), bench.high_watermark()), (vec![1, 2, 3], 0), "until it is stored");
    settle().await;
    assert_eq!(bench.controller.proposed(), [[1, 2]]);
    assert_eq!((bench.isr(), bench.high_watermark()), (vec![1, 2], 1));
    assert_eq!(acked.try_all(), Some(vec![Ok(())]));
    assert_eq!(bench.partition.role().partition_epoch, PartitionEpoch(101));
    // It is level again, and comes back with the epoch that it fetches under.
    bench.fetch(3, 1).await.expect("served");
    settle().await;
    let asked = bench.controller.asked.lock().pop().expect("asked");
    let member = (BrokerId(3), BrokerEpoch(30));
    assert!(asked.partitions[0].isr.contains(&member), "{asked:?}");
    assert_eq!(bench.isr(), [1, 2, 3]);
}

#[tokio::test]
async fn a_follower_that_is_proposed_counts_for_the_high_watermark_at_once() {
    let bench = Bench::new(&[1], 1);
    bench.append().expect("accepted");
    assert_eq!(bench.high_watermark(), 1);
    bench.alive(&[1, 3]);
    bench.fetch(2, 1).await.expect("served");
    expand_all(&bench.replicas, &bench.changes);
    bench.append().expect("accepted");
    assert_eq!(bench.high_watermark(), 2, "a broker that is gone is not waited for");
    bench.alive(&[1, 2, 3]);
    bench.fetch(2, 2).await.expect("served");
    bench.clock.advance(LAG_MS + 1);
    bench.append().expect("accepted");
    assert_eq!(bench.high_watermark(), 2, "the controller may have stored it");
}

#[tokio::test(start_paused = true)]
async fn a_refused_change_goes_back_or_stays_as_kafka_has_it() {
    let bench = Bench::sending(&[1], 1);
    bench.controller.says(Some(IsrRefused::IneligibleReplica));
    bench.fetch(2, 0).await.expect("served");
    settle().await;
    assert_eq!((bench.controller.proposed(), bench.isr()), (vec![vec![1, 2]], vec![1]));
    bench.append().expect("accepted");
    bench.clock.advance(LAG_MS + 1);
    bench.append().expect("accepted");
    assert_eq!(bench.high_watermark(), 2, "it is surely not in sync");
    // No connection, one that leads nowhere, one that is refused for the moment: sent again until it is stored.
    bench.controller.says(None);
    bench.controller.says(Some(IsrRefused::Other(7)));
    bench.fetch(2, 2).await.expect("served");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((bench.controller.proposed(), bench.isr()), (vec![vec![1, 2]; 3], vec![1, 2]));
    // The state has another version by now: nobody knows what is in it.
    bench.controller.says(Some(IsrRefused::InvalidUpdateVersion));
    bench.fetch(3, 2).await.expect("served");
    tokio::time::sleep(Duration::from_millis(200)).await;
    bench.fetch(3, 2).await.expect("served");
    expand_all(&bench.replicas, &bench.changes);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!((bench.controller.proposed(), bench.isr()), (vec![vec![1, 2, 3]], vec![1, 2]), "once");
    testing::take(&bench.partition, role(1, 2, &[1, 2]));
    bench.fetch(3, 2).await.expect("served");
    settle().await;
    assert_eq!((bench.controller.proposed(), bench.isr()), (vec![vec![1, 2, 3]], vec![1, 2, 3]));
}

/// B4: a clean truncation never goes below the high watermark.
#[tokio::test(start_paused = true)]
async fn b4_a_member_that_fetches_below_the_high_watermark_leaves_at_once() {
    let bench = Bench::sending(&[1, 2, 3], 1);
    bench.append().expect("accepted");
    bench.append().expect("accepted");
    bench.fetch(2, 2).await.expect("served");
    bench.fetch(3, 2).await.expect("served");
    assert_eq!(bench.high_watermark(), 2);
    bench.fetch(3, 1).await.expect("served");
    settle().await;
    assert_eq!((bench.controller.proposed(), bench.isr(), bench.high_watermark()), (vec![vec![1, 2]], vec![1, 2], 2));
}

#[tokio::test]
async fn a_follower_that_registered_anew_begins_afresh() {
    let bench = Bench::new(&[1, 2, 3], 1);
    bench.append().expect("accepted");
    bench.fetch(2, 1).await.expect("served");
    let restarted = bench.fetch_with(|ask| ask.replica_epoch = BrokerEpoch(21)).await.expect("served");
    assert_eq!(restarted.records.len(), 1);
    bench.fetch(3, 1).await.expect("served");
    assert_eq!(bench.high_watermark(), 0, "what it had in its former life counts no more");
    assert_eq!(bench.fetch(2, 1).await, Err(FetchRefused::NotLeader), "too late");
    assert_eq!(bench.high_watermark(), 0);
}

#[tokio::test]
async fn a_new_epoch_keeps_acks_and_forgets_what_followers_had() {
    let bench = Bench::new(&[1, 2, 3], 1);
    let mut acked = bench.append().expect("accepted");
    bench.fetch(2, 1).await.expect("served");
    testing::take(&bench.partition, role(1, 2, &[1, 2]));
    assert_eq!((bench.high_watermark(), acked.try_all()), (0, None), "2 has to show it again");
    assert_eq!(bench.partition.epoch_start(), Some(Offset(1)));
    bench.fetch(2, 1).await.expect("served");
    assert_eq!((bench.high_watermark(), acked.try_all()), (1, Some(vec![Ok(())])));
    let mut lost = bench.append().expect("accepted");
    testing::take(&bench.partition, role(2, 3, &[1, 2]));
    assert_eq!(lost.try_all(), Some(vec![Err(AckError::NotLeader)]));
    assert_eq!((bench.high_watermark(), bench.partition.epoch_start()), (1, None), "a follower keeps what it knew");
}

/// KAFKA-15583.
#[tokio::test(start_paused = true)]
async fn below_min_isr_nothing_more_becomes_visible() {
    let bench = Bench::sending(&[1], 2);
    assert!(matches!(bench.append(), Err(AppendRefused::NotEnoughReplicas)));
    let (completion, mut written) = Completion::new(1);
    bench.append_for(AckAt::Written(Ack::new(&completion, 0))).expect("acks=1 needs nobody");
    assert_eq!(written.try_all(), Some(vec![Ok(())]));
    assert_eq!(bench.high_watermark(), 0);
    bench.fetch(2, 1).await.expect("served");
    assert_eq!(bench.high_watermark(), 0, "only proposed");
    settle().await;
    assert_eq!((bench.isr(), bench.high_watermark()), (vec![1, 2], 1));
    let config = bench.partition.with_log(|log| *log.config());
    bench.append().expect("accepted");
    bench.partition.set_config(config, 3);
    bench.fetch(2, 2).await.expect("served");
    assert_eq!(bench.high_watermark(), 1);
    bench.partition.set_config(config, 1);
    assert_eq!(bench.high_watermark(), 2);
}

/// P1: what a replica knew to be committed is recorded now and then and at a stop; the rest may be on no other.
#[test]
fn p1_a_replica_begins_with_the_high_watermark_it_recorded() {
    let with_one_replicated = || {
        let bench = Bench::new(&[1, 2], 1);
        bench.append().expect("accepted");
        bench.fetch(2, 1).now_or_never().expect("does not wait").expect("served");
        bench.append().expect("accepted");
        assert_eq!(bench.high_watermark(), 1);
        bench
    };
    let bench = with_one_replicated();
    bench.disk.close();
    let bench = Bench::over(bench.disk.reopen(), 1);
    assert_eq!((bench.high_watermark(), bench.partition.view().log_end_offset), (0, Offset(2)), "nothing was recorded");
    for stop in [false, true] {
        let bench = with_one_replicated();
        if stop {
            bench.replicas.close();
        } else {
            checkpoint_high_watermarks(&bench.replicas);
        }
        bench.disk.close();
        let bench = Bench::over(bench.disk.reopen(), 1);
        assert_eq!((bench.high_watermark(), bench.partition.view().log_end_offset), (1, Offset(2)));
        testing::take(&bench.partition, role(1, 2, &[1, 2]));
        assert_eq!(bench.high_watermark(), 1, "a member of the ISR has not been heard of");
        testing::take(&bench.partition, role(1, 3, &[1]));
        assert_eq!(bench.high_watermark(), 2, "what it has is all there is");
    }
}

/// A single copy has no use for a record: its log end is what is committed.
#[test]
fn p1_a_replica_alone_has_its_log_end_as_soon_as_it_leads() {
    let alone = Role { replicas: ids(&[1]), ..role(1, 1, &[1]) };
    let bench = Bench::over(MemoryDir::open(), 1);
    testing::take(&bench.partition, alone.clone());
    bench.append().expect("accepted");
    bench.disk.close();
    let bench = Bench::over(bench.disk.reopen(), 1);
    assert_eq!(bench.high_watermark(), 0);
    testing::take(&bench.partition, alone);
    assert_eq!(bench.high_watermark(), 1);
}

/// Consumers are sent to followers that are in sync and have what they ask for (KIP-392).
#[tokio::test]
async fn a_follower_can_be_read_from_in_sync_and_between_its_start_and_its_end() {
    let bench = Bench::new(&[1, 2], 1);
    for _ in 0..3 {
        bench.append().expect("accepted");
    }
    let readable = |offset| {
        let followers = bench.partition.readable_followers(Offset(offset));
        followers.iter().map(|follower| (follower.id.0, follower.log_end.0)).collect::<Vec<_>>()
    };
    assert_eq!(readable(0), [], "nothing is known of them");
    bench.fetch(3, 1).await.expect("served");
    bench
        .fetch_with(|ask| (ask.partitions[0].fetch_offset, ask.partitions[0].log_start_offset) = (Offset(2), Offset(1)))
        .await
        .expect("served");
    assert_eq!([0, 1, 2, 3].map(readable), [vec![], vec![(2, 2)], vec![(2, 2)], vec![]]);
    testing::take(&bench.partition, role(2, 2, &[1, 2, 3]));
    assert_eq!(readable(1), [], "another leads");
}

/// What DeleteRecords waits for.
#[tokio::test]
async fn the_low_watermark_is_the_lowest_log_start_of_live_replicas() {
    let bench = Bench::new(&[1, 2, 3], 1);
    for _ in 0..3 {
        bench.append().expect("accepted");
    }
    let low_watermark = || bench.partition.low_watermark().map(|offset| offset.0);
    let start = |replica: i32, at: i64| {
        bench.fetch_with(move |ask| {
            ask.replica = BrokerId(replica);
            (ask.partitions[0].fetch_offset, ask.partitions[0].log_start_offset) = (Offset(3), Offset(at));
        })
    };
    assert_eq!(low_watermark(), Some(-1), "nothing is known of the followers");
    start(2, 0).await.expect("served");
    start(3, 0).await.expect("served");
    assert_eq!(low_watermark(), Some(0));
    let moved = bench.partition.change_log(|log, _, writes| log.advance_log_start(Offset(2), writes));
    moved.expect("open").written().expect("written");
    assert_eq!(low_watermark(), Some(0), "the followers are not there yet");
    let mut moves = std::pin::pin!(bench.partition.low_watermark_moves());
    assert!(futures_util::poll!(&mut moves).is_pending());
    start(2, 0).await.expect("served");
    assert!(futures_util::poll!(&mut moves).is_pending(), "no start has moved");
    start(2, 2).await.expect("served");
    assert!(futures_util::poll!(&mut moves).is_ready());
    assert_eq!(low_watermark(), Some(0));
    bench.alive(&[1, 2]);
    assert_eq!(low_watermark(), Some(2), "who is not live is not waited for");
    let moves = bench.partition.low_watermark_moves();
    testing::take(&bench.partition, role(2, 2, &[1, 2, 3]));
    moves.await;
    assert_eq!(low_watermark(), None, "another leads");
}
