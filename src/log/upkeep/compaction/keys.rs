//! The latest offset of each key, by a 128-bit hash: 25 bytes per key, whatever its length.
//!
//! The hash is keyed with a random seed, because a client chooses the keys: two keys that collide would delete each
//! other's values, and without the seed no client can construct such a pair. By chance it takes 2⁶⁴ keys.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, DefaultHasher, Hasher};

use crate::types::Offset;

/// Grows with the keys it holds.
#[derive(Debug)]
pub(super) struct KeyMap {
    seed: u128,
    offsets: HashMap<[u64; 2], Offset, BuildHasherDefault<FirstWord>>,
}

impl KeyMap {
    pub(super) fn new(seed: u128) -> Self {
        Self { seed, offsets: HashMap::default() }
    }

    /// Keeps the larger of the offsets.
    pub(super) fn insert(&mut self, key: &[u8], offset: Offset) {
        let latest = self.offsets.entry(self.hash(key)).or_insert(offset);
        *latest = offset.max(*latest);
    }

    pub(super) fn latest(&self, key: &[u8]) -> Option<Offset> {
        self.offsets.get(&self.hash(key)).copied()
    }

    pub(super) fn len(&self) -> usize {
        self.offsets.len()
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        [0u8, 1].map(|half| {
            let mut hasher = DefaultHasher::new();
            hasher.write_u128(self.seed);
            hasher.write_u8(half);
            hasher.write(key);
            hasher.finish()
        })
    }
}

/// The keys are hashes already.
#[derive(Debug, Default)]
struct FirstWord(u64);

impl Hasher for FirstWord {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes.first_chunk().map_or(0, |word| u64::from_ne_bytes(*word));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_offset_of_a_key_wins_in_any_order() {
        let mut keys = KeyMap::new(7);
        for (key, offset) in [("a", 3), ("b", 4), ("a", 9), ("a", 5), ("", 1)] {
            keys.insert(key.as_bytes(), Offset(offset));
        }
        assert_eq!(keys.latest(b"a"), Some(Offset(9)));
        assert_eq!(keys.latest(b"b"), Some(Offset(4)));
        assert_eq!(keys.latest(b""), Some(Offset(1)));
        assert_eq!(keys.latest(b"c"), None);
        assert_eq!(keys.len(), 3);
    }

    #[test]
    fn many_keys_spread_over_the_table() {
        let mut keys = KeyMap::new(u128::MAX);
        for key in 0..100_000u32 {
            keys.insert(&key.to_be_bytes(), Offset(i64::from(key)));
        }
        assert_eq!(keys.len(), 100_000);
        assert!((0..100_000u32).all(|key| keys.latest(&key.to_be_bytes()) == Some(Offset(i64::from(key)))));
    }
}
