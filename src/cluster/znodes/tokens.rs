//! Delegation tokens, and the notes of what changed in them. There are none but where a secret signs them.
//!
//! - `/delegation_token/tokens/<id>`: `{"version":3,"owner":"User%3Aa","tokenRequester":"User%3Aa","renewers":[],
//!   "issueTimestamp":1,"maxTimestamp":3,"expiryTimestamp":2,"tokenId":"<id>"}`. Principals are URL-encoded, times are in
//!   milliseconds since 1970. Versions 1 and 2 have no requester: it is the owner. The key that a client shows is not
//!   stored: it follows from the id and the secret.
//! - `/delegation_token/token_changes/token_change_0000000000`: the id alone.
//!
//! Source: Kafka 3.9 `ZkData`, `DelegationTokenManagerZk`.

use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::config::{desanitized, sanitized};
use super::{ZnodeError, from_json, to_json};
use crate::clock::UnixMs;

/// Parent of the tokens.
pub(crate) const TOKENS: &str = "/delegation_token/tokens";
/// Parent of the notes.
pub(crate) const CHANGES: &str = "/delegation_token/token_changes";
/// A note, but for its number.
pub(crate) const CHANGE_PREFIX: &str = "/delegation_token/token_changes/token_change_";

const VERSION: i32 = 3;
/// From here on the requester is told apart from the owner.
const VERSION_REQUESTER: i32 = 3;

/// What everybody may know of a token. Principals are written `User:alice`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenInfo {
    pub(crate) id: Arc<str>,
    pub(crate) owner: String,
    pub(crate) requester: String,
    pub(crate) renewers: Vec<String>,
    pub(crate) issued_ms: UnixMs,
    /// It cannot be renewed beyond this.
    pub(crate) max_ms: UnixMs,
    pub(crate) expires_ms: UnixMs,
}

pub(crate) fn path(id: &str) -> String {
    format!("{TOKENS}/{id}")
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Json {
    version: i32,
    owner: String,
    #[serde(default)]
    token_requester: Option<String>,
    renewers: Vec<String>,
    issue_timestamp: UnixMs,
    max_timestamp: UnixMs,
    expiry_timestamp: UnixMs,
    token_id: String,
}

pub(crate) fn encode(token: &TokenInfo) -> Bytes {
    to_json(&Json {
        version: VERSION,
        owner: sanitized(&token.owner),
        token_requester: Some(sanitized(&token.requester)),
        renewers: token.renewers.iter().map(|renewer| sanitized(renewer)).collect(),
        issue_timestamp: token.issued_ms,
        max_timestamp: token.max_ms,
        expiry_timestamp: token.expires_ms,
        token_id: token.id.to_string(),
    })
}

/// # Errors
/// Another version, a principal without a colon, or no such JSON.
pub(crate) fn decode(path: &str, data: &[u8]) -> Result<TokenInfo, ZnodeError> {
    let json: Json = from_json(path, data)?;
    if !(1..=VERSION).contains(&json.version) {
        return Err(ZnodeError::new(path, format!("version {} is none of 1 to {VERSION}", json.version)));
    }
    let principal = |text: &str| match desanitized(text).filter(|text| text.contains(':')) {
        Some(text) => Ok(text),
        None => Err(ZnodeError::new(path, format!("{text:?} is no principal"))),
    };
    let requester = json.token_requester.filter(|_| json.version >= VERSION_REQUESTER);
    Ok(TokenInfo {
        id: json.token_id.into(),
        owner: principal(&json.owner)?,
        requester: principal(requester.as_ref().unwrap_or(&json.owner))?,
        renewers: json.renewers.iter().map(|text| principal(text)).collect::<Result<_, _>>()?,
        issued_ms: json.issue_timestamp,
        max_ms: json.max_timestamp,
        expires_ms: json.expiry_timestamp,
    })
}

/// Number of a note.
pub(crate) fn change_number(name: &str) -> Option<i64> {
    name.strip_prefix("token_change_")?.parse().ok()
}

/// The id that a note names; `None`: rubbish.
pub(crate) fn decode_change(data: &[u8]) -> Option<Arc<str>> {
    let id = std::str::from_utf8(data).ok()?;
    (!id.is_empty() && !id.contains('/')).then(|| id.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let token = TokenInfo {
            id: "DhhovPm0TsaBw_0nZK-_9A".into(),
            owner: "User:CN=a b,O=c".into(),
            requester: "User:bob".into(),
            renewers: vec!["User:alice".into()],
            issued_ms: 1,
            max_ms: 3,
            expires_ms: 2,
        };
        // As Kafka 3.9.1 wrote it, but for the order of its keys.
        let written = concat!(
            r#"{"issueTimestamp":1,"renewers":["User%3Aalice"],"tokenRequester":"User%3Abob","#,
            r#""tokenId":"DhhovPm0TsaBw_0nZK-_9A","owner":"User%3ACN%3Da%20b%2CO%3Dc","#,
            r#""expiryTimestamp":2,"maxTimestamp":3,"version":3}"#
        );
        assert_eq!(decode("p", written.as_bytes()), Ok(token.clone()));
        assert_eq!(decode("p", &encode(&token)), Ok(token.clone()));
        let old = concat!(
            r#"{"version":1,"owner":"User%3Aa","renewers":[],"issueTimestamp":1,"#,
            r#""maxTimestamp":3,"expiryTimestamp":2,"tokenId":"x"}"#
        );
        assert_eq!(decode("p", old.as_bytes()).map(|token| token.requester), Ok("User:a".into()));
        for bad in ["", "{}", &written.replace("\"version\":3", "\"version\":4"), "{\"version\":3}"] {
            assert!(decode("p", bad.as_bytes()).is_err(), "{bad}");
        }
        assert_eq!((change_number("token_change_0000000007"), decode_change(b"x")), (Some(7), Some("x".into())));
        assert_eq!((change_number("x"), decode_change(b"a/b"), decode_change(&[0xff])), (None, None, None));
    }
}
