//! Batches of a table as runs that are sent from its file: found by their blocks, copied out of the page cache a piece
//! at a time, read from the disk and checked where they are not there.
//!
//! A published block never changes, and a file stays open as long as anybody holds its table, so a run stays readable
//! whatever becomes of the partition, of RocksDB's file and of its name.

use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rustix::io::ReadWriteFlags;

use super::layout::{self, BlockAt};
use super::table::{GrowingTable, READ_BYTES_MAX, last_offset};
use crate::storage::{Located, Span};
use crate::types::place::{BatchFile, Cold, FileRun, RunAt};

/// Parts of a buffer that one copy gives at most: what one `writev` takes, with a few slices around it.
const PARTS_MAX: usize = 48;

/// The check in the background leaves larger batches to their readers.
const CHECKED_AT_ONCE_MAX: u64 = 16 << 20;

/// Where something had to be read from the disk the kernel is asked for so many bytes behind it.
const AHEAD_BYTES: u64 = 2 << 20;

impl GrowingTable {
    /// Adds to `found` the batches of the span that this table has and that follow it. Answers whether more may be
    /// found behind this table. The span must begin in this table.
    pub(in crate::storage::rocksdb) fn locate(self: &Arc<Self>, span: &Span, found: &mut Located) -> bool {
        if self.is_opaque.load(Ordering::Relaxed) {
            return false;
        }
        let blocks = self.blocks.read();
        let first = blocks.partition_point(|block| last_offset(block) < found.end);
        let sound = blocks.len().min(self.checks.damaged());
        let (mut next, mut bytes) = (first, 0);
        while next < sound {
            let (last, length) = (last_offset(&blocks[next]), blocks[next].value_bytes as usize);
            let fits = found.bytes + bytes + length <= span.max_bytes;
            let alone = span.at_least_one && found.bytes + bytes == 0;
            if last >= span.upto || !(fits || alone) {
                found.is_all = true;
                break;
            }
            bytes += length;
            next += 1;
        }
        let ends_here = next == blocks.len();
        if next > first
            && let Ok(batch) = u32::try_from(first)
            && let Some(lent) = Lent::of(self)
        {
            found.end = last_offset(&blocks[next - 1]) + 1;
            found.bytes += bytes;
            let at = RunAt { batch, sent: 0, left: bytes };
            found.runs.push(FileRun::new(Arc::new(lent), at));
            return ends_here && !found.is_all;
        }
        false
    }

    /// What comes next of a run, at most so many bytes of the file and [`PARTS_MAX`] batches; `parts` gets the bytes of
    /// batches, as places in a buffer that begins where the piece does.
    fn piece(&self, at: RunAt, bytes_max: usize, parts: &mut Vec<Range<usize>>) -> Piece {
        let blocks = self.blocks.read();
        let first = at.batch as usize;
        let start = blocks[first].value_start() + u64::from(at.sent);
        let (mut left, mut sent, mut length, mut next) = (at.left, at.sent, 0, first);
        while left > 0 && length < bytes_max && parts.len() < PARTS_MAX {
            let block = &blocks[next];
            let from = (block.value_start() + u64::from(sent) - start) as usize;
            let bytes = ((block.value_bytes - sent) as usize).min(left).min(bytes_max.saturating_sub(from));
            if bytes == 0 {
                break;
            }
            parts.push(from..from + bytes);
            (left, sent, length, next) = (left - bytes, 0, from + bytes, next + 1);
        }
        Piece { start, length, blocks: first..next }
    }

    /// Reads a part of the file. What is not in the page cache comes from the disk, and is noted as such before.
    fn read_noting(&self, from: u64, length: u64) -> io::Result<Bytes> {
        let mut buffer = vec![0; usize::try_from(length).expect("a read fits memory")];
        if self.read_cached(from, &mut buffer) == Some(buffer.len()) {
            return Ok(buffer.into());
        }
        drop(buffer);
        self.checks.forget(self.block_count());
        let read = self.read(from, length)?;
        let ahead = NonZeroU64::new(AHEAD_BYTES);
        // A wish: whoever comes next waits for the disk by itself.
        rustix::fs::fadvise(&self.file, from + length, ahead, rustix::fs::Advice::WillNeed).ok();
        Ok(read)
    }

    /// Before a part is read that may have left the page cache: if its first or its last byte has, something comes from
    /// the disk, and the kernel may bring more with it than was asked for.
    pub(super) fn note_cold(&self, from: u64, length: u64) {
        let is_here = |at: u64| self.read_cached(at, &mut [0]).is_some();
        if length > 0 && !(is_here(from) && is_here(from + length - 1)) {
            self.checks.forget(self.block_count());
        }
    }

    /// Copies what the page cache has, without waiting for the disk; `None`: nothing at all.
    fn read_cached(&self, from: u64, buffer: &mut [u8]) -> Option<usize> {
        loop {
            match rustix::io::preadv2(&self.file, &mut [IoSliceMut::new(buffer)], from, ReadWriteFlags::NOWAIT) {
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => {
                    self.is_opaque.store(true, Ordering::Relaxed);
                    return None;
                }
                Ok(0) | Err(_) => return None,
                Ok(read) => return Some(read),
            }
        }
    }

    /// Blocks that are read at once, one at least, and their bytes, all as they were written.
    fn read_sound(&self, first: usize, some: &[BlockAt]) -> io::Result<Bytes> {
        let (begin, end) = (some[0].start, some[some.len() - 1].end());
        let buffer = self.read_noting(begin, end - begin)?;
        for (number, block) in some.iter().enumerate() {
            if !layout::is_sound(&buffer[(block.start - begin) as usize..(block.end() - begin) as usize]) {
                return Err(self.damage(first + number, block));
            }
        }
        self.checks.note(first..first + some.len());
        Ok(buffer)
    }

    /// As [`read_sound`](Self::read_sound), for a block that is too large to be read at once: what of its value lies
    /// behind so many bytes, and fits a read.
    fn read_sound_large(&self, number: usize, block: &BlockAt, sent: u32) -> io::Result<Bytes> {
        let (mut crc, mut at, end) = (layout::Sum::default(), block.start, block.end() - layout::TRAILER_BYTES as u64);
        while at < end {
            let piece = self.read_noting(at, READ_BYTES_MAX.min(end - at))?;
            crc.add(&piece);
            at += piece.len() as u64;
        }
        let trailer = self.read_noting(end, layout::TRAILER_BYTES as u64)?;
        let head = self.read_noting(block.start, u64::from(block.head_bytes))?;
        if !crc.is_of(&trailer) || layout::parse_head(block.start, &head) != Some(*block) {
            return Err(self.damage(number, block));
        }
        self.checks.note(number..number + 1);
        self.read(block.value_start() + u64::from(sent), READ_BYTES_MAX.min(u64::from(block.value_bytes - sent)))
    }

    /// Checks blocks from this one on, one or as many as fit so many bytes, as far as the page cache has them; what is
    /// not there is checked before it is sent. Answers where to go on; `None`: there are no more.
    ///
    /// # Errors
    /// One of them is not what was written.
    pub(super) fn check_cached(&self, first: usize, bytes: u64) -> io::Result<Option<usize>> {
        let mut some = self.some_blocks(first, bytes);
        // Behind what is damaged nothing is sent, and its line has been written.
        some.truncate(self.checks.damaged().saturating_sub(first));
        let (Some(begin), Some(end)) = (some.first(), some.last()) else { return Ok(None) };
        let length = end.end() - begin.start;
        if length > CHECKED_AT_ONCE_MAX {
            return Ok(Some(first + some.len()));
        }
        let mut buffer = vec![0; length as usize];
        if self.read_cached(begin.start, &mut buffer) == Some(buffer.len()) {
            for (number, block) in some.iter().enumerate() {
                let place = (block.start - begin.start) as usize..(block.end() - begin.start) as usize;
                if !layout::is_sound(&buffer[place]) {
                    return Err(self.damage(first + number, block));
                }
            }
        } else {
            // The kernel has begun to read the rest.
            self.checks.forget(self.block_count());
        }
        Ok(Some(first + some.len()))
    }

    #[cfg(test)]
    pub(super) fn is_damaged(&self) -> bool {
        self.checks.damaged() < usize::MAX
    }

    fn damage(&self, number: usize, block: &BlockAt) -> io::Error {
        self.checks.note_damaged(number);
        let (offset, path) = (last_offset(block), self.path());
        io::Error::other(format!("checksum mismatch at offset {offset} in {path:?}"))
    }
}

/// A table that a reply holds a place in.
#[derive(Debug)]
struct Lent(Option<Arc<GrowingTable>>);

impl Lent {
    /// `None`: replies hold as many tables as they may.
    fn of(table: &Arc<GrowingTable>) -> Option<Self> {
        if let Some(open) = table.counted_in() {
            if table.lendings.load(Ordering::Relaxed) == 0 && !open.may_lend() {
                return None;
            }
            if table.lendings.fetch_add(1, Ordering::Relaxed) == 0 {
                open.lent();
            }
        }
        Some(Self(Some(Arc::clone(table))))
    }

    fn table(&self) -> &GrowingTable {
        self.0.as_ref().expect("held until it is dropped")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(table) = self.0.take() else { return };
        let Some(open) = table.counted_in().cloned() else { return };
        if table.lendings.fetch_sub(1, Ordering::Relaxed) == 1 {
            open.given_back();
        }
        // Of a file whose name is gone the last to close it waits for the disk, which a worker must not.
        if Arc::strong_count(&table) == 1 {
            open.close_later(table);
        }
    }
}

impl BatchFile for Lent {
    fn copy(&self, at: RunAt, buffer: &mut [u8], parts: &mut Vec<Range<usize>>) -> Result<(), Cold> {
        self.table().copy(at, buffer, parts)
    }

    fn bring_in(&self, at: RunAt) -> io::Result<Vec<Bytes>> {
        self.table().bring_in(at)
    }

    fn advanced(&self, at: RunAt, bytes: usize) -> RunAt {
        self.table().advanced(at, bytes)
    }
}

/// A part of a file.
struct Piece {
    start: u64,
    length: usize,
    /// What it has something of.
    blocks: Range<usize>,
}

impl BatchFile for GrowingTable {
    fn copy(&self, at: RunAt, buffer: &mut [u8], parts: &mut Vec<Range<usize>>) -> Result<(), Cold> {
        parts.clear();
        let piece = self.piece(at, buffer.len(), parts);
        let read = self.read_cached(piece.start, &mut buffer[..piece.length]).unwrap_or(0);
        if read < piece.length {
            // The kernel has begun to read the rest.
            self.checks.forget(self.block_count());
        }
        // Looked at afterwards: whoever brings any of it from the disk notes that.
        if read == 0 || !self.checks.has(piece.blocks) {
            return Err(Cold);
        }
        parts.retain(|part| part.start < read);
        if let Some(last) = parts.last_mut() {
            last.end = last.end.min(read);
        }
        if parts.is_empty() { Err(Cold) } else { Ok(()) }
    }

    fn bring_in(&self, at: RunAt) -> io::Result<Vec<Bytes>> {
        let first = at.batch as usize;
        let mut some = self.some_blocks(first, READ_BYTES_MAX);
        // What lies behind the run is nobody's business here, sound or not.
        let mut wanted = at.left + at.sent as usize;
        some.retain(|block| {
            let is_wanted = wanted > 0;
            wanted = wanted.saturating_sub(block.value_bytes as usize);
            is_wanted
        });
        let brought = if some.len() == 1 && some[0].block_bytes() > READ_BYTES_MAX {
            self.read_sound_large(first, &some[0], at.sent).map(|piece| vec![piece])
        } else {
            self.read_sound(first, &some).map(|buffer| {
                let begin = some[0].start;
                let values = some.iter().map(|block| {
                    let value = (block.value_start() - begin) as usize;
                    buffer.slice(value..value + block.value_bytes as usize)
                });
                let mut values: Vec<Bytes> = values.collect();
                values[0] = values[0].slice(at.sent as usize..);
                values
            })
        };
        let mut left = at.left;
        let mut brought = brought?;
        brought.iter_mut().for_each(|piece| {
            piece.truncate(left);
            left -= piece.len();
        });
        brought.retain(|piece| !piece.is_empty());
        Ok(brought)
    }

    fn advanced(&self, mut at: RunAt, mut bytes: usize) -> RunAt {
        let blocks = self.blocks.read();
        at.left -= bytes;
        while bytes > 0 {
            let rest = (blocks[at.batch as usize].value_bytes - at.sent) as usize;
            if bytes < rest {
                at.sent += bytes as u32;
                break;
            }
            bytes -= rest;
            (at.batch, at.sent) = (at.batch + 1, 0);
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;
    use std::path::Path;

    use super::super::table::Header;
    use super::*;
    use crate::storage::rocksdb::database::OpenTables;
    use crate::types::place::Place;
    use crate::types::{Offset, PartitionIndex, TopicId};

    fn value(number: usize, bytes: usize) -> Bytes {
        (0..bytes).map(|at| (at * 7 + number * 13) as u8).collect()
    }

    /// A table with batches of these sizes, under last offsets 9, 19 and so on, on the disk.
    fn table(dir: &Path, sizes: &[usize]) -> (Arc<GrowingTable>, Vec<Bytes>) {
        let topic_id = TopicId(uuid::Uuid::from_u128(7));
        let header = Header { family: 1, topic_id, partition: PartitionIndex(0), follows: Offset::NONE };
        let table = Arc::new(GrowingTable::create(dir.join("1-1.sst"), &header).expect("made"));
        let values: Vec<Bytes> = sizes.iter().enumerate().map(|(number, &bytes)| value(number, bytes)).collect();
        let key = |number: usize| Offset(number as i64 * 10 + 9);
        let batches: Vec<_> = values.iter().enumerate().map(|(number, value)| (key(number), value.clone())).collect();
        table.publish(&table.write(&batches).expect("written"));
        table.sync().expect("synced");
        (table, values)
    }

    fn locate(table: &Arc<GrowingTable>, from: i64, upto: i64, max_bytes: usize) -> (Located, bool) {
        let span = Span { from: Offset(from), upto: Offset(upto), max_bytes, at_least_one: true };
        let mut found = Located { end: span.from, ..Located::default() };
        let goes_on = table.locate(&span, &mut found);
        (found, goes_on)
    }

    /// Takes the table's pages out of the page cache; false where that does not work. A reader looks, as others would.
    fn cool(table: &GrowingTable) -> bool {
        table.sync().expect("synced");
        rustix::fs::fadvise(&table.file, 0, None, rustix::fs::Advice::DontNeed).expect("advised");
        table.copy(RunAt { batch: 0, sent: 0, left: 1 }, &mut [0; 1], &mut Vec::new()) == Err(Cold)
    }

    /// Sends a run through a buffer of this size, of which the socket takes `takes` bytes at a time.
    fn send(mut run: FileRun, buffer_bytes: usize, takes: usize) -> io::Result<(Vec<u8>, usize)> {
        let (mut buffer, mut parts, mut sent, mut cold) = (vec![0; buffer_bytes], Vec::new(), Vec::new(), 0);
        while run.len() > 0 {
            let got: Vec<u8> = match run.copy(&mut buffer, &mut parts) {
                Ok(()) => parts.iter().flat_map(|part| buffer[part.clone()].to_vec()).collect(),
                Err(Cold) => {
                    cold += 1;
                    run.bring_in()?.concat()
                }
            };
            assert!(!got.is_empty());
            let taken = got.len().min(takes);
            sent.extend_from_slice(&got[..taken]);
            run.advance(taken);
        }
        Ok((sent, cold))
    }

    #[test]
    fn a_span_is_whole_batches_within_its_limits() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (table, values) = table(dir.path(), &[100, 200, 300, 400]);
        for (from, upto, max_bytes, expected, is_all, goes_on) in [
            (0, 40, usize::MAX, 0..4, false, true),
            (10, 40, usize::MAX, 1..4, false, true),
            (19, 30, usize::MAX, 1..3, true, false),
            (20, 29, usize::MAX, 2..2, true, false),
            (0, 40, 599, 0..2, true, false),
            (0, 40, 600, 0..3, true, false),
            (5, 40, 0, 0..1, true, false),
            (40, 90, usize::MAX, 4..4, false, false),
        ] {
            let (found, goes) = locate(&table, from, upto, max_bytes);
            let read: Vec<u8> = found
                .runs
                .iter()
                .flat_map(|run| Place::File(run.clone()).into_memory().expect("read").concat())
                .collect();
            assert_eq!(read, values[expected.clone()].concat(), "{from} {upto} {max_bytes}");
            assert_eq!((found.bytes, found.is_all, goes), (read.len(), is_all, goes_on), "{from} {upto} {max_bytes}");
            let end = if expected.is_empty() { from } else { expected.end as i64 * 10 };
            assert_eq!(found.end, Offset(end));
        }
    }

    #[test]
    fn a_run_is_sent_as_it_was_written_whatever_the_buffer_and_the_socket() {
        let dir = tempfile::tempdir().expect("tempdir");
        let sizes = [16 << 10, 1, 70_000, 5, 5, 600 << 10, 4096, 100];
        let (table, values) = table(dir.path(), &sizes);
        let expected = values.concat();
        for cold in [false, true] {
            for (buffer, takes) in [(64 << 10, usize::MAX), (64 << 10, 10_000), (100, 33), (1 << 20, 7777), (50, 1000)]
            {
                let is_cold = cold && cool(&table);
                let (mut found, _) = locate(&table, 0, 90, usize::MAX);
                let (sent, colds) = send(found.runs.remove(0), buffer, takes).expect("sent");
                assert!(sent == expected, "{buffer} {takes}");
                assert!(is_cold || colds == 0 || cold, "what was written is in the page cache");
            }
        }
        let many: Vec<usize> = (0..1000).map(|at| 10 + at % 50).collect();
        let other = tempfile::tempdir().expect("tempdir");
        let (crumbs, values) = self::table(other.path(), &many);
        let (mut found, _) = locate(&crumbs, 0, 10_000, usize::MAX);
        assert!(send(found.runs.remove(0), 64 << 10, usize::MAX).expect("sent").0 == values.concat());
    }

    /// What came from the disk is checked before it is sent; what is damaged is not, and is not located any more.
    #[test]
    fn a_bit_that_flipped_on_the_disk_is_never_sent() {
        for sizes in [[16 << 10, 16 << 10, 16 << 10], [16 << 10, 2 << 20, 16 << 10]] {
            let dir = tempfile::tempdir().expect("tempdir");
            let (table, _) = table(dir.path(), &sizes);
            let (mut found, _) = locate(&table, 0, 30, usize::MAX);
            let run = found.runs.remove(0);
            let place = table.blocks.read()[1].value_start() + 5000;
            let mut byte = [0];
            table.file.read_exact_at(&mut byte, place).expect("read");
            table.file.write_all_at(&[byte[0] ^ 4], place).expect("flipped");
            if !cool(&table) {
                return;
            }
            let Err(error) = send(run, 64 << 10, usize::MAX) else { panic!("damaged bytes were sent") };
            let error = error.to_string();
            assert!(error.contains("checksum mismatch at offset 19"), "{error}");
            let (found, goes_on) = locate(&table, 0, 30, usize::MAX);
            assert!(found.bytes == sizes[0] && !goes_on && !found.is_all, "what lies before it can be had");
            table.file.write_all_at(&byte, place).expect("as it was");
        }
    }

    /// Clients that read nothing hold no more of the disk and its descriptors than this.
    #[test]
    fn replies_hold_a_bounded_number_of_tables() {
        let dirs = [tempfile::tempdir().expect("tempdir"), tempfile::tempdir().expect("tempdir")];
        let [(one, _), (other, _)] = [0, 1].map(|at| table(dirs[at].path(), &[100, 100]));
        let open = Arc::new(OpenTables::new(1));
        one.count_in(&open);
        other.count_in(&open);
        let held = locate(&one, 0, 20, usize::MAX).0.runs;
        assert_eq!((held.len(), locate(&one, 0, 20, 100).0.runs.len()), (1, 1), "it is lent already");
        let (found, goes_on) = locate(&other, 0, 20, usize::MAX);
        assert!(
            found.runs.is_empty() && found.end == Offset(0) && !goes_on && !found.is_all,
            "to be read in another way"
        );
        let weak = Arc::downgrade(&one);
        drop(one);
        drop(held);
        assert_eq!(locate(&other, 0, 20, usize::MAX).0.runs.len(), 1);
        assert_eq!(weak.strong_count(), 1, "a file that was deleted is not closed by who sends");
        open.close_all();
        assert_eq!(weak.strong_count(), 0);
    }

    #[test]
    fn what_came_from_the_disk_is_checked_once() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (table, values) = table(dir.path(), &[100 << 10; 20]);
        if !cool(&table) {
            return;
        }
        let run = || locate(&table, 0, 200, usize::MAX).0.runs.remove(0);
        let (sent, cold) = send(run(), 64 << 10, usize::MAX).expect("sent");
        assert!(sent == values.concat() && cold > 0);
        assert_eq!(send(run(), 64 << 10, usize::MAX).expect("sent").1, 0, "all of it is checked and in the page cache");
        table.checks.forget(table.block_count());
        assert!(send(run(), 64 << 10, usize::MAX).expect("sent").1 > 0, "in the page cache, but not checked");
    }
}
