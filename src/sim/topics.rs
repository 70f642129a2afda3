//! The topics of a run: one that stays where it is, one whose replicas move, one that comes and goes.

use std::collections::BTreeMap;

use super::chance::Chance;
use super::cluster::BROKERS;
use crate::cluster::admin::{ClusterAdmin, NewTopic};
use crate::cluster::znodes::config::Overrides;
use crate::cluster::znodes::topics::{self, TopicNode};
use crate::coordination::Coordination;
use crate::coordination::embedded::EmbeddedCoordination;
use crate::types::{BrokerId, PartitionIndex, TopicId, TopicPartition};

/// All three brokers have it, all the time.
pub(super) const STAYS: &str = "stays";
/// Two of three have it, and others later.
pub(super) const MOVES: &str = "moves";
/// Is deleted, and made again under the same name.
pub(super) const COMES: &str = "comes";

/// A partition of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) topic: &'static str,
    pub(super) index: PartitionIndex,
}

impl Place {
    pub(super) const fn new(topic: &'static str, index: i32) -> Self {
        Self { topic, index: PartitionIndex(index) }
    }

    pub(super) fn partition(&self) -> TopicPartition {
        TopicPartition::new(self.topic, self.index.0)
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}-{}", self.topic, self.index)
    }
}

pub(super) const PLACES: [Place; 5] =
    [Place::new(STAYS, 0), Place::new(STAYS, 1), Place::new(MOVES, 0), Place::new(MOVES, 1), Place::new(COMES, 0)];

/// Where a partition is to be, as the tree has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Home {
    pub(super) topic_id: TopicId,
    pub(super) replicas: Vec<BrokerId>,
    /// A reassignment is under way.
    pub(super) moving: bool,
}

/// Where all partitions are to be; those of a topic that is not there, or is about to go, have no home.
pub(super) async fn homes(tree: &EmbeddedCoordination) -> BTreeMap<Place, Home> {
    let mut homes = BTreeMap::new();
    for place in PLACES {
        let Some(node) = read(tree, place.topic).await else { continue };
        let has = |some: &topics::Assignment| some.get(&place.index).is_some_and(|brokers| !brokers.is_empty());
        let moving = has(&node.adding_replicas) || has(&node.removing_replicas);
        let Some(replicas) = node.partitions.get(&place.index).cloned() else { continue };
        homes.insert(place, Home { topic_id: node.id.expect("topics have ids"), replicas, moving });
    }
    homes
}

async fn read(tree: &EmbeddedCoordination, topic: &str) -> Option<TopicNode> {
    let (data, _) = tree.get(&topics::path(topic)).await.expect("the tree answers")?;
    Some(topics::decode(topic, &data).expect("a controller wrote it"))
}

/// Makes the topics that are there from the beginning.
pub(super) async fn create_all(admin: &ClusterAdmin, chance: &Chance) {
    for topic in [STAYS, MOVES, COMES] {
        create(admin, topic, chance).await;
    }
}

/// Makes one of the topics, unless it is there.
pub(super) async fn create(admin: &ClusterAdmin, name: &'static str, chance: &Chance) {
    let factor = if name == MOVES { 2 } else { 3 };
    let assignment = PLACES.iter().filter(|place| place.topic == name).map(|place| {
        let first = place.index.0 as usize;
        (place.index, (0..factor).map(|at| BROKERS[(first + at) % 3]).collect())
    });
    let id = loop {
        let bits = (u128::from(chance.next()) << 64) | u128::from(chance.next());
        if let Some(id) = TopicId::from_random(bits) {
            break id;
        }
    };
    let topic = NewTopic { name: name.into(), id, assignment: assignment.collect(), overrides: Overrides::new() };
    // It may be there, and then it stays.
    let made = admin.create_topics(&[topic]).await.remove(0);
    chance.note(&format!("create {name} {}", made.is_ok()));
}

/// Two of the brokers, in some order.
pub(super) fn two_of_three(chance: &Chance) -> Vec<BrokerId> {
    let first = chance.below(3) as usize;
    vec![BROKERS[first], BROKERS[(first + 1 + chance.below(2) as usize) % 3]]
}
