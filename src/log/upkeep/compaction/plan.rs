//! When a log is worth compacting, what may be cleaned, and what a finished job makes of the segments. Pure.
//! Source: Kafka 3.9 `LogCleanerManager.grabFilthiestCompactedLog`, `cleanableOffsets`.

use std::collections::{BTreeMap, HashSet, VecDeque};

use crate::clock::UnixMs;
use crate::log::config::LogConfig;
use crate::log::side::Cleaned;
use crate::log::state::aborted::AbortedRanges;
use crate::log::state::log_state::LogState;
use crate::log::state::segments::Segment;
use crate::record::BatchHeader;
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

/// The log that is looked at, under its lock.
#[derive(Debug, Clone, Copy)]
pub(in crate::log) struct Candidate<'a> {
    pub(in crate::log) state: &'a LogState,
    pub(in crate::log) config: &'a LogConfig,
    /// What is open above the last stable offset may yet be aborted, and above the written end refused.
    pub(in crate::log) bound: Offset,
    pub(in crate::log) now: UnixMs,
}

impl Candidate<'_> {
    /// How much a compaction would be worth: the share of dirty bytes, more than 1 if it is overdue. `None`: not now.
    pub(in crate::log) fn urgency(self) -> Option<f64> {
        let cleanable = self.cleanable()?;
        if cleanable.overdue {
            return Some(1.0 + cleanable.dirty_ratio);
        }
        let dirty_enough = cleanable.dirty_ratio > self.config.min_cleanable_dirty_ratio;
        (dirty_enough || cleanable.tombstones_due).then_some(cleanable.dirty_ratio)
    }

    /// The plan of a job that is worth doing now. `seed` is random.
    pub(in crate::log) fn plan(self, seed: u128) -> Option<CompactionPlan> {
        self.urgency()?;
        let (state, cleanable) = (self.state, self.cleanable()?);
        Some(CompactionPlan {
            log_start: state.log_start(),
            first_dirty: state.cleaned().up_to.max(state.log_start()).min(cleanable.up_to),
            up_to: cleanable.up_to,
            now: self.now,
            delete_retention_ms: self.config.delete_retention_ms,
            keys_max: COMPACTION_KEYS_MAX,
            step_bytes: COMPACTION_STEP_BYTES,
            seed,
            aborted: state.aborted_ranges(),
            producers_last_offsets: state.producers().last_offsets().collect(),
            segment_bases: state.segments().iter().map(|segment| segment.base_offset).collect(),
        })
    }

    /// Closed segments below the bound whose youngest record is older than `min.compaction.lag.ms`.
    fn cleanable(self) -> Option<Cleanable> {
        let Self { state, config, bound, now } = self;
        if !config.compact {
            return None;
        }
        let young_after = now.saturating_sub(config.min_compaction_lag_ms);
        let overdue_before = now.saturating_sub(config.max_compaction_lag_ms.max(0));
        let (mut clean_bytes, mut dirty_bytes) = (0, 0);
        let mut cleanable =
            Cleanable { up_to: state.log_start(), dirty_ratio: 0.0, overdue: false, tombstones_due: false };
        for segment in state.segments().closed() {
            let dirty = segment.end_offset > state.cleaned().up_to;
            let too_young = config.min_compaction_lag_ms > 0 && segment.largest_timestamp() > young_after;
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
        cleanable.tombstones_due = clean_bytes > 0 && now >= state.cleaned().delete_horizon_ms;
        (cleanable.up_to > state.log_start()).then_some(cleanable)
    }
}

impl Compacted {
    /// How far a log is clean that a finished job has rewritten, and its closed segments: those that are small joined.
    pub(in crate::log) fn outcome(&self, state: &LogState, config: &LogConfig) -> (Cleaned, VecDeque<Segment>) {
        let up_to = state.cleaned().up_to.max(self.up_to).min(state.log_end());
        let cleaned = Cleaned { up_to, delete_horizon_ms: self.delete_horizon_ms };
        let closed = state.segments().closed();
        let mut left: VecDeque<Segment> = VecDeque::with_capacity(closed.len());
        for segment in closed {
            let seen = self.segments.get(&segment.base_offset).copied().unwrap_or_default();
            let bytes = if segment.end_offset <= self.up_to {
                seen.left_bytes
            } else {
                segment.bytes.saturating_add_signed(-seen.removed_bytes)
            };
            let segment = Segment { bytes, ..*segment };
            match left.back_mut() {
                Some(last)
                    if segment.end_offset <= up_to
                        && last.bytes + segment.bytes <= config.segment_bytes
                        && segment.end_offset - last.base_offset < i64::from(i32::MAX) =>
                {
                    last.absorb(&segment);
                }
                _ => left.push_back(segment),
            }
        }
        (cleaned, left)
    }
}
