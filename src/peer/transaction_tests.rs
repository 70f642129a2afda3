//! What transaction coordinators ask of other brokers, against one that answers by a script, over real sockets.

use bytes::Bytes;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, WriteTxnMarkersRequest, WriteTxnMarkersResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::markers::RemoteMarkers;
use super::testing::{Act, Other, peers};
use super::verify::RemoteVerification;
use crate::coordinator::peer_links::{MarkerLink, VerifyLink};
use crate::coordinator::transaction::request::PartitionsRequest;
use crate::types::{BrokerId, ProducerEpoch, ProducerId, TopicPartition, TransactionMarker, TransactionResult};
use crate::wire::codec;

const OTHER: BrokerId = BrokerId(2);

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn marker(producer_id: i64, result: TransactionResult) -> TransactionMarker {
    let (producer_id, producer_epoch) = (ProducerId(producer_id), ProducerEpoch(3));
    TransactionMarker { producer_id, producer_epoch, coordinator_epoch: 5, result }
}

/// Codes by producer, topic and partition, in this order.
fn written(results: &[(i64, &str, i32, i16)]) -> Bytes {
    let result = |&(producer, topic, partition, code): &(i64, &str, i32, i16)| {
        let partition =
            WritableTxnMarkerPartitionResult::default().with_partition_index(partition).with_error_code(code);
        let topic = WritableTxnMarkerTopicResult::default().with_name(text(topic).into());
        let topic = topic.with_partitions(vec![partition]);
        WritableTxnMarkerResult::default().with_producer_id(producer.into()).with_topics(vec![topic])
    };
    let response = WriteTxnMarkersResponse::default().with_markers(results.iter().map(result).collect());
    codec::encode_response(&response, 1).expect("encodes")
}

#[tokio::test]
async fn markers_of_a_transaction_go_together_and_each_has_its_code() {
    // In another order, and without one of them.
    let answer = written(&[(8, "a", 0, 0), (7, "b", 2, 6), (7, "a", 1, 52)]);
    let other = Other::start([Act::Answer(answer)]).await;
    let link = RemoteMarkers::new(&peers(&[other.registered(2)], 2));
    let (commit, abort) = (marker(7, TransactionResult::Commit), marker(8, TransactionResult::Abort));
    let to = |topic, partition| TopicPartition::new(topic, partition);
    let asked = vec![(to("a", 1), commit), (to("a", 0), abort), (to("b", 2), commit), (to("a", 3), commit)];
    assert_eq!(link.write(OTHER, asked).await, Ok(vec![52, 0, 6, -1]));
    let came = other.came().remove(0);
    assert_eq!((came.header.key, came.header.version), (27, 1));
    let request: WriteTxnMarkersRequest = codec::decode_request(came.body, 1).expect("readable");
    let shown: Vec<_> = request
        .markers
        .iter()
        .map(|marker| {
            let topics = marker.topics.iter().map(|topic| (topic.name.as_str(), topic.partition_indexes.as_slice()));
            let head = (marker.producer_id.0, marker.producer_epoch, marker.coordinator_epoch);
            (head, marker.transaction_result, topics.collect::<Vec<_>>())
        })
        .collect();
    let (first, second) = (vec![("a", &[1, 3][..]), ("b", &[2])], vec![("a", &[0][..])]);
    assert_eq!(shown, [((7, 3, 5), true, first), ((8, 3, 5), false, second)]);
}

#[tokio::test]
async fn who_cannot_be_reached_gives_no_answer() {
    let other = Other::start([Act::Close, Act::Answer(written(&[(7, "a", 1, 0)]))]).await;
    let link = RemoteMarkers::new(&peers(&[other.registered(2)], 2));
    let asked = || vec![(TopicPartition::new("a", 1), marker(7, TransactionResult::Commit))];
    assert!(link.write(OTHER, asked()).await.is_err());
    assert_eq!(link.write(OTHER, asked()).await, Ok(vec![0]));
    let error = link.write(BrokerId(3), asked()).await.expect_err("there is no such broker");
    assert!(error.to_string().contains("not live"), "{error}");
}

fn transaction(id: &str, partitions: &[(&str, i32)]) -> PartitionsRequest {
    let partitions = partitions.iter().map(|&(topic, partition)| TopicPartition::new(topic, partition)).collect();
    PartitionsRequest { id: id.into(), producer: (ProducerId(7), ProducerEpoch(3)), partitions }
}

fn verified(error_code: i16, results: &[(&str, &str, i32, i16)]) -> Bytes {
    let result = |&(id, topic, partition, code): &(&str, &str, i32, i16)| {
        let partition = AddPartitionsToTxnPartitionResult::default()
            .with_partition_index(partition)
            .with_partition_error_code(code);
        let topic = AddPartitionsToTxnTopicResult::default().with_name(text(topic).into());
        let topic = topic.with_results_by_partition(vec![partition]);
        AddPartitionsToTxnResult::default().with_transactional_id(text(id).into()).with_topic_results(vec![topic])
    };
    let response = AddPartitionsToTxnResponse::default()
        .with_error_code(error_code)
        .with_results_by_transaction(results.iter().map(result).collect());
    codec::encode_response(&response, 4).expect("encodes")
}

#[tokio::test]
async fn transactions_are_verified_together_and_each_partition_has_its_code() {
    let answer = verified(0, &[("u", "a", 0, 16), ("t", "b", 2, 48), ("t", "a", 1, 0)]);
    let other = Other::start([Act::Answer(answer), Act::Answer(verified(31, &[]))]).await;
    let link = RemoteVerification::new(&peers(&[other.registered(2)], 2));
    let asked = || vec![transaction("t", &[("a", 1), ("b", 2), ("a", 3)]), transaction("u", &[("a", 0)])];
    // What the answer leaves out has none: NETWORK_EXCEPTION.
    assert_eq!(link.verify(OTHER, asked()).await, Ok(vec![vec![0, 48, 13], vec![16]]));
    assert_eq!(link.verify(OTHER, asked()).await, Ok(vec![vec![31; 3], vec![31]]));
    let came = other.came().remove(0);
    assert_eq!((came.header.key, came.header.version), (24, 4));
    let request: AddPartitionsToTxnRequest = codec::decode_request(came.body, 4).expect("readable");
    let shown: Vec<_> = request
        .transactions
        .iter()
        .map(|asked| {
            let topics = asked.topics.iter().map(|topic| (topic.name.as_str(), topic.partitions.as_slice()));
            (asked.transactional_id.as_str(), asked.producer_id.0, asked.producer_epoch, topics.collect::<Vec<_>>())
        })
        .collect();
    let (first, second) = (vec![("a", &[1, 3][..]), ("b", &[2])], vec![("a", &[0][..])]);
    assert_eq!(shown, [("t", 7, 3, first), ("u", 7, 3, second)]);
    assert!(request.transactions.iter().all(|asked| asked.verify_only));
}
