//! Whether what is read next may be older than what was read, or written, before.
//!
//! It may after a call without an answer, which may still be on its way, and behind a new client, whose server may lag
//! behind the one before. A `sync` ahead of the read settles both: requests of a session are answered in their order.

use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers of doubts: each is settled by a `sync` that began after it.
#[derive(Debug, Default)]
pub(super) struct Settling {
    raised: AtomicU64,
    settled: AtomicU64,
}

impl Settling {
    /// There is a doubt.
    pub(super) fn raise(&self) {
        self.raised.fetch_add(1, Ordering::AcqRel);
    }

    /// The doubts there are, if a `sync` is due.
    pub(super) fn due(&self) -> Option<u64> {
        let raised = self.raised.load(Ordering::Acquire);
        (raised > self.settled.load(Ordering::Acquire)).then_some(raised)
    }

    /// A `sync` was answered that began when [`Self::due`] gave this.
    pub(super) fn settle(&self, raised: u64) {
        self.settled.fetch_max(raised, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_doubt_that_comes_during_a_sync_needs_another() {
        let settling = Settling::default();
        assert_eq!(settling.due(), None);
        settling.raise();
        let due = settling.due().expect("a doubt");
        settling.raise();
        settling.settle(due);
        let due = settling.due().expect("the second doubt");
        settling.settle(due);
        assert_eq!(settling.due(), None);
    }
}
