//! The group coordinator with its shell, over a log in memory and on paused time.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::time::Instant;

use super::config::GroupConfig;
use super::coordinator::{Answer, GroupCoordinator};
use super::error::GroupError;
use super::request::*;
use crate::clock::{Clock, UnixMs};
use crate::cluster::control::{ControlHead, PartitionState, TopicMetadata, UpdateMetadata};
use crate::cluster::image::ImagePublisher;
use crate::coordinator::testing::MemoryLog;
use crate::coordinator::writer::{CoordinatorRecord, WriteError};
use crate::types::topic::CONSUMER_OFFSETS;
use crate::types::{
    BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, Offset, PartitionEpoch, PartitionIndex, TopicId, TopicName,
};

/// Time as tokio pauses and advances it.
#[derive(Debug)]
struct PausedClock(Instant);

impl Clock for PausedClock {
    fn now_ms(&self) -> UnixMs {
        1_000_000 + self.monotonic_ms()
    }

    fn monotonic_ms(&self) -> i64 {
        self.0.elapsed().as_millis() as i64
    }

    fn random(&self) -> u128 {
        7
    }
}

pub(super) struct Kit {
    pub(super) log: Arc<MemoryLog>,
    pub(super) groups: GroupCoordinator,
}

pub(super) const PARTITION: PartitionIndex = PartitionIndex(0);

impl Kit {
    /// A coordinator of the one partition of `__consumer_offsets`, not elected yet.
    fn new() -> Self {
        let log = MemoryLog::new();
        let image = Arc::new(ImagePublisher::default());
        image.apply(&offsets_topic());
        let clock = Arc::new(PausedClock(Instant::now()));
        let groups = GroupCoordinator::new(GroupConfig::default(), Arc::new(log.clone()), clock, image);
        Self { log, groups }
    }

    pub(super) async fn elected() -> Self {
        let kit = Self::new();
        kit.groups.on_elected(PARTITION, LeaderEpoch(1));
        settle().await;
        kit
    }

    /// Another broker has led meanwhile.
    async fn elect_anew(&self, epoch: i32) {
        self.groups.on_resigned(PARTITION);
        self.groups.on_elected(PARTITION, LeaderEpoch(epoch));
        settle().await;
    }

    /// The one member of group "m", which has its assignment.
    pub(super) async fn member(&self) -> Arc<str> {
        let joined = self.join("A").await.await;
        let sync = SyncRequest {
            group: "m".into(),
            member_id: joined.member_id.clone(),
            instance_id: None,
            generation_id: joined.generation_id,
            protocol_type: None,
            protocol: None,
            assignments: vec![(joined.member_id.clone(), bytes::Bytes::from_static(b"all"))],
        };
        assert_eq!((self.groups.sync(sync).await.await.error, joined.error), (None, None));
        joined.member_id
    }

    /// How many members group "m" has.
    pub(super) async fn members(&self) -> usize {
        let described = self.groups.describe("m".into()).await.await.expect("a coordinator");
        described.map_or(0, |group| group.members.len())
    }

    pub(super) async fn commit(&self, offset: i64) -> Answer<CommitReply> {
        self.groups.commit(commit_of(offset)).await
    }

    async fn fetch(&self) -> Answer<Result<FetchReply, GroupError>> {
        self.groups.fetch(fetch_of()).await
    }

    pub(super) async fn fetched(&self) -> Offset {
        self.fetch().await.await.expect("a coordinator")[0].1[0].offset
    }

    async fn join(&self, member: &str) -> Answer<JoinReply> {
        self.groups
            .join(JoinRequest {
                group: "m".into(),
                member_id: "".into(),
                instance_id: None,
                client_id: member.into(),
                client_host: "/127.0.0.1".into(),
                session_timeout_ms: 10_000,
                rebalance_timeout_ms: 60_000,
                protocol_type: "consumer".into(),
                protocols: vec![("range".into(), bytes::Bytes::new())],
                require_known_member_id: false,
                can_skip_assignment: false,
                reason: None,
                random: member.len() as u128,
            })
            .await
    }
}

/// A commit of group "g", which has no members.
pub(super) fn commit_of(offset: i64) -> CommitRequest {
    CommitRequest {
        group: "g".into(),
        member_id: "".into(),
        instance_id: None,
        generation_id: -1,
        retention_ms: None,
        offsets: vec![CommittedOffset {
            topic: "t".into(),
            partition: PARTITION,
            offset: Offset(offset),
            leader_epoch: LeaderEpoch::NONE,
            metadata: None,
        }],
    }
}

pub(super) fn fetch_of() -> FetchRequest {
    let topics = Some(vec![("t".into(), vec![PARTITION])]);
    FetchRequest { group: "g".into(), topics, require_stable: false }
}

pub(super) fn offsets_topic() -> UpdateMetadata {
    UpdateMetadata {
        head: ControlHead {
            controller: BrokerId(1),
            controller_epoch: ControllerEpoch(1),
            broker_epoch: BrokerEpoch(1),
        },
        live_brokers: Vec::new(),
        topics: vec![TopicMetadata {
            name: TopicName::new(CONSUMER_OFFSETS),
            id: TopicId::from_random(99).expect("a legal id"),
            partitions: vec![PartitionState {
                partition: PARTITION,
                leader: Some(BrokerId(1)),
                controller_epoch: ControllerEpoch(1),
                adding: vec![],
                removing: vec![],
                recovery: Default::default(),
                offline_replicas: Vec::new(),
                is_new: false,
                leader_epoch: LeaderEpoch(1),
                isr: vec![BrokerId(1)],
                replicas: vec![BrokerId(1)],
                partition_epoch: PartitionEpoch(0),
            }],
            deleted: Vec::new(),
        }],
    }
}

/// Lets all tasks run until they wait.
pub(super) async fn settle() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_reply_leaves_when_what_it_shows_is_durable() {
    let kit = Kit::elected().await;
    kit.log.hold(true);
    let mut committed = kit.commit(5).await;
    let mut fetched = kit.fetch().await;
    settle().await;
    // The fetch would show the commit, which may yet be lost (I-18).
    assert!((&mut committed).now_or_never().is_none());
    assert!((&mut fetched).now_or_never().is_none());
    kit.log.hold(false);
    assert_eq!(committed.await, CommitReply::default());
    assert_eq!(fetched.await.expect("a coordinator")[0].1[0].offset, Offset(5));
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_for_appends_gather_in_one_batch() {
    let kit = Kit::elected().await;
    kit.log.hold(true);
    let mut answers = Vec::new();
    for offset in 0..500 {
        answers.push(kit.commit(offset).await);
        if offset < 10 {
            settle().await;
        }
    }
    kit.log.hold(false);
    for answer in answers {
        assert_eq!(answer.await.error, None);
    }
    let sizes = kit.log.batch_sizes(&TopicName::new(CONSUMER_OFFSETS), PARTITION);
    assert_eq!(sizes.iter().sum::<usize>(), 500);
    assert!(sizes.len() <= 6, "{sizes:?}");
    assert_eq!(kit.fetched().await, Offset(499));
}

#[tokio::test(start_paused = true)]
async fn a_failed_append_leaves_no_trace() {
    let kit = Kit::elected().await;
    assert_eq!(kit.commit(1).await.await.error, None);
    let joined = kit.join("A").await;
    kit.log.fail_next(WriteError::Storage("disk".into()));
    assert_eq!(kit.commit(2).await.await.error, Some(GroupError::NotCoordinator));
    // Who waited for members is told, too, and finds the coordinator again.
    assert_eq!(joined.await.error, Some(GroupError::NotCoordinator));
    assert_eq!(kit.commit(3).await.await.error, Some(GroupError::CoordinatorLoadInProgress));
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(kit.fetched().await, Offset(1));
}

/// Issue 12, row 8: a full disk made the shard be loaded again and again, and commits hang meanwhile.
#[tokio::test(start_paused = true)]
async fn while_the_log_takes_nothing_what_writes_is_refused_at_once_and_the_rest_goes_on() {
    for why in [WriteError::Full, WriteError::NotEnoughReplicas] {
        let kit = Kit::elected().await;
        assert_eq!(kit.commit(1).await.await.error, None);
        kit.log.close(Some(why.clone()));
        let started = Instant::now();
        assert_eq!(kit.commit(2).await.await.error, Some(GroupError::CoordinatorNotAvailable), "{why}");
        assert_eq!(kit.join("A").await.await.error, Some(GroupError::CoordinatorNotAvailable));
        assert_eq!(kit.fetched().await, Offset(1));
        assert!(kit.groups.describe("g".into()).await.await.expect("a coordinator").is_some());
        assert_eq!(started.elapsed(), Duration::ZERO);
        kit.log.accept();
        assert_eq!(kit.commit(3).await.await.error, None);
        assert_eq!((kit.fetched().await, kit.log.loads()), (Offset(3), 1));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_under_way_is_told_at_once_and_stored_in_order_when_there_is_space() {
    let kit = Kit::elected().await;
    assert_eq!(kit.commit(1).await.await.error, None);
    kit.log.hold(true);
    let mut answers = Vec::new();
    for offset in 2..5 {
        answers.push(kit.commit(offset).await);
        settle().await;
    }
    let read = kit.fetch().await;
    kit.log.refuse();
    kit.log.hold(false);
    for answer in answers {
        assert_eq!(answer.await.error, Some(GroupError::CoordinatorNotAvailable));
    }
    // It would show what the log does not hold (I-18).
    assert_eq!(read.await, Err(GroupError::CoordinatorNotAvailable));
    let beat = HeartbeatRequest { group: "g".into(), member_id: "m".into(), instance_id: None, generation_id: 1 };
    for _ in 0..3 {
        // Nobody could tell before that each attempt would be refused.
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(kit.commit(9).await.await.error, Some(GroupError::CoordinatorNotAvailable));
        assert_eq!(kit.fetch().await.await, Err(GroupError::CoordinatorNotAvailable));
        assert_eq!(kit.groups.heartbeat(beat.clone()).await.await, Err(GroupError::UnknownMemberId));
    }
    kit.log.accept();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(kit.fetched().await, Offset(4));
    assert_eq!(kit.log.batch_sizes(&TopicName::new(CONSUMER_OFFSETS), PARTITION), [1, 1, 1, 1]);
    assert_eq!((kit.commit(5).await.await.error, kit.log.loads()), (None, 1));
    // The state is the fold of the log.
    kit.elect_anew(2).await;
    assert_eq!((kit.fetched().await, kit.log.loads()), (Offset(5), 2));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_decision_that_cannot_be_stored_is_told_when_it_is_due() {
    let kit = Kit::elected().await;
    let joined = kit.join("A").await;
    settle().await;
    kit.log.close(Some(WriteError::Full));
    let started = Instant::now();
    assert_eq!(joined.await.error, Some(GroupError::CoordinatorNotAvailable));
    // The delay of a group's first rebalance.
    assert_eq!(started.elapsed().as_secs(), 3);
    tokio::time::sleep(Duration::from_secs(100)).await;
    kit.log.accept();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (joined, _) = (kit.join("BB").await.await, kit.log.loads());
    assert_eq!((joined.error, kit.log.loads()), (None, 1));
}

/// It is asked once: who commits for a new topic of that name would lose it to a deletion that came late.
#[tokio::test(start_paused = true)]
async fn a_deleted_topic_loses_its_offsets_though_the_log_takes_nothing_now() {
    let kit = Kit::elected().await;
    assert_eq!(kit.commit(5).await.await.error, None);
    kit.log.close(Some(WriteError::Full));
    kit.groups.on_topics_deleted(&["t".into()]).await;
    assert_eq!(kit.commit(6).await.await.error, Some(GroupError::CoordinatorNotAvailable));
    kit.log.accept();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((kit.fetched().await, kit.log.loads()), (Offset::NONE, 1));
}

/// A log that cannot be written to for good is not loaded every second.
#[tokio::test(start_paused = true)]
async fn a_broken_log_is_loaded_once() {
    let kit = Kit::elected().await;
    assert_eq!(kit.commit(1).await.await.error, None);
    kit.log.fail_next(WriteError::Storage("disk".into()));
    kit.log.close(Some(WriteError::Storage("disk".into())));
    assert_eq!(kit.commit(2).await.await.error, Some(GroupError::NotCoordinator));
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(kit.commit(2).await.await.error, Some(GroupError::NotCoordinator));
    assert_eq!((kit.fetched().await, kit.log.loads()), (Offset(1), 1));
}

#[tokio::test(start_paused = true)]
async fn while_loading_each_request_has_its_own_answer() {
    let kit = Kit::new();
    kit.log.hold_loads(true);
    assert_eq!(kit.commit(1).await.await.error, Some(GroupError::NotCoordinator));
    kit.groups.on_elected(PARTITION, LeaderEpoch(1));
    settle().await;
    assert_eq!(kit.commit(1).await.await.error, Some(GroupError::CoordinatorLoadInProgress));
    let beat = HeartbeatRequest { group: "g".into(), member_id: "m".into(), instance_id: None, generation_id: 1 };
    assert_eq!(kit.groups.heartbeat(beat.clone()).await.await, Ok(()));
    let sync = SyncRequest {
        group: "g".into(),
        member_id: "m".into(),
        instance_id: None,
        generation_id: 1,
        protocol_type: None,
        protocol: None,
        assignments: Vec::new(),
    };
    assert_eq!(kit.groups.sync(sync).await.await.error, Some(GroupError::RebalanceInProgress));
    let (_, loading) = kit.groups.list(ListRequest::default()).await.await;
    assert_eq!(loading, Some(GroupError::CoordinatorLoadInProgress));
    kit.log.hold_loads(false);
    settle().await;
    assert_eq!(kit.groups.heartbeat(beat).await.await, Err(GroupError::UnknownMemberId));
}

#[tokio::test(start_paused = true)]
async fn who_waits_when_the_partition_moves_away_is_told() {
    let kit = Kit::elected().await;
    let joined = kit.join("A").await;
    kit.groups.on_resigned(PARTITION);
    assert_eq!(joined.await.error, Some(GroupError::NotCoordinator));
    assert_eq!(kit.fetch().await.await, Err(GroupError::NotCoordinator));
}

#[tokio::test(start_paused = true)]
async fn what_was_committed_is_there_after_a_new_election() {
    let kit = Kit::elected().await;
    assert_eq!(kit.commit(5).await.await.error, None);
    let joined = kit.join("A").await;
    kit.elect_anew(2).await;
    assert_eq!(joined.await.error, Some(GroupError::NotCoordinator));
    assert_eq!((kit.fetched().await, kit.log.loads()), (Offset(5), 2));
}

/// Any follower's death is a new leader epoch for each partition that it was in the ISR of.
#[tokio::test(start_paused = true)]
async fn a_later_epoch_of_the_same_leadership_takes_nothing_from_the_shard() {
    let kit = Kit::elected().await;
    assert_eq!(kit.commit(5).await.await.error, None);
    let joined = kit.join("A").await;
    kit.log.hold(true);
    let committed = kit.commit(6).await;
    settle().await;
    for epoch in [1, 2, 4] {
        kit.groups.on_elected(PARTITION, LeaderEpoch(epoch));
        settle().await;
    }
    kit.log.hold(false);
    assert_eq!((committed.await.error, joined.await.error), (None, None));
    assert_eq!((kit.fetched().await, kit.log.loads()), (Offset(6), 1));
    // Nor does a load begin anew.
    kit.log.hold_loads(true);
    kit.elect_anew(5).await;
    kit.groups.on_elected(PARTITION, LeaderEpoch(6));
    kit.log.hold_loads(false);
    settle().await;
    assert_eq!((kit.fetched().await, kit.log.loads()), (Offset(6), 2));
}

#[tokio::test(start_paused = true)]
async fn what_was_read_is_shown_when_it_is_replicated_and_time_runs_from_then_on() {
    let kit = Kit::elected().await;
    kit.member().await;
    assert_eq!(kit.commit(5).await.await.error, None);
    kit.log.hold_watermark(true);
    kit.elect_anew(2).await;
    // A follower in the ISR may be slow; its lag is bounded elsewhere.
    for _ in 0..4 {
        assert_eq!(kit.fetch().await.await, Err(GroupError::CoordinatorLoadInProgress));
        assert_eq!(kit.commit(6).await.await.error, Some(GroupError::CoordinatorLoadInProgress));
        tokio::time::sleep(Duration::from_secs(6)).await;
    }
    kit.log.hold_watermark(false);
    settle().await;
    assert_eq!((kit.fetched().await, kit.log.loads()), (Offset(5), 2));
    assert_eq!(kit.members().await, 1, "its session begins now");
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(kit.members().await, 0);
}

#[tokio::test(start_paused = true)]
async fn with_too_few_replicas_a_loaded_coordinator_is_read_from_after_a_while_and_takes_nothing() {
    let kit = Kit::elected().await;
    kit.member().await;
    assert_eq!(kit.commit(5).await.await.error, None);
    kit.log.hold_watermark(true);
    kit.log.close(Some(WriteError::NotEnoughReplicas));
    kit.elect_anew(2).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(kit.fetch().await.await, Err(GroupError::CoordinatorLoadInProgress));
    tokio::time::sleep(Duration::from_secs(2)).await;
    let topics = ["u".into()];
    let mut deleted = Box::pin(kit.groups.on_topics_deleted(&topics));
    for _ in 0..3 {
        assert_eq!(kit.fetched().await, Offset(5));
        assert_eq!(kit.commit(6).await.await.error, Some(GroupError::CoordinatorNotAvailable));
        let beat = HeartbeatRequest { group: "m".into(), member_id: "?".into(), instance_id: None, generation_id: 1 };
        assert_eq!(kit.groups.heartbeat(beat).await.await, Ok(()), "nobody is late yet");
        assert!((&mut deleted).now_or_never().is_none());
        tokio::time::sleep(Duration::from_secs(20)).await;
    }
    kit.log.accept();
    kit.log.hold_watermark(false);
    deleted.await;
    assert_eq!((kit.commit(7).await.await.error, kit.members().await), (None, 1));
    assert_eq!((kit.fetched().await, kit.log.loads()), (Offset(7), 2));
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(kit.members().await, 0);
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_followers_too_long_is_told_and_the_shard_stays() {
    let kit = Kit::elected().await;
    let member_id = kit.member().await;
    assert_eq!(kit.commit(1).await.await.error, None);
    kit.log.hold(true);
    let started = Instant::now();
    let mut answers = Vec::new();
    for offset in 2..20 {
        answers.push(kit.commit(offset).await);
        settle().await;
    }
    let read = kit.fetch().await;
    for answer in answers.drain(..) {
        assert_eq!(answer.await.error, Some(GroupError::CoordinatorNotAvailable));
    }
    assert_eq!((read.await, started.elapsed().as_secs()), (Err(GroupError::CoordinatorNotAvailable), 5));
    // The member that is there beats, and nobody is thrown out meanwhile.
    for _ in 0..5 {
        let started = Instant::now();
        let member_id = member_id.clone();
        let beat = HeartbeatRequest { group: "m".into(), member_id, instance_id: None, generation_id: 1 };
        assert_eq!(kit.groups.heartbeat(beat).await.await, Ok(()));
        assert_eq!(kit.commit(99).await.await.error, Some(GroupError::CoordinatorNotAvailable));
        assert_eq!(kit.fetch().await.await, Err(GroupError::CoordinatorNotAvailable));
        let (_, missing) = kit.groups.list(ListRequest::default()).await.await;
        assert_eq!(missing, Some(GroupError::CoordinatorNotAvailable));
        assert_eq!(started.elapsed(), Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    kit.log.hold(false);
    settle().await;
    // What had its place before the followers were late is there; the rest was told to come again.
    assert_eq!((kit.fetched().await, kit.log.loads()), (Offset(5), 1));
    assert_eq!((kit.commit(21).await.await.error, kit.fetched().await), (None, Offset(21)));
}

#[tokio::test(start_paused = true)]
async fn what_too_few_replicas_have_is_told_and_stored() {
    let kit = Kit::elected().await;
    assert_eq!(kit.commit(1).await.await.error, None);
    kit.log.return_next(WriteError::NotEnoughAfterAppend);
    assert_eq!(kit.commit(2).await.await.error, Some(GroupError::CoordinatorNotAvailable));
    assert_eq!(kit.fetched().await, Offset(2));
    assert_eq!(kit.commit(3).await.await.error, None);
    assert_eq!(kit.log.batch_sizes(&TopicName::new(CONSUMER_OFFSETS), PARTITION), [1, 1, 1]);
    kit.elect_anew(2).await;
    assert_eq!((kit.fetched().await, kit.log.loads()), (Offset(3), 2));
}

#[tokio::test(start_paused = true)]
async fn time_completes_a_rebalance_and_ends_sessions() {
    let kit = Kit::elected().await;
    let started = Instant::now();
    let first = kit.join("A").await;
    let second = kit.join("BB").await;
    let (first, second) = (first.await, second.await);
    // Three seconds, and three more because the second came during them.
    assert_eq!(started.elapsed().as_secs(), 6);
    assert_eq!((first.generation_id, second.generation_id, first.members.len()), (1, 1, 2));
    tokio::time::sleep(Duration::from_secs(11)).await;
    let described = kit.groups.describe("m".into()).await.await.expect("a coordinator").expect("a group");
    assert_eq!((described.state, described.members.len()), ("Empty", 0));
}

#[tokio::test(start_paused = true)]
async fn deleted_topics_lose_their_offsets_even_if_the_shard_is_loading() {
    let kit = Kit::elected().await;
    assert_eq!(kit.commit(5).await.await.error, None);
    kit.log.hold_loads(true);
    kit.groups.on_resigned(PARTITION);
    kit.groups.on_elected(PARTITION, LeaderEpoch(2));
    let topics = ["t".into()];
    let mut deleted = Box::pin(kit.groups.on_topics_deleted(&topics));
    assert!((&mut deleted).now_or_never().is_none());
    kit.log.hold_loads(false);
    deleted.await;
    assert_eq!(kit.fetched().await, Offset::NONE);
}

#[tokio::test(start_paused = true)]
async fn a_record_that_is_not_understood_is_skipped() {
    let kit = Kit::new();
    let record = |key: &[u8], value: &[u8]| CoordinatorRecord {
        key: bytes::Bytes::copy_from_slice(key),
        value: Some(bytes::Bytes::copy_from_slice(value)),
    };
    // A KIP-848 record, a torn one, and an offset commit of version 0 under a key of version 0.
    let commit = b"\0\0\0\0\0\0\0\0\0\x2a\0\0\0\0\0\0\0\0\0\x01";
    let records = vec![
        record(b"\0\x03\0\x01g", b"\0\0"),
        record(b"\0\x01\0\x09g", b""),
        record(b"\0\0\0\x01g\0\x01t\0\0\0\0", commit),
    ];
    kit.log.seed(&TopicName::new(CONSUMER_OFFSETS), PARTITION, records);
    kit.groups.on_elected(PARTITION, LeaderEpoch(1));
    settle().await;
    assert_eq!(kit.fetched().await, Offset(42));
}
