//! What the controller knows: live brokers, topics, states of their partitions, failed replicas, deletions under way.
//! Plain data in memory, read from the store at the beginning of a term and kept in step with every write.

use std::collections::{BTreeMap, BTreeSet};

use super::assignment::Replicas;
use crate::cluster::control::{LiveBroker, PartitionState};
use crate::cluster::znodes::partition_state::LeaderAndIsrNode;
use crate::coordination::Stat;
use crate::types::{BrokerEpoch, BrokerId, PartitionEpoch, PartitionIndex, TopicId, TopicName, TopicPartition};

#[derive(Debug, Clone)]
pub(super) struct Broker {
    pub(super) info: LiveBroker,
    pub(super) epoch: BrokerEpoch,
}

/// A partition's state as it is stored.
#[derive(Debug, Clone)]
pub(super) struct Led {
    pub(super) node: LeaderAndIsrNode,
    pub(super) epoch: PartitionEpoch,
    /// Transaction that wrote it last, to be compared with those that made registrations.
    pub(super) mzxid: i64,
}

impl Led {
    pub(super) fn new(node: LeaderAndIsrNode, stat: &Stat) -> Self {
        Self { node, epoch: PartitionEpoch(stat.version), mzxid: stat.mzxid }
    }

    /// Just created, by a multi, which tells no transaction: later than any registration that is known.
    pub(super) fn created(node: LeaderAndIsrNode) -> Self {
        Self { node, epoch: PartitionEpoch(0), mzxid: i64::MAX }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Partition {
    pub(super) replicas: Replicas,
    /// `None`: new, no replica was ever online.
    pub(super) state: Option<Led>,
}

#[derive(Debug, Clone)]
pub(super) struct Topic {
    pub(super) id: TopicId,
    pub(super) partitions: BTreeMap<PartitionIndex, Partition>,
}

/// How far a deletion is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Deletion {
    /// Not begun: some replica cannot be deleted now.
    Waiting,
    /// Begun, and to be begun again: some replica could not be deleted.
    Suspended,
    /// These replicas have not answered.
    Stopping(BTreeSet<(BrokerId, PartitionIndex)>),
}

#[derive(Debug, Default)]
pub(super) struct Context {
    pub(super) brokers: BTreeMap<BrokerId, Broker>,
    /// Brokers that are live and have said that they will stop.
    pub(super) shutting_down: BTreeSet<BrokerId>,
    /// Changed by [`Self::insert_topic`] and [`Self::remove_topic`] alone.
    pub(super) topics: BTreeMap<TopicName, Topic>,
    names: BTreeMap<TopicId, TopicName>,
    /// Replicas in a failed log directory of a live broker.
    pub(super) failed_replicas: BTreeSet<(BrokerId, TopicName, PartitionIndex)>,
    pub(super) deletions: BTreeMap<TopicName, Deletion>,
}

impl Context {
    /// Whether a replica can serve: its broker is live, though it may be shutting down, and its log directory has not
    /// failed.
    pub(super) fn is_alive(&self, broker: BrokerId, partition: &TopicPartition) -> bool {
        self.brokers.contains_key(&broker)
            && (self.failed_replicas.is_empty()
                || !self.failed_replicas.contains(&(broker, partition.topic.clone(), partition.partition)))
    }

    /// Whether a replica may be elected: it is alive, and its broker is not shutting down.
    pub(super) fn is_eligible(&self, broker: BrokerId, partition: &TopicPartition) -> bool {
        !self.shutting_down.contains(&broker) && self.is_alive(broker, partition)
    }

    /// Whether a broker is live and stays so: what an ISR asks of its members. `epoch`, unless it is
    /// [`BrokerEpoch::NONE`], is the registration that is meant.
    pub(super) fn may_be_in_sync(&self, broker: BrokerId, epoch: BrokerEpoch) -> bool {
        let same = |known: &Broker| epoch == BrokerEpoch::NONE || known.epoch == epoch;
        !self.shutting_down.contains(&broker) && self.brokers.get(&broker).is_some_and(same)
    }

    pub(super) fn insert_topic(&mut self, name: TopicName, topic: Topic) {
        self.remove_topic(&name);
        self.names.insert(topic.id, name.clone());
        self.topics.insert(name, topic);
    }

    pub(super) fn remove_topic(&mut self, name: &TopicName) {
        if let Some(topic) = self.topics.remove(name) {
            self.names.remove(&topic.id);
        }
    }

    /// Forgets all that is known under this name: what has it from now on, if anything, is another topic.
    pub(super) fn forget_topic(&mut self, name: &TopicName) {
        self.deletions.remove(name);
        self.remove_topic(name);
        self.failed_replicas.retain(|(_, topic, _)| topic != name);
    }

    /// Name of the topic with this id.
    pub(super) fn name_of(&self, id: TopicId) -> Option<&TopicName> {
        self.names.get(&id)
    }

    pub(super) fn partition(&self, partition: &TopicPartition) -> Option<&Partition> {
        self.topics.get(&partition.topic)?.partitions.get(&partition.partition)
    }

    pub(super) fn partition_mut(&mut self, partition: &TopicPartition) -> Option<&mut Partition> {
        self.topics.get_mut(&partition.topic)?.partitions.get_mut(&partition.partition)
    }

    /// Every partition, those of topics being deleted included.
    pub(super) fn partitions(&self) -> impl Iterator<Item = (TopicPartition, &Partition)> {
        self.topics.iter().flat_map(|(topic, found)| {
            found
                .partitions
                .iter()
                .map(|(index, partition)| (TopicPartition { topic: topic.clone(), partition: *index }, partition))
        })
    }

    /// Names of the partitions that `select` takes.
    pub(super) fn select(&self, select: impl Fn(&TopicPartition, &Partition) -> bool) -> Vec<TopicPartition> {
        self.partitions().filter(|(name, partition)| select(name, partition)).map(|(name, _)| name).collect()
    }

    pub(super) fn is_being_deleted(&self, topic: &TopicName) -> bool {
        self.deletions.contains_key(topic)
    }

    /// Some of its replicas were told to delete themselves. A role that they heard of after that would make them anew.
    pub(super) fn is_being_stopped(&self, topic: &TopicName) -> bool {
        matches!(self.deletions.get(topic), Some(Deletion::Stopping(_) | Deletion::Suspended))
    }

    /// The state as control requests carry it; `None` while there is none.
    pub(super) fn wire_state(&self, partition: &TopicPartition, is_new: bool) -> Option<PartitionState> {
        let found = self.partition(partition)?;
        let Led { node, epoch, .. } = found.state.as_ref()?;
        let offline = found.replicas.all.iter().copied().filter(|id| !self.is_eligible(*id, partition));
        Some(PartitionState {
            partition: partition.partition,
            controller_epoch: node.controller_epoch,
            leader: node.leader,
            leader_epoch: node.leader_epoch,
            isr: node.isr.clone(),
            partition_epoch: *epoch,
            replicas: found.replicas.all.clone(),
            adding: found.replicas.adding.clone(),
            removing: found.replicas.removing.clone(),
            recovery: node.recovery,
            offline_replicas: offline.collect(),
            is_new,
        })
    }
}
