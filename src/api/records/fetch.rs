//! Fetch (1), versions 4–18: read record batches.
//!
//! Behaviour
//! - Whole batches as stored, from the one that holds the fetch offset, up to the high watermark (read_uncommitted) or
//!   the last stable offset (read_committed), then with the aborted transactions among them. The first non-empty
//!   partition returns one batch even above every limit.
//! - Answers at once when `min_bytes` are there, `max_wait_ms` is not positive, or any partition has an error, but for
//!   those that may not be read, unless there are no others; else it parks until the bytes come, a partition changes
//!   its role, or the time is over.
//! - Sessions (KIP-227) as `replica::sessions` says; an incremental answer names only what has news.
//! - Consumers need READ of each topic, followers CLUSTER_ACTION on the cluster: TOPIC_AUTHORIZATION_FAILED (29) for
//!   the partition else.
//! - Leader epochs: older than ours FENCED_LEADER_EPOCH (74), newer UNKNOWN_LEADER_EPOCH (75), also where this broker
//!   does not lead (NOT_LEADER_OR_FOLLOWER, 6). Below the log start or above the end: OFFSET_OUT_OF_RANGE (1) with the
//!   log start. A diverging `last_fetched_epoch` (12+) is answered with the epoch and end offset where the logs part,
//!   and no records. A topic id that is not the replica's: INCONSISTENT_TOPIC_ID (103). A log that could not be opened,
//!   or whose directory has failed: KAFKA_STORAGE_ERROR (56). A batch that is damaged on the disk: CORRUPT_MESSAGE (2).
//! - All replies together hold no more records in memory than `replies` allows: an answer may be smaller than the
//!   limits, and one for whose first batch there is no room in time has no records. What is sent from its file is not
//!   held.
//! - A consumer that names its rack may be sent to a follower there (`replica::selector`): it is answered at once, with
//!   the follower's id, the positions, and no records of that partition.
//! - A negative limit, or an isolation level that does not exist: UNKNOWN_SERVER_ERROR (−1) for each partition.
//! - Followers (replica id ≥ 0) are answered by [`replica_fetch`], on listeners of brokers; alone there are none, and
//!   whoever says so is refused with NOT_LEADER_OR_FOLLOWER (6).
//!
//! Versions: 4 isolation; 5 log start; 7 sessions; 9 leader epoch; 11 rack, preferred replica; 12 flexible, divergence;
//! 13 topic ids (UNKNOWN_TOPIC_ID); 15 replica state; 16 leader hints (KIP-951) with NOT_LEADER_OR_FOLLOWER and
//! FENCED_LEADER_EPOCH; 17, 18 nothing for consumers.
//! Source: Kafka 3.9 `KafkaApis.handleFetchRequest`, `ReplicaManager.fetchMessages`, `DelayedFetch`.

mod answer;
mod part;
mod room;

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use indexmap::IndexMap;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::FetchRequest;
use kafka_protocol::protocol::StrBytes;

use self::answer::{encode, tell, tell_later};
use self::part::{Fetched, Gathered, Limits, Part, is_due, refused};
use self::room::read;
use crate::api::authorization::Authorization;
use crate::api::context::{Audience, RequestContext};
use crate::api::error_code;
use crate::api::handler::{CloseReason, Outcome, Row, Served};
use crate::api::records::replica_fetch;
use crate::api::shared::isolation::read_committed;
use crate::cluster::image::ClusterImage;
use crate::replica::partition::Partition;
use crate::replica::selector;
use crate::replica::sessions::{FetchKey, SessionError, TopicRef, Use, Wanted};
use crate::replica::wait::{FetchWaiter, WaitGuard};
use crate::security::quota::limits::Kind;
use crate::types::acl::{Operation, ResourceType};
use crate::types::limits::{CONTROL_FRAME_BYTES_MAX, REPLY_RECORD_BYTES_MAX};
use crate::types::{Offset, PartitionIndex, TopicId, TopicName};
use crate::wire::codec;

const KEY: i16 = 1;
const VERSIONS: RangeInclusive<i16> = 4..=18;
const VERSION_TOPIC_IDS: i16 = 13;
/// From here on consumers name their rack, and may be sent to a follower. Source: Kafka 3.9 `FetchParams`.
const VERSION_ANY_REPLICA: i16 = 11;

/// Fetch has a row of its own making: its answer borrows the record bytes.
pub(crate) const ROW: Row = Row {
    key: KEY,
    min_version: *VERSIONS.start(),
    max_version: *VERSIONS.end(),
    frame_bytes_max: CONTROL_FRAME_BYTES_MAX,
    run,
    flexible: |version| version >= 12,
    served: Served::Everywhere,
    authorization: Authorization::Of(&[
        (Operation::ClusterAction, ResourceType::Cluster),
        (Operation::Read, ResourceType::Topic),
    ]),
};

fn run(ctx: RequestContext, body: BytesMut) -> BoxFuture<'static, Outcome> {
    async move {
        let request = match codec::decode_request::<FetchRequest>(body.freeze(), ctx.version) {
            Ok(request) => request,
            Err(error) => return Outcome::Close(CloseReason::Malformed(error.to_string())),
        };
        Outcome::Later(answer(ctx, request).boxed())
    }
    .boxed()
}

/// Whether this body of a fetch is a follower's. One that cannot be read is nobody's.
pub(crate) fn is_of_follower(body: BytesMut, version: i16) -> bool {
    VERSIONS.contains(&version)
        && codec::decode_request::<FetchRequest>(body.freeze(), version)
            .is_ok_and(|request| replica_fetch::replica(&request).is_some())
}

async fn answer(ctx: RequestContext, request: FetchRequest) -> Outcome {
    match (replica_fetch::replica(&request), ctx.audience) {
        (Some(replica), Audience::Brokers) => return replica_fetch::answer(ctx, replica, request).await,
        (Some(replica), Audience::Clients) => {
            let reason = format!("broker {replica} fetches on listener {}, which is of clients", ctx.listener);
            return Outcome::Close(CloseReason::Malformed(reason));
        }
        // Alone there is nobody to follow it: refused, partition by partition.
        (Some(_), Audience::Alone) | (None, _) => {}
    }
    if !ctx.handles.gate.passed().await {
        return Outcome::Close(CloseReason::Malformed("the broker stops before it has started".into()));
    }
    let config = ctx.handles.config.current();
    // More than its quota's windows hold would be refused for ever.
    let at_once_max = ctx.at_once_max(Kind::Fetch);
    let max_bytes = (request.max_bytes.max(0) as usize).min(config.fetch_max_bytes as usize).min(at_once_max);
    let max_bytes = max_bytes.min(REPLY_RECORD_BYTES_MAX);
    let limits = Limits {
        max_bytes,
        held_max: max_bytes,
        min_bytes: (request.min_bytes.max(0) as usize).min(max_bytes),
        max_wait: Duration::from_millis(request.max_wait_ms.max(0) as u64),
        read_committed: read_committed(request.isolation_level) == Ok(true),
        any_replica: ctx.version >= VERSION_ANY_REPLICA,
    };
    let (usage, wanted) = match enter_session(&ctx, &request) {
        Ok(entered) => entered,
        Err(error) => {
            let code = error_code::of_session_error(error).code();
            return encode(&ctx, code, 0, false, Gathered::nothing(&ctx));
        }
    };
    let may = may_read(&ctx, &request, &wanted);
    let refusal = refusal(&request);
    let selects = config.replica_selector.is_some() && limits.any_replica && !request.rack_id.is_empty();
    let rack = selects.then_some(&request.rack_id);
    let part = |(at, (key, wanted))| match may.get(at) {
        Some(false) => Part::refused(key, wanted, ResponseError::TopicAuthorizationFailed),
        Some(true) | None => find(&ctx, key, wanted, refusal),
    };
    let parts = wanted.into_iter().enumerate().map(part).collect();
    let mut gathered = Gathered { parts, ..Gathered::nothing(&ctx) };
    prefer(&ctx, rack, &mut gathered.parts);
    gather(&ctx, &mut gathered, limits).await;
    if !is_due(&gathered, limits) {
        park(&ctx, &mut gathered, limits, rack).await;
    }
    let bytes = gathered.bytes();
    let of_bytes = ctx.throttle(Kind::Fetch, bytes);
    let throttle_ms = of_bytes.max(ctx.throttle_time());
    if throttle_ms > 0 {
        ctx.take_back(Kind::Fetch, bytes);
        return tell_later(&ctx, &usage, throttle_ms);
    }
    count(&gathered);
    tell(&ctx, &usage, limits.read_committed, gathered)
}

/// Counts what each partition is asked for and gives.
fn count(gathered: &Gathered) {
    for part in &gathered.parts {
        let Some(replica) = &part.replica else { continue };
        replica.traffic.fetches.add(1);
        if part.found.bytes > 0 {
            replica.traffic.bytes_out.add(part.found.bytes as u64);
        }
    }
}

/// Whether each partition may be read; empty if all may. One whose topic is not known is not asked for.
fn may_read(ctx: &RequestContext, request: &FetchRequest, wanted: &[(FetchKey, Wanted)]) -> Vec<bool> {
    if ctx.handles.authorizer.is_none() {
        return Vec::new();
    }
    if replica_fetch::replica(request).is_some() {
        let may = ctx.may_on_cluster(Operation::ClusterAction);
        return if may { Vec::new() } else { vec![false; wanted.len()] };
    }
    let image = ctx.image();
    let names = || wanted.iter().map(|(key, _)| name_in(&image, &key.0));
    let refused = ctx.refused(Operation::Read, ResourceType::Topic, names().flatten());
    if refused.is_empty() {
        return Vec::new();
    }
    names().map(|name| !name.is_some_and(|name| refused.contains(name))).collect()
}

/// The topic that is named, or that has the id.
fn name_in<'a>(image: &'a ClusterImage, topic: &'a TopicRef) -> Option<&'a str> {
    match topic {
        TopicRef::Name(name) => Some(name.as_str()),
        TopicRef::Id(id) => image.topic_by_id(*id).map(|topic| topic.name.as_str()),
    }
}

/// Why no partition of the request is read.
fn refusal(request: &FetchRequest) -> Option<ResponseError> {
    if replica_fetch::replica(request).is_some() {
        return Some(ResponseError::NotLeaderOrFollower);
    }
    if request.max_bytes < 0 {
        return Some(ResponseError::UnknownServerError);
    }
    read_committed(request.isolation_level).err()
}

/// How long a fetch waits for room before it is answered without records; clients wait for an answer for 30 s or more.
const ROOM_PATIENCE: Duration = Duration::from_secs(5);

/// Reads what is readable now, as far as the broker has room for it.
async fn gather(ctx: &RequestContext, gathered: &mut Gathered, limits: Limits) {
    let replies = &ctx.handles.replies;
    let asked = gathered.parts.iter().map(|part| part.wanted.partition_max_bytes.max(0) as usize);
    let wanted = asked.fold(0, usize::saturating_add).min(limits.max_bytes);
    gathered.forget_records();
    gathered.claim = replies.claim(wanted);
    loop {
        let held_max = wanted.min(gathered.claim.bytes_max());
        read(replies, gathered, Limits { held_max, ..limits }).await;
        let bytes = gathered.held_bytes();
        if gathered.claim.settle(bytes) {
            return;
        }
        // One batch alone is larger than what was left. Nothing is held while it waits.
        gathered.forget_records();
        match tokio::time::timeout(ROOM_PATIENCE, replies.claim_at_least(bytes)).await {
            Ok(claim) => gathered.claim = claim,
            Err(_) => {
                gathered.no_room = true;
                return;
            }
        }
    }
}

type Entered = (Use, Vec<(FetchKey, Wanted)>);

fn enter_session(ctx: &RequestContext, request: &FetchRequest) -> Result<Entered, SessionError> {
    let by_id = ctx.version >= VERSION_TOPIC_IDS;
    let reference = |name: &str, id: uuid::Uuid| {
        if by_id { TopicRef::Id(TopicId(id)) } else { TopicRef::Name(TopicName::new(name)) }
    };
    // Of a partition that is named twice the last counts, as in Kafka.
    let mut wanted = IndexMap::new();
    for topic in &request.topics {
        let topic_ref = reference(topic.topic.as_str(), topic.topic_id);
        for partition in &topic.partitions {
            let want = Wanted {
                fetch_offset: Offset(partition.fetch_offset),
                partition_max_bytes: partition.partition_max_bytes,
                current_leader_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
                log_start_offset: Offset(partition.log_start_offset),
            };
            wanted.insert((topic_ref.clone(), PartitionIndex(partition.partition)), want);
        }
    }
    let mut forgotten = Vec::new();
    for topic in &request.forgotten_topics_data {
        let topic_ref = reference(topic.topic.as_str(), topic.topic_id);
        forgotten.extend(topic.partitions.iter().map(|&partition| (topic_ref.clone(), PartitionIndex(partition))));
    }
    // Before version 7 there are no sessions: the defaults (id 0, epoch −1) say so.
    let (wanted, now) = (wanted.into_iter().collect(), ctx.handles.clock.now_ms());
    ctx.handles.sessions.enter(request.session_id, request.session_epoch, by_id, wanted, &forgotten, now)
}

/// Finds the replica and checks what can be checked without reading.
fn find(ctx: &RequestContext, key: FetchKey, wanted: Wanted, refusal: Option<ResponseError>) -> Part {
    let image = ctx.image();
    let name = match &key.0 {
        TopicRef::Name(name) => Some(name.clone()),
        TopicRef::Id(id) => image.topic_by_id(*id).map(|topic| topic.name.clone()),
    };
    let found = match name {
        None => Err(ResponseError::UnknownTopicId),
        Some(name) => replica_of(ctx, &name, &key),
    };
    let refusal = refusal.or((wanted.partition_max_bytes < 0).then_some(ResponseError::UnknownServerError));
    let (replica, found) = match (found, refusal) {
        (Err(error), _) | (Ok(_), Some(error)) => (None, refused(error)),
        (Ok(replica), None) => (Some(replica), Fetched::nothing()),
    };
    Part { key, wanted, replica, preferred: None, found }
}

fn replica_of(ctx: &RequestContext, name: &TopicName, key: &FetchKey) -> Result<Arc<Partition>, ResponseError> {
    let replica = ctx.handles.replicas.get(name.as_str(), key.1);
    let replica = replica.ok_or_else(|| ctx.without_replica(name.as_str(), key.1))?;
    if is_of_another_topic(&key.0, replica.id.topic_id) {
        return Err(ResponseError::InconsistentTopicId);
    }
    Ok(replica)
}

/// Has a consumer in this rack sent to followers there.
fn prefer(ctx: &RequestContext, rack: Option<&StrBytes>, parts: &mut [Part]) {
    let Some(rack) = rack else { return };
    let image = ctx.image();
    for part in parts {
        let Some(replica) = &part.replica else { continue };
        part.preferred = selector::rack_aware(replica, part.wanted.fetch_offset, rack, &image, &ctx.listener);
    }
}

/// Whether the replica is of another incarnation of the topic than the one asked: the image is ahead of the roles.
/// Source: Kafka 3.9 `ReplicaManager.readFromLog`.
fn is_of_another_topic(asked: &TopicRef, replicas: TopicId) -> bool {
    matches!(asked, TopicRef::Id(id) if *id != replicas)
}

/// Waits for news of any partition, then reads once more. Holds no records meanwhile.
async fn park(ctx: &RequestContext, gathered: &mut Gathered, limits: Limits, rack: Option<&StrBytes>) {
    let deadline = tokio::time::sleep(limits.max_wait);
    tokio::pin!(deadline);
    loop {
        let waiter = FetchWaiter::new(limits.read_committed);
        let _over = WaitGuard(Arc::clone(&waiter));
        for replica in gathered.parts.iter().filter_map(|part| part.replica.as_ref()) {
            replica.waiters.register(&waiter);
        }
        // What became readable before the registration is found by this read, what comes after it wakes the waiter.
        gather(ctx, gathered, limits).await;
        if is_due(gathered, limits) {
            return;
        }
        let have = gathered.bytes();
        gathered.forget_records();
        waiter.expect(limits.min_bytes.saturating_sub(have) as i64);
        tokio::select! {
            () = waiter.due() => {}
            () = &mut deadline => {
                gather(ctx, gathered, limits).await;
                return;
            }
        }
        refind(ctx, &mut gathered.parts);
        prefer(ctx, rack, &mut gathered.parts);
    }
}

/// A partition may have been deleted, or made anew, while the fetch was parked.
fn refind(ctx: &RequestContext, parts: &mut [Part]) {
    for part in parts {
        let Some(replica) = &part.replica else { continue };
        let now = ctx.handles.replicas.get(replica.id.topic.as_str(), replica.id.partition);
        if !now.as_ref().is_some_and(|now| Arc::ptr_eq(now, replica)) {
            let fresh = find(ctx, part.key.clone(), part.wanted.clone(), None);
            *part = fresh;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::part::look;
    use super::*;
    use crate::log::partition_log::PartitionLog;
    use crate::replica::partition::{Partition, Role};
    use crate::replica::testing;
    use crate::types::LeaderEpoch;

    fn part(replica: &Arc<Partition>, offset: i64, current: i32, last_fetched: i32) -> Part {
        let wanted = Wanted {
            fetch_offset: Offset(offset),
            partition_max_bytes: 1 << 20,
            current_leader_epoch: current,
            last_fetched_epoch: last_fetched,
            log_start_offset: Offset::NONE,
        };
        let key = (TopicRef::Name("t".into()), PartitionIndex(0));
        Part { key, wanted, replica: Some(Arc::clone(replica)), preferred: None, found: Fetched::nothing() }
    }

    fn answer(replica: &Arc<Partition>, offset: i64, current: i32, last_fetched: i32) -> (i16, Option<(i32, i64)>) {
        let mut part = part(replica, offset, current, last_fetched);
        look(&mut part, false, false);
        let diverging = part.found.diverging.map(|(epoch, end)| (epoch.0, end.0));
        (part.found.error.map_or(0, |error| error.code()), diverging)
    }

    /// P17: epoch, leadership, log start, divergence, end, in this order.
    #[test]
    fn p17_a_fetch_is_checked_in_kafkas_order() {
        let (replica, _) = testing::led(LeaderEpoch(4));
        testing::append(&replica, 3);
        let changed = replica.change_log(|log, _, writes| log.advance_log_start(Offset(2), writes)).expect("open");
        changed.written().expect("written");
        let next = |leader: i32, epoch| Role { leader_epoch: LeaderEpoch(epoch), ..testing::role(leader, epoch) };
        assert_eq!(answer(&replica, 2, 4, 4), (0, None));
        assert_eq!(answer(&replica, 3, -1, -1), (0, None), "no epoch is any epoch");
        assert_eq!(answer(&replica, 2, 3, 4).0, 74);
        assert_eq!(answer(&replica, 2, 5, 4).0, 75);
        assert_eq!(answer(&replica, 0, 3, 4).0, 74, "the epoch goes before the offset");
        assert_eq!(answer(&replica, 0, 4, 3), (1, None), "the log start goes before divergence");
        assert_eq!(answer(&replica, 3, 4, 3), (0, Some((3, 2))), "older than all that are known");
        assert_eq!(answer(&replica, 9, 4, 4), (0, Some((4, 3))), "divergence goes before the end");
        assert_eq!(answer(&replica, 9, 4, -1), (1, None));
        assert_eq!(answer(&replica, 2, 4, 7), (1, None), "an epoch that nobody knows");
        testing::take(&replica, next(2, 6));
        assert_eq!(answer(&replica, 2, 4, 4).0, 74, "the epoch goes before leadership");
        assert_eq!(answer(&replica, 2, 7, 4).0, 75);
        assert_eq!(answer(&replica, 0, 6, 4).0, 6);
        assert_eq!(answer(&replica, 0, -1, 4).0, 6);
        replica.with_log(PartitionLog::close);
    }

    /// P18: a fetch by id is not answered from a replica of another topic of that name.
    #[test]
    fn p18_a_replica_of_another_incarnation_is_told_apart() {
        let [one, other] = [1, 2].map(|number| TopicId::from_random(number << 64 | 7).expect("a legal id"));
        assert!(is_of_another_topic(&TopicRef::Id(one), other));
        assert!(!is_of_another_topic(&TopicRef::Id(one), one));
        assert!(!is_of_another_topic(&TopicRef::Name("t".into()), other), "by name any will do");
    }
}
