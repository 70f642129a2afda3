//! A connection on a listener that asks for SASL: which of its frames belong to an authentication, and their answers.
//!
//! Behaviour
//! - Before it is authenticated: ApiVersions until it has worked once, then SaslHandshake (17), then tokens: in
//!   SaslAuthenticate (36), or after a handshake of version 0 alone in a frame. Anything else ends the connection.
//! - A mechanism that the listener does not offer: UNSUPPORTED_SASL_MECHANISM (33) with those it does. A client that
//!   does not prove who it is: SASL_AUTHENTICATION_FAILED (58), with no more than Kafka tells. Another request than
//!   SaslAuthenticate where a token is due: ILLEGAL_SASL_STATE (34) to the two that are answered at all. All three
//!   leave after `connection.failed.authentication.delay.ms`, and the connection ends.
//! - Where sessions end, SaslHandshake begins the same anew (KIP-368), a second after the last time at the earliest:
//!   with the same mechanism, for the same principal. Requests that are under way keep their order. A session that is
//!   over ends the connection at its next request.
//! - A frame of an authentication is at most `sasl.server.max.receive.size` long.
//!
//! Versions: SaslHandshake 0–1, SaslAuthenticate 0–2, see their files. Ignored: nothing.
//! Source: Kafka 3.9 `SaslServerAuthenticator`, `KafkaChannel.maybeBeginServerReauthentication`, `Processor`.
//!
//! Who owns it: its connection's task. It decides at once and waits for nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::{
    ApiVersionsResponse, SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
use tokio::time::Instant;
use tracing::debug;

use crate::api::cluster::api_versions;
use crate::api::dispatch;
use crate::api::handler::{CloseReason, Handler};
use crate::api::security::sasl_authenticate::SaslAuthenticate;
use crate::api::security::sasl_handshake::SaslHandshake;
use crate::config::sasl::{ListenerSasl, SaslMechanism};
use crate::metrics::ListenerMetrics;
use crate::security::principal::Principal;
use crate::security::sasl::authority::Authority;
use crate::security::sasl::exchange::Exchange;
use crate::security::sasl::outcome::{Authenticated, Next, Refused};
use crate::wire::codec;
use crate::wire::header::RequestHeader;

const SASL_HANDSHAKE: i16 = 17;
const SASL_AUTHENTICATE: i16 = 36;
/// The handshake from which on tokens have headers.
const VERSION_HEADERS: i16 = 1;

/// A connection that authenticates again does so no sooner than this after it last began. Source: Kafka
/// `KafkaChannel.MIN_REAUTH_INTERVAL_ONE_SECOND_NANOS`.
const REAUTH_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// What all connections of one listener share.
#[derive(Debug)]
pub(crate) struct SaslGate {
    pub(crate) settings: Arc<ListenerSasl>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) counts: Arc<ListenerMetrics>,
    /// `sasl.server.max.receive.size`.
    pub(crate) frame_bytes_max: usize,
    /// `connection.failed.authentication.delay.ms`.
    pub(crate) failure_delay: Duration,
}

/// What becomes of a frame.
pub(crate) enum Taken {
    /// It is a request like any other.
    Request(BytesMut),
    /// It was a part of the authentication.
    Answered(Answered),
}

/// What is said to a part of the authentication, and what follows.
pub(crate) struct Answered {
    pub(crate) reply: Option<SaslReply>,
    /// For whom the requests that follow are made.
    pub(crate) principal: Option<Arc<Principal>>,
    /// The connection ends after the reply.
    pub(crate) end: Option<CloseReason>,
    /// The reply waits for so long.
    pub(crate) delay: Duration,
}

/// A reply.
pub(crate) enum SaslReply {
    Response {
        correlation_id: i32,
        flexible_header: bool,
        body: Bytes,
    },
    /// A frame that holds the token alone.
    Token(Bytes),
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Authentication {
    gate: Arc<SaslGate>,
    state: State,
    /// Since it was first authenticated.
    session: Option<Session>,
}

#[derive(Debug)]
enum State {
    /// ApiVersions or a handshake is due.
    Begun,
    Handshake,
    /// A token is due; `raw`: without a header.
    Tokens {
        exchange: Exchange,
        raw: bool,
    },
    /// The handshake of another authentication named another mechanism.
    WrongMechanism(String),
    Authenticated,
    Over,
}

#[derive(Debug)]
struct Session {
    principal: Arc<Principal>,
    mechanism: SaslMechanism,
    ends_at: Option<Instant>,
    /// When the last authentication after the first began.
    renewal_begun_at: Option<Instant>,
}

impl Authentication {
    pub(crate) fn new(gate: &Arc<SaslGate>) -> Self {
        Self { gate: Arc::clone(gate), state: State::Begun, session: None }
    }

    /// Whether the client has proved who it is, once at least.
    pub(crate) fn is_done(&self) -> bool {
        self.session.is_some()
    }

    /// Takes the next frame.
    pub(crate) fn take(&mut self, frame: BytesMut, now: Instant) -> Taken {
        if matches!(self.state, State::Authenticated) && !self.begins_anew(&frame, now) {
            let over = self.session.as_ref().and_then(|session| session.ends_at).is_some_and(|ends_at| ends_at < now);
            if !over {
                return Taken::Request(frame);
            }
            self.gate.counts.sessions_expired.add(1);
            return Taken::Answered(self.ends(CloseReason::SessionExpired));
        }
        if frame.len() > self.gate.frame_bytes_max {
            let reason = format!("{} bytes are more than sasl.server.max.receive.size", frame.len());
            return Taken::Answered(self.fails(None, reason));
        }
        match std::mem::replace(&mut self.state, State::Over) {
            State::Tokens { exchange, raw: true } => Taken::Answered(self.on_raw_token(exchange, &frame, now)),
            State::Tokens { exchange, raw: false } => Taken::Answered(self.on_token(exchange, frame, now)),
            State::WrongMechanism(reason) => Taken::Answered(self.fails(None, reason)),
            State::Over => Taken::Answered(self.ends(malformed("a frame after the end of the authentication".into()))),
            before => self.on_request(before, frame),
        }
    }

    /// A handshake of a connection that is authenticated; where none is due its handler says so.
    fn begins_anew(&mut self, frame: &BytesMut, now: Instant) -> bool {
        let Some(session) = &mut self.session else { return false };
        if session.ends_at.is_none() || frame.first_chunk() != Some(&SASL_HANDSHAKE.to_be_bytes()) {
            return false;
        }
        let too_soon = |begun: Instant| now.saturating_duration_since(begun) < REAUTH_INTERVAL_MIN;
        if session.renewal_begun_at.is_some_and(too_soon) {
            return false;
        }
        session.renewal_begun_at = Some(now);
        self.state = State::Handshake;
        true
    }

    /// Before a mechanism is agreed upon.
    fn on_request(&mut self, before: State, frame: BytesMut) -> Taken {
        let mut rest = frame.clone();
        let header = match RequestHeader::take(&mut rest, dispatch::is_flexible) {
            Ok(header) => header,
            Err(error) => return Taken::Answered(self.ends(malformed(error.to_string()))),
        };
        match (header.key, before) {
            (api_versions::KEY, State::Begun) => {
                let answered = api_versions::ApiVersions::VERSIONS.contains(&header.version);
                // A client of the future learns our versions, and asks again.
                self.state = if answered { State::Handshake } else { State::Begun };
                Taken::Request(frame)
            }
            (SASL_HANDSHAKE, _) if SaslHandshake::VERSIONS.contains(&header.version) => {
                Taken::Answered(match decode::<SaslHandshakeRequest>(rest, header.version) {
                    Ok(request) => self.on_handshake(&header, &request.mechanism),
                    Err(reason) => self.ends(reason),
                })
            }
            (key, _) => {
                let reason = format!("API key {key} version {} before authentication", header.version);
                Taken::Answered(self.ends(malformed(reason)))
            }
        }
    }

    fn on_handshake(&mut self, header: &RequestHeader, mechanism: &str) -> Answered {
        let offered = self.gate.settings.mechanisms.iter();
        let offered = offered.map(|settings| StrBytes::from_static_str(settings.mechanism.name())).collect();
        let response = SaslHandshakeResponse::default().with_mechanisms(offered);
        let Some(exchange) = Exchange::begin(&self.gate.settings, mechanism) else {
            let response = response.with_error_code(ResponseError::UnsupportedSaslMechanism.code());
            return self.fails(Some(reply(header, &response)), format!("Unsupported SASL mechanism {mechanism}"));
        };
        self.state = match self.session.as_ref().map(|session| session.mechanism) {
            Some(first) if first != exchange.mechanism() => State::WrongMechanism(format!(
                "SASL mechanism '{mechanism}' requested by client is not supported for re-authentication of mechanism \
                 '{}'",
                first.name()
            )),
            _ => State::Tokens { exchange, raw: header.version < VERSION_HEADERS },
        };
        says(reply(header, &response))
    }

    /// A token in SaslAuthenticate.
    fn on_token(&mut self, mut exchange: Exchange, mut frame: BytesMut, now: Instant) -> Answered {
        let header = match RequestHeader::take(&mut frame, dispatch::is_flexible) {
            Ok(header) => header,
            Err(error) => return self.ends(malformed(error.to_string())),
        };
        if header.key != SASL_AUTHENTICATE {
            return self.out_of_order(&header);
        }
        if !SaslAuthenticate::VERSIONS.contains(&header.version) {
            return self.ends(malformed(format!("SaslAuthenticate has no version {}", header.version)));
        }
        let request = match decode::<SaslAuthenticateRequest>(frame, header.version) {
            Ok(request) => request,
            Err(reason) => return self.ends(reason),
        };
        let outcome = exchange.evaluate(&request.auth_bytes, &self.gate.authority);
        let response = SaslAuthenticateResponse::default();
        match outcome.and_then(|next| self.unchanged(next)) {
            Ok(Next::Challenge(token)) => {
                self.state = State::Tokens { exchange, raw: false };
                says(reply(&header, &response.with_auth_bytes(token.into())))
            }
            Ok(Next::Done(mut authenticated)) => {
                let token = std::mem::take(&mut authenticated.token);
                let (principal, lifetime_ms) = self.succeeds(&exchange, authenticated, now);
                let response = response.with_auth_bytes(token.into()).with_session_lifetime_ms(lifetime_ms);
                Answered { principal: Some(principal), ..says(reply(&header, &response)) }
            }
            Err(refused) => {
                let told = self.told(&exchange, refused);
                let code = ResponseError::SaslAuthenticationFailed.code();
                let message = Some(StrBytes::from_string(told.clone()));
                let response = response.with_error_code(code).with_error_message(message);
                self.fails(Some(reply(&header, &response)), told)
            }
        }
    }

    /// A token without a header.
    fn on_raw_token(&mut self, mut exchange: Exchange, token: &[u8], now: Instant) -> Answered {
        let outcome = exchange.evaluate(token, &self.gate.authority);
        match outcome.and_then(|next| self.unchanged(next)) {
            Ok(Next::Challenge(token)) => {
                self.state = State::Tokens { exchange, raw: true };
                says(Ok(SaslReply::Token(token.into())))
            }
            Ok(Next::Done(mut authenticated)) => {
                let token = std::mem::take(&mut authenticated.token);
                let (principal, _) = self.succeeds(&exchange, authenticated, now);
                Answered { principal: Some(principal), ..says(Ok(SaslReply::Token(token.into()))) }
            }
            Err(refused) => {
                let told = self.told(&exchange, refused);
                self.fails(None, told)
            }
        }
    }

    /// Another request than SaslAuthenticate, where a token is due.
    fn out_of_order(&mut self, header: &RequestHeader) -> Answered {
        let code = ResponseError::IllegalSaslState.code();
        let reply = match header.key {
            SASL_HANDSHAKE if SaslHandshake::VERSIONS.contains(&header.version) => {
                Some(reply(header, &SaslHandshakeResponse::default().with_error_code(code)))
            }
            api_versions::KEY if api_versions::ApiVersions::VERSIONS.contains(&header.version) => {
                Some(reply(header, &ApiVersionsResponse::default().with_error_code(code)))
            }
            _ => None,
        };
        let reason = format!("Unexpected Kafka request of type {} during SASL authentication.", header.key);
        self.fails(reply, reason)
    }

    /// A session stays its principal's.
    fn unchanged(&self, next: Next) -> Result<Next, Refused> {
        let (Some(session), Next::Done(Authenticated { user, .. })) = (&self.session, &next) else { return Ok(next) };
        let now = Principal::user(user.as_str());
        if now == *session.principal {
            return Ok(next);
        }
        let before = &session.principal;
        Err(Refused::Told(format!(
            "Cannot change principals during re-authentication from {}.{}: {}.{}",
            before.kind, before.name, now.kind, now.name
        )))
    }

    /// The client is who it says: its principal, and how long its session lasts, 0 for ever.
    fn succeeds(&mut self, exchange: &Exchange, authenticated: Authenticated, now: Instant) -> (Arc<Principal>, i64) {
        let left = authenticated.expires_at_ms.map(|at| at.saturating_sub(self.gate.authority.now_ms()));
        let lifetime_ms = left.into_iter().chain(exchange.reauth_ms_max()).min().map(|ms| ms.max(0));
        // Longer than any process runs, and short enough for the timer.
        let lifetime = |ms: i64| Duration::from_millis(u64::try_from(ms).unwrap_or(0)).min(LIFETIME_MAX);
        let ends_at = lifetime_ms.map(|ms| now + lifetime(ms));
        let counts = &self.gate.counts;
        let principal = Principal { by_token: authenticated.by_token, ..Principal::user(authenticated.user) };
        let principal = Arc::new(principal);
        match &mut self.session {
            Some(session) => {
                counts.reauthentications.add(1);
                // The same, but perhaps by a token instead of a password.
                session.principal = principal;
                session.ends_at = ends_at;
            }
            none => {
                counts.authentications.add(1);
                let mechanism = exchange.mechanism();
                *none = Some(Session { principal, mechanism, ends_at, renewal_begun_at: None });
            }
        }
        self.state = State::Authenticated;
        let principal = self.session.as_ref().map(|session| Arc::clone(&session.principal));
        (principal.expect("set a few lines above"), lifetime_ms.unwrap_or(0))
    }

    /// What the client may know of it.
    fn told(&self, exchange: &Exchange, refused: Refused) -> String {
        match refused {
            Refused::Told(text) => text,
            Refused::Hidden(reason) => {
                let mechanism = exchange.mechanism().name();
                debug!(mechanism, reason, "an authentication failed");
                let what = if self.is_done() { "re-authentication" } else { "authentication" };
                let why = format!("due to invalid credentials with SASL mechanism {mechanism}");
                format!("Authentication failed during {what} {why}")
            }
        }
    }

    /// The client is not who it says, or does not say it in order.
    fn fails(&mut self, reply: Option<EncodedReply>, reason: String) -> Answered {
        self.state = State::Over;
        let counts = &self.gate.counts;
        if self.is_done() { &counts.reauthentications_failed } else { &counts.authentications_failed }.add(1);
        let delay = self.gate.failure_delay;
        match reply.transpose() {
            Ok(reply) => Answered { reply, principal: None, end: Some(CloseReason::Unauthenticated(reason)), delay },
            Err(reason) => self.ends(reason),
        }
    }

    /// Nothing is said any more.
    fn ends(&mut self, reason: CloseReason) -> Answered {
        self.state = State::Over;
        Answered { reply: None, principal: None, end: Some(reason), delay: Duration::ZERO }
    }
}

const LIFETIME_MAX: Duration = Duration::from_secs(60 * 60 * 24 * 365);

/// A reply, or that ours does not encode: a bug.
type EncodedReply = Result<SaslReply, CloseReason>;

/// The authentication goes on.
fn says(reply: EncodedReply) -> Answered {
    let (reply, end) = match reply {
        Ok(reply) => (Some(reply), None),
        Err(reason) => (None, Some(reason)),
    };
    Answered { reply, principal: None, end, delay: Duration::ZERO }
}

fn reply(header: &RequestHeader, response: &impl Encodable) -> EncodedReply {
    let flexible_header = header.key != api_versions::KEY && codec::is_flexible(header.key, header.version);
    let body = codec::encode_response(response, header.version);
    let body = body.map_err(|error| CloseReason::Unencodable(error.to_string()))?;
    Ok(SaslReply::Response { correlation_id: header.correlation_id, flexible_header, body })
}

fn decode<R: Decodable>(body: BytesMut, version: i16) -> Result<R, CloseReason> {
    codec::decode_request(body.freeze(), version).map_err(|error| malformed(error.to_string()))
}

fn malformed(reason: String) -> CloseReason {
    CloseReason::Malformed(reason)
}
