//! What the crate's errors mean for the seam. Every way in which it reports a cut connection is `Unknown`.

use zookeeper_client as zk;

use crate::coordination::{CoordinationError, MultiError, Op};

/// An error about the node at `path`.
pub(super) fn on(path: &str, error: zk::Error) -> CoordinationError {
    use zk::Error;
    match error {
        Error::NoNode => CoordinationError::NoNode(path.into()),
        Error::NodeExists => CoordinationError::NodeExists(path.into()),
        Error::BadVersion => CoordinationError::BadVersion(path.into()),
        Error::NotEmpty => CoordinationError::NotEmpty(path.into()),
        Error::NoChildrenForEphemerals => CoordinationError::NoChildrenForEphemerals(path.into()),
        Error::ClientClosed => closed(),
        // The ensemble ended the session before it read a request, and the next one may prove itself.
        Error::AuthFailed => CoordinationError::SessionExpired,
        // The ensemble, or the client before it sent anything, said no.
        error @ (Error::NoAuth
        | Error::InvalidAcl
        | Error::NotReadOnly
        | Error::QuotaExceeded
        | Error::Throttled
        | Error::MarshallingError
        | Error::Unimplemented
        | Error::ReconfigDisabled
        | Error::UnexpectedErrorCode(_)
        | Error::NoHosts
        | Error::BadArguments(_)) => CoordinationError::Refused(format!("{path}: {error}")),
        // ConnectionLoss, Custom, Timeout, SessionMoved, answers that could not be read, and whatever a later version
        // of the crate adds: perhaps applied. SessionExpired as well: the crate says it by itself after some time, see
        // `session.rs`.
        error => CoordinationError::Unknown(format!("{path}: {error}")),
    }
}

/// An error about a session that was never opened.
pub(super) fn at_open(at: &str, error: zk::Error) -> CoordinationError {
    match error {
        error @ zk::Error::AuthFailed => CoordinationError::Refused(format!("{at}: {error}")),
        error => on(at, error),
    }
}

/// Which operation of a multi was refused, and why.
pub(super) fn of_multi(ops: &[Op], error: zk::MultiWriteError) -> MultiError {
    match error {
        zk::MultiWriteError::RequestFailed { source } => first(on(ops.first().map_or("/", Op::path), source)),
        zk::MultiWriteError::OperationFailed { index, source } => {
            MultiError { index, error: on(ops.get(index).map_or("/", Op::path), source) }
        }
    }
}

/// An error about a whole request.
pub(super) fn first(error: CoordinationError) -> MultiError {
    MultiError { index: 0, error }
}

/// The answer to calls after `close`.
pub(super) fn closed() -> CoordinationError {
    CoordinationError::Refused("the session is closed".into())
}
