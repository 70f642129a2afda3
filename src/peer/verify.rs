//! Leader of partitions → transaction coordinators: AddPartitionsToTxn 4 with `verify_only`, over connections.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use kafka_protocol::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use kafka_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};
use kafka_protocol::protocol::StrBytes;

use super::Peers;
use super::codes::code;
use super::to_brokers::ToBrokers;
use crate::coordinator::peer_links::{NoAnswer, VerifyLink};
use crate::coordinator::transaction::request::PartitionsRequest;
use crate::types::BrokerId;

/// 4 brought batches and verification; brokers from 3.5 on take it.
const VERSION: i16 = 4;

/// The brokers that coordinate transactions.
#[derive(Debug)]
pub(crate) struct RemoteVerification {
    coordinators: ToBrokers,
    /// Whether every broker of the cluster can be asked.
    is_understood: bool,
}

impl RemoteVerification {
    pub(crate) fn new(peers: &Peers) -> Arc<Self> {
        let coordinators = ToBrokers::new(peers, "add-partitions-to-txn");
        Arc::new(Self { coordinators, is_understood: peers.versions.verification })
    }

    async fn send(
        &self,
        coordinator: BrokerId,
        transactions: Vec<PartitionsRequest>,
    ) -> Result<Vec<Vec<i16>>, NoAnswer> {
        if !self.is_understood {
            // As a coordinator would answer that does not know the question.
            let codes = |asked: &PartitionsRequest| vec![code::UNSUPPORTED_VERSION; asked.partitions.len()];
            return Ok(transactions.iter().map(codes).collect());
        }
        let answer = self.coordinators.call(coordinator, &of_transactions(&transactions), VERSION).await?;
        Ok(codes(&transactions, &answer))
    }
}

impl VerifyLink for RemoteVerification {
    fn verify(
        &self,
        coordinator: BrokerId,
        transactions: Vec<PartitionsRequest>,
    ) -> BoxFuture<'_, Result<Vec<Vec<i16>>, NoAnswer>> {
        self.send(coordinator, transactions).boxed()
    }
}

fn of_transactions(transactions: &[PartitionsRequest]) -> AddPartitionsToTxnRequest {
    let transaction = |asked: &PartitionsRequest| {
        let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
        for partition in &asked.partitions {
            topics.entry(partition.topic.as_str()).or_default().push(partition.partition.0);
        }
        let topic = |(name, partitions): (&str, Vec<i32>)| {
            AddPartitionsToTxnTopic::default()
                .with_name(StrBytes::from_string(name.to_owned()).into())
                .with_partitions(partitions)
        };
        AddPartitionsToTxnTransaction::default()
            .with_transactional_id(StrBytes::from_string(asked.id.to_string()).into())
            .with_producer_id(asked.producer.0.0.into())
            .with_producer_epoch(asked.producer.1.0)
            .with_verify_only(true)
            .with_topics(topics.into_iter().map(topic).collect())
    };
    AddPartitionsToTxnRequest::default().with_transactions(transactions.iter().map(transaction).collect())
}

/// The codes of each transaction's partitions, in order: an answer names ids and partitions in any order.
fn codes(transactions: &[PartitionsRequest], answer: &AddPartitionsToTxnResponse) -> Vec<Vec<i16>> {
    let mut known: HashMap<(&str, &str, i32), i16> = HashMap::new();
    for transaction in &answer.results_by_transaction {
        for topic in &transaction.topic_results {
            for partition in &topic.results_by_partition {
                let key = (transaction.transactional_id.as_str(), topic.name.as_str(), partition.partition_index);
                known.insert(key, partition.partition_error_code);
            }
        }
    }
    let code_of = |id: &str, topic: &str, partition: i32| match answer.error_code {
        code::NONE => known.get(&(id, topic, partition)).copied().unwrap_or(code::NETWORK_EXCEPTION),
        of_all => of_all,
    };
    let codes_of = |asked: &PartitionsRequest| {
        let codes = asked.partitions.iter().map(|at| code_of(&asked.id, at.topic.as_str(), at.partition.0));
        codes.collect()
    };
    transactions.iter().map(codes_of).collect()
}
