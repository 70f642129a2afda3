//! When a connection is idle: nobody waits for a reply on it, and too little comes; or too little of a reply is taken.
//!
//! A large request may take longer to come than a connection may be idle; a byte now and then is no request. So a part
//! counts once it is large enough. Kafka counts every byte (`Selector.IdleExpiryManager`), and keeps who trickles. What
//! the kernel took of a reply says little of the client: it counts once the client has it.

use std::time::Duration;

use tokio::time::Instant;

/// So much of a frame has to come, or of a reply to be taken, within each time that a connection may be idle.
const PART_BYTES_MIN: Progress = 64 << 10;

#[derive(Debug)]
pub(super) struct Idleness {
    /// `connections.max.idle.ms`.
    max: Duration,
    active_at: Instant,
    /// How far it was at the last look; `None`: nobody has looked since the last frame or reply.
    seen: Option<Progress>,
}

/// Bytes of the frame under way that have come, or of the reply that were sent, less those that wait in the kernel
/// because the client has not taken them.
pub(super) type Progress = i64;

/// How far a frame is of which `come` bytes have come, or a reply of which so many were sent, while `waiting` bytes
/// wait in the kernel.
pub(super) fn progress(come: usize, waiting: usize) -> Progress {
    come as Progress - waiting as Progress
}

impl Idleness {
    pub(super) fn new(max: Duration) -> Self {
        Self { max, active_at: Instant::now(), seen: None }
    }

    /// For the time of one reply, which begins there.
    pub(super) fn of_reply(max: Duration, begins: Progress) -> Self {
        Self { seen: Some(begins), ..Self::new(max) }
    }

    /// A frame has come whole, or a reply has gone out.
    pub(super) fn ends(&mut self) {
        self.active_at = Instant::now();
        self.seen = None;
    }

    /// When to look whether it is over.
    pub(super) fn look_at(&self) -> Instant {
        self.active_at + self.max
    }

    /// Whether the connection has been idle for too long.
    pub(super) fn is_over(&mut self, progress: Progress) -> bool {
        if self.active_at.elapsed() < self.max {
            return false;
        }
        let has_moved = match self.seen {
            Some(seen) => progress >= seen + PART_BYTES_MIN,
            // Either much has come, or much waits, and the next look says whether the client takes it.
            None => progress.abs() >= PART_BYTES_MIN,
        };
        if has_moved {
            self.active_at = Instant::now();
            self.seen = Some(progress);
        }
        !has_moved
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

    /// The kernel takes more than a slow client reads in the time that a connection may be idle.
    #[tokio::test(start_paused = true)]
    async fn what_waits_for_the_client_is_progress_as_far_as_it_is_taken() {
        let waiting = |parts| progress(0, parts * PART_BYTES_MIN as usize);
        let mut idleness = Idleness::new(MAX);
        for left in (1..=8).rev() {
            advance(MAX).await;
            assert!(!idleness.is_over(waiting(left)), "{left} parts wait");
        }
        advance(MAX).await;
        assert!(idleness.is_over(waiting(1)), "none was taken");
        let mut idleness = Idleness::of_reply(MAX, waiting(8));
        advance(MAX).await;
        assert!(idleness.is_over(waiting(8)), "a reply that stands still from its beginning");
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
