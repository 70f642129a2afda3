//! When a connection is idle: nobody waits for a reply on it, and too little comes; or too little of a reply is taken.
//!
//! A large request may take longer to come than a connection may be idle; a byte now and then is no request. So a part
//! counts once it is large enough. Kafka counts every byte (`Selector.IdleExpiryManager`), and keeps who trickles. What
//! the kernel took of a reply says little of the client: it counts once the client has it.

use std::time::Duration;

use tokio::time::Instant;

/// So much of a frame has to come, or of replies to be taken, within each time that a connection may be idle.
const PART_BYTES_MIN: usize = 64 << 10;

#[derive(Debug)]
pub(super) struct Idleness {
    /// `connections.max.idle.ms`.
    max: Duration,
    active_at: Instant,
    /// Of the frame or the reply under way, so much had come or was taken then.
    part_bytes: usize,
    /// Of replies that have gone out, so much waited in the kernel then, because the client had not taken it.
    waiting_bytes: usize,
    /// When that was seen.
    waits_since: Instant,
}

/// As long as something waits, it is looked so often in the time that a connection may be idle whether it was taken.
const LOOKS: u32 = 8;

impl Idleness {
    pub(super) fn new(max: Duration) -> Self {
        let now = Instant::now();
        Self { max, active_at: now, part_bytes: 0, waiting_bytes: 0, waits_since: now }
    }

    /// A frame has come whole, or a reply has gone out.
    pub(super) fn ends(&mut self) {
        self.active_at = Instant::now();
        self.part_bytes = 0;
    }

    /// So much of what has gone out waits in the kernel.
    pub(super) fn waits(&mut self, bytes: usize) {
        (self.waiting_bytes, self.waits_since) = (bytes, Instant::now());
    }

    /// When to look whether it is over.
    pub(super) fn look_at(&self) -> Instant {
        let idle_at = self.active_at + self.max;
        if self.waiting_bytes == 0 { idle_at } else { idle_at.min(self.waits_since + self.max / LOOKS) }
    }

    /// Whether the connection has been idle for too long. `part_bytes`: so much of the frame under way has come, or of
    /// the reply was taken; `waiting_bytes`: so much of replies that have gone out waits in the kernel.
    pub(super) fn is_over(&mut self, part_bytes: usize, waiting_bytes: usize) -> bool {
        let now = Instant::now();
        let mut goes_on = now < self.active_at + self.max;
        if self.waiting_bytes > 0 {
            self.waits_since = now;
            if waiting_bytes == 0 || waiting_bytes + PART_BYTES_MIN <= self.waiting_bytes {
                (self.active_at, self.waiting_bytes) = (now, waiting_bytes);
                goes_on = true;
            }
        }
        if !goes_on && part_bytes >= self.part_bytes + PART_BYTES_MIN {
            (self.active_at, self.part_bytes) = (now, part_bytes);
            goes_on = true;
        }
        !goes_on
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
                if idleness.is_over(look * step, 0) {
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
        assert!(!idleness.is_over(PART_BYTES_MIN, 0));
        advance(MAX).await;
        assert!(idleness.is_over(PART_BYTES_MIN, 0), "nothing came after it");
    }

    /// The kernel takes more than a slow client reads in the time that a connection may be idle.
    #[tokio::test(start_paused = true)]
    async fn what_waits_in_the_kernel_is_no_idleness_as_far_as_it_is_taken() {
        let mut idleness = Idleness::new(MAX);
        idleness.waits(8 * PART_BYTES_MIN);
        idleness.ends();
        for left in (0..8).rev() {
            advance(MAX).await;
            assert!(!idleness.is_over(0, left * PART_BYTES_MIN), "{left} parts wait");
        }
        advance(MAX).await;
        assert!(idleness.is_over(0, 0), "all is taken, and nothing else comes");
        idleness.waits(8 * PART_BYTES_MIN);
        idleness.ends();
        advance(MAX).await;
        assert!(idleness.is_over(0, 7 * PART_BYTES_MIN + 1), "it stands still");
    }

    /// It counts from when it was taken, and not from when the next look would have been.
    #[tokio::test(start_paused = true)]
    async fn whoever_takes_all_at_once_and_rests_is_idle_little_later_than_others() {
        let mut idleness = Idleness::new(MAX);
        idleness.waits(8 * PART_BYTES_MIN);
        idleness.ends();
        let (began, mut looks) = (Instant::now(), 0);
        loop {
            tokio::time::sleep_until(idleness.look_at()).await;
            looks += 1;
            if idleness.is_over(0, 0) {
                break;
            }
        }
        assert_eq!((began.elapsed(), looks), (MAX + MAX / LOOKS, 2));
    }

    /// They would cancel out as a sum.
    #[tokio::test(start_paused = true)]
    async fn a_frame_that_comes_counts_however_much_waits() {
        let mut idleness = Idleness::new(MAX);
        idleness.waits(PART_BYTES_MIN);
        for look in 1..4 {
            advance(MAX).await;
            assert!(!idleness.is_over(look * PART_BYTES_MIN, PART_BYTES_MIN), "look {look}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_frame_begins_anew() {
        let mut idleness = Idleness::new(MAX);
        advance(MAX).await;
        assert!(!idleness.is_over(100 * PART_BYTES_MIN, 0));
        idleness.ends();
        advance(MAX - Duration::from_millis(1)).await;
        assert!(!idleness.is_over(0, 0), "not yet");
        idleness.ends();
        advance(MAX).await;
        assert!(!idleness.is_over(PART_BYTES_MIN, 0), "a part of the next one");
        assert!(idleness.look_at() > Instant::now());
    }
}
