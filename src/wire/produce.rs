//! ProduceRequest, versions 3–13, straight from the frame: the one large request, and the hot one.
//!
//! Every partition's records are split off the frame without copying and are uniquely owned, so the log can stamp them
//! in place. Knows no rule about what a batch may hold; see `record::validate`.
//!
//! Layout: transactional id (nullable), acks i16, timeout i32, topics of (name, from version 13 topic id, partitions of
//! (index i32, records nullable)). From version 9 lengths are compact and every level ends with tagged fields.

use bytes::BytesMut;
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::read::{Malformed, Reader};
use crate::types::limits;

/// What one request wants to append.
#[derive(Debug)]
pub(crate) struct ProduceRequest {
    pub(crate) transactional_id: Option<StrBytes>,
    /// As sent: −1, 0 and 1 are legal, the handler refuses others.
    pub(crate) acks: i16,
    pub(crate) timeout_ms: i32,
    pub(crate) topics: Vec<ProduceTopic>,
}

#[derive(Debug)]
pub(crate) struct ProduceTopic {
    pub(crate) topic: TopicRef,
    pub(crate) partitions: Vec<ProducePartition>,
}

/// How a request names a topic: up to version 12 by name, then by id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TopicRef {
    Name(StrBytes),
    Id(Uuid),
}

#[derive(Debug)]
pub(crate) struct ProducePartition {
    pub(crate) index: i32,
    /// `None` when the client sent null.
    pub(crate) records: Option<BytesMut>,
}

/// First version with compact lengths and tagged fields.
const FLEXIBLE_FROM: i16 = 9;
/// First version with topic ids.
const TOPIC_IDS_FROM: i16 = 13;

/// Decodes the body (everything after the request header). The version is one of 3–13. What follows it is ignored, as
/// by Kafka.
pub(crate) fn decode(body: BytesMut, version: i16) -> Result<ProduceRequest, Malformed> {
    let flexible = version >= FLEXIBLE_FROM;
    let mut reader = Reader::new(body, flexible);
    let transactional_id = reader.nullable_string()?;
    let acks = reader.i16()?;
    let timeout_ms = reader.i32()?;
    let topic_bytes_min = match version {
        TOPIC_IDS_FROM.. => 18,
        FLEXIBLE_FROM.. => 3,
        _ => 6,
    };
    let count = bounded(reader.count(topic_bytes_min)?, limits::PRODUCE_TOPICS_MAX)?;
    let mut topics = Vec::with_capacity(count);
    let mut partitions_left = limits::PRODUCE_PARTITIONS_MAX;
    for _ in 0..count {
        topics.push(topic(&mut reader, version, &mut partitions_left)?);
    }
    reader.skip_tags()?;
    Ok(ProduceRequest { transactional_id, acks, timeout_ms, topics })
}

fn topic(reader: &mut Reader, version: i16, partitions_left: &mut usize) -> Result<ProduceTopic, Malformed> {
    let topic = if version >= TOPIC_IDS_FROM {
        TopicRef::Id(Uuid::from_bytes(reader.array()?))
    } else {
        TopicRef::Name(reader.nullable_string()?.ok_or(Malformed("null topic name"))?)
    };
    let partition_bytes_min = if version >= FLEXIBLE_FROM { 6 } else { 8 };
    let count = bounded(reader.count(partition_bytes_min)?, *partitions_left)?;
    *partitions_left -= count;
    let mut partitions = Vec::with_capacity(count);
    for _ in 0..count {
        let index = reader.i32()?;
        let records = reader.nullable_bytes()?;
        reader.skip_tags()?;
        partitions.push(ProducePartition { index, records });
    }
    reader.skip_tags()?;
    Ok(ProduceTopic { topic, partitions })
}

fn bounded(count: usize, max: usize) -> Result<usize, Malformed> {
    if count <= max { Ok(count) } else { Err(Malformed("more topics or partitions than one request may name")) }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::messages::ProduceRequest as CrateRequest;
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    use kafka_protocol::protocol::Encodable;

    use super::*;

    fn full(version: i16) -> CrateRequest {
        let partition = |index, records: Option<&'static [u8]>| {
            PartitionProduceData::default().with_index(index).with_records(records.map(Bytes::from_static))
        };
        let topic = |name: &'static str, id, partitions| {
            let topic = TopicProduceData::default().with_partition_data(partitions);
            match version {
                TOPIC_IDS_FROM.. => topic.with_topic_id(Uuid::from_u128(id)),
                _ => topic.with_name(StrBytes::from_static_str(name).into()),
            }
        };
        CrateRequest::default()
            .with_transactional_id(Some(StrBytes::from_static_str("tx").into()))
            .with_acks(-1)
            .with_timeout_ms(1500)
            .with_topic_data(vec![
                topic("first", 1, vec![partition(0, Some(b"some records")), partition(7, None)]),
                topic("second", 2, vec![partition(3, Some(b"")), partition(4, Some(&[9; 300]))]),
                topic("none", 3, vec![]),
            ])
    }

    fn encoded(request: &CrateRequest, version: i16) -> BytesMut {
        let mut body = BytesMut::new();
        request.encode(&mut body, version).expect("it encodes");
        body
    }

    #[test]
    fn every_version_of_the_crates_encoder_is_read() {
        for version in 3..=13 {
            let sent = full(version);
            let read = decode(encoded(&sent, version), version).expect("it decodes");
            assert_eq!(read.transactional_id.as_deref(), Some("tx"));
            assert_eq!((read.acks, read.timeout_ms), (-1, 1500));
            assert_eq!(read.topics.len(), sent.topic_data.len());
            for (read, sent) in read.topics.iter().zip(&sent.topic_data) {
                let topic = match version {
                    TOPIC_IDS_FROM.. => TopicRef::Id(sent.topic_id),
                    _ => TopicRef::Name(sent.name.0.clone()),
                };
                assert_eq!(read.topic, topic, "version {version}");
                assert_eq!(read.partitions.len(), sent.partition_data.len());
                for (read, sent) in read.partitions.iter().zip(&sent.partition_data) {
                    assert_eq!(read.index, sent.index);
                    assert_eq!(read.records.as_deref(), sent.records.as_deref());
                }
            }
        }
    }

    #[test]
    fn unknown_tagged_fields_are_skipped() {
        let mut sent = full(9).with_unknown_tagged_field(7, Bytes::from_static(b"later"));
        sent.topic_data[0].unknown_tagged_fields.insert(1, Bytes::from_static(b"x"));
        sent.topic_data[0].partition_data[0].unknown_tagged_fields.insert(2, Bytes::new());
        assert_eq!(decode(encoded(&sent, 9), 9).expect("it decodes").topics.len(), 3);
    }

    #[test]
    fn records_stay_in_the_frame_and_are_writable() {
        let body = encoded(&full(9), 9);
        let frame = body.as_ptr() as usize..body.as_ptr() as usize + body.len();
        let mut read = decode(body, 9).expect("it decodes");
        let mut first = read.topics[0].partitions[0].records.take().expect("records");
        assert!(frame.contains(&(first.as_ptr() as usize)));
        first[0] = b'S';
        assert_eq!(&first[..], b"Some records");
        assert_eq!(read.topics[1].partitions[1].records.as_deref(), Some([9; 300].as_slice()));
    }

    #[test]
    fn every_truncation_is_malformed_and_what_follows_is_ignored() {
        for version in 3..=13 {
            let body = encoded(&full(version), version);
            for cut in 0..body.len() {
                assert!(decode(BytesMut::from(&body[..cut]), version).is_err(), "version {version} cut at {cut}");
            }
            let mut longer = body.clone();
            longer.extend_from_slice(&[0]);
            assert!(decode(longer, version).is_ok(), "as Kafka does");
        }
    }

    /// CVE-2026-111108.
    #[test]
    fn absurd_counts_are_refused_before_anything_is_reserved() {
        let head = [0xff, 0xff, 0, 1, 0, 0, 0, 0];
        for count in [[0x7f, 0xff, 0xff, 0xff], [0xff, 0xff, 0xff, 0xfe], [0xff; 4], [0, 0, 0, 9]] {
            let body: Vec<u8> = head.iter().chain(&count).chain(&[0; 40]).copied().collect();
            assert!(decode(BytesMut::from(&body[..]), 3).is_err(), "{count:?}");
        }
        let many = limits::PRODUCE_TOPICS_MAX + 1;
        let mut body = head.to_vec();
        body.extend_from_slice(&(many as u32).to_be_bytes());
        body.resize(body.len() + many * 6, 0);
        assert_eq!(
            decode(BytesMut::from(&body[..]), 3).expect_err("too many"),
            Malformed("more topics or partitions than one request may name")
        );
    }
}
