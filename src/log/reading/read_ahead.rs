//! Read-ahead for a consumer that is behind the tail: what it will ask for next is read while the last answer is on its
//! way, so that it waits for the disk only once.
//!
//! A directory has one [`Ring`] for it, in which the oldest goes first. A partition remembers one stretch of its log;
//! two consumers at different places displace each other and then read from storage, where the page cache has what the
//! first of them read. `fill` reads. What a fill will read counts in the ring before it is read; where the ring is full
//! of fills under way, nothing more is read ahead.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::log::reading::batches::Read;
use crate::log::reading::ring::{Reserved, Ring, RingSlot};
use crate::record::BatchHeader;
use crate::types::Offset;

/// How long a reader waits for a fill that is on its way before it reads by itself.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// A partition whose fills were evicted unread this many times in a row fills only one time in as many powers of two.
const WASTED_MAX: u32 = 6;

/// One partition's stretch.
#[derive(Debug)]
pub(in crate::log) struct ReadAhead {
    pub(in crate::log) ring: Arc<Ring>,
    slot: Arc<RingSlot>,
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// A fill was handed out and has not ended.
    filling: bool,
    /// Counts what made the stretch untrue; a fill that began before is thrown away.
    generation: u64,
    /// Where the last fill began, until it is read.
    unread: Option<Offset>,
    /// Fills in a row that were gone before they were read.
    wasted: u32,
    /// Fills to leave out because of that.
    pause: u32,
}

impl ReadAhead {
    pub(in crate::log) fn new(ring: Arc<Ring>) -> Self {
        Self { ring, slot: Arc::default(), state: Mutex::default(), filled: Condvar::new() }
    }

    /// As [`RingSlot::read`], and what lies below `from` is forgotten: a reader asks for an offset twice (its answer
    /// may get lost), but does not go back. Never blocks.
    pub(in crate::log) fn read(
        &self,
        from: Offset,
        upto: Offset,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Option<Read> {
        let read = self.slot.read(from, upto, max_bytes, at_least_one)?;
        self.ring.forget_below(&self.slot, from);
        let mut state = self.state.lock();
        state.unread = None;
        state.wasted = 0;
        Some(Read { behind_tail: true, ..read })
    }

    /// Waits for a fill on its way; false: there is none. Blocks.
    pub(in crate::log) fn wait(&self) -> bool {
        let mut state = self.state.lock();
        if !state.filling {
            return false;
        }
        self.filled.wait_while_for(&mut state, |state| state.filling, WAIT_MAX);
        true
    }

    /// Forgets everything: batches were deleted or replaced.
    pub(in crate::log) fn clear(&self) {
        let mut state = self.state.lock();
        state.generation += 1;
        self.ring.clear(&self.slot);
    }

    /// Where to go on, with room for `fill_bytes`, if a reader that stands at `end` and takes up to `bytes` at once
    /// should find more.
    pub(in crate::log) fn plan(&self, end: Offset, bytes: usize, fill_bytes: usize) -> Option<(Offset, u64, Reserved)> {
        let (from, held_bytes) = self.slot.held_from(end);
        let mut state = self.state.lock();
        // As much again as the next read takes, so that the fill after it has begun before it is needed.
        if state.filling || held_bytes >= bytes.saturating_mul(2) {
            return None;
        }
        if held_bytes == 0 && state.unread.take().is_some_and(|unread| unread <= end) {
            state.wasted = (state.wasted + 1).min(WASTED_MAX);
            state.pause = (1 << state.wasted) - 1;
        }
        if state.pause > 0 {
            state.pause -= 1;
            return None;
        }
        let reserved = self.ring.reserve(fill_bytes)?;
        state.filling = true;
        state.unread = Some(from);
        Some((from, state.generation, reserved))
    }

    /// Takes what a fill of this generation has read; anything that made the stretch untrue since throws it away.
    pub(in crate::log) fn keep(&self, generation: u64, from: Offset, read: Read, reserved: &mut Reserved) {
        let state = self.state.lock();
        if state.generation != generation {
            return;
        }
        let mut next = from;
        for batch in read.batches {
            let Ok(header) = BatchHeader::parse(&batch) else { return };
            // Compaction leaves gaps between batches. Here each begins where the one before it ended.
            reserved.keep(&self.slot, header.base_offset.min(next), header.last_offset(), batch);
            next = header.last_offset() + 1;
        }
    }

    /// A fill is over, whatever it found.
    pub(in crate::log) fn on_fill_ended(&self) {
        self.state.lock().filling = false;
        self.filled.notify_all();
    }
}
