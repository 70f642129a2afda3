//! The real directory against the contract, and what only a disk, a kill or a damaged file can show.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use super::directory::{Assignment, FORMAT_KEY};
use super::*;
use crate::storage::contract::{self, batch, commit, delete, partition, scan, side};
use crate::storage::{self, SharedLogDir, Write, keys};
use crate::types::PartitionIndex;
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

pub(super) fn shared(dir: &RocksDirectory) -> Arc<Shared> {
    dir.shared.load_full().expect("open")
}

/// Waits for the background.
pub(super) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
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
    let shared: SharedLogDir = Arc::<RocksDirectory>::clone(dir);
    let told = move |result: Result<(), StorageError>| drop(sender.send((result, std::thread::current().id())));
    drop(storage::queue(&shared, set, Box::new(told)));
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
    shared(&dir).growing.close();
    let mut offset = 0;
    while !shared(&dir).tables_lag() {
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
                let shared: SharedLogDir = dir;
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
                        shared.commit(set, done);
                        None
                    } else {
                        Some(storage::queue(&shared, set, done))
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
    newer.put(shared(&opened).default_cf(), FORMAT_KEY, &9_u32.to_be_bytes());
    shared(&opened).write(&mut newer).expect("write");
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
fn a_damaged_file_is_an_error_and_never_wrong_bytes() {
    let dir = tempfile::tempdir().expect("tempdir");
    let opened = open(dir.path());
    let family = create(&opened, "t");
    commit(&*opened, (0..64).map(|n| batch(family, n, &[n as u8; 4096])).collect(), false).expect("commit");
    opened.close();
    let files = std::fs::read_dir(dir.path().join("db")).expect("list").map(|entry| entry.expect("entry").path());
    let tables = files.filter(|path| path.extension().is_some_and(|extension| extension == "sst"));
    let table = tables.max_by_key(|path| path.metadata().expect("metadata").len()).expect("a file");
    let mut bytes = std::fs::read(&table).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&table, bytes).expect("write");

    let opened = open(dir.path());
    let mut visited = 0;
    let outcome = opened.scan(family, Offset(0), 0, &mut |last_offset, batch| {
        assert_eq!(*batch, [last_offset.0 as u8; 4096]);
        visited += 1;
        std::ops::ControlFlow::Continue(())
    });
    assert!(matches!(outcome, Err(StorageError::Read { .. })), "{outcome:?} after {visited}");
}

#[test]
fn at_the_reserve_batches_are_refused_and_all_else_goes_on() {
    let dir = tempfile::tempdir().expect("tempdir");
    let opened = open(dir.path());
    let family = create(&opened, "t");
    commit(&*opened, vec![batch(family, 0, b"a"), batch(family, 1, b"b")], false).expect("commit");
    assert!(!opened.is_full());
    shared(&opened).space.set_reserve(u64::MAX);
    assert_eq!(shared(&opened).space.ask(), Some(0));
    let refused = commit(&*opened, vec![batch(family, 2, b"c")], false);
    assert!(matches!(refused, Err(StorageError::Full { .. })), "{refused:?}");
    assert!(opened.is_full());
    commit(&*opened, vec![delete(family, 0..1), side(b"start", b"1")], true).expect("deletes pass");
    shared(&opened).space.set_reserve(0);
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
    shared(&opened).space.set_reserve(u64::MAX);
    let (sender, outcomes) = mpsc::channel();
    let queue = |writes: Vec<Write>, mut then: Box<dyn FnMut() + Send>| {
        let sender = sender.clone();
        let done = move |result: Result<(), StorageError>| {
            then();
            sender.send(result.is_ok()).expect("the test listens");
        };
        opened.commit(WriteSet { writes, sync: false }, Box::new(done));
    };
    let space_is_back = shared(&opened);
    let large = vec![1; crate::types::limits::GROUP_COMMIT_BYTES_MAX];
    queue(vec![batch(one, 0, &large)], Box::new(move || space_is_back.space.set_reserve(0)));
    queue(vec![batch(one, 1, &large)], Box::new(|| ()));
    queue(vec![batch(other, 0, &large)], Box::new(|| ()));
    release.send(()).expect("held");
    assert_eq!(outcomes.iter().take(3).collect::<Vec<_>>(), [false, false, true]);
    assert_eq!(scan(&*opened, one, 0), []);
    commit(&*opened, vec![batch(one, 0, b"again")], false).expect("a set queued after the refusal");
}

#[test]
fn a_stopped_directory_refuses_writes_and_goes_on_reading() {
    let dir = tempfile::tempdir().expect("tempdir");
    let opened = open(dir.path());
    let family = create(&opened, "t");
    commit(&*opened, vec![batch(family, 0, b"a")], false).expect("commit");
    shared(&opened).stop(&RocksError("injected".into()));
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
    let shared = shared(&opened);
    let bytes_on_disk = || shared.db.property(shared.cf(family), "rocksdb.live-sst-files-size").expect("known");
    for file in 0..4_i64 {
        let batches = (0..64).map(|n| batch(family, file * 64 + n, &[7; 4096])).collect();
        commit(&*opened, batches, false).expect("commit");
        shared.db.flush(&[shared.cf(family)], true).expect("flush");
    }
    let before = bytes_on_disk();
    commit(&*opened, vec![delete(family, 0..130)], false).expect("commit");
    // Two of the four files lie below the start as a whole.
    eventually("the space to come back", || bytes_on_disk() < before * 6 / 10);
    assert!(bytes_on_disk() > before * 4 / 10);
    assert_eq!(scan(&*opened, family, 0).len(), 126);
}

/// A job may wait while its partition is deleted, and meet the next one of the family.
#[test]
fn a_former_partitions_job_drops_no_file_of_the_next_one() {
    let dir = tempfile::tempdir().expect("tempdir");
    let opened = open(dir.path());
    let family = create(&opened, "t");
    let shared = shared(&opened);
    shared.chores.close();
    let batches = (0..64).map(|n| batch(family, n, &[7; 4096])).collect();
    commit(&*opened, batches, false).expect("commit");
    shared.db.flush(&[shared.cf(family)], true).expect("flush");
    commit(&*opened, vec![delete(family, 0..64)], false).expect("commit");
    let bytes_on_disk = || shared.db.property(shared.cf(family), "rocksdb.live-sst-files-size").expect("known");
    let before = bytes_on_disk();
    shared.drop_files_below_start(family, Offset::MAX).expect("nothing to do");
    assert_eq!(bytes_on_disk(), before, "the start may not be on the disk");
    shared.drop_files_below_start(family, Offset(64)).expect("dropped");
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

#[test]
fn a_half_wiped_family_is_wiped_at_the_next_start() {
    let dir = tempfile::tempdir().expect("tempdir");
    let opened = open(dir.path());
    let family = create(&opened, "t");
    commit(&*opened, vec![batch(family, 5, b"old"), batch(family, 6, b"old"), delete(family, 0..6)], false)
        .expect("ok");
    // As a crash right after the first step of a deletion leaves it.
    let mut record = Batch::with_capacity(64);
    record.put(shared(&opened).default_cf(), &directory::assignment_key(family.0), &Assignment::Wiping.encode());
    shared(&opened).write(&mut record).expect("write");
    opened.close();

    let opened = open(dir.path());
    assert_eq!(opened.partitions(), []);
    assert_eq!(scan(&*opened, family, 0), []);
    // Lowest numbers first: once it is back in the pool, it is the next one.
    let mut n = 0;
    eventually("the family's return", || {
        n += 1;
        opened.create(&[partition("t", n)]).expect("create") == [family]
    });
    assert_eq!(scan(&*opened, family, 0), []);
    commit(&*opened, vec![batch(family, 1, b"new")], false).expect("commit");
    assert_eq!(scan(&*opened, family, 0), [(1, b"new".to_vec())]);
}

/// Where the child of the crash test keeps its directory; set only for the child.
const CRASH_DIR: &str = "KLAMM_TEST_CRASH_DIR";
/// Set for a child that is to write to growing tables, as many and as small ones as it can.
const CRASH_TABLES: &str = "KLAMM_TEST_CRASH_TABLES";
const CRASH_PARTITIONS: i32 = 3;

fn crash_options(tables: bool) -> DirectoryOptions {
    if tables {
        // One partition fills a table with some twenty batches; those of the others are too small for one.
        DirectoryOptions { table_piece_bytes: 16, table_bytes: 224 << 10, ..options() }
    } else {
        DirectoryOptions { tables_max: 0, ..options() }
    }
}

fn crash_value(index: usize, offset: i64) -> Vec<u8> {
    offset.to_be_bytes().repeat((1 + (offset as usize * 37) % 700) * [1, 4, 1][index])
}

/// Not a test by itself: the process that the test below kills.
#[test]
fn crash_child() {
    let Ok(path) = std::env::var(CRASH_DIR) else { return };
    let options = crash_options(std::env::var(CRASH_TABLES).is_ok());
    let dir = RocksDirectory::open(Path::new(&path), options).expect("open");
    let ids: Vec<_> = (0..CRASH_PARTITIONS).map(|n| partition("crash", n)).collect();
    let families = dir.create(&ids).expect("create");
    let mut next: Vec<i64> = families
        .iter()
        .map(|family| dir.last_batch(*family).expect("read").map_or(0, |(last, _)| last.0 + 1))
        .collect();
    for round in 0.. {
        for (index, family) in families.iter().enumerate() {
            let offset = next[index];
            next[index] += 1;
            let value = crash_value(index, offset);
            let key = keys::side(ids[index].topic_id, PartitionIndex(index as i32), 0x80, b"last");
            let writes = vec![batch(*family, offset, &value), side(&key, &offset.to_be_bytes())];
            let done = Box::new(move |result: Result<(), StorageError>| {
                result.expect("written");
                std::io::stdout().write_all(format!("\nacked {index} {offset}\n").as_bytes()).expect("a listener");
            });
            dir.commit(WriteSet { writes, sync: offset % 64 == 0 }, done);
        }
        if round % 16 == 0 {
            let passing = [partition("passing", round)];
            let family = dir.create(&passing).expect("create")[0];
            assert_eq!(scan(&*dir, family, 0), []);
            commit(&*dir, vec![batch(family, 0, b"passing")], false).expect("commit");
            dir.delete(&passing).expect("delete");
            std::io::stdout().write_all(format!("\ndeleted 0 {round}\n").as_bytes()).expect("a listener");
        }
    }
}

/// Everything acknowledged is there after a kill, each batch with its side record (I-1); what was deleted is not.
#[test]
fn a_killed_directory_has_everything_it_acknowledged() {
    kill_and_check(false, &[1, 50, 400, 1500]);
}

/// The same with growing tables, where a batch may outlive its side record, if it was not acknowledged.
#[test]
fn a_killed_directory_with_growing_tables_has_everything_it_acknowledged() {
    kill_and_check(true, &[1, 50, 400, 1500, 4000]);
}

fn kill_and_check(tables: bool, kills_after: &[usize]) {
    let dir = tempfile::tempdir().expect("tempdir");
    for &kill_after in kills_after {
        let mut command = Command::new(std::env::current_exe().expect("own path"));
        command
            .args(["--exact", "storage::rocksdb::tests::crash_child", "--nocapture", "--test-threads=1"])
            .env(CRASH_DIR, dir.path())
            .stdout(Stdio::piped());
        if tables {
            command.env(CRASH_TABLES, "1");
        }
        let mut child = command.spawn().expect("start");
        let mut acked = vec![-1_i64; CRASH_PARTITIONS as usize];
        let mut deleted = -1;
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
        for (count, line) in lines.filter(|line| line.contains(' ')).enumerate() {
            let words: Vec<&str> = line.split(' ').collect();
            match (words[0], words.get(1), words.get(2).and_then(|offset| offset.parse().ok())) {
                ("acked", Some(index), Some(offset)) => acked[index.parse::<usize>().expect("an index")] = offset,
                ("deleted", _, Some(round)) => deleted = round,
                _ => {}
            }
            if count == kill_after {
                child.kill().expect("kill");
            }
        }
        child.wait().expect("ended");
        assert!(acked.iter().any(|last| *last >= 0), "the child acknowledged something before it was killed");
        check_after_kill(dir.path(), &acked, deleted, tables);
    }
}

fn check_after_kill(path: &Path, acked: &[i64], deleted: i64, tables: bool) {
    let dir = RocksDirectory::open(path, crash_options(tables)).expect("open");
    let ids: Vec<_> = (0..CRASH_PARTITIONS).map(|n| partition("crash", n)).collect();
    for (index, family) in dir.create(&ids).expect("create").into_iter().enumerate() {
        let found = scan(&*dir, family, 0);
        assert!(found.len() as i64 > acked[index], "{} of {} acknowledged", found.len(), acked[index] + 1);
        for (expected, (offset, value)) in (0_i64..).zip(&found) {
            assert_eq!(*offset, expected, "no gap");
            assert_eq!(*value, crash_value(index, *offset));
        }
        let key = keys::side(ids[index].topic_id, PartitionIndex(index as i32), 0x80, b"last");
        let last = dir.side(&key).expect("read").map(|value| i64::from_be_bytes((*value).try_into().expect("8 bytes")));
        let last_batch = found.last().map(|(offset, _)| *offset);
        if tables {
            assert!((acked[index]..=last_batch.unwrap_or(-1)).contains(&last.unwrap_or(-1)), "{last:?} {last_batch:?}");
        } else {
            assert_eq!(last, last_batch, "batch and side record together (I-1)");
        }
    }
    let gone = |id: &PartitionId| id.topic.as_str() == "passing" && i64::from(id.partition.0) <= deleted;
    assert!(!dir.partitions().iter().any(|(id, _)| gone(id)), "a deleted partition stays deleted");
    let passing: Vec<_> =
        dir.partitions().into_iter().map(|(id, _)| id).filter(|id| id.topic.as_str() == "passing").collect();
    dir.delete(&passing).expect("delete");
    dir.close();
}

/// Each file of a database truncated, emptied, flipped in the middle or gone: a clear refusal, or the beginning of what
/// was written; never wrong bytes, never a new database in place of the old one.
#[test]
fn damage_is_refused_or_cuts_the_end_off() {
    let original = tempfile::tempdir().expect("tempdir");
    let opened = open(original.path());
    let family = create(&opened, "t");
    let value = |n: i64| vec![n as u8; 2000];
    let write = |from: i64| {
        for n in from..from + 30 {
            commit(&*opened, vec![batch(family, n, &value(n))], true).expect("commit");
        }
    };
    write(0);
    shared(&opened).flush_all().expect("flush");
    shared(&opened).note_manifest();
    write(30);
    // As a kill leaves it: copied while it is open.
    let snapshot: Vec<(PathBuf, Vec<u8>)> = std::fs::read_dir(original.path().join("db"))
        .expect("list")
        .map(|entry| entry.expect("entry").path())
        .map(|path| (PathBuf::from(path.file_name().expect("a name")), std::fs::read(&path).expect("read")))
        .collect();
    type Damage = fn(&[u8]) -> Option<Vec<u8>>;
    let damages: [(&str, Damage); 4] = [
        ("truncated", |bytes| Some(bytes[..bytes.len() / 2].to_vec())),
        ("emptied", |_| Some(Vec::new())),
        ("flipped", |bytes| {
            let mut bytes = bytes.to_vec();
            let middle = bytes.len() / 2;
            *bytes.get_mut(middle)? ^= 0x10;
            Some(bytes)
        }),
        ("gone", |_| None),
    ];
    let harmless = ["LOCK", "IDENTITY"];
    for (victim, bytes) in snapshot.iter().filter(|(name, bytes)| {
        !bytes.is_empty() && !harmless.contains(&&*name.to_string_lossy()) && !name.starts_with("OPTIONS")
    }) {
        for (kind, damage) in damages {
            let what = format!("{} {kind}", victim.display());
            let copy = tempfile::tempdir().expect("tempdir");
            std::fs::create_dir(copy.path().join("db")).expect("mkdir");
            std::fs::copy(original.path().join(".manifest"), copy.path().join(".manifest")).expect("copy");
            for (name, bytes) in snapshot.iter().filter(|(name, _)| name != victim) {
                std::fs::write(copy.path().join("db").join(name), bytes).expect("write");
            }
            if let Some(damaged) = damage(bytes) {
                std::fs::write(copy.path().join("db").join(victim), damaged).expect("write");
            }
            let Ok(opened) = RocksDirectory::open(copy.path(), options()) else { continue };
            let Some((_, family)) = opened.partitions().pop() else {
                panic!("{what}: opened as if nothing had ever been written");
            };
            let mut next = 0;
            let outcome = opened.scan(family, Offset(0), 0, &mut |last_offset, batch| {
                assert_eq!((last_offset.0, &*batch), (next, &*value(next)), "{what}");
                next += 1;
                std::ops::ControlFlow::Continue(())
            });
            let log_only = victim.extension().is_some_and(|extension| extension == "log");
            assert!(outcome.is_err() || next == 60 || (log_only && next >= 30), "{what}: {next} left, {outcome:?}");
        }
    }
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
    eventually("families are dropped", || shared(&dir).families.count() < 100);
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
            eventually("families are dropped", || shared(&dir).families.count() < 100);
        }
    }
    dir.close();
    for _ in 0..2 {
        let dir = open(place.path());
        check(&dir);
        eventually("families are dropped", || shared(&dir).families.count() < 100);
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
        shared(&dir).families.count() < 100
    });
    for copy in copies.iter().rev().take(5) {
        let killed = open(copy.path());
        assert_eq!(killed.create(&many[299..]).expect("create"), [last]);
        assert_eq!(scan(&*killed, last, 0), [(3, b"x".to_vec())]);
        assert_eq!(killed.partitions().len(), 1);
        killed.close();
    }
}
