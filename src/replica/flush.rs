//! Syncing by time and by count: what `flush.ms` and `flush.messages` promise for the case that the power is lost.
//!
//! By time there is one timer per log directory, because one sync serves all its partitions. A partition asks the timer
//! once per round: with the first append that the last sync did not cover. By count the append that completes the count
//! asks for the sync itself, and is acknowledged after it. A partition that promises neither asks for none and counts
//! nothing.
//!
//! Source: Kafka 3.9 `UnifiedLog.append`, `LogManager.flushDirtyLogs`. Kafka's looks every
//! `log.flush.scheduler.interval.ms`, which is for ever by default; here the sync comes when it is due.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::warn;

use crate::log::config::LogConfig;
use crate::storage::{self, SharedLogDir, StorageError, WriteSet};
use crate::types::Offset;

/// The timer of one log directory. [`FlushTimer::run`] is its task, which an owner spawns once; until then, and after a
/// failed sync, nothing is synced by time.
#[derive(Debug)]
pub(crate) struct FlushTimer {
    dir: SharedLogDir,
    /// Syncs begun. A partition that asked in this round and has queued a write since is served by the sync that ends
    /// the round.
    round: AtomicU64,
    /// When the round ends; `None`: no partition has asked.
    due: Mutex<Option<Instant>>,
    sooner: Notify,
}

/// Longer than this is never: the timer cannot count up to `i64::MAX`.
const WITHIN_MAX: Duration = Duration::from_secs(60 * 60 * 24 * 365);

/// A sync that was refused but not failed is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl FlushTimer {
    pub(crate) fn new(dir: SharedLogDir) -> Arc<Self> {
        Arc::new(Self { dir, round: AtomicU64::new(0), due: Mutex::default(), sooner: Notify::new() })
    }

    /// The round that a write queued before this call belongs to, or one before it.
    fn round(&self) -> u64 {
        self.round.load(Ordering::SeqCst)
    }

    /// What is queued now is synced within this time.
    fn ask(&self, within: Duration) {
        let wanted = Instant::now() + within.min(WITHIN_MAX);
        let mut due = self.due.lock();
        if due.is_none_or(|due| wanted < due) {
            *due = Some(wanted);
            self.sooner.notify_one();
        }
    }

    /// Syncs whenever a partition's time has come, until a sync fails. The directory is offline then (I-6), so nothing
    /// more is written that would have to be synced.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            self.wait_until_due().await;
            self.end_round();
            match storage::commit(&*self.dir, WriteSet { writes: Vec::new(), sync: true }).await {
                Ok(()) => {}
                Err(StorageError::Full { .. }) => self.ask(RETRY_AFTER),
                Err(failure) => {
                    warn!(dir = %self.dir.path().display(), %failure, "not synced after flush.ms");
                    return;
                }
            }
        }
    }

    async fn wait_until_due(&self) {
        loop {
            let due = *self.due.lock();
            let at = due.unwrap_or_else(|| Instant::now() + WITHIN_MAX);
            tokio::select! {
                () = tokio::time::sleep_until(at) => if due.is_some() { return },
                () = self.sooner.notified() => {}
            }
        }
    }

    /// Before the sync is queued: one that sees the next round asks anew, and one that saw this one has queued its
    /// write.
    fn end_round(&self) {
        let mut due = self.due.lock();
        *due = None;
        self.round.fetch_add(1, Ordering::SeqCst);
    }
}

/// What of a partition may not be synced. Part of the partition's state; every call is made under its lock.
#[derive(Debug)]
pub(super) struct Unsynced {
    timer: Arc<FlushTimer>,
    /// Offsets below this were written before a sync that this partition asked for.
    from: Offset,
    /// The round in which it asked the timer last.
    asked: Option<u64>,
}

fn promises_time(config: &LogConfig) -> bool {
    config.flush_ms < i64::MAX
}

impl Unsynced {
    /// Of a log with this start and end. What an earlier process wrote may not be on the disk.
    pub(super) fn new(timer: Arc<FlushTimer>, config: &LogConfig, log_start: Offset, log_end: Offset) -> Self {
        let mut unsynced = Self { timer, from: log_start, asked: None };
        if log_end > log_start {
            unsynced.queued(config);
        }
        unsynced
    }

    /// Whether an append that makes the log end here is to be synced before it is acknowledged. The caller then queues
    /// it so.
    pub(super) fn syncs(&mut self, config: &LogConfig, log_end: Offset) -> bool {
        // Unset, as by default: no more than this comparison.
        if config.flush_messages == i64::MAX || log_end.0.saturating_sub(self.from.0) < config.flush_messages {
            return false;
        }
        self.from = log_end;
        true
    }

    /// A write without a sync was queued: it is to be synced in time.
    pub(super) fn queued(&mut self, config: &LogConfig) {
        if !promises_time(config) {
            return;
        }
        let round = self.timer.round();
        if self.asked != Some(round) {
            self.asked = Some(round);
            self.timer.ask(Duration::from_millis(config.flush_ms.max(0) as u64));
        }
    }

    /// The settings changed: what was written under the old ones is synced as the new ones say.
    pub(super) fn reconfigured(&mut self, before: &LogConfig, now: &LogConfig) {
        if now.flush_ms < before.flush_ms {
            self.asked = None;
            self.queued(now);
        }
    }

    /// Appends were refused, and a sync that one of them asked for with them.
    pub(super) fn refused(&mut self) {
        self.from = Offset::ZERO;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::LogDir;
    use crate::storage::testing::faulty::FaultyDir;
    use crate::storage::testing::memory::MemoryDir;

    fn within(flush_ms: i64) -> LogConfig {
        LogConfig { flush_ms, ..LogConfig::default() }
    }

    fn of_empty_log(timer: &Arc<FlushTimer>) -> Unsynced {
        Unsynced::new(Arc::clone(timer), &LogConfig::default(), Offset(0), Offset(0))
    }

    /// The timer runs by the clock that stands still while anything else is to be done; the sync is made by a thread.
    async fn synced(dir: &MemoryDir, count: u64) {
        while dir.syncs() < count {
            tokio::task::yield_now().await;
        }
        assert_eq!(dir.syncs(), count);
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_append_that_no_sync_covers_says_when_the_next_one_comes() {
        let dir = MemoryDir::open();
        let timer = FlushTimer::new(dir.clone());
        let (mut hourly, mut often) = (of_empty_log(&timer), of_empty_log(&timer));
        tokio::spawn(Arc::clone(&timer).run());
        let begin = Instant::now();
        hourly.queued(&within(3_600_000));
        often.queued(&within(500));
        tokio::time::sleep(Duration::from_millis(300)).await;
        often.queued(&within(500));
        assert_eq!(dir.syncs(), 0);
        tokio::time::sleep(Duration::from_millis(200)).await;
        synced(&dir, 1).await;
        assert_eq!(begin.elapsed().as_millis(), 500);
        tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
        assert_eq!(dir.syncs(), 1, "nothing was written since");
        hourly.queued(&within(3_600_000));
        tokio::time::sleep(Duration::from_secs(3601)).await;
        synced(&dir, 2).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_queued_while_a_sync_is_made_has_a_sync_of_its_own() {
        let memory = MemoryDir::open();
        let (dir, faults) = FaultyDir::around(memory.clone());
        let timer = FlushTimer::new(dir.clone());
        let mut log = of_empty_log(&timer);
        tokio::spawn(Arc::clone(&timer).run());
        faults.hold();
        log.queued(&within(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
        log.queued(&within(10));
        tokio::time::sleep(Duration::from_millis(20)).await;
        faults.release(&dir);
        // The second is due already, and may follow at once.
        synced(&memory, 2).await;
    }

    #[tokio::test(start_paused = true)]
    async fn by_default_nothing_is_asked_for_and_a_change_counts_for_what_was_written_before() {
        let dir = MemoryDir::open();
        let timer = FlushTimer::new(dir.clone());
        let mut log = of_empty_log(&timer);
        tokio::spawn(Arc::clone(&timer).run());
        log.queued(&LogConfig::default());
        assert!(timer.due.lock().is_none());
        log.reconfigured(&LogConfig::default(), &within(3_600_000));
        tokio::time::sleep(Duration::from_secs(1)).await;
        log.reconfigured(&within(3_600_000), &within(50));
        tokio::time::sleep(Duration::from_millis(60)).await;
        synced(&dir, 1).await;
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_earlier_process_left_is_synced_in_time() {
        let dir = MemoryDir::open();
        let timer = FlushTimer::new(dir.clone());
        tokio::spawn(Arc::clone(&timer).run());
        let mut found = Unsynced::new(Arc::clone(&timer), &within(50), Offset(3), Offset(9));
        tokio::time::sleep(Duration::from_millis(60)).await;
        synced(&dir, 1).await;
        let counts = LogConfig { flush_messages: 6, ..LogConfig::default() };
        assert!(found.syncs(&counts, Offset(9)), "and by count");
        assert!(!found.syncs(&counts, Offset(9)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_sync_that_failed_was_the_last() {
        let memory = MemoryDir::open();
        let (dir, faults) = FaultyDir::around(memory.clone());
        let timer = FlushTimer::new(dir.clone());
        let mut log = of_empty_log(&timer);
        let running = tokio::spawn(Arc::clone(&timer).run());
        faults.fail_sync(0);
        log.queued(&within(0));
        running.await.expect("it ends");
        assert_eq!(memory.syncs(), 0);
        let after = storage::commit(&*dir, WriteSet::default()).await;
        assert!(matches!(after, Err(StorageError::Stopped { .. })), "I-6: {after:?}");
    }

    #[test]
    fn the_append_that_completes_the_count_is_synced() {
        let timer = FlushTimer::new(MemoryDir::open());
        let mut log = of_empty_log(&timer);
        let every = |flush_messages| LogConfig { flush_messages, ..LogConfig::default() };
        let mut synced = |flush_messages, ends: &[i64]| -> Vec<i64> {
            let synced = ends.iter().filter(|end| log.syncs(&every(flush_messages), Offset(**end)));
            synced.copied().collect()
        };
        assert_eq!(synced(3, &[1, 2, 3, 4, 5, 6, 16, 18, 19]), [3, 6, 16, 19]);
        assert_eq!(synced(1, &[20, 21]), [20, 21]);
        assert_eq!(synced(i64::MAX, &[22, 1 << 40]), [0; 0]);
        log.refused();
        assert!(log.syncs(&every(100), Offset(30_000)), "its sync was refused with it");
    }
}
