//! All that a log knows beside its batches, in one place: the parts change together, and each change pushes the side
//! records that say it. Pure: no I/O, no offsets given (they come with the batches).
//!
//! `partition_log` owns it and is alone in changing it while the log is open. `recovery` restores it from side records
//! and batches, and cuts it.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::clock::UnixMs;
use crate::log::config::LogConfig;
use crate::log::side::{self, Checkpoint, Cleaned, SideKeys, SideRecord};
use crate::log::state::aborted::{AbortedIndex, AbortedRanges, AbortedTransaction};
use crate::log::state::leader_epochs::{EpochsChanged, LeaderEpochs};
use crate::log::state::producer_state::{ProducerEntry, ProducerStates};
use crate::log::state::segments::{NO_TIMESTAMP, Segment, Segments};
use crate::log::state::timestamps::TimeIndex;
use crate::record::BatchHeader;
use crate::record::build::empty_batch;
use crate::storage::{Family, Write};
use crate::types::{LeaderEpoch, Offset, ProducerId, TransactionMarker};

/// What the side records of a partition say.
#[derive(Debug, Default)]
pub(in crate::log) struct Sides {
    log_start: Offset,
    log_end: Offset,
    high_watermark: Option<Offset>,
    cleaned: Cleaned,
    checkpoint: Option<Checkpoint>,
    epochs: LeaderEpochs,
    producers: ProducerStates,
    aborted: AbortedIndex,
    segments: VecDeque<Segment>,
}

impl Sides {
    /// Takes in one record. They come in the order of their keys.
    pub(in crate::log) fn add(&mut self, record: SideRecord) {
        match record {
            SideRecord::LogStart(offset) => self.log_start = offset,
            SideRecord::LogEnd(offset) => self.log_end = offset,
            SideRecord::HighWatermark(offset) => self.high_watermark = Some(offset),
            SideRecord::Cleaned(cleaned) => self.cleaned = cleaned,
            SideRecord::Checkpoint(checkpoint) => self.checkpoint = Some(checkpoint),
            SideRecord::Epoch(epoch, start) => drop(self.epochs.assign(epoch, start)),
            SideRecord::Time(..) => {}
            SideRecord::Producer(id, entry) => self.producers.restore(id, entry),
            SideRecord::Aborted(transaction) => drop(self.aborted.add(transaction)),
            SideRecord::Segment(segment) => self.segments.push_back(segment),
        }
    }
}

/// A cut that has begun: what must be read again before it can end.
#[derive(Debug)]
pub(in crate::log) struct Cutting {
    /// Where the segment begins that was cut; its batches are to be replayed.
    pub(in crate::log) base: Offset,
    /// Those that lost something.
    pub(in crate::log) lost: HashSet<ProducerId>,
}

/// The state of one log. A clone shares the index of aborted transactions; see [`Self::detached`].
#[derive(Debug, Clone)]
pub(in crate::log) struct LogState {
    keys: SideKeys,
    family: Family,
    log_start: Offset,
    log_end: Offset,
    epochs: LeaderEpochs,
    producers: ProducerStates,
    /// Shared with the readers.
    aborted: Arc<Mutex<AbortedIndex>>,
    segments: Segments,
    times: TimeIndex,
    cleaned: Cleaned,
    /// As it was recorded last; not above the log end.
    high_watermark: Option<Offset>,
    /// Bytes appended since the last checkpoint.
    unrecorded_bytes: u64,
    snapshots: Snapshots,
}

/// Snapshots of producers, from which a cut begins to read. Two are kept, since a cut may reach behind the newest.
#[derive(Debug, Clone, Copy)]
struct Snapshots {
    /// Where the log ended at the last two; `None`: those of an earlier opening are not known.
    last: Option<[Offset; 2]>,
    /// Bytes of segments that were closed since the newest.
    closed_bytes: u64,
}

/// A snapshot saves a cut so many times its own size of reading at least.
const SNAPSHOT_SAVES: u64 = 16;
/// About what one producer takes in it.
const SNAPSHOT_PRODUCER_BYTES: u64 = 190;

impl LogState {
    /// What side records and the last offset of the last batch (−1: there is none) say.
    pub(in crate::log) fn restore(
        keys: SideKeys,
        family: Family,
        aborted: Arc<Mutex<AbortedIndex>>,
        sides: Sides,
        last: Offset,
        now: UnixMs,
    ) -> Self {
        *aborted.lock() = sides.aborted;
        let active = match (&sides.checkpoint, sides.segments.back()) {
            (Some(checkpoint), _) => checkpoint.active,
            (None, Some(closed)) => Segment::empty(closed.end_offset, now),
            (None, None) => Segment::empty(sides.log_start, now),
        };
        let closed_bytes: u64 = sides.segments.iter().map(|segment| segment.bytes).sum();
        let indexed_max = sides.segments.iter().chain([&active]).map(|segment| segment.max_timestamp).max();
        Self {
            keys,
            family,
            log_start: sides.log_start,
            log_end: (last + 1).max(sides.log_start).max(sides.log_end),
            epochs: sides.epochs,
            producers: sides.producers,
            aborted,
            times: TimeIndex::new(indexed_max.unwrap_or(NO_TIMESTAMP)),
            segments: Segments::new(sides.segments, active),
            cleaned: Cleaned { up_to: sides.cleaned.up_to.max(sides.log_start), ..sides.cleaned },
            high_watermark: sides.high_watermark,
            snapshots: Snapshots { last: None, closed_bytes },
            unrecorded_bytes: 0,
        }
    }

    /// A copy that shares nothing with the readers, to be [adopted](Self::adopt) or thrown away.
    pub(in crate::log) fn detached(&self) -> Self {
        let aborted = Arc::new(Mutex::new(self.aborted.lock().clone()));
        Self { aborted, ..self.clone() }
    }

    /// Becomes what a copy was made to be; so do the readers' parts.
    pub(in crate::log) fn adopt(&mut self, copy: Self) {
        let aborted = Arc::clone(&self.aborted);
        *aborted.lock() = std::mem::take(&mut *copy.aborted.lock());
        *self = Self { aborted, ..copy };
    }

    pub(in crate::log) fn family(&self) -> Family {
        self.family
    }

    pub(in crate::log) fn log_start(&self) -> Offset {
        self.log_start
    }

    pub(in crate::log) fn log_end(&self) -> Offset {
        self.log_end
    }

    pub(in crate::log) fn epochs(&self) -> &LeaderEpochs {
        &self.epochs
    }

    pub(in crate::log) fn producers(&self) -> &ProducerStates {
        &self.producers
    }

    pub(in crate::log) fn segments(&self) -> &Segments {
        &self.segments
    }

    /// The high watermark as it was recorded last.
    pub(in crate::log) fn recorded_high_watermark(&self) -> Option<Offset> {
        self.high_watermark
    }

    /// How far compaction has come.
    pub(in crate::log) fn cleaned(&self) -> Cleaned {
        self.cleaned
    }

    /// Whose records were aborted, by producer.
    pub(in crate::log) fn aborted_ranges(&self) -> AbortedRanges {
        self.aborted.lock().by_producer()
    }

    /// Where the first transaction begins that is not decided below the high watermark.
    pub(in crate::log) fn first_unstable(&mut self, high_watermark: Offset) -> Option<Offset> {
        self.producers.first_unstable(high_watermark)
    }

    /// The leader epoch under which `offset` was or will be appended.
    pub(in crate::log) fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let entries = self.epochs.entries();
        let begun = entries.partition_point(|&(_, start)| start <= offset);
        Some(entries[begun.checked_sub(1)?].0)
    }

    /// Notes that `epoch` begins at the log end.
    pub(in crate::log) fn assign_epoch(&mut self, epoch: LeaderEpoch, writes: &mut Vec<Write>) {
        let changed = self.epochs.assign(epoch, self.log_end);
        self.put_epochs(changed, writes);
    }

    /// Notes the batch that is being appended at the log end or, by a follower, beyond it; a marker's if there is one.
    /// True: the active segment was closed before it.
    pub(in crate::log) fn append(
        &mut self,
        header: &BatchHeader,
        len: u64,
        marker: Option<&TransactionMarker>,
        config: &LogConfig,
        now: UnixMs,
        writes: &mut Vec<Write>,
    ) -> bool {
        let (last_offset, timestamp) = (header.last_offset(), header.max_timestamp);
        let rolled = self.segments.active().should_roll(config, len, timestamp, now);
        if rolled {
            self.roll(now, writes);
        }
        if self.epochs.latest() != Some(header.partition_leader_epoch) {
            // A follower's batch may begin behind a gap.
            let changed = self.epochs.assign(header.partition_leader_epoch, header.base_offset);
            self.put_epochs(changed, writes);
        }
        match marker {
            None => self.producers.record(header, last_offset, timestamp, now),
            Some(marker) => self.end_transaction(marker, last_offset, now, writes),
        }
        self.count(last_offset, len, timestamp, now);
        self.log_end = last_offset + 1;
        rolled
    }

    /// Notes what a stored batch says apart from its producer, as its append did.
    pub(in crate::log) fn replay(
        &mut self,
        last_offset: Offset,
        header: &BatchHeader,
        len: u64,
        now: UnixMs,
        writes: &mut Vec<Write>,
    ) {
        if self.epochs.is_news(header.partition_leader_epoch) {
            let changed = self.epochs.assign(header.partition_leader_epoch, header.base_offset);
            self.put_epochs(changed, writes);
        }
        self.count(last_offset, len, header.max_timestamp, now);
    }

    /// Notes what a stored batch says of its producer. `marker`: what it holds if it is a control batch.
    pub(in crate::log) fn replay_producer(
        &mut self,
        last_offset: Offset,
        header: &BatchHeader,
        marker: Option<&TransactionMarker>,
        now: UnixMs,
        writes: &mut Vec<Write>,
    ) {
        match marker {
            Some(marker) => self.end_transaction(marker, last_offset, now, writes),
            None => self.producers.record(header, last_offset, header.max_timestamp, now),
        }
    }

    fn count(&mut self, last_offset: Offset, len: u64, timestamp: UnixMs, now: UnixMs) {
        self.segments.push(last_offset, len, timestamp, now);
        self.times.on_batch(timestamp);
        self.unrecorded_bytes += len;
    }

    /// Notes a marker in the log, and in the index of aborted transactions what it aborted, unless it is there.
    fn end_transaction(&mut self, marker: &TransactionMarker, offset: Offset, now: UnixMs, writes: &mut Vec<Write>) {
        let Some(aborted) = self.producers.record_marker(marker, offset, now) else { return };
        if self.aborted.lock().add(aborted) {
            let AbortedTransaction { last_offset, producer_id, .. } = aborted;
            let key = self.keys.aborted(last_offset, producer_id);
            writes.push(Write::Side { key, value: side::encode_aborted(&aborted) });
        }
    }

    /// Gives an offset below the log end, which no batch holds any more, to one without records.
    pub(in crate::log) fn put_empty(&mut self, offset: Offset, now: UnixMs, writes: &mut Vec<Write>) {
        let epoch = self.epoch_at(offset).unwrap_or(LeaderEpoch::NONE);
        let batch = empty_batch(offset, epoch).bytes.freeze();
        if let Some(closed) = self.segments.add_below_end(offset, batch.len() as u64, now) {
            let key = self.keys.segment(closed.base_offset);
            writes.push(Write::Side { key, value: side::encode_segment(&closed) });
        }
        writes.push(Write::Batch { family: self.family, last_offset: offset, batch, sum: None, in_order: false });
        // An earlier version may have recorded the end instead.
        writes.push(Write::DeleteSide { key: self.keys.log_end() });
        self.put_checkpoint(writes);
    }

    /// Records what is rebuilt at open otherwise, if a batch of `batch_bytes` made that due.
    pub(in crate::log) fn checkpoint_if_due(&mut self, batch_bytes: u64, writes: &mut Vec<Write>) {
        if side::checkpoint_is_due(self.unrecorded_bytes, batch_bytes) {
            self.checkpoint(writes);
        }
    }

    /// Records what is rebuilt at open otherwise, if there is any.
    pub(in crate::log) fn checkpoint(&mut self, writes: &mut Vec<Write>) {
        if self.unrecorded_bytes > 0 {
            self.put_checkpoint(writes);
        }
    }

    fn put_checkpoint(&mut self, writes: &mut Vec<Write>) {
        let keys = self.keys;
        self.producers.drain_dirty(|id, entry| {
            writes.push(Write::Side { key: keys.producer(id), value: side::encode_producer(entry) });
        });
        if let Some((timestamp, last_offset)) = self.times.due(self.log_end) {
            writes.push(Write::Side { key: keys.time(timestamp), value: side::encode_offset(last_offset) });
        }
        // The log end and the producers are those of batches that may still be refused.
        writes.push(Write::RestsOn { family: self.family });
        // The active segment ends at the log end, also when it is empty.
        let checkpoint = Checkpoint { active: Segment { end_offset: self.log_end, ..*self.segments.active() } };
        writes.push(Write::Side { key: keys.checkpoint(), value: side::encode_checkpoint(&checkpoint) });
        self.unrecorded_bytes = 0;
    }

    pub(in crate::log) fn checkpoint_high_watermark(&mut self, high_watermark: Offset, writes: &mut Vec<Write>) {
        let high_watermark = high_watermark.min(self.log_end);
        if self.high_watermark != Some(high_watermark) {
            self.high_watermark = Some(high_watermark);
            let value = side::encode_offset(high_watermark);
            writes.push(Write::Side { key: self.keys.high_watermark(), value });
        }
    }

    /// What is recorded of the high watermark does not outlast the batches it speaks of: others may come there.
    pub(in crate::log) fn cut_high_watermark(&mut self, writes: &mut Vec<Write>) {
        if let Some(recorded) = self.high_watermark {
            self.checkpoint_high_watermark(recorded, writes);
        }
    }

    /// Closes the active segment. Its record and a checkpoint go with it, so that nothing below it is ever rebuilt.
    pub(in crate::log) fn roll(&mut self, now: UnixMs, writes: &mut Vec<Write>) {
        let closed = self.segments.roll(now);
        let key = self.keys.segment(closed.base_offset);
        writes.push(Write::Side { key, value: side::encode_segment(&closed) });
        self.put_checkpoint(writes);
        self.put_snapshot_if_due(&closed, writes);
    }

    /// Source: Kafka 3.9 `UnifiedLog.roll`, which takes one with every segment.
    fn put_snapshot_if_due(&mut self, closed: &Segment, writes: &mut Vec<Write>) {
        let (keys, log_end) = (self.keys, self.log_end);
        self.snapshots.closed_bytes += closed.bytes;
        let size_bytes = self.producers.all().len() as u64 * SNAPSHOT_PRODUCER_BYTES;
        if self.snapshots.closed_bytes < SNAPSHOT_SAVES * size_bytes {
            return;
        }
        let before = match self.snapshots.last {
            Some([oldest, before]) => {
                writes.push(Write::DeleteSide { key: keys.snapshot(oldest) });
                before
            }
            None => {
                writes.push(Write::DeleteSides { keys: keys.snapshots_below(closed.base_offset) });
                closed.base_offset
            }
        };
        writes.push(Write::Side { key: keys.snapshot(log_end), value: side::encode_snapshot(self.producers.all()) });
        self.snapshots = Snapshots { last: Some([before, log_end]), closed_bytes: 0 };
    }

    /// What a snapshot says of producers that lost something.
    pub(in crate::log) fn put_back_producers(
        &mut self,
        producers: Vec<(ProducerId, ProducerEntry)>,
        lost: &HashSet<ProducerId>,
    ) {
        for (id, entry) in producers.into_iter().filter(|(id, _)| lost.contains(id)) {
            self.producers.put_back(id, entry);
        }
    }

    /// Closes the active segment if it is older than `segment.ms` by the broker's clock, also without appends.
    pub(in crate::log) fn roll_if_old(&mut self, config: &LogConfig, now: UnixMs, writes: &mut Vec<Write>) {
        let active = self.segments.active();
        if !active.is_empty() && now.saturating_sub(active.created_ms) > config.roll_ms() {
            self.roll(now, writes);
        }
    }

    /// Nothing below `to`, which is above the log start, can be read any more.
    pub(in crate::log) fn advance_log_start(&mut self, to: Offset, writes: &mut Vec<Write>) {
        let keys = self.keys;
        // From the very front: storage moves its own start then, wherever that is.
        writes.push(Write::DeleteBatches { family: self.family, last_offsets: Offset::ZERO..to });
        writes.push(Write::Side { key: keys.log_start(), value: side::encode_offset(to) });
        self.log_start = to;
        self.cleaned.up_to = self.cleaned.up_to.max(to);
        if self.aborted.lock().drop_below(to) {
            writes.push(Write::DeleteSides { keys: keys.aborted_below(to) });
        }
        let changed = self.epochs.truncate_from_start(to);
        self.put_epochs(changed, writes);
        let active = *self.segments.active();
        let gone = self.segments.drop_before(to);
        let restarted = self.segments.active().base_offset != active.base_offset;
        for segment in &gone {
            writes.push(Write::DeleteSide { key: keys.segment(segment.base_offset) });
        }
        let gone = gone.iter().chain(restarted.then_some(&active));
        if let Some(youngest) = gone.map(|segment| segment.max_timestamp).max() {
            writes.push(Write::DeleteSides { keys: keys.times_up_to(youngest) });
        }
        // What the batches that go said of producers cannot be rebuilt from them.
        if restarted || self.producers.has_dirty() {
            self.put_checkpoint(writes);
        }
    }

    /// Forgets producers that have been silent for so long.
    pub(in crate::log) fn expire_producers(&mut self, now: UnixMs, expiration_ms: i64, writes: &mut Vec<Write>) {
        let keys = self.keys;
        self.producers.expire(now, expiration_ms, |id| {
            writes.push(Write::DeleteSide { key: keys.producer(id) });
        });
    }

    /// A compaction has come so far and left these closed segments.
    pub(in crate::log) fn on_compacted(&mut self, cleaned: Cleaned, left: VecDeque<Segment>, writes: &mut Vec<Write>) {
        let keys = self.keys;
        self.cleaned = cleaned;
        writes.push(Write::Side { key: keys.cleaned(), value: side::encode_cleaned(cleaned) });
        let find = |among: &VecDeque<Segment>, base: Offset| {
            among.binary_search_by_key(&base, |segment| segment.base_offset).ok().map(|at| among[at])
        };
        for joined in self.segments.closed().iter().filter(|segment| find(&left, segment.base_offset).is_none()) {
            writes.push(Write::DeleteSide { key: keys.segment(joined.base_offset) });
        }
        let unchanged = |segment: &Segment| find(self.segments.closed(), segment.base_offset) == Some(*segment);
        for segment in left.iter().filter(|segment| !unchanged(segment)) {
            writes.push(Write::Side { key: keys.segment(segment.base_offset), value: side::encode_segment(segment) });
        }
        self.segments.replace_closed(left);
    }

    /// Forgets terms that begin at or beyond `end`. True: there was one.
    pub(in crate::log) fn cut_epochs(&mut self, end: Offset, writes: &mut Vec<Write>) -> bool {
        let changed = self.epochs.truncate_from_end(end);
        let any = !changed.removed.is_empty();
        self.put_epochs(changed, writes);
        any
    }

    /// Forgets transactions whose markers lie at or beyond the log end.
    pub(in crate::log) fn cut_aborted(&self, writes: &mut Vec<Write>) {
        if self.aborted.lock().drop_from(self.log_end) {
            writes.push(Write::DeleteSides { keys: self.keys.aborted_from(self.log_end) });
        }
    }

    /// Forgets the record of the log end, which an earlier version may have written.
    pub(in crate::log) fn drop_recorded_end(&self, writes: &mut Vec<Write>) {
        writes.push(Write::DeleteSide { key: self.keys.log_end() });
    }

    /// The log ends here: drops what side records say at or above. Until [`Self::end_cut`], batches from the returned
    /// base on are to be replayed, and those of the producers that lost something.
    pub(in crate::log) fn begin_cut(&mut self, log_end: Offset, now: UnixMs, writes: &mut Vec<Write>) -> Cutting {
        self.log_end = log_end;
        for segment in self.segments.drop_from(log_end) {
            writes.push(Write::DeleteSide { key: self.keys.segment(segment.base_offset) });
        }
        let base = self.segments.closed().back().map_or(self.log_start, |closed| closed.end_offset).min(log_end);
        self.segments.restart(base, now);
        self.cut_epochs(log_end, writes);
        self.cut_aborted(writes);
        self.cut_high_watermark(writes);
        let lost = self.producers.truncate(log_end);
        let closed_max = self.segments.closed().iter().map(|segment| segment.max_timestamp).max();
        self.times = TimeIndex::new(closed_max.unwrap_or(NO_TIMESTAMP));
        Cutting { base, lost }
    }

    /// What lies from `base` on was replayed, and all that is left of the producers that were `lost`.
    pub(in crate::log) fn end_cut(&mut self, base: Offset, lost: HashSet<ProducerId>, writes: &mut Vec<Write>) {
        let keys = self.keys;
        for id in lost.into_iter().filter(|&id| !self.producers.contains(id)) {
            writes.push(Write::DeleteSide { key: keys.producer(id) });
        }
        writes.push(Write::DeleteSides { keys: keys.snapshots_from(self.log_end + 1) });
        self.snapshots.last = None;
        writes.push(Write::DeleteSides { keys: keys.times_from(self.times.running_max()) });
        self.times.forget_newest();
        self.cleaned.up_to = self.cleaned.up_to.min(base.max(self.log_start));
        writes.push(Write::Side { key: keys.cleaned(), value: side::encode_cleaned(self.cleaned) });
        self.put_checkpoint(writes);
    }

    /// All goes; the log begins anew at `offset`, empty.
    pub(in crate::log) fn restart_at(&mut self, offset: Offset, now: UnixMs, writes: &mut Vec<Write>) {
        let keys = self.keys;
        writes.push(Write::DeleteBatches { family: self.family, last_offsets: Offset::ZERO..Offset::MAX });
        writes.push(Write::DeleteSides { keys: keys.all() });
        self.aborted.lock().restart_at(offset);
        *self = Self {
            keys,
            family: self.family,
            log_start: offset,
            log_end: offset,
            epochs: LeaderEpochs::default(),
            producers: ProducerStates::default(),
            aborted: Arc::clone(&self.aborted),
            segments: Segments::new(VecDeque::new(), Segment::empty(offset, now)),
            times: TimeIndex::new(NO_TIMESTAMP),
            cleaned: Cleaned { up_to: offset, ..Cleaned::default() },
            high_watermark: None,
            snapshots: Snapshots { last: None, closed_bytes: 0 },
            unrecorded_bytes: 0,
        };
        writes.push(Write::Side { key: keys.log_start(), value: side::encode_offset(offset) });
        self.checkpoint_high_watermark(offset, writes);
        self.put_checkpoint(writes);
    }

    /// Takes over what batches alone do not say from the state of a log with the same batches, and has all that is not
    /// recorded written.
    pub(in crate::log) fn succeed(&mut self, replaced: &Self, writes: &mut Vec<Write>) {
        let keys = self.keys;
        for &(epoch, _) in self.epochs.entries().iter().filter(|entry| !replaced.epochs.entries().contains(entry)) {
            writes.push(Write::DeleteSide { key: keys.epoch(epoch) });
        }
        for &(epoch, start) in replaced.epochs.entries().iter().filter(|entry| !self.epochs.entries().contains(entry)) {
            writes.push(Write::Side { key: keys.epoch(epoch), value: side::encode_offset(start) });
        }
        self.epochs = replaced.epochs.clone();
        {
            let (mut ours, theirs) = (self.aborted.lock(), replaced.aborted.lock());
            for transaction in theirs.missing_in(&ours) {
                let key = keys.aborted(transaction.last_offset, transaction.producer_id);
                writes.push(Write::Side { key, value: side::encode_aborted(&transaction) });
            }
            ours.clone_from(&theirs);
        }
        for id in self.producers.succeed(&replaced.producers) {
            writes.push(Write::DeleteSide { key: keys.producer(id) });
        }
        self.put_checkpoint(writes);
    }

    /// Writes what changed in the history of leader epochs.
    fn put_epochs(&self, changed: EpochsChanged, writes: &mut Vec<Write>) {
        for epoch in changed.removed {
            writes.push(Write::DeleteSide { key: self.keys.epoch(epoch) });
        }
        if let Some((epoch, start)) = changed.put {
            writes.push(Write::Side { key: self.keys.epoch(epoch), value: side::encode_offset(start) });
        }
    }
}
