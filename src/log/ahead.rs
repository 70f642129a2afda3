//! Read-ahead for a consumer that is behind the tail: what it will ask for next is read while the last answer is on its
//! way, so that it waits for the disk only once.
//!
//! A directory has one [`Ring`] for it, in which the oldest goes first. A partition remembers one stretch of its log;
//! two consumers at different places take turns at it and read from storage otherwise, where the page cache has what
//! the first of them read. Spawns nothing: who reads runs the [`Fill`] that he is handed. What a fill will read counts
//! in the ring before it is read; where the ring is full of fills under way, nothing more is read ahead.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use tracing::debug;

use super::read::{LogReader, Read};
use super::ring::{Reserved, Ring, RingSlot};
use crate::record::BatchHeader;
use crate::types::Offset;

/// What one fill reads: twice what the reader may take at once, within these bounds.
const FILL_BYTES_MIN: usize = 256 << 10;
const FILL_BYTES_MAX: usize = 2 << 20;

/// How long a reader waits for a fill that is on its way before it reads by itself.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// A partition whose fills were evicted unread this many times in a row fills only one time in as many powers of two.
const WASTED_MAX: u32 = 6;

/// One partition's stretch.
#[derive(Debug)]
pub(super) struct Ahead {
    ring: Arc<Ring>,
    slot: Arc<RingSlot>,
    state: Mutex<State>,
    filled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// A fill was handed out and has not ended.
    filling: bool,
    /// Counts what made the stretch untrue; a fill that began before is thrown away.
    generation: u64,
    /// Where the last fill began, until somebody reads it.
    unread: Option<Offset>,
    /// Fills in a row that were gone before they were read.
    wasted: u32,
    /// Fills to leave out because of that.
    pause: u32,
}

impl Ahead {
    pub(super) fn new(ring: Arc<Ring>) -> Self {
        Self { ring, slot: Arc::default(), state: Mutex::default(), filled: Condvar::new() }
    }

    /// As [`RingSlot::read`], and what lies below `from` is forgotten: a reader asks for an offset twice (its answer
    /// may get lost), but does not go back. Never blocks.
    pub(super) fn read(&self, from: Offset, upto: Offset, max_bytes: usize, at_least_one: bool) -> Option<Read> {
        let read = self.slot.read(from, upto, max_bytes, at_least_one)?;
        self.ring.forget_below(&self.slot, from);
        let mut state = self.state.lock();
        state.unread = None;
        state.wasted = 0;
        Some(Read { behind_tail: true, ..read })
    }

    /// Waits for a fill on its way; false: there is none. Blocks.
    pub(super) fn wait(&self) -> bool {
        let mut state = self.state.lock();
        if !state.filling {
            return false;
        }
        self.filled.wait_while_for(&mut state, |state| state.filling, WAIT_MAX);
        true
    }

    /// Forgets everything: batches were deleted or replaced.
    pub(super) fn clear(&self) {
        let mut state = self.state.lock();
        state.generation += 1;
        self.ring.clear(&self.slot);
    }

    /// Where to go on, with room for `fill_bytes`, if a reader that stands at `end` and takes up to `bytes` at once
    /// should find more.
    fn plan(&self, end: Offset, bytes: usize, fill_bytes: usize) -> Option<(Offset, u64, Reserved)> {
        let (from, held_bytes) = self.slot.held_from(end);
        let mut state = self.state.lock();
        // As much again as the next read takes, so that the fill after it has begun before it is needed.
        if state.filling || held_bytes >= bytes.saturating_mul(2) {
            return None;
        }
        if held_bytes == 0 && state.unread.take().is_some_and(|unread| unread <= end) {
            state.wasted = (state.wasted + 1).min(WASTED_MAX);
            state.pause = (1 << state.wasted) - 1;
        }
        if state.pause > 0 {
            state.pause -= 1;
            return None;
        }
        let reserved = self.ring.reserve(fill_bytes)?;
        state.filling = true;
        state.unread = Some(from);
        Some((from, state.generation, reserved))
    }
}

impl LogReader {
    /// The fill that should follow this read, if any: `upto` and `bytes` are those of the read.
    pub(crate) fn fill_after(&self, read: &Read, upto: Offset, bytes: usize) -> Option<Fill> {
        if !read.behind_tail || read.batches.is_empty() || read.end >= upto || self.shared.slot.holds(read.end) {
            return None;
        }
        // Neighbours are mostly of one size, and one batch is read whatever its size.
        let largest = read.batches.iter().map(Bytes::len).max().unwrap_or(0);
        let fill_bytes = bytes.saturating_mul(2).clamp(FILL_BYTES_MIN, FILL_BYTES_MAX).max(largest);
        let (from, generation, reserved) = self.shared.ahead.plan(read.end, bytes, fill_bytes)?;
        Some(Fill { reader: self.clone(), from, upto, bytes: fill_bytes, generation, reserved })
    }
}

/// A stretch to be read ahead. Dropped, it is over.
#[derive(Debug)]
pub(crate) struct Fill {
    reader: LogReader,
    from: Offset,
    upto: Offset,
    bytes: usize,
    generation: u64,
    reserved: Reserved,
}

impl Fill {
    /// Reads the stretch. Blocks on the disk. What goes wrong is told to the consumer who comes for these records.
    pub(crate) fn run(mut self) {
        if self.from >= self.upto {
            return;
        }
        match self.reader.read_storage(self.from, self.upto, self.bytes, true) {
            Ok(read) => self.keep(read),
            Err(failure) => debug!(%failure, "reading ahead failed"),
        }
    }

    fn keep(&mut self, read: Read) {
        let ahead = &self.reader.shared.ahead;
        let state = ahead.state.lock();
        if state.generation != self.generation {
            return;
        }
        let mut next = self.from;
        for batch in read.batches {
            let Ok(header) = BatchHeader::parse(&batch) else { return };
            // Compaction leaves gaps between batches. Here each begins where the one before it ended.
            self.reserved.keep(&ahead.slot, header.base_offset.min(next), header.last_offset(), batch);
            next = header.last_offset() + 1;
        }
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        let ahead = &self.reader.shared.ahead;
        ahead.state.lock().filling = false;
        ahead.filled.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::super::config::LogConfig;
    use super::super::tail::READ_AHEAD_BYTES;
    use super::super::tests::{Bench, batch};
    use super::*;

    const ALL: usize = usize::MAX;

    /// A log of ten batches with two records each, none of them in the tail, and the length of a batch.
    fn behind_the_tail() -> (Bench, usize) {
        let mut bench = Bench::new(LogConfig::default(), 0);
        let mut len = 0;
        for at in 0..10 {
            let sent = batch(&[(at, "a", Some("x")), (at, "b", Some("y"))]);
            len = sent.bytes.len();
            bench.append(sent, 0).expect("accepted");
        }
        (bench, len)
    }

    /// Reads and lets the fill that follows run; answers whether there was one.
    fn read_on(reader: &LogReader, from: i64, bytes: usize) -> bool {
        let read = reader.read(Offset(from), Offset(20), bytes, true).expect("readable");
        let fill = reader.fill_after(&read, Offset(20), bytes);
        let filled = fill.is_some();
        fill.into_iter().for_each(Fill::run);
        filled
    }

    #[test]
    fn what_follows_a_read_is_in_memory_for_the_next() {
        let (bench, len) = behind_the_tail();
        let reader = bench.log.reader();
        assert!(reader.read_memory(Offset(0), Offset(20), ALL, true).is_none());
        assert!(read_on(&reader, 0, 2 * len));
        let stored = reader.read_storage(Offset(5), Offset(20), ALL, true).expect("readable");
        let ahead = reader.read_memory(Offset(5), Offset(20), ALL, true).expect("read ahead");
        assert_eq!((ahead.batches, ahead.end), (stored.batches, Offset(20)));
        assert!(reader.read_memory(Offset(5), Offset(20), len, true).is_some(), "an answer may be asked for again");
        assert!(reader.read_memory(Offset(0), Offset(20), len, true).is_none(), "but nobody goes back");
        assert!(!read_on(&reader, 6, len), "there is enough for the next reads");
        assert!(!read_on(&reader, 18, len), "there is nothing more to read");
    }

    #[test]
    fn a_gap_between_batches_belongs_to_the_next_one() {
        let (bench, len) = behind_the_tail();
        let family = bench.log.reader().shared.family;
        bench.commit(vec![crate::storage::Write::DeleteBatch { family, last_offset: Offset(5) }]);
        let reader = bench.log.reader();
        assert!(read_on(&reader, 0, 2 * len));
        let read = reader.read_memory(Offset(4), Offset(20), len, true).expect("read ahead");
        assert_eq!((read.batches.len(), read.end), (1, Offset(8)));
    }

    #[test]
    fn a_fill_that_began_before_batches_were_replaced_is_thrown_away() {
        let (bench, len) = behind_the_tail();
        let reader = bench.log.reader();
        let read = reader.read(Offset(0), Offset(20), len, true).expect("readable");
        let fill = reader.fill_after(&read, Offset(20), len).expect("more to read");
        assert!(reader.fill_after(&read, Offset(20), len).is_none(), "one at a time");
        reader.shared.ahead.clear();
        fill.run();
        assert!(reader.read_memory(Offset(2), Offset(20), len, true).is_none());
        assert!(!reader.shared.ahead.wait(), "a fill that is over holds nobody up");
    }

    /// Issue 12, row 13: what fills under way had read, 2 MiB each and one for every partition, was in no bound.
    #[test]
    fn fills_under_way_count_in_the_bound_of_the_ring() {
        let (bench, len) = behind_the_tail();
        let ring = Arc::clone(&bench.log.reader().shared.ahead.ring);
        let reserved = ring.reserve(READ_AHEAD_BYTES - FILL_BYTES_MIN).expect("nothing else is under way");
        let reader = bench.log.reader();
        let read = reader.read(Offset(0), Offset(20), len, true).expect("readable");
        let fill = reader.fill_after(&read, Offset(20), len).expect("it fits");
        assert_eq!(ring.claimed_bytes(), READ_AHEAD_BYTES);
        fill.run();
        assert!(ring.claimed_bytes() <= READ_AHEAD_BYTES);
        assert!(reader.read_memory(Offset(2), Offset(20), len, true).is_some());
        reader.shared.ahead.clear();
        let _more = ring.reserve(FILL_BYTES_MIN).expect("the fill is over");
        assert!(reader.fill_after(&read, Offset(20), len).is_none(), "no room: the consumer reads by itself");
        assert!(!reader.shared.ahead.wait(), "and waits for nobody");
        drop(reserved);
        assert!(reader.fill_after(&read, Offset(20), len).is_some());
    }

    #[test]
    fn fills_that_nobody_reads_become_rare() {
        let (bench, len) = behind_the_tail();
        let reader = bench.log.reader();
        let mut fills = 0;
        for _ in 0..1000 {
            fills += usize::from(read_on(&reader, 0, len));
            reader.shared.ahead.clear();
        }
        assert!((10..40).contains(&fills), "{fills}");
        assert!((0..100).any(|_| read_on(&reader, 0, len)), "but they go on");
        assert!(reader.read_memory(Offset(2), Offset(20), len, true).is_some());
        reader.shared.ahead.clear();
        assert!(read_on(&reader, 2, len), "one that is read counts for all");
    }
}
