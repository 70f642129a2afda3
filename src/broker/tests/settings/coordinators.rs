//! Settings of groups and transactions.

use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::{
    AddPartitionsToTxnRequest, DescribeTransactionsRequest, FindCoordinatorRequest, GroupId, InitProducerIdRequest,
    InitProducerIdResponse, JoinGroupRequest, JoinGroupResponse, OffsetCommitRequest, OffsetFetchRequest,
    ProducerId as WireProducerId, TransactionalId,
};

use super::*;
use crate::types::{ProducerEpoch, ProducerId};

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

impl Probe {
    /// Until the coordinator of groups (0) or transactions (1) is there.
    async fn coordinated(&mut self, key_type: i8) {
        let request = FindCoordinatorRequest::default().with_key_type(key_type).with_coordinator_keys(vec![
            text("g"),
            text("h"),
            text("x"),
            text("offsets"),
        ]);
        eventually("a coordinator", async || {
            let answer = self.call(&request, 4).await;
            answer.coordinators.iter().all(|found| found.error_code == 0)
        })
        .await;
    }

    /// Joins as soon as the coordinator has loaded its part.
    async fn join(&mut self, name: &str, member: &str, session_timeout_ms: i32) -> JoinGroupResponse {
        let request = JoinGroupRequest::default()
            .with_group_id(group(name))
            .with_member_id(text(member))
            .with_session_timeout_ms(session_timeout_ms)
            .with_rebalance_timeout_ms(60_000)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![JoinGroupRequestProtocol::default().with_name(text("range"))]);
        loop {
            // Before version 4 a member need not join twice.
            let answer = self.call(&request, 3).await;
            if ![14, 15, 16].contains(&answer.error_code) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn commit(&mut self, metadata: &str) -> i16 {
        let one = OffsetCommitRequestPartition::default()
            .with_committed_offset(5)
            .with_committed_metadata(Some(text(metadata)));
        let of_topic = OffsetCommitRequestTopic::default().with_name(topic("t")).with_partitions(vec![one]);
        let request = OffsetCommitRequest::default()
            .with_group_id(group("offsets"))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![of_topic]);
        loop {
            let code = self.call(&request, 8).await.topics[0].partitions[0].error_code;
            if ![14, 15, 16].contains(&code) {
                return code;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn committed(&mut self) -> i64 {
        let topics = OffsetFetchRequestTopics::default().with_name(topic("t")).with_partition_indexes(vec![0]);
        let asked = OffsetFetchRequestGroup::default().with_group_id(group("offsets")).with_topics(Some(vec![topics]));
        let answer = self.call(&OffsetFetchRequest::default().with_groups(vec![asked]), 8).await;
        answer.groups[0].topics[0].partitions[0].committed_offset
    }

    async fn init(&mut self, id: &'static str, timeout_ms: i32) -> InitProducerIdResponse {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(Some(TransactionalId(text(id))))
            .with_transaction_timeout_ms(timeout_ms)
            .with_producer_id(WireProducerId(-1))
            .with_producer_epoch(-1);
        loop {
            let answer = self.call(&request, 4).await;
            if ![14, 15, 16, 51].contains(&answer.error_code) {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Error code of its description, and its state.
    async fn transaction(&mut self, id: &'static str) -> (i16, String) {
        let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![TransactionalId(text(id))]);
        let answer = self.call(&request, 0).await;
        let state = &answer.transaction_states[0];
        (state.error_code, state.transaction_state.to_string())
    }
}

const INVALID_SESSION_TIMEOUT: i16 = 26;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_are_held_within_their_bounds() {
    let bounds = [
        "group.min.session.timeout.ms=1000",
        "group.max.session.timeout.ms=20000",
        "group.initial.rebalance.delay.ms=0",
        "group.max.size=1",
        "offset.metadata.max.bytes=3",
        "offsets.topic.num.partitions=2",
        "offsets.topic.segment.bytes=5000",
    ];
    let mut bounded = Probe::start(&bounds).await;
    bounded.create("t").await;
    bounded.coordinated(0).await;
    assert_eq!(bounded.join("g", "", 999).await.error_code, INVALID_SESSION_TIMEOUT);
    assert_eq!(bounded.join("g", "", 20_001).await.error_code, INVALID_SESSION_TIMEOUT);
    assert_eq!(bounded.join("h", "", 1000).await.error_code, 0);
    assert_eq!(bounded.join("g", "", 20_000).await.error_code, 0, "at once: nobody else is waited for");
    assert_eq!(bounded.join("g", "", 20_000).await.error_code, 81, "GROUP_MAX_SIZE_REACHED");
    assert_eq!((bounded.commit("abcd").await, bounded.commit("abc").await), (12, 0), "OFFSET_METADATA_TOO_LARGE");
    assert_eq!(bounded.broker.replicas.of_topic("__consumer_offsets").len(), 2);
    let segment_bytes = bounded.partition("__consumer_offsets").with_log(|log| log.config().segment_bytes);
    assert_eq!(segment_bytes, 5000);
    bounded.broker.stop().await;

    let mut waiting =
        Probe::start(&["group.initial.rebalance.delay.ms=600000", "offsets.topic.num.partitions=1"]).await;
    waiting.create("t").await;
    waiting.coordinated(0).await;
    assert_eq!(waiting.commit("abcd").await, 0);
    assert_eq!(waiting.join("g", "", 5999).await.error_code, INVALID_SESSION_TIMEOUT, "by default 6 s at least");
    let joins = tokio::time::timeout(Duration::from_millis(300), waiting.join("g", "", 30_000)).await;
    assert!(joins.is_err(), "an empty group waits for more members");
    waiting.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_of_a_group_that_is_gone_expire() {
    let settings = ["offsets.retention.check.interval.ms=20", "offsets.topic.num.partitions=1"];
    let mut probe = Probe::start(&[settings[0], settings[1], "offsets.retention.minutes=1"]).await;
    probe.create("t").await;
    probe.coordinated(0).await;
    assert_eq!((probe.commit("").await, probe.committed().await), (0, 5));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(probe.committed().await, 5);
    probe.clock.0.store(2 * MINUTE_MS, Ordering::SeqCst);
    eventually("it expires", async || probe.committed().await == -1).await;
    let mut probe = probe.restart(&settings).await;
    probe.coordinated(0).await;
    assert_eq!(probe.commit("").await, 0);
    probe.clock.0.store(2 * MINUTE_MS, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(probe.committed().await, 5, "by default it is kept for a week");
    probe.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transactions_end_and_are_forgotten_in_time() {
    let settings = [
        "transaction.max.timeout.ms=60000",
        "transaction.abort.timed.out.transaction.cleanup.interval.ms=20",
        "transactional.id.expiration.ms=600000",
        "transaction.remove.expired.transaction.cleanup.interval.ms=20",
        "transaction.state.log.num.partitions=2",
        "transaction.state.log.segment.bytes=6000",
    ];
    let mut probe = Probe::start(&settings).await;
    probe.create("t").await;
    probe.coordinated(1).await;
    assert_eq!(probe.init("x", 60_001).await.error_code, 50, "INVALID_TRANSACTION_TIMEOUT");
    let producer = probe.init("x", 30_000).await;
    assert_eq!(producer.error_code, 0);
    assert_eq!(probe.broker.replicas.of_topic("__transaction_state").len(), 2);
    let segment_bytes = probe.partition("__transaction_state").with_log(|log| log.config().segment_bytes);
    assert_eq!(segment_bytes, 6000);
    let add = AddPartitionsToTxnRequest::default()
        .with_v3_and_below_transactional_id(TransactionalId(text("x")))
        .with_v3_and_below_producer_id(producer.producer_id)
        .with_v3_and_below_producer_epoch(producer.producer_epoch)
        .with_v3_and_below_topics(vec![
            AddPartitionsToTxnTopic::default().with_name(topic("t")).with_partitions(vec![0]),
        ]);
    let added = probe.call(&add, 3).await;
    assert_eq!(added.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code, 0);
    assert_eq!(probe.transaction("x").await, (0, "Ongoing".into()));
    let begun = tokio::time::Instant::now();
    probe.clock.0.store(MINUTE_MS, Ordering::SeqCst);
    eventually("it is aborted", async || probe.transaction("x").await.1 == "CompleteAbort").await;
    assert!(begun.elapsed() < Duration::from_secs(9), "by default it is looked for every ten seconds");
    probe.clock.0.store(30 * MINUTE_MS, Ordering::SeqCst);
    eventually("it is forgotten", async || probe.transaction("x").await.0 == 105).await;
    probe.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_was_not_added_is_refused_if_that_is_verified() {
    let setting = "transaction.partition.verification.enable";
    for (value, refused) in [("true", true), ("false", false)] {
        let mut probe = Probe::start(&["transaction.state.log.num.partitions=1", &format!("{setting}={value}")]).await;
        probe.create("t").await;
        probe.coordinated(1).await;
        let producer = probe.init("x", 30_000).await;
        let (id, epoch) = (ProducerId(producer.producer_id.0), ProducerEpoch(producer.producer_epoch));
        let write = |sequence: i32| {
            let mut batch = BatchBuilder::new().producer(id, epoch, sequence).transactional();
            batch.append(now_ms(), None, Some(b"v"));
            let mut request = produce("t", &[]).with_transactional_id(Some(TransactionalId(text("x"))));
            request.topic_data[0].partition_data[0].records = Some(batch.finish().bytes.freeze());
            request
        };
        let code = probe.call(&write(0), 9).await.responses[0].partition_responses[0].error_code;
        assert_eq!(code != 0, refused, "{code}");
        if refused {
            probe.set("", setting, "false").await;
            eventually("a change counts", async || {
                probe.call(&write(0), 9).await.responses[0].partition_responses[0].error_code == 0
            })
            .await;
        }
        probe.broker.stop().await;
    }
}
