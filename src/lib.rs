//! klamm: a broker that speaks the Kafka wire protocol and keeps its records in RocksDB.
//!
//! The rooms below stand in reading order, which is the layer order: a room may import from rooms above it in this
//! list as `src/ARCHITECTURE.md` states, never from one below. `tidy` holds that rule as a test.

pub mod clock;
pub mod config;
pub(crate) mod metrics;
pub(crate) mod task;
pub mod types;

pub(crate) mod coordination;
pub(crate) mod record;
pub(crate) mod storage;
pub(crate) mod wire;

pub(crate) mod cluster;
pub(crate) mod log;
pub(crate) mod security;
pub(crate) mod transport;

pub(crate) mod replica;

pub(crate) mod controller;
pub(crate) mod coordinator;

pub(crate) mod api;

pub(crate) mod net;
pub(crate) mod peer;

pub mod broker;
pub mod observe;

/// Decoders for the hostile-input suite, which is a crate of its own because it counts allocations.
#[doc(hidden)]
pub mod probe {
    pub use crate::record::probe::*;
    pub use crate::wire::probe::*;
}

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tidy;
