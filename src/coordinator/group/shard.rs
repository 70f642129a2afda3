//! All groups of one partition of `__consumer_offsets`: routes requests to them, replays their records, and keeps the
//! time for them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use tracing::{info, warn};

use super::classic::{ClassicGroup, Cx, State};
use super::config::GroupConfig;
use super::error::GroupError;
use super::offsets::Offsets;
use super::records::{self, Key, OffsetValue};
use super::request::{
    CommitReply, CommitRequest, GroupListing, GroupReply, GroupRequest, JoinReply, JoinRequest, LeaveRequest,
    ListRequest, SyncReply,
};
use crate::coordinator::owner::{BATCH_OVERHEAD_BYTES, RECORD_OVERHEAD_BYTES};
use crate::coordinator::shard::{Moment, Outcome, ReplayError, Shard, Ticket};
use crate::coordinator::writer::CoordinatorRecord;
use crate::types::{PartitionIndex, TopicName, limits};

/// Type of every group here, as ListGroups names it.
const CLASSIC: &str = "classic";

/// One group with what is stored for it.
#[derive(Debug)]
struct Group {
    id: Arc<str>,
    classic: ClassicGroup,
    offsets: Offsets,
    /// Time of the latest entry of this group in the shard's heap that counts; `i64::MAX` for none.
    queued_ms: i64,
}

impl Group {
    fn new(id: &str) -> Self {
        Self { id: id.into(), classic: ClassicGroup::new(None), offsets: Offsets::default(), queued_ms: i64::MAX }
    }

    fn is_vacant(&self) -> bool {
        self.classic.is_vacant() && self.offsets.is_empty()
    }
}

/// The groups of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub(crate) struct GroupShard {
    config: Arc<GroupConfig>,
    batch_bytes_max: usize,
    groups: HashMap<Arc<str>, Group>,
    /// When to look at a group. An entry counts if it is the one its group remembers.
    wakes: BinaryHeap<Reverse<(i64, Arc<str>)>>,
    /// When to look for what has expired; monotonic.
    sweep_ms: i64,
}

impl GroupShard {
    /// A shard before its log is replayed. `batch_bytes_max`: the internal topic's max.message.bytes.
    pub(crate) fn new(config: Arc<GroupConfig>, batch_bytes_max: usize) -> Self {
        Self { config, batch_bytes_max, groups: HashMap::new(), wakes: BinaryHeap::new(), sweep_ms: i64::MAX }
    }

    fn record_bytes_max(&self) -> usize {
        self.batch_bytes_max.saturating_sub(RECORD_OVERHEAD_BYTES + BATCH_OVERHEAD_BYTES)
    }

    /// All groups, in order: what is done to all is done in the same order in every run.
    fn ids(&self) -> Vec<Arc<str>> {
        let mut ids: Vec<Arc<str>> = self.groups.keys().cloned().collect();
        ids.sort_unstable();
        ids
    }

    /// Runs `decide` on a group, and sees to it that it is looked at when it asks for it. `None`: no such group.
    fn with_group<T>(
        &mut self,
        now: Moment,
        group: &str,
        out: &mut Outcome<GroupReply>,
        decide: impl FnOnce(&mut ClassicGroup, &Offsets, &mut Cx<'_>) -> T,
    ) -> Option<T> {
        let record_bytes_max = self.record_bytes_max();
        let group = self.groups.get_mut(group)?;
        let mut cx = Cx { now, config: &self.config, record_bytes_max, group: &group.id, out };
        let decided = decide(&mut group.classic, &group.offsets, &mut cx);
        let wake_ms = group.classic.wake_ms();
        if wake_ms < group.queued_ms {
            group.queued_ms = wake_ms;
            self.wakes.push(Reverse((wake_ms, group.id.clone())));
        }
        Some(decided)
    }

    fn join(&mut self, now: Moment, ticket: Ticket, request: JoinRequest, out: &mut Outcome<GroupReply>) {
        let timeouts = self.config.session_timeout_ms_min..=self.config.session_timeout_ms_max;
        if !timeouts.contains(&request.session_timeout_ms) {
            let refused = JoinReply::refused(&request.member_id, GroupError::InvalidSessionTimeout);
            return out.reply(ticket, GroupReply::Join(refused));
        }
        let group = request.group.clone();
        if !self.groups.contains_key(&group) {
            if !request.member_id.is_empty() {
                let refused = JoinReply::refused(&request.member_id, GroupError::UnknownMemberId);
                return out.reply(ticket, GroupReply::Join(refused));
            }
            self.groups.insert(group.clone(), Group { id: group.clone(), ..Group::new("") });
        }
        self.with_group(now, &group, out, |classic, _, cx| classic.join(cx, ticket, request));
    }

    fn leave(&mut self, now: Moment, request: &LeaveRequest, out: &mut Outcome<GroupReply>) -> GroupReply {
        let left = self.with_group(now, &request.group, out, |classic, _, cx| {
            request.members.iter().map(|member| classic.leave(cx, member)).collect()
        });
        let unknown = || vec![Err(GroupError::UnknownMemberId); request.members.len()];
        GroupReply::Leave(left.unwrap_or_else(unknown))
    }

    fn commit(&mut self, now: Moment, request: CommitRequest, out: &mut Outcome<GroupReply>) -> CommitReply {
        let checked = self.with_group(now, &request.group, out, |classic, _, cx| classic.check_commit(cx, &request));
        let checked = match checked {
            Some(checked) => checked,
            // A simple consumer makes its group by committing.
            None if request.generation_id < 0 => Ok(()),
            None => Err(GroupError::IllegalGeneration),
        };
        if let Err(error) = checked {
            return CommitReply { error: Some(error), too_long: Vec::new() };
        }
        let expire_ms = request.retention_ms.map(|retention_ms| now.unix_ms.saturating_add(retention_ms));
        let before = out.records.len();
        let mut reply = CommitReply::default();
        for (index, committed) in request.offsets.into_iter().enumerate() {
            let metadata = committed.metadata.unwrap_or_default();
            if metadata.len() > self.config.offset_metadata_units_max
                && metadata.encode_utf16().count() > self.config.offset_metadata_units_max
            {
                reply.too_long.push(index);
                continue;
            }
            let value = OffsetValue {
                offset: committed.offset,
                leader_epoch: committed.leader_epoch,
                metadata,
                commit_ms: now.unix_ms,
                expire_ms,
            };
            match records::offset_record(&request.group, committed.topic.as_str(), committed.partition, Some(&value)) {
                Ok(record) => out.append(record),
                Err(_) => reply.error = Some(GroupError::InvalidCommitOffsetSize),
            }
        }
        // One commit is one batch, so that it is stored whole or not at all.
        let bytes: usize = out.records[before..].iter().map(|record| record.bytes() + RECORD_OVERHEAD_BYTES).sum();
        if bytes + BATCH_OVERHEAD_BYTES > self.batch_bytes_max {
            reply.error = Some(GroupError::InvalidCommitOffsetSize);
        }
        if reply.error.is_some() {
            out.records.truncate(before);
        }
        reply
    }

    fn list(&self, request: &ListRequest) -> Vec<GroupListing> {
        if !request.types.is_empty() && !request.types.iter().any(|kind| kind == CLASSIC) {
            return Vec::new();
        }
        let wanted = |state: &str| {
            request.states.is_empty() || request.states.iter().any(|wanted| wanted.eq_ignore_ascii_case(state))
        };
        let groups = self.groups.values().filter(|group| wanted(group.classic.state().name()));
        groups
            .map(|group| GroupListing {
                group: group.id.clone(),
                protocol_type: group.classic.protocol_type().to_owned(),
                state: group.classic.state().name(),
                group_type: CLASSIC,
            })
            .collect()
    }

    fn delete(&mut self, id: &Arc<str>, out: &mut Outcome<GroupReply>) -> Result<(), GroupError> {
        let group = self.groups.get(id).ok_or(GroupError::GroupIdNotFound)?;
        if group.classic.state() != State::Empty {
            return Err(GroupError::NonEmptyGroup);
        }
        info!(group = %id, "deleted");
        forget_offsets(id, &group.offsets.keys(), out);
        self.forget_group(id, out);
        Ok(())
    }

    /// The group has no members and will have no offsets: removes it, with a tombstone if it was ever stored.
    fn forget_group(&mut self, id: &Arc<str>, out: &mut Outcome<GroupReply>) {
        let stored = self.groups.get(id).is_some_and(|group| group.classic.generation_id() > 0);
        match records::group_record(id, None) {
            // Replay of the tombstone, or of the last offset's, removes it here.
            Ok(record) if stored => out.append(record),
            _ => {
                if self.groups.get(id).is_some_and(|group| group.offsets.is_empty()) {
                    self.groups.remove(id);
                }
            }
        }
    }

    fn delete_topics(&mut self, topics: &[TopicName], out: &mut Outcome<GroupReply>) {
        let mut emptied = Vec::new();
        for id in self.ids() {
            let group = &self.groups[&id];
            let gone: Vec<_> = topics.iter().flat_map(|topic| group.offsets.keys_of(topic.as_str())).collect();
            forget_offsets(&id, &gone, out);
            if !gone.is_empty() && group.classic.state() == State::Empty && gone.len() == group.offsets.count() {
                emptied.push(id);
            }
        }
        for id in &emptied {
            self.forget_group(id, out);
        }
    }

    /// Writes tombstones for what has expired, and for groups that keep nothing any more.
    /// Source: Kafka 3.9 `GroupMetadataManager.cleanupGroupMetadata`.
    fn sweep(&mut self, now: Moment, out: &mut Outcome<GroupReply>) {
        let nothing = HashSet::new();
        let mut emptied = Vec::new();
        let mut full = false;
        for id in self.ids() {
            let group = &self.groups[&id];
            let retention = group.classic.retention(&nothing);
            let expired = group.offsets.expired(retention, now.unix_ms, self.config.offsets_retention_ms);
            forget_offsets(&id, &expired, out);
            let left = group.offsets.count() - expired.len();
            if left == 0 && group.classic.state() == State::Empty && !group.classic.has_pending() {
                emptied.push(id);
            }
            full = out.records.len() >= limits::COORDINATOR_SWEEP_RECORDS_MAX;
            if full {
                break;
            }
        }
        for id in &emptied {
            self.forget_group(id, out);
        }
        if !out.records.is_empty() {
            info!(tombstones = out.records.len(), groups = emptied.len(), "expired offsets and groups removed");
        }
        let pause_ms = if full { 0 } else { self.config.offsets_retention_check_interval_ms.max(1) };
        self.sweep_ms = now.monotonic_ms.saturating_add(pause_ms);
    }

    fn replay_offset(&mut self, group: &str, topic: &str, partition: PartitionIndex, value: Option<OffsetValue>) {
        match value {
            Some(value) => {
                if !self.groups.contains_key(group) {
                    let new = Group::new(group);
                    self.groups.insert(new.id.clone(), new);
                }
                if let Some(group) = self.groups.get_mut(group) {
                    group.offsets.insert(topic, partition, value);
                }
            }
            None => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.offsets.remove(topic, partition);
                }
                self.drop_if_vacant(group);
            }
        }
    }

    fn drop_if_vacant(&mut self, group: &str) {
        if self.groups.get(group).is_some_and(Group::is_vacant) {
            self.groups.remove(group);
        }
    }
}

fn forget_offsets(group: &str, offsets: &[(Arc<str>, PartitionIndex)], out: &mut Outcome<GroupReply>) {
    for (topic, partition) in offsets {
        match records::offset_record(group, topic, *partition, None) {
            Ok(record) => out.append(record),
            // It was read from a record, so it fits one.
            Err(error) => warn!(%group, %error, "a tombstone cannot be written"),
        }
    }
}

impl Shard for GroupShard {
    type Request = GroupRequest;
    type Reply = GroupReply;

    fn handle(&mut self, now: Moment, ticket: Ticket, request: GroupRequest, out: &mut Outcome<GroupReply>) {
        let reply = match request {
            GroupRequest::Join(request) => return self.join(now, ticket, request, out),
            GroupRequest::Sync(request) => {
                let group = request.group.clone();
                let known = self.with_group(now, &group, out, |classic, _, cx| classic.sync(cx, ticket, request));
                match known {
                    Some(()) => return,
                    None => GroupReply::Sync(SyncReply::refused(GroupError::UnknownMemberId)),
                }
            }
            GroupRequest::Heartbeat(request) => {
                let beaten =
                    self.with_group(now, &request.group, out, |classic, _, cx| classic.heartbeat(cx, &request));
                GroupReply::Heartbeat(beaten.unwrap_or(Err(GroupError::UnknownMemberId)))
            }
            GroupRequest::Leave(request) => self.leave(now, &request, out),
            GroupRequest::Commit(request) => GroupReply::Commit(self.commit(now, request, out)),
            GroupRequest::Fetch(request) => GroupReply::Fetch(match self.groups.get(&request.group) {
                Some(group) => group.offsets.fetch(request.topics),
                None => Offsets::default().fetch(request.topics),
            }),
            GroupRequest::Describe { group } => {
                GroupReply::Describe(self.groups.get(&group).map(|group| group.classic.describe()))
            }
            GroupRequest::List(request) => GroupReply::List(self.list(&request)),
            GroupRequest::Delete { group } => GroupReply::Delete(self.delete(&group, out)),
            GroupRequest::TopicsDeleted { topics } => {
                self.delete_topics(&topics, out);
                GroupReply::TopicsDeleted
            }
            GroupRequest::EndTransaction { marker } => {
                out.marker = Some(marker);
                GroupReply::EndTransaction
            }
        };
        out.reply(ticket, reply);
    }

    fn replay(&mut self, record: &CoordinatorRecord) -> Result<(), ReplayError> {
        match records::read_key(&record.key)? {
            Key::Offset { group, topic, partition } => {
                let value = record.value.as_deref().map(records::read_offset).transpose()?;
                self.replay_offset(group, topic, partition, value);
            }
            Key::Group { group } => match record.value.as_deref().map(records::read_group).transpose()? {
                Some(value) => {
                    if !self.groups.contains_key(group) {
                        let new = Group::new(group);
                        self.groups.insert(new.id.clone(), new);
                    }
                    if let Some(group) = self.groups.get_mut(group) {
                        group.classic.apply(value);
                    }
                }
                None => {
                    if let Some(group) = self.groups.get_mut(group) {
                        group.classic = ClassicGroup::new(None);
                    }
                    self.drop_if_vacant(group);
                }
            },
        }
        Ok(())
    }

    fn on_loaded(&mut self, now: Moment, out: &mut Outcome<GroupReply>) {
        for id in self.ids() {
            self.with_group(now, &id, out, |classic, _, cx| classic.on_loaded(cx));
        }
        self.sweep_ms = now.monotonic_ms.saturating_add(self.config.offsets_retention_check_interval_ms.max(1));
    }

    fn next_wake_ms(&self) -> Option<i64> {
        let group = self.wakes.peek().map_or(i64::MAX, |Reverse((ms, _))| *ms);
        Some(group.min(self.sweep_ms)).filter(|&ms| ms != i64::MAX)
    }

    fn on_time(&mut self, now: Moment, out: &mut Outcome<GroupReply>) {
        while let Some(Reverse((ms, _))) = self.wakes.peek()
            && *ms <= now.monotonic_ms
        {
            let Some(Reverse((ms, id))) = self.wakes.pop() else { break };
            let Some(group) = self.groups.get_mut(&id).filter(|group| group.queued_ms == ms) else { continue };
            group.queued_ms = i64::MAX;
            self.with_group(now, &id, out, |classic, _, cx| classic.on_time(cx));
        }
        if self.sweep_ms <= now.monotonic_ms {
            self.sweep(now, out);
        }
    }
}
