//! ApiVersions (18), versions 0–4: what this broker answers, generated from the table.
//!
//! Behaviour
//! - A version we do not have is answered in version 0 with UNSUPPORTED_VERSION (35) and this key's own range, its body
//!   unread (KIP-511); `dispatch` does that, because no body is decoded for it.
//! - From version 3 on the client's software name and version must be made of letters, digits, `-` and `.`, and begin
//!   and end with a letter or digit, else INVALID_REQUEST (42).
//! - Produce is announced from version 0 although 3 is the lowest that works: older librdkafka decides by it whether it
//!   may compress (KAFKA-18659). Kafka 4.x announces the same.
//! - No feature is finalised: clients stay on transactions version 1.
//! - Beside an external ZooKeeper nothing above Kafka 3.9 is announced, since other brokers of the cluster may run it,
//!   and clients move between them; alone it is the table of 4.1. What brokers ask of each other is announced where
//!   they speak.
//!
//! Versions: 3 flexible (its response header stays 0), 4 allows features with minimum 0 (KAFKA-17011). Ignored:
//! nothing.
//! Source: Kafka 4.1 `KafkaApis.handleApiVersionsRequest`, `ApiVersionsRequest.isValid`.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use crate::api::authorization::Authorization;
use crate::api::context::{Audience, RequestContext};
use crate::api::handler::{Handler, Reply, Row};

/// Key of ApiVersions, which `dispatch` treats apart.
pub(crate) const KEY: i16 = 18;
/// Key of Produce, announced from version 0.
const PRODUCE_KEY: i16 = 0;

pub(crate) struct ApiVersions;

impl Handler for ApiVersions {
    type Req = ApiVersionsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=4;
    const AUTHORIZATION: Authorization = Authorization::Nothing("clients ask it before they say who they are");

    async fn handle(ctx: RequestContext, req: ApiVersionsRequest) -> Reply<ApiVersionsResponse> {
        let named = ctx.version < 3
            || (is_software_name(&req.client_software_name) && is_software_name(&req.client_software_version));
        if !named {
            return Reply::Now(ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code()));
        }
        Reply::Now(
            ApiVersionsResponse::default().with_api_keys(announced(ctx.audience)).with_finalized_features_epoch(0),
        )
    }
}

/// The answer to a version we do not have, to be encoded in version 0.
pub(crate) fn unsupported_version() -> ApiVersionsResponse {
    let own = announced(Audience::Alone).into_iter().filter(|api| api.api_key == KEY).collect();
    ApiVersionsResponse::default().with_error_code(ResponseError::UnsupportedVersion.code()).with_api_keys(own)
}

fn announced(audience: Audience) -> Vec<ApiVersion> {
    let announce = |row: &Row| {
        if !row.served.is_to(audience) {
            return None;
        }
        let min_version = if row.key == PRODUCE_KEY { 0 } else { row.min_version };
        let max_version = match audience {
            Audience::Alone => row.max_version,
            Audience::Clients | Audience::Brokers => row.max_version.min(max_of_39(row.key)?),
        };
        let api = ApiVersion::default().with_api_key(row.key);
        Some(api.with_min_version(min_version).with_max_version(max_version))
    };
    crate::api::TABLE.iter().filter_map(announce).collect()
}

/// Highest version of a key that a Kafka 3.9 broker beside ZooKeeper announces; `None`: it lacks the key. As captured
/// from one.
fn max_of_39(key: i16) -> Option<i16> {
    let max = *MAX_OF_39.get(usize::try_from(key).ok()?)?;
    (max >= 0).then_some(max)
}

#[rustfmt::skip]
static MAX_OF_39: [i16; 70] = [
    11, 17,  9, 12,  7,  4,  8,  3,  9,  9, //  0 Produce
     6,  9,  4,  5,  5,  5,  5,  1,  4,  7, // 10 FindCoordinator
     6,  2,  5,  4,  5,  4,  4,  1,  4,  3, // 20 DeleteTopics
     3,  3,  4,  2,  2,  4,  2,  3,  3,  2, // 30 CreateAcls
     2,  3,  2,  2,  1,  0,  0,  0,  1,  1, // 40 ExpireDelegationToken
     0,  0, -1, -1, -1, -1,  3,  1,  0, -1, // 50 DescribeUserScramCredentials
     1,  0, -1, -1, -1,  0,  1,  0,  0,  0, // 60 DescribeCluster
];

fn is_software_name(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    edge(name.chars().next())
        && edge(name.chars().next_back())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::handler::Served;

    const KEYS_OF_BROKERS: &[i16] = &[4, 5, 6, 7, 56, 67];

    #[test]
    fn software_names_are_letters_digits_dashes_and_dots() {
        for good in ["librdkafka", "apache-kafka-java", "2.15.1", "a"] {
            assert!(is_software_name(good), "{good}");
        }
        for bad in ["", "-a", "a.", "a b", "a_b", "ü"] {
            assert!(!is_software_name(bad), "{bad}");
        }
    }

    #[test]
    fn beside_zookeeper_nothing_above_39_is_announced_and_keys_of_brokers_only_to_brokers() {
        let of = |audience| announced(audience).into_iter().map(|api| (api.api_key, api)).collect::<BTreeMap<_, _>>();
        let (alone, clients, brokers) = (of(Audience::Alone), of(Audience::Clients), of(Audience::Brokers));
        let theirs: Vec<i16> =
            crate::api::TABLE.iter().filter(|row| row.served == Served::ToBrokers).map(|row| row.key).collect();
        assert_eq!(theirs, KEYS_OF_BROKERS);
        assert!(KEYS_OF_BROKERS.iter().all(|key| !alone.contains_key(key) && !clients.contains_key(key)));
        assert!(KEYS_OF_BROKERS.iter().all(|key| brokers.contains_key(key)));
        assert_eq!(brokers.len(), clients.len() + KEYS_OF_BROKERS.len());
        assert!(alone.contains_key(&75) && !clients.contains_key(&75), "DescribeTopicPartitions is of KRaft");
        assert!([68, 69].iter().all(|key| !alone.contains_key(key) && clients[key].max_version == 0), "refused there");
        let max = |key: i16| (alone[&key].max_version, clients[&key].max_version);
        assert_eq!((max(0), max(1), max(2), max(3)), ((13, 11), (18, 17), (10, 9), (13, 12)));
        assert!(brokers.values().all(|api| api.min_version <= api.max_version));
    }

    #[test]
    fn an_unknown_version_learns_the_range_of_this_key_alone() {
        let response = unsupported_version();
        assert_eq!(response.error_code, 35);
        assert_eq!(response.api_keys.len(), 1);
        assert_eq!((response.api_keys[0].min_version, response.api_keys[0].max_version), (0, 4));
    }
}
