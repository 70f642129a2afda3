//! What may come of a client's token.

use crate::clock::UnixMs;

/// What follows a client's token.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// The client is to answer this.
    Challenge(Vec<u8>),
    Done(Authenticated),
}

/// The client has proved who it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Authenticated {
    pub(crate) user: String,
    /// The last token to the client; may be empty.
    pub(crate) token: Vec<u8>,
    /// It showed a delegation token, of this user.
    pub(crate) by_token: bool,
    /// When what it showed loses its worth.
    pub(crate) expires_at_ms: Option<UnixMs>,
}

/// It has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The client is told this.
    Told(String),
    /// This is for nobody but our log: it may tell which users there are.
    Hidden(&'static str),
}

impl Refused {
    pub(super) fn told(text: &str) -> Self {
        Self::Told(text.into())
    }
}
