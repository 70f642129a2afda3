//! Asks the coordinator of a transactional id, wherever it is, whether partitions are in its transaction.
//! Source: Kafka 3.9 `AddPartitionsToTxnManager`.

use std::sync::Arc;

use futures_util::FutureExt;
use tracing::debug;

use super::peer_links::VerifyLink;
use super::per_broker::{PerBroker, Question};
use super::transaction::TransactionCoordinator;
use super::transaction::error::TransactionError;
use super::transaction::request::PartitionsRequest;
use crate::cluster::image::ImagePublisher;
use crate::types::topic::TRANSACTION_STATE;
use crate::types::{BrokerId, TopicName, TopicPartition};

/// The transaction coordinators of all brokers of the cluster, for verifications.
#[derive(Debug)]
pub(crate) struct RoutedVerification {
    me: BrokerId,
    image: Arc<ImagePublisher>,
    local: Arc<TransactionCoordinator>,
    remote: Arc<PerBroker<Verify>>,
}

/// A transaction that another broker coordinates.
struct Verify(PartitionsRequest);

type Verified = Vec<Result<(), TransactionError>>;

impl Question for Verify {
    type Answer = Verified;
    /// An answer of the wire names the id alone. Of two questions about one id the later goes into the next request;
    /// Kafka answers one of them with an error.
    type Key = Arc<str>;

    fn key(&self) -> Arc<str> {
        self.0.id.clone()
    }

    fn bytes(&self) -> usize {
        // Ids, epochs, counts and tags, each partition with a topic of its own at worst.
        let partition = |partition: &TopicPartition| partition.topic.as_str().len() + 12;
        self.0.id.len() + 40 + self.0.partitions.iter().map(partition).sum::<usize>()
    }
}

impl RoutedVerification {
    /// `local` answers where this broker, `me`, is the coordinator.
    pub(crate) fn new(
        me: BrokerId,
        image: Arc<ImagePublisher>,
        local: Arc<TransactionCoordinator>,
        link: Arc<dyn VerifyLink>,
    ) -> Arc<Self> {
        let remote = PerBroker::new(move |coordinator, transactions: Vec<Verify>| {
            let link = Arc::clone(&link);
            send(link, coordinator, transactions).boxed()
        });
        Arc::new(Self { me, image, local, remote })
    }

    /// One result per partition, in their order; see [`TransactionCoordinator::verify`].
    pub(crate) async fn verify(&self, request: PartitionsRequest) -> Verified {
        let count = request.partitions.len();
        let coordinator = self.local.partition_of(&request.id).and_then(|partition| {
            let at = TopicPartition { topic: TopicName::new(TRANSACTION_STATE), partition };
            Some((self.image.current().partition(TRANSACTION_STATE, partition)?.leader?, at))
        });
        match coordinator {
            Some((leader, _)) if leader == self.me => self.local.verify(request).await.await,
            Some(coordinator) => {
                let answered = self.remote.ask_leader(&self.image, coordinator, Verify(request)).await;
                answered.unwrap_or_else(|| vec![Err(TransactionError::NetworkException); count])
            }
            None => vec![Err(TransactionError::CoordinatorNotAvailable); count],
        }
    }
}

async fn send(link: Arc<dyn VerifyLink>, coordinator: BrokerId, transactions: Vec<Verify>) -> Vec<Verified> {
    let counts: Vec<usize> = transactions.iter().map(|Verify(request)| request.partitions.len()).collect();
    let asked = transactions.into_iter().map(|Verify(request)| request).collect();
    match link.verify(coordinator, asked).await {
        Ok(codes) => codes.into_iter().map(|codes| codes.into_iter().map(outcome).collect()).collect(),
        Err(error) => {
            debug!(%coordinator, %error, "transactions could not be verified");
            counts.into_iter().map(|count| vec![Err(TransactionError::NetworkException); count]).collect()
        }
    }
}

/// What a coordinator's code means for a partition.
fn outcome(code: i16) -> Result<(), TransactionError> {
    Err(match code {
        // UNSUPPORTED_VERSION: a broker of before KIP-890, which verifies nothing.
        0 | 35 => return Ok(()),
        13 => TransactionError::NetworkException,
        14 => TransactionError::CoordinatorLoadInProgress,
        15 => TransactionError::CoordinatorNotAvailable,
        16 => TransactionError::NotCoordinator,
        // INVALID_PRODUCER_EPOCH, PRODUCER_FENCED
        47 | 90 => TransactionError::ProducerFenced,
        // INVALID_TXN_STATE, TRANSACTION_ABORTABLE
        48 | 120 => TransactionError::InvalidTxnState,
        49 => TransactionError::InvalidProducerIdMapping,
        51 => TransactionError::ConcurrentTransactions,
        other => TransactionError::Other(other),
    })
}
