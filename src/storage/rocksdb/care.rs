//! Chores that nobody waits for: filling the pool, wiping families, dropping and merging files, adjusting the memory
//! budget.
//!
//! One thread per directory does them one after the other and sleeps while there are none. A chore that fails has
//! either stopped the directory, which is logged there, or is done again at the next start.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};
use tracing::debug;

use super::Shared;
use crate::storage::{Family, StorageError};

/// Something to do in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chore {
    FillPool,
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
    while let Some(chores) = shared.chores.take() {
        if let Err(error) = shared.do_chores(chores) {
            debug!(%error, "chores not done");
        }
    }
}

impl Shared {
    fn do_chores(&self, chores: VecDeque<Chore>) -> Result<(), StorageError> {
        // What says that files may go must be on the disk before they go, or a loss of power would leave a partition
        // with a hole. One sync serves all.
        if chores.iter().any(|chore| matches!(chore, Chore::Wipe(_) | Chore::DropFiles(_))) {
            self.db.flush_wal(true).map_err(|error| self.stop(&error))?;
        }
        for chore in chores {
            if self.chores.is_closing() {
                break;
            }
            self.writable()?;
            match chore {
                Chore::FillPool => self.grow_pool(0, self.families.missing())?,
                Chore::Wipe(number) => self.wipe(number)?,
                Chore::DropFiles(family) => self.drop_files_below_start(family)?,
                Chore::FlushAll => self.flush_all()?,
                Chore::MergeFiles => self.merge_files()?,
                Chore::WindowEnded { active } => {
                    self.set_budget(active)?;
                    self.look_after_files();
                }
            }
            self.note_manifest();
        }
        Ok(())
    }
}
