//! The handle of the group coordinator: finds the shard of a group and speaks to it.
//!
//! Every request has two stages. The method itself is the first: when it returns, the request has its place. The
//! [`Answer`] is the second and only waits.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tracing::warn;

use super::config::GroupConfig;
use super::error::GroupError;
use super::request::*;
use super::shard::GroupShard;
use crate::clock::SharedClock;
use crate::cluster::image::ImagePublisher;
use crate::coordinator::context::Unavailable;
use crate::coordinator::partition_for;
use crate::coordinator::runtime::Runtime;
use crate::coordinator::writer::{SharedWriter, TransactionRefusal};
use crate::types::topic::CONSUMER_OFFSETS;
use crate::types::{
    LeaderEpoch, PartitionIndex, ProducerEpoch, ProducerId, TopicName, TransactionGuard, TransactionMarker,
};

/// The second stage of a request.
pub(crate) type Answer<T> = BoxFuture<'static, T>;

/// The group coordinator of this broker.
///
/// Its tasks are started by [`GroupCoordinator::on_elected`], one per partition of `__consumer_offsets` led here, and
/// end with [`GroupCoordinator::on_resigned`] or when this is dropped.
#[derive(Debug)]
pub(crate) struct GroupCoordinator {
    runtime: Runtime<GroupShard>,
    writer: SharedWriter,
    image: Arc<ImagePublisher>,
    clock: SharedClock,
}

impl From<Unavailable> for GroupError {
    fn from(why: Unavailable) -> Self {
        match why {
            Unavailable::NotCoordinator => Self::NotCoordinator,
            Unavailable::Loading => Self::CoordinatorLoadInProgress,
            Unavailable::NotAvailable => Self::CoordinatorNotAvailable,
            Unavailable::Transaction(TransactionRefusal::InvalidTxnState) => Self::InvalidTxnState,
            Unavailable::Transaction(TransactionRefusal::InvalidProducerEpoch) => Self::InvalidProducerEpoch,
            Unavailable::Transaction(TransactionRefusal::CoordinatorFenced) => Self::TransactionCoordinatorFenced,
        }
    }
}

/// Takes one kind of reply out of what the shard answered; errors are Kafka's.
macro_rules! reply {
    ($reply:expr, $kind:ident) => {
        match $reply {
            Ok(GroupReply::$kind(reply)) => Ok(reply),
            Ok(other) => unreachable!("a shard answers in kind, not with {other:?}"),
            Err(error) => Err(error),
        }
    };
}

impl GroupCoordinator {
    /// A coordinator that leads nothing yet. The number of partitions of `__consumer_offsets` is taken from the image.
    pub(crate) fn new(
        config: GroupConfig,
        writer: SharedWriter,
        clock: SharedClock,
        image: Arc<ImagePublisher>,
    ) -> Self {
        let config = Arc::new(config);
        let topic = TopicName::new(CONSUMER_OFFSETS);
        let make = {
            let (writer, topic) = (writer.clone(), topic.clone());
            Arc::new(move || GroupShard::new(config.clone(), writer.batch_bytes_max(&topic)))
        };
        Self { runtime: Runtime::new(topic, writer.clone(), clock.clone(), make), writer, image, clock }
    }

    /// This broker leads a partition of `__consumer_offsets` from `epoch` on. Called within the tokio runtime.
    pub(crate) fn on_elected(&self, partition: PartitionIndex, epoch: LeaderEpoch) {
        self.runtime.on_elected(partition, epoch);
    }

    /// This broker no longer leads a partition of `__consumer_offsets`.
    pub(crate) fn on_resigned(&self, partition: PartitionIndex) {
        self.runtime.on_resigned(partition);
    }

    /// Partitions of `__consumer_offsets` led here whose log is still being read.
    pub(crate) fn loading(&self) -> usize {
        self.runtime.loading()
    }

    /// Removes the committed offsets of topics that were deleted, from all shards here; returns when that is durable.
    pub(crate) async fn on_topics_deleted(&self, topics: &[TopicName]) {
        let topics: Arc<[TopicName]> = topics.into();
        let mut asked = Vec::new();
        for partition in self.runtime.partitions() {
            let request = GroupRequest::TopicsDeleted { topics: topics.clone() };
            // A shard that is not here any more has a successor elsewhere, which hears of the deletion itself.
            if let Ok(answer) = self.runtime.ask_even_if_loading(partition, request).await {
                asked.push(answer);
            }
        }
        for answer in asked {
            match answer.await {
                Ok(_) => {}
                // Either it has a successor, or the records follow when the log takes them.
                Err(Unavailable::NotCoordinator | Unavailable::NotAvailable) => {}
                Err(why @ (Unavailable::Loading | Unavailable::Transaction(_))) => {
                    warn!(?topics, %why, "offsets of deleted topics may stay until they expire");
                }
            }
        }
    }

    /// Ends a producer's transaction in a partition of `__consumer_offsets`: what it committed there counts, or goes.
    pub(crate) async fn end_transaction(
        &self,
        partition: PartitionIndex,
        marker: TransactionMarker,
    ) -> Result<(), GroupError> {
        let asked = self.runtime.ask(partition, GroupRequest::EndTransaction { marker }).await?;
        asked.await?;
        Ok(())
    }

    /// The partition of `__consumer_offsets` that keeps a group; `None` while the topic does not exist.
    pub(crate) fn partition_of(&self, group: &str) -> Option<PartitionIndex> {
        let image = self.image.current();
        let partitions = image.topic(CONSUMER_OFFSETS)?.partitions.len() as i32;
        Some(partition_for(group, partitions))
    }

    /// Randomness for [`JoinRequest::random`].
    pub(crate) fn random(&self) -> u128 {
        self.clock.random()
    }

    /// Asks the shard of a group and maps what it answers, or why there is no answer, into `T`.
    async fn ask<T: Send + 'static>(
        &self,
        group: &str,
        request: GroupRequest,
        map: impl FnOnce(Result<GroupReply, GroupError>) -> T + Send + 'static,
    ) -> Answer<T> {
        let asked = match self.partition_of(group) {
            Some(partition) => self.runtime.ask(partition, request).await,
            None => Err(Unavailable::NotCoordinator),
        };
        match asked {
            Ok(answer) => async move { map(answer.await.map_err(GroupError::from)) }.boxed(),
            Err(why) => std::future::ready(map(Err(why.into()))).boxed(),
        }
    }

    /// JoinGroup. Waits until the group has gathered its members.
    pub(crate) async fn join(&self, request: JoinRequest) -> Answer<JoinReply> {
        let member_id = request.member_id.clone();
        if request.group.is_empty() {
            return std::future::ready(JoinReply::refused(&member_id, GroupError::InvalidGroupId)).boxed();
        }
        let group = request.group.clone();
        let map = move |reply| reply!(reply, Join).unwrap_or_else(|error| JoinReply::refused(&member_id, error));
        self.ask(&group, GroupRequest::Join(request), map).await
    }

    /// SyncGroup. Waits for the leader's assignment.
    pub(crate) async fn sync(&self, request: SyncRequest) -> Answer<SyncReply> {
        if request.group.is_empty() {
            return std::future::ready(SyncReply::refused(GroupError::InvalidGroupId)).boxed();
        }
        let group = request.group.clone();
        let map = |reply| match reply!(reply, Sync) {
            Ok(reply) => reply,
            // The rebalance is lost with the former coordinator, so members have to join again; old clients do not
            // expect the true error here.
            Err(GroupError::CoordinatorLoadInProgress) => SyncReply::refused(GroupError::RebalanceInProgress),
            Err(error) => SyncReply::refused(error),
        };
        self.ask(&group, GroupRequest::Sync(request), map).await
    }

    /// Heartbeat.
    pub(crate) async fn heartbeat(&self, request: HeartbeatRequest) -> Answer<Result<(), GroupError>> {
        if request.group.is_empty() {
            return std::future::ready(Err(GroupError::InvalidGroupId)).boxed();
        }
        let group = request.group.clone();
        let map = |reply| match reply!(reply, Heartbeat) {
            Ok(reply) => reply,
            // Sessions begin when loading ends; until then nobody is late.
            Err(GroupError::CoordinatorLoadInProgress) => Ok(()),
            Err(error) => Err(error),
        };
        self.ask(&group, GroupRequest::Heartbeat(request), map).await
    }

    /// LeaveGroup: one result per member, in order.
    pub(crate) async fn leave(&self, request: LeaveRequest) -> Answer<Result<Vec<Result<(), GroupError>>, GroupError>> {
        if request.group.is_empty() {
            return std::future::ready(Err(GroupError::InvalidGroupId)).boxed();
        }
        let group = request.group.clone();
        self.ask(&group, GroupRequest::Leave(request), |reply| reply!(reply, Leave)).await
    }

    /// OffsetCommit. The empty group id is a group like others here, as in Kafka.
    pub(crate) async fn commit(&self, request: CommitRequest) -> Answer<CommitReply> {
        let group = request.group.clone();
        let refused = |error| CommitReply { error: Some(error), too_long: Vec::new() };
        self.ask(&group, GroupRequest::Commit(request), move |reply| reply!(reply, Commit).unwrap_or_else(refused))
            .await
    }

    /// Whether the next offsets that the producer commits for the group have to be verified with its transaction
    /// coordinator, and the guard to commit them with; `None`: its transaction is open in the group's partition, or
    /// [`GroupCoordinator::txn_commit`] will refuse them anyway.
    pub(crate) fn begin_verification(
        &self,
        group: &str,
        producer_id: ProducerId,
        producer_epoch: ProducerEpoch,
    ) -> Option<TransactionGuard> {
        let partition = Some(group).filter(|group| !group.is_empty()).and_then(|group| self.partition_of(group))?;
        self.writer.begin_verification(&TopicName::new(CONSUMER_OFFSETS), partition, producer_id, producer_epoch)
    }

    /// TxnOffsetCommit: what is committed counts once [`GroupCoordinator::end_transaction`] commits the transaction.
    pub(crate) async fn txn_commit(&self, request: TxnCommitRequest) -> Answer<CommitReply> {
        let refused = |error| CommitReply { error: Some(error), too_long: Vec::new() };
        if request.group.is_empty() {
            return std::future::ready(refused(GroupError::InvalidGroupId)).boxed();
        }
        let group = request.group.clone();
        self.ask(&group, GroupRequest::TxnCommit(request), move |reply| reply!(reply, Commit).unwrap_or_else(refused))
            .await
    }

    /// OffsetFetch of one group.
    pub(crate) async fn fetch(&self, request: FetchRequest) -> Answer<Result<FetchReply, GroupError>> {
        let group = request.group.clone();
        self.ask(&group, GroupRequest::Fetch(request), |reply| reply!(reply, Fetch)).await
    }

    /// DescribeGroups of one group; `None`: there is no such group.
    pub(crate) async fn describe(&self, group: Arc<str>) -> Answer<Result<Option<GroupDescription>, GroupError>> {
        let request = GroupRequest::Describe { group: group.clone() };
        self.ask(&group, request, |reply| reply!(reply, Describe)).await
    }

    /// DeleteGroups of one group.
    pub(crate) async fn delete(&self, group: Arc<str>) -> Answer<Result<(), GroupError>> {
        let request = GroupRequest::Delete { group: group.clone() };
        self.ask(&group, request, |reply| reply!(reply, Delete).and_then(|deleted| deleted)).await
    }

    /// OffsetDelete: one result per offset, in order.
    pub(crate) async fn delete_offsets(
        &self,
        group: Arc<str>,
        offsets: Vec<(TopicName, PartitionIndex)>,
    ) -> Answer<Result<Vec<Result<(), GroupError>>, GroupError>> {
        if group.is_empty() {
            return std::future::ready(Err(GroupError::InvalidGroupId)).boxed();
        }
        let request = GroupRequest::DeleteOffsets { group: group.clone(), offsets };
        self.ask(&group, request, |reply| reply!(reply, DeleteOffsets).and_then(|deleted| deleted)).await
    }

    /// ListGroups: the groups of all shards here. The error says that some of them are loading, or cannot be shown.
    pub(crate) async fn list(&self, request: ListRequest) -> Answer<(Vec<GroupListing>, Option<GroupError>)> {
        let mut asked = Vec::new();
        let mut missing = None;
        for partition in self.runtime.partitions() {
            match self.runtime.ask(partition, GroupRequest::List(request.clone())).await {
                Ok(answer) => asked.push(answer),
                Err(Unavailable::Loading) => missing = Some(GroupError::CoordinatorLoadInProgress),
                // It left while we asked.
                Err(Unavailable::NotCoordinator | Unavailable::NotAvailable | Unavailable::Transaction(_)) => {}
            }
        }
        async move {
            let mut groups = Vec::new();
            for answer in asked {
                match answer.await {
                    Err(why @ (Unavailable::NotAvailable | Unavailable::Loading)) => missing = Some(why.into()),
                    answer => groups.extend(reply!(answer, List).into_iter().flatten()),
                }
            }
            (groups, missing)
        }
        .boxed()
    }
}
