//! Compaction of one log: of every key the latest value stays, with its offset. A job beside the log, off its lock.
//!
//! 1. `plan` takes, under the lock, what may be cleaned: closed segments below the last stable offset, older than
//!    `min.compaction.lag.ms`. Everything below `first_dirty` has been cleaned before.
//! 2. [`run`] reads the dirty part and remembers the latest offset of each key (`keys`), then reads the log from its
//!    start and decides batch by batch (`clean`): keep, replace by a smaller batch with the same offsets, or drop.
//! 3. The caller commits each step's writes as one set, once the step before is written, and at the end, once all are,
//!    what [`PartitionLog::on_compacted`] says.
//!
//! The last batch below `up_to` always stays, emptied if all its records go. Above `up_to` no job has made a gap, so
//! wherever the log ends (or is cut later, or the last stable offset stops readers), a batch ends there and a reader
//! comes to it (I-26). This follows from the offsets that a job cleans, not from where the log happens to end while it
//! runs: appends that are under way may yet be refused. Once `up_to` is higher the emptied batch goes. Kafka comes to
//! the same end because it leaves its active segment alone, and closes it by appends only.
//!
//! Safe at any crash or refused write: steps go in offset order, each is one write set, a record goes only when a later
//! one of its key stands at a higher offset, a tombstone only after what it deletes, and how far the job came is
//! written last. What is interrupted is done again.
//! Memory is bounded: when the map of keys is full, the rest of the dirty part waits for the next pass.
//! Source: Kafka 3.9 `LogCleaner`, `Cleaner`; KIP-534 for the delete horizon.
//!
//! [`PartitionLog::on_compacted`]: crate::log::partition_log::PartitionLog::on_compacted

mod clean;
mod keys;
mod plan;
#[cfg(test)]
mod tests;

use std::ops::ControlFlow;

use bytes::Bytes;

use self::clean::{TransactionsMet, Verdict};
use self::keys::KeyMap;
pub(in crate::log) use self::plan::Candidate;
pub(crate) use self::plan::{Compacted, CompactionPlan};
use crate::log::reading::read::LogReader;
use crate::record::{BatchHeader, for_each_record};
use crate::storage::{StorageError, Write};
use crate::types::Offset;
use crate::types::limits::DECOMPRESSED_BATCH_BYTES_MAX;

/// One step of a job: about [`COMPACTION_STEP_BYTES`] read, or written where that is more.
///
/// [`COMPACTION_STEP_BYTES`]: crate::types::limits::COMPACTION_STEP_BYTES
#[derive(Debug)]
pub(crate) struct Step {
    /// To be passed through `PartitionLog::admit_compacted` and committed as one set; may be empty.
    pub(crate) writes: Vec<Write>,
}

/// Runs a job to its end, or until `step` breaks (`None`). Blocks on the disk.
pub(crate) fn run(
    plan: &CompactionPlan,
    reader: &LogReader,
    step: &mut dyn FnMut(Step) -> ControlFlow<()>,
) -> Result<Option<Compacted>, StorageError> {
    let Some((keys, up_to)) = latest_offsets(plan, reader, step)? else { return Ok(None) };
    let mut done = Compacted { up_to, delete_horizon_ms: i64::MAX, ..Compacted::default() };
    let mut transactions = TransactionsMet::default();
    let mut next = plan.log_start;
    while next < up_to {
        let mut read_bytes = 0;
        let mut writes = Vec::new();
        let mut written_bytes = 0;
        let from = next;
        next = up_to;
        reader.visit_headers(from, up_to, |last_offset, header, batch| {
            if read_bytes.max(written_bytes) >= plan.step_bytes {
                next = last_offset;
                return ControlFlow::Break(());
            }
            read_bytes += batch.len();
            let before = writes.len();
            let unneeded = transactions.meet(header, batch);
            clean_one(plan, &keys, (last_offset, header, batch), unneeded, &mut done, reader, &mut writes);
            written_bytes += writes[before..].iter().map(Write::batch_bytes).sum::<usize>();
            ControlFlow::Continue(())
        })?;
        if step(Step { writes }).is_break() {
            return Ok(None);
        }
    }
    Ok(Some(done))
}

/// Decides one batch and pushes what follows.
fn clean_one(
    plan: &CompactionPlan,
    keys: &KeyMap,
    (last_offset, header, batch): (Offset, &BatchHeader, &[u8]),
    unneeded: bool,
    done: &mut Compacted,
    reader: &LogReader,
    writes: &mut Vec<Write>,
) {
    let family = reader.shared.family;
    // I-26
    let last = plan.producers_last_offsets.contains(&last_offset) || last_offset + 1 == done.up_to;
    let (left_bytes, horizon) = match clean::clean(header, batch, keys, plan, unneeded, last) {
        Verdict::Keep { horizon } => (batch.len(), horizon),
        Verdict::Replace { batch, horizon } => {
            let bytes = batch.len();
            writes.push(Write::Batch { family, last_offset, batch: Bytes::from(batch), sum: None, in_order: false });
            (bytes, horizon)
        }
        Verdict::Drop => {
            writes.push(Write::DeleteBatch { family, last_offset });
            (0, None)
        }
    };
    done.delete_horizon_ms = done.delete_horizon_ms.min(horizon.unwrap_or(i64::MAX));
    let segment = done.segments.entry(plan.segment_of(last_offset)).or_default();
    segment.left_bytes += left_bytes as u64;
    segment.removed_bytes += batch.len() as i64 - left_bytes as i64;
}

/// The latest offset of each key in the dirty part, and how far the map reaches. `None`: the caller broke off.
fn latest_offsets(
    plan: &CompactionPlan,
    reader: &LogReader,
    step: &mut dyn FnMut(Step) -> ControlFlow<()>,
) -> Result<Option<(KeyMap, Offset)>, StorageError> {
    let mut keys = KeyMap::new(plan.seed);
    let mut next = plan.first_dirty;
    while next < plan.up_to && keys.len() < plan.keys_max {
        let (mut read_bytes, mut bad) = (0, None);
        let from = next;
        next = plan.up_to;
        reader.visit_headers(from, plan.up_to, |_, header, batch| {
            if read_bytes >= plan.step_bytes || keys.len() >= plan.keys_max {
                next = header.base_offset;
                return ControlFlow::Break(());
            }
            read_bytes += batch.len();
            if !header.is_control() && !plan.is_aborted(header) {
                let walked = for_each_record(batch, DECOMPRESSED_BATCH_BYTES_MAX, |record| {
                    if let Some(key) = record.key {
                        keys.insert(key, record.offset);
                    }
                    ControlFlow::Continue(())
                });
                // The job ends: older values must not go for the sake of records that cannot be read.
                bad = walked.err();
            }
            if bad.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if let Some(error) = bad {
            return Err(reader.damaged(error));
        }
        if step(Step { writes: Vec::new() }).is_break() {
            return Ok(None);
        }
    }
    Ok(Some((keys, next)))
}
