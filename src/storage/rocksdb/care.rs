//! Chores that nobody waits for: filling the pool, wiping families, dropping and merging files, adjusting the memory
//! budget.
//!
//! One thread per directory does them one after the other and sleeps while there are none. A chore that fails has
//! either stopped the directory, which is logged there, or is done again at the next start.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;

use parking_lot::{Condvar, Mutex};
use tracing::debug;

use super::{Shared, ingest, page_cache};
use crate::storage::{Family, StorageError};
use crate::task;
use crate::types::Offset;

/// Something to do in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chore {
    FillPool,
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

/// The list of chores.
#[derive(Debug, Default)]
pub(super) struct Chores {
    list: Mutex<List>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct List {
    chores: VecDeque<Chore>,
    closing: bool,
}

impl Chores {
    /// Adds a chore unless the same one waits already.
    pub(super) fn add(&self, chore: Chore) {
        let mut list = self.list.lock();
        if !list.chores.contains(&chore) {
            list.chores.push_back(chore);
            self.changed.notify_one();
        }
    }

    /// Ends the thread after the chore at hand; what is left is found again at the next start.
    pub(super) fn close(&self) {
        self.list.lock().closing = true;
        self.changed.notify_one();
    }

    /// Waits for chores and takes all there are; `None` once closing.
    fn take(&self) -> Option<VecDeque<Chore>> {
        let mut list = self.list.lock();
        loop {
            if list.closing {
                return None;
            }
            if !list.chores.is_empty() {
                return Some(std::mem::take(&mut list.chores));
            }
            self.changed.wait(&mut list);
        }
    }

    /// Whether the thread is to end.
    pub(super) fn is_closing(&self) -> bool {
        self.list.lock().closing
    }
}

/// Body of the thread.
pub(super) fn run(shared: Arc<Shared>) {
    let mut threads = Vec::new();
    while let Some(chores) = shared.chores.take() {
        let started = if chores.contains(&Chore::BeginTables) { begin_tables(&shared, &mut threads) } else { Ok(()) };
        if let Err(error) = started.and_then(|()| shared.do_chores(chores)) {
            debug!(%error, "chores not done");
        }
    }
    for thread in threads {
        thread.join().expect("a panic would have ended the process");
    }
}

/// Starts the threads that growing tables need, the first time. A directory without tables does without them.
fn begin_tables(shared: &Arc<Shared>, threads: &mut Vec<JoinHandle<()>>) -> Result<(), StorageError> {
    if !threads.is_empty() {
        return Ok(());
    }
    let failed = |error| shared.stop_io("start a thread for", &shared.dir, &error);
    let (for_ingest, for_cache) = (Arc::clone(shared), Arc::clone(shared));
    threads.push(task::thread("storage-ingest", move || ingest::run(&for_ingest)).map_err(failed)?);
    threads.push(task::thread("storage-cache", move || page_cache::run(&for_cache)).map_err(failed)?);
    Ok(())
}

impl Shared {
    fn do_chores(&self, chores: VecDeque<Chore>) -> Result<(), StorageError> {
        // What says that files may go must be on the disk before they go, or a loss of power would leave a partition
        // with a hole. One sync serves all; a start that moves after it waits for the next.
        let starts: Vec<Offset> = chores.iter().map(|chore| self.start_of(*chore)).collect();
        if chores.iter().any(|chore| matches!(chore, Chore::Wipe(_) | Chore::DropFiles(_))) {
            self.sync_log()?;
        }
        for (chore, start) in chores.into_iter().zip(starts) {
            if self.chores.is_closing() {
                break;
            }
            self.writable()?;
            match chore {
                // Done already.
                Chore::BeginTables => {}
                Chore::FillPool => self.grow_pool(0, self.families.missing(), 0)?,
                Chore::Wipe(number) => self.wipe(number)?,
                Chore::DropFiles(family) => self.drop_files_below_start(family, start)?,
                Chore::FlushAll => self.flush_all()?,
                Chore::MergeFiles => self.merge_files()?,
                Chore::WindowEnded { active } => {
                    self.set_budget(active)?;
                    self.look_after_files();
                }
            }
            self.note_manifest();
        }
        self.page_cache.forget_deleted();
        Ok(())
    }

    fn start_of(&self, chore: Chore) -> Offset {
        match chore {
            Chore::DropFiles(family) => self.families.state(family).start(),
            _ => Offset::ZERO,
        }
    }
}
