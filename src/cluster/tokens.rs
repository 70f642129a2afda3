//! Delegation tokens in the coordination tree: reading them, changing them, and hearing of changes that others made.
//!
//! A change and the note of it are one transaction, so that no broker misses one; Kafka writes them one after the
//! other. What of a token is changed is read first, and compared when it is set: renewals of two brokers do not undo
//! each other.
//! Source: Kafka 3.9 `DelegationTokenManagerZk`, `ZkNodeChangeNotificationListener`.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{self, StreamExt};
use tracing::error;

use super::change_notes::SeenNotes;
use super::read_at_last::read_at_last;
use super::znodes::tokens::{self, TokenInfo};
use super::znodes::{NODE_BYTES_MAX, ZnodeError};
use crate::clock::SharedClock;
use crate::coordination::{Changed, CoordinationError, CreateMode, Op, Session, SharedCoordination, ensure_paths};
use crate::types::limits::COORDINATION_READS_IN_FLIGHT_MAX;

/// How often a change is tried that others race with.
const ATTEMPTS: usize = 10;
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenStoreError {
    #[error(transparent)]
    Znode(#[from] ZnodeError),
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
    /// Others changed the token each time.
    #[error("the token was changed by others {ATTEMPTS} times")]
    Contended,
    #[error("{bytes} bytes of a token are more than the {NODE_BYTES_MAX} that one node holds")]
    TooLarge { bytes: usize },
}

/// Reads and changes tokens.
#[derive(Debug, Clone)]
pub(crate) struct TokenStore {
    store: SharedCoordination,
    clock: SharedClock,
}

impl TokenStore {
    pub(crate) fn new(store: SharedCoordination, clock: SharedClock) -> Self {
        Self { store, clock }
    }

    /// Creates the nodes that everything else lies below, where they are missing.
    pub(crate) async fn prepare(&self) -> Result<(), TokenStoreError> {
        Ok(ensure_paths(&*self.store, &[tokens::TOKENS, tokens::CHANGES]).await?)
    }

    /// Whether no call will ever succeed again.
    pub(crate) fn is_closed(&self) -> bool {
        *self.store.session().borrow() == Session::Closed
    }

    async fn read_versioned(&self, id: &str) -> Result<Option<(TokenInfo, i32)>, TokenStoreError> {
        let path = tokens::path(id);
        Ok(match self.store.get(&path).await? {
            // Kafka takes an empty node for none.
            Some((data, _)) if data.is_empty() => None,
            Some((data, stat)) => Some((tokens::decode(&path, &data)?, stat.version)),
            None => None,
        })
    }

    /// The ids of all tokens.
    pub(crate) async fn ids(&self) -> Result<Vec<Arc<str>>, TokenStoreError> {
        Ok(self.store.children(tokens::TOKENS).await?.into_iter().map(Arc::from).collect())
    }

    /// Each of these tokens; `None`: it is gone, or cannot be read, which is told.
    pub(crate) async fn read_each(
        &self,
        ids: impl IntoIterator<Item = Arc<str>>,
    ) -> Result<Vec<(Arc<str>, Option<TokenInfo>)>, TokenStoreError> {
        let mut read = stream::iter(ids)
            .map(|id| async move { (self.read_versioned(&id).await, id) })
            .buffered(COORDINATION_READS_IN_FLIGHT_MAX);
        let mut found = Vec::new();
        while let Some((token, id)) = read.next().await {
            match token {
                Ok(token) => found.push((id, token.map(|(token, _)| token))),
                Err(TokenStoreError::Znode(failure)) => {
                    error!(error = %failure, "a delegation token cannot be read, and is left out");
                    found.push((id, None));
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(found)
    }

    /// Writes a token that is new, and tells every broker.
    pub(crate) async fn create(&self, token: &TokenInfo) -> Result<(), TokenStoreError> {
        let (path, data) = (tokens::path(&token.id), tokens::encode(token));
        if data.len() > NODE_BYTES_MAX {
            return Err(TokenStoreError::TooLarge { bytes: data.len() });
        }
        let write = Op::Create { path, data, mode: CreateMode::Persistent };
        match self.store.multi(vec![write, tell(&token.id)]).await {
            Ok(_) => Ok(()),
            Err(refused) => Err(refused.error.into()),
        }
    }

    /// Changes a token, or deletes it where `change` gives none, and tells every broker; again, if others change it at
    /// the same time. Answers what it is then; `Ok(None)`: there is no such token any more.
    pub(crate) async fn update(
        &self,
        id: &str,
        change: impl Fn(TokenInfo) -> Option<TokenInfo>,
    ) -> Result<Option<TokenInfo>, TokenStoreError> {
        for _ in 0..ATTEMPTS {
            let Some((before, version)) = self.read_versioned(id).await? else { return Ok(None) };
            let path = tokens::path(id);
            let after = change(before);
            let write = match &after {
                Some(token) => Op::Set { path, data: tokens::encode(token), version },
                None => Op::Delete { path, version },
            };
            match self.store.multi(vec![write, tell(id)]).await.map_err(|refused| refused.error) {
                Ok(_) => return Ok(after),
                Err(CoordinationError::BadVersion(_) | CoordinationError::NoNode(_)) => {}
                Err(failure) => return Err(failure.into()),
            }
        }
        Err(TokenStoreError::Contended)
    }
}

fn tell(id: &str) -> Op {
    let (path, data) = (tokens::CHANGE_PREFIX.to_owned(), Bytes::copy_from_slice(id.as_bytes()));
    Op::Create { path, data, mode: CreateMode::PersistentSequential }
}

/// What is to be read again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StaleTokens {
    /// The feed was not heard for a while: changes may have come and gone.
    Everything,
    Some(BTreeSet<Arc<str>>),
}

/// The position in the notes. For one owner.
#[derive(Debug)]
pub(crate) struct TokenFeed {
    tokens: TokenStore,
    /// Number of the last note that was read.
    last: i64,
    first_seen: SeenNotes,
    /// Resolves when there may be more.
    armed: Option<Changed>,
    /// Session in which the notes were last read.
    session: Option<i64>,
}

impl TokenFeed {
    pub(crate) fn new(tokens: TokenStore) -> Self {
        Self { tokens, last: -1, first_seen: SeenNotes::default(), armed: None, session: None }
    }

    /// Waits until something has changed; what is read after this answers is as new as the answer. `None`: the store
    /// was closed.
    pub(crate) async fn next(&mut self) -> Option<StaleTokens> {
        loop {
            if let Some(armed) = &mut self.armed {
                match armed.await {
                    // A lost session counts as changed as well.
                    Ok(()) | Err(_) => self.armed = None,
                }
            }
            let is_closed = |feed: &Self| feed.tokens.is_closed();
            match read_at_last("the notes of changed tokens", self, is_closed, |feed| feed.catch_up().boxed()).await? {
                StaleTokens::Some(none) if none.is_empty() => {}
                stale => return Some(stale),
            }
        }
    }

    /// Arms the watch, then reads the notes since the last time.
    ///
    /// # Errors
    /// They could not be read; the next call reads them.
    pub(crate) async fn catch_up(&mut self) -> Result<StaleTokens, TokenStoreError> {
        let store = &self.tokens.store;
        let (names, armed) = store.children_and_watch(tokens::CHANGES).await?;
        let session = match *store.session().borrow() {
            Session::Connected(id) | Session::Disconnected(id) => Some(id),
            Session::Expired | Session::Closed => None,
        };
        let newest = names.iter().filter_map(|name| tokens::change_number(name)).max().unwrap_or(self.last);
        let stale = if session.is_none() || self.session != session {
            StaleTokens::Everything
        } else {
            StaleTokens::Some(self.read_notes(&names).await?)
        };
        self.first_seen.purge(&**store, tokens::CHANGES, names, self.tokens.clock.now_ms()).await?;
        self.session = session;
        self.last = self.last.max(newest);
        self.armed = Some(armed);
        Ok(stale)
    }

    async fn read_notes(&self, names: &[String]) -> Result<BTreeSet<Arc<str>>, TokenStoreError> {
        let mut named = BTreeSet::new();
        for name in names.iter().filter(|name| tokens::change_number(name).is_some_and(|number| number > self.last)) {
            let path = format!("{}/{name}", tokens::CHANGES);
            let Some((data, _)) = self.tokens.store.get(&path).await? else { continue };
            match tokens::decode_change(&data) {
                Some(id) => drop(named.insert(id)),
                None => error!(path, "the note of a changed token names none, and was skipped"),
            }
        }
        Ok(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::testing::ManualClock;
    use crate::coordination::Coordination;
    use crate::coordination::embedded::EmbeddedCoordination;
    use crate::coordination::embedded::testing::TreeDir;

    fn token(id: &str) -> TokenInfo {
        TokenInfo {
            id: id.into(),
            owner: "User:a".into(),
            requester: "User:a".into(),
            renewers: vec![],
            issued_ms: 1,
            max_ms: 3,
            expires_ms: 2,
        }
    }

    async fn room() -> (Arc<EmbeddedCoordination>, TokenStore) {
        let store = TreeDir::new().store();
        let tokens = TokenStore::new(store.clone(), Arc::new(ManualClock::new(1_000_000, 1)));
        tokens.prepare().await.unwrap();
        (store, tokens)
    }

    #[tokio::test]
    async fn a_change_is_written_with_its_note_and_the_feed_names_it() {
        let (store, tokens) = room().await;
        let mut feed = TokenFeed::new(tokens.clone());
        assert_eq!(feed.catch_up().await, Ok(StaleTokens::Everything), "nothing is known at first");
        tokens.create(&token("x")).await.unwrap();
        assert_eq!(feed.next().await, Some(StaleTokens::Some(BTreeSet::from(["x".into()]))));
        let renewed = tokens.update("x", |token| Some(TokenInfo { expires_ms: 3, ..token })).await.unwrap();
        assert_eq!(renewed.map(|token| token.expires_ms), Some(3));
        assert_eq!(feed.next().await, Some(StaleTokens::Some(BTreeSet::from(["x".into()]))));
        assert_eq!(tokens.update("x", |_| None).await, Ok(None));
        assert_eq!(feed.next().await, Some(StaleTokens::Some(BTreeSet::from(["x".into()]))));
        assert_eq!(tokens.read_each([Arc::from("x")]).await, Ok(vec![("x".into(), None)]));
        assert_eq!(tokens.update("x", Some).await, Ok(None), "it stays gone");
        assert_eq!(store.children(tokens::CHANGES).await.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_left_out_and_rubbish_in_the_notes_is_skipped() {
        let (store, tokens) = room().await;
        tokens.create(&token("x")).await.unwrap();
        let create = async |path: &str, data: &'static [u8], mode| {
            store.create(path, Bytes::from_static(data), mode).await.unwrap();
        };
        create(&tokens::path("bad"), b"rubbish", CreateMode::Persistent).await;
        create(&tokens::path("empty"), b"", CreateMode::Persistent).await;
        let found = tokens.read_each(tokens.ids().await.unwrap()).await.unwrap();
        assert_eq!(found, [("bad".into(), None), ("empty".into(), None), ("x".into(), Some(token("x")))]);
        let mut feed = TokenFeed::new(tokens.clone());
        feed.catch_up().await.unwrap();
        create(tokens::CHANGE_PREFIX, b"a/b", CreateMode::PersistentSequential).await;
        create(tokens::CHANGE_PREFIX, b"x", CreateMode::PersistentSequential).await;
        let mut named = BTreeSet::new();
        while named.is_empty() {
            let Some(StaleTokens::Some(found)) = feed.next().await else { panic!("the store is open") };
            named.extend(found);
        }
        assert_eq!(named, BTreeSet::from(["x".into()]));
    }
}
