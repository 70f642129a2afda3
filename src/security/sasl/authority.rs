//! Whom the mechanisms ask: the credentials of users, delegation tokens, the keys that sign tokens, the time and
//! chance.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::warn;

use super::credential::{ScramCredential, ScramHash};
use super::keys::FollowedKeys;
use crate::clock::{SharedClock, UnixMs};
use crate::cluster::dynamic_config::DynamicConfig;
use crate::config::oauth::KeySource;
use crate::config::sasl::SaslMechanism;
use crate::security::tokens::{TokenLogin, Tokens};

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
    /// One for each source.
    keys: Vec<Arc<FollowedKeys>>,
    /// Credentials that cannot be read and were told: each once, since whoever names the user asks for it again.
    illegible: Mutex<BTreeSet<(String, SaslMechanism)>>,
}

impl Authority {
    pub(crate) fn new(
        users: Arc<dyn Users>,
        clock: SharedClock,
        tokens: Option<Arc<Tokens>>,
        keys: Vec<Arc<FollowedKeys>>,
    ) -> Arc<Self> {
        Arc::new(Self { users, clock, tokens, keys, illegible: Mutex::default() })
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

    /// The keys of this source.
    pub(super) fn keys(&self, source: &KeySource) -> Option<&FollowedKeys> {
        self.keys.iter().find(|keys| keys.is_of(source)).map(Arc::as_ref)
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
