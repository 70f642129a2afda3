//! Requests and the time they took, per API key and version: one cell for each pair and each range of times, so that a
//! request is one addition, and count, rate and quantiles all come from the same cells.
//!
//! Ranges have two bounds in each power of two: a quantile is off by a fifth at most, and by half of that mostly.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Ranges of time: up to 16 µs, up to 24, 32, 48 … and the last without an end (from 134 s on).
pub(crate) const BUCKETS: usize = 48;

/// log2 of the first bound, in microseconds.
const FIRST_BITS: u32 = 4;

/// An API key of which requests are counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Api {
    pub(crate) key: i16,
    /// Kafka's name, as in its metrics.
    pub(crate) name: String,
    pub(crate) min_version: i16,
    pub(crate) max_version: i16,
}

/// Where requests of one API key and version are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Series(usize);

/// Counts of all requests of one broker.
#[derive(Debug)]
pub(crate) struct RequestMetrics {
    /// Sorted by key, each with its first series.
    apis: Vec<(Api, usize)>,
    /// `BUCKETS` for each series.
    cells: Box<[AtomicU64]>,
}

impl RequestMetrics {
    /// `apis` in the order of their keys.
    pub(crate) fn new(apis: impl IntoIterator<Item = Api>) -> Self {
        let mut series = 0;
        let mut with_first = Vec::new();
        for api in apis {
            let versions = usize::try_from(api.max_version - api.min_version + 1).unwrap_or(0);
            with_first.push((api, series));
            series += versions;
        }
        debug_assert!(with_first.is_sorted_by(|(a, _), (b, _)| a.key < b.key), "series are found by their keys");
        let cells = (0..series * BUCKETS).map(|_| AtomicU64::new(0)).collect();
        Self { apis: with_first, cells }
    }

    /// Where requests of this key and version are counted; `None`: nowhere.
    pub(crate) fn series(&self, key: i16, version: i16) -> Option<Series> {
        let at = self.apis.binary_search_by_key(&key, |(api, _)| api.key).ok()?;
        let (api, first) = &self.apis[at];
        let known = (api.min_version..=api.max_version).contains(&version);
        known.then(|| Series(first + usize::try_from(version - api.min_version).unwrap_or(0)))
    }

    /// Counts a request that is over.
    pub(crate) fn count(&self, series: Series, took: Duration) {
        self.cells[series.0 * BUCKETS + bucket(took)].fetch_add(1, Ordering::Relaxed);
    }

    /// Every API with, for each of its versions, how many requests took how long.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (&Api, Vec<(i16, [u64; BUCKETS])>)> {
        self.apis.iter().map(|(api, first)| {
            let versions = (api.min_version..=api.max_version).enumerate().map(|(at, version)| {
                let cells = &self.cells[(first + at) * BUCKETS..][..BUCKETS];
                (version, std::array::from_fn(|bucket| cells[bucket].load(Ordering::Relaxed)))
            });
            (api, versions.collect())
        })
    }
}

fn bucket(took: Duration) -> usize {
    let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if us < 1 << FIRST_BITS {
        return 0;
    }
    let bits = us.ilog2();
    let upper_half = (us >> (bits - 1)) & 1;
    let at = 1 + 2 * (bits - FIRST_BITS) as usize + upper_half as usize;
    at.min(BUCKETS - 1)
}

/// Where the range ends, in microseconds, exclusive. The last one counts as as wide as the one before.
pub(crate) fn bucket_end_us(bucket: usize) -> u64 {
    let Some(at) = bucket.checked_sub(1) else { return 1 << FIRST_BITS };
    let begin = 1_u64 << (FIRST_BITS as usize + at / 2);
    if at.is_multiple_of(2) { begin + begin / 2 } else { 2 * begin }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(key: i16, min_version: i16, max_version: i16) -> Api {
        Api { key, name: format!("Api{key}"), min_version, max_version }
    }

    #[test]
    fn ranges_follow_each_other_without_gaps() {
        for us in (0..40_000).chain([1 << 20, 100_000_000, 500_000_000, u64::MAX / 2000]) {
            let bucket = bucket(Duration::from_micros(us));
            let begin = bucket.checked_sub(1).map_or(0, bucket_end_us);
            let is_last = bucket == BUCKETS - 1;
            assert!(begin <= us && (us < bucket_end_us(bucket) || is_last), "{us} in {bucket}");
        }
        assert_eq!(bucket_end_us(BUCKETS - 2), 1 << 27);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn each_key_and_version_has_counts_of_its_own() {
        let requests = RequestMetrics::new([api(0, 3, 5), api(7, 0, 0), api(9, 1, 2)]);
        assert_eq!([requests.series(0, 2), requests.series(0, 6), requests.series(8, 0)], [None; 3]);
        for (key, version, times) in [(0, 3, 1), (0, 5, 2), (7, 0, 3), (9, 1, 4), (9, 2, 5)] {
            let series = requests.series(key, version).expect("known");
            (0..times).for_each(|_| requests.count(series, Duration::from_millis(1)));
        }
        let mut found = Vec::new();
        for (api, versions) in requests.counts() {
            let counted = versions.iter().map(|(version, counts)| (*version, counts.iter().sum::<u64>()));
            found.push((api.key, counted.collect::<Vec<_>>()));
        }
        assert_eq!(found, [(0, vec![(3, 1), (4, 0), (5, 2)]), (7, vec![(0, 3)]), (9, vec![(1, 4), (2, 5)])]);
    }
}
