//! WriteTxnMarkers (27), version 1: ends transactions in partitions that are led here.
//!
//! Behaviour
//! - Sent by transaction coordinators, and by Java's admin client to abort a transaction that hangs (with coordinator
//!   epoch −1, which only wins where no coordinator has ever written).
//! - Each partition has its own error: UNKNOWN_TOPIC_OR_PARTITION (3), NOT_LEADER_OR_FOLLOWER (6),
//!   INVALID_PRODUCER_EPOCH (47) and TRANSACTION_COORDINATOR_FENCED (52) if a newer one has written.
//! - Answers when the markers are replicated, and takes the connection's next request after that.
//!
//! Versions: 1 flexible; 0 is not in the codec. Ignored: nothing.
//! Source: Kafka 3.9 `KafkaApis.handleWriteTxnMarkersRequest`.

use std::ops::RangeInclusive;

use futures_util::stream::{self, StreamExt};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use crate::api::context::RequestContext;
use crate::api::error_code;
use crate::api::handler::{Handler, Reply};
use crate::coordinator::markers::MarkerError;
use crate::types::{
    PartitionIndex, ProducerEpoch, ProducerId, TopicName, TopicPartition, TransactionMarker, TransactionResult, limits,
};

pub(crate) struct WriteTxnMarkers;

impl Handler for WriteTxnMarkers {
    type Req = WriteTxnMarkersRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=1;
    const FRAME_BYTES_MAX: usize = limits::GROUP_FRAME_BYTES_MAX;

    async fn handle(ctx: RequestContext, req: WriteTxnMarkersRequest) -> Reply<WriteTxnMarkersResponse> {
        let mut results = Vec::with_capacity(req.markers.len());
        for marker in &req.markers {
            results.push(write(&ctx, marker).await);
        }
        Reply::Now(WriteTxnMarkersResponse::default().with_markers(results))
    }
}

async fn write(ctx: &RequestContext, asked: &WritableTxnMarker) -> WritableTxnMarkerResult {
    let marker = TransactionMarker {
        producer_id: ProducerId(asked.producer_id.0),
        producer_epoch: ProducerEpoch(asked.producer_epoch),
        coordinator_epoch: asked.coordinator_epoch,
        result: if asked.transaction_result { TransactionResult::Commit } else { TransactionResult::Abort },
    };
    let mut topics = Vec::with_capacity(asked.topics.len());
    for topic in &asked.topics {
        let name = TopicName::new(topic.name.as_str());
        let written = stream::iter(topic.partition_indexes.clone()).map(|index| {
            let to = TopicPartition { topic: name.clone(), partition: PartitionIndex(index) };
            async move {
                let code = match ctx.handles.markers.write(to.clone(), marker).await {
                    Ok(()) => 0,
                    Err(error) => code_of(ctx, &to, &error).code(),
                };
                WritableTxnMarkerPartitionResult::default().with_partition_index(index).with_error_code(code)
            }
        });
        let partitions = written.buffered(limits::REQUEST_MARKERS_IN_FLIGHT_MAX).collect().await;
        let result = WritableTxnMarkerTopicResult::default().with_name(topic.name.clone());
        topics.push(result.with_partitions(partitions));
    }
    WritableTxnMarkerResult::default().with_producer_id(asked.producer_id).with_topics(topics)
}

fn code_of(ctx: &RequestContext, to: &TopicPartition, error: &MarkerError) -> ResponseError {
    match error {
        MarkerError::NotLeader if ctx.image().partition(to.topic.as_str(), to.partition).is_none() => {
            ResponseError::UnknownTopicOrPartition
        }
        other => error_code::of_marker_error(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_encode() {
        let partition = WritableTxnMarkerPartitionResult::default().with_partition_index(3).with_error_code(52);
        let topic = WritableTxnMarkerTopicResult::default().with_partitions(vec![partition]);
        let marker = WritableTxnMarkerResult::default().with_topics(vec![topic]);
        let response = WriteTxnMarkersResponse::default().with_markers(vec![marker]);
        for version in WriteTxnMarkers::VERSIONS {
            crate::wire::codec::encode_response(&response, version).unwrap();
        }
    }
}
