//! Which blocks a growing table's file has, and what of it was damaged since it was written.
//!
//! A kill leaves a beginning of what was being written: behind the first block that is not sound there is nothing. So
//! where something sound stands behind, or one more was begun, and no power was lost, a part of the file is not what
//! was written any more.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::layout::{self, BlockAt, HEAD_MAX};
use super::table::HEADER_BYTES;

/// What a file holds behind its header.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    /// In the order of their keys. The last one is sound.
    pub(super) list: Vec<BlockAt>,
    /// The first that is not.
    pub(super) first_damaged: Option<usize>,
    /// Where no block can be read, though there is more behind.
    unreadable: Option<u64>,
}

impl Blocks {
    /// Whether there may be more of them than are listed.
    pub(super) fn may_lack_some(&self) -> bool {
        self.unreadable.is_some()
    }

    /// Why it is not known what the file held, or why RocksDB could not take it over, which looks at the first block.
    pub(super) fn unknown(&self) -> Option<String> {
        match self.unreadable {
            Some(place) => Some(format!("no batch can be read at byte {place}")),
            None => (self.first_damaged == Some(0)).then(|| "the first batch cannot be read".to_owned()),
        }
    }
}

/// Blocks from the file's begin on, up to the first that is not sound. With `is_same_boot`: up to the last that is.
pub(super) fn read_blocks(file: &File, length: u64, is_same_boot: bool) -> io::Result<Blocks> {
    let mut blocks = Blocks::default();
    // They are not sound, and nothing that is has come behind them.
    let mut suspects: Vec<BlockAt> = Vec::new();
    // Where the head of the last of them may say wrongly how long it is.
    let mut misfit = None;
    let mut at = HEADER_BYTES as u64;
    // Whether what begins there was being written at the end.
    let mut is_torn = false;
    let mut window = Window::new(file, length, at);
    while let Some(block) = layout::parse_head(at, window.upto(at, HEAD_MAX as u64)?) {
        let before = suspects.last().or(blocks.list.last());
        if before.is_some_and(|before| before.key >= block.key) {
            break;
        }
        if block.end() > length {
            is_torn = fits(&block, &mut window)?.unwrap_or(true);
            break;
        }
        if layout::is_sound(window.upto(at, block.end() - at)?) {
            if !suspects.is_empty() {
                blocks.first_damaged.get_or_insert(blocks.list.len());
                blocks.list.append(&mut suspects);
            }
            misfit = None;
            blocks.list.push(block);
        } else if is_same_boot && misfit.is_none() {
            misfit = (fits(&block, &mut window)? != Some(true)).then_some(at);
            suspects.push(block);
        } else {
            break;
        }
        at = block.end();
    }
    if !is_same_boot {
        return Ok(blocks);
    }
    let doubtful = misfit.or((!is_torn).then_some(at));
    if suspects.len() + usize::from(is_torn) > 1 {
        // It was written as a whole before the next one was begun.
        blocks.unreadable = Some(suspects[0].start);
    } else if let Some(from) = doubtful
        && has_sound_block(file, length, from, blocks.list.last())?
    {
        blocks.unreadable = Some(from);
    }
    Ok(blocks)
}

/// Whether a head says of its value what the batch there says itself: an offset, then its length. `None`: the file ends
/// before that.
fn fits(block: &BlockAt, window: &mut Window<'_>) -> io::Result<Option<bool>> {
    let start = window.upto(block.value_start(), 12)?;
    let batch_bytes = start.get(8..).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes);
    Ok(batch_bytes.map(|bytes| bytes.checked_add(12) == Some(block.value_bytes)))
}

/// So much is searched at once.
const SEARCHED_BYTES: u64 = 64 << 10;
/// What a search reads of blocks, for each byte that is searched and at least: where it finds nothing before, that is
/// damage. A client may have filled a batch with what looks like heads, each of which claims all that follows.
const LOOKED_AT_PER_BYTE: u64 = 4;
const LOOKED_AT_BYTES_MIN: u64 = 1 << 20;
/// Looking at the end of a block costs as much as so many bytes of it.
const END_COSTS_BYTES: u64 = 256;

/// Whether a sound block begins anywhere from this place on, with a higher key than `before`, or so much looks like one
/// that it would take long to tell.
fn has_sound_block(file: &File, length: u64, from: u64, before: Option<&BlockAt>) -> io::Result<bool> {
    let mut window = Window::new(file, length, from);
    let mut left_bytes = LOOKED_AT_PER_BYTE * (length - from.min(length)) + LOOKED_AT_BYTES_MIN;
    let mut at = from;
    while at < length {
        let some = window.upto(at, SEARCHED_BYTES)?;
        let head_at = |place: usize| layout::parse_head(at + place as u64, &some[place..]);
        let heads: Vec<BlockAt> = (0..some.len()).filter_map(head_at).collect();
        let searched = some.len() as u64;
        for block in heads {
            if before.is_some_and(|before| before.key >= block.key) || block.end() > length {
                continue;
            }
            let bytes = block.end() - block.start;
            let ends_well = ends_as_a_block(file, &block)?;
            let costs = if ends_well { bytes + END_COSTS_BYTES } else { END_COSTS_BYTES };
            let Some(left) = left_bytes.checked_sub(costs) else { return Ok(true) };
            left_bytes = left;
            if ends_well && layout::is_sound(window.upto(block.start, bytes)?) {
                return Ok(true);
            }
        }
        let is_last = at + searched == length;
        // A head may begin at the end of what was searched.
        at += if is_last { searched } else { searched - HEAD_MAX as u64 };
    }
    Ok(false)
}

/// Whether the bytes before its checksum are those of a block, which few of what only looks like a head has: a batch
/// may have thousands of such, and whole blocks take long to read.
fn ends_as_a_block(file: &File, block: &BlockAt) -> io::Result<bool> {
    let mut tail = [0; layout::TAIL_BYTES];
    file.read_exact_at(&mut tail, block.end() - layout::TAIL_BYTES as u64)?;
    Ok(layout::is_tail(&tail))
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
