//! Tables that RocksDB took over before this process began, and those that the page cache has let go, found again among
//! RocksDB's files when a reader comes to them: then their batches are sent from the file as well.
//!
//! RocksDB keeps a table as the file that it was given, header and all, until a compaction has written it anew. So a
//! file that begins with the header of the partition's table is one, and its index says where the batches lie. It is
//! what RocksDB has between its keys if no other file says anything about these, with nothing left in memory: files are
//! looked through after a flush, once, and from then on whoever changes keys says so
//! ([`FamilyTables::forget_handed_over`](super::family_tables::FamilyTables::forget_handed_over)). What is found counts
//! as unchecked, so each block's checksum is looked at before it is first sent.

use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::{Arc, Weak};

use tracing::debug;

use super::family_tables::HandedOver;
use super::ingest::Growing;
use super::layout::{self, BlockAt, FOOTER_BYTES};
use super::table::{GrowingTable, HEADER_BYTES, Header, last_offset};
use crate::storage::rocksdb::database::{BackgroundJob, FileBounds};
use crate::storage::{Family, StorageError, keys};
use crate::types::{Offset, PartitionIndex, TopicId};

impl Growing {
    /// Opens the table among RocksDB's files that has `from`, if there is one and it is not open. Answers whether there
    /// is more to be located now. `wait_for_writer`: until what is being written is written. Blocks on the disk.
    ///
    /// # Errors
    /// Of a flush.
    pub(in crate::storage::rocksdb) fn find_again(
        &self,
        family: Family,
        from: Offset,
        wait_for_writer: impl FnOnce(),
    ) -> Result<bool, StorageError> {
        let state = self.families.state(family);
        let tables = state.tables();
        let mut finding = tables.lock_finding();
        let known = tables.known_at(from);
        let is_let_go = known.as_ref().is_some_and(|known| known.file.is_none() && known.table.strong_count() == 0);
        if *finding != Some(tables.life()) || is_let_go {
            *finding = Some(tables.life());
            tables.begin_finding();
            wait_for_writer();
            if state.start() == Offset::MAX {
                // Deleted, and perhaps another's soon.
                return Ok(false);
            }
            tables.add_found(self.look_through(family)?);
        }
        let Some(known) = tables.known_at(from).filter(|known| known.table.strong_count() == 0) else {
            return Ok(false);
        };
        let Some(path) = &known.file else {
            // RocksDB has written it anew.
            tables.note_opened(&known, None);
            return Ok(false);
        };
        let opened = self.open_again(family, path, &known).unwrap_or_else(|error| {
            debug!(path = %path.display(), %error, "a file of RocksDB's not opened");
            None
        });
        if let Some(table) = &opened {
            if self.begins_first() {
                // What lets go of tables runs from the first one on.
                self.database.jobs().add(BackgroundJob::BeginTables);
            }
            self.page_cache().keep(table);
        }
        tables.note_opened(&known, opened.as_ref());
        Ok(opened.is_some())
    }

    /// The family's files that alone say something about the keys between their first and their last, in their order.
    fn look_through(&self, family: Family) -> Result<Vec<HandedOver>, StorageError> {
        let Some(cf) = self.database.try_cf(family) else { return Ok(Vec::new()) };
        let folder = self.database.dir().join("db");
        let path_of = |name: &CStr| {
            let name = OsStr::from_bytes(name.to_bytes());
            folder.join(Path::new(name).file_name().unwrap_or(name))
        };
        let owner = self.families.identity(family);
        let is_table = |path: &Path| {
            let header = File::open(path).and_then(|file| read_header(&file));
            header.is_ok_and(|header| header.is_some_and(|header| is_of(&header, family, owner)))
        };
        // Most families have none, and a flush costs all that write.
        if !self.database.db().file_bounds(cf.clone()).iter().any(|file| is_table(&path_of(&file.name))) {
            return Ok(Vec::new());
        }
        self.flush_family(family)?;
        let mut files = Vec::new();
        for FileBounds { name, first, last } in self.database.db().file_bounds(cf) {
            let (Some(first), Some(last)) = (keys::batch_last_offset(&first), keys::batch_last_offset(&last)) else {
                return Ok(Vec::new());
            };
            files.push((first, last, name));
        }
        files.sort_by_key(|(first, last, _)| (*first, *last));
        let growing = self.families.state(family).tables().list();
        let grows_between = |from: Offset, to: Offset| {
            let mut bounds = growing.iter().filter_map(|table| table.bounds());
            bounds.any(|(first, last)| first <= to && from <= last)
        };
        let mut alone = Vec::new();
        let mut reached = Offset::NONE;
        for (at, (first, last, name)) in files.iter().enumerate() {
            let next = files.get(at + 1).map(|(first, ..)| *first);
            if *first > reached && next.is_none_or(|next| *last < next) && !grows_between(*first, *last) {
                let behind = (reached + 1).max(Offset::ZERO);
                let continues = if at > 0 && !grows_between(behind, *first) { behind } else { *first };
                let (first, last, file) = (*first, *last, Some(path_of(name).into()));
                let (table, damaged) = (Weak::new(), Arc::default());
                alone.push(HandedOver { first, last, continues, file, table, damaged });
            }
            reached = reached.max(*last);
        }
        Ok(alone)
    }

    /// `None`: it is no table, or another partition's.
    fn open_again(&self, family: Family, path: &Path, known: &HandedOver) -> io::Result<Option<Arc<GrowingTable>>> {
        let file = File::open(path)?;
        if !read_header(&file)?.is_some_and(|header| is_of(&header, family, self.families.identity(family))) {
            return Ok(None);
        }
        let Some(blocks) = read_blocks(&file)? else { return Ok(None) };
        if blocks.first().map(last_offset) != Some(known.first) || blocks.last().map(last_offset) != Some(known.last) {
            return Ok(None);
        }
        let table = Arc::new(GrowingTable::handed_over(
            file,
            path.to_owned(),
            blocks,
            known.continues,
            Arc::clone(&known.damaged),
        ));
        table.count_in(self.database.open_tables());
        Ok(Some(table))
    }
}

/// `None`: it is not a table's.
fn read_header(file: &File) -> io::Result<Option<Header>> {
    let mut header = [0; HEADER_BYTES];
    file.read_exact_at(&mut header, 0)?;
    Ok(Header::decode(&header))
}

fn is_of(header: &Header, family: Family, owner: Option<(TopicId, PartitionIndex)>) -> bool {
    header.family == family.0 && owner == Some((header.topic_id, header.partition))
}

/// The blocks that a finished table's index names.
fn read_blocks(file: &File) -> io::Result<Option<Vec<BlockAt>>> {
    let mut footer = [0; FOOTER_BYTES];
    let Some(footer_at) = file.metadata()?.len().checked_sub(FOOTER_BYTES as u64) else { return Ok(None) };
    file.read_exact_at(&mut footer, footer_at)?;
    let Some(place) = layout::index_place(&footer).filter(|place| place.end <= footer_at) else { return Ok(None) };
    let mut index = vec![0; usize::try_from(place.end - place.start).map_err(io::Error::other)?];
    file.read_exact_at(&mut index, place.start)?;
    let blocks = layout::read_index(&index);
    let is_whole = |blocks: &Vec<BlockAt>| {
        blocks.first().is_some_and(|first| first.start == HEADER_BYTES as u64)
            && blocks.last().is_some_and(|last| last.end() == place.start)
    };
    Ok(blocks.filter(is_whole))
}
