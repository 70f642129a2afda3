//! What a leader has written and the high watermark has not passed: by how many bytes readers get more when it rises.

use std::collections::VecDeque;

use crate::types::Offset;

/// Batches that are remembered at most: with too few replicas in sync the high watermark may stand still for ever.
const BATCHES_MAX: usize = 4096;

/// Written batches by their last offset, with their bytes; those below `from` are not known.
#[derive(Debug, Default)]
pub(super) struct Unreplicated {
    from: Offset,
    batches: VecDeque<(Offset, i64)>,
}

impl Unreplicated {
    /// Nothing is known of what ends below `from`.
    pub(super) fn begin(&mut self, from: Offset) {
        self.from = from;
        self.batches.clear();
    }

    /// In offset order.
    pub(super) fn push(&mut self, last_offset: Offset, bytes: i64) {
        if self.batches.len() == BATCHES_MAX {
            return self.begin(last_offset + 1);
        }
        self.batches.push_back((last_offset, bytes));
    }

    /// The high watermark rose from `before` to `to`: bytes that lie between, if that is known.
    pub(super) fn pass(&mut self, before: Offset, to: Offset) -> Option<i64> {
        let mut bytes = 0;
        while self.batches.front().is_some_and(|(last_offset, _)| *last_offset < to) {
            bytes += self.batches.pop_front().map_or(0, |(_, bytes)| bytes);
        }
        (before >= self.from).then_some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_high_watermark_that_stands_still_takes_no_memory() {
        let mut unreplicated = Unreplicated::default();
        let last = BATCHES_MAX as i64 * 3 + 10;
        for last_offset in 0..=last {
            unreplicated.push(Offset(last_offset), 1);
            assert!(unreplicated.batches.len() <= BATCHES_MAX);
        }
        let known = unreplicated.batches.len() as i64;
        assert_eq!(unreplicated.pass(Offset(0), Offset(5)), None, "forgotten");
        assert_eq!(unreplicated.pass(Offset(last + 1 - known), Offset(last + 1)), Some(known));
    }

    #[test]
    fn bytes_are_counted_from_where_they_are_known() {
        let mut unreplicated = Unreplicated::default();
        unreplicated.begin(Offset(10));
        for last_offset in [10, 14, 15] {
            unreplicated.push(Offset(last_offset), 100);
        }
        assert_eq!(unreplicated.pass(Offset(7), Offset(11)), None, "what lies below 10 was written before");
        assert_eq!(unreplicated.pass(Offset(11), Offset(14)), Some(0), "a batch counts once it is passed whole");
        assert_eq!(unreplicated.pass(Offset(14), Offset(16)), Some(200));
    }
}
