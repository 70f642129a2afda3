//! The checks on what a client produces, in Kafka's order; nothing of the log's state is needed for them.
//!
//! An uncompressed batch is walked in place: no allocation, one pass for the checksum, one over the record lengths.
//! A compressed one is decompressed under a cap only to be looked at. A batch is rewritten only if the topic's
//! `compression.type` differs from the producer's codec, or its offsets are not 0..n−1.
//! Sources: Kafka 3.9 `ProduceRequest.validateRecords`, `UnifiedLog.analyzeAndValidateRecords`, `LogValidator`.

use bytes::BytesMut;

use super::batch::{self, BatchHeader, Codec, FrameError, HEADER_BYTES, MAGIC, NO_TIMESTAMP, TimestampType};
use super::build;
use super::checksum;
use super::compression::{Compression, TopicCompression};
use super::refused::{Fault, RecordFault, RecordFaults, Refused};
use super::stamp::rewrite_header;
use super::valid::ValidBatch;
use super::walk::{self, RawRecord, RecordWalk};
use crate::clock::UnixMs;
use crate::types::{Offset, limits};

/// Rules of one topic that do not need log state, and what the request's version allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ProduceRules {
    /// `max.message.bytes`, for the whole batch, before and again after a rewrite.
    pub(crate) max_message_bytes: usize,
    /// `segment.bytes`.
    pub(crate) segment_bytes: usize,
    /// `cleanup.policy` contains `compact`, so every record needs a key.
    pub(crate) compacted: bool,
    pub(crate) message_timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`
    pub(crate) timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`
    pub(crate) timestamp_after_max_ms: i64,
    pub(crate) compression: TopicCompression,
    /// Most bytes the records of one batch may have when decompressed.
    pub(crate) decompressed_bytes_max: usize,
    /// Produce 7 and later.
    pub(crate) zstd_allowed: bool,
    /// Look at every record even when no other rule asks for it, as Kafka does.
    pub(crate) check_records: bool,
}

impl Default for ProduceRules {
    /// Kafka 4.1's topic defaults.
    fn default() -> Self {
        Self {
            max_message_bytes: 1_048_588,
            segment_bytes: 1 << 30,
            compacted: false,
            message_timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            compression: TopicCompression::Producer,
            decompressed_bytes_max: limits::DECOMPRESSED_BATCH_BYTES_MAX,
            zstd_allowed: true,
            check_records: true,
        }
    }
}

/// Checks what one partition of a produce request (v3+) carries.
pub(crate) fn validate(records: BytesMut, rules: &ProduceRules, now: UnixMs) -> Result<ValidBatch, Refused> {
    let mut bytes = records;
    // A partial batch at the end is cut off, as Kafka does.
    let size = only_batch(&bytes, rules)?;
    bytes.truncate(size);
    let header = checked_header(&bytes, rules)?;
    check_fields(&header)?;

    let rewrite = rules.compression.rewrite_of(header.codec()?);
    let survey = if rules.check_records || rewrite.is_some() || rules.compacted || rules.has_timestamp_window() {
        walk::with_records(&header, &bytes[HEADER_BYTES..], rules.decompressed_bytes_max, |records| {
            let survey = survey(records, &header, rules, now)?;
            let rewritten = survey.rewritten(rewrite, records, &header)?;
            Ok::<_, Refused>((survey, rewritten))
        })??
    } else {
        (Survey::trusted(&header), None)
    };
    let valid = match survey {
        (survey, Some(rewritten)) => survey.of_rewritten(rewritten)?,
        (survey, None) => survey.in_place(bytes, header),
    };
    check_size_after(&valid, rules)?;
    Ok(valid)
}

impl ProduceRules {
    fn has_timestamp_window(&self) -> bool {
        self.message_timestamp_type == TimestampType::CreateTime
            && (self.timestamp_before_max_ms != i64::MAX || self.timestamp_after_max_ms != i64::MAX)
    }
}

/// Length of the one batch that must be there. Source: Kafka `ProduceRequest.validateRecords`.
fn only_batch(bytes: &[u8], rules: &ProduceRules) -> Result<usize, Refused> {
    let (size, magic) = batch::frame(bytes).map_err(from_frame)?.ok_or(Refused::NoBatch)?;
    if magic != MAGIC {
        return Err(Refused::OldMagic(magic));
    }
    const ATTRIBUTES: std::ops::Range<usize> = batch::CHECKED_FROM..batch::CHECKED_FROM + 2;
    let attributes = bytes.get(ATTRIBUTES).ok_or(Refused::BelowBatchOverhead(size))?;
    let codec = Codec::from_attributes(i16::from_be_bytes([attributes[0], attributes[1]]))?;
    if codec == Codec::Zstd && !rules.zstd_allowed {
        return Err(Refused::ZstdNotAllowed);
    }
    if size < bytes.len() && batch::frame(&bytes[size..]).map_err(from_frame)?.is_some() {
        return Err(Refused::MoreThanOneBatch);
    }
    Ok(size)
}

fn from_frame(error: FrameError) -> Refused {
    match error {
        FrameError::TooSmall { size, min } => Refused::BelowRecordOverhead { size, min },
        FrameError::Magic(magic) => Refused::UnknownMagic(magic),
    }
}

/// Base offset, size, checksum. Source: Kafka `UnifiedLog.analyzeAndValidateRecords`.
fn checked_header(bytes: &[u8], rules: &ProduceRules) -> Result<BatchHeader, Refused> {
    let base_offset = bytes.first_chunk().map_or(0, |base| i64::from_be_bytes(*base));
    if base_offset != 0 {
        return Err(Refused::BaseOffset(base_offset));
    }
    if bytes.len() > rules.max_message_bytes {
        return Err(Refused::BatchTooLarge { size: bytes.len(), max: rules.max_message_bytes });
    }
    let computed = checksum::of_batch(bytes).ok_or(Refused::BelowBatchOverhead(bytes.len()))?;
    let header = BatchHeader::parse(bytes)?;
    if computed != header.crc {
        return Err(Refused::Crc { stored: header.crc, computed });
    }
    Ok(header)
}

/// Source: Kafka `LogValidator.validateBatch` for `AppendOrigin.CLIENT`.
fn check_fields(header: &BatchHeader) -> Result<(), Refused> {
    let (first, last) = (header.base_offset.0, header.last_offset().0);
    let range = last - first + 1;
    if range <= 0 {
        return Err(Refused::OffsetRange { first, last });
    }
    if header.record_count <= 0 {
        return Err(Refused::Count(header.record_count));
    }
    if range != i64::from(header.record_count) {
        return Err(Refused::CountDiffers { first, last, count: header.record_count });
    }
    if header.is_control() {
        return Err(Refused::Control);
    }
    if header.has_producer_id() && header.base_sequence < 0 {
        return Err(Refused::Sequence { sequence: header.base_sequence, producer_id: header.producer_id.0 });
    }
    Ok(())
}

/// What one pass over the records told.
#[derive(Debug, Clone, Copy)]
struct Survey {
    max_timestamp: UnixMs,
    offset_of_max_timestamp_delta: i32,
    /// Offset deltas are 0..n−1.
    sequential: bool,
}

fn survey(records: &[u8], header: &BatchHeader, rules: &ProduceRules, now: UnixMs) -> Result<Survey, Refused> {
    let mut walk = RecordWalk::new(records);
    let mut survey = Survey { max_timestamp: NO_TIMESTAMP, offset_of_max_timestamp_delta: 0, sequential: true };
    let mut faults = RecordFaults { listed: Vec::new(), total: 0, timestamps: 0 };
    for index in 0..header.record_count {
        let record = walk.next_record()?;
        let timestamp = walk::record_timestamp(header, &record);
        if let Some(what) = fault(&record, timestamp, header, rules, now) {
            note(&mut faults, RecordFault { index, what });
        }
        if timestamp > survey.max_timestamp {
            survey.max_timestamp = timestamp;
            survey.offset_of_max_timestamp_delta = index;
        }
        survey.sequential &= record.offset_delta == index;
    }
    walk.end()?;
    if faults.total > 0 {
        return Err(Refused::Records(faults));
    }
    Ok(survey)
}

#[cold]
fn note(faults: &mut RecordFaults, fault: RecordFault) {
    faults.total += 1;
    faults.timestamps += usize::from(fault.what.is_timestamp());
    if faults.listed.len() < limits::RECORD_ERRORS_MAX {
        faults.listed.push(fault);
    }
}

/// Source: Kafka `LogValidator.validateRecord`: the key first, then the timestamp.
#[inline]
fn fault(
    record: &RawRecord<'_>,
    timestamp: UnixMs,
    header: &BatchHeader,
    rules: &ProduceRules,
    now: UnixMs,
) -> Option<Fault> {
    if rules.compacted && record.key.is_none() {
        return Some(Fault::NoKey);
    }
    let offset = Offset(i64::from(record.offset_delta));
    // Kafka lets the type pass in a CreateTime topic if the timestamps are in range, and then takes it back. No client
    // sends that, so it is refused in either case.
    if header.timestamp_type() == TimestampType::LogAppendTime {
        let length = |bytes: Option<&[u8]>| bytes.map_or(-1, |bytes| bytes.len() as i64);
        let (key_bytes, value_bytes) = (length(record.key), length(record.value));
        return Some(Fault::LogAppendTime { timestamp, offset, key_bytes, value_bytes });
    }
    if rules.message_timestamp_type == TimestampType::CreateTime && timestamp != NO_TIMESTAMP {
        // Wraps as Java does: a timestamp far in the past must not pass for one in the future, nor panic.
        let age = now.saturating_sub(timestamp);
        if age > rules.timestamp_before_max_ms || age.saturating_neg() > rules.timestamp_after_max_ms {
            return Some(Fault::Timestamp {
                timestamp,
                offset,
                earliest: now.wrapping_sub(rules.timestamp_before_max_ms),
                latest: now.wrapping_add(rules.timestamp_after_max_ms),
            });
        }
    }
    None
}

impl Survey {
    /// No rule asks for a look at the records: believe the header.
    fn trusted(header: &BatchHeader) -> Self {
        Self {
            max_timestamp: header.max_timestamp,
            offset_of_max_timestamp_delta: header.last_offset_delta,
            sequential: true,
        }
    }

    /// The batch with other compression, or with its offsets put right; `None` if it stays.
    fn rewritten(
        &self,
        rewrite: Option<Compression>,
        records: &[u8],
        header: &BatchHeader,
    ) -> Result<Option<(BytesMut, BatchHeader)>, Refused> {
        let mut target = *header;
        target.max_timestamp = self.max_timestamp;
        if self.sequential {
            return Ok(rewrite.map(|compression| build::recompressed(&target, records, compression)));
        }
        let compression = rewrite.unwrap_or(Compression::from(header.codec()?));
        let renumbered = build::renumbered(header.record_count, records)?;
        Ok(Some(build::recompressed(&target, &renumbered, compression)))
    }

    fn of_rewritten(self, (bytes, header): (BytesMut, BatchHeader)) -> Result<ValidBatch, Refused> {
        let offset_of_max_timestamp_delta = self.offset_of_max_timestamp_delta;
        Ok(ValidBatch { bytes, header, offset_of_max_timestamp_delta })
    }

    /// With the true maximum timestamp in the header; the checksum changes only if that was another one.
    fn in_place(self, bytes: BytesMut, header: BatchHeader) -> ValidBatch {
        let mut bytes = bytes;
        let header = if header.max_timestamp == self.max_timestamp {
            header
        } else {
            rewrite_header(&mut bytes, &header, BatchHeader { max_timestamp: self.max_timestamp, ..header })
        };
        ValidBatch { bytes, header, offset_of_max_timestamp_delta: self.offset_of_max_timestamp_delta }
    }
}

fn check_size_after(valid: &ValidBatch, rules: &ProduceRules) -> Result<(), Refused> {
    let size = valid.bytes.len();
    if size > rules.max_message_bytes {
        return Err(Refused::BatchTooLarge { size, max: rules.max_message_bytes });
    }
    if size > rules.segment_bytes {
        return Err(Refused::SegmentTooSmall { size, max: rules.segment_bytes });
    }
    Ok(())
}
