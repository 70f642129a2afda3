//! DeleteRecords over replicas: it is answered when all that are live have deleted.

use std::time::Duration;

use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::{CreateTopicsRequest, DeleteRecordsRequest};
use tokio::time::Instant;

use super::cluster::{LONG, client, leaders, start, to_partition, until};
use super::{WireClient, fetch, topic};
use crate::clock::{Clock, SystemClock};
use crate::cluster::control::{Endpoint, LiveBroker};
use crate::cluster::znodes::brokers;
use crate::coordination::zookeeper::testing::ZookeeperServer;
use crate::coordination::zookeeper::{ZookeeperConfig, ZookeeperCoordination};
use crate::coordination::{Coordination, CreateMode};
use crate::types::BrokerId;

async fn create(client: &mut WireClient, name: &str, replicas: [i32; 2]) {
    let assigned = CreatableReplicaAssignment::default().with_broker_ids(replicas.map(Into::into).to_vec());
    let wanted = CreatableTopic::default().with_name(topic(name)).with_num_partitions(-1).with_replication_factor(-1);
    let request = CreateTopicsRequest::default().with_topics(vec![wanted.with_assignments(vec![assigned])]);
    assert_eq!(client.call(&request.with_timeout_ms(30_000), 5).await.topics[0].error_code, 0);
    until(client, Some(name), |answer| leaders(answer).get(&0) == Some(&replicas[0])).await;
}

/// Error and low watermark.
async fn delete(client: &mut WireClient, name: &str, below: i64, timeout: Duration) -> (i16, i64) {
    let partition = DeleteRecordsPartition::default().with_offset(below);
    let topics = vec![DeleteRecordsTopic::default().with_name(topic(name)).with_partitions(vec![partition])];
    let request = DeleteRecordsRequest::default().with_topics(topics).with_timeout_ms(timeout.as_millis() as i32);
    let answer = client.call(&request, 2).await;
    let partition = &answer.topics[0].partitions[0];
    (partition.error_code, partition.low_watermark)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_deleted_on_every_live_replica_or_the_time_is_over() {
    let Some(server) = ZookeeperServer::start() else { return };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let one = start(&server, "deletes", 1, dirs[0].path()).await;
    let two = start(&server, "deletes", 2, dirs[1].path()).await;
    let (mut at_leader, mut at_follower) = (client(&one).await, client(&two).await);
    until(&mut at_leader, None, |answer| answer.brokers.len() == 2).await;
    create(&mut at_leader, "t", [1, 2]).await;
    for _ in 0..3 {
        let deadline = Instant::now() + LONG;
        while at_leader.call(&to_partition(0), 9).await.responses[0].partition_responses[0].error_code != 0 {
            assert!(Instant::now() < deadline, "acks=all");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(delete(&mut at_leader, "t", 2, LONG).await, (0, 2));
    // Whoever was told finds them gone everywhere, without a pause.
    let below = at_follower.call(&fetch("t", 1), 12).await;
    assert_eq!(below.responses[0].partitions[0].error_code, 1, "OFFSET_OUT_OF_RANGE");
    assert_eq!(delete(&mut at_leader, "t", 9, LONG).await, (1, -1));
    assert_eq!(delete(&mut at_follower, "t", 3, LONG).await, (6, -1));

    // A live broker that follows nobody, as the test plays it.
    let endpoint = |listener: &str| Endpoint {
        listener: listener.into(),
        security_protocol: "PLAINTEXT".into(),
        host: "127.0.0.1".into(),
        port: 1,
    };
    let silent = LiveBroker { id: BrokerId(3), endpoints: vec![endpoint("BROKERS"), endpoint("CLIENTS")], rack: None };
    let store = ZookeeperCoordination::connect(ZookeeperConfig::new(format!("{}/deletes", server.address()))).await;
    let (store, node) = (store.unwrap(), brokers::encode(&silent, SystemClock.now_ms()));
    store.create(&brokers::path(silent.id), node, CreateMode::Ephemeral).await.unwrap();
    until(&mut at_leader, None, |answer| answer.brokers.len() == 3).await;
    create(&mut at_leader, "u", [1, 3]).await;
    let deadline = Instant::now() + LONG;
    loop {
        let answered = delete(&mut at_leader, "u", 0, Duration::from_millis(200)).await;
        match answered {
            // It does not lead yet.
            (6, -1) => assert!(Instant::now() < deadline),
            timed_out => {
                break assert_eq!(timed_out, (7, -1), "REQUEST_TIMED_OUT, and nothing is known of the follower");
            }
        }
    }
    // It goes while a deletion waits for it.
    let waiting = delete(&mut at_leader, "u", 0, LONG);
    let gone = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        store.delete(&brokers::path(silent.id), -1).await.unwrap();
    };
    let (answered, ()) = tokio::join!(waiting, gone);
    assert_eq!(answered, (0, 0));
    two.stop().await;
    one.stop().await;
}
