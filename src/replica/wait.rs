//! Parked fetches. A fetch that found too little registers once with every partition it reads; each partition adds the
//! bytes that became readable, and the fetch wakes when they reach what it asked for, or when a partition says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// One parked fetch.
#[derive(Debug)]
pub(crate) struct FetchWaiter {
    /// Bytes still missing until `min_bytes`; at or below zero the fetch is due.
    missing: AtomicI64,
    /// Set when the fetch no longer waits, so that partitions forget it.
    over: AtomicBool,
    /// It reads below the last stable offset alone.
    read_committed: bool,
    notify: Notify,
}

/// How the last stable offset moved with bytes that became readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stable {
    /// With the high watermark: no transaction holds it back.
    Follows,
    /// Not at all: readers of committed records have nothing new.
    Stays,
    /// By other bytes than these: a transaction ended, and what it held back is readable too.
    Jumps,
}

impl FetchWaiter {
    /// A waiter that no count wakes until [`Self::expect`] says how much is missing.
    pub(crate) fn new(read_committed: bool) -> Arc<Self> {
        let (missing, over) = (AtomicI64::new(i64::MAX / 2), AtomicBool::new(false));
        Arc::new(Self { missing, over, read_committed, notify: Notify::new() })
    }

    /// Bytes that became readable since registration count as well: they were subtracted meanwhile.
    pub(crate) fn expect(&self, missing: i64) {
        let before = self.missing.fetch_add(missing - i64::MAX / 2, Ordering::AcqRel);
        if before + (missing - i64::MAX / 2) <= 0 {
            self.notify.notify_one();
        }
    }

    fn add(&self, bytes: i64, stable: Stable) {
        match stable {
            Stable::Stays if self.read_committed => return,
            // The bytes of a jump are not counted: the fetch looks.
            Stable::Jumps if self.read_committed => return self.notify.notify_one(),
            Stable::Follows | Stable::Stays | Stable::Jumps => {}
        }
        if self.missing.fetch_sub(bytes, Ordering::AcqRel) - bytes <= 0 {
            self.notify.notify_one();
        }
    }

    /// Resolves when enough bytes are readable or a partition changed its role.
    pub(crate) async fn due(&self) {
        self.notify.notified().await;
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }
}

/// Ends a wait when it is dropped, however the fetch ends.
#[derive(Debug)]
pub(crate) struct WaitGuard(pub(crate) Arc<FetchWaiter>);

impl Drop for WaitGuard {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Release);
    }
}

/// The fetches parked at one partition.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    list: Mutex<Vec<Arc<FetchWaiter>>>,
}

/// Registrations after which those that are over are swept out.
const SWEEP_AT: usize = 16;

impl Waiters {
    pub(crate) fn register(&self, waiter: &Arc<FetchWaiter>) {
        let mut list = self.list.lock();
        if list.len() >= SWEEP_AT && list.len().is_power_of_two() {
            list.retain(|parked| !parked.is_over());
        }
        list.push(Arc::clone(waiter));
    }

    /// `bytes` more lie below the high watermark.
    pub(crate) fn add(&self, bytes: i64, stable: Stable) {
        let mut list = self.list.lock();
        if list.is_empty() {
            return;
        }
        list.retain(|parked| !parked.is_over());
        for parked in list.iter() {
            parked.add(bytes, stable);
        }
    }

    /// The partition changed in a way every parked fetch must see: role, epoch, deletion, failure.
    pub(crate) fn wake_all(&self) {
        for parked in self.list.lock().drain(..) {
            parked.notify.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_that_came_before_the_count_was_known_are_not_lost() {
        let waiters = Waiters::default();
        let waiter = FetchWaiter::new(false);
        waiters.register(&waiter);
        waiters.add(60, Stable::Follows);
        waiter.expect(50);
        waiter.due().await;
    }

    #[tokio::test]
    async fn a_fetch_sleeps_until_min_bytes_are_there() {
        let waiters = Waiters::default();
        let waiter = FetchWaiter::new(false);
        waiters.register(&waiter);
        waiter.expect(100);
        waiters.add(99, Stable::Follows);
        assert!(futures_util::poll!(Box::pin(waiter.due())).is_pending());
        waiters.add(1, Stable::Follows);
        waiter.due().await;
    }

    #[tokio::test]
    async fn a_reader_of_committed_records_sleeps_through_a_transaction_and_wakes_when_it_ends() {
        let waiters = Waiters::default();
        let (committed, all) = (FetchWaiter::new(true), FetchWaiter::new(false));
        for waiter in [&committed, &all] {
            waiters.register(waiter);
            waiter.expect(100);
        }
        waiters.add(100, Stable::Stays);
        all.due().await;
        assert!(futures_util::poll!(Box::pin(committed.due())).is_pending());
        waiters.add(1, Stable::Jumps);
        committed.due().await;
    }

    #[test]
    fn fetches_that_are_over_are_forgotten() {
        let waiters = Waiters::default();
        for _ in 0..1000 {
            let waiter = FetchWaiter::new(false);
            waiters.register(&waiter);
            drop(WaitGuard(waiter));
        }
        assert!(waiters.list.lock().len() <= SWEEP_AT);
    }
}
