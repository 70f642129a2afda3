//! The committed offsets of one group, and the rule by which they expire.
//!
//! Changed by replay alone (I-17).

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::error::GroupError;
use super::pending::PendingOf;
use super::records::OffsetValue;
use super::request::{FetchReply, FetchedOffset};
use crate::clock::UnixMs;
use crate::types::{LeaderEpoch, Offset, PartitionIndex, TopicName};

/// From when the retention of an offset counts, and which offsets never expire.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Retention<'a> {
    /// Nothing expires now.
    Kept,
    /// From this moment: the group has been empty since then.
    Since(UnixMs),
    /// From each commit, but not for these topics, which are subscribed.
    SinceCommit { subscribed: &'a HashSet<Arc<str>> },
}

/// The committed offsets of one group.
#[derive(Debug, Default)]
pub(crate) struct Offsets {
    topics: HashMap<Arc<str>, HashMap<PartitionIndex, OffsetValue>>,
}

impl Offsets {
    pub(crate) fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    pub(crate) fn get(&self, topic: &str, partition: PartitionIndex) -> Option<&OffsetValue> {
        self.topics.get(topic)?.get(&partition)
    }

    pub(crate) fn insert(&mut self, topic: &str, partition: PartitionIndex, value: OffsetValue) {
        match self.topics.get_mut(topic) {
            Some(partitions) => {
                partitions.insert(partition, value);
            }
            None => {
                self.topics.insert(topic.into(), HashMap::from([(partition, value)]));
            }
        }
    }

    pub(crate) fn remove(&mut self, topic: &str, partition: PartitionIndex) {
        if let Some(partitions) = self.topics.get_mut(topic) {
            partitions.remove(&partition);
            if partitions.is_empty() {
                self.topics.remove(topic);
            }
        }
    }

    /// How many offsets there are.
    pub(crate) fn count(&self) -> usize {
        self.topics.values().map(HashMap::len).sum()
    }

    /// All keys, in order.
    pub(crate) fn keys(&self) -> Vec<(Arc<str>, PartitionIndex)> {
        let all =
            self.topics.iter().flat_map(|(topic, of)| of.keys().map(move |&partition| (topic.clone(), partition)));
        let mut keys: Vec<_> = all.collect();
        keys.sort_unstable();
        keys
    }

    /// The key of this partition, if there is an offset.
    pub(crate) fn key(&self, topic: &str, partition: PartitionIndex) -> Option<(Arc<str>, PartitionIndex)> {
        let (topic, of) = self.topics.get_key_value(topic)?;
        of.contains_key(&partition).then(|| (Arc::clone(topic), partition))
    }

    /// The keys of one topic, in order.
    pub(crate) fn keys_of(&self, topic: &str) -> Vec<(Arc<str>, PartitionIndex)> {
        let Some((topic, of)) = self.topics.get_key_value(topic) else { return Vec::new() };
        let mut keys: Vec<_> = of.keys().map(|&partition| (topic.clone(), partition)).collect();
        keys.sort_unstable();
        keys
    }

    /// The keys that have expired at `now`, in order.
    ///
    /// An offset committed with a retention of its own expires at its own time, unless its topic is subscribed or
    /// nothing expires. One that an open transaction has committed again does not expire: the tombstone would stand
    /// after that commit. Source: Kafka 3.9 `GroupMetadata.removeExpiredOffsets`,
    /// `OffsetMetadataManager.cleanupExpiredOffsets`.
    pub(crate) fn expired(
        &self,
        retention: Retention<'_>,
        now: UnixMs,
        retention_ms: i64,
        pending: PendingOf<'_>,
    ) -> Vec<(Arc<str>, PartitionIndex)> {
        let mut expired = Vec::new();
        for (topic, partitions) in &self.topics {
            let since = match retention {
                Retention::Kept => return expired,
                Retention::Since(since) => Some(since),
                Retention::SinceCommit { subscribed } if subscribed.contains(topic) => continue,
                Retention::SinceCommit { .. } => None,
            };
            for (&partition, value) in partitions {
                let gone = match value.expire_ms {
                    Some(expire_ms) => now >= expire_ms,
                    None => now.saturating_sub(since.unwrap_or(value.commit_ms)) >= retention_ms,
                };
                if gone && !pending.is_unstable(topic, partition, true) {
                    expired.push((topic.clone(), partition));
                }
            }
        }
        expired.sort_unstable();
        expired
    }

    /// The offsets of the partitions asked for, −1 where there is none; or all, by topic and partition. With
    /// `unstable_if` those are refused of which it says so; all are all that are committed.
    /// Source: Kafka 3.9 `GroupMetadataManager.getOffsets`.
    pub(crate) fn fetch(
        &self,
        asked: Option<Vec<(TopicName, Vec<PartitionIndex>)>>,
        unstable_if: Option<PendingOf<'_>>,
    ) -> FetchReply {
        let fetched = |topic: &str, partition: PartitionIndex| {
            let committed = self.get(topic, partition);
            match unstable_if {
                Some(pending) if pending.is_unstable(topic, partition, committed.is_some()) => {
                    FetchedOffset { error: Some(GroupError::UnstableOffsetCommit), ..fetched(partition, None) }
                }
                _ => fetched(partition, committed),
            }
        };
        if let Some(asked) = asked {
            let fetched = |topic: &TopicName, partitions: Vec<PartitionIndex>| {
                partitions.into_iter().map(|p| fetched(topic.as_str(), p)).collect()
            };
            return asked.into_iter().map(|(topic, of)| (topic.clone(), fetched(&topic, of))).collect();
        }
        let mut all: FetchReply = self
            .topics
            .iter()
            .map(|(topic, of)| (TopicName::new(topic), of.keys().map(|&p| fetched(topic, p)).collect()))
            .collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (_, partitions) in &mut all {
            partitions.sort_by_key(|fetched: &FetchedOffset| fetched.partition);
        }
        all
    }
}

fn fetched(partition: PartitionIndex, value: Option<&OffsetValue>) -> FetchedOffset {
    match value {
        Some(value) => FetchedOffset {
            partition,
            offset: value.offset,
            leader_epoch: value.leader_epoch,
            metadata: value.metadata.clone(),
            error: None,
        },
        None => FetchedOffset {
            partition,
            offset: Offset::NONE,
            leader_epoch: LeaderEpoch::NONE,
            metadata: "".into(),
            error: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(commit_ms: UnixMs, expire_ms: Option<UnixMs>) -> OffsetValue {
        OffsetValue { offset: Offset(1), leader_epoch: LeaderEpoch::NONE, metadata: "".into(), commit_ms, expire_ms }
    }

    fn offsets() -> Offsets {
        let mut offsets = Offsets::default();
        offsets.insert("old", PartitionIndex(0), value(0, None));
        offsets.insert("new", PartitionIndex(0), value(90, None));
        offsets.insert("own", PartitionIndex(0), value(90, Some(95)));
        offsets
    }

    fn topics(expired: Vec<(Arc<str>, PartitionIndex)>) -> Vec<String> {
        let mut names: Vec<String> = expired.into_iter().map(|(topic, _)| topic.to_string()).collect();
        names.sort();
        names
    }

    #[test]
    fn offsets_expire_from_their_commit_unless_subscribed() {
        let nothing = HashSet::new();
        let free = Retention::SinceCommit { subscribed: &nothing };
        assert_eq!(topics(offsets().expired(free, 100, 50, PendingOf::NOTHING)), ["old", "own"]);
        let old = HashSet::from(["old".into()]);
        let subscribed = Retention::SinceCommit { subscribed: &old };
        assert_eq!(topics(offsets().expired(subscribed, 100, 50, PendingOf::NOTHING)), ["own"]);
        assert!(topics(offsets().expired(Retention::Kept, 1000, 50, PendingOf::NOTHING)).is_empty());
    }

    #[test]
    fn offsets_of_an_empty_group_expire_from_when_it_became_empty() {
        assert_eq!(topics(offsets().expired(Retention::Since(60), 100, 50, PendingOf::NOTHING)), ["own"]);
        assert_eq!(topics(offsets().expired(Retention::Since(50), 100, 50, PendingOf::NOTHING)), ["new", "old", "own"]);
    }

    #[test]
    fn a_removed_topic_leaves_nothing_behind() {
        let mut offsets = offsets();
        for topic in ["old", "new", "own"] {
            offsets.remove(topic, PartitionIndex(0));
        }
        assert!(offsets.is_empty());
    }

    #[test]
    fn a_fetch_of_all_is_sorted_and_a_fetch_of_some_keeps_the_order_asked() {
        let names = |reply: FetchReply| reply.into_iter().map(|(topic, _)| topic.to_string()).collect::<Vec<_>>();
        assert_eq!(names(offsets().fetch(None, None)), ["new", "old", "own"]);
        let asked = vec![("own".into(), vec![PartitionIndex(0)]), ("no".into(), vec![PartitionIndex(3)])];
        let some = offsets().fetch(Some(asked), None);
        assert_eq!(some[0].1[0].offset, Offset(1));
        assert_eq!((some[1].1[0].offset, &*some[1].1[0].metadata), (Offset::NONE, ""));
    }
}
