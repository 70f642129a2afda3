//! The handle of the transaction coordinator: finds the shard of a transactional id and speaks to it.
//!
//! Every request has two stages. The method itself is the first: when it returns, the request has its place. The
//! [`Answer`] is the second and only waits.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use super::config::TransactionConfig;
use super::error::TransactionError;
use super::marking::Marking;
use super::request::*;
use super::shard::TransactionShard;
use crate::clock::SharedClock;
use crate::cluster::image::ImagePublisher;
use crate::cluster::producer_ids::ProducerIds;
use crate::coordinator::context::Unavailable;
use crate::coordinator::markers::SharedMarkers;
use crate::coordinator::partition_for;
use crate::coordinator::runtime::Runtime;
use crate::coordinator::writer::SharedWriter;
use crate::task;
use crate::types::topic::TRANSACTION_STATE;
use crate::types::{LeaderEpoch, PartitionIndex, TopicName};

/// The second stage of a request.
pub(crate) type Answer<T> = BoxFuture<'static, T>;

/// The transaction coordinator of this broker.
///
/// Its tasks, a shard's owner and a writer of markers for each partition of `__transaction_state` led here, are started
/// by [`TransactionCoordinator::on_elected`] and end with [`TransactionCoordinator::on_resigned`] or when this is
/// dropped.
#[derive(Debug)]
pub(crate) struct TransactionCoordinator {
    config: Arc<TransactionConfig>,
    runtime: Arc<Runtime<TransactionShard>>,
    image: Arc<ImagePublisher>,
    producer_ids: Arc<ProducerIds>,
    markers: SharedMarkers,
    marking: Mutex<HashMap<PartitionIndex, MarkingHandle>>,
    image_complete: watch::Sender<bool>,
}

/// Dropping it ends the task.
#[derive(Debug)]
struct MarkingHandle {
    epoch: LeaderEpoch,
    _stop: oneshot::Sender<()>,
}

/// Takes one kind of reply out of what the shard answered; errors are Kafka's.
macro_rules! reply {
    ($reply:expr, $kind:ident) => {
        match $reply {
            Ok(TransactionReply::$kind(reply)) => Ok(reply),
            Ok(other) => unreachable!("a shard answers in kind, not with {other:?}"),
            Err(error) => Err(error),
        }
    };
}

impl TransactionCoordinator {
    /// A coordinator that leads nothing yet. The number of partitions of `__transaction_state` is taken from the image.
    pub(crate) fn new(
        config: TransactionConfig,
        writer: SharedWriter,
        markers: SharedMarkers,
        clock: SharedClock,
        image: Arc<ImagePublisher>,
        producer_ids: Arc<ProducerIds>,
    ) -> Self {
        let config = Arc::new(config);
        let topic = TopicName::new(TRANSACTION_STATE);
        let make = {
            let (writer, topic, config) = (writer.clone(), topic.clone(), config.clone());
            Arc::new(move || TransactionShard::new(config.clone(), writer.batch_bytes_max(&topic)))
        };
        Self {
            config,
            runtime: Arc::new(Runtime::new(topic, writer, clock, make)),
            image,
            producer_ids,
            markers,
            marking: Mutex::default(),
            image_complete: watch::Sender::new(false),
        }
    }

    /// This broker leads a partition of `__transaction_state` from `epoch` on. Called within the tokio runtime.
    pub(crate) fn on_elected(&self, partition: PartitionIndex, epoch: LeaderEpoch) {
        let mut marking = self.marking.lock();
        if marking.get(&partition).is_some_and(|marking| marking.epoch >= epoch) {
            return;
        }
        // The former leadership's task ends first.
        marking.remove(&partition);
        self.runtime.on_elected(partition, epoch);
        let (stop, stopped) = oneshot::channel();
        let writer = Marking {
            runtime: self.runtime.clone(),
            markers: self.markers.clone(),
            image: self.image.clone(),
            image_complete: self.image_complete.subscribe(),
            partition,
            epoch,
        };
        task::spawn_owner("transaction markers", writer.run(stopped));
        marking.insert(partition, MarkingHandle { epoch, _stop: stop });
    }

    /// This broker no longer leads a partition of `__transaction_state`.
    pub(crate) fn on_resigned(&self, partition: PartitionIndex) {
        let mut marking = self.marking.lock();
        marking.remove(&partition);
        self.runtime.on_resigned(partition);
    }

    /// Partitions of `__transaction_state` led here whose log is still being read.
    pub(crate) fn loading(&self) -> usize {
        self.runtime.loading()
    }

    /// The image shows every topic there is, so that one that it does not show was deleted. Markers are written from
    /// now on.
    pub(crate) fn on_image_complete(&self) {
        self.image_complete.send_replace(true);
    }

    /// The partition of `__transaction_state` that keeps a transactional id; `None` while the topic does not exist.
    pub(crate) fn partition_of(&self, id: &str) -> Option<PartitionIndex> {
        let image = self.image.current();
        let partitions = image.topic(TRANSACTION_STATE)?.partitions.len() as i32;
        Some(partition_for(id, partitions))
    }

    /// Asks the shard of a transactional id and maps what it answers, or why there is no answer, into `T`.
    async fn ask<T: Send + 'static>(
        &self,
        id: &str,
        request: TransactionRequest,
        map: impl FnOnce(Result<TransactionReply, TransactionError>) -> T + Send + 'static,
    ) -> Answer<T> {
        if id.is_empty() {
            return ready(map(Err(TransactionError::InvalidRequest))).boxed();
        }
        let asked = match self.partition_of(id) {
            Some(partition) => self.runtime.ask(partition, request).await,
            None => Err(Unavailable::NotCoordinator),
        };
        match asked {
            Ok(answer) => async move { map(answer.await.map_err(TransactionError::from)) }.boxed(),
            Err(why) => ready(map(Err(why.into()))).boxed(),
        }
    }

    /// InitProducerId: the producer's id and epoch. `expected` is what it believes to have.
    pub(crate) async fn init_producer_id(
        &self,
        id: Arc<str>,
        timeout_ms: i32,
        expected: Option<Producer>,
    ) -> Answer<Result<Producer, TransactionError>> {
        if id.is_empty() {
            return ready(Err(TransactionError::InvalidRequest)).boxed();
        }
        if !(1..=self.config.timeout_ms_max).contains(&timeout_ms) {
            return ready(Err(TransactionError::InvalidTransactionTimeout)).boxed();
        }
        let request = InitRequest { id: id.clone(), timeout_ms, expected, fresh: None };
        let map = |reply| reply!(reply, Init).and_then(|reply| reply);
        let first = self.ask(&id, TransactionRequest::Init(request.clone()), map).await;
        let Some(partition) = self.partition_of(&id) else {
            return first.map(|_| Err(TransactionError::NotCoordinator)).boxed();
        };
        let (runtime, producer_ids) = (self.runtime.clone(), self.producer_ids.clone());
        async move {
            match first.await? {
                InitReply::Given(producer_id, epoch) => return Ok((producer_id, epoch)),
                InitReply::NeedsProducerId => {}
            }
            // Whatever keeps the controller from giving ids passes.
            let fresh = producer_ids.next().await.map_err(|_| TransactionError::CoordinatorLoadInProgress)?;
            let request = TransactionRequest::Init(InitRequest { fresh: Some(fresh), ..request });
            let reply = async { runtime.ask(partition, request).await?.await }.await;
            match map(reply.map_err(TransactionError::from))? {
                InitReply::Given(producer_id, epoch) => Ok((producer_id, epoch)),
                InitReply::NeedsProducerId => unreachable!("it was given one"),
            }
        }
        .boxed()
    }

    /// AddPartitionsToTxn, and AddOffsetsToTxn with the group's partition of `__consumer_offsets`.
    pub(crate) async fn add_partitions(&self, request: PartitionsRequest) -> Answer<Result<(), TransactionError>> {
        let id = request.id.clone();
        let map = |reply| reply!(reply, AddPartitions).and_then(|added| added);
        self.ask(&id, TransactionRequest::AddPartitions(request), map).await
    }

    /// Whether partitions are in the producer's open transaction: one result per partition, in their order.
    /// [`TransactionError::InvalidTxnState`] stands for one that is not; any other error is that of all of them.
    pub(crate) async fn verify(&self, request: PartitionsRequest) -> Answer<Vec<Result<(), TransactionError>>> {
        let (id, count) = (request.id.clone(), request.partitions.len());
        let map = move |reply| {
            let verified = reply!(reply, Verify).and_then(|verified| verified);
            verified.unwrap_or_else(|error| vec![Err(error); count])
        };
        self.ask(&id, TransactionRequest::Verify(request), map).await
    }

    /// EndTxn. Answers when the outcome is stored; the markers follow.
    pub(crate) async fn end(&self, request: EndRequest) -> Answer<Result<(), TransactionError>> {
        let id = request.id.clone();
        self.ask(&id, TransactionRequest::End(request), |reply| reply!(reply, End).and_then(|ended| ended)).await
    }

    /// DescribeTransactions of one transactional id.
    pub(crate) async fn describe(&self, id: Arc<str>) -> Answer<Result<Description, TransactionError>> {
        let request = TransactionRequest::Describe { id: id.clone() };
        let map = |reply| reply!(reply, Describe)?.ok_or(TransactionError::TransactionalIdNotFound);
        self.ask(&id, request, map).await
    }

    /// ListTransactions: the transactional ids of all shards here; an error if some are loading, or cannot be shown,
    /// that has clients ask again.
    pub(crate) async fn list(&self, request: ListRequest) -> Answer<Result<Vec<Listing>, TransactionError>> {
        let mut asked = Vec::new();
        for partition in self.runtime.partitions() {
            match self.runtime.ask(partition, TransactionRequest::List(request.clone())).await {
                Ok(answer) => asked.push(answer),
                Err(Unavailable::Loading) => return ready(Err(TransactionError::CoordinatorLoadInProgress)).boxed(),
                // It left while we asked.
                Err(Unavailable::NotCoordinator | Unavailable::NotAvailable | Unavailable::Transaction(_)) => {}
            }
        }
        async move {
            let mut listed = Vec::new();
            for answer in asked {
                match answer.await {
                    Err(Unavailable::NotAvailable | Unavailable::Loading) => {
                        return Err(TransactionError::CoordinatorLoadInProgress);
                    }
                    answer => listed.extend(reply!(answer, List).into_iter().flatten()),
                }
            }
            listed.sort_by(|a, b| a.id.cmp(&b.id));
            Ok(listed)
        }
        .boxed()
    }
}
