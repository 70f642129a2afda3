//! ListPartitionReassignments (46), version 0: which partitions are moving to other replicas.
//!
//! Behaviour
//! - Needs DESCRIBE of the cluster: CLUSTER_AUTHORIZATION_FAILED (31).
//! - Only the controller serves it: NOT_CONTROLLER (41) of the whole answer from others.
//! - Null means every partition. Partitions that are not moving, or do not exist, are not in the answer.
//! - `replicas` holds the target, then what is left of the origin.
//!
//! Versions: 0 flexible. Ignored: timeout_ms.
//! Source: Kafka 3.9 `KafkaApis.handleListPartitionReassignmentsRequest`.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use kafka_protocol::messages::{
    BrokerId as WireBrokerId, ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
    TopicName as WireTopicName,
};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::refusal::controller_outcome;
use crate::api::shared::strings::text;
use crate::controller::Moving;
use crate::types::acl::{Operation, ResourceType};
use crate::types::{BrokerId, TopicPartition};

pub(crate) struct ListPartitionReassignments;

impl Handler for ListPartitionReassignments {
    type Req = ListPartitionReassignmentsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Describe, ResourceType::Cluster)]);

    async fn handle(
        ctx: RequestContext,
        req: ListPartitionReassignmentsRequest,
    ) -> Reply<ListPartitionReassignmentsResponse> {
        if !ctx.may_on_cluster(Operation::Describe) {
            return Reply::Now(unauthorized(&req));
        }
        let partitions = req.topics.as_ref().map(|topics| {
            let names = topics.iter().flat_map(|topic| {
                topic.partition_indexes.iter().map(|index| TopicPartition::new(topic.name.as_str(), *index))
            });
            names.collect::<BTreeSet<_>>()
        });
        Reply::Now(match ctx.handles.controller.reassignments(partitions).await {
            Ok(moving) => respond(moving),
            Err(error) => {
                let (code, message) = controller_outcome(&error);
                ListPartitionReassignmentsResponse::default().with_error_code(code).with_error_message(message)
            }
        })
    }
}

/// Source: Kafka 3.9 `ListPartitionReassignmentsRequest.getErrorResponse`.
fn unauthorized(req: &ListPartitionReassignmentsRequest) -> ListPartitionReassignmentsResponse {
    let error = ResponseError::ClusterAuthorizationFailed;
    let topics = req.topics.iter().flatten().map(|topic| {
        let partition = |index: &i32| OngoingPartitionReassignment::default().with_partition_index(*index);
        let partitions = topic.partition_indexes.iter().map(partition).collect();
        OngoingTopicReassignment::default().with_name(topic.name.clone()).with_partitions(partitions)
    });
    let response = ListPartitionReassignmentsResponse::default().with_topics(topics.collect());
    response.with_error_code(error.code()).with_error_message(Some(text(error.to_string())))
}

fn respond(moving: Vec<Moving>) -> ListPartitionReassignmentsResponse {
    let ids = |ids: Vec<BrokerId>| ids.into_iter().map(|id| WireBrokerId(id.0)).collect();
    let mut topics: Vec<OngoingTopicReassignment> = Vec::new();
    for Moving { partition: TopicPartition { topic, partition }, replicas, adding, removing } in moving {
        let ongoing = OngoingPartitionReassignment::default()
            .with_partition_index(partition.0)
            .with_replicas(ids(replicas))
            .with_adding_replicas(ids(adding))
            .with_removing_replicas(ids(removing));
        match topics.last_mut().filter(|last| last.name.as_str() == topic.as_str()) {
            Some(last) => last.partitions.push(ongoing),
            None => topics.push(
                OngoingTopicReassignment::default()
                    .with_name(WireTopicName(text(topic.as_str())))
                    .with_partitions(vec![ongoing]),
            ),
        }
    }
    ListPartitionReassignmentsResponse::default().with_topics(topics).with_error_message(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_is_grouped_by_topic() {
        let moving = |topic: &str, partition| Moving {
            partition: TopicPartition::new(topic, partition),
            replicas: [3, 1].map(BrokerId).to_vec(),
            adding: vec![BrokerId(3)],
            removing: vec![BrokerId(1)],
        };
        let response = respond(vec![moving("a", 0), moving("a", 4), moving("b", 0)]);
        let counts: Vec<_> = response.topics.iter().map(|topic| topic.partitions.len()).collect();
        assert_eq!(counts, [2, 1]);
        assert_eq!(response.topics[0].partitions[1].adding_replicas, [WireBrokerId(3)]);
        crate::wire::codec::encode_response(&response, 0).unwrap();
    }
}
