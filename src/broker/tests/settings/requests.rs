//! Settings that bound requests and their answers.

use bytes::BufMut;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::describe_topic_partitions_request::TopicRequest;
use kafka_protocol::messages::{
    AlterClientQuotasRequest, ApiVersionsRequest, CreateTopicsRequest, DescribeTopicPartitionsRequest, TopicName,
};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_are_as_large_as_the_broker_allows() {
    let limits = [
        "fetch.max.bytes=1024",
        "max.incremental.fetch.session.cache.slots=0",
        "max.request.partition.size.limit=1",
        "num.partitions=2",
    ];
    let bounded = shown(Probe::start(&limits).await).await;
    let free = shown(Probe::start(&["num.partitions=2"]).await).await;
    assert_eq!(bounded, Shown { fetched_one: true, in_a_session: false, partitions: 1 });
    assert_eq!(free, Shown { fetched_one: false, in_a_session: true, partitions: 2 });
}

#[derive(Debug, PartialEq)]
struct Shown {
    fetched_one: bool,
    in_a_session: bool,
    partitions: usize,
}

async fn shown(mut probe: Probe) -> Shown {
    probe.create("t").await;
    for _ in 0..2 {
        assert_eq!(probe.produce("t", &["v".repeat(700).as_str()]).await, 0);
    }
    let fetched_one = probe.fetched("t").await.len() < 1400;
    let session = fetch("t", 0).with_session_epoch(0);
    let in_a_session = probe.call(&session, 12).await.session_id != 0;
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(vec![TopicRequest::default().with_name(topic("t"))])
        .with_response_partition_limit(100);
    let described = probe.call(&request, 0).await;
    assert_eq!(described.next_cursor.is_some(), described.topics[0].partitions.len() == 1);
    probe.broker.stop().await;
    Shown { fetched_one, in_a_session, partitions: described.topics[0].partitions.len() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frame_larger_than_allowed_closes_the_connection() {
    let mut probe = Probe::start(&["socket.request.max.bytes=2000"]).await;
    probe.create("t").await;
    assert_eq!(probe.produce("t", &["v".repeat(1000).as_str()]).await, 0);
    probe.client.send(&produce("t", &["v".repeat(2000).as_str()]), 9).await;
    assert_eq!(probe.client.frame().await, None);
    probe.broker.stop().await;
}

/// Half of `queued.max.request.bytes` is for large frames that are coming in: one that has taken it keeps others out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_come_in_take_room_that_is_bounded() {
    let settings = ["socket.request.max.bytes=1000000", "queued.max.request.bytes=1000000"];
    for (settings, waits) in [(&settings[..], true), (&settings[..1], false)] {
        let mut probe = Probe::start(settings).await;
        probe.create("t").await;
        let mut slow = WireClient::connect(&probe.broker).await;
        let mut half = bytes::BytesMut::new();
        half.put_i32(400_000);
        half.put_bytes(0, 300_000);
        slow.stream.write_all(&half).await.unwrap();
        // It is read as far as it has come.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let large = "v".repeat(300_000);
        let mut other = WireClient::connect(&probe.broker).await;
        other.send(&produce("t", &[large.as_str()]), 9).await;
        if waits {
            assert_eq!(other.frame_within(Duration::from_millis(300)).await, None, "there is no room");
            probe.call(&ApiVersionsRequest::default(), 0).await;
            drop(slow);
        }
        assert!(other.frame().await.is_some());
        probe.broker.stop().await;
    }
}

/// A rate is measured over all windows but the one that is about to be forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_too_much_waits_as_its_quotas_windows_say() {
    let windows = ["quota.window.num=3", "quota.window.size.seconds=2"];
    let of_windows = waits_ms(&windows).await;
    let of_defaults = waits_ms(&[]).await;
    // Some 20,000 bytes over 4 s, and over 10 s, where 1,000 each second are free.
    assert!((15_000..20_000).contains(&of_windows), "{of_windows}");
    assert!((9_000..14_000).contains(&of_defaults), "{of_defaults}");
}

/// Sets a limit for every client.
async fn limit_every_client(probe: &mut Probe, key: &'static str, value: f64) {
    let every_client = EntityData::default().with_entity_type(StrBytes::from_static_str("client-id"));
    let limit = OpData::default().with_key(StrBytes::from_static_str(key)).with_value(value);
    let entry = EntryData::default().with_entity(vec![every_client.with_entity_name(None)]).with_ops(vec![limit]);
    let altered = probe.call(&AlterClientQuotasRequest::default().with_entries(vec![entry]), 1).await;
    assert_eq!(altered.entries[0].error_code, 0);
    tokio::time::sleep(Duration::from_millis(300)).await;
}

/// A bucket holds what all windows allow: two seconds' here, where the default is eleven.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_topics_beyond_a_limit_wait_as_its_windows_say() {
    let windows = ["controller.quota.window.num=2", "controller.quota.window.size.seconds=1"];
    let mut probe = Probe::start(&windows).await;
    limit_every_client(&mut probe, "controller_mutation_rate", 1.0).await;
    let create = |name: &'static str, partitions| {
        let topic = CreatableTopic::default().with_name(TopicName(StrBytes::from_static_str(name)));
        let topic = topic.with_num_partitions(partitions).with_replication_factor(1);
        CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(10_000)
    };
    let made = probe.call(&create("a", 9), 7).await;
    assert_eq!((made.topics[0].error_code, made.throttle_time_ms), (0, 0));
    let refused = probe.call(&create("b", 1), 7).await;
    assert_eq!(refused.topics[0].error_code, ResponseError::ThrottlingQuotaExceeded.code());
    assert!((3_000..=7_000).contains(&refused.throttle_time_ms), "{}", refused.throttle_time_ms);
    // An older version is not refused, and waits. Its connection, not the one that waits already.
    let mut other = WireClient::connect(&probe.broker).await;
    let waits = other.call(&create("c", 1), 5).await;
    assert_eq!(waits.topics[0].error_code, 0);
    assert!(waits.throttle_time_ms > 0);
    probe.broker.stop().await;
}

/// How long a client is told to wait that produces 20,000 bytes with a quota of 1,000 each second.
async fn waits_ms(settings: &[&str]) -> i32 {
    let mut probe = Probe::start(settings).await;
    probe.create("t").await;
    limit_every_client(&mut probe, "producer_byte_rate", 1000.0).await;
    let mut other = WireClient::connect(&probe.broker).await;
    let told = probe.call(&produce("t", &["v".repeat(20_000).as_str()]), 9).await.throttle_time_ms;
    // Its connection is not read; those of others are.
    probe.client.send(&ApiVersionsRequest::default(), 0).await;
    assert_eq!(probe.client.frame_within(Duration::from_millis(300)).await, None);
    other.send(&ApiVersionsRequest::default(), 0).await;
    assert!(other.frame().await.is_some());
    probe.broker.stop().await;
    told
}
