//! ACLs in the coordination tree: reading them, changing them, and hearing of changes that others made.
//!
//! A change is written by compare-and-set, together with the note of it in one transaction: a change without its note
//! would stay unknown to the other brokers. Everybody who writes ACLs, brokers and `kafka-acls` alike, leaves notes;
//! the feed reads those since the last time, or says that everything is to be read anew, behind a session that was
//! lost. What ACLs mean is `security`'s. Source: Kafka 3.9 `AclAuthorizer.updateResourceAcls`,
//! `ZkNodeChangeNotificationListener`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{Either, select};
use futures_util::stream::{self, StreamExt};
use tokio::time::sleep;
use tracing::{error, info};

use super::change_notes::SeenNotes;
use super::read_at_last::read_at_last;
use super::znodes::acls::{self, AclPaths, Acls};
use super::znodes::{NODE_BYTES_MAX, ZnodeError};
use crate::clock::SharedClock;
use crate::coordination::{Changed, CoordinationError, CreateMode, Op, Session, SharedCoordination, ensure_paths};
use crate::types::acl::{ResourcePattern, ResourceType};
use crate::types::limits::COORDINATION_READS_IN_FLIGHT_MAX;

/// How often a change is tried beyond the first time, and the pause between two tries: 100 to 150 ms. Source: Kafka 3.9
/// `AclAuthorizer`.
const RETRIES: usize = 10;
const BACKOFF_MS: u64 = 100;
const BACKOFF_JITTER_MS: u64 = 50;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AclStoreError {
    #[error(transparent)]
    Znode(#[from] ZnodeError),
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
    /// Others changed the same resource each time.
    #[error("Failed to update ACLs for {0} after trying a maximum of {RETRIES} times")]
    Contended(ResourcePattern),
    #[error("{bytes} bytes of ACLs are more than the {NODE_BYTES_MAX} that one node holds")]
    TooLarge { bytes: usize },
}

/// A resource's ACLs as they were before a change and are after it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Updated {
    pub(crate) before: Acls,
    pub(crate) after: Acls,
}

/// Reads and changes ACLs.
#[derive(Debug, Clone)]
pub(crate) struct AclStore {
    store: SharedCoordination,
    clock: SharedClock,
}

impl AclStore {
    pub(crate) fn new(store: SharedCoordination, clock: SharedClock) -> Self {
        Self { store, clock }
    }

    /// Creates the nodes that everything else lies below, where they are missing.
    pub(crate) async fn prepare(&self) -> Result<(), AclStoreError> {
        let parents = acls::parents();
        let parents: Vec<&str> = parents.iter().map(String::as_str).collect();
        Ok(ensure_paths(&*self.store, &parents).await?)
    }

    /// Whether no call will ever succeed again.
    pub(crate) fn is_closed(&self) -> bool {
        *self.store.session().borrow() == Session::Closed
    }

    /// All ACLs of one resource; empty if it has none.
    pub(crate) async fn read(&self, pattern: &ResourcePattern) -> Result<Acls, AclStoreError> {
        Ok(self.read_versioned(pattern).await?.0)
    }

    /// The same with the version of the node, if there is one.
    async fn read_versioned(&self, pattern: &ResourcePattern) -> Result<(Acls, Option<i32>), AclStoreError> {
        let path = acls::path(pattern);
        Ok(match self.store.get(&path).await? {
            Some((data, stat)) => (acls::decode(&path, &data)?, Some(stat.version)),
            None => (Acls::new(), None),
        })
    }

    /// Every resource that has a node, with its ACLs; or, resource by resource, why they cannot be read.
    pub(crate) async fn read_all(&self) -> Result<Vec<(ResourcePattern, Result<Acls, ZnodeError>)>, AclStoreError> {
        let mut patterns = Vec::new();
        for paths in acls::PATHS {
            for resource_type in ResourceType::CONCRETE {
                match self.store.children(&paths.of_type(resource_type)).await {
                    Ok(names) => patterns.extend(names.into_iter().map(|name| {
                        let name = Arc::from(name);
                        ResourcePattern { resource_type, pattern_type: paths.pattern_type, name }
                    })),
                    Err(CoordinationError::NoNode(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        self.read_each(patterns).await
    }

    /// The ACLs of each of these resources.
    pub(crate) async fn read_each(
        &self,
        patterns: impl IntoIterator<Item = ResourcePattern>,
    ) -> Result<Vec<(ResourcePattern, Result<Acls, ZnodeError>)>, AclStoreError> {
        let mut read = stream::iter(patterns)
            .map(|pattern| async move { (self.read(&pattern).await, pattern) })
            .buffered(COORDINATION_READS_IN_FLIGHT_MAX);
        let mut found = Vec::new();
        while let Some((acls, pattern)) = read.next().await {
            match acls {
                Ok(acls) => found.push((pattern, Ok(acls))),
                Err(AclStoreError::Znode(error)) => found.push((pattern, Err(error))),
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Changes a resource's ACLs and tells every broker; again, if others change them at the same time. A resource that
    /// has none left loses its node.
    ///
    /// # Errors
    /// Nothing was changed, save for [`CoordinationError::Unknown`].
    pub(crate) async fn update(
        &self,
        pattern: &ResourcePattern,
        change: impl Fn(&Acls) -> Acls,
    ) -> Result<Updated, AclStoreError> {
        let mut failed = None;
        for attempt in 0..=RETRIES {
            if attempt > 0 {
                let jitter = self.clock.random() as u64 % BACKOFF_JITTER_MS;
                sleep(Duration::from_millis(BACKOFF_MS + jitter)).await;
            }
            let tried = self.try_update(pattern, &change).await;
            match tried {
                Err(AclStoreError::Coordination(error)) if passes(&error) => failed = Some(error),
                tried => return tried,
            }
        }
        Err(match failed {
            Some(error @ (CoordinationError::Unknown(_) | CoordinationError::SessionExpired)) => error.into(),
            _ => AclStoreError::Contended(pattern.clone()),
        })
    }

    async fn try_update(
        &self,
        pattern: &ResourcePattern,
        change: &impl Fn(&Acls) -> Acls,
    ) -> Result<Updated, AclStoreError> {
        let (before, version) = self.read_versioned(pattern).await?;
        let after = change(&before);
        let path = acls::path(pattern);
        let data = acls::encode(&after);
        if data.len() > NODE_BYTES_MAX {
            return Err(AclStoreError::TooLarge { bytes: data.len() });
        }
        let write = match version {
            None if after.is_empty() => return Ok(Updated { before, after }),
            None => Op::Create { path, data, mode: CreateMode::Persistent },
            Some(version) if after.is_empty() => Op::Delete { path, version },
            // Also if nothing changes: that what was read still holds, the version alone can tell.
            Some(version) => Op::Set { path, data, version },
        };
        let tell = Op::Create {
            path: AclPaths::of(pattern.pattern_type).change_prefix.to_owned(),
            data: acls::encode_change(pattern),
            mode: CreateMode::PersistentSequential,
        };
        let ops = if before == after { vec![write] } else { vec![write, tell] };
        self.store.multi(ops).await.map_err(|refused| refused.error)?;
        Ok(Updated { before, after })
    }
}

/// Whether a change that failed so is tried again: it was raced by another, or what became of it is to be read.
fn passes(error: &CoordinationError) -> bool {
    match error {
        CoordinationError::NoNode(_)
        | CoordinationError::NodeExists(_)
        | CoordinationError::BadVersion(_)
        | CoordinationError::Unknown(_)
        | CoordinationError::SessionExpired => true,
        CoordinationError::NotEmpty(_)
        | CoordinationError::NoChildrenForEphemerals(_)
        | CoordinationError::Refused(_) => false,
    }
}

/// What is to be read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stale {
    /// The feed was not heard for a while: changes may have come and gone.
    Everything,
    Resources(BTreeSet<ResourcePattern>),
}

/// The position in the notes. For one owner.
#[derive(Debug)]
pub(crate) struct AclFeed {
    acls: AclStore,
    folders: [Folder; 2],
    /// Session in which the notes were last read.
    session: Option<i64>,
    /// Found, and not told yet because something failed after it: whether it is everything, and else what.
    untold: (bool, BTreeSet<ResourcePattern>),
}

/// The notes about literal resources, or about prefixes.
#[derive(Debug)]
struct Folder {
    paths: AclPaths,
    /// Number of the last note that was read.
    last: i64,
    /// When this process first saw a note that is still there.
    first_seen: SeenNotes,
    /// Resolves when there may be more.
    armed: Option<Changed>,
}

impl AclFeed {
    pub(crate) fn new(acls: AclStore) -> Self {
        let folder = |paths| Folder { paths, last: -1, first_seen: SeenNotes::default(), armed: None };
        Self { acls, folders: acls::PATHS.map(folder), session: None, untold: Default::default() }
    }

    /// Waits until something has changed; what is read after this answers is as new as the answer. The watch is armed
    /// before the notes are read, so none is missed. `None`: the store was closed.
    pub(crate) async fn next(&mut self) -> Option<Stale> {
        loop {
            self.wait().await;
            let is_closed = |feed: &Self| feed.acls.is_closed();
            match read_at_last("the notes of changed ACLs", self, is_closed, |feed| feed.catch_up().boxed()).await? {
                Stale::Resources(none) if none.is_empty() => {}
                stale => return Some(stale),
            }
        }
    }

    /// Returns at once if a folder is not watched. A lost session counts as changed as well.
    async fn wait(&mut self) {
        let [one, other] = &mut self.folders;
        if let (Some(first), Some(second)) = (&mut one.armed, &mut other.armed) {
            match select(first, second).await {
                Either::Left(_) => one.armed = None,
                Either::Right(_) => other.armed = None,
            }
        }
    }

    /// Arms the watches that have fired, and reads the notes since the last time.
    ///
    /// # Errors
    /// They could not be read; the next call reads them.
    pub(crate) async fn catch_up(&mut self) -> Result<Stale, AclStoreError> {
        let (everything, named) = &mut self.untold;
        for folder in self.folders.iter_mut().filter(|folder| folder.armed.is_none()) {
            let watched = self.acls.store.children_and_watch(folder.paths.changes).await;
            let (names, armed) = match watched {
                Err(CoordinationError::NoNode(_)) => {
                    self.acls.prepare().await?;
                    self.acls.store.children_and_watch(folder.paths.changes).await?
                }
                watched => watched?,
            };
            let session = match *self.acls.store.session().borrow() {
                Session::Connected(id) | Session::Disconnected(id) => Some(id),
                Session::Expired | Session::Closed => None,
            };
            *everything |= session.is_none() || self.session != session;
            self.session = session;
            let newest = names.iter().filter_map(|name| acls::change_number(name)).max().unwrap_or(folder.last);
            if !*everything {
                folder.read_notes(&self.acls, &names, named).await?;
            }
            let now = self.acls.clock.now_ms();
            folder.first_seen.purge(&*self.acls.store, folder.paths.changes, names, now).await?;
            folder.last = folder.last.max(newest);
            folder.armed = Some(armed);
        }
        let (everything, named) = std::mem::take(&mut self.untold);
        Ok(if everything { Stale::Everything } else { Stale::Resources(named) })
    }
}

impl Folder {
    async fn read_notes(
        &self,
        acls: &AclStore,
        names: &[String],
        named: &mut BTreeSet<ResourcePattern>,
    ) -> Result<(), AclStoreError> {
        for name in names.iter().filter(|name| acls::change_number(name).is_some_and(|number| number > self.last)) {
            let path = format!("{}/{name}", self.paths.changes);
            let Some((data, _)) = acls.store.get(&path).await? else { continue };
            match acls::decode_change(self.paths, &path, &data) {
                Ok(pattern) => {
                    info!(%pattern, "ACLs changed");
                    named.insert(pattern);
                }
                Err(error) => error!(%error, "the note of changed ACLs was skipped"),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::testing::ManualClock;
    use crate::cluster::change_notes::CHANGE_LIFE_MS;
    use crate::coordination::Coordination;
    use crate::coordination::embedded::EmbeddedCoordination;
    use crate::coordination::embedded::testing::TreeDir;
    use crate::types::acl::{AccessControlEntry, Operation, PatternType, PermissionType};

    struct Room {
        store: Arc<EmbeddedCoordination>,
        clock: Arc<ManualClock>,
        acls: AclStore,
    }

    impl Room {
        async fn new() -> Self {
            let store = TreeDir::new().store();
            let clock = Arc::new(ManualClock::new(1_000_000, 1));
            let acls = AclStore::new(store.clone(), clock.clone());
            acls.prepare().await.unwrap();
            Self { store, clock, acls }
        }

        async fn add(&self, pattern: &ResourcePattern, principal: &str) -> Updated {
            let added = entry(principal);
            let change = |before: &Acls| before.iter().cloned().chain([added.clone()]).collect();
            self.acls.update(pattern, change).await.unwrap()
        }
    }

    fn topic(name: &str, pattern_type: PatternType) -> ResourcePattern {
        ResourcePattern { resource_type: ResourceType::Topic, pattern_type, name: name.into() }
    }

    fn entry(principal: &str) -> AccessControlEntry {
        AccessControlEntry {
            principal: principal.into(),
            host: "*".into(),
            operation: Operation::Read,
            permission: PermissionType::Allow,
        }
    }

    #[tokio::test]
    async fn a_change_is_written_with_its_note_and_the_last_acl_takes_its_node_along() {
        let room = Room::new().await;
        let (literal, prefixed) = (topic("t", PatternType::Literal), topic("t", PatternType::Prefixed));
        room.add(&literal, "User:a").await;
        let updated = room.add(&literal, "User:b").await;
        assert_eq!(updated.after, Acls::from([entry("User:a"), entry("User:b")]));
        room.add(&prefixed, "User:a").await;
        assert_eq!(room.store.children("/kafka-acl-changes").await.unwrap().len(), 2);
        assert_eq!(room.store.children("/kafka-acl-extended-changes").await.unwrap().len(), 1);
        let all = room.acls.read_all().await.unwrap();
        let expected = [(literal.clone(), Ok(updated.after)), (prefixed, Ok(Acls::from([entry("User:a")])))];
        assert_eq!(all, expected);
        // The same once more changes nothing and tells nobody.
        room.add(&literal, "User:b").await;
        assert_eq!(room.store.children("/kafka-acl-changes").await.unwrap().len(), 2);
        room.acls.update(&literal, |_| Acls::new()).await.unwrap();
        assert_eq!(room.store.get("/kafka-acl/Topic/t").await.unwrap(), None);
        assert_eq!(room.store.children("/kafka-acl-changes").await.unwrap().len(), 3);
        let gone = room.acls.update(&literal, |_| Acls::new()).await.unwrap();
        assert_eq!(gone.before, Acls::new());
    }

    #[tokio::test(start_paused = true)]
    async fn changes_at_the_same_time_are_all_made() {
        let room = Room::new().await;
        let pattern = topic("t", PatternType::Literal);
        let principals: Vec<String> = (0..4).map(|number| format!("User:{number}")).collect();
        futures_util::future::join_all(principals.iter().map(|name| room.add(&pattern, name))).await;
        assert_eq!(room.acls.read(&pattern).await.unwrap().len(), 4);
    }

    #[tokio::test]
    async fn a_change_that_the_tree_refuses_is_refused() {
        let room = Room::new().await;
        let refused = room.acls.update(&topic("a\0b", PatternType::Literal), |_| Acls::from([entry("User:a")])).await;
        assert!(matches!(refused, Err(AclStoreError::Coordination(CoordinationError::Refused(_)))), "{refused:?}");
        let many: Acls = (0..20_000).map(|number| entry(&format!("User:{number}"))).collect();
        let refused = room.acls.update(&topic("t", PatternType::Literal), |_| many.clone()).await;
        assert!(matches!(refused, Err(AclStoreError::TooLarge { .. })), "{refused:?}");
    }

    #[tokio::test]
    async fn the_feed_names_what_others_changed() {
        let room = Room::new().await;
        let mut feed = AclFeed::new(room.acls.clone());
        assert_eq!(feed.catch_up().await, Ok(Stale::Everything), "nothing is known at first");
        let (literal, prefixed) = (topic("t", PatternType::Literal), topic("p", PatternType::Prefixed));
        room.add(&literal, "User:a").await;
        assert_eq!(feed.next().await, Some(Stale::Resources(BTreeSet::from([literal.clone()]))));
        room.add(&prefixed, "User:a").await;
        room.add(&literal, "User:b").await;
        let mut found = BTreeSet::new();
        while found.len() < 2 {
            let Some(Stale::Resources(named)) = feed.next().await else { panic!("the store is open") };
            found.extend(named);
        }
        assert_eq!(found, BTreeSet::from([literal, prefixed]));
    }

    #[tokio::test]
    async fn rubbish_is_skipped_and_notes_go_after_15_minutes() {
        let room = Room::new().await;
        let mut feed = AclFeed::new(room.acls.clone());
        feed.catch_up().await.unwrap();
        let rubbish = bytes::Bytes::from_static(b"rubbish");
        room.store.create("/kafka-acl-changes/acl_changes_", rubbish, CreateMode::PersistentSequential).await.unwrap();
        let pattern = topic("t", PatternType::Literal);
        room.add(&pattern, "User:a").await;
        assert_eq!(feed.next().await, Some(Stale::Resources(BTreeSet::from([pattern.clone()]))));
        room.clock.advance(CHANGE_LIFE_MS + 1);
        room.add(&pattern, "User:b").await;
        feed.next().await;
        assert_eq!(room.store.children("/kafka-acl-changes").await.unwrap(), ["acl_changes_0000000002"]);
    }
}
