//! AlterPartitionReassignments (45), versions 0–1: move partitions to other replicas, or take that back.
//!
//! Behaviour
//! - Needs ALTER of the cluster: CLUSTER_AUTHORIZATION_FAILED (31) for the whole answer and each partition.
//! - Only the controller serves it: NOT_CONTROLLER (41) of the whole answer from others.
//! - Replicas that are empty, negative, repeated, or would be added without being live: INVALID_REPLICA_ASSIGNMENT
//!   (39). Unknown partition, or its topic is being deleted: UNKNOWN_TOPIC_OR_PARTITION (3). Null takes a
//!   reassignment back, NO_REASSIGNMENT_IN_PROGRESS (85) if there is none. What the topic's node cannot hold:
//!   UNKNOWN_SERVER_ERROR (−1).
//! - The answer says that the reassignment is on record; ListPartitionReassignments tells how far it is.
//! - Of a partition that is named twice the last entry counts.
//!
//! Versions: 1 may forbid another replication factor, INVALID_REPLICATION_FACTOR (38) then (KIP-860). Ignored:
//! timeout_ms.
//! Source: Kafka 3.9 `KafkaApis.handleAlterPartitionReassignmentsRequest`,
//! `KafkaController.processApiPartitionReassignment`.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, TopicName as WireTopicName,
};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::refusal::{Refusal, controller_outcome, wire_outcome};
use crate::api::shared::strings::text;
use crate::controller::{ReassignmentResults, Wishes};
use crate::types::acl::{Operation, ResourceType};
use crate::types::{BrokerId, TopicPartition};

pub(crate) struct AlterPartitionReassignments;

impl Handler for AlterPartitionReassignments {
    type Req = AlterPartitionReassignmentsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Alter, ResourceType::Cluster)]);

    async fn handle(
        ctx: RequestContext,
        req: AlterPartitionReassignmentsRequest,
    ) -> Reply<AlterPartitionReassignmentsResponse> {
        let factor_may_change = ctx.version == 0 || req.allow_replication_factor_change;
        if !ctx.may_on_cluster(Operation::Alter) {
            return Reply::Now(unauthorized(&req).with_allow_replication_factor_change(factor_may_change));
        }
        let response = match ctx.handles.controller.reassign(wishes(&req), factor_may_change).await {
            Ok(results) => respond(results),
            Err(error) => {
                let (code, message) = controller_outcome(&error);
                AlterPartitionReassignmentsResponse::default().with_error_code(code).with_error_message(message)
            }
        };
        Reply::Now(response.with_allow_replication_factor_change(factor_may_change))
    }
}

/// Source: Kafka 3.9 `AlterPartitionReassignmentsRequest.getErrorResponse`.
fn unauthorized(req: &AlterPartitionReassignmentsRequest) -> AlterPartitionReassignmentsResponse {
    let error = ResponseError::ClusterAuthorizationFailed;
    let message = || Some(text(error.to_string()));
    let partition = |index| {
        let refused = ReassignablePartitionResponse::default().with_partition_index(index);
        refused.with_error_code(error.code()).with_error_message(message())
    };
    let topics = req.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| partition(asked.partition_index)).collect();
        ReassignableTopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    let response = AlterPartitionReassignmentsResponse::default().with_responses(topics.collect());
    response.with_error_code(error.code()).with_error_message(message())
}

fn wishes(req: &AlterPartitionReassignmentsRequest) -> Wishes {
    let mut wishes = Wishes::new();
    for topic in &req.topics {
        for partition in &topic.partitions {
            let name = TopicPartition::new(topic.name.as_str(), partition.partition_index);
            let replicas = partition.replicas.as_ref().map(|ids| ids.iter().map(|id| BrokerId(id.0)).collect());
            wishes.insert(name, replicas);
        }
    }
    wishes
}

fn respond(mut results: ReassignmentResults) -> AlterPartitionReassignmentsResponse {
    results.sort_by(|a, b| a.0.cmp(&b.0));
    let mut topics: Vec<ReassignableTopicResponse> = Vec::new();
    for (TopicPartition { topic, partition }, result) in results {
        let refusal = |refused| Refusal::new(error_code::of_reassignment(&refused), refused.to_string());
        let (code, message) = wire_outcome(result.map_err(refusal));
        let result = ReassignablePartitionResponse::default()
            .with_partition_index(partition.0)
            .with_error_code(code)
            .with_error_message(message);
        match topics.last_mut().filter(|last| last.name.as_str() == topic.as_str()) {
            Some(last) => last.partitions.push(result),
            None => topics.push(
                ReassignableTopicResponse::default()
                    .with_name(WireTopicName(text(topic.as_str())))
                    .with_partitions(vec![result]),
            ),
        }
    }
    AlterPartitionReassignmentsResponse::default().with_responses(topics).with_error_message(None)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::BrokerId as WireBrokerId;
    use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};

    use super::*;
    use crate::controller::ReassignmentRefused;

    #[test]
    fn null_takes_back_and_the_last_of_two_counts() {
        let partition = |index, ids: Option<&[i32]>| {
            let ids = ids.map(|ids| ids.iter().copied().map(WireBrokerId).collect());
            ReassignablePartition::default().with_partition_index(index).with_replicas(ids)
        };
        let partitions = vec![partition(0, Some(&[1])), partition(1, None), partition(0, Some(&[2, 3]))];
        let topic = ReassignableTopic::default().with_name(WireTopicName(text("t"))).with_partitions(partitions);
        let req = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
        let expected =
            [(TopicPartition::new("t", 0), Some(vec![BrokerId(2), BrokerId(3)])), (TopicPartition::new("t", 1), None)];
        assert_eq!(wishes(&req), Wishes::from(expected));
    }

    #[test]
    fn answers_are_grouped_by_topic_and_encode_in_every_version() {
        let response = respond(vec![
            (TopicPartition::new("b", 0), Ok(())),
            (TopicPartition::new("a", 0), Err(ReassignmentRefused::NotInProgress)),
            (TopicPartition::new("b", 1), Err(ReassignmentRefused::FactorChanged { from: 1, to: 2 })),
        ]);
        let codes: Vec<_> = response
            .responses
            .iter()
            .map(|topic| topic.partitions.iter().map(|result| result.error_code).collect::<Vec<_>>())
            .collect();
        assert_eq!(codes, [vec![85], vec![0, 38]]);
        let message = response.responses[1].partitions[1].error_message.as_ref().unwrap();
        assert_eq!(message.as_str(), "The replication factor is changed from 1 to 2");
        let response = response.with_allow_replication_factor_change(true);
        for version in AlterPartitionReassignments::VERSIONS {
            crate::wire::codec::encode_response(&response, version).unwrap();
        }
    }
}
