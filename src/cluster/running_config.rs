//! This broker's settings as they are now: those it was started with, under what `/config/brokers` says.
//!
//! What follows from a setting asks for it when it is needed, or subscribes. A setting that does not change while a
//! broker runs never differs from the start, whatever stands in the store. Source: Kafka 3.9 `DynamicBrokerConfig`.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::dynamic_config::BrokerOverrides;
use crate::config::Config;

#[derive(Debug)]
pub(crate) struct RunningConfig {
    now: watch::Sender<Arc<Config>>,
    /// The values that were last looked at, legal or not.
    seen: Mutex<BrokerOverrides>,
}

impl RunningConfig {
    /// Nothing has changed since the start.
    pub(crate) fn new(started: Arc<Config>) -> Arc<Self> {
        Arc::new(Self { now: watch::Sender::new(started), seen: Mutex::default() })
    }

    pub(crate) fn current(&self) -> Arc<Config> {
        self.now.borrow().clone()
    }

    /// Wakes at every change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<Arc<Config>> {
        self.now.subscribe()
    }

    /// Takes the values of brokers over, unless they are what was seen last. Values that are not legal, which only
    /// somebody else can have stored, are said and change nothing.
    pub(crate) fn apply(&self, found: BrokerOverrides) {
        let mut seen = self.seen.lock();
        if *seen == found {
            return;
        }
        let current = self.current();
        let [all, own] = [&found.all, &found.own].map(|stored| {
            let (values, undecodable) = current.decoded((**stored).clone());
            for name in undecodable {
                error!("Dynamic password config {name} could not be decoded, ignoring.");
            }
            values
        });
        match current.with_dynamic(all, own) {
            Ok(config) => {
                for line in config.dynamic_lines() {
                    info!("{line}");
                }
                for line in config.dynamic_warnings() {
                    warn!("{line}");
                }
                self.now.send_replace(Arc::new(config));
            }
            Err(error) => error!(%error, "dynamic broker configs could not be applied"),
        }
        *seen = found;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Inputs, Machine};

    fn set(all: &[(&str, &str)], own: &[(&str, &str)]) -> BrokerOverrides {
        let overrides = |values: &[(&str, &str)]| {
            Arc::new(values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
        };
        BrokerOverrides { own: overrides(own), all: overrides(all) }
    }

    fn running() -> Arc<RunningConfig> {
        RunningConfig::new(Arc::new(Config::load(&Inputs::default(), Machine::for_test()).unwrap()))
    }

    #[test]
    fn a_brokers_own_value_wins_and_its_absence_brings_the_other_back() {
        let running = running();
        let mut changes = running.subscribe();
        running.apply(set(&[("message.max.bytes", "5000")], &[("message.max.bytes", "6000")]));
        assert!(changes.has_changed().unwrap());
        assert_eq!(running.current().topic_defaults.max_message_bytes, 6000);
        running.apply(set(&[("message.max.bytes", "5000")], &[]));
        assert_eq!(running.current().topic_defaults.max_message_bytes, 5000);
        changes.mark_unchanged();
        running.apply(set(&[("message.max.bytes", "5000")], &[]));
        assert!(!changes.has_changed().unwrap(), "nothing new");
        running.apply(set(&[], &[]));
        assert_eq!(running.current().topic_defaults.max_message_bytes, 1_048_588);
    }

    #[test]
    fn what_is_not_legal_or_cannot_change_leaves_everything_as_it_was() {
        let running = running();
        running.apply(set(&[("message.max.bytes", "many")], &[]));
        running.apply(set(&[("num.partitions", "7"), ("listeners", "PLAINTEXT://:1")], &[("broker.id", "9")]));
        let now = running.current();
        assert_eq!((now.num_partitions, now.topic_defaults.max_message_bytes), (1, 1_048_588));
        assert_eq!((now.broker_id, now.listeners[0].port), (None, 9092));
    }
}
