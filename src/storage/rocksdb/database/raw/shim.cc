// What RocksDB's C API lacks. Compiled by build.rs against the headers of the RocksDB that librocksdb-sys bundles.

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "rocksdb/db.h"
#include "rocksdb/env.h"
#include "rocksdb/file_system.h"

namespace {

// The answer of a call that a signal did not interrupt.
template <typename Call>
int Uninterrupted(Call call) {
  int answer;
  do {
    answer = call();
  } while (answer < 0 && errno == EINTR);
  return answer;
}

// An open file or directory, closed with its owner.
class Descriptor {
 public:
  explicit Descriptor(const std::string& path)
      : fd_(Uninterrupted([&] { return open(path.c_str(), O_RDONLY | O_CLOEXEC); })) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator int() const { return fd_; }

 private:
  const int fd_;
};

rocksdb::IOStatus Failed(const std::string& path, int error) {
  return rocksdb::IOStatus::IOError("While syncing " + path, std::string(strerror(error)));
}

// A write-ahead log and the directory with its name, open from its beginning on: so a sync wants no descriptor that the
// process may not have, finds the log wherever its directory was moved, and hears of each error of its pages.
class Log {
 public:
  Log(const std::string& path, std::shared_ptr<const Descriptor> names)
      : path_(path), file_(path), names_(std::move(names)), error_(file_ < 0 || *names_ < 0 ? errno : 0) {}

  // What is written to it so far, and its name. The kernel tells of an error once; here it stays one.
  rocksdb::IOStatus Sync() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (error_ == 0 && Uninterrupted([&] { return fdatasync(file_); }) != 0) error_ = errno;
    if (error_ == 0 && !named_) {
      if (Uninterrupted([&] { return fsync(*names_); }) != 0) error_ = errno;
      named_ = error_ == 0;
    }
    return Status();
  }

  // That of its directory, which its successor has as well.
  const std::shared_ptr<const Descriptor>& Names() const { return names_; }

  void Spoil() {
    std::lock_guard<std::mutex> lock(mutex_);
    error_ = EIO;
  }

  rocksdb::IOStatus Status() const { return error_ == 0 ? rocksdb::IOStatus::OK() : Failed(path_, error_); }

 private:
  const std::string path_;
  const Descriptor file_;
  const std::shared_ptr<const Descriptor> names_;
  std::mutex mutex_;
  int error_;
  // Its name is on the disk.
  bool named_ = false;
};

// Brings a write-ahead log to the disk, its name too, before its successor exists: else a loss of power could take the
// end of the one and leave the other, and RocksDB would replay both as one. RocksDB itself syncs a log that it has left
// only when it flushes next. It makes a log while nobody writes (DBImpl::SwitchMemtable), so nothing follows what is
// synced here but what goes to the next log.
//
// So all that was written is on the disk once the newest log is, and SyncNewest brings that there beside RocksDB. Of a
// log whose last append failed, for want of space for instance, RocksDB syncs nothing when asked to, and takes no more
// writes for good (DBImpl::WALIOStatusCheck: "Writer has previous error.").
class LogsInOrder : public rocksdb::FileSystemWrapper {
 public:
  explicit LogsInOrder(const std::shared_ptr<rocksdb::FileSystem>& target) : FileSystemWrapper(target) {}

  static const char* kClassName() { return "LogsInOrder"; }
  const char* Name() const override { return kClassName(); }

  rocksdb::IOStatus NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                                    std::unique_ptr<rocksdb::FSWritableFile>* file,
                                    rocksdb::IODebugContext* debug) override {
    return Next(path, [&] { return target()->NewWritableFile(path, options, file, debug); });
  }

  rocksdb::IOStatus ReuseWritableFile(const std::string& path, const std::string& old_path,
                                      const rocksdb::FileOptions& options,
                                      std::unique_ptr<rocksdb::FSWritableFile>* file,
                                      rocksdb::IODebugContext* debug) override {
    return Next(path, [&] { return target()->ReuseWritableFile(path, old_path, options, file, debug); });
  }

  // Brings all that was written to the logs of a directory to the disk.
  rocksdb::IOStatus SyncNewest(const std::string& directory) {
    const std::shared_ptr<Log> newest = Newest(directory);
    return newest ? newest->Sync() : rocksdb::IOStatus::IOError("No log was made in " + directory);
  }

  // For tests: as if a sync of the newest log had failed.
  void SpoilNewest(const std::string& directory) {
    if (const auto newest = Newest(directory)) newest->Spoil();
  }

  // The database in this directory closes.
  void Forget(const std::string& directory) {
    std::lock_guard<std::mutex> lock(mutex_);
    newest_.erase(directory);
  }

 private:
  std::shared_ptr<Log> Newest(const std::string& directory) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto found = newest_.find(directory);
    return found == newest_.end() ? nullptr : found->second;
  }

  // No space for the name of a log, or for its inode. RocksDB goes on by itself after a want of space in a flush, but
  // after one in the making of a log it takes no more writes for good (ErrorSeverityMap knows no NoSpace of kMemTable).
  // From an error that may pass it tries to recover every second (StartRecoverFromRetryableBGIOError).
  static rocksdb::IOStatus NoSpaceForNow(const rocksdb::IOStatus& status) {
    const std::string text = status.ToString();
    const size_t begin = text.find("No space left on device");
    rocksdb::IOStatus passing = rocksdb::IOStatus::IOError(begin == std::string::npos ? text : text.substr(begin));
    passing.SetRetryable(true);
    return passing;
  }

  // Makes a file. `path` is <directory>/<number>.log where it is a write-ahead log.
  template <typename Make>
  rocksdb::IOStatus Next(const std::string& path, Make make) {
    if (!path.ends_with(".log")) return make();
    const std::string directory = path.substr(0, path.rfind('/'));
    const std::shared_ptr<Log> before = Newest(directory);
    rocksdb::IOStatus status = before ? before->Sync() : rocksdb::IOStatus::OK();
    if (status.ok()) {
      status = make();
      if (status.IsNoSpace()) status = NoSpaceForNow(status);
    }
    if (!status.ok()) return status;
    const auto log =
        std::make_shared<Log>(path, before ? before->Names() : std::make_shared<const Descriptor>(directory));
    status = log->Status();
    if (status.ok()) {
      std::lock_guard<std::mutex> lock(mutex_);
      newest_[directory] = log;
    }
    return status;
  }

  std::mutex mutex_;
  // The newest log of each directory with an open database. Whatever an earlier opening left there is on the disk, or
  // gone, or synced once more.
  std::unordered_map<std::string, std::shared_ptr<Log>> newest_;
};

// That of all databases. Lives as long as the process.
const std::shared_ptr<LogsInOrder>& Logs() {
  static const auto* logs = new auto(std::make_shared<LogsInOrder>(rocksdb::FileSystem::Default()));
  return *logs;
}

}  // namespace

extern "C" {

// As db/c.cc of RocksDB 11.8 defines them.
struct rocksdb_t {
  rocksdb::DB* rep;
};
struct rocksdb_column_family_handle_t {
  rocksdb::ColumnFamilyHandle* rep;
  bool immortal;
};
struct rocksdb_env_t {
  rocksdb::Env* rep;
  bool is_default;
};

// The environment of all databases: the default one, with write-ahead logs that reach the disk in their order. Lives as
// long as the process, as the default one does; "default" keeps rocksdb_env_destroy from freeing it.
rocksdb_env_t* klamm_rocksdb_env() noexcept {
  static rocksdb_env_t env{rocksdb::NewCompositeEnv(Logs()).release(), true};
  return &env;
}

// Brings all that was written to the write-ahead log so far to the disk. error receives a text to be freed with
// rocksdb_free.
void klamm_rocksdb_sync_log(rocksdb_t* db, char** error) noexcept {
  const rocksdb::IOStatus status = Logs()->SyncNewest(db->rep->GetName());
  if (!status.ok()) {
    *error = strdup(status.ToString().c_str());
  }
}

// For tests: as if the last sync of the write-ahead log had failed.
void klamm_rocksdb_spoil_log(rocksdb_t* db) noexcept { Logs()->SpoilNewest(db->rep->GetName()); }

// Lets go of the newest log of a database that is about to be closed.
void klamm_rocksdb_forget_log(rocksdb_t* db) noexcept { Logs()->Forget(db->rep->GetName()); }

// Drops column families and writes the options file once, where rocksdb_drop_column_family writes it for each.
// That the options file alone cannot be written is no error: the next change of the families writes it. After an error
// some of them may be dropped. error receives a text to be freed with rocksdb_free.
void klamm_rocksdb_drop_families(rocksdb_t* db, rocksdb_column_family_handle_t* const* handles, size_t count,
                                 char** error) noexcept {
  std::vector<rocksdb::ColumnFamilyHandle*> families;
  families.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    families.push_back(handles[i]->rep);
  }
  const auto was_dropped = [](const rocksdb::Status& status) {
    return status.IsInvalidArgument() && status.ToString().find("already dropped") != std::string::npos;
  };
  rocksdb::Status status = db->rep->DropColumnFamilies(families);
  if (!status.ok()) {
    // Which of them are not dropped?
    status = rocksdb::Status::OK();
    for (size_t i = 0; i < count && status.ok(); ++i) {
      status = db->rep->DropColumnFamily(families[i]);
      if (was_dropped(status)) {
        status = rocksdb::Status::OK();
      }
    }
  }
  if (!status.ok()) {
    *error = strdup(status.ToString().c_str());
  }
}

// Has the kernel begin to write what of a part of a file is dirty. Leaves it in the page cache.
int klamm_write_out(int fd, long long from, long long bytes) {
  return sync_file_range(fd, from, bytes, SYNC_FILE_RANGE_WRITE);
}

// How many pages of a part of a file are in the page cache (Linux 6.5 and later); -1: the kernel does not say.
long long klamm_cached_pages(int fd, unsigned long long from, unsigned long long bytes) {
  // As in linux/mman.h, which older systems lack, as they do the number of the call, which is one on every architecture.
  constexpr long kCacheStat = 451;
  struct {
    unsigned long long from, bytes;
  } part{from, bytes};
  struct {
    unsigned long long cached, dirty, writeback, evicted, recently_evicted;
  } found{};
  return syscall(kCacheStat, fd, &part, &found, 0) == 0 ? static_cast<long long>(found.cached) : -1;
}

}  // extern "C"
