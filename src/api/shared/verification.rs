//! Verifying that what a client wants to write belongs to its transaction, before the first of it is appended.
//!
//! A late request could otherwise open a transaction that is never ended, or land in the producer's next one. The log
//! gives a guard, the coordinator of the transactional id says whether the partition takes part, and the log takes the
//! guard back unless a marker came meanwhile. Source: KIP-890, Kafka 3.9
//! `ReplicaManager.maybeSendPartitionsToTransaction`, `AddPartitionsToTxnManager`.

use std::collections::HashMap;

use kafka_protocol::ResponseError;

use crate::api::context::RequestContext;
use crate::api::error_code::of_transaction_error;
use crate::api::shared::strings::str_arc;
use crate::coordinator::transaction::error::TransactionError;
use crate::coordinator::transaction::request::{PartitionsRequest, Producer};
use crate::record::BatchHeader;
use crate::types::{PartitionIndex, TopicName, TopicPartition, TransactionGuard};
use crate::wire::produce::ProduceRequest;

/// Produce, from here on: clients know TRANSACTION_ABORTABLE.
const VERSION_ABORTABLE: i16 = 11;

/// What was verified, by partition. A partition that is not here needs no guard: the transaction is open in it.
#[derive(Debug, Default)]
pub(in crate::api) struct Verified {
    guards: HashMap<TopicPartition, Result<TransactionGuard, Unverified>>,
}

/// Why a partition takes no batch of the transaction, as Produce says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::api) struct Unverified {
    pub(in crate::api) error: ResponseError,
    pub(in crate::api) message: String,
}

impl Unverified {
    /// What passes becomes NOT_ENOUGH_REPLICAS, which every client repeats without asking for metadata first.
    fn of_produce(error: TransactionError, version: i16) -> Self {
        match error {
            TransactionError::InvalidTxnState => {
                let abortable = version >= VERSION_ABORTABLE;
                let known =
                    if abortable { ResponseError::TransactionAbortable } else { ResponseError::InvalidTxnState };
                Self { error: known, message: "Partition was not added to the transaction".into() }
            }
            TransactionError::ConcurrentTransactions
            | TransactionError::NetworkException
            | TransactionError::CoordinatorLoadInProgress
            | TransactionError::CoordinatorNotAvailable
            | TransactionError::NotCoordinator => Self {
                error: ResponseError::NotEnoughReplicas,
                message: format!(
                    "Unable to verify the partition has been added to the transaction. Underlying error: {}",
                    of_transaction_error(error)
                ),
            },
            TransactionError::ProducerFenced => {
                Self { error: ResponseError::InvalidProducerEpoch, message: error.to_string() }
            }
            other => Self { error: of_transaction_error(other), message: other.to_string() },
        }
    }
}

impl Verified {
    /// The guard of a partition, if one is needed.
    pub(in crate::api) fn guard(
        &self,
        topic: &TopicName,
        partition: PartitionIndex,
    ) -> Result<Option<TransactionGuard>, Unverified> {
        if self.guards.is_empty() {
            return Ok(None);
        }
        let at = TopicPartition { topic: topic.clone(), partition };
        self.guards.get(&at).cloned().transpose()
    }
}

/// Whether a partition's records are of a transaction; what cannot be read is refused later.
pub(in crate::api) fn is_transactional(records: Option<&[u8]>) -> bool {
    records.and_then(|bytes| BatchHeader::parse(bytes).ok()).is_some_and(|header| header.is_transactional())
}

/// Verifies all partitions of a transactional Produce. `names`: of its topics, in order; `None` for an unknown one.
pub(in crate::api) async fn verify(
    ctx: &RequestContext,
    request: &ProduceRequest,
    names: &[Option<TopicName>],
) -> Verified {
    let Some(id) = &request.transactional_id else { return Verified::default() };
    let mut asked: Option<PartitionsRequest> = None;
    let mut guards = Vec::new();
    let mut mixed = false;
    for (topic, name) in request.topics.iter().zip(names) {
        let Some(name) = name else { continue };
        for partition in &topic.partitions {
            let Some(producer) = producer_of(partition.records.as_deref()) else { continue };
            let index = PartitionIndex(partition.index);
            let Some(replica) = ctx.handles.replicas.get(name.as_str(), index) else { continue };
            let Some(guard) = replica.begin_verification(producer.0, producer.1) else { continue };
            let asked = asked.get_or_insert_with(|| {
                let id = str_arc(id);
                PartitionsRequest { id, producer, partitions: Vec::new() }
            });
            mixed |= asked.producer != producer;
            asked.partitions.push(TopicPartition { topic: name.clone(), partition: index });
            guards.push(guard);
        }
    }
    let Some(asked) = asked else { return Verified::default() };
    let partitions = asked.partitions.clone();
    let answers =
        if mixed { vec![Err(TransactionError::InvalidProducerIdMapping); guards.len()] } else { ask(ctx, asked).await };
    let verified = guards
        .into_iter()
        .zip(answers)
        .map(|(guard, answer)| answer.map(|()| guard).map_err(|error| Unverified::of_produce(error, ctx.version)));
    Verified { guards: partitions.into_iter().zip(verified).collect() }
}

/// Asks the coordinator of a transactional id, wherever it is, whether partitions are in its transaction: an answer for
/// each, in order.
/// `transaction.partition.verification.enable` false: no coordinator is asked.
pub(in crate::api) async fn ask(ctx: &RequestContext, request: PartitionsRequest) -> Vec<Result<(), TransactionError>> {
    if !ctx.handles.config.current().transaction_partition_verification_enable {
        return vec![Ok(()); request.partitions.len()];
    }
    ctx.handles.verification.verify(request).await
}

/// The producer of a transactional batch.
fn producer_of(records: Option<&[u8]>) -> Option<Producer> {
    let header = BatchHeader::parse(records?).ok()?;
    (header.is_transactional() && header.has_producer_id()).then_some((header.producer_id, header.producer_epoch))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_repeated_and_what_does_not_is_told() {
        let code = |error, version| Unverified::of_produce(error, version).error.code();
        for passes in [
            TransactionError::NetworkException,
            TransactionError::CoordinatorLoadInProgress,
            TransactionError::CoordinatorNotAvailable,
            TransactionError::NotCoordinator,
            TransactionError::ConcurrentTransactions,
        ] {
            assert_eq!(code(passes, 11), 19, "{passes}");
        }
        let told = [TransactionError::InvalidTxnState, TransactionError::ProducerFenced, TransactionError::Other(53)];
        assert_eq!(told.map(|error| code(error, 10)), [48, 47, 53]);
        assert_eq!(told.map(|error| code(error, 11)), [120, 47, 53]);
    }
}
