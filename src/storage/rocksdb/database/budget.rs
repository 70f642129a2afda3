//! The memory for what is not yet in files: how much, and what happens when flushing lags.
//!
//! RocksDB flushes the oldest family, one per write, when the budget is nearly used up, but never holds writes back for
//! it. With a thousand families one write adds more than one flush takes away, and a flush that is starved of CPU falls
//! behind with any number of them. So the writer waits at a limit, and begins to flush all families there. (Flushing
//! all of them always, with one new log instead of one per family, was tried: no gain at six families, a loss at a
//! thousand.)

use std::sync::atomic::{AtomicUsize, Ordering};

use super::options::DirectoryOptions;
use super::raw::WriteBuffer;

/// Bytes per active partition that keep the number of flushes, and so their fixed cost, in proportion.
const BUDGET_PER_ACTIVE_BYTES: usize = 5 << 19;

/// Memory of memtables, and its bounds.
#[derive(Debug)]
pub(super) struct Budget {
    buffer: WriteBuffer,
    bytes: AtomicUsize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self { buffer: WriteBuffer::new(bytes), bytes: AtomicUsize::new(bytes) }
    }

    /// The memory itself, for options that share it.
    pub(super) fn buffer(&self) -> &WriteBuffer {
        &self.buffer
    }

    fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, bytes: usize) {
        self.bytes.store(bytes, Ordering::Relaxed);
        self.buffer.set_size_bytes(bytes);
    }

    /// What memtables take, those being flushed included.
    pub(super) fn used_bytes(&self) -> usize {
        self.buffer.used_bytes()
    }

    /// Whether memtables take so much that the writer must wait: a starved flush must not eat the machine's memory.
    pub(super) fn is_overdrawn(&self) -> bool {
        self.used_bytes() > self.bytes() + (self.bytes() / 2).max(64 << 20)
    }

    /// Whether RocksDB has not begun to flush enough of it.
    pub(super) fn lags(&self) -> bool {
        self.buffer.unflushed_bytes() > self.bytes()
    }

    /// The budget that so many active families want, if it differs enough from what it is.
    pub(super) fn change_for(&self, active: usize, options: &DirectoryOptions) -> Option<usize> {
        let (wanted, current) = (wanted(active, options), self.bytes());
        // Down only when far too large: changing the log's bound rewrites RocksDB's options file.
        (wanted > current || wanted * 4 <= current).then_some(wanted)
    }
}

/// The budget for so many families that are being written to.
fn wanted(active: usize, options: &DirectoryOptions) -> usize {
    let wanted = active.saturating_mul(BUDGET_PER_ACTIVE_BYTES).checked_next_power_of_two().unwrap_or(usize::MAX);
    wanted.clamp(options.write_buffer_bytes, options.write_buffer_bytes_max.max(options.write_buffer_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_follows_the_number_of_active_families_within_its_bounds() {
        let options = DirectoryOptions::default();
        assert_eq!(wanted(0, &options), options.write_buffer_bytes);
        assert_eq!(wanted(20, &options), options.write_buffer_bytes);
        assert_eq!(wanted(50, &options), 128 << 20);
        assert_eq!(wanted(100, &options), 256 << 20);
        assert_eq!(wanted(usize::MAX, &options), options.write_buffer_bytes_max);
    }
}
