//! What a broker's disk has refused is asked of it again after a while: a log that could not be made, opened or deleted
//! for want of space can be once there is some, without any request for that. A directory that takes no writes until
//! the broker starts anew refuses again, which costs little.
//!
//! Source: ours. In Kafka 3.9 whatever a disk refuses takes its directory offline until the broker starts anew.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::sleep;

use super::event::{Event, Pending};
use crate::types::TopicName;

/// Until the first retry; twice as long until each further one, up to the last.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_DOUBLINGS_MAX: u32 = 6;

/// Whether something is to be asked again, and when.
#[derive(Debug, Default)]
pub(super) struct Retry {
    is_armed: bool,
    failures: u32,
    /// Topics of which was said that they could not be deleted.
    said: BTreeSet<TopicName>,
}

impl Retry {
    /// The event that follows a refusal; `None`: it is on its way already.
    pub(super) fn arm(&mut self) -> Option<Pending> {
        if std::mem::replace(&mut self.is_armed, true) {
            return None;
        }
        let pause = PAUSE * 2_u32.pow(self.failures);
        self.failures = (self.failures + 1).min(PAUSE_DOUBLINGS_MAX);
        Some(Box::pin(async move {
            sleep(pause).await;
            Event::RetryDue
        }))
    }

    /// It has come.
    pub(super) fn disarm(&mut self) {
        self.is_armed = false;
    }

    /// A disk took something that it had refused.
    pub(super) fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// Whether it is news that the topic could not be deleted.
    pub(super) fn is_news(&mut self, topic: &TopicName) -> bool {
        self.said.insert(topic.clone())
    }

    /// Whether it was said of the topic already.
    pub(super) fn was_said(&self, topic: &TopicName) -> bool {
        self.said.contains(topic)
    }

    pub(super) fn deleted(&mut self, topic: &TopicName) {
        if self.said.remove(topic) {
            self.succeeded();
        }
    }
}
