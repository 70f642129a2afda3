//! That a partition's growing tables are damaged, on the disk: a file `growing/<family>.damaged` beside them.
//!
//! Damage can be told from what a loss of power leaves only while the boot of the machine is the same
//! ([`super::damage`]). So where a partition is refused that is noted, and each later start refuses it unseen, until it
//! is deleted, or its tables were removed by hand. With a deleted partition the marker goes before the family's number
//! is another's. Where tables were removed by hand it stays until there are others: each start until then says that the
//! log may lack its end, since a kill may come before anybody was told.
//!
//! Layout: text of two lines. The first has the topic id, the partition, the serials of the tables that are refused,
//! and the CRC-32C of all that, in eight hexadecimal digits; the second says what is damaged. Example of a first line:
//! `AAAAAAAAAAAAAAAAAAAABw 3 7,8 0b52f9f6`. A marker of another partition, or of tables that are gone while others are
//! there, which a version that knows of no markers may leave behind, does not count; one whose first line cannot be
//! read does.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::types::{PartitionIndex, TopicId};

const ENDING: &str = ".damaged";
/// More of a marker is not read.
const BYTES_MAX: u64 = 64 << 10;

/// Where the marker of a family lies.
pub(super) fn path(folder: &Path, family: u32) -> PathBuf {
    folder.join(format!("{family}{ENDING}"))
}

/// The family in a name, if it is a marker's.
pub(super) fn family_of(name: &Path) -> Option<u32> {
    name.to_str()?.strip_suffix(ENDING)?.parse().ok()
}

/// Makes a marker, and brings it to the disk; its name may be missing there still. After a failure there may be one
/// that cannot be read. `tables`: the serials of those that are refused.
pub(super) fn write(path: &Path, owner: (TopicId, PartitionIndex), tables: &[u64], why: &str) -> io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(encode(owner, tables, why).as_bytes())?;
    file.sync_all()
}

/// A marker that was found.
#[derive(Debug)]
pub(super) struct Marker {
    path: PathBuf,
    /// Why it is not known whose it is, where that is so.
    noted: Result<Noted, String>,
}

/// What a marker says.
#[derive(Debug, PartialEq, Eq)]
struct Noted {
    owner: (TopicId, PartitionIndex),
    /// Their serials.
    tables: Vec<u64>,
    why: String,
}

/// What a marker means for a partition.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Marked {
    /// Nothing: it is another's, or of tables that are no more.
    NotThis,
    /// Its tables are refused, for this reason.
    Refused(String),
    /// They were removed, and nothing has come after them. `is_legible`: the marker says so itself.
    Removed { why: String, is_legible: bool },
}

impl Marker {
    pub(super) fn read(path: PathBuf) -> Self {
        let noted = match text(&path) {
            Err(error) => Err(format!("so it was noted, in a file that cannot be read: {error}")),
            Ok(text) => decode(&text).ok_or_else(|| "so it was noted, in a file that is damaged itself".to_owned()),
        };
        Self { path, noted }
    }

    pub(super) fn into_path(self) -> PathBuf {
        self.path
    }

    /// Highest serial of the tables that it names, as far as it can be read.
    pub(super) fn last_serial(&self) -> Option<u64> {
        self.noted.as_ref().ok()?.tables.iter().max().copied()
    }

    /// What it means for a partition. `present`: the serials of its tables that are there.
    pub(super) fn meaning(&self, owner: (TopicId, PartitionIndex), present: &[u64]) -> Marked {
        match &self.noted {
            Err(why) if present.is_empty() => Marked::Removed { why: why.clone(), is_legible: false },
            Err(why) => Marked::Refused(why.clone()),
            Ok(noted) if noted.owner != owner => Marked::NotThis,
            Ok(noted) if noted.tables.iter().any(|serial| present.contains(serial)) => {
                Marked::Refused(noted.why.clone())
            }
            Ok(noted) if present.is_empty() => Marked::Removed { why: noted.why.clone(), is_legible: true },
            Ok(_) => Marked::NotThis,
        }
    }
}

fn text(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn encode((topic_id, partition): (TopicId, PartitionIndex), tables: &[u64], why: &str) -> String {
    let tables: Vec<String> = tables.iter().map(u64::to_string).collect();
    let whose = format!("{topic_id} {} {}", partition.0, tables.join(","));
    format!("{whose} {:08x}\n{}\n", crc32c::crc32c(whose.as_bytes()), why.replace('\n', " "))
}

fn decode(text: &str) -> Option<Noted> {
    let (line, why) = text.split_once('\n').unwrap_or((text, ""));
    let (whose, crc) = line.rsplit_once(' ')?;
    if u32::from_str_radix(crc, 16).ok()? != crc32c::crc32c(whose.as_bytes()) {
        return None;
    }
    let mut words = whose.split(' ');
    let (topic_id, partition, tables) = (words.next()?, words.next()?, words.next()?);
    let tables: Result<Vec<u64>, _> = tables.split(',').map(str::parse).collect();
    let owner = (TopicId::parse(topic_id)?, PartitionIndex(partition.parse().ok()?));
    Some(Noted { owner, tables: tables.ok()?, why: why.trim_end().to_owned() })
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
        write(&path, OWNER, &[7, 8], "the first batch\ncannot be read").expect("written");
        let text = fs::read_to_string(&path).expect("read");
        assert!(
            text.starts_with("AAAAAAAAAAAAAAAAAAAABw 3 7,8 ") && text.ends_with("\nthe first batch cannot be read\n")
        );
        let why = || "the first batch cannot be read".to_owned();
        let marker = Marker::read(path.clone());
        assert_eq!(marker.last_serial(), Some(8));
        let of = |owner, tables: &[u64]| marker.meaning(owner, tables);
        assert_eq!((of(OWNER, &[7, 9]), of(OWNER, &[8])), (Marked::Refused(why()), Marked::Refused(why())));
        assert_eq!(of(OWNER, &[9]), Marked::NotThis, "those that were damaged have gone");
        assert_eq!(of(OWNER, &[]), Marked::Removed { why: why(), is_legible: true });
        for tables in [&[7][..], &[]] {
            assert_eq!(of((OWNER.0, PartitionIndex(4)), tables), Marked::NotThis, "another partition's");
        }
    }

    /// A kill in its middle leaves it so, and the disk that damaged the tables may damage it.
    #[test]
    fn a_marker_that_cannot_be_read_counts() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = path(dir.path(), 12);
        let whole = encode((OWNER.0, PartitionIndex(4)), &[7], "why");
        let mut others = vec![whole.replace("w 4", "w 5").into_bytes(), vec![0xff; 10_000]];
        others.extend((0..whole.len() - "\nwhy\n".len()).map(|length| whole.as_bytes()[..length].to_vec()));
        for bytes in others {
            fs::write(&path, &bytes).expect("write");
            let marker = Marker::read(path.clone());
            let refused = marker.meaning(OWNER, &[7]);
            assert!(matches!(refused, Marked::Refused(why) if why.contains("noted")), "{bytes:?}");
            let removed = marker.meaning(OWNER, &[]);
            assert!(matches!(removed, Marked::Removed { is_legible: false, .. }), "{bytes:?}");
        }
        fs::remove_file(&path).expect("removed");
        let failing = Marker::read(path).meaning(OWNER, &[7]);
        assert!(matches!(failing, Marked::Refused(why) if why.contains("cannot be read")), "as where the disk fails");
    }
}
