//! Frames, headers, the guarded codec and responses that borrow record bytes. Knows no domain rule (D2, I-21).

pub(crate) mod codec;
pub(crate) mod control;
pub(crate) mod error;
pub(crate) mod fetch;
pub(crate) mod fetch_answer;
pub(crate) mod frame;
pub(crate) mod guard;
pub(crate) mod header;
pub(crate) mod probe;
pub(crate) mod produce;
pub(crate) mod read;
pub(crate) mod segments;
mod write;
