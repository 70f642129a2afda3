//! Why a log directory does not open.

use std::path::PathBuf;
use std::sync::Arc;

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
