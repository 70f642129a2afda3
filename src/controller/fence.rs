//! Writes of a controller: each is a multi that begins with a check of `/controller_epoch` (I-12).

use crate::cluster::znodes::controller::EPOCH_PATH;
use crate::coordination::{CoordinationError, MultiError, Op, OpResult, SharedCoordination};
use crate::types::ControllerEpoch;

/// Why a term cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Interrupted {
    /// `/controller_epoch` is not the one this term was elected with.
    #[error("another controller was elected")]
    Moved,
    /// The store failed, or the outcome of a write is unknown. What is in memory may differ from what is stored.
    #[error(transparent)]
    Store(#[from] CoordinationError),
}

/// What a fenced multi answered: the results without the check's, or the refusal of one of the caller's operations,
/// which is counted from 0 without the check.
pub(super) type Written = Result<Vec<OpResult>, MultiError>;

/// The right to write, for one term.
#[derive(Debug, Clone)]
pub(super) struct Fence {
    store: SharedCoordination,
    pub(super) epoch: ControllerEpoch,
    /// Data version of `/controller_epoch` in this term.
    version: i32,
}

impl Fence {
    pub(super) fn new(store: SharedCoordination, epoch: ControllerEpoch, version: i32) -> Self {
        Self { store, epoch, version }
    }

    pub(super) async fn write(&self, ops: Vec<Op>) -> Result<Written, Interrupted> {
        judge(self.store.multi(self.checked(ops)).await).and_then(permitted)
    }

    /// Many in one round, applied in order.
    pub(super) async fn write_all(&self, batches: Vec<Vec<Op>>) -> Result<Vec<Written>, Interrupted> {
        self.try_all(batches).await?.into_iter().map(permitted).collect()
    }

    /// As [`Self::write_all`], where a node may be another's, and this broker without the permission to change it: that
    /// is a refusal like any other, and ends no term.
    pub(super) async fn try_all(&self, batches: Vec<Vec<Op>>) -> Result<Vec<Written>, Interrupted> {
        if batches.is_empty() {
            return Ok(Vec::new());
        }
        let batches = batches.into_iter().map(|ops| self.checked(ops)).collect();
        self.store.multi_all(batches).await.into_iter().map(judge).collect()
    }

    fn checked(&self, mut ops: Vec<Op>) -> Vec<Op> {
        ops.insert(0, Op::Check { path: EPOCH_PATH.into(), version: self.version });
        ops
    }
}

fn judge(answer: Result<Vec<OpResult>, MultiError>) -> Result<Written, Interrupted> {
    use CoordinationError as E;
    match answer {
        Ok(mut results) => {
            results.remove(0);
            Ok(Ok(results))
        }
        Err(MultiError { error: error @ (E::Unknown(_) | E::SessionExpired), .. })
        | Err(MultiError { index: 0, error: error @ E::Refused(_) }) => Err(Interrupted::Store(error)),
        Err(MultiError { index: 0, .. }) => Err(Interrupted::Moved),
        Err(MultiError { index, error }) => Ok(Err(MultiError { index: index - 1, error })),
    }
}

/// What the store refuses for another reason than what it holds ends the term.
fn permitted(written: Written) -> Result<Written, Interrupted> {
    match written {
        Err(MultiError { error: error @ CoordinationError::Refused(_), .. }) => Err(Interrupted::Store(error)),
        written => Ok(written),
    }
}
