//! What a client says at first, for where this broker is the client: with a token of its own making, or with one that a
//! provider gave it.
//!
//! Source: Kafka 3.9 `OAuthBearerClientInitialResponse`, `LoginAccessTokenValidator`,
//! `OAuthBearerUnsecuredLoginCallbackHandler`.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::claims::{self, time};
use crate::clock::UnixMs;
use crate::config::Secret;
use crate::config::own_tokens::UnsecuredTokens;
use crate::config::token_source::TokenSource;

/// A token of ours is said to be so much older than it is: clocks of brokers differ, and whoever judges it allows for
/// no difference by default. Kafka shows the token of its login, which is seldom new.
const BACKDATED_MS: UnixMs = 60_000;

/// With a token that nobody signs and that holds from now on.
pub(in super::super) fn first_unsigned(tokens: &UnsecuredTokens, now_ms: UnixMs) -> Vec<u8> {
    let seconds = |ms: UnixMs| Value::from(ms as f64 / 1000.0);
    let mut claims = tokens.claims.clone();
    claims.insert("iat".into(), seconds(now_ms.saturating_sub(BACKDATED_MS)));
    claims.insert("exp".into(), seconds(now_ms.saturating_add(tokens.lifetime_ms)));
    let part = |text: &str| URL_SAFE_NO_PAD.encode(text);
    let token = format!("{}.{}.", part(r#"{"alg":"none"}"#), part(&Value::Object(claims).to_string()));
    first(&token, &tokens.extensions)
}

/// With this token.
pub(in super::super) fn first(token: &str, extensions: &BTreeMap<String, String>) -> Vec<u8> {
    let extensions: String = extensions.iter().map(|(key, value)| format!("{key}={value}\u{1}")).collect();
    format!("n,,\u{1}auth=Bearer {token}\u{1}{extensions}\u{1}").into_bytes()
}

/// A token that a provider gave this broker, and what it says of itself; nobody here checks who signed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct GivenToken {
    pub(in super::super) text: Secret,
    pub(in super::super) principal: String,
    pub(in super::super) issued_at_ms: Option<UnixMs>,
    pub(in super::super) expires_at_ms: UnixMs,
}

impl GivenToken {
    /// # Errors
    /// It is none that a broker would take, whoever signed it.
    pub(in super::super) fn read(text: &str, source: &TokenSource) -> Result<Self, &'static str> {
        let text = text.trim();
        let parts: Vec<&str> = text.split('.').collect();
        // What is unsigned ends with the second full stop.
        let ([header, payload, _], true) = (&parts[..], text.bytes().all(super::is_of_token)) else {
            return Err("it has not three parts of letters");
        };
        claims::object(header).ok_or("its header is no JSON object")?;
        let claims = claims::object(payload).ok_or("its claims are no JSON object")?;
        let principal = match claims.get(&source.principal_claim) {
            Some(Value::String(name)) if !name.trim().is_empty() => name.clone(),
            _ => return Err("no claim names the principal"),
        };
        let moment = |key: &str| match claims.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => time(value).filter(|ms| *ms >= 0).map(Some).ok_or("one of its times is no time"),
        };
        let expires_at_ms = moment("exp")?.ok_or("it does not say when it expires")?;
        let issued_at_ms = moment("iat")?;
        let scopes: Vec<&str> = match claims.get(&source.scope_claim) {
            Some(Value::String(scope)) => vec![scope],
            Some(Value::Array(scopes)) => scopes.iter().map(|scope| scope.as_str().unwrap_or_default()).collect(),
            _ => Vec::new(),
        };
        let mut seen = BTreeSet::new();
        if !scopes.iter().all(|scope| !scope.trim().is_empty() && seen.insert(*scope)) {
            return Err("its scope is empty, or has something twice");
        }
        Ok(Self { text: Secret::new(text), principal, issued_at_ms, expires_at_ms })
    }
}
