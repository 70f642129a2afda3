//! Growing tables that an earlier process left.
//!
//! After a loss of power what counts is what reads back: blocks up to the first that is torn. The rest is cut off, as
//! more that was sound may stand behind. A table is left out if RocksDB has it already, if it lies below the log's
//! start, if its partition is gone, or if what it follows was lost.
//!
//! After a kill nothing is lost but what was being written: whatever is not sound and has something sound behind it was
//! damaged since ([`super::damage`]). A block whose head can be read stays where it is, and whoever reads it is told.
//! Otherwise it is not known what is missing: nothing of the family is taken, and its log cannot be opened.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::{error, warn};

use super::damage::{self, Blocks};
use super::ingest::{self, Growing};
use super::layout::BlockAt;
use super::table::{self, GrowingTable, HEADER_BYTES, Header};
use crate::storage::rocksdb::database::{
    BackgroundJob, Cf, Database, Db, Iter, OpenError, ReadOptions, RocksError, sync_names,
};
use crate::storage::rocksdb::families::Families;
use crate::storage::{Family, keys};
use crate::types::Offset;

/// A file that was found, with what of it counts.
struct Found {
    header: Header,
    file: File,
    path: PathBuf,
    blocks: Blocks,
}

impl Found {
    fn into_table(self) -> Arc<GrowingTable> {
        let Blocks { list, first_damaged, .. } = self.blocks;
        let table = GrowingTable::found(self.file, self.path, self.header.follows, list);
        if let Some(number) = first_damaged {
            table.checks.note_damaged(number);
        }
        Arc::new(table)
    }
}

/// The directory of growing tables below a log directory.
fn growing_dir(dir: &Path) -> PathBuf {
    dir.join("growing")
}

/// Gives its growing tables back to each family, sealed, and removes the others.
pub(in crate::storage::rocksdb) fn recover(
    database: Arc<Database>,
    families: Arc<Families>,
) -> Result<Growing, OpenError> {
    let dir = database.dir().to_owned();
    let folder = growing_dir(&dir);
    let io_error = |error: io::Error| OpenError::io(&dir, &error);
    let files = list(&folder).map_err(io_error)?;
    let serial = files.last_key_value().map_or(0, |(serial, _)| serial + 1);
    let growing = Growing::new(database, families, folder.clone(), serial);
    let mut removed = false;
    let mut found_of: BTreeMap<u32, Vec<Found>> = BTreeMap::new();
    for path in files.into_values() {
        match read(&path, growing.database.options().is_same_boot).map_err(io_error)? {
            Read::Found(found) if is_held(&growing.families, &found.header) => {
                found_of.entry(found.header.family).or_default().push(found);
            }
            Read::WithoutHeader(file, family) if growing.families.identity(Family(family)).is_some() => {
                let why = format!("the header of {path:?} cannot be read");
                let table = GrowingTable::found(file, path, Offset::NONE, Vec::new());
                refuse(&growing, Family(family), &why, vec![Arc::new(table)]);
            }
            _ => {
                fs::remove_file(&path).map_err(io_error)?;
                removed = true;
            }
        }
    }
    for (number, found) in found_of {
        let left_out = give_back(&growing, Family(number), found)?;
        removed |= !left_out.is_empty();
        for found in left_out {
            fs::remove_file(&found.path).map_err(io_error)?;
        }
    }
    if removed {
        // Once keys of theirs are deleted, they must not come back after a loss of power.
        sync_names(&folder).map_err(io_error)?;
    }
    if growing.count() > 0 {
        growing.database.jobs().add(BackgroundJob::BeginTables);
    }
    Ok(growing)
}

/// Gives a family its tables, and answers with those that are not its own any more.
fn give_back(growing: &Growing, family: Family, found: Vec<Found>) -> Result<Vec<Found>, OpenError> {
    let (database, state) = (&*growing.database, growing.families.state(family));
    let is_same_boot = database.options().is_same_boot;
    let (db, cf) = (database.db(), database.cf(family));
    let damaged = |error: RocksError| OpenError::damaged(database.dir(), error.to_string());
    let taken_over = |first, last| holds_between(db, cf.clone(), first, last);
    let last = last_key(db, cf.clone()).map_err(damaged)?;
    let mut chosen = choose(found, last, state.start(), taken_over).map_err(damaged)?;
    if is_same_boot {
        let gap = chosen.without_what_they_follow.first().map(|found| found.path.clone());
        chosen.kept.append(&mut chosen.without_what_they_follow);
        let unknown = chosen.kept.iter().find_map(|found| Some((found, found.blocks.unknown()?)));
        let why = match unknown {
            Some((found, why)) => Some(format!("{why} in {:?}", found.path)),
            None => gap.map(|path| format!("what {path:?} follows is not there")),
        };
        if let Some(why) = why {
            refuse(growing, family, &why, chosen.kept.into_iter().map(Found::into_table).collect());
            return Ok(chosen.left_out);
        }
    }
    chosen.left_out.append(&mut chosen.without_what_they_follow);
    for found in chosen.kept {
        if !is_same_boot {
            // What was torn off must not be taken for damage once the boot is the same.
            let end = found.blocks.list.last().map_or(HEADER_BYTES as u64, BlockAt::end);
            found.file.set_len(end).map_err(|error| OpenError::io(database.dir(), &error))?;
        }
        if let Some(number) = found.blocks.first_damaged {
            let offset = table::last_offset(&found.blocks.list[number]);
            error!(path = %found.path.display(), %offset, "a batch in a growing table is damaged; what follows is kept");
        }
        let table = found.into_table();
        state.tables().push(&table);
        growing.added(&table);
    }
    growing.ingest_soon(family);
    Ok(chosen.left_out)
}

/// Takes nothing of a family: its log cannot be opened, and its files stay until its partition is deleted.
fn refuse(growing: &Growing, family: Family, why: &str, tables: Vec<Arc<GrowingTable>>) {
    let state = growing.families.state(family);
    error!(family = family.0, why, "growing tables are damaged; nothing of the partition is touched");
    state.note_damaged(format!("growing tables of family {} are damaged: {why}", family.0).into());
    for table in tables {
        growing.added(&table);
        state.tables().set_aside(table);
    }
}

/// Files by their serial, in which order they were begun.
fn list(folder: &Path) -> io::Result<BTreeMap<u64, PathBuf>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries?,
    };
    let mut files = BTreeMap::new();
    for entry in entries {
        let entry = entry?;
        if let Some(serial) = ingest::serial_of(Path::new(&entry.file_name())) {
            files.insert(serial, entry.path());
        }
    }
    Ok(files)
}

fn is_held(families: &Families, header: &Header) -> bool {
    families.numbers().contains(&header.family)
        && families.identity(Family(header.family)) == Some((header.topic_id, header.partition))
}

/// What a file is.
enum Read {
    Found(Found),
    /// Its header cannot be read, though there is something behind it: damaged. The family that its name says.
    WithoutHeader(File, u32),
    /// Its header is torn, so nothing in it was ever acknowledged, or a loss of power took it.
    Nothing,
}

fn read(path: &Path, is_same_boot: bool) -> io::Result<Read> {
    let file = File::options().read(true).write(true).open(path)?;
    let length = file.metadata()?.len();
    let mut bytes = [0; HEADER_BYTES];
    let header = if length < HEADER_BYTES as u64 {
        None
    } else {
        file.read_exact_at(&mut bytes, 0)?;
        Header::decode(&bytes)
    };
    let Some(header) = header else {
        if is_same_boot
            && let Some(family) = ingest::family_of(path)
            && damage::has_sound_block(&file, length, HEADER_BYTES as u64, None)?
        {
            return Ok(Read::WithoutHeader(file, family));
        }
        warn!(path = %path.display(), length, "growing table without a readable header left out");
        return Ok(Read::Nothing);
    };
    let blocks = damage::read_blocks(&file, length, is_same_boot)?;
    Ok(Read::Found(Found { header, file, path: path.to_owned(), blocks }))
}

#[derive(Default)]
struct Chosen {
    kept: Vec<Found>,
    left_out: Vec<Found>,
    without_what_they_follow: Vec<Found>,
}

/// Which tables of a family are its own still; `found` in the order in which they were begun. `last`: RocksDB's last
/// key. `taken_over`: whether RocksDB holds a key between two, both included.
fn choose(
    found: Vec<Found>,
    last: Offset,
    start: Offset,
    taken_over: impl Fn(Offset, Offset) -> Result<bool, RocksError>,
) -> Result<Chosen, RocksError> {
    let mut chosen = Chosen::default();
    // How far the log reaches with the tables seen so far. What came before the first one is RocksDB's, or lies below
    // the start, unless its file was lost as a whole.
    let mut reached = last.max(Offset(start.0 - 1));
    for found in found {
        let follows = found.header.follows;
        let mut keep = false;
        let list = &found.blocks.list;
        if follows > reached {
            warn!(path = %found.path.display(), follows = follows.0, "what a growing table follows is lost");
            chosen.without_what_they_follow.push(found);
            continue;
        } else if let (Some(first), Some(last)) = (list.first(), list.last()) {
            let (first, last) = (table::last_offset(first), table::last_offset(last));
            reached = reached.max(last);
            keep = last >= start && !taken_over(first, last)?;
        }
        let list = if keep { &mut chosen.kept } else { &mut chosen.left_out };
        list.push(found);
    }
    Ok(chosen)
}

fn last_key(db: &Db, cf: Cf<'_>) -> Result<Offset, RocksError> {
    let options = ReadOptions::new(false, None);
    let mut iter = db.iter(cf, &options);
    iter.seek_to_last();
    Ok(key_at(&iter)?.unwrap_or(Offset::NONE))
}

fn holds_between(db: &Db, cf: Cf<'_>, first: Offset, last: Offset) -> Result<bool, RocksError> {
    let options = ReadOptions::new(false, None);
    let mut iter = db.iter(cf, &options);
    iter.seek(&keys::batch(first));
    Ok(key_at(&iter)?.is_some_and(|key| key <= last))
}

fn key_at(iter: &Iter<'_>) -> Result<Option<Offset>, RocksError> {
    Ok(iter.entry()?.and_then(|(key, _)| keys::batch_last_offset(key)))
}
