//! FetchResponse, versions 4–18, as segments: records are sent from where they lie, and only what stands between them
//! is written (I-4). The same bytes as the crate's encoder, which would copy every record.
//!
//! Layout: throttle time i32, from 7 error i16 and session id i32, topics of (name, from 13 topic id, partitions). A
//! partition: index i32, error i16, high watermark i64, last stable offset i64, from 5 log start i64, aborted
//! transactions (nullable, of producer id and first offset i64), from 11 preferred replica i32, records. From 12
//! lengths are compact and every level ends with tagged fields: of a partition 0 diverging epoch and 1 current leader,
//! of the response, from 16, 0 node endpoints.

use bytes::{BufMut, BytesMut};

use super::segments::Segments;
use super::write::{put_compact, put_uvarint};
use crate::types::place::Place;
use crate::types::{BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerId, TopicId, TopicName};

/// A whole response. Fields that a version lacks are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FetchResponse {
    pub(crate) throttle_time_ms: i32,
    pub(crate) error_code: i16,
    /// 0: no session.
    pub(crate) session_id: i32,
    pub(crate) topics: Vec<FetchedTopic>,
    /// Addresses of the current leaders named in partitions (KIP-951).
    pub(crate) node_endpoints: Vec<NodeEndpoint>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchedTopic {
    pub(crate) topic: FetchedTopicRef,
    pub(crate) partitions: Vec<FetchedPartition>,
}

/// How the request named the topic: up to version 12 by name, then by id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum FetchedTopicRef {
    Name(TopicName),
    Id(TopicId),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchedPartition {
    pub(crate) index: PartitionIndex,
    pub(crate) error_code: i16,
    pub(crate) high_watermark: Offset,
    pub(crate) last_stable_offset: Offset,
    pub(crate) log_start_offset: Offset,
    /// `None` unless the fetch was read_committed.
    pub(crate) aborted_transactions: Option<Vec<AbortedTransaction>>,
    pub(crate) preferred_read_replica: BrokerId,
    /// Batches that follow each other. Empty is written as no bytes, never as null, which some clients do not expect.
    pub(crate) records: Vec<Place>,
    /// Where the reader's log parts from ours: the epoch and its end offset.
    pub(crate) diverging_epoch: Option<(LeaderEpoch, Offset)>,
    pub(crate) current_leader: Option<(BrokerId, LeaderEpoch)>,
}

impl FetchedPartition {
    /// A partition with an error code, 0 where there is none, and nothing else.
    pub(crate) fn failed(index: PartitionIndex, error_code: i16) -> Self {
        Self {
            index,
            error_code,
            high_watermark: Offset::NONE,
            last_stable_offset: Offset::NONE,
            log_start_offset: Offset::NONE,
            aborted_transactions: None,
            preferred_read_replica: BrokerId::NONE,
            records: Vec::new(),
            diverging_epoch: None,
            current_leader: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct AbortedTransaction {
    pub(crate) producer_id: ProducerId,
    pub(crate) first_offset: Offset,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeEndpoint {
    pub(crate) node_id: BrokerId,
    pub(crate) host: String,
    pub(crate) port: i32,
    pub(crate) rack: Option<String>,
}

/// Records shorter than this are copied: a slice of their own costs more than their bytes.
const COPY_BELOW_BYTES: usize = 512;
/// About what a partition takes beside its records.
const PARTITION_BYTES_USUAL: usize = 64;

/// Writes the response body in this version, one of 4–18.
pub(crate) fn encode(response: FetchResponse, version: i16) -> Segments {
    let partitions: usize = response.topics.iter().map(|topic| topic.partitions.len()).sum();
    let mut writer = Writer {
        segments: Segments::default(),
        head: BytesMut::with_capacity(64 + response.topics.len() * 32 + partitions * PARTITION_BYTES_USUAL),
        version,
    };
    writer.response(response);
    writer.cut();
    writer.segments
}

struct Writer {
    segments: Segments,
    /// What was written since the last segment.
    head: BytesMut,
    version: i16,
}

impl Writer {
    fn is_flexible(&self) -> bool {
        self.version >= 12
    }

    fn response(&mut self, response: FetchResponse) {
        self.head.put_i32(response.throttle_time_ms);
        if self.version >= 7 {
            self.head.put_i16(response.error_code);
            self.head.put_i32(response.session_id);
        }
        self.array_length(response.topics.len());
        for topic in response.topics {
            self.topic(topic);
        }
        if self.is_flexible() {
            if self.version >= 16 && !response.node_endpoints.is_empty() {
                self.node_endpoints(&response.node_endpoints);
            } else {
                self.head.put_u8(0);
            }
        }
    }

    fn topic(&mut self, topic: FetchedTopic) {
        match (&topic.topic, self.version) {
            (FetchedTopicRef::Id(id), 13..) => self.head.put_slice(id.0.as_bytes()),
            (FetchedTopicRef::Name(name), ..13) => self.string(name.as_str()),
            (FetchedTopicRef::Name(_), 13..) => self.head.put_slice(TopicId::ZERO.0.as_bytes()),
            (FetchedTopicRef::Id(_), ..13) => self.string(""),
        }
        self.array_length(topic.partitions.len());
        for partition in topic.partitions {
            self.partition(partition);
        }
        self.no_tags();
    }

    fn partition(&mut self, partition: FetchedPartition) {
        self.head.put_i32(partition.index.0);
        self.head.put_i16(partition.error_code);
        self.head.put_i64(partition.high_watermark.0);
        self.head.put_i64(partition.last_stable_offset.0);
        if self.version >= 5 {
            self.head.put_i64(partition.log_start_offset.0);
        }
        match &partition.aborted_transactions {
            None if self.is_flexible() => self.head.put_u8(0),
            None => self.head.put_i32(-1),
            Some(aborted) => {
                self.array_length(aborted.len());
                for aborted in aborted {
                    self.head.put_i64(aborted.producer_id.0);
                    self.head.put_i64(aborted.first_offset.0);
                    self.no_tags();
                }
            }
        }
        if self.version >= 11 {
            self.head.put_i32(partition.preferred_read_replica.0);
        }
        self.records(partition.records);
        if self.is_flexible() {
            self.partition_tags(partition.diverging_epoch, partition.current_leader);
        }
    }

    fn partition_tags(&mut self, diverging: Option<(LeaderEpoch, Offset)>, leader: Option<(BrokerId, LeaderEpoch)>) {
        self.head.put_u8(u8::from(diverging.is_some()) + u8::from(leader.is_some()));
        if let Some((epoch, end_offset)) = diverging {
            self.head.put_slice(&[0, 4 + 8 + 1]);
            self.head.put_i32(epoch.0);
            self.head.put_i64(end_offset.0);
            self.head.put_u8(0);
        }
        if let Some((leader, epoch)) = leader {
            self.head.put_slice(&[1, 4 + 4 + 1]);
            self.head.put_i32(leader.0);
            self.head.put_i32(epoch.0);
            self.head.put_u8(0);
        }
    }

    fn node_endpoints(&mut self, endpoints: &[NodeEndpoint]) {
        let mut value = BytesMut::new();
        put_uvarint(&mut value, endpoints.len() + 1);
        for endpoint in endpoints {
            value.put_i32(endpoint.node_id.0);
            put_compact(&mut value, Some(&endpoint.host));
            value.put_i32(endpoint.port);
            put_compact(&mut value, endpoint.rack.as_deref());
            value.put_u8(0);
        }
        self.head.put_slice(&[1, 0]);
        put_uvarint(&mut self.head, value.len());
        self.head.put_slice(&value);
    }

    fn records(&mut self, records: Vec<Place>) {
        let bytes: usize = records.iter().map(Place::len).sum();
        self.bytes_length(bytes);
        for piece in records {
            match piece {
                Place::Memory(bytes) if bytes.len() < COPY_BELOW_BYTES => self.head.put_slice(&bytes),
                lent => {
                    self.cut();
                    self.segments.push(lent);
                }
            }
        }
    }

    /// Ends the running segment.
    fn cut(&mut self) {
        self.segments.push(self.head.split().freeze().into());
    }

    fn array_length(&mut self, count: usize) {
        self.bytes_length(count);
    }

    fn bytes_length(&mut self, length: usize) {
        if self.is_flexible() {
            put_uvarint(&mut self.head, length + 1);
        } else {
            self.head.put_i32(length as i32);
        }
    }

    fn string(&mut self, text: &str) {
        if self.is_flexible() {
            put_compact(&mut self.head, Some(text));
        } else {
            self.head.put_i16(text.len() as i16);
            self.head.put_slice(text.as_bytes());
        }
    }

    fn no_tags(&mut self) {
        if self.is_flexible() {
            self.head.put_u8(0);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use bytes::Bytes;
    use kafka_protocol::messages::FetchResponse as CrateResponse;
    use kafka_protocol::messages::fetch_response as theirs;
    use kafka_protocol::protocol::{Encodable, StrBytes};
    use uuid::Uuid;

    use super::*;
    use crate::types::place::joined;

    pub(in crate::wire) fn in_memory(place: &Place) -> &Bytes {
        let Place::Memory(bytes) = place else { panic!("not in memory: {place:?}") };
        bytes
    }

    fn text(text: &str) -> StrBytes {
        StrBytes::from_string(text.to_owned())
    }

    fn partition(index: i32, records: &[usize]) -> FetchedPartition {
        FetchedPartition {
            high_watermark: Offset(100 + i64::from(index)),
            last_stable_offset: Offset(90),
            log_start_offset: Offset(10),
            records: records.iter().map(|&length| Bytes::from(vec![index as u8; length]).into()).collect(),
            ..FetchedPartition::failed(PartitionIndex(index), 0)
        }
    }

    pub(in crate::wire) fn full(version: i16) -> FetchResponse {
        let aborted = AbortedTransaction { producer_id: ProducerId(4), first_offset: Offset(55) };
        let later = version >= 12;
        let topic = |name, id, partitions| FetchedTopic {
            topic: match version {
                13.. => FetchedTopicRef::Id(TopicId(Uuid::from_u128(id))),
                _ => FetchedTopicRef::Name(TopicName::new(name)),
            },
            partitions,
        };
        let endpoint = |id: i32, rack: Option<&str>| NodeEndpoint {
            node_id: BrokerId(id),
            host: format!("broker-{id}.example"),
            port: 9092,
            rack: rack.map(str::to_owned),
        };
        FetchResponse {
            throttle_time_ms: 7,
            error_code: if version >= 7 { 70 } else { 0 },
            session_id: if version >= 7 { 1234 } else { 0 },
            topics: vec![
                topic(
                    "first",
                    1,
                    vec![
                        partition(0, &[]),
                        partition(1, &[0, 10, 511]),
                        FetchedPartition {
                            aborted_transactions: Some(vec![aborted, aborted]),
                            ..partition(2, &[512, 70_000, 3])
                        },
                        FetchedPartition {
                            error_code: 6,
                            aborted_transactions: Some(vec![]),
                            preferred_read_replica: BrokerId(if version >= 11 { 3 } else { -1 }),
                            diverging_epoch: later.then_some((LeaderEpoch(5), Offset(77))),
                            current_leader: later.then_some((BrokerId(2), LeaderEpoch(6))),
                            ..partition(3, &[])
                        },
                    ],
                ),
                topic("none", 2, vec![]),
                topic("second", 3, vec![FetchedPartition::failed(PartitionIndex(9), 100), partition(200, &[600, 600])]),
            ],
            node_endpoints: if version >= 16 { vec![endpoint(2, Some("r")), endpoint(300, None)] } else { vec![] },
        }
    }

    pub(in crate::wire) fn by_the_crate(response: &FetchResponse, version: i16) -> Bytes {
        let partition = |p: &FetchedPartition| {
            let mut partition = theirs::PartitionData::default()
                .with_partition_index(p.index.0)
                .with_error_code(p.error_code)
                .with_high_watermark(p.high_watermark.0)
                .with_last_stable_offset(p.last_stable_offset.0)
                .with_log_start_offset(p.log_start_offset.0)
                .with_preferred_read_replica(p.preferred_read_replica.0.into())
                .with_records(Some(Bytes::from(joined(&p.records))))
                .with_aborted_transactions(p.aborted_transactions.as_ref().map(|aborted| {
                    let one = |aborted: &AbortedTransaction| {
                        theirs::AbortedTransaction::default()
                            .with_producer_id(aborted.producer_id.0.into())
                            .with_first_offset(aborted.first_offset.0)
                    };
                    aborted.iter().map(one).collect()
                }));
            if let Some((epoch, end)) = p.diverging_epoch {
                partition.diverging_epoch =
                    theirs::EpochEndOffset::default().with_epoch(epoch.0).with_end_offset(end.0);
            }
            if let Some((leader, epoch)) = p.current_leader {
                partition.current_leader =
                    theirs::LeaderIdAndEpoch::default().with_leader_id(leader.0.into()).with_leader_epoch(epoch.0);
            }
            partition
        };
        let topic = |topic: &FetchedTopic| {
            let sent = theirs::FetchableTopicResponse::default()
                .with_partitions(topic.partitions.iter().map(partition).collect());
            match &topic.topic {
                FetchedTopicRef::Name(name) => sent.with_topic(text(name.as_str()).into()),
                FetchedTopicRef::Id(id) => sent.with_topic_id(id.0),
            }
        };
        let endpoint = |endpoint: &NodeEndpoint| {
            theirs::NodeEndpoint::default()
                .with_node_id(endpoint.node_id.0.into())
                .with_host(text(&endpoint.host))
                .with_port(endpoint.port)
                .with_rack(endpoint.rack.as_deref().map(text))
        };
        let mut body = BytesMut::new();
        CrateResponse::default()
            .with_throttle_time_ms(response.throttle_time_ms)
            .with_error_code(response.error_code)
            .with_session_id(response.session_id)
            .with_responses(response.topics.iter().map(topic).collect())
            .with_node_endpoints(response.node_endpoints.iter().map(endpoint).collect())
            .encode(&mut body, version)
            .expect("it encodes");
        body.freeze()
    }

    #[test]
    fn every_version_is_byte_for_byte_the_crates() {
        for version in 4..=18 {
            for response in [full(version), FetchResponse::default()] {
                let segments = encode(response.clone(), version);
                let bytes = segments.len();
                let parts = segments.into_parts();
                let ours = joined(&parts);
                assert_eq!(ours.len(), bytes);
                assert_eq!(ours, by_the_crate(&response, version), "version {version}");
            }
        }
    }

    #[test]
    fn large_records_are_lent_and_small_ones_copied() {
        let response = full(12);
        let lent: Vec<*const u8> = response
            .topics
            .iter()
            .flat_map(|topic| &topic.partitions)
            .flat_map(|partition| &partition.records)
            .filter(|piece| piece.len() >= COPY_BELOW_BYTES)
            .map(|piece| in_memory(piece).as_ptr())
            .collect();
        let parts = encode(response, 12).into_parts();
        let found = lent.iter().filter(|&&place| parts.iter().any(|part| in_memory(part).as_ptr() == place)).count();
        assert_eq!((lent.len(), found), (4, 4));
        assert_eq!(parts.len(), 7, "four pieces, and what stands around and between them");
    }
}
