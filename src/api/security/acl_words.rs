//! ACLs and filters of them between the wire's codes and the authorizer's words.
//!
//! A request with a code that does not exist cannot be read, as in Kafka, which closes the connection: an ACL is never
//! guessed.

use kafka_protocol::protocol::StrBytes;

use crate::api::shared::strings::{opt_str, str_arc};
use crate::security::authorizer::{AclBinding, AclFilter};
use crate::types::acl::{AccessControlEntry, Operation, PatternType, PermissionType, ResourcePattern, ResourceType};

/// The four codes of an ACL or of a filter.
#[derive(Debug, Clone, Copy)]
pub(super) struct Codes {
    pub(super) resource_type: i8,
    pub(super) pattern_type: i8,
    pub(super) operation: i8,
    pub(super) permission: i8,
}

/// The same as words.
#[derive(Debug, Clone, Copy)]
struct Words {
    resource_type: ResourceType,
    pattern_type: PatternType,
    operation: Operation,
    permission: PermissionType,
}

impl Codes {
    /// `None`: one of them is unknown. Codes that a later Kafka may have are unknown words, not unknown codes: they
    /// match nothing, and no ACL is made of them. Source: Kafka 3.9 `CreateAclsRequest.validate`.
    fn words(self) -> Option<Words> {
        let unknown = [self.resource_type, self.pattern_type, self.operation, self.permission].contains(&0);
        (!unknown).then(|| Words {
            resource_type: ResourceType::from_code(self.resource_type),
            pattern_type: PatternType::from_code(self.pattern_type),
            operation: Operation::from_code(self.operation),
            permission: PermissionType::from_code(self.permission),
        })
    }
}

/// Why an ACL is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoAcl {
    /// The request cannot be read.
    Unreadable,
    /// A word that only filters use.
    FilterWord,
}

/// An ACL. One with a word of a later Kafka has that word `Unknown`.
pub(super) fn binding(
    codes: Codes,
    name: &StrBytes,
    principal: &StrBytes,
    host: &StrBytes,
) -> Result<AclBinding, NoAcl> {
    let words = codes.words().ok_or(NoAcl::Unreadable)?;
    let for_filters = words.resource_type == ResourceType::Any
        || matches!(words.pattern_type, PatternType::Any | PatternType::Match)
        || words.operation == Operation::Any
        || words.permission == PermissionType::Any;
    if for_filters {
        return Err(NoAcl::FilterWord);
    }
    Ok(AclBinding {
        pattern: ResourcePattern {
            resource_type: words.resource_type,
            pattern_type: words.pattern_type,
            name: str_arc(name),
        },
        entry: AccessControlEntry {
            principal: str_arc(principal),
            host: str_arc(host),
            operation: words.operation,
            permission: words.permission,
        },
    })
}

/// A filter; `None`: the request cannot be read.
pub(super) fn filter(
    codes: Codes,
    name: Option<&StrBytes>,
    principal: Option<&StrBytes>,
    host: Option<&StrBytes>,
) -> Option<AclFilter> {
    let Words { resource_type, pattern_type, operation, permission } = codes.words()?;
    let (name, principal, host) = (opt_str(name), opt_str(principal), opt_str(host));
    Some(AclFilter { resource_type, name, pattern_type, principal, host, operation, permission })
}

/// Whether an ACL has a word of a later Kafka, for which the wire has no code.
pub(super) fn is_unknown(pattern: &ResourcePattern, entry: &AccessControlEntry) -> bool {
    pattern.resource_type == ResourceType::Unknown
        || pattern.pattern_type == PatternType::Unknown
        || entry.operation == Operation::Unknown
        || entry.permission == PermissionType::Unknown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_never_taken_for_anything() {
        let codes = Codes { resource_type: 2, pattern_type: 3, operation: 3, permission: 3 };
        let text = StrBytes::from_static_str;
        let made = |codes| binding(codes, &text("t"), &text("User:a"), &text("*"));
        assert!(made(codes).is_ok_and(|made| !is_unknown(&made.pattern, &made.entry)));
        assert_eq!(made(Codes { permission: 0, ..codes }), Err(NoAcl::Unreadable));
        for any in [
            Codes { resource_type: 1, ..codes },
            Codes { pattern_type: 2, ..codes },
            Codes { operation: 1, ..codes },
            Codes { permission: 1, ..codes },
        ] {
            assert_eq!(made(any), Err(NoAcl::FilterWord), "{any:?}");
            assert!(filter(any, None, None, None).is_some());
        }
        assert!(made(Codes { operation: 99, ..codes }).is_ok_and(|made| is_unknown(&made.pattern, &made.entry)));
        assert!(filter(Codes { pattern_type: 0, ..codes }, None, None, None).is_none());
    }
}
