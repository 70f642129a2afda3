//! Leader hints (KIP-951): what a client is told that asked the wrong broker.

use std::time::Duration;

use kafka_protocol::messages::create_topics_request::{CreatableReplicaAssignment, CreatableTopic};
use kafka_protocol::messages::{CreateTopicsRequest, FetchRequest};
use tokio::time::Instant;

use super::cluster::{LONG, client, client_at, leaders, shows, start, to_partition, until};
use super::{WireClient, fetch, topic};
use crate::coordination::zookeeper::testing::ZookeeperServer;

/// A fetch of a topic's first partition from offset 0, by name up to version 12 and by id from then on.
fn fetch_of(name: &str, id: uuid::Uuid, version: i16, leader_epoch: i32) -> FetchRequest {
    let mut request = fetch(if version < 13 { name } else { "" }, 0).with_max_wait_ms(0);
    if version >= 13 {
        request.topics[0].topic_id = id;
    }
    request.topics[0].partitions[0].current_leader_epoch = leader_epoch;
    request
}

async fn create(client: &mut WireClient, wanted: CreatableTopic) {
    let request = CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(30_000);
    assert_eq!(client.call(&request, 5).await.topics[0].error_code, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_does_not_lead_tells_who_does_and_where_it_listens() {
    let Some(server) = ZookeeperServer::start() else { return };
    let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let brokers = [start(&server, "hints", 1, dirs[0].path()).await, start(&server, "hints", 2, dirs[1].path()).await];
    let mut at_one = client(&brokers[0]).await;
    until(&mut at_one, None, |answer| shows(answer, &[1, 2], 1)).await;
    let wanted = CreatableTopic::default().with_name(topic("t")).with_num_partitions(1).with_replication_factor(2);
    create(&mut at_one, wanted).await;
    let shown = until(&mut at_one, Some("t"), |answer| leaders(answer).values().any(|leader| *leader > 0)).await;
    let (id, partition) = (shown.topics[0].topic_id, &shown.topics[0].partitions[0]);
    let (leader, epoch) = (partition.leader_id.0, partition.leader_epoch);
    let [at_leader, other] = [leader, 3 - leader].map(|id| &brokers[usize::try_from(id - 1).unwrap()]);
    let assigned = CreatableReplicaAssignment::default().with_broker_ids(vec![leader.into()]);
    let wanted = CreatableTopic::default().with_name(topic("alone")).with_num_partitions(-1);
    create(&mut at_one, wanted.with_replication_factor(-1).with_assignments(vec![assigned])).await;
    let mut at_other = client(other).await;
    until(&mut at_other, Some("t"), |answer| leaders(answer).get(&0) == Some(&leader)).await;
    let shown = until(&mut at_other, Some("alone"), |answer| leaders(answer).get(&0) == Some(&leader)).await;
    let alone = shown.topics[0].topic_id;
    let port = |listener: usize| i32::from(at_leader.addresses()[listener].port());

    // Through each listener that one's port.
    for listener in [0, 1] {
        let mut asked = client_at(other.addresses()[listener]).await;
        let deadline = Instant::now() + LONG;
        loop {
            let answer = asked.call(&to_partition(0), 10).await;
            let refused = &answer.responses[0].partition_responses[0];
            assert_eq!(refused.error_code, 6);
            let told = (refused.current_leader.leader_id.0, refused.current_leader.leader_epoch);
            // The replica there may not have its role yet.
            if told == (leader, epoch) {
                let [node] = &answer.node_endpoints[..] else { panic!("{answer:?}") };
                assert_eq!((node.node_id.0, node.host.as_str(), node.port), (leader, "127.0.0.1", port(listener)));
                break;
            }
            assert!(Instant::now() < deadline, "{told:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let older = asked.call(&to_partition(0), 9).await;
        assert_eq!(older.responses[0].partition_responses[0].error_code, 6);
        // It has no replica of this one, so its image tells.
        for version in [12, 15, 16, 17] {
            let answer = asked.call(&fetch_of("alone", alone, version, -1), version).await;
            let refused = &answer.responses[0].partitions[0];
            assert_eq!(refused.error_code, 6);
            let told: Vec<(i32, i32)> = answer.node_endpoints.iter().map(|node| (node.node_id.0, node.port)).collect();
            let expected = (version >= 16).then_some((leader, port(listener)));
            assert_eq!(told, Vec::from_iter(expected), "{version}");
            assert_eq!(refused.current_leader.leader_id.0, if version >= 16 { leader } else { -1 });
        }
    }

    // Who follows stops, so the leader goes on under another epoch.
    let mut at_leader = client(at_leader).await;
    // It has its role, but may not have heard of the topic's id yet, by which it is asked.
    until(&mut at_leader, Some("t"), |answer| leaders(answer).get(&0) == Some(&leader)).await;
    let [one, two] = brokers;
    let (left, gone) = if leader == 1 { (one, two) } else { (two, one) };
    gone.stop().await;
    let deadline = Instant::now() + LONG;
    loop {
        let answer = at_leader.call(&fetch_of("t", id, 16, epoch), 16).await;
        let partition = &answer.responses[0].partitions[0];
        if partition.error_code == 74 {
            let told = (partition.current_leader.leader_id.0, partition.current_leader.leader_epoch);
            assert_eq!((told.0, told.1 > epoch), (leader, true));
            assert_eq!(answer.node_endpoints[0].port, i32::from(left.addresses()[1].port()));
            break;
        }
        assert!(partition.error_code == 0 && Instant::now() < deadline, "{partition:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    left.stop().await;
}
