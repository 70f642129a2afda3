//! What the settings of TLS towards ZooKeeper do: shown by handshakes, and by a real server.

use std::net::{IpAddr, Ipv4Addr};

use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::coordination::Coordination;
use crate::coordination::zookeeper::testing::ZookeeperServer;
use crate::coordination::zookeeper::{ZookeeperConfig, ZookeeperCoordination};
use crate::security::tls::TlsListener;
use crate::security::tls::testing::{self, Authority, Identity};
use crate::security::tls::zookeeper::TowardsZookeeper;
use crate::transport::Stream;

const NETTY: &str = "zookeeper.clientCnxnSocket=org.apache.zookeeper.ClientCnxnSocketNetty";
const ENABLED: &str = "zookeeper.ssl.client.enable=true";

fn towards(settings: &[&str]) -> Result<TowardsZookeeper, String> {
    let on = ["zookeeper.connect=localhost:1", ENABLED, NETTY];
    let config = load(Path::new("d"), &[&on, settings].concat()).map_err(|error| error.to_string())?;
    TowardsZookeeper::open(&config.zookeeper.expect("external").tls.expect("over TLS"))
}

/// Whether a client with these settings comes together with a server of this kind, and whom that takes it for.
async fn met(settings: &[&str], server: &Arc<TlsListener>, host: &str) -> Option<String> {
    let towards = towards(settings).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let socket = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    // Not the address of its certificate.
    let session = towards.session(host, IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9))).unwrap();
    let (connected, accepted) =
        tokio::join!(Stream::connect_as(socket, session), Stream::accept(accepted, server.server()));
    connected.ok()?;
    server.principal(accepted.ok()?.certificates()).ok().map(|principal| principal.to_string())
}

/// Files of one test.
struct Files(tempfile::TempDir);

impl Files {
    fn write(&self, name: &str, text: &str) -> String {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

fn whole(identity: &Identity) -> String {
    format!("{}{}", identity.key, identity.certificate)
}

#[tokio::test]
async fn what_zookeeper_is_spoken_to_with_is_as_set() {
    let authority = Authority::new("authority");
    let files = Files(tempfile::tempdir().unwrap());
    let trust = format!("zookeeper.ssl.truststore.location={}", files.write("trust.pem", &authority.pem));
    let server = |protocols: &[&str]| {
        let mut server = testing::with(&authority.issue("zoo", &["localhost"]), &[&authority.pem]);
        server.client_auth = crate::config::ClientAuth::Requested;
        server.enabled_protocols = protocols.iter().map(|name| (*name).to_owned()).collect();
        TlsListener::new(server, false).unwrap()
    };
    let (old, new) = (server(&["TLSv1.2"]), server(&["TLSv1.3"]));
    const NEW: &str = "zookeeper.ssl.enabled.protocols=TLSv1.3";
    assert!(met(&[&trust], &old, "localhost").await.is_some(), "by default 1.2");
    assert!(met(&[&trust], &new, "localhost").await.is_none(), "and no other");
    assert!(met(&[&trust, "zookeeper.ssl.protocol=TLSv1.3"], &new, "localhost").await.is_some());
    assert!(met(&[&trust, NEW], &new, "localhost").await.is_some());
    let suite = "zookeeper.ssl.cipher.suites=TLS_AES_128_GCM_SHA256";
    assert!(met(&[&trust, NEW, suite], &new, "localhost").await.is_some());
    assert!(towards(&[&trust, suite]).unwrap_err().starts_with("zookeeper.ssl.cipher.suites: none of these"));
    assert!(met(&[&trust], &old, "elsewhere").await.is_none(), "it is not named so");
    let unnamed = "zookeeper.ssl.endpoint.identification.algorithm=";
    assert!(met(&[&trust, unnamed], &old, "elsewhere").await.is_some());

    let alice = whole(&authority.issue("alice", &[]));
    let key = format!("zookeeper.ssl.keystore.location={}", files.write("alice", &alice));
    let pem = "zookeeper.ssl.keystore.type=PEM";
    assert_eq!(met(&[&trust, &key, pem], &old, "localhost").await.as_deref(), Some("User:CN=alice,O=klamm"));
    assert!(towards(&[&trust, &key]).unwrap_err().contains("auto-detect"));

    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/security/tls/testdata");
    let at = |setting: &str, name: &str| format!("zookeeper.ssl.{setting}.location={}", data.join(name).display());
    let (keystore, encrypted) = (at("keystore", "keystore.p12"), at("keystore", "encrypted.pem"));
    let password = |password: &str| format!("zookeeper.ssl.keystore.password={password}");
    assert!(towards(&[&trust, &keystore, &password("storepass")]).is_ok());
    let refused = towards(&[&trust, &keystore, &password("hunter2")]).unwrap_err();
    assert!(refused.starts_with("zookeeper.ssl.keystore.location=") && !refused.contains("hunter2"), "{refused}");
    assert!(towards(&[&trust, &encrypted, &password("keypass")]).is_ok(), "the key has the store's password");
    assert!(towards(&[&trust, &encrypted]).unwrap_err().contains("zookeeper.ssl.keystore.password is not given"));
    let truststore = at("truststore", "truststore.p12");
    assert!(towards(&[&truststore, "zookeeper.ssl.truststore.password=storepass"]).is_ok());
    assert!(towards(&[&truststore, "zookeeper.ssl.truststore.password=other"]).is_err());
    let typed = format!("zookeeper.ssl.truststore.location={}", files.write("trust", &authority.pem));
    assert!(met(&[&typed, "zookeeper.ssl.truststore.type=PEM"], &old, "localhost").await.is_some());
}

#[test]
fn revocation_cannot_be_asked_for() {
    for name in ["zookeeper.ssl.crl.enable=true", "zookeeper.ssl.ocsp.enable=true"] {
        let refused =
            refusal(&["zookeeper.connect=a:1", ENABLED, NETTY, "zookeeper.ssl.truststore.location=/t.jks", name]);
        assert!(refused.contains("revoked"), "{refused}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zookeeper_is_met_over_tls_as_is_set() {
    let authority = Authority::new("authority");
    let zoo = whole(&authority.issue("zoo", &["127.0.0.1"]));
    let Some(mut server) = ZookeeperServer::start_over_tls(&zoo, &authority.pem) else { return };
    let files = Files(tempfile::tempdir().unwrap());
    let trust = format!("zookeeper.ssl.truststore.location={}", files.write("trust.pem", &authority.pem));
    let alice = files.write("alice.pem", &whole(&authority.issue("alice", &[])));
    let key = format!("zookeeper.ssl.keystore.location={alice}");
    let connect = format!("zookeeper.connect={}/acl", server.secure_address());
    let on = [connect.as_str(), ENABLED, NETTY, "zookeeper.set.acl=true", "zookeeper.session.timeout.ms=30000"];
    let data = tempfile::tempdir().unwrap();
    let broker = Broker::start(load(data.path(), &[&on[..], &[&trust, &key]].concat()).unwrap()).await.unwrap();
    let address = format!("{}/acl", server.address());
    let stranger = ZookeeperCoordination::connect(ZookeeperConfig::new(address)).await.unwrap();
    for path in ["/brokers/ids/1", "/controller"] {
        assert!(stranger.get(path).await.unwrap().is_some(), "everybody may read {path}");
        assert!(stranger.set(path, Default::default(), -1).await.is_err(), "the certificate alone may write {path}");
    }
    assert!(stranger.children("/config/users").await.is_err(), "and read this");
    let epoch = stranger.get("/brokers/ids/1").await.unwrap().unwrap().1.czxid;
    server.kill();
    server.restart();
    eventually("the broker is there again", async || {
        matches!(stranger.get("/brokers/ids/1").await, Ok(Some((_, stat))) if stat.czxid == epoch)
            && broker.controller.is_active()
    })
    .await;
    broker.stop().await;
    stranger.close().await;

    // Each within the time-out, with the reason.
    let in_time = "zookeeper.connection.timeout.ms=1500";
    let others = files.write("others.pem", &Authority::new("others").pem);
    let others = format!("zookeeper.ssl.truststore.location={others}");
    for (stores, reason) in [
        (vec![others.as_str(), key.as_str()], "SSL handshake failed: invalid peer certificate: UnknownIssuer"),
        (vec![trust.as_str()], "SSL handshake failed: received fatal alert"),
    ] {
        // A machine that stood still for that long has no reason to tell.
        let mut refused = String::new();
        for _ in 0..5 {
            let data = tempfile::tempdir().unwrap();
            let settings = [&on[..3], &[in_time], &stores].concat();
            refused = Broker::start(load(data.path(), &settings).unwrap()).await.unwrap_err().to_string();
            assert!(refused.contains("cannot be used"), "{refused}");
            if refused.contains(reason) {
                break;
            }
        }
        assert!(refused.contains(reason), "{refused}");
    }
}
