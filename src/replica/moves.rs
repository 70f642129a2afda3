//! Logs that are being moved between the directories of this broker: how a future log is filled.
//!
//! A follower's rules hold (`fetcher/follow.rs`), in process: the future log's last epoch and end are held against the
//! present one's history, it is cut where they part, and what is missing is read and appended as it is. The present log
//! may be cut off itself, if another broker leads; so what was read counts only if no cut came between the comparison
//! and the read. Every step waits for its writes, and blocks. When the future log has come to the end that was seen it
//! is offered the place, at each step: what was appended meanwhile goes with it (`partition/moving.rs`).
//!
//! Retention and compaction do not see a future log: its log start follows the present one's, and what was compacted
//! there comes as it is. Source: Kafka 3.9 `ReplicaAlterLogDirsThread`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::ack::AckError;
use super::change::ChangeError;
use super::partition::{NotReplicated, OutOfRange, Partition};
use super::throttle::Throttle;
use crate::clock::UnixMs;
use crate::log::kept::KeptBytes;
use crate::record::BatchHeader;
use crate::storage::{self, PartitionId, StorageError, WriteSet};
use crate::types::{Offset, TopicPartition};

/// What one step reads.
const STEP_BYTES: usize = 4 << 20;
/// What may be left to be synced when the place is taken.
const UNSYNCED_BYTES_MAX: usize = 16 << 20;
/// Until something else is over: a cut, a role that is to come, a rate that is used up.
const SHORT_PAUSE: Duration = Duration::from_millis(50);
/// Until there is space, or a log can be read again.
const LONG_PAUSE: Duration = Duration::from_secs(1);
/// That doubles, so often at most, with each step that fails.
const DOUBLED_MAX: u32 = 9;

/// All moves of a broker.
#[derive(Debug)]
pub(super) struct Moves {
    pub(super) under_way: Mutex<HashMap<PartitionId, Arc<Move>>>,
    /// Logs that were left, and are to be deleted once nobody reads them.
    pub(super) left: Mutex<Vec<Left>>,
    /// Moves that are to begin anew, and the directories that they go to.
    pub(super) again: Mutex<HashMap<PartitionId, usize>>,
    /// Of logs that are about to be followed by others.
    pub(super) kept: Arc<KeptBytes>,
    /// Directories chosen for partitions that are not here yet; their indices.
    pub(super) preferred: Mutex<HashMap<TopicPartition, usize>>,
    /// For each directory: there is something to move to it, or to delete there.
    pub(super) news: Vec<Notify>,
}

/// One move.
#[derive(Debug)]
pub(super) struct Move {
    pub(super) current: Arc<Partition>,
    /// Index of the directory that the log moves to.
    pub(super) to: usize,
    /// Held while a step is made. `None`: the move is over.
    pub(super) future: Mutex<Option<Arc<Partition>>>,
    /// That one, for whoever must not wait for a step.
    filled: Weak<Partition>,
    /// Copied since its directory was synced.
    unsynced_bytes: AtomicUsize,
    kept: Arc<KeptBytes>,
    /// Steps that failed, one after the other.
    failures: AtomicU32,
    /// Until then no step is made, by the monotonic clock.
    rests_until_ms: AtomicI64,
}

/// A log whose place was taken.
#[derive(Debug)]
pub(super) struct Left {
    /// It has the log, and the place where that was.
    pub(super) log: Arc<Partition>,
    /// By the monotonic clock.
    pub(super) since_ms: i64,
}

/// What a step came to.
#[derive(Debug)]
pub(super) enum Stepped {
    /// There may be more to do at once.
    Went,
    Waits(Duration),
    /// The log has moved; the other is to go.
    Moved,
    /// The new log could not take the place, and is to be made anew.
    Refused,
    /// A directory has failed, or the partition is gone. What is on the disk is left as it is.
    Over,
}

impl Moves {
    pub(super) fn new(dirs: usize) -> Self {
        let news = (0..dirs).map(|_| Notify::new()).collect();
        let (under_way, left, kept) = (Mutex::default(), Mutex::default(), Arc::default());
        Self { under_way, left, kept, again: Mutex::default(), preferred: Mutex::default(), news }
    }

    pub(super) fn all(&self) -> Vec<Arc<Move>> {
        self.under_way.lock().values().map(Arc::clone).collect()
    }

    /// Those to a directory.
    pub(super) fn to(&self, at: usize) -> Vec<Arc<Move>> {
        self.under_way.lock().values().filter(|it| it.to == at).map(Arc::clone).collect()
    }
}

/// Why a step went no further.
#[derive(Debug, thiserror::Error)]
enum Stuck {
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    NotReplicated(#[from] NotReplicated),
    #[error("{0}")]
    Odd(String),
}

impl Move {
    /// `kept`: what all logs keep.
    pub(super) fn new(current: Arc<Partition>, future: Arc<Partition>, kept: Arc<KeptBytes>) -> Arc<Self> {
        let to = future.home().at;
        let filled = Arc::downgrade(&future);
        Arc::new(Self {
            current,
            to,
            future: Mutex::new(Some(future)),
            filled,
            unsynced_bytes: AtomicUsize::default(),
            kept,
            failures: AtomicU32::default(),
            rests_until_ms: AtomicI64::default(),
        })
    }

    /// The future log, as long as it is one.
    pub(super) fn filled(&self) -> Option<Arc<Partition>> {
        self.filled.upgrade().filter(|future| future.home().at == self.to)
    }

    /// Does a little of it. `ended` takes the other log when the move is over, before anybody else can find that it is.
    /// Blocking.
    pub(super) fn step(
        &self,
        throttle: &Throttle,
        ended: impl FnOnce(&Stepped, Arc<Partition>),
        now: UnixMs,
        monotonic_ms: i64,
    ) -> Stepped {
        let mut slot = self.future.lock();
        let Some(future) = slot.clone() else { return Stepped::Over };
        // Others are stepped when it is their turn, which may be often.
        let rests_ms = self.rests_until_ms.load(Ordering::Relaxed).saturating_sub(monotonic_ms);
        if let Ok(rests_ms @ 1..) = u64::try_from(rests_ms) {
            return Stepped::Waits(Duration::from_millis(rests_ms));
        }
        let stepped = match self.advance(&future, throttle, now, monotonic_ms) {
            Ok(stepped) => {
                self.failures.store(0, Ordering::Relaxed);
                stepped
            }
            Err(stuck) => self.stuck(&future, &stuck),
        };
        match stepped {
            Stepped::Waits(pause) if pause >= LONG_PAUSE => {
                self.rests_until_ms.store(monotonic_ms + pause.as_millis() as i64, Ordering::Relaxed);
            }
            Stepped::Went | Stepped::Waits(_) => {}
            Stepped::Moved | Stepped::Refused | Stepped::Over => {
                ended(&stepped, future);
                *slot = None;
            }
        }
        stepped
    }

    fn stuck(&self, future: &Partition, stuck: &Stuck) -> Stepped {
        let (partition, to) = (self.current.name(), future.dir_path());
        let to = to.display();
        match stuck {
            Stuck::Change(ChangeError::Truncating) | Stuck::NotReplicated(NotReplicated::Superseded) => {
                Stepped::Waits(SHORT_PAUSE)
            }
            Stuck::Change(ChangeError::Closed | ChangeError::Leads) => {
                debug!(partition, %to, "the move of a log ends with its partition");
                Stepped::Over
            }
            Stuck::Change(ChangeError::Failed(AckError::Full) | ChangeError::Unwritten(StorageError::Full { .. }))
            | Stuck::Storage(StorageError::Full { .. })
            | Stuck::NotReplicated(NotReplicated::Full) => {
                debug!(partition, %to, "no space for a log that moves; it waits");
                Stepped::Waits(LONG_PAUSE)
            }
            _ if [&*self.current, future].iter().any(|it| it.home().dir.failure().is_some()) => {
                warn!(partition, %to, %stuck, "a log does not move: its log directory has failed");
                Stepped::Over
            }
            stuck => {
                let tries = self.failures.fetch_add(1, Ordering::Relaxed);
                let pause = LONG_PAUSE * (1 << tries.min(DOUBLED_MAX));
                warn!(partition, %to, %stuck, ?pause, "a log does not move; it is tried again");
                Stepped::Waits(pause)
            }
        }
    }

    fn advance(
        &self,
        future: &Arc<Partition>,
        throttle: &Throttle,
        now: UnixMs,
        monotonic_ms: i64,
    ) -> Result<Stepped, Stuck> {
        let current = &self.current;
        future.open_anew(now)?;
        let Some(cuts) = current.cuts() else {
            current.open_anew(now)?;
            return Ok(Stepped::Waits(SHORT_PAUSE));
        };
        future.take_epoch_of(&current.role());
        if self.cut(future, now)? {
            return Ok(Stepped::Went);
        }
        if future.home().dir.is_full() {
            // Nothing is read for what would not be taken, and nothing kept.
            current.keep_no_more();
            return Ok(Stepped::Waits(LONG_PAUSE));
        }
        let (view, before) = (current.view(), future.view());
        if before.log_end_offset < view.log_end_offset {
            if throttle.is_used_up(monotonic_ms) {
                return Ok(Stepped::Waits(SHORT_PAUSE));
            }
            let read = current.reader().read(before.log_end_offset, view.log_end_offset, STEP_BYTES, true)?;
            if current.cuts() != Some(cuts) {
                return Ok(Stepped::Went);
            }
            let (bytes, end) = (read.bytes, read.end);
            append(future, &current.role(), read.batches, now)?;
            throttle.count(bytes, monotonic_ms);
            self.unsynced_bytes.fetch_add(bytes, Ordering::Relaxed);
            if end < view.log_end_offset {
                return Ok(Stepped::Went);
            }
        }
        let moved = future.advance_as_follower(current.role().leader_epoch, view.high_watermark, view.log_start_offset);
        if let Some(start) = moved.written()? {
            future.reclaim_below(start);
        }
        if self.unsynced_bytes.load(Ordering::Relaxed) > UNSYNCED_BYTES_MAX {
            // So that appends do not wait for it when the place is taken.
            storage::commit(&*future.home().dir, WriteSet { writes: Vec::new(), sync: true }).wait()?;
            self.unsynced_bytes.store(0, Ordering::Relaxed);
            current.keep_written(&self.kept);
            return Ok(Stepped::Went);
        }
        match current.hand_over(future, cuts, now)? {
            None => {
                // What is written from here on need not be read next time.
                current.keep_written(&self.kept);
                let grew = future.view().log_end_offset > before.log_end_offset;
                Ok(if grew { Stepped::Went } else { Stepped::Waits(SHORT_PAUSE) })
            }
            Some(queued) => {
                let Err(failure) = queued.wait() else { return Ok(Stepped::Moved) };
                if let Err(error) = current.end_failed_move(future, &failure, now) {
                    debug!(partition = %current.name(), %error, "not opened anew yet");
                }
                Ok(Stepped::Refused)
            }
        }
    }

    /// Cuts the future log where it parts from the present one, or begins it anew. True: it did.
    fn cut(&self, future: &Arc<Partition>, now: UnixMs) -> Result<bool, Stuck> {
        let (view, before) = (self.current.view(), future.view());
        let end = before.log_end_offset;
        let anew = |at: Offset| {
            future.truncate_fully_and_start_at(at, now)?;
            Ok(true)
        };
        // A log start goes back where a follower's log begins anew.
        if end < view.log_start_offset || before.log_start_offset > view.log_start_offset {
            return anew(view.log_start_offset);
        }
        let Some(last) = future.latest_epoch().filter(|_| end > before.log_start_offset) else {
            return if end == view.log_start_offset { Ok(false) } else { anew(view.log_start_offset) };
        };
        let (epoch, their_end) = match self.current.divergence(last, end, view.log_start_offset) {
            Ok(None) => return Ok(false),
            Ok(Some(at)) => at,
            // A later term than any of the present log's: that has been cut off.
            Err(OutOfRange) => match self.current.latest_epoch() {
                Some(latest) => (latest, view.log_end_offset),
                None => return anew(view.log_start_offset),
            },
        };
        let to = future.truncation_offset(epoch, their_end);
        let partition = self.current.name();
        info!(partition, %to, log_end_offset = %end, "a log that moves was cut off; so is its copy");
        if future.truncate_to(to, now)? >= end {
            return anew(view.log_start_offset);
        }
        Ok(true)
    }
}

/// Appends what was read, and waits until it is written. An empty log begins where the first batch does, which may be
/// below the log start.
fn append(
    future: &Arc<Partition>,
    role: &super::partition::Role,
    batches: Vec<bytes::Bytes>,
    now: UnixMs,
) -> Result<(), Stuck> {
    let view = future.view();
    let first = batches.first().and_then(|batch| BatchHeader::parse(batch).ok()).map(|header| header.base_offset);
    if let Some(first) = first
        && view.log_start_offset == view.log_end_offset
        && first < view.log_end_offset
    {
        future.truncate_fully_and_start_at(first, now)?;
    }
    let mut replicated = future.append_fetched(role.leader_epoch, batches, now)?;
    let grew = replicated.unwritten.take().is_some();
    replicated.written.wait()?;
    match replicated.refused {
        Some(refused) => Err(Stuck::Odd(refused.to_string())),
        None if !grew => Err(Stuck::Odd("nothing was read where there is something".to_owned())),
        None => Ok(()),
    }
}
