//! Coordinators as replicated state machines: a shard answers with records and a reply, the records are appended to an
//! internal topic, and replay is the only way state changes (I-17). Touches no storage and names no wire crate.

mod alarm;
mod context;
mod fields;
mod flight;
pub(crate) mod group;
mod loading;
pub(crate) mod markers;
mod owner;
pub(crate) mod peer_links;
mod per_broker;
mod place;
pub(crate) mod replica_writer;
pub(crate) mod routed_markers;
pub(crate) mod routed_verification;
pub(crate) mod runtime;
mod serving;
pub(crate) mod shard;
#[cfg(test)]
mod testing;
pub(crate) mod transaction;
pub(crate) mod writer;

pub(crate) use place::partition_for;
