//! The one error of typed messages.

use super::read::Malformed;

/// A body that does not decode, or a message that does not encode in the version asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CodecError(pub(crate) String);

impl From<Malformed> for CodecError {
    fn from(error: Malformed) -> Self {
        Self(error.to_string())
    }
}
