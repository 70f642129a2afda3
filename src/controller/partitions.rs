//! States of partitions: first ones and later ones.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tracing::{error, info, warn};

use super::context::Led;
use super::election::{self, Elected};
use super::fence::Interrupted;
use super::term::Term;
use crate::cluster::control::{ControlError, PartitionResults};
use crate::cluster::znodes::config::{self, Entity};
use crate::cluster::znodes::partition_state::{self, LeaderAndIsrNode};
use crate::coordination::{CoordinationError, CreateMode, Op, OpResult};
use crate::metrics;
use crate::types::limits::COORDINATION_READS_IN_FLIGHT_MAX;
use crate::types::{BrokerId, LeaderEpoch, TopicName, TopicPartition};

/// Bytes of paths and data that one multi of ours carries, well below what one request may.
const MULTI_BYTES_MAX: usize = 512 << 10;

/// What became of a write to a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StateWrite {
    Written,
    /// It has another version by now.
    Outdated,
    /// It is not there.
    Gone,
}

/// Why states are decided anew.
#[derive(Debug, Clone, Copy)]
pub(super) enum Cause {
    ReplicasChanged,
    /// This broker says that the logs it is to lead may have lost their ends.
    EndLost(BrokerId),
    /// Leaders are about to stop.
    ControlledShutdown,
    /// A new controller cannot know which brokers were away while nobody looked.
    Bounced,
    /// The preferred leader is wanted.
    Preferred,
    /// Any leader is wanted, even one that lacks records.
    Unclean,
    /// The replicas are others, and all of the present ones are to know.
    Extended,
    /// Some are replicas no more.
    Reduced,
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
                    Ok(_) => Some(Led::created(node)),
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
            let Some(elected) = election::initial(&partition.replicas.all, |id| self.context.is_eligible(id, name))
            else {
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
            Ok(node) => Ok(Some(Led::new(node, &stat))),
            Err(error) => {
                error!(%error, "the partition is left alone");
                Ok(None)
            }
        }
    }

    /// Reads states into the context, many at a time. Answers those that are there and can be read.
    pub(super) async fn read_states(
        &mut self,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<TopicPartition>, Interrupted> {
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
        let mut read = Vec::with_capacity(found.len());
        for (partition, led) in found {
            if let Some(led) = led {
                self.put_state(&partition, led);
                read.push(partition);
            }
        }
        Ok(read)
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

    pub(super) async fn settle_for(
        &mut self,
        cause: Cause,
        partitions: Vec<TopicPartition>,
    ) -> Result<Vec<TopicPartition>, Interrupted> {
        let mut changed = Vec::new();
        let mut open = partitions;
        while !open.is_empty() {
            let unclean = self.unclean_topics(cause, &open).await?;
            let mut wanted = Vec::new();
            for partition in open {
                let elected = self.decide(cause, &partition, unclean.contains(&partition.topic));
                if let Some((elected, leader_epoch)) = elected {
                    wanted.push((partition, self.node(elected, leader_epoch)));
                }
            }
            let mut outdated = Vec::new();
            for (partition, node, outcome) in self.write_states(wanted).await? {
                match outcome {
                    StateWrite::Written => {
                        info!(topic = %partition.topic, partition = %partition.partition, leader = ?node.leader,
                            leader_epoch = %node.leader_epoch, isr = ?node.isr, "elected");
                        changed.push(partition);
                    }
                    StateWrite::Outdated => outdated.push(partition),
                    StateWrite::Gone => {}
                }
            }
            // Another controller or tool wrote: decide again from what is there now. What cannot be read is left alone.
            open = self.read_states(outdated).await?;
        }
        Ok(changed)
    }

    /// What becomes of a partition, and its next leader epoch; `None` if it stays as it is, or is about to go.
    fn decide(&self, cause: Cause, name: &TopicPartition, unclean: bool) -> Option<(Elected, LeaderEpoch)> {
        if self.context.is_being_stopped(&name.topic) {
            return None;
        }
        let partition = self.context.partition(name)?;
        let led = partition.state.as_ref()?;
        let node = &led.node;
        // A leader that is shutting down leads until another one is elected. One that is no replica any more has been
        // left behind by a controller that failed.
        let online = |id| match node.leader == Some(id) {
            _ if !partition.replicas.all.contains(&id) => false,
            true => self.context.is_alive(id, name),
            false => self.context.is_eligible(id, name),
        };
        let elected = match cause {
            Cause::ReplicasChanged => election::on_replicas_changed(node, &partition.replicas.all, online, unclean),
            Cause::EndLost(broker) => election::on_end_lost(node, &partition.replicas.all, online, broker),
            Cause::ControlledShutdown => {
                election::on_controlled_shutdown(node, &partition.replicas.all, |id| self.context.is_eligible(id, name))
            }
            Cause::Preferred => election::on_preferred(node, &partition.replicas.all, online),
            Cause::Unclean => election::on_replicas_changed(node, &partition.replicas.all, online, true),
            Cause::Extended => Some(Elected { leader: node.leader, isr: node.isr.clone(), recovery: node.recovery }),
            Cause::Reduced => election::on_reduced(node, &partition.replicas.all, online),
            Cause::Bounced => {
                let bounced = |id| self.context.brokers.get(&id).is_some_and(|broker| broker.epoch.0 > led.mzxid);
                election::on_bounced(node, &partition.replicas.all, online, bounced)
            }
        };
        Some((elected?, LeaderEpoch(node.leader_epoch.0.saturating_add(1))))
    }

    /// Topics of partitions that have no replica to lead them but an unclean one, and may be led by it.
    async fn unclean_topics(
        &self,
        cause: Cause,
        partitions: &[TopicPartition],
    ) -> Result<BTreeSet<TopicName>, Interrupted> {
        if !matches!(cause, Cause::ReplicasChanged) {
            return Ok(BTreeSet::new());
        }
        let lost = |name: &&TopicPartition| {
            let Some(partition) = self.context.partition(name) else { return false };
            let Some(Led { node, .. }) = &partition.state else { return false };
            let elected = self.decide(cause, name, false);
            elected.map_or(node.leader, |(elected, _)| elected.leader).is_none()
                && partition.replicas.all.iter().any(|id| self.context.is_eligible(*id, name))
        };
        let topics: BTreeSet<_> = partitions.iter().filter(lost).map(|name| name.topic.clone()).collect();
        let mut reads = stream::iter(topics)
            .map(|topic| async move { (self.unclean_allowed(&topic).await, topic) })
            .buffered(COORDINATION_READS_IN_FLIGHT_MAX);
        let mut allowed = BTreeSet::new();
        while let Some((read, topic)) = reads.next().await {
            if read? {
                allowed.insert(topic);
            }
        }
        Ok(allowed)
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

    /// Replaces states that are as the context has them, in one round; what was written is in the context when this
    /// returns.
    pub(super) async fn write_states(
        &mut self,
        wanted: Vec<(TopicPartition, LeaderAndIsrNode)>,
    ) -> Result<Vec<(TopicPartition, LeaderAndIsrNode, StateWrite)>, Interrupted> {
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
        let mut outcomes = Vec::with_capacity(wanted.len());
        for ((partition, node), result) in wanted.into_iter().zip(results) {
            let outcome = match result.as_deref() {
                Ok([OpResult::Set(stat)]) => {
                    self.count_election(&partition, &node);
                    self.put_state(&partition, Led::new(node.clone(), stat));
                    StateWrite::Written
                }
                Err(refused) if matches!(refused.error, CoordinationError::BadVersion(_)) => StateWrite::Outdated,
                // The topic was removed under our feet; its own watch tells.
                _ => {
                    warn!(topic = %partition.topic, partition = %partition.partition, "the state is gone");
                    StateWrite::Gone
                }
            };
            outcomes.push((partition, node, outcome));
        }
        Ok(outcomes)
    }

    /// Counts a partition that gets another leader than its state names.
    fn count_election(&self, partition: &TopicPartition, next: &LeaderAndIsrNode) {
        let Some(Led { node: before, .. }) = self.context.partition(partition).and_then(|found| found.state.as_ref())
        else {
            return;
        };
        let Some(leader) = next.leader.filter(|leader| before.leader != Some(*leader)) else { return };
        metrics::LEADER_ELECTIONS.add(1);
        if !before.isr.contains(&leader) {
            metrics::UNCLEAN_LEADER_ELECTIONS.add(1);
        }
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
