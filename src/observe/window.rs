//! Quantiles of what took how long lately: counts only grow, so a look back is a difference of two of them.

use std::collections::VecDeque;

use crate::metrics::{BUCKETS, bucket_end_us};

/// How far back a quantile looks, at least, once so much time has passed. Kafka's histograms favour the last five
/// minutes, too.
const REACH_MS: i64 = 5 * 60_000;
/// Between two counts that are kept.
const STEP_MS: i64 = 60_000;

/// How many of each range of times.
pub(super) type Buckets = [u64; BUCKETS];

/// Former counts, at most one for each minute.
#[derive(Debug, Default)]
pub(super) struct Window {
    kept: VecDeque<(i64, Vec<Buckets>)>,
}

impl Window {
    /// What came since the counts of five minutes ago, or since the start. `counts` has the same series each time.
    pub(super) fn since(&mut self, now_ms: i64, counts: &[Buckets]) -> Vec<Buckets> {
        while self.kept.get(1).is_some_and(|(at, _)| now_ms - at >= REACH_MS) {
            self.kept.pop_front();
        }
        let base = self.kept.front().filter(|(at, _)| now_ms - at >= REACH_MS).map(|(_, base)| base);
        let lately = counts.iter().enumerate().map(|(at, counts)| match base.and_then(|base| base.get(at)) {
            Some(base) => std::array::from_fn(|bucket| counts[bucket].saturating_sub(base[bucket])),
            None => *counts,
        });
        let lately = lately.collect();
        if self.kept.back().is_none_or(|(at, _)| now_ms - at >= STEP_MS) {
            self.kept.push_back((now_ms, counts.to_vec()));
        }
        lately
    }
}

/// The time in milliseconds within which this part of all was done, by interpolation; 0 if there was none.
pub(super) fn quantile_ms(counts: &Buckets, part: f64) -> f64 {
    let total: u64 = counts.iter().sum();
    let rank = part * total as f64;
    let mut before = 0.0;
    for (bucket, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let within = (rank - before) / count as f64;
        if within <= 1.0 {
            let begin = bucket.checked_sub(1).map_or(0, bucket_end_us) as f64;
            let us = begin + within.max(0.0) * (bucket_end_us(bucket) as f64 - begin);
            return (us / 10.0).round() / 100.0;
        }
        before += count as f64;
    }
    0.0
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::{Api, RequestMetrics};

    /// Counts after each of these times, all of one series.
    fn counted(requests: &RequestMetrics, ms: impl IntoIterator<Item = u64>) -> Buckets {
        let series = requests.series(0, 0).expect("known");
        ms.into_iter().for_each(|ms| requests.count(series, Duration::from_millis(ms)));
        requests.counts().next().expect("one").1[0].1
    }

    fn requests() -> RequestMetrics {
        RequestMetrics::new([Api { key: 0, name: "Produce".into(), min_version: 0, max_version: 0 }])
    }

    #[test]
    fn quantiles_lie_near_the_times_that_were_counted() {
        let counts = counted(&requests(), 1..=1000);
        for (part, ms) in [(0.5, 500.0), (0.75, 750.0), (0.95, 950.0), (0.99, 990.0), (0.999, 999.0)] {
            let found = quantile_ms(&counts, part);
            assert!((found - ms).abs() / ms < 0.2, "{part}: {found}");
        }
        assert_eq!(quantile_ms(&[0; BUCKETS], 0.5), 0.0);
    }

    #[test]
    fn what_is_long_ago_no_longer_counts() {
        let (requests, mut window) = (requests(), Window::default());
        let of = |counts: &[Buckets]| counts[0].iter().sum::<u64>();
        for minute in 0..12 {
            let counts = counted(&requests, [1]);
            let lately = of(&window.since(minute * 60_000, &[counts]));
            // At minute m there were m + 1; those of five minutes ago are known from minute 5 on.
            assert_eq!(lately, if minute < 5 { minute as u64 + 1 } else { 5 }, "minute {minute}");
        }
        assert!(window.kept.len() <= 7);
        let counts = counted(&requests, [1; 3]);
        assert_eq!(of(&window.since(100 * 60_000, &[counts])), 3, "after a long silence the last counts are the base");
    }
}
