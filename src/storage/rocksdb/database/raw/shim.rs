//! What RocksDB's C API and our own crates lack and `shim.cc` adds.

use std::ffi::{c_char, c_int, c_longlong};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;

use librocksdb_sys as ffi;

// Named in this folder, so that whatever compiles it is linked with it: an example that includes the folder, too.
#[link(name = "klamm_rocksdb_shim", kind = "static")]
unsafe extern "C" {
    /// In `shim.cc`, as the next.
    pub(super) fn klamm_rocksdb_env() -> *mut ffi::rocksdb_env_t;
    fn klamm_write_out(fd: c_int, from: c_longlong, bytes: c_longlong) -> c_int;
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
