//! `/controller`, ephemeral: who is the controller. `/controller_epoch`: how often one was elected, as decimal text.
//!
//! `{"version":2,"brokerid":1,"timestamp":"1700000000000","kraftControllerEpoch":-1}`
//! The data version of `/controller_epoch` is the fencing token of every controller write (I-12). A
//! `kraftControllerEpoch` above 0 means that a migration to KRaft owns the cluster. Tools may leave an empty
//! `/controller_epoch` behind, which is read as absent.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ZnodeError, from_json, to_json};
use crate::clock::UnixMs;
use crate::types::{BrokerId, ControllerEpoch};

pub(crate) const PATH: &str = "/controller";
pub(crate) const MIGRATION_PATH: &str = "/migration";
pub(crate) const EPOCH_PATH: &str = "/controller_epoch";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Json {
    version: i32,
    brokerid: i32,
    #[serde(default)]
    timestamp: String,
    #[serde(default = "no_kraft")]
    kraft_controller_epoch: i32,
}

fn no_kraft() -> i32 {
    -1
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ControllerNode {
    pub(crate) broker: BrokerId,
    /// Above 0: the cluster is being migrated to KRaft, stay out.
    pub(crate) kraft_epoch: i32,
}

pub(crate) fn encode(broker: BrokerId, now_ms: UnixMs) -> Bytes {
    to_json(&Json { version: 2, brokerid: broker.0, timestamp: now_ms.to_string(), kraft_controller_epoch: -1 })
}

pub(crate) fn decode(data: &[u8]) -> Result<ControllerNode, ZnodeError> {
    let json: Json = from_json(PATH, data)?;
    Ok(ControllerNode { broker: BrokerId(json.brokerid), kraft_epoch: json.kraft_controller_epoch })
}

/// Whether `/migration`, `{"version":0,"kraft_controller_id":3000,…}`, says that KRaft has taken over.
pub(crate) fn is_migrating(data: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Migration {
        kraft_controller_id: i32,
    }
    serde_json::from_slice::<Migration>(data).is_ok_and(|migration| migration.kraft_controller_id >= 0)
}

pub(crate) fn encode_epoch(epoch: ControllerEpoch) -> Bytes {
    epoch.to_string().into()
}

/// `None` for an empty node.
pub(crate) fn decode_epoch(data: &[u8]) -> Result<Option<ControllerEpoch>, ZnodeError> {
    if data.is_empty() {
        return Ok(None);
    }
    let text = std::str::from_utf8(data).map_err(|error| ZnodeError::new(EPOCH_PATH, error))?;
    text.trim().parse().map(|epoch| Some(ControllerEpoch(epoch))).map_err(|error| ZnodeError::new(EPOCH_PATH, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let text = r#"{"version":2,"brokerid":1,"timestamp":"1700000000000","kraftControllerEpoch":-1}"#;
        assert_eq!(encode(BrokerId(1), 1_700_000_000_000), text);
        assert_eq!(decode(text.as_bytes()), Ok(ControllerNode { broker: BrokerId(1), kraft_epoch: -1 }));
    }

    #[test]
    fn version_1_has_no_kraft_epoch() {
        let node = decode(br#"{"version":1,"brokerid":3,"timestamp":"1"}"#);
        assert_eq!(node, Ok(ControllerNode { broker: BrokerId(3), kraft_epoch: -1 }));
    }

    #[test]
    fn migration_is_one_once_a_kraft_controller_is_named() {
        assert!(is_migrating(br#"{"version":0,"kraft_controller_id":3000,"kraft_controller_epoch":1}"#));
        assert!(!is_migrating(br#"{"version":0,"kraft_controller_id":-1}"#));
        assert!(!is_migrating(b""));
    }

    #[test]
    fn epoch_is_decimal_text_and_empty_is_absent() {
        assert_eq!(encode_epoch(ControllerEpoch(12)), "12");
        assert_eq!(decode_epoch(b"12"), Ok(Some(ControllerEpoch(12))));
        assert_eq!(decode_epoch(b""), Ok(None));
        assert!(decode_epoch(b"x").is_err());
    }
}
