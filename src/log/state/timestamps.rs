//! The time index: a sparse list of (running maximum timestamp, offset), kept in side records only.
//!
//! A record `(t, o)` says that no batch whose last offset is at most `o` is younger than `t`, so the record with the
//! largest timestamp below the one asked tells where a search begins. A record is due with a checkpoint, and only when
//! the maximum has grown since the last one.

use crate::clock::UnixMs;
use crate::types::Offset;

/// The index's running end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::log) struct TimeIndex {
    running_max: UnixMs,
    indexed_max: UnixMs,
}

impl TimeIndex {
    /// An index whose newest record has this timestamp; −1: it has none.
    pub(in crate::log) fn new(indexed_max: UnixMs) -> Self {
        Self { running_max: indexed_max, indexed_max }
    }

    /// The largest timestamp of all batches so far; −1 without any.
    pub(in crate::log) fn running_max(&self) -> UnixMs {
        self.running_max
    }

    /// Notes a batch's largest timestamp. True if it is the largest so far.
    pub(in crate::log) fn on_batch(&mut self, max_timestamp: UnixMs) -> bool {
        let grew = max_timestamp > self.running_max;
        if grew {
            self.running_max = max_timestamp;
        }
        grew
    }

    /// Records with the running maximum or more were removed; the next checkpoint writes one again.
    pub(in crate::log) fn forget_newest(&mut self) {
        self.indexed_max = self.indexed_max.min(self.running_max.saturating_sub(1)).max(-1);
    }

    /// The record to write with a checkpoint at this log end, if one is due.
    pub(in crate::log) fn due(&mut self, log_end: Offset) -> Option<(UnixMs, Offset)> {
        if self.running_max <= self.indexed_max {
            return None;
        }
        self.indexed_max = self.running_max;
        Some((self.running_max, log_end + -1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_due_only_when_the_maximum_grew() {
        let mut index = TimeIndex::new(-1);
        assert_eq!(index.due(Offset(5)), None, "batches without timestamps are not indexed");
        assert!(index.on_batch(100));
        assert!(!index.on_batch(90));
        assert_eq!(index.due(Offset(9)), Some((100, Offset(8))));
        assert!(!index.on_batch(100));
        assert_eq!(index.due(Offset(20)), None);
        assert!(index.on_batch(101));
        assert_eq!(index.due(Offset(30)), Some((101, Offset(29))));
    }
}
