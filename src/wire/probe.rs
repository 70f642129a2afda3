//! What `compat-tests/hostile` may reach: the decoders a stranger's bytes meet first, with errors as text.

use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::Decodable;

use super::{codec, header, produce};

/// A body through the guard.
pub fn decode<M: Decodable>(body: Bytes, version: i16) -> Result<M, String> {
    codec::decode_request(body, version).map_err(|error| error.to_string())
}

/// A produce request's body; how many partitions it has.
pub fn decode_produce(body: BytesMut, version: i16) -> Result<usize, String> {
    let request = produce::decode(body, version).map_err(|error| error.to_string())?;
    Ok(request.topics.iter().map(|topic| topic.partitions.len()).sum())
}

/// A frame's header; the length of the body behind it.
pub fn decode_header(frame: BytesMut) -> Result<usize, String> {
    let mut frame = frame;
    header::RequestHeader::take(&mut frame, codec::is_flexible).map_err(|error| error.to_string())?;
    Ok(frame.len())
}
