//! Handing a finished file to a column family.

use std::path::Path;

use librocksdb_sys as ffi;

use super::error::{RocksError, c_path, checked};
use super::{Cf, Db};

impl Db {
    /// Makes the finished file at `path` one of a column family's: synced, linked into the database's directory, and
    /// then removed from where it was. Its batches are newer than all that the family holds; where they overlap a
    /// memtable, that is flushed first. On the same file system only. Nothing but the MANIFEST is written.
    ///
    /// Syncs file and directory on this thread; all writers of the database wait while the family takes the file.
    /// After an error the file is still where it was, and the family does not have it unless the error came of writing
    /// the MANIFEST, in which case the database takes no more writes. A crash may leave a file that was taken with both
    /// names: nothing may be written through the old one.
    pub(in crate::storage::rocksdb) fn ingest(&self, cf: Cf<'_>, path: &Path) -> Result<(), RocksError> {
        let path = c_path(path)?;
        // SAFETY: the options are ours, and freed once; everything else passed outlives the call.
        unsafe {
            let options = ffi::rocksdb_ingestexternalfileoptions_create();
            ffi::rocksdb_ingestexternalfileoptions_set_move_files(options, 1);
            // A copy would be written twice, and unnoticed.
            ffi::rocksdb_ingestexternalfileoptions_set_failed_move_fall_back_to_copy(options, 0);
            ffi::rocksdb_ingestexternalfileoptions_set_snapshot_consistency(options, 1);
            ffi::rocksdb_ingestexternalfileoptions_set_allow_global_seqno(options, 1);
            ffi::rocksdb_ingestexternalfileoptions_set_allow_blocking_flush(options, 1);
            ffi::rocksdb_ingestexternalfileoptions_set_fail_if_not_bottommost_level(options, 0);
            // The first and the last block are read for their keys; whole batches would push indexes out of the cache.
            ffi::rocksdb_ingestexternalfileoptions_set_fill_cache(options, 0);
            let outcome = checked(|error| {
                ffi::rocksdb_ingest_external_file_cf(self.db.as_ptr(), cf.as_ptr(), &path.as_ptr(), 1, options, error);
            });
            ffi::rocksdb_ingestexternalfileoptions_destroy(options);
            outcome
        }
    }
}
