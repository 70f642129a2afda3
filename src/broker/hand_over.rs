//! Before a broker of a cluster stops: the controller moves away what it leads, while it still serves it, so that its
//! clients wait for an election and not for its session.
//!
//! Source: Kafka 3.9 `KafkaServer.controlledShutdown`. It tries three times and waits five seconds after each; we ask
//! twice a second within the same time, since most of it is the other replicas' catching up.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout_at};
use tracing::{info, warn};

use crate::cluster::control::ShutdownLink;
use crate::cluster::image::ImagePublisher;
use crate::cluster::registration::SharedBrokerEpoch;
use crate::config::Config;
use crate::types::BrokerId;

/// Between two requests.
const PAUSE: Duration = Duration::from_millis(500);

/// Hands over what this broker leads.
#[derive(Debug)]
pub(super) struct HandOver {
    me: BrokerId,
    epoch: SharedBrokerEpoch,
    image: Arc<ImagePublisher>,
    controller: Arc<dyn ShutdownLink>,
    /// All attempts together.
    pub(super) patience: Duration,
}

impl HandOver {
    /// `None`: the broker is alone, or `controlled.shutdown.enable` is false.
    pub(super) fn new(
        config: &Config,
        me: BrokerId,
        epoch: &SharedBrokerEpoch,
        image: &Arc<ImagePublisher>,
        controller: Arc<dyn ShutdownLink>,
    ) -> Option<Self> {
        if config.zookeeper.is_none() || !config.controlled_shutdown_enable {
            return None;
        }
        let attempts = u32::try_from(config.controlled_shutdown_max_retries).unwrap_or(0);
        let pause_ms = u64::try_from(config.controlled_shutdown_retry_backoff_ms).unwrap_or(0);
        let patience = Duration::from_millis(pause_ms).saturating_mul(attempts);
        Some(Self { me, epoch: epoch.clone(), image: Arc::clone(image), controller, patience })
    }

    /// Returns when nothing is left that another broker could lead, or the time is over.
    pub(super) async fn run(&self) {
        let deadline = Instant::now() + self.patience;
        while Instant::now() < deadline {
            // Nobody is there to take it.
            if self.image.current().brokers.keys().all(|broker| *broker == self.me) {
                return;
            }
            let asked = self.controller.controlled_shutdown(self.me, self.epoch.get());
            match timeout_at(deadline, asked).await {
                Ok(Ok(left)) if left.is_empty() => {
                    info!("the controller has moved away what this broker led");
                    return;
                }
                Ok(Ok(left)) => {
                    info!(partitions = left.len(), "this broker still leads some; the controller is asked again")
                }
                Ok(Err(error)) => warn!(%error, "the controller did not take over; it is asked again"),
                Err(_) => break,
            }
            sleep(PAUSE.min(deadline.saturating_duration_since(Instant::now()))).await;
        }
        warn!("stopping without the controller; clients wait until it notices");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use futures_util::FutureExt;
    use futures_util::future::{BoxFuture, ready};
    use parking_lot::Mutex;

    use super::*;
    use crate::cluster::control::{ControlHead, ControllerError, LiveBroker, UpdateMetadata};
    use crate::types::{BrokerEpoch, ControllerEpoch, PartitionIndex, TopicName};

    type Answer = Result<Vec<(TopicName, PartitionIndex)>, ControllerError>;

    /// Answers in order, then with what is left for ever.
    #[derive(Debug)]
    struct Controller(Mutex<VecDeque<Answer>>);

    impl ShutdownLink for Controller {
        fn controlled_shutdown(&self, _: BrokerId, _: BrokerEpoch) -> BoxFuture<'_, Answer> {
            let left = vec![("t".into(), PartitionIndex(0))];
            ready(self.0.lock().pop_front().unwrap_or(Ok(left))).boxed()
        }
    }

    fn hand_over(brokers: &[i32], answers: impl IntoIterator<Item = Answer>) -> (HandOver, Arc<Controller>) {
        let image = Arc::new(ImagePublisher::default());
        let live = |id: &i32| LiveBroker { id: BrokerId(*id), endpoints: vec![], rack: None };
        let (controller_epoch, broker_epoch) = (ControllerEpoch(1), BrokerEpoch(1));
        image.apply(&UpdateMetadata {
            head: ControlHead { controller: BrokerId(2), controller_epoch, broker_epoch },
            topics: vec![],
            live_brokers: brokers.iter().map(live).collect(),
        });
        let controller = Arc::new(Controller(Mutex::new(answers.into_iter().collect())));
        let epoch = SharedBrokerEpoch::default();
        let patience = Duration::from_secs(15);
        let link = Arc::clone(&controller) as Arc<dyn ShutdownLink>;
        (HandOver { me: BrokerId(1), epoch, image, controller: link, patience }, controller)
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_asked_until_nothing_is_left_and_no_longer_than_the_settings_say() {
        let some = || Ok(vec![("t".into(), PartitionIndex(0))]);
        let (moves, controller) = hand_over(&[1, 2], [some(), Err(ControllerError::NotController), Ok(vec![]), some()]);
        moves.run().await;
        assert_eq!(controller.0.lock().len(), 1, "three requests were enough");
        let (stuck, _) = hand_over(&[1, 2], []);
        let begun = Instant::now();
        stuck.run().await;
        assert_eq!(begun.elapsed(), Duration::from_secs(15));
        let (alone, _) = hand_over(&[1], []);
        let begun = Instant::now();
        alone.run().await;
        assert_eq!(begun.elapsed(), Duration::ZERO);
    }
}
