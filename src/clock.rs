//! Wall time, monotonic time and randomness: the only room that asks the machine for them (I-25).

#[cfg(test)]
pub(crate) mod testing;

use std::fmt::Debug;
use std::sync::{Arc, OnceLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Milliseconds since 1970, Kafka's unit for every timestamp.
pub type UnixMs = i64;

/// Time and chance, handed to the rooms that need them.
pub trait Clock: Debug + Send + Sync + 'static {
    /// Wall clock, milliseconds since 1970.
    fn now_ms(&self) -> UnixMs;
    /// Milliseconds since some moment of this process; never goes back, whatever happens to the wall clock. For
    /// deadlines.
    fn monotonic_ms(&self) -> i64;
    /// The same in nanoseconds, to measure what is short.
    fn monotonic_ns(&self) -> i64 {
        self.monotonic_ms() * 1_000_000
    }
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
        self.monotonic_ns() / 1_000_000
    }

    fn monotonic_ns(&self) -> i64 {
        static START: OnceLock<Instant> = OnceLock::new();
        START.get_or_init(Instant::now).elapsed().as_nanos() as i64
    }

    fn random(&self) -> u128 {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the kernel's random source does not fail once it is seeded");
        u128::from_ne_bytes(bytes)
    }
}
