//! What must hold at any moment, and at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use super::cluster::{Cluster, PARTITIONS, TOPIC};
use super::load::Acked;
use crate::cluster::znodes::partition_state;
use crate::coordination::Coordination;
use crate::record::{BatchHeader, for_each_record};
use crate::replica::partition::Partition;
use crate::types::{BrokerId, LeaderEpoch, Offset, PartitionIndex};

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Who led under an epoch.
    leaders: BTreeMap<(PartitionIndex, LeaderEpoch), BrokerId>,
    /// High watermark of a leader under an epoch.
    high_watermarks: BTreeMap<(PartitionIndex, LeaderEpoch), Offset>,
    /// Leader epoch and version of a state in the tree.
    states: BTreeMap<PartitionIndex, (LeaderEpoch, i32)>,
}

fn bytes_below(partition: &Partition, end: Offset) -> Vec<u8> {
    let (mut from, mut bytes) = (partition.view().log_start_offset, Vec::new());
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
        for index in (0..PARTITIONS).map(PartitionIndex) {
            self.look_at_state(cluster, index).await;
            for (id, node) in cluster.live.nodes() {
                let Some(partition) = node.replicas.get(TOPIC, index) else { continue };
                let view = partition.view();
                if view.leading {
                    let leader = *self.leaders.entry((index, view.leader_epoch)).or_insert(id);
                    assert_eq!(leader, id, "two leaders of {index} under epoch {}", view.leader_epoch);
                    let before = self.high_watermarks.insert((index, view.leader_epoch), view.high_watermark);
                    assert!(
                        before.is_none_or(|before| before <= view.high_watermark),
                        "I-8: high watermark of {index} fell from {before:?} to {}",
                        view.high_watermark
                    );
                }
            }
        }
    }

    async fn look_at_state(&mut self, cluster: &Cluster, index: PartitionIndex) {
        let path = partition_state::path(TOPIC, index);
        let Some((data, stat)) = cluster.tree.get(&path).await.expect("the tree answers") else { return };
        let node = partition_state::decode(&path, &data).expect("a controller wrote it");
        assert!(!node.isr.is_empty(), "the ISR of {index} is empty");
        let unique: BTreeSet<_> = node.isr.iter().collect();
        assert_eq!(unique.len(), node.isr.len(), "a replica is twice in the ISR of {index}");
        let (epoch, version) = self.states.insert(index, (node.leader_epoch, stat.version)).unwrap_or_default();
        assert!(epoch <= node.leader_epoch && version <= stat.version, "the state of {index} went back");
        self.look_at_isr(cluster, index, &node);
    }

    /// No live member of the ISR lacks anything below the leader's high watermark.
    fn look_at_isr(&self, cluster: &Cluster, index: PartitionIndex, node: &partition_state::LeaderAndIsrNode) {
        let nodes: BTreeMap<_, _> = cluster.live.nodes().into_iter().collect();
        let of = |id: &BrokerId| nodes.get(id).and_then(|node| node.replicas.get(TOPIC, index));
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
                "{member} is in the ISR of {index} with {end}, the high watermark is {}",
                leading.high_watermark
            );
        }
    }
}

/// All replicas are equal, and have each record that was acknowledged where it was said to be, and once.
pub(super) fn compare(cluster: &Cluster, acked: &[Acked]) {
    for index in (0..PARTITIONS).map(PartitionIndex) {
        let replicas: Vec<_> = cluster
            .live
            .nodes()
            .into_iter()
            .map(|(id, node)| (id, node.replicas.get(TOPIC, index).expect("each has a replica")))
            .collect();
        let logs: Vec<Vec<u8>> =
            replicas.iter().map(|(_, replica)| bytes_below(replica, replica.view().log_end_offset)).collect();
        for ((id, replica), log) in replicas.iter().zip(&logs) {
            let first = replicas[0].1.view();
            assert_eq!(replica.view().log_end_offset, first.log_end_offset, "{index} at {id} ends elsewhere");
            let other = parts_at(log, &logs[0]);
            assert!(other.is_none(), "{index} at {id} has other bytes than at {}, from {other:?} on", replicas[0].0);
        }
        let records = records_of(&logs[0]);
        for Acked { partition, offset, value } in acked.iter().filter(|acked| acked.partition == index) {
            let found = records.get(offset);
            assert_eq!(found, Some(value), "what was acknowledged at {offset} of {partition} is not there");
        }
        let values: BTreeSet<_> = records.values().collect();
        assert_eq!(values.len(), records.len(), "a record of {index} is there twice");
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
        for_each_record(batch, 1 << 20, |record| {
            records.insert(record.offset, String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned());
            ControlFlow::Continue(())
        })
        .expect("records that can be read");
        rest = behind;
    }
    records
}
