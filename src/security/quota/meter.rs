//! Counts what requests take, and says how long their connection has to wait.
//!
//! Source: Kafka 3.9 `ClientQuotaManager.recordAndGetThrottleTimeMs`, `QuotaUtils.throttleTime`: what is taken is
//! recorded whatever comes of it, and the wait brings the rate back to the limit.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::limits::{Counted, Kind, Quotas};
use super::rate::{Rate, Windows};

/// The counts of one broker.
#[derive(Debug)]
pub(crate) struct Meter {
    windows: Windows,
    /// Whether there are limits at all.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    limits: Arc<Quotas>,
    rates: HashMap<(Kind, Counted), Rate>,
    swept_ms: i64,
}

/// How often counts that are idle are dropped.
const SWEEP_MS: i64 = 60_000;

impl Meter {
    pub(crate) fn new(windows: Windows) -> Self {
        Self { windows, any: AtomicBool::new(false), state: Mutex::default() }
    }

    /// Puts these limits in the place of all others. What was counted stays.
    pub(crate) fn set(&self, limits: Quotas) {
        let mut state = self.state.lock();
        self.any.store(!limits.is_empty(), Ordering::Release);
        state.limits = Arc::new(limits);
    }

    /// Whether anything is limited: else nothing need be counted.
    pub(crate) fn any(&self) -> bool {
        self.any.load(Ordering::Acquire)
    }

    /// Counts what was taken; answers with the milliseconds that whoever took it has to wait, mostly 0.
    pub(crate) fn record(&self, kind: Kind, user: &Arc<str>, client: &Arc<str>, taken: f64, now_ms: i64) -> u32 {
        let mut state = self.state.lock();
        state.sweep(self.windows, now_ms);
        let Some((limit, counted)) = state.limits.of(kind, user, client) else { return 0 };
        let rate = state.rates.entry((kind, counted)).or_insert_with(Rate::new);
        rate.record(self.windows, taken, now_ms);
        throttle_ms(rate, self.windows, limit, now_ms)
    }

    /// As much as may be taken at once without a wait, if nothing was taken before; `None`: as much as there is.
    /// Source: Kafka 3.9 `ClientQuotaManager.getMaxValueInQuotaWindow`.
    pub(crate) fn at_once_max(&self, kind: Kind, user: &Arc<str>, client: &Arc<str>) -> Option<f64> {
        let (limit, _) = self.state.lock().limits.of(kind, user, client)?;
        let windows = self.windows.samples.saturating_sub(1) as f64;
        Some(limit * windows * self.windows.window_ms as f64 / 1000.0)
    }

    /// Takes back what was recorded and is not sent.
    pub(crate) fn take_back(&self, kind: Kind, user: &Arc<str>, client: &Arc<str>, taken: f64, now_ms: i64) {
        let mut state = self.state.lock();
        let Some((_, counted)) = state.limits.of(kind, user, client) else { return };
        if let Some(rate) = state.rates.get_mut(&(kind, counted)) {
            rate.record(self.windows, -taken, now_ms);
        }
    }
}

impl State {
    /// Whoever comes and goes leaves nothing behind.
    fn sweep(&mut self, windows: Windows, now_ms: i64) {
        if now_ms - self.swept_ms >= SWEEP_MS {
            self.swept_ms = now_ms;
            self.rates.retain(|_, rate| !rate.is_idle(windows, now_ms));
        }
    }
}

fn throttle_ms(rate: &mut Rate, windows: Windows, limit: f64, now_ms: i64) -> u32 {
    let value = rate.per_second(windows, now_ms);
    if value <= limit {
        return 0;
    }
    let wait_ms = (value - limit) / limit * rate.span_ms(windows, now_ms) as f64;
    // A limit of 0 means: for ever, which is as long as a client is told at most.
    if wait_ms.is_finite() { wait_ms.round().clamp(0.0, f64::from(i32::MAX)) as u32 } else { i32::MAX as u32 }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::limits::{Place, Whom};
    use super::*;

    const WINDOWS: Windows = Windows { samples: 11, window_ms: 1000 };

    fn limited(rate: &str) -> Meter {
        let meter = Meter::new(WINDOWS);
        let settings = BTreeMap::from([("producer_byte_rate".to_owned(), rate.to_owned())]);
        meter.set(Quotas::new([(Place { user: Whom::Any, client: Whom::Default }, &settings)]));
        meter
    }

    #[test]
    fn the_wait_brings_the_rate_back_to_the_limit() {
        let meter = limited("1000");
        let (user, client): (Arc<str>, Arc<str>) = ("u".into(), "c".into());
        let take = |taken, now_ms| meter.record(Kind::Produce, &user, &client, taken, now_ms);
        assert_eq!(take(10_000.0, 0), 0, "as much as ten seconds allow");
        assert_eq!(take(5_000.0, 0), 5_000);
        assert_eq!(take(0.0, 5_000), 5_000, "one window holds all of it");
        assert_eq!(take(0.0, 11_000), 0, "after that window");
        let another: Arc<str> = "d".into();
        assert_eq!(meter.record(Kind::Produce, &user, &another, 1.0, 0), 0, "a count of its own");
        assert_eq!(meter.record(Kind::Fetch, &user, &client, 1e9, 0), 0, "not limited");
        assert_eq!(meter.at_once_max(Kind::Produce, &user, &client), Some(10_000.0));
        assert_eq!(meter.at_once_max(Kind::Fetch, &user, &client), None);
    }

    #[test]
    fn what_is_taken_back_does_not_count() {
        let meter = limited("1000");
        let (user, client): (Arc<str>, Arc<str>) = ("u".into(), "c".into());
        assert_eq!(meter.record(Kind::Produce, &user, &client, 20_000.0, 0), 10_000);
        meter.take_back(Kind::Produce, &user, &client, 20_000.0, 0);
        assert_eq!(meter.record(Kind::Produce, &user, &client, 1.0, 0), 0);
    }

    #[test]
    fn without_limits_nothing_is_counted_and_what_is_idle_is_dropped() {
        let meter = limited("1000");
        let (user, client): (Arc<str>, Arc<str>) = ("u".into(), "c".into());
        for n in 0..100 {
            meter.record(Kind::Produce, &user, &format!("c{n}").into(), 1.0, n);
        }
        assert_eq!(meter.state.lock().rates.len(), 100);
        meter.record(Kind::Produce, &user, &client, 1.0, SWEEP_MS + 1);
        assert_eq!(meter.state.lock().rates.len(), 1);
        let free = Meter::new(WINDOWS);
        assert!(!free.any() && meter.any());
        assert_eq!(free.record(Kind::Produce, &user, &client, 1e12, 0), 0);
        assert!(free.state.lock().rates.is_empty());
        let never = limited("0");
        assert_eq!(never.record(Kind::Produce, &user, &client, 1.0, 0), i32::MAX as u32);
    }
}
