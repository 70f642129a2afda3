//! The control requests of Kafka 3.9's ZooKeeper mode as plain types, and the two links they travel on.
//!
//! The controller speaks to every broker, its own included, through [`BrokerLink`]; a broker speaks to the controller
//! through [`ControllerLink`], [`IsrLink`] and [`ShutdownLink`]. In process or over a connection, both keep the order
//! in which they are called.

use std::fmt::Debug;
use std::ops::Range;

use futures_util::future::BoxFuture;

use super::znodes::partition_state::Recovery;
use crate::types::{
    BrokerEpoch, BrokerId, ControllerEpoch, LeaderEpoch, PartitionEpoch, PartitionIndex, TopicId, TopicName,
};

/// The sender of a control request and its terms. A receiver refuses stale ones (I-14).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ControlHead {
    pub(crate) controller: BrokerId,
    pub(crate) controller_epoch: ControllerEpoch,
    /// Epoch of the broker it is sent to.
    pub(crate) broker_epoch: BrokerEpoch,
}

/// State of one partition as the controller decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PartitionState {
    pub(crate) partition: PartitionIndex,
    /// Epoch of the controller that wrote this state.
    pub(crate) controller_epoch: ControllerEpoch,
    /// `None`: no leader. `UpdateMetadata` says deletion with [`TopicMetadata::deleted`] instead of Kafka's leader −2.
    pub(crate) leader: Option<BrokerId>,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) isr: Vec<BrokerId>,
    pub(crate) partition_epoch: PartitionEpoch,
    pub(crate) replicas: Vec<BrokerId>,
    /// LeaderAndIsr only: replicas that a reassignment adds and takes away; all of them are in `replicas`, too.
    pub(crate) adding: Vec<BrokerId>,
    pub(crate) removing: Vec<BrokerId>,
    /// LeaderAndIsr only. KIP-704.
    pub(crate) recovery: Recovery,
    pub(crate) offline_replicas: Vec<BrokerId>,
    /// LeaderAndIsr only: the replica is made anew.
    pub(crate) is_new: bool,
}

/// LeaderAndIsr 7: take these roles.
#[derive(Debug, Clone)]
pub(crate) struct LeaderAndIsr {
    pub(crate) head: ControlHead,
    pub(crate) topics: Vec<(TopicName, TopicId, Vec<PartitionState>)>,
}

/// One listener of a broker, as clients shall reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    pub(crate) listener: String,
    /// PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.
    pub(crate) security_protocol: String,
    pub(crate) host: String,
    pub(crate) port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveBroker {
    pub(crate) id: BrokerId,
    pub(crate) endpoints: Vec<Endpoint>,
    pub(crate) rack: Option<String>,
}

/// A topic inside UpdateMetadata: its partitions are merged into the image.
#[derive(Debug, Clone)]
pub(crate) struct TopicMetadata {
    pub(crate) name: TopicName,
    pub(crate) id: TopicId,
    pub(crate) partitions: Vec<PartitionState>,
    /// Partitions that leave the image; the topic leaves with its last one.
    pub(crate) deleted: Vec<PartitionIndex>,
}

/// UpdateMetadata 8: partitions merge, live brokers replace.
#[derive(Debug, Clone)]
pub(crate) struct UpdateMetadata {
    pub(crate) head: ControlHead,
    pub(crate) topics: Vec<TopicMetadata>,
    pub(crate) live_brokers: Vec<LiveBroker>,
}

/// StopReplica 4.
#[derive(Debug, Clone)]
pub(crate) struct StopReplica {
    pub(crate) head: ControlHead,
    pub(crate) partitions: Vec<StopPartition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StopPartition {
    pub(crate) topic: TopicName,
    pub(crate) partition: PartitionIndex,
    /// `None` is Kafka's −2: the topic is being deleted, stop whatever the epoch.
    pub(crate) leader_epoch: Option<LeaderEpoch>,
    /// Delete the data as well.
    pub(crate) delete: bool,
}

/// Why a control request, or one partition of it, was refused. Codes are those of the wire.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ControlError {
    /// STALE_CONTROLLER_EPOCH (11); of one partition: its leader epoch is known already.
    #[error("stale controller epoch")]
    StaleControllerEpoch,
    /// STALE_BROKER_EPOCH (77)
    #[error("stale broker epoch")]
    StaleBrokerEpoch,
    /// FENCED_LEADER_EPOCH (74)
    #[error("fenced leader epoch")]
    FencedLeaderEpoch,
    /// UNKNOWN_TOPIC_OR_PARTITION (3)
    #[error("this broker is not among the replicas")]
    UnknownPartition,
    /// INCONSISTENT_TOPIC_ID (103)
    #[error("the replica here is of the topic with id {here}")]
    InconsistentTopicId { here: TopicId },
    /// KAFKA_STORAGE_ERROR (56)
    #[error("storage error: {0}")]
    Storage(String),
    /// To LeaderAndIsr, ours: the log may be shorter than it was under this leader epoch, after a loss of power or a
    /// cut that opening it noticed, so the replica does not lead under it. The controller gives the partition another
    /// epoch, and clients notice (KIP-320). Towards a controller in Java, which would not act on it:
    /// KAFKA_STORAGE_ERROR, and a note in `/log_dir_event_notification`, so that the replica is taken offline and
    /// elected again.
    #[error("the log may have lost its end; it needs a new leader epoch")]
    EndLost,
    /// Any other code that a broker answered with.
    #[error("error code {0}")]
    Other(i16),
    /// No answer: whether the request took effect is not known, and it may be made again. Everything else is what a
    /// broker answered.
    #[error("no answer: {0}")]
    Unreachable(String),
}

/// Per partition outcome of LeaderAndIsr or StopReplica.
pub(crate) type PartitionResults = Vec<(TopicName, PartitionIndex, Result<(), ControlError>)>;

/// Controller → broker. Calls are answered in the order in which they were made.
pub(crate) trait BrokerLink: Debug + Send + Sync + 'static {
    fn leader_and_isr(&self, request: LeaderAndIsr) -> BoxFuture<'_, Result<PartitionResults, ControlError>>;
    fn update_metadata(&self, request: UpdateMetadata) -> BoxFuture<'_, Result<(), ControlError>>;
    fn stop_replica(&self, request: StopReplica) -> BoxFuture<'_, Result<PartitionResults, ControlError>>;
}

/// Why the controller refused a broker.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ControllerError {
    #[error("not the controller")]
    NotController,
    #[error("stale broker epoch")]
    StaleBrokerEpoch,
    /// BROKER_NOT_AVAILABLE (8), to ControlledShutdown: the broker is not registered.
    #[error("the broker is not registered")]
    BrokerNotAvailable,
    /// BROKER_ID_NOT_REGISTERED (102), to AllocateProducerIds: the same.
    #[error("the broker's id is not registered")]
    BrokerIdNotRegistered,
    #[error("{0}")]
    Unavailable(String),
}

/// Broker → controller, AllocateProducerIds.
pub(crate) trait ControllerLink: Debug + Send + Sync + 'static {
    /// A block of ids that no other broker gets, for the broker under exactly this registration.
    fn allocate_producer_ids(
        &self,
        broker: BrokerId,
        broker_epoch: BrokerEpoch,
    ) -> BoxFuture<'_, Result<Range<i64>, ControllerError>>;
}

/// AlterPartition 3: what a leader wants the ISRs of its partitions to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AlterPartition {
    pub(crate) broker: BrokerId,
    /// Of its registration; another one is refused.
    pub(crate) broker_epoch: BrokerEpoch,
    pub(crate) partitions: Vec<IsrProposal>,
}

/// One partition of [`AlterPartition`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IsrProposal {
    pub(crate) topic: TopicName,
    pub(crate) topic_id: TopicId,
    pub(crate) partition: PartitionIndex,
    /// The leader's own.
    pub(crate) leader_epoch: LeaderEpoch,
    /// Each with the epoch of the registration under which it fetches, or [`BrokerEpoch::NONE`] (KIP-903).
    pub(crate) isr: Vec<(BrokerId, BrokerEpoch)>,
    pub(crate) recovery: Recovery,
    /// Version of the state that this is to replace.
    pub(crate) partition_epoch: PartitionEpoch,
}

/// A partition's state as the controller has stored it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StoredIsr {
    pub(crate) leader: Option<BrokerId>,
    pub(crate) leader_epoch: LeaderEpoch,
    pub(crate) isr: Vec<BrokerId>,
    pub(crate) recovery: Recovery,
    pub(crate) partition_epoch: PartitionEpoch,
}

/// Why the controller did not store an ISR. Source: Kafka 3.9 `KafkaController.processAlterPartition`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IsrRefused {
    /// UNKNOWN_TOPIC_OR_PARTITION (3)
    #[error("unknown partition")]
    UnknownPartition,
    /// UNKNOWN_TOPIC_ID (100)
    #[error("unknown topic id")]
    UnknownTopicId,
    /// FENCED_LEADER_EPOCH (74)
    #[error("fenced leader epoch")]
    FencedLeaderEpoch,
    /// INVALID_UPDATE_VERSION (95)
    #[error("the state has another version by now")]
    InvalidUpdateVersion,
    /// INVALID_REQUEST (42)
    #[error("invalid request")]
    InvalidRequest,
    /// INELIGIBLE_REPLICA (107): a member is not live, or not under this epoch.
    #[error("a replica of the ISR may not be in it")]
    IneligibleReplica,
    /// OPERATION_NOT_ATTEMPTED (55)
    #[error("not attempted")]
    NotAttempted,
    /// Any other code: worth another attempt.
    #[error("error code {0}")]
    Other(i16),
}

/// Outcomes of [`AlterPartition`], one per partition that was asked, in any order.
pub(crate) type IsrResults = Vec<(TopicId, PartitionIndex, Result<StoredIsr, IsrRefused>)>;

/// Broker → controller, AlterPartition.
pub(crate) trait IsrLink: Debug + Send + Sync + 'static {
    fn alter_partition(&self, request: AlterPartition) -> BoxFuture<'_, Result<IsrResults, ControllerError>>;
}

/// Broker → controller, ControlledShutdown 3.
pub(crate) trait ShutdownLink: Debug + Send + Sync + 'static {
    /// Moves what this broker leads elsewhere. Answers what it still leads; it may stop when that is nothing.
    fn controlled_shutdown(
        &self,
        broker: BrokerId,
        broker_epoch: BrokerEpoch,
    ) -> BoxFuture<'_, Result<Vec<(TopicName, PartitionIndex)>, ControllerError>>;
}

/// What lies in this broker's log directories, for its own controller.
pub(crate) trait LogInventory: Debug + Send + Sync + 'static {
    /// The id under which logs of a topic of this name lie here. `None`: there are none, or several ids.
    fn topic_id(&self, topic: &TopicName) -> Option<TopicId>;
}
