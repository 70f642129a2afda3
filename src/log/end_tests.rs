//! Every way in which a log may end, over the directory's twin in memory: whoever reads on comes to the end, from
//! wherever it stands, in both isolation levels, before and after a restart (I-26).

use crate::clock::testing::ManualClock;
use crate::clock::{Clock, UnixMs};
use crate::log::config::LogConfig;
use crate::log::testing::{Bench, batch, from_producer};
use crate::log::transaction_tests::transactional;
use crate::record::{BatchBuilder, BatchHeader};
use crate::storage::{LogDir, Write};
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TransactionResult};

const ALL: usize = usize::MAX;
/// Behind every delete horizon of these tests.
const LATER: UnixMs = 100_000;

fn config() -> LogConfig {
    LogConfig {
        compact: true,
        delete: false,
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: 100,
        ..config_of(1000)
    }
}

fn config_of(segment_bytes: u64) -> LogConfig {
    LogConfig { segment_bytes, ..LogConfig::default() }
}

impl Bench {
    /// Where a consumer comes that stands at `from`, is shown nothing beyond `upto`, and takes a batch at a time.
    fn reads_on(&self, from: Offset, upto: Offset) -> Offset {
        let reader = self.log.reader();
        let mut at = from;
        while at < upto {
            let read = reader.read(at, upto, 1, true).expect("readable");
            if read.batches.is_empty() {
                break;
            }
            assert!(read.end > at, "a fetch goes forward");
            at = read.end;
        }
        at
    }

    /// Consumers of all and of committed records, from some offsets, come to the end that they are told.
    pub(super) fn check_end(&mut self, what: &str) {
        let end = self.log.written_end_offset();
        let stable = self.log.last_stable_offset(end);
        self.check_reaches(end, what);
        self.check_reaches(stable, what);
    }

    /// Consumers that are shown nothing beyond `upto` come there.
    pub(super) fn check_reaches(&self, upto: Offset, what: &str) {
        let start = self.log.log_start_offset();
        let half = Offset(start.0 + (upto - start) / 2);
        for from in [start, half, half + 1, upto + -2, upto + -1] {
            if (start..upto).contains(&from) {
                let reached = self.reads_on(from, upto);
                assert_eq!(reached, upto, "{what}, from {from}: {:?}", self.shape());
            }
        }
    }

    /// Offsets and numbers of records of all batches.
    fn shape(&self) -> Vec<(i64, i64, i32)> {
        let read = self.log.reader().read_storage(Offset(0), Offset::MAX, ALL, true).expect("readable");
        let headers = read.batches.iter().map(|batch| BatchHeader::parse(batch).expect("a batch"));
        headers.map(|header| (header.base_offset.0, header.last_offset().0, header.record_count)).collect()
    }

    /// Rest: everything is closed and cleaned until nothing more goes.
    fn rest(&mut self) {
        for now in [1000, LATER, 2 * LATER] {
            self.change(|log, writes| log.roll_if_old(i64::MAX, writes));
            while self.compact_stable(now) {}
            self.check_end("resting");
        }
    }

    /// The end is where it was, can be reached, and the next batch follows it; also after a restart.
    fn ends_at(mut self, end: i64) {
        for round in 0..3 {
            assert_eq!(self.log.log_end_offset(), Offset(end), "restart {round}");
            self.check_end(&format!("restart {round}"));
            self = self.reopen();
            self.change(|log, writes| log.assign_epoch(LeaderEpoch(3), writes));
        }
        let next = self.append(batch(&[(0, "next", Some("x"))]), 0).expect("accepted");
        assert_eq!(next.base_offset, Offset(end), "no offset is given twice");
        self.check_end("went on");
        self.reopen().check_end("after all");
    }
}

fn keyed(id: i64, sequence: i32, records: &[(&str, Option<&str>)]) -> crate::record::ValidBatch {
    let mut builder = BatchBuilder::new();
    if id >= 0 {
        builder = builder.producer(ProducerId(id), ProducerEpoch(0), sequence);
    }
    for (key, value) in records {
        builder.append(0, Some(key.as_bytes()), value.map(str::as_bytes));
    }
    builder.finish()
}

/// Everything that a test wrote is deleted again by the last batches: 0 to 4.
fn deletes_all(id: i64) -> Bench {
    let mut bench = Bench::new(config(), 1 << 20);
    bench.append(keyed(id, 0, &[("a", Some("1")), ("b", Some("1"))]), 0).expect("accepted");
    bench.roll(0);
    bench.append(keyed(id, 2, &[("c", Some("1")), ("b", None)]), 0).expect("accepted");
    bench.append(keyed(id, 4, &[("c", None)]), 0).expect("accepted");
    bench
}

#[test]
fn tombstones_that_expired() {
    let mut bench = deletes_all(-1);
    bench.rest();
    assert_eq!(bench.shape(), [(0, 1, 1), (4, 4, 0)], "the last batch is there without records");
    bench.ends_at(5);
}

#[test]
fn tombstones_of_a_producer_that_is_known_and_of_one_that_is_not() {
    for expired in [false, true] {
        let mut bench = deletes_all(7);
        if expired {
            bench.change(|log, writes| log.expire_producers(i64::MAX, writes));
        }
        bench.rest();
        assert_eq!(bench.shape(), [(0, 1, 1), (4, 4, 0)]);
        bench.ends_at(5);
    }
}

#[test]
fn an_emptied_batch_that_is_no_longer_the_last_one_goes() {
    let mut bench = deletes_all(-1);
    bench.rest();
    bench.append(batch(&[(0, "d", Some("1"))]), 0).expect("accepted");
    assert_eq!(bench.shape(), [(0, 1, 1), (4, 4, 0), (5, 5, 1)]);
    bench.rest();
    assert_eq!(bench.shape(), [(0, 1, 1), (5, 5, 1)]);
    let size = bench.log.size_bytes();
    let read = bench.log.reader().read(Offset(0), Offset(6), ALL, true).expect("readable");
    assert_eq!(size, read.bytes as u64);
    bench.ends_at(6);
}

#[test]
fn records_without_a_key() {
    let mut bench = Bench::new(config(), 0);
    bench.append(batch(&[(0, "a", Some("1"))]), 0).expect("accepted");
    let mut builder = BatchBuilder::new();
    builder.append(0, None, Some(b"written before the topic was compacted"));
    bench.append(builder.finish(), 0).expect("accepted");
    bench.rest();
    assert_eq!(bench.shape(), [(0, 0, 1), (1, 1, 0)]);
    bench.ends_at(2);
}

/// Transactions of producer 1: `a` deleted in the last, which ends as said.
fn in_transactions(result: TransactionResult) -> Bench {
    let mut bench = Bench::new(config(), 0);
    bench.append_verified(transactional(1, 0, 0, &[("a", "1")])).expect("accepted");
    bench.end(1, 0, 0, TransactionResult::Commit).expect("ends");
    let mut builder = BatchBuilder::new().producer(ProducerId(1), ProducerEpoch(0), 1).transactional();
    builder.append(0, Some(b"a"), None);
    bench.append_verified(builder.finish()).expect("accepted");
    bench.end(1, 0, 0, result).expect("ends");
    bench
}

#[test]
fn a_marker() {
    for result in [TransactionResult::Commit, TransactionResult::Abort] {
        for expired in [false, true] {
            let mut bench = in_transactions(result);
            if expired {
                bench.change(|log, writes| log.expire_producers(i64::MAX, writes));
            }
            bench.rest();
            assert_eq!(bench.shape().last(), Some(&(3, 3, 1)), "a marker is not emptied");
            bench.ends_at(4);
        }
    }
}

#[test]
fn a_marker_that_ends_nothing_goes_once_it_is_not_the_last_batch() {
    let mut bench = in_transactions(TransactionResult::Commit);
    bench.end(2, 0, 0, TransactionResult::Commit).expect("nothing is open");
    bench.change(|log, writes| log.expire_producers(i64::MAX, writes));
    bench.rest();
    bench.compact_stable(3 * LATER);
    assert_eq!(bench.shape().last(), Some(&(4, 4, 1)));
    bench.append(batch(&[(0, "d", Some("1"))]), 0).expect("accepted");
    for now in [4, 5, 6].map(|times| times * LATER) {
        bench.append(batch(&[(0, "d", Some("1"))]), 0).expect("accepted");
        bench.roll(now);
        assert!(bench.compact_stable(now));
        bench.check_end("markers expire");
    }
    assert_eq!(bench.shape(), [(8, 8, 1)]);
    bench.ends_at(9);
}

#[test]
fn an_open_transaction() {
    let mut bench = deletes_all(-1);
    bench.append_verified(transactional(1, 0, 0, &[("a", "2")])).expect("accepted");
    bench.append(batch(&[(0, "b", Some("2"))]), 0).expect("accepted");
    bench.roll(0);
    for now in [1000, LATER, 2 * LATER] {
        while bench.compact_stable(now) {}
        bench.check_end("the last stable offset is an end, too");
    }
    bench.end(1, 0, 0, TransactionResult::Abort).expect("ends");
    bench.rest();
    bench.ends_at(8);
}

#[test]
fn a_segment_that_was_closed_below_an_open_transaction() {
    let mut bench = deletes_all(-1);
    bench.roll(0);
    bench.append_verified(transactional(1, 0, 0, &[("a", "2")])).expect("accepted");
    for now in [1000, LATER, 2 * LATER] {
        while bench.compact_stable(now) {}
        bench.check_end("a reader of committed records stops right behind the tombstones");
    }
    assert_eq!(bench.shape(), [(0, 1, 1), (4, 4, 0), (5, 5, 1)]);
    bench.end(1, 0, 0, TransactionResult::Commit).expect("ends");
    bench.ends_at(7);
}

#[test]
fn retention() {
    let config = LogConfig { delete: true, retention_ms: 5000, ..config() };
    for whole in [false, true] {
        let mut bench = deletes_all(-1);
        bench.log.set_config(config);
        if !whole {
            bench.append(batch(&[(LATER, "d", None)]), LATER).expect("accepted");
        }
        bench.rest();
        let end = bench.log.log_end_offset();
        let moved = bench.change(|log, writes| log.retain(LATER, end, writes));
        assert_eq!(moved == Some(end), whole, "{moved:?}");
        bench.check_end("retained");
        bench.ends_at(end.0);
    }
}

#[test]
fn deleted_records() {
    for to in 0..=5 {
        let mut bench = deletes_all(-1);
        bench.rest();
        bench.change(|log, writes| log.advance_log_start(Offset(to), writes));
        bench.check_end("deleted");
        bench.rest();
        bench.ends_at(5);
    }
}

#[test]
fn a_cut_at_any_offset_of_a_compacted_log() {
    for (to, log_start) in (0..=8).flat_map(|to| [(to, 0), (to, 3)]) {
        let mut bench = deletes_all(-1);
        bench.append(keyed(-1, 0, &[("e", Some("1"))]), 0).expect("accepted");
        bench.rest();
        bench.append(batch(&[(0, "f", Some("1")), (0, "g", Some("1"))]), 0).expect("accepted");
        bench.change(|log, writes| log.advance_log_start(Offset(log_start), writes));
        bench.change(|log, writes| log.truncate_to(Offset(to), 0, writes)).expect("readable");
        let end = bench.log.log_end_offset();
        let whole = if to == 7 { 6 } else { to };
        let whole = if to == 1 && log_start == 0 { 0 } else { whole };
        let expected = if to < log_start { to } else { whole.max(log_start) };
        assert_eq!(end.0, expected, "to {to}, log start {log_start}");
        bench.check_end(&format!("cut at {to}, log start {log_start}"));
        bench.ends_at(end.0);
    }
}

#[test]
fn a_cut_that_takes_the_side_record_of_an_older_version() {
    let mut bench = deletes_all(-1);
    bench.rest();
    let (family, end) = (bench.family, bench.log.reader().shared.keys.log_end());
    let value = crate::log::side::encode_offset(Offset(5));
    bench.commit(vec![Write::DeleteBatch { family, last_offset: Offset(4) }, Write::Side { key: end, value }]);
    bench = bench.reopen();
    bench.change(|log, writes| log.truncate_to(Offset(2), 0, writes)).expect("readable");
    assert_eq!(bench.shape(), [(0, 1, 1)]);
    bench.ends_at(2);
}

/// Earlier versions dropped the last batch and wrote where the log ends.
fn from_an_older_version(written: impl FnOnce(&mut Bench)) -> Bench {
    let mut bench = deletes_all(-1);
    written(&mut bench);
    bench.rest();
    left_by_an_older_version(bench)
}

fn left_by_an_older_version(bench: Bench) -> Bench {
    let end = bench.log.log_end_offset();
    let (family, key) = (bench.family, bench.log.reader().shared.keys.log_end());
    let value = crate::log::side::encode_offset(end);
    bench.commit(vec![Write::DeleteBatch { family, last_offset: end + -1 }, Write::Side { key, value }]);
    bench.reopen()
}

#[test]
fn a_start_mends_what_an_older_version_left() {
    let mut bench = from_an_older_version(|_| {});
    assert_eq!(bench.log.log_end_offset(), Offset(5), "no offset is given twice");
    bench.change(|log, writes| log.assign_epoch(LeaderEpoch(3), writes));
    assert_eq!(bench.shape(), [(0, 1, 1), (4, 4, 0)]);
    bench.check_end("mended");
    let stored = bench.dir.side(&bench.log.reader().shared.keys.log_end()).expect("readable");
    assert_eq!(stored, None, "the batch says it now");
    let size = bench.log.size_bytes();
    bench = bench.reopen();
    assert_eq!(bench.log.size_bytes(), size);
    bench.ends_at(5);
}

#[test]
fn an_older_version_may_have_closed_or_emptied_everything() {
    let mut bench = from_an_older_version(|bench| {
        bench.change(|log, writes| log.assign_epoch(LeaderEpoch(8), writes));
        bench.log.set_config(LogConfig { segment_bytes: 1, ..config() });
    });
    // Not even a leader's first write: the first append takes it along.
    let appended = bench.append(from_producer(7, 0, 0, 1), 0).expect("accepted");
    assert_eq!(appended.base_offset, Offset(5));
    bench.check_end("mended by an append");
    let mut bench = from_an_older_version(|bench| {
        bench.append(batch(&[(0, "a", None)]), 0).expect("accepted");
    });
    bench.change(|log, writes| log.retain(LATER, Offset(6), writes));
    assert_eq!(bench.shape(), [(5, 5, 0)]);
    bench.ends_at(6);
}

/// A leader whose disk is full opens its log again where its writes had come to, while a job may be under way.
#[test]
fn appends_that_were_refused_while_a_job_ran() {
    let mut bench = deletes_all(-1);
    bench.roll(0);
    let mut refused = Vec::new();
    let next = batch(&[(0, "x", Some("1"))]);
    bench.log.append(next, LeaderEpoch(3), 0, None, &mut refused).expect("given out");
    for now in [1000, LATER, 2 * LATER] {
        let end = bench.log.written_end_offset();
        while bench.compact_below(end, now, ALL, ALL) {}
    }
    bench = bench.reopen();
    bench.change(|log, writes| log.truncate_to(Offset(5), 0, writes)).expect("readable");
    bench.ends_at(5);
}

/// Nothing that a job decided before a cut takes the batch away that the log ends with since.
#[test]
fn a_cut_while_a_job_ran() {
    let mut bench = deletes_all(-1);
    bench.append(keyed(-1, 0, &[("e", None)]), 0).expect("accepted");
    bench.roll(0);
    bench.compact_stable(1000);
    let plan = bench.change(|log, writes| log.compaction_plan(LATER, Offset(6), 42, writes)).expect("due");
    let mut steps = Vec::new();
    crate::log::upkeep::compaction::run(&plan, &bench.log.reader(), &mut |step| {
        steps.extend(step.writes);
        std::ops::ControlFlow::Continue(())
    })
    .expect("readable");
    bench.change(|log, writes| log.truncate_to(Offset(5), 0, writes)).expect("readable");
    bench.change(|log, writes| writes.extend(log.admit_compacted(steps)));
    bench.ends_at(5);
}

/// How far the log was cleaned goes back with a cut, on disk as well: a job would reach beyond its plan otherwise.
#[test]
fn a_cut_takes_back_how_far_the_log_was_cleaned() {
    let mut bench = deletes_all(-1);
    bench.rest();
    assert_eq!(bench.log.state().cleaned().up_to, Offset(5));
    bench.change(|log, writes| log.truncate_to(Offset(1), 0, writes)).expect("readable");
    bench.change(|log, writes| log.truncate_to(Offset(0), 0, writes)).expect("readable");
    bench = bench.reopen();
    bench.append_verified(transactional(1, 0, 0, &[("a", "1")])).expect("accepted");
    bench.append(batch(&[(0, "a", Some("2"))]), 0).expect("accepted");
    bench = bench.reopen();
    assert_eq!(bench.log.state().cleaned().up_to, Offset(0));
    bench.rest();
    assert_eq!(bench.shape(), [(0, 0, 1), (1, 1, 1)], "what is open may be aborted yet");
}

/// What may happen to a log, one after the other. An offset is given twice only where a cut took it back.
#[test]
fn whatever_happened_a_reader_comes_to_the_end() {
    let mut cut_into_gaps = 0;
    for seed in 1..25 {
        let clock = ManualClock::new(1_000_000, seed);
        let config = LogConfig { segment_bytes: 400, retention_ms: 300, ..config() };
        let mut bench = Bench::new(config, 5000);
        let mut end = 0;
        for step in 0..200 {
            let dice = clock.random();
            clock.advance((dice & 31) as i64);
            let now = clock.now_ms();
            let part = |from: u32, below: i64| i64::from((dice >> from) as u16) % below;
            let (start, written) = (bench.log.log_start_offset(), bench.log.written_end_offset());
            let inside = Offset(start.0 + part(48, written - start + 1));
            match (dice >> 8) % 32 {
                0 | 1 => bench = bench.reopen(),
                2..=7 => {
                    bench.change(|log, writes| log.roll_if_old(i64::MAX, writes));
                    let stable = bench.log.last_stable_offset(written);
                    bench.compact_below(stable, now, 1 + part(16, 9) as usize, part(32, 30) as usize);
                }
                8 => bench.change(|log, writes| log.advance_log_start(inside, writes)),
                9 => {
                    bench.log.set_config(LogConfig { delete: dice >> 16 & 1 == 0, ..config });
                    bench.change(|log, writes| log.retain(now, written, writes));
                }
                10 => {
                    bench.change(|log, writes| log.truncate_to(inside, now, writes)).expect("readable");
                    end = bench.log.log_end_offset().0;
                    assert!(Offset(end) <= inside);
                    cut_into_gaps +=
                        i32::from(bench.shape().last().is_some_and(|last| last.2 == 0 && last.1 + 1 == end));
                }
                11 => bench.change(|log, writes| log.expire_producers(i64::MAX, writes)),
                12 if start < written => {
                    let closed_end =
                        bench.log.state().segments().closed().back().is_some_and(|closed| closed.end_offset == written);
                    if closed_end && bench.log.last_stable_offset(written) == written {
                        bench = left_by_an_older_version(bench);
                        bench.change(|log, writes| log.assign_epoch(LeaderEpoch(3), writes));
                    }
                }
                13..=18 => {
                    let result = if dice >> 16 & 1 == 0 { TransactionResult::Commit } else { TransactionResult::Abort };
                    end = bench.end(part(32, 3), 0, 0, result).expect("ends").last_offset.0 + 1;
                }
                19..=23 => {
                    let id = part(32, 3);
                    let known = bench.log.active_producers().find(|producer| producer.id == ProducerId(id));
                    let sequence = known.map_or(0, |producer| producer.last_sequence + 1);
                    let key = format!("k{}", part(16, 5));
                    let sent = transactional(id, 0, sequence, &[(key.as_str(), "t")]);
                    end = bench.append_verified(sent).expect("accepted").last_offset.0 + 1;
                }
                _ => {
                    let keys: Vec<String> =
                        (0..1 + part(16, 3)).map(|at| format!("k{}", (dice >> (64 + at)) % 5)).collect();
                    let value = |key: &String| (key.len() as i64 + part(32, 2) > 2).then_some("v");
                    let records: Vec<_> = keys.iter().map(|key| (now, key.as_str(), value(key))).collect();
                    let appended = bench.append(batch(&records), now).expect("accepted");
                    assert_eq!(appended.base_offset.0, end, "no offset is given twice, none is left out");
                    end = appended.last_offset.0 + 1;
                }
            }
            assert_eq!(bench.log.log_end_offset().0, end, "seed {seed}, step {step}");
            bench.check_end(&format!("seed {seed}, step {step}"));
        }
        bench.check_end(&format!("seed {seed}"));
    }
    assert!(cut_into_gaps > 5, "the model must meet what it is for: {cut_into_gaps}");
}
