//! What of the growing tables' files stays in the page cache: what was written last, for consumers behind the tail.
//!
//! Older pages are given back as new ones are written, a stretch for a stretch, so that the kernel has new bytes
//! copied into pages that are there already. On a virtual machine a page that nobody used before costs several times
//! the copy into it, and a broker that only ever takes more of them pays that for every byte. So it takes a gigabyte
//! at once, and from then on one new page for every sixteen that it writes, up to what it may keep.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use super::Shared;
use super::growing::{GrowingTable, Stretch};

/// A thread looks after so many bytes of a table at once.
pub(super) const STRETCH_BYTES: u64 = 2 << 20;

/// So much is kept from the beginning, and of what is written then, one byte of so many more.
const KEPT_AT_ONCE_BYTES: u64 = 1 << 30;
const WRITTEN_PER_KEPT: u64 = 16;

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
    /// All stretches there ever were.
    written_bytes: u64,
    /// How many of those stretches are whose: tables by their addresses. Each holds a descriptor.
    tables: HashMap<usize, usize>,
    closing: bool,
}

#[derive(Debug)]
struct Written {
    table: Arc<GrowingTable>,
    stretch: Stretch,
}

impl State {
    fn keep(&mut self, written: Written) {
        self.kept_bytes += written.stretch.bytes();
        *self.tables.entry(Arc::as_ptr(&written.table).addr()).or_default() += 1;
        self.kept.push_back(written);
    }

    /// Takes out the oldest stretch.
    fn pop(&mut self) -> Option<Written> {
        let oldest = self.kept.pop_front()?;
        self.kept_bytes -= oldest.stretch.bytes();
        let table = Arc::as_ptr(&oldest.table).addr();
        let left = self.tables.get_mut(&table).expect("it counts its stretches");
        *left -= 1;
        if *left == 0 {
            self.tables.remove(&table);
        }
        Some(oldest)
    }
}

impl PageCache {
    /// Takes note of what was written to a table, if that is much, or all there will be.
    pub(super) fn wrote(&self, table: &Arc<GrowingTable>, all: bool) {
        let Some(stretch) = table.take_stretch((!all).then_some(STRETCH_BYTES)) else { return };
        self.state.lock().fresh.push_back(Written { table: Arc::clone(table), stretch });
        self.changed.notify_one();
    }

    /// Lets go of files that were deleted meanwhile: their space comes back only then.
    pub(super) fn forget_deleted(&self) {
        let mut state = self.state.lock();
        let mut named = HashMap::with_capacity(state.tables.len());
        state.kept_bytes = 0;
        state.tables.clear();
        for written in std::mem::take(&mut state.kept) {
            let table = Arc::as_ptr(&written.table).addr();
            if *named.entry(table).or_insert_with(|| written.table.has_name()) {
                state.keep(written);
            }
        }
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
                state.written_bytes += written.stretch.bytes();
                state.keep(written);
                return Some(next);
            }
            self.changed.wait(&mut state);
        }
    }

    /// The oldest stretch, if there are more bytes than may be kept by now, in the end `bytes_max`, or more tables.
    fn take_surplus(&self, bytes_max: u64, tables_max: usize) -> Option<Written> {
        let mut state = self.state.lock();
        let bytes_max = bytes_max.min(KEPT_AT_ONCE_BYTES + state.written_bytes / WRITTEN_PER_KEPT);
        let is_surplus = state.kept_bytes > bytes_max || state.tables.len() > tables_max;
        if is_surplus { state.pop() } else { None }
    }
}

/// Body of the thread.
pub(super) fn run(shared: &Shared) {
    while let Some((table, stretch)) = shared.page_cache.take() {
        shared.reserve(&table);
        // What is dirty is sent to the disk and stays for now.
        table.uncache(stretch);
        let options = &shared.options;
        while let Some(oldest) = shared.page_cache.take_surplus(options.cached_bytes, options.cached_tables_max) {
            oldest.table.uncache(oldest.stretch);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;

    use super::super::growing::Header;
    use super::*;
    use crate::types::{Offset, PartitionIndex, TopicId};

    const BATCH_BYTES: usize = 100 << 10;

    fn table(dir: &Path, number: u32) -> Arc<GrowingTable> {
        let topic_id = TopicId(uuid::Uuid::from_u128(7));
        let header = Header { family: number, topic_id, partition: PartitionIndex(0), follows: Offset::NONE };
        Arc::new(GrowingTable::create(dir.join(number.to_string()), &header).expect("made"))
    }

    /// Writes a batch to each table in turn and tells the cache, as often as this.
    fn write(cache: &PageCache, tables: &[Arc<GrowingTable>], times: i64) {
        for at in 0..times {
            for table in tables {
                table.write(&[(Offset(at), Bytes::from(vec![0; BATCH_BYTES]))]).expect("written");
                cache.wrote(table, true);
                cache.take().expect("a stretch");
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
        while let Some(oldest) = cache.take_surplus(5 * BATCH_BYTES as u64, 3) {
            assert!(Arc::ptr_eq(&oldest.table, &tables[took % 3]), "the oldest is of the table whose turn it was");
            took += 1;
        }
        assert_eq!((took, kept(&cache)), (8, (4, 3)), "each stretch is a little more than a batch");
        while cache.take_surplus(u64::MAX, 2).is_some() {}
        assert_eq!(kept(&cache), (2, 2), "until the last stretch of one table has gone");
    }

    #[test]
    fn what_may_be_kept_grows_as_more_is_written() {
        let dir = tempfile::tempdir().expect("a directory");
        let tables = [table(dir.path(), 0)];
        let cache = PageCache::default();
        write(&cache, &tables, 2);
        assert!(cache.take_surplus(u64::MAX, 1).is_none());
        cache.state.lock().kept_bytes += KEPT_AT_ONCE_BYTES;
        assert!(cache.take_surplus(u64::MAX, 1).is_some(), "two stretches more than may be kept at once");
        cache.state.lock().written_bytes += WRITTEN_PER_KEPT * 2 * BATCH_BYTES as u64;
        assert!(cache.take_surplus(u64::MAX, 1).is_none());
        assert!(cache.take_surplus(KEPT_AT_ONCE_BYTES, 1).is_some(), "but to no more than it is allowed");
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
}
