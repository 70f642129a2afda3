//! What fetchers are told once, and how they name partitions.

use std::time::Duration;

use crate::types::{PartitionIndex, TopicName};

/// A partition's name on this broker.
pub(crate) type Key = (TopicName, PartitionIndex);

/// Settings of followers' fetches.
#[derive(Debug, Clone)]
pub(crate) struct FetcherSettings {
    /// `num.replica.fetchers`
    pub(crate) fetchers: u16,
    /// `replica.fetch.response.max.bytes`
    pub(crate) response_bytes: i32,
    /// `replica.fetch.max.bytes`
    pub(crate) partition_bytes: i32,
    /// `replica.fetch.wait.max.ms`
    pub(crate) wait_ms: i32,
    /// `replica.fetch.min.bytes`
    pub(crate) min_bytes: i32,
    /// `replica.fetch.backoff.ms`: the longest pause after a failure. The first one is shorter, because a follower that
    /// hears of an election before its leader fails once every time.
    pub(crate) backoff: Duration,
}
