//! ACLs, and the notes of what changed in them.
//!
//! - `/kafka-acl/Topic/t` (literal) and `/kafka-acl-extended/prefixed/Topic/t`: all ACLs of one resource,
//!   `{"version":1,"acls":[{"principal":"User:a","permissionType":"Allow","operation":"Read","host":"*"}]}`. A resource
//!   without ACLs has no node.
//! - `/kafka-acl-changes/acl_changes_0000000000`: `TOPIC:t`.
//! - `/kafka-acl-extended-changes/acl_changes_0000000000`:
//!   `{"version":1,"resourceType":"TOPIC","name":"t","patternType":"PREFIXED"}`.
//!
//! Names are not encoded; one with a `/` has no node, and is refused before. Source: Kafka 3.9 `ZkData`, `AclEntry`.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ZnodeError, from_json, to_json};
use crate::types::acl::{AccessControlEntry, Operation, PatternType, PermissionType, ResourcePattern, ResourceType};

/// All ACLs of one resource.
pub(crate) type Acls = BTreeSet<AccessControlEntry>;

/// How ACLs are kept whose names are meant in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AclPaths {
    pub(crate) pattern_type: PatternType,
    /// Parent of the types.
    pub(crate) root: &'static str,
    /// Parent of the notes.
    pub(crate) changes: &'static str,
    /// A note, but for its number.
    pub(crate) change_prefix: &'static str,
}

pub(crate) const LITERAL: AclPaths = AclPaths {
    pattern_type: PatternType::Literal,
    root: "/kafka-acl",
    changes: "/kafka-acl-changes",
    change_prefix: "/kafka-acl-changes/acl_changes_",
};

pub(crate) const PREFIXED: AclPaths = AclPaths {
    pattern_type: PatternType::Prefixed,
    root: "/kafka-acl-extended/prefixed",
    changes: "/kafka-acl-extended-changes",
    change_prefix: "/kafka-acl-extended-changes/acl_changes_",
};

/// Both ways.
pub(crate) const PATHS: [AclPaths; 2] = [LITERAL, PREFIXED];

const VERSION: i32 = 1;

impl AclPaths {
    /// Those of a pattern.
    pub(crate) fn of(pattern_type: PatternType) -> Self {
        if pattern_type == PatternType::Literal { LITERAL } else { PREFIXED }
    }

    /// Parent of the resources of a type.
    pub(crate) fn of_type(self, resource_type: ResourceType) -> String {
        format!("{}/{}", self.root, resource_type.name())
    }
}

/// Where a resource's ACLs are.
pub(crate) fn path(pattern: &ResourcePattern) -> String {
    format!("{}/{}", AclPaths::of(pattern.pattern_type).of_type(pattern.resource_type), pattern.name)
}

/// Every node that must exist before ACLs can be written or followed.
pub(crate) fn parents() -> Vec<String> {
    let types = PATHS.iter().flat_map(|paths| ResourceType::CONCRETE.map(|of| paths.of_type(of)));
    types.chain(PATHS.iter().map(|paths| paths.changes.to_owned())).collect()
}

#[derive(Serialize, Deserialize)]
struct Json {
    version: i32,
    acls: Vec<EntryJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EntryJson {
    principal: String,
    permission_type: String,
    operation: String,
    host: String,
}

pub(crate) fn encode(acls: &Acls) -> Bytes {
    let entry = |entry: &AccessControlEntry| EntryJson {
        principal: entry.principal.to_string(),
        permission_type: entry.permission.name().to_owned(),
        operation: entry.operation.name().to_owned(),
        host: entry.host.to_string(),
    };
    to_json(&Json { version: VERSION, acls: acls.iter().map(entry).collect() })
}

/// Empty data are no ACLs.
///
/// # Errors
/// Another version, a principal without a colon, or no such JSON: nobody may take a part for the whole.
pub(crate) fn decode(path: &str, data: &[u8]) -> Result<Acls, ZnodeError> {
    if data.is_empty() {
        return Ok(Acls::new());
    }
    let json: Json = from_json(path, data)?;
    if json.version != VERSION {
        return Err(ZnodeError::new(path, format!("version {} is not {VERSION}", json.version)));
    }
    let entry = |entry: EntryJson| {
        if !entry.principal.contains(':') {
            let why = format!("expected a string in format principalType:principalName but got {}", entry.principal);
            return Err(ZnodeError::new(path, why));
        }
        Ok(AccessControlEntry {
            principal: entry.principal.into(),
            host: entry.host.into(),
            operation: Operation::from_name(&entry.operation),
            permission: PermissionType::from_name(&entry.permission_type),
        })
    };
    json.acls.into_iter().map(entry).collect()
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ChangeJson {
    version: i32,
    resource_type: String,
    name: String,
    pattern_type: String,
}

/// The note that this resource's ACLs changed.
pub(crate) fn encode_change(pattern: &ResourcePattern) -> Bytes {
    if pattern.pattern_type == PatternType::Literal {
        return format!("{}:{}", pattern.resource_type.constant(), pattern.name).into();
    }
    to_json(&ChangeJson {
        version: VERSION,
        resource_type: pattern.resource_type.constant().to_owned(),
        name: pattern.name.to_string(),
        pattern_type: pattern.pattern_type.constant().to_owned(),
    })
}

/// The resource that a note names.
///
/// # Errors
/// It names none that this broker knows.
pub(crate) fn decode_change(paths: AclPaths, path: &str, data: &[u8]) -> Result<ResourcePattern, ZnodeError> {
    let (resource_type, name, pattern_type) = if paths == LITERAL {
        let text = std::str::from_utf8(data).map_err(|error| ZnodeError::new(path, error))?;
        let (resource_type, name) = text.split_once(':').ok_or_else(|| {
            ZnodeError::new(path, format!("expected a string in format ResourceType:ResourceName but got {text}"))
        })?;
        (resource_type.to_owned(), name.to_owned(), PatternType::Literal)
    } else {
        let json: ChangeJson = from_json(path, data)?;
        if json.version > VERSION {
            return Err(ZnodeError::new(path, format!("version {} is above {VERSION}", json.version)));
        }
        (json.resource_type, json.name, PatternType::from_constant(&json.pattern_type))
    };
    let resource_type = ResourceType::from_constant(&resource_type);
    let known = ResourceType::CONCRETE.contains(&resource_type)
        && matches!(pattern_type, PatternType::Literal | PatternType::Prefixed);
    match known {
        true => Ok(ResourcePattern { resource_type, pattern_type, name: Arc::from(name) }),
        false => Err(ZnodeError::new(path, "names a kind of resource that does not exist")),
    }
}

/// Number of a note, by which its folder is ordered; `None` if the name is no note's.
pub(crate) fn change_number(name: &str) -> Option<i64> {
    name.strip_prefix("acl_changes_")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(pattern_type: PatternType) -> ResourcePattern {
        ResourcePattern { resource_type: ResourceType::TransactionalId, pattern_type, name: "a:b".into() }
    }

    #[test]
    fn golden() {
        let text =
            r#"{"version":1,"acls":[{"principal":"User:a","permissionType":"Allow","operation":"Read","host":"*"}]}"#;
        let entry = AccessControlEntry {
            principal: "User:a".into(),
            host: "*".into(),
            operation: Operation::Read,
            permission: PermissionType::Allow,
        };
        assert_eq!(encode(&Acls::from([entry.clone()])), text);
        assert_eq!(decode("p", text.as_bytes()), Ok(Acls::from([entry])));
        assert_eq!(decode("p", b""), Ok(Acls::new()));
        assert_eq!(path(&pattern(PatternType::Literal)), "/kafka-acl/TransactionalId/a:b");
        assert_eq!(path(&pattern(PatternType::Prefixed)), "/kafka-acl-extended/prefixed/TransactionalId/a:b");
        assert_eq!(parents().len(), 14);
    }

    #[test]
    fn notes_of_both_kinds() {
        let (literal, prefixed) = (pattern(PatternType::Literal), pattern(PatternType::Prefixed));
        assert_eq!(encode_change(&literal), "TRANSACTIONAL_ID:a:b");
        let text = r#"{"version":1,"resourceType":"TRANSACTIONAL_ID","name":"a:b","patternType":"PREFIXED"}"#;
        assert_eq!(encode_change(&prefixed), text);
        for (paths, pattern) in [(LITERAL, literal), (PREFIXED, prefixed)] {
            assert_eq!(decode_change(paths, "p", &encode_change(&pattern)), Ok(pattern));
        }
        assert_eq!(decode_change(LITERAL, "p", b"topic:t").map(|found| found.resource_type), Ok(ResourceType::Topic));
        for (paths, text) in [
            (LITERAL, "topic"),
            (LITERAL, "Planet:t"),
            (PREFIXED, "TOPIC:t"),
            (PREFIXED, r#"{"version":2,"resourceType":"TOPIC","name":"t","patternType":"PREFIXED"}"#),
            (PREFIXED, r#"{"version":1,"resourceType":"TOPIC","name":"t","patternType":"MATCH"}"#),
        ] {
            assert!(decode_change(paths, "p", text.as_bytes()).is_err(), "{text}");
        }
        assert_eq!((change_number("acl_changes_0000000012"), change_number("x")), (Some(12), None));
    }

    /// CVE-2024-27309: who takes a part of the ACLs for all of them may miss the one that denies.
    #[test]
    fn acls_are_read_whole_or_not_at_all() {
        for text in [
            "rubbish",
            r#"{"version":2,"acls":[]}"#,
            r#"{"version":1,"acls":[{"principal":"a","permissionType":"Deny","operation":"Read","host":"*"}]}"#,
            r#"{"version":1,"acls":[{"principal":"User:a","permissionType":"Deny","operation":"Read"}]}"#,
        ] {
            assert!(decode("p", text.as_bytes()).is_err(), "{text}");
        }
        let later =
            r#"{"version":1,"acls":[{"principal":"User:a","permissionType":"Deny","operation":"Fly","host":"*"}]}"#;
        let acls = decode("p", later.as_bytes()).expect("a word of a later Kafka is kept");
        assert_eq!(acls.first().map(|entry| entry.operation), Some(Operation::Unknown));
    }
}
