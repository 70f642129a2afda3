//! ISRs that leaders propose: AlterPartition.
//!
//! The requests that wait are taken together and written in one round. An answer leaves only after that round, so what
//! a leader is told is what is stored. Source: Kafka 3.9 `KafkaController.tryProcessAlterPartition`; who may propose,
//! and which replicas, as `ReplicationControlManager.validateAlterPartitionData`.

use std::collections::BTreeMap;

use tracing::{debug, info};

use super::context::{Led, Partition};
use super::fence::Interrupted;
use super::partitions::StateWrite;
use super::term::Term;
use crate::cluster::control::{AlterPartition, ControllerError, IsrProposal, IsrRefused, IsrResults, StoredIsr};
use crate::cluster::znodes::partition_state::{LeaderAndIsrNode, Recovery};
use crate::types::{BrokerEpoch, BrokerId, PartitionIndex, TopicId, TopicPartition};

/// NOT_CONTROLLER, of one partition: whoever wrote its epochs knows a later controller.
const NOT_CONTROLLER: IsrRefused = IsrRefused::Other(41);

/// What comes of a proposal before anything is written.
#[derive(Debug, PartialEq, Eq)]
enum Judged {
    /// The partition is in that state.
    Known(StoredIsr),
    Refused(IsrRefused),
    Accepted(LeaderAndIsrNode),
}

/// One partition of a request.
struct Asked {
    /// Index of its request.
    request: usize,
    topic_id: TopicId,
    partition: PartitionIndex,
}

impl Term {
    /// Answers the requests in their order, once everything is stored, and the partitions whose state is another one.
    pub(super) async fn alter_partitions(
        &mut self,
        requests: Vec<AlterPartition>,
    ) -> Result<(Vec<Result<IsrResults, ControllerError>>, Vec<TopicPartition>), Interrupted> {
        let mut answers: Vec<Result<IsrResults, ControllerError>> = Vec::with_capacity(requests.len());
        let mut round = BTreeMap::new();
        let mut changed = Vec::new();
        for (index, request) in requests.into_iter().enumerate() {
            if !self.is_registered(&request) {
                answers.push(Err(ControllerError::StaleBrokerEpoch));
                continue;
            }
            answers.push(Ok(Vec::with_capacity(request.partitions.len())));
            for proposal in request.partitions {
                let asked = Asked { request: index, topic_id: proposal.topic_id, partition: proposal.partition };
                let name = match self.context.name_of(proposal.topic_id) {
                    Some(topic) => TopicPartition { topic: topic.clone(), partition: proposal.partition },
                    None => {
                        answer(&mut answers, &asked, Err(IsrRefused::UnknownTopicId));
                        continue;
                    }
                };
                if round.contains_key(&name) {
                    // The same partition once more: it is judged by what the first proposal leaves behind.
                    changed.extend(self.write_round(&mut round, &mut answers).await?);
                }
                match self.judge(request.broker, &name, &proposal) {
                    Judged::Known(stored) => answer(&mut answers, &asked, Ok(stored)),
                    Judged::Refused(refused) => {
                        info!(broker = %request.broker, topic = %name.topic, partition = %name.partition, %refused,
                            isr = ?proposal.isr, leader_epoch = %proposal.leader_epoch,
                            partition_epoch = %proposal.partition_epoch, "the ISR is refused");
                        answer(&mut answers, &asked, Err(refused));
                    }
                    Judged::Accepted(node) => {
                        round.insert(name, (node, asked));
                    }
                }
            }
        }
        changed.extend(self.write_round(&mut round, &mut answers).await?);
        if !changed.is_empty() {
            self.send_metadata(self.context.brokers.keys().copied(), &changed, &[]);
        }
        Ok((answers, changed))
    }

    /// The sender is live, and it is the present registration that speaks.
    fn is_registered(&self, request: &AlterPartition) -> bool {
        let known = self.context.brokers.get(&request.broker).map(|broker| broker.epoch);
        if known != Some(request.broker_epoch) {
            info!(broker = %request.broker, broker_epoch = %request.broker_epoch, ?known,
                "AlterPartition of another registration is refused");
        }
        known == Some(request.broker_epoch)
    }

    /// Pure. The order of the checks is Kafka's.
    fn judge(&self, broker: BrokerId, name: &TopicPartition, proposal: &IsrProposal) -> Judged {
        let Some(partition) = self.context.partition(name) else {
            return Judged::Refused(IsrRefused::UnknownPartition);
        };
        let Some(led) = &partition.state else { return Judged::Refused(IsrRefused::UnknownPartition) };
        let node = &led.node;
        let isr: Vec<BrokerId> = proposal.isr.iter().map(|(id, _)| *id).collect();
        if proposal.leader_epoch > node.leader_epoch || proposal.partition_epoch > led.epoch {
            return Judged::Refused(NOT_CONTROLLER);
        }
        if proposal.leader_epoch < node.leader_epoch {
            return Judged::Refused(IsrRefused::FencedLeaderEpoch);
        }
        if node.leader != Some(broker) {
            return Judged::Refused(IsrRefused::InvalidRequest);
        }
        if isr == node.isr && proposal.recovery == node.recovery {
            // Before the partition epoch: the answer to this very change may have been lost.
            return Judged::Known(stored(led));
        }
        if proposal.partition_epoch < led.epoch {
            return Judged::Refused(IsrRefused::InvalidUpdateVersion);
        }
        if !is_valid(&isr, broker, partition) {
            return Judged::Refused(IsrRefused::InvalidRequest);
        }
        let unrecovered = proposal.recovery == Recovery::Recovering;
        if unrecovered && (isr.len() > 1 || node.recovery == Recovery::Recovered) {
            return Judged::Refused(IsrRefused::InvalidRequest);
        }
        if !proposal.isr.iter().all(|(id, epoch): &(BrokerId, BrokerEpoch)| self.context.may_be_in_sync(*id, *epoch)) {
            return Judged::Refused(IsrRefused::IneligibleReplica);
        }
        let controller_epoch = self.fence.epoch;
        Judged::Accepted(LeaderAndIsrNode { controller_epoch, isr, recovery: proposal.recovery, ..node.clone() })
    }

    /// Stores what was accepted and answers it. Answers the partitions whose state is another one by now.
    async fn write_round(
        &mut self,
        round: &mut BTreeMap<TopicPartition, (LeaderAndIsrNode, Asked)>,
        answers: &mut [Result<IsrResults, ControllerError>],
    ) -> Result<Vec<TopicPartition>, Interrupted> {
        let round = std::mem::take(round);
        let (mut wanted, mut asked) = (Vec::with_capacity(round.len()), Vec::with_capacity(round.len()));
        for (name, (node, who)) in round {
            wanted.push((name, node));
            asked.push(who);
        }
        let outcomes = self.write_states(wanted).await?;
        let outdated = outcomes.iter().filter(|(_, _, outcome)| *outcome == StateWrite::Outdated);
        // Somebody else wrote, or this write came through once before and its answer was lost.
        self.read_states(outdated.map(|(name, ..)| name.clone()).collect()).await?;
        let mut changed = Vec::with_capacity(outcomes.len());
        for ((name, node, outcome), asked) in outcomes.into_iter().zip(asked) {
            let now = self.context.partition(&name).and_then(|partition| partition.state.as_ref());
            let result = match (outcome, now) {
                (StateWrite::Gone, _) | (_, None) => Err(IsrRefused::UnknownPartition),
                (StateWrite::Outdated, Some(now)) if now.node != node => Err(IsrRefused::InvalidUpdateVersion),
                (StateWrite::Written | StateWrite::Outdated, Some(now)) => Ok(stored(now)),
            };
            debug!(topic = %name.topic, partition = %name.partition, isr = ?node.isr, ?outcome, "ISR");
            answer(answers, &asked, result);
            if outcome != StateWrite::Gone {
                changed.push(name);
            }
        }
        Ok(changed)
    }
}

fn answer(answers: &mut [Result<IsrResults, ControllerError>], asked: &Asked, result: Result<StoredIsr, IsrRefused>) {
    if let Some(Ok(results)) = answers.get_mut(asked.request) {
        results.push((asked.topic_id, asked.partition, result));
    }
}

fn stored(led: &Led) -> StoredIsr {
    let LeaderAndIsrNode { leader, leader_epoch, isr, recovery, .. } = led.node.clone();
    StoredIsr { leader, leader_epoch, isr, recovery, partition_epoch: led.epoch }
}

/// Replicas of the partition, each once, the leader among them.
fn is_valid(isr: &[BrokerId], leader: BrokerId, partition: &Partition) -> bool {
    let once = |(at, id): (usize, &BrokerId)| !isr[..at].contains(id);
    isr.contains(&leader)
        && isr.iter().enumerate().all(once)
        && isr.iter().all(|id| partition.replicas.all.contains(id))
}
