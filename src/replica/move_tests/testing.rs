//! What tests of moves between log directories share: the replicas of a broker with three directories, and what was
//! sent to a partition.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;

use crate::clock::testing::ManualClock;
use crate::log::config::LogConfig;
use crate::log::reading::tail::Tail;
use crate::record::{BatchBuilder, for_each_record, stamp};
use crate::replica::ack::{Ack, Acked, Completion};
use crate::replica::alter_log_dirs::AlterLogDirError;
use crate::replica::manager::{ReplicaConfig, ReplicaDir, ReplicaManager, WantedReplica};
use crate::replica::marks;
use crate::replica::partition::{AckAt, Partition};
use crate::replica::testing::{self, ME, role, take};
use crate::storage::testing::faulty::{Fate, Faults, FaultyDir, Operation, Rule, RuleId};
use crate::storage::testing::memory::MemoryDir;
use crate::storage::{LogDir, PartitionId, SharedLogDir};
use crate::types::{LeaderEpoch, Offset, PartitionIndex, TopicId, TopicPartition};

pub(in crate::replica) const DIRS: usize = 3;
pub(in crate::replica) const TAIL_BYTES: usize = 1 << 20;

/// The replicas of a broker with three directories, `/0` to `/2`.
pub(in crate::replica) struct Bench {
    pub(in crate::replica) disks: [Arc<MemoryDir>; DIRS],
    pub(in crate::replica) faults: [Arc<Faults>; DIRS],
    pub(in crate::replica) dirs: [SharedLogDir; DIRS],
    pub(in crate::replica) replicas: Arc<ReplicaManager>,
    pub(in crate::replica) clock: Arc<ManualClock>,
}

pub(in crate::replica) fn path(at: usize) -> PathBuf {
    PathBuf::from(format!("/{at}"))
}

pub(in crate::replica) fn id() -> PartitionId {
    let topic_id = TopicId::from_random(1 << 64 | 7).expect("a legal id");
    PartitionId { topic: "t".into(), topic_id, partition: PartitionIndex(0) }
}

pub(in crate::replica) fn name() -> TopicPartition {
    TopicPartition::new("t", 0)
}

impl Bench {
    pub(in crate::replica) fn over(disks: [Arc<MemoryDir>; DIRS]) -> Self {
        // Some segments in a few batches.
        Self::with(disks, LogConfig { segment_bytes: 1000, ..LogConfig::default() })
    }

    pub(in crate::replica) fn with(disks: [Arc<MemoryDir>; DIRS], log: LogConfig) -> Self {
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
        let clock = Arc::new(ManualClock::new(0, 1));
        let around = testing::alone(ME, Arc::clone(&clock) as _);
        let replicas = ReplicaManager::new(around, of_replicas.collect(), config_of).expect("readable");
        Self { disks, faults, dirs, replicas, clock }
    }

    pub(in crate::replica) fn new() -> Self {
        Self::over([(); DIRS].map(|()| MemoryDir::open()))
    }

    /// As a kill in this moment leaves it.
    pub(in crate::replica) fn killed(&self) -> Self {
        Self::over(self.disks.each_ref().map(|disk| disk.killed()))
    }

    pub(in crate::replica) fn partition(&self) -> Arc<Partition> {
        self.replicas.open(&[WantedReplica { id: id(), is_new: true }]).remove(0).expect("opens")
    }

    /// The partition, led under this epoch.
    pub(in crate::replica) fn led(&self, epoch: i32) -> Arc<Partition> {
        let partition = self.partition();
        take(&partition, role(ME.0, epoch));
        partition
    }

    /// As [`Self::led`], in its first epoch and with so many records that are acknowledged.
    pub(in crate::replica) fn led_with(&self, records: usize) -> (Arc<Partition>, Sent) {
        let (partition, mut sent) = (self.led(1), Sent::default());
        (0..records).for_each(|_| assert!(sent.send(&partition)));
        sent.wait();
        (partition, sent)
    }

    pub(in crate::replica) fn alter(&self, to: usize) -> Result<(), AlterLogDirError> {
        self.replicas.alter_log_dir(&name(), &path(to))
    }

    /// Does so many steps of all that is to be done.
    pub(in crate::replica) fn step(&self, times: usize) {
        for at in (0..times).flat_map(|_| 0..DIRS) {
            self.replicas.step_moves(at);
        }
    }

    /// Has a step of the moves to this directory made until the set that takes the place has been queued there, which
    /// waits until the first rule is lifted. Then it is refused for want of space, if `refused`.
    pub(in crate::replica) fn take_the_place(&self, at: usize, refused: bool) -> (RuleId, JoinHandle<()>) {
        let held = self.faults[at].script(Rule::new(Fate::Wait, &[Operation::CommitSync]));
        if refused {
            self.faults[at].script(Rule::new(Fate::Full, &[Operation::CommitSync]).times(1));
        }
        let partition = self.partition();
        let replicas = Arc::clone(&self.replicas);
        let stepping = std::thread::spawn(move || {
            replicas.step_moves(at);
        });
        while partition.home().at != at {
            std::thread::yield_now();
        }
        (held, stepping)
    }

    /// Where there is a log of the partition on the disks.
    pub(in crate::replica) fn lies_in(&self) -> Vec<usize> {
        (0..DIRS).filter(|&at| self.disks[at].partitions().iter().any(|(of, _)| *of == id())).collect()
    }

    /// Marks on the disks.
    pub(in crate::replica) fn marks(&self) -> usize {
        self.dirs.iter().map(|dir| marks::read(&**dir).expect("readable").len()).sum()
    }

    /// Directory, offset lag and whether it is a future log, of each log that is told.
    pub(in crate::replica) fn told(&self) -> Vec<(usize, i64, bool)> {
        let dirs = self.replicas.describe_log_dirs(|_, _| true).into_iter().enumerate();
        let logs = dirs
            .flat_map(|(at, dir)| dir.contents.map_or(Vec::new(), |it| it.logs).into_iter().map(move |log| (at, log)));
        logs.map(|(at, log)| (at, log.offset_lag, log.is_future)).collect()
    }
}

/// Values in the order in which they were sent, and the offsets at which they were acknowledged.
#[derive(Default)]
pub(in crate::replica) struct Sent {
    pub(in crate::replica) next: i64,
    pub(in crate::replica) waiting: Vec<(i64, Offset, Acked)>,
    pub(in crate::replica) acknowledged: BTreeMap<Offset, i64>,
}

impl Sent {
    pub(in crate::replica) fn send(&mut self, partition: &Arc<Partition>) -> bool {
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
    pub(in crate::replica) fn look(&mut self) -> usize {
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

    pub(in crate::replica) fn wait(&mut self) -> usize {
        let mut refused = 0;
        while !self.waiting.is_empty() {
            refused += self.look();
            std::thread::yield_now();
        }
        refused
    }

    /// All that was acknowledged is in the log where it was, and nothing is there twice.
    pub(in crate::replica) fn check(&self, partition: &Arc<Partition>, context: &str) {
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
pub(in crate::replica) fn values(partition: &Partition) -> BTreeMap<Offset, i64> {
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

/// A follower's log, as its leader has it.
pub(in crate::replica) fn fetched(from: i64, count: i64, epoch: i32, value: i64) -> Vec<Bytes> {
    let batch = |at: i64| {
        let mut builder = BatchBuilder::new();
        builder.append(0, Some(&(value + at).to_be_bytes()), Some(b"v"));
        let mut batch = builder.finish();
        stamp(&mut batch, Offset(at), LeaderEpoch(epoch), None);
        batch.bytes.freeze()
    };
    (from..from + count).map(batch).collect()
}

/// What its leader sent is written.
pub(in crate::replica) fn follow(partition: &Arc<Partition>, epoch: i32, records: Vec<Bytes>) {
    let replicated = partition.append_fetched(LeaderEpoch(epoch), records, 0).expect("follows");
    drop(replicated.unwritten);
    replicated.written.wait().expect("written");
    assert!(replicated.refused.is_none());
}
