//! Everything we answer: one file per API key, one row per key in [`TABLE`], in key order.
//!
//! ApiVersions is generated from the table, so that a version announced is a version honoured (I-22).

pub(crate) mod context;
pub(crate) mod dispatch;
pub(crate) mod error_code;
pub(crate) mod handler;

mod api_versions;
mod describe_cluster;
mod describe_topic_partitions;
mod fetch;
mod find_coordinator;
mod list_offsets;
mod metadata;
mod offset_for_leader_epoch;
mod produce;

use handler::{Row, row};

/// The rows, sorted by key.
pub(crate) static TABLE: &[Row] = &[
    produce::ROW,
    fetch::ROW,
    row::<list_offsets::ListOffsets>(),
    row::<metadata::Metadata>(),
    row::<find_coordinator::FindCoordinator>(),
    row::<api_versions::ApiVersions>(),
    row::<offset_for_leader_epoch::OffsetForLeaderEpoch>(),
    row::<describe_cluster::DescribeCluster>(),
    row::<describe_topic_partitions::DescribeTopicPartitions>(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_by_key_and_each_key_has_one() {
        assert!(TABLE.is_sorted_by(|a, b| a.key < b.key));
    }
}
