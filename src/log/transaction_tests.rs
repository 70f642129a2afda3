//! Transactions in a log over the directory's twin in memory: Kafka's rules one by one, then against a naive model
//! across restarts, cuts and moves of the log start.

use std::collections::BTreeMap;

use crate::clock::Clock;
use crate::clock::testing::ManualClock;
use crate::log::config::LogConfig;
use crate::log::partition_log::{AppendError, Appended};
use crate::log::testing::{Bench, batch, from_producer};
use crate::record::{BatchBuilder, ValidBatch};
use crate::storage::{LogDir, Write};
use crate::types::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId, TransactionGuard, TransactionMarker, TransactionResult,
};

use TransactionResult::{Abort, Commit};

/// As a client sends it within a transaction; sequence −1: as a coordinator writes it.
pub(super) fn transactional(id: i64, epoch: i16, sequence: i32, records: &[(&str, &str)]) -> ValidBatch {
    let mut builder = BatchBuilder::new().producer(ProducerId(id), ProducerEpoch(epoch), sequence).transactional();
    for (key, value) in records {
        builder.append(0, Some(key.as_bytes()), Some(value.as_bytes()));
    }
    builder.finish()
}

fn one(id: i64, epoch: i16, sequence: i32) -> ValidBatch {
    transactional(id, epoch, sequence, &[("k", "v")])
}

impl Bench {
    pub(super) fn append_guarded(
        &mut self,
        batch: ValidBatch,
        guard: Option<TransactionGuard>,
    ) -> Result<Appended, AppendError> {
        let mut writes = Vec::new();
        let appended = self.log.append(batch, LeaderEpoch(3), 0, guard, &mut writes)?;
        self.commit(writes);
        self.log.on_written(appended.last_offset);
        Ok(appended)
    }

    /// Appends with a verification, if one is needed.
    pub(super) fn append_verified(&mut self, batch: ValidBatch) -> Result<Appended, AppendError> {
        let guard = self.log.begin_verification(batch.header.producer_id, batch.header.producer_epoch);
        self.append_guarded(batch, guard)
    }

    pub(super) fn end(
        &mut self,
        id: i64,
        epoch: i16,
        coordinator_epoch: i32,
        result: TransactionResult,
    ) -> Result<Appended, AppendError> {
        let (producer_id, producer_epoch) = (ProducerId(id), ProducerEpoch(epoch));
        let marker = TransactionMarker { producer_id, producer_epoch, coordinator_epoch, result };
        let mut writes = Vec::new();
        let appended = self.log.append_marker(&marker, LeaderEpoch(3), 0, &mut writes)?;
        self.commit(writes);
        self.log.on_written(appended.last_offset);
        Ok(appended)
    }

    fn stable(&mut self) -> i64 {
        let end = self.log.written_end_offset();
        self.log.last_stable_offset(end).0
    }
}

fn bench() -> Bench {
    Bench::new(LogConfig::default(), 0)
}

#[test]
fn the_first_batch_needs_a_guard_and_the_others_join() {
    let mut bench = bench();
    assert!(matches!(bench.append_guarded(one(1, 0, 0), None), Err(AppendError::InvalidTxnState { .. })));
    let other = bench.log.begin_verification(ProducerId(2), ProducerEpoch(0));
    assert!(matches!(bench.append_guarded(one(1, 0, 0), other), Err(AppendError::InvalidTxnState { .. })));
    let guard = bench.log.begin_verification(ProducerId(1), ProducerEpoch(0));
    assert_eq!(bench.log.begin_verification(ProducerId(1), ProducerEpoch(0)), guard);
    assert_eq!(bench.append_guarded(one(1, 0, 0), guard).expect("verified").base_offset, Offset(0));
    assert_eq!(bench.log.begin_verification(ProducerId(1), ProducerEpoch(0)), None, "it is open");
    bench.append_guarded(one(1, 0, 1), None).expect("joins");
    assert!(bench.append_guarded(one(1, 0, 1), None).expect("a duplicate").duplicate);
    let newer = bench.append_guarded(one(1, 1, 0), None);
    assert!(matches!(newer, Err(AppendError::InvalidTxnState { .. })), "another epoch verifies anew");
    assert_eq!(bench.stable(), 0);
    bench.end(1, 0, 5, Commit).expect("ends");
    assert_eq!(bench.stable(), 3);
    assert!(matches!(bench.append_guarded(one(1, 0, 2), guard), Err(AppendError::InvalidTxnState { .. })));
    bench.append_verified(one(1, 0, 2)).expect("sequences go on over transactions of one epoch");
}

#[test]
fn a_marker_withdraws_the_guard_of_a_verification_under_way() {
    let mut bench = bench();
    let guard = bench.log.begin_verification(ProducerId(1), ProducerEpoch(0));
    bench.end(1, 0, 5, Abort).expect("though nothing is open");
    assert!(matches!(bench.append_guarded(one(1, 0, 0), guard), Err(AppendError::InvalidTxnState { .. })));
    assert!(bench.log.reader().aborted_transactions(Offset(0), Offset(9)).is_some_and(|all| all.is_empty()));
    assert_eq!(bench.stable(), 1);
}

#[test]
fn batches_outside_of_the_open_transaction_are_refused() {
    let mut bench = bench();
    bench.append_verified(one(1, 0, 0)).expect("verified");
    let refused = bench.append(from_producer(1, 0, 1, 1), 0).expect_err("not transactional");
    assert_eq!(refused.to_string(), "Expected transactional write from producer 1 at offset 1");
    bench.append(from_producer(2, 0, 0, 1), 0).expect("another producer");
    bench.append(batch(&[(0, "a", None)]), 0).expect("no producer");
    bench.end(1, 0, 0, Commit).expect("ends");
    bench.append(from_producer(1, 0, 1, 1), 0).expect("nothing is open");
}

#[test]
fn markers_of_old_coordinators_and_epochs_are_refused_and_a_newer_epoch_begins_anew() {
    let mut bench = bench();
    bench.append_verified(one(1, 3, 0)).expect("verified");
    assert!(matches!(bench.end(1, 2, 7, Abort), Err(AppendError::InvalidProducerEpoch { .. })));
    assert_eq!(bench.stable(), 0);
    bench.end(1, 4, 7, Abort).expect("the epoch of who fences it");
    assert!(matches!(bench.end(1, 4, 6, Abort), Err(AppendError::TransactionCoordinatorFenced { got: 6, .. })));
    bench.end(1, 4, 7, Abort).expect("the same coordinator again");
    assert!(matches!(bench.append_verified(one(1, 3, 1)), Err(AppendError::InvalidProducerEpoch { .. })));
    let gap = bench.append_verified(one(1, 4, 1));
    assert!(matches!(gap, Err(AppendError::OutOfOrderSequence { .. })), "its batches are forgotten");
    bench.append_verified(one(1, 4, 0)).expect("begins anew");
}

#[test]
fn what_a_coordinator_writes_has_no_sequence() {
    let mut bench = bench();
    for offset in 0..8 {
        let appended = bench.append_verified(one(1, 0, -1)).expect("no sequence is checked");
        assert_eq!((appended.duplicate, appended.base_offset), (false, Offset(offset)));
    }
    bench.end(1, 1, 0, Commit).expect("ends");
    assert!(matches!(bench.append_verified(one(1, 0, -1)), Err(AppendError::InvalidProducerEpoch { .. })));
}

#[test]
fn an_open_transaction_keeps_its_producer() {
    let mut bench = Bench::new(LogConfig { producer_id_expiration_ms: 10, ..LogConfig::default() }, 0);
    bench.append_verified(one(1, 0, 0)).expect("verified");
    bench.change(|log, writes| log.expire_producers(1000, writes));
    assert_eq!(bench.stable(), 0);
    bench.end(1, 0, 0, Commit).expect("ends");
    bench.change(|log, writes| log.expire_producers(1000, writes));
    assert_eq!(bench.log.active_producers().count(), 0);
}

#[test]
fn the_log_start_moves_the_last_stable_offset_and_forgets_what_was_aborted_below() {
    let mut bench = bench();
    bench.append_verified(one(1, 0, 0)).expect("verified");
    bench.append_verified(one(2, 0, 0)).expect("verified");
    bench.end(1, 0, 0, Abort).expect("ends");
    let aborted = |bench: &Bench, from| bench.log.reader().aborted_transactions(Offset(from), Offset(9));
    assert_eq!(aborted(&bench, 0).map(|found| found.len()), Some(1));
    bench.change(|log, writes| log.advance_log_start(Offset(3), writes));
    assert_eq!(bench.log.last_stable_offset(Offset(3)), Offset(3), "the log start");
    assert_eq!((aborted(&bench, 2), aborted(&bench, 3)), (None, Some(Vec::new())));
    bench = bench.reopen();
    assert_eq!(aborted(&bench, 0), Some(Vec::new()));
    bench.append(batch(&[(0, "a", None)]), 0).expect("no producer");
    assert_eq!(bench.stable(), 3, "the transaction is still open");
    bench.end(2, 0, 0, Commit).expect("ends");
    assert_eq!(bench.stable(), 5);
}

#[test]
fn lost_side_records_of_what_was_aborted_are_written_again() {
    let mut bench = bench();
    bench.append_verified(one(1, 0, 0)).expect("verified");
    bench.append_verified(one(2, 0, 0)).expect("verified");
    bench.end(1, 0, 0, Abort).expect("ends");
    let before = bench.log.reader().aborted_transactions(Offset(0), Offset(9));
    let keys = bench.log.reader().shared.keys;
    bench.commit(vec![Write::DeleteSides { keys: keys.aborted_from(Offset(0)) }]);
    bench = bench.reopen();
    assert_eq!(bench.log.reader().aborted_transactions(Offset(0), Offset(9)), before);
    bench.append(batch(&[(0, "a", None)]), 0).expect("carries the repair");
    let stored = bench.dir.side(&keys.aborted(Offset(2), ProducerId(1))).expect("readable");
    assert_eq!(stored.as_deref(), Some(&[&[1u8][..], &0i64.to_be_bytes(), &1i64.to_be_bytes()].concat()[..]));
}

/// Producer id, first offset, last offset.
type Aborted = (i64, i64, i64);
/// Epoch, coordinator epoch, first offset of the open transaction, last sequence.
type Known = (i16, i32, Option<i64>, i32);

#[derive(Debug, Clone, Copy)]
enum Event {
    Plain,
    Data { id: i64, epoch: i16, last_sequence: i32 },
    Marker { id: i64, epoch: i16, coordinator_epoch: i32, result: TransactionResult },
}

/// Every batch there ever was, with its first and its last offset; whatever is asked is found by going through them.
#[derive(Debug, Default)]
struct Model {
    batches: Vec<(i64, i64, Event)>,
    log_start: i64,
}

impl Model {
    fn known(&self) -> BTreeMap<i64, Known> {
        let mut known: BTreeMap<i64, Known> = BTreeMap::new();
        for &(base, _, event) in &self.batches {
            let (Event::Data { id, epoch, .. } | Event::Marker { id, epoch, .. }) = event else { continue };
            let entry = known.entry(id).or_insert((epoch, -1, None, -1));
            if entry.0 != epoch {
                (entry.0, entry.3) = (epoch, -1);
            }
            match event {
                Event::Data { last_sequence, .. } => {
                    (entry.2, entry.3) = (entry.2.or(Some(base)), last_sequence);
                }
                Event::Marker { coordinator_epoch, .. } => (entry.1, entry.2) = (coordinator_epoch, None),
                Event::Plain => {}
            }
        }
        known
    }

    fn stable(&self, high_watermark: i64) -> i64 {
        let undecided = self.batches.iter().enumerate().filter(|&(at, &(.., event))| {
            let Event::Data { id, .. } = event else { return false };
            !self.batches[at..].iter().any(|&(base, _, event)| {
                base < high_watermark && matches!(event, Event::Marker { id: ended, .. } if ended == id)
            })
        });
        let first = undecided.map(|(_, batch)| batch.0).min().unwrap_or(i64::MAX);
        // A transaction that is decided below may have a batch that is not: all of it lies behind its first offset.
        first.max(self.log_start).min(high_watermark)
    }

    fn aborted(&self) -> Vec<Aborted> {
        let mut found = Vec::new();
        let mut open: BTreeMap<i64, i64> = BTreeMap::new();
        for &(base, _, event) in &self.batches {
            match event {
                Event::Plain => {}
                Event::Data { id, .. } => drop(open.entry(id).or_insert(base)),
                Event::Marker { id, result, .. } => {
                    if let Some(first) = open.remove(&id)
                        && result == Abort
                        && base >= self.log_start
                    {
                        found.push((id, first, base));
                    }
                }
            }
        }
        found
    }
}

fn known(bench: &Bench) -> BTreeMap<i64, Known> {
    let producers = bench.log.active_producers();
    producers
        .map(|producer| {
            let open = producer.open_transaction.map(|offset| offset.0);
            (producer.id.0, (producer.epoch.0, producer.coordinator_epoch, open, producer.last_sequence))
        })
        .collect()
}

/// Sixteen bits of a die.
fn part(dice: u128, from: u32) -> i64 {
    i64::from((dice >> from) as u16)
}

/// A bench beside its model.
struct Pair {
    bench: Bench,
    model: Model,
    high_watermark: i64,
}

impl Pair {
    fn end_of_log(&self) -> i64 {
        self.bench.log.log_end_offset().0
    }

    fn append(&mut self, dice: u128) {
        let id = part(dice, 16) % 4;
        let (epoch, coordinator_epoch, open, last_sequence) =
            self.model.known().get(&id).copied().unwrap_or((0, -1, None, -1));
        let bump = i16::from((dice >> 24).is_multiple_of(8));
        match (dice >> 32) % 8 {
            0 => {
                let appended = self.bench.append(batch(&[(0, "plain", Some("x"))]), 0).expect("accepted");
                self.note(appended, Event::Plain);
            }
            1 | 2 if open.is_some() || (dice >> 40).is_multiple_of(4) => {
                let result = if (dice >> 48).is_multiple_of(2) { Abort } else { Commit };
                let coordinator_epoch = coordinator_epoch.max(0) + i32::from(bump);
                let appended = self.bench.end(id, epoch + bump, coordinator_epoch, result).expect("accepted");
                self.note(appended, Event::Marker { id, epoch: epoch + bump, coordinator_epoch, result });
            }
            _ => {
                let epoch = epoch + bump;
                // A client or a coordinator, never both.
                let first = if id == 3 {
                    -1
                } else if bump > 0 {
                    0
                } else {
                    last_sequence + 1
                };
                let records = vec![("k", "v"); 1 + (dice >> 56) as usize % 3];
                let appended = self.bench.append_verified(transactional(id, epoch, first, &records)).expect("accepted");
                let last_sequence = if first < 0 { -1 } else { first + records.len() as i32 - 1 };
                self.note(appended, Event::Data { id, epoch, last_sequence });
            }
        }
    }

    fn note(&mut self, appended: Appended, event: Event) {
        assert!(!appended.duplicate);
        self.model.batches.push((appended.base_offset.0, appended.last_offset.0, event));
    }

    fn reopen(self) -> Self {
        let bench = self.bench.reopen();
        let high_watermark = bench.log.log_end_offset().0;
        Self { bench, high_watermark, ..self }
    }

    fn check(&mut self, dice: u128, what: &str) {
        let stable = self.bench.log.last_stable_offset(Offset(self.high_watermark)).0;
        assert_eq!(stable, self.model.stable(self.high_watermark), "{what}");
        assert_eq!(known(&self.bench), self.model.known(), "{what}");
        let reader = self.bench.log.reader();
        let mut expected = self.model.aborted();
        let index = reader.shared.aborted.lock();
        let listed: Vec<Aborted> =
            index.iter().map(|one| (one.producer_id.0, one.first_offset.0, one.last_offset.0)).collect();
        drop(index);
        assert_eq!(listed, expected, "{what}");
        let from = self.model.log_start + part(dice, 64) % (self.end_of_log() - self.model.log_start + 1);
        let upto = from + part(dice, 80) % 30;
        expected.retain(|&(_, first, last)| first < upto && last >= from);
        expected.sort_by_key(|&(_, first, _)| first);
        let found = reader.aborted_transactions(Offset(from), Offset(upto)).expect("not deleted");
        let found: Vec<Aborted> =
            found.iter().map(|one| (one.producer_id.0, one.first_offset.0, one.last_offset.0)).collect();
        assert_eq!(found, expected, "{what}, {from}..{upto}");
    }
}

/// `disturb` is asked now and then.
fn run(seeds: std::ops::Range<u64>, mut disturb: impl FnMut(Pair, u128) -> Pair) {
    for seed in seeds {
        let clock = ManualClock::new(0, seed);
        let config = LogConfig { segment_bytes: 2500, ..LogConfig::default() };
        let mut pair = Pair { bench: Bench::new(config, 1000), model: Model::default(), high_watermark: 0 };
        for step in 0..300 {
            let dice = clock.random();
            let what = format!("seed {seed}, step {step}");
            match dice % 16 {
                0 | 1 => {
                    pair = pair.reopen();
                    pair.check(dice, &what);
                }
                2 => pair.bench.change(|log, writes| log.checkpoint(writes)),
                3 => pair = disturb(pair, dice),
                _ => pair.append(dice),
            }
            let behind = pair.end_of_log() - pair.high_watermark;
            pair.high_watermark += part(dice, 96) % (behind + 1);
            pair.check(dice, &what);
            pair.bench.check_reaches(pair.bench.log.written_end_offset(), &what);
        }
        assert!(pair.model.aborted().len() > 2 || pair.model.log_start > 0);
    }
}

#[test]
fn agrees_with_a_naive_model_after_kills_and_while_the_log_start_moves() {
    run(1..12, |mut pair, dice| {
        let to = pair.model.log_start + part(dice, 16) % (pair.high_watermark - pair.model.log_start + 1).max(1);
        pair.bench.change(|log, writes| log.advance_log_start(Offset(to), writes));
        pair.model.log_start = to;
        pair
    });
}

#[test]
fn agrees_with_a_naive_model_after_cuts() {
    run(20..32, |mut pair, dice| {
        let to = Offset(pair.high_watermark + part(dice, 16) % (pair.end_of_log() - pair.high_watermark + 1));
        pair.bench.change(|log, writes| log.truncate_to(to, 0, writes)).expect("readable");
        let end = pair.end_of_log();
        pair.model.batches.retain(|&(_, last, _)| last < end);
        pair.high_watermark = pair.high_watermark.min(end);
        pair
    });
}

#[test]
fn agrees_with_a_naive_model_after_batches_were_lost() {
    run(40..52, |mut pair, dice| {
        let lost = (dice >> 16) as usize % 20;
        let kept = pair.model.batches.len().saturating_sub(lost);
        pair.model.batches.truncate(kept);
        let end = pair.model.batches.last().map_or(0, |batch| batch.1 + 1);
        let family = pair.bench.log.reader().shared.family;
        pair.bench.commit(vec![Write::DeleteBatches { family, last_offsets: Offset(end)..Offset::MAX }]);
        let pair = pair.reopen();
        assert_eq!(pair.end_of_log(), end);
        pair
    });
}
