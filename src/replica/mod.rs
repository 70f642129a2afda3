//! Partitions this broker has a replica of: the registry, roles, appends and their acknowledgement, published views,
//! parked fetches and fetch sessions. Writes no znode and names no wire crate.
//!
//! A partition's state stands behind one short lock and no task owns it: decisions are synchronous, the lock is never
//! held across an await, and what must happen after a write happens where the write was made, in commit order.
//! That saves two task switches per produce request compared with an owner task and keeps the same order of effects.

pub(crate) mod ack;
pub(crate) mod alter_log_dirs;
pub(crate) mod alter_partition;
pub(crate) mod change;
pub(crate) mod control;
#[cfg(test)]
mod control_tests;
pub(crate) mod delete_records;
pub(crate) mod fetcher;
pub(crate) mod figures;
pub(crate) mod flush;
pub(crate) mod follower_fetch;
mod follower_session;
pub(crate) mod followers;
mod found;
pub(crate) mod isr;
pub(crate) mod leader_link;
pub(crate) mod log_dirs;
pub(crate) mod maintenance;
pub(crate) mod manager;
pub(crate) mod marks;
mod moves;
mod news;
pub(crate) mod partition;
pub(crate) mod selector;
pub(crate) mod session_cache;
pub(crate) mod sessions;
pub(crate) mod stray_logs;
pub(crate) mod surroundings;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod throttle;
pub(crate) mod view;
pub(crate) mod wait;

#[cfg(test)]
mod flush_tests;
#[cfg(test)]
mod leading_tests;
#[cfg(test)]
mod move_tests;
#[cfg(test)]
mod refusal_tests;
#[cfg(test)]
mod session_tests;
#[cfg(test)]
mod transaction_tests;
