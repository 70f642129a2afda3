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

/// A file of any level, with the keys that it says something about, range tombstones among that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::storage::rocksdb) struct FileBounds {
    pub(in crate::storage::rocksdb) name: CString,
    pub(in crate::storage::rocksdb) first: Vec<u8>,
    pub(in crate::storage::rocksdb) last: Vec<u8>,
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
        self.each_file(cf, 1, |file| {
            // SAFETY: the file is alive, and the text is ours.
            let (name, bytes) = unsafe {
                let name = taken(ffi::rocksdb_sst_file_metadata_get_relative_filename(file));
                (name, ffi::rocksdb_sst_file_metadata_get_size(file))
            };
            files.extend(name.map(|name| SortedFile { name, bytes }));
        });
        files
    }

    /// All files of a column family, with their bounds.
    pub(in crate::storage::rocksdb) fn file_bounds(&self, cf: Cf<'_>) -> Vec<FileBounds> {
        let mut files = Vec::new();
        self.each_file(cf, 0, |file| {
            let (mut first_bytes, mut last_bytes) = (0, 0);
            // SAFETY: the file is alive, and what is told is ours.
            let (name, first, last) = unsafe {
                let name = taken(ffi::rocksdb_sst_file_metadata_get_relative_filename(file));
                let first = ffi::rocksdb_sst_file_metadata_get_smallestkey(file, &raw mut first_bytes);
                let last = ffi::rocksdb_sst_file_metadata_get_largestkey(file, &raw mut last_bytes);
                (name, taken_bytes(first, first_bytes), taken_bytes(last, last_bytes))
            };
            files.extend(name.map(|name| FileBounds { name, first, last }));
        });
        files
    }

    /// Visits what is known of each file of a column family, from this level down.
    fn each_file(&self, cf: Cf<'_>, from_level: usize, mut visit: impl FnMut(*mut ffi::rocksdb_sst_file_metadata_t)) {
        // SAFETY: each object is destroyed once, before the one it came from; indexes are below the counts told.
        unsafe {
            let family = ffi::rocksdb_get_column_family_metadata_cf(self.db.as_ptr(), cf.as_ptr());
            for number in from_level..ffi::rocksdb_column_family_metadata_get_level_count(family) {
                let level = ffi::rocksdb_column_family_metadata_get_level_metadata(family, number);
                for index in 0..ffi::rocksdb_level_metadata_get_file_count(level) {
                    let file = ffi::rocksdb_level_metadata_get_sst_file_metadata(level, index);
                    visit(file);
                    ffi::rocksdb_sst_file_metadata_destroy(file);
                }
                ffi::rocksdb_level_metadata_destroy(level);
            }
            ffi::rocksdb_column_family_metadata_destroy(family);
        }
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

/// Copies and frees so many bytes. SAFETY of callers: it is null, or memory of malloc's of that size that is theirs.
unsafe fn taken_bytes(bytes: *mut c_char, length: usize) -> Vec<u8> {
    if bytes.is_null() {
        return Vec::new();
    }
    // SAFETY: promised by the caller; copied before it is freed.
    unsafe {
        let copy = std::slice::from_raw_parts(bytes.cast_const().cast(), length).to_vec();
        ffi::rocksdb_free(bytes.cast());
        copy
    }
}
