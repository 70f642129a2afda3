//! A follower's appends: what its leader has, as it has it.

use std::sync::Arc;

use bytes::Bytes;

use super::Partition;
use crate::clock::UnixMs;
use crate::log::fetched::FetchedError;
use crate::replica::ack::AckError;
use crate::storage::{self, Queued, Unwritten, Write, WriteSet};
use crate::types::{BrokerId, LeaderEpoch};

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
            None if self.dir.is_full() && !records.is_empty() => return Err(NotReplicated::Full),
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
        let partition = Arc::downgrade(self);
        let (unwritten, written) = storage::queue_noting(&self.dir, WriteSet { writes, sync }, move |outcome| {
            if let Some(partition) = partition.upgrade() {
                partition.on_committed(last_offset, bytes, outcome.clone());
            }
        });
        if !sync {
            state.unsynced.queued(state.log.config());
        }
        Ok(Replicated { unwritten: Some(unwritten), written, refused })
    }
}
