//! Where a run's decisions come from, and its memory of them.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

/// A stream of numbers from a seed, and the hash of what was done with them. Clones share both.
#[derive(Debug, Clone)]
pub(super) struct Chance(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    seed: u64,
    trace: u64,
    events: u64,
}

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State { seed: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), trace: 0, events: 0 })))
    }

    /// SplitMix64.
    pub(super) fn next(&self) -> u64 {
        let mut state = self.0.lock();
        state.seed = state.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to below `bound`.
    pub(super) fn below(&self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    pub(super) fn one_in(&self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(super) fn micros(&self, from: u64, to: u64) -> Duration {
        Duration::from_micros(from + self.below(to - from))
    }

    pub(super) fn millis(&self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }

    pub(super) fn pick<T: Copy>(&self, from: &[T]) -> Option<T> {
        (!from.is_empty()).then(|| from[self.below(from.len() as u64) as usize])
    }

    /// Something happened. `KLAMM_SIM_TRACE=1` prints it.
    pub(super) fn note(&self, what: &str) {
        let mut state = self.0.lock();
        state.events += 1;
        for byte in what.bytes() {
            state.trace = (state.trace ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        drop(state);
        tracing::trace!(target: "sim", "{what}");
    }

    /// Hash of everything that happened, and how much that was.
    pub(super) fn trace(&self) -> (u64, u64) {
        let state = self.0.lock();
        (state.trace, state.events)
    }
}
