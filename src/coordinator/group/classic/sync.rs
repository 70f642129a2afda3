//! SyncGroup: the leader brings the assignment, everybody takes their own.
//!
//! Source: Kafka 3.9 `GroupCoordinator.doSyncGroup`.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use tracing::info;

use super::{ClassicGroup, Cx, Member, State};
use crate::coordinator::group::error::GroupError;
use crate::coordinator::group::request::{SyncReply, SyncRequest};
use crate::coordinator::shard::Ticket;

impl ClassicGroup {
    /// SyncGroup. The leader's stores the generation and answers all who wait; a follower's may have to wait for it.
    pub(crate) fn sync(&mut self, cx: &mut Cx<'_>, ticket: Ticket, request: SyncRequest) {
        if let Err(error) = self.check_sync(&request) {
            return cx.sync_reply(ticket, SyncReply::refused(error));
        }
        match self.state {
            State::Empty => cx.sync_reply(ticket, SyncReply::refused(GroupError::UnknownMemberId)),
            State::PreparingRebalance => {
                cx.sync_reply(ticket, SyncReply::refused(GroupError::RebalanceInProgress));
            }
            State::CompletingRebalance => self.sync_completing(cx, ticket, request),
            State::Stable => {
                self.synced(&request.member_id);
                let assignment = self.members[&request.member_id].assignment.clone();
                cx.sync_reply(ticket, self.sync_reply(assignment));
                self.renew_id(cx, &request.member_id);
            }
        }
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<(), GroupError> {
        self.check_member(&request.member_id, request.instance_id.as_ref())?;
        if request.generation_id != self.generation_id {
            return Err(GroupError::IllegalGeneration);
        }
        let differs = |said: &Option<String>, is: &Option<String>| said.is_some() && said != is;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        Ok(())
    }

    fn sync_completing(&mut self, cx: &mut Cx<'_>, ticket: Ticket, request: SyncRequest) {
        let index = self.members.get_index_of(&request.member_id).expect("the member has been checked");
        // A repeated request takes the place of the first, which is answered so that its connection can go on.
        self.answer_sync(cx, index, SyncReply::refused(GroupError::RebalanceInProgress));
        self.members[index].awaiting_sync = Some(ticket);
        self.synced(&request.member_id);
        if !self.is_leader(&request.member_id) {
            return;
        }
        let given: HashMap<Arc<str>, Bytes> = request.assignments.into_iter().collect();
        let of = |member: &Member| given.get(&member.id).cloned().unwrap_or_default();
        let value = self.value(cx, of);
        if !cx.store(Some(&value)) {
            self.reset_assignment(cx, GroupError::UnknownServerError);
            return self.prepare_rebalance(cx, "the group's metadata could not be stored");
        }
        info!(
            group = %cx.group, generation_id = self.generation_id, members = self.members.len(),
            "assignment received from the leader"
        );
        // The assignments themselves, and the state, are taken over by replay of the record.
        for index in 0..self.members.len() {
            let reply = self.sync_reply(of(&self.members[index]));
            if self.answer_sync(cx, index, reply) {
                self.renew(cx, index);
            }
        }
    }

    fn sync_reply(&self, assignment: Bytes) -> SyncReply {
        SyncReply {
            error: None,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment,
        }
    }

    /// The member has sent its SyncGroup; when all have, nobody is removed for not sending it.
    fn synced(&mut self, member_id: &Arc<str>) {
        self.pending_sync.remove(member_id);
        if self.pending_sync.is_empty() {
            self.sync_deadline_ms = None;
        }
    }
}
