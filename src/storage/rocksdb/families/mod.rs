//! The families of a directory: which partition has which, the pool of free ones, and how they come and go.
//!
//! Creating a family costs in proportion to all that exist, so they are made in batches, and a deleted partition's
//! family is wiped and goes back to the pool. Each step is durable before the next begins: record "wiping" → wipe →
//! remove the record. What a crash leaves half wiped is wiped again at the next start.
//!
//! A family takes some 60 KiB of memory and half a millisecond of each start, so where many are free most are dropped,
//! in batches as well. First what says that they are free is brought to the disk. Then nothing names the number any
//! more, no record and no growing table's file, and a later family may have it: to RocksDB that is another one.
//!
//! `records` say on disk what `pool` says in memory · `state` is what is known of one family.

mod pool;
mod records;
mod state;

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use self::pool::{POOL_READY, Pool};
use self::records::Records;
pub(super) use self::records::{Assignment, assignment_key, start_key};
pub(super) use self::state::FamilyState;
use super::database::{BackgroundJob, Batch, Cf, Database, OpenError, Operation, family_name};
use crate::storage::{Family, InDoubt, PartitionId, StorageError, keys};
use crate::types::{Offset, PartitionIndex, TopicId};

/// What a wiped family's files may still take on disk, hidden by a range tombstone.
const RUBBISH_BYTES_MAX: u64 = 1 << 20;

#[derive(Debug)]
pub(super) struct Families {
    database: Arc<Database>,
    /// By number.
    states: RwLock<Vec<Arc<FamilyState>>>,
    pool: Mutex<Pool>,
    /// Held by whoever makes or drops families.
    making: Mutex<()>,
}

impl Families {
    /// Those of a database, of which there are the ones with these numbers. The background gets to know which of them
    /// wait to be wiped.
    pub(super) fn open(database: Arc<Database>, numbers: &BTreeSet<u32>) -> Result<Self, OpenError> {
        let records = Records::read(&database)?;
        records.check_families(database.dir(), numbers)?;
        let (mut pool, mut states, mut wiping) = (Pool::default(), Vec::new(), Vec::new());
        for number in 0..numbers.last().map_or(0, |last| last + 1) {
            let state = FamilyState::default();
            state.set_start(records.starts.get(&number).copied().unwrap_or(Offset::ZERO));
            match records.assignments.get(&number) {
                Some(Assignment::Partition(id)) => drop(pool.assigned.insert(id.clone(), number)),
                Some(Assignment::Wiping) => {
                    state.set_start(Offset::MAX);
                    wiping.push(number);
                }
                // A start that was killed had emptied it, and not dropped it yet.
                None if database.stays_as_it_is(Family(number)) => {
                    state.set_start(Offset::MAX);
                    wiping.push(number);
                }
                None if numbers.contains(&number) => drop(pool.free.insert(number)),
                None => {
                    state.set_start(Offset::MAX);
                    pool.vacant.insert(number);
                }
            }
            states.push(Arc::new(state));
        }
        database.jobs().add(BackgroundJob::FillPool);
        database.jobs().add(BackgroundJob::ShrinkPool);
        wiping.into_iter().for_each(|number| database.jobs().add(BackgroundJob::Wipe(number)));
        Ok(Self { database, states: RwLock::new(states), pool: Mutex::new(pool), making: Mutex::default() })
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
        slots - self.pool.lock().vacant.len()
    }

    pub(super) fn partitions(&self) -> Vec<(PartitionId, Family)> {
        self.pool.lock().assigned.iter().map(|(id, number)| (id.clone(), Family(*number))).collect()
    }

    /// Whose family it is; `None` if nobody's.
    pub(super) fn identity(&self, family: Family) -> Option<(TopicId, PartitionIndex)> {
        let pool = self.pool.lock();
        let found = pool.assigned.iter().find(|(_, number)| **number == family.0);
        found.map(|(id, _)| (id.topic_id, id.partition))
    }

    /// What an earlier start could not settle.
    pub(super) fn note_doubts(&self, in_doubt: &InDoubt) {
        let pool = self.pool.lock();
        for (id, number) in &pool.assigned {
            let (of, state) = ((id.topic_id, id.partition), self.state(Family(*number)));
            if in_doubt.ends.contains(&of) {
                state.note_end_in_doubt();
            }
            state.note_uncut(in_doubt.uncut.contains(&of));
        }
    }

    /// The lowest numbers that have no family.
    fn vacant(&self, count: usize) -> Vec<u32> {
        let slots = self.states.read().len();
        let pool = self.pool.lock();
        pool.vacant.iter().copied().chain((slots..).map(number)).take(count).collect()
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
        self.pool.lock().add(numbers);
    }
}

/// How they come and go.
impl Families {
    /// Makes as many families as the pool lacks.
    pub(super) fn fill_pool(&self) -> Result<(), StorageError> {
        let missing = self.pool.lock().missing();
        self.grow_pool(0, missing, 0)
    }

    /// Makes so many families, and `spare` more if the limit allows, and puts them into the pool. `seen`: how many
    /// there were when the need was found; what others have made since counts.
    fn grow_pool(&self, needed: usize, spare: usize, seen: usize) -> Result<(), StorageError> {
        let _making = self.making.lock();
        let needed = needed.saturating_sub(self.pool.lock().made - seen);
        let max = self.database.options().families_max;
        let room = max.saturating_sub(self.count());
        if needed > room {
            return Err(StorageError::TooManyPartitions { dir: self.database.dir().to_owned(), max });
        }
        let count = (needed + spare).min(room);
        if count == 0 {
            return Ok(());
        }
        let numbers = self.vacant(count);
        let wanted: Vec<_> = numbers.into_iter().map(|number| (number, family_name(number))).collect();
        let mut made = Vec::with_capacity(count);
        let outcome = self
            .database
            .rocks(Operation::Describe, |db| db.create_families(self.database.family_options(), &wanted, &mut made));
        // Even after an error, some of them may be there.
        self.add(&made);
        self.database.note_manifest();
        outcome
    }

    /// Drops free families where there are too many, some at a time.
    pub(super) fn shrink_pool(&self) -> Result<(), StorageError> {
        let _making = self.making.lock();
        let surplus = self.pool.lock().take_surplus();
        if surplus.is_empty() {
            return Ok(());
        }
        if let Err(error) = self.database.sync_log() {
            self.pool.lock().free.extend(surplus);
            return Err(error);
        }
        for number in &surplus {
            // Whoever still asks for what was in it finds nothing.
            self.state(Family(*number)).set_start(Offset::MAX);
        }
        let outcome = self.database.rocks(Operation::Describe, |db| db.drop_families(&surplus));
        self.database.note_manifest();
        // After an error some of them may be gone. Which ones the next start sees; until then they are left alone.
        outcome?;
        self.pool.lock().vacant.extend(surplus);
        self.database.jobs().add(BackgroundJob::ShrinkPool);
        // What was written about so many partitions, to say that they are gone, need not stay in memory.
        self.database.jobs().add(BackgroundJob::FlushAll);
        Ok(())
    }

    /// [`crate::storage::LogDir::create`].
    pub(super) fn create(&self, wanted: &[PartitionId]) -> Result<Vec<Family>, StorageError> {
        self.database.writable()?;
        loop {
            let seen = self.pool.lock().made;
            let missing = match self.try_create(wanted)? {
                Created::Families(families) => {
                    self.database.jobs().add(BackgroundJob::FillPool);
                    return Ok(families);
                }
                Created::PoolLacks(missing) => missing,
            };
            // A reserve at once: making one more costs as much as making many.
            self.grow_pool(missing, POOL_READY, seen)?;
        }
    }

    fn try_create(&self, wanted: &[PartitionId]) -> Result<Created, StorageError> {
        let mut pool = self.pool.lock();
        let fresh: HashSet<&PartitionId> = wanted.iter().filter(|id| !pool.assigned.contains_key(id)).collect();
        if fresh.len() > pool.free.len() {
            return Ok(Created::PoolLacks(fresh.len() - pool.free.len()));
        }
        if !fresh.is_empty() {
            let mut batch = Batch::with_capacity(64 * fresh.len());
            let mut taken = Vec::with_capacity(fresh.len());
            // In the caller's order, so that the same calls give the same numbers.
            let mut left = fresh;
            let ordered: Vec<PartitionId> = wanted.iter().filter(|id| left.remove(id)).cloned().collect();
            for (id, &number) in ordered.into_iter().zip(&pool.free) {
                let record = Assignment::Partition(id.clone()).encode();
                batch.put(self.database.default_cf(), &assignment_key(number), &record);
                taken.push((id, number));
            }
            // No sync: what a loss of power takes from the end of the log, it takes with all that came after.
            self.database.write(&mut batch)?;
            for (id, number) in taken {
                pool.free.remove(&number);
                pool.assigned.insert(id, number);
            }
        }
        Ok(Created::Families(wanted.iter().map(|id| Family(pool.assigned[id])).collect()))
    }

    /// [`crate::storage::LogDir::delete`].
    pub(super) fn delete(&self, partitions: &[PartitionId]) -> Result<(), StorageError> {
        self.database.writable()?;
        let mut pool = self.pool.lock();
        let mut batch = Batch::with_capacity(128 * partitions.len());
        let mut gone = Vec::new();
        for id in partitions {
            let Some(&number) = pool.assigned.get(id) else { continue };
            let prefix = keys::side_prefix(id.topic_id, id.partition);
            batch.put(self.database.default_cf(), &assignment_key(number), &Assignment::Wiping.encode());
            batch.delete_range(self.database.side_cf(), &prefix, &prefix_end(&prefix));
            gone.push((id, number));
        }
        if gone.is_empty() {
            return Ok(());
        }
        self.database.write(&mut batch)?;
        for (id, number) in gone {
            pool.assigned.remove(id);
            self.state(Family(number)).set_start(Offset::MAX);
            self.database.jobs().add(BackgroundJob::Wipe(number));
        }
        Ok(())
    }

    /// Empties a deleted partition's family and gives it back to the pool. The caller has synced the log, and removed
    /// the family's growing tables.
    pub(super) fn wipe(&self, number: u32) -> Result<(), StorageError> {
        let cf = self.database.cf(Family(number));
        let (first, last) = (&[0_u8; 0][..], &[u8::MAX; 9][..]);
        // Where that cannot be read it is not.
        if !self.is_empty(cf.clone()).unwrap_or(false) {
            self.database.rocks(Operation::Describe, |db| db.delete_files(cf.clone(), first, last))?;
            let mut batch = Batch::with_capacity(64);
            batch.delete_range(cf.clone(), first, last);
            self.database.write(&mut batch)?;
        }
        // A little rubbish may wait for the family's next life.
        let rubbish_bytes = self.database.db().property(cf.clone(), "rocksdb.live-sst-files-size").unwrap_or(0);
        if rubbish_bytes > RUBBISH_BYTES_MAX && !self.database.stays_as_it_is(Family(number)) {
            self.database.rocks(Operation::Flush, |db| db.flush(std::slice::from_ref(&cf), true))?;
            self.database.db().compact(cf, None);
        }
        let mut batch = Batch::with_capacity(64);
        batch.delete(self.database.default_cf(), &assignment_key(number));
        batch.delete(self.database.default_cf(), &start_key(number));
        self.database.write(&mut batch)?;
        // Back to the pool; the family is empty and no record names it.
        self.state(Family(number)).reset();
        if self.database.stays_as_it_is(Family(number)) {
            return self.drop_damaged(number);
        }
        self.pool.lock().free.insert(number);
        // After all that wait to be wiped now.
        self.database.jobs().add(BackgroundJob::ShrinkPool);
        Ok(())
    }

    /// A family with damaged files is not used again: what is left of them would be compacted with what comes.
    fn drop_damaged(&self, number: u32) -> Result<(), StorageError> {
        let _making = self.making.lock();
        self.database.sync_log()?;
        // Whoever still asks for what was in it finds nothing.
        self.state(Family(number)).set_start(Offset::MAX);
        let outcome = self.database.rocks(Operation::Describe, |db| db.drop_families(&[number]));
        self.database.note_manifest();
        outcome?;
        // Where the note stays the number does, too: the family that had it next would be taken for this one.
        if self.database.forget_damaged_file(Family(number)) {
            self.pool.lock().vacant.insert(number);
        }
        Ok(())
    }

    fn is_empty(&self, cf: Cf<'_>) -> Result<bool, StorageError> {
        let mut iter = self.database.db().iter(cf, self.database.scan_options());
        iter.seek_to_first();
        iter.entry().map(|entry| entry.is_none()).map_err(|error| self.database.read_failed(&error))
    }

    /// The first offset that a log may still need, if there is any below it: its start, or `synced`, a start that is on
    /// the disk. What lies below may go.
    pub(super) fn first_kept(&self, family: Family, synced: Offset) -> Option<Offset> {
        let start = self.state(family).start();
        // `synced` `MAX`: of the partition that had the family before.
        if start <= Offset::ZERO || start == Offset::MAX || synced == Offset::MAX {
            return None;
        }
        Some(start.min(synced))
    }

    /// Removes the files that lie below [`first_kept`](Self::first_kept) as a whole.
    pub(super) fn drop_files(&self, family: Family, first_kept: Offset, synced: Offset) -> Result<(), StorageError> {
        if first_kept <= Offset::ZERO {
            return Ok(());
        }
        let state = self.state(family);
        self.drop_whole_files(family, &state, synced)?;
        if self.database.stays_as_it_is(family) {
            return Ok(());
        }
        // Files of level 0 are not dropped. Those below the start do not overlap, so they move down unread.
        let range = (keys::batch(Offset::ZERO), keys::batch(Offset(first_kept.0 - 1)));
        self.database.db().compact(self.database.cf(family), Some((&range.0, &range.1)));
        self.drop_whole_files(family, &state, synced)
    }

    fn drop_whole_files(&self, family: Family, state: &FamilyState, synced: Offset) -> Result<(), StorageError> {
        let droppable = state.droppable();
        let end = synced.min(*droppable);
        if end <= Offset::ZERO || *droppable == Offset::MAX {
            return Ok(());
        }
        let (first, last) = (keys::batch(Offset::ZERO), keys::batch(Offset(end.0 - 1)));
        self.database.rocks(Operation::Describe, |db| db.delete_files(self.database.cf(family), &first, &last))
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
