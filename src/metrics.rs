//! Every counter in one list. Exposition comes later; today tests and log lines read them.

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

/// Frames refused before their body was decoded: bad size, unknown key or version, malformed header.
pub(crate) static FRAMES_REFUSED: Counter = Counter::new();
/// Request bodies that did not decode.
pub(crate) static BODIES_REFUSED: Counter = Counter::new();
