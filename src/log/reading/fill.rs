//! Reading ahead: what a consumer behind the tail will ask for next goes into `read_ahead` while its answer is on its
//! way.
//!
//! Spawns nothing: the reader runs the [`Fill`] that it is handed.

use bytes::Bytes;
use tracing::debug;

use crate::log::reading::batches::Read;
use crate::log::reading::read::LogReader;
use crate::log::reading::ring::Reserved;
use crate::types::Offset;

/// What one fill reads: twice what the reader may take at once, within these bounds.
const FILL_BYTES_MIN: usize = 256 << 10;
const FILL_BYTES_MAX: usize = 2 << 20;

impl LogReader {
    /// The fill that should follow this read, if any: `upto` and `bytes` are those of the read.
    pub(in crate::log) fn fill_after(&self, read: &Read, upto: Offset, bytes: usize) -> Option<Fill> {
        if !read.behind_tail || read.batches.is_empty() || read.end >= upto || self.shared.slot.holds(read.end) {
            return None;
        }
        if self.is_located(read.end, upto) {
            return None;
        }
        // Neighbours are mostly of one size, and one batch is read whatever its size.
        let largest = read.batches.iter().map(Bytes::len).max().unwrap_or(0);
        let fill_bytes = bytes.saturating_mul(2).clamp(FILL_BYTES_MIN, FILL_BYTES_MAX).max(largest);
        let (from, generation, reserved) = self.shared.read_ahead.plan(read.end, bytes, fill_bytes)?;
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
    /// Reads the stretch. Blocks on the disk. The consumer that comes for these records learns what went wrong.
    pub(crate) fn run(mut self) {
        if self.from >= self.upto {
            return;
        }
        let shared = &self.reader.shared;
        if shared.dir.find_again(shared.family, self.from).unwrap_or(false) {
            // The consumer is sent it from the file.
            return;
        }
        match self.reader.read_storage(self.from, self.upto, self.bytes, true) {
            Ok(read) => self.reader.shared.read_ahead.keep(self.generation, self.from, read, &mut self.reserved),
            Err(failure) => debug!(%failure, "reading ahead failed"),
        }
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        self.reader.shared.read_ahead.on_fill_ended();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::config::LogConfig;
    use crate::log::reading::tail::READ_AHEAD_BYTES;
    use crate::log::testing::{Bench, batch};

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
        reader.shared.read_ahead.clear();
        fill.run();
        assert!(reader.read_memory(Offset(2), Offset(20), len, true).is_none());
        assert!(!reader.shared.read_ahead.wait(), "a fill that is over holds nobody up");
    }

    /// Issue 12, row 13: what fills under way had read, 2 MiB each and one for every partition, was in no bound.
    #[test]
    fn fills_under_way_count_in_the_bound_of_the_ring() {
        let (bench, len) = behind_the_tail();
        let ring = std::sync::Arc::clone(&bench.log.reader().shared.read_ahead.ring);
        let reserved = ring.reserve(READ_AHEAD_BYTES - FILL_BYTES_MIN).expect("nothing else is under way");
        let reader = bench.log.reader();
        let read = reader.read(Offset(0), Offset(20), len, true).expect("readable");
        let fill = reader.fill_after(&read, Offset(20), len).expect("it fits");
        assert_eq!(ring.claimed_bytes(), READ_AHEAD_BYTES);
        fill.run();
        assert!(ring.claimed_bytes() <= READ_AHEAD_BYTES);
        assert!(reader.read_memory(Offset(2), Offset(20), len, true).is_some());
        reader.shared.read_ahead.clear();
        let _more = ring.reserve(FILL_BYTES_MIN).expect("the fill is over");
        assert!(reader.fill_after(&read, Offset(20), len).is_none(), "no room: the consumer reads by itself");
        assert!(!reader.shared.read_ahead.wait(), "and waits for nobody");
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
            reader.shared.read_ahead.clear();
        }
        assert!((10..40).contains(&fills), "{fills}");
        assert!((0..100).any(|_| read_on(&reader, 0, len)), "but they go on");
        assert!(reader.read_memory(Offset(2), Offset(20), len, true).is_some());
        reader.shared.read_ahead.clear();
        assert!(read_on(&reader, 2, len), "one that is read counts for all");
    }
}
