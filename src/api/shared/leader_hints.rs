//! Leader hints (KIP-951): a client that asked the wrong broker learns the leader from the answer, and where it
//! listens, instead of asking for metadata.
//!
//! The leader is told as the replica here knows it, or where there is none as the image does; whether it is news to the
//! client is not looked at. Source: Kafka 3.9 `KafkaApis.getCurrentLeader`, `handleProduceRequest`,
//! `handleFetchRequest`.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::ProduceResponse;
use kafka_protocol::messages::produce_response::{LeaderIdAndEpoch, NodeEndpoint as ProduceEndpoint};
use kafka_protocol::protocol::StrBytes;

use crate::api::cluster::metadata::endpoint;
use crate::api::context::RequestContext;
use crate::types::{BrokerId, LeaderEpoch, PartitionIndex, TopicId};
use crate::wire::fetch::{FetchResponse, FetchedTopicRef, NodeEndpoint};

const PRODUCE_VERSION: i16 = 10;
const FETCH_VERSION: i16 = 16;

/// Names the leaders of partitions that are refused because another broker leads them.
pub(in crate::api) fn of_produce(ctx: &RequestContext, response: &mut ProduceResponse) {
    if ctx.version < PRODUCE_VERSION {
        return;
    }
    let mut leaders = Leaders::default();
    for topic in &mut response.responses {
        let refused = topic.partition_responses.iter_mut();
        for partition in refused.filter(|partition| partition.error_code == ResponseError::NotLeaderOrFollower.code()) {
            let index = PartitionIndex(partition.index);
            let found = match topic.topic_id.is_nil() {
                true => leaders.of(ctx, topic.name.as_str(), index),
                false => leaders.of_id(ctx, TopicId(topic.topic_id), index),
            };
            if let Some((id, epoch)) = found {
                partition.current_leader =
                    LeaderIdAndEpoch::default().with_leader_id(id.0.into()).with_leader_epoch(epoch.0);
            }
        }
    }
    let endpoint = |node: NodeEndpoint| {
        ProduceEndpoint::default()
            .with_node_id(node.node_id.0.into())
            .with_host(StrBytes::from_string(node.host))
            .with_port(node.port)
            .with_rack(node.rack.map(StrBytes::from_string))
    };
    response.node_endpoints = leaders.0.into_values().map(endpoint).collect();
}

/// The same for a fetch, of a consumer or a follower; also where its leader epoch has passed.
pub(in crate::api) fn of_fetch(ctx: &RequestContext, response: &mut FetchResponse) {
    if ctx.version < FETCH_VERSION {
        return;
    }
    let told = [ResponseError::NotLeaderOrFollower, ResponseError::FencedLeaderEpoch].map(|error| error.code());
    let mut leaders = Leaders::default();
    for topic in &mut response.topics {
        let refused = topic.partitions.iter_mut().filter(|partition| told.contains(&partition.error_code));
        for partition in refused {
            partition.current_leader = match &topic.topic {
                FetchedTopicRef::Name(name) => leaders.of(ctx, name.as_str(), partition.index),
                FetchedTopicRef::Id(id) => leaders.of_id(ctx, *id, partition.index),
            };
        }
    }
    response.node_endpoints = leaders.0.into_values().collect();
}

/// Where the leaders listen that one answer names, for clients of the listener that was asked.
#[derive(Debug, Default)]
struct Leaders(BTreeMap<BrokerId, NodeEndpoint>);

impl Leaders {
    fn of_id(
        &mut self,
        ctx: &RequestContext,
        id: TopicId,
        partition: PartitionIndex,
    ) -> Option<(BrokerId, LeaderEpoch)> {
        let name = ctx.image().topic_by_id(id)?.name.clone();
        self.of(ctx, name.as_str(), partition)
    }

    /// `None`: nobody knows the partition. The leader is [`BrokerId::NONE`] while there is none.
    fn of(&mut self, ctx: &RequestContext, topic: &str, partition: PartitionIndex) -> Option<(BrokerId, LeaderEpoch)> {
        let image = ctx.image();
        let (leader, epoch) = match ctx.handles.replicas.get(topic, partition) {
            Some(replica) => {
                let role = replica.role();
                (role.leader, role.leader_epoch)
            }
            None => image.partition(topic, partition).map(|state| (state.leader, state.leader_epoch))?,
        };
        let live = leader.and_then(|leader| image.brokers.get(&leader));
        // A leader that does not listen there is named all the same.
        if let Some((broker, at)) = live.and_then(|broker| Some((broker, endpoint(broker, &ctx.listener)?))) {
            self.0.entry(broker.id).or_insert_with(|| NodeEndpoint {
                node_id: broker.id,
                host: at.host.clone(),
                port: i32::from(at.port),
                rack: broker.rack.clone(),
            });
        }
        Some((leader.unwrap_or(BrokerId::NONE), epoch))
    }
}
