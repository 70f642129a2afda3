//! Controller → broker: LeaderAndIsr 7, UpdateMetadata 8 and StopReplica 4 over a connection.
//!
//! One link, one connection, one request under way: requests take effect in the order in which they were made.
//! Versions: one each, which every broker from 3.4 to 3.9 takes.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Peers;
use super::address::{Address, AddressError};
use super::codes;
use super::connection::{Ask, Connection};
use crate::cluster::control::{
    BrokerLink, ControlError, ControlHead, Endpoint, LeaderAndIsr, LiveBroker, PartitionResults, PartitionState,
    StopReplica, TopicMetadata, UpdateMetadata,
};
use crate::cluster::znodes::partition_state::Recovery;
use crate::types::limits::CONTROL_FRAME_BYTES_MAX;
use crate::types::{BrokerId, LeaderEpoch, PartitionEpoch, TopicId, TopicName};
use crate::wire::control::{self as wire, Control, Message};

/// A broker in another process, by the registration that it had when the link was made.
#[derive(Debug)]
pub(crate) struct RemoteBroker {
    to: Result<Address, AddressError>,
    connection: Connection,
    peers: Peers,
}

impl RemoteBroker {
    pub(crate) fn new(peers: &Peers, broker: &LiveBroker) -> Arc<Self> {
        let connection = peers.connection("controller", CONTROL_FRAME_BYTES_MAX);
        Arc::new(Self { to: peers.control.of_live(broker), connection, peers: peers.clone() })
    }

    /// # Errors
    /// [`ControlError::Unreachable`] alone.
    async fn call<C: Control>(&self, request: &C) -> Result<C::Answer, ControlError> {
        let unreachable = |error: &dyn std::fmt::Display| ControlError::Unreachable(error.to_string());
        let to = self.to.as_ref().map_err(|error| unreachable(error))?;
        let ask = Ask { key: C::KEY, version: C::VERSION, body: request.encode() };
        let decode = |body| Ok(C::Answer::decode(body)?);
        let called = self.connection.call(to, ask, self.peers.patience.controller, decode).await;
        called.map_err(|error| unreachable(&error))
    }

    async fn roles(&self, request: LeaderAndIsr) -> Result<PartitionResults, ControlError> {
        let names: HashMap<TopicId, TopicName> =
            request.topics.iter().map(|(name, id, _)| (*id, name.clone())).collect();
        let answer = self.call(&of_roles(request)).await?;
        codes::control(answer.error_code)?;
        let mut results = Vec::new();
        for (id, partitions) in answer.topics {
            // What was not asked has no name here.
            let Some(name) = names.get(&id) else { continue };
            results.extend(partitions.into_iter().map(|answer| {
                let result = match codes::control(answer.error_code) {
                    Err(ControlError::Storage(_)) if answer.end_lost => Err(ControlError::EndLost),
                    result => result,
                };
                (name.clone(), answer.partition, result)
            }));
        }
        Ok(results)
    }

    async fn metadata(&self, request: UpdateMetadata) -> Result<(), ControlError> {
        codes::control(self.call(&of_metadata(request)).await?.error_code)
    }

    async fn stop(&self, request: StopReplica) -> Result<PartitionResults, ControlError> {
        let answer = self.call(&of_stop(request)).await?;
        codes::control(answer.error_code)?;
        let result = |(topic, partition, code)| (topic, partition, codes::control(code));
        Ok(answer.partitions.into_iter().map(result).collect())
    }
}

impl BrokerLink for RemoteBroker {
    fn leader_and_isr(&self, request: LeaderAndIsr) -> BoxFuture<'_, Result<PartitionResults, ControlError>> {
        self.roles(request).boxed()
    }

    fn update_metadata(&self, request: UpdateMetadata) -> BoxFuture<'_, Result<(), ControlError>> {
        self.metadata(request).boxed()
    }

    fn stop_replica(&self, request: StopReplica) -> BoxFuture<'_, Result<PartitionResults, ControlError>> {
        self.stop(request).boxed()
    }
}

fn of_head(head: ControlHead) -> wire::Head {
    wire::Head { controller: head.controller, controller_epoch: head.controller_epoch, broker_epoch: head.broker_epoch }
}

fn of_roles(request: LeaderAndIsr) -> wire::LeaderAndIsr {
    let role = |state: PartitionState| wire::PartitionRole {
        partition: state.partition,
        controller_epoch: state.controller_epoch,
        leader: state.leader.unwrap_or(BrokerId::NONE),
        leader_epoch: state.leader_epoch,
        isr: state.isr,
        partition_epoch: state.partition_epoch,
        replicas: state.replicas,
        adding: state.adding,
        removing: state.removing,
        is_new: state.is_new,
        recovery_state: match state.recovery {
            Recovery::Recovered => 0,
            Recovery::Recovering => 1,
        },
    };
    let topic = |(name, id, partitions): (TopicName, TopicId, Vec<PartitionState>)| wire::Topic {
        name,
        id,
        partitions: partitions.into_iter().map(role).collect(),
    };
    wire::LeaderAndIsr { head: of_head(request.head), topics: request.topics.into_iter().map(topic).collect() }
}

fn of_metadata(request: UpdateMetadata) -> wire::UpdateMetadata {
    let head = of_head(request.head);
    let state = |state: PartitionState| wire::PartitionMetadata {
        partition: state.partition,
        controller_epoch: state.controller_epoch,
        leader: state.leader.unwrap_or(BrokerId::NONE),
        leader_epoch: state.leader_epoch,
        isr: state.isr,
        partition_epoch: state.partition_epoch,
        replicas: state.replicas,
        offline_replicas: state.offline_replicas,
    };
    let topic = |topic: TopicMetadata| {
        let deleted = topic.deleted.into_iter().map(|partition| wire::PartitionMetadata {
            partition,
            controller_epoch: head.controller_epoch,
            leader: wire::PartitionMetadata::BEING_DELETED,
            leader_epoch: LeaderEpoch(0),
            isr: Vec::new(),
            partition_epoch: PartitionEpoch(0),
            replicas: Vec::new(),
            offline_replicas: Vec::new(),
        });
        let partitions = topic.partitions.into_iter().map(state).chain(deleted).collect();
        wire::Topic { name: topic.name, id: topic.id, partitions }
    };
    let topics = request.topics.into_iter().map(topic).collect();
    wire::UpdateMetadata { head, topics, live_brokers: request.live_brokers.into_iter().map(of_live).collect() }
}

fn of_live(broker: LiveBroker) -> wire::Broker {
    // A protocol that Kafka does not know stands in a registration by a mistake, and cannot be said.
    let endpoint = |endpoint: Endpoint| {
        Some(wire::BrokerEndpoint {
            port: i32::from(endpoint.port),
            security_protocol: wire::protocol_number(&endpoint.security_protocol)?,
            host: endpoint.host,
            listener: endpoint.listener,
        })
    };
    let endpoints = broker.endpoints.into_iter().filter_map(endpoint).collect();
    wire::Broker { id: broker.id, endpoints, rack: broker.rack }
}

/// Neighbours of one topic share its head.
fn of_stop(request: StopReplica) -> wire::StopReplica {
    let mut topics: Vec<(TopicName, Vec<wire::StopPartition>)> = Vec::new();
    for stop in request.partitions {
        let partition = wire::StopPartition {
            partition: stop.partition,
            leader_epoch: stop.leader_epoch.unwrap_or(wire::StopPartition::DURING_DELETE),
            delete: stop.delete,
        };
        match topics.last_mut() {
            Some((topic, partitions)) if *topic == stop.topic => partitions.push(partition),
            _ => topics.push((stop.topic, vec![partition])),
        }
    }
    wire::StopReplica { head: of_head(request.head), topics }
}
