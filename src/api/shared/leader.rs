//! The replica that a request is about, if this broker leads it.

use std::sync::Arc;

use kafka_protocol::ResponseError;

use crate::api::context::RequestContext;
use crate::replica::partition::Partition;
use crate::replica::view::PartitionView;
use crate::types::PartitionIndex;

/// A client that does not know the leader epoch.
pub(in crate::api) const ANY_EPOCH: i32 = -1;

/// The replica, if this broker leads it under the epoch the client knows ([`ANY_EPOCH`]: any).
pub(in crate::api) fn leader_of(
    ctx: &RequestContext,
    topic: &str,
    partition: i32,
    epoch: i32,
) -> Result<Arc<Partition>, ResponseError> {
    let replica = find(ctx, topic, partition)?;
    check(&replica.view(), epoch)?;
    Ok(replica)
}

/// The replica, whether it leads or follows, under the epoch the client knows ([`ANY_EPOCH`]: any).
pub(in crate::api) fn replica_of(
    ctx: &RequestContext,
    topic: &str,
    partition: i32,
    epoch: i32,
) -> Result<Arc<Partition>, ResponseError> {
    let replica = find(ctx, topic, partition)?;
    check_epoch(&replica.view(), epoch)?;
    Ok(replica)
}

fn find(ctx: &RequestContext, topic: &str, partition: i32) -> Result<Arc<Partition>, ResponseError> {
    let index = PartitionIndex(partition);
    let replica = ctx.handles.replicas.get(topic, index).ok_or_else(|| ctx.without_replica(topic, index))?;
    // Its log directory has failed, and another replica may lead by now.
    if replica.view().offline { Err(ResponseError::KafkaStorageError) } else { Ok(replica) }
}

/// Whether this broker leads the replica, under the epoch the client knows. The epoch comes first: a client that is
/// ahead or behind must learn that, and not that it asked the wrong broker.
/// Source: Kafka 3.9 `Partition.checkCurrentLeaderEpoch`, `Partition.localLogWithEpochOrThrow`.
pub(in crate::api) fn check(view: &PartitionView, epoch: i32) -> Result<(), ResponseError> {
    check_epoch(view, epoch)?;
    if view.leading { Ok(()) } else { Err(ResponseError::NotLeaderOrFollower) }
}

/// As [`check`], whether it leads or follows.
pub(in crate::api) fn check_epoch(view: &PartitionView, epoch: i32) -> Result<(), ResponseError> {
    let current = view.leader_epoch.0;
    if epoch < 0 || epoch == current {
        return Ok(());
    }
    Err(if epoch < current { ResponseError::FencedLeaderEpoch } else { ResponseError::UnknownLeaderEpoch })
}
