//! All groups of one partition of `__consumer_offsets`: routes requests to them, replays their records, and keeps the
//! time for them.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, HashSet};
use std::sync::Arc;

use tracing::{info, warn};

use super::classic::{ClassicGroup, Cx, State};
use super::config::GroupConfig;
use super::error::GroupError;
use super::offsets::Offsets;
use super::pending::{Pending, PendingOf};
use super::records::{self, Key, OffsetValue};
use super::request::{
    CommitReply, CommitRequest, CommittedOffset, FetchReply, FetchRequest, GroupListing, GroupReply, GroupRequest,
    JoinReply, JoinRequest, LeaveRequest, ListRequest, SyncReply, TxnCommitRequest,
};
use crate::clock::UnixMs;
use crate::coordinator::serving::{BATCH_OVERHEAD_BYTES, RECORD_OVERHEAD_BYTES};
use crate::coordinator::shard::{Access, Moment, Outcome, ReplayError, Shard, Ticket};
use crate::coordinator::writer::CoordinatorRecord;
use crate::types::{PartitionIndex, ProducerId, TopicName, TransactionMarker, TransactionResult, limits};

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

    /// `pending`: in this group.
    fn is_vacant(&self, pending: PendingOf<'_>) -> bool {
        self.classic.is_vacant() && self.offsets.is_empty() && !pending.has_offsets()
    }
}

/// The groups of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub(crate) struct GroupShard {
    config: Arc<GroupConfig>,
    batch_bytes_max: usize,
    groups: HashMap<Arc<str>, Group>,
    pending: Pending,
    /// When to look at a group. An entry counts if it is the one its group remembers.
    wakes: BinaryHeap<Reverse<(i64, Arc<str>)>>,
    /// When to look for what has expired; monotonic.
    sweep_ms: i64,
}

impl GroupShard {
    /// A shard before its log is replayed. `batch_bytes_max`: the internal topic's max.message.bytes.
    pub(crate) fn new(config: Arc<GroupConfig>, batch_bytes_max: usize) -> Self {
        let (groups, pending) = (HashMap::new(), Pending::default());
        Self { config, batch_bytes_max, groups, pending, wakes: BinaryHeap::new(), sweep_ms: i64::MAX }
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
        self.store(now, &request.group, request.offsets, expire_ms, out)
    }

    /// A group that does not exist is one that is empty: so Kafka 3.9's `GroupCoordinator.handleTxnCommitOffsets`.
    fn txn_commit(&self, now: Moment, request: TxnCommitRequest, out: &mut Outcome<GroupReply>) -> CommitReply {
        let checked = match self.groups.get(&request.group) {
            Some(group) => group.classic.check_txn_commit(&request),
            None => ClassicGroup::new(None).check_txn_commit(&request),
        };
        if let Err(error) = checked {
            return CommitReply { error: Some(error), too_long: Vec::new() };
        }
        let reply = self.store(now, &request.group, request.offsets, None, out);
        out.transaction = Some(request.transaction).filter(|_| !out.records.is_empty());
        reply
    }

    /// Appends what is to be committed, as one batch: it is stored whole or not at all.
    fn store(
        &self,
        now: Moment,
        group: &str,
        offsets: Vec<CommittedOffset>,
        expire_ms: Option<UnixMs>,
        out: &mut Outcome<GroupReply>,
    ) -> CommitReply {
        let before = out.records.len();
        let mut reply = CommitReply::default();
        for (index, committed) in offsets.into_iter().enumerate() {
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
            match records::offset_record(group, committed.topic.as_str(), committed.partition, Some(&value)) {
                Ok(record) => out.append(record),
                Err(_) => reply.error = Some(GroupError::InvalidCommitOffsetSize),
            }
        }
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
        // Also what is pending goes, and stays away when the log is loaded again before its transaction has ended.
        let keys: BTreeSet<_> = group.offsets.keys().into_iter().chain(self.pending.of(id).keys()).collect();
        forget_offsets(id, &keys, out);
        self.forget_group(id, out);
        Ok(())
    }

    /// Removes committed offsets, pending ones of open transactions included, but for topics that a member may read. An
    /// empty group that has none left goes, too, if any were named, whether they were there or not.
    /// Source: Kafka 3.9 `GroupCoordinator.handleDeleteOffsets`, `GroupMetadata.removeOffsets`.
    fn delete_offsets(
        &mut self,
        id: &Arc<str>,
        offsets: &[(TopicName, PartitionIndex)],
        out: &mut Outcome<GroupReply>,
    ) -> Result<Vec<Result<(), GroupError>>, GroupError> {
        let group = self.groups.get(id).ok_or(GroupError::GroupIdNotFound)?;
        let is_empty = group.classic.state() == State::Empty;
        if !is_empty && !group.classic.is_of_consumers() {
            return Err(GroupError::NonEmptyGroup);
        }
        let pending = self.pending.of(id);
        let (mut answers, mut keys) = (Vec::with_capacity(offsets.len()), BTreeSet::new());
        for (topic, partition) in offsets {
            if !is_empty && group.classic.may_read(topic.as_str()) {
                answers.push(Err(GroupError::GroupSubscribedToTopic));
                continue;
            }
            answers.push(Ok(()));
            let committed = group.offsets.key(topic.as_str(), *partition);
            keys.extend(committed.or_else(|| pending.key(topic.as_str(), *partition)));
        }
        let all: BTreeSet<_> = group.offsets.keys().into_iter().chain(pending.keys()).collect();
        forget_offsets(id, &keys, out);
        if is_empty && !offsets.is_empty() && keys.len() == all.len() {
            self.forget_group(id, out);
        }
        Ok(answers)
    }

    /// The group has no members and will have no offsets: removes it, with a tombstone if it was ever stored.
    fn forget_group(&mut self, id: &Arc<str>, out: &mut Outcome<GroupReply>) {
        let stored = self.groups.get(id).is_some_and(|group| group.classic.generation_id() > 0);
        match records::group_record(id, None) {
            // Replay of the tombstone, or of the last offset's, removes it here.
            Ok(record) if stored => out.append(record),
            _ => {
                let pending = self.pending.of(id).has_offsets();
                if !pending && self.groups.get(id).is_some_and(|group| group.offsets.is_empty()) {
                    self.groups.remove(id);
                }
            }
        }
    }

    fn delete_topics(&mut self, topics: &[TopicName], out: &mut Outcome<GroupReply>) {
        let mut emptied = Vec::new();
        for id in self.ids() {
            let (group, pending) = (&self.groups[&id], self.pending.of(&id));
            let gone: Vec<_> = topics.iter().flat_map(|topic| group.offsets.keys_of(topic.as_str())).collect();
            let dropped: Vec<_> = topics.iter().flat_map(|topic| pending.keys_of(topic.as_str())).collect();
            let any = !gone.is_empty() || !dropped.is_empty();
            let all = gone.len() == group.offsets.count() && dropped.len() == pending.keys().len();
            // What is both committed and pending has one tombstone.
            let keys: BTreeSet<_> = gone.into_iter().chain(dropped).collect();
            forget_offsets(&id, &keys, out);
            if any && all && group.classic.state() == State::Empty {
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
            let pending = self.pending.of(&id);
            let expired = group.offsets.expired(retention, now.unix_ms, self.config.offsets_retention_ms, pending);
            forget_offsets(&id, &expired, out);
            let left = group.offsets.count() - expired.len();
            let kept = left > 0 || pending.has_offsets() || group.classic.has_pending();
            if !kept && group.classic.state() == State::Empty {
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

    fn fetch(&self, request: FetchRequest) -> FetchReply {
        let pending = request.require_stable.then(|| self.pending.of(&request.group));
        match self.groups.get(&request.group) {
            Some(group) => group.offsets.fetch(request.topics, pending),
            None => Offsets::default().fetch(request.topics, pending),
        }
    }

    /// The group, made if it is not there.
    fn group_mut(&mut self, id: &str) -> &mut Group {
        let id = self.groups.get(id).map_or_else(|| id.into(), |group| group.id.clone());
        self.groups.entry(id).or_insert_with_key(|id| Group { id: id.clone(), ..Group::new("") })
    }

    /// An offset of the group from now on, or with `None` no longer one.
    fn set_offset(&mut self, group: &str, topic: &str, partition: PartitionIndex, value: Option<OffsetValue>) {
        match value {
            Some(value) => self.group_mut(group).offsets.insert(topic, partition, value),
            None => {
                if let Some(group) = self.groups.get_mut(group) {
                    group.offsets.remove(topic, partition);
                }
            }
        }
    }

    fn drop_if_vacant(&mut self, group: &str) {
        let pending = self.pending.of(group);
        if self.groups.get(group).is_some_and(|group| group.is_vacant(pending)) {
            self.groups.remove(group);
        }
    }
}

fn forget_offsets<'a>(
    group: &str,
    offsets: impl IntoIterator<Item = &'a (Arc<str>, PartitionIndex)>,
    out: &mut Outcome<GroupReply>,
) {
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

    fn access(request: &GroupRequest) -> Access {
        match request {
            GroupRequest::Heartbeat(_) => Access::Presence,
            GroupRequest::Fetch(_) | GroupRequest::Describe { .. } | GroupRequest::List(_) => Access::Read,
            GroupRequest::Join(_)
            | GroupRequest::Sync(_)
            | GroupRequest::Leave(_)
            | GroupRequest::Commit(_)
            | GroupRequest::TxnCommit(_)
            | GroupRequest::Delete { .. }
            | GroupRequest::DeleteOffsets { .. }
            | GroupRequest::EndTransaction { .. } => Access::Write,
            GroupRequest::TopicsDeleted { .. } => Access::WriteOnce,
        }
    }

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
            GroupRequest::TxnCommit(request) => GroupReply::Commit(self.txn_commit(now, request, out)),
            GroupRequest::Fetch(request) => GroupReply::Fetch(self.fetch(request)),
            GroupRequest::Describe { group } => {
                GroupReply::Describe(self.groups.get(&group).map(|group| group.classic.describe()))
            }
            GroupRequest::List(request) => GroupReply::List(self.list(&request)),
            GroupRequest::Delete { group } => GroupReply::Delete(self.delete(&group, out)),
            GroupRequest::DeleteOffsets { group, offsets } => {
                GroupReply::DeleteOffsets(self.delete_offsets(&group, &offsets, out))
            }
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
                let gone = value.is_none();
                self.pending.replace(group, topic, partition);
                self.set_offset(group, topic, partition, value);
                if gone {
                    self.drop_if_vacant(group);
                }
            }
            Key::Group { group } => match record.value.as_deref().map(records::read_group).transpose()? {
                Some(value) => self.group_mut(group).classic.apply(value),
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

    fn replay_in_transaction(
        &mut self,
        producer_id: ProducerId,
        record: &CoordinatorRecord,
    ) -> Result<(), ReplayError> {
        let Key::Offset { group, topic, partition } = records::read_key(&record.key)? else {
            return Err(ReplayError::Transactional);
        };
        let value = record.value.as_deref().map(records::read_offset).transpose()?;
        let id = self.group_mut(group).id.clone();
        self.pending.add(producer_id, &id, topic, partition, value);
        self.drop_if_vacant(group);
        Ok(())
    }

    fn replay_marker(&mut self, marker: &TransactionMarker) -> Result<(), ReplayError> {
        let committed = marker.result == TransactionResult::Commit;
        for ended in self.pending.end(marker.producer_id, committed) {
            for (topic, partition, value) in ended.offsets {
                self.set_offset(&ended.group, &topic, partition, value);
            }
            self.drop_if_vacant(&ended.group);
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
