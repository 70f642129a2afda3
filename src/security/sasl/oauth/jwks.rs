//! The keys that sign tokens (RFC 7517), and whether one of them signed a token (RFC 7515).
//!
//! RSA and elliptic curves, by the algorithms RS256, RS384, RS512, ES256 and ES384. The key decides which of them it
//! takes, never the token alone, and a token without a signature, or signed by a shared secret, is none.

use std::path::Path;

use base64::Engine;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;

use super::super::small_file;
use super::super::web::WebError;
use super::claims::{BASE64_URL, object};

/// What is told of a set that cannot be read.
const REASON_CHARS_MAX: usize = 200;

/// Why a file holds no keys.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JwksError {
    #[error("{path} cannot be read: {error}")]
    Unreadable { path: String, error: std::io::Error },
    #[error("{at} is no set of keys: {reason}")]
    Malformed { at: String, reason: String },
    #[error("the keys of {url} cannot be had: {error}")]
    Unfetched { url: String, error: WebError },
    /// What is set of TLS cannot be used.
    #[error("the keys of {at} cannot be had: {why}")]
    Untrusting { at: String, why: String },
}

/// Keys that sign tokens; perhaps none, where a provider has withdrawn all of them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Jwks {
    keys: Vec<Key>,
}

#[derive(Debug, PartialEq, Eq)]
struct Key {
    id: Option<String>,
    /// `None`: all that its kind allows.
    algorithm: Option<String>,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// Uncompressed points.
    P256(Vec<u8>),
    P384(Vec<u8>),
}

#[derive(Deserialize)]
struct SetJson {
    /// One that cannot be read is for others, or nobody: the rest of the set counts.
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
struct KeyJson {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    n: Option<String>,
    e: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl Jwks {
    /// Reads a file. Blocks.
    ///
    /// # Errors
    /// It cannot be read, or is no set of keys.
    pub(crate) fn read(path: &Path) -> Result<Self, JwksError> {
        let shown = || path.display().to_string();
        let text = small_file::text(path).map_err(|error| JwksError::Unreadable { path: shown(), error })?;
        Self::parse(&text).map_err(|reason| JwksError::Malformed { at: shown(), reason })
    }

    /// # Errors
    /// It is no set of keys.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Result<Self, String> {
        Self::parse(std::str::from_utf8(bytes).map_err(|error| error.to_string())?)
    }

    /// Whether there is no key that could be used.
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether there is a key of this name.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.keys.iter().any(|key| key.id.as_deref() == Some(id))
    }

    /// The name of the key that a token says has signed it, if there is none of that name.
    pub(super) fn missing(&self, token: &str) -> Option<String> {
        let header = object(token.split('.').next()?)?;
        let id = header.get("kid")?.as_str()?;
        (!self.has(id)).then(|| id.to_owned())
    }

    fn parse(text: &str) -> Result<Self, String> {
        // It may quote what it was given.
        let brief = |error: serde_json::Error| error.to_string().chars().take(REASON_CHARS_MAX).collect::<String>();
        let set: SetJson = serde_json::from_str(text).map_err(brief)?;
        let readable = set.keys.into_iter().filter_map(|key| serde_json::from_value::<KeyJson>(key).ok());
        let signing = readable.filter(|key| key.usage.as_deref().is_none_or(|usage| usage == "sig"));
        // Keys of other kinds are for others.
        Ok(Self { keys: signing.filter_map(Key::of).collect() })
    }

    /// The claims of a token that one of the keys signed, still encoded.
    ///
    /// # Errors
    /// None did.
    pub(super) fn verified<'a>(&self, token: &'a str) -> Result<&'a str, &'static str> {
        let (signed, signature) = token.rsplit_once('.').ok_or("not a signed token")?;
        let (header, claims) = signed.split_once('.').ok_or("not a signed token")?;
        if claims.contains('.') || signature.is_empty() {
            return Err("not a signed token");
        }
        let header = object(header).ok_or("a malformed header")?;
        if header.contains_key("crit") {
            return Err("the header has an extension that must be understood");
        }
        let algorithm = header.get("alg").and_then(|alg| alg.as_str()).ok_or("the header has no algorithm")?;
        let id = header.get("kid").and_then(|id| id.as_str());
        let signature = BASE64_URL.decode(signature).map_err(|_| "a malformed signature")?;
        let mut fitting = self.keys.iter().filter(|key| id.is_none() || key.id.as_deref() == id);
        match fitting.any(|key| key.has_signed(algorithm, signed.as_bytes(), &signature)) {
            true => Ok(claims),
            false => Err("no key that is known signed it"),
        }
    }
}

impl Key {
    fn of(json: KeyJson) -> Option<Self> {
        let bytes = |text: &Option<String>| BASE64_URL.decode(text.as_ref()?).ok();
        // Some write a zero before it, which is none of its bytes (RFC 7518, 6.3.1.1).
        let number = |text: &Option<String>| {
            let number: Vec<u8> = bytes(text)?.into_iter().skip_while(|byte| *byte == 0).collect();
            (!number.is_empty()).then_some(number)
        };
        let point = |len: usize| {
            let (x, y) = (bytes(&json.x)?, bytes(&json.y)?);
            (x.len() == len && y.len() == len).then(|| [&[4][..], &x, &y].concat())
        };
        let kind = match (json.kty.as_str(), json.crv.as_deref()) {
            ("RSA", _) => Kind::Rsa { n: number(&json.n)?, e: number(&json.e)? },
            ("EC", Some("P-256")) => Kind::P256(point(32)?),
            ("EC", Some("P-384")) => Kind::P384(point(48)?),
            _ => return None,
        };
        Some(Self { id: json.kid, algorithm: json.alg, kind })
    }

    fn has_signed(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        if self.algorithm.as_deref().is_some_and(|own| own != algorithm) {
            return false;
        }
        let by_point = |algorithm, point: &[u8]| {
            UnparsedPublicKey::<&[u8]>::new(algorithm, point).verify(message, signature).is_ok()
        };
        match (&self.kind, algorithm) {
            (Kind::Rsa { n, e }, "RS256" | "RS384" | "RS512") => {
                let parameters = match algorithm {
                    "RS256" => &signature::RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &signature::RSA_PKCS1_2048_8192_SHA384,
                    _ => &signature::RSA_PKCS1_2048_8192_SHA512,
                };
                RsaPublicKeyComponents { n, e }.verify(parameters, message, signature).is_ok()
            }
            (Kind::P256(point), "ES256") => by_point(&signature::ECDSA_P256_SHA256_FIXED, point),
            (Kind::P384(point), "ES384") => by_point(&signature::ECDSA_P384_SHA384_FIXED, point),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = include_str!("../testdata/jwks.json");
    /// One token for each algorithm, signed by openssl with those keys; that of RS512 names none.
    const TOKENS: &str = include_str!("../testdata/tokens.txt");

    fn token(algorithm: &str) -> &'static str {
        let mut tokens = TOKENS.lines().filter_map(|line| line.split_once(' '));
        tokens.find(|(name, _)| *name == algorithm).expect("one for each").1
    }

    fn without(member: &str, of: &str) -> String {
        let mut set: serde_json::Value = serde_json::from_str(KEYS).expect("JSON");
        for key in set["keys"].as_array_mut().expect("keys") {
            if key["kid"] == of {
                key.as_object_mut().expect("a key").remove(member);
            }
        }
        set.to_string()
    }

    #[test]
    fn who_signed_is_found_by_name_or_by_trying() {
        let keys = Jwks::parse(KEYS).expect("keys");
        for algorithm in ["RS256", "RS512", "ES256", "ES384"] {
            let token = token(algorithm);
            let claims = keys.verified(token).expect(algorithm);
            assert!(token.contains(claims) && object(claims).is_some_and(|claims| claims["sub"] == "alice"));
        }
    }

    #[test]
    fn odd_keys_cost_no_other_and_a_zero_before_a_number_is_none_of_it() {
        let mut set: serde_json::Value = serde_json::from_str(KEYS).expect("JSON");
        let keys = set["keys"].as_array_mut().expect("keys");
        for key in keys.iter_mut().filter(|key| key["kty"] == "RSA") {
            let n = BASE64_URL.decode(key["n"].as_str().expect("text")).expect("base64");
            key["n"] = BASE64_URL.encode([&[0][..], &n].concat()).into();
        }
        let odd = [r#"{"kid":"x"}"#, r#"{"kty":"RSA","kid":5}"#, r#"{"kty":"oct","n":null}"#, r#""text""#];
        keys.extend(odd.map(|key| serde_json::from_str(key).expect("JSON")));
        let keys = Jwks::parse(&set.to_string()).expect("keys");
        for algorithm in ["RS256", "RS512", "ES256", "ES384"] {
            keys.verified(token(algorithm)).expect(algorithm);
        }
    }

    /// CVE-2026-33557.
    #[test]
    fn a_token_that_was_changed_or_signed_by_another_is_none() {
        let keys = Jwks::parse(KEYS).expect("keys");
        let part = |text: &str| BASE64_URL.encode(text).trim_end_matches('=').to_owned();
        let [header, claims, signature] = token("ES256").split('.').collect::<Vec<_>>()[..] else {
            panic!("three parts")
        };
        let other = part(r#"{"sub":"root","exp":4102444800}"#);
        let no_key = "no key that is known signed it";
        for (bad, why) in [
            (format!("{header}.{other}.{signature}"), no_key),
            (format!("{header}.{claims}.{}", &signature[4..]), no_key),
            (format!("{header}.{claims}."), "not a signed token"),
            (format!("{header}.{claims}"), "not a signed token"),
            (format!("{header}.{claims}.{signature}.x"), "not a signed token"),
            (format!("x.{claims}.{signature}"), "a malformed header"),
            (format!("{header}.{claims}.!"), "a malformed signature"),
            (format!("{}.{claims}.{signature}", part(r#"{"alg":"none"}"#)), no_key),
            (format!("{}.{claims}.{signature}", part(r#"{"alg":"HS256","kid":"ES256"}"#)), no_key),
            (format!("{}.{claims}.{signature}", part(r#"{"alg":"ES256","kid":"r"}"#)), no_key),
            (format!("{}.{claims}.{signature}", part(r#"{"kid":"ES256"}"#)), "the header has no algorithm"),
            (
                format!("{}.{claims}.{signature}", part(r#"{"alg":"ES256","crit":["x"]}"#)),
                "the header has an extension that must be understood",
            ),
            (String::new(), "not a signed token"),
        ] {
            assert_eq!(keys.verified(&bad), Err(why), "{bad}");
        }
        let fewer = Jwks::parse(&without("x", "ES256")).expect("two keys");
        assert_eq!(fewer.verified(token("ES256")), Err(no_key));
    }

    #[test]
    fn no_token_of_which_anything_signed_was_changed_is_believed() {
        let keys = Jwks::parse(KEYS).expect("keys");
        for algorithm in ["ES256", "RS256"] {
            let token = token(algorithm);
            let (signed, _) = token.rsplit_once('.').expect("three parts");
            for at in 0..token.len() {
                for instead in ["A", "B", "", ".", "=", "é"] {
                    let changed = [&token[..at], instead, &token[at + 1..]].concat();
                    let verified = keys.verified(&changed);
                    assert!(verified.is_err() || at > signed.len() || changed == token, "{changed}");
                }
                assert!(keys.verified(&token[..at]).is_err());
            }
        }
    }

    #[test]
    fn a_file_without_keys_is_refused_with_its_reason() {
        let long = format!(r#"{{"keys":"{}"}}"#, "x".repeat(100_000));
        for (bad, why) in [("", "EOF"), ("{}", "missing field"), (&long, "invalid type")] {
            let error = Jwks::parse(bad).expect_err(bad);
            assert!(error.contains(why) && error.len() < 1000, "{error}");
        }
        let for_encryption = KEYS.replace(r#""sig""#, r#""enc""#);
        assert_eq!(Jwks::parse(&for_encryption).expect("two keys").keys.len(), 2);
        let symmetric = r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#;
        assert!(Jwks::parse(symmetric).expect("a set").is_empty());
        let error = Jwks::read(Path::new("/nowhere/keys")).expect_err("no file").to_string();
        assert!(error.contains("/nowhere/keys cannot be read"), "{error}");
    }
}
