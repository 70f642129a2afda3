//! What is known of one family beyond its files.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use parking_lot::{Mutex, MutexGuard};

use crate::storage::LogEndState;
use crate::storage::rocksdb::growing::family_tables::FamilyTables;
use crate::storage::rocksdb::growing::logged::Logged;
use crate::types::Offset;

/// What is known of a family beyond its files.
#[derive(Debug, Default)]
pub(in crate::storage::rocksdb) struct FamilyState {
    /// Batches whose last offset is lower are gone, whatever the files say. `i64::MAX` once its partition is deleted.
    start: AtomicI64,
    /// Files may be deleted that lie below as a whole; held while they are. As the start, but 0 from the moment on when
    /// a log that begins anew at an earlier offset is about to be written.
    droppable: Mutex<Offset>,
    /// Only under the writer lock: one past the highest last offset written since the directory was opened, and whether
    /// that covers what was there before.
    end: AtomicI64,
    end_known: AtomicBool,
    /// Only under the writer lock: batches from here on are of sets that were refused for want of space after they had
    /// been handed over. They go before anything else is added. One more than the last offset of the first; 0: there
    /// are none.
    undo: AtomicI64,
    /// Only under the writer lock.
    logged: Mutex<Logged>,
    /// What is not RocksDB's yet.
    tables: FamilyTables,
    /// Why its batches cannot be read, if some were found to be damaged in a way that leaves open what there was.
    damaged: Mutex<Option<Arc<str>>>,
    /// Damaged tables of it were removed by hand, and none has come since.
    lacks_tables: AtomicBool,
    /// Its log may lack its end, for what was known before this start.
    end_in_doubt: AtomicBool,
    /// What a loss of power left in its tables was not cut off yet.
    uncut: AtomicBool,
}

impl FamilyState {
    pub(in crate::storage::rocksdb) fn start(&self) -> Offset {
        Offset(self.start.load(Ordering::Acquire))
    }

    pub(in crate::storage::rocksdb) fn set_start(&self, start: Offset) {
        self.start.store(start.0, Ordering::Release);
        *self.droppable.lock() = start;
    }

    /// Before something is written below the start.
    pub(in crate::storage::rocksdb) fn keep_files(&self) {
        *self.droppable.lock() = Offset::ZERO;
    }

    pub(in crate::storage::rocksdb) fn undo_from(&self, last_offset: Offset) {
        let before = self.undo.load(Ordering::Relaxed);
        let first = if before == 0 { last_offset.0 + 1 } else { before.min(last_offset.0 + 1) };
        self.undo.store(first, Ordering::Relaxed);
    }

    /// What is to be undone before batches are added.
    pub(in crate::storage::rocksdb) fn take_undo(&self) -> Option<Offset> {
        let first = self.undo.load(Ordering::Relaxed);
        if first == 0 {
            return None;
        }
        self.undo.store(0, Ordering::Relaxed);
        Some(Offset(first - 1))
    }

    /// One past the highest last offset; `None`: what there is has to be looked at, and [learned](Self::learn_end).
    pub(in crate::storage::rocksdb) fn end(&self) -> Option<Offset> {
        self.end_known.load(Ordering::Relaxed).then(|| Offset(self.end.load(Ordering::Relaxed)))
    }

    /// `last`: the highest last offset of what is there. Answers with the end.
    pub(in crate::storage::rocksdb) fn learn_end(&self, last: Option<Offset>) -> Offset {
        if let Some(last) = last {
            self.added(last);
        }
        self.end_known.store(true, Ordering::Relaxed);
        Offset(self.end.load(Ordering::Relaxed))
    }

    /// A batch was added.
    pub(in crate::storage::rocksdb) fn added(&self, last_offset: Offset) {
        self.end.fetch_max(last_offset.0.saturating_add(1), Ordering::Relaxed);
    }

    /// All from here on was deleted.
    pub(in crate::storage::rocksdb) fn cut(&self, end: Offset) {
        self.end.store(end.0, Ordering::Relaxed);
    }

    /// The end has to be looked at again.
    pub(in crate::storage::rocksdb) fn forget_end(&self) {
        self.end_known.store(false, Ordering::Relaxed);
        self.end.store(0, Ordering::Relaxed);
    }

    /// What of it went to RocksDB's log.
    pub(in crate::storage::rocksdb) fn logged(&self) -> MutexGuard<'_, Logged> {
        self.logged.lock()
    }

    /// What of it is not RocksDB's yet.
    pub(in crate::storage::rocksdb) fn tables(&self) -> &FamilyTables {
        &self.tables
    }

    /// Its log must not be opened, for this reason.
    pub(in crate::storage::rocksdb) fn note_damaged(&self, why: Arc<str>) {
        self.damaged.lock().get_or_insert(why);
    }

    /// Why its log must not be opened, if so.
    pub(in crate::storage::rocksdb) fn damaged(&self) -> Option<Arc<str>> {
        self.damaged.lock().clone()
    }

    /// Damaged tables of it were removed by hand.
    pub(in crate::storage::rocksdb) fn note_lacks_tables(&self) {
        self.lacks_tables.store(true, Ordering::Relaxed);
    }

    pub(in crate::storage::rocksdb) fn lacks_tables(&self) -> bool {
        self.lacks_tables.load(Ordering::Relaxed)
    }

    pub(super) fn note_end_in_doubt(&self) {
        self.end_in_doubt.store(true, Ordering::Relaxed);
    }

    pub(in crate::storage::rocksdb) fn note_uncut(&self, uncut: bool) {
        self.uncut.store(uncut, Ordering::Relaxed);
    }

    pub(in crate::storage::rocksdb) fn is_uncut(&self) -> bool {
        self.uncut.load(Ordering::Relaxed)
    }

    pub(in crate::storage::rocksdb) fn log_end_state(&self) -> LogEndState {
        match self.damaged() {
            Some(_) if self.is_uncut() => LogEndState::Uncut,
            // That it cannot be read settles nothing.
            _ if self.end_in_doubt.load(Ordering::Relaxed) => LogEndState::MayBeLost,
            Some(_) => LogEndState::Refused,
            None if self.lacks_tables() => LogEndState::MayBeLost,
            None => LogEndState::AsWritten,
        }
    }

    /// Where files may be deleted that lie below as a whole. Held while they are.
    pub(super) fn droppable(&self) -> MutexGuard<'_, Offset> {
        self.droppable.lock()
    }

    /// Back to what a family without a batch is.
    pub(super) fn reset(&self) {
        self.end.store(0, Ordering::Relaxed);
        self.end_known.store(true, Ordering::Relaxed);
        *self.logged.lock() = Logged::default();
        self.undo.store(0, Ordering::Relaxed);
        *self.damaged.lock() = None;
        self.lacks_tables.store(false, Ordering::Relaxed);
        self.end_in_doubt.store(false, Ordering::Relaxed);
        self.note_uncut(false);
        self.set_start(Offset::ZERO);
    }
}
