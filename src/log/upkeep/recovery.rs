//! Opening a log: side records, then the headers of the few batches behind the last checkpoint. Also cutting its end.
//!
//! Side records speak of what was written before the last checkpoint or a little more, and a kill may leave batches
//! without theirs. A loss of power may cut either shorter than the other:
//! - batches longer: their headers are read and applied, as after a kill;
//! - side records longer: everything that speaks of offsets beyond the last batch is dropped, the active segment is
//!   read again from its start, and the corrections go with the next write set. The log then says that it has lost its
//!   end ([`Recovered::end_lost`]).
//!
//! Transactions follow their batches either way: data opens them, markers end them, and the index of aborted ones gains
//! what is missing and loses what is too much.
//!
//! A log ends with a batch (I-26): where none is left below the end, though the log start has not passed it, a batch
//! without records takes the last offset. Otherwise no fetch would ever bring a reader to the end; and taking the end
//! back would give offsets twice. That is so in logs which earlier versions compacted, and where a log is cut inside of
//! a gap. The same holds for the first offset of an open transaction, where readers of committed records stop.
//!
//! Costs four seeks and the headers of 64 KiB of batches, or of a few large ones, so a thousand logs open in well under
//! a second.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use crate::clock::UnixMs;
use crate::log::reading::read::LogReader;
use crate::log::side::{SideRecord, decode_snapshot};
use crate::log::state::log_state::{Cutting, LogState, Sides};
use crate::record::BatchHeader;
use crate::record::control::read_marker;
use crate::storage::{StorageError, Write};
use crate::types::{Offset, ProducerId};

/// What opening found.
#[derive(Debug)]
pub(in crate::log) struct Recovered {
    pub(in crate::log) state: LogState,
    /// What is wrong in side records; to be written before anything else.
    pub(in crate::log) repairs: Vec<Write>,
    /// The log was longer once.
    pub(in crate::log) end_lost: bool,
    /// It ended here, if that is beyond its end.
    pub(in crate::log) recorded_end: Option<Offset>,
}

/// Restores what is known of a log that the directory holds. Blocks on the disk. Writes nothing.
pub(in crate::log) fn recover(reader: &LogReader, now: UnixMs) -> Result<Recovered, StorageError> {
    let (shared, sides) = (&reader.shared, read_sides(reader)?);
    let last = shared.dir.last_batch(shared.family)?.map_or(Offset::NONE, |(last_offset, _)| last_offset);
    let mut state = LogState::restore(shared.keys, shared.family, Arc::clone(&shared.aborted), sides, last, now);
    let (log_end, recorded_end) = (state.log_end(), state.segments().active().end_offset);
    let mut repairs = Vec::new();
    // A term that begins at the end, without a batch, is nothing odd.
    let term_lost = state.cut_epochs(log_end + 1, &mut repairs);
    let end_lost = recorded_end > log_end || term_lost;
    state.cut_aborted(&mut repairs);
    state.cut_high_watermark(&mut repairs);
    if recorded_end > log_end {
        cut(reader, &mut state, log_end, now, &mut repairs)?;
    } else {
        replay_headers(reader, &mut state, (recorded_end, log_end), None, now, &mut repairs)?;
        let gaps_up_to = state.cleaned().up_to;
        cover_ends(reader, &mut state, last + 1 < log_end, gaps_up_to, now, &mut repairs)?;
    }
    let recorded_end = (recorded_end > log_end).then_some(recorded_end);
    Ok(Recovered { state, repairs, end_lost, recorded_end })
}

/// Where a log ends that loses every batch which contains or follows `to`, and nothing below `log_start`. Blocks on
/// the disk.
pub(in crate::log) fn end_of_cut(reader: &LogReader, to: Offset, log_start: Offset) -> Result<Offset, StorageError> {
    let mut new_end = to;
    reader.shared.dir.scan(reader.shared.family, to, 0, &mut |_, batch| {
        if let Ok(header) = BatchHeader::parse(&batch) {
            new_end = to.min(header.base_offset).max(log_start);
        }
        ControlFlow::Break(())
    })?;
    Ok(new_end)
}

/// Drops what is known of offsets at or above `log_end`, reads the segment that is cut again from its start, and lets
/// batches end where readers stop. Blocks on the disk.
pub(in crate::log) fn cut(
    reader: &LogReader,
    state: &mut LogState,
    log_end: Offset,
    now: UnixMs,
    writes: &mut Vec<Write>,
) -> Result<(), StorageError> {
    let Cutting { base, lost } = state.begin_cut(log_end, now, writes);
    let known_up_to = restore_producers(reader, state, log_end, &lost)?;
    let lost_from = Some((&lost, known_up_to));
    replay_producers(reader, state, (known_up_to, base), &lost, now, writes)?;
    replay_headers(reader, state, (base, log_end), lost_from, now, writes)?;
    state.end_cut(base, lost, writes);
    cover_ends(reader, state, true, log_end, now, writes)
}

/// Sees to it that a batch ends wherever readers are told to stop (I-26): at the log end, if `log_end_too`, and
/// where undecided transactions begin, up to `gaps_up_to`.
fn cover_ends(
    reader: &LogReader,
    state: &mut LogState,
    log_end_too: bool,
    gaps_up_to: Offset,
    now: UnixMs,
    writes: &mut Vec<Write>,
) -> Result<(), StorageError> {
    let mut ends = state.producers().undecided_up_to(gaps_up_to);
    ends.extend(log_end_too.then_some(state.log_end()));
    ends.retain(|&end| end > state.log_start());
    for last_offset in ends.into_iter().map(|end| end + -1) {
        if !holds_end(reader, last_offset)? {
            state.put_empty(last_offset, now, writes);
        }
    }
    Ok(())
}

/// Whether storage has a batch that ends with this offset.
fn holds_end(reader: &LogReader, offset: Offset) -> Result<bool, StorageError> {
    let mut found = false;
    reader.shared.dir.scan(reader.shared.family, offset, 0, &mut |last_offset, _| {
        found = last_offset == offset;
        ControlFlow::Break(())
    })?;
    Ok(found)
}

/// Takes over what the latest snapshot below the end says of these producers. Answers up to where it knows their
/// batches: the log start where there is none, as in logs of earlier versions, so all of such a log is to be read.
fn restore_producers(
    reader: &LogReader,
    state: &mut LogState,
    log_end: Offset,
    lost: &HashSet<ProducerId>,
) -> Result<Offset, StorageError> {
    if lost.is_empty() {
        return Ok(log_end);
    }
    let mut latest = None;
    reader.shared.dir.scan_sides(reader.shared.keys.snapshots_below(log_end + 1), &mut |key, value| {
        latest = Some((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })?;
    let Some((key, value)) = latest else { return Ok(state.log_start()) };
    let snapshot = decode_snapshot(&key, &value).map_err(|error| reader.damaged(error))?;
    state.put_back_producers(snapshot.producers, lost);
    Ok(snapshot.log_end.max(state.log_start()))
}

/// Reads what lies in `from..upto` again for producers that lost something.
fn replay_producers(
    reader: &LogReader,
    state: &mut LogState,
    (from, upto): (Offset, Offset),
    lost: &HashSet<ProducerId>,
    now: UnixMs,
    writes: &mut Vec<Write>,
) -> Result<(), StorageError> {
    if lost.is_empty() || from >= upto {
        return Ok(());
    }
    let mut bad = None;
    reader.visit_headers(from, upto, |last_offset, header, batch| {
        if lost.contains(&header.producer_id) {
            bad = replay_producer(reader, state, (last_offset, header, batch), now, writes).err();
        }
        if bad.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    bad.map_or(Ok(()), Err)
}

/// Replays what a batch says about its producer.
fn replay_producer(
    reader: &LogReader,
    state: &mut LogState,
    (last_offset, header, batch): (Offset, &BatchHeader, &[u8]),
    now: UnixMs,
    writes: &mut Vec<Write>,
) -> Result<(), StorageError> {
    let marker =
        if header.is_control() { read_marker(header, batch).map_err(|error| reader.damaged(error))? } else { None };
    state.replay_producer(last_offset, header, marker.as_ref(), now, writes);
    Ok(())
}

/// Replays the headers of the batches that lie in `from..upto`. After a cut: of the producers only those that lost
/// something, from where on that is not known.
fn replay_headers(
    reader: &LogReader,
    state: &mut LogState,
    (from, upto): (Offset, Offset),
    lost: Option<(&HashSet<ProducerId>, Offset)>,
    now: UnixMs,
    writes: &mut Vec<Write>,
) -> Result<(), StorageError> {
    if from >= upto {
        return Ok(());
    }
    let mut bad = None;
    reader.visit_headers(from, upto, |last_offset, header, batch| {
        state.replay(last_offset, header, batch.len() as u64, now, writes);
        let wanted =
            |(lost, from): (&HashSet<ProducerId>, Offset)| from <= last_offset && lost.contains(&header.producer_id);
        if lost.is_none_or(wanted) {
            bad = replay_producer(reader, state, (last_offset, header, batch), now, writes).err();
        }
        if bad.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    bad.map_or(Ok(()), Err)
}

fn read_sides(reader: &LogReader) -> Result<Sides, StorageError> {
    let mut sides = Sides::default();
    let keys = reader.shared.keys;
    for range in [keys.facts_and_epochs(), keys.producers_and_segments()] {
        let mut bad = None;
        reader.shared.dir.scan_sides(range, &mut |key, value| match SideRecord::decode(key, value) {
            Ok(record) => {
                sides.add(record);
                ControlFlow::Continue(())
            }
            Err(error) => {
                bad = Some(error);
                ControlFlow::Break(())
            }
        })?;
        if let Some(error) = bad {
            return Err(reader.damaged(error));
        }
    }
    Ok(sides)
}
