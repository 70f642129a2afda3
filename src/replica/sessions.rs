//! Fetch sessions (KIP-227): what a client asked for last time, so that it need only say what changed.
//!
//! Those of consumers: one is checked out by the one request that uses it; its partitions keep the order in which the
//! client named them, and those that were answered move to the end. Those of followers are
//! [`super::follower_session`]'s, and all of them are in [`super::session_cache`]. Source: Kafka 3.9 `FetchSession`.

use std::collections::HashSet;
use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::Mutex;

use crate::types::{Offset, PartitionIndex, TopicId, TopicName};

/// A partition by what the client calls it: a name up to version 12, an id from 13 on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum TopicRef {
    Name(TopicName),
    Id(TopicId),
}

pub(crate) type FetchKey = (TopicRef, PartitionIndex);

/// What is wanted of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) fetch_offset: Offset,
    pub(crate) partition_max_bytes: i32,
    /// −1: not checked.
    pub(crate) current_leader_epoch: i32,
    /// −1: no divergence check.
    pub(crate) last_fetched_epoch: i32,
    pub(crate) log_start_offset: Offset,
}

/// What the client was told of one partition last time; −1 before the first answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Told {
    pub(crate) high_watermark: i64,
    pub(crate) log_start_offset: i64,
}

/// Before anything was told.
pub(crate) const TOLD_NOTHING: Told = Told { high_watermark: -1, log_start_offset: -1 };

#[derive(Debug)]
pub(crate) struct Session {
    pub(crate) id: i32,
    /// Epoch the next request must carry.
    epoch: i32,
    by_id: bool,
    partitions: IndexMap<FetchKey, (Wanted, Told)>,
}

/// Why a session request is refused, as a top-level error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionError {
    #[error("no such fetch session")]
    NotFound,
    #[error("the fetch session is at another epoch")]
    InvalidEpoch,
    #[error("a fetch session may not mix topic names and topic ids")]
    TopicIdError,
}

/// How a request uses sessions.
#[derive(Debug)]
pub(crate) enum Use {
    /// Answered with session id 0 and every partition.
    Sessionless,
    /// A full fetch, whose answer opens a session: one whose answer nobody gets leaves none behind.
    Full { by_id: bool },
    /// Only what changed is answered.
    Incremental(Arc<Mutex<Session>>),
}

/// The epoch of a session's first incremental fetch.
pub(super) const FIRST_EPOCH: i32 = 1;

/// The epoch of the fetch after one of this epoch.
pub(crate) fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { FIRST_EPOCH } else { epoch + 1 }
}

impl Session {
    /// One that a full fetch opens.
    pub(crate) fn new<'a>(by_id: bool, wanted: impl Iterator<Item = (&'a FetchKey, &'a Wanted)>) -> Self {
        let partitions = wanted.map(|(key, want)| (key.clone(), (want.clone(), TOLD_NOTHING))).collect();
        Self { id: 0, epoch: FIRST_EPOCH, by_id, partitions }
    }

    pub(super) fn len(&self) -> usize {
        self.partitions.len()
    }

    /// Merges what an incremental fetch asks. Gives the partitions to read, in order.
    pub(super) fn go_on(
        &mut self,
        epoch: i32,
        by_id: bool,
        wanted: Vec<(FetchKey, Wanted)>,
        forgotten: &[FetchKey],
    ) -> Result<Vec<(FetchKey, Wanted)>, SessionError> {
        if self.epoch != epoch {
            return Err(SessionError::InvalidEpoch);
        }
        if self.by_id != by_id {
            return Err(SessionError::TopicIdError);
        }
        for (key, want) in wanted {
            self.partitions.entry(key).and_modify(|(known, _)| *known = want.clone()).or_insert((want, TOLD_NOTHING));
        }
        if !forgotten.is_empty() {
            let forgotten: HashSet<_> = forgotten.iter().collect();
            self.partitions.retain(|key, _| !forgotten.contains(key));
        }
        self.epoch = next_epoch(self.epoch);
        Ok(self.partitions.iter().map(|(key, (want, _))| (key.clone(), want.clone())).collect())
    }

    /// Whether an incremental answer must name the partition: it has data or an error, or its positions moved.
    /// Remembers what is told, and moves a partition with data to the end so that the others get their turn.
    pub(crate) fn must_tell(&mut self, key: &FetchKey, told: Told, has_data: bool, has_error: bool) -> bool {
        let Some(index) = self.partitions.get_index_of(key) else { return has_data || has_error };
        let (_, known) = &mut self.partitions[index];
        let changed = *known != told;
        // After an error the next answer must say that it is over. Source: FetchSession.maybeUpdateResponseData.
        *known = if has_error { TOLD_NOTHING } else { told };
        if has_data {
            let last = self.partitions.len() - 1;
            self.partitions.move_index(index, last);
        }
        has_data || has_error || changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unchanged_partitions_are_not_told_again() {
        let key = (TopicRef::Name("t".into()), PartitionIndex(0));
        let want = Wanted {
            fetch_offset: Offset(0),
            partition_max_bytes: 1,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            log_start_offset: Offset::NONE,
        };
        let mut session = Session::new(false, [(&key, &want)].into_iter());
        let told = Told { high_watermark: 4, log_start_offset: 0 };
        assert!(session.must_tell(&key, told, false, false));
        assert!(!session.must_tell(&key, told, false, false));
        assert!(session.must_tell(&key, told, true, false));
        assert!(session.must_tell(&key, told, false, true));
        assert!(session.must_tell(&key, told, false, false), "the end of an error is told");
    }
}
