//! The real directory against the contract, and what only a disk can show.

use std::sync::mpsc;

use super::*;
use crate::storage::contract::{self, batch, commit, partition, scan};

fn open(dir: &Path) -> Arc<RocksDirectory> {
    RocksDirectory::open(dir, DirectoryOptions { disk_reserve_bytes: 0, ..DirectoryOptions::default() }).expect("open")
}

#[test]
fn rocksdb_keeps_the_contract() {
    let dir = tempfile::tempdir().expect("tempdir");
    contract::check(&mut || open(dir.path()));
}

#[test]
fn an_open_directory_refuses_a_second_owner() {
    let dir = tempfile::tempdir().expect("tempdir");
    let first = open(dir.path());
    let second = RocksDirectory::open(dir.path(), DirectoryOptions::default());
    assert!(matches!(second, Err(OpenError::Taken { .. })), "{second:?}");
    first.close();
    open(dir.path()).close();
}

/// How long an empty directory takes to be ready. Printed, not asserted: machines differ.
#[test]
fn an_empty_directory_opens_and_closes() {
    let dir = tempfile::tempdir().expect("tempdir");
    let begin = std::time::Instant::now();
    let opened = open(dir.path());
    let ready = begin.elapsed();
    opened.close();
    println!("open {ready:?}, close {:?}", begin.elapsed() - ready);
}
