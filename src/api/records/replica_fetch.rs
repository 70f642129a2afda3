//! Fetch (1) of followers, those with a replica id of 0 or more: record batches up to the end of the log, and what a
//! follower needs to follow.
//!
//! Behaviour
//! - What a partition is told, and when a fetch is answered, is `replica::follower_fetch`'s.
//! - Every answer is a full one, outside a session: it has session id 0 and names every partition that was asked
//!   (KIP-227 leaves that to the broker; a follower then sends full fetches, and takes an answer that does not name all
//!   of them for none). A fetch of a session gets FETCH_SESSION_ID_NOT_FOUND (70), as after a restart.
//! - A topic id that the image does not have: UNKNOWN_TOPIC_ID (100).
//! - Records do not count against the budget of consumers' replies: acks=all waits for them.
//! - Refused, by closing the connection, on listeners of clients (CVE-2018-1288).
//!
//! Versions: 12 names and divergence; 13 topic ids; 15 replica state instead of the replica id. Ignored: isolation,
//! rack. Source: Kafka 3.9 `KafkaApis.handleFetchRequest`, `ReplicaManager.fetchMessages`.

use std::collections::HashMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_request::FetchPartition;

use crate::api::context::RequestContext;
use crate::api::error_code::of_fetch_refused;
use crate::api::handler::Outcome;
use crate::replica::leader_link::{FetchAsk, FetchRefused, Fetched, PartitionAsk, PartitionId};
use crate::types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicName};
use crate::wire::fetch::{self, FetchResponse, FetchedPartition, FetchedTopic, FetchedTopicRef};

const VERSION_TOPIC_IDS: i16 = 13;

/// The replica that asks; `None`: a consumer does.
pub(super) fn replica(request: &FetchRequest) -> Option<BrokerId> {
    let id = request.replica_id.0.max(request.replica_state.replica_id.0);
    (id >= 0).then_some(BrokerId(id))
}

/// Answers a fetch of `replica`.
pub(super) async fn answer(ctx: RequestContext, replica: BrokerId, request: FetchRequest) -> Outcome {
    if request.session_epoch > 0 {
        let error_code = ResponseError::FetchSessionIdNotFound.code();
        let response = FetchResponse { error_code, ..FetchResponse::default() };
        return Outcome::Now(fetch::encode(response, ctx.version));
    }
    let asked: Vec<AskedTopic> = asked(&ctx, &request);
    let refused = asked.iter().any(|topic| topic.name.is_none());
    let ask = FetchAsk {
        replica,
        replica_epoch: BrokerEpoch(request.replica_state.replica_epoch),
        // An error is answered at once.
        max_wait_ms: if refused { 0 } else { request.max_wait_ms },
        min_bytes: request.min_bytes,
        max_bytes: request.max_bytes,
        partitions: asked.iter().flat_map(|topic| topic.asks()).collect(),
    };
    let answer = ctx.handles.follower_fetches.fetch(ask).await;
    let mut found: HashMap<PartitionId, Result<Fetched, FetchRefused>> = answer.partitions.into_iter().collect();
    let topics = asked.into_iter().map(|topic| topic.told(&ctx, &mut found)).collect();
    let response = FetchResponse { topics, ..FetchResponse::default() };
    Outcome::Now(fetch::encode(response, ctx.version))
}

/// One topic of a request.
struct AskedTopic {
    reference: FetchedTopicRef,
    /// `None`: the id is not known.
    name: Option<TopicName>,
    partitions: Vec<(PartitionId, FetchPartition)>,
}

fn asked(ctx: &RequestContext, request: &FetchRequest) -> Vec<AskedTopic> {
    let image = ctx.image();
    let by_id = ctx.version >= VERSION_TOPIC_IDS;
    let topic = |topic: &kafka_protocol::messages::fetch_request::FetchTopic| {
        let id = TopicId(topic.topic_id);
        let (reference, name) = if by_id {
            (FetchedTopicRef::Id(id), image.topic_by_id(id).map(|topic| topic.name.clone()))
        } else {
            let name = TopicName::new(topic.topic.as_str());
            (FetchedTopicRef::Name(name.clone()), Some(name))
        };
        let partitions = topic.partitions.iter().map(|wanted| {
            let partition = PartitionIndex(wanted.partition);
            let topic = name.clone().unwrap_or_else(|| TopicName::new(""));
            // By name any incarnation will do: that of the replica here.
            let topic_id = if by_id { id } else { id_here(ctx, &topic, partition) };
            (PartitionId { topic, topic_id, partition }, wanted.clone())
        });
        AskedTopic { reference, partitions: partitions.collect(), name }
    };
    request.topics.iter().map(topic).collect()
}

fn id_here(ctx: &RequestContext, topic: &TopicName, partition: PartitionIndex) -> TopicId {
    let replica = ctx.handles.replicas.get(topic.as_str(), partition);
    replica.map_or(TopicId::ZERO, |replica| replica.id.topic_id)
}

impl AskedTopic {
    fn asks(&self) -> impl Iterator<Item = PartitionAsk> {
        let epoch = |epoch: i32| (epoch >= 0).then_some(LeaderEpoch(epoch));
        let known = self.name.iter().flat_map(|_| &self.partitions);
        known.map(move |(id, wanted)| PartitionAsk {
            id: id.clone(),
            fetch_offset: Offset(wanted.fetch_offset),
            last_fetched_epoch: epoch(wanted.last_fetched_epoch),
            leader_epoch: epoch(wanted.current_leader_epoch),
            log_start_offset: Offset(wanted.log_start_offset),
            max_bytes: wanted.partition_max_bytes,
        })
    }

    fn told(
        self,
        ctx: &RequestContext,
        found: &mut HashMap<PartitionId, Result<Fetched, FetchRefused>>,
    ) -> FetchedTopic {
        let known = self.name.is_some();
        let partitions = self.partitions.into_iter().map(|(id, _)| {
            let result = match found.remove(&id) {
                _ if !known => Err(of_fetch_refused(FetchRefused::UnknownTopicId)),
                Some(result) => result.map_err(of_fetch_refused),
                None => unchanged(ctx, &id),
            };
            told(id.partition, result)
        });
        FetchedTopic { topic: self.reference, partitions: partitions.collect() }
    }
}

/// A partition of which nothing was said: its positions.
fn unchanged(ctx: &RequestContext, id: &PartitionId) -> Result<Fetched, i16> {
    let Some(replica) = ctx.handles.replicas.get(id.topic.as_str(), id.partition) else {
        return Err(ctx.without_replica(id.topic.as_str(), id.partition).code());
    };
    let view = replica.view();
    let (high_watermark, log_start_offset) = (view.high_watermark, view.log_start_offset);
    Ok(Fetched { high_watermark, log_start_offset, diverging: None, records: Vec::new() })
}

fn told(index: PartitionIndex, result: Result<Fetched, i16>) -> FetchedPartition {
    let nothing = FetchedPartition {
        index,
        error_code: 0,
        high_watermark: Offset::NONE,
        last_stable_offset: Offset::NONE,
        log_start_offset: Offset::NONE,
        aborted_transactions: None,
        preferred_read_replica: BrokerId::NONE,
        records: Vec::new(),
        diverging_epoch: None,
        current_leader: None,
    };
    match result {
        Err(error_code) => FetchedPartition { error_code, ..nothing },
        Ok(found) => FetchedPartition {
            high_watermark: found.high_watermark,
            log_start_offset: found.log_start_offset,
            records: found.records,
            diverging_epoch: found.diverging,
            ..nothing
        },
    }
}
