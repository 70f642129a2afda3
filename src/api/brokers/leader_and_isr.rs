//! LeaderAndIsr (4), version 7: which partitions this broker leads or follows.
//!
//! Behaviour
//! - All of it is `replica::control`'s: STALE_BROKER_EPOCH (77) and STALE_CONTROLLER_EPOCH (11) refuse the request; of
//!   one partition 11 says that its leader epoch is known already, UNKNOWN_TOPIC_OR_PARTITION (3) that this broker is
//!   not among the replicas, INCONSISTENT_TOPIC_ID (103) that the log here is another topic's, KAFKA_STORAGE_ERROR (56)
//!   that it cannot be used.
//! - A replica whose log may have lost its end answers 56 with a tagged field that a controller of our kind knows.
//!
//! Ignored: live leaders, the type of a migration. Source: Kafka 3.9 `KafkaApis.handleLeaderAndIsrRequest`,
//! `ReplicaManager.becomeLeaderOrFollower`.

use std::collections::HashMap;

use super::{ControlHandler, of_head};
use crate::api::context::RequestContext;
use crate::api::error_code::of_control_error;
use crate::cluster::control::{ControlError, LeaderAndIsr as Roles, PartitionResults, PartitionState};
use crate::cluster::znodes::partition_state::Recovery;
use crate::types::{BrokerId, TopicId, TopicName};
use crate::wire::control::{self as wire, LeaderAndIsrAnswer, PartitionRole, RoleAnswer};

pub(crate) struct LeaderAndIsr;

impl ControlHandler for LeaderAndIsr {
    type Req = wire::LeaderAndIsr;

    fn refused(error_code: i16) -> LeaderAndIsrAnswer {
        LeaderAndIsrAnswer { error_code, topics: Vec::new() }
    }

    async fn handle(ctx: RequestContext, req: wire::LeaderAndIsr) -> LeaderAndIsrAnswer {
        let asked: Vec<(TopicName, TopicId)> = req.topics.iter().map(|topic| (topic.name.clone(), topic.id)).collect();
        match ctx.handles.control.leader_and_isr(roles(req)).await {
            Ok(results) => LeaderAndIsrAnswer { error_code: 0, topics: by_topic(asked, results) },
            Err(refused) => LeaderAndIsrAnswer { error_code: of_control_error(&refused), topics: Vec::new() },
        }
    }
}

fn roles(req: wire::LeaderAndIsr) -> Roles {
    let topic = |topic: wire::Topic<PartitionRole>| {
        (topic.name, topic.id, topic.partitions.into_iter().map(state).collect::<Vec<_>>())
    };
    Roles { head: of_head(req.head), topics: req.topics.into_iter().map(topic).collect() }
}

fn state(role: PartitionRole) -> PartitionState {
    PartitionState {
        partition: role.partition,
        controller_epoch: role.controller_epoch,
        leader: Some(role.leader).filter(|leader| *leader > BrokerId::NONE),
        leader_epoch: role.leader_epoch,
        isr: role.isr,
        partition_epoch: role.partition_epoch,
        replicas: role.replicas,
        adding: role.adding,
        removing: role.removing,
        recovery: if role.recovery_state == 1 { Recovery::Recovering } else { Recovery::Recovered },
        offline_replicas: Vec::new(),
        is_new: role.is_new,
    }
}

/// The topics in the order of the request.
fn by_topic(asked: Vec<(TopicName, TopicId)>, results: PartitionResults) -> Vec<(TopicId, Vec<RoleAnswer>)> {
    let mut answers: HashMap<TopicName, Vec<RoleAnswer>> = HashMap::new();
    for (topic, partition, result) in results {
        let error_code = result.as_ref().err().map_or(0, of_control_error);
        let end_lost = result == Err(ControlError::EndLost);
        answers.entry(topic).or_default().push(RoleAnswer { partition, error_code, end_lost });
    }
    asked.into_iter().filter_map(|(topic, id)| Some((id, answers.remove(&topic)?))).collect()
}
