//! From one generation to the next: prepare, wait for the members, elect, vote.
//!
//! Source: Kafka 3.9 `GroupCoordinator.prepareRebalance`, `onCompleteJoin`, `InitialDelayedJoin`.

use std::sync::Arc;

use tracing::{info, warn};

use super::{ClassicGroup, Cx, JoinPhase, State};
use crate::coordinator::group::error::GroupError;
use crate::coordinator::group::records::{self, GroupValue};
use crate::coordinator::group::request::SyncReply;

/// Least time between two attempts to complete a rebalance that nobody joined. A client may ask for a rebalance
/// time-out of 0, and Kafka would then try without pause.
const REJOIN_WAIT_MS_MIN: i32 = 1_000;

impl Cx<'_> {
    /// Appends the group's record; `false` if it is larger than can be stored, and then nothing is appended.
    pub(super) fn store(&mut self, value: Option<&GroupValue>) -> bool {
        match records::group_record(self.group, value) {
            Ok(record) if record.bytes() <= self.record_bytes_max => {
                self.out.append(record);
                true
            }
            Ok(record) => {
                warn!(group = %self.group, bytes = record.bytes(), "the group's metadata is too large to be stored");
                false
            }
            Err(error) => {
                warn!(group = %self.group, %error, "the group's metadata cannot be stored");
                false
            }
        }
    }
}

impl ClassicGroup {
    pub(super) fn maybe_prepare_rebalance(&mut self, cx: &mut Cx<'_>, reason: &str) {
        if self.state != State::PreparingRebalance {
            self.prepare_rebalance(cx, reason);
        }
    }

    /// Begins the join phase. Members that wait for their assignment are sent back to join.
    pub(super) fn prepare_rebalance(&mut self, cx: &mut Cx<'_>, reason: &str) {
        if self.state == State::CompletingRebalance {
            self.reset_assignment(cx, GroupError::RebalanceInProgress);
        }
        self.pending_sync.clear();
        self.sync_deadline_ms = None;
        let phase = if self.state == State::Empty {
            let delay_ms = cx.config.initial_rebalance_delay_ms;
            let remaining_ms = self.rebalance_timeout_ms().saturating_sub(delay_ms).max(0);
            self.new_member_added = false;
            JoinPhase::Initial { deadline_ms: cx.after(delay_ms), delay_ms, remaining_ms }
        } else {
            JoinPhase::Rejoin { deadline_ms: cx.after(self.rebalance_timeout_ms()) }
        };
        info!(
            group = %cx.group, state = self.state.name(), generation_id = self.generation_id, reason,
            "preparing to rebalance"
        );
        self.set_join_phase(phase);
        self.transition_to(cx, State::PreparingRebalance);
        self.try_complete_join(cx);
    }

    fn set_join_phase(&mut self, phase: JoinPhase) {
        self.wake_ms = self.wake_ms.min(phase.deadline_ms());
        self.join_phase = Some(phase);
    }

    /// The longest that any member asks for.
    pub(super) fn rebalance_timeout_ms(&self) -> i32 {
        self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0)
    }

    /// Ends the join phase if all have come. The initial delay runs its whole time, to gather members.
    pub(super) fn try_complete_join(&mut self, cx: &mut Cx<'_>) {
        let all_joined = self.members.len() == self.awaiting_join_count && self.pending.is_empty();
        if matches!(self.join_phase, Some(JoinPhase::Rejoin { .. })) && all_joined {
            self.complete_join(cx);
        }
    }

    /// The join phase has run out.
    pub(super) fn on_join_deadline(&mut self, cx: &mut Cx<'_>) {
        match self.join_phase {
            Some(JoinPhase::Initial { delay_ms, remaining_ms, .. }) if self.new_member_added && remaining_ms != 0 => {
                self.new_member_added = false;
                let next_ms = cx.config.initial_rebalance_delay_ms.min(remaining_ms);
                self.set_join_phase(JoinPhase::Initial {
                    deadline_ms: cx.after(next_ms),
                    delay_ms: next_ms,
                    remaining_ms: (remaining_ms - delay_ms).max(0),
                });
            }
            Some(_) => self.complete_join(cx),
            None => {}
        }
    }

    /// Closes the join phase with those who came. Static members stay although they did not come.
    fn complete_join(&mut self, cx: &mut Cx<'_>) {
        let gone = |member: &&super::Member| member.awaiting_join.is_none() && !member.is_static();
        let gone: Vec<Arc<str>> = self.members.values().filter(gone).map(|member| member.id.clone()).collect();
        for member_id in &gone {
            self.remove(cx, member_id);
        }
        if !gone.is_empty() {
            info!(group = %cx.group, members = gone.len(), "removed dynamic members that have not rejoined");
        }
        if !self.members.is_empty() && !self.elect_joined_leader() {
            // Only static members, and none came: wait until their sessions end or one comes.
            warn!(group = %cx.group, "the rebalance cannot complete because no member rejoined");
            let deadline_ms = cx.after(self.rebalance_timeout_ms().max(REJOIN_WAIT_MS_MIN));
            return self.set_join_phase(JoinPhase::Rejoin { deadline_ms });
        }
        self.join_phase = None;
        self.generation_id = self.generation_id.checked_add(1).unwrap_or(1);
        self.pending_sync.clear();
        self.protocol = self.select_protocol();
        self.subscribed = self.compute_subscribed();
        if self.members.is_empty() {
            self.transition_to(cx, State::Empty);
            info!(group = %cx.group, generation_id = self.generation_id, "the group is now empty");
            let value = self.value(cx, |member| member.assignment.clone());
            cx.store(Some(&value));
            return;
        }
        self.transition_to(cx, State::CompletingRebalance);
        info!(
            group = %cx.group, generation_id = self.generation_id, members = self.members.len(),
            protocol = self.protocol.as_deref(), "stabilized"
        );
        // The leader last: with the assignment it may give something up and rejoin within a millisecond, and whoever
        // has not asked to sync by then is sent back to join without having seen this generation.
        let (leader, mut order): (Vec<usize>, Vec<usize>) =
            (0..self.members.len()).partition(|&index| self.is_leader(&self.members[index].id));
        order.extend(leader);
        for index in order {
            let reply = self.join_reply_of(&self.members[index].id);
            self.answer_join(cx, index, reply);
            self.members[index].is_new = false;
            self.renew(cx, index);
            self.pending_sync.insert(self.members[index].id.clone());
        }
        let deadline_ms = cx.after(self.rebalance_timeout_ms());
        self.sync_deadline_ms = Some(deadline_ms);
        self.wake_ms = self.wake_ms.min(deadline_ms);
    }

    /// Keeps the leader if it has rejoined, else takes one that has. `false`: nobody has.
    fn elect_joined_leader(&mut self) -> bool {
        let joined = |id: &str| self.members.get(id).is_some_and(|member| member.awaiting_join.is_some());
        if self.leader.as_deref().is_some_and(joined) {
            return true;
        }
        let elected = self.members.values().find(|member| member.awaiting_join.is_some());
        let Some(elected) = elected.map(|member| member.id.clone()) else { return false };
        self.leader = Some(elected);
        true
    }

    /// Nobody keeps an assignment, and who waits for one is told why.
    pub(super) fn reset_assignment(&mut self, cx: &mut Cx<'_>, error: GroupError) {
        for index in 0..self.members.len() {
            self.members[index].assignment = bytes::Bytes::new();
            if self.answer_sync(cx, index, SyncReply::refused(error)) {
                self.renew(cx, index);
            }
        }
    }
}
