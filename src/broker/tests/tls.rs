//! A broker with a listener over TLS: who gets in, who does not, and keys that are replaced while it runs.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    DescribeConfigsRequest, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, MetadataRequest,
};
use kafka_protocol::protocol::StrBytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Broker, Config, Inputs, Machine, WireClient, create, fetch, produce};
use crate::metrics;
use crate::security::tls::TlsListener;
use crate::security::tls::testing::{self, Authority, Identity};
use crate::transport::{HandshakeError, Stream};

/// Plain first, then TLS.
fn config(dir: &Path, broker: &Identity, trusted: &str, more: &[String]) -> Config {
    let file = |name: &str, text: &str| {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let keystore = file("broker.pem", &format!("{}{}", broker.key, broker.certificate));
    let truststore = file("trusted.pem", trusted);
    let mut overrides = vec![
        "broker.id=1".to_owned(),
        "klamm.disk.reserve.bytes=0".into(),
        "listeners=PLAINTEXT://127.0.0.1:0,SECURE://127.0.0.1:0".into(),
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SECURE:SSL".into(),
        format!("log.dirs={}", dir.join("data").display()),
        "listener.name.secure.ssl.keystore.type=PEM".into(),
        format!("listener.name.secure.ssl.keystore.location={keystore}"),
        "listener.name.secure.ssl.truststore.type=PEM".into(),
        format!("listener.name.secure.ssl.truststore.location={truststore}"),
    ];
    overrides.extend_from_slice(more);
    Config::load(&Inputs { overrides, ..Inputs::default() }, Machine::this()).unwrap()
}

fn client(identity: &Identity, trusted: &str) -> Arc<TlsListener> {
    TlsListener::new(testing::with(identity, &[trusted]), false).unwrap()
}

async fn connect(broker: &Broker, client: &TlsListener) -> Result<WireClient, HandshakeError> {
    let socket = TcpStream::connect(broker.addresses()[1]).await.unwrap();
    let stream = Stream::connect(socket, client.client().unwrap(), "127.0.0.1").await?;
    Ok(WireClient { stream, correlation: 0 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_go_through_tls_and_come_back_through_it() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new("authority"));
    let identity = authority.issue("broker", &["127.0.0.1"]);
    let broker = Broker::start(config(dir.path(), &identity, &authority.pem, &["klamm.tail.bytes=100000".into()]))
        .await
        .unwrap();
    let mut client = connect(&broker, &client(&authority.issue("alice", &[]), &authority.pem)).await.unwrap();
    create(&mut client, "t").await;
    // Larger than what is encrypted ahead, so that answers come in several pieces.
    let values: Vec<String> = (0..9).map(|at| at.to_string().repeat(100_000)).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    assert_eq!(client.call(&produce("t", &values), 9).await.responses[0].partition_responses[0].error_code, 0);
    let fetched = client.call(&fetch("t", 0), 12).await;
    let records = fetched.responses[0].partitions[0].records.clone().unwrap();
    assert!(records.len() > 900_000);
    let mut plain = WireClient::connect(&broker).await;
    let same = plain.call(&fetch("t", 0), 12).await;
    assert_eq!(same.responses[0].partitions[0].records, Some(records));
    // Much more than the tail's budget below: from their tables.
    for _ in 0..4 {
        client.call(&produce("t", &values), 9).await;
    }
    for offset in [9, 18, 27] {
        let [over_tls, plainly] =
            [client.call(&fetch("t", offset), 12).await, plain.call(&fetch("t", offset), 12).await];
        let records = over_tls.responses[0].partitions[0].records.clone().unwrap();
        assert!(records.len() > 900_000 && records[..8] == offset.to_be_bytes());
        assert!(plainly.responses[0].partitions[0].records == Some(records));
    }
    let endpoint = &client.call(&MetadataRequest::default(), 1).await.brokers[0];
    assert_eq!(endpoint.port, i32::from(broker.addresses()[1].port()), "the listener that was asked");
    let metrics = broker.watched.metrics();
    assert!(metrics.contains("\nklamm_certificate_expires_timestamp_seconds{listener=\"SECURE\"} "), "{metrics}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_shows_no_good_certificate_stays_outside() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new("authority"));
    let identity = authority.issue("broker", &["127.0.0.1"]);
    let required = ["listener.name.secure.ssl.client.auth=required".to_owned()];
    let broker = Broker::start(config(dir.path(), &identity, &authority.pem, &required)).await.unwrap();
    let before = metrics::HANDSHAKES_REFUSED.get();
    let alice = client(&authority.issue("alice", &[]), &authority.pem);
    let mut alice = connect(&broker, &alice).await.unwrap();
    alice.call(&MetadataRequest::default(), 1).await;
    let mallory = client(&Authority::new("another").issue("alice", &[]), &authority.pem);
    // With TLS 1.3 the client has shaken hands before it is refused.
    if let Ok(mut mallory) = connect(&broker, &mallory).await {
        mallory.send_raw(&[0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff]).await;
        assert_eq!(mallory.frame().await, None);
    }
    let mut plain = TcpStream::connect(broker.addresses()[1]).await.unwrap();
    plain.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff]).await.unwrap();
    let mut told = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(20), plain.read_to_end(&mut told)).await;
    assert!(ended.is_ok() && told.len() < 100, "an alert at most: {told:?}");
    assert!(metrics::HANDSHAKES_REFUSED.get() >= before + 2);
    alice.call(&MetadataRequest::default(), 1).await;
    broker.stop().await;
}

/// Whoever connects and says nothing holds up neither others nor the end of the broker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_instead_of_a_handshake_holds_up_nobody() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new("authority"));
    let identity = authority.issue("broker", &["127.0.0.1"]);
    let few = ["max.connections.per.ip=20".to_owned()];
    let broker = Broker::start(config(dir.path(), &identity, &authority.pem, &few)).await.unwrap();
    let alice = client(&authority.issue("alice", &[]), &authority.pem);
    let mut silent = Vec::new();
    for _ in 0..10 {
        let mut socket = TcpStream::connect(broker.addresses()[1]).await.unwrap();
        socket.write_all(&[0x16, 3, 1]).await.unwrap();
        silent.push(socket);
    }
    connect(&broker, &alice).await.unwrap().call(&MetadataRequest::default(), 1).await;
    for _ in 0..20 {
        silent.push(TcpStream::connect(broker.addresses()[1]).await.unwrap());
    }
    // They are counted from the beginning.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while connect(&broker, &alice).await.is_ok() {
        assert!(tokio::time::Instant::now() < deadline, "silent connections are not counted");
    }
    let stopped = tokio::time::timeout(Duration::from_secs(20), broker.stop()).await;
    assert!(stopped.is_ok(), "a stop does not wait for handshakes");
}

async fn set(client: &mut WireClient, settings: &[(&str, &str)]) -> IncrementalAlterConfigsResponse {
    let settings = settings.iter().map(|(name, value)| {
        let text = |text: &str| StrBytes::from_string(text.to_owned());
        AlterableConfig::default().with_name(text(name)).with_value(Some(text(value)))
    });
    let resource = AlterConfigsResource::default()
        .with_resource_type(4)
        .with_resource_name(StrBytes::from_static_str("1"))
        .with_configs(settings.collect());
    client.call(&IncrementalAlterConfigsRequest::default().with_resources(vec![resource]), 1).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_replaced_while_the_broker_runs_and_connections_stay() {
    let (dir, old, new) = (tempfile::tempdir().unwrap(), Authority::new("old"), Authority::new("new"));
    let before = old.issue("broker", &["127.0.0.1"]);
    let broker = Broker::start(config(dir.path(), &before, &old.pem, &[])).await.unwrap();
    let trusts = |authority: &Authority| client(&authority.issue("alice", &[]), &authority.pem);
    let (of_old, of_new) = (trusts(&old), trusts(&new));
    let mut stays = connect(&broker, &of_old).await.unwrap();
    assert!(connect(&broker, &of_new).await.is_err());
    let mut admin = WireClient::connect(&broker).await;

    // Under another name.
    let after = new.issue("broker", &["127.0.0.1"]);
    let path = dir.path().join("next.pem");
    std::fs::write(&path, format!("{}{}", after.key, after.certificate)).unwrap();
    let path = path.display().to_string();
    const LOCATION: &str = "listener.name.secure.ssl.keystore.location";
    let answer = set(&mut admin, &[(LOCATION, &path)]).await;
    assert_eq!(answer.responses[0].error_code, 0, "{answer:?}");
    connect(&broker, &of_new).await.unwrap().call(&MetadataRequest::default(), 1).await;
    assert!(connect(&broker, &of_old).await.is_err());
    stays.call(&MetadataRequest::default(), 1).await;

    // The same file, with other contents.
    std::fs::write(&path, format!("{}{}", before.key, before.certificate)).unwrap();
    let later = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    std::fs::File::options().write(true).open(&path).unwrap().set_modified(later).unwrap();
    assert_eq!(set(&mut admin, &[(LOCATION, &path)]).await.responses[0].error_code, 0);
    connect(&broker, &of_old).await.unwrap().call(&MetadataRequest::default(), 1).await;

    // What is not its like, cannot be read, or does not change.
    let other = dir.path().join("other.pem");
    let another = new.issue("another", &["127.0.0.1"]);
    std::fs::write(&other, format!("{}{}", another.key, another.certificate)).unwrap();
    for (name, value, expected) in [
        (LOCATION, other.display().to_string(), "Keystore DistinguishedName does not match"),
        (LOCATION, "/nowhere".into(), "ssl.keystore.location=/nowhere: No such file"),
        ("ssl.keystore.location", "/nowhere".into(), "only per-listener using the listener prefix"),
        ("listener.name.secure.ssl.client.auth", "required".into(), "cannot be updated dynamically for existing"),
    ] {
        let answer = set(&mut admin, &[(name, &value)]).await;
        let told = answer.responses[0].error_message.clone().unwrap_or_default();
        assert_eq!(answer.responses[0].error_code, 42, "{name}={value}");
        assert!(told.contains(expected), "{told}");
    }
    connect(&broker, &of_old).await.unwrap().call(&MetadataRequest::default(), 1).await;
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_of_a_listener_is_described() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new("authority"));
    let identity = authority.issue("broker", &["127.0.0.1"]);
    let secret = ["listener.name.elsewhere.ssl.key.password=hunter2".to_owned()];
    let broker = Broker::start(config(dir.path(), &identity, &authority.pem, &secret)).await.unwrap();
    let mut client = WireClient::connect(&broker).await;
    let resource = kafka_protocol::messages::describe_configs_request::DescribeConfigsResource::default()
        .with_resource_type(4)
        .with_resource_name(StrBytes::from_static_str("1"))
        .with_configuration_keys(None);
    let request = DescribeConfigsRequest::default().with_resources(vec![resource]).with_include_synonyms(true);
    let answer = client.call(&request, 4).await;
    let shown = format!("{answer:?}");
    assert!(shown.contains("listener.name.elsewhere.ssl.key.password") && !shown.contains("hunter2"));
    assert!(shown.contains("broker.pem"), "where the keystore lies is none");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_keystore_that_cannot_be_read_ends_the_start() {
    let (dir, authority) = (tempfile::tempdir().unwrap(), Authority::new("authority"));
    let identity = Identity { key: "rubbish".into(), ..authority.issue("broker", &["127.0.0.1"]) };
    let refused = Broker::start(config(dir.path(), &identity, &authority.pem, &[])).await.err().unwrap().to_string();
    let file = dir.path().join("broker.pem").display().to_string();
    assert_eq!(
        refused,
        format!("listener SECURE: ssl.keystore.location={file}: No matching PRIVATE KEY entries in PEM file")
    );
}
