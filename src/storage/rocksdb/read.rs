//! Reads. Any number at a time, none of them waits for the writer.
//!
//! What a reader behind the in-memory tail meets: the memtables, then the block cache, then the page cache and the
//! disk. Scans leave the block cache alone, since a batch is rarely read twice from disk.

use std::ops::Range;

use bytes::Bytes;

use super::Shared;
use super::raw::{Cf, ReadOptions, RocksError};
use crate::storage::{Family, StorageError, VisitBatch, VisitPair, keys};
use crate::types::Offset;

impl Shared {
    pub(super) fn scan(&self, family: Family, from: Offset, visit: &mut VisitBatch<'_>) -> Result<(), StorageError> {
        let failed = |error: RocksError| self.read_failed(&error);
        let mut iter = self.db.iter(self.cf(family), &self.scan_options);
        // Asked after the iterator was made: what it no longer sees lies below this start, so there is never a hole.
        let start = self.families.state(family).start();
        iter.seek(&keys::batch(from.max(start)));
        while let Some((key, batch)) = iter.entry().map_err(failed)? {
            let Some(last_offset) = keys::batch_last_offset(key) else {
                return Err(self.read_failed(&RocksError(format!("a batch under a key of {} bytes", key.len()))));
            };
            if visit(last_offset, batch).is_break() {
                break;
            }
            iter.next();
        }
        Ok(())
    }

    pub(super) fn last_batch(&self, family: Family) -> Result<Option<(Offset, Bytes)>, StorageError> {
        let mut iter = self.db.iter(self.cf(family), &self.scan_options);
        let start = self.families.state(family).start();
        iter.seek_to_last();
        let Some((key, batch)) = iter.entry().map_err(|error| self.read_failed(&error))? else { return Ok(None) };
        let last = keys::batch_last_offset(key).filter(|last_offset| *last_offset >= start);
        Ok(last.map(|last_offset| (last_offset, Bytes::copy_from_slice(batch))))
    }

    pub(super) fn side(&self, key: &[u8]) -> Result<Option<Bytes>, StorageError> {
        self.db.get(self.side_cf(), key, &self.point_options).map_err(|error| self.read_failed(&error))
    }

    pub(super) fn scan_sides(&self, keys: Range<Bytes>, visit: &mut VisitPair<'_>) -> Result<(), StorageError> {
        if keys.is_empty() {
            return Ok(());
        }
        self.scan_pairs(self.side_cf(), &keys.start, &ReadOptions::new(true, Some(&keys.end)), visit)
    }

    pub(super) fn scan_tree(&self, visit: &mut VisitPair<'_>) -> Result<(), StorageError> {
        self.scan_pairs(self.tree_cf(), &[], &self.scan_options, visit)
    }

    fn scan_pairs(
        &self,
        cf: Cf<'_>,
        from: &[u8],
        options: &ReadOptions,
        visit: &mut VisitPair<'_>,
    ) -> Result<(), StorageError> {
        let mut iter = self.db.iter(cf, options);
        iter.seek(from);
        while let Some((key, value)) = iter.entry().map_err(|error| self.read_failed(&error))? {
            if visit(key, value).is_break() {
                break;
            }
            iter.next();
        }
        Ok(())
    }
}
