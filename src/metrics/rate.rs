//! A rate over the last few windows of time.
//!
//! Source: Kafka 3.9 `SampledStat`, `Rate.windowSize`. The oldest window of `samples` is the one that is about to be
//! forgotten, so at least `samples - 1` whole windows count, however short a time there was anything to measure.

/// How a rate is measured: `quota.window.num` windows of `quota.window.size.seconds`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Windows {
    pub(crate) samples: usize,
    pub(crate) window_ms: i64,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    begin_ms: i64,
    total: f64,
}

/// What was recorded, by window; the newest last.
#[derive(Debug)]
pub(crate) struct Rate {
    samples: Vec<Sample>,
}

impl Rate {
    pub(crate) fn new() -> Self {
        Self { samples: Vec::new() }
    }

    /// Adds to the window of now. `value` may be negative: it takes back what was recorded a moment ago.
    pub(crate) fn record(&mut self, windows: Windows, value: f64, now_ms: i64) {
        self.forget(windows, now_ms);
        match self.samples.last_mut() {
            Some(sample) if now_ms - sample.begin_ms < windows.window_ms => sample.total += value,
            _ => self.samples.push(Sample { begin_ms: now_ms, total: value }),
        }
    }

    /// Units for each second.
    pub(crate) fn per_second(&mut self, windows: Windows, now_ms: i64) -> f64 {
        self.forget(windows, now_ms);
        let total: f64 = self.samples.iter().map(|sample| sample.total).sum();
        total / (self.span_ms(windows, now_ms) as f64 / 1000.0)
    }

    /// The time that the rate is an average over.
    pub(crate) fn span_ms(&self, windows: Windows, now_ms: i64) -> i64 {
        let begin_ms = self.samples.first().map_or(now_ms, |sample| sample.begin_ms);
        let elapsed_ms = now_ms - begin_ms;
        let whole = elapsed_ms / windows.window_ms;
        let least = windows.samples as i64 - 1;
        let missing_ms = (least - whole).max(0).saturating_mul(windows.window_ms);
        elapsed_ms.saturating_add(missing_ms).max(windows.window_ms)
    }

    /// Units for each second of the time that there was anything to measure, a window at least. Source: Kafka 3.9
    /// `SimpleRate`.
    pub(crate) fn per_second_of_elapsed(&mut self, windows: Windows, now_ms: i64) -> f64 {
        self.forget(windows, now_ms);
        let Some(first) = self.samples.first() else { return 0.0 };
        let elapsed_ms = (now_ms - first.begin_ms).max(windows.window_ms);
        self.samples.iter().map(|sample| sample.total).sum::<f64>() * 1000.0 / elapsed_ms as f64
    }

    fn forget(&mut self, windows: Windows, now_ms: i64) {
        let kept_ms = (windows.samples as i64).saturating_mul(windows.window_ms);
        self.samples.retain(|sample| now_ms - sample.begin_ms < kept_ms);
    }
}

/// How long Kafka looks back at what has no windows of its own: `metrics.num.samples` times
/// `metrics.sample.window.ms`, with their defaults.
const LOOK_BACK: Windows = Windows { samples: 2, window_ms: 30_000 };

/// The mean of what was recorded of late.
#[derive(Debug)]
pub(crate) struct Mean {
    totals: Rate,
    counts: Rate,
}

impl Mean {
    pub(crate) fn new() -> Self {
        Self { totals: Rate::new(), counts: Rate::new() }
    }

    pub(crate) fn record(&mut self, value: f64, now_ms: i64) {
        self.totals.record(LOOK_BACK, value, now_ms);
        self.counts.record(LOOK_BACK, 1.0, now_ms);
    }

    /// `None`: nothing was recorded.
    pub(crate) fn of_late(&mut self, now_ms: i64) -> Option<f64> {
        let count = self.counts.per_second(LOOK_BACK, now_ms);
        (count > 0.0).then(|| self.totals.per_second(LOOK_BACK, now_ms) / count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ELEVEN_SECONDS: Windows = Windows { samples: 11, window_ms: 1000 };

    #[test]
    fn a_short_burst_is_averaged_over_all_windows_but_one() {
        let mut rate = Rate::new();
        rate.record(ELEVEN_SECONDS, 1000.0, 50);
        assert_eq!(rate.per_second(ELEVEN_SECONDS, 50), 100.0);
        assert_eq!(rate.span_ms(ELEVEN_SECONDS, 550), 10_500);
        rate.record(ELEVEN_SECONDS, -1000.0, 60);
        assert_eq!(rate.per_second(ELEVEN_SECONDS, 60), 0.0);
    }

    /// The product of both settings overflowed, and nothing was counted.
    #[test]
    fn windows_as_large_as_their_settings_allow_count() {
        let windows = Windows { samples: i32::MAX as usize, window_ms: i64::from(i32::MAX) * 1000 };
        let mut rate = Rate::new();
        rate.record(windows, 1e20, 50);
        assert!(rate.per_second(windows, 60) > 1000.0);
    }

    #[test]
    fn a_mean_is_that_of_the_last_minute() {
        let mut mean = Mean::new();
        assert_eq!(mean.of_late(0), None);
        mean.record(100.0, 0);
        mean.record(300.0, 40_000);
        assert_eq!(mean.of_late(40_000), Some(200.0));
        assert_eq!(mean.of_late(70_000), Some(300.0));
        assert_eq!(mean.of_late(200_000), None);
    }

    #[test]
    fn what_is_older_than_all_windows_does_not_count() {
        let mut rate = Rate::new();
        for second in 0..30 {
            rate.record(ELEVEN_SECONDS, 500.0, second * 1000);
        }
        let steady = rate.per_second(ELEVEN_SECONDS, 29_000);
        assert!((500.0..=550.0).contains(&steady), "{steady}");
        assert!(rate.per_second(ELEVEN_SECONDS, 39_000) > 0.0);
        assert_eq!(rate.per_second(ELEVEN_SECONDS, 41_000), 0.0);
    }
}
