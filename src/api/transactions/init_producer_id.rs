//! InitProducerId (22), versions 0–5: a producer id for an idempotent producer, a new epoch for a transactional one.
//!
//! Behaviour
//! - Needs WRITE of the transactional id, TRANSACTIONAL_ID_AUTHORIZATION_FAILED (53); without one IDEMPOTENT_WRITE on
//!   the cluster or WRITE of any topic, CLUSTER_AUTHORIZATION_FAILED (31; KIP-679).
//! - Without a transactional id: a new id and epoch 0, always; ids come from blocks of 1,000, so most calls ask no
//!   controller. A given id and epoch (3+) are not bumped: an idempotent producer gets a new id. One of them alone:
//!   INVALID_REQUEST (42).
//! - While no controller gives a block: COORDINATOR_LOAD_IN_PROGRESS (14), which clients repeat.
//! - With a transactional id: its producer id with a higher epoch, which fences the owner of the former one. While a
//!   transaction is open or ends: CONCURRENT_TRANSACTIONS (51), which clients repeat; an open one is aborted.
//! - A given id and epoch (3+) have to be those of the present, or of just before: else PRODUCER_FENCED (90), below
//!   version 4 INVALID_PRODUCER_EPOCH (47).
//! - A time-out that is not positive, or above `transaction.max.timeout.ms`: INVALID_TRANSACTION_TIMEOUT (50). An empty
//!   transactional id: INVALID_REQUEST.
//!
//! Versions: 2 flexible; 3 id and epoch (KIP-360); 4 PRODUCER_FENCED (KIP-588); 5 as 4 (transactions v2 are not
//! announced). Ignored: nothing. Source: Kafka 3.9 `KafkaApis.handleInitProducerIdRequest`.

use std::ops::RangeInclusive;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId as WireProducerId};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::of_transaction_error_for;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::strings::str_arc;
use crate::cluster::control::ControllerError;
use crate::coordinator::transaction::error::TransactionError;
use crate::coordinator::transaction::request::Producer;
use crate::types::acl::{Operation, ResourceType};
use crate::types::{ProducerEpoch, ProducerId};

const NONE: i16 = -1;
const VERSION_FENCED: i16 = 4;

pub(crate) struct InitProducerId;

impl Handler for InitProducerId {
    type Req = InitProducerIdRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const AUTHORIZATION: Authorization = Authorization::Of(&[
        (Operation::Write, ResourceType::TransactionalId),
        (Operation::IdempotentWrite, ResourceType::Cluster),
        (Operation::Write, ResourceType::Topic),
    ]);

    async fn handle(ctx: RequestContext, req: InitProducerIdRequest) -> Reply<InitProducerIdResponse> {
        if let Some(error) = unauthorized(&ctx, &req).or_else(|| refuse(&req)) {
            return Reply::Now(refused(error));
        }
        if let Some(id) = &req.transactional_id {
            let knows_fencing = ctx.version >= VERSION_FENCED;
            let transactions = &ctx.handles.transactions;
            let answer = transactions.init_producer_id(str_arc(id), req.transaction_timeout_ms, expected(&req)).await;
            return Reply::Later(answer.map(move |given| answered(knows_fencing, given)).boxed());
        }
        Reply::Later(
            async move {
                match ctx.handles.producer_ids.next().await {
                    Ok(id) => {
                        InitProducerIdResponse::default().with_producer_id(WireProducerId(id.0)).with_producer_epoch(0)
                    }
                    Err(error) => refused(of_controller_error(&error)),
                }
            }
            .boxed(),
        )
    }
}

fn unauthorized(ctx: &RequestContext, req: &InitProducerIdRequest) -> Option<ResponseError> {
    if let Some(id) = &req.transactional_id {
        let may = ctx.may(Operation::Write, ResourceType::TransactionalId, id);
        return (!may).then_some(ResponseError::TransactionalIdAuthorizationFailed);
    }
    let may = ctx.may_perhaps_on_cluster(Operation::IdempotentWrite)
        || ctx.may_to_some(Operation::Write, ResourceType::Topic);
    (!may).then_some(ResponseError::ClusterAuthorizationFailed)
}

fn refuse(req: &InitProducerIdRequest) -> Option<ResponseError> {
    let one_alone = (req.producer_id.0 == i64::from(NONE)) != (req.producer_epoch == NONE);
    let empty = req.transactional_id.as_ref().is_some_and(|id| id.is_empty());
    (one_alone || empty).then_some(ResponseError::InvalidRequest)
}

/// What the producer believes to have.
fn expected(req: &InitProducerIdRequest) -> Option<Producer> {
    let producer = (ProducerId(req.producer_id.0), ProducerEpoch(req.producer_epoch));
    (req.producer_epoch != NONE).then_some(producer)
}

fn answered(knows_fencing: bool, given: Result<Producer, TransactionError>) -> InitProducerIdResponse {
    match given {
        Ok((id, epoch)) => {
            InitProducerIdResponse::default().with_producer_id(WireProducerId(id.0)).with_producer_epoch(epoch.0)
        }
        Err(error) => refused(of_transaction_error_for(knows_fencing, error)),
    }
}

fn refused(error: ResponseError) -> InitProducerIdResponse {
    InitProducerIdResponse::default()
        .with_error_code(error.code())
        .with_producer_id(WireProducerId(i64::from(NONE)))
        .with_producer_epoch(NONE)
}

/// Whatever keeps the controller from giving ids passes.
fn of_controller_error(error: &ControllerError) -> ResponseError {
    match error {
        ControllerError::NotController
        | ControllerError::StaleBrokerEpoch
        | ControllerError::BrokerNotAvailable
        | ControllerError::BrokerIdNotRegistered
        | ControllerError::Unavailable(_) => ResponseError::CoordinatorLoadInProgress,
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::TransactionalId;
    use kafka_protocol::protocol::StrBytes;

    use super::*;

    fn request(transactional_id: Option<&'static str>, producer_id: i64, epoch: i16) -> InitProducerIdRequest {
        InitProducerIdRequest::default()
            .with_transactional_id(transactional_id.map(|id| TransactionalId(StrBytes::from_static_str(id))))
            .with_producer_id(WireProducerId(producer_id))
            .with_producer_epoch(epoch)
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        for id in [None, Some("t")] {
            assert_eq!(refuse(&request(id, -1, -1)), None);
            assert_eq!(refuse(&request(id, 5, 1)), None);
            assert_eq!(refuse(&request(id, 5, -1)), Some(ResponseError::InvalidRequest));
            assert_eq!(refuse(&request(id, -1, 1)), Some(ResponseError::InvalidRequest));
        }
        assert_eq!(refuse(&request(Some(""), -1, -1)), Some(ResponseError::InvalidRequest));
    }

    #[test]
    fn the_expected_producer_comes_from_version_3_on() {
        assert_eq!(expected(&request(Some("t"), -1, -1)), None);
        assert_eq!(expected(&request(Some("t"), 5, 0)), Some((ProducerId(5), ProducerEpoch(0))));
    }

    #[test]
    fn old_clients_know_fencing_by_its_former_code() {
        let fenced = |knows| answered(knows, Err(TransactionError::ProducerFenced)).error_code;
        assert_eq!((fenced(false), fenced(true)), (47, 90));
        let given = answered(true, Ok((ProducerId(7), ProducerEpoch(2))));
        assert_eq!((given.error_code, given.producer_id.0, given.producer_epoch), (0, 7, 2));
    }

    #[test]
    fn answers_encode_in_every_version() {
        for version in InitProducerId::VERSIONS {
            let response = refused(ResponseError::InvalidTransactionTimeout);
            crate::wire::codec::encode_response(&response, version).unwrap();
        }
    }
}
