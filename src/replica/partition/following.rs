//! A follower's positions, as its leader tells them.

use std::sync::Arc;

use super::{Partition, check_changeable};
use crate::replica::change::Changed;
use crate::storage::Queued;
use crate::types::{LeaderEpoch, Offset};

impl Partition {
    /// Takes over what a leader told with a fetch whose records are written: its high watermark as far as this log
    /// reaches, never back, and its log start, if that is higher and committed. Does nothing under another epoch than
    /// `epoch`, or where this broker leads. Gives the log start if it moved: once that is written the caller may have
    /// the space below reclaimed.
    ///
    /// The caller has seen to it that the logs do not part below the log end.
    /// Source: Kafka 3.9 `ReplicaFetcherThread.processPartitionData`.
    pub(crate) fn advance_as_follower(
        self: &Arc<Self>,
        epoch: LeaderEpoch,
        leader_high_watermark: Offset,
        leader_log_start: Offset,
    ) -> Changed<Option<Offset>> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let follows = !state.leading && !state.stopped && state.role.leader_epoch == epoch;
        if !follows || check_changeable(state).is_err() {
            return Changed::new(None, Queued::nothing());
        }
        let before = self.view();
        let high_watermark = before.high_watermark.max(leader_high_watermark.min(state.log.written_end_offset()));
        let mut writes = Vec::new();
        let moves_start = before.log_start_offset < leader_log_start && leader_log_start <= high_watermark;
        if moves_start {
            state.log.advance_log_start(leader_log_start, &mut writes);
        }
        if !moves_start && high_watermark == before.high_watermark {
            return Changed::new(None, Queued::nothing());
        }
        self.publish_following(state, high_watermark);
        let queued = self.queue_change(state, writes);
        drop(guard);
        self.waiters.wake_all();
        Changed::new(moves_start.then_some(leader_log_start), queued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::testing;

    fn told(partition: &Arc<Partition>, epoch: i32, high_watermark: i64, log_start: i64) -> Option<Offset> {
        let changed = partition.advance_as_follower(LeaderEpoch(epoch), Offset(high_watermark), Offset(log_start));
        changed.written().expect("written")
    }

    #[test]
    fn a_follower_takes_over_what_its_leader_tells_as_far_as_it_has_it() {
        let (partition, _) = testing::led(LeaderEpoch(1));
        testing::append(&partition, 5);
        let positions = || (partition.view().log_start_offset.0, partition.view().high_watermark.0);
        assert_eq!(told(&partition, 1, 3, 2), None, "a leader is told nothing");
        testing::take(&partition, testing::role(2, 2));
        assert_eq!(positions(), (0, 5), "it keeps its high watermark when it takes a role");
        assert_eq!(told(&partition, 1, 9, 2), None, "of the former epoch");
        assert_eq!(told(&partition, 2, 3, 0), None);
        assert_eq!(positions(), (0, 5), "never back");
        assert_eq!(told(&partition, 2, 9, 6), None, "what is not committed stays");
        assert_eq!(told(&partition, 2, 9, 2), Some(Offset(2)));
        assert_eq!(positions(), (2, 5));
        assert_eq!(told(&partition, 2, 9, 1), None);
        partition.stop_following();
        assert_eq!((told(&partition, 2, 9, 3), positions()), (None, (2, 5)));
    }
}
