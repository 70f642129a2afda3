//! Topics that come, grow, move and go: one file per API key.

pub(super) mod alter_partition_reassignments;
pub(super) mod create_partitions;
pub(super) mod create_topics;
pub(super) mod delete_topics;
pub(super) mod elect_leaders;
pub(super) mod list_partition_reassignments;
