//! Overrides of topics, brokers and users as `/config` has them, kept in memory and fresh by the change feed.
//!
//! The feed says what changed, the entity is then read again. It is watched before everything is loaded, so nothing is
//! lost in between. The creation of a topic is not in the feed: the replica manager, which opens new partitions, calls
//! [`DynamicConfig::reload_topics`] first. Nor is its deletion, which comes by [`DynamicConfig::forget_topics`].
//! Applying overrides to logs is `replica`'s work; their meaning is `config`'s.
//! Source: Kafka 3.9 `ZkConfigManager`, `ZkNodeChangeNotificationListener`.
//!
//! What is known at one moment, and what a reader may change of it, is `known_overrides`'.
//!
//! The follower task lives as long as the process. It publishes alone, with the callers of `reload_topics`; each
//! publication replaces whole entities by what was read, so the order of two readers of one entity does not matter for
//! long: a change is in the feed and is read once more. A panic ends the process.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::time::sleep;
use tracing::{info, warn};

use super::change_notes::SeenNotes;
pub(crate) use super::known_overrides::{BrokerOverrides, ConfigChanges};
use super::known_overrides::{Known, Listed};
use super::read_at_last::{RETRY_PAUSE, read_at_last};
use super::znodes::ZnodeError;
use super::znodes::config::{self, Entity, Overrides};
use crate::clock::SharedClock;
use crate::coordination::{Changed, CoordinationError, Session, SharedCoordination};
use crate::task;
use crate::types::limits::COORDINATION_READS_IN_FLIGHT_MAX;
use crate::types::{BrokerId, TopicName};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DynamicConfigError {
    #[error(transparent)]
    Znode(#[from] ZnodeError),
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
}

/// A reading under way, until it is dropped.
struct Reading<'a> {
    config: &'a DynamicConfig,
    began: u64,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        let mut known = self.config.known.write();
        known.reading -= 1;
        if known.reading == 0 {
            known.forgotten = HashMap::new();
        }
    }
}

/// Handle to the overrides.
#[derive(Debug)]
pub(crate) struct DynamicConfig {
    store: SharedCoordination,
    broker: BrokerId,
    known: RwLock<Known>,
    /// What [`DynamicConfig::changed`] has not told yet; one name for each topic at most.
    untold: Mutex<ConfigChanges>,
    told: Notify,
}

impl DynamicConfig {
    /// Loads everything and starts to follow the feed. The top-level paths must exist.
    pub(crate) async fn start(
        store: SharedCoordination,
        broker: BrokerId,
        clock: SharedClock,
    ) -> Result<Arc<Self>, DynamicConfigError> {
        let (known, untold, told) = (RwLock::default(), Mutex::default(), Notify::new());
        let this = Arc::new(Self { store, broker, known, untold, told });
        let mut feed = Feed { config: this.clone(), clock, last: -1, first_seen: SeenNotes::default(), session: None };
        let changed = feed.catch_up().await?;
        // Nothing was asked for yet.
        *this.untold.lock() = ConfigChanges::default();
        task::spawn_owner("dynamic-config", feed.follow(changed));
        Ok(this)
    }

    /// Overrides of a topic; empty if it has none.
    pub(crate) fn topic(&self, name: &str) -> Arc<Overrides> {
        self.known.read().topics.get(name).map(|known| Arc::clone(&known.overrides)).unwrap_or_default()
    }

    /// Topics with overrides.
    pub(crate) fn topics(&self) -> Vec<TopicName> {
        self.known.read().topics.keys().cloned().collect()
    }

    pub(crate) fn brokers(&self) -> BrokerOverrides {
        self.known.read().brokers.clone()
    }

    /// Overrides of a user; `None` if it has none.
    pub(crate) fn user(&self, name: &str) -> Option<Arc<Overrides>> {
        self.known.read().others.get(&Entity::user(name)).map(Arc::clone)
    }

    /// Overrides of all users, clients, users' clients and addresses that have any, in order.
    pub(crate) fn quotas(&self) -> Vec<(Entity, Arc<Overrides>)> {
        let known = self.known.read();
        let found = known.others.iter().map(|(entity, overrides)| (entity.clone(), Arc::clone(overrides)));
        let mut all: Vec<_> = found.collect();
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// Waits until something has changed and answers what: all changes since the last answer. For one follower.
    /// Cancellation-safe.
    pub(crate) async fn changed(&self) -> ConfigChanges {
        loop {
            let told = self.told.notified();
            let changes = std::mem::take(&mut *self.untold.lock());
            if changes.brokers || changes.quotas || !changes.topics.is_empty() {
                return changes;
            }
            told.await;
        }
    }

    /// Reads these topics' overrides now and publishes them.
    pub(crate) async fn reload_topics(&self, topics: &[TopicName]) -> Result<(), DynamicConfigError> {
        self.reload(topics.iter().map(|name| Entity::Topic(name.as_str().into())).collect()).await
    }

    /// As [`Self::reload_topics`], again and again until it has succeeded, or the store is closed.
    pub(crate) async fn reload_topics_at_last(&self, topics: &[TopicName]) {
        loop {
            sleep(RETRY_PAUSE).await;
            match self.reload_topics(topics).await {
                Ok(()) => return info!(count = topics.len(), "settings of topics were read at last"),
                Err(_) if *self.store.session().borrow() == Session::Closed => return,
                Err(_) => {}
            }
        }
    }

    /// Reads what is set for all brokers and for this one now, and publishes it.
    pub(crate) async fn reload_brokers(&self) -> Result<(), DynamicConfigError> {
        self.reload(vec![Entity::Broker(None), Entity::Broker(Some(self.broker))]).await
    }

    /// Reads these entities' overrides now and publishes them.
    pub(crate) async fn reload_entities(&self, entities: &[Entity]) -> Result<(), DynamicConfigError> {
        self.reload(entities.to_vec()).await
    }

    /// The topics were deleted: their overrides go with them.
    pub(crate) fn forget_topics(&self, topics: &[TopicName]) {
        let (mut known, mut untold) = (self.known.write(), self.untold.lock());
        let number = known.next_number();
        for topic in topics {
            if known.topics.remove(topic.as_str()).is_some() {
                untold.topics.insert(topic.clone());
                self.told.notify_one();
            }
            if known.reading > 0 {
                known.forgotten.insert(topic.clone(), number);
            }
        }
    }

    /// One entity's overrides as they are in the store at this moment, without publishing them.
    pub(crate) async fn read(&self, entity: &Entity) -> Result<Overrides, DynamicConfigError> {
        let path = entity.path();
        Ok(match self.store.get(&path).await? {
            Some((data, _)) => config::decode(&path, &data)?,
            None => Overrides::new(),
        })
    }

    fn begin_reading(&self) -> Reading<'_> {
        let mut known = self.known.write();
        known.reading += 1;
        Reading { config: self, began: known.next_number() }
    }

    async fn reload(&self, entities: Vec<Entity>) -> Result<(), DynamicConfigError> {
        let reading = self.begin_reading();
        self.reload_in(&reading, entities, None).await
    }

    /// Reads the entities and publishes them; forgets everything that is not in `listed`.
    async fn reload_in(
        &self,
        reading: &Reading<'_>,
        entities: Vec<Entity>,
        listed: Option<Listed>,
    ) -> Result<(), DynamicConfigError> {
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
        {
            let (mut known, mut untold) = (self.known.write(), self.untold.lock());
            known.next_number();
            for (entity, overrides) in found {
                known.put(entity, overrides, self.broker, reading.began, &mut untold);
            }
            if let Some(listed) = listed {
                known.keep_listed(&listed, reading.began, &mut untold);
            }
        }
        self.told.notify_one();
        Ok(())
    }

    async fn reload_all(&self) -> Result<(), DynamicConfigError> {
        let reading = self.begin_reading();
        let topics = self.store.children("/config/topics").await?;
        let others = self.list_others().await?;
        let listed = Listed {
            topics: topics.iter().map(|name| TopicName::new(name)).collect(),
            others: others.iter().cloned().collect(),
        };
        let mut entities = vec![Entity::Broker(None), Entity::Broker(Some(self.broker))];
        entities.extend(topics.into_iter().map(Entity::Topic));
        entities.extend(others);
        self.reload_in(&reading, entities, Some(listed)).await
    }

    /// Users, clients, addresses, and the clients of users.
    async fn list_others(&self) -> Result<Vec<Entity>, DynamicConfigError> {
        let users = self.store.children("/config/users").await?;
        let mut others: Vec<_> =
            self.store.children("/config/clients").await?.into_iter().map(Entity::Client).collect();
        others.extend(self.store.children("/config/ips").await?.into_iter().map(Entity::Ip));
        let clients_of = |user: String| async move {
            match self.store.children(&format!("/config/users/{user}/clients")).await {
                Ok(clients) => Ok((user, clients)),
                Err(CoordinationError::NoNode(_)) => Ok((user, Vec::new())),
                Err(error) => Err(error),
            }
        };
        others.extend(users.iter().cloned().map(Entity::User));
        let mut read = stream::iter(users).map(clients_of).buffered(COORDINATION_READS_IN_FLIGHT_MAX);
        while let Some(found) = read.next().await {
            let (user, clients) = found?;
            others.extend(clients.into_iter().map(|client| Entity::UserClient { user: user.clone(), client }));
        }
        Ok(others)
    }
}

/// The owner of the position in the feed.
struct Feed {
    config: Arc<DynamicConfig>,
    clock: SharedClock,
    /// Number of the last change processed.
    last: i64,
    /// When this process first saw a change that is still there.
    first_seen: SeenNotes,
    /// Session in which the feed was last read. Behind a new one changes may have come and gone.
    session: Option<i64>,
}

impl Feed {
    async fn follow(mut self, mut changed: Changed) {
        loop {
            // A lost session counts as changed as well.
            let _ = changed.await;
            let is_closed = |feed: &Self| *feed.config.store.session().borrow() == Session::Closed;
            let what = "the notes of changed settings";
            match read_at_last(what, &mut self, is_closed, |feed| feed.catch_up().boxed()).await {
                Some(armed) => changed = armed,
                None => return,
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
        self.first_seen.purge(&*store, config::CHANGES, names, self.clock.now_ms()).await?;
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
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use bytes::Bytes;

    use super::*;
    use crate::clock::testing::ManualClock;
    use crate::cluster::change_notes::CHANGE_LIFE_MS;
    use crate::cluster::registration::ensure_top_level_paths;
    use crate::coordination::embedded::EmbeddedCoordination;
    use crate::coordination::embedded::testing::TreeDir;
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
        assert_eq!(config.topic("t")["retention.ms"], "1");
        assert!(config.topic("other").is_empty());
        room.put(&topic(), "retention.ms", "2").await;
        room.announce(&topic()).await;
        let changes = config.changed().await;
        assert_eq!((changes.topics, changes.brokers), (HashSet::from(["t".into()]), false));
        assert_eq!(config.topic("t")["retention.ms"], "2");
        room.put(&Entity::Broker(None), "log.retention.ms", "3").await;
        room.announce(&Entity::Broker(None)).await;
        let changes = config.changed().await;
        assert_eq!((changes.topics, changes.brokers), (HashSet::new(), true));
        assert_eq!(config.brokers().all["log.retention.ms"], "3");
    }

    #[tokio::test]
    async fn unreadable_changes_and_overrides_are_skipped() {
        let room = Room::new().await;
        let config = room.start().await;
        let rubbish = Bytes::from_static(b"rubbish");
        room.store.create(config::CHANGE_PREFIX, rubbish.clone(), CreateMode::PersistentSequential).await.unwrap();
        room.store.create("/config/topics/bad", rubbish, CreateMode::Persistent).await.unwrap();
        room.put(&topic(), "retention.ms", "2").await;
        room.announce(&Entity::Topic("bad".into())).await;
        room.announce(&topic()).await;
        while config.topic("t").is_empty() {
            config.changed().await;
        }
    }

    #[tokio::test]
    async fn reload_takes_a_topics_overrides_and_their_absence() {
        let room = Room::new().await;
        let config = room.start().await;
        room.put(&topic(), "retention.ms", "2").await;
        config.reload_topics(&["t".into()]).await.unwrap();
        assert_eq!(config.topic("t").len(), 1);
        room.store.delete("/config/topics/t", -1).await.unwrap();
        config.reload_topics(&["t".into()]).await.unwrap();
        assert!(config.topic("t").is_empty());
    }

    /// Issue 12, row 10: overrides stayed in memory for ever.
    #[tokio::test]
    async fn a_deleted_topic_takes_its_overrides_with_it() {
        let room = Room::new().await;
        let config = room.start().await;
        for name in ["t", "u"] {
            room.put(&Entity::Topic(name.into()), "retention.ms", "2").await;
        }
        config.reload_topics(&["t".into(), "u".into()]).await.unwrap();
        room.store.delete("/config/topics/t", -1).await.unwrap();
        config.forget_topics(&["t".into()]);
        assert_eq!(config.known.read().topics.keys().collect::<Vec<_>>(), [&TopicName::new("u")]);
        assert!(config.topic("t").is_empty() && config.known.read().forgotten.is_empty());
        // Made again under its name.
        room.put(&topic(), "retention.ms", "3").await;
        config.reload_topics(&["t".into()]).await.unwrap();
        assert_eq!(config.topic("t")["retention.ms"], "3");
    }

    #[tokio::test]
    async fn who_read_before_a_deletion_does_not_bring_the_topic_back() {
        let room = Room::new().await;
        let config = room.start().await;
        room.put(&topic(), "retention.ms", "2").await;
        let reading = config.begin_reading();
        let late = Overrides::from([("retention.ms".into(), "2".into())]);
        config.forget_topics(&["t".into()]);
        let mut changes = ConfigChanges::default();
        config.known.write().put(topic(), late.clone(), BrokerId(1), reading.began, &mut changes);
        assert!(config.topic("t").is_empty());
        // One that began after it may: the topic is there again.
        let after = config.begin_reading();
        config.known.write().put(topic(), late, BrokerId(1), after.began, &mut changes);
        assert_eq!(config.topic("t").len(), 1);
        drop((reading, after));
        assert!(config.known.read().forgotten.is_empty());
    }

    #[tokio::test]
    async fn a_full_reading_forgets_what_is_not_there_and_keeps_what_came_meanwhile() {
        let room = Room::new().await;
        room.put(&topic(), "retention.ms", "2").await;
        let config = room.start().await;
        room.store.delete("/config/topics/t", -1).await.unwrap();
        let reading = config.begin_reading();
        room.put(&Entity::Topic("u".into()), "retention.ms", "2").await;
        config.reload_topics(&["u".into()]).await.unwrap();
        config.reload_in(&reading, Vec::new(), Some(Listed::default())).await.unwrap();
        assert_eq!(config.known.read().topics.keys().collect::<Vec<_>>(), [&TopicName::new("u")]);
        let changes = config.changed().await;
        assert_eq!(changes.topics, HashSet::from(["t".into(), "u".into()]));
    }

    #[tokio::test]
    async fn users_are_followed_too_whoever_writes_them() {
        let room = Room::new().await;
        room.put(&Entity::user("a b"), "SCRAM-SHA-256", "1").await;
        let config = room.start().await;
        assert_eq!(config.user("a b").expect("loaded at the start")["SCRAM-SHA-256"], "1");
        assert!(config.user("a").is_none() && config.user("a%20b").is_none());
        room.put(&Entity::user("c"), "SCRAM-SHA-256", "2").await;
        room.announce(&Entity::user("c")).await;
        while config.user("c").is_none() {
            tokio::task::yield_now().await;
        }
        room.store.delete("/config/users/c", -1).await.unwrap();
        config.reload_entities(&[Entity::user("c")]).await.unwrap();
        assert!(config.user("c").is_none() && config.user("a b").is_some());
        let reading = config.begin_reading();
        config.reload_in(&reading, Vec::new(), Some(Listed::default())).await.unwrap();
        assert!(config.user("a b").is_none());
    }

    #[tokio::test]
    async fn changes_older_than_15_minutes_are_deleted() {
        let room = Room::new().await;
        room.announce(&topic()).await;
        let config = room.start().await;
        room.clock.advance(CHANGE_LIFE_MS + 1);
        room.put(&topic(), "retention.ms", "2").await;
        room.announce(&topic()).await;
        config.changed().await;
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(room.store.children(config::CHANGES).await.unwrap(), ["config_change_0000000001"]);
    }
}
