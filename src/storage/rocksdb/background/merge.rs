//! Merging small files, so that their number stays in proportion to what is stored.
//!
//! A flush writes one file for each partition that was written to, a few MiB with a hundred of them and less with a
//! thousand, and RocksDB moves it to its place unread. What it does under its lock at every flush, what it keeps in
//! memory and what it reads at a start all grow with the number of files; it lists every file it ever moved until that
//! is deleted (RocksDB's issue 5640). So beyond a number of files neighbours are rewritten as one, those first that
//! cost the fewest bytes for each file less. Below that number, and on a log that retention deletes in time, each byte
//! is written to a file once.

use std::ops::{Range, RangeInclusive};

use tracing::debug;

use crate::storage::rocksdb::database::{BackgroundJob, Database, SortedFile};
use crate::storage::rocksdb::families::Families;
use crate::storage::{Family, StorageError};
use crate::types::Offset;

/// A merged file has at most so many bytes: its index is loaded as a whole, and retention deletes whole files.
const MERGED_BYTES_MAX: u64 = 64 << 20;

/// So many files become one.
const RUN_FILES: RangeInclusive<usize> = 4..=16;

/// Each so many stored bytes allow one file more: half of what merged files have.
const BYTES_PER_FILE_ALLOWED: u64 = MERGED_BYTES_MAX / 2;

/// Merging begins above the number of files that is allowed and goes on until it is this part below it.
const SLACK_DIVISOR: usize = 8;

/// Neighbours among a family's files.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    files: Range<usize>,
    bytes: u64,
}

impl Run {
    /// What one file less costs, in bytes to write.
    fn price(&self) -> u64 {
        self.bytes / (self.files.len() as u64 - 1)
    }
}

/// The neighbours that are the cheapest to merge, the first of them if there are several.
fn cheapest_run(file_bytes: &[u64]) -> Option<Run> {
    let mut best: Option<Run> = None;
    for start in 0..file_bytes.len() {
        let mut run = Run { files: start..start, bytes: 0 };
        for (index, bytes) in file_bytes.iter().enumerate().skip(start).take(*RUN_FILES.end()) {
            if run.bytes + bytes > MERGED_BYTES_MAX {
                break;
            }
            run = Run { files: start..index + 1, bytes: run.bytes + bytes };
        }
        if RUN_FILES.contains(&run.files.len()) && best.as_ref().is_none_or(|best| run.price() < best.price()) {
            best = Some(run);
        }
    }
    best
}

/// A merge to do.
struct Merge {
    family: Family,
    files: Vec<SortedFile>,
    bytes: u64,
    price: u64,
}

/// Merges files of partitions' families.
#[derive(Debug, Clone, Copy)]
pub(super) struct Merger<'a> {
    pub(super) database: &'a Database,
    pub(super) families: &'a Families,
}

impl Merger<'_> {
    /// Begins to merge if there are too many files.
    pub(super) fn look_after_files(&self) {
        let files = self.count_files();
        if files > self.database.options().files_allowed && files > self.files_allowed() {
            self.database.jobs().add(BackgroundJob::MergeFiles);
        }
    }

    /// Merges for a moment, so that other jobs get their turn, and comes back for more until there are few enough.
    pub(super) fn merge_files(&self) -> Result<(), StorageError> {
        let allowed = self.files_allowed();
        let enough = allowed - allowed / SLACK_DIVISOR;
        let mut surplus = self.count_files().saturating_sub(enough);
        let mut merges = if surplus > 0 { self.plan_merges() } else { Vec::new() };
        merges.sort_by_key(|merge| merge.price);
        let mut left_bytes = MERGED_BYTES_MAX;
        for merge in merges {
            if surplus == 0 || merge.bytes > left_bytes || self.database.jobs().is_closing() {
                break;
            }
            self.database.writable()?;
            if !self.database.has_room_for(merge.bytes) {
                return Ok(());
            }
            // A family that was wiped meanwhile, or whose files were dropped. What is wrong with the disk stops the
            // directory at its next write.
            let Some(cf) = self.database.try_cf(merge.family) else { continue };
            if let Err(error) = self.database.db().merge(cf, &merge.files) {
                debug!(dir = %self.database.dir().display(), family = merge.family.0, %error, "files not merged");
                continue;
            }
            surplus = surplus.saturating_sub(merge.files.len() - 1);
            left_bytes -= merge.bytes;
        }
        if surplus > 0 && left_bytes < MERGED_BYTES_MAX {
            self.database.jobs().add(BackgroundJob::MergeFiles);
        }
        Ok(())
    }

    /// For each family its cheapest merge.
    fn plan_merges(&self) -> Vec<Merge> {
        let of_family = |family| {
            if self.database.stays_as_it_is(family) {
                return None;
            }
            let files = self.database.db().sorted_files(self.database.try_cf(family)?);
            let bytes: Vec<u64> = files.iter().map(|file| file.bytes).collect();
            let run = cheapest_run(&bytes)?;
            Some(Merge { family, bytes: run.bytes, price: run.price(), files: files[run.files].to_vec() })
        };
        self.kept_families().filter_map(of_family).collect()
    }

    /// Families but those of deleted partitions. One may be dropped at any time, once it is free.
    fn kept_families(&self) -> impl Iterator<Item = Family> {
        self.families.numbers().map(Family).filter(|family| self.families.state(*family).start() < Offset::MAX)
    }

    fn count_files(&self) -> usize {
        self.kept_families()
            .filter_map(|family| Some(self.database.db().sorted_file_count(self.database.try_cf(family)?)))
            .sum()
    }

    fn files_allowed(&self) -> usize {
        let bytes = |family| self.database.db().property(self.database.try_cf(family)?, "rocksdb.live-sst-files-size");
        let stored: u64 = self.kept_families().filter_map(bytes).sum();
        self.database.options().files_allowed + usize::try_from(stored / BYTES_PER_FILE_ALLOWED).unwrap_or(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::storage::contract::{commit, delete, partition, scan};
    use crate::storage::rocksdb::{DirectoryOptions, Parts, RocksDirectory};
    use crate::storage::{LogDir as _, contract};

    const MIB: u64 = 1 << 20;

    #[test]
    fn small_neighbours_are_the_cheapest() {
        let mut files = vec![20 * MIB; 10];
        assert_eq!(cheapest_run(&files), None, "three fit into one, which is not worth it");
        files.extend([MIB; 20]);
        assert_eq!(cheapest_run(&files), Some(Run { files: 10..26, bytes: 16 * MIB }));
        files.splice(15..15, [60 * MIB]);
        assert_eq!(cheapest_run(&files), Some(Run { files: 16..31, bytes: 15 * MIB }), "only neighbours");
    }

    #[test]
    fn what_is_merged_stays_within_its_bounds() {
        assert_eq!(cheapest_run(&[]), None);
        assert_eq!(cheapest_run(&[MIB; 3]), None);
        assert_eq!(cheapest_run(&[MIB; 4]), Some(Run { files: 0..4, bytes: 4 * MIB }));
        assert_eq!(cheapest_run(&[12 * MIB; 9]), Some(Run { files: 0..5, bytes: 60 * MIB }));
        assert_eq!(cheapest_run(&[65 * MIB; 9]), None);
    }

    /// A directory with a file for each of the offsets, in each of the families.
    fn with_files(path: &std::path::Path, families: usize, offsets: Range<i64>) -> (Arc<RocksDirectory>, Vec<Family>) {
        let options = DirectoryOptions { disk_reserve_bytes: 0, files_allowed: 16, ..DirectoryOptions::default() };
        let dir = RocksDirectory::open(path, options).expect("open");
        let wanted: Vec<_> = (0..families).map(|n| partition(&format!("t{n}"), 0)).collect();
        let families = dir.create(&wanted).expect("create");
        let files = count(&dir) + families.len() * offsets.clone().count();
        for offset in offsets {
            for family in &families {
                let batch = contract::batch(*family, offset, &offset.to_be_bytes());
                commit(&*dir, vec![batch], false).expect("written");
            }
            dir.with(|parts| parts.database.flush_all()).expect("flush");
        }
        // Files move down in the background.
        while count(&dir) < files {
            std::thread::sleep(Duration::from_millis(1));
        }
        (dir, families)
    }

    fn merger(parts: &Parts) -> Merger<'_> {
        Merger { database: &parts.database, families: &parts.families }
    }

    fn count(dir: &RocksDirectory) -> usize {
        dir.with(|parts| Ok(merger(parts).count_files())).expect("open")
    }

    /// As background jobs do, until nothing is left to merge.
    fn merge_all(dir: &RocksDirectory) {
        dir.with(|parts| {
            merger(parts).look_after_files();
            (0..100).try_for_each(|_| merger(parts).merge_files())
        })
        .expect("merged");
    }

    #[test]
    fn many_small_files_become_few_and_hold_the_same() {
        let place = tempfile::tempdir().expect("tempdir");
        let (dir, families) = with_files(place.path(), 2, 0..40);
        let before: Vec<_> = families.iter().map(|family| scan(&*dir, *family, 0)).collect();
        assert_eq!(count(&dir), 80);
        merge_all(&dir);
        assert!(count(&dir) <= 16, "{}", count(&dir));
        let after: Vec<_> = families.iter().map(|family| scan(&*dir, *family, 0)).collect();
        assert_eq!(before, after);
        dir.close();
        let (again, families) = with_files(place.path(), 2, 0..0);
        assert_eq!(before, families.iter().map(|family| scan(&*again, *family, 0)).collect::<Vec<_>>());
    }

    #[test]
    fn few_files_are_left_alone() {
        let place = tempfile::tempdir().expect("tempdir");
        let (dir, _) = with_files(place.path(), 1, 0..12);
        merge_all(&dir);
        assert_eq!(count(&dir), 12);
    }

    #[test]
    fn what_was_deleted_does_not_come_back() {
        let place = tempfile::tempdir().expect("tempdir");
        let (dir, families) = with_files(place.path(), 1, 0..40);
        commit(&*dir, vec![delete(families[0], 0..10)], false).expect("written");
        commit(&*dir, vec![delete(families[0], 30..40)], false).expect("written");
        merge_all(&dir);
        let offsets: Vec<i64> = scan(&*dir, families[0], 0).into_iter().map(|(last_offset, _)| last_offset).collect();
        assert_eq!(offsets, (10..30).collect::<Vec<_>>());
    }
}
