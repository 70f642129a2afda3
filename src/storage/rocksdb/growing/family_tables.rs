//! Which growing tables a family has: the list that it owns, and those that left it.
//!
//! They stand in the order of their keys, and only the last one grows.
//!
//! A list is replaced as a whole, behind a lock that is held while a pointer is copied. The crate arc-swap does without
//! one; but in 1.9.3 a reader that is held up between two of its steps may get what lies at the old address by then,
//! of whatever type (its issue 210), and these lists come and go all the time.

use std::ops::RangeInclusive;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard, RwLock};

use super::table::GrowingTable;
use crate::types::Offset;

/// The tables of a family that are not RocksDB's yet.
#[derive(Debug, Default)]
pub(in crate::storage::rocksdb) struct FamilyTables {
    list: RwLock<Arc<Vec<Arc<GrowingTable>>>>,
    /// Tables before those, which are RocksDB's by now and are still read block by block.
    handed_over: RwLock<Arc<Vec<HandedOver>>>,
    /// Held while a list changes.
    changing: Mutex<()>,
    /// Held while one of them is handed over or removed.
    moving: Mutex<()>,
    /// Below the log's start, out of the list, and still on the disk.
    dropped: Mutex<Vec<Arc<GrowingTable>>>,
}

/// A table that RocksDB has taken over, for as long as the page cache keeps some of it: reading it by its own blocks
/// takes one copy out of there, and RocksDB's way two.
#[derive(Debug, Clone)]
struct HandedOver {
    first: Offset,
    last: Offset,
    table: Weak<GrowingTable>,
}

impl FamilyTables {
    /// As they are now. A reader that finds the same list after it made an iterator misses nothing.
    pub(in crate::storage::rocksdb) fn list(&self) -> Arc<Vec<Arc<GrowingTable>>> {
        Arc::clone(&self.list.read())
    }

    /// A table behind the others.
    pub(in crate::storage::rocksdb) fn push(&self, table: &Arc<GrowingTable>) {
        let _changing = self.changing.lock();
        let mut list = Vec::clone(&self.list());
        list.push(Arc::clone(table));
        replace(&self.list, list);
    }

    /// The first table with something from `next` on that was handed over, holds what RocksDB holds, and is at hand.
    pub(in crate::storage::rocksdb) fn handed_over(&self, next: Offset) -> Option<Arc<GrowingTable>> {
        let tables = Arc::clone(&self.handed_over.read());
        let first = tables.partition_point(|table| table.last < next);
        tables[first..].iter().find_map(|table| table.table.upgrade())
    }

    /// Leaves keys to RocksDB that are about to change.
    pub(in crate::storage::rocksdb) fn forget_handed_over(&self, last_offsets: RangeInclusive<Offset>) {
        let untouched = |table: &HandedOver| {
            let relied_on = || table.table.upgrade().and_then(|table| table.relies_on());
            table.last < *last_offsets.start()
                || *last_offsets.end() < relied_on().map_or(table.first, |(first, _)| first)
        };
        // Mostly something is added behind all of them.
        if self.handed_over.read().iter().rev().take_while(|table| *last_offsets.start() <= table.last).all(untouched) {
            return;
        }
        let _changing = self.changing.lock();
        let mut left = Vec::clone(&self.handed_over.read());
        left.retain(untouched);
        replace(&self.handed_over, left);
    }

    /// Takes a table that RocksDB has out of the list. Answers whether it was there.
    pub(super) fn hand_over(&self, table: &Arc<GrowingTable>) -> bool {
        self.remove(table, || {
            let mut tables = Vec::clone(&self.handed_over.read());
            tables.retain(|table| table.table.strong_count() > 0);
            let bounds = table.bounds();
            tables.extend(bounds.map(|(first, last)| HandedOver { first, last, table: Arc::downgrade(table) }));
            replace(&self.handed_over, tables);
        })
    }

    /// Answers whether it was there. `to`: what else is done with it then, before it is gone from the list.
    fn remove(&self, table: &Arc<GrowingTable>, to: impl FnOnce()) -> bool {
        let _changing = self.changing.lock();
        let mut list = Vec::clone(&self.list());
        let before = list.len();
        list.retain(|other| !Arc::ptr_eq(other, table));
        let removed = list.len() < before;
        if removed {
            to();
            replace(&self.list, list);
        }
        removed
    }

    /// Whether a loss of power could take some of what they hold.
    pub(in crate::storage::rocksdb) fn has_unsynced(&self) -> bool {
        self.list.read().iter().any(|table| !table.is_synced())
    }

    pub(in crate::storage::rocksdb) fn has_any(&self) -> bool {
        !self.list.read().is_empty()
    }

    /// Takes a table out of the list that is not handed over. Its file stays until it is [taken](Self::take_dropped).
    pub(super) fn drop_table(&self, table: &Arc<GrowingTable>) {
        table.seal();
        if self.remove(table, || ()) {
            self.dropped.lock().push(Arc::clone(table));
        }
    }

    /// Whether files of dropped tables wait to be removed.
    pub(super) fn has_dropped(&self) -> bool {
        !self.dropped.lock().is_empty()
    }

    /// Takes the dropped tables that lie below this offset, to remove their files.
    pub(super) fn take_dropped(&self, below: Offset) -> Vec<Arc<GrowingTable>> {
        let lies_below = |table: &mut Arc<GrowingTable>| table.last().is_none_or(|last| last < below);
        self.dropped.lock().extract_if(.., lies_below).collect()
    }

    /// Their files could not be removed yet.
    pub(super) fn put_back_dropped(&self, tables: Vec<Arc<GrowingTable>>) {
        self.dropped.lock().extend(tables);
    }

    /// Held while one of them is handed over or removed.
    pub(in crate::storage::rocksdb) fn lock_moves(&self) -> MutexGuard<'_, ()> {
        self.moving.lock()
    }

    pub(super) fn is_listed(&self, table: &Arc<GrowingTable>) -> bool {
        self.list.read().iter().any(|other| Arc::ptr_eq(other, table))
    }
}

/// Puts a list in the place of another, which is freed without the lock: a file may be closed along with it.
fn replace<T>(place: &RwLock<Arc<Vec<T>>>, list: Vec<T>) {
    let before = std::mem::replace(&mut *place.write(), Arc::new(list));
    drop(before);
}
