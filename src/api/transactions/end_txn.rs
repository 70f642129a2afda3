//! EndTxn (26), versions 0–4: a producer commits or aborts its transaction.
//!
//! Behaviour
//! - Needs WRITE of the transactional id: TRANSACTIONAL_ID_AUTHORIZATION_FAILED (53).
//! - Answers when the outcome is stored; the markers follow, and until they are written the producer's next steps are
//!   CONCURRENT_TRANSACTIONS (51), which clients retry.
//! - The same outcome again succeeds, the other one, or an end without a transaction, is INVALID_TXN_STATE (48).
//! - The producer's id is not that of the transactional id: INVALID_PRODUCER_ID_MAPPING (49); another epoch:
//!   PRODUCER_FENCED (90), below version 2 INVALID_PRODUCER_EPOCH (47).
//!
//! Versions: 1 as 0; 2 PRODUCER_FENCED; 3 flexible; 4 as 3. 5 is transactions v2, which are not announced. Ignored:
//! nothing. Source: Kafka 3.9 `KafkaApis.handleEndTxnRequest`.

use std::ops::RangeInclusive;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{EndTxnRequest, EndTxnResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::of_transaction_error_for;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::strings::str_arc;
use crate::coordinator::transaction::request::EndRequest;
use crate::types::acl::{Operation, ResourceType};
use crate::types::{ProducerEpoch, ProducerId, TransactionResult, limits};

const VERSION_FENCED: i16 = 2;

/// EndTxn.
#[derive(Debug)]
pub(crate) struct EndTxn;

impl Handler for EndTxn {
    type Req = EndTxnRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=4;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Write, ResourceType::TransactionalId)]);
    const FRAME_BYTES_MAX: usize = limits::GROUP_FRAME_BYTES_MAX;

    async fn handle(ctx: RequestContext, req: EndTxnRequest) -> Reply<EndTxnResponse> {
        if !ctx.may(Operation::Write, ResourceType::TransactionalId, &req.transactional_id) {
            let refused = ResponseError::TransactionalIdAuthorizationFailed.code();
            return Reply::Now(EndTxnResponse::default().with_error_code(refused));
        }
        let request = EndRequest {
            id: str_arc(&req.transactional_id),
            producer: (ProducerId(req.producer_id.0), ProducerEpoch(req.producer_epoch)),
            result: if req.committed { TransactionResult::Commit } else { TransactionResult::Abort },
        };
        let knows_fencing = ctx.version >= VERSION_FENCED;
        let answer = ctx.handles.transactions.end(request).await;
        let code = move |ended: Result<(), _>| match ended {
            Ok(()) => 0,
            Err(error) => of_transaction_error_for(knows_fencing, error).code(),
        };
        Reply::Later(answer.map(move |ended| EndTxnResponse::default().with_error_code(code(ended))).boxed())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_encode_in_every_version() {
        for version in EndTxn::VERSIONS {
            let response = EndTxnResponse::default().with_error_code(48);
            assert!(crate::wire::codec::encode_response(&response, version).is_ok(), "{version}");
        }
    }
}
