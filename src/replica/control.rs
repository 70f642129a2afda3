//! Control requests as this broker obeys them: LeaderAndIsr and StopReplica for the replicas, UpdateMetadata for the
//! image.
//!
//! All three go through one lock in arrival order, are refused under stale epochs and change nothing when repeated
//! (I-14). Source: Kafka 3.9 `ReplicaManager.becomeLeaderOrFollower`, `stopReplicas`, `maybeUpdateMetadataCache`.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tracing::{info, warn};

use super::manager::ReplicaManager;
use super::partition::{Partition, Role};
use crate::cluster::control::{
    BrokerLink, ControlError, ControlHead, LeaderAndIsr, PartitionResults, PartitionState, StopReplica, UpdateMetadata,
};
use crate::cluster::dynamic_config::DynamicConfig;
use crate::cluster::image::ImagePublisher;
use crate::cluster::registration::SharedBrokerEpoch;
use crate::storage::{PartitionId, Queued, StorageError};
use crate::task;
use crate::types::{BrokerEpoch, ControllerEpoch, LeaderEpoch, PartitionIndex, TopicName};

/// Who must hear of leadership, owned by a room above.
pub(crate) trait LeadershipListener: std::fmt::Debug + Send + Sync + 'static {
    fn on_leading(&self, topic: &TopicName, partition: PartitionIndex, epoch: LeaderEpoch);
    fn on_resigned(&self, topic: &TopicName, partition: PartitionIndex);
    /// Topics that have left the cluster.
    fn on_topics_deleted(&self, topics: &[TopicName]);
}

/// This broker's end of the controller's channel.
#[derive(Debug)]
pub(crate) struct ReplicaControl {
    replicas: Arc<ReplicaManager>,
    image: Arc<ImagePublisher>,
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
        dynamic_config: Arc<DynamicConfig>,
        listener: Arc<dyn LeadershipListener>,
        broker_epoch: SharedBrokerEpoch,
    ) -> Arc<Self> {
        let order = tokio::sync::Mutex::new(ControllerEpoch::NONE);
        Arc::new(Self { replicas, image, dynamic_config, listener, broker_epoch, order })
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
        let ids: Vec<PartitionId> = accepted.iter().map(|(id, _)| id.clone()).collect();
        let opened = task::blocking(move || replicas.open(&ids)).await;
        if let Err(failure) = opened {
            warn!(%failure, "replicas could not be opened");
            let refused = ControlError::Storage(failure.to_string());
            results.extend(accepted.into_iter().map(|(id, state)| (id.topic, state.partition, Err(refused.clone()))));
            return Ok(results);
        }
        let mut taken = Vec::with_capacity(accepted.len());
        for (id, state) in accepted {
            let Some(partition) = self.replicas.get(id.topic.as_str(), id.partition) else { continue };
            taken.push((id, self.take_role(&partition, &state)));
        }
        for (id, recorded) in taken {
            let result = match recorded.await {
                // Without space the role holds all the same: the partition records it when it is opened anew.
                Ok(()) | Err(StorageError::Full { .. }) => Ok(()),
                Err(failure) => Err(ControlError::Storage(failure.to_string())),
            };
            results.push((id.topic, id.partition, result));
        }
        Ok(results)
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
        if let Err(error) = self.dynamic_config.reload_topics(&topics).await {
            // The feed reads everything again once the store is back.
            warn!(%error, "settings of new topics could not be read; the broker's own hold until then");
        }
    }

    fn check_role(
        &self,
        id: &PartitionId,
        state: &PartitionState,
        me: crate::types::BrokerId,
    ) -> Result<(), ControlError> {
        if !state.replicas.contains(&me) {
            return Err(ControlError::Storage("this broker is not among the replicas".into()));
        }
        let Some(known) = self.replicas.get(id.topic.as_str(), id.partition) else { return Ok(()) };
        if known.id.topic_id != id.topic_id {
            // With topic ids a new id under an old name is a new topic whose predecessor's deletion was missed.
            return Ok(());
        }
        if state.leader_epoch <= known.role().leader_epoch {
            return Err(ControlError::StaleControllerEpoch);
        }
        Ok(())
    }

    fn take_role(&self, partition: &Arc<Partition>, state: &PartitionState) -> Queued {
        let before = partition.view();
        let recorded = partition.take_role(Role {
            leader: state.leader,
            leader_epoch: state.leader_epoch,
            isr: state.isr.clone(),
            replicas: state.replicas.clone(),
        });
        let topic = &partition.id.topic;
        if topic.is_internal() {
            if partition.view().leading {
                self.listener.on_leading(topic, partition.id.partition, state.leader_epoch);
            } else if before.leading {
                self.listener.on_resigned(topic, partition.id.partition);
            }
        }
        recorded
    }

    async fn stop(&self, request: StopReplica) -> Result<PartitionResults, ControlError> {
        let mut order = self.order.lock().await;
        self.admit(&request.head, &mut order)?;
        let mut results = Vec::new();
        let mut doomed = Vec::new();
        for stop in request.partitions {
            let Some(partition) = self.replicas.get(stop.topic.as_str(), stop.partition) else {
                results.push((stop.topic, stop.partition, Ok(())));
                continue;
            };
            if stop.leader_epoch.is_some_and(|epoch| epoch < partition.role().leader_epoch) {
                results.push((stop.topic, stop.partition, Err(ControlError::FencedLeaderEpoch)));
                continue;
            }
            if stop.topic.is_internal() {
                self.listener.on_resigned(&stop.topic, stop.partition);
            }
            if stop.delete {
                doomed.push(partition);
            } else {
                partition.close();
            }
            results.push((stop.topic, stop.partition, Ok(())));
        }
        if !doomed.is_empty() {
            info!(count = doomed.len(), "deleting partitions");
            let replicas = Arc::clone(&self.replicas);
            let doomed_names: Vec<_> = doomed.iter().map(|p| (p.id.topic.clone(), p.id.partition)).collect();
            if let Err(failure) = task::blocking(move || replicas.delete(&doomed)).await {
                for (topic, partition, result) in &mut results {
                    if doomed_names.iter().any(|(t, p)| t == topic && p == partition) {
                        *result = Err(ControlError::Storage(failure.to_string()));
                    }
                }
            }
        }
        Ok(results)
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
