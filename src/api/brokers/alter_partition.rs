//! AlterPartition (56), versions 2–3: a leader asks the controller here to store other ISRs.
//!
//! Behaviour
//! - NOT_CONTROLLER (41) unless this broker is; STALE_BROKER_EPOCH (77) from another registration.
//! - Each partition has its own outcome: the state as it is stored now, or why it was not changed.
//!   UNKNOWN_TOPIC_ID (100), UNKNOWN_TOPIC_OR_PARTITION (3), FENCED_LEADER_EPOCH (74), INVALID_UPDATE_VERSION (95),
//!   INVALID_REQUEST (42), INELIGIBLE_REPLICA (107), OPERATION_NOT_ATTEMPTED (55).
//!
//! Versions: 2 topic ids; 3 the epochs of the ISR's members (KIP-903). Versions 0 and 1 name topics and are of leaders
//! whose topics have no id. Source: Kafka 3.9 `KafkaApis.handleAlterPartitionRequest`,
//! `KafkaController.processAlterPartition`.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_partition_request::PartitionData as Asked;
use kafka_protocol::messages::alter_partition_response::{PartitionData, TopicData};
use kafka_protocol::messages::{AlterPartitionRequest, AlterPartitionResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::{of_controller_error, of_isr_refused};
use crate::api::handler::{Handler, Reply, Served};
use crate::cluster::control::{AlterPartition as Proposals, IsrLink, IsrProposal, IsrRefused, IsrResults, StoredIsr};
use crate::cluster::znodes::partition_state::Recovery;
use crate::types::acl::Operation;
use crate::types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicId, TopicName};

const VERSION_MEMBER_EPOCHS: i16 = 3;

pub(crate) struct AlterPartition;

impl Handler for AlterPartition {
    type Req = AlterPartitionRequest;
    const VERSIONS: RangeInclusive<i16> = 2..=3;
    const AUTHORIZATION: Authorization = Authorization::OF_BROKERS;
    const SERVED: Served = Served::ToBrokers;

    async fn handle(ctx: RequestContext, req: AlterPartitionRequest) -> Reply<AlterPartitionResponse> {
        Reply::Later(answer(ctx, req).boxed())
    }
}

async fn answer(ctx: RequestContext, req: AlterPartitionRequest) -> AlterPartitionResponse {
    if !ctx.may_on_cluster(Operation::ClusterAction) {
        return AlterPartitionResponse::default().with_error_code(ResponseError::ClusterAuthorizationFailed.code());
    }
    let proposals = proposals(&ctx, &req);
    match ctx.handles.controller.alter_partition(proposals).await {
        Ok(results) => AlterPartitionResponse::default().with_topics(by_topic(results)),
        Err(refused) => AlterPartitionResponse::default().with_error_code(of_controller_error(&refused)),
    }
}

fn proposals(ctx: &RequestContext, req: &AlterPartitionRequest) -> Proposals {
    let image = ctx.image();
    let mut partitions = Vec::new();
    for topic in &req.topics {
        let id = TopicId(topic.topic_id);
        // The controller knows topics by their id, and may know one that the image does not have yet.
        let name = image.topic_by_id(id).map_or_else(|| TopicName::new(""), |topic| topic.name.clone());
        partitions.extend(topic.partitions.iter().map(|asked| proposal(ctx.version, name.clone(), id, asked)));
    }
    Proposals { broker: BrokerId(req.broker_id.0), broker_epoch: BrokerEpoch(req.broker_epoch), partitions }
}

fn proposal(version: i16, topic: TopicName, topic_id: TopicId, asked: &Asked) -> IsrProposal {
    let isr = if version >= VERSION_MEMBER_EPOCHS {
        let members = asked.new_isr_with_epochs.iter();
        members.map(|member| (BrokerId(member.broker_id.0), BrokerEpoch(member.broker_epoch))).collect()
    } else {
        asked.new_isr.iter().map(|member| (BrokerId(member.0), BrokerEpoch::NONE)).collect()
    };
    IsrProposal {
        topic,
        topic_id,
        partition: PartitionIndex(asked.partition_index),
        leader_epoch: LeaderEpoch(asked.leader_epoch),
        isr,
        recovery: if asked.leader_recovery_state == 1 { Recovery::Recovering } else { Recovery::Recovered },
        partition_epoch: PartitionEpoch(asked.partition_epoch),
    }
}

fn by_topic(results: IsrResults) -> Vec<TopicData> {
    let mut places: HashMap<TopicId, usize> = HashMap::new();
    let mut topics: Vec<TopicData> = Vec::new();
    for (id, partition, result) in results {
        let at = *places.entry(id).or_insert_with(|| {
            topics.push(TopicData::default().with_topic_id(id.0));
            topics.len() - 1
        });
        topics[at].partitions.push(stored(partition, result));
    }
    topics
}

fn stored(partition: PartitionIndex, result: Result<StoredIsr, IsrRefused>) -> PartitionData {
    let answer = PartitionData::default().with_partition_index(partition.0);
    match result {
        Err(refused) => answer.with_error_code(of_isr_refused(&refused)),
        Ok(isr) => answer
            .with_leader_id(isr.leader.unwrap_or(BrokerId::NONE).0.into())
            .with_leader_epoch(isr.leader_epoch.0)
            .with_isr(isr.isr.iter().map(|member| member.0.into()).collect())
            .with_leader_recovery_state(match isr.recovery {
                Recovery::Recovered => 0,
                Recovery::Recovering => 1,
            })
            .with_partition_epoch(isr.partition_epoch.0),
    }
}
