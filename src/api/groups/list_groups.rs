//! ListGroups (16), versions 0–5: the groups that this broker coordinates.
//!
//! Behaviour: groups of partitions that are still loading are missing, and COORDINATOR_LOAD_IN_PROGRESS (14) says so;
//! as does COORDINATOR_NOT_AVAILABLE (15) of those that cannot be shown, since followers do not have what they would
//! show. Who lacks DESCRIBE of the cluster sees the groups of which there is DESCRIBE. Filters compare without regard
//! to case; a state or type that does not exist matches nothing. Versions: 1–2 throttle time; 3 flexible; 4 states
//! (KIP-518); 5 types (KIP-848), here always `classic`. Ignored: nothing. Source: Kafka 3.9
//! `GroupCoordinator.handleListGroups`.

use std::ops::RangeInclusive;

use futures_util::FutureExt;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::of_group_answer;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::strings::text;
use crate::coordinator::group::request::{GroupListing, ListRequest};
use crate::types::acl::{Operation, ResourceType};
use crate::types::limits;

/// ListGroups.
#[derive(Debug)]
pub(crate) struct ListGroups;

impl Handler for ListGroups {
    type Req = ListGroupsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const AUTHORIZATION: Authorization =
        Authorization::Of(&[(Operation::Describe, ResourceType::Cluster), (Operation::Describe, ResourceType::Group)]);
    const FRAME_BYTES_MAX: usize = limits::GROUP_FRAME_BYTES_MAX;

    async fn handle(ctx: RequestContext, req: ListGroupsRequest) -> Reply<ListGroupsResponse> {
        let version = ctx.version;
        let lower = |names: &[StrBytes]| names.iter().map(|name| name.to_lowercase()).collect();
        let request = ListRequest { states: lower(&req.states_filter), types: lower(&req.types_filter) };
        let sees_all = ctx.may_perhaps_on_cluster(Operation::Describe);
        let answer = ctx.handles.groups.list(request).await;
        let shown = move |group: &GroupListing| {
            sees_all || ctx.may_perhaps(Operation::Describe, ResourceType::Group, &group.group)
        };
        let listed = move |group: GroupListing| {
            let listed = ListedGroup::default()
                .with_group_id(GroupId(text(&*group.group)))
                .with_protocol_type(text(group.protocol_type));
            let listed = if version >= 4 { listed.with_group_state(text(group.state)) } else { listed };
            if version >= 5 { listed.with_group_type(text(group.group_type)) } else { listed }
        };
        Reply::Later(
            answer
                .map(move |(groups, error)| {
                    ListGroupsResponse::default()
                        .with_error_code(of_group_answer(error))
                        .with_groups(groups.into_iter().filter(shown).map(listed).collect())
                })
                .boxed(),
        )
    }
}
