//! Transaction coordinator → leaders of partitions: WriteTxnMarkers 1 over connections.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kafka_protocol::messages::write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
use kafka_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};
use kafka_protocol::protocol::StrBytes;

use super::Peers;
use super::codes::code;
use super::to_brokers::ToBrokers;
use crate::coordinator::peer_links::{MarkerLink, NoAnswer};
use crate::types::{BrokerId, TopicPartition, TransactionMarker, TransactionResult};

/// 1 is flexible; brokers from 2.8 on take it.
const VERSION: i16 = 1;

/// The brokers that lead partitions.
#[derive(Debug)]
pub(crate) struct RemoteMarkers {
    leaders: ToBrokers,
}

impl RemoteMarkers {
    pub(crate) fn new(peers: &Peers) -> Arc<Self> {
        Arc::new(Self { leaders: ToBrokers::new(peers, "txn-marker-sender") })
    }

    async fn send(
        &self,
        leader: BrokerId,
        markers: Vec<(TopicPartition, TransactionMarker)>,
    ) -> Result<Vec<i16>, NoAnswer> {
        let answer = self.leaders.call(leader, &of_markers(&markers), VERSION).await?;
        Ok(codes(&markers, &answer))
    }
}

impl MarkerLink for RemoteMarkers {
    fn write(
        &self,
        leader: BrokerId,
        markers: Vec<(TopicPartition, TransactionMarker)>,
    ) -> BoxFuture<'_, Result<Vec<i16>, NoAnswer>> {
        self.send(leader, markers).boxed()
    }
}

/// A transaction has its marker once, with all of its partitions there.
fn of_markers(markers: &[(TopicPartition, TransactionMarker)]) -> WriteTxnMarkersRequest {
    let mut places: HashMap<&TransactionMarker, usize> = HashMap::new();
    let mut grouped: Vec<(&TransactionMarker, BTreeMap<&str, Vec<i32>>)> = Vec::new();
    for (to, marker) in markers {
        let place = *places.entry(marker).or_insert_with(|| {
            grouped.push((marker, BTreeMap::new()));
            grouped.len() - 1
        });
        grouped[place].1.entry(to.topic.as_str()).or_default().push(to.partition.0);
    }
    let topic = |(name, partitions): (&str, Vec<i32>)| {
        WritableTxnMarkerTopic::default()
            .with_name(StrBytes::from_string(name.to_owned()).into())
            .with_partition_indexes(partitions)
    };
    let marker = |(marker, topics): (&TransactionMarker, BTreeMap<&str, Vec<i32>>)| {
        WritableTxnMarker::default()
            .with_producer_id(marker.producer_id.0.into())
            .with_producer_epoch(marker.producer_epoch.0)
            .with_transaction_result(marker.result == TransactionResult::Commit)
            .with_coordinator_epoch(marker.coordinator_epoch)
            .with_topics(topics.into_iter().map(topic).collect())
    };
    WriteTxnMarkersRequest::default().with_markers(grouped.into_iter().map(marker).collect())
}

/// The code of each marker, in order: an answer tells producers apart, and their partitions, in any order.
fn codes(markers: &[(TopicPartition, TransactionMarker)], answer: &WriteTxnMarkersResponse) -> Vec<i16> {
    let mut known: HashMap<(i64, &str, i32), i16> = HashMap::new();
    for of_producer in &answer.markers {
        for topic in &of_producer.topics {
            for partition in &topic.partitions {
                let key = (of_producer.producer_id.0, topic.name.as_str(), partition.partition_index);
                known.insert(key, partition.error_code);
            }
        }
    }
    let code_of = |(to, marker): &(TopicPartition, TransactionMarker)| {
        let key = (marker.producer_id.0, to.topic.as_str(), to.partition.0);
        known.get(&key).copied().unwrap_or(code::UNKNOWN_SERVER_ERROR)
    };
    markers.iter().map(code_of).collect()
}
