//! Partitions that move between log directories while something fails: nothing that was acknowledged is lost or
//! doubled, whatever is killed or fails at whichever write.

use std::sync::Arc;
use std::time::Duration;

use super::testing::{Bench, DIRS, Sent, id, name, path};
use crate::clock::testing::ManualClock;
use crate::log::config::LogConfig;
use crate::log::reading::tail::Tail;
use crate::replica::alter_log_dirs::AlterLogDirError;
use crate::replica::manager::{ReplicaConfig, ReplicaDir, ReplicaManager};
use crate::replica::testing::{self, ME};
use crate::storage::testing::faulty::{Fate, FaultyDir, Operation, Rule};
use crate::storage::testing::memory::MemoryDir;
use crate::storage::{self, LogDir, WriteSet};
use crate::types::PartitionIndex;

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
        let (partition, mut sent) = bench.led_with(10);
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
    let (partition, mut sent) = bench.led_with(10);
    bench.faults[1].set_full(true);
    bench.alter(1).expect("begins");
    bench.step(5);
    assert!(sent.send(&partition));
    assert_eq!((sent.wait(), partition.home().at), (0, 0), "the log itself is in use");
    bench.faults[1].set_full(false);
    bench.clock.advance(1000);
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
        let (partition, mut sent) = bench.led_with(10);
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

/// Whoever ended the move while the new log took the place, and was refused, left the copy on the disk, to be gone on
/// with by the next start.
#[test]
fn a_copy_that_is_refused_while_its_move_is_ended_goes() {
    // Logs are opened anew in the background.
    let runtime = tokio::runtime::Runtime::new().expect("starts");
    let _entered = runtime.enter();
    for deleted in [false, true] {
        let bench = Bench::new();
        let (partition, sent) = bench.led_with(10);
        bench.alter(1).expect("begins");
        let (held, stepping) = bench.take_the_place(1, true);
        let cuts = partition.cuts();
        let replicas = Arc::clone(&bench.replicas);
        let ending = std::thread::spawn(move || {
            if deleted {
                replicas.delete(&[("t".into(), PartitionIndex(0))]).remove(0).expect("deleted");
            } else {
                replicas.alter_log_dir(&name(), &path(2)).expect("begins");
            }
        });
        // It waits for the step.
        std::thread::sleep(Duration::from_millis(200));
        bench.faults[1].lift(held);
        ending.join().expect("no panic");
        stepping.join().expect("no panic");
        let left = if deleted { vec![] } else { vec![0, 2] };
        assert_eq!((bench.lies_in(), bench.marks()), (left.clone(), left.len()), "deleted: {deleted}");
        assert_ne!(partition.cuts(), cuts, "what was read meanwhile is of no log any more");
        if !deleted {
            bench.step(20);
            assert_eq!((partition.home().at, bench.lies_in()), (2, vec![2]));
            sent.check(&partition, "moved");
        }
    }
}

/// The copy is in a directory that is well, and nobody asks for it any more.
#[test]
fn a_copy_of_a_log_whose_directory_has_failed_goes_with_its_topic() {
    let bench = Bench::new();
    let (_partition, _sent) = bench.led_with(10);
    bench.alter(1).expect("begins");
    bench.faults[0].fail_commit(0);
    let _ = crate::storage::barrier(&*bench.dirs[0]);
    bench.replicas.on_dir_failed(&path(0), &"injected".into());
    bench.step(2);
    assert_eq!(bench.lies_in(), [0, 1]);
    assert!(bench.replicas.delete(&[("t".into(), PartitionIndex(0))]).remove(0).is_err());
    assert_eq!(bench.lies_in(), [0]);
}

/// Each directory loses what it had not synced; the one in the middle had.
#[test]
fn a_loss_of_power_after_two_moves_brings_no_log_back_that_counts() {
    let bench = Bench::new();
    let (partition, sent) = bench.led_with(10);
    for to in [1, 2] {
        bench.alter(to).expect("begins");
        bench.step(20);
        assert_eq!((partition.home().at, bench.lies_in()), (to, vec![to]));
    }
    let sync = WriteSet { writes: Vec::new(), sync: true };
    storage::commit(&*bench.dirs[1], sync).wait().expect("written");
    let left = Bench::over(bench.disks.each_ref().map(|disk| disk.after_power_loss()));
    let partition = left.led(2);
    assert_eq!(partition.home().at, 2);
    sent.check(&partition, "after a loss of power");
}

/// A partition that is deleted here, and made anew later under the same id, as a reassignment there and back does.
#[test]
fn a_loss_of_power_brings_no_deleted_log_back_beside_another() {
    let bench = Bench::new();
    assert!(matches!(bench.alter(1), Err(AlterLogDirError::NotHere)));
    let (partition, _sent) = bench.led_with(10);
    storage::commit(&*bench.dirs[1], WriteSet { writes: Vec::new(), sync: true }).wait().expect("written");
    drop(partition);
    bench.replicas.delete(&[("t".into(), PartitionIndex(0))]).remove(0).expect("deleted");
    bench.led(2);
    assert_eq!(bench.lies_in(), [0]);
    let left = Bench::over(bench.disks.each_ref().map(|disk| disk.after_power_loss()));
    assert_eq!(left.led(3).home().at, 0);
}

/// A log that cannot be read was read again, with a line, at each step that any other log took.
#[test]
fn a_move_that_goes_no_further_is_tried_ever_less_often() {
    let bench = Bench::new();
    let (_partition, sent) = bench.led_with(10);
    let bench = bench.killed();
    let partition = bench.led(2);
    bench.alter(1).expect("begins");
    let unreadable = bench.faults[0].script(Rule::new(Fate::Unreadable, &[Operation::Scan]));
    for tries in 1..5 {
        bench.step(10);
        assert_eq!(bench.faults[0].met(unreadable), tries);
        bench.clock.advance(1000 << (tries - 1));
    }
    bench.faults[0].lift(unreadable);
    bench.step(20);
    assert_eq!((partition.home().at, bench.lies_in()), (1, vec![1]));
    sent.check(&partition, "moved");
}

/// The next start would have found two copies of one generation, and could have gone on with the older.
#[test]
fn a_copy_that_could_not_be_gone_on_with_goes_when_the_log_moves_elsewhere() {
    let bench = Bench::new();
    let (_partition, sent) = bench.led_with(10);
    bench.alter(1).expect("begins");
    let bench = bench.killed();
    let unreadable = bench.faults[1].script(Rule::new(Fate::Unreadable, &[Operation::LastBatch]));
    let partition = bench.led(2);
    assert_eq!((bench.faults[1].met(unreadable), bench.lies_in()), (1, vec![0, 1]));
    bench.faults[1].lift(unreadable);
    bench.alter(2).expect("begins");
    assert_eq!((bench.lies_in(), bench.marks()), (vec![0, 2], 2));
    bench.step(20);
    assert_eq!((partition.home().at, bench.lies_in()), (2, vec![2]));
    sent.check(&partition, "moved");
}
