//! A whole broker in this process, spoken to over a socket by raw frames.

mod crowded;
mod faults;
mod settings;

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiVersionsRequest, DescribeProducersRequest, FetchRequest, IncrementalAlterConfigsRequest, MetadataRequest,
    OffsetForLeaderEpochRequest, ProduceRequest, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Broker, Fatal, dirs, seams};
use crate::api;
use crate::cluster::znodes::topics;
use crate::config::{Config, Inputs, Machine};
use crate::coordination::embedded::EmbeddedCoordination;
use crate::coordination::{Coordination, CreateMode};
use crate::record::build::BatchBuilder;
use crate::storage::{self, StorageError, Write, WriteSet, contract, keys};
use crate::types::{ProducerEpoch, ProducerId};

/// One connection that sends what it is told, rubbish included.
struct WireClient {
    stream: TcpStream,
    correlation: i32,
}

impl WireClient {
    async fn connect(broker: &Broker) -> Self {
        Self { stream: TcpStream::connect(broker.addresses()[0]).await.unwrap(), correlation: 0 }
    }

    async fn send<R: Request>(&mut self, request: &R, version: i16) {
        self.correlation += 1;
        let mut frame = BytesMut::new();
        RequestHeader::default()
            .with_request_api_key(R::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("test")))
            .encode(&mut frame, R::header_version(version))
            .unwrap();
        request.encode(&mut frame, version).unwrap();
        self.send_raw(&frame).await;
    }

    async fn send_raw(&mut self, frame: &[u8]) {
        let mut bytes = BytesMut::new();
        bytes.put_i32(frame.len() as i32);
        bytes.put_slice(frame);
        self.stream.write_all(&bytes).await.unwrap();
    }

    /// The next frame; `None` when the broker closed.
    async fn frame(&mut self) -> Option<Bytes> {
        let size = self.stream.read_i32().await.ok()?;
        let mut frame = vec![0; size as usize];
        self.stream.read_exact(&mut frame).await.ok()?;
        Some(frame.into())
    }

    /// The next frame, or the end, if one of them comes within the time.
    async fn frame_within(&mut self, time: Duration) -> Option<Option<Bytes>> {
        tokio::time::timeout(time, self.frame()).await.ok()
    }

    async fn receive<R: Request>(&mut self, correlation: i32, version: i16) -> R::Response {
        let mut frame = self.frame().await.expect("an answer");
        let header = ResponseHeader::decode(&mut frame, R::Response::header_version(version)).unwrap();
        assert_eq!(header.correlation_id, correlation, "replies leave in request order (I-23)");
        let response = R::Response::decode(&mut frame, version).unwrap();
        assert!(!frame.has_remaining(), "bytes left over");
        response
    }

    async fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.send(request, version).await;
        self.receive::<R>(self.correlation, version).await
    }
}

async fn start(dir: &Path) -> Broker {
    start_with(dir, &[]).await
}

async fn start_with(dir: &Path, settings: &[&str]) -> Broker {
    Broker::start(config(dir, settings)).await.unwrap()
}

fn config(dir: &Path, settings: &[&str]) -> Config {
    let usual = ["broker.id=1", "klamm.disk.reserve.bytes=0"];
    let settings: Vec<&str> = usual.iter().chain(settings).copied().collect();
    config_of(&dir.display().to_string(), &settings)
}

/// A free port on loopback, these log directories, and these settings; else Kafka's defaults.
fn config_of(log_dirs: &str, settings: &[&str]) -> Config {
    let mut overrides: Vec<String> = settings.iter().map(|setting| (*setting).to_owned()).collect();
    overrides.extend(["listeners=PLAINTEXT://127.0.0.1:0".to_owned(), format!("log.dirs={log_dirs}")]);
    let inputs = Inputs { overrides, ..Inputs::default() };
    Config::load(&inputs, Machine::this()).unwrap()
}

/// Changes the tree of a broker that is down. Answers which topics have logs in its directory.
async fn while_down(dir: &Path, change: impl AsyncFnOnce(&EmbeddedCoordination)) -> Vec<String> {
    let (opened, _) = dirs::open(&config(dir, &[]), &seams::Seams::default().open_dir).unwrap();
    let (first, _) = &opened.dirs[0];
    let tree = EmbeddedCoordination::open(first.clone()).unwrap();
    change(&tree).await;
    drop(tree);
    let mut topics: Vec<String> = first.partitions().into_iter().map(|(id, _)| id.topic.to_string()).collect();
    topics.sort();
    topics.dedup();
    first.close();
    topics
}

async fn delete_below(tree: &EmbeddedCoordination, path: &str) {
    for child in tree.children(path).await.unwrap() {
        Box::pin(delete_below(tree, &format!("{path}/{child}"))).await;
    }
    tree.delete(path, -1).await.unwrap();
}

fn topic(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

async fn create(client: &mut WireClient, name: &str) {
    let request = MetadataRequest::default()
        .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(topic(name)))]))
        .with_allow_auto_topic_creation(true);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while client.call(&request, 12).await.topics[0].error_code != 0 {
        assert!(tokio::time::Instant::now() < deadline, "the topic has no leader");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn produce(name: &str, values: &[&str]) -> ProduceRequest {
    let mut batch = BatchBuilder::new();
    for value in values {
        batch.append(1_700_000_000_000, None, Some(value.as_bytes()));
    }
    let partition = PartitionProduceData::default().with_records(Some(batch.finish().bytes.freeze()));
    ProduceRequest::default()
        .with_acks(-1)
        .with_timeout_ms(10_000)
        .with_topic_data(vec![TopicProduceData::default().with_name(topic(name)).with_partition_data(vec![partition])])
}

fn fetch(name: &str, offset: i64) -> FetchRequest {
    let partition = FetchPartition::default().with_fetch_offset(offset).with_partition_max_bytes(1 << 20);
    FetchRequest::default()
        .with_max_wait_ms(5000)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![FetchTopic::default().with_topic(topic(name)).with_partitions(vec![partition])])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_announced_is_the_table() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    for version in 0..=4 {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str(if version >= 3 { "test" } else { "" }))
            .with_client_software_version(StrBytes::from_static_str(if version >= 3 { "1.0" } else { "" }));
        let response = client.call(&request, version).await;
        assert_eq!(response.error_code, 0);
        let announced: Vec<(i16, i16)> = response.api_keys.iter().map(|key| (key.api_key, key.max_version)).collect();
        let table: Vec<(i16, i16)> = api::TABLE.iter().map(|row| (row.key, row.max_version)).collect();
        assert_eq!(announced, table, "I-22");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_version_of_api_versions_is_answered_and_anything_else_unknown_closes() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    client.send_raw(&[0, 18, 0, 99, 0, 0, 0, 7, 0xff, 0xff, 1, 2, 3]).await;
    let answer = client.frame().await.expect("an answer in version 0");
    assert_eq!(&answer[..], [0, 0, 0, 7, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4]);
    let again = client.call(&MetadataRequest::default(), 1).await;
    assert_eq!(again.brokers.len(), 1, "the connection lives");
    for rubbish in [&[0, 99, 0, 0, 0, 0, 0, 1, 0xff, 0xff][..], &[0, 3, 0, 99, 0, 0, 0, 1, 0xff, 0xff], &[1, 2], &[]] {
        let mut client = WireClient::connect(&broker).await;
        client.send_raw(rubbish).await;
        assert_eq!(client.frame().await, None, "{rubbish:?}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_read_from_the_tail_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    let produced = client.call(&produce("t", &["a", "b"]), 9).await;
    let produced = &produced.responses[0].partition_responses[0];
    assert_eq!((produced.error_code, produced.base_offset, produced.log_append_time_ms), (0, 0, -1));
    let from_tail = client.call(&fetch("t", 1), 12).await;
    let from_tail = &from_tail.responses[0].partitions[0];
    assert_eq!((from_tail.error_code, from_tail.high_watermark, from_tail.log_start_offset), (0, 2, 0));
    let records = from_tail.records.clone().unwrap();
    broker.stop().await;

    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    let from_disk = client.call(&fetch("t", 1), 12).await;
    assert_eq!(
        from_disk.responses[0].partitions[0].records,
        Some(records),
        "the bytes stored are the bytes fetched (I-4)"
    );
    let beyond = client.call(&fetch("t", 3), 12).await;
    assert_eq!(beyond.responses[0].partitions[0].error_code, 1, "OFFSET_OUT_OF_RANGE");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_fetch_wakes_on_produce_and_replies_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    let begun = tokio::time::Instant::now();
    client.send(&fetch("t", 0), 12).await;
    let parked = client.correlation;
    client.send(&MetadataRequest::default(), 1).await;
    let behind = client.correlation;
    let mut other = WireClient::connect(&broker).await;
    other.call(&produce("t", &["a"]), 9).await;
    let fetched = client.receive::<FetchRequest>(parked, 12).await;
    assert_eq!(fetched.responses[0].partitions[0].high_watermark, 1);
    client.receive::<MetadataRequest>(behind, 1).await;
    assert!(begun.elapsed() < Duration::from_secs(4), "it did not wait for max_wait_ms");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_nobody_takes_give_way_to_those_of_another_client() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start_with(dir.path(), &["klamm.reply.bytes=1048576"]).await;
    let mut other = WireClient::connect(&broker).await;
    create(&mut other, "t").await;
    for _ in 0..2 {
        other.call(&produce("t", &["v".repeat(900_000).as_str()]), 9).await;
    }
    let mut slow = WireClient::connect(&broker).await;
    slow.send(&fetch("t", 0), 12).await;
    // Small answers go out meanwhile, and those for which there is no room a little later.
    tokio::time::sleep(Duration::from_millis(100)).await;
    other.call(&MetadataRequest::default(), 1).await;
    let fetched = other.call(&fetch("t", 1), 12).await;
    assert_eq!(fetched.responses[0].partitions[0].records.as_ref().map(Bytes::len), Some(900_072));
    assert_eq!(slow.frame().await, None, "a reply that is not taken gave way");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_fetches_are_answered_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    let first = client.correlation + 1;
    for _ in 0..3 {
        client.send(&fetch("t", 0), 12).await;
        client.send(&MetadataRequest::default(), 1).await;
    }
    let mut other = WireClient::connect(&broker).await;
    other.call(&produce("t", &["a"]), 9).await;
    for at in 0..3 {
        let fetched = client.receive::<FetchRequest>(first + 2 * at, 12).await;
        assert!(fetched.responses[0].partitions[0].records.as_ref().is_some_and(|records| !records.is_empty()));
        client.receive::<MetadataRequest>(first + 2 * at + 1, 1).await;
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_batch_is_refused_and_nothing_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    let mut request = produce("t", &["a"]);
    let records = request.topic_data[0].partition_data[0].records.take().unwrap();
    let mut broken = records.to_vec();
    *broken.last_mut().unwrap() ^= 1;
    request.topic_data[0].partition_data[0].records = Some(broken.into());
    let answer = client.call(&request, 9).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 2, "CORRUPT_MESSAGE");
    assert_eq!(answer.responses[0].partition_responses[0].base_offset, -1);
    let answer = client.call(&produce("t", &["a"]), 9).await;
    assert_eq!(answer.responses[0].partition_responses[0].base_offset, 0);
    broker.stop().await;
}

/// Sets one setting of brokers: of this one, or of all where its name is empty.
async fn set(client: &mut WireClient, broker: &'static str, name: &'static str, value: &'static str) -> i16 {
    let change = AlterableConfig::default()
        .with_name(StrBytes::from_static_str(name))
        .with_value(Some(StrBytes::from_static_str(value)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(4)
        .with_resource_name(StrBytes::from_static_str(broker))
        .with_configs(vec![change]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    client.call(&request, 1).await.responses[0].error_code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_brokers_change_while_they_run_and_stay_after_a_restart() {
    const MESSAGE_TOO_LARGE: i16 = 10;
    let dir = tempfile::tempdir().unwrap();
    let large = produce("t", &["x".repeat(500).as_str()]);
    // Open logs take a change over in the background.
    let until = async |client: &mut WireClient, error_code: i16| {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while client.call(&large, 9).await.responses[0].partition_responses[0].error_code != error_code {
            assert!(tokio::time::Instant::now() < deadline, "the setting has no effect");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    until(&mut client, 0).await;
    assert_eq!(set(&mut client, "", "message.max.bytes", "300").await, 0);
    until(&mut client, MESSAGE_TOO_LARGE).await;
    assert_eq!(set(&mut client, "1", "message.max.bytes", "3000").await, 0);
    until(&mut client, 0).await;
    assert_eq!(set(&mut client, "1", "message.max.bytes", "30").await, 0);
    assert_eq!(set(&mut client, "2", "message.max.bytes", "3000").await, 42, "another broker's");
    assert_eq!(set(&mut client, "1", "num.partitions", "7").await, 42, "INVALID_REQUEST: it does not change");
    broker.stop().await;

    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    let answer = client.call(&large, 9).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, MESSAGE_TOO_LARGE, "from the first on");
    assert_eq!(set(&mut client, "", "max.connections.per.ip", "1").await, 0);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while WireClient::connect(&broker).await.frame_within(Duration::from_millis(50)).await.is_none() {
        assert!(tokio::time::Instant::now() < deadline, "a second connection is let in");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_refused_while_another_broker_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let refused = Broker::start(config_of(&dir.path().display().to_string(), &[])).await.unwrap_err().to_string();
    assert!(refused.contains("in use by another broker"), "{refused}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_first_directory_is_refused_and_the_logs_of_the_others_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let of = |dirs: [&str; 2]| {
        let dirs = dirs.map(|name| dir.path().join(name).display().to_string()).join(",");
        Broker::start(config_of(&dirs, &[]))
    };
    of(["a", "b"]).await.unwrap().stop().await;
    for wrong in [["b", "a"], ["c", "a"]] {
        let refused = of(wrong).await.unwrap_err().to_string();
        assert!(refused.contains("must stay the first"), "{refused}");
    }
    of(["a", "b"]).await.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_deleted_while_the_broker_was_down_goes_and_all_else_stays() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start_with(dir.path(), &["num.partitions=40"]).await;
    let mut client = WireClient::connect(&broker).await;
    for name in ["doomed", "kept"] {
        create(&mut client, name).await;
        assert_eq!(client.call(&produce(name, &["a"]), 9).await.responses[0].partition_responses[0].error_code, 0);
    }
    broker.stop().await;
    let logs = while_down(dir.path(), async |tree| delete_below(tree, &topics::path("doomed")).await).await;
    assert_eq!(logs, ["doomed", "kept"]);

    let broker = start(dir.path()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    broker.stop().await;
    let logs = while_down(dir.path(), async |_| ()).await;
    assert_eq!(logs, ["doomed", "kept"], "a day is not over");

    let broker = start_with(dir.path(), &["klamm.stray.retention.ms=0"]).await;
    let logs = || broker.dirs[0].partitions().into_iter().map(|(id, _)| id.topic.to_string());
    // One pass judges all of them.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while logs().any(|topic| topic == "doomed") {
        assert!(tokio::time::Instant::now() < deadline, "its logs are still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(logs().filter(|topic| topic == "kept").count(), 40);
    let mut client = WireClient::connect(&broker).await;
    let fetched = client.call(&fetch("kept", 0), 12).await;
    assert_eq!(fetched.responses[0].partitions[0].high_watermark, 1);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_tree_beside_logs_is_refused_and_nothing_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create(&mut WireClient::connect(&broker).await, "t").await;
    broker.stop().await;
    while_down(dir.path(), async |tree| {
        for child in tree.children("/").await.unwrap() {
            delete_below(tree, &format!("/{child}")).await;
        }
    })
    .await;
    let refused = Broker::start(config(dir.path(), &[])).await.unwrap_err().to_string();
    assert!(refused.contains("meta.properties"), "{refused}");
    assert_eq!(while_down(dir.path(), async |_| ()).await, ["t"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_are_described_where_they_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    let mut batch = BatchBuilder::new().producer(ProducerId(41), ProducerEpoch(2), 0);
    batch.append(1_700_000_000_000, None, Some(b"1"));
    batch.append(1_700_000_000_000, None, Some(b"2"));
    let mut request = produce("t", &[]);
    request.topic_data[0].partition_data[0].records = Some(batch.finish().bytes.freeze());
    assert_eq!(client.call(&request, 9).await.responses[0].partition_responses[0].error_code, 0);

    let wanted = |name, partitions: &[i32]| {
        TopicRequest::default().with_name(topic(name)).with_partition_indexes(partitions.to_vec())
    };
    let request = DescribeProducersRequest::default().with_topics(vec![
        wanted("t", &[0, 99]),
        wanted("missing", &[0]),
        wanted("no/name", &[0]),
    ]);
    let answer = client.call(&request, 0).await;
    let codes: Vec<i16> =
        answer.topics.iter().flat_map(|topic| topic.partitions.iter().map(|part| part.error_code)).collect();
    assert_eq!(codes, [0, 3, 3, 17]);
    let producers = &answer.topics[0].partitions[0].active_producers;
    assert_eq!(producers.len(), 1);
    assert_eq!((producers[0].producer_id.0, producers[0].producer_epoch, producers[0].last_sequence), (41, 2, 1));
    assert_eq!((producers[0].coordinator_epoch, producers[0].current_txn_start_offset), (-1, -1));
    broker.stop().await;
}

/// A log directory whose growing tables have no place to lie in: the first large batch stops it.
fn break_dir(broker: &Broker, at: usize) {
    let dir = &broker.dirs[at];
    let growing = dir.path().join("growing");
    std::fs::write(&growing, b"").expect("write");
    let family = dir.create(&[contract::partition("broken", 0)]).expect("create")[0];
    for offset in 0.. {
        let large = vec![0; 64 << 10];
        match contract::commit(&**dir, vec![contract::batch(family, offset, &large)], false) {
            Ok(()) => assert!(offset < 100, "a table is begun sooner"),
            Err(error) => return assert!(matches!(error, StorageError::Stopped { .. }), "{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_last_log_directory_failed_cannot_go_on() {
    let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let paths = places.each_ref().map(|place| place.path().display().to_string()).join(",");
    let settings = ["broker.id=1", "klamm.disk.reserve.bytes=0"];
    let broker = Broker::start(config_of(&paths, &settings)).await.unwrap();
    break_dir(&broker, 1);
    let beside = tokio::time::timeout(Duration::from_millis(200), broker.fatal()).await;
    assert!(beside.is_err(), "there is another: {beside:?}");
    break_dir(&broker, 0);
    let fatal = tokio::time::timeout(Duration::from_secs(30), broker.fatal()).await.expect("it is told");
    assert!(matches!(&fatal, Fatal::LogDirs(line) if line.contains("all log directories")), "{fatal:?}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_does_not_outlive_the_directory_with_the_clusters_state() {
    let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let paths = places.each_ref().map(|place| place.path().display().to_string()).join(",");
    let broker = Broker::start(config_of(&paths, &["broker.id=1", "klamm.disk.reserve.bytes=0"])).await.unwrap();
    break_dir(&broker, 0);
    let fatal = tokio::time::timeout(Duration::from_secs(30), broker.fatal()).await.expect("it is told");
    assert!(matches!(&fatal, Fatal::LogDirs(line) if line.contains("cluster's state")), "{fatal:?}");
    broker.stop().await;
}

async fn produced(client: &mut WireClient, name: &str, values: &[&str]) -> (i16, i64) {
    let answer = client.call(&produce(name, values), 9).await;
    let answer = &answer.responses[0].partition_responses[0];
    (answer.error_code, answer.base_offset)
}

/// Id, leader and leader epoch of a topic's only partition.
async fn described(client: &mut WireClient, name: &str) -> (uuid::Uuid, i32, i32) {
    let topics = vec![MetadataRequestTopic::default().with_name(Some(topic(name)))];
    let answer = client.call(&MetadataRequest::default().with_topics(Some(topics)), 12).await;
    let partition = &answer.topics[0].partitions[0];
    (answer.topics[0].topic_id, partition.leader_id.0, partition.leader_epoch)
}

/// One damaged log took all partitions offline, and with two directories a retry made it anew, empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_offline_alone_and_nothing_is_made_in_its_place() {
    const KAFKA_STORAGE_ERROR: i16 = 56;
    let dir = tempfile::tempdir().unwrap();
    let dirs = ["a", "b"].map(|name| dir.path().join(name).display().to_string()).join(",");
    let config = || config_of(&dirs, &["klamm.disk.reserve.bytes=0"]);
    let broker = Broker::start(config()).await.unwrap();
    let mut client = WireClient::connect(&broker).await;
    for name in ["bad", "good", "more"] {
        create(&mut client, name).await;
        assert_eq!(produced(&mut client, name, &["a"]).await, (0, 0));
    }
    broker.stop().await;
    let logs = |dirs: &[crate::storage::SharedLogDir]| {
        dirs.iter()
            .map(|dir| dir.partitions().into_iter().map(|(id, _)| id).collect::<BTreeSet<_>>())
            .collect::<Vec<_>>()
    };
    let before = {
        let (opened, _) = dirs::open(&config(), &seams::Seams::default().open_dir).unwrap();
        let opened: Vec<_> = opened.dirs.into_iter().map(|(dir, _)| dir).collect();
        let before = logs(&opened);
        for dir in opened.iter().rev() {
            let bad = dir.partitions().into_iter().map(|(id, _)| id).find(|id| id.topic.as_str() == "bad");
            if let Some(id) = bad {
                let key = keys::side(id.topic_id, id.partition, 0x80, b"check");
                let rubbish =
                    WriteSet { writes: vec![Write::Side { key, value: Bytes::from_static(&[9]) }], sync: false };
                storage::commit(&**dir, rubbish).await.unwrap();
            }
            dir.close();
        }
        before
    };
    for _ in 0..2 {
        let broker = Broker::start(config()).await.unwrap();
        let mut client = WireClient::connect(&broker).await;
        assert_eq!(produced(&mut client, "bad", &["b"]).await.0, KAFKA_STORAGE_ERROR);
        let fetched = client.call(&fetch("bad", 0), 12).await;
        assert_eq!(fetched.responses[0].partitions[0].error_code, KAFKA_STORAGE_ERROR);
        for name in ["good", "more"] {
            let fetched = client.call(&fetch(name, 0), 12).await;
            assert_eq!(fetched.responses[0].partitions[0].error_code, 0, "{name}");
            assert_eq!(produced(&mut client, name, &["b"]).await.0, 0);
        }
        assert_eq!(logs(&broker.dirs), before);
        broker.stop().await;
    }
}

/// A topic's node that had lost its id got another one: an empty log, and the old one was deleted as a stray.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_whose_node_lost_its_id_keeps_its_records() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    assert_eq!(produced(&mut client, "t", &["a"]).await, (0, 0));
    let (id, ..) = described(&mut client, "t").await;
    broker.stop().await;
    while_down(dir.path(), async |tree| {
        let old_tools = Bytes::from_static(br#"{"version":1,"partitions":{"0":[1]}}"#);
        tree.set(&topics::path("t"), old_tools, -1).await.unwrap();
    })
    .await;
    let broker = start_with(dir.path(), &["klamm.stray.retention.ms=0"]).await;
    let mut client = WireClient::connect(&broker).await;
    assert_eq!(described(&mut client, "t").await, (id, 1, 0));
    assert_eq!(produced(&mut client, "t", &["b"]).await, (0, 1));
    broker.stop().await;
}

/// A topic that was made anew under the same name begins empty, and the old one is kept beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_anew_while_the_broker_was_down_begins_empty_beside_the_old_log() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    assert_eq!(produced(&mut client, "t", &["a", "b"]).await, (0, 0));
    let (old, ..) = described(&mut client, "t").await;
    broker.stop().await;
    let node = |id: uuid::Uuid| {
        let text = crate::types::TopicId(id);
        let (adding, removing) = (r#""adding_replicas":{}"#, r#""removing_replicas":{}"#);
        Bytes::from(format!(r#"{{"version":3,"topic_id":"{text}","partitions":{{"0":[1]}},{adding},{removing}}}"#))
    };
    let anew = uuid::Uuid::from_u128(77 << 64 | 5);
    while_down(dir.path(), async |tree| {
        delete_below(tree, &topics::path("t")).await;
        tree.create(&topics::path("t"), node(anew), CreateMode::Persistent).await.unwrap();
    })
    .await;
    let broker = start_with(dir.path(), &["klamm.stray.retention.ms=0"]).await;
    let mut client = WireClient::connect(&broker).await;
    assert_eq!(described(&mut client, "t").await.0, anew);
    assert_eq!(produced(&mut client, "t", &["c"]).await, (0, 0));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(broker.dirs[0].partitions().len(), 2, "a topic of its name exists");
    broker.stop().await;
    while_down(dir.path(), async |tree| {
        delete_below(tree, &topics::path("t")).await;
        tree.create(&topics::path("t"), node(old), CreateMode::Persistent).await.unwrap();
    })
    .await;
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    let fetched = client.call(&fetch("t", 0), 12).await;
    assert_eq!(fetched.responses[0].partitions[0].high_watermark, 2, "it comes back with its id");
    broker.stop().await;
}

/// After a power loss a log may end earlier, and a consumer beyond its end missed what came after: no epoch told it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_boot_gives_new_leader_epochs_and_a_restart_alone_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut epoch = 0;
    for (boot, raised) in [("one", false), ("one", false), ("two", true), ("two", false), ("one", true)] {
        let broker = start_with(dir.path(), &[&format!("klamm.boot.id={boot}")]).await;
        let mut client = WireClient::connect(&broker).await;
        create(&mut client, "t").await;
        epoch += i32::from(raised);
        assert_eq!(described(&mut client, "t").await.2, epoch, "{boot}");
        let (error, offset) = produced(&mut client, "t", &["a"]).await;
        assert_eq!(error, 0);
        if raised {
            // What a consumer asks that has read under the epoch before (KIP-320).
            let wanted =
                OffsetForLeaderPartition::default().with_current_leader_epoch(epoch).with_leader_epoch(epoch - 1);
            let wanted = OffsetForLeaderTopic::default().with_topic(topic("t")).with_partitions(vec![wanted]);
            let answer = client.call(&OffsetForLeaderEpochRequest::default().with_topics(vec![wanted]), 4).await;
            assert_eq!(answer.topics[0].partitions[0].end_offset, offset);
        }
        broker.stop().await;
    }
}
