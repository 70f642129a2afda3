//! Opening a directory: the checks that come first, and what each refusal says.
//!
//! An empty directory is ready within milliseconds: only the fixed families are made here, the pool is filled behind.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rocksdb::Options;
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::budget::Budget;
use super::directory::{self, Assignment, FORMAT_KEY, FORMAT_VERSION, Key};
use super::families::{FIXED, Families, Records};
use super::growing::ingest::Growing;
use super::growing::recover;
use super::growing::table;
use super::guard;
use super::open_error::OpenError;
use super::options::{self, DirectoryOptions};
use super::raw::{Batch, BlockCache, Db, ReadOptions, RocksError};
use super::space::Space;

/// What opening yields.
pub(super) struct Opened {
    pub(super) db: Db,
    pub(super) families: Families,
    /// Families that a crash left half wiped.
    pub(super) wiping: Vec<u32>,
    pub(super) budget: Budget,
    pub(super) growing: Growing,
    pub(super) family_options: Options,
    /// As they fit the disk.
    pub(super) options: DirectoryOptions,
    /// Write-ahead logs that an earlier process left.
    pub(super) left_logs: Vec<PathBuf>,
    /// Holds the lock as long as it is open.
    pub(super) lock: File,
}

/// Opens or creates the database below `dir`. `log` gets every line that RocksDB writes to its own log.
pub(super) fn open(
    dir: &Path,
    options: DirectoryOptions,
    log: impl Fn(&str) + Send + Sync + 'static,
) -> Result<Opened, OpenError> {
    let io_error = |error: io::Error| OpenError::Io { dir: dir.into(), reason: error.to_string().into() };
    let path = dir.join("db");
    fs::create_dir_all(&path).map_err(io_error)?;
    if !path.join("CURRENT").exists() {
        // RocksDB syncs the names within, not that of its directory, and what is acknowledged must not go with it.
        table::sync_names(dir).map_err(io_error)?;
    }
    let lock = lock(dir)?;
    if let Some(file) = foreign_segments(dir).map_err(io_error)? {
        return Err(OpenError::ForeignSegments { dir: dir.into(), file });
    }

    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let mut options = options.fit(Space::disk_bytes(&path), descriptors);
    // All of it while the log is replayed: what a thousand families held is not to be flushed one by one at the start.
    let budget = Budget::new(options.write_buffer_bytes_max);
    let cache = BlockCache::new(options.block_cache_bytes);
    let db_options = options::database(&options, &budget.buffer, direct_io_works(&path), log);
    let small = options::small_family(&options, &budget.buffer, &cache);
    let partition = options::partition_family(&options, &budget.buffer, &cache);

    let rocks_error = |error: RocksError| rocks_error(dir, &error);
    let exists = exists(dir, &path)?;
    if let Some(loss) = guard::find_loss(dir) {
        return Err(OpenError::Damaged { dir: dir.into(), reason: loss.into() });
    }
    let held = if exists { Db::list_families(&db_options, &path).map_err(rocks_error)? } else { Vec::new() };
    let numbered = partition_families(dir, &held)?;
    let left_logs = left_logs(&path).map_err(io_error)?;
    let db = Db::open(db_options, &path, (&FIXED, &small), (&numbered, &partition)).map_err(rocks_error)?;

    budget.set(options.write_buffer_bytes);
    check_format(dir, &db)?;
    let numbers: BTreeSet<u32> = numbered.into_iter().map(|(number, _)| number).collect();
    let records = records(dir, &db)?;
    check_families(dir, &numbers, &records)?;
    let (families, wiping) = Families::new(&numbers, records);
    if !links_work(dir, &path) {
        // A growing table could not be handed over.
        options.tables_max = 0;
    }
    let growing = recover::recover(dir, &db, &families, |family| db.cf(family.0))?;
    Ok(Opened { db, families, wiping, budget, growing, family_options: partition, options, left_logs, lock })
}

/// Whether there is a database. One that lost the file that names its parts must not be taken for a new one.
fn exists(dir: &Path, path: &Path) -> Result<bool, OpenError> {
    if path.join("CURRENT").exists() {
        return Ok(true);
    }
    let io_error = |error: io::Error| OpenError::Io { dir: dir.into(), reason: error.to_string().into() };
    for entry in fs::read_dir(path).map_err(io_error)? {
        let entry = entry.map_err(io_error)?;
        let name = entry.file_name();
        let is_data = Path::new(&name).extension().is_some_and(|extension| extension == "sst" || extension == "log");
        if is_data && entry.metadata().map_err(io_error)?.len() > 0 {
            let reason = format!("db/CURRENT is missing beside {}", name.display());
            return Err(OpenError::Damaged { dir: dir.into(), reason: reason.into() });
        }
    }
    Ok(false)
}

/// Takes `<dir>/.lock` with the kind of lock that a JVM broker takes too. It ends with the process.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let io_error = |error: io::Error| OpenError::Io { dir: dir.into(), reason: error.to_string().into() };
    let file = File::options().create(true).truncate(false).write(true).open(dir.join(".lock")).map_err(io_error)?;
    for attempt in 1.. {
        match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::AGAIN) if attempt < LOCK_ATTEMPTS => {
                std::thread::sleep(LOCK_PAUSE);
            }
            Err(rustix::io::Errno::ACCESS | rustix::io::Errno::AGAIN) => {
                return Err(OpenError::Taken { dir: dir.into() });
            }
            Err(errno) => return Err(io_error(errno.into())),
        }
    }
    Ok(file)
}

/// A process that was killed a moment ago may still be giving its memory back, and its lock with it.
const LOCK_ATTEMPTS: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(20);

/// A segment file of a JVM broker, `<topic>-<partition>/<20 digits>.log`, if there is one.
fn foreign_segments(dir: &Path) -> io::Result<Option<PathBuf>> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let is_partition = name
            .to_str()
            .and_then(|name| name.rsplit_once('-'))
            .is_some_and(|(_, partition)| !partition.is_empty() && partition.bytes().all(|b| b.is_ascii_digit()));
        if !is_partition || !entry.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(entry.path())? {
            let file = file?.file_name();
            let digits = file.to_str().and_then(|file| file.strip_suffix(".log"));
            if digits.is_some_and(|digits| digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())) {
                return Ok(Some(Path::new(&name).join(file)));
            }
        }
    }
    Ok(None)
}

/// Whether the file system lets files bypass the page cache. Some (older tmpfs, some network ones) refuse.
fn direct_io_works(path: &Path) -> bool {
    let probe = path.join("direct-io.probe");
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::DIRECT | OFlags::CLOEXEC;
    let works = rustix::fs::open(&probe, flags, Mode::RUSR | Mode::WUSR).is_ok();
    // The probe may not exist; nothing depends on its going.
    let _gone = fs::remove_file(&probe);
    works
}

fn left_logs(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut logs = Vec::new();
    for entry in fs::read_dir(path)? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "log") {
            logs.push(file);
        }
    }
    Ok(logs)
}

/// Whether a file can have a second name in the database's directory, which some network file systems refuse.
fn links_work(dir: &Path, path: &Path) -> bool {
    let (from, to) = (dir.join("link.probe"), path.join("link.probe"));
    let remove = || drop((fs::remove_file(&from), fs::remove_file(&to)));
    // A start that was killed here may have left them.
    remove();
    let works = fs::write(&from, b"").and_then(|()| fs::hard_link(&from, &to)).is_ok();
    remove();
    works
}

/// The partition families, by number. Some numbers may be missing: free families are dropped where there are many.
fn partition_families(dir: &Path, names: &[String]) -> Result<Vec<(u32, String)>, OpenError> {
    let mut numbered = Vec::with_capacity(names.len());
    for name in names {
        match directory::family_number(name) {
            Some(number) => numbered.push((number, name.clone())),
            None if FIXED.contains(&name.as_str()) => {}
            None => return Err(damaged(dir, format!("unknown family {name}"))),
        }
    }
    numbered.sort_unstable();
    Ok(numbered)
}

/// A family goes only when what says that it is free is on the disk.
fn check_families(dir: &Path, numbers: &BTreeSet<u32>, records: &Records) -> Result<(), OpenError> {
    match records.assignments.keys().find(|number| !numbers.contains(number)) {
        Some(number) => Err(damaged(dir, format!("family {} is missing", directory::family_name(*number)))),
        None => Ok(()),
    }
}

fn damaged(dir: &Path, reason: String) -> OpenError {
    OpenError::Damaged { dir: dir.into(), reason: reason.into() }
}

fn check_format(dir: &Path, db: &Db) -> Result<(), OpenError> {
    let cf = db.fixed(0);
    let found = db.get(cf, FORMAT_KEY, &ReadOptions::new(true, None)).map_err(|error| rocks_error(dir, &error))?;
    let Some(found) = found else { return note_format(dir, db) };
    let Ok(found) = <[u8; 4]>::try_from(&*found) else {
        return Err(OpenError::Damaged { dir: dir.into(), reason: "unreadable format version".into() });
    };
    match u32::from_be_bytes(found) {
        FORMAT_VERSION => Ok(()),
        found if found > FORMAT_VERSION => {
            Err(OpenError::NewerFormat { dir: dir.into(), found, known: FORMAT_VERSION })
        }
        // What this version adds, an older one would not see.
        _ => note_format(dir, db),
    }
}

fn note_format(dir: &Path, db: &Db) -> Result<(), OpenError> {
    let mut batch = Batch::with_capacity(64);
    batch.put(db.fixed(0), FORMAT_KEY, &FORMAT_VERSION.to_be_bytes());
    db.write(&mut batch, false).map_err(|error| rocks_error(dir, &error))
}

fn records(dir: &Path, db: &Db) -> Result<Records, OpenError> {
    let mut records = Records::default();
    let mut seen = BTreeMap::new();
    let options = ReadOptions::new(false, None);
    let mut iter = db.iter(db.fixed(0), &options);
    iter.seek_to_first();
    let failed = |error: RocksError| rocks_error(dir, &error);
    while let Some((key, value)) = iter.entry().map_err(failed)? {
        let flow = match directory::parse_key(key) {
            Some(Key::Assignment(number)) => Assignment::decode(value).map(|assignment| {
                if let Assignment::Partition(id) = &assignment
                    && seen.insert(id.clone(), number).is_some()
                {
                    return ControlFlow::Break(format!("two families for {}-{}", id.topic, id.partition));
                }
                records.assignments.insert(number, assignment);
                ControlFlow::Continue(())
            }),
            Some(Key::Start(number)) => directory::decode_start(value).map(|start| {
                records.starts.insert(number, start);
                ControlFlow::Continue(())
            }),
            None => Some(ControlFlow::Continue(())),
        };
        match flow {
            Some(ControlFlow::Continue(())) => iter.next(),
            Some(ControlFlow::Break(reason)) => {
                return Err(OpenError::Damaged { dir: dir.into(), reason: reason.into() });
            }
            None => {
                let reason = format!("unreadable directory record under {key:02x?}");
                return Err(OpenError::Damaged { dir: dir.into(), reason: reason.into() });
            }
        }
    }
    Ok(records)
}

fn rocks_error(dir: &Path, error: &RocksError) -> OpenError {
    let text = &error.0;
    if text.contains("/LOCK: ") {
        return OpenError::Taken { dir: dir.into() };
    }
    let reason: Arc<str> = text.as_str().into();
    if text.starts_with("Corruption") {
        OpenError::Damaged { dir: dir.into(), reason }
    } else {
        OpenError::Io { dir: dir.into(), reason }
    }
}
