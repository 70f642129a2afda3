//! TxnOffsetCommit (28), versions 0–4: a producer commits offsets of a group in its transaction.
//!
//! Behaviour
//! - Needs WRITE of the transactional id, TRANSACTIONAL_ID_AUTHORIZATION_FAILED (53) for every partition else, READ of
//!   the group, GROUP_AUTHORIZATION_FAILED (30), and of each topic, TOPIC_AUTHORIZATION_FAILED (29).
//! - A partition that does not exist: UNKNOWN_TOPIC_OR_PARTITION (3); the others are committed all the same.
//! - What is committed counts, and is fetched, once the marker of the transaction is in the group's partition of
//!   `__consumer_offsets`. That partition has to be in the transaction (AddOffsetsToTxn): else INVALID_TXN_STATE (48).
//!   A producer with a newer epoch has written: INVALID_PRODUCER_EPOCH (47).
//! - A request that names a member, a generation or an instance has to come from that member, of the current
//!   generation: UNKNOWN_MEMBER_ID (25), ILLEGAL_GENERATION (22), FENCED_INSTANCE_ID (82).
//! - An empty group id: INVALID_GROUP_ID (24). Metadata longer than `offset.metadata.max.bytes`:
//!   OFFSET_METADATA_TOO_LARGE (12). More than fits one batch: INVALID_COMMIT_OFFSET_SIZE (28).
//!
//! Versions: below 2 COORDINATOR_LOAD_IN_PROGRESS becomes COORDINATOR_NOT_AVAILABLE, because producers of that time do
//! not survive it (KAFKA-7296); 2 leader epoch; 3 flexible, member id, generation and instance id (KIP-447); 4
//! TRANSACTION_ABORTABLE (KIP-890). Version 5 is of transactions version 2 and not announced without it.
//! Source: Kafka 3.9 `KafkaApis.handleTxnOffsetCommitRequest`, `GroupCoordinator.handleTxnCommitOffsets`.

use std::ops::RangeInclusive;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{TxnOffsetCommitRequest, TxnOffsetCommitResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::{of_group_error, of_transaction_error};
use crate::api::handler::{Handler, Reply};
use crate::api::shared::committed;
use crate::api::shared::strings::{opt_str, str_arc};
use crate::api::shared::verification::ask;
use crate::coordinator::group::request::{CommitReply, CommittedOffset, TxnCommitRequest};
use crate::coordinator::transaction::error::TransactionError;
use crate::coordinator::transaction::request::{PartitionsRequest, Producer};
use crate::coordinator::writer::InTransaction;
use crate::types::acl::{Operation, ResourceType};
use crate::types::topic::CONSUMER_OFFSETS;
use crate::types::{ProducerEpoch, ProducerId, TopicName, TopicPartition, limits};

/// From here on clients know what to do while a coordinator loads.
const VERSION_LOADING: i16 = 2;
/// From here on clients know TRANSACTION_ABORTABLE.
const VERSION_ABORTABLE: i16 = 4;

/// TxnOffsetCommit.
#[derive(Debug)]
pub(crate) struct TxnOffsetCommit;

impl Handler for TxnOffsetCommit {
    type Req = TxnOffsetCommitRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=4;
    const AUTHORIZATION: Authorization = Authorization::Of(&[
        (Operation::Write, ResourceType::TransactionalId),
        (Operation::Read, ResourceType::Group),
        (Operation::Read, ResourceType::Topic),
    ]);
    const FRAME_BYTES_MAX: usize = limits::GROUP_FRAME_BYTES_MAX;

    async fn handle(ctx: RequestContext, req: TxnOffsetCommitRequest) -> Reply<TxnOffsetCommitResponse> {
        let version = ctx.version;
        if let Err(error) = authorize(&ctx, &req) {
            let count = req.topics.iter().map(|topic| topic.partitions.len()).sum();
            return Reply::Now(response(&req, &vec![Some(error); count], |_| None));
        }
        let offsets = known_offsets(&ctx, &req);
        let known: Vec<Option<ResponseError>> = offsets.iter().map(|offset| offset.as_ref().err().copied()).collect();
        if !known.contains(&None) {
            return Reply::Now(response(&req, &known, |_| None));
        }
        let (group, producer_id) = (str_arc(&req.group_id), ProducerId(req.producer_id.0));
        let producer_epoch = ProducerEpoch(req.producer_epoch);
        let guard = ctx.handles.groups.begin_verification(&group, producer_id, producer_epoch);
        if guard.is_some()
            && let Err(error) = verify(&ctx, &req, (producer_id, producer_epoch)).await
        {
            return Reply::Now(response(&req, &known, |_| Some(for_version(of_verification(error), version))));
        }
        let answer = ctx
            .handles
            .groups
            .txn_commit(TxnCommitRequest {
                group,
                member_id: str_arc(&req.member_id),
                instance_id: opt_str(req.group_instance_id.as_ref()),
                generation_id: req.generation_id,
                transaction: InTransaction { producer_id, producer_epoch, guard },
                offsets: offsets.into_iter().flatten().collect(),
            })
            .await;
        let answered = move |reply: CommitReply| {
            response(&req, &known, |index| {
                reply.error_of(index).map(|error| for_version(of_group_error(error), version))
            })
        };
        Reply::Later(answer.map(answered).boxed())
    }
}

fn authorize(ctx: &RequestContext, req: &TxnOffsetCommitRequest) -> Result<(), ResponseError> {
    if !ctx.may(Operation::Write, ResourceType::TransactionalId, &req.transactional_id) {
        return Err(ResponseError::TransactionalIdAuthorizationFailed);
    }
    match ctx.may(Operation::Read, ResourceType::Group, &req.group_id) {
        true => Ok(()),
        false => Err(ResponseError::GroupAuthorizationFailed),
    }
}

/// Asks the transaction coordinator whether the group's partition of `__consumer_offsets` is in the transaction.
///
/// # Errors
/// What the coordinator answers; INVALID_TXN_STATE, or from version 4 on TRANSACTION_ABORTABLE, if it is not in it.
/// Source: Kafka 3.9 `AddPartitionsToTxnManager`, `ReplicaManager.maybeStartTransactionVerificationForPartition`.
async fn verify(ctx: &RequestContext, req: &TxnOffsetCommitRequest, producer: Producer) -> Result<(), ResponseError> {
    let partition = ctx.handles.groups.partition_of(&req.group_id).ok_or(ResponseError::NotCoordinator)?;
    let partitions = vec![TopicPartition { topic: TopicName::new(CONSUMER_OFFSETS), partition }];
    let answers = ask(ctx, PartitionsRequest { id: str_arc(&req.transactional_id), producer, partitions }).await;
    answers.into_iter().collect::<Result<(), _>>().map_err(|error| match error {
        TransactionError::InvalidTxnState if ctx.version >= VERSION_ABORTABLE => ResponseError::TransactionAbortable,
        TransactionError::ProducerFenced => ResponseError::InvalidProducerEpoch,
        other => of_transaction_error(other),
    })
}

/// Errors of the verification as clients of this API know them. Source: Kafka 3.9
/// `GroupMetadataManager.maybeConvertOffsetCommitError`.
fn of_verification(error: ResponseError) -> ResponseError {
    match error {
        // Clients that do not expect it repeat this one, without looking for another coordinator.
        ResponseError::NetworkException => ResponseError::CoordinatorLoadInProgress,
        ResponseError::UnknownTopicOrPartition
        | ResponseError::NotEnoughReplicas
        | ResponseError::NotEnoughReplicasAfterAppend => ResponseError::CoordinatorNotAvailable,
        ResponseError::NotLeaderOrFollower | ResponseError::KafkaStorageError => ResponseError::NotCoordinator,
        other => other,
    }
}

fn for_version(error: ResponseError, version: i16) -> ResponseError {
    match error {
        ResponseError::CoordinatorLoadInProgress if version < VERSION_LOADING => ResponseError::CoordinatorNotAvailable,
        other => other,
    }
}

fn known_offsets(ctx: &RequestContext, req: &TxnOffsetCommitRequest) -> Vec<Result<CommittedOffset, ResponseError>> {
    let topics = req.topics.iter().map(|topic| {
        let requested = topic.partitions.iter().map(|partition| {
            let metadata = partition.committed_metadata.as_deref();
            (partition.partition_index, partition.committed_offset, partition.committed_leader_epoch, metadata)
        });
        (topic.name.as_str(), requested)
    });
    committed::known_offsets(ctx, topics)
}

/// `known`: why a partition was not asked to be committed; `error_of` answers for the others, by their number among
/// them.
fn response(
    req: &TxnOffsetCommitRequest,
    known: &[Option<ResponseError>],
    error_of: impl Fn(usize) -> Option<ResponseError>,
) -> TxnOffsetCommitResponse {
    let requested = req.topics.iter().map(|topic| (&topic.name, topic.partitions.iter().map(|p| p.partition_index)));
    let partition =
        |index, code| TxnOffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(code);
    let topic = |name, partitions| TxnOffsetCommitResponseTopic::default().with_name(name).with_partitions(partitions);
    let topics = committed::answers(requested, known, error_of, partition, topic);
    TxnOffsetCommitResponse::default().with_topics(topics)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::txn_offset_commit_request::{
        TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
    };

    use super::*;
    use crate::coordinator::group::error::GroupError;
    use crate::wire::codec::encode_response;

    #[test]
    fn each_partition_has_its_own_error_in_every_version() {
        let partition = |index| TxnOffsetCommitRequestPartition::default().with_partition_index(index);
        let topic = TxnOffsetCommitRequestTopic::default().with_partitions((0..4).map(partition).collect());
        let req = TxnOffsetCommitRequest::default().with_topics(vec![topic]);
        // Partition 1 does not exist; of the three that were asked for, the second has too much metadata.
        let reply = CommitReply { error: Some(GroupError::InvalidTxnState), too_long: vec![1] };
        let response = response(&req, &[None, Some(ResponseError::UnknownTopicOrPartition), None, None], |at| {
            reply.error_of(at).map(of_group_error)
        });
        let codes: Vec<i16> = response.topics[0].partitions.iter().map(|partition| partition.error_code).collect();
        assert_eq!(codes, [48, 3, 12, 48]);
        for version in TxnOffsetCommit::VERSIONS {
            assert!(encode_response(&response, version).is_ok(), "{version}");
        }
    }

    #[test]
    fn old_producers_are_not_told_that_a_coordinator_loads() {
        let loading = ResponseError::CoordinatorLoadInProgress;
        assert_eq!([1, 2].map(|version| for_version(loading, version).code()), [15, 14]);
        assert_eq!(for_version(of_verification(ResponseError::NetworkException), 0).code(), 15);
        assert_eq!(of_verification(ResponseError::NotEnoughReplicas).code(), 15);
        assert_eq!(of_verification(ResponseError::KafkaStorageError).code(), 16);
        assert_eq!(of_verification(ResponseError::InvalidTxnState).code(), 48);
    }
}
