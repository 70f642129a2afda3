//! What a partition publishes: the positions a reader may use without asking the partition's lock.

use parking_lot::Mutex;

use super::leader_link::FetchRefused;
use crate::types::{LeaderEpoch, Offset};

/// Positions of one partition at one moment. log start ≤ last stable ≤ high watermark ≤ log end (I-3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PartitionView {
    pub(crate) log_start_offset: Offset,
    /// Below it every transaction is decided; the high watermark where none is open. Readers of committed records stop
    /// here.
    pub(crate) last_stable_offset: Offset,
    /// Consumers read below it (I-11).
    pub(crate) high_watermark: Offset,
    /// End of what has been written (I-5); offsets may already have been given beyond it.
    pub(crate) log_end_offset: Offset,
    pub(crate) leader_epoch: LeaderEpoch,
    /// Whether this broker leads the partition.
    pub(crate) leading: bool,
    /// The log directory has failed: whoever reads here would wait for ever for what another leader has.
    pub(crate) offline: bool,
}

impl PartitionView {
    /// Whether this broker leads, under the epoch that a follower follows. The epoch comes first: one that is ahead or
    /// behind must learn that. Source: Kafka 3.9 `Partition.localLogWithEpochOrThrow`.
    pub(crate) fn check_leading(&self, epoch: Option<LeaderEpoch>) -> Result<(), FetchRefused> {
        match epoch {
            Some(epoch) if epoch < self.leader_epoch => Err(FetchRefused::FencedLeaderEpoch),
            Some(epoch) if epoch > self.leader_epoch => Err(FetchRefused::UnknownLeaderEpoch),
            Some(_) | None if !self.leading => Err(FetchRefused::NotLeader),
            Some(_) | None => Ok(()),
        }
    }

    fn assert_ordered(&self) {
        debug_assert!(self.log_start_offset <= self.last_stable_offset, "I-3: {self:?}");
        debug_assert!(self.last_stable_offset <= self.high_watermark, "I-3: {self:?}");
        debug_assert!(self.high_watermark <= self.log_end_offset, "I-3: {self:?}");
    }
}

/// The published view. Small enough that a lock of some nanoseconds is simpler than anything clever.
#[derive(Debug)]
pub(crate) struct Published(Mutex<PartitionView>);

impl Published {
    pub(crate) fn new(view: PartitionView) -> Self {
        view.assert_ordered();
        Self(Mutex::new(view))
    }

    pub(crate) fn get(&self) -> PartitionView {
        *self.0.lock()
    }

    pub(crate) fn set(&self, view: PartitionView) {
        view.assert_ordered();
        *self.0.lock() = view;
    }
}
