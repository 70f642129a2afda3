//! One partition replica: its log behind a short lock, its role, its published view, and who waits for it.
//!
//! Order of effects is the order in which the lock was taken: offsets are given, the write is queued and the ack is
//! registered under it. Whoever writes calls back in that same order, and only then does the view move (I-5).
//!
//! What is in memory runs ahead of what was queued. A write that fails takes the partition offline; one that is refused
//! for want of space leaves memory ahead for good, so nothing more is accepted until the log has been opened anew, as
//! the disk has it ([`Partition::open_anew`]).

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tracing::{debug, error, info};

use super::ack::{Ack, AckError, AckQueue};
use super::change::{ChangeError, Changed};
use super::flush::{FlushTimer, Unsynced};
use super::view::{PartitionView, Published};
use super::wait::{Stable, Waiters};
use crate::clock::UnixMs;
use crate::log::config::LogConfig;
use crate::log::partition_log::{AppendError, Appended, PartitionLog};
use crate::log::reading::read::LogReader;
use crate::log::reading::tail::Tail;
use crate::record::ValidBatch;
pub(crate) use crate::storage::Unwritten;
use crate::storage::{self, Family, PartitionId, Queued, SharedLogDir, StorageError, Write, WriteSet};
use crate::task;
use crate::types::{
    BrokerId, Fence, LeaderEpoch, LogOpening, Offset, PartitionEpoch, ProducerEpoch, ProducerId, TransactionGuard,
    TransactionMarker,
};

/// Why an append was refused before it was given an offset.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("this broker does not lead the partition")]
    NotLeader,
    #[error("the ISR is smaller than min.insync.replicas")]
    NotEnoughReplicas,
    #[error("storage failed: {0}")]
    Storage(String),
    #[error("no space left above the disk reserve")]
    Full,
    #[error(transparent)]
    Log(#[from] AppendError),
}

/// An append that was given its offsets.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) appended: Appended,
    /// Its write. One who appends to several partitions keeps these until the last, so that all are written together.
    pub(crate) unwritten: Option<Unwritten>,
}

/// How far an append must have come before it is acknowledged.
#[derive(Debug)]
pub(crate) enum AckAt {
    /// acks=1, and acks=0 for the count of what is in flight: written by the leader.
    Written(Ack),
    /// acks=all: the high watermark has passed it (I-9).
    HighWatermark(Ack),
}

/// What this broker is to the partition, as LeaderAndIsr said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) leader: Option<BrokerId>,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) isr: Vec<BrokerId>,
    /// Version of the state that says so.
    pub(crate) partition_epoch: PartitionEpoch,
    pub(crate) replicas: Vec<BrokerId>,
}

/// Why a role was not taken. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error("a later version of the partition's state is known")]
    Outdated,
    /// The log may have lost its end, so it must not lead under an epoch in which it may have been longer: readers who
    /// have seen more would not notice. A later epoch will do.
    #[error("the log may have lost its end; it needs a new leader epoch")]
    EndLost,
}

/// Whether the log may have been longer once than it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    InDoubt,
    /// Asked to lead under this epoch at most, and refused.
    Refused(LeaderEpoch),
}

#[derive(Debug)]
struct State {
    log: PartitionLog,
    opening: LogOpening,
    role: Role,
    leading: bool,
    min_insync_replicas: usize,
    unsynced: Unsynced,
    /// acks=1, waiting for their write.
    written: AckQueue,
    /// acks=all, waiting for the high watermark.
    replicated: AckQueue,
    /// A write failed: nothing more is accepted (I-6). If only space was missing the log is opened anew once there
    /// is some.
    failed: Option<AckError>,
    /// Somebody opens the log anew.
    reopening: bool,
    /// The partition is being deleted or the broker stops.
    closed: bool,
    /// StopReplica came, without deletion; the next role ends that.
    stopped: bool,
    end: End,
}

/// A partition replica.
#[derive(Debug)]
pub(crate) struct Partition {
    pub(crate) id: PartitionId,
    pub(crate) family: Family,
    me: BrokerId,
    dir: SharedLogDir,
    tail: Arc<Tail>,
    cleaner: Arc<Notify>,
    reader: ArcSwap<LogReader>,
    state: Mutex<State>,
    view: Published,
    pub(crate) waiters: Waiters,
}

/// Whom a partition tells what it leaves for later.
#[derive(Debug, Clone)]
pub(crate) struct Upkeep {
    /// Wakes the log cleaner.
    pub(crate) cleaner: Arc<Notify>,
    /// Of its log directory.
    pub(crate) flush: Arc<FlushTimer>,
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
        None => Ok(()),
    }
}

impl Partition {
    /// A replica over an open log; it leads nothing until told.
    pub(crate) fn new(
        me: BrokerId,
        id: PartitionId,
        family: Family,
        dir: SharedLogDir,
        tail: Arc<Tail>,
        upkeep: Upkeep,
        mut log: PartitionLog,
    ) -> Arc<Self> {
        let (start, end) = (log.log_start_offset(), log.log_end_offset());
        let view = PartitionView {
            log_start_offset: start,
            last_stable_offset: log.last_stable_offset(end),
            high_watermark: end,
            log_end_offset: end,
            leader_epoch: LeaderEpoch::NONE,
            leading: false,
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
            opening: LogOpening(0),
            role,
            leading: false,
            min_insync_replicas: 1,
            unsynced,
            written: AckQueue::default(),
            replicated: AckQueue::default(),
            failed: None,
            reopening: false,
            closed: false,
            stopped: false,
            end: End::Whole,
        };
        Arc::new(Self {
            id,
            family,
            me,
            dir,
            tail,
            cleaner: upkeep.cleaner,
            reader: ArcSwap::from_pointee(reader),
            state: Mutex::new(state),
            view: Published::new(view),
            waiters: Waiters::default(),
        })
    }

    /// The log directory it lies in.
    pub(crate) fn dir_path(&self) -> PathBuf {
        self.dir.path()
    }

    pub(crate) fn view(&self) -> PartitionView {
        self.view.get()
    }

    pub(crate) fn reader(&self) -> Arc<LogReader> {
        self.reader.load_full()
    }

    /// Current role; for control requests and tests.
    pub(crate) fn role(&self) -> Role {
        self.state.lock().role.clone()
    }

    /// The log may have lost its end: see [`NotTaken::EndLost`]. Before it takes its first role.
    pub(crate) fn doubt_its_end(&self) {
        self.state.lock().end = End::InDoubt;
    }

    /// Whether it was asked to lead and waits for a later epoch to do so.
    pub(crate) fn waits_for_an_epoch(&self) -> bool {
        matches!(self.state.lock().end, End::Refused(_))
    }

    /// Why nothing is written to the log any more until it is opened by another start, if so.
    pub(crate) fn failure(&self) -> Option<String> {
        match &self.state.lock().failed {
            Some(failed @ AckError::Storage(_)) => Some(failed.to_string()),
            Some(AckError::Full | AckError::NotLeader) | None => None,
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
        let leading = role.leader == Some(self.me);
        match state.end {
            End::InDoubt if leading => {
                state.end = End::Refused(role.leader_epoch);
                return Err(NotTaken::EndLost);
            }
            End::Refused(refused) if leading && role.leader_epoch <= refused => return Err(NotTaken::EndLost),
            // A follower learns from its leader where its log ends; without a leader nothing is decided.
            End::InDoubt | End::Refused(_) if role.leader.is_none() => {}
            End::Whole | End::InDoubt | End::Refused(_) => state.end = End::Whole,
        }
        let new_epoch = role.leader_epoch > state.role.leader_epoch;
        state.leading = leading;
        state.stopped = false;
        state.role = role;
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
        self.waiters.wake_all();
        Ok(recorded)
    }

    /// Gives the batch its offsets and queues its write, which begins when [`Accepted::unwritten`] is dropped. The ack
    /// is answered after it, in offset order.
    ///
    /// `fence`: of an owner that has asked [`Self::may_append`] (coordinators). `guard`: of the verification that the
    /// producer's transaction includes this partition; see [`Self::begin_verification`].
    pub(crate) fn append(
        self: &Arc<Self>,
        batch: ValidBatch,
        ack: AckAt,
        fence: Option<Fence>,
        guard: Option<TransactionGuard>,
        now: UnixMs,
    ) -> Result<Accepted, Refusal> {
        self.append_with(ack, fence, now, |log, epoch, writes| log.append(batch, epoch, now, guard, writes))
    }

    /// Ends the open transaction of a producer, if there is one. Otherwise as [`Self::append`].
    pub(crate) fn append_marker(
        self: &Arc<Self>,
        marker: &TransactionMarker,
        ack: AckAt,
        fence: Option<Fence>,
        now: UnixMs,
    ) -> Result<Accepted, Refusal> {
        self.append_with(ack, fence, now, |log, epoch, writes| log.append_marker(marker, epoch, now, writes))
    }

    /// Before the coordinator is asked whether a producer's transaction includes this partition: what the append has to
    /// bring. `None`: the transaction is open here, nobody need be asked.
    pub(crate) fn begin_verification(&self, id: ProducerId, epoch: ProducerEpoch) -> Option<TransactionGuard> {
        let mut state = self.state.lock();
        match state.failed {
            Some(_) => Some(state.log.require_verification(id)),
            None => state.log.begin_verification(id, epoch),
        }
    }

    /// Whether an append with acks=all would be taken now, as far as can be told before; the opening of the log that
    /// its fence has to name. Source: our own; Kafka's coordinators learn it from the append.
    pub(crate) fn may_append(self: &Arc<Self>, epoch: LeaderEpoch, now: UnixMs) -> Result<LogOpening, Refusal> {
        let mut state = self.state.lock();
        self.admit(&mut state, Some(epoch), now)?;
        self.check_isr(&state)?;
        Ok(state.opening)
    }

    /// Refuses what cannot be appended, whatever it is.
    fn admit(self: &Arc<Self>, state: &mut State, epoch: Option<LeaderEpoch>, now: UnixMs) -> Result<(), Refusal> {
        if !state.leading || state.closed || epoch.is_some_and(|epoch| epoch != state.role.leader_epoch) {
            return Err(Refusal::NotLeader);
        }
        if self.dir.is_full() {
            return Err(Refusal::Full);
        }
        match &state.failed {
            Some(AckError::Full) => {
                self.open_anew_in_background(state, now);
                Err(Refusal::Full)
            }
            Some(failed) => Err(Refusal::Storage(failed.to_string())),
            None => Ok(()),
        }
    }

    fn check_isr(&self, state: &State) -> Result<(), Refusal> {
        let enough = state.role.isr.len() >= self.needed_isr(state);
        if enough { Ok(()) } else { Err(Refusal::NotEnoughReplicas) }
    }

    fn append_with(
        self: &Arc<Self>,
        ack: AckAt,
        fence: Option<Fence>,
        now: UnixMs,
        give_offsets: impl FnOnce(&mut PartitionLog, LeaderEpoch, &mut Vec<Write>) -> Result<Appended, AppendError>,
    ) -> Result<Accepted, Refusal> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        self.admit(state, fence.map(|fence| fence.epoch), now)?;
        if fence.is_some_and(|fence| fence.opening != state.opening) {
            // What it was to follow was refused.
            return Err(Refusal::Full);
        }
        if matches!(ack, AckAt::HighWatermark(_)) {
            self.check_isr(state)?;
        }
        let mut writes = Vec::with_capacity(3);
        let appended = give_offsets(&mut state.log, state.role.leader_epoch, &mut writes)?;
        match ack {
            AckAt::Written(ack) => state.written.push(self.ack_offset(&appended), ack),
            AckAt::HighWatermark(ack) => state.replicated.push(self.ack_offset(&appended), ack),
        }
        let sync = state.unsynced.syncs(state.log.config(), appended.log_end_offset);
        // What an earlier process wrote before it was killed is repeated: it is acknowledged after the sync, too.
        if appended.duplicate && !sync {
            let end = self.view.get();
            state.written.pass(end.log_end_offset);
            state.replicated.pass(end.high_watermark);
            return Ok(Accepted { appended, unwritten: None });
        }
        if appended.rolled && state.log.config().compact {
            self.cleaner.notify_one();
        }
        let bytes = writes.iter().map(Write::batch_bytes).sum::<usize>() as i64;
        let last_offset = self.ack_offset(&appended);
        let partition: Weak<Self> = Arc::downgrade(self);
        let unwritten = storage::queue(
            &self.dir,
            WriteSet { writes, sync },
            Box::new(move |result| {
                if let Some(partition) = partition.upgrade() {
                    partition.on_committed(last_offset, bytes, result);
                }
            }),
        );
        if !sync {
            state.unsynced.queued(state.log.config());
        }
        drop(guard);
        Ok(Accepted { appended, unwritten: Some(unwritten) })
    }

    /// After a write that was refused for want of space: the log is opened as the disk has it, so that the offsets of
    /// what was refused are given once more (I-2) and what else ran ahead in memory is taken back. A batch that was
    /// queued behind a refused one may have been stored; nobody was told, so it goes, and a producer can repeat both in
    /// order. Needs no space for records, so that retention can go on and free some. Blocks on the disk, without the
    /// lock. Does nothing for a log that needs none of this.
    pub(crate) fn open_anew(self: &Arc<Self>, now: UnixMs) -> Result<(), ChangeError> {
        {
            let mut state = self.state.lock();
            match &state.failed {
                None => return Ok(()),
                _ if state.closed => return Err(ChangeError::Closed),
                Some(AckError::Full) if !state.reopening => state.reopening = true,
                Some(failed) => return Err(ChangeError::Failed(failed.clone())),
            }
        }
        let opened = self.open_log(now);
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.reopening = false;
        if state.closed {
            return Err(ChangeError::Closed);
        }
        let mut log = match opened {
            Ok(log) => log,
            // There is no space after all; whoever comes next tries again.
            Err(error @ ChangeError::Unwritten(StorageError::Full { .. })) => return Err(error),
            Err(error) => {
                if let ChangeError::Unwritten(failure) = &error {
                    state.failed = Some(AckError::Storage(failure.to_string()));
                    error!(partition = %self.name(), %failure, "the log could not be opened again; it is offline");
                }
                return Err(error);
            }
        };
        log.set_config(*state.log.config());
        log.keep_verifications(&mut state.log);
        state.unsynced.refused();
        self.reader.store(Arc::new(log.reader()));
        state.log = log;
        state.opening = LogOpening(state.opening.0 + 1);
        state.failed = None;
        info!(topic = %self.id.topic, partition = %self.id.partition, "opened anew after a refused write");
        let mut writes = Vec::new();
        if state.leading {
            // The record of it may have been what was refused.
            state.log.assign_epoch(state.role.leader_epoch, &mut writes);
        }
        self.publish(state);
        let recorded = self.queue_change(state, writes);
        drop(guard);
        self.waiters.wake_all();
        Ok(recorded.wait()?)
    }

    /// The log as the disk has it, without what was queued behind the write that was refused.
    fn open_log(self: &Arc<Self>, now: UnixMs) -> Result<PartitionLog, ChangeError> {
        // All that was queued has been answered then, and nothing is queued while the partition has failed.
        storage::barrier(&*self.dir)?;
        let (config, written_end) = {
            let state = self.state.lock();
            (*state.log.config(), state.log.written_end_offset())
        };
        let (dir, tail) = (Arc::clone(&self.dir), Arc::clone(&self.tail));
        let mut log = PartitionLog::open(dir, self.id.clone(), self.family, config, tail, now)?;
        let mut writes = Vec::new();
        log.truncate_to(written_end, now, &mut writes)?;
        let cut = {
            let state = self.state.lock();
            // The family may be on its way to another partition.
            if state.closed {
                return Err(ChangeError::Closed);
            }
            storage::commit(&*self.dir, WriteSet { writes, sync: false })
        };
        cut.wait()?;
        Ok(log)
    }

    /// As [`Self::open_anew`], for who must not block: appends are refused until it is done.
    fn open_anew_in_background(self: &Arc<Self>, state: &State, now: UnixMs) {
        if state.reopening {
            return;
        }
        let partition = Arc::clone(self);
        task::in_background(move || {
            // What it meets it has said and noted; the append that comes next finds it.
            if let Err(error) = task::as_owner("log reopener", || partition.open_anew(now)) {
                debug!(partition = %partition.name(), %error, "not opened anew yet");
            }
        });
    }

    /// A duplicate may repeat a batch that is still being written: its ack waits for that batch, and must not stand
    /// before acks of later batches in the queue, so it waits for the end of what has been given out.
    fn ack_offset(&self, appended: &Appended) -> Offset {
        if appended.duplicate { appended.log_end_offset + -1 } else { appended.last_offset }
    }

    fn needed_isr(&self, state: &State) -> usize {
        state.min_insync_replicas.min(state.role.replicas.len()).max(1)
    }

    /// A write has returned; called by who has written, in commit order.
    fn on_committed(&self, last_offset: Offset, bytes: i64, result: Result<(), StorageError>) {
        let mut state = self.state.lock();
        match result {
            // An append before it was refused: what stands behind the hole is not shown, and cut off by `open_anew`.
            Ok(()) if state.failed.is_some() => {}
            Ok(()) => {
                state.log.on_written(last_offset);
                let stable = self.publish(&mut state);
                drop(state);
                self.waiters.add(bytes, stable);
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
        self.waiters.wake_all();
    }

    /// As Kafka names it.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.id.topic, self.id.partition)
    }

    /// The one place where positions are published (and whoever waits for them is answered).
    fn publish(&self, state: &mut State) -> Stable {
        let before = self.view.get();
        let log_end_offset = state.log.written_end_offset();
        let alone = state.role.isr.len() <= 1;
        // The leader's own end is the high watermark as long as it is the only replica in sync; followers' positions
        // join in with replication. It stays while the ISR is below min ISR (I-8).
        let held_back = !state.leading || !alone || state.role.isr.len() < self.needed_isr(state);
        let high_watermark = if held_back { before.high_watermark } else { log_end_offset };
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
        };
        self.view.set(view);
        state.written.pass(log_end_offset);
        state.replicated.pass(high_watermark);
        stable_move(&before, &view)
    }

    /// Queues what a change of the log wants written. Memory is ahead of it already, so a refusal marks the partition,
    /// whoever waits. Nothing is written for a closed partition: its family may be on its way to another one.
    fn queue_change(self: &Arc<Self>, state: &State, writes: Vec<Write>) -> Queued {
        if writes.is_empty() || state.closed {
            return Queued::nothing();
        }
        let partition = Arc::downgrade(self);
        storage::commit_noting(&*self.dir, WriteSet { writes, sync: false }, move |outcome| {
            if let (Err(failure), Some(partition)) = (outcome, partition.upgrade()) {
                partition.fail(partition.state.lock(), failure.clone(), "a change of the log");
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
        self.publish(state);
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
        Ok(storage::commit(&*self.dir, WriteSet { writes, sync: false }))
    }

    /// Looks at the log under the lock.
    pub(crate) fn with_log<T>(&self, look: impl FnOnce(&PartitionLog) -> T) -> T {
        look(&self.state.lock().log)
    }

    /// Waits until everything queued so far is written, and whoever waited for it was woken. Blocking.
    #[cfg(test)]
    pub(crate) fn wait_for_writes(&self) -> Result<(), StorageError> {
        storage::barrier(&*self.dir)
    }

    /// Lets the directory give back the space of batches below the log start.
    pub(crate) fn reclaim_below(&self, log_start_offset: Offset) {
        self.dir.reclaim(self.family, Offset::ZERO..log_start_offset);
    }

    /// StopReplica without deletion: neither leads nor follows until the next role. Whoever waits is answered.
    pub(crate) fn stop_following(&self) {
        let mut state = self.state.lock();
        state.stopped = true;
        self.resign(state);
    }

    /// No more appends, for ever; whoever waits is answered. First step of deletion and of an orderly stop.
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
        self.publish(&mut state);
        drop(state);
        self.waiters.wake_all();
    }
}
