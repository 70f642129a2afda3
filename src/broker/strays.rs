//! Logs that a start finds on disk and whose topics are gone: deleted, or lost from the tree, while this broker was
//! down. They are kept for `klamm.stray.retention.ms` and come back when their topic does.
//!
//! The coordination tree is asked, never the metadata image: the first image names the live brokers alone, and a topic
//! that is not in it is merely not announced yet. What cannot be read deletes nothing. A log whose topic's name is in
//! the tree is never deleted, whatever id stands there: the node may have been written anew for the same topic.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use crate::clock::{SharedClock, UnixMs};
use crate::cluster::znodes::topics;
use crate::coordination::{CoordinationError, SharedCoordination};
use crate::replica::manager::ReplicaManager;
use crate::replica::stray_logs::{Standing, Stray, Strays};
use crate::storage::PartitionId;
use crate::task;
use crate::types::{TopicId, TopicName};

/// Between two looks, while there is nothing to delete earlier.
const LOOK_MAX: Duration = Duration::from_secs(60 * 60);
/// Between two looks at least.
const LOOK_MIN: Duration = Duration::from_secs(1);
/// Logs that a line names; of more it gives the number.
const NAMED_MAX: usize = 20;

/// Looks after strays as long as the broker runs.
pub(super) async fn watch(
    coordination: SharedCoordination,
    replicas: Arc<ReplicaManager>,
    clock: SharedClock,
    retention_ms: i64,
) {
    let mut told = Vec::new();
    loop {
        let strays = judge(&coordination, &replicas, retention_ms).await;
        let now = clock.now_ms();
        let next = strays.kept.iter().filter_map(|stray| stray.until).min();
        tell(strays, &mut told, now);
        let wait = next.map_or(LOOK_MAX, |next| Duration::from_millis(next.saturating_sub(now).max(0).unsigned_abs()));
        tokio::time::sleep(wait.clamp(LOOK_MIN, LOOK_MAX)).await;
    }
}

/// One look. A tree that cannot be read gives no strays.
async fn judge(coordination: &SharedCoordination, replicas: &Arc<ReplicaManager>, retention_ms: i64) -> Strays {
    let unopened = replicas.unopened_topics();
    if unopened.is_empty() {
        return Strays::default();
    }
    let topics = match known_topics(coordination, |topic| unopened.contains(topic)).await {
        Ok(topics) => topics,
        Err(error) => {
            warn!(%error, "logs of topics that may no longer exist are kept");
            return Strays::default();
        }
    };
    // A log found since the tree was read is judged by the next look.
    let standing = move |id: &PartitionId| match topics.get(&id.topic) {
        None if unopened.contains(&id.topic) => Standing::Gone,
        None | Some(None) => Standing::Known,
        Some(Some(known)) if *known == id.topic_id => Standing::Known,
        Some(Some(_)) => Standing::Replaced,
    };
    let replicas = Arc::clone(replicas);
    task::blocking(move || replicas.judge_strays(standing, retention_ms)).await
}

/// Topics of these names; `None` for an id that is not there or cannot be read, and then any log of that name may be
/// its.
async fn known_topics(
    coordination: &SharedCoordination,
    wanted: impl Fn(&TopicName) -> bool,
) -> Result<HashMap<TopicName, Option<TopicId>>, CoordinationError> {
    let mut known = HashMap::new();
    for name in coordination.children(topics::TOPICS).await? {
        let topic = TopicName::new(&name);
        if !wanted(&topic) {
            continue;
        }
        // One that went after the list was read is known until the next look.
        let node = coordination.get(&topics::path(&name)).await?;
        let id = node.and_then(|(data, _)| topics::decode(&name, &data).ok()).and_then(|node| node.id);
        known.insert(topic, id);
    }
    Ok(known)
}

/// Says what was done, and once what is kept and how it comes back.
fn tell(strays: Strays, told: &mut Vec<Stray>, now: UnixMs) {
    for (PartitionId { topic, partition, topic_id }, failure) in &strays.failed {
        warn!(%topic, %partition, %topic_id, %failure, "the log of a topic that no longer exists stays as it is");
    }
    if !strays.deleted.is_empty() {
        let logs = names(strays.deleted.iter());
        info!(count = strays.deleted.len(), logs, "deleted logs of topics that no longer exist");
    }
    if strays.kept != *told && !strays.kept.is_empty() {
        let left = strays.kept.iter().filter_map(|stray| stray.until).min();
        let hours = left.map_or_else(|| "none".into(), |until| ((until - now).max(0) / 3_600_000).to_string());
        let logs = names(strays.kept.iter().map(|stray| &stray.id));
        warn!(
            count = strays.kept.len(),
            logs,
            hours_until_the_first_is_deleted = hours,
            "logs on disk are of topics that the cluster does not have; they are kept for klamm.stray.retention.ms, and \
             as long as another topic has the name, and come back when /brokers/topics/<topic> has that topic_id again"
        );
    }
    *told = strays.kept;
}

fn names<'a>(ids: impl ExactSizeIterator<Item = &'a PartitionId>) -> String {
    let mut text = String::new();
    let more = ids.len().saturating_sub(NAMED_MAX);
    for PartitionId { topic, partition, topic_id } in ids.take(NAMED_MAX) {
        let comma = if text.is_empty() { "" } else { ", " };
        write!(text, "{comma}{topic}-{partition} (topic_id {topic_id})").expect("a String takes everything");
    }
    if more > 0 {
        write!(text, " and {more} more").expect("a String takes everything");
    }
    text
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::clock::testing::ManualClock;
    use crate::cluster::control::LogInventory;
    use crate::coordination::embedded::EmbeddedCoordination;
    use crate::coordination::embedded::testing::TreeDir;
    use crate::coordination::{Coordination, CreateMode, ensure_path};
    use crate::log::config::LogConfig;
    use crate::log::reading::tail::Tail;
    use crate::replica::manager::{ReplicaConfig, ReplicaDir, WantedReplica};
    use crate::storage::LogDir;
    use crate::storage::testing::faulty::FaultyDir;
    use crate::storage::testing::memory::MemoryDir;
    use crate::types::{BrokerId, PartitionIndex};

    const DAY_MS: i64 = 86_400_000;

    fn id(number: u128) -> TopicId {
        TopicId::from_random(number << 64 | 7).expect("not one of the reserved ids")
    }

    fn log(topic: &str, number: u128) -> PartitionId {
        PartitionId { topic: topic.into(), topic_id: id(number), partition: PartitionIndex(0) }
    }

    fn manager(dir: Arc<dyn LogDir>, clock: &Arc<ManualClock>) -> Arc<ReplicaManager> {
        let config = |_: &TopicName| ReplicaConfig { log: LogConfig::default(), min_insync_replicas: 1 };
        let dirs = vec![ReplicaDir { dir, tail: Tail::new(0), may_lack_ends: false, configured: None }];
        ReplicaManager::new(crate::replica::testing::alone(BrokerId(1), Arc::clone(clock) as _), dirs, Arc::new(config))
            .expect("readable")
    }

    /// A directory with a log of each topic, as a start finds it: no request has opened any, and there is no image.
    fn found(topics: &[&str]) -> (Arc<MemoryDir>, Arc<ManualClock>, Arc<ReplicaManager>) {
        let dir = MemoryDir::open();
        dir.create(&topics.iter().map(|topic| log(topic, 1)).collect::<Vec<_>>()).expect("made");
        let clock = Arc::new(ManualClock::new(0, 1));
        let replicas = manager(Arc::clone(&dir) as _, &clock);
        (dir, clock, replicas)
    }

    fn left(dir: &MemoryDir) -> Vec<String> {
        dir.partitions().into_iter().map(|(id, _)| id.topic.to_string()).collect()
    }

    fn topics_of(strays: &Strays) -> (Vec<String>, Vec<String>) {
        let kept = strays.kept.iter().map(|stray| stray.id.topic.to_string()).collect();
        (kept, strays.deleted.iter().map(|id| id.topic.to_string()).collect())
    }

    async fn tree(nodes: &[(&str, Bytes)]) -> Arc<EmbeddedCoordination> {
        let store = TreeDir::new().store();
        ensure_path(&*store, topics::TOPICS).await.expect("made");
        for (name, data) in nodes {
            store.create(&topics::path(name), data.clone(), CreateMode::Persistent).await.expect("made");
        }
        store
    }

    fn node(id: Option<TopicId>) -> Bytes {
        topics::encode(&topics::TopicNode { id, ..topics::TopicNode::default() })
    }

    fn strings(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[tokio::test]
    async fn the_tree_alone_decides_and_nothing_whose_name_is_there_is_ever_deleted() {
        let store = tree(&[
            ("anew", node(Some(id(2)))),
            ("by-hand", node(None)),
            ("known", node(Some(id(1)))),
            ("unreadable", Bytes::from_static(b"rubbish")),
        ])
        .await;
        let store: SharedCoordination = store;
        let (dir, clock, replicas) = found(&["anew", "by-hand", "gone", "known", "unreadable"]);
        let strays = judge(&store, &replicas, DAY_MS).await;
        assert_eq!(topics_of(&strays), (strings(&["anew", "gone"]), vec![]));
        assert_eq!(strays.kept.iter().map(|stray| stray.until).collect::<Vec<_>>(), [None, Some(DAY_MS)]);
        clock.advance(DAY_MS - 1);
        assert_eq!(judge(&store, &replicas, DAY_MS).await.deleted, []);
        clock.advance(1);
        assert_eq!(topics_of(&judge(&store, &replicas, DAY_MS).await), (strings(&["anew"]), strings(&["gone"])));
        clock.advance(100 * DAY_MS);
        assert_eq!(judge(&store, &replicas, DAY_MS).await.deleted, []);
        assert_eq!(left(&dir), ["anew", "by-hand", "known", "unreadable"]);
    }

    #[tokio::test]
    async fn when_a_log_became_a_stray_survives_a_restart_and_ends_with_its_topics_return() {
        let store = tree(&[]).await;
        let tree: SharedCoordination = Arc::clone(&store) as _;
        let (dir, clock, replicas) = found(&["t"]);
        assert_eq!(judge(&tree, &replicas, DAY_MS).await.kept.len(), 1);
        clock.advance(DAY_MS - 1);
        let replicas = manager(dir.reopen(), &clock);
        assert_eq!(judge(&tree, &replicas, DAY_MS).await.kept[0].since, 0);
        // Its topic is back for a moment, and counts as new when it goes once more.
        store.create(&topics::path("t"), node(Some(id(1))), CreateMode::Persistent).await.expect("made");
        assert_eq!(judge(&tree, &replicas, DAY_MS).await.kept, []);
        store.delete(&topics::path("t"), -1).await.expect("deleted");
        clock.advance(1);
        let replicas = manager(dir.reopen(), &clock);
        assert_eq!(judge(&tree, &replicas, DAY_MS).await.kept[0].since, DAY_MS);
        clock.advance(DAY_MS);
        let replicas = manager(dir.reopen(), &clock);
        assert_eq!(topics_of(&judge(&tree, &replicas, DAY_MS).await), (vec![], strings(&["t"])));
        dir.create(&[log("t", 1)]).expect("made anew");
        let replicas = manager(dir.reopen(), &clock);
        assert_eq!(judge(&tree, &replicas, DAY_MS).await.kept[0].since, 2 * DAY_MS, "the mark went with the log");
    }

    #[tokio::test]
    async fn a_stray_that_is_opened_is_none_any_more() {
        let store: SharedCoordination = tree(&[]).await;
        let (dir, clock, replicas) = found(&["t"]);
        assert_eq!(judge(&store, &replicas, DAY_MS).await.kept.len(), 1);
        assert_eq!(replicas.topic_id(&"t".into()), Some(id(1)), "a topic that comes back without an id finds it");
        let wanted = WantedReplica { id: log("t", 1), is_new: false };
        let opened = replicas.open(&[wanted]);
        opened.into_iter().for_each(|opened| drop(opened.expect("opens")));
        clock.advance(DAY_MS);
        assert_eq!(topics_of(&judge(&store, &replicas, DAY_MS).await), (vec![], vec![]));
        let replicas = manager(dir.reopen(), &clock);
        assert_eq!(judge(&store, &replicas, DAY_MS).await.kept[0].since, DAY_MS, "the mark is gone");
    }

    #[tokio::test]
    async fn a_mark_or_a_deletion_that_is_not_written_is_tried_again() {
        let store: SharedCoordination = tree(&[]).await;
        let (dir, clock, _) = found(&["t"]);
        let (faulty, faults) = FaultyDir::around(Arc::clone(&dir) as _);
        let replicas = manager(faulty, &clock);
        faults.fail_commit(0);
        let strays = judge(&store, &replicas, DAY_MS).await;
        assert_eq!((strays.kept.len(), strays.failed.len()), (0, 1), "not marked, so not counted");
        let (faulty, faults) = FaultyDir::around(dir.reopen());
        let replicas = manager(faulty, &clock);
        assert_eq!(judge(&store, &replicas, DAY_MS).await.kept.len(), 1);
        clock.advance(DAY_MS);
        faults.fail_commit(0);
        // One that takes no writes refuses deletions as well.
        let _ = crate::storage::commit(&*replicas.dirs().next().expect("one").clone(), Default::default()).await;
        assert_eq!(judge(&store, &replicas, DAY_MS).await.failed.len(), 1);
        assert_eq!(left(&dir), ["t"]);
    }

    #[tokio::test]
    async fn nothing_goes_when_the_tree_cannot_be_read() {
        let store = TreeDir::new().store();
        let tree: SharedCoordination = Arc::clone(&store) as _;
        let (dir, _, replicas) = found(&["a"]);
        assert_eq!(judge(&tree, &replicas, 0).await.kept, [], "there is not even a list of topics");
        ensure_path(&*store, topics::TOPICS).await.expect("made");
        store.expire().await;
        assert_eq!(judge(&tree, &replicas, 0).await.deleted, [], "the session is gone");
        assert_eq!(left(&dir), ["a"]);
    }
}
