//! The life of the notes by which brokers tell each other what has changed.
//!
//! A note stays for 15 minutes, so that whoever was away for less reads it. Who sees it that long deletes it, whoever
//! wrote it. Source: Kafka 3.9 `ZkNodeChangeNotificationListener.purgeObsoleteNotifications`.

use std::collections::BTreeMap;

use crate::clock::UnixMs;
use crate::coordination::{Coordination, CoordinationError};

/// How long a note stays.
pub(super) const CHANGE_LIFE_MS: i64 = 15 * 60 * 1000;

/// When this process first saw each note of one folder that is still there.
#[derive(Debug, Default)]
pub(super) struct SeenNotes(BTreeMap<String, UnixMs>);

impl SeenNotes {
    /// Deletes those of these notes that this process has known for longer than they live. `folder` is their node.
    pub(super) async fn purge(
        &mut self,
        store: &dyn Coordination,
        folder: &str,
        names: Vec<String>,
        now: UnixMs,
    ) -> Result<(), CoordinationError> {
        let old = std::mem::take(&mut self.0);
        for name in names {
            let seen = old.get(&name).copied().unwrap_or(now);
            if now - seen <= CHANGE_LIFE_MS {
                self.0.insert(name, seen);
                continue;
            }
            match store.delete(&format!("{folder}/{name}"), -1).await {
                Ok(()) | Err(CoordinationError::NoNode(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
