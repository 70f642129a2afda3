//! Reading and writing records: one file per API key.

pub(super) mod delete_records;
pub(super) mod fetch;
mod fetched;
pub(super) mod list_offsets;
pub(super) mod offset_for_leader_epoch;
pub(super) mod produce;
mod replica_fetch;
