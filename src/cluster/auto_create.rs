//! Topics that come into being because somebody named them: ordinary ones with the broker's defaults, internal ones
//! with the settings their coordinator needs. The same path as CreateTopics from the placement on, by whichever broker
//! was asked. Source: Kafka 3.9 `DefaultAutoTopicCreationManager`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tracing::{info, warn};

use super::admin::{AdminError, ClusterAdmin, NewTopic};
use super::image::ImagePublisher;
use super::placement::{self, Candidate, PlacementError, Start};
use crate::clock::SharedClock;
use crate::config::Config;
use crate::types::topic::{CONSUMER_OFFSETS, TRANSACTION_STATE};
use crate::types::{TopicId, TopicName};

/// Why a topic did not come into being.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AutoCreateError {
    #[error("{0}")]
    InvalidName(String),
    #[error(transparent)]
    Placement(#[from] PlacementError),
    /// Another name differs in `.` and `_` only, so that metrics of both would collide.
    #[error("Topic '{0}' collides with existing topic '{1}'.")]
    Collision(TopicName, TopicName),
    #[error(transparent)]
    Admin(#[from] AdminError),
}

/// Creates topics on demand; a topic that is already being created is left to whoever began.
#[derive(Debug)]
pub(crate) struct AutoCreation {
    admin: ClusterAdmin,
    image: Arc<ImagePublisher>,
    config: Arc<Config>,
    clock: SharedClock,
    in_flight: Mutex<HashSet<TopicName>>,
}

impl AutoCreation {
    pub(crate) fn new(
        admin: ClusterAdmin,
        image: Arc<ImagePublisher>,
        config: Arc<Config>,
        clock: SharedClock,
    ) -> Self {
        Self { admin, image, config, clock, in_flight: Mutex::default() }
    }

    /// Creates the topic and waits, up to `patience`, until the image shows it. `Ok` says that it exists or is about
    /// to.
    pub(crate) async fn create(&self, name: &TopicName, patience: Duration) -> Result<(), AutoCreateError> {
        TopicName::check(name.as_str()).map_err(AutoCreateError::InvalidName)?;
        if self.in_flight.lock().insert(name.clone()) {
            let created = self.create_once(name).await;
            self.in_flight.lock().remove(name);
            match created {
                Ok(()) => info!(topic = %name, "created on demand"),
                Err(AutoCreateError::Admin(AdminError::TopicExists(_))) => {}
                Err(error) => {
                    warn!(topic = %name, %error, "could not be created on demand");
                    return Err(error);
                }
            }
        }
        let mut image = self.image.subscribe();
        let shown = image.wait_for(|image| image.topic(name.as_str()).is_some());
        // Not shown in time is no error: the client asks again.
        let _ = tokio::time::timeout(patience, shown).await;
        Ok(())
    }

    async fn create_once(&self, name: &TopicName) -> Result<(), AutoCreateError> {
        let image = self.image.current();
        if let Some(other) = image.topics().find(|topic| collide(topic.name.as_str(), name.as_str())) {
            return Err(AutoCreateError::Collision(name.clone(), other.name.clone()));
        }
        let candidates: Vec<Candidate> =
            image.brokers.values().map(|broker| Candidate { id: broker.id, rack: broker.rack.clone() }).collect();
        let (partitions, replicas, overrides) = self.shape(name);
        let start = Start::Random(self.clock.random());
        let assignment = placement::assign(&candidates, partitions, i32::from(replicas), start, 0)?;
        let id = loop {
            if let Some(id) = TopicId::from_random(self.clock.random()) {
                break id;
            }
        };
        let topic = NewTopic { name: name.clone(), id, assignment, overrides };
        match self.admin.create_topics(&[topic]).await.into_iter().next() {
            Some(result) => Ok(result?),
            None => Ok(()),
        }
    }

    /// Partitions, replicas and overrides of a topic created on demand.
    fn shape(&self, name: &TopicName) -> (i32, i16, BTreeMap<String, String>) {
        let config = &self.config;
        if name.as_str() == CONSUMER_OFFSETS {
            let segment_bytes = config.offsets_topic_segment_bytes.to_string();
            let overrides = [
                ("cleanup.policy", "compact"),
                ("compression.type", "producer"),
                ("segment.bytes", segment_bytes.as_str()),
            ];
            let mut overrides: BTreeMap<_, _> = overrides.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
            // A node alone has one replica of it, whatever the broker's default asks of other topics.
            let min_insync_replicas = config.offsets_topic_min_insync_replicas;
            if min_insync_replicas != config.topic_defaults.min_insync_replicas {
                overrides.insert("min.insync.replicas".to_owned(), min_insync_replicas.to_string());
            }
            return (config.offsets_topic_num_partitions, config.offsets_topic_replication_factor, overrides);
        }
        if name.as_str() == TRANSACTION_STATE {
            // Source: Kafka 3.9 `TransactionStateManager.transactionTopicConfigs`.
            let min_insync_replicas = config.transaction_topic_min_insync_replicas.to_string();
            let segment_bytes = config.transaction_topic_segment_bytes.to_string();
            let overrides = [
                ("cleanup.policy", "compact"),
                ("compression.type", "uncompressed"),
                ("min.insync.replicas", min_insync_replicas.as_str()),
                ("segment.bytes", segment_bytes.as_str()),
                ("unclean.leader.election.enable", "false"),
            ];
            let overrides = overrides.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
            return (config.transaction_topic_num_partitions, config.transaction_topic_replication_factor, overrides);
        }
        (config.num_partitions, config.default_replication_factor, BTreeMap::new())
    }
}

/// Whether two different names have the same metrics. Source: Kafka `Topic.hasCollision`.
pub(crate) fn collide(one: &str, other: &str) -> bool {
    one != other
        && one.len() == other.len()
        && one.bytes().zip(other.bytes()).all(|(a, b)| a == b || (matches!(a, b'.' | b'_') && matches!(b, b'.' | b'_')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_differ_in_dots_and_underscores_alone_collide() {
        assert!(collide("a.b", "a_b"));
        assert!(!collide("a.b", "a.b"));
        assert!(!collide("a.b", "a.c"));
        assert!(!collide("a.b", "a.bc"));
    }
}
