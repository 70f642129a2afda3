//! Reading the records of a batch one after the other, without copying.
//!
//! A record is: length varint, attributes i8, timestamp delta varlong, offset delta varint, key (length varint, −1 for
//! null), value likewise, header count varint, headers (key length, key, value length, value). Varints are zigzag.
//! Source: Kafka `DefaultRecord.readFrom`.

use std::ops::ControlFlow;

use super::batch::{BatchError, BatchHeader, Codec, HEADER_BYTES, TimestampType};
use super::compression;
use crate::clock::UnixMs;
use crate::types::Offset;

/// One record as it stands in its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawRecord<'a> {
    pub(crate) attributes: i8,
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i32,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: RawHeaders<'a>,
}

/// The headers of a record: checked, but not taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct RawHeaders<'a> {
    pub(crate) count: i32,
    /// `count` times key length, key, value length, value.
    pub(crate) bytes: &'a [u8],
}

#[cfg(test)]
impl<'a> RawHeaders<'a> {
    /// Key and value of each header in order; keys may repeat.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> {
        let mut cursor = Cursor { rest: self.bytes };
        (0..self.count).map_while(move |_| Some((cursor.nullable().ok()??, cursor.nullable().ok()?)))
    }
}

/// A record with its place in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordView<'a> {
    pub(crate) offset: Offset,
    /// The append time if the batch has that timestamp type.
    pub(crate) timestamp: UnixMs,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: RawHeaders<'a>,
}

/// Visits every record of one batch, decompressed under `cap` bytes; the visitor may end early. Checks structure, not
/// the CRC.
pub(crate) fn for_each_record(
    batch: &[u8],
    cap: usize,
    mut visit: impl FnMut(RecordView<'_>) -> ControlFlow<()>,
) -> Result<(), BatchError> {
    let header = BatchHeader::parse(batch)?;
    let payload = batch.get(HEADER_BYTES..header.size_bytes()).ok_or(BatchError::TooShort(batch.len()))?;
    with_records(&header, payload, cap, |records| {
        let mut walk = RecordWalk::new(records);
        for _ in 0..header.record_count {
            let record = walk.next_record()?;
            if visit(view(&header, record)).is_break() {
                return Ok(());
            }
        }
        walk.end()
    })?
}

/// Lends the records of a batch, decompressed under `cap` bytes if they are compressed.
pub(crate) fn with_records<T>(
    header: &BatchHeader,
    payload: &[u8],
    cap: usize,
    read: impl FnOnce(&[u8]) -> T,
) -> Result<T, BatchError> {
    match header.codec()? {
        Codec::None => Ok(read(payload)),
        codec => compression::with_decompressed(codec, payload, cap, read),
    }
}

fn view<'a>(header: &BatchHeader, record: RawRecord<'a>) -> RecordView<'a> {
    RecordView {
        offset: Offset(header.base_offset.0.wrapping_add(i64::from(record.offset_delta))),
        timestamp: record_timestamp(header, &record),
        key: record.key,
        value: record.value,
        headers: record.headers,
    }
}

/// Timestamp of a record: its own, or the batch's append time.
#[inline]
pub(crate) fn record_timestamp(header: &BatchHeader, record: &RawRecord<'_>) -> UnixMs {
    match header.timestamp_type() {
        TimestampType::CreateTime => header.base_timestamp.wrapping_add(record.timestamp_delta),
        TimestampType::LogAppendTime => header.max_timestamp,
    }
}

/// Records that follow each other. Every method ends with an error on bytes that are no record, never with a panic.
#[derive(Debug)]
pub(crate) struct RecordWalk<'a> {
    cursor: Cursor<'a>,
}

impl<'a> RecordWalk<'a> {
    pub(crate) fn new(records: &'a [u8]) -> Self {
        Self { cursor: Cursor { rest: records } }
    }

    /// The next record. Call it as often as the header counts records.
    #[inline]
    pub(crate) fn next_record(&mut self) -> Result<RawRecord<'a>, BatchError> {
        let length = self.cursor.varint().map_err(|_| PREMATURE_END)?;
        let body = self.cursor.take(length).map_err(|_| BatchError::Malformed("Invalid record size"))?;
        let mut body = Cursor { rest: body };
        let attributes = body.u8()? as i8;
        let timestamp_delta = body.varlong()?;
        let offset_delta = body.varint()?;
        let key = body.nullable()?;
        let value = body.nullable()?;
        let headers = match body.varint()? {
            0 => RawHeaders::default(),
            count => body.headers(count)?,
        };
        if !body.rest.is_empty() {
            return Err(BatchError::Malformed("Invalid record size: the record is shorter than its length says"));
        }
        Ok(RawRecord { attributes, timestamp_delta, offset_delta, key, value, headers })
    }

    /// After the last record: nothing may be left.
    pub(crate) fn end(&self) -> Result<(), BatchError> {
        if self.cursor.rest.is_empty() {
            Ok(())
        } else {
            Err(BatchError::Malformed("Incorrect declared batch size, records still remaining in file"))
        }
    }
}

const PREMATURE_END: BatchError = BatchError::Malformed("Incorrect declared batch size, premature EOF reached");
const STRUCTURE: BatchError = BatchError::Malformed("Found invalid record structure");

#[derive(Debug, Clone, Copy)]
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    #[inline(always)]
    fn u8(&mut self) -> Result<u8, BatchError> {
        let (&first, rest) = self.rest.split_first().ok_or(STRUCTURE)?;
        self.rest = rest;
        Ok(first)
    }

    #[inline(always)]
    fn take(&mut self, length: i32) -> Result<&'a [u8], BatchError> {
        let length = usize::try_from(length).map_err(|_| STRUCTURE)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(STRUCTURE)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Bytes after their length; a negative length is null.
    #[inline(always)]
    fn nullable(&mut self) -> Result<Option<&'a [u8]>, BatchError> {
        match self.varint()? {
            length if length < 0 => Ok(None),
            length => self.take(length).map(Some),
        }
    }

    #[inline(always)]
    fn varint(&mut self) -> Result<i32, BatchError> {
        let raw = match self.rest {
            [first, rest @ ..] if *first < 0x80 => {
                self.rest = rest;
                u32::from(*first)
            }
            [first, second, rest @ ..] if *second < 0x80 => {
                self.rest = rest;
                u32::from(*first & 0x7f) | u32::from(*second) << 7
            }
            _ => self.long_varint(5)? as u32,
        };
        Ok((raw >> 1) as i32 ^ -((raw & 1) as i32))
    }

    #[inline(always)]
    fn varlong(&mut self) -> Result<i64, BatchError> {
        let raw = match self.rest {
            [first, rest @ ..] if *first < 0x80 => {
                self.rest = rest;
                u64::from(*first)
            }
            _ => self.long_varint(10)?,
        };
        Ok((raw >> 1) as i64 ^ -((raw & 1) as i64))
    }

    /// Up to `bytes_max` bytes of seven bits each, the lowest first. Bits past the type are dropped, as Java's shift
    /// does.
    #[cold]
    fn long_varint(&mut self, bytes_max: u32) -> Result<u64, BatchError> {
        let mut value = 0;
        for i in 0..bytes_max {
            let byte = self.u8()?;
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(STRUCTURE)
    }

    /// Checks `count` headers and leaves the cursor after them.
    #[inline(never)]
    fn headers(&mut self, count: i32) -> Result<RawHeaders<'a>, BatchError> {
        // A header takes at least two bytes, so an absurd count ends at once.
        if count < 0 || count as usize > self.rest.len() {
            return Err(BatchError::Malformed("Found invalid number of record headers"));
        }
        let bytes = self.rest;
        for _ in 0..count {
            if self.nullable()?.is_none() {
                return Err(BatchError::Malformed("Invalid negative header key size"));
            }
            self.nullable()?;
        }
        Ok(RawHeaders { count, bytes: &bytes[..bytes.len() - self.rest.len()] })
    }
}
