//! The transaction coordinator with its shell, over a log in memory and markers that a test can hold back, on paused
//! time.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::config::TransactionConfig;
use super::coordinator::TransactionCoordinator;
use super::error::TransactionError::{self, *};
use super::request::*;
use crate::clock::{Clock, UnixMs};
use crate::cluster::control::{
    ControlHead, ControllerError, ControllerLink, PartitionState, TopicMetadata, UpdateMetadata,
};
use crate::cluster::image::ImagePublisher;
use crate::cluster::producer_ids::ProducerIds;
use crate::cluster::registration::SharedBrokerEpoch;
use crate::coordinator::markers::{MarkerError, Markers};
use crate::coordinator::testing::MemoryLog;
use crate::coordinator::writer::{TransactionRefusal, WriteError};
use crate::types::topic::TRANSACTION_STATE;
use crate::types::{
    BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, PartitionEpoch, PartitionIndex, ProducerEpoch, ProducerId,
    TopicId, TopicName, TopicPartition, TransactionMarker, TransactionResult,
};

/// Time as tokio pauses and advances it.
#[derive(Debug)]
pub(super) struct PausedClock(pub(super) Instant);

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

/// Gives blocks of producer ids.
#[derive(Debug, Default)]
pub(super) struct Controller(AtomicI64);

impl ControllerLink for Controller {
    fn allocate_producer_ids(&self, _: BrokerId, _: BrokerEpoch) -> BoxFuture<'_, Result<Range<i64>, ControllerError>> {
        let start = self.0.fetch_add(1000, Ordering::SeqCst);
        ready(Ok(start..start + 1000)).boxed()
    }
}

type Written = (TopicPartition, TransactionMarker);

/// Markers as they were written.
#[derive(Debug, Default)]
struct FakeMarkers {
    written: Mutex<Vec<Written>>,
    /// Results of the next writes, instead of success.
    failures: Mutex<VecDeque<MarkerError>>,
    held: Mutex<bool>,
    changed: Notify,
}

impl FakeMarkers {
    fn hold(&self, held: bool) {
        *self.held.lock() = held;
        self.changed.notify_waiters();
    }

    fn fail_next(&self, error: MarkerError) {
        self.failures.lock().push_back(error);
    }

    fn written(&self) -> Vec<Written> {
        let mut written = self.written.lock().clone();
        written.sort_by(|a, b| a.0.cmp(&b.0));
        written
    }
}

#[derive(Debug)]
struct Shared(Arc<FakeMarkers>);

impl Markers for Shared {
    fn write(&self, to: TopicPartition, marker: TransactionMarker) -> BoxFuture<'static, Result<(), MarkerError>> {
        let this = self.0.clone();
        async move {
            if let Some(error) = this.failures.lock().pop_front() {
                return Err(error);
            }
            loop {
                let changed = this.changed.notified();
                if !*this.held.lock() {
                    break;
                }
                changed.await;
            }
            this.written.lock().push((to, marker));
            Ok(())
        }
        .boxed()
    }
}

struct Kit {
    log: Arc<MemoryLog>,
    markers: Arc<FakeMarkers>,
    image: Arc<ImagePublisher>,
    transactions: TransactionCoordinator,
}

const PARTITION: PartitionIndex = PartitionIndex(0);
const COMMIT: TransactionResult = TransactionResult::Commit;
const ABORT: TransactionResult = TransactionResult::Abort;

impl Kit {
    /// A coordinator of the one partition of `__transaction_state`, not elected yet.
    fn new() -> Self {
        let (log, markers) = (MemoryLog::new(), Arc::new(FakeMarkers::default()));
        let image = Arc::new(ImagePublisher::default());
        image.apply(&topics(&[(TRANSACTION_STATE, 1), ("topic", 2)], &[]));
        let transactions = TransactionCoordinator::new(
            TransactionConfig::default(),
            Arc::new(log.clone()),
            Arc::new(Shared(markers.clone())),
            Arc::new(PausedClock(Instant::now())),
            image.clone(),
            ProducerIds::new(BrokerId(1), SharedBrokerEpoch::default(), Arc::new(Controller::default())),
        );
        Self { log, markers, image, transactions }
    }

    async fn elected() -> Self {
        let kit = Self::new();
        kit.transactions.on_image_complete();
        kit.elect(1).await;
        kit
    }

    async fn elect(&self, epoch: i32) {
        self.transactions.on_elected(PARTITION, LeaderEpoch(epoch));
        settle().await;
    }

    async fn init(&self) -> Result<Producer, TransactionError> {
        self.transactions.init_producer_id("t".into(), 60_000, None).await.await
    }

    async fn add(&self, producer: Producer) -> Result<(), TransactionError> {
        self.transactions.add_partitions(both(producer)).await.await
    }

    async fn end(&self, producer: Producer, result: TransactionResult) -> Result<(), TransactionError> {
        self.transactions.end(EndRequest { id: "t".into(), producer, result }).await.await
    }

    async fn state(&self) -> &'static str {
        self.transactions.describe("t".into()).await.await.expect("it is there").state
    }

    /// A transaction over both partitions that is open.
    async fn begun(&self) -> Producer {
        let producer = self.init().await.expect("a producer");
        assert_eq!(self.add(producer).await, Ok(()));
        producer
    }
}

fn both(producer: Producer) -> PartitionsRequest {
    let partitions = vec![TopicPartition::new("topic", 0), TopicPartition::new("topic", 1)];
    PartitionsRequest { id: "t".into(), producer, partitions }
}

fn topics(named: &[(&str, i32)], deleted: &[(&str, i32)]) -> UpdateMetadata {
    let partition = |index| PartitionState {
        partition: PartitionIndex(index),
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
    };
    let topic = |&(name, count): &(&str, i32), is_deleted: bool| TopicMetadata {
        name: TopicName::new(name),
        id: TopicId::from_random(99 + name.len() as u128).expect("a legal id"),
        partitions: (0..if is_deleted { 0 } else { count }).map(partition).collect(),
        deleted: (0..if is_deleted { count } else { 0 }).map(PartitionIndex).collect(),
    };
    UpdateMetadata {
        head: ControlHead {
            controller: BrokerId(1),
            controller_epoch: ControllerEpoch(1),
            broker_epoch: BrokerEpoch(1),
        },
        live_brokers: Vec::new(),
        topics: named.iter().map(|t| topic(t, false)).chain(deleted.iter().map(|t| topic(t, true))).collect(),
    }
}

fn markers(producer: Producer, coordinator_epoch: i32, result: TransactionResult) -> Vec<Written> {
    let marker = TransactionMarker { producer_id: producer.0, producer_epoch: producer.1, coordinator_epoch, result };
    both(producer).partitions.into_iter().map(|to| (to, marker)).collect()
}

/// Lets all tasks run until they wait.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_ends_with_a_marker_in_each_partition() {
    let kit = Kit::elected().await;
    for (round, result) in [COMMIT, ABORT].into_iter().enumerate() {
        let producer = kit.begun().await;
        assert_eq!(producer, (ProducerId(0), ProducerEpoch(round as i16)));
        assert_eq!(kit.transactions.verify(both(producer)).await.await, vec![Ok(()), Ok(())]);
        assert_eq!(kit.end(producer, result).await, Ok(()));
        settle().await;
        assert_eq!(kit.state().await, if result == COMMIT { "CompleteCommit" } else { "CompleteAbort" });
        assert_eq!(kit.markers.written(), markers(producer, 1, result));
        assert_eq!(kit.transactions.verify(both(producer)).await.await, vec![Err(InvalidTxnState); 2]);
        kit.markers.written.lock().clear();
    }
}

#[tokio::test(start_paused = true)]
async fn no_marker_is_written_before_the_outcome_is_durable() {
    let kit = Kit::elected().await;
    let producer = kit.begun().await;
    kit.log.hold(true);
    let ended = kit.transactions.end(EndRequest { id: "t".into(), producer, result: COMMIT }).await.shared();
    settle().await;
    assert!(ended.clone().now_or_never().is_none());
    assert!(kit.markers.written().is_empty());
    kit.log.hold(false);
    assert_eq!(ended.await, Ok(()));
    settle().await;
    assert_eq!(kit.markers.written().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_end_is_answered_before_the_markers_and_the_next_begins_after_them() {
    let kit = Kit::elected().await;
    let producer = kit.begun().await;
    kit.markers.hold(true);
    assert_eq!(kit.end(producer, COMMIT).await, Ok(()));
    settle().await;
    assert_eq!(kit.state().await, "PrepareCommit");
    assert_eq!(kit.add(producer).await, Err(ConcurrentTransactions));
    assert_eq!(kit.init().await, Err(ConcurrentTransactions));
    kit.markers.hold(false);
    settle().await;
    assert_eq!(kit.add(producer).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn a_new_leader_ends_what_was_decided_before() {
    let kit = Kit::elected().await;
    let producer = kit.begun().await;
    kit.markers.hold(true);
    assert_eq!(kit.end(producer, COMMIT).await, Ok(()));
    settle().await;
    kit.transactions.on_resigned(PARTITION);
    settle().await;
    assert_eq!(kit.add(producer).await, Err(NotCoordinator));
    kit.markers.hold(false);
    settle().await;
    assert!(kit.markers.written().is_empty(), "its task has ended");
    kit.elect(2).await;
    assert_eq!(kit.markers.written(), markers(producer, 2, COMMIT));
    assert_eq!(kit.state().await, "CompleteCommit");
}

#[tokio::test(start_paused = true)]
async fn a_later_epoch_takes_over_without_a_resignation() {
    let kit = Kit::elected().await;
    let producer = kit.begun().await;
    kit.markers.hold(true);
    assert_eq!(kit.end(producer, ABORT).await, Ok(()));
    settle().await;
    kit.elect(2).await;
    kit.elect(1).await;
    kit.markers.hold(false);
    settle().await;
    assert_eq!(kit.markers.written(), markers(producer, 2, ABORT));
    assert_eq!((kit.state().await, kit.log.loads()), ("CompleteAbort", 1));
}

/// A decision on its way to the log when a follower dies: its markers are those of the later epoch.
#[tokio::test(start_paused = true)]
async fn what_is_decided_while_the_epoch_changes_is_ended_once_under_the_later_one() {
    let kit = Kit::elected().await;
    let producer = kit.begun().await;
    kit.log.hold(true);
    let ended = kit.transactions.end(EndRequest { id: "t".into(), producer, result: COMMIT }).await;
    settle().await;
    kit.elect(2).await;
    kit.log.hold(false);
    assert_eq!(ended.await, Ok(()));
    settle().await;
    assert_eq!((kit.state().await, kit.log.loads()), ("CompleteCommit", 1));
    assert_eq!(kit.markers.written(), markers(producer, 2, COMMIT));
}

/// The outcome may yet be undone by an election, and the markers could not be.
#[tokio::test(start_paused = true)]
async fn no_marker_is_written_for_an_outcome_that_was_read_and_is_not_replicated() {
    let kit = Kit::elected().await;
    let producer = kit.begun().await;
    kit.markers.hold(true);
    assert_eq!(kit.end(producer, COMMIT).await, Ok(()));
    settle().await;
    kit.transactions.on_resigned(PARTITION);
    kit.log.hold_watermark(true);
    kit.log.close(Some(WriteError::NotEnoughReplicas));
    kit.markers.hold(false);
    kit.elect(2).await;
    sleep(Duration::from_secs(20)).await;
    assert_eq!((kit.state().await, kit.markers.written()), ("PrepareCommit", vec![]));
    assert_eq!(kit.transactions.verify(both(producer)).await.await, vec![Err(CoordinatorNotAvailable); 2]);
    kit.log.accept();
    kit.log.hold_watermark(false);
    sleep(Duration::from_secs(2)).await;
    assert_eq!((kit.state().await, kit.markers.written()), ("CompleteCommit", markers(producer, 2, COMMIT)));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_followers_do_not_take_is_told_and_its_markers_follow_when_they_do() {
    let kit = Kit::elected().await;
    let producer = kit.begun().await;
    kit.log.hold(true);
    let ended = kit.transactions.end(EndRequest { id: "t".into(), producer, result: COMMIT }).await;
    assert_eq!(ended.await, Err(CoordinatorNotAvailable));
    assert_eq!(kit.end(producer, COMMIT).await, Err(CoordinatorNotAvailable));
    assert_eq!(kit.transactions.list(ListRequest::default()).await.await, Err(CoordinatorLoadInProgress));
    sleep(Duration::from_secs(60)).await;
    assert!(kit.markers.written().is_empty());
    kit.log.hold(false);
    sleep(Duration::from_secs(2)).await;
    assert_eq!((kit.state().await, kit.log.loads()), ("CompleteCommit", 1));
    assert_eq!((kit.markers.written(), kit.end(producer, COMMIT).await), (markers(producer, 1, COMMIT), Ok(())));
}

#[tokio::test(start_paused = true)]
async fn a_completion_that_was_not_stored_is_tried_again() {
    let kit = Kit::elected().await;
    let producer = kit.begun().await;
    kit.markers.hold(true);
    assert_eq!(kit.end(producer, COMMIT).await, Ok(()));
    settle().await;
    kit.log.fail_next(WriteError::NotEnoughReplicas);
    kit.markers.hold(false);
    settle().await;
    // The shard is loaded again and tells of the transaction; the task knows that it is done with its markers.
    sleep(Duration::from_secs(3)).await;
    assert_eq!(kit.state().await, "CompleteCommit");
    assert_eq!(kit.markers.written(), markers(producer, 1, COMMIT));

    // An outcome that was not stored was not decided.
    let producer = kit.begun().await;
    kit.log.fail_next(WriteError::Storage("disk".into()));
    assert_eq!(kit.end(producer, COMMIT).await, Err(NotCoordinator));
    sleep(Duration::from_secs(3)).await;
    assert_eq!(kit.state().await, "Ongoing");
    assert_eq!(kit.end(producer, COMMIT).await, Ok(()));
    settle().await;
    assert_eq!(kit.state().await, "CompleteCommit");
}

/// Issue 12, row 8: the task that writes markers was to hear of this one with a reply that was never sent.
#[tokio::test(start_paused = true)]
async fn markers_are_told_of_again_if_their_outcome_was_refused_under_way() {
    let kit = Kit::elected().await;
    let producer = kit.begun().await;
    kit.log.hold(true);
    let ended = kit.transactions.end(EndRequest { id: "t".into(), producer, result: COMMIT }).await;
    settle().await;
    kit.log.refuse();
    kit.log.hold(false);
    assert_eq!(ended.await, Err(CoordinatorNotAvailable));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(kit.end(producer, COMMIT).await, Err(CoordinatorNotAvailable));
    assert!(kit.markers.written().is_empty(), "nothing is decided before it is stored");
    kit.log.accept();
    sleep(Duration::from_secs(3)).await;
    assert_eq!(kit.state().await, "CompleteCommit");
    assert_eq!((kit.markers.written(), kit.log.loads()), (markers(producer, 1, COMMIT), 1));
}

#[tokio::test(start_paused = true)]
async fn a_marker_is_tried_until_it_is_written() {
    let kit = Kit::elected().await;
    let producer = kit.begun().await;
    for error in [
        MarkerError::NotLeader,
        MarkerError::NotAvailable("loading".into()),
        MarkerError::NotLeader,
        MarkerError::Refused(TransactionRefusal::InvalidTxnState),
    ] {
        kit.markers.fail_next(error);
    }
    assert_eq!(kit.end(producer, COMMIT).await, Ok(()));
    settle().await;
    assert_eq!(kit.state().await, "PrepareCommit");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(kit.state().await, "CompleteCommit");
    assert_eq!(kit.markers.written(), markers(producer, 1, COMMIT));
}

#[tokio::test(start_paused = true)]
async fn what_a_newer_epoch_refuses_is_left_to_it() {
    let kit = Kit::elected().await;
    let producer = kit.begun().await;
    kit.markers.fail_next(MarkerError::Refused(TransactionRefusal::CoordinatorFenced));
    assert_eq!(kit.end(producer, COMMIT).await, Ok(()));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(kit.state().await, "PrepareCommit");
    kit.elect(2).await;
    assert_eq!(kit.state().await, "CompleteCommit");
}

/// It kept all others from theirs, for ever, and their readers with them.
#[tokio::test(start_paused = true)]
async fn a_partition_with_a_newer_epoch_keeps_no_other_from_its_marker() {
    let kit = Kit::elected().await;
    let producer = kit.begun().await;
    kit.markers.fail_next(MarkerError::Refused(TransactionRefusal::InvalidProducerEpoch));
    assert_eq!(kit.end(producer, COMMIT).await, Ok(()));
    sleep(Duration::from_secs(10)).await;
    assert_eq!(kit.markers.written(), markers(producer, 1, COMMIT)[1..]);
    assert_eq!(kit.state().await, "PrepareCommit", "whoever has the newer epoch ends it");
}

#[tokio::test(start_paused = true)]
async fn a_deleted_partition_needs_no_marker_once_the_image_is_complete() {
    let kit = Kit::new();
    kit.elect(1).await;
    let producer = kit.begun().await;
    assert_eq!(kit.end(producer, COMMIT).await, Ok(()));
    for _ in 0..2 {
        kit.markers.fail_next(MarkerError::NotLeader);
    }
    kit.image.apply(&topics(&[], &[("topic", 2)]));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(kit.state().await, "PrepareCommit");
    kit.transactions.on_image_complete();
    settle().await;
    assert_eq!(kit.state().await, "CompleteCommit");
    assert!(kit.markers.written().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_newer_producer_aborts_what_the_former_left_open() {
    let kit = Kit::elected().await;
    let former = kit.begun().await;
    assert_eq!(kit.init().await, Err(ConcurrentTransactions));
    settle().await;
    let fenced = (former.0, ProducerEpoch(1));
    assert_eq!(kit.markers.written(), markers(fenced, 1, ABORT));
    assert_eq!(kit.init().await, Ok((former.0, ProducerEpoch(2))));
    assert_eq!(kit.end(former, COMMIT).await, Err(ProducerFenced));
}

#[tokio::test(start_paused = true)]
async fn time_ends_a_transaction() {
    let kit = Kit::elected().await;
    let producer = kit.begun().await;
    sleep(Duration::from_secs(59)).await;
    assert_eq!(kit.state().await, "Ongoing");
    sleep(Duration::from_secs(12)).await;
    assert_eq!(kit.state().await, "CompleteAbort");
    assert_eq!(kit.markers.written(), markers((producer.0, ProducerEpoch(1)), 1, ABORT));
    sleep(Duration::from_secs(8 * 24 * 60 * 60)).await;
    let forgotten = kit.transactions.describe("t".into()).await.await;
    assert_eq!(forgotten, Err(TransactionalIdNotFound));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_asked_is_refused() {
    let kit = Kit::new();
    let init = |id: &str, timeout_ms| kit.transactions.init_producer_id(id.into(), timeout_ms, None);
    assert_eq!(init("t", 1).await.await, Err(NotCoordinator));
    kit.log.hold_loads(true);
    kit.elect(1).await;
    assert_eq!(init("t", 1).await.await, Err(CoordinatorLoadInProgress));
    assert_eq!(kit.transactions.list(ListRequest::default()).await.await, Err(CoordinatorLoadInProgress));
    kit.log.hold_loads(false);
    settle().await;
    assert_eq!(init("", 1).await.await, Err(InvalidRequest));
    assert_eq!(init("t", 0).await.await, Err(InvalidTransactionTimeout));
    assert_eq!(init("t", 900_001).await.await, Err(InvalidTransactionTimeout));
    assert_eq!(init("t", 900_000).await.await, Ok((ProducerId(0), ProducerEpoch(0))));
    assert_eq!(init("u", 900_000).await.await, Ok((ProducerId(1), ProducerEpoch(0))));
    let listed = kit.transactions.list(ListRequest::default()).await.await.expect("loaded");
    assert_eq!(listed.iter().map(|row| (&*row.id, row.state)).collect::<Vec<_>>(), [("t", "Empty"), ("u", "Empty")]);
    let none = kit.transactions.verify(PartitionsRequest { id: "v".into(), ..both(P0) }).await.await;
    assert_eq!(none, vec![Err(InvalidProducerIdMapping); 2]);
}

const P0: Producer = (ProducerId(0), ProducerEpoch(0));
