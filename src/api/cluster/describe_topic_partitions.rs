//! DescribeTopicPartitions (75), version 0: topics and partitions in pages (KIP-966), from the image.
//!
//! Behaviour
//! - Topics come sorted by name; no topics named means all of them. A cursor continues at a topic and partition.
//! - A page holds at most `response_partition_limit` partitions, and never more than 2,000
//!   (`max.request.partition.size.limit`); the next cursor says where to go on.
//! - Needs DESCRIBE of each topic: TOPIC_AUTHORIZATION_FAILED (29), or left out where all are asked for.
//! - A named topic that does not exist: UNKNOWN_TOPIC_OR_PARTITION (3); an illegal name: INVALID_TOPIC_EXCEPTION (17).
//! - A cursor at a topic that is not among those named, or at a negative partition: INVALID_REQUEST (42) for each topic
//!   named.
//! - Eligible leader replicas are a KRaft matter: empty, since Java's admin client takes no null.
//!
//! Versions: 0 flexible. Source: Kafka 4.1 `DescribeTopicPartitionsRequestHandler`,
//! `KRaftMetadataCache.describeTopicResponse`.

use std::ops::RangeInclusive;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId as WireBrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    TopicName as WireTopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};
use crate::cluster::control::PartitionState;
use crate::cluster::image::{ClusterImage, TopicImage};
use crate::types::acl::{Operation, ResourceType};
use crate::types::{BrokerId, PartitionIndex, TopicName};

pub(crate) struct DescribeTopicPartitions;

impl Handler for DescribeTopicPartitions {
    type Req = DescribeTopicPartitionsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Describe, ResourceType::Topic)]);

    async fn handle(
        ctx: RequestContext,
        req: DescribeTopicPartitionsRequest,
    ) -> Reply<DescribeTopicPartitionsResponse> {
        if !cursor_is_legal(&req) {
            return Reply::Now(refuse(&req));
        }
        let image = ctx.image();
        let limit_max = ctx.handles.config.current().max_request_partition_size_limit.max(1);
        let limit = req.response_partition_limit.clamp(1, limit_max) as usize;
        Reply::Now(page(&ctx, &image, &req, limit))
    }
}

fn cursor_is_legal(req: &DescribeTopicPartitionsRequest) -> bool {
    let Some(cursor) = &req.cursor else { return true };
    let named = req.topics.is_empty() || req.topics.iter().any(|topic| topic.name == cursor.topic_name);
    named && cursor.partition_index >= 0
}

fn refuse(req: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let refused = |name: &WireTopicName| {
        DescribeTopicPartitionsResponseTopic::default()
            .with_error_code(ResponseError::InvalidRequest.code())
            .with_name(Some(name.clone()))
    };
    let topics = req.topics.iter().map(|topic| refused(&topic.name));
    DescribeTopicPartitionsResponse::default().with_topics(topics.collect())
}

fn page(
    ctx: &RequestContext,
    image: &ClusterImage,
    req: &DescribeTopicPartitionsRequest,
    limit: usize,
) -> DescribeTopicPartitionsResponse {
    let mut names: Vec<TopicName> = if req.topics.is_empty() {
        image.topics().map(|topic| topic.name.clone()).collect()
    } else {
        req.topics.iter().map(|topic| TopicName::new(topic.name.as_str())).collect()
    };
    names.sort();
    names.dedup();
    let from = req.cursor.as_ref().map(|cursor| (TopicName::new(cursor.topic_name.as_str()), cursor.partition_index));
    if let Some((first, _)) = &from {
        names.retain(|name| name >= first);
    }
    let mut left = limit;
    let mut topics = Vec::new();
    for name in names {
        // Asked one by one, since most names may lie beyond the page.
        if !ctx.may(Operation::Describe, ResourceType::Topic, name.as_str()) {
            if !req.topics.is_empty() {
                topics.push(refused(&name, ResponseError::TopicAuthorizationFailed).with_is_internal(false));
            }
            continue;
        }
        if left == 0 {
            let next = Cursor::default().with_topic_name(wire_name(&name)).with_partition_index(0);
            return DescribeTopicPartitionsResponse::default().with_topics(topics).with_next_cursor(Some(next));
        }
        let Some(topic) = image.topic(name.as_str()) else {
            let operations = ctx.operations(ResourceType::Topic, name.as_str());
            topics.push(unknown(&name).with_topic_authorized_operations(operations));
            continue;
        };
        let first = from.as_ref().filter(|(cursor, _)| *cursor == name).map_or(0, |(_, partition)| *partition);
        let (described, next) = describe(image, topic, PartitionIndex(first), left);
        left -= described.partitions.len();
        let operations = ctx.operations(ResourceType::Topic, name.as_str());
        topics.push(described.with_topic_authorized_operations(operations));
        if let Some(next) = next {
            let next = Cursor::default().with_topic_name(wire_name(&name)).with_partition_index(next.0);
            return DescribeTopicPartitionsResponse::default().with_topics(topics).with_next_cursor(Some(next));
        }
    }
    DescribeTopicPartitionsResponse::default().with_topics(topics)
}

fn wire_name(name: &TopicName) -> WireTopicName {
    WireTopicName(StrBytes::from_string(name.to_string()))
}

fn unknown(name: &TopicName) -> DescribeTopicPartitionsResponseTopic {
    let error = match TopicName::check(name.as_str()) {
        Ok(()) => ResponseError::UnknownTopicOrPartition,
        Err(_) => ResponseError::InvalidTopicException,
    };
    refused(name, error)
}

fn refused(name: &TopicName, error: ResponseError) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(wire_name(name)))
        .with_is_internal(name.is_internal())
}

/// Partitions from `first` on, at most `limit` of them, and the first that did not fit.
fn describe(
    image: &ClusterImage,
    topic: &Arc<TopicImage>,
    first: PartitionIndex,
    limit: usize,
) -> (DescribeTopicPartitionsResponseTopic, Option<PartitionIndex>) {
    let mut states = topic.partitions.range(first..);
    let partitions: Vec<_> = states.by_ref().take(limit).map(|(_, state)| partition(image, state)).collect();
    let next = states.next().map(|(index, _)| *index);
    let described = DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(wire_name(&topic.name)))
        .with_topic_id(topic.id.0)
        .with_is_internal(topic.name.is_internal())
        .with_partitions(partitions);
    (described, next)
}

fn partition(image: &ClusterImage, state: &PartitionState) -> DescribeTopicPartitionsResponsePartition {
    let ids = |ids: &[BrokerId]| ids.iter().map(|id| WireBrokerId(id.0)).collect();
    let offline: Vec<BrokerId> = state.replicas.iter().filter(|id| !image.brokers.contains_key(id)).copied().collect();
    let error = if state.leader.is_some() { 0 } else { ResponseError::LeaderNotAvailable.code() };
    DescribeTopicPartitionsResponsePartition::default()
        .with_error_code(error)
        .with_partition_index(state.partition.0)
        .with_leader_id(WireBrokerId(state.leader.unwrap_or(BrokerId::NONE).0))
        .with_leader_epoch(state.leader_epoch.0)
        .with_replica_nodes(ids(&state.replicas))
        .with_isr_nodes(ids(&state.isr))
        .with_eligible_leader_replicas(Some(Vec::new()))
        .with_last_known_elr(Some(Vec::new()))
        .with_offline_replicas(ids(&offline))
}
