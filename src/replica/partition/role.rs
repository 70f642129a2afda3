//! What this broker is to a partition, and whether its log may lead under an epoch. Pure.

use crate::types::{BrokerId, LeaderEpoch, PartitionEpoch};

/// What this broker is to the partition, as LeaderAndIsr said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Role {
    pub(crate) leader: Option<BrokerId>,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) isr: Vec<BrokerId>,
    /// Version of the state that says so.
    pub(crate) partition_epoch: PartitionEpoch,
    pub(crate) replicas: Vec<BrokerId>,
}

/// Why a role was not taken. Nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotTaken {
    #[error("a later version of the partition's state is known")]
    Outdated,
    /// The log may have lost its end, so it must not lead under an epoch in which it may have been longer: readers who
    /// have seen more would not notice. A later epoch will do.
    #[error("the log may have lost its end; it needs a new leader epoch")]
    EndLost,
}

/// Whether the log may have been longer once than it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Whole,
    /// What it led under before lies at or below this epoch, where that is known.
    InDoubt(Option<LeaderEpoch>),
    /// Asked to lead under this epoch at most, and refused.
    Refused(LeaderEpoch),
}

impl End {
    /// A role that is taken: leading, under this epoch, without a leader, or following one.
    pub(super) fn take(&mut self, role: &Role, leading: bool) -> Result<(), NotTaken> {
        match *self {
            Self::InDoubt(before) if leading && before.is_none_or(|before| role.leader_epoch <= before) => {
                *self = Self::Refused(role.leader_epoch);
                Err(NotTaken::EndLost)
            }
            Self::Refused(refused) if leading && role.leader_epoch <= refused => Err(NotTaken::EndLost),
            // A follower learns from its leader where its log ends; without a leader nothing is decided.
            Self::InDoubt(_) | Self::Refused(_) if role.leader.is_none() => Ok(()),
            Self::Whole | Self::InDoubt(_) | Self::Refused(_) => {
                *self = Self::Whole;
                Ok(())
            }
        }
    }
}
