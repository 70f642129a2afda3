//! Periodic work on the logs led here, off the request path: retention, expiry of producers, compaction.
//!
//! Compaction follows Kafka's cleaner: the log that gains most goes first, one at a time, and only when none is worth
//! it does the cleaner pause for `log.cleaner.backoff.ms`. Here a segment that is closed ends the pause: a log that
//! fills a segment in a second would be many behind otherwise, which a restart of a coordinator would have to read.
//! Source: Kafka 3.9 `LogManager`, `LogCleaner`.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{debug, info, warn};

use super::manager::ReplicaManager;
use super::partition::Partition;
use crate::clock::SharedClock;
use crate::log::compaction;
use crate::storage::StorageError;
use crate::task;

/// How often what is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Periods {
    /// `log.initial.task.delay.ms`, once.
    pub(crate) initial_delay: Duration,
    /// `log.retention.check.interval.ms`.
    pub(crate) retention: Duration,
    /// `log.cleaner.backoff.ms`; it may change.
    pub(crate) cleaner_backoff: Duration,
    /// `log.cleaner.enable`.
    pub(crate) cleaner_enabled: bool,
}

/// Tells the periods of this moment.
pub(crate) type PeriodsOf = Box<dyn Fn() -> Periods + Send>;

/// Starts the loops and the timers of `flush.ms`; they end with the runtime.
pub(crate) fn start(replicas: Arc<ReplicaManager>, clock: SharedClock, periods_of: PeriodsOf) {
    for timer in &replicas.flush_timers {
        task::spawn_owner("flush timer", Arc::clone(timer).run());
    }
    let (for_retention, retention_clock) = (Arc::clone(&replicas), Arc::clone(&clock));
    let at_start = periods_of();
    task::spawn_owner("retention", async move {
        tokio::time::sleep(at_start.initial_delay.min(at_start.retention)).await;
        loop {
            retain_all(&for_retention, &retention_clock);
            tokio::time::sleep(at_start.retention).await;
        }
    });
    if at_start.cleaner_enabled {
        task::spawn_owner("log cleaner", async move {
            loop {
                if !clean_dirtiest(&replicas, &clock).await {
                    pause(&replicas.cleaner, periods_of().cleaner_backoff).await;
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

/// Applies retention to every log and gives space back.
pub(crate) fn retain_all(replicas: &ReplicaManager, clock: &SharedClock) {
    let now = clock.now_ms();
    for partition in replicas.all() {
        let new_start = partition.change_log(|log, view, writes| {
            log.expire_producers(now, writes);
            log.retain(now, view.high_watermark, writes)
        });
        if let Some(new_start) = new_start {
            info!(topic = %partition.id.topic, partition = %partition.id.partition, log_start_offset = %new_start,
                "retention moved the log start");
            partition.reclaim_below(new_start);
        }
    }
}

/// Compacts the log that gains most; false if none is worth it.
async fn clean_dirtiest(replicas: &ReplicaManager, clock: &SharedClock) -> bool {
    let now = clock.now_ms();
    let urgency = |partition: &Arc<Partition>| {
        let last_stable_offset = partition.view().last_stable_offset;
        partition.change_log(|log, _, writes| {
            log.roll_if_old(now, writes);
            log.compaction_urgency(now, last_stable_offset)
        })
    };
    let dirtiest = replicas
        .all()
        .into_iter()
        .filter(|partition| partition.view().leading && partition.with_log(|log| log.config().compact))
        .filter_map(|partition| Some((urgency(&partition)?, partition)))
        .max_by(|(a, _), (b, _)| a.total_cmp(b));
    let Some((_, partition)) = dirtiest else { return false };
    let seed = clock.random();
    let cleaned = {
        let partition = Arc::clone(&partition);
        task::blocking(move || clean(&partition, now, seed)).await
    };
    match cleaned {
        Ok(done) => {
            debug!(topic = %partition.id.topic, partition = %partition.id.partition, done, "compacted");
            done
        }
        Err(failure) => {
            warn!(topic = %partition.id.topic, partition = %partition.id.partition, %failure, "compaction failed");
            false
        }
    }
}

/// Bytes of rewritten batches that may wait for the writer before compaction waits for it.
const STEPS_IN_FLIGHT_BYTES_MAX: usize = 8 << 20;

/// One job from plan to end. Blocking. False: there was nothing to do, or the partition went away.
fn clean(partition: &Arc<Partition>, now: i64, seed: u128) -> Result<bool, StorageError> {
    let plan =
        partition.change_log(|log, view, writes| log.compaction_plan(now, view.last_stable_offset, seed, writes));
    let Some(plan) = plan else { return Ok(false) };
    let mut queued_bytes = 0;
    let done = compaction::run(&plan, &partition.reader(), &mut |step| {
        if !partition.view().leading {
            return ControlFlow::Break(());
        }
        queued_bytes += step.read_bytes;
        if !step.writes.is_empty() {
            partition.change_log(|log, _, writes| log.admit_compacted(step.writes, writes));
        }
        if queued_bytes >= STEPS_IN_FLIGHT_BYTES_MAX {
            queued_bytes = 0;
            partition.wait_for_writes();
        }
        ControlFlow::Continue(())
    })?;
    let Some(done) = done else { return Ok(false) };
    partition.change_log(|log, _, writes| log.on_compacted(&done, writes));
    partition.wait_for_writes();
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

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
