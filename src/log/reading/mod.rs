//! The way to a log's batches without its lock: the tail and the read-ahead in memory, then storage.

pub(in crate::log) mod batches;
pub(in crate::log) mod fill;
pub(crate) mod read;
pub(in crate::log) mod read_ahead;
pub(in crate::log) mod ring;
pub(crate) mod tail;
