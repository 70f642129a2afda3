//! What may be asked of a group, and the answers, in the coordinator's own types.

use std::sync::Arc;

use bytes::Bytes;

use super::error::GroupError;
use crate::coordinator::writer::InTransaction;
use crate::types::{LeaderEpoch, Offset, PartitionIndex, TopicName, TransactionMarker};

/// A request to the shard that keeps the group.
#[derive(Debug)]
pub(crate) enum GroupRequest {
    Join(JoinRequest),
    Sync(SyncRequest),
    Heartbeat(HeartbeatRequest),
    Leave(LeaveRequest),
    Commit(CommitRequest),
    /// Answered by [`GroupReply::Commit`].
    TxnCommit(TxnCommitRequest),
    Fetch(FetchRequest),
    Describe {
        group: Arc<str>,
    },
    List(ListRequest),
    Delete {
        group: Arc<str>,
    },
    DeleteOffsets {
        group: Arc<str>,
        offsets: Vec<(TopicName, PartitionIndex)>,
    },
    TopicsDeleted {
        topics: Arc<[TopicName]>,
    },
    /// A transaction that committed offsets here has ended.
    EndTransaction {
        marker: TransactionMarker,
    },
}

/// The answer to a [`GroupRequest`], of the same name.
#[derive(Debug)]
pub(crate) enum GroupReply {
    Join(JoinReply),
    Sync(SyncReply),
    Heartbeat(Result<(), GroupError>),
    Leave(Vec<Result<(), GroupError>>),
    Commit(CommitReply),
    Fetch(FetchReply),
    Describe(Option<GroupDescription>),
    List(Vec<GroupListing>),
    Delete(Result<(), GroupError>),
    /// One result per offset, in order.
    DeleteOffsets(Result<Vec<Result<(), GroupError>>, GroupError>),
    TopicsDeleted,
    EndTransaction,
}

/// JoinGroup.
#[derive(Debug, Clone)]
pub(crate) struct JoinRequest {
    pub(crate) group: Arc<str>,
    /// Empty: a new member.
    pub(crate) member_id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) client_id: Arc<str>,
    /// As Java prints an address, `/127.0.0.1`.
    pub(crate) client_host: Arc<str>,
    pub(crate) session_timeout_ms: i32,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) protocol_type: String,
    /// Name and metadata, most preferred first.
    pub(crate) protocols: Vec<(String, Bytes)>,
    /// A new dynamic member has to come back with the id it is given (KIP-394, JoinGroup 4 and up).
    pub(crate) require_known_member_id: bool,
    /// The client understands `skip_assignment` (KIP-814, JoinGroup 9).
    pub(crate) can_skip_assignment: bool,
    /// Why the client joins; logged only.
    pub(crate) reason: Option<String>,
    /// Randomness for a member id.
    pub(crate) random: u128,
}

/// The answer to JoinGroup. On an error only `member_id` has a meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinReply {
    pub(crate) error: Option<GroupError>,
    /// −1 on an error.
    pub(crate) generation_id: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    /// Empty on an error.
    pub(crate) leader: Arc<str>,
    pub(crate) skip_assignment: bool,
    pub(crate) member_id: Arc<str>,
    /// For the leader alone.
    pub(crate) members: Vec<JoinedMember>,
}

impl JoinReply {
    pub(crate) fn refused(member_id: &Arc<str>, error: GroupError) -> Self {
        Self {
            error: Some(error),
            generation_id: -1,
            protocol_type: None,
            protocol: None,
            leader: "".into(),
            skip_assignment: false,
            member_id: member_id.clone(),
            members: Vec::new(),
        }
    }
}

/// A member as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JoinedMember {
    pub(crate) member_id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) metadata: Bytes,
}

/// SyncGroup.
#[derive(Debug, Clone)]
pub(crate) struct SyncRequest {
    pub(crate) group: Arc<str>,
    pub(crate) member_id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) generation_id: i32,
    /// Checked if given (SyncGroup 5).
    pub(crate) protocol_type: Option<String>,
    /// Checked if given (SyncGroup 5).
    pub(crate) protocol: Option<String>,
    /// Member id and assignment; from the leader.
    pub(crate) assignments: Vec<(Arc<str>, Bytes)>,
}

/// The answer to SyncGroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SyncReply {
    pub(crate) error: Option<GroupError>,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) assignment: Bytes,
}

impl SyncReply {
    pub(crate) fn refused(error: GroupError) -> Self {
        Self { error: Some(error), protocol_type: None, protocol: None, assignment: Bytes::new() }
    }
}

/// Heartbeat.
#[derive(Debug, Clone)]
pub(crate) struct HeartbeatRequest {
    pub(crate) group: Arc<str>,
    pub(crate) member_id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) generation_id: i32,
}

/// LeaveGroup; the answer has one result per member, in order.
#[derive(Debug, Clone)]
pub(crate) struct LeaveRequest {
    pub(crate) group: Arc<str>,
    pub(crate) members: Vec<LeavingMember>,
}

/// Who leaves: by member id, or, removed by an administrator, by instance id with an empty member id.
#[derive(Debug, Clone)]
pub(crate) struct LeavingMember {
    pub(crate) member_id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    /// Logged only.
    pub(crate) reason: Option<String>,
}

/// OffsetCommit.
#[derive(Debug, Clone)]
pub(crate) struct CommitRequest {
    pub(crate) group: Arc<str>,
    /// Empty for a simple consumer.
    pub(crate) member_id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    /// −1 for a simple consumer.
    pub(crate) generation_id: i32,
    /// OffsetCommit 2 to 4, unless −1.
    pub(crate) retention_ms: Option<i64>,
    pub(crate) offsets: Vec<CommittedOffset>,
}

/// TxnOffsetCommit: offsets that count once the producer's transaction is committed.
#[derive(Debug, Clone)]
pub(crate) struct TxnCommitRequest {
    pub(crate) group: Arc<str>,
    /// Empty from a producer that does not know the consumer's (TxnOffsetCommit 0 to 2).
    pub(crate) member_id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    /// −1 from a producer that does not know the consumer's.
    pub(crate) generation_id: i32,
    pub(crate) transaction: InTransaction,
    pub(crate) offsets: Vec<CommittedOffset>,
}

/// One offset to commit. The partition has been checked to exist.
#[derive(Debug, Clone)]
pub(crate) struct CommittedOffset {
    pub(crate) topic: TopicName,
    pub(crate) partition: PartitionIndex,
    pub(crate) offset: Offset,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) metadata: Option<Box<str>>,
}

/// The answer to OffsetCommit.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct CommitReply {
    /// For every offset that is not named in `too_long`.
    pub(crate) error: Option<GroupError>,
    /// Indices of the offsets whose metadata is too long; ascending.
    pub(crate) too_long: Vec<usize>,
}

impl CommitReply {
    /// The error of the offset at this index of the request.
    pub(crate) fn error_of(&self, index: usize) -> Option<GroupError> {
        match self.too_long.binary_search(&index) {
            Ok(_) => Some(GroupError::OffsetMetadataTooLarge),
            Err(_) => self.error,
        }
    }
}

/// OffsetFetch of one group.
#[derive(Debug, Clone)]
pub(crate) struct FetchRequest {
    pub(crate) group: Arc<str>,
    /// `None`: all that the group has committed.
    pub(crate) topics: Option<Vec<(TopicName, Vec<PartitionIndex>)>>,
    /// Refuse the offsets that an open transaction has committed (OffsetFetch 7 and up, KIP-447).
    pub(crate) require_stable: bool,
}

/// The answer to OffsetFetch: topics in the order asked, or by name.
pub(crate) type FetchReply = Vec<(TopicName, Vec<FetchedOffset>)>;

/// One committed offset; [`Offset::NONE`] when there is none, or on an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FetchedOffset {
    pub(crate) partition: PartitionIndex,
    pub(crate) offset: Offset,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) metadata: Box<str>,
    pub(crate) error: Option<GroupError>,
}

/// ListGroups of one shard.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListRequest {
    /// Lower-case state names; empty: all states.
    pub(crate) states: Vec<String>,
    /// Lower-case group types; empty: all types.
    pub(crate) types: Vec<String>,
}

/// A line of ListGroups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupListing {
    pub(crate) group: Arc<str>,
    pub(crate) protocol_type: String,
    pub(crate) state: &'static str,
    /// `classic`
    pub(crate) group_type: &'static str,
}

/// DescribeGroups of one group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupDescription {
    pub(crate) state: &'static str,
    pub(crate) protocol_type: String,
    /// Empty unless the group is stable.
    pub(crate) protocol: String,
    pub(crate) members: Vec<DescribedMember>,
}

/// A member in DescribeGroups; metadata and assignment are empty unless the group is stable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribedMember {
    pub(crate) member_id: Arc<str>,
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) client_id: Arc<str>,
    pub(crate) client_host: Arc<str>,
    pub(crate) metadata: Bytes,
    pub(crate) assignment: Bytes,
}
