//! JoinGroup (11), versions 0–9: become a member of a classic group, or rejoin it when it rebalances.
//!
//! Behaviour
//! - Waits until the group has gathered its members; only the leader's answer lists them.
//! - A new dynamic member is given its id with MEMBER_ID_REQUIRED (79) and comes back with it (4 and up).
//! - Session time-out out of range: INVALID_SESSION_TIMEOUT (26). Another protocol type, or no protocol in common:
//!   INCONSISTENT_GROUP_PROTOCOL (23). No room: GROUP_MAX_SIZE_REACHED (81), also when the members of a group would
//!   hold more metadata than `GROUP_METADATA_BYTES_MAX`. A replaced static member: FENCED_INSTANCE_ID (82).
//! - Needs READ of the group: GROUP_AUTHORIZATION_FAILED (30).
//!
//! Versions: 0 has no rebalance time-out, the session's is taken; 1 rebalance time-out (KIP-62); 2–3 throttle time; 4
//! member id required (KIP-394); 5 instance id (KIP-345); 6 flexible; 7 protocol type, nullable protocol (KIP-559); 8
//! reason (KIP-800); 9 skip_assignment (KIP-814). Ignored: nothing.
//! Source: Kafka 3.9 `GroupCoordinator.handleJoinGroup`, `JoinGroupRequest`, `JoinGroupResponse`.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use bytes::Bytes;
use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::of_group_answer;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::strings::{opt_str, opt_text, str_arc, text};
use crate::coordinator::group::request::{JoinReply, JoinRequest, JoinedMember};
use crate::types::acl::{Operation, ResourceType};

/// JoinGroup.
#[derive(Debug)]
pub(crate) struct JoinGroup;

impl Handler for JoinGroup {
    type Req = JoinGroupRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=9;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Read, ResourceType::Group)]);

    async fn handle(ctx: RequestContext, req: JoinGroupRequest) -> Reply<JoinGroupResponse> {
        let version = ctx.version;
        if !ctx.may(Operation::Read, ResourceType::Group, &req.group_id) {
            return Reply::Now(unauthorized(version));
        }
        let groups = ctx.handles.groups.clone();
        let answer = groups.join(request(&ctx, groups.random(), req)).await;
        Reply::Later(answer.map(move |reply| response(reply, version)).boxed())
    }
}

/// Source: Kafka 3.9 `JoinGroupRequest.getErrorResponse`.
fn unauthorized(version: i16) -> JoinGroupResponse {
    JoinGroupResponse::default()
        .with_error_code(ResponseError::GroupAuthorizationFailed.code())
        .with_generation_id(-1)
        .with_protocol_type(None)
        .with_protocol_name((version < 7).then(|| text("")))
}

fn request(ctx: &RequestContext, random: u128, req: JoinGroupRequest) -> JoinRequest {
    let version = ctx.version;
    let instance_id = opt_str(req.group_instance_id.as_ref());
    // Copies: what a group keeps must not keep the frame it came in.
    let copied = req.protocols.iter().map(|p| (p.name.to_string(), Bytes::copy_from_slice(&p.metadata))).collect();
    JoinRequest {
        group: str_arc(&req.group_id),
        member_id: str_arc(&req.member_id),
        client_id: ctx.client_id.clone().unwrap_or_else(|| "".into()),
        client_host: java_address(ctx.peer).into(),
        session_timeout_ms: req.session_timeout_ms,
        rebalance_timeout_ms: if version == 0 { req.session_timeout_ms } else { req.rebalance_timeout_ms },
        protocol_type: req.protocol_type.to_string(),
        protocols: copied,
        require_known_member_id: version >= 4 && instance_id.is_none(),
        can_skip_assignment: version >= 9,
        reason: req.reason.map(|reason| reason.chars().take(255).collect()),
        instance_id,
        random,
    }
}

fn response(reply: JoinReply, version: i16) -> JoinGroupResponse {
    let protocol = match reply.protocol {
        // Older versions have no null here.
        None if version < 7 => Some(text("")),
        protocol => protocol.map(text),
    };
    let member = |member: JoinedMember| {
        let known = if version >= 5 { opt_text(member.instance_id.as_deref()) } else { None };
        JoinGroupResponseMember::default()
            .with_member_id(text(&*member.member_id))
            .with_group_instance_id(known)
            .with_metadata(member.metadata)
    };
    JoinGroupResponse::default()
        .with_error_code(of_group_answer(reply.error))
        .with_generation_id(reply.generation_id)
        .with_protocol_type(if version >= 7 { reply.protocol_type.map(text) } else { None })
        .with_protocol_name(protocol)
        .with_leader(text(&*reply.leader))
        // Only given to a client that said that it understands it.
        .with_skip_assignment(version >= 9 && reply.skip_assignment)
        .with_member_id(text(&*reply.member_id))
        .with_members(reply.members.into_iter().map(member).collect())
}

/// A peer's address as Java's `InetAddress.toString` prints it, which is what DescribeGroups has shown for ever.
fn java_address(peer: SocketAddr) -> String {
    match peer.ip().to_canonical() {
        IpAddr::V4(address) => format!("/{address}"),
        IpAddr::V6(address) => {
            let parts: Vec<String> = address.segments().iter().map(|part| format!("{part:x}")).collect();
            format!("/{}", parts.join(":"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::group::error::GroupError;
    use crate::wire::codec::encode_response;

    #[test]
    fn addresses_look_as_in_java() {
        let shown = |text: &str| java_address(text.parse().expect("an address"));
        assert_eq!(shown("127.0.0.1:9"), "/127.0.0.1");
        assert_eq!(shown("[::1]:9"), "/0:0:0:0:0:0:0:1");
        assert_eq!(shown("[::ffff:10.0.0.1]:9"), "/10.0.0.1");
    }

    #[test]
    fn answers_and_refusals_encode_in_every_version() {
        let member =
            JoinedMember { member_id: "m".into(), instance_id: Some("i".into()), metadata: Bytes::from_static(b"x") };
        let joined = JoinReply {
            error: None,
            generation_id: 1,
            protocol_type: Some("consumer".into()),
            protocol: Some("range".into()),
            leader: "m".into(),
            skip_assignment: true,
            member_id: "m".into(),
            members: vec![member],
        };
        for version in JoinGroup::VERSIONS {
            for reply in [joined.clone(), JoinReply::refused(&"m".into(), GroupError::MemberIdRequired)] {
                assert!(encode_response(&response(reply, version), version).is_ok(), "{version}");
            }
        }
    }
}
