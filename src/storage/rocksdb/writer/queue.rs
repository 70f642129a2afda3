//! The sets that wait for the writer, and the lock of whoever writes them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex, MutexGuard};

use super::state::WriterState;
use crate::storage::{Done, WriteSet};
use crate::types::limits::{GROUP_COMMIT_BYTES_MAX, INLINE_WRITE_BYTES_MAX, INLINE_WRITE_SETS_MAX};

/// Sets that wait for the writer.
#[derive(Debug, Default)]
pub(in crate::storage::rocksdb) struct Queue {
    state: Mutex<State>,
    /// The writer waits here for sets.
    filled: Condvar,
    /// Bytes of sets that are queued or being written.
    bytes: AtomicUsize,
    /// The writer lock: whoever writes holds it.
    lock: Mutex<WriterState>,
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

pub(super) struct Queued {
    /// Its place among all sets ever queued, from 1.
    pub(super) place: u64,
    pub(super) set: WriteSet,
    pub(super) bytes: usize,
    pub(super) done: Done,
}

impl Queue {
    /// Queues a set, or gives its `Done` back if the directory is closing. Never blocks: a caller may hold the lock
    /// that the `Done` of an earlier set waits for. What bounds the queue is admission, which counts a request until
    /// its writes are done. The writer is woken for more than a little; for less somebody has to [`wake`](Self::wake)
    /// it, or to write itself.
    pub(in crate::storage::rocksdb) fn push(&self, set: WriteSet, done: Done) -> Result<(), Done> {
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
    pub(in crate::storage::rocksdb) fn wake(&self) {
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
    pub(in crate::storage::rocksdb) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Sets queued so far.
    pub(super) fn pushed(&self) -> u64 {
        self.state.lock().pushed
    }

    #[cfg(test)]
    pub(in crate::storage::rocksdb) fn writer_sleeps(&self) -> bool {
        self.state.lock().writer_sleeps
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state.lock().closing
    }

    /// Lets the writer end once the queue is empty.
    pub(in crate::storage::rocksdb) fn close(&self) {
        let mut state = self.state.lock();
        state.closing = true;
        state.writer_sleeps = false;
        self.filled.notify_one();
    }

    /// Waits for the write that goes on now, if there is one.
    pub(in crate::storage::rocksdb) fn wait_for_write(&self) {
        drop(self.lock.lock());
    }

    /// The writer lock.
    pub(super) fn lock(&self) -> MutexGuard<'_, WriterState> {
        self.lock.lock()
    }

    /// So many bytes are written, or refused.
    pub(super) fn done(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes all that is queued, if the writer sleeps, nobody writes, and it is little and none of it has to wait for
    /// the disk. Wakes the writer for the rest.
    pub(super) fn take_little(
        &self,
        waits: impl Fn(&WriteSet) -> bool,
    ) -> Option<(MutexGuard<'_, WriterState>, Vec<Queued>)> {
        let mut state = self.state.lock();
        if state.sets.is_empty() || !state.writer_sleeps {
            return None;
        }
        let little = state.bytes <= INLINE_WRITE_BYTES_MAX
            && state.sets.len() <= INLINE_WRITE_SETS_MAX
            && state.sets.iter().all(|queued| !queued.set.sync && !waits(&queued.set));
        let lock = if little { self.lock.try_lock() } else { None };
        match lock {
            Some(lock) => {
                state.bytes = 0;
                Some((lock, state.sets.drain(..).collect()))
            }
            None => {
                self.wake_with(state);
                None
            }
        }
    }

    /// Waits for sets and takes the next group: as many as the cap allows, at least one. False: closed and empty.
    pub(super) fn take(&self, group: &mut Vec<Queued>) -> bool {
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
