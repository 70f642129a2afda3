//! Acknowledgements: which request waits for which offset of a partition, and one completion per produce request.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::storage::StorageError;
use crate::types::Offset;

/// Why an append that was accepted is not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AckError {
    #[error("this broker no longer leads the partition")]
    NotLeader,
    #[error("storage failed: {0}")]
    Storage(String),
    #[error("no space left above the disk reserve")]
    Full,
    /// It is written and below the high watermark, but fewer than `min.insync.replicas` are in sync by now.
    #[error("the ISR has become smaller than min.insync.replicas")]
    NotEnoughAfterAppend,
}

impl From<StorageError> for AckError {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Full { .. } => Self::Full,
            StorageError::Stopped { .. } | StorageError::Read { .. } | StorageError::TooManyPartitions { .. } => {
                Self::Storage(error.to_string())
            }
        }
    }
}

/// Outcomes of one request's partitions; the last one to be known wakes the request.
#[derive(Debug)]
pub(crate) struct Completion {
    state: Mutex<CompletionState>,
}

#[derive(Debug)]
struct CompletionState {
    missing: usize,
    outcomes: Vec<Option<Result<(), AckError>>>,
    wake: Option<oneshot::Sender<()>>,
}

impl Completion {
    /// A completion over `slots` partitions, and the way to wait for it.
    pub(crate) fn new(slots: usize) -> (Arc<Self>, Acked) {
        let (wake, woken) = oneshot::channel();
        let state = CompletionState { missing: slots, outcomes: vec![None; slots], wake: Some(wake) };
        let completion = Arc::new(Self { state: Mutex::new(state) });
        if slots == 0 {
            completion.state.lock().wake();
        }
        (Arc::clone(&completion), Acked { completion, woken })
    }

    fn complete(&self, slot: usize, outcome: Result<(), AckError>) {
        let mut state = self.state.lock();
        // The first answer counts; once the outcomes were taken there is nothing left to note.
        if let Some(unknown @ None) = state.outcomes.get_mut(slot) {
            *unknown = Some(outcome);
            state.missing -= 1;
            if state.missing == 0 {
                state.wake();
            }
        }
    }
}

impl CompletionState {
    fn wake(&mut self) {
        if let Some(wake) = self.wake.take() {
            // Refused where the connection is gone: then no answer is owed.
            wake.send(()).unwrap_or_default();
        }
    }
}

/// Where the outcomes of a request go.
#[derive(Debug)]
pub(crate) struct Acked {
    completion: Arc<Completion>,
    woken: oneshot::Receiver<()>,
}

impl Acked {
    /// All outcomes, in slot order, once they are known.
    pub(crate) async fn all(mut self) -> Vec<Result<(), AckError>> {
        self.known().await;
        // The request is woken by the last of them.
        self.take().into_iter().map(|outcome| outcome.unwrap_or(Err(AckError::NotLeader))).collect()
    }

    /// The outcomes that are known when all of them are, or `timeout` is over; `None` for those that are not.
    /// Source: Kafka 3.9 `DelayedProduce.onExpiration`, which expires partitions one by one.
    pub(crate) async fn within(mut self, timeout: Duration) -> Vec<Option<Result<(), AckError>>> {
        // Which of the two it was can be seen in the outcomes.
        tokio::time::timeout(timeout, self.known()).await.unwrap_or_default();
        self.take()
    }

    async fn known(&mut self) {
        // The completion lives as long as this, and it keeps its sender until it wakes.
        (&mut self.woken).await.expect("a completion wakes before it goes");
    }

    fn take(&self) -> Vec<Option<Result<(), AckError>>> {
        std::mem::take(&mut self.completion.state.lock().outcomes)
    }

    /// Blocks until all outcomes are known.
    #[cfg(test)]
    pub(crate) fn wait(self) -> Vec<Result<(), AckError>> {
        let Self { completion, woken } = self;
        woken.blocking_recv().expect("a completion wakes before it goes");
        completion.state.lock().outcomes.drain(..).flatten().collect()
    }

    /// The outcomes, if all of them are known.
    #[cfg(test)]
    pub(crate) fn try_all(&mut self) -> Option<Vec<Result<(), AckError>>> {
        let missing = self.completion.state.lock().missing;
        (missing == 0).then(|| self.take().into_iter().flatten().collect())
    }
}

/// One partition's part of a request. Dropped unanswered it counts as "no longer leader".
#[derive(Debug)]
pub(crate) struct Ack {
    completion: Arc<Completion>,
    slot: usize,
}

impl Ack {
    pub(crate) fn new(completion: &Arc<Completion>, slot: usize) -> Self {
        Self { completion: Arc::clone(completion), slot }
    }

    pub(crate) fn answer(self, outcome: Result<(), AckError>) {
        self.completion.complete(self.slot, outcome);
    }
}

impl Drop for Ack {
    fn drop(&mut self) {
        self.completion.complete(self.slot, Err(AckError::NotLeader));
    }
}

/// Acks of one partition in offset order, waiting for a position to pass them.
#[derive(Debug, Default)]
pub(crate) struct AckQueue {
    waiting: VecDeque<(Offset, Ack)>,
}

impl AckQueue {
    /// `last_offset` (inclusive) must not be below that of the ack before.
    pub(crate) fn push(&mut self, last_offset: Offset, ack: Ack) {
        debug_assert!(self.waiting.back().is_none_or(|(before, _)| *before <= last_offset));
        self.waiting.push_back((last_offset, ack));
    }

    /// As [`Self::push`], for an ack that may have come before those that wait already.
    pub(crate) fn insert(&mut self, last_offset: Offset, ack: Ack) {
        let at = self.waiting.partition_point(|(waiting, _)| *waiting <= last_offset);
        self.waiting.insert(at, (last_offset, ack));
    }

    /// Answers every ack whose last offset lies below `position`.
    pub(crate) fn pass(&mut self, position: Offset) {
        self.pass_with(position, &Ok(()));
    }

    /// As [`Self::pass`], with this outcome.
    pub(crate) fn pass_with(&mut self, position: Offset, outcome: &Result<(), AckError>) {
        while self.waiting.front().is_some_and(|(last_offset, _)| *last_offset < position) {
            if let Some((_, ack)) = self.waiting.pop_front() {
                ack.answer(outcome.clone());
            }
        }
    }

    /// Refuses every ack from `last_offset` on.
    pub(crate) fn fail_from(&mut self, last_offset: Offset, error: &AckError) {
        while self.waiting.back().is_some_and(|(waiting, _)| *waiting >= last_offset) {
            if let Some((_, ack)) = self.waiting.pop_back() {
                ack.answer(Err(error.clone()));
            }
        }
    }

    pub(crate) fn fail_all(&mut self, error: &AckError) {
        self.fail_from(Offset(i64::MIN), error);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_woken_by_its_last_partition() {
        let (completion, mut woken) = Completion::new(2);
        let mut queue = AckQueue::default();
        queue.push(Offset(4), Ack::new(&completion, 0));
        queue.push(Offset(9), Ack::new(&completion, 1));
        queue.pass(Offset(5));
        assert!(woken.try_all().is_none());
        queue.fail_all(&AckError::Full);
        assert_eq!(woken.try_all(), Some(vec![Ok(()), Err(AckError::Full)]));
    }

    #[test]
    fn an_ack_that_comes_late_waits_in_its_place() {
        let (completion, mut woken) = Completion::new(3);
        let mut queue = AckQueue::default();
        queue.push(Offset(4), Ack::new(&completion, 0));
        queue.push(Offset(9), Ack::new(&completion, 1));
        queue.insert(Offset(4), Ack::new(&completion, 2));
        queue.pass(Offset(5));
        queue.fail_all(&AckError::Full);
        assert_eq!(woken.try_all(), Some(vec![Ok(()), Err(AckError::Full), Ok(())]));
    }

    #[test]
    fn an_ack_that_is_dropped_does_not_leave_its_request_waiting() {
        let (completion, mut woken) = Completion::new(1);
        drop(Ack::new(&completion, 0));
        assert_eq!(woken.try_all(), Some(vec![Err(AckError::NotLeader)]));
    }

    /// Issue 12, row 12: a time-out made REQUEST_TIMED_OUT of what was replicated too, and clients repeated it.
    #[tokio::test(start_paused = true)]
    async fn a_time_out_is_that_of_the_partitions_that_are_not_known() {
        let (completion, acked) = Completion::new(3);
        let mut queue = AckQueue::default();
        Ack::new(&completion, 0).answer(Ok(()));
        queue.push(Offset(4), Ack::new(&completion, 1));
        Ack::new(&completion, 2).answer(Err(AckError::Full));
        let outcomes = acked.within(Duration::from_millis(100)).await;
        assert_eq!(outcomes, vec![Some(Ok(())), None, Some(Err(AckError::Full))]);
        // An ack that comes too late changes nothing.
        queue.pass(Offset(5));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_known_in_time_is_answered_at_once() {
        let (completion, acked) = Completion::new(1);
        Ack::new(&completion, 0).answer(Ok(()));
        assert_eq!(acked.within(Duration::from_secs(3600)).await, vec![Some(Ok(()))]);
        assert_eq!(Completion::new(0).1.all().await, vec![]);
    }
}
