//! One authentication at a listener: the client's tokens in, the server's out, at last the client's name.
//!
//! Source: Kafka 3.9 `SaslServerAuthenticator`, for what a client is told.

use std::sync::Arc;

use super::authority::Authority;
use super::oauth::OauthServer;
use super::outcome::{Next, Refused};
use super::plain;
use super::scram::ScramServer;
use crate::config::sasl::{ListenerSasl, MechanismKeys, MechanismSettings, SaslMechanism};

/// An authentication under way.
#[derive(Debug)]
pub(crate) struct Exchange {
    /// Those of the listener when it began.
    listener: Arc<ListenerSasl>,
    mechanism: SaslMechanism,
    state: State,
}

#[derive(Debug)]
enum State {
    Plain,
    Scram(ScramServer),
    Oauth(OauthServer),
}

impl Exchange {
    /// With the mechanism of this name; `None`: the listener does not offer it.
    pub(crate) fn begin(listener: &Arc<ListenerSasl>, mechanism: &str) -> Option<Self> {
        let settings = listener.mechanism(mechanism)?;
        let state = match settings.mechanism {
            SaslMechanism::Plain => State::Plain,
            SaslMechanism::ScramSha256 | SaslMechanism::ScramSha512 => {
                State::Scram(ScramServer::new(settings.mechanism))
            }
            SaslMechanism::OauthBearer => State::Oauth(OauthServer::default()),
        };
        Some(Self { listener: Arc::clone(listener), mechanism: settings.mechanism, state })
    }

    pub(crate) fn mechanism(&self) -> SaslMechanism {
        self.mechanism
    }

    /// `connections.max.reauth.ms` of the mechanism.
    pub(crate) fn reauth_ms_max(&self) -> Option<i64> {
        self.settings().reauth_ms_max
    }

    fn settings(&self) -> &MechanismSettings {
        let settings = self.listener.mechanism(self.mechanism.name());
        settings.expect("the listener offered it when the exchange began, and these are the settings of then")
    }

    /// Takes the client's next token.
    ///
    /// # Errors
    /// The client has not proved who it is; nothing may follow.
    pub(crate) fn evaluate(&mut self, token: &[u8], authority: &Authority) -> Result<Next, Refused> {
        let settings = self.listener.mechanism(self.mechanism.name());
        match (&mut self.state, settings.map(|settings| &settings.keys)) {
            (State::Plain, Some(MechanismKeys::Plain(users))) => plain::evaluate(token, users).map(Next::Done),
            (State::Scram(server), Some(MechanismKeys::Scram)) => server.evaluate(token, authority),
            (State::Oauth(server), Some(MechanismKeys::OauthBearer(settings))) => {
                server.evaluate(token, settings, authority)
            }
            _ => Err(Refused::Hidden("the mechanism has other keys than its own; this is a bug")),
        }
    }
}
