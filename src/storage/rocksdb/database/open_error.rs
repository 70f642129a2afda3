//! Why a log directory does not open.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::boot_record::BootRecord;
use super::failure::note_loss;
use super::raw::RocksError;

/// Why a log directory cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum OpenError {
    #[error("log directory {dir} is in use by another broker")]
    Taken { dir: PathBuf },
    #[error(
        "log directory {dir} holds the segments of a JVM broker ({file}); klamm does not read them: \
         give it a directory of its own and let replication or a mirror bring the records over"
    )]
    ForeignSegments { dir: PathBuf, file: PathBuf },
    #[error("log directory {dir} has format {found}, written by a newer klamm; this one knows up to {known}")]
    NewerFormat { dir: PathBuf, found: u32, known: u32 },
    #[error("log directory {dir} is damaged: {reason}")]
    Damaged { dir: PathBuf, reason: Arc<str> },
    #[error("log directory {dir}: {reason}")]
    Io { dir: PathBuf, reason: Arc<str> },
}

impl OpenError {
    /// Takes the note of the boot if the disk refused a write or a sync. While the directory is still locked: whoever
    /// waits for it is about to read the note.
    pub(in crate::storage::rocksdb) fn note_in(&self, record: Option<&dyn BootRecord>) {
        if let Self::Io { reason, .. } = self {
            note_loss(record, reason);
        }
    }

    pub(in crate::storage::rocksdb) fn io(dir: &Path, error: &io::Error) -> Self {
        Self::Io { dir: dir.into(), reason: error.to_string().into() }
    }

    pub(in crate::storage::rocksdb) fn damaged(dir: &Path, reason: impl Into<Arc<str>>) -> Self {
        Self::Damaged { dir: dir.into(), reason: reason.into() }
    }

    /// What RocksDB says, by how it begins.
    pub(in crate::storage::rocksdb) fn rocks(dir: &Path, error: &RocksError) -> Self {
        let text = &error.0;
        if text.contains("/LOCK: ") {
            Self::Taken { dir: dir.into() }
        } else if text.starts_with("Corruption") {
            Self::damaged(dir, text.as_str())
        } else {
            Self::Io { dir: dir.into(), reason: text.as_str().into() }
        }
    }
}
