//! The transaction coordinators of two brokers and the leaders of the partitions that take part, in one process and on
//! paused time: markers and verifications cross from one to the other, while leaders and coordinators move.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::config::TransactionConfig;
use super::coordinator::TransactionCoordinator;
use super::coordinator_tests::{Controller, PausedClock};
use super::error::TransactionError;
use super::request::*;
use crate::cluster::control::{ControlHead, PartitionState, TopicMetadata, UpdateMetadata};
use crate::cluster::image::ImagePublisher;
use crate::cluster::producer_ids::ProducerIds;
use crate::cluster::registration::SharedBrokerEpoch;
use crate::coordinator::markers::{MarkerError, Markers};
use crate::coordinator::peer_links::{MarkerLink, NoAnswer, VerifyLink};
use crate::coordinator::routed_markers::RoutedMarkers;
use crate::coordinator::routed_verification::RoutedVerification;
use crate::coordinator::testing::MemoryLog;
use crate::coordinator::writer::TransactionRefusal;
use crate::types::topic::TRANSACTION_STATE;
use crate::types::{
    BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicId, TopicName,
    TopicPartition, TransactionMarker, TransactionResult,
};

const ONE: BrokerId = BrokerId(1);
const TWO: BrokerId = BrokerId(2);
const STATE: PartitionIndex = PartitionIndex(0);
const COMMIT: TransactionResult = TransactionResult::Commit;

/// What all brokers have between them.
#[derive(Debug, Default)]
struct World {
    /// Who leads each partition, and the markers in its log, which all replicas have.
    logs: Mutex<BTreeMap<TopicPartition, (BrokerId, Vec<TransactionMarker>)>>,
    /// Brokers to which requests do not get through as long as they are here.
    held: Mutex<BTreeSet<BrokerId>>,
    /// Brokers that answer nothing.
    cut: Mutex<BTreeSet<BrokerId>>,
    changed: Notify,
    /// Codes of the next markers that another broker sends, instead of what comes of them.
    codes: Mutex<VecDeque<i16>>,
    /// Markers of each WriteTxnMarkers, and where it went; transactions of each verification.
    requests: Mutex<Vec<(BrokerId, usize)>>,
    verifications: Mutex<Vec<(BrokerId, usize)>>,
    coordinators: OnceLock<[Arc<TransactionCoordinator>; 2]>,
}

impl World {
    fn hold(&self, broker: BrokerId, held: bool) {
        match held {
            true => self.held.lock().insert(broker),
            false => self.held.lock().remove(&broker),
        };
        self.changed.notify_waiters();
    }

    async fn reach(&self, broker: BrokerId) -> Result<(), NoAnswer> {
        loop {
            let changed = self.changed.notified();
            if !self.held.lock().contains(&broker) {
                break;
            }
            changed.await;
        }
        let is_cut = self.cut.lock().contains(&broker);
        if is_cut { Err(NoAnswer("connection refused".into())) } else { Ok(()) }
    }

    /// As the leader's log takes it.
    fn append(&self, at: BrokerId, to: &TopicPartition, marker: TransactionMarker) -> Result<(), MarkerError> {
        let mut logs = self.logs.lock();
        let (leader, markers) = logs.get_mut(to).ok_or(MarkerError::NotLeader)?;
        if *leader != at {
            return Err(MarkerError::NotLeader);
        }
        if markers.last().is_some_and(|last| last.coordinator_epoch > marker.coordinator_epoch) {
            return Err(TransactionRefusal::CoordinatorFenced.into());
        }
        markers.push(marker);
        Ok(())
    }

    /// Coordinator epochs of the markers in a partition.
    fn marked(&self, partition: i32) -> Vec<i32> {
        let logs = self.logs.lock();
        logs[&TopicPartition::new("topic", partition)].1.iter().map(|marker| marker.coordinator_epoch).collect()
    }

    fn code(&self, outcome: Result<(), MarkerError>) -> i16 {
        self.codes.lock().pop_front().unwrap_or(match outcome {
            Ok(()) => 0,
            Err(MarkerError::NotLeader) => 6,
            Err(MarkerError::Refused(TransactionRefusal::CoordinatorFenced)) => 52,
            Err(other) => panic!("no log here says {other:?}"),
        })
    }
}

/// The logs that one broker leads.
#[derive(Debug)]
struct Leader(BrokerId, Arc<World>);

impl Markers for Leader {
    fn write(&self, to: TopicPartition, marker: TransactionMarker) -> BoxFuture<'static, Result<(), MarkerError>> {
        std::future::ready(self.1.append(self.0, &to, marker)).boxed()
    }
}

/// The way to the other broker.
#[derive(Debug)]
struct Link(Arc<World>);

impl MarkerLink for Link {
    fn write(
        &self,
        leader: BrokerId,
        markers: Vec<(TopicPartition, TransactionMarker)>,
    ) -> BoxFuture<'_, Result<Vec<i16>, NoAnswer>> {
        async move {
            self.0.requests.lock().push((leader, markers.len()));
            self.0.reach(leader).await?;
            let scripted = !self.0.codes.lock().is_empty();
            let write = |(to, marker): (TopicPartition, TransactionMarker)| {
                self.0.code(if scripted { Ok(()) } else { self.0.append(leader, &to, marker) })
            };
            Ok(markers.into_iter().map(write).collect())
        }
        .boxed()
    }
}

impl VerifyLink for Link {
    fn verify(
        &self,
        coordinator: BrokerId,
        transactions: Vec<PartitionsRequest>,
    ) -> BoxFuture<'_, Result<Vec<Vec<i16>>, NoAnswer>> {
        async move {
            self.0.verifications.lock().push((coordinator, transactions.len()));
            self.0.reach(coordinator).await?;
            let coordinators = self.0.coordinators.get().expect("both are there");
            let of = &coordinators[coordinator.0 as usize - 1];
            let code = |result: Result<(), TransactionError>| match result {
                Ok(()) => 0,
                Err(TransactionError::InvalidTxnState) => 48,
                Err(TransactionError::NotCoordinator) => 16,
                Err(TransactionError::ProducerFenced) => 90,
                Err(other) => panic!("not expected here: {other}"),
            };
            let verified = transactions.into_iter().map(|asked| async move { of.verify(asked).await.await });
            let verified = join_all(verified).await;
            Ok(verified.into_iter().map(|results| results.into_iter().map(code).collect()).collect())
        }
        .boxed()
    }
}

struct Node {
    image: Arc<ImagePublisher>,
    transactions: Arc<TransactionCoordinator>,
    verification: Arc<RoutedVerification>,
}

/// Partition 0 of `topic` is led by broker 1, partition 1 by broker 2; broker 1 is the coordinator.
struct Cluster {
    world: Arc<World>,
    log: Arc<MemoryLog>,
    nodes: [Node; 2],
}

impl Cluster {
    async fn start() -> Self {
        let (world, log) = (Arc::new(World::default()), MemoryLog::new());
        let nodes = [ONE, TWO].map(|me| {
            let image = Arc::new(ImagePublisher::default());
            let link = Arc::new(Link(world.clone()));
            let local = Arc::new(Leader(me, world.clone()));
            let transactions = Arc::new(TransactionCoordinator::new(
                TransactionConfig::default(),
                Arc::new(log.clone()),
                RoutedMarkers::new(me, image.clone(), local, link.clone()),
                Arc::new(PausedClock(Instant::now())),
                image.clone(),
                ProducerIds::new(me, SharedBrokerEpoch::default(), Arc::new(Controller::default())),
            ));
            let verification = RoutedVerification::new(me, image.clone(), transactions.clone(), link);
            Node { image, transactions, verification }
        });
        let coordinators = [nodes[0].transactions.clone(), nodes[1].transactions.clone()];
        assert!(world.coordinators.set(coordinators).is_ok());
        let cluster = Self { world, log, nodes };
        cluster.show(TRANSACTION_STATE, 0, Some(ONE), &[0, 1]);
        for (partition, leader) in [(0, ONE), (1, TWO)] {
            let at = TopicPartition::new("topic", partition);
            cluster.world.logs.lock().insert(at, (leader, Vec::new()));
            cluster.show("topic", partition, Some(leader), &[0, 1]);
        }
        cluster.nodes.iter().for_each(|node| node.transactions.on_image_complete());
        cluster.nodes[0].transactions.on_elected(STATE, LeaderEpoch(1));
        settle().await;
        cluster
    }

    /// Tells nodes who leads a partition.
    fn show(&self, topic: &str, partition: i32, leader: Option<BrokerId>, nodes: &[usize]) {
        let state = PartitionState {
            partition: PartitionIndex(partition),
            controller_epoch: ControllerEpoch(1),
            leader,
            leader_epoch: LeaderEpoch(1),
            isr: vec![ONE, TWO],
            partition_epoch: PartitionEpoch(0),
            replicas: vec![ONE, TWO],
            adding: vec![],
            removing: vec![],
            recovery: Default::default(),
            offline_replicas: vec![],
            is_new: false,
        };
        for &node in nodes {
            self.nodes[node].image.apply(&UpdateMetadata {
                head: ControlHead {
                    controller: ONE,
                    controller_epoch: ControllerEpoch(1),
                    broker_epoch: BrokerEpoch(1),
                },
                live_brokers: Vec::new(),
                topics: vec![TopicMetadata {
                    name: TopicName::new(topic),
                    id: TopicId::from_random(99 + topic.len() as u128).expect("a legal id"),
                    partitions: vec![state.clone()],
                    deleted: Vec::new(),
                }],
            });
        }
    }

    /// Moves the leadership of a partition of `topic`; nobody has heard of it.
    fn lead(&self, partition: i32, leader: BrokerId) {
        self.world.logs.lock().get_mut(&TopicPartition::new("topic", partition)).expect("it exists").0 = leader;
    }

    /// Broker 2 becomes the coordinator.
    async fn move_coordinator(&self, epoch: i32) {
        self.nodes[0].transactions.on_resigned(STATE);
        self.nodes[1].transactions.on_elected(STATE, LeaderEpoch(epoch));
        self.show(TRANSACTION_STATE, 0, Some(TWO), &[0, 1]);
        settle().await;
    }

    /// A transaction over both partitions that is open, at broker 1.
    async fn begun(&self, id: &str) -> Producer {
        let transactions = &self.nodes[0].transactions;
        let producer = transactions.init_producer_id(id.into(), 60_000, None).await.await.expect("a producer");
        assert_eq!(transactions.add_partitions(both(id, producer)).await.await, Ok(()));
        producer
    }

    async fn commit(&self, id: &str, producer: Producer) {
        let request = EndRequest { id: id.into(), producer, result: COMMIT };
        assert_eq!(self.nodes[0].transactions.end(request).await.await, Ok(()));
        settle().await;
    }

    async fn state(&self, node: usize, id: &str) -> Result<&'static str, TransactionError> {
        self.nodes[node].transactions.describe(id.into()).await.await.map(|described| described.state)
    }
}

fn both(id: &str, producer: Producer) -> PartitionsRequest {
    let partitions = vec![TopicPartition::new("topic", 0), TopicPartition::new("topic", 1)];
    PartitionsRequest { id: id.into(), producer, partitions }
}

/// Lets all tasks run until they wait.
async fn settle() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_transaction_over_partitions_of_two_brokers_ends_in_both() {
    let cluster = Cluster::start().await;
    let producer = cluster.begun("t").await;
    cluster.commit("t", producer).await;
    assert_eq!(cluster.state(0, "t").await, Ok("CompleteCommit"));
    assert_eq!((cluster.world.marked(0), cluster.world.marked(1)), (vec![1], vec![1]));
    assert_eq!(*cluster.world.requests.lock(), [(TWO, 1)]);
    assert_eq!(cluster.state(1, "t").await, Err(TransactionError::NotCoordinator));
}

#[tokio::test(start_paused = true)]
async fn markers_for_a_broker_gather_while_a_request_is_under_way() {
    let cluster = Cluster::start().await;
    let ids: Vec<String> = (0..20).map(|number| format!("t{number}")).collect();
    let mut producers = Vec::new();
    for id in &ids {
        producers.push(cluster.begun(id).await);
    }
    cluster.world.hold(TWO, true);
    for (id, producer) in ids.iter().zip(producers) {
        cluster.commit(id, producer).await;
    }
    assert_eq!(cluster.world.marked(0).len(), 20, "nobody waits for broker 2");
    cluster.world.hold(TWO, false);
    settle().await;
    assert_eq!(*cluster.world.requests.lock(), [(TWO, 1), (TWO, 19)]);
    for id in &ids {
        assert_eq!(cluster.state(0, id).await, Ok("CompleteCommit"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_moves_while_markers_are_pending_is_found() {
    let cluster = Cluster::start().await;
    let producer = cluster.begun("t").await;
    cluster.world.hold(TWO, true);
    cluster.commit("t", producer).await;
    cluster.lead(1, ONE);
    cluster.world.hold(TWO, false);
    sleep(Duration::from_secs(5)).await;
    // The image lags: the former leader refuses, again and again.
    assert_eq!(cluster.state(0, "t").await, Ok("PrepareCommit"));
    assert!(cluster.world.requests.lock().len() > 10);
    cluster.show("topic", 1, None, &[0]);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(cluster.state(0, "t").await, Ok("PrepareCommit"));
    cluster.show("topic", 1, Some(ONE), &[0]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.state(0, "t").await, Ok("CompleteCommit"));
    assert_eq!((cluster.world.marked(0), cluster.world.marked(1)), (vec![1], vec![1]));
}

/// A broker that hangs keeps its sockets for a while; it has lost its session and its partitions by then.
#[tokio::test(start_paused = true)]
async fn nobody_waits_for_a_broker_that_hangs_once_another_leads() {
    let cluster = Cluster::start().await;
    let producer = cluster.begun("t").await;
    cluster.world.hold(TWO, true);
    cluster.commit("t", producer).await;
    cluster.lead(1, ONE);
    cluster.show("topic", 1, Some(ONE), &[0]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.state(0, "t").await, Ok("CompleteCommit"));
    assert_eq!(cluster.world.marked(1), [1]);
    // The other way round: its coordinator hangs.
    cluster.world.hold(ONE, true);
    let (verification, asked) = (cluster.nodes[1].verification.clone(), both("t", producer));
    let verified = crate::task::spawn(async move { verification.verify(asked).await });
    settle().await;
    cluster.show(TRANSACTION_STATE, 0, Some(TWO), &[1]);
    assert_eq!(verified.await.expect("no panic"), [Err(TransactionError::NetworkException); 2]);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_does_not_answer_holds_up_its_own_partitions_alone() {
    let cluster = Cluster::start().await;
    let producer = cluster.begun("t").await;
    cluster.world.cut.lock().insert(TWO);
    cluster.commit("t", producer).await;
    sleep(Duration::from_secs(60)).await;
    assert_eq!((cluster.world.marked(0), cluster.world.marked(1)), (vec![1], vec![]));
    assert_eq!(cluster.state(0, "t").await, Ok("PrepareCommit"));
    cluster.world.cut.lock().clear();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.world.marked(1), [1]);
    assert_eq!(cluster.state(0, "t").await, Ok("CompleteCommit"));
}

#[tokio::test(start_paused = true)]
async fn what_a_former_coordinator_sent_comes_too_late() {
    let cluster = Cluster::start().await;
    let producer = cluster.begun("t").await;
    cluster.world.hold(TWO, true);
    cluster.commit("t", producer).await;
    assert_eq!((cluster.world.marked(0), cluster.world.marked(1)), (vec![1], vec![]));
    cluster.move_coordinator(2).await;
    assert_eq!(cluster.state(0, "t").await, Err(TransactionError::NotCoordinator));
    assert_eq!(cluster.state(1, "t").await, Ok("CompleteCommit"));
    cluster.world.hold(TWO, false);
    sleep(Duration::from_secs(5)).await;
    assert_eq!((cluster.world.marked(0), cluster.world.marked(1)), (vec![1, 2], vec![2]));
    assert_eq!(*cluster.world.requests.lock(), [(TWO, 1), (ONE, 1)], "it is not repeated");
}

/// As after a follower's death: the same broker coordinates on.
#[tokio::test(start_paused = true)]
async fn what_waits_to_be_sent_under_a_former_epoch_is_sent_under_the_new_one_alone() {
    let cluster = Cluster::start().await;
    let (first, second) = (cluster.begun("t").await, cluster.begun("u").await);
    cluster.world.hold(TWO, true);
    cluster.commit("t", first).await;
    cluster.commit("u", second).await;
    cluster.nodes[0].transactions.on_elected(STATE, LeaderEpoch(3));
    settle().await;
    cluster.world.hold(TWO, false);
    sleep(Duration::from_secs(1)).await;
    // The request under way is the first one's, under the former epoch; all else is of the new one.
    assert_eq!(cluster.world.marked(1), [1, 3, 3]);
    assert_eq!(*cluster.world.requests.lock(), [(TWO, 1), (TWO, 2)]);
    for id in ["t", "u"] {
        assert_eq!(cluster.state(0, id).await, Ok("CompleteCommit"));
    }
    assert_eq!(cluster.log.loads(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_leaders_answer_says_again_done_or_never() {
    for (codes, state) in [
        (vec![3, 6, 7, 19, 20, 56, 2, 0], "CompleteCommit"),
        (vec![6, 43], "CompleteCommit"),
        (vec![35], "CompleteCommit"),
        (vec![19, 47], "PrepareCommit"),
        (vec![52], "PrepareCommit"),
    ] {
        let cluster = Cluster::start().await;
        let producer = cluster.begun("t").await;
        cluster.world.codes.lock().extend(&codes);
        cluster.commit("t", producer).await;
        sleep(Duration::from_secs(10)).await;
        assert_eq!(cluster.state(0, "t").await, Ok(state), "{codes:?}");
        assert_eq!(cluster.world.requests.lock().len(), codes.len(), "{codes:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_asks_the_coordinator_elsewhere() {
    let cluster = Cluster::start().await;
    let producer = cluster.begun("t").await;
    let [one, two] = &cluster.nodes;
    assert_eq!(two.verification.verify(both("t", producer)).await, [Ok(()), Ok(())]);
    assert_eq!(one.verification.verify(both("t", producer)).await, [Ok(()), Ok(())]);
    assert_eq!(*cluster.world.verifications.lock(), [(ONE, 1)], "its own it does not ask over the network");
    let mut other = both("t", producer);
    other.partitions.push(TopicPartition::new("topic", 7));
    let not_added = [Ok(()), Ok(()), Err(TransactionError::InvalidTxnState)];
    assert_eq!(two.verification.verify(other).await, not_added);
    let fenced = (producer.0, crate::types::ProducerEpoch(9));
    assert_eq!(two.verification.verify(both("t", fenced)).await, [Err(TransactionError::ProducerFenced); 2]);
    // It has moved, and the image lags.
    one.transactions.on_resigned(STATE);
    assert_eq!(two.verification.verify(both("t", producer)).await, [Err(TransactionError::NotCoordinator); 2]);
    cluster.show(TRANSACTION_STATE, 0, None, &[1]);
    let unavailable = [Err(TransactionError::CoordinatorNotAvailable); 2];
    assert_eq!(two.verification.verify(both("t", producer)).await, unavailable);
    cluster.move_coordinator(2).await;
    assert_eq!(two.verification.verify(both("t", producer)).await, [Ok(()), Ok(())]);
    cluster.world.cut.lock().insert(TWO);
    assert_eq!(one.verification.verify(both("t", producer)).await, [Err(TransactionError::NetworkException); 2]);
}

#[tokio::test(start_paused = true)]
async fn verifications_gather_and_none_names_an_id_twice() {
    let cluster = Cluster::start().await;
    let (first, second) = (cluster.begun("t").await, cluster.begun("u").await);
    cluster.world.hold(ONE, true);
    let verify = |id: &str, producer| {
        let (verification, asked) = (cluster.nodes[1].verification.clone(), both(id, producer));
        crate::task::spawn(async move { verification.verify(asked).await })
    };
    let mut asked = vec![verify("t", first)];
    settle().await;
    for (id, producer) in [("t", first), ("t", first), ("u", second)] {
        asked.push(verify(id, producer));
        settle().await;
    }
    cluster.world.hold(ONE, false);
    for answer in asked {
        assert_eq!(answer.await.expect("no panic"), [Ok(()), Ok(())]);
    }
    assert_eq!(*cluster.world.verifications.lock(), [(ONE, 1), (ONE, 2), (ONE, 1)]);
}
