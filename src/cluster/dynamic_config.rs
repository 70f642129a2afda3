//! Overrides of topics and brokers as `/config` has them, published as snapshots and kept fresh by the change feed.
//!
//! The feed says what changed, the entity is then read again. It is watched before everything is loaded, so nothing is
//! lost in between. The creation of a topic is not in the feed: whoever opens a new partition calls
//! [`DynamicConfig::reload_topics`] first. Applying overrides to logs is `replica`'s work; their meaning is `config`'s.
//! Source: Kafka 3.9 `ZkConfigManager`, `ZkNodeChangeNotificationListener`.
//!
//! The follower task lives as long as the process. It publishes alone, with the callers of `reload_topics`; each
//! publication replaces whole entities by what was read, so the order of two readers of one entity does not matter for
//! long: a change is in the feed and is read once more. A panic ends the process.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{info, warn};

use super::znodes::ZnodeError;
use super::znodes::config::{self, Entity, Overrides};
use crate::clock::{SharedClock, UnixMs};
use crate::coordination::{Changed, CoordinationError, Session, SharedCoordination};
use crate::task;
use crate::types::limits::COORDINATION_READS_IN_FLIGHT_MAX;
use crate::types::{BrokerId, TopicName};

/// How long a change stays in the feed. Source: Kafka `ZkNodeChangeNotificationListener`, 15 minutes.
const CHANGE_LIFE_MS: i64 = 15 * 60 * 1000;

/// Pause after a failed read of the feed.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DynamicConfigError {
    #[error(transparent)]
    Znode(#[from] ZnodeError),
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
}

/// All overrides at one moment.
#[derive(Debug, Clone, Default)]
pub(crate) struct ConfigImage {
    topics: HashMap<TopicName, Arc<Overrides>>,
    /// `/config/brokers/N` of this broker.
    pub(crate) broker: Arc<Overrides>,
    /// `/config/brokers/<default>`.
    pub(crate) all_brokers: Arc<Overrides>,
}

impl ConfigImage {
    /// Overrides of a topic; empty if it has none.
    pub(crate) fn topic(&self, name: &str) -> Arc<Overrides> {
        self.topics.get(name).cloned().unwrap_or_default()
    }

    /// Every topic with overrides.
    pub(crate) fn topics(&self) -> impl Iterator<Item = (&TopicName, &Arc<Overrides>)> {
        self.topics.iter()
    }

    fn put(&mut self, entity: &Entity, overrides: Overrides, own: BrokerId) {
        match entity {
            Entity::Topic(name) if overrides.is_empty() => {
                self.topics.remove(name.as_str());
            }
            Entity::Topic(name) => {
                self.topics.insert(TopicName::new(name), Arc::new(overrides));
            }
            Entity::Broker(None) => self.all_brokers = Arc::new(overrides),
            Entity::Broker(Some(id)) if *id == own => self.broker = Arc::new(overrides),
            Entity::Broker(Some(_)) => {}
        }
    }
}

/// Handle to the published overrides.
#[derive(Debug)]
pub(crate) struct DynamicConfig {
    store: SharedCoordination,
    broker: BrokerId,
    image: watch::Sender<Arc<ConfigImage>>,
}

impl DynamicConfig {
    /// Loads everything and starts to follow the feed. The top-level paths must exist.
    pub(crate) async fn start(
        store: SharedCoordination,
        broker: BrokerId,
        clock: SharedClock,
    ) -> Result<Arc<Self>, DynamicConfigError> {
        let this = Arc::new(Self { store, broker, image: watch::Sender::new(Arc::default()) });
        let mut feed = Feed { config: this.clone(), clock, last: -1, first_seen: BTreeMap::new(), session: None };
        let changed = feed.catch_up().await?;
        task::spawn_owner("dynamic-config", feed.follow(changed));
        Ok(this)
    }

    pub(crate) fn current(&self) -> Arc<ConfigImage> {
        self.image.borrow().clone()
    }

    /// Wakes at every publication.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<ConfigImage>> {
        self.image.subscribe()
    }

    /// Reads these topics' overrides now and publishes them.
    pub(crate) async fn reload_topics(&self, topics: &[TopicName]) -> Result<(), DynamicConfigError> {
        self.reload(topics.iter().map(|name| Entity::Topic(name.as_str().into())).collect()).await
    }

    /// Reads what is set for all brokers and for this one now, and publishes it.
    pub(crate) async fn reload_brokers(&self) -> Result<(), DynamicConfigError> {
        self.reload(vec![Entity::Broker(None), Entity::Broker(Some(self.broker))]).await
    }

    /// One entity's overrides as they are in the store at this moment, without publishing them.
    pub(crate) async fn read(&self, entity: &Entity) -> Result<Overrides, DynamicConfigError> {
        let path = entity.path();
        Ok(match self.store.get(&path).await? {
            Some((data, _)) => config::decode(&path, &data)?,
            None => Overrides::new(),
        })
    }

    async fn reload(&self, entities: Vec<Entity>) -> Result<(), DynamicConfigError> {
        let mut read = stream::iter(entities)
            .map(|entity| async move { (self.read(&entity).await, entity) })
            .buffered(COORDINATION_READS_IN_FLIGHT_MAX);
        let mut found = Vec::new();
        while let Some((overrides, entity)) = read.next().await {
            match overrides {
                Ok(overrides) => found.push((entity, overrides)),
                // One unreadable node must not keep the others from taking effect.
                Err(DynamicConfigError::Znode(error)) => warn!(%error, "overrides are left as they were"),
                Err(error) => return Err(error),
            }
        }
        self.image.send_modify(|image| {
            let mut next = ConfigImage::clone(image);
            for (entity, overrides) in found {
                next.put(&entity, overrides, self.broker);
            }
            *image = Arc::new(next);
        });
        Ok(())
    }

    async fn reload_all(&self) -> Result<(), DynamicConfigError> {
        let mut entities = vec![Entity::Broker(None), Entity::Broker(Some(self.broker))];
        entities.extend(self.store.children("/config/topics").await?.into_iter().map(Entity::Topic));
        self.reload(entities).await
    }
}

/// The owner of the position in the feed.
struct Feed {
    config: Arc<DynamicConfig>,
    clock: SharedClock,
    /// Number of the last change processed.
    last: i64,
    /// When this process first saw a change that is still there.
    first_seen: BTreeMap<String, UnixMs>,
    /// Session in which the feed was last read. Behind a new one changes may have come and gone.
    session: Option<i64>,
}

impl Feed {
    async fn follow(mut self, mut changed: Changed) {
        loop {
            // A lost session counts as changed as well.
            let _ = changed.await;
            let mut failures = 0_u32;
            changed = loop {
                match self.catch_up().await {
                    Ok(changed) => break changed,
                    Err(error) => {
                        // First, since watches fire before the session shows that it was closed.
                        sleep(RETRY_PAUSE).await;
                        if *self.config.store.session().borrow() == Session::Closed {
                            return;
                        }
                        if failures == 0 {
                            warn!(%error, "the feed of config changes cannot be read; trying until it can");
                        }
                        failures = failures.saturating_add(1);
                    }
                }
            };
            if failures > 0 {
                info!(failures, "the feed of config changes is read again");
            }
        }
    }

    /// Arms the watch, then reads what changed since the last time; everything, in a session that is new.
    async fn catch_up(&mut self) -> Result<Changed, DynamicConfigError> {
        let store = self.config.store.clone();
        let (names, changed) = store.children_and_watch(config::CHANGES).await?;
        let session = match *store.session().borrow() {
            Session::Connected(id) | Session::Disconnected(id) => Some(id),
            Session::Expired | Session::Closed => None,
        };
        let newest = names.iter().filter_map(|name| config::change_number(name)).max().unwrap_or(self.last);
        if self.session.is_none() || self.session != session {
            self.config.reload_all().await?;
        } else {
            self.process(&names).await?;
        }
        self.session = session;
        self.last = self.last.max(newest);
        self.purge(names).await?;
        Ok(changed)
    }

    async fn process(&self, names: &[String]) -> Result<(), DynamicConfigError> {
        let mut entities = BTreeSet::new();
        for name in names.iter().filter(|name| config::change_number(name).is_some_and(|number| number > self.last)) {
            let path = format!("{}/{name}", config::CHANGES);
            let Some((data, _)) = self.config.store.get(&path).await? else { continue };
            match config::decode_change(&path, &data) {
                Ok(Some(entity)) => {
                    info!(entity = entity.entity_path(), "config changed");
                    entities.insert(entity);
                }
                Ok(None) => {}
                Err(error) => warn!(%error, "config change skipped"),
            }
        }
        match entities.is_empty() {
            true => Ok(()),
            false => self.config.reload(entities.into_iter().collect()).await,
        }
    }

    /// Deletes changes that this process has known for longer than they live.
    async fn purge(&mut self, names: Vec<String>) -> Result<(), DynamicConfigError> {
        let now = self.clock.now_ms();
        let old = std::mem::take(&mut self.first_seen);
        for name in names {
            let seen = old.get(&name).copied().unwrap_or(now);
            if now - seen <= CHANGE_LIFE_MS {
                self.first_seen.insert(name, seen);
                continue;
            }
            match self.config.store.delete(&format!("{}/{name}", config::CHANGES), -1).await {
                Ok(()) | Err(CoordinationError::NoNode(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::clock::ManualClock;
    use crate::cluster::registration::ensure_top_level_paths;
    use crate::coordination::embedded::EmbeddedCoordination;
    use crate::coordination::embedded::test_dir::TreeDir;
    use crate::coordination::{Coordination, CreateMode};

    struct Room {
        store: Arc<EmbeddedCoordination>,
        clock: Arc<ManualClock>,
    }

    impl Room {
        async fn new() -> Self {
            let store = TreeDir::new().store();
            ensure_top_level_paths(&*store, BrokerId(1)).await.unwrap();
            Self { store, clock: Arc::new(ManualClock::new(0, 1)) }
        }

        async fn start(&self) -> Arc<DynamicConfig> {
            DynamicConfig::start(self.store.clone(), BrokerId(1), self.clock.clone()).await.unwrap()
        }

        async fn put(&self, entity: &Entity, key: &str, value: &str) {
            let data = config::encode(&Overrides::from([(key.into(), value.into())]));
            match self.store.set(&entity.path(), data.clone(), -1).await {
                Err(CoordinationError::NoNode(_)) => {
                    self.store.create(&entity.path(), data, CreateMode::Persistent).await.unwrap();
                }
                result => {
                    result.unwrap();
                }
            }
        }

        async fn announce(&self, entity: &Entity) {
            let change = config::encode_change(entity);
            self.store.create(config::CHANGE_PREFIX, change, CreateMode::PersistentSequential).await.unwrap();
        }
    }

    fn topic() -> Entity {
        Entity::Topic("t".into())
    }

    #[tokio::test]
    async fn overrides_are_loaded_at_start_and_follow_the_feed() {
        let room = Room::new().await;
        room.put(&topic(), "retention.ms", "1").await;
        let config = room.start().await;
        assert_eq!(config.current().topic("t")["retention.ms"], "1");
        assert!(config.current().topic("other").is_empty());
        let mut updates = config.subscribe();
        room.put(&topic(), "retention.ms", "2").await;
        room.announce(&topic()).await;
        updates.changed().await.unwrap();
        assert_eq!(config.current().topic("t")["retention.ms"], "2");
        room.put(&Entity::Broker(None), "log.retention.ms", "3").await;
        room.announce(&Entity::Broker(None)).await;
        updates.changed().await.unwrap();
        assert_eq!(config.current().all_brokers["log.retention.ms"], "3");
    }

    #[tokio::test]
    async fn unreadable_changes_and_overrides_are_skipped() {
        let room = Room::new().await;
        let config = room.start().await;
        let mut updates = config.subscribe();
        let rubbish = Bytes::from_static(b"rubbish");
        room.store.create(config::CHANGE_PREFIX, rubbish.clone(), CreateMode::PersistentSequential).await.unwrap();
        room.store.create("/config/topics/bad", rubbish, CreateMode::Persistent).await.unwrap();
        room.put(&topic(), "retention.ms", "2").await;
        room.announce(&Entity::Topic("bad".into())).await;
        room.announce(&topic()).await;
        while config.current().topic("t").is_empty() {
            updates.changed().await.unwrap();
        }
    }

    #[tokio::test]
    async fn reload_takes_a_topics_overrides_and_their_absence() {
        let room = Room::new().await;
        let config = room.start().await;
        room.put(&topic(), "retention.ms", "2").await;
        config.reload_topics(&["t".into()]).await.unwrap();
        assert_eq!(config.current().topic("t").len(), 1);
        room.store.delete("/config/topics/t", -1).await.unwrap();
        config.reload_topics(&["t".into()]).await.unwrap();
        assert!(config.current().topic("t").is_empty());
    }

    #[tokio::test]
    async fn changes_older_than_15_minutes_are_deleted() {
        let room = Room::new().await;
        room.announce(&topic()).await;
        let config = room.start().await;
        room.clock.advance(CHANGE_LIFE_MS + 1);
        let mut updates = config.subscribe();
        room.put(&topic(), "retention.ms", "2").await;
        room.announce(&topic()).await;
        updates.changed().await.unwrap();
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(room.store.children(config::CHANGES).await.unwrap(), ["config_change_0000000001"]);
    }
}
