//! Typed messages from and to bytes. Decoding never runs on raw bytes (I-21).

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable};

/// A body that does not decode, or a response that does not encode in the version asked.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct CodecError(pub(crate) String);

/// Decodes a request body.
pub(crate) fn decode_request<R: Decodable>(body: Bytes, version: i16) -> Result<R, CodecError> {
    let mut body = body;
    R::decode(&mut body, version).map_err(|error| CodecError(error.to_string()))
}

/// Encodes a response body.
pub(crate) fn encode_response<R: Encodable>(response: &R, version: i16) -> Result<Bytes, CodecError> {
    let mut body = BytesMut::new();
    response.encode(&mut body, version).map_err(|error| CodecError(error.to_string()))?;
    Ok(body.freeze())
}

/// Whether this version of the key uses compact types and tagged fields, hence request header 2 and response header 1
/// (ApiVersions answers with response header 0 all the same).
pub(crate) fn is_flexible(key: i16, version: i16) -> bool {
    kafka_protocol::messages::ApiKey::try_from(key).is_ok_and(|key| key.request_header_version(version) >= 2)
}
