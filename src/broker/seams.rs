//! What a broker stands on: its clock, how a log directory is opened, and how the embedded tree is reached. The default
//! is the real thing; tests put doubles in its place that fail by a script.

use std::path::Path;
use std::sync::Arc;

use crate::clock::{SharedClock, SystemClock};
use crate::coordination::SharedCoordination;
use crate::coordination::embedded::EmbeddedCoordination;
use crate::storage::SharedLogDir;
use crate::storage::rocksdb::{DirectoryOptions, OpenError, RocksDirectory};

/// Opens the log directory at a path that exists. May block.
pub(super) type OpenDir = Box<dyn Fn(&Path, DirectoryOptions) -> Result<SharedLogDir, OpenError> + Send>;

/// Shares the embedded tree with the rooms above.
pub(super) type Embedded = Box<dyn FnOnce(EmbeddedCoordination) -> SharedCoordination + Send>;

pub(super) struct Seams {
    pub(super) clock: SharedClock,
    pub(super) open_dir: OpenDir,
    pub(super) embedded: Embedded,
}

impl Default for Seams {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            open_dir: Box::new(|path, options| Ok(RocksDirectory::open(path, options)?)),
            embedded: Box::new(|tree| Arc::new(tree)),
        }
    }
}
