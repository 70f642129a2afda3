//! What tests of a log share: a log over the directory's twin in memory, batches, and what is stored in the end.

use std::sync::Arc;
use std::sync::mpsc::channel;

use bytes::Bytes;

use crate::clock::testing::ManualClock;
use crate::clock::{Clock, UnixMs};
use crate::log::config::LogConfig;
use crate::log::partition_log::{AppendError, Appended, PartitionLog};
use crate::log::reading::tail::Tail;
use crate::log::state::segments::Segment;
use crate::record::{BatchBuilder, ValidBatch, for_each_record};
use crate::storage::testing::memory::MemoryDir;
use crate::storage::{Family, LogDir, PartitionId, SharedLogDir, Write, WriteSet};
use crate::types::{
    LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicId, TransactionMarker, TransactionResult,
};

/// A log and the directory it lies in; every write is waited for.
pub(super) struct Bench {
    pub(super) dir: Arc<MemoryDir>,
    pub(super) log: PartitionLog,
    pub(super) tail_bytes: usize,
    id: PartitionId,
    pub(super) family: Family,
}

impl Bench {
    pub(super) fn new(config: LogConfig, tail_bytes: usize) -> Self {
        let topic_id = TopicId::from_random(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef).expect("a legal id");
        let id = PartitionId { topic: "t".into(), topic_id, partition: PartitionIndex(0) };
        let dir = MemoryDir::open();
        let family = dir.create(std::slice::from_ref(&id)).expect("created")[0];
        let log = open(&dir, &id, family, config, tail_bytes);
        Self { dir, log, tail_bytes, id, family }
    }

    /// As after a kill: nothing but the directory survives.
    pub(super) fn reopen(self) -> Self {
        let Self { dir, log, tail_bytes, id, family } = self;
        let config = *log.config();
        drop(log);
        dir.close();
        let dir = dir.reopen();
        let log = open(&dir, &id, family, config, tail_bytes);
        Self { dir, log, tail_bytes, id, family }
    }

    pub(super) fn commit(&self, writes: Vec<Write>) {
        let (sender, done) = channel();
        self.dir.commit(WriteSet { writes, sync: false }, Box::new(move |result| drop(sender.send(result))));
        done.recv().expect("done is called").expect("written");
    }

    pub(super) fn append(&mut self, batch: ValidBatch, now: UnixMs) -> Result<Appended, AppendError> {
        let mut writes = Vec::new();
        let appended = self.log.append(batch, LeaderEpoch(3), now, None, &mut writes)?;
        self.commit(writes);
        self.log.on_written(appended.last_offset);
        Ok(appended)
    }

    pub(super) fn change<T>(&mut self, change: impl FnOnce(&mut PartitionLog, &mut Vec<Write>) -> T) -> T {
        let mut writes = Vec::new();
        let result = change(&mut self.log, &mut writes);
        self.commit(writes);
        result
    }

    /// Offset, timestamp, key and value of every record that storage holds from the log start on.
    pub(super) fn stored(&self) -> Vec<Stored> {
        let read = self
            .log
            .reader()
            .read_storage(self.log.log_start_offset(), Offset::MAX, usize::MAX, true)
            .expect("readable");
        records(&read.batches, self.log.log_start_offset())
    }
}

/// What a log is, part by part.
pub(crate) type Facts = Vec<(&'static str, String)>;

impl PartitionLog {
    /// All that is known of it and all that it holds, to be compared with another replica's: batches, and the index of
    /// times by what it finds. A term without batches is the leader's alone.
    pub(crate) fn facts(&mut self, high_watermark: Offset) -> Facts {
        let (start, end) = (self.log_start_offset(), self.written_end_offset());
        let stable = self.last_stable_offset(high_watermark.min(end));
        let (state, reader) = (self.state(), self.reader());
        let epochs: Vec<_> = state.epochs().entries().iter().filter(|(_, start)| *start < end).collect();
        let aborted: Vec<_> = reader.shared.aborted.lock().iter().copied().collect();
        // Each replica has its own clock.
        let segments: Vec<_> =
            state.segments().iter().map(|&at| Segment { created_ms: 0, last_append_ms: 0, ..at }).collect();
        let batches = reader.read_storage(start, Offset::MAX, usize::MAX, true).expect("readable").batches;
        let times: Vec<_> = (-1..=LATEST_OF_FACTS)
            .step_by(7)
            .map(|at| reader.offset_for_timestamp(at, end).expect("readable"))
            .chain([reader.max_timestamp(end).expect("readable")])
            .collect();
        vec![
            ("ends", format!("{start} {end} {}", self.log_end_offset())),
            ("stable", stable.to_string()),
            ("epochs", format!("{epochs:?}")),
            ("producers", format!("{:#?}", state.producers().entries())),
            ("aborted", format!("{aborted:#?}")),
            ("size", state.segments().size_bytes().to_string()),
            ("segments", format!("{segments:#?}")),
            ("times", format!("{times:?}")),
            ("batches", format!("{batches:?}")),
        ]
    }
}

/// The latest timestamp of records whose logs are compared.
pub(crate) const LATEST_OF_FACTS: UnixMs = 2000;

/// Fails with what differs.
#[track_caller]
pub(crate) fn expect_same(found: &Facts, expected: &Facts, what: &str) {
    for ((part, found), (_, expected)) in found.iter().zip(expected) {
        let parts = found.lines().zip(expected.lines()).position(|(found, expected)| found != expected);
        let around = |text: &str| {
            let from = parts.unwrap_or(0).saturating_sub(20);
            text.lines().skip(from).take(24).collect::<Vec<_>>().join("\n")
        };
        assert!(found == expected, "{what}: {part} differ:\n{}\nexpected\n{}", around(found), around(expected));
    }
}

/// Producers that append to a log at random: none, idempotent ones, transactions and their ends.
#[derive(Debug)]
pub(crate) struct RandomProducers {
    clock: ManualClock,
    /// By id: epoch, next sequence, whether a transaction is open.
    known: [(i16, i32, bool); 5],
    coordinator_epoch: i32,
}

impl RandomProducers {
    pub(crate) fn new(seed: u64) -> Self {
        Self { clock: ManualClock::new(0, seed), known: [(0, 0, false); 5], coordinator_epoch: 0 }
    }

    /// A number below `below`.
    pub(crate) fn dice(&self, below: u64) -> u64 {
        (self.clock.random() as u64) % below
    }

    /// Appends one thing, and pushes what to write. `None`: it was refused, as what was cut off may make it.
    pub(crate) fn append(
        &mut self,
        log: &mut PartitionLog,
        epoch: LeaderEpoch,
        writes: &mut Vec<Write>,
    ) -> Option<Appended> {
        let id = self.dice(6) as i64 - 1;
        let Some(&(producer_epoch, sequence, open)) = usize::try_from(id).ok().and_then(|id| self.known.get(id)) else {
            return log.append(self.batch(BatchBuilder::new()), epoch, 0, None, writes).ok();
        };
        let at = id as usize;
        // The first two never use transactions.
        let transactional = id >= 2;
        if transactional && open && self.dice(3) == 0 {
            return self.end(log, id, epoch, writes);
        }
        if self.dice(12) == 0 && !open {
            self.known[at] = (producer_epoch + 1, 0, false);
            return None;
        }
        let id = ProducerId(id);
        let builder = BatchBuilder::new().producer(id, ProducerEpoch(producer_epoch), sequence);
        let builder = if transactional { builder.transactional() } else { builder };
        let batch = self.batch(builder);
        let count = batch.header.record_count;
        let guard = if transactional { log.begin_verification(id, ProducerEpoch(producer_epoch)) } else { None };
        match log.append(batch, epoch, 0, guard, writes) {
            Ok(appended) => {
                self.known[at] = (producer_epoch, sequence + count, transactional);
                Some(appended).filter(|appended| !appended.duplicate)
            }
            // What it had written before was cut off, or another leader does not have it: it begins anew.
            Err(_) => {
                self.known[at] = (producer_epoch + 1, 0, false);
                if open { self.end(log, id.0, epoch, writes) } else { None }
            }
        }
    }

    fn end(
        &mut self,
        log: &mut PartitionLog,
        id: i64,
        epoch: LeaderEpoch,
        writes: &mut Vec<Write>,
    ) -> Option<Appended> {
        let (producer_epoch, _, open) = &mut self.known[id as usize];
        *open = false;
        let producer_epoch = ProducerEpoch(*producer_epoch);
        self.coordinator_epoch += i32::from(self.dice(4) == 0);
        let result = if self.dice(2) == 0 { TransactionResult::Commit } else { TransactionResult::Abort };
        let coordinator_epoch = self.coordinator_epoch;
        let marker = TransactionMarker { producer_id: ProducerId(id), producer_epoch, coordinator_epoch, result };
        log.append_marker(&marker, epoch, self.dice(LATEST_OF_FACTS as u64) as i64, writes).ok()
    }

    fn batch(&self, mut builder: BatchBuilder) -> ValidBatch {
        let value = "v".repeat(self.dice(200) as usize);
        for _ in 0..=self.dice(3) {
            builder.append(self.dice(LATEST_OF_FACTS as u64) as i64, Some(b"k"), Some(value.as_bytes()));
        }
        builder.finish()
    }
}

/// Batches one after the other, as a fetch gives them.
pub(crate) fn joined(batches: &[Bytes]) -> Bytes {
    batches.concat().into()
}

fn open(dir: &Arc<MemoryDir>, id: &PartitionId, family: Family, config: LogConfig, tail_bytes: usize) -> PartitionLog {
    let dir: SharedLogDir = dir.clone();
    PartitionLog::open(dir, id.clone(), family, config, Tail::new(tail_bytes), 0).expect("opens")
}

pub(super) type Stored = (i64, UnixMs, String, Option<String>);

pub(super) fn records(batches: &[Bytes], from: Offset) -> Vec<Stored> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
    let mut found = Vec::new();
    for batch in batches {
        for_each_record(batch, 1 << 20, |record| {
            if record.offset >= from {
                let key = record.key.map_or(String::new(), text);
                found.push((record.offset.0, record.timestamp, key, record.value.map(text)));
            }
            std::ops::ControlFlow::Continue(())
        })
        .expect("a well-formed batch");
    }
    found
}

/// A batch of `(timestamp, key, value)` as a client sends it.
pub(super) fn batch(records: &[(UnixMs, &str, Option<&str>)]) -> ValidBatch {
    let mut builder = BatchBuilder::new();
    for (timestamp, key, value) in records {
        builder.append(*timestamp, Some(key.as_bytes()), value.map(str::as_bytes));
    }
    builder.finish()
}

pub(super) fn from_producer(id: i64, epoch: i16, sequence: i32, count: i32) -> ValidBatch {
    let mut builder = BatchBuilder::new().producer(ProducerId(id), ProducerEpoch(epoch), sequence);
    for _ in 0..count {
        builder.append(0, Some(b"k"), Some(b"v"));
    }
    builder.finish()
}
