//! Counts what requests take, and says how long their connection has to wait.
//!
//! What is taken is recorded whatever comes of it, and the wait brings the rate back to the limit. A limit of 0 on
//! bytes lets its client wait for nothing, as in Kafka, where the wait that would never end becomes none; one on the
//! time of requests lets it wait as long as that limit ever does. The names of clients are theirs to choose: beyond a
//! number of counts those that were idle for longest begin anew.
//! Source: Kafka 3.9 `ClientQuotaManager.recordAndGetThrottleTimeMs`, `QuotaUtils.throttleTime`,
//! `ClientRequestQuotaManager`, `ControllerMutationQuotaManager`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use parking_lot::Mutex;

use super::bucket::Bucket;
use super::limits::{Counted, Kind, Quotas};
use crate::metrics::rate::{Mean, Rate, Windows};

/// The counts of one broker.
#[derive(Debug)]
pub(crate) struct Meter {
    /// Of rates, and of the changes of topics.
    windows: Windows,
    of_mutations: Windows,
    /// Which kinds are limited for anybody, a bit each.
    limited: AtomicU8,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    limits: Arc<Quotas>,
    counts: HashMap<(Kind, Counted), Count>,
    /// Bytes of the names in `counts`.
    name_bytes: usize,
    swept_ms: i64,
}

/// What somebody takes of one kind.
#[derive(Debug)]
struct Count {
    rate: Rate,
    /// Of changes of topics alone.
    bucket: Option<Bucket>,
    /// Waits that were told, in milliseconds.
    waits: Mean,
    used_ms: i64,
}

/// One count at one moment. An empty name stands for all.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct QuotaFigure {
    pub(crate) kind: Kind,
    pub(crate) user: Arc<str>,
    pub(crate) client: Arc<str>,
    pub(crate) per_second: f64,
    pub(crate) tokens: Option<f64>,
    /// The mean of those of the last minute; `None`: there was none.
    pub(crate) wait_ms: Option<f64>,
}

/// Whether tokens are taken from a bucket that owes some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Debt {
    /// Nothing is taken before it owes nothing.
    Refused,
    /// They are, and waited for.
    Waited,
}

/// Whether tokens were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Took {
    /// They were, and so many milliseconds are to be waited for it, mostly 0.
    Tokens { wait_ms: u32 },
    /// Nothing was taken, and will not be for so long.
    Nothing { wait_ms: u32 },
}

/// How often counts that are idle are dropped, and after how long they are: Kafka's metrics of a client stay for an
/// hour. Source: Kafka 3.9 `ClientQuotaManager.InactiveSensorExpirationTimeSeconds`.
const SWEEP_MS: i64 = 60_000;
const IDLE_MS: i64 = 3_600_000;

/// Counts that are kept, and bytes of their names.
const COUNTS_MAX: usize = 20_000;
const NAME_BYTES_MAX: usize = 4 << 20;

impl Meter {
    pub(crate) fn new(windows: Windows, of_mutations: Windows) -> Self {
        Self { windows, of_mutations, limited: AtomicU8::new(0), state: Mutex::default() }
    }

    /// Puts these limits in the place of all others. What was counted stays.
    pub(crate) fn set(&self, limits: Quotas) {
        let mut state = self.state.lock();
        let limited: u8 = Kind::ALL.into_iter().filter(|kind| limits.limit(*kind)).map(bit).sum();
        self.limited.store(limited, Ordering::Release);
        state.limits = Arc::new(limits);
    }

    /// Whether this is limited for anybody: else it need not be counted.
    pub(crate) fn limits(&self, kind: Kind) -> bool {
        self.limited.load(Ordering::Acquire) & bit(kind) != 0
    }

    /// Counts what was taken; answers with the milliseconds that whoever took it has to wait, mostly 0.
    pub(crate) fn record(&self, kind: Kind, user: &Arc<str>, client: &Arc<str>, taken: f64, now_ms: i64) -> u32 {
        let mut state = self.state.lock();
        let Some((limit, counted)) = state.limits.of(kind, user, client) else { return 0 };
        let windows = self.windows;
        let count = state.count(kind, counted, now_ms);
        count.rate.record(windows, taken, now_ms);
        let wait_ms = wait_ms(kind, &mut count.rate, windows, limit, now_ms);
        count.told(wait_ms, now_ms);
        wait_ms
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
        if let Some(count) = state.counts.get_mut(&(kind, counted)) {
            count.rate.record(self.windows, -taken, now_ms);
        }
    }

    /// Takes tokens for changes of topics. Source: Kafka 3.9 `StrictControllerMutationQuota`,
    /// `PermissiveControllerMutationQuota`.
    pub(crate) fn take_tokens(&self, debt: Debt, user: &Arc<str>, client: &Arc<str>, n: f64, now_ms: i64) -> Took {
        let mut state = self.state.lock();
        let Some((limit, counted)) = state.limits.of(Kind::Mutation, user, client) else {
            return Took::Tokens { wait_ms: 0 };
        };
        let windows = self.of_mutations;
        let count = state.count(Kind::Mutation, counted, now_ms);
        let bucket = count.bucket.get_or_insert_with(|| Bucket::new(windows, limit, now_ms));
        let owes = bucket.tokens(windows, limit, now_ms) < 0.0;
        if owes && debt == Debt::Refused {
            let wait_ms = whole_ms(bucket.wait_ms(limit));
            count.told(wait_ms, now_ms);
            return Took::Nothing { wait_ms };
        }
        bucket.take(n);
        let wait_ms = if debt == Debt::Refused { 0 } else { whole_ms(bucket.wait_ms(limit)) };
        count.rate.record(windows, n, now_ms);
        count.told(wait_ms, now_ms);
        Took::Tokens { wait_ms }
    }

    /// What is counted now, at most so many, in the order of kinds and names.
    pub(crate) fn figures(&self, most: usize, now_ms: i64) -> Vec<QuotaFigure> {
        let mut state = self.state.lock();
        let limits = Arc::clone(&state.limits);
        let mut figures: Vec<_> = state
            .counts
            .iter_mut()
            .map(|((kind, counted), count)| {
                let windows = if *kind == Kind::Mutation { self.of_mutations } else { self.windows };
                let limit = limits.of(*kind, &counted.user, &counted.client).map(|(limit, _)| limit);
                let tokens = count.bucket.as_mut().zip(limit);
                QuotaFigure {
                    kind: *kind,
                    user: Arc::clone(&counted.user),
                    client: Arc::clone(&counted.client),
                    per_second: count.rate.per_second(windows, now_ms),
                    tokens: tokens.map(|(bucket, limit)| bucket.tokens(windows, limit, now_ms)),
                    wait_ms: count.waits.of_late(now_ms),
                }
            })
            .collect();
        drop(state);
        figures.sort_by(|a, b| (a.kind, &a.user, &a.client).cmp(&(b.kind, &b.user, &b.client)));
        figures.truncate(most);
        figures
    }
}

impl State {
    /// Its count, perhaps a new one.
    fn count(&mut self, kind: Kind, counted: Counted, now_ms: i64) -> &mut Count {
        if now_ms - self.swept_ms >= SWEEP_MS {
            self.swept_ms = now_ms;
            self.keep(|count| now_ms - count.used_ms < IDLE_MS);
        }
        let key = (kind, counted);
        if !self.counts.contains_key(&key) {
            self.make_room(key.1.bytes());
        }
        let name_bytes = &mut self.name_bytes;
        let count = self.counts.entry(key).or_insert_with_key(|(_, counted)| {
            *name_bytes += counted.bytes();
            Count { rate: Rate::new(), bucket: None, waits: Mean::new(), used_ms: now_ms }
        });
        count.used_ms = now_ms;
        count
    }

    /// Drops a quarter of the counts, idle for longest, where there are too many: each costs a few looks at most.
    fn make_room(&mut self, bytes: usize) {
        while !self.counts.is_empty() && (self.counts.len() >= COUNTS_MAX || self.name_bytes + bytes > NAME_BYTES_MAX) {
            let mut used: Vec<i64> = self.counts.values().map(|count| count.used_ms).collect();
            let quarter = (used.len() / 4).max(1);
            let (_, &mut last, _) = used.select_nth_unstable(quarter - 1);
            let mut left = quarter;
            self.keep(|count| {
                let goes = left > 0 && count.used_ms <= last;
                left -= usize::from(goes);
                !goes
            });
        }
    }

    fn keep(&mut self, mut which: impl FnMut(&Count) -> bool) {
        self.counts.retain(|_, count| which(count));
        self.name_bytes = self.counts.keys().map(|(_, counted)| counted.bytes()).sum();
    }
}

impl Count {
    fn told(&mut self, wait_ms: u32, now_ms: i64) {
        if wait_ms > 0 {
            self.waits.record(f64::from(wait_ms), now_ms);
        }
    }
}

fn bit(kind: Kind) -> u8 {
    1 << kind as u8
}

fn wait_ms(kind: Kind, rate: &mut Rate, windows: Windows, limit: f64, now_ms: i64) -> u32 {
    let value = rate.per_second(windows, now_ms);
    if value <= limit {
        return 0;
    }
    let wait_ms = (value - limit) / limit * rate.span_ms(windows, now_ms) as f64;
    match kind {
        Kind::Request if wait_ms.is_nan() => 0,
        Kind::Request => whole_ms(wait_ms.min(windows.window_ms as f64)),
        Kind::Produce | Kind::Fetch | Kind::Mutation => whole_ms(wait_ms),
    }
}

/// A wait without an end is none, as in Kafka.
fn whole_ms(wait_ms: f64) -> u32 {
    if wait_ms.is_finite() { wait_ms.round().clamp(0.0, f64::from(i32::MAX)) as u32 } else { 0 }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::limits::{Place, Whom};
    use super::*;

    const WINDOWS: Windows = Windows { samples: 11, window_ms: 1000 };

    /// A limit for each client.
    fn limited(key: &str, limit: &str) -> Meter {
        let meter = Meter::new(WINDOWS, WINDOWS);
        let settings = BTreeMap::from([(key.to_owned(), limit.to_owned())]);
        meter.set(Quotas::new([(Place { user: Whom::Any, client: Whom::Default }, &settings)]));
        meter
    }

    fn names() -> (Arc<str>, Arc<str>) {
        ("u".into(), "c".into())
    }

    #[test]
    fn the_wait_brings_the_rate_back_to_the_limit() {
        let meter = limited("producer_byte_rate", "1000");
        let (user, client) = names();
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
        let meter = limited("producer_byte_rate", "1000");
        let (user, client) = names();
        assert_eq!(meter.record(Kind::Produce, &user, &client, 20_000.0, 0), 10_000);
        meter.take_back(Kind::Produce, &user, &client, 20_000.0, 0);
        assert_eq!(meter.record(Kind::Produce, &user, &client, 1.0, 0), 0);
    }

    #[test]
    fn who_takes_too_much_time_waits_for_a_window_at_most() {
        let meter = limited("request_percentage", "10");
        let (user, client) = names();
        let take = |taken| meter.record(Kind::Request, &user, &client, taken, 0);
        assert_eq!((take(100.0), take(1.0), take(1000.0)), (0, 100, 1000));
        assert!(meter.limits(Kind::Request) && !meter.limits(Kind::Produce));
    }

    /// As Kafka 3.9.1 answers.
    #[test]
    fn a_limit_of_zero_holds_nobody_for_ever() {
        let (user, client) = names();
        let take = |key, kind| limited(key, "0").record(kind, &user, &client, 1.0, 0);
        assert_eq!(take("producer_byte_rate", Kind::Produce), 0);
        assert_eq!(take("consumer_byte_rate", Kind::Fetch), 0);
        assert_eq!(take("request_percentage", Kind::Request), 1000);
        for odd in ["NaN", "-1", "-0.0", "Infinity"] {
            assert_eq!(limited("request_percentage", odd).record(Kind::Request, &user, &client, 1.0, 0), 0, "{odd}");
        }
        let mutations = limited("controller_mutation_rate", "0");
        let take = |now_ms| mutations.take_tokens(Debt::Refused, &user, &client, 1.0, now_ms);
        assert_eq!((take(0), take(9_000)), (Took::Tokens { wait_ms: 0 }, Took::Nothing { wait_ms: 0 }));
    }

    #[test]
    fn changes_of_topics_take_tokens() {
        let meter = limited("controller_mutation_rate", "1");
        let (user, client) = names();
        let take = |debt, n, now_ms| meter.take_tokens(debt, &user, &client, n, now_ms);
        assert_eq!(take(Debt::Refused, 10.0, 0), Took::Tokens { wait_ms: 0 });
        assert_eq!(take(Debt::Refused, 10.0, 0), Took::Tokens { wait_ms: 0 }, "one is left");
        assert_eq!(take(Debt::Refused, 1.0, 1_000), Took::Nothing { wait_ms: 8_000 });
        assert_eq!(take(Debt::Waited, 1.0, 1_000), Took::Tokens { wait_ms: 9_000 });
        assert_eq!(take(Debt::Refused, 1.0, 10_000), Took::Tokens { wait_ms: 0 }, "it owes nothing any more");
        let figure = &meter.figures(9, 10_000)[0];
        assert_eq!((figure.kind, figure.tokens, figure.wait_ms), (Kind::Mutation, Some(-1.0), Some(8_500.0)));
    }

    #[test]
    fn without_limits_nothing_is_counted_and_what_is_idle_is_dropped() {
        let meter = limited("producer_byte_rate", "1000");
        let (user, client) = names();
        for n in 0..100 {
            meter.record(Kind::Produce, &user, &format!("c{n}").into(), 1.0, n);
        }
        assert_eq!(meter.figures(1000, 100).len(), 100);
        meter.record(Kind::Produce, &user, &client, 1.0, IDLE_MS + 100);
        assert_eq!(meter.figures(1000, IDLE_MS + 100).len(), 1);
        let free = Meter::new(WINDOWS, WINDOWS);
        assert!(!free.limits(Kind::Produce) && meter.limits(Kind::Produce));
        assert_eq!(free.record(Kind::Produce, &user, &client, 1e12, 0), 0);
        assert!(free.state.lock().counts.is_empty());
    }

    /// Clients choose their names: each of them was kept for a minute, however many and however long.
    #[test]
    fn counts_are_bounded_in_number_and_in_bytes() {
        let meter = limited("producer_byte_rate", "1000");
        let (user, kept) = ("u".into(), "kept".into());
        let take = |client: &Arc<str>, now_ms| meter.record(Kind::Produce, &user, client, 20_000.0, now_ms);
        for n in 0..2 * COUNTS_MAX as i64 {
            take(&format!("c{n}").into(), n / 8);
            if n % 1000 == 0 {
                let wait_ms = take(&kept, n / 8);
                assert!(n == 0 || wait_ms > 10_000, "in use, and counted on");
            }
        }
        assert!(meter.state.lock().counts.len() <= COUNTS_MAX);
        for n in 0..300 {
            take(&format!("{n}{}", "x".repeat(30_000)).into(), 10_000);
        }
        let state = meter.state.lock();
        assert!(state.name_bytes <= NAME_BYTES_MAX && state.counts.len() > 100, "{}", state.counts.len());
    }
}
