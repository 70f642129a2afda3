//! `ssl.enabled.protocols`, `ssl.protocol` and `ssl.cipher.suites`: what of Java's names there is here.
//!
//! There are TLS 1.2 and 1.3 with the suites of forward secrecy and authenticated encryption. What Java knows besides,
//! and has switched off by default or is to be avoided, is left out of a list with a line that says so; a list of which
//! nothing is left, and what Java does not know either, end the start.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::{CipherSuite, SupportedCipherSuite, SupportedProtocolVersion};
use tracing::warn;

use super::store::StoreError;
use crate::config::TlsSettings;

/// What is spoken.
pub(super) struct Spoken {
    pub(super) provider: Arc<CryptoProvider>,
    /// Towards clients.
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    /// Towards other brokers: `ssl.protocol` is the highest.
    pub(super) outgoing: Vec<&'static SupportedProtocolVersion>,
}

/// # Errors
/// A setting leaves nothing to speak.
pub(super) fn resolve(settings: &TlsSettings) -> Result<Spoken, StoreError> {
    let versions = versions(settings)?;
    let outgoing: Vec<_> = match settings.protocol.as_str() {
        "TLS" | "TLSv1.3" => versions.clone(),
        "TLSv1.2" => versions.iter().copied().filter(|version| is_named(version, "TLSv1.2")).collect(),
        other => return Err(refused("ssl.protocol", format!("{other} SSLContext not available"))),
    };
    let suites = suites(settings)?;
    let of = |versions: &[&'static SupportedProtocolVersion]| {
        versions.iter().any(|version| suites.iter().any(|suite| suite.version() == *version))
    };
    if !of(&versions) {
        let why = "none of these is of a version in ssl.enabled.protocols".to_owned();
        return Err(refused("ssl.cipher.suites", why));
    }
    let provider = Arc::new(CryptoProvider { cipher_suites: suites.clone(), ..ring::default_provider() });
    let usable = |versions: Vec<&'static SupportedProtocolVersion>| -> Vec<_> {
        versions.into_iter().filter(|version| of(&[*version])).collect()
    };
    let (versions, outgoing) = (usable(versions), usable(outgoing));
    Ok(Spoken { provider, versions, outgoing })
}

fn refused(key: &'static str, why: String) -> StoreError {
    StoreError { key, file: None, why }
}

fn is_named(version: &SupportedProtocolVersion, name: &str) -> bool {
    let shown = if version.version == rustls::ProtocolVersion::TLSv1_3 { "TLSv1.3" } else { "TLSv1.2" };
    shown == name
}

fn versions(settings: &TlsSettings) -> Result<Vec<&'static SupportedProtocolVersion>, StoreError> {
    const KEY: &str = "ssl.enabled.protocols";
    const SWITCHED_OFF: [&str; 4] = ["SSLv2Hello", "SSLv3", "TLSv1", "TLSv1.1"];
    if settings.enabled_protocols.is_empty() {
        return Ok(rustls::ALL_VERSIONS.to_vec());
    }
    for name in &settings.enabled_protocols {
        match name.as_str() {
            "TLSv1.2" | "TLSv1.3" => {}
            name if SWITCHED_OFF.contains(&name) => {
                warn!(listener = settings.listener, "{KEY}: {name} is not safe, and is not spoken");
            }
            other => return Err(refused(KEY, format!("Unsupported protocol {other}"))),
        }
    }
    let named = |version: &&SupportedProtocolVersion| settings.enabled_protocols.iter().any(|n| is_named(version, n));
    let versions: Vec<_> = rustls::ALL_VERSIONS.iter().copied().filter(named).collect();
    match versions.is_empty() {
        true => Err(refused(KEY, "No appropriate protocol: there are TLSv1.2 and TLSv1.3".into())),
        false => Ok(versions),
    }
}

fn suites(settings: &TlsSettings) -> Result<Vec<SupportedCipherSuite>, StoreError> {
    const KEY: &str = "ssl.cipher.suites";
    if settings.cipher_suites.is_empty() {
        return Ok(ring::DEFAULT_CIPHER_SUITES.to_vec());
    }
    let mut chosen = Vec::new();
    for name in &settings.cipher_suites {
        match ring::ALL_CIPHER_SUITES.iter().find(|suite| java_name(suite.suite()) == *name) {
            Some(suite) => chosen.push(*suite),
            None if looks_like_one(name) => {
                warn!(listener = settings.listener, "{KEY}: {name} is not there, and is left out");
            }
            None => return Err(refused(KEY, format!("Unsupported CipherSuite: {name}"))),
        }
    }
    match chosen.is_empty() {
        true => {
            let known: Vec<_> = ring::ALL_CIPHER_SUITES.iter().map(|suite| java_name(suite.suite())).collect();
            Err(refused(KEY, format!("none of these is there; there are {}", known.join(", "))))
        }
        false => Ok(chosen),
    }
}

/// `TLS13_AES_128_GCM_SHA256` is `TLS_AES_128_GCM_SHA256` in Java, and all else alike.
fn java_name(suite: CipherSuite) -> String {
    suite.as_str().map_or_else(String::new, |name| name.replacen("TLS13_", "TLS_", 1))
}

fn looks_like_one(name: &str) -> bool {
    let legal = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    (name.starts_with("TLS_") || name.starts_with("SSL_")) && name.bytes().all(|b| legal(b) || b.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::super::testing::settings;
    use super::*;

    fn spoken(change: impl FnOnce(&mut TlsSettings)) -> Result<(Vec<String>, usize, usize), String> {
        let mut settings = settings("A");
        change(&mut settings);
        let spoken = resolve(&settings).map_err(|error| error.to_string())?;
        let suites = spoken.provider.cipher_suites.iter().map(|suite| java_name(suite.suite())).collect();
        Ok((suites, spoken.versions.len(), spoken.outgoing.len()))
    }

    #[test]
    fn by_default_both_versions_and_all_suites_are_spoken() {
        let (suites, versions, outgoing) = spoken(|_| ()).expect("the default");
        assert_eq!((suites.len(), versions, outgoing), (9, 2, 2));
        assert!(suites.contains(&"TLS_AES_128_GCM_SHA256".into()), "{suites:?}");
        assert!(suites.contains(&"TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384".into()));
    }

    #[test]
    fn what_is_listed_and_there_is_spoken_alone() {
        let one = spoken(|settings| {
            settings.enabled_protocols = vec!["TLSv1.1".into(), "TLSv1.2".into()];
            settings.cipher_suites =
                vec!["TLS_RSA_WITH_AES_128_CBC_SHA".into(), "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256".into()];
        });
        assert_eq!(one, Ok((vec!["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256".into()], 1, 1)));
        let outgoing = spoken(|settings| settings.protocol = "TLSv1.2".into()).expect("legal");
        assert_eq!((outgoing.1, outgoing.2), (2, 1));
    }

    #[test]
    fn a_list_that_leaves_nothing_is_refused_with_its_key() {
        let refused = |change: fn(&mut TlsSettings)| spoken(change).expect_err("refused");
        for (error, expected) in [
            (
                refused(|s| s.enabled_protocols = vec!["TLSv1.1".into()]),
                "ssl.enabled.protocols: No appropriate protocol",
            ),
            (
                refused(|s| s.enabled_protocols = vec!["TLSv9".into()]),
                "ssl.enabled.protocols: Unsupported protocol TLSv9",
            ),
            (refused(|s| s.protocol = "TLSv1.1".into()), "ssl.protocol: TLSv1.1 SSLContext not available"),
            (refused(|s| s.cipher_suites = vec!["none".into()]), "ssl.cipher.suites: Unsupported CipherSuite: none"),
            (
                refused(|s| s.cipher_suites = vec!["TLS_RSA_WITH_AES_128_CBC_SHA".into()]),
                "ssl.cipher.suites: none of these is there",
            ),
            (
                refused(|s| {
                    s.enabled_protocols = vec!["TLSv1.2".into()];
                    s.cipher_suites = vec!["TLS_AES_128_GCM_SHA256".into()];
                }),
                "none of these is of a version in ssl.enabled.protocols",
            ),
        ] {
            assert!(error.starts_with(expected) || error.contains(expected), "{error}");
        }
    }
}
