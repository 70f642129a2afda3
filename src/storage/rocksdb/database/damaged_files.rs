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
    /// What was noted in the log directory, of families that there are.
    pub(super) fn read(dir: &Path, is_there: impl Fn(u32) -> bool) -> io::Result<Self> {
        let folder = dir.join("damaged");
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", folder.display()));
        let mut families = BTreeSet::new();
        match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            entries => {
                for entry in entries.map_err(named)? {
                    families.extend(entry.map_err(named)?.file_name().to_str().and_then(family_number));
                }
            }
        }
        let noted = Self { folder, families: Mutex::new(families.clone()) };
        for number in families.into_iter().filter(|number| !is_there(*number)) {
            noted.forget(number)?;
        }
        Ok(noted)
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

    /// The family is gone.
    pub(super) fn forget(&self, number: u32) -> io::Result<()> {
        if !self.families.lock().remove(&number) {
            return Ok(());
        }
        match fs::remove_file(self.folder.join(family_name(number))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_names(&self.folder),
        }
    }
}

/// Which of the database's files RocksDB says to be corrupt, or not to be readable. Growing tables that it was to take
/// over lie in another folder.
/// Source: RocksDB 11.8 `table/block_based/reader_common.cc` (`VerifyBlockChecksum`), `env/io_posix.cc`.
pub(super) fn file_named<'r>(reason: &'r str, db: &Path) -> Option<&'r str> {
    if !reason.starts_with("Corruption") && !reason.contains("While pread") {
        return None;
    }
    let folder = format!("{}/", db.display());
    let name = &reason[reason.find(&folder)? + folder.len()..];
    let digits = name.bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0 && name[digits..].starts_with(".sst")).then(|| &name[..digits + ".sst".len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(dir: &Path) -> DamagedFiles {
        DamagedFiles::read(dir, |number| number < 100).expect("read")
    }

    #[test]
    fn what_is_noted_counts_from_the_next_start_on_and_goes() {
        let dir = tempfile::tempdir().expect("tempdir");
        let noted = read(dir.path());
        noted.note(7).expect("noted");
        noted.note(7).expect("noted again");
        assert!(!noted.has(7));
        let noted = read(dir.path());
        assert!(noted.has(7) && !noted.has(8));
        noted.forget(8).expect("nothing to do");
        noted.forget(7).expect("forgotten");
        assert!(!noted.has(7) && !read(dir.path()).has(7));
        noted.note(8).expect("noted");
        noted.note(100).expect("noted");
        let noted = read(dir.path());
        assert!(noted.has(8) && !noted.has(100) && !dir.path().join("damaged").join("p100").exists(), "it is gone");
        fs::remove_file(dir.path().join("damaged").join("p8")).expect("removed by hand");
        noted.forget(8).expect("it is gone already");
    }

    #[test]
    fn a_reason_names_a_file() {
        let (db, at) = (Path::new("/a-1.sst/db"), "/a-1.sst/db/000123.sst");
        let reason =
            format!("Corruption: block checksum mismatch: stored = 1, computed = 2, type = 1  in {at} offset 5");
        assert_eq!(file_named(&reason, db), Some("000123.sst"));
        let reason = format!("IO error: While pread offset 5 len 9: {at}: Input/output error");
        assert_eq!(file_named(&reason, db), Some("000123.sst"));
        for other in [
            format!("IO error: While appending to file: {at}: Input/output error"),
            "Corruption: block checksum mismatch in /a-1.sst/growing/3-3.sst".into(),
            "Corruption: in /a-1.sst/db/x.sst".into(),
            "Corruption: bad".into(),
        ] {
            assert_eq!(file_named(&other, db), None, "{other}");
        }
    }
}
