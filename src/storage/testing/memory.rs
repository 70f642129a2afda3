//! The log directory's twin in memory, for tests and for `Broker`s that keep nothing.
//!
//! Same contract as the real one: sets are applied in commit order on a thread of its own, so that a caller may hold
//! the lock that its `Done` takes. What it holds outlives the handle: [`MemoryDir::reopen`] stands for a restart. A
//! [`MemoryDir::stepped`] handle has no thread: the simulation says when the next set is written.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::{Bound, Range};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::storage::{
    Done, Family, LogDir, LogEndState, PartitionId, StorageError, VisitBatch, VisitPair, Visited, Write, WriteSet, keys,
};
use crate::task;
use crate::types::Offset;

/// A log directory without a disk.
#[derive(Debug)]
pub(crate) struct MemoryDir {
    contents: Arc<Mutex<Contents>>,
    synced: Arc<Mutex<Synced>>,
    queued_bytes: Arc<AtomicUsize>,
    /// Taken by [`LogDir::close`].
    writer: Mutex<Option<Writer>>,
    /// Told when a set was queued for a step.
    queued: Arc<Notify>,
    /// Sets that add batches are refused, if it is stepped. As on a disk that is shown once one was.
    full: AtomicBool,
    shows_full: AtomicBool,
    /// Of all logs.
    end: Mutex<Option<LogEndState>>,
}

/// A set, its bytes, and who is told.
type Queued = (WriteSet, usize, Done);

enum Writer {
    Thread { queue: Sender<Queued>, thread: JoinHandle<()> },
    Stepped(Stepped),
}

/// What waits for a step.
#[derive(Default)]
struct Stepped {
    queue: VecDeque<Queued>,
    /// Sets taken out so far.
    taken: u64,
    /// Families of which a batch was refused, and the last set that was queued before its owner could know.
    refused: HashMap<Family, u64>,
}

impl Stepped {
    /// The next set, and whether it is refused with one before it.
    fn take(&mut self) -> Option<(Queued, bool)> {
        let next = self.queue.pop_front()?;
        self.taken += 1;
        let is_refused =
            next.0.rests_on().any(|family| self.refused.get(&family).is_some_and(|upto| self.taken <= *upto));
        Some((next, is_refused))
    }

    /// All that waits is refused if it rests on these.
    fn refuse_behind(&mut self, families: Vec<Family>) {
        let upto = self.taken + self.queue.len() as u64;
        self.refused.extend(families.into_iter().map(|family| (family, upto)));
    }
}

thread_local! {
    /// The stepped handles of this thread's simulation.
    static STEPPED: RefCell<Vec<Weak<MemoryDir>>> = const { RefCell::new(Vec::new()) };
}

/// Writes one set of each of this thread's stepped directories, for a caller that blocks on one of them. `false`: there
/// is none.
pub(in crate::storage) fn step_any() -> bool {
    let dirs: Vec<Arc<MemoryDir>> = STEPPED.with_borrow_mut(|dirs| {
        dirs.retain(|dir| dir.strong_count() > 0);
        dirs.iter().filter_map(Weak::upgrade).collect()
    });
    let mut stepped = false;
    for dir in dirs {
        stepped |= dir.step();
    }
    stepped
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

/// What a loss of power would leave.
#[derive(Debug, Default)]
struct Synced {
    contents: Contents,
    count: u64,
    /// What a stepped directory has written since.
    later: Vec<Vec<Write>>,
}

/// What a disk would hold. Its batches are shared with every clone.
#[derive(Debug, Clone, Default)]
struct Contents {
    partitions: BTreeMap<PartitionId, Family>,
    next_family: u32,
    families: HashMap<Family, BTreeMap<Offset, Bytes>>,
    sides: BTreeMap<Bytes, Bytes>,
    tree: BTreeMap<Bytes, Bytes>,
}

impl MemoryDir {
    /// An empty directory.
    pub(crate) fn open() -> Arc<Self> {
        Self::over(Arc::default(), Contents::default())
    }

    /// The same contents behind a new handle, as after a restart. Sets still queued in the old one are written first
    /// if it was closed.
    pub(crate) fn reopen(&self) -> Arc<Self> {
        Self::over(Arc::clone(&self.contents), self.synced.lock().contents.clone())
    }

    /// What a loss of power leaves of it: everything up to the last sync, and the partitions, whose creation is
    /// durable. Those that were deleted since are there again.
    pub(crate) fn after_power_loss(&self) -> Arc<Self> {
        let mut left = self.synced.lock().contents.clone();
        let contents = self.contents.lock();
        left.partitions.extend(contents.partitions.iter().map(|(id, family)| (id.clone(), *family)));
        left.next_family = contents.next_family;
        for family in left.partitions.values() {
            left.families.entry(*family).or_default();
        }
        Self::over(Arc::new(Mutex::new(left.clone())), left)
    }

    /// What it holds now, behind a handle of its own, as a kill in this moment would leave it: nothing that is written
    /// later is in it.
    pub(crate) fn killed(&self) -> Arc<Self> {
        let synced = self.synced.lock().contents.clone();
        Self::over(Arc::new(Mutex::new(self.contents.lock().clone())), synced)
    }

    /// The same contents behind a handle that writes when [`Self::step`] is called.
    pub(crate) fn stepped(&self) -> Arc<Self> {
        let synced = {
            let synced = self.synced.lock();
            Synced { contents: synced.contents.clone(), count: 0, later: synced.later.clone() }
        };
        let stepped = Arc::new(Self {
            contents: Arc::clone(&self.contents),
            synced: Arc::new(Mutex::new(synced)),
            queued_bytes: Arc::default(),
            writer: Mutex::new(Some(Writer::Stepped(Stepped::default()))),
            queued: Arc::default(),
            full: AtomicBool::new(false),
            shows_full: AtomicBool::new(false),
            end: Mutex::default(),
        });
        STEPPED.with_borrow_mut(|dirs| dirs.push(Arc::downgrade(&stepped)));
        stepped
    }

    /// Returns once a set waits for a step.
    pub(crate) async fn has_queued(&self) {
        while !matches!(&*self.writer.lock(), Some(Writer::Stepped(stepped)) if !stepped.queue.is_empty()) {
            self.queued.notified().await;
        }
    }

    /// Writes the next set of a stepped directory. `false`: none waits.
    pub(crate) fn step(&self) -> bool {
        let next = match &mut *self.writer.lock() {
            Some(Writer::Stepped(stepped)) => stepped.take(),
            _ => None,
        };
        let Some(((set, bytes, done), is_refused)) = next else { return false };
        let is_full = self.full.load(Ordering::SeqCst) && set.adds_batches();
        if is_full || is_refused {
            self.shows_full.fetch_or(is_full, Ordering::SeqCst);
            self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
            done(Err(StorageError::Full { dir: self.path() }));
            if let Some(Writer::Stepped(stepped)) = &mut *self.writer.lock() {
                stepped.refuse_behind(set.rests_on().collect());
            }
            return true;
        }
        {
            let (mut contents, mut synced) = (self.contents.lock(), self.synced.lock());
            synced.later.push(set.writes.clone());
            contents.apply(set.writes);
            if set.sync {
                *synced = Synced { contents: contents.clone(), count: synced.count + 1, later: Vec::new() };
            }
        }
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        done(Ok(()));
        true
    }

    /// Whether a stepped directory has reached the disk's reserve from now on.
    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
        self.shows_full.store(false, Ordering::SeqCst);
    }

    /// What is known of the ends of its logs.
    pub(crate) fn set_end(&self, end: LogEndState) {
        *self.end.lock() = Some(end);
    }

    /// How many sets a loss of power may take.
    pub(crate) fn unsynced_sets(&self) -> usize {
        self.synced.lock().later.len()
    }

    /// What a loss of power leaves that takes all but so many of the sets written since the last sync.
    pub(crate) fn after_power_loss_but(&self, kept: usize) -> Arc<Self> {
        let left = self.after_power_loss();
        {
            let mut contents = left.contents.lock();
            let synced = self.synced.lock();
            for writes in synced.later.iter().take(kept) {
                contents.apply_to_what_is_there(writes.clone());
            }
            drop(synced);
            left.synced.lock().contents = contents.clone();
        }
        left
    }

    /// The process is gone: what was queued is not written, and nothing ever will be.
    pub(crate) fn kill(&self) {
        drop(self.writer.lock().take());
    }

    fn over(contents: Arc<Mutex<Contents>>, synced: Contents) -> Arc<Self> {
        let (queue, sets) = channel::<(WriteSet, usize, Done)>();
        let queued_bytes = Arc::new(AtomicUsize::new(0));
        let synced = Arc::new(Mutex::new(Synced { contents: synced, ..Synced::default() }));
        let (written, queued, durable) = (Arc::clone(&contents), Arc::clone(&queued_bytes), Arc::clone(&synced));
        let thread = task::thread("memory-writer", move || {
            for (set, bytes, done) in sets {
                let mut contents = written.lock();
                contents.apply(set.writes);
                if set.sync {
                    let mut durable = durable.lock();
                    durable.contents = contents.clone();
                    durable.count += 1;
                }
                drop(contents);
                queued.fetch_sub(bytes, Ordering::Relaxed);
                done(Ok(()));
            }
        })
        .expect("a twin for tests is useless where no thread can start");
        let writer = Mutex::new(Some(Writer::Thread { queue, thread }));
        let (full, shows_full) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self {
            contents,
            synced,
            queued_bytes,
            writer,
            queued: Arc::default(),
            full,
            shows_full,
            end: Mutex::default(),
        })
    }
}

impl Contents {
    /// [`Self::apply`], but for partitions that have been deleted since.
    fn apply_to_what_is_there(&mut self, mut writes: Vec<Write>) {
        writes.retain(|write| match write {
            Write::Batch { family, .. } | Write::DeleteBatch { family, .. } | Write::DeleteBatches { family, .. } => {
                self.families.contains_key(family)
            }
            _ => true,
        });
        self.apply(writes);
    }

    fn apply(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Batch { family, last_offset, batch, .. } => {
                    self.family(family).insert(last_offset, batch);
                }
                Write::RestsOn { .. } => {}
                Write::DeleteBatch { family, last_offset } => {
                    self.family(family).remove(&last_offset);
                }
                Write::DeleteBatches { family, last_offsets } => {
                    self.family(family).retain(|last_offset, _| !last_offsets.contains(last_offset));
                }
                Write::Side { key, value } => {
                    self.sides.insert(key, value);
                }
                Write::DeleteSide { key } => {
                    self.sides.remove(&key);
                }
                Write::DeleteSides { keys } => self.sides.retain(|key, _| !keys.contains(key)),
                Write::Tree { key, value } => {
                    self.tree.insert(key, value);
                }
                Write::DeleteTree { key } => {
                    self.tree.remove(&key);
                }
            }
        }
    }

    fn family(&mut self, family: Family) -> &mut BTreeMap<Offset, Bytes> {
        self.families.get_mut(&family).expect("only families of live partitions are written to")
    }
}

impl LogDir for MemoryDir {
    fn path(&self) -> PathBuf {
        PathBuf::from("memory")
    }

    fn partitions(&self) -> Vec<(PartitionId, Family)> {
        self.contents.lock().partitions.iter().map(|(id, family)| (id.clone(), *family)).collect()
    }

    fn create(&self, wanted: &[PartitionId]) -> Result<Vec<Family>, StorageError> {
        let contents = &mut *self.contents.lock();
        let mut families = Vec::with_capacity(wanted.len());
        for id in wanted {
            families.push(*contents.partitions.entry(id.clone()).or_insert_with(|| {
                let family = Family(contents.next_family);
                contents.next_family += 1;
                contents.families.insert(family, BTreeMap::new());
                family
            }));
        }
        Ok(families)
    }

    fn delete(&self, partitions: &[PartitionId]) -> Result<(), StorageError> {
        let contents = &mut *self.contents.lock();
        for id in partitions {
            if let Some(family) = contents.partitions.remove(id) {
                contents.families.remove(&family);
                let prefix = keys::side_prefix(id.topic_id, id.partition);
                contents.sides.retain(|key, _| !key.starts_with(&prefix));
            }
        }
        Ok(())
    }

    fn commit(&self, set: WriteSet, done: Done) {
        let bytes = set.size_bytes();
        let refused = match &mut *self.writer.lock() {
            Some(Writer::Thread { queue, .. }) => {
                self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
                queue.send((set, bytes, done)).err().map(|unsent| unsent.0.2)
            }
            Some(Writer::Stepped(stepped)) => {
                self.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
                stepped.queue.push_back((set, bytes, done));
                self.queued.notify_one();
                None
            }
            None => Some(done),
        };
        if let Some(done) = refused {
            crate::storage::refuse_closed(self.path(), done);
        }
    }

    fn queued_bytes(&self) -> usize {
        self.queued_bytes.load(Ordering::Relaxed)
    }

    fn syncs(&self) -> u64 {
        self.synced.lock().count
    }

    fn scan(&self, family: Family, from: Offset, _: usize, visit: &mut VisitBatch<'_>) -> Result<(), StorageError> {
        // Cloned (handles, not bytes) so that the visitor may call the directory.
        let batches: Vec<(Offset, Bytes)> = match self.contents.lock().families.get(&family) {
            Some(batches) => batches.range(from..).map(|(last_offset, batch)| (*last_offset, batch.clone())).collect(),
            None => Vec::new(),
        };
        for (last_offset, batch) in &batches {
            if visit(*last_offset, Visited::within(batch, 0..batch.len())).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn end(&self, _family: Family) -> LogEndState {
        self.end.lock().unwrap_or(LogEndState::AsWritten)
    }

    fn last_batch(&self, family: Family) -> Result<Option<(Offset, Bytes)>, StorageError> {
        let contents = self.contents.lock();
        let last = contents.families.get(&family).and_then(BTreeMap::last_key_value);
        Ok(last.map(|(last_offset, batch)| (*last_offset, batch.clone())))
    }

    fn side(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        Ok(self.contents.lock().sides.get(key).cloned())
    }

    fn scan_sides(&self, keys: Range<Bytes>, visit: &mut VisitPair<'_>) -> Result<(), StorageError> {
        if keys.is_empty() {
            return Ok(());
        }
        let range = (Bound::Included(&keys.start), Bound::Excluded(&keys.end));
        let sides: Vec<(Bytes, Bytes)> =
            self.contents.lock().sides.range::<Bytes, _>(range).map(|(k, v)| (k.clone(), v.clone())).collect();
        for (key, value) in &sides {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn scan_tree(&self, visit: &mut VisitPair<'_>) -> Result<(), StorageError> {
        let tree = self.contents.lock().tree.clone();
        for (key, value) in &tree {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.shows_full.load(Ordering::SeqCst)
    }

    fn reclaim(&self, _family: Family, _last_offsets: Range<Offset>) {}

    fn settle(&self, _family: Family) -> Result<(), StorageError> {
        Ok(())
    }

    fn close(&self) {
        while self.step() {}
        let writer = self.writer.lock().take();
        if let Some(Writer::Thread { queue, thread }) = writer {
            drop(queue);
            if thread.thread().id() != std::thread::current().id() {
                thread.join().expect("a panic would have ended the process");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::contract;

    #[test]
    fn memory_keeps_the_contract() {
        let disk = MemoryDir::open();
        contract::check(&mut || disk.reopen());
    }

    #[test]
    fn a_loss_of_power_takes_what_came_after_the_last_sync() {
        let dir = MemoryDir::open();
        let family = dir.create(&[contract::partition("t", 0)]).expect("created")[0];
        contract::commit(&*dir, vec![contract::batch(family, 0, b"a")], false).expect("written");
        contract::commit(&*dir, vec![contract::batch(family, 1, b"b")], true).expect("written");
        let later = dir.reopen();
        contract::commit(&*later, vec![contract::batch(family, 2, b"c")], false).expect("written");
        assert_eq!(contract::scan(&*later, family, 0).len(), 3, "a kill takes nothing");
        assert_eq!(contract::scan(&*later.after_power_loss(), family, 0).len(), 2);
        contract::commit(&*later, vec![], true).expect("written");
        assert_eq!(contract::scan(&*later.after_power_loss().after_power_loss(), family, 0).len(), 3);
    }
}
