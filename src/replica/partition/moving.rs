//! A partition whose log moves to another directory of the broker while it is used.
//!
//! The log that is to take the place is a replica of its own, which follows nobody and is in no registry: the *future*
//! log. It is filled as a follower is (`replica/moves.rs`). Once it is level it takes the place in one step under the
//! locks of both, without a pause in the appends ([`Partition::hand_over`]):
//!
//! 1. what it lacks is in memory and goes with one set to the new directory, and with it a mark that says that the
//!    place is taken;
//! 2. what is appended from then on is queued behind that set, and what the old directory still writes counts no more;
//! 3. when the set is written, readers change over too. Until then they read what the old log has, which is all that
//!    was shown.
//!
//! The mark is the moment that counts on the disk. A kill before it leaves the old log whole, which has all that
//! was acknowledged; after it the new one, which has that too. If the set is not written the old log takes its
//! place again, and is opened anew: what was appended meanwhile was not acknowledged. Where the new directory has
//! failed the mark may be on its disk all the same, so the old log has a later one before it takes anything.
//!
//! Lock order: the partition's state, then that of the future log.
//! Source: Kafka 3.9 `Partition.maybeReplaceCurrentWithFutureReplica`, which lets appends wait.

use std::sync::Arc;

use tracing::{error, info, warn};

use super::role::End;
use super::{Partition, Role, State, check_changeable};
use crate::clock::UnixMs;
use crate::log::kept::KeptBytes;
use crate::replica::ack::AckError;
use crate::replica::change::ChangeError;
use crate::replica::marks::{self, Mark};
use crate::storage::{self, Queued, StorageError, WriteSet};
use crate::types::{LeaderEpoch, Offset};

impl Partition {
    /// How often the end of the log was cut off. What was read while this stays the same is of one history. `None`: it
    /// is being cut, has failed, is closed, or has no role yet.
    pub(crate) fn cuts(&self) -> Option<u64> {
        let state = self.state.lock();
        let settled = check_changeable(&state).is_ok() && state.role.leader_epoch != LeaderEpoch::NONE;
        settled.then(|| state.log.cuts())
    }

    /// Takes over from which leader epochs on batches may come. For a future log.
    pub(crate) fn take_epoch_of(self: &Arc<Self>, current: &Role) {
        if self.state.lock().role.leader_epoch == current.leader_epoch {
            return;
        }
        let role = Role { leader: None, isr: Vec::new(), replicas: Vec::new(), ..current.clone() };
        // Nothing is recorded where nobody leads. A role of an older state changes nothing.
        drop(self.take_role(role));
    }

    /// What is written from now on is kept in memory for a future log, as far as there is room for `all`.
    pub(crate) fn keep_written(&self, all: &Arc<KeptBytes>) {
        self.state.lock().log.keep_written(all);
    }

    /// There is no future log any more.
    pub(crate) fn keep_no_more(&self) {
        self.state.lock().log.keep_no_more();
    }

    /// Whether something is being written. Of a follower whose appends have been waited for it is the set with which
    /// its log takes another place.
    pub(crate) fn is_being_written(&self) -> bool {
        let state = self.state.lock();
        state.failed.is_none() && state.log.written_end_offset() < state.log.log_end_offset()
    }

    /// Has the log of `future`, which has the place and the log of this one afterwards and is closed. `cuts`: of this
    /// log, when the other was found to be of the same history. Gives the outcome of the write that takes the place;
    /// `None`: not now.
    ///
    /// # Errors
    /// One of the two takes no changes.
    pub(crate) fn hand_over(
        self: &Arc<Self>,
        future: &Arc<Self>,
        cuts: u64,
        now: UnixMs,
    ) -> Result<Option<Queued>, ChangeError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        check_changeable(state)?;
        let may = !state.stopped && state.end == End::Whole && state.role.leader_epoch != LeaderEpoch::NONE;
        if !may || state.log.cuts() != cuts {
            return Ok(None);
        }
        let mut future_guard = future.state.lock();
        let next = &mut *future_guard;
        check_changeable(next)?;
        if next.home.dir.is_full() {
            return Ok(None);
        }
        let mut writes = Vec::new();
        match next.log.succeed(&mut state.log, self.view.get().high_watermark, now, &mut writes) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) => {
                warn!(partition = %self.name(), %error, "the log does not move; it is tried again");
                // What is known of it is taken back, as after a write that was refused.
                next.failed = Some(AckError::Full);
                return Ok(None);
            }
        }
        writes.push(marks::put(&self.id, Mark::Moved(next.home.generation)));
        change_places(state, next);
        next.closed = true;
        let config = *state.log.config();
        state.unsynced.queued(&config);
        let (partition, moved, end) = (Arc::downgrade(self), state.moved, state.log.log_end_offset());
        let left = Arc::clone(future);
        // With a sync: what appends asked for that are on their way, and the old log may go after it.
        let queued = storage::commit_noting(&*state.home.dir, WriteSet { writes, sync: true }, move |outcome| {
            if let Some(partition) = partition.upgrade() {
                partition.on_handed_over(&left, moved, end, outcome);
            }
        });
        Ok(Some(queued))
    }

    /// The write that takes the place has returned; called by its writer, before any later one of the log.
    fn on_handed_over(self: &Arc<Self>, left: &Self, moved: u64, end: Offset, outcome: &Result<(), StorageError>) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.moved != moved {
            return;
        }
        match outcome {
            Ok(()) => {
                *self.reader.write() = Arc::new(state.log.reader());
                state.log.on_written(end + -1);
                if state.is_followed() {
                    state.unreplicated.begin(end);
                }
                info!(partition = %self.name(), dir = %state.home.dir.path().display(), "the log has moved");
            }
            Err(failure) => {
                warn!(partition = %self.name(), dir = %state.home.dir.path().display(), %failure,
                    "the log has not moved; it stays where it was");
                Self::take_place_again(state, left);
            }
        }
        self.publish(state);
        drop(guard);
        self.wake_all();
    }

    /// The log that was left is the one that counts. Nothing is taken until [`Self::end_failed_move`].
    fn take_place_again(state: &mut State, left: &Self) {
        let mut left = left.state.lock();
        change_places(state, &mut left);
        // What was read or verified meanwhile was so of that log.
        state.log.take_over(&mut left.log);
        drop(left);
        state.unsynced.refused();
        // That of the other directory may have come here before.
        state.dir_failed = state.home.dir.failure().is_some();
        let unwritten_from = state.log.written_end_offset();
        state.written.fail_from(unwritten_from, &AckError::Full);
        state.replicated.fail_from(unwritten_from, &AckError::Full);
        state.failed = Some(AckError::Full);
        state.reopening = true;
    }

    /// After the write that takes the place has failed: the log goes on where it was. `left`: the log that failed to
    /// take it. Blocks on the disk.
    ///
    /// # Errors
    /// It does not go on, and is offline, or for want of space goes on later.
    pub(crate) fn end_failed_move(
        self: &Arc<Self>,
        left: &Self,
        failure: &StorageError,
        now: UnixMs,
    ) -> Result<(), ChangeError> {
        if !matches!(failure, StorageError::Full { .. }) {
            // The other's mark may be there all the same, and must not count.
            let generation = left.home().generation + 1;
            let writes = vec![marks::put(&self.id, Mark::Moved(generation))];
            let marked = storage::commit(&*self.home().dir, WriteSet { writes, sync: true }).wait();
            let mut state = self.state.lock();
            match marked {
                Ok(()) => state.home.generation = generation,
                Err(failure) => {
                    error!(partition = %self.name(), %failure, "the log cannot go on where it was; it is offline");
                    // For want of space, too: nothing may be acknowledged here.
                    state.failed = Some(AckError::Storage(failure.to_string()));
                    return Err(failure.into());
                }
            }
        }
        self.state.lock().reopening = false;
        // What was refused is taken back.
        self.open_anew(now)
    }

    /// Reads under way of the log that is here. For one that was left.
    pub(crate) fn reads(&self) -> usize {
        self.with_log(crate::log::partition_log::PartitionLog::reads)
    }
}

/// The two have each other's log from now on, and what was queued for the one says nothing to it any more.
fn change_places(state: &mut State, other: &mut State) {
    std::mem::swap(&mut state.log, &mut other.log);
    std::mem::swap(&mut state.home, &mut other.home);
    std::mem::swap(&mut state.unsynced, &mut other.unsynced);
    state.moved += 1;
}
