//! Growing tables after a loss of power: whatever it took of them, the log is a beginning of what it was.

use std::sync::atomic::Ordering;

use rustix::io::Errno;

use super::changing_tests::Numbers;
use super::database::Operation;
use super::failure_tests::Recorded;
use super::growing::table::{GrowingTable, HEADER_BYTES};
use super::growing_tests::{
    append, copy, expect_for_ever, files, offsets, open_tables, stop_handing_over, tables, tables_of, value, values,
};
use super::tests::{create, eventually, parts};
use super::*;
use crate::storage::Write;
use crate::storage::contract::{commit, partition, scan};

const BYTES: usize = 16 << 10;

/// Batches 0 and 1 in the log, 2 to 5, 6 to 9 and 10 to 12 in three tables; nothing of them is handed over.
struct Three {
    place: tempfile::TempDir,
    /// The tables' names, and where each one's blocks end.
    tables: Vec<(PathBuf, Vec<u64>)>,
}

fn three_tables() -> Three {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open_tables(place.path(), 64 << 10);
    stop_handing_over(&dir);
    let family = create(&dir, "t");
    append(&dir, family, 0..2, 56);
    append(&dir, family, 2..13, BYTES);
    assert_eq!(offsets(&dir, family), (0..13).collect::<Vec<_>>());
    let bounds: Vec<_> = tables(&dir, family).iter().filter_map(|table| table.bounds()).collect();
    assert_eq!(bounds, [(2, 5), (6, 9), (10, 12)].map(|(first, last)| (Offset(first), Offset(last))));
    let ends = |table: &Arc<GrowingTable>| {
        let name = table.path().file_name().expect("a name").into();
        let bytes = std::fs::read(table.path()).expect("read");
        let mut ends = vec![HEADER_BYTES as u64];
        while let Some(block) = ends.last().and_then(|at| growing::layout::parse_head(*at, &bytes[*at as usize..])) {
            ends.push(block.end());
        }
        (name, ends)
    };
    let found = tables(&dir, family).iter().map(ends).collect();
    let killed = copy(place.path());
    dir.close();
    Three { place: killed, tables: found }
}

impl Three {
    /// Damages the table of this number in a copy and looks what is left.
    fn check(&self, what: &str, number: usize, left: i64, damage: impl FnOnce(&Path)) {
        let place = copy(self.place.path());
        let path = place.path().join("growing").join(&self.tables[number].0);
        let what = format!("table {number} {what}");
        damage(&path);
        check_left(&what, place.path(), left);
    }
}

/// So many batches from the first on, then as many more as fill a table; whatever happens.
fn check_left(what: &str, place: &Path, left: i64) {
    let bytes = |offset: i64| if offset < 2 { 56 } else { BYTES };
    let mut next = left;
    for round in 0..3 {
        let dir = open_tables(place, 64 << 10);
        let family = create(&dir, "t");
        let expected: Vec<_> = (0..next).map(|offset| (offset, value(offset, bytes(offset)))).collect();
        let found = scan(&*dir, family, 0);
        let found_offsets: Vec<i64> = found.iter().map(|(offset, _)| *offset).collect();
        assert_eq!(found_offsets, (0..next).collect::<Vec<_>>(), "{what}, round {round}");
        assert!(found == expected, "{what}, round {round}");
        assert_eq!(dir.last_batch(family).expect("read").map(|(last, _)| last.0), next.checked_sub(1), "{what}");
        append(&dir, family, next..next + 3, BYTES);
        next += 3;
        assert_eq!(offsets(&dir, family), (0..next).collect::<Vec<_>>(), "{what}, round {round}");
        if round == 1 {
            eventually("handed over", || tables(&dir, family).iter().all(|table| !table.is_sealed()));
            assert_eq!(offsets(&dir, family), (0..next).collect::<Vec<_>>(), "{what}, round {round}");
        }
        dir.close();
    }
}

fn write(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).expect("read");
    change(&mut bytes);
    std::fs::write(path, bytes).expect("write");
}

#[test]
fn a_table_that_lost_its_end_ends_the_log() {
    let three = three_tables();
    let first = [2, 6, 10];
    three.check("whole", 0, 13, |_| ());
    for (number, (_, ends)) in three.tables.iter().enumerate() {
        for (blocks, end) in ends.iter().enumerate() {
            let whole = blocks + 1 == ends.len();
            let log_end = |blocks: usize| {
                if blocks + 1 == ends.len() { [6, 10, 13][number] } else { first[number] + blocks as i64 }
            };
            // The tables behind one that is whole count.
            let left = if whole { 13 } else { log_end(blocks) };
            let before = if blocks == 0 { first[number] } else { log_end(blocks - 1) };
            let cut = |length: u64| move |path: &Path| write(path, |bytes| bytes.truncate(length as usize));
            three.check(&format!("cut at {end}"), number, left, cut(*end));
            three.check(&format!("cut before {end}"), number, before, cut(*end - 1));
            let one_more = move |path: &Path| {
                write(path, |bytes| {
                    bytes.truncate(*end as usize);
                    bytes.push(0);
                });
            };
            three.check(&format!("cut behind {end}"), number, left, one_more);
        }
        three.check("cut within its header", number, first[number], |path| write(path, |bytes| bytes.truncate(17)));
        three.check("empty", number, first[number], |path| write(path, Vec::clear));
        three.check("gone", number, first[number], |path| std::fs::remove_file(path).expect("remove"));
        three.check("a zero header", number, first[number], |path| write(path, |bytes| bytes[..64].fill(0)));
        three.check("all zero", number, first[number], |path| write(path, |bytes| bytes.fill(0)));
    }
}

#[test]
fn zeros_and_flipped_bits_end_the_log() {
    let three = three_tables();
    let first = [2, 6, 10];
    for (number, (_, ends)) in three.tables.iter().enumerate() {
        for (block, start) in ends[..ends.len() - 1].iter().enumerate() {
            let left = first[number] + block as i64;
            let start = *start as usize;
            three.check("zero from", number, left, |path| write(path, |bytes| bytes[start + 5000..].fill(0)));
            for at in [0, 1, 5, 10, 20, 9000] {
                three.check(&format!("flipped at {at} of {block}"), number, left, |path| {
                    write(path, |bytes| bytes[start + at] ^= 4);
                });
            }
        }
    }
}

/// A name that was left beside RocksDB's own goes, whatever state it is found in, and the file stays as it is.
#[test]
fn the_second_name_of_a_table_handed_over_is_removed() {
    let three = three_tables();
    let names: Vec<_> = three.tables.iter().map(|(name, _)| three.place.path().join("growing").join(name)).collect();
    let aside = |path: &Path| three.place.path().join(path.file_name().expect("a name"));
    for name in &names {
        std::fs::hard_link(name, aside(name)).expect("link");
    }
    let dir = open_tables(three.place.path(), 64 << 10);
    let family = create(&dir, "t");
    eventually("all are handed over", || tables(&dir, family).is_empty());
    let expected = scan(&*dir, family, 0);
    assert_eq!(expected.len(), 13);
    dir.close();
    for some in [&names[..1], &names[1..2], &names[..]] {
        let lengths: Vec<u64> = some.iter().map(|name| aside(name).metadata().expect("metadata").len()).collect();
        for name in some {
            std::fs::hard_link(aside(name), name).expect("link");
        }
        let dir = open_tables(three.place.path(), 64 << 10);
        assert!(names.iter().all(|name| !name.exists()));
        assert!(tables(&dir, family).is_empty());
        assert!(scan(&*dir, family, 0) == expected);
        dir.close();
        let after: Vec<u64> = some.iter().map(|name| aside(name).metadata().expect("metadata").len()).collect();
        assert_eq!(after, lengths);
    }
    check_left("second names", three.place.path(), 13);
}

/// Two tables lost all they had while a third did not.
#[test]
fn a_table_behind_two_that_were_lost_is_left_out() {
    let three = three_tables();
    for damage in [0, 20, HEADER_BYTES, HEADER_BYTES + 100] {
        for other in 0..2 {
            let place = copy(three.place.path());
            let growing = place.path().join("growing");
            write(&growing.join(&three.tables[0].0), |bytes| bytes.truncate(damage));
            write(&growing.join(&three.tables[1 + other].0), |bytes| bytes.truncate(HEADER_BYTES));
            check_left(&format!("{damage} bytes left, and none of {}", 1 + other), place.path(), 2);
        }
    }
}

/// The key before a table says that nothing was lost. Where compaction removes it, the table is handed over.
#[test]
fn the_key_before_a_table_may_be_deleted() {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open_tables(place.path(), 64 << 10);
    let family = create(&dir, "t");
    append(&dir, family, 0..6, BYTES);
    eventually("the first is handed over", || tables(&dir, family).len() == 1);
    assert_eq!(tables(&dir, family)[0].bounds(), Some((Offset(4), Offset(5))));
    commit(&*dir, vec![Write::DeleteBatch { family, last_offset: Offset(3) }], false).expect("commit");
    append(&dir, family, 6..8, BYTES);
    let mut expected = values(0..8, BYTES);
    expected.remove(3);
    expect_for_ever(&place, &dir, "t", &expected);
}

/// Batches of all sizes, so that tables give way to the log and come back. Whatever is taken of tables that nobody
/// brought to the disk, what is left is a beginning of the log.
#[test]
fn no_hole_is_left_whatever_was_not_on_the_disk() {
    for (seed, piece_bytes, table_bytes) in [(1, 1, 64 << 10), (2, 40, 200 << 10), (3, 300, 1 << 20), (4, 20, 1)] {
        let mut numbers = Numbers(seed);
        let place = tempfile::tempdir().expect("tempdir");
        let options = DirectoryOptions { table_piece_bytes: piece_bytes, ..tables_of(table_bytes) };
        let dir = RocksDirectory::open(place.path(), options.clone()).expect("open");
        let family = create(&dir, "t");
        let bytes = |offset: i64| [100, 3000, 20_000][(offset / 80 % 3) as usize] + (offset % 64) as usize;
        for offset in 0..600 {
            append(&dir, family, offset..offset + 1, bytes(offset));
            if offset % 40 != 13 {
                continue;
            }
            if offset == 453 {
                stop_handing_over(&dir);
            }
            let before = parts(&dir).growing.unsynced_tables();
            let cut = copy(place.path());
            for table in before.iter().filter(|table| !table.is_synced()) {
                let path = cut.path().join("growing").join(table.path().file_name().expect("a name"));
                // It may have been handed over meanwhile.
                let Ok(length) = path.metadata().map(|metadata| metadata.len() as i64) else { continue };
                let left = numbers.below(length + 1) as usize;
                match numbers.below(4) {
                    0 => (),
                    1 => write(&path, |bytes| bytes[left..].fill(0)),
                    2 => write(&path, |bytes| bytes.truncate(left)),
                    _ => std::fs::remove_file(&path).expect("remove"),
                }
            }
            let left = RocksDirectory::open(cut.path(), options.clone()).expect("open");
            let found = scan(&*left, family, 0);
            let expected: Vec<_> =
                (0..found.len() as i64).map(|offset| (offset, value(offset, bytes(offset)))).collect();
            assert!(found == expected, "seed {seed}, {} left of {}", found.len(), offset + 1);
        }
    }
}

/// What is in order goes to RocksDB's log, which loses its end as a whole; a table that goes on beside it must not keep
/// what came after that.
#[test]
fn what_is_in_order_lies_in_the_log_even_where_a_table_grows() {
    let in_order = |family, offset: i64| Write::Batch {
        family,
        last_offset: Offset(offset),
        batch: Bytes::from(value(offset, BYTES)),
        sum: None,
        in_order: true,
    };
    for handed_over in [false, true] {
        let place = tempfile::tempdir().expect("tempdir");
        let dir = open_tables(place.path(), 64 << 10);
        if !handed_over {
            stop_handing_over(&dir);
        }
        let family = create(&dir, "t");
        append(&dir, family, 0..7, BYTES);
        assert!(!tables(&dir, family).is_empty(), "a table grows");
        let mut next = 7;
        for round in 0..3 {
            commit(&*dir, vec![in_order(family, next)], false).expect("commit");
            assert!(tables(&dir, family).iter().all(|table| table.is_synced()), "what came before it is on the disk");
            let last = tables(&dir, family).last().and_then(|table| table.last());
            assert!(last.is_none_or(|last| last.0 < next), "round {round}: {last:?}");
            commit(&*dir, vec![in_order(family, next + 1), in_order(family, next + 2)], false).expect("commit");
            append(&dir, family, next + 3..next + 8, BYTES);
            next += 8;
        }
        expect_for_ever(&place, &dir, "t", &values(0..next, BYTES));
    }
}

/// What comes in order now and then keeps a table from being begun: it would have to be handed over at once.
#[test]
fn no_table_is_begun_between_batches_in_order() {
    let place = tempfile::tempdir().expect("tempdir");
    let options = DirectoryOptions { table_piece_bytes: 1000, ..tables_of(64 << 20) };
    let dir = RocksDirectory::open(place.path(), options).expect("open");
    let family = create(&dir, "t");
    for round in 0..20 {
        append(&dir, family, 6 * round..6 * round + 5, BYTES);
        let batch = Bytes::from(value(6 * round + 5, 56));
        let in_order = Write::Batch { family, last_offset: Offset(6 * round + 5), batch, sum: None, in_order: true };
        commit(&*dir, vec![in_order], false).expect("commit");
        assert!(tables(&dir, family).is_empty(), "round {round}");
    }
    append(&dir, family, 120..130, BYTES);
    assert_eq!(tables(&dir, family).len(), 1, "enough came without");
}

/// The name of a table that cannot be handed over may be missing on the disk, so nothing may rely on it yet.
#[test]
fn a_table_counts_as_synced_only_with_its_name() {
    let place = tempfile::tempdir().expect("tempdir");
    let options = tables_of(64 << 10);
    let dir = RocksDirectory::open(place.path(), options.clone()).expect("open");
    let family = create(&dir, "t");
    append(&dir, family, 0..3, BYTES);
    assert_eq!(tables(&dir, family).len(), 1);
    options.faults.set(Operation::IngestTable, rustix::io::Errno::NOSPC, None);
    let batch = Bytes::from(value(3, BYTES));
    let in_order = Write::Batch { family, last_offset: Offset(3), batch, sum: None, in_order: true };
    let refused = commit(&*dir, vec![in_order.clone()], false);
    assert!(matches!(refused, Err(StorageError::Full { .. })), "{refused:?}");
    assert!(tables(&dir, family).iter().all(|table| table.is_sealed() && !table.is_synced()));
    options.faults.clear();
    eventually("there is space", || commit(&*dir, vec![in_order.clone()], false).is_ok());
    assert!(tables(&dir, family).is_empty());
    expect_for_ever(&place, &dir, "t", &values(0..4, BYTES));
}

/// RocksDB's newest log, and where each of its records begins.
fn log_records(place: &Path) -> (PathBuf, Vec<usize>) {
    let logs = std::fs::read_dir(place.join("db")).expect("read").map(|entry| entry.expect("entry").path());
    let newest = logs.filter(|path| path.extension().is_some_and(|end| end == "log")).max().expect("a log");
    let bytes = std::fs::read(&newest).expect("read");
    let (mut at, mut begins) = (0, Vec::new());
    while at + 11 < bytes.len() {
        let header = if (5..=8).contains(&bytes[at + 6]) { 11 } else { 7 };
        let length = usize::from(u16::from_le_bytes([bytes[at + 4], bytes[at + 5]]));
        if bytes[at + 6] == 0 {
            at = at.next_multiple_of(32 << 10);
            continue;
        }
        begins.push(at);
        at += header + length;
    }
    (newest, begins)
}

/// After a flush RocksDB begins a new log. The one before is on the disk by then, or the write fails.
#[test]
fn a_log_is_on_the_disk_before_the_next_one_exists() {
    for fails in [false, true] {
        let place = tempfile::tempdir().expect("tempdir");
        let log_only = DirectoryOptions { table_piece_bytes: 1 << 30, ..tables_of(64 << 10) };
        let dir = RocksDirectory::open(place.path(), log_only).expect("open");
        let family = create(&dir, "t");
        append(&dir, family, 0..3, 56);
        let (log, _) = log_records(place.path());
        if fails {
            parts(&dir).database.db().spoil_log();
        }
        let flushed = parts(&dir).database.db().flush(&parts(&dir).database.unflushed(), true);
        assert_eq!(flushed.is_err(), fails, "{flushed:?}");
        let batch =
            Write::Batch { family, last_offset: Offset(3), batch: value(3, 56).into(), sum: None, in_order: false };
        let outcome = commit(&*dir, vec![batch], false);
        match outcome {
            Err(StorageError::Stopped { .. }) if fails => (),
            Ok(_) if !fails => assert_ne!(log_records(place.path()).0, log),
            outcome => panic!("fails: {fails}, {outcome:?}"),
        }
    }
}

/// Pages that never reached the disk are zeros. RocksDB passes over zeros where a record should begin, to the next
/// block of 32 KiB, and reads on there.
#[test]
fn zeros_where_a_record_of_rocksdbs_log_begins_end_it() {
    for recycled_logs in [0, 4] {
        let place = tempfile::tempdir().expect("tempdir");
        let record = Arc::new(Recorded::default());
        let options = || DirectoryOptions {
            table_piece_bytes: 1 << 30,
            recycled_logs,
            record: Some(Arc::clone(&record) as _),
            ..tables_of(64 << 10)
        };
        let dir = RocksDirectory::open(place.path(), options()).expect("open");
        let family = create(&dir, "t");
        append(&dir, family, 0..900, 56);
        let killed = copy(place.path());
        dir.close();
        let begins = log_records(killed.path()).1;
        assert!(begins.len() > 800 && *begins.last().expect("records") > 64 << 10, "{}", begins.len());
        for (step, begin) in begins.iter().enumerate().skip(3).step_by(97) {
            for (shift, bytes) in [(0, 512), (0, 4096), (0, 40 << 10), (4, 300)] {
                let place = copy(killed.path());
                write(&log_records(place.path()).0, |log| {
                    let end = (begin + shift + bytes).min(log.len());
                    log[begin + shift..end].fill(0);
                });
                let mut next = None;
                for round in 0..2 {
                    let holes = record.forgotten.load(Ordering::Relaxed);
                    let dir = RocksDirectory::open(place.path(), options()).expect("open");
                    let family = create(&dir, "t");
                    let found = offsets(&dir, family);
                    // With zeros in its middle it is not seen where the record ends.
                    let is_hole = record.forgotten.load(Ordering::Relaxed) > holes;
                    assert!(is_hole || round > 0 || shift > 0);
                    let left = next.unwrap_or(found.len() as i64);
                    let what = format!("{bytes} from {begin} + {shift}, recycled {recycled_logs}, round {round}");
                    assert_eq!(found, (0..left).collect::<Vec<_>>(), "{what}");
                    let is_close = left <= step as i64 && left + 6 > step as i64;
                    assert!(is_close || round > 0, "{left} of {step} left: {what}");
                    append(&dir, family, left..left + 3, 56);
                    next = Some(left + 3);
                    dir.close();
                }
            }
        }
    }
}

/// A start marks it, has its directory count as one of another boot, and writes out what is left, in this order:
/// wherever it is cut short the next one knows, and once the log is gone none is found any more.
#[test]
fn a_hole_is_one_at_each_start_until_its_log_is_gone() {
    let open_with = |place: &Path, stays: bool| {
        let record = Arc::new(Recorded { stays, ..Recorded::default() });
        let noted = Some(Arc::clone(&record) as _);
        let options = DirectoryOptions { table_piece_bytes: 1 << 30, record: noted, ..tables_of(64 << 10) };
        let dir = RocksDirectory::open(place, options).expect("open");
        (dir, record.forgotten.load(Ordering::Relaxed))
    };
    let open = |place: &Path| open_with(place, false);
    let place = tempfile::tempdir().expect("tempdir");
    let (dir, holes) = open(place.path());
    let family = create(&dir, "t");
    append(&dir, family, 0..100, 56);
    assert_eq!(holes, 0);
    let killed = copy(place.path());
    dir.close();
    assert_eq!(open(place.path()).1, 0, "nor after a stop");
    for hole in [&[0; 512][..], &[0, 0, 0, 0, 0xff, 0xff, 1]] {
        let mut killed = copy(killed.path());
        let (log, begins) = log_records(killed.path());
        write(&log, |log| log[begins[50]..begins[50] + hole.len()].copy_from_slice(hole));
        for _ in 0..2 {
            let (dir, holes) = open_with(killed.path(), true);
            assert_eq!(holes, 1, "nothing else says so while the note stays");
            let killed_again = copy(killed.path());
            dir.close();
            killed = killed_again;
        }
        let (dir, holes) = open(killed.path());
        assert_eq!(holes, 1, "a mark is one as well");
        let left = offsets(&dir, create(&dir, "t"));
        assert!((40..60).contains(&left.len()), "{}", left.len());
        // It goes in the background; a kill before that has the next start find it once more.
        let log = killed.path().join("db").join(log.file_name().expect("a name"));
        eventually("the log is gone", || !log.exists());
        let killed = copy(killed.path());
        dir.close();
        let (dir, holes) = open(killed.path());
        assert_eq!((holes, offsets(&dir, create(&dir, "t"))), (0, left), "all that it had is in files");
    }
}

/// RocksDB reads an old log that lost its end at the edge of a record, and the next one, as one: a hole.
#[test]
fn what_a_killed_process_left_is_on_the_disk_before_anything_follows_it() {
    let place = tempfile::tempdir().expect("tempdir");
    let log_only = || DirectoryOptions { table_piece_bytes: 1 << 30, ..tables_of(64 << 10) };
    let dir = RocksDirectory::open(place.path(), log_only()).expect("open");
    let family = create(&dir, "t");
    append(&dir, family, 0..3, 56);
    let killed = copy(place.path());
    let names = [Errno::IO, Errno::NOSPC].map(|errno| (Operation::SyncLeftNames, errno));
    for (operation, errno) in names.into_iter().chain([(Operation::Sync, Errno::IO)]) {
        let (killed, options) = (copy(killed.path()), log_only());
        let dir = RocksDirectory::open(killed.path(), options.clone()).expect("open");
        let family = create(&dir, "t");
        options.faults.set(operation, errno, None);
        let batch =
            Write::Batch { family, last_offset: Offset(3), batch: value(3, 56).into(), sum: None, in_order: false };
        let outcome = commit(&*dir, vec![batch], false);
        assert!(matches!(outcome, Err(StorageError::Stopped { .. })), "not without {operation:?}: {outcome:?}");
    }
}

/// That their partition was deleted, or where its log starts, may be in a log that a killed process left.
#[test]
fn tables_go_at_a_start_once_what_says_so_is_on_the_disk() {
    let place = tempfile::tempdir().expect("tempdir");
    let options = tables_of(64 << 10);
    let dir = RocksDirectory::open(place.path(), options.clone()).expect("open");
    let family = create(&dir, "t");
    append(&dir, family, 0..3, BYTES);
    options.faults.set(Operation::RemoveTable, rustix::io::Errno::NOSPC, None);
    dir.delete(&[partition("t", 0)]).expect("deleted");
    let killed = copy(place.path());
    let options = tables_of(64 << 10);
    options.faults.set(Operation::Sync, rustix::io::Errno::IO, None);
    RocksDirectory::open(killed.path(), options).expect_err("it cannot be brought there");
    assert_eq!(files(killed.path()).len(), 1);
    let dir = open_tables(killed.path(), 64 << 10);
    assert_eq!((files(killed.path()).len(), offsets(&dir, create(&dir, "t"))), (0, vec![]));
}
