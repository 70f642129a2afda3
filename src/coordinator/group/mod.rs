//! The group coordinator: classic groups and committed offsets, kept on `__consumer_offsets`.
//!
//! `shard` holds the groups of one partition and is pure; `classic` is the protocol; `offsets` what is committed;
//! `records` the bytes.

mod classic;
pub(crate) mod config;
pub(crate) mod error;
mod offsets;
mod records;
pub(crate) mod request;
mod shard;
mod subscription;

#[cfg(test)]
mod transcript;
