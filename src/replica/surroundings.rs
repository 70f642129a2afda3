//! What a replica asks of the world around it: who this broker is, who else is alive, how late it is, how long a
//! follower may lag, and what of it is held back.

use std::sync::Arc;
use std::time::Duration;

use super::throttle::Throttles;
use crate::clock::SharedClock;
use crate::cluster::image::ImagePublisher;
use crate::types::BrokerId;

/// Shared by all replicas of a broker.
#[derive(Debug)]
pub(crate) struct Surroundings {
    pub(crate) me: BrokerId,
    pub(crate) clock: SharedClock,
    pub(crate) image: Arc<ImagePublisher>,
    /// `replica.lag.time.max.ms`.
    pub(crate) lag_max: Duration,
    pub(crate) throttles: Throttles,
}

impl Surroundings {
    /// Whether a broker is alive, as far as the controller has told. One that is shutting down is; the controller
    /// refuses what is not to be. Source: Kafka 3.9 `Partition.isReplicaIsrEligible`.
    pub(crate) fn is_live(&self, broker: BrokerId) -> bool {
        self.image.current().brokers.contains_key(&broker)
    }

    /// By the monotonic clock.
    pub(crate) fn now_ms(&self) -> i64 {
        self.clock.monotonic_ms()
    }

    pub(crate) fn lag_ms(&self) -> i64 {
        i64::try_from(self.lag_max.as_millis()).unwrap_or(i64::MAX)
    }
}
