//! OffsetForLeaderEpoch (23), versions 2–4: where a leader epoch ended, so that a client can tell whether its log
//! parted from ours.
//!
//! Behaviour
//! - Answers the largest epoch that is not above the one asked, with its end offset; −1/−1 when no such epoch is known.
//! - Needs CLUSTER_ACTION on the cluster, which brokers have, or DESCRIBE of each topic: TOPIC_AUTHORIZATION_FAILED
//!   (29).
//! - Leader epochs of the request are checked as in Fetch.
//!
//! Versions: 3 replica id; 4 flexible. Ignored: replica_id. Source: Kafka 3.9 `Partition.lastOffsetForLeaderEpoch`.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderPartition;
use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::authorization::RefusedNames;
use crate::api::shared::leader::leader_of;
use crate::types::LeaderEpoch;
use crate::types::acl::{Operation, ResourceType};

pub(crate) struct OffsetForLeaderEpoch;

impl Handler for OffsetForLeaderEpoch {
    type Req = OffsetForLeaderEpochRequest;
    const VERSIONS: RangeInclusive<i16> = 2..=4;
    const AUTHORIZATION: Authorization = Authorization::Of(&[
        (Operation::ClusterAction, ResourceType::Cluster),
        (Operation::Describe, ResourceType::Topic),
    ]);

    async fn handle(ctx: RequestContext, req: OffsetForLeaderEpochRequest) -> Reply<OffsetForLeaderEpochResponse> {
        let refused = match ctx.may_perhaps_on_cluster(Operation::ClusterAction) {
            true => RefusedNames::default(),
            false => {
                let names = req.topics.iter().map(|topic| topic.topic.as_str());
                ctx.refused(Operation::Describe, ResourceType::Topic, names)
            }
        };
        let topics = req.topics.iter().map(|topic| {
            let is_refused = refused.contains(topic.topic.as_str());
            let partitions = topic.partitions.iter().map(|wanted| match is_refused {
                true => nowhere(wanted).with_error_code(ResponseError::TopicAuthorizationFailed.code()),
                false => answer(&ctx, topic.topic.as_str(), wanted),
            });
            OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(partitions.collect())
        });
        Reply::Now(OffsetForLeaderEpochResponse::default().with_topics(topics.collect()))
    }
}

fn nowhere(wanted: &OffsetForLeaderPartition) -> EpochEndOffset {
    EpochEndOffset::default().with_partition(wanted.partition).with_leader_epoch(-1).with_end_offset(-1)
}

fn answer(ctx: &RequestContext, topic: &str, wanted: &OffsetForLeaderPartition) -> EpochEndOffset {
    let response = nowhere(wanted);
    match leader_of(ctx, topic, wanted.partition, wanted.current_leader_epoch) {
        Err(error) => response.with_error_code(error.code()),
        Ok(replica) => match replica.with_log(|log| log.end_offset_for_epoch(LeaderEpoch(wanted.leader_epoch))) {
            Some((epoch, end)) => response.with_leader_epoch(epoch.0).with_end_offset(end.0),
            None => response,
        },
    }
}
