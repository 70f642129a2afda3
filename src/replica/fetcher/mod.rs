//! Followers' fetches: for each leader, and for each of `num.replica.fetchers`, one task that fetches all partitions
//! followed there, appends what comes, and asks for more only when that is written (I-5).
//!
//! A task owns what it follows and is told by orders. Taking a partition away is a barrier: when [`Fetchers::stop`]
//! returns, nothing of it is being appended or cut. Source: Kafka 3.9 `ReplicaFetcherManager`, `AbstractFetcherThread`.

mod follow;
mod session;
mod settings;
mod task;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

pub(crate) use self::settings::{FetcherSettings, Key};
use self::task::{Fetcher, Order};
use super::leader_link::LeaderLinks;
use super::partition::Partition;
use crate::clock::SharedClock;
use crate::cluster::registration::SharedBrokerEpoch;
use crate::task as tasks;
use crate::types::{BrokerId, LeaderEpoch, PartitionIndex};

/// All fetchers of this broker.
#[derive(Debug)]
pub(crate) struct Fetchers {
    me: BrokerId,
    epoch: SharedBrokerEpoch,
    links: Arc<dyn LeaderLinks>,
    clock: SharedClock,
    settings: FetcherSettings,
    tasks: Mutex<BTreeMap<(BrokerId, u16), mpsc::UnboundedSender<Order>>>,
}

impl Fetchers {
    pub(crate) fn new(
        me: BrokerId,
        epoch: SharedBrokerEpoch,
        links: Arc<dyn LeaderLinks>,
        clock: SharedClock,
        settings: FetcherSettings,
    ) -> Arc<Self> {
        Arc::new(Self { me, epoch, links, clock, settings, tasks: Mutex::default() })
    }

    /// Begins to follow this leader. Each partition has taken its role under this epoch, and no fetcher has it.
    pub(crate) fn follow(&self, leader: BrokerId, partitions: Vec<(Arc<Partition>, LeaderEpoch)>) {
        let mut by_fetcher: BTreeMap<u16, Vec<(Arc<Partition>, LeaderEpoch)>> = BTreeMap::new();
        for (partition, epoch) in partitions {
            let fetcher = self.fetcher_of(partition.id.topic.as_str(), partition.id.partition);
            by_fetcher.entry(fetcher).or_default().push((partition, epoch));
        }
        let mut tasks = self.tasks.lock();
        for (fetcher, partitions) in by_fetcher {
            let orders = tasks.entry((leader, fetcher)).or_insert_with(|| self.start(leader, fetcher));
            // Its task lives as long as the sender.
            orders.send(Order::Follow(partitions)).unwrap_or_default();
        }
    }

    /// Stops following these partitions, whoever leads them. Returns when none of them is being appended to or cut.
    pub(crate) async fn stop(&self, partitions: &[Key]) {
        if partitions.is_empty() {
            return;
        }
        self.order(|done| Order::Stop { partitions: partitions.to_vec(), done }).await;
    }

    /// Stops following anything. As [`Self::stop`].
    pub(crate) async fn stop_all(&self) {
        self.order(|done| Order::StopAll { done }).await;
    }

    /// Gives an order to every task and waits until all have obeyed.
    async fn order(&self, order: impl Fn(oneshot::Sender<()>) -> Order) {
        let obeyed: Vec<oneshot::Receiver<()>> = {
            let tasks = self.tasks.lock();
            let send = |orders: &mpsc::UnboundedSender<Order>| {
                let (done, obeyed) = oneshot::channel();
                orders.send(order(done)).unwrap_or_default();
                obeyed
            };
            tasks.values().map(send).collect()
        };
        // One that has ended follows nothing.
        join_all(obeyed).await;
    }

    fn start(&self, leader: BrokerId, fetcher: u16) -> mpsc::UnboundedSender<Order> {
        let (orders, mailbox) = mpsc::unbounded_channel();
        let link = self.links.link(leader, fetcher);
        let task = Fetcher::new(self.me, leader, self.epoch.clone(), link, self.clock.clone(), &self.settings, mailbox);
        tasks::spawn_owner("replica-fetcher", task.run());
        orders
    }

    /// Source: Kafka 3.9 `AbstractFetcherManager.getFetcherId`.
    fn fetcher_of(&self, topic: &str, partition: PartitionIndex) -> u16 {
        let hash = topic.bytes().fold(0_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)));
        let hash = hash.wrapping_mul(31).wrapping_add(partition.0.unsigned_abs());
        (hash % u32::from(self.settings.fetchers.max(1))) as u16
    }
}
