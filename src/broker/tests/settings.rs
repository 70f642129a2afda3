//! What settings do, shown by a whole broker.

mod flush;

use std::time::Duration;

use kafka_protocol::messages::IncrementalAlterConfigsRequest;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::protocol::StrBytes;
use tempfile::TempDir;

use super::{Broker, WireClient, produce, start_with};

/// A broker of its own with these settings, and a client.
struct Probe {
    _dir: TempDir,
    broker: Broker,
    client: WireClient,
}

impl Probe {
    async fn start(settings: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let broker = start_with(dir.path(), settings).await;
        let client = WireClient::connect(&broker).await;
        Self { _dir: dir, broker, client }
    }

    /// Error code of a produced record.
    async fn produce(&mut self, topic: &str, values: &[&str]) -> i16 {
        self.client.call(&produce(topic, values), 9).await.responses[0].partition_responses[0].error_code
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
        assert_eq!(self.client.call(&request, 1).await.responses[0].error_code, 0, "{name}={value}");
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
