//! Brokers that come, go and come back. The czxid of a registration tells a bounced broker from one that stayed.
//!
//! Source: Kafka 3.9 `KafkaController.processBrokerChange`, `onBrokerStartup`, `onBrokerFailure`, `onBrokerUpdate`.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{error, info};

use super::context::Broker;
use super::event::Event;
use super::fence::Interrupted;
use super::term::Term;
use crate::cluster::znodes::brokers;
use crate::types::{BrokerEpoch, BrokerId, TopicPartition};

impl Term {
    /// Reads the live brokers and arms a watch on each that is not known under the same epoch. One that vanishes while
    /// it is read is not live.
    pub(super) async fn read_brokers(&mut self) -> Result<BTreeMap<BrokerId, Broker>, Interrupted> {
        let (names, changed) = self.store.children_and_watch(brokers::IDS).await?;
        self.watch(changed, Event::BrokersChanged);
        let mut live = BTreeMap::new();
        for id in names.iter().filter_map(|name| name.parse().ok()).map(BrokerId) {
            if let Some((broker, changed)) = self.read_broker(id).await? {
                let known = self.context.brokers.get(&id).is_some_and(|known| known.epoch == broker.epoch);
                if !known {
                    self.watch(changed, Event::BrokerModified(id));
                }
                live.insert(id, broker);
            }
        }
        Ok(live)
    }

    async fn read_broker(&self, id: BrokerId) -> Result<Option<(Broker, crate::coordination::Changed)>, Interrupted> {
        let (node, changed) = self.store.get_and_watch(&brokers::path(id)).await?;
        let Some((data, stat)) = node else { return Ok(None) };
        match brokers::decode(id, &data) {
            Ok(info) => Ok(Some((Broker { info, epoch: BrokerEpoch(stat.czxid) }, changed))),
            Err(error) => {
                error!(%error, "the broker is ignored");
                Ok(None)
            }
        }
    }

    pub(super) async fn on_brokers_changed(&mut self) -> Result<(), Interrupted> {
        let live = self.read_brokers().await?;
        let stayed = |id: &BrokerId, epoch| live.get(id).is_some_and(|broker| broker.epoch == epoch);
        let gone: BTreeSet<BrokerId> =
            self.context.brokers.iter().filter(|(id, broker)| !stayed(id, broker.epoch)).map(|(id, _)| *id).collect();
        if !gone.is_empty() {
            info!(brokers = ?gone, "gone or bounced");
            self.on_brokers_gone(&gone).await?;
        }
        let come: BTreeMap<_, _> = live.into_iter().filter(|(id, _)| !self.context.brokers.contains_key(id)).collect();
        if !come.is_empty() {
            info!(brokers = ?come.keys(), "live");
            self.on_brokers_come(come).await?;
        }
        Ok(())
    }

    async fn on_brokers_gone(&mut self, gone: &BTreeSet<BrokerId>) -> Result<(), Interrupted> {
        for id in gone {
            self.context.brokers.remove(id);
            self.context.shutting_down.remove(id);
            self.channels.close(*id);
        }
        self.context.failed_replicas.retain(|(id, _, _)| !gone.contains(id));
        self.suspend_deletions(gone);
        let hosted = self.context.select(|_, partition| partition.replicas.all.iter().any(|id| gone.contains(id)));
        let changed = self.settle(hosted).await?;
        match changed.is_empty() {
            true => self.send_metadata(self.context.brokers.keys().copied(), &[], &[]),
            false => self.announce(&changed, false),
        }
        Ok(())
    }

    async fn on_brokers_come(&mut self, come: BTreeMap<BrokerId, Broker>) -> Result<(), Interrupted> {
        let ids: BTreeSet<BrokerId> = come.keys().copied().collect();
        for broker in come.values() {
            self.channels.open(&broker.info, broker.epoch);
        }
        self.context.brokers.extend(come);
        // I-15: every broker hears of the new ones before one of them is named as a leader.
        let others: Vec<_> = self.context.brokers.keys().copied().filter(|id| !ids.contains(id)).collect();
        self.send_metadata(others, &[], &[]);
        let all = self.context.select(|_, _| true);
        self.send_metadata(ids.iter().copied(), &all, &[]);
        for id in &ids {
            self.send_hosted(*id);
        }
        self.bring_online().await?;
        self.resume_reassignments(&ids).await?;
        self.resume_deletions().await
    }

    /// LeaderAndIsr with every partition of a broker.
    pub(super) fn send_hosted(&self, broker: BrokerId) {
        let hosted = self.context.select(|_, partition| partition.replicas.all.contains(&broker));
        self.send_roles(broker, &hosted, false);
    }

    /// Gives a leader to every partition that lacks one and can have one.
    pub(super) async fn bring_online(&mut self) -> Result<(), Interrupted> {
        let new = self
            .context
            .select(|name, partition| partition.state.is_none() && !self.context.is_being_deleted(&name.topic));
        let created = self.create_states(&new).await?;
        self.announce(&created, true);
        self.elect_offline().await
    }

    /// Elects for the partitions whose leader is lost, as far as somebody can lead them now.
    pub(super) async fn elect_offline(&mut self) -> Result<(), Interrupted> {
        let offline: Vec<TopicPartition> = self.context.select(|name, partition| {
            let leader = partition.state.as_ref().and_then(|led| led.node.leader);
            let leads = |id: BrokerId| partition.replicas.all.contains(&id) && self.context.is_alive(id, name);
            !leader.is_some_and(leads)
        });
        let elected = self.settle(offline).await?;
        self.announce(&elected, false);
        Ok(())
    }

    /// Endpoints or rack changed: every broker is told.
    pub(super) async fn on_broker_modified(&mut self, id: BrokerId) -> Result<(), Interrupted> {
        // One that is gone, or came back, is the business of the list of brokers.
        let Some((broker, changed)) = self.read_broker(id).await? else { return Ok(()) };
        let Some(known) = self.context.brokers.get_mut(&id).filter(|known| known.epoch == broker.epoch) else {
            return Ok(());
        };
        let same = known.info == broker.info;
        known.info = broker.info;
        self.watch(changed, Event::BrokerModified(id));
        if !same {
            info!(broker = %id, "the broker's endpoints changed");
            self.channels.relink(&self.context.brokers[&id].info);
            self.send_metadata(self.context.brokers.keys().copied(), &[], &[]);
        }
        Ok(())
    }
}
