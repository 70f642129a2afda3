//! PLAIN (RFC 4616): a name and a password, `[authorization id] NUL name NUL password`.
//!
//! Source: Kafka 3.9 `PlainSaslServer`, `PlainServerCallbackHandler`.

use std::collections::BTreeMap;

use ring::digest;
use subtle::ConstantTimeEq;

use super::outcome::{Authenticated, Refused};
use crate::config::Secret;

/// Judges the client's only token.
///
/// # Errors
/// With Kafka's texts: something is missing, the password is another, or there is no such user.
pub(super) fn evaluate(token: &[u8], users: &BTreeMap<String, Secret>) -> Result<Authenticated, Refused> {
    let text = String::from_utf8_lossy(token);
    let parts: Vec<&str> = text.splitn(4, '\0').collect();
    let [authorization_id, user, password] = parts[..] else {
        return Err(Refused::Told(format!("Invalid SASL/PLAIN response: expected 3 tokens, got {}", parts.len())));
    };
    let failed = |why: &str| Err(Refused::Told(format!("Authentication failed: {why}")));
    if user.is_empty() {
        return failed("username not specified");
    }
    if password.is_empty() {
        return failed("password not specified");
    }
    let known = users.get(user);
    // Who is not known takes the same time.
    let expected = known.map_or("", |password| password.reveal());
    if !same(password, expected) || known.is_none() {
        return failed("Invalid username or password");
    }
    if !authorization_id.is_empty() && authorization_id != user {
        return failed("Client requested an authorization id that is different from username");
    }
    Ok(Authenticated { user: user.to_owned(), token: Vec::new(), by_token: false, expires_at_ms: None })
}

/// Compares in a time that tells neither where the texts differ nor how long the expected one is.
fn same(given: &str, expected: &str) -> bool {
    let [given, expected] = [given, expected].map(|text| digest::digest(&digest::SHA256, text.as_bytes()));
    given.as_ref().ct_eq(expected.as_ref()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(token: &str) -> Result<String, String> {
        let users = BTreeMap::from([("alice".to_owned(), Secret::new("pa\u{e9}ss")), ("none".into(), Secret::new(""))]);
        match evaluate(token.as_bytes(), &users) {
            Ok(authenticated) => Ok(authenticated.user),
            Err(Refused::Told(text)) => Err(text),
            Err(Refused::Hidden(text)) => Err(format!("hidden: {text}")),
        }
    }

    /// CVE-2017-12610: nobody is whom it asks to be.
    #[test]
    fn name_and_password_must_both_be_right() {
        assert_eq!(judge("\0alice\0pa\u{e9}ss"), Ok("alice".into()));
        assert_eq!(judge("alice\0alice\0pa\u{e9}ss"), Ok("alice".into()));
        let invalid = Err("Authentication failed: Invalid username or password".to_owned());
        for wrong in ["\0alice\0pass", "\0Alice\0pa\u{e9}ss", "\0bob\0pa\u{e9}ss", "bob\0alice\0x"] {
            assert_eq!(judge(wrong), invalid, "{wrong:?}");
        }
        assert_eq!(judge("\0\0x"), Err("Authentication failed: username not specified".into()));
        // An empty password in the settings opens nothing.
        for nothing in ["\0alice\0", "\0none\0"] {
            assert_eq!(judge(nothing), Err("Authentication failed: password not specified".into()));
        }
        let other = "Authentication failed: Client requested an authorization id that is different from username";
        assert_eq!(judge("bob\0alice\0pa\u{e9}ss"), Err(other.into()));
        for (shape, count) in [("", 1), ("alice", 1), ("\0alice", 2), ("\0alice\0a\0b", 4), ("\0\0\0\0\0", 4)] {
            let told = format!("Invalid SASL/PLAIN response: expected 3 tokens, got {count}");
            assert_eq!(judge(shape), Err(told), "{shape:?}");
        }
    }
}
