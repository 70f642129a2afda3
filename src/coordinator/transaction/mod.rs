//! The transaction coordinator: transactional ids, their producers and transactions, kept on `__transaction_state`.
//!
//! `coordinator` is the handle that others hold. `shard` keeps the transactional ids of one partition and is pure;
//! `state` is what may happen to one of them; `records` the bytes; `marking` the task that ends transactions in the
//! partitions that took part. Transactions v1 only, as Kafka 3.9 without `transaction.version` 2.

pub(crate) mod config;
mod coordinator;
pub(crate) mod error;
mod marking;
mod records;
pub(crate) mod request;
mod shard;
mod state;

pub(crate) use coordinator::TransactionCoordinator;
pub(crate) use state::state_names;

#[cfg(test)]
mod cluster_tests;
#[cfg(test)]
mod coordinator_tests;
#[cfg(test)]
mod shard_tests;
