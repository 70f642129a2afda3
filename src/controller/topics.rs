//! Topics that appear, grow or vanish in `/brokers/topics`, by whichever writer.
//!
//! Source: Kafka 3.9 `KafkaController.processTopicChange`, `processPartitionModifications`, `processTopicIds`.

use std::collections::BTreeSet;

use futures_util::stream::{self, StreamExt};
use tracing::{error, info, warn};

use super::assignment::Replicas;
use super::context::{Partition, Topic};
use super::event::Event;
use super::fence::Interrupted;
use super::term::Term;
use crate::cluster::znodes::topics::{self, Assignment, TopicNode};
use crate::coordination::Op;
use crate::types::limits::COORDINATION_READS_IN_FLIGHT_MAX;
use crate::types::{PartitionIndex, TopicId, TopicName, TopicPartition};

impl Term {
    pub(super) async fn on_topics_changed(&mut self) -> Result<(), Interrupted> {
        let (names, changed) = self.store.children_and_watch(topics::TOPICS).await?;
        self.watch(changed, Event::TopicsChanged);
        let names: BTreeSet<TopicName> = names.iter().map(|name| TopicName::new(name)).collect();
        let gone: Vec<_> = self.context.topics.keys().filter(|name| !names.contains(*name)).cloned().collect();
        for name in gone {
            // By hand, or by a controller before us. As in Kafka the brokers keep what they have.
            warn!(topic = %name, "the topic's node was removed without a deletion");
            self.context.forget_topic(&name);
        }
        let new = names.into_iter().filter(|name| !self.context.topics.contains_key(name)).collect();
        let new = self.load_topics(new).await?;
        let partitions = self.context.select(|name, _| new.contains(&name.topic));
        self.start_partitions(partitions).await
    }

    /// Partitions that no controller knew before: new ones get a first state, found ones keep theirs.
    async fn start_partitions(&mut self, partitions: Vec<TopicPartition>) -> Result<(), Interrupted> {
        let created = self.create_states(&partitions).await?;
        if !created.is_empty() {
            info!(partitions = created.len(), "created");
        }
        self.announce(&created, true);
        Ok(())
    }

    /// Reads topics into the context, without states, and arms their watches. Answers those that exist and are
    /// readable.
    pub(super) async fn load_topics(&mut self, names: Vec<TopicName>) -> Result<BTreeSet<TopicName>, Interrupted> {
        let mut found = Vec::with_capacity(names.len());
        {
            let store = &self.store;
            let mut reads = stream::iter(names)
                .map(|name| async move {
                    let path = topics::path(name.as_str());
                    (store.get_and_watch(&path).await, name)
                })
                .buffered(COORDINATION_READS_IN_FLIGHT_MAX);
            while let Some((read, name)) = reads.next().await {
                let (node, changed) = read?;
                if let Some((data, stat)) = node {
                    found.push((name, data, stat.version, changed));
                }
            }
        }
        let mut loaded = BTreeSet::new();
        for (name, data, version, changed) in found {
            self.watch(changed, Event::TopicModified(name.clone()));
            match topics::decode(name.as_str(), &data) {
                Ok(node) => {
                    let id = self.topic_id(&name, &node, version).await?;
                    self.context.insert_topic(name.clone(), topic(id, &node));
                    loaded.insert(name);
                }
                Err(error) => error!(%error, "the topic is left alone"),
            }
        }
        Ok(loaded)
    }

    /// The topic's id. A node without one, written by a tool that knows none, gets the id that is known, that of the
    /// logs on this broker's disks (it may have been lost while no broker was up), or a new one. A new one for a topic
    /// that is not new would be another topic, without its records.
    async fn topic_id(&self, name: &TopicName, node: &TopicNode, version: i32) -> Result<TopicId, Interrupted> {
        if let Some(id) = node.id {
            return Ok(id);
        }
        let known = self.context.topics.get(name).map(|topic| topic.id);
        let shown = || self.image.borrow().topic(name.as_str()).map(|topic| topic.id);
        let drawn = || (0..64).find_map(|_| TopicId::from_random(self.clock.random()));
        let stored = || self.inventory.topic_id(name);
        let not_zero = |id: &TopicId| *id != TopicId::ZERO;
        let id = known.or_else(shown).filter(not_zero).or_else(stored).or_else(drawn).unwrap_or_default();
        info!(topic = %name, topic_id = %id, "the topic's node had no id");
        let data = topics::encode(&TopicNode { id: Some(id), ..node.clone() });
        if let Err(refused) =
            self.fence.write(vec![Op::Set { path: topics::path(name.as_str()), data, version }]).await?
        {
            // Changed meanwhile: the watch brings us back here.
            warn!(topic = %name, error = %refused, "the topic's id could not be written");
        }
        Ok(id)
    }

    pub(super) async fn on_topic_modified(&mut self, name: TopicName) -> Result<(), Interrupted> {
        let (node, changed) = self.store.get_and_watch(&topics::path(name.as_str())).await?;
        // A node that is gone is the business of the list of topics; its watch would fire for a namesake.
        let Some((data, stat)) = node else { return Ok(()) };
        self.watch(changed, Event::TopicModified(name.clone()));
        let node = match topics::decode(name.as_str(), &data) {
            Ok(node) => node,
            Err(error) => {
                error!(%error, "the change is ignored");
                return Ok(());
            }
        };
        let Some(known) = self.context.topics.get(&name).map(|known| known.id) else { return Ok(()) };
        if let Some(id) = node.id.filter(|id| *id != known) {
            return self.on_topic_replaced(name, id, &node).await;
        }
        if self.context.is_being_deleted(&name) {
            warn!(topic = %name, "a topic that is being deleted was changed; the change is ignored");
            return Ok(());
        }
        self.topic_id(&name, &node, stat.version).await?;
        let Some(known) = self.context.topics.get_mut(&name) else { return Ok(()) };
        let mut added = Vec::new();
        for index in node.partitions.keys().copied() {
            let replicas = replicas(&node, index);
            match known.partitions.get(&index) {
                None => {
                    known.partitions.insert(index, Partition { replicas, state: None });
                    added.push(TopicPartition { topic: name.clone(), partition: index });
                }
                // Ours are in the context before anybody is told. A tool's are not acted on, as in Kafka.
                Some(partition) if partition.replicas != replicas => {
                    warn!(topic = %name, partition = %index, "a changed assignment is ignored; ask for a reassignment");
                }
                Some(_) => {}
            }
        }
        self.start_partitions(added).await
    }

    /// The node was removed and made again before we looked. A deletion that was meant for the former topic ends; a
    /// wish that still stands there is for this one.
    async fn on_topic_replaced(&mut self, name: TopicName, id: TopicId, node: &TopicNode) -> Result<(), Interrupted> {
        info!(topic = %name, topic_id = %id, "another topic stands under the name");
        self.context.forget_topic(&name);
        self.context.insert_topic(name.clone(), topic(id, node));
        let partitions = self.context.select(|partition, _| partition.topic == name);
        self.start_partitions(partitions).await?;
        self.on_deletions_changed().await
    }
}

fn topic(id: TopicId, node: &TopicNode) -> Topic {
    let partition = |index: &PartitionIndex| (*index, Partition { replicas: replicas(node, *index), state: None });
    Topic { id, partitions: node.partitions.keys().map(partition).collect() }
}

fn replicas(node: &TopicNode, index: PartitionIndex) -> Replicas {
    let of = |assignment: &Assignment| assignment.get(&index).cloned().unwrap_or_default();
    let (all, adding, removing) = (of(&node.partitions), of(&node.adding_replicas), of(&node.removing_replicas));
    Replicas { all, adding, removing }
}
