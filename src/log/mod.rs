//! One partition's log: batches with offsets, and everything Kafka knows about them beside their bytes.
//!
//! Knows nothing of leaders, followers, high watermarks (it is handed one), topics' names or the network, and spawns
//! nothing. Bytes on disk are the storage room's; what side records mean is defined here, in `side`.
//!
//! `partition_log` is the door for changes, `read` the one for reads, `compaction` and `fill` are jobs beside them;
//! the other files are pure parts: `producer_state`, `transactions`, `aborted`, `verification`, `leader_epochs`,
//! `segments`, `timestamps`, `retention`.

pub(crate) mod aborted;
mod ahead;
mod append_error;
mod batches;
pub(crate) mod compaction;
pub(crate) mod config;
mod fill;
mod leader_epochs;
pub(crate) mod partition_log;
pub(crate) mod producer_state;
pub(crate) mod read;
mod recovery;
mod retention;
mod ring;
mod segments;
mod side;
pub(crate) mod tail;
mod timestamps;
mod transactions;
mod verification;

#[cfg(test)]
mod end_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod transaction_tests;
