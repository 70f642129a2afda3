//! Growing tables that anybody holds, and so files that are open: counted, and bounded where replies hold them.
//!
//! A reply that a slow client takes by and by holds the tables that its records lie in. One that was deleted
//! meanwhile keeps its space on the disk and its descriptor; without a bound, clients that read nothing would use up
//! both. So replies hold so many at most; beyond that records are read into memory, whose budget bounds them.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

/// See the file's header. Of one log directory.
#[derive(Debug)]
pub(in crate::storage::rocksdb) struct OpenTables {
    open: AtomicUsize,
    /// Of those the ones that replies hold.
    lent: AtomicUsize,
    lent_max: usize,
    /// Held by nobody else: to be closed where that may take a moment.
    to_close: Mutex<Vec<Arc<dyn Any + Send + Sync>>>,
}

impl OpenTables {
    pub(in crate::storage::rocksdb) fn new(lent_max: usize) -> Self {
        Self { open: AtomicUsize::new(0), lent: AtomicUsize::new(0), lent_max, to_close: Mutex::default() }
    }

    pub(in crate::storage::rocksdb) fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    pub(in crate::storage::rocksdb) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether another table may be lent to a reply. Several at once may come to pass it by a few.
    pub(in crate::storage::rocksdb) fn may_lend(&self) -> bool {
        self.lent.load(Ordering::Relaxed) < self.lent_max
    }

    /// A table that no reply held is lent to one.
    pub(in crate::storage::rocksdb) fn lent(&self) {
        self.lent.fetch_add(1, Ordering::Relaxed);
    }

    /// No reply holds it any more.
    pub(in crate::storage::rocksdb) fn given_back(&self) {
        self.lent.fetch_sub(1, Ordering::Relaxed);
    }

    /// Leaves a table to [`close_all`](Self::close_all): closing the file frees what it had on the disk, if its name is
    /// gone.
    pub(in crate::storage::rocksdb) fn close_later(&self, table: Arc<dyn Any + Send + Sync>) {
        self.to_close.lock().push(table);
    }

    /// Closes what was left to it. May block on the disk.
    pub(in crate::storage::rocksdb) fn close_all(&self) {
        let closed = std::mem::take(&mut *self.to_close.lock());
        drop(closed);
    }
}
