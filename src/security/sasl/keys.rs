//! The keys that sign tokens, wherever they are, as they were had last; nobody who shows a token waits for them.
//!
//! They are had once before anything is served, or the start ends. Then a task has them anew at the interval that is
//! set, and sooner where a token names a key at a URL that is not among them: once a minute for each name, and once a
//! second for all, since strangers choose those names. What cannot be had changes nothing; a set without a key
//! withdraws those that were known. Source: Kafka 3.9 `RefreshingHttpsJwks`, its
//! `RefreshingHttpsJwksVerificationKeyResolver`; the second is our own, and that a file is read again.
//!
//! The task ends with the [`FollowedKeys`].

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};
use tracing::{debug, error, info};

use super::oauth::jwks::{Jwks, JwksError};
use super::retry::retried;
use super::web::{PATIENCE, Question, SharedWeb, trust};
use crate::config::oauth::{KeySource, OauthTrust, Place, RetryMs};
use crate::config::sasl::{MechanismKeys, SaslConfig};
use crate::security::tls::web::TowardsWeb;
use crate::task;

/// The keys of one source.
#[derive(Debug)]
pub(crate) struct FollowedKeys {
    source: KeySource,
    web: SharedWeb,
    /// What is presented to the server that has them, and trusted.
    tls: Option<Arc<TowardsWeb>>,
    now: RwLock<Arc<Jwks>>,
    /// To the task: they are wanted at once.
    wanted: mpsc::Sender<()>,
    missing: Mutex<Missing>,
}

impl FollowedKeys {
    /// Those of every source that is set.
    ///
    /// # Errors
    /// The keys of one of them cannot be had.
    pub(crate) async fn start(config: &SaslConfig, web: &SharedWeb) -> Result<Vec<Arc<Self>>, JwksError> {
        let mut all: Vec<Arc<Self>> = Vec::new();
        for source in sources(config) {
            if !all.iter().any(|keys| keys.source == *source) {
                all.push(Self::follow(source.clone(), web).await?);
            }
        }
        Ok(all)
    }

    async fn follow(source: KeySource, web: &SharedWeb) -> Result<Arc<Self>, JwksError> {
        let untrusting = |why| JwksError::Untrusting { at: source.at.to_string(), why };
        let tls = trust(&source.at).await.map_err(untrusting)?;
        let first = || async {
            let keys = had(&source.at, tls.clone(), web).await?;
            let none = || JwksError::Malformed { at: source.at.to_string(), reason: NONE.into() };
            if keys.is_empty() { Err(none()) } else { Ok(keys) }
        };
        let had = retried(AT_START, |_| true, first).await?;
        let (wanted, hears) = mpsc::channel(1);
        let refresh = Duration::from_millis(u64::try_from(source.refresh_ms).unwrap_or(0)).max(APART);
        let keys = Arc::new(Self {
            source,
            web: Arc::clone(web),
            tls,
            now: RwLock::new(Arc::new(had)),
            wanted,
            missing: Mutex::default(),
        });
        task::spawn_owner("token keys", follow(Arc::downgrade(&keys), hears, refresh));
        Ok(keys)
    }

    pub(super) fn is_of(&self, source: &KeySource) -> bool {
        self.source == *source
    }

    /// As they were had last.
    pub(super) fn now(&self) -> Arc<Jwks> {
        Arc::clone(&self.now.read())
    }

    /// A token names a key that is not among them.
    pub(super) fn on_missing(&self, id: &str) {
        if matches!(self.source.at, Place::File(_)) || id.len() > ID_BYTES_MAX {
            return;
        }
        if self.missing.lock().wants(id, Instant::now()) {
            debug!(id, "a token names a key that is not known; keys are had anew");
            // Where they are wanted already, they are.
            self.wanted.try_send(()).ok();
        }
    }

    async fn refresh(&self) {
        let attempt = || had(&self.source.at, self.tls.clone(), &self.web);
        match retried(self.source.retry, |_| true, attempt).await {
            Ok(keys) => self.put(keys),
            Err(error) => error!(%error, "the keys of tokens stay as they were"),
        }
    }

    fn put(&self, keys: Jwks) {
        self.missing.lock().forget(|id| keys.has(id));
        let mut now = self.now.write();
        if **now == keys {
            return;
        }
        match keys.is_empty() {
            true => error!(at = %self.source.at, "no token is believed any more: {NONE}"),
            false => info!(at = %self.source.at, "the keys of tokens were read again and are others now"),
        }
        *now = Arc::new(keys);
    }
}

/// See [`FollowedKeys`].
async fn follow(keys: Weak<FollowedKeys>, mut wanted: mpsc::Receiver<()>, refresh: Duration) {
    loop {
        tokio::select! {
            () = sleep(refresh) => {}
            asked = wanted.recv() => if asked.is_none() { return },
        }
        let Some(keys) = keys.upgrade() else { return };
        keys.refresh().await;
        drop(keys);
        sleep(APART).await;
    }
}

/// Why a set is of no use.
const NONE: &str = "it has no RSA or EC key that signs";
/// As often as jose4j asks, at most.
const AT_START: RetryMs = RetryMs { first: 180, all: 1260 };
/// Between two looks, whatever is set and whoever asks.
const APART: Duration = Duration::from_secs(1);
/// Longer names of keys are not asked for.
const ID_BYTES_MAX: usize = 1000;

/// Names of keys that were asked for, the last one at the end.
#[derive(Debug, Default)]
struct Missing(VecDeque<(String, Instant)>);

impl Missing {
    const COUNT_MAX: usize = 16;
    const PAUSE: Duration = Duration::from_secs(60);

    /// Whether this one is to be asked for now.
    fn wants(&mut self, id: &str, now: Instant) -> bool {
        let known = self.0.iter().position(|(known, _)| known == id).and_then(|at| self.0.remove(at));
        let (id, until) = known.unwrap_or_else(|| (id.to_owned(), now));
        let is_time = until <= now;
        if self.0.len() == Self::COUNT_MAX {
            self.0.pop_front();
        }
        self.0.push_back((id, if is_time { now + Self::PAUSE } else { until }));
        is_time
    }

    fn forget(&mut self, is_known: impl Fn(&str) -> bool) {
        self.0.retain(|(id, _)| !is_known(id));
    }
}

async fn had(at: &Place, tls: Option<Arc<TowardsWeb>>, web: &SharedWeb) -> Result<Jwks, JwksError> {
    match at {
        Place::File(path) => {
            let path = path.clone();
            task::blocking(move || Jwks::read(&path)).await
        }
        Place::Web { url, .. } => {
            let question = Question { url: url.clone(), tls, form: None, patience: (PATIENCE, PATIENCE) };
            let shown = || url.to_string();
            let answer = web.ask(question).await.map_err(|error| JwksError::Unfetched { url: shown(), error })?;
            Jwks::of_bytes(&answer).map_err(|reason| JwksError::Malformed { at: shown(), reason })
        }
    }
}

/// Every source of keys, perhaps twice.
fn sources(config: &SaslConfig) -> impl Iterator<Item = &KeySource> {
    let mechanisms = config.listeners.values().flat_map(|listener| &listener.mechanisms);
    mechanisms.filter_map(|settings| match &settings.keys {
        MechanismKeys::OauthBearer(settings) => match &settings.trust {
            OauthTrust::Jwks { keys, .. } => Some(&**keys),
            OauthTrust::Unsecured { .. } => None,
        },
        MechanismKeys::Plain(_) | MechanismKeys::Scram => None,
    })
}

#[cfg(test)]
#[path = "keys_tests.rs"]
mod tests;
