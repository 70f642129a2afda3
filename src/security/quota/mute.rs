//! A connection that is not read for a while, because what it asked for was too much.
//!
//! Source: Kafka 3.9 KIP-219: the answer says how long, and the broker does not rely on the client.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// Until when nothing is read; for one connection.
#[derive(Debug, Default)]
pub(crate) struct Mute {
    /// On the broker's monotonic clock; 0: never muted.
    until_ms: AtomicI64,
}

impl Mute {
    /// Not before so many milliseconds from now.
    pub(crate) fn extend(&self, now_ms: i64, by_ms: u32) {
        self.until_ms.fetch_max(now_ms.saturating_add(i64::from(by_ms)), Ordering::Relaxed);
    }

    /// How long it lasts from now on. `now_ms` is asked only if there ever was one.
    pub(crate) fn left(&self, now_ms: impl FnOnce() -> i64) -> Option<Duration> {
        let until_ms = self.until_ms.load(Ordering::Relaxed);
        if until_ms == 0 {
            return None;
        }
        let left = u64::try_from(until_ms.saturating_sub(now_ms())).ok().filter(|left| *left > 0);
        left.map(Duration::from_millis)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_holds_and_the_clock_is_not_asked_for_nothing() {
        let mute = Mute::default();
        assert_eq!(mute.left(|| unreachable!("nobody was muted")), None);
        mute.extend(1000, 500);
        mute.extend(1000, 200);
        assert_eq!(mute.left(|| 1100), Some(Duration::from_millis(400)));
        assert_eq!(mute.left(|| 1500), None);
    }
}
