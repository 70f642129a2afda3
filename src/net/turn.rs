//! How long a connection has been at work without giving others their turn.
//!
//! A socket that always has another request ready would keep its thread: tokio counts what a task takes from sockets
//! and channels, not the time that the requests cost.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// One turn, at most; the request at hand is finished.
const TURN_MAX: Duration = Duration::from_millis(2);

/// When the turn of one task began.
#[derive(Debug)]
pub(super) struct Turn {
    since: Instant,
    /// Microseconds after `since`.
    began_us: AtomicU64,
}

impl Turn {
    pub(super) fn new() -> Self {
        Self { since: Instant::now(), began_us: AtomicU64::new(0) }
    }

    /// The task is polled.
    pub(super) fn begins(&self) {
        self.began_us.store(self.elapsed_us(), Ordering::Relaxed);
    }

    /// Whether others are to have their turn.
    pub(super) fn is_over(&self) -> bool {
        self.elapsed_us() - self.began_us.load(Ordering::Relaxed) > TURN_MAX.as_micros() as u64
    }

    fn elapsed_us(&self) -> u64 {
        self.since.elapsed().as_micros() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_over_after_its_time_and_begins_again() {
        let turn = Turn::new();
        turn.begins();
        assert!(!turn.is_over());
        tokio::time::advance(TURN_MAX + Duration::from_micros(1)).await;
        assert!(turn.is_over());
        turn.begins();
        assert!(!turn.is_over());
    }
}
