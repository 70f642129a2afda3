//! DeleteGroups (42), versions 0–2: forget empty groups and their offsets.
//!
//! Behaviour: a group with members: NON_EMPTY_GROUP (68); no such group: GROUP_ID_NOT_FOUND (69). A name that is given
//! twice is answered once. Answers when the tombstones are replicated, where Kafka does not wait for them.
//! Versions: 0; 1 as 0; 2 flexible. Ignored: nothing.
//! Source: Kafka 3.9 `GroupCoordinator.handleDeleteGroups`.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use futures_util::FutureExt;
use futures_util::future::join_all;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use crate::api::context::RequestContext;
use crate::api::error_code::of_group_answer;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::strings::str_arc;
use crate::types::limits;

/// DeleteGroups.
#[derive(Debug)]
pub(crate) struct DeleteGroups;

impl Handler for DeleteGroups {
    type Req = DeleteGroupsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const FRAME_BYTES_MAX: usize = limits::GROUP_FRAME_BYTES_MAX;

    async fn handle(ctx: RequestContext, req: DeleteGroupsRequest) -> Reply<DeleteGroupsResponse> {
        let mut seen = HashSet::new();
        let mut answers = Vec::with_capacity(req.groups_names.len());
        for group in req.groups_names {
            if !seen.insert(group.clone()) {
                continue;
            }
            let answer = ctx.handles.groups.delete(str_arc(&group)).await;
            answers.push(answer.map(move |answer| {
                let code = of_group_answer(answer.err());
                DeletableGroupResult::default().with_group_id(group).with_error_code(code)
            }));
        }
        Reply::Later(join_all(answers).map(|results| DeleteGroupsResponse::default().with_results(results)).boxed())
    }
}
