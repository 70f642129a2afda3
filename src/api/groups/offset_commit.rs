//! OffsetCommit (8), versions 2–9: remember how far a group has read.
//!
//! Behaviour
//! - Needs READ of the group, GROUP_AUTHORIZATION_FAILED (30) for every partition else, and of each topic,
//!   TOPIC_AUTHORIZATION_FAILED (29).
//! - A partition that does not exist: UNKNOWN_TOPIC_OR_PARTITION (3); the others are committed all the same.
//! - Generation −1 without a member id is a simple consumer's or an administrator's: accepted while the group is empty,
//!   else UNKNOWN_MEMBER_ID (25). While the group waits for its assignment: REBALANCE_IN_PROGRESS (27).
//! - Metadata longer than `offset.metadata.max.bytes`: OFFSET_METADATA_TOO_LARGE (12). More than fits one batch:
//!   INVALID_COMMIT_OFFSET_SIZE (28).
//!
//! Versions: 2–4 carry a retention, −1 for the broker's; 3 throttle time; 6 leader epoch (KIP-320); 7 instance id
//! (KIP-345); 8 flexible; 9 member epoch in the place of the generation (KIP-848), here always a classic generation.
//! Versions 0 and 1 are not served: the codec does not have them. Ignored: nothing.
//! Source: Kafka 3.9 `KafkaApis.handleOffsetCommitRequest`, `GroupCoordinator.doCommitOffsets`.

use std::ops::RangeInclusive;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_response::{OffsetCommitResponsePartition, OffsetCommitResponseTopic};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::of_group_error;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::committed;
use crate::api::shared::strings::{opt_str, str_arc};
use crate::coordinator::group::request::{CommitReply, CommitRequest, CommittedOffset};
use crate::types::acl::{Operation, ResourceType};
use crate::types::limits;

/// OffsetCommit.
#[derive(Debug)]
pub(crate) struct OffsetCommit;

impl Handler for OffsetCommit {
    type Req = OffsetCommitRequest;
    const VERSIONS: RangeInclusive<i16> = 2..=9;
    const AUTHORIZATION: Authorization =
        Authorization::Of(&[(Operation::Read, ResourceType::Group), (Operation::Read, ResourceType::Topic)]);
    const FRAME_BYTES_MAX: usize = limits::GROUP_FRAME_BYTES_MAX;

    async fn handle(ctx: RequestContext, req: OffsetCommitRequest) -> Reply<OffsetCommitResponse> {
        if !ctx.may(Operation::Read, ResourceType::Group, &req.group_id) {
            let count = req.topics.iter().map(|topic| topic.partitions.len()).sum();
            let refused = vec![Some(ResponseError::GroupAuthorizationFailed); count];
            return Reply::Now(response(&req, &refused, &CommitReply::default()));
        }
        let offsets = known_offsets(&ctx, &req);
        let known: Vec<Option<ResponseError>> = offsets.iter().map(|offset| offset.as_ref().err().copied()).collect();
        if !known.contains(&None) {
            return Reply::Now(response(&req, &known, &CommitReply::default()));
        }
        let answer = ctx
            .handles
            .groups
            .commit(CommitRequest {
                group: str_arc(&req.group_id),
                member_id: str_arc(&req.member_id),
                instance_id: opt_str(req.group_instance_id.as_ref()),
                generation_id: req.generation_id_or_member_epoch,
                retention_ms: Some(req.retention_time_ms).filter(|&ms| ms != -1),
                offsets: offsets.into_iter().flatten().collect(),
            })
            .await;
        Reply::Later(answer.map(move |reply| response(&req, &known, &reply)).boxed())
    }
}

fn known_offsets(ctx: &RequestContext, req: &OffsetCommitRequest) -> Vec<Result<CommittedOffset, ResponseError>> {
    let topics = req.topics.iter().map(|topic| {
        let requested = topic.partitions.iter().map(|partition| {
            let metadata = partition.committed_metadata.as_deref();
            (partition.partition_index, partition.committed_offset, partition.committed_leader_epoch, metadata)
        });
        (topic.name.as_str(), requested)
    });
    committed::known_offsets(ctx, topics)
}

/// `known`: why a partition was not asked to be committed; the reply counts only the others.
fn response(req: &OffsetCommitRequest, known: &[Option<ResponseError>], reply: &CommitReply) -> OffsetCommitResponse {
    let requested = req.topics.iter().map(|topic| (&topic.name, topic.partitions.iter().map(|p| p.partition_index)));
    let partition =
        |index, code| OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code);
    let topic = |name, partitions| OffsetCommitResponseTopic::default().with_name(name).with_partitions(partitions);
    let topics =
        committed::answers(requested, known, |index| reply.error_of(index).map(of_group_error), partition, topic);
    OffsetCommitResponse::default().with_topics(topics)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};

    use crate::coordinator::group::error::GroupError;
    use crate::wire::codec::encode_response;

    #[test]
    fn each_partition_has_its_own_error_in_every_version() {
        let partition = |index| OffsetCommitRequestPartition::default().with_partition_index(index);
        let topic = OffsetCommitRequestTopic::default().with_partitions((0..4).map(partition).collect());
        let req = OffsetCommitRequest::default().with_topics(vec![topic]);
        // Partition 1 does not exist; of the three that were asked for, the second has too much metadata.
        let reply = CommitReply { error: Some(GroupError::RebalanceInProgress), too_long: vec![1] };
        let response = response(&req, &[None, Some(ResponseError::UnknownTopicOrPartition), None, None], &reply);
        let codes: Vec<i16> = response.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
        assert_eq!(codes, [27, 3, 12, 27]);
        for version in OffsetCommit::VERSIONS {
            assert!(encode_response(&response, version).is_ok(), "{version}");
        }
    }
}
