//! OffsetFetch (9), versions 1–9: how far groups have read.
//!
//! Behaviour
//! - Needs DESCRIBE of the group, GROUP_AUTHORIZATION_FAILED (30), and of each topic, TOPIC_AUTHORIZATION_FAILED (29)
//!   for its partitions; where all are asked for, other topics are left out.
//! - A partition without a commit: offset −1, no error, empty metadata. Topics null (2 and up): all that the group has.
//! - A group that is not coordinated here: NOT_COORDINATOR (16) for the group. Version 1 has no error but the
//!   partitions', so there each partition asked for carries it; Kafka answers with no partitions at all.
//! - `require_stable`: a partition of which an open transaction has committed the offset is UNSTABLE_OFFSET_COMMIT (88)
//!   with offset −1, which clients repeat. Offsets that are pending alone are not among all that the group has.
//!
//! Versions: 2 error and null topics (KIP-88); 3 throttle time; 5 leader epoch (KIP-320); 6 flexible; 7 require_stable
//! (KIP-447); 8 many groups (KIP-709); 9 member id and epoch (KIP-848). Version 0 is not served: it read ZooKeeper.
//! Ignored: member id and epoch, which classic groups do not check.
//! Source: Kafka 3.9 `KafkaApis.handleOffsetFetchRequestFromCoordinator`, `OffsetFetchResponse`.

use std::ops::RangeInclusive;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all, ready};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{GroupId, OffsetFetchRequest, OffsetFetchResponse, TopicName as WireTopicName};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::{of_group_answer, of_group_error};
use crate::api::handler::{Handler, Reply};
use crate::api::shared::strings::{str_arc, text};
use crate::coordinator::group::error::GroupError;
use crate::coordinator::group::request::{FetchReply, FetchRequest, FetchedOffset};
use crate::types::acl::{Operation, ResourceType};
use crate::types::{LeaderEpoch, Offset, PartitionIndex, TopicName, limits};

/// OffsetFetch.
#[derive(Debug)]
pub(crate) struct OffsetFetch;

impl Handler for OffsetFetch {
    type Req = OffsetFetchRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=9;
    const AUTHORIZATION: Authorization =
        Authorization::Of(&[(Operation::Describe, ResourceType::Group), (Operation::Describe, ResourceType::Topic)]);
    const FRAME_BYTES_MAX: usize = limits::GROUP_FRAME_BYTES_MAX;

    async fn handle(ctx: RequestContext, req: OffsetFetchRequest) -> Reply<OffsetFetchResponse> {
        let version = ctx.version;
        if version < 8 {
            let topics = req.topics.map(|topics| topics.iter().map(|t| asked(&t.name, &t.partition_indexes)).collect());
            let request = FetchRequest { group: str_arc(&req.group_id), topics, require_stable: req.require_stable };
            let asked = request.topics.clone().unwrap_or_default();
            let answer = fetch(ctx, request).await;
            return Reply::Later(answer.map(move |answer| single(answer, &asked, version)).boxed());
        }
        let mut answers = Vec::with_capacity(req.groups.len());
        for group in req.groups {
            let topics =
                group.topics.map(|topics| topics.iter().map(|t| asked(&t.name, &t.partition_indexes)).collect());
            let request = FetchRequest { group: str_arc(&group.group_id), topics, require_stable: req.require_stable };
            let answer = fetch(ctx.clone(), request).await;
            answers.push(answer.map(move |answer| one_of_many(group.group_id, answer)));
        }
        Reply::Later(join_all(answers).map(|groups| OffsetFetchResponse::default().with_groups(groups)).boxed())
    }
}

/// What the request may see of a group's offsets. Topics that it may not see are left out where it asked for all, and
/// are each partition's error where it named them.
async fn fetch(ctx: RequestContext, mut request: FetchRequest) -> BoxFuture<'static, Answer> {
    if !ctx.may(Operation::Describe, ResourceType::Group, &request.group) {
        return ready(Err(ResponseError::GroupAuthorizationFailed)).boxed();
    }
    let Some(topics) = &mut request.topics else {
        let answer = ctx.handles.groups.fetch(request).await;
        let shown = move |answer: Result<FetchReply, GroupError>| {
            let mut topics = answer.map_err(of_group_error)?;
            let names: Vec<TopicName> = topics.iter().map(|(name, _)| name.clone()).collect();
            let refused = ctx.refused(Operation::Describe, ResourceType::Topic, names.iter().map(TopicName::as_str));
            topics.retain(|(name, _)| !refused.contains(name.as_str()));
            Ok(topics.into_iter().map(|(name, offsets)| (name, offsets.into_iter().map(found).collect())).collect())
        };
        return answer.map(shown).boxed();
    };
    let names: Vec<TopicName> = topics.iter().map(|(name, _)| name.clone()).collect();
    let refused = ctx.refused(Operation::Describe, ResourceType::Topic, names.iter().map(TopicName::as_str));
    let refused: Vec<_> = topics.extract_if(.., |(name, _)| refused.contains(name.as_str())).collect();
    let answer = ctx.handles.groups.fetch(request).await;
    let told = move |answer: Result<FetchReply, GroupError>| {
        let found =
            answer.map_err(of_group_error)?.into_iter().map(|(name, of)| (name, of.into_iter().map(found).collect()));
        let unseen = |index: PartitionIndex| (unknown(index), ResponseError::TopicAuthorizationFailed.code());
        let refused = refused.into_iter().map(|(name, indexes)| (name, indexes.into_iter().map(unseen).collect()));
        Ok(found.chain(refused).collect())
    };
    answer.map(told).boxed()
}

/// The offsets of topics, with a code each; or why there are none.
type Answer = Result<Vec<(TopicName, Vec<(FetchedOffset, i16)>)>, ResponseError>;

fn found(offset: FetchedOffset) -> (FetchedOffset, i16) {
    let code = of_group_answer(offset.error);
    (offset, code)
}

fn unknown(partition: PartitionIndex) -> FetchedOffset {
    FetchedOffset { partition, offset: Offset::NONE, leader_epoch: LeaderEpoch::NONE, metadata: "".into(), error: None }
}

fn asked(topic: &str, partitions: &[i32]) -> (TopicName, Vec<PartitionIndex>) {
    (TopicName::new(topic), partitions.iter().map(|&index| PartitionIndex(index)).collect())
}

fn wire_name(topic: &TopicName) -> WireTopicName {
    WireTopicName(text(topic.as_str()))
}

/// Versions 1 to 7: one group, its error at the top.
fn single(answer: Answer, asked: &[(TopicName, Vec<PartitionIndex>)], version: i16) -> OffsetFetchResponse {
    let error = match answer {
        Ok(topics) => {
            let topic = |(topic, offsets): (TopicName, Vec<(FetchedOffset, i16)>)| {
                let partition = |(offset, code): (FetchedOffset, i16)| {
                    OffsetFetchResponsePartition::default()
                        .with_partition_index(offset.partition.0)
                        .with_committed_offset(offset.offset.0)
                        .with_committed_leader_epoch(offset.leader_epoch.0)
                        .with_metadata(Some(text(offset.metadata)))
                        .with_error_code(code)
                };
                OffsetFetchResponseTopic::default()
                    .with_name(wire_name(&topic))
                    .with_partitions(offsets.into_iter().map(partition).collect())
            };
            return OffsetFetchResponse::default().with_topics(topics.into_iter().map(topic).collect());
        }
        Err(error) => error,
    };
    if version >= 2 {
        return OffsetFetchResponse::default().with_error_code(error.code());
    }
    let partition = |index: &PartitionIndex| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(index.0)
            .with_committed_offset(-1)
            .with_metadata(Some(text("")))
            .with_error_code(error.code())
    };
    let topic = |(topic, partitions): &(TopicName, Vec<PartitionIndex>)| {
        OffsetFetchResponseTopic::default()
            .with_name(wire_name(topic))
            .with_partitions(partitions.iter().map(partition).collect())
    };
    OffsetFetchResponse::default().with_topics(asked.iter().map(topic).collect())
}

/// Versions 8 and 9: one group of a batch.
fn one_of_many(group: GroupId, answer: Answer) -> OffsetFetchResponseGroup {
    let response = OffsetFetchResponseGroup::default().with_group_id(group);
    let topics = match answer {
        Ok(topics) => topics,
        Err(error) => return response.with_error_code(error.code()),
    };
    let partition = |(offset, code): (FetchedOffset, i16)| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(offset.partition.0)
            .with_committed_offset(offset.offset.0)
            .with_committed_leader_epoch(offset.leader_epoch.0)
            .with_metadata(Some(text(offset.metadata)))
            .with_error_code(code)
    };
    let topic = |(topic, offsets): (TopicName, Vec<(FetchedOffset, i16)>)| {
        OffsetFetchResponseTopics::default()
            .with_name(wire_name(&topic))
            .with_partitions(offsets.into_iter().map(partition).collect())
    };
    response.with_topics(topics.into_iter().map(topic).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec::encode_response;

    fn fetched() -> Vec<(TopicName, Vec<(FetchedOffset, i16)>)> {
        let offset = FetchedOffset {
            partition: PartitionIndex(1),
            offset: Offset(5),
            leader_epoch: LeaderEpoch(2),
            metadata: "m".into(),
            error: None,
        };
        vec![("t".into(), vec![found(offset)])]
    }

    #[test]
    fn answers_and_refusals_encode_in_every_version() {
        let asked = [asked("t", &[1])];
        for version in OffsetFetch::VERSIONS {
            for answer in [Ok(fetched()), Err(ResponseError::NotCoordinator)] {
                let response = match version {
                    8.. => OffsetFetchResponse::default().with_groups(vec![one_of_many(GroupId::default(), answer)]),
                    _ => single(answer, &asked, version),
                };
                assert!(encode_response(&response, version).is_ok(), "{version}");
            }
        }
    }

    #[test]
    fn a_pending_offset_is_the_partitions_error() {
        let mut unstable = fetched();
        unstable[0].1[0].0.error = Some(GroupError::UnstableOffsetCommit);
        unstable[0].1[0] = found(unstable[0].1[0].0.clone());
        let before_8 = single(Ok(unstable.clone()), &[], 7);
        let of_many = one_of_many(GroupId::default(), Ok(unstable));
        assert_eq!((before_8.error_code, before_8.topics[0].partitions[0].error_code), (0, 88));
        assert_eq!((of_many.error_code, of_many.topics[0].partitions[0].error_code), (0, 88));
    }

    #[test]
    fn version_1_has_its_error_in_the_partitions() {
        let refused = single(Err(ResponseError::NotCoordinator), &[asked("t", &[1])], 1);
        let partition = &refused.topics[0].partitions[0];
        assert_eq!((partition.error_code, partition.committed_offset), (16, -1));
    }
}
