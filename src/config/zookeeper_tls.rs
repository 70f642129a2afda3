//! `zookeeper.ssl.*`: what a connection to ZooKeeper over TLS presents and trusts.
//!
//! Kafka hands these to ZooKeeper's Java client as properties of the JVM, `-Dzookeeper.ssl.keyStore.location=…` in
//! `KAFKA_OPTS` say, which count where a setting is not given. ZooKeeper's own rules hold for them, not those of a
//! listener: the key has the password of its store, the type of a store follows from its file's name, and of the
//! versions the one of `zookeeper.ssl.protocol` is spoken unless others are named. Source: Kafka 3.9
//! `KafkaServer.zkClientConfigFromKafkaConfig`, `ZkConfigs`, `KafkaConfig.zkTlsClientAuthEnabled`; ZooKeeper 3.8
//! `X509Util`, `KeyStoreFileType`.

use super::ConfigError;
use super::reader::Reader;
use super::secret::Secret;
use super::tls::{ClientAuth, Stores, TlsSettings};

/// The one of ZooKeeper's sockets that can do TLS.
const NETTY: &str = "org.apache.zookeeper.ClientCnxnSocketNetty";

const ENABLE: &str = "zookeeper.ssl.client.enable";

/// Each setting, and the property of the JVM that counts where it is not given.
const PROPERTIES: [(&str, &str); 14] = [
    (ENABLE, "zookeeper.client.secure"),
    ("zookeeper.clientCnxnSocket", "zookeeper.clientCnxnSocket"),
    ("zookeeper.ssl.keystore.location", "zookeeper.ssl.keyStore.location"),
    ("zookeeper.ssl.keystore.password", "zookeeper.ssl.keyStore.password"),
    ("zookeeper.ssl.keystore.type", "zookeeper.ssl.keyStore.type"),
    ("zookeeper.ssl.truststore.location", "zookeeper.ssl.trustStore.location"),
    ("zookeeper.ssl.truststore.password", "zookeeper.ssl.trustStore.password"),
    ("zookeeper.ssl.truststore.type", "zookeeper.ssl.trustStore.type"),
    ("zookeeper.ssl.protocol", "zookeeper.ssl.protocol"),
    ("zookeeper.ssl.enabled.protocols", "zookeeper.ssl.enabledProtocols"),
    ("zookeeper.ssl.cipher.suites", "zookeeper.ssl.ciphersuites"),
    ("zookeeper.ssl.endpoint.identification.algorithm", "zookeeper.ssl.hostnameVerification"),
    ("zookeeper.ssl.crl.enable", "zookeeper.ssl.crl"),
    ("zookeeper.ssl.ocsp.enable", "zookeeper.ssl.ocsp"),
];

/// What the setting says, else the property, else the default; `None`: nothing, or an empty text.
fn text(reader: &Reader<'_>, name: &str) -> Option<String> {
    let set = reader.text(name);
    let property = PROPERTIES.iter().find(|(setting, _)| *setting == name).map(|(_, property)| *property);
    let found = match property.and_then(|property| reader.settings.java_option(property)) {
        Some(value) if reader.given(name).is_none() => Some(value.to_owned()),
        _ => set,
    };
    found.filter(|value| !value.trim().is_empty())
}

fn boolean(reader: &Reader<'_>, name: &str) -> bool {
    text(reader, name).is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
}

fn list(reader: &Reader<'_>, name: &str) -> Vec<String> {
    let text = text(reader, name).unwrap_or_default();
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
}

/// Of a property the words are `true` and `false`.
fn checks_names(reader: &Reader<'_>) -> bool {
    let value = text(reader, "zookeeper.ssl.endpoint.identification.algorithm");
    value.is_some_and(|value| ["https", "true"].iter().any(|yes| value.trim().eq_ignore_ascii_case(yes)))
}

/// A store's file, its password and its type.
struct Store {
    location: Option<String>,
    password: Option<Secret>,
    kind: String,
}

fn store(reader: &Reader<'_>, which: &str) -> Result<Store, ConfigError> {
    let name = |part| format!("zookeeper.ssl.{which}.{part}");
    let location = text(reader, &name("location"));
    let given = text(reader, &name("type"));
    let password = text(reader, &name("password")).map(Secret::new);
    let kind = match (&given, &location) {
        (_, None) => "JKS".to_owned(),
        (Some(kind), _) => kind.trim().to_uppercase(),
        (None, Some(location)) => {
            let known = [(".jks", "JKS"), (".pem", "PEM"), (".p12", "PKCS12"), (".bcfks", "BCFKS")];
            let kind = known.iter().find(|(end, _)| location.ends_with(end)).map(|(_, kind)| (*kind).to_owned());
            let why = "Unable to auto-detect store file type from file name: it ends with .jks, .p12 or .pem, or \
                       the type is set";
            kind.ok_or_else(|| reader.invalid(&name("location"), &format!("{location}: {why}")))?
        }
    };
    if !["JKS", "PEM", "PKCS12"].contains(&kind.as_str()) {
        return Err(reader.invalid(&name("type"), &format!("{kind} not found: a store is JKS, PKCS12 or PEM")));
    }
    Ok(Store { location, password, kind })
}

/// `None`: ZooKeeper is spoken to in the clear.
///
/// # Errors
/// What is asked for is less safe here than it says, or contradicts itself.
pub(super) fn resolve(reader: &Reader<'_>) -> Result<Option<TlsSettings>, ConfigError> {
    let is_enabled = boolean(reader, ENABLE);
    let socket = text(reader, "zookeeper.clientCnxnSocket");
    let asked = ["zookeeper.ssl.crl.enable", "zookeeper.ssl.ocsp.enable"].map(|name| (name, boolean(reader, name)));
    let (key, trust) = (store(reader, "keystore"), store(reader, "truststore"));
    let protocol = text(reader, "zookeeper.ssl.protocol").unwrap_or_default();
    let mut enabled_protocols = list(reader, "zookeeper.ssl.enabled.protocols");
    let cipher_suites = list(reader, "zookeeper.ssl.cipher.suites");
    let checks_names = checks_names(reader);
    // Kafka looks at none of them either.
    if !is_enabled {
        return Ok(None);
    }
    if socket.as_deref().map(str::trim) != Some(NETTY) {
        // Java's other socket would speak in the clear.
        let why = format!("with {ENABLE} it must be {NETTY}");
        return Err(reader.invalid("zookeeper.clientCnxnSocket", &why));
    }
    if let Some((name, _)) = asked.iter().find(|(_, asked)| *asked) {
        return Err(reader.invalid(name, "whether a certificate was revoked cannot be asked here"));
    }
    let (key, trust) = (key?, trust?);
    if trust.location.is_none() {
        let why = format!("with {ENABLE} it must be set: there are no authorities that everybody trusts, as Java has");
        return Err(reader.invalid("zookeeper.ssl.truststore.location", &why));
    }
    if enabled_protocols.is_empty() {
        enabled_protocols.push(protocol);
    }
    let is_pem = key.kind == "PEM";
    Ok(Some(TlsSettings {
        listener: "ZooKeeper".into(),
        is_sasl: false,
        stores: Stores {
            keystore_password: key.password.clone().filter(|_| !is_pem),
            key_password: key.password,
            keystore_type: key.kind,
            keystore_location: key.location,
            keystore_key: None,
            keystore_chain: None,
            truststore_password: trust.password.filter(|_| trust.kind != "PEM"),
            truststore_type: trust.kind,
            truststore_location: trust.location,
            truststore_certificates: None,
        },
        client_auth: ClientAuth::None,
        enabled_protocols,
        protocol: "TLS".into(),
        cipher_suites,
        endpoint_identification: if checks_names { "https".into() } else { String::new() },
        principal_mapping_rules: String::new(),
        allow_dn_changes: false,
        allow_san_changes: false,
    }))
}

/// A line for each that is set while TLS is not switched on.
pub(super) fn warnings(reader: &Reader<'_>, is_over_tls: bool) -> Vec<String> {
    if is_over_tls {
        return Vec::new();
    }
    let given = PROPERTIES.iter().map(|(name, _)| *name).filter(|name| *name != ENABLE && reader.given(name).is_some());
    given.map(|name| format!("The configuration '{name}' has no effect without {ENABLE}.")).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{config, error};
    use super::super::{Config, Inputs, Machine};
    use super::*;

    const ON: [(&str, &str); 4] = [
        ("zookeeper.connect", "zoo:2182"),
        (ENABLE, "true"),
        ("zookeeper.clientCnxnSocket", NETTY),
        ("zookeeper.ssl.truststore.location", "/trust.jks"),
    ];

    fn of(given: &[(&str, &str)]) -> TlsSettings {
        config(&[&ON[..], given].concat()).zookeeper.expect("external").tls.expect("over TLS")
    }

    #[test]
    fn the_settings_are_zookeepers_with_its_defaults() {
        let plain = of(&[]);
        assert_eq!((plain.stores.truststore_type.as_str(), plain.stores.has_keystore()), ("JKS", false));
        assert_eq!(
            (plain.enabled_protocols.as_slice(), plain.endpoint_identification.as_str()),
            (&["TLSv1.2".to_owned()][..], "https")
        );
        let given = of(&[
            ("zookeeper.ssl.keystore.location", "/key.pem"),
            ("zookeeper.ssl.keystore.password", "hunter2"),
            ("zookeeper.ssl.truststore.type", "pkcs12"),
            ("zookeeper.ssl.enabled.protocols", "TLSv1.3,TLSv1.2"),
            ("zookeeper.ssl.cipher.suites", "TLS_AES_128_GCM_SHA256"),
            ("zookeeper.ssl.endpoint.identification.algorithm", ""),
        ]);
        assert_eq!((given.stores.keystore_type.as_str(), given.stores.keystore_password.is_some()), ("PEM", false));
        assert_eq!(given.stores.key_password.as_ref().map(Secret::reveal), Some("hunter2"));
        assert_eq!(given.stores.truststore_type, "PKCS12");
        assert_eq!((given.enabled_protocols.len(), given.cipher_suites.len()), (2, 1));
        assert_eq!(given.endpoint_identification, "");
        assert!(!format!("{given:?}").contains("hunter2"));
    }

    #[test]
    fn what_would_be_less_safe_than_it_says_ends_the_start() {
        let netty = |socket| error(&[ON[0], ON[1], ("zookeeper.clientCnxnSocket", socket), ON[3]]);
        assert!(netty("org.apache.zookeeper.ClientCnxnSocketNIO").contains("must be org.apache.zookeeper.Client"));
        assert!(error(&[ON[0], ON[1], ON[3]]).contains("zookeeper.clientCnxnSocket"));
        assert!(error(&ON[..3]).contains("zookeeper.ssl.truststore.location: with zookeeper.ssl.client.enable"));
        let with = |name, value| error(&[&ON[..], &[(name, value)]].concat());
        assert!(with("zookeeper.ssl.crl.enable", "true").contains("revoked"));
        assert!(with("zookeeper.ssl.ocsp.enable", "true").contains("revoked"));
        assert!(with("zookeeper.ssl.truststore.type", "BCFKS").contains("BCFKS not found"));
        assert!(with("zookeeper.ssl.keystore.location", "/key").contains("auto-detect"));
        assert!(with("zookeeper.set.acl", "true").contains("zookeeper.ssl.keystore.location was not present"));
        let mutual =
            [&ON[..], &[("zookeeper.set.acl", "true"), ("zookeeper.ssl.keystore.location", "/k.p12")]].concat();
        assert!(config(&mutual).zookeeper.expect("external").set_acl);
    }

    #[test]
    fn without_the_switch_none_of_them_counts_and_a_line_says_so() {
        let off = config(&[ON[0], ON[2], ON[3], ("zookeeper.ssl.keystore.location", "/key")]);
        assert_eq!(off.zookeeper.as_ref().expect("external").tls, None);
        assert_eq!(off.warnings().len(), 3, "{:?}", off.warnings());
        assert!(config(&ON).warnings().is_empty());
    }

    #[test]
    fn properties_of_the_jvm_count_where_a_setting_is_not_given() {
        let options = format!(
            "-Dzookeeper.client.secure=true -Dzookeeper.clientCnxnSocket={NETTY} \
             -Dzookeeper.ssl.trustStore.location=/theirs.p12 -Dzookeeper.ssl.trustStore.password=hunter2 \
             -Dzookeeper.ssl.hostnameVerification=false"
        );
        let of = |given: &[&str]| {
            let inputs = Inputs {
                overrides: given.iter().map(|setting| (*setting).to_owned()).collect(),
                environment: vec![("KAFKA_OPTS".into(), options.clone())],
                ..Inputs::default()
            };
            Config::load(&inputs, Machine::for_test()).expect("legal").zookeeper.expect("external").tls
        };
        let found = of(&["zookeeper.connect=a:1"]).expect("over TLS");
        assert_eq!(found.stores.truststore_location.as_deref(), Some("/theirs.p12"));
        assert_eq!((found.stores.truststore_type.as_str(), found.endpoint_identification.as_str()), ("PKCS12", ""));
        let mine = of(&["zookeeper.connect=a:1", "zookeeper.ssl.truststore.location=/mine.jks"]).expect("over TLS");
        assert_eq!(mine.stores.truststore_location.as_deref(), Some("/mine.jks"));
        assert_eq!(of(&["zookeeper.connect=a:1", "zookeeper.ssl.client.enable=false"]), None);
    }
}
