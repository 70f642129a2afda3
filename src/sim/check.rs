//! What must hold at any moment, and at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::cluster::Cluster;
use super::load::Acked;
use super::topics::{COMES, Home, PLACES, Place, STAYS, homes};
use crate::cluster::znodes::partition_state;
use crate::coordination::Coordination;
use crate::log::testing::expect_same;
use crate::record::{BatchHeader, for_each_record};
use crate::replica::partition::Partition;
use crate::types::{BrokerId, LeaderEpoch, Offset, TopicId};

/// A partition of one of the topics of its name.
type Life = (Place, TopicId);

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Who led under an epoch.
    leaders: BTreeMap<(Life, LeaderEpoch), BrokerId>,
    /// High watermark of a leader under an epoch.
    high_watermarks: BTreeMap<(Life, LeaderEpoch), Offset>,
    /// Leader epoch and version of a state in the tree.
    states: BTreeMap<Life, (LeaderEpoch, i32)>,
    looks: u64,
}

fn bytes_of(partition: &Partition, mut from: Offset, end: Offset) -> Vec<u8> {
    let mut bytes = Vec::new();
    while from < end {
        let read = partition.reader().read(from, end, 1 << 20, true).expect("a disk in memory can be read");
        let Some(last) = read.batches.last() else { break };
        from = BatchHeader::parse(last).expect("a batch").last_offset() + 1;
        read.batches.iter().for_each(|batch| bytes.extend_from_slice(batch));
    }
    bytes
}

impl Seen {
    /// Looks at everything once.
    pub(super) async fn look(&mut self, cluster: &Cluster) {
        self.looks += 1;
        if self.looks.is_multiple_of(4) {
            Self::look_at_logs(cluster);
        }
        for (place, home) in homes(&cluster.tree).await {
            self.look_at_state(cluster, place, &home).await;
        }
        for place in PLACES {
            for (id, node) in cluster.live.nodes() {
                let Some(partition) = node.replicas.get(place.topic, place.index) else { continue };
                let view = partition.view();
                let positions =
                    [view.log_start_offset, view.last_stable_offset, view.high_watermark, view.log_end_offset];
                assert!(positions.is_sorted(), "{place} at {id}: {view:?}");
                if view.leading {
                    let under = ((place, partition.id.topic_id), view.leader_epoch);
                    let leader = *self.leaders.entry(under).or_insert(id);
                    assert_eq!(leader, id, "two leaders of {place} under epoch {}", view.leader_epoch);
                    let before = self.high_watermarks.insert(under, view.high_watermark);
                    assert!(
                        before.is_none_or(|before| before <= view.high_watermark),
                        "I-8: high watermark of {place} fell from {before:?} to {}",
                        view.high_watermark
                    );
                }
            }
        }
    }

    /// No two replicas differ below their high watermarks.
    fn look_at_logs(cluster: &Cluster) {
        for place in PLACES {
            let found = cluster.live.nodes().into_iter();
            let mut found: Vec<_> = found
                .filter_map(|(id, node)| Some((id, node.replicas.get(place.topic, place.index)?)))
                .map(|(id, replica)| (replica.id.topic_id, id, replica))
                .collect();
            found.sort_by_key(|(topic_id, id, _)| (*topic_id, *id));
            for pair in found.windows(2) {
                let [(first_topic, first_id, first), (topic, id, replica)] = pair else { unreachable!("pairs") };
                if first_topic != topic {
                    continue;
                }
                let (one, other) = (first.view(), replica.view());
                let start = one.log_start_offset.max(other.log_start_offset);
                let end = one.high_watermark.min(other.high_watermark);
                let parted = parts_at(&bytes_of(first, start, end), &bytes_of(replica, start, end));
                assert!(parted.is_none(), "{place} parts at {first_id} and {id} at {parted:?}, below {end}");
            }
        }
    }

    async fn look_at_state(&mut self, cluster: &Cluster, place: Place, home: &Home) {
        let path = partition_state::path(place.topic, place.index);
        let Some((data, stat)) = cluster.tree.get(&path).await.expect("the tree answers") else { return };
        let node = partition_state::decode(&path, &data).expect("a controller wrote it");
        assert!(!node.isr.is_empty(), "the ISR of {place} is empty");
        let unique: BTreeSet<_> = node.isr.iter().collect();
        assert_eq!(unique.len(), node.isr.len(), "a replica is twice in the ISR of {place}");
        let now = (node.leader_epoch, stat.version);
        let (epoch, version) = self.states.insert((place, home.topic_id), now).unwrap_or_default();
        assert!(epoch <= node.leader_epoch && version <= stat.version, "the state of {place} went back");
        self.look_at_isr(cluster, place, home, &node);
    }

    /// No live member of the ISR lacks anything below the leader's high watermark.
    fn look_at_isr(&self, cluster: &Cluster, place: Place, home: &Home, node: &partition_state::LeaderAndIsrNode) {
        let nodes: BTreeMap<_, _> = cluster.live.nodes().into_iter().collect();
        let of = |id: &BrokerId| {
            let found = nodes.get(id).and_then(|node| node.replicas.get(place.topic, place.index));
            found.filter(|partition| partition.id.topic_id == home.topic_id)
        };
        let Some(leader) = node.leader.as_ref().and_then(of) else { return };
        let leading = leader.view();
        if !leading.leading || leading.leader_epoch != node.leader_epoch {
            return;
        }
        for member in &node.isr {
            let Some(replica) = of(member) else { continue };
            let end = replica.view().log_end_offset;
            assert!(
                cluster.lacks_ends(*member) || end >= leading.high_watermark,
                "{member} is in the ISR of {place} with {end}, the high watermark is {}",
                leading.high_watermark
            );
        }
    }
}

/// All replicas are equal, and have each record that was acknowledged where it was said to be, and once. What was in a
/// topic that is gone is gone with it.
pub(super) async fn compare(cluster: &Cluster, acked: &[Acked]) {
    let nodes: BTreeMap<_, _> = cluster.live.nodes().into_iter().collect();
    for (place, home) in homes(&cluster.tree).await {
        let replicas: Vec<_> = home
            .replicas
            .iter()
            .map(|id| (id, nodes[id].replicas.get(place.topic, place.index).expect("each has its replica")))
            .collect();
        // Replicas need not agree on what was deleted.
        let starts = replicas.iter().map(|(_, replica)| replica.view().log_start_offset);
        let start = starts.max().expect("there are replicas");
        let logs: Vec<Vec<u8>> =
            replicas.iter().map(|(_, replica)| bytes_of(replica, start, replica.view().log_end_offset)).collect();
        if place.topic == STAYS {
            compare_facts(place, &replicas);
        }
        for ((id, replica), log) in replicas.iter().zip(&logs) {
            let first = replicas[0].1.view();
            assert_eq!(replica.view().log_end_offset, first.log_end_offset, "{place} at {id} ends elsewhere");
            let other = parts_at(log, &logs[0]);
            assert!(other.is_none(), "{place} at {id} has other bytes than at {}, from {other:?} on", replicas[0].0);
        }
        let records = records_of(&logs[0]);
        let there = |acked: &&Acked| acked.place == place && acked.topic_id == home.topic_id && acked.offset >= start;
        for Acked { offset, value, .. } in acked.iter().filter(there) {
            let found = records.get(offset);
            assert_eq!(found, Some(value), "what was acknowledged at {offset} of {place} is not there");
        }
        if place.topic == COMES {
            let gone =
                |value: &String| acked.iter().any(|acked| acked.topic_id != home.topic_id && acked.value == *value);
            let old = records.values().find(|value| gone(value));
            assert!(old.is_none(), "{place} has {old:?} of a topic that was deleted");
        } else {
            let values: BTreeSet<_> = records.values().collect();
            assert_eq!(values.len(), records.len(), "a record of {place} is there twice");
        }
    }
}

/// What the replicas know besides their batches. Where records are deleted it may be different.
fn compare_facts(place: Place, replicas: &[(&BrokerId, Arc<Partition>)]) {
    let known = |replica: &Partition| {
        let mut facts = replica.facts();
        facts.retain(|(part, _)| ["ends", "stable", "epochs", "producers", "aborted"].contains(part));
        facts
    };
    let first = known(&replicas[0].1);
    for (id, replica) in &replicas[1..] {
        expect_same(&known(replica), &first, &format!("{place} at {id} and at {}", replicas[0].0));
    }
}

/// The first batch in both, where two logs differ. The headers tell offsets and epochs.
fn parts_at(one: &[u8], other: &[u8]) -> Option<(BatchHeader, BatchHeader)> {
    let (mut one, mut other) = (one, other);
    while one != other {
        let header = |log| BatchHeader::parse(log).expect("logs that end at one offset end with one batch");
        let headers = (header(one), header(other));
        let (first, second) = (one.split_at(headers.0.size_bytes()), other.split_at(headers.1.size_bytes()));
        if first.0 != second.0 {
            return Some(headers);
        }
        (one, other) = (first.1, second.1);
    }
    None
}

fn records_of(log: &[u8]) -> BTreeMap<Offset, String> {
    let (mut records, mut rest) = (BTreeMap::new(), log);
    while !rest.is_empty() {
        let header = BatchHeader::parse(rest).expect("whole batches");
        let (batch, behind) = rest.split_at(header.size_bytes());
        rest = behind;
        if header.is_control() {
            continue;
        }
        for_each_record(batch, 1 << 20, |record| {
            records.insert(record.offset, String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned());
            ControlFlow::Continue(())
        })
        .expect("records that can be read");
    }
    records
}
