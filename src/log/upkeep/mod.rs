//! What is done to a log from time to time: opened and cut, shortened by retention, compacted.

pub(crate) mod compaction;
pub(in crate::log) mod recovery;
pub(in crate::log) mod retention;
