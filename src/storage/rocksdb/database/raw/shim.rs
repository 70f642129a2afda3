//! What RocksDB's C API and our own crates lack and `shim.cc` adds.

use std::ffi::{c_char, c_int, c_longlong, c_ulonglong};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use librocksdb_sys as ffi;

// Named in this folder, so that whatever compiles it is linked with it: an example that includes the folder, too.
#[link(name = "klamm_rocksdb_shim", kind = "static")]
unsafe extern "C" {
    /// In `shim.cc`, as the next.
    pub(super) fn klamm_rocksdb_env() -> *mut ffi::rocksdb_env_t;
    #[cfg(test)]
    pub(super) fn klamm_rocksdb_spoil_log(db: *mut ffi::rocksdb_t);
    pub(super) fn klamm_rocksdb_forget_log(db: *mut ffi::rocksdb_t);
    pub(super) fn klamm_rocksdb_sync_log(db: *mut ffi::rocksdb_t, error: *mut *mut c_char);
    fn klamm_write_out(fd: c_int, from: c_longlong, bytes: c_longlong) -> c_int;
    fn klamm_cached_pages(fd: c_int, from: c_ulonglong, bytes: c_ulonglong) -> c_longlong;
    pub(super) fn klamm_rocksdb_drop_families(
        db: *mut ffi::rocksdb_t,
        handles: *const *mut ffi::rocksdb_column_family_handle_t,
        count: usize,
        error: *mut *mut c_char,
    );
}

/// Has the kernel begin to write what of a part of a file is dirty, which stays in the page cache.
pub(in crate::storage::rocksdb) fn write_out(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    let (from, bytes) = (c_longlong::try_from(from), c_longlong::try_from(bytes));
    let (Ok(from), Ok(bytes)) = (from, bytes) else { return Err(io::ErrorKind::InvalidInput.into()) };
    // SAFETY: no memory is passed, and the file is open.
    match unsafe { klamm_write_out(file.as_raw_fd(), from, bytes) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether all of a part of a file, which is not empty, is in the page cache. False also where the kernel does not say
/// (before Linux 6.5, or where a container may not ask).
pub(in crate::storage::rocksdb) fn is_cached(file: &File, from: u64, bytes: u64) -> bool {
    let page_bytes = rustix::param::page_size() as u64;
    let pages = (from + bytes - 1) / page_bytes - from / page_bytes + 1;
    // SAFETY: no memory is passed, and the file is open.
    let found = unsafe { klamm_cached_pages(file.as_raw_fd(), from, bytes) };
    u64::try_from(found).is_ok_and(|found| found >= pages)
}
