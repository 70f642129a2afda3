//! Notes to the controller, sequential and deleted once read.
//!
//! - `/isr_change_notification/isr_change_0000000000`: `{"version":1,"partitions":[{"topic":"T","partition":0}]}`,
//!   written by leaders older than Kafka 2.7 after they changed the ISR themselves.
//! - `/log_dir_event_notification/log_dir_event_0000000000`: `{"version":1,"broker":1,"event":1}`, a broker lost a log
//!   directory.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ZnodeError, decode_partitions, from_json, to_json};
use crate::types::{BrokerId, TopicPartition};

pub(crate) const ISR_CHANGES: &str = "/isr_change_notification";
pub(crate) const LOG_DIR_EVENTS: &str = "/log_dir_event_notification";
/// A sequence number follows.
pub(crate) const LOG_DIR_EVENT_PREFIX: &str = "/log_dir_event_notification/log_dir_event_";

/// The one kind of event there is: a directory has failed.
const DIR_FAILED: i32 = 1;

#[derive(Serialize, Deserialize)]
struct LogDirJson {
    #[serde(default)]
    version: i32,
    broker: i32,
    #[serde(default)]
    event: i32,
}

/// Partitions whose state is to be read again.
pub(crate) fn decode_isr_change(path: &str, data: &[u8]) -> Result<Vec<TopicPartition>, ZnodeError> {
    decode_partitions(path, data)
}

/// The broker that lost a directory.
pub(crate) fn decode_log_dir_event(path: &str, data: &[u8]) -> Result<BrokerId, ZnodeError> {
    from_json::<LogDirJson>(path, data).map(|json| BrokerId(json.broker))
}

pub(crate) fn encode_log_dir_event(broker: BrokerId) -> Bytes {
    to_json(&LogDirJson { version: 1, broker: broker.0, event: DIR_FAILED })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let isr = br#"{"version":1,"partitions":[{"topic":"T","partition":0}]}"#;
        assert_eq!(decode_isr_change("p", isr), Ok(vec![TopicPartition::new("T", 0)]));
        let event = r#"{"version":1,"broker":1,"event":1}"#;
        assert_eq!(decode_log_dir_event("p", event.as_bytes()), Ok(BrokerId(1)));
        assert_eq!(encode_log_dir_event(BrokerId(1)), event);
    }
}
