//! What whoever watches the broker is told of all its replicas together.

use std::sync::Arc;

use super::manager::{Hosted, ReplicaManager};
use super::partition::Partition;
use crate::metrics::TrafficCounts;

/// All replicas of this broker at one moment.
#[derive(Debug)]
pub(crate) struct ReplicaFigures {
    /// By topic and partition.
    pub(crate) open: Vec<Arc<Partition>>,
    /// How many there are whose logs could not be opened.
    pub(crate) offline: usize,
    /// What replicas counted that were closed since the start, and what belongs to none.
    pub(crate) before: TrafficCounts,
}

impl ReplicaManager {
    /// One look at the registry: a replica that is closed counts in `open` or in `before`, never in both or neither,
    /// so that sums do not go back.
    pub(crate) fn figures(&self) -> ReplicaFigures {
        let partitions = self.partitions.read();
        let (mut open, mut offline) = (Vec::new(), 0);
        for hosted in partitions.values().flat_map(|topic| topic.values()) {
            match hosted {
                Hosted::Online(replica) => open.push(Arc::clone(replica)),
                Hosted::Offline(_) => offline += 1,
                Hosted::Leaving(_) => {}
            }
        }
        let before = *self.closed_traffic.lock();
        drop(partitions);
        open.sort_unstable_by(|a, b| (&a.id.topic, a.id.partition).cmp(&(&b.id.topic, b.id.partition)));
        ReplicaFigures { open, offline, before }
    }
}

#[cfg(test)]
mod tests {
    use crate::metrics::TrafficCounts;
    use crate::replica::testing;
    use crate::types::LeaderEpoch;

    #[test]
    fn a_replica_counts_what_is_appended_and_tells_its_size() {
        let (replica, _) = testing::led(LeaderEpoch(1));
        assert_eq!(replica.traffic.counts(), TrafficCounts::default());
        let before = replica.figures();
        assert!(before.leading && before.size_bytes == 0 && before.segments == 1);
        testing::append(&replica, 3);
        let (counts, figures) = (replica.traffic.counts(), replica.figures());
        assert_eq!((counts.messages_in, counts.bytes_in), (3, figures.size_bytes));
        assert_eq!((figures.log_end_offset.0, figures.replicas, figures.in_sync, figures.min_in_sync), (3, 1, 1, 1));
    }
}
