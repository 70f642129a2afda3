//! Reading the protocol's primitive types by hand, for the few messages where the crate's codec is not used.
//!
//! Every method ends with [`Malformed`] on bytes that are not there; no count is believed beyond the bytes left (I-21).

use bytes::{Buf, BytesMut};
use kafka_protocol::protocol::StrBytes;

/// A frame that does not hold what it must; the connection is closed without a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

/// A frame, read from the front. What was read is split off, so that bytes stay where they are.
#[derive(Debug)]
pub(crate) struct Reader {
    rest: BytesMut,
    /// Compact lengths and tagged fields.
    flexible: bool,
}

impl Reader {
    pub(crate) fn new(frame: BytesMut, flexible: bool) -> Self {
        Self { rest: frame, flexible }
    }

    pub(crate) fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    pub(crate) fn i8(&mut self) -> Result<i8, Malformed> {
        self.array().map(i8::from_be_bytes)
    }

    /// Any other byte than 0 is true, as for Kafka.
    pub(crate) fn bool(&mut self) -> Result<bool, Malformed> {
        Ok(self.i8()? != 0)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let value = *self.rest.first_chunk().ok_or(Malformed("fewer bytes than a field needs"))?;
        self.rest.advance(N);
        Ok(value)
    }

    /// Seven bits per byte, the lowest first, at most five bytes.
    pub(crate) fn uvarint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0;
        for (i, &byte) in self.rest.iter().take(5).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.rest.advance(i + 1);
                return u32::try_from(value).map_err(|_| Malformed("varint is too large"));
            }
        }
        Err(Malformed("varint does not end"))
    }

    /// Length of an array whose elements take at least `element_bytes_min` on the wire each. Null arrays are refused.
    pub(crate) fn count(&mut self, element_bytes_min: usize) -> Result<usize, Malformed> {
        self.nullable_count(element_bytes_min)?.ok_or(Malformed("null array"))
    }

    /// The same; `None` for a null array.
    pub(crate) fn nullable_count(&mut self, element_bytes_min: usize) -> Result<Option<usize>, Malformed> {
        let count = if self.flexible { self.compact_length()? } else { self.plain_length()? };
        if count.is_some_and(|count| count.saturating_mul(element_bytes_min) > self.rest.len()) {
            return Err(Malformed("array is longer than the frame"));
        }
        Ok(count)
    }

    /// Bytes with their length in front, split off without copying.
    pub(crate) fn nullable_bytes(&mut self) -> Result<Option<BytesMut>, Malformed> {
        let length = if self.flexible { self.compact_length()? } else { self.plain_length()? };
        let Some(length) = length else { return Ok(None) };
        if length > self.rest.len() {
            return Err(Malformed("bytes are longer than the frame"));
        }
        Ok(Some(self.rest.split_to(length)))
    }

    /// A string that is not null, split off without copying.
    pub(crate) fn string(&mut self) -> Result<StrBytes, Malformed> {
        self.nullable_string()?.ok_or(Malformed("null string"))
    }

    /// A string, split off without copying.
    pub(crate) fn nullable_string(&mut self) -> Result<Option<StrBytes>, Malformed> {
        let length = if self.flexible { self.compact_length()? } else { self.short_length()? };
        let Some(length) = length else { return Ok(None) };
        if length > self.rest.len() {
            return Err(Malformed("string is longer than the frame"));
        }
        let text = StrBytes::from_utf8(self.rest.split_to(length).freeze());
        text.map(Some).map_err(|_| Malformed("string is not UTF-8"))
    }

    /// Skips tagged fields, in flexible versions.
    pub(crate) fn skip_tags(&mut self) -> Result<(), Malformed> {
        self.tags(|_, _| Ok(()))
    }

    /// Hands each tagged field to `take`, in flexible versions.
    pub(crate) fn tags(
        &mut self,
        mut take: impl FnMut(u32, &mut Self) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.uvarint()? {
            let tag = self.uvarint()?;
            let length = self.uvarint()? as usize;
            if length > self.rest.len() {
                return Err(Malformed("tagged field is longer than the frame"));
            }
            take(tag, &mut Self { rest: self.rest.split_to(length), flexible: true })?;
        }
        Ok(())
    }

    fn compact_length(&mut self) -> Result<Option<usize>, Malformed> {
        Ok((self.uvarint()? as usize).checked_sub(1))
    }

    fn plain_length(&mut self) -> Result<Option<usize>, Malformed> {
        length(i64::from(self.i32()?))
    }

    fn short_length(&mut self) -> Result<Option<usize>, Malformed> {
        length(i64::from(self.i16()?))
    }
}

fn length(length: i64) -> Result<Option<usize>, Malformed> {
    match length {
        -1 => Ok(None),
        length => usize::try_from(length).map(Some).map_err(|_| Malformed("negative length")),
    }
}
