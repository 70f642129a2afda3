//! What changes growing tables: deleting, truncating, replacing, beginning anew, limits and errors; always followed by
//! a kill and by an orderly end.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::growing_tests::{
    append, copy, expect_for_ever, files, find_all_again, no_table_is_left, offsets, open_tables, stop_handing_over,
    tables, tables_of, value, values,
};
use super::tests::{create, eventually, parts};
use super::*;
use crate::storage::Write;
use crate::storage::contract::{batch, commit, delete, locate, partition, scan, side};

const BYTES: usize = 16 << 10;

/// Batches 0 to 3, 4 to 7 and 8 to 10 in three tables, the last of which grows. Where `handed_over`, the first two are
/// RocksDB's, and otherwise nothing will be until it has to.
fn three_tables(handed_over: bool) -> (tempfile::TempDir, Arc<RocksDirectory>, Family) {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open_tables(place.path(), 64 << 10);
    if !handed_over {
        stop_handing_over(&dir);
    }
    let family = create(&dir, "t");
    append(&dir, family, 0..11, BYTES);
    if handed_over {
        eventually("two are handed over", || tables(&dir, family).len() == 1);
    } else {
        assert_eq!(tables(&dir, family).len(), 3);
    }
    (place, dir, family)
}

/// As [`three_tables`], all RocksDB's since an earlier process, and found again.
fn three_found_again() -> (tempfile::TempDir, Arc<RocksDirectory>, Family) {
    let (place, dir, family) = three_tables(true);
    dir.settle(family).expect("settled");
    dir.close();
    let dir = open_tables(place.path(), 64 << 10);
    assert_eq!(find_all_again(&dir, family), 11 * BYTES);
    (place, dir, family)
}

fn for_all(check: impl Fn(tempfile::TempDir, Arc<RocksDirectory>, Family)) {
    for (place, dir, family) in [three_tables(false), three_tables(true), three_found_again()] {
        check(place, dir, family);
    }
}

fn write(dir: &RocksDirectory, writes: Vec<Write>) {
    commit(dir, writes, false).expect("commit");
}

#[test]
fn the_start_moves_past_tables() {
    for start in [1, 4, 6, 8, 10] {
        for_all(|place, dir, family| {
            write(&dir, vec![delete(family, 0..start)]);
            let left = tables(&dir, family).len();
            eventually("files go", || files(place.path()).len() == left);
            eventually("they are counted no more", || parts(&dir).growing.count() == left);
            append(&dir, family, 11..13, BYTES);
            expect_for_ever(&place, &dir, "t", &values(start..13, BYTES));
        });
    }
}

#[test]
fn all_of_a_log_is_deleted_and_it_goes_on() {
    for_all(|place, dir, family| {
        write(&dir, vec![delete(family, 0..i64::MAX)]);
        assert_eq!((offsets(&dir, family), dir.last_batch(family).expect("read")), (vec![], None));
        no_table_is_left(place.path(), &dir);
        append(&dir, family, 11..20, BYTES);
        expect_for_ever(&place, &dir, "t", &values(11..20, BYTES));
    });
}

#[test]
fn the_end_is_cut_off_and_written_again() {
    for from in [0, 1, 4, 6, 8, 9, 10] {
        for_all(|place, dir, family| {
            write(&dir, vec![delete(family, from..i64::MAX)]);
            assert_eq!(offsets(&dir, family), (0..from).collect::<Vec<_>>());
            append(&dir, family, from..16, BYTES + 8);
            let mut expected = values(0..from, BYTES);
            expected.extend(values(from..16, BYTES + 8));
            expect_for_ever(&place, &dir, "t", &expected);
        });
        for_all(|place, dir, family| {
            let mut expected = values(0..from, BYTES);
            expected.extend(values(from..11, BYTES / 2));
            let again = expected[from as usize..].iter().map(|(offset, value)| batch(family, *offset, value));
            write(&dir, [delete(family, from..i64::MAX)].into_iter().chain(again).collect());
            expect_for_ever(&place, &dir, "t", &expected);
        });
    }
}

#[test]
fn single_batches_are_replaced_and_deleted() {
    for offset in 0..11 {
        for_all(|place, dir, family| {
            write(&dir, vec![batch(family, offset, b"compacted")]);
            append(&dir, family, 11..13, BYTES);
            let mut expected = values(0..13, BYTES);
            expected[offset as usize].1 = b"compacted".to_vec();
            expect_for_ever(&place, &dir, "t", &expected);
        });
        for_all(|place, dir, family| {
            write(&dir, vec![Write::DeleteBatch { family, last_offset: Offset(offset) }]);
            append(&dir, family, 11..13, BYTES);
            let mut expected = values(0..13, BYTES);
            expected.remove(offset as usize);
            expect_for_ever(&place, &dir, "t", &expected);
        });
    }
}

#[test]
fn what_is_settled_has_no_tables_and_is_cut_off() {
    for from in [0, 1, 4, 6, 8, 10] {
        for_all(|place, dir, family| {
            dir.settle(family).expect("settled");
            assert_eq!((tables(&dir, family).len(), files(place.path()).len()), (0, 0));
            assert_eq!(offsets(&dir, family), (0..11).collect::<Vec<_>>());
            write(&dir, vec![delete(family, from..i64::MAX)]);
            append(&dir, family, from..16, BYTES + 8);
            let mut expected = values(0..from, BYTES);
            expected.extend(values(from..16, BYTES + 8));
            expect_for_ever(&place, &dir, "t", &expected);
        });
    }
}

/// Many partitions are cut at once when a leader dies: no other write waits while tables of up to 64 MiB are synced.
#[test]
fn others_write_while_a_family_is_settled() {
    let (_place, dir, family) = three_tables(false);
    let other = create(&dir, "other");
    let state = parts(&dir).families.state(family);
    // As long as its tables are being handed over.
    let handing_over = state.tables().lock_moves();
    let settling = Arc::clone(&dir);
    let settled = std::thread::spawn(move || settling.settle(family));
    eventually("it is sealed", || tables(&dir, family).iter().all(|table| table.is_sealed()));
    append(&dir, other, 0..20, BYTES);
    assert!(!settled.is_finished());
    drop(handing_over);
    settled.join().expect("no panic").expect("settled");
    assert!(tables(&dir, family).is_empty());
}

#[test]
fn a_log_begins_anew_at_an_earlier_offset() {
    for start in [6, 8, i64::MAX] {
        for reopened in [false, true] {
            for_all(|place, mut dir, family| {
                write(&dir, vec![delete(family, 0..start)]);
                if reopened {
                    dir.close();
                    dir = open_tables(place.path(), 64 << 10);
                }
                append(&dir, family, 3..4, BYTES + 8);
                let mut expected = values(3..4, BYTES + 8);
                expected.extend(values(start.min(11)..11, BYTES));
                assert_eq!(offsets(&dir, family), expected.iter().map(|(offset, _)| *offset).collect::<Vec<_>>());
                append(&dir, family, 11..20, BYTES);
                expected.extend(values(11..20, BYTES));
                expect_for_ever(&place, &dir, "t", &expected);
            });
        }
    }
}

#[test]
fn a_deleted_partitions_tables_go_and_do_not_come_back() {
    for_all(|place, dir, family| {
        let old: Vec<_> = files(place.path()).iter().map(|path| (path.clone(), std::fs::read(path))).collect();
        assert_eq!(old.is_empty(), tables(&dir, family).is_empty());
        dir.delete(&[partition("t", 0)]).expect("delete");
        no_table_is_left(place.path(), &dir);
        let mut n = 0;
        eventually("the family's return", || {
            n += 1;
            dir.create(&[partition("u", n)]).expect("create") == [family]
        });
        assert_eq!((offsets(&dir, family), dir.last_batch(family).expect("read")), (vec![], None));
        append(&dir, family, 0..6, BYTES);
        find_all_again(&dir, family);
        // As if the files had still been there.
        let killed = copy(place.path());
        for (path, bytes) in old {
            let target = killed.path().join("growing").join(path.file_name().expect("a name"));
            std::fs::write(target, bytes.expect("read")).expect("write");
        }
        for place in [killed.path(), place.path()] {
            dir.close();
            let dir = open_tables(place, 64 << 10);
            assert_eq!(dir.create(&[partition("u", n)]).expect("create"), [family]);
            assert_eq!(scan(&*dir, family, 0), values(0..6, BYTES));
            eventually("all are handed over", || files(place).is_empty());
            assert_eq!(scan(&*dir, family, 0), values(0..6, BYTES));
        }
    });
}

#[test]
fn a_deletion_cut_short_is_finished_at_the_next_start() {
    let (place, dir, family) = three_tables(false);
    parts(&dir).database.jobs().close();
    dir.delete(&[partition("t", 0)]).expect("delete");
    assert_eq!(offsets(&dir, family), [0_i64; 0]);
    let killed = copy(place.path());
    assert_eq!(files(killed.path()).len(), 3);
    let dir = open_tables(killed.path(), 64 << 10);
    assert_eq!((dir.partitions(), files(killed.path())), (vec![], vec![]));
    let mut n = 0;
    eventually("the family's return", || {
        n += 1;
        dir.create(&[partition("u", n)]).expect("create") == [family]
    });
    assert_eq!(offsets(&dir, family), [0_i64; 0]);
}

/// Numbers that look random, the same each time.
pub(super) struct Numbers(pub(super) u64);

impl Numbers {
    pub(super) fn below(&mut self, bound: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as i64 % bound.max(1)
    }
}

/// Applies a write to what the log should hold.
fn apply(model: &mut BTreeMap<i64, Vec<u8>>, write: &Write) {
    match write {
        Write::Batch { last_offset, batch, .. } => drop(model.insert(last_offset.0, batch.to_vec())),
        Write::DeleteBatch { last_offset, .. } => drop(model.remove(&last_offset.0)),
        Write::DeleteBatches { last_offsets, .. } => model.retain(|key, _| !last_offsets.contains(&Offset(*key))),
        _ => {}
    }
}

/// A few writes of a kind that depends on chance.
fn some_writes(numbers: &mut Numbers, family: Family, model: &BTreeMap<i64, Vec<u8>>) -> Vec<Write> {
    let (first, last) = (model.keys().next().copied().unwrap_or(0), model.keys().last().copied().unwrap_or(-1));
    let within = first + numbers.below(last - first + 2);
    match numbers.below(40) {
        0 => vec![delete(family, 0..within)],
        1 => vec![delete(family, within..i64::MAX)],
        2 => vec![delete(family, within..within + numbers.below(5))],
        3 => vec![Write::DeleteBatch { family, last_offset: Offset(last - numbers.below(6)) }],
        4 => vec![batch(family, within, b"replaced"), Write::DeleteBatch { family, last_offset: Offset(within + 1) }],
        5 if numbers.below(3) == 0 => vec![delete(family, 0..i64::MAX), batch(family, within / 2, &value(7, 300))],
        6 => vec![delete(family, within..i64::MAX), batch(family, within, &value(within, 3000))],
        _ => {
            let bytes = [60, 200, 5000, 20_000][(last / 90 % 4) as usize] + numbers.below(100) as usize;
            let mut next = last;
            (0..=numbers.below(3))
                .map(|_| {
                    next += 1 + numbers.below(8) / 7;
                    batch(family, next, &value(next, bytes))
                })
                .collect()
        }
    }
}

/// Answers how many bytes were located, and how many tables found again.
fn random_changes(seed: u64, piece_bytes: usize, table_bytes: u64, cached: Option<u64>) -> (usize, usize) {
    let cached = cached.map(|max| CachedBytes { max, at_once: max });
    let options =
        DirectoryOptions { table_piece_bytes: piece_bytes, cached, is_same_boot: true, ..tables_of(table_bytes) };
    let mut place = tempfile::tempdir().expect("tempdir");
    let mut dir = RocksDirectory::open(place.path(), options.clone()).expect("open");
    let mut numbers = Numbers(seed);
    let (mut model, mut located, mut found_again) = (BTreeMap::new(), 0, 0);
    let family = create(&dir, "t");
    for step in 0..600 {
        let writes = some_writes(&mut numbers, family, &model);
        let what = format!("seed {seed}, step {step}");
        for write in &writes {
            apply(&mut model, write);
        }
        commit(&*dir, writes, numbers.below(50) == 0).expect("commit");
        match numbers.below(60) {
            0 => dir.close(),
            1 => {
                let killed = copy(place.path());
                dir.close();
                place = killed;
            }
            2 => stop_handing_over(&dir),
            _ => {}
        }
        if dir.opened().is_none() {
            dir = RocksDirectory::open(place.path(), options.clone()).expect("open");
        }
        let last = dir.last_batch(family).expect("read").map(|(last, batch)| (last.0, batch.to_vec()));
        assert!(last == model.last_key_value().map(|(key, batch)| (*key, batch.clone())), "{what}");
        if step % 7 == 0 {
            let from = numbers.below(model.keys().last().copied().unwrap_or(0) + 2);
            found_again += usize::from(dir.find_again(family, Offset(from)).expect("looked for"));
        }
        if step % 5 == 0 {
            let from = numbers.below(model.keys().last().copied().unwrap_or(0) + 2);
            let found: Vec<i64> = scan(&*dir, family, from).into_iter().map(|(key, _)| key).collect();
            assert_eq!(found, model.range(from..).map(|(key, _)| *key).collect::<Vec<_>>(), "{what}, from {from}");
            located += locate(&*dir, family, from);
            assert!(scan(&*dir, family, 0).into_iter().eq(model.clone()), "{what}");
        }
    }
    let expected: Vec<_> = model.into_iter().collect();
    assert!(scan(&*dir, family, 0) == expected, "seed {seed}");
    expect_for_ever(&place, &dir, "t", &expected);
    (located, found_again)
}

#[test]
fn whatever_is_done_to_it_a_log_holds_what_it_should() {
    let mut found_again = 0;
    for (first, piece_bytes, table_bytes, cached) in
        [(0, 1, 100 << 10, None), (100, 40, 1, Some(50 << 10)), (200, 200, 1 << 20, Some(0))]
    {
        let mut located = 0;
        for seed in first..first + 3 {
            let (bytes, tables) = random_changes(seed, piece_bytes, table_bytes, cached);
            located += bytes;
            found_again += tables;
        }
        assert!(located > 0, "seeds from {first} on: nothing was ever located");
    }
    assert!(found_again > 2, "{found_again}");
}

/// Tables are found while their keys change: whoever looks afterwards sees what there is.
#[test]
fn what_changes_while_it_is_found_again_is_not_found() {
    for _ in 0..20 {
        let (place, dir, family) = three_tables(true);
        dir.settle(family).expect("settled");
        dir.close();
        let dir = open_tables(place.path(), 64 << 10);
        let (finder, done) = (Arc::clone(&dir), Arc::new(std::sync::atomic::AtomicBool::new(false)));
        let ended = Arc::clone(&done);
        let finding = std::thread::spawn(move || {
            let mut found = 0;
            while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                for offset in 0..11 {
                    found += usize::from(finder.find_again(family, Offset(offset)).expect("looked for"));
                }
            }
            found
        });
        let mut expected: BTreeMap<_, _> = values(0..11, BYTES).into_iter().collect();
        for offset in (0..11).rev() {
            let changed = value(offset + 100, 1000);
            write(&dir, vec![batch(family, offset, &changed)]);
            expected.insert(offset, changed);
            assert!(scan(&*dir, family, 0).into_iter().eq(expected.clone()), "{offset}");
            locate(&*dir, family, 0);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        finding.join().expect("no panic");
    }
}

#[test]
fn a_sync_covers_tables() {
    let (place, dir, family) = three_tables(false);
    for offset in 11..15 {
        let writes = vec![batch(family, offset, &value(offset, BYTES)), side(b"x", &offset.to_be_bytes())];
        commit(&*dir, writes, true).expect("commit");
    }
    let all = tables(&dir, family);
    let (last, sealed) = all.split_last().expect("tables");
    assert!(sealed.iter().all(|table| table.is_sealed()) && !last.is_sealed());
    let follower = sealed.last().expect("a sealed one");
    assert!(!follower.is_synced() || follower.is_sealed());
    commit(&*dir, vec![], true).expect("a sync alone");
    expect_for_ever(&place, &dir, "t", &values(0..15, BYTES));
}

/// Appends to eight partitions in turn and tells after each batch how many tables there are, and the bytes in them.
fn append_to_eight(options: DirectoryOptions, mut look: impl FnMut(usize, u64)) {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = RocksDirectory::open(place.path(), options).expect("open");
    let families: Vec<_> = (0..8).map(|n| create(&dir, &format!("t{n}"))).collect();
    for offset in 0..40 {
        for family in &families {
            append(&dir, *family, offset..offset + 1, BYTES);
            look(parts(&dir).growing.count(), parts(&dir).growing.bytes());
        }
    }
    for family in &families {
        assert_eq!(scan(&*dir, *family, 0), values(0..40, BYTES));
    }
    expect_for_ever(&place, &dir, "t7", &values(0..40, BYTES));
}

#[test]
fn there_are_no_more_tables_than_allowed() {
    let mut most = 0;
    let options = DirectoryOptions { tables_max: 3, ..tables_of(64 << 20) };
    append_to_eight(options, |count, _| most = count.max(most));
    assert_eq!(most, 3);
}

#[test]
fn there_are_no_more_bytes_in_tables_than_allowed() {
    let mut most = 0;
    let options = DirectoryOptions { tables_bytes_max: 200 << 10, ..tables_of(64 << 20) };
    append_to_eight(options, |_, bytes| most = bytes.max(most));
    // The writer waits once it is twice as much.
    assert!((200 << 10..440 << 10).contains(&most), "{most}");
}

#[test]
fn many_partitions_close_within_a_second_and_leave_nothing_when_they_are_deleted() {
    let place = tempfile::tempdir().expect("tempdir");
    let options = DirectoryOptions { tables_max: 300, ..tables_of(64 << 20) };
    let open = || RocksDirectory::open(place.path(), options.clone()).expect("open");
    let dir = open();
    let ids: Vec<_> = (0..300).map(|n| partition("many", n)).collect();
    let families = dir.create(&ids).expect("create");
    for offset in 0..5 {
        write(&dir, families.iter().map(|family| batch(*family, offset, &value(offset, 4000))).collect());
    }
    assert_eq!(parts(&dir).growing.count(), 300);
    let begun = Instant::now();
    dir.close();
    let took = begun.elapsed();
    // A second on a machine that does nothing else.
    assert!(took < Duration::from_secs(3), "{took:?}");
    let dir = open();
    for family in &families {
        assert_eq!(scan(&*dir, *family, 0), values(0..5, 4000));
    }
    for offset in 5..8 {
        write(&dir, families.iter().map(|family| batch(*family, offset, &value(offset, 4000))).collect());
    }
    for family in &families {
        assert_eq!(scan(&*dir, *family, 0), values(0..8, 4000));
    }
    dir.delete(&ids).expect("delete");
    no_table_is_left(place.path(), &dir);
}

fn is_stopped(outcome: &Result<(), StorageError>) -> bool {
    matches!(outcome, Err(StorageError::Stopped { .. })) // I-6
}

#[test]
fn a_table_that_cannot_be_begun_stops_the_directory() {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open_tables(place.path(), 64 << 10);
    let family = create(&dir, "t");
    append(&dir, family, 0..1, 40);
    std::fs::write(place.path().join("growing"), b"").expect("write");
    let outcome = commit(&*dir, vec![batch(family, 1, &value(1, BYTES))], false);
    assert!(is_stopped(&outcome), "{outcome:?}");
    let outcome = commit(&*dir, vec![batch(family, 1, b"small")], false);
    assert!(is_stopped(&outcome), "{outcome:?}");
    assert_eq!(scan(&*dir, family, 0), values(0..1, 40));
    dir.close();
    let refused = RocksDirectory::open(place.path(), tables_of(1));
    assert!(matches!(refused, Err(OpenError::Io { .. })), "{refused:?}");
    std::fs::remove_file(place.path().join("growing")).expect("remove");
    let dir = open_tables(place.path(), 64 << 10);
    append(&dir, family, 1..20, BYTES);
    assert_eq!(offsets(&dir, family), (0..20).collect::<Vec<_>>());
}

#[test]
fn tables_that_cannot_be_handed_over_stop_the_directory() {
    let (place, dir, family) = three_tables(true);
    let (growing, aside) = (place.path().join("growing"), place.path().join("aside"));
    std::fs::rename(&growing, &aside).expect("rename");
    std::fs::write(&growing, b"").expect("write");
    let mut offset = 11;
    let outcome = loop {
        let outcome = commit(&*dir, vec![batch(family, offset, &value(offset, BYTES))], false);
        if outcome.is_err() {
            break outcome;
        }
        offset += 1;
        assert!(offset < 20, "a full table is followed by another");
    };
    assert!(is_stopped(&outcome), "{outcome:?}");
    assert!(is_stopped(&commit(&*dir, vec![side(b"x", b"x")], false)));
    // What was acknowledged is still read.
    assert_eq!(scan(&*dir, family, 0), values(0..offset, BYTES));
    dir.close();
    std::fs::remove_file(&growing).expect("remove");
    std::fs::rename(&aside, &growing).expect("rename");
    let dir = open_tables(place.path(), 64 << 10);
    expect_for_ever(&place, &dir, "t", &values(0..offset, BYTES));
}
