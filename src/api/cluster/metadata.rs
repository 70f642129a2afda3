//! Metadata (3), versions 0–13: brokers, topics, partitions and their leaders, from the image alone (I-16).
//!
//! Behaviour
//! - Topics null (1+) means all, empty none; in version 0 empty means all.
//! - Each client gets the endpoints of the listener it came through. A leader without such an endpoint:
//!   LISTENER_NOT_FOUND (72) from version 6, LEADER_NOT_AVAILABLE (5) below. A partition without leader:
//!   LEADER_NOT_AVAILABLE, leader −1.
//! - An unknown topic is created if both the broker (`auto.create.topics.enable`) and the request allow it; it is
//!   answered with its leaders if they are known at once, else LEADER_NOT_AVAILABLE. Otherwise
//!   UNKNOWN_TOPIC_OR_PARTITION (3). An illegal name: INVALID_TOPIC_EXCEPTION (17).
//! - By id (12+): an unknown one is UNKNOWN_TOPIC_ID (100), with a null name. Ids or null names before version 12:
//!   INVALID_REQUEST (42) for each topic.
//! - Version 0 leaves replicas without an endpoint out and says REPLICA_NOT_AVAILABLE (9).
//! - Topics of which there is no DESCRIBE: TOPIC_AUTHORIZATION_FAILED (29) whether they exist or not, and left out
//!   where all are asked for. Creating one needs CREATE of it or on the cluster.
//! - Authorised operations are answered when asked for; those on the cluster need DESCRIBE of it, else there are none.
//!
//! Versions: 4 allow_auto_topic_creation; 7 leader epochs; 8 authorised operations; 9 flexible; 10 topic ids; 11 no
//! cluster operations; 13 top-level error (never set).
//! Source: Kafka 3.9 `KafkaApis.handleTopicMetadataRequest`, `ZkMetadataCache.getTopicMetadata`.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId as WireBrokerId, MetadataRequest, MetadataResponse, TopicName as WireTopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code;
use crate::api::handler::{Handler, Reply};
use crate::cluster::auto_create::AutoCreateError;
use crate::cluster::control::{Endpoint, LiveBroker, PartitionState};
use crate::cluster::image::{ClusterImage, TopicImage};
use crate::types::acl::{CLUSTER_NAME, Operation, ResourceType};
use crate::types::{BrokerId, TopicId, TopicName};

/// Not asked for.
pub(in crate::api) const OPERATIONS_OMITTED: i32 = i32::MIN;

/// How long a first mention of a topic waits for its leaders; a client that gets none asks again after 100 ms or so.
const CREATION_PATIENCE: Duration = Duration::from_millis(1000);

const VERSION_LISTENER_NOT_FOUND: i16 = 6;
const VERSION_ALLOW_AUTO_CREATION: i16 = 4;
const VERSION_TOPIC_OPERATIONS: i16 = 8;
const VERSION_TOPIC_IDS: i16 = 10;
const VERSION_ALONE_BY_ID: i16 = 12;

pub(crate) struct Metadata;

impl Handler for Metadata {
    type Req = MetadataRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=13;
    const AUTHORIZATION: Authorization = Authorization::Of(&[
        (Operation::Describe, ResourceType::Topic),
        (Operation::Create, ResourceType::Cluster),
        (Operation::Create, ResourceType::Topic),
        (Operation::Describe, ResourceType::Cluster),
    ]);

    async fn handle(ctx: RequestContext, req: MetadataRequest) -> Reply<MetadataResponse> {
        if names_no_topics(&ctx, &req) {
            return Reply::Now(refuse(&req));
        }
        let image = ctx.image();
        let permit = Permit::of(&ctx, &req, &image);
        let missing = if may_create(&ctx, &req) { missing(&image, &req, &permit) } else { Vec::new() };
        if missing.is_empty() {
            return Reply::Now(respond(&ctx, &req, (&image, &image), &permit, &[]));
        }
        Reply::Later(
            async move {
                let mut refused = Vec::new();
                let mut mutations = ctx.mutations(None);
                for name in missing {
                    mutations.note(|| ctx.handles.auto_creation.partitions(&name));
                    if let Err(error) = ctx.handles.auto_creation.create(&name, CREATION_PATIENCE).await {
                        refused.push((name, error));
                    }
                }
                let now = ctx.image();
                respond(&ctx, &req, (&image, &now), &permit, &refused).with_throttle_time_ms(mutations.throttle())
            }
            .boxed(),
        )
    }
}

/// What the request may learn. Topics without DESCRIBE are not looked for: even whether they exist is not told.
#[derive(Debug, Default)]
struct Permit {
    undescribed: HashSet<String>,
    /// Missing, and not to be created.
    uncreated: HashSet<String>,
}

impl Permit {
    fn of(ctx: &RequestContext, req: &MetadataRequest, image: &ClusterImage) -> Self {
        if ctx.handles.authorizer.is_none() {
            return Self::default();
        }
        let all = asks_for_all(ctx, req);
        let names: Vec<TopicName> = match all {
            true => image.topics().map(|topic| topic.name.clone()).collect(),
            false => req.topics.iter().flatten().filter_map(|wanted| name_of(image, wanted)).collect(),
        };
        let (describe, topic) = (Operation::Describe, ResourceType::Topic);
        let asked = names.iter().map(TopicName::as_str);
        let refused = if all { ctx.hidden(describe, topic, asked) } else { ctx.refused(describe, topic, asked) };
        let owned = |names: &mut dyn Iterator<Item = &str>| names.map(str::to_owned).collect();
        let undescribed = owned(&mut names.iter().map(TopicName::as_str).filter(|name| refused.contains(name)));
        let described = names.iter().map(TopicName::as_str).filter(|name| !refused.contains(name));
        let missing: Vec<&str> = described.filter(|name| image.topic(name).is_none()).collect();
        let creates = !missing.is_empty() && may_create(ctx, req);
        let uncreated = match creates && !ctx.may_perhaps_on_cluster(Operation::Create) {
            true => {
                let refused = ctx.refused(Operation::Create, topic, missing.iter().copied());
                owned(&mut missing.iter().copied().filter(|name| refused.contains(name)))
            }
            false => HashSet::new(),
        };
        Self { undescribed, uncreated }
    }
}

/// Topics null; in version 0 none.
fn asks_for_all(ctx: &RequestContext, req: &MetadataRequest) -> bool {
    match &req.topics {
        None => true,
        Some(topics) => ctx.version == 0 && topics.is_empty(),
    }
}

/// The topic that is asked for, by name or by id.
fn name_of(image: &ClusterImage, wanted: &MetadataRequestTopic) -> Option<TopicName> {
    match wanted.topic_id.is_nil() {
        true => wanted.name.as_ref().map(|name| TopicName::new(name.as_str())),
        false => image.topic_by_id(TopicId(wanted.topic_id)).map(|topic| topic.name.clone()),
    }
}

/// Ids, or null names, where the version allows neither.
fn names_no_topics(ctx: &RequestContext, req: &MetadataRequest) -> bool {
    let mut topics = req.topics.iter().flatten();
    ctx.version < VERSION_ALONE_BY_ID && topics.any(|topic| topic.name.is_none() || !topic.topic_id.is_nil())
}

fn refuse(req: &MetadataRequest) -> MetadataResponse {
    let refused = |topic: &MetadataRequestTopic| {
        let name = topic.name.clone().unwrap_or_default();
        error_response(ResponseError::InvalidRequest, Some(name), topic.topic_id)
    };
    MetadataResponse::default()
        .with_cluster_id(None)
        .with_controller_id(WireBrokerId(BrokerId::NONE.0))
        .with_topics(req.topics.iter().flatten().map(refused).collect())
}

fn may_create(ctx: &RequestContext, req: &MetadataRequest) -> bool {
    let asked = ctx.version < VERSION_ALLOW_AUTO_CREATION || req.allow_auto_topic_creation;
    asked && ctx.handles.config.current().auto_create_topics_enable
}

/// Named topics that the image does not have and that could be created.
fn missing(image: &ClusterImage, req: &MetadataRequest, permit: &Permit) -> Vec<TopicName> {
    let named =
        req.topics.iter().flatten().filter(|topic| topic.topic_id.is_nil()).filter_map(|topic| topic.name.as_ref());
    let mut missing: Vec<TopicName> = named
        .filter(|name| image.topic(name.as_str()).is_none() && TopicName::check(name.as_str()).is_ok())
        .filter(|name| !permit.undescribed.contains(name.as_str()) && !permit.uncreated.contains(name.as_str()))
        .map(|name| TopicName::new(name.as_str()))
        .collect();
    missing.sort();
    missing.dedup();
    missing
}

type Refused = (TopicName, AutoCreateError);

/// `asked`: the image that the permit is about; `image`: the present one.
fn respond(
    ctx: &RequestContext,
    req: &MetadataRequest,
    (asked, image): (&ClusterImage, &ClusterImage),
    permit: &Permit,
    refused: &[Refused],
) -> MetadataResponse {
    let topics = if asks_for_all(ctx, req) {
        let shown = |topic: &&Arc<TopicImage>| !permit.undescribed.contains(topic.name.as_str());
        let mut topics: Vec<_> = image.topics().filter(shown).collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        topics.into_iter().map(|topic| topic_response(ctx, req, image, topic)).collect()
    } else {
        // A topic that is named twice is answered once, as in Kafka.
        let mut seen = HashSet::new();
        let wanted = req.topics.iter().flatten().filter(|wanted| seen.insert((wanted.topic_id, &wanted.name)));
        wanted.map(|wanted| named_response(ctx, req, (asked, image), wanted, permit, refused)).collect()
    };
    let brokers = image.brokers.values().filter_map(|broker| {
        let endpoint = endpoint(broker, &ctx.listener)?;
        Some(
            MetadataResponseBroker::default()
                .with_node_id(WireBrokerId(broker.id.0))
                .with_host(StrBytes::from_string(endpoint.host.clone()))
                .with_port(i32::from(endpoint.port))
                .with_rack(broker.rack.clone().map(StrBytes::from_string)),
        )
    });
    let with_cluster_operations = req.include_cluster_authorized_operations && (8..=10).contains(&ctx.version);
    MetadataResponse::default()
        .with_brokers(brokers.collect())
        .with_cluster_id(Some(StrBytes::from_string(ctx.handles.cluster_id.to_string())))
        .with_controller_id(WireBrokerId(controller_id(image).0))
        .with_topics(topics)
        .with_cluster_authorized_operations(if with_cluster_operations {
            cluster_operations(ctx)
        } else {
            OPERATIONS_OMITTED
        })
}

/// What the request may do to the cluster, a bit for each operation; nothing for those who may not describe it.
pub(in crate::api) fn cluster_operations(ctx: &RequestContext) -> i32 {
    match ctx.may_on_cluster(Operation::Describe) {
        true => ctx.operations(ResourceType::Cluster, CLUSTER_NAME),
        false => 0,
    }
}

/// The controller, if it is alive.
pub(in crate::api) fn controller_id(image: &ClusterImage) -> BrokerId {
    image.controller.filter(|id| image.brokers.contains_key(id)).unwrap_or(BrokerId::NONE)
}

/// The broker's endpoint on a listener, by name.
pub(in crate::api) fn endpoint<'a>(broker: &'a LiveBroker, listener: &str) -> Option<&'a Endpoint> {
    broker.endpoints.iter().find(|endpoint| endpoint.listener == listener)
}

/// The topic of this id, if nobody has to be asked about it any more: one that has become known since then may have any
/// name.
fn by_id<'a>(asked: &ClusterImage, image: &'a ClusterImage, id: Uuid) -> Option<&'a Arc<TopicImage>> {
    asked.topic_by_id(TopicId(id))?;
    image.topic_by_id(TopicId(id))
}

fn named_response(
    ctx: &RequestContext,
    req: &MetadataRequest,
    (asked, image): (&ClusterImage, &ClusterImage),
    wanted: &MetadataRequestTopic,
    permit: &Permit,
    refused: &[Refused],
) -> MetadataResponseTopic {
    if !wanted.topic_id.is_nil() {
        return match by_id(asked, image, wanted.topic_id) {
            // An id is no secret, a name is.
            Some(topic) if permit.undescribed.contains(topic.name.as_str()) => {
                unauthorized(None, wanted.topic_id).with_is_internal(false)
            }
            Some(topic) => topic_response(ctx, req, image, topic),
            None => error_response(ResponseError::UnknownTopicId, None, wanted.topic_id),
        };
    }
    let Some(name) = &wanted.name else {
        return error_response(ResponseError::UnknownTopicId, None, Uuid::nil());
    };
    if permit.undescribed.contains(name.as_str()) {
        return unauthorized(Some(name.clone()), Uuid::nil()).with_is_internal(false);
    }
    if permit.uncreated.contains(name.as_str()) {
        return unauthorized(Some(name.clone()), Uuid::nil());
    }
    if let Some(topic) = image.topic(name.as_str()) {
        return topic_response(ctx, req, image, topic);
    }
    let error = if TopicName::check(name.as_str()).is_err() {
        ResponseError::InvalidTopicException
    } else if let Some((_, refused)) = refused.iter().find(|(refused, _)| refused.as_str() == name.as_str()) {
        error_code::of_auto_create_error(refused)
    } else if may_create(ctx, req) {
        ResponseError::LeaderNotAvailable
    } else {
        ResponseError::UnknownTopicOrPartition
    };
    let response = error_response(error, Some(name.clone()), Uuid::nil());
    match shows_operations(ctx, req) {
        true => response.with_topic_authorized_operations(ctx.operations(ResourceType::Topic, name.as_str())),
        false => response,
    }
}

fn unauthorized(name: Option<WireTopicName>, id: Uuid) -> MetadataResponseTopic {
    error_response(ResponseError::TopicAuthorizationFailed, name, id)
}

fn shows_operations(ctx: &RequestContext, req: &MetadataRequest) -> bool {
    req.include_topic_authorized_operations && ctx.version >= VERSION_TOPIC_OPERATIONS
}

fn error_response(error: ResponseError, name: Option<WireTopicName>, id: Uuid) -> MetadataResponseTopic {
    let is_internal = name.as_ref().is_some_and(|name| TopicName::new(name.as_str()).is_internal());
    MetadataResponseTopic::default()
        .with_error_code(error.code())
        .with_name(name)
        .with_topic_id(id)
        .with_is_internal(is_internal)
        .with_topic_authorized_operations(OPERATIONS_OMITTED)
}

fn topic_response(
    ctx: &RequestContext,
    req: &MetadataRequest,
    image: &ClusterImage,
    topic: &TopicImage,
) -> MetadataResponseTopic {
    let operations = match shows_operations(ctx, req) {
        true => ctx.operations(ResourceType::Topic, topic.name.as_str()),
        false => OPERATIONS_OMITTED,
    };
    let partitions = topic.partitions.values().map(|state| partition_response(ctx, image, state));
    MetadataResponseTopic::default()
        .with_name(Some(WireTopicName(StrBytes::from_string(topic.name.to_string()))))
        .with_topic_id(if ctx.version >= VERSION_TOPIC_IDS { topic.id.0 } else { Uuid::nil() })
        .with_is_internal(topic.name.is_internal())
        .with_partitions(partitions.collect())
        .with_topic_authorized_operations(operations)
}

fn partition_response(ctx: &RequestContext, image: &ClusterImage, state: &PartitionState) -> MetadataResponsePartition {
    let reachable = |id: &BrokerId| image.brokers.get(id).is_some_and(|b| endpoint(b, &ctx.listener).is_some());
    let live = |id: &BrokerId| image.brokers.contains_key(id);
    // Version 0 knows no brokers but those listed.
    let shown = |id: &&BrokerId| ctx.version > 0 || reachable(id);
    let ids = |ids: &[BrokerId]| ids.iter().filter(shown).map(|id| WireBrokerId(id.0)).collect::<Vec<_>>();
    let all_shown = state.replicas.iter().chain(&state.isr).all(|id| shown(&id));
    let error = match &state.leader {
        Some(leader) if reachable(leader) => (!all_shown).then_some(ResponseError::ReplicaNotAvailable),
        Some(leader) if live(leader) && ctx.version >= VERSION_LISTENER_NOT_FOUND => {
            Some(ResponseError::ListenerNotFound)
        }
        Some(_) | None => Some(ResponseError::LeaderNotAvailable),
    };
    let leader = state.leader.filter(reachable).unwrap_or(BrokerId::NONE);
    let mut offline = state.offline_replicas.clone();
    offline.extend(state.replicas.iter().filter(|id| !live(id) && !state.offline_replicas.contains(id)));
    MetadataResponsePartition::default()
        .with_error_code(error.map_or(0, |error| error.code()))
        .with_partition_index(state.partition.0)
        .with_leader_id(WireBrokerId(leader.0))
        .with_leader_epoch(state.leader_epoch.0)
        .with_replica_nodes(ids(&state.replicas))
        .with_isr_nodes(ids(&state.isr))
        .with_offline_replicas(ids(&offline))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::control::{ControlHead, TopicMetadata, UpdateMetadata};
    use crate::cluster::znodes::partition_state::Recovery;
    use crate::types::{BrokerEpoch, ControllerEpoch, LeaderEpoch, PartitionEpoch, PartitionIndex};

    fn image_with(id: TopicId) -> ClusterImage {
        let state = PartitionState {
            partition: PartitionIndex(0),
            controller_epoch: ControllerEpoch(1),
            leader: Some(BrokerId(1)),
            leader_epoch: LeaderEpoch(0),
            isr: vec![BrokerId(1)],
            partition_epoch: PartitionEpoch(0),
            replicas: vec![BrokerId(1)],
            adding: vec![],
            removing: vec![],
            recovery: Recovery::Recovered,
            offline_replicas: vec![],
            is_new: false,
        };
        let topic = TopicMetadata { name: TopicName::new("t"), id, partitions: vec![state], deleted: vec![] };
        let head =
            ControlHead { controller: BrokerId(1), controller_epoch: ControllerEpoch(1), broker_epoch: BrokerEpoch(1) };
        ClusterImage::default().apply(&UpdateMetadata { head, topics: vec![topic], live_brokers: vec![] })
    }

    /// While other topics were made that the request named, one could become known whose name nobody had asked about.
    #[test]
    fn a_topic_that_was_not_known_when_it_was_asked_about_is_not_shown_by_its_id() {
        let id = Uuid::from_u128(7);
        let (before, after) = (ClusterImage::default(), image_with(TopicId(id)));
        assert!(by_id(&before, &after, id).is_none());
        assert!(by_id(&after, &after, id).is_some());
        assert!(by_id(&after, &before, id).is_none(), "deleted meanwhile");
    }
}
