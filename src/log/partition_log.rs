//! One partition's append-only sequence: gives offsets, refuses what breaks a producer's sequence, keeps boundaries,
//! and says what to write. It does no I/O after [`PartitionLog::open`], so it may be called under a short lock.
//!
//! Owned by the replica, which commits the writes of each call as one set, in the order of the calls (I-1), and reports
//! back with [`PartitionLog::on_written`]. A log knows no roles, no ISR and no high watermark but the one it is handed.
//! - I-2: offsets are given here alone, without gaps.
//! - I-3: `log_start_offset ≤ written_end_offset ≤ log_end_offset`.
//! - I-5: nothing reaches the tail before its write has returned.
//! - I-26: a batch ends right below the log end, unless the log start has passed it; see `compaction` and `recovery`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::clock::UnixMs;
use crate::log::config::LogConfig;
use crate::log::reading::read::LogReader;
use crate::log::reading::tail::Tail;
use crate::log::side::{self, Checkpoint, Cleaned, SideKeys};
use crate::log::state::aborted::AbortedTransaction;
pub(crate) use crate::log::state::append_error::AppendError;
use crate::log::state::leader_epochs::{EpochsChanged, LeaderEpochs};
use crate::log::state::producer_state::{ActiveProducer, BatchMeta, Checked, ProducerStates};
use crate::log::state::segments::{Segment, Segments};
use crate::log::state::timestamps::TimeIndex;
use crate::log::state::verification::Verifications;
use crate::log::upkeep::retention;
use crate::record::control::marker_batch;
use crate::record::{TimestampType, ValidBatch, stamp};
use crate::storage::Write;
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TransactionGuard, TransactionMarker};

/// Where an accepted batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Appended {
    pub(crate) base_offset: Offset,
    /// Inclusive.
    pub(crate) last_offset: Offset,
    /// Under LogAppendTime, the time that all records got.
    pub(crate) log_append_time: Option<UnixMs>,
    pub(crate) log_start_offset: Offset,
    /// Next offset to give, this batch included.
    pub(crate) log_end_offset: Offset,
    /// Nothing was written: the producer repeated a batch, and the offsets are the original's. That one's write may
    /// still be under way.
    pub(crate) duplicate: bool,
    /// A virtual segment was closed before this batch, so there may be something to compact.
    pub(crate) rolled: bool,
}

/// The log of one partition.
#[derive(Debug)]
pub(crate) struct PartitionLog {
    pub(super) config: LogConfig,
    pub(super) tail: Arc<Tail>,
    pub(super) reader: LogReader,
    pub(super) log_start: Offset,
    pub(super) log_end: Offset,
    /// End of what is durable.
    pub(super) written_end: Offset,
    pub(super) epochs: LeaderEpochs,
    pub(super) producers: ProducerStates,
    pub(super) verifications: Verifications,
    pub(super) segments: Segments,
    pub(super) times: TimeIndex,
    pub(super) cleaned: Cleaned,
    /// Bytes appended since the last checkpoint.
    pub(super) unrecorded_bytes: u64,
    /// Given out, but not yet reported as written; in offset order.
    pub(super) pending: VecDeque<Pending>,
    /// What opening found to be wrong in side records; goes with the next write set.
    pub(super) repairs: Vec<Write>,
    /// See [`PartitionLog::has_lost_its_end`].
    pub(super) end_lost: bool,
}

/// A batch whose write is under way.
#[derive(Debug)]
pub(super) struct Pending {
    base_offset: Offset,
    last_offset: Offset,
    max_timestamp: UnixMs,
    bytes: Bytes,
}

impl PartitionLog {
    /// Readers get nothing from storage any more. To be called before the partition's family is given up, so that a
    /// read under way never answers with bytes of the family's next owner.
    pub(crate) fn close(&self) {
        self.reader.shared.closed.store(true, Ordering::SeqCst);
    }

    /// For reads without the lock.
    pub(crate) fn reader(&self) -> LogReader {
        self.reader.clone()
    }

    pub(crate) fn config(&self) -> &LogConfig {
        &self.config
    }

    /// New settings of the topic; they hold from the next call on.
    pub(crate) fn set_config(&mut self, config: LogConfig) {
        self.config = config;
    }

    /// First offset that may be read.
    pub(crate) fn log_start_offset(&self) -> Offset {
        self.log_start
    }

    /// Next offset to give.
    pub(crate) fn log_end_offset(&self) -> Offset {
        self.log_end
    }

    /// End of what is durable, exclusive.
    pub(crate) fn written_end_offset(&self) -> Offset {
        self.written_end
    }

    /// Whether opening found that it was longer once. Its offsets will be given again, so that readers who have seen
    /// them must be told by a new leader epoch (KIP-320). A log that ends earlier without a trace says nothing.
    pub(crate) fn has_lost_its_end(&self) -> bool {
        self.end_lost
    }

    /// Sum of the batches' sizes, by whole virtual segments, as Kafka counts whole files.
    #[cfg(test)]
    pub(crate) fn size_bytes(&self) -> u64 {
        self.segments.size_bytes()
    }

    #[cfg(test)]
    pub(crate) fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.epochs.latest()
    }

    /// The leader epoch under which `offset` was or will be appended.
    pub(crate) fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        let entries = self.epochs.entries();
        let begun = entries.partition_point(|&(_, start)| start <= offset);
        Some(entries[begun.checked_sub(1)?].0)
    }

    /// The largest epoch not above the one asked and where it ended; `None`: unknown. The current one ends where the
    /// durable part ends. Source: Kafka `UnifiedLog.endOffsetForEpoch`.
    pub(crate) fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.epochs.end_offset_for(epoch, self.written_end)
    }

    /// On becoming leader: notes that `epoch` begins at the log end, even without data.
    pub(crate) fn assign_epoch(&mut self, epoch: LeaderEpoch, writes: &mut Vec<Write>) {
        writes.append(&mut self.repairs);
        let changed = self.epochs.assign(epoch, self.log_end);
        put_epochs(&self.keys(), changed, writes);
    }

    /// Checks the producer's sequence, gives offsets, stamps the batch and pushes what to write: the batch, and now and
    /// then side records. The batch can be read once [`Self::on_written`] has been told.
    ///
    /// The first batch of a transaction needs the `guard` of a verification that no marker has overtaken.
    pub(crate) fn append(
        &mut self,
        batch: ValidBatch,
        epoch: LeaderEpoch,
        now: UnixMs,
        guard: Option<TransactionGuard>,
        writes: &mut Vec<Write>,
    ) -> Result<Appended, AppendError> {
        let (id, transactional) = (batch.header.producer_id, batch.header.is_transactional());
        let verified = || guard.is_some_and(|guard| self.verifications.holds(id, guard));
        if let Checked::Duplicate(original) = self.producers.check(&batch.header, verified, self.log_end)? {
            return Ok(self.repeated(original));
        }
        if transactional {
            self.verifications.end(id);
        }
        Ok(self.put(batch, None, epoch, now, writes))
    }

    /// Ends the open transaction of a producer, if there is one, by a control batch, which is written in any case.
    /// Source: Kafka 3.9 `ReplicaManager.appendRecords` for `WriteTxnMarkers`, `ProducerAppendInfo.appendEndTxnMarker`.
    pub(crate) fn append_marker(
        &mut self,
        marker: &TransactionMarker,
        epoch: LeaderEpoch,
        now: UnixMs,
        writes: &mut Vec<Write>,
    ) -> Result<Appended, AppendError> {
        self.producers.check_marker(marker)?;
        self.verifications.end(marker.producer_id);
        Ok(self.put(marker_batch(marker, now), Some(marker), epoch, now, writes))
    }

    /// The guard of a verification that is to begin. `None`: a transaction of this producer and epoch is open here, and
    /// nothing need be verified. The same guard is given until a batch was appended with it, or a marker came.
    /// Source: Kafka 3.9 `UnifiedLog.maybeStartTransactionVerification`.
    pub(crate) fn begin_verification(&mut self, id: ProducerId, epoch: ProducerEpoch) -> Option<TransactionGuard> {
        let ongoing = self.producers.has_ongoing_transaction(id, epoch);
        (!ongoing).then(|| self.verifications.begin(id))
    }

    /// As [`Self::begin_verification`], whatever is open here: this log is about to be opened anew without what was not
    /// written.
    pub(crate) fn require_verification(&mut self, id: ProducerId) -> TransactionGuard {
        self.verifications.begin(id)
    }

    /// Takes over the guards of the log that this one replaces.
    pub(crate) fn keep_verifications(&mut self, replaced: &mut Self) {
        self.verifications = std::mem::take(&mut replaced.verifications);
    }

    /// Below it every transaction is decided, and its marker lies below the high watermark.
    /// Source: Kafka `UnifiedLog.fetchLastStableOffsetMetadata`, `maybeIncrementFirstUnstableOffset`.
    pub(crate) fn last_stable_offset(&mut self, high_watermark: Offset) -> Offset {
        match self.producers.first_unstable(high_watermark) {
            None => high_watermark,
            Some(first) => first.max(self.log_start).min(high_watermark),
        }
    }

    /// What is known of the producers, in no order.
    pub(crate) fn active_producers(&self) -> impl Iterator<Item = ActiveProducer> {
        self.producers.active()
    }

    /// Gives offsets to a batch that was checked, or to the batch of a marker.
    fn put(
        &mut self,
        mut batch: ValidBatch,
        marker: Option<&TransactionMarker>,
        epoch: LeaderEpoch,
        now: UnixMs,
        writes: &mut Vec<Write>,
    ) -> Appended {
        let stamped_at = self.stamps_append_time().then_some(now);
        let base_offset = self.log_end;
        stamp(&mut batch, base_offset, epoch, stamped_at);
        let header = batch.header;
        let last_offset = header.last_offset();
        assert!(last_offset >= base_offset && header.base_offset == base_offset, "I-2: offsets go forward only");
        let (len, timestamp) = (batch.bytes.len() as u64, header.max_timestamp);

        writes.append(&mut self.repairs);
        let rolled = self.segments.active.should_roll(&self.config, len, timestamp, now);
        if rolled {
            self.roll(now, writes);
        }
        if self.epochs.latest() != Some(epoch) {
            put_epochs(&self.keys(), self.epochs.assign(epoch, base_offset), writes);
        }
        match marker {
            None => self.producers.record(&header, last_offset, timestamp, now),
            Some(marker) => self.end_transaction(marker, last_offset, now, writes),
        }
        self.segments.active.push(last_offset, len, timestamp, now);
        self.times.on_batch(timestamp);
        self.log_end = last_offset + 1;
        self.unrecorded_bytes += len;

        let bytes = batch.bytes.freeze();
        let family = self.reader.shared.family;
        writes.push(Write::Batch { family, last_offset, batch: bytes.clone() });
        self.pending.push_back(Pending { base_offset, last_offset, max_timestamp: timestamp, bytes });
        if side::checkpoint_is_due(self.unrecorded_bytes, len) {
            self.checkpoint(writes);
        }
        Appended {
            base_offset,
            last_offset,
            log_append_time: stamped_at,
            log_start_offset: self.log_start,
            log_end_offset: self.log_end,
            duplicate: false,
            rolled,
        }
    }

    /// Notes a marker in the log, and in the index of aborted transactions what it aborted, unless it is there.
    pub(super) fn end_transaction(
        &mut self,
        marker: &TransactionMarker,
        offset: Offset,
        now: UnixMs,
        writes: &mut Vec<Write>,
    ) {
        let Some(aborted) = self.producers.record_marker(marker, offset, now) else { return };
        if self.reader.shared.aborted.lock().add(aborted) {
            let AbortedTransaction { last_offset, producer_id, .. } = aborted;
            let key = self.keys().aborted(last_offset, producer_id);
            writes.push(Write::Side { key, value: side::encode_aborted(&aborted) });
        }
    }

    fn repeated(&self, original: BatchMeta) -> Appended {
        Appended {
            base_offset: original.base_offset(),
            last_offset: original.last_offset,
            log_append_time: self.stamps_append_time().then_some(original.timestamp),
            log_start_offset: self.log_start,
            log_end_offset: self.log_end,
            duplicate: true,
            rolled: false,
        }
    }

    fn stamps_append_time(&self) -> bool {
        self.config.message_timestamp_type == TimestampType::LogAppendTime
    }

    /// The write of everything up to `last_offset` has returned: it moves into the tail. Returns the new durable end.
    pub(crate) fn on_written(&mut self, last_offset: Offset) -> Offset {
        while self.pending.front().is_some_and(|batch| batch.last_offset <= last_offset) {
            let Some(batch) = self.pending.pop_front() else { break };
            let slot = &self.reader.shared.slot;
            self.tail.newest.push(slot, batch.base_offset, batch.last_offset, &batch.bytes);
            self.written_end = batch.last_offset + 1;
            let mut published = self.reader.shared.published.lock();
            if batch.max_timestamp > published.max_timestamp.map_or(-1, |(max, _)| max) {
                published.max_timestamp = Some((batch.max_timestamp, batch.last_offset));
            }
        }
        assert!(self.log_start <= self.written_end && self.written_end <= self.log_end, "I-3");
        self.written_end
    }

    /// Records what is rebuilt at open otherwise. For an orderly stop; appends do it by themselves now and then.
    pub(crate) fn checkpoint(&mut self, writes: &mut Vec<Write>) {
        writes.append(&mut self.repairs);
        if self.unrecorded_bytes == 0 {
            return;
        }
        self.put_checkpoint(writes);
    }

    pub(super) fn put_checkpoint(&mut self, writes: &mut Vec<Write>) {
        let keys = self.keys();
        self.producers.drain_dirty(|id, entry| {
            writes.push(Write::Side { key: keys.producer(id), value: side::encode_producer(entry) });
        });
        if let Some((timestamp, last_offset)) = self.times.due(self.log_end) {
            writes.push(Write::Side { key: keys.time(timestamp), value: side::encode_offset(last_offset) });
        }
        // The active segment ends at the log end, also when it is empty.
        let checkpoint = Checkpoint { active: Segment { end_offset: self.log_end, ..self.segments.active } };
        writes.push(Write::Side { key: keys.checkpoint(), value: side::encode_checkpoint(&checkpoint) });
        self.unrecorded_bytes = 0;
    }

    /// Closes the active segment. Its record and a checkpoint go with it, so that nothing below it is ever rebuilt.
    pub(crate) fn roll(&mut self, now: UnixMs, writes: &mut Vec<Write>) {
        let closed = self.segments.roll(now);
        let key = self.keys().segment(closed.base_offset);
        writes.push(Write::Side { key, value: side::encode_segment(&closed) });
        self.put_checkpoint(writes);
    }

    /// Closes the active segment if it is older than `segment.ms` by the broker's clock, also when nobody appends.
    pub(crate) fn roll_if_old(&mut self, now: UnixMs, writes: &mut Vec<Write>) {
        let active = &self.segments.active;
        if !active.is_empty() && now.saturating_sub(active.created_ms) > self.config.roll_ms() {
            self.roll(now, writes);
        }
    }

    /// Applies `segment.ms`, `retention.ms` and `retention.bytes`. Returns the new log start if it moved; the caller
    /// then publishes it and tells storage that the space below may be reclaimed.
    pub(crate) fn retain(&mut self, now: UnixMs, high_watermark: Offset, writes: &mut Vec<Write>) -> Option<Offset> {
        writes.append(&mut self.repairs);
        self.roll_if_old(now, writes);
        let bound = high_watermark.min(self.written_end);
        let new_start = retention::new_log_start(&self.segments, &self.config, now, bound)?;
        self.advance_log_start(new_start, writes);
        Some(new_start)
    }

    /// DeleteRecords: nothing below `to` can be read any more. Batches that lie below it as a whole are deleted.
    /// The caller has checked that `to` is not above the high watermark; going back changes nothing.
    pub(crate) fn advance_log_start(&mut self, to: Offset, writes: &mut Vec<Write>) {
        writes.append(&mut self.repairs);
        if to <= self.log_start {
            return;
        }
        assert!(to <= self.written_end, "I-3: the log start stays below the high watermark");
        let (keys, family) = (self.keys(), self.reader.shared.family);
        writes.push(Write::DeleteBatches { family, last_offsets: self.log_start..to });
        writes.push(Write::Side { key: keys.log_start(), value: side::encode_offset(to) });
        self.log_start = to;
        self.forget_in_memory(to);
        self.cleaned.up_to = self.cleaned.up_to.max(to);
        if self.reader.shared.aborted.lock().drop_below(to) {
            writes.push(Write::DeleteSides { keys: keys.aborted_below(to) });
        }
        put_epochs(&keys, self.epochs.truncate_from_start(to), writes);
        let active = self.segments.active;
        let gone = self.segments.drop_before(to);
        let restarted = self.segments.active.base_offset != active.base_offset;
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
        self.publish_facts();
    }

    /// Forgets producers that have been silent for `producer.id.expiration.ms`.
    pub(crate) fn expire_producers(&mut self, now: UnixMs, writes: &mut Vec<Write>) {
        let keys = self.keys();
        self.verifications.expire(now, self.config.producer_id_expiration_ms);
        self.producers.expire(now, self.config.producer_id_expiration_ms, |id| {
            writes.push(Write::DeleteSide { key: keys.producer(id) });
        });
    }

    /// Hands the readers what changed apart from appends.
    pub(super) fn publish_facts(&self) {
        let mut published = self.reader.shared.published.lock();
        published.log_start_offset = self.log_start;
        published.max_timestamp = self.segments.max_timestamp();
    }

    /// The batches that end below `offset` were deleted or replaced: readers must not find them in memory.
    pub(super) fn forget_in_memory(&self, offset: Offset) {
        self.tail.newest.forget_below(&self.reader.shared.slot, offset);
        self.reader.shared.ahead.clear();
    }

    pub(super) fn keys(&self) -> SideKeys {
        self.reader.shared.keys
    }
}

impl Drop for PartitionLog {
    fn drop(&mut self) {
        self.close();
        self.forget_in_memory(Offset::MAX);
    }
}

/// Writes what changed in the history of leader epochs.
pub(super) fn put_epochs(keys: &SideKeys, changed: EpochsChanged, writes: &mut Vec<Write>) {
    for epoch in changed.removed {
        writes.push(Write::DeleteSide { key: keys.epoch(epoch) });
    }
    if let Some((epoch, start)) = changed.put {
        writes.push(Write::Side { key: keys.epoch(epoch), value: side::encode_offset(start) });
    }
}
