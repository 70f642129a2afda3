//! One batch under compaction: what stays of it. Pure.
//!
//! - A record goes if its key has a later offset in the map, if it has no key, or if its transaction was aborted.
//! - A tombstone (null value) stays until its batch's delete horizon: the time of its first cleaning plus
//!   `delete.retention.ms`, kept in the batch's base timestamp under attribute bit 6 (KIP-534).
//! - A batch keeps its offsets, its leader epoch and its producer fields however many records are left. Without any it
//!   goes, unless it is the last one of a producer: then its header stays.
//! - Control batches stay as they are, and so does what cannot be read.
//!
//! Source: Kafka 3.9 `Cleaner.shouldRetainRecord`, `MemoryRecords.filterTo`.

use std::ops::ControlFlow;

use bytes::BytesMut;

use super::keys::KeyMap;
use super::plan::CompactionPlan;
use crate::clock::UnixMs;
use crate::record::batch::DELETE_HORIZON_BIT;
use crate::record::{BatchBuilder, BatchError, BatchHeader, RecordView, for_each_record};
use crate::types::limits::DECOMPRESSED_BATCH_BYTES_MAX;

/// What becomes of a batch; `horizon` is when its tombstones may go, if it has any.
#[derive(Debug)]
pub(super) enum Verdict {
    Keep { horizon: Option<UnixMs> },
    Replace { batch: BytesMut, horizon: Option<UnixMs> },
    Drop,
}

/// Decides one batch.
pub(super) fn clean(
    header: &BatchHeader,
    batch: &[u8],
    keys: &KeyMap,
    plan: &CompactionPlan,
    keep_empty: bool,
) -> Verdict {
    let as_it_is = Verdict::Keep { horizon: None };
    if header.is_control() {
        return as_it_is;
    }
    try_clean(header, batch, keys, plan, keep_empty).unwrap_or(as_it_is)
}

fn try_clean(
    header: &BatchHeader,
    batch: &[u8],
    keys: &KeyMap,
    plan: &CompactionPlan,
    keep_empty: bool,
) -> Result<Verdict, BatchError> {
    let expired = header.delete_horizon().is_some_and(|horizon| plan.now >= horizon);
    let aborted = plan.is_aborted(header);
    let stays = |record: &RecordView<'_>| {
        !aborted
            && record.key.is_some_and(|key| keys.latest(key).is_none_or(|latest| latest <= record.offset))
            && (record.value.is_some() || !expired)
    };
    let (mut left, mut tombstones) = (0, 0);
    for_each_record(batch, DECOMPRESSED_BATCH_BYTES_MAX, |record| {
        if stays(&record) {
            left += 1;
            tombstones += i32::from(record.value.is_none());
        }
        ControlFlow::Continue(())
    })?;
    if left == 0 && !keep_empty {
        return Ok(Verdict::Drop);
    }
    let mut to = *header;
    if tombstones > 0 && header.delete_horizon().is_none() {
        to.attributes |= DELETE_HORIZON_BIT;
        to.base_timestamp = plan.now.saturating_add(plan.delete_retention_ms);
    }
    let horizon = to.delete_horizon().filter(|_| tombstones > 0);
    if left == header.record_count && to == *header {
        return Ok(Verdict::Keep { horizon });
    }
    let mut builder = BatchBuilder::retaining(&to)?;
    for_each_record(batch, DECOMPRESSED_BATCH_BYTES_MAX, |record| {
        if stays(&record) {
            builder.append_kept(&record);
        }
        ControlFlow::Continue(())
    })?;
    Ok(Verdict::Replace { batch: builder.finish().bytes, horizon })
}
