//! How much of the disk may still be used.
//!
//! Batches are refused before the file system is full, so that deletions, flushes and side records always find room.
//! The reserve is on top of what the write buffer will need when it becomes files. The file system is asked again after
//! so many bytes or writes, not after a time: a directory that nobody writes to needs no answer.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::storage::DiskBytes;

/// The file system is asked again after so many bytes were written...
const RECHECK_BYTES: u64 = 1 << 20;
/// ...or this many groups, whichever comes first: others write to the same disk.
const RECHECK_GROUPS: u64 = 16;

#[derive(Debug)]
pub(super) struct Space {
    dir: PathBuf,
    reserve_bytes: AtomicU64,
    /// What the last answer left above the reserve; `u64::MAX` if the file system gave none.
    left_bytes: AtomicU64,
    /// Bytes written since then, about.
    since_bytes: AtomicU64,
    since_groups: AtomicU64,
    full: AtomicBool,
}

impl Space {
    pub(super) fn new(dir: &Path, reserve_bytes: u64) -> Self {
        let space = Self {
            dir: dir.to_owned(),
            reserve_bytes: AtomicU64::new(reserve_bytes),
            left_bytes: AtomicU64::new(u64::MAX),
            since_bytes: AtomicU64::new(0),
            since_groups: AtomicU64::new(0),
            full: AtomicBool::new(false),
        };
        space.ask();
        space
    }

    /// The file system that holds `dir`, if it tells.
    pub(super) fn disk(dir: &Path) -> Option<DiskBytes> {
        let stat = rustix::fs::statvfs(dir).ok()?;
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Some(DiskBytes { total: bytes(stat.f_blocks), usable: bytes(stat.f_bavail) })
    }

    /// Size of the file system that holds `dir`; `u64::MAX` if it does not tell.
    pub(super) fn disk_bytes(dir: &Path) -> u64 {
        Self::disk(dir).map_or(u64::MAX, |disk| disk.total)
    }

    /// Bytes above the reserve, asked now; `None` if the file system does not tell.
    pub(super) fn ask(&self) -> Option<u64> {
        let left =
            Self::disk(&self.dir).map(|disk| disk.usable.saturating_sub(self.reserve_bytes.load(Ordering::Relaxed)));
        self.left_bytes.store(left.unwrap_or(u64::MAX), Ordering::Relaxed);
        self.since_bytes.store(0, Ordering::Relaxed);
        self.since_groups.store(0, Ordering::Relaxed);
        left
    }

    /// Whether a group of this size with batches may be written while `buffered_bytes` still wait to become files.
    pub(super) fn admits(&self, group_bytes: u64, buffered_bytes: u64) -> bool {
        let stale = self.since_bytes.load(Ordering::Relaxed) >= RECHECK_BYTES
            || self.since_groups.fetch_add(1, Ordering::Relaxed) >= RECHECK_GROUPS;
        if stale || self.full.load(Ordering::Relaxed) {
            self.ask();
        }
        let admitted = self.fits(group_bytes, buffered_bytes);
        if admitted {
            self.since_bytes.fetch_add(group_bytes, Ordering::Relaxed);
        }
        admitted
    }

    /// Whether there is room as far as the last answer tells. While there is none, the file system is asked each time.
    pub(super) fn has_room(&self, buffered_bytes: u64) -> bool {
        if self.full.load(Ordering::Relaxed) {
            self.ask();
        }
        self.fits(0, buffered_bytes)
    }

    fn fits(&self, group_bytes: u64, buffered_bytes: u64) -> bool {
        // Twice: once in the log and once in a file.
        let written = self.since_bytes.load(Ordering::Relaxed).saturating_add(2 * group_bytes);
        buffered_bytes.saturating_add(written) < self.left_bytes.load(Ordering::Relaxed)
    }

    /// For tests: a reserve larger than the disk fills it.
    #[cfg(test)]
    pub(super) fn set_reserve(&self, reserve_bytes: u64) {
        self.reserve_bytes.store(reserve_bytes, Ordering::Relaxed);
        self.ask();
    }

    /// Remembers whether the last group was refused; answers whether that is news.
    pub(super) fn set_full(&self, full: bool) -> bool {
        self.full.load(Ordering::Relaxed) != full && self.full.swap(full, Ordering::Relaxed) != full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserve_larger_than_the_disk_admits_nothing() {
        let dir = tempfile::tempdir().expect("tempdir");
        let space = Space::new(dir.path(), u64::MAX);
        assert_eq!(space.ask(), Some(0));
        assert!(!space.admits(1, 0));
    }

    #[test]
    fn buffered_bytes_count_against_what_is_left() {
        let dir = tempfile::tempdir().expect("tempdir");
        let space = Space::new(dir.path(), 0);
        assert!(space.admits(1, 0));
        assert!(!space.admits(1, u64::MAX / 2));
    }

    #[test]
    fn full_is_news_once() {
        let dir = tempfile::tempdir().expect("tempdir");
        let space = Space::new(dir.path(), 0);
        assert!(space.set_full(true));
        assert!(!space.set_full(true));
        assert!(space.set_full(false));
    }
}
