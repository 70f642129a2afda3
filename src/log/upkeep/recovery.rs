//! Opening a log: side records, then the headers of the few batches behind the last checkpoint. Also cutting its end.
//!
//! Side records speak of what was written before the last checkpoint or a little more, and a kill may leave batches
//! without theirs. A loss of power may cut either shorter than the other:
//! - batches longer: their headers are read and applied, as after a kill;
//! - side records longer: everything that speaks of offsets beyond the last batch is dropped, the active segment is
//!   read again from its start, and the corrections go with the next write set. The log then says that it has lost its
//!   end ([`PartitionLog::has_lost_its_end`]).
//!
//! Transactions follow their batches either way: data opens them, markers end them, and the index of aborted ones gains
//! what is missing and loses what is too much.
//!
//! A log ends with a batch (I-26): where none is left below the end, though the log start has not passed it, a batch
//! without records takes the last offset. Otherwise no fetch would ever bring a reader to the end; and taking the end
//! back would give offsets twice. That is so in logs which earlier versions compacted, and where a log is cut inside of
//! a gap. The same holds for the first offset of an open transaction, where readers of committed records stop.
//!
//! Costs four seeks and the headers of 64 KiB of batches, or of a few large ones, so a thousand logs open in well under
//! a second.

use std::collections::{HashSet, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;

use crate::clock::UnixMs;
use crate::log::config::LogConfig;
use crate::log::partition_log::{PartitionLog, put_epochs};
use crate::log::reading::ahead::Ahead;
use crate::log::reading::read::{LogReader, Published, Shared};
use crate::log::reading::tail::Tail;
use crate::log::side::{self, Checkpoint, Cleaned, SideKeys, SideRecord};
use crate::log::state::aborted::AbortedIndex;
use crate::log::state::leader_epochs::LeaderEpochs;
use crate::log::state::producer_state::{Cut, ProducerStates};
use crate::log::state::segments::{NO_TIMESTAMP, Segment, Segments};
use crate::log::state::timestamps::TimeIndex;
use crate::log::state::verification::Verifications;
use crate::record::BatchHeader;
use crate::record::build::empty_batch;
use crate::record::control::read_marker;
use crate::storage::{Family, PartitionId, SharedLogDir, StorageError, Write};
use crate::types::{LeaderEpoch, Offset, ProducerId};

/// What the side records of a partition say.
#[derive(Debug, Default)]
struct Sides {
    log_start: Offset,
    log_end: Offset,
    cleaned: Cleaned,
    checkpoint: Option<Checkpoint>,
    epochs: LeaderEpochs,
    producers: ProducerStates,
    aborted: AbortedIndex,
    segments: VecDeque<Segment>,
}

impl PartitionLog {
    /// Opens the log of a partition that the directory holds. Blocks on the disk. Writes nothing.
    pub(crate) fn open(
        dir: SharedLogDir,
        id: PartitionId,
        family: Family,
        config: LogConfig,
        tail: Arc<Tail>,
        now: UnixMs,
    ) -> Result<Self, StorageError> {
        let keys = SideKeys::new(&id);
        let (published, closed) = (Mutex::new(Published::default()), AtomicBool::new(false));
        let (slot, ahead) = (Arc::default(), Ahead::new(Arc::clone(&tail.ahead)));
        let aborted = Mutex::default();
        let shared = Shared { dir, family, keys, slot, ahead, published, aborted, closed };
        let reader = LogReader { shared: Arc::new(shared) };
        let sides = read_sides(&reader)?;
        *reader.shared.aborted.lock() = sides.aborted;
        let last = reader.shared.dir.last_batch(family)?.map_or(Offset::NONE, |(last_offset, _)| last_offset);
        let log_end = (last + 1).max(sides.log_start).max(sides.log_end);
        let active = match (&sides.checkpoint, sides.segments.back()) {
            (Some(checkpoint), _) => checkpoint.active,
            (None, Some(closed)) => Segment::empty(closed.end_offset, now),
            (None, None) => Segment::empty(sides.log_start, now),
        };
        let indexed_max = sides.segments.iter().chain([&active]).map(|segment| segment.max_timestamp).max();
        let mut log = Self {
            config,
            tail,
            reader,
            log_start: sides.log_start,
            log_end,
            written_end: log_end,
            epochs: sides.epochs,
            producers: sides.producers,
            verifications: Verifications::default(),
            times: TimeIndex::new(indexed_max.unwrap_or(NO_TIMESTAMP)),
            segments: Segments::new(sides.segments, active),
            cleaned: Cleaned { up_to: sides.cleaned.up_to.max(sides.log_start), ..sides.cleaned },
            unrecorded_bytes: 0,
            pending: VecDeque::new(),
            repairs: Vec::new(),
            end_lost: false,
        };
        let mut repairs = Vec::new();
        // A term that begins at the end, without a batch, is nothing odd.
        let beyond = log.epochs.truncate_from_end(log_end + 1);
        log.end_lost = active.end_offset > log_end || !beyond.removed.is_empty();
        put_epochs(&log.keys(), beyond, &mut repairs);
        log.cut_aborted(log_end, &mut repairs);
        if active.end_offset > log_end {
            log.cut_side_records(log_end, now, &mut repairs)?;
            log.cover_ends(true, log_end, now, &mut repairs)?;
        } else {
            log.apply_headers(active.end_offset, now, None, &mut repairs)?;
            log.cover_ends(last + 1 < log_end, log.cleaned.up_to, now, &mut repairs)?;
        }
        log.repairs = repairs;
        log.publish_facts();
        Ok(log)
    }

    /// Removes every batch that contains or follows `to`, and what is known about them. For what was never shown to
    /// consumers: followers do this, and whoever opens a log anew after a refused write. No write may be under way.
    /// Blocks on the disk. Source: Kafka `UnifiedLog.truncateTo`.
    pub(crate) fn truncate_to(&mut self, to: Offset, now: UnixMs, writes: &mut Vec<Write>) -> Result<(), StorageError> {
        assert!(self.pending.is_empty(), "a follower waits for its writes before it truncates");
        writes.append(&mut self.repairs);
        if to >= self.log_end {
            // A leader may have begun a term here that another one ended before there was a batch. Were it kept, the
            // logs would seem to part at the same place for ever.
            put_epochs(&self.keys(), self.epochs.truncate_from_end(self.log_end), writes);
            return Ok(());
        }
        let to = to.max(self.log_start);
        let mut new_end = to;
        let dir = &self.reader.shared.dir;
        dir.scan(self.reader.shared.family, to, 0, &mut |_, batch| {
            if let Ok(header) = BatchHeader::parse(&batch) {
                new_end = to.min(header.base_offset).max(self.log_start);
            }
            ControlFlow::Break(())
        })?;
        let family = self.reader.shared.family;
        writes.push(Write::DeleteBatches { family, last_offsets: to..self.log_end });
        // An earlier version may have written a higher one.
        writes.push(Write::DeleteSide { key: self.keys().log_end() });
        self.forget_in_memory(Offset::MAX);
        self.log_end = new_end;
        self.written_end = new_end;
        self.cut_side_records(new_end, now, writes)?;
        self.cover_ends(true, new_end, now, writes)?;
        self.publish_facts();
        Ok(())
    }

    /// Sees to it that a batch ends wherever readers are told to stop (I-26): at the log end, if `log_end_too`, and
    /// where undecided transactions begin, up to `gaps_up_to`.
    fn cover_ends(
        &mut self,
        log_end_too: bool,
        gaps_up_to: Offset,
        now: UnixMs,
        writes: &mut Vec<Write>,
    ) -> Result<(), StorageError> {
        let mut ends = self.producers.undecided_up_to(gaps_up_to);
        ends.extend(log_end_too.then_some(self.log_end));
        ends.retain(|&end| end > self.log_start);
        for last_offset in ends.into_iter().map(|end| end + -1) {
            if !self.holds_end(last_offset)? {
                self.put_empty(last_offset, now, writes);
            }
        }
        Ok(())
    }

    /// Whether storage has a batch that ends with this offset.
    fn holds_end(&self, offset: Offset) -> Result<bool, StorageError> {
        let mut found = false;
        self.reader.shared.dir.scan(self.reader.shared.family, offset, 0, &mut |last_offset, _| {
            found = last_offset == offset;
            ControlFlow::Break(())
        })?;
        Ok(found)
    }

    /// Gives an offset below the log end, which no batch holds any more, to one without records.
    fn put_empty(&mut self, offset: Offset, now: UnixMs, writes: &mut Vec<Write>) {
        let epoch = self.epoch_at(offset).unwrap_or(LeaderEpoch::NONE);
        let batch = empty_batch(offset, epoch).bytes.freeze();
        if let Some(closed) = self.segments.add_below_end(offset, batch.len() as u64, now) {
            let key = self.keys().segment(closed.base_offset);
            writes.push(Write::Side { key, value: side::encode_segment(&closed) });
        }
        writes.push(Write::Batch { family: self.reader.shared.family, last_offset: offset, batch });
        // What an earlier version wrote there has been replaced.
        writes.push(Write::DeleteSide { key: self.keys().log_end() });
        self.put_checkpoint(writes);
    }

    /// Drops what side records say at or above `log_end` and reads the segment that is cut again from its start.
    fn cut_side_records(&mut self, log_end: Offset, now: UnixMs, writes: &mut Vec<Write>) -> Result<(), StorageError> {
        let keys = self.keys();
        for segment in self.segments.drop_from(log_end) {
            writes.push(Write::DeleteSide { key: keys.segment(segment.base_offset) });
        }
        let base = self.segments.closed.back().map_or(self.log_start, |closed| closed.end_offset).min(log_end);
        self.segments.active = Segment::empty(base, now);
        put_epochs(&keys, self.epochs.truncate_from_end(log_end), writes);
        self.cut_aborted(log_end, writes);
        let Cut { transactional, others } = self.producers.truncate(log_end);
        let closed_max = self.segments.closed.iter().map(|segment| segment.max_timestamp).max();
        self.times = TimeIndex::new(closed_max.unwrap_or(NO_TIMESTAMP));
        self.replay_transactions(base, &transactional, now, writes)?;
        // A producer that keeps some batches keeps its sequence; of the others the cut segment may know older ones.
        let cut: HashSet<ProducerId> = transactional.union(&others).copied().collect();
        self.apply_headers(base, now, Some((log_end, &cut)), writes)?;
        for id in cut.into_iter().filter(|&id| !self.producers.contains(id)) {
            writes.push(Write::DeleteSide { key: keys.producer(id) });
        }
        writes.push(Write::DeleteSides { keys: keys.times_from(self.times.running_max()) });
        self.times.forget_newest();
        self.cleaned.up_to = self.cleaned.up_to.min(base.max(self.log_start));
        writes.push(Write::Side { key: keys.cleaned(), value: side::encode_cleaned(self.cleaned) });
        self.put_checkpoint(writes);
        Ok(())
    }

    fn cut_aborted(&self, log_end: Offset, writes: &mut Vec<Write>) {
        if self.reader.shared.aborted.lock().drop_from(log_end) {
            writes.push(Write::DeleteSides { keys: self.keys().aborted_from(log_end) });
        }
    }

    /// Reads the whole log below `upto` again for producers whose transactions were cut: an open one may have begun
    /// anywhere. Rare, and dear where the log is large.
    fn replay_transactions(
        &mut self,
        upto: Offset,
        lost: &HashSet<ProducerId>,
        now: UnixMs,
        writes: &mut Vec<Write>,
    ) -> Result<(), StorageError> {
        if lost.is_empty() {
            return Ok(());
        }
        let reader = self.reader.clone();
        let mut bad = None;
        reader.visit_headers(self.log_start, upto, |last_offset, header, batch| {
            if lost.contains(&header.producer_id) {
                bad = self.apply_producer(last_offset, header, batch, now, writes).err();
            }
            if bad.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        bad.map_or(Ok(()), Err)
    }

    /// What a batch says about its producer.
    fn apply_producer(
        &mut self,
        last_offset: Offset,
        header: &BatchHeader,
        batch: &[u8],
        now: UnixMs,
        writes: &mut Vec<Write>,
    ) -> Result<(), StorageError> {
        if !header.is_control() {
            self.producers.record(header, last_offset, header.max_timestamp, now);
        } else if let Some(marker) = read_marker(header, batch).map_err(|error| self.reader.damaged(error))? {
            self.end_transaction(&marker, last_offset, now, writes);
        }
        Ok(())
    }

    /// Applies the headers of the batches from `from` on, as their appends did. After a cut: those below its end, and
    /// of the producers only those that lost everything.
    fn apply_headers(
        &mut self,
        from: Offset,
        now: UnixMs,
        cut: Option<(Offset, &HashSet<ProducerId>)>,
        writes: &mut Vec<Write>,
    ) -> Result<(), StorageError> {
        let (reader, keys) = (self.reader.clone(), self.keys());
        let upto = cut.map_or(self.log_end, |(log_end, _)| log_end);
        if from >= upto {
            return Ok(());
        }
        let mut bad = None;
        reader.visit_headers(from, upto, |last_offset, header, batch| {
            if self.epochs.is_news(header.partition_leader_epoch) {
                put_epochs(&keys, self.epochs.assign(header.partition_leader_epoch, header.base_offset), writes);
            }
            if cut.is_none_or(|(_, lost)| lost.contains(&header.producer_id)) {
                bad = self.apply_producer(last_offset, header, batch, now, writes).err();
            }
            self.segments.active.push(last_offset, batch.len() as u64, header.max_timestamp, now);
            self.times.on_batch(header.max_timestamp);
            self.unrecorded_bytes += batch.len() as u64;
            if bad.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        bad.map_or(Ok(()), Err)
    }
}

fn read_sides(reader: &LogReader) -> Result<Sides, StorageError> {
    let mut sides = Sides::default();
    let keys = reader.shared.keys;
    for range in [keys.facts_and_epochs(), keys.producers_and_segments()] {
        let mut bad = None;
        reader.shared.dir.scan_sides(range, &mut |key, value| {
            match SideRecord::decode(key, value) {
                Ok(SideRecord::LogStart(offset)) => sides.log_start = offset,
                Ok(SideRecord::LogEnd(offset)) => sides.log_end = offset,
                Ok(SideRecord::Cleaned(cleaned)) => sides.cleaned = cleaned,
                Ok(SideRecord::Checkpoint(checkpoint)) => sides.checkpoint = Some(checkpoint),
                Ok(SideRecord::Epoch(epoch, start)) => drop(sides.epochs.assign(epoch, start)),
                Ok(SideRecord::Time(..)) => {}
                Ok(SideRecord::Producer(id, entry)) => sides.producers.restore(id, entry),
                Ok(SideRecord::Aborted(transaction)) => drop(sides.aborted.add(transaction)),
                Ok(SideRecord::Segment(segment)) => sides.segments.push_back(segment),
                Err(error) => {
                    bad = Some(error);
                    return ControlFlow::Break(());
                }
            }
            ControlFlow::Continue(())
        })?;
        if let Some(error) = bad {
            return Err(reader.damaged(error));
        }
    }
    Ok(sides)
}
