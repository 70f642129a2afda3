//! The state of an elected controller, from election to resignation, and the reactions that need no file of their own.

use std::sync::Arc;

use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;

use super::channel::{Answer, Answered, Channels};
use super::context::Context;
use super::event::{Event, Pending, when_changed};
use super::fence::{Fence, Interrupted};
use super::retry::Retry;
use crate::clock::SharedClock;
use crate::cluster::control::LogInventory;
use crate::cluster::image::ClusterImage;
use crate::cluster::running_config::RunningConfig;
use crate::coordination::{Changed, SharedCoordination};
use crate::types::BrokerId;

/// Settings that concern the controller.
#[derive(Debug, Clone)]
pub(crate) struct ControllerSettings {
    pub(crate) broker: BrokerId,
    /// `klamm.controller.eligible`; false: follows, and never contends.
    pub(crate) eligible: bool,
    /// `delete.topic.enable`
    pub(crate) delete_topic_enable: bool,
    /// What may change while the broker runs.
    pub(crate) config: Arc<RunningConfig>,
}

impl ControllerSettings {
    /// `unclean.leader.election.enable` as it is now; a topic's own setting goes before it.
    pub(super) fn unclean_leader_election_enable(&self) -> bool {
        self.config.current().topic_defaults.unclean_leader_election_enable
    }
}

/// One term. Dropping it forgets everything, closes the queues and disarms the watches.
#[derive(Debug)]
pub(super) struct Term {
    pub(super) store: SharedCoordination,
    pub(super) settings: Arc<ControllerSettings>,
    pub(super) clock: SharedClock,
    /// This broker's own image: remembers the ids of topics whose node lost them.
    pub(super) image: watch::Receiver<Arc<ClusterImage>>,
    /// This broker's own logs: know the ids of topics that no broker has announced yet.
    pub(super) inventory: Arc<dyn LogInventory>,
    pub(super) fence: Fence,
    pub(super) context: Context,
    pub(super) channels: Channels,
    /// Armed watches, and what comes by time.
    pub(super) watches: FuturesUnordered<Pending>,
    pub(super) retry: Retry,
}

impl Term {
    /// The event comes when what was read changes.
    pub(super) fn watch(&self, changed: Changed, event: Event) {
        self.watches.push(when_changed(changed, event));
    }

    pub(super) async fn on_event(&mut self, event: Event) -> Result<(), Interrupted> {
        match event {
            Event::BrokersChanged => self.on_brokers_changed().await,
            Event::BrokerModified(broker) => self.on_broker_modified(broker).await,
            Event::TopicsChanged => self.on_topics_changed().await,
            Event::TopicModified(topic) => self.on_topic_modified(topic).await,
            Event::DeletionsChanged => self.on_deletions_changed().await,
            Event::IsrNotified => self.on_isr_notified().await,
            Event::LogDirNotified => self.on_log_dir_notified().await,
            Event::PreferredElectionAsked => self.on_preferred_election_asked().await,
            Event::ReassignmentAsked => self.on_reassignment_asked().await,
            Event::ConfigsChanged => self.on_configs_changed().await,
            Event::SettingsChanged => self.on_settings_changed().await,
            Event::RebalanceDue => self.on_rebalance_due().await,
            Event::Answered(answer) => self.on_answer(answer).await,
            Event::RetryDue => self.on_retry_due().await,
        }
    }

    /// Answers of an earlier term or an earlier registration are of no interest.
    async fn on_answer(&mut self, answer: Answer) -> Result<(), Interrupted> {
        let Answer { controller_epoch, broker, broker_epoch, outcome } = answer;
        let current = self.channels.broker_epoch(broker) == Some(broker_epoch);
        if controller_epoch != self.fence.epoch || !current {
            return Ok(());
        }
        match outcome {
            Answered::LeaderAndIsr(results) => self.on_replicas_started(broker, results).await,
            Answered::StopReplica(results) => self.on_replicas_stopped(broker, results).await,
            // The broker knows better who the controller is, or has registered anew: either shows up in a watch.
            Answered::Refused => Ok(()),
            Answered::Overflowed => self.on_queue_overflowed(broker).await,
        }
    }
}
