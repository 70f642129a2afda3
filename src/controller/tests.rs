//! The owner on a tree in memory, with links that keep what they are told: elections, topics, brokers, deletions.

mod bounce;
mod by_hand;
mod channel;
mod deletion;
mod isr;
mod preferred;
mod reassignment;
mod scale;
mod shutdown;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;

use super::*;
use crate::clock::testing::ManualClock;
use crate::cluster::admin::{ClusterAdmin, NewTopic};
use crate::cluster::control::{
    BrokerLink, ControlError, ControllerError, ControllerLink, Endpoint, LeaderAndIsr, LiveBroker, LogInventory,
    PartitionResults, PartitionState, StopReplica, UpdateMetadata,
};
use crate::cluster::image::ImagePublisher;
use crate::cluster::registration::{OwnSessions, Registrar, SharedBrokerEpoch, ensure_top_level_paths};
use crate::cluster::running_config::RunningConfig;
use crate::cluster::znodes::config::Overrides;
use crate::cluster::znodes::{partition_state, topics};
use crate::config::{Config, Inputs, Machine};
use crate::coordination::embedded::EmbeddedCoordination;
use crate::coordination::embedded::testing::TreeDir;
use crate::coordination::testing::{Access, Fate, Faults, FaultyCoordination, Rule};
use crate::coordination::{Coordination, CreateMode};
use crate::types::{BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, PartitionIndex, TopicId, TopicName};

#[derive(Debug, Clone)]
enum Heard {
    Roles(LeaderAndIsr),
    Metadata,
    Stop(StopReplica),
}

fn defaults() -> Config {
    Config::load(&Inputs::default(), Machine::for_test()).unwrap()
}

/// A broker that does as it is told and remembers it.
#[derive(Debug, Default)]
struct FakeBroker {
    image: ImagePublisher,
    heard: Mutex<Vec<Heard>>,
    /// What LeaderAndIsr answers for every partition, if it is refused.
    refuses: Mutex<Option<ControlError>>,
    /// Refuses to lead under lower epochs than this one.
    ends_lost_below: Mutex<LeaderEpoch>,
    /// Answers nothing, and does nothing.
    unreachable: AtomicBool,
    /// Requests that it did not answer.
    unanswered: AtomicUsize,
    /// Answers so many deletions with a storage error for their first partition.
    deletions_refused: Mutex<u32>,
    inventory: Arc<Inventory>,
}

/// Topic ids of the logs that lie on a broker's disks.
#[derive(Debug, Default)]
struct Inventory(Mutex<BTreeMap<TopicName, TopicId>>);

impl LogInventory for Inventory {
    fn topic_id(&self, topic: &TopicName) -> Option<TopicId> {
        self.0.lock().get(topic).copied()
    }
}

impl FakeBroker {
    fn is_reached(&self) -> Result<(), ControlError> {
        if !self.unreachable.load(Ordering::SeqCst) {
            return Ok(());
        }
        self.unanswered.fetch_add(1, Ordering::SeqCst);
        Err(ControlError::Unreachable("cut off".into()))
    }
}

impl BrokerLink for FakeBroker {
    fn leader_and_isr(&self, request: LeaderAndIsr) -> BoxFuture<'_, Result<PartitionResults, ControlError>> {
        if let Err(unreachable) = self.is_reached() {
            return ready(Err(unreachable)).boxed();
        }
        let (refuses, ends_lost_below) = (self.refuses.lock().clone(), *self.ends_lost_below.lock());
        let outcome = |state: &PartitionState| match &refuses {
            Some(error) => Err(error.clone()),
            None if state.leader_epoch < ends_lost_below => Err(ControlError::EndLost),
            None => Ok(()),
        };
        let partitions = request.topics.iter().flat_map(|(name, _, states)| states.iter().map(move |s| (name, s)));
        let results = partitions.map(|(name, state)| (name.clone(), state.partition, outcome(state))).collect();
        self.heard.lock().push(Heard::Roles(request.clone()));
        ready(Ok(results)).boxed()
    }

    fn update_metadata(&self, request: UpdateMetadata) -> BoxFuture<'_, Result<(), ControlError>> {
        if let Err(unreachable) = self.is_reached() {
            return ready(Err(unreachable)).boxed();
        }
        self.heard.lock().push(Heard::Metadata);
        self.image.apply(&request);
        ready(Ok(())).boxed()
    }

    fn stop_replica(&self, request: StopReplica) -> BoxFuture<'_, Result<PartitionResults, ControlError>> {
        if let Err(unreachable) = self.is_reached() {
            return ready(Err(unreachable)).boxed();
        }
        self.heard.lock().push(Heard::Stop(request.clone()));
        let mut results: PartitionResults =
            request.partitions.into_iter().map(|stop| (stop.topic, stop.partition, Ok(()))).collect();
        let mut refused = self.deletions_refused.lock();
        if *refused > 0 {
            *refused -= 1;
            results[0].2 = Err(ControlError::Storage("no space".into()));
        }
        ready(Ok(results)).boxed()
    }
}

#[derive(Debug, Default)]
struct Links(Mutex<BTreeMap<BrokerId, Arc<FakeBroker>>>);

impl LinkSource for Links {
    fn link(&self, broker: &LiveBroker) -> Option<Arc<dyn BrokerLink>> {
        Some(self.0.lock().get(&broker.id)?.clone())
    }
}

/// Brokers on one tree that all reach each other.
struct Cluster {
    dir: Arc<TreeDir>,
    store: Arc<EmbeddedCoordination>,
    links: Arc<Links>,
    /// What befalls the calls of controllers.
    faults: Arc<Faults>,
}

struct Member {
    store: Arc<EmbeddedCoordination>,
    broker: Arc<FakeBroker>,
    registrar: Arc<Registrar>,
    controller: ControllerHandle,
    config: Arc<RunningConfig>,
}

impl Cluster {
    async fn new() -> Self {
        let dir = TreeDir::new();
        let store = dir.store();
        ensure_top_level_paths(&*store, BrokerId(1)).await.unwrap();
        Self { dir, store, links: Arc::default(), faults: Arc::default() }
    }

    /// Has a topic deleted, and waits until it is gone from the tree.
    async fn delete(&self, name: &str) {
        let admin = ClusterAdmin::new(self.store.clone());
        let name = TopicName::new(name);
        admin.mark_for_deletion(std::slice::from_ref(&name)).await.remove(0).unwrap();
        assert!(admin.await_gone(&name, Duration::from_secs(60)).await);
    }

    async fn start(&self, id: i32) -> Member {
        self.start_with(id, |_| ()).await
    }

    /// `prepare` sees the broker before anybody speaks to it.
    async fn start_with(&self, id: i32, prepare: impl FnOnce(&FakeBroker)) -> Member {
        self.start_as(id, true, prepare).await
    }

    async fn start_as(&self, id: i32, eligible: bool, prepare: impl FnOnce(&FakeBroker)) -> Member {
        self.start_over(id, eligible, prepare, async |_| ()).await
    }

    /// `befalls` comes between the registration and the controller.
    async fn start_when(&self, id: i32, befalls: impl AsyncFnOnce(&EmbeddedCoordination)) -> Member {
        self.start_over(id, true, |_| (), befalls).await
    }

    async fn start_over(
        &self,
        id: i32,
        eligible: bool,
        prepare: impl FnOnce(&FakeBroker),
        befalls: impl AsyncFnOnce(&EmbeddedCoordination),
    ) -> Member {
        let store = Arc::new(self.store.connect());
        let broker = Arc::new(FakeBroker::default());
        prepare(&broker);
        self.links.0.lock().insert(BrokerId(id), broker.clone());
        let endpoint = Endpoint {
            listener: "PLAINTEXT".into(),
            security_protocol: "PLAINTEXT".into(),
            host: "localhost".into(),
            port: 9000 + id as u16,
        };
        let clock = Arc::new(ManualClock::new(1, id as u64));
        let registrar = Arc::new(Registrar {
            store: store.clone(),
            broker: LiveBroker { id: BrokerId(id), endpoints: vec![endpoint], rack: None },
            clock: clock.clone(),
            session_timeout: Duration::from_secs(6),
            sessions: Arc::new(OwnSessions::in_memory()),
            epoch: SharedBrokerEpoch::default(),
        });
        registrar.register().await.unwrap();
        befalls(&store).await;
        let (controller, seat) = seat();
        let config = RunningConfig::new(Arc::new(defaults()));
        seat.start(ControllerParts {
            store: FaultyCoordination::under(store.clone(), Arc::clone(&self.faults)),
            registrar: registrar.clone(),
            links: self.links.clone(),
            image: broker.image.subscribe(),
            inventory: Arc::clone(&broker.inventory) as _,
            clock,
            settings: ControllerSettings {
                broker: BrokerId(id),
                eligible,
                delete_topic_enable: true,
                config: Arc::clone(&config),
            },
        });
        Member { store, broker, registrar, controller, config }
    }

    async fn create(&self, name: &str, assignment: &[&[i32]]) -> TopicId {
        let id = TopicId::from_random(u128::from(name.len() as u64) << 64 | 99).unwrap();
        let assignment = (0..)
            .zip(assignment)
            .map(|(index, ids)| (PartitionIndex(index), ids.iter().copied().map(BrokerId).collect()))
            .collect();
        let topic = NewTopic { name: name.into(), id, assignment, overrides: Overrides::new() };
        ClusterAdmin::new(self.store.clone()).create_topics(&[topic]).await.remove(0).unwrap();
        id
    }
}

impl Member {
    async fn active(&self) {
        let mut status = self.controller.subscribe();
        tokio::time::timeout(Duration::from_secs(60), status.wait_for(|status| status.active)).await.unwrap().unwrap();
    }

    async fn sees(&self, what: impl Fn(&crate::cluster::image::ClusterImage) -> bool) {
        let mut image = self.broker.image.subscribe();
        let seen = image.wait_for(|image| what(image));
        tokio::time::timeout(Duration::from_secs(60), seen).await.expect("the image never shows it").unwrap();
    }

    /// Leader and leader epoch of a partition, as this broker's image has it.
    fn leader(&self, topic: &str, partition: i32) -> Option<(Option<i32>, i32)> {
        let image = self.broker.image.current();
        let state = image.partition(topic, PartitionIndex(partition))?;
        Some((state.leader.map(|id| id.0), state.leader_epoch.0))
    }

    /// Ends as a killed process does once its session has expired.
    async fn die(self) {
        self.controller.stop().await;
        self.store.close().await;
    }

    fn id(&self) -> BrokerId {
        self.registrar.broker.id
    }

    fn isr(&self, topic: &str, partition: i32) -> Vec<i32> {
        let image = self.broker.image.current();
        let state = image.partition(topic, PartitionIndex(partition));
        state.map(|state| state.isr.iter().map(|id| id.0).collect()).unwrap_or_default()
    }

    fn stops(&self) -> Vec<StopReplica> {
        let heard = self.broker.heard.lock();
        heard.iter().filter_map(|heard| if let Heard::Stop(stop) = heard { Some(stop.clone()) } else { None }).collect()
    }

    fn roles(&self) -> Vec<LeaderAndIsr> {
        let heard = self.broker.heard.lock();
        heard
            .iter()
            .filter_map(|heard| if let Heard::Roles(roles) = heard { Some(roles.clone()) } else { None })
            .collect()
    }
}

#[tokio::test(start_paused = true)]
async fn new_topic_gets_leaders_in_one_round_and_one_request_each() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    one.active().await;
    one.sees(|image| image.controller == Some(BrokerId(1)) && image.brokers.len() == 1).await;
    let rounds = cluster.dir.rounds();
    let id = cluster.create("t", &vec![&[1_i32][..]; 1000]).await;
    one.sees(|image| image.topic("t").is_some_and(|topic| topic.partitions.len() == 1000)).await;
    assert_eq!(cluster.dir.rounds() - rounds, 2, "one for the topic, one for its partitions");
    let roles = one.roles();
    assert_eq!(roles.len(), 1);
    assert_eq!(roles[0].topics[0].1, id);
    assert!(roles[0].topics[0].2.iter().all(|state| state.is_new && state.leader_epoch == LeaderEpoch(0)));
    assert_eq!(one.leader("t", 999), Some((Some(1), 0)));
    let (data, stat) = cluster.store.get("/brokers/topics/t/partitions/7/state").await.unwrap().unwrap();
    assert_eq!(stat.version, 0);
    assert_eq!(data, r#"{"controller_epoch":1,"leader":1,"version":1,"leader_epoch":0,"isr":[1]}"#);
}

#[tokio::test(start_paused = true)]
async fn restart_alone_elects_nobody() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    cluster.create("t", &[&[1], &[1]]).await;
    one.sees(|image| image.topic("t").is_some()).await;
    one.die().await;
    let again = cluster.start(1).await;
    again.active().await;
    again.sees(|image| image.topic("t").is_some_and(|topic| topic.partitions.len() == 2)).await;
    assert_eq!(again.leader("t", 0), Some((Some(1), 0)));
    let roles = again.roles();
    assert_eq!((roles.len(), roles[0].head.controller_epoch), (1, ControllerEpoch(2)));
    assert!(roles[0].topics[0].2.iter().all(|state| !state.is_new));
}

/// A node that an earlier process of the same directory left goes all the same: it would keep others from contending.
#[tokio::test(start_paused = true)]
async fn a_broker_that_is_not_eligible_never_contends() {
    let cluster = Cluster::new().await;
    let not = cluster.start_as(1, false, |_| ()).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!not.controller.is_active());
    assert_eq!(cluster.store.get("/controller").await.unwrap(), None);
    let two = cluster.start(2).await;
    two.active().await;
    not.sees(|image| image.controller == Some(BrokerId(2))).await;
    two.die().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!not.controller.is_active());
    cluster.start(3).await.active().await;
}

#[tokio::test(start_paused = true)]
async fn lost_broker_loses_its_leaderships_and_gets_its_replicas_back() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    one.active().await;
    let two = cluster.start(2).await;
    one.sees(|image| image.brokers.len() == 2).await;
    cluster.create("t", &[&[2, 1], &[2]]).await;
    two.sees(|image| image.topic("t").is_some_and(|topic| topic.partitions.len() == 2)).await;
    assert_eq!(one.leader("t", 0), Some((Some(2), 0)));
    two.die().await;
    one.sees(|image| image.brokers.len() == 1).await;
    one.sees(|image| image.partition("t", PartitionIndex(0)).unwrap().leader == Some(BrokerId(1))).await;
    assert_eq!(one.leader("t", 0), Some((Some(1), 1)));
    one.sees(|image| image.partition("t", PartitionIndex(1)).unwrap().leader.is_none()).await;
    let again = cluster.start(2).await;
    again.sees(|image| image.partition("t", PartitionIndex(1)).is_some_and(|state| state.leader.is_some())).await;
    assert_eq!(again.leader("t", 1), Some((Some(2), 2)));
    assert_eq!(again.leader("t", 0), Some((Some(1), 1)), "the leader that took over stays");
}

#[tokio::test(start_paused = true)]
async fn other_broker_takes_over_when_the_controller_dies() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    one.active().await;
    let two = cluster.start(2).await;
    cluster.create("t", &[&[1, 2]]).await;
    two.sees(|image| image.topic("t").is_some()).await;
    assert!(!two.controller.is_active());
    let refused = two.controller.allocate_producer_ids(BrokerId(2), two.registrar.epoch.get()).await;
    assert_eq!(refused, Err(ControllerError::NotController));
    one.die().await;
    two.active().await;
    two.sees(|image| image.partition("t", PartitionIndex(0)).unwrap().leader == Some(BrokerId(2))).await;
    assert_eq!(two.broker.image.current().controller_epoch, Some(ControllerEpoch(2)));
    assert_eq!(two.leader("t", 0), Some((Some(2), 1)));
}

#[tokio::test(start_paused = true)]
async fn expired_session_is_followed_by_a_registration_and_an_election() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    cluster.create("t", &[&[1]]).await;
    one.sees(|image| image.topic("t").is_some()).await;
    let before = one.registrar.epoch.get();
    one.store.expire().await;
    one.sees(|image| image.controller_epoch == Some(ControllerEpoch(2))).await;
    one.active().await;
    assert!(one.registrar.epoch.get() > before);
    assert_eq!(one.leader("t", 0), Some((Some(1), 0)), "its leader was live at every look");
    cluster.create("later", &[&[1]]).await;
    one.sees(|image| image.topic("later").is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn deposed_controller_writes_nothing() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    one.active().await;
    // Somebody raises the epoch while the old controller does not know it yet.
    cluster.store.set("/controller_epoch", Bytes::from_static(b"7"), -1).await.unwrap();
    cluster.create("t", &[&[1]]).await;
    one.sees(|image| image.topic("t").is_some()).await;
    let (data, _) = cluster.store.get("/brokers/topics/t/partitions/0/state").await.unwrap().unwrap();
    let state = partition_state::decode("p", &data).unwrap();
    assert_eq!(state.controller_epoch, ControllerEpoch(8), "written by the next term, not by the fenced one");
}

/// The controller's own attempt to give its node up was refused, and woke its watch all the same: it contended again
/// without a pause, thirty thousand times in three seconds.
#[tokio::test(start_paused = true)]
async fn a_disk_without_space_is_not_asked_without_a_pause() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    one.active().await;
    cluster.dir.fail_with_full();
    let refused = one.controller.allocate_producer_ids(BrokerId(1), one.registrar.epoch.get()).await;
    assert!(matches!(refused, Err(ControllerError::Unavailable(_))), "{refused:?}");
    for _ in 0..5_000 {
        tokio::task::yield_now().await;
    }
    let at_once = cluster.dir.refusals();
    assert!((1..20).contains(&at_once), "{at_once}");
    tokio::time::sleep(Duration::from_secs(30)).await;
    let later = cluster.dir.refusals();
    assert!((at_once + 1..60).contains(&later), "{later}");
    cluster.dir.heal();
    one.active().await;
}

#[tokio::test(start_paused = true)]
async fn failed_log_directory_takes_its_replicas_offline() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    one.active().await;
    *one.broker.refuses.lock() = Some(ControlError::Storage("gone".into()));
    cluster.create("t", &[&[1]]).await;
    one.sees(|image| image.partition("t", PartitionIndex(0)).is_some_and(|state| state.leader.is_none())).await;
    *one.broker.refuses.lock() = None;
    let event = Bytes::from_static(br#"{"version":1,"broker":1,"event":1}"#);
    let path = "/log_dir_event_notification/log_dir_event_";
    cluster.store.create(path, event, CreateMode::PersistentSequential).await.unwrap();
    one.sees(|image| image.partition("t", PartitionIndex(0)).is_some_and(|state| state.leader.is_some())).await;
}

/// Without space a log cannot be made. Nobody told the controller when there was some.
#[tokio::test(start_paused = true)]
async fn replicas_that_a_disk_refused_are_asked_for_again() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    one.active().await;
    let lead = |image: &crate::cluster::image::ClusterImage| {
        image.partition("t", PartitionIndex(0)).map(|state| state.leader.is_some())
    };
    *one.broker.refuses.lock() = Some(ControlError::Storage("no space".into()));
    cluster.create("t", &[&[1]]).await;
    one.sees(|image| lead(image) == Some(false)).await;
    let before = one.roles().len();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let asked = one.roles().len() - before;
    assert!((50..70).contains(&asked), "each time after a longer pause, of a minute at last: {asked}");
    *one.broker.refuses.lock() = None;
    one.sees(|image| lead(image) == Some(true)).await;
    let before = one.roles().len();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(one.roles().len(), before, "all is well");
}

#[tokio::test(start_paused = true)]
async fn producer_ids_come_in_blocks_that_never_repeat() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    one.active().await;
    assert_eq!(one.controller.allocate_producer_ids(BrokerId(1), one.registrar.epoch.get()).await, Ok(1000..2000));
    assert_eq!(one.controller.allocate_producer_ids(BrokerId(1), one.registrar.epoch.get()).await, Ok(2000..3000));
    let stranger = one.controller.allocate_producer_ids(BrokerId(9), one.registrar.epoch.get()).await;
    assert_eq!(stranger, Err(ControllerError::BrokerIdNotRegistered));
    for other in [-1, 0, one.registrar.epoch.get().0 - 1, one.registrar.epoch.get().0 + 1] {
        let stale = one.controller.allocate_producer_ids(BrokerId(1), BrokerEpoch(other)).await;
        assert_eq!(stale, Err(ControllerError::StaleBrokerEpoch), "{other}");
    }
    one.die().await;
    let again = cluster.start(1).await;
    again.active().await;
    assert_eq!(again.controller.allocate_producer_ids(BrokerId(1), again.registrar.epoch.get()).await, Ok(3000..4000));
}

#[tokio::test(start_paused = true)]
async fn metadata_reaches_a_broker_before_its_roles() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    cluster.create("t", &[&[1]]).await;
    one.sees(|image| image.topic("t").is_some()).await;
    assert!(matches!(one.broker.heard.lock()[0], Heard::Metadata), "I-15");
}

/// Sends a broker its roles again, as a log directory that came or went does.
async fn send_again(cluster: &Cluster, broker: i32) {
    let event = format!(r#"{{"version":1,"broker":{broker},"event":1}}"#);
    let path = "/log_dir_event_notification/log_dir_event_";
    cluster.store.create(path, event.into(), CreateMode::PersistentSequential).await.unwrap();
}

/// C3: any answer but a storage error brought a failed replica back.
#[tokio::test(start_paused = true)]
async fn c3_only_success_brings_a_failed_replica_back() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    one.active().await;
    *one.broker.refuses.lock() = Some(ControlError::Storage("gone".into()));
    cluster.create("t", &[&[1]]).await;
    let leader = |one: &Member| one.leader("t", 0).and_then(|(leader, _)| leader);
    one.sees(|image| image.partition("t", PartitionIndex(0)).is_some_and(|state| state.leader.is_none())).await;
    let here = TopicId::from_random(3 << 64 | 7).unwrap();
    for refusal in [
        ControlError::StaleControllerEpoch,
        ControlError::UnknownPartition,
        ControlError::InconsistentTopicId { here },
        ControlError::EndLost,
    ] {
        let heard = one.roles().len();
        *one.broker.refuses.lock() = Some(refusal.clone());
        send_again(&cluster, 1).await;
        while one.roles().len() == heard {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The clock stands still but for this: whatever follows from the answer has been done.
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(leader(&one), None, "{refusal:?}");
    }
    *one.broker.refuses.lock() = None;
    send_again(&cluster, 1).await;
    one.sees(|image| image.partition("t", PartitionIndex(0)).is_some_and(|state| state.leader.is_some())).await;
}

/// P10: a refusal that says nothing of the disk takes no replica offline.
#[tokio::test(start_paused = true)]
async fn p10_a_refused_role_is_no_failed_directory() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    one.active().await;
    *one.broker.refuses.lock() = Some(ControlError::UnknownPartition);
    cluster.create("t", &[&[1]]).await;
    one.sees(|image| image.partition("t", PartitionIndex(0)).is_some()).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(one.leader("t", 0), Some((Some(1), 0)));
}

/// Row 15: what the broker leads alone gets another epoch, once, when it says that the end of the log may be lost.
#[tokio::test(start_paused = true)]
async fn a_log_that_may_have_lost_its_end_is_led_under_another_epoch() {
    let cluster = Cluster::new().await;
    let one = cluster.start(1).await;
    cluster.create("t", &[&[1], &[1]]).await;
    one.sees(|image| image.topic("t").is_some()).await;
    one.die().await;
    let again = cluster.start_with(1, |broker| *broker.ends_lost_below.lock() = LeaderEpoch(1)).await;
    again
        .sees(|image| {
            image
                .topic("t")
                .is_some_and(|topic| topic.partitions.values().all(|state| state.leader_epoch == LeaderEpoch(1)))
        })
        .await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(again.leader("t", 1), Some((Some(1), 1)));
    let (data, stat) = cluster.store.get("/brokers/topics/t/partitions/0/state").await.unwrap().unwrap();
    assert_eq!(partition_state::decode("p", &data).unwrap().leader_epoch, LeaderEpoch(1));
    assert_eq!(stat.version, 1, "it rose once");
}
