//! The shard alone: every transition, what is refused, what is due, and that its state is the fold of its log.

use std::sync::Arc;

use super::config::TransactionConfig;
use super::error::TransactionError::{self, *};
use super::request::*;
use super::shard::TransactionShard;
use super::state::State;
use crate::coordinator::shard::{Moment, Outcome, Shard, Ticket};
use crate::coordinator::writer::CoordinatorRecord;
use crate::types::TransactionResult::{Abort, Commit};
use crate::types::{LeaderEpoch, ProducerEpoch, ProducerId, TopicPartition, TransactionResult};

/// A shard with its log, at a time.
struct Bench {
    shard: TransactionShard,
    log: Vec<CoordinatorRecord>,
    now_ms: i64,
    next_ticket: u64,
    /// Answers to earlier requests that waited.
    late: Vec<(Ticket, TransactionReply)>,
}

impl Bench {
    fn new() -> Self {
        let shard = TransactionShard::new(Arc::new(TransactionConfig::default()), 1_048_588);
        let mut bench = Self { shard, log: Vec::new(), now_ms: 1_000_000, next_ticket: 0, late: Vec::new() };
        bench.shard.on_loaded(bench.now(), &mut Outcome::default());
        bench
    }

    fn now(&self) -> Moment {
        Moment { unix_ms: self.now_ms, monotonic_ms: self.now_ms }
    }

    /// Replays what was decided, as the owner does.
    fn settle(&mut self, out: Outcome<TransactionReply>) {
        for record in out.records {
            self.shard.replay(&record).expect("its own record");
            self.log.push(record);
        }
        self.late.extend(out.replies);
    }

    /// The answer, if there is one at once.
    fn ask(&mut self, request: TransactionRequest) -> Option<TransactionReply> {
        self.now_ms += 1;
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let mut out = Outcome::default();
        self.shard.handle(self.now(), ticket, request, &mut out);
        self.settle(out);
        let at = self.late.iter().position(|(of, _)| *of == ticket)?;
        Some(self.late.remove(at).1)
    }

    fn init_with(&mut self, expected: Option<Producer>, fresh: Option<i64>) -> Result<InitReply, TransactionError> {
        let request = InitRequest { id: "t".into(), timeout_ms: 60_000, expected, fresh: fresh.map(ProducerId) };
        match self.ask(TransactionRequest::Init(request)) {
            Some(TransactionReply::Init(reply)) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn init(&mut self) -> Result<InitReply, TransactionError> {
        self.init_with(None, Some(1))
    }

    fn add(&mut self, producer: Producer, partitions: &[i32]) -> Result<(), TransactionError> {
        match self.ask(TransactionRequest::AddPartitions(of(producer, partitions))) {
            Some(TransactionReply::AddPartitions(reply)) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn verify(
        &mut self,
        producer: Producer,
        partitions: &[i32],
    ) -> Result<Vec<Result<(), TransactionError>>, TransactionError> {
        match self.ask(TransactionRequest::Verify(of(producer, partitions))) {
            Some(TransactionReply::Verify(reply)) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn end(&mut self, producer: Producer, result: TransactionResult) -> Result<(), TransactionError> {
        match self.ask(TransactionRequest::End(EndRequest { id: "t".into(), producer, result })) {
            Some(TransactionReply::End(reply)) => reply,
            other => panic!("{other:?}"),
        }
    }

    /// What is due now; the request may stay open.
    fn take(&mut self, epoch: i32) -> Option<Vec<DueMarkers>> {
        match self.ask(TransactionRequest::TakeMarkers { epoch: LeaderEpoch(epoch) })? {
            TransactionReply::TakeMarkers(due) => Some(due),
            other => panic!("{other:?}"),
        }
    }

    fn complete(&mut self) {
        let stored = self.stored();
        let transaction = Ending {
            id: "t".into(),
            producer: (stored.0, stored.1),
            prepared_ms: self.shard.stored("t").expect("there").last_update_ms,
        };
        self.ask(written(9, transaction));
    }

    fn on_time(&mut self, later_ms: i64) {
        self.now_ms += later_ms;
        let mut out = Outcome::default();
        self.shard.on_time(self.now(), &mut out);
        self.settle(out);
    }

    fn stored(&self) -> (ProducerId, ProducerEpoch, State) {
        let stored = self.shard.stored("t").expect("there");
        (stored.producer_id, stored.producer_epoch, stored.state)
    }

    fn state(&self) -> State {
        self.stored().2
    }

    /// A shard that has done nothing but read the log of this one.
    fn reloaded(self) -> Self {
        let mut bench = Self { now_ms: self.now_ms, ..Self::new() };
        for record in &self.log {
            bench.shard.replay(record).expect("its own record");
        }
        bench.log = self.log;
        bench
    }

    /// With an epoch that so many InitProducerId would give.
    fn at_epoch(epoch: i16) -> Self {
        let mut bench = Self::new();
        assert_eq!(bench.init(), given(1, 0));
        for next in 1..=epoch {
            assert_eq!(bench.init(), given(1, next));
        }
        bench
    }

    /// In the state, with producer 1 at epoch 0 and partitions 0 and 1.
    fn in_state(state: State) -> Self {
        let mut bench = Self::at_epoch(0);
        let ends = match state {
            State::Empty => return bench,
            State::Ongoing => None,
            State::PrepareCommit => Some((Commit, false)),
            State::PrepareAbort => Some((Abort, false)),
            State::CompleteCommit => Some((Commit, true)),
            State::CompleteAbort => Some((Abort, true)),
        };
        assert_eq!(bench.add(P0, &[0, 1]), Ok(()));
        if let Some((result, complete)) = ends {
            assert_eq!(bench.end(P0, result), Ok(()));
            if complete {
                bench.complete();
            }
        }
        assert_eq!(bench.state(), state);
        bench
    }
}

const STATES: [State; 6] = [
    State::Empty,
    State::Ongoing,
    State::PrepareCommit,
    State::PrepareAbort,
    State::CompleteCommit,
    State::CompleteAbort,
];
const P0: Producer = producer(1, 0);
const EPOCH_LAST: i16 = i16::MAX - 1;

fn written(epoch: i32, transaction: Ending) -> TransactionRequest {
    TransactionRequest::MarkersWritten { epoch: LeaderEpoch(epoch), transaction }
}

const fn producer(id: i64, epoch: i16) -> Producer {
    (ProducerId(id), ProducerEpoch(epoch))
}

fn given(id: i64, epoch: i16) -> Result<InitReply, TransactionError> {
    Ok(InitReply::Given(ProducerId(id), ProducerEpoch(epoch)))
}

fn partitions(indices: &[i32]) -> Vec<TopicPartition> {
    indices.iter().map(|&index| TopicPartition::new("topic", index)).collect()
}

fn of(producer: Producer, indices: &[i32]) -> PartitionsRequest {
    PartitionsRequest { id: "t".into(), producer, partitions: partitions(indices) }
}

#[test]
fn a_new_id_asks_for_a_producer_id_and_begins_at_epoch_0() {
    let mut bench = Bench::new();
    assert_eq!(bench.init_with(None, None), Ok(InitReply::NeedsProducerId));
    assert!(bench.log.is_empty());
    assert_eq!(bench.init_with(None, Some(1)), given(1, 0));
    assert_eq!(bench.stored(), (ProducerId(1), ProducerEpoch(0), State::Empty));
    // Whatever the producer had elsewhere.
    let mut bench = Bench::new();
    assert_eq!(bench.init_with(Some(producer(77, 3)), Some(1)), given(1, 0));
}

#[test]
fn init_bumps_the_epoch_unless_a_transaction_is_in_the_way() {
    let after = |state| {
        let mut bench = Bench::in_state(state);
        let reply = bench.init_with(None, None);
        (reply, bench.stored().1.0, bench.state())
    };
    for state in [State::Empty, State::CompleteCommit, State::CompleteAbort] {
        assert_eq!(after(state), (given(1, 1), 1, State::Empty), "{state:?}");
    }
    assert_eq!(after(State::Ongoing), (Err(ConcurrentTransactions), 1, State::PrepareAbort));
    assert_eq!(after(State::PrepareCommit), (Err(ConcurrentTransactions), 0, State::PrepareCommit));
    assert_eq!(after(State::PrepareAbort), (Err(ConcurrentTransactions), 0, State::PrepareAbort));
}

#[test]
fn a_fenced_producer_has_lost_its_transaction() {
    let mut bench = Bench::in_state(State::Ongoing);
    assert_eq!(bench.init(), Err(ConcurrentTransactions));
    assert_eq!(bench.add(P0, &[2]), Err(ProducerFenced));
    assert_eq!(bench.end(P0, Commit), Err(ProducerFenced));
    assert_eq!(bench.verify(P0, &[0]), Err(ProducerFenced));
    bench.complete();
    // The epoch that fenced was given to nobody.
    assert_eq!(bench.init(), given(1, 2));
    assert_eq!(bench.add(producer(1, 2), &[0]), Ok(()));
}

#[test]
fn the_expected_producer_decides_who_may_go_on() {
    let mut bench = Bench::at_epoch(3);
    assert_eq!(bench.init_with(Some(producer(2, 3)), None), Err(ProducerFenced));
    assert_eq!(bench.init_with(Some(producer(1, 2)), None), Err(ProducerFenced));
    assert_eq!(bench.init_with(Some(producer(1, 3)), None), given(1, 4));
    // The answer was lost: the same request again gets the same answer.
    assert_eq!(bench.init_with(Some(producer(1, 3)), None), given(1, 4));
    assert_eq!(bench.init_with(Some(producer(1, 4)), None), given(1, 5));
    assert_eq!(bench.init_with(Some(producer(1, 3)), None), Err(ProducerFenced));
    // A new producer ends it.
    assert_eq!(bench.init_with(None, None), given(1, 6));
    assert_eq!(bench.init_with(Some(producer(1, 5)), None), Err(ProducerFenced));
    // What was before is not stored.
    assert_eq!(bench.init_with(Some(producer(1, 6)), None), given(1, 7));
    assert_eq!(bench.reloaded().init_with(Some(producer(1, 6)), None), Err(ProducerFenced));
}

#[test]
fn a_used_up_epoch_needs_a_new_producer_id() {
    let mut bench = Bench::at_epoch(EPOCH_LAST);
    let last = Some(producer(1, EPOCH_LAST));
    assert_eq!(bench.init_with(last, None), Ok(InitReply::NeedsProducerId));
    assert_eq!(bench.init_with(last, Some(9)), given(9, 0));
    assert_eq!(bench.init_with(last, None), given(9, 0), "a repetition");
    assert_eq!(bench.init_with(Some(producer(1, 5)), None), Err(ProducerFenced));
    assert_eq!(bench.init_with(Some(producer(9, 0)), None), given(9, 1));

    let mut bench = Bench::at_epoch(EPOCH_LAST);
    assert_eq!(bench.init_with(None, Some(9)), given(9, 0));
    assert_eq!(bench.init_with(last, None), Err(ProducerFenced));
    assert_eq!(bench.add(producer(1, EPOCH_LAST), &[0]), Err(InvalidProducerIdMapping));
}

#[test]
fn the_highest_epoch_of_all_fences() {
    let mut bench = Bench::at_epoch(EPOCH_LAST);
    assert_eq!(bench.add(producer(1, EPOCH_LAST), &[0]), Ok(()));
    assert_eq!(bench.init(), Err(ConcurrentTransactions));
    assert_eq!(bench.stored().1, ProducerEpoch(i16::MAX));
    bench.complete();
    assert_eq!(bench.init_with(None, Some(2)), given(2, 0));
}

#[test]
fn partitions_are_added_to_the_open_transaction_or_open_one() {
    for state in STATES {
        let mut bench = Bench::in_state(state);
        let added = bench.add(P0, &[2]);
        let prepared = matches!(state, State::PrepareCommit | State::PrepareAbort);
        assert_eq!(added, if prepared { Err(ConcurrentTransactions) } else { Ok(()) }, "{state:?}");
        if prepared {
            continue;
        }
        let stored = bench.shard.stored("t").expect("there").clone();
        let expected = if state == State::Ongoing { partitions(&[0, 1, 2]) } else { partitions(&[2]) };
        assert_eq!((stored.state, stored.partitions), (State::Ongoing, expected.into_iter().collect()));
        let began_ms = if state == State::Ongoing { bench.now_ms - 1 } else { bench.now_ms };
        assert_eq!(stored.start_ms, began_ms, "{state:?}");
        // The same again changes nothing.
        let records = bench.log.len();
        assert_eq!(bench.add(P0, &[2]), Ok(()));
        assert_eq!(bench.log.len(), records);
    }
}

#[test]
fn only_the_producer_may_touch_the_transaction() {
    let mut bench = Bench::in_state(State::Ongoing);
    for (wrong, error) in [
        (producer(2, 0), InvalidProducerIdMapping),
        (producer(1, 1), ProducerFenced),
        (producer(1, -1), ProducerFenced),
    ] {
        assert_eq!(bench.add(wrong, &[0]), Err(error));
        assert_eq!(bench.verify(wrong, &[0]), Err(error));
        assert_eq!(bench.end(wrong, Commit), Err(error));
    }
    let mut nobody = Bench::new();
    assert_eq!(nobody.add(P0, &[0]), Err(InvalidProducerIdMapping));
    assert_eq!(nobody.verify(P0, &[0]), Err(InvalidProducerIdMapping));
    assert_eq!(nobody.end(P0, Commit), Err(InvalidProducerIdMapping));
}

#[test]
fn verification_tells_of_each_partition() {
    for state in STATES {
        let verified = Bench::in_state(state).verify(P0, &[0, 2]);
        let expected = match state {
            State::Ongoing => Ok(vec![Ok(()), Err(InvalidTxnState)]),
            State::PrepareCommit | State::PrepareAbort => Err(ConcurrentTransactions),
            State::Empty | State::CompleteCommit | State::CompleteAbort => Ok(vec![Err(InvalidTxnState); 2]),
        };
        assert_eq!(verified, expected, "{state:?}");
    }
}

#[test]
fn a_transaction_ends_once() {
    let table = [
        (State::Empty, Commit, Err(InvalidTxnState), State::Empty),
        (State::Empty, Abort, Err(InvalidTxnState), State::Empty),
        (State::Ongoing, Commit, Ok(()), State::PrepareCommit),
        (State::Ongoing, Abort, Ok(()), State::PrepareAbort),
        (State::PrepareCommit, Commit, Err(ConcurrentTransactions), State::PrepareCommit),
        (State::PrepareCommit, Abort, Err(ConcurrentTransactions), State::PrepareCommit),
        (State::PrepareAbort, Commit, Err(ConcurrentTransactions), State::PrepareAbort),
        (State::PrepareAbort, Abort, Err(ConcurrentTransactions), State::PrepareAbort),
        (State::CompleteCommit, Commit, Ok(()), State::CompleteCommit),
        (State::CompleteCommit, Abort, Err(InvalidTxnState), State::CompleteCommit),
        (State::CompleteAbort, Commit, Err(InvalidTxnState), State::CompleteAbort),
        (State::CompleteAbort, Abort, Ok(()), State::CompleteAbort),
    ];
    for (before, result, reply, after) in table {
        let mut bench = Bench::in_state(before);
        assert_eq!((bench.end(P0, result), bench.state()), (reply, after), "{before:?} {result}");
    }
}

#[test]
fn who_takes_markers_waits_until_some_are_due() {
    let mut bench = Bench::in_state(State::Ongoing);
    assert_eq!(bench.take(1), None);
    assert_eq!(bench.end(P0, Commit), Ok(()));
    let Some((Ticket(_), TransactionReply::TakeMarkers(due))) = bench.late.pop() else { panic!("they are due") };
    assert_eq!((due.len(), due[0].result, &due[0].partitions), (1, Commit, &partitions(&[0, 1])));
    assert_eq!(due[0].transaction.producer, P0);
    // Once, until another leadership asks.
    assert_eq!(bench.take(1), None);
    assert_eq!(bench.take(2), Some(due.clone()));
    let superseded = bench.late.pop().expect("an answer");
    assert!(matches!(superseded.1, TransactionReply::TakeMarkers(due) if due.is_empty()));
    assert_eq!(bench.take(1), Some(Vec::new()));
    // And after a load.
    let mut bench = bench.reloaded();
    assert_eq!(bench.take(3), Some(due.clone()));
    // What a former leadership's task has written, the present one writes as well: its markers would come too late.
    bench.ask(written(2, due[0].transaction.clone()));
    assert_eq!(bench.state(), State::PrepareCommit);
    bench.ask(written(3, due[0].transaction.clone()));
    assert_eq!(bench.state(), State::CompleteCommit);
    assert!(bench.shard.stored("t").expect("there").partitions.is_empty());
}

#[test]
fn markers_of_an_earlier_transaction_complete_nothing() {
    let mut bench = Bench::in_state(State::PrepareCommit);
    let stored = bench.shard.stored("t").expect("there");
    let earlier = Ending { id: "t".into(), producer: P0, prepared_ms: stored.last_update_ms };
    bench.complete();
    assert_eq!(bench.add(P0, &[0]), Ok(()));
    assert_eq!(bench.end(P0, Abort), Ok(()));
    bench.ask(written(9, earlier));
    assert_eq!(bench.state(), State::PrepareAbort);
    let nobody = Ending { id: "nobody".into(), producer: P0, prepared_ms: 0 };
    bench.ask(written(9, nobody));
}

#[test]
fn two_transactions_of_one_millisecond_are_told_apart() {
    let mut bench = Bench::in_state(State::CompleteCommit);
    let mut prepared = Vec::new();
    for _ in 0..3 {
        assert_eq!(bench.add(P0, &[0]), Ok(()));
        assert_eq!(bench.end(P0, Commit), Ok(()));
        prepared.push(bench.shard.stored("t").expect("there").last_update_ms);
        bench.complete();
        bench.now_ms -= 3;
    }
    assert!(prepared.is_sorted_by(|a, b| a < b), "{prepared:?}");
}

#[test]
fn a_transaction_that_lasts_too_long_is_aborted_under_a_new_epoch() {
    let mut bench = Bench::in_state(State::Ongoing);
    assert_eq!(bench.take(1), None);
    bench.on_time(59_000);
    assert_eq!(bench.state(), State::Ongoing);
    bench.on_time(10_001);
    assert_eq!(bench.stored(), (ProducerId(1), ProducerEpoch(1), State::PrepareAbort));
    assert!(matches!(&bench.late[0].1, TransactionReply::TakeMarkers(due) if due[0].result == Abort));
    assert_eq!(bench.end(P0, Commit), Err(ProducerFenced));
    // A producer that comes anew goes on after it.
    bench.complete();
    assert_eq!(bench.init(), given(1, 2));
}

#[test]
fn unused_ids_are_forgotten_and_open_ones_kept() {
    const WEEK_MS: i64 = 7 * 24 * 60 * 60 * 1000;
    for state in STATES {
        let mut bench = Bench::in_state(state);
        bench.on_time(WEEK_MS - 1);
        // It is aborted by then, but that is an update, too.
        assert!(bench.shard.stored("t").is_some(), "{state:?}");
        bench.on_time(WEEK_MS / 2);
        let kept = matches!(state, State::Ongoing | State::PrepareCommit | State::PrepareAbort);
        assert_eq!(bench.shard.stored("t").is_some(), kept, "{state:?}");
        assert_eq!(bench.log.last().expect("a record").value.is_some(), kept);
        assert_eq!(bench.shard.next_wake_ms().is_some(), kept);
    }
}

#[test]
fn the_state_is_the_fold_of_the_log() {
    for state in STATES {
        let bench = Bench::in_state(state);
        let before = bench.shard.stored("t").expect("there").clone();
        assert_eq!(bench.reloaded().shard.stored("t"), Some(&before), "{state:?}");
    }
}

#[test]
fn what_does_not_fit_a_record_is_refused() {
    let mut bench = Bench::at_epoch(0);
    let many: Vec<i32> = (0..300_000).collect();
    assert_eq!(bench.add(P0, &many), Err(UnknownServerError));
    assert_eq!(bench.state(), State::Empty);
    let id = "x".repeat(40_000).into();
    let request = InitRequest { id, timeout_ms: 1, expected: None, fresh: Some(ProducerId(1)) };
    let reply = bench.ask(TransactionRequest::Init(request));
    assert!(matches!(reply, Some(TransactionReply::Init(Err(InvalidRequest)))));
}

#[test]
fn description_and_list_show_what_is_there() {
    let mut bench = Bench::in_state(State::Ongoing);
    let Some(TransactionReply::Describe(Some(described))) = bench.ask(TransactionRequest::Describe { id: "t".into() })
    else {
        panic!("it is there")
    };
    assert_eq!((described.state, described.timeout_ms, described.producer), ("Ongoing", 60_000, P0));
    assert_eq!(described.partitions, partitions(&[0, 1]));
    let nobody = bench.ask(TransactionRequest::Describe { id: "u".into() });
    assert!(matches!(nobody, Some(TransactionReply::Describe(None))));

    let all = ListRequest::default();
    let table = [
        (all.clone(), 1),
        (ListRequest { states: Some(vec!["Ongoing".into()]), ..all.clone() }, 1),
        (ListRequest { states: Some(vec!["Empty".into()]), ..all.clone() }, 0),
        // Only names that are unknown: nothing is shown.
        (ListRequest { states: Some(Vec::new()), ..all.clone() }, 0),
        (ListRequest { producer_ids: vec![ProducerId(2), ProducerId(1)], ..all.clone() }, 1),
        (ListRequest { producer_ids: vec![ProducerId(2)], ..all.clone() }, 0),
        (ListRequest { duration_ms: Some(0), ..all.clone() }, 1),
        (ListRequest { duration_ms: Some(60_000), ..all }, 0),
    ];
    for (request, count) in table {
        let listed = bench.ask(TransactionRequest::List(request.clone()));
        assert!(matches!(listed, Some(TransactionReply::List(found)) if found.len() == count), "{request:?}");
    }
}
