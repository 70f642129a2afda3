//! States of partitions: first ones, later ones, and telling the brokers.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tracing::{error, info, warn};

use super::channel::ControlRequest;
use super::context::Led;
use super::election::{self, Elected};
use super::fence::Interrupted;
use super::term::Term;
use crate::cluster::control::{
    ControlError, ControlHead, LeaderAndIsr, LiveBroker, PartitionResults, PartitionState, TopicMetadata,
    UpdateMetadata,
};
use crate::cluster::znodes::config::{self, Entity};
use crate::cluster::znodes::partition_state::{self, LeaderAndIsrNode};
use crate::coordination::{CoordinationError, CreateMode, Op, OpResult};
use crate::types::limits::COORDINATION_READS_IN_FLIGHT_MAX;
use crate::types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, TopicName, TopicPartition};

/// Bytes of paths and data that one multi of ours carries, well below what one request may.
const MULTI_BYTES_MAX: usize = 512 << 10;

/// Why states are decided anew.
#[derive(Debug, Clone, Copy)]
enum Cause {
    ReplicasChanged,
    /// This broker says that the logs it is to lead may have lost their ends.
    EndLost(BrokerId),
}

/// The first states of some partitions, written by one multi.
#[derive(Default)]
struct Chunk {
    ops: Vec<Op>,
    states: Vec<(TopicPartition, LeaderAndIsrNode)>,
    bytes: usize,
}

impl Term {
    /// Writes the first state of partitions whose replicas are online; the others stay new. Answers those that now have
    /// one. One round, however many.
    pub(super) async fn create_states(&mut self, new: &[TopicPartition]) -> Result<Vec<TopicPartition>, Interrupted> {
        let chunks = self.first_states(new);
        let batches = chunks.iter().map(|chunk| chunk.ops.clone()).collect();
        let written = self.fence.write_all(batches).await?;
        let mut created = Vec::new();
        for (chunk, result) in chunks.into_iter().zip(written) {
            for (partition, node) in chunk.states {
                let led = match &result {
                    Ok(_) => Some(Led { node, epoch: PartitionEpoch(0) }),
                    Err(_) => self.create_state_by_hand(&partition, node).await?,
                };
                if let Some(led) = led {
                    self.put_state(&partition, led);
                    created.push(partition);
                }
            }
        }
        Ok(created)
    }

    fn first_states(&self, new: &[TopicPartition]) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let mut chunk = Chunk::default();
        let mut parents = BTreeSet::new();
        for name in new {
            let Some(partition) = self.context.partition(name) else { continue };
            let Some(elected) = election::initial(&partition.replicas, |id| self.context.is_online(id, name)) else {
                warn!(topic = %name.topic, partition = %name.partition, "no replica is online; the partition waits");
                continue;
            };
            let topic = name.topic.as_str();
            let known = self
                .context
                .topics
                .get(&name.topic)
                .is_some_and(|topic| topic.partitions.values().any(|partition| partition.state.is_some()));
            if !known && parents.insert(name.topic.clone()) {
                chunk.ops.push(create(partition_state::partitions_path(topic), Bytes::new()));
            }
            let node = self.node(elected, LeaderEpoch(0));
            let data = partition_state::encode(&node);
            let path = partition_state::partition_path(topic, name.partition);
            chunk.bytes += 2 * path.len() + data.len() + 100;
            chunk.ops.push(create(path, Bytes::new()));
            chunk.ops.push(create(partition_state::path(topic, name.partition), data));
            chunk.states.push((name.clone(), node));
            if chunk.bytes > MULTI_BYTES_MAX {
                chunks.push(std::mem::take(&mut chunk));
            }
        }
        if !chunk.ops.is_empty() {
            chunks.push(chunk);
        }
        chunks
    }

    /// Node by node, when some of them were there already. A state that was there is taken over.
    async fn create_state_by_hand(
        &mut self,
        partition: &TopicPartition,
        node: LeaderAndIsrNode,
    ) -> Result<Option<Led>, Interrupted> {
        let (topic, index) = (partition.topic.as_str(), partition.partition);
        let path = partition_state::path(topic, index);
        let steps = [
            create(partition_state::partitions_path(topic), Bytes::new()),
            create(partition_state::partition_path(topic, index), Bytes::new()),
            create(path.clone(), partition_state::encode(&node)),
        ];
        for step in steps {
            match self.fence.write(vec![step]).await? {
                Ok(_) => {}
                Err(refused) if matches!(refused.error, CoordinationError::NodeExists(_)) => {}
                Err(refused) => {
                    warn!(topic, partition = %index, error = %refused, "the partition has no state");
                    return Ok(None);
                }
            }
        }
        self.read_state(partition).await
    }

    /// The state as it is stored. One of a later controller ends this term.
    pub(super) async fn read_state(&self, partition: &TopicPartition) -> Result<Option<Led>, Interrupted> {
        let path = partition_state::path(partition.topic.as_str(), partition.partition);
        let Some((data, stat)) = self.store.get(&path).await? else { return Ok(None) };
        match partition_state::decode(&path, &data) {
            Ok(node) if node.controller_epoch > self.fence.epoch => Err(Interrupted::Moved),
            Ok(node) => Ok(Some(Led { node, epoch: PartitionEpoch(stat.version) })),
            Err(error) => {
                error!(%error, "the partition is left alone");
                Ok(None)
            }
        }
    }

    /// Reads states into the context, many at a time.
    pub(super) async fn read_states(&mut self, partitions: Vec<TopicPartition>) -> Result<(), Interrupted> {
        let mut found = Vec::with_capacity(partitions.len());
        {
            let this = &*self;
            let mut reads = stream::iter(partitions)
                .map(|partition| async move { (this.read_state(&partition).await, partition) })
                .buffered(COORDINATION_READS_IN_FLIGHT_MAX);
            while let Some((led, partition)) = reads.next().await {
                found.push((partition, led?));
            }
        }
        for (partition, led) in found {
            if let Some(led) = led {
                self.put_state(&partition, led);
            }
        }
        Ok(())
    }

    fn put_state(&mut self, partition: &TopicPartition, led: Led) {
        if let Some(found) = self.context.partition_mut(partition) {
            found.state = Some(led);
        }
    }

    fn node(&self, elected: Elected, leader_epoch: LeaderEpoch) -> LeaderAndIsrNode {
        let Elected { leader, isr, recovery } = elected;
        LeaderAndIsrNode { controller_epoch: self.fence.epoch, leader, leader_epoch, isr, recovery }
    }

    /// Elects and shrinks ISRs where replicas have come or gone; answers the partitions whose state changed.
    pub(super) async fn settle(&mut self, partitions: Vec<TopicPartition>) -> Result<Vec<TopicPartition>, Interrupted> {
        self.settle_for(Cause::ReplicasChanged, partitions).await
    }

    async fn settle_for(
        &mut self,
        cause: Cause,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<TopicPartition>, Interrupted> {
        let mut changed = Vec::new();
        let mut open = partitions;
        while !open.is_empty() {
            let mut wanted = Vec::new();
            for partition in open {
                if let Some(node) = self.decide(cause, &partition).await? {
                    wanted.push((partition, node));
                }
            }
            let (written, outdated) = self.update_states(wanted).await?;
            changed.extend(written);
            // Another controller or tool wrote: decide again from what is there now.
            self.read_states(outdated.clone()).await?;
            open = outdated;
        }
        Ok(changed)
    }

    async fn decide(&self, cause: Cause, name: &TopicPartition) -> Result<Option<LeaderAndIsrNode>, Interrupted> {
        let Some(partition) = self.context.partition(name) else { return Ok(None) };
        let Some(Led { node, .. }) = &partition.state else { return Ok(None) };
        let online = |id| self.context.is_online(id, name);
        let mut elected = match cause {
            Cause::ReplicasChanged => election::on_replicas_changed(node, &partition.replicas, online, false),
            Cause::EndLost(broker) => election::on_end_lost(node, &partition.replicas, online, broker),
        };
        let leaderless = elected.as_ref().map_or(node.leader, |elected| elected.leader).is_none();
        if leaderless && partition.replicas.iter().any(|id| online(*id)) && self.unclean_allowed(&name.topic).await? {
            elected = election::on_replicas_changed(node, &partition.replicas, online, true);
        }
        let next_epoch = LeaderEpoch(node.leader_epoch.0.saturating_add(1));
        Ok(elected.map(|elected| self.node(elected, next_epoch)))
    }

    async fn unclean_allowed(&self, topic: &TopicName) -> Result<bool, Interrupted> {
        let path = Entity::Topic(topic.as_str().into()).path();
        let overrides = match self.store.get(&path).await? {
            Some((data, _)) => config::decode(&path, &data).unwrap_or_default(),
            None => config::Overrides::new(),
        };
        let own =
            overrides.get("unclean.leader.election.enable").map(|value| value.trim().eq_ignore_ascii_case("true"));
        Ok(own.unwrap_or_else(|| self.settings.unclean_leader_election_enable()))
    }

    /// Answers what was written, and what others had written before.
    async fn update_states(
        &mut self,
        wanted: Vec<(TopicPartition, LeaderAndIsrNode)>,
    ) -> Result<(Vec<TopicPartition>, Vec<TopicPartition>), Interrupted> {
        let mut batches = Vec::with_capacity(wanted.len());
        for (partition, node) in &wanted {
            let epoch = self.context.partition(partition).and_then(|found| found.state.as_ref()).map(|led| led.epoch);
            batches.push(vec![Op::Set {
                path: partition_state::path(partition.topic.as_str(), partition.partition),
                data: partition_state::encode(node),
                version: epoch.unwrap_or_default().0,
            }]);
        }
        let results = self.fence.write_all(batches).await?;
        let (mut written, mut outdated) = (Vec::new(), Vec::new());
        for ((partition, node), result) in wanted.into_iter().zip(results) {
            match result.as_deref() {
                Ok([OpResult::Set(stat)]) => {
                    info!(topic = %partition.topic, partition = %partition.partition, leader = ?node.leader,
                        leader_epoch = %node.leader_epoch, isr = ?node.isr, "elected");
                    self.put_state(&partition, Led { node, epoch: PartitionEpoch(stat.version) });
                    written.push(partition);
                }
                Err(refused) if matches!(refused.error, CoordinationError::BadVersion(_)) => outdated.push(partition),
                // The topic was removed under our feet; its own watch tells.
                _ => warn!(topic = %partition.topic, partition = %partition.partition, "the state is gone"),
            }
        }
        Ok((written, outdated))
    }

    /// Tells the online replicas their roles, then every broker the new states.
    pub(super) fn announce(&self, partitions: &[TopicPartition], is_new: bool) {
        if partitions.is_empty() {
            return;
        }
        let replicas = |name: &TopicPartition| {
            let replicas = self.context.partition(name).map(|found| found.replicas.as_slice()).unwrap_or_default();
            replicas.iter().copied().filter(|id| self.context.is_online(*id, name)).collect::<Vec<_>>()
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

    /// A broker answered LeaderAndIsr: replicas that its disk refused are offline from now on, those that took their
    /// role are back, and those that must not lead under their epoch get another one. Other refusals say nothing of a
    /// disk.
    /// Source: Kafka 3.9 `KafkaController.processLeaderAndIsrResponseReceived`; the new epochs are ours.
    pub(super) async fn on_replicas_started(
        &mut self,
        broker: BrokerId,
        results: PartitionResults,
    ) -> Result<(), Interrupted> {
        let (mut moved, mut ends_lost) = (Vec::new(), Vec::new());
        for (topic, partition, result) in results {
            let key = (broker, topic.clone(), partition);
            let name = TopicPartition { topic, partition };
            match result {
                Ok(()) => {
                    if self.context.failed_replicas.remove(&key) {
                        self.retry.succeeded();
                        moved.push(name);
                    }
                }
                Err(ControlError::Storage(reason)) => {
                    self.retry_later();
                    if self.context.failed_replicas.insert(key) {
                        let TopicPartition { topic, partition } = &name;
                        info!(%broker, %topic, %partition, reason, "the replica is offline");
                        moved.push(name);
                    }
                }
                Err(ControlError::EndLost) => ends_lost.push(name),
                Err(error @ (ControlError::UnknownPartition | ControlError::InconsistentTopicId { .. })) => {
                    warn!(%broker, topic = %name.topic, partition = %name.partition, %error, "the role was refused");
                }
                // It knows this epoch, or a later one; or nothing is known of it.
                Err(
                    ControlError::StaleControllerEpoch
                    | ControlError::StaleBrokerEpoch
                    | ControlError::FencedLeaderEpoch
                    | ControlError::Other(_)
                    | ControlError::Unreachable(_),
                ) => {}
            }
        }
        if !ends_lost.is_empty() {
            warn!(%broker, partitions = ends_lost.len(),
                "logs may have lost their ends; their leader epochs rise, so that clients notice");
        }
        let mut changed = self.settle(moved).await?;
        changed.extend(self.settle_for(Cause::EndLost(broker), ends_lost).await?);
        self.announce(&changed, false);
        Ok(())
    }
}

impl Term {
    /// A broker's disk has refused something.
    pub(super) fn retry_later(&mut self) {
        self.watches.extend(self.retry.arm());
    }

    /// Sends the roles of all replicas that are offline, and begins again all deletions that wait. The answers say
    /// whether that has to be done once more.
    pub(super) async fn on_retry_due(&mut self) -> Result<(), Interrupted> {
        self.retry.disarm();
        let mut roles: BTreeMap<BrokerId, Vec<TopicPartition>> = BTreeMap::new();
        for (broker, topic, partition) in &self.context.failed_replicas {
            if !self.context.is_being_deleted(topic) {
                let name = TopicPartition { topic: topic.clone(), partition: *partition };
                roles.entry(*broker).or_default().push(name);
            }
        }
        for (broker, partitions) in roles {
            self.send_roles(broker, &partitions, false);
        }
        self.resume_deletions().await
    }
}

fn create(path: String, data: Bytes) -> Op {
    Op::Create { path, data, mode: CreateMode::Persistent }
}
