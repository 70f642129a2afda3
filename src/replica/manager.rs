//! The registry of partition replicas of this broker, and how they come and go.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tracing::{info, warn};

use super::change::{ChangeError, Changed};
use super::flush::FlushTimer;
use super::partition::{Partition, Upkeep};
use crate::clock::SharedClock;
use crate::log::config::LogConfig;
use crate::log::partition_log::PartitionLog;
use crate::log::tail::Tail;
use crate::storage::{self, Family, PartitionId, SharedLogDir, StorageError};
use crate::types::{BrokerId, PartitionIndex, TopicId, TopicName};

/// Settings of one topic that a replica needs.
#[derive(Debug, Clone)]
pub(crate) struct ReplicaConfig {
    pub(crate) log: LogConfig,
    pub(crate) min_insync_replicas: usize,
}

/// Where a topic's effective settings come from; asked when a log is opened and when they change.
pub(crate) type ConfigOf = Arc<dyn Fn(&TopicName) -> ReplicaConfig + Send + Sync>;

type Registry = HashMap<TopicName, BTreeMap<PartitionIndex, Arc<Partition>>>;

/// All partition replicas of this broker.
pub(crate) struct ReplicaManager {
    pub(crate) me: BrokerId,
    dirs: Vec<(SharedLogDir, Arc<Tail>)>,
    /// Those of `dirs`, in their order.
    pub(super) flush_timers: Vec<Arc<FlushTimer>>,
    clock: SharedClock,
    config_of: ConfigOf,
    partitions: RwLock<Registry>,
    /// Logs found on disk at start that no LeaderAndIsr has named yet.
    found: Mutex<HashMap<PartitionId, (usize, Family)>>,
    /// Told when a segment of a compacted log was closed.
    pub(super) cleaner: Arc<Notify>,
}

impl std::fmt::Debug for ReplicaManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicaManager").field("me", &self.me).finish_non_exhaustive()
    }
}

impl ReplicaManager {
    /// A manager over open log directories. Logs are opened when LeaderAndIsr names them.
    pub(crate) fn new(
        me: BrokerId,
        dirs: Vec<(SharedLogDir, Arc<Tail>)>,
        clock: SharedClock,
        config_of: ConfigOf,
    ) -> Arc<Self> {
        let found = dirs
            .iter()
            .enumerate()
            .flat_map(|(at, (dir, _))| dir.partitions().into_iter().map(move |(id, family)| (id, (at, family))))
            .collect();
        let flush_timers = dirs.iter().map(|(dir, _)| FlushTimer::new(Arc::clone(dir))).collect();
        Arc::new(Self {
            me,
            dirs,
            flush_timers,
            clock,
            config_of,
            partitions: RwLock::default(),
            found: Mutex::new(found),
            cleaner: Arc::default(),
        })
    }

    /// The partition, if this broker has a replica of it.
    pub(crate) fn get(&self, topic: &str, partition: PartitionIndex) -> Option<Arc<Partition>> {
        self.partitions.read().get(topic)?.get(&partition).cloned()
    }

    /// Every replica, for periodic work.
    pub(crate) fn all(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().values().flat_map(|topic| topic.values().cloned()).collect()
    }

    /// Replicas of one topic.
    pub(crate) fn of_topic(&self, topic: &str) -> Vec<Arc<Partition>> {
        self.partitions.read().get(topic).map(|topic| topic.values().cloned().collect()).unwrap_or_default()
    }

    /// Directories, for orderly stop.
    pub(crate) fn dirs(&self) -> impl Iterator<Item = &SharedLogDir> {
        self.dirs.iter().map(|(dir, _)| dir)
    }

    /// Opens the logs of these partitions, making those that do not exist, in one step per directory. Blocking.
    /// An older incarnation of a topic of the same name is deleted first.
    pub(crate) fn open(&self, wanted: &[PartitionId]) -> Result<(), StorageError> {
        let missing: Vec<&PartitionId> = {
            let known = self.partitions.read();
            wanted
                .iter()
                .filter(|id| {
                    known
                        .get(&id.topic)
                        .and_then(|topic| topic.get(&id.partition))
                        .is_none_or(|partition| partition.id.topic_id != id.topic_id)
                })
                .collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        self.delete_older_incarnations(&missing)?;
        let mut by_dir: Vec<Vec<PartitionId>> = vec![Vec::new(); self.dirs.len()];
        {
            let mut found = self.found.lock();
            let mut load: Vec<usize> = vec![0; self.dirs.len()];
            for partition in self.partitions.read().values().flat_map(BTreeMap::values) {
                if let Some(at) = self.dirs.iter().position(|(dir, _)| dir.path() == partition.dir_path()) {
                    load[at] += 1;
                }
            }
            for id in missing {
                // A new log goes where there are fewest, as in Kafka's LogManager.nextLogDirs.
                let at = found.remove(id).map_or_else(
                    || (0..load.len()).min_by_key(|&at| load[at]).expect("a broker has at least one log directory"),
                    |(at, _)| at,
                );
                load[at] += 1;
                by_dir[at].push(id.clone());
            }
        }
        for (at, ids) in by_dir.into_iter().enumerate().filter(|(_, ids)| !ids.is_empty()) {
            self.open_in(at, &ids)?;
        }
        Ok(())
    }

    fn open_in(&self, at: usize, ids: &[PartitionId]) -> Result<(), StorageError> {
        let (dir, tail) = &self.dirs[at];
        let families = dir.create(ids)?;
        let mut opened = Vec::with_capacity(ids.len());
        let mut configs: HashMap<TopicName, ReplicaConfig> = HashMap::new();
        for (id, family) in ids.iter().zip(families) {
            let config = configs.entry(id.topic.clone()).or_insert_with(|| (self.config_of)(&id.topic)).clone();
            let now = self.clock.now_ms();
            let log = PartitionLog::open(Arc::clone(dir), id.clone(), family, config.log, Arc::clone(tail), now)?;
            let (cleaner, flush) = (Arc::clone(&self.cleaner), Arc::clone(&self.flush_timers[at]));
            let upkeep = Upkeep { cleaner, flush };
            let partition = Partition::new(self.me, id.clone(), family, Arc::clone(dir), Arc::clone(tail), upkeep, log);
            partition.set_config(config.log, config.min_insync_replicas);
            opened.push(partition);
        }
        let mut partitions = self.partitions.write();
        for partition in opened {
            let topic = partitions.entry(partition.id.topic.clone()).or_default();
            topic.insert(partition.id.partition, partition);
        }
        Ok(())
    }

    fn delete_older_incarnations(&self, wanted: &[&PartitionId]) -> Result<(), StorageError> {
        let mut older = Vec::new();
        {
            let partitions = self.partitions.read();
            for id in wanted {
                if let Some(known) = partitions.get(&id.topic).and_then(|topic| topic.get(&id.partition)) {
                    older.push(Arc::clone(known));
                }
            }
        }
        if !older.is_empty() {
            info!(count = older.len(), "deleting partitions of topics that were made anew under the same name");
            self.delete(&older)?;
        }
        Ok(())
    }

    /// Stops and deletes replicas. Blocking. Parked fetches wake and find the partition gone.
    pub(crate) fn delete(&self, doomed: &[Arc<Partition>]) -> Result<(), StorageError> {
        {
            let mut partitions = self.partitions.write();
            for partition in doomed {
                if let Some(topic) = partitions.get_mut(&partition.id.topic) {
                    if topic.get(&partition.id.partition).is_some_and(|known| Arc::ptr_eq(known, partition)) {
                        topic.remove(&partition.id.partition);
                    }
                    if topic.is_empty() {
                        partitions.remove(&partition.id.topic);
                    }
                }
            }
        }
        for partition in doomed {
            partition.close();
            // A fetch under way must not answer with bytes of the family's next owner.
            partition.with_log(PartitionLog::close);
        }
        for (dir, _) in &self.dirs {
            let ids: Vec<PartitionId> =
                doomed.iter().filter(|p| p.dir_path() == dir.path()).map(|p| p.id.clone()).collect();
            if !ids.is_empty() {
                // Whatever was queued for them is written before the wipe, or the wipe would leave it behind.
                storage::barrier(&**dir)?;
                dir.delete(&ids)?;
            }
        }
        Ok(())
    }

    /// Deletes logs on disk that belong to topics the cluster no longer has: `is_known` answers for a topic id.
    /// Called once at the start, with what the coordination tree says. Source: Kafka 3.9 `LogManager.deleteStrayLogs`
    /// in spirit.
    pub(crate) fn delete_strays(&self, is_known: impl Fn(&TopicName, TopicId) -> bool) -> Result<usize, StorageError> {
        let strays: Vec<(PartitionId, usize)> = {
            let mut found = self.found.lock();
            let strays: Vec<_> = found
                .iter()
                .filter(|(id, _)| !is_known(&id.topic, id.topic_id))
                .map(|(id, (at, _))| (id.clone(), *at))
                .collect();
            for (id, _) in &strays {
                found.remove(id);
            }
            strays
        };
        for (at, (dir, _)) in self.dirs.iter().enumerate() {
            let ids: Vec<PartitionId> =
                strays.iter().filter(|(_, place)| *place == at).map(|(id, _)| id.clone()).collect();
            if !ids.is_empty() {
                dir.delete(&ids)?;
            }
        }
        Ok(strays.len())
    }

    /// Settings of a topic changed.
    pub(crate) fn reconfigure(&self, topic: &TopicName) {
        let replicas = self.of_topic(topic.as_str());
        if replicas.is_empty() {
            return;
        }
        let config = (self.config_of)(topic);
        for partition in replicas {
            partition.set_config(config.log, config.min_insync_replicas);
        }
    }

    /// Applies what all topics' settings depend on.
    pub(crate) fn reconfigure_all(&self) {
        let topics: HashSet<TopicName> = self.all().iter().map(|replica| replica.id.topic.clone()).collect();
        for topic in &topics {
            self.reconfigure(topic);
        }
    }

    /// Stops every replica, for an orderly end. The next start then has no batch headers to read, but for those whose
    /// checkpoint could not be written. Blocking.
    pub(crate) fn close(&self) {
        let mut checkpoints = Vec::new();
        for partition in self.all() {
            let recorded = partition.change_log(|log, _, writes| log.checkpoint(writes));
            partition.close();
            checkpoints.push((partition, recorded));
        }
        let mut failures = Vec::new();
        for (partition, recorded) in checkpoints {
            match recorded.and_then(Changed::written) {
                Ok(()) | Err(ChangeError::Closed) => {}
                Err(error) => failures.push((partition, error)),
            }
        }
        if let Some((first, error)) = failures.first() {
            warn!(count = failures.len(), first = %first.name(), %error,
                "logs stopped without a checkpoint; the next start reads what was appended since the last one");
        }
    }
}
