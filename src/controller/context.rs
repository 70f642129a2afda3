//! What the controller knows: live brokers, topics, states of their partitions, failed replicas, deletions under way.
//! Plain data in memory, read from the store at the beginning of a term and kept in step with every write.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::control::{LiveBroker, PartitionState};
use crate::cluster::znodes::partition_state::LeaderAndIsrNode;
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
}

#[derive(Debug, Clone)]
pub(super) struct Partition {
    /// In the order of the assignment.
    pub(super) replicas: Vec<BrokerId>,
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
    /// Not begun, or to be begun again: some replica cannot be deleted now.
    Waiting,
    /// These replicas have not answered.
    Stopping(BTreeSet<(BrokerId, PartitionIndex)>),
}

#[derive(Debug, Default)]
pub(super) struct Context {
    pub(super) brokers: BTreeMap<BrokerId, Broker>,
    pub(super) topics: BTreeMap<TopicName, Topic>,
    /// Replicas in a failed log directory of a live broker.
    pub(super) failed_replicas: BTreeSet<(BrokerId, TopicName, PartitionIndex)>,
    pub(super) deletions: BTreeMap<TopicName, Deletion>,
}

impl Context {
    /// Whether a replica can serve: its broker is live and its log directory has not failed.
    pub(super) fn is_online(&self, broker: BrokerId, partition: &TopicPartition) -> bool {
        self.brokers.contains_key(&broker)
            && (self.failed_replicas.is_empty()
                || !self.failed_replicas.contains(&(broker, partition.topic.clone(), partition.partition)))
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

    /// The state as control requests carry it; `None` while there is none.
    pub(super) fn wire_state(&self, partition: &TopicPartition, is_new: bool) -> Option<PartitionState> {
        let found = self.partition(partition)?;
        let Led { node, epoch } = found.state.as_ref()?;
        let offline = found.replicas.iter().copied().filter(|id| !self.is_online(*id, partition));
        Some(PartitionState {
            partition: partition.partition,
            controller_epoch: node.controller_epoch,
            leader: node.leader,
            leader_epoch: node.leader_epoch,
            isr: node.isr.clone(),
            partition_epoch: *epoch,
            replicas: found.replicas.clone(),
            adding: Vec::new(),
            removing: Vec::new(),
            recovery: node.recovery,
            offline_replicas: offline.collect(),
            is_new,
        })
    }
}
