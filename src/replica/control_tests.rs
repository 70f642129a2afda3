//! Control requests as a broker obeys them, over directories in memory: what is refused, what is opened, made and
//! deleted, and that one partition's fate is no other's. Rows P3 to P14 are those of the cluster's plan.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::Mutex;

use super::control::{LeadershipListener, ReplicaControl};
use super::manager::{ReplicaConfig, ReplicaDir, ReplicaManager, WantedReplica};
use super::partition::{AckAt, AppendRefused};
use super::testing::{self, ME};
use crate::clock::testing::ManualClock;
use crate::cluster::control::{
    BrokerLink, ControlError, ControlHead, LeaderAndIsr, LogInventory, PartitionState, StopPartition, StopReplica,
};
use crate::cluster::dynamic_config::DynamicConfig;
use crate::cluster::image::ImagePublisher;
use crate::cluster::registration::{SharedBrokerEpoch, ensure_top_level_paths};
use crate::cluster::znodes::config::{self, Entity, Overrides};
use crate::coordination::embedded::testing::TreeDir;
use crate::coordination::testing::{Access, Fate, Faults as StoreFaults, FaultyCoordination, Rule};
use crate::coordination::{Coordination, CreateMode};
use crate::log::config::LogConfig;
use crate::log::reading::tail::Tail;
use crate::record::BatchBuilder;
use crate::storage::testing::faulty::{self as disk, Faults, FaultyDir, Operation};
use crate::storage::testing::memory::MemoryDir;
use crate::storage::{self, InDoubt, LogDir, LogEndState, PartitionId, SharedLogDir, Write, WriteSet, keys};
use crate::types::{
    BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, Offset, PartitionEpoch, PartitionIndex, TopicId, TopicName,
    TopicPartition,
};

/// What coordinators were told.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<String>>);

impl LeadershipListener for Told {
    fn on_leading(&self, topic: &TopicName, partition: PartitionIndex, epoch: LeaderEpoch) {
        self.0.lock().push(format!("{topic}-{partition} led under {epoch}"));
    }
    fn on_resigned(&self, topic: &TopicName, partition: PartitionIndex) {
        self.0.lock().push(format!("{topic}-{partition} resigned"));
    }
    fn on_topics_deleted(&self, _: &[TopicName]) {}
}

/// A broker's end of the channel over two directories.
struct Bench {
    disks: [Arc<MemoryDir>; 2],
    faults: [Arc<Faults>; 2],
    dirs: [SharedLogDir; 2],
    replicas: Arc<ReplicaManager>,
    control: Arc<ReplicaControl>,
    settings: Arc<DynamicConfig>,
    store_faults: Arc<StoreFaults>,
    told: Arc<Told>,
}

impl Bench {
    async fn start(disks: [Arc<MemoryDir>; 2], may_lack_ends: bool) -> Self {
        let faulty = disks.clone().map(|disk| FaultyDir::around(disk));
        let faults = [Arc::clone(&faulty[0].1), Arc::clone(&faulty[1].1)];
        let dirs: [SharedLogDir; 2] = faulty.map(|(dir, _)| dir as SharedLogDir);
        let for_replicas = dirs
            .iter()
            .map(|dir| ReplicaDir { dir: Arc::clone(dir), tail: Tail::new(0), may_lack_ends, configured: None })
            .collect();
        let clock = Arc::new(ManualClock::new(1, 1));
        let config = |_: &TopicName| ReplicaConfig { log: LogConfig::default(), min_insync_replicas: 1 };
        let replicas = ReplicaManager::new(testing::alone(ME, Arc::clone(&clock) as _), for_replicas, Arc::new(config))
            .expect("readable");
        let store = TreeDir::new().store();
        ensure_top_level_paths(&*store, ME).await.expect("made");
        let retention = Overrides::from([("retention.ms".to_owned(), "-1".to_owned())]);
        let path = Entity::Topic("kept".into()).path();
        store.create(&path, config::encode(&retention), CreateMode::Persistent).await.expect("made");
        let store_faults = Arc::new(StoreFaults::default());
        let store = FaultyCoordination::under(store, Arc::clone(&store_faults));
        let settings = DynamicConfig::start(store, ME, Arc::clone(&clock) as _).await.expect("started");
        let told = Arc::new(Told::default());
        let (image, epoch) = (Arc::new(ImagePublisher::default()), SharedBrokerEpoch::default());
        let fetchers = testing::no_fetchers(Arc::clone(&clock) as _, epoch.clone());
        let (listener, shared) = (Arc::clone(&told) as _, Arc::clone(&settings));
        let control = ReplicaControl::new(Arc::clone(&replicas), image, fetchers, shared, listener, epoch);
        Self { disks, faults, dirs, replicas, control, settings, store_faults, told }
    }

    async fn new() -> Self {
        Self::start([MemoryDir::open(), MemoryDir::open()], false).await
    }

    /// As after a kill.
    fn doubts_an_end(&self) -> bool {
        self.replicas.logs_in_doubt().iter().any(|in_doubt| !in_doubt.ends.is_empty())
    }

    async fn restart(self, may_lack_ends: bool) -> Self {
        Self::start(self.disks.map(|disk| disk.reopen()), may_lack_ends).await
    }

    async fn roles(&self, roles: &[(&PartitionId, PartitionState)]) -> Vec<Result<(), ControlError>> {
        let topics = roles.iter().map(|(id, state)| (id.topic.clone(), id.topic_id, vec![state.clone()])).collect();
        let answers = self.control.leader_and_isr(LeaderAndIsr { head: head(), topics }).await.expect("admitted");
        let of = |id: &PartitionId| {
            let mut own =
                answers.iter().filter(|(topic, partition, _)| *topic == id.topic && *partition == id.partition);
            let (.., result) = own.next().expect("an answer for each");
            result.clone()
        };
        assert_eq!(answers.len(), roles.len());
        roles.iter().map(|(id, _)| of(id)).collect()
    }

    async fn role(&self, id: &PartitionId, state: PartitionState) -> Result<(), ControlError> {
        self.roles(&[(id, state)]).await.remove(0)
    }

    async fn stop(&self, id: &PartitionId, epoch: Option<i32>, delete: bool) -> Result<(), ControlError> {
        let leader_epoch = epoch.map(LeaderEpoch);
        let stop = StopPartition { topic: id.topic.clone(), partition: id.partition, leader_epoch, delete };
        let request = StopReplica { head: head(), partitions: vec![stop] };
        self.control.stop_replica(request).await.expect("admitted").remove(0).2
    }

    fn produce(&self, id: &PartitionId) {
        testing::append(&self.replicas.get(id.topic.as_str(), id.partition).expect("open"), 1);
    }

    fn end(&self, id: &PartitionId) -> Offset {
        self.replicas.get(id.topic.as_str(), id.partition).expect("open").view().log_end_offset
    }

    fn leads(&self, id: &PartitionId) -> bool {
        self.replicas.get(id.topic.as_str(), id.partition).is_some_and(|partition| partition.view().leading)
    }

    /// Names of the logs in a directory.
    fn lie_in(&self, at: usize) -> Vec<String> {
        let mut names: Vec<_> = self.dirs[at].partitions().into_iter().map(|(id, _)| id.topic.to_string()).collect();
        names.sort();
        names
    }
}

fn head() -> ControlHead {
    ControlHead { controller: ME, controller_epoch: ControllerEpoch(1), broker_epoch: BrokerEpoch::NONE }
}

fn id(topic: &str, number: u128) -> PartitionId {
    let topic_id = TopicId::from_random(number << 64 | 7).expect("a legal id");
    PartitionId { topic: topic.into(), topic_id, partition: PartitionIndex(0) }
}

/// This broker leads alone.
fn led(epoch: i32) -> PartitionState {
    PartitionState {
        partition: PartitionIndex(0),
        controller_epoch: ControllerEpoch(1),
        leader: Some(ME),
        leader_epoch: LeaderEpoch(epoch),
        isr: vec![ME],
        partition_epoch: PartitionEpoch(epoch),
        replicas: vec![ME],
        adding: vec![],
        removing: vec![],
        recovery: Default::default(),
        offline_replicas: Vec::new(),
        is_new: false,
    }
}

fn new() -> PartitionState {
    PartitionState { is_new: true, ..led(0) }
}

/// Writes a log's start as a side record: rubbish, or 0 as it should be.
async fn put_start(dir: &SharedLogDir, id: &PartitionId, damaged: bool) {
    let value = if damaged { Bytes::from_static(&[9]) } else { Bytes::from_static(&[1, 0, 0, 0, 0, 0, 0, 0, 0]) };
    let key = keys::side(id.topic_id, id.partition, 0x80, b"start");
    let set = WriteSet { writes: vec![Write::Side { key, value }], sync: false };
    storage::commit(&**dir, set).await.expect("written");
}

/// Nobody read the settings of a new topic again that could not be read once: one that keeps its records for ever lost
/// them after a week, and one with two copies took a single one for enough.
#[tokio::test]
async fn settings_of_a_new_topic_that_could_not_be_read_are_read_later() {
    let (bench, kept) = (Bench::new().await, id("kept", 1));
    bench.settings.forget_topics(&["kept".into()]);
    let path = Entity::Topic("kept".into()).path();
    let lost = bench.store_faults.script(Rule::new(Fate::LoseRequest, Access::Read, &path).times(2));
    assert_eq!(bench.role(&kept, new()).await, Ok(()), "it is led all the same");
    assert!(bench.settings.topic("kept").is_empty());
    let deadline = Instant::now() + Duration::from_secs(60);
    while bench.settings.topic("kept").is_empty() {
        assert!(Instant::now() < deadline, "struck {} times", bench.store_faults.met(lost));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(bench.store_faults.met(lost), 2);
}

/// One damaged log took every partition of the request offline, and a retry made it anew, empty, in another directory.
#[tokio::test]
async fn a_log_that_cannot_be_opened_is_offline_by_itself_and_stays_where_it_was_found() {
    let (bad, good, fresh) = (id("bad", 1), id("good", 2), id("fresh", 3));
    let disks = [MemoryDir::open(), MemoryDir::open()];
    disks[1].create(&[bad.clone(), good.clone()]).expect("made");
    let bench = Bench::start(disks, false).await;
    put_start(&bench.dirs[1], &bad, true).await;
    for _ in 0..2 {
        let answers = bench.roles(&[(&bad, led(0)), (&good, led(0)), (&fresh, new())]).await;
        assert!(matches!(answers[0], Err(ControlError::Storage(_))), "{answers:?}");
        assert!(bench.leads(&good) && bench.leads(&fresh), "all others serve");
        assert!(
            bench.replicas.is_offline("bad", PartitionIndex(0))
                && !bench.replicas.is_offline("good", PartitionIndex(0))
        );
        assert_eq!((bench.lie_in(0), bench.lie_in(1)), (vec!["fresh".into()], vec!["bad".into(), "good".into()]));
    }
    put_start(&bench.dirs[1], &bad, false).await;
    assert_eq!(bench.role(&bad, led(0)).await, Ok(()), "a later request tries again");
    assert!(bench.leads(&bad) && !bench.replicas.is_offline("bad", PartitionIndex(0)));
    assert_eq!((bench.lie_in(0), bench.lie_in(1)), (vec!["fresh".into()], vec!["bad".into(), "good".into()]));
}

/// It answered that it was back as soon as it was to lead no more, and was elected and failed again for ever.
#[tokio::test]
async fn a_partition_of_a_failed_directory_stays_offline_whatever_its_role() {
    let (bench, t) = (Bench::new().await, id("t", 1));
    assert_eq!(bench.role(&t, new()).await, Ok(()));
    bench.faults.iter().for_each(|faults| faults.fail_commit(0));
    assert!(matches!(bench.role(&t, led(1)).await, Err(ControlError::Storage(_))));
    let answer = bench.role(&t, PartitionState { leader: None, ..led(2) }).await;
    assert!(matches!(answer, Err(ControlError::Storage(_))), "{answer:?}");
    assert!(!bench.leads(&t));
}

/// P12: a failed directory fails the partitions that lie there and no others, and none of them is made elsewhere.
#[tokio::test]
async fn p12_a_failed_directory_fails_its_own_partitions_alone() {
    let (there, here) = (id("there", 1), id("here", 2));
    let disks = [MemoryDir::open(), MemoryDir::open()];
    disks[0].create(std::slice::from_ref(&there)).expect("made");
    disks[1].create(std::slice::from_ref(&here)).expect("made");
    let bench = Bench::start(disks, false).await;
    bench.faults[0].fail_commit(0);
    assert!(storage::commit(&*bench.dirs[0], WriteSet::default()).await.is_err());
    let fresh: Vec<PartitionId> = (10..20).map(|number| id(&format!("fresh-{number}"), number)).collect();
    let mut asked = vec![(&there, led(0)), (&here, led(0))];
    asked.extend(fresh.iter().map(|id| (id, new())));
    let answers = bench.roles(&asked).await;
    assert!(matches!(answers[0], Err(ControlError::Storage(_))), "{answers:?}");
    assert!(answers[1..].iter().all(Result::is_ok), "{answers:?}");
    assert_eq!((bench.lie_in(0), bench.lie_in(1).len()), (vec!["there".into()], 11));
    assert!(bench.replicas.is_offline("there", PartitionIndex(0)));
}

/// P3: a later leader epoch in an older version of the state changes nothing.
#[tokio::test]
async fn p3_a_role_of_an_older_partition_epoch_is_ignored() {
    let (bench, t) = (Bench::new().await, id("t", 1));
    assert_eq!(bench.role(&t, PartitionState { partition_epoch: PartitionEpoch(5), ..new() }).await, Ok(()));
    let older = PartitionState { leader: Some(BrokerId(2)), partition_epoch: PartitionEpoch(4), ..led(1) };
    assert_eq!(bench.role(&t, older).await, Ok(()), "no error, as in Kafka");
    let role = bench.replicas.get("t", PartitionIndex(0)).expect("open").role();
    assert_eq!((role.leader, role.leader_epoch), (Some(ME), LeaderEpoch(0)));
    assert_eq!(bench.role(&t, PartitionState { partition_epoch: PartitionEpoch(5), ..led(1) }).await, Ok(()));
    assert_eq!(bench.role(&t, led(1)).await, Err(ControlError::StaleControllerEpoch), "known already");
}

/// P5: a replica that was stopped and not deleted takes the next role; it was closed for ever.
#[tokio::test]
async fn p5_a_stopped_replica_takes_the_next_role() {
    let (bench, t) = (Bench::new().await, id("t", 1));
    assert_eq!(bench.role(&t, new()).await, Ok(()));
    bench.produce(&t);
    assert_eq!(bench.stop(&t, Some(0), false).await, Ok(()));
    let partition = bench.replicas.get("t", PartitionIndex(0)).expect("still there");
    let mut batch = BatchBuilder::new();
    batch.append(0, None, Some(b"v"));
    let (completion, _acked) = super::ack::Completion::new(1);
    let ack = AckAt::Written(super::ack::Ack::new(&completion, 0));
    assert!(matches!(partition.append(batch.finish(), ack, None, None, 0), Err(AppendRefused::NotLeader)));
    assert_eq!(bench.role(&t, led(0)).await, Ok(()), "also under the epoch it had");
    bench.produce(&t);
    assert_eq!(bench.end(&t), Offset(2));
}

/// P10: no storage error, by which the controller would take the directory for failed.
#[tokio::test]
async fn p10_a_broker_that_is_not_among_the_replicas_knows_no_such_partition() {
    let (bench, t) = (Bench::new().await, id("t", 1));
    let elsewhere = PartitionState { replicas: vec![BrokerId(2)], leader: Some(BrokerId(2)), ..new() };
    assert_eq!(bench.role(&t, elsewhere).await, Err(ControlError::UnknownPartition));
    assert_eq!((bench.lie_in(0), bench.lie_in(1)), (vec![], vec![]));
}

/// P11: the log of the topic that had the name before was deleted for a role of another one.
#[tokio::test]
async fn p11_a_role_of_another_topic_id_is_refused_and_deletes_nothing() {
    let (bench, old, anew) = (Bench::new().await, id("t", 1), id("t", 2));
    assert_eq!(bench.role(&old, new()).await, Ok(()));
    bench.produce(&old);
    let refused = Err(ControlError::InconsistentTopicId { here: old.topic_id });
    assert_eq!(bench.role(&anew, PartitionState { is_new: true, ..led(7) }).await, refused);
    assert!(bench.leads(&old));
    assert_eq!(bench.end(&old), Offset(1));
    // After a restart the old log is a stray, and the new one is another log.
    let bench = bench.restart(false).await;
    assert_eq!(bench.replicas.topic_id(&"t".into()), Some(old.topic_id));
    assert_eq!(bench.role(&anew, new()).await, Ok(()));
    assert_eq!((bench.end(&anew), bench.replicas.topic_id(&"t".into())), (Offset(0), Some(anew.topic_id)));
    assert_eq!(bench.lie_in(0).len() + bench.lie_in(1).len(), 2);
    bench.produce(&anew);
    bench.replicas.close();
    let bench = bench.restart(false).await;
    assert_eq!(bench.role(&old, led(0)).await, Ok(()));
    assert_eq!(bench.end(&old), Offset(1), "whoever gets its id back gets its records back");
}

/// P13: StopReplica of a log that no role has opened left it on disk and said it was gone. One that cannot be deleted
/// stays, and is deleted by the next try.
#[tokio::test]
async fn p13_deleting_reaches_logs_that_are_not_open() {
    let (bench, t, other) = (Bench::new().await, id("t", 1), id("other", 2));
    assert_eq!(bench.roles(&[(&t, new()), (&other, new())]).await, [Ok(()), Ok(())]);
    let bench = bench.restart(false).await;
    let at = usize::from(bench.lie_in(1).contains(&"t".into()));
    bench.faults[at].fail_commit(0);
    assert!(storage::commit(&*bench.dirs[at], WriteSet::default()).await.is_err());
    assert!(matches!(bench.stop(&t, None, true).await, Err(ControlError::Storage(_))));
    assert!(bench.lie_in(at).contains(&"t".into()));
    let bench = bench.restart(false).await;
    assert_eq!(bench.stop(&t, None, true).await, Ok(()));
    assert_eq!([bench.lie_in(0), bench.lie_in(1)].concat(), ["other"]);
    assert_eq!(bench.stop(&t, None, true).await, Ok(()), "twice is once");
}

/// A deletion that failed said so once; a repeated one then claimed success, with the log still there.
#[tokio::test]
async fn an_open_log_that_cannot_be_deleted_is_offline_until_it_can() {
    let (bench, t) = (Bench::new().await, id("t", 1));
    assert_eq!(bench.role(&t, new()).await, Ok(()));
    bench.faults[0].fail_commit(0);
    for _ in 0..2 {
        assert!(matches!(bench.stop(&t, None, true).await, Err(ControlError::Storage(_))));
        assert!(bench.replicas.is_offline("t", PartitionIndex(0)));
        assert_eq!(bench.lie_in(0), ["t"]);
    }
}

/// Followers that asked meanwhile were told of a disk that failed, and their logs said so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_being_deleted_is_gone_and_not_offline() {
    let (bench, t) = (Bench::new().await, id("t", 1));
    assert_eq!(bench.role(&t, new()).await, Ok(()));
    let held = bench.faults[0].script(disk::Rule::new(disk::Fate::Wait, &[Operation::Commit]));
    let watch = async {
        while bench.replicas.get("t", PartitionIndex(0)).is_some() {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let offline = bench.replicas.is_offline("t", PartitionIndex(0));
        bench.faults[0].lift(held);
        offline
    };
    assert_eq!(tokio::join!(bench.stop(&t, None, true), watch), (Ok(()), false));
    assert!(bench.lie_in(0).is_empty());
}

/// P14: coordinators resign for a deletion alone; a lower leader epoch stops nothing, none stops always.
#[tokio::test]
async fn p14_only_a_deletion_makes_a_coordinator_resign() {
    let (bench, t) = (Bench::new().await, id("__consumer_offsets", 1));
    assert_eq!(bench.role(&t, PartitionState { is_new: true, ..led(3) }).await, Ok(()));
    assert_eq!(bench.stop(&t, Some(2), true).await, Err(ControlError::FencedLeaderEpoch));
    assert_eq!(bench.stop(&t, Some(2), false).await, Err(ControlError::FencedLeaderEpoch));
    assert!(bench.leads(&t));
    assert_eq!(bench.stop(&t, Some(3), false).await, Ok(()));
    assert_eq!(bench.role(&t, led(4)).await, Ok(()));
    assert_eq!(bench.role(&t, led(5)).await, Ok(()));
    assert_eq!(bench.stop(&t, None, true).await, Ok(()));
    // The next leadership tells that there was a gap; a later epoch of the same one has none.
    let told = ["resigned", "led under 3", "resigned", "led under 4", "led under 5", "resigned"];
    assert_eq!(*bench.told.0.lock(), told.map(|what| format!("__consumer_offsets-0 {what}")));
}

/// A controller in Java that has seen a broker go and come gives new epochs by itself, and takes a refusal for a failed
/// directory; so what is new is not refused.
#[tokio::test]
async fn a_log_that_may_have_lost_its_end_leads_at_once_if_its_epoch_is_known_to_be_new() {
    let (bench, t) = (Bench::new().await, id("t", 1));
    assert_eq!(bench.role(&t, new()).await, Ok(()));
    for (before, offered, taken) in
        [(3, 3, Err(ControlError::EndLost)), (3, 4, Ok(())), (5, 4, Err(ControlError::EndLost))]
    {
        let bench = Bench::start(bench.disks.clone().map(|disk| disk.reopen()), true).await;
        bench.replicas.know_epochs(vec![(TopicPartition::new("t", 0), LeaderEpoch(before))]);
        assert_eq!(bench.role(&t, led(offered)).await, taken, "{before} before, {offered} offered");
        assert_eq!((bench.leads(&t), bench.replicas.in_doubt()), (taken.is_ok(), usize::from(taken.is_err())));
    }
}

/// A log that may have lost its end does not lead under an epoch in which it may have been longer: a reader beyond its
/// new end would miss what comes after.
#[tokio::test]
async fn a_log_that_may_have_lost_its_end_leads_under_a_new_epoch_alone() {
    let (bench, t) = (Bench::new().await, id("t", 1));
    assert_eq!(bench.role(&t, new()).await, Ok(()));
    bench.produce(&t);
    let bench = bench.restart(false).await;
    assert_eq!(bench.role(&t, led(0)).await, Ok(()), "a kill loses nothing");
    let bench = bench.restart(true).await;
    assert!(bench.doubts_an_end(), "it may not be forgotten before it is open");
    let opened = bench.replicas.open(&[WantedReplica { id: t.clone(), is_new: false }]).remove(0).expect("opened");
    assert!(bench.doubts_an_end() && opened.is_in_doubt(), "nor before it has a role");
    for _ in 0..2 {
        assert_eq!(bench.role(&t, led(0)).await, Err(ControlError::EndLost));
        assert_eq!((bench.leads(&t), bench.replicas.in_doubt()), (false, 1));
        assert!(bench.doubts_an_end(), "it is open, and asks for an epoch");
    }
    assert_eq!(bench.role(&t, led(1)).await, Ok(()));
    assert_eq!((bench.leads(&t), bench.replicas.in_doubt()), (true, 0));
    assert!(!bench.doubts_an_end());
    let partition = bench.replicas.get("t", PartitionIndex(0)).expect("open");
    let end = partition.with_log(|log| log.end_offset_for_epoch(LeaderEpoch(0)));
    assert_eq!(end, Some((LeaderEpoch(0), Offset(1))), "where the old epoch ended is what clients ask");
}

/// A directory whose boot was never noted again because of a log that stays refused took damage in all others for
/// their ends.
#[tokio::test]
async fn a_log_that_is_refused_does_not_count_for_its_directory_and_one_that_lacks_files_does() {
    let (bench, t) = (Bench::new().await, id("t", 1));
    assert_eq!(bench.role(&t, new()).await, Ok(()));
    let again = async |end, may_lack_ends| {
        let disks = bench.disks.clone().map(|disk| disk.reopen());
        disks.iter().for_each(|disk| disk.set_end(end));
        Bench::start(disks, may_lack_ends).await
    };
    assert!(!again(LogEndState::Refused, true).await.doubts_an_end());
    let bench = again(LogEndState::Uncut, false).await;
    let of = (t.topic_id, t.partition);
    assert_eq!(bench.replicas.logs_in_doubt()[0], InDoubt { ends: [of].into(), uncut: [of].into() });
    let bench = again(LogEndState::MayBeLost, false).await;
    assert_eq!(bench.replicas.logs_in_doubt()[0], InDoubt { ends: [of].into(), uncut: BTreeSet::new() });
    assert_eq!(bench.role(&t, led(0)).await, Err(ControlError::EndLost));
    assert_eq!(bench.role(&t, led(1)).await, Ok(()));
}

/// The same where opening the log notices that it was longer, and where a log that should be there is not.
#[tokio::test]
async fn a_cut_that_recovery_noticed_or_a_log_that_is_missing_asks_for_a_new_epoch() {
    let (bench, t, lost) = (Bench::new().await, id("t", 1), id("lost", 2));
    assert_eq!(bench.roles(&[(&t, new()), (&lost, new())]).await, [Ok(()), Ok(())]);
    bench.produce(&t);
    bench.produce(&t);
    bench.replicas.close();
    let (_, family) = bench.disks[0].partitions().remove(0);
    let at = usize::from(!bench.lie_in(0).contains(&"t".into()));
    assert_eq!(at, 0, "the first goes to the first directory");
    let cut = WriteSet { writes: vec![Write::DeleteBatch { family, last_offset: Offset(1) }], sync: false };
    storage::commit(&*bench.disks[0], cut).await.expect("written");
    bench.disks[1].delete(std::slice::from_ref(&lost)).expect("deleted");
    let bench = bench.restart(false).await;
    let answers = bench.roles(&[(&t, led(0)), (&lost, led(0))]).await;
    assert_eq!(answers, [Err(ControlError::EndLost), Err(ControlError::EndLost)]);
    // Nobody has been told: an orderly stop and a start must find it again.
    bench.replicas.close();
    let bench = bench.restart(false).await;
    assert_eq!(bench.role(&t, led(0)).await, Err(ControlError::EndLost));
    assert_eq!(bench.role(&t, led(1)).await, Ok(()));
    let bench = bench.restart(false).await;
    assert_eq!(bench.role(&t, led(1)).await, Ok(()), "once");
}
