//! What a follower appends, over the directory's twin in memory: it knows what the leader knows, whatever the slices
//! in which it gets the leader's bytes; and what is no good changes nothing.

use bytes::{Bytes, BytesMut};

use crate::log::config::LogConfig;
use crate::log::partition_log::{FetchedAppend, FetchedError};
use crate::log::testing::{Bench, RandomProducers, batch, expect_same, from_producer, joined};
use crate::record::batch::CHECKED_FROM;
use crate::record::{BatchBuilder, BatchHeader, checksum};
use crate::types::{LeaderEpoch, Offset, ProducerEpoch, ProducerId, TransactionMarker, TransactionResult};

const EPOCH: LeaderEpoch = LeaderEpoch(3);

impl Bench {
    /// Appends what was fetched and waits for the write.
    fn follow(&mut self, records: Bytes, epoch: LeaderEpoch) -> Result<FetchedAppend, FetchedError> {
        let mut writes = Vec::new();
        let appended = self.log.append_fetched(records, epoch, 0, &mut writes);
        if appended.is_err() {
            assert!(writes.is_empty(), "nothing changes on an error");
        }
        self.commit(writes);
        if let Ok(FetchedAppend { last_offset: Some(last_offset), .. }) = appended {
            self.log.on_written(last_offset);
        }
        appended
    }

    /// Everything from an offset on, as a leader sends it.
    fn sent_from(&self, from: Offset) -> Bytes {
        joined(&self.log.reader().read_storage(from, Offset::MAX, usize::MAX, true).expect("readable").batches)
    }
}

fn bench() -> Bench {
    Bench::new(LogConfig::default(), 1 << 20)
}

#[test]
fn a_follower_knows_what_its_leader_knows_whatever_the_slices() {
    for seed in 1..60 {
        let config = LogConfig { segment_bytes: 2500, segment_ms: 1500, ..LogConfig::default() };
        let (mut leader, mut follower) = (Bench::new(config, 1 << 20), Bench::new(config, 1 << 20));
        let mut producers = RandomProducers::new(seed);
        let mut epoch = LeaderEpoch(0);
        // As in Kafka a start forgets which ends of transactions are not replicated yet.
        let restarts = seed % 2 == 0;
        for _ in 0..40 {
            for _ in 0..producers.dice(12) {
                let mut writes = Vec::new();
                let appended = producers.append(&mut leader.log, epoch, &mut writes);
                leader.commit(writes);
                if let Some(appended) = appended {
                    leader.log.on_written(appended.last_offset);
                }
            }
            let sent = leader.sent_from(follower.log.log_end_offset());
            let slice = sent.slice(..producers.dice(sent.len() as u64 + 1) as usize);
            let appended = follower.follow(slice, epoch).expect("good records");
            assert_eq!(appended.log_end_offset, follower.log.log_end_offset());
            match producers.dice(8) {
                0 if restarts => follower = follower.reopen(),
                1 if restarts => leader = leader.reopen(),
                2 => {
                    epoch = LeaderEpoch(epoch.0 + 1 + producers.dice(2) as i32);
                    leader.change(|log, writes| log.assign_epoch(epoch, writes));
                }
                _ => {}
            }
        }
        follower.follow(leader.sent_from(follower.log.log_end_offset()), epoch).expect("good records");
        for restart in 0..3 {
            let end = leader.log.log_end_offset();
            let high_watermark =
                if restarts || restart > 0 { end } else { Offset(producers.dice(end.0 as u64 + 1) as i64) };
            let (found, expected) = (follower.log.facts(high_watermark), leader.log.facts(high_watermark));
            expect_same(&found, &expected, &format!("seed {seed}, restart {restart}"));
            (leader, follower) = (leader.reopen(), follower.reopen());
        }
    }
}

/// Two batches of two records, from 0 on.
fn two() -> (Bench, Bytes, usize) {
    let mut leader = bench();
    for sequence in [0, 2] {
        leader.append(from_producer(7, 1, sequence, 2), 0).expect("accepted");
    }
    let sent = leader.sent_from(Offset(0));
    let first = BatchHeader::parse(&sent).expect("a batch").size_bytes();
    (leader, sent, first)
}

#[test]
fn a_batch_that_is_cut_short_is_left_out() {
    let (leader, sent, first) = two();
    for len in 0..=sent.len() {
        let mut follower = bench();
        let appended = follower.follow(sent.slice(..len), EPOCH).expect("good records");
        let (end, bytes) = match len {
            len if len < first => (0, 0),
            len if len < sent.len() => (2, first),
            _ => (4, sent.len()),
        };
        let last_offset = Some(Offset(end - 1)).filter(|_| end > 0);
        assert_eq!(
            appended,
            FetchedAppend { last_offset, log_end_offset: Offset(end), rolled: false, bytes: bytes as u64 }
        );
        let again = follower.follow(leader.sent_from(Offset(end)), EPOCH).expect("the rest");
        assert_eq!(again.log_end_offset, Offset(4));
        assert_eq!(follower.sent_from(Offset(0)), sent, "I-4");
    }
}

#[test]
fn every_wrong_bit_is_noticed_before_anything_changes() {
    let (_, sent, first) = two();
    for at in (8..12).chain(16..first).chain(first + 16..sent.len()) {
        let mut wrong = BytesMut::from(&sent[..]);
        wrong[at] ^= 1;
        let mut follower = bench();
        let before = follower.log.facts(Offset(0));
        match follower.follow(wrong.freeze(), EPOCH) {
            Err(FetchedError::Corrupt(_) | FetchedError::OldFormat(_)) => {}
            // The length says that more is to come.
            Ok(FetchedAppend { last_offset: None, .. }) if (8..12).contains(&at) => {}
            other => panic!("byte {at}: {other:?}"),
        }
        expect_same(&follower.log.facts(Offset(0)), &before, "unchanged");
    }
}

/// The same batch with other offsets, as compaction or another leader has it.
fn moved(batch: &[u8], base_offset: i64, last_offset_delta: i32, epoch: i32) -> Bytes {
    let header = BatchHeader {
        base_offset: Offset(base_offset),
        last_offset_delta,
        partition_leader_epoch: LeaderEpoch(epoch),
        ..BatchHeader::parse(batch).expect("a batch")
    };
    let mut bytes = BytesMut::from(batch);
    bytes[..61].copy_from_slice(&header.to_bytes());
    let crc = checksum::of_batch(&bytes).expect("long enough");
    bytes[17..CHECKED_FROM].copy_from_slice(&crc.to_be_bytes());
    bytes.freeze()
}

#[test]
fn gaps_are_taken_and_overlaps_are_not() {
    let (_, sent, first) = two();
    let one = sent.slice(..first);
    let mut follower = bench();
    for (base, end) in [(5, 7), (7, 9), (100, 102)] {
        let appended = follower.follow(moved(&one, base, 1, 3), EPOCH).expect("behind the end");
        assert_eq!((appended.last_offset, appended.log_end_offset), (Some(Offset(end - 1)), Offset(end)));
    }
    for base in [0, 100, 101] {
        let (base_offset, log_end_offset) = (Offset(base), Offset(102));
        let refused = follower.follow(moved(&one, base, 1, 3), EPOCH);
        assert_eq!(refused, Err(FetchedError::Unexpected { base_offset, log_end_offset }));
    }
    let both = joined(&[moved(&one, 200, 1, 3), moved(&one, 201, 1, 3)]);
    assert!(matches!(follower.follow(both, EPOCH), Err(FetchedError::Unexpected { .. })), "all or nothing");
    for (base, delta) in [(102, -1), (i64::MAX - 1, 0), (i64::MAX, 1), (102, i32::MIN)] {
        assert!(matches!(follower.follow(moved(&one, base, delta, 3), EPOCH), Err(FetchedError::Corrupt(_))));
    }
    for _ in 0..2 {
        assert_eq!(follower.log.log_end_offset(), Offset(102));
        assert_eq!(follower.log.latest_epoch(), Some(EPOCH));
        assert_eq!(follower.log.epoch_at(Offset(5)), Some(EPOCH));
        assert_eq!(follower.log.epoch_at(Offset(4)), None, "it begins with its first batch");
        follower = follower.reopen();
    }
}

#[test]
fn what_a_later_leader_wrote_waits_until_its_epoch_is_known() {
    let (_, sent, first) = two();
    let one = sent.slice(..first);
    let records = joined(&[moved(&one, 0, 1, 2), moved(&one, 2, 1, 3), moved(&one, 4, 1, 3)]);
    let mut follower = bench();
    let appended = follower.follow(records.clone(), LeaderEpoch(2)).expect("good records");
    assert_eq!((appended.last_offset, appended.log_end_offset), (Some(Offset(1)), Offset(2)));
    let none = follower.follow(records.slice(first..), LeaderEpoch(2)).expect("good records");
    assert_eq!((none.last_offset, none.bytes), (None, 0));
    let appended = follower.follow(records.slice(first..), LeaderEpoch(3)).expect("good records");
    assert_eq!(appended.log_end_offset, Offset(6));
    assert_eq!(follower.log.end_offset_for_epoch(LeaderEpoch(2)), Some((LeaderEpoch(2), Offset(2))));
}

#[test]
fn old_formats_are_told_apart_from_damage() {
    let (_, sent, first) = two();
    for (magic, is_old) in [(0, true), (1, true), (3, false), (-1, false)] {
        let mut old = BytesMut::from(&sent[..]);
        old[first + 16] = magic as u8;
        let refused = bench().follow(old.freeze(), EPOCH).expect_err("refused, and what came before with it");
        assert_eq!(refused == FetchedError::OldFormat(magic), is_old, "{refused}");
    }
}

/// Kafka's cleaner leaves a control batch without its record where the whole transaction is gone.
#[test]
fn an_emptied_marker_ends_nothing_and_is_read_again_at_a_start() {
    let mut leader = bench();
    let marker = TransactionMarker {
        producer_id: ProducerId(7),
        producer_epoch: ProducerEpoch(1),
        coordinator_epoch: 9,
        result: TransactionResult::Commit,
    };
    leader.change(|log, writes| log.append_marker(&marker, EPOCH, 0, writes).expect("appended"));
    let sent = leader.sent_from(Offset(0));
    let emptied = BatchBuilder::retaining(&BatchHeader::parse(&sent).expect("a batch")).expect("a codec").finish();
    let mut follower = bench();
    let data = crate::log::transaction_tests::transactional(7, 1, 0, &[("k", "v")]);
    follower.append_verified(data).expect("verified");
    let appended = follower.follow(moved(&emptied.bytes, 1, 0, 3), EPOCH).expect("taken");
    assert_eq!(appended.log_end_offset, Offset(2));
    for _ in 0..2 {
        assert_eq!(follower.log.last_stable_offset(Offset(2)), Offset(0), "still open");
        follower = follower.reopen();
    }
    follower.follow(moved(&sent, 2, 0, 3), EPOCH).expect("taken");
    assert_eq!(follower.log.last_stable_offset(Offset(3)), Offset(3));
}

#[test]
fn what_was_fetched_is_in_the_tail_for_the_first_readers_of_a_new_leader() {
    let (leader, sent, _) = two();
    let mut follower = bench();
    follower.follow(sent, EPOCH).expect("good records");
    let reader = follower.log.reader();
    let found = reader.read_memory(Offset(0), Offset(4), 1000, true).expect("in memory");
    let expected = leader.log.reader().read(Offset(0), Offset(4), 1000, true).expect("readable");
    assert_eq!(found.batches, expected.batches);
    follower.append(batch(&[(0, "a", None)]), 0).expect("leads now");
    let read = follower.log.reader().read(Offset(0), Offset(5), 10_000, true).expect("readable");
    assert_eq!((read.batches.len(), read.end), (3, Offset(5)));
}

#[test]
fn a_recorded_high_watermark_is_found_again_within_the_log() {
    let mut bench = bench();
    assert_eq!(bench.log.checkpointed_high_watermark(), None);
    for _ in 0..6 {
        bench.append(batch(&[(0, "a", None)]), 0).expect("accepted");
    }
    bench.change(|log, writes| log.checkpoint_high_watermark(Offset(4), writes));
    bench.change(|log, writes| {
        log.checkpoint_high_watermark(Offset(4), writes);
        assert!(writes.is_empty(), "it is recorded");
    });
    bench = bench.reopen();
    assert_eq!(bench.log.checkpointed_high_watermark(), Some(Offset(4)));
    // What a cut takes does not come back as replicated when others stand there.
    bench.change(|log, writes| log.truncate_to(Offset(3), 0, writes)).expect("readable");
    for _ in 0..3 {
        bench.append(batch(&[(0, "b", None)]), 0).expect("accepted");
        assert_eq!(bench.log.checkpointed_high_watermark(), Some(Offset(3)));
        bench = bench.reopen();
    }
    bench.change(|log, writes| log.advance_log_start(Offset(5), writes));
    assert_eq!(bench.log.checkpointed_high_watermark(), Some(Offset(5)), "not below the log start");
    assert_eq!(bench.reopen().log.checkpointed_high_watermark(), Some(Offset(5)));
}

/// A loss of power took batches that a record of the high watermark outlived.
#[test]
fn a_recorded_high_watermark_goes_back_with_a_log_that_lost_its_end() {
    let mut bench = bench();
    for _ in 0..6 {
        bench.append(batch(&[(0, "a", None)]), 0).expect("accepted");
    }
    bench.change(|log, writes| log.checkpoint_high_watermark(Offset(6), writes));
    let last_offsets = Offset(2)..Offset::MAX;
    bench.commit(vec![crate::storage::Write::DeleteBatches { family: bench.family, last_offsets }]);
    bench = bench.reopen();
    for end in 3..7 {
        assert_eq!(bench.log.checkpointed_high_watermark(), Some(Offset(2)));
        bench.append(batch(&[(0, "b", None)]), 0).expect("accepted");
        assert_eq!(bench.log.log_end_offset(), Offset(end));
        bench = bench.reopen();
    }
}
