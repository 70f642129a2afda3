//! Which blocks of a table's file are known to be what was written.
//!
//! What this process wrote is, as long as it stays in the page cache. Whenever something of a file has left it, what
//! comes from the disk then has to be checked before it is sent, once: so all of the file counts as unchecked from then
//! on, until it is checked block by block as readers come to it. A reader looks after it has copied: what it copied was
//! in the page cache before, and whoever had it brought there from the disk has said so, at the latest right after the
//! kernel was asked for it, which takes the disk longer.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// See the file's header. Of one file; blocks are counted from its first.
#[derive(Debug)]
pub(super) struct Checks {
    /// Some blocks are unchecked.
    is_suspect: AtomicBool,
    checked: Mutex<Checked>,
    /// The first block that was found not to be what was written; `usize::MAX`: none was.
    damaged: AtomicUsize,
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
        let (is_suspect, checked) = (AtomicBool::new(false), Mutex::default());
        Self { is_suspect, checked, damaged: AtomicUsize::new(usize::MAX) }
    }

    /// So many blocks were written by another process.
    pub(super) fn of_unchecked(blocks: usize) -> Self {
        let checks = Self::of_sound();
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

    /// These have been read and are sound. `forgotten`: as it was before they were read. If others have forgotten them
    /// since, what is in the page cache now may be something else.
    pub(super) fn note(&self, blocks: Range<usize>, forgotten: u64) {
        if self.is_suspect.load(Ordering::Acquire) {
            let mut checked = self.checked.lock();
            if checked.forgotten != forgotten {
                return;
            }
            for block in blocks.start..blocks.end.min(checked.upto) {
                checked.bits[block / BITS] |= 1 << (block % BITS);
            }
        }
    }

    /// Whether all of these are known to be sound.
    pub(super) fn has(&self, blocks: Range<usize>) -> bool {
        if !self.is_suspect.load(Ordering::Acquire) {
            return true;
        }
        let checked = self.checked.lock();
        (blocks.start..blocks.end.min(checked.upto)).all(|block| checked.bits[block / BITS] & (1 << (block % BITS)) > 0)
    }

    pub(super) fn note_damaged(&self, block: usize) {
        self.damaged.fetch_min(block, Ordering::Relaxed);
    }

    /// The first block that is damaged; as many as there can be: none is.
    pub(super) fn damaged(&self) -> usize {
        self.damaged.load(Ordering::Relaxed)
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
    fn the_first_damaged_block_is_remembered() {
        let checks = Checks::of_sound();
        assert_eq!(checks.damaged(), usize::MAX);
        checks.note_damaged(7);
        checks.note_damaged(9);
        assert_eq!(checks.damaged(), 7);
    }
}
