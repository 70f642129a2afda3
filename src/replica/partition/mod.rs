//! One partition replica: its log behind a short lock, its role, its published view, and what waits for it.
//!
//! Order of effects is the order in which the lock was taken: offsets are given, the write is queued and the ack is
//! registered under it. The writer calls back in that same order, and only then does the view move (I-5).
//!
//! What is in memory runs ahead of what was queued. A write that fails takes the partition offline; one that is refused
//! for want of space leaves memory ahead for good, so nothing more is accepted until the log has been opened anew, as
//! the disk has it ([`Partition::open_anew`]).

mod append;
mod figures;
mod following;
mod home;
mod leading;
mod moving;
mod reopen;
mod replicated;
mod replication;
mod role;
mod truncate;
mod unreplicated;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard, RwLock};
use tokio::sync::Notify;
use tracing::{error, info};

pub(crate) use self::append::{Accepted, AckAt, AppendRefused};
pub(crate) use self::figures::Figures;
pub(crate) use self::following::{NotReplicated, Replicated};
pub(crate) use self::home::Home;
pub(crate) use self::leading::{Fetching, IsrChange, OutOfRange};
use self::replication::Replication;
use self::role::End;
pub(crate) use self::role::{NotTaken, Role};
use self::unreplicated::Unreplicated;
use super::ack::{AckError, AckQueue};
use super::change::{ChangeError, Changed};
use super::flush::{FlushTimer, Unsynced};
use super::news::{News, Sessions};
use super::surroundings::Surroundings;
use super::view::{PartitionView, Published};
use super::wait::{Stable, Waiters};
use crate::log::config::LogConfig;
use crate::log::partition_log::PartitionLog;
use crate::log::reading::read::LogReader;
use crate::metrics::Traffic;
pub(crate) use crate::storage::Unwritten;
use crate::storage::{self, PartitionId, Queued, StorageError, Write, WriteSet};
use crate::types::{BrokerId, LeaderEpoch, LogOpening, Offset, PartitionEpoch};

#[derive(Debug)]
struct State {
    log: PartitionLog,
    home: Home,
    /// How often the log has changed its directory since it was opened, there and back included. What was queued
    /// before says nothing of the log any more.
    moved: u64,
    opening: LogOpening,
    role: Role,
    leading: bool,
    /// The epoch with which this broker began to lead, if it leads: there was no gap since.
    leading_since: LeaderEpoch,
    min_insync_replicas: usize,
    unsynced: Unsynced,
    /// acks=1, waiting for their write.
    written: AckQueue,
    /// acks=all, waiting for the high watermark.
    replicated: AckQueue,
    /// As long as others follow.
    unreplicated: Unreplicated,
    /// A write failed: nothing more is accepted (I-6). If only space was missing the log is opened anew once there
    /// is some.
    failed: Option<AckError>,
    /// Its log directory has failed, as Kafka's offline partitions'.
    dir_failed: bool,
    /// The log is being opened anew.
    reopening: bool,
    /// The partition is being deleted or the broker stops.
    closed: bool,
    /// StopReplica came, without deletion; the next role ends that.
    stopped: bool,
    end: End,
}

impl State {
    /// This broker leads others, whose positions count for the high watermark.
    fn is_followed(&self) -> bool {
        self.leading && self.role.replicas.len() > 1
    }
}

/// A partition replica.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    surroundings: Arc<Surroundings>,
    cleaner: Arc<Notify>,
    reader: RwLock<Arc<LogReader>>,
    state: Mutex<State>,
    /// After `state`, where both are taken.
    repl: Mutex<Replication>,
    view: Published,
    /// Fetches that wait for the high watermark.
    pub(crate) waiters: Waiters,
    /// Fetch sessions of followers.
    sessions: Sessions,
    /// Told when a follower's log start has moved, and when the role changes.
    low_watermark_moved: Notify,
    pub(crate) traffic: Traffic,
}

/// What a partition tells of the work it leaves for later.
#[derive(Debug, Clone)]
pub(crate) struct Upkeep {
    /// Wakes the log cleaner.
    pub(crate) cleaner: Arc<Notify>,
    /// Of its log directory.
    pub(crate) flush: Arc<FlushTimer>,
}

/// What became readable.
#[derive(Debug, Clone, Copy)]
struct Moved {
    stable: Stable,
    /// Bytes that the high watermark passed, where others follow; `None`: not known.
    readable: Option<i64>,
}

/// How the last stable offset moved.
fn stable_move(before: &PartitionView, after: &PartitionView) -> Stable {
    let follows = |view: &PartitionView| view.last_stable_offset == view.high_watermark;
    if follows(before) && follows(after) {
        Stable::Follows
    } else if before.last_stable_offset == after.last_stable_offset {
        Stable::Stays
    } else {
        Stable::Jumps
    }
}

fn check_changeable(state: &State) -> Result<(), ChangeError> {
    match &state.failed {
        _ if state.closed => Err(ChangeError::Closed),
        Some(failed) => Err(ChangeError::Failed(failed.clone())),
        None if state.log.is_being_truncated() => Err(ChangeError::Truncating),
        None => Ok(()),
    }
}

impl Partition {
    /// A replica over an open log; it leads nothing until told.
    pub(crate) fn new(
        surroundings: Arc<Surroundings>,
        id: PartitionId,
        home: Home,
        upkeep: Upkeep,
        mut log: PartitionLog,
    ) -> Arc<Self> {
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        // What lies above it may be on no other replica. A leader alone has the rest as soon as it leads.
        let high_watermark = log.checkpointed_high_watermark().unwrap_or(start);
        let view = PartitionView {
            log_start_offset: start,
            last_stable_offset: log.last_stable_offset(high_watermark),
            high_watermark,
            log_end_offset: end,
            leader_epoch: LeaderEpoch::NONE,
            leading: false,
            offline: false,
        };
        let reader = log.reader();
        let role = Role {
            leader: None,
            leader_epoch: LeaderEpoch::NONE,
            isr: Vec::new(),
            partition_epoch: PartitionEpoch::NONE,
            replicas: Vec::new(),
        };
        let unsynced = Unsynced::new(upkeep.flush, log.config(), start, end);
        let state = State {
            log,
            home,
            moved: 0,
            opening: LogOpening(0),
            role,
            leading: false,
            leading_since: LeaderEpoch::NONE,
            min_insync_replicas: 1,
            unsynced,
            written: AckQueue::default(),
            replicated: AckQueue::default(),
            unreplicated: Unreplicated::default(),
            failed: None,
            dir_failed: false,
            reopening: false,
            closed: false,
            stopped: false,
            end: End::Whole,
        };
        Arc::new(Self {
            id,
            surroundings,
            cleaner: upkeep.cleaner,
            reader: RwLock::new(Arc::new(reader)),
            state: Mutex::new(state),
            repl: Mutex::new(Replication::new()),
            view: Published::new(view),
            waiters: Waiters::default(),
            sessions: Sessions::default(),
            low_watermark_moved: Notify::new(),
            traffic: Traffic::default(),
        })
    }

    /// The log directory it lies in.
    pub(crate) fn dir_path(&self) -> PathBuf {
        self.state.lock().home.dir.path()
    }

    /// Where its log lies.
    pub(crate) fn home(&self) -> Home {
        self.state.lock().home.clone()
    }

    /// Its log's mark says so by now.
    pub(crate) fn set_generation(&self, generation: u64) {
        self.state.lock().home.generation = generation;
    }

    #[cfg(test)]
    pub(crate) fn surroundings_for_test(&self) -> &Surroundings {
        &self.surroundings
    }

    /// The broker that this replica is of.
    pub(crate) fn me(&self) -> BrokerId {
        self.surroundings.me
    }

    pub(crate) fn view(&self) -> PartitionView {
        self.view.get()
    }

    pub(crate) fn reader(&self) -> Arc<LogReader> {
        Arc::clone(&self.reader.read())
    }

    /// Current role; for control requests and tests.
    pub(crate) fn role(&self) -> Role {
        self.state.lock().role.clone()
    }

    /// The log may have lost its end: see [`NotTaken::EndLost`]. Before it takes its first role. `before`: the leader
    /// epoch that the partition had when this process had no part in it yet; without it the first one is refused.
    pub(crate) fn doubt_its_end(&self, before: Option<LeaderEpoch>) {
        self.state.lock().end = End::InDoubt(before);
    }

    /// Whether its log may have lost its end, and nobody was told yet: neither a leader, by a fetch, nor readers, by a
    /// new epoch. It must not write what its opening found to be lost.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.state.lock().end != End::Whole
    }

    /// Whether it was asked to lead and waits for a later epoch to do so.
    pub(crate) fn waits_for_an_epoch(&self) -> bool {
        matches!(self.state.lock().end, End::Refused(_))
    }

    /// Why nothing is written to the log any more until it is opened by another start, if so.
    pub(crate) fn failure(&self) -> Option<String> {
        match &self.state.lock().failed {
            Some(failed @ AckError::Storage(_)) => Some(failed.to_string()),
            Some(AckError::Full | AckError::NotLeader | AckError::NotEnoughAfterAppend) | None => None,
        }
    }

    /// Whether a LeaderAndIsr of this epoch has nothing to say any more.
    pub(crate) fn has_taken(&self, epoch: LeaderEpoch) -> bool {
        let state = self.state.lock();
        epoch < state.role.leader_epoch || (epoch == state.role.leader_epoch && !state.stopped)
    }

    /// Takes a role. The caller has refused stale leader epochs; a stale version of the state changes nothing. Leading
    /// under a new epoch records where it starts, even without data; the outcome is that record's. If it is refused for
    /// want of space the role holds and the record follows when the log is opened anew. Source: Kafka 3.9
    /// `Partition.makeLeader`, `makeFollower`.
    pub(crate) fn take_role(self: &Arc<Self>, role: Role) -> Result<Queued, NotTaken> {
        let mut state = self.state.lock();
        if role.partition_epoch < state.role.partition_epoch {
            return Err(NotTaken::Outdated);
        }
        let leading = role.leader == Some(self.surroundings.me);
        state.end.take(&role, leading)?;
        let new_epoch = role.leader_epoch > state.role.leader_epoch;
        if leading && !state.leading {
            state.leading_since = role.leader_epoch;
        }
        let anew = new_epoch || !state.leading;
        state.leading = leading;
        state.stopped = false;
        state.role = role;
        self.replicate(&mut state, anew);
        let mut writes = Vec::new();
        // A log that waits to be opened anew notes the epoch then.
        if leading && new_epoch && state.failed.is_none() {
            let epoch = state.role.leader_epoch;
            state.log.assign_epoch(epoch, &mut writes);
        }
        if !leading {
            state.written.fail_all(&AckError::NotLeader);
            state.replicated.fail_all(&AckError::NotLeader);
        }
        self.publish(&mut state);
        let recorded = self.queue_change(&state, writes);
        drop(state);
        self.wake_all();
        Ok(recorded)
    }

    /// Has the followers' side follow the role. `anew`: what was known of them is not any more.
    fn replicate(&self, state: &mut State, anew: bool) {
        let mut repl = self.repl.lock();
        if !state.leading {
            return repl.resign();
        }
        repl.min_isr = self.needed_isr(state);
        // What is given out and not written may yet be refused, and no follower will ever have it.
        repl.lead(&state.role, anew, state.log.written_end_offset(), &self.surroundings);
        if anew {
            state.unreplicated.begin(state.log.written_end_offset());
        }
    }

    /// Every fetch that waits here must look again.
    fn wake_all(&self) {
        self.waiters.wake_all();
        self.sessions.tell(News::Look);
        self.low_watermark_moved.notify_waiters();
    }

    fn needed_isr(&self, state: &State) -> usize {
        state.min_insync_replicas.min(state.role.replicas.len()).max(1)
    }

    /// A write has returned; called by the writer, in commit order. `moved`: of the state when it was queued.
    fn on_committed(&self, moved: u64, last_offset: Offset, bytes: i64, result: Result<(), StorageError>) {
        let mut state = self.state.lock();
        match result {
            // It lies in the log that was left, and is in the present one's writes.
            _ if state.moved != moved => {}
            // An append before it was refused: what stands behind the hole is not shown, and cut off by `open_anew`.
            Ok(()) if state.failed.is_some() => {}
            Ok(()) => {
                state.log.on_written(last_offset);
                if state.is_followed() {
                    state.unreplicated.push(last_offset, bytes);
                    self.publish_and_tell(state);
                } else {
                    let moved = self.publish(&mut state);
                    drop(state);
                    self.waiters.add(bytes, moved.stable);
                }
            }
            Err(failure) => self.fail(state, failure, "an append"),
        }
    }

    /// A write was refused or has failed; called in commit order. Acks of what stands behind it are refused too: it is
    /// not shown, and is cut off when the log is opened anew.
    fn fail(&self, mut state: MutexGuard<'_, State>, failure: StorageError, what: &str) {
        let failure = AckError::from(failure);
        if state.failed.is_none() {
            error!(partition = %self.name(), %failure,
                "{what} was not written; the partition takes no more of them until it is opened again");
        }
        let unwritten_from = state.log.written_end_offset();
        state.written.fail_from(unwritten_from, &failure);
        state.replicated.fail_from(unwritten_from, &failure);
        // A directory that stops is worse than one without space.
        if state.failed.is_none() || matches!(failure, AckError::Storage(_)) {
            state.failed = Some(failure);
        }
        drop(state);
        self.wake_all();
    }

    /// This log directory has stopped, whichever partition met it first: nothing can be written here either, and what
    /// others lead by now is not read here. False: the log does not lie there, or no longer.
    pub(crate) fn on_dir_failed(&self, dir: &Path, failure: &StorageError) -> bool {
        let failure = AckError::from(failure.clone());
        let mut state = self.state.lock();
        if state.home.dir.path() != dir {
            return false;
        }
        let unwritten_from = state.log.written_end_offset();
        state.written.fail_from(unwritten_from, &failure);
        state.replicated.fail_from(unwritten_from, &failure);
        state.failed = Some(failure);
        state.dir_failed = true;
        self.publish(&mut state);
        drop(state);
        self.wake_all();
        true
    }

    /// As Kafka names it.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.id.topic, self.id.partition)
    }

    /// The one place where positions are published and waiting acks are answered.
    fn publish(&self, state: &mut State) -> Moved {
        self.publish_following(state, Offset::ZERO)
    }

    /// [`Self::publish`]; where another leads, the high watermark rises to `told`.
    fn publish_following(&self, state: &mut State, told: Offset) -> Moved {
        let before = self.view.get();
        let log_end_offset = state.log.written_end_offset();
        // Held until the view is published: whoever joins the ISR must have what lies below the high watermark.
        let mut repl = state.is_followed().then(|| self.repl.lock());
        if let Some(repl) = &mut repl
            && log_end_offset > before.log_end_offset
        {
            repl.followers.leader_moves_from(before.log_end_offset);
        }
        let high_watermark = match &repl {
            Some(repl) => repl.high_watermark(log_end_offset, before.high_watermark, &self.surroundings),
            // The only replica. It stays while that is not in the ISR (I-8).
            None if state.leading && state.role.isr.len() == 1 => log_end_offset,
            None if state.leading => before.high_watermark,
            None => before.high_watermark.max(told),
        };
        let log_start_offset = state.log.log_start_offset();
        let high_watermark = high_watermark.max(log_start_offset).min(log_end_offset);
        assert!(high_watermark >= before.high_watermark || before.high_watermark > log_end_offset, "I-8");
        let view = PartitionView {
            log_start_offset,
            last_stable_offset: state.log.last_stable_offset(high_watermark),
            high_watermark,
            log_end_offset,
            leader_epoch: state.role.leader_epoch,
            leading: state.leading,
            offline: state.dir_failed,
        };
        self.view.set(view);
        if repl.is_some() {
            self.tell_followers(&before, &view);
        }
        let enough = repl.is_none_or(|repl| repl.has_enough());
        state.written.pass(log_end_offset);
        state.replicated.pass_with(high_watermark, if enough { &Ok(()) } else { &Err(AckError::NotEnoughAfterAppend) });
        let readable =
            if state.is_followed() { state.unreplicated.pass(before.high_watermark, high_watermark) } else { None };
        Moved { stable: stable_move(&before, &view), readable }
    }

    /// Whoever fetches in a session learns of it; a change of the role is told by [`Self::wake_all`].
    fn tell_followers(&self, before: &PartitionView, after: &PartitionView) {
        if after.log_end_offset > before.log_end_offset {
            self.sessions.tell(News::Look);
        } else if (after.high_watermark, after.log_start_offset) != (before.high_watermark, before.log_start_offset) {
            self.sessions.tell(News::Positions);
        }
    }

    /// Queues what a change of the log wants written. Memory is ahead of it already, so a refusal marks the partition,
    /// whether or not a caller waits. Nothing is written for a closed partition: its family may be on its way to
    /// another one.
    fn queue_change(self: &Arc<Self>, state: &State, mut writes: Vec<Write>) -> Queued {
        if writes.is_empty() || state.closed {
            return Queued::nothing();
        }
        // What is changed is what memory has, and that is more than what is written.
        writes.push(Write::RestsOn { family: state.home.family });
        let (partition, moved) = (Arc::downgrade(self), state.moved);
        storage::commit_noting(&*state.home.dir, WriteSet { writes, sync: false }, move |outcome| {
            if let (Err(failure), Some(partition)) = (outcome, partition.upgrade()) {
                let state = partition.state.lock();
                if state.moved == moved {
                    partition.fail(state, failure.clone(), "a change of the log");
                }
            }
        })
    }

    /// New settings of the topic.
    pub(crate) fn set_config(&self, config: LogConfig, min_insync_replicas: usize) {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.unsynced.reconfigured(state.log.config(), &config);
        state.log.set_config(config);
        state.min_insync_replicas = min_insync_replicas;
        self.repl.lock().min_isr = self.needed_isr(state);
        self.publish_and_tell(guard);
    }

    /// Runs `change` on the log under the lock and queues what it wants written. The view follows at once, because
    /// only positions that move forward without new data (the log start) change this way; if the write is refused they
    /// go back when the log is opened anew. Refused itself while an earlier write stands out like that.
    pub(crate) fn change_log<T>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut PartitionLog, PartitionView, &mut Vec<Write>) -> T,
    ) -> Result<Changed<T>, ChangeError> {
        let mut state = self.state.lock();
        check_changeable(&state)?;
        let mut writes = Vec::new();
        let value = change(&mut state.log, self.view.get(), &mut writes);
        self.publish(&mut state);
        let queued = self.queue_change(&state, writes);
        Ok(Changed::new(value, queued))
    }

    /// Queues what replaces or removes batches without a change of the log in memory, such as a step of a compaction:
    /// a refusal concerns the caller alone.
    pub(crate) fn rewrite(&self, writes: impl FnOnce(&PartitionLog) -> Vec<Write>) -> Result<Queued, ChangeError> {
        let state = self.state.lock();
        check_changeable(&state)?;
        let writes = writes(&state.log);
        if writes.is_empty() {
            return Ok(Queued::nothing());
        }
        Ok(storage::commit(&*state.home.dir, WriteSet { writes, sync: false }))
    }

    /// Records the high watermark, if others have replicas: a single one has its log end for it.
    pub(crate) fn checkpoint_high_watermark(self: &Arc<Self>) -> Result<Changed<()>, ChangeError> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        check_changeable(state)?;
        let mut writes = Vec::new();
        if state.role.replicas.len() > 1 {
            state.log.checkpoint_high_watermark(self.view.get().high_watermark, &mut writes);
        }
        Ok(Changed::new((), self.queue_change(state, writes)))
    }

    /// Looks at the log under the lock.
    pub(crate) fn with_log<T>(&self, look: impl FnOnce(&PartitionLog) -> T) -> T {
        look(&self.state.lock().log)
    }

    /// See [`PartitionLog::facts`].
    #[cfg(test)]
    pub(crate) fn facts(&self) -> crate::log::testing::Facts {
        let high_watermark = self.view().high_watermark;
        self.state.lock().log.facts(high_watermark)
    }

    /// Waits until everything queued so far is written and its waiters were woken. Blocking.
    #[cfg(test)]
    pub(crate) fn wait_for_writes(&self) -> Result<(), StorageError> {
        storage::barrier(&*self.home().dir)
    }

    /// Lets the directory give back the space of batches below the log start.
    pub(crate) fn reclaim_below(&self, log_start_offset: Offset) {
        let home = self.home();
        home.dir.reclaim(home.family, Offset::ZERO..log_start_offset);
    }

    /// StopReplica without deletion: neither leads nor follows until the next role. Waiting acks are answered.
    pub(crate) fn stop_following(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        self.resign(state);
    }

    /// No more appends, for ever; waiting acks are answered. First step of deletion and of an orderly stop.
    pub(crate) fn close(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        self.resign(state);
        info!(partition = %self.name(), "closed");
    }

    fn resign(&self, mut state: MutexGuard<'_, State>) {
        state.leading = false;
        state.written.fail_all(&AckError::NotLeader);
        state.replicated.fail_all(&AckError::NotLeader);
        self.repl.lock().resign();
        self.publish(&mut state);
        drop(state);
        self.wake_all();
    }
}
