//! The buffer that decoding runs on. The crate reserves memory for as many elements as a count on the wire claims,
//! before it reads one; a body of five hostile bytes would abort the process. This buffer stands between (D2, I-21).
//!
//! - **Varints.** Every unsigned varint of the format is a length, a count or a tag, and is read byte by byte through
//!   `try_get_u8`. At each such read we look ahead at the varint that would start there, keeping no state. No honest
//!   length or count exceeds the bytes left plus one; a tag number may, near the end, hence a slack. What exceeds both
//!   is refused, as is a varint of more than five bytes. A look from inside a varint sees a smaller number with the
//!   same end, and the only other users of `try_get_u8` are booleans.
//! - **Counts in an i32** (versions that are not flexible) look like any other number. In the first pass a number
//!   greater than the bytes left is read as −2 and remembered: as a length or a count it is refused on the spot. If the
//!   pass succeeds all the same, such numbers were ordinary fields (a time-out, a maximum), and a second pass tells
//!   them. The arrays of the second pass are those of the first, so what holds for their counts still does.
//!
//! So a count that reaches the crate is at most the bytes left. What an element takes in memory beyond its bytes on the
//! wire is bounded by the frame that the row of the API accepts.

use bytes::{Buf, Bytes, TryGetError};
use kafka_protocol::protocol::Decodable;
use kafka_protocol::protocol::buf::ByteBuf;

use super::error::CodecError;

/// Honest tag numbers are small, but may exceed the bytes left.
const TAG_SLACK: u64 = 64;
/// What an i32 that cannot be a count reads as in the first pass; no length has this value.
const NOT_A_COUNT: i32 = -2;

/// Decodes the message at the start of `body`. What follows it is ignored, as Kafka ignores it: librdkafka asks for the
/// metadata of all topics with three bytes too many (it reserves four for the count and writes one).
pub(crate) fn decode<M: Decodable>(body: Bytes, version: i16) -> Result<M, CodecError> {
    let mut guarded = Guard { rest: body.clone(), strict: true, met_large_number: false };
    let mut message = M::decode(&mut guarded, version);
    if message.is_ok() && guarded.met_large_number {
        guarded = Guard { rest: body, strict: false, met_large_number: false };
        message = M::decode(&mut guarded, version);
    }
    message.map_err(|error| CodecError(error.to_string()))
}

#[derive(Debug)]
struct Guard {
    rest: Bytes,
    /// First pass: numbers greater than the bytes left are not given out.
    strict: bool,
    met_large_number: bool,
}

impl Guard {
    /// Whether the varint that may start here could be a length, a count or a tag.
    fn is_plausible(&self) -> bool {
        let mut value = 0;
        for (i, &byte) in self.rest.iter().take(5).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                // The bytes left are those after the varint.
                return value <= (self.rest.len() - i) as u64 + TAG_SLACK;
            }
        }
        // Either it is longer than five bytes or the buffer ends inside it.
        false
    }
}

impl Buf for Guard {
    fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.rest
    }

    fn advance(&mut self, count: usize) {
        self.rest.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.rest.split_to(length)
    }

    fn try_get_u8(&mut self) -> Result<u8, TryGetError> {
        let available = self.rest.len();
        if !self.is_plausible() {
            return Err(TryGetError { requested: available + 1, available });
        }
        self.rest.try_get_u8()
    }

    fn try_get_i32(&mut self) -> Result<i32, TryGetError> {
        let value = self.rest.try_get_i32()?;
        if self.strict && usize::try_from(value).is_ok_and(|value| value > self.rest.len()) {
            self.met_large_number = true;
            return Ok(NOT_A_COUNT);
        }
        Ok(value)
    }
}

impl ByteBuf for Guard {
    fn peek_bytes(&mut self, range: std::ops::Range<usize>) -> Bytes {
        self.rest.slice(range)
    }

    fn get_bytes(&mut self, size: usize) -> Bytes {
        self.rest.split_to(size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::MetadataRequest;

    /// librdkafka's request for all topics, version 12: a null array, then three zero bytes of the count that it
    /// reserved, which shift the flags behind it.
    #[test]
    fn what_follows_a_message_is_ignored() {
        let body = Bytes::from_static(&[0, 0, 0, 0, 1, 0, 0]);
        let request: MetadataRequest = decode(body, 12).expect("Kafka takes it");
        assert_eq!(request.topics, None);
    }
}
