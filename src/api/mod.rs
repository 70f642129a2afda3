//! Everything we answer: one file per API key, one row per key in [`TABLE`], in key order.
//!
//! ApiVersions is generated from the table, so that a version announced is a version honoured (I-22).

pub(crate) mod context;
pub(crate) mod dispatch;
pub(crate) mod error_code;
pub(crate) mod handler;
pub(crate) mod replies;

mod add_offsets_to_txn;
mod add_partitions_to_txn;
mod alter;
mod alter_configs;
mod api_versions;
mod committed;
mod create_partitions;
mod create_topics;
mod delete_groups;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_groups;
mod describe_producers;
mod describe_topic_partitions;
mod describe_transactions;
mod end_txn;
mod fetch;
mod find_coordinator;
mod heartbeat;
mod incremental_alter_configs;
mod init_producer_id;
mod internal_topics;
mod isolation;
mod join_group;
mod leave_group;
mod list_groups;
mod list_offsets;
mod list_transactions;
mod metadata;
mod offset_commit;
mod offset_fetch;
mod offset_for_leader_epoch;
mod produce;
mod refusal;
mod repeated;
mod sasl_authenticate;
mod sasl_handshake;
mod strings;
mod sync_group;
mod txn_offset_commit;
mod verification;
mod write_txn_markers;

use handler::{Row, row};

/// The rows, sorted by key.
pub(crate) static TABLE: &[Row] = &[
    produce::ROW,
    fetch::ROW,
    row::<list_offsets::ListOffsets>(),
    row::<metadata::Metadata>(),
    row::<offset_commit::OffsetCommit>(),
    row::<offset_fetch::OffsetFetch>(),
    row::<find_coordinator::FindCoordinator>(),
    row::<join_group::JoinGroup>(),
    row::<heartbeat::Heartbeat>(),
    row::<leave_group::LeaveGroup>(),
    row::<sync_group::SyncGroup>(),
    row::<describe_groups::DescribeGroups>(),
    row::<list_groups::ListGroups>(),
    row::<sasl_handshake::SaslHandshake>(),
    row::<api_versions::ApiVersions>(),
    row::<create_topics::CreateTopics>(),
    row::<delete_topics::DeleteTopics>(),
    row::<init_producer_id::InitProducerId>(),
    row::<offset_for_leader_epoch::OffsetForLeaderEpoch>(),
    row::<add_partitions_to_txn::AddPartitionsToTxn>(),
    row::<add_offsets_to_txn::AddOffsetsToTxn>(),
    row::<end_txn::EndTxn>(),
    row::<write_txn_markers::WriteTxnMarkers>(),
    row::<txn_offset_commit::TxnOffsetCommit>(),
    row::<describe_configs::DescribeConfigs>(),
    row::<alter_configs::AlterConfigs>(),
    row::<sasl_authenticate::SaslAuthenticate>(),
    row::<create_partitions::CreatePartitions>(),
    row::<delete_groups::DeleteGroups>(),
    row::<incremental_alter_configs::IncrementalAlterConfigs>(),
    row::<describe_cluster::DescribeCluster>(),
    row::<describe_producers::DescribeProducers>(),
    row::<describe_transactions::DescribeTransactions>(),
    row::<list_transactions::ListTransactions>(),
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
