//! Logs on disk that are not open: found at start, or left when an open log could not be deleted. Each stays reserved,
//! in the directory where it lies, until it is open or gone. Plain data; the manager holds the lock.
//!
//! A log whose topic is not in the cluster is a *stray*. When it became one is a side record of its directory, under
//! the topic id zero, which no topic has, so that all marks are found by one range:
//!
//! | key | value |
//! |---|---|
//! | zeros (20), `87`, topic id (16), partition (4, big-endian) | 1, since when (ms since 1970, 8 bytes big-endian) |
//!
//! The mark goes when the log is opened or deleted; one whose log is gone means nothing.
//!
//! Where a move between directories was under way a partition has several logs. One of them counts, by their `marks`;
//! another that is being filled goes on to be, and what was left goes.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::{ControlFlow, Range};

use bytes::Bytes;

use super::marks::{self, Mark};
use crate::clock::UnixMs;
use crate::storage::{Family, LogDir, PartitionId, StorageError, Write, keys};
use crate::types::{LeaderEpoch, PartitionIndex, TopicId, TopicName};

const STRAY: u8 = 0x87;
const VERSION: u8 = 1;

/// Where a log lies that is not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FoundLog {
    /// Index of its directory.
    pub(super) at: usize,
    pub(super) family: Family,
    /// `None`: not known to be a stray.
    pub(super) stray_since: Option<UnixMs>,
    /// Its end may be lost, as it was last written to under another boot of the machine.
    pub(super) may_lack_end: bool,
    /// The partition's leader epoch before this process registered, if that was asked.
    pub(super) epoch_before: Option<LeaderEpoch>,
    /// How often it had changed its directory when it came here.
    pub(super) generation: u64,
}

impl FoundLog {
    /// One that this process made or had open.
    pub(super) fn made(at: usize, family: Family, generation: u64) -> Self {
        Self { at, family, stray_since: None, may_lack_end: false, epoch_before: None, generation }
    }
}

/// A log that is being filled to take the place of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FutureLog {
    pub(super) at: usize,
    pub(super) family: Family,
    pub(super) generation: u64,
}

/// All logs that are not open.
#[derive(Debug, Default)]
pub(super) struct FoundLogs {
    pub(super) logs: HashMap<PartitionId, FoundLog>,
    /// Beside `logs`, or beside what is open.
    pub(super) futures: HashMap<PartitionId, FutureLog>,
    /// What is to go, log and mark or a mark alone, by the index of its directory. No log is made, nor moves there,
    /// before.
    pub(super) leftovers: HashSet<(usize, PartitionId)>,
}

impl FoundLogs {
    /// What directories hold, with the marks. Blocking.
    ///
    /// # Errors
    /// A directory cannot be read, or two logs of one partition both count: neither took the other's place.
    pub(super) fn of<'d>(dirs: impl Iterator<Item = (&'d dyn LogDir, bool)>) -> Result<Self, StorageError> {
        let mut found = Self::default();
        for (at, (dir, may_lack_ends)) in dirs.enumerate() {
            found.add(at, dir, may_lack_ends)?;
        }
        found.settle_futures();
        Ok(found)
    }

    fn add(&mut self, at: usize, dir: &dyn LogDir, may_lack_ends: bool) -> Result<(), StorageError> {
        let mut strays = HashMap::new();
        dir.scan_sides(marks_range(), &mut |key, value| {
            strays.extend(decode_mark(key, value));
            ControlFlow::Continue(())
        })?;
        let mut marks = marks::read(dir)?;
        for (id, family) in dir.partitions() {
            let of = (id.topic_id, id.partition);
            let generation = match marks.remove(&of) {
                Some(Mark::Future(generation)) => {
                    self.add_future(id, FutureLog { at, family, generation });
                    continue;
                }
                Some(Mark::Moved(generation)) => generation,
                None => 0,
            };
            let stray_since = strays.get(&of).copied();
            let may_lack_end = dir.end(family).may_lack_end(may_lack_ends);
            let found = FoundLog { stray_since, may_lack_end, ..FoundLog::made(at, family, generation) };
            match self.logs.get(&id) {
                Some(known) if marks::takes_the_place(known.generation, generation) => {
                    self.leftovers.insert((at, id));
                }
                Some(known) if marks::takes_the_place(generation, known.generation) => {
                    self.leftovers.insert((known.at, id.clone()));
                    self.logs.insert(id, found);
                }
                Some(_) => {
                    let reason = format!("{}-{} has a log in another log directory, too", id.topic, id.partition);
                    return Err(StorageError::Read { dir: dir.path(), reason: reason.into() });
                }
                None => drop(self.logs.insert(id, found)),
            }
        }
        // Marks of logs that are gone. Their topic is not known, and it is in no key.
        for (topic_id, partition) in marks.into_keys() {
            self.leftovers.insert((at, PartitionId { topic: TopicName::new(""), topic_id, partition }));
        }
        Ok(())
    }

    fn add_future(&mut self, id: PartitionId, future: FutureLog) {
        if let Some(other) = self.futures.insert(id.clone(), future) {
            let older = if other.generation < future.generation { other } else { future };
            self.futures.insert(id.clone(), if older == other { future } else { other });
            self.leftovers.insert((older.at, id));
        }
    }

    /// A log that was being filled goes on to be where the one is that it followed. One without stays on the disk until
    /// its partition is made anew or deleted: it may be all that there is.
    fn settle_futures(&mut self) {
        let Self { logs, futures, leftovers } = self;
        futures.retain(|id, future| {
            let goes_on = logs.get(id).is_some_and(|log| log.generation + 1 == future.generation);
            if !goes_on {
                leftovers.insert((future.at, id.clone()));
            }
            goes_on
        });
    }

    /// What is to go of partitions that have another log which counts, or of none.
    pub(super) fn useless(&self) -> Vec<(usize, PartitionId)> {
        let useless = |(_, id): &&(usize, PartitionId)| id.topic.as_str().is_empty() || self.logs.contains_key(id);
        self.leftovers.iter().filter(useless).cloned().collect()
    }

    /// The id of a topic, as the logs found under its name have it. Strays count only where there is nothing else, and
    /// several ids count as none.
    pub(super) fn topic_id(&self, topic: &TopicName) -> Option<TopicId> {
        let ids = |stray: bool| {
            let logs =
                self.logs.iter().filter(|(id, found)| id.topic == *topic && found.stray_since.is_some() == stray);
            logs.map(|(id, _)| id.topic_id).collect::<BTreeSet<_>>()
        };
        let only = |ids: BTreeSet<TopicId>| (ids.len() == 1).then(|| ids.into_iter().next()).flatten();
        let known = ids(false);
        if known.is_empty() { only(ids(true)) } else { only(known) }
    }

    /// Logs of a partition by name, whatever their topic ids, that are not strays.
    pub(super) fn of_partition(&self, topic: &TopicName, partition: PartitionIndex) -> Vec<(PartitionId, FoundLog)> {
        let of = |id: &PartitionId| id.topic == *topic && id.partition == partition;
        let logs = self.logs.iter().filter(|(id, found)| of(id) && found.stray_since.is_none());
        logs.map(|(id, found)| (id.clone(), *found)).collect()
    }
}

/// Marks a log as a stray.
pub(super) fn mark(id: &PartitionId, since: UnixMs) -> Write {
    let mut value = vec![VERSION];
    value.extend_from_slice(&since.to_be_bytes());
    Write::Side { key: mark_key(id), value: value.into() }
}

/// Takes the mark away.
pub(super) fn unmark(id: &PartitionId) -> Write {
    Write::DeleteSide { key: mark_key(id) }
}

fn mark_key(id: &PartitionId) -> Bytes {
    let suffix = keys::side_prefix(id.topic_id, id.partition);
    keys::side(TopicId::ZERO, PartitionIndex(0), STRAY, &suffix)
}

fn marks_range() -> Range<Bytes> {
    let key = |tag| keys::side(TopicId::ZERO, PartitionIndex(0), tag, &[]);
    key(STRAY)..key(STRAY + 1)
}

/// `None` for a mark of a later version: its log is a stray from now on.
fn decode_mark(key: &[u8], value: &[u8]) -> Option<((TopicId, PartitionIndex), UnixMs)> {
    let (topic_id, partition) = key.get(21..)?.split_first_chunk::<16>()?;
    let (&VERSION, since) = value.split_first()? else { return None };
    let partition = PartitionIndex(i32::from_be_bytes(partition.try_into().ok()?));
    Some(((TopicId(uuid::Uuid::from_bytes(*topic_id)), partition), i64::from_be_bytes(since.try_into().ok()?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::contract;
    use crate::storage::testing::memory::MemoryDir;

    fn id(topic: &str, number: u128, partition: i32) -> PartitionId {
        let topic_id = TopicId::from_random(number << 64 | 7).expect("a legal id");
        PartitionId { topic: topic.into(), topic_id, partition: PartitionIndex(partition) }
    }

    #[test]
    fn a_mark_is_read_back_and_lies_in_the_range() {
        let id = id("t", 5, 258);
        let Write::Side { key, value } = mark(&id, 0x0102_0304_0506_0708) else { unreachable!() };
        assert_eq!(&key[..21], [&[0; 20][..], &[0x87]].concat());
        assert_eq!(&key[37..], [0, 0, 1, 2]);
        assert_eq!(&value[..], [1, 1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(marks_range().contains(&key));
        assert_eq!(decode_mark(&key, &value), Some(((id.topic_id, id.partition), 0x0102_0304_0506_0708)));
        assert_eq!(decode_mark(&key, &[2, 1]), None);
    }

    #[test]
    fn of_two_logs_the_one_counts_that_took_the_place_of_the_other() {
        let id = id("t", 1, 0);
        // One that never moved may have been made anew while the other's directory was away.
        for (one, other, counts) in [
            (Some(70), Some(71), Some(1)),
            (Some(71), Some(70), Some(0)),
            (None, Some(1), None),
            (Some(71), None, None),
            (Some(70), Some(72), None),
            (Some(70), Some(70), None),
        ] {
            let dirs = [one, other].map(|generation| {
                let dir = MemoryDir::open();
                dir.create(std::slice::from_ref(&id)).expect("created");
                let writes = generation.map(|generation| marks::put(&id, Mark::Moved(generation)));
                contract::commit(&*dir, writes.into_iter().collect(), false).expect("written");
                dir
            });
            let found = FoundLogs::of(dirs.iter().map(|dir| (&**dir as &dyn LogDir, false)));
            match (found, counts) {
                (Ok(found), Some(at)) => {
                    assert_eq!((found.logs[&id].at, found.useless()), (at, vec![(1 - at, id.clone())]));
                }
                (Err(error), None) => assert!(error.to_string().contains("in another log directory, too"), "{error}"),
                (found, _) => panic!("{one:?} {other:?}: {found:?}"),
            }
        }
    }

    #[test]
    fn strays_name_a_topic_only_where_nothing_else_does() {
        let mut found = FoundLogs::default();
        let mut add = |id: &PartitionId, stray_since| {
            found.logs.insert(id.clone(), FoundLog { stray_since, ..FoundLog::made(0, Family(0), 0) });
        };
        let (old, new, other) = (id("t", 1, 0), id("t", 2, 0), id("u", 3, 0));
        add(&old, Some(5));
        add(&new, None);
        add(&other, Some(5));
        add(&id("w", 4, 0), None);
        add(&id("w", 5, 1), None);
        assert_eq!(found.topic_id(&"t".into()), Some(new.topic_id));
        assert_eq!(found.topic_id(&"u".into()), Some(other.topic_id));
        assert_eq!(found.topic_id(&"v".into()), None);
        assert_eq!(found.topic_id(&"w".into()), None, "two ids are none");
    }
}
