//! One group: what of its sets is refused, where each write of them goes, and what becomes visible of it when.
//!
//! Of a group, what is for growing tables is written first: a kill may leave batches that no side record speaks of,
//! which recovery reads, but no side record of a batch that is not there.

use std::collections::HashMap;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::queue::{Queue, Queued};
use super::state::WriterState;
use crate::storage::rocksdb::database::{BackgroundJob, Batch, Database, RocksError};
use crate::storage::rocksdb::families::{Families, FamilyState, start_key};
use crate::storage::rocksdb::growing::ingest::Growing;
use crate::storage::rocksdb::growing::table::GrowingTable;
use crate::storage::rocksdb::read::Reader;
use crate::storage::{Family, StorageError, Write, keys};
use crate::types::Offset;
use crate::types::crc::EndSum;
use crate::types::limits::GROUP_COMMIT_BYTES_MAX;

/// How often the writer looks whether a flush has freed memory, and when it goes on regardless and leaves it to
/// RocksDB to stall or to fail.
const MEMORY_WAIT_STEP: Duration = Duration::from_millis(1);
const MEMORY_WAIT_STEPS_MAX: u32 = 5_000;

/// A batch of RocksDB that grew beyond this is not kept.
const BATCH_KEPT_BYTES: usize = 2 * GROUP_COMMIT_BYTES_MAX;

/// Writes one group, with the writer lock held.
pub(super) struct GroupWriter<'a> {
    pub(super) database: &'a Database,
    pub(super) families: &'a Families,
    pub(super) growing: &'a Growing,
    /// What the lock guards.
    pub(super) held: &'a mut WriterState,
    /// It is the writer's thread, and not that of a request.
    pub(super) may_wait: bool,
}

impl GroupWriter<'_> {
    pub(super) fn write_group(&mut self, group: &mut Vec<Queued>, queue: &Queue) {
        let bytes: usize = group.iter().map(|queued| queued.bytes).sum();
        self.wait_for_memory(queue);
        let full = group.iter().any(|queued| queued.set.adds_batches())
            && (self.database.is_out_of_space() || !self.database.admits(bytes));
        let refused: Vec<bool> = group.iter().map(|queued| self.refuses(queued, full)).collect();
        let outcome =
            self.write(group.iter().zip(&refused).filter(|(_, refused)| !**refused).map(|(queued, _)| queued));
        let no_space = matches!(outcome, Err(StorageError::Full { .. }));
        let outcome = if no_space { self.take_back(group).and(outcome) } else { outcome };
        let stopped = matches!(&outcome, Err(error) if !matches!(error, StorageError::Full { .. }));
        // Whoever is told looks at what is left.
        queue.done(bytes);
        for (queued, refused) in group.drain(..).zip(refused) {
            if (refused || no_space) && !stopped {
                let families: Vec<Family> = queued.set.rests_on().collect();
                (queued.done)(Err(self.database.full()));
                let place = queue.pushed();
                self.held.refused.extend(families.into_iter().map(|family| (family, place)));
            } else {
                (queued.done)(outcome.clone());
            }
        }
        if bytes > BATCH_KEPT_BYTES {
            self.held.batch = Batch::default();
        }
    }

    /// Nothing of a group counts for which the disk had no space. Its owners give the same offsets again.
    fn take_back(&mut self, group: &[Queued]) -> Result<(), StorageError> {
        self.held.routing.take_back(self.growing)?;
        for write in group.iter().flat_map(|queued| &queued.set.writes) {
            if let Write::Batch { family, .. } | Write::DeleteBatches { family, .. } = write {
                self.families.state(*family).forget_end();
            }
        }
        for (family, first) in self.held.ingested.drain(..) {
            self.families.state(family).undo_from(first);
        }
        Ok(())
    }

    /// Waits while memtables or growing tables take far more than their budget. Only under a load that the disk cannot
    /// follow; then the pace is the disk's.
    fn wait_for_memory(&self, queue: &Queue) {
        if !self.may_wait {
            return;
        }
        if self.database.is_overdrawn() {
            self.database.catch_up();
        }
        for _ in 0..MEMORY_WAIT_STEPS_MAX {
            let lags = self.database.is_overdrawn() || self.growing.tables_lag();
            if !lags || queue.is_closing() || self.database.stopped().is_some() {
                return;
            }
            std::thread::park_timeout(MEMORY_WAIT_STEP);
        }
    }

    /// Whether a set is refused for want of space; later sets of the same families then are, too.
    fn refuses(&mut self, queued: &Queued, full: bool) -> bool {
        if !full && self.held.refused.is_empty() {
            return false;
        }
        let follows = |family: Family| self.held.refused.get(&family).is_some_and(|upto| queued.place <= *upto);
        let refuse = (full && queued.set.adds_batches()) || queued.set.rests_on().any(follows);
        if refuse {
            self.held.refused.extend(queued.set.rests_on().map(|family| (family, u64::MAX)));
        } else {
            // Its owner knows.
            for family in queued.set.added_to() {
                self.held.refused.remove(&family);
            }
        }
        refuse
    }

    /// Writes these sets as one.
    fn write<'q>(&mut self, sets: impl Iterator<Item = &'q Queued> + Clone) -> Result<(), StorageError> {
        self.database.writable()?;
        self.held.batch.clear();
        self.held.starts.clear();
        self.held.ingested.clear();
        self.held.routing.begin_group(sets.clone().map(|queued| &queued.set), self.may_wait);
        let sync = self.held.routing.syncs();
        for queued in sets {
            for write in &queued.set.writes {
                self.add(write)?;
            }
        }
        // Batches first: recovery reads what side records do not speak of yet.
        self.held.routing.write(self.growing)?;
        if self.held.batch.count() > 0 {
            self.database.write_log(&mut self.held.batch, sync)?;
        } else if sync {
            // It covers what was written before.
            self.database.sync_log()?;
        }
        self.held.routing.publish(self.growing);
        let starts: HashMap<Family, Offset> = self.held.starts.drain(..).collect();
        for (family, start) in starts {
            self.families.state(family).set_start(start);
            self.growing.drop_tables_below(family, start);
            self.database.jobs().add(BackgroundJob::DropFiles(family));
        }
        if let Some(active) = self.held.activity.window_ended() {
            self.database.jobs().add(BackgroundJob::WindowEnded { active });
        }
        Ok(())
    }

    fn add(&mut self, write: &Write) -> Result<(), StorageError> {
        let database = self.database;
        match write {
            Write::Batch { family, last_offset, batch, sum, in_order } => {
                self.add_batch(*family, *last_offset, batch, *sum, *in_order)?;
            }
            Write::DeleteBatch { family, last_offset } => {
                if *last_offset >= self.start(*family) {
                    self.before_changing(*family, *last_offset..=*last_offset)?;
                    self.held.batch.delete(database.cf(*family), &keys::batch(*last_offset));
                }
            }
            Write::DeleteBatches { family, last_offsets } => self.delete_batches(*family, last_offsets)?,
            Write::RestsOn { .. } => {}
            Write::Side { key, value } => self.held.batch.put(database.side_cf(), key, value),
            Write::DeleteSide { key } => self.held.batch.delete(database.side_cf(), key),
            Write::DeleteSides { keys } if keys.is_empty() => {}
            Write::DeleteSides { keys } => self.held.batch.delete_range(database.side_cf(), &keys.start, &keys.end),
            Write::Tree { key, value } => self.held.batch.put(database.tree_cf(), key, value),
            Write::DeleteTree { key } => self.held.batch.delete(database.tree_cf(), key),
        }
        Ok(())
    }

    /// The start of a log as this group leaves it so far.
    fn start(&self, family: Family) -> Offset {
        match self.held.starts.iter().rev().find(|(moved, _)| *moved == family) {
            Some((_, start)) => *start,
            None => self.families.state(family).start(),
        }
    }

    fn set_start(&mut self, family: Family, start: Offset) {
        self.held.batch.put(self.database.default_cf(), &start_key(family.0), &start.0.to_be_bytes());
        self.held.routing.logs(&self.families.state(family));
        self.held.starts.push((family, start));
    }

    /// What tables hold of a family under these last offsets becomes RocksDB's alone before it changes.
    fn before_changing(&mut self, family: Family, last_offsets: RangeInclusive<Offset>) -> Result<(), StorageError> {
        let state = self.families.state(family);
        let tables = state.tables();
        let holds = |table: &Arc<GrowingTable>| match table.relies_on() {
            Some((first, last)) => first <= *last_offsets.end() && *last_offsets.start() <= last,
            // Batches of this very group.
            None => true,
        };
        if tables.has_any() && (self.held.routing.first_staged(family).is_some() || tables.list().iter().any(holds)) {
            self.ingest_tables(family)?;
        }
        tables.forget_handed_over(last_offsets);
        Ok(())
    }

    fn ingest_tables(&mut self, family: Family) -> Result<(), StorageError> {
        self.held.ingested.extend(self.held.routing.first_staged(family).map(|first| (family, first)));
        self.held.routing.ingest_all(self.growing, family)
    }

    fn add_batch(
        &mut self,
        family: Family,
        last_offset: Offset,
        bytes: &Bytes,
        sum: Option<EndSum>,
        in_order: bool,
    ) -> Result<(), StorageError> {
        let state = self.families.state(family);
        let start = self.start(family);
        if start == Offset::MAX {
            // The partition was deleted meanwhile, and the family may be another's soon.
            return Ok(());
        }
        if let Some(from) = state.take_undo() {
            self.held.ingested.push((family, from));
            self.delete_batches(family, &(from..Offset::MAX))?;
        }
        let start = self.start(family);
        if last_offset < start {
            // The log begins anew at an earlier offset. What lies hidden below the start must not come back.
            self.ingest_tables(family)?;
            state.tables().forget_all_handed_over();
            state.keep_files();
            let cf = self.database.cf(family);
            self.held.batch.delete_range(cf, &keys::batch(Offset::ZERO), &keys::batch(start));
            self.set_start(family, Offset::ZERO);
        }
        if in_order {
            state.logged().came_in_order();
        }
        if self.held.routing.may_take(self.growing, family, state.tables()) {
            if last_offset < self.end(family, &state)? {
                self.before_changing(family, last_offset..=last_offset)?;
            } else if in_order {
                if state.tables().has_unsynced() {
                    self.ingest_tables(family)?;
                }
            } else if self.held.routing.take(self.growing, family, last_offset, bytes, sum)? {
                state.added(last_offset);
                return Ok(());
            }
        } else {
            state.tables().forget_handed_over(last_offset..=last_offset);
        }
        self.held.routing.logs(&state);
        self.held.batch.put(self.database.cf(family), &keys::batch(last_offset), bytes);
        state.added(last_offset);
        self.held.activity.wrote(family, bytes.len());
        Ok(())
    }

    /// Deleting from the front moves the log's start and touches no batch: a range tombstone would stretch the next
    /// file over the whole log, and compaction would then rewrite all of it.
    fn delete_batches(&mut self, family: Family, last_offsets: &Range<Offset>) -> Result<(), StorageError> {
        let start = self.start(family);
        let state = self.families.state(family);
        let end = self.end(family, &state)?;
        let (from, to) = (last_offsets.start, last_offsets.end.min(end));
        if from >= to || to <= start {
            return Ok(());
        }
        if from <= start {
            self.set_start(family, to);
            return Ok(());
        }
        self.before_changing(family, from..=to)?;
        // A table that is begun at an offset cut off here must not reach the disk before the cut does.
        self.held.routing.logs(&state);
        self.held.batch.delete_range(self.database.cf(family), &keys::batch(from), &keys::batch(to));
        if to == end {
            state.cut(from);
        }
        Ok(())
    }

    /// One past the highest last offset of a family, batches of this group included.
    fn end(&self, family: Family, state: &FamilyState) -> Result<Offset, StorageError> {
        if let Some(end) = state.end() {
            return Ok(end);
        }
        // A directory that cannot be read here must not go on with some sets written and others not.
        let reader = Reader { database: self.database, families: self.families };
        let last = reader.last_batch(family).map_err(|error| self.database.stop(&RocksError(error.to_string())))?;
        Ok(state.learn_end(last.map(|(last_offset, _)| last_offset)))
    }
}
