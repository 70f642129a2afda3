//! DeleteAcls (31), versions 1–3: delete the ACLs that filters match.
//!
//! Behaviour
//! - Needs ALTER of the cluster: CLUSTER_AUTHORIZATION_FAILED (31) for each filter. No authorizer: SECURITY_DISABLED
//!   (54).
//! - Each filter is answered with the ACLs it matched, those left out that a filter before it did, and with what became
//!   of each: UNKNOWN_SERVER_ERROR (−1) where it is still there.
//! - A filter that names its resource finds ACLs even if this broker has not heard of them yet.
//! - A filter with a word that does not exist closes the connection.
//!
//! Versions: 1 kinds of names (KIP-290); 2 flexible; 3 users as resources. Version 0 is not in the codec. Ignored:
//! nothing. Source: Kafka 3.9 `AclApis.handleDeleteAcls`, `AclAuthorizer.deleteAcls`, `DeleteAclsRequest`.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_acls_request::DeleteAclsFilter;
use kafka_protocol::messages::delete_acls_response::{DeleteAclsFilterResult, DeleteAclsMatchingAcl};
use kafka_protocol::messages::{DeleteAclsRequest, DeleteAclsResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::of_acl_store_error;
use crate::api::handler::{Handler, Reply};
use crate::api::security::acl_words::{Codes, filter};
use crate::api::shared::refusal::{Refusal, wire_outcome};
use crate::api::shared::strings::text;
use crate::security::authorizer::{AclFilter, Deleted};
use crate::types::acl::{Operation, ResourceType};

pub(crate) struct DeleteAcls;

impl Handler for DeleteAcls {
    type Req = DeleteAclsRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=3;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Alter, ResourceType::Cluster)]);

    async fn handle(ctx: RequestContext, req: DeleteAclsRequest) -> Reply<DeleteAclsResponse> {
        let Some(filters) = req.filters.iter().map(asked).collect::<Option<Vec<_>>>() else {
            return Reply::Unreadable("Filters contain UNKNOWN elements".into());
        };
        let all = |error: ResponseError, why: &str| {
            let result = DeleteAclsFilterResult::default().with_error_code(error.code());
            let result = result.with_error_message(Some(text(why)));
            Reply::Now(DeleteAclsResponse::default().with_filter_results(vec![result; filters.len()]))
        };
        if !ctx.may_on_cluster(Operation::Alter) {
            let error = ResponseError::ClusterAuthorizationFailed;
            return all(error, &error.to_string());
        }
        let Some(authorizer) = &ctx.handles.authorizer else {
            return all(ResponseError::SecurityDisabled, "No Authorizer is configured.");
        };
        let results = authorizer.delete(&filters).await.into_iter().map(|deleted| {
            let matching = deleted.into_iter().map(matching).collect();
            DeleteAclsFilterResult::default().with_error_message(None).with_matching_acls(matching)
        });
        Reply::Now(DeleteAclsResponse::default().with_filter_results(results.collect()))
    }
}

fn asked(asked: &DeleteAclsFilter) -> Option<AclFilter> {
    let codes = Codes {
        resource_type: asked.resource_type_filter,
        pattern_type: asked.pattern_type_filter,
        operation: asked.operation,
        permission: asked.permission_type,
    };
    let (name, principal, host) = (&asked.resource_name_filter, &asked.principal_filter, &asked.host_filter);
    filter(codes, name.as_ref(), principal.as_ref(), host.as_ref())
}

fn matching((binding, error): Deleted) -> DeleteAclsMatchingAcl {
    let (code, message) = wire_outcome(error.map_or(Ok(()), |error| Err(Refusal::bare(of_acl_store_error(&error)))));
    DeleteAclsMatchingAcl::default()
        .with_error_code(code)
        .with_error_message(message)
        .with_resource_type(binding.pattern.resource_type.code())
        .with_resource_name(text(&*binding.pattern.name))
        .with_pattern_type(binding.pattern.pattern_type.code())
        .with_principal(text(&*binding.entry.principal))
        .with_host(text(&*binding.entry.host))
        .with_operation(binding.entry.operation.code())
        .with_permission_type(binding.entry.permission.code())
}
