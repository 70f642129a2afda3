//! The request header, read by hand: every field is checked against the bytes that are there, and nothing panics.
//! What Kafka lets pass, passes: a client id need not be UTF-8, any negative length of it is null, and tagged fields
//! may come in any order.
//!
//! Layout: API key i16, version i16, correlation id i32, client id (nullable string with an i16 length, in every header
//! version), and in flexible versions tagged fields, which are skipped. Source: Kafka `RequestHeader.json`.

use std::sync::Arc;

use bytes::{Buf, BufMut, BytesMut};

use crate::types::limits::REQUEST_HEADER_BYTES_MAX;

/// What every request begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RequestHeader {
    pub(crate) key: i16,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    /// `None` when the client sent null.
    pub(crate) client_id: Option<Arc<str>>,
}

/// Why a header cannot be read. The connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    #[error("the header is cut off")]
    Short,
    #[error("a tagged field of the header is malformed")]
    Tags,
    #[error("the header is longer than {REQUEST_HEADER_BYTES_MAX} bytes")]
    TooLong,
}

impl RequestHeader {
    /// Takes the header off a frame and leaves the body. `is_flexible` tells by key and version whether tagged fields
    /// follow the client id.
    pub(crate) fn take(frame: &mut BytesMut, is_flexible: impl Fn(i16, i16) -> bool) -> Result<Self, HeaderError> {
        if frame.remaining() < 10 {
            return Err(HeaderError::Short);
        }
        let bytes_before = frame.remaining();
        let key = frame.get_i16();
        let version = frame.get_i16();
        let correlation_id = frame.get_i32();
        let client_id = match usize::try_from(frame.get_i16()) {
            Err(_) => None,
            Ok(bytes) => {
                let text = frame.get(..bytes).ok_or(HeaderError::Short)?;
                let client_id = Arc::from(String::from_utf8_lossy(text));
                frame.advance(bytes);
                Some(client_id)
            }
        };
        if is_flexible(key, version) {
            skip_tags(frame, bytes_before)?;
        }
        if bytes_before - frame.remaining() > REQUEST_HEADER_BYTES_MAX {
            return Err(HeaderError::TooLong);
        }
        Ok(Self { key, version, correlation_id, client_id })
    }
}

/// What stands before the body of a request to another broker: the length of the frame, and the header. The client id
/// is ours, and short.
pub(crate) fn put_request(
    key: i16,
    version: i16,
    correlation_id: i32,
    client_id: &str,
    flexible: bool,
    body_bytes: usize,
) -> BytesMut {
    let header_bytes = 10 + client_id.len() + usize::from(flexible);
    let mut head = BytesMut::with_capacity(4 + header_bytes);
    head.put_u32((header_bytes + body_bytes) as u32);
    head.put_i16(key);
    head.put_i16(version);
    head.put_i32(correlation_id);
    head.put_i16(client_id.len() as i16);
    head.put_slice(client_id.as_bytes());
    if flexible {
        head.put_u8(0);
    }
    head
}

/// Takes the header off another broker's response and leaves the body: its correlation id.
pub(crate) fn take_response(frame: &mut BytesMut, flexible: bool) -> Result<i32, HeaderError> {
    let bytes_before = frame.remaining();
    let correlation_id = frame.try_get_i32().map_err(|_| HeaderError::Short)?;
    if flexible {
        skip_tags(frame, bytes_before)?;
    }
    Ok(correlation_id)
}

/// `bytes_before` is the length of the frame; the header's bound is the loop's as well.
fn skip_tags(frame: &mut BytesMut, bytes_before: usize) -> Result<(), HeaderError> {
    let count = uvarint(frame)?;
    for _ in 0..count {
        let _tag = uvarint(frame)?;
        let bytes = uvarint(frame)? as usize;
        if bytes > frame.remaining() {
            return Err(HeaderError::Tags);
        }
        frame.advance(bytes);
        if bytes_before - frame.remaining() > REQUEST_HEADER_BYTES_MAX {
            return Err(HeaderError::TooLong);
        }
    }
    Ok(())
}

fn uvarint(frame: &mut BytesMut) -> Result<u32, HeaderError> {
    let mut value = 0_u32;
    for shift in [0, 7, 14, 21, 28] {
        let byte = frame.try_get_u8().map_err(|_| HeaderError::Tags)?;
        if shift == 28 && byte > 0x0f {
            return Err(HeaderError::Tags);
        }
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(HeaderError::Tags)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{ApiKey, RequestHeader as CrateHeader};
    use kafka_protocol::protocol::{Encodable, StrBytes};

    use super::*;
    use crate::wire::codec::is_flexible;

    fn header(bytes: &[u8], flexible: bool) -> (Result<RequestHeader, HeaderError>, Vec<u8>) {
        let mut frame = BytesMut::from(bytes);
        let header = RequestHeader::take(&mut frame, |_, _| flexible);
        (header, frame.to_vec())
    }

    #[test]
    fn the_body_is_left() {
        let bytes = [0, 3, 0, 9, 0, 0, 0, 7, 0, 2, b'm', b'e', 1, 5, 2, 0xaa, 0xbb, b'B'];
        let (read, rest) = header(&bytes, true);
        let read = read.unwrap();
        assert_eq!((read.key, read.version, read.correlation_id, read.client_id.as_deref()), (3, 9, 7, Some("me")));
        assert_eq!(rest, b"B");
    }

    #[test]
    fn every_key_and_version_of_the_crate_is_read() {
        for key in ApiKey::iter() {
            let versions = key.valid_versions();
            for version in versions.min..=versions.max {
                for client_id in [None, Some(""), Some("client")] {
                    let mut frame = BytesMut::new();
                    CrateHeader::default()
                        .with_request_api_key(key as i16)
                        .with_request_api_version(version)
                        .with_correlation_id(77)
                        .with_client_id(client_id.map(StrBytes::from_static_str))
                        .encode(&mut frame, key.request_header_version(version))
                        .expect("it encodes");
                    frame.extend_from_slice(b"body");
                    let read = RequestHeader::take(&mut frame, is_flexible).expect("a header");
                    assert_eq!((read.key, read.version, read.correlation_id), (key as i16, version, 77));
                    assert_eq!(read.client_id.as_deref(), client_id);
                    assert_eq!(&frame[..], b"body");
                }
            }
        }
    }

    #[test]
    fn a_null_client_id_is_none() {
        let (read, _) = header(&[0, 3, 0, 1, 0, 0, 0, 7, 0xff, 0xff], false);
        assert_eq!(read.unwrap().client_id, None);
    }

    #[test]
    fn every_cut_and_every_lie_is_an_error() {
        let bytes = [0, 3, 0, 9, 0, 0, 0, 7, 0, 2, b'm', b'e', 1, 5, 2, 0xaa, 0xbb];
        for cut in 0..bytes.len() {
            assert!(header(&bytes[..cut], true).0.is_err(), "cut at {cut}");
        }
        for (at, lie) in [(8, 0x7f), (12, 0x7f), (14, 0x7f)] {
            let mut bytes = bytes;
            bytes[at] = lie;
            assert!(header(&bytes, true).0.is_err(), "byte {at} = {lie}");
        }
    }

    #[test]
    fn what_kafka_lets_pass_passes() {
        let (read, rest) = header(&[0, 3, 0, 9, 0, 0, 0, 7, 0x80, 0, 2, 5, 0, 5, 0, b'B'], true);
        assert_eq!((read.unwrap().client_id, &rest[..]), (None, &b"B"[..]), "a length of -32768, a tag twice");
        let (read, rest) = header(&[0, 3, 0, 1, 0, 0, 0, 7, 0, 3, b'a', 0xff, b'b', b'B'], false);
        assert_eq!((read.unwrap().client_id.as_deref(), &rest[..]), (Some("a\u{fffd}b"), &b"B"[..]), "Latin-1");
    }

    /// CVE-2026-111115.
    #[test]
    fn a_flood_of_tags_ends_at_the_bound_of_the_header() {
        let mut bytes = vec![0, 3, 0, 9, 0, 0, 0, 7, 0xff, 0xff, 0x80, 0x80, 0x80, 0x10];
        bytes.resize(16 << 20, 0);
        let (read, rest) = header(&bytes, true);
        assert_eq!(read, Err(HeaderError::TooLong));
        assert!(bytes.len() - rest.len() <= REQUEST_HEADER_BYTES_MAX + 2);
    }
}
