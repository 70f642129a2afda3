//! The partitions of an answer to a fetch under their topics, for consumers and followers alike.

use crate::replica::leader_link::{FetchKey, TopicRef};
use crate::wire::fetch::{FetchedPartition, FetchedTopic, FetchedTopicRef};

/// The topics in the order of their partitions; neighbours of one topic share its head.
pub(super) fn by_topic(partitions: impl Iterator<Item = (FetchKey, FetchedPartition)>) -> Vec<FetchedTopic> {
    let mut topics: Vec<FetchedTopic> = Vec::new();
    for ((topic, _), partition) in partitions {
        let topic = match topic {
            TopicRef::Name(name) => FetchedTopicRef::Name(name),
            TopicRef::Id(id) => FetchedTopicRef::Id(id),
        };
        match topics.last_mut() {
            Some(last) if last.topic == topic => last.partitions.push(partition),
            _ => topics.push(FetchedTopic { topic, partitions: vec![partition] }),
        }
    }
    topics
}
