//! Marks on logs that move, or have moved, between the directories of a broker: which of several logs of one partition
//! counts. A log without one has never moved.
//!
//! A mark is a side record of the directory that the log lies in, under the topic id zero, which no topic has, so that
//! all of them are found by one range:
//!
//! | key | value |
//! |---|---|
//! | zeros (20), `88`, topic id (16), partition (4, big-endian) | 1, kind (1 byte), generation (8 bytes, big-endian) |
//!
//! Kinds: 1 *future*: it is being filled, and does not count; 2 *moved*: it counts, and took the place of the log with
//! the generation before its own, if there is one. A log that is about to move gets a generation that none had before:
//! so one that was made anew while the directory of another was away is never taken for what that one left. A mark
//! whose log is gone means nothing, and is taken away before a log is made there.

use std::collections::{HashMap, HashSet};
use std::ops::{ControlFlow, Range};

use bytes::Bytes;

use crate::storage::{LogDir, PartitionId, StorageError, Write, keys};
use crate::types::{PartitionIndex, TopicId};

const MARK: u8 = 0x88;
const VERSION: u8 = 1;
const FUTURE: u8 = 1;
const MOVED: u8 = 2;

/// What is said of a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    /// It is to be of this generation once it takes the place.
    Future(u64),
    Moved(u64),
}

/// Whether a log of the one generation took the place of one of the other. Those that never moved have 0.
pub(super) fn takes_the_place(generation: u64, of: u64) -> bool {
    of != 0 && generation == of + 1
}

/// Marks by topic id and partition.
pub(super) type Marks = HashMap<(TopicId, PartitionIndex), Mark>;

pub(super) fn put(id: &PartitionId, mark: Mark) -> Write {
    let (kind, generation) = match mark {
        Mark::Future(generation) => (FUTURE, generation),
        Mark::Moved(generation) => (MOVED, generation),
    };
    let mut value = vec![VERSION, kind];
    value.extend_from_slice(&generation.to_be_bytes());
    Write::Side { key: key(id), value: value.into() }
}

pub(super) fn remove(id: &PartitionId) -> Write {
    Write::DeleteSide { key: key(id) }
}

/// All of a directory. Blocking.
///
/// # Errors
/// The directory cannot be read, or a mark is of a later version than this.
pub(super) fn read(dir: &dyn LogDir) -> Result<Marks, StorageError> {
    let (mut marks, mut unknown) = (HashMap::new(), None);
    dir.scan_sides(range(), &mut |key, value| match decode(key, value) {
        Some((of, mark)) => {
            marks.insert(of, mark);
            ControlFlow::Continue(())
        }
        None => {
            unknown = Some(format!("unknown mark {value:02x?} on a log"));
            ControlFlow::Break(())
        }
    })?;
    match unknown {
        None => Ok(marks),
        Some(reason) => Err(StorageError::Read { dir: dir.path(), reason: reason.into() }),
    }
}

/// The logs of a directory that are being filled and do not count. Blocking.
pub(crate) fn futures(dir: &dyn LogDir) -> Result<HashSet<(TopicId, PartitionIndex)>, StorageError> {
    let marks = read(dir)?.into_iter();
    Ok(marks.filter_map(|(of, mark)| matches!(mark, Mark::Future(_)).then_some(of)).collect())
}

fn key(id: &PartitionId) -> Bytes {
    keys::side(TopicId::ZERO, PartitionIndex(0), MARK, &keys::side_prefix(id.topic_id, id.partition))
}

fn range() -> Range<Bytes> {
    let key = |tag| keys::side(TopicId::ZERO, PartitionIndex(0), tag, &[]);
    key(MARK)..key(MARK + 1)
}

fn decode(key: &[u8], value: &[u8]) -> Option<((TopicId, PartitionIndex), Mark)> {
    let (topic_id, partition) = key.get(21..)?.split_first_chunk::<16>()?;
    let partition = PartitionIndex(i32::from_be_bytes(partition.try_into().ok()?));
    let [VERSION, kind, generation @ ..] = value else { return None };
    let generation = u64::from_be_bytes(generation.try_into().ok()?);
    let mark = match *kind {
        FUTURE => Mark::Future(generation),
        MOVED => Mark::Moved(generation),
        _ => return None,
    };
    Some(((TopicId(uuid::Uuid::from_bytes(*topic_id)), partition), mark))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::contract::{self, partition};
    use crate::storage::testing::memory::MemoryDir;

    #[test]
    fn a_mark_is_read_back() {
        let dir = MemoryDir::open();
        let (filled, moved) = (partition("a", 258), partition("b", 0));
        let writes = vec![put(&filled, Mark::Future(3)), put(&moved, Mark::Moved(0x0102))];
        let Write::Side { key, value } = &writes[1] else { unreachable!() };
        assert_eq!(
            (&key[..21], &value[..]),
            (&[&[0; 20][..], &[0x88]].concat()[..], &[1, 2, 0, 0, 0, 0, 0, 0, 1, 2][..])
        );
        contract::commit(&*dir, writes, false).expect("written");
        let of = |id: &PartitionId| (id.topic_id, id.partition);
        let expected = HashMap::from([(of(&filled), Mark::Future(3)), (of(&moved), Mark::Moved(0x0102))]);
        assert_eq!(read(&*dir).expect("readable"), expected);
        assert_eq!(futures(&*dir).expect("readable"), HashSet::from([of(&filled)]));
        contract::commit(&*dir, vec![remove(&filled)], false).expect("written");
        assert_eq!(read(&*dir).expect("readable").len(), 1);
        let Write::Side { key, .. } = put(&filled, Mark::Future(3)) else { unreachable!() };
        contract::commit(&*dir, vec![Write::Side { key, value: vec![1, 3, 0, 0, 0, 0, 0, 0, 0, 1].into() }], false)
            .expect("written");
        assert!(matches!(read(&*dir), Err(StorageError::Read { .. })), "what it says is not known");
    }
}
