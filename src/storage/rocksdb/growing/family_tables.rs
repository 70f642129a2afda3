//! Which growing tables a family has: the list that it owns, and those that left it.
//!
//! They stand in the order of their keys, and only the last one grows.
//!
//! A list is replaced as a whole, behind a lock that is held while a pointer is copied. The crate arc-swap does without
//! one; but in 1.9.3 a reader that is held up between two of its steps may get what lies at the old address by then,
//! of whatever type (its issue 210), and these lists come and go all the time.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard, RwLock};

use super::checks::Damaged;
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
    /// Files of which nothing is taken, as some of them are damaged, and before them the marker that says so.
    damaged_files: Mutex<Vec<PathBuf>>,
    /// Held while RocksDB's files are looked through; in which of the family's lives they were.
    finding: Mutex<Option<u64>>,
    /// How many lives came before: each has a partition of its own, or a log that began anew.
    life: AtomicU64,
    /// The lowest last offset that has changed since they are looked through.
    changed: AtomicI64,
}

/// A table that RocksDB has taken over. It is open for as long as the page cache keeps some of it: reading it by its
/// own blocks takes one copy out of there, and RocksDB's way two.
#[derive(Debug, Clone)]
pub(super) struct HandedOver {
    pub(super) first: Offset,
    pub(super) last: Offset,
    /// The family has nothing from here on, and below the first key.
    pub(super) continues: Offset,
    /// RocksDB's file, if that is known: it may be none of ours.
    pub(super) file: Option<Arc<Path>>,
    pub(super) table: Weak<GrowingTable>,
    /// Of its blocks.
    pub(super) damaged: Arc<Damaged>,
}

/// So many tables that are not open are passed over to find one that is: what lies further off is no reader's next.
const PASSED_OVER_MAX: usize = 16;

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
        tables[first..].iter().take(PASSED_OVER_MAX).find_map(|table| table.table.upgrade())
    }

    /// What is known of the table that has `next`, of those that were handed over.
    pub(super) fn known_at(&self, next: Offset) -> Option<HandedOver> {
        let tables = self.handed_over.read();
        let first = tables.partition_point(|table| table.last < next);
        tables.get(first).filter(|table| table.continues <= next).cloned()
    }

    /// Held while RocksDB's files are looked through.
    pub(super) fn lock_finding(&self) -> MutexGuard<'_, Option<u64>> {
        self.finding.lock()
    }

    pub(super) fn life(&self) -> u64 {
        self.life.load(Ordering::SeqCst)
    }

    /// From now on what changes is noted, for [`add_found`](Self::add_found).
    pub(super) fn begin_finding(&self) {
        self.changed.store(i64::MAX, Ordering::SeqCst);
    }

    /// Adds files that hold all that RocksDB has between their keys, in the order of these; those that have changed
    /// since [`begin_finding`](Self::begin_finding), and those of tables that are known, are left out.
    pub(super) fn add_found(&self, found: Vec<HandedOver>) {
        let _changing = self.changing.lock();
        let mut list = Vec::clone(&self.handed_over.read());
        let changed = || Offset(self.changed.load(Ordering::SeqCst));
        let changed_before = changed();
        for file in found.into_iter().filter(|file| file.last < changed_before) {
            let at = list.partition_point(|known| known.last < file.first);
            match list.get_mut(at) {
                Some(known) if known.first <= file.last => {
                    if (known.first, known.last) == (file.first, file.last) {
                        known.file = file.file;
                        known.continues = known.continues.min(file.continues);
                    }
                }
                _ => list.insert(at, file),
            }
        }
        replace(&self.handed_over, list.clone());
        // Whoever looked at the list before had noted what changes. None of the files is open yet.
        let changed = changed();
        if changed < changed_before {
            list.retain(|known| known.last < changed || known.table.strong_count() > 0);
            replace(&self.handed_over, list);
        }
    }

    /// A file was opened, and is a table; `None`: it is none, or is gone. Nothing if its keys have changed meanwhile.
    pub(super) fn note_opened(&self, file: &HandedOver, table: Option<&Arc<GrowingTable>>) {
        let _changing = self.changing.lock();
        let mut list = Vec::clone(&self.handed_over.read());
        let Ok(at) = list.binary_search_by_key(&file.last, |known| known.last) else { return };
        let known = &list[at];
        if (known.first, &known.file) != (file.first, &file.file) || known.table.strong_count() > 0 {
            return;
        }
        match table {
            Some(table) => list[at].table = Arc::downgrade(table),
            None => drop(list.remove(at)),
        }
        replace(&self.handed_over, list);
    }

    /// Leaves keys to RocksDB that are about to change.
    pub(in crate::storage::rocksdb) fn forget_handed_over(&self, last_offsets: RangeInclusive<Offset>) {
        self.changed.fetch_min(last_offsets.start().0, Ordering::SeqCst);
        let untouched = |table: &HandedOver| {
            let relied_on = || table.table.upgrade().and_then(|table| table.relies_on());
            let first = relied_on().map_or(table.first, |(first, _)| first).min(table.continues);
            table.last < *last_offsets.start() || *last_offsets.end() < first
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

    /// Takes a table that RocksDB has out of the list. Answers whether it was there. `start`: the log's.
    pub(super) fn hand_over(&self, table: &Arc<GrowingTable>, start: Offset) -> bool {
        self.remove(table, || {
            let mut tables = Vec::clone(&self.handed_over.read());
            tables.retain(|table| table.last >= start);
            if let Some((first, last)) = table.bounds() {
                let (table, damaged) = (Arc::downgrade(table), Arc::clone(table.checks.damaged()));
                let new = HandedOver { first, last, continues: first, file: None, table, damaged };
                // A file that was found over it has more than one table's.
                tables.retain(|known| known.last < first || last < known.first);
                tables.insert(tables.partition_point(|known| known.last < first), new);
            }
            replace(&self.handed_over, tables);
        })
    }

    /// The family is no partition's any more, or its log begins anew.
    pub(in crate::storage::rocksdb) fn forget_all_handed_over(&self) {
        self.life.fetch_add(1, Ordering::SeqCst);
        self.forget_handed_over(Offset::ZERO..=Offset::MAX);
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

    /// A marker, and the tables that it says are damaged as far as they are there. They go with the partition, the last
    /// one first.
    pub(super) fn damaged_files(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.damaged_files.lock()
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
