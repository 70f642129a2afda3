//! Whom the mechanisms ask: the credentials of users, delegation tokens, the keys that sign tokens, the time and
//! chance.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tracing::{error, info, warn};

use super::credential::{ScramCredential, ScramHash};
use super::oauth::jwks::{Jwks, JwksError};
use crate::clock::{SharedClock, UnixMs};
use crate::cluster::dynamic_config::DynamicConfig;
use crate::config::sasl::{MechanismKeys, OauthTrust, SaslConfig, SaslMechanism};
use crate::security::tokens::{TokenLogin, Tokens};
use crate::task;

/// Where the settings of users are.
pub(crate) trait Users: Debug + Send + Sync {
    /// A setting of the user of this name.
    fn setting(&self, user: &str, name: &str) -> Option<String>;
}

impl Users for DynamicConfig {
    fn setting(&self, user: &str, name: &str) -> Option<String> {
        self.user(user)?.get(name).cloned()
    }
}

/// One for a broker.
#[derive(Debug)]
pub(crate) struct Authority {
    users: Arc<dyn Users>,
    clock: SharedClock,
    /// `None`: there are no delegation tokens.
    tokens: Option<Arc<Tokens>>,
    /// By the file's path.
    keys: RwLock<BTreeMap<PathBuf, Arc<Jwks>>>,
    /// Credentials that cannot be read and were told: each once, since whoever names the user asks for it again.
    illegible: Mutex<BTreeSet<(String, SaslMechanism)>>,
}

impl Authority {
    /// Reads the files of keys. Blocks.
    ///
    /// # Errors
    /// One of them cannot be used.
    pub(crate) fn new(
        users: Arc<dyn Users>,
        clock: SharedClock,
        config: &SaslConfig,
        tokens: Option<Arc<Tokens>>,
    ) -> Result<Arc<Self>, JwksError> {
        let mut keys = BTreeMap::new();
        for (path, _) in files(config) {
            keys.insert(path.to_owned(), Arc::new(Jwks::read(path)?));
        }
        Ok(Arc::new(Self { users, clock, tokens, keys: RwLock::new(keys), illegible: Mutex::default() }))
    }

    /// Reads each file of keys again at the interval that is set, for as long as the broker runs. One that cannot be
    /// used is told, and leaves the keys as they were.
    pub(crate) fn follow_keys(self: &Arc<Self>, config: &SaslConfig) {
        for (path, refresh_ms) in files(config) {
            let (authority, path) = (Arc::downgrade(self), path.to_owned());
            let pause = Duration::from_millis(u64::try_from(refresh_ms).unwrap_or(0)).max(REFRESH_MIN);
            task::spawn_owner("token keys", async move {
                loop {
                    tokio::time::sleep(pause).await;
                    let file = path.clone();
                    let read = task::blocking(move || Jwks::read(&file)).await;
                    let Some(authority) = authority.upgrade() else { return };
                    match read {
                        Ok(keys) => authority.put_keys(&path, keys),
                        Err(error) => error!(%error, "the keys of tokens stay as they were"),
                    }
                }
            });
        }
    }

    fn put_keys(&self, path: &Path, keys: Jwks) {
        let mut known = self.keys.write();
        if known.get(path).is_none_or(|old| **old != keys) {
            info!(path = %path.display(), "the keys of tokens were read again and are others now");
            known.insert(path.to_owned(), Arc::new(keys));
        }
    }

    /// What is stored of the user's password for this mechanism, if it is legible.
    pub(super) fn credential(&self, user: &str, mechanism: SaslMechanism) -> Option<ScramCredential> {
        let text = self.users.setting(user, mechanism.name())?;
        match ScramCredential::parse(&text) {
            Ok(credential) => Some(credential),
            Err(error) => {
                if self.illegible.lock().insert((user.to_owned(), mechanism)) {
                    warn!(user, mechanism = mechanism.name(), %error, "a stored credential cannot be read");
                }
                None
            }
        }
    }

    /// What proves that a client has the delegation token of this id.
    pub(super) fn token(&self, id: &str, hash: ScramHash) -> Option<TokenLogin> {
        self.tokens.as_ref()?.login(id, hash)
    }

    pub(super) fn keys(&self, path: &Path) -> Option<Arc<Jwks>> {
        self.keys.read().get(path).cloned()
    }

    /// The wall clock, since tokens name its times.
    pub(crate) fn now_ms(&self) -> UnixMs {
        self.clock.now_ms()
    }

    /// The server's part of a nonce.
    pub(super) fn nonce(&self) -> String {
        format!("{:032x}", self.clock.random())
    }
}

/// However small the interval that is set.
const REFRESH_MIN: Duration = Duration::from_secs(1);

/// Every file of keys with its interval in milliseconds, perhaps twice.
fn files(config: &SaslConfig) -> impl Iterator<Item = (&Path, i64)> {
    let mechanisms = config.listeners.values().flat_map(|listener| &listener.mechanisms);
    mechanisms.filter_map(|settings| match &settings.keys {
        MechanismKeys::OauthBearer(settings) => match &settings.trust {
            OauthTrust::Jwks { path, refresh_ms, .. } => Some((path.as_path(), *refresh_ms)),
            OauthTrust::Unsecured { .. } => None,
        },
        MechanismKeys::Plain(_) | MechanismKeys::Scram => None,
    })
}
