//! The files of a column family: which there are, and making one of several.

use std::ffi::{CStr, CString, c_char};
use std::ptr;

use librocksdb_sys as ffi;

use super::error::{RocksError, c_string, checked};
use super::{Cf, Db};

/// A file below level 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage::rocksdb) struct SortedFile {
    pub(in crate::storage::rocksdb) name: CString,
    pub(in crate::storage::rocksdb) bytes: u64,
}

/// Where the files of a family with two levels end up.
const LOWEST_LEVEL: i32 = 1;

impl Db {
    /// How many files a column family has below level 0.
    pub(in crate::storage::rocksdb) fn sorted_file_count(&self, cf: Cf<'_>) -> usize {
        let name = c_string("rocksdb.num-files-at-level1");
        // SAFETY: everything passed is alive.
        let text = unsafe { ffi::rocksdb_property_value_cf(self.db.as_ptr(), cf.as_ptr(), name.as_ptr()) };
        // SAFETY: the text is ours.
        unsafe { taken(text) }.and_then(|text| text.to_str().ok()?.parse().ok()).unwrap_or(0)
    }

    /// The files of a column family below level 0, in the order of their keys.
    pub(in crate::storage::rocksdb) fn sorted_files(&self, cf: Cf<'_>) -> Vec<SortedFile> {
        let mut files = Vec::new();
        // SAFETY: each object is destroyed once, before the one it came from; indexes are below the counts told.
        unsafe {
            let family = ffi::rocksdb_get_column_family_metadata_cf(self.db.as_ptr(), cf.as_ptr());
            for number in 1..ffi::rocksdb_column_family_metadata_get_level_count(family) {
                let level = ffi::rocksdb_column_family_metadata_get_level_metadata(family, number);
                for index in 0..ffi::rocksdb_level_metadata_get_file_count(level) {
                    let file = ffi::rocksdb_level_metadata_get_sst_file_metadata(level, index);
                    let bytes = ffi::rocksdb_sst_file_metadata_get_size(file);
                    let name = taken(ffi::rocksdb_sst_file_metadata_get_relative_filename(file));
                    files.extend(name.map(|name| SortedFile { name, bytes }));
                    ffi::rocksdb_sst_file_metadata_destroy(file);
                }
                ffi::rocksdb_level_metadata_destroy(level);
            }
            ffi::rocksdb_column_family_metadata_destroy(family);
        }
        files
    }

    /// Rewrites files of a column family as one, on this thread. Fails if one of them is being compacted or is gone;
    /// what is wrong with the disk or a file, later writes tell as well.
    pub(in crate::storage::rocksdb) fn merge(&self, cf: Cf<'_>, files: &[SortedFile]) -> Result<(), RocksError> {
        let names: Vec<*const c_char> = files.iter().map(|file| file.name.as_ptr()).collect();
        // SAFETY: the array has the announced length and outlives the call; null options are the defaults, and nothing
        // is asked to be told of the outcome.
        checked(|error| unsafe {
            ffi::rocksdb_compact_files_cf(
                self.db.as_ptr(),
                cf.as_ptr(),
                ptr::null(),
                names.as_ptr(),
                names.len(),
                LOWEST_LEVEL,
                0,
                ptr::null_mut(),
                ptr::null_mut(),
                ptr::null_mut(),
                error,
            );
        })
    }
}

/// Copies and frees a text. SAFETY of callers: it is null, or NUL-terminated memory of malloc's that is theirs.
unsafe fn taken(text: *mut c_char) -> Option<CString> {
    if text.is_null() {
        return None;
    }
    // SAFETY: promised by the caller; copied before it is freed.
    unsafe {
        let copy = CStr::from_ptr(text).to_owned();
        ffi::rocksdb_free(text.cast());
        Some(copy)
    }
}
