//! DescribeAcls (29), versions 1–3: the ACLs that a filter matches.
//!
//! Behaviour
//! - Needs DESCRIBE of the cluster: CLUSTER_AUTHORIZATION_FAILED (31). No authorizer: SECURITY_DISABLED (54).
//! - The ACLs as this broker knows them, by resource, in the order of types, kinds and names.
//! - A filter with a word that does not exist closes the connection. An ACL with a word of a later Kafka among those
//!   that match: UNKNOWN_SERVER_ERROR (−1).
//!
//! Versions: 1 kinds of names (KIP-290); 2 flexible; 3 users as resources. Version 0 is not in the codec. Ignored:
//! nothing. Source: Kafka 3.9 `AclApis.handleDescribeAcls`, `DescribeAclsRequest`, `DescribeAclsResponse`.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_acls_response::{AclDescription, DescribeAclsResource};
use kafka_protocol::messages::{DescribeAclsRequest, DescribeAclsResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};
use crate::api::security::acl_words::{Codes, filter, is_unknown};
use crate::api::shared::strings::text;
use crate::cluster::znodes::acls::Acls;
use crate::types::acl::{Operation, ResourcePattern, ResourceType};

pub(crate) struct DescribeAcls;

impl Handler for DescribeAcls {
    type Req = DescribeAclsRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=3;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Describe, ResourceType::Cluster)]);

    async fn handle(ctx: RequestContext, req: DescribeAclsRequest) -> Reply<DescribeAclsResponse> {
        let codes = Codes {
            resource_type: req.resource_type_filter,
            pattern_type: req.pattern_type_filter,
            operation: req.operation,
            permission: req.permission_type,
        };
        let (name, principal, host) = (&req.resource_name_filter, &req.principal_filter, &req.host_filter);
        let Some(filter) = filter(codes, name.as_ref(), principal.as_ref(), host.as_ref()) else {
            return Reply::Unreadable("DescribeAclsRequest contains UNKNOWN elements".into());
        };
        if !ctx.may_on_cluster(Operation::Describe) {
            let error = ResponseError::ClusterAuthorizationFailed;
            return Reply::Now(refused(error, Some(&error.to_string())));
        }
        let Some(authorizer) = &ctx.handles.authorizer else {
            let why = "No Authorizer is configured on the broker";
            return Reply::Now(refused(ResponseError::SecurityDisabled, Some(why)));
        };
        let found = authorizer.acls(&filter);
        let unknown = found.iter().any(|(pattern, acls)| acls.iter().any(|entry| is_unknown(pattern, entry)));
        if unknown {
            return Reply::Now(refused(ResponseError::UnknownServerError, None));
        }
        Reply::Now(DescribeAclsResponse::default().with_resources(found.iter().map(resource).collect()))
    }
}

fn refused(error: ResponseError, why: Option<&str>) -> DescribeAclsResponse {
    DescribeAclsResponse::default().with_error_code(error.code()).with_error_message(why.map(text))
}

fn resource((pattern, acls): (&ResourcePattern, &Acls)) -> DescribeAclsResource {
    let described = acls.iter().map(|entry| {
        AclDescription::default()
            .with_principal(text(&*entry.principal))
            .with_host(text(&*entry.host))
            .with_operation(entry.operation.code())
            .with_permission_type(entry.permission.code())
    });
    DescribeAclsResource::default()
        .with_resource_type(pattern.resource_type.code())
        .with_resource_name(text(&*pattern.name))
        .with_pattern_type(pattern.pattern_type.code())
        .with_acls(described.collect())
}
