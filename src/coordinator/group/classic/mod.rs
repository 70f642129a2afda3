//! The classic group protocol: members join, vote for a protocol, the leader assigns, all sync; heartbeats keep them.
//!
//! Pure: each function is given [`Cx`] with the time and the settings, and writes records and replies into its outcome.
//! A generation is stored when it becomes stable, or empty; who is joining, and all deadlines, are soft and start over
//! when the shard is loaded again. Eager and cooperative assignment look the same from here (KIP-429 is the clients').
//!
//! Files: `join` `sync` `rebalance` (prepare and complete a generation) `liveness` (heartbeats, leaving, deadlines).
//! Source of the rules: Kafka 3.9 `GroupCoordinator`, `GroupMetadata`, `DelayedJoin`.

mod join;
mod liveness;
mod member;
mod rebalance;
mod sync;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use indexmap::IndexMap;

use self::member::Member;
use super::config::GroupConfig;
use super::error::GroupError;
use super::offsets::Retention;
use super::records::{GroupValue, MemberValue};
use super::request::{DescribedMember, GroupDescription, GroupReply, JoinReply, SyncReply};
use super::subscription;
use crate::clock::UnixMs;
use crate::coordinator::shard::{Moment, Outcome, Ticket};

/// Protocol type of consumers; only theirs have subscriptions that we can read.
const CONSUMER: &str = "consumer";

/// What a decision is made with, and where it goes.
#[derive(Debug)]
pub(crate) struct Cx<'a> {
    pub(crate) now: Moment,
    pub(crate) config: &'a GroupConfig,
    /// Largest record that can be stored, in bytes of key and value.
    pub(crate) record_bytes_max: usize,
    pub(crate) group: &'a Arc<str>,
    pub(crate) out: &'a mut Outcome<GroupReply>,
}

impl Cx<'_> {
    fn after(&self, ms: i32) -> i64 {
        self.now.monotonic_ms + i64::from(ms.max(0))
    }

    fn join_reply(&mut self, ticket: Ticket, reply: JoinReply) {
        self.out.reply(ticket, GroupReply::Join(reply));
    }

    fn sync_reply(&mut self, ticket: Ticket, reply: SyncReply) {
        self.out.reply(ticket, GroupReply::Sync(reply));
    }
}

/// State of a classic group. A group that is gone ("Dead") is not kept at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
}

impl State {
    /// Kafka's name, as in DescribeGroups and ListGroups.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// When the join phase ends, on the monotonic clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum JoinPhase {
    /// First generation of an empty group: waits for its whole delay, again while members come.
    Initial { deadline_ms: i64, delay_ms: i32, remaining_ms: i32 },
    /// Ends early when all members have rejoined.
    Rejoin { deadline_ms: i64 },
}

impl JoinPhase {
    fn deadline_ms(self) -> i64 {
        match self {
            Self::Initial { deadline_ms, .. } | Self::Rejoin { deadline_ms } => deadline_ms,
        }
    }
}

/// One classic group.
#[derive(Debug)]
pub(crate) struct ClassicGroup {
    state: State,
    /// Since when; unknown if loaded from an old record.
    state_ms: Option<UnixMs>,
    generation_id: i32,
    protocol_type: Option<String>,
    protocol: Option<String>,
    leader: Option<Arc<str>>,
    /// In no particular order, but in the same one in every run.
    members: IndexMap<Arc<str>, Member>,
    /// Instance id to member id.
    static_members: HashMap<Arc<str>, Arc<str>>,
    /// Members that were given an id and have to come back with it; with their deadline.
    pending: IndexMap<Arc<str>, i64>,
    /// Members of this generation that have not sent SyncGroup.
    pending_sync: HashSet<Arc<str>>,
    sync_deadline_ms: Option<i64>,
    join_phase: Option<JoinPhase>,
    /// Members that support each protocol.
    supported: HashMap<String, usize>,
    awaiting_join_count: usize,
    /// Bytes of metadata of all members.
    metadata_bytes: usize,
    /// Someone joined since the initial delay was last extended.
    new_member_added: bool,
    /// Topics read by a consumer group of this generation; `None` when not known.
    subscribed: Option<HashSet<Arc<str>>>,
    /// No deadline is earlier than this; may be too early.
    wake_ms: i64,
}

impl ClassicGroup {
    /// A group without members. `state_ms`: since when.
    pub(crate) fn new(state_ms: Option<UnixMs>) -> Self {
        Self {
            state: State::Empty,
            state_ms,
            generation_id: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: IndexMap::new(),
            static_members: HashMap::new(),
            pending: IndexMap::new(),
            pending_sync: HashSet::new(),
            sync_deadline_ms: None,
            join_phase: None,
            supported: HashMap::new(),
            awaiting_join_count: 0,
            metadata_bytes: 0,
            new_member_added: false,
            subscribed: None,
            wake_ms: i64::MAX,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn generation_id(&self) -> i32 {
        self.generation_id
    }

    /// Empty for a group that was never joined.
    pub(crate) fn protocol_type(&self) -> &str {
        self.protocol_type.as_deref().unwrap_or_default()
    }

    /// Nothing would be lost with it: neither stored nor expected back.
    pub(crate) fn is_vacant(&self) -> bool {
        self.state == State::Empty && self.generation_id == 0 && self.pending.is_empty()
    }

    /// Someone was given a member id and is expected back.
    pub(crate) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// No deadline of this group is earlier; `i64::MAX` for none. Monotonic.
    pub(crate) fn wake_ms(&self) -> i64 {
        self.wake_ms
    }

    /// Applies the group's own record (I-17). Members that are already here keep what they wait for and what else
    /// they support; the record never names fewer members than a live group has.
    pub(crate) fn apply(&mut self, value: GroupValue) {
        self.generation_id = value.generation_id;
        self.state_ms = value.state_ms;
        self.state = if value.members.is_empty() { State::Empty } else { State::Stable };
        self.protocol_type = Some(value.protocol_type).filter(|name| !name.is_empty());
        self.protocol = value.protocol;
        self.leader = value.leader;
        let protocol = self.protocol.clone().unwrap_or_default();
        let mut before = std::mem::take(&mut self.members);
        self.static_members.clear();
        for stored in value.members {
            let member = match before.swap_remove(&stored.member_id) {
                Some(mut live) if live.metadata(&protocol) == stored.subscription => {
                    live.assignment = stored.assignment;
                    live
                }
                _ => Member::stored(stored, &protocol),
            };
            if let Some(instance_id) = &member.instance_id {
                self.static_members.insert(instance_id.clone(), member.id.clone());
            }
            self.members.insert(member.id.clone(), member);
        }
        self.recount();
    }

    /// Counts anew what is kept beside the members.
    fn recount(&mut self) {
        self.supported.clear();
        for (name, _) in self.members.values().flat_map(|member| &member.protocols) {
            *self.supported.entry(name.clone()).or_default() += 1;
        }
        self.metadata_bytes = self.members.values().map(Member::metadata_bytes).sum();
        self.awaiting_join_count = self.members.values().filter(|member| member.awaiting_join.is_some()).count();
    }

    /// The log is loaded: members get a full session, and a group that has become too large rebalances.
    pub(crate) fn on_loaded(&mut self, cx: &mut Cx<'_>) {
        self.subscribed = self.compute_subscribed();
        for index in 0..self.members.len() {
            self.renew(cx, index);
        }
        if self.members.len() > cx.config.group_size_max {
            self.prepare_rebalance(cx, "the group is over capacity");
        }
    }

    /// What DescribeGroups shows.
    pub(crate) fn describe(&self) -> GroupDescription {
        let stable = self.state == State::Stable;
        let protocol = self.protocol.clone().filter(|_| stable).unwrap_or_default();
        let member = |member: &Member| DescribedMember {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: if stable { member.metadata(&protocol) } else { Bytes::new() },
            assignment: if stable { member.assignment.clone() } else { Bytes::new() },
        };
        GroupDescription {
            state: self.state.name(),
            protocol_type: self.protocol_type().to_owned(),
            members: self.members.values().map(member).collect(),
            protocol,
        }
    }

    /// Whether its members are consumers.
    pub(crate) fn is_of_consumers(&self) -> bool {
        self.protocol_type() == CONSUMER
    }

    /// Whether a member may read the topic. What its members subscribe to may not be known.
    /// Source: Kafka 3.9 `GroupMetadata.isSubscribedToTopic`.
    pub(crate) fn may_read(&self, topic: &str) -> bool {
        self.subscribed.as_ref().is_none_or(|subscribed| subscribed.contains(topic))
    }

    /// From when the group's offsets may expire. Source: Kafka 3.9 `GroupMetadata.removeExpiredOffsets`.
    pub(crate) fn retention<'a>(&'a self, nothing: &'a HashSet<Arc<str>>) -> Retention<'a> {
        match (&self.protocol_type, &self.subscribed) {
            // Never joined: a simple consumer, which only keeps its offsets here.
            (None, _) => Retention::SinceCommit { subscribed: nothing },
            (Some(_), _) if self.state == State::Empty => match self.state_ms {
                Some(since) => Retention::Since(since),
                None => Retention::SinceCommit { subscribed: nothing },
            },
            (Some(kind), Some(subscribed)) if kind == CONSUMER && self.state == State::Stable => {
                Retention::SinceCommit { subscribed }
            }
            _ => Retention::Kept,
        }
    }

    /// Checks that the member belongs to the group, and to its instance id if it has one.
    /// Source: Kafka 3.9 `GroupCoordinator.validateCurrentMember`.
    fn check_member(&self, member_id: &str, instance_id: Option<&Arc<str>>) -> Result<(), GroupError> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                Some(current) if &**current != member_id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
                None => return Err(GroupError::UnknownMemberId),
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    /// Gives the member a new session from now on.
    fn renew(&mut self, cx: &Cx<'_>, index: usize) {
        let member = &mut self.members[index];
        member.deadline_ms = cx.after(member.session_timeout_ms);
        self.wake_ms = self.wake_ms.min(member.deadline_ms);
    }

    fn renew_id(&mut self, cx: &Cx<'_>, member_id: &str) {
        if let Some(index) = self.members.get_index_of(member_id) {
            self.renew(cx, index);
        }
    }

    fn transition_to(&mut self, cx: &Cx<'_>, state: State) {
        self.state = state;
        self.state_ms = Some(cx.now.unix_ms);
    }

    fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    /// Answers a parked JoinGroup, if there is one.
    fn answer_join(&mut self, cx: &mut Cx<'_>, index: usize, reply: JoinReply) {
        if let Some(ticket) = self.members[index].awaiting_join.take() {
            self.awaiting_join_count -= 1;
            cx.join_reply(ticket, reply);
        }
    }

    /// Answers a parked SyncGroup; whether there was one.
    fn answer_sync(&mut self, cx: &mut Cx<'_>, index: usize, reply: SyncReply) -> bool {
        let ticket = self.members[index].awaiting_sync.take();
        if let Some(ticket) = ticket {
            cx.sync_reply(ticket, reply);
        }
        ticket.is_some()
    }

    fn insert(&mut self, member: Member) {
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), member.id.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(member.id.clone());
        }
        for (name, _) in &member.protocols {
            *self.supported.entry(name.clone()).or_default() += 1;
        }
        self.metadata_bytes += member.metadata_bytes();
        self.awaiting_join_count += usize::from(member.awaiting_join.is_some());
        self.pending.swap_remove(&member.id);
        self.members.insert(member.id.clone(), member);
    }

    /// Takes a member (or a pending one) out and answers what it still waits for. If it led, another one does.
    fn remove(&mut self, cx: &mut Cx<'_>, member_id: &str) {
        if let Some(index) = self.members.get_index_of(member_id) {
            self.answer_join(cx, index, JoinReply::refused(&"".into(), GroupError::UnknownMemberId));
            self.answer_sync(cx, index, SyncReply::refused(GroupError::UnknownMemberId));
        }
        if let Some(member) = self.members.swap_remove(member_id) {
            self.uncount_protocols(&member.protocols);
            self.metadata_bytes -= member.metadata_bytes();
            if let Some(instance_id) = &member.instance_id {
                self.static_members.remove(instance_id);
            }
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        self.pending.swap_remove(member_id);
        self.pending_sync.remove(member_id);
    }

    fn uncount_protocols(&mut self, protocols: &[(String, Bytes)]) {
        for (name, _) in protocols {
            if let Some(count) = self.supported.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.supported.remove(name);
                }
            }
        }
    }

    /// Whether a member with these protocols can be of this group: its type fits, and one of them is everybody's.
    fn supports(&self, protocol_type: &str, protocols: &[(String, Bytes)]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols.iter().any(|(name, _)| self.supported_by(name) == self.members.len())
    }

    fn supported_by(&self, protocol: &str) -> usize {
        self.supported.get(protocol).copied().unwrap_or(0)
    }

    /// The protocol with the most votes; a member votes for the one it prefers among those that all support. In a tie
    /// the one that was voted for first wins. `None` only without members.
    fn select_protocol(&self) -> Option<String> {
        let mut votes: IndexMap<&str, usize> = IndexMap::new();
        for member in self.members.values() {
            let common = |name: &str| self.supported_by(name) == self.members.len();
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| common(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.values().max()?;
        votes.iter().find(|(_, count)| *count == most).map(|(name, _)| (*name).to_owned())
    }

    /// Source: Kafka 3.9 `GroupMetadata.computeSubscribedTopics`.
    fn compute_subscribed(&self) -> Option<HashSet<Arc<str>>> {
        if self.protocol_type.as_deref() != Some(CONSUMER) {
            return None;
        }
        if self.members.is_empty() {
            return Some(HashSet::new());
        }
        let protocol = self.protocol.as_deref()?;
        let mut all = HashSet::new();
        for member in self.members.values() {
            all.extend(subscription::topics(&member.metadata(protocol))?.into_iter().map(Arc::from));
        }
        Some(all)
    }

    /// The group as it is to be stored, with each member's assignment as `assignment` gives it.
    fn value(&self, cx: &Cx<'_>, assignment: impl Fn(&Member) -> Bytes) -> GroupValue {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let member = |member: &Member| MemberValue {
            member_id: member.id.clone(),
            instance_id: member.instance_id.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(protocol),
            assignment: assignment(member),
        };
        GroupValue {
            protocol_type: self.protocol_type().to_owned(),
            generation_id: self.generation_id,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_ms: Some(cx.now.unix_ms),
            members: self.members.values().map(member).collect(),
        }
    }
}
