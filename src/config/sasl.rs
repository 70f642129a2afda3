//! SASL: which mechanisms a listener offers, and what each needs to know whom it lets in.
//!
//! A function of the settings and of the JAAS file. A mechanism that has no keys, or that cannot be spoken, ends the
//! start. JAAS is looked up as Kafka does it: `listener.name.<listener>.<mechanism>.sasl.jaas.config`, else the file's
//! section `<listener>.KafkaServer`, else its section `KafkaServer`; `sasl.jaas.config` without both prefixes is for
//! clients, and has no effect on a broker. Source: Kafka 3.9 `JaasContext.loadServerContext`, `SaslChannelBuilder`,
//! `KafkaConfig.validateValues`.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::jaas::{self, JaasEntry, option};
use super::listener_reader::ListenerReader;
use super::listeners::Listener;
use super::oauth::{self, OauthSettings, OauthTrust};
use super::own_tokens::{self, UnsecuredTokens};
use super::reader::Reader;
use super::token_source::{self, TokenSource};
use super::{ConfigError, Secret};

/// How clients prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SaslMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
    OauthBearer,
}

impl SaslMechanism {
    pub(crate) const ALL: [Self; 4] = [Self::Plain, Self::ScramSha256, Self::ScramSha512, Self::OauthBearer];

    /// As clients and settings write it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
            Self::OauthBearer => "OAUTHBEARER",
        }
    }

    /// By exactly this name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name() == name)
    }

    /// The login module whose options are its keys.
    fn module(self) -> &'static str {
        match self {
            Self::Plain => "org.apache.kafka.common.security.plain.PlainLoginModule",
            Self::ScramSha256 | Self::ScramSha512 => "org.apache.kafka.common.security.scram.ScramLoginModule",
            Self::OauthBearer => "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule",
        }
    }
}

/// The mechanisms of one listener, in the order of `sasl.enabled.mechanisms`; never empty.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ListenerSasl {
    pub(crate) mechanisms: Vec<MechanismSettings>,
}

impl ListenerSasl {
    /// `None`: the listener does not offer it.
    pub(crate) fn mechanism(&self, name: &str) -> Option<&MechanismSettings> {
        self.mechanisms.iter().find(|settings| settings.mechanism.name() == name)
    }
}

/// One mechanism of one listener.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MechanismSettings {
    pub(crate) mechanism: SaslMechanism,
    /// `connections.max.reauth.ms`; `None`: clients need not authenticate again.
    pub(crate) reauth_ms_max: Option<i64>,
    pub(crate) keys: MechanismKeys,
}

/// What tells a mechanism whom to let in.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum MechanismKeys {
    /// Passwords by user.
    Plain(BTreeMap<String, Secret>),
    /// `/config/users` has them.
    Scram,
    OauthBearer(OauthSettings),
}

/// With what this broker authenticates at others.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SaslLogin {
    Password(PasswordLogin),
    /// By OAUTHBEARER, with tokens that nobody signs.
    Unsecured(UnsecuredTokens),
    /// By OAUTHBEARER, with tokens of a provider.
    Fetched(Box<TokenSource>),
}

/// By PLAIN or SCRAM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PasswordLogin {
    pub(crate) mechanism: SaslMechanism,
    pub(crate) username: String,
    pub(crate) password: Secret,
}

/// What is set of SASL, beside the listeners' own settings.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct SaslConfig {
    /// Listeners that ask for SASL, by name.
    pub(crate) listeners: BTreeMap<String, Arc<ListenerSasl>>,
    /// By the name of the listener through which brokers speak to each other, or to the controller.
    pub(crate) logins: BTreeMap<String, SaslLogin>,
    /// `connection.failed.authentication.delay.ms`.
    pub(crate) failure_delay_ms: i32,
    /// `sasl.server.max.receive.size`.
    pub(crate) receive_bytes_max: usize,
}

/// Reads the settings of every listener that asks for SASL. `between_brokers` are the listeners that brokers of a
/// cluster use among themselves; a node alone has no use for a login.
///
/// # Errors
/// A mechanism is unknown, cannot be spoken, or has no keys.
pub(crate) fn resolve(
    reader: &Reader<'_>,
    listeners: &[Listener],
    between_brokers: &[&str],
    alone: bool,
) -> Result<SaslConfig, ConfigError> {
    let mut config = SaslConfig {
        listeners: BTreeMap::new(),
        logins: BTreeMap::new(),
        failure_delay_ms: reader.int("connection.failed.authentication.delay.ms"),
        receive_bytes_max: usize::try_from(reader.long("sasl.server.max.receive.size")).unwrap_or(0),
    };
    for listener in listeners {
        if !listener.security_protocol.is_sasl() {
            continue;
        }
        let settings = reader.of_listener(&listener.name);
        let offered = offered(&settings)?;
        if between_brokers.contains(&listener.name.as_str()) {
            let mechanism = between(&settings, &offered)?;
            if !alone {
                config.logins.insert(listener.name.clone(), login(reader, listener, mechanism)?);
            }
        }
        let mechanisms: Result<Vec<_>, _> =
            offered.into_iter().map(|mechanism| mechanism_settings(reader, listener, mechanism)).collect();
        config.listeners.insert(listener.name.clone(), Arc::new(ListenerSasl { mechanisms: mechanisms? }));
    }
    Ok(config)
}

/// A line for each listener that believes tokens because they say so themselves.
pub(crate) fn warnings(config: &SaslConfig) -> Vec<String> {
    let unsecured = |listener: &ListenerSasl| {
        listener.mechanisms.iter().any(|settings| match &settings.keys {
            MechanismKeys::OauthBearer(settings) => matches!(settings.trust, OauthTrust::Unsecured { .. }),
            MechanismKeys::Plain(_) | MechanismKeys::Scram => false,
        })
    };
    let line = |name: &String| {
        format!(
            "Listener {name} believes tokens that nobody signed, whatever their audience and issuer: for tests alone."
        )
    };
    config.listeners.iter().filter(|(_, listener)| unsecured(listener)).map(|(name, _)| line(name)).collect()
}

fn offered(settings: &ListenerReader<'_, '_>) -> Result<Vec<SaslMechanism>, ConfigError> {
    const NAME: &str = "sasl.enabled.mechanisms";
    let mut offered = Vec::new();
    for name in settings.list(NAME) {
        let mechanism = known(settings, NAME, &name)?;
        if !offered.contains(&mechanism) {
            offered.push(mechanism);
        }
    }
    match offered.is_empty() {
        true => Err(settings.invalid(NAME, "No SASL mechanisms are enabled")),
        false => Ok(offered),
    }
}

fn known(settings: &ListenerReader<'_, '_>, key: &str, name: &str) -> Result<SaslMechanism, ConfigError> {
    SaslMechanism::parse(name).ok_or_else(|| {
        let why = match name {
            "GSSAPI" => "GSSAPI (Kerberos) is not supported; name other mechanisms".to_owned(),
            _ => format!("there is no mechanism {name} here, only PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER"),
        };
        settings.invalid(key, &why)
    })
}

fn mechanism_settings(
    reader: &Reader<'_>,
    listener: &Listener,
    mechanism: SaslMechanism,
) -> Result<MechanismSettings, ConfigError> {
    let entries = entries(reader, listener, mechanism)?;
    let settings = reader.of_listener(&listener.name).of_mechanism(mechanism.name());
    let keys = match mechanism {
        SaslMechanism::Plain => {
            let users = entries.iter().flat_map(|entry| entry.options_after("user_"));
            let users: BTreeMap<_, _> = users.map(|(user, password)| (user.to_owned(), password.clone())).collect();
            if users.is_empty() {
                let why = format!("no option user_NAME of {} names a user of PLAIN", mechanism.module());
                return Err(settings.invalid(JAAS, &why));
            }
            MechanismKeys::Plain(users)
        }
        SaslMechanism::ScramSha256 | SaslMechanism::ScramSha512 => MechanismKeys::Scram,
        SaslMechanism::OauthBearer => MechanismKeys::OauthBearer(oauth::judged(&settings, &entries)?),
    };
    let reauth_ms_max = Some(settings.long("connections.max.reauth.ms")).filter(|ms| *ms > 0);
    Ok(MechanismSettings { mechanism, reauth_ms_max, keys })
}

const JAAS: &str = "sasl.jaas.config";

/// The entries of the mechanism's module; never empty.
fn entries(reader: &Reader<'_>, listener: &Listener, mechanism: SaslMechanism) -> Result<Vec<JaasEntry>, ConfigError> {
    let settings = reader.of_listener(&listener.name).of_mechanism(mechanism.name());
    let section = format!("{}.KafkaServer", listener.name.to_lowercase());
    let file = reader.settings.jaas_file();
    let in_file = file.and_then(|file| file.section(&section).or_else(|| file.section("KafkaServer")));
    // Without the mechanism's prefix it is for clients.
    let own = settings.secret(JAAS).filter(|_| settings.own(JAAS).is_some());
    let mut entries = match (own, in_file) {
        (Some(text), _) => vec![jaas::of_setting(text.reveal()).map_err(|why| settings.invalid(JAAS, &why))?],
        (None, Some(entries)) => entries.clone(),
        (None, None) => {
            let (name, mechanism) = (&listener.name, mechanism.name());
            let key = format!("listener.name.{}.{}.{JAAS}", name.to_lowercase(), mechanism.to_lowercase());
            let file = file.map_or("not set".into(), |file| file.path().display().to_string());
            let why = format!(
                "listener {name} has no JAAS configuration for {mechanism}: {key} is not set, and there is no section \
                 '{section}' or 'KafkaServer' in the file of java.security.auth.login.config, which is {file}"
            );
            return Err(settings.invalid("sasl.enabled.mechanisms", &why));
        }
    };
    entries.retain(|entry| entry.module == mechanism.module());
    if entries.is_empty() {
        let why = format!("{} needs the login module {}", mechanism.name(), mechanism.module());
        return Err(settings.invalid(JAAS, &why));
    }
    Ok(entries)
}

/// The mechanism between brokers.
fn between(settings: &ListenerReader<'_, '_>, offered: &[SaslMechanism]) -> Result<SaslMechanism, ConfigError> {
    const NAME: &str = "sasl.mechanism.inter.broker.protocol";
    let mechanism = known(settings, NAME, &settings.text(NAME).unwrap_or_default())?;
    if offered.contains(&mechanism) {
        return Ok(mechanism);
    }
    let why = "sasl.mechanism.inter.broker.protocol must be included in sasl.enabled.mechanisms when SASL is used for \
               inter-broker communication";
    Err(settings.invalid(NAME, why))
}

/// What this broker shows others of its cluster.
fn login(reader: &Reader<'_>, listener: &Listener, mechanism: SaslMechanism) -> Result<SaslLogin, ConfigError> {
    let settings = reader.of_listener(&listener.name).of_mechanism(mechanism.name());
    let entries = entries(reader, listener, mechanism)?;
    if mechanism == SaslMechanism::OauthBearer {
        let trust = oauth::judged(&settings, &entries)?.trust;
        return match (token_source::url(&settings)?, trust) {
            (Some(url), _) => {
                let source = token_source::fetched(&settings, &entries, &url)?;
                Ok(SaslLogin::Fetched(Box::new(source)))
            }
            (None, OauthTrust::Unsecured { .. }) => {
                own_tokens::unsecured(&settings, &entries).map(SaslLogin::Unsecured)
            }
            (None, OauthTrust::Jwks { .. }) => {
                let why = "brokers make tokens that nobody signs, and the listener between them believes signed ones \
                           alone; name a provider of tokens by sasl.oauthbearer.token.endpoint.url, or choose PLAIN \
                           or SCRAM between them";
                Err(settings.invalid("sasl.mechanism.inter.broker.protocol", why))
            }
        };
    }
    let of = |key| option(&entries, key).map(Secret::reveal).filter(|text| !text.is_empty());
    match (of("username"), of("password")) {
        (Some(username), Some(password)) => {
            let (username, password) = (username.into(), Secret::new(password));
            Ok(SaslLogin::Password(PasswordLogin { mechanism, username, password }))
        }
        _ => Err(settings.invalid(JAAS, "username and password are needed, with which brokers speak to each other")),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::testing::{config, error};
    use super::*;
    use crate::config::{Config, Inputs, Machine};

    const PLAIN: &str = "org.apache.kafka.common.security.plain.PlainLoginModule required \
                         username=\"admin\" password=\"hunter2\" user_admin=\"hunter2\" user_alice=\"hunter3\";";
    const SCRAM: &str = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    const OAUTH: &str = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required \
                         unsecuredValidatorRequiredScope=\"a b\";";
    const PLAIN_KEY: &str = "listener.name.sasl_plaintext.plain.sasl.jaas.config";
    const OAUTH_KEY: &str = "listener.name.sasl_plaintext.oauthbearer.sasl.jaas.config";

    fn with<'a>(given: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        [&[("listeners", "PLAINTEXT://:1,SASL_PLAINTEXT://:2")], given].concat()
    }

    fn sasl(given: &[(&str, &str)]) -> Arc<ListenerSasl> {
        Arc::clone(&config(&with(given)).sasl.listeners["SASL_PLAINTEXT"])
    }

    fn refused(given: &[(&str, &str)]) -> String {
        let error = error(&with(given));
        assert!(!error.contains("hunter") && !error.contains('\n'), "{error}");
        error
    }

    #[test]
    fn several_mechanisms_each_with_its_own_keys() {
        let settings = sasl(&[
            ("sasl.enabled.mechanisms", "PLAIN,SCRAM-SHA-512"),
            (PLAIN_KEY, PLAIN),
            ("listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config", SCRAM),
            ("connections.max.reauth.ms", "5000"),
            ("listener.name.sasl_plaintext.plain.connections.max.reauth.ms", "0"),
        ]);
        let plain = settings.mechanism("PLAIN").expect("offered");
        let MechanismKeys::Plain(users) = &plain.keys else { panic!("{plain:?}") };
        assert_eq!(users.keys().collect::<Vec<_>>(), ["admin", "alice"]);
        assert_eq!((users["alice"].reveal(), plain.reauth_ms_max), ("hunter3", None));
        let scram = settings.mechanism("SCRAM-SHA-512").expect("offered");
        assert_eq!((&scram.keys, scram.reauth_ms_max), (&MechanismKeys::Scram, Some(5000)));
        assert!(settings.mechanism("SCRAM-SHA-256").is_none() && settings.mechanism("plain").is_none());
        assert!(!format!("{settings:?}").contains("hunter"), "{settings:?}");
    }

    /// CVE-2023-25194, CVE-2025-27818, CVE-2025-27819: a module of JAAS is a name that is known here, or ends the
    /// start; what its options name is not looked up.
    #[test]
    fn no_login_module_but_kafkas_own_is_taken() {
        let plain = ("sasl.enabled.mechanisms", "PLAIN");
        let hostile = "user.provider.url=\"ldap://127.0.0.1:1/a\"";
        for module in [
            "com.sun.security.auth.module.JndiLoginModule",
            "com.sun.security.auth.module.LdapLoginModule",
            "org.apache.kafka.common.security.plain.PlainLoginModule2",
            "plain.PlainLoginModule",
        ] {
            let text = format!("{module} required {hostile} user_alice=\"hunter2\";");
            let error = refused(&[plain, (PLAIN_KEY, &text)]);
            assert!(error.contains("PLAIN needs the login module") && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_mechanism_without_its_keys_ends_the_start() {
        let plain = ("sasl.enabled.mechanisms", "PLAIN");
        assert!(refused(&[]).contains("GSSAPI (Kerberos) is not supported"));
        assert!(refused(&[("sasl.enabled.mechanisms", " ")]).contains("No SASL mechanisms are enabled"));
        assert!(refused(&[("sasl.enabled.mechanisms", "plain")]).contains("there is no mechanism plain here"));
        let without = refused(&[plain]);
        assert!(without.contains(PLAIN_KEY) && without.contains("sasl_plaintext.KafkaServer"), "{without}");
        // Kafka ignores it for brokers as well.
        assert!(refused(&[plain, ("sasl.jaas.config", PLAIN)]).contains("has no JAAS configuration"));
        let bad = refused(&[plain, (PLAIN_KEY, "x required a=\"hunter2;")]);
        assert!(bad.contains(PLAIN_KEY) && bad.contains("a quote of the JAAS config is not closed"), "{bad}");
        assert!(refused(&[plain, (PLAIN_KEY, SCRAM)]).contains("PLAIN needs the login module"));
        let nobody = "org.apache.kafka.common.security.plain.PlainLoginModule required username=a password=hunter2;";
        assert!(refused(&[plain, (PLAIN_KEY, nobody)]).contains("no option user_NAME"));
        // Where no listener asks for SASL nothing is missing.
        assert!(config(&[plain]).sasl.listeners.is_empty());
    }

    /// CVE-2026-110985, CVE-2025-27817.
    #[test]
    fn tokens_are_believed_because_of_keys_or_for_tests_without() {
        let oauth = [("sasl.enabled.mechanisms", "OAUTHBEARER"), (OAUTH_KEY, OAUTH)];
        let of = |given: &[(&str, &str)]| match &sasl(&[&oauth, given].concat()).mechanisms[0].keys {
            MechanismKeys::OauthBearer(settings) => settings.clone(),
            other => panic!("{other:?}"),
        };
        let required_scope = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(of(&[]).trust, OauthTrust::Unsecured { required_scope });
        let unsigned = "Listener SASL_PLAINTEXT believes tokens that nobody signed, whatever their audience and issuer: for tests alone.";
        assert!(config(&with(&oauth)).warnings().iter().any(|line| line == unsigned));
        let url = ("sasl.oauthbearer.jwks.endpoint.url", "file:///keys.json");
        let signed = of(&[url, ("sasl.oauthbearer.expected.audience", "a,b")]);
        assert!(matches!(&signed.trust, OauthTrust::Jwks { keys, audiences, .. }
            if keys.at == oauth::Place::File("/keys.json".into()) && audiences.len() == 2));
        assert_eq!((signed.principal_claim.as_str(), signed.skew_ms), ("sub", 30_000));
        let no = |given: &[(&str, &str)]| refused(&[&oauth, given].concat());
        const HANDLER: &str = "listener.name.sasl_plaintext.oauthbearer.sasl.server.callback.handler.class";
        for (bad, why) in [("ldap://h/keys", "neither of http:// nor"), ("https://u@h/keys", "it names a user")] {
            assert!(no(&[("sasl.oauthbearer.jwks.endpoint.url", bad)]).contains(why), "{bad}");
        }
        assert!(no(&[(HANDLER, oauth::SECURED[0])]).contains("no keys are named"));
        assert!(no(&[(HANDLER, oauth::UNSECURED), url]).contains("every token would pass"));
        assert!(no(&[(HANDLER, "com.example.Handler")]).contains("Java classes cannot be loaded"));
    }

    #[test]
    fn brokers_of_a_cluster_have_a_login_for_each_other() {
        let between = [
            ("security.inter.broker.protocol", "SASL_PLAINTEXT"),
            ("sasl.enabled.mechanisms", "PLAIN"),
            (PLAIN_KEY, PLAIN),
            ("sasl.mechanism.inter.broker.protocol", "PLAIN"),
        ];
        let cluster = [&between[..], &[("zookeeper.connect", "h:1")]].concat();
        let login = config(&with(&cluster)).sasl.logins["SASL_PLAINTEXT"].clone();
        assert!(matches!(&login, SaslLogin::Password(PasswordLogin { username, password, .. })
            if username == "admin" && password.reveal() == "hunter2"));
        assert!(config(&with(&between)).sasl.logins.is_empty(), "a node alone speaks to nobody");
        assert!(refused(&between[..3]).contains("GSSAPI (Kerberos) is not supported"));
        let other = [&between[..3], &[("sasl.mechanism.inter.broker.protocol", "SCRAM-SHA-256")]].concat();
        assert!(refused(&other).contains("must be included in sasl.enabled.mechanisms"));
        let nameless = "org.apache.kafka.common.security.plain.PlainLoginModule required user_a=hunter2;";
        let nameless = [&cluster[..], &[(PLAIN_KEY, nameless)]].concat();
        assert!(refused(&nameless).contains("username and password are needed"));
    }

    #[test]
    fn brokers_of_a_cluster_may_show_each_other_tokens_that_nobody_signed() {
        let jaas = format!("{} unsecuredLoginStringClaim_sub=\"broker\";", OAUTH.trim_end_matches(';'));
        let between = [
            ("security.inter.broker.protocol", "SASL_PLAINTEXT"),
            ("sasl.enabled.mechanisms", "OAUTHBEARER"),
            (OAUTH_KEY, jaas.as_str()),
            ("sasl.mechanism.inter.broker.protocol", "OAUTHBEARER"),
            ("zookeeper.connect", "h:1"),
        ];
        let login = config(&with(&between)).sasl.logins["SASL_PLAINTEXT"].clone();
        assert!(matches!(&login, SaslLogin::Unsecured(tokens) if tokens.claims["sub"] == "broker"));
        let nobody = refused(&[&between[..], &[(OAUTH_KEY, OAUTH)]].concat());
        assert!(nobody.contains("unsecuredLoginStringClaim_sub"), "{nobody}");
        let keys = ("sasl.oauthbearer.jwks.endpoint.url", "file:///keys.json");
        assert!(refused(&[&between[..], &[keys]].concat()).contains("believes signed ones alone"));
    }

    #[test]
    fn a_jaas_file_serves_what_no_setting_says() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("jaas.conf");
        std::fs::write(&path, format!("KafkaServer {{ {PLAIN} {SCRAM} }};\nb.KafkaServer {{ {SCRAM} }};"))
            .expect("written");
        let load = |options: String, listeners: &str| {
            let overrides = [
                format!("listeners={listeners}"),
                "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,A:SASL_PLAINTEXT,B:SASL_PLAINTEXT".into(),
                "sasl.enabled.mechanisms=SCRAM-SHA-256".into(),
                "listener.name.a.sasl.enabled.mechanisms=PLAIN".into(),
            ];
            let environment = vec![("KAFKA_OPTS".to_owned(), options)];
            Config::load(&Inputs { overrides: overrides.into(), environment, file: None }, Machine::for_test())
        };
        let option = |path: &Path| format!("-Xmx1G -Djava.security.auth.login.config={}", path.display());
        let config = load(option(&path), "PLAINTEXT://:1,A://:2,B://:3").expect("legal");
        assert!(config.sasl.listeners["A"].mechanism("PLAIN").is_some());
        assert!(config.sasl.listeners["B"].mechanism("SCRAM-SHA-256").is_some());
        let missing = load(option(Path::new("/nowhere")), "PLAINTEXT://:1,A://:2").expect_err("no file").to_string();
        assert!(missing.contains("Cannot read /nowhere"), "{missing}");
        std::fs::write(&path, "KafkaServer { x required a=\"hunter2 };").expect("written");
        let bad = load(option(&path), "PLAINTEXT://:1,A://:2").expect_err("bad").to_string();
        assert!(bad.contains("jaas.conf") && !bad.contains("hunter2"), "{bad}");
    }
}
