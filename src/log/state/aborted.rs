//! The index of aborted transactions: whose records a reader of committed ones must leave out. Its records lie beside
//! the batches (tag 0x84 in `side`), the whole of it in memory, 32 bytes each, shared between the log and its readers.
//!
//! Pure. Kept until the log start passes the marker, also when compaction has removed the records: a reader may still
//! hold them. One that began to read before the log start moved is told that it came too late.
//! Source: Kafka 3.9 `TransactionIndex`, `AbortedTxn`.

use std::collections::{HashMap, VecDeque};

use crate::types::{Offset, ProducerId};

/// One transaction that was aborted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AbortedTransaction {
    pub(crate) producer_id: ProducerId,
    pub(crate) first_offset: Offset,
    /// That of its marker.
    pub(crate) last_offset: Offset,
    /// When it ended, everything below this was decided: those that end later begin at or above it.
    pub(crate) last_stable_offset: Offset,
}

/// In the order of the markers.
#[derive(Debug, Default, Clone)]
pub(in crate::log) struct AbortedIndex {
    list: VecDeque<AbortedTransaction>,
    /// Below it some were forgotten.
    complete_from: Offset,
}

impl AbortedIndex {
    /// False: it is known already.
    pub(in crate::log) fn add(&mut self, transaction: AbortedTransaction) -> bool {
        let at = self.from(transaction.last_offset);
        if self.list.get(at).is_some_and(|known| known.last_offset == transaction.last_offset) {
            return false;
        }
        self.list.insert(at, transaction);
        true
    }

    /// What overlaps `from..upto`, by first offset. `None`: what ended at or after `from` is not all known any more.
    /// Source: Kafka `TransactionIndex.collectAbortedTxns`.
    pub(in crate::log) fn overlapping(&self, from: Offset, upto: Offset) -> Option<Vec<AbortedTransaction>> {
        if from < self.complete_from {
            return None;
        }
        let mut found = Vec::new();
        for transaction in self.list.range(self.from(from)..) {
            if transaction.first_offset < upto {
                found.push(*transaction);
            }
            if transaction.last_stable_offset >= upto {
                break;
            }
        }
        found.sort_unstable_by_key(|transaction| transaction.first_offset);
        Some(found)
    }

    /// Forgets those that end below `log_start`. True if there were any.
    pub(in crate::log) fn drop_below(&mut self, log_start: Offset) -> bool {
        let gone = self.from(log_start);
        if gone > 0 {
            self.list.drain(..gone);
            self.complete_from = log_start;
        }
        gone > 0
    }

    /// Forgets those that end at or above `log_end`. True if there were any.
    pub(in crate::log) fn drop_from(&mut self, log_end: Offset) -> bool {
        let kept = self.from(log_end);
        let gone = self.list.len() - kept;
        self.list.truncate(kept);
        gone > 0
    }

    /// Those that `other` does not have.
    pub(in crate::log) fn missing_in(&self, other: &Self) -> Vec<AbortedTransaction> {
        let known = |transaction: &&AbortedTransaction| {
            other.list.get(other.from(transaction.last_offset)) == Some(transaction)
        };
        self.list.iter().filter(|transaction| !known(transaction)).copied().collect()
    }

    /// Forgets all: the log begins anew here.
    pub(in crate::log) fn restart_at(&mut self, log_start: Offset) {
        *self = Self { list: VecDeque::new(), complete_from: log_start };
    }

    /// Ranges of aborted offsets of each producer, for a pass over many batches.
    pub(in crate::log) fn by_producer(&self) -> AbortedRanges {
        let mut ranges: HashMap<ProducerId, Vec<(Offset, Offset)>> = HashMap::new();
        for transaction in &self.list {
            let of_producer = ranges.entry(transaction.producer_id).or_default();
            of_producer.push((transaction.first_offset, transaction.last_offset));
        }
        AbortedRanges(ranges)
    }

    #[cfg(test)]
    pub(in crate::log) fn iter(&self) -> impl Iterator<Item = &AbortedTransaction> {
        self.list.iter()
    }

    /// Place of the first one whose marker is not below `offset`.
    fn from(&self, offset: Offset) -> usize {
        self.list.partition_point(|transaction| transaction.last_offset < offset)
    }
}

/// First offset and marker of the aborted transactions of each producer, in order; they do not overlap.
#[derive(Debug, Default)]
pub(in crate::log) struct AbortedRanges(HashMap<ProducerId, Vec<(Offset, Offset)>>);

impl AbortedRanges {
    /// Whether a transactional batch of this producer that ends at `last_offset` was aborted.
    pub(in crate::log) fn contain(&self, producer_id: ProducerId, last_offset: Offset) -> bool {
        let Some(ranges) = self.0.get(&producer_id) else { return false };
        let at = ranges.partition_point(|&(_, marker)| marker < last_offset);
        ranges.get(at).is_some_and(|&(first, _)| first <= last_offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aborted(id: i64, first: i64, last: i64, stable: i64) -> AbortedTransaction {
        AbortedTransaction {
            producer_id: ProducerId(id),
            first_offset: Offset(first),
            last_offset: Offset(last),
            last_stable_offset: Offset(stable),
        }
    }

    fn index() -> AbortedIndex {
        let mut index = AbortedIndex::default();
        // The second begins before the first and ends after it.
        for transaction in [aborted(1, 3, 5, 2), aborted(2, 2, 7, 8), aborted(1, 8, 12, 13)] {
            assert!(index.add(transaction));
        }
        index
    }

    fn firsts(index: &AbortedIndex, from: i64, upto: i64) -> Vec<i64> {
        let found = index.overlapping(Offset(from), Offset(upto)).expect("complete");
        found.iter().map(|found| found.first_offset.0).collect()
    }

    #[test]
    fn what_overlaps_is_found_by_first_offset() {
        let index = index();
        assert_eq!(firsts(&index, 0, 20), [2, 3, 8]);
        assert_eq!(firsts(&index, 0, 3), [2]);
        assert_eq!(firsts(&index, 5, 6), [2, 3]);
        assert_eq!(firsts(&index, 6, 8), [2]);
        assert_eq!(firsts(&index, 12, 13), [8]);
        assert_eq!(firsts(&index, 13, 20), [0i64; 0]);
    }

    #[test]
    fn cuts_at_both_ends_and_repetition() {
        let mut index = index();
        assert!(!index.add(aborted(2, 2, 7, 8)));
        assert!(!index.drop_below(Offset(5)));
        assert!(index.drop_below(Offset(6)));
        assert_eq!(index.overlapping(Offset(5), Offset(20)), None, "a reader may have begun below");
        assert!(!index.drop_from(Offset(13)));
        assert!(index.drop_from(Offset(12)));
        assert_eq!(firsts(&index, 6, 20), [2]);
        assert!(index.add(aborted(1, 3, 5, 2)), "in its place");
        assert_eq!(index.iter().map(|known| known.last_offset.0).collect::<Vec<_>>(), [5, 7]);
    }

    #[test]
    fn a_batch_is_aborted_inside_its_producers_ranges_only() {
        let ranges = index().by_producer();
        let contained = |id, at| ranges.contain(ProducerId(id), Offset(at));
        assert_eq!((2..=13).filter(|&at| contained(1, at)).collect::<Vec<_>>(), [3, 4, 5, 8, 9, 10, 11, 12]);
        assert!(contained(2, 3) && !contained(2, 8) && !contained(3, 4));
    }
}
