//! Compaction over the directory's twin in memory: against a map, with interruptions, restarts and appends between.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use super::*;
use crate::clock::testing::ManualClock;
use crate::clock::{Clock, UnixMs};
use crate::log::config::LogConfig;
use crate::log::testing::{Bench, Stored, batch, records};
use crate::log::transaction_tests::transactional;
use crate::record::{BatchBuilder, Compression};
use crate::types::{ProducerEpoch, ProducerId, TransactionResult};

fn config() -> LogConfig {
    LogConfig {
        compact: true,
        delete: false,
        segment_bytes: 1000,
        min_cleanable_dirty_ratio: 0.0,
        delete_retention_ms: 1000,
        ..LogConfig::default()
    }
}

impl Bench {
    /// Appends one batch of `key=value` records; `key` alone is a tombstone.
    pub(in crate::log) fn put(&mut self, now: UnixMs, records: &[&str]) -> Offset {
        let records: Vec<_> = records
            .iter()
            .map(|record| match record.split_once('=') {
                Some((key, value)) => (now, key, Some(value)),
                None => (now, *record, None),
            })
            .collect();
        self.append(batch(&records), now).expect("accepted").base_offset
    }

    /// Closes the active segment.
    pub(in crate::log) fn roll(&mut self, now: UnixMs) {
        self.change(|log, writes| log.roll(now, writes));
    }

    /// One job, broken off after `steps` steps. False: there was none to do, or it was broken off.
    pub(in crate::log) fn compact(&mut self, now: UnixMs, keys_max: usize, steps: usize) -> bool {
        self.compact_below(self.log.written_end_offset(), now, keys_max, steps)
    }

    pub(in crate::log) fn compact_below(&mut self, bound: Offset, now: UnixMs, keys_max: usize, steps: usize) -> bool {
        let plan = self.change(|log, writes| log.compaction_plan(now, bound, 42, writes));
        let Some(mut plan) = plan else { return false };
        (plan.keys_max, plan.step_bytes) = (keys_max, 200);
        let mut left = steps;
        let reader = self.log.reader();
        let done = run(&plan, &reader, &mut |step| {
            if left == 0 {
                return ControlFlow::Break(());
            }
            left -= 1;
            self.commit(self.log.admit_compacted(step.writes));
            ControlFlow::Continue(())
        });
        let Some(done) = done.expect("readable") else { return false };
        self.change(|log, writes| log.on_compacted(&done, writes));
        true
    }

    /// Offset and `key=value` of each record.
    fn listed(&self) -> Vec<(i64, String)> {
        let text = |(offset, _, key, value): (i64, UnixMs, String, Option<String>)| match value {
            Some(value) => (offset, format!("{key}={value}")),
            None => (offset, key),
        };
        self.stored().into_iter().map(text).collect()
    }

    fn list(&self) -> Vec<String> {
        self.listed().into_iter().map(|(offset, text)| format!("{offset} {text}")).collect()
    }

    /// What a consumer that reads from the start knows in the end.
    fn folded(&self) -> BTreeMap<String, String> {
        let mut state = BTreeMap::new();
        for (_, _, key, value) in self.stored() {
            match value {
                Some(value) => drop(state.insert(key, value)),
                None => drop(state.remove(&key)),
            }
        }
        state
    }
}

const ALL: usize = usize::MAX;

#[test]
fn of_every_key_the_latest_value_stays_with_its_offset() {
    let mut bench = Bench::new(config(), 1 << 20);
    bench.put(0, &["a=1", "b=1", "a=2"]);
    bench.put(0, &["c=1"]);
    bench.put(0, &["b=2", "d=1"]);
    bench.roll(0);
    bench.put(0, &["a=3"]);
    assert!(bench.compact(0, ALL, ALL));
    assert_eq!(bench.list(), ["2 a=2", "3 c=1", "4 b=2", "5 d=1", "6 a=3"], "the active segment counts for nothing");
    let reader = bench.log.reader();
    assert!(reader.read_memory(Offset(0), Offset(7), ALL, true).is_none(), "the tail shows no replaced batches");
    assert!(reader.read_memory(Offset(6), Offset(7), ALL, true).is_some());
    bench.roll(0);
    assert!(bench.compact(0, ALL, ALL));
    assert_eq!(bench.list(), ["3 c=1", "4 b=2", "5 d=1", "6 a=3"]);
    assert!(!bench.compact(0, ALL, ALL), "nothing is dirty");
    let bench = bench.reopen();
    assert_eq!(bench.log.log_end_offset(), Offset(7));
    assert_eq!(bench.log.compaction_urgency(0, Offset(7)), None, "how far it came survives a restart");
}

/// Of a batch that broke in its middle the keys before the break counted: older values of them went, though nobody can
/// read the newer ones.
#[test]
fn a_batch_that_cannot_be_read_ends_the_job_before_anything_older_goes() {
    let mut bench = Bench::new(config(), 0);
    bench.put(0, &["a=1"]);
    let mut torn = batch(&[(0, "a", Some("2")), (0, "b", Some("2"))]);
    let len = torn.bytes.len();
    torn.bytes[len - 8..].fill(0xff);
    bench.append(torn, 0).expect("accepted");
    bench.roll(0);
    let plan = bench.change(|log, writes| log.compaction_plan(0, Offset(3), 42, writes)).expect("worth it");
    let mut steps = 0;
    let done = run(&plan, &bench.log.reader(), &mut |_| {
        steps += 1;
        ControlFlow::Continue(())
    });
    assert!(matches!(done, Err(StorageError::Read { .. })), "{done:?}");
    assert_eq!(steps, 0);
}

#[test]
fn tombstones_stay_for_the_delete_retention_and_then_go() {
    let mut bench = Bench::new(config(), 0);
    bench.put(0, &["a=1", "b=1"]);
    bench.put(5, &["a", "c=1"]);
    bench.roll(5);
    assert!(bench.compact(100, ALL, ALL));
    assert_eq!(bench.list(), ["1 b=1", "2 a", "3 c=1"]);
    assert_eq!(bench.stored()[1].1, 5, "its timestamp is what it was");
    bench = bench.reopen();
    assert!(!bench.compact(1099, ALL, ALL));
    assert!(bench.compact(1100, ALL, ALL), "a pass of its own, though nothing is dirty");
    assert_eq!(bench.list(), ["1 b=1", "3 c=1"]);
    assert!(!bench.compact(9999, ALL, ALL));
}

#[test]
fn compressed_batches_stay_compressed() {
    let mut bench = Bench::new(config(), 0);
    for compression in [Compression::Gzip(-1), Compression::Snappy, Compression::Lz4, Compression::Zstd(3)] {
        let mut builder = BatchBuilder::new().compressed(compression);
        for at in 0..50 {
            builder.append(at, Some(b"same"), Some(format!("{compression:?}{at}").as_bytes()));
            builder.append(at, Some(format!("{compression:?}").as_bytes()), Some(b"x"));
        }
        bench.append(builder.finish(), 0).expect("accepted");
    }
    bench.roll(0);
    assert!(bench.compact(0, ALL, ALL));
    assert_eq!(bench.listed().iter().map(|record| record.0).collect::<Vec<_>>(), [99, 199, 299, 398, 399]);
    let read = bench.log.reader().read(Offset(0), Offset(400), ALL, true).expect("readable");
    for batch in &read.batches {
        let header = BatchHeader::parse(batch).expect("a batch");
        assert!(header.is_compressed());
        assert_eq!(header.crc, crc32c::crc32c(&batch[21..]));
        assert_eq!(header.size_bytes(), batch.len());
        assert_eq!(header.last_offset_delta, 99);
    }
}

#[test]
fn the_last_batch_of_a_producer_stays_if_need_be_empty() {
    let sent = |sequence| {
        let mut builder = BatchBuilder::new().producer(ProducerId(7), ProducerEpoch(0), sequence);
        builder.append(0, Some(b"k"), Some(b"v"));
        builder.finish()
    };
    let mut bench = Bench::new(config(), 0);
    bench.append(sent(0), 0).expect("accepted");
    bench.append(sent(1), 0).expect("accepted");
    bench.put(0, &["k=2"]);
    bench.roll(0);
    assert!(bench.compact(0, ALL, ALL));
    let read = bench.log.reader().read(Offset(0), Offset(3), ALL, true).expect("readable");
    let header = BatchHeader::parse(&read.batches[0]).expect("a batch");
    assert_eq!((header.base_offset, header.record_count, header.base_sequence), (Offset(1), 0, 1));
    assert_eq!(bench.list(), ["2 k=2"]);
    assert!(bench.append(sent(1), 0).expect("a duplicate").duplicate);
    bench.append(sent(2), 0).expect("accepted");
    bench.roll(0);
    assert!(bench.compact(0, ALL, ALL));
    assert_eq!(bench.list(), ["3 k=v"]);
    let read = bench.log.reader().read(Offset(0), Offset(4), ALL, true).expect("readable");
    assert_eq!(read.batches.len(), 1, "it has a later one now");
}

#[test]
fn the_log_end_never_goes_back() {
    let mut bench = Bench::new(config(), 0);
    bench.put(0, &["a"]);
    bench.roll(0);
    assert!(bench.compact(0, ALL, ALL));
    assert!(bench.compact(1000, ALL, ALL));
    assert!(bench.list().is_empty());
    bench = bench.reopen();
    assert_eq!(bench.log.log_end_offset(), Offset(1));
    assert_eq!(bench.put(0, &["b=1"]), Offset(1));
}

#[test]
fn lags_and_the_dirty_ratio_are_honoured() {
    let mut bench = Bench::new(LogConfig { min_cleanable_dirty_ratio: 0.5, ..config() }, 0);
    bench.put(1000, &["a=1"]);
    bench.roll(1000);
    assert!(bench.compact(1000, ALL, ALL), "all of it is dirty");
    bench.put(1000, &["b=1"]);
    bench.roll(1000);
    let end = bench.log.log_end_offset();
    assert_eq!(bench.log.compaction_urgency(1000, end), None, "half is not more than half");
    bench.log.set_config(LogConfig { max_compaction_lag_ms: 500, ..*bench.log.config() });
    assert_eq!(bench.log.compaction_urgency(1500, end), None);
    assert!(bench.log.compaction_urgency(1501, end).is_some_and(|urgency| urgency > 1.0), "overdue");
    bench.log.set_config(LogConfig { min_compaction_lag_ms: 1000, ..*bench.log.config() });
    assert_eq!(bench.log.compaction_urgency(1999, end), None, "too young");
    assert!(bench.log.compaction_urgency(2000, end).is_some());
    assert_eq!(bench.log.compaction_urgency(2000, Offset(1)), None, "high watermark");
}

#[test]
fn the_compaction_lag_closes_the_active_segment() {
    let config = LogConfig { max_compaction_lag_ms: 100, ..config() };
    let mut bench = Bench::new(config, 0);
    bench.put(0, &["a=1", "a=2"]);
    assert!(!bench.compact(100, ALL, ALL));
    assert!(bench.compact(101, ALL, ALL));
    assert_eq!(bench.list(), ["1 a=2"]);
}

#[test]
fn a_full_map_leaves_the_rest_for_the_next_pass() {
    let mut bench = Bench::new(config(), 0);
    for round in 0..3 {
        for key in 0..40 {
            bench.put(0, &[&format!("k{key}={round}")]);
        }
    }
    bench.roll(0);
    let mut passes = 0;
    while bench.compact(0, 7, ALL) {
        passes += 1;
    }
    assert!(passes > 10, "{passes}");
    let expected: Vec<_> = (0..40).map(|key| (80 + key, format!("k{key}=2"))).collect();
    assert_eq!(bench.listed(), expected);
    assert_eq!(bench.log.state().segments().closed().len(), 3, "small segments are joined up to segment.bytes");
    let size = bench.log.size_bytes();
    let read = bench.log.reader().read(Offset(0), Offset(120), ALL, true).expect("readable");
    assert_eq!(size, read.bytes as u64);
    assert_eq!(bench.reopen().log.size_bytes(), size);
}

/// What a job had taken away before it broke off counted as there for ever, and `retention.bytes` took away more.
#[test]
fn sizes_are_right_after_a_job_that_broke_off() {
    let mut bench = Bench::new(config(), 0);
    for round in 0..3 {
        for key in 0..40 {
            bench.put(0, &[&format!("k{key}={round}")]);
        }
    }
    bench.roll(0);
    assert!(!bench.compact(0, ALL, 60), "broken off");
    assert!(bench.compact(0, ALL, ALL));
    let read = bench.log.reader().read(Offset(0), Offset(120), ALL, true).expect("readable");
    assert_eq!(bench.log.size_bytes(), read.bytes as u64);
}

#[test]
fn what_the_log_deleted_meanwhile_does_not_come_back() {
    let mut bench = Bench::new(LogConfig { delete: true, ..config() }, 0);
    bench.put(0, &["a=1", "b=1"]);
    bench.put(0, &["a=2", "c=1", "c=2"]);
    bench.roll(0);
    let plan = bench.change(|log, writes| log.compaction_plan(0, Offset(5), 42, writes)).expect("dirty");
    let mut steps = Vec::new();
    let done = run(&plan, &bench.log.reader(), &mut |step| {
        steps.extend(step.writes);
        ControlFlow::Continue(())
    });
    bench.change(|log, writes| log.advance_log_start(Offset(2), writes));
    bench.change(|log, writes| writes.extend(log.admit_compacted(steps)));
    bench.change(|log, writes| log.on_compacted(&done.expect("readable").expect("to its end"), writes));
    let read = bench.log.reader().read_storage(Offset(0), Offset(5), ALL, true).expect("readable");
    assert_eq!(read.batches.len(), 1);
    assert_eq!(bench.list(), ["2 a=2", "4 c=2"]);
}

#[test]
fn a_reader_from_the_start_always_ends_with_the_same_state() {
    for seed in 1..15 {
        let clock = ManualClock::new(10_000, seed);
        let mut bench = Bench::new(LogConfig { segment_bytes: 700, delete_retention_ms: 60, ..config() }, 0);
        let mut state = BTreeMap::new();
        let mut jobs = 0;
        for step in 0..250 {
            let dice = clock.random();
            clock.advance((dice & 7) as i64);
            let now = clock.now_ms();
            match (dice >> 8) % 12 {
                0 => bench = bench.reopen(),
                1 | 2 => {
                    let (keys_max, steps) = (1 + (dice >> 16) as usize % 20, (dice >> 24) as usize % 60);
                    jobs += usize::from(bench.compact(now, keys_max, steps));
                }
                _ => {
                    let records: Vec<String> = (0..1 + (dice >> 16) % 4)
                        .map(|at| {
                            let key = (dice >> (24 + 8 * at)) as u8 % 16;
                            if key.is_multiple_of(3) && dice >> 100 & 1 == 0 {
                                state.remove(&format!("k{key}"));
                                return format!("k{key}");
                            }
                            state.insert(format!("k{key}"), format!("{step}.{at}"));
                            format!("k{key}={step}.{at}")
                        })
                        .collect();
                    let records: Vec<&str> = records.iter().map(String::as_str).collect();
                    bench.put(now, &records);
                }
            }
            assert_eq!(bench.folded(), state, "seed {seed}, step {step}");
            let offsets: Vec<i64> = bench.listed().iter().map(|record| record.0).collect();
            assert!(offsets.is_sorted_by(|a, b| a < b));
            bench.check_end("compacted");
        }
        bench.roll(clock.now_ms());
        while bench.compact(clock.now_ms(), ALL, ALL) {}
        clock.advance(100);
        while bench.compact(clock.now_ms(), ALL, ALL) {}
        assert!(jobs > 3, "{jobs}");
        assert_eq!(bench.folded(), state);
        assert_eq!(bench.stored().len(), state.len(), "neither old values nor tombstones are left");
    }
}

impl Bench {
    /// One transactional batch of `key=value` records, verified if need be.
    pub(in crate::log) fn put_in_transaction(&mut self, id: i64, records: &[&str]) {
        let known = self.log.active_producers().find(|producer| producer.id == ProducerId(id));
        let sequence = known.map_or(0, |producer| producer.last_sequence + 1);
        let records: Vec<_> = records.iter().filter_map(|record| record.split_once('=')).collect();
        self.append_verified(transactional(id, 0, sequence, &records)).expect("accepted");
    }

    /// Offset and `key=value` of each record that is no marker.
    fn data(&self) -> Vec<String> {
        let read = self.log.reader().read_storage(Offset(0), Offset::MAX, ALL, true).expect("readable");
        let is_data = |batch: &Bytes| BatchHeader::parse(batch).is_ok_and(|header| !header.is_control());
        let batches: Vec<Bytes> = read.batches.into_iter().filter(is_data).collect();
        let text = |(offset, _, key, value): Stored| format!("{offset} {key}={}", value.unwrap_or_default());
        records(&batches, Offset(0)).into_iter().map(text).collect()
    }

    /// As a cleaner does it: up to the last stable offset.
    pub(in crate::log) fn compact_stable(&mut self, now: UnixMs) -> bool {
        let end = self.log.written_end_offset();
        let stable = self.log.last_stable_offset(end);
        self.compact_below(stable, now, ALL, ALL)
    }
}

#[test]
fn an_aborted_value_takes_nothing_away_and_goes_itself() {
    let mut bench = Bench::new(config(), 1 << 20);
    bench.put_in_transaction(1, &["a=committed", "b=old"]);
    bench.end(1, 0, 0, TransactionResult::Commit).expect("ends");
    bench.put_in_transaction(1, &["a=aborted", "c=aborted"]);
    bench.put_in_transaction(2, &["b=new"]);
    bench.end(1, 0, 0, TransactionResult::Abort).expect("ends");
    bench.end(2, 0, 0, TransactionResult::Commit).expect("ends");
    bench.roll(0);
    bench = bench.reopen();
    assert!(bench.compact_stable(0));
    assert_eq!(bench.data(), ["0 a=committed", "5 b=new"]);
    let read = bench.log.reader().read(Offset(0), Offset(8), ALL, true).expect("readable");
    let markers = read.batches.iter().filter(|batch| BatchHeader::parse(batch).expect("a batch").is_control());
    assert_eq!(markers.count(), 3, "they stay");
}

#[test]
fn a_commit_goes_some_time_after_everything_that_it_committed() {
    let mut bench = Bench::new(config(), 0);
    let markers = |bench: &Bench| {
        let read = bench.log.reader().read_storage(Offset(0), Offset::MAX, ALL, true).expect("readable");
        let headers = read.batches.iter().map(|batch| BatchHeader::parse(batch).expect("a batch"));
        headers.filter(BatchHeader::is_control).map(|header| header.base_offset.0).collect::<Vec<_>>()
    };
    let pass = |bench: &mut Bench, now| {
        bench.put(now, &["b=new"]);
        bench.roll(now);
        assert!(bench.compact(now, ALL, ALL));
    };
    bench.put_in_transaction(1, &["a=1"]);
    bench.end(1, 0, 0, TransactionResult::Commit).expect("ends");
    bench.put_in_transaction(1, &["a=aborted"]);
    bench.end(1, 0, 0, TransactionResult::Abort).expect("ends");
    bench.put_in_transaction(1, &["a=2"]);
    bench.end(1, 0, 0, TransactionResult::Commit).expect("ends");
    pass(&mut bench, 0);
    assert_eq!(markers(&bench), [1, 3, 5], "the first one's record was there when the pass met it");
    pass(&mut bench, 500);
    assert_eq!(markers(&bench), [1, 3, 5], "its horizon is 1500 now");
    bench = bench.reopen();
    pass(&mut bench, 1499);
    assert_eq!(markers(&bench), [1, 3, 5]);
    pass(&mut bench, 1500);
    assert_eq!(markers(&bench), [3, 5], "an abort stays, and so does the end of what is there");
    bench.put_in_transaction(2, &["a=3"]);
    bench.end(2, 0, 0, TransactionResult::Commit).expect("ends");
    for now in [2000, 2001, 3001, 4002] {
        pass(&mut bench, now);
    }
    assert!(markers(&bench).starts_with(&[3, 5]), "the last one of a producer stays while that is known");
    bench.change(|log, writes| log.expire_producers(i64::MAX, writes));
    for now in [5000, 5001, 6001, 7002] {
        pass(&mut bench, now);
    }
    assert_eq!(markers(&bench)[0], 3);
    assert!(!markers(&bench).contains(&5));
    assert_eq!(bench.data().last().map(String::as_str).map(|text| text.ends_with("b=new")), Some(true));
    assert!(bench.data().iter().any(|text| text.ends_with("a=3")));
}

#[test]
fn nothing_is_cleaned_beyond_the_last_stable_offset() {
    let mut bench = Bench::new(config(), 0);
    bench.put(0, &["a=1"]);
    bench.roll(0);
    bench.put_in_transaction(1, &["a=2"]);
    bench.roll(0);
    bench.put(0, &["a=3"]);
    bench.roll(0);
    bench.compact_stable(0);
    assert_eq!(bench.list(), ["0 a=1", "1 a=2", "2 a=3"], "what is open may be aborted yet");
    bench.end(1, 0, 0, TransactionResult::Abort).expect("ends");
    bench.roll(0);
    assert!(bench.compact_stable(0));
    assert_eq!(bench.data(), ["2 a=3"]);
}

#[test]
fn a_reader_of_committed_records_always_ends_with_the_same_state() {
    for seed in 1..8 {
        let clock = ManualClock::new(0, seed);
        let mut bench = Bench::new(LogConfig { segment_bytes: 700, ..config() }, 0);
        let mut committed = BTreeMap::new();
        let mut open: BTreeMap<i64, Vec<(i64, String, String)>> = BTreeMap::new();
        let mut jobs = 0;
        for step in 0..300 {
            let dice = clock.random();
            let id = i64::from((dice >> 8) as u8 % 4);
            match (dice >> 16) % 12 {
                0 => bench = bench.reopen(),
                1 => jobs += usize::from(bench.compact_stable(step * 10)),
                2..=4 if open.contains_key(&id) => {
                    let commits = (dice >> 24).is_multiple_of(2);
                    let result = if commits { TransactionResult::Commit } else { TransactionResult::Abort };
                    bench.end(id, 0, 0, result).expect("ends");
                    for (offset, key, value) in open.remove(&id).into_iter().flatten().filter(|_| commits) {
                        let latest = committed.entry(key).or_insert((offset, value.clone()));
                        if latest.0 <= offset {
                            *latest = (offset, value);
                        }
                    }
                }
                _ => {
                    let (key, value) = (format!("k{}", (dice >> 32) as u8 % 8), format!("{step}"));
                    let offset = bench.log.log_end_offset().0;
                    bench.put_in_transaction(id, &[&format!("{key}={value}")]);
                    open.entry(id).or_default().push((offset, key, value));
                }
            }
        }
        for id in open.into_keys() {
            bench.end(id, 0, 0, TransactionResult::Abort).expect("ends");
        }
        bench.roll(0);
        while bench.compact_stable(3_000) {}
        while bench.compact_stable(9_000) {}
        assert!(jobs > 3, "{jobs}");
        let expected: BTreeMap<i64, String> =
            committed.into_iter().map(|(key, (offset, value))| (offset, format!("{offset} {key}={value}"))).collect();
        assert_eq!(bench.data(), expected.into_values().collect::<Vec<_>>(), "seed {seed}");
    }
}
