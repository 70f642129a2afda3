//! What tests of a log share: a log over the directory's twin in memory, batches, and what is stored in the end.

use std::sync::Arc;
use std::sync::mpsc::channel;

use bytes::Bytes;

use crate::clock::UnixMs;
use crate::log::config::LogConfig;
use crate::log::partition_log::{AppendError, Appended, PartitionLog};
use crate::log::reading::tail::Tail;
use crate::record::{BatchBuilder, ValidBatch, for_each_record};
use crate::storage::testing::memory::MemoryDir;
use crate::storage::{Family, LogDir, PartitionId, SharedLogDir, Write, WriteSet};
use crate::types::{LeaderEpoch, Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicId};

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
