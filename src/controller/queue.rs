//! What waits to be sent to one broker.
//!
//! Neighbouring UpdateMetadata become one, in which the newer state of a partition wins; nothing moves past a
//! LeaderAndIsr or a StopReplica. A queue that has grown to [`QUEUE_REQUESTS_MAX`] forgets everything but which
//! partitions were deleted: its broker is told the whole state instead.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::cluster::control::{
    ControlHead, LeaderAndIsr, LiveBroker, PartitionState, StopReplica, TopicMetadata, UpdateMetadata,
};
use crate::types::{PartitionIndex, TopicId, TopicName};

/// Requests that wait for one broker.
pub(super) const QUEUE_REQUESTS_MAX: usize = 10_000;

#[derive(Debug, Clone)]
pub(super) enum ControlRequest {
    LeaderAndIsr(LeaderAndIsr),
    UpdateMetadata(Metadata),
    StopReplica(StopReplica),
}

/// UpdateMetadata as it waits: what is the same for every broker is shared by their queues.
#[derive(Debug, Clone)]
pub(super) struct Metadata {
    pub(super) head: ControlHead,
    pub(super) topics: Arc<[TopicMetadata]>,
    pub(super) live_brokers: Arc<[LiveBroker]>,
}

impl Metadata {
    pub(super) fn to_request(&self) -> UpdateMetadata {
        let Self { head, topics, live_brokers } = self;
        UpdateMetadata { head: *head, topics: topics.to_vec(), live_brokers: live_brokers.to_vec() }
    }
}

/// The queue forgot what it held; the broker is to be told everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Overflowed;

#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<VecDeque<Waiting>>,
    /// Something was pushed.
    pub(super) news: Notify,
}

#[derive(Debug)]
enum Waiting {
    One(ControlRequest),
    Merged(Merged),
}

/// Several UpdateMetadata in one.
#[derive(Debug)]
struct Merged {
    head: ControlHead,
    topics: BTreeMap<TopicName, (TopicId, BTreeMap<PartitionIndex, PartitionState>)>,
    live_brokers: Arc<[LiveBroker]>,
}

impl Queue {
    pub(super) fn push(&self, request: ControlRequest) -> Result<(), Overflowed> {
        let mut waiting = self.waiting.lock();
        let request = match request {
            ControlRequest::UpdateMetadata(update) => match merge(waiting.back_mut(), update) {
                None => return Ok(()),
                Some(update) => ControlRequest::UpdateMetadata(update),
            },
            other => other,
        };
        let result = if waiting.len() < QUEUE_REQUESTS_MAX {
            waiting.push_back(Waiting::One(request));
            Ok(())
        } else {
            waiting.push_back(Waiting::One(request));
            let deletions = only_deletions(std::mem::take(&mut *waiting));
            waiting.extend(deletions);
            Err(Overflowed)
        };
        drop(waiting);
        self.news.notify_one();
        result
    }

    pub(super) fn pop(&self) -> Option<ControlRequest> {
        let first = self.waiting.lock().pop_front()?;
        Some(match first {
            Waiting::One(request) => request,
            Waiting::Merged(merged) => ControlRequest::UpdateMetadata(merged.into_request()),
        })
    }
}

/// The update, unless `last` has taken it in.
fn merge(last: Option<&mut Waiting>, update: Metadata) -> Option<Metadata> {
    let Some(last) = last else { return Some(update) };
    if let Waiting::One(ControlRequest::UpdateMetadata(first)) = &*last
        && let Some(merged) = Merged::from_request(first)
    {
        if !merged.can_take(&update) {
            return Some(update);
        }
        *last = Waiting::Merged(merged);
    }
    match last {
        Waiting::Merged(merged) if merged.can_take(&update) => {
            merged.take(&update);
            None
        }
        Waiting::Merged(_) | Waiting::One(_) => Some(update),
    }
}

/// Deletions have to be heard, or a topic that is gone stays in an image for ever. They become one request, which ends
/// each topic of their names; those that are there now are told anew behind it.
fn only_deletions(waiting: VecDeque<Waiting>) -> Option<Waiting> {
    let mut gone: BTreeMap<TopicName, (TopicId, BTreeSet<PartitionIndex>)> = BTreeMap::new();
    let mut last = None;
    for request in waiting {
        let Waiting::One(ControlRequest::UpdateMetadata(update)) = request else { continue };
        for topic in update.topics.iter().filter(|topic| !topic.deleted.is_empty()) {
            let (id, partitions) = gone.entry(topic.name.clone()).or_insert_with(|| (topic.id, BTreeSet::new()));
            *id = topic.id;
            partitions.extend(&topic.deleted);
        }
        last = Some(update);
    }
    let topic = |(name, (id, deleted)): (_, (_, BTreeSet<_>))| TopicMetadata {
        name,
        id,
        partitions: Vec::new(),
        deleted: deleted.into_iter().collect(),
    };
    let topics: Arc<[TopicMetadata]> = gone.into_iter().map(topic).collect();
    let last = last.filter(|_| !topics.is_empty())?;
    Some(Waiting::One(ControlRequest::UpdateMetadata(Metadata { topics, ..last })))
}

impl Merged {
    /// `None`: the update deletes something, and deletions stay what and where they are.
    fn from_request(update: &Metadata) -> Option<Self> {
        let mut merged = Self { head: update.head, topics: BTreeMap::new(), live_brokers: Arc::default() };
        merged.can_take(update).then(|| {
            merged.take(update);
            merged
        })
    }

    fn can_take(&self, update: &Metadata) -> bool {
        let fits = |topic: &TopicMetadata| {
            topic.deleted.is_empty() && self.topics.get(&topic.name).is_none_or(|(id, _)| *id == topic.id)
        };
        update.topics.iter().all(fits)
    }

    fn take(&mut self, update: &Metadata) {
        self.head = update.head;
        self.live_brokers = Arc::clone(&update.live_brokers);
        for topic in &*update.topics {
            let (_, partitions) = self.topics.entry(topic.name.clone()).or_insert_with(|| (topic.id, BTreeMap::new()));
            partitions.extend(topic.partitions.iter().map(|state| (state.partition, state.clone())));
        }
    }

    fn into_request(self) -> Metadata {
        let topic = |(name, (id, partitions)): (_, (_, BTreeMap<_, _>))| TopicMetadata {
            name,
            id,
            partitions: partitions.into_values().collect(),
            deleted: Vec::new(),
        };
        let topics = self.topics.into_iter().map(topic).collect();
        Metadata { head: self.head, topics, live_brokers: self.live_brokers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, PartitionEpoch};

    const HEAD: ControlHead =
        ControlHead { controller: BrokerId(1), controller_epoch: ControllerEpoch(1), broker_epoch: BrokerEpoch(1) };

    fn state(partition: i32, epoch: i32) -> PartitionState {
        PartitionState {
            partition: PartitionIndex(partition),
            controller_epoch: ControllerEpoch(1),
            leader: Some(BrokerId(1)),
            leader_epoch: LeaderEpoch(epoch),
            isr: vec![BrokerId(1)],
            partition_epoch: PartitionEpoch(epoch),
            replicas: vec![BrokerId(1)],
            adding: Vec::new(),
            removing: Vec::new(),
            recovery: Default::default(),
            offline_replicas: Vec::new(),
            is_new: false,
        }
    }

    fn update(id: u128, partitions: &[(i32, i32)], deleted: &[i32]) -> ControlRequest {
        let topic = TopicMetadata {
            name: "t".into(),
            id: TopicId::from_random(id << 64 | 9).unwrap(),
            partitions: partitions.iter().map(|(partition, epoch)| state(*partition, *epoch)).collect(),
            deleted: deleted.iter().copied().map(PartitionIndex).collect(),
        };
        let live = |id| LiveBroker { id: BrokerId(id), endpoints: Vec::new(), rack: None };
        let live_brokers = (1..=partitions.len() as i32).map(live).collect();
        ControlRequest::UpdateMetadata(Metadata { head: HEAD, topics: Arc::new([topic]), live_brokers })
    }

    fn roles() -> ControlRequest {
        ControlRequest::LeaderAndIsr(LeaderAndIsr { head: HEAD, topics: Vec::new() })
    }

    /// Epochs by partition and the number of live brokers for an update, `None` for roles.
    type Drained = Option<(Vec<(i32, i32)>, usize)>;

    fn drain(queue: &Queue) -> Vec<Drained> {
        std::iter::from_fn(|| queue.pop())
            .map(|request| match request {
                ControlRequest::UpdateMetadata(update) => {
                    let states = update.topics.iter().flat_map(|topic| &topic.partitions);
                    let epochs = states.map(|state| (state.partition.0, state.leader_epoch.0)).collect();
                    Some((epochs, update.live_brokers.len()))
                }
                _ => None,
            })
            .collect()
    }

    #[test]
    fn neighbouring_updates_become_one_and_the_newer_state_wins() {
        let queue = Queue::default();
        for partitions in [&[(0, 1), (1, 1)][..], &[(1, 2)], &[(2, 1), (0, 3), (1, 3)]] {
            queue.push(update(1, partitions, &[])).unwrap();
        }
        assert_eq!(drain(&queue), [Some((vec![(0, 3), (1, 3), (2, 1)], 3))]);
    }

    #[test]
    fn nothing_moves_past_roles_deletions_or_another_topic_of_the_name() {
        let queue = Queue::default();
        for request in [update(1, &[(0, 1)], &[]), roles(), update(1, &[(0, 2)], &[]), update(1, &[], &[0])] {
            queue.push(request).unwrap();
        }
        queue.push(update(2, &[(0, 0)], &[])).unwrap();
        queue.push(update(3, &[(0, 7)], &[])).unwrap();
        let epochs: Vec<_> = drain(&queue).into_iter().map(|out| out.map(|(epochs, _)| epochs)).collect();
        let one = |epoch| Some(vec![(0, epoch)]);
        assert_eq!(epochs, [one(1), None, one(2), Some(vec![]), one(0), one(7)]);
    }

    #[test]
    fn a_full_queue_forgets_all_but_deletions() {
        let queue = Queue::default();
        queue.push(update(1, &[], &[0])).unwrap();
        for _ in 1..QUEUE_REQUESTS_MAX {
            queue.push(roles()).unwrap();
        }
        assert_eq!(queue.push(roles()), Err(Overflowed));
        assert_eq!(drain(&queue), [Some((vec![], 0))]);
        queue.push(roles()).unwrap();
        assert_eq!(drain(&queue), [None]);
    }

    /// Each push was one too many, whoever it was told started all over, and the controller did nothing else.
    #[test]
    fn a_queue_full_of_deletions_has_room_again_and_forgets_none() {
        let queue = Queue::default();
        let gone = |number: usize| {
            let topic = TopicMetadata {
                name: TopicName::new(&format!("t{number}")),
                id: TopicId::from_random((number as u128) << 64 | 9).unwrap(),
                partitions: Vec::new(),
                deleted: vec![PartitionIndex(0)],
            };
            ControlRequest::UpdateMetadata(Metadata {
                head: HEAD,
                topics: Arc::new([topic]),
                live_brokers: Arc::default(),
            })
        };
        for number in 0..QUEUE_REQUESTS_MAX {
            queue.push(gone(number)).unwrap();
        }
        assert_eq!(queue.push(gone(0)), Err(Overflowed));
        queue.push(roles()).unwrap();
        let Some(ControlRequest::UpdateMetadata(first)) = queue.pop() else { panic!("the deletions come first") };
        assert_eq!(first.topics.len(), QUEUE_REQUESTS_MAX);
        assert_eq!(drain(&queue), [None]);
    }
}
