//! The client's end of an authentication, for where this broker authenticates at others: PLAIN, SCRAM, and OAUTHBEARER
//! with a token that this broker makes anew for each, or one that a provider gave it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::credential::ScramHash;
use super::fetched::{FollowedToken, TokenError};
use super::oauth;
use super::scram::{ScramClient, ScramProof};
use super::web::SharedWeb;
use crate::clock::{SharedClock, UnixMs};
use crate::config::own_tokens::UnsecuredTokens;
use crate::config::sasl::{PasswordLogin, SaslConfig, SaslLogin, SaslMechanism};

/// With what this broker authenticates at others, ready to be shown.
#[derive(Debug)]
pub(crate) enum Login {
    Password(PasswordLogin),
    Unsecured(UnsecuredTokens),
    Fetched(Arc<FollowedToken>),
}

/// By the name of the listener through which brokers speak to each other, or to the controller.
pub(crate) type Logins = BTreeMap<String, Arc<Login>>;

impl Login {
    /// That of each listener that has one.
    ///
    /// # Errors
    /// A token cannot be had.
    pub(crate) async fn start(config: &SaslConfig, web: &SharedWeb, clock: &SharedClock) -> Result<Logins, TokenError> {
        let mut logins = Logins::new();
        for (listener, login) in &config.logins {
            let login = match login.clone() {
                SaslLogin::Password(login) => Self::Password(login),
                SaslLogin::Unsecured(tokens) => Self::Unsecured(tokens),
                SaslLogin::Fetched(source) => {
                    let followed = FollowedToken::follow(*source, Arc::clone(web), Arc::clone(clock));
                    Self::Fetched(followed.await?)
                }
            };
            logins.insert(listener.clone(), Arc::new(login));
        }
        Ok(logins)
    }

    pub(crate) fn mechanism(&self) -> SaslMechanism {
        match self {
            Self::Password(login) => login.mechanism,
            Self::Unsecured(_) | Self::Fetched(_) => SaslMechanism::OauthBearer,
        }
    }
}

/// An authentication under way: tokens out, challenges in.
#[derive(Debug)]
pub(crate) struct LoginExchange {
    login: Arc<Login>,
    state: State,
}

#[derive(Debug)]
enum State {
    Begun(ScramClient),
    Proved(ScramProof),
    /// The next answer says nothing more than that it worked.
    Told,
    /// The next answer is empty, or says what is wrong with the token.
    Shown,
    /// The other end has been told that this one has heard.
    Disbelieved,
    Over,
}

/// The answer of the other end makes no sense, or does not prove that it knows the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Distrusted(&'static str);

impl LoginExchange {
    /// With the first token. `nonce` is 128 random bits; `now_ms` by the wall clock, since tokens name times.
    pub(crate) fn begin(login: &Arc<Login>, nonce: u128, now_ms: UnixMs) -> (Self, Vec<u8>) {
        let (state, token) = match &**login {
            Login::Password(PasswordLogin { mechanism, username, password }) => match ScramHash::of(*mechanism) {
                Some(hash) => {
                    let client = ScramClient::new(hash, username, format!("{nonce:032x}"));
                    let token = client.first();
                    (State::Begun(client), token)
                }
                None => (State::Told, format!("\0{username}\0{}", password.reveal()).into_bytes()),
            },
            Login::Unsecured(tokens) => (State::Shown, oauth::own::first_unsigned(tokens, now_ms)),
            Login::Fetched(followed) => (State::Shown, followed.first()),
        };
        (Self { login: Arc::clone(login), state }, token)
    }

    /// Takes the other end's answer; the next token, or `None` when nothing more is to be said. SCRAM takes its time:
    /// call it where one may block.
    ///
    /// # Errors
    /// See [`Distrusted`].
    pub(crate) fn answer(&mut self, challenge: &[u8]) -> Result<Option<Vec<u8>>, Distrusted> {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Begun(client) => {
                let Login::Password(PasswordLogin { password, .. }) = &*self.login else {
                    return Err(Distrusted("it asks for a password that there is not; this is a bug"));
                };
                let proof = client.prove(challenge, password.reveal()).map_err(Distrusted)?;
                let message = proof.message.clone();
                self.state = State::Proved(proof);
                Ok(Some(message))
            }
            State::Proved(proof) if proof.is_proved_by(challenge) => Ok(None),
            State::Proved(_) => Err(Distrusted("it does not prove that it knows the password")),
            State::Told => Ok(None),
            State::Shown if challenge.is_empty() => Ok(None),
            State::Shown => {
                self.state = State::Disbelieved;
                Ok(Some(vec![1]))
            }
            State::Disbelieved => Err(Distrusted("it does not believe the token, and lets this broker in")),
            State::Over => Err(Distrusted("it answers after the end of the authentication")),
        }
    }
}
