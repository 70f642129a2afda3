//! What clients ask of one broker: records, settings, producers; the order of the answers.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    DescribeProducersRequest, FetchRequest, IncrementalAlterConfigsRequest, MetadataRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::{WireClient, create, fetch, produce, start, start_with, topic};
use crate::record::BatchHeader;
use crate::record::build::BatchBuilder;
use crate::types::{Offset, ProducerEpoch, ProducerId};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_read_from_the_tail_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    let produced = client.call(&produce("t", &["a", "b"]), 9).await;
    let produced = &produced.responses[0].partition_responses[0];
    assert_eq!((produced.error_code, produced.base_offset, produced.log_append_time_ms), (0, 0, -1));
    let from_tail = client.call(&fetch("t", 1), 12).await;
    let from_tail = &from_tail.responses[0].partitions[0];
    assert_eq!((from_tail.error_code, from_tail.high_watermark, from_tail.log_start_offset), (0, 2, 0));
    let records = from_tail.records.clone().unwrap();
    broker.stop().await;

    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    let from_disk = client.call(&fetch("t", 1), 12).await;
    assert_eq!(
        from_disk.responses[0].partitions[0].records,
        Some(records),
        "the bytes stored are the bytes fetched (I-4)"
    );
    let beyond = client.call(&fetch("t", 3), 12).await;
    assert_eq!(beyond.responses[0].partitions[0].error_code, 1, "OFFSET_OUT_OF_RANGE");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_parked_fetch_wakes_on_produce_and_replies_keep_their_order() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    let begun = tokio::time::Instant::now();
    client.send(&fetch("t", 0).with_max_wait_ms(60_000), 12).await;
    let parked = client.correlation;
    client.send(&MetadataRequest::default(), 1).await;
    let behind = client.correlation;
    let mut other = WireClient::connect(&broker).await;
    other.call(&produce("t", &["a"]), 9).await;
    let fetched = client.receive::<FetchRequest>(parked, 12).await;
    assert_eq!(fetched.responses[0].partitions[0].high_watermark, 1);
    client.receive::<MetadataRequest>(behind, 1).await;
    assert!(begun.elapsed() < Duration::from_secs(50), "it did not wait for max_wait_ms");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_nobody_takes_give_way_to_those_of_another_client() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start_with(dir.path(), &["klamm.reply.bytes=1048576"]).await;
    let mut other = WireClient::connect(&broker).await;
    create(&mut other, "t").await;
    // What follows the first megabyte has a file that it is sent from, and holds nothing.
    other.call(&produce("t", &["v".repeat(900_000).as_str()]), 9).await;
    let mut slow = WireClient::connect(&broker).await;
    slow.send(&fetch("t", 0), 12).await;
    // Small answers go out meanwhile, and those for which there is no room a little later.
    tokio::time::sleep(Duration::from_millis(100)).await;
    other.call(&MetadataRequest::default(), 1).await;
    let fetched = other.call(&fetch("t", 0), 12).await;
    assert_eq!(fetched.responses[0].partitions[0].records.as_ref().map(Bytes::len), Some(900_072));
    assert_eq!(slow.frame().await, None, "a reply that is not taken gave way");
    broker.stop().await;
}

/// All records of `t`, fetched as a consumer does.
async fn all_records(client: &mut WireClient, end: i64) -> Vec<u8> {
    let mut all = Vec::new();
    let mut from = 0;
    while from < end {
        let mut request = fetch("t", from);
        request.max_bytes = 50 << 20;
        request.topics[0].partitions[0].partition_max_bytes = 7 << 20;
        let fetched = client.call(&request, 12).await;
        let records = fetched.responses[0].partitions[0].records.clone().unwrap();
        let mut rest = &records[..];
        while !rest.is_empty() {
            let header = BatchHeader::parse(rest).unwrap();
            assert_eq!(header.base_offset, Offset(from));
            assert_eq!(crc32c::crc32c(&rest[21..header.size_bytes()]), header.crc);
            (from, rest) = (header.last_offset().0 + 1, &rest[header.size_bytes()..]);
        }
        all.extend_from_slice(&records);
    }
    all
}

/// Large batches behind the tail are sent from the tables they lie in, after a restart from RocksDB's files; over TLS,
/// too, see `tls`. A budget for replies that holds next to nothing is no hindrance.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bytes_sent_from_files_are_the_bytes_stored() {
    let dir = tempfile::tempdir().unwrap();
    let settings = ["klamm.tail.bytes=0", "klamm.reply.bytes=1048576"];
    let broker = start_with(dir.path(), &settings).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    let sizes = [900_000, 200_000, 20_000, 300_000, 70_000];
    for at in 0..60 {
        let value = format!("{at} ").repeat(sizes[at % sizes.len()] / 3);
        let produced = client.call(&produce("t", &[value.as_str(), "small"]), 9).await;
        assert_eq!(produced.responses[0].partition_responses[0].error_code, 0);
    }
    let sent = all_records(&mut client, 120).await;
    let mut request = fetch("t", 60);
    request.max_bytes = 50 << 20;
    request.topics[0].partitions[0].partition_max_bytes = 5 << 20;
    let fetched = client.call(&request, 12).await;
    let bytes = fetched.responses[0].partitions[0].records.as_ref().map_or(0, Bytes::len);
    assert!(bytes > 4 << 20, "{bytes} bytes: more than may be held");
    broker.stop().await;

    let broker = start_with(dir.path(), &settings).await;
    let mut client = WireClient::connect(&broker).await;
    assert!(all_records(&mut client, 120).await == sent, "the bytes stored are the bytes sent (I-4)");
    broker.stop().await;
}

/// Before Linux 6.5 the kernel does not say what is in the page cache, and the tail is sent from memory.
fn kernel_says_what_is_cached() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    (numbers.next(), numbers.next()) >= (Some(6), Some(5))
}

/// Of which memory may hold a megabyte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_batches_of_the_tail_are_sent_from_their_file_and_small_ones_from_memory() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start_with(dir.path(), &["klamm.reply.bytes=1048576"]).await;
    let mut client = WireClient::connect(&broker).await;
    for (name, batch_bytes, is_more) in [("large", 400_000, kernel_says_what_is_cached()), ("small", 40_000, false)] {
        create(&mut client, name).await;
        for _ in 0..4_000_000 / batch_bytes {
            let produced = client.call(&produce(name, &["x".repeat(batch_bytes).as_str()]), 9).await;
            assert_eq!(produced.responses[0].partition_responses[0].error_code, 0);
        }
        // A file of its own begins behind the first megabyte.
        let mut request = fetch(name, 1_600_000 / batch_bytes as i64);
        request.max_bytes = 50 << 20;
        request.topics[0].partitions[0].partition_max_bytes = 50 << 20;
        let fetched = client.call(&request, 12).await;
        let records = fetched.responses[0].partitions[0].records.clone().unwrap();
        assert_eq!(records.len() > 2_000_000, is_more, "{name}: {} bytes", records.len());
        let header = BatchHeader::parse(&records).unwrap();
        assert_eq!(crc32c::crc32c(&records[21..header.size_bytes()]), header.crc);
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pipelined_fetches_are_answered_one_after_the_other() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    let first = client.correlation + 1;
    for _ in 0..3 {
        client.send(&fetch("t", 0), 12).await;
        client.send(&MetadataRequest::default(), 1).await;
    }
    let mut other = WireClient::connect(&broker).await;
    other.call(&produce("t", &["a"]), 9).await;
    for at in 0..3 {
        let fetched = client.receive::<FetchRequest>(first + 2 * at, 12).await;
        assert!(fetched.responses[0].partitions[0].records.as_ref().is_some_and(|records| !records.is_empty()));
        client.receive::<MetadataRequest>(first + 2 * at + 1, 1).await;
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_batch_is_refused_and_nothing_is_stored() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    let mut request = produce("t", &["a"]);
    let records = request.topic_data[0].partition_data[0].records.take().unwrap();
    let mut broken = records.to_vec();
    *broken.last_mut().unwrap() ^= 1;
    request.topic_data[0].partition_data[0].records = Some(broken.into());
    let answer = client.call(&request, 9).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, 2, "CORRUPT_MESSAGE");
    assert_eq!(answer.responses[0].partition_responses[0].base_offset, -1);
    let answer = client.call(&produce("t", &["a"]), 9).await;
    assert_eq!(answer.responses[0].partition_responses[0].base_offset, 0);
    broker.stop().await;
}

/// Sets one setting of brokers: of this one, or of all where its name is empty.
pub(super) async fn set(client: &mut WireClient, broker: &'static str, name: &'static str, value: &'static str) -> i16 {
    let change = AlterableConfig::default()
        .with_name(StrBytes::from_static_str(name))
        .with_value(Some(StrBytes::from_static_str(value)));
    let resource = AlterConfigsResource::default()
        .with_resource_type(4)
        .with_resource_name(StrBytes::from_static_str(broker))
        .with_configs(vec![change]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    client.call(&request, 1).await.responses[0].error_code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_of_brokers_change_while_they_run_and_stay_after_a_restart() {
    const MESSAGE_TOO_LARGE: i16 = 10;
    let dir = tempfile::tempdir().unwrap();
    let large = produce("t", &["x".repeat(500).as_str()]);
    // Open logs take a change over in the background.
    let until = async |client: &mut WireClient, error_code: i16| {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
        while client.call(&large, 9).await.responses[0].partition_responses[0].error_code != error_code {
            assert!(tokio::time::Instant::now() < deadline, "the setting has no effect");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    until(&mut client, 0).await;
    assert_eq!(set(&mut client, "", "message.max.bytes", "300").await, 0);
    until(&mut client, MESSAGE_TOO_LARGE).await;
    assert_eq!(set(&mut client, "1", "message.max.bytes", "3000").await, 0);
    until(&mut client, 0).await;
    assert_eq!(set(&mut client, "1", "message.max.bytes", "30").await, 0);
    assert_eq!(set(&mut client, "2", "message.max.bytes", "3000").await, 42, "another broker's");
    assert_eq!(set(&mut client, "1", "num.partitions", "7").await, 42, "INVALID_REQUEST: it does not change");
    broker.stop().await;

    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    let answer = client.call(&large, 9).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, MESSAGE_TOO_LARGE, "from the first on");
    assert_eq!(set(&mut client, "", "max.connections.per.ip", "1").await, 0);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while WireClient::connect(&broker).await.frame_within(Duration::from_millis(50)).await.is_none() {
        assert!(tokio::time::Instant::now() < deadline, "a second connection is let in");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn producers_are_described_where_they_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    let mut batch = BatchBuilder::new().producer(ProducerId(41), ProducerEpoch(2), 0);
    batch.append(1_700_000_000_000, None, Some(b"1"));
    batch.append(1_700_000_000_000, None, Some(b"2"));
    let mut request = produce("t", &[]);
    request.topic_data[0].partition_data[0].records = Some(batch.finish().bytes.freeze());
    assert_eq!(client.call(&request, 9).await.responses[0].partition_responses[0].error_code, 0);

    let wanted = |name, partitions: &[i32]| {
        TopicRequest::default().with_name(topic(name)).with_partition_indexes(partitions.to_vec())
    };
    let request = DescribeProducersRequest::default().with_topics(vec![
        wanted("t", &[0, 99]),
        wanted("missing", &[0]),
        wanted("no/name", &[0]),
    ]);
    let answer = client.call(&request, 0).await;
    let codes: Vec<i16> =
        answer.topics.iter().flat_map(|topic| topic.partitions.iter().map(|part| part.error_code)).collect();
    assert_eq!(codes, [0, 3, 3, 17]);
    let producers = &answer.topics[0].partitions[0].active_producers;
    assert_eq!(producers.len(), 1);
    assert_eq!((producers[0].producer_id.0, producers[0].producer_epoch, producers[0].last_sequence), (41, 2, 1));
    assert_eq!((producers[0].coordinator_epoch, producers[0].current_txn_start_offset), (-1, -1));
    broker.stop().await;
}
