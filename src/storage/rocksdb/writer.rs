//! Group commit: one writer per directory merges the write sets queued meanwhile into one write.
//!
//! While a group is written the next one gathers, so no timer is needed: a lone set is written at once, and under load
//! groups grow by themselves. The writer is a thread; but where it sleeps and little is queued, who queued that writes
//! it himself ([`write_queued`]), which saves him two task switches. Whoever writes holds the [`Pen`], and takes sets
//! only with it or before anybody else could: order is that of [`Queue::push`], for the writes as for `Done` (I-1).
//! After a failed write or sync nothing more is written (I-6).
//!
//! Of a group, what is for growing tables is written first: a kill may leave batches that no side record speaks of,
//! which recovery reads, but no side record of a batch that is not there.

use std::collections::{HashMap, VecDeque};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::Shared;
use super::care::Chore;
use super::directory;
use super::families::FamilyState;
use super::growing::placement::Placement;
use super::growing::table::GrowingTable;
use super::raw::{Batch, RocksError};
use crate::storage::{Done, Family, StorageError, Write, WriteSet, keys};
use crate::task;
use crate::types::Offset;
use crate::types::limits::{GROUP_COMMIT_BYTES_MAX, INLINE_WRITE_BYTES_MAX, INLINE_WRITE_SETS_MAX};

/// Sets that wait for the writer.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// The writer waits here for sets.
    filled: Condvar,
    /// Bytes of sets that are queued or being written.
    bytes: AtomicUsize,
    pen: Mutex<Pen>,
}

#[derive(Default)]
struct State {
    sets: VecDeque<Queued>,
    /// Bytes of `sets` alone.
    bytes: usize,
    /// Sets ever queued.
    pushed: u64,
    writer_sleeps: bool,
    closing: bool,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} sets of {} bytes, closing {}", self.sets.len(), self.bytes, self.closing)
    }
}

struct Queued {
    /// Its place among all sets ever queued, from 1.
    place: u64,
    set: WriteSet,
    bytes: usize,
    done: Done,
}

impl Queue {
    /// Queues a set, or gives its `Done` back if the directory is closing. Never blocks: a caller may hold the lock
    /// that the `Done` of an earlier set waits for. What bounds the queue is admission, which counts a request until
    /// its writes are done. The writer is woken for more than a little; for less somebody has to [`wake`](Self::wake)
    /// it, or to write himself.
    pub(super) fn push(&self, set: WriteSet, done: Done) -> Result<(), Done> {
        let bytes = set.size_bytes();
        let mut state = self.state.lock();
        if state.closing {
            return Err(done);
        }
        state.pushed += 1;
        let place = state.pushed;
        state.sets.push_back(Queued { place, set, bytes, done });
        state.bytes += bytes;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if state.bytes > INLINE_WRITE_BYTES_MAX {
            self.wake_with(state);
        }
        Ok(())
    }

    /// Wakes the writer if it sleeps.
    pub(super) fn wake(&self) {
        self.wake_with(self.state.lock());
    }

    fn wake_with(&self, mut state: MutexGuard<'_, State>) {
        let sleeps = std::mem::take(&mut state.writer_sleeps);
        drop(state);
        if sleeps {
            self.filled.notify_one();
        }
    }

    /// Bytes that are queued or being written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Sets queued so far.
    fn pushed(&self) -> u64 {
        self.state.lock().pushed
    }

    #[cfg(test)]
    pub(super) fn writer_sleeps(&self) -> bool {
        self.state.lock().writer_sleeps
    }

    fn is_closing(&self) -> bool {
        self.state.lock().closing
    }

    /// Lets the writer end once the queue is empty.
    pub(super) fn close(&self) {
        let mut state = self.state.lock();
        state.closing = true;
        state.writer_sleeps = false;
        self.filled.notify_one();
    }

    /// Waits for who is writing now, if anybody is.
    pub(super) fn wait_for_pen(&self) {
        drop(self.pen.lock());
    }

    /// Takes all that is queued, if the writer sleeps, nobody writes, and it is little and needs no sync. Wakes the
    /// writer for the rest.
    fn take_little(&self) -> Option<(MutexGuard<'_, Pen>, Vec<Queued>)> {
        let mut state = self.state.lock();
        if state.sets.is_empty() || !state.writer_sleeps {
            return None;
        }
        let little = state.bytes <= INLINE_WRITE_BYTES_MAX
            && state.sets.len() <= INLINE_WRITE_SETS_MAX
            && state.sets.iter().all(|queued| !queued.set.sync);
        let pen = if little { self.pen.try_lock() } else { None };
        match pen {
            Some(pen) => {
                state.bytes = 0;
                Some((pen, state.sets.drain(..).collect()))
            }
            None => {
                self.wake_with(state);
                None
            }
        }
    }

    /// Waits for sets and takes the next group: as many as the cap allows, at least one. False: closed and empty.
    fn take(&self, group: &mut Vec<Queued>) -> bool {
        let mut state = self.state.lock();
        while state.sets.is_empty() {
            if state.closing {
                return false;
            }
            state.writer_sleeps = true;
            self.filled.wait(&mut state);
        }
        let mut group_bytes = 0;
        while let Some(next) = state.sets.front() {
            if !group.is_empty() && group_bytes + next.bytes > GROUP_COMMIT_BYTES_MAX {
                break;
            }
            group_bytes += next.bytes;
            group.extend(state.sets.pop_front());
        }
        state.bytes -= group_bytes;
        true
    }
}

/// Body of the writer's thread.
pub(super) fn run(shared: Arc<Shared>, queue: Arc<Queue>) {
    let mut group = Vec::new();
    while queue.take(&mut group) {
        shared.growing.writer_came();
        Writer { shared: &shared, pen: &mut queue.pen.lock(), may_wait: true }.write_group(&mut group, &queue);
    }
}

/// Writes on the calling thread what is queued, if that is little and the writer sleeps; wakes it otherwise. Not to be
/// called under a lock that a `Done` may take.
pub(super) fn write_queued(shared: &Shared, queue: &Queue) {
    // Who waits for the disk is the writer's thread.
    if shared.budget.is_overdrawn() || shared.tables_lag() || shared.growing.wants_writer() {
        return queue.wake();
    }
    if let Some((mut pen, mut group)) = queue.take_little() {
        let write = || Writer { shared, pen: &mut pen, may_wait: false }.write_group(&mut group, queue);
        task::as_owner("storage-writer", || shared.watch.over(write));
    }
}

/// What belongs to who is writing.
#[derive(Debug, Default)]
struct Pen {
    batch: Batch,
    /// Starts of logs that this group moves, in order; they count once the group is written.
    starts: Vec<(Family, Offset)>,
    /// Families whose tables this group had handed over, with the first of its own batches in them.
    settled: Vec<(Family, Offset)>,
    /// Families of which a batch was refused, and the last set that was queued before its owner could know: up to that
    /// place sets with batches of the family are refused too, since their offsets would leave a gap.
    refused: HashMap<Family, u64>,
    activity: Activity,
    placement: Placement,
}

struct Writer<'a> {
    shared: &'a Shared,
    pen: &'a mut Pen,
    /// It is the writer's thread, and not that of a request.
    may_wait: bool,
}

/// The families that a set adds batches to.
fn added_to(set: &WriteSet) -> impl Iterator<Item = Family> {
    set.writes.iter().filter_map(|write| match write {
        Write::Batch { family, .. } => Some(*family),
        _ => None,
    })
}

/// How often the writer looks whether a flush has freed memory, and when it goes on regardless and leaves it to
/// RocksDB to stall or to fail.
const MEMORY_WAIT_STEP: Duration = Duration::from_millis(1);
const MEMORY_WAIT_STEPS_MAX: u32 = 5_000;

/// A batch of RocksDB that grew beyond this is not kept.
const BATCH_KEPT_BYTES: usize = 2 * GROUP_COMMIT_BYTES_MAX;

impl Writer<'_> {
    fn write_group(&mut self, group: &mut Vec<Queued>, queue: &Queue) {
        let bytes: usize = group.iter().map(|queued| queued.bytes).sum();
        self.wait_for_memory(queue);
        let full = group.iter().any(|queued| queued.set.adds_batches())
            && (self.shared.no_space.is_recent() || !self.has_room(bytes));
        let refused: Vec<bool> = group.iter().map(|queued| self.refuses(queued, full)).collect();
        let outcome =
            self.write(group.iter().zip(&refused).filter(|(_, refused)| !**refused).map(|(queued, _)| queued));
        let no_space = matches!(outcome, Err(StorageError::Full { .. }));
        let outcome = if no_space { self.take_back(group).and(outcome) } else { outcome };
        let stopped = matches!(&outcome, Err(error) if !matches!(error, StorageError::Full { .. }));
        // Who is told looks at what is left.
        queue.bytes.fetch_sub(bytes, Ordering::Relaxed);
        for (queued, refused) in group.drain(..).zip(refused) {
            if (refused || no_space) && !stopped {
                let families: Vec<Family> = added_to(&queued.set).collect();
                (queued.done)(Err(self.shared.full()));
                let place = queue.pushed();
                self.pen.refused.extend(families.into_iter().map(|family| (family, place)));
            } else {
                (queued.done)(outcome.clone());
            }
        }
        if bytes > BATCH_KEPT_BYTES {
            self.pen.batch = Batch::default();
        }
    }

    /// Nothing of a group counts for which the disk had no space. Its owners give the same offsets again.
    fn take_back(&mut self, group: &[Queued]) -> Result<(), StorageError> {
        self.pen.placement.take_back(self.shared)?;
        for write in group.iter().flat_map(|queued| &queued.set.writes) {
            if let Write::Batch { family, .. } | Write::DeleteBatches { family, .. } = write {
                self.shared.families.state(*family).forget_end();
            }
        }
        for (family, first) in self.pen.settled.drain(..) {
            self.shared.families.state(family).undo_from(first);
        }
        Ok(())
    }

    /// Waits while memtables or growing tables take far more than their budget. Only under a load that the disk cannot
    /// follow; then the pace is the disk's.
    fn wait_for_memory(&self, queue: &Queue) {
        if !self.may_wait {
            return;
        }
        if self.shared.budget.is_overdrawn() {
            self.shared.catch_up();
        }
        for _ in 0..MEMORY_WAIT_STEPS_MAX {
            let lags = self.shared.budget.is_overdrawn() || self.shared.tables_lag();
            if !lags || queue.is_closing() || self.shared.stopped.get().is_some() {
                return;
            }
            std::thread::park_timeout(MEMORY_WAIT_STEP);
        }
    }

    /// Whether a set is refused for want of space; later sets of the same families then are, too.
    fn refuses(&mut self, queued: &Queued, full: bool) -> bool {
        if !full && self.pen.refused.is_empty() {
            return false;
        }
        let follows = |family: Family| self.pen.refused.get(&family).is_some_and(|upto| queued.place <= *upto);
        let refuse = added_to(&queued.set).any(|family| full || follows(family));
        for family in added_to(&queued.set) {
            if refuse {
                self.pen.refused.insert(family, u64::MAX);
            } else {
                self.pen.refused.remove(&family);
            }
        }
        refuse
    }

    /// Writes these sets as one.
    fn write<'q>(&mut self, sets: impl Iterator<Item = &'q Queued> + Clone) -> Result<(), StorageError> {
        self.shared.writable()?;
        self.pen.batch.clear();
        self.pen.starts.clear();
        self.pen.settled.clear();
        self.pen.placement.begin_group(sets.clone().map(|queued| &queued.set), self.may_wait);
        let sync = self.pen.placement.syncs();
        for queued in sets {
            for write in &queued.set.writes {
                self.add(write)?;
            }
        }
        // Batches first: recovery reads what side records do not speak of yet.
        self.pen.placement.write(self.shared)?;
        if self.pen.batch.count() > 0 {
            self.shared.write_log(&mut self.pen.batch, sync)?;
            self.shared.syncs.fetch_add(u64::from(sync), Ordering::Relaxed);
        } else if sync {
            // It covers what was written before.
            self.shared.sync_log()?;
        }
        self.pen.placement.publish(self.shared);
        let starts: HashMap<Family, Offset> = self.pen.starts.drain(..).collect();
        for (family, start) in starts {
            self.shared.families.state(family).set_start(start);
            self.shared.drop_tables_below(family, start);
            self.shared.chores.add(Chore::DropFiles(family));
        }
        if let Some(active) = self.pen.activity.window_ended() {
            self.shared.chores.add(Chore::WindowEnded { active });
        }
        Ok(())
    }

    fn has_room(&mut self, bytes: usize) -> bool {
        let buffered = self.shared.budget.used_bytes() as u64;
        let room = self.shared.space.admits(bytes as u64, buffered);
        if self.shared.space.set_full(!room) {
            self.shared.space_changed(room);
        }
        room
    }

    fn add(&mut self, write: &Write) -> Result<(), StorageError> {
        let shared = self.shared;
        match write {
            Write::Batch { family, last_offset, batch } => self.add_batch(*family, *last_offset, batch)?,
            Write::DeleteBatch { family, last_offset } => {
                if *last_offset >= self.start(*family) {
                    self.before_changing(*family, *last_offset..=*last_offset)?;
                    self.pen.batch.delete(shared.cf(*family), &keys::batch(*last_offset));
                }
            }
            Write::DeleteBatches { family, last_offsets } => self.delete_batches(*family, last_offsets)?,
            Write::Side { key, value } => self.pen.batch.put(shared.side_cf(), key, value),
            Write::DeleteSide { key } => self.pen.batch.delete(shared.side_cf(), key),
            Write::DeleteSides { keys } if keys.is_empty() => {}
            Write::DeleteSides { keys } => self.pen.batch.delete_range(shared.side_cf(), &keys.start, &keys.end),
            Write::Tree { key, value } => self.pen.batch.put(shared.tree_cf(), key, value),
            Write::DeleteTree { key } => self.pen.batch.delete(shared.tree_cf(), key),
        }
        Ok(())
    }

    /// The start of a log as this group leaves it so far.
    fn start(&self, family: Family) -> Offset {
        match self.pen.starts.iter().rev().find(|(moved, _)| *moved == family) {
            Some((_, start)) => *start,
            None => self.shared.families.state(family).start(),
        }
    }

    fn set_start(&mut self, family: Family, start: Offset) {
        self.pen.batch.put(self.shared.default_cf(), &directory::start_key(family.0), &start.0.to_be_bytes());
        self.pen.placement.logs(&self.shared.families.state(family));
        self.pen.starts.push((family, start));
    }

    /// What tables hold of a family under these last offsets becomes RocksDB's alone before it changes.
    fn before_changing(&mut self, family: Family, last_offsets: RangeInclusive<Offset>) -> Result<(), StorageError> {
        let tables = &self.shared.families.state(family).tables;
        let holds = |table: &Arc<GrowingTable>| match table.relies_on() {
            Some((first, last)) => first <= *last_offsets.end() && *last_offsets.start() <= last,
            // Batches of this very group.
            None => true,
        };
        if tables.has_any() && (self.pen.placement.first_staged(family).is_some() || tables.list().iter().any(holds)) {
            self.settle(family)?;
        }
        tables.forget_handed_over(last_offsets);
        Ok(())
    }

    fn settle(&mut self, family: Family) -> Result<(), StorageError> {
        self.pen.settled.extend(self.pen.placement.first_staged(family).map(|first| (family, first)));
        self.pen.placement.settle(self.shared, family)
    }

    fn add_batch(&mut self, family: Family, last_offset: Offset, bytes: &Bytes) -> Result<(), StorageError> {
        let state = self.shared.families.state(family);
        let start = self.start(family);
        if start == Offset::MAX {
            // The partition was deleted meanwhile, and the family may be another's soon.
            return Ok(());
        }
        if let Some(from) = state.take_undo() {
            self.pen.settled.push((family, from));
            self.delete_batches(family, &(from..Offset::MAX))?;
        }
        let start = self.start(family);
        if last_offset < start {
            // The log begins anew at an earlier offset. What lies hidden below the start must not come back.
            self.settle(family)?;
            state.tables.forget_handed_over(Offset::ZERO..=Offset::MAX);
            state.keep_files();
            let cf = self.shared.cf(family);
            self.pen.batch.delete_range(cf, &keys::batch(Offset::ZERO), &keys::batch(start));
            self.set_start(family, Offset::ZERO);
        }
        if self.pen.placement.may_take(self.shared, family, &state.tables) {
            if last_offset < self.end(family, &state)? {
                self.before_changing(family, last_offset..=last_offset)?;
            } else if self.pen.placement.take(self.shared, family, last_offset, bytes)? {
                state.end.fetch_max(last_offset.0.saturating_add(1), Ordering::Relaxed);
                return Ok(());
            }
        } else {
            state.tables.forget_handed_over(last_offset..=last_offset);
        }
        self.pen.placement.logs(&state);
        self.pen.batch.put(self.shared.cf(family), &keys::batch(last_offset), bytes);
        state.end.fetch_max(last_offset.0.saturating_add(1), Ordering::Relaxed);
        self.pen.activity.wrote(family, bytes.len());
        Ok(())
    }

    /// Deleting from the front moves the log's start and touches no batch: a range tombstone would stretch the next
    /// file over the whole log, and compaction would then rewrite all of it.
    fn delete_batches(&mut self, family: Family, last_offsets: &Range<Offset>) -> Result<(), StorageError> {
        let start = self.start(family);
        let state = self.shared.families.state(family);
        let end = self.end(family, &state)?;
        let (from, to) = (last_offsets.start, last_offsets.end.min(end));
        if from >= to || to <= start {
            return Ok(());
        }
        if from <= start {
            self.set_start(family, to);
            return Ok(());
        }
        self.before_changing(family, from..=to)?;
        // A table that is begun at an offset cut off here must not reach the disk before the cut does.
        self.pen.placement.logs(&state);
        self.pen.batch.delete_range(self.shared.cf(family), &keys::batch(from), &keys::batch(to));
        if to == end {
            state.end.store(from.0, Ordering::Relaxed);
        }
        Ok(())
    }

    /// One past the highest last offset of a family, batches of this group included.
    fn end(&self, family: Family, state: &FamilyState) -> Result<Offset, StorageError> {
        if !state.end_known.load(Ordering::Relaxed) {
            // A directory that cannot be read here must not go on with some sets written and others not.
            let last =
                self.shared.last_batch(family).map_err(|error| self.shared.stop(&RocksError(error.to_string())))?;
            if let Some((last_offset, _)) = last {
                state.end.fetch_max(last_offset.0.saturating_add(1), Ordering::Relaxed);
            }
            state.end_known.store(true, Ordering::Relaxed);
        }
        Ok(Offset(state.end.load(Ordering::Relaxed)))
    }
}

/// Counts the families that are being written to, for the memory budget.
#[derive(Debug, Default)]
struct Activity {
    /// By family number: the window in which it was last written to.
    last_window: Vec<u32>,
    window: u32,
    window_bytes: usize,
    active: usize,
}

/// A window: long enough that every active partition shows up in it.
const WINDOW_BYTES: usize = 32 << 20;

impl Activity {
    fn wrote(&mut self, family: Family, bytes: usize) {
        let index = family.0 as usize;
        if self.last_window.len() <= index {
            self.last_window.resize(index + 1, u32::MAX);
        }
        if self.last_window[index] != self.window {
            self.last_window[index] = self.window;
            self.active += 1;
        }
        self.window_bytes += bytes;
    }

    /// At the end of a window, how many families were active in it.
    fn window_ended(&mut self) -> Option<usize> {
        if self.window_bytes < WINDOW_BYTES {
            return None;
        }
        self.window_bytes = 0;
        self.window = (self.window + 1) % u32::MAX;
        Some(std::mem::take(&mut self.active))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_counts_each_family_once() {
        let mut activity = Activity::default();
        for family in [0, 5, 0] {
            activity.wrote(Family(family), 1);
        }
        assert_eq!(activity.window_ended(), None);
        activity.wrote(Family(0), WINDOW_BYTES);
        assert_eq!(activity.window_ended(), Some(2));
        activity.wrote(Family(0), WINDOW_BYTES);
        assert_eq!(activity.window_ended(), Some(1));
    }
}
