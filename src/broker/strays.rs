//! Logs that a start finds on disk and whose topics are gone: deleted while this broker was down.
//!
//! The coordination tree is asked, never the metadata image: the first image names the live brokers alone, and a topic
//! that is not in it is merely not announced yet. What cannot be read deletes nothing.

use std::collections::HashMap;
use std::sync::Arc;

use tracing::warn;

use crate::cluster::znodes::topics;
use crate::coordination::{CoordinationError, SharedCoordination};
use crate::replica::control::ReplicaControl;
use crate::types::{TopicId, TopicName};

/// Deletes logs of topics that no longer exist, or exist anew under another id.
pub(super) async fn delete(coordination: SharedCoordination, control: Arc<ReplicaControl>) {
    match known_topics(&coordination).await {
        Ok(known) => control.delete_strays(known).await,
        Err(error) => warn!(%error, "logs of topics that no longer exist are kept"),
    }
}

/// All topics; `None` for an id that is not there or cannot be read, and then any log of that name may be its.
async fn known_topics(
    coordination: &SharedCoordination,
) -> Result<HashMap<TopicName, Option<TopicId>>, CoordinationError> {
    let mut known = HashMap::new();
    for name in coordination.children(topics::TOPICS).await? {
        if let Some((data, _)) = coordination.get(&topics::path(&name)).await? {
            let id = topics::decode(&name, &data).ok().and_then(|node| node.id);
            known.insert(TopicName::new(&name), id);
        }
    }
    Ok(known)
}
