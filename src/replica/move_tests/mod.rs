//! Partitions that move between log directories while they are used: what they hold moves with them, whatever else
//! happens to them meanwhile. What fails meanwhile stands in `failure_tests`.

mod failure_tests;
pub(super) mod testing;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use self::testing::{Bench, DIRS, Sent, fetched, follow, id, name, values};
use super::ack::{Ack, AckError, Completion};
use super::alter_log_dirs::AlterLogDirError;
use super::delete_records::delete_records;
use super::maintenance::Cleaner;
use super::partition::{AckAt, Partition};
use super::testing::{ME, role, take};
use crate::clock::testing::ManualClock;
use crate::log::config::LogConfig;
use crate::log::testing::expect_same;
use crate::record::{BatchBuilder, BatchHeader, ValidBatch};
use crate::storage::testing::faulty::{Fate, Operation, Rule};
use crate::storage::testing::memory::MemoryDir;
use crate::storage::{LogDir, PartitionId};
use crate::types::{
    LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TransactionMarker, TransactionResult,
};

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
    let (partition, mut sent) = bench.led_with(30);
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
        let (partition, _sent) = bench.led_with(10);
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
    let (partition, sent) = bench.led_with(10);
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
    let (partition, _sent) = bench.led_with(10);
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
