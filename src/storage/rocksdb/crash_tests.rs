//! What a kill, a crash or a damaged file leaves.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use super::database::Batch;
use super::families::{Assignment, assignment_key};
use super::tests::{create, eventually, open, options, parts};
use super::*;
use crate::storage::contract::{batch, commit, delete, partition, scan, side};
use crate::storage::keys;
use crate::types::PartitionIndex;

/// Where the child of the crash test keeps its directory; set only for the child.
const CRASH_DIR: &str = "KLAMM_TEST_CRASH_DIR";
/// Set for a child that is to write to growing tables, as many and as small ones as it can.
const CRASH_TABLES: &str = "KLAMM_TEST_CRASH_TABLES";
const CRASH_PARTITIONS: i32 = 3;

fn crash_options(tables: bool) -> DirectoryOptions {
    if tables {
        // One partition fills a table with some twenty batches; those of the others are too small for one.
        DirectoryOptions { table_piece_bytes: 16, table_bytes: 224 << 10, is_same_boot: true, ..options() }
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
            .args(["--exact", "storage::rocksdb::crash_tests::crash_child", "--nocapture", "--test-threads=1"])
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
    parts(&opened).database.flush_all().expect("flush");
    parts(&opened).database.note_manifest();
    write(30);
    // As a kill leaves it: copied while it is open.
    let snapshot: Vec<(PathBuf, Vec<u8>)> = std::fs::read_dir(original.path().join("db"))
        .expect("list")
        .map(|entry| entry.expect("entry").path())
        .filter_map(|path| match std::fs::read(&path) {
            // RocksDB has removed it since it was listed.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            read => Some((PathBuf::from(path.file_name().expect("a name")), read.expect("read"))),
        })
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
fn a_half_wiped_family_is_wiped_at_the_next_start() {
    let dir = tempfile::tempdir().expect("tempdir");
    let opened = open(dir.path());
    let family = create(&opened, "t");
    commit(&*opened, vec![batch(family, 5, b"old"), batch(family, 6, b"old"), delete(family, 0..6)], false)
        .expect("ok");
    // As a crash right after the first step of a deletion leaves it.
    let mut record = Batch::with_capacity(64);
    record.put(parts(&opened).database.default_cf(), &assignment_key(family.0), &Assignment::Wiping.encode());
    parts(&opened).database.write(&mut record).expect("write");
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
