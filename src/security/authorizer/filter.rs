//! Which ACLs somebody asks for, to see them or to delete them. Pure.
//!
//! Source: Kafka 3.9 `ResourcePatternFilter`, `AccessControlEntryFilter`.

use std::sync::Arc;

use crate::types::acl::{
    AccessControlEntry, Operation, PatternType, PermissionType, ResourcePattern, ResourceType, WILDCARD,
};

/// `None` and `Any` match everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AclFilter {
    pub(crate) resource_type: ResourceType,
    pub(crate) name: Option<Arc<str>>,
    /// `Match`: whatever is about a resource of this name.
    pub(crate) pattern_type: PatternType,
    pub(crate) principal: Option<Arc<str>>,
    pub(crate) host: Option<Arc<str>>,
    pub(crate) operation: Operation,
    pub(crate) permission: PermissionType,
}

impl AclFilter {
    pub(crate) fn matches_pattern(&self, pattern: &ResourcePattern) -> bool {
        if self.resource_type != ResourceType::Any && self.resource_type != pattern.resource_type {
            return false;
        }
        let of_any_kind = matches!(self.pattern_type, PatternType::Any | PatternType::Match);
        if !of_any_kind && self.pattern_type != pattern.pattern_type {
            return false;
        }
        let Some(name) = &self.name else { return true };
        if self.pattern_type != PatternType::Match {
            return *name == pattern.name;
        }
        match pattern.pattern_type {
            PatternType::Prefixed => name.starts_with(&*pattern.name),
            _ => *name == pattern.name || *pattern.name == *WILDCARD,
        }
    }

    pub(crate) fn matches_entry(&self, entry: &AccessControlEntry) -> bool {
        self.principal.as_ref().is_none_or(|principal| *principal == entry.principal)
            && self.host.as_ref().is_none_or(|host| *host == entry.host)
            && (self.operation == Operation::Any || self.operation == entry.operation)
            && (self.permission == PermissionType::Any || self.permission == entry.permission)
    }

    /// The resources that it names one by one, if it does: they are looked for even where no ACL of theirs is known.
    /// Source: Kafka 3.9 `ResourcePatternFilter.matchesAtMostOne`, `AclAuthorizer.filterToResources`.
    pub(crate) fn named(&self) -> Vec<ResourcePattern> {
        let Some(name) = self.name.as_ref().filter(|_| ResourceType::CONCRETE.contains(&self.resource_type)) else {
            return Vec::new();
        };
        let kinds: &[PatternType] = match self.pattern_type {
            PatternType::Literal => &[PatternType::Literal],
            PatternType::Prefixed => &[PatternType::Prefixed],
            PatternType::Any => &[PatternType::Literal, PatternType::Prefixed],
            PatternType::Match | PatternType::Unknown => &[],
        };
        let pattern = |pattern_type: &PatternType| ResourcePattern {
            resource_type: self.resource_type,
            pattern_type: *pattern_type,
            name: Arc::clone(name),
        };
        kinds.iter().map(pattern).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(pattern_type: PatternType, name: Option<&str>) -> AclFilter {
        AclFilter {
            resource_type: ResourceType::Topic,
            name: name.map(Into::into),
            pattern_type,
            principal: None,
            host: None,
            operation: Operation::Any,
            permission: PermissionType::Any,
        }
    }

    fn pattern(pattern_type: PatternType, name: &str) -> ResourcePattern {
        ResourcePattern { resource_type: ResourceType::Topic, pattern_type, name: name.into() }
    }

    #[test]
    fn names_match_as_their_kind_says() {
        use PatternType::*;
        let patterns =
            [pattern(Literal, "foo"), pattern(Literal, "*"), pattern(Prefixed, "fo"), pattern(Prefixed, "foo")];
        let matched = |of, name| {
            let filter = filter(of, name);
            patterns.iter().map(|pattern| filter.matches_pattern(pattern)).collect::<Vec<_>>()
        };
        assert_eq!(matched(Literal, Some("foo")), [true, false, false, false]);
        assert_eq!(matched(Prefixed, Some("foo")), [false, false, false, true]);
        assert_eq!(matched(Any, Some("foo")), [true, false, false, true]);
        assert_eq!(matched(Match, Some("foo")), [true, true, true, true]);
        assert_eq!(matched(Match, Some("f")), [false, true, false, false]);
        assert_eq!(matched(Literal, None), [true, true, false, false]);
        let groups = AclFilter { resource_type: ResourceType::Group, ..filter(Any, None) };
        assert!(!groups.matches_pattern(&patterns[0]));
        let all = AclFilter { resource_type: ResourceType::Any, ..filter(Any, None) };
        assert!(all.matches_pattern(&patterns[0]) && all.named().is_empty());
        assert_eq!(filter(Any, Some("foo")).named(), [patterns[0].clone(), patterns[3].clone()]);
        assert!(filter(Match, Some("foo")).named().is_empty());
    }

    #[test]
    fn entries_match_field_by_field() {
        let entry = AccessControlEntry {
            principal: "User:a".into(),
            host: "*".into(),
            operation: Operation::Read,
            permission: PermissionType::Deny,
        };
        let any = filter(PatternType::Any, None);
        assert!(any.matches_entry(&entry));
        assert!(!AclFilter { principal: Some("User:b".into()), ..any.clone() }.matches_entry(&entry));
        assert!(!AclFilter { host: Some("1.2.3.4".into()), ..any.clone() }.matches_entry(&entry));
        assert!(!AclFilter { operation: Operation::All, ..any.clone() }.matches_entry(&entry), "a word, not a meaning");
        assert!(!AclFilter { permission: PermissionType::Allow, ..any }.matches_entry(&entry));
    }
}
