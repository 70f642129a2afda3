//! ElectLeaders (43), versions 0–2: have other leaders elected.
//!
//! Behaviour
//! - Needs ALTER of the cluster: CLUSTER_AUTHORIZATION_FAILED (31) for the whole answer and each partition.
//! - Only the controller serves it: NOT_CONTROLLER (41) for each partition from others.
//! - Type 0, the preferred leader: ELECTION_NOT_NEEDED (84) if it leads, PREFERRED_LEADER_NOT_AVAILABLE (80) if it is
//!   not in sync. Type 1, unclean: ELECTION_NOT_NEEDED if there is a leader, ELIGIBLE_LEADERS_NOT_AVAILABLE (83) if no
//!   replica is live; allowed whatever the topic says. Another type: INVALID_REQUEST (42).
//! - Unknown partition: UNKNOWN_TOPIC_OR_PARTITION (3); topic being deleted: INVALID_TOPIC_EXCEPTION (17).
//! - Null means every partition; then those that need no election are not in the answer.
//! - The answer waits until this broker's image has the new leaders, or until the time-out: REQUEST_TIMED_OUT (7) means
//!   elected, not seen.
//!
//! Versions: 1 types of elections and a code of the whole answer (KIP-460), 2 flexible. Ignored: nothing.
//! Source: Kafka 3.9 `KafkaApis.handleElectLeaders`, `ReplicaManager.electLeaders`, `DelayedElectLeader`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::elect_leaders_response::{PartitionResult, ReplicaElectionResult};
use kafka_protocol::messages::{ElectLeadersRequest, ElectLeadersResponse, TopicName as WireTopicName};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::refusal::{Refusal, wire_outcome};
use crate::api::shared::strings::text;
use crate::cluster::control::ControllerError;
use crate::cluster::image::{ClusterImage, ImagePublisher};
use crate::controller::{ElectionRefused, ElectionType};
use crate::types::acl::{Operation, ResourceType};
use crate::types::{BrokerId, TopicPartition};

pub(crate) struct ElectLeaders;

/// The new leader of each partition, or why there is none.
type Entries = BTreeMap<TopicPartition, Result<BrokerId, Refusal>>;

impl Handler for ElectLeaders {
    type Req = ElectLeadersRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Alter, ResourceType::Cluster)]);

    async fn handle(ctx: RequestContext, req: ElectLeadersRequest) -> Reply<ElectLeadersResponse> {
        // Version 0 knows no types and elects preferred leaders.
        let kind = match req.election_type {
            _ if ctx.version == 0 => ElectionType::Preferred,
            0 => ElectionType::Preferred,
            1 => ElectionType::Unclean,
            _ => return Reply::Now(respond(Entries::new()).with_error_code(ResponseError::InvalidRequest.code())),
        };
        let named = req.topic_partitions.as_ref().map(|topics| {
            let of = topics.iter().flat_map(|topic| {
                topic.partitions.iter().map(|index| TopicPartition::new(topic.topic.as_str(), *index))
            });
            of.collect::<BTreeSet<_>>()
        });
        if !ctx.may_on_cluster(Operation::Alter) {
            let error = ResponseError::ClusterAuthorizationFailed;
            let refused = named.into_iter().flatten().map(|name| (name, Err(Refusal::bare(error)))).collect();
            return Reply::Now(respond(refused).with_error_code(if ctx.version >= 1 { error.code() } else { 0 }));
        }
        let asked = named.unwrap_or_else(|| every_partition(&ctx));
        let mut entries = elect(&ctx, kind, asked).await;
        if req.topic_partitions.is_none() {
            let unneeded = ResponseError::ElectionNotNeeded;
            entries.retain(|_, result| !result.as_ref().is_err_and(|refusal| refusal.error == unneeded));
        }
        let timeout_ms = req.timeout_ms;
        Reply::Later(
            async move {
                await_leaders(&ctx.handles.image, &mut entries, timeout_ms).await;
                respond(entries)
            }
            .boxed(),
        )
    }
}

fn every_partition(ctx: &RequestContext) -> BTreeSet<TopicPartition> {
    let image = ctx.image();
    let partitions = image.topics().flat_map(|topic| {
        topic.partitions.keys().map(|index| TopicPartition { topic: topic.name.clone(), partition: *index })
    });
    partitions.collect()
}

async fn elect(ctx: &RequestContext, kind: ElectionType, asked: BTreeSet<TopicPartition>) -> Entries {
    let names = asked.clone();
    match ctx.handles.controller.elect_leaders(kind, asked).await {
        Ok(results) => results
            .into_iter()
            .map(|(name, result)| {
                let result = result.map_err(|refused| refusal(&name, refused));
                (name, result)
            })
            .collect(),
        Err(error) => {
            let refusal = Refusal::bare(match error {
                ControllerError::NotController => ResponseError::NotController,
                _ => ResponseError::UnknownServerError,
            });
            names.into_iter().map(|name| (name, Err(refusal.clone()))).collect()
        }
    }
}

/// With Kafka's texts, which name its classes where nobody could be elected.
fn refusal(name: &TopicPartition, refused: ElectionRefused) -> Refusal {
    let failed = |strategy: &str| format!("Failed to elect leader for partition {name} under strategy {strategy}");
    let message = match refused {
        ElectionRefused::PreferredNotAvailable => failed("PreferredReplicaPartitionLeaderElectionStrategy"),
        ElectionRefused::NoneAvailable => failed("OfflinePartitionLeaderElectionStrategy(true)"),
        refused => refused.to_string(),
    };
    Refusal::new(error_code::of_election(refused), message)
}

async fn await_leaders(image: &ImagePublisher, entries: &mut Entries, timeout_ms: i32) {
    let mut images = image.subscribe();
    let is_shown = |image: &ClusterImage, name: &TopicPartition, leader: BrokerId| {
        image.partition(name.topic.as_str(), name.partition).is_some_and(|state| state.leader == Some(leader))
    };
    let shown = images.wait_for(|image| {
        entries.iter().all(|(name, result)| result.as_ref().map_or(true, |leader| is_shown(image, name, *leader)))
    });
    let patience = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
    if tokio::time::timeout(patience, shown).await.is_ok() {
        return;
    }
    let image = image.current();
    for (name, result) in entries {
        if result.as_ref().is_ok_and(|leader| !is_shown(&image, name, *leader)) {
            *result = Err(Refusal::bare(ResponseError::RequestTimedOut));
        }
    }
}

fn respond(entries: Entries) -> ElectLeadersResponse {
    let mut topics: Vec<ReplicaElectionResult> = Vec::new();
    for (TopicPartition { topic, partition }, result) in entries {
        let (code, message) = wire_outcome(result.map(|_| ()));
        let result =
            PartitionResult::default().with_partition_id(partition.0).with_error_code(code).with_error_message(message);
        match topics.last_mut().filter(|last| last.topic.as_str() == topic.as_str()) {
            Some(last) => last.partition_result.push(result),
            None => topics.push(
                ReplicaElectionResult::default()
                    .with_topic(WireTopicName(text(topic.as_str())))
                    .with_partition_result(vec![result]),
            ),
        }
    }
    ElectLeadersResponse::default().with_replica_election_results(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_kafkas_texts() {
        let text = |refused| refusal(&TopicPartition::new("t", 4), refused).message.unwrap();
        assert_eq!(text(ElectionRefused::NotNeeded), "Leader election not needed for topic partition.");
        assert_eq!(text(ElectionRefused::UnknownPartition), "The partition does not exist.");
        assert_eq!(
            text(ElectionRefused::PreferredNotAvailable),
            "Failed to elect leader for partition t-4 under strategy PreferredReplicaPartitionLeaderElectionStrategy"
        );
        assert_eq!(
            text(ElectionRefused::NoneAvailable),
            "Failed to elect leader for partition t-4 under strategy OfflinePartitionLeaderElectionStrategy(true)"
        );
    }

    #[test]
    fn answers_are_grouped_by_topic_and_encode_in_every_version() {
        let entries = Entries::from([
            (TopicPartition::new("a", 1), Err(Refusal::bare(ResponseError::ElectionNotNeeded))),
            (TopicPartition::new("b", 0), Ok(BrokerId(1))),
            (TopicPartition::new("a", 0), Ok(BrokerId(2))),
        ]);
        let response = respond(entries);
        let codes: Vec<_> = response
            .replica_election_results
            .iter()
            .map(|topic| topic.partition_result.iter().map(|result| result.error_code).collect::<Vec<_>>())
            .collect();
        assert_eq!(codes, [vec![0, 84], vec![0]]);
        for version in ElectLeaders::VERSIONS {
            crate::wire::codec::encode_response(&response, version).unwrap();
        }
    }
}
