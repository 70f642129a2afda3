//! A leader and its followers: their fetches as they are checked and counted, changes of the ISR, and the high
//! watermark that follows from both. Source: Kafka 3.9 `Partition`.

use std::sync::Arc;

use parking_lot::MutexGuard;
use tokio::sync::futures::Notified;
use tracing::{debug, info, warn};

use super::replication::Replication;
use super::{Partition, State};
use crate::cluster::control::{IsrProposal, IsrRefused, StoredIsr};
use crate::cluster::znodes::partition_state::Recovery;
use crate::metrics;
use crate::replica::followers::{Follower, FollowerPosition, NotCounted};
use crate::replica::isr::{self, ChangeNumber, Next};
use crate::replica::leader_link::{FetchRefused, PartitionAsk};
use crate::replica::news::{Mark, Pulse};
use crate::replica::selector::Readable;
use crate::replica::view::PartitionView;
use crate::types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset};

/// What a leader found when a follower asked, before anything was read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FollowerLook {
    pub(crate) view: PartitionView,
    /// Epoch and end offset where the logs part.
    pub(crate) diverging: Option<(LeaderEpoch, Offset)>,
}

/// A change of the ISR that the controller is to be asked for.
#[derive(Debug, Clone)]
pub(crate) struct IsrChange {
    pub(crate) partition: Arc<Partition>,
    pub(crate) number: ChangeNumber,
    /// The leader's own broker epoch is left to whoever sends it.
    pub(crate) proposal: IsrProposal,
}

/// Who fetches.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fetching<'a> {
    pub(crate) replica: BrokerId,
    /// Of the follower's registration; [`BrokerEpoch::NONE`]: not said.
    pub(crate) broker_epoch: BrokerEpoch,
    /// Of the session it fetches in.
    pub(crate) pulse: &'a Pulse,
}

/// Below the log start, or of an epoch that nobody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct OutOfRange;

impl Partition {
    /// Where the log of whoever fetches at `offset`, after a batch of `epoch`, parts from this one; `None`: nowhere.
    /// Below the log start there is nothing to compare any more, so that goes before.
    /// Source: Kafka 3.9 `Partition.readRecords`.
    pub(crate) fn divergence(
        &self,
        epoch: LeaderEpoch,
        offset: Offset,
        log_start: Offset,
    ) -> Result<Option<(LeaderEpoch, Offset)>, OutOfRange> {
        match self.with_log(|log| log.end_offset_for_epoch(epoch)) {
            None => Err(OutOfRange),
            Some(_) if offset < log_start => Err(OutOfRange),
            Some((known, end)) if known < epoch || end < offset => Ok(Some((known, end))),
            Some(_) => Ok(None),
        }
    }

    /// Whether a follower's fetch can be served, and the positions of now. Changes nothing.
    /// Source: Kafka 3.9 `Partition.fetchRecords`, `followerReplicaOrThrow`, `readRecords`, in that order.
    pub(crate) fn look_for_follower(
        &self,
        replica: BrokerId,
        ask: &PartitionAsk,
    ) -> Result<FollowerLook, FetchRefused> {
        let view = self.view();
        if view.offline {
            return Err(FetchRefused::Storage);
        }
        view.check_leading(ask.leader_epoch)?;
        if self.repl.lock().followers.get(replica).is_none() {
            let says_epoch = ask.leader_epoch.is_some();
            return Err(if says_epoch { FetchRefused::UnknownLeaderEpoch } else { FetchRefused::NotLeader });
        }
        let offset = ask.fetch_offset;
        if let Some(epoch) = ask.last_fetched_epoch {
            // A follower that is in this epoch and not beyond its end is where the leader was: no need to look it up.
            let within = epoch == view.leader_epoch && offset >= view.log_start_offset && offset <= view.log_end_offset;
            if !within {
                let parted = self.divergence(epoch, offset, view.log_start_offset);
                if let Some(at) = parted.map_err(|OutOfRange| FetchRefused::OffsetOutOfRange)? {
                    return Ok(FollowerLook { view, diverging: Some(at) });
                }
            }
        }
        if offset < view.log_start_offset || offset > view.log_end_offset {
            return Err(FetchRefused::OffsetOutOfRange);
        }
        Ok(FollowerLook { view, diverging: None })
    }

    /// Counts a fetch that was looked at, with the positions of then: everything below its offset is written at the
    /// follower (I-5), and later fetches of its session that do not name the partition say so again. May raise the high
    /// watermark. Gives the change of the ISR that follows, if one does, for the caller to have it sent.
    /// Source: Kafka 3.9 `Partition.updateFollowerFetchState`.
    pub(crate) fn record_follower(
        self: &Arc<Self>,
        by: &Fetching<'_>,
        ask: &PartitionAsk,
        seen: &PartitionView,
    ) -> Result<Option<IsrChange>, FetchRefused> {
        let &Fetching { replica, broker_epoch, pulse } = by;
        let position =
            FollowerPosition { fetch_offset: ask.fetch_offset, log_start: ask.log_start_offset, broker_epoch };
        let around = &*self.surroundings;
        let mut repl = self.repl.lock();
        if repl.leads_under != Some(seen.leader_epoch) {
            // Another role came in between.
            return Err(FetchRefused::NotLeader);
        }
        let leader_end = seen.log_end_offset;
        let start_before = repl.followers.get(replica).map(|follower| follower.log_start);
        if let Err(refused) = repl.followers.record(replica, position, leader_end, around.now_ms()) {
            debug!(partition = %self.name(), follower = %replica, ?refused, "a follower's fetch does not count");
            return Err(match refused {
                NotCounted::UnknownReplica => FetchRefused::UnknownLeaderEpoch,
                NotCounted::StaleBrokerEpoch => FetchRefused::NotLeader,
            });
        }
        repl.followers.follows_in(replica, pulse);
        // Not that of the look: the high watermark may have passed it, and is published under this lock.
        let view = self.view();
        let mut change = self.expand(&mut repl, replica, view);
        let lost = repl.followers.get(replica).is_some_and(|it| isr::has_lost_data(&repl.isr, it, view.high_watermark));
        if lost {
            warn!(partition = %self.name(), follower = %replica, fetch_offset = %ask.fetch_offset,
                high_watermark = %view.high_watermark, "a replica in sync has lost records; it leaves the ISR");
            change = Some(self.shrink(&mut repl, vec![replica], view));
        }
        let raises = repl.high_watermark(view.log_end_offset, view.high_watermark, around) > view.high_watermark;
        drop(repl);
        if start_before != Some(ask.log_start_offset) {
            self.low_watermark_moved.notify_waiters();
        }
        if raises {
            self.raise_high_watermark();
        }
        Ok(change)
    }

    /// Whether a follower that asks gets nothing for now: it is behind, and what its like may have is used up.
    pub(crate) fn holds_back(&self, replica: BrokerId) -> bool {
        let around = &*self.surroundings;
        let throttle = &around.throttles.leader;
        throttle.names(&self.id.topic, self.id.partition)
            && throttle.is_used_up(around.now_ms())
            && !self.repl.lock().isr.committed().contains(&replica)
    }

    /// A follower was sent so much.
    pub(crate) fn count_sent(&self, bytes: usize) {
        let around = &*self.surroundings;
        let throttle = &around.throttles.leader;
        if bytes > 0 && throttle.names(&self.id.topic, self.id.partition) {
            throttle.count(bytes, around.now_ms());
        }
    }

    /// The session of a follower has the partition from now on, and is told of what changes. To be called before the
    /// partition is looked at.
    pub(crate) fn join_session(&self, mark: &Arc<Mark>) {
        self.sessions.join(mark);
    }

    /// The session has forgotten the partition, or is gone itself.
    pub(crate) fn leave_session(&self, replica: BrokerId, mark: &Arc<Mark>, pulse: &Pulse) {
        self.sessions.leave(mark);
        let mut repl = self.repl.lock();
        let end = self.view().log_end_offset;
        repl.followers.leaves(replica, pulse, end);
    }

    /// Below it no live replica has a record any more, as far as this leader knows; `None`: it does not lead. A
    /// follower that has not fetched under this leader epoch is not counted on: [`Offset::NONE`].
    /// Source: Kafka 3.9 `Partition.lowWatermarkIfLeader`.
    pub(crate) fn low_watermark(&self) -> Option<Offset> {
        let around = &*self.surroundings;
        let own = self.view();
        let repl = self.repl.lock();
        let live = repl.followers.iter().filter(|follower| around.is_live(follower.id));
        own.leading.then(|| live.map(|follower| follower.log_start).fold(own.log_start_offset, Offset::min))
    }

    /// Returns when the low watermark may have moved since the call, or the role has changed.
    pub(crate) fn low_watermark_moves(&self) -> Notified<'_> {
        self.low_watermark_moved.notified()
    }

    /// Proposes a follower that is level as a member of the ISR.
    fn expand(self: &Arc<Self>, repl: &mut Replication, id: BrokerId, view: PartitionView) -> Option<IsrChange> {
        let (follower, around) = (repl.followers.get(id)?, &*self.surroundings);
        // Most are members: the image is not asked for them.
        let may = |live| isr::want_expand(&repl.isr, follower, view.high_watermark, repl.epoch_start, live);
        if !may(true) || !may(around.is_live(id)) {
            return None;
        }
        let before = list(repl.isr.committed());
        repl.expand(id);
        let (members, _) = repl.isr.proposed()?;
        info!(target: "kafka.cluster.Partition", "[Partition {} broker={}] Expanding ISR from {before} to {}",
            self.name(), around.me, list(&members));
        self.change(repl)
    }

    /// Proposes to do without members.
    fn shrink(self: &Arc<Self>, repl: &mut Replication, removing: Vec<BrokerId>, view: PartitionView) -> IsrChange {
        let before = list(repl.isr.committed());
        let ends = removing.iter().map(|&id| {
            let log_end = repl.followers.get(id).and_then(|follower| follower.log_end);
            let log_end = log_end.map_or_else(|| "unknown".to_owned(), |end| end.to_string());
            format!("(brokerId: {id}, endOffset: {log_end})")
        });
        let ends = ends.collect::<Vec<_>>().join(" ");
        repl.shrink(removing);
        let change = self.change(repl).expect("it was just made");
        let members: Vec<BrokerId> = change.proposal.isr.iter().map(|(id, _)| *id).collect();
        info!(target: "kafka.cluster.Partition",
            "[Partition {} broker={}] Shrinking ISR from {before} to {}. Leader: (highWatermark: {}, endOffset: {}). \
             Out of sync replicas: {ends}.",
            self.name(), self.surroundings.me, list(&members), view.high_watermark, view.log_end_offset);
        change
    }

    /// The proposal under way, as it is to be sent.
    fn change(self: &Arc<Self>, repl: &Replication) -> Option<IsrChange> {
        let (members, number) = repl.isr.proposed()?;
        let epoch = |id| repl.followers.get(id).map_or(BrokerEpoch::NONE, |follower| follower.broker_epoch);
        let proposal = IsrProposal {
            topic: self.id.topic.clone(),
            topic_id: self.id.topic_id,
            partition: self.id.partition,
            leader_epoch: repl.leads_under?,
            isr: members.into_iter().map(|id| (id, epoch(id))).collect(),
            // A leader that was elected uncleanly has recovered by leading.
            recovery: Recovery::Recovered,
            partition_epoch: repl.partition_epoch(),
        };
        Some(IsrChange { partition: Arc::clone(self), number, proposal })
    }

    /// Followers in sync that have this offset, if this broker leads. Those out of sync may lag for ever, and a
    /// consumer with them. Source: Kafka 3.9 `ReplicaManager.findPreferredReadReplica`.
    pub(crate) fn readable_followers(&self, offset: Offset) -> Vec<Readable> {
        let repl = self.repl.lock();
        let in_sync = repl.followers.iter().filter(|follower| repl.isr.committed().contains(&follower.id));
        let readable = |follower: &Follower| {
            let log_end = follower.log_end.filter(|end| *end >= offset && follower.log_start <= offset)?;
            Some(Readable { id: follower.id, log_end, last_caught_up_ms: follower.last_caught_up_ms })
        };
        in_sync.filter_map(readable).collect()
    }

    /// Looks for followers that are level and not in sync. One change at a time.
    /// Source: ours; Kafka looks at each fetch alone.
    pub(crate) fn propose_expansion(self: &Arc<Self>) -> Option<IsrChange> {
        let mut repl = self.repl.lock();
        repl.leads_under?;
        if repl.followers.iter().all(|follower| repl.isr.in_maximal(follower.id)) {
            return None;
        }
        let view = self.view();
        let ids: Vec<BrokerId> = repl.followers.iter().map(|follower| follower.id).collect();
        ids.into_iter().find_map(|id| self.expand(&mut repl, id, view))
    }

    /// Looks for members that lag. Source: Kafka 3.9 `Partition.maybeShrinkIsr`.
    pub(crate) fn propose_shrinking(self: &Arc<Self>) -> Option<IsrChange> {
        let around = &*self.surroundings;
        let mut repl = self.repl.lock();
        repl.leads_under?;
        let view = self.view();
        let lagging =
            isr::want_shrink(&repl.isr, &repl.followers, view.log_end_offset, around.now_ms(), around.lag_ms());
        let change = (!lagging.is_empty()).then(|| self.shrink(&mut repl, lagging, view));
        // One that was to join and came no further has held the high watermark back until now.
        let raises = repl.high_watermark(view.log_end_offset, view.high_watermark, around) > view.high_watermark;
        drop(repl);
        if raises {
            self.raise_high_watermark();
        }
        change
    }

    /// Whether a proposal still waits for its answer.
    pub(crate) fn awaits(&self, number: ChangeNumber) -> bool {
        let repl = self.repl.lock();
        repl.leads_under.is_some() && repl.isr.in_flight() == Some(number)
    }

    /// The controller's answer to a proposal. True: it is to be sent again.
    pub(crate) fn on_isr_answer(&self, sent: ChangeNumber, answer: &Result<StoredIsr, IsrRefused>) -> bool {
        let mut guard = self.state.lock();
        let next = self.repl.lock().on_answer(sent, answer);
        match next {
            Next::Commit(isr, partition_epoch) => {
                let state = &mut *guard;
                let too_few = if isr.len() < self.needed_isr(state) { " (under-min-isr)" } else { "" };
                info!(target: "kafka.cluster.Partition",
                    "[Partition {} broker={}] ISR updated to {}{too_few} and version updated to {partition_epoch}",
                    self.name(), self.surroundings.me, list(&isr));
                let moved =
                    if isr.len() < state.role.isr.len() { &metrics::ISR_SHRINKS } else { &metrics::ISR_EXPANDS };
                moved.add(1);
                (state.role.isr, state.role.partition_epoch) = (isr, partition_epoch);
                self.publish_and_tell(guard);
                false
            }
            Next::Back => {
                info!(partition = %self.name(), ?answer, "the controller refused a change of the ISR");
                metrics::FAILED_ISR_UPDATES.add(1);
                // Whoever was to join holds the high watermark back no longer.
                self.publish_and_tell(guard);
                false
            }
            Next::Stay => {
                debug!(partition = %self.name(), ?answer, "a change of the ISR is left to the next role");
                false
            }
            Next::Again => {
                warn!(partition = %self.name(), ?answer, "a change of the ISR is sent again");
                true
            }
            Next::Stale => false,
        }
    }

    /// Sessions of followers that are told of changes.
    #[cfg(test)]
    pub(crate) fn sessions_told(&self) -> usize {
        self.sessions.len()
    }

    /// Whether a change of the ISR is under way.
    #[cfg(test)]
    pub(crate) fn proposes(&self) -> bool {
        self.repl.lock().isr.in_flight().is_some()
    }

    fn raise_high_watermark(&self) {
        self.publish_and_tell(self.state.lock());
    }

    /// Publishes positions, answers acks, and wakes whoever can read more by that.
    pub(super) fn publish_and_tell(&self, mut state: MutexGuard<'_, State>) {
        let before = self.view().high_watermark;
        let moved = self.publish(&mut state);
        let rose = self.view().high_watermark > before;
        drop(state);
        if rose {
            match moved.readable {
                Some(bytes) => self.waiters.add(bytes, moved.stable),
                None => self.waiters.wake_all(),
            }
        }
    }

    /// First offset of the present leader epoch, if this broker leads. Until the high watermark has come there, it does
    /// not know where the log of its predecessor ended for consumers.
    pub(crate) fn epoch_start(&self) -> Option<Offset> {
        let repl = self.repl.lock();
        repl.leads_under.map(|_| repl.epoch_start)
    }
}

/// As Kafka writes lists of brokers.
fn list(ids: &[BrokerId]) -> String {
    ids.iter().map(BrokerId::to_string).collect::<Vec<_>>().join(",")
}
