//! Settings of a broker beside ZooKeeper. A node alone takes the counts of internal topics' replicas as 1.

use kafka_protocol::messages::FindCoordinatorRequest;

use super::*;
use crate::broker::over_zookeeper;
use crate::coordination::Coordination;
use crate::coordination::zookeeper::testing::ZookeeperServer;
use crate::coordination::zookeeper::{ZookeeperConfig, ZookeeperCoordination};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_meets_others_in_zookeeper_and_its_internal_topics_are_as_set() {
    let Some(server) = ZookeeperServer::start() else { return };
    let connect = format!("zookeeper.connect={}/below", server.address());
    let factors = [
        "offsets.topic.replication.factor=1",
        "transaction.state.log.replication.factor=1",
        "transaction.state.log.min.isr=3",
        "offsets.topic.num.partitions=1",
        "transaction.state.log.num.partitions=1",
    ];
    let settings: Vec<&str> = std::iter::once(connect.as_str()).chain(factors).collect();
    let mut probe = Probe::start(&settings).await;
    let other = ZookeeperCoordination::connect(ZookeeperConfig::new(server.address())).await.unwrap();
    assert!(other.get("/below/brokers/ids/1").await.unwrap().is_some());
    let found = async |probe: &mut Probe, key_type: i8| {
        let key = StrBytes::from_static_str("k");
        let request = FindCoordinatorRequest::default().with_key_type(key_type).with_coordinator_keys(vec![key]);
        probe.call(&request, 4).await.coordinators[0].error_code == 0
    };
    for key_type in [0, 1] {
        eventually("a coordinator", async || found(&mut probe, key_type).await).await;
    }
    let data = other.get("/below/config/topics/__transaction_state").await.unwrap().expect("its settings").0;
    assert!(String::from_utf8_lossy(&data).contains(r#""min.insync.replicas":"3""#));
    probe.broker.stop().await;

    let connect = format!("zookeeper.connect={}/other", server.address());
    let mut probe = Probe::start(&[&connect]).await;
    for key_type in [0, 1] {
        assert!(!found(&mut probe, key_type).await, "by default they have three replicas");
    }
    probe.broker.stop().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_else_may_change_what_a_broker_keeps_in_zookeeper_if_that_is_set() {
    let Some(server) = ZookeeperServer::start_with_users(&[("kafka", "hunter2")]) else { return };
    let dir = tempfile::tempdir().unwrap();
    let jaas = dir.path().join("jaas.conf");
    let module = "org.apache.zookeeper.server.auth.DigestLoginModule";
    let text = format!("Client {{ {module} required username=\"kafka\" password=\"hunter2\"; }};");
    std::fs::write(&jaas, text).unwrap();
    let data = dir.path().join("data");
    let settings = [
        "listeners=PLAINTEXT://127.0.0.1:0",
        "klamm.disk.reserve.bytes=0",
        "broker.id=1",
        "zookeeper.set.acl=true",
        &format!("log.dirs={}", data.display()),
        &format!("zookeeper.connect={}/acl", server.address()),
    ];
    let inputs = Inputs {
        overrides: settings.iter().map(|setting| (*setting).to_owned()).collect(),
        environment: vec![("KAFKA_OPTS".into(), format!("-Djava.security.auth.login.config={}", jaas.display()))],
        ..Inputs::default()
    };
    let broker = Broker::start(Config::load(&inputs, Machine::this()).unwrap()).await.unwrap();
    let address = format!("{}/acl", server.address());
    let stranger = ZookeeperCoordination::connect(ZookeeperConfig::new(address)).await.unwrap();
    for path in ["/brokers/ids/1", "/controller", "/cluster/id", "/config/topics", "/brokers"] {
        assert!(stranger.get(path).await.unwrap().is_some(), "everybody may read {path}");
        assert!(stranger.set(path, Default::default(), -1).await.is_err(), "{path}");
    }
    for path in ["/config/users", "/config/brokers"] {
        assert!(stranger.children(path).await.is_err() && stranger.get(path).await.is_err(), "{path}");
    }
    stranger.set("/consumers", Default::default(), -1).await.expect("as Kafka leaves it");
    broker.stop().await;
    stranger.close().await;
}

/// One that takes connections and says nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn zookeeper_is_asked_and_waited_for_as_is_set() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect = format!("zookeeper.connect={}", silent.local_addr().unwrap());
    let asked = tokio::spawn(async move {
        let (mut stream, _) = silent.accept().await.unwrap();
        // Length, protocol version, last zxid seen, time-out.
        let mut request = [0; 20];
        tokio::io::AsyncReadExt::read_exact(&mut stream, &mut request).await.unwrap();
        (i32::from_be_bytes(request[16..].try_into().unwrap()), stream)
    });
    let settings = [&connect, "zookeeper.session.timeout.ms=60000", "zookeeper.connection.timeout.ms=400"];
    let dir = tempfile::tempdir().unwrap();
    let begun = tokio::time::Instant::now();
    let refused = Broker::start(load(dir.path(), &settings).unwrap()).await.unwrap_err().to_string();
    assert!(refused.contains("cannot be used"), "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(50), "without the setting it is the session time-out");
    assert_eq!(asked.await.unwrap().0, 60_000);
}

/// What the bound does is shown in `coordination/zookeeper/tests.rs`.
#[test]
fn requests_to_zookeeper_are_bounded_as_is_set() {
    let of = |settings: &[&str]| {
        let config = load(Path::new("d"), settings).unwrap();
        over_zookeeper::settings(config.zookeeper.as_ref().unwrap()).max_in_flight
    };
    let connect = "zookeeper.connect=h:1";
    assert_eq!((of(&[connect]), of(&[connect, "zookeeper.max.in.flight.requests=3"])), (10, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_not_eligible_leaves_the_controller_to_others() {
    let Some(server) = ZookeeperServer::start() else { return };
    let connect = format!("zookeeper.connect={}", server.address());
    let dir = tempfile::tempdir().unwrap();
    let settings = [connect.as_str(), "broker.id=1", "klamm.controller.eligible=false"];
    let waiting = tokio::spawn(Broker::start(load(dir.path(), &settings).unwrap()));
    let tree = ZookeeperCoordination::connect(ZookeeperConfig::new(server.address())).await.unwrap();
    let there = async |path: &str| tree.get(path).await.unwrap().is_some();
    eventually("the registration", async || there("/brokers/ids/1").await).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!there("/controller").await && !waiting.is_finished(), "it waits for a controller");
    let other = Probe::start(&[&connect, "broker.id=2"]).await;
    let broker = waiting.await.unwrap().unwrap();
    assert!(other.broker.controller.is_active() && !broker.controller.is_active());
    other.broker.stop().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!there("/controller").await, "not when the other one is gone either");
    broker.stop().await;
    tree.close().await;
}
