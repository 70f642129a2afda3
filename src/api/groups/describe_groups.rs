//! DescribeGroups (15), versions 0–6: state, protocol and members of classic groups.
//!
//! Behaviour: a group that does not exist is Dead without an error, from version 6 on GROUP_ID_NOT_FOUND (69) with a
//! message. Metadata and assignments are shown while the group is stable. Needs DESCRIBE of each group:
//! GROUP_AUTHORIZATION_FAILED (30).
//! Versions: 1–2 throttle time; 3 authorised operations (KIP-430); 4 instance id (KIP-345); 5 flexible; 6 error message
//! (KIP-1043). Ignored: nothing.
//! Source: Kafka 3.9 `GroupCoordinator.handleDescribeGroup`, 4.1 `GroupCoordinatorService.describeGroups`.

use std::ops::RangeInclusive;

use futures_util::FutureExt;
use futures_util::future::{join_all, ready};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::of_group_error;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::strings::{opt_text, str_arc, text};
use crate::coordinator::group::error::GroupError;
use crate::coordinator::group::request::{DescribedMember, GroupDescription};
use crate::types::acl::{Operation, ResourceType};
use crate::types::limits;

/// DescribeGroups.
#[derive(Debug)]
pub(crate) struct DescribeGroups;

impl Handler for DescribeGroups {
    type Req = DescribeGroupsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=6;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Describe, ResourceType::Group)]);
    const FRAME_BYTES_MAX: usize = limits::GROUP_FRAME_BYTES_MAX;

    async fn handle(ctx: RequestContext, req: DescribeGroupsRequest) -> Reply<DescribeGroupsResponse> {
        let version = ctx.version;
        let operations = version >= 3 && req.include_authorized_operations;
        let mut answers = Vec::with_capacity(req.groups.len());
        for group in req.groups {
            if !ctx.may(Operation::Describe, ResourceType::Group, &group) {
                let refused = ResponseError::GroupAuthorizationFailed.code();
                answers.push(ready(DescribedGroup::default().with_group_id(group).with_error_code(refused)).boxed());
                continue;
            }
            let operations = operations.then(|| ctx.operations(ResourceType::Group, &group));
            let answer = ctx.handles.groups.describe(str_arc(&group)).await;
            answers.push(answer.map(move |answer| described(group, answer, operations, version)).boxed());
        }
        Reply::Later(join_all(answers).map(|groups| DescribeGroupsResponse::default().with_groups(groups)).boxed())
    }
}

fn described(
    group: GroupId,
    answer: Result<Option<GroupDescription>, GroupError>,
    operations: Option<i32>,
    version: i16,
) -> DescribedGroup {
    let response = DescribedGroup::default().with_group_id(group);
    match answer {
        Err(error) => response.with_error_code(of_group_error(error).code()),
        Ok(None) if version >= 6 => {
            let message = format!("Group {} not found.", response.group_id.as_str());
            response
                .with_group_state(text("Dead"))
                .with_error_code(of_group_error(GroupError::GroupIdNotFound).code())
                .with_error_message(Some(text(message)))
        }
        Ok(None) => allowed(response.with_group_state(text("Dead")), operations),
        Ok(Some(found)) => {
            let members = found.members.into_iter().map(|member| described_member(member, version)).collect();
            let response = response
                .with_group_state(text(found.state))
                .with_protocol_type(text(found.protocol_type))
                .with_protocol_data(text(found.protocol))
                .with_members(members);
            allowed(response, operations)
        }
    }
}

fn allowed(response: DescribedGroup, operations: Option<i32>) -> DescribedGroup {
    match operations {
        Some(operations) => response.with_authorized_operations(operations),
        None => response,
    }
}

fn described_member(member: DescribedMember, version: i16) -> DescribedGroupMember {
    let instance_id = if version >= 4 { opt_text(member.instance_id.as_deref()) } else { None };
    DescribedGroupMember::default()
        .with_member_id(text(&*member.member_id))
        .with_group_instance_id(instance_id)
        .with_client_id(text(&*member.client_id))
        .with_client_host(text(&*member.client_host))
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::codec::encode_response;

    fn stable() -> GroupDescription {
        GroupDescription {
            state: "Stable",
            protocol_type: "consumer".into(),
            protocol: "range".into(),
            members: vec![DescribedMember {
                member_id: "m".into(),
                instance_id: Some("i".into()),
                client_id: "c".into(),
                client_host: "/127.0.0.1".into(),
                metadata: bytes::Bytes::from_static(b"x"),
                assignment: bytes::Bytes::from_static(b"y"),
            }],
        }
    }

    #[test]
    fn answers_and_refusals_encode_in_every_version() {
        for version in DescribeGroups::VERSIONS {
            for answer in [Ok(Some(stable())), Ok(None), Err(GroupError::NotCoordinator)] {
                let group = described(GroupId::default(), answer, (version >= 3).then_some(8), version);
                let response = DescribeGroupsResponse::default().with_groups(vec![group]);
                assert!(encode_response(&response, version).is_ok(), "{version}");
            }
        }
    }

    #[test]
    fn a_group_that_does_not_exist_is_an_error_from_version_6() {
        let old = described(GroupId::default(), Ok(None), None, 5);
        let new = described(GroupId(text("g")), Ok(None), None, 6);
        assert_eq!((old.error_code, old.group_state.as_str()), (0, "Dead"));
        assert_eq!((new.error_code, new.error_message.as_deref()), (69, Some("Group g not found.")));
    }
}
