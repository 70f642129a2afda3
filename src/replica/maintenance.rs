//! Periodic work on the logs of this broker, led or followed, off the request path: retention, expiry of producers,
//! compaction.
//!
//! Compaction follows Kafka's cleaner: the log that gains most goes first, one at a time, and only when none is worth
//! it does the cleaner pause for `log.cleaner.backoff.ms`. Here a segment that is closed ends the pause: a log that
//! fills a segment in a second would be many behind otherwise, which a restart of a coordinator would have to read.
//!
//! What one log cannot do costs no other: a log whose compaction fails is set aside for a while that grows. All of this
//! waits for the disk, so it runs where blocking is allowed.
//! Source: Kafka 3.9 `LogManager`, `LogCleaner`.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::change::{ChangeError, Changed};
use super::manager::ReplicaManager;
use super::partition::Partition;
use crate::clock::{SharedClock, UnixMs};
use crate::log::partition_log::PartitionLog;
use crate::log::upkeep::compaction;
use crate::metrics::UNCLEANABLE_PARTITIONS;
use crate::storage::{PartitionId, Queued};
use crate::task;

/// How often what is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Periods {
    /// `log.initial.task.delay.ms`, once.
    pub(crate) initial_delay: Duration,
    /// `log.retention.check.interval.ms`.
    pub(crate) retention: Duration,
    /// `replica.high.watermark.checkpoint.interval.ms`.
    pub(crate) high_watermarks: Duration,
    /// `log.cleaner.backoff.ms`; it may change.
    pub(crate) cleaner_backoff: Duration,
    /// `log.cleaner.enable`.
    pub(crate) cleaner_enabled: bool,
}

/// Tells the periods of this moment.
pub(crate) type PeriodsOf = Box<dyn Fn() -> Periods + Send>;

/// Starts the loops, the timers of `flush.ms`, and what moves logs between directories; they end with the runtime.
pub(crate) fn start(replicas: Arc<ReplicaManager>, clock: SharedClock, periods_of: PeriodsOf) {
    for timer in &replicas.flush_timers {
        task::spawn_owner("flush timer", Arc::clone(timer).run());
    }
    if replicas.dirs().count() > 1 {
        for at in 0..replicas.dirs().count() {
            task::spawn_owner("log directory mover", Arc::clone(&replicas).run_moves(at));
        }
    }
    let (for_retention, retention_clock) = (Arc::clone(&replicas), Arc::clone(&clock));
    let at_start = periods_of();
    task::spawn_owner("retention", async move {
        tokio::time::sleep(at_start.initial_delay.min(at_start.retention)).await;
        loop {
            let (replicas, clock) = (Arc::clone(&for_retention), Arc::clone(&retention_clock));
            task::blocking(move || retain_all(&replicas, &clock)).await;
            tokio::time::sleep(at_start.retention).await;
        }
    });
    let for_checkpoints = Arc::clone(&replicas);
    task::spawn_owner("high watermark checkpoint", async move {
        loop {
            tokio::time::sleep(at_start.high_watermarks).await;
            let replicas = Arc::clone(&for_checkpoints);
            task::blocking(move || checkpoint_high_watermarks(&replicas)).await;
        }
    });
    if at_start.cleaner_enabled {
        task::spawn_owner("log cleaner", async move {
            let mut cleaner = Cleaner::new(Arc::clone(&replicas), clock);
            loop {
                let backoff = periods_of().cleaner_backoff;
                let worked;
                (cleaner, worked) = task::blocking(move || {
                    let worked = cleaner.clean_dirtiest(backoff);
                    (cleaner, worked)
                })
                .await;
                if !worked {
                    pause(&replicas.cleaner, backoff).await;
                }
            }
        });
    }
}

/// After a segment was closed, until its last batch is surely written; and the least pause between two looks.
const AFTER_CLOSED_SEGMENT: Duration = Duration::from_millis(200);

/// Until there may be something to clean, at most the whole backoff.
async fn pause(closed_segment: &Notify, backoff: Duration) {
    tokio::select! {
        () = tokio::time::sleep(backoff) => {}
        () = closed_segment.notified() => tokio::time::sleep(backoff.min(AFTER_CLOSED_SEGMENT)).await,
    }
}

/// Applies retention to every log and gives space back. Blocking. What fails concerns its log alone, which has said so.
pub(crate) fn retain_all(replicas: &ReplicaManager, clock: &SharedClock) {
    let now = clock.now_ms();
    let mut queued = Vec::new();
    // One in doubt must not write what its opening found to be lost, before a controller knows of it.
    for partition in replicas.all().into_iter().filter(|partition| !partition.is_in_doubt()) {
        let changed = partition.open_anew(now).and_then(|()| {
            partition.change_log(|log, view, writes| {
                log.expire_producers(now, writes);
                log.retain(now, view.high_watermark, writes)
            })
        });
        queued.push((partition, changed));
    }
    for (partition, changed) in queued {
        match changed.and_then(Changed::written) {
            Ok(Some(new_start)) => {
                info!(topic = %partition.id.topic, partition = %partition.id.partition, log_start_offset = %new_start,
                    "retention moved the log start");
                partition.reclaim_below(new_start);
            }
            Ok(None) => {}
            Err(error) => debug!(partition = %partition.name(), %error, "no retention this time"),
        }
    }
}

/// Records the high watermarks that moved, so that a replica begins with what it knew. Blocking. What fails concerns
/// its log alone, which has said so; the next time it is tried again.
/// Source: Kafka 3.9 `ReplicaManager.checkpointHighWatermarks`.
pub(crate) fn checkpoint_high_watermarks(replicas: &ReplicaManager) {
    let mut queued = Vec::new();
    // One in doubt must not write what its opening found to be lost, before a controller knows of it.
    for partition in replicas.all().into_iter().filter(|partition| !partition.is_in_doubt()) {
        let recorded = partition.checkpoint_high_watermark();
        queued.push((partition, recorded));
    }
    for (partition, recorded) in queued {
        if let Err(error) = recorded.and_then(Changed::written) {
            debug!(partition = %partition.name(), %error, "its high watermark is not recorded this time");
        }
    }
}

/// Compacts one log after the other, and remembers which of them could not be.
#[derive(Debug)]
pub(super) struct Cleaner {
    replicas: Arc<ReplicaManager>,
    clock: SharedClock,
    /// Kafka gives such a log up until the broker starts again; here it is tried again, each time after a longer pause.
    set_aside: HashMap<PartitionId, SetAside>,
}

#[derive(Debug, Clone, Copy)]
struct SetAside {
    /// By the monotonic clock.
    until_ms: i64,
    pause: Duration,
}

/// A log that could not be compacted is read again this often at least.
const SET_ASIDE_MAX: Duration = Duration::from_secs(600);

impl Cleaner {
    pub(super) fn new(replicas: Arc<ReplicaManager>, clock: SharedClock) -> Self {
        Self { replicas, clock, set_aside: HashMap::new() }
    }

    /// Compacts the log that gains most; false if none is worth it. Blocking. `pause`: how long a log is set aside that
    /// fails for the first time.
    pub(super) fn clean_dirtiest(&mut self, pause: Duration) -> bool {
        let now = self.clock.now_ms();
        let Some(partition) = self.dirtiest(now) else { return false };
        match clean(&partition, now, self.clock.random()) {
            Ok(done) => {
                debug!(topic = %partition.id.topic, partition = %partition.id.partition, done, "compacted");
                if done && self.set_aside.remove(&partition.id).is_some() {
                    UNCLEANABLE_PARTITIONS.sub(1);
                    info!(partition = %partition.name(), "can be compacted again");
                }
                done
            }
            // It is closed, or being cut.
            Err(error) if !error.is_failure() => true,
            Err(error) => {
                self.set_aside(&partition, &error, pause);
                // Others may be worth it.
                true
            }
        }
    }

    /// The log whose compaction gains most, if one is worth it.
    fn dirtiest(&mut self, now: UnixMs) -> Option<Arc<Partition>> {
        // One in doubt must not write what its opening found to be lost, before a controller knows of it.
        let may =
            |partition: &Arc<Partition>| partition.with_log(|log| log.config().compact) && !partition.is_in_doubt();
        let candidates: Vec<_> = self.replicas.all().into_iter().filter(may).collect();
        self.forget_all_but(&candidates);
        let monotonic_ms = self.clock.monotonic_ms();
        let waits = |id: &PartitionId| self.set_aside.get(id).is_some_and(|aside| monotonic_ms < aside.until_ms);
        let mut looked = Vec::new();
        for partition in candidates.into_iter().filter(|partition| !waits(&partition.id)) {
            let last_stable_offset = partition.view().last_stable_offset;
            let urgency = partition.open_anew(now).and_then(|()| {
                partition.change_log(|log, _, writes| {
                    log.roll_if_old(now, writes);
                    log.compaction_urgency(now, last_stable_offset)
                })
            });
            looked.push((partition, urgency));
        }
        let urgencies =
            looked.into_iter().filter_map(|(partition, urgency)| match urgency.and_then(Changed::written) {
                Ok(urgency) => Some((urgency?, partition)),
                Err(error) => {
                    debug!(partition = %partition.name(), %error, "not compacted this time");
                    None
                }
            });
        urgencies.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, partition)| partition)
    }

    /// What is deleted or no longer compacted is left alone.
    fn forget_all_but(&mut self, candidates: &[Arc<Partition>]) {
        if self.set_aside.is_empty() {
            return;
        }
        let ids: HashSet<&PartitionId> = candidates.iter().map(|partition| &partition.id).collect();
        let before = self.set_aside.len();
        self.set_aside.retain(|id, _| ids.contains(id));
        UNCLEANABLE_PARTITIONS.sub((before - self.set_aside.len()) as u64);
    }

    /// How many logs are set aside.
    #[cfg(test)]
    pub(super) fn uncleanable(&self) -> usize {
        self.set_aside.len()
    }

    #[cfg(test)]
    pub(super) fn pause_of(&self, id: &PartitionId) -> Option<Duration> {
        Some(self.set_aside.get(id)?.pause)
    }

    fn set_aside(&mut self, partition: &Partition, error: &ChangeError, first_pause: Duration) {
        let pause = match self.set_aside.get(&partition.id) {
            Some(before) => before.pause.saturating_mul(2).min(SET_ASIDE_MAX),
            None => {
                UNCLEANABLE_PARTITIONS.add(1);
                warn!(topic = %partition.id.topic, partition = %partition.id.partition, %error,
                    "this log could not be compacted; it is set aside and tried again now and then, others go on");
                first_pause
            }
        };
        let until_ms = self.clock.monotonic_ms().saturating_add(pause.as_millis() as i64);
        self.set_aside.insert(partition.id.clone(), SetAside { until_ms, pause });
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        UNCLEANABLE_PARTITIONS.sub(self.set_aside.len() as u64);
    }
}

/// One job from plan to end. Blocking. False: there was nothing to do, or the partition went away.
///
/// A step is queued only when the one before it is written, so that a refused one is the last: what follows in the log
/// (such as a tombstone whose time has come) rests on it. How far the job came is recorded after all of them.
fn clean(partition: &Arc<Partition>, now: UnixMs, seed: u128) -> Result<bool, ChangeError> {
    let planned = partition.change_log(|log, view, writes| {
        (log.compaction_plan(now, view.last_stable_offset, seed, writes), log.cuts())
    })?;
    let (Some(plan), cuts) = planned.written()? else { return Ok(false) };
    // Where the log is cut, others come to stand under the offsets of what was read before.
    let is_whole = |log: &PartitionLog| log.cuts() == cuts;
    let mut before = Queued::nothing();
    let mut refused = None;
    let done = compaction::run(&plan, &partition.reader(), &mut |step| {
        if !partition.with_log(is_whole) {
            return ControlFlow::Break(());
        }
        // The next step was read while this one was being written.
        let written = std::mem::replace(&mut before, Queued::nothing()).wait().map_err(ChangeError::from);
        let admit = |log: &PartitionLog| if is_whole(log) { log.admit_compacted(step.writes) } else { Vec::new() };
        match written.and_then(|()| partition.rewrite(admit)) {
            Ok(queued) => {
                before = queued;
                ControlFlow::Continue(())
            }
            Err(error) => {
                refused = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = refused {
        return if error.is_failure() { Err(error) } else { Ok(false) };
    }
    before.wait()?;
    let Some(done) = done else { return Ok(false) };
    let noted = partition.change_log(|log, _, writes| {
        if is_whole(log) {
            log.on_compacted(&done, writes);
        }
    });
    noted?.written()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::testing::ManualClock;
    use crate::log::config::LogConfig;
    use crate::log::reading::tail::Tail;
    use crate::record::{BatchBuilder, BatchHeader, stamp};
    use crate::replica::ack::{Ack, Completion};
    use crate::replica::manager::{ReplicaConfig, ReplicaDir, WantedReplica};
    use crate::replica::partition::AckAt;
    use crate::replica::testing::{ME, alone, led, role, take};
    use crate::storage::testing::faulty::{Fate, Operation, Rule};
    use crate::storage::testing::memory::MemoryDir;
    use crate::types::{LeaderEpoch, Offset, PartitionIndex, TopicId};

    /// The latest offset of a key that was found before lies beyond what is there now: nothing of the key would stay.
    #[test]
    fn a_compaction_that_looked_before_a_cut_takes_nothing_away_after_it() {
        let (partition, faults) = led(LeaderEpoch(0));
        let mut config = partition.with_log(|log| *log.config());
        (config.compact, config.delete) = (true, false);
        (config.segment_bytes, config.min_cleanable_dirty_ratio) = (1, 0.0);
        partition.set_config(config, 1);
        let put = |count| {
            for _ in 0..count {
                let mut builder = BatchBuilder::new();
                builder.append(0, Some(b"k"), Some(b"v"));
                let ack = AckAt::Written(Ack::new(&Completion::new(1).0, 0));
                drop(partition.append(builder.finish(), ack, None, None, 0).expect("accepted"));
                partition.wait_for_writes().expect("written");
            }
        };
        put(10);
        let second_pass = faults.script(Rule::new(Fate::Wait, &[Operation::Scan]).after(1).times(1));
        let cleaned = Arc::clone(&partition);
        let cleaning = std::thread::spawn(move || clean(&cleaned, 1_000_000, 7));
        while faults.met(second_pass) == 0 {
            std::thread::yield_now();
        }
        take(&partition, role(2, 1));
        assert_eq!(partition.truncate_to(Offset(1), 0).expect("truncated"), Offset(1));
        take(&partition, role(ME.0, 2));
        put(3);
        faults.lift(second_pass);
        assert!(!cleaning.join().expect("no panic").expect("nothing failed"), "the job ends");
        let read = partition.reader().read(Offset(0), Offset(4), usize::MAX, true).expect("readable");
        let counts = read.batches.iter().map(|batch| BatchHeader::parse(batch).expect("a batch").record_count);
        assert_eq!(counts.collect::<Vec<_>>(), [1; 4]);
        assert!(clean(&partition, 1_000_000, 7).expect("nothing fails"), "and may begin anew");
    }

    /// Logs were compacted where they were led alone: the copies of a followed `__consumer_offsets` grew for ever.
    #[test]
    fn a_follower_compacts_its_log_too() {
        let clock = Arc::new(ManualClock::new(1_000_000, 1));
        let log = LogConfig {
            compact: true,
            delete: false,
            segment_bytes: 1,
            min_cleanable_dirty_ratio: 0.0,
            ..LogConfig::default()
        };
        let dirs = vec![ReplicaDir {
            dir: MemoryDir::open() as _,
            tail: Tail::new(1 << 20),
            may_lack_ends: false,
            configured: None,
        }];
        let config_of = Arc::new(move |_: &_| ReplicaConfig { log, min_insync_replicas: 1 });
        let replicas = ReplicaManager::new(alone(ME, Arc::clone(&clock) as _), dirs, config_of).expect("readable");
        let topic_id = TopicId::from_random(1 << 64 | 7).expect("a legal id");
        let id = PartitionId { topic: "t".into(), topic_id, partition: PartitionIndex(0) };
        let partition = replicas.open(&[WantedReplica { id, is_new: true }]).remove(0).expect("opened");
        take(&partition, role(2, 1));
        let fetched = (0..10).map(|at| {
            let mut builder = BatchBuilder::new();
            builder.append(0, Some(b"k"), Some(b"v"));
            let mut batch = builder.finish();
            stamp(&mut batch, Offset(at), LeaderEpoch(1), None);
            batch.bytes.freeze()
        });
        let replicated = partition.append_fetched(LeaderEpoch(1), fetched.collect(), 0).expect("follows");
        drop(replicated.unwritten);
        replicated.written.wait().expect("written");
        let count = || {
            let read = partition.reader().read(Offset(0), Offset(10), usize::MAX, true).expect("readable");
            let headers = read.batches.iter().map(|batch| BatchHeader::parse(batch).expect("a batch"));
            headers.map(|header| header.record_count).sum::<i32>()
        };
        let mut cleaner = Cleaner::new(Arc::clone(&replicas), clock);
        assert!(!cleaner.clean_dirtiest(Duration::ZERO), "what is not below the high watermark may yet be cut off");
        assert_eq!(count(), 10);
        let told = partition.advance_as_follower(LeaderEpoch(1), Offset(10), Offset(0));
        told.written().expect("written");
        assert!(cleaner.clean_dirtiest(Duration::ZERO));
        assert_eq!(count(), 2, "the last closed segment's, and the active one's");
        assert_eq!(partition.view().log_end_offset, Offset(10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_segment_ends_the_cleaners_pause() {
        let closed_segment = Notify::new();
        let backoff = Duration::from_secs(15);
        let begin = tokio::time::Instant::now();
        pause(&closed_segment, backoff).await;
        assert_eq!(begin.elapsed(), backoff);
        closed_segment.notify_one();
        closed_segment.notify_one();
        pause(&closed_segment, backoff).await;
        assert_eq!(begin.elapsed(), backoff + AFTER_CLOSED_SEGMENT);
        pause(&closed_segment, backoff).await;
        assert_eq!(begin.elapsed(), backoff * 2 + AFTER_CLOSED_SEGMENT, "several at once are one");
    }
}
