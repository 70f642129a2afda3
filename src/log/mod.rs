//! One partition's log: batches with offsets, and everything Kafka knows about them beside their bytes.
//!
//! Knows nothing of leaders, followers, high watermarks (it is handed one), topics' names or the network, and spawns
//! nothing. Bytes on disk are the storage room's; what side records mean is defined here, in `side`.
//!
//! `partition_log` is the door for changes, and alone writes its fields. Below it: `fetched`, what a follower was sent,
//! before it is appended; `kept`, what was written lately; `state`, what it knows beside the batches, in pure parts
//! that `log_state` holds together; `reading`, the way to the batches; `upkeep`, what is done now and then
//! (recovery, truncation, retention, compaction), as functions from one state to the next; `side`, how side records
//! lie.

pub(crate) mod config;
pub(crate) mod fetched;
pub(crate) mod kept;
pub(crate) mod partition_log;
pub(crate) mod reading;
mod side;
pub(crate) mod state;
pub(crate) mod upkeep;

#[cfg(test)]
mod end_tests;
#[cfg(test)]
mod fetched_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod transaction_tests;
