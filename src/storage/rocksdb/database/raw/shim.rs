//! What RocksDB's C API lacks and `shim.cc` adds.

use std::ffi::c_char;

use librocksdb_sys as ffi;

// Named in this folder, so that whatever compiles it is linked with it: an example that includes the folder, too.
#[link(name = "klamm_rocksdb_shim", kind = "static")]
unsafe extern "C" {
    /// In `shim.cc`, as the next.
    pub(super) fn klamm_rocksdb_env() -> *mut ffi::rocksdb_env_t;
    pub(super) fn klamm_rocksdb_drop_families(
        db: *mut ffi::rocksdb_t,
        handles: *const *mut ffi::rocksdb_column_family_handle_t,
        count: usize,
        error: *mut *mut c_char,
    );
}
