//! Which partition of an internal topic keeps a group or a transactional id.

use crate::types::PartitionIndex;

/// The partition of `__consumer_offsets` (or of `__transaction_state`) that is responsible for `id`, out of
/// `partitions`, which must be positive.
///
/// Source: Kafka `GroupMetadataManager.partitionFor`, `TransactionStateManager.partitionFor`: `Utils.abs` of Java's
/// `String.hashCode`, which runs over UTF-16 units and wraps; `abs(i32::MIN)` is 0 there.
pub(crate) fn partition_for(id: &str, partitions: i32) -> PartitionIndex {
    let hash = id.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    PartitionIndex(hash.checked_abs().unwrap_or(0) % partitions.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hash_is_javas_over_utf16_units() {
        // "hello".hashCode() = 99162322; U+1F600 is two units in UTF-16.
        assert_eq!(partition_for("hello", i32::MAX), PartitionIndex(99_162_322));
        assert_eq!(partition_for("", 50), PartitionIndex(0));
        assert_eq!(partition_for("\u{1F600}", i32::MAX), PartitionIndex(0xD83D * 31 + 0xDE00));
    }

    #[test]
    fn the_absolute_value_of_the_smallest_hash_is_zero() {
        // Java: "polygenelubricants".hashCode() == Integer.MIN_VALUE
        assert_eq!(partition_for("polygenelubricants", 50), PartitionIndex(0));
        assert_eq!(partition_for("polygenelubricants", 7), PartitionIndex(0));
    }

    #[test]
    fn a_negative_hash_is_negated_not_masked() {
        // The two rules differ for half of all ids.
        let id = (0..).map(|n| format!("group-{n}")).find(|id| java_hash(id) < 0).expect("half of all hashes");
        assert_eq!(partition_for(&id, 50).0, -java_hash(&id) % 50);
    }

    fn java_hash(text: &str) -> i32 {
        text.encode_utf16().fold(0, |hash: i32, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
    }
}
