//! The links between brokers: a delay each way, cuts in one direction, resets that lose the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::chance::Chance;
use super::cluster::Plant;
use crate::cluster::control::{
    AlterPartition, BrokerLink, ControlError, ControllerError, IsrLink, IsrResults, LeaderAndIsr, LiveBroker,
    PartitionResults, StopReplica, UpdateMetadata,
};
use crate::cluster::image::ClusterImage;
use crate::controller::LinkSource;
use crate::replica::follower_fetch::FollowerFetches;
use crate::replica::leader_link::{
    FetchAnswer, FetchAsk, FetchRefused, LeaderLink, LeaderLinks, LinkError, LogEnd, SessionError,
};
use crate::replica::manager::ReplicaManager;
use crate::storage::PartitionId;
use crate::task::testing::Process;
use crate::types::{BrokerId, LeaderEpoch, Offset};

/// How long a caller waits for an answer that never comes.
const TIME_OUT: Duration = Duration::from_secs(5);

/// What a broker answers with.
#[derive(Debug, Clone)]
pub(super) struct Ends {
    pub(super) process: Arc<Process>,
    pub(super) control: Arc<dyn BrokerLink>,
    pub(super) isr: Arc<dyn IsrLink>,
    pub(super) fetches: Arc<FollowerFetches>,
    /// For clients.
    pub(super) replicas: Arc<ReplicaManager>,
}

/// The network of a run.
#[derive(Debug)]
pub(super) struct Net {
    chance: Chance,
    ends: Mutex<BTreeMap<BrokerId, Ends>>,
    /// Nothing gets from the first to the second.
    cuts: Mutex<BTreeSet<(BrokerId, BrokerId)>>,
    /// One call in so many loses its answer.
    pub(super) resets: Mutex<u64>,
    plant: Plant,
}

impl Net {
    pub(super) fn new(chance: Chance, plant: Plant) -> Arc<Self> {
        let resets = Mutex::new(u64::MAX);
        Arc::new(Self { chance, ends: Mutex::default(), cuts: Mutex::default(), resets, plant })
    }

    pub(super) fn plug(&self, broker: BrokerId, ends: Ends) {
        self.ends.lock().insert(broker, ends);
    }

    pub(super) fn unplug(&self, broker: BrokerId) {
        self.ends.lock().remove(&broker);
    }

    pub(super) fn cut(&self, from: BrokerId, to: BrokerId) {
        self.cuts.lock().insert((from, to));
    }

    pub(super) fn heal(&self) {
        self.cuts.lock().clear();
        *self.resets.lock() = u64::MAX;
    }

    fn is_cut(&self, from: BrokerId, to: BrokerId) -> bool {
        self.cuts.lock().contains(&(from, to))
    }

    /// One call over a connection. It is done even if nobody waits for its answer any more.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        what: &str,
        from: BrokerId,
        to: BrokerId,
        call: impl FnOnce(Ends) -> BoxFuture<'static, T>,
    ) -> Result<T, String> {
        sleep(self.chance.micros(50, 1500)).await;
        if self.is_cut(from, to) {
            sleep(TIME_OUT).await;
            return Err("timed out".into());
        }
        let Some(ends) = self.ends.lock().get(&to).cloned() else { return Err("connection refused".into()) };
        self.chance.note(&format!("{what} {from}>{to}"));
        let resets = *self.resets.lock();
        let answer = ends.process.spawn(call(ends.clone()));
        if self.chance.one_in(resets) {
            return Err("connection reset".into());
        }
        let answer = match timeout(TIME_OUT, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => return Err("connection reset by a broker that was killed".into()),
            Err(_) => return Err("timed out".into()),
        };
        if self.is_cut(to, from) {
            sleep(TIME_OUT).await;
            return Err("timed out".into());
        }
        sleep(self.chance.micros(50, 1500)).await;
        Ok(answer)
    }
}

/// The controller's way to other brokers; its own it reaches directly.
#[derive(Debug)]
pub(super) struct NetLinks {
    pub(super) net: Arc<Net>,
    pub(super) me: BrokerId,
    pub(super) own: Arc<dyn BrokerLink>,
}

impl LinkSource for NetLinks {
    fn link(&self, broker: &LiveBroker) -> Option<Arc<dyn BrokerLink>> {
        if broker.id == self.me {
            return Some(Arc::clone(&self.own));
        }
        Some(Arc::new(NetLink { net: Arc::clone(&self.net), from: self.me, to: broker.id }))
    }
}

/// From one broker to another.
#[derive(Debug)]
struct NetLink {
    net: Arc<Net>,
    from: BrokerId,
    to: BrokerId,
}

impl BrokerLink for NetLink {
    fn leader_and_isr(&self, request: LeaderAndIsr) -> BoxFuture<'_, Result<PartitionResults, ControlError>> {
        let call = |ends: Ends| async move { ends.control.leader_and_isr(request).await }.boxed();
        async move { self.net.call("LISR", self.from, self.to, call).await.map_err(ControlError::Unreachable)? }.boxed()
    }

    fn update_metadata(&self, request: UpdateMetadata) -> BoxFuture<'_, Result<(), ControlError>> {
        let call = |ends: Ends| async move { ends.control.update_metadata(request).await }.boxed();
        async move { self.net.call("UM", self.from, self.to, call).await.map_err(ControlError::Unreachable)? }.boxed()
    }

    fn stop_replica(&self, request: StopReplica) -> BoxFuture<'_, Result<PartitionResults, ControlError>> {
        let call = |ends: Ends| async move { ends.control.stop_replica(request).await }.boxed();
        async move { self.net.call("SR", self.from, self.to, call).await.map_err(ControlError::Unreachable)? }.boxed()
    }
}

/// A leader's way to the controller that its image names.
#[derive(Debug)]
pub(super) struct NetController {
    pub(super) net: Arc<Net>,
    pub(super) me: BrokerId,
    pub(super) image: watch::Receiver<Arc<ClusterImage>>,
}

impl IsrLink for NetController {
    fn alter_partition(&self, request: AlterPartition) -> BoxFuture<'_, Result<IsrResults, ControllerError>> {
        let controller = self.image.borrow().controller;
        async move {
            let controller = controller.ok_or(ControllerError::NotController)?;
            let call = |ends: Ends| async move { ends.isr.alter_partition(request).await }.boxed();
            self.net.call("AP", self.me, controller, call).await.map_err(ControllerError::Unavailable)?
        }
        .boxed()
    }
}

/// A follower's way to its leaders.
#[derive(Debug)]
pub(super) struct NetLeaders {
    pub(super) net: Arc<Net>,
    pub(super) me: BrokerId,
}

impl LeaderLinks for NetLeaders {
    fn link(&self, leader: BrokerId, _: u16) -> Arc<dyn LeaderLink> {
        Arc::new(NetLink { net: Arc::clone(&self.net), from: self.me, to: leader })
    }
}

impl LeaderLink for NetLink {
    fn fetch(&self, mut ask: FetchAsk) -> BoxFuture<'_, Result<Result<FetchAnswer, SessionError>, LinkError>> {
        for partition in &mut ask.partitions {
            match self.net.plant {
                Plant::FetchAhead => partition.fetch_offset = partition.fetch_offset + 1,
                Plant::EpochUnsaid => partition.last_fetched_epoch = None,
                Plant::Nothing | Plant::BounceUnseen => {}
            }
        }
        for partition in &ask.partitions {
            let (offset, epoch) = (partition.fetch_offset, partition.last_fetched_epoch);
            tracing::trace!(target: "sim::fetch", from = %self.from, to = %self.to, partition = %partition.id.partition,
                %offset, ?epoch, under = ?partition.leader_epoch);
        }
        let call = |ends: Ends| async move { ends.fetches.fetch(ask).await }.boxed();
        async move { self.net.call("F", self.from, self.to, call).await.map_err(LinkError) }.boxed()
    }

    fn list_offset(
        &self,
        id: PartitionId,
        leader_epoch: LeaderEpoch,
        end: LogEnd,
    ) -> BoxFuture<'_, Result<Result<Offset, FetchRefused>, LinkError>> {
        let call = move |ends: Ends| async move { ends.fetches.list_offset(&id, Some(leader_epoch), end) }.boxed();
        async move { self.net.call("LO", self.from, self.to, call).await.map_err(LinkError) }.boxed()
    }
}
