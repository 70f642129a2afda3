//! Group commit: one writer per directory merges the write sets queued meanwhile into one write.
//!
//! While a group is written the next one gathers, so no timer is needed: a lone set is written at once, and under load
//! groups grow by themselves. The writer is a thread; but where it sleeps and little is queued, the thread that queued
//! that writes it itself ([`Writer::write_queued`]), which saves two task switches. Whoever writes holds the writer
//! lock, and takes sets only with it or before anybody else could: order is that of [`Queue::push`], for the writes as
//! for `Done` (I-1). After a failed write or sync nothing more is written (I-6).
//!
//! `queue` holds the sets and the writer lock · `state` is what the lock guards · `group` writes one group ·
//! `activity` counts for the memory budget · `watch` notices a write that hangs on a request's thread.

mod activity;
mod group;
mod queue;
mod state;
mod watch;

use std::sync::Arc;

use self::group::GroupWriter;
pub(super) use self::queue::Queue;
use self::state::WriterState;
use self::watch::Watch;
use super::database::Database;
use super::families::Families;
use super::growing::ingest::Growing;
use crate::storage::{Family, Write, WriteSet};
use crate::task;

/// Writes what is queued, on its own thread and on those of requests.
pub(super) struct Writer {
    database: Arc<Database>,
    families: Arc<Families>,
    growing: Arc<Growing>,
    queue: Arc<Queue>,
    watch: Watch,
}

impl Writer {
    /// For writes on the threads of the runtime at hand.
    pub(super) fn new(
        database: Arc<Database>,
        families: Arc<Families>,
        growing: Arc<Growing>,
        queue: Arc<Queue>,
    ) -> Self {
        Self { database, families, growing, queue, watch: Watch::new() }
    }

    /// Body of the writer's thread.
    pub(super) fn run(&self) {
        let mut group = Vec::new();
        while self.queue.take(&mut group) {
            self.growing.writer_came();
            self.group_writer(&mut self.queue.lock(), true).write_group(&mut group, &self.queue);
        }
    }

    /// Body of the thread that watches over writes on threads of requests.
    pub(super) fn run_watch(&self) {
        self.watch.run();
    }

    /// Writes on the calling thread what is queued, if that is little and the writer sleeps; wakes it otherwise. Not to
    /// be called under a lock that a `Done` may take.
    pub(super) fn write_queued(&self) {
        // The writer's thread alone waits for the disk.
        let waits = self.database.is_overdrawn() || self.database.has_left_logs();
        if waits || self.growing.tables_lag() || self.growing.wants_writer() {
            return self.queue.wake();
        }
        if let Some((mut held, mut group)) = self.queue.take_little(|set| self.waits_for_a_table(set)) {
            let write = || self.group_writer(&mut held, false).write_group(&mut group, &self.queue);
            task::as_owner("storage-writer", || self.watch.over(write));
        }
    }

    /// Whether a batch of it is for the log, of a family that has a table which must be brought to the disk first.
    fn waits_for_a_table(&self, set: &WriteSet) -> bool {
        set.writes.iter().any(|write| match write {
            Write::Batch { family, in_order: true, .. } => self.families.state(*family).tables().has_unsynced(),
            _ => false,
        })
    }

    /// Nothing more is written to the tables that a family has. Waits for the group that is being written.
    pub(super) fn seal_tables(&self, family: Family) {
        self.queue.lock().routing.seal_last(&self.growing, family);
    }

    /// Waits for the group that is being written.
    pub(super) fn wait(&self) {
        drop(self.queue.lock());
    }

    /// Lets the thread that watches end.
    pub(super) fn close(&self) {
        self.watch.close();
    }

    fn group_writer<'a>(&'a self, held: &'a mut WriterState, may_wait: bool) -> GroupWriter<'a> {
        GroupWriter { database: &self.database, families: &self.families, growing: &self.growing, held, may_wait }
    }
}
