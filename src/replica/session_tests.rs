//! Fetch sessions of followers (KIP-227), from both ends: a leader of several partitions in memory whose follower a
//! test plays, and a fetcher of another broker that follows it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

use super::ack::{Ack, Completion};
use super::alter_partition::{IsrChanges, shrink_all};
use super::fetcher::Fetchers;
use super::follower_fetch::FollowerFetches;
use super::leader_link::{
    FetchAnswer, FetchAsk, FetchRefused, Fetched, LeaderLink, LeaderLinks, LinkError, LogEnd, PartitionAsk, SessionAsk,
    SessionError,
};
use super::manager::{ReplicaConfig, ReplicaDir, ReplicaManager, WantedReplica};
use super::partition::{AckAt, Partition, Role};
use super::session_cache::Sessions;
use super::surroundings::Surroundings;
use super::testing;
use super::throttle::Throttles;
use crate::clock::testing::ManualClock;
use crate::cluster::control::{ControlHead, LiveBroker, UpdateMetadata};
use crate::cluster::image::ImagePublisher;
use crate::cluster::registration::SharedBrokerEpoch;
use crate::log::config::LogConfig;
use crate::log::reading::tail::Tail;
use crate::record::BatchBuilder;
use crate::storage::PartitionId;
use crate::storage::testing::memory::MemoryDir;
use crate::types::{
    BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, Offset, PartitionEpoch, PartitionIndex, TopicId,
};

const LEADER: BrokerId = BrokerId(1);
const FOLLOWER: BrokerId = BrokerId(2);
const PARTITIONS: i32 = 5;
const LAG_MS: i64 = 30_000;

/// One of the two brokers, which both have all partitions.
struct Broker {
    clock: Arc<ManualClock>,
    replicas: Arc<ReplicaManager>,
    changes: Arc<IsrChanges>,
    sessions: Arc<Sessions>,
    fetches: Arc<FollowerFetches>,
}

fn id(partition: i32) -> PartitionId {
    let topic_id = TopicId::from_random(1 << 64 | 7).expect("a legal id");
    PartitionId { topic: "t".into(), topic_id, partition: PartitionIndex(partition) }
}

fn role(leader: BrokerId, epoch: i32) -> Role {
    Role {
        leader: Some(leader),
        leader_epoch: LeaderEpoch(epoch),
        isr: vec![LEADER, FOLLOWER],
        partition_epoch: PartitionEpoch(epoch * 100),
        replicas: vec![LEADER, FOLLOWER],
    }
}

impl Broker {
    fn new(me: BrokerId) -> Self {
        let clock = Arc::new(ManualClock::new(1_000_000, 1));
        let image = Arc::new(ImagePublisher::default());
        let head =
            ControlHead { controller: LEADER, controller_epoch: ControllerEpoch(1), broker_epoch: BrokerEpoch::NONE };
        let live = |id| LiveBroker { id, endpoints: Vec::new(), rack: None };
        image.apply(&UpdateMetadata { head, topics: Vec::new(), live_brokers: vec![live(LEADER), live(FOLLOWER)] });
        let lag_max = Duration::from_millis(LAG_MS as u64);
        let around =
            Surroundings { me, clock: Arc::clone(&clock) as _, image, lag_max, throttles: Throttles::default() };
        let dirs = vec![ReplicaDir {
            dir: MemoryDir::open(),
            tail: Tail::new(1 << 20),
            may_lack_ends: false,
            configured: None,
        }];
        let config_of = Arc::new(|_: &_| ReplicaConfig { log: LogConfig::default(), min_insync_replicas: 1 });
        let replicas = ReplicaManager::new(Arc::new(around), dirs, config_of).expect("readable");
        let wanted: Vec<_> = (0..PARTITIONS).map(|index| WantedReplica { id: id(index), is_new: true }).collect();
        for opened in replicas.open(&wanted) {
            testing::take(&opened.expect("opened"), role(LEADER, 1));
        }
        let (changes, sessions) = (Arc::new(IsrChanges::default()), Arc::new(Sessions::new(10)));
        let fetches = FollowerFetches::new(Arc::clone(&replicas), Arc::clone(&changes), Arc::clone(&sessions));
        Self { clock, replicas, changes, sessions, fetches }
    }

    fn partition(&self, index: i32) -> Arc<Partition> {
        self.replicas.get("t", PartitionIndex(index)).expect("it is open")
    }

    fn append(&self, index: i32) {
        let mut builder = BatchBuilder::new();
        builder.append(0, None, Some(b"v"));
        let (completion, _) = Completion::new(1);
        let ack = AckAt::Written(Ack::new(&completion, 0));
        let partition = self.partition(index);
        drop(partition.append(builder.finish(), ack, None, None, 0).expect("accepted"));
        partition.wait_for_writes().expect("written");
    }

    /// How many partitions the next fetch of the session would look at, if nothing happened until then.
    fn queued(&self, session: i32) -> usize {
        self.sessions.of_follower(session, 0).expect("it is there").queued().len()
    }
}

fn wanted(partition: i32, offset: i64) -> PartitionAsk {
    PartitionAsk {
        id: id(partition),
        fetch_offset: Offset(offset),
        last_fetched_epoch: (offset > 0).then_some(LeaderEpoch(1)),
        leader_epoch: Some(LeaderEpoch(1)),
        log_start_offset: Offset(0),
        max_bytes: 1 << 20,
    }
}

fn ask(session: (i32, i32), partitions: Vec<PartitionAsk>) -> FetchAsk {
    FetchAsk {
        replica: FOLLOWER,
        replica_epoch: BrokerEpoch(20),
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 10 << 20,
        session: SessionAsk { id: session.0, epoch: session.1 },
        by_name: false,
        partitions,
        forgotten: Vec::new(),
    }
}

/// What an answer says: partition, number of batches or refusal, high watermark.
type Says = Vec<(i32, Result<usize, FetchRefused>, i64)>;

fn says(answer: FetchAnswer) -> Says {
    let says = |((_, index), found): ((_, PartitionIndex), Result<Fetched, FetchRefused>)| match found {
        Ok(found) => (index.0, Ok(found.records.len()), found.high_watermark.0),
        Err(refused) => (index.0, Err(refused), -1),
    };
    answer.partitions.into_iter().map(says).collect()
}

/// A follower that a test plays, with a session.
struct Played<'a> {
    leader: &'a Broker,
    id: i32,
    epoch: i32,
}

impl<'a> Played<'a> {
    /// It is level with empty logs.
    async fn new(leader: &'a Broker) -> Self {
        let all = (0..PARTITIONS).map(|index| wanted(index, 0)).collect();
        let answer = leader.fetches.fetch(ask((0, 0), all)).await.expect("served");
        assert_eq!(answer.partitions.len(), PARTITIONS as usize, "a full answer");
        Self { leader, id: answer.session_id, epoch: 1 }
    }

    async fn fetch_with(&mut self, change: impl FnOnce(&mut FetchAsk)) -> Says {
        let mut ask = ask((self.id, self.epoch), Vec::new());
        change(&mut ask);
        self.epoch += 1;
        let answer = self.leader.fetches.fetch(ask).await.expect("served");
        assert_eq!(answer.session_id, self.id);
        says(answer)
    }

    async fn fetch(&mut self, partitions: Vec<PartitionAsk>) -> Says {
        self.fetch_with(|ask| ask.partitions = partitions).await
    }
}

#[tokio::test]
async fn an_incremental_fetch_looks_at_what_has_changed_and_says_no_more() {
    let leader = Broker::new(LEADER);
    let mut follower = Played::new(&leader).await;
    assert_eq!(leader.queued(follower.id), 0, "all are level");
    assert_eq!(follower.fetch(vec![]).await, []);
    leader.append(3);
    assert_eq!(leader.queued(follower.id), 1);
    assert_eq!(follower.fetch(vec![]).await, [(3, Ok(1), 0)]);
    assert_eq!(follower.fetch(vec![]).await, [(3, Ok(1), 0)], "it does not have it yet");
    assert_eq!(follower.fetch(vec![wanted(3, 1)]).await, [], "positions of before");
    assert_eq!(leader.partition(3).view().high_watermark, Offset(1));
    assert_eq!(follower.fetch(vec![]).await, [(3, Ok(0), 1)], "the high watermark is news");
    assert_eq!(follower.fetch(vec![]).await, []);
    assert_eq!(leader.queued(follower.id), 0);
    let moved = leader.partition(3).change_log(|log, _, writes| log.advance_log_start(Offset(1), writes));
    moved.expect("open").written().expect("written");
    assert_eq!(follower.fetch(vec![]).await, [(3, Ok(0), 1)], "so is the log start");
}

#[tokio::test]
async fn what_has_no_room_has_its_turn_later() {
    let leader = Broker::new(LEADER);
    let mut follower = Played::new(&leader).await;
    for index in 0..3 {
        leader.append(index);
    }
    let mut order = Vec::new();
    for _ in 0..4 {
        order.extend(follower.fetch_with(|ask| ask.max_bytes = 1).await.iter().map(|(index, ..)| *index));
    }
    assert_eq!(order, [0, 1, 2, 0], "one batch at a time, in turn");
}

#[tokio::test]
async fn partitions_come_and_go() {
    let leader = Broker::new(LEADER);
    let mut follower = Played::new(&leader).await;
    leader.append(3);
    let forget =
        |partitions: Vec<i32>| move |ask: &mut FetchAsk| ask.forgotten = partitions.into_iter().map(id).collect();
    assert_eq!(follower.fetch_with(forget(vec![3, 4])).await, []);
    leader.append(4);
    assert_eq!(follower.fetch(vec![]).await, []);
    assert_eq!(follower.fetch(vec![wanted(4, 0)]).await, [(4, Ok(1), 0)], "and is told everything again");
    let last = FetchAsk {
        forgotten: (0..PARTITIONS).map(id).collect(),
        max_wait_ms: 3_600_000,
        ..ask((follower.id, follower.epoch), vec![])
    };
    let answer = leader.fetches.fetch(last).await.expect("served");
    assert_eq!((answer.session_id, answer.partitions.len()), (0, 0), "nothing to wait for");
    let next = leader.fetches.fetch(ask((follower.id, follower.epoch + 1), vec![])).await;
    assert_eq!(next.unwrap_err(), SessionError::NotFound);
}

#[tokio::test]
async fn a_session_is_known_by_its_id_its_epoch_its_replica_and_ids_of_topics() {
    let leader = Broker::new(LEADER);
    let follower = Played::new(&leader).await;
    let refused = |session, change: fn(&mut FetchAsk)| {
        let mut ask = ask(session, vec![]);
        change(&mut ask);
        let fetches = Arc::clone(&leader.fetches);
        async move { fetches.fetch(ask).await.map(|_| ()).unwrap_err() }
    };
    let id = follower.id;
    assert_eq!(refused((id + 1, 1), |_| ()).await, SessionError::NotFound);
    assert_eq!(refused((id, 2), |_| ()).await, SessionError::InvalidEpoch);
    assert_eq!(refused((id, 1), |ask| ask.by_name = true).await, SessionError::TopicIdError);
    assert_eq!(refused((id, 1), |ask| ask.replica = BrokerId(3)).await, SessionError::NotFound);
    assert!(leader.fetches.fetch(ask((id, 1), vec![])).await.is_ok());
    assert_eq!(refused((id, 1), |_| ()).await, SessionError::InvalidEpoch, "again");
    let outside = leader.fetches.fetch(ask((id, -1), vec![wanted(0, 0)])).await.expect("served");
    assert_eq!((outside.session_id, outside.partitions.len()), (0, 1));
    assert_eq!(refused((id, 2), |_| ()).await, SessionError::NotFound, "closed");
    let by_name = leader.fetches.fetch(FetchAsk { by_name: true, ..ask((0, 0), vec![wanted(0, 0)]) }).await;
    assert_eq!(by_name.expect("served").session_id, 0);
}

#[tokio::test(start_paused = true)]
async fn a_fetch_that_waits_is_woken_by_any_partition_of_its_session() {
    let leader = Broker::new(LEADER);
    let mut follower = Played::new(&leader).await;
    let begin = Instant::now();
    let mut wait = async |happens: &dyn Fn()| {
        let fetch = follower.fetch_with(|ask| ask.max_wait_ms = 500);
        tokio::pin!(fetch);
        assert!(fetch.as_mut().now_or_never().is_none(), "there is nothing to say");
        happens();
        (fetch.await, begin.elapsed().as_millis())
    };
    assert_eq!(wait(&|| leader.append(2)).await, (vec![(2, Ok(1), 0)], 0));
    leader.partition(2).stop_following();
    let again = || testing::take(&leader.partition(2), role(LEADER, 2));
    assert_eq!(follower.fetch(vec![]).await, [(2, Err(FetchRefused::NotLeader), -1)]);
    again();
    assert_eq!(follower.fetch(vec![]).await, [(2, Err(FetchRefused::FencedLeaderEpoch), -1)], "as long as it asks so");
    let renewed = PartitionAsk { leader_epoch: Some(LeaderEpoch(2)), ..wanted(2, 1) };
    assert_eq!(follower.fetch(vec![renewed]).await, [(2, Ok(0), 0)]);
}

#[tokio::test(start_paused = true)]
async fn positions_alone_end_a_wait_after_a_moment() {
    let leader = Broker::new(LEADER);
    let mut follower = Played::new(&leader).await;
    leader.append(1);
    assert_eq!(follower.fetch(vec![]).await.len(), 1);
    let begin = Instant::now();
    // The fetch itself raises the high watermark.
    let told = follower.fetch_with(|ask| (ask.partitions, ask.max_wait_ms) = (vec![wanted(1, 1)], 500)).await;
    assert_eq!((told, begin.elapsed().as_millis()), (vec![(1, Ok(0), 1)], 50));
    let told = follower.fetch_with(|ask| ask.max_wait_ms = 500).await;
    assert_eq!((told, begin.elapsed().as_millis()), (vec![], 550));
}

/// They counted as told, so a follower of an idle partition kept the high watermark that it had before its log was cut:
/// found by the simulation, seed 2267.
#[tokio::test]
async fn positions_that_came_where_logs_part_are_told_again() {
    let leader = Broker::new(LEADER);
    let mut follower = Played::new(&leader).await;
    leader.append(3);
    assert_eq!(follower.fetch(vec![]).await, [(3, Ok(1), 0)]);
    assert_eq!(follower.fetch(vec![wanted(3, 1)]).await, [], "positions of before");
    let parted = PartitionAsk { last_fetched_epoch: Some(LeaderEpoch(0)), ..wanted(3, 1) };
    assert_eq!(follower.fetch(vec![parted]).await, [(3, Ok(0), 1)]);
    assert_eq!(follower.fetch(vec![wanted(3, 1)]).await, [(3, Ok(0), 1)]);
    assert_eq!(follower.fetch(vec![]).await, []);
}

/// The partition's log start moves while the fetch waits.
#[tokio::test(start_paused = true)]
async fn positions_that_move_during_a_wait_are_told() {
    let leader = Broker::new(LEADER);
    let mut follower = Played::new(&leader).await;
    leader.append(1);
    follower.fetch(vec![]).await;
    follower.fetch(vec![wanted(1, 1)]).await;
    assert_eq!(follower.fetch(vec![]).await.len(), 1);
    let begin = Instant::now();
    let fetch = follower.fetch_with(|ask| ask.max_wait_ms = 500);
    tokio::pin!(fetch);
    assert!(fetch.as_mut().now_or_never().is_none());
    sleep(Duration::from_millis(200)).await;
    let moved = leader.partition(1).change_log(|log, _, writes| log.advance_log_start(Offset(1), writes));
    moved.expect("open").written().expect("written");
    assert_eq!((fetch.await, begin.elapsed().as_millis()), (vec![(1, Ok(0), 1)], 250));
}

#[tokio::test]
async fn a_first_fetch_that_is_dropped_leaves_no_session() {
    let leader = Broker::new(LEADER);
    let waits = FetchAsk { max_wait_ms: 3_600_000, ..ask((0, 0), vec![wanted(0, 0)]) };
    assert!(leader.fetches.fetch(waits).now_or_never().is_none());
    assert_eq!((leader.sessions.len(), leader.partition(0).sessions_told()), (0, 0));
}

#[tokio::test]
async fn a_fetch_that_is_overtaken_says_so_and_takes_nothing_with_it() {
    let leader = Broker::new(LEADER);
    let follower = Played::new(&leader).await;
    let fetches = Arc::clone(&leader.fetches);
    let first = FetchAsk { max_wait_ms: 3_600_000, ..ask((follower.id, 1), vec![]) };
    let first = tokio::spawn(async move { fetches.fetch(first).await.map(says) });
    tokio::task::yield_now().await;
    let fetches = Arc::clone(&leader.fetches);
    let second = FetchAsk { max_wait_ms: 3_600_000, ..ask((follower.id, 2), vec![]) };
    let second = tokio::spawn(async move { fetches.fetch(second).await.map(says) });
    assert_eq!(first.await.expect("ends"), Err(SessionError::InvalidEpoch));
    leader.append(4);
    assert_eq!(second.await.expect("ends"), Ok(vec![(4, Ok(1), 0)]));
}

#[tokio::test]
async fn a_fetch_that_is_dropped_takes_nothing_with_it() {
    let leader = Broker::new(LEADER);
    let mut follower = Played::new(&leader).await;
    let big = |ask: &mut FetchAsk| (ask.max_wait_ms, ask.min_bytes) = (3_600_000, 1 << 20);
    leader.append(4);
    assert!(follower.fetch_with(big).now_or_never().is_none());
    assert_eq!(follower.fetch(vec![]).await, [(4, Ok(1), 0)]);
}

/// Every fetch of a session asks for all its partitions, named or not.
#[tokio::test]
async fn a_quiet_follower_is_in_sync_as_long_as_its_session_is_used() {
    let leader = Broker::new(LEADER);
    let mut follower = Played::new(&leader).await;
    let lags = || {
        shrink_all(&leader.replicas, &leader.changes);
        (0..PARTITIONS).filter(|&index| leader.partition(index).proposes()).count()
    };
    leader.clock.advance(100 * LAG_MS);
    assert_eq!(follower.fetch(vec![]).await, []);
    assert_eq!(lags(), 0, "level");
    leader.clock.advance(LAG_MS);
    leader.append(2);
    assert_eq!(lags(), 0, "level until now");
    leader.clock.advance(1);
    assert_eq!(lags(), 1, "its session has not been used for too long");
    assert_eq!(follower.fetch(vec![]).await, [(2, Ok(1), 0)]);
}

#[tokio::test]
async fn a_partition_that_is_deleted_or_comes_back_is_seen() {
    let leader = Broker::new(LEADER);
    let mut follower = Played::new(&leader).await;
    leader.replicas.delete(&[("t".into(), PartitionIndex(2))]).into_iter().for_each(|it| it.expect("deleted"));
    assert_eq!(follower.fetch(vec![]).await, [(2, Err(FetchRefused::UnknownPartition), -1)]);
    let opened = leader.replicas.open(&[WantedReplica { id: id(2), is_new: true }]).remove(0).expect("opened");
    testing::take(&opened, role(LEADER, 1));
    assert_eq!(follower.fetch(vec![]).await, [(2, Ok(0), 0)], "the error is over");
    leader.append(2);
    assert_eq!(follower.fetch(vec![]).await, [(2, Ok(1), 0)]);
}

/// KIP-903: a broker that has registered anew says so of all partitions.
#[tokio::test]
async fn a_new_registration_counts_for_all_partitions() {
    let leader = Broker::new(LEADER);
    let mut follower = Played::new(&leader).await;
    let registered = |ask: &mut FetchAsk| ask.replica_epoch = BrokerEpoch(30);
    follower.fetch_with(registered).await;
    let of_earlier = leader.fetches.fetch(ask((0, -1), vec![wanted(3, 0)])).await.expect("served");
    assert_eq!(says(of_earlier), [(3, Err(FetchRefused::NotLeader), -1)]);
}

/// The way to a leader in this process, which remembers what was asked: session epoch, partitions named, forgotten.
#[derive(Debug)]
struct Way {
    fetches: Arc<FollowerFetches>,
    asked: Mutex<Vec<(i32, usize, usize)>>,
    /// For how long it may wait.
    waits: Mutex<Vec<i32>>,
    /// What the next fetches end with instead.
    fails: Mutex<Vec<Result<SessionError, LinkError>>>,
}

#[derive(Debug)]
struct Ways(Arc<Way>);

impl LeaderLinks for Ways {
    fn link(&self, _: BrokerId, _: u16) -> Arc<dyn LeaderLink> {
        Arc::clone(&self.0) as _
    }
}

impl LeaderLink for Way {
    fn fetch(&self, ask: FetchAsk) -> BoxFuture<'_, Result<Result<FetchAnswer, SessionError>, LinkError>> {
        self.asked.lock().push((ask.session.epoch, ask.partitions.len(), ask.forgotten.len()));
        self.waits.lock().push(ask.max_wait_ms);
        let fails = self.fails.lock().pop();
        async move {
            match fails {
                Some(Ok(refused)) => Ok(Err(refused)),
                Some(Err(error)) => Err(error),
                None => Ok(self.fetches.fetch(ask).await),
            }
        }
        .boxed()
    }

    fn list_offset(
        &self,
        id: PartitionId,
        leader_epoch: LeaderEpoch,
        end: LogEnd,
    ) -> BoxFuture<'_, Result<Result<Offset, FetchRefused>, LinkError>> {
        async move { Ok(self.fetches.list_offset(&id, Some(leader_epoch), end)) }.boxed()
    }
}

/// A leader, and a broker that follows all its partitions.
struct Pair {
    leader: Broker,
    follower: Broker,
    fetchers: Arc<Fetchers>,
    way: Arc<Way>,
}

impl Pair {
    fn new() -> Self {
        let (leader, follower) = (Broker::new(LEADER), Broker::new(FOLLOWER));
        let way = Way {
            fetches: Arc::clone(&leader.fetches),
            asked: Mutex::default(),
            waits: Mutex::default(),
            fails: Mutex::default(),
        };
        let (way, clock) = (Arc::new(way), Arc::clone(&follower.clock));
        let ways = Arc::new(Ways(Arc::clone(&way)));
        let epoch = SharedBrokerEpoch::default();
        let fetchers = Fetchers::new(FOLLOWER, epoch, ways, clock, testing::fetcher_settings());
        Self { leader, follower, fetchers, way }
    }

    fn follow(&self, partitions: impl IntoIterator<Item = i32>) {
        let follow = |index| (self.follower.partition(index), LeaderEpoch(1));
        self.fetchers.follow(LEADER, partitions.into_iter().map(follow).collect());
    }

    /// Lets time pass until the follower has so many records of each.
    async fn reach(&self, ends: [i64; PARTITIONS as usize]) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let views = || (0..PARTITIONS).map(|index| self.follower.partition(index).view());
            let reached = |offset: fn(&super::view::PartitionView) -> Offset| {
                views().map(|view| offset(&view).0).eq(ends.iter().copied())
            };
            if reached(|view| view.log_end_offset) && reached(|view| view.high_watermark) {
                return;
            }
            assert!(Instant::now() < deadline, "{:?}", views().collect::<Vec<_>>());
            // The clock stands still for the disk alone.
            self.follower.partition(0).wait_for_writes().expect("written");
            sleep(Duration::from_millis(10)).await;
        }
    }

    fn asked(&self) -> Vec<(i32, usize, usize)> {
        std::mem::take(&mut *self.way.asked.lock())
    }
}

#[tokio::test(start_paused = true)]
async fn a_fetcher_names_what_changes() {
    let pair = Pair::new();
    pair.follow(0..PARTITIONS);
    sleep(Duration::from_secs(5)).await;
    let asked = pair.asked();
    assert_eq!(asked[0], (0, PARTITIONS as usize, 0));
    assert!(
        asked.len() > 2 && asked[1..].iter().all(|(epoch, named, gone)| *epoch > 0 && named + gone == 0),
        "{asked:?}"
    );
    pair.leader.append(3);
    pair.reach([0, 0, 0, 1, 0]).await;
    let asked = pair.asked();
    let named: usize = asked.iter().map(|(_, named, _)| *named).sum();
    assert_eq!(named, 1, "{asked:?}");
    pair.fetchers.stop(&[("t".into(), PartitionIndex(1))]).await;
    pair.leader.append(0);
    pair.reach([1, 0, 0, 1, 0]).await;
    let asked = pair.asked();
    assert_eq!(asked.iter().map(|(_, _, gone)| *gone).sum::<usize>(), 1, "{asked:?}");
    assert!(asked.iter().all(|(epoch, ..)| *epoch > 0), "the session goes on: {asked:?}");
}

#[tokio::test(start_paused = true)]
async fn a_fetcher_begins_a_session_anew_after_any_error() {
    let pair = Pair::new();
    pair.follow(0..PARTITIONS);
    let mut ends = [0; PARTITIONS as usize];
    for (nth, fails) in [
        Ok(SessionError::NotFound),
        Ok(SessionError::InvalidEpoch),
        Ok(SessionError::TopicIdError),
        Err(LinkError("gone".into())),
    ]
    .into_iter()
    .enumerate()
    {
        pair.way.fails.lock().push(fails.clone());
        sleep(Duration::from_secs(2)).await;
        let asked = pair.asked();
        let full = asked.iter().filter(|ask| **ask == (0, PARTITIONS as usize, 0)).count();
        assert!(full >= 1, "{fails:?}: {asked:?}");
        pair.leader.append(nth as i32);
        ends[nth] = 1;
        pair.reach(ends).await;
        assert_eq!(pair.asked().iter().filter(|(epoch, ..)| *epoch <= 0).count(), 0, "after {fails:?}");
    }
}

/// Each would cost the session if it ended the fetch under way.
#[tokio::test(start_paused = true)]
async fn partitions_that_come_one_by_one_cost_one_session() {
    let pair = Pair::new();
    pair.follow([0]);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(pair.asked()[0], (0, 1, 0));
    (1..PARTITIONS).for_each(|index| pair.leader.append(index));
    for index in 1..PARTITIONS {
        pair.follow([index]);
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    }
    pair.reach([0, 1, 1, 1, 1]).await;
    let asked = pair.asked();
    assert_eq!(asked.iter().filter(|(epoch, ..)| *epoch <= 0).count(), 1, "{asked:?}");
    assert!(*pair.way.waits.lock().last().expect("asked") <= 20, "whatever comes next need not wait");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(*pair.way.waits.lock().last().expect("asked"), 500);
}

/// A replica that is behind gets nothing while its rate is used up; one in sync gets all.
#[tokio::test]
async fn a_replica_that_is_behind_is_held_back_by_its_leader() {
    let leader = Broker::new(LEADER);
    let throttle = &leader.replicas.throttles().leader;
    throttle.set_limit(10);
    throttle.name(&"t".into(), &["0:1".to_owned()], LEADER);
    let behind = |isr: Vec<BrokerId>, epoch| Role { isr, ..role(LEADER, epoch) };
    let asks = |index, epoch| PartitionAsk { leader_epoch: Some(LeaderEpoch(epoch)), ..wanted(index, 0) };
    (0..2).for_each(|index| leader.append(index));
    let fetch = async |partitions| {
        let answer = leader.fetches.fetch(ask((0, -1), partitions)).await.expect("served");
        let records = |(_, found): (_, Result<Fetched, FetchRefused>)| found.expect("served").records.len();
        answer.partitions.into_iter().map(records).collect::<Vec<_>>()
    };
    assert_eq!(fetch(vec![asks(0, 1)]).await, [1], "it is in sync, and what it gets counts");
    for index in 0..2 {
        testing::take(&leader.partition(index), behind(vec![LEADER], 2));
    }
    assert_eq!(fetch(vec![asks(0, 2), asks(1, 2)]).await, [0, 1], "the other is not named");
    leader.clock.advance(60_000);
    assert_eq!(fetch(vec![asks(0, 2)]).await, [1], "the rate is free again");
    assert_eq!(fetch(vec![asks(0, 2)]).await, [0]);
    throttle.name(&"t".into(), &[], LEADER);
    assert_eq!(fetch(vec![asks(0, 2)]).await, [1]);
}
