//! A member of a classic group.

use std::sync::Arc;

use bytes::Bytes;

use crate::coordinator::group::records::MemberValue;
use crate::coordinator::shard::Ticket;

/// A member of a classic group: what it said when it joined, what it waits for, and when it is given up.
#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: Arc<str>,
    /// Set for a static member (KIP-345).
    pub(crate) instance_id: Option<Arc<str>>,
    pub(crate) client_id: Arc<str>,
    pub(crate) client_host: Arc<str>,
    pub(crate) rebalance_timeout_ms: i32,
    pub(crate) session_timeout_ms: i32,
    /// Name and metadata, most preferred first.
    pub(crate) protocols: Vec<(String, Bytes)>,
    pub(crate) assignment: Bytes,
    pub(crate) awaiting_join: Option<Ticket>,
    pub(crate) awaiting_sync: Option<Ticket>,
    /// Has not seen a JoinGroup response yet, so it cannot send heartbeats.
    pub(crate) is_new: bool,
    /// Monotonic; not enforced while [`Member::is_waiting`].
    pub(crate) deadline_ms: i64,
}

impl Member {
    /// A member as it was stored, nothing awaited. Its deadline is set when loading ends.
    pub(crate) fn stored(value: MemberValue, protocol: &str) -> Self {
        Self {
            id: value.member_id,
            instance_id: value.instance_id,
            client_id: value.client_id,
            client_host: value.client_host,
            rebalance_timeout_ms: value.rebalance_timeout_ms,
            session_timeout_ms: value.session_timeout_ms,
            protocols: vec![(protocol.to_owned(), value.subscription)],
            assignment: value.assignment,
            awaiting_join: None,
            awaiting_sync: None,
            is_new: false,
            deadline_ms: i64::MAX,
        }
    }

    pub(crate) fn is_static(&self) -> bool {
        self.instance_id.is_some()
    }

    /// While the coordinator owes it an answer, a member need not send heartbeats. A new member is still given up in
    /// time, because a client that has gone away would be replaced by another new member with every retry.
    /// Source: Kafka 3.9 `MemberMetadata.hasSatisfiedHeartbeat`.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.is_new && (self.awaiting_join.is_some() || self.awaiting_sync.is_some())
    }

    /// Its metadata for a protocol; empty if it does not name it.
    pub(crate) fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols.iter().find(|(name, _)| name == protocol).map_or_else(Bytes::new, |(_, data)| data.clone())
    }

    /// Bytes of metadata that it holds.
    pub(crate) fn metadata_bytes(&self) -> usize {
        protocol_bytes(&self.protocols)
    }
}

/// Bytes that a list of protocols takes.
pub(crate) fn protocol_bytes(protocols: &[(String, Bytes)]) -> usize {
    protocols.iter().map(|(name, metadata)| name.len() + metadata.len()).sum()
}
