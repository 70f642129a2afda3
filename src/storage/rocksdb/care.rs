//! Chores that nobody waits for: filling the pool, wiping families, dropping and merging files, adjusting the memory
//! budget.
//!
//! One thread per directory does them one after the other and sleeps while there are none ([`Jobs`]).

use std::sync::Arc;
use std::thread::JoinHandle;

use super::Shared;
use super::growing::{ingest, page_cache};
#[cfg(doc)]
use super::jobs::Jobs;
use super::jobs::Taken;
use crate::storage::{Family, StorageError};
use crate::task;
use crate::types::Offset;

/// Something to do in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Chore {
    FillPool,
    /// Drop families that are free if there are many.
    ShrinkPool,
    /// There is a growing table: start the threads that look after them.
    BeginTables,
    /// A deleted partition's family, by number.
    Wipe(u32),
    /// Files below the start of this family's log.
    DropFiles(Family),
    /// Write the memtables to files, to shorten the write-ahead log on a disk that is nearly full.
    FlushAll,
    /// There are too many files: make one of several.
    MergeFiles,
    /// Another stretch of bytes was written, to so many families: set the memory budget for that, and see whether
    /// there are too many files.
    WindowEnded {
        active: usize,
    },
}

/// Body of the thread.
pub(super) fn run(shared: Arc<Shared>) {
    let mut threads = Vec::new();
    while let Some(chores) = shared.chores.take() {
        if let Some(begin) = chores.iter().find(|taken| taken.job == Chore::BeginTables) {
            let outcome = begin_tables(&shared, &mut threads);
            shared.settle_job(&shared.chores, *begin, outcome);
        }
        shared.do_chores(&chores);
    }
    for thread in threads {
        thread.join().expect("a panic would have ended the process");
    }
}

/// Starts the threads that growing tables need, those that do not run yet. A directory without tables needs none.
fn begin_tables(shared: &Arc<Shared>, threads: &mut Vec<JoinHandle<()>>) -> std::io::Result<()> {
    if threads.is_empty() {
        let for_ingest = Arc::clone(shared);
        threads.push(task::thread("storage-ingest", move || ingest::run(&for_ingest))?);
    }
    if threads.len() == 1 {
        let for_cache = Arc::clone(shared);
        threads.push(task::thread("storage-cache", move || page_cache::run(&for_cache))?);
    }
    Ok(())
}

impl Shared {
    fn do_chores(&self, chores: &[Taken<Chore>]) {
        // What says that files may go must be on the disk before they go, or a loss of power would leave a partition
        // with a hole. One sync serves all; a start that moves after it waits for the next.
        let starts: Vec<Offset> = chores.iter().map(|taken| self.start_of(taken.job)).collect();
        let needs_sync = |taken: &Taken<Chore>| matches!(taken.job, Chore::Wipe(_) | Chore::DropFiles(_));
        let synced = if chores.iter().any(needs_sync) { self.sync_log() } else { Ok(()) };
        for (taken, start) in chores.iter().zip(starts) {
            if self.chores.is_closing() {
                return;
            }
            if taken.job == Chore::BeginTables {
                continue;
            }
            let ready = if needs_sync(taken) { synced.clone() } else { Ok(()) };
            let outcome = ready.and_then(|()| self.writable()).and_then(|()| self.do_chore(taken.job, start));
            self.settle_job(&self.chores, *taken, outcome);
            self.note_manifest();
        }
        self.page_cache.forget_deleted();
    }

    fn do_chore(&self, chore: Chore, start: Offset) -> Result<(), StorageError> {
        match chore {
            // Done already.
            Chore::BeginTables => Ok(()),
            Chore::FillPool => self.grow_pool(0, self.families.missing(), 0),
            Chore::ShrinkPool => self.shrink_pool(),
            Chore::Wipe(number) => self.wipe(number),
            Chore::DropFiles(family) => self.drop_files_below_start(family, start),
            Chore::FlushAll => self.flush_all(),
            Chore::MergeFiles => self.merge_files(),
            Chore::WindowEnded { active } => {
                self.look_after_files();
                self.set_budget(active)
            }
        }
    }

    fn start_of(&self, chore: Chore) -> Offset {
        match chore {
            Chore::DropFiles(family) => self.families.state(family).start(),
            _ => Offset::ZERO,
        }
    }
}
