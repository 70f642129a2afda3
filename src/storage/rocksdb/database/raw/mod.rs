//! RocksDB's C functions behind safe types. With `observe/memory.rs`, which speaks to the allocator, all of the
//! project's `unsafe`.
//!
//! The crate `rocksdb` builds [`Options`]; everything from opening on goes through the C API, because the crate lacks
//! batched creation of column families, and hands out handles that a batch created by C does not have.
//!
//! Why the calls are sound: each column family's handle shares the open database, which closes when the last of them is
//! gone. [`Cf`] and [`Iter`] share a handle or borrow the [`Db`], so that one that is dropped is freed after its last
//! use. RocksDB allows every call used here from any thread at any time, batches and iterators from one at a time,
//! which `&mut` ensures. Strings and errors that C hands out are copied and freed at once.
#![allow(unsafe_code, reason = "RocksDB's C API; the file's header says why each use is sound")]

mod error;
mod files;
mod ingest;
mod options;
mod shim;

use std::ffi::{CStr, CString, c_char};
use std::marker::PhantomData;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::Arc;

use bytes::Bytes;
use librocksdb_sys as ffi;
use parking_lot::RwLock;
use rocksdb::{AsRawPtr, Options};

pub(in crate::storage::rocksdb) use self::error::RocksError;
use self::error::{c_path, c_string, chars, checked};
pub(in crate::storage::rocksdb) use self::files::{FileBounds, SortedFile};
use self::options::WriteOptions;
pub(in crate::storage::rocksdb) use self::options::{
    BlockCache, ReadOptions, TableFormat, WriteBuffer, avoid_flush_during_recovery, reserve_nothing_ahead,
    sync_logs_in_order,
};
pub(in crate::storage::rocksdb) use self::shim::{is_cached, write_out};
use self::shim::{klamm_rocksdb_drop_families, klamm_rocksdb_forget_log, klamm_rocksdb_sync_log};

/// An open database with all its column families: the fixed ones, and numbered ones that come and go.
pub(in crate::storage::rocksdb) struct Db {
    db: Arc<OpenDb>,
    /// In the order in which they were opened.
    fixed: Vec<Handle>,
    /// By number.
    numbered: RwLock<Vec<Option<Arc<Handle>>>>,
    write: WriteOptions,
    write_sync: WriteOptions,
}

/// Closes with the last that shares it.
struct OpenDb {
    db: NonNull<ffi::rocksdb_t>,
    /// Kept as long as the database: it owns the logger's callback and the write buffer manager.
    _options: Options,
}

impl OpenDb {
    fn as_ptr(&self) -> *mut ffi::rocksdb_t {
        self.db.as_ptr()
    }
}

/// A column family's handle; freed before its database closes.
pub(in crate::storage::rocksdb) struct Handle {
    handle: NonNull<ffi::rocksdb_column_family_handle_t>,
    _db: Arc<OpenDb>,
}

// SAFETY: rocksdb::DB and its handles may be used from any thread at once.
unsafe impl Send for OpenDb {}
// SAFETY: as above.
unsafe impl Sync for OpenDb {}
// SAFETY: as above.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

// SAFETY: as above; the write options are only read.
unsafe impl Send for Db {}
// SAFETY: as above.
unsafe impl Sync for Db {}

impl std::fmt::Debug for Db {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Db with {} column families", self.family_count())
    }
}

/// One column family of an open database.
#[derive(Clone)]
pub(in crate::storage::rocksdb) enum Cf<'db> {
    Fixed(&'db Handle),
    /// Even if it is dropped meanwhile.
    Numbered(Arc<Handle>, PhantomData<&'db Db>),
}

impl Cf<'_> {
    fn as_ptr(&self) -> *mut ffi::rocksdb_column_family_handle_t {
        match self {
            Self::Fixed(handle) => handle.handle.as_ptr(),
            Self::Numbered(handle, _) => handle.handle.as_ptr(),
        }
    }
}

impl Db {
    /// The column families that the database at `path` holds. Fails if there is none.
    pub(in crate::storage::rocksdb) fn list_families(
        options: &Options,
        path: &Path,
    ) -> Result<Vec<String>, RocksError> {
        let path = c_path(path)?;
        let mut count = 0;
        // SAFETY: options and path outlive the call; count receives the length of the list.
        let list = checked(|error| unsafe {
            ffi::rocksdb_list_column_families(options.as_raw_ptr(), path.as_ptr(), &mut count, error)
        })?;
        let mut names = Vec::with_capacity(count);
        for index in 0..count {
            // SAFETY: list holds count NUL-terminated strings.
            names.push(unsafe { CStr::from_ptr(*list.add(index)) }.to_string_lossy().into_owned());
        }
        // SAFETY: the list came from the call above and is freed once.
        unsafe { ffi::rocksdb_list_column_families_destroy(list, count) };
        Ok(names)
    }

    /// Opens the database with exactly these column families: fixed ones, and those with a number below the length of
    /// the list that `numbered` becomes.
    pub(in crate::storage::rocksdb) fn open<'o>(
        options: Options,
        path: &Path,
        fixed: (&[&str], &'o Options),
        numbered: &[(u32, String)],
        of_number: impl Fn(u32) -> &'o Options,
    ) -> Result<Self, RocksError> {
        let path = c_path(path)?;
        let names: Vec<CString> =
            fixed.0.iter().copied().chain(numbered.iter().map(|(_, name)| name.as_str())).map(c_string).collect();
        let name_ptrs: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let of_numbers = numbered.iter().map(|(number, _)| of_number(*number));
        // SAFETY: as_raw_ptr only asks that the options stay alive during the call, which they do.
        let option_ptrs: Vec<*const ffi::rocksdb_options_t> = std::iter::repeat_n(fixed.1, fixed.0.len())
            .chain(of_numbers)
            .map(|options| unsafe { options.as_raw_ptr() }.cast_const())
            .collect();
        let mut handles = vec![ptr::null_mut(); names.len()];
        // SAFETY: all arrays have the announced length and outlive the call.
        let db = checked(|error| unsafe {
            ffi::rocksdb_open_column_families(
                options.as_raw_ptr(),
                path.as_ptr(),
                i32::try_from(names.len()).expect("families are counted by u32 numbers far below i32::MAX"),
                name_ptrs.as_ptr(),
                option_ptrs.as_ptr(),
                handles.as_mut_ptr(),
                error,
            )
        })?;
        let db = NonNull::new(db).expect("an open that reported no error returns a database");
        let db = Arc::new(OpenDb { db, _options: options });
        let mut handles = handles.into_iter().map(|handle| Handle {
            handle: NonNull::new(handle).expect("a successful open fills every handle"),
            _db: Arc::clone(&db),
        });
        let opened = Self {
            db: Arc::clone(&db),
            fixed: handles.by_ref().take(fixed.0.len()).collect(),
            numbered: RwLock::default(),
            write: WriteOptions::new(false),
            write_sync: WriteOptions::new(true),
        };
        for ((number, _), handle) in numbered.iter().zip(handles) {
            opened.put_handle(*number, handle);
        }
        Ok(opened)
    }

    /// Numbers of the numbered families.
    pub(in crate::storage::rocksdb) fn numbers(&self) -> Vec<u32> {
        let numbered = self.numbered.read();
        (0..).zip(&*numbered).filter_map(|(number, handle)| handle.as_ref().map(|_| number)).collect()
    }

    fn put_handle(&self, number: u32, handle: Handle) {
        let (mut numbered, index) = (self.numbered.write(), number as usize);
        if numbered.len() <= index {
            numbered.resize_with(index + 1, || None);
        }
        numbered[index] = Some(Arc::new(handle));
    }

    /// Creates column families in one step. On an error the first few may exist; answers with those that do.
    pub(in crate::storage::rocksdb) fn create_families(
        &self,
        options: &Options,
        wanted: &[(u32, String)],
        made: &mut Vec<u32>,
    ) -> Result<(), RocksError> {
        let names: Vec<CString> = wanted.iter().map(|(_, name)| c_string(name)).collect();
        let name_ptrs: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
        let mut created = 0;
        let mut list = ptr::null_mut();
        // SAFETY: the arrays have the announced length and outlive the call; created receives the list's length.
        let outcome = checked(|error| unsafe {
            list = ffi::rocksdb_create_column_families(
                self.db.as_ptr(),
                options.as_raw_ptr(),
                i32::try_from(names.len()).expect("a batch of families is far below i32::MAX"),
                name_ptrs.as_ptr(),
                &mut created,
                error,
            );
        });
        for (index, (number, _)) in wanted.iter().enumerate().take(created) {
            // SAFETY: list holds `created` handles, each ours from now on.
            if let Some(handle) = NonNull::new(unsafe { *list.add(index) }) {
                self.put_handle(*number, Handle { handle, _db: Arc::clone(&self.db) });
                made.push(*number);
            }
        }
        // SAFETY: frees the list alone, not the handles in it.
        unsafe { ffi::rocksdb_create_column_families_destroy(list) };
        outcome
    }

    /// Drops column families, with all that is in them. After an error some of them may be gone, and all are kept.
    pub(in crate::storage::rocksdb) fn drop_families(&self, numbers: &[u32]) -> Result<(), RocksError> {
        let handles: Vec<Arc<Handle>> = {
            let numbered = self.numbered.read();
            numbers.iter().filter_map(|number| numbered.get(*number as usize)?.clone()).collect()
        };
        let handle_ptrs: Vec<_> = handles.iter().map(|handle| handle.handle.as_ptr()).collect();
        // SAFETY: database and handles are alive; the array has the announced length and outlives the call.
        checked(|error| unsafe {
            klamm_rocksdb_drop_families(self.db.as_ptr(), handle_ptrs.as_ptr(), handle_ptrs.len(), error);
        })?;
        let mut numbered = self.numbered.write();
        numbers.iter().for_each(|number| numbered[*number as usize] = None);
        Ok(())
    }

    /// How many column families there are.
    pub(in crate::storage::rocksdb) fn family_count(&self) -> usize {
        self.fixed.len() + self.numbered.read().iter().flatten().count()
    }

    /// A fixed column family, by its place. Panics if there is none.
    pub(in crate::storage::rocksdb) fn fixed(&self, index: usize) -> Cf<'_> {
        Cf::Fixed(&self.fixed[index])
    }

    /// The column family with this number, if it is there.
    pub(in crate::storage::rocksdb) fn cf(&self, number: u32) -> Option<Cf<'_>> {
        let handle = self.numbered.read().get(number as usize)?.clone()?;
        Some(Cf::Numbered(handle, PhantomData))
    }

    /// All of them.
    pub(in crate::storage::rocksdb) fn all_families(&self) -> Vec<Cf<'_>> {
        let numbered = self.numbered.read();
        let numbered = numbered.iter().flatten().map(|handle| Cf::Numbered(Arc::clone(handle), PhantomData));
        self.fixed.iter().map(Cf::Fixed).chain(numbered).collect()
    }

    /// Writes a batch to the log and the memtables, atomically.
    pub(in crate::storage::rocksdb) fn write(&self, batch: &mut Batch, sync: bool) -> Result<(), RocksError> {
        let options = if sync { &self.write_sync } else { &self.write };
        // SAFETY: database, options and batch are alive; the batch is not used meanwhile.
        checked(|error| unsafe { ffi::rocksdb_write(self.db.as_ptr(), options.0, batch.0.as_ptr(), error) })
    }

    /// Brings what was written to the log so far to the disk, also where an append has failed since. The database must
    /// have its logs reach the disk [in their order](sync_logs_in_order).
    pub(in crate::storage::rocksdb) fn sync_log(&self) -> Result<(), RocksError> {
        // SAFETY: the database is alive.
        checked(|error| unsafe { klamm_rocksdb_sync_log(self.db.as_ptr(), error) })
    }

    /// As if the last sync of the log had failed.
    #[cfg(test)]
    pub(in crate::storage::rocksdb) fn spoil_log(&self) {
        // SAFETY: the database is alive.
        unsafe { shim::klamm_rocksdb_spoil_log(self.db.as_ptr()) };
    }

    /// One value.
    pub(in crate::storage::rocksdb) fn get(
        &self,
        cf: Cf<'_>,
        key: &[u8],
        options: &ReadOptions,
    ) -> Result<Option<Bytes>, RocksError> {
        // SAFETY: everything passed is alive during the call.
        let pinned = checked(|error| unsafe {
            ffi::rocksdb_get_pinned_cf(self.db.as_ptr(), options.options, cf.as_ptr(), chars(key), key.len(), error)
        })?;
        if pinned.is_null() {
            return Ok(None);
        }
        let mut length = 0;
        // SAFETY: a non-null result holds `length` bytes until it is destroyed, once, below.
        let value = unsafe {
            let start = ffi::rocksdb_pinnableslice_value(pinned, &mut length);
            Bytes::copy_from_slice(bytes(start, length))
        };
        // SAFETY: as above.
        unsafe { ffi::rocksdb_pinnableslice_destroy(pinned) };
        Ok(Some(value))
    }

    /// An iterator over a column family, not yet positioned. It sees the state of this moment.
    pub(in crate::storage::rocksdb) fn iter<'a>(&'a self, cf: Cf<'a>, options: &'a ReadOptions) -> Iter<'a> {
        // SAFETY: everything passed is alive; the borrow keeps it so as long as the iterator is.
        let iter = unsafe { ffi::rocksdb_create_iterator_cf(self.db.as_ptr(), options.options, cf.as_ptr()) };
        Iter { iter: NonNull::new(iter).expect("RocksDB always returns an iterator"), _cf: cf, options: PhantomData }
    }

    /// Writes the memtables of these families to files and, with `wait`, waits for that.
    pub(in crate::storage::rocksdb) fn flush(&self, cfs: &[Cf<'_>], wait: bool) -> Result<(), RocksError> {
        let mut handles: Vec<_> = cfs.iter().map(|cf| cf.as_ptr()).collect();
        // SAFETY: the array has the announced length; the options are freed after the call.
        unsafe {
            let options = ffi::rocksdb_flushoptions_create();
            ffi::rocksdb_flushoptions_set_wait(options, wait.into());
            ffi::rocksdb_flushoptions_set_allow_write_stall(options, 1);
            let count = i32::try_from(handles.len()).expect("families are far fewer than i32::MAX");
            let outcome = checked(|error| {
                ffi::rocksdb_flush_cfs(self.db.as_ptr(), options, handles.as_mut_ptr(), count, error);
            });
            ffi::rocksdb_flushoptions_destroy(options);
            outcome
        }
    }

    /// Removes the files, outside level 0, whose keys all lie in the range (both ends included).
    pub(in crate::storage::rocksdb) fn delete_files(
        &self,
        cf: Cf<'_>,
        first: &[u8],
        last: &[u8],
    ) -> Result<(), RocksError> {
        // SAFETY: everything passed is alive during the call.
        checked(|error| unsafe {
            ffi::rocksdb_delete_file_in_range_cf(
                self.db.as_ptr(),
                cf.as_ptr(),
                chars(first),
                first.len(),
                chars(last),
                last.len(),
                error,
            );
        })
    }

    /// Compacts a column family, or the files that overlap a range of it, and waits for that. Failures show in later
    /// reads.
    pub(in crate::storage::rocksdb) fn compact(&self, cf: Cf<'_>, range: Option<(&[u8], &[u8])>) {
        let (first, last) = range.unwrap_or_default();
        let bound = |key: &[u8]| if range.is_some() { chars(key) } else { ptr::null() };
        // SAFETY: null bounds mean the whole range; keys are copied during the call.
        unsafe {
            ffi::rocksdb_compact_range_cf(
                self.db.as_ptr(),
                cf.as_ptr(),
                bound(first),
                first.len(),
                bound(last),
                last.len(),
            );
        }
    }

    /// Changes options of the running database.
    pub(in crate::storage::rocksdb) fn set_options(&self, options: &[(&str, String)]) -> Result<(), RocksError> {
        let keys: Vec<CString> = options.iter().map(|(key, _)| c_string(key)).collect();
        let values: Vec<CString> = options.iter().map(|(_, value)| c_string(value)).collect();
        let key_ptrs: Vec<*const c_char> = keys.iter().map(|key| key.as_ptr()).collect();
        let value_ptrs: Vec<*const c_char> = values.iter().map(|value| value.as_ptr()).collect();
        let count = i32::try_from(options.len()).expect("a handful of options");
        // SAFETY: both arrays have the announced length and outlive the call.
        checked(|error| unsafe {
            ffi::rocksdb_set_db_options(self.db.as_ptr(), count, key_ptrs.as_ptr(), value_ptrs.as_ptr(), error);
        })
    }

    /// A number that RocksDB knows about a column family, such as `rocksdb.cur-size-active-mem-table`.
    pub(in crate::storage::rocksdb) fn property(&self, cf: Cf<'_>, name: &str) -> Option<u64> {
        let name = c_string(name);
        let mut value = 0;
        // SAFETY: everything passed is alive; value receives the number.
        let missing = unsafe { ffi::rocksdb_property_int_cf(self.db.as_ptr(), cf.as_ptr(), name.as_ptr(), &mut value) };
        (missing == 0).then_some(value)
    }

    /// Makes running and later compactions give up, so that closing is quick.
    pub(in crate::storage::rocksdb) fn stop_compactions(&self) {
        // SAFETY: the database is alive.
        unsafe { ffi::rocksdb_disable_manual_compaction(self.db.as_ptr()) };
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: ours, freed once, and its database is open.
        unsafe { ffi::rocksdb_column_family_handle_destroy(self.handle.as_ptr()) };
    }
}

impl Drop for OpenDb {
    fn drop(&mut self) {
        // SAFETY: nothing uses the database any more: whatever does shares it.
        unsafe {
            klamm_rocksdb_forget_log(self.db.as_ptr());
            ffi::rocksdb_close(self.db.as_ptr());
        }
    }
}

/// SAFETY of callers: `start` points at `length` bytes that live as long as the result is used.
unsafe fn bytes<'a>(start: *const c_char, length: usize) -> &'a [u8] {
    if length == 0 {
        return &[];
    }
    // SAFETY: promised by the caller.
    unsafe { slice::from_raw_parts(start.cast(), length) }
}

/// Writes that become visible together.
#[derive(Debug)]
pub(in crate::storage::rocksdb) struct Batch(NonNull<ffi::rocksdb_writebatch_t>);

// SAFETY: a batch is plain memory; it is used from one thread at a time.
unsafe impl Send for Batch {}

impl Default for Batch {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

impl Batch {
    /// An empty batch with room for so many bytes.
    pub(in crate::storage::rocksdb) fn with_capacity(reserved_bytes: usize) -> Self {
        // SAFETY: creates an object of our own; zero means no limit, no protection, no timestamps.
        let batch = unsafe { ffi::rocksdb_writebatch_create_with_params(reserved_bytes, 0, 0, 0) };
        Self(NonNull::new(batch).expect("the allocator aborts rather than return null"))
    }

    pub(in crate::storage::rocksdb) fn put(&mut self, cf: Cf<'_>, key: &[u8], value: &[u8]) {
        // SAFETY: key and value are copied during the call.
        unsafe {
            ffi::rocksdb_writebatch_put_cf(
                self.0.as_ptr(),
                cf.as_ptr(),
                chars(key),
                key.len(),
                chars(value),
                value.len(),
            );
        }
    }

    pub(in crate::storage::rocksdb) fn delete(&mut self, cf: Cf<'_>, key: &[u8]) {
        // SAFETY: the key is copied during the call.
        unsafe { ffi::rocksdb_writebatch_delete_cf(self.0.as_ptr(), cf.as_ptr(), chars(key), key.len()) };
    }

    /// Deletes the half-open range.
    pub(in crate::storage::rocksdb) fn delete_range(&mut self, cf: Cf<'_>, start: &[u8], end: &[u8]) {
        // SAFETY: both keys are copied during the call.
        unsafe {
            ffi::rocksdb_writebatch_delete_range_cf(
                self.0.as_ptr(),
                cf.as_ptr(),
                chars(start),
                start.len(),
                chars(end),
                end.len(),
            );
        }
    }

    /// Number of writes in it.
    pub(in crate::storage::rocksdb) fn count(&self) -> usize {
        // SAFETY: the batch is alive.
        let count = unsafe { ffi::rocksdb_writebatch_count(self.0.as_ptr()) };
        usize::try_from(count).expect("a count is not negative")
    }

    /// Empties it and keeps its memory.
    pub(in crate::storage::rocksdb) fn clear(&mut self) {
        // SAFETY: the batch is alive.
        unsafe { ffi::rocksdb_writebatch_clear(self.0.as_ptr()) };
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        // SAFETY: ours, freed once.
        unsafe { ffi::rocksdb_writebatch_destroy(self.0.as_ptr()) };
    }
}

/// A cursor over a column family, in the state it had when the iterator was made.
pub(in crate::storage::rocksdb) struct Iter<'a> {
    iter: NonNull<ffi::rocksdb_iterator_t>,
    _cf: Cf<'a>,
    options: PhantomData<&'a ReadOptions>,
}

impl Iter<'_> {
    /// To the first key at or after this one.
    pub(in crate::storage::rocksdb) fn seek(&mut self, key: &[u8]) {
        // SAFETY: the iterator is alive; the key is copied.
        unsafe { ffi::rocksdb_iter_seek(self.iter.as_ptr(), chars(key), key.len()) };
    }

    pub(in crate::storage::rocksdb) fn seek_to_first(&mut self) {
        // SAFETY: the iterator is alive.
        unsafe { ffi::rocksdb_iter_seek_to_first(self.iter.as_ptr()) };
    }

    pub(in crate::storage::rocksdb) fn seek_to_last(&mut self) {
        // SAFETY: the iterator is alive.
        unsafe { ffi::rocksdb_iter_seek_to_last(self.iter.as_ptr()) };
    }

    /// To the next key; at the end it stays there.
    pub(in crate::storage::rocksdb) fn next(&mut self) {
        // SAFETY: the iterator is alive, and moves on only from an entry, as RocksDB demands.
        unsafe {
            if ffi::rocksdb_iter_valid(self.iter.as_ptr()) != 0 {
                ffi::rocksdb_iter_next(self.iter.as_ptr());
            }
        }
    }

    /// Key and value at the cursor until it moves; `None` at the end; an error if reading failed.
    #[expect(clippy::type_complexity, reason = "an entry, its absence, or an error")]
    pub(in crate::storage::rocksdb) fn entry(&self) -> Result<Option<(&[u8], &[u8])>, RocksError> {
        // SAFETY: key and value are asked for only where the iterator is valid, and live until it moves (`&mut`).
        unsafe {
            if ffi::rocksdb_iter_valid(self.iter.as_ptr()) == 0 {
                checked(|error| ffi::rocksdb_iter_get_error(self.iter.as_ptr(), error))?;
                return Ok(None);
            }
            let (mut key_len, mut value_len) = (0, 0);
            let key = ffi::rocksdb_iter_key(self.iter.as_ptr(), &mut key_len);
            let value = ffi::rocksdb_iter_value(self.iter.as_ptr(), &mut value_len);
            Ok(Some((bytes(key, key_len), bytes(value, value_len))))
        }
    }
}

impl Drop for Iter<'_> {
    fn drop(&mut self) {
        // SAFETY: ours, freed once, while the database is alive.
        unsafe { ffi::rocksdb_iter_destroy(self.iter.as_ptr()) };
    }
}
