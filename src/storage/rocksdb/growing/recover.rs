//! Growing tables that an earlier process left.
//!
//! What counts is what reads back: blocks up to the first that is torn. After a kill that is all that was acknowledged,
//! after a loss of power perhaps less. A table is left out if RocksDB has it already, if it lies below the log's start,
//! if its partition is gone, or if what it follows was lost.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing::warn;

use super::ingest::{self, Growing};
use super::layout::{self, BlockAt, HEAD_MAX};
use super::table::{self, GrowingTable, HEADER_BYTES, Header};
use crate::storage::rocksdb::database::{
    BackgroundJob, Cf, Database, Db, Iter, OpenError, ReadOptions, RocksError, sync_names,
};
use crate::storage::rocksdb::families::Families;
use crate::storage::{Family, keys};
use crate::types::Offset;

/// A file that was found, with what of it is sound.
struct Found {
    header: Header,
    file: File,
    path: PathBuf,
    blocks: Vec<BlockAt>,
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
        match read(&path).map_err(io_error)? {
            Some(found) if is_held(&growing.families, &found.header) => {
                found_of.entry(found.header.family).or_default().push(found);
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
    let (db, cf) = (database.db(), database.cf(family));
    let damaged = |error: RocksError| OpenError::damaged(database.dir(), error.to_string());
    let taken_over = |first, last| holds_between(db, cf.clone(), first, last);
    let last = last_key(db, cf.clone()).map_err(damaged)?;
    let chosen = choose(found, last, state.start(), taken_over).map_err(damaged)?;
    for found in chosen.kept {
        let table = Arc::new(GrowingTable::found(found.file, found.path, found.header.follows, found.blocks));
        state.tables().push(&table);
        growing.added(&table);
    }
    growing.ingest_soon(family);
    Ok(chosen.left_out)
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

/// `None`: its header is torn, so nothing in it was ever acknowledged, or a loss of power took it.
fn read(path: &Path) -> io::Result<Option<Found>> {
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
        warn!(path = %path.display(), length, "growing table without a readable header left out");
        return Ok(None);
    };
    let blocks = sound_blocks(&file, length)?;
    Ok(Some(Found { header, file, path: path.to_owned(), blocks }))
}

/// Reads so much at once, unless a block is larger.
const READ_BYTES: u64 = 1 << 20;

/// Blocks from the file's begin on, up to the first that is not sound.
fn sound_blocks(file: &File, length: u64) -> io::Result<Vec<BlockAt>> {
    let mut blocks: Vec<BlockAt> = Vec::new();
    let mut window = Window { file, length, start: HEADER_BYTES as u64, bytes: Vec::new() };
    let mut at = HEADER_BYTES as u64;
    while let Some(block) = layout::parse_head(at, window.upto(at, HEAD_MAX as u64)?) {
        let grows = blocks.last().is_none_or(|last| last.key < block.key);
        if !grows || block.end() > length || !layout::is_sound(window.upto(at, block.end() - at)?) {
            break;
        }
        at = block.end();
        blocks.push(block);
    }
    Ok(blocks)
}

/// A part of a file in memory, which moves forward.
struct Window<'f> {
    file: &'f File,
    length: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    /// So many bytes from a place on, or fewer at the end of the file.
    fn upto(&mut self, at: u64, wanted: u64) -> io::Result<&[u8]> {
        let wanted = wanted.min(self.length.saturating_sub(at));
        if at + wanted > self.start + self.bytes.len() as u64 {
            let take = wanted.max(READ_BYTES).min(self.length.saturating_sub(at));
            self.bytes.resize(usize::try_from(take).map_err(io::Error::other)?, 0);
            self.file.read_exact_at(&mut self.bytes, at)?;
            self.start = at;
        }
        let from = usize::try_from(at - self.start).map_err(io::Error::other)?;
        let length = usize::try_from(wanted).map_err(io::Error::other)?;
        Ok(&self.bytes[from..from + length])
    }
}

#[derive(Default)]
struct Chosen {
    kept: Vec<Found>,
    left_out: Vec<Found>,
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
        if follows > reached {
            warn!(path = %found.path.display(), follows = follows.0, "growing table left out: what it follows is lost");
        } else if let (Some(first), Some(last)) = (found.blocks.first(), found.blocks.last()) {
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
