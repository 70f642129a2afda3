//! What whoever watches the broker is told of one replica.

use super::Partition;
use crate::types::Offset;

/// One replica at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    pub(crate) leading: bool,
    /// Replicas that are assigned, and those of them in sync, as the leader knows it.
    pub(crate) replicas: usize,
    pub(crate) in_sync: usize,
    /// `min.insync.replicas`, but no more than there are replicas.
    pub(crate) min_in_sync: usize,
    pub(crate) log_start_offset: Offset,
    pub(crate) log_end_offset: Offset,
    pub(crate) size_bytes: u64,
    pub(crate) segments: usize,
}

impl Partition {
    /// Copies some numbers under the partition's lock; an append that comes meanwhile waits for less than it costs.
    pub(crate) fn figures(&self) -> Figures {
        let view = self.view();
        let state = self.state.lock();
        Figures {
            leading: state.leading,
            replicas: state.role.replicas.len(),
            in_sync: state.role.isr.len(),
            min_in_sync: self.needed_isr(&state),
            log_start_offset: view.log_start_offset,
            log_end_offset: view.log_end_offset,
            size_bytes: state.log.size_bytes(),
            segments: state.log.segment_count(),
        }
    }
}
