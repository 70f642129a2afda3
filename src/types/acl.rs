//! The words of ACLs: what they are about, what they allow, and to whom. Codes and names are Kafka's.
//!
//! Each kind of word also has those that only a filter uses (`Any`, `Match`) and `Unknown`, which stands for what a
//! later Kafka wrote. Source: Kafka 3.9 `org.apache.kafka.common.acl`, `org.apache.kafka.common.resource`.

use std::fmt;
use std::sync::Arc;

/// Makes an enum of words with a code each. The name of a variant is the word as znodes and the authorizer's log have
/// it, the text beside it the name of Java's constant.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $code:literal $constant:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) enum $name {
            $($variant = $code,)*
        }

        #[allow(dead_code, reason = "not every kind of word is read and written in every form")]
        impl $name {
            /// All of them, in the order of their codes.
            pub(crate) const ALL: &[Self] = &[$(Self::$variant,)*];

            pub(crate) fn code(self) -> i8 {
                self as i8
            }

            /// `Unknown` for a code that Kafka 3.9 does not have.
            pub(crate) fn from_code(code: i8) -> Self {
                Self::ALL.iter().copied().find(|word| word.code() == code).unwrap_or(Self::Unknown)
            }

            /// `TransactionalId`, as in znodes.
            pub(crate) fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => stringify!($variant),)*
                }
            }

            /// Whatever the case of its letters. Source: Kafka 3.9 `SecurityUtils.valueFromMap`.
            pub(crate) fn from_name(name: &str) -> Self {
                let found = Self::ALL.iter().copied().find(|word| word.name().eq_ignore_ascii_case(name));
                found.unwrap_or(Self::Unknown)
            }

            /// `TRANSACTIONAL_ID`, as in the notes of changes.
            pub(crate) fn constant(self) -> &'static str {
                match self {
                    $(Self::$variant => $constant,)*
                }
            }

            /// Whatever the case of its letters. Source: Kafka 3.9 `ResourceType.fromString`.
            pub(crate) fn from_constant(constant: &str) -> Self {
                let found = Self::ALL.iter().copied().find(|word| word.constant().eq_ignore_ascii_case(constant));
                found.unwrap_or(Self::Unknown)
            }
        }

        /// As Kafka's log has it.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.constant())
            }
        }
    };
}

words! {
    /// What an ACL is about.
    ResourceType {
        Unknown = 0 "UNKNOWN",
        Any = 1 "ANY",
        Topic = 2 "TOPIC",
        Group = 3 "GROUP",
        Cluster = 4 "CLUSTER",
        TransactionalId = 5 "TRANSACTIONAL_ID",
        DelegationToken = 6 "DELEGATION_TOKEN",
        User = 7 "USER",
    }
}

words! {
    /// How a resource's name is meant.
    PatternType {
        Unknown = 0 "UNKNOWN",
        Any = 1 "ANY",
        Match = 2 "MATCH",
        Literal = 3 "LITERAL",
        Prefixed = 4 "PREFIXED",
    }
}

words! {
    /// What is done to a resource.
    Operation {
        Unknown = 0 "UNKNOWN",
        Any = 1 "ANY",
        All = 2 "ALL",
        Read = 3 "READ",
        Write = 4 "WRITE",
        Create = 5 "CREATE",
        Delete = 6 "DELETE",
        Alter = 7 "ALTER",
        Describe = 8 "DESCRIBE",
        ClusterAction = 9 "CLUSTER_ACTION",
        DescribeConfigs = 10 "DESCRIBE_CONFIGS",
        AlterConfigs = 11 "ALTER_CONFIGS",
        IdempotentWrite = 12 "IDEMPOTENT_WRITE",
        CreateTokens = 13 "CREATE_TOKENS",
        DescribeTokens = 14 "DESCRIBE_TOKENS",
    }
}

words! {
    /// Whether an ACL allows or denies.
    PermissionType {
        Unknown = 0 "UNKNOWN",
        Any = 1 "ANY",
        Deny = 2 "DENY",
        Allow = 3 "ALLOW",
    }
}

/// The name of the one resource of type `Cluster`.
pub(crate) const CLUSTER_NAME: &str = "kafka-cluster";

/// As the name of a literal resource: every one of its type. As a host: every one.
pub(crate) const WILDCARD: &str = "*";

impl ResourceType {
    /// The types that an ACL may be about.
    pub(crate) const CONCRETE: [Self; 6] =
        [Self::Topic, Self::Group, Self::Cluster, Self::TransactionalId, Self::DelegationToken, Self::User];

    /// Every operation that such a resource knows. Source: Kafka 3.9 `AclEntry.supportedOperations`.
    pub(crate) fn operations(self) -> &'static [Operation] {
        use Operation::*;
        match self {
            Self::Topic => &[Read, Write, Create, Describe, Delete, Alter, DescribeConfigs, AlterConfigs],
            Self::Group => &[Read, Describe, Delete],
            Self::Cluster => &[Create, ClusterAction, DescribeConfigs, AlterConfigs, IdempotentWrite, Alter, Describe],
            Self::TransactionalId => &[Describe, Write],
            Self::DelegationToken => &[Describe],
            Self::User => &[CreateTokens, DescribeTokens],
            Self::Unknown | Self::Any => &[],
        }
    }
}

impl Operation {
    /// The bit of it in a set of operations, as clients are told such sets.
    pub(crate) const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Which resources an ACL is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ResourcePattern {
    pub(crate) resource_type: ResourceType,
    /// `Literal` or `Prefixed`.
    pub(crate) pattern_type: PatternType,
    pub(crate) name: Arc<str>,
}

/// As Kafka's log has it.
impl fmt::Display for ResourcePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource_type, pattern_type, name } = self;
        write!(f, "ResourcePattern(resourceType={resource_type}, name={name}, patternType={pattern_type})")
    }
}

/// One rule about a resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AccessControlEntry {
    /// `User:alice`; `User:*` is every user.
    pub(crate) principal: Arc<str>,
    /// An address as Java writes it, or [`WILDCARD`].
    pub(crate) host: Arc<str>,
    pub(crate) operation: Operation,
    pub(crate) permission: PermissionType,
}

/// As Kafka's log has it. Source: Kafka 3.9 `AclEntry.toString`.
impl fmt::Display for AccessControlEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { principal, host, operation, permission } = self;
        write!(f, "{principal} has {permission} permission for operations: {operation} from hosts: {host}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_kafkas_codes_and_names() {
        let codes: Vec<i8> = Operation::ALL.iter().map(|operation| operation.code()).collect();
        assert_eq!(codes, (0..15).collect::<Vec<i8>>());
        assert_eq!(Operation::from_code(9), Operation::ClusterAction);
        assert_eq!([Operation::from_code(99), Operation::from_code(-1)], [Operation::Unknown; 2]);
        assert_eq!(ResourceType::TransactionalId.name(), "TransactionalId");
        for name in ["TransactionalId", "transactionalid", "TRANSACTIONALID"] {
            assert_eq!(ResourceType::from_name(name), ResourceType::TransactionalId, "{name}");
        }
        assert_eq!(ResourceType::from_name("TRANSACTIONAL_ID"), ResourceType::Unknown, "as in Kafka");
        assert_eq!(ResourceType::from_constant("transactional_id"), ResourceType::TransactionalId);
        assert_eq!(PatternType::from_constant("PREFIXED"), PatternType::Prefixed);
        assert_eq!([PermissionType::Deny.code(), PermissionType::Allow.code()], [2, 3]);
    }

    #[test]
    fn sets_of_operations_are_those_that_clients_were_always_told() {
        let bits = |of: ResourceType| of.operations().iter().fold(0, |set, operation| set | operation.bit());
        assert_eq!(bits(ResourceType::Topic), 0b1101_1111_1000);
        assert_eq!(bits(ResourceType::Cluster), 0b1_1111_1010_0000);
        assert_eq!(bits(ResourceType::Group), 1 << 3 | 1 << 6 | 1 << 8);
    }
}
