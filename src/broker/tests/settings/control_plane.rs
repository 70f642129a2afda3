//! `control.plane.listener.name`: where brokers and the controller speak, apart from everything else.

use kafka_protocol::messages::ApiVersionsRequest;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::super::cluster::client_at;
use super::*;
use crate::cluster::control::{Endpoint, LiveBroker};
use crate::cluster::znodes::brokers;
use crate::coordination::zookeeper::testing::ZookeeperServer;
use crate::coordination::zookeeper::{ZookeeperConfig, ZookeeperCoordination};
use crate::coordination::{Coordination, CreateMode};
use crate::types::BrokerId;

const NAMES: [&str; 3] = ["BROKERS", "CONTROL", "CLIENTS"];
const SETTINGS: [&str; 5] = [
    "listeners=BROKERS://127.0.0.1:0,CONTROL://127.0.0.1:0,CLIENTS://127.0.0.1:0",
    "listener.security.protocol.map=BROKERS:PLAINTEXT,CONTROL:PLAINTEXT,CLIENTS:PLAINTEXT",
    "inter.broker.listener.name=BROKERS",
    "control.plane.listener.name=CONTROL",
    "broker.id=1",
];

/// The keys of a request that comes within the time.
async fn key_of_first(socket: &TcpListener) -> i16 {
    let accepted = tokio::time::timeout(Duration::from_secs(60), socket.accept()).await.expect("it connects");
    let mut stream: TcpStream = accepted.unwrap().0;
    stream.read_i32().await.unwrap();
    stream.read_i16().await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_controller_is_heard_on_a_listener_of_its_own() {
    let Some(server) = ZookeeperServer::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let zookeeper = format!("{}/control", server.address());
    let connect = format!("zookeeper.connect={zookeeper}");
    let settings: Vec<&str> = SETTINGS.iter().copied().chain([connect.as_str()]).collect();
    let broker = Broker::start(load(dir.path(), &settings).unwrap()).await.unwrap();
    for (name, address) in NAMES.iter().zip(broker.addresses()) {
        let announced = client_at(*address).await.call(&ApiVersionsRequest::default(), 0).await.api_keys;
        let of_brokers = [4, 5, 6, 7, 56, 67].map(|key| announced.iter().any(|api| api.api_key == key));
        assert_eq!(of_brokers, [*name != "CLIENTS"; 6], "{name}");
    }

    // Another broker, as the test plays it: the controller here speaks to its listener of that name.
    let mut sockets = Vec::new();
    for _ in NAMES {
        sockets.push(TcpListener::bind("127.0.0.1:0").await.unwrap());
    }
    let endpoint = |(name, socket): (&&str, &TcpListener)| Endpoint {
        listener: (*name).to_owned(),
        security_protocol: "PLAINTEXT".into(),
        host: "127.0.0.1".into(),
        port: socket.local_addr().unwrap().port(),
    };
    let other =
        LiveBroker { id: BrokerId(2), endpoints: NAMES.iter().zip(&sockets).map(endpoint).collect(), rack: None };
    let store = ZookeeperCoordination::connect(ZookeeperConfig::new(zookeeper)).await.unwrap();
    store.create(&brokers::path(other.id), brokers::encode(&other, now_ms()), CreateMode::Ephemeral).await.unwrap();
    assert_eq!(key_of_first(&sockets[1]).await, 6, "UpdateMetadata");
    for at in [0, 2] {
        let elsewhere = tokio::time::timeout(Duration::from_millis(200), sockets[at].accept()).await;
        assert!(elsewhere.is_err(), "{}", NAMES[at]);
    }
    broker.stop().await;
}
