//! Topics that come, grow and go: one file per API key.

pub(super) mod create_partitions;
pub(super) mod create_topics;
pub(super) mod delete_topics;
