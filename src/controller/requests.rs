//! Telling the brokers: roles to replicas, states of partitions to every broker.
//!
//! Source: Kafka 3.9 `ControllerBrokerRequestBatch`.

use std::collections::BTreeMap;

use super::channel::ControlRequest;
use super::term::Term;
use crate::cluster::control::{
    ControlHead, LeaderAndIsr, LiveBroker, PartitionState, TopicMetadata, UpdateMetadata,
};
use crate::types::{BrokerEpoch, BrokerId, TopicName, TopicPartition};

impl Term {
    /// Tells the online replicas their roles, then every broker the new states.
    pub(super) fn announce(&self, partitions: &[TopicPartition], is_new: bool) {
        if partitions.is_empty() {
            return;
        }
        let replicas = |name: &TopicPartition| {
            let replicas = self.context.partition(name).map(|found| found.replicas.as_slice()).unwrap_or_default();
            replicas.iter().copied().filter(|id| self.context.is_alive(*id, name)).collect::<Vec<_>>()
        };
        let mut roles: BTreeMap<BrokerId, Vec<TopicPartition>> = BTreeMap::new();
        for name in partitions {
            for broker in replicas(name) {
                roles.entry(broker).or_default().push(name.clone());
            }
        }
        for (broker, partitions) in roles {
            self.send_roles(broker, &partitions, is_new);
        }
        self.send_metadata(self.context.brokers.keys().copied(), partitions, &[]);
    }

    /// LeaderAndIsr to one broker. Partitions without a state are left out.
    pub(super) fn send_roles(&self, broker: BrokerId, partitions: &[TopicPartition], is_new: bool) {
        let Some(head) = self.head(broker) else { return };
        let mut topics = Vec::new();
        for (name, states) in self.by_topic(partitions, is_new) {
            let Some(topic) = self.context.topics.get(&name) else { continue };
            topics.push((name, topic.id, states));
        }
        if !topics.is_empty() {
            self.channels.send(broker, ControlRequest::LeaderAndIsr(LeaderAndIsr { head, topics }));
        }
    }

    /// UpdateMetadata: the states of `partitions`, without those of topics being deleted, and the topics in `gone`.
    pub(super) fn send_metadata(
        &self,
        brokers: impl IntoIterator<Item = BrokerId>,
        partitions: &[TopicPartition],
        gone: &[TopicName],
    ) {
        let mut topics = Vec::new();
        for (name, partitions) in self.by_topic(partitions, false) {
            let Some(topic) = self.context.topics.get(&name) else { continue };
            if !self.context.is_being_deleted(&name) {
                topics.push(TopicMetadata { name, id: topic.id, partitions, deleted: Vec::new() });
            }
        }
        for name in gone {
            let Some(topic) = self.context.topics.get(name) else { continue };
            let deleted = topic.partitions.keys().copied().collect();
            topics.push(TopicMetadata { name: name.clone(), id: topic.id, partitions: Vec::new(), deleted });
        }
        let live_brokers: Vec<LiveBroker> = self.context.brokers.values().map(|broker| broker.info.clone()).collect();
        for broker in brokers {
            let Some(head) = self.head(broker) else { continue };
            let update = UpdateMetadata { head, topics: topics.clone(), live_brokers: live_brokers.clone() };
            self.channels.send(broker, ControlRequest::UpdateMetadata(update));
        }
    }

    pub(super) fn head(&self, broker: BrokerId) -> Option<ControlHead> {
        let broker_epoch: BrokerEpoch = self.context.brokers.get(&broker)?.epoch;
        Some(ControlHead { controller: self.settings.broker, controller_epoch: self.fence.epoch, broker_epoch })
    }

    fn by_topic(&self, partitions: &[TopicPartition], is_new: bool) -> BTreeMap<TopicName, Vec<PartitionState>> {
        let mut topics: BTreeMap<TopicName, Vec<PartitionState>> = BTreeMap::new();
        for name in partitions {
            if let Some(state) = self.context.wire_state(name, is_new) {
                topics.entry(name.topic.clone()).or_default().push(state);
            }
        }
        topics
    }
}
