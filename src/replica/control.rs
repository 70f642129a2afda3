//! Control requests as this broker obeys them: LeaderAndIsr and StopReplica for the replicas, UpdateMetadata for the
//! image.
//!
//! All three go through one lock in arrival order, are refused under stale epochs and change nothing when repeated
//! (I-14). Source: Kafka 3.9 `ReplicaManager.becomeLeaderOrFollower`, `stopReplicas`, `maybeUpdateMetadataCache`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::timeout;
use tracing::{info, warn};

use super::fetcher::{Fetchers, Key};
use super::manager::{OpenError, ReplicaManager, WantedReplica};
use super::partition::{NotTaken, Partition, Role};
use crate::cluster::control::{
    BrokerLink, ControlError, ControlHead, LeaderAndIsr, PartitionResults, PartitionState, StopReplica, UpdateMetadata,
};
use crate::cluster::dynamic_config::DynamicConfig;
use crate::cluster::image::ImagePublisher;
use crate::cluster::registration::SharedBrokerEpoch;
use crate::storage::{PartitionId, Queued, StorageError};
use crate::task;
use crate::types::{BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, PartitionIndex, TopicName};

/// How long roles wait for the settings of new topics: a broker that is cut off from the coordination store alone must
/// go on taking roles.
const SETTINGS_PATIENCE: Duration = Duration::from_secs(2);

/// What must hear of leadership, owned by a room above.
pub(crate) trait LeadershipListener: std::fmt::Debug + Send + Sync + 'static {
    /// This broker leads the partition under this epoch. Without a resignation in between it has led since the last
    /// call, and nothing that it appended was undone.
    fn on_leading(&self, topic: &TopicName, partition: PartitionIndex, epoch: LeaderEpoch);
    /// It no longer leads, or has not for a while. May be said again.
    fn on_resigned(&self, topic: &TopicName, partition: PartitionIndex);
    /// Topics that have left the cluster.
    fn on_topics_deleted(&self, topics: &[TopicName]);
}

/// This broker's end of the controller's channel.
#[derive(Debug)]
pub(crate) struct ReplicaControl {
    replicas: Arc<ReplicaManager>,
    image: Arc<ImagePublisher>,
    fetchers: Arc<Fetchers>,
    dynamic_config: Arc<DynamicConfig>,
    listener: Arc<dyn LeadershipListener>,
    broker_epoch: SharedBrokerEpoch,
    /// Held while a request is carried out: arrival order is the order of effects. Holds the last controller epoch.
    order: tokio::sync::Mutex<ControllerEpoch>,
}

impl ReplicaControl {
    /// `broker_epoch` is shared with the registration, which sets it before any controller can send.
    pub(crate) fn new(
        replicas: Arc<ReplicaManager>,
        image: Arc<ImagePublisher>,
        fetchers: Arc<Fetchers>,
        dynamic_config: Arc<DynamicConfig>,
        listener: Arc<dyn LeadershipListener>,
        broker_epoch: SharedBrokerEpoch,
    ) -> Arc<Self> {
        let order = tokio::sync::Mutex::new(ControllerEpoch::NONE);
        Arc::new(Self { replicas, image, fetchers, dynamic_config, listener, broker_epoch, order })
    }

    fn admit(&self, head: &ControlHead, last: &mut ControllerEpoch) -> Result<(), ControlError> {
        let mine = self.broker_epoch.get();
        if head.broker_epoch != BrokerEpoch::NONE && head.broker_epoch < mine {
            return Err(ControlError::StaleBrokerEpoch);
        }
        if head.controller_epoch < *last {
            return Err(ControlError::StaleControllerEpoch);
        }
        *last = head.controller_epoch;
        Ok(())
    }

    async fn apply_roles(&self, request: LeaderAndIsr) -> Result<PartitionResults, ControlError> {
        let mut order = self.order.lock().await;
        self.admit(&request.head, &mut order)?;
        let me = self.replicas.me;
        let mut results = Vec::new();
        let mut accepted: Vec<(PartitionId, PartitionState)> = Vec::new();
        for (topic, topic_id, states) in request.topics {
            for state in states {
                let id = PartitionId { topic: topic.clone(), topic_id, partition: state.partition };
                match self.check_role(&id, &state, me) {
                    Ok(()) => accepted.push((id, state)),
                    Err(refused) => results.push((topic.clone(), state.partition, Err(refused))),
                }
            }
        }
        self.read_settings(accepted.iter().map(|(id, _)| id)).await;
        let replicas = Arc::clone(&self.replicas);
        let wanted = accepted.iter().map(|(id, state)| WantedReplica { id: id.clone(), is_new: state.is_new });
        let wanted: Vec<_> = wanted.collect();
        let opened = task::blocking(move || replicas.open(&wanted)).await;
        // Nothing is appended or cut while the role changes.
        let keys: Vec<Key> = accepted.iter().map(|(id, _)| (id.topic.clone(), id.partition)).collect();
        self.fetchers.stop(&keys).await;
        let mut taken = Vec::with_capacity(accepted.len());
        for ((id, state), opened) in accepted.into_iter().zip(opened) {
            let recorded = match opened {
                Ok(partition) => {
                    let recorded = self.take_role(&partition, &state);
                    taken.push((id, Some(partition), recorded));
                    continue;
                }
                Err(OpenError::Storage(failure)) => Err(ControlError::Storage(failure.to_string())),
                Err(OpenError::InconsistentTopicId { here }) => Err(ControlError::InconsistentTopicId { here }),
            };
            taken.push((id, None, recorded));
        }
        for (id, partition, recorded) in taken {
            let result = match recorded {
                Err(refused) => Err(refused),
                Ok(recorded) => match recorded.await {
                    // Without space the role holds all the same: the partition records it when it is opened anew.
                    Ok(()) | Err(StorageError::Full { .. }) => Ok(()),
                    // What failed may be a directory that its log has left meanwhile, and took the record along.
                    Err(_) => partition
                        .and_then(|partition| partition.failure())
                        .map_or(Ok(()), |it| Err(ControlError::Storage(it))),
                },
            };
            results.push((id.topic, id.partition, result));
        }
        self.follow(&keys);
        Ok(results)
    }

    /// Follows what is to be followed, whether a role was taken or an older one goes on.
    fn follow(&self, keys: &[Key]) {
        let mut by_leader: BTreeMap<BrokerId, Vec<(Arc<Partition>, LeaderEpoch)>> = BTreeMap::new();
        for (topic, partition) in keys {
            let Some(partition) = self.replicas.get(topic.as_str(), *partition) else { continue };
            if let Some((leader, epoch)) = partition.follows() {
                by_leader.entry(leader).or_default().push((partition, epoch));
            }
        }
        for (leader, partitions) in by_leader {
            self.fetchers.follow(leader, partitions);
        }
    }

    /// Reads the settings of topics that are about to be opened: their creation is in no feed.
    async fn read_settings(&self, partitions: impl Iterator<Item = &PartitionId>) {
        let closed = partitions.filter(|id| self.replicas.get(id.topic.as_str(), id.partition).is_none());
        let mut topics: Vec<TopicName> = closed.map(|id| id.topic.clone()).collect();
        topics.sort();
        topics.dedup();
        if topics.is_empty() {
            return;
        }
        let why = match timeout(SETTINGS_PATIENCE, self.dynamic_config.reload_topics(&topics)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer in {SETTINGS_PATIENCE:?}"),
        };
        warn!(why, count = topics.len(), "settings of new topics could not be read; the broker's own hold until then");
        // The feed does not: it reads what changes, and everything in a new session alone.
        let dynamic_config = Arc::clone(&self.dynamic_config);
        task::spawn_owner("settings of new topics", async move { dynamic_config.reload_topics_at_last(&topics).await });
    }

    /// Source: Kafka 3.9 `ReplicaManager.becomeLeaderOrFollower`.
    fn check_role(&self, id: &PartitionId, state: &PartitionState, me: BrokerId) -> Result<(), ControlError> {
        if let Some(known) = self.replicas.get(id.topic.as_str(), id.partition) {
            if known.id.topic_id != id.topic_id {
                // Nothing is deleted for it: the old topic goes by a StopReplica, or as a stray of the next start.
                return Err(ControlError::InconsistentTopicId { here: known.id.topic_id });
            }
            if known.has_taken(state.leader_epoch) {
                // A controller that asks again wants to know what a disk has lost.
                return Err(known.failure().map_or(ControlError::StaleControllerEpoch, ControlError::Storage));
            }
        }
        if state.replicas.contains(&me) { Ok(()) } else { Err(ControlError::UnknownPartition) }
    }

    fn take_role(&self, partition: &Arc<Partition>, state: &PartitionState) -> Result<Queued, ControlError> {
        let before = partition.view();
        let topic = &partition.id.topic;
        let recorded = match partition.take_role(Role {
            leader: state.leader,
            leader_epoch: state.leader_epoch,
            isr: state.isr.clone(),
            partition_epoch: state.partition_epoch,
            replicas: state.replicas.clone(),
        }) {
            Ok(recorded) => recorded,
            Err(NotTaken::Outdated) => {
                info!(%topic, partition = %partition.id.partition, partition_epoch = %state.partition_epoch,
                    "a role of an older state is ignored");
                return Ok(Queued::nothing());
            }
            Err(NotTaken::EndLost) => return Err(ControlError::EndLost),
        };
        if topic.is_internal() {
            let leading = partition.view().leading;
            // A StopReplica, which says nothing to the coordinator, may have ended an earlier leadership.
            if !leading || !before.leading {
                self.listener.on_resigned(topic, partition.id.partition);
            }
            if leading {
                self.listener.on_leading(topic, partition.id.partition, state.leader_epoch);
            }
        }
        // Whatever the role, it is offline: a controller that heard otherwise would have it lead once more.
        partition.failure().map_or(Ok(recorded), |failure| Err(ControlError::Storage(failure)))
    }

    async fn stop(&self, request: StopReplica) -> Result<PartitionResults, ControlError> {
        let mut order = self.order.lock().await;
        self.admit(&request.head, &mut order)?;
        let mut results = Vec::new();
        let mut doomed = Vec::new();
        let keys: Vec<Key> = request.partitions.iter().map(|stop| (stop.topic.clone(), stop.partition)).collect();
        self.fetchers.stop(&keys).await;
        for stop in request.partitions {
            let partition = self.replicas.get(stop.topic.as_str(), stop.partition);
            let known = partition.as_ref().map(|partition| partition.role().leader_epoch);
            if stop.leader_epoch.is_some_and(|epoch| known.is_some_and(|known| epoch < known)) {
                results.push((stop.topic, stop.partition, Err(ControlError::FencedLeaderEpoch)));
                continue;
            }
            if stop.delete {
                // Also what no request has opened: its topic may have been deleted while this broker was down.
                if stop.topic.is_internal() && partition.is_some() {
                    self.listener.on_resigned(&stop.topic, stop.partition);
                }
                doomed.push((stop.topic, stop.partition));
                continue;
            }
            if let Some(partition) = partition {
                partition.stop_following();
            }
            results.push((stop.topic, stop.partition, Ok(())));
        }
        results.extend(self.delete(doomed).await);
        // Those that were not to be stopped, for their epoch.
        self.follow(&keys);
        Ok(results)
    }

    async fn delete(&self, doomed: Vec<(TopicName, PartitionIndex)>) -> PartitionResults {
        if doomed.is_empty() {
            return Vec::new();
        }
        info!(count = doomed.len(), "deleting partitions");
        let (replicas, names) = (Arc::clone(&self.replicas), doomed.clone());
        let deleted = task::blocking(move || replicas.delete(&names)).await;
        doomed
            .into_iter()
            .zip(deleted)
            .map(|((topic, partition), result)| {
                (topic, partition, result.map_err(|failure| ControlError::Storage(failure.to_string())))
            })
            .collect()
    }

    async fn update(&self, request: UpdateMetadata) -> Result<(), ControlError> {
        let mut order = self.order.lock().await;
        self.admit(&request.head, &mut order)?;
        let before = self.image.current();
        self.image.apply(&request);
        let after = self.image.current();
        let gone: Vec<TopicName> = request
            .topics
            .iter()
            .filter(|change| {
                before.topic(change.name.as_str()).is_some() && after.topic(change.name.as_str()).is_none()
            })
            .map(|change| change.name.clone())
            .collect();
        if !gone.is_empty() {
            self.dynamic_config.forget_topics(&gone);
            self.listener.on_topics_deleted(&gone);
            for topic in &gone {
                for partition in self.replicas.of_topic(topic.as_str()) {
                    partition.waiters.wake_all();
                }
            }
        }
        Ok(())
    }
}

impl BrokerLink for ReplicaControl {
    fn leader_and_isr(&self, request: LeaderAndIsr) -> BoxFuture<'_, Result<PartitionResults, ControlError>> {
        self.apply_roles(request).boxed()
    }

    fn update_metadata(&self, request: UpdateMetadata) -> BoxFuture<'_, Result<(), ControlError>> {
        self.update(request).boxed()
    }

    fn stop_replica(&self, request: StopReplica) -> BoxFuture<'_, Result<PartitionResults, ControlError>> {
        self.stop(request).boxed()
    }
}
