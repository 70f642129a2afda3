//! DescribeTransactions (65), version 0: transactional ids with their producers and open transactions (KIP-664).
//!
//! Behaviour: each id has its own error; one that does not exist is TRANSACTIONAL_ID_NOT_FOUND (105), an empty one
//! INVALID_REQUEST (42), one that is kept elsewhere NOT_COORDINATOR (16). Needs DESCRIBE of each id,
//! TRANSACTIONAL_ID_AUTHORIZATION_FAILED (53); topics of which there is no DESCRIBE are left out.
//! Versions: 0. Ignored: nothing.
//! Source: Kafka 3.9 `TransactionCoordinator.handleDescribeTransactions`.

use std::ops::RangeInclusive;

use futures_util::FutureExt;
use futures_util::future::{join_all, ready};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId as WireProducerId, TransactionalId,
};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::error_code::of_transaction_error;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::strings::{str_arc, text};
use crate::coordinator::transaction::error::TransactionError;
use crate::coordinator::transaction::request::Description;
use crate::types::acl::{Operation, ResourceType};
use crate::types::limits;

/// DescribeTransactions.
#[derive(Debug)]
pub(crate) struct DescribeTransactions;

impl Handler for DescribeTransactions {
    type Req = DescribeTransactionsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=0;
    const AUTHORIZATION: Authorization = Authorization::Of(&[
        (Operation::Describe, ResourceType::TransactionalId),
        (Operation::Describe, ResourceType::Topic),
    ]);
    const FRAME_BYTES_MAX: usize = limits::GROUP_FRAME_BYTES_MAX;

    async fn handle(ctx: RequestContext, req: DescribeTransactionsRequest) -> Reply<DescribeTransactionsResponse> {
        let mut answers = Vec::with_capacity(req.transactional_ids.len());
        for id in req.transactional_ids {
            if !ctx.may(Operation::Describe, ResourceType::TransactionalId, &id) {
                let refused = ResponseError::TransactionalIdAuthorizationFailed.code();
                let state = TransactionState::default().with_transactional_id(id).with_error_code(refused);
                answers.push(ready(state).boxed());
                continue;
            }
            let answer = ctx.handles.transactions.describe(str_arc(&id)).await;
            let of_ctx = ctx.clone();
            let state = answer.map(move |answer| {
                let mut state = described(id, answer);
                let may_see =
                    |topic: &TopicData| of_ctx.may(Operation::Describe, ResourceType::Topic, topic.topic.as_str());
                state.topics.retain(may_see);
                state
            });
            answers.push(state.boxed());
        }
        Reply::Later(
            join_all(answers)
                .map(|states| DescribeTransactionsResponse::default().with_transaction_states(states))
                .boxed(),
        )
    }
}

fn described(id: TransactionalId, answer: Result<Description, TransactionError>) -> TransactionState {
    let state = TransactionState::default().with_transactional_id(id);
    let found = match answer {
        Ok(found) => found,
        Err(error) => return state.with_error_code(of_transaction_error(error).code()),
    };
    let topics = found.partitions.chunk_by(|a, b| a.topic == b.topic).map(|partitions| {
        TopicData::default()
            .with_topic(text(partitions[0].topic.as_str()).into())
            .with_partitions(partitions.iter().map(|partition| partition.partition.0).collect())
    });
    state
        .with_transaction_state(text(found.state))
        .with_transaction_timeout_ms(found.timeout_ms)
        .with_transaction_start_time_ms(found.start_ms)
        .with_producer_id(WireProducerId(found.producer.0.0))
        .with_producer_epoch(found.producer.1.0)
        .with_topics(topics.collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ProducerEpoch, ProducerId, TopicPartition};
    use crate::wire::codec::encode_response;

    #[test]
    fn partitions_are_grouped_by_topic_and_answers_encode() {
        let found = Description {
            state: "Ongoing",
            timeout_ms: 60_000,
            start_ms: 5,
            producer: (ProducerId(7), ProducerEpoch(1)),
            partitions: vec![TopicPartition::new("a", 0), TopicPartition::new("a", 2), TopicPartition::new("b", 1)],
        };
        let state = described(text("t").into(), Ok(found));
        let topics: Vec<(&str, &[i32])> =
            state.topics.iter().map(|topic| (topic.topic.as_str(), topic.partitions.as_slice())).collect();
        assert_eq!(topics, [("a", &[0, 2][..]), ("b", &[1][..])]);
        let missing = described(text("u").into(), Err(TransactionError::TransactionalIdNotFound));
        assert_eq!(missing.error_code, 105);
        let response = DescribeTransactionsResponse::default().with_transaction_states(vec![state, missing]);
        assert!(encode_response(&response, 0).is_ok());
    }
}
