//! `replica.selector.class`: which replica a consumer reads from (KIP-392).

use super::ConfigError;
use super::reader::Reader;

/// What chooses the replica that a consumer reads from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplicaSelector {
    /// `org.apache.kafka.common.replica.RackAwareReplicaSelector`.
    RackAware,
}

/// Java's classes cannot be loaded, so what one of Kafka's does is taken by its name, and of others nothing is known.
pub(crate) fn resolve(reader: &Reader<'_>) -> Result<Option<ReplicaSelector>, ConfigError> {
    const NAME: &str = "replica.selector.class";
    const RACK_AWARE: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";
    match reader.text(NAME).as_deref() {
        None => Ok(None),
        Some(RACK_AWARE) => Ok(Some(ReplicaSelector::RackAware)),
        Some(_) => Err(reader.invalid(NAME, &format!("a class of Java cannot be loaded; {RACK_AWARE} is built in"))),
    }
}
