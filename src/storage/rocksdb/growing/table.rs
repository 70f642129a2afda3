//! A table that grows: a partition's newest batches, written once.
//!
//! What goes through RocksDB's log and memtable is written twice. Where much comes for one partition, its batches are
//! appended to a file instead that is laid out as the beginning of one of its own files ([`super::layout`]). When
//! it is full, [`super::ingest`] appends what such a file ends with, and RocksDB takes it over as it is.
//!
//! Layout of a file `<log.dir>/growing/<family>-<serial>.sst`: the [`Header`], then a data block for each batch. What
//! a kill or a loss of power leaves behind the last sound block, zeros that were to be written over among it, does not
//! count, and [`super::recover`] cuts it off.
//!
//! Whoever holds the writer lock writes; any number read. A batch is found once its block was published.

use std::fs::File;
use std::io::{self, IoSlice};
use std::num::NonZeroU64;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use parking_lot::RwLock;
use rustix::buffer::spare_capacity;
use rustix::fs::FallocateFlags;
use tracing::debug;

use super::checks::{Checks, Damaged};
use super::layout::{self, BlockAt, Frame};
use crate::storage::rocksdb::database::{OpenTables, write_out};
use crate::storage::{VisitBatch, Visited, keys};
use crate::types::crc::EndSum;
use crate::types::{Offset, PartitionIndex, TopicId};

/// What a growing file begins with, 64 bytes: magic (8), layout 1 (4), family (4), topic id (16), partition (4),
/// [`Header::follows`] (8), zeros (16), and the CRC-32C of all that (4). Numbers are big-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage::rocksdb) struct Header {
    pub(in crate::storage::rocksdb) family: u32,
    /// Whose batches they are: a family's number may be given out again.
    pub(in crate::storage::rocksdb) topic_id: TopicId,
    pub(in crate::storage::rocksdb) partition: PartitionIndex,
    /// The last offset of the table before it, if that still grew when this one was begun: without it the log would
    /// have a hole. [`Offset::NONE`]: what comes before was on the disk.
    pub(in crate::storage::rocksdb) follows: Offset,
}

pub(in crate::storage::rocksdb) const HEADER_BYTES: usize = 64;
const MAGIC: &[u8; 8] = b"klammtab";
const LAYOUT: u32 = 1;

impl Header {
    pub(in crate::storage::rocksdb) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..12].copy_from_slice(&LAYOUT.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.family.to_be_bytes());
        bytes[16..32].copy_from_slice(self.topic_id.0.as_bytes());
        bytes[32..36].copy_from_slice(&self.partition.0.to_be_bytes());
        bytes[36..44].copy_from_slice(&self.follows.0.to_be_bytes());
        let crc = crc32c::crc32c(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// `None`: torn, or not one of ours.
    pub(in crate::storage::rocksdb) fn decode(bytes: &[u8; HEADER_BYTES]) -> Option<Self> {
        let u32_at = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"));
        if &bytes[..8] != MAGIC || u32_at(8) != LAYOUT || u32_at(60) != crc32c::crc32c(&bytes[..60]) {
            return None;
        }
        Some(Self {
            family: u32_at(12),
            topic_id: TopicId(uuid::Uuid::from_slice(&bytes[16..32]).ok()?),
            partition: PartitionIndex(i32::from_be_bytes(bytes[32..36].try_into().ok()?)),
            follows: Offset(i64::from_be_bytes(bytes[36..44].try_into().ok()?)),
        })
    }
}

/// Whether the kernel sends of a file that is being written to without a lock that the writer holds while it waits for
/// the disk, as it does on XFS and may on others.
fn sends_while_written(file: &File) -> bool {
    const WITHOUT_LOCK: [u32; 3] = [0xef53, 0x9123_683e, 0x0102_1994]; // ext4, btrfs, tmpfs
    rustix::fs::fstatfs(file).is_ok_and(|system| WITHOUT_LOCK.contains(&(system.f_type as u32)))
}

/// A batch to be written to a table.
#[derive(Debug)]
pub(in crate::storage::rocksdb) struct StagedBatch {
    pub(in crate::storage::rocksdb) last_offset: Offset,
    pub(in crate::storage::rocksdb) bytes: Bytes,
    /// What is known of the checksum of `bytes`.
    pub(in crate::storage::rocksdb) sum: Option<EndSum>,
}

/// A growing table's file and the blocks in it.
#[derive(Debug)]
pub(in crate::storage::rocksdb) struct GrowingTable {
    pub(super) file: File,
    path: PathBuf,
    /// As its header says.
    follows: Offset,
    /// Its family has nothing from here on, and below its own first key. [`i64::MAX`]: that is not known.
    continues: AtomicI64,
    /// Those that readers may see, in the order of their keys.
    pub(super) blocks: RwLock<Vec<BlockAt>>,
    pub(super) checks: Checks,
    /// Up to where the page cache was told.
    told: AtomicU64,
    /// Up to where there are zeros behind the end.
    filled: AtomicU64,
    /// Up to where the file system has given blocks.
    reserved: AtomicU64,
    /// Where the next block goes. It moves under the writer lock only.
    end: AtomicU64,
    /// Nothing is appended any more.
    sealed: AtomicBool,
    /// Sealed, and all of it has reached the disk, its name included.
    synced: AtomicBool,
    /// The kernel may be asked to send of it: that waits for nobody who writes.
    sends: AtomicBool,
    /// Most of it has.
    pre_synced: AtomicBool,
    pre_sync_wanted: AtomicBool,
    /// Places in it that replies hold.
    pub(super) lendings: AtomicUsize,
    /// The file system cannot say what the page cache has, so nothing is lent from here.
    pub(super) is_opaque: AtomicBool,
    counted_in: OnceLock<Arc<OpenTables>>,
}

impl Drop for GrowingTable {
    fn drop(&mut self) {
        if let Some(open) = self.counted_in.get() {
            open.closed();
        }
    }
}

/// A part of a file.
#[derive(Debug, Clone, Copy)]
pub(in crate::storage::rocksdb) struct Stretch {
    from: u64,
    to: u64,
}

impl Stretch {
    pub(in crate::storage::rocksdb) fn bytes(self) -> u64 {
        self.to - self.from
    }
}

/// Readers take so many bytes at once at most, unless one batch is larger.
const READ_BYTES_MAX: u64 = 512 << 10;
/// Where it is not known how much a scan wants, its second read takes so many bytes, later ones twice as many each
/// time. The first takes one batch.
const READ_BYTES_MIN: u64 = 64 << 10;

/// So many parts of a table have blocks of the disk reserved one after the other.
const RESERVED_AT_ONCE: u64 = 16;

/// Buffers of one `pwritev`, as the kernel allows (`IOV_MAX`).
const BUFFERS_MAX: usize = 1024;

/// A write that comes to a new one of these parts of the file fills it up with zeros, which the next writes take the
/// place of: so the page cache has one large folio for it, as it would for one large write, and not a dozen small ones,
/// whose number is what writing, reading and giving back costs beside the copy.
pub(super) const PART_BYTES: u64 = 256 << 10;
static ZEROS: [u8; PART_BYTES as usize] = [0; PART_BYTES as usize];

impl GrowingTable {
    /// Makes the file.
    pub(in crate::storage::rocksdb) fn create(path: PathBuf, header: &Header) -> io::Result<Self> {
        let file = File::options().create_new(true).read(true).write(true).open(&path)?;
        if let Err(error) = file.write_all_at(&header.encode(), 0) {
            if let Err(left) = std::fs::remove_file(&path) {
                // The next start removes it, as it says of nothing whose it is.
                debug!(path = %path.display(), error = %left, "beginning of a growing table not removed");
            }
            return Err(error);
        }
        Ok(Self::with_blocks(file, path, header.follows, Vec::new()))
    }

    /// A table that was found with these blocks, at least one. Nothing is appended to it.
    pub(in crate::storage::rocksdb) fn found(file: File, path: PathBuf, follows: Offset, blocks: Vec<BlockAt>) -> Self {
        let table = Self::with_blocks(file, path, follows, blocks);
        table.seal();
        table
    }

    /// A table that RocksDB took over once, with all its blocks. `continues`: the family has nothing from this offset
    /// on, and below the table's first key.
    pub(super) fn handed_over(
        file: File,
        path: PathBuf,
        blocks: Vec<BlockAt>,
        continues: Offset,
        damaged: Arc<Damaged>,
    ) -> Self {
        let checks = Checks::of_unchecked(blocks.len(), damaged);
        let mut table = Self::with_blocks(file, path, Offset::NONE, blocks);
        table.checks = checks;
        table.note_continues(continues);
        table.seal();
        table.note_synced();
        table.sends.store(true, Ordering::Relaxed);
        table
    }

    fn with_blocks(file: File, path: PathBuf, follows: Offset, blocks: Vec<BlockAt>) -> Self {
        let end = blocks.last().map_or(HEADER_BYTES as u64, BlockAt::end);
        let sends = AtomicBool::new(sends_while_written(&file));
        Self {
            file,
            path,
            follows,
            continues: AtomicI64::new(if follows == Offset::NONE { i64::MAX } else { follows.0 + 1 }),
            blocks: RwLock::new(blocks),
            checks: Checks::of_sound(),
            told: AtomicU64::new(0),
            filled: AtomicU64::new(0),
            reserved: AtomicU64::new(0),
            end: AtomicU64::new(end),
            sealed: AtomicBool::new(false),
            synced: AtomicBool::new(false),
            sends,
            pre_synced: AtomicBool::new(false),
            pre_sync_wanted: AtomicBool::new(false),
            lendings: AtomicUsize::new(0),
            is_opaque: AtomicBool::new(false),
            counted_in: OnceLock::new(),
        }
    }

    /// Counts it, for as long as anybody holds it.
    pub(in crate::storage::rocksdb) fn count_in(&self, open: &Arc<OpenTables>) {
        if self.counted_in.set(Arc::clone(open)).is_ok() {
            open.opened();
        }
    }

    /// Where it is counted, if it is.
    pub(super) fn counted_in(&self) -> Option<&Arc<OpenTables>> {
        self.counted_in.get()
    }

    pub(in crate::storage::rocksdb) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes written, those not published included.
    pub(in crate::storage::rocksdb) fn size_bytes(&self) -> u64 {
        self.end.load(Ordering::Relaxed)
    }

    pub(in crate::storage::rocksdb) fn block_count(&self) -> usize {
        self.blocks.read().len()
    }

    /// First and last key of what is published.
    pub(in crate::storage::rocksdb) fn bounds(&self) -> Option<(Offset, Offset)> {
        let blocks = self.blocks.read();
        Some((last_offset(blocks.first()?), last_offset(blocks.last()?)))
    }

    /// First and last key of what must not change while it grows: what is published, what is known to be nothing before
    /// it, and the key before that, whose absence would tell the next start that a table was lost.
    pub(in crate::storage::rocksdb) fn relies_on(&self) -> Option<(Offset, Offset)> {
        let (first, last) = self.bounds()?;
        let first = first.min(self.continues());
        Some((if self.follows == Offset::NONE { first } else { first.min(self.follows) }, last))
    }

    fn continues(&self) -> Offset {
        Offset(self.continues.load(Ordering::Relaxed))
    }

    /// The batch that holds this offset, or the first one behind it, is in this table, as far as it is known.
    pub(in crate::storage::rocksdb) fn begins_by(&self, offset: Offset) -> bool {
        self.bounds().is_some_and(|(first, last)| offset <= last && offset >= first.min(self.continues()))
    }

    /// The family has nothing from this offset on, and below its own first key: that will stay so, as a table begins
    /// behind all that its family has.
    pub(in crate::storage::rocksdb) fn note_continues(&self, from: Offset) {
        self.continues.fetch_min(from.0, Ordering::Relaxed);
    }

    pub(in crate::storage::rocksdb) fn last(&self) -> Option<Offset> {
        self.blocks.read().last().map(last_offset)
    }

    pub(in crate::storage::rocksdb) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    pub(in crate::storage::rocksdb) fn seal(&self) {
        self.sealed.store(true, Ordering::Release);
    }

    pub(in crate::storage::rocksdb) fn is_synced(&self) -> bool {
        self.synced.load(Ordering::Acquire)
    }

    /// Brings what was written to the disk.
    pub(in crate::storage::rocksdb) fn sync(&self) -> io::Result<()> {
        let sealed = self.is_sealed();
        self.file.sync_data()?;
        self.synced.fetch_or(sealed, Ordering::Release);
        Ok(())
    }

    /// Whether its file still has a name: here or as one of RocksDB's.
    pub(in crate::storage::rocksdb) fn has_name(&self) -> bool {
        rustix::fs::fstat(&self.file).is_ok_and(|stat| stat.st_nlink > 0)
    }

    /// Whether nobody has asked for a [`pre_sync`](Self::pre_sync) yet.
    pub(in crate::storage::rocksdb) fn wants_pre_sync(&self) -> bool {
        !self.pre_sync_wanted.swap(true, Ordering::Relaxed)
    }

    /// What was written since the last time: `None` asks for all of it, else whole parts of the file come, if that is
    /// at least so many bytes. What goes on being written need not go to the disk yet.
    pub(in crate::storage::rocksdb) fn take_stretch(&self, bytes_min: Option<u64>) -> Option<Stretch> {
        let (from, end) = (self.told.load(Ordering::Relaxed), self.size_bytes());
        let to = if bytes_min.is_some() { end - end % PART_BYTES } else { end };
        if to < from + bytes_min.unwrap_or(1) {
            return None;
        }
        // Asked under the writer lock while it grows, and by the thread that hands it over afterwards.
        self.told.store(to, Ordering::Relaxed);
        Some(Stretch { from, to })
    }

    /// Has the file system give blocks for what comes next, up to the size at which a table is full, once half of what
    /// it gave last is used: giving them page by page as pages are written takes a tenth of what that costs. A wish;
    /// what was not used goes back at the end. May wait for the disk.
    pub(in crate::storage::rocksdb) fn reserve(&self, bytes_max: u64) {
        let bytes = bytes_max / RESERVED_AT_ONCE;
        let reserved = self.reserved.load(Ordering::Relaxed);
        if reserved < bytes_max && self.size_bytes() + bytes / 2 > reserved && !self.is_sealed() {
            let reserved = match rustix::fs::fallocate(&self.file, FallocateFlags::KEEP_SIZE, reserved, bytes) {
                Ok(()) => reserved + bytes,
                // Writes will meet it, too, and say so.
                Err(rustix::io::Errno::NOSPC) => reserved,
                // Not on this file system.
                Err(_) => u64::MAX,
            };
            self.reserved.store(reserved, Ordering::Relaxed);
        }
    }

    /// Has a stretch sent to the disk, and leaves it in the page cache. A wish: the kernel sends it later else.
    pub(in crate::storage::rocksdb) fn write_out(&self, stretch: Stretch) {
        if let Err(error) = write_out(&self.file, stretch.from, stretch.bytes()) {
            debug!(path = %self.path.display(), %error, "a table's pages not sent to the disk early");
        }
    }

    /// Takes a stretch out of the page cache as far as it is on the disk, and sends the rest there. A wish, which the
    /// kernel may refuse.
    pub(in crate::storage::rocksdb) fn uncache(&self, stretch: Stretch) {
        let length = NonZeroU64::new(stretch.bytes());
        if let Err(errno) = rustix::fs::fadvise(&self.file, stretch.from, length, rustix::fs::Advice::DontNeed) {
            debug!(path = %self.path.display(), %errno, "page cache not told");
        }
    }

    pub(in crate::storage::rocksdb) fn is_pre_synced(&self) -> bool {
        self.pre_synced.load(Ordering::Acquire)
    }

    /// Brings most of what is written to the disk while more is written.
    pub(in crate::storage::rocksdb) fn pre_sync(&self) -> io::Result<()> {
        self.file.sync_data()?;
        self.pre_synced.store(true, Ordering::Release);
        Ok(())
    }

    /// Writes batches, under their last offsets, behind what is there. They are to be [`publish`](Self::publish)ed.
    pub(in crate::storage::rocksdb) fn write(&self, batches: &[StagedBatch]) -> io::Result<Vec<BlockAt>> {
        let mut at = self.size_bytes();
        let mut blocks = Vec::with_capacity(batches.len());
        // A block has three parts, and there may be zeros behind the last.
        for some in batches.chunks((BUFFERS_MAX - 1) / 3) {
            let frame = |batch: &StagedBatch| layout::frame(keys::batch(batch.last_offset), &batch.bytes, batch.sum);
            let frames: Vec<Frame> = some.iter().map(frame).collect();
            let mut buffers = Vec::with_capacity(3 * some.len());
            let start = at;
            for (batch, frame) in some.iter().zip(&frames) {
                let block = frame.block_at(keys::batch(batch.last_offset), at, batch.bytes.len());
                at = block.end();
                blocks.push(block);
                buffers.extend([frame.head(), &batch.bytes, frame.tail()].map(IoSlice::new));
            }
            if at > self.filled.load(Ordering::Relaxed) {
                let filled = at.next_multiple_of(PART_BYTES);
                buffers.push(IoSlice::new(&ZEROS[..(filled - at) as usize]));
                self.filled.store(filled, Ordering::Relaxed);
            }
            write_all(&self.file, &mut buffers, start)?;
        }
        self.end.store(at, Ordering::Relaxed);
        Ok(blocks)
    }

    /// Shows blocks to readers.
    pub(in crate::storage::rocksdb) fn publish(&self, blocks: &[BlockAt]) {
        self.blocks.write().extend_from_slice(blocks);
    }

    /// Takes back what was written from `end` on and was not published.
    pub(in crate::storage::rocksdb) fn cut_back(&self, end: u64) -> io::Result<()> {
        for place in [&self.end, &self.filled, &self.reserved] {
            place.store(end, Ordering::Relaxed);
        }
        self.file.set_len(end)
    }

    /// Completes the file as one of RocksDB's, to be brought to the disk with [`sync_all`](Self::sync_all). May be
    /// called again.
    pub(in crate::storage::rocksdb) fn finish(&self) -> io::Result<()> {
        let end = self.size_bytes();
        // They are read from on, and no more of them come.
        self.blocks.write().shrink_to_fit();
        let rest = layout::finish(&self.blocks.read(), end);
        self.file.write_all_at(&rest, end)?;
        // What was reserved and not used goes back.
        self.file.set_len(end + rest.len() as u64)?;
        self.sends.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether the kernel may be asked to send of it.
    pub(super) fn sends(&self) -> bool {
        self.sends.load(Ordering::Relaxed)
    }

    /// Brings a finished table to the disk, its length included. Its name may be missing there still.
    pub(in crate::storage::rocksdb) fn sync_all(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// All of it has reached the disk, as RocksDB's.
    pub(in crate::storage::rocksdb) fn note_synced(&self) {
        self.synced.store(true, Ordering::Release);
    }

    /// Visits batches from the first whose last offset is at least `from`. `wanted` as for [`LogDir::scan`].
    pub(in crate::storage::rocksdb) fn scan(
        &self,
        from: Offset,
        wanted: usize,
        visit: &mut VisitBatch<'_>,
    ) -> io::Result<ControlFlow<()>> {
        let mut next = self.blocks.read().partition_point(|block| last_offset(block) < from);
        let (mut wanted, mut ahead_bytes) = (wanted as u64, 0);
        loop {
            let some = self.some_blocks(next, wanted.min(READ_BYTES_MAX).max(ahead_bytes));
            let (Some(first), Some(last)) = (some.first(), some.last()) else { return Ok(ControlFlow::Continue(())) };
            let length = last.end() - first.start;
            self.note_cold(first.start, length);
            let buffer = self.read(first.start, length)?;
            for block in &some {
                let bytes = &buffer[within(first, block.start)..within(first, block.end())];
                if !layout::is_sound(bytes) {
                    let offset = last_offset(block);
                    return Err(io::Error::other(format!("checksum mismatch at offset {offset} in {:?}", self.path)));
                }
                let value = within(first, block.value_start());
                let batch = Visited::within(&buffer, value..value + block.value_bytes as usize);
                if visit(last_offset(block), batch).is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
            next += some.len();
            wanted = wanted.saturating_sub(length);
            if wanted == 0 {
                ahead_bytes = (2 * ahead_bytes).clamp(READ_BYTES_MIN, READ_BYTES_MAX);
            }
        }
    }

    /// A part of the file. Not read into zeros: clearing a buffer takes as long as copying into it.
    fn read(&self, from: u64, length: u64) -> io::Result<Bytes> {
        let length = usize::try_from(length).expect("a read fits memory");
        let mut buffer = Vec::with_capacity(length);
        while buffer.len() < length {
            let at = from + buffer.len() as u64;
            match rustix::io::pread(&self.file, spare_capacity(&mut buffer), at) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        // The allocator may have given more than was asked for.
        buffer.truncate(length);
        Ok(buffer.into())
    }

    /// Blocks from this one on: one, and as many more as fit so many bytes.
    pub(super) fn some_blocks(&self, next: usize, bytes: u64) -> Vec<BlockAt> {
        let blocks = self.blocks.read();
        let Some(first) = blocks.get(next) else { return Vec::new() };
        let more = blocks[next + 1..].iter().take_while(|block| block.end() - first.start <= bytes).count();
        blocks[next..=next + more].to_vec()
    }

    /// The last batch that is published.
    pub(in crate::storage::rocksdb) fn last_batch(&self) -> io::Result<Option<(Offset, Bytes)>> {
        let Some(last) = self.last() else { return Ok(None) };
        let mut found = None;
        let flow = self.scan(last, 0, &mut |last_offset, batch| {
            found = batch.shared().map(|batch| (last_offset, batch));
            ControlFlow::Break(())
        })?;
        debug_assert!(flow.is_break(), "a published block is found");
        Ok(found)
    }
}

/// A block's key, as the offset it is.
pub(in crate::storage::rocksdb) fn last_offset(block: &BlockAt) -> Offset {
    Offset(i64::from_be_bytes(block.key))
}

/// A place of the file within a buffer that begins at a block.
fn within(first: &BlockAt, place: u64) -> usize {
    usize::try_from(place - first.start).expect("a read fits memory")
}

fn write_all(file: &File, mut buffers: &mut [IoSlice<'_>], mut at: u64) -> io::Result<()> {
    while !buffers.is_empty() {
        match rustix::io::pwritev(file, buffers, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                at += written as u64;
                IoSlice::advance_slices(&mut buffers, written);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}
