//! When a shard is called by time, and when that is put off because its members may not have been heard.
//!
//! While the process stands still, or the log takes no appends, what members send waits in their sockets. A shard that
//! was called then would throw out who has done nothing wrong. Source: our own; Kafka's purgatory has the same race.

use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Sleep, sleep};

/// Called so much after its time, a shard has not been served for a while: the process stood still, or followers did.
/// Then what is due is put off for as long as it was late, within these bounds.
const UNSERVED_MS: i64 = 50;
const HEARD_WITHIN_MS: i64 = 300;
const HEARD_WITHIN_MS_MAX: i64 = 2000;
/// A machine that has too much to do makes it late as well, and time has to pass there: it is put off once in a row.
/// What makes it as late as this is a standstill, of which two may follow each other.
const STANDSTILL_MS: i64 = 1000;
const PUT_OFFS_MAX: u32 = 2;

/// Rings for the shard; all times are monotonic.
#[derive(Debug, Default)]
pub(super) struct Alarm {
    rings: Option<(Ring, Pin<Box<Sleep>>)>,
    /// What is due waits until then.
    put_off_until_ms: Option<i64>,
    /// So often in a row it was put off because the shard had not been served.
    put_offs: u32,
}

#[derive(Debug, Clone, Copy)]
struct Ring {
    due_ms: i64,
    /// First [`HEARD_WITHIN_MS`] earlier: a standstill that ends in time for what is due may be one in which nobody was
    /// heard.
    at_ms: i64,
}

impl Alarm {
    /// Sets it to when the shard wants to be called; leaves it alone if that has not changed.
    pub(super) fn arm(&mut self, wake_ms: Option<i64>, now_ms: i64) {
        let due_ms = wake_ms.map(|at| self.put_off_until_ms.map_or(at, |until_ms| at.max(until_ms)));
        if self.rings.as_ref().map(|(ring, _)| ring.due_ms) == due_ms {
            return;
        }
        self.rings = due_ms.map(|due_ms| {
            let before_ms = due_ms.saturating_sub(HEARD_WITHIN_MS);
            let at_ms = if before_ms > now_ms { before_ms } else { due_ms };
            let until = Duration::from_millis(at_ms.saturating_sub(now_ms).max(0) as u64);
            (Ring { due_ms, at_ms }, Box::pin(sleep(until)))
        });
    }

    /// Waits until it rings, which it does until [`Self::is_due`] is asked. Cancellation-safe.
    pub(super) async fn ring(&mut self) {
        rung(&mut self.rings).await;
    }

    /// After it has rung: whether the shard is to be called. If not it has to be armed again.
    pub(super) fn is_due(&mut self, now_ms: i64) -> bool {
        let Some((Ring { due_ms, at_ms }, _)) = self.rings.take() else { return false };
        if self.put_off_until_ms.is_none_or(|until_ms| due_ms > until_ms) {
            // What was put off is not due any more.
            self.put_offs = 0;
        }
        let late_ms = now_ms.saturating_sub(at_ms);
        let put_offs_max = if late_ms > STANDSTILL_MS { PUT_OFFS_MAX } else { 1 };
        if late_ms > UNSERVED_MS && self.put_offs < put_offs_max {
            self.put_offs += 1;
            self.put_off(late_ms.clamp(HEARD_WITHIN_MS, HEARD_WITHIN_MS_MAX), now_ms);
            return false;
        }
        if now_ms < due_ms {
            return false;
        }
        self.put_offs = 0;
        true
    }

    /// Whatever is due waits for so long.
    pub(super) fn put_off(&mut self, for_ms: i64, now_ms: i64) {
        self.put_off_until_ms = Some(now_ms.saturating_add(for_ms));
    }
}

/// Waits for an alarm that is set. Cancellation-safe.
pub(super) async fn rung<T>(alarm: &mut Option<(T, Pin<Box<Sleep>>)>) {
    match alarm {
        Some((_, sleep)) => sleep.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rings as late as that, each time as soon as it can; when the shard is called, for what is due at 10,000.
    #[track_caller]
    fn called_at(mut late_ms: impl FnMut(usize) -> i64) -> i64 {
        let (mut alarm, mut now_ms) = (Alarm::default(), 0);
        for ring in 0..20 {
            alarm.arm(Some(10_000), now_ms);
            let at_ms = alarm.rings.as_ref().expect("armed").0.at_ms;
            now_ms = now_ms.max(at_ms) + late_ms(ring);
            if alarm.is_due(now_ms) {
                return now_ms;
            }
        }
        panic!("never");
    }

    #[tokio::test]
    async fn what_is_due_is_put_off_after_a_standstill_and_not_for_ever() {
        assert_eq!(called_at(|_| 0), 10_000);
        assert_eq!(called_at(|_| 50), 10_050, "a little late is in time");
        let first = |late_ms| move |ring| if ring == 0 { late_ms } else { 0 };
        assert_eq!(called_at(first(200)), 10_200, "they had the rest of the time before, and more");
        assert_eq!(called_at(first(320)), 10_340, "it ended just behind what was due");
        assert_eq!(called_at(first(9000)), 20_700, "as long as it was late, within bounds");
        assert!((10_150..11_000).contains(&called_at(|_| 100)), "a busy machine puts it off once");
        assert!((13_000..20_000).contains(&called_at(|_| 1900)), "standstills twice");
    }

    #[tokio::test]
    async fn who_was_heard_may_be_put_off_again() {
        let mut alarm = Alarm::default();
        for round in 1..10 {
            let due_ms = round * 10_000;
            alarm.arm(Some(due_ms), due_ms - 5_000);
            assert!(!alarm.is_due(due_ms + 5_000), "round {round}");
        }
    }
}
