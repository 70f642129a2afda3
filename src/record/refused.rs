//! Why a produced batch is refused: the kind picks the error code, the text is Kafka's.

use super::batch::BatchError;
use crate::clock::UnixMs;
use crate::types::{Offset, TopicPartition};

/// The Kafka error a refusal maps to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RefusedKind {
    /// CORRUPT_MESSAGE (2).
    CorruptMessage,
    /// MESSAGE_TOO_LARGE (10).
    MessageTooLarge,
    /// RECORD_LIST_TOO_LARGE (18).
    RecordListTooLarge,
    /// INVALID_TIMESTAMP (32).
    InvalidTimestamp,
    /// UNSUPPORTED_COMPRESSION_TYPE (76).
    UnsupportedCompressionType,
    /// INVALID_RECORD (87).
    InvalidRecord,
}

/// A batch that was not appended. Sources: Kafka `ProduceRequest.validateRecords`, `UnifiedLog.append`, `LogValidator`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("Produce requests must have at least one record batch per partition")]
    NoBatch,
    #[error("Produce requests are only allowed to contain record batches with magic version 2, not {0}")]
    OldMagic(i8),
    #[error("Produce requests are only allowed to contain exactly one record batch per partition")]
    MoreThanOneBatch,
    #[error("Invalid magic found in record: {0}")]
    UnknownMagic(i8),
    #[error("Record size {size} is less than the minimum record overhead ({min})")]
    BelowRecordOverhead { size: i32, min: i32 },
    #[error("This version of produce requests is not allowed to use ZStandard compression")]
    ZstdNotAllowed,
    #[error("The baseOffset of the record batch in the append should be 0, but it is {0}")]
    BaseOffset(i64),
    #[error("The record batch size in the append is {size} bytes which exceeds the maximum configured value of {max}.")]
    BatchTooLarge { size: usize, max: usize },
    #[error("Record is corrupt (stored crc = {stored}, computed crc = {computed})")]
    Crc { stored: u32, computed: u32 },
    #[error("Record batch is corrupt (the size {0} is smaller than the minimum allowed overhead 61)")]
    BelowBatchOverhead(usize),
    #[error("Batch has an invalid offset range: [{first}, {last}]")]
    OffsetRange { first: i64, last: i64 },
    #[error("Invalid reported count for record batch: {0}")]
    Count(i32),
    #[error("Inconsistent batch offset range [{first}, {last}] and count of records {count}")]
    CountDiffers { first: i64, last: i64, count: i32 },
    #[error("Clients are not allowed to write control records")]
    Control,
    #[error("Invalid sequence number {sequence} in record batch with producerId {producer_id}")]
    Sequence { sequence: i32, producer_id: i64 },
    #[error("Message batch size is {size} bytes, which exceeds the maximum configured segment size of {max}.")]
    SegmentTooSmall { size: usize, max: usize },
    /// The records cannot be read, or grow too large when decompressed.
    #[error("{0}")]
    Unreadable(#[from] BatchError),
    /// Single records break a rule; the others are refused with them.
    #[error("{0}")]
    Records(RecordFaults),
}

impl Refused {
    pub(crate) fn kind(&self) -> RefusedKind {
        match self {
            Self::UnknownMagic(_)
            | Self::BelowRecordOverhead { .. }
            | Self::BelowBatchOverhead(_)
            | Self::Crc { .. } => RefusedKind::CorruptMessage,
            // A batch that is too large when decompressed: the producer's remedy, splitting it, is the right one.
            Self::BatchTooLarge { .. } | Self::Unreadable(BatchError::TooLargeDecompressed { .. }) => {
                RefusedKind::MessageTooLarge
            }
            Self::SegmentTooSmall { .. } => RefusedKind::RecordListTooLarge,
            Self::ZstdNotAllowed => RefusedKind::UnsupportedCompressionType,
            Self::Records(faults) if faults.any_timestamp() => RefusedKind::InvalidTimestamp,
            Self::NoBatch
            | Self::OldMagic(_)
            | Self::MoreThanOneBatch
            | Self::BaseOffset(_)
            | Self::OffsetRange { .. }
            | Self::Count(_)
            | Self::CountDiffers { .. }
            | Self::Control
            | Self::Sequence { .. }
            | Self::Unreadable(_)
            | Self::Records(_) => RefusedKind::InvalidRecord,
        }
    }

    /// `error_message` of the produce response (v8+). Kafka fills it for faults of single records only.
    pub(crate) fn error_message(&self, partition: &TopicPartition) -> Option<String> {
        match self {
            Self::Records(faults) => Some(faults.summary(partition)),
            _ => None,
        }
    }

    /// `record_errors` of the produce response (v8+, KIP-467): index in the batch and text.
    pub(crate) fn record_errors(&self, partition: &TopicPartition) -> Vec<(i32, String)> {
        match self {
            Self::Records(faults) => faults.listed.iter().map(|fault| (fault.index, fault.text(partition))).collect(),
            _ => Vec::new(),
        }
    }
}

/// The records at fault, bounded by `limits::RECORD_ERRORS_MAX`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{total} records are refused, the first of them number {}", self.listed.first().map_or(-1, |f| f.index))]
pub(crate) struct RecordFaults {
    /// The first of them.
    pub(crate) listed: Vec<RecordFault>,
    pub(crate) total: usize,
    pub(crate) timestamps: usize,
}

impl RecordFaults {
    fn any_timestamp(&self) -> bool {
        self.timestamps > 0
    }

    fn summary(&self, partition: &TopicPartition) -> String {
        if self.any_timestamp() {
            return "One or more records have been rejected due to invalid timestamp".into();
        }
        let first: Vec<String> = self
            .listed
            .iter()
            .take(3)
            .map(|fault| format!("RecordError(batchIndex={}, message='{}')", fault.index, fault.text(partition)))
            .collect();
        format!(
            "One or more records have been rejected due to {} record errors in total, and only showing the first three \
             errors at most: [{}]",
            self.total,
            first.join(", ")
        )
    }
}

/// One record at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordFault {
    /// Place in the batch, from 0.
    pub(crate) index: i32,
    pub(crate) what: Fault,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A compacted topic needs a key.
    NoKey,
    /// Outside `[earliest, latest]`.
    Timestamp { timestamp: UnixMs, offset: Offset, earliest: UnixMs, latest: UnixMs },
    /// Only the broker sets this timestamp type. Lengths are in bytes, −1 for null.
    LogAppendTime { timestamp: UnixMs, offset: Offset, key_bytes: i64, value_bytes: i64 },
}

impl Fault {
    pub(crate) fn is_timestamp(&self) -> bool {
        !matches!(self, Self::NoKey)
    }
}

impl RecordFault {
    fn text(&self, partition: &TopicPartition) -> String {
        match self.what {
            Fault::NoKey => {
                format!("Compacted topic cannot accept message without key in topic partition {partition}.")
            }
            Fault::Timestamp { timestamp, offset, earliest, latest } => format!(
                "Timestamp {timestamp} of message with offset {offset} is out of range. The timestamp should be within \
                 [{earliest}, {latest}]"
            ),
            Fault::LogAppendTime { timestamp, offset, key_bytes, value_bytes } => format!(
                "Invalid timestamp type in message DefaultRecord(offset={offset}, timestamp={timestamp}, \
                 key={key_bytes} bytes, value={value_bytes} bytes). Producer should not set timestamp type to \
                 LogAppendTime."
            ),
        }
    }
}
