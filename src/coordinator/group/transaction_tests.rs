//! Offsets committed in transactions: through the whole coordinator, and, in any order of things, as a fold of the log.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::config::GroupConfig;
use super::coordinator_tests::{Kit, PARTITION, settle};
use super::error::GroupError;
use super::records::{self, Key};
use super::request::*;
use super::shard::GroupShard;
use crate::coordinator::shard::{Moment, Outcome, Shard, Ticket};
use crate::coordinator::writer::{CoordinatorRecord, Entry, InTransaction, TransactionRefusal, WriteError};
use crate::types::topic::CONSUMER_OFFSETS;
use crate::types::{
    LeaderEpoch, Offset, ProducerEpoch, ProducerId, TopicName, TransactionGuard, TransactionMarker, TransactionResult,
};

fn in_transaction(producer_id: i64) -> InTransaction {
    InTransaction { producer_id: ProducerId(producer_id), producer_epoch: ProducerEpoch(0), guard: None }
}

fn txn_commit(group: &str, producer_id: i64, topic: &str, offset: i64) -> TxnCommitRequest {
    TxnCommitRequest {
        group: group.into(),
        member_id: "".into(),
        instance_id: None,
        generation_id: -1,
        transaction: in_transaction(producer_id),
        offsets: vec![committed(topic, offset)],
    }
}

fn committed(topic: &str, offset: i64) -> CommittedOffset {
    CommittedOffset {
        topic: topic.into(),
        partition: PARTITION,
        offset: Offset(offset),
        leader_epoch: LeaderEpoch::NONE,
        metadata: None,
    }
}

fn marker(producer_id: i64, result: TransactionResult) -> TransactionMarker {
    let (producer_id, producer_epoch) = (ProducerId(producer_id), ProducerEpoch(0));
    TransactionMarker { producer_id, producer_epoch, coordinator_epoch: 0, result }
}

impl Kit {
    async fn txn_commit(&self, producer_id: i64, offset: i64) -> Option<GroupError> {
        self.groups.txn_commit(txn_commit("g", producer_id, "t", offset)).await.await.error
    }

    async fn end(&self, producer_id: i64, result: TransactionResult) -> Result<(), GroupError> {
        self.groups.end_transaction(PARTITION, marker(producer_id, result)).await
    }

    /// Offset and error as a consumer of committed transactions is shown them.
    async fn stable(&self) -> (i64, Option<GroupError>) {
        let topics = Some(vec![("t".into(), vec![PARTITION])]);
        let request = FetchRequest { group: "g".into(), topics, require_stable: true };
        let fetched = self.groups.fetch(request).await.await.expect("a coordinator");
        (fetched[0].1[0].offset.0, fetched[0].1[0].error)
    }

    async fn reload(&self, epoch: i32) {
        self.groups.on_resigned(PARTITION);
        self.groups.on_elected(PARTITION, LeaderEpoch(epoch));
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_commit_counts_with_its_marker_and_is_unstable_before() {
    let kit = Kit::elected().await;
    assert_eq!(kit.commit(3).await.await.error, None);
    assert_eq!(kit.txn_commit(1, 5).await, None);
    assert_eq!((kit.fetched().await, kit.stable().await), (Offset(3), (-1, Some(GroupError::UnstableOffsetCommit))));
    assert_eq!(kit.end(1, TransactionResult::Commit).await, Ok(()));
    assert_eq!((kit.fetched().await, kit.stable().await), (Offset(5), (5, None)));
    assert_eq!(kit.txn_commit(1, 9).await, None);
    assert_eq!(kit.end(1, TransactionResult::Abort).await, Ok(()));
    assert_eq!(kit.stable().await, (5, None));
}

#[tokio::test(start_paused = true)]
async fn a_transaction_outlives_its_coordinator() {
    let kit = Kit::elected().await;
    assert_eq!((kit.txn_commit(1, 5).await, kit.txn_commit(2, 6).await), (None, None));
    kit.reload(2).await;
    assert_eq!((kit.fetched().await, kit.stable().await.1), (Offset::NONE, Some(GroupError::UnstableOffsetCommit)));
    assert_eq!(kit.end(1, TransactionResult::Commit).await, Ok(()));
    assert_eq!((kit.fetched().await, kit.stable().await.1), (Offset(5), Some(GroupError::UnstableOffsetCommit)));
    kit.reload(3).await;
    assert_eq!((kit.fetched().await, kit.stable().await.1), (Offset(5), Some(GroupError::UnstableOffsetCommit)));
    assert_eq!(kit.end(2, TransactionResult::Abort).await, Ok(()));
    assert_eq!(kit.stable().await, (5, None));
    kit.reload(4).await;
    assert_eq!(kit.stable().await, (5, None));
}

#[tokio::test(start_paused = true)]
async fn what_the_log_refuses_leaves_no_state() {
    let kit = Kit::elected().await;
    kit.log.fail_next(WriteError::Transaction(TransactionRefusal::InvalidTxnState));
    assert_eq!(kit.txn_commit(1, 5).await, Some(GroupError::InvalidTxnState));
    let (groups, _) = kit.groups.list(ListRequest::default()).await.await;
    assert!(groups.is_empty() && kit.stable().await == (-1, None));
    assert_eq!(kit.txn_commit(1, 5).await, None);
    kit.log.fail_next(WriteError::Transaction(TransactionRefusal::CoordinatorFenced));
    assert_eq!(kit.end(1, TransactionResult::Commit).await, Err(GroupError::TransactionCoordinatorFenced));
    assert_eq!(kit.stable().await.1, Some(GroupError::UnstableOffsetCommit));
    kit.log.fail_next(WriteError::Transaction(TransactionRefusal::InvalidProducerEpoch));
    assert_eq!(kit.txn_commit(1, 6).await, Some(GroupError::InvalidProducerEpoch));
    assert_eq!(kit.end(1, TransactionResult::Commit).await, Ok(()));
    assert_eq!(kit.stable().await, (5, None));
}

/// Issue 12, row 8.
#[tokio::test(start_paused = true)]
async fn a_full_log_leaves_a_transaction_as_it_is() {
    let kit = Kit::elected().await;
    assert_eq!(kit.txn_commit(1, 5).await, None);
    for refuse in [true, false] {
        match refuse {
            // Nobody could tell before.
            true => kit.log.fail_next(WriteError::Full),
            false => kit.log.close(Some(WriteError::Full)),
        }
        assert_eq!(kit.txn_commit(1, 6).await, Some(GroupError::CoordinatorNotAvailable));
        if refuse {
            kit.log.fail_next(WriteError::Full);
        }
        assert_eq!(kit.end(1, TransactionResult::Commit).await, Err(GroupError::CoordinatorNotAvailable));
        assert_eq!(kit.stable().await.1, Some(GroupError::UnstableOffsetCommit));
    }
    kit.log.accept();
    assert_eq!(kit.end(1, TransactionResult::Commit).await, Ok(()));
    assert_eq!((kit.stable().await, kit.log.loads()), ((5, None), 1));
}

#[tokio::test(start_paused = true)]
async fn all_offsets_are_one_batch_with_the_guard_of_the_verification() {
    let kit = Kit::elected().await;
    kit.log.guard_with(Some(TransactionGuard(7)));
    let guard = kit.groups.begin_verification("g", ProducerId(1), ProducerEpoch(0));
    assert_eq!(guard, Some(TransactionGuard(7)));
    assert_eq!(kit.groups.begin_verification("", ProducerId(1), ProducerEpoch(0)), None);
    let mut request = txn_commit("g", 1, "t", 5);
    request.transaction.guard = guard;
    request.offsets.push(committed("u", 6));
    assert_eq!(kit.groups.txn_commit(request.clone()).await.await, CommitReply::default());
    let last = kit.log.last_entry(&TopicName::new(CONSUMER_OFFSETS), PARTITION);
    let Some(Entry::Records { transaction, records }) = last else { panic!("no records: {last:?}") };
    assert_eq!((transaction, records.len()), (Some(request.transaction), 2));
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_appends_nothing_opens_no_transaction() {
    let kit = Kit::elected().await;
    let mut request = txn_commit("g", 1, "t", 5);
    request.offsets[0].metadata = Some("x".repeat(5_000).into());
    let reply = kit.groups.txn_commit(request.clone()).await.await;
    assert_eq!(reply, CommitReply { error: None, too_long: vec![0] });
    assert_eq!(kit.log.last_entry(&TopicName::new(CONSUMER_OFFSETS), PARTITION), None);
    request.group = "".into();
    assert_eq!(kit.groups.txn_commit(request).await.await.error, Some(GroupError::InvalidGroupId));
}

/// A shard with the log it wrote.
struct Stage {
    shard: GroupShard,
    log: Vec<Entry>,
    now_ms: i64,
}

const GROUPS: [&str; 2] = ["g", "h"];
const TOPICS: [&str; 2] = ["t", "u"];

fn empty() -> GroupShard {
    GroupShard::new(Arc::new(GroupConfig::default()), 1_000_000)
}

fn replay(shard: &mut GroupShard, entry: &Entry) {
    let replayed = match entry {
        Entry::Records { transaction: Some(transaction), records } => {
            records.iter().try_for_each(|record| shard.replay_in_transaction(transaction.producer_id, record))
        }
        Entry::Records { transaction: None, records } => records.iter().try_for_each(|record| shard.replay(record)),
        Entry::Marker(marker) => shard.replay_marker(marker),
    };
    replayed.expect("our own records");
}

impl Stage {
    fn new() -> Self {
        Self { shard: empty(), log: Vec::new(), now_ms: 0 }
    }

    fn now(&self) -> Moment {
        Moment { unix_ms: 1_000_000 + self.now_ms, monotonic_ms: self.now_ms }
    }

    fn settle(&mut self, out: Outcome<GroupReply>) -> Vec<GroupReply> {
        let records = (!out.records.is_empty())
            .then(|| Entry::Records { transaction: out.transaction, records: out.records.clone() });
        for entry in records.into_iter().chain(out.marker.map(Entry::Marker)) {
            replay(&mut self.shard, &entry);
            self.log.push(entry);
        }
        out.replies.into_iter().map(|(_, reply)| reply).collect()
    }

    fn ask(&mut self, request: GroupRequest) -> GroupReply {
        let mut out = Outcome::default();
        self.shard.handle(self.now(), Ticket(0), request, &mut out);
        self.settle(out).pop().expect("an answer")
    }

    fn txn_commit(&mut self, group: &str, producer_id: i64, topic: &str, offset: i64) -> Option<GroupError> {
        match self.ask(GroupRequest::TxnCommit(txn_commit(group, producer_id, topic, offset))) {
            GroupReply::Commit(reply) => reply.error,
            other => panic!("{other:?}"),
        }
    }

    fn commit(&mut self, group: &str, topic: &str, offset: i64) {
        self.ask(GroupRequest::Commit(CommitRequest {
            group: group.into(),
            member_id: "".into(),
            instance_id: None,
            generation_id: -1,
            retention_ms: None,
            offsets: vec![committed(topic, offset)],
        }));
    }

    fn end(&mut self, producer_id: i64, result: TransactionResult) {
        self.ask(GroupRequest::EndTransaction { marker: marker(producer_id, result) });
    }

    fn delete(&mut self, group: &str) -> GroupReply {
        self.ask(GroupRequest::Delete { group: group.into() })
    }

    fn topics_deleted(&mut self, topic: &str) {
        self.ask(GroupRequest::TopicsDeleted { topics: [topic.into()].into() });
    }

    fn advance(&mut self, ms: i64) {
        self.now_ms += ms;
        let mut out = Outcome::default();
        self.shard.on_time(self.now(), &mut out);
        self.settle(out);
    }

    /// Ends a load, so that the shard knows when to sweep.
    fn loaded(mut self) -> Self {
        let mut out = Outcome::default();
        self.shard.on_loaded(self.now(), &mut out);
        self.settle(out);
        self
    }

    /// The log as a load may find it: what is outside of transactions at its last record of each key, and the part
    /// that is decided compacted.
    fn compacted(&self) -> Vec<Entry> {
        let fates = fates(&self.log);
        let open = fates.iter().position(|fate| *fate == Fate::Open).unwrap_or(self.log.len());
        let mut left = Vec::new();
        for (at, entry) in self.log.iter().enumerate() {
            let Entry::Records { transaction, records } = entry else {
                left.push(entry.clone());
                continue;
            };
            let later = |record: &&CoordinatorRecord, same: &dyn Fn(usize) -> bool| {
                let mut after = self.log.iter().enumerate().skip(at + 1).filter(|(at, _)| same(*at));
                after.any(|(_, entry)| {
                    matches!(entry, Entry::Records { records, .. } if records.iter().any(|r| r.key == record.key))
                })
            };
            let keeps = |record: &&CoordinatorRecord| {
                let skipped = transaction.is_none() && later(record, &|at| fates[at] == Fate::Plain);
                let decided = |at: usize| at < open && matches!(fates[at], Fate::Plain | Fate::Committed);
                !skipped && (at >= open || (fates[at] != Fate::Aborted && !later(record, &decided)))
            };
            let records: Vec<_> = records.iter().filter(keeps).cloned().collect();
            if !records.is_empty() {
                left.push(Entry::Records { transaction: *transaction, records });
            }
        }
        left
    }

    /// By the log alone: of each key the last record that counts.
    fn expected(&self) -> BTreeMap<(String, String), i64> {
        let mut offsets = BTreeMap::new();
        for (entry, fate) in self.log.iter().zip(fates(&self.log)) {
            let Entry::Records { records, .. } = entry else { continue };
            if !matches!(fate, Fate::Plain | Fate::Committed) {
                continue;
            }
            for record in records {
                let Ok(Key::Offset { group, topic, .. }) = records::read_key(&record.key) else { continue };
                let key = (group.to_owned(), topic.to_owned());
                match &record.value {
                    Some(value) => offsets.insert(key, records::read_offset(value).expect("our own").offset.0),
                    None => offsets.remove(&key),
                };
            }
        }
        offsets
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Plain,
    Open,
    Committed,
    Aborted,
}

/// What becomes of each entry's records.
fn fates(log: &[Entry]) -> Vec<Fate> {
    let fate = |(at, entry): (usize, &Entry)| {
        let Entry::Records { transaction: Some(transaction), .. } = entry else { return Fate::Plain };
        let result = log[at..].iter().find_map(|later| match later {
            Entry::Marker(marker) if marker.producer_id == transaction.producer_id => Some(marker.result),
            _ => None,
        });
        match result {
            None => Fate::Open,
            Some(TransactionResult::Commit) => Fate::Committed,
            Some(TransactionResult::Abort) => Fate::Aborted,
        }
    };
    log.iter().enumerate().map(fate).collect()
}

/// All that clients are shown of a shard.
fn shown(shard: &mut GroupShard) -> Vec<String> {
    let mut out = Outcome::default();
    let now = Moment { unix_ms: 0, monotonic_ms: 0 };
    let topics = || TOPICS.iter().map(|&topic| (topic.into(), vec![PARTITION])).collect();
    for group in GROUPS {
        for require_stable in [false, true] {
            for topics in [None, Some(topics())] {
                let request = FetchRequest { group: group.into(), topics, require_stable };
                shard.handle(now, Ticket(0), GroupRequest::Fetch(request), &mut out);
            }
        }
        shard.handle(now, Ticket(0), GroupRequest::Describe { group: group.into() }, &mut out);
    }
    out.replies.iter().map(|(_, reply)| format!("{reply:?}")).collect()
}

fn fetched(shard: &mut GroupShard) -> BTreeMap<(String, String), i64> {
    let mut offsets = BTreeMap::new();
    for group in GROUPS {
        let mut out = Outcome::default();
        let request = FetchRequest { group: group.into(), topics: None, require_stable: false };
        shard.handle(Moment { unix_ms: 0, monotonic_ms: 0 }, Ticket(0), GroupRequest::Fetch(request), &mut out);
        let Some((_, GroupReply::Fetch(topics))) = out.replies.pop() else { panic!("no answer") };
        for (topic, of) in topics {
            offsets.insert((group.to_owned(), topic.to_string()), of[0].offset.0);
        }
    }
    offsets
}

#[test]
fn state_is_the_fold_of_the_log_also_when_it_is_compacted() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut below = |bound: u64| {
        // Knuth's MMIX generator.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % bound
    };
    for run in 0..300 {
        let mut stage = Stage::new().loaded();
        for step in 0..40 {
            let (group, topic) = (GROUPS[below(2) as usize], TOPICS[below(2) as usize]);
            let producer_id = below(3) as i64;
            match below(16) {
                0..=2 => stage.commit(group, topic, step),
                3..=8 => assert_eq!(stage.txn_commit(group, producer_id, topic, step), None),
                9..=11 => stage.end(producer_id, TransactionResult::Commit),
                12 => stage.end(producer_id, TransactionResult::Abort),
                13 => drop(stage.delete(group)),
                14 => stage.topics_deleted(topic),
                _ => stage.advance(GroupConfig::default().offsets_retention_ms / 2),
            }
            let before = shown(&mut stage.shard);
            assert_eq!(fetched(&mut stage.shard), stage.expected(), "run {run} step {step}");
            for log in [stage.log.clone(), stage.compacted()] {
                let mut loaded = empty();
                log.iter().for_each(|entry| replay(&mut loaded, entry));
                assert_eq!(shown(&mut loaded), before, "run {run} step {step}: {log:#?}");
            }
        }
    }
}

fn fetch_stable(stage: &mut Stage, topics: Option<Vec<&str>>) -> Vec<(String, i64, bool)> {
    let topics = topics.map(|topics| topics.into_iter().map(|topic| (topic.into(), vec![PARTITION])).collect());
    let request = FetchRequest { group: "g".into(), topics, require_stable: true };
    let GroupReply::Fetch(topics) = stage.ask(GroupRequest::Fetch(request)) else { panic!("no answer") };
    topics.into_iter().map(|(topic, of)| (topic.to_string(), of[0].offset.0, of[0].error.is_some())).collect()
}

#[test]
fn all_offsets_are_those_committed_even_if_pending_ones_are_refused() {
    let mut stage = Stage::new();
    stage.commit("g", "t", 1);
    assert_eq!((stage.txn_commit("g", 1, "t", 2), stage.txn_commit("g", 1, "u", 3)), (None, None));
    assert_eq!(fetch_stable(&mut stage, None), [("t".into(), -1, true)]);
    let some = [("t".into(), -1, true), ("u".into(), -1, true), ("v".into(), -1, false)];
    assert_eq!(fetch_stable(&mut stage, Some(vec!["t", "u", "v"])), some);
    // A commit outside of the transaction replaces it; the partition is stable once the marker is there.
    stage.commit("g", "t", 4);
    assert_eq!(fetch_stable(&mut stage, Some(vec!["t"])), [("t".into(), -1, true)]);
    stage.end(1, TransactionResult::Commit);
    assert_eq!(fetch_stable(&mut stage, None), [("t".into(), 4, false), ("u".into(), 3, false)]);
}

#[test]
fn a_group_lives_by_what_is_pending_and_goes_with_its_deletion() {
    let mut stage = Stage::new();
    stage.txn_commit("g", 1, "t", 1);
    let described = |stage: &mut Stage| match stage.ask(GroupRequest::Describe { group: "g".into() }) {
        GroupReply::Describe(group) => group.map(|group| group.state),
        other => panic!("{other:?}"),
    };
    assert_eq!(described(&mut stage), Some("Empty"));
    stage.end(1, TransactionResult::Abort);
    assert_eq!(described(&mut stage), None);
    stage.txn_commit("g", 1, "t", 1);
    assert!(matches!(stage.delete("g"), GroupReply::Delete(Ok(()))));
    assert_eq!(described(&mut stage), None);
    assert!(matches!(stage.delete("g"), GroupReply::Delete(Err(GroupError::GroupIdNotFound))));
    stage.end(1, TransactionResult::Commit);
    assert_eq!(described(&mut stage), None);
    stage.txn_commit("g", 1, "t", 1);
    stage.topics_deleted("t");
    assert_eq!(described(&mut stage), None);
}

#[test]
fn an_offset_does_not_expire_while_a_commit_of_it_is_pending() {
    let mut stage = Stage::new().loaded();
    let retention_ms = GroupConfig::default().offsets_retention_ms;
    stage.commit("g", "t", 1);
    stage.commit("g", "u", 1);
    stage.txn_commit("g", 1, "t", 2);
    stage.advance(retention_ms + 1);
    assert_eq!(fetched(&mut stage.shard).into_values().collect::<Vec<_>>(), [1]);
    stage.end(1, TransactionResult::Commit);
    assert_eq!(fetched(&mut stage.shard).into_values().collect::<Vec<_>>(), [2]);
    stage.advance(retention_ms + 1);
    assert!(fetched(&mut stage.shard).is_empty());
    // Nothing but a pending commit keeps a group as well.
    stage.txn_commit("g", 1, "t", 3);
    stage.advance(retention_ms + 1);
    stage.end(1, TransactionResult::Commit);
    assert_eq!(fetched(&mut stage.shard).into_values().collect::<Vec<_>>(), [3]);
}

#[test]
fn who_names_a_member_has_to_be_it() {
    let mut stage = Stage::new();
    let join = |instance_id: Option<&str>| {
        GroupRequest::Join(JoinRequest {
            group: "g".into(),
            member_id: "".into(),
            instance_id: instance_id.map(Arc::from),
            client_id: "c".into(),
            client_host: "/127.0.0.1".into(),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 60_000,
            protocol_type: "consumer".into(),
            protocols: vec![("range".into(), bytes::Bytes::new())],
            require_known_member_id: false,
            can_skip_assignment: false,
            reason: None,
            random: 7,
        })
    };
    let ask = |stage: &mut Stage, member_id: &Arc<str>, instance_id: Option<&str>, generation_id| {
        let instance_id = instance_id.map(Arc::from);
        let request =
            TxnCommitRequest { member_id: member_id.clone(), instance_id, generation_id, ..txn_commit("g", 1, "t", 1) };
        match stage.ask(GroupRequest::TxnCommit(request)) {
            GroupReply::Commit(reply) => reply.error,
            other => panic!("{other:?}"),
        }
    };
    let nobody: Arc<str> = "".into();
    // No such group.
    assert_eq!(ask(&mut stage, &"x".into(), None, 1), Some(GroupError::UnknownMemberId));
    assert_eq!(ask(&mut stage, &"x".into(), None, -1), None);
    let mut out = Outcome::default();
    stage.shard.handle(stage.now(), Ticket(0), join(Some("i")), &mut out);
    stage.settle(out);
    stage.now_ms += 3_000;
    let mut out = Outcome::default();
    stage.shard.on_time(stage.now(), &mut out);
    let replies = stage.settle(out);
    let Some(GroupReply::Join(joined)) = replies.into_iter().next() else { panic!("nobody joined") };
    let member = joined.member_id;
    // The generation counts, not that it still completes its rebalance; an old producer names nobody.
    assert_eq!(ask(&mut stage, &member, Some("i"), 1), None);
    assert_eq!(ask(&mut stage, &member, None, 1), None);
    assert_eq!(ask(&mut stage, &nobody, None, -1), None);
    assert_eq!(ask(&mut stage, &member, None, 2), Some(GroupError::IllegalGeneration));
    assert_eq!(ask(&mut stage, &member, None, -1), Some(GroupError::IllegalGeneration));
    assert_eq!(ask(&mut stage, &"x".into(), None, 1), Some(GroupError::UnknownMemberId));
    assert_eq!(ask(&mut stage, &nobody, Some("j"), -1), Some(GroupError::UnknownMemberId));
    assert_eq!(ask(&mut stage, &"x".into(), Some("i"), 1), Some(GroupError::FencedInstanceId));
}
