//! Which blocks a growing table's file has, and what of it was damaged since it was written.
//!
//! A kill leaves a beginning of what was being written, with nothing but zeros behind it: of one block, or of what a
//! finished table ends with. So where anything else stands behind the last sound block, and no power was lost, a part
//! of the file is not what was written any more.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::layout::{self, BlockAt, FOOTER_BYTES, HEAD_MAX, KEY_BYTES};
use super::table::{HEADER_BYTES, PART_BYTES};
use crate::storage::keys;
use crate::types::Offset;

/// What a file holds behind its header.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// In the order of their keys. The last one is sound.
    pub(super) list: Vec<BlockAt>,
    /// Those that are not, as places in the list.
    pub(super) damaged: Vec<usize>,
    /// Where no block can be read, though there is more behind.
    unreadable: Option<u64>,
}

impl Blocks {
    /// The first of them that is sound.
    pub(super) fn first_sound(&self) -> Option<&BlockAt> {
        let leading = self.damaged.iter().enumerate().take_while(|(at, number)| at == *number).count();
        self.list.get(leading)
    }

    /// Whether there may be more of them than are listed.
    pub(super) fn may_lack_some(&self) -> bool {
        self.unreadable.is_some()
    }

    /// Why it is not known what the file held, or why RocksDB could not take it over, which looks at the first block.
    pub(super) fn unknown(&self) -> Option<String> {
        match self.unreadable {
            Some(place) => Some(format!("no batch can be read at byte {place}")),
            None => (self.damaged.first() == Some(&0)).then(|| "the first batch cannot be read".to_owned()),
        }
    }
}

/// Blocks from the file's begin on, up to the first that is not sound. With `is_same_boot`: up to the last that is.
pub(super) fn read_blocks(file: &File, length: u64, is_same_boot: bool) -> io::Result<Blocks> {
    let mut blocks = Blocks::default();
    // They are not sound, and nothing that is has come behind them.
    let mut suspects: Vec<BlockAt> = Vec::new();
    // The head of the last of them may say wrongly how long it is.
    let mut is_misfit = false;
    let mut at = HEADER_BYTES as u64;
    let mut window = Window::new(file, length, at);
    while let Some(block) = layout::parse_head(at, window.upto(at, HEAD_MAX as u64)?) {
        let before = suspects.last().or(blocks.list.last());
        if before.is_some_and(|before| before.key >= block.key) || block.end() > length {
            break;
        }
        if layout::is_sound(window.upto(at, block.end() - at)?) {
            if let Some((last, others)) = suspects.split_last_mut() {
                let before = others.last().or(blocks.list.last()).map(|before| before.key);
                last.key = key_before(&block, before, &mut window)?.unwrap_or(last.key);
            }
            blocks.damaged.extend((blocks.list.len()..).take(suspects.len()));
            blocks.list.append(&mut suspects);
            is_misfit = false;
            blocks.list.push(block);
        } else if is_same_boot && !is_misfit {
            is_misfit = fits(&block, &mut window)? == Some(false);
            suspects.push(block);
        } else {
            break;
        }
        at = block.end();
    }
    let end = blocks.list.last().map_or(HEADER_BYTES as u64, BlockAt::end);
    if is_same_boot && !is_beginning_of_block(end, &mut window)? && !is_beginning_of_end(&blocks.list, &mut window)? {
        blocks.unreadable = Some(end);
    }
    Ok(blocks)
}

/// A batch begins with its first offset (8 bytes) and its length, which counts what follows (4). How much larger its
/// last offset is stands behind the magic byte.
const FITS_BYTES: u64 = 27;
const MAGIC_AT: usize = 16;
const DELTA_AT: usize = 23;

/// First and last offset of the batch that begins so. `None`: it does not say, or the file ends before.
fn offsets(start: &[u8]) -> Option<(i64, i64)> {
    let base = i64::from_be_bytes(*start.first_chunk()?);
    let delta = i32::from_be_bytes(*start.get(DELTA_AT..)?.first_chunk()?);
    (start[MAGIC_AT] == 2).then(|| (base, base.wrapping_add(i64::from(delta))))
}

/// Whether a head says of its value what the batch there says itself: how long it is, and its last offset. `None`: the
/// file ends before that.
fn fits(block: &BlockAt, window: &mut Window<'_>) -> io::Result<Option<bool>> {
    let start = window.upto(block.value_start(), FITS_BYTES)?;
    let batch_bytes = start.get(8..12).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes);
    let is_its_key = offsets(start).is_none_or(|(_, last)| keys::batch(Offset(last)) == block.key);
    Ok(batch_bytes.map(|bytes| is_its_key && bytes.checked_add(12) == Some(block.value_bytes)))
}

/// The key of the damaged block before this sound one, whatever that says itself: it has all offsets between its
/// neighbours. `before`: the key before its own. `None`: that is not known.
fn key_before(
    block: &BlockAt,
    before: Option<[u8; KEY_BYTES]>,
    window: &mut Window<'_>,
) -> io::Result<Option<[u8; KEY_BYTES]>> {
    let start = window.upto(block.value_start(), FITS_BYTES)?;
    let key = offsets(start).map(|(base, _)| keys::batch(Offset(base.wrapping_sub(1))));
    Ok(key.filter(|key| before.is_none_or(|before| before < *key) && *key < block.key))
}

/// Whether what begins at a place is what there may be of one block that was being written, or nothing at all.
fn is_beginning_of_block(at: u64, window: &mut Window<'_>) -> io::Result<bool> {
    let begun_upto = match layout::parse_head(at, window.upto(at, HEAD_MAX as u64)?) {
        None => at + HEAD_MAX as u64,
        // The head was written before its batch: what its batch contradicts was not written together.
        Some(block) if fits(&block, window)? == Some(false) => block.value_start() + FITS_BYTES,
        Some(block) => {
            let bytes = window.upto(at, block.end() - at)?;
            if bytes.len() as u64 == block.end() - at && !layout::may_be_torn(bytes) {
                return Ok(false);
            }
            block.end()
        }
    };
    ends_as_after_a_kill(at, begun_upto, window)
}

/// Whether there are zeros alone behind `begun_upto`, and no more of them than a write leaves that comes to its end:
/// what was being written behind `sound_upto` made the file longer only as it came.
fn ends_as_after_a_kill(sound_upto: u64, begun_upto: u64, window: &mut Window<'_>) -> io::Result<bool> {
    let filled = sound_upto.next_multiple_of(PART_BYTES);
    Ok(window.length <= filled.max(begun_upto) && is_zero_from(begun_upto, window)?)
}

/// Whether what stands behind these blocks is a beginning of what a table with them alone ends with, or says so at its
/// own end.
fn is_beginning_of_end(blocks: &[BlockAt], window: &mut Window<'_>) -> io::Result<bool> {
    let Some(data_end) = blocks.last().map(BlockAt::end) else { return Ok(false) };
    let index_in = |bytes: &[u8]| bytes.last_chunk().and_then(layout::index_place);
    let footer = window.upto(window.length.saturating_sub(FOOTER_BYTES as u64), FOOTER_BYTES as u64)?;
    if index_in(footer).is_some_and(|index| index.start == data_end) {
        return Ok(true);
    }
    let expected = layout::finish(blocks, data_end);
    let found = window.upto(data_end, expected.len() as u64)?;
    let same = found.iter().zip(&expected).take_while(|(found, expected)| found == expected).count() as u64;
    // With all of the index it is known that nothing of the table is missing.
    let is_whole = index_in(&expected).is_some_and(|index| index.end <= data_end + same);
    Ok(is_whole || ends_as_after_a_kill(data_end, data_end + same, window)?)
}

/// So much is searched at once.
const SEARCHED_BYTES: u64 = 64 << 10;

fn is_zero_from(mut at: u64, window: &mut Window<'_>) -> io::Result<bool> {
    loop {
        let some = window.upto(at, SEARCHED_BYTES)?;
        if some.is_empty() || some.iter().any(|byte| *byte != 0) {
            return Ok(some.is_empty());
        }
        at += some.len() as u64;
    }
}

/// Reads so much at once, unless a block is larger.
const READ_BYTES: u64 = 1 << 20;

/// A part of a file in memory, which moves forward.
struct Window<'f> {
    file: &'f File,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'f> Window<'f> {
    fn new(file: &'f File, length: u64, start: u64) -> Self {
        Self { file, length, start, bytes: Vec::new() }
    }

    /// So many bytes from a place on, or fewer at the end of the file.
    fn upto(&mut self, at: u64, wanted: u64) -> io::Result<&[u8]> {
        let wanted = wanted.min(self.length.saturating_sub(at));
        if at < self.start || at + wanted > self.start + self.bytes.len() as u64 {
            let take = wanted.max(READ_BYTES).min(self.length.saturating_sub(at));
            self.bytes.resize(usize::try_from(take).map_err(io::Error::other)?, 0);
            self.file.read_exact_at(&mut self.bytes, at)?;
            self.start = at;
        }
        let from = usize::try_from(at - self.start).map_err(io::Error::other)?;
        let length = usize::try_from(wanted).map_err(io::Error::other)?;
        Ok(&self.bytes[from..from + length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A table of two batches, and where the second begins.
    fn table() -> (Vec<u8>, usize) {
        let mut batch = [7; 300];
        batch[8..12].copy_from_slice(&288_u32.to_be_bytes());
        let mut bytes = vec![0; HEADER_BYTES];
        let mut last = 0;
        for offset in 0..2 {
            let frame = layout::frame(keys::batch(Offset(offset)), &batch, None);
            last = bytes.len();
            bytes.extend([frame.head(), &batch, frame.tail()].concat());
        }
        (bytes, last)
    }

    fn read(bytes: &[u8]) -> Blocks {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(bytes, 0).expect("written");
        read_blocks(&file, bytes.len() as u64, true).expect("read")
    }

    #[test]
    fn a_block_that_was_being_written_is_no_damage_wherever_it_ends() {
        let (whole, last) = table();
        for length in last..whole.len() {
            for zeros in [0, 1, 20, 5000] {
                let torn = [&whole[..length], &vec![0; zeros]].concat();
                // Zeros may be what was to come.
                let is_whole = torn.starts_with(&whole);
                let found = read(&torn);
                assert_eq!((found.unknown(), found.list.len()), (None, 1 + usize::from(is_whole)), "{length} {zeros}");
            }
        }
    }

    /// A write fills up its part of the file, and no more.
    #[test]
    fn zeros_that_no_write_leaves_are_damage() {
        let (whole, last) = table();
        for begun in [0, 10, 200] {
            let mut bytes = whole[..last + begun].to_vec();
            bytes.resize(PART_BYTES as usize, 0);
            assert_eq!(read(&bytes).unknown(), None, "{begun}");
            bytes.push(0);
            assert!(read(&bytes).unknown().is_some(), "{begun}");
        }
    }

    #[test]
    fn a_bit_of_the_last_block_that_flipped_is_told() {
        let (whole, last) = table();
        for at in last..whole.len() {
            for bit in 0..8 {
                let mut flipped = whole.clone();
                flipped[at] ^= 1 << bit;
                let found = read(&flipped);
                assert!(found.unknown().is_some() && found.list.len() == 1, "byte {at}, bit {bit}");
            }
        }
    }
}
