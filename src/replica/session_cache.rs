//! All fetch sessions of this broker, bounded: those of consumers, and those of followers, which are privileged and
//! push consumers' out. Source: Kafka 3.9 `FetchManager`, `FetchSessionCache`.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::follower_session::FollowerSession;
use super::sessions::{FetchKey, Session, SessionError, Use, Wanted};
use crate::clock::UnixMs;

#[derive(Debug, Clone)]
enum Held {
    Consumer(Arc<Mutex<Session>>),
    Follower(Arc<FollowerSession>),
}

impl Held {
    fn len(&self) -> usize {
        match self {
            Self::Consumer(session) => session.lock().len(),
            Self::Follower(session) => session.len(),
        }
    }

    fn is_privileged(&self) -> bool {
        matches!(self, Self::Follower(_))
    }
}

#[derive(Debug)]
struct Slot {
    held: Held,
    used_ms: UnixMs,
    created_ms: UnixMs,
}

/// All sessions of this broker, bounded.
#[derive(Debug)]
pub(crate) struct Sessions {
    slots_max: usize,
    slots: Mutex<BTreeMap<i32, Slot>>,
}

/// A session that was not used for longer than this may be evicted, and one older than this even by a consumer's.
/// Source: `min.incremental.fetch.session.eviction.ms`.
const EVICTION_MS: i64 = 120_000;

/// Partitions in all sessions, some 100 bytes each. A consumer that asks for more than there is room for goes on
/// without a session. A choice of our own: Kafka bounds the sessions alone.
const PARTITIONS_MAX: usize = if cfg!(test) { 100 } else { 1_000_000 };

const FINAL_EPOCH: i32 = -1;

impl Sessions {
    /// At most `slots_max` sessions, `max.incremental.fetch.session.cache.slots`.
    pub(crate) fn new(slots_max: usize) -> Self {
        Self { slots_max, slots: Mutex::default() }
    }

    /// Finds the session a request names and merges what it asks. The answer holds the partitions to read, in order.
    pub(crate) fn enter(
        &self,
        session_id: i32,
        epoch: i32,
        by_id: bool,
        wanted: Vec<(FetchKey, Wanted)>,
        forgotten: &[FetchKey],
        now: UnixMs,
    ) -> Result<(Use, Vec<(FetchKey, Wanted)>), SessionError> {
        if epoch == 0 || epoch == FINAL_EPOCH {
            self.close(session_id);
            if epoch == FINAL_EPOCH || wanted.is_empty() {
                return Ok((Use::Sessionless, wanted));
            }
            return Ok((Use::Full { by_id }, wanted));
        }
        let session = {
            let mut slots = self.slots.lock();
            let slot = slots.get_mut(&session_id).ok_or(SessionError::NotFound)?;
            let Held::Consumer(session) = &slot.held else { return Err(SessionError::NotFound) };
            slot.used_ms = now;
            Arc::clone(session)
        };
        let before = session.lock().len();
        let to_read = session.lock().go_on(epoch, by_id, wanted, forgotten)?;
        if to_read.len() > before && self.partitions() > PARTITIONS_MAX {
            self.close(session_id);
            return Err(SessionError::NotFound);
        }
        if to_read.is_empty() {
            self.close(session_id);
            return Ok((Use::Sessionless, to_read));
        }
        Ok((Use::Incremental(session), to_read))
    }

    /// Keeps a consumer's session. Gives its id, which follows from a fresh random number; 0: there is no room.
    pub(crate) fn open(&self, session: Session, now: UnixMs, random: u128) -> i32 {
        if session.len() + self.partitions() > PARTITIONS_MAX {
            return 0;
        }
        let session = Arc::new(Mutex::new(session));
        // Nobody knows the id yet.
        let id = self.keep(Held::Consumer(Arc::clone(&session)), now, random).unwrap_or(0);
        session.lock().id = id;
        id
    }

    /// Of all sessions.
    fn partitions(&self) -> usize {
        self.slots.lock().values().map(|slot| slot.held.len()).sum()
    }

    /// Keeps a follower's session, and drops those of its earlier registrations, which nobody will go on with. Gives
    /// its id; `None`: there is no room.
    pub(super) fn open_for_follower(&self, session: &Arc<FollowerSession>, now: UnixMs, random: u128) -> Option<i32> {
        let (replica, epoch) = (session.replica, session.replica_epoch());
        let outlived: Vec<Slot> = {
            let mut slots = self.slots.lock();
            let is_outlived = |slot: &Slot| match &slot.held {
                Held::Follower(other) => other.is_of_earlier(replica, epoch),
                Held::Consumer(_) => false,
            };
            let ids: Vec<i32> = slots.iter().filter(|(_, slot)| is_outlived(slot)).map(|(id, _)| *id).collect();
            ids.iter().filter_map(|id| slots.remove(id)).collect()
        };
        drop(outlived);
        self.keep(Held::Follower(Arc::clone(session)), now, random)
    }

    /// A follower's session, which is used now.
    pub(super) fn of_follower(&self, id: i32, now: UnixMs) -> Option<Arc<FollowerSession>> {
        let mut slots = self.slots.lock();
        let slot = slots.get_mut(&id)?;
        let Held::Follower(session) = &slot.held else { return None };
        slot.used_ms = now;
        Some(Arc::clone(session))
    }

    /// Whoever uses it still has it.
    pub(super) fn close(&self, id: i32) {
        if id == 0 {
            return;
        }
        // A session that goes tells its partitions, without the lock.
        let closed = self.slots.lock().remove(&id);
        drop(closed);
    }

    fn keep(&self, held: Held, now: UnixMs, random: u128) -> Option<i32> {
        let mut slots = self.slots.lock();
        let mut evicted = None;
        if slots.len() >= self.slots_max {
            let least = to_evict(&slots, &held, now)?;
            evicted = slots.remove(&least);
        }
        let mut id = (random as i32 & i32::MAX).max(1);
        while slots.contains_key(&id) {
            id = if id == i32::MAX { 1 } else { id + 1 };
        }
        slots.insert(id, Slot { held, used_ms: now, created_ms: now });
        drop(slots);
        drop(evicted);
        Some(id)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots.lock().len()
    }
}

/// The session that makes room for a new one: one that was long not used, or else the least of those that are old, or
/// may be pushed out by a privileged one, if it is less than the new one. Followers' sessions are worth more than
/// consumers', and larger ones more than smaller ones. Source: Kafka 3.9 `FetchSessionCache.tryEvict`.
fn to_evict(slots: &BTreeMap<i32, Slot>, new: &Held, now: UnixMs) -> Option<i32> {
    let (oldest, slot) = slots.iter().min_by_key(|(id, slot)| (slot.used_ms, **id))?;
    if now - slot.used_ms > EVICTION_MS {
        return Some(*oldest);
    }
    let privileged = new.is_privileged();
    let may_go = |slot: &Slot| now - slot.created_ms > EVICTION_MS || (privileged && !slot.held.is_privileged());
    let worth = |id: i32, held: &Held| (held.is_privileged(), held.len(), id);
    let may_go = slots.iter().filter(|(_, slot)| may_go(slot)).map(|(id, slot)| worth(*id, &slot.held));
    let least = may_go.min()?;
    (worth(0, new) >= least).then_some(least.2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::sessions::TopicRef;
    use crate::types::{BrokerEpoch, BrokerId, Offset, PartitionIndex};

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
        open_at(sessions, 2, 0, random)
    }

    fn open_at(sessions: &Sessions, partitions: i32, now: UnixMs, random: u128) -> i32 {
        let wanted: Vec<_> = (0..partitions).map(|partition| (key(partition), want(0))).collect();
        let (used, wanted) = sessions.enter(0, 0, false, wanted, &[], now).unwrap();
        assert!(matches!(used, Use::Full { by_id: false }));
        sessions.open(Session::new(false, wanted.iter().map(|(key, want)| (key, want))), now, random)
    }

    #[test]
    fn sessions_hold_a_bounded_number_of_partitions() {
        let sessions = Sessions::new(10);
        assert_eq!(open_at(&sessions, 101, 0, 7), 0);
        let (small, large) = (open_at(&sessions, 2, 0, 7), open_at(&sessions, 98, 0, 8));
        assert!(small > 0 && large > 0);
        assert_eq!(open_at(&sessions, 1, 0, 9), 0);
        let more = |partition| vec![(key(partition), want(0))];
        assert!(sessions.enter(small, 1, false, more(1), &[], 0).is_ok(), "it has that one");
        assert_eq!(sessions.enter(small, 2, false, more(2), &[], 0).unwrap_err(), SessionError::NotFound);
        assert_eq!(sessions.len(), 1, "it begins anew, without a session if need be");
        assert!(sessions.enter(large, 1, false, more(98), &[], 0).is_ok());
    }

    #[test]
    fn an_incremental_fetch_reads_what_was_named_before_and_since() {
        let sessions = Sessions::new(10);
        let id = open(&sessions, 7);
        let (_, read) = sessions.enter(id, 1, false, vec![(key(1), want(5))], &[key(0)], 0).unwrap();
        assert_eq!(read, vec![(key(1), want(5))]);
    }

    #[test]
    fn epochs_and_ids_are_checked() {
        let sessions = Sessions::new(10);
        let id = open(&sessions, 7);
        assert_eq!(sessions.enter(99, 1, false, vec![], &[], 0).unwrap_err(), SessionError::NotFound);
        assert_eq!(sessions.enter(id, 2, false, vec![], &[], 0).unwrap_err(), SessionError::InvalidEpoch);
        assert_eq!(sessions.enter(id, 1, true, vec![], &[], 0).unwrap_err(), SessionError::TopicIdError);
    }

    #[test]
    fn a_full_fetch_that_names_a_session_closes_it_and_so_does_forgetting_everything() {
        let sessions = Sessions::new(10);
        let id = open(&sessions, 7);
        sessions.enter(id, FINAL_EPOCH, false, vec![(key(0), want(0))], &[], 0).unwrap();
        assert_eq!(sessions.len(), 0);
        let id = open(&sessions, 8);
        sessions.enter(id, 1, false, vec![], &[key(0), key(1)], 0).unwrap();
        assert_eq!(sessions.len(), 0);
    }

    #[test]
    fn a_full_cache_answers_without_a_session_until_one_is_old() {
        let sessions = Sessions::new(1);
        assert_ne!(open(&sessions, 7), 0);
        assert_eq!(open(&sessions, 8), 0);
        assert_eq!(open_at(&sessions, 1, EVICTION_MS, 9), 0);
        assert_ne!(open_at(&sessions, 1, EVICTION_MS + 1, 9), 0);
        assert_eq!(sessions.len(), 1);
    }

    /// Two partitions, of broker 2 under this registration.
    fn of_follower(epoch: i64) -> Arc<FollowerSession> {
        FollowerSession::for_test(BrokerId(2), BrokerEpoch(epoch), 2)
    }

    #[test]
    fn a_followers_session_pushes_out_a_consumers_and_none_pushes_out_a_followers() {
        let sessions = Sessions::new(2);
        let (first, second) = (open(&sessions, 7), open(&sessions, 8));
        let one = sessions.open_for_follower(&of_follower(5), 0, 9).expect("the least of two equals makes room");
        assert!(sessions.enter(first, 1, false, vec![], &[], 0).is_err() && sessions.of_follower(one, 0).is_some());
        let two = sessions.open_for_follower(&of_follower(5), 0, 10).expect("so does the other");
        assert!(sessions.enter(second, 1, false, vec![], &[], 0).is_err());
        assert_eq!(sessions.open_for_follower(&of_follower(5), 0, 11), None, "all are as privileged, and young");
        assert_eq!(open(&sessions, 12), 0);
        // Both are used, and old: a larger one of a follower may take the place of the least, a consumer's may not.
        let later = EVICTION_MS + 1;
        assert!(sessions.of_follower(one, later).is_some() && sessions.of_follower(two, later).is_some());
        assert_eq!(open_at(&sessions, 1, later, 9), 0);
        assert_eq!(sessions.open_for_follower(&of_follower(5), later, 12), None, "it is no larger");
        let larger = FollowerSession::for_test(BrokerId(2), BrokerEpoch(5), 3);
        assert!(sessions.open_for_follower(&larger, later, 12).is_some());
    }

    #[test]
    fn a_session_is_of_a_consumer_or_of_a_follower() {
        let sessions = Sessions::new(10);
        let (consumers, followers) = (open(&sessions, 7), sessions.open_for_follower(&of_follower(5), 0, 9).unwrap());
        assert!(sessions.of_follower(consumers, 0).is_none());
        let entered = sessions.enter(followers, 1, false, vec![], &[], 0);
        assert_eq!(entered.unwrap_err(), SessionError::NotFound);
    }

    #[test]
    fn a_later_registration_ends_the_sessions_of_earlier_ones() {
        let sessions = Sessions::new(10);
        for epoch in [5, 5] {
            sessions.open_for_follower(&of_follower(epoch), 0, 9).expect("there is room");
        }
        let other = FollowerSession::for_test(BrokerId(3), BrokerEpoch(1), 1);
        sessions.open_for_follower(&other, 0, 9).expect("there is room");
        assert_eq!(sessions.len(), 3);
        sessions.open_for_follower(&of_follower(6), 0, 9).expect("there is room");
        assert_eq!(sessions.len(), 2, "its new one, and that of another broker");
    }
}
