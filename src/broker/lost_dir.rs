//! Refuses a start whose log directory was lost (B3).
//!
//! A broker that leads a partition, or alone is in sync with it, and comes back with a directory that has never been a
//! broker's would lead on with nothing, and the other replicas would cut what they have. So the start ends if such a
//! directory may be the place of what is missing. Ours; Kafka 3.9 goes on and loses the data. What the tree says is
//! read only where a directory is new.

use std::collections::BTreeSet;

use super::dirs::Dirs;
use super::refused::{StartError, failed};
use crate::cluster::znodes::{partition_state, topics};
use crate::coordination::{Coordination, CoordinationError};
use crate::types::{BrokerId, PartitionIndex, TopicPartition};

/// # Errors
/// A directory is new, and no directory has a partition that depends on this broker; or the tree cannot be read.
pub(super) async fn refuse(dirs: &Dirs, store: &dyn Coordination, me: BrokerId) -> Result<(), StartError> {
    let Some(new) = dirs.first_new() else { return Ok(()) };
    let here: BTreeSet<_> = dirs.partitions().map_err(failed)?.into_iter().collect();
    let names = match store.children(topics::TOPICS).await {
        Ok(names) => names,
        Err(CoordinationError::NoNode(_)) => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let (mut count, mut first) = (0_usize, None);
    for topic in names {
        let Some((data, _)) = store.get(&topics::path(&topic)).await.map_err(failed)? else { continue };
        // One that cannot be read is left alone by the controller as well.
        let Ok(node) = topics::decode(&topic, &data) else { continue };
        let mine = node.partitions.iter().filter(|(_, replicas)| replicas.contains(&me)).map(|(index, _)| *index);
        for partition in mine {
            let name = TopicPartition::new(topic.as_str(), partition.0);
            if !here.contains(&name) && depends_on(store, &topic, partition, me).await? {
                count += 1;
                first.get_or_insert(name);
            }
        }
    }
    let Some(first) = first else { return Ok(()) };
    Err(StartError(format!(
        "The log directory {} is new, and none of log.dirs has {count} partitions that this broker leads or alone is in \
         sync with, {first} among them. The directory is lost or not mounted. klamm.allow.empty.log.dir=true starts \
         without them; what other brokers have of them is lost then as well.",
        new.display()
    )))
}

/// Whether the broker leads it, or alone is in sync.
async fn depends_on(
    store: &dyn Coordination,
    topic: &str,
    partition: PartitionIndex,
    me: BrokerId,
) -> Result<bool, StartError> {
    let path = partition_state::path(topic, partition);
    let Some((data, _)) = store.get(&path).await.map_err(failed)? else { return Ok(false) };
    let state = partition_state::decode(&path, &data);
    Ok(state.is_ok_and(|state| state.leader == Some(me) || state.isr == [me]))
}
