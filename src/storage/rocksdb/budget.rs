//! The memory for what is not yet in files: how much, and what happens when flushing lags.
//!
//! RocksDB flushes the oldest family, one per write, when the budget is nearly used up, but never holds writes back for
//! it. With a thousand families one write adds more than one flush takes away, and a flush that is starved of CPU falls
//! behind with any number of them. So the writer waits at a limit, and begins to flush all families there. (Flushing
//! all of them always, with one new log instead of one per family, was tried: no gain at six families, a loss at a
//! thousand.)

use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::debug;

use super::Shared;
use super::failure::Operation;
use super::options::DirectoryOptions;
use super::raw::{Cf, WriteBuffer};
use crate::storage::StorageError;

/// The write-ahead log may hold this many times the budget: enough that memory, not the log, decides when a family is
/// flushed, and little enough that replaying it takes a moment.
pub(super) const WAL_PER_BUDGET: usize = 2;

/// Bytes per active partition that keep the number of flushes, and so their fixed cost, in proportion.
const BUDGET_PER_ACTIVE_BYTES: usize = 5 << 19;

/// Memory of memtables, and its bounds.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) buffer: WriteBuffer,
    bytes: AtomicUsize,
}

impl Budget {
    pub(super) fn new(bytes: usize) -> Self {
        Self { buffer: WriteBuffer::new(bytes), bytes: AtomicUsize::new(bytes) }
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
}

/// The budget for so many families that are being written to.
fn wanted(active: usize, options: &DirectoryOptions) -> usize {
    let wanted = active.saturating_mul(BUDGET_PER_ACTIVE_BYTES).checked_next_power_of_two().unwrap_or(usize::MAX);
    wanted.clamp(options.write_buffer_bytes, options.write_buffer_bytes_max.max(options.write_buffer_bytes))
}

impl Shared {
    /// Begins to flush every family if RocksDB has not begun enough. It refuses while it stalls writes; a flush that
    /// fails for good shows at the next write.
    pub(super) fn catch_up(&self) {
        if self.budget.buffer.unflushed_bytes() <= self.budget.bytes() {
            return;
        }
        if let Err(error) = self.db.flush(&self.unflushed(), false) {
            debug!(dir = %self.dir.display(), %error, "flush not begun");
        }
    }

    /// Families, fixed ones included, that have something in memory which is not in files.
    pub(super) fn unflushed(&self) -> Vec<Cf<'_>> {
        let holds = |cf: &Cf<'_>| {
            let value = |name| self.db.property(cf.clone(), name).unwrap_or(0);
            value("rocksdb.num-entries-active-mem-table") + value("rocksdb.num-immutable-mem-table") > 0
        };
        self.db.all_families().into_iter().filter(holds).collect()
    }

    pub(super) fn flush_all(&self) -> Result<(), StorageError> {
        self.rocks(Operation::Flush, |db| db.flush(&self.unflushed(), true))
    }

    /// Sets the budget for so many active families, and the length of the write-ahead log along with it.
    pub(super) fn set_budget(&self, active: usize) -> Result<(), StorageError> {
        let (wanted, current) = (wanted(active, &self.options), self.budget.bytes());
        // Down only when far too large: changing the log's bound rewrites RocksDB's options file.
        if wanted <= current && wanted * 4 > current {
            return Ok(());
        }
        self.budget.set(wanted);
        let wal = (wanted * WAL_PER_BUDGET).to_string();
        self.rocks(Operation::Describe, |db| db.set_options(&[("max_total_wal_size", wal)]))
    }
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
