//! A follower: its appends, which are what its leader has as it has it, and its positions, as its leader tells them.

use std::sync::Arc;

use bytes::Bytes;

use super::{Partition, check_changeable};
use crate::clock::UnixMs;
use crate::log::fetched::FetchedError;
use crate::replica::ack::AckError;
use crate::replica::change::Changed;
use crate::storage::{self, Queued, Unwritten, Write, WriteSet};
use crate::types::{BrokerId, LeaderEpoch, Offset};

/// Why nothing of an answer was appended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotReplicated {
    /// Its role is another one by now.
    #[error("the replica does not follow under this epoch")]
    Superseded,
    #[error("no space left above the disk reserve")]
    Full,
    #[error("storage failed: {0}")]
    Storage(String),
}

/// What was appended of an answer. A caller that appends to several partitions keeps these until the last, so that all
/// are written together.
#[derive(Debug)]
pub(crate) struct Replicated {
    pub(crate) unwritten: Option<Unwritten>,
    /// The outcome of the write. Only after it may more be fetched, because the leader counts everything below the
    /// offset that is asked for as replicated (I-5).
    pub(crate) written: Queued,
    /// Why the rest of the answer was left out.
    pub(crate) refused: Option<FetchedError>,
}

impl Partition {
    /// The leader that it follows, and under which epoch. `None`: it leads, there is no leader, it was stopped, or
    /// nothing is written to it any more.
    pub(crate) fn follows(&self) -> Option<(BrokerId, LeaderEpoch)> {
        let state = self.state.lock();
        let offline = matches!(state.failed, Some(AckError::Storage(_)));
        if state.leading || state.closed || state.stopped || offline {
            return None;
        }
        state.role.leader.map(|leader| (leader, state.role.leader_epoch))
    }

    /// Whether it is not to be fetched for now, if it is behind: what its like may have is used up.
    pub(crate) fn is_held_back(&self) -> bool {
        let around = &*self.surroundings;
        let throttle = &around.throttles.follower;
        throttle.names(&self.id.topic, self.id.partition) && throttle.is_used_up(around.now_ms())
    }

    /// The leader has sent so much.
    pub(crate) fn count_received(&self, bytes: usize) {
        let around = &*self.surroundings;
        let throttle = &around.throttles.follower;
        if bytes > 0 && throttle.names(&self.id.topic, self.id.partition) {
            throttle.count(bytes, around.now_ms());
        }
    }

    /// Latest epoch of the log's history, which has no records yet if it has just begun.
    pub(crate) fn latest_epoch(&self) -> Option<LeaderEpoch> {
        self.state.lock().log.latest_epoch()
    }

    /// Appends what the leader of this epoch sent, in order; each piece holds whole batches, but for the end of the
    /// last. Offsets are the leader's. Source: Kafka 3.9 `Partition.appendRecordsToFollowerOrFutureReplica`.
    pub(crate) fn append_fetched(
        self: &Arc<Self>,
        epoch: LeaderEpoch,
        records: Vec<Bytes>,
        now: UnixMs,
    ) -> Result<Replicated, NotReplicated> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if state.leading || state.closed || state.stopped || state.role.leader_epoch != epoch {
            return Err(NotReplicated::Superseded);
        }
        match &state.failed {
            Some(AckError::Full) => {
                self.open_anew_in_background(state, now);
                return Err(NotReplicated::Full);
            }
            Some(failed) => return Err(NotReplicated::Storage(failed.to_string())),
            None if state.home.dir.is_full() && !records.is_empty() => return Err(NotReplicated::Full),
            None => {}
        }
        let (mut writes, mut refused): (Vec<Write>, Option<FetchedError>) = (Vec::new(), None);
        let mut last_offset = None;
        for piece in records {
            match state.log.append_fetched(piece, epoch, now, &mut writes) {
                Ok(appended) => {
                    last_offset = appended.last_offset.or(last_offset);
                    if appended.rolled && state.log.config().compact {
                        self.cleaner.notify_one();
                    }
                }
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        let Some(last_offset) = last_offset else {
            return Ok(Replicated { unwritten: None, written: self.queue_change(state, writes), refused });
        };
        let sync = state.unsynced.syncs(state.log.config(), state.log.log_end_offset());
        let bytes = writes.iter().map(Write::batch_bytes).sum::<usize>() as i64;
        let (partition, moved) = (Arc::downgrade(self), state.moved);
        let (unwritten, written) = storage::queue_noting(&state.home.dir, WriteSet { writes, sync }, move |outcome| {
            if let Some(partition) = partition.upgrade() {
                partition.on_committed(moved, last_offset, bytes, outcome.clone());
            }
        });
        if !sync {
            state.unsynced.queued(state.log.config());
        }
        Ok(Replicated { unwritten: Some(unwritten), written, refused })
    }

    /// Takes over what a leader told with a fetch whose records are written: its high watermark as far as this log
    /// reaches, never back, and its log start, if that is higher and committed. Does nothing under another epoch than
    /// `epoch`, or where this broker leads. Gives the log start if it moved: once that is written the caller may have
    /// the space below reclaimed.
    ///
    /// The caller has seen to it that the logs do not part below the log end.
    /// Source: Kafka 3.9 `ReplicaFetcherThread.processPartitionData`.
    pub(crate) fn advance_as_follower(
        self: &Arc<Self>,
        epoch: LeaderEpoch,
        leader_high_watermark: Offset,
        leader_log_start: Offset,
    ) -> Changed<Option<Offset>> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let follows = !state.leading && !state.stopped && state.role.leader_epoch == epoch;
        if !follows || check_changeable(state).is_err() {
            return Changed::new(None, Queued::nothing());
        }
        let before = self.view();
        let high_watermark = before.high_watermark.max(leader_high_watermark.min(state.log.written_end_offset()));
        let mut writes = Vec::new();
        let moves_start = before.log_start_offset < leader_log_start && leader_log_start <= high_watermark;
        if moves_start {
            state.log.advance_log_start(leader_log_start, &mut writes);
        }
        if !moves_start && high_watermark == before.high_watermark {
            return Changed::new(None, Queued::nothing());
        }
        self.publish_following(state, high_watermark);
        let queued = self.queue_change(state, writes);
        drop(guard);
        self.waiters.wake_all();
        Changed::new(moves_start.then_some(leader_log_start), queued)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::testing;

    fn told(partition: &Arc<Partition>, epoch: i32, high_watermark: i64, log_start: i64) -> Option<Offset> {
        let changed = partition.advance_as_follower(LeaderEpoch(epoch), Offset(high_watermark), Offset(log_start));
        changed.written().expect("written")
    }

    #[test]
    fn a_follower_takes_over_what_its_leader_tells_as_far_as_it_has_it() {
        let (partition, _) = testing::led(LeaderEpoch(1));
        testing::append(&partition, 5);
        let positions = || (partition.view().log_start_offset.0, partition.view().high_watermark.0);
        assert_eq!(told(&partition, 1, 3, 2), None, "a leader is told nothing");
        testing::take(&partition, testing::role(2, 2));
        assert_eq!(positions(), (0, 5), "it keeps its high watermark when it takes a role");
        assert_eq!(told(&partition, 1, 9, 2), None, "of the former epoch");
        assert_eq!(told(&partition, 2, 3, 0), None);
        assert_eq!(positions(), (0, 5), "never back");
        assert_eq!(told(&partition, 2, 9, 6), None, "what is not committed stays");
        assert_eq!(told(&partition, 2, 9, 2), Some(Offset(2)));
        assert_eq!(positions(), (2, 5));
        assert_eq!(told(&partition, 2, 9, 1), None);
        partition.stop_following();
        assert_eq!((told(&partition, 2, 9, 3), positions()), (None, (2, 5)));
    }
}
