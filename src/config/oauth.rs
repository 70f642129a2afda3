//! OAUTHBEARER: why a token of somebody else is believed, and where this broker's own tokens come from.
//!
//! A function of a mechanism's settings and of its JAAS entries. What lies at a URL is asked for elsewhere. Source:
//! Kafka 3.9 `OAuthBearerValidatorCallbackHandler`, its twin for unsecured tokens, `ConfigurationUtils`,
//! `JaasOptionsUtils`.

use std::path::PathBuf;

use super::jaas::{JaasEntry, option};
use super::listener_reader::ListenerReader;
use super::tls::{ClientAuth, Stores, TlsSettings};
use super::web_url::WebUrl;
use super::{ConfigError, Secret};

/// How tokens are judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OauthSettings {
    pub(crate) principal_claim: String,
    pub(crate) scope_claim: String,
    /// Allowed difference of clocks, in milliseconds.
    pub(crate) skew_ms: i64,
    pub(crate) trust: OauthTrust,
}

/// Why a token is believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OauthTrust {
    /// It says so itself: for tests alone.
    Unsecured { required_scope: Vec<String> },
    /// One of these keys signed it.
    Jwks { keys: Box<KeySource>, audiences: Vec<String>, issuer: Option<String> },
}

/// Where keys are, and how often they are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeySource {
    pub(crate) at: Place,
    pub(crate) refresh_ms: i64,
    pub(crate) retry: RetryMs,
}

/// Pauses between attempts: the first, which doubles, and all of them together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RetryMs {
    pub(crate) first: i64,
    pub(crate) all: i64,
}

/// What a URL of these settings names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    File(PathBuf),
    Web {
        url: WebUrl,
        /// `None`: the URL is not one of TLS. Without a truststore the authorities of this system are trusted.
        tls: Option<Box<TlsSettings>>,
    },
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Web { url, .. } => write!(f, "{url}"),
        }
    }
}

/// Kafka's class for tokens that somebody signed, under its present and its former name.
pub(super) const SECURED: [&str; 2] = [
    "org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler",
    "org.apache.kafka.common.security.oauthbearer.secured.OAuthBearerValidatorCallbackHandler",
];
/// Its class for tokens that nobody signed, which is the default.
pub(super) const UNSECURED: &str =
    "org.apache.kafka.common.security.oauthbearer.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler";

/// All of them.
pub(super) const HANDLERS: [&str; 3] = [SECURED[0], SECURED[1], UNSECURED];

const JAAS: &str = "sasl.jaas.config";

/// How this mechanism of a listener judges tokens. That a URL alone is enough to ask for signatures is our choice:
/// Kafka would believe every token.
///
/// # Errors
/// It would believe any token though keys are named, or none could be believed.
pub(super) fn judged(settings: &ListenerReader<'_, '_>, entries: &[JaasEntry]) -> Result<OauthSettings, ConfigError> {
    const HANDLER: &str = "sasl.server.callback.handler.class";
    const URL: &str = "sasl.oauthbearer.jwks.endpoint.url";
    let handler = settings.text(HANDLER).unwrap_or_default();
    let url = settings.text(URL).filter(|url| !url.is_empty());
    match (url, handler.as_str()) {
        (None, class) if SECURED.contains(&class) => {
            Err(settings.invalid(URL, "no keys are named by which tokens could be checked"))
        }
        (None, "" | UNSECURED) => unsecured(settings, entries),
        (Some(_), UNSECURED) => {
            Err(settings.invalid(HANDLER, "keys are set that this class would not look at; every token would pass"))
        }
        (Some(url), class) if class.is_empty() || SECURED.contains(&class) => {
            let keys = KeySource {
                at: place(settings, entries, URL, &url)?,
                refresh_ms: settings.long("sasl.oauthbearer.jwks.endpoint.refresh.ms"),
                retry: RetryMs {
                    first: settings.long("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms"),
                    all: settings.long("sasl.oauthbearer.jwks.endpoint.retry.backoff.max.ms"),
                },
            };
            Ok(OauthSettings {
                principal_claim: settings.text("sasl.oauthbearer.sub.claim.name").unwrap_or_default(),
                // Nothing asks for the scope of a signed token, in Kafka neither.
                scope_claim: "scope".into(),
                skew_ms: i64::from(settings.int("sasl.oauthbearer.clock.skew.seconds")) * 1000,
                trust: OauthTrust::Jwks {
                    keys: Box::new(keys),
                    audiences: settings.list("sasl.oauthbearer.expected.audience"),
                    issuer: settings.text("sasl.oauthbearer.expected.issuer").filter(|issuer| !issuer.is_empty()),
                },
            })
        }
        // No other class is legal.
        (Some(_), _) => Err(settings.invalid(HANDLER, "it is no class that looks at keys")),
        (None, _) => Err(settings.invalid(HANDLER, "it is no class that judges tokens")),
    }
}

fn unsecured(settings: &ListenerReader<'_, '_>, entries: &[JaasEntry]) -> Result<OauthSettings, ConfigError> {
    let skew = text(entries, "unsecuredValidatorAllowableClockSkewMs").unwrap_or_else(|| "0".into());
    let skew_ms = skew.trim().parse().ok().filter(|skew| *skew >= 0);
    let why = "option unsecuredValidatorAllowableClockSkewMs is no number of milliseconds";
    let required = text(entries, "unsecuredValidatorRequiredScope").unwrap_or_default();
    Ok(OauthSettings {
        principal_claim: text(entries, "unsecuredValidatorPrincipalClaimName").unwrap_or_else(|| "sub".into()),
        scope_claim: text(entries, "unsecuredValidatorScopeClaimName").unwrap_or_else(|| "scope".into()),
        skew_ms: skew_ms.ok_or_else(|| settings.invalid(JAAS, why))?,
        trust: OauthTrust::Unsecured { required_scope: required.split_whitespace().map(str::to_owned).collect() },
    })
}

/// An option that says something.
pub(super) fn text(entries: &[JaasEntry], key: &str) -> Option<String> {
    option(entries, key).map(|value| value.reveal().to_owned()).filter(|text| !text.is_empty())
}

/// What a URL names, `key` being the setting that has it.
///
/// # Errors
/// It is none that could be asked for, or not one of those that are allowed.
pub(super) fn place(
    settings: &ListenerReader<'_, '_>,
    entries: &[JaasEntry],
    key: &str,
    url: &str,
) -> Result<Place, ConfigError> {
    // Of the JVM, see the source.
    const ALLOWED: &str = "org.apache.kafka.sasl.oauthbearer.allowed.urls";
    if let Some(allowed) = settings.java_option(ALLOWED)
        && !allowed.split(',').any(|allowed| allowed.trim() == url)
    {
        return Err(settings.invalid_unshown(key, &format!("it is not among those of the property {ALLOWED}")));
    }
    if let Some(path) = url.strip_prefix("file://").filter(|path| path.starts_with('/')) {
        return Ok(Place::File(path.into()));
    }
    match WebUrl::parse(url) {
        Some(Ok(url)) => {
            let tls = if url.is_secure { Some(Box::new(tls(settings, entries)?)) } else { None };
            Ok(Place::Web { url, tls })
        }
        // It may hold a secret: it is not shown.
        Some(Err(why)) => Err(settings.invalid_unshown(key, &why)),
        None => Err(settings.invalid_unshown(key, "it is neither of http:// nor of https://, nor of file:///")),
    }
}

/// What is presented to a server over TLS, and trusted: options of JAAS under the names of settings, with the defaults
/// that those have for clients.
fn tls(settings: &ListenerReader<'_, '_>, entries: &[JaasEntry]) -> Result<TlsSettings, ConfigError> {
    let or = |key: &str, default: &str| text(entries, key).unwrap_or_else(|| default.to_owned());
    let list = |key: &str, default: &str| -> Vec<String> {
        or(key, default).split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    };
    let secret = |key: &str| option(entries, key).cloned();
    // Empty says something here: names are not looked at.
    let names = option(entries, "ssl.endpoint.identification.algorithm").map_or("https", Secret::reveal).to_owned();
    if !["", "https"].iter().any(|known| names.eq_ignore_ascii_case(known)) {
        let why = "option ssl.endpoint.identification.algorithm is neither https nor empty";
        return Err(settings.invalid(JAAS, why));
    }
    Ok(TlsSettings {
        listener: String::new(),
        is_sasl: true,
        stores: Stores {
            keystore_type: or("ssl.keystore.type", "JKS"),
            keystore_location: text(entries, "ssl.keystore.location"),
            keystore_password: secret("ssl.keystore.password"),
            keystore_key: secret("ssl.keystore.key"),
            keystore_chain: secret("ssl.keystore.certificate.chain"),
            key_password: secret("ssl.key.password"),
            truststore_type: or("ssl.truststore.type", "JKS"),
            truststore_location: text(entries, "ssl.truststore.location"),
            truststore_password: secret("ssl.truststore.password"),
            truststore_certificates: secret("ssl.truststore.certificates"),
        },
        client_auth: ClientAuth::None,
        enabled_protocols: list("ssl.enabled.protocols", "TLSv1.2,TLSv1.3"),
        protocol: or("ssl.protocol", "TLSv1.3"),
        cipher_suites: list("ssl.cipher.suites", ""),
        endpoint_identification: names,
        principal_mapping_rules: "DEFAULT".into(),
        allow_dn_changes: false,
        allow_san_changes: false,
    })
}

#[cfg(test)]
mod tests {
    use super::super::sasl::{MechanismKeys, SaslMechanism};
    use super::super::testing::{config, error};
    use super::*;

    const URL: &str = "sasl.oauthbearer.jwks.endpoint.url";

    fn given<'a>(jaas: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let own = [
            ("listeners", "PLAINTEXT://:1,SASL_PLAINTEXT://:2"),
            ("sasl.enabled.mechanisms", "OAUTHBEARER"),
            ("listener.name.sasl_plaintext.oauthbearer.sasl.jaas.config", jaas),
        ];
        [&own, more].concat()
    }

    fn source(options: &str, more: &[(&str, &str)]) -> KeySource {
        let jaas = format!("org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required {options};");
        let config = config(&given(&jaas, more));
        let settings = config.sasl.listeners["SASL_PLAINTEXT"].mechanism(SaslMechanism::OauthBearer.name());
        match &settings.expect("offered").keys {
            MechanismKeys::OauthBearer(OauthSettings { trust: OauthTrust::Jwks { keys, .. }, .. }) => *keys.clone(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn keys_are_in_a_file_or_on_the_web() {
        let plain = source("", &[(URL, "http://h/keys"), ("sasl.oauthbearer.jwks.endpoint.retry.backoff.ms", "7")]);
        assert!(matches!(&plain.at, Place::Web { tls: None, url } if url.to_string() == "http://h:80/keys"));
        assert_eq!((plain.refresh_ms, plain.retry), (3_600_000, RetryMs { first: 7, all: 10_000 }));
        let options = "ssl.truststore.location=\"/t\" ssl.truststore.password=hunter2 ssl.truststore.type=PKCS12 \
                       ssl.endpoint.identification.algorithm=\"\"";
        let secure = source(options, &[(URL, "https://h/keys")]);
        let Place::Web { tls: Some(tls), .. } = &secure.at else { panic!("{secure:?}") };
        assert_eq!(tls.stores.truststore_location.as_deref(), Some("/t"));
        assert_eq!((tls.stores.truststore_type.as_str(), tls.endpoint_identification.as_str()), ("PKCS12", ""));
        assert_eq!(tls.stores.truststore_password.as_ref().map(Secret::reveal), Some("hunter2"));
        assert!(!format!("{secure:?}").contains("hunter"));
        let of_system = source("", &[(URL, "https://h/keys")]);
        let Place::Web { tls: Some(tls), .. } = &of_system.at else { panic!("{of_system:?}") };
        assert!(!tls.stores.has_truststore() && tls.endpoint_identification == "https");
    }

    #[test]
    fn names_are_looked_at_or_not_and_nothing_between() {
        let jaas = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
                    ssl.endpoint.identification.algorithm=ldaps;";
        let refused = error(&given(jaas, &[(URL, "https://h/keys")]));
        assert!(refused.contains("ssl.endpoint.identification.algorithm is neither"), "{refused}");
    }
}
