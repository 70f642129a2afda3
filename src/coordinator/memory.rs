//! A log in memory behind the coordinators' seam, for tests: appends can be held back, or made to fail.

use std::collections::{BTreeMap, VecDeque};
use std::ops::ControlFlow;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::writer::{CoordinatorRecord, PartitionWriter, WriteError};
use crate::types::{LeaderEpoch, Offset, PartitionIndex, TopicName};

type Batches = Vec<Vec<CoordinatorRecord>>;

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
    held: bool,
    held_loads: bool,
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

    /// The next append fails and writes nothing.
    pub(crate) fn fail_next(&self, error: WriteError) {
        self.state.lock().failures.push_back(error);
    }

    /// How many records each batch of a partition has.
    pub(crate) fn batch_sizes(&self, topic: &TopicName, partition: PartitionIndex) -> Vec<usize> {
        let state = self.state.lock();
        state.logs.get(&(topic.clone(), partition)).map_or_else(Vec::new, |log| log.iter().map(Vec::len).collect())
    }

    /// Adds records as if a former leader had written them.
    pub(crate) fn seed(&self, topic: &TopicName, partition: PartitionIndex, records: Vec<CoordinatorRecord>) {
        self.state.lock().logs.entry((topic.clone(), partition)).or_default().push(records);
    }
}

impl PartitionWriter for Arc<MemoryLog> {
    fn append(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
        _epoch: LeaderEpoch,
        records: Vec<CoordinatorRecord>,
    ) -> BoxFuture<'static, Result<Offset, WriteError>> {
        let mut state = self.state.lock();
        if let Some(error) = state.failures.pop_front() {
            return async move { Err(error) }.boxed();
        }
        let log = state.logs.entry((topic.clone(), partition)).or_default();
        log.push(records);
        let end = Offset(log.iter().map(|batch| batch.len() as i64).sum());
        let this = self.clone();
        async move {
            this.until(|state| !state.held).await;
            Ok(end)
        }
        .boxed()
    }

    fn load(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
        mut visit: Box<dyn FnMut(Offset, i64, CoordinatorRecord) -> ControlFlow<()> + Send>,
    ) -> BoxFuture<'static, Result<Offset, WriteError>> {
        let this = self.clone();
        let key = (topic.clone(), partition);
        async move {
            this.until(|state| !state.held_loads).await;
            let records: Vec<CoordinatorRecord> =
                this.state.lock().logs.get(&key).into_iter().flatten().flatten().cloned().collect();
            for (offset, record) in records.iter().enumerate() {
                if visit(Offset(offset as i64), 0, record.clone()).is_break() {
                    break;
                }
            }
            Ok(Offset(records.len() as i64))
        }
        .boxed()
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
