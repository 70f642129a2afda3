//! The real log directory: one RocksDB database, a column family per partition, and tables that grow beside it.
//!
//! Floors, each of which knows those below it only:
//!
//! ```text
//! 5  this file      opens and composes, starts the threads, is the LogDir
//! 4  writer/        the group commit          background/   jobs that nobody waits for, merging among them
//! 3  read           batches, wherever they lie
//! 2  growing/       the tables to which large batches are written, and how RocksDB takes them over
//! 1  families/      which partition has which family; what is known of each, its growing tables included
//! 0  database/      the open database: options, space, memory, what an error means, what is to be done
//! ```
//!
//! A growing table and the list of those that a family has (`growing/table`, `growing/family_tables`) lie below
//! `families`, what is done with them above it. How bytes lie is said in [`super::keys`], `families/records`,
//! `growing/table` and `growing/layout`.
//!
//! Threads of a directory: the writer, the one for background jobs, the watch, RocksDB's own for flushing and
//! compacting, and once there are growing tables the one that hands them over and the one for the page cache.

mod background;
#[cfg(test)]
mod changing_tests;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod damaged_key_tests;
mod database;
#[cfg(test)]
mod failure_tests;
mod families;
mod growing;
#[cfg(test)]
mod growing_tests;
#[cfg(test)]
mod layout_tests;
#[cfg(test)]
mod power_tests;
mod read;
#[cfg(test)]
mod release_tests;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use tracing::field::display;
use tracing::{error, warn};

use self::background::Background;
use self::database::{BackgroundJob, Database, Operation, Told};
pub(crate) use self::database::{BootRecord, CachedBytes, DirectoryOptions, OpenError, RESERVE_BY_DISK};
use self::families::Families;
use self::growing::ingest::Growing;
use self::growing::recover::recover;
use self::read::Reader;
use self::writer::{Queue, Writer};
use super::{
    DiskBytes, Done, Family, Located, LogDir, LogEndState, PartitionId, Span, StorageError, VisitBatch, VisitPair,
    WriteSet, refuse_closed,
};
use crate::task;
use crate::types::Offset;

/// A log directory on disk.
#[derive(Debug)]
pub(crate) struct RocksDirectory {
    dir: PathBuf,
    queue: Arc<Queue>,
    /// `None` once closed; the database closes with the last reader that still holds it.
    parts: RwLock<Option<Arc<Parts>>>,
    /// Taken by [`LogDir::close`]: the writer's, then those for background jobs and the watch.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// What an open directory consists of, from the ground up.
struct Parts {
    database: Arc<Database>,
    families: Arc<Families>,
    growing: Arc<Growing>,
    writer: Arc<Writer>,
}

impl std::fmt::Debug for Parts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} with {} families", self.database, self.families.count())
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
        let record = options.record.clone();
        let (database, numbers) = database::open(dir, options, log)?;
        let database = Arc::new(database);
        Self::begin(dir, &database, &numbers).inspect_err(|error| error.note_in(record.as_deref()))
    }

    /// With its database, which holds the lock.
    fn begin(dir: &Path, database: &Arc<Database>, numbers: &BTreeSet<u32>) -> Result<Arc<Self>, OpenError> {
        let families = Arc::new(Families::open(Arc::clone(database), numbers)?);
        families.note_doubts(&database.options().in_doubt);
        look_after_damaged_files(database, &families);
        let growing = Arc::new(recover(Arc::clone(database), Arc::clone(&families))?);
        database.note_manifest();
        let queue = Arc::new(Queue::default());
        let parts = || (Arc::clone(database), Arc::clone(&families), Arc::clone(&growing));
        let writer = {
            let (database, families, growing) = parts();
            Arc::new(Writer::new(database, families, growing, Arc::clone(&queue)))
        };
        let background = {
            let (database, families, growing) = parts();
            Background::new(database, families, growing)
        };
        let (writes, watches) = (Arc::clone(&writer), Arc::clone(&writer));
        let io_error = |error: std::io::Error| OpenError::io(dir, &error);
        let threads = vec![
            task::thread("storage-writer", move || writes.run()).map_err(io_error)?,
            task::thread("storage-jobs", move || background.run()).map_err(io_error)?,
            task::thread("storage-watch", move || watches.run_watch()).map_err(io_error)?,
        ];
        Ok(Arc::new(Self {
            dir: dir.to_owned(),
            queue,
            parts: RwLock::new(Some(Arc::new(Parts { database: Arc::clone(database), families, growing, writer }))),
            threads: Mutex::new(threads),
        }))
    }

    fn closed(&self) -> StorageError {
        StorageError::Stopped { dir: self.dir.clone(), reason: "closed".into() }
    }

    /// Its parts, unless it is closed.
    fn opened(&self) -> Option<Arc<Parts>> {
        self.parts.read().clone()
    }

    fn with<T>(&self, call: impl FnOnce(&Parts) -> Result<T, StorageError>) -> Result<T, StorageError> {
        match self.opened() {
            Some(parts) => call(&parts),
            None => Err(self.closed()),
        }
    }
}

/// Families with a damaged file stay as they are. If one stops the directory, it does from the next start on.
fn look_after_damaged_files(database: &Arc<Database>, families: &Families) {
    for number in families.numbers().filter(|number| database.stays_as_it_is(Family(*number))) {
        let (topic_id, partition) = families.identity(Family(number)).unzip();
        let (dir, topic_id, partition) = (database.dir().display(), topic_id.map(display), partition.map(display));
        warn!(
            %dir, family = number, topic_id, partition,
            "a file of this partition is damaged: what lies beside the damage is served, but nothing of the partition is \
             compacted, and retention frees less, until it is deleted"
        );
    }
    let weak = Arc::downgrade(database);
    database.when_stopped(Box::new(move |reason| {
        let Some(database) = weak.upgrade() else { return };
        let note = move || {
            note_damaged_file(&database, &reason);
            drop(database);
        };
        // The disk may be slow as well, and others want to know: leaders are elected elsewhere meanwhile.
        if let Err(error) = task::within("damage-note", NOTE_WAIT, note) {
            error!(%error, "no thread to note whether a damaged file stopped the directory");
        }
    }));
}

/// A directory that stops waits so long for the note of its reason before it tells others.
const NOTE_WAIT: Duration = Duration::from_secs(1);

fn note_damaged_file(database: &Database, reason: &str) {
    let dir = database.dir().display();
    match database.note_damaged_file(reason) {
        None => {}
        Some((family, Ok(()))) => {
            error!(%dir, family = family.0, "a damaged file stopped it; from the next start on it is left as it is");
        }
        Some((family, Err(error))) => {
            error!(%dir, family = family.0, %error, "that a damaged file stopped it is not noted");
        }
    }
}

impl Parts {
    fn reader(&self) -> Reader<'_> {
        Reader { database: &self.database, families: &self.families }
    }

    /// Flushes what the next start would replay, unless that takes long.
    fn flush_before_close(&self) {
        let database = &*self.database;
        // Else a loss of power now could leave files, and take the end of a log that other families need.
        if let Err(error) = database.sync_left_logs() {
            let dir = database.dir().display();
            return warn!(%dir, %error, "log directory closes without a flush; its log will be replayed");
        }
        let cfs = database.unflushed();
        let families_ms = cfs.len() * FAMILY_FLUSH_MS;
        let bytes_ms = database.memtable_bytes() / FLUSH_BYTES_PER_MS;
        let tables_ms = usize::try_from(self.growing.bytes()).unwrap_or(usize::MAX) / FLUSH_BYTES_PER_MS;
        if families_ms + bytes_ms + tables_ms <= FLUSH_AT_CLOSE_MS_MAX {
            self.sync_tables();
        }
        let outcome = if families_ms + bytes_ms > FLUSH_AT_CLOSE_MS_MAX {
            database.sync_log()
        } else {
            database.rocks(Operation::Flush, |db| db.flush(&cfs, true))
        };
        database.note_manifest();
        if let Err(error) = outcome {
            let dir = database.dir().display();
            warn!(%dir, %error, "log directory closes without a flush; its log will be replayed");
        }
    }

    /// Growing tables stay as they are and are found at the next start.
    fn sync_tables(&self) {
        for table in self.growing.unsynced_tables() {
            // It has been said, and is heeded by the next start.
            if self.database.file(Operation::Sync, table.path(), || table.sync()).is_err() {
                return;
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
        self.opened().map_or_else(Vec::new, |parts| parts.families.partitions())
    }

    fn create(&self, wanted: &[PartitionId]) -> Result<Vec<Family>, StorageError> {
        self.with(|parts| parts.families.create(wanted))
    }

    fn delete(&self, partitions: &[PartitionId]) -> Result<(), StorageError> {
        self.with(|parts| parts.families.delete(partitions))
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
        match self.opened() {
            Some(parts) => parts.writer.write_queued(),
            None => self.queue.wake(),
        }
    }

    fn when_failed(&self, told: Told) {
        if let Some(parts) = self.opened() {
            parts.database.when_stopped(told);
        }
    }

    fn failure(&self) -> Option<Arc<str>> {
        match self.opened() {
            Some(parts) => parts.database.stopped().cloned(),
            None => Some("closed".into()),
        }
    }

    fn disk(&self) -> Option<DiskBytes> {
        self.opened()?.database.disk()
    }

    fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    fn syncs(&self) -> u64 {
        self.opened().map_or(0, |parts| parts.database.syncs())
    }

    fn is_full(&self) -> bool {
        self.opened().is_some_and(|parts| parts.database.is_full())
    }

    fn scan(
        &self,
        family: Family,
        from: Offset,
        wanted: usize,
        visit: &mut VisitBatch<'_>,
    ) -> Result<(), StorageError> {
        self.with(|parts| parts.reader().scan(family, from, wanted, visit))
    }

    fn locate(&self, family: Family, span: &Span) -> Located {
        match self.opened() {
            Some(parts) => parts.reader().locate(family, span),
            None => Located { end: span.from, ..Located::default() },
        }
    }

    fn find_again(&self, family: Family, from: Offset) -> Result<bool, StorageError> {
        self.with(|parts| parts.growing.find_again(family, from, || parts.writer.wait()))
    }

    fn end(&self, family: Family) -> LogEndState {
        self.with(|parts| Ok(parts.families.state(family).log_end_state())).unwrap_or(LogEndState::AsWritten)
    }

    fn last_batch(&self, family: Family) -> Result<Option<(Offset, Bytes)>, StorageError> {
        self.with(|parts| parts.reader().last_batch(family))
    }

    fn side(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.with(|parts| parts.reader().side(key))
    }

    fn scan_sides(&self, keys: Range<Bytes>, visit: &mut VisitPair<'_>) -> Result<(), StorageError> {
        self.with(|parts| parts.reader().scan_sides(keys, visit))
    }

    fn scan_tree(&self, visit: &mut VisitPair<'_>) -> Result<(), StorageError> {
        self.with(|parts| parts.reader().scan_tree(visit))
    }

    fn reclaim(&self, family: Family, _last_offsets: Range<Offset>) {
        // Moving a log's start adds this job already; asking again helps once more files have moved down.
        if let Some(parts) = self.opened() {
            parts.database.jobs().add(BackgroundJob::DropFiles(family));
        }
    }

    fn settle(&self, family: Family) -> Result<(), StorageError> {
        self.with(|parts| {
            parts.database.writable()?;
            if parts.families.state(family).tables().has_any() {
                parts.writer.seal_tables(family);
                parts.growing.ingest_sealed(family)?;
            }
            Ok(())
        })
    }

    fn close(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        self.queue.close();
        let mut threads = threads.into_iter();
        join(threads.next());
        self.queue.wait_for_write();
        let parts = self.parts.write().take();
        let Some(parts) = parts else { return };
        parts.database.jobs().close();
        parts.growing.close();
        parts.writer.close();
        parts.database.db().stop_compactions();
        threads.for_each(|thread| join(Some(thread)));
        if parts.database.stopped().is_none() {
            parts.flush_before_close();
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
