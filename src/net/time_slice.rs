//! How long a connection has been at work since it last let others run.
//!
//! A socket that always has another request ready would keep its thread: tokio counts what a task takes from sockets
//! and channels, not the time that the requests cost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// One slice, at most; the request at hand is finished.
const TIME_SLICE_MAX: Duration = Duration::from_millis(2);

/// When the slice of one task began.
#[derive(Debug)]
pub(super) struct TimeSlice {
    since: Instant,
    /// Microseconds after `since`.
    began_us: AtomicU64,
}

impl TimeSlice {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), began_us: AtomicU64::new(0) }
    }

    /// The task is polled.
    pub(super) fn begins(&self) {
        self.began_us.store(self.elapsed_us(), Ordering::Relaxed);
    }

    /// Whether others are to run.
    pub(super) fn is_over(&self) -> bool {
        self.elapsed_us() - self.began_us.load(Ordering::Relaxed) > TIME_SLICE_MAX.as_micros() as u64
    }

    fn elapsed_us(&self) -> u64 {
        self.since.elapsed().as_micros() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_slice_is_over_after_its_time_and_begins_again() {
        let slice = TimeSlice::new();
        slice.begins();
        assert!(!slice.is_over());
        tokio::time::advance(TIME_SLICE_MAX + Duration::from_micros(1)).await;
        assert!(slice.is_over());
        slice.begins();
        assert!(!slice.is_over());
    }
}
