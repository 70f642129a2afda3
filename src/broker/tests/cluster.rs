//! Brokers of a cluster, over a real ZooKeeper: what they tell each other, and when clients are let in.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::metadata_response::MetadataResponsePartition;
use kafka_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, DeleteTopicsRequest, MetadataRequest, MetadataResponse, ProduceRequest,
};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::super::Broker;
use super::{WireClient, produce, topic};
use crate::clock::SystemClock;
use crate::cluster::control::{BrokerLink, ControlError, ControlHead, Endpoint, LiveBroker, UpdateMetadata};
use crate::cluster::image::ImagePublisher;
use crate::cluster::znodes::{brokers, controller};
use crate::config::{Config, Inputs, Machine, ProtocolVersion};
use crate::coordination::zookeeper::testing::ZookeeperServer;
use crate::coordination::zookeeper::{ZookeeperConfig, ZookeeperCoordination};
use crate::coordination::{Coordination, CreateMode};
use crate::peer::address::Addresses;
use crate::peer::broker_link::RemoteBroker;
use crate::peer::fetch::RemoteLeaders;
use crate::peer::versions::Versions;
use crate::peer::{Patience, Peers};
use crate::replica::leader_link::{
    FetchAsk, FetchRefused, LeaderLinks, LogEnd, PartitionAsk, PartitionId, SessionAsk, TopicRef,
};
use crate::task;
use crate::transport::Stream;
use crate::types::place::joined;
use crate::types::{BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, Offset, PartitionIndex, TopicId};

pub(super) const LONG: Duration = Duration::from_secs(60);

fn config(server: &ZookeeperServer, chroot: &str, id: i32, dir: &Path) -> Config {
    config_with(server, chroot, id, dir, &[])
}

pub(super) fn config_with(server: &ZookeeperServer, chroot: &str, id: i32, dir: &Path, more: &[&str]) -> Config {
    let settings = [
        format!("broker.id={id}"),
        format!("zookeeper.connect={}/{chroot}", server.address()),
        format!("log.dirs={}", dir.display()),
        "listeners=BROKERS://127.0.0.1:0,CLIENTS://127.0.0.1:0".into(),
        "listener.security.protocol.map=BROKERS:PLAINTEXT,CLIENTS:PLAINTEXT".into(),
        "inter.broker.listener.name=BROKERS".into(),
        "klamm.disk.reserve.bytes=0".into(),
    ];
    let overrides = settings.into_iter().chain(more.iter().map(|setting| (*setting).to_owned())).collect();
    Config::load(&Inputs { overrides, ..Inputs::default() }, Machine::this()).unwrap()
}

pub(super) async fn start(server: &ZookeeperServer, chroot: &str, id: i32, dir: &Path) -> Broker {
    Broker::start(config(server, chroot, id, dir)).await.unwrap()
}

pub(super) async fn client_at(address: std::net::SocketAddr) -> WireClient {
    WireClient { stream: Stream::Plain(TcpStream::connect(address).await.unwrap()), correlation: 0 }
}

/// A client of the listener that clients use.
pub(super) async fn client(broker: &Broker) -> WireClient {
    client_at(broker.addresses()[1]).await
}

pub(super) async fn metadata(client: &mut WireClient, name: Option<&str>) -> MetadataResponse {
    let mut request = MetadataRequest::default().with_topics(Some(vec![]));
    if let Some(name) = name {
        let wanted = kafka_protocol::messages::metadata_request::MetadataRequestTopic::default();
        request.topics = Some(vec![wanted.with_name(Some(topic(name)))]);
    }
    client.call(&request, 12).await
}

/// Asks until the answer pleases.
pub(super) async fn until(
    client: &mut WireClient,
    name: Option<&str>,
    pleases: impl Fn(&MetadataResponse) -> bool,
) -> MetadataResponse {
    let deadline = Instant::now() + LONG;
    loop {
        let answer = metadata(client, name).await;
        if pleases(&answer) {
            return answer;
        }
        assert!(Instant::now() < deadline, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(super) fn shows(answer: &MetadataResponse, brokers: &[i32], controller: i32) -> bool {
    let mut live: Vec<i32> = answer.brokers.iter().map(|broker| broker.node_id.0).collect();
    live.sort_unstable();
    live == brokers && answer.controller_id.0 == controller
}

/// Leaders by partition.
pub(super) fn leaders(answer: &MetadataResponse) -> BTreeMap<i32, i32> {
    let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    partitions
        .map(|MetadataResponsePartition { partition_index, leader_id, .. }| (*partition_index, leader_id.0))
        .collect()
}

pub(super) fn to_partition(index: i32) -> ProduceRequest {
    let mut request = produce("t", &["value"]);
    request.topic_data[0].partition_data[0].index = index;
    request
}

async fn error_of_produce(client: &mut WireClient, index: i32) -> i16 {
    client.call(&to_partition(index), 9).await.responses[0].partition_responses[0].error_code
}

/// Every partition takes records at its leader and nowhere else.
async fn check_leaders(clients: &mut BTreeMap<i32, WireClient>, leaders: &BTreeMap<i32, i32>) {
    for (&partition, leader) in leaders {
        for (id, client) in clients.iter_mut() {
            let deadline = Instant::now() + LONG;
            let expected = if id == leader { 0 } else { 6 };
            // The role may come a little later than the metadata.
            while error_of_produce(client, partition).await != expected {
                assert!(Instant::now() < deadline, "partition {partition} at broker {id}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_in_one_process_leads_a_broker_in_another() {
    let Some(server) = ZookeeperServer::start() else { return };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let one = start(&server, "two", 1, dirs[0].path()).await;
    let two = start(&server, "two", 2, dirs[1].path()).await;
    let mut clients = BTreeMap::from([(1, client(&one).await), (2, client(&two).await)]);
    for client in clients.values_mut() {
        let answer = until(client, None, |answer| shows(answer, &[1, 2], 1)).await;
        let ports: Vec<i32> = answer.brokers.iter().map(|broker| broker.port).collect();
        let bound = [&one, &two].map(|broker| i32::from(broker.addresses()[1].port()));
        assert!(bound.iter().all(|port| ports.contains(port)), "{ports:?}");
    }
    let wanted = CreatableTopic::default().with_name(topic("t")).with_num_partitions(6).with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(30_000);
    let at_controller = clients.get_mut(&1).unwrap();
    assert_eq!(at_controller.call(&request, 5).await.topics[0].error_code, 0);
    let mut led = BTreeMap::new();
    for client in clients.values_mut() {
        led = leaders(&until(client, Some("t"), |answer| leaders(answer).len() == 6).await);
    }
    let counts = [1, 2].map(|broker| led.values().filter(|leader| **leader == broker).count());
    assert_eq!(counts, [3, 3], "{led:?}");
    check_leaders(&mut clients, &led).await;

    // The second becomes controller, and gives the first its roles when it is back.
    clients.remove(&1);
    one.stop().await;
    let at_two = clients.get_mut(&2).unwrap();
    until(at_two, None, |answer| shows(answer, &[2], 2)).await;
    let one = start(&server, "two", 1, dirs[0].path()).await;
    clients.insert(1, client(&one).await);
    for client in clients.values_mut() {
        until(client, None, |answer| shows(answer, &[1, 2], 2)).await;
        until(client, Some("t"), |answer| leaders(answer) == led).await;
    }
    check_leaders(&mut clients, &led).await;

    let doomed = DeleteTopicsRequest::default()
        .with_topics(vec![DeleteTopicState::default().with_name(Some(topic("t")))])
        .with_timeout_ms(30_000);
    let deleted = clients.get_mut(&2).unwrap().call(&doomed, 6).await;
    assert_eq!(deleted.responses[0].error_code, 0);
    let deadline = Instant::now() + LONG;
    while [&one, &two].iter().any(|broker| !broker.dirs[0].partitions().is_empty()) {
        assert!(Instant::now() < deadline, "logs are left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    two.stop().await;
    one.stop().await;
}

pub(super) fn registration(broker: &Broker, id: i32) -> LiveBroker {
    let endpoint = |listener: &str, at: usize| Endpoint {
        listener: listener.into(),
        security_protocol: "PLAINTEXT".into(),
        host: "127.0.0.1".into(),
        port: broker.addresses()[at].port(),
    };
    LiveBroker { id: BrokerId(id), endpoints: vec![endpoint("BROKERS", 0), endpoint("CLIENTS", 1)], rack: None }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_answers_followers_where_brokers_speak_and_nowhere_else() {
    let Some(server) = ZookeeperServer::start() else { return };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let brokers =
        [start(&server, "follow", 1, dirs[0].path()).await, start(&server, "follow", 2, dirs[1].path()).await];
    let mut at_one = client(&brokers[0]).await;
    until(&mut at_one, None, |answer| shows(answer, &[1, 2], 1)).await;
    let wanted = CreatableTopic::default().with_name(topic("t")).with_num_partitions(1).with_replication_factor(2);
    let request = CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(30_000);
    assert_eq!(at_one.call(&request, 5).await.topics[0].error_code, 0);
    let shown = until(&mut at_one, Some("t"), |answer| leaders(answer).values().any(|leader| *leader > 0)).await;
    let (topic_id, partition) = (TopicId(shown.topics[0].topic_id), &shown.topics[0].partitions[0]);
    let (leader, leader_epoch) = (partition.leader_id.0, LeaderEpoch(partition.leader_epoch));
    let at = &brokers[usize::try_from(leader - 1).unwrap()];
    let mut at_leader = client(at).await;
    let deadline = Instant::now() + LONG;
    while at_leader.call(&to_partition(0).with_acks(1), 9).await.responses[0].partition_responses[0].error_code != 0 {
        assert!(Instant::now() < deadline, "it does not lead");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // The other replica, as the test plays it.
    let me = 3 - leader;
    let follow =
        |listener| RemoteLeaders::new(&peers(me, listener, vec![registration(at, leader)])).link(BrokerId(leader), 0);
    let id = PartitionId { topic: "t".into(), topic_id, partition: PartitionIndex(0) };
    let unknown = PartitionId { topic_id: TopicId(uuid::Uuid::from_u128(7)), ..id.clone() };
    let wanted = |id: &PartitionId| PartitionAsk {
        id: id.clone(),
        fetch_offset: Offset(0),
        last_fetched_epoch: None,
        leader_epoch: Some(leader_epoch),
        log_start_offset: Offset(0),
        max_bytes: 1 << 20,
    };
    let ask = FetchAsk {
        replica: BrokerId(me),
        replica_epoch: BrokerEpoch::NONE,
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 1 << 20,
        session: SessionAsk::NONE,
        by_name: false,
        partitions: vec![wanted(&unknown), wanted(&id)],
        forgotten: Vec::new(),
    };
    let link = follow("BROKERS");
    // It leads before it knows the topic's name by its id, as the two come by different requests.
    let answered = loop {
        let answered = link.fetch(ask.clone()).await.unwrap().unwrap().partitions;
        if answered[1].1 != Err(FetchRefused::UnknownTopicId) {
            break answered;
        }
        assert!(Instant::now() < deadline, "{answered:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let unknown = (TopicRef::Id(unknown.topic_id), unknown.partition);
    assert_eq!(answered[0], (unknown, Err(FetchRefused::UnknownTopicId)));
    let found = answered[1].1.as_ref().unwrap();
    assert!(joined(&found.records).starts_with(&[0; 8]), "a batch from offset 0: {found:?}");
    let end = link.list_offset(id, leader_epoch, LogEnd::Latest).await;
    assert_eq!(end, Ok(Ok(Offset(1))), "the end of the log, not the high watermark");
    let closed = follow("CLIENTS").fetch(ask).await.unwrap_err().to_string();
    assert!(closed.contains("lost"), "{closed}");
    for broker in brokers {
        broker.stop().await;
    }
}

/// A controller that the test plays itself: its session holds `/controller`.
struct Controller {
    store: ZookeeperCoordination,
}

impl Controller {
    async fn of(server: &ZookeeperServer, chroot: &str) -> Self {
        let settings = ZookeeperConfig::new(format!("{}/{chroot}", server.address()));
        let store = ZookeeperCoordination::connect(settings).await.unwrap();
        let node = controller::encode(BrokerId(99), 0);
        store.create(controller::PATH, node, CreateMode::Ephemeral).await.unwrap();
        Self { store }
    }

    /// The broker, once it is registered.
    async fn registration(&self, id: i32) -> (LiveBroker, BrokerEpoch) {
        let deadline = Instant::now() + LONG;
        loop {
            let path = brokers::path(BrokerId(id));
            if let Some((data, stat)) = self.store.get(&path).await.unwrap() {
                return (brokers::decode(BrokerId(id), &data).unwrap(), BrokerEpoch(stat.czxid));
            }
            assert!(Instant::now() < deadline, "it does not register");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What the test itself, as broker `me`, reaches these brokers by.
pub(super) fn peers(me: i32, listener: &str, live: Vec<LiveBroker>) -> Peers {
    let image = Arc::new(ImagePublisher::default());
    let (controller_epoch, broker_epoch) = (ControllerEpoch(1), BrokerEpoch(1));
    let head = ControlHead { controller: BrokerId(me), controller_epoch, broker_epoch };
    image.apply(&UpdateMetadata { head, topics: vec![], live_brokers: live });
    Peers {
        me: BrokerId(me),
        addresses: Addresses::new(Arc::clone(&image), listener, None),
        control: Addresses::new(image, listener, None),
        versions: Versions::of(ProtocolVersion::LATEST),
        clock: Arc::new(SystemClock),
        patience: Patience::default(),
    }
}

fn said(live: &LiveBroker, broker_epoch: BrokerEpoch, controller_epoch: i32) -> UpdateMetadata {
    let controller_epoch = ControllerEpoch(controller_epoch);
    let head = ControlHead { controller: BrokerId(99), controller_epoch, broker_epoch };
    let controller = LiveBroker { id: BrokerId(99), ..live.clone() };
    UpdateMetadata { head, topics: vec![], live_brokers: vec![live.clone(), controller] }
}

/// C8: a broker accepted connections only once its image was complete, and no remote controller could complete it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_starting_broker_hears_the_controller_and_lets_clients_wait() {
    let Some(server) = ZookeeperServer::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let config = config(&server, "start", 1, dir.path());
    let played = Controller::of(&server, "start").await;
    let starting = task::spawn(Broker::start(config));
    let (live, epoch) = played.registration(1).await;
    let port = |listener: &str| live.endpoints.iter().find(|endpoint| endpoint.listener == listener).unwrap().port;
    let mut early = client_at(([127, 0, 0, 1], port("BROKERS")).into()).await;
    let versions = early.call(&ApiVersionsRequest::default(), 0).await;
    let announced: Vec<i16> = versions.api_keys.iter().map(|api| api.api_key).collect();
    assert!([4, 5, 6].iter().all(|key| announced.contains(key)), "{announced:?}");
    early.send(&MetadataRequest::default().with_topics(Some(vec![])), 12).await;
    assert!(early.frame_within(Duration::from_millis(300)).await.is_none(), "it waits");

    let link = RemoteBroker::new(&peers(99, "BROKERS", vec![]), &live);
    let stale = link.update_metadata(said(&live, BrokerEpoch(epoch.0 - 1), 7)).await;
    assert_eq!(stale, Err(ControlError::StaleBrokerEpoch));
    assert_eq!(link.update_metadata(said(&live, epoch, 7)).await, Ok(()));
    assert_eq!(link.update_metadata(said(&live, epoch, 6)).await, Err(ControlError::StaleControllerEpoch));
    let broker = starting.await.unwrap().unwrap();
    let answer = early.receive::<MetadataRequest>(early.correlation, 12).await;
    assert!(shows(&answer, &[1, 99], 99), "{answer:?}");

    // Clients have a listener of their own, and it knows no key of brokers.
    let mut outside = client(&broker).await;
    let versions = outside.call(&ApiVersionsRequest::default(), 0).await;
    assert!(versions.api_keys.iter().all(|api| ![4, 5, 6, 7, 56, 67].contains(&api.api_key)));
    for header in [[0, 4, 0, 7], [0, 5, 0, 4], [0, 6, 0, 8], [0, 7, 0, 3], [0, 56, 0, 3], [0, 67, 0, 0]] {
        let mut outside = client(&broker).await;
        let frame: Vec<u8> = header.iter().chain(&[0, 0, 0, 1, 0xff, 0xff, 0]).chain(&[0; 60]).copied().collect();
        outside.send_raw(&frame).await;
        assert_eq!(outside.frame().await, None::<Bytes>, "closed");
    }
    broker.stop().await;
    drop(played);
}
