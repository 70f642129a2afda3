//! A log directory that fails on demand, around any other one. For tests of the rooms above.
//!
//! Faults are armed through [`Faults`], which stays with the test. A failed write or sync is sticky, as I-6 demands;
//! "full" is not.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};

use super::{Done, Family, LogDir, PartitionId, SharedLogDir, StorageError, VisitBatch, VisitPair, WriteSet};
use crate::types::Offset;

/// The wrapped directory.
#[derive(Debug)]
pub(crate) struct FaultyDir {
    inner: SharedLogDir,
    faults: Arc<Faults>,
}

/// The switchboard of a [`FaultyDir`].
#[derive(Debug, Default)]
pub(crate) struct Faults {
    state: Mutex<State>,
    reads_released: Condvar,
}

#[derive(Default)]
struct State {
    /// Commits to let pass before one fails; `None`: none fails.
    commits_before_failure: Option<u64>,
    /// Sets that ask for a sync to let pass before one fails.
    syncs_before_failure: Option<u64>,
    stopped: bool,
    full: bool,
    /// The next set that adds batches is refused, as if the reserve were reached and left again in that moment.
    refuse_next: bool,
    /// So many of the next sets that write anything are refused, as if there were not even room for side records.
    refuse_any: u64,
    reads_fail: bool,
    /// The family whose batches cannot be read.
    unreadable: Option<Family>,
    /// Reads wait.
    reads_held: bool,
    /// `Some` while commits are held back: they are queued here and go on at release.
    held: Option<VecDeque<(WriteSet, Done)>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stopped {}, full {}, held {:?}", self.stopped, self.full, self.held.as_ref().map(VecDeque::len))
    }
}

impl FaultyDir {
    /// Wraps a directory; nothing fails until it is armed.
    pub(crate) fn around(inner: SharedLogDir) -> (Arc<Self>, Arc<Faults>) {
        let faults = Arc::new(Faults::default());
        (Arc::new(Self { inner, faults: Arc::clone(&faults) }), faults)
    }

    fn stopped(&self) -> StorageError {
        StorageError::Stopped { dir: self.path(), reason: "injected fault".into() }
    }

    fn readable(&self, family: Option<Family>) -> Result<(), StorageError> {
        let mut state = self.faults.state.lock();
        while state.reads_held {
            self.faults.reads_released.wait(&mut state);
        }
        if state.reads_fail || (family.is_some() && family == state.unreadable) {
            return Err(StorageError::Read { dir: self.path(), reason: "injected fault".into() });
        }
        Ok(())
    }

    fn writable(&self) -> Result<(), StorageError> {
        if self.faults.state.lock().stopped { Err(self.stopped()) } else { Ok(()) }
    }
}

impl Faults {
    /// The n-th commit from now, counted from 0, fails and with it every later one.
    pub(crate) fn fail_commit(&self, n: u64) {
        self.state.lock().commits_before_failure = Some(n);
    }

    /// The n-th commit with `sync` from now, counted from 0, fails and with it every later commit.
    pub(crate) fn fail_sync(&self, n: u64) {
        self.state.lock().syncs_before_failure = Some(n);
    }

    /// While set, sets that add batches are refused as if the disk's reserve were reached.
    pub(crate) fn set_full(&self, full: bool) {
        self.state.lock().full = full;
    }

    /// The next set that adds batches is refused as if the disk's reserve were reached, though `is_full` denies it.
    pub(crate) fn refuse_next(&self) {
        self.state.lock().refuse_next = true;
    }

    /// The next `n` sets that write anything are refused for want of space, also those of side records alone.
    pub(crate) fn refuse_any(&self, n: u64) {
        self.state.lock().refuse_any = n;
    }

    /// While set, the batches of this family cannot be read.
    pub(crate) fn fail_reads_of(&self, family: Option<Family>) {
        self.state.lock().unreadable = family;
    }

    /// Keeps reads waiting until it is called with false.
    pub(crate) fn hold_reads(&self, hold: bool) {
        self.state.lock().reads_held = hold;
        self.reads_released.notify_all();
    }

    /// Keeps commits from being written until [`Faults::release`].
    pub(crate) fn hold(&self) {
        self.state.lock().held.get_or_insert_default();
    }

    /// Lets the held commits go on, in order.
    pub(crate) fn release(&self, dir: &FaultyDir) {
        // Pass them on under the lock, so that no commit called meanwhile overtakes them.
        let mut state = self.state.lock();
        for (set, done) in state.held.take().into_iter().flatten() {
            dir.inner.commit(set, done);
        }
    }
}

impl State {
    /// The fate of a set: `Some` error, or it passes.
    fn judge(&mut self, set: &WriteSet, dir: &FaultyDir) -> Option<StorageError> {
        if !self.stopped {
            self.stopped |= count_down(&mut self.commits_before_failure);
            self.stopped |= set.sync && count_down(&mut self.syncs_before_failure);
        }
        if self.stopped {
            return Some(dir.stopped()); // I-6
        }
        let any = !set.writes.is_empty() && self.refuse_any > 0;
        self.refuse_any -= u64::from(any);
        let refused = any || set.adds_batches() && (std::mem::take(&mut self.refuse_next) || self.full);
        refused.then(|| StorageError::Full { dir: dir.path() })
    }
}

fn count_down(left: &mut Option<u64>) -> bool {
    match left {
        Some(0) => true,
        Some(n) => {
            *n -= 1;
            false
        }
        None => false,
    }
}

impl LogDir for FaultyDir {
    fn path(&self) -> PathBuf {
        self.inner.path()
    }

    fn partitions(&self) -> Vec<(PartitionId, Family)> {
        self.inner.partitions()
    }

    fn create(&self, wanted: &[PartitionId]) -> Result<Vec<Family>, StorageError> {
        self.writable()?;
        self.inner.create(wanted)
    }

    fn delete(&self, partitions: &[PartitionId]) -> Result<(), StorageError> {
        self.writable()?;
        self.inner.delete(partitions)
    }

    fn commit(&self, set: WriteSet, done: Done) {
        let mut state = self.faults.state.lock();
        match (state.judge(&set, self), &mut state.held) {
            // An empty set keeps the order of `Done`; its own outcome does not matter.
            (Some(error), None) => self.inner.commit(WriteSet::default(), Box::new(move |_| done(Err(error)))),
            (Some(error), Some(held)) => {
                held.push_back((WriteSet::default(), Box::new(move |_| done(Err(error)))));
            }
            (None, Some(held)) => held.push_back((set, done)),
            (None, None) => self.inner.commit(set, done),
        }
    }

    fn when_failed(&self, told: Box<dyn FnOnce(Arc<str>) + Send>) {
        self.inner.when_failed(told);
    }

    fn queued_bytes(&self) -> usize {
        self.inner.queued_bytes()
    }

    fn syncs(&self) -> u64 {
        self.inner.syncs()
    }

    fn is_full(&self) -> bool {
        self.faults.state.lock().full || self.inner.is_full()
    }

    fn scan(
        &self,
        family: Family,
        from: Offset,
        wanted: usize,
        visit: &mut VisitBatch<'_>,
    ) -> Result<(), StorageError> {
        self.readable(Some(family))?;
        self.inner.scan(family, from, wanted, visit)
    }

    fn last_batch(&self, family: Family) -> Result<Option<(Offset, Bytes)>, StorageError> {
        self.readable(Some(family))?;
        self.inner.last_batch(family)
    }

    fn side(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.readable(None)?;
        self.inner.side(key)
    }

    fn scan_sides(&self, keys: Range<Bytes>, visit: &mut VisitPair<'_>) -> Result<(), StorageError> {
        self.readable(None)?;
        self.inner.scan_sides(keys, visit)
    }

    fn scan_tree(&self, visit: &mut VisitPair<'_>) -> Result<(), StorageError> {
        self.readable(None)?;
        self.inner.scan_tree(visit)
    }

    fn reclaim(&self, family: Family, last_offsets: Range<Offset>) {
        self.inner.reclaim(family, last_offsets);
    }

    fn close(&self) {
        self.inner.close();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::storage::contract::{self, batch, commit, partition};
    use crate::storage::memory::MemoryDir;

    #[test]
    fn unarmed_keeps_the_contract() {
        let disk = MemoryDir::open();
        contract::check(&mut || FaultyDir::around(disk.reopen()).0);
    }

    #[test]
    fn a_failed_commit_stops_the_directory_and_writes_nothing() {
        let (dir, faults) = FaultyDir::around(MemoryDir::open());
        let family = dir.create(&[partition("t", 0)]).expect("created")[0];
        faults.fail_commit(1);
        assert!(commit(&*dir, vec![batch(family, 0, b"a")], false).is_ok());
        for _ in 0..2 {
            let refused = commit(&*dir, vec![batch(family, 1, b"b")], false);
            assert!(matches!(refused, Err(StorageError::Stopped { .. })), "{refused:?}");
        }
        assert_eq!(dir.last_batch(family).expect("read").map(|(last, _)| last), Some(Offset(0)));
    }

    #[test]
    fn only_a_commit_with_sync_meets_a_failing_sync() {
        let (dir, faults) = FaultyDir::around(MemoryDir::open());
        faults.fail_sync(0);
        assert!(commit(&*dir, vec![], false).is_ok());
        assert!(commit(&*dir, vec![], true).is_err());
        assert!(commit(&*dir, vec![], false).is_err());
    }

    #[test]
    fn full_refuses_batches_alone_and_ends() {
        let (dir, faults) = FaultyDir::around(MemoryDir::open());
        let family = dir.create(&[partition("t", 0)]).expect("created")[0];
        faults.set_full(true);
        let refused = commit(&*dir, vec![batch(family, 0, b"a")], false);
        assert!(matches!(refused, Err(StorageError::Full { .. })), "{refused:?}");
        assert!(commit(&*dir, vec![contract::side(b"k", b"v")], false).is_ok());
        faults.set_full(false);
        assert!(commit(&*dir, vec![batch(family, 0, b"a")], false).is_ok());
    }

    #[test]
    fn held_commits_are_done_in_order_after_the_release() {
        let (dir, faults) = FaultyDir::around(MemoryDir::open());
        faults.hold();
        let (sender, done) = mpsc::channel();
        for n in 0..3 {
            let sender = sender.clone();
            dir.commit(WriteSet::default(), Box::new(move |_| sender.send(n).expect("the test listens")));
        }
        assert!(done.try_recv().is_err());
        faults.release(&dir);
        drop(sender);
        assert_eq!(done.iter().take(3).collect::<Vec<_>>(), [0, 1, 2]);
    }
}
