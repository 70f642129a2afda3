//! `/cluster/id`: made by the first broker, never changed.
//!
//! `{"version":"1","id":"<22 characters of base64url>"}`; the version is text.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ZnodeError, from_json, to_json};

pub(crate) const CLUSTER: &str = "/cluster";
pub(crate) const PATH: &str = "/cluster/id";

#[derive(Serialize, Deserialize)]
struct Json {
    version: String,
    id: String,
}

pub(crate) fn encode(id: &str) -> Bytes {
    to_json(&Json { version: "1".into(), id: id.into() })
}

pub(crate) fn decode(data: &[u8]) -> Result<String, ZnodeError> {
    from_json::<Json>(PATH, data).map(|json| json.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let text = r#"{"version":"1","id":"Zd2VO0TtTPK4nf3QTKsWNg"}"#;
        assert_eq!(encode("Zd2VO0TtTPK4nf3QTKsWNg"), text);
        assert_eq!(decode(text.as_bytes()).as_deref(), Ok("Zd2VO0TtTPK4nf3QTKsWNg"));
    }
}
