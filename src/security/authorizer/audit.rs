//! What the authorizer says in the log, under Kafka's logger and in its words: what is denied at INFO, what is allowed
//! at DEBUG with the ACLs that decided, mere looks at TRACE. Nothing is put into words that nobody listens to.
//!
//! Source: Kafka 3.9 `AclAuthorizer.logAuditMessage`, `AclAuthorizer.matchingAclExists`.

use std::fmt;
use std::sync::Arc;

use tracing::{Level, debug, enabled, info, trace};

use super::rules::{Verdict, java_address};
use super::{Action, Requester};
use crate::cluster::znodes::acls::Acls;
use crate::types::acl::{AccessControlEntry, Operation, PatternType, ResourceType, WILDCARD};

/// Kafka's logger of decisions.
macro_rules! logger {
    () => {
        "kafka.authorizer.logger"
    };
}

/// What decided.
pub(super) enum Because {
    SuperUser,
    /// The ACLs about the resource.
    Acls(Vec<Arc<Acls>>),
}

/// Says what was decided. `because` is asked only where DEBUG is listened to.
pub(super) fn tell(requester: &Requester<'_>, action: &Action<'_>, allowed: bool, because: impl FnOnce() -> Because) {
    if enabled!(target: logger!(), Level::DEBUG) {
        tell_why(requester, action, because());
    }
    let line = Line { requester, action, pattern_type: PatternType::Literal, allowed };
    match (allowed, if allowed { action.log_if_allowed } else { action.log_if_denied }) {
        (true, true) => debug!(target: logger!(), "{line}"),
        (false, true) => info!(target: logger!(), "{line}"),
        (_, false) => trace!(target: logger!(), "{line}"),
    }
}

/// The same of a decision about some resource of a type.
pub(super) fn tell_of_type(
    requester: &Requester<'_>,
    operation: Operation,
    resource_type: ResourceType,
    allowed: bool,
) {
    let action = Action { references: 0, ..Action::new(operation, resource_type, "NONE") };
    let line = Line { requester, action: &action, pattern_type: PatternType::Unknown, allowed };
    match allowed {
        true => debug!(target: logger!(), "{line}"),
        false => info!(target: logger!(), "{line}"),
    }
}

fn tell_why(requester: &Requester<'_>, action: &Action<'_>, because: Because) {
    let principal = requester.principal;
    let Action { operation, resource_type, name, .. } = action;
    let resource = format!("ResourcePattern(resourceType={resource_type}, name={name}, patternType=LITERAL)");
    match because {
        Because::SuperUser => debug!(
            target: logger!(),
            "principal = {principal} is a super user, allowing operation without checking acls."
        ),
        Because::Acls(acls) if acls.is_empty() => {
            debug!(target: logger!(), "No acl found for resource {resource}");
        }
        Because::Acls(acls) => {
            let host = java_address(requester.address);
            let mine = principal.to_string();
            let of_me = |acl: &&AccessControlEntry| *acl.principal == *mine || *acl.principal == *"User:*";
            let from_here = |acl: &&AccessControlEntry| *acl.host == *host || *acl.host == *WILDCARD;
            let about = || acls.iter().flat_map(|acls| acls.iter()).filter(of_me).filter(from_here);
            let denies = about().find(|acl| Verdict::of(acl).denies(*operation));
            if let Some(acl) = denies.or_else(|| about().find(|acl| Verdict::of(acl).allows_by_implication(*operation)))
            {
                let permission = acl.permission;
                debug!(
                    target: logger!(),
                    "operation = {operation} on resource = {resource} from host = {host} is {permission} based on \
                     acl = {acl}"
                );
            }
        }
    }
}

struct Line<'a> {
    requester: &'a Requester<'a>,
    action: &'a Action<'a>,
    pattern_type: PatternType,
    allowed: bool,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Requester { principal, address, api, .. } = self.requester;
        let Action { operation, resource_type, name, references, .. } = self.action;
        write!(
            f,
            "Principal = {principal} is {} Operation = {} from host = {} on resource = {}:{}:{name} for request = {api:?} \
             with resourceRefCount = {references}",
            if self.allowed { "Allowed" } else { "Denied" },
            operation.name(),
            java_address(*address),
            resource_type.name(),
            self.pattern_type,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::security::principal::Principal;

    #[test]
    fn a_line_is_kafkas() {
        let principal = Principal::anonymous();
        #[derive(Debug)]
        struct Produce;
        let requester = Requester { principal: &principal, address: [127, 0, 0, 1].into(), api: &Produce };
        let action = Action { references: 2, ..Action::new(Operation::Write, ResourceType::Topic, "t") };
        let line = Line { requester: &requester, action: &action, pattern_type: PatternType::Literal, allowed: false };
        assert_eq!(
            line.to_string(),
            "Principal = User:ANONYMOUS is Denied Operation = Write from host = 127.0.0.1 on resource = \
             Topic:LITERAL:t for request = Produce with resourceRefCount = 2"
        );
    }
}
