//! Batches of a table as runs that are sent from its file: found by their blocks, copied out of the page cache a piece
//! at a time, read from the disk and checked where they are not there.
//!
//! A published block never changes, and a file stays open as long as anybody holds its table, so a run stays readable
//! whatever becomes of the partition, of RocksDB's file and of its name.

use std::io::{self, IoSliceMut};
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use rustix::io::ReadWriteFlags;

use super::layout::{self, BlockAt};
use super::table::{GrowingTable, last_offset};
use crate::storage::rocksdb::database::is_cached;
use crate::storage::{Located, Span};
use crate::types::place::{BatchFile, Cold, FilePiece, FileRun, RunAt};

/// Parts of a buffer that one copy gives at most: what one `writev` takes, with a few slices around it.
const PARTS_MAX: usize = 48;

/// The kernel is asked to send by itself what has at least so many bytes: a call for each batch costs more than the
/// copies of a smaller one.
const PIECE_BYTES_MIN: usize = 48 << 10;

/// Of such a batch also a rest is sent by the kernel, if it has so many bytes: a socket is full anywhere.
const REST_BYTES_MIN: usize = 4 << 10;

/// A piece is looked at each so many bytes, and at its end.
const PROBED_BYTES: usize = 256 << 10;

/// What the kernel is asked to send at once.
const PIECE_BYTES_MAX: usize = 1 << 20;

/// The check in the background leaves larger batches to their readers.
const CHECKED_AT_ONCE_MAX: u64 = 16 << 20;

/// Where something had to be read from the disk the kernel is asked for so many bytes behind it, and so many are
/// checked of what is about to be sent.
const AHEAD_BYTES: u64 = 2 << 20;

/// What is checked passes through a buffer of this size, which stays in the core's own cache.
const CHECKED_AT_ONCE: usize = 128 << 10;

/// So much of what was brought in is answered at most: what follows is copied out of the page cache when there is room.
const BROUGHT_BYTES: usize = 128 << 10;

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
    fn stretch(&self, at: RunAt, bytes_max: usize, parts: &mut Vec<Range<usize>>) -> Stretch {
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
        Stretch { start, length, blocks: first..next }
    }

    /// Fills a buffer from the file. What is not in the page cache comes from the disk, and is noted as such before.
    /// `forgotten`: as often as [`Checks::forgotten`](super::checks::Checks::forgotten) said before.
    fn read_noting(&self, from: u64, buffer: &mut [u8], forgotten: &mut u64) -> io::Result<()> {
        let cached = self.read_cached(from, buffer).unwrap_or(0);
        if cached == buffer.len() {
            return Ok(());
        }
        let now = self.checks.forget(self.block_count());
        if now == *forgotten + 1 {
            *forgotten = now;
        }
        self.file.read_exact_at(&mut buffer[cached..], from + cached as u64)?;
        let ahead = NonZeroU64::new(AHEAD_BYTES);
        // A wish: whoever comes next waits for the disk by itself.
        rustix::fs::fadvise(&self.file, from + buffer.len() as u64, ahead, rustix::fs::Advice::WillNeed).ok();
        Ok(())
    }

    /// Before a part is read that may have left the page cache: if its first or its last byte has, something comes from
    /// the disk, and the kernel may bring more with it than was asked for.
    pub(super) fn note_cold(&self, from: u64, length: u64) {
        if length > 0 && !(self.is_cached(from) && self.is_cached(from + length - 1)) {
            self.checks.forget(self.block_count());
        }
    }

    fn is_cached(&self, at: u64) -> bool {
        self.read_cached(at, &mut [0]).is_some()
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

    /// Brings a part of the file into the page cache, before it is checked: whatever comes from the disk in between
    /// would have what was checked before it forgotten.
    fn warm_up(&self, mut from: u64, to: u64, buffer: &mut [u8]) -> io::Result<()> {
        while from < to {
            let piece = (to - from).min(buffer.len() as u64) as usize;
            if ![0, piece / 2, piece - 1].iter().all(|at| self.is_cached(from + *at as u64)) {
                self.read_noting(from, &mut buffer[..piece], &mut self.checks.forgotten())?;
            }
            from += piece as u64;
        }
        Ok(())
    }

    /// Checks blocks from this one on, one or as many as fit the buffer, and notes them. `taken` gets the bytes that it
    /// wants. Answers how many blocks.
    ///
    /// # Errors
    /// They cannot be read, or one of them is not what was written.
    fn check(&self, first: usize, buffer: &mut [u8], taken: &mut Taken) -> io::Result<usize> {
        let some = self.some_blocks(first, buffer.len() as u64);
        let (Some(begin), Some(end)) = (some.first(), some.last()) else { return Ok(0) };
        let mut forgotten = self.checks.forgotten();
        let length = end.end() - begin.start;
        if length > buffer.len() as u64 {
            self.check_large(first, begin, buffer, taken, &mut forgotten)?;
        } else {
            let buffer = &mut buffer[..length as usize];
            self.read_noting(begin.start, buffer, &mut forgotten)?;
            self.expect_sound(first, &some, buffer)?;
            taken.take(begin.start, buffer);
        }
        self.checks.note(first..first + some.len(), forgotten);
        Ok(some.len())
    }

    /// `bytes` begin where the first of the blocks does.
    fn expect_sound(&self, first: usize, some: &[BlockAt], bytes: &[u8]) -> io::Result<()> {
        for (number, block) in some.iter().enumerate() {
            let place = (block.start - some[0].start) as usize..(block.end() - some[0].start) as usize;
            if !layout::is_sound(&bytes[place]) {
                return Err(self.damage(first + number, block));
            }
        }
        Ok(())
    }

    /// As [`check`](Self::check), for a block that is larger than the buffer.
    fn check_large(
        &self,
        number: usize,
        block: &BlockAt,
        buffer: &mut [u8],
        taken: &mut Taken,
        forgotten: &mut u64,
    ) -> io::Result<()> {
        let (mut crc, mut at, end) = (layout::Sum::default(), block.start, block.end() - layout::TRAILER_BYTES as u64);
        let mut is_whole = true;
        while at < end {
            let piece = (end - at).min(buffer.len() as u64) as usize;
            let piece = &mut buffer[..piece];
            self.read_noting(at, piece, forgotten)?;
            crc.add(piece);
            if at == block.start {
                is_whole = layout::parse_head(at, piece) == Some(*block);
            }
            taken.take(at, piece);
            at += piece.len() as u64;
        }
        let mut trailer = [0; layout::TRAILER_BYTES];
        self.read_noting(end, &mut trailer, forgotten)?;
        if is_whole && crc.is_of(&trailer) { Ok(()) } else { Err(self.damage(number, block)) }
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
            self.expect_sound(first, &some, &buffer)?;
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

    fn piece(&self, at: RunAt) -> Option<FilePiece<'_>> {
        self.table().piece(at)
    }

    fn bring_in(&self, at: RunAt) -> io::Result<Vec<Bytes>> {
        self.table().bring_in(at)
    }

    fn advanced(&self, at: RunAt, bytes: usize) -> RunAt {
        self.table().advanced(at, bytes)
    }
}

/// Bytes that are kept of what is checked: those of a part of the file, as far as they come one after the other.
struct Taken {
    from: u64,
    wanted: usize,
    bytes: Vec<u8>,
}

impl Taken {
    /// `piece` lies at `start` in the file.
    fn take(&mut self, start: u64, piece: &[u8]) {
        let next = self.from + self.bytes.len() as u64;
        let missing = self.wanted - self.bytes.len();
        if let Some(behind) = next.checked_sub(start).and_then(|skipped| piece.get(skipped as usize..)) {
            self.bytes.extend_from_slice(&behind[..missing.min(behind.len())]);
        }
    }
}

/// A part of a file.
struct Stretch {
    start: u64,
    length: usize,
    /// What it has something of.
    blocks: Range<usize>,
}

impl BatchFile for GrowingTable {
    fn copy(&self, at: RunAt, buffer: &mut [u8], parts: &mut Vec<Range<usize>>) -> Result<(), Cold> {
        parts.clear();
        let stretch = self.stretch(at, buffer.len(), parts);
        if !self.checks.has(stretch.blocks.clone()) {
            return Err(Cold);
        }
        let read = self.read_cached(stretch.start, &mut buffer[..stretch.length]).unwrap_or(0);
        if read < stretch.length {
            // The kernel has begun to read the rest.
            self.checks.forget(self.block_count());
        }
        // Looked at afterwards: whoever brings any of it from the disk notes that.
        if read == 0 || !self.checks.has(stretch.blocks) {
            return Err(Cold);
        }
        parts.retain(|part| part.start < read);
        if let Some(last) = parts.last_mut() {
            last.end = last.end.min(read);
        }
        if parts.is_empty() { Err(Cold) } else { Ok(()) }
    }

    fn piece(&self, at: RunAt) -> Option<FilePiece<'_>> {
        let number = at.batch as usize;
        let block = self.blocks.read()[number];
        let bytes = ((block.value_bytes - at.sent) as usize).min(at.left).min(PIECE_BYTES_MAX);
        let start = block.value_start() + u64::from(at.sent);
        let is_large = block.value_bytes as usize >= PIECE_BYTES_MIN && bytes >= REST_BYTES_MIN;
        if !is_large || !self.sends() || !is_cached(&self.file, start, bytes as u64) {
            return None;
        }
        // Pages that are being read are counted as there.
        let probed = (0..bytes).step_by(PROBED_BYTES).chain([bytes - 1]);
        if !probed.map(|place| start + place as u64).all(|place| self.is_cached(place)) {
            self.checks.forget(self.block_count());
            return None;
        }
        // Looked at last: whoever brings any of it from the disk notes that.
        self.checks.has(number..number + 1).then(|| FilePiece { file: self.file.as_fd(), start, bytes })
    }

    fn bring_in(&self, at: RunAt) -> io::Result<Vec<Bytes>> {
        let first = at.batch as usize;
        let stretch = self.some_blocks(first, (at.left as u64 + u64::from(at.sent)).min(AHEAD_BYTES));
        let (block, last) = (stretch[0], stretch[stretch.len() - 1]);
        let wanted = ((block.value_bytes - at.sent) as usize).min(at.left).min(BROUGHT_BYTES);
        let from = block.value_start() + u64::from(at.sent);
        let mut taken = Taken { from, wanted, bytes: Vec::with_capacity(wanted) };
        let blocks = first..first + stretch.len();
        if self.checks.has(blocks.clone()) {
            taken.bytes.resize(wanted, 0);
            self.read_noting(from, &mut taken.bytes, &mut self.checks.forgotten())?;
            if self.checks.has(first..first + 1) {
                return Ok(vec![taken.bytes.into()]);
            }
            taken.bytes.clear();
        }
        let mut buffer = vec![0; CHECKED_AT_ONCE];
        self.warm_up(block.start, last.end(), &mut buffer)?;
        let mut next = first + self.check(first, &mut buffer, &mut taken)?;
        // Whoever comes for what is damaged behind it is told so.
        while next < blocks.end.min(self.checks.damaged())
            && let Ok(more) = self.check(next, &mut buffer, &mut taken)
        {
            next += more;
        }
        Ok(vec![taken.bytes.into()])
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

    use super::super::table::{Header, StagedBatch};
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
        let staged = |(number, bytes)| StagedBatch { last_offset: key(number), bytes, sum: None };
        let batches: Vec<_> = values.iter().cloned().enumerate().map(staged).collect();
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

    /// Where the kernel says what is in the page cache, which it does from Linux 6.5 on.
    #[test]
    fn the_kernel_may_send_what_is_large_and_cached_and_checked() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (table, values) = table(dir.path(), &[PIECE_BYTES_MIN - 1, PIECE_BYTES_MIN, 3 * PIECE_BYTES_MAX]);
        let says = is_cached(&table.file, 0, 1) && table.sends();
        let left: usize = values.iter().map(Bytes::len).sum();
        let piece = |batch: u32, sent: u32| {
            let found = table.piece(RunAt { batch, sent, left })?;
            let mut bytes = vec![0; found.bytes];
            table.file.read_exact_at(&mut bytes, found.start).expect("read");
            assert!(bytes == values[batch as usize][sent as usize..sent as usize + found.bytes]);
            Some(found.bytes)
        };
        assert_eq!(piece(0, 0), None);
        assert_eq!(piece(1, 0), says.then_some(PIECE_BYTES_MIN));
        assert_eq!(piece(1, 1), says.then_some(PIECE_BYTES_MIN - 1), "the rest of what is large");
        assert_eq!(piece(1, (PIECE_BYTES_MIN - REST_BYTES_MIN) as u32 + 1), None);
        assert_eq!(piece(2, 9), says.then_some(PIECE_BYTES_MAX));
        assert_eq!(piece(2, 5 * PIECE_BYTES_MAX as u32 / 2), says.then_some(PIECE_BYTES_MAX / 2));
        table.checks.forget(2);
        assert_eq!((piece(1, 0), piece(2, 0)), (None, says.then_some(PIECE_BYTES_MAX)));
        table.checks.note(0..2, table.checks.forgotten());
        assert_eq!(piece(1, 0), says.then_some(PIECE_BYTES_MIN));
        table.sync().expect("synced");
        rustix::fs::fadvise(&table.file, 0, None, rustix::fs::Advice::DontNeed).expect("advised");
        assert_eq!(piece(1, 0).is_some(), is_cached(&table.file, 0, 2 * PIECE_BYTES_MIN as u64));
    }

    /// A socket that is full anywhere has a batch sent in parts, and copies go on into the next batch.
    #[test]
    fn the_kernel_sends_most_of_large_batches_wherever_the_socket_was_full() {
        let dir = tempfile::tempdir().expect("tempdir");
        let (table, values) = table(dir.path(), &[65_535; 40]);
        let says = is_cached(&table.file, 0, 1) && table.sends();
        for takes in [3000, 50_000, 70_000, 100_000] {
            let (mut run, mut buffer) = (locate(&table, 0, 400, usize::MAX).0.runs.remove(0), vec![0; 128 << 10]);
            let (mut sent, mut by_kernel, mut parts) = (Vec::new(), 0, Vec::new());
            while run.len() > 0 {
                let bytes = if let Some(piece) = run.piece() {
                    let mut bytes = vec![0; piece.bytes];
                    table.file.read_exact_at(&mut bytes, piece.start).expect("read");
                    by_kernel += bytes.len().min(takes);
                    bytes
                } else {
                    run.copy(&mut buffer, &mut parts).expect("in the page cache");
                    parts.iter().flat_map(|part| buffer[part.clone()].to_vec()).collect()
                };
                let taken = bytes.len().min(takes);
                sent.extend_from_slice(&bytes[..taken]);
                run.advance(taken);
            }
            assert!(sent == values.concat());
            assert!(!says || by_kernel * 10 > sent.len() * 9, "{takes}: {by_kernel} of {}", sent.len());
        }
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
