//! What a leader has written and the high watermark has not passed: by how many bytes readers get more when it rises.

use std::collections::VecDeque;

use crate::types::Offset;

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
