//! A fetcher whose leader says what a test wants: whatever goes wrong for good costs neither side more and more.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::*;
use crate::clock::testing::ManualClock;
use crate::record::{BatchBuilder, stamp};
use crate::replica::leader_link::{
    FetchAnswer, FetchAsk, FetchRefused, Fetched, LeaderLink, LinkError, LogEnd, PartitionId, SessionError, TopicRef,
};
use crate::replica::testing::{ME, closed, fetcher_settings, role, take};
use crate::types::Offset;
use crate::types::place::Place;

const LEADER: BrokerId = BrokerId(2);

/// What the leader answers to a fetch at this offset.
type Said = Result<Result<Fetched, FetchRefused>, SessionError>;
type Says = fn(Offset) -> Said;

#[derive(Debug)]
struct Leader {
    says: Says,
    asked: AtomicUsize,
}

impl LeaderLinks for Arc<Leader> {
    fn link(&self, _: BrokerId, _: u16) -> Arc<dyn LeaderLink> {
        Arc::new(Arc::clone(self))
    }
}

impl LeaderLink for Arc<Leader> {
    fn fetch(&self, ask: FetchAsk) -> BoxFuture<'_, Result<Result<FetchAnswer, SessionError>, LinkError>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let told = ask.partitions.into_iter().map(|wanted| {
            let key = (TopicRef::Id(wanted.id.topic_id), wanted.id.partition);
            Ok((key, (self.says)(wanted.fetch_offset)?))
        });
        let told: Result<Vec<_>, SessionError> = told.collect();
        let answer = told.map(|partitions| FetchAnswer { session_id: 0, partitions });
        async move {
            tokio::task::yield_now().await;
            Ok(answer)
        }
        .boxed()
    }

    fn list_offset(
        &self,
        _: PartitionId,
        _: LeaderEpoch,
        _: LogEnd,
    ) -> BoxFuture<'_, Result<Result<Offset, FetchRefused>, LinkError>> {
        async { Ok(Ok(Offset(0))) }.boxed()
    }
}

fn fetched(records: Vec<Bytes>, diverging: Option<(LeaderEpoch, Offset)>) -> Said {
    Ok(Ok(Fetched {
        high_watermark: Offset(0),
        log_start_offset: Offset(0),
        diverging,
        records: records.into_iter().map(Place::from).collect(),
    }))
}

fn batch_at(offset: Offset, epoch: i32) -> Bytes {
    let mut builder = BatchBuilder::new();
    builder.append(0, None, Some(b"v"));
    let mut batch = builder.finish();
    stamp(&mut batch, offset, LeaderEpoch(epoch), None);
    batch.bytes.freeze()
}

/// How often a leader is asked that says this for so many seconds; `full`: to a follower without space.
async fn asked(says: Says, full: bool, seconds: u64) -> (usize, Arc<Partition>) {
    let (partition, faults) = closed();
    take(&partition, role(LEADER.0, 3));
    if full {
        faults.set_full(true);
    }
    let leader = Arc::new(Leader { says, asked: AtomicUsize::new(0) });
    let clock = Arc::new(ManualClock::new(0, 1));
    let links = Arc::new(Arc::clone(&leader));
    let fetchers = Fetchers::new(ME, SharedBrokerEpoch::default(), links, clock, fetcher_settings());
    fetchers.follow(LEADER, vec![(Arc::clone(&partition), LeaderEpoch(3))]);
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    fetchers.stop_all().await;
    (leader.asked.load(Ordering::SeqCst), partition)
}

/// The pause after a failure began anew with each answer, so that the leader sent 50 times a second what the follower
/// could not keep; or there was none.
#[tokio::test(start_paused = true)]
async fn what_goes_wrong_again_is_tried_more_and_more_rarely() {
    let corrupt: Says = |offset| {
        let mut batch = batch_at(offset, 3).to_vec();
        *batch.last_mut().expect("bytes") ^= 1;
        fetched(vec![batch.into()], None)
    };
    let of_a_later_epoch: Says = |offset| fetched(vec![batch_at(offset, 4)], None);
    let cut_short: Says = |offset| fetched(vec![batch_at(offset, 3).slice(..20)], None);
    let within_its_range: Says = |_| Ok(Err(FetchRefused::OffsetOutOfRange));
    let knows_no_session: Says = |_| Err(SessionError::NotFound);
    let parts_at_the_end: Says = |offset| fetched(Vec::new(), Some((LeaderEpoch(3), offset)));
    let good: Says = |offset| fetched(vec![batch_at(offset, 3)], None);
    let cases = [
        ("corrupt", corrupt, false),
        ("of a later epoch", of_a_later_epoch, false),
        ("cut short", cut_short, false),
        ("out of a range that it is in", within_its_range, false),
        ("parted where nothing is to be cut", parts_at_the_end, false),
        ("without a session that it knows", knows_no_session, false),
        ("no space", good, true),
    ];
    for (what, says, full) in cases {
        let (times, partition) = asked(says, full, 20).await;
        assert!((5..40).contains(&times), "{what}: {times}");
        assert_eq!(partition.view().log_end_offset, Offset(0), "{what}");
    }
}

/// Batches that overlap each other were taken for an empty log's first one, and what lies below was left out.
#[tokio::test(start_paused = true)]
async fn an_empty_log_begins_below_its_start_alone() {
    let overlapping: Says = |offset| {
        let mut builder = BatchBuilder::new();
        (0..5).for_each(|_| builder.append(0, None, Some(b"v")));
        let mut batch = builder.finish();
        stamp(&mut batch, offset, LeaderEpoch(3), None);
        fetched(vec![[batch.bytes.freeze(), batch_at(Offset(offset.0 + 2), 3)].concat().into()], None)
    };
    let (_, partition) = asked(overlapping, false, 5).await;
    let view = partition.view();
    assert_eq!((view.log_start_offset, view.log_end_offset), (Offset(0), Offset(0)));
}

/// A follower that is behind asks no more than its rate allows; the leader's high watermark says that it is behind.
#[tokio::test]
async fn a_replica_that_is_behind_is_held_back_by_itself() {
    let far_behind: Says = |offset| {
        let answer = fetched(vec![batch_at(offset, 3)], None);
        answer.map(|found| found.map(|found| Fetched { high_watermark: Offset(1 << 40), ..found }))
    };
    // The clock of rates stands still: what is used up stays so.
    let follow = |limit| {
        let (partition, faults) = closed();
        take(&partition, role(LEADER.0, 3));
        let throttle = &partition.surroundings_for_test().throttles.follower;
        throttle.set_limit(limit);
        throttle.name(&"t".into(), &["*".to_owned()], ME);
        let leader = Arc::new(Leader { says: far_behind, asked: AtomicUsize::new(0) });
        let (links, clock) = (Arc::new(Arc::clone(&leader)), Arc::new(ManualClock::new(0, 1)));
        let fetchers = Fetchers::new(ME, SharedBrokerEpoch::default(), links, clock, fetcher_settings());
        fetchers.follow(LEADER, vec![(Arc::clone(&partition), LeaderEpoch(3))]);
        (leader, fetchers, partition, faults)
    };
    let asked = async |leader: &Arc<Leader>, times| {
        let reached = async {
            while leader.asked.load(Ordering::SeqCst) < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached).await.expect("asked");
    };
    let (leader, fetchers, _free, _faults) = follow(u64::MAX);
    asked(&leader, 5).await;
    fetchers.stop_all().await;
    let (leader, fetchers, partition, _faults) = follow(10);
    asked(&leader, 1).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(leader.asked.load(Ordering::SeqCst), 1, "an answer was more than there is");
    partition.surroundings_for_test().throttles.follower.set_limit(u64::MAX);
    asked(&leader, 5).await;
    fetchers.stop_all().await;
}
