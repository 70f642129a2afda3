//! What a change of a log, apart from an append, gave, and the outcome of its write. No caller gets the one without the
//! other.

use super::ack::AckError;
use crate::storage::{Queued, StorageError};

/// Why a log was not changed, or its change is not on the disk.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ChangeError {
    #[error("the replica was closed")]
    Closed,
    /// An earlier write failed. After `Full` the log waits to be opened anew; else it is offline.
    #[error("{0}")]
    Failed(AckError),
    /// The end of the log is being cut off; it takes changes again soon.
    #[error("the log is being truncated")]
    Truncating,
    /// Only a follower's log is truncated.
    #[error("the replica leads")]
    Leads,
    /// The write of this change.
    #[error(transparent)]
    Unwritten(#[from] StorageError),
}

impl ChangeError {
    /// Whether the disk is the reason, and not an order to stop or to follow.
    pub(crate) fn is_failure(&self) -> bool {
        !matches!(self, Self::Closed | Self::Truncating | Self::Leads)
    }
}

/// A change that was made in memory and queued. Its fruits are had by waiting for its write.
#[derive(Debug)]
#[must_use = "what the change gave counts only once it is written"]
pub(crate) struct Changed<T> {
    value: T,
    queued: Queued,
}

impl<T> Changed<T> {
    pub(super) fn new(value: T, queued: Queued) -> Self {
        Self { value, queued }
    }

    /// Waits until the change is written.
    pub(crate) async fn recorded(self) -> Result<T, ChangeError> {
        self.queued.await?;
        Ok(self.value)
    }

    /// Blocks until the change is written.
    pub(crate) fn written(self) -> Result<T, ChangeError> {
        self.queued.wait()?;
        Ok(self.value)
    }
}

impl<T, E> Changed<Result<T, E>> {
    /// A change that may have been refused; then it wanted nothing written.
    pub(crate) fn transposed(self) -> Result<Changed<T>, E> {
        self.value.map(|value| Changed { value, queued: self.queued })
    }
}
