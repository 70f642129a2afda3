//! `/brokers/ids/N`, ephemeral: a live broker and its endpoints. `/brokers/seqid`: numbers for brokers without an id.
//!
//! ```text
//! {"version":5,"host":"h","port":9092,"jmx_port":-1,"timestamp":"1700000000000",
//!  "endpoints":["INTERNAL://h:9092","SASL_SSL://h:9093"],"rack":"r1",
//!  "listener_security_protocol_map":{"INTERNAL":"PLAINTEXT","SASL_SSL":"SASL_SSL"},"features":{}}
//! ```
//! `host` and `port` are those of the first PLAINTEXT endpoint, else null and −1. Endpoints carry listener names, the
//! map their security protocols; a version below 4 has no map and its endpoints carry protocols. `rack` (version 3) is
//! absent when unset. `features` (version 5) is an empty map in ZooKeeper mode.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ZnodeError, from_json, to_json};
use crate::clock::UnixMs;
use crate::cluster::control::{Endpoint, LiveBroker};
use crate::types::BrokerId;

pub(crate) const IDS: &str = "/brokers/ids";
pub(crate) const SEQUENCE: &str = "/brokers/seqid";

pub(crate) fn path(id: BrokerId) -> String {
    format!("{IDS}/{id}")
}

#[derive(Serialize, Deserialize)]
struct Json {
    version: i32,
    host: Option<String>,
    port: i32,
    #[serde(default = "no_jmx_port")]
    jmx_port: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timestamp: Option<String>,
    #[serde(default)]
    endpoints: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rack: Option<String>,
    #[serde(default)]
    listener_security_protocol_map: BTreeMap<String, String>,
    #[serde(default)]
    features: BTreeMap<String, BTreeMap<String, i16>>,
}

fn no_jmx_port() -> i32 {
    -1
}

/// The registration of `broker`, made at `now_ms`.
pub(crate) fn encode(broker: &LiveBroker, now_ms: UnixMs) -> Bytes {
    let plaintext = broker.endpoints.iter().find(|endpoint| endpoint.security_protocol == "PLAINTEXT");
    to_json(&Json {
        version: 5,
        host: plaintext.map(|endpoint| endpoint.host.clone()),
        port: plaintext.map_or(-1, |endpoint| i32::from(endpoint.port)),
        jmx_port: -1,
        timestamp: Some(now_ms.to_string()),
        endpoints: broker
            .endpoints
            .iter()
            .map(|endpoint| match endpoint.host.contains(':') {
                true => format!("{}://[{}]:{}", endpoint.listener, endpoint.host, endpoint.port),
                false => format!("{}://{}:{}", endpoint.listener, endpoint.host, endpoint.port),
            })
            .collect(),
        rack: broker.rack.clone(),
        listener_security_protocol_map: broker
            .endpoints
            .iter()
            .map(|endpoint| (endpoint.listener.clone(), endpoint.security_protocol.clone()))
            .collect(),
        features: BTreeMap::new(),
    })
}

/// Version 1 has host and port alone, which is one PLAINTEXT endpoint.
pub(crate) fn decode(id: BrokerId, data: &[u8]) -> Result<LiveBroker, ZnodeError> {
    let path = path(id);
    let json: Json = from_json(&path, data)?;
    let endpoints = match json.endpoints.is_empty() {
        true => {
            let host = json.host.ok_or_else(|| ZnodeError::new(&path, "neither endpoints nor a host"))?;
            let port = u16::try_from(json.port).map_err(|error| ZnodeError::new(&path, error))?;
            vec![Endpoint { listener: "PLAINTEXT".into(), security_protocol: "PLAINTEXT".into(), host, port }]
        }
        false => json
            .endpoints
            .iter()
            .map(|text| {
                endpoint(text, &json.listener_security_protocol_map)
                    .ok_or_else(|| ZnodeError::new(&path, format!("endpoint {text:?} is malformed")))
            })
            .collect::<Result<_, _>>()?,
    };
    Ok(LiveBroker { id, endpoints, rack: json.rack })
}

fn endpoint(text: &str, protocols: &BTreeMap<String, String>) -> Option<Endpoint> {
    let (listener, address) = text.split_once("://")?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    Some(Endpoint {
        listener: listener.into(),
        security_protocol: protocols.get(listener).map_or(listener, String::as_str).into(),
        host: host.into(),
        port: port.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = concat!(
        r#"{"version":5,"host":"h","port":9092,"jmx_port":-1,"timestamp":"1700000000000","#,
        r#""endpoints":["INTERNAL://h:9092","SASL_SSL://h:9093"],"rack":"r1","#,
        r#""listener_security_protocol_map":{"INTERNAL":"PLAINTEXT","SASL_SSL":"SASL_SSL"},"features":{}}"#
    );

    fn broker(rack: Option<&str>) -> LiveBroker {
        let endpoint = |listener: &str, security_protocol: &str, port| Endpoint {
            listener: listener.into(),
            security_protocol: security_protocol.into(),
            host: "h".into(),
            port,
        };
        LiveBroker {
            id: BrokerId(1),
            endpoints: vec![endpoint("INTERNAL", "PLAINTEXT", 9092), endpoint("SASL_SSL", "SASL_SSL", 9093)],
            rack: rack.map(Into::into),
        }
    }

    #[test]
    fn golden() {
        assert_eq!(encode(&broker(Some("r1")), 1_700_000_000_000), GOLDEN);
        assert_eq!(decode(BrokerId(1), GOLDEN.as_bytes()), Ok(broker(Some("r1"))));
    }

    #[test]
    fn unset_rack_is_absent() {
        let data = encode(&broker(None), 0);
        assert!(!String::from_utf8_lossy(&data).contains("rack"));
        assert_eq!(decode(BrokerId(1), &data), Ok(broker(None)));
    }

    #[test]
    fn without_plaintext_the_host_is_null() {
        let mut broker = broker(None);
        broker.endpoints.remove(0);
        let text = String::from_utf8_lossy(&encode(&broker, 0)).into_owned();
        assert!(text.contains(r#""host":null,"port":-1"#), "{text}");
    }

    #[test]
    fn ipv6_hosts_keep_their_brackets_on_the_way() {
        let mut broker = broker(None);
        broker.endpoints[0].host = "::1".into();
        let data = encode(&broker, 0);
        assert!(String::from_utf8_lossy(&data).contains("INTERNAL://[::1]:9092"));
        assert_eq!(decode(BrokerId(1), &data), Ok(broker));
    }

    #[test]
    fn older_versions_are_read() {
        let v1 = decode(BrokerId(1), br#"{"version":1,"host":"h","port":9092,"jmx_port":-1}"#).unwrap();
        assert_eq!(v1.endpoints[0].port, 9092);
        let v2 = decode(
            BrokerId(1),
            br#"{"version":2,"host":"h","port":9092,"jmx_port":-1,"timestamp":"1","endpoints":["PLAINTEXT://h:9092"]}"#,
        );
        assert_eq!(v2.unwrap().endpoints, v1.endpoints);
    }
}
