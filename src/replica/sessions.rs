//! Fetch sessions (KIP-227): what a client asked for last time, so that it need only say what changed.
//!
//! Source: Kafka 3.9 `FetchSession`, `FetchManager`. A session is checked out by the one request that uses it; its
//! partitions keep the order in which the client named them, and those that were answered move to the end.

use std::collections::HashMap;
use std::sync::Arc;

use indexmap::IndexMap;
use parking_lot::Mutex;

use crate::clock::UnixMs;
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
    /// A full fetch that opened a session.
    New(Arc<Mutex<Session>>),
    /// Only what changed is answered.
    Incremental(Arc<Mutex<Session>>),
}

#[derive(Debug)]
struct Slot {
    session: Arc<Mutex<Session>>,
    used_ms: UnixMs,
    privileged: bool,
}

/// All sessions of this broker, bounded.
#[derive(Debug)]
pub(crate) struct Sessions {
    slots_max: usize,
    slots: Mutex<HashMap<i32, Slot>>,
}

/// A session younger than this is not evicted for a new one. Source: `min.incremental.fetch.session.eviction.ms`.
const EVICTION_MS: i64 = 120_000;

const FINAL_EPOCH: i32 = -1;

fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

impl Sessions {
    /// At most `slots_max` sessions, `max.incremental.fetch.session.cache.slots`.
    pub(crate) fn new(slots_max: usize) -> Self {
        Self { slots_max, slots: Mutex::default() }
    }

    /// Finds or opens the session a request names and merges what it asks. `random` is a fresh random number for a new
    /// session's id. The answer holds the partitions to read, in order.
    #[expect(clippy::too_many_arguments, reason = "the fields of one request")]
    pub(crate) fn enter(
        &self,
        session_id: i32,
        epoch: i32,
        by_id: bool,
        wanted: Vec<(FetchKey, Wanted)>,
        forgotten: &[FetchKey],
        now: UnixMs,
        random: u128,
    ) -> Result<(Use, Vec<(FetchKey, Wanted)>), SessionError> {
        if epoch == 0 || epoch == FINAL_EPOCH {
            if session_id != 0 {
                self.slots.lock().remove(&session_id);
            }
            if epoch == FINAL_EPOCH || wanted.is_empty() {
                return Ok((Use::Sessionless, wanted));
            }
            return Ok(match self.open(by_id, &wanted, now, random) {
                Some(session) => (Use::New(session), wanted),
                None => (Use::Sessionless, wanted),
            });
        }
        let session = {
            let mut slots = self.slots.lock();
            let slot = slots.get_mut(&session_id).ok_or(SessionError::NotFound)?;
            slot.used_ms = now;
            Arc::clone(&slot.session)
        };
        let mut state = session.lock();
        if state.epoch != epoch {
            return Err(SessionError::InvalidEpoch);
        }
        if state.by_id != by_id {
            return Err(SessionError::TopicIdError);
        }
        for (key, want) in wanted {
            state.partitions.entry(key).and_modify(|(known, _)| *known = want.clone()).or_insert((want, TOLD_NOTHING));
        }
        for key in forgotten {
            state.partitions.shift_remove(key);
        }
        state.epoch = next_epoch(state.epoch);
        let to_read: Vec<_> = state.partitions.iter().map(|(key, (want, _))| (key.clone(), want.clone())).collect();
        drop(state);
        if to_read.is_empty() {
            self.slots.lock().remove(&session_id);
            return Ok((Use::Sessionless, to_read));
        }
        Ok((Use::Incremental(session), to_read))
    }

    fn open(
        &self,
        by_id: bool,
        wanted: &[(FetchKey, Wanted)],
        now: UnixMs,
        random: u128,
    ) -> Option<Arc<Mutex<Session>>> {
        let mut slots = self.slots.lock();
        if slots.len() >= self.slots_max {
            let oldest = slots
                .iter()
                .filter(|(_, s)| !s.privileged)
                .min_by_key(|(_, s)| s.used_ms)
                .map(|(id, s)| (*id, s.used_ms));
            match oldest {
                Some((id, used_ms)) if now - used_ms >= EVICTION_MS => drop(slots.remove(&id)),
                _ => return None,
            }
        }
        let mut id = (random as i32 & i32::MAX).max(1);
        while slots.contains_key(&id) {
            id = if id == i32::MAX { 1 } else { id + 1 };
        }
        let partitions = wanted.iter().map(|(key, want)| (key.clone(), (want.clone(), TOLD_NOTHING))).collect();
        let session = Arc::new(Mutex::new(Session { id, epoch: 1, by_id, partitions }));
        slots.insert(id, Slot { session: Arc::clone(&session), used_ms: now, privileged: false });
        Some(session)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.slots.lock().len()
    }
}

impl Session {
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

    fn key(partition: i32) -> FetchKey {
        (TopicRef::Name("t".into()), PartitionIndex(partition))
    }

    fn want(offset: i64) -> Wanted {
        Wanted {
            fetch_offset: Offset(offset),
            partition_max_bytes: 1,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            log_start_offset: Offset::NONE,
        }
    }

    fn open(sessions: &Sessions, random: u128) -> i32 {
        let (used, _) =
            sessions.enter(0, 0, false, vec![(key(0), want(0)), (key(1), want(0))], &[], 0, random).unwrap();
        match used {
            Use::New(session) => session.lock().id,
            _ => 0,
        }
    }

    #[test]
    fn an_incremental_fetch_reads_what_was_named_before_and_since() {
        let sessions = Sessions::new(10);
        let id = open(&sessions, 7);
        let (_, read) = sessions.enter(id, 1, false, vec![(key(1), want(5))], &[key(0)], 0, 0).unwrap();
        assert_eq!(read, vec![(key(1), want(5))]);
    }

    #[test]
    fn epochs_and_ids_are_checked() {
        let sessions = Sessions::new(10);
        let id = open(&sessions, 7);
        assert_eq!(sessions.enter(99, 1, false, vec![], &[], 0, 0).unwrap_err(), SessionError::NotFound);
        assert_eq!(sessions.enter(id, 2, false, vec![], &[], 0, 0).unwrap_err(), SessionError::InvalidEpoch);
        assert_eq!(sessions.enter(id, 1, true, vec![], &[], 0, 0).unwrap_err(), SessionError::TopicIdError);
    }

    #[test]
    fn a_full_fetch_that_names_a_session_closes_it_and_so_does_forgetting_everything() {
        let sessions = Sessions::new(10);
        let id = open(&sessions, 7);
        sessions.enter(id, FINAL_EPOCH, false, vec![(key(0), want(0))], &[], 0, 0).unwrap();
        assert_eq!(sessions.len(), 0);
        let id = open(&sessions, 8);
        sessions.enter(id, 1, false, vec![], &[key(0), key(1)], 0, 0).unwrap();
        assert_eq!(sessions.len(), 0);
    }

    #[test]
    fn a_full_cache_answers_without_a_session_until_one_is_old() {
        let sessions = Sessions::new(1);
        assert_ne!(open(&sessions, 7), 0);
        assert_eq!(open(&sessions, 8), 0);
        let (used, _) = sessions.enter(0, 0, false, vec![(key(0), want(0))], &[], EVICTION_MS, 9).unwrap();
        assert!(matches!(used, Use::New(_)));
        assert_eq!(sessions.len(), 1);
    }

    #[test]
    fn unchanged_partitions_are_not_told_again() {
        let sessions = Sessions::new(1);
        let (used, _) = sessions.enter(0, 0, false, vec![(key(0), want(0))], &[], 0, 7).unwrap();
        let Use::New(session) = used else { panic!("a session") };
        let told = Told { high_watermark: 4, log_start_offset: 0 };
        let mut session = session.lock();
        assert!(session.must_tell(&key(0), told, false, false));
        assert!(!session.must_tell(&key(0), told, false, false));
        assert!(session.must_tell(&key(0), told, true, false));
        assert!(session.must_tell(&key(0), told, false, true));
        assert!(session.must_tell(&key(0), told, false, false), "the end of an error is told");
    }
}
