//! The task that owns one shard: loads it, then receives, decides, appends, replays, and answers once that is durable.
//!
//! Lifecycle: starts with an election, ends with the resignation or when the log says that another broker leads. A
//! panic ends the process. What it publishes: whether the shard is loaded.
//!
//! A log is read to its end, above the high watermark too, since its end is what the leader goes on from. What stands
//! there may yet be undone by another election, so the shard is served once the high watermark has come to where the
//! log ended (I-18); Kafka serves it at once. It cannot come there while the ISR is smaller than `min.insync.replicas`:
//! after a while what only reads is served then.
//!
//! How it is served stands in `serving`. A failure to append that passes is made up for there; any other is not undone:
//! the shard is dropped, waiting requests are told, and a new one is loaded from the log.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};
use tracing::{error, info, warn};

use super::context::Context;
use super::flight::Command;
use super::loading::Loading;
use super::serving::Serving;
use super::shard::Shard;
use super::writer::{Appending, WriteError};
use crate::types::{LeaderEpoch, Offset, PartitionIndex};

/// Pause before a load is tried again after it, or an append, failed; it doubles as long as nothing was appended.
const RELOAD_PAUSE: Duration = Duration::from_secs(1);
const RELOAD_PAUSE_MAX: Duration = Duration::from_secs(60);

/// How long a loaded shard waits for the high watermark before it asks whether that can move at all.
const REPLICATION_PATIENCE: Duration = Duration::from_secs(5);

/// A shard that has read its log.
struct Read<S> {
    shard: S,
    /// The wait for the high watermark, if it has not come to the end of what was read.
    unreplicated: Option<Appending>,
}

/// Why a shard is no longer served.
enum End {
    Stopped,
    Failed(WriteError),
}

/// Owner of the shard of one partition.
pub(crate) struct Owner<S: Shard> {
    context: Arc<Context<S>>,
    partition: PartitionIndex,
    /// Under which this leadership began.
    epoch: LeaderEpoch,
    commands: mpsc::Receiver<Command<S>>,
    active: Arc<AtomicBool>,
}

impl<S: Shard> Owner<S> {
    pub(crate) fn new(
        context: Arc<Context<S>>,
        partition: PartitionIndex,
        epoch: LeaderEpoch,
        commands: mpsc::Receiver<Command<S>>,
        active: Arc<AtomicBool>,
    ) -> Self {
        Self { context, partition, epoch, commands, active }
    }

    /// Runs until the handle is dropped, or until the log is led elsewhere.
    pub(crate) async fn run(mut self, mut stop: oneshot::Receiver<()>) {
        let mut pause = RELOAD_PAUSE;
        loop {
            let mut has_appended = false;
            let loaded = tokio::select! {
                biased;
                _ = &mut stop => return,
                loaded = self.load() => loaded,
            };
            let end = match loaded {
                Ok(read) => self.serve(read, &mut stop, &mut has_appended).await,
                Err(error) => End::Failed(error),
            };
            self.active.store(false, Ordering::Release);
            let partition = self.partition;
            match end {
                End::Stopped => return,
                End::Failed(WriteError::NotLeader) => {
                    info!(topic = %self.context.topic, %partition, epoch = %self.epoch, "no longer the leader");
                    return;
                }
                End::Failed(error) => {
                    error!(topic = %self.context.topic, %partition, %error, "coordinator log failed");
                }
            }
            tokio::select! {
                biased;
                _ = &mut stop => return,
                () = sleep(pause) => {}
            }
            pause = if has_appended { RELOAD_PAUSE } else { (2 * pause).min(RELOAD_PAUSE_MAX) };
        }
    }

    async fn load(&self) -> Result<Read<S>, WriteError> {
        let (shard, end) = self.read().await?;
        let Context { topic, writer, .. } = &*self.context;
        let mut replicated = writer.until_replicated(topic, self.partition, self.epoch, end);
        loop {
            match timeout(REPLICATION_PATIENCE, &mut replicated).await {
                Ok(outcome) => return outcome.map(|_| Read { shard, unreplicated: None }),
                Err(_) => {
                    if writer.may_append(topic, self.partition, self.epoch) == Err(WriteError::NotEnoughReplicas) {
                        warn!(%topic, partition = %self.partition,
                            "too few replicas are in sync; the coordinator is read from, and takes nothing");
                        return Ok(Read { shard, unreplicated: Some(replicated) });
                    }
                }
            }
        }
    }

    /// Replays the log into a new shard, on the thread that reads it. Answers where the log ended, too.
    async fn read(&self) -> Result<(S, Offset), WriteError> {
        let _permit = self.context.loads.acquire().await.map_err(|_| WriteError::NotLeader)?;
        let started_ms = self.context.clock.monotonic_ms();
        let loading = Loading::new((self.context.make)());
        let (abandon, visit) = loading.visit();
        let end = self.context.writer.load(&self.context.topic, self.partition, visit).await?;
        let Loading { shard, records, skipped } = abandon.done();
        let elapsed_ms = self.context.clock.monotonic_ms() - started_ms;
        info!(
            topic = %self.context.topic, partition = %self.partition, epoch = %self.epoch, records, skipped, elapsed_ms,
            "coordinator loaded"
        );
        Ok((shard, end))
    }

    /// `has_appended`: whether anything was.
    async fn serve(&mut self, read: Read<S>, stop: &mut oneshot::Receiver<()>, has_appended: &mut bool) -> End {
        let mut serving = Serving::new(&self.context, self.partition, self.epoch, read.shard, has_appended);
        serving.begin(read.unreplicated);
        self.active.store(true, Ordering::Release);
        match serving.run(&mut self.commands, stop).await {
            Ok(()) => End::Stopped,
            Err(error) => {
                self.active.store(false, Ordering::Release);
                serving.fail(&error, &mut self.commands);
                End::Failed(error)
            }
        }
    }
}
