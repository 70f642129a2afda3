//! Replies that are ready and wait behind a slower one, of one connection and of all together.
//!
//! A connection with such replies is not read further while they are too many: its own above 16 MiB, or those of all
//! connections above `klamm.reply.bytes`. One without any is always read, so a client that takes its replies never
//! notices that others do not. Beyond the bound there is what the requests that were begun before answer. Fetched
//! records do not wait here: a fetch gathers them when it is next in response order. Source: ours; Kafka has one
//! request of a connection in flight, and so at most one reply.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::types::limits::CONNECTION_REPLY_BYTES_WAITING_MAX;

/// Bytes that wait, over all connections.
#[derive(Debug)]
pub(crate) struct WriteQueues {
    bytes_max: usize,
    bytes: AtomicUsize,
}

/// Those of one connection.
#[derive(Debug)]
pub(super) struct WriteQueue {
    all: Arc<WriteQueues>,
    bytes: AtomicUsize,
}

/// A reply that waits; it is counted until this is dropped.
#[derive(Debug)]
pub(super) struct QueuedReply {
    queue: Arc<WriteQueue>,
    bytes: usize,
}

impl WriteQueues {
    pub(crate) fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, bytes: AtomicUsize::new(0) })
    }

    /// For one connection.
    pub(super) fn of_connection(self: &Arc<Self>) -> Arc<WriteQueue> {
        Arc::new(WriteQueue { all: Arc::clone(self), bytes: AtomicUsize::new(0) })
    }
}

impl WriteQueue {
    /// Counts a reply.
    pub(super) fn put(self: &Arc<Self>, bytes: usize) -> QueuedReply {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.all.bytes.fetch_add(bytes, Ordering::Relaxed);
        QueuedReply { queue: Arc::clone(self), bytes }
    }

    /// Whether no more requests are to be read before some of these replies are sent.
    pub(super) fn is_full(&self) -> bool {
        let bytes = self.bytes.load(Ordering::Relaxed);
        let crowded = self.all.bytes.load(Ordering::Relaxed) >= self.all.bytes_max;
        bytes >= CONNECTION_REPLY_BYTES_WAITING_MAX || (crowded && bytes > 0)
    }
}

impl Drop for QueuedReply {
    fn drop(&mut self) {
        self.queue.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        self.queue.all.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_full_with_what_is_its_own() {
        let queue = WriteQueues::new(usize::MAX).of_connection();
        let half = queue.put(CONNECTION_REPLY_BYTES_WAITING_MAX / 2);
        assert!(!queue.is_full());
        let rest = queue.put(CONNECTION_REPLY_BYTES_WAITING_MAX / 2);
        assert!(queue.is_full());
        drop((half, rest));
        assert!(!queue.is_full());
    }

    #[test]
    fn while_all_hold_too_much_only_those_that_hold_nothing_go_on() {
        let all = WriteQueues::new(100);
        let (unread, other) = (all.of_connection(), all.of_connection());
        let held = unread.put(100);
        assert!(unread.is_full() && !other.is_full());
        let _own = other.put(1);
        assert!(other.is_full());
        drop(held);
        assert!(!unread.is_full() && !other.is_full());
    }
}
