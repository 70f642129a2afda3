//! Partitions that move between log directories while they are used: nothing that was acknowledged is lost or doubled,
//! whatever is killed or fails at whichever write.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::ack::{Ack, AckError, Acked, Completion};
use super::alter_log_dirs::AlterLogDirError;
use super::delete_records::delete_records;
use super::maintenance::Cleaner;
use super::manager::{ReplicaConfig, ReplicaDir, ReplicaManager, WantedReplica};
use super::partition::{AckAt, Partition};
use super::testing::{self, ME, role, take};
use crate::clock::testing::ManualClock;
use crate::log::config::LogConfig;
use crate::log::reading::tail::Tail;
use crate::log::testing::expect_same;
use crate::record::{BatchBuilder, BatchHeader, ValidBatch, for_each_record, stamp};
use crate::storage::testing::faulty::{Fate, Faults, FaultyDir, Operation, Rule};
use crate::storage::testing::memory::MemoryDir;
use crate::storage::{LogDir, PartitionId, SharedLogDir};
use crate::types::{
    LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicId, TopicPartition, TransactionMarker,
    TransactionResult,
};

const DIRS: usize = 3;
const TAIL_BYTES: usize = 1 << 20;

/// The replicas of a broker with three directories, `/0` to `/2`.
struct Bench {
    disks: [Arc<MemoryDir>; DIRS],
    faults: [Arc<Faults>; DIRS],
    dirs: [SharedLogDir; DIRS],
    replicas: Arc<ReplicaManager>,
}

fn path(at: usize) -> PathBuf {
    PathBuf::from(format!("/{at}"))
}

fn id() -> PartitionId {
    let topic_id = TopicId::from_random(1 << 64 | 7).expect("a legal id");
    PartitionId { topic: "t".into(), topic_id, partition: PartitionIndex(0) }
}

fn name() -> TopicPartition {
    TopicPartition::new("t", 0)
}

impl Bench {
    fn over(disks: [Arc<MemoryDir>; DIRS]) -> Self {
        // Some segments in a few batches.
        Self::with(disks, LogConfig { segment_bytes: 1000, ..LogConfig::default() })
    }

    fn with(disks: [Arc<MemoryDir>; DIRS], log: LogConfig) -> Self {
        let faults: [Arc<Faults>; DIRS] = Default::default();
        let mut at = 0;
        let dirs = disks.each_ref().map(|disk| {
            let dir = FaultyDir::under(Arc::clone(disk) as _, path(at), Arc::clone(&faults[at]));
            at += 1;
            dir as SharedLogDir
        });
        let of_replicas = dirs.iter().map(|dir| ReplicaDir {
            dir: Arc::clone(dir),
            tail: Tail::new(TAIL_BYTES),
            may_lack_ends: false,
            configured: None,
        });
        let config_of = Arc::new(move |_: &_| ReplicaConfig { log, min_insync_replicas: 1 });
        let around = testing::alone(ME, Arc::new(ManualClock::new(0, 1)));
        let replicas = ReplicaManager::new(around, of_replicas.collect(), config_of).expect("readable");
        Self { disks, faults, dirs, replicas }
    }

    fn new() -> Self {
        Self::over([(); DIRS].map(|()| MemoryDir::open()))
    }

    /// As a kill in this moment leaves it.
    fn killed(&self) -> Self {
        Self::over(self.disks.each_ref().map(|disk| disk.killed()))
    }

    fn partition(&self) -> Arc<Partition> {
        self.replicas.open(&[WantedReplica { id: id(), is_new: true }]).remove(0).expect("opens")
    }

    /// The partition, led under this epoch.
    fn led(&self, epoch: i32) -> Arc<Partition> {
        let partition = self.partition();
        take(&partition, role(ME.0, epoch));
        partition
    }

    fn alter(&self, to: usize) -> Result<(), AlterLogDirError> {
        self.replicas.alter_log_dir(&name(), &path(to))
    }

    /// Does so many steps of all that is to be done.
    fn step(&self, times: usize) {
        for at in (0..times).flat_map(|_| 0..DIRS) {
            self.replicas.step_moves(at);
        }
    }

    /// Where there is a log of the partition on the disks.
    fn lies_in(&self) -> Vec<usize> {
        (0..DIRS).filter(|&at| self.disks[at].partitions().iter().any(|(of, _)| *of == id())).collect()
    }

    /// Marks on the disks.
    fn marks(&self) -> usize {
        self.dirs.iter().map(|dir| super::marks::read(&**dir).expect("readable").len()).sum()
    }

    /// Directory, offset lag and whether it is a future log, of each log that is told.
    fn told(&self) -> Vec<(usize, i64, bool)> {
        let dirs = self.replicas.describe_log_dirs(|_, _| true).into_iter().enumerate();
        let logs = dirs
            .flat_map(|(at, dir)| dir.contents.map_or(Vec::new(), |it| it.logs).into_iter().map(move |log| (at, log)));
        logs.map(|(at, log)| (at, log.offset_lag, log.is_future)).collect()
    }
}

/// Values in the order in which they were sent, and the offsets at which they were acknowledged.
#[derive(Default)]
struct Sent {
    next: i64,
    waiting: Vec<(i64, Offset, Acked)>,
    acknowledged: BTreeMap<Offset, i64>,
}

impl Sent {
    fn send(&mut self, partition: &Arc<Partition>) -> bool {
        let mut builder = BatchBuilder::new();
        let value = self.next;
        self.next += 1;
        builder.append(value, Some(&value.to_be_bytes()), Some(&[b'v'; 100]));
        let (completion, acked) = Completion::new(1);
        let ack = AckAt::HighWatermark(Ack::new(&completion, 0));
        match partition.append(builder.finish(), ack, None, None, 0) {
            Ok(accepted) => {
                self.waiting.push((value, accepted.appended.base_offset, acked));
                true
            }
            Err(_) => false,
        }
    }

    /// Takes in the outcomes that are known.
    fn look(&mut self) -> usize {
        let mut refused = 0;
        self.waiting.retain_mut(|(value, offset, acked)| match acked.try_all() {
            None => true,
            Some(outcomes) => {
                match &outcomes[0] {
                    Ok(()) => assert_eq!(self.acknowledged.insert(*offset, *value), None, "an offset is given once"),
                    Err(_) => refused += 1,
                }
                false
            }
        });
        refused
    }

    fn wait(&mut self) -> usize {
        let mut refused = 0;
        while !self.waiting.is_empty() {
            refused += self.look();
            std::thread::yield_now();
        }
        refused
    }

    /// All that was acknowledged is in the log where it was, and nothing is there twice.
    fn check(&self, partition: &Arc<Partition>, context: &str) {
        let found = values(partition);
        for (offset, value) in &self.acknowledged {
            assert_eq!(found.get(offset), Some(value), "{context}: {offset} of {found:?}");
        }
        let mut all: Vec<i64> = found.values().copied().collect();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), found.len(), "{context}: doubled, {found:?}");
        let view = partition.view();
        assert_eq!(found.len() as i64, view.log_end_offset.0 - view.log_start_offset.0, "{context}: no gaps");
    }
}

/// Values by offset, from storage and from memory alike.
fn values(partition: &Partition) -> BTreeMap<Offset, i64> {
    let view = partition.view();
    let (start, end) = (view.log_start_offset, view.log_end_offset);
    let (mut found, mut from) = (BTreeMap::new(), start);
    while from < end {
        let read = partition.reader().read(from, end, usize::MAX, true).expect("readable");
        assert!(!read.batches.is_empty(), "a reader comes to the end: {from} of {view:?}");
        for batch in &read.batches {
            let walked = for_each_record(batch, usize::MAX, |record| {
                if record.offset >= start {
                    let key = record.key.expect("a key");
                    found.insert(record.offset, i64::from_be_bytes(key.try_into().expect("eight bytes")));
                }
                std::ops::ControlFlow::Continue(())
            });
            walked.expect("whole");
        }
        from = read.end;
    }
    found
}

#[test]
fn a_log_moves_while_it_is_written_to_and_what_was_left_goes() {
    let bench = Bench::new();
    let (partition, mut sent) = (bench.led(1), Sent::default());
    (0..50).for_each(|_| assert!(sent.send(&partition)));
    assert_eq!(sent.wait(), 0);
    let (before, high_watermark) = (partition.facts(), partition.view().high_watermark);
    let from = partition.home().at;
    bench.alter(2).expect("begins");
    assert_eq!(bench.told(), [(from, 0, false), (2, 50, true)]);
    assert_eq!((bench.lies_in(), bench.marks()), (vec![from, 2], 2));
    // What is being written while the place is taken is acknowledged all the same.
    let held = bench.faults[from].script(Rule::new(Fate::Wait, &[Operation::Commit]));
    (0..5).for_each(|_| assert!(sent.send(&partition)));
    while partition.home().at != 2 {
        bench.replicas.step_moves(2);
    }
    assert_eq!(sent.wait(), 0, "by the new directory alone");
    assert!(sent.send(&partition));
    sent.wait();
    assert_eq!(partition.view().high_watermark, high_watermark + 6);
    bench.faults[from].lift(held);
    bench.step(10);
    assert_eq!((bench.told(), bench.lies_in(), bench.marks()), (vec![(2, 0, false)], vec![2], 1));
    sent.check(&partition, "moved");
    assert_eq!(sent.acknowledged.len(), 56);
    let after = partition.facts();
    let part = |facts: &crate::log::testing::Facts, of| facts.iter().find(|(name, _)| *name == of).unwrap().1.clone();
    assert_eq!(part(&before, "epochs"), part(&after, "epochs"));
    let bench = bench.killed();
    let partition = bench.led(1);
    assert_eq!(partition.home().at, 2);
    sent.check(&partition, "after a kill");
    // There and back, and on.
    for to in [0, 2, 1, 0] {
        bench.alter(to).expect("begins");
        assert!(sent.send(&partition));
        bench.step(20);
        sent.wait();
        assert_eq!((partition.home().at, bench.lies_in()), (to, vec![to]));
        sent.check(&partition, "again");
    }
    assert_eq!(bench.marks(), 1);
}

/// The disk as it was before each write that a move makes, in either directory.
#[test]
fn a_kill_at_any_write_leaves_one_log_with_all_that_was_acknowledged() {
    // Logs are opened anew in the background.
    let runtime = tokio::runtime::Runtime::new().expect("starts");
    let _entered = runtime.enter();
    let mut struck = 0;
    for fate in [Fate::Stop, Fate::Full] {
        for failing in 0..2 {
            for operations in
                [&[Operation::Commit][..], &[Operation::Create], &[Operation::Delete], &[Operation::Settle]]
            {
                for n in 0.. {
                    let rule = Rule::new(fate, operations).after(n).times(1);
                    if !kill_at(failing, rule, &format!("{fate:?} of {operations:?} {n} in {failing}")) {
                        break;
                    }
                    struck += 1;
                }
            }
        }
    }
    assert!(struck > 25, "{struck}");
}

/// Moves from directory 0 to 1 under a fault. `false`: the rule struck nothing.
fn kill_at(failing: usize, rule: Rule, context: &str) -> bool {
    let bench = Bench::new();
    let (partition, mut sent) = (bench.led(1), Sent::default());
    assert_eq!(partition.home().at, 0);
    (0..20).for_each(|_| assert!(sent.send(&partition)));
    sent.wait();
    let rule = bench.faults[failing].script(rule);
    drop(bench.alter(1));
    for _ in 0..8 {
        sent.send(&partition);
        bench.step(1);
        sent.look();
        // Killed here, whether something has failed or not.
        let copy = bench.killed();
        sent.look();
        let acknowledged = sent.acknowledged.clone();
        drop(acknowledged);
        finish(&copy, None, context);
    }
    sent.wait();
    let met = bench.faults[failing].met(rule) > 0;
    let there = bench.lies_in();
    assert!(!there.is_empty(), "{context}: {there:?}");
    finish(&bench.killed(), Some(&mut sent), context);
    met
}

/// Starts on what is there, and has it move to the end.
fn finish(bench: &Bench, sent: Option<&mut Sent>, context: &str) {
    let partition = bench.led(2);
    let mut none = Sent::default();
    let sent = match sent {
        Some(sent) => sent,
        None => {
            none.next = 1000;
            &mut none
        }
    };
    sent.check(&partition, context);
    // What was not acknowledged may be there: its offset is taken.
    (0..5).for_each(|_| assert!(sent.send(&partition), "{context}"));
    assert_eq!(sent.wait(), 0, "{context}");
    bench.alter(1).expect("begins, or is there");
    (0..5).for_each(|_| assert!(sent.send(&partition), "{context}"));
    bench.step(50);
    assert_eq!(sent.wait(), 0, "{context}");
    sent.check(&partition, context);
    assert_eq!((partition.home().at, bench.lies_in()), (1, vec![1]), "{context}");
    let again = bench.killed();
    sent.check(&again.led(3), context);
    assert_eq!(again.lies_in(), [1], "{context}");
}

#[test]
fn a_write_that_fails_as_the_place_is_taken_leaves_the_log_where_it_was() {
    // Logs are opened anew in the background.
    let runtime = tokio::runtime::Runtime::new().expect("starts");
    let _entered = runtime.enter();
    for fate in [Fate::Full, Fate::Stop] {
        let bench = Bench::new();
        let (partition, mut sent) = (bench.led(1), Sent::default());
        (0..10).for_each(|_| assert!(sent.send(&partition)));
        sent.wait();
        bench.alter(1).expect("begins");
        // The copy's batches, and then the set that takes the place.
        let held = bench.faults[0].script(Rule::new(Fate::Wait, &[Operation::Commit]));
        (0..3).for_each(|_| assert!(sent.send(&partition)));
        bench.faults[1].script(Rule::new(fate, &[Operation::CommitSync]).times(1));
        let faults = Arc::clone(&bench.faults[0]);
        let lifting = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            faults.lift(held);
        });
        bench.step(1);
        lifting.join().expect("no panic");
        assert_eq!(partition.home().at, 0, "{fate:?}");
        assert_eq!(sent.wait(), 3, "{fate:?}: they are refused, for nothing says that they are there");
        // Appends go on as soon as what was refused is taken back.
        let deadline = std::time::Instant::now() + Duration::from_secs(60);
        while !sent.send(&partition) {
            assert!(std::time::Instant::now() < deadline);
            std::thread::yield_now();
        }
        assert_eq!(sent.wait(), 0);
        sent.check(&partition, "not moved");
        sent.check(&bench.killed().led(2), "after a kill");
        if fate == Fate::Full {
            bench.step(20);
            assert_eq!((partition.home().at, bench.lies_in()), (1, vec![1]), "it is tried again");
            sent.check(&partition, "moved at last");
        } else {
            assert!(bench.alter(2).is_err(), "no log moves while a directory has failed");
        }
    }
}

#[test]
fn a_directory_without_space_has_the_move_wait() {
    // Logs are opened anew in the background.
    let runtime = tokio::runtime::Runtime::new().expect("starts");
    let _entered = runtime.enter();
    let bench = Bench::new();
    let (partition, mut sent) = (bench.led(1), Sent::default());
    (0..10).for_each(|_| assert!(sent.send(&partition)));
    sent.wait();
    bench.faults[1].set_full(true);
    bench.alter(1).expect("begins");
    bench.step(5);
    assert!(sent.send(&partition));
    assert_eq!((sent.wait(), partition.home().at), (0, 0), "the log itself is in use");
    bench.faults[1].set_full(false);
    bench.step(20);
    assert_eq!((partition.home().at, bench.lies_in()), (1, vec![1]));
    sent.check(&partition, "moved");
}

#[test]
fn a_log_does_not_move_from_or_to_a_directory_that_fails() {
    // Logs are opened anew in the background.
    let runtime = tokio::runtime::Runtime::new().expect("starts");
    let _entered = runtime.enter();
    for failing in [0, 1] {
        let bench = Bench::new();
        let (partition, mut sent) = (bench.led(1), Sent::default());
        (0..10).for_each(|_| assert!(sent.send(&partition)));
        sent.wait();
        bench.alter(1).expect("begins");
        bench.faults[failing].fail_commit(0);
        let _ = crate::storage::barrier(&*bench.dirs[failing]);
        bench.replicas.on_dir_failed(&path(failing), &"injected".into());
        bench.step(5);
        assert_eq!((partition.home().at, bench.told().len()), (0, 1 - usize::from(failing == 0)));
        assert_eq!(sent.send(&partition), failing == 1);
        sent.wait();
        let bench = bench.killed();
        let partition = bench.led(2);
        assert_eq!((partition.home().at, bench.lies_in()), (0, vec![0, 1]));
        bench.step(20);
        assert_eq!((partition.home().at, bench.lies_in()), (1, vec![1]), "it goes on at the next start");
        sent.check(&partition, "moved");
    }
}

/// A follower's log, as its leader has it.
fn fetched(from: i64, count: i64, epoch: i32, value: i64) -> Vec<Bytes> {
    let batch = |at: i64| {
        let mut builder = BatchBuilder::new();
        builder.append(0, Some(&(value + at).to_be_bytes()), Some(b"v"));
        let mut batch = builder.finish();
        stamp(&mut batch, Offset(at), LeaderEpoch(epoch), None);
        batch.bytes.freeze()
    };
    (from..from + count).map(batch).collect()
}

fn follow(partition: &Arc<Partition>, epoch: i32, records: Vec<Bytes>) {
    let replicated = partition.append_fetched(LeaderEpoch(epoch), records, 0).expect("follows");
    drop(replicated.unwritten);
    replicated.written.wait().expect("written");
    assert!(replicated.refused.is_none());
}

#[test]
fn a_followers_log_is_cut_and_moves_and_both_end_alike() {
    // Logs are opened anew in the background.
    let runtime = tokio::runtime::Runtime::new().expect("starts");
    let _entered = runtime.enter();
    for cut in [0, 5, 25] {
        let bench = Bench::new();
        let partition = bench.partition();
        take(&partition, role(2, 1));
        follow(&partition, 1, fetched(0, 20, 1, 0));
        bench.alter(1).expect("begins");
        // One step copies, and offers the place, which is refused while nothing is kept.
        let held = bench.faults[1].script(Rule::new(Fate::Full, &[Operation::CommitSync]));
        bench.step(1);
        take(&partition, role(3, 2));
        follow(&partition, 2, fetched(20, 10, 2, 0));
        bench.step(1);
        take(&partition, role(2, 3));
        assert_eq!(partition.truncate_to(Offset(cut), 0).expect("cut"), Offset(cut));
        follow(&partition, 3, fetched(cut, 40 - cut, 3, 1000));
        bench.faults[1].lift(held);
        bench.step(50);
        assert_eq!((partition.home().at, bench.lies_in()), (1, vec![1]), "{cut}");
        let found = values(&partition);
        assert_eq!(found.len(), 40, "{cut}");
        for (offset, value) in found {
            assert_eq!(value, if offset.0 < cut { offset.0 } else { offset.0 + 1000 }, "{cut}");
        }
        assert_eq!(partition.latest_epoch(), Some(LeaderEpoch(3)));
        assert_eq!(partition.with_log(|log| log.epoch_at(Offset(cut))), Some(LeaderEpoch(3)), "{cut}");
    }
}

#[test]
fn records_that_are_deleted_meanwhile_do_not_come_back() {
    let bench = Bench::new();
    let (partition, mut sent) = (bench.led(1), Sent::default());
    (0..30).for_each(|_| assert!(sent.send(&partition)));
    sent.wait();
    let delete = |to| delete_records(&partition, Some(Offset(to)), 0).expect("deleted").written().expect("written");
    delete(7);
    bench.alter(1).expect("begins");
    delete(12);
    bench.step(1);
    delete(20);
    assert!(sent.send(&partition));
    sent.wait();
    bench.step(30);
    assert_eq!((partition.home().at, bench.lies_in()), (1, vec![1]));
    let view = partition.view();
    assert_eq!((view.log_start_offset, view.log_end_offset), (Offset(20), Offset(31)));
    assert_eq!(values(&partition).keys().next(), Some(&Offset(20)));
    let partition = bench.killed().led(2);
    assert_eq!(partition.view().log_start_offset, Offset(20));
    // All of it.
    let bench = bench.killed();
    let partition = bench.led(2);
    delete_records(&partition, None, 0).expect("deleted").written().expect("written");
    bench.alter(0).expect("begins");
    bench.step(10);
    let view = partition.view();
    assert_eq!((partition.home().at, view.log_start_offset, view.log_end_offset), (0, Offset(31), Offset(31)));
    assert!(sent.send(&partition));
    assert_eq!(sent.wait(), 0);
    assert_eq!(values(&bench.killed().led(3)).keys().collect::<Vec<_>>(), [&Offset(31)]);
}

fn data(producer: i64, sequence: i32, transactional: bool) -> ValidBatch {
    let builder = BatchBuilder::new().producer(ProducerId(producer), ProducerEpoch(0), sequence);
    let mut builder = if transactional { builder.transactional() } else { builder };
    builder.append(0, Some(&0_i64.to_be_bytes()), Some(b"v"));
    builder.finish()
}

fn put(partition: &Arc<Partition>, batch: ValidBatch) -> Result<Offset, String> {
    let (completion, acked) = Completion::new(1);
    let guard = (batch.header.is_transactional())
        .then(|| partition.begin_verification(batch.header.producer_id, batch.header.producer_epoch))
        .flatten();
    let ack = AckAt::HighWatermark(Ack::new(&completion, 0));
    let accepted = partition.append(batch, ack, None, guard, 0).map_err(|error| error.to_string())?;
    let offset = accepted.appended.base_offset;
    drop(accepted);
    let outcome: Vec<Result<(), AckError>> = acked.wait();
    outcome.into_iter().for_each(|outcome| outcome.expect("written"));
    Ok(offset)
}

fn end(partition: &Arc<Partition>, producer: i64, result: TransactionResult) {
    let marker = TransactionMarker {
        producer_id: ProducerId(producer),
        producer_epoch: ProducerEpoch(0),
        coordinator_epoch: 0,
        result,
    };
    let (completion, acked) = Completion::new(1);
    let ack = AckAt::HighWatermark(Ack::new(&completion, 0));
    drop(partition.append_marker(&marker, ack, None, 0).expect("accepted"));
    acked.wait().into_iter().for_each(|outcome| outcome.expect("written"));
}

#[test]
fn producers_and_transactions_move_with_the_log() {
    let bench = Bench::new();
    let partition = bench.led(1);
    // One whose batches are deleted, one that aborted over the log start, one that is open, one that committed.
    for sequence in 0..3 {
        put(&partition, data(1, sequence, false)).expect("accepted");
    }
    put(&partition, data(2, 0, true)).expect("accepted");
    put(&partition, data(4, 0, true)).expect("accepted");
    delete_records(&partition, Some(Offset(4)), 0).expect("deleted").written().expect("written");
    end(&partition, 2, TransactionResult::Abort);
    end(&partition, 4, TransactionResult::Commit);
    put(&partition, data(3, 0, true)).expect("accepted");
    take(&partition, role(ME.0, 5));
    let before = partition.facts();
    bench.alter(1).expect("begins");
    bench.step(20);
    assert_eq!(partition.home().at, 1);
    // Each replica rolls its own segments.
    let comparable = |facts: crate::log::testing::Facts| -> crate::log::testing::Facts {
        facts.into_iter().filter(|(part, _)| !["segments", "size"].contains(part)).collect()
    };
    let before = comparable(before);
    expect_same(&comparable(partition.facts()), &before, "moved");
    assert_eq!(partition.latest_epoch(), Some(LeaderEpoch(5)), "a term without a batch");
    let stable = partition.view().last_stable_offset;
    assert_eq!(stable, Offset(7), "the open transaction");
    let bench = bench.killed();
    let partition = bench.led(5);
    assert_eq!(put(&partition, data(1, 2, false)), Ok(Offset(2)), "a duplicate of what is deleted");
    assert!(put(&partition, data(1, 5, false)).is_err(), "a gap");
    assert_eq!(partition.view().last_stable_offset, stable);
    let aborted = partition.reader().aborted_transactions(Offset(4), Offset(8)).expect("known");
    assert_eq!(aborted.len(), 1);
    end(&partition, 3, TransactionResult::Abort);
    assert_eq!(partition.view().last_stable_offset, Offset(9));
}

#[test]
fn a_topic_that_is_deleted_meanwhile_leaves_nothing() {
    for steps in 0..6 {
        let bench = Bench::new();
        let (partition, mut sent) = (bench.led(1), Sent::default());
        (0..10).for_each(|_| assert!(sent.send(&partition)));
        sent.wait();
        bench.alter(1).expect("begins");
        bench.step(steps);
        drop(partition);
        let outcome = bench.replicas.delete(&[("t".into(), PartitionIndex(0))]);
        assert!(outcome.iter().all(Result::is_ok));
        assert_eq!((bench.lies_in(), bench.marks(), bench.told()), (vec![], 0, vec![]), "{steps}");
        bench.step(5);
        let partition = bench.led(1);
        assert_eq!((partition.view().log_end_offset, bench.lies_in().len()), (Offset(0), 1));
    }
}

#[test]
fn another_directory_ends_a_move_and_its_own_does_nothing_else() {
    let bench = Bench::new();
    let (partition, mut sent) = (bench.led(1), Sent::default());
    (0..10).for_each(|_| assert!(sent.send(&partition)));
    sent.wait();
    bench.alter(0).expect("there already");
    assert_eq!((bench.lies_in(), bench.marks()), (vec![0], 0));
    bench.alter(1).expect("begins");
    bench.alter(1).expect("is under way");
    bench.alter(2).expect("begins anew");
    assert_eq!((bench.lies_in(), bench.marks()), (vec![0, 2], 2));
    bench.alter(0).expect("ends");
    assert_eq!((bench.lies_in(), bench.marks(), bench.told().len()), (vec![0], 1, 1));
    bench.alter(2).expect("begins");
    bench.step(20);
    assert_eq!((partition.home().at, bench.lies_in()), (2, vec![2]));
    sent.check(&partition, "moved");
    let unknown = bench.replicas.alter_log_dir(&name(), Path::new("/9"));
    assert!(matches!(unknown, Err(AlterLogDirError::NoSuchDir(_))));
}

#[test]
fn a_directory_is_chosen_before_the_partition_comes() {
    let bench = Bench::new();
    assert!(matches!(bench.alter(1), Err(AlterLogDirError::NotHere)));
    assert!(matches!(bench.alter(2), Err(AlterLogDirError::NotHere)));
    assert_eq!(bench.led(1).home().at, 2, "the last one counts");
    assert!(bench.replicas.delete(&[("t".into(), PartitionIndex(0))]).remove(0).is_ok());
    assert_eq!(bench.led(1).home().at, 0, "once");
}

#[test]
fn what_is_read_of_a_log_that_was_left_is_read_to_the_end() {
    let bench = Bench::new();
    let (partition, mut sent) = (bench.led(1), Sent::default());
    (0..10).for_each(|_| assert!(sent.send(&partition)));
    sent.wait();
    let reader = partition.reader();
    bench.alter(1).expect("begins");
    bench.step(20);
    assert_eq!((partition.home().at, bench.lies_in()), (1, vec![0, 1]), "it waits for the reader");
    assert_eq!(reader.read(Offset(0), Offset(10), usize::MAX, true).expect("readable").end, Offset(10));
    drop(reader);
    bench.step(5);
    assert_eq!(bench.lies_in(), [1]);
}

/// A compaction that looked before would write with the family of the log that was left.
#[test]
fn a_compaction_that_began_before_writes_nothing_to_the_new_log() {
    let config = LogConfig {
        compact: true,
        delete: false,
        segment_bytes: 1,
        min_cleanable_dirty_ratio: 0.0,
        ..LogConfig::default()
    };
    let disks = [(); DIRS].map(|()| MemoryDir::open());
    // Another log has the number there that this one has where it is.
    let other = PartitionId { topic: "other".into(), ..id() };
    let family = disks[1].create(std::slice::from_ref(&other)).expect("made")[0];
    let bench = Bench::with(disks, config);
    let partition = bench.led(1);
    assert_eq!((partition.home().at, partition.home().family), (0, family));
    let put = |count| {
        for _ in 0..count {
            let mut builder = BatchBuilder::new();
            builder.append(0, Some(&7_i64.to_be_bytes()), Some(b"v"));
            let ack = AckAt::Written(Ack::new(&Completion::new(1).0, 0));
            drop(partition.append(builder.finish(), ack, None, None, 0).expect("accepted"));
            partition.wait_for_writes().expect("written");
        }
    };
    put(10);
    let second_pass = bench.faults[0].script(Rule::new(Fate::Wait, &[Operation::Scan]).after(1).times(1));
    let mut cleaner = Cleaner::new(Arc::clone(&bench.replicas), Arc::new(ManualClock::new(1_000_000, 1)));
    let cleaning = std::thread::spawn(move || {
        cleaner.clean_dirtiest(Duration::ZERO);
        cleaner
    });
    while bench.faults[0].met(second_pass) == 0 {
        std::thread::yield_now();
    }
    // What there is to be copied is in memory.
    bench.alter(1).expect("begins");
    while partition.home().at != 1 {
        bench.replicas.step_moves(1);
    }
    bench.faults[0].lift(second_pass);
    let mut cleaner = cleaning.join().expect("no panic");
    bench.step(5);
    let count = || {
        let read = partition.reader().read(Offset(0), Offset(10), usize::MAX, true).expect("readable");
        read.batches.len()
    };
    assert_eq!((count(), bench.lies_in()), (10, vec![1]));
    let mut foreign = 0;
    let mut visit = |_, _: crate::storage::Visited<'_>| {
        foreign += 1;
        std::ops::ControlFlow::Continue(())
    };
    bench.disks[1].scan(family, Offset(0), 0, &mut visit).expect("readable");
    assert_eq!(foreign, 0, "the other log");
    while cleaner.clean_dirtiest(Duration::ZERO) {}
    assert_eq!(partition.view().log_end_offset, Offset(10));
    partition.wait_for_writes().expect("written");
    let stored = bench.killed().led(2);
    assert_eq!(stored.reader().read(Offset(0), Offset(10), usize::MAX, true).expect("readable").batches.len(), 2);
}

/// Each append is synced before it is acknowledged, so none may go, whenever the power does.
#[test]
fn a_loss_of_power_at_any_step_takes_nothing_that_was_synced() {
    let config = LogConfig { flush_messages: 1, ..LogConfig::default() };
    let bench = Bench::with([(); DIRS].map(|()| MemoryDir::open()), config);
    let (partition, mut sent) = (bench.led(1), Sent::default());
    let without_power = |bench: &Bench| Bench::with(bench.disks.each_ref().map(|disk| disk.after_power_loss()), config);
    (0..20).for_each(|_| assert!(sent.send(&partition)));
    assert_eq!(sent.wait(), 0);
    for to in [1, 2, 0] {
        bench.alter(to).expect("begins");
        for step in 0..12 {
            assert!(sent.send(&partition));
            assert_eq!(sent.wait(), 0);
            let context = format!("before step {step} to {to}");
            let left = without_power(&bench);
            sent.check(&left.led(2), &context);
            let again = without_power(&left);
            sent.check(&again.led(3), &context);
            bench.replicas.step_moves(step % DIRS);
        }
        bench.step(10);
        assert_eq!((partition.home().at, bench.lies_in()), (to, vec![to]));
        sent.check(&without_power(&bench).led(2), "moved");
    }
}

#[test]
fn a_start_with_two_logs_that_count_is_refused() {
    let disks = [(); DIRS].map(|()| MemoryDir::open());
    for disk in &disks[..2] {
        disk.create(&[id()]).expect("made");
    }
    let dirs = disks.iter().enumerate().map(|(at, disk)| ReplicaDir {
        dir: FaultyDir::under(Arc::clone(disk) as _, path(at), Arc::default()),
        tail: Tail::new(0),
        may_lack_ends: false,
        configured: None,
    });
    let config_of = Arc::new(|_: &_| ReplicaConfig { log: LogConfig::default(), min_insync_replicas: 1 });
    let around = testing::alone(ME, Arc::new(ManualClock::new(0, 1)));
    let refused = ReplicaManager::new(around, dirs.collect(), config_of).expect_err("two");
    assert!(refused.to_string().contains("t-0 has a log in another log directory, too"), "{refused}");
}

/// The headers say what they said: offsets, terms and producers of a copy are those of the log.
#[test]
fn a_copy_has_the_same_bytes() {
    let bench = Bench::new();
    let (partition, mut sent) = (bench.led(4), Sent::default());
    (0..10).for_each(|_| assert!(sent.send(&partition)));
    sent.wait();
    let bytes = || partition.reader().read(Offset(0), Offset(10), usize::MAX, true).expect("readable").batches;
    let before = bytes();
    bench.alter(1).expect("begins");
    bench.step(20);
    assert_eq!(partition.home().at, 1);
    assert_eq!(bytes(), before);
    assert_eq!(BatchHeader::parse(&before[0]).expect("a header").partition_leader_epoch, LeaderEpoch(4));
}
