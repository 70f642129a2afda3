//! The client's end of an authentication, for where this broker authenticates at others: PLAIN and SCRAM.

use std::sync::Arc;

use super::credential::ScramHash;
use super::scram::{ScramClient, ScramProof};
use crate::config::sasl::{SaslLogin, SaslMechanism};

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
    Over,
}

/// The answer of the other end makes no sense, or does not prove that it knows the password.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Distrusted(&'static str);

impl LoginExchange {
    /// With the first token. `nonce` is 128 random bits.
    pub(crate) fn begin(login: &Arc<SaslLogin>, nonce: u128) -> (Self, Vec<u8>) {
        let (state, token) = match ScramHash::of(login.mechanism) {
            Some(hash) => {
                let client = ScramClient::new(hash, &login.username, format!("{nonce:032x}"));
                let token = client.first();
                (State::Begun(client), token)
            }
            None => {
                debug_assert_eq!(login.mechanism, SaslMechanism::Plain);
                let token = format!("\0{}\0{}", login.username, login.password.reveal()).into_bytes();
                (State::Told, token)
            }
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
                let proof = client.prove(challenge, self.login.password.reveal()).map_err(Distrusted)?;
                let message = proof.message.clone();
                self.state = State::Proved(proof);
                Ok(Some(message))
            }
            State::Proved(proof) if proof.is_proved_by(challenge) => Ok(None),
            State::Proved(_) => Err(Distrusted("it does not prove that it knows the password")),
            State::Told => Ok(None),
            State::Over => Err(Distrusted("it answers after the end of the authentication")),
        }
    }
}
