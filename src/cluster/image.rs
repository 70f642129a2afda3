//! The metadata image: what this broker knows of the cluster. Fed by UpdateMetadata alone, read everywhere.
//!
//! Immutable snapshots behind a `watch`: a request clones one `Arc` and sees one consistent cluster. Topics are `Arc`s
//! of their own, so an update copies what changed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use tokio::sync::watch;

use super::control::{LiveBroker, PartitionState, UpdateMetadata};
use crate::types::{BrokerId, ControllerEpoch, PartitionIndex, TopicId, TopicName};

/// One topic.
#[derive(Debug, Clone)]
pub(crate) struct TopicImage {
    pub(crate) name: TopicName,
    pub(crate) id: TopicId,
    /// In partition order; gaps cannot be, because a topic is created whole and grows at its end.
    pub(crate) partitions: BTreeMap<PartitionIndex, PartitionState>,
}

/// The cluster at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct ClusterImage {
    /// From the last UpdateMetadata, not from `/controller` (I-16).
    pub(crate) controller: Option<BrokerId>,
    pub(crate) controller_epoch: Option<ControllerEpoch>,
    pub(crate) brokers: Arc<BTreeMap<BrokerId, LiveBroker>>,
    topics: HashMap<TopicName, Arc<TopicImage>>,
    names: HashMap<TopicId, TopicName>,
}

impl ClusterImage {
    pub(crate) fn topic(&self, name: &str) -> Option<&Arc<TopicImage>> {
        self.topics.get(name)
    }

    pub(crate) fn topic_by_id(&self, id: TopicId) -> Option<&Arc<TopicImage>> {
        self.topics.get(self.names.get(&id)?)
    }

    /// All topics, in no particular order.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &Arc<TopicImage>> {
        self.topics.values()
    }

    pub(crate) fn partition(&self, topic: &str, partition: PartitionIndex) -> Option<&PartitionState> {
        self.topics.get(topic)?.partitions.get(&partition)
    }

    /// The image after `update`: live brokers are replaced, partitions merged, deleted ones dropped.
    ///
    /// A topic that comes with another id than the image has is a new topic under an old name and replaces it.
    /// Source: Kafka 3.9 `ZkMetadataCache.updateMetadata`.
    pub(crate) fn apply(&self, update: &UpdateMetadata) -> Self {
        let mut next = self.clone();
        next.controller = Some(update.head.controller);
        next.controller_epoch = Some(update.head.controller_epoch);
        next.brokers = Arc::new(update.live_brokers.iter().map(|broker| (broker.id, broker.clone())).collect());
        for change in &update.topics {
            let mut topic = match next.topics.get(&change.name) {
                Some(known) if known.id == change.id || change.id == TopicId::ZERO => TopicImage::clone(known),
                Some(replaced) => {
                    next.names.remove(&replaced.id);
                    TopicImage { name: change.name.clone(), id: change.id, partitions: BTreeMap::new() }
                }
                None => TopicImage { name: change.name.clone(), id: change.id, partitions: BTreeMap::new() },
            };
            topic.partitions.extend(change.partitions.iter().map(|state| (state.partition, state.clone())));
            for gone in &change.deleted {
                topic.partitions.remove(gone);
            }
            if topic.partitions.is_empty() {
                next.names.remove(&topic.id);
                next.topics.remove(&topic.name);
            } else {
                next.names.insert(topic.id, topic.name.clone());
                next.topics.insert(topic.name.clone(), Arc::new(topic));
            }
        }
        next
    }
}

/// Where the image is published: one applier, any number of readers.
#[derive(Debug)]
pub(crate) struct ImagePublisher {
    sender: watch::Sender<Arc<ClusterImage>>,
}

impl Default for ImagePublisher {
    fn default() -> Self {
        Self { sender: watch::Sender::new(Arc::default()) }
    }
}

impl ImagePublisher {
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<ClusterImage>> {
        self.sender.subscribe()
    }

    pub(crate) fn current(&self) -> Arc<ClusterImage> {
        self.sender.borrow().clone()
    }

    /// Applies one update and publishes the result. Called by the one applier, `replica/control.rs`.
    pub(crate) fn apply(&self, update: &UpdateMetadata) {
        self.sender.send_modify(|image| *image = Arc::new(image.apply(update)));
    }
}
