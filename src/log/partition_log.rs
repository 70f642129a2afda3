//! One partition's append-only sequence: gives offsets, refuses what breaks a producer's sequence, keeps boundaries,
//! and says what to write. It does no I/O after [`PartitionLog::open`], so it may be called under a short lock; only
//! [`PartitionLog::truncate_to`] reads.
//!
//! Owned by the replica, which commits the writes of each call as one set, in the order of the calls (I-1), and reports
//! back with [`PartitionLog::on_written`]. A log knows no roles, no ISR and no high watermark but the one it is handed.
//! - I-2: offsets are given here alone, without gaps.
//! - I-3: `log_start_offset ≤ written_end_offset ≤ log_end_offset`.
//! - I-5: nothing reaches the tail before its write has returned.
//! - I-26: a batch ends right below the log end, unless the log start has passed it; see `compaction` and `recovery`.

mod hand_over;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tracing::error;

use crate::clock::UnixMs;
use crate::log::config::LogConfig;
use crate::log::fetched::{self, FetchedBatch};
pub(crate) use crate::log::fetched::{FetchedAppend, FetchedError};
use crate::log::kept::Kept;
use crate::log::reading::read::LogReader;
use crate::log::reading::tail::Tail;
use crate::log::side::SideKeys;
pub(crate) use crate::log::state::append_error::AppendError;
use crate::log::state::log_state::LogState;
use crate::log::state::producer_state::{ActiveProducer, BatchMeta, Checked};
use crate::log::state::verification::Verifications;
use crate::log::upkeep::compaction::{Candidate, Compacted, CompactionPlan};
use crate::log::upkeep::recovery::{self, Recovered};
use crate::log::upkeep::retention;
pub(crate) use crate::log::upkeep::truncation::Truncation;
use crate::record::control::marker_batch;
use crate::record::{TimestampType, ValidBatch, stamp};
use crate::storage::{Family, PartitionId, SharedLogDir, StorageError, Write};
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
    config: LogConfig,
    tail: Arc<Tail>,
    reader: LogReader,
    state: LogState,
    /// End of what is durable.
    written_end: Offset,
    verifications: Verifications,
    /// Given out, but not yet reported as written; in offset order.
    pending: VecDeque<Pending>,
    /// What opening found to be wrong in side records; goes with the next write set.
    repairs: Vec<Write>,
    /// See [`PartitionLog::has_lost_its_end`].
    end_lost: bool,
    /// Its end is being cut off: see [`PartitionLog::announce_truncation`].
    truncating: bool,
    /// See [`PartitionLog::cuts`].
    cuts: u64,
    /// As long as another log is about to take its place.
    kept: Option<Kept>,
    /// A coordinator's log. After a loss of power its decisions and the transactions that they are about must agree, so
    /// neither may outlast what was written before it, in whatever partition.
    in_order: bool,
}

/// A batch whose write is under way.
#[derive(Debug)]
struct Pending {
    base_offset: Offset,
    last_offset: Offset,
    max_timestamp: UnixMs,
    /// For the tail.
    bytes: Bytes,
    /// From a leader.
    fetched: bool,
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
        let in_order = id.topic.is_internal();
        let reader = LogReader::new(dir, family, SideKeys::new(&id), &tail);
        let Recovered { state, repairs, end_lost, recorded_end } = recovery::recover(&reader, now)?;
        let written_end = state.log_end();
        if let Some(recorded_end) = recorded_end {
            error!(
                topic = %id.topic, partition = %id.partition, log_end_offset = %written_end, %recorded_end,
                "the log ended later once; what lay between is lost here"
            );
        }
        let (verifications, pending) = (Verifications::default(), VecDeque::new());
        let log = Self {
            config,
            tail,
            reader,
            state,
            written_end,
            verifications,
            pending,
            repairs,
            end_lost,
            truncating: false,
            cuts: 0,
            kept: None,
            in_order,
        };
        log.publish_facts();
        Ok(log)
    }

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
        self.state.log_start()
    }

    /// Next offset to give.
    pub(crate) fn log_end_offset(&self) -> Offset {
        self.state.log_end()
    }

    /// End of what is durable, exclusive.
    pub(crate) fn written_end_offset(&self) -> Offset {
        self.written_end
    }

    /// Whether opening found that it was longer once. Its offsets will be given again, so a new leader epoch must tell
    /// the readers that have seen them (KIP-320). A log that ends earlier without a trace says nothing.
    pub(crate) fn has_lost_its_end(&self) -> bool {
        self.end_lost
    }

    /// Sum of the batches' sizes, by whole virtual segments, as Kafka counts whole files.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.state.segments().size_bytes()
    }

    /// Virtual segments, the active one included.
    pub(crate) fn segment_count(&self) -> usize {
        self.state.segments().closed().len() + 1
    }

    #[cfg(test)]
    pub(super) fn state(&self) -> &LogState {
        &self.state
    }

    /// The latest leader epoch of its history.
    pub(crate) fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.state.epochs().latest()
    }

    /// The leader epoch under which `offset` was or will be appended.
    pub(crate) fn epoch_at(&self, offset: Offset) -> Option<LeaderEpoch> {
        self.state.epoch_at(offset)
    }

    /// The largest epoch not above the one asked and where it ended; `None`: unknown. The current one ends where the
    /// durable part ends. Source: Kafka `UnifiedLog.endOffsetForEpoch`.
    pub(crate) fn end_offset_for_epoch(&self, epoch: LeaderEpoch) -> Option<(LeaderEpoch, Offset)> {
        self.state.epochs().end_offset_for(epoch, self.written_end)
    }

    /// On becoming leader: notes that `epoch` begins at the log end, even without data.
    pub(crate) fn assign_epoch(&mut self, epoch: LeaderEpoch, writes: &mut Vec<Write>) {
        writes.append(&mut self.repairs);
        self.state.assign_epoch(epoch, writes);
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
        if let Checked::Duplicate(original) =
            self.state.producers().check(&batch.header, verified, self.state.log_end())?
        {
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
        self.state.producers().check_marker(marker)?;
        self.verifications.end(marker.producer_id);
        Ok(self.put(marker_batch(marker, now), Some(marker), epoch, now, writes))
    }

    /// The guard of a verification that is to begin. `None`: a transaction of this producer and epoch is open here, and
    /// nothing need be verified. The same guard is given until a batch was appended with it, or a marker came.
    /// Source: Kafka 3.9 `UnifiedLog.maybeStartTransactionVerification`.
    pub(crate) fn begin_verification(&mut self, id: ProducerId, epoch: ProducerEpoch) -> Option<TransactionGuard> {
        let ongoing = self.state.producers().has_ongoing_transaction(id, epoch);
        (!ongoing).then(|| self.verifications.begin(id))
    }

    /// As [`Self::begin_verification`], whatever is open here: this log is about to be opened anew without what was not
    /// written.
    pub(crate) fn require_verification(&mut self, id: ProducerId) -> TransactionGuard {
        self.verifications.begin(id)
    }

    /// Takes over the guards of the log that this one replaces, and counts on from its cuts.
    pub(crate) fn take_over(&mut self, replaced: &mut Self) {
        self.verifications = std::mem::take(&mut replaced.verifications);
        self.cuts = replaced.cuts + 1;
    }

    /// Below it every transaction is decided, and its marker lies below the high watermark.
    /// Source: Kafka `UnifiedLog.fetchLastStableOffsetMetadata`, `maybeIncrementFirstUnstableOffset`.
    pub(crate) fn last_stable_offset(&mut self, high_watermark: Offset) -> Offset {
        match self.state.first_unstable(high_watermark) {
            None => high_watermark,
            Some(first) => first.max(self.state.log_start()).min(high_watermark),
        }
    }

    /// What is known of the producers, in no order.
    pub(crate) fn active_producers(&self) -> impl Iterator<Item = ActiveProducer> {
        self.state.producers().active()
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
        let base_offset = self.state.log_end();
        stamp(&mut batch, base_offset, epoch, stamped_at);
        let header = batch.header;
        let (last_offset, len) = (header.last_offset(), batch.bytes.len() as u64);
        assert!(last_offset >= base_offset && header.base_offset == base_offset, "I-2: offsets go forward only");

        writes.append(&mut self.repairs);
        let rolled = self.state.append(&header, len, marker, &self.config, now, writes);
        let bytes = batch.bytes.freeze();
        let (family, in_order) = (self.state.family(), self.in_order || header.is_transactional());
        writes.push(Write::Batch { family, last_offset, batch: bytes.clone(), sum: Some(header.end_sum()), in_order });
        let max_timestamp = header.max_timestamp;
        self.pending.push_back(Pending { base_offset, last_offset, max_timestamp, bytes, fetched: false });
        self.state.checkpoint_if_due(len, writes);
        Appended {
            base_offset,
            last_offset,
            log_append_time: stamped_at,
            log_start_offset: self.state.log_start(),
            log_end_offset: self.state.log_end(),
            duplicate: false,
            rolled,
        }
    }

    /// A follower's append: whole batches of its leader's, one after the other, the last of which may be cut short.
    /// They are kept as they are, in slices of `records`; `epoch` is the leader's, and what has a later one waits.
    /// Pushes what to write. Either all of them are taken or none; nothing changes on an error.
    ///
    /// What is known besides the batches becomes what the leader's own append made it: transactions open and end,
    /// epochs begin, segments are closed. Source: Kafka 3.9 `UnifiedLog.appendAsFollower`.
    pub(crate) fn append_fetched(
        &mut self,
        records: Bytes,
        epoch: LeaderEpoch,
        now: UnixMs,
        writes: &mut Vec<Write>,
    ) -> Result<FetchedAppend, FetchedError> {
        let batches = fetched::batches(records, epoch, self.state.log_end())?;
        let mut appended = FetchedAppend {
            last_offset: batches.last().map(|batch| batch.header.last_offset()),
            log_end_offset: self.state.log_end(),
            rolled: false,
            bytes: 0,
        };
        let Some(last) = batches.last() else { return Ok(appended) };
        let last_len = last.bytes.len() as u64;
        writes.append(&mut self.repairs);
        for batch in batches {
            appended.bytes += batch.bytes.len() as u64;
            appended.rolled |= self.put_fetched(batch, now, writes);
        }
        self.state.checkpoint_if_due(last_len, writes);
        appended.log_end_offset = self.state.log_end();
        Ok(appended)
    }

    /// True: the active segment was closed before it.
    fn put_fetched(&mut self, batch: FetchedBatch, now: UnixMs, writes: &mut Vec<Write>) -> bool {
        let FetchedBatch { header, bytes, marker } = batch;
        let (base_offset, last_offset) = (header.base_offset, header.last_offset());
        if header.is_transactional() {
            self.verifications.end(header.producer_id);
        }
        let rolled = self.state.append(&header, bytes.len() as u64, marker.as_ref(), &self.config, now, writes);
        let (family, in_order) = (self.state.family(), self.in_order || header.is_transactional());
        writes.push(Write::Batch { family, last_offset, batch: bytes.clone(), sum: Some(header.end_sum()), in_order });
        let max_timestamp = header.max_timestamp;
        self.pending.push_back(Pending { base_offset, last_offset, max_timestamp, bytes, fetched: true });
        rolled
    }

    fn repeated(&self, original: BatchMeta) -> Appended {
        Appended {
            base_offset: original.base_offset(),
            last_offset: original.last_offset,
            log_append_time: self.stamps_append_time().then_some(original.timestamp),
            log_start_offset: self.state.log_start(),
            log_end_offset: self.state.log_end(),
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
            let (slot, newest) = (&self.reader.shared.slot, &self.tail.newest);
            if batch.fetched {
                newest.push_fetched(slot, batch.base_offset, batch.last_offset, &batch.bytes);
            } else {
                newest.push(slot, batch.base_offset, batch.last_offset, &batch.bytes);
            }
            self.written_end = batch.last_offset + 1;
            let mut published = self.reader.shared.published.lock();
            if batch.max_timestamp > published.max_timestamp.map_or(-1, |(max, _)| max) {
                published.max_timestamp = Some((batch.max_timestamp, batch.last_offset));
            }
            drop(published);
            if let Some(kept) = &mut self.kept {
                kept.push(batch.last_offset, &batch.bytes);
            }
        }
        let in_order = self.state.log_start() <= self.written_end && self.written_end <= self.state.log_end();
        assert!(in_order, "I-3");
        self.written_end
    }

    /// Records what is rebuilt at open otherwise. For an orderly stop; appends do it by themselves now and then.
    pub(crate) fn checkpoint(&mut self, writes: &mut Vec<Write>) {
        writes.append(&mut self.repairs);
        self.state.checkpoint(writes);
    }

    /// Closes the active segment if it is older than `segment.ms` by the broker's clock, also without appends.
    pub(crate) fn roll_if_old(&mut self, now: UnixMs, writes: &mut Vec<Write>) {
        self.state.roll_if_old(&self.config, now, writes);
    }

    /// Closes the active segment.
    #[cfg(test)]
    pub(crate) fn roll(&mut self, now: UnixMs, writes: &mut Vec<Write>) {
        self.state.roll(now, writes);
    }

    /// Applies `segment.ms`, `retention.ms` and `retention.bytes`. Returns the new log start if it moved; the caller
    /// then publishes it and tells storage that the space below may be reclaimed.
    pub(crate) fn retain(&mut self, now: UnixMs, high_watermark: Offset, writes: &mut Vec<Write>) -> Option<Offset> {
        writes.append(&mut self.repairs);
        self.roll_if_old(now, writes);
        let bound = high_watermark.min(self.written_end);
        let new_start = retention::new_log_start(self.state.segments(), &self.config, now, bound)?;
        self.advance_log_start(new_start, writes);
        Some(new_start)
    }

    /// DeleteRecords: nothing below `to` can be read any more. Batches that lie below it as a whole are deleted.
    /// The caller has checked that `to` is not above the high watermark; going back changes nothing.
    pub(crate) fn advance_log_start(&mut self, to: Offset, writes: &mut Vec<Write>) {
        writes.append(&mut self.repairs);
        if to <= self.state.log_start() {
            return;
        }
        assert!(to <= self.written_end, "I-3: the log start stays below the high watermark");
        self.forget_in_memory(to);
        self.state.advance_log_start(to, writes);
        self.publish_facts();
    }

    /// Removes every batch that contains or follows `to`, and what is known about them. For what was never shown to
    /// consumers: the replica that opens a log anew after a refused write does this. No write may be under way. Blocks
    /// on the disk. Source: Kafka `UnifiedLog.truncateTo`.
    pub(crate) fn truncate_to(&mut self, to: Offset, now: UnixMs, writes: &mut Vec<Write>) -> Result<(), StorageError> {
        let mut truncation = self.begin_truncation();
        truncation.cut(to, now)?;
        writes.append(&mut truncation.take_writes());
        self.end_truncation(truncation);
        Ok(())
    }

    /// A truncation is to come: until it is ended or abandoned, the log may be read but not changed in any other way.
    pub(crate) fn announce_truncation(&mut self) {
        self.truncating = true;
        self.cuts += 1;
    }

    /// Begins to cut the end off. No write may be under way. What [`Truncation`] works out, off the lock, is written by
    /// the caller; only then [`Self::end_truncation`] makes it true here.
    pub(crate) fn begin_truncation(&mut self) -> Truncation {
        assert!(self.pending.is_empty(), "a follower waits for its writes before it truncates");
        // What is read ahead from here on goes when the cut is made.
        self.forget_in_memory(Offset::MAX);
        Truncation::new(self.reader.clone(), self.state.detached(), self.repairs.clone())
    }

    /// The truncation is written.
    pub(crate) fn end_truncation(&mut self, truncation: Truncation) {
        // All of it was in what was written.
        self.repairs.clear();
        self.state.adopt(truncation.into_state());
        self.written_end = self.state.log_end();
        self.forget_in_memory(Offset::MAX);
        self.publish_facts();
    }

    /// The announced truncation was ended, or was not written and everything is as before.
    pub(crate) fn abandon_truncation(&mut self) {
        self.truncating = false;
    }

    /// Whether its end is being cut off, so that nothing else may change it.
    pub(crate) fn is_being_truncated(&self) -> bool {
        self.truncating
    }

    /// How often its end was cut off. What was read before, to be written back, must not be written after.
    pub(crate) fn cuts(&self) -> u64 {
        self.cuts
    }

    /// Records that everything below `high_watermark` is replicated, as far as this replica knows, unless that is what
    /// was recorded last.
    pub(crate) fn checkpoint_high_watermark(&mut self, high_watermark: Offset, writes: &mut Vec<Write>) {
        writes.append(&mut self.repairs);
        self.state.checkpoint_high_watermark(high_watermark, writes);
    }

    /// What was recorded last, not below the log start nor above the log end. `None`: nothing was, as in logs of
    /// earlier versions. Source: Kafka 3.9 `OffsetCheckpointFile`, `Partition.createLog`.
    pub(crate) fn checkpointed_high_watermark(&self) -> Option<Offset> {
        let recorded = self.state.recorded_high_watermark()?;
        Some(recorded.max(self.state.log_start()).min(self.state.log_end()))
    }

    /// How much a compaction would be worth: the share of dirty bytes, more than 1 if it is overdue. `None`: not now.
    pub(crate) fn compaction_urgency(&self, now: UnixMs, last_stable_offset: Offset) -> Option<f64> {
        self.candidate(now, last_stable_offset).urgency()
    }

    /// The plan of a job that is worth doing now. Closes the active segment first if `segment.ms` or the compaction
    /// lag asks for it. `seed` is random; at most one job per log at a time.
    pub(crate) fn compaction_plan(
        &mut self,
        now: UnixMs,
        last_stable_offset: Offset,
        seed: u128,
        writes: &mut Vec<Write>,
    ) -> Option<CompactionPlan> {
        if !self.config.compact {
            return None;
        }
        writes.append(&mut self.repairs);
        self.roll_if_old(now, writes);
        self.candidate(now, last_stable_offset).plan(seed)
    }

    fn candidate(&self, now: UnixMs, last_stable_offset: Offset) -> Candidate<'_> {
        let bound = last_stable_offset.min(self.written_end);
        Candidate { state: &self.state, config: &self.config, bound, now }
    }

    /// Takes out of a job's step what the log has deleted meanwhile, so that nothing comes back to life, and what would
    /// take the batch away with which the log ends since it was cut (I-26).
    pub(crate) fn admit_compacted(&self, mut step: Vec<Write>) -> Vec<Write> {
        let (log_start, log_end, written_end) = (self.state.log_start(), self.state.log_end(), self.written_end);
        step.retain(|write| match write {
            Write::Batch { last_offset, .. } => (log_start..log_end).contains(last_offset),
            Write::DeleteBatch { last_offset, .. } => {
                (log_start..written_end).contains(last_offset) && *last_offset + 1 != written_end
            }
            _ => true,
        });
        step
    }

    /// A job has run to its end and all its steps are written: notes how far it came, joins segments that are small,
    /// and takes what was replaced out of the tail.
    pub(crate) fn on_compacted(&mut self, done: &Compacted, writes: &mut Vec<Write>) {
        self.forget_in_memory(done.up_to);
        let (cleaned, left) = done.outcome(&self.state, &self.config);
        self.state.on_compacted(cleaned, left, writes);
    }

    /// Forgets producers that have been silent for `producer.id.expiration.ms`.
    pub(crate) fn expire_producers(&mut self, now: UnixMs, writes: &mut Vec<Write>) {
        self.verifications.expire(now, self.config.producer_id_expiration_ms);
        self.state.expire_producers(now, self.config.producer_id_expiration_ms, writes);
    }

    /// Hands the readers what changed apart from appends.
    fn publish_facts(&self) {
        let mut published = self.reader.shared.published.lock();
        published.log_start_offset = self.state.log_start();
        published.max_timestamp = self.state.segments().max_timestamp();
    }

    /// The batches that end below `offset` were deleted or replaced: readers must not find them in memory.
    fn forget_in_memory(&self, offset: Offset) {
        self.tail.newest.forget_below(&self.reader.shared.slot, offset);
        self.reader.shared.read_ahead.clear();
    }
}

impl Drop for PartitionLog {
    fn drop(&mut self) {
        self.close();
        self.forget_in_memory(Offset::MAX);
    }
}
