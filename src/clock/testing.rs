//! A clock that a test moves.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use super::{Clock, UnixMs};

/// A clock that stands still until a test moves it; its random numbers follow from the seed.
#[derive(Debug)]
pub(crate) struct ManualClock {
    now_ms: AtomicI64,
    seed: AtomicU64,
}

impl ManualClock {
    pub(crate) fn new(now_ms: UnixMs, seed: u64) -> Self {
        Self { now_ms: AtomicI64::new(now_ms), seed: AtomicU64::new(seed) }
    }

    /// Moves time forward.
    pub(crate) fn advance(&self, ms: i64) {
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }

    fn next(&self) -> u64 {
        // SplitMix64: good enough to tell two ids apart, and the same in every run.
        let mut z = self.seed.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::SeqCst).wrapping_add(0x9e37_79b9_7f4a_7c15);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> UnixMs {
        self.now_ms.load(Ordering::SeqCst)
    }

    fn monotonic_ms(&self) -> i64 {
        self.now_ms()
    }

    fn random(&self) -> u128 {
        (u128::from(self.next()) << 64) | u128::from(self.next())
    }
}
