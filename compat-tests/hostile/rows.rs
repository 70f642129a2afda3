//! Every request of a 4.1 broker's table, and the responses that peers send us, as plain functions.

use std::fmt::Debug;
use std::ops::RangeInclusive;

use bytes::Bytes;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Message};
use klamm::probe;

use crate::generator::Invented;

/// One message.
pub(crate) struct Row {
    pub name: &'static str,
    pub versions: RangeInclusive<i16>,
    /// Lets the decoder invent a body.
    pub generate: fn(&mut Invented, i16) -> Result<(), String>,
    /// Decodes behind the guard.
    pub decode: fn(Bytes, i16) -> Result<(), String>,
    /// Whether the guard gives the same message as the bare codec. For good bodies only: the bare codec reserves what
    /// it is told.
    pub agrees: fn(Bytes, i16) -> bool,
}

fn row<M: Message + Decodable + PartialEq + Debug>(name: &'static str) -> Row {
    Row {
        name,
        versions: M::VERSIONS.min..=M::VERSIONS.max,
        generate: |invented, version| M::decode(invented, version).map(drop).map_err(|error| error.to_string()),
        decode: |body, version| probe::decode::<M>(body, version).map(drop),
        agrees: |body, version| match (probe::decode::<M>(body.clone(), version), M::decode(&mut body.clone(), version))
        {
            (Ok(guarded), Ok(bare)) => guarded == bare,
            _ => false,
        },
    }
}

macro_rules! rows {
    ($($message:ident)*) => {
        pub(crate) fn all() -> Vec<Row> {
            vec![$(row::<$message>(stringify!($message))),*]
        }
    };
}

rows! {
    ProduceRequest FetchRequest ListOffsetsRequest MetadataRequest OffsetCommitRequest OffsetFetchRequest
    FindCoordinatorRequest JoinGroupRequest HeartbeatRequest LeaveGroupRequest SyncGroupRequest DescribeGroupsRequest
    ListGroupsRequest SaslHandshakeRequest ApiVersionsRequest CreateTopicsRequest DeleteTopicsRequest
    DeleteRecordsRequest InitProducerIdRequest OffsetForLeaderEpochRequest AddPartitionsToTxnRequest
    AddOffsetsToTxnRequest EndTxnRequest WriteTxnMarkersRequest TxnOffsetCommitRequest DescribeAclsRequest
    CreateAclsRequest DeleteAclsRequest DescribeConfigsRequest AlterConfigsRequest AlterReplicaLogDirsRequest
    DescribeLogDirsRequest SaslAuthenticateRequest CreatePartitionsRequest CreateDelegationTokenRequest
    RenewDelegationTokenRequest ExpireDelegationTokenRequest DescribeDelegationTokenRequest DeleteGroupsRequest
    ElectLeadersRequest IncrementalAlterConfigsRequest AlterPartitionReassignmentsRequest
    ListPartitionReassignmentsRequest OffsetDeleteRequest DescribeClientQuotasRequest AlterClientQuotasRequest
    DescribeUserScramCredentialsRequest AlterUserScramCredentialsRequest DescribeQuorumRequest AlterPartitionRequest
    UpdateFeaturesRequest DescribeClusterRequest DescribeProducersRequest UnregisterBrokerRequest
    DescribeTransactionsRequest ListTransactionsRequest AllocateProducerIdsRequest ConsumerGroupHeartbeatRequest
    ConsumerGroupDescribeRequest GetTelemetrySubscriptionsRequest PushTelemetryRequest ListConfigResourcesRequest
    DescribeTopicPartitionsRequest ShareGroupHeartbeatRequest ShareGroupDescribeRequest ShareFetchRequest
    ShareAcknowledgeRequest AddRaftVoterRequest RemoveRaftVoterRequest InitializeShareGroupStateRequest
    ReadShareGroupStateRequest WriteShareGroupStateRequest DeleteShareGroupStateRequest
    ReadShareGroupStateSummaryRequest DescribeShareGroupOffsetsRequest AlterShareGroupOffsetsRequest
    DeleteShareGroupOffsetsRequest
    FetchResponse OffsetForLeaderEpochResponse AlterPartitionResponse AllocateProducerIdsResponse
    WriteTxnMarkersResponse AddPartitionsToTxnResponse ApiVersionsResponse ListOffsetsResponse
}
