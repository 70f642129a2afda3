//! Cutting a follower's log off where it parts from its leader's.
//!
//! Only the fetcher of a partition appends to it and calls this, one after the other, and the partition is led only
//! after its fetcher has let go of it: so nothing is appended meanwhile. Everything else that changes a log is refused
//! while it is cut ([`ChangeError::Truncating`]); a compaction that began before finds that it is no longer about this
//! log. The lock is not held while the disk is read or written.
//!
//! 1. what is queued is waited for, or it would come to stand behind the cut;
//! 2. growing tables are handed over: a cut inside of one might leave what a later start takes for its batches;
//! 3. what the log is to be is worked out beside it;
//! 4. one set makes it so on the disk, and it is synced. Before it a kill leaves the old log, after it the new one;
//! 5. the log in memory becomes that, the view goes back, and readers look again.
//!
//! Source: Kafka 3.9 `UnifiedLog.truncateTo`, `truncateFullyAndStartAt`, `Partition.truncateTo`.

use std::sync::Arc;

use tracing::{info, warn};

use super::{Partition, State, check_changeable};
use crate::clock::UnixMs;
use crate::log::partition_log::Truncation;
use crate::replica::change::ChangeError;
use crate::storage::{self, Queued, StorageError, WriteSet};
use crate::types::{LeaderEpoch, LogOpening, Offset};

#[cfg(test)]
mod tests;

/// What a truncation leaves.
#[derive(Debug, Clone, Copy)]
enum Leaves {
    /// Whole batches that end at or below this offset.
    UpTo(Offset),
    /// Nothing; the log begins anew here.
    NothingBut(Offset),
}

impl Partition {
    /// Removes every batch that contains or follows `to`; gives the new log end, which lies below `to` where a batch
    /// contains that, and where the log was shorter. The log start goes back with the end. Terms that begin there go
    /// even if no batch does. For the partition's fetcher. Blocks on the disk, perhaps for long.
    ///
    /// # Errors
    /// The log is as it was, but for [`ChangeError::Unwritten`] of a directory that has stopped: then the next start
    /// finds it so or cut.
    #[cfg_attr(not(test), allow(dead_code, reason = "the follower calls it"))]
    pub(crate) fn truncate_to(self: &Arc<Self>, to: Offset, now: UnixMs) -> Result<Offset, ChangeError> {
        self.truncate(Leaves::UpTo(to), now)
    }

    /// Removes everything: the log begins anew at `offset`, empty, and so does its high watermark. Otherwise as
    /// [`Self::truncate_to`].
    #[cfg_attr(not(test), allow(dead_code, reason = "the follower calls it"))]
    pub(crate) fn truncate_fully_and_start_at(
        self: &Arc<Self>,
        offset: Offset,
        now: UnixMs,
    ) -> Result<(), ChangeError> {
        self.truncate(Leaves::NothingBut(offset), now).map(drop)
    }

    /// Where this log is to be cut: another one, which is right, has `epoch` as its largest that is not above our last,
    /// and that ended there. To be asked again afterwards, for an older epoch may be the first that they share.
    /// Source: Kafka 3.9 `AbstractFetcherThread.getOffsetTruncationState`.
    pub(crate) fn truncation_offset(&self, epoch: LeaderEpoch, their_end: Offset) -> Offset {
        let end = self.view().log_end_offset;
        match self.with_log(|log| log.end_offset_for_epoch(epoch)) {
            Some((known, ours)) if known == epoch => ours.min(their_end).min(end),
            // Our history has no such epoch: cut to where an older one ended.
            Some((_, ours)) => ours.min(end),
            None => their_end.min(end),
        }
    }

    fn truncate(self: &Arc<Self>, leaves: Leaves, now: UnixMs) -> Result<Offset, ChangeError> {
        // After a disk was full this gives a log back that takes changes.
        self.open_anew(now)?;
        let hold = self.hold()?;
        // It stays where it is while it is held.
        let home = self.home();
        storage::barrier(&*home.dir)?;
        let takes_batches = match leaves {
            Leaves::UpTo(to) => to < self.state.lock().log.log_end_offset(),
            Leaves::NothingBut(_) => true,
        };
        if takes_batches {
            home.dir.settle(home.family)?;
        }
        let mut truncation = {
            let mut state = self.state.lock();
            hold.check(&state)?;
            state.log.begin_truncation()
        };
        match leaves {
            Leaves::UpTo(to) => truncation.cut(to, now)?,
            Leaves::NothingBut(offset) => truncation.start_at(offset, now),
        }
        let queued = self.queue_truncation(&hold, &mut truncation)?;
        if let Err(failure) = queued.wait() {
            if !matches!(failure, StorageError::Full { .. }) {
                self.fail(self.state.lock(), failure.clone(), "a truncation");
            }
            return Err(failure.into());
        }
        Ok(self.end_truncation(&hold, truncation))
    }

    /// From now on nothing else changes the log.
    fn hold(self: &Arc<Self>) -> Result<Hold<'_>, ChangeError> {
        let mut state = self.state.lock();
        check_changeable(&state)?;
        if state.leading {
            return Err(ChangeError::Leads);
        }
        state.log.announce_truncation();
        Ok(Hold { partition: self, opening: state.opening })
    }

    fn queue_truncation(&self, hold: &Hold<'_>, truncation: &mut Truncation) -> Result<Queued, ChangeError> {
        let state = self.state.lock();
        // The family of a closed one may be on its way to another partition.
        hold.check(&state)?;
        let writes = truncation.take_writes();
        // Without a sync a loss of power might bring back what was cut off, behind what is appended now.
        Ok(storage::commit(&*state.home.dir, WriteSet { writes, sync: true }))
    }

    /// The truncation is on the disk.
    fn end_truncation(&self, hold: &Hold<'_>, truncation: Truncation) -> Offset {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        assert!(!state.leading, "a partition is led only after its fetcher has let go of it");
        assert!(state.opening == hold.opening, "a log that did not fail is not opened anew");
        let before = self.view.get();
        state.log.end_truncation(truncation);
        state.unsynced.refused();
        let (log_start_offset, log_end_offset) = (state.log.log_start_offset(), state.log.log_end_offset());
        if log_end_offset < before.high_watermark {
            // A leader outside of the ISR was elected, or one that had lost what it had.
            warn!(partition = %self.name(), %log_end_offset, high_watermark = %before.high_watermark,
                "truncated below the high watermark");
        }
        info!(partition = %self.name(), %log_start_offset, %log_end_offset, was = %before.log_end_offset, "truncated");
        self.publish(state);
        drop(guard);
        self.waiters.wake_all();
        log_end_offset
    }
}

/// While it lives the log of a partition is changed by a truncation alone.
#[derive(Debug)]
struct Hold<'a> {
    partition: &'a Partition,
    /// Which opening of the log it is about.
    opening: LogOpening,
}

impl Hold<'_> {
    /// Whether the truncation may go on.
    fn check(&self, state: &State) -> Result<(), ChangeError> {
        match check_changeable(state) {
            // Which this is.
            Err(ChangeError::Truncating) if state.leading => Err(ChangeError::Leads),
            Err(ChangeError::Truncating) if state.opening == self.opening => Ok(()),
            // It was opened anew meanwhile, and is not held.
            Ok(()) => Err(ChangeError::Truncating),
            refused => refused,
        }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        self.partition.state.lock().log.abandon_truncation();
    }
}
