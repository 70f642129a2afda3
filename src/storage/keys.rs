//! Byte layouts of keys. Owned by the storage and log rooms: storage orders them, log gives side records their meaning.

use bytes::Bytes;

use crate::types::{Offset, PartitionIndex, TopicId};

/// A batch's key: its last offset, 8 bytes big-endian, so that one forward seek finds the batch that holds an offset.
/// Example: last offset 41 is `00 00 00 00 00 00 00 29`.
pub(crate) fn batch(last_offset: Offset) -> [u8; 8] {
    last_offset.0.to_be_bytes()
}

/// Reads [`batch`] back.
pub(crate) fn batch_last_offset(key: &[u8]) -> Option<Offset> {
    Some(Offset(i64::from_be_bytes(key.try_into().ok()?)))
}

/// Prefix of all side records of a partition: topic id (16 bytes), partition (4 bytes big-endian).
pub(crate) fn side_prefix(topic_id: TopicId, partition: PartitionIndex) -> [u8; 20] {
    let mut key = [0; 20];
    key[..16].copy_from_slice(topic_id.0.as_bytes());
    key[16..].copy_from_slice(&partition.0.to_be_bytes());
    key
}

/// A side record's key: prefix, one tag byte, the tag's own suffix.
pub(crate) fn side(topic_id: TopicId, partition: PartitionIndex, tag: u8, suffix: &[u8]) -> Bytes {
    let mut key = Vec::with_capacity(21 + suffix.len());
    key.extend_from_slice(&side_prefix(topic_id, partition));
    key.push(tag);
    key.extend_from_slice(suffix);
    key.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_batch_of_offsets_40_and_41_has_the_key_41() {
        assert_eq!(batch(Offset(41)), [0, 0, 0, 0, 0, 0, 0, 0x29]);
        assert_eq!(batch_last_offset(&batch(Offset(41))), Some(Offset(41)));
        assert_eq!(batch_last_offset(b"short"), None);
    }

    #[test]
    fn side_keys_of_one_partition_lie_together() {
        let id = TopicId::from_random(7 << 100).expect("a legal id");
        let key = side(id, PartitionIndex(258), 0x81, &[9]);
        assert_eq!(&key[..16], id.0.as_bytes());
        assert_eq!(&key[16..], [0, 0, 1, 2, 0x81, 9]);
    }
}
