//! What a log knows beside its batches: pure parts, each restored from side records and batches at a start, and
//! `log_state`, which holds them together.

pub(crate) mod aborted;
pub(in crate::log) mod append_error;
pub(in crate::log) mod leader_epochs;
pub(in crate::log) mod log_state;
pub(crate) mod producer_state;
pub(in crate::log) mod segments;
pub(in crate::log) mod timestamps;
pub(in crate::log) mod undecided;
pub(in crate::log) mod verification;
