//! Write-ahead logs that an earlier process left behind.
//!
//! After a loss of power any page of a log that was not synced may be missing, and then reads as zeros or as what a
//! recycled file held before. RocksDB ends its replay at a record that is damaged, but passes over zeros where one
//! should begin: it goes on with the next block of 32 KiB, and what it finds there follows a hole
//! (`db/log_reader.cc` of 11.8, `kBadRecord`). So zeros are made a damaged record before RocksDB sees them.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use tracing::warn;

use super::names::{cannot_sync, sync_names};

/// Write-ahead logs in the database's directory.
pub(super) fn find(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut logs = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "log") {
            logs.push(file);
        }
    }
    Ok(logs)
}

/// Has the next look at the file see what the disk has of it. After a write that the disk refused the kernel keeps what
/// it could not write as if it had: it says so once, to whoever syncs next, and from then on syncs of the file succeed.
pub(in crate::storage::rocksdb) fn forget_pages(path: &Path, file: &File) -> io::Result<()> {
    file.sync_data().map_err(|error| cannot_sync(path, &error))?;
    // What is not written yet stays, whoever asks.
    Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?)
}

/// Prepares the logs for their replay. `is_same_boot`: all that was written to them is there. Answers whether one of
/// them has a hole, so that it is not; each of these is to end there.
pub(super) fn prepare(logs: &[PathBuf], is_same_boot: bool) -> io::Result<bool> {
    let mut holes = if is_same_boot { find_holes(logs)? } else { Vec::new() };
    let had_hole = !holes.is_empty();
    if had_hole || !is_same_boot {
        for path in logs {
            forget_pages(path, &File::open(path)?)?;
        }
        holes = find_holes(logs)?;
    }
    for (path, at) in &holes {
        warn!(log = %path.display(), at, "write-ahead log has a hole; nothing behind it is replayed");
        let log = File::options().write(true).open(path)?;
        let cannot_end =
            |error: io::Error| io::Error::new(error.kind(), format!("cannot end {}: {error}", path.display()));
        log.write_all_at(&DAMAGED_RECORD, *at).map_err(cannot_end)?;
        log.sync_data().map_err(|error| cannot_sync(path, &error))?;
    }
    Ok(had_hole || !holes.is_empty())
}

fn find_holes(logs: &[PathBuf]) -> io::Result<Vec<(&PathBuf, u64)>> {
    let mut holes = Vec::new();
    for path in logs {
        if let Some(at) = find_hole(number(path), File::open(path)?)? {
            holes.push((path, at));
        }
    }
    Ok(holes)
}

/// Brings the logs that are still there to the disk, and their names in `folder`.
pub(super) fn sync(folder: &Path, logs: &[PathBuf]) -> io::Result<()> {
    if logs.is_empty() {
        return Ok(());
    }
    logs.iter().try_for_each(|path| sync_one(path).map_err(|error| cannot_sync(path, &error)))?;
    sync_names(folder).map_err(|error| cannot_sync(folder, &error))
}

/// Brings a log to the disk if it is still there.
pub(super) fn sync_one(path: &Path) -> io::Result<()> {
    match File::open(path).and_then(|log| log.sync_data()) {
        // What it held is in files.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// `<number>.log`. `None`: RocksDB has given it no such name.
fn number(path: &Path) -> Option<u32> {
    let number: u64 = path.file_stem()?.to_str()?.parse().ok()?;
    // The header has its lowest half alone.
    Some(number as u32)
}

/// What the log is written in; no record crosses the end of a block but in fragments.
const BLOCK_BYTES: usize = 32 << 10;
/// Checksum (4 bytes), length (2, little-endian), type (1); in a log that may be recycled its number follows (4).
const HEADER_BYTES: usize = 7;
const RECYCLABLE_HEADER_BYTES: usize = HEADER_BYTES + 4;
/// A record of type 1 that is longer than any block.
const DAMAGED_RECORD: [u8; HEADER_BYTES] = [0, 0, 0, 0, 0xff, 0xff, 1];

/// Where the first record of type and length 0 stands, or the [`DAMAGED_RECORD`] that an earlier start put there.
/// `None`: there is none before the end, or before what RocksDB takes for the end by itself. One of those is a record
/// of another number: what a recycled file held before it became this log, and zeros among that are no hole.
fn find_hole(number: Option<u32>, mut log: impl Read) -> io::Result<Option<u64>> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    let mut hole = None;
    for begin in (0..).step_by(BLOCK_BYTES) {
        block.clear();
        log.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block)?;
        let mut at = 0;
        // Where no header fits a block is filled with zeros.
        while let Some(header) = block.get(at..at + RECYCLABLE_HEADER_BYTES) {
            let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
            let kind = header[6];
            if is_of_another(number, kind, header) {
                return Ok(None);
            }
            if header.starts_with(&DAMAGED_RECORD) {
                return Ok(hole.or(Some(begin + at as u64)));
            }
            if kind == 0 && length == 0 {
                // RocksDB goes on with the next block; what that is tells whether anything is behind a hole.
                hole.get_or_insert(begin + at as u64);
                break;
            }
            if hole.is_some() {
                return Ok(hole);
            }
            at += if is_recyclable(kind) { RECYCLABLE_HEADER_BYTES } else { HEADER_BYTES };
            at += length;
            if at > block.len() {
                return Ok(None);
            }
        }
        if block.len() < BLOCK_BYTES {
            break;
        }
    }
    Ok(hole)
}

/// Whether the record says that it is of another log than this.
fn is_of_another(number: Option<u32>, kind: u8, header: &[u8]) -> bool {
    let said = header.get(HEADER_BYTES..).and_then(|rest| rest.first_chunk().copied()).map(u32::from_le_bytes);
    is_recyclable(kind) && number.is_some() && said != number
}

/// Types of records whose header has the log's number (`db/log_format.h`).
fn is_recyclable(kind: u8) -> bool {
    matches!(kind, 5..=8 | 11 | 131)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: u8 = 1;
    const RECYCLABLE_FULL: u8 = 5;

    /// A record whose payload is of this length and byte.
    fn record(kind: u8, number: u32, length: u16, byte: u8) -> Vec<u8> {
        let mut bytes = vec![0xaa; 4];
        bytes.extend(length.to_le_bytes());
        bytes.push(kind);
        if is_recyclable(kind) {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(vec![byte; usize::from(length)]);
        bytes
    }

    fn hole(log: &[u8]) -> Option<u64> {
        find_hole(Some(7), log).expect("read from memory")
    }

    #[test]
    fn zeros_where_a_record_should_begin_are_a_hole() {
        for kind in [FULL, RECYCLABLE_FULL] {
            let first = record(kind, 7, 100, 1);
            let at = first.len() as u64;
            let mut log = first.clone();
            assert_eq!(hole(&log), None);
            log.resize(BLOCK_BYTES, 0);
            assert_eq!(hole(&log), Some(at), "the log that follows is behind it");
            log.extend(first);
            assert_eq!(hole(&log), Some(at));
        }
    }

    /// A mere kill gave the line about a hole, if a file was recycled and what it had held before was zeros in the
    /// right place.
    #[test]
    fn what_a_recycled_file_held_before_is_no_hole() {
        let mut log = record(RECYCLABLE_FULL, 7, 100, 1);
        log.extend(record(RECYCLABLE_FULL, 3, 50, 2));
        log.extend([0; 200]);
        assert_eq!(hole(&log), None, "it ends at the record of another life");
        let mut log = record(RECYCLABLE_FULL, 7, 100, 1);
        // The middle of a former record.
        log.resize(BLOCK_BYTES, 0);
        log.extend(record(RECYCLABLE_FULL, 3, 50, 2));
        assert_eq!(hole(&log), None, "RocksDB goes on with a block of another life, and ends there");
        log.truncate(BLOCK_BYTES);
        log.extend(record(RECYCLABLE_FULL, 7, 50, 2));
        assert_eq!(hole(&log), Some(111));
    }

    #[test]
    fn the_number_is_that_of_the_name() {
        assert_eq!(number(Path::new("/d/db/000007.log")), Some(7));
        assert_eq!(number(Path::new("/d/db/x.log")), None);
    }
}
