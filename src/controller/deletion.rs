//! Deleting topics: out of every image, then off every disk, then out of the store.
//!
//! A deletion waits until all replicas are on live brokers and none is being reassigned; one that failed on a broker is
//! tried again after a while (Kafka: when that broker comes back). Once it has begun nobody is told a role in the topic
//! any more, however long it takes: it would make a replica anew that has just been deleted. A replica whose log cannot
//! be opened is no reason to wait (Kafka waits): deleting it is the way out. Source: Kafka 3.9 `TopicDeletionManager`.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{info, warn};

use super::context::{Deletion, Topic};
use super::event::Event;
use super::fence::{Interrupted, Written};
use super::queue::ControlRequest;
use super::term::Term;
use crate::cluster::control::{PartitionResults, StopPartition, StopReplica};
use crate::cluster::znodes::config::Entity;
use crate::cluster::znodes::{admin, partition_state, topics};
use crate::coordination::{CoordinationError, MultiError, Op};
use crate::types::{BrokerId, TopicName};

/// How often in a row a topic's nodes are looked at, below which somebody makes others.
const LOOKS_MAX: usize = 3;

/// Operations in one multi of a deletion.
const DELETES_PER_MULTI: usize = 1000;

impl Term {
    pub(super) async fn on_deletions_changed(&mut self) -> Result<(), Interrupted> {
        let (names, changed) = self.store.children_and_watch(admin::DELETE_TOPICS).await?;
        self.watch(changed, Event::DeletionsChanged);
        let mut void = Vec::new();
        for name in names {
            let topic = TopicName::new(&name);
            if !self.settings.delete_topic_enable || !self.context.topics.contains_key(&topic) {
                void.push(name);
            } else if !self.context.is_being_deleted(&topic) {
                info!(%topic, "to be deleted");
                self.context.deletions.insert(topic, Deletion::Waiting);
            }
        }
        if !void.is_empty() {
            // The topic may be newer than our list of topics: look before its wish is thrown away.
            let unknown: Vec<_> = void.iter().map(|name| TopicName::new(name)).collect();
            if self.settings.delete_topic_enable && self.exists_any(&unknown).await? {
                Box::pin(self.on_topics_changed()).await?;
                let known = |name: &String| self.context.topics.contains_key(name.as_str());
                let (found, unknown): (Vec<_>, Vec<_>) = void.into_iter().partition(known);
                for name in found {
                    self.context.deletions.insert(TopicName::new(&name), Deletion::Waiting);
                }
                void = unknown;
            }
            self.delete_notes(admin::DELETE_TOPICS, void).await?;
        }
        self.resume_deletions().await
    }

    /// Which topics an earlier controller may have begun to delete, to be read before anybody is elected: a replica
    /// that is empty already would lead. One that is being reassigned was not begun with, and goes on until it has
    /// moved.
    /// Source: Kafka 3.9 `KafkaController.fetchTopicDeletionsInProgress`.
    pub(super) async fn read_deletions(&mut self) -> Result<(), Interrupted> {
        if !self.settings.delete_topic_enable {
            return Ok(());
        }
        for name in self.store.children(admin::DELETE_TOPICS).await? {
            let moving = |topic: &Topic| topic.partitions.values().any(|partition| partition.replicas.is_moving());
            let topic = TopicName::new(&name);
            if self.context.topics.get(&topic).is_some_and(|topic| !moving(topic)) {
                info!(%topic, "to be deleted");
                self.context.deletions.insert(topic, Deletion::Suspended);
            }
        }
        Ok(())
    }

    async fn exists_any(&self, topics: &[TopicName]) -> Result<bool, Interrupted> {
        for topic in topics {
            if self.store.get(&topics::path(topic.as_str())).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Begins every waiting deletion that can begin now.
    pub(super) async fn resume_deletions(&mut self) -> Result<(), Interrupted> {
        let stopping = |deletion: &Deletion| matches!(deletion, Deletion::Stopping(_));
        let waiting = self.context.deletions.iter().filter(|(_, deletion)| !stopping(deletion));
        let ready: Vec<_> = waiting.map(|(topic, _)| topic.clone()).filter(|topic| self.can_delete(topic)).collect();
        if ready.is_empty() {
            return Ok(());
        }
        let mut stops: BTreeMap<BrokerId, Vec<StopPartition>> = BTreeMap::new();
        let mut done = Vec::new();
        for name in &ready {
            let mut awaited = BTreeSet::new();
            let partitions = self.context.topics.get(name).map(|topic| &topic.partitions);
            for (index, partition) in partitions.into_iter().flatten() {
                for broker in &partition.replicas.all {
                    awaited.insert((*broker, *index));
                    stops.entry(*broker).or_default().push(StopPartition {
                        topic: name.clone(),
                        partition: *index,
                        leader_epoch: None,
                        delete: true,
                    });
                }
            }
            if awaited.is_empty() {
                done.push(name.clone());
            }
            self.context.deletions.insert(name.clone(), Deletion::Stopping(awaited));
        }
        self.send_metadata(self.context.brokers.keys().copied(), &[], &ready);
        for (broker, partitions) in stops {
            if let Some(head) = self.head(broker) {
                self.channels.send(broker, ControlRequest::StopReplica(StopReplica { head, partitions }));
            }
        }
        self.finish_deletions(done).await
    }

    fn can_delete(&self, name: &TopicName) -> bool {
        self.context.topics.get(name).is_some_and(|topic| {
            let live = |broker: &BrokerId| self.context.brokers.contains_key(broker);
            topic
                .partitions
                .values()
                .all(|partition| !partition.replicas.is_moving() && partition.replicas.all.iter().all(live))
        })
    }

    /// Deletions that await a broker that is gone wait until it is back.
    pub(super) fn suspend_deletions(&mut self, gone: &BTreeSet<BrokerId>) {
        for deletion in self.context.deletions.values_mut() {
            if let Deletion::Stopping(awaited) = deletion
                && awaited.iter().any(|(broker, _)| gone.contains(broker))
            {
                *deletion = Deletion::Suspended;
            }
        }
    }

    pub(super) async fn on_replicas_stopped(
        &mut self,
        broker: BrokerId,
        results: PartitionResults,
    ) -> Result<(), Interrupted> {
        let (mut touched, mut refused) = (BTreeSet::new(), BTreeSet::new());
        for (topic, partition, result) in results {
            let Some(Deletion::Stopping(awaited)) = self.context.deletions.get_mut(&topic) else { continue };
            match result {
                Ok(()) => {
                    awaited.remove(&(broker, partition));
                }
                Err(error) => {
                    if self.retry.is_news(&topic) {
                        warn!(%broker, %topic, %partition, %error, "the replica could not be deleted; tried again");
                    }
                    refused.insert(topic.clone());
                }
            }
            touched.insert(topic);
        }
        if !refused.is_empty() {
            // All of it begins again: what is deleted already is no error.
            self.context.deletions.extend(refused.into_iter().map(|topic| (topic, Deletion::Suspended)));
            self.retry_later();
        }
        let all_stopped = |topic: &TopicName| match self.context.deletions.get(topic) {
            Some(Deletion::Stopping(awaited)) => awaited.is_empty(),
            Some(Deletion::Waiting | Deletion::Suspended) | None => false,
        };
        let done = touched.into_iter().filter(all_stopped).collect();
        self.finish_deletions(done).await
    }

    /// Removes what the store holds of the topics, in one round.
    async fn finish_deletions(&mut self, done: Vec<TopicName>) -> Result<(), Interrupted> {
        let mut below = Vec::new();
        for name in &done {
            self.push_partition_deletes(name, &mut below);
            below.push(vec![delete(Entity::Topic(name.as_str().into()).path())]);
        }
        let results = self.fence.try_all(below).await?;
        if done.iter().any(|name| !self.retry.was_said(name)) {
            say_what_stays(results);
        }
        // The topic's own node and the wish to delete it go together, and last: whatever fails before, the next term
        // finds the wish and goes on.
        let results = self.fence.try_all(done.iter().map(|name| last_deletes(name, true)).collect()).await?;
        for (name, result) in done.into_iter().zip(results) {
            if result.is_err() && !self.finish_by_looking(&name).await? {
                if self.retry.is_news(&name) {
                    warn!(topic = %name, "nodes of a topic that is deleted stay; tried again");
                }
                self.context.deletions.insert(name, Deletion::Suspended);
                self.retry_later();
                continue;
            }
            info!(topic = %name, "deleted");
            self.retry.deleted(&name);
            self.context.forget_topic(&name);
        }
        Ok(())
    }

    fn push_partition_deletes(&self, name: &TopicName, batches: &mut Vec<Vec<Op>>) {
        let partitions = self.context.topics.get(name).map(|topic| &topic.partitions);
        let mut ops = Vec::new();
        for (index, partition) in partitions.into_iter().flatten() {
            if partition.state.is_some() {
                ops.push(delete(partition_state::path(name.as_str(), *index)));
                ops.push(delete(partition_state::partition_path(name.as_str(), *index)));
            }
            if ops.len() >= DELETES_PER_MULTI {
                batches.push(std::mem::take(&mut ops));
            }
        }
        if !ops.is_empty() {
            batches.push(ops);
        }
    }

    /// For a topic with nodes that we did not know of, or without some that every topic has. Its node and the wish
    /// still go together where both are there: a topic that is made anew between the two would be deleted by the next
    /// term. Answers whether the topic is gone; where it is not, the wish stays.
    async fn finish_by_looking(&mut self, name: &TopicName) -> Result<bool, Interrupted> {
        let (topic, note) = (topics::path(name.as_str()), admin::delete_topic_path(name.as_str()));
        for _ in 0..LOOKS_MAX {
            let below = self.nodes_from(topic.clone()).await?.split_off(1);
            self.delete_each(name, below).await?;
            if self.try_delete(last_deletes(name, false)).await? {
                return Ok(true);
            }
            // Somebody was faster with one of the two, has made another node below the topic, or let nobody delete one.
            if self.store.get(&topic).await?.is_none() {
                self.delete_each(name, vec![note]).await?;
                return Ok(true);
            }
            if self.store.get(&note).await?.is_none() && self.try_delete(vec![delete(topic.clone())]).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether these went together.
    async fn try_delete(&self, ops: Vec<Op>) -> Result<bool, Interrupted> {
        Ok(self.fence.try_all(vec![ops]).await?.iter().all(Result::is_ok))
    }

    /// A node, and all that is below it, each before what is below it; what this broker may not look into without that.
    async fn nodes_from(&self, root: String) -> Result<Vec<String>, Interrupted> {
        let mut found = vec![root];
        let mut next = 0;
        while next < found.len() {
            let path = found[next].clone();
            next += 1;
            match self.store.children(&path).await {
                Ok(names) => found.extend(names.into_iter().map(|name| format!("{path}/{name}"))),
                Err(CoordinationError::NoNode(_) | CoordinationError::Refused(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(found)
    }

    /// Deletes a topic's nodes from the last to the first. What is gone already is no error.
    async fn delete_each(&self, name: &TopicName, paths: Vec<String>) -> Result<(), Interrupted> {
        let batches = paths.into_iter().rev().map(|path| vec![delete(path)]).collect();
        let results = self.fence.try_all(batches).await?;
        if !self.retry.was_said(name) {
            say_what_stays(results);
        }
        Ok(())
    }
}

/// One line for all that was refused for another reason than that it is gone, or has others' nodes below it.
fn say_what_stays(results: Vec<Written>) {
    let passes =
        |refused: &MultiError| matches!(refused.error, CoordinationError::NoNode(_) | CoordinationError::NotEmpty(_));
    let mut stay = results.into_iter().filter_map(Result::err).filter(|refused| !passes(refused));
    if let Some(first) = stay.next() {
        warn!(error = %first, more = stay.count(), "nodes of deleted topics stay");
    }
}

/// Removes the topic's node and the wish to delete it, and before them the node of its partitions if that is empty and
/// there.
fn last_deletes(name: &TopicName, partitions_too: bool) -> Vec<Op> {
    let name = name.as_str();
    let partitions = partitions_too.then(|| delete(partition_state::partitions_path(name)));
    partitions.into_iter().chain([delete(topics::path(name)), delete(admin::delete_topic_path(name))]).collect()
}

fn delete(path: String) -> Op {
    Op::Delete { path, version: -1 }
}
