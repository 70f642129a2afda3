//! When a connection is idle: nobody waits for a reply on it, and too little comes; or too little of a reply is taken.
//!
//! A large request may take longer to come than a connection may be idle; a byte now and then is no request. So a part
//! counts once it is large enough. Kafka counts every byte (`Selector.IdleExpiryManager`), and keeps who trickles.

use std::time::Duration;

use tokio::time::Instant;

/// So much of a frame has to come, or of a reply to be taken, within each time that a connection may be idle.
const PART_BYTES_MIN: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Idleness {
    /// `connections.max.idle.ms`.
    max: Duration,
    active_at: Instant,
    /// Of the frame or the reply under way, so much had come or gone then.
    part_bytes: usize,
}

impl Idleness {
    pub(super) fn new(max: Duration) -> Self {
        Self { max, active_at: Instant::now(), part_bytes: 0 }
    }

    /// A frame has come whole, or a reply has gone out.
    pub(super) fn ends(&mut self) {
        self.active_at = Instant::now();
        self.part_bytes = 0;
    }

    /// When to look whether it is over.
    pub(super) fn look_at(&self) -> Instant {
        self.active_at + self.max
    }

    /// Whether the connection has been idle for too long. `part_bytes`: so much of the frame under way has come, or of
    /// the reply has gone.
    pub(super) fn is_over(&mut self, part_bytes: usize) -> bool {
        if self.active_at.elapsed() < self.max {
            return false;
        }
        let has_come = part_bytes >= self.part_bytes + PART_BYTES_MIN;
        if has_come {
            self.active_at = Instant::now();
            self.part_bytes = part_bytes;
        }
        !has_come
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const MAX: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_large_frame_that_comes_slowly_is_no_idleness_and_a_trickle_is() {
        for (step, idle_after) in [(PART_BYTES_MIN, None), (PART_BYTES_MIN - 1, Some(1)), (0, Some(1))] {
            let mut idleness = Idleness::new(MAX);
            let mut ended = None;
            for look in 1..=20 {
                advance(MAX).await;
                if idleness.is_over(look * step) {
                    ended = Some(look);
                    break;
                }
            }
            assert_eq!(ended, idle_after, "{step} bytes each time");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_came_before_counts_once() {
        let mut idleness = Idleness::new(MAX);
        advance(MAX).await;
        assert!(!idleness.is_over(PART_BYTES_MIN));
        advance(MAX).await;
        assert!(idleness.is_over(PART_BYTES_MIN), "nothing came after it");
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_frame_begins_anew() {
        let mut idleness = Idleness::new(MAX);
        advance(MAX).await;
        assert!(!idleness.is_over(100 * PART_BYTES_MIN));
        idleness.ends();
        advance(MAX - Duration::from_millis(1)).await;
        assert!(!idleness.is_over(0), "not yet");
        idleness.ends();
        advance(MAX).await;
        assert!(!idleness.is_over(PART_BYTES_MIN), "a part of the next one");
        assert!(idleness.look_at() > Instant::now());
    }
}
