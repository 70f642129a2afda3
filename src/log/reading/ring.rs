//! A ring of batches in memory: those of every partition of a log directory, with one budget in bytes.
//!
//! First in, first out: a batch that is added evicts the oldest batch of the whole directory, so a busy partition keeps
//! much and an idle one gives its memory back. Reads take one partition's lock only, for a binary search and some
//! reference counts; bytes are never copied on a read. Does not know storage, high watermarks or what is inside a
//! batch.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};

use crate::log::reading::batches::Read;
use crate::types::Offset;

/// What one batch costs beside its bytes: its two queue entries and the allocator's rounding.
const BATCH_OVERHEAD_BYTES: usize = 96;

/// Batches below this size are copied, so that they don't pin the network frame they came in.
const COPY_BELOW_BYTES: usize = 16 << 10;

/// What one log that is followed may take, overhead included. Its older half goes when it is full.
const FETCHED_BYTES_MAX: usize = 2 << 20;

/// The batches of one log directory. Owns no task.
#[derive(Debug)]
pub(in crate::log) struct Ring {
    budget_bytes: usize,
    queue: Mutex<Queue>,
}

/// The slot of the oldest batch, of the second oldest, and so on. The entries of one slot stand here in the order in
/// which the slot holds them: `stale` ones first, then its batches.
#[derive(Debug, Default)]
struct Queue {
    used_bytes: usize,
    /// Of batches that are still to come, see [`Ring::reserve`].
    reserved_bytes: usize,
    order: VecDeque<Arc<RingSlot>>,
    /// Batches that the slots hold; all else in `order` is stale.
    live: usize,
}

/// Stale entries that the queue may hold beside as many as there are others.
const STALE_ENTRIES_MAX: usize = 1024;

/// One partition's part of the ring.
#[derive(Debug, Default)]
pub(in crate::log) struct RingSlot {
    inner: Mutex<Slot>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Without gaps: each begins where the one before it ends.
    batches: VecDeque<RingBatch>,
    /// Of the batches.
    charged_bytes: usize,
    /// Queue entries whose batches were cleared; the queue skips as many before it takes from `batches` again.
    stale: usize,
}

#[derive(Debug)]
struct RingBatch {
    base_offset: Offset,
    last_offset: Offset,
    bytes: Bytes,
}

impl Ring {
    /// A ring that holds at most `budget_bytes`, overhead included. 0 remembers nothing.
    pub(in crate::log) fn new(budget_bytes: usize) -> Self {
        Self { budget_bytes, queue: Mutex::default() }
    }

    /// Bytes charged at the moment.
    #[cfg(test)]
    fn used_bytes(&self) -> usize {
        self.queue.lock().used_bytes
    }

    /// Bytes charged and reserved at the moment.
    #[cfg(test)]
    pub(in crate::log) fn claimed_bytes(&self) -> usize {
        let queue = self.queue.lock();
        queue.used_bytes + queue.reserved_bytes
    }

    /// Room for batches that are about to be read into memory, for which the oldest ones go now; `None` if so much is
    /// reserved already that the budget would not hold both.
    pub(in crate::log) fn reserve(self: &Arc<Self>, bytes: usize) -> Option<Reserved> {
        let mut queue = self.queue.lock();
        if queue.reserved_bytes + bytes > self.budget_bytes {
            return None;
        }
        queue.reserved_bytes += bytes;
        self.evict_beyond_budget(queue);
        Some(Reserved { ring: Arc::clone(self), bytes })
    }

    /// Remembers a batch that became durable. Batches of one slot come in offset order; a gap forgets what was before.
    pub(in crate::log) fn push(&self, slot: &Arc<RingSlot>, base_offset: Offset, last_offset: Offset, bytes: &Bytes) {
        let bytes = if bytes.len() < COPY_BELOW_BYTES { Bytes::copy_from_slice(bytes) } else { bytes.clone() };
        self.keep(slot, base_offset, last_offset, bytes);
    }

    /// As [`Self::push`], for a follower's log, of which little is kept: it is there for whoever reads on where the log
    /// has a new leader, and consumers of other logs want the memory meanwhile. A copy, since what was fetched with a
    /// batch may be much larger. A large batch is not kept, nor what came before it: the copy would cost as much as
    /// half its write to the file that it was just written to, which replies take it from.
    pub(in crate::log) fn push_fetched(
        &self,
        slot: &Arc<RingSlot>,
        base_offset: Offset,
        last_offset: Offset,
        bytes: &Bytes,
    ) {
        if bytes.len() >= COPY_BELOW_BYTES {
            self.clear(slot);
            return;
        }
        self.keep(slot, base_offset, last_offset, Bytes::copy_from_slice(bytes));
        let too_old = slot.inner.lock().too_old(FETCHED_BYTES_MAX);
        if let Some(from) = too_old {
            self.forget_below(slot, from);
        }
    }

    /// As [`Self::push`], but the bytes may be small and share their buffer, which they keep alive.
    pub(in crate::log) fn keep(&self, slot: &Arc<RingSlot>, base_offset: Offset, last_offset: Offset, bytes: Bytes) {
        self.put(slot, RingBatch { base_offset, last_offset, bytes }, 0);
    }

    /// Adds a batch for which `reserved_bytes` were reserved until now.
    fn put(&self, slot: &Arc<RingSlot>, batch: RingBatch, reserved_bytes: usize) {
        let base_offset = batch.base_offset;
        let mut queue = self.queue.lock();
        queue.reserved_bytes -= reserved_bytes;
        queue.used_bytes += batch.charge();
        queue.order.push_back(slot.clone());
        queue.live += 1;
        {
            let mut slot = slot.inner.lock();
            if slot.batches.back().is_some_and(|last| last.last_offset + 1 != base_offset) {
                let (batches, charged_bytes) = slot.forget_below(Offset::MAX);
                queue.forgot(batches.len(), charged_bytes);
            }
            slot.charged_bytes += batch.charge();
            slot.batches.push_back(batch);
        }
        if queue.order.len() > 2 * queue.live + STALE_ENTRIES_MAX {
            queue.drop_stale();
        }
        self.evict_beyond_budget(queue);
    }

    fn evict_beyond_budget<'a>(&'a self, mut queue: MutexGuard<'a, Queue>) {
        while queue.used_bytes + queue.reserved_bytes > self.budget_bytes {
            let evicted = queue.evict();
            // Freeing a large buffer may give pages back to the kernel: not under the shared lock.
            drop(queue);
            drop(evicted);
            queue = self.queue.lock();
        }
    }

    /// Forgets everything of one partition. Its queue entries stay until they come to the front, but weigh nothing.
    pub(in crate::log) fn clear(&self, slot: &RingSlot) {
        self.forget_below(slot, Offset::MAX);
    }

    /// Forgets the batches of one partition that end below `offset`: they were deleted, or compaction replaced them.
    pub(in crate::log) fn forget_below(&self, slot: &RingSlot, offset: Offset) {
        let mut queue = self.queue.lock();
        let (batches, charged_bytes) = slot.inner.lock().forget_below(offset);
        queue.forgot(batches.len(), charged_bytes);
        drop(queue);
        drop(batches);
    }
}

/// Room in a ring that is given back when it is dropped, as far as it was not spent.
#[derive(Debug)]
pub(in crate::log) struct Reserved {
    ring: Arc<Ring>,
    bytes: usize,
}

impl Reserved {
    /// As [`Ring::keep`], out of what was reserved.
    pub(in crate::log) fn keep(
        &mut self,
        slot: &Arc<RingSlot>,
        base_offset: Offset,
        last_offset: Offset,
        bytes: Bytes,
    ) {
        let batch = RingBatch { base_offset, last_offset, bytes };
        let spent_bytes = batch.charge().min(self.bytes);
        self.bytes -= spent_bytes;
        self.ring.put(slot, batch, spent_bytes);
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.ring.queue.lock().reserved_bytes -= self.bytes;
    }
}

impl Queue {
    /// Takes the oldest batch out.
    fn evict(&mut self) -> Option<RingBatch> {
        let slot = self.order.pop_front()?;
        let mut slot = slot.inner.lock();
        if slot.stale > 0 {
            slot.stale -= 1;
            return None;
        }
        let batch = slot.batches.pop_front()?;
        slot.charged_bytes -= batch.charge();
        self.forgot(1, batch.charge());
        Some(batch)
    }

    fn forgot(&mut self, batches: usize, charged_bytes: usize) {
        self.live -= batches;
        self.used_bytes -= charged_bytes;
    }

    /// Takes the entries out that nothing belongs to. They go by themselves where the budget is used up, which that of
    /// reading ahead seldom is.
    fn drop_stale(&mut self) {
        self.order.retain(|slot| {
            let mut slot = slot.inner.lock();
            let live = slot.stale == 0;
            slot.stale -= usize::from(!live);
            live
        });
    }
}

impl Slot {
    /// Takes the batches out that end below `offset`, with what they were charged.
    fn forget_below(&mut self, offset: Offset) -> (VecDeque<RingBatch>, usize) {
        let kept = self.batches.split_off(self.batches.partition_point(|batch| batch.last_offset < offset));
        let batches = std::mem::replace(&mut self.batches, kept);
        self.stale += batches.len();
        let charged_bytes = batches.iter().map(RingBatch::charge).sum();
        self.charged_bytes -= charged_bytes;
        (batches, charged_bytes)
    }
}

impl Slot {
    /// The batches take more than this: where those begin that take half of it.
    fn too_old(&self, bytes_max: usize) -> Option<Offset> {
        if self.charged_bytes <= bytes_max {
            return None;
        }
        let mut left = self.charged_bytes;
        let kept = self.batches.iter().find(|batch| {
            let keep = left <= bytes_max / 2;
            left -= batch.charge();
            keep
        });
        Some(kept.map_or(Offset::MAX, |batch| batch.base_offset))
    }
}

impl RingBatch {
    fn charge(&self) -> usize {
        self.bytes.len() + BATCH_OVERHEAD_BYTES
    }
}

impl RingSlot {
    /// Whether there is a batch that contains `offset`.
    pub(in crate::log) fn holds(&self, offset: Offset) -> bool {
        let slot = self.inner.lock();
        let ends = slot.batches.front().zip(slot.batches.back());
        ends.is_some_and(|(first, last)| first.base_offset <= offset && offset <= last.last_offset)
    }

    /// The bytes of the batches from `offset` on, and where they end; `offset` and 0 if it is in none of them.
    pub(in crate::log) fn held_from(&self, offset: Offset) -> (Offset, usize) {
        let slot = self.inner.lock();
        if slot.batches.front().is_none_or(|first| first.base_offset > offset) {
            return (offset, 0);
        }
        let first = slot.batches.partition_point(|batch| batch.last_offset < offset);
        let held = slot.batches.range(first..);
        held.fold((offset, 0), |(_, bytes), batch| (batch.last_offset + 1, bytes + batch.bytes.len()))
    }

    /// Whole batches from the one that contains `from` to the last one that ends before `upto`. `None`: `from` lies
    /// before what is remembered. Limits as in [`crate::log::reading::read::LogReader::read`].
    pub(in crate::log) fn read(
        &self,
        from: Offset,
        upto: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Option<Read> {
        if from >= upto {
            return Some(Read::default());
        }
        let slot = self.inner.lock();
        if slot.batches.front().is_none_or(|first| first.base_offset > from) {
            return None;
        }
        let first = slot.batches.partition_point(|batch| batch.last_offset < from);
        // Nothing at or above `from` though `upto` lies higher: a gap that only storage can explain.
        slot.batches.get(first)?;
        let mut read = Read::default();
        for batch in slot.batches.range(first..) {
            if batch.last_offset >= upto || !read.admits(batch.bytes.len(), max_bytes, at_least_one) {
                break;
            }
            read.push(batch.bytes.clone(), batch.last_offset);
        }
        Some(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(fill: u8, len: usize) -> Bytes {
        Bytes::from(vec![fill; len])
    }

    fn push(ring: &Ring, slot: &Arc<RingSlot>, base: i64, last: i64, len: usize) {
        ring.push(slot, Offset(base), Offset(last), &batch(base as u8, len));
    }

    fn read(slot: &RingSlot, from: i64, upto: i64, max: usize) -> Option<Vec<u8>> {
        let read = slot.read(Offset(from), Offset(upto), max, true)?;
        Some(read.batches.iter().map(|batch| batch[0]).collect())
    }

    #[test]
    fn of_a_log_that_is_followed_the_newest_are_kept() {
        let (ring, slot, other) = (Ring::new(64 << 20), Arc::default(), Arc::default());
        push(&ring, &other, 0, 0, 100);
        let size = 10_000;
        let fetched = |n: i64| ring.push_fetched(&slot, Offset(n), Offset(n), &batch(0, size));
        let of_slot = || slot.inner.lock().charged_bytes;
        for n in 0..1000 {
            fetched(n);
            assert!(of_slot() <= FETCHED_BYTES_MAX && ring.used_bytes() == of_slot() + 100 + BATCH_OVERHEAD_BYTES);
        }
        assert!(of_slot() >= FETCHED_BYTES_MAX / 2 - size - BATCH_OVERHEAD_BYTES);
        assert!(slot.holds(Offset(999)) && slot.holds(Offset(910)) && !slot.holds(Offset(700)));
        assert!(other.holds(Offset(0)), "others lose nothing by it");
        ring.push_fetched(&slot, Offset(1000), Offset(1000), &batch(0, COPY_BELOW_BYTES));
        assert_eq!(of_slot(), 0, "one that is large is not kept");
        fetched(1001);
        ring.clear(&slot);
        assert_eq!((of_slot(), ring.used_bytes()), (0, 100 + BATCH_OVERHEAD_BYTES));
    }

    #[test]
    fn reads_whole_batches_from_the_one_that_holds_the_offset() {
        let (ring, slot) = (Ring::new(1 << 20), Arc::default());
        for base in [0, 3, 6] {
            push(&ring, &slot, base, base + 2, 10);
        }
        assert_eq!(read(&slot, 0, 9, 100), Some(vec![0, 3, 6]));
        assert_eq!(read(&slot, 4, 9, 100), Some(vec![3, 6]));
        assert_eq!(read(&slot, 4, 8, 100), Some(vec![3]), "a batch that reaches past the bound is left out");
        assert_eq!(read(&slot, 0, 9, 25), Some(vec![0, 3]));
        assert_eq!(read(&slot, 0, 9, 1), Some(vec![0]), "at least one, whatever its size");
        assert_eq!(slot.read(Offset(0), Offset(9), 1, false).expect("in the ring").bytes, 0);
        assert_eq!(read(&slot, 9, 9, 100), Some(vec![]));
        assert_eq!(read(&slot, 9, 12, 100), None);
    }

    #[test]
    fn the_oldest_batch_of_any_partition_goes_first() {
        let ring = Ring::new(3 * (10 + BATCH_OVERHEAD_BYTES));
        let (idle, busy) = (Arc::default(), Arc::default());
        push(&ring, &idle, 0, 0, 10);
        for base in 0..3 {
            push(&ring, &busy, base, base, 10);
        }
        assert_eq!(read(&idle, 0, 1, 100), None);
        assert_eq!(read(&busy, 0, 3, 100), Some(vec![0, 1, 2]));
        push(&ring, &busy, 3, 3, 10);
        assert_eq!(read(&busy, 0, 4, 100), None);
        assert_eq!(read(&busy, 1, 4, 100), Some(vec![1, 2, 3]));
        assert!(ring.used_bytes() <= ring.budget_bytes);
    }

    #[test]
    fn a_cleared_partition_weighs_nothing_and_its_new_batches_are_kept() {
        let ring = Ring::new(3 * (10 + BATCH_OVERHEAD_BYTES));
        let (cut, other) = (Arc::default(), Arc::default());
        push(&ring, &cut, 0, 0, 10);
        push(&ring, &cut, 1, 1, 10);
        ring.clear(&cut);
        assert_eq!(ring.used_bytes(), 0);
        push(&ring, &cut, 1, 1, 10);
        push(&ring, &other, 0, 0, 10);
        push(&ring, &other, 1, 1, 10);
        assert_eq!(read(&cut, 1, 2, 100), Some(vec![1]));
        push(&ring, &other, 2, 2, 10);
        assert_eq!(read(&cut, 1, 2, 100), None);
        assert_eq!(read(&other, 0, 3, 100), Some(vec![0, 1, 2]));
    }

    #[test]
    fn what_was_deleted_or_replaced_is_forgotten_and_the_rest_stays() {
        let ring = Ring::new(3 * (10 + BATCH_OVERHEAD_BYTES));
        let slot = Arc::default();
        for base in 0..3 {
            push(&ring, &slot, base, base, 10);
        }
        ring.forget_below(&slot, Offset(2));
        assert_eq!(ring.used_bytes(), 10 + BATCH_OVERHEAD_BYTES);
        assert_eq!((read(&slot, 1, 3, 100), read(&slot, 2, 3, 100)), (None, Some(vec![2])));
        for base in 3..6 {
            push(&ring, &slot, base, base, 10);
        }
        assert_eq!((read(&slot, 2, 6, 100), read(&slot, 3, 6, 100)), (None, Some(vec![3, 4, 5])));
    }

    #[test]
    fn what_is_forgotten_all_the_time_leaves_no_queue_behind() {
        let (ring, idle, busy) = (Ring::new(1 << 20), Arc::default(), Arc::default());
        push(&ring, &idle, 0, 0, 10);
        for base in 0..5 * STALE_ENTRIES_MAX as i64 {
            push(&ring, &busy, base, base, 10);
            ring.forget_below(&busy, Offset(base));
        }
        assert!(ring.queue.lock().order.len() <= STALE_ENTRIES_MAX + 5);
        assert_eq!(ring.used_bytes(), 2 * (10 + BATCH_OVERHEAD_BYTES));
        assert_eq!(read(&idle, 0, 1, 100), Some(vec![0]));
    }

    #[test]
    fn what_is_still_to_come_counts_as_if_it_were_there() {
        let of_one = 10 + BATCH_OVERHEAD_BYTES;
        let (ring, slot) = (Arc::new(Ring::new(3 * of_one)), Arc::default());
        for base in 0..3 {
            push(&ring, &slot, base, base, 10);
        }
        let mut reserved = ring.reserve(2 * of_one).expect("the oldest make room");
        assert_eq!((ring.used_bytes(), ring.claimed_bytes()), (of_one, 3 * of_one));
        assert!(ring.reserve(2 * of_one).is_none(), "what is under way does not make room");
        reserved.keep(&slot, Offset(3), Offset(3), batch(3, 10));
        assert_eq!((ring.used_bytes(), ring.claimed_bytes()), (2 * of_one, 3 * of_one));
        drop(reserved);
        assert_eq!(ring.claimed_bytes(), 2 * of_one, "what was not spent is given back");
        assert_eq!(read(&slot, 2, 4, 100), Some(vec![2, 3]));
    }

    #[test]
    fn a_gap_forgets_what_came_before() {
        let (ring, slot) = (Ring::new(1 << 20), Arc::default());
        push(&ring, &slot, 0, 0, 10);
        push(&ring, &slot, 5, 5, 10);
        assert_eq!(read(&slot, 0, 6, 100), None);
        assert_eq!(read(&slot, 5, 6, 100), Some(vec![5]));
    }

    #[test]
    fn small_batches_do_not_pin_their_frame() {
        let (ring, slot) = (Ring::new(1 << 20), Arc::default());
        let frame = batch(1, 1 << 10);
        ring.push(&slot, Offset(0), Offset(0), &frame.slice(..100));
        let read = slot.read(Offset(0), Offset(1), 1 << 10, true).expect("in the ring");
        assert!(!frame.as_ptr_range().contains(&read.batches[0].as_ptr()));
    }
}
