//! Where the log of a partition lies.

use std::sync::Arc;

use crate::log::reading::tail::Tail;
use crate::storage::{Family, SharedLogDir};

/// A place in a log directory.
#[derive(Debug, Clone)]
pub(crate) struct Home {
    /// Index of the directory among those of the broker.
    pub(crate) at: usize,
    pub(crate) dir: SharedLogDir,
    pub(crate) family: Family,
    /// Of the directory.
    pub(crate) tail: Arc<Tail>,
    /// How often the log had changed its directory when it came here; of two logs of one partition the later counts.
    pub(crate) generation: u64,
}
