//! Partitions that move to other replicas (KIP-455).
//!
//! What is under way stands in `/brokers/topics/T` alone: the replicas, those to be added, those to be removed. So each
//! step follows from the tree and the ISR, and the next controller goes on where this one stopped.
//! - Begin: the replicas are written, those of an earlier target that nobody wants any more are deleted.
//! - While the target is not in sync: the leader epoch rises, and all replicas hear of each other.
//! - Once it is: the others leave the ISR and the leadership, are deleted, and the target alone is written.
//!
//! Source: Kafka 3.9 `KafkaController.onPartitionReassignment`. There the leader moves first and the ISR shrinks in a
//! second write; here both are one.

use std::collections::{BTreeMap, BTreeSet};

use tracing::{info, warn};

use super::asked::{Moving, ReassignmentRefused, ReassignmentResults, Wishes};
use super::assignment::{Replicas, without};
use super::context::Led;
use super::election;
use super::event::Event;
use super::fence::Interrupted;
use super::partitions::Cause;
use super::queue::ControlRequest;
use super::term::Term;
use crate::cluster::control::{StopPartition, StopReplica};
use crate::cluster::znodes::{NODE_BYTES_MAX, admin, topics};
use crate::coordination::{CoordinationError, Op};
use crate::types::{BrokerEpoch, BrokerId, PartitionIndex, TopicName, TopicPartition};

impl Term {
    /// Begins the reassignments, or takes them back. What `/admin/reassign_partitions` says of these partitions is
    /// overruled, and leaves it.
    pub(super) async fn reassign(
        &mut self,
        wishes: Wishes,
        factor_may_change: bool,
    ) -> Result<ReassignmentResults, Interrupted> {
        let mut results = Vec::with_capacity(wishes.len());
        let mut accepted = BTreeMap::new();
        for (name, target) in wishes {
            match self.plan(&name, target.as_deref(), factor_may_change) {
                Ok(replicas) => {
                    accepted.insert(name, replicas);
                }
                Err(refused) => results.push((name, Err(refused))),
            }
        }
        self.remove_wishes(|name, _| accepted.contains_key(name)).await?;
        results.extend(self.begin(accepted).await?);
        Ok(results)
    }

    pub(super) fn reassignments(&self, of: Option<&BTreeSet<TopicPartition>>) -> Vec<Moving> {
        let wanted = |name: &TopicPartition| of.is_none_or(|names| names.contains(name));
        let moving = self.context.partitions().filter(|(name, found)| found.replicas.is_moving() && wanted(name));
        moving
            .map(|(partition, found)| {
                let Replicas { all: replicas, adding, removing } = found.replicas.clone();
                Moving { partition, replicas, adding, removing }
            })
            .collect()
    }

    /// What a partition's replicas become. Source: Kafka 3.9 `KafkaController.validateReplicas`,
    /// `maybeBuildReassignment`; the replication factor as `ReplicationControlManager` of 4.1.
    fn plan(
        &self,
        name: &TopicPartition,
        target: Option<&[BrokerId]>,
        factor_may_change: bool,
    ) -> Result<Replicas, ReassignmentRefused> {
        let current = self.context.partition(name).map(|found| &found.replicas);
        let Some(target) = target else {
            let moving = current.filter(|replicas| replicas.is_moving());
            let back = moving.map(|replicas| replicas.reassigned_to(&replicas.origin()));
            let back = back.ok_or(ReassignmentRefused::NotInProgress)?;
            self.check_kept(name, &back, "revert")?;
            return Ok(back);
        };
        check_target(target)?;
        let none = Replicas::default();
        let next = current.unwrap_or(&none).reassigned_to(target);
        let live = |id: &BrokerId| self.context.may_be_in_sync(*id, BrokerEpoch::NONE);
        if !next.adding.iter().all(live) {
            return Err(ReassignmentRefused::InvalidReplicas(format!(
                "Replica assignment has brokers that are not alive. Replica list: {}, live broker list: {}",
                scala("ArrayBuffer", &next.adding),
                scala("Set", &self.context.brokers.keys().copied().filter(live).collect::<Vec<_>>()),
            )));
        }
        let current = current.filter(|_| !self.context.is_being_deleted(&name.topic));
        let current = current.ok_or(ReassignmentRefused::UnknownPartition)?;
        let (from, to) = (current.target().len(), target.len());
        if from != to && !factor_may_change {
            return Err(ReassignmentRefused::FactorChanged { from, to });
        }
        self.check_kept(name, &next, "change")?;
        Ok(next)
    }

    /// Replicas that only an earlier target wanted are deleted at once. Refused if nobody else could lead with all that
    /// was acknowledged. Source: Kafka 4.1 `ReplicationControlManager.cancelPartitionReassignment`; Kafka 3.9 on
    /// ZooKeeper deletes them.
    fn check_kept(&self, name: &TopicPartition, next: &Replicas, verb: &str) -> Result<(), ReassignmentRefused> {
        let Some(found) = self.context.partition(name) else { return Ok(()) };
        let Some(Led { node, .. }) = &found.state else { return Ok(()) };
        let dropped = without(&found.replicas.all, &next.all);
        if dropped.is_empty() {
            return Ok(());
        }
        let in_sync = next.all.iter().any(|id| node.isr.contains(id));
        let leads_on = node.leader.is_none_or(|leader| !dropped.contains(&leader));
        let another = || election::on_reduced(node, &next.all, |id| self.context.is_eligible(id, name)).is_some();
        if in_sync && (leads_on || another()) {
            return Ok(());
        }
        let TopicPartition { topic, partition } = name;
        Err(ReassignmentRefused::InvalidReplicas(format!(
            "Unable to {verb} partition assignment for {topic}:{partition} because it would require an unclean leader \
             election."
        )))
    }

    /// Writes the new replicas, deletes those that an earlier target wanted and this one does not, and goes on.
    async fn begin(&mut self, wanted: BTreeMap<TopicPartition, Replicas>) -> Result<ReassignmentResults, Interrupted> {
        let changed: BTreeMap<_, _> = wanted
            .iter()
            .filter(|(name, next)| self.context.partition(name).is_some_and(|found| found.replicas != **next))
            .map(|(name, next)| (name.clone(), next.clone()))
            .collect();
        let failures = self.write_replicas(&changed).await?;
        let mut results = Vec::with_capacity(wanted.len());
        let (mut begun, mut unneeded) = (Vec::new(), Vec::new());
        for (name, next) in wanted {
            if let Some(failure) = failures.get(&name.topic).filter(|_| changed.contains_key(&name)) {
                results.push((name, Err(failure.clone())));
                continue;
            }
            let Some(found) = self.context.partition_mut(&name) else { continue };
            let dropped = without(&found.replicas.all, &next.all);
            if found.replicas != next {
                info!(topic = %name.topic, partition = %name.partition, from = ?found.replicas.all,
                    to = ?next.target(), "reassigned");
            }
            found.replicas = next;
            if !dropped.is_empty() {
                unneeded.push((name.clone(), dropped));
            }
            results.push((name.clone(), Ok(())));
            begun.push(name);
        }
        let names = unneeded.iter().map(|(name, _)| name.clone()).collect();
        let reduced = self.settle_for(Cause::Reduced, names).await?;
        self.announce(&reduced, false);
        self.delete_replicas(unneeded);
        self.go_on_moving(begun).await?;
        Ok(results)
    }

    /// Completes those whose target is in sync. To the others it says once more who is to follow whom.
    async fn go_on_moving(&mut self, names: Vec<TopicPartition>) -> Result<(), Interrupted> {
        let (reached, open): (Vec<_>, Vec<_>) = names.into_iter().partition(|name| self.is_reached(name));
        let extended = self.settle_for(Cause::Extended, open).await?;
        self.announce_extended(&extended);
        self.complete(reached).await
    }

    /// The target is in sync, and one of it can lead. What never had a leader, or only another order, has nothing to
    /// move.
    fn is_reached(&self, name: &TopicPartition) -> bool {
        let Some(partition) = self.context.partition(name) else { return false };
        let Some(led) = partition.state.as_ref().filter(|_| partition.replicas.is_moving()) else { return true };
        let target = partition.replicas.target();
        partition.replicas.is_reached(&led.node) && target.iter().any(|id| self.context.is_eligible(*id, name))
    }

    /// Replicas that are added may be made anew; the others must be there.
    fn announce_extended(&self, names: &[TopicPartition]) {
        let is_added = |id: BrokerId, name: &TopicPartition| {
            self.context.partition(name).is_some_and(|found| found.replicas.adding.contains(&id))
        };
        let hears = |id, name: &TopicPartition| self.context.is_alive(id, name);
        self.send_roles_to(names, false, |id, name| hears(id, name) && !is_added(id, name));
        self.send_roles_to(names, true, |id, name| hears(id, name) && is_added(id, name));
        if !names.is_empty() {
            self.send_metadata(self.context.brokers.keys().copied(), names, &[]);
        }
    }

    async fn complete(&mut self, names: Vec<TopicPartition>) -> Result<(), Interrupted> {
        if names.is_empty() {
            return Ok(());
        }
        let (mut removed, mut done) = (Vec::new(), BTreeMap::new());
        for name in &names {
            let Some(found) = self.context.partition_mut(name) else { continue };
            let target = found.replicas.target();
            removed.push((name.clone(), without(&found.replicas.all, &target)));
            found.replicas = Replicas::settled(target);
            done.insert(name.clone(), found.replicas.clone());
        }
        let reduced = self.settle_for(Cause::Reduced, names.clone()).await?;
        self.send_roles_to(&reduced, false, |id, name| self.context.is_alive(id, name));
        self.delete_replicas(removed);
        // Last: a controller that fails before goes through all of it again.
        for (topic, failure) in self.write_replicas(&done).await? {
            warn!(%topic, %failure, "the end of a reassignment is not on record");
        }
        self.remove_wishes(|name, target| done.get(name).is_some_and(|replicas| replicas.all == target)).await?;
        self.send_metadata(self.context.brokers.keys().copied(), &names, &[]);
        for name in &names {
            info!(topic = %name.topic, partition = %name.partition, "the reassignment is complete");
        }
        let is_new = |name: &TopicPartition| self.context.partition(name).is_some_and(|found| found.state.is_none());
        let new: Vec<_> = names.into_iter().filter(is_new).collect();
        let created = self.create_states(&new).await?;
        self.announce(&created, true);
        self.resume_deletions().await
    }

    /// ISRs have changed: what waited for that is completed.
    pub(super) async fn on_isrs_changed(&mut self, names: Vec<TopicPartition>) -> Result<(), Interrupted> {
        let moving =
            |name: &TopicPartition| self.context.partition(name).is_some_and(|found| found.replicas.is_moving());
        let reached = names.into_iter().filter(|name| moving(name) && self.is_reached(name)).collect();
        self.complete(reached).await
    }

    /// Brokers have come, or a term has begun: reassignments to them go on.
    pub(super) async fn resume_reassignments(&mut self, brokers: &BTreeSet<BrokerId>) -> Result<(), Interrupted> {
        let names = self.context.select(|_, found| {
            found.replicas.is_moving() && found.replicas.target().iter().any(|id| brokers.contains(id))
        });
        self.go_on_moving(names).await
    }

    /// They are no replicas any more, and neither are they offline should they become some again. Nobody waits for the
    /// answers, as in Kafka.
    fn delete_replicas(&mut self, removed: Vec<(TopicPartition, Vec<BrokerId>)>) {
        let mut stops: BTreeMap<BrokerId, Vec<StopPartition>> = BTreeMap::new();
        for (name, brokers) in removed {
            let state = self.context.partition(&name).and_then(|found| found.state.as_ref());
            let leader_epoch = state.map(|led| led.node.leader_epoch);
            for broker in brokers {
                let TopicPartition { topic, partition } = name.clone();
                self.context.failed_replicas.remove(&(broker, topic.clone(), partition));
                stops.entry(broker).or_default().push(StopPartition { topic, partition, leader_epoch, delete: true });
            }
        }
        for (broker, partitions) in stops {
            match self.head(broker) {
                Some(head) => {
                    self.channels.send(broker, ControlRequest::StopReplica(StopReplica { head, partitions }));
                }
                None => warn!(%broker, replicas = partitions.len(),
                    "this broker is gone; its logs of reassigned partitions stay where they are"),
            }
        }
    }

    /// Writes replicas into the topics' nodes, beside whatever else stands there. Answers why a topic's were not.
    async fn write_replicas(
        &self,
        changed: &BTreeMap<TopicPartition, Replicas>,
    ) -> Result<BTreeMap<TopicName, ReassignmentRefused>, Interrupted> {
        let mut by_topic: BTreeMap<&TopicName, Vec<(PartitionIndex, &Replicas)>> = BTreeMap::new();
        for (name, replicas) in changed {
            by_topic.entry(&name.topic).or_default().push((name.partition, replicas));
        }
        let mut failures = BTreeMap::new();
        for (topic, partitions) in by_topic {
            if let Err(failure) = self.write_topic(topic, &partitions).await? {
                failures.insert(topic.clone(), failure);
            }
        }
        Ok(failures)
    }

    async fn write_topic(
        &self,
        topic: &TopicName,
        partitions: &[(PartitionIndex, &Replicas)],
    ) -> Result<Result<(), ReassignmentRefused>, Interrupted> {
        let path = topics::path(topic.as_str());
        loop {
            let Some((data, stat)) = self.store.get(&path).await? else {
                return Ok(Err(ReassignmentRefused::UnknownPartition));
            };
            let mut node = match topics::decode(topic.as_str(), &data) {
                Ok(node) => node,
                Err(error) => return Ok(Err(ReassignmentRefused::Unwritable(error.to_string()))),
            };
            node.id = node.id.or_else(|| self.context.topics.get(topic).map(|known| known.id));
            for (index, replicas) in partitions {
                node.partitions.insert(*index, replicas.all.clone());
                let put = |into: &mut topics::Assignment, ids: &Vec<BrokerId>| match ids.is_empty() {
                    true => into.remove(index),
                    false => into.insert(*index, ids.clone()),
                };
                put(&mut node.adding_replicas, &replicas.adding);
                put(&mut node.removing_replicas, &replicas.removing);
            }
            let data = topics::encode(&node);
            if data.len() > NODE_BYTES_MAX {
                let message = format!("{} bytes are more than the {NODE_BYTES_MAX} that one node holds", data.len());
                return Ok(Err(ReassignmentRefused::Unwritable(message)));
            }
            match self.fence.write(vec![Op::Set { path: path.clone(), data, version: stat.version }]).await? {
                Ok(_) => return Ok(Ok(())),
                // It has grown meanwhile.
                Err(refused) if matches!(refused.error, CoordinationError::BadVersion(_)) => {}
                Err(_) => return Ok(Err(ReassignmentRefused::UnknownPartition)),
            }
        }
    }
}

/// `/admin/reassign_partitions`. Source: Kafka 3.9 `KafkaController.processZkPartitionReassignment`,
/// `maybeRemoveFromZkReassignment`.
impl Term {
    /// Begins what the node asks for. What cannot be leaves it at once, the rest when it is done.
    pub(super) async fn on_reassignment_asked(&mut self) -> Result<(), Interrupted> {
        let (node, changed) = self.store.get_and_watch(admin::REASSIGNMENT).await?;
        self.watch(changed, Event::ReassignmentAsked);
        let Some((data, _)) = node else { return Ok(()) };
        let wishes = match admin::decode_reassignment(&data) {
            Ok(wishes) => wishes,
            Err(error) => {
                warn!(%error, "the reassignment is thrown away");
                return self.remove_wishes(|_, _| true).await;
            }
        };
        let mut refused = BTreeSet::new();
        let mut accepted = BTreeMap::new();
        for (name, target) in wishes {
            let current = self.context.partition(&name).filter(|_| !self.context.is_being_deleted(&name.topic));
            // Brokers that are not live are waited for, as in Kafka.
            match (check_target(&target), current) {
                (Ok(()), Some(found)) => {
                    let next = found.replicas.reassigned_to(&target);
                    if let Err(lost) = self.check_kept(&name, &next, "change") {
                        warn!(topic = %name.topic, partition = %name.partition, %lost, "it is not reassigned");
                        refused.insert(name);
                    } else if next != found.replicas || !next.is_moving() {
                        // What is under way goes on by itself.
                        accepted.insert(name, next);
                    }
                }
                (checked, _) => {
                    warn!(topic = %name.topic, partition = %name.partition, ?checked, "it is not reassigned");
                    refused.insert(name);
                }
            }
        }
        for (name, result) in self.begin(accepted).await? {
            if let Err(failure) = result {
                warn!(topic = %name.topic, partition = %name.partition, %failure, "it is not reassigned");
                refused.insert(name);
            }
        }
        self.remove_wishes(|name, _| refused.contains(name)).await
    }

    /// Takes wishes out of the node; the last one takes the node with it.
    async fn remove_wishes(
        &self,
        is_removed: impl Fn(&TopicPartition, &[BrokerId]) -> bool,
    ) -> Result<(), Interrupted> {
        loop {
            let path = admin::REASSIGNMENT.to_owned();
            let Some((data, stat)) = self.store.get(&path).await? else { return Ok(()) };
            let wishes = admin::decode_reassignment(&data).unwrap_or_default();
            let count = wishes.len();
            let kept: BTreeMap<_, _> = wishes.into_iter().filter(|(name, target)| !is_removed(name, target)).collect();
            if kept.len() == count && count > 0 {
                return Ok(());
            }
            let op = match kept.is_empty() {
                true => Op::Delete { path, version: stat.version },
                false => Op::Set { path, data: admin::encode_reassignment(&kept), version: stat.version },
            };
            match self.fence.write(vec![op]).await? {
                Err(refused) if matches!(refused.error, CoordinationError::BadVersion(_)) => {}
                Ok(_) | Err(_) => return Ok(()),
            }
        }
    }
}

fn check_target(target: &[BrokerId]) -> Result<(), ReassignmentRefused> {
    let refuse = |message: String| Err(ReassignmentRefused::InvalidReplicas(message));
    if target.is_empty() {
        return refuse("Empty replica list specified in partition reassignment.".into());
    }
    if target.iter().collect::<BTreeSet<_>>().len() != target.len() {
        let list = scala("ArrayBuffer", target);
        return refuse(format!("Duplicate replica ids in partition reassignment replica list: {list}"));
    }
    if target.iter().any(|id| id.0 < 0) {
        return refuse(format!("Invalid broker id in replica list: {}", scala("ArrayBuffer", target)));
    }
    Ok(())
}

/// As Kafka's messages show lists.
fn scala(kind: &str, ids: &[BrokerId]) -> String {
    let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
    format!("{kind}({})", ids.join(", "))
}
