//! SEAM: one log directory. Families of batches, side records and the embedded tree, behind one ordered commit.
//!
//! Knows nothing of what is inside a batch, of leaders or of topics beyond their identity. RocksDB appears in no
//! signature; `rocksdb/` is the real directory, `testing/` has its twin in memory and one that fails by a script, and
//! `contract.rs` is the suite that all of them pass.
//!
//! Contract
//! - Write sets are applied in the order in which `commit` or `queue` was called, each one whole or not at all, many of
//!   them in one group commit (I-1). `Done` is called in that same order, by the writer of the group, after the write
//!   (and, if one of the group asked for it, the sync) has returned: it must be short and must not block.
//! - A kill in the middle may leave batches of a set that was not done, and nothing else of it.
//! - Neither call calls a `Done` itself, of a closed directory neither: the caller holds a lock that it may take.
//! - A read begun after `Done(Ok)` sees the set.
//! - After a failed write or sync every later commit fails with `StorageError::Stopped` until the directory is opened
//!   anew (I-6). What had been acknowledged stays readable.
//! - A set refused with `Full`, because of the reserve or because the disk had no space for it, was not written, be it
//!   one with batches or without. Sets that add batches to a family that it added to or rests on, or say that they rest
//!   on that, and were queued before its `Done` returned are refused as well: an owner that takes back its offsets
//!   inside `Done` never leaves a gap, nor side records of what was refused.
//! - Everything acknowledged survives a kill of the process; with `sync` also a loss of power.
//!
//! Every outcome is looked at by the caller that asked for the write. Rooms above commit through [`commit`], whose
//! [`Queued`] must be consumed; the bare `Done` is for directories, and for the appends of a partition, which answer
//! acks in it.

#[cfg(test)]
pub(crate) mod contract;
pub(crate) mod keys;
pub(crate) mod rocksdb;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::Future;
use std::ops::{ControlFlow, Deref, Range};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use tokio::sync::oneshot;
use tracing::debug;

use crate::task;
use crate::types::crc::EndSum;
use crate::types::place::FileRun;
use crate::types::{Offset, PartitionIndex, TopicId, TopicName};

/// A partition's identity on disk. A topic that is deleted and made again has a new `topic_id` and so shares nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct PartitionId {
    pub(crate) topic: TopicName,
    pub(crate) topic_id: TopicId,
    pub(crate) partition: PartitionIndex,
}

/// Handle of the family that holds one partition's batches. Valid while the directory is open and the partition exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Family(pub(crate) u32);

/// Why storage refused.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum StorageError {
    /// An earlier write or sync failed; the directory takes no more writes until it is opened again (I-6).
    #[error("log directory {dir} is offline: {reason}")]
    Stopped { dir: PathBuf, reason: Arc<str> },
    /// The disk's reserve is reached, or the disk is full. Nothing was written; the same call may succeed once space is
    /// back.
    #[error("log directory {dir} has no space left above its reserve")]
    Full { dir: PathBuf },
    /// More partitions than the process has file descriptors for. Nothing was created.
    #[error("log directory {dir} holds all the {max} partitions that the limit on open files allows")]
    TooManyPartitions { dir: PathBuf, max: usize },
    /// A read failed or found bytes that do not match their checksum.
    #[error("log directory {dir}: {reason}")]
    Read { dir: PathBuf, reason: Arc<str> },
}

impl StorageError {
    /// Whether what was read is not what was written, as growing tables and RocksDB say it; else it could not be read.
    pub(crate) fn is_damage(&self) -> bool {
        let says = |reason: &str| reason.contains("checksum mismatch") || reason.starts_with("Corruption");
        matches!(self, Self::Read { reason, .. } if says(reason))
    }
}

/// One thing to write. Sets hold few of them, so they are a plain list.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    /// A batch under its last offset. Writing to the same last offset again replaces it (compaction).
    Batch {
        family: Family,
        last_offset: Offset,
        batch: Bytes,
        /// What is known of the batch's checksum, so that one around it costs no second pass over its bytes.
        sum: Option<EndSum>,
        /// A loss of power may leave some of what was written without what was written before it. Of all that has this
        /// mark, and all that is no batch, it leaves a beginning. Only for a batch behind all others of its family.
        in_order: bool,
    },
    /// Writes nothing. What the set says holds only if all was written that was queued for this family before, save for
    /// what does not say this itself.
    RestsOn {
        family: Family,
    },
    /// Removes the one batch whose last offset this is, if there is one.
    DeleteBatch {
        family: Family,
        last_offset: Offset,
    },
    /// Removes all batches whose last offset lies in the range.
    DeleteBatches {
        family: Family,
        last_offsets: Range<Offset>,
    },
    /// A side record; `key` comes from [`keys`].
    Side {
        key: Bytes,
        value: Bytes,
    },
    DeleteSide {
        key: Bytes,
    },
    /// Removes all side records in the half-open range of keys.
    DeleteSides {
        keys: Range<Bytes>,
    },
    /// A node of the embedded coordination tree.
    Tree {
        key: Bytes,
        value: Bytes,
    },
    DeleteTree {
        key: Bytes,
    },
}

/// What becomes visible together.
#[derive(Debug, Default)]
pub(crate) struct WriteSet {
    pub(crate) writes: Vec<Write>,
    /// Sync the write-ahead log before `Done`.
    pub(crate) sync: bool,
}

impl WriteSet {
    /// What the set weighs in queues and group commits: its keys, values and a little for each write.
    pub(crate) fn size_bytes(&self) -> usize {
        self.writes.iter().map(Write::size_bytes).sum()
    }

    /// Whether it adds records, so that it is refused when the disk's reserve is reached.
    pub(crate) fn adds_batches(&self) -> bool {
        self.added_to().next().is_some()
    }

    /// The families that it adds batches to.
    fn added_to(&self) -> impl Iterator<Item = Family> {
        self.writes.iter().filter_map(|write| match write {
            Write::Batch { family, .. } => Some(*family),
            _ => None,
        })
    }

    /// The families of which it is refused if a batch that was queued before it was.
    fn rests_on(&self) -> impl Iterator<Item = Family> {
        self.writes.iter().filter_map(|write| match write {
            Write::Batch { family, .. } | Write::RestsOn { family } => Some(*family),
            _ => None,
        })
    }
}

impl Write {
    /// Bytes of the batch it writes; 0 if it writes none.
    pub(crate) fn batch_bytes(&self) -> usize {
        match self {
            Self::Batch { batch, .. } => batch.len(),
            _ => 0,
        }
    }

    fn size_bytes(&self) -> usize {
        /// Key, lengths and tag of one write in RocksDB's log, about.
        const OVERHEAD_BYTES: usize = 24;
        OVERHEAD_BYTES
            + match self {
                Self::Batch { batch, .. } => batch.len(),
                Self::Side { key, value } | Self::Tree { key, value } => key.len() + value.len(),
                Self::DeleteSide { key } | Self::DeleteTree { key } => key.len(),
                Self::DeleteSides { keys } => keys.start.len() + keys.end.len(),
                Self::RestsOn { .. } | Self::DeleteBatch { .. } | Self::DeleteBatches { .. } => 0,
            }
    }
}

/// Called once per write set, in commit order, on the thread that has written it.
pub(crate) type Done = Box<dyn FnOnce(Result<(), StorageError>) + Send>;

/// Refuses a set that was queued when the directory was closed. On a thread of its own, because the caller that queued
/// it may hold the lock that its `Done` takes. Where there is no thread to be had the `Done` is dropped, which says the
/// same.
fn refuse_closed(dir: PathBuf, done: Done) {
    let refuse = move || done(Err(StorageError::Stopped { dir, reason: "closed".into() }));
    if let Err(error) = task::thread("storage-closed", refuse) {
        debug!(%error, "a set for a closed directory is dropped");
    }
}

/// A batch that a scan shows: its bytes, valid during the visit only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Visited<'a> {
    bytes: &'a [u8],
    /// What they are a part of, if that may outlive the visit.
    within: Option<&'a Bytes>,
}

impl<'a> Visited<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, within: None }
    }

    /// A part of a buffer that is not written to any more.
    pub(crate) fn within(buffer: &'a Bytes, part: Range<usize>) -> Self {
        Self { bytes: &buffer[part], within: Some(buffer) }
    }

    /// The batch, to be kept without a copy: it holds the buffer it was read into, where that can be had. A buffer
    /// has little besides batches, and no more of them than the scan was said to want.
    pub(crate) fn shared(&self) -> Option<Bytes> {
        Some(self.within?.slice_ref(self.bytes))
    }
}

impl Deref for Visited<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

/// Which batches are asked for: those from the one that holds `from`, or is the first behind it, to the last one that
/// ends before `upto`, at most `max_bytes` of them; but one, whatever its size, if `at_least_one`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) from: Offset,
    pub(crate) upto: Offset,
    pub(crate) max_bytes: usize,
    pub(crate) at_least_one: bool,
}

/// Batches that can be sent from where they lie, without being read before.
#[derive(Debug, Default)]
pub(crate) struct Located {
    pub(crate) runs: Vec<FileRun>,
    /// Of the batches in them.
    pub(crate) bytes: usize,
    /// One past the last of their offsets; where the span begins without any.
    pub(crate) end: Offset,
    /// The next batch does not belong to the span.
    pub(crate) is_all: bool,
    /// Where not all is located: the last offset of the first batch further on that can be again, if there is one.
    pub(crate) next: Option<Offset>,
}

/// Visits a batch under its last offset.
pub(crate) type VisitBatch<'a> = dyn FnMut(Offset, Visited<'_>) -> ControlFlow<()> + 'a;

/// Visits a key and its value; both are valid during the call only.
pub(crate) type VisitPair<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// Size of a file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DiskBytes {
    pub(crate) total: u64,
    /// What this process may still write.
    pub(crate) usable: u64,
}

/// See [`LogDir::end`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogEndState {
    /// For all that is known.
    AsWritten,
    /// The log cannot be opened. What it has is as it was.
    Refused,
    /// Files of it were removed by hand, and with them perhaps what was acknowledged; or it is in doubt.
    MayBeLost,
    /// It cannot be opened now, and what a loss of power left of it was not cut off.
    Uncut,
}

impl LogEndState {
    /// `after_power`: the directory is opened after what may have been a loss of power. What is refused is as it was,
    /// and stays so.
    pub(crate) fn may_lack_end(self, after_power: bool) -> bool {
        match self {
            Self::AsWritten => after_power,
            Self::MayBeLost | Self::Uncut => true,
            Self::Refused => false,
        }
    }
}

/// Partitions of a directory of which a later start under the same boot of the machine has to know what the first one
/// could not settle.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct InDoubt {
    /// Their logs may lack their ends, and were not opened since.
    pub(crate) ends: BTreeSet<(TopicId, PartitionIndex)>,
    /// See [`LogEndState::Uncut`].
    pub(crate) uncut: BTreeSet<(TopicId, PartitionIndex)>,
}

/// One log directory. Calls other than `commit` and `queue` may block on the disk: run them where blocking is
/// allowed.
pub(crate) trait LogDir: Debug + Send + Sync + 'static {
    /// Where it lies, for messages.
    fn path(&self) -> PathBuf;

    /// Every partition the directory holds, with its family.
    fn partitions(&self) -> Vec<(PartitionId, Family)>;

    /// Takes a family for each partition, in one durable step; one that exists already keeps its family.
    /// Answers in the order of `wanted`.
    fn create(&self, wanted: &[PartitionId]) -> Result<Vec<Family>, StorageError>;

    /// Forgets the partitions: their batches and side records are gone from every later read, space comes back in the
    /// background, the family returns to the pool only when it is empty. Unknown ones are ignored. Pending commits to
    /// them must have been done.
    fn delete(&self, partitions: &[PartitionId]) -> Result<(), StorageError>;

    /// Queues a set for the writer's thread, which calls `done`. Never blocks: callers hold locks that a `done` may
    /// wait for. The queue is bounded by admission, which counts request bytes until their writes are done.
    fn commit(&self, set: WriteSet, done: Done);

    /// As [`LogDir::commit`], but the set may wait until [`LogDir::write_queued`] is called; see [`queue`].
    fn queue(&self, set: WriteSet, done: Done) {
        self.commit(set, done);
    }

    /// Sees to it that what is queued is written. Where that is little and no other writes, it is written on the
    /// calling thread, which takes some tens of microseconds; so are the `done`s called.
    fn write_queued(&self) {}

    /// Has it told, once and on whatever thread, when the directory stops because of a failure; at once if it has. A
    /// directory that is closed tells nothing.
    fn when_failed(&self, told: Box<dyn FnOnce(Arc<str>) + Send>) {
        drop(told);
    }

    /// Why the directory takes no writes any more, if a failure has stopped it or it is closed.
    fn failure(&self) -> Option<Arc<str>> {
        None
    }

    /// The file system that the directory lies on, asked now; `None` if it does not tell.
    fn disk(&self) -> Option<DiskBytes> {
        None
    }

    /// Bytes of the sets that were queued and are not done. Admission slows down when this grows.
    #[cfg_attr(not(test), allow(dead_code, reason = "admission counts what is queued by itself; the suite looks here"))]
    fn queued_bytes(&self) -> usize;

    /// Syncs of the write-ahead log since the directory was opened. One serves all sets of its group, and whatever was
    /// written before.
    #[cfg_attr(not(test), allow(dead_code, reason = "tests of what flush.ms and flush.messages promise look here"))]
    fn syncs(&self) -> u64;

    /// Whether sets that add batches are refused now. Ask before giving offsets; it becomes false by itself.
    #[cfg_attr(not(test), allow(dead_code, reason = "appends learn it from Full; the suite looks here"))]
    fn is_full(&self) -> bool {
        false
    }

    /// Visits batches in offset order, from the first whose last offset is at least `from`, until `Break` or the end.
    /// `wanted`: how many bytes the visitor will take, if it knows, or 0. So much may be read at once.
    fn scan(&self, family: Family, from: Offset, wanted: usize, visit: &mut VisitBatch<'_>)
    -> Result<(), StorageError>;

    /// The first batches of the span, as far as they can be sent from where they lie: all of them, some or none. Does
    /// not wait for the disk.
    fn locate(&self, _family: Family, span: &Span) -> Located {
        Located { end: span.from, ..Located::default() }
    }

    /// Looks on the disk for what [`locate`](Self::locate) does not know from this offset on. Answers whether it knows
    /// more now; otherwise it is to be scanned. Blocks on the disk.
    fn find_again(&self, _family: Family, _from: Offset) -> Result<bool, StorageError> {
        Ok(false)
    }

    /// What is known of a log's end before it is opened.
    fn end(&self, _family: Family) -> LogEndState {
        LogEndState::AsWritten
    }

    /// The batch with the highest last offset.
    fn last_batch(&self, family: Family) -> Result<Option<(Offset, Bytes)>, StorageError>;

    /// One side record.
    #[cfg_attr(not(test), allow(dead_code, reason = "rooms read side records by range; the suite looks here"))]
    fn side(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError>;

    /// Visits the side records of a half-open key range in key order.
    fn scan_sides(&self, keys: Range<Bytes>, visit: &mut VisitPair<'_>) -> Result<(), StorageError>;

    /// Visits the whole embedded tree in key order.
    fn scan_tree(&self, visit: &mut VisitPair<'_>) -> Result<(), StorageError>;

    /// Hints that a range of batches was deleted, so that whole files can go at once. Returns when the hint was taken.
    fn reclaim(&self, family: Family, last_offsets: Range<Offset>);

    /// Brings a family's batches to where the last of them can be removed at once; else the next write that removes
    /// them makes all other writes wait. Blocks on the disk for as long, and others write meanwhile. All that was
    /// queued for the family must have been done, and nothing may be queued until this returns.
    fn settle(&self, family: Family) -> Result<(), StorageError>;

    /// Orderly end: waits for queued commits, flushes what shortens the next start, closes. Later commits are
    /// `Stopped`.
    fn close(&self);
}

/// A shared log directory.
pub(crate) type SharedLogDir = Arc<dyn LogDir>;

/// A set that was queued without telling the writer. Dropping this does, and the set may then be written here and now:
/// no lock may be held that a `done` takes.
#[derive(Debug)]
#[must_use = "dropped under the lock that its `done` takes, it waits for ever"]
pub(crate) struct Unwritten(SharedLogDir);

impl Drop for Unwritten {
    fn drop(&mut self) {
        self.0.write_queued();
    }
}

/// Queues a set that its caller sees to as soon as it has let its locks go.
pub(crate) fn queue(dir: &SharedLogDir, set: WriteSet, done: Done) -> Unwritten {
    dir.queue(set, done);
    Unwritten(Arc::clone(dir))
}

/// Queues a set whose outcome the caller waits for.
pub(crate) fn commit(dir: &dyn LogDir, set: WriteSet) -> Queued {
    commit_noting(dir, set, |_| ())
}

/// As [`commit`]. `note` sees the outcome first, in commit order, called by the writer: what a `Done` must not do, it
/// must not do either. It is for the owner of state that ran ahead of the disk; it does not replace the waiting.
pub(crate) fn commit_noting(
    dir: &dyn LogDir,
    set: WriteSet,
    note: impl FnOnce(&Result<(), StorageError>) + Send + 'static,
) -> Queued {
    let (done, queued) = noting(dir, note);
    dir.commit(set, done);
    queued
}

/// [`queue`] for a caller that waits for the outcome; `note` as in [`commit_noting`].
pub(crate) fn queue_noting(
    dir: &SharedLogDir,
    set: WriteSet,
    note: impl FnOnce(&Result<(), StorageError>) + Send + 'static,
) -> (Unwritten, Queued) {
    let (done, queued) = noting(&**dir, note);
    (queue(dir, set, done), queued)
}

fn noting(dir: &dyn LogDir, note: impl FnOnce(&Result<(), StorageError>) + Send + 'static) -> (Done, Queued) {
    let (tell, told) = oneshot::channel();
    let done: Done = Box::new(move |outcome| {
        note(&outcome);
        // The receiver is gone where the wait was cancelled, as when a request's connection is gone.
        drop(tell.send(outcome));
    });
    (done, Queued(Waiting::ForWriter { told, dir: dir.path() }))
}

/// Waits until everything queued so far is written, whatever became of it. Blocking. The outcome is that of a set
/// queued now: `Stopped` once a write has failed, and what was queued before may then be missing.
pub(crate) fn barrier(dir: &dyn LogDir) -> Result<(), StorageError> {
    commit(dir, WriteSet::default()).wait()
}

/// A set that was queued, and what will have become of it. The caller that queued it looks: by [`Queued::wait`] where
/// blocking is allowed, else by `.await`. A refused set was not written, so what rests on it must not be done or
/// recorded.
#[derive(Debug)]
#[must_use = "a write that nobody looks at may be missing: wait for its outcome, or hand it to the caller"]
pub(crate) struct Queued(Waiting);

#[derive(Debug)]
enum Waiting {
    /// There was nothing to write.
    ForNothing,
    ForWriter {
        told: oneshot::Receiver<Result<(), StorageError>>,
        dir: PathBuf,
    },
}

impl Queued {
    /// Of no writes at all.
    pub(crate) fn nothing() -> Self {
        Self(Waiting::ForNothing)
    }

    /// Blocks until the outcome is known. Never with a lock held that the `Done` of any queued set takes.
    pub(crate) fn wait(mut self) -> Result<(), StorageError> {
        let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
        let mut context = Context::from_waker(&waker);
        loop {
            match Pin::new(&mut self).poll(&mut context) {
                Poll::Ready(outcome) => return outcome,
                #[cfg(test)]
                Poll::Pending if testing::memory::step_any() => {}
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

impl Future for Queued {
    type Output = Result<(), StorageError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            Waiting::ForNothing => Poll::Ready(Ok(())),
            Waiting::ForWriter { told, dir } => Pin::new(told).poll(context).map(|told| {
                // A `Done` that is dropped uncalled: the directory has gone, and the set with it.
                told.unwrap_or_else(|_| Err(StorageError::Stopped { dir: dir.clone(), reason: "closed".into() }))
            }),
        }
    }
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use super::testing::faulty::FaultyDir;
    use super::testing::memory::MemoryDir;
    use super::*;

    #[test]
    fn who_waits_for_a_set_learns_what_became_of_it() {
        let (dir, faults) = FaultyDir::around(MemoryDir::open());
        assert!(Queued::nothing().wait().is_ok());
        assert!(commit(&*dir, WriteSet::default()).wait().is_ok());
        faults.hold();
        let (noted, seen) = std::sync::mpsc::channel();
        let held = commit_noting(&*dir, WriteSet::default(), move |outcome| {
            noted.send(outcome.is_err()).expect("the test listens");
        });
        faults.fail_commit(0);
        let waiting = std::thread::spawn(move || held.wait());
        faults.release(&dir);
        assert!(waiting.join().expect("no panic").is_ok(), "it was let in before the fault was armed");
        assert_eq!(seen.recv(), Ok(false));
        assert!(
            matches!(barrier(&*dir), Err(StorageError::Stopped { .. })),
            "a stopped directory has lost what waited"
        );
    }

    #[tokio::test]
    async fn a_set_of_a_directory_that_is_closed_is_not_written() {
        let dir = MemoryDir::open();
        dir.close();
        assert!(matches!(commit(&*dir, WriteSet::default()).await, Err(StorageError::Stopped { .. })));
    }
}
