//! Follower → leader: Fetch and ListOffsets over a connection, in the versions that [`super::versions`] has.
//!
//! Sessions are the caller's. Version 12, with names, where a topic has no id. A fetch that is dropped closes its
//! socket, so an answer is never taken for another's; the leader may have counted it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic, ReplicaState};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::{FetchRequest, ListOffsetsRequest, ListOffsetsResponse};
use kafka_protocol::protocol::{Encodable, Request, StrBytes};

use super::Peers;
use super::codes;
use super::connection::{Ask, Connection};
use crate::replica::leader_link::{
    FetchAnswer, FetchAsk, FetchRefused, Fetched, LeaderLink, LeaderLinks, LinkError, LogEnd, PartitionAsk,
    PartitionId, SessionError, TopicRef,
};
use crate::types::{BrokerId, LeaderEpoch, Offset};
use crate::wire::fetch::{FetchResponse, FetchedPartition, FetchedTopicRef};
use crate::wire::{codec, fetch_answer};

/// By topic name, for a topic that has no id.
const FETCH_VERSION_NAMES: i16 = 12;
/// From here on a follower says with its id under which registration it fetches.
const FETCH_VERSION_STATE: i16 = 15;
/// Largest answer: what a follower asks for, and one batch as large as a topic's `max.message.bytes` may sensibly be.
const FETCH_FRAME_BYTES_MAX: usize = 138 << 20;
const TIMESTAMP_LATEST: i64 = -1;
const TIMESTAMP_EARLIEST: i64 = -2;

/// Makes links to leaders in other processes.
#[derive(Debug)]
pub(crate) struct RemoteLeaders {
    peers: Peers,
}

impl RemoteLeaders {
    pub(crate) fn new(peers: &Peers) -> Arc<Self> {
        Arc::new(Self { peers: peers.clone() })
    }
}

impl LeaderLinks for RemoteLeaders {
    fn link(&self, leader: BrokerId, fetcher: u16) -> Arc<dyn LeaderLink> {
        let connection = self.peers.connection(&format!("fetcher-{fetcher}"), FETCH_FRAME_BYTES_MAX);
        Arc::new(RemoteLeader { leader, connection, peers: self.peers.clone() })
    }
}

/// One fetcher's way to one leader, at the address that the image has at the time.
#[derive(Debug)]
struct RemoteLeader {
    leader: BrokerId,
    connection: Connection,
    peers: Peers,
}

fn failed(error: impl std::fmt::Display) -> LinkError {
    LinkError(error.to_string())
}

impl RemoteLeader {
    async fn call<R: Request + Encodable, T>(
        &self,
        request: &R,
        version: i16,
        waits: Duration,
        decode: impl FnOnce(bytes::BytesMut) -> Result<T, crate::wire::error::CodecError>,
    ) -> Result<T, LinkError> {
        let to = self.peers.addresses.of(self.leader).map_err(failed)?;
        let ask = Ask { key: R::KEY, version, body: codec::encode_request(request, version).map_err(failed)? };
        self.connection.call(&to, ask, self.peers.patience.replica + waits, decode).await.map_err(failed)
    }

    async fn fetched(&self, ask: FetchAsk) -> Result<Result<FetchAnswer, SessionError>, LinkError> {
        let version = if ask.by_name { FETCH_VERSION_NAMES } else { self.peers.versions.fetch };
        let waits = Duration::from_millis(u64::try_from(ask.max_wait_ms).unwrap_or(0));
        let decode = |body| Ok(fetch_answer::decode(body, version)?);
        let response = self.call(&of_ask(&ask, version), version, waits, decode).await?;
        if let Some(error) = codes::session(response.error_code) {
            return Ok(Err(error));
        }
        if response.error_code != 0 {
            return Err(LinkError(format!("the leader answered with error code {}", response.error_code)));
        }
        Ok(Ok(answer(response)))
    }

    async fn offset(
        &self,
        id: PartitionId,
        leader_epoch: LeaderEpoch,
        end: LogEnd,
    ) -> Result<Result<Offset, FetchRefused>, LinkError> {
        let timestamp = match end {
            LogEnd::Earliest => TIMESTAMP_EARLIEST,
            LogEnd::Latest => TIMESTAMP_LATEST,
        };
        let partition = ListOffsetsPartition::default()
            .with_partition_index(id.partition.0)
            .with_current_leader_epoch(leader_epoch.0)
            .with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(StrBytes::from_string(id.topic.to_string()).into())
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id(self.peers.me.0.into()).with_topics(vec![topic]);
        let version = self.peers.versions.list_offsets;
        let decode = |body: bytes::BytesMut| codec::decode_response::<ListOffsetsResponse>(body.freeze(), version);
        let response = self.call(&request, version, Duration::ZERO, decode).await?;
        let mut topics = response.topics.iter().filter(|topic| topic.name.as_str() == id.topic.as_str());
        let partitions = topics.next().into_iter().flat_map(|topic| &topic.partitions);
        let found = partitions.into_iter().find(|partition| partition.partition_index == id.partition.0);
        let found = found.ok_or_else(|| LinkError("the leader did not answer for the partition".into()))?;
        Ok(codes::fetch(found.error_code).map_or(Ok(Offset(found.offset)), Err))
    }
}

impl LeaderLink for RemoteLeader {
    fn fetch(&self, ask: FetchAsk) -> BoxFuture<'_, Result<Result<FetchAnswer, SessionError>, LinkError>> {
        self.fetched(ask).boxed()
    }

    fn list_offset(
        &self,
        id: PartitionId,
        leader_epoch: LeaderEpoch,
        end: LogEnd,
    ) -> BoxFuture<'_, Result<Result<Offset, FetchRefused>, LinkError>> {
        self.offset(id, leader_epoch, end).boxed()
    }
}

/// Neighbours of one topic share its head.
fn of_ask(ask: &FetchAsk, version: i16) -> FetchRequest {
    let mut topics: Vec<FetchTopic> = Vec::new();
    let mut last: Option<&PartitionId> = None;
    for wanted in &ask.partitions {
        let partition = of_partition(wanted);
        match topics.last_mut() {
            Some(topic) if last.is_some_and(|last| is_same_topic(last, &wanted.id)) => topic.partitions.push(partition),
            _ => {
                let topic = FetchTopic::default().with_partitions(vec![partition]);
                topics.push(match ask.by_name {
                    true => topic.with_topic(StrBytes::from_string(wanted.id.topic.to_string()).into()),
                    false => topic.with_topic_id(wanted.id.topic_id.0),
                });
            }
        }
        last = Some(&wanted.id);
    }
    let request = FetchRequest::default()
        .with_max_wait_ms(ask.max_wait_ms)
        .with_min_bytes(ask.min_bytes)
        .with_max_bytes(ask.max_bytes)
        .with_session_id(ask.session.id)
        .with_session_epoch(ask.session.epoch)
        .with_topics(topics)
        .with_forgotten_topics_data(of_forgotten(&ask.forgotten));
    if version < FETCH_VERSION_STATE {
        return request.with_replica_id(ask.replica.0.into());
    }
    let state = ReplicaState::default().with_replica_id(ask.replica.0.into()).with_replica_epoch(ask.replica_epoch.0);
    request.with_replica_state(state)
}

/// As [`of_ask`] does with those that are wanted; sessions have ids.
fn of_forgotten(forgotten: &[PartitionId]) -> Vec<ForgottenTopic> {
    let mut topics: Vec<ForgottenTopic> = Vec::new();
    for id in forgotten {
        match topics.last_mut() {
            Some(topic) if topic.topic_id == id.topic_id.0 => topic.partitions.push(id.partition.0),
            _ => topics
                .push(ForgottenTopic::default().with_topic_id(id.topic_id.0).with_partitions(vec![id.partition.0])),
        }
    }
    topics
}

fn is_same_topic(one: &PartitionId, other: &PartitionId) -> bool {
    one.topic_id == other.topic_id && one.topic == other.topic
}

fn of_partition(wanted: &PartitionAsk) -> FetchPartition {
    FetchPartition::default()
        .with_partition(wanted.id.partition.0)
        .with_current_leader_epoch(wanted.leader_epoch.unwrap_or(LeaderEpoch::NONE).0)
        .with_fetch_offset(wanted.fetch_offset.0)
        .with_last_fetched_epoch(wanted.last_fetched_epoch.unwrap_or(LeaderEpoch::NONE).0)
        .with_log_start_offset(wanted.log_start_offset.0)
        .with_partition_max_bytes(wanted.max_bytes)
}

fn answer(response: FetchResponse) -> FetchAnswer {
    let partitions = response.topics.into_iter().flat_map(|topic| {
        let named = match topic.topic {
            FetchedTopicRef::Name(name) => TopicRef::Name(name),
            FetchedTopicRef::Id(id) => TopicRef::Id(id),
        };
        topic.partitions.into_iter().map(move |partition| ((named.clone(), partition.index), fetched(partition)))
    });
    FetchAnswer { session_id: response.session_id, partitions: partitions.collect() }
}

fn fetched(partition: FetchedPartition) -> Result<Fetched, FetchRefused> {
    if let Some(refused) = codes::fetch(partition.error_code) {
        return Err(refused);
    }
    Ok(Fetched {
        high_watermark: partition.high_watermark,
        log_start_offset: partition.log_start_offset,
        diverging: partition.diverging_epoch,
        records: partition.records,
    })
}
