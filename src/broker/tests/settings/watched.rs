//! What whoever watches a broker sees over HTTP, before it is ready, while it works and until it is gone.

use std::net::SocketAddr;

use kafka_protocol::messages::DeleteTopicsRequest;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::observe::health::Phase;
use crate::observe::testing::{Row, parse, value};

/// Status and body; `None`: nobody is there.
async fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, body.to_owned()))
}

async fn scraped(address: SocketAddr) -> Vec<Row> {
    let (status, body) = get(address, "/metrics").await.expect("an answer");
    assert_eq!(status, 200, "{body}");
    parse(&body).unwrap_or_else(|error| panic!("{error}"))
}

fn traffic(rows: &[Row], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    value(rows, &format!("kafka_server_brokertopicmetrics_{name}_total"), labels)
}

const T: &[(&str, &str)] = &[("topic", "t")];
const T_0: &[(&str, &str)] = &[("topic", "t"), ("partition", "0")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_produced_is_seen_by_whoever_scrapes() {
    let mut probe = Probe::start(&["klamm.http.listener=127.0.0.1:0", "message.max.bytes=1000"]).await;
    let address = probe.broker.http_address().expect("it is set");
    assert_eq!(get(address, "/livez").await, Some((200, "ok\n".into())));
    eventually("ready", async || get(address, "/readyz").await == Some((200, "ok\n".into()))).await;
    assert_eq!(get(address, "/").await.expect("an answer").0, 404);
    let before = scraped(address).await;
    assert_eq!((traffic(&before, "messagesin", &[]), traffic(&before, "messagesin", T)), (Some(0.0), None));
    assert_eq!(value(&before, "kafka_server_replicamanager_leadercount", &[]), Some(0.0));

    probe.create("t").await;
    assert_eq!(probe.produce("t", &["a", "b", "c"]).await, 0);
    assert_ne!(probe.produce("t", &[&"x".repeat(5000)]).await, 0, "too large");
    let fetched = probe.fetched("t").await.len() as f64;
    const ANSWERED: &[(&str, &str)] = &[("request", "Fetch"), ("version", "12")];
    // A request is counted just after its answer is sent.
    eventually("counted", async || {
        value(&scraped(address).await, "kafka_network_requestmetrics_requests_total", ANSWERED) == Some(1.0)
    })
    .await;
    let after = scraped(address).await;
    for labels in [&[], T] {
        let of = |name: &str| traffic(&after, name, labels).expect("a row");
        assert_eq!((of("messagesin"), of("bytesin"), of("bytesout")), (3.0, fetched, fetched));
        assert_eq!(
            (of("totalproducerequests"), of("totalfetchrequests"), of("failedproducerequests")),
            (2.0, 1.0, 0.0)
        );
        assert!(of("bytesrejected") > 5000.0);
    }
    let produced = [("request", "Produce"), ("version", "9")];
    assert_eq!(value(&after, "kafka_network_requestmetrics_requests_total", &produced), Some(2.0));
    assert_eq!(value(&after, "kafka_network_requestmetrics_totaltimems_count", &produced[..1]), Some(2.0));
    let quantile = [("request", "Produce"), ("quantile", "0.99")];
    assert!(value(&after, "kafka_network_requestmetrics_totaltimems", &quantile).is_some_and(|ms| ms > 0.0));
    for (name, labels, expected) in [
        ("kafka_server_replicamanager_leadercount", &[][..], 1.0),
        ("kafka_server_replicamanager_partitioncount", &[], 1.0),
        ("kafka_server_replicamanager_underreplicatedpartitions", &[], 0.0),
        ("kafka_server_replicamanager_underminisrpartitioncount", &[], 0.0),
        ("kafka_server_replicamanager_atminisrpartitioncount", &[], 1.0),
        ("kafka_server_replicamanager_offlinereplicacount", &[], 0.0),
        ("kafka_controller_kafkacontroller_activecontrollercount", &[], 1.0),
        ("kafka_controller_kafkacontroller_globalpartitioncount", &[], 1.0),
        ("kafka_controller_kafkacontroller_offlinepartitionscount", &[], 0.0),
        ("kafka_server_kafkaserver_brokerstate", &[], 3.0),
        ("kafka_log_logmanager_offlinelogdirectorycount", &[], 0.0),
        ("kafka_cluster_partition_underreplicated", T_0, 0.0),
        ("kafka_cluster_partition_insyncreplicascount", T_0, 1.0),
        ("kafka_log_log_logendoffset", T_0, 3.0),
        ("kafka_log_log_size", T_0, fetched),
        (
            "kafka_server_socket_server_metrics_connection_count",
            &[("listener", "PLAINTEXT"), ("networkProcessor", "0")],
            1.0,
        ),
    ] {
        assert_eq!(value(&after, name, labels), Some(expected), "{name}");
    }
    assert!(value(&after, "process_resident_memory_bytes", &[]).is_some_and(|bytes| bytes > 0.0));

    let delete = DeleteTopicsRequest::default().with_timeout_ms(10_000).with_topic_names(vec![topic("t")]);
    assert_eq!(probe.call(&delete, 4).await.responses[0].error_code, 0);
    let gone = async || traffic(&scraped(address).await, "messagesin", T).is_none();
    eventually("the topic's rows go", gone).await;
    assert_eq!(traffic(&scraped(address).await, "messagesin", &[]), Some(3.0), "sums do not go back");

    probe.broker.watched.health.set(Phase::Stopping);
    assert_eq!(get(address, "/readyz").await, Some((503, "stopping\n".into())));
    assert_eq!(get(address, "/livez").await.expect("an answer").0, 200);
    probe.broker.stop().await;
    assert_eq!(get(address, "/livez").await, None, "it goes last");
}

/// A start that waits for ZooKeeper can be told from one that hangs, and from a broker that is ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_starts_is_alive_and_not_ready() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connect = format!("zookeeper.connect={}", silent.local_addr().unwrap());
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let listener = format!("klamm.http.listener={address}");
    let dir = tempfile::tempdir().unwrap();
    let config = load(dir.path(), &[&connect, "zookeeper.connection.timeout.ms=60000", &listener]).unwrap();
    let starting = tokio::spawn(Broker::start(config));
    let waits = (503, "starting: the coordination is being reached\n".to_owned());
    eventually("it waits for ZooKeeper", async || get(address, "/readyz").await.as_ref() == Some(&waits)).await;
    assert_eq!(get(address, "/livez").await.expect("an answer").0, 200);
    let rows = scraped(address).await;
    assert_eq!(value(&rows, "kafka_server_kafkaserver_brokerstate", &[]), Some(1.0));
    starting.abort();
    eventually("it goes with the start", async || get(address, "/livez").await.is_none()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_taken_ends_the_start_before_anything_is_touched() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = format!("klamm.http.listener={}", taken.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let refused = Broker::start(load(dir.path(), &[&listener]).unwrap()).await.unwrap_err().to_string();
    assert!(refused.starts_with("klamm.http.listener 127.0.0.1:") && refused.contains("cannot be bound"), "{refused}");
    assert_eq!(files_below(dir.path()), Vec::<PathBuf>::new());
}
