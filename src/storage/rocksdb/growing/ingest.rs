//! From growing tables to RocksDB's: which of them a family has, and the thread that hands them over.
//!
//! A family's tables stand in the order of their keys, and go to RocksDB in that order: only the last one grows. All
//! keys of a table are higher than what RocksDB holds of the family when it is begun, and what RocksDB gets meanwhile
//! is higher still. Whoever writes to keys that a table holds has it handed over first ([`Shared::settle`]).

use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::table::{self, GrowingTable, Header};
use crate::storage::rocksdb::Shared;
use crate::storage::rocksdb::care::Chore;
use crate::storage::rocksdb::failure::Operation;
use crate::storage::rocksdb::jobs::Jobs;
use crate::storage::{Family, StorageError};
use crate::types::Offset;

/// The tables of a family that are not RocksDB's yet.
#[derive(Debug, Default)]
pub(in crate::storage::rocksdb) struct FamilyTables {
    list: ArcSwap<Vec<Arc<GrowingTable>>>,
    /// Tables before those, which are RocksDB's by now and are still read block by block.
    handed_over: ArcSwap<Vec<HandedOver>>,
    /// Held while a list changes.
    changing: Mutex<()>,
    /// Held while one of them is handed over or removed.
    moving: Mutex<()>,
    /// Below the log's start, out of the list, and still on the disk.
    dropped: Mutex<Vec<Arc<GrowingTable>>>,
}

/// A table that RocksDB has taken over, for as long as the page cache keeps some of it: reading it by its own blocks
/// takes one copy out of there, and RocksDB's way two.
#[derive(Debug, Clone)]
struct HandedOver {
    first: Offset,
    last: Offset,
    table: Weak<GrowingTable>,
}

impl FamilyTables {
    /// As they are now. A reader who finds the same list after he made an iterator misses nothing.
    pub(in crate::storage::rocksdb) fn list(&self) -> Arc<Vec<Arc<GrowingTable>>> {
        self.list.load_full()
    }

    /// A table behind the others.
    pub(in crate::storage::rocksdb) fn push(&self, table: &Arc<GrowingTable>) {
        let _changing = self.changing.lock();
        let mut list = Vec::clone(&self.list.load());
        list.push(Arc::clone(table));
        self.list.store(Arc::new(list));
    }

    /// The first table with something from `next` on that was handed over, holds what RocksDB holds, and is at hand.
    pub(in crate::storage::rocksdb) fn handed_over(&self, next: Offset) -> Option<Arc<GrowingTable>> {
        let tables = self.handed_over.load();
        let first = tables.partition_point(|table| table.last < next);
        tables[first..].iter().find_map(|table| table.table.upgrade())
    }

    /// Leaves keys to RocksDB that are about to change.
    pub(in crate::storage::rocksdb) fn forget_handed_over(&self, last_offsets: RangeInclusive<Offset>) {
        let untouched = |table: &HandedOver| table.last < *last_offsets.start() || *last_offsets.end() < table.first;
        // Mostly something is added behind all of them.
        if self.handed_over.load().iter().rev().take_while(|table| *last_offsets.start() <= table.last).all(untouched) {
            return;
        }
        let _changing = self.changing.lock();
        let mut left = Vec::clone(&self.handed_over.load());
        left.retain(untouched);
        self.handed_over.store(Arc::new(left));
    }

    /// Takes a table that RocksDB has out of the list. Answers whether it was there.
    fn hand_over(&self, table: &Arc<GrowingTable>) -> bool {
        self.remove(table, || {
            let mut tables = Vec::clone(&self.handed_over.load());
            tables.retain(|table| table.table.strong_count() > 0);
            let bounds = table.bounds();
            tables.extend(bounds.map(|(first, last)| HandedOver { first, last, table: Arc::downgrade(table) }));
            self.handed_over.store(Arc::new(tables));
        })
    }

    /// Answers whether it was there. `to`: what else is done with it then, before it is gone from the list.
    fn remove(&self, table: &Arc<GrowingTable>, to: impl FnOnce()) -> bool {
        let _changing = self.changing.lock();
        let mut list = Vec::clone(&self.list.load());
        let before = list.len();
        list.retain(|other| !Arc::ptr_eq(other, table));
        let removed = list.len() < before;
        if removed {
            to();
            self.list.store(Arc::new(list));
        }
        removed
    }

    pub(in crate::storage::rocksdb) fn has_any(&self) -> bool {
        !self.list.load().is_empty()
    }

    /// Takes a table out of the list that is not handed over.
    fn put_out(&self, table: &Arc<GrowingTable>) {
        table.seal();
        if self.remove(table, || ()) {
            self.dropped.lock().push(Arc::clone(table));
        }
    }

    fn is_listed(&self, table: &Arc<GrowingTable>) -> bool {
        self.list.load().iter().any(|other| Arc::ptr_eq(other, table))
    }
}

/// What a directory knows of all its growing tables, and what is to be done with them.
#[derive(Debug)]
pub(in crate::storage::rocksdb) struct Growing {
    dir: PathBuf,
    serial: AtomicU64,
    count: AtomicUsize,
    bytes: AtomicU64,
    /// Tables that are RocksDB's now.
    handed_over: AtomicU64,
    begun: AtomicBool,
    tasks: Jobs<Task>,
    /// Somebody else than the writer's thread found something that only it does.
    wants_writer: AtomicBool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Task {
    /// Bring most of this family's growing table to the disk, so that the writer can do the rest in a moment.
    PreSync(Family),
    /// Write what RocksDB's log has of this family to a file.
    Flush(Family),
    /// Hand over the tables of this family that are sealed.
    Ingest(Family),
}

impl Growing {
    /// `serial`: the first number that no file in `dir` has.
    pub(in crate::storage::rocksdb) fn new(dir: PathBuf, serial: u64) -> Self {
        Self {
            dir,
            serial: AtomicU64::new(serial),
            count: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            handed_over: AtomicU64::new(0),
            begun: AtomicBool::new(false),
            tasks: Jobs::default(),
            wants_writer: AtomicBool::new(false),
        }
    }

    /// How many tables there are in all families.
    pub(in crate::storage::rocksdb) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Bytes in them.
    pub(in crate::storage::rocksdb) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(in crate::storage::rocksdb) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(in crate::storage::rocksdb) fn take_back_bytes(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Has the writer's thread write the next group.
    pub(in crate::storage::rocksdb) fn want_writer(&self) {
        self.wants_writer.store(true, Ordering::Relaxed);
    }

    pub(in crate::storage::rocksdb) fn wants_writer(&self) -> bool {
        self.wants_writer.load(Ordering::Relaxed)
    }

    pub(in crate::storage::rocksdb) fn writer_came(&self) {
        self.wants_writer.store(false, Ordering::Relaxed);
    }

    /// Whether nobody has asked this before.
    pub(in crate::storage::rocksdb) fn begins_first(&self) -> bool {
        !self.begun.swap(true, Ordering::Relaxed)
    }

    /// Where the next table goes.
    fn next_path(&self, header: &Header) -> PathBuf {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        self.dir.join(file_name(header.family, serial))
    }

    /// Counts a table that was pushed to its family's.
    pub(in crate::storage::rocksdb) fn added(&self, table: &GrowingTable) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(table.size_bytes(), Ordering::Relaxed);
    }

    fn removed(&self, table: &GrowingTable) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(table.size_bytes(), Ordering::Relaxed);
    }

    /// Has the sealed tables of a family handed over soon.
    pub(in crate::storage::rocksdb) fn ingest_soon(&self, family: Family) {
        self.tasks.add(Task::Ingest(family));
    }

    /// Has what lies below a family's first table written to a file of its own. Later it would share one with what
    /// follows the tables, and that file would span them all: RocksDB would write them all anew.
    pub(in crate::storage::rocksdb) fn flush_soon(&self, family: Family) {
        self.tasks.add(Task::Flush(family));
    }

    /// Has most of a family's growing table brought to the disk.
    pub(in crate::storage::rocksdb) fn pre_sync_soon(&self, family: Family) {
        self.tasks.add(Task::PreSync(family));
    }

    /// What failed is tried again at once.
    pub(in crate::storage::rocksdb) fn hurry(&self) {
        self.tasks.hurry();
    }

    /// Ends the thread after the table at hand; the next start finds the others.
    pub(in crate::storage::rocksdb) fn close(&self) {
        self.tasks.close();
    }
}

/// After so many tables somebody looks whether there are too many files.
const LOOK_AFTER_TABLES: u64 = 64;

/// So many parts of a table have blocks of the disk reserved one after the other.
const RESERVED_AT_ONCE: u64 = 16;

/// Name of a table's file.
fn file_name(family: u32, serial: u64) -> String {
    format!("{family}-{serial}.sst")
}

/// The serial in a name.
pub(in crate::storage::rocksdb) fn serial_of(name: &Path) -> Option<u64> {
    name.to_str()?.strip_suffix(".sst")?.split_once('-')?.1.parse().ok()
}

/// Body of the thread.
pub(in crate::storage::rocksdb) fn run(shared: &Shared) {
    let tasks = &shared.growing.tasks;
    while let Some(taken) = tasks.take() {
        for task in taken {
            if tasks.is_closing() {
                return;
            }
            let outcome = shared.writable().and_then(|()| match task.job {
                Task::PreSync(family) => shared.pre_sync(family),
                Task::Flush(family) => shared.flush_family(family),
                Task::Ingest(family) => shared.ingest_sealed(family),
            });
            shared.settle_job(tasks, task, outcome);
        }
    }
}

impl Shared {
    /// Makes an empty table, and its place if this is the first.
    pub(in crate::storage::rocksdb) fn begin_table(&self, header: &Header) -> Result<GrowingTable, StorageError> {
        let dir = &self.growing.dir;
        let made = self.file(Operation::BeginTable, dir, || match fs::create_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            made => made.map(|()| true),
        })?;
        if made {
            self.file(Operation::Sync, &self.dir, || table::sync_names(&self.dir))?;
        }
        let path = self.growing.next_path(header);
        self.file(Operation::BeginTable, &path, || GrowingTable::create(path.clone(), header))
    }

    fn pre_sync(&self, family: Family) -> Result<(), StorageError> {
        let tables = self.families.state(family).tables.list();
        let Some(table) = tables.last().filter(|table| !table.is_sealed()) else { return Ok(()) };
        self.file(Operation::Sync, table.path(), || table.pre_sync())?;
        // Its name, too.
        self.sync_growing_dir()
    }

    fn flush_family(&self, family: Family) -> Result<(), StorageError> {
        let Some(cf) = self.try_cf(family) else { return Ok(()) };
        let entries = |name| self.db.property(cf.clone(), name).unwrap_or(0);
        if entries("rocksdb.num-entries-active-mem-table") + entries("rocksdb.num-entries-imm-mem-tables") == 0 {
            return Ok(());
        }
        self.rocks(Operation::Flush, |db| db.flush(std::slice::from_ref(&cf), true))
    }

    /// Has blocks of the disk ready for what comes next. May wait for the disk.
    pub(in crate::storage::rocksdb) fn reserve(&self, table: &GrowingTable) {
        table.reserve(self.options.table_bytes / RESERVED_AT_ONCE, self.options.table_bytes);
    }

    /// Hands over the family's first tables, up to one that grows.
    fn ingest_sealed(&self, family: Family) -> Result<(), StorageError> {
        let state = self.families.state(family);
        let _moving = state.tables.moving.lock();
        if state.start() == Offset::MAX {
            // Deleted; they are removed.
            return Ok(());
        }
        for table in state.tables.list().iter() {
            if !table.is_sealed() {
                break;
            }
            // Its owner may have put it out of the list meanwhile.
            if state.tables.is_listed(table) {
                self.ingest(family, table)?;
            }
        }
        Ok(())
    }

    fn ingest(&self, family: Family, table: &Arc<GrowingTable>) -> Result<(), StorageError> {
        let state = self.families.state(family);
        if let Some((first, _)) = table.bounds() {
            self.file(Operation::FinishTable, table.path(), || table.finish())?;
            self.file(Operation::Sync, table.path(), || table.sync_all())?;
            self.rocks(Operation::IngestTable, |db| db.ingest(self.cf(family), table.path()))?;
            // Once its keys may be deleted, it must not come back after a loss of power.
            self.sync_growing_dir()?;
            if first < state.start() {
                self.chores.add(Chore::DropFiles(family));
            }
            self.note_manifest();
            self.page_cache.take_over(table);
            if self.growing.handed_over.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_AFTER_TABLES) {
                self.look_after_files();
            }
        } else {
            self.unlink(table)?;
        }
        // If its owner has put it out of the list meanwhile, it is counted until its file is looked for.
        if state.tables.hand_over(table) {
            self.growing.removed(table);
        }
        Ok(())
    }

    /// Whether handing over cannot follow.
    pub(in crate::storage::rocksdb) fn tables_lag(&self) -> bool {
        self.growing.bytes() > 2 * self.options.tables_bytes_max
    }

    pub(in crate::storage::rocksdb) fn sync_growing_dir(&self) -> Result<(), StorageError> {
        let dir = &self.growing.dir;
        self.file(Operation::Sync, dir, || table::sync_names(dir))
    }

    fn unlink(&self, table: &GrowingTable) -> Result<(), StorageError> {
        self.file(Operation::RemoveTable, table.path(), || match fs::remove_file(table.path()) {
            // RocksDB has it, and drops it like any other.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        })
    }

    /// Hands over all tables of a family now. For who holds the pen and is about to change what they hold.
    pub(in crate::storage::rocksdb) fn settle(&self, family: Family) -> Result<(), StorageError> {
        let state = self.families.state(family);
        state.tables.list().iter().for_each(|table| table.seal());
        self.ingest_sealed(family)?;
        if !state.tables.dropped.lock().is_empty() {
            // They must not go before what says so is on the disk.
            self.sync_log()?;
            self.remove_dropped(family, Offset::MAX)?;
        }
        Ok(())
    }

    /// Puts the tables below the log's start out of the list. For who holds the pen.
    pub(in crate::storage::rocksdb) fn drop_tables_below(&self, family: Family, start: Offset) {
        let tables = &self.families.state(family).tables;
        for table in tables.list().iter().filter(|table| table.last().is_some_and(|last| last < start)) {
            tables.put_out(table);
        }
    }

    /// Removes the files of what was dropped and lies below `start`, which must be on the disk as the log's.
    pub(in crate::storage::rocksdb) fn remove_dropped(
        &self,
        family: Family,
        start: Offset,
    ) -> Result<(), StorageError> {
        let state = self.families.state(family);
        let _moving = state.tables.moving.lock();
        let lies_below = |table: &mut Arc<GrowingTable>| table.last().is_none_or(|last| last < start);
        let mut below: Vec<_> = state.tables.dropped.lock().extract_if(.., lies_below).collect();
        if below.is_empty() {
            return Ok(());
        }
        while let Some(table) = below.last() {
            if let Err(error) = self.unlink(table) {
                state.tables.dropped.lock().extend(below);
                return Err(error);
            }
            self.growing.removed(table);
            below.pop();
        }
        // They must not come back after a loss of power once the log begins anew, or the family is another's.
        self.sync_growing_dir()
    }

    /// Removes all tables of a deleted partition.
    pub(in crate::storage::rocksdb) fn remove_tables(&self, family: Family) -> Result<(), StorageError> {
        let tables = &self.families.state(family).tables;
        tables.list().iter().for_each(|table| tables.put_out(table));
        tables.forget_handed_over(Offset::ZERO..=Offset::MAX);
        self.remove_dropped(family, Offset::MAX)
    }
}
