//! Reading a log without its lock: whole batches by offset, and records by time.
//!
//! Bytes are lent from the tail or copied once out of storage, as they were stored (I-4). How far a caller may read is
//! the caller's knowledge: every call takes an exclusive upper bound (high watermark, last stable offset, log end).

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::BytesMut;
use parking_lot::Mutex;
use tracing::debug;

use crate::clock::UnixMs;
pub(crate) use crate::log::reading::batches::Read;
use crate::log::reading::read_ahead::ReadAhead;
use crate::log::reading::ring::RingSlot;
use crate::log::reading::tail::Tail;
use crate::log::side::{SideKeys, SideRecord};
use crate::log::state::aborted::{AbortedIndex, AbortedTransaction};
use crate::record::{BatchHeader, for_each_record};
use crate::storage::{Family, SharedLogDir, StorageError};
use crate::types::limits::DECOMPRESSED_BATCH_BYTES_MAX;
use crate::types::{LeaderEpoch, Offset};

/// Buffer that one read from storage fills before it takes the next one; a larger batch gets its own.
const READ_CHUNK_BYTES: usize = 256 << 10;

/// So many failures of reads of one log are told.
const TOLD_MAX: usize = 1000;

/// A record found by time: its timestamp, its offset, the leader epoch it was appended under.
pub(crate) type FoundRecord = (UnixMs, Offset, LeaderEpoch);

/// Reads one partition. Cheap to clone; used without the partition's lock.
#[derive(Debug, Clone)]
pub(crate) struct LogReader {
    pub(in crate::log) shared: Arc<SharedLog>,
}

/// What the log and its readers share.
#[derive(Debug)]
pub(in crate::log) struct SharedLog {
    pub(in crate::log) dir: SharedLogDir,
    pub(in crate::log) family: Family,
    pub(in crate::log) keys: SideKeys,
    pub(in crate::log) slot: Arc<RingSlot>,
    pub(in crate::log) read_ahead: ReadAhead,
    pub(in crate::log) published: Mutex<Published>,
    /// Noted when the marker gets its offset: readers that stop at the last stable offset do not see it before.
    pub(in crate::log) aborted: Arc<Mutex<AbortedIndex>>,
    /// The family may belong to another partition by now.
    pub(in crate::log) closed: AtomicBool,
    /// Failures of reads that a line has told of.
    pub(in crate::log) told: Mutex<BTreeSet<String>>,
}

/// Facts that readers need, moved by the log when they are durable.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::log) struct Published {
    pub(in crate::log) log_start_offset: Offset,
    /// The largest timestamp and the last offset of the first batch that has it.
    pub(in crate::log) max_timestamp: Option<(UnixMs, Offset)>,
}

impl LogReader {
    pub(in crate::log) fn new(dir: SharedLogDir, family: Family, keys: SideKeys, tail: &Tail) -> Self {
        let (published, closed) = (Mutex::default(), AtomicBool::new(false));
        let (slot, read_ahead) = (Arc::default(), ReadAhead::new(Arc::clone(&tail.read_ahead)));
        let (aborted, told) = (Arc::default(), Mutex::default());
        let shared = SharedLog { dir, family, keys, slot, read_ahead, published, aborted, closed, told };
        Self { shared: Arc::new(shared) }
    }

    /// Whether it is news that this cannot be read: whoever wants it asks again and again, for each of its offsets, and
    /// a line for each time would fill disks.
    pub(crate) fn is_news(&self, failure: &StorageError) -> bool {
        let mut told = self.shared.told.lock();
        told.len() < TOLD_MAX && told.insert(failure.to_string())
    }

    /// Whole batches from the one that contains `from` to the last one that ends before `upto`, at most `max_bytes` of
    /// them (but one, whatever its size, if `at_least_one`). `None`: `from` is not in the tail and was not read ahead.
    /// Never blocks.
    pub(crate) fn read_memory(&self, from: Offset, upto: Offset, max_bytes: usize, at_least_one: bool) -> Option<Read> {
        let read = self.shared.slot.read(from, upto, max_bytes, at_least_one);
        read.or_else(|| self.shared.read_ahead.read(from, upto, max_bytes, at_least_one))
    }

    /// As [`Self::read_memory`], and from storage what is not there. May block on the disk.
    ///
    /// `from` below the log start reads from the first batch there is; whether that is allowed the caller has decided.
    pub(crate) fn read(
        &self,
        from: Offset,
        upto: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Read, StorageError> {
        let in_memory = || self.read_memory(from, upto, max_bytes, at_least_one);
        let read = in_memory().or_else(|| if self.shared.read_ahead.wait() { in_memory() } else { None });
        match read {
            Some(read) => Ok(read),
            None => self.read_storage(from, upto, max_bytes, at_least_one),
        }
    }

    /// As [`Self::read`], but never from memory. What cannot be read ends it, and fails the read that begins there.
    pub(in crate::log) fn read_storage(
        &self,
        from: Offset,
        upto: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Read, StorageError> {
        let mut read = Read { behind_tail: true, ..Read::default() };
        let mut chunk = BytesMut::new();
        let outcome = self.shared.dir.scan(self.shared.family, from, max_bytes, &mut |last_offset, batch| {
            if last_offset >= upto || !read.admits(batch.len(), max_bytes, at_least_one) {
                return ControlFlow::Break(());
            }
            let kept = batch.shared().unwrap_or_else(|| {
                if chunk.capacity() - chunk.len() < batch.len() {
                    let wanted = max_bytes.saturating_sub(read.bytes).min(READ_CHUNK_BYTES);
                    chunk = BytesMut::with_capacity(wanted.max(batch.len()));
                }
                chunk.extend_from_slice(&batch);
                chunk.split().freeze()
            });
            read.push(kept, last_offset);
            // Storage reads a batch before it can be refused. Neighbours are mostly of one size: where another like
            // this one would be too much, it is not even looked at.
            if read.bytes + batch.len() > max_bytes { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        match outcome {
            Err(failure) if read.bytes > 0 => debug!(%failure, "the rest of a stretch cannot be read"),
            outcome => outcome?,
        }
        self.still_open()?;
        Ok(read)
    }

    /// Whether the log was closed: the partition was deleted, has moved to another directory, or the broker stops.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::SeqCst)
    }

    pub(in crate::log) fn still_open(&self) -> Result<(), StorageError> {
        if self.is_closed() {
            return Err(self.damaged("the partition was closed during a read"));
        }
        Ok(())
    }

    /// Aborted transactions with offsets in `from..upto`, by first offset. `None`: the log start has passed `from`,
    /// and what was read from there may hold aborted records. Never blocks on the disk.
    pub(crate) fn aborted_transactions(&self, from: Offset, upto: Offset) -> Option<Vec<AbortedTransaction>> {
        self.shared.aborted.lock().overlapping(from, upto)
    }

    /// The first record at or above the log start and below `upto` whose timestamp is at least `timestamp`. May block.
    pub(crate) fn offset_for_timestamp(
        &self,
        timestamp: UnixMs,
        upto: Offset,
    ) -> Result<Option<FoundRecord>, StorageError> {
        let log_start = self.shared.published.lock().log_start_offset;
        let from = log_start.max(self.first_that_may_reach(timestamp)?);
        self.find(from, upto, |header| header.max_timestamp >= timestamp, |at| at >= timestamp)
    }

    /// The first record with the largest timestamp of all below `upto`. May block.
    pub(crate) fn max_timestamp(&self, upto: Offset) -> Result<Option<FoundRecord>, StorageError> {
        let Published { log_start_offset: log_start, max_timestamp } = *self.shared.published.lock();
        if let Some((max, batch)) = max_timestamp
            && batch < upto
            && let Some(found) = self.find(batch, batch + 1, |_| true, |at| at == max)?
            && found.1 >= log_start
        {
            return Ok(Some(found));
        }
        // The record was compacted away or lies outside of what may be seen: look at every header once.
        let mut largest = None;
        self.visit_headers(log_start, upto, |_, header, _| {
            if header.record_count > 0 && header.max_timestamp > largest.map_or(-1, |(max, _)| max) {
                largest = Some((header.max_timestamp, header.last_offset()));
            }
            ControlFlow::Continue(())
        })?;
        let Some((max, batch)) = largest else { return Ok(None) };
        self.find(batch, batch + 1, |_| true, |at| at == max)
    }

    /// An offset below which no record is as young as `timestamp`.
    fn first_that_may_reach(&self, timestamp: UnixMs) -> Result<Offset, StorageError> {
        let Some(below) = timestamp.checked_sub(1) else { return Ok(Offset::ZERO) };
        let mut found = Ok(Offset::ZERO);
        self.shared.dir.scan_sides(self.shared.keys.times_up_to(below), &mut |key, value| {
            found = match SideRecord::decode(key, value) {
                Ok(SideRecord::Time(last_offset)) => Ok(last_offset + 1),
                Ok(_) => Ok(Offset::ZERO),
                Err(bad) => Err(self.damaged(bad)),
            };
            ControlFlow::Break(())
        })?;
        found
    }

    /// The first record at or above both `from` and the log start, in a batch that ends before `upto` and passes
    /// `may_hold`, whose timestamp passes `wanted`.
    fn find(
        &self,
        from: Offset,
        upto: Offset,
        may_hold: impl Fn(&BatchHeader) -> bool,
        wanted: impl Fn(UnixMs) -> bool,
    ) -> Result<Option<FoundRecord>, StorageError> {
        let log_start = self.shared.published.lock().log_start_offset;
        let mut found = Ok(None);
        self.visit_headers(from, upto, |_, header, batch| {
            if !may_hold(header) || header.is_control() {
                return ControlFlow::Continue(());
            }
            let walked = for_each_record(batch, DECOMPRESSED_BATCH_BYTES_MAX, |record| {
                if record.offset >= log_start && wanted(record.timestamp) {
                    found = Ok(Some((record.timestamp, record.offset, header.partition_leader_epoch)));
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            });
            if let Err(bad) = walked {
                found = Err(self.damaged(bad));
            }
            match found {
                Ok(None) => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        })?;
        found
    }

    /// Visits header and bytes of every batch from `from` on that ends before `upto`, from storage.
    pub(crate) fn visit_headers(
        &self,
        from: Offset,
        upto: Offset,
        mut visit: impl FnMut(Offset, &BatchHeader, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StorageError> {
        let mut bad = None;
        self.shared.dir.scan(self.shared.family, from, 0, &mut |last_offset, batch| {
            if last_offset >= upto {
                return ControlFlow::Break(());
            }
            match BatchHeader::parse(&batch) {
                Ok(header) => visit(last_offset, &header, &batch),
                Err(error) => {
                    bad = Some(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        self.still_open()?;
        bad.map_or(Ok(()), |error| Err(self.damaged(error)))
    }

    /// The error for bytes that storage returned and that cannot be what was written.
    pub(in crate::log) fn damaged(&self, reason: impl std::fmt::Display) -> StorageError {
        StorageError::Read {
            dir: self.shared.dir.path(),
            reason: format!("partition family {}: {reason}", self.shared.family.0).into(),
        }
    }
}
