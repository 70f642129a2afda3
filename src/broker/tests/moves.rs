//! Elections and reassignments as administrators ask for them, on a node that is alone.

use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, BrokerId as WireBrokerId, ElectLeadersRequest,
    ListPartitionReassignmentsRequest,
};

use super::{WireClient, create, start, topic};

fn elect(kind: i8, partitions: Option<&[(&str, i32)]>) -> ElectLeadersRequest {
    let one =
        |(name, index): &(&str, i32)| TopicPartitions::default().with_topic(topic(name)).with_partitions(vec![*index]);
    let partitions = partitions.map(|partitions| partitions.iter().map(one).collect());
    ElectLeadersRequest::default().with_election_type(kind).with_topic_partitions(partitions).with_timeout_ms(10_000)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_has_nobody_else_to_elect() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    for version in 0..=2 {
        let answer = client.call(&elect(0, Some(&[("t", 0), ("v", 7)])), version).await;
        let results = answer.replica_election_results.iter().map(|topic| {
            let result = &topic.partition_result[0];
            (topic.topic.as_str().to_owned(), result.partition_id, result.error_code)
        });
        assert_eq!(results.collect::<Vec<_>>(), [("t".to_owned(), 0, 84), ("v".to_owned(), 7, 3)], "{version}");
        let all = client.call(&elect(0, None), version).await;
        assert!(all.replica_election_results.is_empty(), "none is needed");
    }
    assert_eq!(
        client.call(&elect(1, Some(&[("t", 0)])), 2).await.replica_election_results[0].partition_result[0].error_code,
        84
    );
    assert_eq!(client.call(&elect(7, None), 2).await.error_code, 42);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_alone_has_nowhere_to_move_to() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    for version in 0..=1 {
        for (replicas, code) in [(Some(&[1][..]), 0), (Some(&[9]), 39), (Some(&[]), 39), (None, 85)] {
            let replicas = replicas.map(|ids| ids.iter().copied().map(WireBrokerId).collect());
            let partition = ReassignablePartition::default().with_partition_index(0).with_replicas(replicas);
            let moved = ReassignableTopic::default().with_name(topic("t")).with_partitions(vec![partition]);
            let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![moved]);
            let answer = client.call(&request, version).await;
            assert_eq!(answer.error_code, 0);
            assert_eq!(answer.responses[0].partitions[0].error_code, code);
        }
    }
    let asked = ListPartitionReassignmentsTopics::default().with_name(topic("t")).with_partition_indexes(vec![0]);
    for topics in [None, Some(vec![asked])] {
        let request = ListPartitionReassignmentsRequest::default().with_topics(topics);
        let answer = client.call(&request, 0).await;
        assert_eq!((answer.error_code, answer.topics.len()), (0, 0));
    }
    broker.stop().await;
}
