//! What nobody waits for: filling the pool, wiping families, dropping and merging files, adjusting the memory budget.
//!
//! One thread per directory does these jobs one after the other and sleeps while there are none. Any floor adds some
//! to [`Database::jobs`]. `merge` is the longest of them.

mod merge;

use std::sync::Arc;
use std::thread::JoinHandle;

use self::merge::Merger;
use super::database::{BackgroundJob, Database, Taken};
use super::families::Families;
use super::growing::ingest::Growing;
use crate::storage::{Family, StorageError};
use crate::task;
use crate::types::Offset;

/// Does the background jobs.
pub(super) struct Background {
    database: Arc<Database>,
    families: Arc<Families>,
    growing: Arc<Growing>,
}

impl Background {
    pub(super) fn new(database: Arc<Database>, families: Arc<Families>, growing: Arc<Growing>) -> Self {
        Self { database, families, growing }
    }

    /// Body of the thread.
    pub(super) fn run(&self) {
        let mut threads = Vec::new();
        while let Some(jobs) = self.database.jobs().take() {
            if let Some(begin) = jobs.iter().find(|taken| taken.job == BackgroundJob::BeginTables) {
                let outcome = self.begin_tables(&mut threads);
                self.database.settle_job(self.database.jobs(), *begin, outcome);
            }
            self.do_jobs(&jobs);
        }
        for thread in threads {
            thread.join().expect("a panic would have ended the process");
        }
    }

    /// Starts the threads that growing tables need, those that do not run yet. A directory without tables needs none.
    fn begin_tables(&self, threads: &mut Vec<JoinHandle<()>>) -> std::io::Result<()> {
        if threads.is_empty() {
            let growing = Arc::clone(&self.growing);
            threads.push(task::thread("storage-ingest", move || growing.run())?);
        }
        if threads.len() == 1 {
            let growing = Arc::clone(&self.growing);
            threads.push(task::thread("storage-cache", move || growing.run_page_cache())?);
        }
        Ok(())
    }

    fn do_jobs(&self, jobs: &[Taken<BackgroundJob>]) {
        let database = &*self.database;
        // What says that files may go must be on the disk before they go, or a loss of power would leave a partition
        // with a hole. One sync serves all; a start that moves after it waits for the next.
        let starts: Vec<Offset> = jobs.iter().map(|taken| self.start_of(taken.job)).collect();
        let needs_sync =
            |taken: &Taken<BackgroundJob>| matches!(taken.job, BackgroundJob::Wipe(_) | BackgroundJob::DropFiles(_));
        let synced = if jobs.iter().any(needs_sync) { database.sync_log() } else { Ok(()) };
        for (taken, start) in jobs.iter().zip(starts) {
            if database.jobs().is_closing() {
                return;
            }
            if taken.job == BackgroundJob::BeginTables {
                continue;
            }
            let ready = if needs_sync(taken) { synced.clone() } else { Ok(()) };
            let outcome = ready.and_then(|()| database.writable()).and_then(|()| self.do_job(taken.job, start));
            database.settle_job(database.jobs(), *taken, outcome);
            database.note_manifest();
        }
        self.growing.page_cache().forget_deleted();
    }

    fn do_job(&self, job: BackgroundJob, start: Offset) -> Result<(), StorageError> {
        let merger = Merger { database: &self.database, families: &self.families };
        match job {
            // Done already.
            BackgroundJob::BeginTables => Ok(()),
            BackgroundJob::FillPool => self.families.fill_pool(),
            BackgroundJob::ShrinkPool => self.families.shrink_pool(),
            BackgroundJob::Wipe(number) => {
                self.growing.remove_tables(Family(number))?;
                self.families.wipe(number)
            }
            BackgroundJob::DropFiles(family) => self.drop_files_below_start(family, start),
            BackgroundJob::FlushAll => self.database.flush_all(),
            BackgroundJob::CountFiles => {
                merger.look_after_files();
                Ok(())
            }
            BackgroundJob::MergeFiles => merger.merge_files(),
            BackgroundJob::WindowEnded { active } => {
                merger.look_after_files();
                self.database.set_budget(active)
            }
        }
    }

    fn start_of(&self, job: BackgroundJob) -> Offset {
        match job {
            BackgroundJob::DropFiles(family) => self.families.state(family).start(),
            _ => Offset::ZERO,
        }
    }

    /// Removes the files that lie below a log's start as a whole. `synced`: the start, or an earlier one, that is on
    /// the disk.
    pub(super) fn drop_files_below_start(&self, family: Family, synced: Offset) -> Result<(), StorageError> {
        let Some(first_kept) = self.families.first_kept(family, synced) else { return Ok(()) };
        self.growing.remove_dropped(family, first_kept)?;
        self.families.drop_files(family, first_kept, synced)
    }
}
