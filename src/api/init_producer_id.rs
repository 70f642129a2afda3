//! InitProducerId (22), versions 0–5: a producer id for an idempotent producer.
//!
//! Behaviour
//! - Without a transactional id: a new id and epoch 0, always; ids come from blocks of 1,000, so most calls ask nobody.
//!   A given id and epoch (3+) are not bumped: an idempotent producer gets a new id. One of them alone: INVALID_REQUEST
//!   (42).
//! - While no controller gives a block: COORDINATOR_LOAD_IN_PROGRESS (14), which clients repeat.
//! - With a transactional id: TRANSACTIONAL_ID_AUTHORIZATION_FAILED (53), which is fatal to a producer, until
//!   transactions exist; an empty one: INVALID_REQUEST.
//!
//! Versions: 2 flexible; 3 id and epoch (KIP-360); 4 PRODUCER_FENCED and 5 transactions v2, which concern transactional
//! ids alone. Ignored: transaction_timeout_ms. Source: Kafka 3.9 `KafkaApis.handleInitProducerIdRequest`.

use std::ops::RangeInclusive;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{InitProducerIdRequest, InitProducerIdResponse, ProducerId as WireProducerId};

use super::context::RequestContext;
use super::handler::{Handler, Reply};
use crate::cluster::control::ControllerError;

const NONE: i16 = -1;

pub(crate) struct InitProducerId;

impl Handler for InitProducerId {
    type Req = InitProducerIdRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=5;

    async fn handle(ctx: RequestContext, req: InitProducerIdRequest) -> Reply<InitProducerIdResponse> {
        if let Some(error) = refuse(&req) {
            return Reply::Now(refused(error));
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

fn refuse(req: &InitProducerIdRequest) -> Option<ResponseError> {
    let one_alone = (req.producer_id.0 == i64::from(NONE)) != (req.producer_epoch == NONE);
    match &req.transactional_id {
        Some(id) if !id.is_empty() => Some(ResponseError::TransactionalIdAuthorizationFailed),
        Some(_) => Some(ResponseError::InvalidRequest),
        None => one_alone.then_some(ResponseError::InvalidRequest),
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
        ControllerError::NotController | ControllerError::StaleBrokerEpoch | ControllerError::Unavailable(_) => {
            ResponseError::CoordinatorLoadInProgress
        }
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
    fn transactional_ids_are_refused_for_good() {
        assert_eq!(refuse(&request(Some("t"), -1, -1)), Some(ResponseError::TransactionalIdAuthorizationFailed));
        assert_eq!(refuse(&request(Some(""), -1, -1)), Some(ResponseError::InvalidRequest));
        assert_eq!(refuse(&request(None, -1, -1)), None);
        assert_eq!(refuse(&request(None, 5, 1)), None);
        assert_eq!(refuse(&request(None, 5, -1)), Some(ResponseError::InvalidRequest));
        assert_eq!(refuse(&request(None, -1, 1)), Some(ResponseError::InvalidRequest));
    }

    #[test]
    fn answers_encode_in_every_version() {
        for version in InitProducerId::VERSIONS {
            let response = refused(ResponseError::TransactionalIdAuthorizationFailed);
            crate::wire::codec::encode_response(&response, version).unwrap();
        }
    }
}
