//! OffsetDelete (47), version 0: forget committed offsets of a group.
//!
//! Behaviour: a topic that does not exist: UNKNOWN_TOPIC_OR_PARTITION (3) for each of its partitions; one that a member
//! may read: GROUP_SUBSCRIBED_TO_TOPIC (86). A partition that has no offset is answered as if it had one. For the group
//! as a whole: no such group, GROUP_ID_NOT_FOUND (69); members that are no consumers, NON_EMPTY_GROUP (68); no name,
//! INVALID_GROUP_ID (24). Answers when the tombstones are replicated, where Kafka does not wait for them.
//! Needs DELETE of the group, GROUP_AUTHORIZATION_FAILED (30), and READ of each topic, TOPIC_AUTHORIZATION_FAILED (29).
//! Ignored: nothing.
//! Source: Kafka 3.9 `KafkaApis.handleOffsetDeleteRequest`, `GroupCoordinator.handleDeleteOffsets`.

use std::ops::RangeInclusive;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::OffsetDeleteRequest;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponse, OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::of_group_answer;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::strings::str_arc;
use crate::coordinator::group::error::GroupError;
use crate::types::acl::{Operation, ResourceType};
use crate::types::{PartitionIndex, TopicName, limits};

/// OffsetDelete.
#[derive(Debug)]
pub(crate) struct OffsetDelete;

impl Handler for OffsetDelete {
    type Req = OffsetDeleteRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const AUTHORIZATION: Authorization =
        Authorization::Of(&[(Operation::Delete, ResourceType::Group), (Operation::Read, ResourceType::Topic)]);
    const FRAME_BYTES_MAX: usize = limits::GROUP_FRAME_BYTES_MAX;

    async fn handle(ctx: RequestContext, req: OffsetDeleteRequest) -> Reply<OffsetDeleteResponse> {
        if !ctx.may(Operation::Delete, ResourceType::Group, &req.group_id) {
            let refused = ResponseError::GroupAuthorizationFailed.code();
            return Reply::Now(OffsetDeleteResponse::default().with_error_code(refused));
        }
        let known = known(&ctx, &req);
        let offsets = req.topics.iter().zip(&known).filter(|(_, known)| known.is_none()).flat_map(|(topic, _)| {
            let name = TopicName::new(topic.name.as_str());
            topic.partitions.iter().map(move |one| (name.clone(), PartitionIndex(one.partition_index)))
        });
        let answer = ctx.handles.groups.delete_offsets(str_arc(&req.group_id), offsets.collect()).await;
        Reply::Later(answer.map(move |answer| response(&req, &known, answer)).boxed())
    }
}

/// For each topic, why its offsets are not asked for, if they are not.
fn known(ctx: &RequestContext, req: &OffsetDeleteRequest) -> Vec<Option<ResponseError>> {
    let image = ctx.image();
    let names = req.topics.iter().map(|topic| topic.name.as_str());
    let refused = ctx.refused(Operation::Read, ResourceType::Topic, names.clone());
    let known = names.map(|name| match image.topic(name) {
        _ if refused.contains(name) => Some(ResponseError::TopicAuthorizationFailed),
        None => Some(ResponseError::UnknownTopicOrPartition),
        Some(_) => None,
    });
    known.collect()
}

/// `known`: for each topic, why its offsets were not asked for, if they were not; `answer` counts only the others.
fn response(
    req: &OffsetDeleteRequest,
    known: &[Option<ResponseError>],
    answer: Result<Vec<Result<(), GroupError>>, GroupError>,
) -> OffsetDeleteResponse {
    let answers = match answer {
        Ok(answers) => answers,
        Err(error) => return OffsetDeleteResponse::default().with_error_code(of_group_answer(Some(error))),
    };
    let mut answers = answers.into_iter();
    let topics = req.topics.iter().zip(known).map(|(topic, known)| {
        let partitions = topic.partitions.iter().map(|one| {
            let code = match known {
                None => of_group_answer(answers.next().and_then(Result::err)),
                Some(error) => error.code(),
            };
            OffsetDeleteResponsePartition::default().with_partition_index(one.partition_index).with_error_code(code)
        });
        OffsetDeleteResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions.collect())
    });
    OffsetDeleteResponse::default().with_topics(topics.collect())
}
