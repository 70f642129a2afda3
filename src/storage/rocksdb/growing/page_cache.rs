//! What of the growing tables' files stays in the page cache: what was written last, for consumers behind the tail.
//!
//! Without a bound the kernel decides: it takes the oldest pages back when it needs some. Here they are only sent to
//! the disk as they come, so that a sync finds little to do, and read by and by, to see that they are still what was
//! written.
//!
//! With a bound older pages are given back as new ones are written, a stretch for a stretch, so that the kernel has new
//! bytes copied into pages that are there already. On a virtual machine a page that nobody used before costs several
//! times the copy into it, and a broker that only ever takes more of them pays that for every byte. So there it takes a
//! part of what it may keep at once, and from then on one new page for every sixteen that it writes.
//!
//! A family owns its tables; one that RocksDB has taken over is the cache's, for as long as some of it is kept. A file
//! that was deleted meanwhile is let go within [`LOOK_EVERY`]: its space comes back only then.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::time::Instant;
use tracing::error;

use super::table::{GrowingTable, Stretch};
use crate::storage::rocksdb::database::{CachedBytes, DirectoryOptions, OpenTables};

/// A thread looks after so many bytes of a table at once.
pub(in crate::storage::rocksdb) const STRETCH_BYTES: u64 = 2 << 20;

/// Of what is written one byte of so many is kept, beside what is from the beginning.
const WRITTEN_PER_KEPT: u64 = 16;

/// How often the cache looks which of its files RocksDB has deleted, which it does when it likes, and which files were
/// left to be closed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Stretches that were written, the oldest first.
#[derive(Debug, Default)]
pub(in crate::storage::rocksdb) struct PageCache {
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
    /// All stretches there ever were.
    written_bytes: u64,
    /// Whose those stretches are: tables by their addresses, which stay theirs as long as they are here.
    tables: HashMap<usize, Kept>,
    closing: bool,
}

#[derive(Debug)]
struct Written {
    table: Weak<GrowingTable>,
    stretch: Stretch,
}

/// A table of which something is kept.
#[derive(Debug)]
struct Kept {
    table: Weak<GrowingTable>,
    /// The table itself, once it is no family's any more: a descriptor.
    owned: Option<Arc<GrowingTable>>,
    stretches: usize,
}

/// A stretch, with its table if that is still there.
type Taken = (Option<Arc<GrowingTable>>, Stretch);

/// What the thread does next.
enum Next {
    Written(Taken),
    Look,
    End,
}

fn address(table: &Weak<GrowingTable>) -> usize {
    table.as_ptr().addr()
}

impl State {
    fn add(&mut self, table: &Arc<GrowingTable>, stretch: Stretch) {
        let written = self.count(table, stretch);
        self.fresh.push_back(written);
    }

    fn count(&mut self, table: &Arc<GrowingTable>, stretch: Stretch) -> Written {
        let table = Arc::downgrade(table);
        let kept = self.tables.entry(address(&table));
        kept.or_insert_with(|| Kept { table: Weak::clone(&table), owned: None, stretches: 0 }).stretches += 1;
        Written { table, stretch }
    }

    /// From now on a table is the cache's, if it keeps some of it.
    fn own(&mut self, table: &Arc<GrowingTable>) {
        if let Some(kept) = self.tables.get_mut(&Arc::as_ptr(table).addr()) {
            kept.owned = Some(Arc::clone(table));
        }
    }

    /// Takes out the oldest stretch.
    fn pop(&mut self) -> Option<Taken> {
        let oldest = self.kept.pop_front()?;
        self.kept_bytes -= oldest.stretch.bytes();
        let table = oldest.table.upgrade();
        let kept = self.tables.get_mut(&address(&oldest.table)).expect("it counts its stretches");
        kept.stretches -= 1;
        if kept.stretches == 0 {
            self.tables.remove(&address(&oldest.table));
        }
        Some((table, oldest.stretch))
    }

    /// Takes out tables, with all their stretches.
    fn remove(&mut self, gone: &HashSet<usize>) -> Vec<Kept> {
        let stays = |written: &Written| !gone.contains(&address(&written.table));
        self.fresh.retain(stays);
        self.kept.retain(stays);
        self.kept_bytes = self.kept.iter().map(|written| written.stretch.bytes()).sum();
        gone.iter().filter_map(|address| self.tables.remove(address)).collect()
    }
}

impl PageCache {
    /// Takes note of what was written to a table, if that is much.
    pub(in crate::storage::rocksdb) fn wrote(&self, table: &Arc<GrowingTable>) {
        let Some(stretch) = table.take_stretch(Some(STRETCH_BYTES)) else { return };
        self.state.lock().add(table, stretch);
        self.changed.notify_one();
    }

    /// Takes a table over that is RocksDB's now, with all that will ever be written to it.
    pub(in crate::storage::rocksdb) fn take_over(&self, table: &Arc<GrowingTable>) {
        let stretch = table.take_stretch(None);
        let mut state = self.state.lock();
        if let Some(stretch) = stretch {
            state.add(table, stretch);
        }
        state.own(table);
        self.changed.notify_one();
    }

    /// Keeps a table that RocksDB has had for long, from which something is about to be read.
    pub(super) fn keep(&self, table: &Arc<GrowingTable>) {
        let Some(stretch) = table.take_stretch(None) else { return };
        let mut state = self.state.lock();
        // It is on the disk already.
        let kept = state.count(table, stretch);
        state.kept.push_back(kept);
        state.kept_bytes += stretch.bytes();
        state.own(table);
        self.changed.notify_one();
    }

    /// Lets go of tables that are gone, and of files that were deleted.
    pub(in crate::storage::rocksdb) fn forget_deleted(&self) {
        let mut gone = HashSet::new();
        let mut owned = Vec::new();
        for (address, kept) in &self.state.lock().tables {
            match &kept.owned {
                Some(table) => owned.push((*address, Arc::clone(table))),
                None if kept.table.strong_count() == 0 => drop(gone.insert(*address)),
                None => {}
            }
        }
        gone.extend(owned.iter().filter(|(_, table)| !table.has_name()).map(|(address, _)| *address));
        drop(owned);
        if !gone.is_empty() {
            // Files are closed, which may take a moment, without the lock.
            let removed = self.state.lock().remove(&gone);
            drop(removed);
        }
    }

    /// Ends the thread.
    pub(in crate::storage::rocksdb) fn close(&self) {
        self.state.lock().closing = true;
        self.changed.notify_one();
    }

    /// Waits for the next stretch that was written; it counts as kept from then on.
    fn take(&self, look_at: Instant) -> Next {
        let mut state = self.state.lock();
        loop {
            if state.closing {
                return Next::End;
            }
            if Instant::now() >= look_at {
                return Next::Look;
            }
            if let Some(written) = state.fresh.pop_front() {
                let next = (written.table.upgrade(), written.stretch);
                state.written_bytes += written.stretch.bytes();
                state.kept_bytes += written.stretch.bytes();
                state.kept.push_back(written);
                return Next::Written(next);
            }
            self.changed.wait_until(&mut state, look_at.into_std());
        }
    }

    /// The oldest stretch, if there are more bytes than may be kept by now, where there is a bound, or more tables.
    fn take_surplus(&self, bound: Option<CachedBytes>, tables_max: usize) -> Option<Taken> {
        let mut state = self.state.lock();
        let grown = state.written_bytes / WRITTEN_PER_KEPT;
        let by_now = bound.map(|bound| bound.max.min(bound.at_once.saturating_add(grown)));
        let too_much = by_now.is_some_and(|by_now| state.kept_bytes > by_now);
        let is_surplus = too_much || state.tables.len() > tables_max;
        if is_surplus { state.pop() } else { None }
    }

    /// Body of the thread.
    pub(in crate::storage::rocksdb) fn run(&self, options: &DirectoryOptions, open: &OpenTables) {
        let mut look_at = Instant::now() + LOOK_EVERY;
        let mut checking = Checking::default();
        loop {
            match self.take(look_at) {
                Next::End => return open.close_all(),
                Next::Look => {
                    self.forget_deleted();
                    open.close_all();
                    self.give_back(options);
                    self.check_some(&mut checking, self.bytes_to_check());
                    look_at = Instant::now() + LOOK_EVERY;
                }
                Next::Written((table, stretch)) => {
                    if let Some(table) = table {
                        table.reserve(options.table_bytes);
                        // Asked to take it out of the page cache at once, the kernel does so with what was on the disk
                        // by then: one part in two hundred, which the first reader then waited for.
                        table.write_out(stretch);
                    }
                    self.give_back(options);
                }
            }
        }
    }

    /// Takes what is too much out of the page cache.
    fn give_back(&self, options: &DirectoryOptions) {
        while let Some((table, stretch)) = self.take_surplus(options.cached, options.cached_tables_max) {
            // Without a bound there are too many tables: their pages stay, and RocksDB finds them.
            if let Some(table) = table
                && options.cached.is_some()
            {
                table.uncache(stretch);
            }
        }
    }

    /// How much is checked at one look: a round takes an hour, and so costs an idle broker nothing.
    fn bytes_to_check(&self) -> u64 {
        (self.state.lock().kept_bytes / LOOKS_PER_ROUND).clamp(CHECKED_BYTES_MIN, CHECKED_BYTES_MAX)
    }

    /// Looks whether what the page cache has of the tables is still what was written, one table after the other. If it
    /// changed, readers would not notice: what is sent was checked when it was written, or when it came from the disk.
    /// A batch that has more than `bytes` is checked at once, and the looks after that one do nothing for it.
    fn check_some(&self, checking: &mut Checking, bytes: u64) {
        let ahead = checking.ahead;
        checking.ahead = ahead.saturating_sub(bytes);
        let mut left = bytes.saturating_sub(ahead);
        if left == 0 {
            return;
        }
        let Some(table) = checking.table.upgrade().or_else(|| self.table_behind(checking)) else { return };
        let told = |error| error!(%error, "a batch in a table is not what was written; whoever comes to it is told");
        let mut buffer = Vec::new();
        while left > 0 {
            let Some((next, checked)) = table.check_cached(checking.block, left.min(STEP_BYTES), &mut buffer, told)
            else {
                (checking.table, checking.block) = (Weak::new(), 0);
                return;
            };
            checking.block = next;
            checking.ahead = checked.saturating_sub(left);
            left = left.saturating_sub(checked);
        }
    }

    /// The table that is to be checked next; it is noted as such.
    fn table_behind(&self, checking: &mut Checking) -> Option<Arc<GrowingTable>> {
        let state = self.state.lock();
        let behind = state.tables.keys().filter(|address| **address > checking.address).min();
        let kept = state.tables.get(behind.or_else(|| state.tables.keys().min())?)?;
        let table = kept.table.upgrade()?;
        (checking.table, checking.address) = (Weak::clone(&kept.table), address(&kept.table));
        checking.block = 0;
        Some(table)
    }
}

/// All that is kept is checked within so many looks, unless it is more than these bounds allow.
const LOOKS_PER_ROUND: u64 = 3600;
const CHECKED_BYTES_MIN: u64 = 64 << 10;
const CHECKED_BYTES_MAX: u64 = 4 << 20;

/// Of this so much at once, which stays in the processor's cache.
const STEP_BYTES: u64 = 256 << 10;

/// How far the check of all tables has come.
#[derive(Debug, Default)]
struct Checking {
    /// The one that is being checked.
    table: Weak<GrowingTable>,
    /// Its address, or that of the last one.
    address: usize,
    /// Its next block.
    block: usize,
    /// Bytes that were checked beyond what a look may.
    ahead: u64,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::table::{Header, StagedBatch};
    use super::*;
    use crate::types::{Offset, PartitionIndex, TopicId};

    const BATCH_BYTES: usize = 100 << 10;
    const GIB: u64 = 1 << 30;

    fn zeros(last_offset: i64) -> StagedBatch {
        StagedBatch { last_offset: Offset(last_offset), bytes: vec![0; BATCH_BYTES].into(), sum: None }
    }

    fn table(dir: &Path, number: u32) -> Arc<GrowingTable> {
        let topic_id = TopicId(uuid::Uuid::from_u128(7));
        let header = Header { family: number, topic_id, partition: PartitionIndex(0), follows: Offset::NONE };
        Arc::new(GrowingTable::create(dir.join(number.to_string()), &header).expect("made"))
    }

    /// Writes a batch to each table in turn and tells the cache, as often as this.
    fn write(cache: &PageCache, tables: &[Arc<GrowingTable>], times: i64) {
        for at in 0..times {
            for table in tables {
                table.write(&[zeros(at)]).expect("written");
                cache.take_over(table);
                assert!(matches!(cache.take(Instant::now() + LOOK_EVERY), Next::Written((Some(_), _))));
            }
        }
    }

    fn kept(cache: &PageCache) -> (usize, usize) {
        let state = cache.state.lock();
        assert_eq!(state.kept_bytes, state.kept.iter().map(|written| written.stretch.bytes()).sum::<u64>());
        (state.kept.len(), state.tables.len())
    }

    #[test]
    fn the_oldest_goes_where_there_are_too_many_bytes_or_tables() {
        let dir = tempfile::tempdir().expect("a directory");
        let tables: Vec<_> = (0..3).map(|number| table(dir.path(), number)).collect();
        let cache = PageCache::default();
        write(&cache, &tables, 4);
        assert_eq!(kept(&cache), (12, 3));
        let mut took = 0;
        let bound = CachedBytes { max: 5 * BATCH_BYTES as u64, at_once: u64::MAX };
        while let Some(oldest) = cache.take_surplus(Some(bound), 3) {
            let of = oldest.0.expect("the table is there");
            assert!(Arc::ptr_eq(&of, &tables[took % 3]), "the oldest is of the table whose turn it was");
            took += 1;
        }
        assert_eq!((took, kept(&cache)), (8, (4, 3)), "each stretch is a little more than a batch");
        while cache.take_surplus(None, 2).is_some() {}
        assert_eq!(kept(&cache), (2, 2), "until the last stretch of one table has gone");
    }

    #[test]
    fn what_may_be_kept_grows_as_more_is_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let tables = [table(dir.path(), 0)];
        let cache = PageCache::default();
        write(&cache, &tables, 2);
        let bound = |max, at_once| Some(CachedBytes { max, at_once });
        assert!(cache.take_surplus(bound(u64::MAX, GIB), 1).is_none());
        cache.state.lock().kept_bytes += GIB;
        assert!(cache.take_surplus(None, 1).is_none(), "without a bound the kernel decides");
        assert!(cache.take_surplus(bound(2 * GIB, 2 * GIB), 1).is_none(), "all of it may be kept at once");
        assert!(cache.take_surplus(bound(u64::MAX, GIB), 1).is_some(), "two stretches more than may be kept at once");
        cache.state.lock().written_bytes += WRITTEN_PER_KEPT * 2 * BATCH_BYTES as u64;
        assert!(cache.take_surplus(bound(u64::MAX, GIB), 1).is_none());
        assert!(cache.take_surplus(bound(GIB, GIB), 1).is_some(), "but to no more than it is allowed");
    }

    #[test]
    fn deleted_files_are_let_go() {
        let dir = tempfile::tempdir().expect("a directory");
        let tables: Vec<_> = (0..2).map(|number| table(dir.path(), number)).collect();
        let cache = PageCache::default();
        write(&cache, &tables, 2);
        std::fs::remove_file(tables[0].path()).expect("removed");
        cache.forget_deleted();
        assert_eq!((kept(&cache), Arc::strong_count(&tables[0])), ((2, 1), 1));
    }

    /// Reliability 1.2: what is damaged in memory after it was checked is found, said and not sent any more.
    #[test]
    fn a_bit_that_flips_in_the_page_cache_is_found_by_and_by() {
        let dir = tempfile::tempdir().expect("a directory");
        let tables: Vec<_> = (0..3).map(|number| table(dir.path(), number)).collect();
        let cache = PageCache::default();
        for at in 0..4 {
            for table in &tables {
                let blocks = table.write(&[zeros(at)]).expect("written");
                table.publish(&blocks);
                cache.take_over(table);
            }
        }
        let mut checking = Checking::default();
        let damaged = || -> Vec<bool> { tables.iter().map(|table| table.is_damaged()).collect() };
        for _ in 0..100 {
            cache.check_some(&mut checking, CHECKED_BYTES_MIN);
        }
        assert_eq!(damaged(), [false; 3]);
        let file = std::fs::File::options().write(true).open(tables[1].path()).expect("there");
        std::os::unix::fs::FileExt::write_all_at(&file, &[1], 250_000).expect("flipped");
        for _ in 0..100 {
            cache.check_some(&mut checking, CHECKED_BYTES_MIN);
        }
        assert_eq!(damaged(), [false, true, false]);
    }

    /// The check read four megabytes a second, also of one megabyte, again and again: more than the consumer beside it.
    #[test]
    fn little_is_not_checked_again_and_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let cache = PageCache::default();
        let table = table(dir.path(), 0);
        for at in 0..4 {
            let blocks = table.write(&[zeros(at)]).expect("written");
            table.publish(&blocks);
        }
        cache.take_over(&table);
        let mut checking = Checking::default();
        let blocks: Vec<usize> = (0..8)
            .map(|_| {
                cache.check_some(&mut checking, CHECKED_BYTES_MIN);
                checking.block
            })
            .collect();
        assert_eq!(blocks, [1, 2, 2, 3, 4, 4, 0, 1], "a batch has 100 KiB, a look 64");
        let look = |kept_bytes| {
            cache.state.lock().kept_bytes = kept_bytes;
            cache.bytes_to_check()
        };
        assert_eq!([look(0), look(3600 << 20), look(1 << 40)], [64 << 10, 1 << 20, 4 << 20]);
    }

    /// Nobody looks there for what it lets go.
    #[test]
    fn a_table_that_its_family_drops_is_not_kept_open() {
        let dir = tempfile::tempdir().expect("a directory");
        let table = table(dir.path(), 0);
        let cache = PageCache::default();
        for at in 0..25 {
            table.write(&[zeros(at)]).expect("written");
            cache.wrote(&table);
        }
        assert_eq!((cache.state.lock().fresh.len(), Arc::strong_count(&table)), (1, 1));
        let (owner, look_at) = (Arc::downgrade(&table), Instant::now() + LOOK_EVERY);
        drop(table);
        assert!(owner.upgrade().is_none());
        assert!(matches!(cache.take(look_at), Next::Written((None, _))));
        cache.forget_deleted();
        assert_eq!(kept(&cache), (0, 0));
    }
}
