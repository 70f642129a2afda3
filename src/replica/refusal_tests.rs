//! Writes beside the appends that are refused for want of space, or fail: of the cleaner, of retention, of a new epoch,
//! of a log that is opened anew. Whoever asked must not go on as if they had been written.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::ack::{Ack, AckError, Completion};
use super::change::{ChangeError, Changed};
use super::maintenance::{Cleaner, retain_all};
use super::manager::{ReplicaConfig, ReplicaDir, ReplicaManager, WantedReplica};
use super::partition::{AckAt, AppendRefused, Partition};
use super::testing;
use crate::clock::SharedClock;
use crate::clock::testing::ManualClock;
use crate::log::config::LogConfig;
use crate::log::partition_log::PartitionLog;
use crate::log::reading::tail::Tail;
use crate::metrics::UNCLEANABLE_PARTITIONS;
use crate::record::{BatchBuilder, for_each_record};
use crate::storage::testing::faulty::{Faults, FaultyDir};
use crate::storage::testing::memory::MemoryDir;
use crate::storage::{LogDir, PartitionId, SharedLogDir, StorageError, barrier};
use crate::types::{BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicId};

const PAUSE: Duration = Duration::from_secs(15);

/// The replicas of one topic over a directory whose faults the test commands.
struct Bench {
    disk: Arc<MemoryDir>,
    dir: Arc<FaultyDir>,
    faults: Arc<Faults>,
    clock: Arc<ManualClock>,
    replicas: Arc<ReplicaManager>,
    partitions: Vec<Arc<Partition>>,
}

impl Bench {
    fn new(config: LogConfig, partitions: i32) -> Self {
        Self::over(MemoryDir::open(), config, partitions)
    }

    fn over(disk: Arc<MemoryDir>, config: LogConfig, partitions: i32) -> Self {
        let (dir, faults) = FaultyDir::around(Arc::clone(&disk) as SharedLogDir);
        let clock = Arc::new(ManualClock::new(1_000_000, 1));
        let config_of = Arc::new(move |_: &_| ReplicaConfig { log: config, min_insync_replicas: 1 });
        let (logs, tail) = (Arc::clone(&dir) as SharedLogDir, Tail::new(1 << 20));
        let dirs = vec![ReplicaDir { dir: logs, tail, may_lack_ends: false, configured: None }];
        let replicas =
            ReplicaManager::new(testing::alone(BrokerId(1), Arc::clone(&clock) as SharedClock), dirs, config_of);
        let replicas = replicas.expect("readable");
        let wanted: Vec<_> = (0..partitions).map(|index| WantedReplica { id: id(index), is_new: true }).collect();
        let partitions: Vec<_> = replicas.open(&wanted).into_iter().map(|opened| opened.expect("opened")).collect();
        for partition in &partitions {
            testing::take(partition, testing::role(1, 0));
        }
        Self { disk, dir, faults, clock, replicas, partitions }
    }

    /// As after a kill.
    fn restarted(self, config: LogConfig) -> Self {
        let count = self.partitions.len() as i32;
        self.disk.close();
        Self::over(self.disk.reopen(), config, count)
    }

    fn cleaner(&self) -> Cleaner {
        Cleaner::new(Arc::clone(&self.replicas), Arc::clone(&self.clock) as SharedClock)
    }

    fn shared_clock(&self) -> SharedClock {
        Arc::clone(&self.clock) as SharedClock
    }

    /// Appends one record in a batch of its own and waits for it.
    fn put(&self, partition: usize, key: &str, value: Option<&[u8]>) -> Result<(), AckError> {
        self.put_all(partition, &[(key, value)])
    }

    /// Appends a batch and waits for it.
    fn put_all(&self, partition: usize, records: &[(&str, Option<&[u8]>)]) -> Result<(), AckError> {
        let mut builder = BatchBuilder::new();
        for (key, value) in records {
            builder.append(1_000_000, Some(key.as_bytes()), *value);
        }
        let (completion, acked) = Completion::new(1);
        let ack = AckAt::HighWatermark(Ack::new(&completion, 0));
        drop(self.partitions[partition].append(builder.finish(), ack, None, None, 1_000_000).expect("accepted"));
        acked.wait().remove(0)
    }

    /// Closes the active segment.
    fn roll(&self, partition: usize) {
        self.partitions[partition]
            .change_log(|log, _, writes| log.roll(1_000_000, writes))
            .expect("sound")
            .written()
            .expect("written");
    }

    /// What a consumer that reads from the start knows in the end: keys and the first byte of their values.
    fn folded(&self, partition: usize) -> BTreeMap<String, u8> {
        let partition = &self.partitions[partition];
        let mut state = BTreeMap::new();
        let upto = partition.view().log_end_offset;
        partition
            .reader()
            .visit_headers(Offset::ZERO, upto, |_, _, batch| {
                for_each_record(batch, usize::MAX, |record| {
                    let key = String::from_utf8(record.key.expect("keyed").to_vec()).expect("text");
                    match record.value {
                        Some(value) => drop(state.insert(key, value[0])),
                        None => drop(state.remove(&key)),
                    }
                    ControlFlow::Continue(())
                })
                .expect("a good batch");
                ControlFlow::Continue(())
            })
            .expect("readable");
        state
    }
}

fn id(partition: i32) -> PartitionId {
    let topic_id = TopicId::from_random(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef).expect("a legal id");
    PartitionId { topic: "t".into(), topic_id, partition: PartitionIndex(partition) }
}

/// The only replica.
fn compacted() -> LogConfig {
    LogConfig {
        compact: true,
        delete: false,
        segment_bytes: 64 << 20,
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: 1000,
        ..LogConfig::default()
    }
}

/// Runs the cleaner until it finds nothing worth it.
fn clean_all(cleaner: &mut Cleaner) {
    while cleaner.clean_dirtiest(PAUSE) {}
}

/// The cleaner's writes were refused at the disk's reserve, "cleaned up to X" was written all the same, the tombstone's
/// time came, and the value it had deleted could be read again.
#[test]
fn a_deleted_key_does_not_come_back_when_the_cleaner_meets_a_full_disk() {
    for refusals in [1, 2] {
        let bench = Bench::new(compacted(), 1);
        let large = vec![b'L'; 600 << 10];
        // Two steps of a job: the old value lies in the first, in a batch that is written anew without it; what deletes
        // it lies in the second.
        bench.put_all(0, &[("a", Some(b"old")), ("z", Some(b"x"))]).expect("written");
        for key in ["b", "c", "d", "b", "c"] {
            bench.put(0, key, Some(&large)).expect("written");
        }
        bench.put(0, "a", None).expect("written");
        bench.put(0, "e", Some(b"x")).expect("written");
        bench.roll(0);
        let expected: BTreeMap<_, _> =
            [("b", b'L'), ("c", b'L'), ("d", b'L'), ("e", b'x'), ("z", b'x')].map(|(k, v)| (k.to_owned(), v)).into();
        let mut cleaner = bench.cleaner();
        for _ in 0..refusals {
            bench.faults.refuse_any(1);
            clean_all(&mut cleaner);
            assert_eq!(bench.folded(0), expected);
            // Until the refused set's `Done` has returned, those behind it are refused as well.
            barrier(&*bench.dir).expect("not stopped");
            bench.clock.advance(20 * 60 * 1000);
        }
        for _ in 0..3 {
            clean_all(&mut cleaner);
            assert_eq!(bench.folded(0), expected, "after {refusals} refusals");
            bench.clock.advance(20 * 60 * 1000);
        }
        let bench = bench.restarted(compacted());
        assert_eq!(bench.folded(0), expected);
        assert!(bench.partitions[0].with_log(|log| log.compaction_urgency(9, Offset(9))).is_none(), "all is clean");
    }
}

/// The most urgent log could not be read: it was picked, failed, and was picked again, while all others waited.
#[test]
fn a_log_that_cannot_be_compacted_is_set_aside_and_the_others_go_on() {
    const BROKEN: usize = 2;
    let bench = Bench::new(compacted(), 3);
    let dirty = |partition: usize, values: usize| {
        for value in 0..values {
            bench.put(partition, "k", Some(&[b'0' + value as u8])).expect("written");
        }
        bench.roll(partition);
    };
    dirty(0, 2);
    // As urgent as the other, and met after it; later more urgent than any.
    dirty(BROKEN, 3);
    bench.faults.fail_reads_of(Some(bench.partitions[BROKEN].home().family));
    let cleaned = |partition: usize| {
        let now = bench.partitions[partition].view();
        bench.partitions[partition].with_log(|log| log.compaction_urgency(1_000_000, now.last_stable_offset)).is_none()
    };
    let mut cleaner = bench.cleaner();
    clean_all(&mut cleaner);
    assert_eq!((cleaned(BROKEN), cleaned(0)), (false, true));
    assert_eq!(cleaner.uncleanable(), 1);
    // Other tests of this process may have some, too.
    assert!(UNCLEANABLE_PARTITIONS.get() >= 1);
    let mut pauses = Vec::new();
    for round in 0..9 {
        dirty(1, 2);
        let pause = cleaner.pause_of(&bench.partitions[BROKEN].id).expect("set aside");
        pauses.push(pause.as_secs());
        bench.clock.advance(pause.as_millis() as i64 - 1);
        clean_all(&mut cleaner);
        assert!(cleaned(1), "round {round}");
        assert_eq!(cleaner.pause_of(&bench.partitions[BROKEN].id), Some(pause), "it was not tried before its time");
        bench.clock.advance(1);
        clean_all(&mut cleaner);
    }
    assert_eq!(pauses, [15, 30, 60, 120, 240, 480, 600, 600, 600]);
    bench.faults.fail_reads_of(None);
    bench.clock.advance(600_000);
    clean_all(&mut cleaner);
    assert_eq!((cleaned(BROKEN), cleaner.uncleanable()), (true, 0));
}

#[test]
fn a_log_whose_job_was_refused_for_want_of_space_is_set_aside_too_and_takes_appends_meanwhile() {
    let bench = Bench::new(compacted(), 2);
    for partition in [0, 1] {
        bench.put(partition, "k", Some(b"1")).expect("written");
        bench.put(partition, "k", Some(b"2")).expect("written");
        bench.roll(partition);
    }
    let mut cleaner = bench.cleaner();
    bench.faults.refuse_any(1);
    clean_all(&mut cleaner);
    assert_eq!(cleaner.uncleanable(), 1, "the other one was compacted");
    bench.put(0, "k", Some(b"3")).expect("the refusal was the cleaner's alone");
    bench.put(1, "k", Some(b"3")).expect("written");
    bench.clock.advance(PAUSE.as_millis() as i64);
    clean_all(&mut cleaner);
    assert_eq!(cleaner.uncleanable(), 0);
}

/// What the cleaner records at its end was refused: the log begins again where the disk says.
#[test]
fn a_refused_record_of_progress_is_no_progress() {
    let bench = Bench::new(compacted(), 1);
    bench.put(0, "k", Some(b"1")).expect("written");
    bench.put(0, "k", Some(b"2")).expect("written");
    bench.roll(0);
    let partition = &bench.partitions[0];
    let plan = |writes: &mut Vec<_>, log: &mut PartitionLog| log.compaction_plan(1_000_000, Offset(2), 1, writes);
    let planned = partition.change_log(|log, _, writes| plan(writes, log)).expect("sound").written().expect("written");
    let planned = planned.expect("worth it");
    let done = crate::log::upkeep::compaction::run(&planned, &partition.reader(), &mut |step| {
        partition.rewrite(|log| log.admit_compacted(step.writes)).expect("sound").wait().expect("written");
        ControlFlow::Continue(())
    });
    let done = done.expect("readable").expect("ran to its end");
    bench.faults.refuse_any(1);
    let recorded = partition.change_log(|log, _, writes| log.on_compacted(&done, writes)).expect("sound");
    assert!(matches!(recorded.written(), Err(ChangeError::Unwritten(StorageError::Full { .. }))));
    partition.open_anew(1_000_000).expect("there is space");
    assert!(partition.with_log(|log| log.compaction_urgency(1_000_000, Offset(2))).is_some(), "it is done again");
}

#[test]
fn retention_that_was_not_written_is_taken_back_and_done_again() {
    let config = LogConfig { retention_ms: 1000, segment_bytes: 1 << 20, ..LogConfig::default() };
    let bench = Bench::new(config, 2);
    for partition in [0, 1] {
        bench.put(partition, "k", Some(b"1")).expect("written");
        bench.roll(partition);
        bench.put(partition, "k", Some(b"2")).expect("written");
    }
    let starts = || bench.partitions.iter().map(|p| p.view().log_start_offset.0).collect::<Vec<_>>();
    bench.clock.advance(1_000_000);
    bench.faults.refuse_any(1);
    retain_all(&bench.replicas, &bench.shared_clock());
    let refused = bench.partitions.iter().position(|p| p.change_log(|_, _, _| ()).is_err()).expect("one was refused");
    assert_eq!(starts()[1 - refused], 2, "the other one's went on");
    bench.partitions[refused].open_anew(2_000_000).expect("there is space");
    assert_eq!(starts()[refused], 0, "nothing was deleted");
    bench.put(refused, "k", Some(b"3")).expect("it takes appends");
    retain_all(&bench.replicas, &bench.shared_clock());
    assert_eq!((starts()[refused] >= 2, starts()[1 - refused]), (true, 2));
    let before = starts();
    let bench = bench.restarted(config);
    let after: Vec<_> = bench.partitions.iter().map(|p| p.view().log_start_offset.0).collect();
    assert_eq!(after, before, "on the disk, too");
}

/// Appends of this very log filled the disk, and the last of them was refused: only its retention can free space.
#[test]
fn retention_frees_space_while_the_disk_is_full() {
    let config = LogConfig { retention_ms: 1000, segment_bytes: 1 << 20, ..LogConfig::default() };
    let bench = Bench::new(config, 1);
    bench.put(0, "k", Some(b"1")).expect("written");
    bench.roll(0);
    bench.faults.refuse_next();
    assert_eq!(bench.put(0, "k", Some(b"2")), Err(AckError::Full));
    bench.faults.set_full(true);
    bench.clock.advance(1_000_000);
    retain_all(&bench.replicas, &bench.shared_clock());
    assert_eq!(bench.partitions[0].view().log_start_offset, Offset(1));
    bench.faults.set_full(false);
    bench.put(0, "k", Some(b"2")).expect("written");
}

/// One directory has stopped: its logs say so, and those of others are served.
#[test]
fn retention_of_a_stopped_directory_changes_nothing_and_ends_no_loop() {
    let config = LogConfig { retention_ms: 1000, ..LogConfig::default() };
    let bench = Bench::new(config, 2);
    bench.put(0, "k", Some(b"1")).expect("written");
    bench.put(1, "k", Some(b"1")).expect("written");
    bench.clock.advance(1_000_000);
    bench.faults.fail_commit(0);
    for _ in 0..2 {
        retain_all(&bench.replicas, &bench.shared_clock());
    }
    for partition in &bench.partitions {
        let changed = partition.change_log(|_, _, _| ()).map(Changed::written);
        assert!(matches!(changed, Err(ChangeError::Failed(AckError::Storage(_)))), "{changed:?}");
    }
}

#[test]
fn an_epoch_that_was_not_recorded_is_recorded_when_the_log_is_opened_anew() {
    let bench = Bench::new(LogConfig::default(), 1);
    bench.put(0, "k", Some(b"1")).expect("written");
    let partition = &bench.partitions[0];
    bench.faults.refuse_any(1);
    let recorded = partition.take_role(testing::role(1, 5)).expect("taken").wait();
    assert!(matches!(recorded, Err(StorageError::Full { .. })));
    assert!(partition.view().leading, "the role holds");
    partition.open_anew(1_000_000).expect("there is space");
    let asked = |partition: &Partition| partition.with_log(|log| log.end_offset_for_epoch(LeaderEpoch(4)));
    assert_eq!(asked(partition), Some((LeaderEpoch(0), Offset(1))));
    let (dir, family) = (bench.disk.reopen() as SharedLogDir, partition.home().family);
    let log = PartitionLog::open(dir, id(0), family, LogConfig::default(), Tail::new(0), 0).expect("opens");
    assert_eq!(log.end_offset_for_epoch(LeaderEpoch(4)), Some((LeaderEpoch(0), Offset(1))), "on the disk, too");
}

#[test]
fn a_producer_whose_expiry_was_not_written_is_not_forgotten() {
    let bench = Bench::new(LogConfig { producer_id_expiration_ms: 1000, ..LogConfig::default() }, 1);
    let partition = &bench.partitions[0];
    let mut builder = BatchBuilder::new().producer(ProducerId(7), ProducerEpoch(0), 0);
    builder.append(1_000_000, None, Some(b"x"));
    let (completion, acked) = Completion::new(1);
    let ack = AckAt::Written(Ack::new(&completion, 0));
    drop(partition.append(builder.finish(), ack, None, None, 1_000_000).expect("accepted"));
    assert_eq!(acked.wait(), [Ok(())]);
    partition.change_log(|log, _, writes| log.checkpoint(writes)).expect("sound").written().expect("written");
    bench.faults.refuse_any(1);
    let expired = partition.change_log(|log, _, writes| log.expire_producers(9_000_000, writes)).expect("sound");
    assert!(expired.written().is_err());
    partition.open_anew(1_000_000).expect("there is space");
    assert_eq!(partition.with_log(|log| log.active_producers().count()), 1);
}

/// The writer had refused a change of the log, and appends behind it stayed without an answer.
#[test]
fn appends_behind_a_refused_change_are_answered_and_can_be_repeated() {
    let bench = Bench::new(LogConfig::default(), 1);
    let partition = &bench.partitions[0];
    bench.put(0, "k", Some(b"1")).expect("written");
    // The refusal is certain and not yet known when the append comes.
    bench.faults.refuse_any(1);
    bench.faults.hold();
    let changed = partition.change_log(|log, _, writes| log.roll(1_000_000, writes)).expect("sound");
    let mut builder = BatchBuilder::new();
    builder.append(1_000_000, None, Some(b"2"));
    let (completion, acked) = Completion::new(1);
    let ack = AckAt::HighWatermark(Ack::new(&completion, 0));
    let accepted = partition.append(builder.finish(), ack, None, None, 1_000_000).expect("accepted");
    bench.faults.release(&bench.dir);
    drop(accepted);
    assert!(changed.written().is_err());
    assert_eq!(acked.wait(), [Err(AckError::Full)]);
    partition.open_anew(1_000_000).expect("there is space");
    bench.put(0, "k", Some(b"2")).expect("written");
    assert_eq!(partition.view().high_watermark, Offset(2), "the offset is given once more");
}

/// The log was opened anew under the partition's lock, on the thread of an append: whoever looked at the partition
/// waited for the disk.
#[tokio::test]
async fn a_log_is_opened_anew_beside_the_lock_and_off_the_workers() {
    let bench = Bench::new(LogConfig::default(), 1);
    let partition = Arc::clone(&bench.partitions[0]);
    let append = || {
        let mut builder = BatchBuilder::new();
        builder.append(1_000_000, None, Some(b"2"));
        let (completion, acked) = Completion::new(1);
        let ack = AckAt::HighWatermark(Ack::new(&completion, 0));
        partition.append(builder.finish(), ack, None, None, 1_000_000).map(|accepted| {
            drop(accepted);
            acked
        })
    };
    bench.faults.refuse_next();
    assert_eq!(append().expect("accepted").all().await, [Err(AckError::Full)]);
    bench.faults.hold_reads(true);
    for _ in 0..3 {
        assert!(matches!(append(), Err(AppendRefused::Full)), "refused at once");
        assert!(partition.view().leading && partition.with_log(PartitionLog::log_start_offset) == Offset(0));
    }
    bench.faults.hold_reads(false);
    let acked = loop {
        match append() {
            Ok(acked) => break acked,
            Err(AppendRefused::Full) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(acked.all().await, [Ok(())]);
    assert_eq!(partition.view().log_end_offset, Offset(1));
}

#[test]
fn a_change_that_is_refused_takes_along_the_append_behind_it() {
    let bench = Bench::new(LogConfig::default(), 1);
    let partition = &bench.partitions[0];
    bench.put(0, "k", Some(b"1")).expect("written");
    bench.faults.refuse_any(1);
    bench.faults.hold();
    let changed = partition.change_log(|log, _, writes| log.roll(1_000_000, writes)).expect("sound");
    let mut builder = BatchBuilder::new();
    builder.append(1_000_000, None, Some(b"behind"));
    let (completion, acked) = Completion::new(1);
    let ack = AckAt::HighWatermark(Ack::new(&completion, 0));
    drop(partition.append(builder.finish(), ack, None, None, 1_000_000).expect("accepted"));
    bench.faults.release(&bench.dir);
    assert!(changed.written().is_err() && acked.wait()[0].is_err());
    assert!(matches!(partition.change_log(|_, _, _| ()), Err(ChangeError::Failed(AckError::Full))));
    partition.open_anew(1_000_000).expect("there is space");
    bench.put(0, "k", Some(b"2")).expect("written");
    assert_eq!(bench.folded(0), [("k".to_owned(), b'2')].into());
}

#[test]
fn a_checkpoint_that_fails_at_the_end_costs_the_next_start_reads_and_nothing_else() {
    let bench = Bench::new(LogConfig::default(), 2);
    bench.put(0, "k", Some(b"1")).expect("written");
    bench.put(1, "k", Some(b"1")).expect("written");
    bench.faults.refuse_any(1);
    bench.replicas.close();
    let bench = bench.restarted(LogConfig::default());
    assert!((0..2).all(|partition| bench.folded(partition) == [("k".to_owned(), b'1')].into()));
}

/// The epoch began behind an append that was refused, so no follower was ever level with it: with too few in sync
/// nothing more was appended, and the ISR never grew again.
#[test]
fn an_epoch_begins_where_the_log_is_written() {
    let (partition, faults) = testing::led(LeaderEpoch(1));
    testing::append(&partition, 2);
    faults.refuse_next();
    testing::append_unacknowledged(&partition);
    let replicas = vec![testing::ME, BrokerId(2)];
    testing::take(&partition, super::partition::Role { replicas, ..testing::role(testing::ME.0, 2) });
    assert_eq!(partition.epoch_start(), Some(Offset(2)));
    partition.open_anew(0).expect("there is space again");
    assert_eq!(partition.view().log_end_offset, Offset(2));
}

/// The controller soon gives such a partition to another broker, and clients are told of the disk all the same.
#[test]
fn a_log_whose_directory_has_failed_says_so_whoever_leads() {
    let (partition, _) = testing::led(LeaderEpoch(1));
    testing::append(&partition, 1);
    let dir = partition.home().dir.path();
    assert!(partition.on_dir_failed(&dir, &StorageError::Stopped { dir: dir.clone(), reason: "injected".into() }));
    let refused = || {
        let mut builder = BatchBuilder::new();
        builder.append(0, None, Some(b"v"));
        let ack = AckAt::Written(Ack::new(&Completion::new(1).0, 0));
        partition.append(builder.finish(), ack, None, None, 0).expect_err("it is offline")
    };
    assert!(matches!(refused(), AppendRefused::Storage(_)), "{:?}", refused());
    let _ = partition.take_role(testing::role(2, 2)).expect("taken").wait();
    assert!(matches!(refused(), AppendRefused::Storage(_)), "{:?}", refused());
    let coordinator = partition.may_append(LeaderEpoch(1), 0);
    assert!(matches!(coordinator, Err(AppendRefused::NotLeader)), "{coordinator:?}");
}
