//! When a log is worth compacting, what may be cleaned, and what the log does with the result. Runs under the lock.
//! Source: Kafka 3.9 `LogCleanerManager.grabFilthiestCompactedLog`, `cleanableOffsets`.

use std::collections::{BTreeMap, HashSet, VecDeque};

use crate::clock::UnixMs;
use crate::log::partition_log::PartitionLog;
use crate::log::side::{self, Cleaned};
use crate::log::state::aborted::AbortedRanges;
use crate::log::state::segments::Segment;
use crate::record::BatchHeader;
use crate::storage::Write;
use crate::types::Offset;
use crate::types::limits::{COMPACTION_KEYS_MAX, COMPACTION_STEP_BYTES};

/// What one job may clean. Offsets are segment boundaries, except `log_start` and, after a full map, `first_dirty`.
#[derive(Debug)]
pub(crate) struct CompactionPlan {
    pub(super) log_start: Offset,
    pub(super) first_dirty: Offset,
    /// Exclusive.
    pub(super) up_to: Offset,
    pub(super) now: UnixMs,
    pub(super) delete_retention_ms: i64,
    /// Most keys of one pass.
    pub(super) keys_max: usize,
    /// Bytes read (or written) in one step.
    pub(super) step_bytes: usize,
    /// Keys the hash.
    pub(super) seed: u128,
    /// Whose records go, whatever their keys.
    pub(super) aborted: AbortedRanges,
    /// Batches that must keep their header.
    pub(super) producers_last_offsets: HashSet<Offset>,
    /// Base offsets of the segments, in order.
    segment_bases: Vec<Offset>,
}

/// What a finished job achieved.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Compacted {
    /// Everything below is clean now, exclusive.
    pub(crate) up_to: Offset,
    /// When the first tombstone that was kept may go; `i64::MAX`: none is waiting.
    pub(crate) delete_horizon_ms: i64,
    /// Of each virtual segment that has batches below `up_to`, by base offset.
    pub(crate) segments: BTreeMap<Offset, CleanedSegment>,
}

/// What of a virtual segment a job has seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct CleanedSegment {
    /// Bytes that are left. What an earlier job took away, which then broke off, is not among them.
    pub(crate) left_bytes: u64,
    /// Bytes that went. A first delete horizon may cost some instead.
    pub(crate) removed_bytes: i64,
}

impl CompactionPlan {
    /// Base offset of the segment that holds `offset`.
    pub(super) fn segment_of(&self, offset: Offset) -> Offset {
        let begun = self.segment_bases.partition_point(|&base| base <= offset);
        begun.checked_sub(1).map_or(Offset::ZERO, |at| self.segment_bases[at])
    }

    /// Whether the batch belongs to a transaction that was aborted.
    pub(super) fn is_aborted(&self, header: &BatchHeader) -> bool {
        header.is_transactional() && self.aborted.contain(header.producer_id, header.last_offset())
    }
}

/// What could be cleaned at the moment.
#[derive(Debug, Clone, Copy)]
struct Cleanable {
    up_to: Offset,
    dirty_ratio: f64,
    /// A record waits longer than `max.compaction.lag.ms`.
    overdue: bool,
    /// A tombstone's time has come.
    tombstones_due: bool,
}

impl PartitionLog {
    /// How much a compaction would be worth: the share of dirty bytes, more than 1 if it is overdue. `None`: not now.
    pub(crate) fn compaction_urgency(&self, now: UnixMs, last_stable_offset: Offset) -> Option<f64> {
        let cleanable = self.cleanable(now, last_stable_offset)?;
        if cleanable.overdue {
            return Some(1.0 + cleanable.dirty_ratio);
        }
        let dirty_enough = cleanable.dirty_ratio > self.config.min_cleanable_dirty_ratio;
        (dirty_enough || cleanable.tombstones_due).then_some(cleanable.dirty_ratio)
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
        self.compaction_urgency(now, last_stable_offset)?;
        let cleanable = self.cleanable(now, last_stable_offset)?;
        Some(CompactionPlan {
            log_start: self.log_start,
            first_dirty: self.cleaned.up_to.max(self.log_start).min(cleanable.up_to),
            up_to: cleanable.up_to,
            now,
            delete_retention_ms: self.config.delete_retention_ms,
            keys_max: COMPACTION_KEYS_MAX,
            step_bytes: COMPACTION_STEP_BYTES,
            seed,
            aborted: self.reader.shared.aborted.lock().by_producer(),
            producers_last_offsets: self.producers.last_offsets().collect(),
            segment_bases: self.segments.iter().map(|segment| segment.base_offset).collect(),
        })
    }

    /// Closed segments below the last stable offset (what is open may yet be aborted) whose youngest record is older
    /// than `min.compaction.lag.ms`.
    fn cleanable(&self, now: UnixMs, last_stable_offset: Offset) -> Option<Cleanable> {
        if !self.config.compact {
            return None;
        }
        let bound = last_stable_offset.min(self.written_end);
        let young_after = now.saturating_sub(self.config.min_compaction_lag_ms);
        let overdue_before = now.saturating_sub(self.config.max_compaction_lag_ms.max(0));
        let (mut clean_bytes, mut dirty_bytes) = (0, 0);
        let mut cleanable =
            Cleanable { up_to: self.log_start, dirty_ratio: 0.0, overdue: false, tombstones_due: false };
        for segment in &self.segments.closed {
            let dirty = segment.end_offset > self.cleaned.up_to;
            let too_young = self.config.min_compaction_lag_ms > 0 && segment.largest_timestamp() > young_after;
            if segment.end_offset > bound || (dirty && too_young) {
                break;
            }
            cleanable.up_to = segment.end_offset;
            if !dirty {
                clean_bytes += segment.bytes;
                continue;
            }
            dirty_bytes += segment.bytes;
            let first = if segment.first_timestamp > 0 { segment.first_timestamp } else { segment.created_ms };
            cleanable.overdue = cleanable.overdue || first < overdue_before;
        }
        if dirty_bytes > 0 {
            cleanable.dirty_ratio = dirty_bytes as f64 / (clean_bytes + dirty_bytes) as f64;
        }
        cleanable.tombstones_due = clean_bytes > 0 && now >= self.cleaned.delete_horizon_ms;
        (cleanable.up_to > self.log_start).then_some(cleanable)
    }

    /// Takes out of a job's step what the log has deleted meanwhile, so that nothing comes back to life, and what would
    /// take the batch away with which the log ends since it was cut (I-26).
    pub(crate) fn admit_compacted(&self, mut step: Vec<Write>) -> Vec<Write> {
        step.retain(|write| match write {
            Write::Batch { last_offset, .. } => (self.log_start..self.log_end).contains(last_offset),
            Write::DeleteBatch { last_offset, .. } => {
                (self.log_start..self.written_end).contains(last_offset) && *last_offset + 1 != self.written_end
            }
            _ => true,
        });
        step
    }

    /// A job has run to its end and all its steps are written: notes how far it came, joins segments that are small,
    /// and takes what was replaced out of the tail.
    pub(crate) fn on_compacted(&mut self, done: &Compacted, writes: &mut Vec<Write>) {
        let keys = self.keys();
        self.forget_in_memory(done.up_to);
        self.cleaned = Cleaned {
            up_to: self.cleaned.up_to.max(done.up_to).min(self.log_end),
            delete_horizon_ms: done.delete_horizon_ms,
        };
        writes.push(Write::Side { key: keys.cleaned(), value: side::encode_cleaned(self.cleaned) });
        let mut joined: VecDeque<Segment> = VecDeque::with_capacity(self.segments.closed.len());
        let mut changed: HashSet<Offset> = HashSet::new();
        for mut segment in std::mem::take(&mut self.segments.closed) {
            let cleaned = done.segments.get(&segment.base_offset).copied().unwrap_or_default();
            let left_bytes = if segment.end_offset <= done.up_to {
                cleaned.left_bytes
            } else {
                segment.bytes.saturating_add_signed(-cleaned.removed_bytes)
            };
            if left_bytes != segment.bytes {
                segment.bytes = left_bytes;
                changed.insert(segment.base_offset);
            }
            match joined.back_mut() {
                Some(last)
                    if segment.end_offset <= self.cleaned.up_to
                        && last.bytes + segment.bytes <= self.config.segment_bytes
                        && segment.end_offset - last.base_offset < i64::from(i32::MAX) =>
                {
                    last.absorb(&segment);
                    changed.insert(last.base_offset);
                    changed.remove(&segment.base_offset);
                    writes.push(Write::DeleteSide { key: keys.segment(segment.base_offset) });
                }
                _ => joined.push_back(segment),
            }
        }
        for segment in joined.iter().filter(|segment| changed.contains(&segment.base_offset)) {
            writes.push(Write::Side { key: keys.segment(segment.base_offset), value: side::encode_segment(segment) });
        }
        self.segments.replace_closed(joined);
    }
}
