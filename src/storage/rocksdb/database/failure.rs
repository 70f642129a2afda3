//! What an error of the disk means.
//!
//! No space is "full": nothing of the set was written, and everything goes on by itself once there is space again,
//! RocksDB within five seconds of it (`ErrorHandler::RecoverFromNoSpace`). All else stops the directory (I-6): an error
//! of reading or writing, corruption, and whatever the error of a sync, because what the kernel had taken is lost then.
//! Every call that writes comes through here.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::boot_record::BootRecord;
use super::raw::RocksError;
use crate::storage::StorageError;

/// What is asked of the disk, as far as it matters how it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage::rocksdb) enum Operation {
    BeginTable,
    WriteTable,
    /// Takes back what was written to it.
    CutTable,
    FinishTable,
    RemoveTable,
    IngestTable,
    /// Notes that tables are damaged.
    NoteDamage,
    WriteLog,
    /// Of tables, names and RocksDB's log.
    Sync,
    /// Of the names of logs that an earlier process left.
    SyncLeftNames,
    Flush,
    /// Making and dropping families, dropping files, changing options: what RocksDB's MANIFEST or options file tells.
    Describe,
}

impl Operation {
    fn what(self) -> &'static str {
        match self {
            Self::BeginTable => "begin a growing table at",
            Self::WriteTable | Self::WriteLog => "write to",
            Self::NoteDamage => "note damage in",
            Self::CutTable => "take back what was written to",
            Self::FinishTable => "finish",
            Self::RemoveTable => "remove",
            Self::IngestTable => "hand over",
            Self::Sync | Self::SyncLeftNames => "sync",
            Self::Flush => "flush",
            Self::Describe => "change what describes",
        }
    }
}

/// How long batches are refused unseen after there was no space.
const PAUSE: Duration = Duration::from_millis(if cfg!(test) { 20 } else { 1000 });
/// Lines about the same disk that fills and empties come no faster than this.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Whether the disk had no space the last time something was written.
#[derive(Debug, Default)]
struct NoSpace {
    /// So that a write with space looks at nothing else.
    is_met: AtomicBool,
    state: Mutex<Met>,
}

#[derive(Debug, Default)]
struct Met {
    last: Option<Instant>,
    /// When it was last said, and whether that was of this time.
    said: Option<Instant>,
    is_said: bool,
}

impl NoSpace {
    /// Whether it is too soon to try again.
    fn is_recent(&self) -> bool {
        self.is_met.load(Ordering::Relaxed) && self.state.lock().last.is_some_and(|last| last + PAUSE > Instant::now())
    }

    /// There was none. Answers whether that is to be said.
    fn met(&self) -> bool {
        let (mut state, now) = (self.state.lock(), Instant::now());
        state.last = Some(now);
        if self.is_met.swap(true, Ordering::Relaxed) {
            return false;
        }
        state.is_said = state.said.is_none_or(|said| said + SAY_EVERY <= now);
        if state.is_said {
            state.said = Some(now);
        }
        state.is_said
    }

    /// Something was written. If there was no space before, answers whether it is to be said that there is again.
    fn passed(&self) -> Option<bool> {
        if !self.is_met.load(Ordering::Relaxed) || !self.is_met.swap(false, Ordering::Relaxed) {
            return None;
        }
        Some(self.state.lock().is_said)
    }
}

/// What is told once when the directory stops.
pub(in crate::storage::rocksdb) type Told = Box<dyn FnOnce(Arc<str>) + Send>;

/// Why the directory takes no writes any more, and whom to tell.
#[derive(Default)]
struct Stop {
    reason: OnceLock<Arc<str>>,
    listeners: Mutex<Vec<Told>>,
}

impl Stop {
    fn get(&self) -> Option<&Arc<str>> {
        self.reason.get()
    }

    /// Calls it once there is a reason, now if there is one.
    fn tell(&self, told: Told) {
        let mut listeners = self.listeners.lock();
        match self.reason.get() {
            None => listeners.push(told),
            Some(reason) => {
                let reason = Arc::clone(reason);
                drop(listeners);
                told(reason);
            }
        }
    }

    /// The first reason holds. Answers whether it is this one.
    fn set(&self, reason: &str) -> bool {
        let told = {
            let mut listeners = self.listeners.lock();
            if self.reason.set(reason.into()).is_err() {
                return false;
            }
            std::mem::take(&mut *listeners)
        };
        told.into_iter().for_each(|told| told(reason.into()));
        true
    }
}

fn is_no_space(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Status and cause as RocksDB words them, `util/status.cc` and `env/io_posix.cc`.
fn is_rocks_no_space(error: &RocksError) -> bool {
    const NO_SPACE: &str = "IO error: No space left on device";
    error.0.contains(NO_SPACE) && !SYNCS.iter().any(|cause| error.0.contains(cause))
}

/// Whether the disk has refused a write or a sync, so that what the kernel shows of its files may differ from what the
/// disk has. Nothing is lost by damage, by what cannot be read, or for want of descriptors or permissions, nor where a
/// write finds no space; a sync that does has lost something. In our own words and in those of `env/io_posix.cc`.
fn loses_writes(reason: &str) -> bool {
    const WRITES: [&str; 5] =
        ["cannot write to", "While appending", "While pwrite", "While write", "While closing file after"];
    const NO_WRITES: [&str; 3] = ["Too many open files", "Permission denied", "Operation not permitted"];
    let has = |words: &[&str]| words.iter().any(|words| reason.contains(words));
    (has(&SYNCS) || (has(&WRITES) && !has(&NO_SPACE))) && !has(&NO_WRITES)
}

const NO_SPACE: [&str; 2] = ["No space left on device", "Disk quota exceeded"];

/// Whether it failed for want of space, a sync included: then less may do.
pub(super) fn is_for_want_of_space(error: &RocksError) -> bool {
    NO_SPACE.iter().any(|words| error.0.contains(words))
}

/// Takes the note of the boot where the reason is one that [loses writes](loses_writes).
pub(super) fn note_loss(record: Option<&dyn BootRecord>, reason: &str) {
    if let Some(record) = record
        && loses_writes(reason)
    {
        record.void();
    }
}

/// How a sync that failed is told of, and a write that could not be taken back.
const SYNCS: [&str; 6] =
    ["cannot sync", "cannot take back", "While syncing", "While fsync", "While fdatasync", "While sync_file_range"];

/// What a directory makes of the errors of its disk: whether it has stopped, and whether there is space.
pub(super) struct Failures {
    dir: PathBuf,
    record: Option<Arc<dyn BootRecord>>,
    no_space: NoSpace,
    /// Why nothing is written any more (I-6).
    stopped: Stop,
    #[cfg(test)]
    faults: Arc<DiskFaults>,
}

impl Failures {
    pub(super) fn new(dir: &Path, record: Option<Arc<dyn BootRecord>>, #[cfg(test)] faults: Arc<DiskFaults>) -> Self {
        Self {
            dir: dir.to_owned(),
            record,
            no_space: NoSpace::default(),
            stopped: Stop::default(),
            #[cfg(test)]
            faults,
        }
    }

    /// Does something with RocksDB that writes, and says what its error means.
    pub(super) fn rocks<T>(
        &self,
        operation: Operation,
        call: impl FnOnce() -> Result<T, RocksError>,
    ) -> Result<T, StorageError> {
        let outcome = match self.fault(operation) {
            Ok(()) => call(),
            Err(error) => Err(injected(operation, &error)),
        };
        outcome.map_err(|error| if is_rocks_no_space(&error) { self.no_space(&error) } else { self.stop(&error) })
    }

    /// Does something with a growing table's file, or where they lie, and says what its error means. What cannot be
    /// taken back must not stay, whatever the reason.
    pub(super) fn file<T>(
        &self,
        operation: Operation,
        path: &Path,
        call: impl FnOnce() -> io::Result<T>,
    ) -> Result<T, StorageError> {
        // What a test makes fail was written in part.
        let outcome = if operation == Operation::WriteTable {
            call().and_then(|done| self.fault(operation).map(|()| done))
        } else {
            self.fault(operation).and_then(|()| call())
        };
        outcome.map_err(|error| {
            let is_final = matches!(operation, Operation::Sync | Operation::SyncLeftNames | Operation::CutTable);
            if !is_final && is_no_space(&error) {
                self.no_space(&error)
            } else {
                self.stop(&RocksError(format!("cannot {} {}: {error}", operation.what(), path.display())))
            }
        })
    }

    /// After something was written. Answers whether there was no space before.
    pub(super) fn note_space(&self) -> bool {
        let Some(say) = self.no_space.passed() else { return false };
        if say {
            info!(dir = %self.dir.display(), "the disk of the log directory has space again");
        }
        true
    }

    /// The disk has no space. Nothing is lost, and nothing was written.
    fn no_space(&self, error: &impl Display) -> StorageError {
        if self.no_space.met() {
            warn!(
                dir = %self.dir.display(), %error,
                "the disk of the log directory has no space; writes are refused until there is some"
            );
        }
        self.full()
    }

    /// Whether there was no space a moment ago, so that it is too soon to try again.
    pub(super) fn is_out_of_space(&self) -> bool {
        self.no_space.is_recent()
    }

    /// Stops the directory because of this error, the first time; answers with the reason that holds.
    pub(super) fn stop(&self, error: &RocksError) -> StorageError {
        // Whatever has stopped it before, and before anybody else hears of it, who may end the process.
        note_loss(self.record.as_deref(), &error.0);
        if self.stopped.set(&error.0) {
            error!(dir = %self.dir.display(), %error, "log directory goes offline; it takes no writes until reopened");
        }
        let reason = self.stopped.get().expect("set above, or before");
        StorageError::Stopped { dir: self.dir.clone(), reason: Arc::clone(reason) }
    }

    /// Why the directory has stopped, if it has.
    pub(super) fn stopped(&self) -> Option<&Arc<str>> {
        self.stopped.get()
    }

    /// Has it told when the directory stops, at once if it has.
    pub(super) fn when_stopped(&self, told: Told) {
        self.stopped.tell(told);
    }

    /// Fails once the directory has stopped (I-6).
    pub(super) fn writable(&self) -> Result<(), StorageError> {
        match self.stopped.get() {
            None => Ok(()),
            Some(reason) => Err(StorageError::Stopped { dir: self.dir.clone(), reason: Arc::clone(reason) }),
        }
    }

    pub(super) fn full(&self) -> StorageError {
        StorageError::Full { dir: self.dir.clone() }
    }

    pub(super) fn read_failed(&self, error: &dyn Display) -> StorageError {
        StorageError::Read { dir: self.dir.clone(), reason: error.to_string().into() }
    }

    /// Where tests make disks fail.
    #[cfg(not(test))]
    fn fault(&self, _: Operation) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn fault(&self, operation: Operation) -> io::Result<()> {
        self.faults.meet(operation)
    }
}

/// A failure as RocksDB would word it.
fn injected(operation: Operation, error: &io::Error) -> RocksError {
    let cause = if is_no_space(error) { "No space left on device: " } else { "" };
    let call = if operation == Operation::Sync { "While fdatasync" } else { "While appending to file" };
    RocksError(format!("IO error: {cause}{call}: injected: {error}"))
}

/// A disk that fails as a test says.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct DiskFaults(Mutex<Vec<(Operation, rustix::io::Errno, Option<usize>)>>);

#[cfg(test)]
impl DiskFaults {
    /// This operation fails so many times, or until [`clear`](Self::clear).
    pub(in crate::storage::rocksdb) fn set(
        &self,
        operation: Operation,
        errno: rustix::io::Errno,
        times: Option<usize>,
    ) {
        self.0.lock().push((operation, errno, times));
    }

    pub(in crate::storage::rocksdb) fn clear(&self) {
        self.0.lock().clear();
    }

    fn meet(&self, operation: Operation) -> io::Result<()> {
        let mut faults = self.0.lock();
        let Some(at) = faults.iter().position(|(of, _, _)| *of == operation) else { return Ok(()) };
        let (_, errno, times) = &mut faults[at];
        let error = (*errno).into();
        match times {
            Some(times) if *times > 1 => *times -= 1,
            Some(_) => drop(faults.remove(at)),
            None => {}
        }
        Err(error)
    }
}
