//! Stores of all kinds, who is let in, and what may take a keystore's place.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, ServerConfig, ServerConnection};

use super::listener::TlsListener;
use super::testing::{Authority, Identity, converse, self_signed, settings, stores, with};
use crate::config::tls::Stores;
use crate::config::{ClientAuth, Secret, TlsSettings};

fn open(settings: TlsSettings) -> Result<Arc<TlsListener>, String> {
    TlsListener::new(settings, false).map_err(|error| error.to_string())
}

/// Whom the server takes the client for, once both have shaken hands.
fn shake_hands(server: &TlsListener, client: &TlsListener, host: &str) -> Result<String, String> {
    let config = client.client().expect("a truststore");
    let (server_config, host) = (server.server(), host.to_owned());
    let certificates = exchange(&server_config, &config, &host)?;
    server.principal(certificates.as_deref()).map(|principal| principal.to_string())
}

type Certificates = Option<Vec<rustls::pki_types::CertificateDer<'static>>>;

fn exchange(server: &Arc<ServerConfig>, client: &Arc<ClientConfig>, host: &str) -> Result<Certificates, String> {
    let host = ServerName::try_from(host.to_owned()).expect("a host");
    let mut server = ServerConnection::new(Arc::clone(server)).expect("a session");
    let mut client = ClientConnection::new(Arc::clone(client), host).expect("a session");
    converse(&mut client, &mut server)?;
    assert!(!server.is_handshaking() && !client.is_handshaking());
    Ok(server.peer_certificates().map(<[_]>::to_vec))
}

#[test]
fn a_client_is_whom_its_certificate_names() {
    let authority = Authority::new("authority");
    let broker = authority.issue("broker", &["localhost"]);
    let alice = open(with(&authority.issue("alice", &[]), &[&authority.pem])).expect("opens");
    let of = |auth, rules: &str| {
        let mut settings = with(&broker, &[&authority.pem]);
        settings.client_auth = auth;
        settings.principal_mapping_rules = rules.into();
        open(settings).expect("opens")
    };
    let greets = |server: &TlsListener| shake_hands(server, &alice, "localhost");
    assert_eq!(greets(&of(ClientAuth::Required, "DEFAULT")).as_deref(), Ok("User:CN=alice,O=klamm"));
    assert_eq!(greets(&of(ClientAuth::Requested, "RULE:CN=(\\w+),.*/$1/U")).as_deref(), Ok("User:ALICE"));
    assert_eq!(greets(&of(ClientAuth::None, "DEFAULT")).as_deref(), Ok("User:ANONYMOUS"));
    let mut sasl = with(&broker, &[&authority.pem]);
    (sasl.client_auth, sasl.is_sasl) = (ClientAuth::Required, true);
    assert_eq!(greets(&open(sasl).expect("opens")).as_deref(), Ok("User:ANONYMOUS"), "SASL says who it is");
    let refused = greets(&of(ClientAuth::Required, "RULE:CN=bob/$1/")).expect_err("no rule");
    assert_eq!(refused, "No rules apply to CN=alice,O=klamm");
}

#[test]
fn who_is_not_trusted_does_not_get_in() {
    let (authority, other) = (Authority::new("authority"), Authority::new("other"));
    let mut asks = with(&authority.issue("broker", &["localhost"]), &[&authority.pem]);
    asks.client_auth = ClientAuth::Required;
    let server = open(asks.clone()).expect("opens");
    let mallory = open(with(&other.issue("alice", &[]), &[&authority.pem])).expect("opens");
    assert!(shake_hands(&server, &mallory, "localhost").is_err_and(|why| why.contains("UnknownIssuer")));
    asks.client_auth = ClientAuth::Requested;
    let requested = open(asks).expect("opens");
    assert!(shake_hands(&requested, &mallory, "localhost").is_err(), "what is shown must be good");
    let alice = open(with(&authority.issue("alice", &[]), &[&authority.pem])).expect("opens");
    let wrong = shake_hands(&server, &alice, "elsewhere").expect_err("another name");
    assert!(wrong.contains("NotValidForName"), "{wrong}");
    let stranger = open(with(&authority.issue("alice", &[]), &[&other.pem])).expect("opens");
    assert!(shake_hands(&server, &stranger, "localhost").is_err_and(|why| why.contains("UnknownIssuer")));
}

#[test]
fn names_are_looked_at_only_where_that_is_asked_for() {
    let authority = Authority::new("authority");
    let of = |broker: &Identity| open(with(broker, &[])).expect("opens");
    let client = |algorithm: &str| {
        let mut settings = with(&authority.issue("alice", &[]), &[&authority.pem]);
        settings.endpoint_identification = algorithm.into();
        open(settings).expect("opens")
    };
    let elsewhere = of(&authority.issue("broker", &["elsewhere"]));
    assert!(shake_hands(&elsewhere, &client("https"), "localhost").is_err());
    assert!(shake_hands(&elsewhere, &client(""), "localhost").is_ok());
    let by_common_name = of(&authority.issue("localhost", &[]));
    assert!(shake_hands(&by_common_name, &client("https"), "localhost").is_ok(), "as Java takes it");
    assert!(shake_hands(&by_common_name, &client("https"), "127.0.0.1").is_err());
    let by_both = of(&authority.issue("localhost", &["elsewhere", "127.0.0.1"]));
    assert!(shake_hands(&by_both, &client("https"), "localhost").is_err(), "there is an alternative name");
    assert!(shake_hands(&by_both, &client("https"), "127.0.0.1").is_ok());
}

#[test]
fn a_certificate_in_the_truststore_is_trusted_as_it_is() {
    let (broker, alice) = (self_signed("broker", &["localhost"]), self_signed("alice", &[]));
    let mut asks = with(&broker, &[&alice.certificate]);
    asks.client_auth = ClientAuth::Required;
    let server = open(asks).expect("opens");
    let client = open(with(&alice, &[&broker.certificate])).expect("opens");
    assert_eq!(shake_hands(&server, &client, "localhost").as_deref(), Ok("User:CN=alice,O=klamm"));
    let mallory = open(with(&self_signed("alice", &[]), &[&broker.certificate])).expect("opens");
    assert!(shake_hands(&server, &mallory, "localhost").is_err());
}

#[test]
fn a_single_certificate_that_is_trusted_signs_no_others() {
    let (broker, authority) = (self_signed("broker", &["localhost"]), Authority::new("authority"));
    for usage in [None, Some(KeyUsagePurpose::DigitalSignature)] {
        // What its owner can make with its key.
        let leaf = Authority::of("alice", IsCa::ExplicitNoCa, usage);
        let admin = leaf.issue("admin", &["localhost"]);
        for others in [&[][..], &[authority.pem.as_str()]] {
            let trusted = [&[leaf.pem.as_str()][..], others].concat();
            let mut asks = with(&broker, &trusted);
            asks.client_auth = ClientAuth::Required;
            let server = open(asks).expect("opens");
            let client = open(with(&admin, &[&broker.certificate])).expect("opens");
            assert!(shake_hands(&server, &client, "localhost").is_err_and(|why| why.contains("UnknownIssuer")));
            let server = open(with(&admin, &[])).expect("opens");
            let client = open(with(&broker, &trusted)).expect("opens");
            assert!(shake_hands(&server, &client, "localhost").is_err_and(|why| why.contains("UnknownIssuer")));
        }
    }
    // An authority that may not sign certificates is none.
    let no_signer = Authority::of("a", IsCa::Ca(BasicConstraints::Unconstrained), Some(KeyUsagePurpose::CrlSign));
    let server = open(with(&no_signer.issue("b", &["localhost"]), &[])).expect("opens");
    let client = open(with(&broker, &[&no_signer.pem])).expect("opens");
    assert!(shake_hands(&server, &client, "localhost").is_err());
}

/// `openssl x509 -req` without extensions writes version 1, and so did Kafka's documentation.
#[test]
fn certificates_of_version_1_are_good_if_a_trusted_one_signed_them() {
    let identity = Identity {
        certificate: include_str!("testdata/version1.pem").into(),
        key: include_str!("testdata/version1.key").into(),
    };
    let authority = include_str!("testdata/version1-ca.pem");
    for protocol in ["TLSv1.2", "TLSv1.3"] {
        let mut asks = with(&identity, &[authority]);
        asks.client_auth = ClientAuth::Required;
        asks.enabled_protocols = vec![protocol.into()];
        let server = open(asks.clone()).expect("opens");
        let client = open(asks).expect("opens");
        assert_eq!(
            shake_hands(&server, &client, "localhost").as_deref(),
            Ok("User:CN=localhost,O=klamm"),
            "{protocol}"
        );
        let other = Authority::new("version 1");
        let mut trusts_another = with(&identity, &[&other.pem]);
        trusts_another.enabled_protocols = vec![protocol.into()];
        assert!(shake_hands(&server, &open(trusts_another).expect("opens"), "localhost").is_err());
    }
}

fn in_files(kind: &str, keystore: &Path, password: Option<&str>) -> TlsSettings {
    let mut settings = settings("A");
    settings.stores = Stores {
        keystore_type: kind.into(),
        keystore_location: Some(keystore.display().to_string()),
        keystore_password: password.map(Secret::new),
        ..settings.stores
    };
    settings
}

#[test]
fn stores_are_read_in_every_format_by_what_they_are() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/security/tls/testdata");
    let jks = data.join("keystore.jks");
    for kind in ["JKS", "PKCS12"] {
        let mut settings = in_files(kind, &jks, Some("storepass"));
        assert!(open(settings.clone()).is_err_and(|why| why.contains("Cannot recover key")));
        settings.stores.key_password = Some(Secret::new("keypass"));
        let listener = open(settings).expect("its password");
        assert_eq!(listener.names(), ["broker: CN=broker,O=klamm"]);
    }
    for file in ["keystore.p12", "keystore-openssl.p12", "keystore-legacy.p12"] {
        for kind in ["JKS", "PKCS12"] {
            let listener =
                open(in_files(kind, &data.join(file), Some("storepass"))).unwrap_or_else(|why| panic!("{why}"));
            assert!(listener.names()[0].ends_with(": CN=broker,O=klamm"), "{file}: {:?}", listener.names());
        }
    }
    for file in ["truststore.p12", "keystore.jks"] {
        let mut settings = in_files("PKCS12", &data.join("keystore.p12"), Some("storepass"));
        settings.client_auth = ClientAuth::Required;
        settings.stores.truststore_type = "JKS".into();
        settings.stores.truststore_location = Some(data.join(file).display().to_string());
        settings.stores.truststore_password = Some(Secret::new("storepass"));
        assert!(open(settings).is_ok(), "{file}");
    }
}

/// Whoever may set a listener's keystore may set any file.
#[test]
fn no_broken_file_ends_in_a_panic() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/security/tls/testdata");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("store");
    for (name, kind, step) in [("keystore-legacy.p12", "PKCS12", 11), ("encrypted.pem", "PEM", 23)] {
        let whole = fs::read(data.join(name)).expect("there");
        for at in (0..whole.len()).step_by(step) {
            let mut broken = whole.clone();
            broken[at] ^= 0x15;
            fs::write(&file, &broken).expect("written");
            let mut settings = in_files(kind, &file, (kind != "PEM").then_some("storepass"));
            settings.stores.key_password = Some(Secret::new("keypass"));
            drop(open(settings));
            fs::write(&file, &whole[..at]).expect("written");
            assert!(open(in_files(kind, &file, (kind != "PEM").then_some("storepass"))).is_err(), "{name}, {at}");
        }
    }
}

#[test]
fn a_key_may_be_encrypted() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/security/tls/testdata");
    let pem = data.join("encrypted.pem");
    let mut settings = in_files("PEM", &pem, None);
    let refused = open(settings.clone()).expect_err("no password");
    assert!(refused.contains("ssl.key.password is not given"), "{refused}");
    settings.stores.key_password = Some(Secret::new("hunter2"));
    let refused = open(settings.clone()).expect_err("another password");
    assert!(refused.contains("cannot be decrypted") && !refused.contains("hunter2"), "{refused}");
    settings.stores.key_password = Some(Secret::new("keypass"));
    assert!(open(settings).is_ok());
}

#[test]
fn what_cannot_be_read_is_told_with_its_key_and_file() {
    let authority = Authority::new("authority");
    let broker = authority.issue("broker", &["localhost"]);
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("store");
    let error = |settings: TlsSettings| open(settings).expect_err("refused");
    let shown = file.display().to_string();
    let missing = error(in_files("PKCS12", &file, Some("hunter2")));
    assert_eq!(missing, format!("ssl.keystore.location={shown}: No such file or directory (os error 2)"));
    fs::write(&file, "rubbish").expect("written");
    for kind in ["PKCS12", "JKS", "PEM", "BKS"] {
        let error = error(in_files(kind, &file, Some("hunter2")));
        assert!(
            error.starts_with(&format!("ssl.keystore.location={shown}: ")) && !error.contains("hunter2"),
            "{error}"
        );
    }
    let mut settings = with(&broker, &[]);
    settings.stores.truststore_location = Some(shown.clone());
    assert!(error(settings).starts_with(&format!("ssl.truststore.location={shown}: No matching CERTIFICATE")));
    let mut settings = with(&broker, &[]);
    settings.client_auth = ClientAuth::Required;
    assert!(error(settings).starts_with("ssl.truststore.location: ssl.client.auth=required needs one"));
    let other = Identity { key: authority.issue("broker", &[]).key, ..broker.clone() };
    assert!(error(with(&other, &[])).contains("is not that of the certificate"));
    assert!(error(settings_without_keystore()).contains("ssl.keystore.location: a listener over TLS needs one"));
    let mut settings = with(&broker, &[]);
    settings.principal_mapping_rules = "RULE:(/$1/".into();
    assert!(error(settings).starts_with("ssl.principal.mapping.rules: Invalid rule"));
}

fn settings_without_keystore() -> TlsSettings {
    settings("A")
}

#[test]
fn brokers_must_be_able_to_shake_hands_with_their_own_kind() {
    let (authority, other) = (Authority::new("authority"), Authority::new("other"));
    let mut own = with(&authority.issue("broker", &["elsewhere"]), &[&authority.pem]);
    own.client_auth = ClientAuth::Required;
    assert!(TlsListener::new(own.clone(), true).is_ok(), "whatever the name");
    own.stores = stores(&authority.issue("broker", &["elsewhere"]), &[&other.pem]);
    let refused = TlsListener::new(own.clone(), true).expect_err("not its own kind").to_string();
    assert!(refused.contains("can't connect to a server SSLEngine created with those settings"), "{refused}");
    assert!(TlsListener::new(own, false).is_ok());
}

#[test]
fn a_keystore_is_replaced_by_its_like_alone() {
    let authority = Authority::new("authority");
    let of = |name: &str, names: &[&str]| stores(&authority.issue(name, names), &[&authority.pem]);
    let listener = open(with(&authority.issue("broker", &["a", "b"]), &[&authority.pem])).expect("opens");
    let before = listener.server();
    listener.take(&of("broker", &["a", "b", "c"])).expect("one name more");
    assert!(!Arc::ptr_eq(&before, &listener.server()));
    let before = listener.server();
    let refused = |stores: &Stores| listener.take(stores).expect_err("refused");
    for (stores, expected) in [
        (
            of("another", &["a", "b", "c"]),
            "Keystore DistinguishedName does not match:  existing={alias=kafka, DN=CN=broker",
        ),
        (
            of("broker", &["a", "b"]),
            "Keystore SubjectAltNames do not match:  existing={alias=kafka, SAN=[[2, a], [2, b]",
        ),
        (settings("A").stores, "Cannot remove the SSL keystore from an existing listener"),
    ] {
        assert!(refused(&stores).contains(expected), "{}", refused(&stores));
        assert_eq!(listener.check(&stores), Err(refused(&stores)));
    }
    assert!(Arc::ptr_eq(&before, &listener.server()), "what is in use stays");
    let mut allowing = with(&authority.issue("broker", &["a"]), &[]);
    (allowing.allow_dn_changes, allowing.allow_san_changes) = (true, true);
    let allowing = open(allowing).expect("opens");
    allowing.take(&stores(&authority.issue("another", &["z"]), &[])).expect("allowed");
    let added = allowing.take(&of("another", &["z"])).expect_err("a truststore");
    assert!(added.contains("Cannot add SSL truststore to an existing listener"), "{added}");
}

#[test]
fn a_file_that_changed_under_its_name_is_read_again() {
    let authority = Authority::new("authority");
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("broker.pem");
    let write =
        |identity: &Identity| fs::write(&file, format!("{}{}", identity.key, identity.certificate)).expect("written");
    write(&authority.issue("broker", &["a"]));
    let listener = open(in_files("PEM", &file, None)).expect("opens");
    let stores = in_files("PEM", &file, None).stores;
    let before = listener.server();
    listener.take(&stores).expect("the same");
    assert!(Arc::ptr_eq(&before, &listener.server()), "nothing has changed");
    write(&authority.issue("broker", &["a"]));
    let later = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(4_000_000_000);
    fs::File::options().write(true).open(&file).expect("there").set_modified(later).expect("set");
    listener.take(&stores).expect("its like");
    assert!(!Arc::ptr_eq(&before, &listener.server()));
    fs::write(&file, "rubbish").expect("written");
    let before = listener.server();
    assert!(listener.take(&stores).is_err());
    assert!(Arc::ptr_eq(&before, &listener.server()), "what is in use stays");
}
