//! A log over the directory's twin in memory: against a model, across restarts, under retention.

use bytes::{Bytes, BytesMut};

use crate::clock::Clock;
use crate::clock::testing::ManualClock;
use crate::log::config::LogConfig;
use crate::log::partition_log::AppendError;
use crate::log::side::decode_snapshot;
use crate::log::testing::{Bench, Stored, batch, from_producer, records};
use crate::record::{BatchBuilder, BatchHeader, TimestampType, ValidBatch};
use crate::storage::{LogDir, Write};
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId};

#[test]
fn agrees_with_a_vec_of_records_whatever_the_order_of_calls() {
    for seed in 1..12 {
        let clock = ManualClock::new(1_000_000, seed);
        let config =
            LogConfig { segment_bytes: 1500, retention_ms: 500, retention_bytes: 40_000, ..LogConfig::default() };
        let mut bench = Bench::new(config, 10_000);
        let mut model: Vec<Stored> = Vec::new();
        for step in 0..400 {
            let dice = clock.random();
            clock.advance((dice & 3) as i64);
            let now = clock.now_ms();
            match (dice >> 8) % 40 {
                0 => bench = bench.reopen(),
                1 => {
                    let high_watermark = bench.log.written_end_offset();
                    bench.change(|log, writes| log.retain(now, high_watermark, writes));
                }
                2 => {
                    let (start, end) = (bench.log.log_start_offset().0, bench.log.log_end_offset().0);
                    let to = Offset(start + (dice >> 40) as i64 % (end - start + 1));
                    bench.change(|log, writes| log.advance_log_start(to, writes));
                }
                _ => {
                    let count = 1 + (dice >> 16) as usize % 4;
                    let value = "v".repeat((dice >> 24) as usize % 300);
                    let fresh: Vec<_> = (0..count)
                        .map(|at| (now - ((dice >> 32) as i64 & 7) + at as i64, format!("{step}.{at}"), value.clone()))
                        .collect();
                    let sent: Vec<_> =
                        fresh.iter().map(|(at, key, value)| (*at, key.as_str(), Some(value.as_str()))).collect();
                    let appended = bench.append(batch(&sent), now).expect("accepted");
                    assert_eq!(appended.base_offset.0, model.last().map_or(0, |last| last.0 + 1), "seed {seed}");
                    model.extend((appended.base_offset.0..).zip(fresh).map(|(o, (at, k, v))| (o, at, k, Some(v))));
                }
            }
            check_against(&bench, &model, &clock);
            bench.check_end("as every log");
        }
        assert!(bench.log.log_start_offset() > Offset::ZERO, "retention had something to do");
    }
}

fn check_against(bench: &Bench, model: &[Stored], clock: &ManualClock) {
    let log = &bench.log;
    assert_eq!(log.log_end_offset().0, model.last().map_or(0, |last| last.0 + 1));
    let (start, end) = (log.log_start_offset(), log.log_end_offset());
    let live = &model[start.0 as usize..];
    let from = Offset(start.0 + clock.random() as i64 % (end - start + 1).max(1));
    let from = from.max(start);
    let reader = log.reader();
    let read = reader.read(from, end, usize::MAX, true).expect("readable");
    let stored = reader.read_storage(from, end, usize::MAX, true).expect("readable");
    if from < end {
        assert_eq!(read.batches, stored.batches, "tail and storage hold the same bytes");
    }
    assert_eq!(records(&stored.batches, from), live[(from - start) as usize..]);
    let asked = clock.now_ms() - (clock.random() as i64 & 255);
    let expected =
        live.iter().find(|record| record.1 >= asked).map(|record| (record.1, Offset(record.0), LeaderEpoch(3)));
    assert_eq!(reader.offset_for_timestamp(asked, end).expect("readable"), expected);
    let largest = live.iter().rev().max_by_key(|record| record.1);
    let expected = largest.map(|record| (record.1, Offset(record.0), LeaderEpoch(3)));
    assert_eq!(reader.max_timestamp(end).expect("readable"), expected);
}

#[test]
fn reads_hold_their_bounds_from_tail_and_storage_alike() {
    let mut bench = Bench::new(LogConfig::default(), 1 << 20);
    let mut lens = Vec::new();
    for at in 0..10 {
        let sent = batch(&[(at, "a", Some("x")), (at, "b", Some("y"))]);
        lens.push(sent.bytes.len());
        bench.append(sent, 0).expect("accepted");
    }
    let reader = bench.log.reader();
    let (len, end) = (lens[0], Offset(20));
    for (from, upto, max_bytes, at_least_one, count) in [
        (0, 20, usize::MAX, false, 10),
        (1, 20, usize::MAX, false, 10),
        (2, 20, usize::MAX, false, 9),
        (0, 20, 2 * len, false, 2),
        (0, 20, 2 * len - 1, false, 1),
        (0, 20, len - 1, false, 0),
        (0, 20, 0, true, 1),
        (0, 7, usize::MAX, true, 3),
        (20, 20, usize::MAX, true, 0),
    ] {
        let (from, upto) = (Offset(from), Offset(upto));
        let tail = reader.read_memory(from, upto, max_bytes, at_least_one).expect("in the tail");
        let storage = reader.read_storage(from, upto, max_bytes, at_least_one).expect("readable");
        assert_eq!((tail.batches.len(), tail.bytes), (count, count * len), "{from} {upto} {max_bytes}");
        assert_eq!(tail.batches, storage.batches);
    }
    let bench = bench.reopen();
    assert!(bench.log.reader().read_memory(Offset(0), end, usize::MAX, true).is_none(), "a new tail is empty");
    assert_eq!(bench.log.reader().read(Offset(0), end, usize::MAX, true).expect("readable").batches.len(), 10);
}

#[test]
fn a_batch_is_stored_as_it_was_stamped() {
    let mut bench = Bench::new(LogConfig::default(), 0);
    bench.append(batch(&[(5, "a", Some("1"))]), 0).expect("accepted");
    bench.append(batch(&[(6, "b", Some("2")), (7, "c", None)]), 0).expect("accepted");
    let read = bench.log.reader().read(Offset(1), Offset(3), usize::MAX, true).expect("readable");
    let header = BatchHeader::parse(&read.batches[0]).expect("a batch");
    assert_eq!((header.base_offset, header.last_offset()), (Offset(1), Offset(2)));
    assert_eq!(header.partition_leader_epoch, LeaderEpoch(3));
    assert_eq!(header.crc, crc32c::crc32c(&read.batches[0][21..]));
}

#[test]
fn log_append_time_is_the_brokers() {
    let config = LogConfig { message_timestamp_type: TimestampType::LogAppendTime, ..LogConfig::default() };
    let mut bench = Bench::new(config, 0);
    let appended = bench.append(batch(&[(5, "a", Some("1")), (6, "b", Some("2"))]), 777).expect("accepted");
    assert_eq!(appended.log_append_time, Some(777));
    assert_eq!(bench.stored().iter().map(|record| record.1).collect::<Vec<_>>(), [777, 777]);
    let found = bench.log.reader().offset_for_timestamp(700, Offset(2)).expect("readable");
    assert_eq!(found, Some((777, Offset(0), LeaderEpoch(3))));
}

#[test]
fn sequences_survive_a_restart_before_and_after_a_checkpoint() {
    for count in [3, 5000] {
        let mut bench = Bench::new(LogConfig { segment_bytes: 100_000, ..LogConfig::default() }, 0);
        assert_eq!(bench.append(from_producer(8, 0, 11, 1), 0).expect("accepted").base_offset, Offset(0));
        for sequence in 0..count {
            bench.append(from_producer(7, 1, sequence, 1), 0).expect("accepted");
        }
        bench = bench.reopen();
        let repeated = bench.append(from_producer(7, 1, count - 2, 1), 0).expect("a duplicate");
        assert_eq!((repeated.duplicate, repeated.base_offset), (true, Offset(i64::from(count) - 1)));
        let repeated = bench.append(from_producer(8, 0, 11, 1), 0).expect("a duplicate");
        assert_eq!((repeated.duplicate, repeated.base_offset), (true, Offset(0)), "silent since before a checkpoint");
        let gap = bench.append(from_producer(7, 1, count + 1, 1), 0);
        assert!(matches!(gap, Err(AppendError::OutOfOrderSequence { .. })));
        assert!(!bench.append(from_producer(7, 1, count, 1), 0).expect("the next").duplicate);
        let fenced = bench.append(from_producer(7, 0, count + 1, 1), 0);
        assert!(matches!(fenced, Err(AppendError::InvalidProducerEpoch { .. })));
    }
}

#[test]
fn a_duplicate_of_a_batch_whose_write_is_under_way_returns_its_offset() {
    let mut bench = Bench::new(LogConfig::default(), 0);
    let mut writes = Vec::new();
    bench.log.append(from_producer(7, 1, 0, 3), LeaderEpoch(3), 0, None, &mut writes).expect("accepted");
    let count = writes.len();
    let again = bench.log.append(from_producer(7, 1, 0, 3), LeaderEpoch(3), 0, None, &mut writes).expect("a duplicate");
    assert!(again.duplicate && writes.len() == count);
    assert_eq!((again.last_offset, again.log_end_offset), (Offset(2), Offset(3)));
    assert_eq!(bench.log.written_end_offset(), Offset(0), "I-5");
}

#[test]
fn expired_producers_stay_forgotten_after_a_restart() {
    let config = LogConfig { producer_id_expiration_ms: 1000, ..LogConfig::default() };
    let mut bench = Bench::new(config, 0);
    bench.append(from_producer(7, 1, 0, 3), 0).expect("accepted");
    bench.append(from_producer(8, 1, 0, 3), 900).expect("accepted");
    bench.change(|log, writes| log.checkpoint(writes));
    bench.change(|log, writes| log.expire_producers(1000, writes));
    assert_eq!(bench.log.state().producers().count(), 1);
    bench = bench.reopen();
    assert_eq!(bench.log.state().producers().count(), 1);
    assert!(!bench.append(from_producer(7, 1, 40, 3), 1000).expect("nothing is known of it").duplicate);
}

#[test]
fn a_transactional_batch_without_a_guard_is_refused() {
    let mut bench = Bench::new(LogConfig::default(), 0);
    let mut builder = BatchBuilder::new().producer(ProducerId(1), ProducerEpoch(0), 0).transactional();
    builder.append(0, None, Some(b"v"));
    assert!(matches!(bench.append(builder.finish(), 0), Err(AppendError::InvalidTxnState { .. })));
    assert_eq!(bench.log.log_end_offset(), Offset(0));
}

#[test]
fn side_records_are_written_once_per_interval_only() {
    let mut bench = Bench::new(LogConfig::default(), 0);
    let mut writes = Vec::new();
    bench.log.assign_epoch(LeaderEpoch(3), &mut writes);
    let (mut batches, mut sides) = (0, 0);
    for sequence in 0..2000 {
        writes.clear();
        bench.log.append(from_producer(7, 1, sequence, 1), LeaderEpoch(3), 0, None, &mut writes).expect("accepted");
        batches += 1;
        sides += writes.len() - 1;
    }
    assert!(sides > 0 && sides < batches / 100, "{sides} side records for {batches} batches");
}

#[test]
fn an_emptied_log_keeps_its_end() {
    let mut bench = Bench::new(LogConfig::default(), 0);
    for _ in 0..3 {
        bench.append(batch(&[(5, "a", Some("1")), (5, "b", Some("1"))]), 0).expect("accepted");
    }
    bench.change(|log, writes| log.advance_log_start(Offset(6), writes));
    assert!(bench.stored().is_empty());
    assert_eq!(bench.log.size_bytes(), 0);
    bench = bench.reopen();
    assert_eq!((bench.log.log_start_offset(), bench.log.log_end_offset()), (Offset(6), Offset(6)));
    assert_eq!(bench.append(batch(&[(5, "a", Some("1"))]), 0).expect("accepted").base_offset, Offset(6));
}

#[test]
fn an_epoch_without_data_survives_a_restart() {
    let mut bench = Bench::new(LogConfig::default(), 0);
    bench.append(batch(&[(5, "a", Some("1"))]), 0).expect("accepted");
    bench.change(|log, writes| log.assign_epoch(LeaderEpoch(9), writes));
    bench = bench.reopen();
    assert_eq!(bench.log.latest_epoch(), Some(LeaderEpoch(9)));
    assert_eq!(bench.log.end_offset_for_epoch(LeaderEpoch(3)), Some((LeaderEpoch(3), Offset(1))));
    assert_eq!(bench.log.epoch_at(Offset(0)), Some(LeaderEpoch(3)));
}

/// P8: an epoch entry at the log end survived a truncation to there or above, and a follower then got the same
/// diverging answer for ever.
#[test]
fn p8_a_cut_at_the_log_end_takes_the_epochs_that_begin_there() {
    for cut in [1, 2, 9] {
        let mut bench = Bench::new(LogConfig::default(), 0);
        bench.append(batch(&[(5, "a", Some("1"))]), 0).expect("accepted");
        bench.change(|log, writes| log.assign_epoch(LeaderEpoch(9), writes));
        bench.change(|log, writes| log.truncate_to(Offset(cut), 0, writes)).expect("readable");
        for _ in 0..2 {
            assert_eq!(bench.log.log_end_offset(), Offset(1));
            assert_eq!(bench.log.latest_epoch(), Some(LeaderEpoch(3)), "cut to {cut}");
            bench = bench.reopen();
        }
    }
}

/// P7, on disk: what a lower epoch replaces does not come back, and batches that are read again do not bring it back.
#[test]
fn p7_an_epoch_that_took_the_place_of_later_ones_survives_a_restart() {
    let mut bench = Bench::new(LogConfig::default(), 0);
    bench.append(batch(&[(5, "a", Some("1"))]), 0).expect("accepted");
    bench.change(|log, writes| log.assign_epoch(LeaderEpoch(9), writes));
    bench.change(|log, writes| log.assign_epoch(LeaderEpoch(5), writes));
    for _ in 0..2 {
        assert_eq!(bench.log.latest_epoch(), Some(LeaderEpoch(5)));
        assert_eq!(bench.log.epoch_at(Offset(0)), Some(LeaderEpoch(3)));
        bench = bench.reopen();
    }
}

/// A log whose term begins beyond its last batch has lost that batch: the history follows, and the log says so.
#[test]
fn a_log_that_was_longer_once_says_so() {
    let mut bench = Bench::new(LogConfig::default(), 0);
    for sequence in 0..3 {
        bench.append(from_producer(7, 1, sequence, 1), 0).expect("accepted");
    }
    bench.change(|log, writes| log.assign_epoch(LeaderEpoch(9), writes));
    bench = bench.reopen();
    assert!(!bench.log.has_lost_its_end(), "a kill loses nothing");
    bench.commit(vec![Write::DeleteBatch { family: bench.family, last_offset: Offset(2) }]);
    bench = bench.reopen();
    assert!(bench.log.has_lost_its_end());
    assert_eq!((bench.log.log_end_offset(), bench.log.latest_epoch()), (Offset(2), Some(LeaderEpoch(3))));
    bench.append(from_producer(7, 1, 2, 1), 0).expect("the next sequence");
    bench = bench.reopen();
    assert!(!bench.log.has_lost_its_end(), "the corrections were written with the next batch");
}

#[test]
fn retention_by_time_closes_and_deletes_what_nobody_appends_to() {
    let config = LogConfig { segment_ms: 100, retention_ms: 1000, ..LogConfig::default() };
    let mut bench = Bench::new(config, 0);
    bench.append(batch(&[(5000, "a", Some("1"))]), 5000).expect("accepted");
    assert_eq!(bench.change(|log, writes| log.retain(5101, Offset(1), writes)), None);
    assert_eq!(bench.log.state().segments().closed().len(), 1, "closed by segment.ms though nobody appended");
    assert_eq!(bench.change(|log, writes| log.retain(6001, Offset(0), writes)), None, "high watermark");
    assert_eq!(bench.change(|log, writes| log.retain(6001, Offset(1), writes)), Some(Offset(1)));
    let bench = bench.reopen();
    assert_eq!((bench.log.log_start_offset(), bench.log.state().segments().closed().len()), (Offset(1), 0));
}

#[test]
fn a_cut_log_goes_on_as_if_the_rest_had_never_been() {
    let config = LogConfig { segment_bytes: 1000, ..LogConfig::default() };
    for cut in 0..=40 {
        let mut bench = Bench::new(config, 1 << 20);
        for sequence in 0..20 {
            bench.append(from_producer(7, 1, sequence * 2, 2), 0).expect("accepted");
        }
        bench.change(|log, writes| log.truncate_to(Offset(cut), 0, writes)).expect("readable");
        let end = cut - cut % 2;
        for _ in 0..2 {
            assert_eq!(bench.log.log_end_offset(), Offset(end), "whole batches go");
            assert_eq!(bench.stored().len() as i64, end);
            bench = bench.reopen();
        }
        let next = bench.append(from_producer(7, 1, end as i32, 2), 0).expect("the next sequence");
        assert_eq!((next.duplicate, next.base_offset), (false, Offset(end)));
    }
}

/// Producers that wrote behind a cut are read again from the last snapshot on, and no more than that.
#[test]
fn a_cut_reads_back_to_a_snapshot_of_the_producers() {
    // Eleven batches each, so the last snapshots are of 88 and 99.
    let config = LogConfig { segment_bytes: 12_000, ..LogConfig::default() };
    let value = "x".repeat(1000);
    let append = |bench: &mut Bench, upto: i64| {
        for at in 0..upto {
            let mut builder = BatchBuilder::new().producer(ProducerId(at % 3), ProducerEpoch(0), (at / 3) as i32);
            builder.append(at, Some(b"k"), Some(value.as_bytes()));
            bench.append(builder.finish(), 0).expect("accepted");
        }
    };
    for (cut, has_snapshots) in [(88, true), (95, true), (99, true), (95, false), (61, false)] {
        let (mut bench, mut expected) = (Bench::new(config, 0), Bench::new(config, 0));
        append(&mut bench, 100);
        append(&mut expected, cut);
        let keys = bench.log.reader().shared.keys;
        if has_snapshots {
            // What was there before cannot be read.
            let damaged = Bytes::from_static(b"not a batch");
            for last_offset in [0, 20, 40].map(Offset) {
                let batch = damaged.clone();
                bench.commit(vec![Write::Batch {
                    family: bench.family,
                    last_offset,
                    batch,
                    sum: None,
                    in_order: false,
                }]);
            }
        } else {
            bench.commit(vec![Write::DeleteSides { keys: keys.snapshots_below(Offset::MAX) }]);
        }
        bench.change(|log, writes| log.truncate_to(Offset(cut), 0, writes)).expect("readable");
        for _ in 0..2 {
            assert_eq!(bench.log.log_end_offset(), Offset(cut));
            let (found, expected) = (bench.log.state().producers(), expected.log.state().producers());
            assert_eq!(found.entries(), expected.entries(), "cut to {cut}");
            bench = bench.reopen();
        }
        let mut left = 0;
        let count = &mut |_: &[u8], _: &[u8]| {
            left += 1;
            std::ops::ControlFlow::Continue(())
        };
        bench.dir.scan_sides(keys.snapshots_from(Offset(cut + 1)), count).expect("readable");
        assert_eq!(left, 0, "of a log that was longer");
    }
}

#[test]
fn two_snapshots_are_kept_and_small_logs_of_many_producers_take_none() {
    let snapshots = |bench: &Bench| {
        let mut found = Vec::new();
        let keys = bench.log.reader().shared.keys.snapshots_below(Offset::MAX);
        bench
            .dir
            .scan_sides(keys, &mut |key, value| {
                found.push(decode_snapshot(key, value).expect("readable").log_end.0);
                std::ops::ControlFlow::Continue(())
            })
            .expect("readable");
        found
    };
    let mut bench = Bench::new(LogConfig::default(), 0);
    let append = |bench: &mut Bench, id| {
        let mut builder = BatchBuilder::new().producer(ProducerId(id), ProducerEpoch(0), 0);
        builder.append(0, Some(b"k"), Some("x".repeat(4000).as_bytes()));
        bench.append(builder.finish(), 0).expect("accepted");
        bench.roll(0);
    };
    for (id, expected) in [(0, vec![1]), (1, vec![1]), (2, vec![1]), (3, vec![1, 4])] {
        append(&mut bench, id);
        assert_eq!(snapshots(&bench), expected);
    }
    bench = bench.reopen();
    for id in 4..9 {
        append(&mut bench, id);
        assert_eq!(snapshots(&bench), [4, 5], "of a log that holds more");
    }
}

/// A follower had moved its log start beyond where its new leader's log ends. Were its own end kept, it would ask for
/// what is out of range for ever. Source: Kafka 3.9 `UnifiedLog.truncateTo`.
#[test]
fn a_cut_below_the_log_start_lets_the_log_begin_anew_there() {
    let mut bench = Bench::new(LogConfig::default(), 0);
    for sequence in 0..6 {
        bench.append(from_producer(7, 1, sequence, 1), 0).expect("accepted");
    }
    bench.change(|log, writes| log.advance_log_start(Offset(5), writes));
    bench.change(|log, writes| log.truncate_to(Offset(3), 0, writes)).expect("readable");
    for _ in 0..2 {
        assert_eq!((bench.log.log_start_offset(), bench.log.log_end_offset()), (Offset(3), Offset(3)));
        assert_eq!(bench.stored(), []);
        bench = bench.reopen();
    }
    assert_eq!(bench.append(batch(&[(0, "a", None)]), 0).expect("accepted").base_offset, Offset(3));
    assert_eq!(bench.reopen().stored().len(), 1);
}

#[test]
fn a_batch_stored_behind_a_refused_one_is_cut_off_and_both_can_be_repeated() {
    let mut bench = Bench::new(LogConfig::default(), 0);
    bench.append(from_producer(7, 1, 0, 2), 0).expect("accepted");
    bench
        .log
        .append(from_producer(7, 1, 2, 2), LeaderEpoch(3), 0, None, &mut Vec::new())
        .expect("given out, then refused");
    let mut writes = Vec::new();
    bench.log.append(from_producer(7, 1, 4, 2), LeaderEpoch(3), 0, None, &mut writes).expect("given out");
    bench.commit(writes);
    let written_end = bench.log.written_end_offset();
    bench = bench.reopen();
    assert_eq!(bench.log.log_end_offset(), Offset(6));
    bench.change(|log, writes| log.truncate_to(written_end, 0, writes)).expect("readable");
    for sequence in [2, 4] {
        let appended = bench.append(from_producer(7, 1, sequence, 2), 0).expect("the next");
        assert_eq!((appended.duplicate, appended.base_offset), (false, Offset(i64::from(sequence))));
    }
    assert_eq!(bench.reopen().stored().len(), 6);
}

#[test]
fn side_records_that_outlived_their_batches_are_corrected() {
    let config = LogConfig { segment_bytes: 100_000, ..LogConfig::default() };
    let mut bench = Bench::new(config, 0);
    let value = "x".repeat(1000);
    for at in 0..300 {
        let mut builder = BatchBuilder::new().producer(ProducerId(at % 3), ProducerEpoch(0), (at / 3) as i32);
        builder.append(at, Some(b"k"), Some(value.as_bytes()));
        bench.append(builder.finish(), 0).expect("accepted");
    }
    let family = bench.family;
    bench.commit(vec![Write::DeleteBatches { family, last_offsets: Offset(150)..Offset::MAX }]);
    bench = bench.reopen();
    assert_eq!(bench.log.log_end_offset(), Offset(150));
    let next = bench.append(from_producer(0, 0, 50, 1), 0).expect("its sequences above the cut are forgotten");
    assert_eq!((next.duplicate, next.base_offset), (false, Offset(150)));
    bench = bench.reopen();
    assert_eq!(bench.log.log_end_offset(), Offset(151));
    let found = bench.log.reader().offset_for_timestamp(149, Offset(151)).expect("readable");
    assert_eq!(found, Some((149, Offset(149), LeaderEpoch(3))));
    assert_eq!(bench.log.reader().offset_for_timestamp(150, Offset(151)).expect("readable"), None);
}

#[test]
fn a_closed_log_answers_no_read_from_storage() {
    let mut bench = Bench::new(LogConfig::default(), 0);
    bench.append(batch(&[(5, "a", Some("1"))]), 0).expect("accepted");
    let reader = bench.log.reader();
    drop(bench.log);
    assert!(reader.read(Offset(0), Offset(1), 1000, true).is_err());
}

#[test]
fn a_sent_batch_may_share_its_buffer() {
    let mut bench = Bench::new(LogConfig::default(), 1 << 20);
    let sent = batch(&[(5, "a", Some("1"))]);
    let mut frame = BytesMut::from(&b"head"[..]);
    frame.extend_from_slice(&sent.bytes);
    let bytes = frame.split_off(4);
    bench.append(ValidBatch { bytes, ..sent }, 0).expect("accepted");
    assert_eq!(bench.stored().len(), 1);
}
