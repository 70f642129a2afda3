//! Every counter and gauge in one list. Exposition comes later; today tests and log lines read them.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub(crate) struct Gauge(AtomicU64);

impl Gauge {
    pub(crate) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes away what was added before.
    pub(crate) fn sub(&self, n: u64) {
        self.0.fetch_sub(n, Ordering::Relaxed);
    }

    #[cfg_attr(not(test), allow(dead_code, reason = "exposition comes later"))]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Logs whose last compaction failed and that wait for another try; Kafka's
/// `kafka.log:type=LogCleanerManager,name=uncleanable-partitions-count`, over all directories.
pub(crate) static UNCLEANABLE_PARTITIONS: Gauge = Gauge::new();

/// Frames refused before their body was decoded: bad size, unknown key or version, malformed header.
pub(crate) static FRAMES_REFUSED: Counter = Counter::new();
/// Request bodies that did not decode.
pub(crate) static BODIES_REFUSED: Counter = Counter::new();
/// Replies that their clients took too slowly while others waited for room.
pub(crate) static REPLIES_GIVEN_UP: Counter = Counter::new();

/// Refusals that have been logged; the log takes the first hundred and then one in a thousand, so that a hostile client
/// cannot fill the disk with them.
static REFUSALS_LOGGED: Counter = Counter::new();

/// Whether this refusal may have a log line.
pub(crate) fn refusal_may_be_logged() -> bool {
    REFUSALS_LOGGED.add(1);
    let count = REFUSALS_LOGGED.get();
    count <= 100 || count.is_multiple_of(1000)
}
