//! Topics that come into being because a request named them: ordinary ones with the broker's defaults, internal ones
//! with the settings their coordinator needs. The same path as CreateTopics from the placement on, by whichever broker
//! was asked. Source: Kafka 3.9 `DefaultAutoTopicCreationManager`.
//!
//! A creation runs in a task of its own, because others may wait for it: the first client may hang up, and the topic is
//! created all the same. A request holds nothing but the way to hear of the outcome.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{info, warn};

use super::admin::{AdminError, ClusterAdmin, NewTopic};
use super::image::ImagePublisher;
use super::placement::{self, Candidate, PlacementError, Start};
use crate::clock::SharedClock;
use crate::config::Config;
use crate::task;
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

/// Creates topics on demand; a request for one that is being created waits for the same outcome.
#[derive(Debug)]
pub(crate) struct AutoCreation {
    admin: ClusterAdmin,
    image: Arc<ImagePublisher>,
    config: Arc<Config>,
    clock: SharedClock,
    under_way: Mutex<HashMap<TopicName, Outcome>>,
}

/// What comes of a creation; `None` until it is known.
type Outcome = watch::Receiver<Option<Result<(), AutoCreateError>>>;

/// A creation under way. Dropped, however that comes, the name may be tried anew.
struct UnderWay {
    creation: Arc<AutoCreation>,
    name: TopicName,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.creation.under_way.lock().remove(&self.name);
    }
}

impl AutoCreation {
    pub(crate) fn new(
        admin: ClusterAdmin,
        image: Arc<ImagePublisher>,
        config: Arc<Config>,
        clock: SharedClock,
    ) -> Arc<Self> {
        Arc::new(Self { admin, image, config, clock, under_way: Mutex::default() })
    }

    /// Creates the topic and waits, up to `patience`, until the image shows it. `Ok` says that it exists or is about
    /// to. Dropping the future gives up the wait alone.
    pub(crate) async fn create(self: &Arc<Self>, name: &TopicName, patience: Duration) -> Result<(), AutoCreateError> {
        TopicName::check(name.as_str()).map_err(AutoCreateError::InvalidName)?;
        let mut outcome = self.begin_or_join(name);
        // An outcome that never comes, because its task panicked, is one that the client has to ask for again.
        if let Ok(known) = outcome.wait_for(Option::is_some).await
            && let Some(Err(error)) = &*known
        {
            return Err(error.clone());
        }
        let mut image = self.image.subscribe();
        let shown = image.wait_for(|image| image.topic(name.as_str()).is_some());
        // Not shown in time is no error: the client asks again.
        let _ = tokio::time::timeout(patience, shown).await;
        Ok(())
    }

    /// The creation of this name that is under way, or one that begins now.
    fn begin_or_join(self: &Arc<Self>, name: &TopicName) -> Outcome {
        let mut under_way = self.under_way.lock();
        if let Some(outcome) = under_way.get(name) {
            return outcome.clone();
        }
        let (known, outcome) = watch::channel(None);
        under_way.insert(name.clone(), outcome.clone());
        let work = UnderWay { creation: Arc::clone(self), name: name.clone() };
        task::spawn(async move {
            let result = work.creation.create_and_say(&work.name).await;
            // Before the outcome is known: a request after that begins anew.
            drop(work);
            known.send_replace(Some(result));
        });
        outcome
    }

    async fn create_and_say(&self, name: &TopicName) -> Result<(), AutoCreateError> {
        match self.create_once(name).await {
            Ok(()) => info!(topic = %name, "created on demand"),
            Err(AutoCreateError::Admin(AdminError::TopicExists(_))) => {}
            Err(error) => {
                warn!(topic = %name, %error, "could not be created on demand");
                return Err(error);
            }
        }
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

    /// How many partitions it would get.
    pub(crate) fn partitions(&self, name: &TopicName) -> usize {
        usize::try_from(self.shape(name).0).unwrap_or(0)
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
    use futures_util::poll;

    use super::*;
    use crate::clock::testing::ManualClock;
    use crate::cluster::control::{ControlHead, LiveBroker, UpdateMetadata};
    use crate::cluster::registration::ensure_top_level_paths;
    use crate::config::{Inputs, Machine};
    use crate::coordination::Coordination;
    use crate::coordination::embedded::EmbeddedCoordination;
    use crate::coordination::embedded::testing::TreeDir;
    use crate::types::{BrokerEpoch, BrokerId, ControllerEpoch};

    struct Kit {
        dir: Arc<TreeDir>,
        store: Arc<EmbeddedCoordination>,
        creation: Arc<AutoCreation>,
    }

    /// A cluster of one broker whose controller never shows a topic.
    async fn kit() -> Kit {
        kit_with(&Inputs::default()).await
    }

    async fn kit_with(inputs: &Inputs) -> Kit {
        let dir = TreeDir::new();
        let store = dir.store();
        ensure_top_level_paths(&*store, BrokerId(1)).await.expect("created");
        let image = Arc::new(ImagePublisher::default());
        image.apply(&UpdateMetadata {
            head: ControlHead {
                controller: BrokerId(1),
                controller_epoch: ControllerEpoch(1),
                broker_epoch: BrokerEpoch(1),
            },
            live_brokers: vec![LiveBroker { id: BrokerId(1), endpoints: Vec::new(), rack: None }],
            topics: Vec::new(),
        });
        let config = Arc::new(Config::load(inputs, Machine::for_test()).expect("legal"));
        let clock = Arc::new(ManualClock::new(0, 1));
        let creation = AutoCreation::new(ClusterAdmin::new(store.clone()), image, config, clock);
        Kit { dir, store, creation }
    }

    impl Kit {
        async fn exists(&self) -> bool {
            self.store.get("/brokers/topics/t").await.expect("readable").is_some()
        }

        async fn delete(&self) {
            self.store.delete("/brokers/topics/t", -1).await.expect("deleted");
        }

        async fn until_done(&self) {
            while !self.creation.under_way.lock().is_empty() {
                tokio::task::yield_now().await;
            }
        }
    }

    const NO_PATIENCE: Duration = Duration::ZERO;

    /// Issue 12, row 5: a client asked for a missing topic and hung up, and the name was "being created" for ever.
    #[tokio::test(start_paused = true)]
    async fn who_hangs_up_neither_stops_the_creation_nor_makes_the_name_unusable() {
        let kit = kit().await;
        let name = TopicName::new("t");
        kit.dir.hold();
        {
            let mut asked = Box::pin(kit.creation.create(&name, NO_PATIENCE));
            assert!(poll!(&mut asked).is_pending());
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            assert!(poll!(&mut asked).is_pending(), "the store does not answer");
        }
        kit.dir.release();
        kit.until_done().await;
        assert!(kit.exists().await, "it was begun, so it is done");
        kit.delete().await;
        assert_eq!(kit.creation.create(&name, NO_PATIENCE).await, Ok(()));
        assert!(kit.exists().await, "a deleted name can be had again");
    }

    #[tokio::test(start_paused = true)]
    async fn who_joins_a_creation_hears_its_outcome() {
        let kit = kit().await;
        let name = TopicName::new("t");
        kit.dir.hold();
        let first = kit.creation.create(&name, NO_PATIENCE);
        let second = kit.creation.create(&name, NO_PATIENCE);
        let (first, second, ()) = tokio::join!(first, second, async {
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            kit.dir.fail_with_full();
            kit.dir.release();
        });
        assert!(first.is_err() && first == second, "{first:?} {second:?}");
        kit.dir.heal();
        assert_eq!(kit.creation.create(&name, NO_PATIENCE).await, Ok(()), "an error is not kept");
        assert!(kit.exists().await);
    }

    /// Beside others a coordinator's log has all of its replicas, or there is none yet.
    #[tokio::test(start_paused = true)]
    async fn internal_topics_wait_until_there_are_brokers_enough() {
        let overrides = vec!["zookeeper.connect=localhost:2181".to_owned()];
        let kit = kit_with(&Inputs { overrides, ..Inputs::default() }).await;
        for topic in [CONSUMER_OFFSETS, TRANSACTION_STATE] {
            let refused = kit.creation.create(&TopicName::new(topic), NO_PATIENCE).await;
            let too_few = PlacementError::TooFewBrokers { wanted: 3, live: 1 };
            assert_eq!(refused, Err(AutoCreateError::Placement(too_few)));
            let path = format!("/brokers/topics/{topic}");
            assert!(kit.store.get(&path).await.expect("readable").is_none());
        }
    }

    #[test]
    fn names_that_differ_in_dots_and_underscores_alone_collide() {
        assert!(collide("a.b", "a_b"));
        assert!(!collide("a.b", "a.b"));
        assert!(!collide("a.b", "a.c"));
        assert!(!collide("a.b", "a.bc"));
    }
}
