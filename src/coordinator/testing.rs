//! A log in memory behind the coordinators' seam, for tests: appends can be held back, or made to fail.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures_util::FutureExt;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::writer::{Appending, CoordinatorRecord, Entry, Loaded, PartitionWriter, Visitor, WriteError};
use crate::types::{
    Fence, LeaderEpoch, LogOpening, Offset, PartitionIndex, ProducerEpoch, ProducerId, TopicName, TransactionGuard,
};

type Batches = Vec<Entry>;

/// Offsets that an entry takes.
fn width(entry: &Entry) -> usize {
    match entry {
        Entry::Records { records, .. } => records.len(),
        Entry::Marker(_) => 1,
    }
}

/// The logs of any number of partitions.
#[derive(Debug, Default)]
pub(crate) struct MemoryLog {
    state: Mutex<State>,
    changed: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    logs: BTreeMap<(TopicName, PartitionIndex), Batches>,
    /// Results of the next appends, instead of success.
    failures: VecDeque<WriteError>,
    /// Why nothing is taken now.
    closed: Option<WriteError>,
    /// Whether what is under way is refused when it returns.
    refusing: bool,
    opening: u64,
    loads: usize,
    held: bool,
    held_loads: bool,
    /// What was read does not become replicated.
    held_watermark: bool,
    /// Results of the next appends when they return, which are in the log all the same.
    outcomes: VecDeque<WriteError>,
    guard: Option<TransactionGuard>,
}

impl MemoryLog {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// While held, appends take their place but do not return.
    pub(crate) fn hold(&self, held: bool) {
        self.state.lock().held = held;
        self.changed.notify_waiters();
    }

    /// While held, loads do not return.
    pub(crate) fn hold_loads(&self, held: bool) {
        self.state.lock().held_loads = held;
        self.changed.notify_waiters();
    }

    /// While held, the high watermark does not come to the end of what a load has read.
    pub(crate) fn hold_watermark(&self, held: bool) {
        self.state.lock().held_watermark = held;
        self.changed.notify_waiters();
    }

    /// The next append is in the log, and returns with this error.
    pub(crate) fn return_next(&self, error: WriteError) {
        self.state.lock().outcomes.push_back(error);
    }

    /// While an error is given, nothing may be appended; `None` ends that.
    pub(crate) fn close(&self, why: Option<WriteError>) {
        self.state.lock().closed = why;
    }

    /// As if space ran out in this moment: what is held is refused, as is what comes, though nobody could tell before.
    pub(crate) fn refuse(&self) {
        self.state.lock().refusing = true;
    }

    /// There is space again, and the log is opened anew if it has refused something.
    pub(crate) fn accept(&self) {
        let mut state = self.state.lock();
        state.closed = None;
        state.opening += u64::from(std::mem::take(&mut state.refusing));
    }

    /// How often a log was loaded.
    pub(crate) fn loads(&self) -> usize {
        self.state.lock().loads
    }

    /// What a verification begins with from now on.
    pub(crate) fn guard_with(&self, guard: Option<TransactionGuard>) {
        self.state.lock().guard = guard;
    }

    /// What was appended last.
    pub(crate) fn last_entry(&self, topic: &TopicName, partition: PartitionIndex) -> Option<Entry> {
        self.state.lock().logs.get(&(topic.clone(), partition)).and_then(|log| log.last().cloned())
    }

    /// The next append fails and writes nothing.
    pub(crate) fn fail_next(&self, error: WriteError) {
        self.state.lock().failures.push_back(error);
    }

    /// How many records each batch of a partition has.
    pub(crate) fn batch_sizes(&self, topic: &TopicName, partition: PartitionIndex) -> Vec<usize> {
        let state = self.state.lock();
        state.logs.get(&(topic.clone(), partition)).map_or_else(Vec::new, |log| log.iter().map(width).collect())
    }

    /// Adds records as if a former leader had written them.
    pub(crate) fn seed(&self, topic: &TopicName, partition: PartitionIndex, records: Vec<CoordinatorRecord>) {
        self.state
            .lock()
            .logs
            .entry((topic.clone(), partition))
            .or_default()
            .push(Entry::Records { transaction: None, records });
    }
}

impl PartitionWriter for Arc<MemoryLog> {
    fn may_append(&self, _: &TopicName, _: PartitionIndex, _: LeaderEpoch) -> Result<LogOpening, WriteError> {
        let state = self.state.lock();
        match &state.closed {
            Some(error) => Err(error.clone()),
            None => Ok(LogOpening(state.opening)),
        }
    }

    fn append(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
        fence: Fence,
        entry: &Entry,
    ) -> Result<Appending, WriteError> {
        let mut state = self.state.lock();
        if let Some(error) = state.failures.pop_front().or_else(|| state.closed.clone()) {
            return Err(error);
        }
        if fence.opening != LogOpening(state.opening) {
            return Err(WriteError::Full);
        }
        let key = (topic.clone(), partition);
        let log = state.logs.entry(key.clone()).or_default();
        log.push(entry.clone());
        let at = log.len();
        let end = Offset(log.iter().map(|entry| width(entry) as i64).sum());
        let this = self.clone();
        Ok(async move {
            this.until(|state| !state.held).await;
            let mut state = this.state.lock();
            if state.refusing || fence.opening != LogOpening(state.opening) {
                // Taken back, as the log is when it is opened anew.
                state.logs.entry(key).or_default().truncate(at - 1);
                return Err(WriteError::Full);
            }
            state.outcomes.pop_front().map_or(Ok(end), Err)
        }
        .boxed())
    }

    fn begin_verification(
        &self,
        _: &TopicName,
        _: PartitionIndex,
        _: ProducerId,
        _: ProducerEpoch,
    ) -> Option<TransactionGuard> {
        self.state.lock().guard
    }

    fn until_replicated(&self, _: &TopicName, _: PartitionIndex, _: LeaderEpoch, end: Offset) -> Appending {
        let this = self.clone();
        async move {
            this.until(|state| !state.held_watermark).await;
            Ok(end)
        }
        .boxed()
    }

    fn load(&self, topic: &TopicName, partition: PartitionIndex, mut visit: Visitor) -> Appending {
        let this = self.clone();
        let key = (topic.clone(), partition);
        async move {
            this.until(|state| !state.held_loads).await;
            this.state.lock().loads += 1;
            let entries = this.state.lock().logs.get(&key).cloned().unwrap_or_default();
            let mut end = 0;
            for entry in entries {
                let found = found(end, &entry);
                end += width(&entry) as i64;
                if found.into_iter().any(|found| visit(found).is_break()) {
                    break;
                }
            }
            Ok(Offset(end))
        }
        .boxed()
    }
}

/// An entry as a load shows it.
fn found(offset: i64, entry: &Entry) -> Vec<Loaded> {
    match entry {
        Entry::Marker(marker) => vec![Loaded::Marker(*marker)],
        Entry::Records { transaction, records } => (offset..)
            .zip(records)
            .map(|(offset, record)| Loaded::Record {
                offset: Offset(offset),
                timestamp: 0,
                producer_id: transaction.map(|transaction| transaction.producer_id),
                record: record.clone(),
            })
            .collect(),
    }
}

impl MemoryLog {
    async fn until(&self, reached: impl Fn(&State) -> bool) {
        loop {
            let changed = self.changed.notified();
            if reached(&self.state.lock()) {
                return;
            }
            changed.await;
        }
    }
}
