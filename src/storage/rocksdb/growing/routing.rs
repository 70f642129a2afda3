//! Where a batch goes: to RocksDB's log and memtable, or to a table that grows.
//!
//! The log takes small batches of many partitions in one write, and everything that is not a batch. What comes in
//! large pieces for one partition is written once, to a table of its own: it costs half the CPU and half the disk.
//! A table is begun where much has come in large pieces, and left when batches have become so small that its index
//! would take too much.
//!
//! What must survive a loss of power in order goes to the log in any case: what that keeps is a beginning of all that
//! went there, and a table may keep more or less.
//!
//! A loss of power must leave no hole. Where a log's batches change from one way to the other, what came before is
//! brought to the disk first; from table to table the next one's header says what must be there.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Weak};

use bytes::Bytes;

use super::family_tables::FamilyTables;
use super::ingest::Growing;
use super::layout::BlockAt;
use super::table::{self, GrowingTable, Header, StagedBatch};
use crate::storage::rocksdb::database::{BackgroundJob, Operation};
use crate::storage::rocksdb::families::FamilyState;
use crate::storage::{Family, StorageError, Write, WriteSet};
use crate::types::Offset;
use crate::types::crc::EndSum;

/// So many large pieces of the least size go through the log, by their bytes, before a table is begun.
const LOGGED_PIECES_MIN: usize = 128;

/// A table is left when its batches are smaller than this on average.
const BATCH_BYTES_MIN: u64 = 4 << 10;

/// A table at which nothing was written for so many groups gives way to a new one when there are too many.
const IDLE_GROUPS: u64 = 1000;

/// A table that grows. Its family owns it, and may drop it at any time.
#[derive(Debug)]
struct Live {
    family: Family,
    table: Weak<GrowingTable>,
    /// The group that wrote to it last.
    group: u64,
}

/// Batches of a group for one table.
#[derive(Debug)]
struct Staged {
    table: Arc<GrowingTable>,
    /// Where the table ended before.
    end: u64,
    batches: Vec<StagedBatch>,
    written: Vec<BlockAt>,
}

/// What is known, under the writer lock, of where batches go.
#[derive(Debug, Default)]
pub(in crate::storage::rocksdb) struct Routing {
    group: u64,
    /// Bytes of this group's batches, by family.
    pieces: HashMap<Family, usize>,
    syncs: bool,
    /// The writer's thread writes this group. Other threads do nothing that waits for the disk.
    may_wait: bool,
    live: Vec<Live>,
    staged: HashMap<Family, Staged>,
    /// Written to since all tables were synced. What was dropped meanwhile need not be.
    unsynced: Vec<Weak<GrowingTable>>,
    /// Tables were begun since their folder was synced.
    names_unsynced: bool,
    found_are_synced: bool,
}

impl Routing {
    /// Looks at a group before any of it is routed.
    pub(in crate::storage::rocksdb) fn begin_group<'s>(
        &mut self,
        sets: impl Iterator<Item = &'s WriteSet>,
        may_wait: bool,
    ) {
        self.group += 1;
        self.may_wait = may_wait;
        self.pieces.clear();
        self.staged.clear();
        self.syncs = false;
        for set in sets {
            self.syncs |= set.sync;
            for write in &set.writes {
                if let Write::Batch { family, batch, .. } = write {
                    *self.pieces.entry(*family).or_default() += batch.len();
                }
            }
        }
    }

    /// Whether a set of this group asks for a sync.
    pub(in crate::storage::rocksdb) fn syncs(&self) -> bool {
        self.syncs
    }

    /// Whether [`take`](Self::take) may take batches of this family, which has these tables, in this group.
    pub(in crate::storage::rocksdb) fn may_take(
        &self,
        growing: &Growing,
        family: Family,
        tables: &FamilyTables,
    ) -> bool {
        self.pieces.get(&family).is_some_and(|piece| *piece >= growing.database.options().table_piece_bytes)
            || tables.has_any()
    }

    /// The first of this group's batches for a table of this family.
    pub(in crate::storage::rocksdb) fn first_staged(&self, family: Family) -> Option<Offset> {
        let staged = self.staged.get(&family)?;
        let written = staged.written.first().map(table::last_offset);
        written.or_else(|| staged.batches.first().map(|batch| batch.last_offset))
    }

    /// A batch goes to RocksDB's log, or a record that some are gone.
    pub(in crate::storage::rocksdb) fn logs(&self, state: &FamilyState) {
        state.logged().wrote(self.group);
    }

    /// Takes a batch that lies behind all that its family has, unless it is for RocksDB's log.
    pub(in crate::storage::rocksdb) fn take(
        &mut self,
        growing: &Growing,
        family: Family,
        last_offset: Offset,
        batch: &Bytes,
        sum: Option<EndSum>,
    ) -> Result<bool, StorageError> {
        let Some(table) = self.table_for(growing, family, batch.len())? else { return Ok(false) };
        let staged = match self.staged.entry(family) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let end = table.size_bytes();
                entry.insert(Staged { table, end, batches: Vec::new(), written: Vec::new() })
            }
        };
        staged.batches.push(StagedBatch { last_offset, bytes: batch.clone(), sum });
        Ok(true)
    }

    /// The table that a family's next batch, of so many bytes, goes to.
    fn table_for(
        &mut self,
        growing: &Growing,
        family: Family,
        bytes: usize,
    ) -> Result<Option<Arc<GrowingTable>>, StorageError> {
        if let Some(staged) = self.staged.get(&family) {
            // Its size changes when it is written; a group is small beside a table.
            return Ok(Some(Arc::clone(&staged.table)));
        }
        let tables = growing.families.state(family).tables().list();
        match tables.last() {
            Some(table) if !table.is_sealed() => {
                let is_full = table.size_bytes() >= growing.database.options().table_bytes;
                if (is_full || is_too_fine(table)) && !self.may_wait {
                    growing.want_writer();
                } else if is_full {
                    self.seal(growing, family, table);
                    return self.begin(growing, family, table.last());
                } else if is_too_fine(table) && self.leave(growing, family, table)? {
                    return Ok(None);
                }
                Ok(Some(Arc::clone(table)))
            }
            Some(table) if !table.is_synced() => self.begin(growing, family, table.last()),
            _ if self.wants_table(growing, family, bytes) => {
                if !self.may_wait {
                    growing.want_writer();
                    return Ok(None);
                }
                if growing.families.state(family).logged().is_unsynced() {
                    growing.database.sync_log()?;
                    growing.flush_soon(family);
                }
                self.begin(growing, family, None)
            }
            _ => Ok(None),
        }
    }

    /// Whether a family that has no table should get one.
    fn wants_table(&mut self, growing: &Growing, family: Family, bytes: usize) -> bool {
        let piece = self.pieces.get(&family).copied().unwrap_or(0);
        if piece < growing.database.options().table_piece_bytes || self.syncs {
            return false;
        }
        let (large_bytes, last_group) = growing.families.state(family).logged().add_large(bytes);
        // What this group logs is not written yet, and so cannot be brought to the disk before the table.
        if large_bytes < LOGGED_PIECES_MIN * growing.database.options().table_piece_bytes || last_group == self.group {
            return false;
        }
        if growing.count() < growing.database.options().tables_max {
            return true;
        }
        self.seal_idle(growing);
        false
    }

    fn begin(
        &mut self,
        growing: &Growing,
        family: Family,
        follows: Option<Offset>,
    ) -> Result<Option<Arc<GrowingTable>>, StorageError> {
        let Some((topic_id, partition)) = growing.families.identity(family) else { return Ok(None) };
        let header = Header { family: family.0, topic_id, partition, follows: follows.unwrap_or(Offset::NONE) };
        let table = Arc::new(growing.begin_table(&header)?);
        table.reserve(growing.database.options().table_bytes);
        if growing.begins_first() {
            growing.database.jobs().add(BackgroundJob::BeginTables);
        }
        self.names_unsynced = true;
        self.unsynced.retain(|table| table.upgrade().is_some_and(|table| !table.is_synced()));
        growing.families.state(family).tables().push(&table);
        growing.added(&table);
        self.forget_sealed();
        self.live.push(Live { family, table: Arc::downgrade(&table), group: self.group });
        note_synced(growing, family, 0);
        Ok(Some(table))
    }

    fn forget_sealed(&mut self) {
        self.live.retain(|live| live.table.upgrade().is_some_and(|table| !table.is_sealed()));
    }

    /// Has a table handed over. What comes next for its family may begin a new one at once.
    fn seal(&mut self, growing: &Growing, family: Family, table: &Arc<GrowingTable>) {
        table.seal();
        self.forget_sealed();
        note_synced(growing, family, usize::MAX);
        growing.ingest_soon(family);
    }

    /// Seals the table of a family that grows, if there is one, and has it handed over. Between two groups.
    pub(in crate::storage::rocksdb) fn seal_last(&mut self, growing: &Growing, family: Family) {
        let tables = growing.families.state(family).tables().list();
        if let Some(table) = tables.last().filter(|table| !table.is_sealed()) {
            self.seal(growing, family, table);
        }
    }

    /// Leaves a table for the log, if most of it is on the disk already; has it brought there otherwise. Answers
    /// whether it was left.
    fn leave(&mut self, growing: &Growing, family: Family, table: &Arc<GrowingTable>) -> Result<bool, StorageError> {
        if !table.is_pre_synced() {
            if table.wants_pre_sync() {
                growing.pre_sync_soon(family);
            }
            return Ok(false);
        }
        table.seal();
        growing.database.file(Operation::Sync, table.path(), || table.sync())?;
        if std::mem::take(&mut self.names_unsynced) {
            growing.sync_folder()?;
        }
        self.seal(growing, family, table);
        note_synced(growing, family, 0);
        Ok(true)
    }

    fn seal_idle(&mut self, growing: &Growing) {
        self.forget_sealed();
        let unused = self.live.iter().filter(|live| !self.staged.contains_key(&live.family));
        let stalest = unused.min_by_key(|live| live.group);
        if let Some(live) = stalest.filter(|live| live.group + IDLE_GROUPS < self.group)
            && let Some(table) = live.table.upgrade()
        {
            let family = live.family;
            self.seal(growing, family, &table);
        }
    }

    /// Writes what was taken, and syncs what has to be.
    pub(in crate::storage::rocksdb) fn write(&mut self, growing: &Growing) -> Result<(), StorageError> {
        for staged in self.staged.values_mut().filter(|staged| !staged.batches.is_empty()) {
            let (table, before) = (&staged.table, staged.table.size_bytes());
            let blocks = growing.database.file(Operation::WriteTable, table.path(), || table.write(&staged.batches))?;
            growing.add_bytes(table.size_bytes() - before);
            growing.page_cache().wrote(table);
            staged.written.extend(blocks);
            staged.batches.clear();
            if !self.unsynced.iter().any(|other| std::ptr::eq(other.as_ptr(), Arc::as_ptr(table))) {
                self.unsynced.push(Arc::downgrade(table));
            }
        }
        if self.syncs {
            growing.database.sync_left_logs()?;
            if !std::mem::replace(&mut self.found_are_synced, true) {
                // What a killed process left counts as written before, names included.
                let found = growing.unsynced_tables();
                self.names_unsynced |= !found.is_empty();
                self.unsynced.extend(found.iter().map(Arc::downgrade));
            }
            if std::mem::take(&mut self.names_unsynced) {
                growing.sync_folder()?;
            }
            for table in self.unsynced.drain(..).filter_map(|table| table.upgrade()) {
                growing.database.file(Operation::Sync, table.path(), || table.sync())?;
            }
        }
        Ok(())
    }

    /// The disk has no space for this group: takes back what of it was written to tables.
    pub(in crate::storage::rocksdb) fn take_back(&mut self, growing: &Growing) -> Result<(), StorageError> {
        for (_, staged) in self.staged.drain() {
            // What was counted, which a write that failed in its middle was not.
            let counted = staged.written.last().map_or(staged.end, BlockAt::end);
            growing.take_back_bytes(counted - staged.end);
            let table = &staged.table;
            growing.database.file(Operation::CutTable, table.path(), || table.cut_back(staged.end))?;
        }
        Ok(())
    }

    /// Shows what was written to readers, once the rest of the group is written, too.
    pub(in crate::storage::rocksdb) fn publish(&mut self, growing: &Growing) {
        for (family, staged) in self.staged.drain() {
            staged.table.publish(&staged.written);
            if let Some(live) = self.live.iter_mut().find(|live| live.family == family) {
                live.group = self.group;
            }
        }
        if growing.bytes() > growing.database.options().tables_bytes_max {
            self.seal_largest(growing);
        }
    }

    fn seal_largest(&mut self, growing: &Growing) {
        self.forget_sealed();
        let live: Vec<_> =
            self.live.iter().filter_map(|live| live.table.upgrade().map(|table| (live.family, table))).collect();
        let bytes: u64 = live.iter().map(|(_, table)| table.size_bytes()).sum();
        if bytes < growing.database.options().tables_bytes_max / 2 {
            // Those that are sealed already wait for the disk; more of them would not help.
            return;
        }
        if let Some((family, table)) = live.iter().max_by_key(|(_, table)| table.size_bytes()) {
            self.seal(growing, *family, table);
        }
    }

    /// Has RocksDB take over what the family's tables hold, this group's batches included, because what follows
    /// changes it.
    pub(in crate::storage::rocksdb) fn ingest_all(
        &mut self,
        growing: &Growing,
        family: Family,
    ) -> Result<(), StorageError> {
        self.write(growing)?;
        if let Some(staged) = self.staged.remove(&family) {
            staged.table.publish(&staged.written);
        }
        growing.ingest_all(family)?;
        self.forget_sealed();
        Ok(())
    }
}

/// Nothing of the family's batches is in the log alone.
fn note_synced(growing: &Growing, family: Family, large_bytes: usize) {
    growing.families.state(family).logged().came_to_disk(large_bytes);
}

fn is_too_fine(table: &GrowingTable) -> bool {
    let blocks = table.block_count() as u64;
    blocks > 64 && table.size_bytes() / blocks < BATCH_BYTES_MIN
}
