//! Elections that are asked for: of preferred leaders, by time, by `/admin/preferred_replica_election` or by an
//! administrator, and unclean ones by an administrator.
//!
//! The first replica of an assignment is its preferred leader. Source: Kafka 3.9
//! `KafkaController.processReplicaLeaderElection`, `checkAndTriggerAutoLeaderRebalance`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use super::asked::{ElectionRefused, ElectionResults, ElectionType};
use super::event::Event;
use super::fence::Interrupted;
use super::partitions::Cause;
use super::term::Term;
use crate::cluster::znodes::{admin, config};
use crate::coordination::{CoordinationError, Op};
use crate::types::{BrokerId, TopicPartition};

/// From the beginning of a term to its first look for misplaced leaders. Source: Kafka 3.9 `onControllerFailover`.
const FIRST_REBALANCE: Duration = Duration::from_secs(5);

impl Term {
    pub(super) async fn elect_leaders(
        &mut self,
        kind: ElectionType,
        partitions: BTreeSet<TopicPartition>,
    ) -> Result<ElectionResults, Interrupted> {
        let (mut results, mut electable) = (Vec::with_capacity(partitions.len()), Vec::new());
        for name in partitions {
            match self.check_election(kind, &name) {
                Ok(()) => electable.push(name),
                Err(refused) => results.push((name, Err(refused))),
            }
        }
        let cause = match kind {
            ElectionType::Preferred => Cause::Preferred,
            ElectionType::Unclean => Cause::Unclean,
        };
        let elected = self.settle_for(cause, electable.clone()).await?;
        self.announce(&elected, false);
        let elected: BTreeSet<_> = elected.into_iter().collect();
        for name in electable {
            let leader = self.leader(&name).filter(|_| elected.contains(&name));
            let result = leader.ok_or(match kind {
                ElectionType::Preferred => ElectionRefused::PreferredNotAvailable,
                ElectionType::Unclean => ElectionRefused::NoneAvailable,
            });
            results.push((name, result));
        }
        Ok(results)
    }

    fn check_election(&self, kind: ElectionType, name: &TopicPartition) -> Result<(), ElectionRefused> {
        let partition = self.context.partition(name).ok_or(ElectionRefused::UnknownPartition)?;
        if self.context.is_being_deleted(&name.topic) {
            return Err(ElectionRefused::BeingDeleted);
        }
        let leader = self.leader(name);
        let needed = match kind {
            ElectionType::Preferred => leader != partition.replicas.all.first().copied(),
            ElectionType::Unclean => !leader.is_some_and(|leader| self.context.brokers.contains_key(&leader)),
        };
        if needed { Ok(()) } else { Err(ElectionRefused::NotNeeded) }
    }

    pub(super) fn leader(&self, name: &TopicPartition) -> Option<BrokerId> {
        self.context.partition(name)?.state.as_ref()?.node.leader
    }

    /// The first look for misplaced leaders is due in a while.
    pub(super) fn schedule_rebalance(&self) {
        if self.settings.config.current().auto_leader_rebalance_enable {
            self.rebalance_after(FIRST_REBALANCE);
        }
    }

    fn rebalance_after(&self, pause: Duration) {
        self.watches.push(Box::pin(async move {
            sleep(pause).await;
            Event::RebalanceDue
        }));
    }

    pub(super) async fn on_rebalance_due(&mut self) -> Result<(), Interrupted> {
        let config = self.settings.config.current();
        self.rebalance_after(Duration::from_secs(config.leader_imbalance_check_interval_seconds.max(1).unsigned_abs()));
        let misplaced = self.misplaced(f64::from(config.leader_imbalance_per_broker_percentage) / 100.0);
        if misplaced.is_empty() {
            return Ok(());
        }
        let elected = self.settle_for(Cause::Preferred, misplaced).await?;
        info!(partitions = elected.len(), "their preferred leaders were elected");
        self.announce(&elected, false);
        Ok(())
    }

    /// Partitions that are led elsewhere than preferred, of those brokers of whose partitions more than `ratio_max`
    /// are.
    fn misplaced(&self, ratio_max: f64) -> Vec<TopicPartition> {
        let mut by_broker: BTreeMap<BrokerId, (usize, Vec<TopicPartition>)> = BTreeMap::new();
        for (name, partition) in self.context.partitions() {
            let Some(preferred) = partition.replicas.all.first() else { continue };
            if self.context.is_being_deleted(&name.topic) {
                continue;
            }
            let (count, elsewhere) = by_broker.entry(*preferred).or_default();
            *count += 1;
            if partition.state.as_ref().is_some_and(|led| led.node.leader != Some(*preferred)) {
                elsewhere.push(name);
            }
        }
        let tilted =
            by_broker.into_values().filter(|(count, elsewhere)| elsewhere.len() as f64 / *count as f64 > ratio_max);
        tilted.flat_map(|(_, elsewhere)| elsewhere).collect()
    }

    /// Carries out what `/admin/preferred_replica_election` asks for, and deletes it.
    pub(super) async fn on_preferred_election_asked(&mut self) -> Result<(), Interrupted> {
        loop {
            let (node, changed) = self.store.get_and_watch(admin::PREFERRED_ELECTION).await?;
            let Some((data, _)) = node else {
                self.watch(changed, Event::PreferredElectionAsked);
                return Ok(());
            };
            match admin::decode_preferred_election(&data) {
                Ok(partitions) => {
                    let results = self.elect_leaders(ElectionType::Preferred, partitions).await?;
                    for (TopicPartition { topic, partition }, result) in results {
                        if let Err(refused) = result {
                            info!(%topic, %partition, %refused, "no election of the preferred leader");
                        }
                    }
                }
                Err(error) => warn!(%error, "the wish is thrown away"),
            }
            let delete = Op::Delete { path: admin::PREFERRED_ELECTION.into(), version: -1 };
            match self.fence.write(vec![delete]).await?.map_err(|refused| refused.error) {
                // One that is gone already was taken back.
                Ok(_) | Err(CoordinationError::NoNode(_)) => {}
                Err(error) => {
                    warn!(%error, "the wish stays");
                    self.watch(changed, Event::PreferredElectionAsked);
                    return Ok(());
                }
            }
        }
    }

    /// A topic's or a broker's settings have changed: unclean elections may be allowed now.
    /// Source: Kafka 3.9 `TopicConfigHandler.processConfigChanges`, `DynamicLogConfig.reconfigure`.
    pub(super) async fn on_configs_changed(&mut self) -> Result<(), Interrupted> {
        let (_, changed) = self.store.children_and_watch(config::CHANGES).await?;
        self.watch(changed, Event::ConfigsChanged);
        self.elect_offline().await
    }

    pub(super) fn follow_settings(&self) {
        let mut changes = self.settings.config.subscribe();
        self.watches.push(Box::pin(async move {
            match changes.changed().await {
                Ok(()) => Event::SettingsChanged,
                // They live as long as the broker.
                Err(_) => std::future::pending().await,
            }
        }));
    }

    pub(super) async fn on_settings_changed(&mut self) -> Result<(), Interrupted> {
        self.follow_settings();
        self.elect_offline().await
    }
}
