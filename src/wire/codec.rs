//! Typed messages from and to bytes. Decoding never runs on raw bytes but on the guard (I-21).

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable};

use super::error::CodecError;
use super::guard;

/// Decodes a request body. Strings and bytes stay in the frame; bytes after the end are ignored, as by Kafka.
pub(crate) fn decode_request<R: Decodable>(body: Bytes, version: i16) -> Result<R, CodecError> {
    guard::decode(body, version)
}

/// Decodes a response body, in the same way: another broker is trusted no more than a client.
pub(crate) fn decode_response<R: Decodable>(body: Bytes, version: i16) -> Result<R, CodecError> {
    guard::decode(body, version)
}

/// Encodes a request body.
pub(crate) fn encode_request<R: Encodable>(request: &R, version: i16) -> Result<Bytes, CodecError> {
    encode(request, version)
}

/// Encodes a response body.
pub(crate) fn encode_response<R: Encodable>(response: &R, version: i16) -> Result<Bytes, CodecError> {
    encode(response, version)
}

fn encode<M: Encodable>(message: &M, version: i16) -> Result<Bytes, CodecError> {
    let mut body = BytesMut::new();
    message.encode(&mut body, version).map_err(|error| CodecError(error.to_string()))?;
    Ok(body.freeze())
}

/// Whether this version of the key uses compact types and tagged fields, hence request header 2 and response header 1
/// (ApiVersions answers with response header 0 all the same).
pub(crate) fn is_flexible(key: i16, version: i16) -> bool {
    usize::try_from(key).ok().and_then(|key| FLEXIBLE_FROM.get(key)).is_some_and(|&from| version >= from)
}

/// Never flexible, or not a key that we know.
const NEVER: i16 = i16::MAX;

/// First flexible version by key.
#[rustfmt::skip]
static FLEXIBLE_FROM: [i16; 93] = [
    //  0      1      2      3      4      5      6      7      8      9
        9,    12,     6,     9,     4,     2,     6,     3,     8,     6, //  0 Produce
        3,     6,     4,     4,     4,     5,     3, NEVER,     3,     5, // 10 FindCoordinator
        4,     2,     2,     4,     3,     3,     3,     1,     3,     2, // 20 DeleteTopics
        2,     2,     4,     2,     2,     2,     2,     2,     2,     2, // 30 CreateAcls
        2,     2,     2,     2,     1,     0,     0, NEVER,     1,     1, // 40 ExpireDelegationToken
        0,     0,     0,     1,     1,     0,     0,     0,     0,     0, // 50 DescribeUserScramCredentials
        0,     0,     0,     0,     0,     0,     0,     0,     0,     0, // 60 DescribeCluster
        0,     0,     0,     0,     0,     0,     0,     0,     0,     0, // 70 ControllerRegistration
        0,     0,     0,     0,     0,     0,     0,     0, NEVER, NEVER, // 80 AddRaftVoter
        0,     0,     0,                                                  // 90 DescribeShareGroupOffsets
];

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::ApiKey;

    use super::*;

    #[test]
    fn flexible_versions_are_the_crates() {
        for key in ApiKey::iter() {
            let versions = key.valid_versions();
            for version in (versions.min..=versions.max).chain([99]) {
                let flexible = key.request_header_version(version) >= 2;
                assert_eq!(is_flexible(key as i16, version), flexible, "{key:?} version {version}");
            }
        }
        assert!(is_flexible(18, 99), "a client of the future asks for our versions");
        for unknown in [i16::MIN, -1, 88, 93, i16::MAX] {
            assert!(!is_flexible(unknown, i16::MAX - 1));
        }
    }
}
