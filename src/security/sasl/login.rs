//! The client's end of an authentication, for where this broker authenticates at others: PLAIN, SCRAM, and OAUTHBEARER
//! with a token that this broker makes anew for each.

use std::sync::Arc;

use super::credential::ScramHash;
use super::oauth;
use super::scram::{ScramClient, ScramProof};
use crate::clock::UnixMs;
use crate::config::sasl::SaslLogin;

/// An authentication under way: tokens out, challenges in.
#[derive(Debug)]
pub(crate) struct LoginExchange {
    login: Arc<SaslLogin>,
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
    pub(crate) fn begin(login: &Arc<SaslLogin>, nonce: u128, now_ms: UnixMs) -> (Self, Vec<u8>) {
        let (state, token) = match &**login {
            SaslLogin::Password { mechanism, username, password } => match ScramHash::of(*mechanism) {
                Some(hash) => {
                    let client = ScramClient::new(hash, username, format!("{nonce:032x}"));
                    let token = client.first();
                    (State::Begun(client), token)
                }
                None => (State::Told, format!("\0{username}\0{}", password.reveal()).into_bytes()),
            },
            SaslLogin::Unsecured(tokens) => (State::Shown, oauth::first(tokens, now_ms)),
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
                let SaslLogin::Password { password, .. } = &*self.login else {
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
