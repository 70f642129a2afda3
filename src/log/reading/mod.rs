//! The way to a log's batches without its lock: the tail, what can be sent from its file, the read-ahead in memory,
//! then what storage has to read.

pub(in crate::log) mod batches;
pub(in crate::log) mod fill;
pub(crate) mod find;
pub(crate) mod read;
pub(in crate::log) mod read_ahead;
pub(in crate::log) mod ring;
pub(crate) mod tail;
