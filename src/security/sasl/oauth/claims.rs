//! What a token says, and whether the time fits.
//!
//! Source: Kafka 3.9 `OAuthBearerUnsecuredJws`, `OAuthBearerValidationUtils`, `ValidatorAccessTokenValidator`.

use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

use crate::clock::UnixMs;
use crate::config::oauth::OauthSettings;

/// Why a token is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Disbelieved {
    /// For our log.
    Invalid(&'static str),
    /// It lacks one of these.
    Scope(Vec<String>),
}

/// As tokens are written: for URLs, without padding, which Java takes as well.
pub(super) const BASE64_URL: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A part of a token; `None`: it is no JSON object.
pub(super) fn object(part: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&BASE64_URL.decode(part).ok()?).ok()
}

/// What of a token's claims matters here. Its time fits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Claims {
    pub(super) principal: String,
    pub(super) scope: Vec<String>,
    pub(super) expires_at_ms: UnixMs,
    pub(super) issued_at_ms: Option<UnixMs>,
    pub(super) issuer: Option<String>,
    pub(super) audience: Vec<String>,
    /// It says whom it is for, in whatever form.
    pub(super) has_audience: bool,
}

impl Claims {
    /// # Errors
    /// They are malformed, a claim is missing, or their time is not now.
    pub(super) fn read(part: &str, settings: &OauthSettings, now_ms: UnixMs) -> Result<Self, Disbelieved> {
        let invalid = |why| Err(Disbelieved::Invalid(why));
        let Some(claims) = object(part) else { return invalid("malformed claims") };
        let principal = match claims.get(&settings.principal_claim) {
            Some(Value::String(principal)) if !principal.is_empty() => principal.clone(),
            _ => return invalid("no claim names the principal"),
        };
        let Some(Some(expires_at_ms)) = claims.get("exp").map(time) else {
            return invalid("it does not say when it expires");
        };
        let issued_at_ms = match claims.get("iat").map(time) {
            Some(None) => return invalid("the time of its issue is no time"),
            issued_at_ms => issued_at_ms.flatten(),
        };
        if now_ms.saturating_sub(settings.skew_ms) >= expires_at_ms {
            return invalid("it has expired");
        }
        if issued_at_ms.is_some_and(|issued_at_ms| now_ms.saturating_add(settings.skew_ms) < issued_at_ms) {
            return invalid("it is issued in the future");
        }
        if issued_at_ms.is_some_and(|issued_at_ms| expires_at_ms <= issued_at_ms) {
            return invalid("it expired before it was issued");
        }
        let latest_ms = now_ms.saturating_add(settings.skew_ms);
        if claims.get("nbf").is_some_and(|from| time(from).is_none_or(|from| latest_ms < from)) {
            return invalid("it does not hold yet");
        }
        let scope = match claims.get(&settings.scope_claim) {
            Some(Value::String(scope)) => scope.split_whitespace().map(str::to_owned).collect(),
            other => other.map(texts).unwrap_or_default(),
        };
        Ok(Self {
            principal,
            scope,
            expires_at_ms,
            issued_at_ms,
            issuer: claims.get("iss").and_then(Value::as_str).map(str::to_owned),
            audience: claims.get("aud").map(texts).unwrap_or_default(),
            has_audience: claims.get("aud").is_some_and(|audience| !audience.is_null()),
        })
    }
}

/// Seconds since 1970, perhaps with a fraction, as milliseconds.
pub(super) fn time(value: &Value) -> Option<UnixMs> {
    let ms = value.as_f64()? * 1000.0;
    // Far from where a double loses milliseconds.
    (ms.abs() < 1e15).then(|| ms.round() as UnixMs)
}

/// One text, or several.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(texts) => texts.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::oauth::OauthTrust;

    fn read(claims: &str) -> Result<Claims, Disbelieved> {
        let settings = OauthSettings {
            principal_claim: "sub".into(),
            scope_claim: "scope".into(),
            skew_ms: 1000,
            trust: OauthTrust::Unsecured { required_scope: Vec::new() },
        };
        Claims::read(&BASE64_URL.encode(claims), &settings, 100_000)
    }

    #[test]
    fn a_token_names_somebody_and_holds_now() {
        let claims =
            read(r#"{"sub":"alice","exp":101.5,"iat":99,"scope":"a b","iss":"i","aud":["x","y"]}"#).expect("good");
        assert_eq!(
            (claims.principal.as_str(), claims.expires_at_ms, claims.issued_at_ms),
            ("alice", 101_500, Some(99_000))
        );
        assert_eq!((claims.scope.len(), claims.issuer.as_deref(), claims.audience.len()), (2, Some("i"), 2));
        // Clocks may differ by a second.
        assert!(
            read(r#"{"sub":"a","exp":99.5,"iat":98}"#).is_ok() && read(r#"{"sub":"a","exp":105,"iat":101}"#).is_ok()
        );
        for (bad, why) in [
            ("x", "malformed claims"),
            ("[]", "malformed claims"),
            (r#"{"exp":200}"#, "no claim names the principal"),
            (r#"{"sub":"","exp":200}"#, "no claim names the principal"),
            (r#"{"sub":1,"exp":200}"#, "no claim names the principal"),
            (r#"{"sub":"a"}"#, "it does not say when it expires"),
            (r#"{"sub":"a","exp":"200"}"#, "it does not say when it expires"),
            (r#"{"sub":"a","exp":1e300}"#, "it does not say when it expires"),
            (r#"{"sub":"a","exp":99}"#, "it has expired"),
            (r#"{"sub":"a","exp":200,"iat":102}"#, "it is issued in the future"),
            (r#"{"sub":"a","exp":200,"iat":"x"}"#, "the time of its issue is no time"),
            (r#"{"sub":"a","exp":100.5,"iat":100.5}"#, "it expired before it was issued"),
            (r#"{"sub":"a","exp":200,"nbf":102}"#, "it does not hold yet"),
        ] {
            assert_eq!(read(bad), Err(Disbelieved::Invalid(why)), "{bad}");
        }
        let deep = format!(r#"{{"sub":"a","exp":200,"x":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
        assert_eq!(read(&deep), Err(Disbelieved::Invalid("malformed claims")));
    }
}
