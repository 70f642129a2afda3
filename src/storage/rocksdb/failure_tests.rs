//! A disk that has no space, or fails, at every operation: what is refused, what stops, and what is there afterwards.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::io::Errno;

use super::database::Operation;
use super::growing_tests::{expect_for_ever, files, tables_of, value, values};
use super::tests::{create, eventually, parts};
use super::*;
use crate::storage;
use crate::storage::contract::{batch, commit, delete, partition, scan, side};
use crate::storage::{Write, contract};

const BYTES: usize = 16 << 10;

const OPERATIONS: [Operation; 8] = [
    Operation::BeginTable,
    Operation::WriteTable,
    Operation::FinishTable,
    Operation::RemoveTable,
    Operation::IngestTable,
    Operation::WriteLog,
    Operation::Flush,
    Operation::Describe,
];

/// Counts how often the directory lost a write, and a hole was found.
#[derive(Debug, Default)]
pub(super) struct Recorded {
    pub(super) voided: AtomicUsize,
    pub(super) forgotten: AtomicUsize,
    /// It cannot be taken away.
    pub(super) stays: bool,
}

impl BootRecord for Recorded {
    fn read(&self) -> Option<storage::InDoubt> {
        Some(storage::InDoubt::default())
    }

    fn forget(&self) -> bool {
        self.forgotten.fetch_add(1, Ordering::Relaxed);
        !self.stays
    }

    fn void(&self) {
        self.voided.fetch_add(1, Ordering::Relaxed);
    }
}

fn open(place: &tempfile::TempDir) -> (Arc<RocksDirectory>, DirectoryOptions) {
    let options = tables_of(64 << 10);
    (RocksDirectory::open(place.path(), options.clone()).expect("open"), options)
}

/// What an owner of a log does in turn: mostly it appends, at times it moves the start, compacts, or cuts the end off.
/// `size` varies from one try to the next.
fn step(family: Family, model: &BTreeMap<i64, Vec<u8>>, n: i64, size: usize) -> Vec<Write> {
    let first = model.keys().next().copied().unwrap_or(0);
    let next = model.keys().last().map_or(0, |last| last + 1);
    let added = |offset: i64| batch(family, offset, &value(offset, BYTES + size));
    match n % 9 {
        4 => vec![delete(family, 0..first + 2)],
        6 => vec![batch(family, next - 2, &value(next - 2, 24 + size)), added(next)],
        8 => vec![delete(family, next - 1..i64::MAX), added(next - 1), side(b"x", &next.to_be_bytes())],
        _ => vec![added(next), added(next + 1)],
    }
}

fn apply(model: &mut BTreeMap<i64, Vec<u8>>, writes: &[Write]) {
    for write in writes {
        match write {
            Write::Batch { last_offset, batch, .. } => drop(model.insert(last_offset.0, batch.to_vec())),
            Write::DeleteBatches { last_offsets, .. } => model.retain(|key, _| !last_offsets.contains(&Offset(*key))),
            _ => {}
        }
    }
}

#[test]
fn where_there_is_no_space_writes_are_refused_and_go_on_by_themselves() {
    for operation in OPERATIONS {
        let place = tempfile::tempdir().expect("tempdir");
        let (dir, options) = open(&place);
        let family = create(&dir, "t");
        let (mut model, mut refused) = (BTreeMap::new(), 0);
        for n in 0..54 {
            if n % 3 == 2 {
                options.faults.set(operation, Errno::NOSPC, None);
            }
            let mut size = 0;
            eventually("a write with space", || {
                let writes = step(family, &model, n, size);
                match commit(&*dir, writes.clone(), false) {
                    Ok(()) => apply(&mut model, &writes),
                    Err(error) => {
                        assert!(matches!(error, StorageError::Full { .. }), "{operation:?}, step {n}: {error}");
                        refused += 1;
                        size += 8;
                        options.faults.clear();
                        return false;
                    }
                }
                true
            });
            assert!(scan(&*dir, family, 0).into_iter().eq(model.clone()), "{operation:?}, step {n}");
            assert!(parts(&dir).database.stopped().is_none(), "{operation:?}, step {n}");
        }
        let by_writer = [Operation::BeginTable, Operation::WriteTable, Operation::WriteLog, Operation::FinishTable];
        assert!(refused > 0 || !by_writer.contains(&operation), "{operation:?} was met");
        options.faults.clear();
        expect_for_ever(&place, &dir, "t", &model.into_iter().collect::<Vec<_>>());
    }
}

/// What was written and refused is not what a kill leaves.
#[test]
fn what_was_refused_is_not_in_the_file() {
    let place = tempfile::tempdir().expect("tempdir");
    let (dir, options) = open(&place);
    let family = create(&dir, "t");
    for offset in 0..2 {
        commit(&*dir, vec![batch(family, offset, &value(offset, BYTES))], false).expect("written");
    }
    options.faults.set(Operation::WriteLog, Errno::NOSPC, Some(1));
    let set = vec![batch(family, 2, &value(2, BYTES)), batch(family, 3, &value(3, BYTES)), side(b"x", b"x")];
    let outcome = commit(&*dir, set, false);
    assert!(matches!(outcome, Err(StorageError::Full { .. })), "{outcome:?}");
    assert_eq!(scan(&*dir, family, 0), values(0..2, BYTES));
    expect_for_ever(&place, &dir, "t", &values(0..2, BYTES));
}

/// What is left of it in the file would be read after a kill, and hide what was acknowledged behind it.
#[test]
fn a_set_that_cannot_be_taken_back_stops_the_directory() {
    let place = tempfile::tempdir().expect("tempdir");
    let (dir, options) = open(&place);
    let family = create(&dir, "t");
    for offset in 0..8 {
        commit(&*dir, vec![batch(family, offset, &value(offset, BYTES))], false).expect("written");
    }
    options.faults.set(Operation::WriteTable, Errno::NOSPC, Some(1));
    options.faults.set(Operation::CutTable, Errno::NOSPC, Some(1));
    let outcome = commit(&*dir, vec![batch(family, 8, &value(8, BYTES))], false);
    assert!(matches!(outcome, Err(StorageError::Stopped { .. })), "{outcome:?}");
}

#[test]
fn all_else_stops_the_directory_and_what_was_acknowledged_stays() {
    let met_by_writer =
        |operation: &Operation| !matches!(operation, Operation::RemoveTable | Operation::Flush | Operation::Describe);
    let failures = OPERATIONS.into_iter().filter(met_by_writer).map(|operation| (operation, Errno::IO));
    // Whatever its reason: what the kernel had taken is lost.
    for (operation, errno) in failures.chain([(Operation::Sync, Errno::IO), (Operation::Sync, Errno::NOSPC)]) {
        let place = tempfile::tempdir().expect("tempdir");
        let record = Arc::new(Recorded::default());
        let options = DirectoryOptions { record: Some(Arc::clone(&record) as _), ..tables_of(64 << 10) };
        let dir = RocksDirectory::open(place.path(), options.clone()).expect("open");
        let family = create(&dir, "t");
        let mut model = BTreeMap::new();
        let mut tell = None;
        for n in 0.. {
            if n == 10 {
                options.faults.set(operation, errno, None);
                let (told, failure) = std::sync::mpsc::channel();
                dir.when_failed(Box::new(move |reason| told.send(reason).expect("the test listens")));
                tell = Some(failure);
            }
            let writes = step(family, &model, n, 0);
            match commit(&*dir, writes.clone(), n % 4 == 3) {
                Ok(()) => apply(&mut model, &writes),
                Err(error) => {
                    assert!(matches!(error, StorageError::Stopped { .. }), "{operation:?}: {error}");
                    break;
                }
            }
            assert!(n < 100, "{operation:?} is met");
        }
        let tell = tell.expect("it failed after the first steps");
        let reason = tell.recv_timeout(std::time::Duration::from_secs(30)).expect("told once");
        let voided = || record.voided.load(Ordering::Relaxed);
        match operation {
            Operation::Sync | Operation::WriteLog | Operation::WriteTable => assert!(voided() > 0, "{reason}"),
            Operation::BeginTable | Operation::NoteDamage => {
                assert_eq!(voided(), 0, "{reason}");
                // It may have stopped for a reason that loses nothing.
                options.faults.clear();
                options.faults.set(Operation::Sync, Errno::IO, None);
                let synced = parts(&dir).database.sync_log();
                assert!(synced.is_err() && voided() > 0, "a sync that fails then is heard all the same");
            }
            _ => {}
        }
        assert!(matches!(commit(&*dir, vec![side(b"x", b"")], false), Err(StorageError::Stopped { .. }))); // I-6
        dir.close();
        options.faults.clear();
        let (dir, _) = open(&place);
        let found = scan(&*dir, create(&dir, "t"), 0);
        for (offset, value) in &model {
            assert!(found.contains(&(*offset, value.clone())), "{operation:?}: {offset}");
        }
    }
}

/// One job that cannot be done yet holds nothing else up, and is done in the end.
#[test]
fn a_job_that_fails_leaves_the_others_alone_and_is_done_later() {
    let place = tempfile::tempdir().expect("tempdir");
    let (dir, options) = open(&place);
    let family = create(&dir, "kept");
    let doomed = dir.create(&[partition("doomed", 0)]).expect("create")[0];
    for family in [family, doomed] {
        for offset in 0..11 {
            commit(&*dir, vec![batch(family, offset, &value(offset, BYTES))], false).expect("written");
        }
    }
    options.faults.set(Operation::Flush, Errno::NOSPC, None);
    let all = parts(&dir);
    commit(&*dir, vec![contract::side(b"in memory", b"x")], false).expect("written");
    all.database.jobs().add(BackgroundJob::FlushAll);
    dir.delete(&[partition("doomed", 0)]).expect("delete");
    let is_doomeds = |path: &PathBuf| path.to_string_lossy().contains(&format!("growing/{}-", doomed.0));
    eventually("the deleted partition's tables go", || !files(place.path()).iter().any(is_doomeds));
    assert!(!all.database.unflushed().is_empty());
    options.faults.clear();
    eventually("the flush", || all.database.unflushed().is_empty());
}
