//! A log that is opened anew, after a write that was refused for want of space.

use std::sync::Arc;

use tracing::{debug, error, info};

use super::{Partition, State};
use crate::clock::UnixMs;
use crate::log::partition_log::PartitionLog;
use crate::replica::ack::AckError;
use crate::replica::change::ChangeError;
use crate::storage::{self, StorageError, WriteSet};
use crate::task;
use crate::types::LogOpening;

impl Partition {
    /// After a write that was refused for want of space: the log is opened as the disk has it, so that the offsets of
    /// what was refused are given once more (I-2) and what else ran ahead in memory is taken back. A batch that was
    /// queued behind a refused one may have been stored; no producer was told, so it goes, and a producer can repeat
    /// both in order. Needs no space for records, so that retention can go on and free some. Blocks on the disk,
    /// without the lock. Does nothing for a log that needs none of this.
    pub(crate) fn open_anew(self: &Arc<Self>, now: UnixMs) -> Result<(), ChangeError> {
        {
            let mut state = self.state.lock();
            match &state.failed {
                None => return Ok(()),
                _ if state.closed => return Err(ChangeError::Closed),
                Some(AckError::Full) if !state.reopening => state.reopening = true,
                Some(failed) => return Err(ChangeError::Failed(failed.clone())),
            }
        }
        let opened = self.open_log(now);
        let mut guard = self.state.lock();
        let state = &mut *guard;
        state.reopening = false;
        if state.closed {
            return Err(ChangeError::Closed);
        }
        let mut log = match opened {
            Ok(log) => log,
            // There is no space after all; the next caller tries again.
            Err(error @ ChangeError::Unwritten(StorageError::Full { .. })) => return Err(error),
            Err(error) => {
                if let ChangeError::Unwritten(failure) = &error {
                    state.failed = Some(AckError::Storage(failure.to_string()));
                    error!(partition = %self.name(), %failure, "the log could not be opened again; it is offline");
                }
                return Err(error);
            }
        };
        log.set_config(*state.log.config());
        log.take_over(&mut state.log);
        state.unsynced.refused();
        *self.reader.write() = Arc::new(log.reader());
        state.log = log;
        state.opening = LogOpening(state.opening.0 + 1);
        state.failed = None;
        info!(topic = %self.id.topic, partition = %self.id.partition, "opened anew after a refused write");
        let mut writes = Vec::new();
        if state.leading {
            // The record of it may have been what was refused.
            state.log.assign_epoch(state.role.leader_epoch, &mut writes);
        }
        self.publish(state);
        let recorded = self.queue_change(state, writes);
        drop(guard);
        self.wake_all();
        Ok(recorded.wait()?)
    }

    /// The log as the disk has it, without what was queued behind the write that was refused.
    fn open_log(self: &Arc<Self>, now: UnixMs) -> Result<PartitionLog, ChangeError> {
        // All that was queued has been answered then, and nothing is queued while the partition has failed.
        // It stays where it is while it has failed.
        let home = self.home();
        storage::barrier(&*home.dir)?;
        let (config, written_end) = {
            let state = self.state.lock();
            (*state.log.config(), state.log.written_end_offset())
        };
        let mut log = PartitionLog::open(home.dir, self.id.clone(), home.family, config, home.tail, now)?;
        let mut writes = Vec::new();
        log.truncate_to(written_end, now, &mut writes)?;
        let cut = {
            let state = self.state.lock();
            // The family may be on its way to another partition.
            if state.closed {
                return Err(ChangeError::Closed);
            }
            storage::commit(&*state.home.dir, WriteSet { writes, sync: false })
        };
        cut.wait()?;
        Ok(log)
    }

    /// As [`Self::open_anew`], for a caller that must not block: appends are refused until it is done.
    pub(super) fn open_anew_in_background(self: &Arc<Self>, state: &State, now: UnixMs) {
        if state.reopening {
            return;
        }
        let partition = Arc::clone(self);
        task::in_background(move || {
            // A failure is logged and noted there; the next append finds it.
            if let Err(error) = task::as_owner("log reopener", || partition.open_anew(now)) {
                debug!(partition = %partition.name(), %error, "not opened anew yet");
            }
        });
    }
}
