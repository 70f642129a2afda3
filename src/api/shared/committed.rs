//! What OffsetCommit and TxnOffsetCommit share: the offsets of a request, and the answer for each.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;

use crate::api::context::RequestContext;
use crate::cluster::image::TopicImage;
use crate::coordinator::group::request::CommittedOffset;
use crate::types::acl::{Operation, ResourceType};
use crate::types::{LeaderEpoch, Offset, PartitionIndex};

/// What a request says of a partition: index, offset, leader epoch, metadata.
pub(in crate::api) type Requested<'r> = (i32, i64, i32, Option<&'r str>);

/// One entry per partition of a request, in order: what is to be committed, or why it is not, since the request may not
/// read the topic or the partition does not exist.
pub(in crate::api) fn known_offsets<'r, P>(
    ctx: &RequestContext,
    topics: impl Iterator<Item = (&'r str, P)> + Clone,
) -> Vec<Result<CommittedOffset, ResponseError>>
where
    P: Iterator<Item = Requested<'r>>,
{
    let image = ctx.image();
    let refused = ctx.refused(Operation::Read, ResourceType::Topic, topics.clone().map(|(name, _)| name));
    let mut offsets = Vec::new();
    for (name, partitions) in topics {
        let known = match refused.contains(name) {
            true => Err(ResponseError::TopicAuthorizationFailed),
            false => image.topic(name).map(Arc::as_ref).ok_or(ResponseError::UnknownTopicOrPartition),
        };
        offsets.extend(partitions.map(|requested| known_offset(known, requested)));
    }
    offsets
}

fn known_offset(
    topic: Result<&TopicImage, ResponseError>,
    (partition, offset, leader_epoch, metadata): Requested<'_>,
) -> Result<CommittedOffset, ResponseError> {
    let (topic, partition) = (topic?, PartitionIndex(partition));
    if !topic.partitions.contains_key(&partition) {
        return Err(ResponseError::UnknownTopicOrPartition);
    }
    Ok(CommittedOffset {
        topic: topic.name.clone(),
        partition,
        offset: Offset(offset),
        leader_epoch: LeaderEpoch(leader_epoch),
        metadata: metadata.map(Into::into),
    })
}

/// The topics of an answer, in the order of the request. `known`: why a partition was not asked for, if it was not;
/// `error_of` answers for the others, by their number among them. `partition` and `topic` make the parts of the answer.
pub(in crate::api) fn answers<'r, I, P, T>(
    topics: impl Iterator<Item = (&'r TopicName, I)>,
    known: &[Option<ResponseError>],
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
fn codes(
    known: &[Option<ResponseError>],
    error_of: impl Fn(usize) -> Option<ResponseError>,
) -> impl Iterator<Item = i16> {
    let mut committed = 0..;
    known.iter().map(move |refused| match refused {
        None => committed.next().and_then(&error_of).map_or(0, |error| error.code()),
        Some(error) => error.code(),
    })
}
