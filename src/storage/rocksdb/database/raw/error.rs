//! What crosses the border to C: errors, names and paths.

use std::ffi::{CStr, CString, c_char};
use std::path::Path;
use std::ptr;

use librocksdb_sys as ffi;

/// What RocksDB says went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(in crate::storage::rocksdb) struct RocksError(pub(in crate::storage::rocksdb) String);

/// Runs a C call that reports failure through its last argument.
pub(super) fn checked<T>(call: impl FnOnce(*mut *mut c_char) -> T) -> Result<T, RocksError> {
    let mut error: *mut c_char = ptr::null_mut();
    let value = call(&mut error);
    if error.is_null() {
        return Ok(value);
    }
    // SAFETY: a non-null error is a NUL-terminated string that malloc gave and that is ours to free.
    let text = unsafe { CStr::from_ptr(error) }.to_string_lossy().into_owned();
    // SAFETY: as above.
    unsafe { ffi::rocksdb_free(error.cast()) };
    Err(RocksError(text))
}

pub(super) fn c_string(text: &str) -> CString {
    CString::new(text).expect("names and paths of ours hold no NUL")
}

pub(super) fn c_path(path: &Path) -> Result<CString, RocksError> {
    use std::os::unix::ffi::OsStrExt as _;
    CString::new(path.as_os_str().as_bytes()).map_err(|_| RocksError("the path holds a NUL byte".into()))
}

pub(super) fn chars(bytes: &[u8]) -> *const c_char {
    bytes.as_ptr().cast()
}
