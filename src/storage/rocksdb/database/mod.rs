//! Floor 0: the open database, and what everything that reads or writes it goes by.
//!
//! `raw` speaks to RocksDB, and alone is `unsafe` · `options` says how RocksDB is set up · `open` checks and opens, and
//! `open_error` says why it does not · `failure` says what an error means · `space` keeps the disk's reserve · `budget`
//! is the memory for what is not in files · `guard` notices a database that lost its end · `jobs` are what the threads
//! above have to do · `left_logs` are RocksDB's logs of earlier processes · `names` are those of column families.

mod boot_record;
mod budget;
mod damaged_files;
mod failure;
mod guard;
mod jobs;
mod left_logs;
mod names;
mod open;
mod open_error;
mod open_tables;
mod options;
mod raw;
mod space;

use std::fmt::{Debug, Display};
use std::fs::File;
use std::hash::Hash;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use rocksdb::Options;
use tracing::{debug, info, warn};

pub(crate) use self::boot_record::BootRecord;
use self::budget::Budget;
use self::damaged_files::DamagedFiles;
use self::failure::Failures;
pub(super) use self::failure::{Operation, Told};
pub(super) use self::jobs::{BackgroundJob, Jobs, TableJob, Taken};
pub(super) use self::left_logs::forget_pages;
use self::names::{DEFAULT, SIDE, TREE};
pub(super) use self::names::{cannot_sync, family_name, sync_names};
#[cfg(test)]
pub(super) use self::open::FORMAT_KEY;
pub(super) use self::open::open;
pub(crate) use self::open_error::OpenError;
pub(super) use self::open_tables::OpenTables;
use self::options::WAL_PER_BUDGET;
pub(crate) use self::options::{CachedBytes, DirectoryOptions, RESERVE_BY_DISK};
pub(super) use self::raw::{
    Batch, Cf, Db, FileBounds, Iter, ReadOptions, RocksError, SortedFile, is_cached, write_out,
};
use self::space::Space;
use crate::storage::{DiskBytes, Family, StorageError};

/// An open database, its disk and its memory, and the lists of what is to be done with it.
pub(super) struct Database {
    dir: PathBuf,
    db: Db,
    options: DirectoryOptions,
    /// Of partitions' families.
    family_options: Options,
    scan_options: ReadOptions,
    point_options: ReadOptions,
    budget: Budget,
    space: Space,
    failures: Failures,
    jobs: Jobs<BackgroundJob>,
    table_jobs: Jobs<TableJob>,
    /// Write-ahead logs of an earlier process that may not be on the disk. RocksDB syncs only its own.
    left_logs: Mutex<Vec<PathBuf>>,
    /// Syncs of RocksDB's log so far.
    syncs: AtomicU64,
    /// Growing tables that anybody holds, and so files that are open.
    open_tables: Arc<OpenTables>,
    damaged_files: DamagedFiles,
    _lock: File,
}

/// What opening yields.
struct Opened {
    db: Db,
    /// As they fit the disk.
    options: DirectoryOptions,
    family_options: Options,
    budget: Budget,
    left_logs: Vec<PathBuf>,
    damaged_files: DamagedFiles,
}

impl Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, stopped: {:?}", self.dir.display(), self.failures.stopped())
    }
}

impl Database {
    /// `lock` holds as long as the file is open.
    fn new(dir: &Path, opened: Opened, lock: File) -> Self {
        Self {
            dir: dir.to_owned(),
            db: opened.db,
            family_options: opened.family_options,
            scan_options: ReadOptions::new(false, None),
            point_options: ReadOptions::new(true, None),
            budget: opened.budget,
            space: Space::new(dir, opened.options.disk_reserve_bytes),
            failures: Failures::new(
                dir,
                opened.options.record.clone(),
                #[cfg(test)]
                Arc::clone(&opened.options.faults),
            ),
            open_tables: Arc::new(OpenTables::new(opened.options.lent_tables_max)),
            options: opened.options,
            jobs: Jobs::default(),
            table_jobs: Jobs::default(),
            left_logs: Mutex::new(opened.left_logs),
            syncs: AtomicU64::new(0),
            damaged_files: opened.damaged_files,
            _lock: lock,
        }
    }

    /// The log directory.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// For reads, and what does not write. Whatever writes goes through [`rocks`](Self::rocks).
    pub(super) fn db(&self) -> &Db {
        &self.db
    }

    pub(super) fn options(&self) -> &DirectoryOptions {
        &self.options
    }

    /// Of partitions' families.
    pub(super) fn family_options(&self) -> &Options {
        &self.family_options
    }

    /// For scans, which leave the block cache alone.
    pub(super) fn scan_options(&self) -> &ReadOptions {
        &self.scan_options
    }

    /// For single values.
    pub(super) fn point_options(&self) -> &ReadOptions {
        &self.point_options
    }

    /// A family that a partition has, or that is being wiped.
    pub(super) fn cf(&self, family: Family) -> Cf<'_> {
        self.try_cf(family).expect("only a free family is dropped")
    }

    /// `None`: the partition was deleted, and its family dropped.
    pub(super) fn try_cf(&self, family: Family) -> Option<Cf<'_>> {
        self.db.cf(family.0)
    }

    /// The directory of families.
    pub(super) fn default_cf(&self) -> Cf<'_> {
        self.db.fixed(DEFAULT)
    }

    pub(super) fn side_cf(&self) -> Cf<'_> {
        self.db.fixed(SIDE)
    }

    pub(super) fn tree_cf(&self) -> Cf<'_> {
        self.db.fixed(TREE)
    }

    /// What is to be done in the background.
    pub(super) fn jobs(&self) -> &Jobs<BackgroundJob> {
        &self.jobs
    }

    /// The growing tables that anybody holds.
    pub(super) fn open_tables(&self) -> &Arc<OpenTables> {
        &self.open_tables
    }

    /// What is to be done with growing tables.
    pub(super) fn table_jobs(&self) -> &Jobs<TableJob> {
        &self.table_jobs
    }

    /// Looks at the outcome of a job from one of the lists.
    pub(super) fn settle_job<T: Copy + Eq + Hash + Debug>(
        &self,
        jobs: &Jobs<T>,
        taken: Taken<T>,
        outcome: Result<(), impl Display>,
    ) {
        jobs.settle_job(taken, outcome, &self.dir, self.stopped().is_some());
    }
}

/// Writes, and what their errors mean.
impl Database {
    /// Does something with RocksDB that writes, and says what its error means.
    pub(super) fn rocks<T>(
        &self,
        operation: Operation,
        call: impl FnOnce(&Db) -> Result<T, RocksError>,
    ) -> Result<T, StorageError> {
        self.failures.rocks(operation, || call(&self.db))
    }

    /// Does something with a growing table's file, or where they lie, and says what its error means.
    pub(super) fn file<T>(
        &self,
        operation: Operation,
        path: &Path,
        call: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, StorageError> {
        self.failures.file(operation, path, call)
    }

    /// A write besides the writer's own.
    pub(super) fn write(&self, batch: &mut Batch) -> Result<(), StorageError> {
        self.write_log(batch, false)
    }

    /// A write to RocksDB's log. The first one waits until what processes before left there is on the disk: else a loss
    /// of power could take the end of that and leave this, and RocksDB would read both as one.
    pub(super) fn write_log(&self, batch: &mut Batch, sync: bool) -> Result<(), StorageError> {
        self.sync_left_logs()?;
        self.rocks(Operation::WriteLog, |db| db.write(batch, sync))?;
        if self.failures.note_space() {
            self.hurry();
        }
        self.syncs.fetch_add(u64::from(sync), Ordering::Relaxed);
        Ok(())
    }

    /// Brings everything written to RocksDB's log so far to the disk, by this process or one before.
    pub(super) fn sync_log(&self) -> Result<(), StorageError> {
        self.sync_left_logs()?;
        self.rocks(Operation::Sync, |db| db.sync_log())?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Whether what processes before left may not be on the disk. Does not wait while it is brought there.
    pub(super) fn has_left_logs(&self) -> bool {
        self.left_logs.try_lock().is_none_or(|left| !left.is_empty())
    }

    /// As [`sync_log`](Self::sync_log), of what processes before left.
    pub(super) fn sync_left_logs(&self) -> Result<(), StorageError> {
        // Held until all are synced: whoever finds none left relies on that.
        let mut left = self.left_logs.lock();
        if left.is_empty() {
            return Ok(());
        }
        for path in left.iter() {
            self.file(Operation::Sync, path, || left_logs::sync_one(path))?;
        }
        // RocksDB syncs the names when it makes a log, but the process may have died before.
        let folder = self.dir.join("db");
        self.file(Operation::SyncLeftNames, &folder, || sync_names(&folder))?;
        left.clear();
        Ok(())
    }

    /// Syncs of RocksDB's log so far.
    pub(super) fn syncs(&self) -> u64 {
        self.syncs.load(Ordering::Relaxed)
    }

    /// Why nothing is written any more, if so (I-6).
    pub(super) fn stopped(&self) -> Option<&Arc<str>> {
        self.failures.stopped()
    }

    /// Has it told when the directory stops, at once if it has.
    pub(super) fn when_stopped(&self, told: Told) {
        self.failures.when_stopped(told);
    }

    /// The file system that it lies on, if that tells.
    pub(super) fn disk(&self) -> Option<DiskBytes> {
        Space::disk(&self.dir)
    }

    /// Fails once the directory has stopped (I-6).
    pub(super) fn writable(&self) -> Result<(), StorageError> {
        self.failures.writable()
    }

    /// Stops the directory because of this error, the first time; answers with the reason that holds.
    pub(super) fn stop(&self, error: &RocksError) -> StorageError {
        self.failures.stop(error)
    }

    /// Whether nothing of this family may be compacted, because a file of it is damaged.
    pub(super) fn stays_as_it_is(&self, family: Family) -> bool {
        self.damaged_files.has(family.0)
    }

    /// Notes whose file it is, if the directory has stopped for such a reason. Answers with the family, and whether it
    /// could be noted.
    pub(super) fn note_damaged_file(&self, reason: &str) -> Option<(Family, io::Result<()>)> {
        let name = damaged_files::file_named(reason, &self.dir.join("db"))?;
        let is_of = |number: &u32| {
            let files = self.db.cf(*number).map(|cf| self.db.file_bounds(cf)).unwrap_or_default();
            files.iter().any(|file| file.name.to_str().is_ok_and(|file| file.trim_start_matches('/') == name))
        };
        let number = self.db.numbers().into_iter().find(is_of)?;
        let unread = (!damaged_files::is_corrupt(reason)).then_some(name);
        Some((Family(number), self.damaged_files.note(number, unread)))
    }

    /// The family is gone, and what is noted of it. A note that stays is removed by a later start. Answers whether it
    /// is gone.
    pub(super) fn forget_damaged_file(&self, family: Family) -> bool {
        let outcome = self.damaged_files.forget(family.0);
        if let Err(error) = &outcome {
            warn!(dir = %self.dir.display(), family = family.0, %error, "a note of a damaged file is not removed");
        }
        outcome.is_ok()
    }

    pub(super) fn read_failed(&self, error: &dyn Display) -> StorageError {
        self.failures.read_failed(error)
    }

    /// After families or files were added. A note that fails is one that a later start does without.
    pub(super) fn note_manifest(&self) {
        if let Err(error) = guard::note(&self.dir) {
            debug!(dir = %self.dir.display(), %error, "length of the MANIFEST not noted");
        }
    }
}

/// Space on the disk.
impl Database {
    pub(super) fn full(&self) -> StorageError {
        self.failures.full()
    }

    /// Whether there was no space a moment ago, so that it is too soon to try again.
    pub(super) fn is_out_of_space(&self) -> bool {
        self.failures.is_out_of_space()
    }

    /// Whether batches are refused now. Asks the file system again while they are.
    pub(super) fn is_full(&self) -> bool {
        if self.is_out_of_space() {
            return true;
        }
        let room = self.space.has_room(self.budget.used_bytes() as u64);
        self.note_room(room);
        !room
    }

    /// Whether a group of so many bytes with batches may be written.
    pub(super) fn admits(&self, bytes: usize) -> bool {
        let room = self.space.admits(bytes as u64, self.budget.used_bytes() as u64);
        self.note_room(room);
        room
    }

    /// Whether a file of so many bytes may be written beside what the memtables will take.
    pub(super) fn has_room_for(&self, bytes: u64) -> bool {
        self.space.has_room(self.budget.used_bytes() as u64 + bytes)
    }

    fn note_room(&self, room: bool) {
        if !self.space.set_full(!room) {
            return;
        }
        if room {
            info!(dir = %self.dir.display(), "log directory has space again and takes batches");
            self.hurry();
        } else {
            warn!(dir = %self.dir.display(), "log directory has reached its reserve of disk space and refuses batches");
            // What is in files need not be in the write-ahead log.
            self.jobs.add(BackgroundJob::FlushAll);
        }
    }

    /// There is space again: what failed is tried again at once.
    fn hurry(&self) {
        self.jobs.hurry();
        self.table_jobs.hurry();
    }

    /// For tests: a reserve larger than the disk fills it. Answers with what is left above it.
    #[cfg(test)]
    pub(super) fn set_reserve(&self, reserve_bytes: u64) -> Option<u64> {
        self.space.set_reserve(reserve_bytes);
        self.space.ask()
    }
}

/// Memory for what is not in files.
impl Database {
    /// What memtables take, those being flushed included.
    pub(super) fn memtable_bytes(&self) -> usize {
        self.budget.used_bytes()
    }

    /// Whether memtables take so much that the writer must wait.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.budget.is_overdrawn()
    }

    /// Begins to flush every family if RocksDB has not begun enough. It refuses while it stalls writes; a flush that
    /// fails for good shows at the next write.
    pub(super) fn catch_up(&self) {
        if !self.budget.lags() {
            return;
        }
        if let Err(error) = self.db.flush(&self.unflushed(), false) {
            debug!(dir = %self.dir.display(), %error, "flush not begun");
        }
    }

    /// Families, fixed ones included, that have something in memory which is not in files.
    pub(super) fn unflushed(&self) -> Vec<Cf<'_>> {
        let holds = |cf: &Cf<'_>| {
            let value = |name| self.db.property(cf.clone(), name).unwrap_or(0);
            value("rocksdb.num-entries-active-mem-table") + value("rocksdb.num-immutable-mem-table") > 0
        };
        self.db.all_families().into_iter().filter(holds).collect()
    }

    /// Writes all memtables to files.
    pub(super) fn flush_all(&self) -> Result<(), StorageError> {
        self.sync_left_logs()?;
        self.rocks(Operation::Flush, |db| db.flush(&self.unflushed(), true))
    }

    /// Sets the budget for so many active families, and the length of the write-ahead log along with it.
    pub(super) fn set_budget(&self, active: usize) -> Result<(), StorageError> {
        let Some(wanted) = self.budget.change_for(active, &self.options) else { return Ok(()) };
        self.budget.set(wanted);
        let wal = (wanted * WAL_PER_BUDGET).to_string();
        self.rocks(Operation::Describe, |db| db.set_options(&[("max_total_wal_size", wal)]))
    }
}
