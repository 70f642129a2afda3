//! SyncGroup (14), versions 0–5: hand in the assignment of a generation (the leader) and receive one's own.
//!
//! Behaviour
//! - A follower waits for the leader. While the group prepares: REBALANCE_IN_PROGRESS (27), also while the coordinator
//!   loads. Another generation: ILLEGAL_GENERATION (22). Assignments too large to be stored: UNKNOWN_SERVER_ERROR (−1).
//! - Protocol type or name missing in version 5, or not the group's: INCONSISTENT_GROUP_PROTOCOL (23).
//! - Needs READ of the group: GROUP_AUTHORIZATION_FAILED (30).
//!
//! Versions: 1–2 throttle time; 3 instance id (KIP-345); 4 flexible; 5 protocol type and name (KIP-559). Ignored:
//! nothing.
//! Source: Kafka 3.9 `GroupCoordinator.handleSyncGroup`, `KafkaApis.handleSyncGroupRequest`.

use std::ops::RangeInclusive;

use bytes::Bytes;
use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::of_group_answer;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::strings::{opt_str, str_arc, text};
use crate::coordinator::group::error::GroupError;
use crate::coordinator::group::request::{SyncReply, SyncRequest};
use crate::types::acl::{Operation, ResourceType};

/// SyncGroup.
#[derive(Debug)]
pub(crate) struct SyncGroup;

impl Handler for SyncGroup {
    type Req = SyncGroupRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Read, ResourceType::Group)]);

    async fn handle(ctx: RequestContext, req: SyncGroupRequest) -> Reply<SyncGroupResponse> {
        let version = ctx.version;
        if version >= 5 && (req.protocol_type.is_none() || req.protocol_name.is_none()) {
            let refused = SyncReply::refused(GroupError::InconsistentGroupProtocol);
            return Reply::Now(response(refused, version));
        }
        if !ctx.may(Operation::Read, ResourceType::Group, &req.group_id) {
            let refused = ResponseError::GroupAuthorizationFailed.code();
            return Reply::Now(SyncGroupResponse::default().with_error_code(refused));
        }
        let copied = |bytes: &Bytes| Bytes::copy_from_slice(bytes);
        let answer = ctx
            .handles
            .groups
            .sync(SyncRequest {
                group: str_arc(&req.group_id),
                member_id: str_arc(&req.member_id),
                instance_id: opt_str(req.group_instance_id.as_ref()),
                generation_id: req.generation_id,
                protocol_type: req.protocol_type.map(|name| name.to_string()),
                protocol: req.protocol_name.map(|name| name.to_string()),
                assignments: req.assignments.iter().map(|a| (str_arc(&a.member_id), copied(&a.assignment))).collect(),
            })
            .await;
        Reply::Later(answer.map(move |reply| response(reply, version)).boxed())
    }
}

fn response(reply: SyncReply, version: i16) -> SyncGroupResponse {
    let response =
        SyncGroupResponse::default().with_error_code(of_group_answer(reply.error)).with_assignment(reply.assignment);
    if version < 5 {
        return response;
    }
    response.with_protocol_type(reply.protocol_type.map(text)).with_protocol_name(reply.protocol.map(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec::encode_response;

    #[test]
    fn answers_and_refusals_encode_in_every_version() {
        let synced = SyncReply {
            error: None,
            protocol_type: Some("consumer".into()),
            protocol: Some("range".into()),
            assignment: Bytes::from_static(b"x"),
        };
        for version in SyncGroup::VERSIONS {
            for reply in [synced.clone(), SyncReply::refused(GroupError::IllegalGeneration)] {
                assert!(encode_response(&response(reply, version), version).is_ok(), "{version}");
            }
        }
    }
}
