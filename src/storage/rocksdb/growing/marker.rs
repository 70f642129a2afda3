//! That a partition's growing tables are damaged, on the disk: a file `growing/<family>.damaged` beside them.
//!
//! Damage can be told from what a loss of power leaves only while the boot of the machine is the same
//! ([`super::damage`]). So where a partition is refused that is noted, and each later start refuses it unseen, until it
//! is deleted, or its tables were removed by hand. The marker goes with them, before the family's number is another's.
//!
//! Layout: text of two lines. The first has the topic id, the partition and the CRC-32C of both with the space between
//! them, in eight hexadecimal digits; the second says what is damaged. Example of a first line:
//! `AAAAAAAAAAAAAAAAAAAABw 3 5f0a4e9d`. A marker of another partition, which a version that knows of no markers may
//! leave behind, does not count; one whose first line cannot be read does.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::types::{PartitionIndex, TopicId};

const ENDING: &str = ".damaged";
/// More of a marker is not read.
const BYTES_MAX: u64 = 4096;

/// Where the marker of a family lies.
pub(super) fn path(folder: &Path, family: u32) -> PathBuf {
    folder.join(format!("{family}{ENDING}"))
}

/// The family in a name, if it is a marker's.
pub(super) fn family_of(name: &Path) -> Option<u32> {
    name.to_str()?.strip_suffix(ENDING)?.parse().ok()
}

/// Makes a marker, and brings it to the disk; its name may be missing there still. After a failure there may be one
/// that cannot be read.
pub(super) fn write(path: &Path, owner: (TopicId, PartitionIndex), why: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(encode(owner, why).as_bytes())?;
    file.sync_all()
}

/// What a marker says is damaged; `None`: it is another partition's. One that cannot be read is everybody's.
pub(super) fn read(path: &Path, owner: (TopicId, PartitionIndex)) -> Option<String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(BYTES_MAX).read_to_end(&mut bytes));
    let text = match read {
        Ok(_) => String::from_utf8_lossy(&bytes),
        Err(error) => return Some(format!("so it was noted, in a file that cannot be read: {error}")),
    };
    let (whose, why) = text.split_once('\n').unwrap_or((&text, ""));
    match decode_owner(whose) {
        Some(noted) if noted != owner => None,
        Some(_) => Some(why.trim_end().to_owned()),
        None => Some("so it was noted, in a file that is damaged itself".to_owned()),
    }
}

fn encode((topic_id, partition): (TopicId, PartitionIndex), why: &str) -> String {
    let whose = format!("{topic_id} {}", partition.0);
    format!("{whose} {:08x}\n{}\n", crc32c::crc32c(whose.as_bytes()), why.replace('\n', " "))
}

fn decode_owner(line: &str) -> Option<(TopicId, PartitionIndex)> {
    let (whose, crc) = line.rsplit_once(' ')?;
    if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(whose.as_bytes()) {
        return None;
    }
    let (topic_id, partition) = whose.split_once(' ')?;
    Some((TopicId::parse(topic_id)?, PartitionIndex(partition.parse().ok()?)))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const OWNER: (TopicId, PartitionIndex) = (TopicId(uuid::Uuid::from_u128(7)), PartitionIndex(3));

    #[test]
    fn a_marker_says_whose_tables_are_damaged_and_why() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = path(dir.path(), 12);
        assert_eq!(path.file_name().and_then(|name| family_of(Path::new(name))), Some(12));
        assert_eq!(["12-3.sst", "x.damaged", ".damaged"].map(|name| family_of(Path::new(name))), [None; 3]);
        write(&path, OWNER, "the first batch\ncannot be read").expect("written");
        let text = fs::read_to_string(&path).expect("read");
        assert_eq!(text, "AAAAAAAAAAAAAAAAAAAABw 3 5f0a4e9d\nthe first batch cannot be read\n");
        assert_eq!(read(&path, OWNER).as_deref(), Some("the first batch cannot be read"));
        assert_eq!(read(&path, (OWNER.0, PartitionIndex(4))), None, "another partition's");
    }

    /// A kill in its middle leaves it so, and the disk that damaged the tables may damage it.
    #[test]
    fn a_marker_that_cannot_be_read_counts() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = path(dir.path(), 12);
        let whole = encode((OWNER.0, PartitionIndex(4)), "why");
        let mut others = vec![whole.replace("w 4", "w 5").into_bytes(), vec![0xff; 10_000]];
        others.extend((0..whole.len() - "\nwhy\n".len()).map(|length| whole.as_bytes()[..length].to_vec()));
        for bytes in others {
            fs::write(&path, &bytes).expect("write");
            assert!(read(&path, OWNER).is_some_and(|why| why.contains("noted")), "{bytes:?}");
        }
        fs::remove_file(&path).expect("removed");
        assert!(read(&path, OWNER).is_some_and(|why| why.contains("cannot be read")), "as where the disk fails");
    }
}
