//! FetchResponse from its frame, versions 12–17, as followers read it: records stay in the frame (I-4).
//!
//! The layout stands in [`super::fetch`]. What no follower needs is skipped: node endpoints, snapshot ids. A client of
//! untrusted answers is bounded by the frame: every count is checked against the bytes that are there (I-21).

use bytes::BytesMut;

use super::fetch::{AbortedTransaction, FetchResponse, FetchedPartition, FetchedTopic, FetchedTopicRef};
use super::read::{Malformed, Reader};
use crate::types::{BrokerId, LeaderEpoch, Offset, PartitionIndex, ProducerId, TopicId, TopicName};

/// First version with topic ids.
const TOPIC_IDS_FROM: i16 = 13;
/// What a partition takes at least: numbers, three lengths and the end of its tagged fields.
const PARTITION_BYTES_MIN: usize = 37;
const TAG_DIVERGING_EPOCH: u32 = 0;
const TAG_CURRENT_LEADER: u32 = 1;

/// Decodes a body. The version is one of 12–17.
///
/// # Errors
/// The body does not hold what it must.
pub(crate) fn decode(body: BytesMut, version: i16) -> Result<FetchResponse, Malformed> {
    let mut reader = Reader::new(body, true);
    let throttle_time_ms = reader.i32()?;
    let (error_code, session_id) = (reader.i16()?, reader.i32()?);
    let topic_bytes_min = if version >= TOPIC_IDS_FROM { 18 } else { 3 };
    let count = reader.count(topic_bytes_min)?;
    let mut topics = Vec::with_capacity(count);
    for _ in 0..count {
        topics.push(topic(&mut reader, version)?);
    }
    reader.skip_tags()?;
    Ok(FetchResponse { throttle_time_ms, error_code, session_id, topics, node_endpoints: Vec::new() })
}

fn topic(reader: &mut Reader, version: i16) -> Result<FetchedTopic, Malformed> {
    let topic = if version >= TOPIC_IDS_FROM {
        FetchedTopicRef::Id(TopicId(uuid::Uuid::from_bytes(reader.array()?)))
    } else {
        FetchedTopicRef::Name(TopicName::new(&reader.string()?))
    };
    let count = reader.count(PARTITION_BYTES_MIN)?;
    let mut partitions = Vec::with_capacity(count);
    for _ in 0..count {
        partitions.push(partition(reader)?);
    }
    reader.skip_tags()?;
    Ok(FetchedTopic { topic, partitions })
}

fn partition(reader: &mut Reader) -> Result<FetchedPartition, Malformed> {
    let mut partition = FetchedPartition {
        index: PartitionIndex(reader.i32()?),
        error_code: reader.i16()?,
        high_watermark: Offset(reader.i64()?),
        last_stable_offset: Offset(reader.i64()?),
        log_start_offset: Offset(reader.i64()?),
        aborted_transactions: aborted(reader)?,
        preferred_read_replica: BrokerId(reader.i32()?),
        // Kafka writes null for no records in answers of its own errors.
        records: reader
            .nullable_bytes()?
            .filter(|records| !records.is_empty())
            .map(|records| records.freeze().into())
            .into_iter()
            .collect(),
        diverging_epoch: None,
        current_leader: None,
    };
    reader.tags(|tag, value| {
        match tag {
            TAG_DIVERGING_EPOCH => {
                let (epoch, end) = (LeaderEpoch(value.i32()?), Offset(value.i64()?));
                partition.diverging_epoch = (epoch != LeaderEpoch::NONE).then_some((epoch, end));
            }
            TAG_CURRENT_LEADER => {
                let (leader, epoch) = (BrokerId(value.i32()?), LeaderEpoch(value.i32()?));
                partition.current_leader = (leader != BrokerId::NONE).then_some((leader, epoch));
            }
            _ => {}
        }
        Ok(())
    })?;
    Ok(partition)
}

fn aborted(reader: &mut Reader) -> Result<Option<Vec<AbortedTransaction>>, Malformed> {
    let Some(count) = reader.nullable_count(17)? else { return Ok(None) };
    let mut aborted = Vec::with_capacity(count);
    for _ in 0..count {
        aborted
            .push(AbortedTransaction { producer_id: ProducerId(reader.i64()?), first_offset: Offset(reader.i64()?) });
        reader.skip_tags()?;
    }
    Ok(Some(aborted))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::types::place::joined;
    use crate::wire::fetch::tests::{by_the_crate, full, in_memory};

    fn read_from(bytes: &[u8], version: i16) -> Result<FetchResponse, Malformed> {
        decode(BytesMut::from(bytes), version)
    }

    /// As it comes back: one piece of records, no endpoints.
    fn read_back(mut sent: FetchResponse) -> FetchResponse {
        sent.node_endpoints = Vec::new();
        for partition in sent.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            let records = joined(&partition.records);
            partition.records = if records.is_empty() { vec![] } else { vec![Bytes::from(records).into()] };
        }
        sent
    }

    #[test]
    fn every_version_of_the_crates_encoder_is_read() {
        for version in 12..=17 {
            for sent in [full(version), FetchResponse::default()] {
                let body = by_the_crate(&sent, version);
                assert_eq!(read_from(&body, version), Ok(read_back(sent)), "version {version}");
            }
        }
    }

    /// A follower that is caught up gets many partitions of the least size at once.
    #[test]
    fn many_partitions_without_records_are_read() {
        for version in 12..=17 {
            let mut sent = full(version);
            sent.topics.truncate(1);
            let nothing = |index| FetchedPartition::failed(PartitionIndex(index), 0);
            sent.topics[0].partitions = (0..50).map(nothing).collect();
            let body = by_the_crate(&sent, version);
            assert_eq!(read_from(&body, version), Ok(read_back(sent)), "version {version}");
        }
    }

    #[test]
    fn records_stay_in_the_frame() {
        let body = BytesMut::from(&by_the_crate(&full(17), 17)[..]);
        let frame = body.as_ptr() as usize..body.as_ptr() as usize + body.len();
        let read = decode(body, 17).expect("it decodes");
        let pieces: Vec<&Bytes> =
            read.topics.iter().flat_map(|topic| &topic.partitions).flat_map(|p| &p.records).map(in_memory).collect();
        assert!(pieces.len() >= 3 && pieces.iter().all(|piece| frame.contains(&(piece.as_ptr() as usize))));
    }

    #[test]
    fn every_truncation_is_malformed_and_garbage_is_no_panic() {
        for version in [12, 17] {
            let mut small = full(version);
            for partition in small.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                partition.records.truncate(1);
                partition
                    .records
                    .iter_mut()
                    .for_each(|records| *records = in_memory(records).slice(..20.min(records.len())).into());
            }
            let body = by_the_crate(&small, version);
            for cut in 0..body.len() {
                assert!(read_from(&body[..cut], version).is_err(), "version {version} cut at {cut}");
                for value in [0, 1, 0x7f, 0x80, 0xff] {
                    let mut garbage = body.to_vec();
                    garbage[cut] = value;
                    drop(read_from(&garbage, version));
                }
            }
        }
    }

    #[test]
    fn absurd_counts_are_refused_before_anything_is_reserved() {
        for count in [&[0xff, 0xff, 0xff, 0x7f][..], &[0xff, 0xff, 0xff, 0xff, 0x0f], &[0x40]] {
            let body: Vec<u8> = [0; 10].iter().chain(count).chain(&[0; 80]).copied().collect();
            assert!(read_from(&body, 17).is_err(), "{count:?}");
        }
    }
}
