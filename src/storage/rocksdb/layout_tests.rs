//! Files of [`growing::layout`] in real databases, with the options that partitions have.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Instant;

use super::database::{Batch, ReadOptions};
use super::growing::layout::{BlockAt, HEAD_MAX, finish, frame, is_sound, parse_head};
use super::*;
use crate::storage::contract::{partition, scan};
use crate::storage::keys;

const HEADER_BYTES: usize = 4096;

type Batches = Vec<(i64, Vec<u8>)>;

fn open(dir: &Path) -> Arc<RocksDirectory> {
    RocksDirectory::open(dir, DirectoryOptions { disk_reserve_bytes: 0, ..DirectoryOptions::default() }).expect("open")
}

fn parts(dir: &RocksDirectory) -> Arc<Parts> {
    dir.opened().expect("open")
}

/// An open directory with one partition.
fn with_partition(dir: &Path) -> (Arc<RocksDirectory>, Family) {
    let opened = open(dir);
    let family = opened.create(&[partition("t", 0)]).expect("create")[0];
    (opened, family)
}

/// Numbers without a pattern.
fn noise(seed: u64) -> impl Iterator<Item = u8> {
    std::iter::successors(Some(seed), |state| Some(state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1)))
        .skip(1)
        .map(|state| (state >> 56) as u8)
}

fn value(seed: i64, bytes: usize) -> Vec<u8> {
    noise(seed as u64).take(bytes).collect()
}

/// Batches of these sizes with the last offsets from `first` on.
fn batches(first: i64, sizes: &[usize]) -> Batches {
    (first..).zip(sizes).map(|(offset, bytes)| (offset, value(offset, *bytes))).collect()
}

fn block(key: i64, value: &[u8]) -> Vec<u8> {
    let frame = frame(keys::batch(Offset(key)), value, None);
    [frame.head(), value, frame.tail()].concat()
}

/// A file as it grows: a header, then the blocks.
fn grown(batches: &Batches) -> (Vec<u8>, Vec<BlockAt>) {
    let mut bytes = vec![0xaa; HEADER_BYTES];
    let mut blocks = Vec::new();
    for (key, value) in batches {
        let (block, start, key) = (block(*key, value), bytes.len() as u64, keys::batch(Offset(*key)));
        let at = parse_head(start, &block[..block.len().min(HEAD_MAX)]).expect("a head of ours");
        assert_eq!(at, frame(key, value, None).block_at(key, start, value.len()));
        bytes.extend_from_slice(&block);
        assert_eq!((at.key, at.end()), (key, bytes.len() as u64));
        assert_eq!(at.value_start(), start + u64::from(at.head_bytes));
        blocks.push(at);
    }
    (bytes, blocks)
}

/// Writes a whole file beside the database.
fn write_file(dir: &Path, batches: &Batches) -> PathBuf {
    let (mut bytes, blocks) = grown(batches);
    let data_end = bytes.len() as u64;
    bytes.extend(finish(&blocks, data_end));
    let path = dir.join("growing");
    std::fs::write(&path, bytes).expect("write");
    path
}

fn ingest(dir: &Path, opened: &RocksDirectory, family: Family, batches: &Batches) {
    let path = write_file(dir, batches);
    let parts = parts(opened);
    parts.database.db().ingest(parts.database.cf(family), &path).expect("ingest");
    assert!(!path.exists(), "moved");
}

/// Through the log and the memtable.
fn put(opened: &RocksDirectory, family: Family, batches: &Batches) {
    let parts = parts(opened);
    let mut writes = Batch::with_capacity(64);
    for (offset, value) in batches {
        writes.put(parts.database.cf(family), &keys::batch(Offset(*offset)), value);
    }
    parts.database.write(&mut writes).expect("write");
}

/// In every way there is to read.
fn check(opened: &RocksDirectory, family: Family, expected: &Batches) {
    let parts = parts(opened);
    let cf = parts.database.cf(family);
    let options = ReadOptions::new(true, None);
    let mut forward = parts.database.db().iter(cf.clone(), &options);
    forward.seek_to_first();
    let mut seeking = parts.database.db().iter(cf.clone(), &options);
    for (offset, value) in expected {
        let key = keys::batch(Offset(*offset));
        assert_eq!(forward.entry().expect("readable"), Some((&key[..], &value[..])), "forward to {offset}");
        seeking.seek(&key);
        assert_eq!(seeking.entry().expect("readable"), Some((&key[..], &value[..])), "seek to {offset}");
        assert_eq!(parts.database.db().get(cf.clone(), &key, &options).expect("readable").as_deref(), Some(&value[..]));
        forward.next();
    }
    assert_eq!(forward.entry().expect("readable"), None);
    seeking.seek_to_last();
    let last = seeking.entry().expect("readable").map(|(key, value)| (key.to_vec(), value.to_vec()));
    assert_eq!(last, expected.last().map(|(key, value)| (keys::batch(Offset(*key)).to_vec(), value.clone())));
    let beyond = keys::batch(Offset(expected.last().map_or(0, |(key, _)| key + 1)));
    seeking.seek(&beyond);
    assert_eq!(seeking.entry().expect("readable"), None);
    assert_eq!(parts.database.db().get(cf, &beyond, &options).expect("readable"), None);
}

/// Also once it was compacted, and once the directory was opened anew.
fn check_for_good(dir: &Path, opened: &RocksDirectory, family: Family, all: &Batches) {
    parts(opened).database.db().compact(parts(opened).database.cf(family), None);
    check(opened, family, all);
    opened.close();
    check(&open(dir), family, all);
}

#[test]
fn a_head_is_read_back_and_a_block_is_sound() {
    for bytes in [0, 1, 100, 127, 128, 16_383, 16_384, 1 << 20, 3 << 20] {
        let value = value(7, bytes);
        let block = block(41, &value);
        let at = parse_head(1 << 40, &block[..block.len().min(HEAD_MAX)]).expect("a head");
        assert_eq!((at.key, at.start), (keys::batch(Offset(41)), 1 << 40));
        assert_eq!((at.value_bytes as usize, at.end()), (bytes, (1 << 40) + block.len() as u64));
        let value_start = usize::from(at.head_bytes);
        assert_eq!(block[value_start..value_start + bytes], value[..]);
        assert!(is_sound(&block));
        assert!(!is_sound(&block[..block.len() - 1]) && !is_sound(&[&block[..], &[0]].concat()));
    }
}

#[test]
fn no_flipped_bit_passes() {
    let sound = block(41, b"some value");
    for bit in 0..sound.len() * 8 {
        let mut damaged = sound.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(!is_sound(&damaged), "bit {bit}");
    }
}

#[test]
fn what_is_no_block_is_refused() {
    assert_eq!(parse_head(0, &[]), None);
    assert_eq!(parse_head(0, &[0; HEAD_MAX]), None);
    assert!(!is_sound(&[]) && !is_sound(&[0; 100]));
    let head = block(41, b"some value");
    for bytes in 0..19 {
        assert_eq!(parse_head(0, &head[..bytes]), None, "{bytes} bytes of a head");
    }
    assert!(parse_head(0, &head[..19]).is_some());
    assert_eq!(parse_head(u64::MAX - 5, &head), None, "ends beyond any file");
    // A length in more bytes than it needs, or above 32 bits.
    for length in [&[0x8a, 0][..], &[0xff, 0xff, 0xff, 0xff, 0x1f], &[0xff, 0xff, 0xff, 0xff, 0xff, 0x01]] {
        assert_eq!(parse_head(0, &[&[0, 16], length, &head[3..]].concat()), None, "{length:x?}");
    }
    let mut random = noise(5);
    for _ in 0..10_000 {
        let bytes: Vec<u8> = random.by_ref().take(40).collect();
        assert!(!is_sound(&bytes), "{bytes:x?}");
        // With a beginning like ours.
        let bytes = [&[0, 16, 7], &bytes[..]].concat();
        assert!(!is_sound(&bytes), "{bytes:x?}");
    }
}

/// The frame of the value `v` under the key 41, worked out by hand from RocksDB's sources but for the checksum.
#[test]
fn the_frame_is_the_one_of_the_format() {
    let frame = frame(keys::batch(Offset(41)), b"v", None);
    assert_eq!(frame.head(), [0, 16, 1, 0, 0, 0, 0, 0, 0, 0, 41, 1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(frame.tail()[..9], [0, 0, 0, 0, 1, 0, 0, 0, 0]);
}

#[test]
fn a_file_of_all_sizes_is_read_in_every_way_before_and_after_a_restart_and_a_compaction() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (opened, family) = with_partition(dir.path());
    let mut all = batches(10, &[1, 100, 16 << 10, 1 << 20, 3 << 20, 1, 128, 100]);
    ingest(dir.path(), &opened, family, &all);
    let files =
        |opened: &RocksDirectory| parts(opened).database.db().sorted_file_count(parts(opened).database.cf(family));
    assert_eq!(files(&opened), 1, "below level 0 at once");
    check(&opened, family, &all);
    assert_eq!(scan(&*opened, family, 11).len(), 7);
    opened.close();

    let opened = open(dir.path());
    check(&opened, family, &all);
    let second = batches(100, &[100, 2 << 20, 5]);
    ingest(dir.path(), &opened, family, &second);
    all.extend(second);
    assert_eq!(files(&opened), 2);
    check(&opened, family, &all);

    let parts = parts(&opened);
    let names = parts.database.db().sorted_files(parts.database.cf(family));
    parts.database.db().merge(parts.database.cf(family), &names).expect("merge");
    assert_eq!(files(&opened), 1);
    check(&opened, family, &all);
    parts.database.db().compact(parts.database.cf(family), None);
    check(&opened, family, &all);
    drop(parts);
    opened.close();
    check(&open(dir.path()), family, &all);
}

#[test]
fn a_hundred_thousand_small_batches_are_one_file() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (opened, family) = with_partition(dir.path());
    let all = batches(0, &[20; 100_000]);
    let (mut bytes, blocks) = grown(&all);
    let data_end = bytes.len() as u64;
    let begun = Instant::now();
    bytes.extend(finish(&blocks, data_end));
    assert!(begun.elapsed().as_millis() < 1000, "{:?} even without optimization", begun.elapsed());
    let path = dir.path().join("growing");
    std::fs::write(&path, bytes).expect("write");
    parts(&opened).database.db().ingest(parts(&opened).database.cf(family), &path).expect("ingest");
    check(&opened, family, &all);
    opened.close();
    let opened = open(dir.path());
    check(&opened, family, &all);
    parts(&opened).database.db().compact(parts(&opened).database.cf(family), None);
    check(&opened, family, &all);
}

#[test]
fn ingested_files_lie_between_what_was_written_the_other_way() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (opened, family) = with_partition(dir.path());
    let put = |batches: &Batches| put(&opened, family, batches);
    let files = || parts(&opened).database.db().sorted_file_count(parts(&opened).database.cf(family));
    let mut all = batches(0, &[1000; 10]);
    put(&all);
    let ingested = batches(10, &[20_000; 10]);
    ingest(dir.path(), &opened, family, &ingested);
    assert_eq!(files(), 1, "no flush was needed");
    all.extend(ingested);
    let after = batches(20, &[1000; 10]);
    put(&after);
    all.extend(after);
    check(&opened, family, &all);
    // The memtable's file spans the ingested one, which a compaction then rewrites.
    parts(&opened).database.db().flush(&[parts(&opened).database.cf(family)], true).expect("flush");
    check(&opened, family, &all);
    let above = batches(30, &[20_000; 10]);
    ingest(dir.path(), &opened, family, &above);
    all.extend(above);
    check(&opened, family, &all);
    check_for_good(dir.path(), &opened, family, &all);
}

/// As a log does that was truncated and takes other batches under the same offsets.
#[test]
fn an_ingested_file_is_newer_than_what_was_written_or_deleted_before() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (opened, family) = with_partition(dir.path());
    put(&opened, family, &(0..20).map(|offset| (offset, b"old".to_vec())).collect());
    let mut deletion = Batch::with_capacity(64);
    deletion.delete_range(parts(&opened).database.cf(family), &keys::batch(Offset(5)), &keys::batch(Offset(15)));
    parts(&opened).database.write(&mut deletion).expect("write");
    let ingested = batches(10, &[100; 20]);
    ingest(dir.path(), &opened, family, &ingested);
    let mut all: Batches = (0..5).map(|offset| (offset, b"old".to_vec())).collect();
    all.extend(ingested);
    check(&opened, family, &all);
    ingest(dir.path(), &opened, family, &batches(20, &[7; 20]));
    all.truncate(15);
    all.extend(batches(20, &[7; 20]));
    check(&opened, family, &all);
    check_for_good(dir.path(), &opened, family, &all);
}

#[test]
fn an_ingested_file_is_dropped_as_a_whole() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (opened, family) = with_partition(dir.path());
    ingest(dir.path(), &opened, family, &batches(0, &[10_000; 10]));
    let kept = batches(10, &[10_000; 10]);
    ingest(dir.path(), &opened, family, &kept);
    let parts = parts(&opened);
    let cf = parts.database.cf(family);
    parts.database.db().delete_files(cf.clone(), &keys::batch(Offset(0)), &keys::batch(Offset(12))).expect("dropped");
    assert_eq!(parts.database.db().sorted_file_count(cf), 1);
    check(&opened, family, &kept);
}

#[test]
fn a_flipped_bit_in_a_value_is_an_error() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (opened, family) = with_partition(dir.path());
    let all = batches(0, &[10_000; 10]);
    let path = write_file(dir.path(), &all);
    let at = (HEADER_BYTES + 45_000) as u64;
    let file = File::options().read(true).write(true).open(&path).expect("open");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 4], at).expect("write");
    let parts = parts(&opened);
    parts
        .database
        .db()
        .ingest(parts.database.cf(family), &path)
        .expect("only the first and the last block are looked at");
    let mut seen = 0;
    let outcome = opened.scan(family, Offset(0), 0, &mut |offset, value| {
        assert_eq!(*value, all[usize::try_from(offset.0).expect("positive")].1);
        seen += 1;
        std::ops::ControlFlow::Continue(())
    });
    assert!(matches!(&outcome, Err(StorageError::Read { reason, .. }) if reason.contains("Corruption")), "{outcome:?}");
    assert_eq!(seen, 4);
    let found =
        parts.database.db().get(parts.database.cf(family), &keys::batch(Offset(4)), &ReadOptions::new(true, None));
    assert!(found.is_err_and(|error| error.0.starts_with("Corruption")));
}

#[test]
fn what_is_no_table_is_refused_and_left_where_it_is() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (opened, family) = with_partition(dir.path());
    let parts = parts(&opened);
    let all = batches(0, &[1000; 10]);
    let path = dir.path().join("growing");
    std::fs::write(&path, grown(&all).0).expect("write");
    let refused = parts.database.db().ingest(parts.database.cf(family), &path);
    assert!(refused.is_err_and(|error| error.0.starts_with("Corruption")), "without an end");
    assert!(path.exists() && parts.database.db().sorted_file_count(parts.database.cf(family)) == 0);
    ingest(dir.path(), &opened, family, &all);
    check(&opened, family, &all);
}

/// Readers that opened the growing file go on reading it under its new name.
#[test]
fn an_open_descriptor_outlives_the_move() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (opened, family) = with_partition(dir.path());
    let all = batches(0, &[1000; 10]);
    let path = write_file(dir.path(), &all);
    let file = File::open(&path).expect("open");
    let before = std::fs::read(&path).expect("read");
    let parts = parts(&opened);
    parts.database.db().ingest(parts.database.cf(family), &path).expect("ingest");
    assert!(!path.exists());
    let mut after = vec![0; before.len()];
    file.read_exact_at(&mut after, 0).expect("read");
    assert_eq!(after, before, "nothing was written into it");
    parts.database.db().delete_files(parts.database.cf(family), &[0; 8], &[0xff; 8]).expect("dropped");
    file.read_exact_at(&mut after, 0).expect("read");
}

/// As after a crash right after RocksDB took the file: it has two names then, and keeps the one.
#[test]
fn a_second_link_to_an_ingested_file_may_go() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (opened, family) = with_partition(dir.path());
    let all = batches(0, &[1000; 10]);
    let path = write_file(dir.path(), &all);
    let second = dir.path().join("second");
    std::fs::hard_link(&path, &second).expect("link");
    parts(&opened).database.db().ingest(parts(&opened).database.cf(family), &path).expect("ingest");
    opened.close();
    let opened = open(dir.path());
    std::fs::remove_file(&second).expect("remove");
    check(&opened, family, &all);
}
