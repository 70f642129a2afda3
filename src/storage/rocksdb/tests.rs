//! The real directory against the contract, and what only a disk, a kill or a damaged file can show.

use std::sync::mpsc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::database::{Batch, FORMAT_KEY, RocksError, is_cached};
use super::*;
use crate::storage::contract::{self, batch, commit, delete, partition, scan, side, sides};
use crate::storage::{self, SharedLogDir, Write};
use crate::types::limits::INLINE_WRITE_BYTES_MAX;

pub(super) fn options() -> DirectoryOptions {
    DirectoryOptions { disk_reserve_bytes: 0, ..DirectoryOptions::default() }
}

pub(super) fn open(dir: &Path) -> Arc<RocksDirectory> {
    RocksDirectory::open(dir, options()).expect("open")
}

pub(super) fn create(dir: &RocksDirectory, topic: &str) -> Family {
    dir.create(&[partition(topic, 0)]).expect("create")[0]
}

pub(super) fn parts(dir: &RocksDirectory) -> Arc<Parts> {
    dir.opened().expect("open")
}

/// Waits for the background.
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < deadline, "{what} did not come true");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn rocksdb_keeps_the_contract() {
    let dir = tempfile::tempdir().expect("tempdir");
    contract::check(&mut || open(dir.path()));
}

/// Queues a set of so many bytes and sees to it; answers on which thread it was done.
fn queue_and_write(dir: &Arc<RocksDirectory>, family: Family, offset: i64, bytes: usize, sync: bool) -> ThreadId {
    let (sender, done) = mpsc::channel();
    let set = WriteSet { writes: vec![batch(family, offset, &vec![0; bytes])], sync };
    let log_dir: SharedLogDir = Arc::<RocksDirectory>::clone(dir);
    let told = move |result: Result<(), StorageError>| drop(sender.send((result, std::thread::current().id())));
    drop(storage::queue(&log_dir, set, Box::new(told)));
    let (result, thread) = done.recv().expect("done is always called");
    result.expect("written");
    thread
}

#[test]
fn little_is_written_by_its_owner_where_the_writer_sleeps() {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open(place.path());
    let family = create(&dir, "inline");
    let (here, writer_sleeps) = (std::thread::current().id(), || dir.queue.writer_sleeps());
    eventually("the writer sleeps", writer_sleeps);
    assert_eq!(queue_and_write(&dir, family, 0, 1000, false), here);
    assert_ne!(queue_and_write(&dir, family, 1, 1000, true), here, "a sync waits for the disk");
    eventually("the writer sleeps", writer_sleeps);
    assert_ne!(queue_and_write(&dir, family, 2, INLINE_WRITE_BYTES_MAX + 1, false), here, "more than a little");
    eventually("the writer sleeps", writer_sleeps);
    assert_eq!(queue_and_write(&dir, family, 3, 1000, false), here);
    assert_eq!((scan(&*dir, family, 0).len(), dir.queued_bytes()), (4, 0));
}

/// Up to five seconds, which no thread of a request has.
#[test]
fn the_writers_thread_alone_waits_for_tables_to_be_handed_over() {
    let place = tempfile::tempdir().expect("tempdir");
    let options = DirectoryOptions { table_piece_bytes: 1, tables_bytes_max: 1, ..options() };
    let dir = RocksDirectory::open(place.path(), options).expect("open");
    let family = create(&dir, "t");
    parts(&dir).database.table_jobs().close();
    let mut offset = 0;
    while !parts(&dir).growing.tables_lag() {
        commit(&*dir, vec![batch(family, offset, &[0; 64])], false).expect("commit");
        offset += 1;
    }
    eventually("the writer sleeps", || dir.queue.writer_sleeps());
    assert_ne!(queue_and_write(&dir, family, offset, 64, false), std::thread::current().id());
}

/// What an options file says is what RocksDB goes by.
#[test]
fn the_manifest_is_not_let_grow_to_a_gibibyte() {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open(place.path());
    let files = std::fs::read_dir(place.path().join("db")).expect("list").flatten();
    let options = files.filter(|file| file.file_name().to_string_lossy().starts_with("OPTIONS")).last();
    let options = std::fs::read_to_string(options.expect("one").path()).expect("read");
    assert!(options.contains("max_manifest_file_size=1048576\n"), "{options}");
    dir.close();
}

/// Threads that queue, write themselves, wake the writer, sync and write much: `Done` comes in the order of the queue,
/// for every set, and what it tells can be read.
#[test]
fn sets_are_done_in_order_whoever_writes_them() {
    const THREADS: i64 = 4;
    const SETS: i64 = 1500;
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open(place.path());
    let family = create(&dir, "mixed");
    // As a partition: offsets are given and sets are queued under a lock which `Done` takes, too.
    let partition = Arc::new(Mutex::new((0_i64, Vec::new())));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (dir, partition) = (Arc::clone(&dir), Arc::clone(&partition));
            std::thread::spawn(move || {
                let log_dir: SharedLogDir = dir;
                for n in 0..SETS {
                    let mut state = partition.lock();
                    let offset = state.0;
                    state.0 += 1;
                    let told = Arc::clone(&partition);
                    let bytes = if n % 97 == 0 { INLINE_WRITE_BYTES_MAX } else { 10 };
                    let writes = vec![batch(family, offset, &vec![1; bytes])];
                    let set = WriteSet { writes, sync: n % 331 == 0 };
                    let done = Box::new(move |result: Result<(), StorageError>| told.lock().1.push((offset, result)));
                    let unwritten = if (n + thread) % 5 == 0 {
                        log_dir.commit(set, done);
                        None
                    } else {
                        Some(storage::queue(&log_dir, set, done))
                    };
                    drop(state);
                    drop(unwritten);
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("no panic");
    }
    eventually("all are done", || partition.lock().1.len() as i64 == THREADS * SETS);
    let offsets: Vec<i64> = partition.lock().1.iter().map(|(offset, _)| *offset).collect();
    assert!(offsets.is_sorted(), "in the order of the queue");
    assert!(partition.lock().1.iter().all(|(_, result)| result.is_ok()));
    assert_eq!(scan(&*dir, family, 0).len() as i64, THREADS * SETS);
}

#[test]
fn an_open_directory_refuses_a_second_owner() {
    let dir = tempfile::tempdir().expect("tempdir");
    let first = open(dir.path());
    let second = RocksDirectory::open(dir.path(), options());
    assert!(matches!(second, Err(OpenError::Taken { .. })), "{second:?}");
    first.close();
    open(dir.path()).close();
}

#[test]
fn a_jvm_brokers_segments_are_refused_and_left_alone() {
    let dir = tempfile::tempdir().expect("tempdir");
    let segments = dir.path().join("orders-eu-12");
    std::fs::create_dir(&segments).expect("mkdir");
    std::fs::write(segments.join("leader-epoch-checkpoint"), "0\n0\n").expect("write");
    open(dir.path()).close();
    std::fs::write(segments.join("00000000000000000000.log"), "bytes").expect("write");
    match RocksDirectory::open(dir.path(), options()) {
        Err(OpenError::ForeignSegments { file, .. }) => {
            assert_eq!(file, Path::new("orders-eu-12/00000000000000000000.log"));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_newer_format_is_refused() {
    let dir = tempfile::tempdir().expect("tempdir");
    let opened = open(dir.path());
    let mut newer = Batch::with_capacity(64);
    newer.put(parts(&opened).database.default_cf(), FORMAT_KEY, &9_u32.to_be_bytes());
    parts(&opened).database.write(&mut newer).expect("write");
    opened.close();
    let refused = RocksDirectory::open(dir.path(), options());
    assert!(matches!(refused, Err(OpenError::NewerFormat { found: 9, .. })), "{refused:?}");
}

/// Without CPU flags at build time, checksums alone cost more than all the rest of a write.
#[test]
fn rocksdb_is_built_with_the_cpus_crc32c() {
    let dir = tempfile::tempdir().expect("tempdir");
    let (sender, lines) = mpsc::channel();
    let sender = Mutex::new(sender);
    let log = move |line: &str| drop(sender.lock().send(line.to_owned()));
    RocksDirectory::open_with_log(dir.path(), options(), log).expect("open").close();
    let line = lines.try_iter().find(|line| line.contains("Fast CRC32 supported")).expect("RocksDB tells at open");
    assert!(line.contains(": Supported on"), "{line}; see .cargo/config.toml for the flags");
}

#[test]
fn at_the_reserve_batches_are_refused_and_all_else_goes_on() {
    let dir = tempfile::tempdir().expect("tempdir");
    let opened = open(dir.path());
    let family = create(&opened, "t");
    commit(&*opened, vec![batch(family, 0, b"a"), batch(family, 1, b"b")], false).expect("commit");
    assert!(!opened.is_full());
    assert_eq!(parts(&opened).database.set_reserve(u64::MAX), Some(0));
    let refused = commit(&*opened, vec![batch(family, 2, b"c")], false);
    assert!(matches!(refused, Err(StorageError::Full { .. })), "{refused:?}");
    assert!(opened.is_full());
    commit(&*opened, vec![delete(family, 0..1), side(b"start", b"1")], true).expect("deletes pass");
    parts(&opened).database.set_reserve(0);
    assert!(!opened.is_full());
    commit(&*opened, vec![batch(family, 2, b"c")], false).expect("goes on by itself");
    assert_eq!(scan(&*opened, family, 0), [(1, b"b".to_vec()), (2, b"c".to_vec())]);
}

#[test]
fn a_refusal_takes_along_what_was_queued_behind_it() {
    let dir = tempfile::tempdir().expect("tempdir");
    let opened = open(dir.path());
    let (one, other) = (create(&opened, "one"), create(&opened, "other"));
    // The writer is busy with a first set while the others are queued; space is back before it looks at the third.
    let (release, held) = mpsc::channel::<()>();
    let first = Box::new(move |_: Result<(), StorageError>| held.recv().expect("released"));
    opened.commit(WriteSet { writes: vec![side(b"x", b"x")], sync: false }, first);
    parts(&opened).database.set_reserve(u64::MAX);
    let (sender, outcomes) = mpsc::channel();
    let queue = |writes: Vec<Write>, mut then: Box<dyn FnMut() + Send>| {
        let sender = sender.clone();
        let done = move |result: Result<(), StorageError>| {
            then();
            sender.send(result.is_ok()).expect("the test listens");
        };
        opened.commit(WriteSet { writes, sync: false }, Box::new(done));
    };
    let space_is_back = parts(&opened);
    let large = vec![1; crate::types::limits::GROUP_COMMIT_BYTES_MAX];
    queue(vec![batch(one, 0, &large)], Box::new(move || assert!(space_is_back.database.set_reserve(0).is_some())));
    queue(vec![batch(one, 1, &large)], Box::new(|| ()));
    queue(vec![Write::RestsOn { family: one }, delete(one, 0..1), side(b"end", b"2")], Box::new(|| ()));
    queue(vec![Write::RestsOn { family: one }, side(b"more", b"3")], Box::new(|| ()));
    queue(vec![delete(one, 0..1), side(b"start", b"1")], Box::new(|| ()));
    queue(vec![Write::RestsOn { family: other }, batch(other, 0, &large)], Box::new(|| ()));
    release.send(()).expect("held");
    assert_eq!(outcomes.iter().take(6).collect::<Vec<_>>(), [false, false, false, false, true, true]);
    assert_eq!(scan(&*opened, one, 0), []);
    assert_eq!(sides(&*opened, "a".."z"), ["start", "x"]);
    commit(&*opened, vec![batch(one, 0, b"again")], false).expect("a set queued after the refusal");
}

#[test]
fn a_stopped_directory_refuses_writes_and_goes_on_reading() {
    let dir = tempfile::tempdir().expect("tempdir");
    let opened = open(dir.path());
    let family = create(&opened, "t");
    commit(&*opened, vec![batch(family, 0, b"a")], false).expect("commit");
    parts(&opened).database.stop(&RocksError("injected".into()));
    let stopped = |outcome: Result<(), StorageError>| matches!(outcome, Err(StorageError::Stopped { .. })); // I-6
    assert!(stopped(commit(&*opened, vec![batch(family, 1, b"b")], false)));
    assert!(stopped(opened.create(&[partition("u", 0)]).map(drop)));
    assert!(stopped(opened.delete(&[partition("t", 0)])));
    assert_eq!(scan(&*opened, family, 0), [(0, b"a".to_vec())]);
    opened.close();
    let reopened = open(dir.path());
    commit(&*reopened, vec![batch(family, 1, b"b")], false).expect("takes writes again");
}

#[test]
fn moving_a_logs_start_drops_whole_files() {
    let dir = tempfile::tempdir().expect("tempdir");
    let opened = open(dir.path());
    let family = create(&opened, "t");
    let parts = parts(&opened);
    let bytes_on_disk =
        || parts.database.db().property(parts.database.cf(family), "rocksdb.live-sst-files-size").expect("known");
    for file in 0..4_i64 {
        let batches = (0..64).map(|n| batch(family, file * 64 + n, &[7; 4096])).collect();
        commit(&*opened, batches, false).expect("commit");
        parts.database.db().flush(&[parts.database.cf(family)], true).expect("flush");
    }
    let before = bytes_on_disk();
    commit(&*opened, vec![delete(family, 0..130)], false).expect("commit");
    // Two of the four files lie below the start as a whole.
    eventually("the space to come back", || bytes_on_disk() < before * 6 / 10);
    assert!(bytes_on_disk() > before * 4 / 10);
    assert_eq!(scan(&*opened, family, 0).len(), 126);
}

/// Who was a little late with small batches waited for the disk, however much memory was free.
#[test]
fn what_a_flush_has_just_written_is_in_the_page_cache() {
    let dir = tempfile::tempdir().expect("tempdir");
    let any = dir.path().join("any");
    std::fs::write(&any, [7; 4096]).expect("written");
    let is_in_memory = |path: &Path| {
        let file = std::fs::File::open(path).expect("there");
        is_cached(&file, 0, file.metadata().expect("its length").len())
    };
    // Else the kernel does not say.
    let says = is_in_memory(&any);
    let opened = open(dir.path());
    let family = create(&opened, "t");
    let batches = (0..512).map(|n| batch(family, n, &[7; 4096])).collect();
    commit(&*opened, batches, false).expect("commit");
    let parts = parts(&opened);
    parts.database.db().flush(&[parts.database.cf(family)], true).expect("flush");
    let entries = std::fs::read_dir(dir.path().join("db")).expect("read").map(|entry| entry.expect("entry").path());
    let files: Vec<_> = entries.filter(|file| file.extension().is_some_and(|ending| ending == "sst")).collect();
    assert!(!files.is_empty() && files.iter().all(|file| is_in_memory(file) == says), "{files:?}");
}

/// A job may wait while its partition is deleted, and meet the next one of the family.
#[test]
fn a_former_partitions_job_drops_no_file_of_the_next_one() {
    let dir = tempfile::tempdir().expect("tempdir");
    let opened = open(dir.path());
    let family = create(&opened, "t");
    let parts = parts(&opened);
    parts.database.jobs().close();
    let batches = (0..64).map(|n| batch(family, n, &[7; 4096])).collect();
    commit(&*opened, batches, false).expect("commit");
    parts.database.db().flush(&[parts.database.cf(family)], true).expect("flush");
    commit(&*opened, vec![delete(family, 0..64)], false).expect("commit");
    let bytes_on_disk =
        || parts.database.db().property(parts.database.cf(family), "rocksdb.live-sst-files-size").expect("known");
    let before = bytes_on_disk();
    let background =
        Background::new(Arc::clone(&parts.database), Arc::clone(&parts.families), Arc::clone(&parts.growing));
    background.drop_files_below_start(family, Offset::MAX).expect("nothing to do");
    assert_eq!(bytes_on_disk(), before, "the start may not be on the disk");
    background.drop_files_below_start(family, Offset(64)).expect("dropped");
    assert_eq!(bytes_on_disk(), 0);
}

#[test]
fn a_thousand_partitions_are_created_in_one_call_and_found_again() {
    let dir = tempfile::tempdir().expect("tempdir");
    let wanted: Vec<PartitionId> = (0..1000).map(|n| partition("many", n)).collect();
    let opened = open(dir.path());
    let families = opened.create(&wanted).expect("create");
    commit(&*opened, vec![batch(families[999], 5, b"x")], false).expect("commit");
    opened.close();
    let opened = open(dir.path());
    assert_eq!(opened.create(&wanted).expect("create"), families);
    assert_eq!(scan(&*opened, families[999], 0), [(5, b"x".to_vec())]);
}

#[test]
fn more_partitions_than_descriptors_are_refused_and_the_rest_goes_on() {
    let dir = tempfile::tempdir().expect("tempdir");
    let few = DirectoryOptions { families_max: 20, ..options() };
    let opened = RocksDirectory::open(dir.path(), few).expect("open");
    let wanted: Vec<PartitionId> = (0..21).map(|n| partition("t", n)).collect();
    let refused = opened.create(&wanted);
    assert!(matches!(refused, Err(StorageError::TooManyPartitions { max: 20, .. })), "{refused:?}");
    assert_eq!(opened.partitions(), []);
    assert_eq!(opened.create(&wanted[..20]).expect("create").len(), 20);
    opened.delete(&wanted[..1]).expect("delete");
    eventually("the family's return", || opened.create(&wanted[20..]).is_ok());
}

/// Free families cost memory and time at each start.
#[test]
fn what_partitions_that_are_gone_left_behind_is_dropped() {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open(place.path());
    let kept = create(&dir, "kept");
    let many: Vec<PartitionId> = (0..400).map(|n| partition("many", n)).collect();
    let families = dir.create(&many).expect("create");
    let late = create(&dir, "late");
    for family in [kept, late, families[7], families[399]] {
        commit(&*dir, vec![batch(family, 3, b"x")], false).expect("commit");
    }
    dir.delete(&many).expect("delete");
    eventually("families are dropped", || parts(&dir).families.count() < 100);
    // A handle that somebody still has.
    assert_eq!((scan(&*dir, families[399], 0), dir.last_batch(families[399]).expect("read")), (vec![], None));
    let check = |dir: &RocksDirectory| {
        assert_eq!([create(dir, "kept"), create(dir, "late")], [kept, late]);
        assert_eq!([kept, late].map(|family| scan(dir, family, 0)), [[(3, b"x".to_vec())], [(3, b"x".to_vec())]]);
    };
    check(&dir);
    // Numbers are used again, and hold nothing of what was there before.
    for round in 0..2 {
        for family in dir.create(&many).expect("create") {
            assert_eq!(scan(&*dir, family, 0), []);
            commit(&*dir, vec![batch(family, 1, b"new")], false).expect("commit");
        }
        check(&dir);
        dir.delete(&many).expect("delete");
        if round == 0 {
            eventually("families are dropped", || parts(&dir).families.count() < 100);
        }
    }
    dir.close();
    for _ in 0..2 {
        let dir = open(place.path());
        check(&dir);
        eventually("families are dropped", || parts(&dir).families.count() < 100);
        assert_eq!(dir.partitions().len(), 2);
        dir.close();
    }
}

/// As a kill at any moment leaves it: what is dropped is nobody's.
#[test]
fn a_kill_while_families_are_dropped_loses_nothing() {
    let place = tempfile::tempdir().expect("tempdir");
    let dir = open(place.path());
    let many: Vec<PartitionId> = (0..300).map(|n| partition("many", n)).collect();
    let families = dir.create(&many).expect("create");
    let last = families[299];
    commit(&*dir, vec![batch(last, 3, b"x")], false).expect("commit");
    dir.delete(&many[..299]).expect("delete");
    let mut copies = Vec::new();
    eventually("families are dropped", || {
        copies.push(super::growing_tests::copy(place.path()));
        parts(&dir).families.count() < 100
    });
    for copy in copies.iter().rev().take(5) {
        let killed = open(copy.path());
        assert_eq!(killed.create(&many[299..]).expect("create"), [last]);
        assert_eq!(scan(&*killed, last, 0), [(3, b"x".to_vec())]);
        assert_eq!(killed.partitions().len(), 1);
        killed.close();
    }
}
