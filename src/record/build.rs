//! Making v2 batches: for coordinators, compaction, and produced batches that need a rewrite.

use bytes::{BufMut, BytesMut};

use super::batch::{
    BatchError, BatchHeader, CODEC_BITS, CONTROL_BIT, HEADER_BYTES, LOG_OVERHEAD_BYTES, MAGIC, NO_SEQUENCE,
    NO_TIMESTAMP, TRANSACTIONAL_BIT, TimestampType,
};
use super::checksum;
use super::compression::{self, Compression};
use super::valid::ValidBatch;
use super::walk::{RawHeaders, RecordView, RecordWalk};
use crate::clock::UnixMs;
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

/// A batch being made. Offsets are given in the order of [`Self::append`], or kept with [`Self::append_kept`].
#[derive(Debug)]
pub(crate) struct BatchBuilder {
    /// 61 bytes for the header, then records, uncompressed until the end.
    bytes: BytesMut,
    header: BatchHeader,
    compression: Compression,
    max_timestamp: UnixMs,
    offset_of_max_timestamp_delta: i32,
    next_delta: i32,
    /// The header describes a batch that is being cleaned: its last offset and, without records, its timestamps stay.
    keeps_range: bool,
}

impl Default for BatchBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl BatchBuilder {
    /// An uncompressed batch without a producer id, CreateTime, base offset 0.
    pub(crate) fn new() -> Self {
        Self::with_header(
            BatchHeader {
                base_offset: Offset::ZERO,
                batch_length: 0,
                partition_leader_epoch: LeaderEpoch::NONE,
                magic: MAGIC,
                crc: 0,
                attributes: 0,
                last_offset_delta: 0,
                base_timestamp: NO_TIMESTAMP,
                max_timestamp: NO_TIMESTAMP,
                producer_id: ProducerId::NONE,
                producer_epoch: ProducerEpoch::NONE,
                base_sequence: NO_SEQUENCE,
                record_count: 0,
            },
            Compression::None,
        )
    }

    /// A rewrite of `original` with fewer records, or none: offsets, epoch, producer fields, sequence, attributes and
    /// codec stay. A delete horizon, if set in `original`, is its base timestamp.
    /// Source: Kafka `MemoryRecords.filterTo`, `DefaultRecordBatch`, its note on compaction.
    pub(crate) fn retaining(original: &BatchHeader) -> Result<Self, BatchError> {
        let header = BatchHeader { record_count: 0, ..*original };
        let mut builder = Self::with_header(header, Compression::from(original.codec()?));
        builder.keeps_range = true;
        Ok(builder)
    }

    fn with_header(header: BatchHeader, compression: Compression) -> Self {
        let mut bytes = BytesMut::new();
        bytes.put_bytes(0, HEADER_BYTES);
        Self {
            bytes,
            header,
            compression,
            max_timestamp: NO_TIMESTAMP,
            offset_of_max_timestamp_delta: 0,
            next_delta: 0,
            keeps_range: false,
        }
    }

    pub(crate) fn compressed(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// As a producer would send it.
    #[cfg(test)]
    pub(crate) fn producer(mut self, id: ProducerId, epoch: ProducerEpoch, base_sequence: i32) -> Self {
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self.header.base_sequence = base_sequence;
        self
    }

    #[cfg(test)]
    pub(crate) fn transactional(mut self) -> Self {
        self.header.attributes |= TRANSACTIONAL_BIT;
        self
    }

    /// As a coordinator writes within a producer's transaction: without a sequence.
    pub(crate) fn in_transaction(mut self, id: ProducerId, epoch: ProducerEpoch) -> Self {
        self.header.attributes |= TRANSACTIONAL_BIT;
        self.header.producer_id = id;
        self.header.producer_epoch = epoch;
        self
    }

    /// As what ends a producer's transaction.
    pub(super) fn control(mut self, id: ProducerId, epoch: ProducerEpoch) -> Self {
        self.header.attributes |= CONTROL_BIT;
        self.in_transaction(id, epoch)
    }

    /// Adds a record at the next offset.
    pub(crate) fn append(&mut self, timestamp: UnixMs, key: Option<&[u8]>, value: Option<&[u8]>) {
        self.append_with_headers(timestamp, key, value, &[]);
    }

    /// Adds a record with headers at the next offset.
    pub(crate) fn append_with_headers(
        &mut self,
        timestamp: UnixMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        let mut raw = Vec::new();
        for (key, value) in headers {
            put_nullable(&mut raw, Some(key));
            put_nullable(&mut raw, *value);
        }
        self.put(self.next_delta, timestamp, key, value, RawHeaders { count: headers.len() as i32, bytes: &raw });
    }

    /// Adds a record of the batch that is being rewritten, at its own offset.
    pub(crate) fn append_kept(&mut self, record: &RecordView<'_>) {
        let delta = (record.offset.0.wrapping_sub(self.header.base_offset.0)) as i32;
        self.put(delta, record.timestamp, record.key, record.value, record.headers);
    }

    fn put(
        &mut self,
        delta: i32,
        timestamp: UnixMs,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: RawHeaders<'_>,
    ) {
        if self.header.record_count == 0 && self.header.delete_horizon().is_none() {
            self.header.base_timestamp = timestamp;
        }
        if timestamp > self.max_timestamp {
            self.max_timestamp = timestamp;
            self.offset_of_max_timestamp_delta = delta;
        }
        put_record(&mut self.bytes, timestamp.wrapping_sub(self.header.base_timestamp), delta, key, value, headers);
        self.next_delta = delta.wrapping_add(1);
        self.header.record_count = self.header.record_count.wrapping_add(1);
    }

    /// The finished batch. Without records only a rewrite of another batch makes sense: it keeps the producer's
    /// sequence after compaction took every record.
    pub(crate) fn finish(self) -> ValidBatch {
        let Self { bytes, header, compression, max_timestamp, offset_of_max_timestamp_delta, .. } = self;
        let mut header = header;
        if !self.keeps_range {
            header.last_offset_delta = self.next_delta.wrapping_sub(1);
        }
        let compression = if header.record_count == 0 {
            if header.delete_horizon().is_none() {
                header.base_timestamp = NO_TIMESTAMP;
            }
            Compression::None
        } else {
            if header.timestamp_type() == TimestampType::CreateTime {
                header.max_timestamp = max_timestamp;
            }
            compression
        };
        let (bytes, header) = match compression {
            Compression::None => {
                header.attributes &= !CODEC_BITS;
                seal(bytes, header)
            }
            compression => recompressed(&header, &bytes[HEADER_BYTES..], compression),
        };
        ValidBatch { bytes, header, offset_of_max_timestamp_delta }
    }
}

/// A batch without records or producer id that takes one offset: readers pass over it.
pub(crate) fn empty_batch(at: Offset, epoch: LeaderEpoch) -> ValidBatch {
    let builder = BatchBuilder::new();
    let header = BatchHeader { base_offset: at, partition_leader_epoch: epoch, ..builder.header };
    BatchBuilder { header, keeps_range: true, ..builder }.finish()
}

/// `header` with other bytes behind it: sets the codec, the length and the checksum.
pub(super) fn recompressed(header: &BatchHeader, records: &[u8], compression: Compression) -> (BytesMut, BatchHeader) {
    let mut bytes = BytesMut::with_capacity(HEADER_BYTES + records.len() / 2);
    bytes.put_bytes(0, HEADER_BYTES);
    compression::compress(compression, records, &mut bytes);
    let attributes = header.attributes & !CODEC_BITS | compression.codec().bits();
    seal(bytes, BatchHeader { attributes, ..*header })
}

/// The records with offset deltas 0..n−1. Source: Kafka `LogValidator.buildRecordsAndAssignOffsets`.
pub(super) fn renumbered(count: i32, records: &[u8]) -> Result<BytesMut, BatchError> {
    let mut out = BytesMut::with_capacity(records.len());
    let mut walk = RecordWalk::new(records);
    for delta in 0..count {
        let record = walk.next_record()?;
        put_record(&mut out, record.timestamp_delta, delta, record.key, record.value, record.headers);
    }
    walk.end()?;
    Ok(out)
}

/// Writes length, checksum and header in front of the records.
fn seal(mut bytes: BytesMut, mut header: BatchHeader) -> (BytesMut, BatchHeader) {
    header.batch_length = i32::try_from(bytes.len() - LOG_OVERHEAD_BYTES).expect("a batch is smaller than 2 GiB");
    bytes[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
    header.crc = checksum::of_batch(&bytes).expect("the header is there");
    bytes[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
    (bytes, header)
}

fn put_record(
    out: &mut BytesMut,
    timestamp_delta: i64,
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: RawHeaders<'_>,
) {
    let length = 1
        + varlong_bytes(timestamp_delta)
        + varlong_bytes(i64::from(offset_delta))
        + nullable_bytes(key)
        + nullable_bytes(value)
        + varlong_bytes(i64::from(headers.count))
        + headers.bytes.len();
    out.reserve(length + 5);
    put_varlong(out, length as i64);
    out.put_u8(0);
    put_varlong(out, timestamp_delta);
    put_varlong(out, i64::from(offset_delta));
    put_nullable(out, key);
    put_nullable(out, value);
    put_varlong(out, i64::from(headers.count));
    out.put_slice(headers.bytes);
}

fn put_nullable(out: &mut impl BufMut, bytes: Option<&[u8]>) {
    match bytes {
        None => put_varlong(out, -1),
        Some(bytes) => {
            put_varlong(out, bytes.len() as i64);
            out.put_slice(bytes);
        }
    }
}

fn nullable_bytes(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varlong_bytes(bytes.len() as i64) + bytes.len())
}

/// Zigzag, then seven bits per byte, the lowest first. An i32 in an i64 has the same form.
fn put_varlong(out: &mut impl BufMut, value: i64) {
    let mut left = zigzag(value);
    while left >= 0x80 {
        out.put_u8(left as u8 | 0x80);
        left >>= 7;
    }
    out.put_u8(left as u8);
}

fn varlong_bytes(value: i64) -> usize {
    (u64::BITS - (zigzag(value) | 1).leading_zeros()).div_ceil(7) as usize
}

fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}
