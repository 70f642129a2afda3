//! Transactions at a partition over the directory's twin in memory: what its view shows, whom it wakes, and what is
//! left when a write was refused.

use std::sync::Arc;

use futures_util::FutureExt;

use super::ack::{Ack, AckError, Completion};
use super::partition::{Accepted, AckAt, AppendRefused, Partition};
use super::testing;
use super::wait::FetchWaiter;
use crate::log::partition_log::AppendError;
use crate::record::{BatchBuilder, ValidBatch};
use crate::storage::testing::faulty::Faults;
use crate::types::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId, TransactionGuard, TransactionMarker, TransactionResult,
};

const PRODUCER: ProducerId = ProducerId(7);
const EPOCH: ProducerEpoch = ProducerEpoch(0);

/// A partition that is led here.
fn led() -> (Arc<Partition>, Arc<Faults>) {
    testing::led(LeaderEpoch(0))
}

fn data(sequence: i32) -> ValidBatch {
    let mut builder = BatchBuilder::new().producer(PRODUCER, EPOCH, sequence).transactional();
    builder.append(0, Some(b"k"), Some(&[b'v'; 500]));
    builder.finish()
}

/// What became of an append: refused, or written or not.
fn outcome(
    append: impl FnOnce(AckAt) -> Result<Accepted, AppendRefused>,
) -> Result<Result<(), AckError>, AppendRefused> {
    let (completion, mut acked) = Completion::new(1);
    drop(append(AckAt::HighWatermark(Ack::new(&completion, 0)))?);
    drop(completion);
    loop {
        if let Some(outcomes) = acked.try_all() {
            return Ok(outcomes.into_iter().next().expect("one slot"));
        }
        std::thread::yield_now();
    }
}

fn append(
    partition: &Arc<Partition>,
    sequence: i32,
    guard: Option<TransactionGuard>,
) -> Result<Result<(), AckError>, AppendRefused> {
    outcome(|ack| partition.append(data(sequence), ack, None, guard, 0))
}

fn end(partition: &Arc<Partition>, result: TransactionResult) -> Result<Result<(), AckError>, AppendRefused> {
    let marker = TransactionMarker { producer_id: PRODUCER, producer_epoch: EPOCH, coordinator_epoch: 0, result };
    outcome(|ack| partition.append_marker(&marker, ack, None, 0))
}

fn positions(partition: &Partition) -> (i64, i64) {
    let view = partition.view();
    (view.last_stable_offset.0, view.high_watermark.0)
}

#[test]
fn the_view_holds_readers_of_committed_records_back_until_the_marker_is_written() {
    let (partition, _) = led();
    let guard = partition.begin_verification(PRODUCER, EPOCH);
    append(&partition, 0, guard).expect("accepted").expect("written");
    assert_eq!(positions(&partition), (0, 1));
    assert_eq!(partition.begin_verification(PRODUCER, EPOCH), None);
    let waiter = |committed, missing| {
        let waiter = FetchWaiter::new(committed);
        partition.waiters.register(&waiter);
        waiter.expect(missing);
        waiter
    };
    // It wants more than the marker has, and what is held back was written before it came.
    let (committed, all) = (waiter(true, 400), waiter(false, 400));
    append(&partition, 1, None).expect("accepted").expect("written");
    // Whoever writes wakes after it acknowledges.
    partition.wait_for_writes().expect("written");
    assert!(all.due().now_or_never().is_some() && committed.due().now_or_never().is_none());
    end(&partition, TransactionResult::Abort).expect("accepted").expect("written");
    partition.wait_for_writes().expect("written");
    assert!(committed.due().now_or_never().is_some());
    assert_eq!(positions(&partition), (3, 3));
    let aborted = partition.reader().aborted_transactions(Offset(1), Offset(3)).expect("not deleted");
    assert_eq!(
        aborted.iter().map(|one| (one.producer_id, one.first_offset)).collect::<Vec<_>>(),
        [(PRODUCER, Offset(0))]
    );
}

#[test]
fn a_marker_that_was_not_written_ends_nothing() {
    let (partition, faults) = led();
    let guard = partition.begin_verification(PRODUCER, EPOCH);
    append(&partition, 0, guard).expect("accepted").expect("written");
    faults.refuse_next();
    assert_eq!(end(&partition, TransactionResult::Abort).expect("accepted"), Err(AckError::Full));
    assert_eq!(positions(&partition), (0, 1));
    partition.open_anew(0).expect("there is space");
    append(&partition, 1, partition.begin_verification(PRODUCER, EPOCH)).expect("joins").expect("written");
    assert_eq!(positions(&partition), (0, 2));
    assert!(partition.reader().aborted_transactions(Offset(0), Offset(9)).is_some_and(|all| all.is_empty()));
    end(&partition, TransactionResult::Commit).expect("accepted").expect("written");
    assert_eq!(positions(&partition), (3, 3));
}

#[test]
fn a_first_batch_that_was_not_written_has_to_be_verified_again() {
    let (partition, faults) = led();
    let guard = partition.begin_verification(PRODUCER, EPOCH);
    let other = partition.begin_verification(ProducerId(8), EPOCH);
    faults.refuse_next();
    assert_eq!(append(&partition, 0, guard).expect("accepted"), Err(AckError::Full));
    let again = partition.begin_verification(PRODUCER, EPOCH);
    assert!(again.is_some() && again != guard, "nothing is open on the disk");
    partition.open_anew(0).expect("there is space");
    let stale = append(&partition, 0, guard);
    assert!(matches!(stale, Err(AppendRefused::Log(AppendError::InvalidTxnState { .. }))));
    append(&partition, 0, again).expect("verified").expect("written");
    assert_eq!(positions(&partition), (0, 1));
    assert_eq!(partition.begin_verification(ProducerId(8), EPOCH), other, "guards outlive the log that gave them");
}
