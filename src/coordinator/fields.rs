//! The fields of which records of internal topics are made, in Kafka's encoding, by hand.
//!
//! All integers are big-endian; a string is an int16 length and UTF-8, −1 for null; bytes have an int32 length; an
//! array has an int32 count, −1 for null. Flexible versions have compact lengths (+1, unsigned varint) and tagged
//! fields. Source: Kafka `MessageUtil`, the message generator.

use bytes::{BufMut, BytesMut};

use super::shard::ReplayError;

/// A field is longer than its length prefix can say; such a record cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a string of {0} bytes does not fit a record")]
pub(crate) struct TooLong(pub(crate) usize);

pub(super) fn put_str(out: &mut BytesMut, text: &str) -> Result<(), TooLong> {
    out.put_i16(i16::try_from(text.len()).map_err(|_| TooLong(text.len()))?);
    out.put_slice(text.as_bytes());
    Ok(())
}

pub(super) fn put_nullable_str(out: &mut BytesMut, text: Option<&str>) -> Result<(), TooLong> {
    match text {
        Some(text) => put_str(out, text),
        None => {
            out.put_i16(-1);
            Ok(())
        }
    }
}

pub(super) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    // A frame is far below 2 GiB, and these bytes came in one.
    out.put_i32(bytes.len() as i32);
    out.put_slice(bytes);
}

/// Walks a record; every read past its end is [`ReplayError::Malformed`].
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    flexible: bool,
}

impl<'a> Reader<'a> {
    pub(super) fn new(record: &'a [u8]) -> Self {
        Self { rest: record, flexible: false }
    }

    /// The version of a value, at most `newest`; what follows is read as it says.
    pub(super) fn version(&mut self, newest: i16, first_flexible: i16) -> Result<i16, ReplayError> {
        let version = self.i16()?;
        if !(0..=newest).contains(&version) {
            return Err(ReplayError::UnknownValueVersion(version));
        }
        self.flexible = version >= first_flexible;
        Ok(version)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], ReplayError> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(ReplayError::Malformed)?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], ReplayError> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(ReplayError::Malformed)?;
        self.rest = rest;
        Ok(*head)
    }

    pub(super) fn i16(&mut self) -> Result<i16, ReplayError> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, ReplayError> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, ReplayError> {
        self.array().map(i64::from_be_bytes)
    }

    fn varint(&mut self) -> Result<u32, ReplayError> {
        let mut value = 0_u32;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ReplayError::Malformed)
    }

    /// A length; −1 is null.
    fn length(&mut self, short: bool) -> Result<i64, ReplayError> {
        Ok(match (self.flexible, short) {
            (true, _) => i64::from(self.varint()?) - 1,
            (false, true) => i64::from(self.i16()?),
            (false, false) => i64::from(self.i32()?),
        })
    }

    pub(super) fn nullable_str(&mut self) -> Result<Option<&'a str>, ReplayError> {
        let length = self.length(true)?;
        if length == -1 {
            return Ok(None);
        }
        let bytes = self.take(usize::try_from(length).map_err(|_| ReplayError::Malformed)?)?;
        std::str::from_utf8(bytes).map(Some).map_err(|_| ReplayError::Malformed)
    }

    pub(super) fn str(&mut self) -> Result<&'a str, ReplayError> {
        self.nullable_str()?.ok_or(ReplayError::Malformed)
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], ReplayError> {
        let length = self.length(false)?;
        self.take(usize::try_from(length).map_err(|_| ReplayError::Malformed)?)
    }

    /// The count of an array; `None` is null. Nothing is reserved by it.
    pub(super) fn nullable_count(&mut self) -> Result<Option<usize>, ReplayError> {
        match self.length(false)? {
            -1 => Ok(None),
            count => usize::try_from(count).map(Some).map_err(|_| ReplayError::Malformed),
        }
    }

    pub(super) fn count(&mut self) -> Result<usize, ReplayError> {
        self.nullable_count()?.ok_or(ReplayError::Malformed)
    }

    pub(super) fn tags(&mut self) -> Result<(), ReplayError> {
        if !self.flexible {
            return Ok(());
        }
        for _ in 0..self.varint()? {
            self.varint()?;
            let size = self.varint()?;
            self.take(size as usize)?;
        }
        Ok(())
    }
}
