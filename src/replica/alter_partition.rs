//! Changes of in-sync replicas on their way to the controller (AlterPartition), and the periodic looks that find them.
//!
//! One task sends: all that is waiting goes in one request, one request at a time, and what has no answer yet goes
//! again, for ever, since the partition reckons with both outcomes until it knows. A change that its partition no
//! longer waits for is dropped before it is sent.
//! Source: Kafka 3.9 `DefaultAlterPartitionManager`; `ReplicaManager`'s `isr-expiration`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{info, warn};

use super::manager::ReplicaManager;
use super::partition::IsrChange;
use crate::cluster::control::{AlterPartition, IsrLink, IsrResults};
use crate::cluster::registration::SharedBrokerEpoch;
use crate::task;
use crate::types::{BrokerId, PartitionIndex, TopicId};

/// Pause before what was not answered, or not for good, is sent again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// How often followers are looked at that are level and do not fetch anew.
const EXPANSION_LOOKS: Duration = Duration::from_secs(1);

/// Changes that wait for their answers, one per partition.
#[derive(Debug, Default)]
pub(crate) struct IsrChanges {
    waiting: Mutex<BTreeMap<(TopicId, PartitionIndex), IsrChange>>,
    wake: Notify,
}

impl IsrChanges {
    /// Has a change sent. It replaces one of the same partition, which that no longer waits for.
    pub(crate) fn submit(&self, change: IsrChange) {
        self.waiting.lock().insert((change.proposal.topic_id, change.proposal.partition), change);
        self.wake.notify_one();
    }

    /// What is to be sent now.
    fn due(&self) -> Vec<IsrChange> {
        let mut waiting = self.waiting.lock();
        waiting.retain(|_, change| change.partition.awaits(change.number));
        waiting.values().cloned().collect()
    }

    /// A change has its answer; a later one of the same partition stays.
    fn answered(&self, change: &IsrChange) {
        let key = (change.proposal.topic_id, change.proposal.partition);
        let mut waiting = self.waiting.lock();
        if waiting.get(&key).is_some_and(|waits| waits.number == change.number) {
            waiting.remove(&key);
        }
    }
}

/// Starts the task that sends `changes`, and the looks for lagging and for level followers. They end with the runtime.
pub(crate) fn start(
    replicas: Arc<ReplicaManager>,
    changes: Arc<IsrChanges>,
    link: Arc<dyn IsrLink>,
    epoch: SharedBrokerEpoch,
) {
    let sender = Sender { me: replicas.me, changes: Arc::clone(&changes), link, epoch };
    task::spawn_owner("ISR changes", sender.run());
    let (level, found) = (Arc::clone(&replicas), Arc::clone(&changes));
    task::spawn_owner("ISR expansion", async move {
        loop {
            tokio::time::sleep(EXPANSION_LOOKS).await;
            expand_all(&level, &found);
        }
    });
    // Kafka looks at half the lag, so that none is in sync for longer than one and a half.
    let pause = (replicas.surroundings.lag_max / 2).max(Duration::from_millis(1));
    task::spawn_owner("ISR expiration", async move {
        loop {
            tokio::time::sleep(pause).await;
            shrink_all(&replicas, &changes);
        }
    });
}

/// Proposes followers that are level.
pub(crate) fn expand_all(replicas: &ReplicaManager, changes: &IsrChanges) {
    let found = replicas.all().into_iter().filter_map(|partition| partition.propose_expansion());
    found.for_each(|change| changes.submit(change));
}

/// Proposes to do without those that lag.
pub(crate) fn shrink_all(replicas: &ReplicaManager, changes: &IsrChanges) {
    let found = replicas.all().into_iter().filter_map(|partition| partition.propose_shrinking());
    found.for_each(|change| changes.submit(change));
}

#[derive(Debug)]
struct Sender {
    me: BrokerId,
    changes: Arc<IsrChanges>,
    link: Arc<dyn IsrLink>,
    epoch: SharedBrokerEpoch,
}

impl Sender {
    async fn run(self) {
        let mut refused = false;
        loop {
            self.changes.wake.notified().await;
            loop {
                let due = self.changes.due();
                if due.is_empty() {
                    break;
                }
                let again = match self.link.alter_partition(self.request(&due)).await {
                    Ok(results) => {
                        if std::mem::take(&mut refused) {
                            info!("the controller takes changes of the ISR again");
                        }
                        self.take(&due, &results)
                    }
                    Err(error) => {
                        // One line for as long as it lasts.
                        if !std::mem::replace(&mut refused, true) {
                            warn!(%error, changes = due.len(), "changes of the ISR wait for the controller");
                        }
                        true
                    }
                };
                if again {
                    tokio::time::sleep(AGAIN_AFTER).await;
                }
            }
        }
    }

    fn request(&self, due: &[IsrChange]) -> AlterPartition {
        let broker_epoch = self.epoch.get();
        let proposals = due.iter().map(|change| {
            let mut proposal = change.proposal.clone();
            let mine = proposal.isr.iter_mut().filter(|(id, _)| *id == self.me);
            mine.for_each(|(_, epoch)| *epoch = broker_epoch);
            proposal
        });
        AlterPartition { broker: self.me, broker_epoch, partitions: proposals.collect() }
    }

    /// Hands each partition its answer. True: some are to be sent again.
    fn take(&self, sent: &[IsrChange], results: &IsrResults) -> bool {
        let mut again = false;
        let results: BTreeMap<_, _> =
            results.iter().map(|(topic, partition, result)| ((*topic, *partition), result)).collect();
        for change in sent {
            match results.get(&(change.proposal.topic_id, change.proposal.partition)) {
                Some(answer) if !change.partition.on_isr_answer(change.number, answer) => self.changes.answered(change),
                // To be sent again, or left out of the answer.
                Some(_) | None => again = true,
            }
        }
        again
    }
}
