//! LeaveGroup (13), versions 0–5: leave a classic group at once, without waiting for the session to end.
//!
//! Behaviour: from version 3 on a batch with an error per member; before, one member whose error is the request's. A
//! member without id but with an instance id is removed by an administrator. Not a member: UNKNOWN_MEMBER_ID (25);
//! replaced: FENCED_INSTANCE_ID (82). Needs READ of the group: GROUP_AUTHORIZATION_FAILED (30).
//! Versions: 1–2 throttle time; 3 batch and instance id (KIP-345); 4 flexible; 5 reason (KIP-800). Ignored: nothing.
//! Source: Kafka 3.9 `GroupCoordinator.handleLeaveGroup`, `LeaveGroupResponse`.

use std::ops::RangeInclusive;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::{of_group_answer, of_group_error};
use crate::api::handler::{Handler, Reply};
use crate::api::shared::strings::{opt_str, opt_text, str_arc, text};
use crate::coordinator::group::error::GroupError;
use crate::coordinator::group::request::{LeaveRequest, LeavingMember};
use crate::types::acl::{Operation, ResourceType};
use crate::types::limits;

/// LeaveGroup.
#[derive(Debug)]
pub(crate) struct LeaveGroup;

impl Handler for LeaveGroup {
    type Req = LeaveGroupRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Read, ResourceType::Group)]);
    const FRAME_BYTES_MAX: usize = limits::GROUP_FRAME_BYTES_MAX;

    async fn handle(ctx: RequestContext, req: LeaveGroupRequest) -> Reply<LeaveGroupResponse> {
        let version = ctx.version;
        if !ctx.may(Operation::Read, ResourceType::Group, &req.group_id) {
            let refused = ResponseError::GroupAuthorizationFailed.code();
            return Reply::Now(LeaveGroupResponse::default().with_error_code(refused));
        }
        let members = members(&req, version);
        let leaving = LeaveRequest { group: str_arc(&req.group_id), members: members.clone() };
        let answer = ctx.handles.groups.leave(leaving).await;
        Reply::Later(answer.map(move |answer| response(answer, &members, version)).boxed())
    }
}

fn members(req: &LeaveGroupRequest, version: i16) -> Vec<LeavingMember> {
    if version < 3 {
        return vec![LeavingMember { member_id: str_arc(&req.member_id), instance_id: None, reason: None }];
    }
    let member = |member: &kafka_protocol::messages::leave_group_request::MemberIdentity| LeavingMember {
        member_id: str_arc(&member.member_id),
        instance_id: opt_str(member.group_instance_id.as_ref()),
        reason: member.reason.as_ref().map(|reason| reason.chars().take(255).collect()),
    };
    req.members.iter().map(member).collect()
}

fn response(
    answer: Result<Vec<Result<(), GroupError>>, GroupError>,
    members: &[LeavingMember],
    version: i16,
) -> LeaveGroupResponse {
    let code = |result: &Result<(), GroupError>| of_group_answer(result.err());
    let results = match answer {
        Ok(results) => results,
        Err(error) => return LeaveGroupResponse::default().with_error_code(of_group_error(error).code()),
    };
    if version < 3 {
        return LeaveGroupResponse::default().with_error_code(results.first().map_or(0, code));
    }
    let member = |(member, result): (&LeavingMember, &Result<(), GroupError>)| {
        MemberResponse::default()
            .with_member_id(text(&*member.member_id))
            .with_group_instance_id(opt_text(member.instance_id.as_deref()))
            .with_error_code(code(result))
    };
    LeaveGroupResponse::default().with_members(members.iter().zip(&results).map(member).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec::encode_response;

    fn member(instance_id: Option<&str>) -> LeavingMember {
        LeavingMember { member_id: "m".into(), instance_id: instance_id.map(Into::into), reason: None }
    }

    #[test]
    fn answers_and_refusals_encode_in_every_version() {
        for version in LeaveGroup::VERSIONS {
            for answer in [Ok(vec![Err(GroupError::FencedInstanceId)]), Err(GroupError::NotCoordinator)] {
                let response = response(answer, &[member(Some("i"))], version);
                assert!(encode_response(&response, version).is_ok(), "{version}");
            }
        }
    }

    #[test]
    fn before_version_3_the_members_error_is_the_requests() {
        let answer = Ok(vec![Err(GroupError::UnknownMemberId)]);
        assert_eq!(response(answer.clone(), &[member(None)], 2).error_code, 25);
        let batch = response(answer, &[member(None)], 3);
        assert_eq!((batch.error_code, batch.members[0].error_code), (0, 25));
    }
}
