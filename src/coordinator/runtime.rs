//! The shards of one coordinator on this broker: which partitions are led here, and how a request reaches its shard.
//!
//! A shard is started when this broker becomes the leader of its partition and ends when it no longer is; in between
//! one task owns it (`owner`), also while leader epochs pass, as they do whenever a follower goes: what leads without a
//! gap has lost nothing of its log. Election and resignation arrive in the order in which the replica room applies
//! them.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::context::{Context, MakeShard, Unavailable};
use super::flight::Command;
use super::owner::Owner;
use super::shard::Shard;
use super::writer::SharedWriter;
use crate::clock::SharedClock;
use crate::task;
use crate::types::{LeaderEpoch, PartitionIndex, TopicName, limits};

/// The shards of one coordinator.
pub(crate) struct Runtime<S: Shard> {
    context: Arc<Context<S>>,
    shards: RwLock<HashMap<PartitionIndex, ShardHandle<S>>>,
}

/// The way to the task that owns a shard. Dropping it ends the task.
struct ShardHandle<S: Shard> {
    mailbox: mpsc::Sender<Command<S>>,
    active: Arc<AtomicBool>,
    _stop: oneshot::Sender<()>,
}

impl<S: Shard> fmt::Debug for Runtime<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("topic", &self.context.topic).finish_non_exhaustive()
    }
}

impl<S: Shard> Runtime<S> {
    pub(crate) fn new(topic: TopicName, writer: SharedWriter, clock: SharedClock, make: MakeShard<S>) -> Self {
        let loads = Semaphore::new(limits::COORDINATOR_LOADS_MAX);
        Self { context: Arc::new(Context { topic, writer, clock, make, loads }), shards: RwLock::default() }
    }

    /// This broker leads the partition under `epoch`: starts its shard, which loads first. If there is one, it has led
    /// without a gap, and the shard goes on: the log takes its appends as long as that is so.
    pub(crate) fn on_elected(&self, partition: PartitionIndex, epoch: LeaderEpoch) {
        let mut shards = self.shards.write();
        if shards.get(&partition).is_some_and(|shard| !shard.mailbox.is_closed()) {
            return;
        }
        let (mailbox, commands) = mpsc::channel(limits::MAILBOX_COMMANDS_MAX);
        let (stop, stopped) = oneshot::channel();
        let active = Arc::new(AtomicBool::new(false));
        let owner = Owner::new(self.context.clone(), partition, epoch, commands, active.clone());
        task::spawn_owner("coordinator", owner.run(stopped));
        shards.insert(partition, ShardHandle { mailbox, active, _stop: stop });
    }

    /// This broker no longer leads the partition: its shard ends, and waiting requests are told that it is elsewhere.
    pub(crate) fn on_resigned(&self, partition: PartitionIndex) {
        self.shards.write().remove(&partition);
    }

    /// The partitions whose shards are here, loading or loaded; in order.
    pub(crate) fn partitions(&self) -> Vec<PartitionIndex> {
        let mut partitions: Vec<PartitionIndex> = self.shards.read().keys().copied().collect();
        partitions.sort_unstable();
        partitions
    }

    /// How many shards are here that have not read all of their log yet. One that gave up does not count.
    pub(crate) fn loading(&self) -> usize {
        let shards = self.shards.read();
        let loading = |shard: &&ShardHandle<S>| !shard.active.load(Ordering::Acquire) && !shard.mailbox.is_closed();
        shards.values().filter(loading).count()
    }

    /// Puts a request into the mailbox of its shard, waiting for room. When this returns its place is fixed; the
    /// future it returns waits for the reply.
    pub(crate) async fn ask(
        &self,
        partition: PartitionIndex,
        request: S::Request,
    ) -> Result<impl Future<Output = Result<S::Reply, Unavailable>> + Send + use<S>, Unavailable> {
        self.send(partition, request, true).await
    }

    /// Like [`Runtime::ask`], but a shard that is loading takes the request as well and handles it afterwards.
    pub(crate) async fn ask_even_if_loading(
        &self,
        partition: PartitionIndex,
        request: S::Request,
    ) -> Result<impl Future<Output = Result<S::Reply, Unavailable>> + Send + use<S>, Unavailable> {
        self.send(partition, request, false).await
    }

    async fn send(
        &self,
        partition: PartitionIndex,
        request: S::Request,
        loaded: bool,
    ) -> Result<impl Future<Output = Result<S::Reply, Unavailable>> + Send + use<S>, Unavailable> {
        let mailbox = {
            let shards = self.shards.read();
            let shard = shards.get(&partition).ok_or(Unavailable::NotCoordinator)?;
            if loaded && !shard.active.load(Ordering::Acquire) {
                // A shard that gave up keeps its handle until the replica room says that it resigned.
                let ended = shard.mailbox.is_closed();
                return Err(if ended { Unavailable::NotCoordinator } else { Unavailable::Loading });
            }
            shard.mailbox.clone()
        };
        let (reply, answer) = oneshot::channel();
        mailbox.send(Command { request, reply }).await.map_err(|_| Unavailable::NotCoordinator)?;
        // The sender is dropped with the shard.
        Ok(async move { answer.await.unwrap_or(Err(Unavailable::NotCoordinator)) })
    }
}
