//! UpdateMetadata (6), version 8: who leads what, and which brokers live. It alone feeds the image (I-16).
//!
//! Behaviour is `replica::control`'s: STALE_BROKER_EPOCH (77) and STALE_CONTROLLER_EPOCH (11) refuse it. A leader of −2
//! takes the partition out of the image. An endpoint whose security protocol or port does not exist is left out.
//! Ignored: the type of a migration. Source: Kafka 3.9 `KafkaApis.handleUpdateMetadataRequest`,
//! `ZkMetadataCache.updateMetadata`.

use super::{ControlHandler, of_head};
use crate::api::context::RequestContext;
use crate::api::error_code::of_control_error;
use crate::cluster::control::{Endpoint, LiveBroker, PartitionState, TopicMetadata, UpdateMetadata as Metadata};
use crate::cluster::znodes::partition_state::Recovery;
use crate::types::BrokerId;
use crate::wire::control::{self as wire, PartitionMetadata, UpdateMetadataAnswer};

pub(crate) struct UpdateMetadata;

impl ControlHandler for UpdateMetadata {
    type Req = wire::UpdateMetadata;

    fn refused(error_code: i16) -> UpdateMetadataAnswer {
        UpdateMetadataAnswer { error_code }
    }

    async fn handle(ctx: RequestContext, req: wire::UpdateMetadata) -> UpdateMetadataAnswer {
        let refused = ctx.handles.control.update_metadata(metadata(req)).await.err();
        UpdateMetadataAnswer { error_code: refused.as_ref().map_or(0, of_control_error) }
    }
}

fn metadata(req: wire::UpdateMetadata) -> Metadata {
    Metadata {
        head: of_head(req.head),
        topics: req.topics.into_iter().map(topic).collect(),
        live_brokers: req.live_brokers.into_iter().map(broker).collect(),
    }
}

fn topic(topic: wire::Topic<PartitionMetadata>) -> TopicMetadata {
    let (deleted, partitions): (Vec<_>, Vec<_>) =
        topic.partitions.into_iter().partition(|partition| partition.leader == PartitionMetadata::BEING_DELETED);
    TopicMetadata {
        name: topic.name,
        id: topic.id,
        partitions: partitions.into_iter().map(state).collect(),
        deleted: deleted.into_iter().map(|partition| partition.partition).collect(),
    }
}

fn state(partition: PartitionMetadata) -> PartitionState {
    PartitionState {
        partition: partition.partition,
        controller_epoch: partition.controller_epoch,
        leader: Some(partition.leader).filter(|leader| *leader > BrokerId::NONE),
        leader_epoch: partition.leader_epoch,
        isr: partition.isr,
        partition_epoch: partition.partition_epoch,
        replicas: partition.replicas,
        adding: Vec::new(),
        removing: Vec::new(),
        recovery: Recovery::Recovered,
        offline_replicas: partition.offline_replicas,
        is_new: false,
    }
}

fn broker(broker: wire::Broker) -> LiveBroker {
    let endpoint = |endpoint: wire::BrokerEndpoint| {
        Some(Endpoint {
            security_protocol: wire::protocol_name(endpoint.security_protocol)?.to_owned(),
            port: u16::try_from(endpoint.port).ok()?,
            listener: endpoint.listener,
            host: endpoint.host,
        })
    };
    LiveBroker {
        id: broker.id,
        endpoints: broker.endpoints.into_iter().filter_map(endpoint).collect(),
        rack: broker.rack,
    }
}
