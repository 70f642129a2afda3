//! What of the growing tables' files stays in the page cache: what was written last, for consumers behind the tail.
//!
//! Older pages are given back as new ones are written, a stretch for a stretch, so that the kernel has new bytes
//! copied into pages that are there already. On a virtual machine a page that nobody used before costs several times
//! the copy into it, and a broker that only ever takes more of them pays that for every byte.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::Shared;
use super::growing::{GrowingTable, Stretch};

/// A thread looks after so many bytes of a table at once.
pub(super) const STRETCH_BYTES: u64 = 2 << 20;

/// Stretches at most: each may hold a descriptor.
const STRETCHES_MAX: usize = 512;

/// Stretches that were written, the oldest first.
#[derive(Debug, Default)]
pub(super) struct PageCache {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// To be sent to the disk.
    fresh: VecDeque<Written>,
    /// On their way, or there.
    kept: VecDeque<Written>,
    kept_bytes: u64,
    closing: bool,
}

#[derive(Debug)]
struct Written {
    table: Arc<GrowingTable>,
    stretch: Stretch,
}

impl PageCache {
    /// Takes note of what was written to a table, if that is much, or all there will be.
    pub(super) fn wrote(&self, table: &Arc<GrowingTable>, all: bool) {
        let Some(stretch) = table.take_stretch(if all { 1 } else { STRETCH_BYTES }) else { return };
        self.state.lock().fresh.push_back(Written { table: Arc::clone(table), stretch });
        self.changed.notify_one();
    }

    /// Lets go of files that were deleted meanwhile: their space comes back only then.
    pub(super) fn forget_deleted(&self) {
        let mut state = self.state.lock();
        state.kept.retain(|written| written.table.has_name());
        state.kept_bytes = state.kept.iter().map(|written| written.stretch.bytes()).sum();
    }

    /// Ends the thread.
    pub(super) fn close(&self) {
        self.state.lock().closing = true;
        self.changed.notify_one();
    }

    /// The next stretch that was written, once it counts as kept; `None` once closing.
    fn take(&self) -> Option<(Arc<GrowingTable>, Stretch)> {
        let mut state = self.state.lock();
        loop {
            if state.closing {
                return None;
            }
            if let Some(written) = state.fresh.pop_front() {
                let next = (Arc::clone(&written.table), written.stretch);
                state.kept_bytes += written.stretch.bytes();
                state.kept.push_back(written);
                return Some(next);
            }
            self.changed.wait(&mut state);
        }
    }

    /// The oldest stretch, if there are more bytes than these.
    fn take_surplus(&self, bytes_max: u64) -> Option<Written> {
        let mut state = self.state.lock();
        if state.kept_bytes <= bytes_max && state.kept.len() <= STRETCHES_MAX {
            return None;
        }
        let oldest = state.kept.pop_front()?;
        state.kept_bytes -= oldest.stretch.bytes();
        Some(oldest)
    }
}

/// Body of the thread.
pub(super) fn run(shared: &Shared) {
    while let Some((table, stretch)) = shared.page_cache.take() {
        // What is dirty is sent to the disk and stays for now.
        table.uncache(stretch);
        while let Some(oldest) = shared.page_cache.take_surplus(shared.options.cached_bytes) {
            oldest.table.uncache(oldest.stretch);
        }
    }
}
