//! CreateAcls (30), versions 1–3: add ACLs.
//!
//! Behaviour
//! - Needs ALTER of the cluster: CLUSTER_AUTHORIZATION_FAILED (31) for each ACL. No authorizer: SECURITY_DISABLED (54).
//! - Each ACL has its own outcome. INVALID_REQUEST (42): another name than `kafka-cluster` for the cluster, an empty
//!   one, one with a `/`, or a word of a later Kafka. A principal without a colon: UNKNOWN_SERVER_ERROR (−1), as for
//!   whatever keeps the ACLs of a resource from being written.
//! - A word that only filters use: UNKNOWN_SERVER_ERROR for every ACL; one that does not exist closes the connection.
//! - What is answered with success is written, and holds on this broker; on the others a moment later.
//!
//! Versions: 1 kinds of names (KIP-290); 2 flexible; 3 users as resources. Version 0 is not in the codec. Ignored:
//! nothing. Source: Kafka 3.9 `AclApis.handleCreateAcls`, `AclAuthorizer.createAcls`, `CreateAclsRequest`.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_acls_request::AclCreation;
use kafka_protocol::messages::create_acls_response::AclCreationResult;
use kafka_protocol::messages::{CreateAclsRequest, CreateAclsResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::of_acl_store_error;
use crate::api::handler::{Handler, Reply};
use crate::api::security::acl_words::{Codes, NoAcl, binding, is_unknown};
use crate::api::shared::refusal::{Refusal, wire_outcome};
use crate::security::authorizer::AclBinding;
use crate::types::acl::{CLUSTER_NAME, Operation, ResourceType};

pub(crate) struct CreateAcls;

impl Handler for CreateAcls {
    type Req = CreateAclsRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=3;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Alter, ResourceType::Cluster)]);

    async fn handle(ctx: RequestContext, req: CreateAclsRequest) -> Reply<CreateAclsResponse> {
        let all = |refusal: Refusal| Reply::Now(respond(req.creations.iter().map(|_| Err(refusal.clone()))));
        let bindings: Result<Vec<AclBinding>, NoAcl> = req.creations.iter().map(asked).collect();
        if bindings == Err(NoAcl::Unreadable) {
            return Reply::Unreadable("CreatableAcls contain unknown elements".into());
        }
        if !ctx.may_on_cluster(Operation::Alter) {
            let error = ResponseError::ClusterAuthorizationFailed;
            return all(Refusal::new(error, error.to_string()));
        }
        let Some(authorizer) = &ctx.handles.authorizer else {
            return all(Refusal::new(ResponseError::SecurityDisabled, "No Authorizer is configured."));
        };
        let Ok(bindings) = bindings else { return all(Refusal::bare(ResponseError::UnknownServerError)) };
        let mut results: Vec<Result<(), Refusal>> = bindings.iter().map(check).collect();
        refuse_with_their_like(&bindings, &mut results);
        let legal: Vec<AclBinding> =
            bindings.iter().zip(&results).filter(|(_, result)| result.is_ok()).map(|(it, _)| it.clone()).collect();
        let created = authorizer.create(&legal).await;
        let waiting = results.iter_mut().filter(|result| result.is_ok());
        for (result, created) in waiting.zip(created) {
            *result = created.map_err(|error| Refusal::bare(of_acl_store_error(&error)));
        }
        Reply::Now(respond(results))
    }
}

fn asked(creation: &AclCreation) -> Result<AclBinding, NoAcl> {
    let codes = Codes {
        resource_type: creation.resource_type,
        pattern_type: creation.resource_pattern_type,
        operation: creation.operation,
        permission: creation.permission_type,
    };
    binding(codes, &creation.resource_name, &creation.principal, &creation.host)
}

fn check(binding: &AclBinding) -> Result<(), Refusal> {
    let AclBinding { pattern, entry } = binding;
    let refuse = |why: &str| Err(Refusal::new(ResponseError::InvalidRequest, why));
    if pattern.resource_type == ResourceType::Cluster && *pattern.name != *CLUSTER_NAME {
        return refuse("The only valid name for the CLUSTER resource is kafka-cluster");
    }
    if pattern.name.is_empty() {
        return refuse("Invalid empty resource name");
    }
    if is_unknown(pattern, entry) || pattern.name.contains('/') {
        return refuse("Failed to create ACL");
    }
    Ok(())
}

/// A principal that is none keeps every ACL of its resource from being written, since they are written together.
fn refuse_with_their_like(bindings: &[AclBinding], results: &mut [Result<(), Refusal>]) {
    let bad = |at: usize| results[at].is_ok() && !bindings[at].entry.principal.contains(':');
    let spoiled: Vec<usize> = (0..bindings.len()).filter(|&at| bad(at)).collect();
    for at in spoiled {
        for (binding, result) in bindings.iter().zip(results.iter_mut()) {
            if binding.pattern == bindings[at].pattern && result.is_ok() {
                *result = Err(Refusal::bare(ResponseError::UnknownServerError));
            }
        }
    }
}

fn respond(results: impl IntoIterator<Item = Result<(), Refusal>>) -> CreateAclsResponse {
    let result = |result| {
        let (code, message) = wire_outcome(result);
        AclCreationResult::default().with_error_code(code).with_error_message(message)
    };
    CreateAclsResponse::default().with_results(results.into_iter().map(result).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::protocol::StrBytes;

    fn made(resource_type: i8, name: &'static str, operation: i8, principal: &'static str) -> AclBinding {
        let text = StrBytes::from_static_str;
        let codes = Codes { resource_type, pattern_type: 3, operation, permission: 3 };
        binding(codes, &text(name), &text(principal), &text("*")).expect("readable")
    }

    #[test]
    fn what_is_wrong_with_an_acl_is_said_in_kafkas_words() {
        let why = |binding: &AclBinding| check(binding).err().and_then(|refusal| refusal.message);
        assert_eq!(why(&made(2, "t", 3, "User:a")), None);
        assert_eq!(why(&made(2, "", 3, "User:a")).as_deref(), Some("Invalid empty resource name"));
        let cluster = "The only valid name for the CLUSTER resource is kafka-cluster";
        assert_eq!(why(&made(4, "", 3, "User:a")).as_deref(), Some(cluster));
        assert_eq!(why(&made(2, "a/b", 3, "User:a")).as_deref(), Some("Failed to create ACL"));
        assert_eq!(why(&made(2, "t", 99, "User:a")).as_deref(), Some("Failed to create ACL"));
    }

    #[test]
    fn a_bad_principal_spoils_the_acls_of_its_resource() {
        let bindings = [made(2, "t", 3, "User:a"), made(2, "t", 3, "a"), made(2, "u", 3, "User:a")];
        let mut results = vec![Ok(()); 3];
        refuse_with_their_like(&bindings, &mut results);
        let codes: Vec<i16> = results.into_iter().map(|result| wire_outcome(result).0).collect();
        assert_eq!(codes, [-1, -1, 0]);
    }
}
