//! The group coordinator over a partition of a directory: one that is full, where something is refused before it is
//! decided or on its way to the disk, and one with followers that hold the high watermark back.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;

use super::config::GroupConfig;
use super::coordinator::{Answer, GroupCoordinator};
use super::coordinator_tests::{PARTITION, commit_of, fetch_of, offsets_topic};
use super::error::GroupError;
use super::request::CommitReply;
use crate::clock::testing::ManualClock;
use crate::cluster::image::ImagePublisher;
use crate::coordinator::replica_writer::ReplicaWriter;
use crate::coordinator::writer::{Appending, Entry, PartitionWriter, SharedWriter, Visitor, WriteError};
use crate::log::config::LogConfig;
use crate::log::reading::tail::Tail;
use crate::replica::manager::{ReplicaConfig, ReplicaDir, ReplicaManager, WantedReplica};
use crate::replica::partition::Role;
use crate::replica::testing;
use crate::storage::testing::faulty::{Faults, FaultyDir};
use crate::storage::testing::memory::MemoryDir;
use crate::storage::{PartitionId, SharedLogDir};
use crate::types::topic::CONSUMER_OFFSETS;
use crate::types::{
    BrokerId, Fence, LeaderEpoch, LogOpening, Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicName,
    TransactionGuard,
};

/// Counts loads.
#[derive(Debug)]
struct Counting {
    writer: SharedWriter,
    loads: AtomicUsize,
}

#[derive(Debug)]
struct Counted(Arc<Counting>);

impl PartitionWriter for Counted {
    fn may_append(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
        epoch: LeaderEpoch,
    ) -> Result<LogOpening, WriteError> {
        self.0.writer.may_append(topic, partition, epoch)
    }

    fn append(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
        fence: Fence,
        entry: &Entry,
    ) -> Result<Appending, WriteError> {
        self.0.writer.append(topic, partition, fence, entry)
    }

    fn begin_verification(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
    ) -> Option<TransactionGuard> {
        self.0.writer.begin_verification(topic, partition, producer_id, producer_epoch)
    }

    fn until_replicated(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
        epoch: LeaderEpoch,
        end: Offset,
    ) -> Appending {
        self.0.writer.until_replicated(topic, partition, epoch, end)
    }

    fn load(&self, topic: &TopicName, partition: PartitionIndex, visit: Visitor) -> Appending {
        self.0.loads.fetch_add(1, Ordering::SeqCst);
        self.0.writer.load(topic, partition, visit)
    }
}

struct Kit {
    faults: Arc<Faults>,
    writer: Arc<Counting>,
    replicas: Arc<ReplicaManager>,
    groups: GroupCoordinator,
}

impl Kit {
    async fn elected() -> Self {
        let (dir, faults) = FaultyDir::around(MemoryDir::open());
        let dir: SharedLogDir = dir;
        let (me, clock) = (BrokerId(1), Arc::new(ManualClock::new(1_000_000, 1)));
        let config = |_: &TopicName| ReplicaConfig { log: LogConfig::default(), min_insync_replicas: 1 };
        let dirs = vec![ReplicaDir { dir, tail: Tail::new(0), may_lack_ends: false, configured: None }];
        let replicas =
            ReplicaManager::new(testing::alone(me, clock.clone()), dirs, Arc::new(config)).expect("readable");
        let image = Arc::new(ImagePublisher::default());
        image.apply(&offsets_topic());
        let topic_id = image.current().topic(CONSUMER_OFFSETS).expect("there").id;
        let id = PartitionId { topic: CONSUMER_OFFSETS.into(), topic_id, partition: PARTITION };
        for opened in replicas.open(&[WantedReplica { id, is_new: true }]) {
            opened.expect("opens");
        }
        let writer = ReplicaWriter::new(Arc::clone(&replicas), clock.clone());
        let writer = Arc::new(Counting { writer, loads: AtomicUsize::new(0) });
        let shared = Arc::new(Counted(writer.clone()));
        let groups = GroupCoordinator::new(GroupConfig::default(), shared, clock, image);
        let kit = Self { faults, writer, replicas, groups };
        kit.elect(1).await;
        kit
    }

    async fn elect(&self, epoch: i32) {
        let leader_epoch = LeaderEpoch(epoch);
        let partition = self.replicas.get(CONSUMER_OFFSETS, PARTITION).expect("open");
        let recorded = partition.take_role(testing::role(1, epoch)).expect("taken");
        recorded.await.expect("recorded");
        let loads = self.loads();
        self.groups.on_resigned(PARTITION);
        self.groups.on_elected(PARTITION, leader_epoch);
        self.until_fetched(|fetched| fetched.is_ok()).await;
        assert_eq!(self.loads(), loads + 1);
    }

    /// Takes a role. This broker is in the ISR, alone or with another that never fetches.
    async fn lead(&self, leader: i32, epoch: i32, is_alone: bool) {
        let leader_alone = testing::role(leader, epoch);
        let isr = if is_alone { vec![BrokerId(leader)] } else { vec![BrokerId(1), BrokerId(2)] };
        let role = Role { isr, replicas: vec![BrokerId(1), BrokerId(2)], ..leader_alone };
        let partition = self.replicas.get(CONSUMER_OFFSETS, PARTITION).expect("open");
        partition.take_role(role).expect("taken").await.expect("recorded");
        match leader {
            1 => self.groups.on_elected(PARTITION, LeaderEpoch(epoch)),
            _ => self.groups.on_resigned(PARTITION),
        }
    }

    /// A commit that is written, and waits for the other broker.
    async fn held_commit(&self, offset: i64) -> Answer<CommitReply> {
        let partition = self.replicas.get(CONSUMER_OFFSETS, PARTITION).expect("open");
        let before = partition.view().log_end_offset;
        let answer = self.groups.commit(commit_of(offset)).await;
        while partition.view().log_end_offset == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        answer
    }

    fn loads(&self) -> usize {
        self.writer.loads.load(Ordering::SeqCst)
    }

    async fn commit(&self, offset: i64) -> Option<GroupError> {
        self.groups.commit(commit_of(offset)).await.await.error
    }

    async fn fetch(&self) -> Result<Offset, GroupError> {
        Ok(self.groups.fetch(fetch_of()).await.await?[0].1[0].offset)
    }

    async fn until_fetched(&self, wanted: impl Fn(Result<Offset, GroupError>) -> bool) {
        while !wanted(self.fetch().await) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test]
async fn a_full_disk_refuses_commits_at_once_and_takes_them_again_without_a_load() {
    let kit = Kit::elected().await;
    assert_eq!(kit.commit(1).await, None);
    kit.faults.set_full(true);
    for _ in 0..10 {
        assert_eq!(kit.commit(2).await, Some(GroupError::CoordinatorNotAvailable));
        assert_eq!(kit.fetch().await, Ok(Offset(1)));
    }
    kit.faults.set_full(false);
    assert_eq!(kit.commit(3).await, None);
    assert_eq!((kit.fetch().await, kit.loads()), (Ok(Offset(3)), 1));
}

#[tokio::test]
async fn a_commit_that_finds_the_disk_full_on_its_way_is_told_so_and_stored_later() {
    let kit = Kit::elected().await;
    assert_eq!(kit.commit(1).await, None);
    kit.faults.refuse_next();
    assert_eq!(kit.commit(2).await, Some(GroupError::CoordinatorNotAvailable));
    kit.until_fetched(|fetched| fetched == Ok(Offset(2))).await;
    assert_eq!(kit.commit(3).await, None);
    assert_eq!((kit.fetch().await, kit.loads()), (Ok(Offset(3)), 1));
    // The state is the fold of the log.
    kit.elect(2).await;
    assert_eq!(kit.fetch().await, Ok(Offset(3)));
}

#[tokio::test]
async fn a_disk_that_fills_again_and_again_never_makes_a_coordinator_load() {
    let kit = Kit::elected().await;
    let mut stored = 0;
    for offset in 1..50 {
        kit.faults.refuse_next();
        kit.faults.set_full(offset % 3 == 0);
        let answered = kit.commit(offset).await;
        assert!(matches!(answered, None | Some(GroupError::CoordinatorNotAvailable)), "{answered:?}");
        stored += usize::from(answered.is_none());
        kit.faults.set_full(false);
        if offset % 10 == 0 {
            kit.until_fetched(|fetched| fetched.is_ok()).await;
        }
    }
    while kit.commit(1000).await.is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!((kit.fetch().await, kit.loads()), (Ok(Offset(1000)), 1), "{stored} were stored at once");
}

#[tokio::test]
async fn what_followers_do_not_have_is_not_shown_and_a_later_epoch_takes_nothing_away() {
    let kit = Kit::elected().await;
    assert_eq!(kit.commit(1).await, None);
    kit.lead(1, 2, false).await;
    let mut committed = kit.held_commit(2).await;
    let mut fetched = kit.groups.fetch(fetch_of()).await;
    assert!((&mut committed).now_or_never().is_none() && (&mut fetched).now_or_never().is_none());
    kit.lead(1, 3, true).await;
    assert_eq!((committed.await.error, fetched.await.expect("a coordinator")[0].1[0].offset), (None, Offset(2)));
    assert_eq!((kit.commit(3).await, kit.loads()), (None, 1));
}

#[tokio::test]
async fn a_new_leader_shows_what_it_has_read_when_the_high_watermark_has_come_to_it() {
    let kit = Kit::elected().await;
    kit.lead(1, 2, false).await;
    let committed = kit.held_commit(2).await;
    kit.lead(2, 3, false).await;
    assert_eq!(committed.await.error, Some(GroupError::NotCoordinator));
    kit.lead(1, 4, false).await;
    while kit.loads() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    for _ in 0..20 {
        assert_eq!(kit.fetch().await, Err(GroupError::CoordinatorLoadInProgress), "it may yet be undone");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    kit.lead(1, 5, true).await;
    kit.until_fetched(|fetched| fetched == Ok(Offset(2))).await;
    assert_eq!((kit.commit(3).await, kit.loads()), (None, 2));
}
