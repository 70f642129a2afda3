//! Families of which a file is damaged: RocksDB compacts nothing of them.
//!
//! A compaction that meets a damaged block stops the directory at its next write, and would so after each start: the
//! broker would never be ready again, for the sake of one partition. So what has stopped it is noted, as an empty file
//! with the family's name, and from the next start on such a family stays as it is. Whoever reads the block is told;
//! what was deleted of the partition takes space until the partition itself is deleted, and the note goes with it.
//!
//! A file that could not be read may have been so for a moment only. Its note has its name, and a start that can read
//! the file to its end lays the note aside (`.once`): if the file stops the directory again, it counts as damaged.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use tracing::{info, warn};

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
        for number in families {
            let outcome = match is_there(number) {
                false => noted.forget(number),
                true if noted.can_be_read_again(number) => noted.lay_aside(number),
                true => continue,
            };
            if let Err(error) = outcome {
                let note = noted.note_of(number);
                warn!(note = %note.display(), %error, "a note of a damaged file is not needed and cannot be removed");
            }
        }
        Ok(noted)
    }

    fn note_of(&self, number: u32) -> PathBuf {
        self.folder.join(family_name(number))
    }

    fn laid_aside(&self, number: u32) -> PathBuf {
        self.note_of(number).with_extension("once")
    }

    fn lay_aside(&self, number: u32) -> io::Result<()> {
        self.families.lock().remove(&number);
        fs::rename(self.note_of(number), self.laid_aside(number))?;
        sync_names(&self.folder)
    }

    /// Whether the file that could not be read once is gone, or can be.
    fn can_be_read_again(&self, number: u32) -> bool {
        let Ok(name) = fs::read_to_string(self.note_of(number)) else { return false };
        let Some(name) = name.strip_suffix('\n').filter(|name| is_file_name(name)) else { return false };
        let file = self.folder.with_file_name("db").join(name);
        let read = File::open(&file).and_then(|mut file| io::copy(&mut file, &mut io::sink()));
        match read {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(file = %file.display(), %error, "still not to be read");
                false
            }
            read => {
                let now = if read.is_ok() { "can be read" } else { "is gone" };
                info!(file = %file.display(), "could not be read once, and {now}; its family is compacted again");
                true
            }
        }
    }

    pub(super) fn has(&self, number: u32) -> bool {
        self.families.lock().contains(&number)
    }

    /// Counts from the next start on. `unread`: the name of the file, if it could not be read.
    pub(super) fn note(&self, number: u32, unread: Option<&str>) -> io::Result<()> {
        match fs::create_dir(&self.folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let before = fs::read_to_string(self.laid_aside(number)).unwrap_or_default();
        let (path, mut text) = (self.note_of(number), String::new());
        if let Some(name) = unread.filter(|name| before.trim_end() != *name && !path.exists()) {
            text = format!("{name}\n");
        }
        // It is there as a whole for the next start of this boot before the disk is waited for: the process may end
        // soon.
        let new = path.with_extension("new");
        let mut note = File::create(&new)?;
        note.write_all(text.as_bytes())?;
        fs::rename(&new, &path)?;
        note.sync_all()?;
        sync_names(&self.folder)?;
        sync_names(self.folder.parent().unwrap_or(&self.folder))
    }

    /// The family is gone.
    pub(super) fn forget(&self, number: u32) -> io::Result<()> {
        if !self.families.lock().remove(&number) {
            return Ok(());
        }
        match fs::remove_file(self.note_of(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => sync_names(&self.folder),
        }
    }
}

/// Which of the database's files RocksDB says to be corrupt, or not to be readable. Growing tables that it was to take
/// over lie in another folder.
/// Source: RocksDB 11.8 `table/block_based/reader_common.cc` (`VerifyBlockChecksum`), `env/io_posix.cc`.
pub(super) fn file_named<'r>(reason: &'r str, db: &Path) -> Option<&'r str> {
    if !is_corrupt(reason) && !reason.contains("While pread") {
        return None;
    }
    let folder = format!("{}/", db.display());
    let name = &reason[reason.find(&folder)? + folder.len()..];
    let digits = name.bytes().take_while(u8::is_ascii_digit).count();
    (digits > 0 && name[digits..].starts_with(".sst")).then(|| &name[..digits + ".sst".len()])
}

/// Whether a file is damaged for RocksDB, and not only unreadable.
pub(super) fn is_corrupt(reason: &str) -> bool {
    reason.starts_with("Corruption")
}

fn is_file_name(name: &str) -> bool {
    let number = name.strip_suffix(".sst").unwrap_or_default();
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
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
        noted.note(7, None).expect("noted");
        noted.note(7, None).expect("noted again");
        assert!(!noted.has(7));
        let noted = read(dir.path());
        assert!(noted.has(7) && !noted.has(8));
        noted.forget(8).expect("nothing to do");
        noted.forget(7).expect("forgotten");
        assert!(!noted.has(7) && !read(dir.path()).has(7));
        noted.note(8, None).expect("noted");
        noted.note(100, None).expect("noted");
        let noted = read(dir.path());
        assert!(noted.has(8) && !noted.has(100) && !dir.path().join("damaged").join("p100").exists(), "it is gone");
        fs::remove_file(dir.path().join("damaged").join("p8")).expect("removed by hand");
        noted.forget(8).expect("it is gone already");
    }

    /// A sector that one compaction could not read left its partition uncompacted for ever.
    #[test]
    fn a_file_that_can_be_read_again_is_not_damaged() {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::create_dir(dir.path().join("db")).expect("made");
        fs::write(dir.path().join("db/000005.sst"), "sound").expect("written");
        // A folder opens, and cannot be read.
        fs::create_dir(dir.path().join("db/000006.sst")).expect("made");
        for (family, file) in [(1, Some("000005.sst")), (2, Some("000006.sst")), (3, Some("000007.sst")), (4, None)] {
            read(dir.path()).note(family, file).expect("noted");
        }
        fs::write(dir.path().join("damaged/p5"), "../MANIFEST\n").expect("written");
        for _ in 0..2 {
            let noted = read(dir.path());
            assert_eq!([1, 2, 3, 4, 5].map(|family| noted.has(family)), [false, true, false, true, true]);
        }
        read(dir.path()).note(1, Some("000005.sst")).expect("noted again");
        read(dir.path()).note(3, Some("000008.sst")).expect("another file");
        let noted = read(dir.path());
        assert_eq!([1, 3].map(|family| noted.has(family)), [true, false], "it was laid aside once");
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
