//! The group coordinator: classic groups and committed offsets, kept on `__consumer_offsets`.
//!
//! `coordinator` is the handle that others hold. `shard` keeps the groups of one partition and is pure; `classic` is
//! the protocol; `offsets` what is committed; `pending` what transactions will commit; `records` the bytes.

mod classic;
pub(crate) mod config;
mod coordinator;
pub(crate) mod error;
mod offsets;
mod pending;
mod records;
pub(crate) mod request;
mod shard;
mod subscription;

pub(crate) use coordinator::GroupCoordinator;

#[cfg(test)]
mod coordinator_tests;
#[cfg(test)]
mod full_disk_tests;
#[cfg(test)]
mod standstill_tests;
#[cfg(test)]
mod transaction_tests;
#[cfg(test)]
mod transcript_tests;
