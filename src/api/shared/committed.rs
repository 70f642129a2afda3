//! What OffsetCommit and TxnOffsetCommit share: the offsets of a request, and the answer for each.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;

use crate::cluster::image::{ClusterImage, TopicImage};
use crate::coordinator::group::request::CommittedOffset;
use crate::types::{LeaderEpoch, Offset, PartitionIndex};

/// What a request says of a partition: index, offset, leader epoch, metadata.
pub(in crate::api) type Requested<'r> = (i32, i64, i32, Option<&'r str>);

/// One entry per partition of a request, in order; `None` for a partition that does not exist.
pub(in crate::api) fn known_offsets<'r, P>(
    image: &ClusterImage,
    topics: impl Iterator<Item = (&'r str, P)>,
) -> Vec<Option<CommittedOffset>>
where
    P: Iterator<Item = Requested<'r>>,
{
    let mut offsets = Vec::new();
    for (name, partitions) in topics {
        let known = image.topic(name).map(Arc::as_ref);
        offsets.extend(partitions.map(|requested| known_offset(known, requested)));
    }
    offsets
}

fn known_offset(
    topic: Option<&TopicImage>,
    (partition, offset, leader_epoch, metadata): Requested<'_>,
) -> Option<CommittedOffset> {
    let partition = PartitionIndex(partition);
    let topic = topic.filter(|topic| topic.partitions.contains_key(&partition))?;
    Some(CommittedOffset {
        topic: topic.name.clone(),
        partition,
        offset: Offset(offset),
        leader_epoch: LeaderEpoch(leader_epoch),
        metadata: metadata.map(Into::into),
    })
}

/// The topics of an answer, in the order of the request. `known`: which of its partitions exist; `error_of` answers for
/// those, by their number among them. `partition` and `topic` make the parts of the answer.
pub(in crate::api) fn answers<'r, I, P, T>(
    topics: impl Iterator<Item = (&'r TopicName, I)>,
    known: &[bool],
    error_of: impl Fn(usize) -> Option<ResponseError>,
    partition: impl Fn(i32, i16) -> P,
    topic: impl Fn(TopicName, Vec<P>) -> T,
) -> Vec<T>
where
    I: Iterator<Item = i32>,
{
    let mut codes = codes(known, error_of);
    let mut answered = |index| partition(index, codes.next().expect("one for each partition"));
    topics.map(|(name, indexes)| topic(name.clone(), indexes.map(&mut answered).collect())).collect()
}

/// The code of each partition, in order.
fn codes(known: &[bool], error_of: impl Fn(usize) -> Option<ResponseError>) -> impl Iterator<Item = i16> {
    let mut committed = 0..;
    known.iter().map(move |&known| match known {
        true => committed.next().and_then(&error_of).map_or(0, |error| error.code()),
        false => ResponseError::UnknownTopicOrPartition.code(),
    })
}
