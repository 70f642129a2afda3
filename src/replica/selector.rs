//! Which replica a consumer reads from (KIP-392): a follower in its own rack, which has what it asks for.
//!
//! Source: Kafka 3.9 `ReplicaManager.findPreferredReadReplica`, `RackAwareReplicaSelector`.

use super::partition::Partition;
use crate::cluster::image::ClusterImage;
use crate::types::{BrokerId, Offset};

/// A follower in sync, as its leader knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Readable {
    pub(crate) id: BrokerId,
    pub(crate) log_end: Offset,
    /// When it was last level, by the monotonic clock; `None`: not yet under this leader epoch.
    pub(crate) last_caught_up_ms: Option<i64>,
}

/// The follower that a consumer in `rack`, at this offset, is to be sent to; `None`: it stays with the leader, because
/// that is in the rack, or no follower there is live, listens on the consumer's listener, is in sync and has the
/// offset. Only a leader sends a consumer elsewhere.
pub(crate) fn rack_aware(
    partition: &Partition,
    offset: Offset,
    rack: &str,
    image: &ClusterImage,
    listener: &str,
) -> Option<BrokerId> {
    let is_there = |id: BrokerId| {
        image.brokers.get(&id).is_some_and(|broker| {
            let listens = broker.endpoints.iter().any(|endpoint| endpoint.listener == listener);
            listens && broker.rack.as_deref() == Some(rack)
        })
    };
    if is_there(partition.me()) {
        return None;
    }
    most_caught_up(partition.readable_followers(offset).into_iter().filter(|follower| is_there(follower.id)))
}

/// The longest log, then whoever was level last, then the highest id. Source: Kafka 3.9 `ReplicaView.comparator`.
fn most_caught_up(followers: impl Iterator<Item = Readable>) -> Option<BrokerId> {
    let best = followers.max_by_key(|follower| (follower.log_end, follower.last_caught_up_ms, follower.id));
    best.map(|follower| follower.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_caught_up_is_the_longest_then_the_latest_then_the_highest() {
        let of = |followers: &[(i32, i64, Option<i64>)]| {
            let readable = |&(id, end, last_caught_up_ms): &(i32, i64, Option<i64>)| Readable {
                id: BrokerId(id),
                log_end: Offset(end),
                last_caught_up_ms,
            };
            most_caught_up(followers.iter().map(readable)).map(|id| id.0)
        };
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[(1, 5, Some(9)), (2, 6, None), (3, 4, Some(99))]), Some(2));
        assert_eq!(of(&[(1, 5, Some(9)), (2, 5, Some(10)), (3, 5, None)]), Some(2));
        assert_eq!(of(&[(2, 5, Some(9)), (3, 5, Some(9)), (1, 5, Some(9))]), Some(3));
    }
}
