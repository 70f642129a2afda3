//! RocksDB's options, each with its reason. Measurements: `rocksdb.md`, sections 8–10, and `compat-tests/perf/`.

use std::sync::Arc;

use rocksdb::{DBCompressionType, DBRecoveryMode, InfoLogger, LogLevel, Options};
use tracing::{debug, warn};

use super::boot_record::BootRecord;
use super::raw::{self, BlockCache, TableFormat, WriteBuffer};
use crate::storage::InDoubt;

/// What the broker decides about a directory.
#[derive(Debug, Clone)]
pub(crate) struct DirectoryOptions {
    /// Memory that few active partitions share for what is not yet in files. More of them raise the budget, up to
    /// `write_buffer_bytes_max`.
    pub(crate) write_buffer_bytes: usize,
    pub(crate) write_buffer_bytes_max: usize,
    /// Memory for blocks and indexes of files.
    pub(crate) block_cache_bytes: usize,
    /// Files held open.
    pub(crate) open_files_max: i32,
    /// Files of partitions, besides one for each half of a large file's bytes, that are left as flushes wrote them.
    /// More are merged.
    pub(crate) files_allowed: usize,
    /// Families at most. Each may hold a descriptor of its own until the next start.
    pub(crate) families_max: usize,
    /// Write-ahead logs that are written over again rather than deleted: their pages are there already. Each takes up
    /// to the memory budget in bytes on disk.
    pub(crate) recycled_logs: usize,
    /// What brings so many bytes for one family in one group is large, and goes to a growing table.
    pub(crate) table_piece_bytes: usize,
    /// A growing table is handed over at this size.
    pub(crate) table_bytes: u64,
    /// Growing tables at most, and the bytes in them: each holds a descriptor, and a start after a kill reads them.
    pub(crate) tables_max: usize,
    pub(crate) tables_bytes_max: u64,
    /// How much of the tables, of what was written last, is left in the page cache for consumers behind the tail.
    /// `None`: what the kernel keeps.
    pub(crate) cached: Option<CachedBytes>,
    /// RocksDB's own files, which that does not count, bypass the page cache where the file system lets them.
    pub(crate) files_bypass_page_cache: bool,
    /// How many tables these may be: each holds a descriptor.
    pub(crate) cached_tables_max: usize,
    /// How many tables replies may hold at once: each holds a descriptor, and its space on the disk once it is deleted.
    pub(crate) lent_tables_max: usize,
    /// Batches are refused while the file system has less left than this, so that deleting always works.
    /// [`RESERVE_BY_DISK`]: a twentieth of the file system, at most 1 GiB.
    pub(crate) disk_reserve_bytes: u64,
    /// It was last written to under this boot of the machine: all that an earlier process wrote is there, unless it was
    /// damaged since.
    pub(crate) is_same_boot: bool,
    /// Save for these.
    pub(crate) in_doubt: Arc<InDoubt>,
    /// What says so, if anything does: it is asked once the directory is locked.
    pub(crate) record: Option<Arc<dyn BootRecord>>,
    /// How a test makes the disk fail.
    #[cfg(test)]
    pub(crate) faults: Arc<super::failure::DiskFaults>,
}

/// The write-ahead log may hold this many times the budget: enough that memory, not the log, decides when a family is
/// flushed, and little enough that replaying it takes a moment.
pub(super) const WAL_PER_BUDGET: usize = 2;

/// What may stay in the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CachedBytes {
    pub(crate) max: u64,
    /// So much from the beginning; of the rest one byte for every sixteen that are written.
    pub(crate) at_once: u64,
}

/// A reserve that follows from the size of the file system.
pub(crate) const RESERVE_BY_DISK: u64 = u64::MAX;

impl Default for DirectoryOptions {
    fn default() -> Self {
        Self {
            write_buffer_bytes: 64 << 20,
            write_buffer_bytes_max: 256 << 20,
            block_cache_bytes: 16 << 20,
            open_files_max: 1024,
            files_allowed: 16_384,
            families_max: 20_000,
            recycled_logs: 4,
            table_piece_bytes: 8 << 10,
            table_bytes: 64 << 20,
            tables_max: 256,
            tables_bytes_max: 1 << 30,
            cached: Some(CachedBytes { max: 512 << 20, at_once: 512 << 20 }),
            files_bypass_page_cache: false,
            cached_tables_max: 256,
            lent_tables_max: 128,
            disk_reserve_bytes: RESERVE_BY_DISK,
            is_same_boot: false,
            in_doubt: Arc::default(),
            record: None,
            #[cfg(test)]
            faults: Arc::default(),
        }
    }
}

impl DirectoryOptions {
    /// What fits a file system of this size and so many descriptors: the log and the buffer it feeds must not fill a
    /// small disk, and running out of descriptors would take the directory offline.
    pub(super) fn fit(mut self, disk_bytes: u64, descriptors: u64) -> Self {
        let open_files = i32::try_from(descriptors / 8).unwrap_or(i32::MAX).max(OPEN_FILES_MIN);
        self.open_files_max = self.open_files_max.min(open_files);
        self.families_max = self.families_max.min(usize::try_from(descriptors / 2).unwrap_or(usize::MAX));
        let share =
            |divisor: u64| usize::try_from(disk_bytes / divisor).unwrap_or(usize::MAX).max(WRITE_BUFFER_BYTES_MIN);
        self.write_buffer_bytes = self.write_buffer_bytes.min(share(32));
        self.write_buffer_bytes_max = self.write_buffer_bytes_max.min(share(32)).max(self.write_buffer_bytes);
        self.table_bytes = self.table_bytes.min(share(32) as u64);
        self.tables_bytes_max = self.tables_bytes_max.min(share(16) as u64);
        let tables_max = usize::try_from(descriptors / 16).unwrap_or(usize::MAX);
        self.tables_max = self.tables_max.min(tables_max);
        self.cached_tables_max = self.cached_tables_max.min(tables_max / 2);
        let of_disk = usize::try_from(disk_bytes / 32 / self.table_bytes.max(1)).unwrap_or(usize::MAX);
        self.lent_tables_max = self.lent_tables_max.min(tables_max / 2).min(of_disk.max(8));
        if self.disk_reserve_bytes == RESERVE_BY_DISK {
            self.disk_reserve_bytes = (disk_bytes / 20).min(1 << 30);
        }
        if disk_bytes < RECYCLING_DISK_BYTES_MIN {
            self.recycled_logs = 0;
        }
        self
    }
}

const OPEN_FILES_MIN: i32 = 32;
const RECYCLING_DISK_BYTES_MIN: u64 = 16 << 30;
const WRITE_BUFFER_BYTES_MIN: usize = 1 << 20;
const MANIFEST_BYTES_MIN: usize = 1 << 20;

/// Options of the database as a whole.
#[allow(deprecated, reason = "max_background_jobs gives three threads of four to compactions, which are few here")]
pub(super) fn database(
    options: &DirectoryOptions,
    write_buffer: &WriteBuffer,
    direct_io: bool,
    log: impl Fn(&str) + Send + Sync + 'static,
) -> Options {
    let mut db = Options::default();
    db.create_if_missing(true);
    db.create_missing_column_families(true);
    write_buffer.attach(&mut db);
    db.set_max_total_wal_size((options.write_buffer_bytes * WAL_PER_BUDGET) as u64);
    // A torn end of the log is cut; nothing after a damaged record is replayed.
    db.set_wal_recovery_mode(DBRecoveryMode::PointInTime);
    // Else a loss of power could take the end of a log and leave the next one.
    raw::sync_logs_in_order(&mut db);
    // Handing the log to the disk in small steps keeps the sync at its end short.
    db.set_wal_bytes_per_sync(1 << 20);
    // Allocating and freeing the log's pages is a tenth of what a produced byte costs. Records of the file's former
    // life carry its former number, where recovery stops.
    db.set_recycle_log_file_num(options.recycled_logs);
    // Where pages are dear, copying into fresh ones was more than half of all CPU time. Elsewhere who reads what was
    // just produced finds it in memory.
    db.set_use_direct_io_for_flush_and_compaction(direct_io);
    // Handing a file to the disk in small steps, too.
    db.set_bytes_per_sync(1 << 20);
    // A flush mostly waits for the disk; a second one beside it keeps up with a fast writer. One compaction is enough,
    // and one merge, which counts as a compaction, must not keep files from moving down.
    db.set_max_background_flushes(2);
    db.set_max_background_compactions(2);
    db.set_max_open_files(options.open_files_max);
    // Few files are opened at the start; sixteen threads, the default, cost more than they save.
    db.set_max_file_opening_threads(1);
    // Statistics of files serve nothing here and cost a read of each file at open.
    db.set_skip_stats_update_on_db_open(true);
    db.set_stats_dump_period_sec(0);
    db.set_stats_persist_period_sec(0);
    // Obsolete files are deleted by background threads, never by a reader or the writer.
    db.set_avoid_unnecessary_blocking_io(true);
    // It is written anew once it is six times as long as it need be, but not below this; the default, 1 GiB, would be
    // read at each start.
    db.set_max_manifest_file_size(MANIFEST_BYTES_MIN);
    // One writes at a time: nothing to pipeline, nobody to insert concurrently with.
    db.set_allow_concurrent_memtable_write(false);
    db.set_enable_write_thread_adaptive_yield(false);
    // RocksDB's own log goes into ours, so that no LOG files pile up.
    db.set_info_logger(InfoLogger::new_callback_logger(LogLevel::Warn, move |level, text| {
        log(text);
        match level {
            LogLevel::Warn if is_expected(text) => debug!(target: "rocksdb", "{}", text.trim_end()),
            LogLevel::Warn | LogLevel::Error | LogLevel::Fatal => warn!(target: "rocksdb", "{}", text.trim_end()),
            LogLevel::Debug | LogLevel::Info | LogLevel::Header => debug!(target: "rocksdb", "{}", text.trim_end()),
        }
    }));
    db
}

/// What RocksDB warns of at every file that was grown outside: it has no identity, and ingestion guesses how long its
/// end is.
fn is_expected(warning: &str) -> bool {
    ["Tail prefetch size", "without unique ID to verify", "Failed to get SST unique id"]
        .iter()
        .any(|expected| warning.contains(expected))
}

/// Options of a partition's family: keys only grow, values are batches of some KiB that are compressed already.
pub(super) fn partition_family(options: &DirectoryOptions, write_buffer: &WriteBuffer, cache: &BlockCache) -> Options {
    let mut family = small_family(options, write_buffer, cache);
    // Files of one partition do not overlap: they move down unread, and one level below the first is enough.
    family.set_num_levels(2);
    // Down at once: a reader's seek looks into every file of the first level, a whole batch each (measured: 2.4 bytes
    // read for each one consumed with the usual four files), but into one file only of the level below.
    family.set_level_zero_file_num_compaction_trigger(1);
    // About one batch per block.
    TableFormat { block_bytes: 32 << 10 }.attach(&mut family, cache);
    family
}

/// Options of the families that hold small records under changing keys.
pub(super) fn small_family(options: &DirectoryOptions, write_buffer: &WriteBuffer, cache: &BlockCache) -> Options {
    let mut family = Options::default();
    write_buffer.attach(&mut family);
    family.set_write_buffer_size(options.write_buffer_bytes);
    // One buffer being flushed and one being filled. More lets a fast writer run ahead of a starved flush: measured at
    // 450 MiB instead of 130, and four times the log to replay.
    family.set_max_write_buffer_number(2);
    // The default, an eighth of the buffer, is megabytes for every family that holds one record. An entry above a
    // quarter of a block gets an allocation of its own, and batches tend to be a little above 16 KiB.
    family.set_arena_block_size(128 << 10);
    family.set_compression_type(DBCompressionType::None);
    family.set_target_file_size_base(64 << 20);
    TableFormat { block_bytes: 4 << 10 }.attach(&mut family, cache);
    family
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_descriptors_mean_few_open_files_and_families() {
        let few = DirectoryOptions::default().fit(100 << 30, 1024);
        assert_eq!((few.open_files_max, few.families_max), (128, 512));
        let many = DirectoryOptions::default().fit(100 << 30, u64::MAX);
        assert_eq!((many.open_files_max, many.families_max), (1024, 20_000));
    }

    #[test]
    fn a_small_file_system_gets_small_buffers_and_a_small_reserve() {
        let small = DirectoryOptions::default().fit(64 << 20, 1 << 20);
        assert_eq!((small.write_buffer_bytes, small.write_buffer_bytes_max), (2 << 20, 2 << 20));
        assert_eq!((small.disk_reserve_bytes, small.recycled_logs), ((64 << 20) / 20, 0));
        let large = DirectoryOptions::default().fit(100 << 30, 1 << 20);
        assert_eq!((large.write_buffer_bytes, large.write_buffer_bytes_max), (64 << 20, 256 << 20));
        assert_eq!(large.disk_reserve_bytes, 1 << 30);
    }
}
