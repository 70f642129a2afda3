//! The follower's end of a fetch session (KIP-227): what the leader knows that is wanted, and so what the next fetch
//! has to say. Pure.
//!
//! The first fetch is a full one; as long as the leader gives a session and the two agree, what follows names only what
//! is new, asked for elsewhere, or not wanted any more. After any error the next fetch is a full one and closes the
//! session. Source: Kafka 3.9 `FetchSessionHandler`.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;

use super::settings::Key;
use crate::replica::leader_link::{FetchKey, PartitionAsk, PartitionId, SessionAsk, TopicRef};
use crate::replica::sessions::next_epoch;
use crate::types::{TopicId, TopicName};

/// What is wanted of one leader.
#[derive(Debug)]
pub(super) struct FetchSession {
    next: SessionAsk,
    asks: BTreeMap<Key, PartitionAsk>,
    /// Of the topics that are wanted, and of how many partitions each.
    names: HashMap<TopicId, (TopicName, usize)>,
    /// Partitions whose topic has no id, so that there is no session.
    nameless: usize,
    /// Those that the next incremental fetch names; nothing is named twice.
    changed: BTreeSet<Key>,
    forgotten: Vec<PartitionId>,
}

/// What a fetch says of partitions.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Saying {
    pub(super) session: SessionAsk,
    pub(super) by_name: bool,
    pub(super) partitions: Vec<PartitionAsk>,
    pub(super) forgotten: Vec<PartitionId>,
}

/// The answer is not one to what was asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the leader answers for session {got}, not {expected}")]
pub(super) struct OtherSession {
    expected: i32,
    got: i32,
}

impl FetchSession {
    pub(super) fn new() -> Self {
        Self {
            next: SessionAsk::open(0),
            asks: BTreeMap::new(),
            names: HashMap::new(),
            nameless: 0,
            changed: BTreeSet::new(),
            forgotten: Vec::new(),
        }
    }

    /// The partition is to be fetched like this from now on. Between two fetches it is wanted or forgotten once.
    pub(super) fn want(&mut self, key: Key, ask: PartitionAsk) {
        match self.asks.get(&key) {
            Some(known) if *known == ask => return,
            Some(known) if known.id.topic_id != ask.id.topic_id => self.forget(&key),
            Some(_) | None => {}
        }
        self.changed.insert(key.clone());
        match self.asks.entry(key) {
            Entry::Occupied(mut known) => *known.get_mut() = ask,
            Entry::Vacant(place) => {
                self.nameless += usize::from(ask.id.topic_id == TopicId::ZERO);
                self.names.entry(ask.id.topic_id).or_insert_with(|| (ask.id.topic.clone(), 0)).1 += 1;
                place.insert(ask);
            }
        }
    }

    /// The partition is not to be fetched for now.
    pub(super) fn forget(&mut self, key: &Key) {
        let Some(ask) = self.asks.remove(key) else { return };
        self.nameless -= usize::from(ask.id.topic_id == TopicId::ZERO);
        if let Some((_, count)) = self.names.get_mut(&ask.id.topic_id) {
            *count -= 1;
            if *count == 0 {
                self.names.remove(&ask.id.topic_id);
            }
        }
        // One that the leader does not know yet is forgotten in vain, as is one of a session that is to be closed.
        self.changed.remove(key);
        self.forgotten.push(ask.id);
    }

    /// What is wanted of this partition, as the fetch under way says or those before said.
    pub(super) fn asked(&self, key: &Key) -> Option<&PartitionAsk> {
        self.asks.get(key)
    }

    /// A partition of an answer.
    pub(super) fn key(&self, (topic, partition): &FetchKey) -> Option<Key> {
        let name = match topic {
            TopicRef::Name(name) => name,
            TopicRef::Id(id) => &self.names.get(id)?.0,
        };
        Some((name.clone(), *partition))
    }

    /// The next fetch, if there is anything to say. A full one begins behind `served`, so that each has its turn.
    pub(super) fn say(&mut self, served: Option<&Key>) -> Option<Saying> {
        let by_name = self.nameless > 0;
        if by_name && self.next.id != 0 {
            self.next = SessionAsk::open(self.next.id);
        }
        let changed = std::mem::take(&mut self.changed);
        let forgotten = std::mem::take(&mut self.forgotten);
        if !self.next.is_full() {
            if self.asks.is_empty() && forgotten.is_empty() {
                return None;
            }
            let partitions = changed.into_iter().filter_map(|key| self.asks.get(&key).cloned()).collect();
            return Some(Saying { session: self.next, by_name, partitions, forgotten });
        }
        if self.asks.is_empty() {
            return None;
        }
        let asks = &self.asks;
        let behind = served.map_or(Bound::Unbounded, |served| Bound::Excluded(served.clone()));
        let first = asks.range((behind, Bound::Unbounded));
        let rest = served.into_iter().flat_map(|served| asks.range(..=served));
        let partitions = first.chain(rest).map(|(_, ask)| ask.clone()).collect();
        let session = if by_name { SessionAsk { id: self.next.id, ..SessionAsk::NONE } } else { self.next };
        Some(Saying { session, by_name, partitions, forgotten: Vec::new() })
    }

    /// The fetch that was said last is answered.
    ///
    /// # Errors
    /// Of another session. The next fetch is a full one.
    pub(super) fn answered(&mut self, session_id: i32) -> Result<(), OtherSession> {
        if !self.next.is_full() && session_id != 0 && session_id != self.next.id {
            let expected = self.next.id;
            self.failed();
            return Err(OtherSession { expected, got: session_id });
        }
        self.next = match session_id {
            0 => SessionAsk::open(0),
            id if self.next.is_full() => SessionAsk { id, epoch: next_epoch(0) },
            id => SessionAsk { id, epoch: next_epoch(self.next.epoch) },
        };
        Ok(())
    }

    /// The leader does not know the session.
    pub(super) fn lost(&mut self) {
        self.next = SessionAsk::open(0);
    }

    /// Nothing is known of the fetch that was said last, or an answer was left: the session goes.
    pub(super) fn failed(&mut self) {
        self.next = SessionAsk::open(self.next.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{Offset, PartitionIndex};

    fn key(partition: i32) -> Key {
        ("t".into(), PartitionIndex(partition))
    }

    fn id(number: u128) -> TopicId {
        TopicId(uuid::Uuid::from_u128(number))
    }

    fn ask(partition: i32, offset: i64) -> PartitionAsk {
        PartitionAsk {
            id: PartitionId { topic: "t".into(), topic_id: id(7), partition: PartitionIndex(partition) },
            fetch_offset: Offset(offset),
            last_fetched_epoch: None,
            leader_epoch: None,
            log_start_offset: Offset(0),
            max_bytes: 1,
        }
    }

    /// Wants partitions 0 and 1; the leader gave session 5.
    fn opened() -> FetchSession {
        let mut session = FetchSession::new();
        session.want(key(0), ask(0, 0));
        session.want(key(1), ask(1, 0));
        let first = session.say(None).expect("something is wanted");
        assert_eq!((first.session, first.partitions), (SessionAsk { id: 0, epoch: 0 }, vec![ask(0, 0), ask(1, 0)]));
        session.answered(5).expect("its own");
        session
    }

    /// What is said: id, epoch, partitions with their offsets, forgotten partitions.
    fn said(session: &mut FetchSession) -> (i32, i32, Vec<(i32, i64)>, Vec<i32>) {
        let Saying { session, partitions, forgotten, .. } = session.say(None).expect("there is something to say");
        let partitions = partitions.iter().map(|ask| (ask.id.partition.0, ask.fetch_offset.0)).collect();
        (session.id, session.epoch, partitions, forgotten.iter().map(|id| id.partition.0).collect())
    }

    #[test]
    fn only_what_has_changed_is_said() {
        let mut session = opened();
        assert_eq!(said(&mut session), (5, 1, vec![], vec![]));
        session.answered(5).expect("its own");
        session.want(key(0), ask(0, 0));
        session.want(key(1), ask(1, 4));
        session.want(key(2), ask(2, 0));
        assert_eq!(said(&mut session), (5, 2, vec![(1, 4), (2, 0)], vec![]));
        session.answered(5).expect("its own");
        session.forget(&key(0));
        session.forget(&key(9));
        assert_eq!(said(&mut session), (5, 3, vec![], vec![0]));
        assert_eq!((session.asked(&key(0)), session.asked(&key(1))), (None, Some(&ask(1, 4))));
    }

    #[test]
    fn any_error_has_everything_said_anew() {
        let all = vec![(0, 0), (1, 0)];
        let mut session = opened();
        session.failed();
        assert_eq!(said(&mut session), (5, 0, all.clone(), vec![]), "and closes the session");
        session.answered(6).expect("a new one");
        session.lost();
        assert_eq!(said(&mut session), (0, 0, all.clone(), vec![]));
        session.answered(0).expect("no session");
        assert_eq!(said(&mut session), (0, 0, all.clone(), vec![]));
        session.answered(7).expect("there is room again");
        assert_eq!(said(&mut session), (7, 1, vec![], vec![]));
        assert_eq!(session.answered(8), Err(OtherSession { expected: 7, got: 8 }));
        assert_eq!(said(&mut session), (7, 0, all.clone(), vec![]));
        session.answered(9).expect("a new one");
        session.answered(0).expect("closed by the leader");
        assert_eq!(said(&mut session), (0, 0, all, vec![]));
    }

    #[test]
    fn a_session_that_wants_nothing_any_more_says_so_once() {
        let mut session = opened();
        session.forget(&key(0));
        session.forget(&key(1));
        assert_eq!(said(&mut session), (5, 1, vec![], vec![0, 1]));
        session.answered(0).expect("it was closed");
        assert_eq!(session.say(None), None);
        session.want(key(1), ask(1, 3));
        assert_eq!(said(&mut session), (0, 0, vec![(1, 3)], vec![]));
    }

    #[test]
    fn a_topic_that_was_made_anew_is_another_one() {
        let mut session = opened();
        let mut other = ask(0, 0);
        other.id.topic_id = id(8);
        session.want(key(0), other.clone());
        let Saying { partitions, forgotten, .. } = session.say(None).expect("there is something to say");
        assert_eq!((partitions, forgotten), (vec![other], vec![ask(0, 0).id]));
        let named = |number| session.key(&(TopicRef::Id(id(number)), PartitionIndex(0)));
        assert_eq!((named(8), named(9)), (Some(key(0)), None));
    }

    #[test]
    fn a_topic_without_an_id_has_all_named_and_no_session() {
        let mut session = opened();
        let mut old = ask(3, 0);
        (old.id.topic_id, old.id.topic) = (TopicId::ZERO, "old".into());
        session.want(("old".into(), PartitionIndex(3)), old);
        let first = session.say(None).expect("there is something to say");
        assert_eq!((first.session, first.by_name, first.partitions.len()), (SessionAsk { id: 5, epoch: -1 }, true, 3));
        session.answered(0).expect("no session");
        session.forget(&("old".into(), PartitionIndex(3)));
        assert_eq!(said(&mut session), (0, 0, vec![(0, 0), (1, 0)], vec![]));
    }

    #[test]
    fn without_a_session_each_has_its_turn() {
        let mut session = opened();
        session.answered(0).expect("no session");
        session.want(key(2), ask(2, 0));
        let Saying { partitions, .. } = session.say(Some(&key(1))).expect("there is something to say");
        assert_eq!(partitions, [ask(2, 0), ask(0, 0), ask(1, 0)]);
    }
}
