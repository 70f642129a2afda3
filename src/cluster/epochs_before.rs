//! Which leader epochs partitions had before a process registered.
//!
//! A log that may have lost its end must not lead under an epoch in which it may have been longer (rule B2 of the
//! design). Whatever a broker led under before its start is in the tree by then, so every epoch above that is new.
//! Without knowing it the first epoch that is offered has to be refused, and a controller in Java takes a refusal for a
//! failed directory. Ours; Kafka 3.9 leads on.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::znodes::{partition_state, topics};
use crate::coordination::{Coordination, CoordinationError, ensure_path};
use crate::types::{LeaderEpoch, TopicPartition};

/// Reads under way at once.
const AT_ONCE: usize = 64;

/// The epochs of those of `partitions` that the tree has a state of. One that cannot be read is left out.
///
/// # Errors
/// The tree cannot be reached.
pub(crate) async fn read(
    store: &dyn Coordination,
    partitions: Vec<TopicPartition>,
) -> Result<Vec<(TopicPartition, LeaderEpoch)>, CoordinationError> {
    // A server that lags would tell of earlier epochs. A write, also one of what is there, goes through ZooKeeper's
    // leader, and what this client reads afterwards is not older.
    ensure_path(store, topics::TOPICS).await?;
    let asked = partitions.into_iter().map(|partition| async move {
        let path = partition_state::path(partition.topic.as_str(), partition.partition);
        let data = store.get(&path).await?;
        let state = data.and_then(|(data, _)| partition_state::decode(&path, &data).ok());
        Ok(state.map(|state| (partition, state.leader_epoch)))
    });
    let found: Vec<_> = stream::iter(asked).buffered(AT_ONCE).try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}
