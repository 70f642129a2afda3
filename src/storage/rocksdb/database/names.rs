//! Names on disk: what the column families are called, and bringing the names in a folder to the disk.

use std::fs::File;
use std::io;
use std::path::Path;

/// Column families that are not partitions', in the order in which they are opened: the directory of families, side
/// records, the embedded tree.
pub(super) const FIXED: [&str; 3] = ["default", "side", "coordination"];

/// The places of the fixed families in [`FIXED`].
pub(super) const DEFAULT: usize = 0;
pub(super) const SIDE: usize = 1;
pub(super) const TREE: usize = 2;

/// Name of the column family with this number.
pub(in crate::storage::rocksdb) fn family_name(number: u32) -> String {
    format!("p{number}")
}

pub(super) fn family_number(name: &str) -> Option<u32> {
    name.strip_prefix('p')?.parse().ok()
}

/// That a sync has failed, in words that say so.
pub(in crate::storage::rocksdb) fn cannot_sync(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot sync {}: {error}", path.display()))
}

/// Brings the names in a folder to the disk.
pub(in crate::storage::rocksdb) fn sync_names(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_number() {
        assert_eq!(family_number(&family_name(12)), Some(12));
        assert_eq!(FIXED.map(family_number), [None; 3]);
        assert_eq!((FIXED[DEFAULT], FIXED[SIDE], FIXED[TREE]), ("default", "side", "coordination"));
    }
}
