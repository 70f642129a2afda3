//! How decisions reach the brokers: one FIFO per broker, one request under way.
//!
//! Only an answer ends a request: one that a broker did not answer is made again every 100 ms, until the channel is
//! closed. Each queue has a task; it ends when the channel is dropped, after the request under way, which the broker
//! refuses by its epochs if it comes late. Source: Kafka 3.9 `ControllerChannelManager`, `RequestSendThread`.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tracing::{info, warn};

use super::queue::{ControlRequest, Overflowed, Queue};
use crate::cluster::control::{BrokerLink, ControlError, LiveBroker, PartitionResults};
use crate::task;
use crate::types::{BrokerEpoch, BrokerId, ControllerEpoch};

/// Pause before a request without an answer is made again. Source: Kafka 3.9 `RequestSendThread.backoff`.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Where links to brokers come from.
pub(crate) trait LinkSource: Debug + Send + Sync + 'static {
    /// `None`: there is no way to reach it, ever. One that cannot be reached now has a link that says so.
    fn link(&self, broker: &LiveBroker) -> Option<Arc<dyn BrokerLink>>;
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
    /// Too much waited, and was forgotten.
    Overflowed,
}

#[derive(Debug)]
struct Channel {
    epoch: BrokerEpoch,
    queue: Arc<Queue>,
    /// How the broker is reached now. Dropping it closes the channel.
    link: watch::Sender<Arc<dyn BrokerLink>>,
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
        let queue = Arc::new(Queue::default());
        let (link, current) = watch::channel(link);
        let sender = Sender {
            link: current,
            queue: Arc::clone(&queue),
            answers: self.answers.clone(),
            controller_epoch: self.controller_epoch,
            broker: broker.id,
            broker_epoch: epoch,
        };
        task::spawn_owner("controller-channel", sender.run());
        self.channels.insert(broker.id, Channel { epoch, queue, link });
    }

    /// The broker's addresses have changed: the next attempt goes there.
    pub(super) fn relink(&self, broker: &LiveBroker) {
        if let (Some(channel), Some(link)) = (self.channels.get(&broker.id), self.links.link(broker)) {
            channel.link.send_replace(link);
        }
    }

    pub(super) fn close(&mut self, broker: BrokerId) {
        self.channels.remove(&broker);
    }

    /// Queues a request; one to a broker without a queue is dropped, as it will be told everything when it comes.
    pub(super) fn send(&self, broker: BrokerId, request: ControlRequest) {
        let Some(channel) = self.channels.get(&broker) else { return };
        if channel.queue.push(request) == Err(Overflowed) {
            warn!(%broker, "too much waits for this broker; it will be told everything instead");
            let Self { controller_epoch, .. } = *self;
            let outcome = Answered::Overflowed;
            // The term that sends is there to receive.
            let _ = self.answers.send(Answer { controller_epoch, broker, broker_epoch: channel.epoch, outcome });
        }
    }

    /// Epoch of the registration that the queue was opened for.
    pub(super) fn broker_epoch(&self, broker: BrokerId) -> Option<BrokerEpoch> {
        self.channels.get(&broker).map(|channel| channel.epoch)
    }
}

/// The owner of one queue's far end.
struct Sender {
    link: watch::Receiver<Arc<dyn BrokerLink>>,
    queue: Arc<Queue>,
    answers: mpsc::UnboundedSender<Answer>,
    controller_epoch: ControllerEpoch,
    broker: BrokerId,
    broker_epoch: BrokerEpoch,
}

impl Sender {
    async fn run(mut self) {
        while let Some(request) = self.next().await {
            match self.deliver(request).await {
                None => return,
                Some(Ok(None)) => {}
                Some(Ok(Some(outcome))) => self.answer(outcome),
                Some(Err(error)) => {
                    warn!(broker = %self.broker, %error, "a control request was refused");
                    self.answer(Answered::Refused);
                }
            }
        }
    }

    /// `None`: the channel is closed.
    async fn next(&mut self) -> Option<ControlRequest> {
        loop {
            if self.link.has_changed().is_err() {
                return None;
            }
            if let Some(request) = self.queue.pop() {
                return Some(request);
            }
            tokio::select! {
                biased;
                changed = self.link.changed() => changed.ok()?,
                () = self.queue.news.notified() => {}
            }
        }
    }

    /// Makes the request until it is answered. `None`: the channel was closed before.
    async fn deliver(&mut self, request: ControlRequest) -> Option<Result<Option<Answered>, ControlError>> {
        let mut attempts = 0_u32;
        loop {
            let link = Arc::clone(&self.link.borrow_and_update());
            match call(&*link, request.clone()).await {
                Err(ControlError::Unreachable(reason)) => {
                    if attempts == 0 {
                        warn!(broker = %self.broker, reason, "no answer to a control request; it is made again");
                    }
                    attempts = attempts.saturating_add(1);
                }
                answered => {
                    if attempts > 0 {
                        info!(broker = %self.broker, attempts, "the broker answers again");
                    }
                    return Some(answered);
                }
            }
            // Another link ends the pause as well.
            if let Ok(Err(_)) = timeout(RETRY_PAUSE, self.link.changed()).await {
                return None;
            }
        }
    }

    /// An answer is queued without a bound: there is at most one per request that the controller made.
    fn answer(&self, outcome: Answered) {
        let Self { controller_epoch, broker, broker_epoch, .. } = *self;
        // The queue is closed once the controller's task has ended.
        let _ = self.answers.send(Answer { controller_epoch, broker, broker_epoch, outcome });
    }
}

async fn call(link: &dyn BrokerLink, request: ControlRequest) -> Result<Option<Answered>, ControlError> {
    Ok(match request {
        ControlRequest::LeaderAndIsr(request) => Some(Answered::LeaderAndIsr(link.leader_and_isr(request).await?)),
        ControlRequest::UpdateMetadata(request) => {
            link.update_metadata(request.to_request()).await?;
            None
        }
        ControlRequest::StopReplica(request) => Some(Answered::StopReplica(link.stop_replica(request).await?)),
    })
}
