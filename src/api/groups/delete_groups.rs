//! DeleteGroups (42), versions 0–2: forget empty groups and their offsets.
//!
//! Behaviour: a group with members: NON_EMPTY_GROUP (68); no such group: GROUP_ID_NOT_FOUND (69). A name that is given
//! twice is answered once. Needs DELETE of each group: GROUP_AUTHORIZATION_FAILED (30). Answers when the tombstones are
//! replicated, where Kafka does not wait for them. Versions: 0; 1 as 0; 2 flexible. Ignored: nothing. Source: Kafka 3.9
//! `GroupCoordinator.handleDeleteGroups`.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use futures_util::FutureExt;
use futures_util::future::{join_all, ready};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::of_group_answer;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::strings::str_arc;
use crate::types::acl::{Operation, ResourceType};
use crate::types::limits;

/// DeleteGroups.
#[derive(Debug)]
pub(crate) struct DeleteGroups;

impl Handler for DeleteGroups {
    type Req = DeleteGroupsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Delete, ResourceType::Group)]);
    const FRAME_BYTES_MAX: usize = limits::GROUP_FRAME_BYTES_MAX;

    async fn handle(ctx: RequestContext, req: DeleteGroupsRequest) -> Reply<DeleteGroupsResponse> {
        let mut seen = HashSet::new();
        let mut groups = req.groups_names;
        groups.retain(|group| seen.insert(group.clone()));
        let mut answers = Vec::with_capacity(groups.len());
        for group in groups {
            if !ctx.may(Operation::Delete, ResourceType::Group, &group) {
                let refused = ResponseError::GroupAuthorizationFailed.code();
                let result = DeletableGroupResult::default().with_group_id(group).with_error_code(refused);
                answers.push(ready(result).boxed());
                continue;
            }
            let answer = ctx.handles.groups.delete(str_arc(&group)).await;
            let result = answer.map(move |answer| {
                let code = of_group_answer(answer.err());
                DeletableGroupResult::default().with_group_id(group).with_error_code(code)
            });
            answers.push(result.boxed());
        }
        Reply::Later(join_all(answers).map(|results| DeleteGroupsResponse::default().with_results(results)).boxed())
    }
}
