//! The leader's end of a follower's fetch session (KIP-227): what the follower has asked of each partition, what it was
//! told, and which partitions its next fetch has to look at.
//!
//! A fetch looks at those that it names, those whose mark was set since (`news`), and those that the fetch before left
//! *queued*: the follower was not level there, or something went wrong. Nothing is new at all others: the follower asks
//! for the end of the log, and the log ends there. That it asks for them again says the session's pulse.
//!
//! Only one fetch of a session has its turn, which its epoch numbers. One that is overtaken by the next answers
//! INVALID_FETCH_SESSION_EPOCH, and one that is dropped leaves everything queued. A fetch outside of sessions has one
//! for itself alone.
//! Source: Kafka 3.9 `FetchSession`, `FullFetchContext`, `IncrementalFetchContext`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use super::leader_link::{FetchAsk, FetchKey, FetchRefused, Fetched, PartitionAsk, PartitionId, TopicRef};
use super::news::{Inbox, Mark, Pulse};
use super::partition::Partition;
use super::sessions::{FIRST_EPOCH, SessionError, TOLD_NOTHING, Told, next_epoch};
use super::view::PartitionView;
use crate::types::{BrokerEpoch, BrokerId};

/// A session, or what one full fetch keeps instead.
#[derive(Debug)]
pub(crate) struct FollowerSession {
    pub(crate) replica: BrokerId,
    by_name: bool,
    pub(crate) pulse: Pulse,
    pub(crate) inbox: Arc<Inbox>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Which the next fetch must have.
    epoch: i32,
    /// Of the latest fetch.
    replica_epoch: BrokerEpoch,
    slots: Vec<Option<Slot>>,
    free: Vec<usize>,
    places: HashMap<FetchKey, usize>,
    /// Slots to look at, in the order of their turns; each once.
    queue: VecDeque<usize>,
}

#[derive(Debug)]
struct Slot {
    key: FetchKey,
    ask: PartitionAsk,
    told: Told,
    queued: bool,
    mark: Arc<Mark>,
    /// The replica that was found last, which knows the mark.
    partition: Option<Arc<Partition>>,
}

/// One partition that a fetch looks at, and what it finds.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) slot: usize,
    key: FetchKey,
    pub(super) ask: PartitionAsk,
    pub(super) mark: Arc<Mark>,
    /// What the follower knows of it.
    told: Told,
    pub(super) replica: Option<Arc<Partition>>,
    pub(super) found: Result<Fetched, FetchRefused>,
    /// Positions of before the read; `None`: nothing is to be read.
    pub(super) view: Option<PartitionView>,
    pub(super) bytes: usize,
    /// There may be something, and it is not read for now.
    pub(super) held_back: bool,
    /// What the follower has was recorded, after whatever the mark was set for.
    pub(super) counted: bool,
}

impl Part {
    fn told_now(&self) -> Told {
        match &self.found {
            // Where logs part a follower takes over no positions.
            Ok(found) if found.diverging.is_some() => TOLD_NOTHING,
            Ok(found) => Told { high_watermark: found.high_watermark.0, log_start_offset: found.log_start_offset.0 },
            // The next answer must say that it is over. Source: `FetchSession.maybeUpdateResponseData`.
            Err(_) => TOLD_NOTHING,
        }
    }

    /// Nobody waits where this is so: an error, or logs that part.
    pub(super) fn is_urgent(&self) -> bool {
        self.found.as_ref().map_or(true, |found| found.diverging.is_some())
    }

    /// Whether there are positions that the follower was not told.
    pub(super) fn has_news(&self) -> bool {
        self.found.is_ok() && self.told_now() != self.told
    }

    /// There is nothing more to look at until the mark is set.
    fn is_settled(&self) -> bool {
        let level = self.view.is_some_and(|view| view.log_end_offset == self.ask.fetch_offset);
        self.counted && level && !self.is_urgent()
    }
}

/// What a partition is called in a session.
fn key(by_name: bool, id: &PartitionId) -> FetchKey {
    let topic = if by_name { TopicRef::Name(id.topic.clone()) } else { TopicRef::Id(id.topic_id) };
    (topic, id.partition)
}

impl FollowerSession {
    /// With what a full fetch asks. `now_ms`: of the monotonic clock.
    pub(super) fn new(ask: FetchAsk, now_ms: i64) -> Arc<Self> {
        let state = State {
            epoch: FIRST_EPOCH,
            replica_epoch: ask.replica_epoch,
            slots: Vec::with_capacity(ask.partitions.len()),
            free: Vec::new(),
            places: HashMap::with_capacity(ask.partitions.len()),
            queue: VecDeque::with_capacity(ask.partitions.len()),
        };
        let (replica, by_name, pulse) = (ask.replica, ask.by_name, Pulse::new(now_ms));
        let session = Self { replica, by_name, pulse, inbox: Arc::default(), state: Mutex::new(state) };
        session.want(&mut session.state.lock(), ask.partitions);
        Arc::new(session)
    }

    /// Partitions that it has.
    pub(super) fn len(&self) -> usize {
        self.state.lock().places.len()
    }

    /// Of its latest fetch.
    pub(super) fn replica_epoch(&self) -> BrokerEpoch {
        self.state.lock().replica_epoch
    }

    /// Whether it is of an earlier registration of this broker than `epoch`.
    pub(super) fn is_of_earlier(&self, replica: BrokerId, epoch: BrokerEpoch) -> bool {
        let its = self.state.lock().replica_epoch;
        self.replica == replica && its != BrokerEpoch::NONE && its < epoch
    }

    fn want(&self, state: &mut State, asks: Vec<PartitionAsk>) {
        for ask in asks {
            let key = key(self.by_name, &ask.id);
            let at = match state.places.get(&key) {
                Some(&at) => {
                    let slot = state.slots[at].as_mut().expect("what has a place is there");
                    slot.renew(ask);
                    at
                }
                None => {
                    let at = state.free.pop().unwrap_or(state.slots.len());
                    if at == state.slots.len() {
                        state.slots.push(None);
                    }
                    let mark = Mark::new(self.replica, Arc::clone(&self.inbox), at);
                    let (told, queued, partition) = (TOLD_NOTHING, false, None);
                    state.slots[at] = Some(Slot { key: key.clone(), ask, told, queued, mark, partition });
                    state.places.insert(key, at);
                    at
                }
            };
            state.enqueue(at);
        }
    }

    fn forget(&self, state: &mut State, ids: &[PartitionId]) {
        let mut freed = Vec::new();
        for id in ids {
            let Some(at) = state.places.remove(&key(self.by_name, id)) else { continue };
            let slot = state.slots[at].take().expect("what has a place is there");
            slot.leave(self);
            freed.push(at);
        }
        if !freed.is_empty() {
            let slots = &state.slots;
            state.queue.retain(|&at| slots[at].is_some());
            state.free.extend(freed);
        }
    }

    /// The next fetch has its turn, if it is that: what it asks is merged. `now_ms`: of the monotonic clock. Gives the
    /// number of the turn.
    pub(super) fn go_on(&self, ask: FetchAsk, now_ms: i64) -> Result<i32, SessionError> {
        if self.replica != ask.replica {
            return Err(SessionError::NotFound);
        }
        let mut state = self.state.lock();
        if state.epoch != ask.session.epoch {
            return Err(SessionError::InvalidEpoch);
        }
        if self.by_name != ask.by_name {
            return Err(SessionError::TopicIdError);
        }
        self.pulse.beat(now_ms);
        // A fetch that still waits is overtaken.
        self.inbox.pass_on();
        self.want(&mut state, ask.partitions);
        self.forget(&mut state, &ask.forgotten);
        if std::mem::replace(&mut state.replica_epoch, ask.replica_epoch) != ask.replica_epoch {
            (0..state.slots.len()).for_each(|at| state.enqueue(at));
        }
        state.epoch = next_epoch(state.epoch);
        Ok(state.epoch)
    }

    /// Everything that the fetch which has its turn has to look at.
    pub(super) fn queued(&self) -> Vec<Part> {
        let mut state = self.state.lock();
        for at in self.inbox.take() {
            state.enqueue(at);
        }
        state.queue.iter().filter_map(|&at| state.slots[at].as_ref().map(|slot| slot.part(at))).collect()
    }

    /// What was marked since. `None`: the next fetch has its turn already.
    pub(super) fn marked(&self, turn: i32) -> Option<Vec<Part>> {
        let mut state = self.state.lock();
        if state.epoch != turn {
            // It may have been woken in the other's stead.
            self.inbox.pass_on();
            return None;
        }
        let marked = self.inbox.take();
        let mut parts = Vec::with_capacity(marked.len());
        for at in marked {
            state.enqueue(at);
            parts.extend(state.slots.get(at).and_then(Option::as_ref).map(|slot| slot.part(at)));
        }
        Some(parts)
    }

    /// Takes what was found as told, and gives what has to be said: everything, if `full`.
    pub(super) fn tell(&self, turn: i32, full: bool, parts: Vec<Part>) -> Result<Said, SessionError> {
        let mut state = self.state.lock();
        if state.epoch != turn {
            return Err(SessionError::InvalidEpoch);
        }
        let (mut said, mut served) = (Vec::new(), Vec::new());
        state.queue.clear();
        for part in parts {
            let at = part.slot;
            let slot = state.slots[at].as_mut().expect("nothing is forgotten in another's turn");
            let has_records = part.bytes > 0;
            let says = full || has_records || part.is_urgent() || part.has_news();
            slot.told = part.told_now();
            slot.queued = !part.is_settled();
            if slot.queued && has_records {
                // The others have their turn first.
                served.push(at);
            } else if slot.queued {
                state.queue.push_back(at);
            }
            if says {
                said.push((part.key, part.found));
            }
        }
        state.queue.extend(served);
        Ok(said)
    }

    /// Another replica than before was found for a partition, or none. It learns of the mark before it is looked at.
    pub(super) fn found(&self, part: &Part, partition: Option<&Arc<Partition>>) {
        let mut state = self.state.lock();
        let slot = state.slots.get_mut(part.slot).and_then(Option::as_mut);
        // Forgotten meanwhile, for a fetch that was overtaken.
        let Some(slot) = slot.filter(|slot| Arc::ptr_eq(&slot.mark, &part.mark)) else { return };
        slot.leave(self);
        slot.partition = partition.cloned();
        if let Some(partition) = partition {
            partition.join_session(&slot.mark);
        }
    }
}

#[cfg(test)]
impl FollowerSession {
    /// With so many partitions that nobody has.
    pub(super) fn for_test(replica: BrokerId, replica_epoch: BrokerEpoch, partitions: i32) -> Arc<Self> {
        use crate::types::{Offset, PartitionIndex, TopicId};
        let ask = |partition| PartitionAsk {
            id: PartitionId { topic: "t".into(), topic_id: TopicId::ZERO, partition: PartitionIndex(partition) },
            fetch_offset: Offset(0),
            last_fetched_epoch: None,
            leader_epoch: None,
            log_start_offset: Offset(0),
            max_bytes: 1,
        };
        let ask = FetchAsk {
            replica,
            replica_epoch,
            max_wait_ms: 0,
            min_bytes: 0,
            max_bytes: 0,
            session: super::leader_link::SessionAsk::NONE,
            by_name: true,
            partitions: (0..partitions).map(ask).collect(),
            forgotten: Vec::new(),
        };
        Self::new(ask, 0)
    }
}

impl Drop for FollowerSession {
    fn drop(&mut self) {
        let state = self.state.lock();
        state.slots.iter().flatten().for_each(|slot| slot.leave(self));
    }
}

impl State {
    fn enqueue(&mut self, at: usize) {
        let Some(Some(slot)) = self.slots.get_mut(at) else { return };
        if !std::mem::replace(&mut slot.queued, true) {
            self.queue.push_back(at);
        }
    }
}

impl Slot {
    /// The follower asks anew.
    fn renew(&mut self, mut ask: PartitionAsk) {
        if ask.leader_epoch != self.ask.leader_epoch {
            // It may have left the answer to its former question.
            self.told = TOLD_NOTHING;
        }
        if ask.id.topic.as_str().is_empty() {
            ask.id.topic = self.ask.id.topic.clone();
        }
        self.ask = ask;
    }

    fn leave(&self, session: &FollowerSession) {
        if let Some(partition) = &self.partition {
            partition.leave_session(session.replica, &self.mark, &session.pulse);
        }
    }

    fn part(&self, at: usize) -> Part {
        self.mark.take_back();
        Part {
            slot: at,
            key: self.key.clone(),
            ask: self.ask.clone(),
            mark: Arc::clone(&self.mark),
            told: self.told,
            replica: self.partition.clone(),
            found: Err(FetchRefused::NotLeader),
            view: None,
            bytes: 0,
            held_back: false,
            counted: false,
        }
    }
}

/// What an answer says of partitions.
pub(super) type Said = Vec<(FetchKey, Result<Fetched, FetchRefused>)>;
