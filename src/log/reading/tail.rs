//! What a log directory keeps in memory for readers: the newest batches of every partition, for consumers and followers
//! at the end, and what was read ahead for consumers behind it.

use std::sync::Arc;

use crate::log::reading::ring::Ring;

/// Memory that all partitions of a log directory share for what was read ahead, or is about to be.
pub(in crate::log) const READ_AHEAD_BYTES: usize = 32 << 20;

/// The two rings of a log directory.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(in crate::log) newest: Ring,
    pub(in crate::log) read_ahead: Arc<Ring>,
}

impl Tail {
    /// A tail whose newest batches take at most `budget_bytes`. 0 remembers none.
    pub(crate) fn new(budget_bytes: usize) -> Arc<Self> {
        Arc::new(Self { newest: Ring::new(budget_bytes), read_ahead: Arc::new(Ring::new(READ_AHEAD_BYTES)) })
    }
}
