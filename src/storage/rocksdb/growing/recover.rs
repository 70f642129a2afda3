//! Growing tables that an earlier process left.
//!
//! After a loss of power what counts is what reads back: blocks up to the first that is torn. The rest is cut off, as
//! more that was sound may stand behind. A table is left out if RocksDB has it already, if it lies below the log's
//! start, if its partition is gone, or if what it follows was lost.
//!
//! After a kill nothing is lost but what was being written: whatever is not sound and has something sound behind it was
//! damaged since ([`super::damage`]). A block whose head can be read stays where it is, and whoever reads it is told.
//! Otherwise it is not known what is missing: nothing of the family is taken, and its log cannot be opened, at this
//! start and, by a [`super::marker`], at all that follow.

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
use super::marker::{self, Marked, Marker};
use super::table::{self, GrowingTable, HEADER_BYTES, Header};
use crate::storage::rocksdb::database::{
    BackgroundJob, Cf, Database, Db, Iter, OpenError, ReadOptions, RocksError, cannot_sync, forget_pages, sync_names,
};
use crate::storage::rocksdb::families::Families;
use crate::storage::{Family, keys};
use crate::types::{Offset, PartitionIndex, TopicId};

/// A file that was found, with what of it counts.
struct Found {
    header: Header,
    file: File,
    path: PathBuf,
    blocks: Blocks,
}

impl Found {
    fn into_table(self) -> Arc<GrowingTable> {
        let Blocks { list, damaged, .. } = self.blocks;
        let table = GrowingTable::found(self.file, self.path, self.header.follows, list);
        damaged.into_iter().for_each(|number| table.checks.note_damaged(number));
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
    let left = list(&folder).map_err(|error| OpenError::io(&dir, &error))?;
    let last_serial = left.values().filter_map(Left::last_serial).max();
    let growing = Growing::new(database, families, folder.clone(), last_serial.map_or(0, |serial| serial + 1));
    let mut gone = Vec::new();
    for (number, left) in left {
        gone.append(&mut give_back(&growing, Family(number), left)?);
    }
    remove(&growing, &folder, &gone)?;
    if growing.count() > 0 {
        growing.database.jobs().add(BackgroundJob::BeginTables);
    }
    Ok(growing)
}

/// Removes files that no partition has any more.
fn remove(growing: &Growing, folder: &Path, gone: &[PathBuf]) -> Result<(), OpenError> {
    let io_error = |error: io::Error| OpenError::io(growing.database.dir(), &error);
    if gone.is_empty() || growing.database.stopped().is_some() {
        return Ok(());
    }
    // What says so, that a partition was deleted or its start has moved, may be in a log that is not on the disk yet.
    growing.database.sync_left_logs().map_err(|error| io_error(io::Error::other(error)))?;
    for path in gone {
        fs::remove_file(path).map_err(io_error)?;
    }
    // Once keys of theirs are deleted, they must not come back after a loss of power.
    sync_names(folder).map_err(|error| io_error(cannot_sync(folder, &error)))
}

/// What of a family lies in the folder.
#[derive(Debug, Default)]
struct Left {
    /// By their serial, in which order they were begun.
    tables: BTreeMap<u64, PathBuf>,
    /// Some of them are damaged, it says.
    marker: Option<Marker>,
}

impl Left {
    /// Highest serial of its tables, also of those that were removed by hand: no other table is to be taken for them.
    fn last_serial(&self) -> Option<u64> {
        let noted = self.marker.as_ref().and_then(Marker::last_serial);
        self.tables.last_key_value().map(|(serial, _)| *serial).max(noted)
    }
}

fn list(folder: &Path) -> io::Result<BTreeMap<u32, Left>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries?,
    };
    let mut left: BTreeMap<u32, Left> = BTreeMap::new();
    for entry in entries {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        if let Some((family, serial)) = ingest::parse_file_name(Path::new(&name)) {
            left.entry(family).or_default().tables.insert(serial, path);
        } else if let Some(family) = marker::family_of(Path::new(&name)) {
            left.entry(family).or_default().marker = Some(Marker::read(path));
        }
    }
    Ok(left)
}

/// Gives a family its tables, or refuses them. Answers with the files that are not its own any more.
fn give_back(growing: &Growing, family: Family, left: Left) -> Result<Vec<PathBuf>, OpenError> {
    let Left { tables, marker } = left;
    let serials: Vec<u64> = tables.keys().copied().collect();
    let tables: Vec<PathBuf> = tables.into_values().collect();
    let Some(owner) = growing.families.identity(family) else {
        return Ok(tables.into_iter().chain(marker.map(Marker::into_path)).collect());
    };
    let marked = marker.as_ref().map_or(Marked::NotThis, |marker| marker.meaning(owner, &serials));
    let mut marker = marker.map(Marker::into_path);
    match marked {
        Marked::NotThis => {}
        Marked::Refused(why) => {
            refuse(growing, family, owner, &why, tables);
            return Ok(Vec::new());
        }
        Marked::Removed { why, is_legible } => {
            let (topic_id, partition) = (owner.0, owner.1.0);
            let line = "damaged growing tables are gone; what they held is lost";
            warn!(family = family.0, %topic_id, partition, %why, "{line}");
            let state = growing.families.state(family);
            state.note_lacks_tables();
            if is_legible {
                // It goes with the partition, or once there are tables again.
                state.tables().damaged_files().extend(marker.take());
            }
        }
    }
    match judge(growing, family, owner, &tables)? {
        Verdict::Refused(why) => {
            if let Err(error) = growing.note_damage(family, owner, &serials, &why) {
                error!(
                    family = family.0, %error,
                    "that growing tables are damaged is not noted; another boot cuts off what follows the damage"
                );
            }
            refuse(growing, family, owner, &why, tables);
            Ok(Vec::new())
        }
        Verdict::Unread(error) => {
            // They may be sound, so nothing is noted: it is tried again at the next start.
            let (topic_id, partition) = (owner.0, owner.1.0);
            error!(
                family = family.0, %topic_id, partition, %error, dir = %growing.database.dir().display(),
                "what RocksDB has of a partition cannot be read; its growing tables stay for the next start"
            );
            let state = growing.families.state(family);
            // Another start of this boot must not take what a loss of power left for damage.
            state.note_uncut(state.is_uncut() || !growing.database.options().is_same_boot);
            state.note_damaged(format!("what RocksDB has of the partition cannot be read: {error}").into());
            state.tables().damaged_files().extend(marker.into_iter().chain(tables));
            Ok(Vec::new())
        }
        Verdict::Sound { kept, left_out } => {
            growing.families.state(family).note_uncut(false);
            let has_damage = kept.iter().any(|found| !found.blocks.damaged.is_empty());
            for found in kept {
                take(growing, family, found)?;
            }
            // After another boot damage would count as the end; RocksDB's files say what is behind it.
            let handed_over = if has_damage { growing.ingest_sealed(family) } else { Ok(()) };
            if let Err(error) = handed_over {
                error!(family = family.0, %error, "a damaged growing table is not handed over yet; it is tried again");
            }
            if growing.families.state(family).tables().has_any() {
                growing.ingest_soon(family);
            }
            Ok(left_out.into_iter().chain(marker).collect())
        }
    }
}

/// What is done with the tables of a family.
enum Verdict {
    Sound {
        kept: Vec<Found>,
        left_out: Vec<PathBuf>,
    },
    /// For this reason it is not known what they held.
    Refused(String),
    /// What RocksDB has of the partition cannot be read, so it is not known which of them are its own.
    Unread(RocksError),
}

fn judge(
    growing: &Growing,
    family: Family,
    owner: (TopicId, PartitionIndex),
    tables: &[PathBuf],
) -> Result<Verdict, OpenError> {
    let (database, state) = (&*growing.database, growing.families.state(family));
    let is_same_boot = database.options().is_same_boot && !state.is_uncut();
    let (mut found, mut left_out) = (Vec::new(), Vec::new());
    for path in tables {
        match read(path, family, owner, is_same_boot).map_err(|error| OpenError::io(database.dir(), &error))? {
            Read::Found(table) => found.push(table),
            Read::Damaged => return Ok(Verdict::Refused(format!("the header of {path:?} is damaged"))),
            Read::Nothing => left_out.push(path.clone()),
        }
    }
    let (db, cf) = (database.db(), database.cf(family));
    let taken_over = |first, last| holds_between(db, cf.clone(), first, last);
    let chosen = last_key(db, cf.clone()).and_then(|last| choose(found, last, state.start(), taken_over));
    let mut chosen = match chosen {
        Ok(chosen) => chosen,
        Err(error) => return Ok(Verdict::Unread(error)),
    };
    if is_same_boot {
        let mut tables = chosen.kept.iter().chain(&chosen.without_what_they_follow);
        if let Some((found, why)) = tables.find_map(|found| Some((found, found.blocks.unknown()?))) {
            return Ok(Verdict::Refused(format!("{why} in {:?}", found.path)));
        }
        if let Some(found) = chosen.without_what_they_follow.first() {
            return Ok(Verdict::Refused(format!("what {:?} follows is not there", found.path)));
        }
    }
    chosen.left_out.append(&mut chosen.without_what_they_follow);
    left_out.extend(chosen.left_out.into_iter().map(|found| found.path));
    Ok(Verdict::Sound { kept: chosen.kept, left_out })
}

/// Gives a table to its family.
fn take(growing: &Growing, family: Family, found: Found) -> Result<(), OpenError> {
    // What was torn off must not be taken for damage by a later start: not once the boot is the same, nor where a kill
    // leaves half of what a table ends with before it.
    let end = found.blocks.list.last().map_or(HEADER_BYTES as u64, BlockAt::end);
    found.file.set_len(end).map_err(|error| OpenError::io(growing.database.dir(), &error))?;
    if let [first, ..] = found.blocks.damaged[..] {
        let (offset, batches) = (table::last_offset(&found.blocks.list[first]), found.blocks.damaged.len());
        error!(
            path = %found.path.display(), %offset, batches,
            "batches in a growing table are damaged, this one first; what follows is kept"
        );
    }
    let table = found.into_table();
    growing.families.state(family).tables().push(&table);
    growing.added(&table);
    Ok(())
}

/// Takes nothing of a family: its log cannot be opened, and its files stay until its partition is deleted.
fn refuse(growing: &Growing, family: Family, owner: (TopicId, PartitionIndex), why: &str, tables: Vec<PathBuf>) {
    let (topic_id, partition) = (owner.0, owner.1.0);
    let marker = growing.marker_path(family);
    let names: Vec<_> = std::iter::once(&marker).chain(&tables).filter_map(|path| path.file_name()).collect();
    error!(
        family = family.0, %topic_id, partition, why, files = ?names, dir = %growing.database.dir().display(),
        "growing tables are damaged; nothing of the partition is touched. Delete it, or stop the broker and remove \
         these files from the folder growing: its log then lacks what they hold"
    );
    let state = growing.families.state(family);
    state.note_damaged(format!("growing tables ({}-*.sst) are damaged: {why}", family.0).into());
    state.tables().damaged_files().extend(std::iter::once(marker).chain(tables));
}

/// What a file is.
enum Read {
    Found(Found),
    /// Its header cannot be read, though there is more behind it, or is another file's.
    Damaged,
    /// Its header is torn, so nothing in it was ever acknowledged, or a loss of power took it; or it was of a partition
    /// that is gone.
    Nothing,
}

fn read(path: &Path, family: Family, owner: (TopicId, PartitionIndex), is_same_boot: bool) -> io::Result<Read> {
    let file = File::options().read(true).write(true).open(path)?;
    if !is_same_boot {
        forget_pages(path, &file)?;
    }
    let length = file.metadata()?.len();
    let mut bytes = [0; HEADER_BYTES];
    let header = if length < HEADER_BYTES as u64 {
        None
    } else {
        file.read_exact_at(&mut bytes, 0)?;
        Header::decode(&bytes)
    };
    match header {
        Some(header) if (header.family, header.topic_id, header.partition) == (family.0, owner.0, owner.1) => {
            let blocks = damage::read_blocks(&file, length, is_same_boot)?;
            Ok(Read::Found(Found { header, file, path: path.to_owned(), blocks }))
        }
        Some(header) if header.family == family.0 => Ok(Read::Nothing),
        Some(_) => Ok(Read::Damaged),
        // Nothing is written to a file before all of its header.
        None if is_same_boot && length > HEADER_BYTES as u64 => Ok(Read::Damaged),
        None => {
            warn!(path = %path.display(), length, "growing table without a readable header left out");
            Ok(Read::Nothing)
        }
    }
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
        // What lies behind damage may be anything.
        let mut keep = found.blocks.may_lack_some();
        let list = &found.blocks.list;
        if follows > reached {
            warn!(path = %found.path.display(), follows = follows.0, "what a growing table follows is lost");
            chosen.without_what_they_follow.push(found);
            continue;
        } else if let (Some(first), Some(last)) = (found.blocks.first_sound(), list.last()) {
            // What a damaged key says may be any other batch's.
            let (first, last) = (table::last_offset(first), table::last_offset(last));
            reached = reached.max(last);
            keep = (keep || last >= start) && !taken_over(first, last)?;
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
