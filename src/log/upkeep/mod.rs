//! What is done to a log from time to time: opened, cut off at its end, shortened by retention,
//! compacted.

pub(crate) mod compaction;
pub(in crate::log) mod recovery;
pub(in crate::log) mod retention;
pub(crate) mod truncation;
