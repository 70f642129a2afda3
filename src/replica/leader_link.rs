//! SEAM: how a follower reaches the leader of its partitions. Plain types of a follower's Fetch, in both directions:
//! the leader's end is [`super::follower_fetch`], in process or behind a connection of `peer`.
//!
//! Fetch sessions (KIP-227) are part of the seam: an ask that goes on with a session names only what has changed since
//! the one before, and its answer only what has news. The follower's end of them is `fetcher::session`, the leader's
//! [`super::follower_session`]. Source: Kafka 3.9 `LeaderEndPoint`, `FetchSessionHandler`.

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::future::BoxFuture;

pub(crate) use super::sessions::{FetchKey, SessionError, TopicRef};
pub(crate) use crate::storage::PartitionId;
use crate::types::place::Place;
use crate::types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset};

/// A follower's fetch.
#[derive(Debug, Clone)]
pub(crate) struct FetchAsk {
    pub(crate) replica: BrokerId,
    /// Of the follower's registration (KIP-903); [`BrokerEpoch::NONE`] below version 15.
    pub(crate) replica_epoch: BrokerEpoch,
    pub(crate) max_wait_ms: i32,
    pub(crate) min_bytes: i32,
    /// Over all partitions; the first batch of the answer may exceed it.
    pub(crate) max_bytes: i32,
    pub(crate) session: SessionAsk,
    /// Topics are named, not identified: one of them has no id. Below version 13.
    pub(crate) by_name: bool,
    /// All that are wanted, or, of an incremental fetch, those that are new or are asked for elsewhere than before.
    pub(crate) partitions: Vec<PartitionAsk>,
    /// Which an incremental fetch does not want any more.
    pub(crate) forgotten: Vec<PartitionId>,
}

/// The session of a fetch, as it is on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SessionAsk {
    /// 0: none. A full fetch that names one closes it.
    pub(crate) id: i32,
    /// −1: a full fetch outside of sessions; 0: a full one that wants a session; above: the incremental one that the
    /// session expects.
    pub(crate) epoch: i32,
}

impl SessionAsk {
    const FINAL_EPOCH: i32 = -1;
    const INITIAL_EPOCH: i32 = 0;
    /// Everything is named, and there is no session.
    pub(crate) const NONE: Self = Self { id: 0, epoch: Self::FINAL_EPOCH };

    /// Everything is named, and the next fetches are to be incremental. `closing`: the session before, if not 0.
    pub(crate) fn open(closing: i32) -> Self {
        Self { id: closing, epoch: Self::INITIAL_EPOCH }
    }

    /// Whether it names everything that is wanted.
    pub(crate) fn is_full(self) -> bool {
        self.epoch == Self::INITIAL_EPOCH || self.epoch == Self::FINAL_EPOCH
    }

    pub(crate) fn opens(self) -> bool {
        self.epoch == Self::INITIAL_EPOCH
    }
}

/// What a follower wants of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionAsk {
    /// The topic's name is empty where whoever passes on the ask does not know it.
    pub(crate) id: PartitionId,
    /// Everything below it is written at the follower (I-5).
    pub(crate) fetch_offset: Offset,
    /// Epoch of the follower's last batch; `None` if its log is empty, or below version 12.
    pub(crate) last_fetched_epoch: Option<LeaderEpoch>,
    /// The leader epoch that the follower follows; `None` is the wire's −1.
    pub(crate) leader_epoch: Option<LeaderEpoch>,
    pub(crate) log_start_offset: Offset,
    pub(crate) max_bytes: i32,
}

/// The answer to [`FetchAsk`]. A partition that has nothing to say may be missing.
#[derive(Debug, Default)]
pub(crate) struct FetchAnswer {
    /// With which to go on; 0: none.
    pub(crate) session_id: i32,
    pub(crate) partitions: Vec<(FetchKey, Result<Fetched, FetchRefused>)>,
}

/// One partition of a good answer. Positions are those of before the read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fetched {
    pub(crate) high_watermark: Offset,
    pub(crate) log_start_offset: Offset,
    /// The follower's log parts from the leader's: the largest epoch of the leader's that is not above the one that was
    /// asked with, and where it ended. There are no records then.
    pub(crate) diverging: Option<(LeaderEpoch, Offset)>,
    /// Whole batches that follow each other, each piece a slice of what it came in; the last may be cut off.
    pub(crate) records: Vec<Place>,
}

/// Why a partition was not read. Codes are those of the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FetchRefused {
    /// OFFSET_OUT_OF_RANGE (1)
    #[error("offset out of range")]
    OffsetOutOfRange,
    /// UNKNOWN_TOPIC_OR_PARTITION (3)
    #[error("unknown partition")]
    UnknownPartition,
    /// NOT_LEADER_OR_FOLLOWER (6)
    #[error("not the leader")]
    NotLeader,
    /// KAFKA_STORAGE_ERROR (56)
    #[error("the leader's storage failed")]
    Storage,
    /// FENCED_LEADER_EPOCH (74)
    #[error("fenced leader epoch")]
    FencedLeaderEpoch,
    /// UNKNOWN_LEADER_EPOCH (75): of the future, or the follower is not among the replicas yet.
    #[error("unknown leader epoch")]
    UnknownLeaderEpoch,
    /// UNKNOWN_TOPIC_ID (100)
    #[error("unknown topic id")]
    UnknownTopicId,
    /// INCONSISTENT_TOPIC_ID (103)
    #[error("inconsistent topic id")]
    InconsistentTopicId,
    #[error("error code {0}")]
    Other(i16),
}

/// Which end of a log ListOffsets asks for, as a replica does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LogEnd {
    /// Log start offset.
    Earliest,
    /// Log end offset, above the high watermark, too.
    Latest,
}

/// Nothing came back, or nothing that can be read: the connection is closed and the ask may be made again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct LinkError(pub(crate) String);

/// Follower → leader. One ask at a time per link; one that is dropped may have been counted by the leader.
pub(crate) trait LeaderLink: Debug + Send + Sync + 'static {
    /// The inner error: the leader does not know the session as the follower does. Nothing was read.
    fn fetch(&self, ask: FetchAsk) -> BoxFuture<'_, Result<Result<FetchAnswer, SessionError>, LinkError>>;

    /// ListOffsets of one partition under the follower's leader epoch.
    fn list_offset(
        &self,
        id: PartitionId,
        leader_epoch: LeaderEpoch,
        end: LogEnd,
    ) -> BoxFuture<'_, Result<Result<Offset, FetchRefused>, LinkError>>;
}

/// Where links to leaders come from. `fetcher` numbers the connections to one broker.
pub(crate) trait LeaderLinks: Debug + Send + Sync + 'static {
    fn link(&self, leader: BrokerId, fetcher: u16) -> Arc<dyn LeaderLink>;
}
