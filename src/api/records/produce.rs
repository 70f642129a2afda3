//! Produce (0), versions 3–13: append record batches.
//!
//! Behaviour
//! - acks 0, 1 or −1 (all); anything else is INVALID_REQUIRED_ACKS (21) for every partition.
//! - One batch of magic 2 per partition, checked as `record::validate` says; per-record errors come back from version 8
//!   on.
//! - A retry of one of a producer's last five batches succeeds with the original offset.
//! - acks=1 answers once the batches are written, acks=all once the high watermark has passed them or the request's
//!   time-out is over: REQUEST_TIMED_OUT for the partitions that were not replicated by then, whose batches stay.
//!   acks=0 has no answer, and an error closes the connection.
//! - Clients may not write `__consumer_offsets` or `__transaction_state` (INVALID_TOPIC_EXCEPTION), save the admin
//!   client.
//! - Needs WRITE of each topic, TOPIC_AUTHORIZATION_FAILED (29), and for transactional batches WRITE of the
//!   transactional id.
//! - Transactional batches need a transactional id (else TRANSACTIONAL_ID_AUTHORIZATION_FAILED for all partitions), and
//!   the first of a transaction in each partition is verified with the id's coordinator: INVALID_TXN_STATE (48) if it
//!   was not added to the transaction, NOT_ENOUGH_REPLICAS (19) while the coordinator cannot say.
//!
//! Versions: 7 zstd; 8 record errors (KIP-467); 9 flexible; 10 leader hints (KIP-951) with NOT_LEADER_OR_FOLLOWER; 13
//! topic ids instead of names (UNKNOWN_TOPIC_ID). Announced from 0, see `api_versions`; 0–2 close the connection.
//! Source: Kafka 3.9 `KafkaApis.handleProduceRequest`, `ReplicaManager.appendRecords`,
//! `ProduceRequest.validateRecords`.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse, TopicProduceResponse,
};
use kafka_protocol::messages::{ProduceResponse, TopicName as WireTopicName};
use kafka_protocol::protocol::StrBytes;

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code;
use crate::api::handler::{CloseReason, Outcome, Row, Served, encoded};
use crate::api::shared::leader_hints;
use crate::api::shared::verification::{Unverified, Verified, is_transactional, verify};
use crate::clock::UnixMs;
use crate::cluster::image::ClusterImage;
use crate::metrics::Traffic;
use crate::record::validate::validate;
use crate::replica::ack::{Ack, AckError, Acked, Completion};
use crate::replica::partition::{AckAt, AppendRefused, Partition, Unwritten};
use crate::security::quota::limits::Kind;
use crate::types::acl::{Operation, ResourceType};
use crate::types::{Offset, PartitionIndex, TopicId, TopicName, TopicPartition};
use crate::wire::produce::{ProducePartition, ProduceRequest, TopicRef, decode};

const KEY: i16 = 0;
const VERSION_ZSTD: i16 = 7;
const VERSION_RECORD_ERRORS: i16 = 8;
const VERSION_TOPIC_IDS: i16 = 13;
/// Client id with which Java's own tools may write internal topics. Source: `AdminUtils.ADMIN_CLIENT_ID`.
const ADMIN_CLIENT_ID: &str = "__admin_client";

/// Produce has a row of its own making: its frame is the largest and its records are stamped where they lie.
pub(crate) const ROW: Row = Row {
    key: KEY,
    min_version: 3,
    max_version: 13,
    frame_bytes_max: usize::MAX,
    run,
    flexible: |version| version >= 9,
    served: Served::Everywhere,
    authorization: Authorization::Of(&[
        (Operation::Write, ResourceType::TransactionalId),
        (Operation::Write, ResourceType::Topic),
    ]),
};

/// What became of one partition, until its ack is known.
struct Stored {
    index: i32,
    result: Result<Appended, Failed>,
}

struct Appended {
    base_offset: Offset,
    log_append_time: Option<UnixMs>,
    log_start_offset: Offset,
}

/// A partition's error with everything a client may want to know of it.
struct Failed {
    error: ResponseError,
    message: Option<String>,
    records: Vec<(i32, String)>,
}

impl From<ResponseError> for Failed {
    fn from(error: ResponseError) -> Self {
        Self { error, message: None, records: Vec::new() }
    }
}

impl From<Unverified> for Failed {
    fn from(unverified: Unverified) -> Self {
        Self { error: unverified.error, message: Some(unverified.message), records: Vec::new() }
    }
}

/// Whether a partition's ack came within the time-out, and what it said.
type Acknowledged = Option<Result<(), AckError>>;

struct StoredTopic {
    topic: TopicRef,
    partitions: Vec<Stored>,
}

fn run(ctx: RequestContext, body: BytesMut) -> BoxFuture<'static, Outcome> {
    let bytes = body.len();
    let request = match decode(body, ctx.version) {
        Ok(request) => request,
        Err(error) => {
            return std::future::ready(Outcome::Close(CloseReason::Malformed(error.to_string()))).boxed();
        }
    };
    // One look for the whole request: a topic that becomes known meanwhile was not asked about.
    let image = looks_up(&ctx).then(|| ctx.image());
    let permit = Permit::of(&ctx, image.as_deref(), &request);
    if request.transactional_id.is_none() || permit.refused.is_some() {
        return std::future::ready(stage_one(ctx, request, bytes, image.as_deref(), &permit, &Verified::default()))
            .boxed();
    }
    async move {
        let topics = request.topics.iter().enumerate();
        let names: Vec<_> = topics
            .map(|(at, topic)| {
                let name = resolve(&ctx, image.as_deref(), &topic.topic);
                name.ok().filter(|_| permit.refusal_of(at).is_none())
            })
            .collect();
        let verified = verify(&ctx, &request, &names).await;
        stage_one(ctx, request, bytes, image.as_deref(), &permit, &verified)
    }
    .boxed()
}

/// Whether the request names topics by their ids, or somebody is asked about them.
fn looks_up(ctx: &RequestContext) -> bool {
    ctx.version >= VERSION_TOPIC_IDS || ctx.handles.authorizer.is_some()
}

/// What of a request may be written. What counts are its batches: a request may say of itself what it likes
/// (CVE-2018-17196).
#[derive(Debug, Default)]
struct Permit {
    /// Why nothing is.
    refused: Option<ResponseError>,
    /// Whether a topic is not, by its place in the request; empty if all may be written.
    refused_topics: Vec<bool>,
}

impl Permit {
    fn of(ctx: &RequestContext, image: Option<&ClusterImage>, request: &ProduceRequest) -> Self {
        let id = request.transactional_id.as_deref();
        if ctx.handles.authorizer.is_none() && id.is_some() {
            return Self::default();
        }
        let may = |id: &str| ctx.may(Operation::Write, ResourceType::TransactionalId, id);
        if has_transactional_records(request) && !id.is_some_and(may) {
            let refused = Some(ResponseError::TransactionalIdAuthorizationFailed);
            return Self { refused, refused_topics: Vec::new() };
        }
        let Some(image) = image.filter(|_| ctx.handles.authorizer.is_some()) else { return Self::default() };
        let names = || request.topics.iter().map(|topic| name_in(image, &topic.topic));
        let refused = ctx.refused(Operation::Write, ResourceType::Topic, names().flatten());
        if refused.is_empty() {
            return Self::default();
        }
        let is_refused = |name: Option<&str>| name.is_some_and(|name| refused.contains(name));
        Self { refused: None, refused_topics: names().map(is_refused).collect() }
    }

    fn refusal_of(&self, topic: usize) -> Option<ResponseError> {
        let is_refused = self.refused_topics.get(topic).copied().unwrap_or(false);
        is_refused.then_some(ResponseError::TopicAuthorizationFailed)
    }
}

/// Whether any batch is of a transaction.
fn has_transactional_records(request: &ProduceRequest) -> bool {
    let mut partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
    partitions.any(|partition| is_transactional(partition.records.as_deref()))
}

/// `bytes`: of the whole request; `image`: what topics are looked up in, `None` where none is.
fn stage_one(
    ctx: RequestContext,
    request: ProduceRequest,
    bytes: usize,
    image: Option<&ClusterImage>,
    permit: &Permit,
    verified: &Verified,
) -> Outcome {
    let (acks, version) = (request.acks, ctx.version);
    let timeout = Duration::from_millis(request.timeout_ms.max(0) as u64);
    let slots = request.topics.iter().map(|topic| topic.partitions.len()).sum();
    let (completion, acked) = Completion::new(slots);
    let mut slot = 0;
    let bad_acks = (!(-1..=1).contains(&acks)).then_some(ResponseError::InvalidRequiredAcks);
    let mut topics = Vec::with_capacity(request.topics.len());
    let mut unwritten = Vec::new();
    for (at, topic) in request.topics.into_iter().enumerate() {
        let name = resolve(&ctx, image, &topic.topic);
        let refuse_all = permit.refused.or_else(|| permit.refusal_of(at)).or(bad_acks);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let index = partition.index;
            let ack = Ack::new(&completion, slot);
            slot += 1;
            let result = match (&name, refuse_all) {
                (_, Some(error)) => Err(error.into()),
                (Err(error), None) => Err((*error).into()),
                (Ok(name), None) => append(&ctx, name, partition, acks, ack, verified, &mut unwritten),
            };
            partitions.push(Stored { index, result });
        }
        topics.push(StoredTopic { topic: topic.topic, partitions });
    }
    drop(completion);
    // All partitions are written together, and perhaps here.
    drop(unwritten);
    let of_bytes = ctx.throttle(Kind::Produce, bytes);
    if acks == 0 {
        let failed = topics.iter().flat_map(|topic| &topic.partitions).any(|stored| stored.result.is_err());
        return if failed { Outcome::Close(CloseReason::FailedWithoutAcks) } else { unanswered(acked) };
    }
    Outcome::Later(
        async move {
            let outcomes = match acks {
                // The time-out is that of the replicas: Kafka's write is part of the request.
                1 => acked.all().await.into_iter().map(Some).collect(),
                _ => acked.within(timeout.max(MINIMUM_WAIT)).await,
            };
            let throttle_ms = of_bytes.max(ctx.throttle_time());
            let mut response = response(topics, outcomes, version).with_throttle_time_ms(throttle_ms);
            leader_hints::of_produce(&ctx, &mut response);
            encoded(&response, version)
        }
        .boxed(),
    )
}

/// acks=0: nothing is sent, but the request counts as in flight until it is written, so that a producer that never
/// waits cannot fill the memory.
fn unanswered(acked: Acked) -> Outcome {
    let written = async move {
        match acked.all().await.iter().all(Result::is_ok) {
            true => Outcome::Nothing,
            false => Outcome::Close(CloseReason::FailedWithoutAcks),
        }
    };
    Outcome::Later(written.boxed())
}

/// A time-out of 0 would answer REQUEST_TIMED_OUT before the writer had its turn; Kafka's own append is part of the
/// request there, so it gets the time of an ordinary write here.
const MINIMUM_WAIT: Duration = Duration::from_millis(200);

/// The topic that is named, or that has the id.
fn name_in<'a>(image: &'a ClusterImage, topic: &'a TopicRef) -> Option<&'a str> {
    match topic {
        TopicRef::Name(name) => Some(name.as_str()),
        TopicRef::Id(id) => image.topic_by_id(TopicId(*id)).map(|topic| topic.name.as_str()),
    }
}

fn name_of(image: Option<&ClusterImage>, topic: &TopicRef) -> Result<TopicName, ResponseError> {
    match topic {
        TopicRef::Name(name) => Ok(TopicName::new(name)),
        TopicRef::Id(id) => {
            let found = image.and_then(|image| image.topic_by_id(TopicId(*id)));
            Ok(found.ok_or(ResponseError::UnknownTopicId)?.name.clone())
        }
    }
}

fn resolve(ctx: &RequestContext, image: Option<&ClusterImage>, topic: &TopicRef) -> Result<TopicName, ResponseError> {
    let name = name_of(image, topic)?;
    if name.is_internal() && ctx.client_id.as_deref() != Some(ADMIN_CLIENT_ID) {
        return Err(ResponseError::InvalidTopicException);
    }
    Ok(name)
}

fn append(
    ctx: &RequestContext,
    topic: &TopicName,
    partition: ProducePartition,
    acks: i16,
    ack: Ack,
    verified: &Verified,
    unwritten: &mut Vec<Unwritten>,
) -> Result<Appended, Failed> {
    let index = PartitionIndex(partition.index);
    let Some(replica) = ctx.handles.replicas.get(topic.as_str(), index) else {
        return Err(ctx.without_replica(topic.as_str(), index).into());
    };
    replica.traffic.produces.add(1);
    let bytes = partition.records.as_ref().map_or(0, |records| records.len());
    let appended = append_to(ctx, topic, partition, &replica, acks, ack, verified, unwritten);
    if let Err(failed) = &appended {
        count_failure(&replica.traffic, failed.error, bytes);
    }
    appended
}

/// Source: Kafka 3.9 `ReplicaManager.appendToLocalLog`: what a client may run into without anybody's fault, and what is
/// too large, is no failed request.
fn count_failure(traffic: &Traffic, error: ResponseError, bytes: usize) {
    match error {
        ResponseError::MessageTooLarge | ResponseError::RecordListTooLarge => traffic.bytes_rejected.add(bytes as u64),
        ResponseError::NotLeaderOrFollower | ResponseError::CorruptMessage | ResponseError::KafkaStorageError => {}
        _ => traffic.produces_failed.add(1),
    }
}

#[expect(clippy::too_many_arguments, reason = "one partition's part of a request, and what the request says of all")]
fn append_to(
    ctx: &RequestContext,
    topic: &TopicName,
    partition: ProducePartition,
    replica: &Arc<Partition>,
    acks: i16,
    ack: Ack,
    verified: &Verified,
    unwritten: &mut Vec<Unwritten>,
) -> Result<Appended, Failed> {
    let index = PartitionIndex(partition.index);
    let guard = verified.guard(topic, index)?;
    let now = ctx.handles.clock.now_ms();
    let rules = replica.with_log(|log| log.config().produce_rules(ctx.version >= VERSION_ZSTD));
    let records = partition.records.unwrap_or_default();
    let batch = validate(records, &rules, now).map_err(|refused| {
        let partition = TopicPartition { topic: topic.clone(), partition: index };
        Failed {
            error: error_code::of_refused_batch(refused.kind()),
            message: refused.error_message(&partition),
            records: refused.record_errors(&partition),
        }
    })?;
    let ack = match acks {
        0 | 1 => AckAt::Written(ack),
        _ => AckAt::HighWatermark(ack),
    };
    match replica.append(batch, ack, None, guard, now) {
        Ok(accepted) => {
            unwritten.extend(accepted.unwritten);
            let appended = accepted.appended;
            Ok(Appended {
                base_offset: appended.base_offset,
                log_append_time: appended.log_append_time,
                log_start_offset: appended.log_start_offset,
            })
        }
        Err(refusal) => Err(Failed {
            error: error_code::of_refusal(&refusal),
            message: matches!(refusal, AppendRefused::Log(_)).then(|| refusal.to_string()),
            records: Vec::new(),
        }),
    }
}

/// `outcomes` in slot order; `None`: not known within the time-out.
fn response(topics: Vec<StoredTopic>, outcomes: Vec<Acknowledged>, version: i16) -> ProduceResponse {
    let mut outcomes = outcomes.into_iter();
    let mut responses = Vec::with_capacity(topics.len());
    for topic in topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for stored in topic.partitions {
            let acked = outcomes.next().flatten();
            partitions.push(partition_response(stored, acked, version));
        }
        let response = TopicProduceResponse::default().with_partition_responses(partitions);
        responses.push(match topic.topic {
            TopicRef::Name(name) => response.with_name(WireTopicName(StrBytes::from_string(name.to_string()))),
            TopicRef::Id(id) => response.with_topic_id(id),
        });
    }
    ProduceResponse::default().with_responses(responses)
}

fn partition_response(stored: Stored, acked: Acknowledged, version: i16) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(stored.index).with_base_offset(-1);
    let failed = match (stored.result, acked) {
        (Ok(appended), Some(Ok(()))) => {
            return response
                .with_base_offset(appended.base_offset.0)
                .with_log_append_time_ms(appended.log_append_time.unwrap_or(-1))
                .with_log_start_offset(appended.log_start_offset.0);
        }
        (Ok(_), Some(Err(error))) => Failed::from(error_code::of_ack_error(&error)),
        (Ok(_), None) => Failed::from(ResponseError::RequestTimedOut),
        (Err(failed), _) => failed,
    };
    let response = response.with_error_code(failed.error.code()).with_log_append_time_ms(-1).with_log_start_offset(-1);
    if version < VERSION_RECORD_ERRORS {
        return response;
    }
    let records = failed.records.into_iter().map(|(index, message)| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(index)
            .with_batch_index_error_message(Some(StrBytes::from_string(message)))
    });
    response.with_record_errors(records.collect()).with_error_message(failed.message.map(StrBytes::from_string))
}
