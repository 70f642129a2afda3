//! OAUTHBEARER (RFC 7628): the client shows a token (RFC 7519), and the server believes it or says what is wrong.
//!
//! A token that is not believed is answered with a JSON text, to which the client says `\x01`; then the authentication
//! has failed with that text. Source: Kafka 3.9 `OAuthBearerSaslServer`, `OAuthBearerClientInitialResponse`.

mod claims;
pub(super) mod jwks;
pub(super) mod own;

use self::claims::{Claims, Disbelieved};
use super::authority::Authority;
use super::outcome::{Authenticated, Next, Refused};
use crate::config::oauth::{OauthSettings, OauthTrust};

/// The server's end.
#[derive(Debug, Default)]
pub(super) struct OauthServer {
    /// What was wrong with the token, and was told the client.
    refused: Option<String>,
}

impl OauthServer {
    /// Takes the client's next message.
    ///
    /// # Errors
    /// It is malformed, or the client has been told that its token is not believed.
    pub(super) fn evaluate(
        &mut self,
        message: &[u8],
        settings: &OauthSettings,
        authority: &Authority,
    ) -> Result<Next, Refused> {
        if let Some(told) = self.refused.take() {
            // Whatever the client says to it.
            return Err(Refused::Told(told));
        }
        let first = First::parse(message).ok_or(Refused::Hidden("a malformed OAUTHBEARER message"))?;
        let claims = match believe(first.token, settings, authority) {
            Ok(claims) => claims,
            Err(disbelieved) => {
                if let Disbelieved::Invalid(reason) = disbelieved {
                    tracing::debug!(reason, "a token is not believed");
                }
                let told = answer(&disbelieved);
                self.refused = Some(told.clone());
                return Ok(Next::Challenge(told.into_bytes()));
            }
        };
        if !first.authorization_id.is_empty() && first.authorization_id != claims.principal {
            return Err(Refused::Told(format!(
                "Authentication failed: Client requested an authorization id ({}) that is different from the token's \
                 principal name ({})",
                first.authorization_id, claims.principal
            )));
        }
        let expires_at_ms = Some(claims.expires_at_ms);
        Ok(Next::Done(Authenticated { user: claims.principal, token: Vec::new(), by_token: false, expires_at_ms }))
    }
}

fn answer(disbelieved: &Disbelieved) -> String {
    match disbelieved {
        Disbelieved::Invalid(_) => r#"{"status":"invalid_token"}"#.into(),
        // As a list prints in Java.
        Disbelieved::Scope(required) => {
            format!(r#"{{"status":"insufficient_scope", "scope":"[{}]"}}"#, required.join(", "))
        }
    }
}

fn believe(token: &str, settings: &OauthSettings, authority: &Authority) -> Result<Claims, Disbelieved> {
    let invalid = Disbelieved::Invalid;
    let now_ms = authority.now_ms();
    match &settings.trust {
        OauthTrust::Unsecured { required_scope } => {
            let parts: Vec<&str> = token.split('.').collect();
            let [header, claims, ""] = parts[..] else { return Err(invalid("not an unsigned token")) };
            let header = claims::object(header).ok_or(invalid("a malformed header"))?;
            if header.get("alg").and_then(|alg| alg.as_str()) != Some("none") {
                return Err(invalid("the header's algorithm is not none"));
            }
            let claims = Claims::read(claims, settings, now_ms)?;
            match required_scope.iter().all(|scope| claims.scope.contains(scope)) {
                true => Ok(claims),
                false => Err(Disbelieved::Scope(required_scope.clone())),
            }
        }
        OauthTrust::Jwks { keys, audiences, issuer } => {
            let followed = authority.keys(keys).ok_or(invalid("no keys are known"))?;
            let keys = followed.now();
            let verified = keys.verified(token).inspect_err(|_| {
                if let Some(id) = keys.missing(token) {
                    followed.on_missing(&id);
                }
            });
            let claims = Claims::read(verified.map_err(invalid)?, settings, now_ms)?;
            if claims.issued_at_ms.is_none() {
                return Err(invalid("it does not say when it was issued"));
            }
            if issuer.is_some() && *issuer != claims.issuer {
                return Err(invalid("another issuer"));
            }
            // A token for somebody is for nobody else, also where none is expected (jose4j's `AudValidator`).
            let is_for_us = match audiences.is_empty() {
                true => !claims.has_audience,
                false => audiences.iter().any(|audience| claims.audience.contains(audience)),
            };
            if !is_for_us {
                return Err(invalid("another audience"));
            }
            Ok(claims)
        }
    }
}

/// `n,[a=authzid],\x01auth=Bearer TOKEN\x01[key=value\x01…]\x01`.
#[derive(Debug, PartialEq, Eq)]
struct First<'a> {
    authorization_id: &'a str,
    token: &'a str,
}

impl<'a> First<'a> {
    fn parse(message: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(message).ok()?;
        let (authorization_id, rest) = text.strip_prefix("n,")?.split_once(",\u{1}")?;
        let authorization_id = match authorization_id {
            "" => "",
            id => id.strip_prefix("a=").filter(|id| !id.is_empty() && !id.contains(['=', ',']))?,
        };
        let mut token = None;
        for pair in rest.strip_suffix("\u{1}\u{1}")?.split('\u{1}') {
            let (key, value) = pair.split_once('=')?;
            let legal = |b: u8| (0x21..=0x7e).contains(&b) || b" \t\r\n".contains(&b);
            if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphabetic()) || !value.bytes().all(legal) {
                return None;
            }
            if key == "auth" && token.replace(value).is_some() {
                return None;
            }
        }
        let (scheme, token) = token?.split_once(' ')?;
        let token = token.trim_start_matches(' ');
        let right = scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() && token.bytes().all(is_of_token);
        right.then_some(Self { authorization_id, token })
    }
}

fn is_of_token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-_.".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_message_is_read_strictly() {
        let parse = |text: &str| {
            let first = First::parse(text.as_bytes())?;
            Some((first.authorization_id.to_owned(), first.token.to_owned()))
        };
        let pair = |id: &str, token: &str| Some((id.to_owned(), token.to_owned()));
        assert_eq!(parse("n,,\u{1}auth=Bearer a.b.\u{1}\u{1}"), pair("", "a.b."));
        assert_eq!(parse("n,a=x,\u{1}traceId=1 2\u{1}auth=bearer  a-_9\u{1}\u{1}"), pair("x", "a-_9"));
        for bad in [
            "",
            "n,,",
            "n,,\u{1}\u{1}",
            "n,,\u{1}auth=Bearer a\u{1}",
            "n,,\u{1}auth=Basic a\u{1}\u{1}",
            "n,,\u{1}auth=Bearer\u{1}\u{1}",
            "n,,\u{1}auth=Bearer a b\u{1}\u{1}",
            "y,,\u{1}auth=Bearer a\u{1}\u{1}",
            "n,a=,\u{1}auth=Bearer a\u{1}\u{1}",
            "n,,\u{1}auth=Bearer a\u{1}auth=Bearer b\u{1}\u{1}",
            "n,,\u{1}auth=Bearer a\u{1}x\u{1}\u{1}",
            "n,,\u{1}auth=Bearer a\u{1}x1=y\u{1}\u{1}",
            "\u{1}",
            "n,,\u{1}auth=Bearer \u{e9}\u{1}\u{1}",
            "n,,\u{1}x=y\u{1}\u{1}",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
