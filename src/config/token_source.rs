//! The tokens of OAUTHBEARER that this broker is given by a provider, where it authenticates at others: where they are
//! asked for, what proves that the broker may have them, and when they are asked for again.
//!
//! A function of a mechanism's settings and of its JAAS entries. Source: Kafka 3.9 `OAuthBearerLoginCallbackHandler`,
//! `AccessTokenRetrieverFactory`, `LoginAccessTokenValidator`, `ExpiringCredentialRefreshConfig`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::jaas::JaasEntry;
use super::listener_reader::ListenerReader;
use super::oauth::{self, Place, RetryMs};
use super::own_tokens;
use super::{ConfigError, Secret};

/// Where tokens come from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TokenSource {
    pub(crate) at: Place,
    /// What is shown there; a file asks for nothing.
    pub(crate) client: Option<OauthClient>,
    pub(crate) retry: RetryMs,
    /// For a connection, and for an answer; `None`: nothing is set.
    pub(crate) patience: (Option<Duration>, Option<Duration>),
    pub(crate) refresh: Refresh,
    pub(crate) scope_claim: String,
    pub(crate) principal_claim: String,
    /// What is said beside the token: letters alone, and printable text.
    pub(crate) extensions: BTreeMap<String, String>,
}

/// Who asks for tokens, by the grant of client credentials (RFC 6749, 4.4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OauthClient {
    pub(crate) id: String,
    pub(crate) secret: Secret,
    pub(crate) scope: Option<String>,
}

/// When a token is asked for again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Refresh {
    /// Share of its life.
    pub(crate) window: f64,
    /// Largest random share beside that.
    pub(crate) jitter: f64,
    /// Not sooner.
    pub(crate) after_ms: i64,
    /// So long before its end, not later.
    pub(crate) before_ms: i64,
}

/// Kafka's classes that fetch tokens, under the present and the former name.
const FETCHING: [&str; 2] = [
    "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler",
    "org.apache.kafka.common.security.oauthbearer.secured.OAuthBearerLoginCallbackHandler",
];
/// Its class that makes tokens nobody signs, which is the default.
const MAKING: &str =
    "org.apache.kafka.common.security.oauthbearer.internals.unsecured.OAuthBearerUnsecuredLoginCallbackHandler";
/// All of them.
pub(super) const HANDLERS: [&str; 3] = [FETCHING[0], FETCHING[1], MAKING];

const HANDLER: &str = "sasl.login.callback.handler.class";
const URL: &str = "sasl.oauthbearer.token.endpoint.url";
const JAAS: &str = "sasl.jaas.config";

/// Whether tokens are fetched, and from which URL. That the URL alone is enough is our choice, as with that of keys.
///
/// # Errors
/// The class and the URL do not go together.
pub(super) fn url(settings: &ListenerReader<'_, '_>) -> Result<Option<String>, ConfigError> {
    let handler = settings.text(HANDLER).unwrap_or_default();
    let url = settings.text(URL).filter(|url| !url.is_empty());
    match (url, handler.as_str()) {
        (None, class) if FETCHING.contains(&class) => {
            Err(settings.invalid(HANDLER, &format!("nothing says where tokens are asked for: {URL} is not set")))
        }
        (Some(_), MAKING) => Err(settings.invalid(HANDLER, "this class asks nobody for tokens, and a URL is set")),
        (url, _) => Ok(url),
    }
}

/// Lines about a URL or a class that nobody asks, as no listener between brokers logs in by OAUTHBEARER.
pub(super) fn warnings<'a>(given: impl Iterator<Item = &'a str>, is_fetched: bool) -> Vec<String> {
    let unasked = given.filter(|name| !is_fetched && [URL, HANDLER].iter().any(|key| name.ends_with(key)));
    let line = |name: &str| {
        format!("The configuration '{name}' has no effect: this broker logs in at no other by tokens of a provider.")
    };
    unasked.map(line).collect()
}

/// How tokens are had from this URL.
///
/// # Errors
/// The URL is none, or an option that is needed is missing or makes no sense.
pub(super) fn fetched(
    settings: &ListenerReader<'_, '_>,
    entries: &[JaasEntry],
    url: &str,
) -> Result<TokenSource, ConfigError> {
    let at = oauth::place(settings, entries, URL, url)?;
    let client = match at {
        Place::File(_) => None,
        Place::Web { .. } => Some(OauthClient {
            id: needed(settings, entries, "clientId")?,
            secret: Secret::new(needed(settings, entries, "clientSecret")?),
            scope: oauth::text(entries, "scope"),
        }),
    };
    let patience = |key: &str| settings.optional(key).and_then(|ms| u64::try_from(ms).ok()).filter(|ms| *ms > 0);
    let patience = |key: &str| patience(key).map(Duration::from_millis);
    let seconds = |key: &str| i64::from(settings.short(key)) * 1000;
    Ok(TokenSource {
        at,
        client,
        retry: RetryMs {
            first: settings.long("sasl.login.retry.backoff.ms"),
            all: settings.long("sasl.login.retry.backoff.max.ms"),
        },
        patience: (patience("sasl.login.connect.timeout.ms"), patience("sasl.login.read.timeout.ms")),
        refresh: Refresh {
            window: settings.double("sasl.login.refresh.window.factor"),
            jitter: settings.double("sasl.login.refresh.window.jitter"),
            after_ms: seconds("sasl.login.refresh.min.period.seconds"),
            before_ms: seconds("sasl.login.refresh.buffer.seconds"),
        },
        scope_claim: settings.text("sasl.oauthbearer.scope.claim.name").unwrap_or_default(),
        principal_claim: settings.text("sasl.oauthbearer.sub.claim.name").unwrap_or_default(),
        extensions: own_tokens::extensions(entries, "extension_").map_err(|why| settings.invalid(JAAS, &why))?,
    })
}

fn needed(settings: &ListenerReader<'_, '_>, entries: &[JaasEntry], key: &str) -> Result<String, ConfigError> {
    let value = oauth::text(entries, key).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    value.ok_or_else(|| settings.invalid(JAAS, &format!("The OAuth configuration option {key} value must be non-null")))
}

#[cfg(test)]
mod tests {
    use super::super::sasl::SaslLogin;
    use super::super::testing::{config, error};
    use super::*;

    const OPTIONS: &str = "clientId=\" broker \" clientSecret=hunter2 scope=\"a b\" extension_traceId=x";
    const TOKENS: (&str, &str) = (URL, "http://h/tokens");

    fn given<'a>(jaas: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let own = [
            ("listeners", "SASL_PLAINTEXT://:2"),
            ("security.inter.broker.protocol", "SASL_PLAINTEXT"),
            ("sasl.enabled.mechanisms", "OAUTHBEARER"),
            ("sasl.mechanism.inter.broker.protocol", "OAUTHBEARER"),
            ("sasl.oauthbearer.jwks.endpoint.url", "file:///keys.json"),
            ("listener.name.sasl_plaintext.oauthbearer.sasl.jaas.config", jaas),
            ("zookeeper.connect", "h:1"),
        ];
        [&own, more].concat()
    }

    fn jaas(options: &str) -> String {
        format!("org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required {options};")
    }

    fn source(options: &str, more: &[(&str, &str)]) -> TokenSource {
        match &config(&given(&jaas(options), more)).sasl.logins["SASL_PLAINTEXT"] {
            SaslLogin::Fetched(source) => (**source).clone(),
            other => panic!("{other:?}"),
        }
    }

    fn refused(options: &str, more: &[(&str, &str)]) -> String {
        let error = error(&given(&jaas(options), more));
        assert!(!error.contains("hunter"), "{error}");
        error
    }

    #[test]
    fn tokens_are_asked_for_with_the_options_of_jaas() {
        let source = source(OPTIONS, &[TOKENS, (HANDLER, FETCHING[0]), ("sasl.login.read.timeout.ms", "7")]);
        assert!(matches!(&source.at, Place::Web { tls: None, url } if url.to_string() == "http://h:80/tokens"));
        let client = source.client.as_ref().expect("a client");
        assert_eq!((client.id.as_str(), client.secret.reveal()), ("broker", "hunter2"));
        assert_eq!((client.scope.as_deref(), source.extensions["traceId"].as_str()), (Some("a b"), "x"));
        assert_eq!((source.patience, source.retry.all), ((None, Some(Duration::from_millis(7))), 10_000));
        let refresh = Refresh { window: 0.8, jitter: 0.05, after_ms: 60_000, before_ms: 300_000 };
        assert_eq!((source.refresh, source.principal_claim.as_str()), (refresh, "sub"));
        assert!(!format!("{source:?}").contains("hunter"));
    }

    #[test]
    fn a_file_asks_for_no_secret() {
        let source = source("", &[(URL, "file:///token")]);
        assert_eq!((source.at, source.client), (Place::File("/token".into()), None));
    }

    #[test]
    fn what_fetches_no_token_is_refused() {
        assert!(refused(OPTIONS, &[(HANDLER, FETCHING[1])]).contains("nothing says where"));
        assert!(refused(OPTIONS, &[TOKENS, (HANDLER, MAKING)]).contains("asks nobody for tokens"));
        assert!(refused(OPTIONS, &[TOKENS, (HANDLER, "com.example.Login")]).contains("Java classes cannot be loaded"));
        assert!(refused("clientId=a", &[TOKENS]).contains("option clientSecret value must be non-null"));
        assert!(refused("clientSecret=hunter2", &[TOKENS]).contains("option clientId value must be non-null"));
        assert!(refused(OPTIONS, &[(URL, "ldap://h/")]).contains("neither of http:// nor"));
        assert!(refused("clientId=a clientSecret=b extension_a1=x", &[TOKENS]).contains("no extension of a token"));
    }

    /// A class that cannot be loaded is never passed over, whoever would have asked it; what nobody asks has a line.
    #[test]
    fn nothing_of_it_is_ignored_in_silence() {
        for key in [HANDLER, "listener.name.plaintext.oauthbearer.sasl.login.callback.handler.class"] {
            let error = error(&[(key, "com.example.Login")]);
            assert!(error.contains("Java classes cannot be loaded"), "{error}");
            let lines = config(&[(key, MAKING)]).warnings();
            assert!(lines.iter().any(|line| line.contains(key) && line.contains("has no effect")), "{lines:?}");
        }
        assert!(config(&[TOKENS]).warnings().iter().any(|line| line.contains(URL)), "a node alone");
        let lines = config(&given(&jaas(OPTIONS), &[TOKENS])).warnings();
        assert!(!lines.iter().any(|line| line.contains(URL)), "{lines:?}");
    }

    #[test]
    fn a_url_that_is_none_is_not_shown() {
        for url in ["http://me:hunter2@h/t", "http://h/t?k=hunter2#a", "hunter2://h"] {
            assert!(refused(OPTIONS, &[(URL, url)]).contains("value [hidden] for configuration"), "{url}");
        }
    }
}
