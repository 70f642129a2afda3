//! AddPartitionsToTxn (24), versions 0–5: partitions join a producer's transaction, or are looked for in it.
//!
//! Behaviour
//! - Needs WRITE of the transactional id, TRANSACTIONAL_ID_AUTHORIZATION_FAILED (53) for every partition else, and of
//!   each topic; of brokers CLUSTER_ACTION on the cluster instead, CLUSTER_AUTHORIZATION_FAILED (31).
//! - All or nothing: if one partition may not be written (TOPIC_AUTHORIZATION_FAILED, 29; those of internal topics
//!   never by a client) or does not exist (UNKNOWN_TOPIC_OR_PARTITION, 3) the others are OPERATION_NOT_ATTEMPTED (55);
//!   any other error is that of all.
//! - The producer's id is not that of the transactional id: INVALID_PRODUCER_ID_MAPPING (49); another epoch:
//!   PRODUCER_FENCED (90), below version 2 INVALID_PRODUCER_EPOCH (47). While the transaction ends:
//!   CONCURRENT_TRANSACTIONS (51).
//! - From version 4 on it is the brokers' own, for several transactions. With `verify_only` nothing is added: a
//!   partition that is not in the open transaction is INVALID_TXN_STATE (48), from version 5 TRANSACTION_ABORTABLE
//!   (120).
//!
//! Versions: 1 as 0; 2 PRODUCER_FENCED; 3 flexible; 4 batches and verification, 5 TRANSACTION_ABORTABLE (KIP-890).
//! Ignored: nothing. Source: Kafka 3.9 `KafkaApis.handleAddPartitionsToTxnRequest`.

use std::ops::RangeInclusive;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all, ready};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::of_transaction_error_for;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::strings::str_arc;
use crate::coordinator::transaction::error::TransactionError;
use crate::coordinator::transaction::request::{PartitionsRequest, Producer};
use crate::types::acl::{Operation, ResourceType};
use crate::types::{PartitionIndex, ProducerEpoch, ProducerId, TopicName, TopicPartition, limits};

const VERSION_FENCED: i16 = 2;
const VERSION_BATCH: i16 = 4;
const VERSION_ABORTABLE: i16 = 5;

/// AddPartitionsToTxn.
#[derive(Debug)]
pub(crate) struct AddPartitionsToTxn;

impl Handler for AddPartitionsToTxn {
    type Req = AddPartitionsToTxnRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=5;
    const AUTHORIZATION: Authorization = Authorization::Of(&[
        (Operation::ClusterAction, ResourceType::Cluster),
        (Operation::Write, ResourceType::TransactionalId),
        (Operation::Write, ResourceType::Topic),
    ]);
    const FRAME_BYTES_MAX: usize = limits::GROUP_FRAME_BYTES_MAX;

    async fn handle(ctx: RequestContext, req: AddPartitionsToTxnRequest) -> Reply<AddPartitionsToTxnResponse> {
        if ctx.version < VERSION_BATCH {
            let asked = Asked {
                id: str_arc(&req.v3_and_below_transactional_id),
                producer: producer(req.v3_and_below_producer_id.0, req.v3_and_below_producer_epoch),
                verify_only: false,
                topics: req.v3_and_below_topics,
            };
            let answer = ask(&ctx, asked).await;
            return Reply::Later(
                answer
                    .map(|topics| AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(topics))
                    .boxed(),
            );
        }
        if !ctx.may_on_cluster(Operation::ClusterAction) {
            let refused = ResponseError::ClusterAuthorizationFailed.code();
            return Reply::Now(AddPartitionsToTxnResponse::default().with_error_code(refused));
        }
        let mut answers = Vec::with_capacity(req.transactions.len());
        for transaction in req.transactions {
            let asked = Asked {
                id: str_arc(&transaction.transactional_id),
                producer: producer(transaction.producer_id.0, transaction.producer_epoch),
                verify_only: transaction.verify_only,
                topics: transaction.topics,
            };
            let id = transaction.transactional_id;
            let answer = ask(&ctx, asked).await;
            answers.push(answer.map(|topics| {
                AddPartitionsToTxnResult::default().with_transactional_id(id).with_topic_results(topics)
            }));
        }
        Reply::Later(
            join_all(answers)
                .map(|results| AddPartitionsToTxnResponse::default().with_results_by_transaction(results))
                .boxed(),
        )
    }
}

fn producer(id: i64, epoch: i16) -> Producer {
    (ProducerId(id), ProducerEpoch(epoch))
}

/// What is asked of one transaction.
struct Asked {
    id: Arc<str>,
    producer: Producer,
    verify_only: bool,
    topics: Vec<AddPartitionsToTxnTopic>,
}

async fn ask(ctx: &RequestContext, asked: Asked) -> BoxFuture<'static, Vec<AddPartitionsToTxnTopicResult>> {
    let Asked { id, producer, verify_only, topics } = asked;
    let (image, version) = (ctx.image(), ctx.version);
    let mut partitions = Vec::new();
    for topic in &topics {
        let name = TopicName::new(topic.name.as_str());
        let indices = topic.partitions.iter().map(|&index| PartitionIndex(index));
        partitions.extend(indices.map(|partition| TopicPartition { topic: name.clone(), partition }));
    }
    let count = partitions.len();
    let of_client = version < VERSION_BATCH;
    if of_client && !ctx.may(Operation::Write, ResourceType::TransactionalId, &id) {
        let codes = vec![ResponseError::TransactionalIdAuthorizationFailed.code(); count];
        return ready(results(topics, codes)).boxed();
    }
    // No client's batch goes to an internal topic.
    let names = partitions.iter().map(|to| to.topic.as_str()).filter(|_| of_client);
    let refused = ctx.refused(Operation::Write, ResourceType::Topic, names.filter(|name| !is_internal(name)));
    let refusal = |to: &TopicPartition| {
        if of_client && (to.topic.is_internal() || refused.contains(to.topic.as_str())) {
            return Some(ResponseError::TopicAuthorizationFailed);
        }
        let exists = image.partition(to.topic.as_str(), to.partition).is_some();
        (!exists).then_some(ResponseError::UnknownTopicOrPartition)
    };
    let refusals: Vec<_> = partitions.iter().map(refusal).collect();
    if refusals.iter().any(Option::is_some) {
        let code = |refusal: Option<ResponseError>| refusal.unwrap_or(ResponseError::OperationNotAttempted).code();
        return ready(results(topics, refusals.into_iter().map(code).collect())).boxed();
    }
    drop(refused);
    let request = PartitionsRequest { id, producer, partitions };
    if verify_only {
        let answer = ctx.handles.transactions.verify(request).await;
        return answer
            .map(move |verified| {
                results(topics, verified.into_iter().map(|verified| verified_code(version, verified)).collect())
            })
            .boxed();
    }
    let answer = ctx.handles.transactions.add_partitions(request).await;
    answer.map(move |added| results(topics, vec![added_code(version, added); count])).boxed()
}

fn is_internal(name: &str) -> bool {
    TopicName::new(name).is_internal()
}

fn added_code(version: i16, added: Result<(), TransactionError>) -> i16 {
    added.map_or_else(|error| of_transaction_error_for(version >= VERSION_FENCED, error).code(), |()| 0)
}

fn verified_code(version: i16, verified: Result<(), TransactionError>) -> i16 {
    match verified {
        Err(TransactionError::InvalidTxnState) if version >= VERSION_ABORTABLE => {
            ResponseError::TransactionAbortable.code()
        }
        verified => added_code(version, verified),
    }
}

/// The topics as asked, with a code for each partition in the order asked.
fn results(topics: Vec<AddPartitionsToTxnTopic>, codes: Vec<i16>) -> Vec<AddPartitionsToTxnTopicResult> {
    let mut codes = codes.into_iter();
    let mut result = |partition| {
        AddPartitionsToTxnPartitionResult::default()
            .with_partition_index(partition)
            .with_partition_error_code(codes.next().expect("one for each partition"))
    };
    topics
        .into_iter()
        .map(|topic| {
            AddPartitionsToTxnTopicResult::default()
                .with_name(topic.name)
                .with_results_by_partition(topic.partitions.into_iter().map(&mut result).collect())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::shared::strings::text;
    use crate::wire::codec::encode_response;

    fn two() -> Vec<AddPartitionsToTxnTopicResult> {
        let topic = |name: &str, partitions: &[i32]| {
            AddPartitionsToTxnTopic::default().with_name(text(name).into()).with_partitions(partitions.to_vec())
        };
        results(vec![topic("a", &[3, 1]), topic("b", &[0])], vec![55, 3, 55])
    }

    #[test]
    fn each_partition_has_its_code_in_the_order_asked() {
        let found: Vec<(i32, i16)> = two()
            .iter()
            .flat_map(|topic| &topic.results_by_partition)
            .map(|partition| (partition.partition_index, partition.partition_error_code))
            .collect();
        assert_eq!(found, [(3, 55), (1, 3), (0, 55)]);
    }

    #[test]
    fn codes_depend_on_what_the_version_knows() {
        assert_eq!(added_code(1, Err(TransactionError::ProducerFenced)), 47);
        assert_eq!(added_code(2, Err(TransactionError::ProducerFenced)), 90);
        assert_eq!(added_code(0, Ok(())), 0);
        assert_eq!(verified_code(4, Err(TransactionError::InvalidTxnState)), 48);
        assert_eq!(verified_code(5, Err(TransactionError::InvalidTxnState)), 120);
        assert_eq!(verified_code(5, Ok(())), 0);
    }

    #[test]
    fn answers_encode_in_every_version() {
        for version in AddPartitionsToTxn::VERSIONS {
            let response = AddPartitionsToTxnResponse::default();
            let response = if version < VERSION_BATCH {
                response.with_results_by_topic_v3_and_below(two())
            } else {
                let result = AddPartitionsToTxnResult::default().with_transactional_id(text("t").into());
                response.with_results_by_transaction(vec![result.with_topic_results(two())])
            };
            assert!(encode_response(&response, version).is_ok(), "{version}");
        }
    }
}
