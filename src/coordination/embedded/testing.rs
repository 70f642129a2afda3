//! A log directory for tests of the embedded tree, and of the rooms that stand on it: without a thread of its own, so
//! that a test may stop the clock.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

use super::EmbeddedCoordination;
use crate::storage::{
    Done, Family, LogDir, PartitionId, SharedLogDir, StorageError, VisitBatch, VisitPair, Write, WriteSet,
};
use crate::types::Offset;

/// A log directory that holds an embedded tree only, applies sets at once and fails on demand.
#[derive(Default)]
pub(crate) struct TreeDir {
    pub(super) disk: Arc<Mutex<BTreeMap<Bytes, Bytes>>>,
    /// What the next commits answer.
    pub(super) fault: Mutex<Option<StorageError>>,
    pub(super) commits: AtomicUsize,
    refusals: AtomicUsize,
    pub(super) syncs: AtomicUsize,
    /// Commits that wait until the test lets them go.
    pub(super) held: Mutex<Option<Vec<(WriteSet, Done)>>>,
}

impl std::fmt::Debug for TreeDir {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TreeDir: {:?} commits, {:?} syncs", self.commits, self.syncs)
    }
}

impl TreeDir {
    pub(crate) fn new() -> Arc<TreeDir> {
        Arc::default()
    }

    /// The first session on what it holds.
    pub(crate) fn store(self: &Arc<Self>) -> Arc<EmbeddedCoordination> {
        Arc::new(EmbeddedCoordination::open(Arc::clone(self) as SharedLogDir).expect("its nodes can be read"))
    }

    /// Rounds of writes so far.
    pub(crate) fn rounds(&self) -> usize {
        self.commits.load(Ordering::SeqCst)
    }

    /// Rounds that were not written.
    pub(crate) fn refusals(&self) -> usize {
        self.refusals.load(Ordering::SeqCst)
    }

    /// A directory opened anew over what this one has on disk.
    pub(super) fn reopened(&self) -> Arc<TreeDir> {
        Arc::new(TreeDir { disk: Arc::clone(&self.disk), ..TreeDir::default() })
    }

    /// Every commit from now on is refused for want of space, until [`Self::heal`].
    pub(crate) fn fail_with_full(&self) {
        *self.fault.lock() = Some(StorageError::Full { dir: self.path() });
    }

    pub(crate) fn heal(&self) {
        *self.fault.lock() = None;
    }

    pub(crate) fn hold(&self) {
        *self.held.lock() = Some(Vec::new());
    }

    /// Runs the held commits, all with the fault that is set now.
    pub(crate) fn release(&self) {
        for (set, done) in self.held.lock().take().unwrap_or_default() {
            self.finish(set, done);
        }
    }

    fn finish(&self, set: WriteSet, done: Done) {
        if let Some(fault) = self.fault.lock().clone() {
            self.refusals.fetch_add(1, Ordering::SeqCst);
            return done(Err(fault));
        }
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.syncs.fetch_add(usize::from(set.sync), Ordering::SeqCst);
        let mut disk = self.disk.lock();
        for write in set.writes {
            match write {
                Write::Tree { key, value } => disk.insert(key, value),
                Write::DeleteTree { key } => disk.remove(&key),
                other => panic!("not of the tree: {other:?}"),
            };
        }
        drop(disk);
        done(Ok(()));
    }
}

impl LogDir for TreeDir {
    fn path(&self) -> PathBuf {
        "tree".into()
    }
    fn partitions(&self) -> Vec<(PartitionId, Family)> {
        Vec::new()
    }
    fn create(&self, _: &[PartitionId]) -> Result<Vec<Family>, StorageError> {
        unreachable!("the tree has no partitions")
    }
    fn delete(&self, _: &[PartitionId]) -> Result<(), StorageError> {
        unreachable!("the tree has no partitions")
    }
    fn commit(&self, set: WriteSet, done: Done) {
        if let Some(held) = &mut *self.held.lock() {
            return held.push((set, done));
        }
        self.finish(set, done);
    }
    fn queued_bytes(&self) -> usize {
        0
    }
    fn syncs(&self) -> u64 {
        0
    }
    fn scan(&self, _: Family, _: Offset, _: usize, _: &mut VisitBatch<'_>) -> Result<(), StorageError> {
        unreachable!("the tree has no batches")
    }
    fn last_batch(&self, _: Family) -> Result<Option<(Offset, Bytes)>, StorageError> {
        unreachable!("the tree has no batches")
    }
    fn side(&self, _: &[u8]) -> Result<Option<Bytes>, StorageError> {
        unreachable!("the tree has no side records")
    }
    fn scan_sides(&self, _: Range<Bytes>, _: &mut VisitPair<'_>) -> Result<(), StorageError> {
        unreachable!("the tree has no side records")
    }
    fn scan_tree(&self, visit: &mut VisitPair<'_>) -> Result<(), StorageError> {
        for (key, value) in self.disk.lock().iter() {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
    fn reclaim(&self, _: Family, _: Range<Offset>) {}
    fn settle(&self, _: Family) -> Result<(), StorageError> {
        unreachable!("the tree has no batches")
    }
    fn close(&self) {}
}
