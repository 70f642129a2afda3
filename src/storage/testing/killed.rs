//! What a kill leaves of a directory on disk: a copy of it, taken while it is open.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// As a kill leaves it, if nothing is written. What goes on in the background may make it begin again.
pub(crate) fn copy(from: &Path) -> tempfile::TempDir {
    loop {
        let to = tempfile::tempdir().expect("tempdir");
        let (before, copied) = (lengths(from), copy_into(from, to.path()));
        if let (Ok(before), Ok(()), Ok(after)) = (before, copied, lengths(from))
            && before == after
        {
            return to;
        }
    }
}

/// All files below a directory, and how long they are.
fn lengths(place: &Path) -> std::io::Result<BTreeMap<PathBuf, u64>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(place)? {
        let path = entry?.path();
        if path.is_dir() {
            found.append(&mut lengths(&path)?);
        } else {
            found.insert(path.clone(), path.metadata()?.len());
        }
    }
    Ok(found)
}

fn copy_into(from: &Path, to: &Path) -> std::io::Result<()> {
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            std::fs::create_dir(&target)?;
            copy_into(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
