//! What OffsetCommit and TxnOffsetCommit share: the offsets of a request, and the code of each.

use kafka_protocol::ResponseError;

use crate::cluster::image::TopicImage;
use crate::coordinator::group::request::CommittedOffset;
use crate::types::{LeaderEpoch, Offset, PartitionIndex};

/// An offset to commit; `None`: its partition does not exist.
pub(super) fn known_offset(
    topic: Option<&TopicImage>,
    partition: i32,
    offset: i64,
    leader_epoch: i32,
    metadata: Option<&str>,
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

/// The code of each partition of a request, in order. `known`: which exist; `error_of` answers for those, by their
/// number among them.
pub(super) fn codes(known: &[bool], error_of: impl Fn(usize) -> Option<ResponseError>) -> impl Iterator<Item = i16> {
    let mut committed = 0..;
    known.iter().map(move |&known| match known {
        true => committed.next().and_then(&error_of).map_or(0, |error| error.code()),
        false => ResponseError::UnknownTopicOrPartition.code(),
    })
}
