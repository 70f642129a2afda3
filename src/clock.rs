//! Wall time, monotonic time and randomness: the only room that asks the machine for them (I-25).

use std::fmt::Debug;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, Kafka's unit for every timestamp.
pub type UnixMs = i64;

/// Time and chance, handed to whoever needs them.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Wall clock, milliseconds since 1970.
    fn now_ms(&self) -> UnixMs;
    /// Milliseconds since some moment of this process; never goes back, whatever happens to the wall clock. For
    /// deadlines.
    fn monotonic_ms(&self) -> i64;
    /// 128 random bits.
    fn random(&self) -> u128;
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's clock and random source.
#[derive(Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> UnixMs {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
    }

    fn monotonic_ms(&self) -> i64 {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_millis() as i64
    }

    fn random(&self) -> u128 {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the kernel's random source does not fail once it is seeded");
        u128::from_ne_bytes(bytes)
    }
}

/// A clock that stands still until a test moves it; its random numbers follow from the seed.
#[derive(Debug)]
pub struct ManualClock {
    now_ms: AtomicI64,
    seed: AtomicU64,
}

impl ManualClock {
    pub fn new(now_ms: UnixMs, seed: u64) -> Self {
        Self { now_ms: AtomicI64::new(now_ms), seed: AtomicU64::new(seed) }
    }

    /// Moves time forward.
    pub fn advance(&self, ms: i64) {
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
