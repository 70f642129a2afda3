//! What a follower was sent: checked before anything of it is kept, and kept as it is (I-4).
//!
//! Pure. A leader's batches are checked for what the way from there may do to them, and for their place in the log;
//! what producers may send was the leader's to refuse. Not looked at: sizes, sequences, timestamps, records (but for
//! those of control batches, which say what they end).
//! Source: Kafka 3.9 `UnifiedLog.appendAsFollower`, `analyzeAndValidateRecords`; the leader epoch is looked at by later
//! releases.

use bytes::Bytes;

use crate::record::batch::{FrameError, MAGIC, frame};
use crate::record::checksum;
use crate::record::control::read_marker;
use crate::record::{BatchError, BatchHeader};
use crate::types::{LeaderEpoch, Offset, TransactionMarker};

/// What became of fetched records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FetchedAppend {
    /// Inclusive; `None`: there was no whole batch of the leader's epoch or an earlier one.
    pub(crate) last_offset: Option<Offset>,
    /// Next offset to fetch, these batches included.
    pub(crate) log_end_offset: Offset,
    /// A virtual segment was closed before one of them, so there may be something to compact.
    pub(crate) rolled: bool,
    /// Of the batches that were taken.
    pub(crate) bytes: u64,
}

/// Why fetched records were not appended. Nothing changed: what comes with a bad batch is refused with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchedError {
    /// Not what the leader has: to be fetched again.
    #[error("corrupt records were fetched: {0}")]
    Corrupt(String),
    /// Batches from before Kafka 0.11, which are not stored here.
    #[error("message format {0} is not supported: upgrade the topic's records to format 2 first")]
    OldFormat(i8),
    /// A batch that overlaps what the log has. Gaps are allowed, since compaction makes them.
    #[error("the leader sent a batch from offset {base_offset} on, but the log ends at {log_end_offset}")]
    Unexpected { base_offset: Offset, log_end_offset: Offset },
}

/// A batch that may be appended.
#[derive(Debug)]
pub(super) struct FetchedBatch {
    pub(super) header: BatchHeader,
    /// Of what was fetched, without a copy.
    pub(super) bytes: Bytes,
    /// What it is if it is a transaction marker.
    pub(super) marker: Option<TransactionMarker>,
}

/// The whole batches in `records`, which follow each other, for a log that ends at `log_end`. One that is cut short
/// ends them, and so does one of a later leader epoch than `epoch`: the follower has yet to hear of that leader.
pub(super) fn batches(records: Bytes, epoch: LeaderEpoch, log_end: Offset) -> Result<Vec<FetchedBatch>, FetchedError> {
    let mut found = Vec::new();
    let (mut rest, mut next) = (records, log_end);
    while let Some(size) = whole(&rest)? {
        let bytes = rest.split_to(size);
        let header = BatchHeader::parse(&bytes).map_err(corrupt)?;
        if header.partition_leader_epoch > epoch {
            break;
        }
        let sum = checksum::of_batch(&bytes);
        if sum != Some(header.crc) {
            let text = format!("checksum {:08x} of the batch at offset {} is wrong", header.crc, header.base_offset);
            return Err(FetchedError::Corrupt(text));
        }
        // One more than the last offset is an offset, too.
        let last = header.base_offset.0.checked_add(i64::from(header.last_offset_delta));
        if header.last_offset_delta < 0 || last.is_none_or(|last| last >= Offset::MAX.0 - 1) {
            let text = format!("offset {} and delta {}", header.base_offset, header.last_offset_delta);
            return Err(FetchedError::Corrupt(text));
        }
        if header.base_offset < next {
            return Err(FetchedError::Unexpected { base_offset: header.base_offset, log_end_offset: next });
        }
        next = header.last_offset() + 1;
        let marker = if header.is_control() { read_marker(&header, &bytes).map_err(corrupt)? } else { None };
        found.push(FetchedBatch { header, bytes, marker });
    }
    Ok(found)
}

/// Size of the first batch, if all of it is there.
fn whole(bytes: &[u8]) -> Result<Option<usize>, FetchedError> {
    match frame(bytes) {
        Ok(None) => Ok(None),
        Ok(Some((size, MAGIC))) => Ok(Some(size)),
        Ok(Some((_, magic))) => Err(FetchedError::OldFormat(magic)),
        Err(FrameError::Magic(magic)) => Err(FetchedError::Corrupt(format!("magic {magic}"))),
        Err(FrameError::TooSmall { size, min }) => {
            Err(FetchedError::Corrupt(format!("size {size}, smaller than the least of {min}")))
        }
    }
}

fn corrupt(error: BatchError) -> FetchedError {
    FetchedError::Corrupt(error.to_string())
}
