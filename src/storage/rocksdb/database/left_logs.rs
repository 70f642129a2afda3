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

/// Has RocksDB end its replay of each log at the first zeros in it that stand where a record should begin.
pub(super) fn end_at_holes(logs: &[PathBuf]) -> io::Result<()> {
    for path in logs {
        let Some(at) = find_hole(File::open(path)?)? else { continue };
        warn!(log = %path.display(), at, "write-ahead log has a hole; nothing behind it is replayed");
        let log = File::options().write(true).open(path)?;
        log.write_all_at(&DAMAGED_RECORD, at)?;
        log.sync_data()?;
    }
    Ok(())
}

/// What the log is written in; no record crosses the end of a block but in fragments.
const BLOCK_BYTES: usize = 32 << 10;
/// Checksum (4 bytes), length (2, little-endian), type (1); in a log that may be recycled its number follows (4).
const HEADER_BYTES: usize = 7;
const RECYCLABLE_HEADER_BYTES: usize = HEADER_BYTES + 4;
/// A record of type 1 that is longer than any block.
const DAMAGED_RECORD: [u8; HEADER_BYTES] = [0, 0, 0, 0, 0xff, 0xff, 1];

/// Where the first record of type and length 0 stands. `None`: there is none before the end, or before what RocksDB
/// takes for the end by itself.
fn find_hole(mut log: impl Read) -> io::Result<Option<u64>> {
    let mut block = Vec::with_capacity(BLOCK_BYTES);
    for begin in (0..).step_by(BLOCK_BYTES) {
        block.clear();
        log.by_ref().take(BLOCK_BYTES as u64).read_to_end(&mut block)?;
        let mut at = 0;
        // Where no header fits a block is filled with zeros.
        while let Some(header) = block.get(at..at + RECYCLABLE_HEADER_BYTES) {
            let length = usize::from(u16::from_le_bytes([header[4], header[5]]));
            let kind = header[6];
            if kind == 0 && length == 0 {
                return Ok(Some(begin + at as u64));
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
    Ok(None)
}

/// Types of records whose header has the log's number (`db/log_format.h`).
fn is_recyclable(kind: u8) -> bool {
    matches!(kind, 5..=8 | 11 | 131)
}
