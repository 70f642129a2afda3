//! The families of a directory: which partition has which, the pool of free ones, and how they come and go.
//!
//! Creating a family costs in proportion to all that exist, so they are made in batches, and a deleted partition's
//! family is wiped and goes back to the pool. Each step is durable before the next begins: record "wiping" → wipe →
//! remove the record. What a crash leaves half wiped is wiped again at the next start.
//!
//! A family takes some 60 KiB of memory and half a millisecond of each start, so where many are free most are dropped,
//! in batches as well. First what says that they are free is brought to the disk. Then nothing names the number any
//! more, no record and no growing table's file, and a later family may have it: to RocksDB that is another one.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::{Mutex, RwLock};

use super::Shared;
use super::care::Chore;
use super::directory::{self, Assignment};
use super::failure::Operation;
use super::growing::ingest::FamilyTables;
use super::growing::placement::Logged;
use super::raw::{Batch, Cf};
use crate::storage::{Family, PartitionId, StorageError, keys};
use crate::types::{Offset, PartitionIndex, TopicId};

/// Column families that are not partitions', in the order in which they are opened.
pub(super) const FIXED: [&str; 3] = ["default", "side", "coordination"];

/// Free families to have before a topic is wanted.
const POOL_READY: usize = 16;

/// Free families made beyond the need, in proportion: a tenth of those that are used.
const POOL_GROWTH_DIVISOR: usize = 10;

/// Free families are dropped where there are so many times as many as are to be ready, down to half of that.
const POOL_SURPLUS: usize = 4;

/// So many at once: the options file is written for each batch of them, and creating waits meanwhile.
const DROPPED_AT_ONCE: usize = 2000;

/// What a wiped family's files may still take on disk, hidden by a range tombstone.
const RUBBISH_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Families {
    /// By number.
    states: RwLock<Vec<Arc<FamilyState>>>,
    directory: Mutex<Directory>,
    /// Held by whoever makes or drops families.
    making: Mutex<()>,
}

#[derive(Debug, Default)]
struct Directory {
    assigned: HashMap<PartitionId, u32>,
    free: BTreeSet<u32>,
    /// Numbers without a family.
    vacant: BTreeSet<u32>,
    /// Families ever made.
    made: usize,
}

impl Directory {
    /// How many free families there should be.
    fn ready(&self) -> usize {
        POOL_READY.max(self.assigned.len() / POOL_GROWTH_DIVISOR)
    }
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
    /// Only for who holds the writer's pen: batches from here on are of sets that were refused for want of space after
    /// they had been handed over. They go before anything else is added. One more than the last offset of the first;
    /// 0: there are none.
    undo: AtomicI64,
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

    pub(super) fn undo_from(&self, last_offset: Offset) {
        let before = self.undo.load(Ordering::Relaxed);
        let first = if before == 0 { last_offset.0 + 1 } else { before.min(last_offset.0 + 1) };
        self.undo.store(first, Ordering::Relaxed);
    }

    /// What is to be undone before batches are added.
    pub(super) fn take_undo(&self) -> Option<Offset> {
        let first = self.undo.load(Ordering::Relaxed);
        if first == 0 {
            return None;
        }
        self.undo.store(0, Ordering::Relaxed);
        Some(Offset(first - 1))
    }

    /// Whoever wants to know the end looks at what is there.
    pub(super) fn forget_end(&self) {
        self.end_known.store(false, Ordering::Relaxed);
        self.end.store(0, Ordering::Relaxed);
    }

    /// Back to what a family without a batch is.
    fn reset(&self) {
        self.end.store(0, Ordering::Relaxed);
        self.end_known.store(true, Ordering::Relaxed);
        *self.logged.lock() = Logged::default();
        self.undo.store(0, Ordering::Relaxed);
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
    /// The families with these numbers exist. Answers also which of them wait to be wiped.
    pub(super) fn new(numbers: &BTreeSet<u32>, records: Records) -> (Self, Vec<u32>) {
        let mut wiping = Vec::new();
        let mut held = Directory::default();
        let mut states = Vec::new();
        for number in 0..numbers.last().map_or(0, |last| last + 1) {
            let state = FamilyState::default();
            state.set_start(records.starts.get(&number).copied().unwrap_or(Offset::ZERO));
            match records.assignments.get(&number) {
                Some(Assignment::Partition(id)) => drop(held.assigned.insert(id.clone(), number)),
                Some(Assignment::Wiping) => {
                    state.set_start(Offset::MAX);
                    wiping.push(number);
                }
                None if numbers.contains(&number) => drop(held.free.insert(number)),
                None => {
                    state.set_start(Offset::MAX);
                    held.vacant.insert(number);
                }
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

    /// Numbers that there are or were families for.
    pub(super) fn numbers(&self) -> std::ops::Range<u32> {
        0..number(self.states.read().len())
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        let slots = self.states.read().len();
        slots - self.directory.lock().vacant.len()
    }

    /// How many were made since the directory was opened.
    fn made(&self) -> usize {
        self.directory.lock().made
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
        let directory = self.directory.lock();
        let (ready, free) = (directory.ready(), directory.free.len());
        if free * 2 >= ready { 0 } else { ready - free }
    }

    /// The lowest numbers that have no family.
    fn vacant(&self, count: usize) -> Vec<u32> {
        let slots = self.states.read().len();
        let directory = self.directory.lock();
        directory.vacant.iter().copied().chain((slots..).map(number)).take(count).collect()
    }

    /// Families that were made.
    fn add(&self, numbers: &[u32]) {
        let mut states = self.states.write();
        for number in numbers {
            while states.len() <= *number as usize {
                states.push(Arc::default());
            }
            states[*number as usize].reset();
        }
        drop(states);
        let mut directory = self.directory.lock();
        directory.made += numbers.len();
        for number in numbers {
            directory.vacant.remove(number);
            directory.free.insert(*number);
        }
    }

    /// Takes families out of the pool that are too many, the highest first.
    fn take_surplus(&self) -> Vec<u32> {
        let mut directory = self.directory.lock();
        let (ready, free) = (directory.ready(), directory.free.len());
        if free <= POOL_SURPLUS * ready {
            return Vec::new();
        }
        let count = (free - POOL_SURPLUS / 2 * ready).min(DROPPED_AT_ONCE);
        (0..count).filter_map(|_| directory.free.pop_last()).collect()
    }

    fn put_back(&self, numbers: Vec<u32>) {
        self.directory.lock().free.extend(numbers);
    }

    /// They have no family any more.
    fn dropped(&self, numbers: Vec<u32>) {
        self.directory.lock().vacant.extend(numbers);
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
        let needed = needed.saturating_sub(self.families.made() - seen);
        let room = self.options.families_max.saturating_sub(self.families.count());
        if needed > room {
            return Err(StorageError::TooManyPartitions { dir: self.dir.clone(), max: self.options.families_max });
        }
        let count = (needed + spare).min(room);
        if count == 0 {
            return Ok(());
        }
        let numbers = self.families.vacant(count);
        let wanted: Vec<_> = numbers.into_iter().map(|number| (number, directory::family_name(number))).collect();
        let mut made = Vec::with_capacity(count);
        let outcome =
            self.rocks(Operation::Describe, |db| db.create_families(&self.family_options, &wanted, &mut made));
        // Even after an error, some of them may be there.
        self.families.add(&made);
        self.note_manifest();
        outcome
    }

    /// Drops free families where there are too many, some at a time.
    pub(super) fn shrink_pool(&self) -> Result<(), StorageError> {
        let _making = self.families.making.lock();
        let surplus = self.families.take_surplus();
        if surplus.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.sync_log() {
            self.families.put_back(surplus);
            return Err(error);
        }
        for number in &surplus {
            // Whoever still asks for what was in it finds nothing.
            self.families.state(Family(*number)).set_start(Offset::MAX);
        }
        let outcome = self.rocks(Operation::Describe, |db| db.drop_families(&surplus));
        self.note_manifest();
        // After an error some of them may be gone. Which ones the next start sees; until then they are left alone.
        outcome?;
        self.families.dropped(surplus);
        self.chores.add(Chore::ShrinkPool);
        Ok(())
    }

    /// [`crate::storage::LogDir::create`].
    pub(super) fn create(&self, wanted: &[PartitionId]) -> Result<Vec<Family>, StorageError> {
        self.writable()?;
        loop {
            let seen = self.families.made();
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
        self.remove_tables(Family(number))?;
        let (first, last) = (&[0_u8; 0][..], &[u8::MAX; 9][..]);
        if !self.is_empty(cf.clone())? {
            self.rocks(Operation::Describe, |db| db.delete_files(cf.clone(), first, last))?;
            let mut batch = Batch::with_capacity(64);
            batch.delete_range(cf.clone(), first, last);
            self.write(&mut batch)?;
        }
        // A little rubbish may wait for the family's next life.
        if self.db.property(cf.clone(), "rocksdb.live-sst-files-size").unwrap_or(0) > RUBBISH_BYTES_MAX {
            self.rocks(Operation::Flush, |db| db.flush(std::slice::from_ref(&cf), true))?;
            self.db.compact(cf, None);
        }
        let mut batch = Batch::with_capacity(64);
        batch.delete(self.default_cf(), &directory::assignment_key(number));
        batch.delete(self.default_cf(), &directory::start_key(number));
        self.write(&mut batch)?;
        self.families.release(number);
        // After all that wait to be wiped now.
        self.chores.add(Chore::ShrinkPool);
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
        // `synced` `MAX`: of the partition that had the family before.
        if start <= Offset::ZERO || start == Offset::MAX || synced == Offset::MAX {
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
        self.rocks(Operation::Describe, |db| db.delete_files(self.cf(family), &first, &last))
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
