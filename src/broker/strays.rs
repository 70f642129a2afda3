//! Logs that a start finds on disk and whose topics are gone: deleted while this broker was down.
//!
//! The coordination tree is asked, never the metadata image: the first image names the live brokers alone, and a topic
//! that is not in it is merely not announced yet. What cannot be read deletes nothing.

use std::collections::HashMap;
use std::sync::Arc;

use tracing::{info, warn};

use crate::cluster::znodes::topics;
use crate::coordination::{CoordinationError, SharedCoordination};
use crate::replica::manager::ReplicaManager;
use crate::task;
use crate::types::{TopicId, TopicName};

/// Deletes logs of topics that no longer exist, or exist anew under another id.
pub(super) async fn delete(coordination: SharedCoordination, replicas: Arc<ReplicaManager>) {
    let topics = match known_topics(&coordination).await {
        Ok(topics) => topics,
        Err(error) => return warn!(%error, "logs of topics that no longer exist are kept"),
    };
    let known = move |topic: &TopicName, id: TopicId| {
        topics.get(topic).is_some_and(|known| known.is_none_or(|known| known == id))
    };
    match task::blocking(move || replicas.delete_strays(known)).await {
        Ok(0) => {}
        Ok(count) => info!(count, "deleted logs of topics that no longer exist"),
        Err(failure) => warn!(%failure, "logs of topics that no longer exist could not be deleted"),
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::clock::ManualClock;
    use crate::coordination::embedded::test_dir::TreeDir;
    use crate::coordination::{Coordination, CreateMode, ensure_path};
    use crate::log::config::LogConfig;
    use crate::log::tail::Tail;
    use crate::replica::manager::ReplicaConfig;
    use crate::storage::memory::MemoryDir;
    use crate::storage::{LogDir, PartitionId};
    use crate::types::{BrokerId, PartitionIndex};

    fn id(number: u128) -> TopicId {
        TopicId::from_random(number << 64 | 7).expect("not one of the reserved ids")
    }

    /// A directory with a log of each topic, as a start finds it: no request has opened any, and there is no image.
    fn found(topics: &[&str]) -> (Arc<MemoryDir>, Arc<ReplicaManager>) {
        let dir = MemoryDir::open();
        let logs = topics.iter().map(|&topic| PartitionId {
            topic: topic.into(),
            topic_id: id(1),
            partition: PartitionIndex(0),
        });
        dir.create(&logs.collect::<Vec<_>>()).expect("made");
        let config = |_: &TopicName| ReplicaConfig { log: LogConfig::default(), min_insync_replicas: 1 };
        let dirs = vec![(Arc::clone(&dir) as _, Tail::new(0))];
        let replicas = ReplicaManager::new(BrokerId(1), dirs, Arc::new(ManualClock::new(0, 1)), Arc::new(config));
        (dir, replicas)
    }

    fn left(dir: &MemoryDir) -> Vec<String> {
        dir.partitions().into_iter().map(|(id, _)| id.topic.to_string()).collect()
    }

    #[tokio::test]
    async fn the_tree_alone_decides_which_logs_go() {
        let store = TreeDir::new().store();
        ensure_path(&*store, topics::TOPICS).await.expect("made");
        let node = |id| topics::encode(&topics::TopicNode { id, ..topics::TopicNode::default() });
        let nodes = [
            ("anew", node(Some(id(2)))),
            ("by-hand", node(None)),
            ("known", node(Some(id(1)))),
            ("unreadable", Bytes::from_static(b"rubbish")),
        ];
        for (name, data) in nodes {
            store.create(&topics::path(name), data, CreateMode::Persistent).await.expect("made");
        }
        let (dir, replicas) = found(&["anew", "by-hand", "gone", "known", "unreadable"]);
        delete(store, replicas).await;
        assert_eq!(left(&dir), ["by-hand", "known", "unreadable"]);
    }

    #[tokio::test]
    async fn nothing_goes_when_the_tree_cannot_be_read() {
        let store = TreeDir::new().store();
        let (dir, replicas) = found(&["a"]);
        delete(Arc::clone(&store) as _, Arc::clone(&replicas)).await;
        assert_eq!(left(&dir), ["a"], "there is not even a list of topics");
        ensure_path(&*store, topics::TOPICS).await.expect("made");
        store.expire().await;
        delete(store, replicas).await;
        assert_eq!(left(&dir), ["a"], "the session is gone");
    }
}
