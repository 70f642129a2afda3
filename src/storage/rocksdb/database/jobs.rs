//! What threads do in the background, each one thing after the other. Each outcome is looked at: what fails is said
//! once and tried again after a pause that grows, beside everything else; only a directory that has stopped leaves it
//! to the next start.
//!
//! The jobs are plain data here, so that any floor can ask for one; the floors above do them.

use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::path::Path;
use std::time::Duration;

use indexmap::IndexSet;
use parking_lot::{Condvar, Mutex};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::storage::Family;

/// What the background thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::storage::rocksdb) enum BackgroundJob {
    FillPool,
    /// Drop families that are free if there are many.
    ShrinkPool,
    /// There is a growing table: start the threads that look after them.
    BeginTables,
    /// A deleted partition's family, by number.
    Wipe(u32),
    /// Files below the start of this family's log.
    DropFiles(Family),
    /// Write the memtables to files, to shorten the write-ahead log on a disk that is nearly full.
    FlushAll,
    /// See whether there are too many files.
    CountFiles,
    /// There are too many files: make one of several.
    MergeFiles,
    /// Another stretch of bytes was written, to so many families: set the memory budget for that, and see whether
    /// there are too many files.
    WindowEnded {
        active: usize,
    },
}

/// What the thread does that hands growing tables over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::storage::rocksdb) enum TableJob {
    /// Bring most of this family's growing table to the disk, so that the writer can do the rest in a moment.
    PreSync(Family),
    /// Write what RocksDB's log has of this family to a file.
    Flush(Family),
    /// Hand over the tables of this family that are sealed.
    Ingest(Family),
}

/// The pause after a first failure; it doubles with each further one.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_DOUBLINGS_MAX: u32 = 6;

/// Jobs that wait, each at most once.
#[derive(Debug)]
pub(in crate::storage::rocksdb) struct Jobs<T> {
    list: Mutex<List<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct List<T> {
    /// In the order in which they came.
    ready: IndexSet<T>,
    /// Those that failed.
    later: Vec<Later<T>>,
    closing: bool,
}

#[derive(Debug)]
struct Later<T> {
    again: Taken<T>,
    at: Instant,
}

/// A job to be done now.
#[derive(Debug, Clone, Copy)]
pub(in crate::storage::rocksdb) struct Taken<T> {
    pub(in crate::storage::rocksdb) job: T,
    failures: u32,
}

impl<T> Default for Jobs<T> {
    fn default() -> Self {
        let list = List { ready: IndexSet::new(), later: Vec::new(), closing: false };
        Self { list: Mutex::new(list), changed: Condvar::new() }
    }
}

impl<T: Copy + Eq + Hash + Debug> Jobs<T> {
    /// Adds a job unless the same one waits already, be it for its next try.
    pub(in crate::storage::rocksdb) fn add(&self, job: T) {
        let mut list = self.list.lock();
        if list.later.iter().all(|later| later.again.job != job) && list.ready.insert(job) {
            self.changed.notify_one();
        }
    }

    /// Waits for jobs and takes all there are; `None` once closing.
    pub(in crate::storage::rocksdb) fn take(&self) -> Option<Vec<Taken<T>>> {
        let mut list = self.list.lock();
        loop {
            if list.closing {
                return None;
            }
            let mut taken: Vec<_> = list.ready.drain(..).map(|job| Taken { job, failures: 0 }).collect();
            if !list.later.is_empty() {
                let now = Instant::now();
                taken.extend(list.later.extract_if(.., |later| later.at <= now).map(|later| later.again));
            }
            if !taken.is_empty() {
                return Some(taken);
            }
            match list.later.iter().map(|later| later.at).min() {
                Some(at) => drop(self.changed.wait_until(&mut list, at.into_std())),
                None => self.changed.wait(&mut list),
            }
        }
    }

    /// What failed is tried again at once.
    pub(in crate::storage::rocksdb) fn hurry(&self) {
        let mut list = self.list.lock();
        let now = Instant::now();
        list.later.iter_mut().for_each(|later| later.at = now);
        self.changed.notify_one();
    }

    /// Ends the thread after the job at hand; what is left is found again at the next start.
    pub(in crate::storage::rocksdb) fn close(&self) {
        self.list.lock().closing = true;
        self.changed.notify_one();
    }

    /// Whether the thread is to end.
    pub(in crate::storage::rocksdb) fn is_closing(&self) -> bool {
        self.list.lock().closing
    }

    /// Looks at the outcome of a job. A directory that `has_stopped` has said so.
    pub(super) fn settle_job(&self, taken: Taken<T>, outcome: Result<(), impl Display>, dir: &Path, has_stopped: bool) {
        let (dir, job) = (dir.display(), taken.job);
        match outcome {
            Ok(()) if taken.failures == 0 => {}
            Ok(()) => info!(%dir, ?job, failures = taken.failures, "background job done at last"),
            Err(_) if has_stopped => {}
            Err(error) => {
                if taken.failures == 0 {
                    warn!(%dir, ?job, %error, "background job failed; it is tried again");
                }
                self.again(Taken { job, failures: taken.failures.saturating_add(1) });
            }
        }
    }

    fn again(&self, again: Taken<T>) {
        let at = Instant::now() + PAUSE * (1 << (again.failures - 1).min(PAUSE_DOUBLINGS_MAX));
        self.list.lock().later.push(Later { again, at });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(jobs: &Jobs<u32>) -> Vec<u32> {
        jobs.take().expect("not closing").iter().map(|taken| taken.job).collect()
    }

    #[test]
    fn a_job_waits_once_and_comes_in_order() {
        let jobs = Jobs::default();
        for job in [3, 1, 3, 2, 1] {
            jobs.add(job);
        }
        assert_eq!(taken(&jobs), [3, 1, 2]);
        jobs.add(1);
        assert_eq!(taken(&jobs), [1]);
    }

    #[test]
    fn what_failed_comes_again_and_holds_nothing_up() {
        let jobs = Jobs::default();
        jobs.again(Taken { job: 7, failures: 7 });
        jobs.add(7);
        jobs.add(8);
        assert_eq!(taken(&jobs), [8], "7 waits for its time");
        jobs.hurry();
        let again = jobs.take().expect("not closing");
        assert_eq!((again.len(), again[0].job, again[0].failures), (1, 7, 7));
        jobs.again(Taken { job: 7, failures: 1 });
        assert_eq!(taken(&jobs), [7], "after a pause by itself");
        jobs.close();
        assert!(jobs.take().is_none());
    }
}
