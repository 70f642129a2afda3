//! Heartbeat (12), versions 0–4: stay a member of a classic group, and learn of a rebalance.
//!
//! Behaviour: while the group prepares, REBALANCE_IN_PROGRESS (27); otherwise no error and a new session. Another
//! generation: ILLEGAL_GENERATION (22); not a member: UNKNOWN_MEMBER_ID (25); replaced: FENCED_INSTANCE_ID (82). While
//! the coordinator loads: no error. Needs READ of the group: GROUP_AUTHORIZATION_FAILED (30).
//! Versions: 1–2 throttle time; 3 instance id (KIP-345); 4 flexible. Ignored: nothing.
//! Source: Kafka 3.9 `GroupCoordinator.handleHeartbeat`.

use std::ops::RangeInclusive;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{HeartbeatRequest as Request, HeartbeatResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::of_group_answer;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::strings::{opt_str, str_arc};
use crate::coordinator::group::request::HeartbeatRequest;
use crate::types::acl::{Operation, ResourceType};
use crate::types::limits;

/// Heartbeat.
#[derive(Debug)]
pub(crate) struct Heartbeat;

impl Handler for Heartbeat {
    type Req = Request;
    const VERSIONS: RangeInclusive<i16> = 0..=4;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Read, ResourceType::Group)]);
    const FRAME_BYTES_MAX: usize = limits::GROUP_FRAME_BYTES_MAX;

    async fn handle(ctx: RequestContext, req: Request) -> Reply<HeartbeatResponse> {
        if !ctx.may(Operation::Read, ResourceType::Group, &req.group_id) {
            let refused = ResponseError::GroupAuthorizationFailed.code();
            return Reply::Now(HeartbeatResponse::default().with_error_code(refused));
        }
        let answer = ctx
            .handles
            .groups
            .heartbeat(HeartbeatRequest {
                group: str_arc(&req.group_id),
                member_id: str_arc(&req.member_id),
                instance_id: opt_str(req.group_instance_id.as_ref()),
                generation_id: req.generation_id,
            })
            .await;
        Reply::Later(
            answer
                .map(move |answer| HeartbeatResponse::default().with_error_code(of_group_answer(answer.err())))
                .boxed(),
        )
    }
}
