//! Which brokers hold the replicas of new partitions. Pure: chance comes in as a number.
//!
//! Leaders go round robin over the brokers from a chosen start; followers of one leader shift by one each time the
//! round begins anew, so that the load of a lost broker spreads over all. With racks the brokers are first ordered so
//! that neighbours are in different racks, and a rack gets a second replica only when every rack has one.
//! Source: Kafka 3.9 `AdminUtils.assignReplicasToBrokers`.

use std::collections::{BTreeMap, BTreeSet};

use super::znodes::topics::Assignment;
use crate::types::{BrokerId, PartitionIndex};

/// A broker that may get replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) id: BrokerId,
    pub(crate) rack: Option<String>,
}

/// Where the round begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// A new topic: from random bits.
    Random(u128),
    /// Growth of a topic: index, in broker order, of the leader of partition 0.
    At(usize),
}

/// Why there is no assignment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlacementError {
    #[error("Number of partitions must be larger than 0.")]
    NoPartitions,
    #[error("Replication factor must be larger than 0.")]
    NoReplicas,
    #[error("Replication factor: {wanted} larger than available brokers: {live}.")]
    TooFewBrokers { wanted: i32, live: usize },
    #[error("Not all brokers have rack information for replica rack aware assignment.")]
    RacksIncomplete,
}

/// Assigns `partition_count` partitions, numbered from `first_partition`, with `replication_factor` replicas each.
pub(crate) fn assign(
    brokers: &[Candidate],
    partition_count: i32,
    replication_factor: i32,
    start: Start,
    first_partition: i32,
) -> Result<Assignment, PlacementError> {
    if partition_count <= 0 {
        return Err(PlacementError::NoPartitions);
    }
    if replication_factor <= 0 {
        return Err(PlacementError::NoReplicas);
    }
    if usize::try_from(replication_factor).is_ok_and(|wanted| wanted > brokers.len()) {
        return Err(PlacementError::TooFewBrokers { wanted: replication_factor, live: brokers.len() });
    }
    let mut racks: BTreeMap<&str, BTreeSet<BrokerId>> = BTreeMap::new();
    for broker in brokers {
        if let Some(rack) = &broker.rack {
            racks.entry(rack).or_default().insert(broker.id);
        }
    }
    if !racks.is_empty() && brokers.iter().any(|broker| broker.rack.is_none()) {
        return Err(PlacementError::RacksIncomplete);
    }
    if racks.is_empty() {
        // One rack for all makes the general rule the plain one.
        racks.insert("", brokers.iter().map(|broker| broker.id).collect());
    }
    let round = Round::new(&racks, start);
    let numbers = first_partition..first_partition.saturating_add(partition_count);
    Ok(numbers
        .map(|number| (PartitionIndex(number), round.replicas(number, first_partition, replication_factor)))
        .collect())
}

/// The brokers in the order in which leaders are given out.
struct Round<'a> {
    /// Broker and index of its rack.
    order: Vec<(BrokerId, usize)>,
    racks: &'a BTreeMap<&'a str, BTreeSet<BrokerId>>,
    start: usize,
    shift: usize,
}

impl<'a> Round<'a> {
    fn new(racks: &'a BTreeMap<&'a str, BTreeSet<BrokerId>>, start: Start) -> Self {
        let mut columns: Vec<_> = racks.values().map(|brokers| brokers.iter().copied()).collect();
        let broker_count = racks.values().map(BTreeSet::len).sum();
        let mut order = Vec::with_capacity(broker_count);
        while order.len() < broker_count {
            for (rack, column) in columns.iter_mut().enumerate() {
                order.extend(column.next().map(|broker| (broker, rack)));
            }
        }
        let (start, shift) = match start {
            Start::At(index) => (index, index),
            Start::Random(bits) => {
                let broker_count = broker_count as u128;
                ((bits % broker_count) as usize, ((bits >> 64) % broker_count) as usize)
            }
        };
        Self { order, racks, start, shift }
    }

    fn replicas(&self, partition: i32, first_partition: i32, replication_factor: i32) -> Vec<BrokerId> {
        let broker_count = self.order.len();
        let rack_count = self.racks.len();
        let number = usize::try_from(partition).unwrap_or(0);
        // The shift grows each time a partition number is a multiple of the broker count, partition 0 aside.
        let rounds_before = usize::try_from(first_partition).unwrap_or(0).max(1).div_ceil(broker_count);
        let rounds = (number / broker_count + 1).saturating_sub(rounds_before);
        let shift = self.shift + rounds;
        let leader_at = (number + self.start) % broker_count;
        let (leader, leader_rack) = self.order[leader_at];
        let mut replicas = vec![leader];
        let mut racks_used = BTreeSet::from([leader_rack]);
        let mut step = 0;
        while replicas.len() < replication_factor as usize {
            let distance = 1 + (shift * rack_count + step) % (broker_count - 1);
            let (broker, rack) = self.order[(leader_at + distance) % broker_count];
            let rack_is_free = !racks_used.contains(&rack) || racks_used.len() == rack_count;
            if rack_is_free && !replicas.contains(&broker) {
                replicas.push(broker);
                racks_used.insert(rack);
            }
            step += 1;
        }
        replicas
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(count: i32) -> Vec<Candidate> {
        (0..count).map(|id| Candidate { id: BrokerId(id), rack: None }).collect()
    }

    fn numbers(assignment: &Assignment) -> Vec<Vec<i32>> {
        assignment.values().map(|replicas| replicas.iter().map(|id| id.0).collect()).collect()
    }

    #[test]
    fn kafkas_documented_example_is_met() {
        // The table in the comment of Kafka's AdminUtils: 10 partitions, 3 replicas, 5 brokers, start 0.
        let assignment = assign(&plain(5), 10, 3, Start::At(0), 0).unwrap();
        let expected = [
            [0, 1, 2],
            [1, 2, 3],
            [2, 3, 4],
            [3, 4, 0],
            [4, 0, 1],
            [0, 2, 3],
            [1, 3, 4],
            [2, 4, 0],
            [3, 0, 1],
            [4, 1, 2],
        ];
        assert_eq!(numbers(&assignment), expected.map(|replicas| replicas.to_vec()));
    }

    #[test]
    fn rack_aware_order_is_kafkas() {
        // Racks 0: r1, 1: r3, 2: r3, 3: r2, 4: r2, 5: r1 alternate as 0, 3, 1, 5, 4, 2.
        let racks = ["r1", "r3", "r3", "r2", "r2", "r1"];
        let brokers: Vec<_> =
            (0..).zip(racks).map(|(id, rack)| Candidate { id: BrokerId(id), rack: Some(rack.into()) }).collect();
        let assignment = assign(&brokers, 7, 3, Start::At(0), 0).unwrap();
        let expected = [[0, 3, 1], [3, 1, 5], [1, 5, 4], [5, 4, 2], [4, 2, 0], [2, 0, 3], [0, 4, 2]];
        assert_eq!(numbers(&assignment), expected.map(|replicas| replicas.to_vec()));
    }

    #[test]
    fn growth_continues_where_the_topic_ended() {
        let assignment = assign(&plain(5), 2, 2, Start::At(1), 5).unwrap();
        // Partition 5 is a multiple of 5, so the shift of 1 has grown to 2.
        assert_eq!(numbers(&assignment), [[1, 4], [2, 0]]);
        assert_eq!(assignment.keys().map(|index| index.0).collect::<Vec<_>>(), [5, 6]);
    }

    #[test]
    fn every_replica_set_is_distinct_and_of_the_right_size() {
        for bits in [0, 1, u128::MAX, 0x1234_5678_9abc_def0_0fed_cba9_8765_4321] {
            let assignment = assign(&plain(4), 9, 4, Start::Random(bits), 0).unwrap();
            for replicas in assignment.values() {
                assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), 4);
            }
        }
        let one = assign(&plain(1), 3, 1, Start::Random(7), 0).unwrap();
        assert_eq!(numbers(&one), [[0], [0], [0]]);
    }

    #[test]
    fn refusals_have_kafkas_texts() {
        let text = |result: Result<Assignment, PlacementError>| result.unwrap_err().to_string();
        assert_eq!(text(assign(&plain(1), 0, 1, Start::At(0), 0)), "Number of partitions must be larger than 0.");
        assert_eq!(text(assign(&plain(1), 1, 0, Start::At(0), 0)), "Replication factor must be larger than 0.");
        assert_eq!(
            text(assign(&plain(1), 1, 2, Start::At(0), 0)),
            "Replication factor: 2 larger than available brokers: 1."
        );
        let mut half = plain(2);
        half[0].rack = Some("r".into());
        assert_eq!(assign(&half, 1, 1, Start::At(0), 0), Err(PlacementError::RacksIncomplete));
    }
}
