//! Offsets committed in transactions that have not ended, of all groups of a shard.
//!
//! Changed by replay alone (I-17). Of the records of one partition the last in the log counts, among those outside of
//! transactions and those of committed ones; a tombstone counts like any other. So what stands later in the log
//! replaces what is pending, whatever the marker will say. A replaced entry still waits for its marker: as in Kafka the
//! partition is not stable until then. It is kept here and not in its group, which may be deleted meanwhile: a record
//! that made no difference to it may have been compacted away, and with it nothing but the entry would tell.
//! Source: Kafka 3.9 `GroupMetadata.pendingTransactionalOffsetCommits`, `GroupMetadataManager.openGroupsForProducer`;
//! there a tombstone is forgotten by a restart, and what it removed may come back.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use super::records::OffsetValue;
use crate::types::{PartitionIndex, ProducerId};

/// Entries of one partition, in the order of the log; of each producer only its last.
type Entries = Vec<Entry>;

type Topics = HashMap<Arc<str>, HashMap<PartitionIndex, Entries>>;

#[derive(Debug)]
struct Entry {
    producer_id: ProducerId,
    /// `None`: a tombstone.
    value: Option<OffsetValue>,
    /// Something later in the log counts instead.
    replaced: bool,
}

impl Entry {
    /// It may become the group's offset.
    fn is_offset(&self) -> bool {
        self.value.is_some() && !self.replaced
    }
}

/// What one transaction changes now that it was committed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) group: Arc<str>,
    /// `None`: the offset is gone.
    pub(crate) offsets: Vec<(Arc<str>, PartitionIndex, Option<OffsetValue>)>,
}

/// The pending offsets of all groups of a shard.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    groups: HashMap<Arc<str>, Topics>,
    /// The groups in which a producer has entries.
    producers: HashMap<ProducerId, BTreeSet<Arc<str>>>,
}

impl Pending {
    /// A record of an open transaction.
    pub(crate) fn add(
        &mut self,
        producer_id: ProducerId,
        group: &Arc<str>,
        topic: &str,
        partition: PartitionIndex,
        value: Option<OffsetValue>,
    ) {
        self.producers.entry(producer_id).or_default().insert(group.clone());
        let topics = self.groups.entry(group.clone()).or_default();
        if !topics.contains_key(topic) {
            topics.insert(topic.into(), HashMap::new());
        }
        if let Some(partitions) = topics.get_mut(topic) {
            let entries = partitions.entry(partition).or_default();
            entries.retain(|entry| entry.producer_id != producer_id);
            entries.push(Entry { producer_id, value, replaced: false });
        }
    }

    /// A record outside of transactions, or a tombstone, has followed: nothing that is pending will count.
    pub(crate) fn replace(&mut self, group: &str, topic: &str, partition: PartitionIndex) {
        let Some(topics) = self.groups.get_mut(group) else { return };
        let entries = topics.get_mut(topic).and_then(|partitions| partitions.get_mut(&partition));
        for entry in entries.into_iter().flatten() {
            entry.replaced = true;
        }
    }

    /// The producer's transaction has ended: forgets its entries, and answers for each group it wrote to what of them
    /// counts from now on, which is nothing unless it was `committed`.
    pub(crate) fn end(&mut self, producer_id: ProducerId, committed: bool) -> Vec<Ended> {
        let groups = self.producers.remove(&producer_id).unwrap_or_default();
        groups.into_iter().map(|group| self.end_in(group, producer_id, committed)).collect()
    }

    fn end_in(&mut self, group: Arc<str>, producer_id: ProducerId, committed: bool) -> Ended {
        let mut offsets = Vec::new();
        let Some(topics) = self.groups.get_mut(&group) else { return Ended { group, offsets } };
        for (topic, partitions) in topics.iter_mut() {
            for (&partition, entries) in partitions.iter_mut() {
                let Some(at) = entries.iter().position(|entry| entry.producer_id == producer_id) else { continue };
                let ended = entries.remove(at);
                if committed {
                    entries[..at].iter_mut().for_each(|earlier| earlier.replaced = true);
                    if !ended.replaced {
                        offsets.push((topic.clone(), partition, ended.value));
                    }
                }
            }
            partitions.retain(|_, entries| !entries.is_empty());
        }
        topics.retain(|_, partitions| !partitions.is_empty());
        if topics.is_empty() {
            self.groups.remove(&group);
        }
        Ended { group, offsets }
    }

    /// What is pending in one group.
    pub(crate) fn of(&self, group: &str) -> PendingOf<'_> {
        PendingOf(self.groups.get(group))
    }
}

/// What is pending in one group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PendingOf<'a>(Option<&'a Topics>);

impl<'a> PendingOf<'a> {
    /// Nothing.
    #[cfg(test)]
    pub(crate) const NOTHING: Self = Self(None);

    fn topics(self) -> impl Iterator<Item = (&'a Arc<str>, &'a HashMap<PartitionIndex, Entries>)> {
        self.0.into_iter().flatten()
    }

    fn entries(self, topic: &str, partition: PartitionIndex) -> &'a [Entry] {
        let entries = self.0.and_then(|topics| topics.get(topic)?.get(&partition));
        entries.map_or(&[], Vec::as_slice)
    }

    /// Whether some of it may become an offset of the group.
    pub(crate) fn has_offsets(self) -> bool {
        self.topics().any(|(_, partitions)| partitions.values().flatten().any(Entry::is_offset))
    }

    /// Whether a transaction that wrote this partition's offset is open. Without a committed offset those entries do
    /// not count that something has replaced: it removed the offset.
    pub(crate) fn is_unstable(self, topic: &str, partition: PartitionIndex, has_committed: bool) -> bool {
        self.entries(topic, partition).iter().any(|entry| has_committed || !entry.replaced)
    }

    /// The partitions for which there may be an offset, in order.
    pub(crate) fn keys(self) -> Vec<(Arc<str>, PartitionIndex)> {
        self.keys_if(|_| true)
    }

    /// That of this partition, if there may be an offset.
    pub(crate) fn key(self, topic: &str, partition: PartitionIndex) -> Option<(Arc<str>, PartitionIndex)> {
        let may_be = self.entries(topic, partition).iter().any(Entry::is_offset);
        may_be.then(|| (Arc::from(topic), partition))
    }

    /// Those of one topic, in order.
    pub(crate) fn keys_of(self, topic: &str) -> Vec<(Arc<str>, PartitionIndex)> {
        self.keys_if(|name| name == topic)
    }

    fn keys_if(self, wanted: impl Fn(&str) -> bool) -> Vec<(Arc<str>, PartitionIndex)> {
        let of_topic = |(topic, partitions): (&'a Arc<str>, &'a HashMap<PartitionIndex, Entries>)| {
            let open = partitions.iter().filter(|(_, entries)| entries.iter().any(Entry::is_offset));
            open.map(move |(&partition, _)| (topic.clone(), partition))
        };
        let mut keys: Vec<_> = self.topics().filter(|(topic, _)| wanted(topic)).flat_map(of_topic).collect();
        keys.sort_unstable();
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{LeaderEpoch, Offset};

    const P0: PartitionIndex = PartitionIndex(0);
    const ANN: ProducerId = ProducerId(1);
    const BOB: ProducerId = ProducerId(2);

    fn value(offset: i64) -> Option<OffsetValue> {
        Some(OffsetValue {
            offset: Offset(offset),
            leader_epoch: LeaderEpoch::NONE,
            metadata: "".into(),
            commit_ms: 0,
            expire_ms: None,
        })
    }

    fn add(pending: &mut Pending, producer_id: ProducerId, offset: i64) {
        pending.add(producer_id, &"g".into(), "t", P0, value(offset));
    }

    /// Offsets that a commit makes count; −1 for a removal.
    fn commit(pending: &mut Pending, producer_id: ProducerId) -> Vec<i64> {
        let ended = pending.end(producer_id, true);
        let offsets = ended.into_iter().flat_map(|ended| ended.offsets);
        offsets.map(|(_, _, value)| value.map_or(-1, |value| value.offset.0)).collect()
    }

    #[test]
    fn the_last_commit_of_a_transaction_counts_and_an_abort_forgets_all() {
        let mut pending = Pending::default();
        add(&mut pending, ANN, 1);
        add(&mut pending, ANN, 2);
        assert_eq!(commit(&mut pending, ANN), [2]);
        add(&mut pending, ANN, 3);
        assert_eq!(pending.end(ANN, false), [Ended { group: "g".into(), offsets: Vec::new() }]);
        assert!(commit(&mut pending, ANN).is_empty() && pending.groups.is_empty() && pending.producers.is_empty());
    }

    #[test]
    fn the_order_of_the_log_decides_and_not_that_of_the_markers() {
        let mut pending = Pending::default();
        add(&mut pending, ANN, 1);
        add(&mut pending, BOB, 2);
        assert_eq!(commit(&mut pending, BOB), [2]);
        // Older than what was committed, but open all the same.
        assert!(pending.of("g").is_unstable("t", P0, true) && !pending.of("g").has_offsets());
        assert!(commit(&mut pending, ANN).is_empty());
        add(&mut pending, ANN, 1);
        add(&mut pending, BOB, 2);
        assert_eq!((commit(&mut pending, ANN), commit(&mut pending, BOB)), (vec![1], vec![2]));
        // An abort replaces nothing.
        add(&mut pending, ANN, 1);
        add(&mut pending, BOB, 2);
        pending.end(BOB, false);
        assert_eq!(commit(&mut pending, ANN), [1]);
    }

    #[test]
    fn a_record_outside_of_transactions_replaces_what_stands_before_it() {
        let mut pending = Pending::default();
        add(&mut pending, ANN, 1);
        pending.replace("g", "t", P0);
        add(&mut pending, BOB, 2);
        assert!(commit(&mut pending, ANN).is_empty());
        assert_eq!(commit(&mut pending, BOB), [2]);
        // A producer's own later commit stands after it.
        add(&mut pending, ANN, 1);
        pending.replace("g", "t", P0);
        add(&mut pending, ANN, 3);
        assert_eq!(commit(&mut pending, ANN), [3]);
    }

    #[test]
    fn a_replaced_entry_makes_only_a_committed_offset_unstable() {
        let mut pending = Pending::default();
        add(&mut pending, ANN, 1);
        let of = pending.of("g");
        assert!(of.is_unstable("t", P0, false) && of.has_offsets());
        assert_eq!((of.keys().len(), of.keys_of("t").len(), of.keys_of("u").len()), (1, 1, 0));
        assert!(!of.is_unstable("t", PartitionIndex(1), true) && !pending.of("h").is_unstable("t", P0, true));
        pending.replace("g", "t", P0);
        let of = pending.of("g");
        assert!(!of.is_unstable("t", P0, false) && of.is_unstable("t", P0, true) && of.keys().is_empty());
    }

    #[test]
    fn a_tombstone_in_a_transaction_counts_with_it() {
        let mut pending = Pending::default();
        pending.add(ANN, &"g".into(), "t", P0, None);
        assert!(!pending.of("g").has_offsets());
        assert_eq!(commit(&mut pending, ANN), [-1]);
    }
}
