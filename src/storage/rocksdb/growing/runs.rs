//! Batches of a table as runs that are sent from its file: found by their blocks, copied out of the page cache a piece
//! at a time, and brought there from the disk. What comes from there is checked before it is sent: in the buffer that
//! it is copied to, or, where a batch is larger than that, as it is brought in.
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
use crate::types::place::{BatchFile, COPIED_BYTES, Cold, FilePiece, FileRun, PIECE_BYTES_MIN, RunAt};

/// Parts of a buffer that one copy gives at most: what one `writev` takes, with a few slices around it.
const PARTS_MAX: usize = 48;

/// Of such a batch also a rest is sent by the kernel, if it has so many bytes: a socket is full anywhere.
const REST_BYTES_MIN: usize = 4 << 10;

/// A piece is looked at each so many bytes, and at its end.
const PROBED_BYTES: usize = 256 << 10;

/// What the kernel is asked to send at once.
const PIECE_BYTES_MAX: usize = 1 << 20;

/// The check in the background leaves larger batches to their readers.
const CHECKED_AT_ONCE_MAX: u64 = 16 << 20;

/// Where something had to be read from the disk the kernel is asked for so many bytes behind it, and so many of what is
/// about to be sent are waited for.
const AHEAD_BYTES: u64 = 2 << 20;

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
        let sound = blocks.len().min(self.checks.next_damaged(first));
        let (mut next, mut bytes, mut is_over) = (first, 0, false);
        while next < sound {
            let (last, length) = (last_offset(&blocks[next]), blocks[next].value_bytes as usize);
            let fits = found.bytes + bytes + length <= span.max_bytes;
            let alone = span.at_least_one && found.bytes + bytes == 0;
            is_over = last >= span.upto || !(fits || alone);
            if is_over {
                break;
            }
            bytes += length;
            next += 1;
        }
        if next == first {
            found.is_all = is_over;
            return false;
        }
        // What cannot be lent is read instead, so it is still to come.
        let (Ok(batch), Some(lent)) = (u32::try_from(first), Lent::of(self)) else { return false };
        found.is_all = is_over;
        found.end = last_offset(&blocks[next - 1]) + 1;
        found.bytes += bytes;
        let at = RunAt { batch, sent: 0, left: bytes };
        found.runs.push(FileRun::new(Arc::new(lent), at));
        next == blocks.len()
    }

    /// What comes next of a run, at most so many bytes of the file and [`PARTS_MAX`] batches; `parts` gets the bytes of
    /// batches, as places in a buffer that begins where the piece does.
    fn excerpt(&self, at: RunAt, bytes_max: usize, parts: &mut Vec<Range<usize>>) -> Excerpt {
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
        Excerpt { start, length, blocks: first..next }
    }

    /// Fills a buffer from the file. What is not in the page cache comes from the disk, and is noted as such before.
    /// `forgotten`: as often as [`Checks::forgotten`](super::checks::Checks::forgotten) said before.
    fn read_noting(&self, from: u64, buffer: &mut [u8], forgotten: &mut u64) -> io::Result<()> {
        let cached = self.read_cached(from, buffer).unwrap_or(0);
        if cached == buffer.len() {
            return Ok(());
        }
        self.forget(forgotten);
        self.file.read_exact_at(&mut buffer[cached..], from + cached as u64)?;
        let ahead = NonZeroU64::new(AHEAD_BYTES);
        // A wish: whoever comes next waits for the disk by itself.
        rustix::fs::fadvise(&self.file, from + buffer.len() as u64, ahead, rustix::fs::Advice::WillNeed).ok();
        Ok(())
    }

    /// Something comes from the disk. What was read since `forgotten` was asked stays known, unless others have
    /// something come as well.
    fn forget(&self, forgotten: &mut u64) {
        let now = self.checks.forget(self.block_count());
        if now == *forgotten + 1 {
            *forgotten = now;
        }
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

    /// Checks blocks from this one on, one or as many as fit the buffer. `taken` gets the bytes that it wants. Answers
    /// how many blocks are what was written. `forgotten`: see [`read_noting`](Self::read_noting).
    ///
    /// # Errors
    /// They cannot be read, or the first of them is not what was written.
    fn check(&self, first: usize, buffer: &mut [u8], taken: &mut Taken, forgotten: &mut u64) -> io::Result<usize> {
        let some = self.some_blocks(first, buffer.len() as u64);
        let (Some(begin), Some(end)) = (some.first(), some.last()) else { return Ok(0) };
        let length = end.end() - begin.start;
        if length > buffer.len() as u64 {
            return self.check_large(first, begin, buffer, taken, forgotten).map(|()| 1);
        }
        let buffer = &mut buffer[..length as usize];
        if let Err(error) = self.read_noting(begin.start, buffer, forgotten) {
            if some.len() > 1 {
                // Those before the one that cannot be read can.
                let alone = (begin.end() - begin.start) as usize;
                return self.check(first, &mut buffer[..alone], taken, forgotten);
            }
            self.checks.note_damaged(first);
            return Err(error);
        }
        let sound = self.damaged_among(first, &some, buffer).first().copied().unwrap_or(some.len());
        if sound == 0 {
            return Err(self.mismatch(begin));
        }
        let length = (some[sound - 1].end() - begin.start) as usize;
        taken.take(begin.start, &buffer[..length]);
        Ok(sound)
    }

    /// Checks the first of these blocks, as many as fit the buffer, and brings the others into the page cache. Of those
    /// the large ones are checked as well; whoever copies the others checks them. Answers which blocks are sound.
    ///
    /// # Errors
    /// As those of [`check`](Self::check).
    fn check_on_the_way(
        &self,
        first: usize,
        some: &[BlockAt],
        buffer: &mut [u8],
        taken: &mut Taken,
        forgotten: &mut u64,
    ) -> io::Result<Vec<Range<usize>>> {
        let begun = self.check(first, buffer, taken, forgotten)?;
        let mut sound = Vec::with_capacity(1);
        sound.push(first..first + begun);
        let Some((last, _)) = some.get(begun..).and_then(<[BlockAt]>::split_last) else { return Ok(sound) };
        for (number, block) in (first..).zip(some).skip(begun) {
            let is_large = block.end() - block.start > buffer.len() as u64;
            // What is damaged is noted, and its reader told.
            if is_large && self.check_large(number, block, buffer, taken, forgotten).is_ok() {
                sound.push(number..number + 1);
            }
        }
        // What cannot be read is not brought in. Its reader is told as well.
        self.read_noting(last.end() - 1, &mut [0], forgotten).ok();
        Ok(sound)
    }

    /// Looks for damage among these blocks, so that of all who come to it none has to lose its connection any more.
    fn note_damage(&self, blocks: Range<usize>, buffer: &mut [u8]) {
        let (mut next, mut nothing) = (blocks.start, Taken { from: 0, wanted: 0, bytes: Vec::new() });
        while next < blocks.end {
            if self.checks.next_damaged(next) == next {
                next += 1;
                continue;
            }
            match self.check(next, buffer, &mut nothing, &mut self.checks.forgotten()) {
                Ok(more) => next += more,
                // What cannot be read may take its time, and is one reader's.
                Err(error) if self.checks.next_damaged(next) == next && error.raw_os_error().is_none() => {}
                Err(_) => break,
            }
        }
    }

    /// What [`BatchFile::copy`] does, for blocks that may have come from the disk since they were checked: they are
    /// checked in the buffer, as many as fit it. One that is larger has to be brought in.
    fn copy_checking(&self, at: RunAt, buffer: &mut [u8], parts: &mut Vec<Range<usize>>) -> Result<(), Cold> {
        parts.clear();
        let first = at.batch as usize;
        let mut some = self.some_blocks(first, buffer.len() as u64);
        let mut wanted = at.left + at.sent as usize;
        let is_wanted = |block: &&BlockAt| {
            let is_wanted = wanted > 0;
            wanted = wanted.saturating_sub(block.value_bytes as usize);
            is_wanted
        };
        let count = some.iter().take(PARTS_MAX).take_while(is_wanted).count();
        some.truncate(count.min(self.checks.next_damaged(first) - first));
        let (Some(begin), Some(end)) = (some.first().copied(), some.last()) else { return Err(Cold) };
        let length = (end.end() - begin.start) as usize;
        let Some(buffer) = buffer.get_mut(..length) else { return Err(Cold) };
        let mut forgotten = self.checks.forgotten();
        let read = self.read_cached(begin.start, buffer).unwrap_or(0);
        if read < length {
            // The kernel has begun to read the rest.
            self.forget(&mut forgotten);
            some.truncate(some.partition_point(|block| block.end() - begin.start <= read as u64));
        }
        if let Some(damaged) = self.damaged_among(first, &some, buffer).first() {
            some.truncate(*damaged);
        }
        self.checks.note(first..first + some.len(), forgotten);
        let (mut sent, mut left) = (at.sent, at.left);
        for block in some {
            let from = (block.value_start() + u64::from(sent) - begin.start) as usize;
            let bytes = ((block.value_bytes - sent) as usize).min(left);
            parts.push(from..from + bytes);
            (sent, left) = (0, left - bytes);
        }
        if parts.is_empty() { Err(Cold) } else { Ok(()) }
    }

    /// Which of some blocks are not what was written; all of them are noted, so that nobody meets them unawares.
    /// `bytes` begin where the first of them does.
    fn damaged_among(&self, first: usize, some: &[BlockAt], bytes: &[u8]) -> Vec<usize> {
        let is_damaged = |block: &BlockAt| {
            let place = (block.start - some[0].start) as usize..(block.end() - some[0].start) as usize;
            !layout::is_sound(&bytes[place])
        };
        let damaged: Vec<usize> = (0..some.len()).filter(|number| is_damaged(&some[*number])).collect();
        damaged.iter().for_each(|number| self.checks.note_damaged(first + number));
        damaged
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
        let is_sound = self.is_large_sound(block, buffer, taken, forgotten);
        if !matches!(is_sound, Ok(true)) {
            self.checks.note_damaged(number);
        }
        if is_sound? { Ok(()) } else { Err(self.mismatch(block)) }
    }

    fn is_large_sound(
        &self,
        block: &BlockAt,
        buffer: &mut [u8],
        taken: &mut Taken,
        forgotten: &mut u64,
    ) -> io::Result<bool> {
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
        Ok(is_whole && crc.is_of(&trailer))
    }

    /// Checks blocks from this one on, one or as many as fit so many bytes, as far as the page cache has them; what is
    /// not there is checked before it is sent. What is not what was written, and was not known to be, is `told`.
    /// Answers where to go on, and how many bytes lie before that; `None`: there are no more. `buffer` grows to them.
    pub(super) fn check_cached(
        &self,
        mut first: usize,
        bytes: u64,
        buffer: &mut Vec<u8>,
        told: impl Fn(io::Error),
    ) -> Option<(usize, u64)> {
        while self.checks.next_damaged(first) == first {
            first += 1;
        }
        let mut some = self.some_blocks(first, bytes);
        some.truncate(self.checks.next_damaged(first) - first);
        let (begin, end) = (some.first()?, some.last()?);
        let (length, next) = (end.end() - begin.start, first + some.len());
        if length > CHECKED_AT_ONCE_MAX {
            return Some((next, length));
        }
        if buffer.len() < length as usize {
            buffer.resize(length as usize, 0);
        }
        let buffer = &mut buffer[..length as usize];
        if self.read_cached(begin.start, buffer) == Some(buffer.len()) {
            let damaged = self.damaged_among(first, &some, buffer);
            damaged.into_iter().for_each(|number| told(self.mismatch(&some[number])));
        } else {
            // The kernel has begun to read the rest.
            self.checks.forget(self.block_count());
        }
        Some((next, length))
    }

    #[cfg(test)]
    pub(super) fn is_damaged(&self) -> bool {
        self.checks.next_damaged(0) < usize::MAX
    }

    fn mismatch(&self, block: &BlockAt) -> io::Error {
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

    fn is_cached(&self, at: RunAt) -> bool {
        BatchFile::is_cached(self.table(), at)
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
struct Excerpt {
    start: u64,
    length: usize,
    /// What it has something of.
    blocks: Range<usize>,
}

impl BatchFile for GrowingTable {
    fn copy(&self, at: RunAt, buffer: &mut [u8], parts: &mut Vec<Range<usize>>) -> Result<(), Cold> {
        parts.clear();
        let excerpt = self.excerpt(at, buffer.len(), parts);
        if self.checks.has(excerpt.blocks.clone()) {
            let read = self.read_cached(excerpt.start, &mut buffer[..excerpt.length]);
            if read != Some(excerpt.length) {
                // The kernel has begun to read the rest.
                self.checks.forget(self.block_count());
            } else if self.checks.has(excerpt.blocks) {
                // Looked at again: whoever brings any of it from the disk notes that.
                return Ok(());
            }
        }
        self.copy_checking(at, buffer, parts)
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

    fn is_cached(&self, at: RunAt) -> bool {
        let Some(before_last) = at.left.checked_sub(1) else { return true };
        let place = |at: RunAt| self.blocks.read()[at.batch as usize].value_start() + u64::from(at.sent);
        let (first, last) = (place(at), place(self.advanced(at, before_last)));
        is_cached(&self.file, first, last - first + 1)
    }

    fn bring_in(&self, at: RunAt) -> io::Result<Vec<Bytes>> {
        let first = at.batch as usize;
        let stretch = self.some_blocks(first, (at.left as u64 + u64::from(at.sent)).min(AHEAD_BYTES));
        let block = stretch[0];
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
        let mut buffer = vec![0; COPIED_BYTES];
        // Others may have something read from the disk meanwhile; the second time all of it is in the page cache.
        for _ in 0..2 {
            taken.bytes.clear();
            let mut forgotten = self.checks.forgotten();
            let checked = self.check_on_the_way(first, &stretch, &mut buffer, &mut taken, &mut forgotten);
            let sound = checked.inspect_err(|_| self.note_damage(blocks.clone(), &mut buffer))?;
            if sound.into_iter().all(|some| self.checks.note(some, forgotten)) {
                break;
            }
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
mod tests;
