//! Whom a connection speaks for.

use std::fmt;
use std::sync::Arc;

/// Shown as `User:alice`. Source: Kafka 3.9 `KafkaPrincipal`.
#[derive(Debug, Clone)]
pub(crate) struct Principal {
    /// `User`, but for principals that only an ACL names.
    pub(crate) kind: Arc<str>,
    pub(crate) name: Arc<str>,
    /// It showed a delegation token. Does not count when principals are compared.
    pub(crate) by_token: bool,
}

impl PartialEq for Principal {
    fn eq(&self, other: &Self) -> bool {
        (&self.kind, &self.name) == (&other.kind, &other.name)
    }
}

impl Eq for Principal {}

impl std::hash::Hash for Principal {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (&self.kind, &self.name).hash(state);
    }
}

impl Principal {
    /// One that a listener authenticated.
    pub(crate) fn user(name: impl Into<Arc<str>>) -> Self {
        Self { kind: Arc::from(USER), name: name.into(), by_token: false }
    }

    /// One that somebody names.
    pub(crate) fn new(kind: &str, name: &str) -> Self {
        Self { kind: kind.into(), name: name.into(), by_token: false }
    }

    /// Whoever speaks through a listener that asks nobody who it is.
    pub(crate) fn anonymous() -> Self {
        Self::user("ANONYMOUS")
    }

    /// From `kind:name`; the name may have colons of its own. `None`: there is no colon, or nothing before it.
    /// Source: Kafka 3.9 `SecurityUtils.parseKafkaPrincipal`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':')?;
        (!kind.is_empty()).then(|| Self::new(kind, name))
    }
}

/// The kind of all principals that a listener authenticates.
pub(crate) const USER: &str = "User";

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.kind, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_it_is_shown() {
        for text in ["User:alice", "User:CN=a:b,O=c", "Group:", "User:ANONYMOUS"] {
            assert_eq!(Principal::parse(text).expect("a principal").to_string(), text);
        }
        assert_eq!(Principal::parse("User:ANONYMOUS"), Some(Principal::anonymous()));
        assert_eq!([Principal::parse("alice"), Principal::parse(":alice"), Principal::parse("")], [None, None, None]);
    }
}
