//! Reads. Any number at a time, none of them waits for the writer.
//!
//! What a reader behind the in-memory tail meets: growing tables and memtables, then the block cache, then the page
//! cache and the disk. Scans leave the block cache alone, since a batch is rarely read twice from disk. What lies in
//! tables can be located without being read.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use bytes::Bytes;

use super::database::{Cf, Database, Iter, ReadOptions};
use super::families::{Families, FamilyState};
use super::growing::table::GrowingTable;
use crate::storage::{Family, Located, Span, StorageError, VisitBatch, VisitPair, Visited, keys};
use crate::types::Offset;

/// Reads batches of families, and records beside them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    pub(super) database: &'a Database,
    pub(super) families: &'a Families,
}

impl Reader<'_> {
    /// [`crate::storage::LogDir::scan`].
    pub(super) fn scan(
        &self,
        family: Family,
        from: Offset,
        mut wanted: usize,
        visit: &mut VisitBatch<'_>,
    ) -> Result<(), StorageError> {
        let state = self.families.state(family);
        let mut next = from;
        let mut visit = |last_offset: Offset, batch: Visited<'_>, next: &mut Offset, wanted: &mut usize| {
            *next = last_offset + 1;
            *wanted = wanted.saturating_sub(batch.len());
            visit(last_offset, batch)
        };
        loop {
            let tables = state.tables().list();
            // Asked after the tables, and again after the iterator: what is no longer there lies below this start, so
            // there is never a hole.
            next = next.max(state.start());
            let table = self.table_at(&state, &tables, next);
            let first = table.as_ref().and_then(|table| table.bounds()).map(|(first, _)| first);
            if let (Some(table), Some(first)) = (&table, first)
                && first <= next
            {
                let (from, all) = (next, wanted);
                let flow =
                    table.scan(from, all, &mut |last_offset, batch| visit(last_offset, batch, &mut next, &mut wanted));
                match flow.map_err(|error| self.database.read_failed(&error))? {
                    ControlFlow::Break(()) => return Ok(()),
                    ControlFlow::Continue(()) => continue,
                }
            }
            // One that shows nothing yet says nothing of what lies before it.
            let at_its_end = |table: &Arc<GrowingTable>| table.last().is_some_and(|last| last < next);
            if table.is_none() && tables.last().is_some_and(|table| !table.is_sealed() && at_its_end(table)) {
                // Whatever comes goes there.
                return Ok(());
            }
            let Some(cf) = self.database.try_cf(family) else { return Ok(()) };
            let iter = self.database.db().iter(cf, self.database.scan_options());
            if !Arc::ptr_eq(&tables, &state.tables().list()) {
                // A table may have gone over to RocksDB, and more have been written, before the iterator was made.
                continue;
            }
            if next < state.start() {
                // It may have moved past all that the iterator sees, and all that these tables held.
                continue;
            }
            if table.is_none() && tables.iter().any(|table| table.last().is_some_and(|last| next <= last)) {
                // A table shows something since, and RocksDB may have what came after it.
                continue;
            }
            let flow = self.scan_keys(iter, next, first, &mut |last_offset, batch| {
                visit(last_offset, batch, &mut next, &mut wanted)
            })?;
            if let Some(table) = &table
                && flow.is_continue()
            {
                table.note_continues(next);
            }
            match first {
                Some(first) if flow.is_continue() => next = next.max(first),
                _ => return Ok(()),
            }
        }
    }

    /// [`crate::storage::LogDir::locate`].
    pub(super) fn locate(&self, family: Family, span: &Span) -> Located {
        let mut found = Located { end: span.from, ..Located::default() };
        let state = self.families.state(family);
        // What is gone below the start, a scan passes over.
        while found.end < span.upto && found.end >= state.start() {
            let Some(table) = self.table_at(&state, &state.tables().list(), found.end) else { break };
            if !table.begins_by(found.end) {
                found.next = table.bounds().map(|(first, _)| first).filter(|first| *first > found.end);
                break;
            }
            if !table.locate(span, &mut found) {
                break;
            }
        }
        found.is_all |= found.end >= span.upto;
        found
    }

    /// The table that has `next`, or is the first behind it.
    fn table_at(&self, state: &FamilyState, tables: &[Arc<GrowingTable>], next: Offset) -> Option<Arc<GrowingTable>> {
        let holds = |table: &&Arc<GrowingTable>| table.last().is_some_and(|last| next <= last);
        state.tables().handed_over(next).or_else(|| tables.iter().find(holds).cloned())
    }

    /// Visits what an iterator finds from `from` on and below `to`.
    fn scan_keys(
        &self,
        mut iter: Iter<'_>,
        from: Offset,
        to: Option<Offset>,
        visit: &mut VisitBatch<'_>,
    ) -> Result<ControlFlow<()>, StorageError> {
        iter.seek(&keys::batch(from));
        while let Some((key, batch)) = iter.entry().map_err(|error| self.database.read_failed(&error))? {
            let Some(last_offset) = keys::batch_last_offset(key) else {
                return Err(self.database.read_failed(&format!("a batch under a key of {} bytes", key.len())));
            };
            if to.is_some_and(|to| last_offset >= to) {
                break;
            }
            if visit(last_offset, Visited::new(batch)).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            iter.next();
        }
        Ok(ControlFlow::Continue(()))
    }

    pub(super) fn last_batch(&self, family: Family) -> Result<Option<(Offset, Bytes)>, StorageError> {
        let state = self.families.state(family);
        // Whoever opens a log asks this first.
        if let Some(why) = state.damaged() {
            return Err(self.database.read_failed(&why));
        }
        loop {
            let (start, tables) = (state.start(), state.tables().list());
            let Some(cf) = self.database.try_cf(family) else { return Ok(None) };
            let mut iter = self.database.db().iter(cf, self.database.scan_options());
            if !Arc::ptr_eq(&tables, &state.tables().list()) {
                continue;
            }
            let failed = |error: std::io::Error| self.database.read_failed(&error);
            let newest = tables.iter().rev().find(|table| table.last().is_some());
            let grown = newest.map_or(Ok(None), |table| table.last_batch()).map_err(failed)?;
            iter.seek_to_last();
            let entry = iter.entry().map_err(|error| self.database.read_failed(&error))?;
            let stored = entry.and_then(|(key, batch)| Some((keys::batch_last_offset(key)?, batch)));
            let last = match (grown, stored) {
                (Some((grown, batch)), stored) if stored.is_none_or(|(stored, _)| stored < grown) => {
                    Some((grown, batch))
                }
                (_, stored) => stored.map(|(last_offset, batch)| (last_offset, Bytes::copy_from_slice(batch))),
            };
            let last = last.filter(|(last_offset, _)| *last_offset >= state.start());
            if last.is_none() && state.start() != start {
                // It may have moved past what was the last batch then.
                continue;
            }
            return Ok(last);
        }
    }

    pub(super) fn side(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.database
            .db()
            .get(self.database.side_cf(), key, self.database.point_options())
            .map_err(|error| self.database.read_failed(&error))
    }

    pub(super) fn scan_sides(&self, keys: Range<Bytes>, visit: &mut VisitPair<'_>) -> Result<(), StorageError> {
        if keys.is_empty() {
            return Ok(());
        }
        self.scan_pairs(self.database.side_cf(), &keys.start, &ReadOptions::new(true, Some(&keys.end)), visit)
    }

    pub(super) fn scan_tree(&self, visit: &mut VisitPair<'_>) -> Result<(), StorageError> {
        self.scan_pairs(self.database.tree_cf(), &[], self.database.scan_options(), visit)
    }

    fn scan_pairs(
        &self,
        cf: Cf<'_>,
        from: &[u8],
        options: &ReadOptions,
        visit: &mut VisitPair<'_>,
    ) -> Result<(), StorageError> {
        let mut iter = self.database.db().iter(cf, options);
        iter.seek(from);
        while let Some((key, value)) = iter.entry().map_err(|error| self.database.read_failed(&error))? {
            if visit(key, value).is_break() {
                break;
            }
            iter.next();
        }
        Ok(())
    }
}
