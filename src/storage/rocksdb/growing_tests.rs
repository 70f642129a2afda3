//! Directories whose batches go to growing tables: the contract, readers beside the writer, deleting, limits.
//!
//! What a loss of power leaves is in `power_tests`, the kill test in `tests`.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use super::growing::table::GrowingTable;
use super::tests::{create, eventually, options, parts};
use super::*;
use crate::storage;
use crate::storage::contract::{self, batch, commit, locate, partition, scan, side};
pub(super) use crate::storage::testing::killed::copy;

/// Every batch of 128 bytes and more gets its family a table.
pub(super) fn tables_of(table_bytes: u64) -> DirectoryOptions {
    DirectoryOptions { table_piece_bytes: 1, table_bytes, ..options() }
}

pub(super) fn open_tables(path: &Path, table_bytes: u64) -> Arc<RocksDirectory> {
    RocksDirectory::open(path, tables_of(table_bytes)).expect("open")
}

/// It says itself how long it is, as a batch does.
pub(super) fn value(offset: i64, bytes: usize) -> Vec<u8> {
    let mut value = offset.to_be_bytes().repeat(bytes.div_ceil(8));
    let length = value.len() as u32;
    if let Some(place) = value.get_mut(8..12) {
        place.copy_from_slice(&(length - 12).to_be_bytes());
    }
    value
}

/// Commits batches of so many bytes, each in a group of its own.
pub(super) fn append(dir: &RocksDirectory, family: Family, offsets: Range<i64>, bytes: usize) {
    for offset in offsets {
        commit(dir, vec![batch(family, offset, &value(offset, bytes))], false).expect("commit");
    }
}

/// Sealed tables stay where they are from now on, unless the writer needs them handed over.
pub(super) fn stop_handing_over(dir: &RocksDirectory) {
    parts(dir).database.table_jobs().close();
}

pub(super) fn tables(dir: &RocksDirectory, family: Family) -> Vec<Arc<GrowingTable>> {
    Vec::clone(&parts(dir).families.state(family).tables().list())
}

pub(super) fn files(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path.join("growing")) else { return Vec::new() };
    entries.map(|entry| entry.expect("entry").path()).collect()
}

/// A file goes before it is counted no more, so each of them is waited for.
pub(super) fn no_table_is_left(place: &Path, dir: &RocksDirectory) {
    let growing = &parts(dir).growing;
    eventually("no table is left", || files(place).is_empty() && (growing.count(), growing.bytes()) == (0, 0));
}

pub(super) fn offsets(dir: &RocksDirectory, family: Family) -> Vec<i64> {
    scan(dir, family, 0).into_iter().map(|(offset, _)| offset).collect()
}

fn last(dir: &RocksDirectory, family: Family) -> Option<i64> {
    dir.last_batch(family).expect("read").map(|(last, _)| last.0)
}

/// Has all that is RocksDB's found again, whatever was known of it. Answers how many bytes can be located.
pub(super) fn find_all_again(dir: &RocksDirectory, family: Family) -> usize {
    for (offset, _) in scan(dir, family, 0) {
        dir.find_again(family, Offset(offset)).expect("looked for");
    }
    scan(dir, family, 0).first().map_or(0, |(offset, _)| locate(dir, family, *offset))
}

/// What the log holds must be there now, after a kill, and after an orderly end; twice.
pub(super) fn expect_for_ever(
    place: &tempfile::TempDir,
    dir: &Arc<RocksDirectory>,
    topic: &str,
    expected: &[(i64, Vec<u8>)],
) {
    let family = create(dir, topic);
    assert_eq!(scan(&**dir, family, 0), expected);
    locate(&**dir, family, 0);
    let killed = copy(place.path());
    dir.close();
    for place in [killed.path(), place.path()] {
        for _ in 0..2 {
            let dir = open_tables(place, 64 << 10);
            let family = create(&dir, topic);
            assert_eq!(scan(&*dir, family, 0), expected);
            assert_eq!(last(&dir, family), expected.last().map(|(last, _)| *last));
            eventually("tables are handed over", || tables(&dir, family).is_empty());
            assert_eq!(scan(&*dir, family, 0), expected);
            find_all_again(&dir, family);
            assert_eq!(scan(&*dir, family, 0), expected);
            assert_eq!(last(&dir, family), expected.last().map(|(last, _)| *last));
            // Those of other partitions, too.
            no_table_is_left(place, &dir);
            dir.close();
        }
    }
}

pub(super) fn values(offsets: Range<i64>, bytes: usize) -> Vec<(i64, Vec<u8>)> {
    offsets.map(|offset| (offset, value(offset, bytes))).collect()
}

#[test]
fn growing_tables_keep_the_contract() {
    for table_bytes in [1, 64 << 10, 64 << 20] {
        let dir = tempfile::tempdir().expect("tempdir");
        contract::check(&mut || open_tables(dir.path(), table_bytes));
        // Batches of the suite are small: so that the first of a family is enough.
        let dir = tempfile::tempdir().expect("tempdir");
        let options = DirectoryOptions { table_piece_bytes: 0, ..tables_of(table_bytes) };
        contract::check(&mut || RocksDirectory::open(dir.path(), options.clone()).expect("open"));
    }
}

#[test]
fn batches_are_read_from_tables_and_from_rocksdb_alike() {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open_tables(place.path(), 64 << 10);
    let family = create(&dir, "t");
    append(&dir, family, 0..40, 10_000);
    assert_eq!(locate(&*dir, family, 0), 39 * 10_000 + 10_000, "whatever table it is in");
    eventually("full ones are handed over", || tables(&dir, family).len() == 1);
    assert_eq!(locate(&*dir, family, 5), 35 * 10_000);
    assert!(!tables(&dir, family)[0].is_sealed());
    assert_eq!(files(place.path()).len(), 1);
    expect_for_ever(&place, &dir, "t", &values(0..40, 10_000));
}

#[test]
fn what_was_handed_over_is_read_by_its_own_blocks_while_the_page_cache_keeps_it() {
    let place = tempfile::tempdir().expect("tempdir");
    // The last full table, at most.
    let options =
        DirectoryOptions { cached: Some(CachedBytes { max: 100 << 10, at_once: 100 << 10 }), ..tables_of(64 << 10) };
    let dir = RocksDirectory::open(place.path(), options).expect("open");
    let family = create(&dir, "t");
    append(&dir, family, 0..40, 10_000);
    // Else the writer has them in mind for the next sync.
    commit(&*dir, vec![side(b"x", b"")], true).expect("commit");
    let by_blocks =
        || parts(&dir).families.state(family).tables().handed_over(Offset(0)).and_then(|table| table.bounds());
    let grows = tables(&dir, family).pop().and_then(|table| table.bounds()).expect("something").0;
    eventually("the last full one is the only one", || {
        by_blocks().is_some_and(|(first, _)| first == Offset(grows.0 - 7))
    });
    assert_eq!(scan(&*dir, family, 0), values(0..40, 10_000));
    commit(&*dir, vec![batch(family, grows.0 - 1, b"compacted")], false).expect("commit");
    assert!(by_blocks().is_none_or(|(first, _)| first == grows), "what changes is RocksDB's");
    assert_eq!(scan(&*dir, family, grows.0 - 1)[0], (grows.0 - 1, b"compacted".to_vec()));
}

#[test]
fn what_was_handed_over_before_a_start_is_found_again() {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open_tables(place.path(), 64 << 10);
    let (family, other) = (create(&dir, "t"), create(&dir, "other"));
    append(&dir, family, 0..40, 10_000);
    append(&dir, other, 0..8, 10);
    append(&dir, family, 40..60, 10);
    dir.settle(family).expect("settled");
    dir.close();
    for _ in 0..2 {
        let dir = open_tables(place.path(), 64 << 10);
        assert_eq!(locate(&*dir, family, 3), 0);
        assert!(dir.find_again(family, Offset(3)).expect("looked for"));
        assert_eq!(locate(&*dir, family, 3), 4 * 10_000, "up to the end of its table");
        assert!(!dir.find_again(family, Offset(3)).expect("looked for"), "it is known");
        assert!(!dir.find_again(family, Offset(100)).expect("looked for"), "behind the end");
        assert!(!dir.find_again(other, Offset(0)).expect("looked for"), "small ones are RocksDB's");
        assert_eq!(find_all_again(&dir, family), 40 * 10_000 + 20 * 16);
        let expected: Vec<_> = values(0..40, 10_000).into_iter().chain(values(40..60, 10)).collect();
        assert_eq!(scan(&*dir, family, 0), expected);
        dir.close();
    }
}

#[test]
fn what_the_page_cache_let_go_is_found_again() {
    let place = tempfile::tempdir().expect("tempdir");
    let options = DirectoryOptions { cached: Some(CachedBytes { max: 1, at_once: 1 }), ..tables_of(64 << 10) };
    let dir = RocksDirectory::open(place.path(), options).expect("open");
    let family = create(&dir, "t");
    append(&dir, family, 0..40, 10_000);
    commit(&*dir, vec![side(b"x", b"")], true).expect("commit");
    eventually("all are let go", || locate(&*dir, family, 0) == 0);
    assert!(dir.find_again(family, Offset(0)).expect("looked for"));
    assert_eq!(scan(&*dir, family, 0), values(0..40, 10_000));
}

#[test]
fn a_start_that_was_killed_while_it_tried_links_does_not_count() {
    let place = tempfile::tempdir().expect("tempdir");
    open_tables(place.path(), 64 << 10).close();
    for left in ["link.probe", "db/link.probe"] {
        std::fs::write(place.path().join(left), b"").expect("write");
    }
    let dir = open_tables(place.path(), 64 << 10);
    let family = create(&dir, "t");
    append(&dir, family, 0..3, 10_000);
    assert_eq!(tables(&dir, family).len(), 1);
}

#[test]
fn what_is_reserved_and_not_used_goes_back() {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = RocksDirectory::open(place.path(), tables_of(64 << 20)).expect("open");
    let family = create(&dir, "t");
    append(&dir, family, 0..3, 10_000);
    let [table] = <[_; 1]>::try_from(tables(&dir, family)).expect("one");
    let on_disk = || std::os::unix::fs::MetadataExt::blocks(&table.path().metadata().expect("there")) * 512;
    assert!(on_disk() >= 4 << 20, "{}", on_disk());
    let length = || table.path().metadata().expect("there").len();
    assert_eq!(length(), 256 << 10, "the rest of a part is zeros");
    table.finish().expect("finished");
    assert!(length() < 40_000, "{}", length());
    assert!(on_disk() < 1 << 20, "{}", on_disk());
}

/// A stretch of large batches, one of small ones that make a table give way to the log, and so on.
fn mixed_bytes(offset: i64) -> usize {
    match offset / 150 % 3 {
        0 => 6000 + (offset as usize * 997) % 9000,
        1 => 100,
        _ => 1 + (offset as usize * 131) % 4000,
    }
}

/// Where `kept`, the log's start follows its end at this distance.
fn readers_beside_a_writer(piece_bytes: usize, table_bytes: u64, kept: Option<i64>) {
    let place = tempfile::tempdir().expect("tempdir");
    let options = DirectoryOptions { table_piece_bytes: piece_bytes, ..tables_of(table_bytes) };
    let dir = RocksDirectory::open(place.path(), options).expect("open");
    let family = create(&dir, "t");
    let (acked, ended) = (Arc::new(AtomicI64::new(-1)), Arc::new(AtomicBool::new(false)));
    let start = Arc::new(AtomicI64::new(0));
    let readers: Vec<_> = (0..3_i64)
        .map(|reader| {
            let (dir, acked, ended) = (Arc::clone(&dir), Arc::clone(&acked), Arc::clone(&ended));
            let start = Arc::clone(&start);
            std::thread::spawn(move || {
                let mut scans = 0_i64;
                // On a busy machine it may begin when all is written; it looks once then.
                while scans == 0 || !ended.load(Ordering::Relaxed) {
                    let there = acked.load(Ordering::Acquire);
                    // From everywhere, mostly from near the end.
                    let back = if scans % 16 == 0 { there + 1 } else { (scans * 7919 + reader * 31) % 60 };
                    let from = (there - back).max(0);
                    let mut next = from;
                    dir.scan(family, Offset(from), 0, &mut |last_offset, batch| {
                        if last_offset.0 != next {
                            let start = start.load(Ordering::Acquire);
                            let skips = next < last_offset.0 && last_offset.0 <= start;
                            assert!(
                                skips,
                                "{last_offset} after {next} from {from}, {there} acknowledged, start {start}"
                            );
                            next = last_offset.0;
                        }
                        assert_eq!(*batch, value(next, mixed_bytes(next)));
                        next += 1;
                        if next > there + 40 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    })
                    .expect("scan");
                    assert!(next > there, "from {from}, ended before {next}, {there} acknowledged");
                    let there = acked.load(Ordering::Acquire);
                    assert!(last(&dir, family).unwrap_or(-1) >= there, "{there} acknowledged");
                    scans += 1;
                }
                scans
            })
        })
        .collect();
    for offset in 0..2000_i64 {
        let acked = Arc::clone(&acked);
        let done = move |result: Result<(), StorageError>| {
            result.expect("written");
            acked.store(offset, Ordering::Release);
        };
        let writes = vec![batch(family, offset, &value(offset, mixed_bytes(offset)))];
        let set = WriteSet { writes, sync: offset % 257 == 0 };
        if offset % 5 == 0 {
            dir.queue(set, Box::new(done));
            dir.write_queued();
        } else {
            dir.commit(set, Box::new(done));
        }
        if let Some(kept) = kept.filter(|kept| offset % 29 == 28 && offset > *kept) {
            start.store(offset - kept, Ordering::Release);
            commit(&*dir, vec![contract::delete(family, 0..offset - kept)], false).expect("commit");
        }
        if offset % 7 == 0 {
            storage::barrier(&*dir).expect("written");
        }
    }
    storage::barrier(&*dir).expect("written");
    ended.store(true, Ordering::Relaxed);
    for reader in readers {
        assert!(reader.join().expect("no panic") > 0);
    }
    let first = start.load(Ordering::Relaxed);
    let expected: Vec<_> = (first..2000).map(|offset| (offset, value(offset, mixed_bytes(offset)))).collect();
    expect_for_ever(&place, &dir, "t", &expected);
}

#[test]
fn readers_find_everything_while_tables_come_and_go() {
    for (piece_bytes, table_bytes) in [(1, 1), (1, 64 << 10), (1, 2 << 20), (500, 1 << 20)] {
        readers_beside_a_writer(piece_bytes, table_bytes, None);
    }
}

#[test]
fn readers_find_everything_while_the_start_moves() {
    for (piece_bytes, table_bytes) in [(1, 1), (1, 64 << 10), (100, 400 << 10)] {
        for kept in [20, 200] {
            readers_beside_a_writer(piece_bytes, table_bytes, Some(kept));
        }
    }
}

/// A reader that is held up while the start passes all that it saw looks again. One batch is left at every moment.
#[test]
fn a_scan_finds_what_is_left_whatever_the_start_has_passed() {
    for piece_bytes in [1 << 30, 1] {
        let place = tempfile::tempdir().expect("tempdir");
        let options = DirectoryOptions { table_piece_bytes: piece_bytes, ..tables_of(64 << 10) };
        let dir = RocksDirectory::open(place.path(), options).expect("open");
        let family = create(&dir, "t");
        commit(&*dir, vec![batch(family, 0, &value(0, 200))], false).expect("commit");
        let ended = Arc::new(AtomicBool::new(false));
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let (dir, ended) = (Arc::clone(&dir), Arc::clone(&ended));
                std::thread::spawn(move || {
                    while !ended.load(Ordering::Relaxed) {
                        let mut found = 0;
                        dir.scan(family, Offset(0), 0, &mut |_, _| {
                            found += 1;
                            ControlFlow::Continue(())
                        })
                        .expect("scan");
                        assert!(found > 0, "pieces of {piece_bytes}: nothing found");
                        assert!(last(&dir, family).is_some(), "pieces of {piece_bytes}: no last batch");
                    }
                })
            })
            .collect();
        for offset in 1..3000 {
            let writes = vec![batch(family, offset, &value(offset, 200)), contract::delete(family, 0..offset)];
            commit(&*dir, writes, false).expect("commit");
        }
        ended.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().expect("found"));
    }
}

/// A table that was begun and shows nothing yet does not hide what lies before it.
#[test]
fn an_empty_table_hides_nothing() {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open_tables(place.path(), 64 << 10);
    let family = create(&dir, "t");
    append(&dir, family, 0..3, 40);
    assert!(tables(&dir, family).is_empty());
    let (parts, id) = (parts(&dir), partition("t", 0));
    let (topic_id, index) = (id.topic_id, id.partition);
    let header = growing::table::Header { family: family.0, topic_id, partition: index, follows: Offset::NONE };
    let table = Arc::new(parts.growing.begin_table(&header).expect("begun"));
    parts.families.state(family).tables().push(&table);
    assert_eq!(offsets(&dir, family), [0, 1, 2]);
    assert_eq!(last(&dir, family), Some(2));
}
