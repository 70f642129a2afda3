//! Opening a database: the checks that come first, and what each refusal says.
//!
//! An empty directory is ready within milliseconds: only the fixed families are made here, the pool is filled behind.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags};

use super::budget::Budget;
use super::damaged_files::DamagedFiles;
use super::failure::is_for_want_of_space;
use super::guard;
use super::left_logs;
use super::names::{DEFAULT, FIXED, cannot_sync, family_number, sync_names};
use super::open_error::OpenError;
use super::options::{self, DirectoryOptions};
use super::raw::{self, Batch, BlockCache, Db, ReadOptions, RocksError};
use super::space::Space;
use super::{Database, Opened};

/// The layout this code writes; 2 added growing tables. A directory with a higher one is refused.
const FORMAT_VERSION: u32 = 2;

/// Under which it lies in the family `default`, 4 bytes big-endian.
pub(in crate::storage::rocksdb) const FORMAT_KEY: &[u8] = b"format";

/// Opens or creates the database below `dir`; answers also with the numbers of its partition families. `log` gets
/// every line that RocksDB writes to its own log.
pub(in crate::storage::rocksdb) fn open(
    dir: &Path,
    options: DirectoryOptions,
    log: impl Fn(&str) + Send + Sync + 'static,
) -> Result<(Database, BTreeSet<u32>), OpenError> {
    let io_error = |error: io::Error| OpenError::io(dir, &error);
    let path = dir.join("db");
    fs::create_dir_all(&path).map_err(io_error)?;
    if !path.join("CURRENT").exists() {
        // RocksDB syncs the names within, not that of its directory, and what is acknowledged must not go with it.
        sync_names(dir).map_err(|error| io_error(cannot_sync(dir, &error)))?;
    }
    let lock = lock(dir)?;
    let record = options.record.clone();
    let (opened, numbers) =
        open_locked(dir, &path, options, log).inspect_err(|error| error.note_in(record.as_deref()))?;
    Ok((Database::new(dir, opened, lock), numbers))
}

/// The same of a directory that is locked.
fn open_locked(
    dir: &Path,
    path: &Path,
    options: DirectoryOptions,
    log: impl Fn(&str) + Send + Sync + 'static,
) -> Result<(Opened, BTreeSet<u32>), OpenError> {
    let io_error = |error: io::Error| OpenError::io(dir, &error);
    if let Some(file) = foreign_segments(dir).map_err(io_error)? {
        return Err(OpenError::ForeignSegments { dir: dir.into(), file });
    }
    let descriptors = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
    let mut options = options.fit(Space::disk_bytes(path), descriptors);
    // Not before: whoever held the lock may have lost a write.
    if let Some(record) = &options.record {
        let written = record.read();
        options.is_same_boot = written.is_some();
        options.in_doubt = Arc::new(written.unwrap_or_default());
    }
    // All of it while the log is replayed: what a thousand families held is not to be flushed one by one at the start.
    let budget = Budget::new(options.write_buffer_bytes_max);
    let cache = BlockCache::new(options.block_cache_bytes);
    let direct_io = options.files_bypass_page_cache && direct_io_works(path);
    let mut db_options = options::database(&options, budget.buffer(), direct_io, log);
    let small = options::small_family(&options, budget.buffer(), &cache);
    let partition = options::partition_family(&options, budget.buffer(), &cache);

    let rocks_error = |error: RocksError| OpenError::rocks(dir, &error);
    let exists = exists(dir, path)?;
    if let Some(loss) = guard::find_loss(dir) {
        return Err(OpenError::damaged(dir, loss));
    }
    let held = if exists { Db::list_families(&db_options, path).map_err(rocks_error)? } else { Vec::new() };
    let numbered = partition_families(dir, &held)?;
    let is_there = |number| numbered.iter().any(|(there, _)| *there == number);
    let damaged_files = DamagedFiles::read(dir, is_there).map_err(io_error)?;
    let mut as_it_is = options::partition_family(&options, budget.buffer(), &cache);
    as_it_is.set_disable_auto_compactions(true);
    let of_number = |number| if damaged_files.has(number) { &as_it_is } else { &partition };
    let left_logs = left_logs::find(path).map_err(io_error)?;
    let write_out = prepare_logs(&left_logs, &mut options).map_err(io_error)?
        && numbered.len() <= WRITTEN_OUT_MAX
        && has_room_for(&left_logs, path, numbered.len());
    if Space::disk(path).is_some_and(|disk| disk.usable < 2 * reserved_ahead(&options)) {
        raw::reserve_nothing_ahead(&mut db_options);
    }
    let open = |write_out: bool| {
        let mut db_options = db_options.clone();
        if !write_out {
            // What is replayed stays in memory until it is flushed like anything else. Writing it out first took most
            // of a start with a thousand families: 14 s instead of 1 on a loaded machine.
            raw::avoid_flush_during_recovery(&mut db_options);
        }
        Db::open(db_options, path, (&FIXED, &small), &numbered, of_number)
    };
    let db = match open(write_out) {
        // Nothing depends on the files that it began.
        Err(error) if write_out && is_for_want_of_space(&error) => open(false),
        opened => opened,
    };
    let db = db.map_err(rocks_error)?;

    budget.set(options.write_buffer_bytes);
    check_format(dir, &db, || left_logs::sync(path, &left_logs))?;
    if !links_work(dir, path) {
        // A growing table could not be handed over.
        options.tables_max = 0;
    }
    let numbers = numbered.into_iter().map(|(number, _)| number).collect();
    Ok((Opened { db, options, family_options: partition, budget, left_logs, damaged_files }, numbers))
}

/// Prepares the logs that were left for their replay. Answers whether it is best that what they hold is written out at
/// once: a hole would be found again by each start until then, and has to be where nothing else says that something
/// was lost.
fn prepare_logs(left_logs: &[PathBuf], options: &mut DirectoryOptions) -> io::Result<bool> {
    if !left_logs::prepare(left_logs, options.is_same_boot)? {
        return Ok(false);
    }
    // Not all that was written is there, whatever the boot.
    options.is_same_boot = false;
    Ok(options.record.as_ref().is_none_or(|record| record.forget()))
}

/// What RocksDB reserves of the disk before it needs any: for the next log as much as may be in memory, and 4 MiB for a
/// manifest. Where there is little, nothing would be left for the small files of a start.
fn reserved_ahead(options: &DirectoryOptions) -> u64 {
    options.write_buffer_bytes_max as u64 + (4 << 20)
}

/// With more families than this a log that is replayed is never written out at once.
const WRITTEN_OUT_MAX: usize = 1000;

/// Whether the disk has room for files with all that these logs hold.
fn has_room_for(logs: &[PathBuf], path: &Path, families: usize) -> bool {
    const FILE_BYTES: u64 = 16 << 10;
    let logged: u64 = logs.iter().filter_map(|log| fs::metadata(log).ok()).map(|log| log.len()).sum();
    let needed = 2 * logged + (families as u64 + 64) * FILE_BYTES;
    Space::disk(path).is_some_and(|disk| disk.usable > needed)
}

/// Whether there is a database. One that lost the file that names its parts must not be taken for a new one.
fn exists(dir: &Path, path: &Path) -> Result<bool, OpenError> {
    if path.join("CURRENT").exists() {
        return Ok(true);
    }
    let io_error = |error: io::Error| OpenError::io(dir, &error);
    for entry in fs::read_dir(path).map_err(io_error)? {
        let entry = entry.map_err(io_error)?;
        let name = entry.file_name();
        let is_data = Path::new(&name).extension().is_some_and(|extension| extension == "sst" || extension == "log");
        if is_data && entry.metadata().map_err(io_error)?.len() > 0 {
            let reason = format!("db/CURRENT is missing beside {}", name.display());
            return Err(OpenError::damaged(dir, reason));
        }
    }
    Ok(false)
}

/// Takes `<dir>/.lock` with the kind of lock that a JVM broker takes too. It ends with the process.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let io_error = |error: io::Error| OpenError::io(dir, &error);
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
        match family_number(name) {
            Some(number) => numbered.push((number, name.clone())),
            None if FIXED.contains(&name.as_str()) => {}
            None => return Err(OpenError::damaged(dir, format!("unknown family {name}"))),
        }
    }
    numbered.sort_unstable();
    Ok(numbered)
}

/// `settle` brings what earlier processes left to the disk, before a note follows it.
fn check_format(dir: &Path, db: &Db, settle: impl Fn() -> io::Result<()>) -> Result<(), OpenError> {
    let cf = db.fixed(DEFAULT);
    let found = db.get(cf, FORMAT_KEY, &ReadOptions::new(true, None)).map_err(|error| OpenError::rocks(dir, &error))?;
    let note = || settle().map_err(|error| OpenError::io(dir, &error)).and_then(|()| note_format(dir, db));
    let Some(found) = found else { return note() };
    let Ok(found) = <[u8; 4]>::try_from(&*found) else {
        return Err(OpenError::damaged(dir, "unreadable format version"));
    };
    match u32::from_be_bytes(found) {
        FORMAT_VERSION => Ok(()),
        found if found > FORMAT_VERSION => {
            Err(OpenError::NewerFormat { dir: dir.into(), found, known: FORMAT_VERSION })
        }
        // What this version adds, an older one would not see.
        _ => note(),
    }
}

fn note_format(dir: &Path, db: &Db) -> Result<(), OpenError> {
    let mut batch = Batch::with_capacity(64);
    batch.put(db.fixed(DEFAULT), FORMAT_KEY, &FORMAT_VERSION.to_be_bytes());
    db.write(&mut batch, false).map_err(|error| OpenError::rocks(dir, &error))
}
