//! One partition that is followed: what is to be done next, decided from what came.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::replica::ack::AckError;
use crate::replica::change::ChangeError;
use crate::replica::leader_link::{FetchRefused, PartitionAsk};
use crate::replica::partition::{NotReplicated, Partition};
use crate::storage::StorageError;
use crate::types::{LeaderEpoch, Offset};

/// The first pause after a failure; it doubles up to the one that is set.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Pauses that grow.
#[derive(Debug, Default)]
pub(super) struct Backoff(u32);

impl Backoff {
    pub(super) fn next(&mut self, longest: Duration) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1 << self.0.min(10)).min(longest);
        self.0 += 1;
        pause
    }

    pub(super) fn reset(&mut self) {
        self.0 = 0;
    }
}

/// Where a log is to be cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The leader's history parts from ours: its largest epoch that is not above our last, and where that ended.
    Diverging(LeaderEpoch, Offset),
    /// Down to here.
    To(Offset),
    /// Everything; the log goes on at this offset, where the leader's begins.
    StartAt(Offset),
}

/// What is to be done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    Fetch,
    Cut(Cut),
    /// The leader has nothing at our end: ask it where its log begins and ends.
    FindRange,
    Wait(Instant),
    /// Nothing, until another role comes.
    Failed,
}

/// A partition that is followed.
#[derive(Debug)]
pub(super) struct Follow {
    pub(super) partition: Arc<Partition>,
    pub(super) leader_epoch: LeaderEpoch,
    pub(super) next: Next,
    /// Latest epoch of our history.
    last_epoch: Option<LeaderEpoch>,
    /// Log end and latest epoch before the cut that is to be made.
    uncut: (Offset, Option<LeaderEpoch>),
    backoff: Backoff,
    longest_pause: Duration,
    /// It has all that the leader's high watermark covers, as far as it was told.
    level: bool,
}

impl Follow {
    /// Without an epoch history nothing can be compared with the leader's, so what the high watermark does not cover is
    /// fetched again. Source: Kafka 3.9 `ReplicaManager.initialFetchOffset`.
    pub(super) fn new(partition: Arc<Partition>, leader_epoch: LeaderEpoch, longest_pause: Duration) -> Self {
        let last_epoch = partition.latest_epoch();
        let view = partition.view();
        let next = match last_epoch {
            None if view.log_end_offset > view.high_watermark => Next::Cut(Cut::To(view.high_watermark)),
            // It is looked at first.
            _ if partition.is_being_written() => Next::Wait(Instant::now()),
            _ => Next::Fetch,
        };
        let (uncut, backoff) = ((view.log_end_offset, last_epoch), Backoff::default());
        Self { partition, leader_epoch, next, last_epoch, uncut, backoff, longest_pause, level: false }
    }

    /// What is wanted of the partition, if it is to be fetched now.
    pub(super) fn ask(&mut self, now: Instant, max_bytes: i32) -> Option<PartitionAsk> {
        match self.next {
            // Meanwhile the log may have been opened anew, without what was queued when it was followed first.
            Next::Wait(until) if until <= now => self.changed(),
            Next::Fetch => {}
            Next::Cut(_) | Next::FindRange | Next::Wait(_) | Next::Failed => return None,
        }
        if self.next != Next::Fetch {
            return None;
        }
        let view = self.partition.view();
        Some(PartitionAsk {
            id: self.partition.id.clone(),
            fetch_offset: view.log_end_offset,
            last_fetched_epoch: self.last_epoch,
            leader_epoch: Some(self.leader_epoch),
            log_start_offset: view.log_start_offset,
            max_bytes,
        })
    }

    /// Whether an answer to this question may be taken: nothing has changed since.
    pub(super) fn still_asks(&self, asked: &PartitionAsk) -> bool {
        self.next == Next::Fetch
            && asked.leader_epoch == Some(self.leader_epoch)
            && asked.fetch_offset == self.partition.view().log_end_offset
    }

    /// Whether there is something to do before, or instead of, the next fetch.
    pub(super) fn is_unsettled(&self) -> bool {
        matches!(self.next, Next::Cut(_) | Next::FindRange | Next::Wait(_))
    }

    /// What the leader told, when all that came with it was written.
    pub(super) fn told(&mut self, high_watermark: Offset) {
        self.level = high_watermark <= self.partition.view().log_end_offset;
    }

    /// Whether it is left out of fetches for now. Source: Kafka 3.9 `RemoteLeaderEndPoint.shouldFollowerThrottle`.
    pub(super) fn is_held_back(&self) -> bool {
        self.next == Next::Fetch && !self.level && self.partition.is_held_back()
    }

    /// The log is longer now, or cut; what was fetched is written.
    pub(super) fn changed(&mut self) {
        self.last_epoch = self.partition.latest_epoch();
        self.next = Next::Fetch;
        if self.partition.is_being_written() {
            // Its log is taking another place, and what was written comes to the view with that.
            self.wait();
        }
    }

    /// A fetch came through, and all that came is written.
    pub(super) fn succeeded(&mut self) {
        self.backoff.reset();
    }

    /// The logs part: the end of this one is to be cut off before the next fetch.
    pub(super) fn parted(&mut self, cut: Cut) {
        self.uncut = (self.partition.view().log_end_offset, self.partition.latest_epoch());
        self.next = Next::Cut(cut);
    }

    pub(super) fn wait(&mut self) {
        self.next = Next::Wait(Instant::now() + self.backoff.next(self.longest_pause));
    }

    fn fail(&mut self, why: &str) {
        error!(partition = %self.partition.name(), why, "the partition is not followed any more");
        self.next = Next::Failed;
    }

    /// The leader has not read the partition. Source: Kafka 3.9 `AbstractFetcherThread.processFetchRequest`.
    pub(super) fn refused(&mut self, refused: FetchRefused) {
        match refused {
            FetchRefused::OffsetOutOfRange => self.next = Next::FindRange,
            FetchRefused::FencedLeaderEpoch => {
                info!(partition = %self.partition.name(), leader_epoch = %self.leader_epoch,
                    "the leader has a later epoch; waiting for the controller to say so");
                self.next = Next::Failed;
            }
            FetchRefused::Other(code) => {
                warn!(partition = %self.partition.name(), code, "the leader refuses the fetch");
                self.wait();
            }
            FetchRefused::UnknownPartition
            | FetchRefused::NotLeader
            | FetchRefused::Storage
            | FetchRefused::UnknownLeaderEpoch
            | FetchRefused::UnknownTopicId
            | FetchRefused::InconsistentTopicId => self.wait(),
        }
    }

    /// What came could not be appended.
    pub(super) fn not_replicated(&mut self, error: &NotReplicated) {
        match error {
            // The order that ends it is on its way.
            NotReplicated::Superseded => self.next = Next::Failed,
            NotReplicated::Full => self.wait(),
            NotReplicated::Storage(_) => self.fail(&error.to_string()),
        }
    }

    /// The write of what came has failed.
    pub(super) fn not_written(&mut self, error: &StorageError) {
        match error {
            StorageError::Full { .. } => self.wait(),
            // It was a directory that the log has left since.
            _ if self.partition.failure().is_none() => self.wait(),
            error => self.fail(&error.to_string()),
        }
    }

    /// A part of what came is not as it should be.
    pub(super) fn spoiled(&mut self, why: &dyn std::fmt::Display) {
        error!(partition = %self.partition.name(), %why, "what the leader sent is not appended; it is asked again");
        self.wait();
    }

    /// The log was to be cut.
    pub(super) fn cut(&mut self, outcome: Result<(), ChangeError>) {
        match outcome {
            // The leader would answer as before, again and again.
            Ok(()) if self.uncut == (self.partition.view().log_end_offset, self.partition.latest_epoch()) => {
                warn!(partition = %self.partition.name(), log_end_offset = %self.uncut.0,
                    "the leader's log parts from this one where there is nothing to cut");
                self.wait();
            }
            Ok(()) => self.changed(),
            // Another role is on its way.
            Err(ChangeError::Closed | ChangeError::Leads) => self.next = Next::Failed,
            // Nothing has changed: the question is put again, and answered again.
            Err(
                ChangeError::Truncating
                | ChangeError::Failed(AckError::Full)
                | ChangeError::Unwritten(StorageError::Full { .. }),
            ) => self.wait(),
            Err(ChangeError::Unwritten(failure @ StorageError::Read { .. })) => {
                if self.partition.reader().is_news(&failure) {
                    error!(partition = %self.partition.name(), %failure,
                        "the log cannot be cut, since what is left of it cannot be read; it follows nobody until it can");
                }
                self.wait();
            }
            Err(error) => self.fail(&error.to_string()),
        }
    }

    /// The leader's log lies between these offsets, and our end does not.
    /// Source: Kafka 3.9 `AbstractFetcherThread.fetchOffsetAndTruncate`.
    pub(super) fn on_range(&mut self, leader_start: Offset, leader_end: Offset) {
        let end = self.partition.view().log_end_offset;
        if leader_end < end {
            warn!(partition = %self.partition.name(), log_end_offset = %end, leader_end = %leader_end,
                "the leader's log ends before ours, after an unclean election; what lies above goes");
            self.parted(Cut::To(leader_end));
        } else if leader_start > end {
            warn!(partition = %self.partition.name(), log_end_offset = %end, leader_start = %leader_start,
                "the leader's log begins after ours ends; the log begins anew there");
            self.parted(Cut::StartAt(leader_start));
        } else {
            // It has changed meanwhile, or knows nothing yet of an epoch that this log has.
            self.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::move_tests::testing::{self as move_tests, Bench, fetched, path};
    use crate::replica::testing::{append, led, role, take};
    use crate::storage::testing::faulty::{Fate, Operation, Rule};

    /// What was queued when the partition was followed first may be refused later, and its epoch with it. A follower
    /// that went on to name that epoch was told for ever to cut what was not there.
    #[tokio::test]
    async fn the_epoch_that_a_log_ends_with_is_looked_at_again_after_a_pause() {
        let (partition, _faults) = led(LeaderEpoch(3));
        append(&partition, 1);
        take(&partition, role(2, 4));
        let mut follow = Follow::new(Arc::clone(&partition), LeaderEpoch(4), Duration::from_secs(1));
        let now = Instant::now();
        assert_eq!(follow.ask(now, 1).and_then(|ask| ask.last_fetched_epoch), Some(LeaderEpoch(3)));
        partition.truncate_to(Offset(0), 0).expect("as a log that is opened anew");
        follow.parted(Cut::Diverging(LeaderEpoch(2), Offset(0)));
        follow.cut(Ok(()));
        let ask = follow.ask(now + Duration::from_secs(60), 1).expect("the pause is over");
        assert_eq!((ask.fetch_offset, ask.last_fetched_epoch), (Offset(0), None));
    }

    /// It went on to ask for what was on its way to the new place, and refused it with a line of its own.
    #[tokio::test]
    async fn a_follower_asks_for_nothing_while_its_log_takes_another_place() {
        let bench = Bench::new();
        let partition = bench.partition();
        take(&partition, role(2, 1));
        move_tests::follow(&partition, 1, fetched(0, 10, 1, 0));
        bench.alter(1).expect("begins");
        let old = bench.faults[0].script(Rule::new(Fate::Wait, &[Operation::Commit]));
        let replicated = partition.append_fetched(LeaderEpoch(1), fetched(10, 3, 1, 0), 0).expect("follows");
        drop(replicated.unwritten);
        let (new, stepping) = bench.take_the_place(1, false);
        bench.faults[0].lift(old);
        replicated.written.wait().expect("written");
        let mut follow = Follow::new(Arc::clone(&partition), LeaderEpoch(1), Duration::from_secs(1));
        let later = Instant::now() + Duration::from_secs(60);
        assert_eq!(follow.ask(later, 1).map(|ask| ask.fetch_offset), None);
        assert!(follow.is_unsettled(), "it is looked at again");
        bench.faults[1].lift(new);
        stepping.join().expect("no panic");
        assert_eq!(follow.ask(later, 1).map(|ask| ask.fetch_offset), Some(Offset(13)));
    }

    /// A write that failed in the directory which the log has left says nothing of the log.
    #[tokio::test]
    async fn a_follower_goes_on_where_a_directory_failed_that_its_log_has_left() {
        let bench = Bench::new();
        let partition = bench.partition();
        take(&partition, role(2, 1));
        bench.alter(1).expect("begins");
        bench.step(20);
        assert_eq!(partition.home().at, 1);
        let failure = StorageError::Stopped { dir: path(0), reason: "injected".into() };
        let mut follow = Follow::new(Arc::clone(&partition), LeaderEpoch(1), Duration::from_secs(1));
        follow.not_written(&failure);
        assert!(!partition.on_dir_failed(&path(0), &failure));
        let later = Instant::now() + Duration::from_secs(60);
        assert!(follow.ask(later, 1).is_some());
        assert!(partition.on_dir_failed(&path(1), &failure));
        follow.not_written(&failure);
        assert!(follow.ask(later, 1).is_none() && !follow.is_unsettled(), "its own has");
    }
}
