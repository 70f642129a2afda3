//! Heartbeats, leaving, who may commit offsets, and what happens when a deadline passes.
//!
//! Source: Kafka 3.9 `GroupCoordinator.handleHeartbeat`, `handleLeaveGroup`, `validateOffsetCommit`,
//! `onExpireHeartbeat`, `onExpirePendingSync`.

use std::sync::Arc;

use tracing::info;

use super::{ClassicGroup, Cx, State};
use crate::coordinator::group::error::GroupError;
use crate::coordinator::group::request::{CommitRequest, HeartbeatRequest, LeavingMember, TxnCommitRequest};

impl ClassicGroup {
    /// Heartbeat: extends the session; while the group prepares, tells the member to rejoin.
    pub(crate) fn heartbeat(&mut self, cx: &Cx<'_>, request: &HeartbeatRequest) -> Result<(), GroupError> {
        self.check_member(&request.member_id, request.instance_id.as_ref())?;
        if request.generation_id != self.generation_id {
            return Err(GroupError::IllegalGeneration);
        }
        match self.state {
            State::Empty => return Err(GroupError::UnknownMemberId),
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
                self.renew_id(cx, &request.member_id);
            }
        }
        if self.state == State::PreparingRebalance { Err(GroupError::RebalanceInProgress) } else { Ok(()) }
    }

    /// LeaveGroup of one member: at once, whatever the group does.
    pub(crate) fn leave(&mut self, cx: &mut Cx<'_>, leaving: &LeavingMember) -> Result<(), GroupError> {
        let reason = leaving.reason.as_deref().unwrap_or("not provided");
        if leaving.member_id.is_empty() {
            // An administrator removes a static member by its instance id.
            let known = leaving.instance_id.as_ref().and_then(|id| self.static_members.get(id)).cloned();
            let member_id = known.ok_or(GroupError::UnknownMemberId)?;
            self.leave_member(cx, &member_id, reason);
        } else if self.pending.contains_key(&leaving.member_id) {
            self.remove(cx, &leaving.member_id);
            self.try_complete_join(cx);
        } else {
            self.check_member(&leaving.member_id, leaving.instance_id.as_ref())?;
            self.leave_member(cx, &leaving.member_id, reason);
        }
        Ok(())
    }

    fn leave_member(&mut self, cx: &mut Cx<'_>, member_id: &Arc<str>, reason: &str) {
        info!(group = %cx.group, %member_id, reason, "a member has left");
        self.remove_and_rebalance(cx, member_id, "a member has left");
    }

    pub(super) fn remove_and_rebalance(&mut self, cx: &mut Cx<'_>, member_id: &Arc<str>, reason: &str) {
        self.remove(cx, member_id);
        match self.state {
            State::Empty => {}
            State::Stable | State::CompletingRebalance => self.prepare_rebalance(cx, reason),
            State::PreparingRebalance => self.try_complete_join(cx),
        }
    }

    /// Whether an offset commit is acceptable; if a member's, it also extends its session.
    ///
    /// A generation below 0 is a simple consumer's or an administrator's, accepted while the group is empty. Members of
    /// the last generation may still commit while the group prepares, because a heartbeat tells them to rejoin.
    pub(crate) fn check_commit(&mut self, cx: &Cx<'_>, request: &CommitRequest) -> Result<(), GroupError> {
        if request.generation_id < 0 && self.state == State::Empty {
            return Ok(());
        }
        if request.generation_id < 0 && request.member_id.is_empty() && request.instance_id.is_none() {
            return Err(GroupError::UnknownMemberId);
        }
        self.check_member(&request.member_id, request.instance_id.as_ref())?;
        if request.generation_id != self.generation_id {
            return Err(GroupError::IllegalGeneration);
        }
        if self.state == State::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        self.renew_id(cx, &request.member_id);
        Ok(())
    }

    /// Whether offsets may be committed in a transaction. A producer that names no member always may: older ones
    /// cannot name it. Unlike a commit outside of transactions this extends no session, and is not refused while the
    /// group completes a rebalance. Source: Kafka 3.9 `GroupCoordinator.doTxnCommitOffsets`.
    pub(crate) fn check_txn_commit(&self, request: &TxnCommitRequest) -> Result<(), GroupError> {
        let unnamed = request.generation_id < 0 && request.member_id.is_empty() && request.instance_id.is_none();
        if unnamed || (request.generation_id < 0 && self.state == State::Empty) {
            return Ok(());
        }
        self.check_member(&request.member_id, request.instance_id.as_ref())?;
        if request.generation_id == self.generation_id { Ok(()) } else { Err(GroupError::IllegalGeneration) }
    }

    /// Does what is due, and computes when to come back.
    pub(crate) fn on_time(&mut self, cx: &mut Cx<'_>) {
        let now_ms = cx.now.monotonic_ms;
        let pending = self.pending.len();
        self.pending.retain(|_, deadline_ms| *deadline_ms > now_ms);
        if self.pending.len() < pending {
            self.try_complete_join(cx);
        }
        let members = self.members.values();
        let failed = members.filter(|member| !member.is_waiting() && member.deadline_ms <= now_ms);
        let failed: Vec<Arc<str>> = failed.map(|member| member.id.clone()).collect();
        for member_id in &failed {
            // Removing one may have completed the rebalance, which gave the others a new session.
            let still = self.members.get(member_id).is_some_and(|m| !m.is_waiting() && m.deadline_ms <= now_ms);
            if still {
                info!(group = %cx.group, %member_id, "a member has failed");
                self.remove_and_rebalance(cx, member_id, "a member has failed");
            }
        }
        if self.join_phase.is_some_and(|phase| phase.deadline_ms() <= now_ms) {
            self.on_join_deadline(cx);
        }
        if self.sync_deadline_ms.is_some_and(|deadline_ms| deadline_ms <= now_ms) {
            self.on_sync_deadline(cx);
        }
        self.wake_ms = self.earliest_deadline_ms();
    }

    /// Members that did not sync within the rebalance time-out are removed.
    fn on_sync_deadline(&mut self, cx: &mut Cx<'_>) {
        self.sync_deadline_ms = None;
        let mut late: Vec<Arc<str>> = self.pending_sync.drain().collect();
        late.sort_unstable();
        if late.is_empty() || !matches!(self.state, State::CompletingRebalance | State::Stable) {
            return;
        }
        info!(group = %cx.group, members = late.len(), "removed members that have not synced");
        for member_id in &late {
            self.remove(cx, member_id);
        }
        self.prepare_rebalance(cx, "members have not synced");
    }

    fn earliest_deadline_ms(&self) -> i64 {
        let phase = self.join_phase.map(|phase| phase.deadline_ms());
        let members = self.members.values().filter(|member| !member.is_waiting()).map(|member| member.deadline_ms);
        let pending = self.pending.values().copied();
        phase.into_iter().chain(self.sync_deadline_ms).chain(members).chain(pending).min().unwrap_or(i64::MAX)
    }
}
