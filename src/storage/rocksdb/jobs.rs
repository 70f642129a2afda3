//! What one thread does in the background, one thing after the other. Each outcome is looked at: what fails is said
//! once and tried again after a pause that grows, beside everything else; only a directory that has stopped leaves it
//! to the next start.

use std::fmt::{Debug, Display};
use std::hash::Hash;
use std::time::Duration;

use indexmap::IndexSet;
use parking_lot::{Condvar, Mutex};
use tokio::time::Instant;
use tracing::{info, warn};

use super::Shared;

/// The pause after a first failure; it doubles with each further one.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_DOUBLINGS_MAX: u32 = 6;

/// Jobs that wait, each at most once.
#[derive(Debug)]
pub(super) struct Jobs<T> {
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
pub(super) struct Taken<T> {
    pub(super) job: T,
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
    pub(super) fn add(&self, job: T) {
        let mut list = self.list.lock();
        if list.later.iter().all(|later| later.again.job != job) && list.ready.insert(job) {
            self.changed.notify_one();
        }
    }

    /// Waits for jobs and takes all there are; `None` once closing.
    pub(super) fn take(&self) -> Option<Vec<Taken<T>>> {
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
    pub(super) fn hurry(&self) {
        let mut list = self.list.lock();
        let now = Instant::now();
        list.later.iter_mut().for_each(|later| later.at = now);
        self.changed.notify_one();
    }

    /// Ends the thread after the job at hand; what is left is found again at the next start.
    pub(super) fn close(&self) {
        self.list.lock().closing = true;
        self.changed.notify_one();
    }

    /// Whether the thread is to end.
    pub(super) fn is_closing(&self) -> bool {
        self.list.lock().closing
    }

    fn again(&self, again: Taken<T>) {
        let at = Instant::now() + PAUSE * (1 << (again.failures - 1).min(PAUSE_DOUBLINGS_MAX));
        self.list.lock().later.push(Later { again, at });
    }
}

impl Shared {
    /// Looks at the outcome of a job.
    pub(super) fn settle_job<T: Copy + Eq + Hash + Debug>(
        &self,
        jobs: &Jobs<T>,
        taken: Taken<T>,
        outcome: Result<(), impl Display>,
    ) {
        let (dir, job) = (self.dir.display(), taken.job);
        match outcome {
            Ok(()) if taken.failures == 0 => {}
            Ok(()) => info!(%dir, ?job, failures = taken.failures, "background job done at last"),
            // It said so when it stopped.
            Err(_) if self.stopped.get().is_some() => {}
            Err(error) => {
                if taken.failures == 0 {
                    warn!(%dir, ?job, %error, "background job failed; it is tried again");
                }
                jobs.again(Taken { job, failures: taken.failures.saturating_add(1) });
            }
        }
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
