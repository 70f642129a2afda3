//! The families of a directory: which partition has which, the pool of free ones, and how they come and go.
//!
//! Creating a family costs in proportion to all that exist, so they are made in batches and never dropped: a deleted
//! partition's family is wiped and goes back to the pool. Each step is durable before the next begins:
//! record "wiping" → wipe → remove the record. What a crash leaves half wiped is wiped again at the next start.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::Shared;
use super::care::Chore;
use super::directory::{self, Assignment};
use super::ingest::FamilyTables;
use super::placement::Logged;
use super::raw::{Batch, Cf};
use crate::storage::{Family, PartitionId, StorageError, keys};
use crate::types::{Offset, PartitionIndex, TopicId};

/// Column families that are not partitions', in the order in which they are opened.
pub(super) const FIXED: [&str; 3] = ["default", "side", "coordination"];

/// Free families to have before a topic is wanted.
const POOL_READY: usize = 16;

/// Free families made beyond the need, in proportion: a tenth of those that exist.
const POOL_GROWTH_DIVISOR: usize = 10;

/// What a wiped family's files may still take on disk, hidden by a range tombstone.
const RUBBISH_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Families {
    /// By number.
    states: RwLock<Vec<Arc<FamilyState>>>,
    directory: Mutex<Directory>,
    /// Held by whoever makes families, so that their numbers have no gap.
    making: Mutex<()>,
}

#[derive(Debug, Default)]
struct Directory {
    assigned: HashMap<PartitionId, u32>,
    free: BTreeSet<u32>,
}

/// What is known of a family beyond its files.
#[derive(Debug, Default)]
pub(super) struct FamilyState {
    /// Batches whose last offset is lower are gone, whatever the files say. `i64::MAX` once its partition is deleted.
    start: AtomicI64,
    /// Files may be deleted that lie below as a whole; held while they are. As the start, but 0 from the moment on when
    /// a log that begins anew at an earlier offset is about to be written.
    droppable: Mutex<Offset>,
    /// Only for who holds the writer's pen: one past the highest last offset written since the directory was opened,
    /// and whether that covers what was there before.
    pub(super) end: AtomicI64,
    pub(super) end_known: AtomicBool,
    /// Only for who holds the writer's pen.
    pub(super) logged: Mutex<Logged>,
    /// What is not RocksDB's yet.
    pub(super) tables: FamilyTables,
}

impl FamilyState {
    pub(super) fn start(&self) -> Offset {
        Offset(self.start.load(Ordering::Acquire))
    }

    pub(super) fn set_start(&self, start: Offset) {
        self.start.store(start.0, Ordering::Release);
        *self.droppable.lock() = start;
    }

    /// Before something is written below the start.
    pub(super) fn keep_files(&self) {
        *self.droppable.lock() = Offset::ZERO;
    }

    /// Back to what a family without a batch is.
    fn reset(&self) {
        self.end.store(0, Ordering::Relaxed);
        self.end_known.store(true, Ordering::Relaxed);
        *self.logged.lock() = Logged::default();
        self.set_start(Offset::ZERO);
    }
}

/// What the records of the family `default` say.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) assignments: HashMap<u32, Assignment>,
    pub(super) starts: HashMap<u32, Offset>,
}

impl Families {
    /// `count` families exist, numbered from 0. Answers also which of them wait to be wiped.
    pub(super) fn new(count: u32, records: Records) -> (Self, Vec<u32>) {
        let mut wiping = Vec::new();
        let mut held = Directory::default();
        let mut states = Vec::new();
        for number in 0..count {
            let state = FamilyState::default();
            state.set_start(records.starts.get(&number).copied().unwrap_or(Offset::ZERO));
            match records.assignments.get(&number) {
                Some(Assignment::Partition(id)) => drop(held.assigned.insert(id.clone(), number)),
                Some(Assignment::Wiping) => {
                    state.set_start(Offset::MAX);
                    wiping.push(number);
                }
                None => drop(held.free.insert(number)),
            }
            states.push(Arc::new(state));
        }
        let families = Self { states: RwLock::new(states), directory: Mutex::new(held), making: Mutex::default() };
        (families, wiping)
    }

    /// Panics if the family was never given out.
    pub(super) fn state(&self, family: Family) -> Arc<FamilyState> {
        Arc::clone(&self.states.read()[family.0 as usize])
    }

    pub(super) fn count(&self) -> usize {
        self.states.read().len()
    }

    pub(super) fn partitions(&self) -> Vec<(PartitionId, Family)> {
        self.directory.lock().assigned.iter().map(|(id, number)| (id.clone(), Family(*number))).collect()
    }

    /// Whose family it is; `None` if nobody's.
    pub(super) fn identity(&self, family: Family) -> Option<(TopicId, PartitionIndex)> {
        let directory = self.directory.lock();
        let found = directory.assigned.iter().find(|(_, number)| **number == family.0);
        found.map(|(id, _)| (id.topic_id, id.partition))
    }

    /// Families to make so that the pool is ready again; 0 if it is.
    pub(super) fn missing(&self) -> usize {
        let ready = POOL_READY.max(self.count() / POOL_GROWTH_DIVISOR);
        let free = self.directory.lock().free.len();
        if free * 2 >= ready { 0 } else { ready - free }
    }

    fn add(&self, exist: usize) {
        let mut states = self.states.write();
        let first = states.len();
        states.extend((first..exist).map(|_| {
            let state = FamilyState::default();
            state.reset();
            Arc::new(state)
        }));
        drop(states);
        self.directory.lock().free.extend((first..exist).map(number));
    }

    /// Back to the pool; the family is empty and no record names it.
    fn release(&self, number: u32) {
        self.state(Family(number)).reset();
        self.directory.lock().free.insert(number);
    }
}

fn number(index: usize) -> u32 {
    u32::try_from(index).expect("no disk holds u32::MAX families")
}

/// The first key after all keys with this prefix.
fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < u8::MAX {
            *last += 1;
            return end;
        }
        end.pop();
    }
    vec![u8::MAX; prefix.len() + 1]
}

impl Shared {
    /// Makes so many families, and `spare` more if the limit allows, and puts them into the pool. `seen`: how many
    /// there were when the need was found; what others have made since counts.
    pub(super) fn grow_pool(&self, needed: usize, spare: usize, seen: usize) -> Result<(), StorageError> {
        let _making = self.families.making.lock();
        let first = self.families.count();
        let needed = needed.saturating_sub(first - seen);
        let room = self.options.families_max.saturating_sub(first);
        if needed > room {
            return Err(StorageError::TooManyPartitions { dir: self.dir.clone(), max: self.options.families_max });
        }
        let count = (needed + spare).min(room);
        if count == 0 {
            return Ok(());
        }
        let names: Vec<String> = (first..first + count).map(|index| directory::family_name(number(index))).collect();
        let outcome = self.db.create_families(&self.family_options, &names);
        // Even after an error, some of them may be there.
        self.families.add(self.db.family_count() - FIXED.len());
        self.note_manifest();
        outcome.map_err(|error| self.stop(&error))
    }

    /// [`crate::storage::LogDir::create`].
    pub(super) fn create(&self, wanted: &[PartitionId]) -> Result<Vec<Family>, StorageError> {
        self.writable()?;
        loop {
            let seen = self.families.count();
            let missing = match self.try_create(wanted)? {
                Created::Families(families) => {
                    self.chores.add(Chore::FillPool);
                    return Ok(families);
                }
                Created::PoolLacks(missing) => missing,
            };
            // A reserve at once: making one more costs as much as making many.
            self.grow_pool(missing, POOL_READY, seen)?;
        }
    }

    fn try_create(&self, wanted: &[PartitionId]) -> Result<Created, StorageError> {
        let mut directory = self.families.directory.lock();
        let fresh: HashSet<&PartitionId> = wanted.iter().filter(|id| !directory.assigned.contains_key(id)).collect();
        if fresh.len() > directory.free.len() {
            return Ok(Created::PoolLacks(fresh.len() - directory.free.len()));
        }
        if !fresh.is_empty() {
            let mut batch = Batch::with_capacity(64 * fresh.len());
            let mut taken = Vec::with_capacity(fresh.len());
            // In the caller's order, so that the same calls give the same numbers.
            let mut left = fresh;
            let ordered: Vec<PartitionId> = wanted.iter().filter(|id| left.remove(id)).cloned().collect();
            for (id, &number) in ordered.into_iter().zip(&directory.free) {
                let record = Assignment::Partition(id.clone()).encode();
                batch.put(self.default_cf(), &directory::assignment_key(number), &record);
                taken.push((id, number));
            }
            // No sync: what a loss of power takes from the end of the log, it takes with all that came after.
            self.write(&mut batch)?;
            for (id, number) in taken {
                directory.free.remove(&number);
                directory.assigned.insert(id, number);
            }
        }
        Ok(Created::Families(wanted.iter().map(|id| Family(directory.assigned[id])).collect()))
    }

    /// [`crate::storage::LogDir::delete`].
    pub(super) fn delete(&self, partitions: &[PartitionId]) -> Result<(), StorageError> {
        self.writable()?;
        let mut directory = self.families.directory.lock();
        let mut batch = Batch::with_capacity(128 * partitions.len());
        let mut gone = Vec::new();
        for id in partitions {
            let Some(&number) = directory.assigned.get(id) else { continue };
            let prefix = keys::side_prefix(id.topic_id, id.partition);
            batch.put(self.default_cf(), &directory::assignment_key(number), &Assignment::Wiping.encode());
            batch.delete_range(self.side_cf(), &prefix, &prefix_end(&prefix));
            gone.push((id, number));
        }
        if gone.is_empty() {
            return Ok(());
        }
        self.write(&mut batch)?;
        for (id, number) in gone {
            directory.assigned.remove(id);
            self.families.state(Family(number)).set_start(Offset::MAX);
            self.chores.add(Chore::Wipe(number));
        }
        Ok(())
    }

    /// Empties a deleted partition's family and gives it back to the pool. The caller has synced the log.
    pub(super) fn wipe(&self, number: u32) -> Result<(), StorageError> {
        let cf = self.cf(Family(number));
        let failed = |error| self.stop(&error);
        self.remove_tables(Family(number))?;
        let (first, last) = (&[0_u8; 0][..], &[u8::MAX; 9][..]);
        if !self.is_empty(cf)? {
            self.db.delete_files(cf, first, last).map_err(failed)?;
            let mut batch = Batch::with_capacity(64);
            batch.delete_range(cf, first, last);
            self.write(&mut batch)?;
        }
        // A little rubbish may wait for the family's next life.
        if self.db.property(cf, "rocksdb.live-sst-files-size").unwrap_or(0) > RUBBISH_BYTES_MAX {
            self.db.flush(&[cf], true).map_err(failed)?;
            self.db.compact(cf, None);
        }
        let mut batch = Batch::with_capacity(64);
        batch.delete(self.default_cf(), &directory::assignment_key(number));
        batch.delete(self.default_cf(), &directory::start_key(number));
        self.write(&mut batch)?;
        self.families.release(number);
        Ok(())
    }

    fn is_empty(&self, cf: Cf<'_>) -> Result<bool, StorageError> {
        let mut iter = self.db.iter(cf, &self.scan_options);
        iter.seek_to_first();
        iter.entry().map(|entry| entry.is_none()).map_err(|error| self.read_failed(&error))
    }

    /// Removes the files that lie below a log's start as a whole. `synced`: the start, or an earlier one, that is on
    /// the disk.
    pub(super) fn drop_files_below_start(&self, family: Family, synced: Offset) -> Result<(), StorageError> {
        let state = self.families.state(family);
        let start = state.start();
        if start <= Offset::ZERO || start == Offset::MAX {
            return Ok(());
        }
        let first_kept = start.min(synced);
        self.remove_dropped(family, first_kept)?;
        if first_kept <= Offset::ZERO {
            return Ok(());
        }
        self.drop_whole_files(family, &state, synced)?;
        // Files of level 0 are not dropped. Those below the start do not overlap, so they move down unread.
        self.db.compact(self.cf(family), Some((&keys::batch(Offset::ZERO), &keys::batch(Offset(first_kept.0 - 1)))));
        self.drop_whole_files(family, &state, synced)
    }

    fn drop_whole_files(&self, family: Family, state: &FamilyState, synced: Offset) -> Result<(), StorageError> {
        let droppable = state.droppable.lock();
        let end = synced.min(*droppable);
        if end <= Offset::ZERO || *droppable == Offset::MAX {
            return Ok(());
        }
        let (first, last) = (keys::batch(Offset::ZERO), keys::batch(Offset(end.0 - 1)));
        self.db.delete_files(self.cf(family), &first, &last).map_err(|error| self.stop(&error))
    }
}

enum Created {
    Families(Vec<Family>),
    PoolLacks(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_prefix_lies_after_all_its_keys() {
        assert_eq!(prefix_end(&[1, 2]), [1, 3]);
        assert_eq!(prefix_end(&[1, 255]), [2]);
        assert_eq!(prefix_end(&[255, 255]), [255, 255, 255]);
    }
}
