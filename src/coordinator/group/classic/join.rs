//! JoinGroup: who may join, who is known, and when a join starts a rebalance.
//!
//! Source: Kafka 3.9 `GroupCoordinator.handleJoinGroup` and the `do…JoinGroup` functions below it.

use std::sync::Arc;

use bytes::Bytes;
use tracing::info;
use uuid::Uuid;

use super::member::{Member, protocol_bytes};
use super::{ClassicGroup, Cx, State};
use crate::coordinator::group::error::GroupError;
use crate::coordinator::group::request::{JoinReply, JoinRequest, JoinedMember, SyncReply};
use crate::coordinator::shard::Ticket;
use crate::types::limits;

/// How long a member that has never been answered is kept: it has no id yet and cannot send heartbeats.
/// Source: Kafka 3.9 `GroupCoordinator.NewMemberJoinTimeoutMs`.
const NEW_MEMBER_JOIN_TIMEOUT_MS: i32 = 5 * 60 * 1000;

impl ClassicGroup {
    /// JoinGroup. The session time-out has been checked. The reply may come with a later decision.
    pub(crate) fn join(&mut self, cx: &mut Cx<'_>, ticket: Ticket, request: JoinRequest) {
        let known = !request.member_id.is_empty();
        if !self.accepts(cx, &request) {
            if self.members.contains_key(&request.member_id) {
                self.remove_and_rebalance(cx, &request.member_id, "there is no room for a member that rejoined");
            }
            cx.join_reply(ticket, JoinReply::refused(&"".into(), GroupError::GroupMaxSizeReached));
        } else if !self.supports(&request.protocol_type, &request.protocols) {
            cx.join_reply(ticket, JoinReply::refused(&request.member_id, GroupError::InconsistentGroupProtocol));
        } else if known {
            self.join_known(cx, ticket, request);
        } else {
            self.join_new(cx, ticket, request);
        }
        self.try_complete_join(cx);
    }

    /// Whether there is room. While a group prepares, those who wait are counted, so that the last to rejoin have to go
    /// when the limit was lowered. Kafka bounds members only; the bytes they hold are bounded here as well.
    fn accepts(&self, cx: &Cx<'_>, request: &JoinRequest) -> bool {
        let current = self.members.get(&request.member_id);
        let room = match self.state {
            State::Empty => true,
            State::PreparingRebalance => {
                current.is_some_and(|member| member.awaiting_join.is_some())
                    || self.awaiting_join_count < cx.config.group_size_max
            }
            State::CompletingRebalance | State::Stable => {
                current.is_some() || self.members.len() < cx.config.group_size_max
            }
        };
        let bytes =
            self.metadata_bytes - current.map_or(0, Member::metadata_bytes) + protocol_bytes(&request.protocols);
        let pending = request.member_id.is_empty() && self.pending.len() >= limits::GROUP_PENDING_MEMBERS_MAX;
        room && bytes <= limits::GROUP_METADATA_BYTES_MAX && !pending
    }

    fn join_new(&mut self, cx: &mut Cx<'_>, ticket: Ticket, request: JoinRequest) {
        let named_after = request.instance_id.as_ref().unwrap_or(&request.client_id);
        let uuid = uuid::Builder::from_random_bytes(request.random.to_be_bytes()).into_uuid();
        let member_id = member_id(named_after, uuid);
        if let Some(instance_id) = &request.instance_id {
            match self.static_members.get(instance_id).cloned() {
                Some(old) => self.replace_static_member(cx, ticket, &old, member_id, request),
                None => self.add_and_rebalance(cx, ticket, member_id, request),
            }
        } else if request.require_known_member_id {
            let deadline_ms = cx.after(request.session_timeout_ms);
            self.pending.insert(member_id.clone(), deadline_ms);
            self.wake_ms = self.wake_ms.min(deadline_ms);
            cx.join_reply(ticket, JoinReply::refused(&member_id, GroupError::MemberIdRequired));
        } else {
            self.add_and_rebalance(cx, ticket, member_id, request);
        }
    }

    fn join_known(&mut self, cx: &mut Cx<'_>, ticket: Ticket, request: JoinRequest) {
        if request.instance_id.is_none() && self.pending.contains_key(&request.member_id) {
            let member_id = request.member_id.clone();
            return self.add_and_rebalance(cx, ticket, member_id, request);
        }
        if let Err(error) = self.check_member(&request.member_id, request.instance_id.as_ref()) {
            return cx.join_reply(ticket, JoinReply::refused(&request.member_id, error));
        }
        let leads = self.is_leader(&request.member_id);
        let unchanged = self.members[&request.member_id].protocols == request.protocols;
        match self.state {
            State::PreparingRebalance => self.update_and_rebalance(cx, ticket, request),
            // It did not get the answer of this generation: give it once more.
            State::CompletingRebalance if unchanged => {
                let reply = self.join_reply_of(&request.member_id);
                cx.join_reply(ticket, reply);
            }
            // A leader rejoins to have partitions assigned anew, a follower that changed nothing to sync again.
            State::Stable if unchanged && !leads => {
                let reply = self.join_reply_of(&request.member_id);
                cx.join_reply(ticket, reply);
            }
            State::CompletingRebalance | State::Stable => self.update_and_rebalance(cx, ticket, request),
            State::Empty => {
                cx.join_reply(ticket, JoinReply::refused(&request.member_id, GroupError::UnknownMemberId));
            }
        }
    }

    fn add_and_rebalance(&mut self, cx: &mut Cx<'_>, ticket: Ticket, member_id: Arc<str>, request: JoinRequest) {
        // The initial delay may be extended for this one.
        if self.state == State::PreparingRebalance && self.generation_id == 0 {
            self.new_member_added = true;
        }
        if self.members.is_empty() {
            self.protocol_type = Some(request.protocol_type);
        }
        let deadline_ms = cx.after(NEW_MEMBER_JOIN_TIMEOUT_MS);
        self.wake_ms = self.wake_ms.min(deadline_ms);
        let reason = request.reason.unwrap_or_else(|| "not provided".into());
        self.insert(Member {
            id: member_id,
            instance_id: request.instance_id,
            client_id: request.client_id,
            client_host: request.client_host,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols,
            assignment: Bytes::new(),
            awaiting_join: Some(ticket),
            awaiting_sync: None,
            is_new: true,
            deadline_ms,
        });
        self.maybe_prepare_rebalance(cx, &reason);
    }

    fn update_and_rebalance(&mut self, cx: &mut Cx<'_>, ticket: Ticket, request: JoinRequest) {
        let index = self.members.get_index_of(&request.member_id).expect("the caller has found the member");
        let reason = request.reason.clone().unwrap_or_else(|| "a member rejoined".into());
        self.update(cx, index, ticket, request);
        self.maybe_prepare_rebalance(cx, &reason);
    }

    /// Takes over what a known member says now, and parks its request.
    fn update(&mut self, cx: &mut Cx<'_>, index: usize, ticket: Ticket, request: JoinRequest) {
        // A JoinGroup that is sent again while the first one waits takes its place. The first has to be answered all
        // the same, because replies leave in order on each connection; Kafka forgets it.
        let id = self.members[index].id.clone();
        self.answer_join(cx, index, JoinReply::refused(&id, GroupError::RebalanceInProgress));
        let member = &mut self.members[index];
        self.metadata_bytes = self.metadata_bytes - member.metadata_bytes() + protocol_bytes(&request.protocols);
        let old = std::mem::replace(&mut member.protocols, request.protocols);
        for (name, _) in &member.protocols {
            *self.supported.entry(name.clone()).or_default() += 1;
        }
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        member.session_timeout_ms = request.session_timeout_ms;
        member.awaiting_join = Some(ticket);
        self.awaiting_join_count += 1;
        self.uncount_protocols(&old);
    }

    /// A static member came back without its id: it gets a new one and everything that the old one had, and the old id
    /// is fenced. In a stable group that needs no rebalance unless its protocols change the vote.
    /// Source: Kafka 3.9 `GroupCoordinator.updateStaticMemberAndRebalance`, KIP-345, KIP-814.
    fn replace_static_member(
        &mut self,
        cx: &mut Cx<'_>,
        ticket: Ticket,
        old: &Arc<str>,
        new: Arc<str>,
        request: JoinRequest,
    ) {
        info!(group = %cx.group, instance_id = request.instance_id.as_deref(), %old, %new, "static member replaced");
        let leader_before = self.leader.clone();
        let can_skip = request.can_skip_assignment;
        let index = self.rename(cx, old, &new);
        self.update(cx, index, ticket, request);
        self.renew(cx, index);
        match self.state {
            State::Stable if self.select_protocol() == self.protocol => {
                let value = self.value(cx, |member| member.assignment.clone());
                if !cx.store(Some(&value)) {
                    return self.prepare_rebalance(cx, "the group's metadata could not be stored");
                }
                let mut reply = self.join_reply_of(&new);
                if can_skip {
                    reply.skip_assignment = self.is_leader(&new);
                } else {
                    // A leader that cannot skip is told that the old id leads, so that it assigns nothing: the stable
                    // group would not hand it out.
                    reply.members = Vec::new();
                    reply.leader = leader_before.unwrap_or_else(|| "".into());
                }
                self.answer_join(cx, index, reply);
            }
            State::Stable => self.maybe_prepare_rebalance(cx, "a static member changed the protocol"),
            // The leader may be assigning to the old id now.
            State::CompletingRebalance => self.prepare_rebalance(cx, "a static member was replaced"),
            State::PreparingRebalance | State::Empty => {}
        }
    }

    /// Gives a member another id and returns its index. Who waits under the old id is fenced.
    fn rename(&mut self, cx: &mut Cx<'_>, old: &Arc<str>, new: &Arc<str>) -> usize {
        let index = self.members.get_index_of(old).expect("a static member's id is a member's");
        self.answer_join(cx, index, JoinReply::refused(old, GroupError::FencedInstanceId));
        self.answer_sync(cx, index, SyncReply::refused(GroupError::FencedInstanceId));
        let mut member = self.members.swap_remove(old).expect("it was found above");
        member.id = new.clone();
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), new.clone());
        }
        let (index, _) = self.members.insert_full(new.clone(), member);
        if self.pending_sync.remove(old) {
            self.pending_sync.insert(new.clone());
        }
        if self.is_leader(old) {
            self.leader = Some(new.clone());
        }
        index
    }

    /// The JoinGroup answer of the current generation for one member.
    pub(super) fn join_reply_of(&self, member_id: &Arc<str>) -> JoinReply {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let joined = |member: &Member| JoinedMember {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(protocol),
        };
        JoinReply {
            error: None,
            generation_id: self.generation_id,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_else(|| "".into()),
            skip_assignment: false,
            member_id: member_id.clone(),
            members: if self.is_leader(member_id) { self.members.values().map(joined).collect() } else { Vec::new() },
        }
    }
}

/// `<client or instance id>-<uuid>`, as Kafka's `GroupMetadata.generateMemberId`.
fn member_id(named_after: &str, uuid: Uuid) -> Arc<str> {
    format!("{named_after}-{uuid}").into()
}
