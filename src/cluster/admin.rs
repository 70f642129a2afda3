//! Writes that any broker may make: topics are created, grown and marked for deletion here; the controller sees it by
//! its own watches and does the rest. These writes alone carry no check of the controller's epoch (I-12).
//!
//! An outcome that is unknown is settled by reading once more: what stands there is ours, or the call is repeated by
//! the caller. Source: Kafka 3.9 `AdminZkClient`.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::timeout;

use super::znodes::config::{self, Entity, Overrides};
use super::znodes::topics::{self, Assignment, TopicNode};
use super::znodes::{NODE_BYTES_MAX, ZnodeError, admin};
use crate::coordination::{CoordinationError, CreateMode, MultiError, Op, OpResult, SharedCoordination, ensure_path};
use crate::types::{TopicId, TopicName};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AdminError {
    #[error("Topic '{0}' already exists.")]
    TopicExists(TopicName),
    #[error("The topic '{0}' does not exist.")]
    NoTopic(TopicName),
    /// The node would outgrow what ZooKeeper takes.
    #[error("{bytes} bytes of metadata are more than the {NODE_BYTES_MAX} that one node holds; use fewer partitions")]
    TooLarge { bytes: usize },
    /// Another writer changed it, `topics/T` say, at the same time.
    #[error("{0} was changed by somebody else meanwhile")]
    Raced(String),
    #[error(transparent)]
    Znode(#[from] ZnodeError),
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
}

/// A topic to be created.
#[derive(Debug, Clone)]
pub(crate) struct NewTopic {
    pub(crate) name: TopicName,
    /// Drawn by the caller; tells our own node from another's when the answer was lost.
    pub(crate) id: TopicId,
    pub(crate) assignment: Assignment,
    pub(crate) overrides: Overrides,
}

/// A topic as it stands, for a change of it.
#[derive(Debug, Clone)]
pub(crate) struct ExistingTopic {
    pub(crate) node: TopicNode,
    version: i32,
}

#[cfg(test)]
impl ExistingTopic {
    pub(crate) fn for_test(node: TopicNode) -> Self {
        Self { node, version: 0 }
    }
}

/// An entity's overrides as they stand, for a change of them.
#[derive(Debug, Clone)]
pub(crate) struct ExistingOverrides {
    pub(crate) overrides: Overrides,
    /// `None`: it has no node of overrides.
    version: Option<i32>,
}

/// The writes.
#[derive(Debug, Clone)]
pub(crate) struct ClusterAdmin {
    store: SharedCoordination,
}

impl ClusterAdmin {
    pub(crate) fn new(store: SharedCoordination) -> Self {
        Self { store }
    }

    /// Names of all topics, those being deleted included.
    pub(crate) async fn topic_names(&self) -> Result<BTreeSet<String>, AdminError> {
        Ok(self.store.children(topics::TOPICS).await?.into_iter().collect())
    }

    /// Names of the topics that wait to be deleted.
    pub(crate) async fn marked_for_deletion(&self) -> Result<BTreeSet<String>, AdminError> {
        Ok(self.store.children(admin::DELETE_TOPICS).await?.into_iter().collect())
    }

    /// Names of all users that have settings, as they stand in paths; those of their clients are not among them.
    pub(crate) async fn user_names(&self) -> Result<Vec<String>, AdminError> {
        Ok(self.store.children("/config/users").await?)
    }

    /// Creates the topics in one round, answering in order. A topic's overrides and its assignment are written
    /// together.
    pub(crate) async fn create_topics(&self, new: &[NewTopic]) -> Vec<Result<(), AdminError>> {
        let mut results: Vec<Option<Result<(), AdminError>>> = vec![None; new.len()];
        let mut batches = Vec::new();
        let mut batched = Vec::new();
        for (at, topic) in new.iter().enumerate() {
            match creation(topic, false) {
                Ok(ops) => {
                    batches.push(ops);
                    batched.push(at);
                }
                Err(error) => results[at] = Some(Err(error)),
            }
        }
        let answers = if batches.is_empty() { Vec::new() } else { self.store.multi_all(batches).await };
        for (at, answer) in batched.into_iter().zip(answers) {
            results[at] = Some(self.settle_creation(&new[at], answer).await);
        }
        let unanswered = || Err(CoordinationError::Unknown("no answer".into()).into());
        results.into_iter().map(|result| result.unwrap_or_else(unanswered)).collect()
    }

    async fn settle_creation(
        &self,
        topic: &NewTopic,
        answer: Result<Vec<OpResult>, MultiError>,
    ) -> Result<(), AdminError> {
        match answer {
            Ok(_) => Ok(()),
            Err(MultiError { index: 0, error: CoordinationError::NodeExists(_) }) => {
                // Overrides were left behind, or laid down by hand before the topic: ours replace them, as in Kafka.
                match self.store.multi(creation(topic, true)?).await {
                    Ok(_) => Ok(()),
                    Err(refused) => self.settle_by_reading(topic, refused.error).await,
                }
            }
            Err(refused) => self.settle_by_reading(topic, refused.error).await,
        }
    }

    async fn settle_by_reading(&self, topic: &NewTopic, error: CoordinationError) -> Result<(), AdminError> {
        match error {
            CoordinationError::NodeExists(_) => Err(AdminError::TopicExists(topic.name.clone())),
            CoordinationError::Unknown(reason) => match self.read_topic(&topic.name).await? {
                Some(found) if found.node.id == Some(topic.id) => Ok(()),
                Some(_) => Err(AdminError::TopicExists(topic.name.clone())),
                None => Err(CoordinationError::Unknown(reason).into()),
            },
            error => Err(error.into()),
        }
    }

    /// The topic's assignment, for [`Self::grow`].
    pub(crate) async fn read_topic(&self, name: &TopicName) -> Result<Option<ExistingTopic>, AdminError> {
        match self.store.get(&topics::path(name.as_str())).await? {
            Some((data, stat)) => {
                Ok(Some(ExistingTopic { node: topics::decode(name.as_str(), &data)?, version: stat.version }))
            }
            None => Ok(None),
        }
    }

    /// Adds partitions to a topic that is as `existing` says.
    pub(crate) async fn grow(
        &self,
        name: &TopicName,
        existing: &ExistingTopic,
        added: &Assignment,
    ) -> Result<(), AdminError> {
        let mut node = existing.node.clone();
        node.partitions.extend(added.iter().map(|(index, replicas)| (*index, replicas.clone())));
        let data = checked_size(topics::encode(&node))?;
        match self.store.set(&topics::path(name.as_str()), data, existing.version).await {
            Ok(_) => Ok(()),
            Err(CoordinationError::NoNode(_)) => Err(AdminError::NoTopic(name.clone())),
            Err(CoordinationError::BadVersion(_)) => Err(AdminError::Raced(format!("topics/{name}"))),
            Err(CoordinationError::Unknown(reason)) => match self.read_topic(name).await? {
                Some(found) if found.node == node => Ok(()),
                _ => Err(CoordinationError::Unknown(reason).into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// The overrides of an entity, for [`Self::set_overrides`].
    pub(crate) async fn read_overrides(&self, entity: &Entity) -> Result<ExistingOverrides, AdminError> {
        let path = entity.path();
        Ok(match self.store.get(&path).await? {
            Some((data, stat)) => {
                ExistingOverrides { overrides: config::decode(&path, &data)?, version: Some(stat.version) }
            }
            None => ExistingOverrides { overrides: Overrides::new(), version: None },
        })
    }

    /// Replaces overrides, which are as `existing` says, and tells every broker, in one transaction. Users, clients and
    /// addresses without any have no node.
    pub(crate) async fn set_overrides(
        &self,
        entity: &Entity,
        existing: &ExistingOverrides,
        overrides: Overrides,
    ) -> Result<(), AdminError> {
        let (path, data) = (entity.path(), checked_size(config::encode(&overrides))?);
        let goes = overrides.is_empty() && entity.goes_when_empty();
        if let (true, Some(version)) = (goes, existing.version) {
            let deleted = self.write_and_tell(entity, Op::Delete { path: path.clone(), version }).await;
            if !matches!(deleted, Err(CoordinationError::NotEmpty(_))) {
                self.settled(entity, deleted, &overrides).await?;
                self.delete_empty_parents(entity).await;
                return Ok(());
            }
            // A user's clients have settings of their own.
        }
        for parent in entity.parents() {
            match self.store.create(&parent, Bytes::new(), CreateMode::Persistent).await {
                Ok(_) | Err(CoordinationError::NodeExists(_)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let write = match existing.version {
            Some(version) => Op::Set { path, data, version },
            None => Op::Create { path, data, mode: CreateMode::Persistent },
        };
        let written = self.write_and_tell(entity, write).await;
        self.settled(entity, written, &overrides).await
    }

    async fn write_and_tell(&self, entity: &Entity, write: Op) -> Result<(), CoordinationError> {
        let tell = Op::Create {
            path: config::CHANGE_PREFIX.into(),
            data: config::encode_change(entity),
            mode: CreateMode::PersistentSequential,
        };
        self.store.multi(vec![write, tell]).await.map(drop).map_err(|refused| refused.error)
    }

    /// What became of a write of these overrides.
    async fn settled(
        &self,
        entity: &Entity,
        written: Result<(), CoordinationError>,
        overrides: &Overrides,
    ) -> Result<(), AdminError> {
        match written {
            Ok(()) => Ok(()),
            // They were changed meanwhile, or the topic was deleted.
            Err(CoordinationError::NodeExists(_) | CoordinationError::BadVersion(_) | CoordinationError::NoNode(_)) => {
                Err(AdminError::Raced(entity.entity_path()))
            }
            Err(CoordinationError::Unknown(reason)) => match self.read_overrides(entity).await? {
                found if found.overrides == *overrides => Ok(()),
                _ => Err(CoordinationError::Unknown(reason).into()),
            },
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes what lay above the last client of a user that had settings, unless it has something else. What fails is
    /// left there: it does nothing but take room.
    async fn delete_empty_parents(&self, entity: &Entity) {
        let parents = entity.parents();
        for parent in parents.iter().rev() {
            let version = match self.store.get(parent).await {
                Ok(Some((data, stat))) if config::decode(parent, &data).is_ok_and(|found| found.is_empty()) => {
                    stat.version
                }
                _ => return,
            };
            if self.store.delete(parent, version).await.is_err() {
                return;
            }
        }
    }

    /// Marks topics for deletion in one round, answering in order. One that is marked already counts as marked.
    pub(crate) async fn mark_for_deletion(&self, names: &[TopicName]) -> Vec<Result<(), AdminError>> {
        let mark = |name: &TopicName| {
            let path = admin::delete_topic_path(name.as_str());
            vec![Op::Create { path, data: Bytes::new(), mode: CreateMode::Persistent }]
        };
        let answers = self.store.multi_all(names.iter().map(mark).collect()).await;
        let mut results = Vec::with_capacity(names.len());
        for (name, answer) in names.iter().zip(answers) {
            results.push(match answer.map_err(|refused| refused.error) {
                Ok(_) | Err(CoordinationError::NodeExists(_)) => Ok(()),
                Err(CoordinationError::Unknown(_)) => {
                    // Idempotent: a mark more is no harm, and a topic that is gone is unmarked by the controller.
                    let path = admin::delete_topic_path(name.as_str());
                    ensure_path(&*self.store, &path).await.map_err(Into::into)
                }
                Err(error) => Err(error.into()),
            });
        }
        results
    }

    /// Waits until a topic's node is gone; whether it was within `patience`.
    ///
    /// Our own addition: Kafka answers DeleteTopics as soon as the topic has left the image, and a client that creates
    /// it again at once is then told that it exists.
    pub(crate) async fn await_gone(&self, name: &TopicName, patience: Duration) -> bool {
        let path = topics::path(name.as_str());
        let gone = async {
            loop {
                match self.store.get_and_watch(&path).await {
                    Ok((None, _)) => return true,
                    Ok((Some(_), changed)) => {
                        let _ = changed.await;
                    }
                    Err(_) => return false,
                }
            }
        };
        timeout(patience, gone).await.unwrap_or(false)
    }
}

/// `replace_overrides`: a node of overrides exists already.
fn creation(topic: &NewTopic, replace_overrides: bool) -> Result<Vec<Op>, AdminError> {
    let overrides = checked_size(config::encode(&topic.overrides))?;
    let node = TopicNode { id: Some(topic.id), partitions: topic.assignment.clone(), ..TopicNode::default() };
    let node = checked_size(topics::encode(&node))?;
    let path = Entity::Topic(topic.name.as_str().into()).path();
    let first = match replace_overrides {
        true => Op::Set { path, data: overrides, version: -1 },
        false => Op::Create { path, data: overrides, mode: CreateMode::Persistent },
    };
    let path = topics::path(topic.name.as_str());
    Ok(vec![first, Op::Create { path, data: node, mode: CreateMode::Persistent }])
}

fn checked_size(data: Bytes) -> Result<Bytes, AdminError> {
    match data.len() <= NODE_BYTES_MAX {
        true => Ok(data),
        false => Err(AdminError::TooLarge { bytes: data.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::registration::ensure_top_level_paths;
    use crate::coordination::Coordination;
    use crate::coordination::embedded::EmbeddedCoordination;
    use crate::coordination::embedded::testing::TreeDir;
    use crate::types::{BrokerId, PartitionIndex};
    use std::sync::Arc;

    async fn room() -> (Arc<EmbeddedCoordination>, ClusterAdmin) {
        room_on(&TreeDir::new()).await
    }

    async fn room_on(dir: &Arc<TreeDir>) -> (Arc<EmbeddedCoordination>, ClusterAdmin) {
        let store = dir.store();
        ensure_top_level_paths(&*store, BrokerId(1)).await.unwrap();
        (store.clone(), ClusterAdmin::new(store))
    }

    fn topic(name: &str, partition_count: i32) -> NewTopic {
        NewTopic {
            name: name.into(),
            id: TopicId::from_random(u128::from(name.len() as u64) + 7).unwrap(),
            assignment: (0..partition_count).map(|index| (PartitionIndex(index), vec![BrokerId(1)])).collect(),
            overrides: Overrides::from([("retention.ms".into(), "1".into())]),
        }
    }

    #[tokio::test]
    async fn topics_are_created_in_one_round_with_their_overrides() {
        let dir = TreeDir::new();
        let (store, admin) = room_on(&dir).await;
        let rounds = dir.rounds();
        let results = admin.create_topics(&[topic("a", 2), topic("bb", 1)]).await;
        assert_eq!(results, [Ok(()), Ok(())]);
        assert_eq!(dir.rounds() - rounds, 1);
        let found = admin.read_topic(&"a".into()).await.unwrap().unwrap();
        assert_eq!((found.node.id, found.node.partitions.len()), (Some(topic("a", 2).id), 2));
        assert!(store.get("/config/topics/bb").await.unwrap().is_some());
    }

    #[tokio::test]
    async fn existing_topic_keeps_its_overrides_and_stale_overrides_are_replaced() {
        let (store, admin) = room().await;
        store.create("/config/topics/a", config::encode(&Overrides::new()), CreateMode::Persistent).await.unwrap();
        assert_eq!(admin.create_topics(&[topic("a", 1)]).await, [Ok(())]);
        let (data, stat) = store.get("/config/topics/a").await.unwrap().unwrap();
        assert_eq!(config::decode("p", &data).unwrap(), topic("a", 1).overrides);
        assert_eq!(admin.create_topics(&[topic("a", 1)]).await, [Err(AdminError::TopicExists("a".into()))]);
        assert_eq!(store.get("/config/topics/a").await.unwrap().unwrap().1, stat);
    }

    #[tokio::test]
    async fn topic_too_large_for_a_node_is_refused_before_the_write() {
        let (_, admin) = room().await;
        let result = admin.create_topics(&[topic("big", 100_000), topic("a", 1)]).await;
        assert!(matches!(result[..], [Err(AdminError::TooLarge { .. }), Ok(())]), "{result:?}");
    }

    #[tokio::test]
    async fn growth_is_refused_when_the_topic_changed_meanwhile() {
        let (_, admin) = room().await;
        admin.create_topics(&[topic("a", 1)]).await[0].clone().unwrap();
        let name = TopicName::new("a");
        let before = admin.read_topic(&name).await.unwrap().unwrap();
        let added = Assignment::from([(PartitionIndex(1), vec![BrokerId(1)])]);
        admin.grow(&name, &before, &added).await.unwrap();
        assert_eq!(admin.grow(&name, &before, &added).await, Err(AdminError::Raced("topics/a".into())));
        assert_eq!(admin.read_topic(&name).await.unwrap().unwrap().node.partitions.len(), 2);
    }

    #[tokio::test]
    async fn overrides_change_with_the_note_to_every_broker_or_not_at_all() {
        let (store, admin) = room().await;
        admin.create_topics(&[topic("a", 1)]).await;
        let entity = Entity::Topic("a".into());
        let existing = admin.read_overrides(&entity).await.unwrap();
        assert_eq!(existing.overrides, topic("a", 1).overrides);
        assert_eq!(admin.set_overrides(&entity, &existing, Overrides::new()).await, Ok(()));
        assert_eq!(store.children(config::CHANGES).await.unwrap().len(), 1);
        // What was read is out of date now.
        let late = admin.set_overrides(&entity, &existing, Overrides::new()).await;
        assert_eq!(late, Err(AdminError::Raced("topics/a".into())));
        assert_eq!(store.children(config::CHANGES).await.unwrap().len(), 1);
        assert_eq!(admin.read_overrides(&entity).await.unwrap().overrides, Overrides::new());
    }

    /// The nodes of users, clients and addresses that had a limit once were kept for ever.
    #[tokio::test]
    async fn nodes_of_users_and_clients_go_with_their_last_setting() {
        let (store, admin) = room().await;
        let set = async |entity: &Entity, overrides: Overrides| {
            let existing = admin.read_overrides(entity).await.unwrap();
            admin.set_overrides(entity, &existing, overrides).await.unwrap();
        };
        let some = || Overrides::from([("producer_byte_rate".into(), "1".into())]);
        let names = async |parent: &str| store.children(parent).await.unwrap();
        let client_of = |user: &str| Entity::UserClient { user: user.into(), client: "c".into() };
        for entity in [Entity::User("u".into()), Entity::Client("c".into()), Entity::Ip("10.0.0.1".into())] {
            set(&entity, some()).await;
            set(&entity, Overrides::new()).await;
        }
        set(&client_of("v"), some()).await;
        set(&client_of("v"), Overrides::new()).await;
        assert!(names("/config/users").await.is_empty() && names("/config/clients").await.is_empty());
        assert!(names("/config/ips").await.is_empty());
        // One has settings still, the user's or its client's.
        for user in ["w", "x"] {
            set(&client_of(user), some()).await;
            set(&Entity::User(user.into()), some()).await;
        }
        set(&Entity::User("w".into()), Overrides::new()).await;
        set(&client_of("x"), Overrides::new()).await;
        assert_eq!(names("/config/users").await, ["w", "x"]);
        assert_eq!((names("/config/users/w/clients").await.len(), names("/config/users/x").await.len()), (1, 0));
        set(&client_of("w"), Overrides::new()).await;
        assert_eq!(names("/config/users").await, ["x"]);
        assert_eq!(names(config::CHANGES).await.len(), 15, "each is told");
    }

    #[tokio::test]
    async fn deletion_is_marked_once_and_awaited() {
        let (store, admin) = room().await;
        admin.create_topics(&[topic("a", 1)]).await[0].clone().unwrap();
        let name = TopicName::new("a");
        assert_eq!(admin.mark_for_deletion(&[name.clone(), name.clone()]).await, [Ok(()), Ok(())]);
        assert_eq!(admin.marked_for_deletion().await.unwrap(), BTreeSet::from(["a".into()]));
        let (admin, deleter) = (admin.clone(), store.clone());
        let waiter = tokio::spawn(async move { admin.await_gone(&name, Duration::from_secs(5)).await });
        tokio::task::yield_now().await;
        deleter.delete("/brokers/topics/a", -1).await.unwrap();
        assert!(waiter.await.unwrap());
    }
}
