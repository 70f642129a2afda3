//! Topic names and partitions.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use super::limits::TOPIC_NAME_CHARS_MAX;

/// A topic's name, cheap to clone. Not validated by construction: what a client sends is checked with [`Self::check`]
/// where a topic is created.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    pub fn new(name: &str) -> Self {
        Self(Arc::from(name))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `__consumer_offsets` and `__transaction_state`, which clients may not create by wish or delete records of.
    pub fn is_internal(&self) -> bool {
        matches!(self.as_str(), CONSUMER_OFFSETS | TRANSACTION_STATE)
    }

    /// Kafka's rule for names, with Kafka's text for what is wrong. Source: Kafka `Topic.validate`.
    pub fn check(name: &str) -> Result<(), String> {
        if name.is_empty() {
            return Err("Topic name is invalid: the empty string is not allowed".into());
        }
        if name == "." || name == ".." {
            return Err(format!("Topic name is invalid: '{name}' is not allowed"));
        }
        if name.chars().count() > TOPIC_NAME_CHARS_MAX {
            return Err(format!(
                "Topic name is invalid: the length of '{name}' is longer than the max allowed length {TOPIC_NAME_CHARS_MAX}"
            ));
        }
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
            return Err(format!(
                "Topic name is invalid: '{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
            ));
        }
        Ok(())
    }
}

/// Topic of the group coordinator's records.
pub const CONSUMER_OFFSETS: &str = "__consumer_offsets";
/// Topic of the transaction coordinator's records.
pub const TRANSACTION_STATE: &str = "__transaction_state";

impl Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for TopicName {
    fn from(name: &str) -> Self {
        Self::new(name)
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Number of a partition inside its topic, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionIndex(pub i32);

impl fmt::Display for PartitionIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A partition by topic name; printed as Kafka does, `topic-0`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: TopicName,
    pub partition: PartitionIndex,
}

impl TopicPartition {
    pub fn new(topic: impl Into<TopicName>, partition: i32) -> Self {
        Self { topic: topic.into(), partition: PartitionIndex(partition) }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rule() {
        for good in ["a", "a.b_c-D9", &"x".repeat(249)] {
            assert_eq!(TopicName::check(good), Ok(()));
        }
        for bad in ["", ".", "..", "a/b", "a b", "\0", "ü", &"x".repeat(250)] {
            assert!(TopicName::check(bad).is_err(), "{bad:?}");
        }
    }
}
