//! Families of which a file is damaged: RocksDB compacts nothing of them.
//!
//! A compaction that meets a damaged block stops the directory at its next write, and would so after each start: the
//! broker would never be ready again, for the sake of one partition. So what has stopped it is noted, as an empty file
//! with the family's name, and from the next start on such a family stays as it is. Whoever reads the block is told;
//! what was deleted of the partition takes space until the partition itself is deleted, and the note goes with it.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;

use super::names::{family_name, family_number, sync_names};

/// See the file's header.
#[derive(Debug)]
pub(super) struct DamagedFiles {
    folder: PathBuf,
    families: Mutex<BTreeSet<u32>>,
}

impl DamagedFiles {
    /// What was noted in the log directory.
    pub(super) fn read(dir: &Path) -> io::Result<Self> {
        let folder = dir.join("damaged");
        let mut families = BTreeSet::new();
        match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            entries => {
                for entry in entries? {
                    families.extend(entry?.file_name().to_str().and_then(family_number));
                }
            }
        }
        Ok(Self { folder, families: Mutex::new(families) })
    }

    pub(super) fn has(&self, number: u32) -> bool {
        self.families.lock().contains(&number)
    }

    /// Counts from the next start on.
    pub(super) fn note(&self, number: u32) -> io::Result<()> {
        match fs::create_dir(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => sync_names(self.folder.parent().unwrap_or(&self.folder))?,
        }
        File::create(self.folder.join(family_name(number)))?.sync_all()?;
        sync_names(&self.folder)
    }

    /// The family is empty.
    pub(super) fn forget(&self, number: u32) -> io::Result<()> {
        if self.has(number) {
            fs::remove_file(self.folder.join(family_name(number)))?;
            self.families.lock().remove(&number);
        }
        Ok(())
    }
}

/// Which file RocksDB says to be corrupt, without its folder.
/// Source: RocksDB 11.8 `table/block_fetcher.cc`, `table/block_based/reader_common.cc` (`VerifyBlockChecksum`).
pub(super) fn file_named(reason: &str) -> Option<&str> {
    let end = if reason.starts_with("Corruption") { reason.find(".sst")? } else { return None };
    let digits = reason[..end].bytes().rev().take_while(u8::is_ascii_digit).count();
    (digits > 0).then(|| &reason[end - digits..end + ".sst".len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_counts_from_the_next_start_on_and_goes() {
        let dir = tempfile::tempdir().expect("tempdir");
        let noted = DamagedFiles::read(dir.path()).expect("read");
        noted.note(7).expect("noted");
        noted.note(7).expect("noted again");
        assert!(!noted.has(7));
        let noted = DamagedFiles::read(dir.path()).expect("read");
        assert!(noted.has(7) && !noted.has(8));
        noted.forget(8).expect("nothing to do");
        noted.forget(7).expect("forgotten");
        assert!(!noted.has(7) && !DamagedFiles::read(dir.path()).expect("read").has(7));
    }

    #[test]
    fn a_reason_names_a_file() {
        let reason = "Corruption: block checksum mismatch: stored = 1, computed = 2, type = 1  in /a-1/db/000123.sst offset 5 size 9";
        assert_eq!(file_named(reason), Some("000123.sst"));
        for other in ["IO error: in /a/db/000123.sst", "Corruption: bad", "Corruption: in x.sst", ""] {
            assert_eq!(file_named(other), None, "{other}");
        }
    }
}
