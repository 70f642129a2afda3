//! Two replicas that take turns to lead, over the directory in memory and the real one: whatever they appended and
//! however they part, are killed, and are cut, the follower becomes what its leader is.

use std::sync::Arc;
use std::sync::mpsc;

use bytes::Bytes;
use tempfile::TempDir;

use super::*;
use crate::clock::testing::ManualClock;
use crate::log::config::LogConfig;
use crate::log::partition_log::{FetchedError, PartitionLog};
use crate::log::reading::tail::Tail;
use crate::log::testing::{Facts, RandomProducers, expect_same, joined};
use crate::record::BatchHeader;
use crate::replica::flush::FlushTimer;
use crate::replica::partition::{Home, Role, Upkeep};
use crate::replica::testing::alone;
use crate::storage::rocksdb::{DirectoryOptions, RocksDirectory};
use crate::storage::testing::faulty::{Fate, Faults, FaultyDir, Operation, Rule, RuleId};
use crate::storage::testing::killed;
use crate::storage::testing::memory::MemoryDir;
use crate::storage::{LogDir, PartitionId, SharedLogDir, Write};
use crate::types::{BrokerId, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicId};

/// Where a replica lies.
enum Disk {
    Memory(Arc<MemoryDir>),
    Files(TempDir),
}

impl Disk {
    fn files() -> Self {
        Self::Files(tempfile::tempdir().expect("a folder"))
    }

    fn open(&self) -> SharedLogDir {
        match self {
            Self::Memory(dir) => Arc::clone(dir) as SharedLogDir,
            Self::Files(place) => {
                // Tables that are begun soon, and are full soon.
                let options = DirectoryOptions {
                    table_piece_bytes: 1,
                    table_bytes: 6 << 10,
                    disk_reserve_bytes: 0,
                    ..DirectoryOptions::default()
                };
                RocksDirectory::open(place.path(), options).expect("opens")
            }
        }
    }

    /// What a kill in this moment would leave.
    fn killed(&self) -> Self {
        match self {
            Self::Memory(dir) => Self::Memory(dir.killed()),
            Self::Files(place) => Self::Files(killed::copy(place.path())),
        }
    }
}

/// One of the replicas.
struct Replica {
    me: BrokerId,
    config: LogConfig,
    partition: Arc<Partition>,
    faults: Arc<Faults>,
    dir: SharedLogDir,
    disk: Disk,
}

fn log_config() -> LogConfig {
    LogConfig { segment_bytes: 2500, segment_ms: 1500, ..LogConfig::default() }
}

impl Replica {
    fn open(me: i32, config: LogConfig, disk: Disk) -> Self {
        let topic_id = TopicId::from_random(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef).expect("a legal id");
        let id = PartitionId { topic: "t".into(), topic_id, partition: PartitionIndex(0) };
        let (dir, faults) = FaultyDir::around(disk.open());
        let family = dir.create(std::slice::from_ref(&id)).expect("created")[0];
        let (dir, tail): (SharedLogDir, _) = (dir, Tail::new(1 << 20));
        let log = PartitionLog::open(Arc::clone(&dir), id.clone(), family, config, Arc::clone(&tail), 0);
        let upkeep = Upkeep { cleaner: Arc::default(), flush: FlushTimer::new(Arc::clone(&dir)) };
        let me = BrokerId(me);
        let (around, log) = (alone(me, Arc::new(ManualClock::new(0, 1))), log.expect("opens"));
        let home = Home { at: 0, dir: Arc::clone(&dir), family, tail, generation: 0 };
        let partition = Partition::new(around, id, home, upkeep, log);
        Self { me, config, partition, faults, dir, disk }
    }

    /// As a kill leaves it, and what it was is of no more account.
    fn kill(self) -> Self {
        let disk = self.disk.killed();
        self.partition.close();
        self.dir.close();
        Self::open(self.me.0, self.config, disk)
    }

    /// What a start would find after a kill in this moment.
    fn found_after_kill(&self) -> Facts {
        Self::open(self.me.0, self.config, self.disk.killed()).facts()
    }

    fn take(&self, leader: BrokerId, epoch: LeaderEpoch) {
        let role = Role {
            leader: Some(leader),
            leader_epoch: epoch,
            isr: vec![leader],
            partition_epoch: PartitionEpoch(epoch.0),
            replicas: vec![BrokerId(1), BrokerId(2)],
        };
        self.partition.take_role(role).expect("taken").wait().expect("recorded");
    }

    /// Appends, if `give` gives offsets, and waits for the write.
    fn write(&self, give: impl FnOnce(&mut PartitionLog, &mut Vec<Write>) -> Option<Offset>) {
        let partition = Arc::clone(&self.partition);
        let mut state = self.partition.state.lock();
        let mut writes = Vec::new();
        let last_offset = give(&mut state.log, &mut writes);
        let set = WriteSet { writes, sync: false };
        let unwritten = storage::queue(
            &self.dir,
            set,
            Box::new(move |outcome| match last_offset {
                Some(last_offset) => partition.on_committed(0, last_offset, 0, outcome),
                None => outcome.expect("written"),
            }),
        );
        drop(state);
        drop(unwritten);
        self.partition.wait_for_writes().expect("written");
    }

    fn append(&self, producers: &mut RandomProducers, epoch: LeaderEpoch) {
        self.write(|log, writes| Some(producers.append(log, epoch, writes)?.last_offset));
    }

    fn append_fetched(&self, records: Bytes, epoch: LeaderEpoch) -> Result<(), FetchedError> {
        let mut outcome = Ok(());
        self.write(|log, writes| match log.append_fetched(records, epoch, 0, writes) {
            Ok(appended) => appended.last_offset,
            Err(refused) => {
                outcome = Err(refused);
                None
            }
        });
        outcome
    }

    fn end(&self) -> Offset {
        self.partition.view().log_end_offset
    }

    fn start(&self) -> Offset {
        self.partition.view().log_start_offset
    }

    fn facts(&self) -> Facts {
        let end = self.end();
        self.partition.state.lock().log.facts(end)
    }

    fn move_start(&self, to: Offset) {
        let changed = self.partition.change_log(|log, _, writes| log.advance_log_start(to, writes));
        changed.expect("changeable").written().expect("written");
    }
}

/// Where a replica's batches lie, and its terms.
struct Tell<'a>(&'a Replica);

impl std::fmt::Debug for Tell<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let facts = self.0.facts();
        let find = |wanted: &str| facts.iter().find(|(part, _)| *part == wanted).map(|(_, found)| found.clone());
        let read = self.0.partition.reader().read(self.0.start(), self.0.end(), usize::MAX, true).expect("readable");
        let headers = read.batches.iter().map(|batch| BatchHeader::parse(batch).expect("a batch"));
        let batches: Vec<_> = headers
            .map(|header| (header.base_offset.0, header.last_offset().0, header.partition_leader_epoch.0))
            .collect();
        write!(f, "{:?} {:?} {batches:?}", find("ends"), find("epochs"))
    }
}

/// What a leader answers to a fetch, by Kafka's rules.
enum Answer {
    OutOfRange,
    Diverging(LeaderEpoch, Offset),
    Records(Bytes),
}

fn answer(leader: &Replica, from: Offset, last_epoch: Option<LeaderEpoch>, max_bytes: usize) -> Answer {
    if from < leader.start() {
        return Answer::OutOfRange;
    }
    if let Some(asked) = last_epoch {
        match leader.partition.with_log(|log| log.end_offset_for_epoch(asked)) {
            None => return Answer::OutOfRange,
            Some((epoch, end)) if epoch < asked || end < from => return Answer::Diverging(epoch, end),
            Some(_) => {}
        }
    }
    if from > leader.end() {
        return Answer::OutOfRange;
    }
    let read = leader.partition.reader().read(from, leader.end(), max_bytes, true).expect("readable");
    Answer::Records(joined(&read.batches))
}

/// One fetch of a follower, and what it does with the answer. True: it has all.
fn fetch(follower: &Replica, leader: &Replica, epoch: LeaderEpoch, max_bytes: usize) -> bool {
    let partition = &follower.partition;
    let from = follower.end();
    let last_epoch = partition.with_log(|log| log.latest_epoch());
    match answer(leader, from, last_epoch, max_bytes) {
        Answer::Records(records) if records.is_empty() => {
            let start = leader.start().min(follower.end());
            follower.move_start(start);
            return from == leader.end();
        }
        Answer::Records(records) => {
            match follower.append_fetched(records.clone(), epoch) {
                Ok(()) => {}
                // The leader's log starts within a batch, which is asked for in vain from its beginning on. Kafka gives
                // up where the follower has something of its own there, after an unclean election.
                // Source: Kafka 3.9 `Partition.appendRecordsToFollowerOrFutureReplica`.
                Err(FetchedError::Unexpected { base_offset, .. })
                    if from <= leader.start() || from == follower.start() =>
                {
                    partition.truncate_fully_and_start_at(base_offset, 0).expect("truncated");
                    follower.append_fetched(records, epoch).expect("from its beginning");
                }
                Err(refused) => panic!("{refused}: {:#?} after {:#?}", Tell(follower), Tell(leader)),
            }
        }
        Answer::Diverging(epoch, end) => {
            let to = match partition.with_log(|log| log.end_offset_for_epoch(epoch)) {
                Some((found, own_end)) if found != epoch => own_end.min(from),
                Some((_, own_end)) => own_end.min(end).min(from),
                None => end.min(from),
            };
            let epochs = partition.with_log(|log| log.latest_epoch());
            let new_end = partition.truncate_to(to, 0).expect("truncated");
            assert_eq!(new_end, follower.end());
            let shorter = new_end < from || partition.with_log(|log| log.latest_epoch()) != epochs;
            assert!(shorter, "the same answer would come for ever");
        }
        Answer::OutOfRange if leader.end() < from => {
            partition.truncate_to(leader.end(), 0).expect("truncated");
        }
        Answer::OutOfRange if leader.start() > from => {
            partition.truncate_fully_and_start_at(leader.start(), 0).expect("truncated");
        }
        Answer::OutOfRange => panic!("{from} is in {}..{}", leader.start(), leader.end()),
    }
    false
}

fn catch_up(follower: &Replica, leader: &Replica, epoch: LeaderEpoch, producers: &RandomProducers) {
    let mut rounds = 0;
    while !fetch(follower, leader, epoch, 1 + producers.dice(3000) as usize) {
        rounds += 1;
        assert!(rounds < 1000, "no end: {:?} after {:?}", follower.partition.view(), leader.partition.view());
    }
    // A leader may still hold what the one before has deleted.
    leader.move_start(follower.start());
}

/// Both hold the same. A segment that was closed before it was cut at its very end stays closed, so those may differ;
/// and after the start of a log was moved, or it began anew, it may not know who wrote before.
fn expect_equal(follower: &Replica, leader: &Replica, starts_moved: bool, what: &str) {
    let always = ["ends", "epochs", "times", "batches"];
    let comparable = |replica: &Replica| -> Facts {
        let facts = replica.facts().into_iter();
        facts.filter(|(part, _)| always.contains(part) || !starts_moved && *part != "segments").collect()
    };
    expect_same(&comparable(follower), &comparable(leader), what);
}

/// Appends, changes of leaders with what is not replicated, kills.
fn run(seed: u64, new_disk: &dyn Fn() -> Disk, steps: usize) {
    let mut producers = RandomProducers::new(seed);
    let moves_start = seed.is_multiple_of(3);
    let mut replicas = [1, 2].map(|me| Replica::open(me, log_config(), new_disk()));
    let mut epoch = LeaderEpoch(0);
    let mut lead = 0;
    let elect = |replicas: &[Replica; 2], lead: usize, epoch| {
        // As a controller that tells the followers first.
        replicas[1 - lead].take(replicas[lead].me, epoch);
        replicas[lead].take(replicas[lead].me, epoch);
    };
    elect(&replicas, lead, epoch);
    for step in 0..steps {
        for _ in 0..producers.dice(15) {
            replicas[lead].append(&mut producers, epoch);
        }
        for _ in 0..producers.dice(4) {
            fetch(&replicas[1 - lead], &replicas[lead], epoch, 1 + producers.dice(2000) as usize);
        }
        match producers.dice(6) {
            0 | 1 => lead = 1 - lead,
            2 if moves_start => {
                let (start, end) = (replicas[lead].start(), replicas[lead].end());
                replicas[lead].move_start(Offset(start.0 + producers.dice((end - start) as u64 + 1) as i64));
            }
            3 => {
                catch_up(&replicas[1 - lead], &replicas[lead], epoch, &producers);
                expect_equal(&replicas[1 - lead], &replicas[lead], moves_start, &format!("seed {seed}, step {step}"));
            }
            4 => {
                let killed = producers.dice(2) as usize;
                replicas =
                    replicas.map(|replica| if replica.me.0 == killed as i32 + 1 { replica.kill() } else { replica });
            }
            _ => {}
        }
        epoch = LeaderEpoch(epoch.0 + 1 + producers.dice(2) as i32);
        elect(&replicas, lead, epoch);
    }
    for round in 0..2 {
        catch_up(&replicas[1 - lead], &replicas[lead], epoch, &producers);
        expect_equal(&replicas[1 - lead], &replicas[lead], moves_start, &format!("seed {seed}, round {round}"));
        replicas = replicas.map(Replica::kill);
        epoch = LeaderEpoch(epoch.0 + 1);
        elect(&replicas, lead, epoch);
    }
}

/// More seeds than by default, for a search.
fn seeds(by_default: u64) -> std::ops::Range<u64> {
    let wanted = std::env::var("KLAMM_SEEDS").ok().and_then(|seeds| seeds.parse().ok());
    1..1 + wanted.unwrap_or(by_default)
}

#[test]
fn a_follower_becomes_what_its_leader_is() {
    for seed in seeds(20) {
        run(seed, &|| Disk::Memory(MemoryDir::open()), 40);
    }
}

#[test]
fn a_follower_becomes_what_its_leader_is_on_disk() {
    for seed in seeds(3) {
        run(seed, &Disk::files, 15);
    }
}

/// A follower with some batches that its leader has, and some that it does not; and where they part.
fn parted(disk: Disk) -> (Replica, Offset) {
    let mut producers = RandomProducers::new(7);
    let replica = Replica::open(1, log_config(), disk);
    replica.take(BrokerId(1), LeaderEpoch(3));
    for _ in 0..60 {
        replica.append(&mut producers, LeaderEpoch(3));
    }
    let to = replica.end();
    replica.take(BrokerId(1), LeaderEpoch(4));
    while replica.end() < to + 60 {
        replica.append(&mut producers, LeaderEpoch(4));
    }
    replica.take(BrokerId(2), LeaderEpoch(5));
    (replica, to)
}

/// Waits for a rule to strike.
fn wait_for(faults: &Faults, rule: RuleId) {
    while faults.met(rule) == 0 {
        std::thread::yield_now();
    }
}

#[test]
fn a_kill_leaves_the_old_log_or_the_new_one() {
    for new_disk in [|| Disk::Memory(MemoryDir::open()), Disk::files] {
        for fully in [false, true] {
            let steps = [Operation::Commit, Operation::Settle, Operation::Scan, Operation::CommitSync];
            for step in steps.into_iter().filter(|step| !fully || *step != Operation::Scan) {
                let (replica, to) = parted(new_disk());
                let old = replica.found_after_kill();
                let wait = replica.faults.script(Rule::new(Fate::Wait, &[step]).times(1));
                let partition = Arc::clone(&replica.partition);
                let truncating = std::thread::spawn(move || {
                    if fully {
                        partition.truncate_fully_and_start_at(to, 0).map(|()| to)
                    } else {
                        partition.truncate_to(to, 0)
                    }
                });
                wait_for(&replica.faults, wait);
                expect_same(&replica.found_after_kill(), &old, &format!("killed before {step:?}"));
                assert!(matches!(replica.partition.truncate_to(to, 0), Err(ChangeError::Truncating)), "one at a time");
                assert!(matches!(replica.partition.change_log(|_, _, _| ()), Err(ChangeError::Truncating)));
                replica.faults.lift(wait);
                assert_eq!(truncating.join().expect("no panic").expect("truncated"), to);
                let (found, now) = (replica.found_after_kill(), replica.facts());
                expect_same(&found, &now, &format!("killed after {step:?}"));
                let expected = if fully { format!("{to} {to} {to}") } else { format!("0 {to} {to}") };
                assert_eq!(found[0].1, expected);
                let view = replica.partition.view();
                assert_eq!((view.high_watermark, view.log_end_offset), (to, to));
                assert!(replica.partition.change_log(|_, _, _| ()).is_ok());
            }
        }
    }
}

#[test]
fn a_truncation_that_fails_changes_nothing_and_is_made_again() {
    let (full, unreadable) = (Fate::Full, Fate::Unreadable);
    for (fate, step) in [(full, Operation::Settle), (unreadable, Operation::Scan), (full, Operation::CommitSync)] {
        let (replica, to) = parted(Disk::Memory(MemoryDir::open()));
        let (old, view) = (replica.facts(), replica.partition.view());
        replica.faults.script(Rule::new(fate, &[step]).times(1));
        let refused = replica.partition.truncate_to(to, 0);
        assert!(matches!(refused, Err(ChangeError::Unwritten(_))), "{refused:?}");
        assert_eq!(replica.partition.view(), view);
        expect_same(&replica.facts(), &old, "as it was");
        expect_same(&replica.found_after_kill(), &old, "as it was on the disk");
        assert_eq!(replica.partition.truncate_to(to, 0).expect("truncated"), to);
    }
}

#[test]
fn a_directory_that_stops_takes_the_partition_along() {
    let (replica, to) = parted(Disk::Memory(MemoryDir::open()));
    let old = replica.facts();
    replica.faults.script(Rule::new(Fate::Stop, &[Operation::CommitSync]).times(1));
    assert!(matches!(replica.partition.truncate_to(to, 0), Err(ChangeError::Unwritten(_))));
    assert!(replica.partition.failure().is_some());
    assert!(matches!(replica.partition.truncate_to(to, 0), Err(ChangeError::Failed(_))));
    expect_same(&replica.found_after_kill(), &old, "as it was on the disk");
}

#[test]
fn neither_a_leader_nor_a_closed_replica_is_cut() {
    let (replica, to) = parted(Disk::Memory(MemoryDir::open()));
    replica.take(BrokerId(1), LeaderEpoch(6));
    let old = replica.facts();
    assert!(matches!(replica.partition.truncate_to(to, 0), Err(ChangeError::Leads)));
    replica.take(BrokerId(2), LeaderEpoch(7));
    // It is closed while it is being cut: its family may be another's soon.
    let wait = replica.faults.script(Rule::new(Fate::Wait, &[Operation::Scan]).times(1));
    let partition = Arc::clone(&replica.partition);
    let (tell, told) = mpsc::channel();
    let truncating = std::thread::spawn(move || tell.send(partition.truncate_to(to, 0)).expect("the test listens"));
    wait_for(&replica.faults, wait);
    replica.partition.close();
    replica.faults.lift(wait);
    assert!(matches!(told.recv(), Ok(Err(ChangeError::Closed))));
    truncating.join().expect("no panic");
    assert!(matches!(replica.partition.truncate_to(to, 0), Err(ChangeError::Closed)));
    expect_same(&replica.facts(), &old, "nothing was written");
}

#[test]
fn readers_find_nothing_of_what_was_cut_off_in_memory() {
    let (replica, to) = parted(Disk::Memory(MemoryDir::open()));
    let reader = replica.partition.reader();
    let end = replica.end();
    let read = reader.read_memory(to, end, usize::MAX, true).expect("in the tail");
    assert!(!read.batches.is_empty());
    assert_eq!(replica.partition.truncate_to(to, 0).expect("truncated"), to);
    for from in [Offset(0), to, to + 1] {
        let read = reader.read_memory(from, end, usize::MAX, true);
        assert!(read.is_none_or(|read| read.end <= to), "from {from}");
        assert!(reader.read(from, end, usize::MAX, true).expect("readable").end <= to);
    }
}
