//! CreatePartitions (37), versions 0–3: raise a topic's number of partitions, and answer once the new ones have
//! leaders.
//!
//! Behaviour
//! - Only the controller serves it: NOT_CONTROLLER (41) from others. The same topic twice: INVALID_REQUEST (42). Marked
//!   for deletion: INVALID_TOPIC_EXCEPTION (17). Unknown: UNKNOWN_TOPIC_OR_PARTITION (3).
//! - Needs ALTER of each topic: TOPIC_AUTHORIZATION_FAILED (29).
//! - The count must grow, else INVALID_PARTITIONS (37). More than 10,000 new partitions in one request:
//!   POLICY_VIOLATION (44), as in KRaft.
//! - Given assignments: one per new partition, live brokers without repetition, as many as partition 0 has; else
//!   INVALID_REPLICA_ASSIGNMENT (39). Without them the placement goes on where the topic ended.
//! - While replicas are being reassigned: REASSIGNMENT_IN_PROGRESS (60).
//! - validate_only checks everything and writes nothing. The growth is written before the connection's next request is
//!   read; waiting and time-out are those of CreateTopics.
//! - Beyond the client's `controller_mutation_rate`: THROTTLING_QUOTA_EXCEEDED (89) from version 3 on; others
//!   wait.
//!
//! Versions: 2 flexible; 1 as before; 3 is refused what is beyond the limit. Ignored: nothing.
//! Source: Kafka 3.9 `KafkaApis.handleCreatePartitionsRequest`, `ZkAdminManager.createPartitions`, `AdminZkClient`.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use crate::api::authorization::Authorization;
use crate::api::context::{Handles, RequestContext};
use crate::api::handler::{Handler, Reply};
use crate::api::shared::refusal::Refusal;
use crate::api::shared::repeated::repeated;
use crate::api::shared::throttle::Mutations;
use crate::api::topics::create_topics::{await_leaders, candidates, too_many_partitions};
use crate::cluster::admin::ExistingTopic;
use crate::cluster::image::ClusterImage;
use crate::cluster::placement::{self, Start};
use crate::cluster::znodes::topics::Assignment;
use crate::types::acl::{Operation, ResourceType};
use crate::types::limits::PARTITIONS_PER_REQUEST_MAX;
use crate::types::{BrokerId, PartitionIndex, TopicName};

const VERSION_REFUSING: i16 = 3;

pub(crate) struct CreatePartitions;

/// One topic: its number of partitions after the growth, or why there is none.
type Entry = Result<usize, Refusal>;

impl Handler for CreatePartitions {
    type Req = CreatePartitionsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=3;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Alter, ResourceType::Topic)]);

    async fn handle(ctx: RequestContext, req: CreatePartitionsRequest) -> Reply<CreatePartitionsResponse> {
        let mut mutations = ctx.mutations(Some(VERSION_REFUSING));
        let mut entries = grow_all(&ctx, &req, &mut mutations).await;
        if req.validate_only {
            return Reply::Now(respond(&req, entries));
        }
        Reply::Later(
            async move {
                let name = |topic: &CreatePartitionsTopic| TopicName::new(topic.name.as_str());
                let grown = req.topics.iter().zip(&entries);
                let grown = grown.filter_map(|(topic, entry)| Some((name(topic), *entry.as_ref().ok()?))).collect();
                let ready = await_leaders(&ctx.handles.image, grown, req.timeout_ms).await;
                for (topic, entry) in req.topics.iter().zip(&mut entries) {
                    if entry.is_ok() && !ready.contains(topic.name.as_str()) {
                        *entry = Err(Refusal::bare(ResponseError::RequestTimedOut));
                    }
                }
                respond(&req, entries).with_throttle_time_ms(mutations.throttle())
            }
            .boxed(),
        )
    }
}

async fn grow_all(ctx: &RequestContext, req: &CreatePartitionsRequest, mutations: &mut Mutations) -> Vec<Entry> {
    let handles = &*ctx.handles;
    let all = |refusal: Refusal| req.topics.iter().map(|_| Err(refusal.clone())).collect();
    if !handles.controller.is_active() {
        return all(Refusal::bare(ResponseError::NotController));
    }
    let doomed = match handles.admin.marked_for_deletion().await {
        Ok(doomed) => doomed,
        Err(error) => return all(error.into()),
    };
    let twice = repeated(req.topics.iter().map(|topic| topic.name.as_str()));
    let names = req.topics.iter().map(|topic| topic.name.as_str()).filter(|name| !twice.contains(name));
    let refused = ctx.refused(Operation::Alter, ResourceType::Topic, names);
    let mut left = PARTITIONS_PER_REQUEST_MAX;
    let mut entries = Vec::with_capacity(req.topics.len());
    for topic in &req.topics {
        let name = topic.name.as_str();
        entries.push(if twice.contains(name) {
            Err(Refusal::new(ResponseError::InvalidRequest, "Duplicate topic in request."))
        } else if refused.contains(name) {
            Err(Refusal::new(ResponseError::TopicAuthorizationFailed, "The topic authorization is failed."))
        } else if doomed.contains(name) {
            Err(Refusal::new(ResponseError::InvalidTopicException, "The topic is queued for deletion."))
        } else {
            let mutations = (!req.validate_only).then_some(&mut *mutations);
            grow(handles, topic, mutations, &mut left).await
        });
    }
    entries
}

/// `mutations`: what is counted; `None`: nothing is written.
async fn grow(
    handles: &Handles,
    topic: &CreatePartitionsTopic,
    mutations: Option<&mut Mutations>,
    left: &mut i64,
) -> Entry {
    let name = TopicName::new(topic.name.as_str());
    let unknown =
        || Refusal::new(ResponseError::UnknownTopicOrPartition, format!("The topic '{name}' does not exist."));
    // What the image does not have is not looked for in the store: it may be no name at all.
    handles.image.current().topic(name.as_str()).ok_or_else(unknown)?;
    let existing = handles.admin.read_topic(&name).await?.ok_or_else(unknown)?;
    let added = plan(&handles.image.current(), topic, &existing, left)?;
    if let Some(mutations) = mutations {
        mutations.take(added.len())?;
        handles.admin.grow(&name, &existing, &added).await?;
    }
    Ok(existing.node.partitions.len() + added.len())
}

/// The partitions to be added. Pure.
fn plan(
    image: &ClusterImage,
    topic: &CreatePartitionsTopic,
    existing: &ExistingTopic,
    left: &mut i64,
) -> Result<Assignment, Refusal> {
    let node = &existing.node;
    if !node.adding_replicas.is_empty() || !node.removing_replicas.is_empty() {
        let name = topic.name.as_str();
        let message = format!("A partition reassignment is in progress for the topic '{name}'.");
        return Err(Refusal::new(ResponseError::ReassignmentInProgress, message));
    }
    let old_count = node.partitions.len() as i32;
    let refuse_count = |message: String| Err(Refusal::new(ResponseError::InvalidPartitions, message));
    if topic.count < old_count {
        return refuse_count(format!(
            "Topic currently has {old_count} partitions, which is higher than the requested {}.",
            topic.count
        ));
    }
    if topic.count == old_count {
        return refuse_count(format!("Topic already has {old_count} partitions."));
    }
    let added_count = topic.count - old_count;
    if i64::from(added_count) > *left {
        return Err(too_many_partitions());
    }
    *left -= i64::from(added_count);
    let Some(first) = node.partitions.get(&PartitionIndex(0)) else {
        let message = format!(
            "Unexpected existing replica assignment for topic '{}', partition id 0 is missing.",
            topic.name.as_str()
        );
        return Err(Refusal::new(ResponseError::UnknownServerError, message));
    };
    match &topic.assignments {
        Some(given) => check_given(image, given, old_count, added_count, first.len()),
        None => {
            let candidates = candidates(image);
            let leader = first.first().copied().unwrap_or(BrokerId::NONE);
            let start = candidates.iter().position(|candidate| candidate.id >= leader).unwrap_or(0);
            Ok(placement::assign(&candidates, added_count, first.len() as i32, Start::At(start), old_count)?)
        }
    }
}

fn check_given(
    image: &ClusterImage,
    given: &[CreatePartitionsAssignment],
    old_count: i32,
    added_count: i32,
    factor: usize,
) -> Result<Assignment, Refusal> {
    let refuse = |message: String| Err(Refusal::new(ResponseError::InvalidReplicaAssignment, message));
    let list = |ids: &mut dyn Iterator<Item = i32>| ids.map(|id| id.to_string()).collect::<Vec<_>>().join(", ");
    let named: BTreeSet<i32> = given.iter().flat_map(|given| given.broker_ids.iter().map(|id| id.0)).collect();
    let mut unknown = named.into_iter().filter(|id| !image.brokers.contains_key(&BrokerId(*id))).peekable();
    if unknown.peek().is_some() {
        return refuse(format!("Unknown broker(s) in replica assignment: {}.", list(&mut unknown)));
    }
    if given.len() != added_count as usize {
        return refuse(format!(
            "Increasing the number of partitions by {added_count} but {} assignments provided.",
            given.len()
        ));
    }
    let mut added = Assignment::new();
    for (partition, given) in (old_count..).zip(given) {
        let replicas: Vec<_> = given.broker_ids.iter().map(|id| BrokerId(id.0)).collect();
        if replicas.is_empty() {
            return refuse(format!("Cannot have replication factor of 0 for partition id {partition}."));
        }
        if replicas.iter().collect::<BTreeSet<_>>().len() != replicas.len() {
            return refuse(format!(
                "Duplicate brokers not allowed in replica assignment: {} for partition id {partition}.",
                list(&mut replicas.iter().map(|id| id.0))
            ));
        }
        added.insert(PartitionIndex(partition), replicas);
    }
    let bad: BTreeMap<i32, i32> = added
        .iter()
        .filter(|(_, replicas)| replicas.len() != factor)
        .map(|(index, replicas)| (index.0, replicas.len() as i32))
        .collect();
    if !bad.is_empty() {
        return refuse(format!(
            "Inconsistent replication factor between partitions, partition 0 has {factor} while partitions [{}] have \
             replication factors [{}], respectively.",
            list(&mut bad.keys().copied()),
            list(&mut bad.values().copied())
        ));
    }
    Ok(added)
}

fn respond(req: &CreatePartitionsRequest, entries: Vec<Entry>) -> CreatePartitionsResponse {
    let mut seen = BTreeSet::new();
    let mut results = Vec::with_capacity(entries.len());
    for (topic, entry) in req.topics.iter().zip(entries) {
        // A topic named twice is answered once.
        if !seen.insert(topic.name.as_str()) {
            continue;
        }
        let result = CreatePartitionsTopicResult::default().with_name(topic.name.clone()).with_error_message(None);
        results.push(match entry {
            Ok(_) => result,
            Err(refusal) => {
                let message = refusal.wire_message();
                result.with_error_code(refusal.error.code()).with_error_message(message)
            }
        });
    }
    CreatePartitionsResponse::default().with_results(results)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kafka_protocol::messages::{BrokerId as WireBrokerId, TopicName as WireTopicName};

    use super::*;
    use crate::api::shared::strings::text;
    use crate::cluster::control::LiveBroker;
    use crate::cluster::znodes::topics::TopicNode;

    /// A topic of two partitions with one replica each, on brokers 1 to 3, the first led by 2.
    fn grow(count: i32, given: Option<&[&[i32]]>) -> Result<Vec<Vec<i32>>, (i16, String)> {
        let brokers =
            [1, 2, 3].map(|id| (BrokerId(id), LiveBroker { id: BrokerId(id), endpoints: vec![], rack: None }));
        let mut image = ClusterImage::default();
        image.brokers = Arc::new(brokers.into());
        let partitions = [2, 3].map(|id| vec![BrokerId(id)]);
        let node =
            TopicNode { partitions: (0..).map(PartitionIndex).zip(partitions).collect(), ..TopicNode::default() };
        let assignments = given.map(|given| {
            let one = |ids: &&[i32]| {
                CreatePartitionsAssignment::default().with_broker_ids(ids.iter().copied().map(WireBrokerId).collect())
            };
            given.iter().map(one).collect()
        });
        let topic = CreatePartitionsTopic::default()
            .with_name(WireTopicName(text("t")))
            .with_count(count)
            .with_assignments(assignments);
        let added = plan(&image, &topic, &ExistingTopic::for_test(node), &mut PARTITIONS_PER_REQUEST_MAX.clone());
        match added {
            Ok(added) => Ok(added.into_values().map(|ids| ids.into_iter().map(|id| id.0).collect()).collect()),
            Err(refusal) => Err((refusal.error.code(), refusal.message.unwrap_or_default())),
        }
    }

    #[track_caller]
    fn check(count: i32, given: Option<&[&[i32]]>, code: i16, message: &str) {
        assert_eq!(grow(count, given), Err((code, message.into())));
    }

    #[test]
    fn placement_goes_on_where_the_topic_ended() {
        assert_eq!(grow(5, None), Ok(vec![vec![1], vec![2], vec![3]]));
        assert_eq!(grow(4, Some(&[&[3], &[3]])), Ok(vec![vec![3], vec![3]]));
    }

    #[test]
    fn answers_encode_in_every_version() {
        let topic = |name: &str| CreatePartitionsTopic::default().with_name(WireTopicName(text(name)));
        let req = CreatePartitionsRequest::default().with_topics(vec![topic("a"), topic("b"), topic("b")]);
        for version in CreatePartitions::VERSIONS {
            let refused = Err(Refusal::bare(ResponseError::RequestTimedOut));
            let response = respond(&req, vec![Ok(1), refused, Ok(1)]);
            assert_eq!(response.results.len(), 2, "a topic named twice is answered once");
            crate::wire::codec::encode_response(&response, version).unwrap();
        }
    }

    #[test]
    fn refusals_have_kafkas_codes_and_texts() {
        check(1, None, 37, "Topic currently has 2 partitions, which is higher than the requested 1.");
        check(2, None, 37, "Topic already has 2 partitions.");
        check(i32::MAX, None, 44, "Excessively large number of partitions per request.");
        check(3, Some(&[&[9]]), 39, "Unknown broker(s) in replica assignment: 9.");
        check(4, Some(&[&[1]]), 39, "Increasing the number of partitions by 2 but 1 assignments provided.");
        check(3, Some(&[&[]]), 39, "Cannot have replication factor of 0 for partition id 2.");
        check(3, Some(&[&[1, 1]]), 39, "Duplicate brokers not allowed in replica assignment: 1, 1 for partition id 2.");
        check(
            4,
            Some(&[&[1, 2], &[1]]),
            39,
            "Inconsistent replication factor between partitions, partition 0 has 1 while partitions [2] have \
             replication factors [2], respectively.",
        );
    }
}
