//! What each key needs, as the table of keys states it.

use crate::types::acl::{Operation, ResourceType};

/// What a key has the authorizer asked. It has no default, so that no key is forgotten.
///
/// Which of the operations a request needs, of which resources, and what is answered without them, is in the handler;
/// it can ask for nothing that does not stand here. Source: Kafka 3.9 `KafkaApis`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Authorization {
    Of(&'static [(Operation, ResourceType)]),
    /// Anybody may ask it; the reason.
    #[allow(dead_code, reason = "for those who read the table")]
    Nothing(&'static str),
}

impl Authorization {
    /// Only brokers may ask it: they have this on the cluster.
    pub(crate) const OF_BROKERS: Self = Self::Of(&[(Operation::ClusterAction, ResourceType::Cluster)]);

    pub(crate) fn states(self, operation: Operation, resource_type: ResourceType) -> bool {
        match self {
            Self::Of(stated) => stated.contains(&(operation, resource_type)),
            Self::Nothing(_) => false,
        }
    }
}
