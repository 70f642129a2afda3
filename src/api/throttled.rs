//! Answers that tell how long their connection is not read, and those that have no place for it.

/// A response that may say so.
pub(crate) trait Throttled {
    /// Milliseconds; `None`: it has no place for it. Versions without one leave it out.
    fn throttle_time_ms(&mut self) -> Option<&mut i32>;
}

macro_rules! told {
    ($($response:ident),* $(,)?) => {
        $(impl Throttled for kafka_protocol::messages::$response {
            fn throttle_time_ms(&mut self) -> Option<&mut i32> {
                Some(&mut self.throttle_time_ms)
            }
        })*
    };
}

macro_rules! untold {
    ($($response:ident),* $(,)?) => {
        $(impl Throttled for kafka_protocol::messages::$response {
            fn throttle_time_ms(&mut self) -> Option<&mut i32> {
                None
            }
        })*
    };
}

told! {
    AddOffsetsToTxnResponse, AddPartitionsToTxnResponse, AllocateProducerIdsResponse, AlterClientQuotasResponse,
    AlterConfigsResponse, AlterPartitionReassignmentsResponse, AlterPartitionResponse,
    AlterReplicaLogDirsResponse, AlterUserScramCredentialsResponse, ApiVersionsResponse,
    ConsumerGroupDescribeResponse, ConsumerGroupHeartbeatResponse, CreateAclsResponse, CreateDelegationTokenResponse,
    CreatePartitionsResponse, CreateTopicsResponse, DeleteAclsResponse, DeleteGroupsResponse, DeleteRecordsResponse,
    DeleteTopicsResponse, DescribeAclsResponse, DescribeClientQuotasResponse, DescribeClusterResponse,
    DescribeConfigsResponse, DescribeDelegationTokenResponse, DescribeGroupsResponse, DescribeLogDirsResponse,
    DescribeProducersResponse, DescribeTopicPartitionsResponse, DescribeTransactionsResponse,
    DescribeUserScramCredentialsResponse, ElectLeadersResponse, EndTxnResponse, ExpireDelegationTokenResponse,
    FindCoordinatorResponse, HeartbeatResponse, IncrementalAlterConfigsResponse, InitProducerIdResponse,
    JoinGroupResponse, LeaveGroupResponse, ListConfigResourcesResponse, ListGroupsResponse, ListOffsetsResponse,
    ListPartitionReassignmentsResponse, ListTransactionsResponse, MetadataResponse, OffsetCommitResponse,
    OffsetDeleteResponse, OffsetFetchResponse, OffsetForLeaderEpochResponse, RenewDelegationTokenResponse,
    SyncGroupResponse, TxnOffsetCommitResponse, UpdateFeaturesResponse,
}

untold! { SaslAuthenticateResponse, SaslHandshakeResponse, WriteTxnMarkersResponse }
