//! From growing tables to RocksDB's files: what a directory knows of all its tables, and the thread that hands them
//! over.
//!
//! A family's tables go to RocksDB in the order of their keys. All keys of a table are higher than what RocksDB holds
//! of the family when it is begun, and what RocksDB gets meanwhile is higher still. Whoever writes to keys that a table
//! holds has it handed over first ([`Growing::ingest_all`]).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use super::marker;
use super::page_cache::PageCache;
use super::table::{GrowingTable, Header};
use crate::storage::rocksdb::database::{BackgroundJob, Database, Operation, TableJob, sync_names};
use crate::storage::rocksdb::families::Families;
use crate::storage::{Family, StorageError};
use crate::types::{Offset, PartitionIndex, TopicId};

/// What a directory knows of all its growing tables, and what is to be done with them.
#[derive(Debug)]
pub(in crate::storage::rocksdb) struct Growing {
    pub(super) database: Arc<Database>,
    pub(super) families: Arc<Families>,
    page_cache: PageCache,
    /// The folder of their files.
    folder: PathBuf,
    serial: AtomicU64,
    count: AtomicUsize,
    bytes: AtomicU64,
    /// Tables that are RocksDB's now.
    handed_over: AtomicU64,
    begun: AtomicBool,
    /// Another thread than the writer's found something that only that one does.
    wants_writer: AtomicBool,
}

impl Growing {
    /// `serial`: the first number that no file in `folder` has.
    pub(super) fn new(database: Arc<Database>, families: Arc<Families>, folder: PathBuf, serial: u64) -> Self {
        Self {
            database,
            families,
            page_cache: PageCache::default(),
            folder,
            serial: AtomicU64::new(serial),
            count: AtomicUsize::new(0),
            bytes: AtomicU64::new(0),
            handed_over: AtomicU64::new(0),
            begun: AtomicBool::new(false),
            wants_writer: AtomicBool::new(false),
        }
    }

    /// How many tables there are in all families.
    pub(in crate::storage::rocksdb) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Bytes in all of them.
    pub(in crate::storage::rocksdb) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn take_back_bytes(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Has the writer's thread write the next group.
    pub(super) fn want_writer(&self) {
        self.wants_writer.store(true, Ordering::Relaxed);
    }

    pub(in crate::storage::rocksdb) fn wants_writer(&self) -> bool {
        self.wants_writer.load(Ordering::Relaxed)
    }

    pub(in crate::storage::rocksdb) fn writer_came(&self) {
        self.wants_writer.store(false, Ordering::Relaxed);
    }

    /// Whether nobody has asked this before.
    pub(super) fn begins_first(&self) -> bool {
        !self.begun.swap(true, Ordering::Relaxed)
    }

    /// Where the next table goes.
    fn next_path(&self, header: &Header) -> PathBuf {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        self.folder.join(file_name(header.family, serial))
    }

    /// Counts a table that was pushed to its family's.
    pub(super) fn added(&self, table: &GrowingTable) {
        table.count_in(self.database.open_tables());
        self.count.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(table.size_bytes(), Ordering::Relaxed);
    }

    fn removed(&self, table: &GrowingTable) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(table.size_bytes(), Ordering::Relaxed);
    }

    /// Has the sealed tables of a family handed over soon.
    pub(super) fn ingest_soon(&self, family: Family) {
        self.database.table_jobs().add(TableJob::Ingest(family));
    }

    /// Has what lies below a family's first table written to a file of its own. Later it would share one with what
    /// follows the tables, and that file would span them all: RocksDB would write them all anew.
    pub(super) fn flush_soon(&self, family: Family) {
        self.database.table_jobs().add(TableJob::Flush(family));
    }

    /// Has most of a family's growing table brought to the disk.
    pub(super) fn pre_sync_soon(&self, family: Family) {
        self.database.table_jobs().add(TableJob::PreSync(family));
    }

    /// The cache of what was written last.
    pub(in crate::storage::rocksdb) fn page_cache(&self) -> &PageCache {
        &self.page_cache
    }

    /// Body of the page cache's thread.
    pub(in crate::storage::rocksdb) fn run_page_cache(&self) {
        self.page_cache.run(self.database.options(), self.database.open_tables());
    }

    /// Ends the threads after the table at hand; the next start finds the others.
    pub(in crate::storage::rocksdb) fn close(&self) {
        self.database.table_jobs().close();
        self.page_cache.close();
    }
}

/// After so many tables the background looks whether there are too many files.
const LOOK_AFTER_TABLES: u64 = 64;

/// Name of a table's file.
fn file_name(family: u32, serial: u64) -> String {
    format!("{family}-{serial}.sst")
}

/// The family and the serial in a name.
pub(super) fn parse_file_name(name: &Path) -> Option<(u32, u64)> {
    let (family, serial) = name.to_str()?.strip_suffix(".sst")?.split_once('-')?;
    Some((family.parse().ok()?, serial.parse().ok()?))
}

/// What is done with tables.
impl Growing {
    /// Body of the thread that hands them over.
    pub(in crate::storage::rocksdb) fn run(&self) {
        let jobs = self.database.table_jobs();
        while let Some(taken) = jobs.take() {
            for taken in taken {
                if jobs.is_closing() {
                    return;
                }
                let outcome = self.database.writable().and_then(|()| match taken.job {
                    TableJob::PreSync(family) => self.pre_sync(family),
                    TableJob::Flush(family) => self.flush_family(family),
                    TableJob::Ingest(family) => self.ingest_sealed(family),
                });
                self.database.settle_job(jobs, taken, outcome);
            }
        }
    }

    /// Makes an empty table, and the folder of all if this is the first.
    pub(in crate::storage::rocksdb) fn begin_table(&self, header: &Header) -> Result<GrowingTable, StorageError> {
        let (database, folder) = (&*self.database, &self.folder);
        let made = database.file(Operation::BeginTable, folder, || match fs::create_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            made => made.map(|()| true),
        })?;
        if made {
            database.file(Operation::Sync, database.dir(), || sync_names(database.dir()))?;
        }
        let path = self.next_path(header);
        database.file(Operation::BeginTable, &path, || GrowingTable::create(path.clone(), header))
    }

    fn pre_sync(&self, family: Family) -> Result<(), StorageError> {
        let tables = self.families.state(family).tables().list();
        let Some(table) = tables.last().filter(|table| !table.is_sealed()) else { return Ok(()) };
        self.database.file(Operation::Sync, table.path(), || table.pre_sync())?;
        // Its name, too.
        self.sync_folder()
    }

    pub(super) fn flush_family(&self, family: Family) -> Result<(), StorageError> {
        let Some(cf) = self.database.try_cf(family) else { return Ok(()) };
        let entries = |name| self.database.db().property(cf.clone(), name).unwrap_or(0);
        if entries("rocksdb.num-entries-active-mem-table") + entries("rocksdb.num-entries-imm-mem-tables") == 0 {
            return Ok(());
        }
        self.database.rocks(Operation::Flush, |db| db.flush(std::slice::from_ref(&cf), true))
    }

    /// Hands over the family's first tables, up to one that grows.
    pub(in crate::storage::rocksdb) fn ingest_sealed(&self, family: Family) -> Result<(), StorageError> {
        let state = self.families.state(family);
        let _moving = state.tables().lock_moves();
        if state.start() == Offset::MAX {
            // Deleted; they are removed.
            return Ok(());
        }
        // Behind the last block of a table there may be what a write left that failed.
        self.database.writable()?;
        for table in state.tables().list().iter() {
            if !table.is_sealed() {
                break;
            }
            // The writer may have dropped it meanwhile.
            if state.tables().is_listed(table) {
                self.ingest(family, table)?;
            }
        }
        Ok(())
    }

    fn ingest(&self, family: Family, table: &Arc<GrowingTable>) -> Result<(), StorageError> {
        let state = self.families.state(family);
        if let Some((first, _)) = table.bounds() {
            self.database.file(Operation::FinishTable, table.path(), || table.finish())?;
            self.database.file(Operation::Sync, table.path(), || table.sync_all())?;
            self.database.rocks(Operation::IngestTable, |db| db.ingest(self.database.cf(family), table.path()))?;
            // Once its keys may be deleted, it must not come back after a loss of power.
            self.sync_folder()?;
            table.note_synced();
            if first < state.start() {
                self.database.jobs().add(BackgroundJob::DropFiles(family));
            }
            self.database.note_manifest();
            self.page_cache.take_over(table);
            if self.handed_over.fetch_add(1, Ordering::Relaxed).is_multiple_of(LOOK_AFTER_TABLES) {
                self.database.jobs().add(BackgroundJob::CountFiles);
            }
        } else {
            self.unlink(table.path())?;
        }
        // If the writer has dropped it meanwhile, it is counted until its file is looked for.
        if state.tables().hand_over(table, state.start()) {
            self.removed(table);
        }
        Ok(())
    }

    /// Whether handing over lags far behind what is written.
    pub(in crate::storage::rocksdb) fn tables_lag(&self) -> bool {
        self.bytes() > 2 * self.database.options().tables_bytes_max
    }

    pub(in crate::storage::rocksdb) fn sync_folder(&self) -> Result<(), StorageError> {
        self.database.file(Operation::Sync, &self.folder, || sync_names(&self.folder))
    }

    fn unlink(&self, path: &Path) -> Result<(), StorageError> {
        self.database.file(Operation::RemoveTable, path, || match fs::remove_file(path) {
            // RocksDB has it, and drops it like any other.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome,
        })
    }

    /// Hands over all tables of a family now. Under the writer lock, before what they hold is changed.
    pub(in crate::storage::rocksdb) fn ingest_all(&self, family: Family) -> Result<(), StorageError> {
        let state = self.families.state(family);
        state.tables().list().iter().for_each(|table| table.seal());
        self.ingest_sealed(family)?;
        if state.tables().has_dropped() {
            // They must not go before what says so is on the disk.
            self.database.sync_log()?;
            self.remove_dropped(family, Offset::MAX)?;
        }
        Ok(())
    }

    /// Drops the tables below the log's start. Under the writer lock.
    pub(in crate::storage::rocksdb) fn drop_tables_below(&self, family: Family, start: Offset) {
        let state = self.families.state(family);
        let tables = state.tables();
        for table in tables.list().iter().filter(|table| table.last().is_some_and(|last| last < start)) {
            tables.drop_table(table);
        }
    }

    /// Removes the files of what was dropped and lies below `start`, which must be on the disk as the log's.
    pub(in crate::storage::rocksdb) fn remove_dropped(
        &self,
        family: Family,
        start: Offset,
    ) -> Result<(), StorageError> {
        let state = self.families.state(family);
        let _moving = state.tables().lock_moves();
        let mut below = state.tables().take_dropped(start);
        if below.is_empty() {
            return Ok(());
        }
        while let Some(table) = below.last() {
            if let Err(error) = self.unlink(table.path()) {
                state.tables().put_back_dropped(below);
                return Err(error);
            }
            self.removed(table);
            below.pop();
        }
        // They must not come back after a loss of power once the log begins anew, or the family is another's.
        self.sync_folder()
    }

    /// Removes all tables of a deleted partition.
    pub(in crate::storage::rocksdb) fn remove_tables(&self, family: Family) -> Result<(), StorageError> {
        let state = self.families.state(family);
        let tables = state.tables();
        tables.list().iter().for_each(|table| tables.drop_table(table));
        tables.forget_all_handed_over();
        self.remove_dropped(family, Offset::MAX)?;
        self.remove_damaged(family)
    }

    /// Removes what was refused for damage, and then the marker that says so.
    fn remove_damaged(&self, family: Family) -> Result<(), StorageError> {
        let state = self.families.state(family);
        let mut refused = state.tables().damaged_files();
        if refused.is_empty() {
            return Ok(());
        }
        while let Some(path) = refused.last() {
            self.unlink(path)?;
            refused.pop();
        }
        // The next partition that has the family is not damaged.
        self.sync_folder()
    }

    /// Notes on the disk that these tables of a family, by their serials, are refused. `owner`: its partition.
    pub(super) fn note_damage(
        &self,
        family: Family,
        owner: (TopicId, PartitionIndex),
        tables: &[u64],
        why: &str,
    ) -> Result<(), StorageError> {
        let path = self.marker_path(family);
        self.database.file(Operation::NoteDamage, &path, || marker::write(&path, owner, tables, why))?;
        self.sync_folder()
    }

    pub(super) fn marker_path(&self, family: Family) -> PathBuf {
        marker::path(&self.folder, family.0)
    }

    /// The tables that may not be on the disk as a whole.
    pub(in crate::storage::rocksdb) fn unsynced_tables(&self) -> Vec<Arc<GrowingTable>> {
        let numbers = self.families.numbers();
        let listed = numbers.flat_map(|number| Vec::clone(&self.families.state(Family(number)).tables().list()));
        listed.filter(|table| !table.is_synced()).collect()
    }
}
