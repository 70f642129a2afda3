//! CreateTopics (19), versions 2–7: make topics, and answer once they have leaders.
//!
//! Behaviour
//! - Only the controller serves it: NOT_CONTROLLER (41) from others.
//! - The same name twice: INVALID_REQUEST (42) for both. `__cluster_metadata`: TOPIC_AUTHORIZATION_FAILED (29).
//! - Needs CREATE of each topic or on the cluster: TOPIC_AUTHORIZATION_FAILED. Who lacks DESCRIBE_CONFIGS of a topic is
//!   not told its settings, but that.
//! - Existing, or marked for deletion: TOPIC_ALREADY_EXISTS (36). An illegal name, or one that differs from an existing
//!   one in `.` and `_` alone: INVALID_TOPIC_EXCEPTION (17). A setting that is unknown, illegal or null: INVALID_CONFIG
//!   (40). Assignments beside a count: INVALID_REQUEST. Counts: INVALID_PARTITIONS (37), INVALID_REPLICATION_FACTOR
//!   (38).
//! - Assignments: numbers from 0 without gaps, replica sets of one size without repetition, else
//!   INVALID_REPLICA_ASSIGNMENT (39). Brokers that are not live are refused likewise, as in Kafka 4.1; a 3.9 controller
//!   on ZooKeeper would make a partition without a leader.
//! - −1 means the broker's default. More than 10,000 partitions in one request: POLICY_VIOLATION (44), as in KRaft.
//! - Beyond the client's `controller_mutation_rate`: THROTTLING_QUOTA_EXCEEDED (89) from version 6 on; others
//!   wait.
//! - validate_only checks everything and writes nothing.
//! - The topics are written before the connection's next request is read. The answer waits until this broker's image
//!   has all leaders, or until the time-out: REQUEST_TIMED_OUT (7) means created, not ready; a time-out of 0 or less
//!   always.
//!
//! Versions: 4 defaults by −1 (KIP-464); 5 answers counts and settings (KIP-525), flexible; 6 is refused what is
//! beyond the limit; 7 topic ids. Ignored:
//! nothing.
//! Source: Kafka 3.9 `KafkaApis.handleCreateTopicsRequest`, `ZkAdminManager.createTopics`,
//! `AdminZkClient.validateTopicCreate`; 4.1 `ReplicationControlManager` where said.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};

use crate::api::authorization::Authorization;
use crate::api::context::{Handles, RequestContext};
use crate::api::handler::{Handler, Reply};
use crate::api::shared::authorization::RefusedNames;
use crate::api::shared::refusal::Refusal;
use crate::api::shared::repeated::repeated;
use crate::api::shared::strings::{opt_text, text};
use crate::clock::Clock;
use crate::cluster::admin::{AdminError, NewTopic};
use crate::cluster::image::{ClusterImage, ImagePublisher};
use crate::cluster::placement::{self, Candidate, Start};
use crate::cluster::znodes::topics::Assignment;
use crate::config::{Config, ConfigError, describe};
use crate::types::acl::{Operation, ResourceType};
use crate::types::limits::PARTITIONS_PER_REQUEST_MAX;
use crate::types::{BrokerId, PartitionIndex, TopicId, TopicName};

const VERSION_CONFIGS: i16 = 5;
const VERSION_REFUSING: i16 = 6;
const CLUSTER_METADATA: &str = "__cluster_metadata";

pub(crate) struct CreateTopics;

impl Handler for CreateTopics {
    type Req = CreateTopicsRequest;
    const VERSIONS: RangeInclusive<i16> = 2..=7;
    const AUTHORIZATION: Authorization = Authorization::Of(&[
        (Operation::Create, ResourceType::Cluster),
        (Operation::Create, ResourceType::Topic),
        (Operation::DescribeConfigs, ResourceType::Topic),
    ]);

    async fn handle(ctx: RequestContext, req: CreateTopicsRequest) -> Reply<CreateTopicsResponse> {
        let permit = Permit::of(&ctx, &req);
        let mut entries = plan(&ctx.handles, &req, &permit).await;
        if req.validate_only {
            return Reply::Now(respond(ctx.version, &ctx.handles.config.current(), &req, entries, &permit));
        }
        let mut mutations = ctx.mutations(Some(VERSION_REFUSING));
        for entry in &mut entries {
            if let Some(refusal) = entry.as_ref().ok().and_then(|topic| mutations.take(topic.assignment.len()).err()) {
                *entry = Err(refusal);
            }
        }
        let planned: Vec<NewTopic> = entries.iter().filter_map(|entry| entry.as_ref().ok()).cloned().collect();
        let results = match planned.is_empty() {
            true => Vec::new(),
            false => ctx.handles.admin.create_topics(&planned).await,
        };
        let accepted = entries.iter_mut().filter(|entry| entry.is_ok());
        for (entry, result) in accepted.zip(results) {
            if let Err(error) = result {
                *entry = Err(error.into());
            }
        }
        Reply::Later(
            async move {
                let created = entries.iter().flatten().map(|topic| (topic.name.clone(), topic.assignment.len()));
                let ready = await_leaders(&ctx.handles.image, created.collect(), req.timeout_ms).await;
                let ids: Vec<_> = entries.iter().map(|entry| entry.as_ref().map(|topic| topic.id).ok()).collect();
                for entry in &mut entries {
                    if entry.as_ref().is_ok_and(|topic| !ready.contains(&topic.name)) {
                        *entry = Err(Refusal::bare(ResponseError::RequestTimedOut));
                    }
                }
                let mut response = respond(ctx.version, &ctx.handles.config.current(), &req, entries, &permit);
                for (result, id) in response.topics.iter_mut().zip(ids) {
                    result.topic_id = id.map_or(result.topic_id, |id| id.0);
                }
                response.with_throttle_time_ms(mutations.throttle())
            }
            .boxed(),
        )
    }
}

/// What the request may not do.
#[derive(Debug, Default)]
struct Permit {
    uncreated: HashSet<String>,
    /// Topics whose settings are not told.
    undescribed: HashSet<String>,
}

impl Permit {
    fn of(ctx: &RequestContext, req: &CreateTopicsRequest) -> Self {
        if ctx.handles.authorizer.is_none() {
            return Self::default();
        }
        let names: BTreeSet<&str> = req.topics.iter().map(|topic| topic.name.as_str()).collect();
        let names = || names.iter().copied().filter(|name| *name != CLUSTER_METADATA);
        let owned =
            |refused: &RefusedNames<'_>| names().filter(|name| refused.contains(name)).map(str::to_owned).collect();
        let uncreated = match ctx.may_perhaps_on_cluster(Operation::Create) {
            true => HashSet::new(),
            false => owned(&ctx.refused(Operation::Create, ResourceType::Topic, names())),
        };
        let undescribed = owned(&ctx.hidden(Operation::DescribeConfigs, ResourceType::Topic, names()));
        Self { uncreated, undescribed }
    }
}

/// Waits for leaders of all partitions of each topic; answers the topics that have them in time.
pub(in crate::api) async fn await_leaders(
    image: &ImagePublisher,
    topics: Vec<(TopicName, usize)>,
    timeout_ms: i32,
) -> HashSet<TopicName> {
    let patience = Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0));
    if patience.is_zero() || topics.is_empty() {
        return HashSet::new();
    }
    let mut images = image.subscribe();
    let shown = images.wait_for(|image| topics.iter().all(|(name, count)| has_leaders(image, name, *count)));
    // In time or not: what is there counts.
    let _ = tokio::time::timeout(patience, shown).await;
    let image = image.current();
    topics.into_iter().filter(|(name, count)| has_leaders(&image, name, *count)).map(|(name, _)| name).collect()
}

fn has_leaders(image: &ClusterImage, name: &TopicName, partition_count: usize) -> bool {
    image.topic(name.as_str()).is_some_and(|topic| {
        topic.partitions.len() >= partition_count && topic.partitions.values().all(|state| state.leader.is_some())
    })
}

type Entry = Result<NewTopic, Refusal>;

/// What is to become of each topic of the request, in order. Writes nothing.
async fn plan(handles: &Handles, req: &CreateTopicsRequest, permit: &Permit) -> Vec<Entry> {
    let all = |refusal: Refusal| req.topics.iter().map(|_| Err(refusal.clone())).collect();
    if !handles.controller.is_active() {
        return all(Refusal::bare(ResponseError::NotController));
    }
    let stored: Result<_, AdminError> =
        async { Ok((handles.admin.topic_names().await?, handles.admin.marked_for_deletion().await?)) }.await;
    let (names, doomed) = match stored {
        Ok(stored) => stored,
        Err(error) => return all(error.into()),
    };
    let (image, config) = (handles.image.current(), handles.config.current());
    let mut planner = Planner {
        config: &config,
        clock: &*handles.clock,
        image: &image,
        names: Names::of(names),
        doomed,
        partitions_left: PARTITIONS_PER_REQUEST_MAX,
    };
    planner.plan_all(req, permit)
}

/// Topic names, by what their metrics are called: there `.` and `_` are one.
#[derive(Default)]
struct Names(HashMap<String, BTreeSet<String>>);

impl Names {
    fn of(names: impl IntoIterator<Item = String>) -> Self {
        let mut all = Self::default();
        names.into_iter().for_each(|name| all.insert(name));
        all
    }

    fn insert(&mut self, name: String) {
        self.0.entry(name.replace('.', "_")).or_default().insert(name);
    }

    fn contains(&self, name: &str) -> bool {
        self.alike(name).any(|other| other == name)
    }

    /// The name itself, if it is there, and those that collide with it. Source: Kafka `Topic.hasCollision`.
    fn alike(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(&name.replace('.', "_")).into_iter().flatten().map(String::as_str)
    }
}

/// The rules, and what they are held against.
struct Planner<'a> {
    config: &'a Config,
    clock: &'a dyn Clock,
    image: &'a ClusterImage,
    /// Topics in the store, and those planned before.
    names: Names,
    doomed: BTreeSet<String>,
    partitions_left: i64,
}

impl Planner<'_> {
    fn plan_all(&mut self, req: &CreateTopicsRequest, permit: &Permit) -> Vec<Entry> {
        let twice = repeated(req.topics.iter().map(|topic| topic.name.as_str()));
        let entry = |topic: &CreatableTopic| {
            let name = topic.name.as_str();
            if twice.contains(name) {
                let message = "Found multiple entries for this topic.";
                return Err(Refusal::new(ResponseError::InvalidRequest, message));
            }
            if name == CLUSTER_METADATA || permit.uncreated.contains(name) {
                return Err(Refusal::new(ResponseError::TopicAuthorizationFailed, "Authorization failed."));
            }
            let new = self.plan(topic)?;
            if !req.validate_only {
                self.names.insert(name.to_owned());
            }
            Ok(new)
        };
        req.topics.iter().map(entry).collect()
    }

    /// The checks in Kafka's order.
    fn plan(&mut self, topic: &CreatableTopic) -> Entry {
        let name = topic.name.as_str();
        let exists = || Refusal::new(ResponseError::TopicAlreadyExists, format!("Topic '{name}' already exists."));
        if self.image.topic(name).is_some() {
            return Err(exists());
        }
        let overrides = overrides(topic)?;
        let assignment = match topic.assignments.is_empty() {
            true => self.place(topic)?,
            false => self.given_assignment(topic)?,
        };
        TopicName::check(name).map_err(|why| Refusal::new(ResponseError::InvalidTopicException, why))?;
        if self.doomed.contains(name) {
            let message = format!("Topic '{name}' is marked for deletion.");
            return Err(Refusal::new(ResponseError::TopicAlreadyExists, message));
        }
        if self.names.contains(name) {
            return Err(exists());
        }
        let colliding: Vec<_> = self.names.alike(name).collect();
        if !colliding.is_empty() {
            let message = format!("Topic '{name}' collides with existing topics: {}", colliding.join(", "));
            return Err(Refusal::new(ResponseError::InvalidTopicException, message));
        }
        check_assignment(&assignment)?;
        check_brokers(&assignment, self.image)?;
        check_overrides(self.config, &overrides)?;
        let id = (0..64).find_map(|_| TopicId::from_random(self.clock.random())).unwrap_or_default();
        Ok(NewTopic { name: TopicName::new(name), id, assignment, overrides })
    }

    fn place(&mut self, topic: &CreatableTopic) -> Result<Assignment, Refusal> {
        let config = self.config;
        let partition_count = if topic.num_partitions == -1 { config.num_partitions } else { topic.num_partitions };
        let factor = match topic.replication_factor {
            -1 => config.default_replication_factor,
            factor => factor,
        };
        self.charge(i64::from(partition_count))?;
        let start = Start::Random(self.clock.random());
        Ok(placement::assign(&candidates(self.image), partition_count, i32::from(factor), start, 0)?)
    }

    fn given_assignment(&mut self, topic: &CreatableTopic) -> Result<Assignment, Refusal> {
        if topic.num_partitions != -1 || topic.replication_factor != -1 {
            let message = "Both numPartitions or replicationFactor and replicasAssignments were set. \
                           Both cannot be used at the same time.";
            return Err(Refusal::new(ResponseError::InvalidRequest, message));
        }
        self.charge(topic.assignments.len() as i64)?;
        let mut assignment = Assignment::new();
        for given in &topic.assignments {
            let replicas: Vec<_> = given.broker_ids.iter().map(|id| BrokerId(id.0)).collect();
            assignment.insert(PartitionIndex(given.partition_index), replicas);
        }
        Ok(assignment)
    }

    fn charge(&mut self, partition_count: i64) -> Result<(), Refusal> {
        if partition_count > self.partitions_left {
            return Err(too_many_partitions());
        }
        self.partitions_left -= partition_count.max(0);
        Ok(())
    }
}

/// Source: Kafka 3.9 `ReplicationControlManager.validateTotalNumberOfPartitions`.
pub(in crate::api) fn too_many_partitions() -> Refusal {
    Refusal::new(ResponseError::PolicyViolation, "Excessively large number of partitions per request.")
}

pub(in crate::api) fn candidates(image: &ClusterImage) -> Vec<Candidate> {
    image.brokers.values().map(|broker| Candidate { id: broker.id, rack: broker.rack.clone() }).collect()
}

fn overrides(topic: &CreatableTopic) -> Result<BTreeMap<String, String>, Refusal> {
    let nulls: Vec<_> = topic.configs.iter().filter(|c| c.value.is_none()).map(|c| c.name.as_str()).collect();
    if !nulls.is_empty() {
        let message = format!("Null value not supported for topic configs: {}", nulls.join(","));
        return Err(Refusal::new(ResponseError::InvalidConfig, message));
    }
    let pairs = topic.configs.iter().filter_map(|config| {
        let value = config.value.as_ref()?;
        Some((config.name.to_string(), value.to_string()))
    });
    Ok(pairs.collect())
}

fn check_overrides(config: &Config, overrides: &BTreeMap<String, String>) -> Result<(), Refusal> {
    match config.of_topic(overrides) {
        Ok(_) => Ok(()),
        Err(error) => Err(invalid_config(&error)),
    }
}

fn invalid_config(error: &ConfigError) -> Refusal {
    Refusal::new(ResponseError::InvalidConfig, error.to_string())
}

/// Source: Kafka 3.9 `AdminZkClient.validateTopicCreate`.
fn check_assignment(assignment: &Assignment) -> Result<(), Refusal> {
    let refuse = |why: String| Err(Refusal::new(ResponseError::InvalidReplicaAssignment, why));
    let sizes: BTreeSet<usize> = assignment.values().map(Vec::len).collect();
    if sizes.len() != 1 {
        return refuse("All partitions should have the same number of replicas".into());
    }
    for replicas in assignment.values() {
        let distinct: BTreeSet<_> = replicas.iter().collect();
        if distinct.len() != replicas.len() {
            return refuse(format!("Duplicate replica assignment found: {}", as_scala_prints(assignment)));
        }
    }
    if !assignment.keys().map(|index| index.0).eq(0..assignment.len() as i32) {
        return refuse("partitions should be a consecutive 0-based integer sequence".into());
    }
    Ok(())
}

/// A map of arrays as it stands in Kafka's message.
fn as_scala_prints(assignment: &Assignment) -> String {
    let list = |ids: &[BrokerId]| ids.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let entries: Vec<_> =
        assignment.iter().map(|(index, ids)| format!("{index} -> ArrayBuffer({})", list(ids))).collect();
    format!("HashMap({})", entries.join(", "))
}

/// Source: Kafka 4.1 `ReplicationControlManager.validateManualPartitionAssignment`.
fn check_brokers(assignment: &Assignment, image: &ClusterImage) -> Result<(), Refusal> {
    let refuse = |why: String| Err(Refusal::new(ResponseError::InvalidReplicaAssignment, why));
    if assignment.values().any(Vec::is_empty) {
        return refuse("The manual partition assignment includes an empty replica list.".into());
    }
    match assignment.values().flatten().find(|id| !image.brokers.contains_key(id)) {
        Some(unknown) => refuse(format!(
            "The manual partition assignment includes broker {unknown}, but no such broker is registered."
        )),
        None => Ok(()),
    }
}

fn respond(
    version: i16,
    config: &Config,
    req: &CreateTopicsRequest,
    entries: Vec<Entry>,
    permit: &Permit,
) -> CreateTopicsResponse {
    let result = |(topic, entry): (&CreatableTopic, Entry)| {
        let result = CreatableTopicResult::default().with_name(topic.name.clone()).with_error_message(None);
        match entry {
            Err(refusal) => {
                let message = refusal.wire_message();
                let hidden = permit.uncreated.contains(topic.name.as_str())
                    && permit.undescribed.contains(topic.name.as_str())
                    && version >= VERSION_CONFIGS;
                let of_configs = if hidden { ResponseError::TopicAuthorizationFailed.code() } else { 0 };
                let result = result.with_topic_config_error_code(of_configs);
                result.with_error_code(refusal.error.code()).with_error_message(message)
            }
            Ok(_) if version < VERSION_CONFIGS => result,
            Ok(_) if permit.undescribed.contains(topic.name.as_str()) => {
                result.with_topic_config_error_code(ResponseError::TopicAuthorizationFailed.code())
            }
            Ok(new) => {
                let configs = describe::describe_topic(config, &new.overrides).unwrap_or_default();
                let configs = configs.into_iter().map(|entry| {
                    CreatableTopicConfigs::default()
                        .with_name(text(entry.name))
                        .with_value(opt_text(entry.value.as_deref()))
                        .with_read_only(entry.read_only)
                        .with_config_source(entry.source.wire())
                        .with_is_sensitive(entry.sensitive)
                });
                result
                    .with_num_partitions(new.assignment.len() as i32)
                    .with_replication_factor(new.assignment.values().next().map_or(0, Vec::len) as i16)
                    .with_configs(Some(configs.collect()))
            }
        }
    };
    CreateTopicsResponse::default().with_topics(req.topics.iter().zip(entries).map(result).collect())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopicConfig};
    use kafka_protocol::messages::{BrokerId as WireBrokerId, TopicName as WireTopicName};

    use super::*;
    use crate::clock::testing::ManualClock;
    use crate::cluster::control::LiveBroker;
    use crate::config::{Inputs, Machine};

    fn topic(name: &str, num_partitions: i32, replication_factor: i16) -> CreatableTopic {
        CreatableTopic::default()
            .with_name(WireTopicName(text(name)))
            .with_num_partitions(num_partitions)
            .with_replication_factor(replication_factor)
    }

    fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> CreatableTopic {
        let given = assignments.iter().map(|(index, ids)| {
            CreatableReplicaAssignment::default()
                .with_partition_index(*index)
                .with_broker_ids(ids.iter().copied().map(WireBrokerId).collect())
        });
        topic(name, -1, -1).with_assignments(given.collect())
    }

    fn configured(name: &str, key: &str, value: Option<&str>) -> CreatableTopic {
        let config = CreatableTopicConfig::default().with_name(text(key)).with_value(opt_text(value));
        topic(name, -1, -1).with_configs(vec![config])
    }

    fn config() -> Config {
        let machine = Machine::for_test();
        Config::load(&Inputs::default(), machine).unwrap()
    }

    /// Two brokers, one topic `there.is`, one marked for deletion: `doomed`.
    fn plan(topics: Vec<CreatableTopic>) -> Vec<Entry> {
        let config = config();
        let brokers = [1, 2].map(|id| (BrokerId(id), LiveBroker { id: BrokerId(id), endpoints: vec![], rack: None }));
        let mut image = ClusterImage::default();
        image.brokers = Arc::new(brokers.into());
        let mut planner = Planner {
            config: &config,
            clock: &ManualClock::new(0, 1),
            image: &image,
            names: Names::of(["there.is", "doomed"].map(Into::into)),
            doomed: ["doomed".into()].into(),
            partitions_left: PARTITIONS_PER_REQUEST_MAX,
        };
        planner.plan_all(&CreateTopicsRequest::default().with_topics(topics), &Permit::default())
    }

    #[track_caller]
    fn check(topic: CreatableTopic, code: i16, message: &str) {
        let refusal = plan(vec![topic]).remove(0).expect_err("refused");
        assert_eq!((refusal.error.code(), refusal.message.as_deref()), (code, Some(message)));
    }

    #[test]
    fn defaults_and_counts_make_a_placement() {
        let planned = plan(vec![topic("a", -1, -1), topic("b", 3, 2), assigned("c", &[(1, &[2]), (0, &[1])])]);
        let shape = |entry: &Entry| {
            let new = entry.as_ref().unwrap();
            (new.assignment.len(), new.assignment[&PartitionIndex(0)].len())
        };
        assert_eq!(planned.iter().map(shape).collect::<Vec<_>>(), [(1, 1), (3, 2), (2, 1)]);
        assert_eq!(planned[2].as_ref().unwrap().assignment[&PartitionIndex(1)], [BrokerId(2)]);
    }

    #[test]
    fn refusals_have_kafkas_codes_and_texts() {
        check(topic("there.is", 1, 1), 36, "Topic 'there.is' already exists.");
        check(topic("doomed", 1, 1), 36, "Topic 'doomed' is marked for deletion.");
        check(topic("there_is", 1, 1), 17, "Topic 'there_is' collides with existing topics: there.is");
        check(
            topic("a b", 1, 1),
            17,
            "Topic name is invalid: 'a b' contains one or more characters other than ASCII alphanumerics, '.', '_' and \
             '-'",
        );
        check(topic("a", 0, 1), 37, "Number of partitions must be larger than 0.");
        check(topic("a", 1, 0), 38, "Replication factor must be larger than 0.");
        check(topic("a", 1, 3), 38, "Replication factor: 3 larger than available brokers: 2.");
        check(configured("a", "foo", Some("1")), 40, "Unknown topic config name: foo");
        check(configured("a", "retention.ms", None), 40, "Null value not supported for topic configs: retention.ms");
        check(topic("a", i32::MAX, 1), 44, "Excessively large number of partitions per request.");
        check(topic(CLUSTER_METADATA, 1, 1), 29, "Authorization failed.");
    }

    #[test]
    fn answers_encode_in_every_version() {
        let topics = vec![topic("a", 1, 1), topic("a b", 1, 1)];
        let req = CreateTopicsRequest::default().with_topics(topics.clone());
        for version in CreateTopics::VERSIONS {
            let response = respond(version, &config(), &req, plan(topics.clone()), &Permit::default());
            crate::wire::codec::encode_response(&response, version).unwrap();
        }
    }

    #[test]
    fn assignments_are_checked_whole() {
        check(
            assigned("a", &[(0, &[1])]).with_num_partitions(1),
            42,
            "Both numPartitions or replicationFactor and replicasAssignments were set. Both cannot be used at the same \
             time.",
        );
        check(assigned("a", &[(0, &[1]), (1, &[1, 2])]), 39, "All partitions should have the same number of replicas");
        check(
            assigned("a", &[(0, &[1, 1])]),
            39,
            "Duplicate replica assignment found: HashMap(0 -> ArrayBuffer(1, 1))",
        );
        check(
            assigned("a", &[(0, &[1]), (2, &[1])]),
            39,
            "partitions should be a consecutive 0-based integer sequence",
        );
        check(
            assigned("a", &[(0, &[9])]),
            39,
            "The manual partition assignment includes broker 9, but no such broker is registered.",
        );
        check(assigned("a", &[(0, &[])]), 39, "The manual partition assignment includes an empty replica list.");
    }

    #[test]
    fn topics_of_one_request_are_held_against_each_other() {
        let codes =
            |topics| plan(topics).into_iter().map(|entry| entry.err().map_or(0, |refusal| refusal.error.code()));
        let twice: Vec<_> = codes(vec![topic("a", 1, 1), topic("b", 1, 1), topic("a", 2, 1)]).collect();
        assert_eq!(twice, [42, 0, 42]);
        let colliding: Vec<_> = codes(vec![topic("x.y", 1, 1), topic("x_y", 1, 1)]).collect();
        assert_eq!(colliding, [0, 17]);
        let large: Vec<_> = codes(vec![topic("a", 9_000, 1), topic("b", 2_000, 1), topic("c", 1_000, 1)]).collect();
        assert_eq!(large, [0, 44, 0]);
    }
}
