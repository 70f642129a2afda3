//! What the settings of a listener over TLS do, shown by handshakes.

use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::security::tls::testing::{Authority, Identity};
use crate::security::tls::{TlsListener, TlsListeners};
use crate::transport::Stream;

fn configured(settings: &[String]) -> Result<Config, String> {
    let mut overrides = vec![
        "listeners=SSL://127.0.0.1:0".to_owned(),
        "security.inter.broker.protocol=SSL".into(),
        "log.dirs=d".into(),
    ];
    overrides.extend_from_slice(settings);
    Config::load(&Inputs { overrides, ..Inputs::default() }, Machine::this()).map_err(|error| error.to_string())
}

fn opened(settings: &[String]) -> Result<Arc<TlsListener>, String> {
    let listeners = TlsListeners::open(&configured(settings)?).map_err(|error| error.to_string())?;
    Ok(Arc::clone(listeners.of("SSL").expect("it is over TLS")))
}

/// In the settings themselves.
fn inline(identity: &Identity, trusted: &str) -> Vec<String> {
    [
        ("ssl.keystore.type", "PEM"),
        ("ssl.keystore.key", &identity.key),
        ("ssl.keystore.certificate.chain", &identity.certificate),
        ("ssl.truststore.type", "PEM"),
        ("ssl.truststore.certificates", trusted),
    ]
    .map(|(name, value)| format!("{name}={value}"))
    .into()
}

fn and(settings: &[String], more: &[(&str, &str)]) -> Vec<String> {
    settings.iter().cloned().chain(more.iter().map(|(name, value)| format!("{name}={value}"))).collect()
}

/// Whom the broker takes the client for; `None`: they do not come together.
async fn met(broker: &[String], client: &[String], host: &str) -> Option<String> {
    let (broker, client) = (opened(broker).unwrap(), opened(client).unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let (connected, accepted) = tokio::join!(
        Stream::connect(socket, client.client().unwrap(), host),
        Stream::accept(accepted, broker.server())
    );
    connected.ok()?;
    broker.principal(accepted.ok()?.certificates()).ok().map(|principal| principal.to_string())
}

#[tokio::test]
async fn whom_a_listener_lets_in_is_as_set() {
    let authority = Authority::new("authority");
    let broker = inline(&authority.issue("broker", &["localhost"]), &authority.pem);
    let alice = inline(&authority.issue("alice", &[]), &authority.pem);
    assert_eq!(met(&broker, &alice, "localhost").await.as_deref(), Some("User:ANONYMOUS"));
    for auth in ["requested", "required"] {
        let asks = and(&broker, &[("ssl.client.auth", auth)]);
        assert_eq!(met(&asks, &alice, "localhost").await.as_deref(), Some("User:CN=alice,O=klamm"));
        let rules = and(&asks, &[("ssl.principal.mapping.rules", "RULE:CN=(\\w+),.*/$1/U")]);
        assert_eq!(met(&rules, &alice, "localhost").await.as_deref(), Some("User:ALICE"));
    }
    assert_eq!(met(&broker, &alice, "127.0.0.1").await, None, "it is not named so");
    let trusting = and(&alice, &[("ssl.endpoint.identification.algorithm", "")]);
    assert!(met(&broker, &trusting, "127.0.0.1").await.is_some());
}

#[tokio::test]
async fn what_is_spoken_is_as_set() {
    let authority = Authority::new("authority");
    let broker = inline(&authority.issue("broker", &["localhost"]), &authority.pem);
    let client = inline(&authority.issue("alice", &[]), &authority.pem);
    const AES_128: (&str, &str) = ("ssl.cipher.suites", "TLS_AES_128_GCM_SHA256");
    const AES_256: (&str, &str) = ("ssl.cipher.suites", "TLS_AES_256_GCM_SHA384");
    for (of_broker, of_client, meet) in [
        (("ssl.enabled.protocols", "TLSv1.3"), ("ssl.enabled.protocols", "TLSv1.2"), false),
        (("ssl.enabled.protocols", "TLSv1.2"), ("ssl.enabled.protocols", "TLSv1.2,TLSv1.3"), true),
        (("ssl.enabled.protocols", "TLSv1.3"), ("ssl.protocol", "TLSv1.2"), false),
        (("ssl.protocol", "TLSv1.2"), ("ssl.enabled.protocols", "TLSv1.3"), true),
        (AES_128, AES_256, false),
        (AES_128, AES_128, true),
    ] {
        let met = met(&and(&broker, &[of_broker]), &and(&client, &[of_client]), "localhost").await;
        assert_eq!(met.is_some(), meet, "{of_broker:?}, {of_client:?}");
    }
}

#[tokio::test]
async fn stores_are_those_that_are_set() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/security/tls/testdata");
    let at = |name: &str| data.join(name).display().to_string();
    let authority = Authority::new("authority");
    let client = inline(&authority.issue("alice", &[]), &authority.pem);
    let (encrypted, keystore, truststore) = (at("encrypted.pem"), at("keystore.p12"), at("truststore.p12"));
    let pem = and(&[], &[("ssl.keystore.type", "PEM"), ("ssl.keystore.location", &encrypted)]);
    assert!(opened(&pem).is_err_and(|why| why.contains("ssl.key.password")));
    assert!(opened(&and(&pem, &[("ssl.key.password", "other")])).is_err());
    assert!(opened(&and(&pem, &[("ssl.key.password", "keypass")])).is_ok());
    let p12 = and(&[], &[("ssl.keystore.type", "PKCS12"), ("ssl.keystore.location", &keystore)]);
    assert!(opened(&and(&p12, &[("ssl.keystore.password", "other")])).is_err());
    let p12 = and(&p12, &[("ssl.keystore.password", "storepass")]);
    let trusts = and(&p12, &[("ssl.truststore.type", "PKCS12"), ("ssl.truststore.location", &truststore)]);
    assert!(opened(&and(&trusts, &[("ssl.truststore.password", "other")])).is_err());
    let trusts = and(&trusts, &[("ssl.truststore.password", "storepass"), ("ssl.client.auth", "required")]);
    assert_eq!(met(&trusts, &client, "localhost").await, None, "neither trusts the other");
    let twice = and(&client, &[("ssl.truststore.location", &truststore)]);
    assert!(opened(&twice).is_err_and(|why| why.contains("Both SSL trust store location")));
}

#[test]
fn another_name_is_taken_only_where_that_is_allowed() {
    let authority = Authority::new("authority");
    let of = |name: &str, host: &str, more: &[(&str, &str)]| {
        configured(&and(&inline(&authority.issue(name, &[host]), &authority.pem), more)).unwrap()
    };
    let taken = |started: Config, next: Config| TlsListeners::open(&started).unwrap().check(&next);
    assert_eq!(taken(of("broker", "a", &[]), of("broker", "a", &[])), Ok(()));
    for (setting, name, host) in [("ssl.allow.dn.changes", "other", "a"), ("ssl.allow.san.changes", "broker", "b")] {
        assert!(taken(of("broker", "a", &[]), of(name, host, &[])).is_err(), "{setting}");
        assert_eq!(taken(of("broker", "a", &[(setting, "true")]), of(name, host, &[])), Ok(()));
    }
}

#[test]
fn passwords_lie_in_zookeeper_as_set() {
    let of = |more: &[(&str, &str)]| {
        let base = ["zookeeper.connect=h:1".to_owned(), "listeners=PLAINTEXT://127.0.0.1:0".into()];
        let base = [&base[..], &["security.inter.broker.protocol=PLAINTEXT".into()]].concat();
        configured(&and(&base, more))
    };
    let name = "listener.name.a.ssl.keystore.password".to_owned();
    let values = std::collections::BTreeMap::from([(name.clone(), "hunter2".to_owned())]);
    let first = of(&[("password.encoder.secret", "one"), ("password.encoder.iterations", "1024")]).unwrap();
    let stored = first.encoded(values.clone(), || 1);
    assert!(stored[&name].contains("iterations:1024,") && stored[&name].contains("keyLength:128,"));
    let other = of(&[("password.encoder.secret", "two")]).unwrap();
    assert_eq!(other.decoded(stored.clone()).1, std::slice::from_ref(&name));
    let moving = [("password.encoder.secret", "two"), ("password.encoder.old.secret", "one")];
    let longer = ("password.encoder.key.length", "256");
    let sum = ("password.encoder.keyfactory.algorithm", "PBKDF2WithHmacSHA256");
    let moving = of(&[moving[0], moving[1], longer, sum]).unwrap();
    assert_eq!(moving.decoded(stored).0, values);
    let anew = moving.encoded(values, || 1);
    assert!(anew[&name].contains("keyLength:256,") && anew[&name].contains("PBKDF2WithHmacSHA256"));
    let refused = of(&[("password.encoder.secret", "one"), ("password.encoder.cipher.algorithm", "DES")]);
    assert!(refused.is_err_and(|why| why.contains("password.encoder.cipher.algorithm")));
}
