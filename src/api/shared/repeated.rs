//! What a request names more than once.

use std::collections::HashSet;
use std::hash::Hash;

/// Those of the keys that come at least twice.
pub(in crate::api) fn repeated<K: Eq + Hash + Copy>(keys: impl IntoIterator<Item = K>) -> HashSet<K> {
    let mut seen = HashSet::new();
    keys.into_iter().filter(|key| !seen.insert(*key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_twice_or_more_is_named_once() {
        assert_eq!(repeated(["a", "b", "a", "c", "c", "c"]), HashSet::from(["a", "c"]));
    }
}
