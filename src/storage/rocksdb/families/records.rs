//! The directory of families: which number belongs to which partition, as it lies in the family `default`.
//!
//! | key | value |
//! |---|---|
//! | `format` | format version, 4 bytes big-endian |
//! | `p`, number (4 bytes big-endian) | 1, topic id (16 bytes), partition (4 bytes big-endian), topic name: assigned |
//! | the same | 2: a deleted partition's, to be wiped before it is given out again |
//! | `f`, number (4 bytes big-endian) | the log's start (8 bytes big-endian): batches with lower last offsets are gone |
//!
//! A number without a `p` record is free and its family empty. Example: `70 00 00 00 07` is number 7's record.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use crate::storage::PartitionId;
use crate::storage::rocksdb::database::{Database, OpenError, family_name};
use crate::types::{Offset, PartitionIndex, TopicId, TopicName};

const ASSIGNED: u8 = 1;
const WIPING: u8 = 2;
const ASSIGNED_BYTES_MIN: usize = 1 + 16 + 4;

/// What a number's record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage::rocksdb) enum Assignment {
    Partition(PartitionId),
    Wiping,
}

/// A key of this family, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Key {
    Assignment(u32),
    Start(u32),
}

pub(in crate::storage::rocksdb) fn assignment_key(number: u32) -> [u8; 5] {
    key(b'p', number)
}

pub(in crate::storage::rocksdb) fn start_key(number: u32) -> [u8; 5] {
    key(b'f', number)
}

fn key(tag: u8, number: u32) -> [u8; 5] {
    let mut key = [tag, 0, 0, 0, 0];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}

/// `None` for keys of another kind.
pub(super) fn parse_key(key: &[u8]) -> Option<Key> {
    let (&tag, number) = key.split_first()?;
    let number = u32::from_be_bytes(number.try_into().ok()?);
    match tag {
        b'p' => Some(Key::Assignment(number)),
        b'f' => Some(Key::Start(number)),
        _ => None,
    }
}

impl Assignment {
    pub(in crate::storage::rocksdb) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Partition(id) => {
                let mut value = vec![ASSIGNED];
                value.extend_from_slice(id.topic_id.0.as_bytes());
                value.extend_from_slice(&id.partition.0.to_be_bytes());
                value.extend_from_slice(id.topic.as_str().as_bytes());
                value
            }
            Self::Wiping => vec![WIPING],
        }
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        match *value.first()? {
            ASSIGNED if value.len() >= ASSIGNED_BYTES_MIN => {
                let (topic_id, rest) = value[1..].split_at(16);
                let (partition, topic) = rest.split_at(4);
                Some(Self::Partition(PartitionId {
                    topic: TopicName::new(std::str::from_utf8(topic).ok()?),
                    topic_id: TopicId(uuid::Uuid::from_slice(topic_id).ok()?),
                    partition: PartitionIndex(i32::from_be_bytes(partition.try_into().ok()?)),
                }))
            }
            WIPING => Some(Self::Wiping),
            _ => None,
        }
    }
}

pub(super) fn decode_start(value: &[u8]) -> Option<Offset> {
    Some(Offset(i64::from_be_bytes(value.try_into().ok()?)))
}

/// What the records say.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) assignments: HashMap<u32, Assignment>,
    pub(super) starts: HashMap<u32, Offset>,
}

impl Records {
    /// Reads all of them.
    pub(super) fn read(database: &Database) -> Result<Self, OpenError> {
        let dir = database.dir();
        let mut records = Self::default();
        let mut seen = HashMap::new();
        let mut iter = database.db().iter(database.default_cf(), database.scan_options());
        iter.seek_to_first();
        while let Some((key, value)) = iter.entry().map_err(|error| OpenError::rocks(dir, &error))? {
            let readable = match parse_key(key) {
                Some(Key::Assignment(number)) => Assignment::decode(value).map(|assignment| {
                    if let Assignment::Partition(id) = &assignment
                        && seen.insert(id.clone(), number).is_some()
                    {
                        let reason = format!("two families for {}-{}", id.topic, id.partition);
                        return Err(OpenError::damaged(dir, reason));
                    }
                    records.assignments.insert(number, assignment);
                    Ok(())
                }),
                Some(Key::Start(number)) => decode_start(value).map(|start| {
                    records.starts.insert(number, start);
                    Ok(())
                }),
                None => Some(Ok(())),
            };
            let unreadable = || OpenError::damaged(dir, format!("unreadable directory record under {key:02x?}"));
            readable.ok_or_else(unreadable)??;
            iter.next();
        }
        Ok(records)
    }

    /// A family goes only when what says that it is free is on the disk.
    pub(super) fn check_families(&self, dir: &Path, numbers: &BTreeSet<u32>) -> Result<(), OpenError> {
        match self.assignments.keys().find(|number| !numbers.contains(number)) {
            Some(number) => Err(OpenError::damaged(dir, format!("family {} is missing", family_name(*number)))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::contract::partition;

    #[test]
    fn layouts_are_pinned() {
        assert_eq!(assignment_key(7), [0x70, 0, 0, 0, 7]);
        assert_eq!(start_key(258), [0x66, 0, 0, 1, 2]);
        let id = PartitionId { topic_id: TopicId(uuid::Uuid::from_u128(5)), ..partition("orders", 3) };
        let mut golden = vec![1];
        golden.extend_from_slice(&5_u128.to_be_bytes());
        golden.extend_from_slice(&[0, 0, 0, 3]);
        golden.extend_from_slice(b"orders");
        assert_eq!(Assignment::Partition(id).encode(), golden);
        assert_eq!(Assignment::Wiping.encode(), [2]);
    }

    #[test]
    fn what_is_written_is_read_back_and_rubbish_is_not() {
        assert_eq!(parse_key(&assignment_key(9)), Some(Key::Assignment(9)));
        assert_eq!(parse_key(&start_key(9)), Some(Key::Start(9)));
        assert_eq!(parse_key(b"format"), None);
        for assignment in [Assignment::Partition(partition("t", 1)), Assignment::Wiping] {
            assert_eq!(Assignment::decode(&assignment.encode()), Some(assignment));
        }
        for rubbish in [&[][..], &[1, 2, 3], &[9]] {
            assert_eq!(Assignment::decode(rubbish), None);
        }
        assert_eq!(decode_start(&5_i64.to_be_bytes()), Some(Offset(5)));
    }
}
