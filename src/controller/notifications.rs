//! Notes that brokers leave for the controller: ISRs that old leaders changed themselves, log directories that failed.
//!
//! Source: Kafka 3.9 `KafkaController.processIsrChangeNotification`, `processLogDirEventNotification`.

use std::collections::BTreeSet;

use tracing::warn;

use super::event::Event;
use super::fence::Interrupted;
use super::term::Term;
use crate::cluster::znodes::notifications::{self, ISR_CHANGES, LOG_DIR_EVENTS};
use crate::coordination::Op;

impl Term {
    /// Reads the changed states again and tells every broker.
    pub(super) async fn on_isr_notified(&mut self) -> Result<(), Interrupted> {
        let (names, changed) = self.store.children_and_watch(ISR_CHANGES).await?;
        self.watch(changed, Event::IsrNotified);
        let mut partitions = BTreeSet::new();
        for path in names.iter().map(|name| format!("{ISR_CHANGES}/{name}")) {
            let Some((data, _)) = self.store.get(&path).await? else { continue };
            match notifications::decode_isr_change(&path, &data) {
                Ok(found) => partitions.extend(found.into_iter().map(|name| (name.topic, name.partition))),
                Err(error) => warn!(%error, "skipped"),
            }
        }
        let changed = self.context.select(|name, _| partitions.contains(&(name.topic.clone(), name.partition)));
        self.read_states(changed.clone()).await?;
        if !changed.is_empty() {
            self.send_metadata(self.context.brokers.keys().copied(), &changed, &[]);
        }
        self.on_isrs_changed(changed).await?;
        self.delete_notes(ISR_CHANGES, names).await
    }

    /// Sends the broker all its roles again: its answer tells which replicas it lost.
    pub(super) async fn on_log_dir_notified(&mut self) -> Result<(), Interrupted> {
        let (names, changed) = self.store.children_and_watch(LOG_DIR_EVENTS).await?;
        self.watch(changed, Event::LogDirNotified);
        let mut brokers = BTreeSet::new();
        for path in names.iter().map(|name| format!("{LOG_DIR_EVENTS}/{name}")) {
            let Some((data, _)) = self.store.get(&path).await? else { continue };
            match notifications::decode_log_dir_event(&path, &data) {
                Ok(broker) => {
                    brokers.insert(broker);
                }
                Err(error) => warn!(%error, "skipped"),
            }
        }
        for broker in brokers {
            self.send_hosted(broker);
        }
        self.delete_notes(LOG_DIR_EVENTS, names).await
    }

    pub(super) async fn delete_notes(&self, parent: &str, names: Vec<String>) -> Result<(), Interrupted> {
        let delete = |name: &String| vec![Op::Delete { path: format!("{parent}/{name}"), version: -1 }];
        // One that is gone already was deleted by another controller.
        self.fence.write_all(names.iter().map(delete).collect()).await?;
        Ok(())
    }
}
