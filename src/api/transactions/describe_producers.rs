//! DescribeProducers (61), version 0: what replicas know of their producers, for tools that look for
//! transactions that hang.
//!
//! Behaviour
//! - Every producer that is remembered, whether idempotent or transactional, by id; −1 stands for what is not known: a
//!   last sequence, a coordinator epoch, the first offset of an open transaction.
//! - Needs READ of each topic: TOPIC_AUTHORIZATION_FAILED (29).
//! - Leaders and followers answer. A partition that does not exist: UNKNOWN_TOPIC_OR_PARTITION (3); one without a
//!   replica here: NOT_LEADER_OR_FOLLOWER (6); a name that cannot be a topic's: INVALID_TOPIC_EXCEPTION (17). Errors
//!   have no message.
//! - The last timestamp is the broker's time of the last append; Kafka's is the largest that the records claim.
//!
//! Version 0 is flexible. Source: Kafka 3.9 `KafkaApis.handleDescribeProducersRequest`,
//! `ReplicaManager.activeProducerState`.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId as WireProducerId};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::leader::{ANY_EPOCH, replica_of};
use crate::log::state::producer_state::ActiveProducer;
use crate::types::acl::{Operation, ResourceType};
use crate::types::{Offset, TopicName};

pub(crate) struct DescribeProducers;

impl Handler for DescribeProducers {
    type Req = DescribeProducersRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Read, ResourceType::Topic)]);

    async fn handle(ctx: RequestContext, req: DescribeProducersRequest) -> Reply<DescribeProducersResponse> {
        let topics = req.topics.iter().map(|topic| {
            let may_read = may_read(&ctx, topic.name.as_str());
            let partitions = topic.partition_indexes.iter().map(|&index| {
                let response = PartitionResponse::default().with_partition_index(index);
                let found = may_read.and_then(|()| producers(&ctx, topic.name.as_str(), index));
                match found {
                    Ok(producers) => response.with_active_producers(producers.into_iter().map(state).collect()),
                    Err(error) => response.with_error_code(error.code()),
                }
            });
            TopicResponse::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
        });
        Reply::Now(DescribeProducersResponse::default().with_topics(topics.collect()))
    }
}

fn may_read(ctx: &RequestContext, topic: &str) -> Result<(), ResponseError> {
    TopicName::check(topic).map_err(|_| ResponseError::InvalidTopicException)?;
    match ctx.may(Operation::Read, ResourceType::Topic, topic) {
        true => Ok(()),
        false => Err(ResponseError::TopicAuthorizationFailed),
    }
}

fn producers(ctx: &RequestContext, topic: &str, partition: i32) -> Result<Vec<ActiveProducer>, ResponseError> {
    let replica = replica_of(ctx, topic, partition, ANY_EPOCH)?;
    let mut producers: Vec<_> = replica.with_log(|log| log.active_producers().collect());
    producers.sort_unstable_by_key(|producer| producer.id.0);
    Ok(producers)
}

fn state(producer: ActiveProducer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(WireProducerId(producer.id.0))
        .with_producer_epoch(i32::from(producer.epoch.0))
        .with_last_sequence(producer.last_sequence)
        .with_last_timestamp(producer.last_seen_ms)
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(producer.open_transaction.unwrap_or(Offset::NONE).0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ProducerEpoch, ProducerId};

    #[test]
    fn what_is_not_known_is_minus_one() {
        let mut producer = ActiveProducer {
            id: ProducerId(7),
            epoch: ProducerEpoch(3),
            last_sequence: -1,
            last_seen_ms: 55,
            coordinator_epoch: -1,
            open_transaction: None,
        };
        let told = state(producer);
        assert_eq!((told.producer_id.0, told.producer_epoch, told.last_timestamp), (7, 3, 55));
        assert_eq!((told.last_sequence, told.coordinator_epoch, told.current_txn_start_offset), (-1, -1, -1));
        producer.open_transaction = Some(Offset(0));
        assert_eq!(state(producer).current_txn_start_offset, 0);
    }
}
