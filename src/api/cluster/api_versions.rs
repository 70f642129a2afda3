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
//!
//! Versions: 3 flexible (its response header stays 0), 4 allows features with minimum 0 (KAFKA-17011). Ignored:
//! nothing.
//! Source: Kafka 4.1 `KafkaApis.handleApiVersionsRequest`, `ApiVersionsRequest.isValid`.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};

/// Key of ApiVersions, which `dispatch` treats apart.
pub(crate) const KEY: i16 = 18;
/// Key of Produce, announced from version 0.
const PRODUCE_KEY: i16 = 0;

pub(crate) struct ApiVersions;

impl Handler for ApiVersions {
    type Req = ApiVersionsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=4;

    async fn handle(ctx: RequestContext, req: ApiVersionsRequest) -> Reply<ApiVersionsResponse> {
        let named = ctx.version < 3
            || (is_software_name(&req.client_software_name) && is_software_name(&req.client_software_version));
        if !named {
            return Reply::Now(ApiVersionsResponse::default().with_error_code(ResponseError::InvalidRequest.code()));
        }
        Reply::Now(ApiVersionsResponse::default().with_api_keys(announced()).with_finalized_features_epoch(-1))
    }
}

/// The answer to a version we do not have, to be encoded in version 0.
pub(crate) fn unsupported_version() -> ApiVersionsResponse {
    let own = announced().into_iter().filter(|api| api.api_key == KEY).collect();
    ApiVersionsResponse::default().with_error_code(ResponseError::UnsupportedVersion.code()).with_api_keys(own)
}

fn announced() -> Vec<ApiVersion> {
    let announce = |row: &crate::api::handler::Row| {
        let min_version = if row.key == PRODUCE_KEY { 0 } else { row.min_version };
        ApiVersion::default().with_api_key(row.key).with_min_version(min_version).with_max_version(row.max_version)
    };
    crate::api::TABLE.iter().map(announce).collect()
}

fn is_software_name(name: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    edge(name.chars().next())
        && edge(name.chars().next_back())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '.')
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn an_unknown_version_learns_the_range_of_this_key_alone() {
        let response = unsupported_version();
        assert_eq!(response.error_code, 35);
        assert_eq!(response.api_keys.len(), 1);
        assert_eq!((response.api_keys[0].min_version, response.api_keys[0].max_version), (0, 4));
    }
}
