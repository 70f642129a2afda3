//! Links against a broker that answers by a script, over real sockets.

mod connections;

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::alter_partition_response as altered;
use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{
    AllocateProducerIdsRequest, AllocateProducerIdsResponse, AlterPartitionRequest, AlterPartitionResponse,
    FetchRequest, ListOffsetsRequest, ListOffsetsResponse,
};
use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};

use super::address::AddressError;
use super::broker_link::RemoteBroker;
use super::controller_link;
use super::fetch::RemoteLeaders;
use super::testing::{Act, Other, peers};
use super::verify::RemoteVerification;
use super::*;
use crate::cluster::control::{
    AlterPartition, BrokerLink, ControlError, ControlHead, ControllerError, ControllerLink, IsrLink, IsrProposal,
    IsrRefused, IsrResults, LeaderAndIsr, PartitionState, ShutdownLink, StopPartition, StopReplica, StoredIsr,
    TopicMetadata, UpdateMetadata,
};
use crate::cluster::znodes::partition_state::Recovery;
use crate::config::ProtocolVersion;
use crate::coordinator::peer_links::VerifyLink;
use crate::coordinator::transaction::request::PartitionsRequest;
use crate::replica::leader_link::{
    FetchAsk, FetchKey, FetchRefused, Fetched, LeaderLinks, LogEnd, PartitionAsk, PartitionId, SessionAsk,
    SessionError, TopicRef,
};
use crate::types::place::joined;
use crate::types::{
    BrokerEpoch, ControllerEpoch, LeaderEpoch, Offset, PartitionEpoch, PartitionIndex, ProducerEpoch, ProducerId,
    TopicId, TopicName, TopicPartition,
};
use crate::wire::control::{self as wire, Message};
use crate::wire::fetch::{FetchResponse, FetchedPartition, FetchedTopic, FetchedTopicRef, encode};

fn done(code: i16) -> Bytes {
    wire::UpdateMetadataAnswer { error_code: code }.encode()
}

fn id(number: u64) -> TopicId {
    TopicId(uuid::Uuid::from_u64_pair(number, 7))
}

fn head() -> ControlHead {
    ControlHead { controller: BrokerId(1), controller_epoch: ControllerEpoch(4), broker_epoch: BrokerEpoch(9) }
}

fn state(partition: i32, leader: Option<i32>) -> PartitionState {
    PartitionState {
        partition: PartitionIndex(partition),
        controller_epoch: ControllerEpoch(3),
        leader: leader.map(BrokerId),
        leader_epoch: LeaderEpoch(5),
        isr: vec![BrokerId(2)],
        partition_epoch: PartitionEpoch(6),
        replicas: vec![BrokerId(2), BrokerId(1)],
        adding: vec![BrokerId(1)],
        removing: vec![BrokerId(2)],
        recovery: Recovery::Recovering,
        offline_replicas: vec![BrokerId(1)],
        is_new: true,
    }
}

#[tokio::test]
async fn roles_are_asked_by_id_and_answered_by_name() {
    let answer = |partition, error_code, end_lost| wire::RoleAnswer {
        partition: PartitionIndex(partition),
        error_code,
        end_lost,
    };
    let topics = vec![
        (id(2), vec![answer(0, 56, true), answer(1, 56, false)]),
        (id(1), vec![answer(0, 0, false), answer(1, 103, false), answer(2, 29, false)]),
        (id(3), vec![answer(0, 0, false)]),
    ];
    let answer = wire::LeaderAndIsrAnswer { error_code: 0, topics }.encode();
    let refused = wire::LeaderAndIsrAnswer { error_code: 11, topics: vec![] }.encode();
    let other = Other::start([Act::Answer(answer), Act::Answer(refused)]).await;
    let link = RemoteBroker::new(&peers(&[], 1), &other.registered(2));
    let request = LeaderAndIsr {
        head: head(),
        topics: vec![
            ("a".into(), id(1), vec![state(0, Some(2)), state(1, None)]),
            ("b".into(), id(2), vec![state(0, Some(1))]),
        ],
    };
    let results = link.leader_and_isr(request.clone()).await.expect("answered");
    let (a, b): (TopicName, TopicName) = ("a".into(), "b".into());
    let expected = vec![
        (b.clone(), PartitionIndex(0), Err(ControlError::EndLost)),
        (b, PartitionIndex(1), Err(ControlError::Storage("its storage failed".into()))),
        (a.clone(), PartitionIndex(0), Ok(())),
        (a.clone(), PartitionIndex(1), Err(ControlError::InconsistentTopicId { here: TopicId::ZERO })),
        (a, PartitionIndex(2), Err(ControlError::Other(29))),
    ];
    assert_eq!(results, expected);
    assert_eq!(link.leader_and_isr(request).await, Err(ControlError::StaleControllerEpoch));
    let came = wire::LeaderAndIsr::decode(BytesMut::from(&other.came()[0].body[..])).expect("it decodes");
    assert_eq!((came.head.controller_epoch, came.head.broker_epoch), (ControllerEpoch(4), BrokerEpoch(9)));
    let [first, second] = &came.topics[0].partitions[..] else { panic!("two partitions") };
    assert_eq!((first.leader, second.leader), (BrokerId(2), BrokerId::NONE));
    assert_eq!((first.recovery_state, first.is_new, first.adding.len()), (1, true, 1));
}

#[tokio::test]
async fn metadata_says_deletion_and_stop_says_it_by_its_epoch() {
    let stopped = wire::StopReplicaAnswer { error_code: 0, partitions: vec![("a".into(), PartitionIndex(0), 74)] };
    let other = Other::start([Act::Answer(done(0)), Act::Answer(done(77)), Act::Answer(stopped.encode())]).await;
    let link = RemoteBroker::new(&peers(&[], 1), &other.registered(2));
    let deleted = vec![PartitionIndex(4)];
    let topic = TopicMetadata { name: "a".into(), id: id(1), partitions: vec![state(0, None)], deleted };
    let mut strange = other.registered(2);
    strange.endpoints[0].security_protocol = "CARRIER_PIGEON".into();
    let request = UpdateMetadata { head: head(), topics: vec![topic], live_brokers: vec![strange] };
    assert_eq!(link.update_metadata(request.clone()).await, Ok(()));
    assert_eq!(link.update_metadata(request).await, Err(ControlError::StaleBrokerEpoch));
    let stop = |partition, epoch: Option<i32>, delete| StopPartition {
        topic: "a".into(),
        partition: PartitionIndex(partition),
        leader_epoch: epoch.map(LeaderEpoch),
        delete,
    };
    let partitions = vec![stop(0, Some(3), false), stop(1, None, true)];
    let results = link.stop_replica(StopReplica { head: head(), partitions }).await.expect("answered");
    assert_eq!(results, [("a".into(), PartitionIndex(0), Err(ControlError::FencedLeaderEpoch))]);
    let came = other.came();
    let metadata = wire::UpdateMetadata::decode(BytesMut::from(&came[0].body[..])).expect("it decodes");
    let leaders: Vec<i32> = metadata.topics[0].partitions.iter().map(|partition| partition.leader.0).collect();
    assert_eq!(leaders, [-1, -2]);
    assert_eq!(metadata.live_brokers[0].endpoints.len(), 1, "what has no number is not said");
    let stop = wire::StopReplica::decode(BytesMut::from(&came[2].body[..])).expect("it decodes");
    let epochs: Vec<i32> = stop.topics[0].1.iter().map(|stop| stop.leader_epoch.0).collect();
    assert_eq!(epochs, [3, -2]);
}

#[tokio::test]
async fn a_broker_that_cannot_be_reached_has_not_refused() {
    let other = Other::start([]).await;
    let mut nowhere = other.registered(2);
    nowhere.endpoints.truncate(1);
    let link = RemoteBroker::new(&peers(&[], 1), &nowhere);
    let request = UpdateMetadata { head: head(), topics: vec![], live_brokers: vec![] };
    let error = link.update_metadata(request.clone()).await.expect_err("there is no way");
    assert!(matches!(&error, ControlError::Unreachable(why) if why.contains("has no listener BROKERS")), "{error}");
    let other = Other::start([Act::Close]).await;
    let link = RemoteBroker::new(&peers(&[], 1), &other.registered(2));
    assert!(matches!(link.update_metadata(request).await, Err(ControlError::Unreachable(_))));
}

#[test]
fn addresses_are_those_of_the_listener_between_brokers() {
    let endpoint = |listener: &str, protocol: &str| crate::cluster::control::Endpoint {
        listener: listener.into(),
        security_protocol: protocol.into(),
        host: "h".into(),
        port: 1,
    };
    let broker = |endpoints| crate::cluster::control::LiveBroker { id: BrokerId(2), endpoints, rack: None };
    let good = broker(vec![endpoint("X", "SSL"), endpoint("BROKERS", "PLAINTEXT")]);
    let peers = peers(&[good], 2);
    assert_eq!(peers.addresses.of(BrokerId(2)).expect("known").to_string(), "h:1");
    assert_eq!(peers.addresses.of(BrokerId(3)), Err(AddressError::NotLive(BrokerId(3))));
    let sealed = peers.addresses.of_live(&broker(vec![endpoint("BROKERS", "SSL")]));
    assert!(matches!(sealed, Err(AddressError::Protocol { .. })), "{sealed:?}");
}

/// This broker's own controller, which knows its calls.
#[derive(Debug)]
struct Own;

impl ControllerLink for Own {
    fn allocate_producer_ids(
        &self,
        _: BrokerId,
        _: BrokerEpoch,
    ) -> futures_util::future::BoxFuture<'_, Result<std::ops::Range<i64>, ControllerError>> {
        Box::pin(std::future::ready(Ok(5..6)))
    }
}

impl IsrLink for Own {
    fn alter_partition(
        &self,
        _: AlterPartition,
    ) -> futures_util::future::BoxFuture<'_, Result<IsrResults, ControllerError>> {
        Box::pin(std::future::ready(Ok(vec![])))
    }
}

impl ShutdownLink for Own {
    fn controlled_shutdown(
        &self,
        _: BrokerId,
        _: BrokerEpoch,
    ) -> futures_util::future::BoxFuture<'_, Result<Vec<(TopicName, PartitionIndex)>, ControllerError>> {
        Box::pin(std::future::ready(Ok(vec![("own".into(), PartitionIndex(0))])))
    }
}

fn body<M: Encodable>(message: &M, version: i16) -> Bytes {
    let mut body = BytesMut::new();
    message.encode(&mut body, version).expect("it encodes");
    body.freeze()
}

fn read<M: Decodable>(came: &Bytes, version: i16) -> M {
    M::decode(&mut came.clone(), version).expect("it decodes")
}

fn proposal(topic: &str, number: u64, partition: i32) -> IsrProposal {
    IsrProposal {
        topic: topic.into(),
        topic_id: id(number),
        partition: PartitionIndex(partition),
        leader_epoch: LeaderEpoch(5),
        isr: vec![(BrokerId(1), BrokerEpoch(9)), (BrokerId(2), BrokerEpoch::NONE)],
        recovery: Recovery::Recovered,
        partition_epoch: PartitionEpoch(6),
    }
}

fn alter() -> AlterPartition {
    let partitions = vec![proposal("a", 1, 0), proposal("a", 1, 1), proposal("b", 2, 0)];
    AlterPartition { broker: BrokerId(1), broker_epoch: BrokerEpoch(9), partitions }
}

#[tokio::test]
async fn the_own_controller_is_called_in_process_and_another_one_over_a_socket() {
    let block = AllocateProducerIdsResponse::default().with_producer_id_start(7000.into()).with_producer_id_len(1000);
    let moved = AllocateProducerIdsResponse::default().with_error_code(41);
    let absurd = AllocateProducerIdsResponse::default().with_producer_id_start(i64::MAX.into()).with_producer_id_len(9);
    let answers = [block, moved, absurd].map(|answer| Act::Answer(body(&answer, 0)));
    let other = Other::start(answers).await;
    let here = peers(&[other.registered(2)], 1);
    let own = controller_link::producer_ids(&here, Arc::new(Own));
    assert_eq!(own.allocate_producer_ids(BrokerId(1), BrokerEpoch(9)).await, Ok(5..6));
    assert_eq!(controller_link::isr(&here, Arc::new(Own)).alter_partition(alter()).await, Ok(vec![]));
    let own = controller_link::shutdown(&here, Arc::new(Own));
    assert_eq!(own.controlled_shutdown(BrokerId(1), BrokerEpoch(9)).await.expect("own").len(), 1);
    assert!(other.came().is_empty());
    let there = controller_link::producer_ids(&peers(&[other.registered(2)], 2), Arc::new(Own));
    assert_eq!(there.allocate_producer_ids(BrokerId(1), BrokerEpoch(9)).await, Ok(7000..8000));
    assert_eq!(there.allocate_producer_ids(BrokerId(1), BrokerEpoch(9)).await, Err(ControllerError::NotController));
    assert!(matches!(
        there.allocate_producer_ids(BrokerId(1), BrokerEpoch(9)).await,
        Err(ControllerError::Unavailable(_))
    ));
    let asked = read::<AllocateProducerIdsRequest>(&other.came()[0].body, 0);
    assert_eq!((asked.broker_id.0, asked.broker_epoch), (1, 9));
    let nobody = controller_link::isr(&peers(&[], 3), Arc::new(Own));
    let error = nobody.alter_partition(alter()).await.expect_err("not live");
    assert_eq!(error, ControllerError::Unavailable("broker 3 is not live".into()));
}

#[tokio::test]
async fn isrs_are_proposed_with_epochs_and_come_back_by_id() {
    let good = altered::PartitionData::default()
        .with_partition_index(0)
        .with_leader_id((-1).into())
        .with_leader_epoch(5)
        .with_isr(vec![1.into(), 2.into()])
        .with_leader_recovery_state(1)
        .with_partition_epoch(7);
    let bad = altered::PartitionData::default().with_partition_index(1).with_error_code(107);
    let topic = altered::TopicData::default().with_topic_id(id(1).0).with_partitions(vec![good, bad]);
    let answer = AlterPartitionResponse::default().with_topics(vec![topic]);
    let stale = AlterPartitionResponse::default().with_error_code(77);
    let remaining = wire::ControlledShutdownAnswer { error_code: 0, remaining: vec![("a".into(), PartitionIndex(3))] };
    let acts = [body(&answer, 3), body(&stale, 3), remaining.encode()].map(Act::Answer);
    let other = Other::start(acts).await;
    let peers = peers(&[other.registered(2)], 2);
    let isr = controller_link::isr(&peers, Arc::new(Own));
    let stored = StoredIsr {
        leader: None,
        leader_epoch: LeaderEpoch(5),
        isr: vec![BrokerId(1), BrokerId(2)],
        recovery: Recovery::Recovering,
        partition_epoch: PartitionEpoch(7),
    };
    let expected =
        vec![(id(1), PartitionIndex(0), Ok(stored)), (id(1), PartitionIndex(1), Err(IsrRefused::IneligibleReplica))];
    assert_eq!(isr.alter_partition(alter()).await, Ok(expected));
    assert_eq!(isr.alter_partition(alter()).await, Err(ControllerError::StaleBrokerEpoch));
    let shutdown = controller_link::shutdown(&peers, Arc::new(Own));
    let left = shutdown.controlled_shutdown(BrokerId(1), BrokerEpoch(9)).await;
    assert_eq!(left, Ok(vec![("a".into(), PartitionIndex(3))]));
    let came = read::<AlterPartitionRequest>(&other.came()[0].body, 3);
    assert_eq!((came.broker_id.0, came.broker_epoch, came.topics.len()), (1, 9, 2));
    let first = &came.topics[0].partitions;
    assert_eq!(first.len(), 2);
    let members: Vec<(i32, i64)> =
        first[0].new_isr_with_epochs.iter().map(|member| (member.broker_id.0, member.broker_epoch)).collect();
    assert_eq!(members, [(1, 9), (2, -1)]);
    let shutdown = wire::ControlledShutdown::decode(BytesMut::from(&other.came()[2].body[..])).expect("it decodes");
    assert_eq!((shutdown.broker, shutdown.broker_epoch), (BrokerId(1), BrokerEpoch(9)));
}

fn wanted(topic: &str, number: Option<u64>, partition: i32, offset: i64) -> PartitionAsk {
    let topic_id = number.map_or(TopicId::ZERO, id);
    PartitionAsk {
        id: PartitionId { topic: topic.into(), topic_id, partition: PartitionIndex(partition) },
        fetch_offset: Offset(offset),
        last_fetched_epoch: (offset > 0).then_some(LeaderEpoch(4)),
        leader_epoch: Some(LeaderEpoch(5)),
        log_start_offset: Offset(0),
        max_bytes: 1 << 20,
    }
}

fn fetch(partitions: Vec<PartitionAsk>) -> FetchAsk {
    FetchAsk {
        replica: BrokerId(1),
        replica_epoch: BrokerEpoch(9),
        max_wait_ms: 500,
        min_bytes: 1,
        max_bytes: 10 << 20,
        session: SessionAsk::NONE,
        by_name: false,
        partitions,
        forgotten: Vec::new(),
    }
}

fn found(partition: i32, records: &[&'static [u8]]) -> FetchedPartition {
    FetchedPartition {
        high_watermark: Offset(8),
        log_start_offset: Offset(2),
        records: records.iter().map(|piece| Bytes::from_static(piece).into()).collect(),
        ..FetchedPartition::failed(PartitionIndex(partition), 0)
    }
}

fn response(topics: Vec<(FetchedTopicRef, Vec<FetchedPartition>)>, session_id: i32, version: i16) -> Bytes {
    let topics = topics.into_iter().map(|(topic, partitions)| FetchedTopic { topic, partitions }).collect();
    joined(&encode(FetchResponse { session_id, topics, ..FetchResponse::default() }, version).into_parts()).into()
}

/// Number of the topic's id, and partition.
fn name((topic, partition): &FetchKey) -> String {
    match topic {
        TopicRef::Id(topic) => format!("{}-{partition}", topic.0.as_u128() >> 64),
        TopicRef::Name(topic) => format!("{topic}-{partition}"),
    }
}

#[tokio::test]
async fn a_follower_fetches_by_id_and_gets_what_it_asked_for() {
    let diverging = FetchedPartition { diverging_epoch: Some((LeaderEpoch(3), Offset(7))), ..found(1, &[]) };
    let refused = FetchedPartition::failed(PartitionIndex(0), 75);
    let answer = response(
        vec![
            (FetchedTopicRef::Id(id(2)), vec![refused]),
            (FetchedTopicRef::Id(id(1)), vec![found(0, &[b"two ", b"batches"]), diverging]),
        ],
        321,
        17,
    );
    let failed = |error_code| {
        let failed = FetchResponse { error_code, ..FetchResponse::default() };
        Act::Answer(joined(&encode(failed, 17).into_parts()).into())
    };
    let other = Other::start([Act::Answer(answer), failed(71), failed(-1)]).await;
    let link = RemoteLeaders::new(&peers(&[other.registered(2)], 2)).link(BrokerId(2), 0);
    let mut ask = fetch(vec![wanted("a", Some(1), 0, 5), wanted("a", Some(1), 1, 9), wanted("b", Some(2), 0, 0)]);
    ask.session = SessionAsk { id: 321, epoch: 4 };
    ask.forgotten =
        [("c", 3, 0), ("c", 3, 2), ("d", 4, 1)].map(|(topic, id, index)| wanted(topic, Some(id), index, 0).id).into();
    let answered = link.fetch(ask.clone()).await.expect("answered").expect("the session is known");
    assert_eq!(answered.session_id, 321);
    let answered: BTreeMap<String, _> =
        answered.partitions.into_iter().map(|(key, result)| (name(&key), result)).collect();
    assert_eq!(answered.len(), 3);
    let good = |diverging, records: &'static [u8]| Fetched {
        high_watermark: Offset(8),
        log_start_offset: Offset(2),
        diverging,
        records: if records.is_empty() { vec![] } else { vec![Bytes::from_static(records).into()] },
    };
    assert_eq!(answered["1-0"], Ok(good(None, b"two batches")));
    assert_eq!(answered["1-1"], Ok(good(Some((LeaderEpoch(3), Offset(7))), b"")));
    assert_eq!(answered["2-0"], Err(FetchRefused::UnknownLeaderEpoch));
    assert_eq!(link.fetch(ask.clone()).await.expect("answered").unwrap_err(), SessionError::InvalidEpoch);
    assert!(link.fetch(ask).await.is_err(), "an error of the whole");
    let came = &other.came()[0];
    assert_eq!((came.header.version, came.header.client_id.as_deref()), (17, Some("broker-1-fetcher-0")));
    let request = read::<FetchRequest>(&came.body, 17);
    let state = &request.replica_state;
    assert_eq!((state.replica_id.0, state.replica_epoch, request.session_id, request.session_epoch), (1, 9, 321, 4));
    let forgotten = request.forgotten_topics_data.iter().map(|topic| (topic.topic_id, topic.partitions.clone()));
    assert_eq!(forgotten.collect::<Vec<_>>(), [(id(3).0, vec![0, 2]), (id(4).0, vec![1])]);
    assert_eq!(request.topics.len(), 2);
    let first = &request.topics[0].partitions[0];
    assert_eq!((first.fetch_offset, first.current_leader_epoch, first.last_fetched_epoch), (5, 5, 4));
    assert_eq!(request.topics[1].partitions[0].last_fetched_epoch, -1);
}

#[tokio::test]
async fn a_topic_without_an_id_is_fetched_by_name() {
    let topics = vec![(FetchedTopicRef::Name("old".into()), vec![found(0, &[b"x"])])];
    let other = Other::start([Act::Answer(response(topics, 0, 12))]).await;
    let link = RemoteLeaders::new(&peers(&[other.registered(2)], 2)).link(BrokerId(2), 0);
    let partitions = vec![wanted("old", None, 0, 5), wanted("new", Some(1), 0, 5)];
    let answer = link.fetch(FetchAsk { by_name: true, ..fetch(partitions) }).await.expect("answered");
    let partitions = answer.expect("without a session").partitions;
    assert_eq!((partitions.len(), &partitions[0].0), (1, &(TopicRef::Name("old".into()), PartitionIndex(0))));
    let came = &other.came()[0];
    let request = read::<FetchRequest>(&came.body, 12);
    assert_eq!((came.header.version, request.replica_id.0), (12, 1));
    let names: Vec<&str> = request.topics.iter().map(|topic| topic.topic.as_str()).collect();
    assert_eq!(names, ["old", "new"]);
}

#[tokio::test]
async fn ends_of_a_log_are_asked_as_a_replica_does() {
    let answer = |index, offset, code| {
        let partition = ListOffsetsPartitionResponse::default()
            .with_partition_index(index)
            .with_offset(offset)
            .with_error_code(code);
        let topic = ListOffsetsTopicResponse::default()
            .with_name(StrBytes::from_static_str("a").into())
            .with_partitions(vec![partition]);
        Act::Answer(body(&ListOffsetsResponse::default().with_topics(vec![topic]), 9))
    };
    let other = Other::start([answer(3, 42, 0), answer(3, -1, 74), answer(4, 1, 0)]).await;
    let link = RemoteLeaders::new(&peers(&[other.registered(2)], 2)).link(BrokerId(2), 0);
    let id = wanted("a", Some(1), 3, 0).id;
    let ask = |end| link.list_offset(id.clone(), LeaderEpoch(5), end);
    assert_eq!(ask(LogEnd::Latest).await, Ok(Ok(Offset(42))));
    assert_eq!(ask(LogEnd::Earliest).await, Ok(Err(FetchRefused::FencedLeaderEpoch)));
    assert!(ask(LogEnd::Earliest).await.is_err(), "another partition's answer is none");
    let requests: Vec<ListOffsetsRequest> = other.came().iter().map(|came| read(&came.body, 9)).collect();
    let times: Vec<i64> = requests.iter().map(|request| request.topics[0].partitions[0].timestamp).collect();
    assert_eq!((requests[0].replica_id.0, times), (1, vec![-1, -2, -2]));
}

/// A cluster of 3.4: an older fetch with the replica's id outside of its state, and an ISR without epochs.
#[tokio::test]
async fn an_older_cluster_is_spoken_to_in_its_versions() {
    let altered = AlterPartitionResponse::default();
    let offsets = ListOffsetsResponse::default();
    let acts = [
        Act::Answer(joined(&encode(FetchResponse::default(), 13).into_parts()).into()),
        Act::Answer(body(&offsets, 7)),
        Act::Answer(body(&altered, 2)),
    ];
    let other = Other::start(acts).await;
    let mut older = peers(&[other.registered(2)], 2);
    older.versions = Versions::of(ProtocolVersion::V3_4Iv0);
    let link = RemoteLeaders::new(&older).link(BrokerId(2), 0);
    link.fetch(fetch(vec![wanted("a", Some(1), 0, 5)])).await.expect("answered").expect("no session");
    assert!(link.list_offset(wanted("a", Some(1), 0, 5).id, LeaderEpoch(5), LogEnd::Latest).await.is_err(), "no part");
    controller_link::isr(&older, Arc::new(Own)).alter_partition(alter()).await.expect("answered");
    let came = other.came();
    assert_eq!(came.iter().map(|came| came.header.version).collect::<Vec<_>>(), [13, 7, 2]);
    let fetched = read::<FetchRequest>(&came[0].body, 13);
    assert_eq!((fetched.replica_id.0, fetched.topics[0].topic_id), (1, id(1).0));
    let partition = read::<AlterPartitionRequest>(&came[2].body, 2).topics.remove(0).partitions.remove(0);
    assert_eq!(partition.new_isr.iter().map(|id| id.0).collect::<Vec<_>>(), [1, 2]);
    // Nobody there could say what is in a transaction.
    let asked = PartitionsRequest {
        id: "x".into(),
        producer: (ProducerId(7), ProducerEpoch(0)),
        partitions: vec![TopicPartition { topic: "a".into(), partition: PartitionIndex(0) }],
    };
    let verified = RemoteVerification::new(&older).verify(BrokerId(2), vec![asked]).await;
    assert_eq!(verified.expect("not asked"), [[35]]);
}

/// `control.plane.listener.name`: the controller is asked there, but for a shutdown.
#[tokio::test]
async fn the_controller_is_asked_on_its_own_listener() {
    let altered = AlterPartitionResponse::default();
    let block = AllocateProducerIdsResponse::default().with_producer_id_start(0.into()).with_producer_id_len(9);
    let control = Other::start([Act::Answer(body(&altered, 3)), Act::Answer(body(&block, 0))]).await;
    let others = Other::start([Act::Close]).await;
    let mut live = others.registered(2);
    let mut of_control = control.registered(2).endpoints.remove(1);
    of_control.listener = "CONTROL".into();
    live.endpoints.push(of_control);
    let mut here = peers(&[live], 2);
    here.control = here.addresses.on("CONTROL", None);
    controller_link::isr(&here, Arc::new(Own)).alter_partition(alter()).await.expect("answered");
    let ids = controller_link::producer_ids(&here, Arc::new(Own));
    assert_eq!(ids.allocate_producer_ids(BrokerId(1), BrokerEpoch(9)).await, Ok(0..9));
    let left = controller_link::shutdown(&here, Arc::new(Own)).controlled_shutdown(BrokerId(1), BrokerEpoch(9)).await;
    assert!(left.is_err(), "closed");
    assert_eq!((control.came().len(), others.came().len()), (2, 1));
}
