//! Everything that can happen to the controller.

use std::collections::BTreeSet;
use std::ops::Range;
use std::pin::Pin;

use tokio::sync::oneshot;

use super::asked::{ElectionResults, ElectionType, Moving, ReassignmentResults, StillLed, Wishes};
use super::channel::Answer;
use crate::cluster::control::{AlterPartition, ControllerError, IsrResults};
use crate::coordination::Changed;
use crate::types::{BrokerEpoch, BrokerId, TopicName, TopicPartition};

/// What the owner of a term reacts to. "Changed" always means "read again".
#[derive(Debug)]
pub(super) enum Event {
    /// Children of `/brokers/ids`.
    BrokersChanged,
    /// Data of `/brokers/ids/N`.
    BrokerModified(BrokerId),
    /// Children of `/brokers/topics`.
    TopicsChanged,
    /// Data of `/brokers/topics/T`.
    TopicModified(TopicName),
    /// Children of `/admin/delete_topics`.
    DeletionsChanged,
    /// Children of `/isr_change_notification`.
    IsrNotified,
    /// Children of `/log_dir_event_notification`.
    LogDirNotified,
    /// `/admin/preferred_replica_election`.
    PreferredElectionAsked,
    /// `/admin/reassign_partitions`.
    ReassignmentAsked,
    /// Children of `/config/changes`.
    ConfigsChanged,
    /// This broker's own settings.
    SettingsChanged,
    /// It is time to look for leaders that are not the preferred ones.
    RebalanceDue,
    /// A broker answered a control request.
    Answered(Answer),
    /// What a disk has refused is to be asked again.
    RetryDue,
}

/// An AlterPartition that waits for its outcome.
#[derive(Debug)]
pub(super) struct IsrRequest {
    pub(super) request: AlterPartition,
    pub(super) reply: oneshot::Sender<Result<IsrResults, ControllerError>>,
}

/// What others ask of the controller.
#[derive(Debug)]
pub(super) enum Command {
    AllocateProducerIds {
        broker: BrokerId,
        broker_epoch: BrokerEpoch,
        reply: oneshot::Sender<Result<Range<i64>, ControllerError>>,
    },
    AlterPartition(IsrRequest),
    ControlledShutdown {
        broker: BrokerId,
        broker_epoch: BrokerEpoch,
        reply: oneshot::Sender<Result<StillLed, ControllerError>>,
    },
    ElectLeaders {
        kind: ElectionType,
        partitions: BTreeSet<TopicPartition>,
        reply: oneshot::Sender<Result<ElectionResults, ControllerError>>,
    },
    /// Reassigns, or takes back.
    Reassign {
        wishes: Wishes,
        factor_may_change: bool,
        reply: oneshot::Sender<Result<ReassignmentResults, ControllerError>>,
    },
    /// What is being reassigned, of these partitions or of all.
    ListReassignments {
        partitions: Option<BTreeSet<TopicPartition>>,
        reply: oneshot::Sender<Result<Vec<Moving>, ControllerError>>,
    },
    /// End the task. Nothing is written any more once it is answered.
    Stop {
        reply: oneshot::Sender<()>,
    },
}

/// An event that is yet to come.
pub(super) type Pending = Pin<Box<dyn Future<Output = Event> + Send + Sync>>;

/// The event that follows when what was read has changed.
pub(super) fn when_changed(changed: Changed, event: Event) -> Pending {
    Box::pin(async move {
        // A lost session drops the sender, which counts as changed.
        let _ = changed.await;
        event
    })
}
