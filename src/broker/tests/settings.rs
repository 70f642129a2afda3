//! What settings do, shown by a whole broker: each that is marked as honoured has an entry in [`PROBES`].
//!
//! An entry names the test that shows the effect. The table is checked by machine: a row without an entry, an entry
//! without a row, and a test that does not exist or does not name the setting each fail.

mod connections;
mod control_plane;
mod coordinators;
mod directories;
mod flush;
mod identity;
mod login;
mod logs;
mod probes;
mod racks;
mod replicas;
mod requests;
mod running;
mod sasl;
mod tls;
mod tokens;
mod topics;
mod watched;
mod zookeeper;
mod zookeeper_tls;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use kafka_protocol::messages::IncrementalAlterConfigsRequest;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::protocol::{Request, StrBytes};
use tempfile::TempDir;

use super::{Broker, WireClient, create, fetch, produce, topic};
use crate::broker::seams::Seams;
use crate::clock::{Clock, SystemClock, UnixMs};
use crate::config::{Config, ConfigError, Inputs, Machine};
use crate::record::BatchBuilder;
use crate::replica::partition::Partition;
use crate::types::PartitionIndex;

/// The machine's clock, as far ahead as a test has moved it.
#[derive(Debug, Default)]
struct Ahead(AtomicI64);

impl Clock for Ahead {
    fn now_ms(&self) -> UnixMs {
        SystemClock.now_ms() + self.0.load(Ordering::SeqCst)
    }

    fn monotonic_ms(&self) -> i64 {
        SystemClock.monotonic_ms() + self.0.load(Ordering::SeqCst)
    }

    fn random(&self) -> u128 {
        SystemClock.random()
    }
}

fn now_ms() -> UnixMs {
    SystemClock.now_ms()
}

const MINUTE_MS: i64 = 60_000;

/// A broker's configuration: Kafka's defaults but for an id, a free port on loopback, a disk that may be full and
/// these, the last of which counts.
fn load(log_dir: &Path, settings: &[&str]) -> Result<Config, ConfigError> {
    let has_id = settings.iter().any(|setting| setting.starts_with("broker.id=") || setting.starts_with("node.id="));
    let mut overrides = vec!["listeners=PLAINTEXT://127.0.0.1:0".to_owned()];
    overrides.push("klamm.disk.reserve.bytes=0".to_owned());
    overrides.push(format!("log.dirs={}", log_dir.display()));
    if !has_id {
        overrides.push("broker.id=1".to_owned());
    }
    overrides.extend(settings.iter().map(|setting| (*setting).to_owned()));
    Config::load(&Inputs { overrides, ..Inputs::default() }, Machine::this())
}

/// The line with which a start with these settings ends.
fn refusal(settings: &[&str]) -> String {
    load(Path::new("/nowhere"), settings).expect_err("refused").to_string()
}

/// A broker of its own with these settings, and a client.
struct Probe {
    dir: TempDir,
    clock: Arc<Ahead>,
    broker: Broker,
    client: WireClient,
}

impl Probe {
    async fn start(settings: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), settings).await
    }

    async fn start_in(dir: TempDir, settings: &[&str]) -> Self {
        let clock = Arc::<Ahead>::default();
        let config = load(dir.path(), settings).unwrap();
        let broker = Broker::start_over(config, Seams { clock: clock.clone(), ..Seams::default() }).await.unwrap();
        let client = WireClient::connect(&broker).await;
        Self { dir, clock, broker, client }
    }

    /// The same directory under other settings.
    async fn restart(self, settings: &[&str]) -> Self {
        self.broker.stop().await;
        Self::start_in(self.dir, settings).await
    }

    async fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.client.call(request, version).await
    }

    async fn create(&mut self, topic: &str) {
        create(&mut self.client, topic).await;
    }

    /// Error code of a produced batch.
    async fn produce(&mut self, topic: &str, values: &[&str]) -> i16 {
        self.call(&produce(topic, values), 9).await.responses[0].partition_responses[0].error_code
    }

    /// Error code of a batch of one record with this timestamp.
    async fn produce_at(&mut self, topic: &str, timestamp: i64, key: Option<&str>, value: Option<&str>) -> i16 {
        let mut batch = BatchBuilder::new();
        batch.append(timestamp, key.map(str::as_bytes), value.map(str::as_bytes));
        self.produce_batch(topic, batch).await
    }

    async fn produce_batch(&mut self, topic: &str, batch: BatchBuilder) -> i16 {
        let mut request = produce(topic, &[]);
        request.topic_data[0].partition_data[0].records = Some(batch.finish().bytes.freeze());
        self.call(&request, 9).await.responses[0].partition_responses[0].error_code
    }

    /// Bytes that one fetch from the log's start gets.
    async fn fetched(&mut self, topic: &str) -> bytes::Bytes {
        let response = self.call(&fetch(topic, 0), 12).await;
        response.responses[0].partitions[0].records.clone().unwrap_or_default()
    }

    fn partition(&self, topic: &str) -> Arc<Partition> {
        self.broker.replicas.get(topic, PartitionIndex(0)).expect("it has a replica here")
    }

    /// Sets one setting: of a topic, or of all brokers where the topic's name is empty.
    async fn set(&mut self, topic: &str, name: &str, value: &str) {
        let change = AlterableConfig::default()
            .with_name(StrBytes::from_string(name.to_owned()))
            .with_value(Some(StrBytes::from_string(value.to_owned())));
        let resource = AlterConfigsResource::default()
            .with_resource_type(if topic.is_empty() { 4 } else { 2 })
            .with_resource_name(StrBytes::from_string(topic.to_owned()))
            .with_configs(vec![change]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        assert_eq!(self.call(&request, 1).await.responses[0].error_code, 0, "{name}={value}");
    }
}

/// Waits for what happens in the background.
async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(tokio::time::Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// All files below a directory.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}
