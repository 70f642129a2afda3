//! Broker → controller: AllocateProducerIds 0, AlterPartition 2 or 3, and ControlledShutdown 3.
//!
//! The controller is the broker that the last UpdateMetadata named. If that is this one, the call goes to its own
//! controller, in process. Each call is made once: on NOT_CONTROLLER, or without an answer, the caller makes it again
//! when it likes, and by then the image may name another. It goes to the controller's `control.plane.listener.name`,
//! where this broker has one set, but for ControlledShutdown, as in Kafka.

use std::ops::Range;
use std::sync::Arc;

use bytes::BytesMut;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kafka_protocol::messages::alter_partition_request::{BrokerState, PartitionData, TopicData};
use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, AlterPartitionRequest, AlterPartitionResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, Request};

use super::Peers;
use super::address::{Address, Addresses};
use super::codes;
use super::connection::{Ask, Connection};
use crate::cluster::control::{
    AlterPartition, ControllerError, ControllerLink, IsrLink, IsrProposal, IsrResults, ShutdownLink, StoredIsr,
};
use crate::cluster::znodes::partition_state::Recovery;
use crate::types::limits::CONTROL_FRAME_BYTES_MAX;
use crate::types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicId, TopicName};
use crate::wire::codec;
use crate::wire::control::{Control, ControlledShutdown, ControlledShutdownAnswer, Message};

const ALLOCATE_PRODUCER_IDS_VERSION: i16 = 0;
/// From here on the ISR's members come with their epochs.
const ALTER_PARTITION_VERSION_EPOCHS: i16 = 3;

/// One link to the controller, wherever it runs: `L` is the seam, and what answers for it in this process. Each has a
/// connection of its own, so that an AlterPartition does not wait for a block of ids.
#[derive(Debug)]
pub(crate) struct Routed<L: ?Sized> {
    peers: Peers,
    /// This broker's own controller, elected or not.
    local: Arc<L>,
    connection: Connection,
}

/// AllocateProducerIds.
pub(crate) fn producer_ids(peers: &Peers, local: Arc<dyn ControllerLink>) -> Arc<Routed<dyn ControllerLink>> {
    Routed::new(peers, local, "producer-ids")
}

/// AlterPartition.
pub(crate) fn isr(peers: &Peers, local: Arc<dyn IsrLink>) -> Arc<Routed<dyn IsrLink>> {
    Routed::new(peers, local, "alter-partition")
}

/// ControlledShutdown.
pub(crate) fn shutdown(peers: &Peers, local: Arc<dyn ShutdownLink>) -> Arc<Routed<dyn ShutdownLink>> {
    Routed::new(peers, local, "controlled-shutdown")
}

/// Where a call goes.
enum Route {
    Local,
    To(Address),
}

fn unavailable(error: impl std::fmt::Display) -> ControllerError {
    ControllerError::Unavailable(error.to_string())
}

impl<L: ?Sized> Routed<L> {
    fn new(peers: &Peers, local: Arc<L>, purpose: &str) -> Arc<Self> {
        let connection = peers.connection(purpose, CONTROL_FRAME_BYTES_MAX);
        Arc::new(Self { peers: peers.clone(), local, connection })
    }

    /// By the listener that `addresses` is of.
    fn route(&self, addresses: &Addresses) -> Result<Route, ControllerError> {
        let controller = addresses.controller().map_err(unavailable)?;
        if controller == self.peers.me {
            return Ok(Route::Local);
        }
        addresses.of(controller).map(Route::To).map_err(unavailable)
    }
}

impl Routed<dyn ControllerLink> {
    async fn allocate(&self, broker: BrokerId, broker_epoch: BrokerEpoch) -> Result<Range<i64>, ControllerError> {
        let to = match self.route(&self.peers.control)? {
            Route::Local => return self.local.allocate_producer_ids(broker, broker_epoch).await,
            Route::To(to) => to,
        };
        let request =
            AllocateProducerIdsRequest::default().with_broker_id(broker.0.into()).with_broker_epoch(broker_epoch.0);
        let ask = ask(&request, ALLOCATE_PRODUCER_IDS_VERSION)?;
        let decode = |body| decode::<AllocateProducerIdsResponse>(body, ALLOCATE_PRODUCER_IDS_VERSION);
        let answer = self.connection.call(&to, ask, self.peers.patience.request, decode).await.map_err(unavailable)?;
        codes::controller(answer.error_code)?;
        let start = answer.producer_id_start.0;
        match start.checked_add(i64::from(answer.producer_id_len)) {
            Some(end) if 0 <= start && start < end => Ok(start..end),
            _ => Err(unavailable(format!("a block of {} producer ids from {start} on", answer.producer_id_len))),
        }
    }
}

impl Routed<dyn IsrLink> {
    async fn alter(&self, request: AlterPartition) -> Result<IsrResults, ControllerError> {
        let to = match self.route(&self.peers.control)? {
            Route::Local => return self.local.alter_partition(request).await,
            Route::To(to) => to,
        };
        let version = self.peers.versions.alter_partition;
        let ask = ask(&of_proposals(&request, version), version)?;
        let decode = |body| decode::<AlterPartitionResponse>(body, version);
        let answer = self.connection.call(&to, ask, self.peers.patience.request, decode).await.map_err(unavailable)?;
        codes::controller(answer.error_code)?;
        Ok(stored(answer))
    }
}

impl Routed<dyn ShutdownLink> {
    async fn shut_down(
        &self,
        broker: BrokerId,
        broker_epoch: BrokerEpoch,
    ) -> Result<Vec<(TopicName, PartitionIndex)>, ControllerError> {
        let to = match self.route(&self.peers.addresses)? {
            Route::Local => return self.local.controlled_shutdown(broker, broker_epoch).await,
            Route::To(to) => to,
        };
        let body = ControlledShutdown { broker, broker_epoch }.encode();
        let ask = Ask { key: ControlledShutdown::KEY, version: ControlledShutdown::VERSION, body };
        let decode = |body| Ok(ControlledShutdownAnswer::decode(body)?);
        let patience = self.peers.patience.controller;
        let answer = self.connection.call(&to, ask, patience, decode).await.map_err(unavailable)?;
        codes::controller(answer.error_code)?;
        Ok(answer.remaining)
    }
}

impl ControllerLink for Routed<dyn ControllerLink> {
    fn allocate_producer_ids(
        &self,
        broker: BrokerId,
        broker_epoch: BrokerEpoch,
    ) -> BoxFuture<'_, Result<Range<i64>, ControllerError>> {
        self.allocate(broker, broker_epoch).boxed()
    }
}

impl IsrLink for Routed<dyn IsrLink> {
    fn alter_partition(&self, request: AlterPartition) -> BoxFuture<'_, Result<IsrResults, ControllerError>> {
        self.alter(request).boxed()
    }
}

impl ShutdownLink for Routed<dyn ShutdownLink> {
    fn controlled_shutdown(
        &self,
        broker: BrokerId,
        broker_epoch: BrokerEpoch,
    ) -> BoxFuture<'_, Result<Vec<(TopicName, PartitionIndex)>, ControllerError>> {
        self.shut_down(broker, broker_epoch).boxed()
    }
}

fn ask<R: Request + Encodable>(request: &R, version: i16) -> Result<Ask, ControllerError> {
    let body = codec::encode_request(request, version).map_err(unavailable)?;
    Ok(Ask { key: R::KEY, version, body })
}

fn decode<R: Decodable>(body: BytesMut, version: i16) -> Result<R, crate::wire::error::CodecError> {
    codec::decode_response(body.freeze(), version)
}

/// Neighbours of one topic share its head.
fn of_proposals(request: &AlterPartition, version: i16) -> AlterPartitionRequest {
    let mut topics: Vec<TopicData> = Vec::new();
    for proposal in &request.partitions {
        let partition = of_proposal(proposal, version);
        match topics.last_mut() {
            Some(topic) if topic.topic_id == proposal.topic_id.0 => topic.partitions.push(partition),
            _ => topics.push(TopicData::default().with_topic_id(proposal.topic_id.0).with_partitions(vec![partition])),
        }
    }
    AlterPartitionRequest::default()
        .with_broker_id(request.broker.0.into())
        .with_broker_epoch(request.broker_epoch.0)
        .with_topics(topics)
}

fn of_proposal(proposal: &IsrProposal, version: i16) -> PartitionData {
    let member = |&(broker, epoch): &(BrokerId, BrokerEpoch)| {
        BrokerState::default().with_broker_id(broker.0.into()).with_broker_epoch(epoch.0)
    };
    let partition = PartitionData::default()
        .with_partition_index(proposal.partition.0)
        .with_leader_epoch(proposal.leader_epoch.0)
        .with_leader_recovery_state(match proposal.recovery {
            Recovery::Recovered => 0,
            Recovery::Recovering => 1,
        })
        .with_partition_epoch(proposal.partition_epoch.0);
    match version {
        ..ALTER_PARTITION_VERSION_EPOCHS => {
            partition.with_new_isr(proposal.isr.iter().map(|(broker, _)| broker.0.into()).collect())
        }
        _ => partition.with_new_isr_with_epochs(proposal.isr.iter().map(member).collect()),
    }
}

fn stored(answer: AlterPartitionResponse) -> IsrResults {
    let mut results = Vec::new();
    for topic in answer.topics {
        let id = TopicId(topic.topic_id);
        results.extend(topic.partitions.into_iter().map(|partition| {
            let result = match codes::isr(partition.error_code) {
                Some(refused) => Err(refused),
                None => Ok(StoredIsr {
                    leader: Some(BrokerId(partition.leader_id.0)).filter(|leader| leader.0 >= 0),
                    leader_epoch: LeaderEpoch(partition.leader_epoch),
                    isr: partition.isr.iter().map(|member| BrokerId(member.0)).collect(),
                    recovery: match partition.leader_recovery_state {
                        1 => Recovery::Recovering,
                        _ => Recovery::Recovered,
                    },
                    partition_epoch: PartitionEpoch(partition.partition_epoch),
                }),
            };
            (id, PartitionIndex(partition.partition_index), result)
        }));
    }
    results
}
