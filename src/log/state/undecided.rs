//! Which transactions keep the last stable offset back: those that are open, and those whose marker is not below the
//! high watermark yet. A transaction is known by its first offset, which it shares with no other.
//!
//! Pure. Every change costs the logarithm of what is open; a log without transactions pays for one comparison.
//! Source: Kafka 3.9 `ProducerStateManager.firstUnstableOffset`, `onHighWatermarkUpdated`, `lastStableOffset`.

use std::collections::{BTreeSet, VecDeque};

use crate::types::Offset;

/// First offsets of the transactions of one log that are not decided for readers.
#[derive(Debug, Default, Clone)]
pub(in crate::log) struct UndecidedTransactions {
    open: BTreeSet<Offset>,
    /// Offset of the marker and first offset, in the order of the markers.
    ended: VecDeque<(Offset, Offset)>,
    /// First offsets of `ended`.
    ended_firsts: BTreeSet<Offset>,
}

impl UndecidedTransactions {
    pub(in crate::log) fn begin(&mut self, first: Offset) {
        self.open.insert(first);
    }

    /// A marker was given the offset `marker`, or is read again after a cut, though it may be known. Returns the last
    /// stable offset as the index of aborted transactions keeps it: the first of what is open now, else the offset
    /// after the marker.
    pub(in crate::log) fn end(&mut self, first: Offset, marker: Offset) -> Offset {
        self.open.remove(&first);
        let at = self.ended.partition_point(|&(known, _)| known < marker);
        if self.ended.get(at).is_none_or(|&(known, _)| known != marker) {
            self.ended.insert(at, (marker, first));
        }
        self.ended_firsts.insert(first);
        self.open.first().copied().unwrap_or(marker + 1)
    }

    /// The first offset of what is open, or ended by a marker at or above the high watermark.
    pub(in crate::log) fn first_unstable(&mut self, high_watermark: Offset) -> Option<Offset> {
        while let Some(&(marker, first)) = self.ended.front()
            && marker < high_watermark
        {
            self.ended.pop_front();
            self.ended_firsts.remove(&first);
        }
        match (self.open.first(), self.ended_firsts.first()) {
            (Some(&open), Some(&ended)) => Some(open.min(ended)),
            (open, ended) => open.or(ended).copied(),
        }
    }

    /// First offsets, up to this one, at which readers of committed records may have to stop.
    pub(in crate::log) fn undecided_up_to(&self, offset: Offset) -> Vec<Offset> {
        self.open.range(..=offset).chain(self.ended_firsts.range(..=offset)).copied().collect()
    }

    /// The log now ends at `log_end`, and these transactions are open.
    pub(in crate::log) fn cut(&mut self, log_end: Offset, open: impl Iterator<Item = Offset>) {
        self.open = open.collect();
        self.ended.retain(|&(marker, _)| marker < log_end);
        self.ended_firsts = self.ended.iter().map(|&(_, first)| first).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unstable(transactions: &mut UndecidedTransactions, high_watermark: i64) -> Option<i64> {
        transactions.first_unstable(Offset(high_watermark)).map(|offset| offset.0)
    }

    #[test]
    fn a_transaction_is_stable_once_its_marker_is_below_the_high_watermark() {
        let mut transactions = UndecidedTransactions::default();
        assert_eq!(unstable(&mut transactions, 0), None);
        transactions.begin(Offset(2));
        transactions.begin(Offset(5));
        assert_eq!(unstable(&mut transactions, 9), Some(2));
        assert_eq!(transactions.end(Offset(2), Offset(9)), Offset(5), "held back by the other one");
        assert_eq!(unstable(&mut transactions, 9), Some(2));
        assert_eq!(unstable(&mut transactions, 10), Some(5));
        assert_eq!(transactions.end(Offset(5), Offset(10)), Offset(11));
        assert_eq!(unstable(&mut transactions, 10), Some(5));
        assert_eq!(unstable(&mut transactions, 11), None);
    }

    /// What was read again stood behind later markers, and held the last stable offset back as long as those did.
    #[test]
    fn a_marker_that_is_read_again_holds_nothing_back_that_it_did_not() {
        let mut transactions = UndecidedTransactions::default();
        for (first, marker) in [(1, 4), (6, 9)] {
            transactions.begin(Offset(first));
            transactions.end(Offset(first), Offset(marker));
        }
        assert_eq!(unstable(&mut transactions, 5), Some(6));
        transactions.cut(Offset(10), [].into_iter());
        for (first, marker) in [(1, 4), (6, 9)] {
            transactions.begin(Offset(first));
            transactions.end(Offset(first), Offset(marker));
        }
        assert_eq!(unstable(&mut transactions, 5), Some(6));
        assert_eq!(unstable(&mut transactions, 10), None);
    }

    #[test]
    fn a_cut_opens_again_what_a_lost_marker_ended() {
        let mut transactions = UndecidedTransactions::default();
        for (first, marker) in [(1, 4), (2, 6)] {
            transactions.begin(Offset(first));
            transactions.end(Offset(first), Offset(marker));
        }
        transactions.cut(Offset(5), [Offset(2)].into_iter());
        assert_eq!(unstable(&mut transactions, 4), Some(1));
        assert_eq!(unstable(&mut transactions, 5), Some(2));
    }
}
