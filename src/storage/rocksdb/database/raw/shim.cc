// What RocksDB's C API lacks. Compiled by build.rs against the headers of the RocksDB that librocksdb-sys bundles.

#include <cstddef>
#include <cstring>
#include <vector>

#include "rocksdb/db.h"

extern "C" {

// As db/c.cc of RocksDB 11.8 defines them.
struct rocksdb_t {
  rocksdb::DB* rep;
};
struct rocksdb_column_family_handle_t {
  rocksdb::ColumnFamilyHandle* rep;
  bool immortal;
};

// Drops column families and writes the options file once, where rocksdb_drop_column_family writes it for each.
// After an error some of them may be dropped. error receives a text to be freed with rocksdb_free.
void klamm_rocksdb_drop_families(rocksdb_t* db, rocksdb_column_family_handle_t* const* handles, size_t count,
                                 char** error) noexcept {
  std::vector<rocksdb::ColumnFamilyHandle*> families;
  families.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    families.push_back(handles[i]->rep);
  }
  rocksdb::Status status = db->rep->DropColumnFamilies(families);
  if (!status.ok()) {
    *error = strdup(status.ToString().c_str());
  }
}

}  // extern "C"
