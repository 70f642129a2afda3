//! WriteTxnMarkers (27), version 1: ends transactions in partitions that are led here.
//!
//! Behaviour
//! - Sent by transaction coordinators, and by Java's admin client to abort a transaction that hangs (with coordinator
//!   epoch −1, which only wins where no coordinator has ever written).
//! - Needs ALTER or CLUSTER_ACTION on the cluster: CLUSTER_AUTHORIZATION_FAILED (31) for every partition.
//! - Each partition has its own error: UNKNOWN_TOPIC_OR_PARTITION (3), NOT_LEADER_OR_FOLLOWER (6),
//!   INVALID_PRODUCER_EPOCH (47) and TRANSACTION_COORDINATOR_FENCED (52) if a newer one has written.
//! - Answers when the markers are replicated, or after 10 s: what followers do not have then is REQUEST_TIMED_OUT (7),
//!   which coordinators repeat, so that one partition does not hold up the others of its request. A marker that comes
//!   twice ends nothing. Takes the connection's next request after that.
//!
//! Versions: 1 flexible; 0 is not in the codec. Ignored: nothing.
//! Source: Kafka 3.9 `KafkaApis.handleWriteTxnMarkersRequest`.

use std::ops::RangeInclusive;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use tokio::time::{Instant, timeout_at};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code;
use crate::api::handler::{Handler, Reply};
use crate::cluster::image::ClusterImage;
use crate::coordinator::markers::{MarkerError, Markers};
use crate::types::acl::{Operation, ResourceType};
use crate::types::{
    PartitionIndex, ProducerEpoch, ProducerId, TopicName, TopicPartition, TransactionMarker, TransactionResult, limits,
};

/// How long the markers of a request may take together: well within what its sender waits. Source: ours; Kafka gives
/// them `request.timeout.ms`, after which the sender has gone.
const PATIENCE: Duration = Duration::from_secs(10);

pub(crate) struct WriteTxnMarkers;

impl Handler for WriteTxnMarkers {
    type Req = WriteTxnMarkersRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=1;
    const AUTHORIZATION: Authorization = Authorization::Of(&[
        (Operation::Alter, ResourceType::Cluster),
        (Operation::ClusterAction, ResourceType::Cluster),
    ]);
    const FRAME_BYTES_MAX: usize = limits::GROUP_FRAME_BYTES_MAX;

    async fn handle(ctx: RequestContext, req: WriteTxnMarkersRequest) -> Reply<WriteTxnMarkersResponse> {
        if !ctx.may_perhaps_on_cluster(Operation::Alter) && !ctx.may_on_cluster(Operation::ClusterAction) {
            let refused = ResponseError::ClusterAuthorizationFailed.code();
            return Reply::Now(answered(&req, std::iter::repeat(refused)));
        }
        let written = write(&*ctx.handles.markers, asked(&req)).await;
        let image = ctx.image();
        let codes = written.into_iter().map(|(to, outcome)| code_of(&image, &to, outcome));
        Reply::Now(answered(&req, codes))
    }
}

type Outcome = Result<(), MarkerError>;

/// Begins all markers in their order, and does not wait for one to begin another. `None`: not replicated in time.
async fn write(
    markers: &dyn Markers,
    asked: impl Iterator<Item = (TopicPartition, TransactionMarker)>,
) -> Vec<(TopicPartition, Option<Outcome>)> {
    let deadline = Instant::now() + PATIENCE;
    let write = |(at, (to, marker)): (usize, (TopicPartition, TransactionMarker))| async move {
        let written = timeout_at(deadline, markers.write(to.clone(), marker)).await;
        (at, to, written.ok())
    };
    let begun = stream::iter(asked.enumerate()).map(write);
    let mut written: Vec<_> = begun.buffer_unordered(limits::REQUEST_MARKERS_IN_FLIGHT_MAX).collect().await;
    written.sort_unstable_by_key(|(at, ..)| *at);
    written.into_iter().map(|(_, to, outcome)| (to, outcome)).collect()
}

/// The markers of a request, one for each partition, in order.
fn asked(req: &WriteTxnMarkersRequest) -> impl Iterator<Item = (TopicPartition, TransactionMarker)> {
    req.markers.iter().flat_map(|asked| {
        let marker = marker(asked);
        asked.topics.iter().flat_map(move |topic| {
            let name = TopicName::new(topic.name.as_str());
            let to = move |&index| TopicPartition { topic: name.clone(), partition: PartitionIndex(index) };
            topic.partition_indexes.iter().map(to).map(move |to| (to, marker))
        })
    })
}

fn marker(asked: &WritableTxnMarker) -> TransactionMarker {
    TransactionMarker {
        producer_id: ProducerId(asked.producer_id.0),
        producer_epoch: ProducerEpoch(asked.producer_epoch),
        coordinator_epoch: asked.coordinator_epoch,
        result: if asked.transaction_result { TransactionResult::Commit } else { TransactionResult::Abort },
    }
}

/// `codes`: of the partitions asked, in order.
fn answered(req: &WriteTxnMarkersRequest, mut codes: impl Iterator<Item = i16>) -> WriteTxnMarkersResponse {
    let mut partition = |&index: &i32| {
        let code = codes.next().expect("one for each partition asked");
        WritableTxnMarkerPartitionResult::default().with_partition_index(index).with_error_code(code)
    };
    let mut results = Vec::with_capacity(req.markers.len());
    for asked in &req.markers {
        let mut topics = Vec::with_capacity(asked.topics.len());
        for topic in &asked.topics {
            let result = WritableTxnMarkerTopicResult::default().with_name(topic.name.clone());
            topics.push(result.with_partitions(topic.partition_indexes.iter().map(&mut partition).collect()));
        }
        results.push(WritableTxnMarkerResult::default().with_producer_id(asked.producer_id).with_topics(topics));
    }
    WriteTxnMarkersResponse::default().with_markers(results)
}

fn code_of(image: &ClusterImage, to: &TopicPartition, outcome: Option<Outcome>) -> i16 {
    match outcome {
        None => ResponseError::RequestTimedOut.code(),
        Some(Ok(())) => 0,
        Some(Err(MarkerError::NotLeader)) if image.partition(to.topic.as_str(), to.partition).is_none() => {
            ResponseError::UnknownTopicOrPartition.code()
        }
        Some(Err(error)) => error_code::of_marker_error(&error).code(),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use futures_util::future::{BoxFuture, pending, ready};
    use kafka_protocol::messages::write_txn_markers_request::WritableTxnMarkerTopic;
    use tokio::time::sleep;

    use super::*;
    use crate::api::shared::strings::text;

    /// Partition 1 of each topic has a follower that does not fetch, partition 2 another leader.
    #[derive(Debug)]
    struct Leader;

    impl Markers for Leader {
        fn write(&self, to: TopicPartition, _: TransactionMarker) -> BoxFuture<'static, Outcome> {
            match to.partition.0 {
                1 => pending().boxed(),
                2 => ready(Err(MarkerError::NotLeader)).boxed(),
                _ => sleep(Duration::from_millis(5)).map(Ok).boxed(),
            }
        }
    }

    fn request() -> WriteTxnMarkersRequest {
        let topic = |name: &str, partitions: &[i32]| {
            WritableTxnMarkerTopic::default().with_name(text(name).into()).with_partition_indexes(partitions.to_vec())
        };
        let many: Vec<i32> = (10..5000).collect();
        let first = vec![topic("a", &[1, 2, 3]), topic("b", &many)];
        let markers = [(7, first), (8, vec![topic("a", &[3, 1])])];
        let marker = |(id, topics): (i64, Vec<WritableTxnMarkerTopic>)| {
            WritableTxnMarker::default().with_producer_id(id.into()).with_topics(topics)
        };
        WriteTxnMarkersRequest::default().with_markers(markers.map(marker).to_vec())
    }

    #[tokio::test(start_paused = true)]
    async fn one_partition_does_not_hold_up_the_others_of_a_request() {
        let (req, started) = (request(), Instant::now());
        let written = write(&Leader, asked(&req)).await;
        assert_eq!(started.elapsed(), PATIENCE);
        let codes = written.into_iter().map(|(to, outcome)| code_of(&ClusterImage::default(), &to, outcome));
        let response = answered(&req, codes);
        let shown = |at: usize, topic: usize| {
            let partitions = &response.markers[at].topics[topic].partitions;
            partitions.iter().map(|result| (result.partition_index, result.error_code)).collect::<Vec<_>>()
        };
        assert_eq!(response.markers.iter().map(|result| result.producer_id.0).collect::<Vec<_>>(), [7, 8]);
        assert_eq!(shown(0, 0), [(1, 7), (2, 3), (3, 0)]);
        assert_eq!(shown(1, 0), [(3, 0), (1, 7)]);
        assert!(shown(0, 1).iter().all(|(_, code)| *code == 0) && shown(0, 1).len() == 4990);
        crate::wire::codec::encode_response(&response, 1).expect("encodes");
    }
}
