//! AddOffsetsToTxn (25), versions 0–4: a group's offsets join a producer's transaction.
//!
//! Behaviour
//! - Needs WRITE of the transactional id, TRANSACTIONAL_ID_AUTHORIZATION_FAILED (53), and READ of the group,
//!   GROUP_AUTHORIZATION_FAILED (30).
//! - Adds the partition of `__consumer_offsets` that keeps the group, with the errors of AddPartitionsToTxn. The topic
//!   is created if there is none yet; until it is there, COORDINATOR_NOT_AVAILABLE (15), which clients retry.
//! - Below version 2 PRODUCER_FENCED (90) is INVALID_PRODUCER_EPOCH (47).
//!
//! Versions: 1 as 0; 2 PRODUCER_FENCED; 3 flexible; 4 as 3. Ignored: nothing.
//! Source: Kafka 3.9 `KafkaApis.handleAddOffsetsToTxnRequest`.

use std::ops::RangeInclusive;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{AddOffsetsToTxnRequest, AddOffsetsToTxnResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::of_transaction_error_for;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::internal_topics;
use crate::api::shared::strings::str_arc;
use crate::coordinator::transaction::request::PartitionsRequest;
use crate::types::acl::{Operation, ResourceType};
use crate::types::topic::CONSUMER_OFFSETS;
use crate::types::{ProducerEpoch, ProducerId, TopicName, TopicPartition, limits};

const VERSION_FENCED: i16 = 2;

/// AddOffsetsToTxn.
#[derive(Debug)]
pub(crate) struct AddOffsetsToTxn;

impl Handler for AddOffsetsToTxn {
    type Req = AddOffsetsToTxnRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=4;
    const AUTHORIZATION: Authorization =
        Authorization::Of(&[(Operation::Write, ResourceType::TransactionalId), (Operation::Read, ResourceType::Group)]);
    const FRAME_BYTES_MAX: usize = limits::GROUP_FRAME_BYTES_MAX;

    async fn handle(ctx: RequestContext, req: AddOffsetsToTxnRequest) -> Reply<AddOffsetsToTxnResponse> {
        if !ctx.may(Operation::Write, ResourceType::TransactionalId, &req.transactional_id) {
            return Reply::Now(answered(ResponseError::TransactionalIdAuthorizationFailed.code()));
        }
        if !ctx.may(Operation::Read, ResourceType::Group, &req.group_id) {
            return Reply::Now(answered(ResponseError::GroupAuthorizationFailed.code()));
        }
        if let Err(error) = internal_topics::ensure(&ctx, CONSUMER_OFFSETS).await {
            return Reply::Now(answered(error.code()));
        }
        let Some(partition) = ctx.handles.groups.partition_of(&req.group_id) else {
            return Reply::Now(answered(ResponseError::CoordinatorNotAvailable.code()));
        };
        let request = PartitionsRequest {
            id: str_arc(&req.transactional_id),
            producer: (ProducerId(req.producer_id.0), ProducerEpoch(req.producer_epoch)),
            partitions: vec![TopicPartition { topic: TopicName::new(CONSUMER_OFFSETS), partition }],
        };
        let knows_fencing = ctx.version >= VERSION_FENCED;
        let answer = ctx.handles.transactions.add_partitions(request).await;
        let code = move |added: Result<(), _>| match added {
            Ok(()) => 0,
            Err(error) => of_transaction_error_for(knows_fencing, error).code(),
        };
        Reply::Later(answer.map(move |added| answered(code(added))).boxed())
    }
}

fn answered(code: i16) -> AddOffsetsToTxnResponse {
    AddOffsetsToTxnResponse::default().with_error_code(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_encode_in_every_version() {
        for version in AddOffsetsToTxn::VERSIONS {
            assert!(crate::wire::codec::encode_response(&answered(51), version).is_ok(), "{version}");
        }
    }
}
