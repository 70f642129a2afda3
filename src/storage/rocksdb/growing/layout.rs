//! The layout of a growing table: a file that grows by one batch at a time and is at any moment the beginning of what
//! RocksDB calls a block-based table. With [`finish`]'s bytes behind its last block RocksDB takes it over as it is.
//! Nothing here does I/O.
//!
//! A batch is one data block, with one entry and so one restart point. Integers are little-endian:
//!
//! ```text
//! head   varint 0 (bytes shared with a key before), varint 16 (bytes of the key), varint bytes of the value,
//!        the key: 8 bytes of ours, then 8 bytes (sequence number 0) << 8 | (type 1, a value)
//! value
//! tail   u32 0 (where the entry begins), u32 1 (restart points), u8 0 (not compressed),
//!        u32 masked CRC-32C of all before
//! ```
//!
//! Blocks may begin anywhere: readers follow the handles of the index only. Then come, each with a trailer of 5 bytes
//! like a data block's: the index, the properties and the metaindex, which names the properties; at the end the footer.
//! The index has every block's key in full, without sequence number, and the block's handle in full (offset and length
//! without trailer as varints), each entry with a restart point of its own.
//!
//! Format version 5, because from 6 on a checksum depends on where its block lies and on a number that is in the footer
//! only. Blocks of 4 GiB do not occur. RocksDB gives all entries the sequence number that it assigns at ingestion;
//! in the file it is 0.
//!
//! Source: RocksDB 11.8's `table/format.cc` (trailer, handle, footer), `table/block_based/block_builder.cc` and
//! `data_block_footer.h` (blocks), `block_based_table_builder.cc` (order of the parts), `block_based_table_reader.cc`
//! (which properties a reader needs), `table/meta_blocks.cc` (properties, metaindex) and
//! `db/external_sst_file_ingestion_job.cc` (what an ingested file must say of itself).

use std::ops::Range;

use crc32c::{crc32c, crc32c_append};

use crate::types::crc::EndSum;

/// Bytes of a batch's key, [`crate::storage::keys::batch`].
pub(super) const KEY_BYTES: usize = 8;
/// What follows each key: sequence number 0 and the type of a plain value.
const KEY_SUFFIX: [u8; 8] = [1, 0, 0, 0, 0, 0, 0, 0];
const INTERNAL_KEY_BYTES: usize = KEY_BYTES + KEY_SUFFIX.len();
/// Two lengths of one byte, the value's length in up to five, and the key.
pub(in crate::storage::rocksdb) const HEAD_MAX: usize = 2 + 5 + INTERNAL_KEY_BYTES;
/// One restart point at 0, and the number of them.
const RESTARTS: [u8; 8] = [0, 0, 0, 0, 1, 0, 0, 0];
/// Compression type and checksum, behind every block.
pub(in crate::storage::rocksdb) const TRAILER_BYTES: usize = 5;
/// What follows a value.
pub(in crate::storage::rocksdb) const TAIL_BYTES: usize = RESTARTS.len() + TRAILER_BYTES;
const NO_COMPRESSION: u8 = 0;

/// What makes a value a data block: the bytes before it and after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage::rocksdb) struct Frame {
    head: [u8; HEAD_MAX],
    head_bytes: u8,
    tail: [u8; TAIL_BYTES],
}

impl Frame {
    pub(in crate::storage::rocksdb) fn head(&self) -> &[u8] {
        &self.head[..usize::from(self.head_bytes)]
    }

    pub(in crate::storage::rocksdb) fn tail(&self) -> &[u8] {
        &self.tail
    }

    /// The block that it makes of its value at the file position `start`.
    pub(in crate::storage::rocksdb) fn block_at(
        &self,
        key: [u8; KEY_BYTES],
        start: u64,
        value_bytes: usize,
    ) -> BlockAt {
        let value_bytes = u32::try_from(value_bytes).expect(VALUE_FITS);
        BlockAt { key, start, head_bytes: self.head_bytes, value_bytes }
    }
}

const VALUE_FITS: &str = "a batch's length is a positive i32 in the protocol";

/// Frames a value, which must be shorter than 4 GiB, with what is known of its checksum.
pub(in crate::storage::rocksdb) fn frame(key: [u8; KEY_BYTES], value: &[u8], sum: Option<EndSum>) -> Frame {
    let value_bytes = u32::try_from(value.len()).expect(VALUE_FITS);
    let mut frame = Frame { head: [0; HEAD_MAX], head_bytes: 0, tail: [0; TAIL_BYTES] };
    frame.head[1] = INTERNAL_KEY_BYTES as u8;
    let key_at = 2 + write_varint(value_bytes.into(), &mut frame.head[2..]);
    frame.head[key_at..key_at + KEY_BYTES].copy_from_slice(&key);
    frame.head[key_at + KEY_BYTES..key_at + INTERNAL_KEY_BYTES].copy_from_slice(&KEY_SUFFIX);
    frame.head_bytes = (key_at + INTERNAL_KEY_BYTES) as u8;

    let head_crc = crc32c(frame.head());
    let value_crc = sum.map_or_else(|| crc32c_append(head_crc, value), |sum| sum.after(head_crc, value));
    let crc = crc32c_append(value_crc, &RESTARTS);
    frame.tail[..RESTARTS.len()].copy_from_slice(&RESTARTS);
    frame.tail[RESTARTS.len()..].copy_from_slice(&trailer(crc));
    frame
}

/// A data block of a growing file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::storage::rocksdb) struct BlockAt {
    pub(in crate::storage::rocksdb) key: [u8; KEY_BYTES],
    /// Where it begins, as a position in the file.
    pub(in crate::storage::rocksdb) start: u64,
    pub(in crate::storage::rocksdb) head_bytes: u8,
    pub(in crate::storage::rocksdb) value_bytes: u32,
}

impl BlockAt {
    /// The position of its value.
    pub(in crate::storage::rocksdb) fn value_start(&self) -> u64 {
        self.start + u64::from(self.head_bytes)
    }

    /// The position behind it and its trailer.
    pub(in crate::storage::rocksdb) fn end(&self) -> u64 {
        self.start + self.block_bytes() + TRAILER_BYTES as u64
    }

    /// Its length without the trailer, as handles have it.
    pub(in crate::storage::rocksdb) fn block_bytes(&self) -> u64 {
        u64::from(self.head_bytes) + u64::from(self.value_bytes) + RESTARTS.len() as u64
    }
}

/// Reads the head of a block that begins at the file position `start` from its first bytes, of which it needs at most
/// [`HEAD_MAX`]. `None`: no block of ours begins here, or `bytes` ends within its head.
pub(in crate::storage::rocksdb) fn parse_head(start: u64, bytes: &[u8]) -> Option<BlockAt> {
    let [0, key_bytes, rest @ ..] = bytes else { return None };
    if usize::from(*key_bytes) != INTERNAL_KEY_BYTES {
        return None;
    }
    let (value_bytes, varint_bytes) = read_varint_32(rest)?;
    let (key, rest) = rest[varint_bytes..].split_first_chunk()?;
    if !rest.starts_with(&KEY_SUFFIX) {
        return None;
    }
    let head_bytes = (2 + varint_bytes + INTERNAL_KEY_BYTES) as u8;
    let block = BlockAt { key: *key, start, head_bytes, value_bytes };
    start.checked_add(block.block_bytes() + TRAILER_BYTES as u64).map(|_| block)
}

/// Whether this is a block of ours, trailer included and nothing more, as it was written.
pub(in crate::storage::rocksdb) fn is_sound(block: &[u8]) -> bool {
    if parse_head(0, block).is_none_or(|at| at.end() != block.len() as u64) {
        return false;
    }
    let (checked, found) = block.split_at(block.len() - TRAILER_BYTES);
    checked.ends_with(&RESTARTS) && found == trailer(crc32c(checked))
}

/// Whether a block that is not sound may be a beginning of one, with zeros behind: then its trailer is one as well.
pub(in crate::storage::rocksdb) fn may_be_torn(block: &[u8]) -> bool {
    let (checked, found) = block.split_at(block.len() - TRAILER_BYTES);
    let expected = trailer(crc32c(checked));
    let same = found.iter().zip(&expected).take_while(|(found, expected)| found == expected).count();
    found[same..].iter().all(|byte| *byte == 0)
}

/// The checksum of a block that is read in pieces.
#[derive(Debug, Default)]
pub(in crate::storage::rocksdb) struct Sum(u32);

impl Sum {
    /// Adds what comes next of the block, its trailer left out.
    pub(in crate::storage::rocksdb) fn add(&mut self, piece: &[u8]) {
        self.0 = crc32c_append(self.0, piece);
    }

    /// Whether this is the trailer of what was added.
    pub(in crate::storage::rocksdb) fn is_of(&self, found: &[u8]) -> bool {
        found == trailer(self.0)
    }
}

/// What ends the file: everything behind the last data block's trailer, which ends at `data_end`. `blocks` are all of
/// them, at least one, in the order of their keys.
pub(in crate::storage::rocksdb) fn finish(blocks: &[BlockAt], data_end: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(blocks.len() * INDEX_ENTRY_MAX + OTHERS_MAX);
    let handles =
        blocks.iter().map(|block| (block.key, Handle { start: block.start, bytes: block.block_bytes() }.encoded()));
    let index = append_block(&mut out, data_end, RestartPoints::EachEntry, handles);
    let properties = properties(blocks, data_end, index.bytes + TRAILER_BYTES as u64);
    let properties = append_block(&mut out, data_end, RestartPoints::FirstEntry, properties.into_iter());
    let names = std::iter::once(("rocksdb.properties", properties.encoded()));
    let metaindex = append_block(&mut out, data_end, RestartPoints::EachEntry, names);
    append_footer(&mut out, metaindex, index);
    out
}

/// Of the index: three lengths, the key, a handle of 9 + 5 bytes, a restart point.
const INDEX_ENTRY_MAX: usize = 3 + KEY_BYTES + 14 + 4;
/// Of properties, metaindex and footer.
const OTHERS_MAX: usize = 2048;

/// Where a block lies in the file.
#[derive(Clone, Copy)]
struct Handle {
    start: u64,
    /// Without trailer.
    bytes: u64,
}

impl Handle {
    /// Reads one, and answers what follows it.
    fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (start, start_bytes) = read_varint(bytes)?;
        let rest = &bytes[start_bytes..];
        let (bytes, bytes_bytes) = read_varint(rest)?;
        Some((Self { start, bytes }, &rest[bytes_bytes..]))
    }

    /// The block of a batch that lies here.
    fn block(self, key: [u8; KEY_BYTES]) -> Option<BlockAt> {
        (1..=5).find_map(|varint_bytes| {
            let head_bytes = (2 + varint_bytes + INTERNAL_KEY_BYTES) as u8;
            let value_bytes = self.bytes.checked_sub(u64::from(head_bytes) + RESTARTS.len() as u64)?;
            let block = BlockAt { key, start: self.start, head_bytes, value_bytes: u32::try_from(value_bytes).ok()? };
            self.start.checked_add(self.bytes)?.checked_add(TRAILER_BYTES as u64)?;
            (write_varint(value_bytes, &mut [0; HANDLE_MAX]) == varint_bytes).then_some(block)
        })
    }

    fn encoded(self) -> Varints {
        let mut encoded = Varints::default();
        encoded.push(self.start);
        encoded.push(self.bytes);
        encoded
    }
}

/// Where in a block a reader may begin.
#[derive(Clone, Copy, PartialEq, Eq)]
enum RestartPoints {
    EachEntry,
    /// Of a block that is read from its beginning to its end.
    FirstEntry,
}

/// Appends a block and its trailer to `out`, whose first byte has the position `base` in the file. Keys share no bytes
/// with those before them.
fn append_block<K: AsRef<[u8]>, V: AsRef<[u8]>>(
    out: &mut Vec<u8>,
    base: u64,
    points: RestartPoints,
    entries: impl Iterator<Item = (K, V)>,
) -> Handle {
    let begin = out.len();
    let mut restarts = Vec::with_capacity(entries.size_hint().0);
    for (key, value) in entries {
        if restarts.is_empty() || points == RestartPoints::EachEntry {
            restarts.push(u32_of(out.len() - begin));
        }
        let (key, value) = (key.as_ref(), value.as_ref());
        let mut lengths = Varints::default();
        lengths.push(0);
        lengths.push(key.len() as u64);
        lengths.push(value.len() as u64);
        out.extend_from_slice(lengths.as_ref());
        out.extend_from_slice(key);
        out.extend_from_slice(value);
    }
    for restart in &restarts {
        out.extend_from_slice(&restart.to_le_bytes());
    }
    out.extend_from_slice(&u32_of(restarts.len()).to_le_bytes());
    let bytes = (out.len() - begin) as u64;
    let trailer = trailer(crc32c(&out[begin..]));
    out.extend_from_slice(&trailer);
    Handle { start: base + begin as u64, bytes }
}

fn u32_of(length: usize) -> u32 {
    u32::try_from(length).expect("a hundred million blocks do not fit a file")
}

/// What the file says of itself, in the order of the names. Readers and ingestion need the version of external files,
/// the comparator, the number of entries and what the index is like; compactions check the number of entries; where the
/// tail starts spares a guess at opening; sizes serve estimates.
fn properties(blocks: &[BlockAt], data_end: u64, index_bytes: u64) -> Vec<(&'static str, Vec<u8>)> {
    let count = blocks.len() as u64;
    let value_bytes = blocks.iter().map(|block| u64::from(block.value_bytes)).sum();
    let number = |number: u64| {
        let mut encoded = Varints::default();
        encoded.push(number);
        encoded.as_ref().to_vec()
    };
    vec![
        ("rocksdb.block.based.table.index.type", BINARY_SEARCH.to_le_bytes().to_vec()),
        ("rocksdb.block.based.table.prefix.filtering", b"0".to_vec()),
        ("rocksdb.block.based.table.whole.key.filtering", b"0".to_vec()),
        ("rocksdb.column.family.id", number(ANY_FAMILY)),
        ("rocksdb.comparator", b"leveldb.BytewiseComparator".to_vec()),
        ("rocksdb.compression", b"NoCompression".to_vec()),
        ("rocksdb.data.block.restart.interval", number(1)),
        ("rocksdb.data.size", number(data_end)),
        ("rocksdb.deleted.keys", number(0)),
        ("rocksdb.external_sst_file.global_seqno", 0_u64.to_le_bytes().to_vec()),
        ("rocksdb.external_sst_file.version", 2_u32.to_le_bytes().to_vec()),
        ("rocksdb.filter.size", number(0)),
        ("rocksdb.fixed.key.length", number(0)),
        ("rocksdb.format.version", number(FORMAT_VERSION.into())),
        ("rocksdb.index.block.restart.interval", number(1)),
        ("rocksdb.index.key.is.user.key", number(1)),
        ("rocksdb.index.size", number(index_bytes)),
        ("rocksdb.index.value.is.delta.encoded", number(0)),
        ("rocksdb.key.largest.seqno", number(0)),
        ("rocksdb.key.smallest.seqno", number(0)),
        ("rocksdb.merge.operands", number(0)),
        ("rocksdb.num.data.blocks", number(count)),
        ("rocksdb.num.entries", number(count)),
        ("rocksdb.num.range-deletions", number(0)),
        ("rocksdb.raw.key.size", number(count * INTERNAL_KEY_BYTES as u64)),
        ("rocksdb.raw.value.size", number(value_bytes)),
        ("rocksdb.tail.start.offset", number(data_end)),
    ]
}

/// Bytes of a footer: the kind of checksum, two handles, the version, the magic number.
pub(in crate::storage::rocksdb) const FOOTER_BYTES: usize = 1 + 2 * HANDLE_MAX + 4 + 8;

/// Where the index lies, with its trailer, as the footer of a finished file says; `None`: it is not one of ours.
pub(in crate::storage::rocksdb) fn index_place(footer: &[u8; FOOTER_BYTES]) -> Option<Range<u64>> {
    let (handles, ends) = footer[1..].split_at(2 * HANDLE_MAX);
    let (version, magic) = ends.split_at(4);
    if footer[0] != CRC_32C || version != FORMAT_VERSION.to_le_bytes() || magic != MAGIC.to_le_bytes() {
        return None;
    }
    let (_, rest) = Handle::read(handles)?;
    let (index, _) = Handle::read(rest)?;
    Some(index.start..index.start.checked_add(index.bytes)?.checked_add(TRAILER_BYTES as u64)?)
}

/// The blocks that an index with its trailer names, in order and one behind the other; `None`: it is not one of ours,
/// or not as it was written.
pub(in crate::storage::rocksdb) fn read_index(index: &[u8]) -> Option<Vec<BlockAt>> {
    let (checked, found) = index.split_at_checked(index.len().checked_sub(TRAILER_BYTES)?)?;
    if found != trailer(crc32c(checked)) {
        return None;
    }
    let (rest, count) = checked.split_last_chunk()?;
    let count = u32::from_le_bytes(*count) as usize;
    let mut entries = rest.get(..rest.len().checked_sub(count.checked_mul(4)?)?)?;
    let mut blocks: Vec<BlockAt> = Vec::with_capacity(count);
    while !entries.is_empty() {
        let [0, KEY_LENGTH, handle_bytes, rest @ ..] = entries else { return None };
        let (key, rest) = rest.split_first_chunk()?;
        let (handle, rest) = rest.split_at_checked(usize::from(*handle_bytes))?;
        let block = Handle::read(handle)?.0.block(*key)?;
        if blocks.last().is_some_and(|last| last.key >= block.key || last.end() != block.start) {
            return None;
        }
        blocks.push(block);
        entries = rest;
    }
    (blocks.len() == count).then_some(blocks)
}

const KEY_LENGTH: u8 = KEY_BYTES as u8;

/// The index's type.
const BINARY_SEARCH: u32 = 0;
/// `kUnknownColumnFamily`: for whichever family the file is given to.
const ANY_FAMILY: u64 = i32::MAX as u64;

fn append_footer(out: &mut Vec<u8>, metaindex: Handle, index: Handle) {
    out.push(CRC_32C);
    let handles_at = out.len();
    out.extend_from_slice(metaindex.encoded().as_ref());
    out.extend_from_slice(index.encoded().as_ref());
    out.resize(handles_at + 2 * HANDLE_MAX, 0);
    out.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    out.extend_from_slice(&MAGIC.to_le_bytes());
}

/// The kind of checksum.
const CRC_32C: u8 = 1;
const FORMAT_VERSION: u32 = 5;
/// Of a block-based table.
const MAGIC: u64 = 0x88e2_41b7_85f4_cff7;
/// The two varints of a handle at their longest.
const HANDLE_MAX: usize = 2 * 10;

/// The trailer of an uncompressed block whose bytes have this checksum.
fn trailer(block_crc: u32) -> [u8; TRAILER_BYTES] {
    let crc = crc32c_append(block_crc, &[NO_COMPRESSION]);
    // Masked: a checksum of bytes that hold checksums would be a weak one.
    let masked = crc.rotate_right(15).wrapping_add(0xa282_ead8);
    let mut trailer = [NO_COMPRESSION; TRAILER_BYTES];
    trailer[1..].copy_from_slice(&masked.to_le_bytes());
    trailer
}

/// A few varints.
#[derive(Default)]
struct Varints {
    bytes: [u8; HANDLE_MAX],
    length: usize,
}

impl Varints {
    fn push(&mut self, number: u64) {
        self.length += write_varint(number, &mut self.bytes[self.length..]);
    }
}

impl AsRef<[u8]> for Varints {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

/// Writes seven bits per byte, lowest first, the high bit set in all bytes but the last; answers how many bytes.
fn write_varint(mut number: u64, out: &mut [u8]) -> usize {
    let mut length = 0;
    while number >= 0x80 {
        out[length] = number as u8 | 0x80;
        number >>= 7;
        length += 1;
    }
    out[length] = number as u8;
    length + 1
}

/// Reads a number below 2^32 as [`write_varint`] writes it, and tells how many bytes it has.
fn read_varint_32(bytes: &[u8]) -> Option<(u32, usize)> {
    let (number, length) = read_varint(&bytes[..bytes.len().min(5)])?;
    Some((u32::try_from(number).ok()?, length))
}

/// Reads a number as [`write_varint`] writes it, and tells how many bytes it has.
fn read_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(9) {
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            let shortest = *byte != 0 || index == 0;
            return shortest.then_some((number, index + 1));
        }
    }
    None
}
