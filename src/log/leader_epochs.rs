//! Leader epochs of one partition: which term began at which offset. Followers and consumers ask it where their log
//! parts from the leader's.
//!
//! Epochs and start offsets both grow strictly. Pure; the caller writes the records.
//! Source: Kafka 3.9 `LeaderEpochFileCache`.

use crate::types::{LeaderEpoch, Offset};

/// The history of terms, oldest first.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct LeaderEpochs {
    entries: Vec<(LeaderEpoch, Offset)>,
}

/// What changed, for the side records.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct EpochsChanged {
    pub(super) removed: Vec<LeaderEpoch>,
    pub(super) put: Option<(LeaderEpoch, Offset)>,
}

impl LeaderEpochs {
    pub(super) fn latest(&self) -> Option<LeaderEpoch> {
        self.entries.last().map(|&(epoch, _)| epoch)
    }

    pub(super) fn entries(&self) -> &[(LeaderEpoch, Offset)] {
        &self.entries
    }

    /// Notes that `epoch` begins at `start`. An epoch known already, or an older one, changes nothing. A later epoch
    /// without data replaces those that begin at the same offset.
    pub(super) fn assign(&mut self, epoch: LeaderEpoch, start: Offset) -> EpochsChanged {
        let mut changed = EpochsChanged::default();
        if epoch.0 < 0 || self.latest().is_some_and(|latest| epoch <= latest) {
            return changed;
        }
        let kept = self.entries.partition_point(|&(_, at)| at < start);
        changed.removed = self.entries.drain(kept..).map(|(epoch, _)| epoch).collect();
        self.entries.push((epoch, start));
        changed.put = Some((epoch, start));
        changed
    }

    /// The log now begins at `log_start`: what ended before it goes, the term it lies in begins there.
    pub(super) fn truncate_from_start(&mut self, log_start: Offset) -> EpochsChanged {
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
    pub(super) fn truncate_from_end(&mut self, log_end: Offset) -> EpochsChanged {
        let kept = self.entries.partition_point(|&(_, at)| at < log_end);
        let removed = self.entries.drain(kept..).map(|(epoch, _)| epoch).collect();
        EpochsChanged { removed, put: None }
    }

    /// The largest epoch not above the one asked, and where it ended. `None`: nothing is known about it.
    ///
    /// An epoch older than all known ones ends where the oldest begins. Source: `LeaderEpochFileCache.endOffsetFor`.
    pub(super) fn end_offset_for(&self, asked: LeaderEpoch, log_end: Offset) -> Option<(LeaderEpoch, Offset)> {
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
        assert_eq!(epochs.assign(LeaderEpoch(2), Offset(9)), EpochsChanged::default());
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
