//! The real log directory: one RocksDB database, a column family per partition, and tables that grow beside it.
//!
//! `open` checks and opens · `writer` is the group commit · `growing/` are the tables to which it writes large
//! batches · `families` gives families to partitions and wipes them · `read` · `care` does the background jobs, of
//! which `merge` is the longest, and `jobs` looks at their outcomes · `budget` is the memory for what is not in
//! files · `space` keeps the disk's reserve · `failure` says what an error means · `guard` notices a database that
//! lost its end · `directory` and [`super::keys`] say how bytes lie · `options` says how RocksDB is set up · `raw`
//! alone is `unsafe`.
//!
//! Threads of a directory: the writer, the one for chores, the watch, RocksDB's own for flushing and compacting,
//! and once there are growing tables the one that hands them over and the one for the page cache.

mod budget;
mod care;
#[cfg(test)]
mod changing_tests;
mod directory;
mod failure;
#[cfg(test)]
mod failure_tests;
mod families;
mod growing;
#[cfg(test)]
mod growing_tests;
mod guard;
mod jobs;
mod merge;
mod open;
mod open_error;
mod options;
#[cfg(test)]
mod power_tests;
mod raw;
mod read;
#[cfg(test)]
mod release_tests;
mod space;
#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;
mod watch;
mod writer;

use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::Mutex;
use rocksdb::Options;
use tracing::{debug, info, warn};

use self::budget::Budget;
use self::care::Chore;
use self::failure::{NoSpace, Operation, Stop, Told};
use self::families::Families;
use self::growing::ingest::Growing;
use self::growing::page_cache::PageCache;
use self::growing::table::GrowingTable;
use self::jobs::Jobs;
pub(crate) use self::open_error::OpenError;
pub(crate) use self::options::{DirectoryOptions, RESERVE_BY_DISK};
#[cfg(test)]
use self::raw::Batch;
use self::raw::{Cf, Db, ReadOptions, RocksError};
use self::space::Space;
use self::watch::Watch;
use self::writer::Queue;
use super::{Done, Family, LogDir, PartitionId, StorageError, VisitBatch, VisitPair, WriteSet, refuse_closed};
use crate::task;
use crate::types::Offset;

/// A log directory on disk.
#[derive(Debug)]
pub(crate) struct RocksDirectory {
    dir: PathBuf,
    queue: Arc<Queue>,
    /// `None` once closed; the database closes with the last reader that still holds it.
    shared: ArcSwapOption<Shared>,
    /// Taken by [`LogDir::close`]: the writer's, then the one for chores and the watch.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What callers, the writer and the chores share.
pub(super) struct Shared {
    dir: PathBuf,
    db: Db,
    families: Families,
    chores: Jobs<Chore>,
    space: Space,
    options: DirectoryOptions,
    budget: Budget,
    growing: Growing,
    page_cache: PageCache,
    /// Write-ahead logs of an earlier process that may not be on the disk. RocksDB syncs only its own.
    left_logs: Mutex<Vec<PathBuf>>,
    watch: Watch,
    /// Syncs of RocksDB's log so far.
    syncs: AtomicU64,
    family_options: Options,
    scan_options: ReadOptions,
    point_options: ReadOptions,
    no_space: NoSpace,
    /// Why nothing is written any more (I-6).
    stopped: Stop,
    _lock: File,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} with {} families, stopped: {:?}", self.dir.display(), self.families.count(), self.stopped.get())
    }
}

impl RocksDirectory {
    /// Opens the log directory at `dir`, or makes one.
    pub(crate) fn open(dir: &Path, options: DirectoryOptions) -> Result<Arc<Self>, OpenError> {
        Self::open_with_log(dir, options, |_| ())
    }

    fn open_with_log(
        dir: &Path,
        options: DirectoryOptions,
        log: impl Fn(&str) + Send + Sync + 'static,
    ) -> Result<Arc<Self>, OpenError> {
        let opened = open::open(dir, options, log)?;
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            db: opened.db,
            families: opened.families,
            chores: Jobs::default(),
            space: Space::new(dir, opened.options.disk_reserve_bytes),
            options: opened.options,
            budget: opened.budget,
            growing: opened.growing,
            page_cache: PageCache::default(),
            left_logs: Mutex::new(opened.left_logs),
            watch: Watch::new(),
            syncs: AtomicU64::new(0),
            family_options: opened.family_options,
            scan_options: ReadOptions::new(false, None),
            point_options: ReadOptions::new(true, None),
            no_space: NoSpace::default(),
            stopped: Stop::default(),
            _lock: opened.lock,
        });
        shared.note_manifest();
        shared.chores.add(Chore::FillPool);
        shared.chores.add(Chore::ShrinkPool);
        if shared.growing.count() > 0 {
            shared.chores.add(Chore::BeginTables);
        }
        for number in opened.wiping {
            shared.chores.add(Chore::Wipe(number));
        }
        let queue = Arc::new(Queue::default());
        let io_error = |error: std::io::Error| OpenError::Io { dir: dir.into(), reason: error.to_string().into() };
        let (for_writer, its_queue, for_care) = (Arc::clone(&shared), Arc::clone(&queue), Arc::clone(&shared));
        let for_watch = Arc::clone(&shared);
        let threads = vec![
            task::thread("storage-writer", move || writer::run(for_writer, its_queue)).map_err(io_error)?,
            task::thread("storage-care", move || care::run(for_care)).map_err(io_error)?,
            task::thread("storage-watch", move || for_watch.watch.run()).map_err(io_error)?,
        ];
        Ok(Arc::new(Self {
            dir: dir.to_owned(),
            queue,
            shared: ArcSwapOption::new(Some(shared)),
            threads: Mutex::new(threads),
        }))
    }

    fn closed(&self) -> StorageError {
        StorageError::Stopped { dir: self.dir.clone(), reason: "closed".into() }
    }

    fn with<T>(&self, call: impl FnOnce(&Shared) -> Result<T, StorageError>) -> Result<T, StorageError> {
        match &*self.shared.load() {
            Some(shared) => call(shared),
            None => Err(self.closed()),
        }
    }
}

impl Shared {
    /// A family that a partition has, or that is being wiped.
    fn cf(&self, family: Family) -> Cf<'_> {
        self.try_cf(family).expect("only a free family is dropped")
    }

    /// `None`: the partition was deleted, and its family dropped.
    fn try_cf(&self, family: Family) -> Option<Cf<'_>> {
        self.db.cf(family.0)
    }

    fn default_cf(&self) -> Cf<'_> {
        self.db.fixed(0)
    }

    fn side_cf(&self) -> Cf<'_> {
        self.db.fixed(1)
    }

    fn tree_cf(&self) -> Cf<'_> {
        self.db.fixed(2)
    }

    /// Fails once the directory has stopped (I-6).
    fn writable(&self) -> Result<(), StorageError> {
        match self.stopped.get() {
            None => Ok(()),
            Some(reason) => Err(StorageError::Stopped { dir: self.dir.clone(), reason: Arc::clone(reason) }),
        }
    }

    fn read_failed(&self, error: &RocksError) -> StorageError {
        StorageError::Read { dir: self.dir.clone(), reason: error.to_string().into() }
    }

    /// Brings everything written to RocksDB's log so far to the disk, by this process or one before.
    fn sync_log(&self) -> Result<(), StorageError> {
        self.sync_left_logs()?;
        self.rocks(Operation::Sync, |db| db.flush_wal(true))?;
        self.syncs.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn sync_left_logs(&self) -> Result<(), StorageError> {
        // Held until all are synced: who finds none left relies on that.
        let mut left = self.left_logs.lock();
        for path in left.drain(..) {
            self.file(Operation::Sync, &path, || match File::open(&path).and_then(|log| log.sync_data()) {
                // What it held is in files.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
                outcome => outcome,
            })?;
        }
        Ok(())
    }

    /// Whether batches are refused now. Asks the file system again while they are.
    fn is_full(&self) -> bool {
        if self.no_space.is_recent() {
            return true;
        }
        let room = self.space.has_room(self.budget.used_bytes() as u64);
        if self.space.set_full(!room) {
            self.space_changed(room);
        }
        !room
    }

    fn space_changed(&self, room: bool) {
        if room {
            info!(dir = %self.dir.display(), "log directory has space again and takes batches");
            self.chores.hurry();
            self.growing.hurry();
        } else {
            warn!(dir = %self.dir.display(), "log directory has reached its reserve of disk space and refuses batches");
            // What is in files need not be in the write-ahead log.
            self.chores.add(Chore::FlushAll);
        }
    }

    /// After families or files were added. A note that fails is one that a later start does without.
    fn note_manifest(&self) {
        if let Err(error) = guard::note(&self.dir) {
            debug!(dir = %self.dir.display(), %error, "length of the MANIFEST not noted");
        }
    }

    /// Flushes what the next start would replay, unless that takes long.
    fn flush_before_close(&self) {
        let cfs = self.unflushed();
        let families_ms = cfs.len() * FAMILY_FLUSH_MS;
        let bytes_ms = self.budget.used_bytes() / FLUSH_BYTES_PER_MS;
        let tables_ms = usize::try_from(self.growing.bytes()).unwrap_or(usize::MAX) / FLUSH_BYTES_PER_MS;
        if families_ms + bytes_ms + tables_ms <= FLUSH_AT_CLOSE_MS_MAX {
            self.sync_tables();
        }
        let outcome = if families_ms + bytes_ms > FLUSH_AT_CLOSE_MS_MAX {
            self.db.flush_wal(true)
        } else {
            self.db.flush(&cfs, true)
        };
        self.note_manifest();
        if let Err(error) = outcome {
            warn!(dir = %self.dir.display(), %error, "log directory closes without a flush; its log will be replayed");
        }
    }

    /// The growing tables that may not be on the disk as a whole.
    fn unsynced_tables(&self) -> Vec<Arc<GrowingTable>> {
        let numbers = self.families.numbers();
        let listed = numbers.flat_map(|number| Vec::clone(&self.families.state(Family(number)).tables.list()));
        listed.filter(|table| !table.is_synced()).collect()
    }

    /// Growing tables stay as they are and are found at the next start.
    fn sync_tables(&self) {
        for table in self.unsynced_tables() {
            if let Err(error) = table.sync() {
                warn!(path = %table.path().display(), %error, "growing table not synced at the end");
            }
        }
    }
}

/// What flushing one family takes at least, and how fast bytes go to disk; rounded up from measurements.
const FAMILY_FLUSH_MS: usize = 3;
const FLUSH_BYTES_PER_MS: usize = 200 << 10;
/// A stop must end within a second, and this is not all there is to it.
const FLUSH_AT_CLOSE_MS_MAX: usize = 500;

impl LogDir for RocksDirectory {
    fn path(&self) -> PathBuf {
        self.dir.clone()
    }

    fn partitions(&self) -> Vec<(PartitionId, Family)> {
        self.shared.load().as_ref().map_or_else(Vec::new, |shared| shared.families.partitions())
    }

    fn create(&self, wanted: &[PartitionId]) -> Result<Vec<Family>, StorageError> {
        self.with(|shared| shared.create(wanted))
    }

    fn delete(&self, partitions: &[PartitionId]) -> Result<(), StorageError> {
        self.with(|shared| shared.delete(partitions))
    }

    fn commit(&self, set: WriteSet, done: Done) {
        self.queue(set, done);
        self.queue.wake();
    }

    fn queue(&self, set: WriteSet, done: Done) {
        if let Err(done) = self.queue.push(set, done) {
            refuse_closed(self.dir.clone(), done);
        }
    }

    fn write_queued(&self) {
        match &*self.shared.load() {
            Some(shared) => writer::write_queued(shared, &self.queue),
            None => self.queue.wake(),
        }
    }

    fn when_failed(&self, told: Told) {
        if let Some(shared) = &*self.shared.load() {
            shared.stopped.tell(told);
        }
    }

    fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    fn syncs(&self) -> u64 {
        self.shared.load().as_ref().map_or(0, |shared| shared.syncs.load(Ordering::Relaxed))
    }

    fn is_full(&self) -> bool {
        self.shared.load().as_ref().is_some_and(|shared| shared.is_full())
    }

    fn scan(
        &self,
        family: Family,
        from: Offset,
        wanted: usize,
        visit: &mut VisitBatch<'_>,
    ) -> Result<(), StorageError> {
        self.with(|shared| shared.scan(family, from, wanted, visit))
    }

    fn last_batch(&self, family: Family) -> Result<Option<(Offset, Bytes)>, StorageError> {
        self.with(|shared| shared.last_batch(family))
    }

    fn side(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.with(|shared| shared.side(key))
    }

    fn scan_sides(&self, keys: Range<Bytes>, visit: &mut VisitPair<'_>) -> Result<(), StorageError> {
        self.with(|shared| shared.scan_sides(keys, visit))
    }

    fn scan_tree(&self, visit: &mut VisitPair<'_>) -> Result<(), StorageError> {
        self.with(|shared| shared.scan_tree(visit))
    }

    fn reclaim(&self, family: Family, _last_offsets: Range<Offset>) {
        // Moving a log's start adds this chore already; asking again helps once more files have moved down.
        if let Some(shared) = &*self.shared.load() {
            shared.chores.add(Chore::DropFiles(family));
        }
    }

    fn close(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        self.queue.close();
        let mut threads = threads.into_iter();
        join(threads.next());
        self.queue.wait_for_pen();
        let Some(shared) = self.shared.swap(None) else { return };
        shared.chores.close();
        shared.growing.close();
        shared.page_cache.close();
        shared.watch.close();
        shared.db.stop_compactions();
        threads.for_each(|thread| join(Some(thread)));
        if shared.stopped.get().is_none() {
            shared.flush_before_close();
        }
    }
}

/// Waits for a thread, unless it is the one that asks.
fn join(thread: Option<JoinHandle<()>>) {
    if let Some(thread) = thread.filter(|thread| thread.thread().id() != std::thread::current().id()) {
        thread.join().expect("a panic would have ended the process");
    }
}

impl Drop for RocksDirectory {
    fn drop(&mut self) {
        self.close();
    }
}
