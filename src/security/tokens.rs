//! Delegation tokens: what a client that has proved who it is gives to others, so that they speak for it without its
//! password, for a time (KIP-48).
//!
//! A token is an id and a key. The key is the HMAC-SHA-512 of the id under a secret that all brokers share
//! (`delegation.token.secret.key`), and its base64 is the password of a SCRAM login with `tokenauth=true`. Whoever owns
//! the token, or is one of its renewers, may put its end off, up to its longest life, or make it end; whoever lets
//! others make tokens for it grants CREATE_TOKENS (KIP-373).
//!
//! [`Tokens`] knows all tokens of the tree and follows their notes. Those that have expired are deleted by the broker
//! that is the controller. Decisions are [`renewed`] and [`expired`], pure. Source: Kafka 3.9
//! `DelegationTokenManagerZk`, `DelegationTokenCache`.
//!
//! Keys are looked up by their digest, so that how long a look takes tells nothing of a key that is guessed
//! (CVE-2021-38153), and no key is in memory for longer than it is used, or in a log.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use futures_util::FutureExt;
use parking_lot::RwLock;
use ring::{digest, hmac};
use tokio::sync::Mutex;
use tokio::time::sleep;
use tracing::{info, warn};

use super::principal::Principal;
use super::sasl::credential::{ITERATIONS_MIN, ScramCredential, ScramHash};
use crate::clock::{SharedClock, UnixMs};
use crate::cluster::image::ImagePublisher;
use crate::cluster::read_at_last::read_at_last;
use crate::cluster::tokens::{StaleTokens, TokenFeed, TokenStore, TokenStoreError};
use crate::cluster::znodes::tokens::TokenInfo;
use crate::config::tokens::TokenConfig;
use crate::task;
use crate::types::BrokerId;

/// Why a token was not renewed, or not made to expire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum TokenError {
    #[error("there is no token with this key")]
    NotFound,
    /// Who asks is neither the owner nor a renewer.
    #[error("{0} is neither its owner nor one of its renewers")]
    OwnerMismatch(String),
    #[error("the token has expired")]
    Expired,
    #[error(transparent)]
    Store(#[from] TokenStoreError),
}

/// A token as it is given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) info: TokenInfo,
    pub(crate) key: TokenKey,
}

/// A token's key: as good as a password.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TokenKey(Vec<u8>);

impl TokenKey {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey")
    }
}

/// A token that is known here.
#[derive(Debug)]
struct Known {
    info: TokenInfo,
    credentials: Arc<Credentials>,
}

/// What SCRAM checks, by mechanism. Made at the first login, since it takes as long as SCRAM makes it.
#[derive(Debug, Default)]
struct Credentials {
    sha256: OnceLock<ScramCredential>,
    sha512: OnceLock<ScramCredential>,
}

/// Whom a token speaks for, and how that is proved.
#[derive(Debug)]
pub(super) struct TokenLogin {
    /// Its name; the kind does not count.
    pub(super) owner: String,
    pub(super) credential: ScramCredential,
    pub(super) expires_ms: UnixMs,
}

#[derive(Debug, Default)]
struct All {
    by_id: HashMap<Arc<str>, Known>,
    /// Ids by the digest of their key.
    by_key: HashMap<[u8; digest::SHA256_OUTPUT_LEN], Arc<str>>,
}

/// All tokens. Its tasks live as long as the store; a panic in one ends the process.
#[derive(Debug)]
pub(crate) struct Tokens {
    secret: hmac::Key,
    expiry_ms: i64,
    max_lifetime_ms: i64,
    all: RwLock<All>,
    store: TokenStore,
    clock: SharedClock,
    /// Held by whoever reads the tree for `all`, so that nothing older replaces what is newer.
    changing: Mutex<()>,
}

impl Tokens {
    /// Reads all tokens, then follows them.
    ///
    /// # Errors
    /// The tree cannot be read.
    pub(crate) async fn start(
        config: &TokenConfig,
        store: TokenStore,
        clock: SharedClock,
    ) -> Result<Arc<Self>, TokenStoreError> {
        store.prepare().await?;
        let this = Arc::new(Self {
            secret: hmac::Key::new(hmac::HMAC_SHA512, config.secret.reveal().as_bytes()),
            expiry_ms: config.expiry_ms,
            max_lifetime_ms: config.max_lifetime_ms,
            all: RwLock::default(),
            store: store.clone(),
            clock,
            changing: Mutex::new(()),
        });
        let mut feed = TokenFeed::new(store);
        let stale = feed.catch_up().await?;
        this.reload(&stale).await?;
        info!(count = this.all.read().by_id.len(), "delegation tokens were read");
        task::spawn_owner("delegation tokens", Arc::clone(&this).follow(feed));
        Ok(this)
    }

    /// Deletes what has expired at this interval, as long as this broker is the controller.
    pub(crate) fn sweep(self: &Arc<Self>, interval_ms: i64, image: &Arc<ImagePublisher>, broker: BrokerId) {
        let (this, image) = (Arc::clone(self), Arc::clone(image));
        let interval = Duration::from_millis(u64::try_from(interval_ms).unwrap_or(1).max(1));
        task::spawn_owner("expired delegation tokens", async move {
            loop {
                sleep(interval).await;
                if this.store.is_closed() {
                    return;
                }
                if image.current().controller == Some(broker) {
                    this.delete_expired().await;
                }
            }
        });
    }

    async fn delete_expired(&self) {
        let now = self.clock.now_ms();
        let over: Vec<Arc<str>> = {
            let all = self.all.read();
            all.by_id
                .values()
                .filter(|known| is_over(&known.info, now))
                .map(|known| Arc::clone(&known.info.id))
                .collect()
        };
        for id in over {
            match self.change(&id, |info| Some(info).filter(|info| !is_over(info, now))).await {
                Ok(None) => info!(token = %id, "a delegation token has expired"),
                Ok(Some(_)) => {}
                Err(failure) => {
                    warn!(token = %id, error = %failure, "an expired delegation token was not deleted");
                    // The others would most likely fare the same; the next sweep finds them.
                    if let TokenStoreError::Coordination(_) = failure {
                        return;
                    }
                }
            }
        }
    }

    /// Makes a token. `lifetime_ms`: what is asked for, 0 and less for the longest there is.
    ///
    /// # Errors
    /// It was not stored, or nobody knows.
    pub(crate) async fn create(
        &self,
        owner: &Principal,
        requester: &Principal,
        renewers: Vec<Principal>,
        lifetime_ms: i64,
    ) -> Result<Token, TokenStoreError> {
        let now = self.clock.now_ms();
        let lifetime_ms = if lifetime_ms <= 0 { self.max_lifetime_ms } else { lifetime_ms.min(self.max_lifetime_ms) };
        let max_ms = now.saturating_add(lifetime_ms);
        let info = TokenInfo {
            id: URL_SAFE_NO_PAD.encode(self.clock.random().to_be_bytes()).into(),
            owner: owner.to_string(),
            requester: requester.to_string(),
            renewers: renewers.iter().map(Principal::to_string).collect(),
            issued_ms: now,
            max_ms,
            expires_ms: max_ms.min(now.saturating_add(self.expiry_ms)),
        };
        let _changing = self.changing.lock().await;
        self.store.create(&info).await?;
        info!(token = %info.id, %owner, "a delegation token was made");
        let token = self.with_key(info.clone());
        self.put(info);
        Ok(token)
    }

    /// Puts the end of a token off: it is that many milliseconds from now then, or as long as is usual if it is less
    /// than 0. Answers when it is.
    pub(crate) async fn renew(&self, who: &Principal, key: &[u8], period_ms: i64) -> Result<UnixMs, TokenError> {
        let (now, usual) = (self.clock.now_ms(), self.expiry_ms);
        let info = self.decide(who, key, |info| renewed(&info, now, period_ms, usual).map(Some)).await?;
        // It may have gone since it was looked up.
        info.map(|info| info.expires_ms).ok_or(TokenError::NotFound)
    }

    /// Makes a token end so many milliseconds from now; at once, and for good, if it is less than 0. Answers when.
    pub(crate) async fn expire(&self, who: &Principal, key: &[u8], period_ms: i64) -> Result<UnixMs, TokenError> {
        let now = self.clock.now_ms();
        match self.decide(who, key, |info| expired(&info, now, period_ms)).await? {
            Some(info) => Ok(info.expires_ms),
            None if period_ms < 0 => Ok(now),
            None => Err(TokenError::NotFound),
        }
    }

    async fn decide(
        &self,
        who: &Principal,
        key: &[u8],
        decide: impl Fn(TokenInfo) -> Result<Option<TokenInfo>, TokenError>,
    ) -> Result<Option<TokenInfo>, TokenError> {
        let id = self.all.read().by_key.get(&digest_of(key)).cloned().ok_or(TokenError::NotFound)?;
        let known = self.all.read().by_id.get(&id).map(|known| known.info.clone()).ok_or(TokenError::NotFound)?;
        let name = who.to_string();
        if !is_owner_or_renewer(&known, &name) {
            return Err(TokenError::OwnerMismatch(name));
        }
        // What is known here decides whether it may be, what is stored what it becomes.
        decide(known)?;
        let refused = parking_lot::Mutex::new(None);
        let changed = self.change(&id, |stored| match decide(stored.clone()) {
            Ok(changed) => changed,
            Err(error) => {
                *refused.lock() = Some(error);
                Some(stored)
            }
        });
        let changed = changed.await?;
        match refused.into_inner() {
            Some(error) => Err(error),
            None => Ok(changed),
        }
    }

    /// Changes a token in the tree, and here.
    async fn change(
        &self,
        id: &Arc<str>,
        change: impl Fn(TokenInfo) -> Option<TokenInfo>,
    ) -> Result<Option<TokenInfo>, TokenStoreError> {
        let _changing = self.changing.lock().await;
        let changed = self.store.update(id, change).await?;
        match changed.clone() {
            Some(info) => self.put(info),
            None => self.remove(id),
        }
        Ok(changed)
    }

    /// The tokens that please, in the order of their ids.
    pub(crate) fn tokens(&self, pleases: impl Fn(&TokenInfo) -> bool) -> Vec<Token> {
        let mut infos: Vec<TokenInfo> =
            self.all.read().by_id.values().map(|known| known.info.clone()).filter(|info| pleases(info)).collect();
        infos.sort_by(|a, b| a.id.cmp(&b.id));
        infos.into_iter().map(|info| self.with_key(info)).collect()
    }

    /// How the token of this id is proved by SCRAM; `None`: there is no such token.
    pub(super) fn login(&self, id: &str, hash: ScramHash) -> Option<TokenLogin> {
        let (owner, expires_ms, credentials) = {
            let all = self.all.read();
            let known = all.by_id.get(id)?;
            let owner = &known.info.owner;
            let owner = owner.split_once(':').map_or(owner.as_str(), |(_, name)| name).to_owned();
            (owner, known.info.expires_ms, Arc::clone(&known.credentials))
        };
        let cell = match hash {
            ScramHash::Sha256 => &credentials.sha256,
            ScramHash::Sha512 => &credentials.sha512,
        };
        let credential = cell.get_or_init(|| {
            let salt = self.clock.random().to_be_bytes();
            let password = STANDARD.encode(self.key_of(id).bytes());
            ScramCredential::of_password(hash, &salt, &password, ITERATIONS_MIN)
        });
        Some(TokenLogin { owner, credential: credential.clone(), expires_ms })
    }

    fn key_of(&self, id: &str) -> TokenKey {
        TokenKey(hmac::sign(&self.secret, id.as_bytes()).as_ref().to_vec())
    }

    fn with_key(&self, info: TokenInfo) -> Token {
        Token { key: self.key_of(&info.id), info }
    }

    /// For holders of `changing`.
    fn put(&self, info: TokenInfo) {
        let digest = digest_of(self.key_of(&info.id).bytes());
        let mut all = self.all.write();
        all.by_key.insert(digest, Arc::clone(&info.id));
        match all.by_id.get_mut(&info.id) {
            Some(known) => known.info = info,
            None => drop(all.by_id.insert(Arc::clone(&info.id), Known { info, credentials: Arc::default() })),
        }
    }

    /// For holders of `changing`.
    fn remove(&self, id: &str) {
        let digest = digest_of(self.key_of(id).bytes());
        let mut all = self.all.write();
        all.by_key.remove(&digest);
        all.by_id.remove(id);
    }

    async fn follow(self: Arc<Self>, mut feed: TokenFeed) {
        while let Some(stale) = feed.next().await {
            let mut from = (&*self, &stale);
            let read = read_at_last(
                "changed delegation tokens",
                &mut from,
                |(this, _)| this.store.is_closed(),
                |(this, stale)| this.reload(stale).boxed(),
            );
            if read.await.is_none() {
                return;
            }
        }
    }

    /// Reads what has changed.
    async fn reload(&self, stale: &StaleTokens) -> Result<(), TokenStoreError> {
        let _changing = self.changing.lock().await;
        let (ids, whole) = match stale {
            StaleTokens::Everything => (self.store.ids().await?, true),
            StaleTokens::Some(ids) => (ids.iter().cloned().collect(), false),
        };
        let found = self.store.read_each(ids).await?;
        if whole {
            let gone: Vec<Arc<str>> = {
                let listed: std::collections::HashSet<&str> = found.iter().map(|(id, _)| &**id).collect();
                self.all.read().by_id.keys().filter(|id| !listed.contains(&***id)).cloned().collect()
            };
            gone.iter().for_each(|id| self.remove(id));
        }
        for (id, info) in found {
            match info {
                // The key follows from the name of the node.
                Some(info) => self.put(TokenInfo { id, ..info }),
                None => self.remove(&id),
            }
        }
        Ok(())
    }
}

fn digest_of(key: &[u8]) -> [u8; digest::SHA256_OUTPUT_LEN] {
    let mut bytes = [0; digest::SHA256_OUTPUT_LEN];
    bytes.copy_from_slice(digest::digest(&digest::SHA256, key).as_ref());
    bytes
}

/// Whether this principal, written `User:alice`, is shown the token without being granted anything: its owner, who had
/// it made, and its renewers. Source: Kafka 3.9 `TokenInformation.ownerOrRenewer`.
pub(crate) fn is_shown_to(info: &TokenInfo, principal: &str) -> bool {
    info.requester == principal || is_owner_or_renewer(info, principal)
}

/// Whether this principal may change the token.
fn is_owner_or_renewer(info: &TokenInfo, principal: &str) -> bool {
    info.owner == principal || info.renewers.iter().any(|renewer| renewer == principal)
}

fn is_over(info: &TokenInfo, now: UnixMs) -> bool {
    info.max_ms < now || info.expires_ms < now
}

/// The token with a later end. A period that is longer than any life goes to its end; Kafka's sum overflows, and ends
/// the token.
fn renewed(info: &TokenInfo, now: UnixMs, period_ms: i64, usual_ms: i64) -> Result<TokenInfo, TokenError> {
    if is_over(info, now) {
        return Err(TokenError::Expired);
    }
    let period_ms = if period_ms < 0 { usual_ms } else { period_ms };
    Ok(TokenInfo { expires_ms: info.max_ms.min(now.saturating_add(period_ms)), ..info.clone() })
}

/// The token with another end; `None`: it goes at once.
fn expired(info: &TokenInfo, now: UnixMs, period_ms: i64) -> Result<Option<TokenInfo>, TokenError> {
    if period_ms < 0 {
        return Ok(None);
    }
    if is_over(info, now) {
        return Err(TokenError::Expired);
    }
    Ok(Some(TokenInfo { expires_ms: info.max_ms.min(now.saturating_add(period_ms)), ..info.clone() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::testing::ManualClock;
    use crate::config::Secret;
    use crate::coordination::embedded::EmbeddedCoordination;
    use crate::coordination::embedded::testing::TreeDir;

    const HOUR: i64 = 3_600_000;

    struct Room {
        store: Arc<EmbeddedCoordination>,
        clock: Arc<ManualClock>,
    }

    impl Room {
        fn new() -> Self {
            Self { store: TreeDir::new().store(), clock: Arc::new(ManualClock::new(1_000_000, 1)) }
        }

        async fn broker(&self) -> Arc<Tokens> {
            let config = TokenConfig {
                secret: Secret::new("master"),
                expiry_ms: HOUR,
                max_lifetime_ms: 5 * HOUR,
                check_interval_ms: HOUR,
            };
            let store = TokenStore::new(self.store.clone(), self.clock.clone());
            Tokens::start(&config, store, self.clock.clone()).await.unwrap()
        }
    }

    fn user(name: &str) -> Principal {
        Principal::user(name)
    }

    async fn until(what: impl Fn() -> bool) {
        let waited = tokio::time::timeout(Duration::from_secs(60), async {
            while !what() {
                sleep(Duration::from_millis(5)).await;
            }
        });
        waited.await.expect("in time");
    }

    #[tokio::test]
    async fn a_token_is_known_everywhere_and_lives_as_long_as_it_is_renewed() {
        let room = Room::new();
        let (here, there) = (room.broker().await, room.broker().await);
        let made = here.create(&user("a"), &user("a"), vec![user("r")], 0).await.unwrap();
        assert_eq!((made.info.expires_ms, made.info.max_ms), (1_000_000 + HOUR, 1_000_000 + 5 * HOUR));
        assert_eq!((made.info.id.len(), made.key.bytes().len()), (22, 64));
        until(|| there.tokens(|_| true) == [made.clone()]).await;
        let key = made.key.bytes();
        assert_eq!(there.renew(&user("r"), key, 2 * HOUR).await, Ok(1_000_000 + 2 * HOUR));
        until(|| here.tokens(|info| info.expires_ms == 1_000_000 + 2 * HOUR).len() == 1).await;
        assert_eq!(here.renew(&user("a"), key, i64::MAX).await, Ok(1_000_000 + 5 * HOUR));
        let mismatch = here.renew(&user("m"), key, -1).await;
        assert_eq!(mismatch, Err(TokenError::OwnerMismatch("User:m".into())));
        assert_eq!(here.expire(&user("a"), &[1, 2], -1).await, Err(TokenError::NotFound));
        assert_eq!(here.expire(&user("a"), key, 10).await, Ok(1_000_010));
        room.clock.advance(11);
        assert_eq!(here.renew(&user("a"), key, -1).await, Err(TokenError::Expired));
        assert_eq!(here.expire(&user("a"), key, -1).await, Ok(1_000_011));
        until(|| there.tokens(|_| true).is_empty()).await;
        assert_eq!(there.expire(&user("a"), key, -1).await, Err(TokenError::NotFound));
        assert!(there.login(&made.info.id, ScramHash::Sha256).is_none());
    }

    #[tokio::test]
    async fn what_has_expired_is_swept_and_what_was_renewed_elsewhere_is_not() {
        let room = Room::new();
        let here = room.broker().await;
        for lifetime in [1, HOUR] {
            here.create(&user("a"), &user("a"), vec![], lifetime).await.unwrap();
        }
        room.clock.advance(2);
        here.delete_expired().await;
        assert_eq!(here.tokens(|_| true).len(), 1);
        assert_eq!(room.broker().await.tokens(|_| true).len(), 1, "in the tree too");
    }

    #[tokio::test]
    async fn whoever_has_the_key_logs_in_for_the_owner() {
        let room = Room::new();
        let tokens = room.broker().await;
        let made = tokens.create(&user("a:b"), &user("r"), vec![], 0).await.unwrap();
        for hash in [ScramHash::Sha256, ScramHash::Sha512] {
            let login = tokens.login(&made.info.id, hash).expect("a token");
            assert_eq!((login.owner.as_str(), login.expires_ms), ("a:b", made.info.expires_ms));
            let again = tokens.login(&made.info.id, hash).expect("a token");
            assert_eq!(again.credential, login.credential, "made once");
        }
        assert!(!format!("{made:?}{tokens:?}").contains(&STANDARD.encode(made.key.bytes())));
    }

    /// As `javax.crypto.Mac` computes it.
    #[tokio::test]
    async fn a_key_is_the_hmac_of_the_id() {
        let tokens = Room::new().broker().await;
        let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA512, b"master"), b"DhhovPm0TsaBw_0nZK-_9A");
        assert_eq!(tokens.key_of("DhhovPm0TsaBw_0nZK-_9A").bytes(), expected.as_ref());
    }
}
