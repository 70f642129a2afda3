//! The tokens of OAUTHBEARER that this broker makes for itself where it authenticates at others: nobody signs them, so
//! they are for tests alone. Source: Kafka 3.9 `OAuthBearerUnsecuredLoginCallbackHandler`, whose options of JAAS these
//! are.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

use super::ConfigError;
use super::jaas::{JaasEntry, option};
use super::listener_reader::ListenerReader;
use super::secret::Secret;

/// What each of them says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnsecuredTokens {
    /// Without the times.
    pub(crate) claims: Map<String, Value>,
    /// Milliseconds for which one holds; above 0.
    pub(crate) lifetime_ms: i64,
    /// What is said beside the token: letters alone, and printable text.
    pub(crate) extensions: BTreeMap<String, String>,
}

const JAAS: &str = "sasl.jaas.config";
const TEXT: &str = "unsecuredLoginStringClaim_";
const NUMBER: &str = "unsecuredLoginNumberClaim_";
const LIST: &str = "unsecuredLoginListClaim_";
const EXTENSION: &str = "unsecuredLoginExtension_";

/// # Errors
/// An option makes no token, or none that names somebody.
pub(super) fn unsecured(
    settings: &ListenerReader<'_, '_>,
    entries: &[JaasEntry],
) -> Result<UnsecuredTokens, ConfigError> {
    read(entries).map_err(|why| settings.invalid(JAAS, &why))
}

fn read(entries: &[JaasEntry]) -> Result<UnsecuredTokens, String> {
    let mut claims = Map::new();
    for (name, value) in claims_of(entries, TEXT) {
        claims.insert(name, Value::String(value));
    }
    for (name, value) in claims_of(entries, NUMBER) {
        let number = value.trim().parse().ok().and_then(Number::from_f64);
        claims.insert(name.clone(), Value::Number(number.ok_or(format!("option {NUMBER}{name} is no number"))?));
    }
    for (name, value) in claims_of(entries, LIST) {
        claims.insert(name, Value::Array(list(&value)));
    }
    if let Some(reserved) = ["iat", "exp"].iter().find(|name| claims.contains_key(**name)) {
        return Err(format!("Cannot explicitly set the '{reserved}' claim"));
    }
    let option = |key: &str| option(entries, key).map(Secret::reveal).filter(|text| !text.is_empty());
    let principal = option("unsecuredLoginPrincipalClaimName").unwrap_or("sub");
    if claims.get(principal).and_then(Value::as_str).is_none_or(str::is_empty) {
        return Err(format!("option {TEXT}{principal} is needed, by which brokers are known to each other"));
    }
    let seconds = option("unsecuredLoginLifetimeSeconds").unwrap_or("3600").trim().parse().ok();
    let seconds = seconds.filter(|seconds: &i64| *seconds > 0 && *seconds < i64::MAX / 1000);
    let why = "option unsecuredLoginLifetimeSeconds is no number of seconds";
    let extensions = extensions(entries, EXTENSION)?;
    Ok(UnsecuredTokens { claims, lifetime_ms: seconds.ok_or(why)? * 1000, extensions })
}

/// What the options of this prefix say; of two with one name the first.
fn claims_of<'a>(entries: &'a [JaasEntry], prefix: &'a str) -> impl Iterator<Item = (String, String)> + 'a {
    let all = entries.iter().rev().flat_map(move |entry| entry.options_after(prefix));
    all.map(|(name, value)| (name.to_owned(), value.reveal().to_owned()))
}

/// Its first letter parts the others.
fn list(text: &str) -> Vec<Value> {
    let mut letters = text.chars();
    match (letters.next(), letters.as_str()) {
        (Some(between), parts) if !parts.is_empty() => parts.split(between).map(Value::from).collect(),
        _ => Vec::new(),
    }
}

/// What the options of this prefix have said beside a token. Source: Kafka 3.9
/// `OAuthBearerClientInitialResponse.validateExtensions`; RFC 7628, 3.1.
///
/// # Errors
/// One of them cannot be said.
pub(super) fn extensions(entries: &[JaasEntry], prefix: &str) -> Result<BTreeMap<String, String>, String> {
    let extensions: BTreeMap<String, String> = claims_of(entries, prefix).collect();
    let is_legal = |(name, value): &(&String, &String)| {
        let letters = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphabetic());
        letters && *name != "auth" && value.bytes().all(|b| b.is_ascii_graphic() || b" \t\r\n".contains(&b))
    };
    match extensions.iter().find(|extension| !is_legal(extension)) {
        None => Ok(extensions),
        Some((name, _)) => Err(format!("option {prefix}{name} is no extension of a token")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::jaas;
    use super::*;

    fn of(options: &str) -> Result<UnsecuredTokens, String> {
        let module = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule";
        read(&[jaas::of_setting(&format!("{module} required {options};")).expect("JAAS")])
    }

    #[test]
    fn claims_are_texts_numbers_and_lists() {
        let tokens = of("unsecuredLoginStringClaim_sub=broker unsecuredLoginNumberClaim_n=\"1.5\" \
                         unsecuredLoginListClaim_scope=\"|a|b\" unsecuredLoginListClaim_none=\"\" \
                         unsecuredLoginLifetimeSeconds=\"7\" unsecuredLoginExtension_traceId=\"x y\"")
        .expect("legal");
        let json = serde_json::to_string(&tokens.claims).expect("JSON");
        assert_eq!(json, r#"{"n":1.5,"none":[],"scope":["a","b"],"sub":"broker"}"#);
        assert_eq!((tokens.lifetime_ms, tokens.extensions["traceId"].as_str()), (7000, "x y"));
        let other = of("unsecuredLoginPrincipalClaimName=who unsecuredLoginStringClaim_who=x").expect("legal");
        assert_eq!((other.lifetime_ms, other.extensions.len()), (3_600_000, 0));
    }

    #[test]
    fn what_makes_no_token_is_refused_with_its_option() {
        let sub = "unsecuredLoginStringClaim_sub=broker";
        for (options, why) in [
            (String::new(), "unsecuredLoginStringClaim_sub is needed"),
            ("unsecuredLoginNumberClaim_sub=\"1\"".into(), "unsecuredLoginStringClaim_sub is needed"),
            (format!("{sub} unsecuredLoginPrincipalClaimName=who"), "unsecuredLoginStringClaim_who is needed"),
            (format!("{sub} unsecuredLoginNumberClaim_n=x"), "unsecuredLoginNumberClaim_n is no number"),
            (format!("{sub} unsecuredLoginNumberClaim_exp=\"1\""), "Cannot explicitly set the 'exp' claim"),
            (format!("{sub} unsecuredLoginLifetimeSeconds=\"0\""), "is no number of seconds"),
            (format!("{sub} unsecuredLoginExtension_auth=x"), "unsecuredLoginExtension_auth is no extension"),
            (format!("{sub} unsecuredLoginExtension_a1=x"), "unsecuredLoginExtension_a1 is no extension"),
        ] {
            let error = of(&options).expect_err("refused");
            assert!(error.contains(why), "{options}: {error}");
        }
    }
}
