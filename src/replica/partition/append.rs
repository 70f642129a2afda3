//! Appends to a partition: what is refused, the offsets, the write that is queued, and the ack that waits for it.

use std::sync::{Arc, Weak};

use super::{Partition, State};
use crate::clock::UnixMs;
use crate::log::partition_log::{AppendError, Appended, PartitionLog};
use crate::record::ValidBatch;
use crate::replica::ack::{Ack, AckError};
use crate::storage::{self, Unwritten, Write, WriteSet};
use crate::types::{
    Fence, LeaderEpoch, LogOpening, Offset, ProducerEpoch, ProducerId, TransactionGuard, TransactionMarker,
};

/// Why an append was refused before it was given an offset.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AppendRefused {
    #[error("this broker does not lead the partition")]
    NotLeader,
    #[error("the ISR is smaller than min.insync.replicas")]
    NotEnoughReplicas,
    #[error("storage failed: {0}")]
    Storage(String),
    #[error("no space left above the disk reserve")]
    Full,
    #[error(transparent)]
    Log(#[from] AppendError),
}

/// An append that was given its offsets.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) appended: Appended,
    /// Its write. A caller that appends to several partitions keeps these until the last, so that all are written
    /// together.
    pub(crate) unwritten: Option<Unwritten>,
}

/// How far an append must have come before it is acknowledged.
#[derive(Debug)]
pub(crate) enum AckAt {
    /// acks=1, and acks=0 for the count of what is in flight: written by the leader.
    Written(Ack),
    /// acks=all: the high watermark has passed it (I-9).
    HighWatermark(Ack),
}

impl Partition {
    /// Gives the batch its offsets and queues its write, which begins when [`Accepted::unwritten`] is dropped. The ack
    /// is answered after it, in offset order.
    ///
    /// `fence`: of an owner that has asked [`Self::may_append`] (coordinators). `guard`: of the verification that the
    /// producer's transaction includes this partition; see [`Self::begin_verification`].
    pub(crate) fn append(
        self: &Arc<Self>,
        batch: ValidBatch,
        ack: AckAt,
        fence: Option<Fence>,
        guard: Option<TransactionGuard>,
        now: UnixMs,
    ) -> Result<Accepted, AppendRefused> {
        self.append_with(ack, fence, now, |log, epoch, writes| log.append(batch, epoch, now, guard, writes))
    }

    /// Ends the open transaction of a producer, if there is one. Otherwise as [`Self::append`].
    pub(crate) fn append_marker(
        self: &Arc<Self>,
        marker: &TransactionMarker,
        ack: AckAt,
        fence: Option<Fence>,
        now: UnixMs,
    ) -> Result<Accepted, AppendRefused> {
        self.append_with(ack, fence, now, |log, epoch, writes| log.append_marker(marker, epoch, now, writes))
    }

    /// Before the coordinator is asked whether a producer's transaction includes this partition: what the append has to
    /// bring. `None`: the transaction is open here, no coordinator need be asked.
    pub(crate) fn begin_verification(&self, id: ProducerId, epoch: ProducerEpoch) -> Option<TransactionGuard> {
        let mut state = self.state.lock();
        match state.failed {
            Some(_) => Some(state.log.require_verification(id)),
            None => state.log.begin_verification(id, epoch),
        }
    }

    /// Whether an append with acks=all would be taken now, as far as can be told before; the opening of the log that
    /// its fence has to name. `epoch`: one under which this broker has led, without a gap since. Source: our own;
    /// Kafka's coordinators learn it from the append.
    pub(crate) fn may_append(self: &Arc<Self>, epoch: LeaderEpoch, now: UnixMs) -> Result<LogOpening, AppendRefused> {
        let mut state = self.state.lock();
        self.admit(&mut state, Some(epoch), now)?;
        self.check_isr(&state)?;
        Ok(state.opening)
    }

    /// Refuses what cannot be appended, whatever it is.
    fn admit(
        self: &Arc<Self>,
        state: &mut State,
        epoch: Option<LeaderEpoch>,
        now: UnixMs,
    ) -> Result<(), AppendRefused> {
        // Asked first, as by Kafka: a broker whose log directory has failed is soon told that another one leads. But a
        // coordinator has to hear of that.
        if epoch.is_none()
            && state.dir_failed
            && let Some(failed) = &state.failed
        {
            return Err(AppendRefused::Storage(failed.to_string()));
        }
        if !state.leading || state.closed || epoch.is_some_and(|epoch| !state.has_led_since(epoch)) {
            return Err(AppendRefused::NotLeader);
        }
        if state.home.dir.is_full() {
            return Err(AppendRefused::Full);
        }
        match &state.failed {
            Some(AckError::Full) => {
                self.open_anew_in_background(state, now);
                Err(AppendRefused::Full)
            }
            Some(failed) => Err(AppendRefused::Storage(failed.to_string())),
            None => Ok(()),
        }
    }

    fn check_isr(&self, state: &State) -> Result<(), AppendRefused> {
        let enough = state.role.isr.len() >= self.needed_isr(state);
        if enough { Ok(()) } else { Err(AppendRefused::NotEnoughReplicas) }
    }

    fn append_with(
        self: &Arc<Self>,
        ack: AckAt,
        fence: Option<Fence>,
        now: UnixMs,
        give_offsets: impl FnOnce(&mut PartitionLog, LeaderEpoch, &mut Vec<Write>) -> Result<Appended, AppendError>,
    ) -> Result<Accepted, AppendRefused> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        self.admit(state, fence.map(|fence| fence.epoch), now)?;
        if fence.is_some_and(|fence| fence.opening != state.opening) {
            // What it was to follow was refused.
            return Err(AppendRefused::Full);
        }
        if matches!(ack, AckAt::HighWatermark(_)) {
            self.check_isr(state)?;
        }
        let mut writes = Vec::with_capacity(3);
        let appended = give_offsets(&mut state.log, state.role.leader_epoch, &mut writes)?;
        match ack {
            AckAt::Written(ack) => state.written.push(self.ack_offset(&appended), ack),
            AckAt::HighWatermark(ack) => state.replicated.push(self.ack_offset(&appended), ack),
        }
        let sync = state.unsynced.syncs(state.log.config(), appended.log_end_offset);
        // What an earlier process wrote before it was killed is repeated: it is acknowledged after the sync, too.
        if appended.duplicate && !sync {
            let end = self.view.get();
            state.written.pass(end.log_end_offset);
            state.replicated.pass(end.high_watermark);
            return Ok(Accepted { appended, unwritten: None });
        }
        if appended.rolled && state.log.config().compact {
            self.cleaner.notify_one();
        }
        let bytes = writes.iter().map(Write::batch_bytes).sum::<usize>() as i64;
        if !appended.duplicate {
            self.traffic.messages_in.add((appended.last_offset.0 - appended.base_offset.0 + 1).unsigned_abs());
            self.traffic.bytes_in.add(bytes.unsigned_abs());
        }
        let last_offset = self.ack_offset(&appended);
        let (partition, moved): (Weak<Self>, u64) = (Arc::downgrade(self), state.moved);
        let unwritten = storage::queue(
            &state.home.dir,
            WriteSet { writes, sync },
            Box::new(move |result| {
                if let Some(partition) = partition.upgrade() {
                    partition.on_committed(moved, last_offset, bytes, result);
                }
            }),
        );
        if !sync {
            state.unsynced.queued(state.log.config());
        }
        drop(guard);
        Ok(Accepted { appended, unwritten: Some(unwritten) })
    }

    /// A duplicate may repeat a batch that is still being written: its ack waits for that batch, and must not stand
    /// before acks of later batches in the queue, so it waits for the end of what has been given out.
    fn ack_offset(&self, appended: &Appended) -> Offset {
        if appended.duplicate { appended.log_end_offset + -1 } else { appended.last_offset }
    }
}
