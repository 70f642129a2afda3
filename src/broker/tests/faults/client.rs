//! What the operations of the table say to a broker, one method per request; answers are Kafka's names of their codes.

use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{OffsetFetchRequestGroup, OffsetFetchRequestTopics};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteRecordsRequest, DeleteTopicsRequest, EndTxnRequest, FetchRequest, FindCoordinatorRequest, GroupId,
    IncrementalAlterConfigsRequest, InitProducerIdRequest, JoinGroupRequest, ListOffsetsRequest, MetadataRequest,
    OffsetCommitRequest, OffsetFetchRequest, ProduceRequest, ProducerId, SyncGroupRequest, TransactionalId,
};
use kafka_protocol::protocol::{Request, StrBytes};
use tokio::net::TcpStream;

use crate::broker::tests::{WireClient, topic};
use crate::record::{BatchBuilder, BatchHeader, for_each_record};
use crate::transport::Stream;

/// What a request waits for an answer before the table says that there was none.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Says that no answer came.
pub(super) const NO_ANSWER: &str = "no answer";

/// Kafka's name of a code.
pub(super) fn code(code: i16) -> String {
    let Some(error) = ResponseError::try_from_code(code) else { return "NONE".into() };
    let mut name = String::new();
    for letter in error.to_string().chars() {
        if letter.is_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.extend(letter.to_uppercase());
    }
    name
}

/// A producer's id and epoch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Producer {
    pub(super) id: i64,
    pub(super) epoch: i16,
}

/// A record as a consumer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) offset: i64,
    pub(super) key: Option<String>,
    pub(super) value: Option<String>,
}

/// One connection.
pub(super) struct Client {
    wire: WireClient,
    patience: Duration,
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// One batch of one record.
pub(super) fn batch(key: Option<&str>, value: Option<&str>, builder: BatchBuilder, now: i64) -> Bytes {
    let mut builder = builder;
    builder.append(now, key.map(str::as_bytes), value.map(str::as_bytes));
    builder.finish().bytes.freeze()
}

impl Client {
    pub(super) async fn connect(address: SocketAddr) -> Self {
        let stream = Stream::Plain(TcpStream::connect(address).await.expect("the broker accepts"));
        Self { wire: WireClient { stream, correlation: 0 }, patience: PATIENCE }
    }

    /// Waits no longer than this for each answer. After one that did not come the connection is of no use.
    pub(super) fn patient_for(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// `None`: no answer came in time.
    async fn ask<R: Request>(&mut self, request: &R, version: i16) -> Option<R::Response> {
        tokio::time::timeout(self.patience, self.wire.call(request, version)).await.ok()
    }

    /// The codes of partitions 0, 1, … of the topic, and the first offset given in each.
    pub(super) async fn produce(&mut self, name: &str, acks: i16, batches: Vec<Bytes>) -> Vec<(String, i64)> {
        let partitions = batches.len();
        let data = batches.into_iter().enumerate();
        let data =
            data.map(|(at, batch)| PartitionProduceData::default().with_index(at as i32).with_records(Some(batch)));
        let transactional = None;
        let request = ProduceRequest::default()
            .with_acks(acks)
            .with_timeout_ms(15_000)
            .with_transactional_id(transactional)
            .with_topic_data(vec![
                TopicProduceData::default().with_name(topic(name)).with_partition_data(data.collect()),
            ]);
        match self.ask(&request, 9).await {
            Some(answer) => {
                let answers = &answer.responses[0].partition_responses;
                answers.iter().map(|answer| (code(answer.error_code), answer.base_offset)).collect()
            }
            None => vec![(NO_ANSWER.into(), -1); partitions],
        }
    }

    pub(super) async fn produce_in_transaction(&mut self, id: &str, name: &str, batch: Bytes) -> (String, i64) {
        let data = PartitionProduceData::default().with_records(Some(batch));
        let request = ProduceRequest::default()
            .with_acks(-1)
            .with_timeout_ms(15_000)
            .with_transactional_id(Some(TransactionalId(text(id))))
            .with_topic_data(vec![TopicProduceData::default().with_name(topic(name)).with_partition_data(vec![data])]);
        match self.ask(&request, 9).await {
            Some(answer) => {
                let answer = &answer.responses[0].partition_responses[0];
                (code(answer.error_code), answer.base_offset)
            }
            None => (NO_ANSWER.into(), -1),
        }
    }

    /// One fetch of committed records: the code, what came, the log's start, and its end for such a reader.
    pub(super) async fn fetch(&mut self, name: &str, partition: i32, from: i64) -> (String, Vec<Seen>, i64, i64) {
        let wanted = FetchPartition::default()
            .with_partition(partition)
            .with_fetch_offset(from)
            .with_partition_max_bytes(1 << 20);
        let request = FetchRequest::default()
            .with_max_wait_ms(100)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_isolation_level(1)
            .with_session_epoch(-1)
            .with_topics(vec![FetchTopic::default().with_topic(topic(name)).with_partitions(vec![wanted])]);
        let Some(answer) = self.ask(&request, 12).await else { return (NO_ANSWER.into(), Vec::new(), -1, -1) };
        if answer.error_code != 0 {
            return (code(answer.error_code), Vec::new(), -1, -1);
        }
        let answer = &answer.responses[0].partitions[0];
        let aborted = answer.aborted_transactions.iter().flatten();
        let aborted = aborted.map(|aborted| (aborted.producer_id.0, aborted.first_offset)).collect();
        let seen = answer.records.as_ref().map(|records| read(records, from, aborted)).unwrap_or_default();
        (code(answer.error_code), seen, answer.log_start_offset, answer.last_stable_offset)
    }

    /// Everything a consumer sees from the log's start to the end, or the code that stopped it.
    pub(super) async fn read_all(&mut self, name: &str, partition: i32) -> Result<Vec<Seen>, String> {
        let mut all: Vec<Seen> = Vec::new();
        let (mut next, mut quiet) = (0, 0);
        loop {
            let (code, seen, start, end) = self.fetch(name, partition, next).await;
            match code.as_str() {
                "NONE" => {}
                "OFFSET_OUT_OF_RANGE" if next == 0 => {
                    next = self.list_offset(name, -2).await.1;
                    continue;
                }
                _ => return Err(code),
            }
            next = next.max(start);
            match seen.last() {
                Some(last) => next = last.offset + 1,
                // What is left may be markers, or batches that compaction emptied.
                None => quiet += 1,
            }
            all.extend(seen);
            if next >= end || quiet > 2 {
                return Ok(all);
            }
        }
    }

    /// The code, and the offset of the first record not older than the time (−1: the end, −2: the start).
    pub(super) async fn list_offset(&mut self, name: &str, timestamp: i64) -> (String, i64) {
        let partition = ListOffsetsPartition::default().with_timestamp(timestamp).with_current_leader_epoch(-1);
        let wanted = ListOffsetsTopic::default().with_name(topic(name)).with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![wanted]);
        match self.ask(&request, 7).await {
            Some(answer) => {
                let answer = &answer.topics[0].partitions[0];
                (code(answer.error_code), answer.offset)
            }
            None => (NO_ANSWER.into(), -1),
        }
    }

    pub(super) async fn delete_records(&mut self, name: &str, below: i64) -> String {
        let partition = DeleteRecordsPartition::default().with_offset(below);
        let asked = DeleteRecordsTopic::default().with_name(topic(name)).with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_topics(vec![asked]).with_timeout_ms(15_000);
        self.ask(&request, 2)
            .await
            .map_or_else(|| NO_ANSWER.into(), |answer| code(answer.topics[0].partitions[0].error_code))
    }

    pub(super) async fn create(&mut self, name: &str, partitions: i32, settings: &[(&str, &str)]) -> String {
        let configs = settings
            .iter()
            .map(|(key, value)| CreatableTopicConfig::default().with_name(text(key)).with_value(Some(text(value))));
        let wanted = CreatableTopic::default()
            .with_name(topic(name))
            .with_num_partitions(partitions)
            .with_replication_factor(1)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default().with_timeout_ms(10_000).with_topics(vec![wanted]);
        self.ask(&request, 5).await.map_or_else(|| NO_ANSWER.into(), |answer| code(answer.topics[0].error_code))
    }

    pub(super) async fn delete(&mut self, name: &str) -> String {
        let request = DeleteTopicsRequest::default().with_timeout_ms(4_000).with_topic_names(vec![topic(name)]);
        self.ask(&request, 5).await.map_or_else(|| NO_ANSWER.into(), |answer| code(answer.responses[0].error_code))
    }

    pub(super) async fn grow(&mut self, name: &str, to: i32) -> String {
        let wanted = CreatePartitionsTopic::default().with_name(topic(name)).with_count(to).with_assignments(None);
        let request = CreatePartitionsRequest::default().with_timeout_ms(10_000).with_topics(vec![wanted]);
        self.ask(&request, 3).await.map_or_else(|| NO_ANSWER.into(), |answer| code(answer.results[0].error_code))
    }

    pub(super) async fn alter(&mut self, name: &str, key: &str, value: &str) -> String {
        let change = AlterableConfig::default().with_name(text(key)).with_value(Some(text(value)));
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(text(name))
            .with_configs(vec![change]);
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        self.ask(&request, 1).await.map_or_else(|| NO_ANSWER.into(), |answer| code(answer.responses[0].error_code))
    }

    /// The topic's code and those of its partitions, in order.
    pub(super) async fn metadata(&mut self, name: &str, create: bool) -> (String, Vec<String>) {
        let request = MetadataRequest::default()
            .with_topics(Some(vec![MetadataRequestTopic::default().with_name(Some(topic(name)))]))
            .with_allow_auto_topic_creation(create);
        match self.ask(&request, 12).await {
            Some(answer) => {
                let mut partitions = answer.topics[0].partitions.clone();
                partitions.sort_by_key(|partition| partition.partition_index);
                let codes = partitions.iter().map(|partition| code(partition.error_code)).collect();
                (code(answer.topics[0].error_code), codes)
            }
            None => (NO_ANSWER.into(), Vec::new()),
        }
    }

    /// `kind`: 0 for a group, 1 for a transactional id.
    pub(super) async fn find_coordinator(&mut self, key: &str, kind: i8) -> String {
        let request = FindCoordinatorRequest::default().with_key_type(kind).with_coordinator_keys(vec![text(key)]);
        self.ask(&request, 4).await.map_or_else(|| NO_ANSWER.into(), |answer| code(answer.coordinators[0].error_code))
    }

    pub(super) async fn commit(&mut self, group: &str, name: &str, offset: i64) -> String {
        let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
        let wanted = OffsetCommitRequestTopic::default().with_name(topic(name)).with_partitions(vec![partition]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![wanted]);
        let answer = self.ask(&request, 8).await;
        answer.map_or_else(|| NO_ANSWER.into(), |answer| code(answer.topics[0].partitions[0].error_code))
    }

    /// The committed offset, −1 if there is none, or the code.
    pub(super) async fn committed(&mut self, group: &str, name: &str) -> Result<i64, String> {
        let wanted = OffsetFetchRequestTopics::default().with_name(topic(name)).with_partition_indexes(vec![0]);
        let group =
            OffsetFetchRequestGroup::default().with_group_id(GroupId(text(group))).with_topics(Some(vec![wanted]));
        let request = OffsetFetchRequest::default().with_groups(vec![group]);
        let Some(answer) = self.ask(&request, 8).await else { return Err(NO_ANSWER.into()) };
        let group = &answer.groups[0];
        if group.error_code != 0 {
            return Err(code(group.error_code));
        }
        let partition = &group.topics[0].partitions[0];
        if partition.error_code == 0 { Ok(partition.committed_offset) } else { Err(code(partition.error_code)) }
    }

    /// The only, static member of a group joins and takes its assignment: the codes of both steps.
    pub(super) async fn join(&mut self, group: &str, instance: &str) -> String {
        let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
        let request = JoinGroupRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_session_timeout_ms(30_000)
            .with_rebalance_timeout_ms(30_000)
            .with_group_instance_id(Some(text(instance)))
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        let Some(joined) = self.ask(&request, 5).await else { return NO_ANSWER.into() };
        if joined.error_code != 0 {
            return code(joined.error_code);
        }
        let assignment = SyncGroupRequestAssignment::default()
            .with_member_id(joined.member_id.clone())
            .with_assignment(Bytes::from_static(b"t-0"));
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id)
            .with_group_instance_id(Some(text(instance)))
            .with_assignments(vec![assignment]);
        let synced = self.ask(&request, 3).await;
        synced.map_or_else(|| format!("NONE, {NO_ANSWER}"), |answer| format!("NONE, {}", code(answer.error_code)))
    }

    /// `id` `None`: an idempotent producer without transactions.
    pub(super) async fn init_producer(&mut self, id: Option<&str>) -> (String, Producer) {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(id.map(|id| TransactionalId(text(id))))
            .with_transaction_timeout_ms(60_000)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        match self.ask(&request, 4).await {
            Some(answer) => {
                let producer = Producer { id: answer.producer_id.0, epoch: answer.producer_epoch };
                (code(answer.error_code), producer)
            }
            None => (NO_ANSWER.into(), Producer { id: -1, epoch: -1 }),
        }
    }

    pub(super) async fn add_partition(&mut self, id: &str, producer: Producer, name: &str) -> String {
        let wanted = AddPartitionsToTxnTopic::default().with_name(topic(name)).with_partitions(vec![0]);
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(TransactionalId(text(id)))
            .with_v3_and_below_producer_id(ProducerId(producer.id))
            .with_v3_and_below_producer_epoch(producer.epoch)
            .with_v3_and_below_topics(vec![wanted]);
        let answer = self.ask(&request, 3).await;
        answer.map_or_else(
            || NO_ANSWER.into(),
            |answer| code(answer.results_by_topic_v3_and_below[0].results_by_partition[0].partition_error_code),
        )
    }

    pub(super) async fn add_offsets(&mut self, id: &str, producer: Producer, group: &str) -> String {
        let request = AddOffsetsToTxnRequest::default()
            .with_transactional_id(TransactionalId(text(id)))
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
            .with_group_id(GroupId(text(group)));
        self.ask(&request, 3).await.map_or_else(|| NO_ANSWER.into(), |answer| code(answer.error_code))
    }

    pub(super) async fn end_transaction(&mut self, id: &str, producer: Producer, commit: bool) -> String {
        let request = EndTxnRequest::default()
            .with_transactional_id(TransactionalId(text(id)))
            .with_producer_id(ProducerId(producer.id))
            .with_producer_epoch(producer.epoch)
            .with_committed(commit);
        self.ask(&request, 3).await.map_or_else(|| NO_ANSWER.into(), |answer| code(answer.error_code))
    }
}

/// The records of a fetch from an offset on, as a consumer of committed records shows them.
///
/// `aborted`: producer and first offset of each transaction that was.
fn read(records: &Bytes, from: i64, mut aborted: Vec<(i64, i64)>) -> Vec<Seen> {
    let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("tests write text");
    let (mut seen, mut at) = (Vec::new(), 0);
    while at < records.len() {
        let header = BatchHeader::parse(&records[at..]).expect("a whole batch");
        let batch = &records[at..at + header.size_bytes()];
        at += header.size_bytes();
        let of_batch = |(id, first): &(i64, i64)| *id == header.producer_id.0 && header.base_offset.0 >= *first;
        let in_aborted = header.is_transactional() && aborted.iter().any(of_batch);
        if header.is_control() {
            aborted.retain(|transaction| !of_batch(transaction));
        }
        if header.is_control() || in_aborted {
            continue;
        }
        for_each_record(batch, 1 << 20, |record| {
            if record.offset.0 >= from {
                let (key, value) = (record.key.map(string), record.value.map(string));
                seen.push(Seen { offset: record.offset.0, key, value });
            }
            ControlFlow::Continue(())
        })
        .expect("a batch that can be read");
    }
    seen
}
