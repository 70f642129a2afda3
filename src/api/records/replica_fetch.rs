//! Fetch (1) of followers, those with a replica id of 0 or more: record batches up to the end of the log, and what a
//! follower needs to follow.
//!
//! Behaviour
//! - What a partition is told, and when a fetch is answered, is `replica::follower_fetch`'s.
//! - Sessions (KIP-227) from version 13 on: a full fetch with epoch 0 opens one, if there is room; an incremental one
//!   names what has changed, and so does its answer. FETCH_SESSION_ID_NOT_FOUND (70), INVALID_FETCH_SESSION_EPOCH (71),
//!   FETCH_SESSION_TOPIC_ID_ERROR (106) if it names topics where the session has ids. By name, which no broker of 3.4
//!   or later does, there is no session: the answer has session id 0.
//! - A topic id that the image does not have: UNKNOWN_TOPIC_ID (100).
//! - Records do not count against the budget of consumers' replies: acks=all waits for them.
//! - Needs CLUSTER_ACTION on the cluster: TOPIC_AUTHORIZATION_FAILED (29) for every partition else.
//! - Refused, by closing the connection, on listeners of clients (CVE-2018-1288).
//!
//! Versions: 12 names and divergence; 13 topic ids; 15 replica state instead of the replica id; 16 leader hints
//! (KIP-951). Ignored: isolation, rack.
//! Source: Kafka 3.9 `KafkaApis.handleFetchRequest`, `ReplicaManager.fetchMessages`.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::messages::fetch_request::FetchPartition;

use crate::api::context::RequestContext;
use crate::api::error_code::{of_fetch_refused, of_session_error};
use crate::api::handler::Outcome;
use crate::api::records::fetched::by_topic;
use crate::api::shared::leader_hints;
use crate::replica::leader_link::{FetchAsk, FetchRefused, Fetched, PartitionAsk, PartitionId, SessionAsk, TopicRef};
use crate::types::acl::Operation;
use crate::types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, PartitionIndex, TopicId, TopicName};
use crate::wire::fetch::{self, FetchResponse, FetchedPartition};

const VERSION_TOPIC_IDS: i16 = 13;

const NO_ERROR: i16 = 0;

/// The replica that asks; `None`: a consumer does.
pub(super) fn replica(request: &FetchRequest) -> Option<BrokerId> {
    let id = request.replica_id.0.max(request.replica_state.replica_id.0);
    (id >= 0).then_some(BrokerId(id))
}

/// Answers a fetch of `replica`.
pub(super) async fn answer(ctx: RequestContext, replica: BrokerId, request: FetchRequest) -> Outcome {
    if !ctx.may_on_cluster(Operation::ClusterAction) {
        return Outcome::Now(fetch::encode(unauthorized(&ctx, &request), ctx.version));
    }
    let mut response = match ctx.handles.follower_fetches.fetch(ask(&ctx, replica, &request)).await {
        Ok(answer) => {
            let told = answer.partitions.into_iter().map(|(key, found)| {
                let partition = told(key.1, found);
                (key, partition)
            });
            FetchResponse { session_id: answer.session_id, topics: by_topic(told), ..FetchResponse::default() }
        }
        Err(error) => FetchResponse { error_code: of_session_error(error).code(), ..FetchResponse::default() },
    };
    leader_hints::of_fetch(&ctx, &mut response);
    Outcome::Now(fetch::encode(response, ctx.version))
}

/// Every partition that is named is refused, and no session is opened; one that was is gone.
fn unauthorized(ctx: &RequestContext, request: &FetchRequest) -> FetchResponse {
    if request.session_id != 0 && request.topics.is_empty() {
        let error = ResponseError::FetchSessionIdNotFound;
        return FetchResponse { error_code: error.code(), ..FetchResponse::default() };
    }
    let by_name = ctx.version < VERSION_TOPIC_IDS;
    let refused = request.topics.iter().flat_map(|topic| {
        let name = match by_name {
            true => TopicRef::Name(TopicName::new(topic.topic.as_str())),
            false => TopicRef::Id(TopicId(topic.topic_id)),
        };
        topic.partitions.iter().map(move |partition| {
            let index = PartitionIndex(partition.partition);
            let refused = FetchedPartition::failed(index, ResponseError::TopicAuthorizationFailed.code());
            ((name.clone(), index), refused)
        })
    });
    FetchResponse { topics: by_topic(refused), ..FetchResponse::default() }
}

fn ask(ctx: &RequestContext, replica: BrokerId, request: &FetchRequest) -> FetchAsk {
    let by_name = ctx.version < VERSION_TOPIC_IDS;
    let partitions = request.topics.iter().flat_map(|topic| {
        let names = Names::of(ctx, by_name, topic.topic.as_str(), topic.topic_id);
        topic.partitions.iter().map(move |wanted| wants(names.partition(ctx, wanted.partition), wanted))
    });
    let forgotten = request.forgotten_topics_data.iter().flat_map(|topic| {
        let names = Names::of(ctx, by_name, topic.topic.as_str(), topic.topic_id);
        topic.partitions.iter().map(move |&partition| names.partition(ctx, partition))
    });
    FetchAsk {
        replica,
        replica_epoch: BrokerEpoch(request.replica_state.replica_epoch),
        max_wait_ms: request.max_wait_ms,
        min_bytes: request.min_bytes,
        max_bytes: request.max_bytes,
        session: SessionAsk { id: request.session_id, epoch: request.session_epoch },
        by_name,
        partitions: partitions.collect(),
        forgotten: forgotten.collect(),
    }
}

/// What a topic of a request is called here.
struct Names {
    /// Empty: its id is not known.
    topic: TopicName,
    /// `None`: it came by name.
    id: Option<TopicId>,
}

impl Names {
    fn of(ctx: &RequestContext, by_name: bool, name: &str, id: uuid::Uuid) -> Self {
        if by_name {
            return Self { topic: TopicName::new(name), id: None };
        }
        let (image, id) = (ctx.image(), TopicId(id));
        let topic = image.topic_by_id(id).map_or_else(|| TopicName::new(""), |topic| topic.name.clone());
        Self { topic, id: Some(id) }
    }

    fn partition(&self, ctx: &RequestContext, partition: i32) -> PartitionId {
        let (topic, partition) = (self.topic.clone(), PartitionIndex(partition));
        // By name any incarnation will do: that of the replica here.
        let here = || ctx.handles.replicas.get(topic.as_str(), partition).map_or(TopicId::ZERO, |it| it.id.topic_id);
        let topic_id = self.id.unwrap_or_else(here);
        PartitionId { topic, topic_id, partition }
    }
}

fn wants(id: PartitionId, wanted: &FetchPartition) -> PartitionAsk {
    let epoch = |epoch: i32| (epoch >= 0).then_some(LeaderEpoch(epoch));
    PartitionAsk {
        id,
        fetch_offset: Offset(wanted.fetch_offset),
        last_fetched_epoch: epoch(wanted.last_fetched_epoch),
        leader_epoch: epoch(wanted.current_leader_epoch),
        log_start_offset: Offset(wanted.log_start_offset),
        max_bytes: wanted.partition_max_bytes,
    }
}

fn told(index: PartitionIndex, found: Result<Fetched, FetchRefused>) -> FetchedPartition {
    match found {
        Err(refused) => FetchedPartition::failed(index, of_fetch_refused(refused)),
        Ok(found) => FetchedPartition {
            high_watermark: found.high_watermark,
            log_start_offset: found.log_start_offset,
            records: found.records,
            diverging_epoch: found.diverging,
            ..FetchedPartition::failed(index, NO_ERROR)
        },
    }
}
