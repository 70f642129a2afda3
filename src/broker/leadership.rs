//! What hears of leadership: the coordinator of the internal topic it concerns.

use std::sync::Arc;

use crate::coordinator::group::GroupCoordinator;
use crate::coordinator::transaction::TransactionCoordinator;
use crate::replica::control::LeadershipListener;
use crate::task;
use crate::types::topic::{CONSUMER_OFFSETS, TRANSACTION_STATE};
use crate::types::{LeaderEpoch, PartitionIndex, TopicName};

/// Passes leadership of internal partitions on to the coordinators.
#[derive(Debug)]
pub(super) struct Leadership {
    pub(super) groups: Arc<GroupCoordinator>,
    pub(super) transactions: Arc<TransactionCoordinator>,
}

impl LeadershipListener for Leadership {
    fn on_leading(&self, topic: &TopicName, partition: PartitionIndex, epoch: LeaderEpoch) {
        match topic.as_str() {
            CONSUMER_OFFSETS => self.groups.on_elected(partition, epoch),
            TRANSACTION_STATE => self.transactions.on_elected(partition, epoch),
            _ => {}
        }
    }

    fn on_resigned(&self, topic: &TopicName, partition: PartitionIndex) {
        match topic.as_str() {
            CONSUMER_OFFSETS => self.groups.on_resigned(partition),
            TRANSACTION_STATE => self.transactions.on_resigned(partition),
            _ => {}
        }
    }

    fn on_topics_deleted(&self, topics: &[TopicName]) {
        let (groups, topics) = (Arc::clone(&self.groups), topics.to_vec());
        task::spawn(async move { groups.on_topics_deleted(&topics).await });
    }
}
