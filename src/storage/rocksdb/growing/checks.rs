//! Which blocks of a table's file are known to be what was written.
//!
//! What this process wrote is, as long as it stays in the page cache. Whenever something of a file has left it, what
//! comes from the disk then has to be checked before it is sent, once: so all of the file counts as unchecked from then
//! on, until it is checked block by block as readers come to it. A reader looks after it has copied: what it copied was
//! in the page cache before, and whoever had it brought there from the disk has said so, at the latest right after the
//! kernel was asked for it, which takes the disk longer.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

/// See the file's header. Of one file; blocks are counted from its first.
#[derive(Debug)]
pub(super) struct Checks {
    /// Some blocks are unchecked.
    is_suspect: AtomicBool,
    checked: Mutex<Checked>,
    damaged: Arc<Damaged>,
}

/// Blocks of a file that were found not to be what was written. They are remembered for as long as the family knows the
/// file, however often it is opened: whoever meets such a block loses its connection, and it must be the first alone.
#[derive(Debug, Default)]
pub(super) struct Damaged {
    /// There are some.
    is_any: AtomicBool,
    blocks: Mutex<BTreeSet<usize>>,
}

impl Damaged {
    fn note(&self, block: usize) {
        self.blocks.lock().insert(block);
        self.is_any.store(true, Ordering::Release);
    }

    /// The first of them from this block on; as many as there can be: there is none.
    fn next(&self, from: usize) -> usize {
        if !self.is_any.load(Ordering::Acquire) {
            return usize::MAX;
        }
        self.blocks.lock().range(from..).next().copied().unwrap_or(usize::MAX)
    }
}

/// Blocks behind `upto` were written since, and are as they should be.
#[derive(Debug, Default)]
struct Checked {
    /// How often all of them were forgotten.
    forgotten: u64,
    upto: usize,
    /// A bit for each block below `upto`.
    bits: Vec<u64>,
}

impl Checks {
    /// All that there is was written by this process, or has just been checked.
    pub(super) fn of_sound() -> Self {
        Self { is_suspect: AtomicBool::new(false), checked: Mutex::default(), damaged: Arc::default() }
    }

    /// So many blocks were written by another process, or may have left the page cache since. `damaged`: what is known
    /// of the file already.
    pub(super) fn of_unchecked(blocks: usize, damaged: Arc<Damaged>) -> Self {
        let checks = Self { damaged, ..Self::of_sound() };
        checks.forget(blocks);
        checks
    }

    /// Something of the first `blocks` is about to come from the disk. Answers what [`forgotten`](Self::forgotten) does
    /// from then on.
    pub(super) fn forget(&self, blocks: usize) -> u64 {
        let mut checked = self.checked.lock();
        // Whoever counted earlier may come later.
        checked.upto = checked.upto.max(blocks);
        checked.forgotten += 1;
        let words = checked.upto.div_ceil(BITS);
        checked.bits.clear();
        checked.bits.resize(words, 0);
        self.is_suspect.store(true, Ordering::Release);
        checked.forgotten
    }

    /// How often all that was checked was forgotten.
    pub(super) fn forgotten(&self) -> u64 {
        self.checked.lock().forgotten
    }

    /// These have been read and are sound. `forgotten`: as it was before they were read. False: others have forgotten
    /// them since, so that what is in the page cache now may be something else.
    pub(super) fn note(&self, blocks: Range<usize>, forgotten: u64) -> bool {
        if self.is_suspect.load(Ordering::Acquire) {
            let mut checked = self.checked.lock();
            if checked.forgotten != forgotten {
                return false;
            }
            for block in blocks.start..blocks.end.min(checked.upto) {
                checked.bits[block / BITS] |= 1 << (block % BITS);
            }
        }
        true
    }

    /// Whether all of these are known to be sound.
    pub(super) fn has(&self, blocks: Range<usize>) -> bool {
        if self.next_damaged(blocks.start) < blocks.end {
            return false;
        }
        if !self.is_suspect.load(Ordering::Acquire) {
            return true;
        }
        let checked = self.checked.lock();
        (blocks.start..blocks.end.min(checked.upto)).all(|block| checked.bits[block / BITS] & (1 << (block % BITS)) > 0)
    }

    pub(super) fn note_damaged(&self, block: usize) {
        self.damaged.note(block);
    }

    /// The first block from this one on that is damaged; as many as there can be: none is.
    pub(super) fn next_damaged(&self, from: usize) -> usize {
        self.damaged.next(from)
    }

    pub(super) fn damaged(&self) -> &Arc<Damaged> {
        &self.damaged
    }
}

const BITS: usize = u64::BITS as usize;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_forgotten_is_checked_block_by_block() {
        let checks = Checks::of_sound();
        assert!(checks.has(0..1000));
        assert_eq!(checks.forget(130), 1);
        assert!(!checks.has(0..1) && !checks.has(129..131) && checks.has(130..400), "later blocks were written here");
        checks.note(60..70, 1);
        assert!(checks.has(60..70) && !checks.has(59..61) && !checks.has(69..71));
        checks.note(0..200, 0);
        assert!(!checks.has(0..1), "forgotten since it was read");
        checks.note(0..200, checks.forgotten());
        assert!(checks.has(0..1000));
        checks.forget(200);
        assert!(!checks.has(65..66));
    }

    #[test]
    fn damaged_blocks_are_remembered_with_the_file() {
        let checks = Checks::of_sound();
        assert_eq!(checks.next_damaged(0), usize::MAX);
        checks.note_damaged(9);
        checks.note_damaged(7);
        let again = Checks::of_unchecked(20, Arc::clone(checks.damaged()));
        again.note_damaged(12);
        let found = [0, 7, 8, 10, 13].map(|from| checks.next_damaged(from));
        assert_eq!(found, [7, 7, 9, 12, usize::MAX]);
        assert!(checks.has(0..7) && !checks.has(0..8) && checks.has(8..9) && !checks.has(8..20), "though nothing left");
    }
}
