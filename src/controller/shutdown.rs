//! Controlled shutdown: a broker that is about to stop gives its partitions away first.
//!
//! Source: Kafka 3.9 `KafkaController.doControlledShutdown`.

use tracing::info;

use super::asked::StillLed;
use super::fence::Interrupted;
use super::partitions::Cause;
use super::queue::ControlRequest;
use super::term::Term;
use crate::cluster::control::{ControllerError, StopPartition, StopReplica};
use crate::types::{BrokerEpoch, BrokerId, TopicPartition};

impl Term {
    /// Moves what the broker leads to others and takes it out of every ISR. Partitions with one replica stay, and are
    /// not counted. From now on the broker is not elected, until its registration goes.
    pub(super) async fn shut_down_broker(
        &mut self,
        broker: BrokerId,
        epoch: BrokerEpoch,
    ) -> Result<Result<StillLed, ControllerError>, Interrupted> {
        let Some(known) = self.context.brokers.get(&broker).map(|known| known.epoch) else {
            return Ok(Err(ControllerError::BrokerNotAvailable));
        };
        if epoch != BrokerEpoch::NONE && epoch < known {
            info!(%broker, broker_epoch = %epoch, %known, "a shutdown of an earlier registration is refused");
            return Ok(Err(ControllerError::StaleBrokerEpoch));
        }
        if self.context.shutting_down.insert(broker) {
            info!(%broker, "shutting down");
        }
        let hosted = self.context.select(|name, partition| {
            partition.replicas.all.len() > 1
                && partition.replicas.all.contains(&broker)
                && partition.state.is_some()
                && !self.context.is_being_deleted(&name.topic)
        });
        let (led, followed): (Vec<_>, Vec<_>) = hosted.into_iter().partition(|name| self.leads(broker, name));
        let moved = self.settle_for(Cause::ControlledShutdown, led.clone()).await?;
        // The former leader hears of it as well: it has to stop leading.
        self.announce_to(&moved, false, |id, name| self.context.is_alive(id, name));
        self.stop_following(broker, &followed);
        let left = self.settle(followed).await?;
        self.announce(&left, false);
        let still_led: StillLed = led
            .into_iter()
            .filter(|name| self.leads(broker, name))
            .map(|TopicPartition { topic, partition }| (topic, partition))
            .collect();
        info!(%broker, moved = moved.len(), left = left.len(), still_led = still_led.len(), "gave its partitions away");
        Ok(Ok(still_led))
    }

    fn leads(&self, broker: BrokerId, name: &TopicPartition) -> bool {
        let partition = self.context.partition(name);
        partition.and_then(|found| found.state.as_ref()).is_some_and(|led| led.node.leader == Some(broker))
    }

    /// Its followers end before it leaves the ISRs, so that it does not come back to them at once.
    fn stop_following(&self, broker: BrokerId, followed: &[TopicPartition]) {
        let Some(head) = self.head(broker).filter(|_| !followed.is_empty()) else { return };
        let stop = |name: &TopicPartition| {
            let led = self.context.partition(name)?.state.as_ref()?;
            Some(StopPartition {
                topic: name.topic.clone(),
                partition: name.partition,
                leader_epoch: Some(led.node.leader_epoch),
                delete: false,
            })
        };
        let partitions = followed.iter().filter_map(stop).collect();
        self.channels.send(broker, ControlRequest::StopReplica(StopReplica { head, partitions }));
    }
}
