//! The registry of partition replicas of this broker, and how they come and go.
//!
//! Whatever is done to many replicas has a result for each: one log that cannot be opened is offline by itself, and all
//! others serve. Nothing is made where a log was found: a log stays reserved in its directory until it is open or gone.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tracing::{error, info, warn};

use super::change::{ChangeError, Changed};
use super::flush::FlushTimer;
use super::found::{self, FoundLog, FoundLogs};
use super::moves::Moves;
use super::partition::{Home, Partition, Upkeep};
use super::surroundings::Surroundings;
use super::throttle::Throttles;
use crate::clock::SharedClock;
use crate::cluster::control::LogInventory;
use crate::log::config::LogConfig;
use crate::log::partition_log::PartitionLog;
use crate::log::reading::tail::Tail;
use crate::metrics::TrafficCounts;
use crate::storage::{self, InDoubt, LogDir, LogEndState, PartitionId, SharedLogDir, StorageError, Write, WriteSet};
use crate::types::{BrokerId, LeaderEpoch, PartitionIndex, TopicId, TopicName, TopicPartition};

/// Settings of one topic that a replica needs.
#[derive(Debug, Clone)]
pub(crate) struct ReplicaConfig {
    pub(crate) log: LogConfig,
    pub(crate) min_insync_replicas: usize,
}

/// Where a topic's effective settings come from; asked when a log is opened and when they change.
pub(crate) type ConfigOf = Arc<dyn Fn(&TopicName) -> ReplicaConfig + Send + Sync>;

/// A log directory as the manager is given it.
#[derive(Debug)]
pub(crate) struct ReplicaDir {
    pub(crate) dir: SharedLogDir,
    pub(crate) tail: Arc<Tail>,
    /// Written to under another boot of the machine, or under an unknown one: the ends of its logs may be lost, and a
    /// log that simply ends earlier cannot be told from a whole one.
    pub(crate) may_lack_ends: bool,
    /// As the settings name it, absolute, where that is not its path.
    pub(crate) configured: Option<PathBuf>,
}

/// A replica that is to be opened.
#[derive(Debug, Clone)]
pub(crate) struct WantedReplica {
    pub(crate) id: PartitionId,
    /// It is made anew, so that there need be no log yet.
    pub(crate) is_new: bool,
}

/// Why a replica is not open.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("the replica here is of the topic with id {here}")]
    InconsistentTopicId { here: TopicId },
}

/// A partition this broker has a replica of.
#[derive(Debug)]
pub(super) enum Hosted {
    Online(Arc<Partition>),
    /// Its log could not be opened, or not be deleted. A later request tries again.
    Offline(TopicId),
    /// Its log is being deleted: there is no replica any more, and nothing is wrong with the disk.
    Leaving(TopicId),
}

impl Hosted {
    fn topic_id(&self) -> TopicId {
        match self {
            Self::Online(partition) => partition.id.topic_id,
            Self::Offline(topic_id) | Self::Leaving(topic_id) => *topic_id,
        }
    }

    fn online(&self) -> Option<Arc<Partition>> {
        match self {
            Self::Online(partition) => Some(Arc::clone(partition)),
            Self::Offline(_) | Self::Leaving(_) => None,
        }
    }
}

type Registry = HashMap<TopicName, BTreeMap<PartitionIndex, Hosted>>;

/// All partition replicas of this broker.
pub(crate) struct ReplicaManager {
    pub(crate) me: BrokerId,
    pub(super) surroundings: Arc<Surroundings>,
    pub(super) dirs: Vec<ReplicaDir>,
    /// Those of `dirs`, in their order.
    pub(super) flush_timers: Vec<Arc<FlushTimer>>,
    pub(super) clock: SharedClock,
    pub(super) config_of: ConfigOf,
    pub(super) partitions: RwLock<Registry>,
    /// What replicas counted that are closed. Changed while `partitions` is held for writing.
    pub(super) closed_traffic: Mutex<TrafficCounts>,
    /// Held while logs are made, opened or deleted, which blocks on the disk.
    pub(super) changing: Mutex<()>,
    pub(super) found: Mutex<FoundLogs>,
    pub(super) moves: Moves,
    /// Told when a segment of a compacted log was closed.
    pub(super) cleaner: Arc<Notify>,
}

impl std::fmt::Debug for ReplicaManager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicaManager").field("me", &self.me).finish_non_exhaustive()
    }
}

impl ReplicaManager {
    /// A manager over open log directories. Logs are opened when LeaderAndIsr names them. Blocking.
    ///
    /// # Errors
    /// The marks in a directory cannot be read, or two logs of one partition both count.
    pub(crate) fn new(
        surroundings: Arc<Surroundings>,
        dirs: Vec<ReplicaDir>,
        config_of: ConfigOf,
    ) -> Result<Arc<Self>, StorageError> {
        let found = FoundLogs::of(dirs.iter().map(|place| (&*place.dir as &dyn LogDir, place.may_lack_ends)))?;
        let flush_timers = dirs.iter().map(|place| FlushTimer::new(Arc::clone(&place.dir))).collect();
        let replicas = Arc::new(Self {
            me: surroundings.me,
            clock: Arc::clone(&surroundings.clock),
            surroundings,
            moves: Moves::new(dirs.len()),
            dirs,
            flush_timers,
            config_of,
            partitions: RwLock::default(),
            closed_traffic: Mutex::default(),
            changing: Mutex::default(),
            found: Mutex::new(found),
            cleaner: Arc::default(),
        });
        replicas.clear_useless();
        Ok(replicas)
    }

    /// Deletes logs that others took the place of before this start.
    fn clear_useless(&self) {
        let useless = self.found.lock().useless();
        let homes: HashSet<usize> = {
            let found = self.found.lock();
            useless.iter().filter_map(|(_, id)| Some(found.logs.get(id)?.at)).collect()
        };
        // What took the place may not be on the disk yet.
        for at in homes {
            let synced = storage::commit(&*self.dirs[at].dir, WriteSet { writes: Vec::new(), sync: true }).wait();
            if let Err(failure) = synced {
                return warn!(dir = %self.dirs[at].dir.path().display(), %failure, "what logs left stays");
            }
        }
        for (at, id) in useless {
            info!(topic = %id.topic, partition = %id.partition, dir = %self.dirs[at].dir.path().display(),
                "deleting what is left of a move between log directories");
            if let Err(failure) = self.clear_leftovers(&id) {
                warn!(dir = %self.dirs[at].dir.path().display(), %failure, "it is still there");
            }
        }
    }

    /// Notes which leader epochs the tree gave to partitions before this process registered: logs that may have lost
    /// their ends lead under later ones only. Before the first role.
    pub(crate) fn know_epochs(&self, before: Vec<(TopicPartition, LeaderEpoch)>) {
        let before: HashMap<_, _> = before.into_iter().collect();
        for (id, found) in &mut self.found.lock().logs {
            let name = TopicPartition { topic: id.topic.clone(), partition: id.partition };
            found.epoch_before = before.get(&name).copied();
        }
    }

    /// The partition, if this broker has an open replica of it.
    pub(crate) fn get(&self, topic: &str, partition: PartitionIndex) -> Option<Arc<Partition>> {
        self.partitions.read().get(topic)?.get(&partition)?.online()
    }

    /// Whether this broker has a replica of the partition whose log could not be opened.
    pub(crate) fn is_offline(&self, topic: &str, partition: PartitionIndex) -> bool {
        let partitions = self.partitions.read();
        matches!(partitions.get(topic).and_then(|topic| topic.get(&partition)), Some(Hosted::Offline(_)))
    }

    /// What of replication is held back.
    pub(crate) fn throttles(&self) -> &Throttles {
        &self.surroundings.throttles
    }

    /// Every open replica, for periodic work.
    pub(crate) fn all(&self) -> Vec<Arc<Partition>> {
        self.partitions.read().values().flat_map(online).collect()
    }

    /// A log directory has stopped: none of its replicas can go on. Their requests are refused from now on, and the
    /// controller hears of each when it asks.
    /// Source: Kafka 3.9 `ReplicaManager.handleLogDirFailure`.
    pub(crate) fn on_dir_failed(&self, dir: &Path, reason: &Arc<str>) {
        let failure = StorageError::Stopped { dir: dir.to_owned(), reason: Arc::clone(reason) };
        let replicas = self.all().iter().filter(|replica| replica.on_dir_failed(dir, &failure)).count();
        warn!(dir = %dir.display(), replicas, "the log directory has failed; its replicas are offline");
    }

    /// Open replicas of one topic.
    pub(crate) fn of_topic(&self, topic: &str) -> Vec<Arc<Partition>> {
        self.partitions.read().get(topic).into_iter().flat_map(online).collect()
    }

    /// Directories, for orderly stop.
    pub(crate) fn dirs(&self) -> impl Iterator<Item = &SharedLogDir> {
        self.dirs.iter().map(|place| &place.dir)
    }

    /// Opens the logs of these partitions, making those that do not exist, in one step per directory. Blocking.
    /// A result for each, in their order: a log that cannot be opened is offline by itself. Source: Kafka 3.9
    /// `ReplicaManager.becomeLeaderOrFollower`, where a log that fails takes its directory with it.
    pub(crate) fn open(&self, wanted: &[WantedReplica]) -> Vec<Result<Arc<Partition>, OpenError>> {
        let _alone = self.changing.lock();
        let places = self.place(wanted);
        let mut configs: HashMap<TopicName, ReplicaConfig> = HashMap::new();
        let mut open = |WantedReplica { id, is_new }: &WantedReplica| {
            if let Some(known) = self.hosted(id) {
                return known;
            }
            let opened = match &places[id] {
                Ok(Place { made, .. }) => {
                    let config = configs.entry(id.topic.clone()).or_insert_with(|| (self.config_of)(&id.topic)).clone();
                    // A log that was expected and was not there has lost everything.
                    self.open_log(id, config, *made && !is_new)
                }
                Err(failure) => Err(failure.clone()),
            };
            self.host(id, &opened);
            if opened.is_ok() {
                self.found.lock().logs.remove(id);
            }
            opened.map_err(OpenError::from)
        };
        wanted.iter().map(&mut open).collect()
    }

    /// What the registry has of it already.
    fn hosted(&self, id: &PartitionId) -> Option<Result<Arc<Partition>, OpenError>> {
        let partitions = self.partitions.read();
        let hosted = partitions.get(&id.topic)?.get(&id.partition)?;
        let here = hosted.topic_id();
        if here == id.topic_id { hosted.online().map(Ok) } else { Some(Err(OpenError::InconsistentTopicId { here })) }
    }

    fn host(&self, id: &PartitionId, opened: &Result<Arc<Partition>, StorageError>) {
        let hosted = match opened {
            Ok(partition) => Hosted::Online(Arc::clone(partition)),
            Err(failure) => {
                // It is tried again now and then. A directory that takes no more has said so, or is being closed.
                let said = matches!(failure, StorageError::Stopped { .. });
                if !said && !self.is_offline(id.topic.as_str(), id.partition) {
                    error!(topic = %id.topic, partition = %id.partition, topic_id = %id.topic_id, %failure,
                        "the log cannot be opened; this partition alone is offline");
                }
                Hosted::Offline(id.topic_id)
            }
        };
        self.partitions.write().entry(id.topic.clone()).or_default().insert(id.partition, hosted);
    }

    /// Sees to it that each log that is not open has its place: where it was found, or where it is made now, which is
    /// the directory with the fewest, as in Kafka's `LogManager.nextLogDirs`. A result for each of them.
    fn place(&self, wanted: &[WantedReplica]) -> HashMap<PartitionId, Result<Place, StorageError>> {
        let mut places = HashMap::new();
        let (mut there, mut missing) = (BTreeMap::<usize, Vec<PartitionId>>::new(), Vec::new());
        {
            let found = self.found.lock();
            let mut seen = HashSet::new();
            let closed = wanted.iter().map(|wanted| &wanted.id).filter(|id| self.hosted(id).is_none());
            for id in closed.filter(|id| seen.insert((*id).clone())) {
                match found.logs.get(id) {
                    Some(found) => there.entry(found.at).or_default().push(id.clone()),
                    None => missing.push(id.clone()),
                }
            }
        }
        // Nothing is made beside what a move has left, as that might count at the next start.
        missing.retain(|id| match self.clear_leftovers(id) {
            Ok(()) => true,
            Err(failure) => {
                places.insert(id.clone(), Err(failure));
                false
            }
        });
        for (at, ids) in there {
            // They exist, so nothing is made; one that takes no writes refuses.
            let usable = self.dirs[at].dir.create(&ids);
            places.extend(ids.into_iter().map(|id| (id, usable.clone().map(|_| Place { made: false }))));
        }
        self.make(missing, &mut places);
        places
    }

    /// A directory that takes no writes is passed over while there is another.
    fn make(&self, mut missing: Vec<PartitionId>, places: &mut HashMap<PartitionId, Result<Place, StorageError>>) {
        let mut load = self.load();
        let mut usable: HashSet<usize> = (0..self.dirs.len()).collect();
        while !missing.is_empty() {
            let mut by_dir: BTreeMap<usize, Vec<PartitionId>> = BTreeMap::new();
            for id in missing.drain(..) {
                let preferred = self.preferred_dir(&id).filter(|at| usable.contains(at));
                let least =
                    || *usable.iter().min_by_key(|&&at| (load[at], at)).expect("the last one is never taken out");
                let at = preferred.unwrap_or_else(least);
                load[at] += 1;
                by_dir.entry(at).or_default().push(id);
            }
            for (at, ids) in by_dir {
                match self.dirs[at].dir.create(&ids) {
                    Ok(families) => {
                        let mut found = self.found.lock();
                        for (id, family) in ids.into_iter().zip(families) {
                            found.logs.insert(id.clone(), FoundLog::made(at, family, 0));
                            places.insert(id, Ok(Place { made: true }));
                        }
                    }
                    Err(StorageError::Stopped { .. }) if usable.len() > 1 => {
                        usable.remove(&at);
                        missing.extend(ids);
                    }
                    Err(failure) => places.extend(ids.into_iter().map(|id| (id, Err(failure.clone())))),
                }
            }
        }
    }

    /// Logs per directory; not counted where there is no choice, since it takes a look at every log.
    fn load(&self) -> Vec<usize> {
        let mut load = vec![0; self.dirs.len()];
        if self.dirs.len() == 1 {
            return load;
        }
        for partition in self.all() {
            load[partition.home().at] += 1;
        }
        let found = self.found.lock();
        let closed = found.logs.values().map(|log| log.at).chain(found.futures.values().map(|log| log.at));
        closed.chain(self.moves.under_way.lock().values().map(|it| it.to)).for_each(|at| load[at] += 1);
        load
    }

    /// Opens the log that lies there, which stays reserved.
    fn open_log(&self, id: &PartitionId, config: ReplicaConfig, lost: bool) -> Result<Arc<Partition>, StorageError> {
        let place = self.found.lock().logs[id];
        let ReplicaDir { dir, tail, .. } = &self.dirs[place.at];
        let now = self.clock.now_ms();
        let log = PartitionLog::open(Arc::clone(dir), id.clone(), place.family, config.log, Arc::clone(tail), now)?;
        if place.stray_since.is_some() {
            write(&**dir, vec![found::unmark(id)])?;
            info!(topic = %id.topic, partition = %id.partition, topic_id = %id.topic_id, "the log's topic is back");
        }
        let end_lost = lost || place.may_lack_end || log.has_lost_its_end() || place.stray_since.is_some();
        let upkeep = Upkeep { cleaner: Arc::clone(&self.cleaner), flush: Arc::clone(&self.flush_timers[place.at]) };
        let (dir, tail, around) = (Arc::clone(dir), Arc::clone(tail), Arc::clone(&self.surroundings));
        let home = Home { at: place.at, dir, family: place.family, tail, generation: place.generation };
        let partition = Partition::new(around, id.clone(), home, upkeep, log);
        partition.set_config(config.log, config.min_insync_replicas);
        if end_lost {
            partition.doubt_its_end(place.epoch_before);
        }
        self.go_on_if_moving(&partition);
        Ok(partition)
    }

    /// Stops and deletes replicas, open or not, and answers for each. Blocking. Parked fetches wake and find the
    /// partition gone. One that is not here is deleted already; one that could not be deleted stays, offline.
    /// Source: Kafka 3.9 `ReplicaManager.stopPartitions`.
    pub(crate) fn delete(&self, doomed: &[(TopicName, PartitionIndex)]) -> Vec<Result<(), StorageError>> {
        let _alone = self.changing.lock();
        let mut logs: Vec<(usize, PartitionId, FoundLog)> = Vec::new();
        for (asked, (topic, partition)) in doomed.iter().enumerate() {
            self.forget_moves(|id| id.topic == *topic && id.partition == *partition);
            self.close_hosted(topic, *partition);
            let found = self.found.lock().of_partition(topic, *partition);
            logs.extend(found.into_iter().map(|(id, found)| (asked, id, found)));
        }
        let mut results = vec![Ok(()); doomed.len()];
        for (at, ReplicaDir { dir, .. }) in self.dirs.iter().enumerate() {
            let here: Vec<&(usize, PartitionId, FoundLog)> = logs.iter().filter(|(.., found)| found.at == at).collect();
            if here.is_empty() {
                continue;
            }
            // Whatever was queued for them is written before the wipe, or the wipe would leave it behind.
            let written = storage::barrier(&**dir);
            let ids: Vec<PartitionId> = here.iter().map(|(_, id, _)| id.clone()).collect();
            match written.and_then(|()| dir.delete(&ids)) {
                Ok(()) => {
                    self.forget(&ids);
                    let deleted: Vec<_> = here.iter().map(|(_, id, found)| (id, found.generation)).collect();
                    self.unmark(at, &deleted);
                }
                Err(failure) => {
                    here.iter().for_each(|(asked, ..)| results[*asked] = Err(failure.clone()));
                    self.mark_offline(&ids);
                }
            }
        }
        results
    }

    /// Closes an open replica and moves its log to those that are not open.
    fn close_hosted(&self, topic: &TopicName, partition: PartitionIndex) {
        let Some(replica) = self.get(topic.as_str(), partition) else { return };
        let home = replica.home();
        let found = FoundLog::made(home.at, home.family, home.generation);
        let may_lack_end = replica.is_in_doubt();
        self.found.lock().logs.insert(replica.id.clone(), FoundLog { may_lack_end, ..found });
        if let Some(topic) = self.partitions.write().get_mut(topic) {
            *self.closed_traffic.lock() += replica.traffic.counts();
            topic.insert(partition, Hosted::Leaving(replica.id.topic_id));
        }
        replica.close();
        // A fetch under way must not answer with bytes of the family's next owner.
        replica.with_log(PartitionLog::close);
    }

    /// After they could not be deleted.
    fn mark_offline(&self, ids: &[PartitionId]) {
        let mut partitions = self.partitions.write();
        for id in ids {
            let hosted = partitions.get_mut(&id.topic).and_then(|topic| topic.get_mut(&id.partition));
            if let Some(hosted) =
                hosted.filter(|hosted| matches!(hosted, Hosted::Leaving(here) if *here == id.topic_id))
            {
                *hosted = Hosted::Offline(id.topic_id);
            }
        }
    }

    /// After they were deleted.
    pub(super) fn forget(&self, ids: &[PartitionId]) {
        let mut found = self.found.lock();
        let mut partitions = self.partitions.write();
        for id in ids {
            found.logs.remove(id);
            let Some(topic) = partitions.get_mut(&id.topic) else { continue };
            let hosted = topic.get(&id.partition);
            if hosted.is_some_and(|hosted| hosted.topic_id() == id.topic_id && hosted.online().is_none()) {
                topic.remove(&id.partition);
            }
            if topic.is_empty() {
                partitions.remove(&id.topic);
            }
        }
    }

    /// Replicas that wait for a new leader epoch because the ends of their logs may be lost.
    pub(crate) fn in_doubt(&self) -> usize {
        self.all().iter().filter(|partition| partition.waits_for_an_epoch()).count()
    }

    /// For each directory the logs in it that may lack their ends, as they are not open or have no part under a new
    /// leader epoch yet, so that another start has to say so. Strays do that by themselves.
    pub(crate) fn logs_in_doubt(&self) -> Vec<InDoubt> {
        let of = |id: &PartitionId| (id.topic_id, id.partition);
        let uncut = self.dirs.iter().map(|ReplicaDir { dir, .. }| {
            let all = dir.partitions().into_iter();
            let uncut = all.filter(|(_, family)| dir.end(*family) == LogEndState::Uncut).map(|(id, _)| of(&id));
            InDoubt { ends: BTreeSet::new(), uncut: uncut.collect() }
        });
        let mut in_doubt: Vec<InDoubt> = uncut.collect();
        // Before and after those that are not open: a log that is opened or closed meanwhile is among one of them.
        let open_before = self.all();
        for (id, found) in &self.found.lock().logs {
            if found.may_lack_end && found.stray_since.is_none() {
                in_doubt[found.at].ends.insert(of(id));
            }
        }
        for partition in open_before.iter().chain(&self.all()).filter(|partition| partition.is_in_doubt()) {
            in_doubt[partition.home().at].ends.insert(of(&partition.id));
        }
        in_doubt
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
        self.close_moves();
        let mut checkpoints = Vec::new();
        for partition in self.all() {
            // What its opening found to be lost must be found again: it was not passed on.
            if partition.is_in_doubt() {
                partition.close();
                continue;
            }
            let high_watermark = partition.checkpoint_high_watermark();
            let recorded = partition.change_log(|log, _, writes| log.checkpoint(writes));
            partition.close();
            checkpoints.push((partition, high_watermark, recorded));
        }
        let mut failures = Vec::new();
        for (partition, high_watermark, recorded) in checkpoints {
            let recorded = recorded.and_then(Changed::written);
            match high_watermark.and_then(Changed::written).and(recorded) {
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

impl LogInventory for ReplicaManager {
    fn topic_id(&self, topic: &TopicName) -> Option<TopicId> {
        let hosted =
            self.partitions.read().get(topic).and_then(|partitions| partitions.values().next().map(Hosted::topic_id));
        hosted.or_else(|| self.found.lock().topic_id(topic))
    }
}

/// A log that is not open has its place.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// It was made for this; otherwise it was found.
    made: bool,
}

fn online(topic: &BTreeMap<PartitionIndex, Hosted>) -> impl Iterator<Item = Arc<Partition>> {
    topic.values().filter_map(Hosted::online)
}

/// Writes and waits. Blocking.
pub(super) fn write(dir: &dyn LogDir, writes: Vec<Write>) -> Result<(), StorageError> {
    storage::commit(dir, WriteSet { writes, sync: false }).wait()
}
