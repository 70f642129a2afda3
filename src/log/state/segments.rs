//! Virtual segments: nothing on disk is cut, but the log keeps the boundaries where Kafka would have begun a new file.
//! Retention, compaction, time lookups and truncation work by them.
//!
//! Segments follow each other without gaps in offsets; exactly one, the active one, is open and may be empty. Pure.
//! Source: Kafka 3.9 `LogSegment`, `UnifiedLog.maybeRoll`.

use std::collections::VecDeque;

use crate::clock::UnixMs;
use crate::log::config::LogConfig;
use crate::types::Offset;

/// "No timestamp".
pub(in crate::log) const NO_TIMESTAMP: UnixMs = -1;

/// Offsets `base_offset..end_offset` and what is known about the batches that lie there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) base_offset: Offset,
    /// Exclusive; the log end in the active segment.
    pub(crate) end_offset: Offset,
    /// Sum of the batches' sizes.
    pub(crate) bytes: u64,
    /// −1 if no batch has one.
    pub(crate) max_timestamp: UnixMs,
    /// Last offset of the first batch that reached `max_timestamp`.
    pub(crate) max_timestamp_batch: Offset,
    /// Largest timestamp of the first batch; −1 if it has none.
    pub(crate) first_timestamp: UnixMs,
    /// When the first batch was appended (or the segment opened), by the broker's clock.
    pub(crate) created_ms: UnixMs,
    /// When the newest batch was appended, by the broker's clock.
    pub(crate) last_append_ms: UnixMs,
}

impl Segment {
    pub(in crate::log) fn empty(base_offset: Offset, now: UnixMs) -> Self {
        Self {
            base_offset,
            end_offset: base_offset,
            bytes: 0,
            max_timestamp: NO_TIMESTAMP,
            max_timestamp_batch: Offset::NONE,
            first_timestamp: NO_TIMESTAMP,
            created_ms: now,
            last_append_ms: now,
        }
    }

    pub(in crate::log) fn is_empty(&self) -> bool {
        self.end_offset == self.base_offset
    }

    /// Adds a batch at the end.
    pub(in crate::log) fn push(&mut self, last_offset: Offset, bytes: u64, max_timestamp: UnixMs, now: UnixMs) {
        if self.bytes == 0 {
            self.first_timestamp = max_timestamp;
            self.created_ms = now;
        }
        self.end_offset = last_offset + 1;
        self.bytes += bytes;
        self.last_append_ms = now;
        if max_timestamp > self.max_timestamp {
            self.max_timestamp = max_timestamp;
            self.max_timestamp_batch = last_offset;
        }
    }

    /// What retention and compaction compare with the clock: the largest timestamp, or without any the last append.
    pub(in crate::log) fn largest_timestamp(&self) -> UnixMs {
        if self.max_timestamp >= 0 { self.max_timestamp } else { self.last_append_ms }
    }

    /// Whether a batch of `bytes` with this largest timestamp belongs into a new segment. An empty one takes anything.
    ///
    /// Age counts in the records' own time if they have one. Source: Kafka `LogSegment.shouldRoll`.
    pub(in crate::log) fn should_roll(&self, config: &LogConfig, bytes: u64, timestamp: UnixMs, now: UnixMs) -> bool {
        if self.is_empty() {
            return false;
        }
        let age_ms = if self.first_timestamp >= 0 && timestamp >= 0 {
            timestamp.saturating_sub(self.first_timestamp)
        } else {
            now.saturating_sub(self.created_ms)
        };
        self.bytes + bytes > config.segment_bytes
            || age_ms > config.roll_ms()
            || self.end_offset - self.base_offset >= i64::from(i32::MAX)
    }

    /// Joins the segment that follows, after compaction left little of both.
    pub(in crate::log) fn absorb(&mut self, next: &Self) {
        debug_assert_eq!(self.end_offset, next.base_offset, "segments follow each other");
        self.end_offset = next.end_offset;
        self.bytes += next.bytes;
        self.last_append_ms = next.last_append_ms;
        if next.max_timestamp > self.max_timestamp {
            self.max_timestamp = next.max_timestamp;
            self.max_timestamp_batch = next.max_timestamp_batch;
        }
    }
}

/// The segments of one log.
#[derive(Debug, Clone)]
pub(in crate::log) struct Segments {
    /// Oldest first.
    closed: VecDeque<Segment>,
    active: Segment,
    closed_bytes: u64,
}

impl Segments {
    pub(in crate::log) fn new(closed: VecDeque<Segment>, active: Segment) -> Self {
        let closed_bytes = closed.iter().map(|segment| segment.bytes).sum();
        Self { closed, active, closed_bytes }
    }

    /// Oldest first.
    pub(in crate::log) fn closed(&self) -> &VecDeque<Segment> {
        &self.closed
    }

    pub(in crate::log) fn active(&self) -> &Segment {
        &self.active
    }

    /// Adds a batch at the end.
    pub(in crate::log) fn push(&mut self, last_offset: Offset, bytes: u64, max_timestamp: UnixMs, now: UnixMs) {
        self.active.push(last_offset, bytes, max_timestamp, now);
    }

    /// Begins the active segment again, empty.
    pub(in crate::log) fn restart(&mut self, base_offset: Offset, now: UnixMs) {
        self.active = Segment::empty(base_offset, now);
    }

    pub(in crate::log) fn size_bytes(&self) -> u64 {
        self.closed_bytes + self.active.bytes
    }

    /// Counts a batch without records that was put below the end into the segment it lies in; returns that if it is a
    /// closed one, for its side record.
    pub(in crate::log) fn add_below_end(&mut self, last_offset: Offset, bytes: u64, now: UnixMs) -> Option<Segment> {
        if last_offset >= self.active.base_offset {
            let end_offset = self.active.end_offset.max(last_offset + 1);
            self.active.push(last_offset, bytes, NO_TIMESTAMP, now);
            self.active.end_offset = end_offset;
            return None;
        }
        let closed = self.closed.iter_mut().rfind(|closed| closed.base_offset <= last_offset)?;
        closed.bytes += bytes;
        self.closed_bytes += bytes;
        Some(*closed)
    }

    /// Closes the active segment and opens one at its end. The caller records the closed one.
    pub(in crate::log) fn roll(&mut self, now: UnixMs) -> Segment {
        let closed = self.active;
        debug_assert!(!closed.is_empty(), "an empty segment is not closed");
        self.active = Segment::empty(closed.end_offset, now);
        self.closed_bytes += closed.bytes;
        self.closed.push_back(closed);
        closed
    }

    /// Closed segments and the active one, oldest first.
    pub(in crate::log) fn iter(&self) -> impl Iterator<Item = &Segment> {
        self.closed.iter().chain(std::iter::once(&self.active))
    }

    /// Drops closed segments that end at or before `log_start`. They are returned for their side records.
    pub(in crate::log) fn drop_before(&mut self, log_start: Offset) -> Vec<Segment> {
        let gone = self.closed.partition_point(|segment| segment.end_offset <= log_start);
        let gone: Vec<Segment> = self.closed.drain(..gone).collect();
        self.closed_bytes -= gone.iter().map(|segment| segment.bytes).sum::<u64>();
        if self.active.end_offset <= log_start {
            let now = self.active.last_append_ms;
            self.active = Segment::empty(log_start, now);
        }
        gone
    }

    /// Takes out the segments that hold or follow `log_end`; the caller rebuilds the first of them as the active one.
    pub(in crate::log) fn drop_from(&mut self, log_end: Offset) -> Vec<Segment> {
        let kept = self.closed.partition_point(|segment| segment.end_offset <= log_end);
        let gone: Vec<Segment> = self.closed.drain(kept..).collect();
        self.closed_bytes -= gone.iter().map(|segment| segment.bytes).sum::<u64>();
        gone
    }

    /// Replaces the closed segments, after compaction.
    pub(in crate::log) fn replace_closed(&mut self, closed: VecDeque<Segment>) {
        self.closed_bytes = closed.iter().map(|segment| segment.bytes).sum();
        self.closed = closed;
    }

    /// The largest timestamp and the last offset of the first batch that has it.
    pub(in crate::log) fn max_timestamp(&self) -> Option<(UnixMs, Offset)> {
        let mut found: Option<&Segment> = None;
        for segment in self.iter().filter(|segment| segment.max_timestamp >= 0) {
            if found.is_none_or(|found| segment.max_timestamp > found.max_timestamp) {
                found = Some(segment);
            }
        }
        found.map(|segment| (segment.max_timestamp, segment.max_timestamp_batch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> LogConfig {
        LogConfig { segment_bytes: 100, segment_ms: 1000, ..LogConfig::default() }
    }

    #[test]
    fn a_segment_rolls_by_size_and_by_the_records_own_time() {
        let mut segment = Segment::empty(Offset(5), 0);
        assert!(!segment.should_roll(&config(), 1000, 0, 99_999), "an empty one takes anything");
        segment.push(Offset(6), 60, 500, 10_000);
        assert!(!segment.should_roll(&config(), 40, 1500, 99_999));
        assert!(segment.should_roll(&config(), 41, 600, 10_000));
        assert!(segment.should_roll(&config(), 1, 1501, 10_000));
    }

    #[test]
    fn without_timestamps_the_brokers_clock_counts() {
        let mut segment = Segment::empty(Offset(0), 0);
        segment.push(Offset(0), 10, NO_TIMESTAMP, 7000);
        assert!(!segment.should_roll(&config(), 10, NO_TIMESTAMP, 8000));
        assert!(segment.should_roll(&config(), 10, NO_TIMESTAMP, 8001));
        assert_eq!(segment.largest_timestamp(), 7000);
    }

    #[test]
    fn compacted_topics_roll_by_the_compaction_lag_too() {
        let config = LogConfig { compact: true, max_compaction_lag_ms: 10, ..config() };
        let mut segment = Segment::empty(Offset(0), 0);
        segment.push(Offset(0), 10, 100, 0);
        assert!(segment.should_roll(&config, 10, 111, 0));
        assert!(!segment.should_roll(&LogConfig { compact: false, ..config }, 10, 111, 0));
    }

    #[test]
    fn dropping_and_rolling_keep_the_size() {
        let mut segments = Segments::new(VecDeque::new(), Segment::empty(Offset(0), 0));
        for base in [0, 10, 20] {
            segments.active.push(Offset(base + 9), 50, base, 0);
            segments.roll(0);
        }
        segments.active.push(Offset(35), 7, 3, 0);
        assert_eq!(segments.size_bytes(), 157);
        assert_eq!(segments.max_timestamp(), Some((20, Offset(29))));
        assert_eq!(segments.drop_before(Offset(15)).len(), 1);
        assert_eq!(segments.size_bytes(), 107);
        assert_eq!(segments.drop_before(Offset(36)).len(), 2);
        assert_eq!((segments.size_bytes(), segments.active.base_offset), (0, Offset(36)));
    }
}
