//! What a leader keeps of the replicas that follow it, behind a lock of its own: a follower's fetch does not wait for
//! appends. Lock order: the partition's state, then this.
//!
//! A leader whose partition has no other replica never comes here.

use super::Role;
use crate::cluster::control::{IsrRefused, StoredIsr};
use crate::replica::followers::Followers;
use crate::replica::isr::{self, ChangeNumber, Isr, Next, Reckoning};
use crate::replica::surroundings::Surroundings;
use crate::types::{BrokerId, LeaderEpoch, Offset, PartitionEpoch};

#[derive(Debug)]
pub(super) struct Replication {
    /// Under which this broker leads; `None`: it does not.
    pub(super) leads_under: Option<LeaderEpoch>,
    /// Where that epoch began.
    pub(super) epoch_start: Offset,
    /// Version of the stored state that `isr` is of.
    partition_epoch: PartitionEpoch,
    pub(super) isr: Isr,
    pub(super) followers: Followers,
    /// `min.insync.replicas`, at most the number of replicas.
    pub(super) min_isr: usize,
    /// Proposals made so far.
    changes: u64,
}

impl Replication {
    pub(super) fn new() -> Self {
        Self {
            leads_under: None,
            epoch_start: Offset::ZERO,
            partition_epoch: PartitionEpoch::NONE,
            isr: Isr::Committed { isr: Vec::new() },
            followers: Followers::default(),
            min_isr: 1,
            changes: 0,
        }
    }

    /// This broker leads. `anew`: under an epoch of which nothing is known yet, from `written_end` on.
    pub(super) fn lead(&mut self, role: &Role, anew: bool, written_end: Offset, around: &Surroundings) {
        if anew {
            self.followers = Followers::of_new_epoch(around.me, &role.replicas, &role.isr, around.now_ms());
            self.epoch_start = written_end;
        } else {
            self.followers.reassign(around.me, &role.replicas);
        }
        // A proposal is about a version of the state: a later one has decided it.
        if anew || role.partition_epoch > self.partition_epoch {
            self.isr = Isr::Committed { isr: role.isr.clone() };
            self.partition_epoch = role.partition_epoch;
        }
        self.leads_under = Some(role.leader_epoch);
    }

    pub(super) fn resign(&mut self) {
        self.leads_under = None;
        self.followers = Followers::default();
        self.isr = Isr::Committed { isr: Vec::new() };
    }

    /// See [`isr::high_watermark`].
    pub(super) fn high_watermark(&self, own_end: Offset, before: Offset, around: &Surroundings) -> Offset {
        let (now_ms, lag_ms) = (around.now_ms(), around.lag_ms());
        let at = Reckoning { own_end, before, min_isr: self.min_isr, now_ms, lag_ms };
        isr::high_watermark(&self.isr, &self.followers, at, |id| around.is_live(id))
    }

    /// Whether as many are in sync as an acknowledgement to acks=all promises.
    /// Source: Kafka 3.9 `Partition.checkEnoughReplicasReachOffset`.
    pub(super) fn has_enough(&self) -> bool {
        self.isr.maximal_len() >= self.min_isr
    }

    /// Proposes a member more. The caller has asked [`isr::want_expand`].
    pub(super) fn expand(&mut self, adding: BrokerId) {
        let (isr, change) = (self.isr.committed().to_vec(), self.next_change());
        self.isr = Isr::Expanding { isr, adding, change };
    }

    /// Proposes to do without these members.
    pub(super) fn shrink(&mut self, removing: Vec<BrokerId>) {
        let (isr, change) = (self.isr.committed().to_vec(), self.next_change());
        self.isr = Isr::Shrinking { isr, removing, change };
    }

    fn next_change(&mut self) -> ChangeNumber {
        debug_assert!(self.isr.in_flight().is_none(), "one proposal at a time");
        self.changes += 1;
        ChangeNumber(self.changes)
    }

    pub(super) fn partition_epoch(&self) -> PartitionEpoch {
        self.partition_epoch
    }

    /// Takes an answer to a proposal.
    pub(super) fn on_answer(&mut self, sent: ChangeNumber, answer: &Result<StoredIsr, IsrRefused>) -> Next {
        let Some(leader_epoch) = self.leads_under else { return Next::Stale };
        let next = isr::on_answer(&self.isr, sent, leader_epoch, self.partition_epoch, answer);
        match &next {
            Next::Commit(isr, partition_epoch) => {
                self.isr = Isr::Committed { isr: isr.clone() };
                self.partition_epoch = *partition_epoch;
            }
            Next::Back => self.isr = Isr::Committed { isr: self.isr.committed().to_vec() },
            Next::Stay | Next::Again | Next::Stale => {}
        }
        next
    }
}
