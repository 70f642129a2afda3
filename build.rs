//! Compiles the one C++ file, which gives RocksDB's C API what it lacks; see the file.

fn main() {
    const SHIM: &str = "src/storage/rocksdb/database/raw/shim.cc";
    println!("cargo:rerun-if-changed={SHIM}");
    let bundled = std::env::var("DEP_ROCKSDB_CARGO_MANIFEST_DIR").expect("librocksdb-sys tells where its sources lie");
    cc::Build::new()
        .cpp(true)
        .std("c++20")
        .warnings(false)
        .include(format!("{bundled}/rocksdb/include"))
        .file(SHIM)
        .compile("klamm_rocksdb_shim");
}
