//! Files that were deleted give their space and their descriptors back, with nothing else going on.

use super::growing_tests::{append, open_tables, stop_handing_over, tables};
use super::tests::{create, eventually, parts};
use super::*;
use crate::storage::contract::{commit, delete, partition};

const BYTES: usize = 16 << 10;

/// Files below a directory that this process holds open though they have no name any more, not even one of RocksDB's.
fn unlinked(place: &Path) -> Vec<PathBuf> {
    let open = std::fs::read_dir("/proc/self/fd").expect("list").flatten().map(|entry| entry.path());
    let has_name = |path: &Path| path.metadata().is_ok_and(|file| std::os::unix::fs::MetadataExt::nlink(&file) > 0);
    open.filter(|fd| !has_name(fd))
        .filter_map(|fd| std::fs::read_link(fd).ok())
        .filter(|path| path.starts_with(place) && path.to_string_lossy().ends_with(" (deleted)"))
        .collect()
}

fn let_go(place: &Path) {
    eventually("deleted files are let go", || unlinked(place).is_empty());
}

/// The last table still grows, or waits to be handed over, when the log's start passes it.
#[test]
fn what_retention_drops_is_let_go() {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open_tables(place.path(), 64 << 10);
    stop_handing_over(&dir);
    let family = create(&dir, "t");
    append(&dir, family, 0..30, BYTES);
    assert!(tables(&dir, family).len() > 3);
    commit(&*dir, vec![delete(family, 0..i64::MAX)], false).expect("commit");
    eventually("the files go", || parts(&dir).growing.count() == 0);
    let_go(place.path());
}

/// Tables that RocksDB has, and which the page cache keeps open, go when RocksDB drops them.
#[test]
fn what_rocksdb_drops_is_let_go() {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open_tables(place.path(), 4 << 20);
    let family = create(&dir, "t");
    append(&dir, family, 0..80, 256 << 10);
    eventually("full ones are handed over", || tables(&dir, family).len() == 1);
    commit(&*dir, vec![delete(family, 0..70)], false).expect("commit");
    let files = || std::fs::read_dir(place.path().join("db")).expect("list").flatten();
    let tables_of_rocksdb = || files().filter(|file| file.path().extension().is_some_and(|e| e == "sst")).count();
    eventually("files go", || tables_of_rocksdb() <= 2);
    let_go(place.path());
}

/// Else its first table could be on the disk without what says whose it is: after a loss of power a free family would
/// hold batches, and the next partition would begin with them.
#[test]
fn a_family_forgets_what_its_former_partition_had_on_the_disk() {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open_tables(place.path(), 64 << 10);
    let family = create(&dir, "t");
    append(&dir, family, 0..30, BYTES);
    let relies = || !parts(&dir).families.state(family).logged().is_unsynced();
    assert!(relies());
    dir.delete(&[partition("t", 0)]).expect("delete");
    let mut n = 0;
    eventually("the family's return", || {
        n += 1;
        dir.create(&[partition("u", n)]).expect("create") == [family]
    });
    assert!(!relies());
}

#[test]
fn a_topic_that_comes_and_goes_leaves_no_file_open() {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open_tables(place.path(), 4 << 20);
    for topic in 0..12 {
        let id = partition("passing", topic);
        let family = dir.create(std::slice::from_ref(&id)).expect("create")[0];
        append(&dir, family, 0..20, 256 << 10);
        dir.delete(&[id]).expect("delete");
    }
    eventually("the files go", || parts(&dir).growing.count() == 0);
    let_go(place.path());
}
