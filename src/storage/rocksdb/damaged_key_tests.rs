//! Keys that were damaged while nobody had their tables open, and damage in what RocksDB has already: nothing is taken
//! for another batch's, and no other partition pays for it.

use super::damage_tests::{BATCH_BYTES, block_at, flip, framed, in_order, open, overwrite, read};
use super::growing_tests::{append, copy, offsets, stop_handing_over, tables_of, value, values};
use super::tests::{create, eventually, parts};
use super::*;
use crate::storage::InDoubt;
use crate::storage::contract::{batch, commit, partition};
use crate::types::PartitionIndex;

/// A directory whose partition has seven batches in a file of RocksDB's and five in a table, as a kill leaves it.
fn killed() -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open(place.path(), true);
    let (family, other) = (create(&dir, "t"), create(&dir, "other"));
    append(&dir, family, 0..7, BATCH_BYTES);
    dir.settle(family).expect("handed over");
    stop_handing_over(&dir);
    append(&dir, family, 7..12, BATCH_BYTES);
    commit(&*dir, vec![batch(other, 0, b"small")], false).expect("commit");
    copy(place.path())
}

/// Which of RocksDB's files has this batch, and where.
fn file_with(place: &Path, batch: &[u8]) -> (PathBuf, u64) {
    let entries = std::fs::read_dir(place.join("db")).expect("listed").map(|entry| entry.expect("an entry").path());
    let tables = entries.filter(|file| file.extension().is_some_and(|ending| ending == "sst"));
    let holds_it = |file: PathBuf| {
        let bytes = std::fs::read(&file).expect("read");
        let at = bytes.windows(batch.len()).position(|some| some == batch)?;
        Some((file, at as u64))
    };
    let found: Vec<(PathBuf, u64)> = tables.filter_map(holds_it).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found[0].clone()
}

/// A write to another partition, which finds out what has become of the directory.
fn write_to(dir: &RocksDirectory, other: Family) -> Result<(), StorageError> {
    commit(dir, vec![batch(other, 0, b"small")], false)
}

/// A directory whose partition has seven batches in a file of RocksDB's.
fn handed_over() -> (tempfile::TempDir, Arc<RocksDirectory>, Family) {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open(place.path(), true);
    let family = create(&dir, "t");
    append(&dir, family, 0..7, BATCH_BYTES);
    dir.settle(family).expect("handed over");
    (place, dir, family)
}

/// Where the last byte of the key of a block with two bytes of length lies behind the block's begin.
const KEY_END: u64 = 11;

/// It was taken for one that RocksDB has already, and removed as a whole.
#[test]
fn a_first_key_that_names_an_older_batch_takes_no_table_away() {
    let killed = killed();
    let tables = in_order(killed.path());
    overwrite(&tables[0], block_at(0) + KEY_END, &[3]);
    for is_same_boot in [true, true, false] {
        let dir = open(killed.path(), is_same_boot);
        let error = dir.last_batch(create(&dir, "t")).expect_err("it is not opened").to_string();
        assert!(error.contains("damaged"), "{error}");
        assert_eq!(offsets(&dir, create(&dir, "other")), [0]);
        dir.close();
        assert_eq!(in_order(killed.path()), tables);
    }
}

/// What was between the key that it has now and the one that it had was skipped without a word.
#[test]
fn a_damaged_batch_has_the_offsets_between_its_neighbours_whatever_its_key_says() {
    let batch_of = |base: i64| {
        let mut bytes = framed(5000, |_| ());
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        bytes[16] = 2;
        bytes[23..27].copy_from_slice(&9_i32.to_be_bytes());
        bytes
    };
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open(place.path(), true);
    stop_handing_over(&dir);
    let family = create(&dir, "t");
    for base in [0, 10, 20, 30] {
        commit(&*dir, vec![batch(family, base + 9, &batch_of(base))], false).expect("commit");
    }
    let third = {
        let (key, bytes) = (crate::storage::keys::batch(Offset(9)), batch_of(0));
        let first = growing::layout::frame(key, &bytes, None);
        let first = first.block_at(key, growing::table::HEADER_BYTES as u64, bytes.len());
        first.start + 2 * (first.end() - first.start)
    };
    for key in [21, 28, 35, 38] {
        let killed = copy(place.path());
        overwrite(&in_order(killed.path())[0], third + KEY_END, &[key]);
        let dir = open(killed.path(), true);
        let family = create(&dir, "t");
        for settled in [false, true] {
            if settled {
                dir.settle(family).expect("handed over all the same");
            }
            for from in 20..30 {
                let (found, error) = read(&dir, family, from);
                assert!(found.is_empty() && error.is_some(), "{key} {from} {settled}");
            }
            for from in [30, 35, 38] {
                assert_eq!(read(&dir, family, from), (vec![(39, batch_of(30))], None), "{key} {from} {settled}");
            }
            assert_eq!(read(&dir, family, 0).0.len(), 2);
        }
    }
}

/// The same with a byte of the file of RocksDB's flipped, and what flips it back.
fn killed_and_damaged() -> (tempfile::TempDir, impl Fn()) {
    let killed = killed();
    let (file, at) = file_with(killed.path(), &value(6, BATCH_BYTES));
    let flip_it = move || flip(&file, at + 5000);
    flip_it();
    (killed, flip_it)
}

/// All that the broker has was refused.
#[test]
fn damage_in_a_file_of_rocksdb_costs_the_partition_that_has_a_table_as_well() {
    let (killed, flip_back) = killed_and_damaged();
    let tables = in_order(killed.path());
    for is_same_boot in [true, false, true] {
        let dir = open(killed.path(), is_same_boot);
        let error = dir.last_batch(create(&dir, "t")).expect_err("it is not opened").to_string();
        assert!(error.contains("cannot be read"), "{error}");
        assert_eq!((offsets(&dir, create(&dir, "other")), dir.failure()), (vec![0], None));
        dir.close();
        assert_eq!(in_order(killed.path()), tables);
    }
    // Once it can be read, what was not damaged is there.
    flip_back();
    let dir = open(killed.path(), true);
    assert_eq!(offsets(&dir, create(&dir, "t")), (0..12).collect::<Vec<i64>>());
}

/// The next start took what a loss of power had left of the table for damage, and refused the partition from then on.
#[test]
fn what_a_loss_of_power_tore_is_no_damage_once_the_partition_can_be_read() {
    let (killed, flip_back) = killed_and_damaged();
    let tables = in_order(killed.path());
    overwrite(&tables[0], block_at(2) + 100, &[0; 4096]);
    let of = (partition("t", 0).topic_id, PartitionIndex(0));
    let in_doubt = Arc::new(InDoubt { ends: [of].into(), uncut: [of].into() });
    for (is_same_boot, in_doubt) in [(false, Arc::default()), (true, Arc::clone(&in_doubt))] {
        let options = DirectoryOptions { is_same_boot, in_doubt, ..tables_of(64 << 10) };
        let dir = RocksDirectory::open(killed.path(), options).expect("open");
        let (family, other) = (create(&dir, "t"), create(&dir, "other"));
        assert_eq!((dir.end(family), dir.end(other)), (LogEndState::Uncut, LogEndState::AsWritten));
        dir.close();
    }
    flip_back();
    for (in_doubt, end) in [(in_doubt, LogEndState::MayBeLost), (Arc::default(), LogEndState::AsWritten)] {
        let options = DirectoryOptions { is_same_boot: true, in_doubt, ..tables_of(64 << 10) };
        let dir = RocksDirectory::open(killed.path(), options).expect("open");
        let family = create(&dir, "t");
        assert_eq!((offsets(&dir, family), dir.end(family)), ((0..9).collect(), end));
        dir.close();
    }
}

/// It stopped the directory after each start, so that the broker was never ready again.
#[test]
fn a_damaged_file_that_a_compaction_meets_stops_the_directory_once() {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open(place.path(), true);
    let (family, other) = (create(&dir, "t"), create(&dir, "other"));
    append(&dir, family, 0..7, BATCH_BYTES);
    dir.settle(family).expect("handed over");
    let (file, at) = file_with(place.path(), &value(3, BATCH_BYTES));
    dir.close();
    flip(&file, at + 5000);
    let dir = open(place.path(), true);
    // A batch that takes the place of another one, in a file of its own.
    commit(&*dir, vec![batch(family, 5, &value(5, 100))], false).expect("commit");
    // The compaction may meet it before all families are flushed.
    if let Err(error) = parts(&dir).database.flush_all() {
        assert!(error.to_string().contains("Corruption"), "{error}");
    }
    eventually("it is compacted", || write_to(&dir, other).is_err());
    eventually("that is known", || dir.failure().is_some_and(|why| why.contains("Corruption")));
    dir.close();
    for start in 0..3 {
        let dir = open(place.path(), true);
        commit(&*dir, vec![batch(family, 5, &value(5, 101 + start)), batch(family, 7 + start as i64, b"more")], false)
            .expect("commit");
        parts(&dir).database.flush_all().expect("flushed");
        std::thread::sleep(std::time::Duration::from_millis(300));
        write_to(&dir, other).expect("it goes on");
        let (found, error) = read(&dir, family, 0);
        assert!(found == values(0..3, BATCH_BYTES) && error.is_some());
        assert_eq!(read(&dir, family, 4).0[1].1, value(5, 101 + start), "the last that was written");
        assert_eq!(dir.failure(), None);
        dir.close();
    }
    let dir = open(place.path(), true);
    let noted = || std::fs::read_dir(place.path().join("damaged")).expect("listed").count();
    assert_eq!(noted(), 1);
    dir.delete(&[partition("t", 0)]).expect("deleted");
    eventually("the note goes with it", || noted() == 0);
    let family = create(&dir, "t");
    append(&dir, family, 0..3, BATCH_BYTES);
    dir.settle(family).expect("handed over");
    assert_eq!((read(&dir, family, 0), dir.failure()), ((values(0..3, BATCH_BYTES), None), None));
    dir.close();
    let dir = open(place.path(), true);
    assert_eq!((read(&dir, family, 0), dir.failure()), ((values(0..3, BATCH_BYTES), None), None));
}

/// It was never wiped, since whether there is anything to wipe could not be read.
#[test]
fn a_deleted_partition_whose_first_batch_is_damaged_goes() {
    let (place, dir, _) = handed_over();
    let (file, at) = file_with(place.path(), &value(0, BATCH_BYTES));
    dir.close();
    flip(&file, at + 5000);
    let dir = open(place.path(), true);
    dir.delete(&[partition("t", 0)]).expect("deleted");
    eventually("its file goes", || !file.exists());
    assert_eq!(dir.failure(), None);
}

/// A growing table's name was taken for the end of one of RocksDB's.
#[test]
fn a_table_that_is_refused_at_the_hand_over_is_nobodys_damaged_file() {
    let (place, dir, family) = handed_over();
    let database = std::sync::Arc::clone(&parts(&dir).database);
    let (file, _) = file_with(place.path(), &value(0, BATCH_BYTES));
    let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
    let refused = format!("Corruption: bad block in {}/growing/{name}", place.path().display());
    assert!(database.note_damaged_file(&refused).is_none());
    let met = format!("Corruption: bad block in {}/db/{name} offset 5", place.path().display());
    assert!(database.note_damaged_file(&met).is_some_and(|(of, noted)| of == family && noted.is_ok()));
}
