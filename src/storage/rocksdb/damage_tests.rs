//! Growing tables that were damaged while nobody had them open: what was acknowledged and lies behind the damage stays.

use std::os::unix::fs::FileExt as _;

use rustix::io::Errno;

use super::database::Operation;
use super::growing::layout::{self, BlockAt};
use super::growing::table::HEADER_BYTES;
use super::growing_tests::{append, copy, files, offsets, stop_handing_over, tables, tables_of, value, values};
use super::tests::{create, eventually, parts};
use super::*;
use crate::storage::contract::{batch, commit, delete, partition, side};
use crate::storage::keys;

pub(super) const BATCH_BYTES: usize = 10_000;

pub(super) fn open(place: &Path, is_same_boot: bool) -> Arc<RocksDirectory> {
    RocksDirectory::open(place, DirectoryOptions { is_same_boot, ..tables_of(64 << 10) }).expect("open")
}

/// What a kill leaves of a directory with so many batches of `t`, one of `other`, in tables of some seven each.
fn killed(batches: i64) -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open(place.path(), true);
    stop_handing_over(&dir);
    let (family, other) = (create(&dir, "t"), create(&dir, "other"));
    append(&dir, family, 0..batches, BATCH_BYTES);
    commit(&*dir, vec![batch(other, 0, b"small")], false).expect("commit");
    copy(place.path())
}

/// The tables' files, in the order in which they were begun.
pub(super) fn in_order(place: &Path) -> Vec<PathBuf> {
    let mut files = files(place);
    files.retain(|file| file.extension().is_some_and(|ending| ending == "sst"));
    files.sort_by_key(|file| file.file_stem().and_then(|stem| stem.to_str()?.split_once('-')?.1.parse::<u64>().ok()));
    files
}

/// Where the n-th block of a table begins.
pub(super) fn block_at(number: u64) -> u64 {
    let (key, batch) = (keys::batch(Offset(0)), value(0, BATCH_BYTES));
    let first = layout::frame(key, &batch, None).block_at(key, HEADER_BYTES as u64, batch.len());
    first.start + number * (first.end() - first.start)
}

pub(super) fn flip(file: &Path, at: u64) {
    let file = std::fs::File::options().read(true).write(true).open(file).expect("open");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("read");
    file.write_all_at(&[byte[0] ^ 0x40], at).expect("flipped");
}

/// What is read from an offset on, and why no more is.
pub(super) fn read(dir: &RocksDirectory, family: Family, from: i64) -> (Vec<(i64, Vec<u8>)>, Option<String>) {
    let mut found = Vec::new();
    let outcome = dir.scan(family, Offset(from), 0, &mut |last, batch| {
        found.push((last.0, batch.to_vec()));
        std::ops::ControlFlow::Continue(())
    });
    (found, outcome.err().map(|error| error.to_string()))
}

/// It was taken for the end of what was written: four batches that had been acknowledged were cut off, without a word.
#[test]
fn a_batch_that_is_damaged_costs_no_other() {
    let killed = killed(5);
    flip(&in_order(killed.path())[0], block_at(2) + 5000);
    for _ in 0..2 {
        let dir = open(killed.path(), true);
        let family = create(&dir, "t");
        for settled in [false, true] {
            if settled {
                dir.settle(family).expect("handed over all the same");
                assert!(tables(&dir, family).is_empty());
            }
            let (found, error) = read(&dir, family, 0);
            assert_eq!(found, values(0..2, BATCH_BYTES));
            assert!(error.is_some(), "whoever reads it is told");
            assert_eq!(read(&dir, family, 3), (values(3..5, BATCH_BYTES), None));
            assert_eq!(dir.last_batch(family).expect("read").map(|(last, _)| last.0), Some(4));
        }
        dir.close();
    }
    let dir = open(killed.path(), true);
    let family = create(&dir, "t");
    append(&dir, family, 5..8, BATCH_BYTES);
    assert_eq!(read(&dir, family, 3), (values(3..8, BATCH_BYTES), None));
    assert_eq!(dir.failure(), None);
}

/// What lies behind it would be taken for torn.
#[test]
fn a_batch_that_was_found_damaged_costs_no_other_after_another_boot() {
    let killed = killed(5);
    flip(&in_order(killed.path())[0], block_at(2) + 5000);
    let family = create(&open(killed.path(), true), "t");
    for _ in 0..2 {
        let dir = open(killed.path(), false);
        assert_eq!(read(&dir, family, 3), (values(3..5, BATCH_BYTES), None));
    }
}

/// A loss of power leaves such files, and nothing behind the first block that is not sound was promised. After it the
/// same file must not be taken for damaged.
#[test]
fn what_a_loss_of_power_tore_is_cut_off_for_good() {
    let killed = killed(5);
    flip(&in_order(killed.path())[0], block_at(2) + 5000);
    let dir = open(killed.path(), false);
    assert_eq!(offsets(&dir, create(&dir, "t")), [0, 1]);
    dir.close();
    let before = copy(killed.path());
    let dir = open(before.path(), true);
    assert_eq!(offsets(&dir, create(&dir, "t")), [0, 1]);
}

/// As the kernel leaves it where the process is killed in the middle of a write.
#[test]
fn what_was_being_written_at_a_kill_is_no_damage() {
    for (kept, zeros) in [(0, 0), (10, 0), (10, 20_000), (5000, 0), (5000, 20_000)] {
        let killed = killed(5);
        let file = std::fs::File::options().write(true).open(&in_order(killed.path())[0]).expect("open");
        let torn = block_at(4) + kept;
        file.set_len(torn).expect("cut");
        file.set_len(torn + zeros).expect("filled");
        let dir = open(killed.path(), true);
        let family = create(&dir, "t");
        assert_eq!(read(&dir, family, 0), (values(0..4, BATCH_BYTES), None), "{kept} {zeros}");
        append(&dir, family, 4..6, BATCH_BYTES);
        assert_eq!(offsets(&dir, family), [0, 1, 2, 3, 4, 5]);
    }
}

/// Nothing is taken, nothing is removed; other partitions serve. What is left goes with the partition.
#[test]
fn where_it_is_not_known_what_is_lost_the_log_is_not_opened() {
    // A head, those of tables' first batches, such a batch, headers of tables, the last batch before another table.
    let heads = [(1, block_at(1) + 1), (0, block_at(0) + 1), (2, block_at(0) + 1)];
    for (table, at) in heads.into_iter().chain([(0, block_at(0) + 5000), (1, 20), (2, 20), (0, block_at(6) + 5000)]) {
        let killed = killed(20);
        let before = in_order(killed.path());
        assert_eq!(before.len(), 3);
        flip(&before[table], at);
        // Once it was found, also after another boot.
        for is_same_boot in [true, true, false, false, true] {
            let dir = open(killed.path(), is_same_boot);
            let (family, other) = (create(&dir, "t"), create(&dir, "other"));
            let error = dir.last_batch(family).expect_err("it is not opened").to_string();
            assert!(error.contains("damaged") && error.contains(".sst"), "{error}");
            assert_eq!(offsets(&dir, other), [0]);
            commit(&*dir, vec![batch(other, 0, b"small")], true).expect("written");
            dir.close();
            assert_eq!(in_order(killed.path()), before, "{table} {at}");
            assert_eq!(files(killed.path()).len(), before.len() + 1, "and the marker");
        }
        let dir = open(killed.path(), false);
        dir.delete(&[partition("t", 0)]).expect("deleted");
        eventually("its files go", || files(killed.path()).is_empty());
        let family = create(&dir, "t");
        assert_eq!((offsets(&dir, family), dir.failure()), (vec![], None));
        append(&dir, family, 0..2, BATCH_BYTES);
        assert_eq!(read(&dir, family, 0).0[1], (1, value(1, BATCH_BYTES)));
    }
}

/// Which was taken for torn: all behind it was cut off.
#[test]
fn a_head_that_claims_more_than_the_file_has_is_damaged() {
    const LARGE_BYTES: usize = 20_000;
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open(place.path(), true);
    stop_handing_over(&dir);
    let family = create(&dir, "t");
    append(&dir, family, 0..3, LARGE_BYTES);
    let killed = copy(place.path());
    let (key, batch) = (keys::batch(Offset(0)), value(0, LARGE_BYTES));
    let second = layout::frame(key, &batch, None).block_at(key, HEADER_BYTES as u64, batch.len()).end();
    flip(&in_order(killed.path())[0], second + 4);
    let dir = open(killed.path(), true);
    let error = dir.last_batch(create(&dir, "t")).expect_err("it is not opened").to_string();
    assert!(error.contains("damaged"), "{error}");
}

/// What such a partition needs is its own: no other waits because of it.
#[test]
fn refused_tables_count_for_nothing() {
    let killed = killed(20);
    flip(&in_order(killed.path())[1], block_at(1) + 1);
    let dir = open(killed.path(), true);
    assert_eq!((parts(&dir).growing.count(), parts(&dir).growing.bytes()), (0, 0));
}

fn marker(place: &Path, family: Family) -> PathBuf {
    place.join(format!("growing/{}.damaged", family.0))
}

/// It was removed with what lay below the log's start, and the start after that opened a shorter log without a line.
#[test]
fn a_table_whose_header_alone_is_damaged_stays() {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open(place.path(), true);
    stop_handing_over(&dir);
    let (family, passing) = (create(&dir, "t"), create(&dir, "passing"));
    append(&dir, family, 0..10, BATCH_BYTES);
    commit(&*dir, vec![delete(family, 0..2), batch(passing, 0, b"small")], false).expect("commit");
    let killed = copy(place.path());
    dir.close();
    let before = in_order(killed.path());
    assert_eq!(before.len(), 2);
    flip(&before[1], 20);
    let dir = open(killed.path(), true);
    assert!(dir.last_batch(family).is_err());
    dir.settle(family).expect("nothing is handed over");
    dir.reclaim(family, Offset(0)..Offset(2));
    dir.delete(&[partition("passing", 0)]).expect("deleted");
    let is_gone = || parts(&dir).families.state(passing).start() == Offset(0);
    eventually("what came before it is done", is_gone);
    dir.close();
    assert_eq!(in_order(killed.path()), before);
    assert!(open(killed.path(), true).last_batch(family).is_err());
}

/// The log ends before what was removed by hand, and what made the partition refused is gone.
#[test]
fn a_partition_whose_damaged_tables_were_removed_opens() {
    for is_same_boot in [true, false] {
        let killed = killed(20);
        let tables = in_order(killed.path());
        flip(&tables[1], block_at(1) + 1);
        let family = create(&open(killed.path(), true), "t");
        std::fs::remove_file(&tables[1]).expect("removed");
        let dir = open(killed.path(), is_same_boot);
        assert!(dir.last_batch(family).is_err(), "not all of them were");
        dir.close();
        for table in [&tables[0], &tables[2]] {
            std::fs::remove_file(table).expect("removed");
        }
        for _ in 0..2 {
            let dir = open(killed.path(), is_same_boot);
            assert_eq!((offsets(&dir, family), files(killed.path())), (vec![], vec![marker(killed.path(), family)]));
            assert_eq!(dir.end(family), LogEndState::MayBeLost, "until something has come since");
            let other = create(&dir, "other");
            assert_eq!((offsets(&dir, other), dir.end(other)), (vec![0], LogEndState::AsWritten));
        }
        let dir = open(killed.path(), is_same_boot);
        stop_handing_over(&dir);
        append(&dir, family, 0..10, BATCH_BYTES);
        let later = copy(killed.path());
        dir.close();
        let dir = open(later.path(), true);
        assert!(read(&dir, family, 0) == (values(0..10, BATCH_BYTES), None));
        assert_eq!((dir.end(family), marker(later.path(), family).exists()), (LogEndState::AsWritten, false));
        drop(dir);
        let dir = open(killed.path(), true);
        dir.delete(&[partition("t", 0)]).expect("deleted");
        eventually("the marker goes with the partition", || files(killed.path()).is_empty());
    }
}

/// As where a version that knows of no markers has cut off what was damaged, and gone on.
#[test]
fn a_marker_of_tables_that_are_gone_refuses_no_later_ones() {
    let damaged = killed(20);
    let tables = in_order(damaged.path());
    flip(&tables[1], block_at(1) + 1);
    let dir = open(damaged.path(), true);
    let family = create(&dir, "t");
    assert_eq!(dir.end(family), LogEndState::Refused);
    let noted = std::fs::read(marker(damaged.path(), family)).expect("a marker");
    dir.delete(&[partition("t", 0)]).expect("deleted");
    eventually("its files go", || files(damaged.path()).is_empty());
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open(place.path(), true);
    stop_handing_over(&dir);
    append(&dir, create(&dir, "t"), 0..20, BATCH_BYTES);
    let later = copy(place.path());
    // The serials of the tables that are there are higher than those that were noted.
    for (serial, table) in in_order(later.path()).iter().enumerate().rev() {
        std::fs::rename(table, table.with_file_name(format!("{}-{}.sst", family.0, serial + 10))).expect("renamed");
    }
    std::fs::write(marker(later.path(), family), noted).expect("written");
    let dir = open(later.path(), true);
    assert!(read(&dir, family, 0) == (values(0..20, BATCH_BYTES), None));
    assert!(!marker(later.path(), family).exists() && dir.end(family) == LogEndState::AsWritten);
}

/// A kill, or a disk without space, may leave any beginning of it.
#[test]
fn a_marker_that_is_torn_refuses_the_partition() {
    let killed = killed(20);
    let before = in_order(killed.path());
    let family = create(&open(copy(killed.path()).path(), true), "t");
    for text in ["", "AAAA", "AAAAAAAAAAAAAAAAAAAABw 0 1 00000000\nwhy\n"] {
        std::fs::write(marker(killed.path(), family), text).expect("write");
        for is_same_boot in [true, false] {
            let dir = open(killed.path(), is_same_boot);
            assert!(dir.last_batch(family).is_err(), "{text}");
            assert_eq!(offsets(&dir, create(&dir, "other")), [0]);
            dir.close();
            assert_eq!(in_order(killed.path()), before);
        }
    }
}

/// A version that knows of no markers leaves one behind when it deletes the partition.
#[test]
fn a_marker_of_a_partition_that_is_gone_says_nothing() {
    let damaged = killed(20);
    flip(&in_order(damaged.path())[1], block_at(1) + 1);
    let dir = open(damaged.path(), true);
    let noted = marker(damaged.path(), create(&dir, "t"));
    dir.close();
    let killed = killed(5);
    let family = create(&open(copy(killed.path()).path(), true), "other");
    for number in [family, Family(family.0 + 1), Family(4_000_000_000)] {
        std::fs::copy(&noted, marker(killed.path(), number)).expect("copied");
    }
    let dir = open(killed.path(), true);
    assert_eq!((offsets(&dir, family), offsets(&dir, create(&dir, "t"))), (vec![0], vec![0, 1, 2, 3, 4]));
    eventually("they go", || files(killed.path()).is_empty());
}

/// The partition is refused all the same, and what comes next is noted once there is space.
#[test]
fn a_marker_that_cannot_be_written_refuses_the_partition_this_time() {
    for (operation, errno) in
        [(Operation::NoteDamage, Errno::NOSPC), (Operation::NoteDamage, Errno::IO), (Operation::Sync, Errno::NOSPC)]
    {
        let killed = killed(20);
        let before = in_order(killed.path());
        flip(&before[1], block_at(1) + 1);
        let family = create(&open(copy(killed.path()).path(), true), "t");
        let options = DirectoryOptions { is_same_boot: true, ..tables_of(64 << 10) };
        options.faults.set(operation, errno, Some(1));
        let dir = RocksDirectory::open(killed.path(), options).expect("open");
        assert!(dir.last_batch(family).is_err());
        let is_no_space = (operation, errno) == (Operation::NoteDamage, Errno::NOSPC);
        assert_eq!(dir.failure().is_none(), is_no_space, "{operation:?} {errno}");
        drop(dir);
        for is_same_boot in [true, false] {
            let dir = open(killed.path(), is_same_boot);
            assert!(dir.last_batch(family).is_err());
            assert_eq!(dir.failure(), None);
            assert_eq!(in_order(killed.path()), before);
        }
    }
}

/// A kill at any moment while a deleted partition's files are removed leaves nothing that the next one would meet.
#[test]
fn what_was_refused_goes_as_a_whole() {
    let damaged = killed(20);
    let before = in_order(damaged.path());
    flip(&before[1], block_at(1) + 1);
    let options = DirectoryOptions { is_same_boot: true, ..tables_of(64 << 10) };
    let dir = RocksDirectory::open(damaged.path(), options.clone()).expect("open");
    options.faults.set(Operation::RemoveTable, Errno::NOSPC, None);
    dir.delete(&[partition("t", 0)]).expect("deleted");
    commit(&*dir, vec![side(b"x", b"")], true).expect("written");
    for gone in 0..=before.len() {
        let killed = copy(damaged.path());
        assert_eq!(files(killed.path()).len(), before.len() + 1 - gone);
        let dir = open(killed.path(), gone % 2 == 0);
        assert_eq!(files(killed.path()), [] as [PathBuf; 0]);
        let family = create(&dir, "t");
        append(&dir, family, 0..2, BATCH_BYTES);
        assert_eq!(offsets(&dir, family), [0, 1]);
        if gone < before.len() {
            std::fs::remove_file(&before[before.len() - 1 - gone]).expect("removed");
        }
    }
    options.faults.clear();
    // It shows that there is space.
    commit(&*dir, vec![side(b"x", b"")], false).expect("written");
    eventually("the marker goes, too", || files(damaged.path()).is_empty());
    assert_eq!(offsets(&dir, create(&dir, "t")), [] as [i64; 0]);
}

/// A batch as producers send it, as far as its length goes.
pub(super) fn framed(bytes: usize, fill: impl FnOnce(&mut [u8])) -> Vec<u8> {
    let mut batch = vec![0; bytes];
    batch[8..12].copy_from_slice(&(bytes as u32 - 12).to_be_bytes());
    fill(&mut batch[12..]);
    batch
}

/// A table of these batches, which nobody finished.
fn killed_with(batches: &[Vec<u8>]) -> tempfile::TempDir {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = RocksDirectory::open(place.path(), tables_of(64 << 20)).expect("open");
    let family = create(&dir, "t");
    for (offset, bytes) in batches.iter().enumerate() {
        commit(&*dir, vec![batch(family, offset as i64, bytes)], false).expect("commit");
    }
    assert_eq!(in_order(place.path()).len(), 1);
    copy(place.path())
}

/// Where such a table has them.
fn blocks(batches: &[Vec<u8>]) -> Vec<BlockAt> {
    let mut at = HEADER_BYTES as u64;
    let mut blocks = Vec::new();
    for (offset, bytes) in batches.iter().enumerate() {
        let key = keys::batch(Offset(offset as i64));
        let block = layout::frame(key, bytes, None).block_at(key, at, bytes.len());
        at = block.end();
        blocks.push(block);
    }
    blocks
}

pub(super) fn overwrite(file: &Path, at: u64, bytes: &[u8]) {
    let file = std::fs::File::options().write(true).open(file).expect("open");
    file.write_all_at(bytes, at).expect("written");
}

/// The batches between were cut off with what it was taken for.
#[test]
fn a_head_that_claims_what_follows_is_damaged() {
    let batches: Vec<_> = (0..5).map(|_| framed(5000, |_| ())).collect();
    let killed = killed_with(&batches);
    let blocks = blocks(&batches);
    // 16,000 bytes: into the last batch.
    overwrite(&in_order(killed.path())[0], blocks[1].start + 2, &[0x80, 0x7d]);
    let dir = open(killed.path(), true);
    assert!(dir.last_batch(create(&dir, "t")).is_err());
}

/// It had been acknowledged before the next one was begun, and was cut off with that.
#[test]
fn a_batch_before_a_torn_one_is_damaged() {
    let batches: Vec<_> = (0..4).map(|_| framed(5000, |_| ())).collect();
    let blocks = blocks(&batches);
    // Of the last one its head, and some more; less; or nothing.
    for (kept, zeros) in [(4000, 0), (4000, 20_000), (25, 0), (10, 0), (0, 0), (0, 20_000)] {
        let killed = killed_with(&batches);
        let table = &in_order(killed.path())[0];
        let file = std::fs::File::options().write(true).open(table).expect("open");
        let length = blocks[3].start + kept;
        file.set_len(length).and_then(|()| file.set_len(length + zeros)).expect("cut");
        let sound = copy(killed.path());
        let dir = open(sound.path(), true);
        assert_eq!(offsets(&dir, create(&dir, "t")), [0, 1, 2]);
        // Its body, its head, its key, its length, the length that the batch has itself, its checksum.
        let value = blocks[2].value_start() - blocks[2].start;
        let checksum = blocks[2].end() - blocks[2].start - 2;
        for place in [3000, 0, 7, 2, value + 10, checksum] {
            let killed = copy(killed.path());
            flip(&in_order(killed.path())[0], blocks[2].start + place);
            let dir = open(killed.path(), true);
            assert!(dir.last_batch(create(&dir, "t")).is_err(), "{kept} {zeros} {place}");
        }
    }
}

/// Its index says that there was one more.
#[test]
fn a_damaged_last_batch_of_a_finished_table_is_not_cut_off() {
    let batches: Vec<_> = (0..4).map(|_| framed(5000, |_| ())).collect();
    let blocks = blocks(&batches);
    let end = layout::finish(&blocks, blocks[3].end());
    for (flipped, is_refused) in
        [(None, false), (Some(blocks[3].start + 3000), true), (Some(blocks[3].start + 7), true)]
            .into_iter()
            .chain([3, end.len() as u64 / 2, end.len() as u64 - 2].map(|place| (Some(blocks[3].end() + place), false)))
    {
        let killed = killed_with(&batches);
        let table = &in_order(killed.path())[0];
        let file = std::fs::File::options().write(true).open(table).expect("open");
        file.write_all_at(&end, blocks[3].end()).expect("written");
        file.set_len(blocks[3].end() + end.len() as u64).expect("cut");
        if let Some(place) = flipped {
            flip(table, place);
        }
        let dir = open(killed.path(), true);
        let family = create(&dir, "t");
        assert_eq!(dir.last_batch(family).is_err(), is_refused, "{flipped:?}");
        if !is_refused {
            assert_eq!(offsets(&dir, family), [0, 1, 2, 3]);
        }
    }
}

/// The head of a block with the key of offset 1.
fn head_claiming(value_bytes: u64) -> Vec<u8> {
    let mut head = vec![0, 16];
    let mut left = value_bytes;
    while left >= 0x80 {
        head.push(left as u8 | 0x80);
        left >>= 7;
    }
    head.push(left as u8);
    head.extend(keys::batch(Offset(1)));
    head.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    head
}

/// Each of them was summed up to where it claims to end, in this case for minutes.
#[test]
fn what_looks_like_heads_does_not_hold_up_a_start() {
    let mut batches = vec![framed(BATCH_BYTES, |_| ()), framed(6 << 20, |_| ()), framed(BATCH_BYTES, |_| ())];
    let (value_at, end) = (blocks(&batches)[1].value_start() as usize, blocks(&batches)[2].end() as usize);
    batches[1] = framed(6 << 20, |batch| {
        let mut at = 0;
        while at + layout::HEAD_MAX < batch.len() {
            let behind = end - layout::TAIL_BYTES - (value_at + 12 + at);
            let longest = head_claiming(behind as u64).len();
            let lengths = longest - 1..=longest;
            let head = lengths.map(|length| head_claiming((behind - length) as u64)).find(|head| {
                layout::parse_head(0, head).is_some_and(|block| block.end() as usize == behind + layout::TAIL_BYTES)
            });
            let head = head.unwrap_or_else(|| vec![1]);
            batch[at..at + head.len()].copy_from_slice(&head);
            at += head.len();
        }
    });
    let killed = killed_with(&batches);
    flip(&in_order(killed.path())[0], blocks(&batches)[1].start + 1);
    let began = std::time::Instant::now();
    let dir = open(killed.path(), true);
    assert!(began.elapsed() < std::time::Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(dir.last_batch(create(&dir, "t")).is_err());
}

/// A client may send what a table consists of. What of it is left of a torn batch was taken for more of the table.
#[test]
fn a_kill_while_a_torn_table_is_handed_over_is_no_damage() {
    let inner = (keys::batch(Offset(5)), [7; 100]);
    let frame = layout::frame(inner.0, &inner.1, None);
    let whole: Vec<u8> = [frame.head(), &inner.1, frame.tail()].concat();
    let torn = framed(BATCH_BYTES, |batch| batch[5000..5000 + whole.len()].copy_from_slice(&whole));
    let batches = [framed(BATCH_BYTES, |_| ()), framed(BATCH_BYTES, |_| ()), torn];
    let blocks = blocks(&batches);
    for zeros in [0, 20_000] {
        let killed = killed_with(&batches);
        let length = blocks[2].start + 8000;
        let file = std::fs::File::options().write(true).open(&in_order(killed.path())[0]).expect("open");
        file.set_len(length).and_then(|()| file.set_len(length + zeros)).expect("cut");
        let options = DirectoryOptions { is_same_boot: true, ..tables_of(64 << 20) };
        options.faults.set(Operation::FinishTable, Errno::NOSPC, None);
        let dir = RocksDirectory::open(killed.path(), options).expect("open");
        assert_eq!(offsets(&dir, create(&dir, "t")), [0, 1]);
        let before = copy(killed.path());
        let end = layout::finish(&blocks[..2], blocks[2].start);
        for written in [0, 1, 40, end.len()] {
            let killed = copy(before.path());
            overwrite(&in_order(killed.path())[0], blocks[2].start, &end[..written]);
            let dir = open(killed.path(), true);
            let family = create(&dir, "t");
            assert_eq!(dir.last_batch(family).expect("opens").map(|(last, _)| last.0), Some(1), "{zeros} {written}");
            dir.settle(family).expect("handed over");
            assert_eq!((tables(&dir, family).len(), offsets(&dir, family)), (0, vec![0, 1]));
        }
    }
}
