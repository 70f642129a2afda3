//! A whole broker in this process, spoken to over a socket by raw frames.

mod authorization;
mod clients;
mod cluster;
mod crowded;
mod delete_records;
mod faults;
mod hints;
mod log_dirs;
mod moves;
mod settings;
mod starts;
mod tls;

use std::path::Path;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiVersionsRequest, FetchRequest, MetadataRequest, ProduceRequest, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::{Broker, dirs, seams};
use crate::api;
use crate::api::context::Audience;
use crate::config::{Config, Inputs, Machine};
use crate::coordination::Coordination;
use crate::coordination::embedded::EmbeddedCoordination;
use crate::record::build::BatchBuilder;
use crate::transport::Stream;

/// One connection that sends what it is told, rubbish included.
struct WireClient {
    stream: Stream,
    correlation: i32,
}

impl WireClient {
    async fn connect(broker: &Broker) -> Self {
        let socket = TcpStream::connect(broker.addresses()[0]).await.unwrap();
        Self { stream: Stream::Plain(socket), correlation: 0 }
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
        let table: Vec<(i16, i16)> = api::TABLE
            .iter()
            .filter(|row| row.served.is_to(Audience::Alone))
            .map(|row| (row.key, row.max_version))
            .collect();
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
