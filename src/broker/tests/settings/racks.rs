//! `replica.selector.class`: consumers that read from a follower in their rack (KIP-392).

use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::{CreateTopicsRequest, FetchResponse};

use super::super::cluster::{LONG, leaders, to_partition, until};
use super::*;
use crate::coordination::zookeeper::testing::ZookeeperServer;

const RACK_AWARE: &str = "replica.selector.class=org.apache.kafka.common.replica.RackAwareReplicaSelector";

async fn start(server: &ZookeeperServer, id: i32, dir: &Path, settings: &[&str]) -> (Broker, WireClient) {
    let own = [
        format!("broker.id={id}"),
        format!("broker.rack=rack-{id}"),
        format!("zookeeper.connect={}/racks", server.address()),
    ];
    let settings: Vec<&str> = own.iter().map(String::as_str).chain(settings.iter().copied()).collect();
    let broker = Broker::start(load(dir, &settings).unwrap()).await.unwrap();
    let client = WireClient::connect(&broker).await;
    (broker, client)
}

/// Error, preferred replica and bytes of records of a consumer in this rack that reads from `offset` on and waits long.
async fn read(client: &mut WireClient, rack: &str, offset: i64, version: i16) -> (i16, i32, usize) {
    let mut request = fetch("t", offset).with_max_wait_ms(if offset == 0 { 30_000 } else { 100 });
    if version >= 11 {
        request.rack_id = StrBytes::from_string(rack.to_owned());
    }
    told(&client.call(&request, version).await)
}

fn told(answer: &FetchResponse) -> (i16, i32, usize) {
    let partition = &answer.responses[0].partitions[0];
    let bytes = partition.records.as_ref().map_or(0, bytes::Bytes::len);
    (partition.error_code, partition.preferred_read_replica.0, bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn consumers_are_sent_to_a_follower_in_their_rack_if_that_is_set() {
    for class in ["com.example.Selector", "", "RackAwareReplicaSelector"] {
        let refused = refusal(&[&format!("replica.selector.class={class}")]);
        assert!(refused.contains("configuration replica.selector.class: a class of Java"), "{refused}");
    }
    let Some(server) = ZookeeperServer::start() else { return };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (one, mut at_leader) = start(&server, 1, dirs[0].path(), &[RACK_AWARE]).await;
    let (two, mut at_follower) = start(&server, 2, dirs[1].path(), &[]).await;
    until(&mut at_leader, None, |answer| answer.brokers.len() == 2).await;
    let assigned = CreatableReplicaAssignment::default().with_broker_ids(vec![1.into(), 2.into()]);
    let wanted = CreatableTopic::default().with_name(topic("t")).with_num_partitions(-1).with_replication_factor(-1);
    let request = CreateTopicsRequest::default().with_topics(vec![wanted.with_assignments(vec![assigned])]);
    assert_eq!(at_leader.call(&request.with_timeout_ms(30_000), 5).await.topics[0].error_code, 0);
    until(&mut at_follower, Some("t"), |answer| leaders(answer).get(&0) == Some(&1)).await;
    let deadline = tokio::time::Instant::now() + LONG;
    while at_leader.call(&to_partition(0), 9).await.responses[0].partition_responses[0].error_code != 0 {
        assert!(tokio::time::Instant::now() < deadline, "acks=all");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // Both have it. The first consumer is answered at once, although it would wait for half a minute.
    for version in [11, 12] {
        assert_eq!(read(&mut at_leader, "rack-2", 0, version).await, (0, 2, 0));
        let (error, preferred, bytes) = read(&mut at_follower, "rack-2", 0, version).await;
        assert!(error == 0 && preferred == -1 && bytes > 0, "the follower serves it");
    }
    for (rack, version) in [("rack-1", 12), ("rack-9", 12), ("", 12), ("rack-2", 10)] {
        let (error, preferred, bytes) = read(&mut at_leader, rack, 0, version).await;
        assert!(error == 0 && preferred == -1 && bytes > 0, "{rack} {version}");
    }
    assert_eq!(read(&mut at_leader, "rack-2", 9, 12).await, (1, -1, 0), "OFFSET_OUT_OF_RANGE is the leader's to say");
    let stale = {
        let mut request = fetch("t", 0).with_rack_id(StrBytes::from_static_str("rack-2"));
        request.topics[0].partitions[0].current_leader_epoch = 99;
        told(&at_leader.call(&request, 12).await)
    };
    assert_eq!(stale, (75, -1, 0), "UNKNOWN_LEADER_EPOCH goes before");
    // In a session it is told each time.
    let mut request = fetch("t", 0).with_session_epoch(0).with_rack_id(StrBytes::from_static_str("rack-2"));
    let first = at_leader.call(&request, 12).await;
    assert_eq!(told(&first), (0, 2, 0));
    (request.session_id, request.session_epoch, request.topics) = (first.session_id, 1, vec![]);
    assert_eq!(told(&at_leader.call(&request, 12).await), (0, 2, 0));

    // Who is gone is sent nobody.
    two.stop().await;
    until(&mut at_leader, None, |answer| answer.brokers.len() == 1).await;
    let (error, preferred, bytes) = read(&mut at_leader, "rack-2", 0, 12).await;
    assert!(error == 0 && preferred == -1 && bytes > 0);
    one.stop().await;
}
