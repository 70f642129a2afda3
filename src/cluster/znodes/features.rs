//! `/feature`: finalized features. Empty in ZooKeeper mode as long as JVM 3.9 brokers may join: they end on any entry.
//!
//! `{"version":2,"status":1,"features":{}}`; status 0 is disabled; an entry is `{"f":{"max_version_level":3}}`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ZnodeError, from_json, to_json};

pub(crate) const PATH: &str = "/feature";

#[derive(Serialize, Deserialize)]
struct Json {
    version: i32,
    status: i32,
    #[serde(default)]
    features: BTreeMap<String, BTreeMap<String, i16>>,
}

/// Enabled, without any finalized feature.
pub(crate) fn encode_enabled() -> Bytes {
    to_json(&Json { version: 2, status: 1, features: BTreeMap::new() })
}

/// Whether the node needs no change: it is enabled, whatever it finalizes.
pub(crate) fn is_enabled(data: &[u8]) -> Result<bool, ZnodeError> {
    Ok(!data.is_empty() && from_json::<Json>(PATH, data)?.status == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        assert_eq!(encode_enabled(), r#"{"version":2,"status":1,"features":{}}"#);
        assert_eq!(is_enabled(&encode_enabled()), Ok(true));
    }

    #[test]
    fn disabled_or_empty_is_written_anew() {
        assert_eq!(is_enabled(br#"{"version":2,"status":0,"features":{}}"#), Ok(false));
        assert_eq!(is_enabled(b""), Ok(false));
    }
}
