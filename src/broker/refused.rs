//! Why a broker did not start.

/// Why a broker did not start, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(pub(super) String);

/// Any complaint of a room becomes the one line with which the start ends.
pub(super) fn failed(error: impl std::fmt::Display) -> StartError {
    StartError(error.to_string())
}
