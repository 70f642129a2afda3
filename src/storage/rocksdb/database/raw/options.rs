//! Option objects of RocksDB's C API, for what the crate's own builders cannot say.

use std::ptr::NonNull;

use librocksdb_sys as ffi;
use rocksdb::{AsRawPtr, Options};

use super::error::chars;
use super::shim::klamm_rocksdb_env;

/// The memory that the memtables of all families share. RocksDB flushes the oldest when it is nearly used up, one at
/// every write; it does not hold writers back.
#[derive(Debug)]
pub(in crate::storage::rocksdb) struct WriteBuffer(NonNull<ffi::rocksdb_write_buffer_manager_t>);

// SAFETY: a manager's counters are atomic and its size is changed under its own lock.
unsafe impl Send for WriteBuffer {}
// SAFETY: as above.
unsafe impl Sync for WriteBuffer {}

impl WriteBuffer {
    pub(in crate::storage::rocksdb) fn new(bytes: usize) -> Self {
        // SAFETY: creates an object of our own.
        let manager = unsafe { ffi::rocksdb_write_buffer_manager_create(bytes, false) };
        Self(NonNull::new(manager).expect("the allocator aborts rather than return null"))
    }

    /// Makes a database, or a family, count against it.
    pub(in crate::storage::rocksdb) fn attach(&self, options: &mut Options) {
        // SAFETY: both are alive; the options take a share of their own.
        unsafe { ffi::rocksdb_options_set_write_buffer_manager(options.as_raw_ptr(), self.0.as_ptr()) };
    }

    pub(in crate::storage::rocksdb) fn set_size_bytes(&self, bytes: usize) {
        // SAFETY: the manager is alive.
        unsafe { ffi::rocksdb_write_buffer_manager_set_buffer_size(self.0.as_ptr(), bytes) };
    }

    /// What memtables take, those being flushed included.
    pub(in crate::storage::rocksdb) fn used_bytes(&self) -> usize {
        // SAFETY: the manager is alive.
        unsafe { ffi::rocksdb_write_buffer_manager_memory_usage(self.0.as_ptr()) }
    }

    /// What memtables take for which no flush was begun.
    pub(in crate::storage::rocksdb) fn unflushed_bytes(&self) -> usize {
        // SAFETY: the manager is alive.
        unsafe { ffi::rocksdb_write_buffer_manager_mutable_memtable_memory_usage(self.0.as_ptr()) }
    }
}

impl Drop for WriteBuffer {
    fn drop(&mut self) {
        // SAFETY: ours, freed once; the database keeps its own share.
        unsafe { ffi::rocksdb_write_buffer_manager_destroy(self.0.as_ptr()) };
    }
}

/// An option that the crate has no setter for: replayed writes stay in memory instead of going to files at once.
pub(in crate::storage::rocksdb) fn avoid_flush_during_recovery(options: &mut Options) {
    // SAFETY: the options are alive and borrowed by nobody else.
    unsafe { ffi::rocksdb_options_set_avoid_flush_during_recovery(options.as_raw_ptr(), 1) };
}

/// Another such option: files get their space as they are written, none before.
pub(in crate::storage::rocksdb) fn reserve_nothing_ahead(options: &mut Options) {
    // SAFETY: the options are alive and borrowed by nobody else.
    unsafe { ffi::rocksdb_options_set_allow_fallocate(options.as_raw_ptr(), 0) };
}

/// Has each write-ahead log reach the disk before its successor exists. Whoever writes waits for that; where it fails,
/// that write fails, and the database takes no more.
pub(in crate::storage::rocksdb) fn sync_logs_in_order(options: &mut Options) {
    // SAFETY: the options are alive and borrowed by nobody else; the environment lives as long as the process.
    unsafe { ffi::rocksdb_options_set_env(options.as_raw_ptr(), klamm_rocksdb_env()) };
}

/// Memory for blocks and indexes of files, shared by all families.
#[derive(Debug)]
pub(in crate::storage::rocksdb) struct BlockCache(NonNull<ffi::rocksdb_cache_t>);

impl BlockCache {
    pub(in crate::storage::rocksdb) fn new(bytes: usize) -> Self {
        // SAFETY: creates an object of our own.
        let cache = unsafe { ffi::rocksdb_cache_create_lru(bytes) };
        Self(NonNull::new(cache).expect("the allocator aborts rather than return null"))
    }
}

impl Drop for BlockCache {
    fn drop(&mut self) {
        // SAFETY: ours, freed once; tables keep a share of their own.
        unsafe { ffi::rocksdb_cache_destroy(self.0.as_ptr()) };
    }
}

/// How the files of a family are laid out.
#[derive(Debug, Clone, Copy)]
pub(in crate::storage::rocksdb) struct TableFormat {
    /// Entries are gathered into a block until it has so many bytes. One larger entry makes a larger block.
    pub(in crate::storage::rocksdb) block_bytes: usize,
}

impl TableFormat {
    /// Sets the format of a family's files.
    pub(in crate::storage::rocksdb) fn attach(self, options: &mut Options, cache: &BlockCache) {
        // SAFETY: the table options are ours, and freed once; the factory that comes of them copies what they say and
        // takes a share of the cache.
        unsafe {
            let table = ffi::rocksdb_block_based_options_create();
            ffi::rocksdb_block_based_options_set_block_cache(table, cache.0.as_ptr());
            // Indexes count against the cache: outside they would grow with all data ever written.
            ffi::rocksdb_block_based_options_set_cache_index_and_filter_blocks(table, 1);
            ffi::rocksdb_block_based_options_set_format_version(table, 6);
            ffi::rocksdb_block_based_options_set_block_size(table, self.block_bytes);
            ffi::rocksdb_block_based_options_set_index_shortening(table, NO_SHORTENING);
            ffi::rocksdb_options_set_block_based_table_factory(options.as_raw_ptr(), table);
            ffi::rocksdb_block_based_options_destroy(table);
        }
    }
}

/// The index names the last key of each block as it is. A shortened one lies between two blocks, and a seek for the
/// offset after the last one then reads the whole block before the right one.
const NO_SHORTENING: i32 = 0;

pub(super) struct WriteOptions(pub(super) *mut ffi::rocksdb_writeoptions_t);

impl WriteOptions {
    pub(super) fn new(sync: bool) -> Self {
        // SAFETY: creates an object of our own.
        unsafe {
            let options = ffi::rocksdb_writeoptions_create();
            ffi::rocksdb_writeoptions_set_sync(options, sync.into());
            Self(options)
        }
    }
}

impl Drop for WriteOptions {
    fn drop(&mut self) {
        // SAFETY: ours, freed once.
        unsafe { ffi::rocksdb_writeoptions_destroy(self.0) };
    }
}

/// How to read. Checksums are always verified.
pub(in crate::storage::rocksdb) struct ReadOptions {
    pub(super) options: *mut ffi::rocksdb_readoptions_t,
    /// RocksDB keeps a pointer to the bound.
    _upper_bound: Option<Box<[u8]>>,
}

// SAFETY: never changed after construction.
unsafe impl Send for ReadOptions {}
// SAFETY: as above.
unsafe impl Sync for ReadOptions {}

impl ReadOptions {
    /// `fill_cache`: whether blocks that are read stay in the block cache. `upper_bound`: first key not to visit.
    pub(in crate::storage::rocksdb) fn new(fill_cache: bool, upper_bound: Option<&[u8]>) -> Self {
        let upper_bound: Option<Box<[u8]>> = upper_bound.map(Box::from);
        // SAFETY: creates an object of our own; the bound lives in a box that moves along with it.
        let options = unsafe {
            let options = ffi::rocksdb_readoptions_create();
            ffi::rocksdb_readoptions_set_verify_checksums(options, 1);
            ffi::rocksdb_readoptions_set_fill_cache(options, fill_cache.into());
            if let Some(bound) = &upper_bound {
                ffi::rocksdb_readoptions_set_iterate_upper_bound(options, chars(bound), bound.len());
            }
            options
        };
        Self { options, _upper_bound: upper_bound }
    }
}

impl Drop for ReadOptions {
    fn drop(&mut self) {
        // SAFETY: ours, freed once.
        unsafe { ffi::rocksdb_readoptions_destroy(self.options) };
    }
}
