//! Settings of sockets and of how many there may be.

use kafka_protocol::messages::AlterClientQuotasRequest;
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use socket2::SockRef;

use super::*;
use crate::broker::hand_over::HandOver;
use crate::broker::links;
use crate::broker::sockets::Sockets;
use crate::clock::SystemClock;
use crate::cluster::control::{BrokerLink, ControlHead, ControllerLink, Endpoint, LiveBroker, UpdateMetadata};
use crate::cluster::image::ImagePublisher;
use crate::cluster::registration::SharedBrokerEpoch;
use crate::config::ProtocolVersion;
use crate::controller;
use crate::peer::broker_link::RemoteBroker;
use crate::peer::controller_link;
use crate::peer::fetch::RemoteLeaders;
use crate::peer::versions::Versions;
use crate::replica::leader_link::{LeaderLinks, LogEnd, PartitionId};
use crate::security::sasl::login::Logins;
use crate::security::tls::TlsListeners;
use crate::types::{BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, PartitionIndex, TopicId};

/// Whether one more connection is let in. It stays open.
async fn let_in(probe: &Probe, held: &mut Vec<WireClient>) -> bool {
    let mut client = WireClient::connect(&probe.broker).await;
    // ApiVersions, version 0. One that is closed may not even take it.
    let _ = client.stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff]).await;
    let answered = client.frame().await.is_some();
    held.push(client);
    answered
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_a_limit_are_closed() {
    let mut held = Vec::new();
    let mut probe = Probe::start(&["max.connections.per.ip=1", "max.connections.per.ip.overrides=127.0.0.1:2"]).await;
    assert!(let_in(&probe, &mut held).await, "the exception counts");
    assert!(!let_in(&probe, &mut held).await);
    probe.set("", "max.connections.per.ip.overrides", "127.0.0.1:9").await;
    eventually("a change counts", async || let_in(&probe, &mut held).await).await;
    probe.broker.stop().await;
    let probe = Probe::start(&["max.connections.per.ip=1"]).await;
    assert!(!let_in(&probe, &mut held).await);
    probe.broker.stop().await;
}

/// Sends a request on a connection of its own, and does not wait for the answer.
async fn asks(probe: &Probe) -> WireClient {
    let mut client = WireClient::connect(&probe.broker).await;
    client.stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff]).await.unwrap();
    client
}

async fn is_answered(client: &mut WireClient, within: Duration) -> bool {
    client.frame_within(within).await.flatten().is_some()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_the_limit_of_the_broker_or_of_the_listener_wait_for_a_place() {
    let (moment, long) = (Duration::from_millis(300), Duration::from_secs(30));
    for limit in ["max.connections", "listener.name.plaintext.max.connections"] {
        let mut probe = Probe::start(&[&format!("{limit}=2")]).await;
        let mut second = asks(&probe).await;
        assert!(is_answered(&mut second, long).await, "{limit}");
        let mut third = asks(&probe).await;
        assert!(!is_answered(&mut third, moment).await, "{limit}");
        drop(second);
        assert!(is_answered(&mut third, long).await, "{limit}: there is a place again");
        let mut fourth = asks(&probe).await;
        assert!(!is_answered(&mut fourth, moment).await, "{limit}");
        probe.set("", limit, "9").await;
        assert!(is_answered(&mut fourth, long).await, "{limit}: a change counts");
        probe.broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_beyond_a_rate_wait() {
    // The third within a second waits for half of one.
    let windows = ["quota.window.num=2", "quota.window.size.seconds=1", "max.connection.creation.rate=2"];
    let probe = Probe::start(&windows).await;
    let (mut held, begun) = (Vec::new(), tokio::time::Instant::now());
    for _ in 0..4 {
        assert!(let_in(&probe, &mut held).await);
    }
    assert!(begun.elapsed() > Duration::from_millis(500), "{:?}", begun.elapsed());
    probe.broker.stop().await;
}

/// Whoever came too soon held a connection more each time, whatever the limits say, until a window was over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_wait_to_be_closed_count_as_others_do() {
    let mut probe = Probe::start(&["max.connections.per.ip=2", "quota.window.size.seconds=30"]).await;
    let every_address = EntityData::default().with_entity_type(StrBytes::from_static_str("ip")).with_entity_name(None);
    let none = OpData::default().with_key(StrBytes::from_static_str("connection_creation_rate")).with_value(0.0);
    let entry = EntryData::default().with_entity(vec![every_address]).with_ops(vec![none]);
    let altered = probe.call(&AlterClientQuotasRequest::default().with_entries(vec![entry]), 1).await;
    assert_eq!(altered.entries[0].error_code, 0);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let mut waits = WireClient::connect(&probe.broker).await;
    assert_eq!(waits.frame_within(Duration::from_millis(300)).await, None, "neither served nor closed");
    let mut beyond = WireClient::connect(&probe.broker).await;
    assert_eq!(beyond.frame_within(Duration::from_secs(20)).await, Some(None), "closed at once");
    probe.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_connection_is_closed() {
    let mut probe = Probe::start(&["connections.max.idle.ms=200"]).await;
    assert_eq!(probe.client.frame_within(Duration::from_secs(30)).await, Some(None));
    probe.broker.stop().await;
}

/// Whoever sent it was disconnected each time that it tried.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_request_may_take_longer_than_a_connection_may_be_idle() {
    let mut probe = Probe::start(&["connections.max.idle.ms=2000"]).await;
    // Metadata, version 1, of topics whose names are too long.
    const TOPICS: usize = 16;
    const NAME_BYTES: usize = 32_000;
    let mut request = vec![0, 3, 0, 1, 0, 0, 0, 1, 0xff, 0xff];
    request.extend_from_slice(&(TOPICS as i32).to_be_bytes());
    for topic in 0..TOPICS {
        request.extend_from_slice(&(NAME_BYTES as i16).to_be_bytes());
        request.resize(request.len() + NAME_BYTES, b'a' + topic as u8);
    }
    probe.client.stream.write_all(&(request.len() as i32).to_be_bytes()).await.unwrap();
    for part in request.chunks(request.len().div_ceil(6)) {
        tokio::time::sleep(Duration::from_millis(700)).await;
        probe.client.stream.write_all(part).await.unwrap();
    }
    let answer = probe.client.frame_within(Duration::from_secs(30)).await.expect("an answer or an end");
    assert!(answer.is_some_and(|answer| answer.len() > TOPICS * NAME_BYTES), "it was closed");
    probe.broker.stop().await;
}

#[tokio::test]
async fn sockets_have_the_buffers_that_are_set() {
    let sizes = async |settings: &[&str]| {
        let sockets = Sockets::bind(&load(Path::new("d"), settings).unwrap()).await.unwrap();
        let socket = SockRef::from(&sockets.listeners[0].1);
        (socket.send_buffer_size().unwrap(), socket.recv_buffer_size().unwrap())
    };
    let set = sizes(&["socket.send.buffer.bytes=20000", "socket.receive.buffer.bytes=30000"]).await;
    assert_eq!(set, (40_000, 60_000), "Linux doubles it");
    let of_the_system = sizes(&["socket.send.buffer.bytes=-1", "socket.receive.buffer.bytes=-1"]).await;
    let by_default = sizes(&[]).await;
    assert!(of_the_system != set && by_default != set && by_default != of_the_system);
}

#[tokio::test]
async fn requests_to_other_brokers_wait_as_long_as_is_set() {
    // It takes connections, and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let settings = ["controller.socket.timeout.ms=300", "request.timeout.ms=400", "replica.socket.timeout.ms=500"];
    let config = load(Path::new("d"), &settings).unwrap();
    let endpoint = Endpoint {
        listener: config.inter_broker_listener.clone(),
        security_protocol: "PLAINTEXT".into(),
        host: "127.0.0.1".into(),
        port: silent.local_addr().unwrap().port(),
    };
    let other = LiveBroker { id: BrokerId(2), endpoints: vec![endpoint], rack: None };
    let (controller_epoch, broker_epoch) = (ControllerEpoch(1), BrokerEpoch(1));
    let head = ControlHead { controller: BrokerId(2), controller_epoch, broker_epoch };
    let update = UpdateMetadata { head, topics: vec![], live_brokers: vec![other.clone()] };
    let image = Arc::new(ImagePublisher::default());
    image.apply(&update);
    let clock: crate::clock::SharedClock = Arc::new(SystemClock);
    let peers = links::peers(&config, BrokerId(1), &image, &clock, &TlsListeners::default(), &Logins::new());
    let check = |error: String, ms: u32| assert!(error.contains(&format!("within {ms} ms")), "{error}");
    check(RemoteBroker::new(&peers, &other).update_metadata(update).await.unwrap_err().to_string(), 300);
    let (own, _seat) = controller::seat();
    let ids = controller_link::producer_ids(&peers, Arc::new(own));
    let ids = ids.allocate_producer_ids(BrokerId(1), broker_epoch).await;
    check(ids.unwrap_err().to_string(), 400);
    let id = PartitionId { topic: "t".into(), topic_id: TopicId::ZERO, partition: PartitionIndex(0) };
    let link = RemoteLeaders::new(&peers).link(BrokerId(2), 0);
    check(link.list_offset(id, LeaderEpoch(1), LogEnd::Latest).await.unwrap_err().to_string(), 500);
}

#[tokio::test]
async fn leadership_is_handed_over_for_as_long_as_is_set() {
    let patience = |settings: &[&str]| {
        let config = load(Path::new("d"), settings).unwrap();
        let image = Arc::new(ImagePublisher::default());
        let (own, _seat) = controller::seat();
        HandOver::new(&config, BrokerId(1), &SharedBrokerEpoch::default(), &image, Arc::new(own))
            .map(|hand_over| hand_over.patience)
    };
    let cluster = "zookeeper.connect=127.0.0.1:1";
    assert_eq!(patience(&[]), None, "alone");
    assert_eq!(patience(&[cluster, "controlled.shutdown.enable=false"]), None);
    assert_eq!(patience(&[cluster]), Some(Duration::from_secs(15)));
    let both = ["controlled.shutdown.max.retries=2", "controlled.shutdown.retry.backoff.ms=7"];
    assert_eq!(patience(&[cluster, both[0], both[1]]), Some(Duration::from_millis(14)));
}

/// What each version is, is `peer/versions.rs`'.
#[test]
fn brokers_speak_in_the_versions_that_are_set() {
    let clock: crate::clock::SharedClock = Arc::new(SystemClock);
    let of = |version: &str| {
        let settings = ["zookeeper.connect=a:1", &format!("inter.broker.protocol.version={version}")];
        links::peers(
            &load(Path::new("d"), &settings).unwrap(),
            BrokerId(1),
            &Arc::default(),
            &clock,
            &TlsListeners::default(),
            &Logins::new(),
        )
        .versions
    };
    assert_eq!(of("3.9"), Versions::of(ProtocolVersion::V3_9Iv0));
    assert_eq!(of("3.7-IV2"), Versions::of(ProtocolVersion::V3_7Iv2));
    assert_eq!(of("3.4"), Versions::of(ProtocolVersion::V3_4Iv0));
    let refused = refusal(&["zookeeper.connect=a:1", "inter.broker.protocol.version=3.3"]);
    assert!(refused.contains("speak versions 3.4-IV0 to 3.9-IV0"), "{refused}");
}
