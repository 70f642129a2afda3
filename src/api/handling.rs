//! How long the broker's threads work on one request.
//!
//! A request is worked on while it is polled; what it waits for, others do. Kafka counts the time of its handler
//! thread, which does both. Source: Kafka 3.9 `RequestChannel.Request.requestThreadTimeNanos`.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use crate::clock::SharedClock;

/// The time of one request. It is asked for by what is worked on, so a poll may be under way.
#[derive(Debug)]
pub(crate) struct Handling {
    clock: SharedClock,
    /// Of the polls that have ended.
    spent_ns: AtomicI64,
    /// When the last one began.
    begun_ns: AtomicI64,
}

impl Handling {
    pub(crate) fn new(clock: &SharedClock) -> Arc<Self> {
        Arc::new(Self { clock: Arc::clone(clock), spent_ns: AtomicI64::new(0), begun_ns: AtomicI64::new(0) })
    }

    /// Time until now, with that of the poll under way.
    pub(crate) fn spent_ns(&self) -> i64 {
        self.spent_ns.load(Ordering::Relaxed) + self.clock.monotonic_ns() - self.begun_ns.load(Ordering::Relaxed)
    }

    /// Counts the time in which the future is polled.
    pub(crate) async fn count<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        poll_fn(|context| {
            self.begun_ns.store(self.clock.monotonic_ns(), Ordering::Relaxed);
            let polled = future.as_mut().poll(context);
            self.spent_ns.store(self.spent_ns(), Ordering::Relaxed);
            polled
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::testing::ManualClock;

    #[tokio::test]
    async fn what_a_request_waits_for_does_not_count() {
        let time = Arc::new(ManualClock::new(1000, 1));
        let handling = Handling::new(&(Arc::clone(&time) as SharedClock));
        let work = async {
            time.advance(3);
            tokio::task::yield_now().await;
            time.advance(4);
            handling.spent_ns()
        };
        let mut counted = Box::pin(handling.count(work));
        assert!(futures_util::poll!(&mut counted).is_pending());
        time.advance(500);
        assert_eq!(counted.await, 7_000_000);
    }
}
