//! How decisions reach the brokers: one FIFO per broker, one request under way.
//!
//! A queue has no bound of its own: what waits in it is bounded by what is decided, and a broker that does not answer
//! loses its session and thereby its queue. Each queue has a task; it ends when the channel is dropped, after the
//! request under way. Source: Kafka 3.9 `ControllerChannelManager`, `ControllerBrokerRequestBatch`.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::mpsc;
use tracing::warn;

use crate::cluster::control::{
    BrokerLink, ControlError, LeaderAndIsr, LiveBroker, PartitionResults, StopReplica, UpdateMetadata,
};
use crate::task;
use crate::types::{BrokerEpoch, BrokerId, ControllerEpoch};

/// Where links to brokers come from.
pub(crate) trait LinkSource: Debug + Send + Sync + 'static {
    /// `None`: there is no way to reach it.
    fn link(&self, broker: &LiveBroker) -> Option<Arc<dyn BrokerLink>>;
}

#[derive(Debug, Clone)]
pub(super) enum ControlRequest {
    LeaderAndIsr(LeaderAndIsr),
    UpdateMetadata(UpdateMetadata),
    StopReplica(StopReplica),
}

/// What a broker answered that the controller has to know.
#[derive(Debug)]
pub(super) struct Answer {
    /// Term in which the request was made.
    pub(super) controller_epoch: ControllerEpoch,
    pub(super) broker: BrokerId,
    pub(super) broker_epoch: BrokerEpoch,
    pub(super) outcome: Answered,
}

#[derive(Debug)]
pub(super) enum Answered {
    LeaderAndIsr(PartitionResults),
    StopReplica(PartitionResults),
    /// The whole request was refused; it is not repeated.
    Refused,
}

#[derive(Debug)]
struct Channel {
    epoch: BrokerEpoch,
    queue: mpsc::UnboundedSender<ControlRequest>,
    open: Arc<AtomicBool>,
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.open.store(false, Ordering::SeqCst);
    }
}

/// The queues of one term.
#[derive(Debug)]
pub(super) struct Channels {
    links: Arc<dyn LinkSource>,
    controller_epoch: ControllerEpoch,
    answers: mpsc::UnboundedSender<Answer>,
    channels: BTreeMap<BrokerId, Channel>,
}

impl Channels {
    pub(super) fn new(
        links: Arc<dyn LinkSource>,
        controller_epoch: ControllerEpoch,
        answers: mpsc::UnboundedSender<Answer>,
    ) -> Self {
        Self { links, controller_epoch, answers, channels: BTreeMap::new() }
    }

    /// Opens a queue to a broker, in place of an older one.
    pub(super) fn open(&mut self, broker: &LiveBroker, epoch: BrokerEpoch) {
        self.channels.remove(&broker.id);
        let Some(link) = self.links.link(broker) else {
            warn!(broker = %broker.id, "there is no link to this broker; it gets no control requests");
            return;
        };
        let (queue, requests) = mpsc::unbounded_channel();
        let open = Arc::new(AtomicBool::new(true));
        let sender = Sender {
            link,
            requests,
            open: open.clone(),
            answers: self.answers.clone(),
            controller_epoch: self.controller_epoch,
            broker: broker.id,
            broker_epoch: epoch,
        };
        task::spawn_owner("controller-channel", sender.run());
        self.channels.insert(broker.id, Channel { epoch, queue, open });
    }

    pub(super) fn close(&mut self, broker: BrokerId) {
        self.channels.remove(&broker);
    }

    /// Queues a request; one to a broker without a queue is dropped, as it will be told everything when it comes.
    pub(super) fn send(&self, broker: BrokerId, request: ControlRequest) {
        if let Some(channel) = self.channels.get(&broker) {
            // The task ends only when the channel does, or the process.
            let _ = channel.queue.send(request);
        }
    }

    /// Epoch of the registration that the queue was opened for.
    pub(super) fn broker_epoch(&self, broker: BrokerId) -> Option<BrokerEpoch> {
        self.channels.get(&broker).map(|channel| channel.epoch)
    }
}

/// The owner of one queue's far end.
struct Sender {
    link: Arc<dyn BrokerLink>,
    requests: mpsc::UnboundedReceiver<ControlRequest>,
    open: Arc<AtomicBool>,
    answers: mpsc::UnboundedSender<Answer>,
    controller_epoch: ControllerEpoch,
    broker: BrokerId,
    broker_epoch: BrokerEpoch,
}

impl Sender {
    async fn run(mut self) {
        while let Some(request) = self.requests.recv().await {
            if !self.open.load(Ordering::SeqCst) {
                return;
            }
            match self.call(request).await {
                Ok(None) => {}
                Ok(Some(outcome)) => self.answer(outcome),
                Err(error) => {
                    warn!(broker = %self.broker, %error, "a control request was refused");
                    self.answer(Answered::Refused);
                }
            }
        }
    }

    /// An answer is queued without a bound: there is at most one per request that the controller made.
    fn answer(&self, outcome: Answered) {
        let Self { controller_epoch, broker, broker_epoch, .. } = *self;
        // The queue is closed once the controller's task has ended.
        let _ = self.answers.send(Answer { controller_epoch, broker, broker_epoch, outcome });
    }

    async fn call(&self, request: ControlRequest) -> Result<Option<Answered>, ControlError> {
        Ok(match request {
            ControlRequest::LeaderAndIsr(request) => {
                Some(Answered::LeaderAndIsr(self.link.leader_and_isr(request).await?))
            }
            ControlRequest::UpdateMetadata(request) => {
                self.link.update_metadata(request).await?;
                None
            }
            ControlRequest::StopReplica(request) => Some(Answered::StopReplica(self.link.stop_replica(request).await?)),
        })
    }
}
