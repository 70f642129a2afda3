//! Authenticating a new connection at a broker that asks who comes: SaslHandshake 1, then SaslAuthenticate 1, as every
//! broker since 2.2 takes them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use crate::clock::UnixMs;
use crate::security::sasl::login::{Login, LoginExchange};
use crate::task;
use crate::wire::codec;

const SASL_HANDSHAKE: i16 = 17;
const SASL_AUTHENTICATE: i16 = 36;
const VERSION: i16 = 1;

/// A connection that is not authenticated yet.
pub(super) trait Line {
    /// Why there is no answer.
    type Error: Send;

    /// Sends a request of this key and version, and answers the body of the response.
    fn ask(&mut self, key: i16, version: i16, body: Bytes) -> impl Future<Output = Result<Bytes, Self::Error>> + Send;
}

/// Why the connection is not authenticated.
#[derive(Debug)]
pub(super) enum LoginError<E> {
    Line(E),
    /// The other broker does not let this one in, or does not prove that it knows the password.
    Refused(String),
}

/// For how long the connection may be used, somewhat less than the other broker says; `None`: for ever. `random` is for
/// this authentication alone, `now_ms` by the wall clock.
///
/// # Errors
/// See [`LoginError`].
pub(super) async fn authenticate<L: Line>(
    line: &mut L,
    login: &Arc<Login>,
    random: u128,
    now_ms: UnixMs,
) -> Result<Option<Duration>, LoginError<L::Error>> {
    let mechanism = login.mechanism().name();
    let request = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
    let answer: SaslHandshakeResponse = ask(line, SASL_HANDSHAKE, &request).await?;
    if answer.error_code != 0 {
        return Err(LoginError::Refused(format!("it does not offer {mechanism} (error {})", answer.error_code)));
    }
    let (mut exchange, mut token) = LoginExchange::begin(login, random, now_ms);
    loop {
        let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from(token));
        let answer: SaslAuthenticateResponse = ask(line, SASL_AUTHENTICATE, &request).await?;
        if answer.error_code != 0 {
            let text = answer.error_message.map_or_else(|| format!("error {}", answer.error_code), |m| m.to_string());
            return Err(LoginError::Refused(text));
        }
        // A password is salted slowly.
        let challenge = answer.auth_bytes;
        let (back, next) = task::blocking(move || {
            let next = exchange.answer(&challenge);
            (exchange, next)
        })
        .await;
        exchange = back;
        match next {
            Ok(Some(next)) => token = next,
            Ok(None) => return Ok(lifetime(answer.session_lifetime_ms)),
            Err(distrusted) => return Err(LoginError::Refused(distrusted.to_string())),
        }
    }
}

async fn ask<L: Line, R: Decodable>(
    line: &mut L,
    key: i16,
    request: &(impl Encodable + Sync),
) -> Result<R, LoginError<L::Error>> {
    let body = codec::encode_request(request, VERSION);
    let body = body.map_err(|error| LoginError::Refused(format!("the request does not encode: {error}")))?;
    let answer = line.ask(key, VERSION, body).await.map_err(LoginError::Line)?;
    codec::decode_response(answer, VERSION)
        .map_err(|error| LoginError::Refused(format!("its answer cannot be read: {error}")))
}

/// A part of the session's life, as Kafka's clients take it before they authenticate again.
fn lifetime(session_lifetime_ms: i64) -> Option<Duration> {
    let ms = u64::try_from(session_lifetime_ms).ok().filter(|ms| *ms > 0)?;
    // Longer than any process runs, and short enough for the timer.
    Some(Duration::from_millis(ms).min(Duration::from_secs(60 * 60 * 24 * 365)) * 85 / 100)
}
