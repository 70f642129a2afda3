//! AllocateProducerIds (67), version 0: a broker asks the controller here for a block of producer ids.
//!
//! Behaviour
//! - NOT_CONTROLLER (41) unless this broker is; BROKER_ID_NOT_REGISTERED (102) for a broker that is not registered,
//!   STALE_BROKER_EPOCH (77) for another registration of it than the one the controller knows.
//! - A block is on record before it is answered, and no other broker gets it.
//!
//! Ignored: nothing.
//! Source: Kafka 3.9 `KafkaApis.handleAllocateProducerIdsRequest`, `KafkaController.processAllocateProducerIds`.

use std::ops::RangeInclusive;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{AllocateProducerIdsRequest, AllocateProducerIdsResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::of_controller_error;
use crate::api::handler::{Handler, Reply, Served};
use crate::cluster::control::ControllerLink;
use crate::types::acl::Operation;
use crate::types::{BrokerEpoch, BrokerId};

pub(crate) struct AllocateProducerIds;

impl Handler for AllocateProducerIds {
    type Req = AllocateProducerIdsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const AUTHORIZATION: Authorization = Authorization::OF_BROKERS;
    const SERVED: Served = Served::ToBrokers;

    async fn handle(ctx: RequestContext, req: AllocateProducerIdsRequest) -> Reply<AllocateProducerIdsResponse> {
        let answer = async move {
            let failed = |code| AllocateProducerIdsResponse::default().with_error_code(code);
            if !ctx.may_on_cluster(Operation::ClusterAction) {
                return failed(ResponseError::ClusterAuthorizationFailed.code());
            }
            let (broker, epoch) = (BrokerId(req.broker_id.0), BrokerEpoch(req.broker_epoch));
            let block = match ctx.handles.controller.allocate_producer_ids(broker, epoch).await {
                Ok(block) => block,
                Err(refused) => return failed(of_controller_error(&refused)),
            };
            let Ok(length) = i32::try_from(block.end - block.start) else {
                return failed(ResponseError::UnknownServerError.code());
            };
            AllocateProducerIdsResponse::default()
                .with_producer_id_start(block.start.into())
                .with_producer_id_len(length)
        };
        Reply::Later(answer.boxed())
    }
}
