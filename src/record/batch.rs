//! The header of a v2 batch: 61 bytes at fixed places, all integers big-endian.
//!
//! | at | field | | at | field |
//! |---|---|---|---|---|
//! | 0 | base offset i64 | | 27 | base timestamp i64 |
//! | 8 | batch length i32, bytes after this field | | 35 | max timestamp i64 |
//! | 12 | partition leader epoch i32, outside the CRC | | 43 | producer id i64 |
//! | 16 | magic i8, 2 | | 51 | producer epoch i16 |
//! | 17 | CRC-32C u32 over byte 21 to the end | | 53 | base sequence i32 |
//! | 21 | attributes i16 | | 57 | record count i32 |
//! | 23 | last offset delta i32 | | 61 | records |
//!
//! Attributes: bits 0–2 codec, 3 timestamp type (1 = LogAppendTime), 4 transactional, 5 control, 6 delete horizon.
//! Source: Kafka `DefaultRecordBatch`.

use crate::clock::UnixMs;
use crate::types::crc::EndSum;
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// Length of the header, and of a batch without records.
pub(crate) const HEADER_BYTES: usize = 61;
/// Base offset and batch length, which the batch length does not count.
pub(crate) const LOG_OVERHEAD_BYTES: usize = 12;
/// First byte under the checksum.
pub(crate) const CHECKED_FROM: usize = 21;
/// The only record format that is stored.
pub(crate) const MAGIC: i8 = 2;
/// "No timestamp" in a record or a batch.
pub(crate) const NO_TIMESTAMP: UnixMs = -1;
/// "No sequence": the batch is not idempotent, or is a control batch.
pub(crate) const NO_SEQUENCE: i32 = -1;

pub(crate) const TIMESTAMP_TYPE_BIT: i16 = 0x08;
pub(crate) const TRANSACTIONAL_BIT: i16 = 0x10;
pub(crate) const CONTROL_BIT: i16 = 0x20;
pub(crate) const DELETE_HORIZON_BIT: i16 = 0x40;
pub(crate) const CODEC_BITS: i16 = 0x07;

/// Bytes that are not a batch, or a batch whose records cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BatchError {
    #[error("{0} bytes are too few for a batch")]
    TooShort(usize),
    #[error("magic {0} is not 2")]
    Magic(i8),
    #[error("batch length {0} is impossible")]
    Length(i32),
    #[error("unknown compression type id: {0}")]
    UnknownCodec(i16),
    #[error("records do not decompress")]
    Decompression,
    #[error("records are larger than {cap} bytes when decompressed")]
    TooLargeDecompressed { cap: usize },
    #[error("{0}")]
    Malformed(&'static str),
}

/// How the records of a batch are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// The codec in bits 0–2 of a batch's attributes.
    pub(crate) fn from_attributes(attributes: i16) -> Result<Self, BatchError> {
        Ok(match attributes & CODEC_BITS {
            0 => Self::None,
            1 => Self::Gzip,
            2 => Self::Snappy,
            3 => Self::Lz4,
            4 => Self::Zstd,
            other => return Err(BatchError::UnknownCodec(other)),
        })
    }

    /// The same bits.
    pub(crate) fn bits(self) -> i16 {
        self as i16
    }
}

/// Who sets the timestamp of a record. Topic config `message.timestamp.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum TimestampType {
    #[default]
    CreateTime,
    LogAppendTime,
}

/// Every field of the header. Built by [`Self::parse`]; any value is legal, see `validate` for what a client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) base_offset: Offset,
    /// Bytes after this field.
    pub(crate) batch_length: i32,
    pub(crate) partition_leader_epoch: LeaderEpoch,
    pub(crate) magic: i8,
    pub(crate) crc: u32,
    pub(crate) attributes: i16,
    pub(crate) last_offset_delta: i32,
    /// Timestamp the records' deltas count from; the delete horizon if that bit is set.
    pub(crate) base_timestamp: UnixMs,
    pub(crate) max_timestamp: UnixMs,
    pub(crate) producer_id: ProducerId,
    pub(crate) producer_epoch: ProducerEpoch,
    pub(crate) base_sequence: i32,
    pub(crate) record_count: i32,
}

impl BatchHeader {
    /// Reads the first 61 bytes. Refuses another magic and a length below the header's own; whether all bytes of the
    /// batch are there is the caller's question.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let head: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(BatchError::TooShort(bytes.len()))?;
        let header = Self::read(head);
        if header.magic != MAGIC {
            return Err(BatchError::Magic(header.magic));
        }
        if (header.batch_length as i64) < (HEADER_BYTES - LOG_OVERHEAD_BYTES) as i64 {
            return Err(BatchError::Length(header.batch_length));
        }
        Ok(header)
    }

    fn read(head: &[u8; HEADER_BYTES]) -> Self {
        Self {
            base_offset: Offset(i64::from_be_bytes(field(head, 0))),
            batch_length: i32::from_be_bytes(field(head, 8)),
            partition_leader_epoch: LeaderEpoch(i32::from_be_bytes(field(head, 12))),
            magic: i8::from_be_bytes(field(head, 16)),
            crc: u32::from_be_bytes(field(head, 17)),
            attributes: i16::from_be_bytes(field(head, 21)),
            last_offset_delta: i32::from_be_bytes(field(head, 23)),
            base_timestamp: i64::from_be_bytes(field(head, 27)),
            max_timestamp: i64::from_be_bytes(field(head, 35)),
            producer_id: ProducerId(i64::from_be_bytes(field(head, 43))),
            producer_epoch: ProducerEpoch(i16::from_be_bytes(field(head, 51))),
            base_sequence: i32::from_be_bytes(field(head, 53)),
            record_count: i32::from_be_bytes(field(head, 57)),
        }
    }

    /// The 61 bytes of this header, with the CRC it carries.
    pub(crate) fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut head = [0; HEADER_BYTES];
        put(&mut head, 0, self.base_offset.0.to_be_bytes());
        put(&mut head, 8, self.batch_length.to_be_bytes());
        put(&mut head, 12, self.partition_leader_epoch.0.to_be_bytes());
        put(&mut head, 16, self.magic.to_be_bytes());
        put(&mut head, 17, self.crc.to_be_bytes());
        put(&mut head, 21, self.attributes.to_be_bytes());
        put(&mut head, 23, self.last_offset_delta.to_be_bytes());
        put(&mut head, 27, self.base_timestamp.to_be_bytes());
        put(&mut head, 35, self.max_timestamp.to_be_bytes());
        put(&mut head, 43, self.producer_id.0.to_be_bytes());
        put(&mut head, 51, self.producer_epoch.0.to_be_bytes());
        put(&mut head, 53, self.base_sequence.to_be_bytes());
        put(&mut head, 57, self.record_count.to_be_bytes());
        head
    }

    /// What its CRC says of a batch that has this header and was checked against it.
    pub(crate) fn end_sum(&self) -> EndSum {
        EndSum { from: CHECKED_FROM, crc: self.crc }
    }

    /// Length of the whole batch.
    pub(crate) fn size_bytes(&self) -> usize {
        LOG_OVERHEAD_BYTES + self.batch_length.max(0) as usize
    }

    /// Offset of the last record, also when compaction removed it; inclusive.
    pub(crate) fn last_offset(&self) -> Offset {
        Offset(self.base_offset.0.wrapping_add(i64::from(self.last_offset_delta)))
    }

    /// Sequence of the last record; it wraps to 0 after 2³¹−1. −1 without a base sequence.
    pub(crate) fn last_sequence(&self) -> i32 {
        if self.base_sequence == NO_SEQUENCE {
            return NO_SEQUENCE;
        }
        add_sequence(self.base_sequence, self.last_offset_delta)
    }

    pub(crate) fn codec(&self) -> Result<Codec, BatchError> {
        Codec::from_attributes(self.attributes)
    }

    #[cfg(test)]
    pub(crate) fn is_compressed(&self) -> bool {
        self.attributes & CODEC_BITS != 0
    }

    pub(crate) fn timestamp_type(&self) -> TimestampType {
        if self.attributes & TIMESTAMP_TYPE_BIT == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime }
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL_BIT != 0
    }

    pub(crate) fn is_control(&self) -> bool {
        self.attributes & CONTROL_BIT != 0
    }

    pub(crate) fn has_producer_id(&self) -> bool {
        self.producer_id.0 > ProducerId::NONE.0
    }

    /// When tombstones of this batch may go, milliseconds since 1970; compaction keeps it in the base timestamp.
    pub(crate) fn delete_horizon(&self) -> Option<UnixMs> {
        (self.attributes & DELETE_HORIZON_BIT != 0).then_some(self.base_timestamp)
    }
}

/// `sequence + by` in Kafka's circle of 2³¹ sequences. Source: Kafka `DefaultRecordBatch.incrementSequence`.
pub(crate) fn add_sequence(sequence: i32, by: i32) -> i32 {
    ((i64::from(sequence) + i64::from(by)) & i64::from(i32::MAX)) as i32
}

/// Length and magic of the first batch, if it is there as a whole. `None`: fewer bytes than a batch.
/// Source: Kafka `ByteBufferLogInputStream.nextBatch`, whose order of checks this keeps.
pub(crate) fn frame(bytes: &[u8]) -> Result<Option<(usize, i8)>, FrameError> {
    /// Smallest entry of any format: the magic 0 record.
    const RECORD_BYTES_MIN: i32 = 14;
    const MAGIC_AT: usize = 16;
    let Some(length) = bytes.get(8..LOG_OVERHEAD_BYTES) else { return Ok(None) };
    let length = i32::from_be_bytes(length.try_into().expect("the range is four bytes long"));
    if length < RECORD_BYTES_MIN {
        return Err(FrameError::TooSmall { size: length, min: RECORD_BYTES_MIN });
    }
    let Some(&magic) = bytes.get(MAGIC_AT) else { return Ok(None) };
    let magic = magic as i8;
    if !(0..=MAGIC).contains(&magic) {
        return Err(FrameError::Magic(magic));
    }
    let size = LOG_OVERHEAD_BYTES + length as usize;
    Ok((bytes.len() >= size).then_some((size, magic)))
}

/// What [`frame`] refuses, both Kafka's CORRUPT_MESSAGE.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FrameError {
    TooSmall { size: i32, min: i32 },
    Magic(i8),
}

fn field<const N: usize>(head: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    head[at..at + N].try_into().expect("every field lies inside the header")
}

fn put<const N: usize>(head: &mut [u8; HEADER_BYTES], at: usize, value: [u8; N]) {
    head[at..at + N].copy_from_slice(&value);
}
