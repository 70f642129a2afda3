//! Telling the brokers: roles to replicas, states of partitions to every broker.
//!
//! Source: Kafka 3.9 `ControllerBrokerRequestBatch`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::fence::Interrupted;
use super::queue::{ControlRequest, Metadata};
use super::term::Term;
use crate::cluster::control::{ControlHead, LeaderAndIsr, LiveBroker, PartitionState, TopicMetadata};
use crate::types::{BrokerEpoch, BrokerId, TopicName, TopicPartition};

impl Term {
    /// Tells the replicas that stay their roles, then every broker the new states. A broker that is shutting down has
    /// no role to hear of, unless it leads.
    pub(super) fn announce(&self, partitions: &[TopicPartition], is_new: bool) {
        self.announce_to(partitions, is_new, |broker, name| {
            let partition = self.context.partition(name);
            let leads =
                partition.and_then(|found| found.state.as_ref()).is_some_and(|led| led.node.leader == Some(broker));
            self.context.is_eligible(broker, name) || (leads && self.context.is_alive(broker, name))
        });
    }

    /// [`Self::announce`] to replicas of the caller's choice.
    pub(super) fn announce_to(
        &self,
        partitions: &[TopicPartition],
        is_new: bool,
        hears: impl Fn(BrokerId, &TopicPartition) -> bool,
    ) {
        if partitions.is_empty() {
            return;
        }
        self.send_roles_to(partitions, is_new, hears);
        self.send_metadata(self.context.brokers.keys().copied(), partitions, &[]);
    }

    /// LeaderAndIsr to replicas of the caller's choice, one request to each broker.
    pub(super) fn send_roles_to(
        &self,
        partitions: &[TopicPartition],
        is_new: bool,
        hears: impl Fn(BrokerId, &TopicPartition) -> bool,
    ) {
        let mut roles: BTreeMap<BrokerId, Vec<TopicPartition>> = BTreeMap::new();
        for name in partitions {
            let replicas = self.context.partition(name).map(|found| found.replicas.all.as_slice()).unwrap_or_default();
            for broker in replicas.iter().copied().filter(|id| hears(*id, name)) {
                roles.entry(broker).or_default().push(name.clone());
            }
        }
        for (broker, partitions) in roles {
            self.send_roles(broker, &partitions, is_new);
        }
    }

    /// Everything there is to know, for a broker that is new or whose queue has forgotten what it held.
    pub(super) fn send_everything(&self, broker: BrokerId) {
        let all = self.context.select(|_, _| true);
        self.send_metadata([broker], &all, &[]);
        self.send_hosted(broker);
    }

    pub(super) async fn on_queue_overflowed(&mut self, broker: BrokerId) -> Result<(), Interrupted> {
        self.send_everything(broker);
        // What it was to delete was forgotten as well.
        self.suspend_deletions(&BTreeSet::from([broker]));
        self.resume_deletions().await
    }

    /// LeaderAndIsr to one broker. Left out are partitions without a state, and those that were told to delete
    /// themselves.
    pub(super) fn send_roles(&self, broker: BrokerId, partitions: &[TopicPartition], is_new: bool) {
        let Some(head) = self.head(broker) else { return };
        let mut topics = Vec::new();
        for (name, states) in self.by_topic(partitions, is_new) {
            let Some(topic) = self.context.topics.get(&name) else { continue };
            if !self.context.is_being_stopped(&name) {
                topics.push((name, topic.id, states));
            }
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
        let topics: Arc<[TopicMetadata]> = topics.into();
        let live_brokers: Arc<[LiveBroker]> = self.context.brokers.values().map(|broker| broker.info.clone()).collect();
        for broker in brokers {
            let Some(head) = self.head(broker) else { continue };
            let (topics, live_brokers) = (Arc::clone(&topics), Arc::clone(&live_brokers));
            let update = Metadata { head, topics, live_brokers };
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
