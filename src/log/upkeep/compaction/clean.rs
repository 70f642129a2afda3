//! One batch under compaction: what stays of it. Pure.
//!
//! - A record goes if its key has a later offset in the map, if it has no key, or if its transaction was aborted.
//! - A tombstone (null value) stays until its batch's delete horizon: the time of its first cleaning plus
//!   `delete.retention.ms`, kept in the batch's base timestamp under attribute bit 6 (KIP-534).
//! - A batch keeps its offsets, its leader epoch and its producer fields however many records are left. Without any it
//!   goes, unless it is the last one of a producer or the last one of what is cleaned: then its header stays.
//! - A marker that commits a transaction of which no batch is left stays for `delete.retention.ms` more, counted like a
//!   tombstone's, and as long as it is the last one of a producer or of what is cleaned. Deviation: markers that abort
//!   stay for ever, because readers that are told of the transaction look for its end.
//! - What cannot be read stays as it is.
//!
//! Source: Kafka 3.9 `Cleaner.shouldRetainRecord`, `CleanedTransactionMetadata`, `MemoryRecords.filterTo`.

use std::collections::HashSet;
use std::ops::ControlFlow;

use bytes::BytesMut;

use super::keys::KeyMap;
use super::plan::CompactionPlan;
use crate::clock::UnixMs;
use crate::record::batch::DELETE_HORIZON_BIT;
use crate::record::control::read_marker;
use crate::record::{BatchBuilder, BatchError, BatchHeader, RecordView, for_each_record};
use crate::types::limits::DECOMPRESSED_BATCH_BYTES_MAX;
use crate::types::{ProducerId, TransactionMarker, TransactionResult};

/// What becomes of a batch; `horizon` is when its tombstones may go, if it has any.
#[derive(Debug)]
pub(super) enum Verdict {
    Keep { horizon: Option<UnixMs> },
    Replace { batch: BytesMut, horizon: Option<UnixMs> },
    Drop,
}

/// The producers whose transactions a pass through the log has met batches of, and not yet the end.
#[derive(Debug, Default)]
pub(super) struct TransactionsMet {
    met: HashSet<ProducerId>,
}

impl TransactionsMet {
    /// Notes a batch; they come in offset order. True: it commits a transaction of which no batch is left.
    pub(super) fn meet(&mut self, header: &BatchHeader, batch: &[u8]) -> bool {
        if !header.is_transactional() {
            return false;
        }
        if !header.is_control() {
            self.met.insert(header.producer_id);
            return false;
        }
        let empty = !self.met.remove(&header.producer_id);
        let commits = |marker: TransactionMarker| marker.result == TransactionResult::Commit;
        empty && read_marker(header, batch).is_ok_and(|marker| marker.is_some_and(commits))
    }
}

/// Decides one batch. `unneeded`: it is a marker that [`TransactionsMet::meet`] has found to end nothing; `last`: the
/// last batch of a producer, its last marker, or the last batch of what is cleaned.
pub(super) fn clean(
    header: &BatchHeader,
    batch: &[u8],
    keys: &KeyMap,
    plan: &CompactionPlan,
    unneeded: bool,
    last: bool,
) -> Verdict {
    let as_it_is = Verdict::Keep { horizon: None };
    let cleaned = match header.is_control() {
        true if unneeded && !last => clean_marker(header, batch, plan),
        true => return as_it_is,
        false => try_clean(header, batch, keys, plan, last),
    };
    cleaned.unwrap_or(as_it_is)
}

/// A marker that ends nothing: gets its delete horizon, and goes when that has come.
fn clean_marker(header: &BatchHeader, batch: &[u8], plan: &CompactionPlan) -> Result<Verdict, BatchError> {
    match header.delete_horizon() {
        Some(horizon) if plan.now >= horizon => Ok(Verdict::Drop),
        Some(horizon) => Ok(Verdict::Keep { horizon: Some(horizon) }),
        None => {
            let to = with_horizon(header, plan);
            let batch = retained(&to, batch, |_| true)?;
            Ok(Verdict::Replace { batch, horizon: to.delete_horizon() })
        }
    }
}

/// The header with a delete horizon of its own.
fn with_horizon(header: &BatchHeader, plan: &CompactionPlan) -> BatchHeader {
    BatchHeader {
        attributes: header.attributes | DELETE_HORIZON_BIT,
        base_timestamp: plan.now.saturating_add(plan.delete_retention_ms),
        ..*header
    }
}

/// The batch under another header, with those of its records that stay.
fn retained(to: &BatchHeader, batch: &[u8], stays: impl Fn(&RecordView<'_>) -> bool) -> Result<BytesMut, BatchError> {
    let mut builder = BatchBuilder::retaining(to)?;
    for_each_record(batch, DECOMPRESSED_BATCH_BYTES_MAX, |record| {
        if stays(&record) {
            builder.append_kept(&record);
        }
        ControlFlow::Continue(())
    })?;
    Ok(builder.finish().bytes)
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
    let first = tombstones > 0 && header.delete_horizon().is_none();
    let to = if first { with_horizon(header, plan) } else { *header };
    let horizon = to.delete_horizon().filter(|_| tombstones > 0);
    if left == header.record_count && to == *header {
        return Ok(Verdict::Keep { horizon });
    }
    Ok(Verdict::Replace { batch: retained(&to, batch, stays)?, horizon })
}
