//! Everything we answer: one file per API key, by area, and one row per key in [`TABLE`], in key order. What several
//! handlers need is in `shared`.
//!
//! ApiVersions is generated from the table, so that a version announced is a version honoured (I-22). What brokers ask
//! of each other is announced and answered where brokers speak, alone.

pub(crate) mod authorization;
pub(crate) mod context;
pub(crate) mod dispatch;
pub(crate) mod error_code;
pub(crate) mod gate;
pub(crate) mod handler;
mod handling;
pub(crate) mod replies;

mod brokers;
mod cluster;
mod groups;
mod records;
pub(crate) mod security;
mod shared;
mod throttled;
mod topics;
mod transactions;

use handler::{Row, row};
use kafka_protocol::messages::ApiKey;

use crate::metrics::Api;

/// The rows, sorted by key.
pub(crate) static TABLE: &[Row] = &[
    records::produce::ROW,
    records::fetch::ROW,
    row::<records::list_offsets::ListOffsets>(),
    row::<cluster::metadata::Metadata>(),
    brokers::row::<brokers::leader_and_isr::LeaderAndIsr>(),
    brokers::row::<brokers::stop_replica::StopReplica>(),
    brokers::row::<brokers::update_metadata::UpdateMetadata>(),
    brokers::row::<brokers::controlled_shutdown::ControlledShutdown>(),
    row::<groups::offset_commit::OffsetCommit>(),
    row::<groups::offset_fetch::OffsetFetch>(),
    row::<groups::find_coordinator::FindCoordinator>(),
    row::<groups::join_group::JoinGroup>(),
    row::<groups::heartbeat::Heartbeat>(),
    row::<groups::leave_group::LeaveGroup>(),
    row::<groups::sync_group::SyncGroup>(),
    row::<groups::describe_groups::DescribeGroups>(),
    row::<groups::list_groups::ListGroups>(),
    row::<security::sasl_handshake::SaslHandshake>(),
    row::<cluster::api_versions::ApiVersions>(),
    row::<topics::create_topics::CreateTopics>(),
    row::<topics::delete_topics::DeleteTopics>(),
    row::<records::delete_records::DeleteRecords>(),
    row::<transactions::init_producer_id::InitProducerId>(),
    row::<records::offset_for_leader_epoch::OffsetForLeaderEpoch>(),
    row::<transactions::add_partitions_to_txn::AddPartitionsToTxn>(),
    row::<transactions::add_offsets_to_txn::AddOffsetsToTxn>(),
    row::<transactions::end_txn::EndTxn>(),
    row::<transactions::write_txn_markers::WriteTxnMarkers>(),
    row::<transactions::txn_offset_commit::TxnOffsetCommit>(),
    row::<security::describe_acls::DescribeAcls>(),
    row::<security::create_acls::CreateAcls>(),
    row::<security::delete_acls::DeleteAcls>(),
    row::<cluster::describe_configs::DescribeConfigs>(),
    row::<cluster::alter_configs::AlterConfigs>(),
    row::<cluster::alter_replica_log_dirs::AlterReplicaLogDirs>(),
    row::<cluster::describe_log_dirs::DescribeLogDirs>(),
    row::<security::sasl_authenticate::SaslAuthenticate>(),
    row::<topics::create_partitions::CreatePartitions>(),
    row::<security::delegation_tokens::CreateDelegationToken>(),
    row::<security::delegation_tokens::RenewDelegationToken>(),
    row::<security::delegation_tokens::ExpireDelegationToken>(),
    row::<security::delegation_tokens::DescribeDelegationToken>(),
    row::<groups::delete_groups::DeleteGroups>(),
    row::<topics::elect_leaders::ElectLeaders>(),
    row::<cluster::incremental_alter_configs::IncrementalAlterConfigs>(),
    row::<topics::alter_partition_reassignments::AlterPartitionReassignments>(),
    row::<topics::list_partition_reassignments::ListPartitionReassignments>(),
    row::<groups::offset_delete::OffsetDelete>(),
    row::<cluster::describe_client_quotas::DescribeClientQuotas>(),
    row::<cluster::alter_client_quotas::AlterClientQuotas>(),
    row::<security::describe_user_scram_credentials::DescribeUserScramCredentials>(),
    row::<security::alter_user_scram_credentials::AlterUserScramCredentials>(),
    row::<brokers::alter_partition::AlterPartition>(),
    row::<cluster::update_features::UpdateFeatures>(),
    row::<cluster::describe_cluster::DescribeCluster>(),
    row::<transactions::describe_producers::DescribeProducers>(),
    row::<transactions::describe_transactions::DescribeTransactions>(),
    row::<transactions::list_transactions::ListTransactions>(),
    row::<brokers::allocate_producer_ids::AllocateProducerIds>(),
    row::<groups::consumer_group_heartbeat::ConsumerGroupHeartbeat>(),
    row::<groups::consumer_group_describe::ConsumerGroupDescribe>(),
    row::<cluster::list_config_resources::ListConfigResources>(),
    row::<cluster::describe_topic_partitions::DescribeTopicPartitions>(),
];

/// Every API key under Kafka's name, for those who count requests.
pub(crate) fn counted() -> impl Iterator<Item = Api> {
    TABLE.iter().map(|row| Api {
        key: row.key,
        name: ApiKey::try_from(row.key).map_or_else(|()| row.key.to_string(), |key| format!("{key:?}")),
        min_version: row.min_version,
        max_version: row.max_version,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_by_key_and_each_key_has_one() {
        assert!(TABLE.is_sorted_by(|a, b| a.key < b.key));
    }

    /// The statements as one text, so that a change of one is seen. Source: Kafka 3.9 `KafkaApis`.
    #[test]
    fn every_key_states_what_it_needs() {
        use crate::api::authorization::Authorization;

        let row = |row: &Row| match row.authorization {
            Authorization::Of(stated) => {
                let stated: Vec<String> = stated.iter().map(|(operation, of)| format!("{operation} {of}")).collect();
                format!("{} {}", row.key, stated.join(", "))
            }
            Authorization::Nothing(why) => format!("{} nothing: {why}", row.key),
        };
        let found: Vec<String> = TABLE.iter().map(row).collect();
        assert_eq!(found.join("\n"), include_str!("testdata/authorization.txt").trim_end());
    }

    /// CVE-2026-111073 (PushTelemetry), CVE-2026-83525 (FetchSnapshot), and Envelope, which speaks for others. Whoever
    /// adds one of them has a test for it.
    #[test]
    fn keys_that_have_hurt_kafka_and_are_not_needed_are_not_served() {
        const ENVELOPE: i16 = 58;
        const FETCH_SNAPSHOT: i16 = 59;
        const GET_TELEMETRY_SUBSCRIPTIONS: i16 = 71;
        const PUSH_TELEMETRY: i16 = 72;
        for key in [ENVELOPE, FETCH_SNAPSHOT, GET_TELEMETRY_SUBSCRIPTIONS, PUSH_TELEMETRY] {
            assert!(TABLE.iter().all(|row| row.key != key), "{key}");
        }
    }

    #[test]
    fn keys_are_counted_under_kafkas_names() {
        let names: Vec<String> = counted().map(|api| api.name).collect();
        for name in ["Produce", "Fetch", "ListOffsets", "Metadata", "OffsetForLeaderEpoch", "SaslHandshake"] {
            assert!(names.iter().any(|known| known == name), "{name} in {names:?}");
        }
    }
}
