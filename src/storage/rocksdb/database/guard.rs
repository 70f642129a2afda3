//! Notices a MANIFEST that lost its end.
//!
//! RocksDB takes a MANIFEST that is cut off for one whose last write was torn: it opens an earlier state, perhaps an
//! empty one, and deletes the files that this state does not know. So its length is noted beside the database, in
//! `.manifest`, each time it is known to have grown, and a shorter one is refused before RocksDB sees it.
//!
//! Layout of `.manifest`: the MANIFEST's name, a space, its length in decimal, a line feed. Example:
//! `MANIFEST-000005 1206`. The note is a lower bound: it may be old or missing, never wrong.

use std::fs;
use std::io;
use std::path::Path;

const NOTE: &str = ".manifest";

/// Notes the length that the MANIFEST has now.
pub(super) fn note(dir: &Path) -> io::Result<()> {
    let (name, length) = manifest(dir)?;
    fs::write(dir.join(NOTE), format!("{name} {length}\n"))
}

/// What is wrong, if the MANIFEST is shorter than it was once.
pub(super) fn find_loss(dir: &Path) -> Option<String> {
    let note = fs::read_to_string(dir.join(NOTE)).ok()?;
    let (noted_name, noted_length) = note.trim_end().split_once(' ')?;
    let noted_length: u64 = noted_length.parse().ok()?;
    let (name, length) = manifest(dir).ok()?;
    (name == noted_name && length < noted_length)
        .then(|| format!("db/{name} has {length} bytes and had {noted_length} before; its end is lost"))
}

fn manifest(dir: &Path) -> io::Result<(String, u64)> {
    let db = dir.join("db");
    let name = fs::read_to_string(db.join("CURRENT"))?.trim_end().to_owned();
    let length = fs::metadata(db.join(&name))?.len();
    Ok((name, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_may_grow_or_be_replaced_but_not_shrink() {
        let dir = tempfile::tempdir().expect("tempdir");
        let db = dir.path().join("db");
        fs::create_dir(&db).expect("mkdir");
        assert_eq!(find_loss(dir.path()), None, "nothing noted");
        fs::write(db.join("CURRENT"), "MANIFEST-000005\n").expect("write");
        fs::write(db.join("MANIFEST-000005"), [0; 100]).expect("write");
        note(dir.path()).expect("note");
        assert_eq!(fs::read_to_string(dir.path().join(".manifest")).expect("read"), "MANIFEST-000005 100\n");
        fs::write(db.join("MANIFEST-000005"), [0; 101]).expect("write");
        assert_eq!(find_loss(dir.path()), None);
        fs::write(db.join("MANIFEST-000005"), [0; 99]).expect("write");
        assert!(find_loss(dir.path()).expect("a finding").contains("99 bytes"));
        fs::write(db.join("CURRENT"), "MANIFEST-000009\n").expect("write");
        fs::write(db.join("MANIFEST-000009"), [0; 5]).expect("write");
        assert_eq!(find_loss(dir.path()), None, "another MANIFEST");
    }
}
