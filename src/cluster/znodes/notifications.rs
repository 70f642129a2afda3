//! Notes to the controller, sequential and deleted once read.
//!
//! - `/isr_change_notification/isr_change_0000000000`: `{"version":1,"partitions":[{"topic":"T","partition":0}]}`,
//!   written by leaders older than Kafka 2.7 after they changed the ISR themselves.
//! - `/log_dir_event_notification/log_dir_event_0000000000`: `{"version":1,"broker":1,"event":1}`, a broker lost a log
//!   directory.

use serde::Deserialize;

use super::{ZnodeError, from_json};
use crate::types::{BrokerId, TopicPartition};

pub(crate) const ISR_CHANGES: &str = "/isr_change_notification";
pub(crate) const LOG_DIR_EVENTS: &str = "/log_dir_event_notification";

#[derive(Deserialize)]
struct IsrJson {
    #[serde(default)]
    partitions: Vec<PartitionJson>,
}

#[derive(Deserialize)]
struct PartitionJson {
    topic: String,
    partition: i32,
}

#[derive(Deserialize)]
struct LogDirJson {
    broker: i32,
}

/// Partitions whose state is to be read again.
pub(crate) fn decode_isr_change(path: &str, data: &[u8]) -> Result<Vec<TopicPartition>, ZnodeError> {
    let json: IsrJson = from_json(path, data)?;
    Ok(json.partitions.iter().map(|entry| TopicPartition::new(entry.topic.as_str(), entry.partition)).collect())
}

/// The broker that lost a directory.
pub(crate) fn decode_log_dir_event(path: &str, data: &[u8]) -> Result<BrokerId, ZnodeError> {
    from_json::<LogDirJson>(path, data).map(|json| BrokerId(json.broker))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let isr = br#"{"version":1,"partitions":[{"topic":"T","partition":0}]}"#;
        assert_eq!(decode_isr_change("p", isr), Ok(vec![TopicPartition::new("T", 0)]));
        assert_eq!(decode_log_dir_event("p", br#"{"version":1,"broker":1,"event":1}"#), Ok(BrokerId(1)));
    }
}
