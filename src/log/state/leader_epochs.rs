//! Leader epochs of one partition: which term began at which offset. Followers and consumers ask it where their log
//! parts from the leader's.
//!
//! Epochs and start offsets both grow strictly. Pure; the caller writes the records.
//! Source: Kafka 3.9 `LeaderEpochFileCache`.

use crate::types::{LeaderEpoch, Offset};

/// The history of terms, oldest first.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(in crate::log) struct LeaderEpochs {
    entries: Vec<(LeaderEpoch, Offset)>,
}

/// What changed, for the side records.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::log) struct EpochsChanged {
    pub(in crate::log) removed: Vec<LeaderEpoch>,
    pub(in crate::log) put: Option<(LeaderEpoch, Offset)>,
}

impl LeaderEpochs {
    pub(in crate::log) fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|&(epoch, _)| epoch)
    }

    /// Whether `epoch` is later than all that are known, so that a batch found on disk begins it.
    /// Source: Kafka 3.9 `LogSegment.recover`.
    pub(in crate::log) fn is_news(&self, epoch: LeaderEpoch) -> bool {
        self.latest().is_none_or(|latest| epoch > latest)
    }

    pub(in crate::log) fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.entries
    }

    /// Notes that `epoch` begins at `start`. What contradicts it goes first: entries of the same or a later epoch, and
    /// those that begin there or later. The latest epoch, told again with the same start or a later one, changes
    /// nothing. Recovery, which reads batches again, oldest first, asks [`Self::is_news`] before: it would undo what
    /// came later. Source: Kafka 3.9 `LeaderEpochFileCache.assign`, `maybeTruncateNonMonotonicEntries`.
    pub(in crate::log) fn assign(&mut self, epoch: LeaderEpoch, start: Offset) -> EpochsChanged {
        let mut changed = EpochsChanged::default();
        let known = |&(latest, at): &(LeaderEpoch, Offset)| epoch == latest && start >= at;
        if epoch.0 < 0 || self.entries.last().is_some_and(known) {
            return changed;
        }
        let kept = self.entries.partition_point(|&(known, at)| known < epoch && at < start);
        changed.removed = self.entries.drain(kept..).map(|(epoch, _)| epoch).filter(|&gone| gone != epoch).collect();
        self.entries.push((epoch, start));
        changed.put = Some((epoch, start));
        changed
    }

    /// The log now begins at `log_start`: what ended before it goes, the term it lies in begins there.
    pub(in crate::log) fn truncate_from_start(&mut self, log_start: Offset) -> EpochsChanged {
        let mut changed = EpochsChanged::default();
        let begun = self.entries.partition_point(|&(_, at)| at <= log_start);
        let Some(current) = begun.checked_sub(1) else { return changed };
        changed.removed = self.entries.drain(..current).map(|(epoch, _)| epoch).collect();
        let first = &mut self.entries[0];
        if first.1 != log_start {
            first.1 = log_start;
            changed.put = Some(*first);
        }
        changed
    }

    /// The log now ends at `log_end`: terms that begin there or later go.
    pub(in crate::log) fn truncate_from_end(&mut self, log_end: Offset) -> EpochsChanged {
        let kept = self.entries.partition_point(|&(_, at)| at < log_end);
        let removed = self.entries.drain(kept..).map(|(epoch, _)| epoch).collect();
        EpochsChanged { removed, put: None }
    }

    /// The largest epoch not above the one asked, and where it ended. `None`: nothing is known about it.
    ///
    /// An epoch older than all known ones ends where the oldest begins. Source: `LeaderEpochFileCache.endOffsetFor`.
    pub(in crate::log) fn end_offset_for(&self, asked: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
        let latest = self.latest()?;
        if asked.0 < 0 || asked > latest {
            return None;
        }
        if asked == latest {
            return Some((asked, log_end));
        }
        let higher = self.entries.partition_point(|&(epoch, _)| epoch <= asked);
        let epoch = higher.checked_sub(1).map_or(asked, |floor| self.entries[floor].0);
        Some((epoch, self.entries[higher].1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(entries: &[(i32, i64)]) -> LeaderEpochs {
        LeaderEpochs { entries: entries.iter().map(|&(epoch, at)| (LeaderEpoch(epoch), Offset(at))).collect() }
    }

    fn end_of(epochs: &LeaderEpochs, asked: i32) -> Option<(i32, i64)> {
        epochs.end_offset_for(LeaderEpoch(asked), Offset(100)).map(|(epoch, end)| (epoch.0, end.0))
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let epochs = history(&[(2, 10), (4, 30), (7, 60)]);
        assert_eq!(end_of(&epochs, 7), Some((7, 100)), "the current one ends at the log end");
        assert_eq!(end_of(&epochs, 4), Some((4, 60)));
        assert_eq!(end_of(&epochs, 5), Some((4, 60)), "the largest one not above");
        assert_eq!(end_of(&epochs, 1), Some((1, 10)), "older than all");
        assert_eq!(end_of(&epochs, 8), None);
        assert_eq!(end_of(&epochs, -1), None);
        assert_eq!(end_of(&LeaderEpochs::default(), 0), None);
    }

    #[test]
    fn an_epoch_without_data_is_replaced_by_the_next_at_the_same_offset() {
        let mut epochs = LeaderEpochs::default();
        assert_eq!(epochs.assign(LeaderEpoch(0), Offset(0)).put, Some((LeaderEpoch(0), Offset(0))));
        assert_eq!(epochs.assign(LeaderEpoch(1), Offset(5)).removed, []);
        let changed = epochs.assign(LeaderEpoch(3), Offset(5));
        assert_eq!((changed.removed, changed.put), (vec![LeaderEpoch(1)], Some((LeaderEpoch(3), Offset(5)))));
        assert_eq!(epochs, history(&[(0, 0), (3, 5)]));
        assert_eq!(epochs.assign(LeaderEpoch(3), Offset(9)), EpochsChanged::default());
        assert_eq!(epochs.assign(LeaderEpoch(-1), Offset(9)), EpochsChanged::default());
    }

    /// P7: a follower takes a leader's history as it is, a lower epoch included.
    #[test]
    fn p7_an_epoch_takes_the_place_of_what_contradicts_it() {
        let mut epochs = history(&[(0, 0), (2, 10), (5, 20)]);
        let changed = epochs.assign(LeaderEpoch(3), Offset(25));
        assert_eq!((changed.removed, changed.put), (vec![LeaderEpoch(5)], Some((LeaderEpoch(3), Offset(25)))));
        assert_eq!(epochs, history(&[(0, 0), (2, 10), (3, 25)]));
        let changed = epochs.assign(LeaderEpoch(4), Offset(10));
        assert_eq!(changed.removed, [LeaderEpoch(2), LeaderEpoch(3)]);
        assert_eq!(epochs, history(&[(0, 0), (4, 10)]));
        let changed = epochs.assign(LeaderEpoch(4), Offset(7));
        assert_eq!((changed.removed, changed.put), (vec![], Some((LeaderEpoch(4), Offset(7)))), "rewritten in place");
        assert_eq!(epochs, history(&[(0, 0), (4, 7)]));
        assert!(epochs.is_news(LeaderEpoch(5)) && !epochs.is_news(LeaderEpoch(4)) && !epochs.is_news(LeaderEpoch(1)));
    }

    #[test]
    fn a_new_log_start_moves_the_term_it_lies_in() {
        let mut epochs = history(&[(0, 0), (1, 10), (2, 20)]);
        let changed = epochs.truncate_from_start(Offset(15));
        assert_eq!(changed.put, Some((LeaderEpoch(1), Offset(15))));
        assert_eq!(epochs, history(&[(1, 15), (2, 20)]));
        assert_eq!(epochs.truncate_from_start(Offset(20)).put, None);
        assert_eq!(epochs, history(&[(2, 20)]));
    }

    #[test]
    fn a_new_log_end_drops_the_terms_that_begin_there() {
        let mut epochs = history(&[(0, 0), (1, 10), (2, 20)]);
        assert_eq!(epochs.truncate_from_end(Offset(10)).removed, [LeaderEpoch(1), LeaderEpoch(2)]);
        assert_eq!(epochs, history(&[(0, 0)]));
    }
}
