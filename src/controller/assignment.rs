//! Replicas of a partition while they are reassigned (KIP-455). Pure.
//!
//! `replicas` holds the target first, in its order, then what is left of the origin. Source: Kafka 3.9
//! `ReplicaAssignment`.

use crate::cluster::znodes::partition_state::LeaderAndIsrNode;
use crate::types::BrokerId;

/// Everything about a partition's replicas that `/brokers/topics/T` says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Replicas {
    pub(super) all: Vec<BrokerId>,
    /// Part of `all`.
    pub(super) adding: Vec<BrokerId>,
    /// Part of `all`.
    pub(super) removing: Vec<BrokerId>,
}

impl Replicas {
    /// At rest.
    pub(super) fn settled(all: Vec<BrokerId>) -> Self {
        Self { all, adding: Vec::new(), removing: Vec::new() }
    }

    pub(super) fn is_moving(&self) -> bool {
        !self.adding.is_empty() || !self.removing.is_empty()
    }

    /// What it was before the reassignment.
    pub(super) fn origin(&self) -> Vec<BrokerId> {
        without(&self.all, &self.adding)
    }

    /// What it is to be.
    pub(super) fn target(&self) -> Vec<BrokerId> {
        without(&self.all, &self.removing)
    }

    /// On the way to another target, from the same origin.
    pub(super) fn reassigned_to(&self, target: &[BrokerId]) -> Self {
        let origin = self.origin();
        let mut all = target.to_vec();
        all.extend(without(&origin, target));
        Self { adding: without(&all, &origin), removing: without(&all, target), all }
    }

    /// Whether every replica of the target is in sync.
    pub(super) fn is_reached(&self, state: &LeaderAndIsrNode) -> bool {
        self.target().iter().all(|id| state.isr.contains(id))
    }
}

pub(super) fn without(ids: &[BrokerId], these: &[BrokerId]) -> Vec<BrokerId> {
    ids.iter().copied().filter(|id| !these.contains(id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[i32]) -> Vec<BrokerId> {
        ids.iter().copied().map(BrokerId).collect()
    }

    #[test]
    fn the_target_stands_first_and_the_origin_can_be_told() {
        let moving = Replicas::settled(ids(&[1, 2, 3])).reassigned_to(&ids(&[3, 4, 2]));
        assert_eq!(moving, Replicas { all: ids(&[3, 4, 2, 1]), adding: ids(&[4]), removing: ids(&[1]) });
        assert_eq!((moving.origin(), moving.target()), (ids(&[3, 2, 1]), ids(&[3, 4, 2])));
        let elsewhere = moving.reassigned_to(&ids(&[5, 2]));
        assert_eq!(elsewhere, Replicas { all: ids(&[5, 2, 3, 1]), adding: ids(&[5]), removing: ids(&[3, 1]) });
        let cancelled = moving.reassigned_to(&moving.origin());
        assert_eq!(cancelled, Replicas::settled(ids(&[3, 2, 1])), "the former order is not known any more");
    }

    #[test]
    fn a_new_order_alone_moves_nothing() {
        let turned = Replicas::settled(ids(&[1, 2])).reassigned_to(&ids(&[2, 1]));
        assert_eq!(turned, Replicas::settled(ids(&[2, 1])));
        assert!(!turned.is_moving());
    }
}
