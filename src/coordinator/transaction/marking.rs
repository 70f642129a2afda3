//! Writes the markers of the transactions whose outcome is decided, and tells the shard when all of one are written.
//!
//! Lifecycle: one task per partition of `__transaction_state` and leader epoch of it, which is the coordinator epoch of
//! its markers; starts with the election, ends with the resignation or when a later epoch's task has come, which begins
//! anew with all that is not complete. Owns which transactions it is ending. One that is taken is ended, however long
//! that takes; its partitions do not wait for each other, nor do transactions.
//!
//! Source: Kafka 3.9 `TransactionMarkerChannelManager`, `TransactionMarkerRequestCompletionHandler`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::try_join_all;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;
use tracing::{error, info, warn};

use super::request::{DueMarkers, Ending, TransactionReply, TransactionRequest};
use super::shard::TransactionShard;
use crate::cluster::image::ImagePublisher;
use crate::coordinator::context::Unavailable;
use crate::coordinator::markers::{MarkerError, SharedMarkers};
use crate::coordinator::runtime::Runtime;
use crate::coordinator::writer::TransactionRefusal;
use crate::types::{LeaderEpoch, PartitionIndex, TopicPartition, TransactionMarker};

/// Pause before what did not succeed is tried again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// The same, after an answer that makes no sense.
const UNEXPECTED_PAUSE: Duration = Duration::from_secs(1);

/// What is added to it while the log takes no records.
const UNAVAILABLE_PAUSE: Duration = Duration::from_millis(900);

/// What the task needs.
pub(super) struct Marking {
    pub(super) runtime: Arc<Runtime<TransactionShard>>,
    pub(super) markers: SharedMarkers,
    pub(super) image: Arc<ImagePublisher>,
    /// Whether the image shows every topic there is: until then none may be taken for deleted.
    pub(super) image_complete: watch::Receiver<bool>,
    pub(super) partition: PartitionIndex,
    pub(super) epoch: LeaderEpoch,
}

impl Marking {
    /// Runs until `stop`.
    pub(super) async fn run(self, stop: oneshot::Receiver<()>) {
        tokio::select! {
            biased;
            _ = stop => {}
            () = self.work() => {}
        }
    }

    async fn work(&self) {
        if self.image_complete.clone().wait_for(|complete| *complete).await.is_err() {
            return;
        }
        let mut ending = FuturesUnordered::new();
        // A shard that is loaded again tells again of all that is due. A marker that is written after its transaction
        // is complete would end the producer's next one, which may have the same epoch; so what an answer may still
        // tell of, because it was asked for earlier, stays known until then.
        let mut known: HashSet<Ending> = HashSet::new();
        let mut ended: Vec<Ending> = Vec::new();
        loop {
            let taken = self.take();
            tokio::pin!(taken);
            let due = loop {
                tokio::select! {
                    due = &mut taken => break due,
                    Some(transaction) = ending.next(), if !ending.is_empty() => ended.push(transaction),
                };
            };
            if due.is_empty() {
                return;
            }
            for due in due {
                if known.insert(due.transaction.clone()) {
                    ending.push(self.end(due));
                }
            }
            for transaction in ended.drain(..) {
                known.remove(&transaction);
            }
        }
    }

    /// The transactions whose markers are due, once there are some.
    async fn take(&self) -> Vec<DueMarkers> {
        match self.ask(|| TransactionRequest::TakeMarkers { epoch: self.epoch }).await {
            TransactionReply::TakeMarkers(due) => due,
            other => unreachable!("a shard answers in kind, not with {other:?}"),
        }
    }

    /// Asks the shard until it answers: it may be loading, or may have to be loaded again.
    async fn ask(&self, request: impl Fn() -> TransactionRequest) -> TransactionReply {
        loop {
            let answer = async { self.runtime.ask_even_if_loading(self.partition, request()).await?.await }.await;
            match answer {
                Ok(reply) => return reply,
                Err(Unavailable::NotCoordinator | Unavailable::Loading) => {}
                // For as long as the disk is full, say, and every transaction that ends asks by itself.
                Err(Unavailable::NotAvailable) => sleep(UNAVAILABLE_PAUSE).await,
                Err(Unavailable::Transaction(refusal)) => warn!(%refusal, "markers cannot be settled"),
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// Writes all markers of a transaction, and completes it.
    async fn end(&self, due: DueMarkers) -> Ending {
        let DueMarkers { transaction, result, partitions } = due;
        let marker = TransactionMarker {
            producer_id: transaction.producer.0,
            producer_epoch: transaction.producer.1,
            coordinator_epoch: self.epoch.0,
            result,
        };
        let outcome = try_join_all(partitions.into_iter().map(|to| self.mark(to, marker))).await;
        let refusal = match outcome {
            Ok(all) => all.into_iter().find_map(Result::err),
            // None is written any more, as another coordinator has them now.
            Err(fenced) => Some(fenced),
        };
        if let Some(refusal) = refusal {
            // Kafka leaves it so as well: the owner of the newer epoch ends it.
            warn!(transactional_id = %transaction.id, ?marker, %refusal, "the transaction is left to a newer epoch");
            return transaction;
        }
        let epoch = self.epoch;
        self.ask(|| TransactionRequest::MarkersWritten { epoch, transaction: transaction.clone() }).await;
        transaction
    }

    /// Writes one marker, however often that has to be tried. Answers with the refusal of a partition that knows a
    /// newer epoch of the producer, which is no reason to keep its marker from any other.
    ///
    /// # Errors
    /// There is a newer coordinator.
    async fn mark(
        &self,
        to: TopicPartition,
        marker: TransactionMarker,
    ) -> Result<Result<(), TransactionRefusal>, TransactionRefusal> {
        let mut said = false;
        loop {
            let error = match self.markers.write(to.clone(), marker).await {
                Ok(()) => return Ok(Ok(())),
                Err(MarkerError::Refused(refusal @ TransactionRefusal::InvalidProducerEpoch)) => {
                    return Ok(Err(refusal));
                }
                Err(MarkerError::Refused(fenced @ TransactionRefusal::CoordinatorFenced)) => return Err(fenced),
                Err(error) => error,
            };
            if error == MarkerError::NotLeader
                && self.image.current().partition(to.topic.as_str(), to.partition).is_none()
            {
                info!(partition = %to, ?marker, "no marker: the partition was deleted");
                return Ok(Ok(()));
            }
            if let MarkerError::Unexpected(_) = error {
                error!(partition = %to, ?marker, %error, "a leader gives an answer that no leader should");
                sleep(UNEXPECTED_PAUSE).await;
                continue;
            }
            if !said {
                warn!(partition = %to, ?marker, %error, "a marker cannot be written yet");
                said = true;
            }
            sleep(RETRY_PAUSE).await;
        }
    }
}
