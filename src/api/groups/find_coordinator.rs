//! FindCoordinator (10), versions 0–6: which broker coordinates a group or a transactional id.
//!
//! Behaviour
//! - A group's coordinator leads the partition of `__consumer_offsets` that Java's hash of the group id names, that of
//!   a transactional id (key type 1) the partition of `__transaction_state`. A missing topic is created; until it has
//!   leaders the answer is COORDINATOR_NOT_AVAILABLE (15), which clients retry.
//! - Needs DESCRIBE of the group or transactional id: GROUP_AUTHORIZATION_FAILED (30),
//!   TRANSACTIONAL_ID_AUTHORIZATION_FAILED (53).
//! - Key type 2 (share groups) and others: INVALID_REQUEST (42).
//! - An empty group id is legal: old consumers commit under it.
//! - From version 4 on keys come in a batch, each with its own error and, as in Kafka, an empty message.
//!
//! Versions: 1 key types; 3 flexible; 4 batches (KIP-699); 6 share groups. Ignored: nothing.
//! Source: Kafka 3.9 `KafkaApis.handleFindCoordinatorRequest`.

use std::ops::RangeInclusive;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId as WireBrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use crate::api::authorization::Authorization;
use crate::api::cluster::metadata::endpoint;
use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::internal_topics;
use crate::cluster::image::ClusterImage;
use crate::coordinator::partition_for;
use crate::types::TopicName;
use crate::types::acl::{Operation, ResourceType};
use crate::types::topic::{CONSUMER_OFFSETS, TRANSACTION_STATE};

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const VERSION_BATCH: i16 = 4;

pub(crate) struct FindCoordinator;

impl Handler for FindCoordinator {
    type Req = FindCoordinatorRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=6;
    const AUTHORIZATION: Authorization = Authorization::Of(&[
        (Operation::Describe, ResourceType::Group),
        (Operation::Describe, ResourceType::TransactionalId),
    ]);

    async fn handle(ctx: RequestContext, req: FindCoordinatorRequest) -> Reply<FindCoordinatorResponse> {
        let refused = refused(&ctx, &req);
        let asks = refused.iter().any(Option::is_none);
        let missing = topic_of(req.key_type).filter(|topic| asks && ctx.image().topic(topic).is_none());
        let Some(topic) = missing else {
            return Reply::Now(respond(&ctx, &req, &refused));
        };
        Reply::Later(
            async move {
                let mut refused = refused;
                let mut mutations = ctx.mutations(None);
                mutations.note(|| ctx.handles.auto_creation.partitions(&TopicName::new(topic)));
                if let Err(error) = internal_topics::ensure(&ctx, topic).await {
                    refused.iter_mut().for_each(|refused| *refused = refused.or(Some(error)));
                }
                respond(&ctx, &req, &refused).with_throttle_time_ms(mutations.throttle())
            }
            .boxed(),
        )
    }
}

fn keys(version: i16, req: &FindCoordinatorRequest) -> &[StrBytes] {
    if version < VERSION_BATCH { std::slice::from_ref(&req.key) } else { &req.coordinator_keys }
}

/// Why a key is not looked for, for each in order.
fn refused(ctx: &RequestContext, req: &FindCoordinatorRequest) -> Vec<Option<ResponseError>> {
    let refused = |key: &StrBytes| match req.key_type {
        GROUP if !ctx.may(Operation::Describe, ResourceType::Group, key) => {
            Some(ResponseError::GroupAuthorizationFailed)
        }
        TRANSACTION if !ctx.may(Operation::Describe, ResourceType::TransactionalId, key) => {
            Some(ResponseError::TransactionalIdAuthorizationFailed)
        }
        _ => None,
    };
    keys(ctx.version, req).iter().map(refused).collect()
}

/// The internal topic that keeps what keys of this type name.
fn topic_of(key_type: i8) -> Option<&'static str> {
    match key_type {
        GROUP => Some(CONSUMER_OFFSETS),
        TRANSACTION => Some(TRANSACTION_STATE),
        _ => None,
    }
}

struct CoordinatorNode {
    node: i32,
    host: String,
    port: i32,
}

fn respond(
    ctx: &RequestContext,
    req: &FindCoordinatorRequest,
    refused: &[Option<ResponseError>],
) -> FindCoordinatorResponse {
    let image = ctx.image();
    let find = |key: &str, refused: &Option<ResponseError>| match refused {
        Some(error) => Err(*error),
        None => find(ctx, &image, req.key_type, key),
    };
    if ctx.version < VERSION_BATCH {
        let response = FindCoordinatorResponse::default();
        return match find(req.key.as_str(), &refused[0]) {
            Ok(found) => response
                .with_node_id(WireBrokerId(found.node))
                .with_host(StrBytes::from_string(found.host))
                .with_port(found.port)
                .with_error_message((ctx.version >= 1).then(|| StrBytes::from_static_str("NONE"))),
            Err(error) => response
                .with_error_code(error.code())
                .with_node_id(WireBrokerId(-1))
                .with_port(-1)
                .with_error_message((ctx.version >= 1).then(|| StrBytes::from_string(error.to_string()))),
        };
    }
    let coordinators = req.coordinator_keys.iter().zip(refused).map(|(key, refused)| {
        let coordinator = Coordinator::default().with_key(key.clone());
        match find(key.as_str(), refused) {
            Ok(found) => coordinator
                .with_node_id(WireBrokerId(found.node))
                .with_host(StrBytes::from_string(found.host))
                .with_port(found.port)
                .with_error_message(Some(StrBytes::default())),
            Err(error) => coordinator
                .with_node_id(WireBrokerId(-1))
                .with_port(-1)
                .with_error_code(error.code())
                .with_error_message(Some(StrBytes::default())),
        }
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}

fn find(ctx: &RequestContext, image: &ClusterImage, key_type: i8, key: &str) -> Result<CoordinatorNode, ResponseError> {
    let topic = topic_of(key_type).ok_or(ResponseError::InvalidRequest)?;
    let topic = image.topic(topic).ok_or(ResponseError::CoordinatorNotAvailable)?;
    let partition = partition_for(key, topic.partitions.len() as i32);
    let state = topic.partitions.get(&partition).ok_or(ResponseError::CoordinatorNotAvailable)?;
    let leader = state.leader.and_then(|id| image.brokers.get(&id)).ok_or(ResponseError::CoordinatorNotAvailable)?;
    let endpoint = endpoint(leader, &ctx.listener).ok_or(ResponseError::CoordinatorNotAvailable)?;
    Ok(CoordinatorNode { node: leader.id.0, host: endpoint.host.clone(), port: i32::from(endpoint.port) })
}
