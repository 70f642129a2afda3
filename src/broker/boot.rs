//! Which boot of the machine a log directory was last written under.
//!
//! While the boot is the same the kernel has kept every byte that a killed process had written. After another one a log
//! may lack its end, and one that simply ends earlier cannot be told from a whole one. So each directory remembers the
//! boot in a file, `boot.klamm`, one line of text. It is written once the partitions led here have new leader epochs,
//! and not before: until then every start says again that ends may be lost.
//!
//! Not noticed: the disk of a virtual machine that is set back while the machine runs.

use std::fs;
use std::io;
use std::path::Path;

const FILE: &str = "boot.klamm";
/// Linux draws it at each boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The present boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Boot(Option<String>);

impl Boot {
    /// The machine's, or the one that is given in its place (`klamm.boot.id`, for tests). Where the machine does not
    /// say, every start counts as another boot.
    pub(super) fn of(given: Option<&str>) -> Self {
        let machines = || fs::read_to_string(BOOT_ID).ok();
        let id = given.map(str::to_owned).or_else(machines);
        Self(id.map(|id| id.trim().to_owned()).filter(|id| !id.is_empty()))
    }

    /// Whether the directory was written to under this boot, and no other since. What cannot be read says no.
    pub(super) fn has_written(&self, dir: &Path) -> bool {
        let stored = fs::read_to_string(dir.join(FILE)).ok();
        self.0.is_some() && self.0.as_deref() == stored.as_deref().map(str::trim)
    }

    /// From now on the directory is written to under this boot. Not synced: a power loss that takes the file is one
    /// that has to be noticed anyway.
    pub(super) fn remember(&self, dir: &Path) -> io::Result<()> {
        let Some(id) = &self.0 else { return Ok(()) };
        if self.has_written(dir) {
            return Ok(());
        }
        let new = dir.join(format!("{FILE}.new"));
        fs::write(&new, format!("{id}\n"))?;
        fs::rename(&new, dir.join(FILE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_knows_the_boot_it_was_written_under() {
        let dir = tempfile::tempdir().unwrap();
        let (one, other) = (Boot::of(Some("one")), Boot::of(Some(" other\n")));
        assert!(!one.has_written(dir.path()), "nobody has");
        one.remember(dir.path()).unwrap();
        assert!(one.has_written(dir.path()) && !other.has_written(dir.path()));
        other.remember(dir.path()).unwrap();
        assert!(!one.has_written(dir.path()) && other.has_written(dir.path()));
        assert_eq!(fs::read_to_string(dir.path().join(FILE)).unwrap(), "other\n");
        fs::write(dir.path().join(FILE), "").unwrap();
        let unknown = Boot::of(Some(""));
        unknown.remember(dir.path()).unwrap();
        assert!(!unknown.has_written(dir.path()), "a machine that does not say has written nothing");
    }
}
