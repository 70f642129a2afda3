//! Moves of partitions between the log directories of this broker: how they are asked for, go on, and end.
//!
//! On the disk a move is a second log with a mark (`marks.rs`), written before the log is made; so a start after a kill
//! knows what it finds, and goes on with it. The log that was left is deleted when nobody reads it any more, after what
//! took its place is synced.
//!
//! Source: Kafka 3.9 `ReplicaManager.alterReplicaLogDirs`, `LogManager.maybeUpdatePreferredLogDir`,
//! `replaceCurrentWithFutureLog`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tracing::{info, warn};

use super::change::Changed;
use super::found::FutureLog;
use super::manager::{Hosted, ReplicaDir, ReplicaManager};
use super::marks::{self, Mark};
use super::moves::{Left, Move, Stepped};
use super::partition::{Home, Partition, Upkeep};
use crate::log::partition_log::PartitionLog;
use crate::storage::{self, PartitionId, StorageError, WriteSet};
use crate::task;
use crate::types::TopicPartition;

/// Directories that are remembered for partitions which are not here.
const PREFERRED_MAX: usize = 100_000;
/// A log that was left waits for its readers so long at most. Source: Kafka 3.9 `file.delete.delay.ms`.
const READERS_MAX_MS: i64 = 60_000;
/// While the rate is used up.
const HELD_PAUSE: Duration = Duration::from_millis(50);
/// Between two looks for readers of a log that was left.
const READERS_PAUSE: Duration = Duration::from_millis(100);

/// Why a partition does not move.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AlterLogDirError {
    #[error("there is no log directory {0}")]
    NoSuchDir(PathBuf),
    /// The directory is remembered for when there is one.
    #[error("there is no replica here")]
    NotHere,
    #[error("the replica is offline")]
    Offline,
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl ReplicaManager {
    /// Has the log of a partition move to this directory, or be made there when it comes; a move to another one ends.
    /// Returns when the move has begun. Blocking.
    pub(crate) fn alter_log_dir(&self, name: &TopicPartition, to: &Path) -> Result<(), AlterLogDirError> {
        let _alone = self.changing.lock();
        let no_such = || AlterLogDirError::NoSuchDir(to.to_owned());
        let to = self.dirs.iter().position(|place| place.goes_by(to)).ok_or_else(no_such)?;
        self.dirs[to].usable()?;
        let hosted = {
            let partitions = self.partitions.read();
            match partitions.get(&name.topic).and_then(|topic| topic.get(&name.partition)) {
                Some(Hosted::Online(partition)) => Some(Arc::clone(partition)),
                Some(Hosted::Offline(_)) => return Err(AlterLogDirError::Offline),
                Some(Hosted::Leaving(_)) | None => None,
            }
        };
        let Some(partition) = hosted else {
            let mut preferred = self.moves.preferred.lock();
            if preferred.len() < PREFERRED_MAX || preferred.contains_key(name) {
                preferred.insert(name.clone(), to);
            }
            return Err(AlterLogDirError::NotHere);
        };
        self.moves.again.lock().remove(&partition.id);
        let under_way = self.moves.under_way.lock().get(&partition.id).map(Arc::clone);
        if let Some(under_way) = under_way {
            if under_way.to == to {
                return Ok(());
            }
            self.end_move(&under_way);
        }
        // It may have moved until now.
        let home = partition.home();
        if home.at == to {
            info!(partition = %partition.name(), dir = %home.dir.path().display(), "the log is there already");
            return Ok(());
        }
        // With a directory that has failed nobody knows what is in it. Source: Kafka 3.9 `LogManager.getOrCreateLog`.
        self.dirs.iter().try_for_each(ReplicaDir::usable)?;
        self.begin_move(&partition, to)?;
        Ok(())
    }

    /// The directory that was chosen for a partition which is to be made.
    pub(super) fn preferred_dir(&self, id: &PartitionId) -> Option<usize> {
        let name = TopicPartition { topic: id.topic.clone(), partition: id.partition };
        self.moves.preferred.lock().remove(&name)
    }

    fn begin_move(&self, partition: &Arc<Partition>, to: usize) -> Result<(), StorageError> {
        let (id, dir) = (&partition.id, &self.dirs[to].dir);
        // Whoever still reads what was left has to ask again: of a partition there are never more than two logs.
        self.delete_left(|left| left.id == *id, true);
        {
            // A copy that could not be gone on with is none any more: there must not be two of one generation.
            let found = &mut *self.found.lock();
            found.leftovers.extend(found.futures.remove(id).map(|future| (future.at, id.clone())));
        }
        self.clear_leftovers(id)?;
        let home = partition.home();
        let mut own = home.generation;
        if own == 0 {
            own = self.clock.now_ms().max(1).unsigned_abs();
            let writes = vec![marks::put(id, Mark::Moved(own))];
            storage::commit(&*home.dir, WriteSet { writes, sync: true }).wait()?;
            partition.set_generation(own);
        }
        let generation = own + 1;
        // A kill in between leaves a mark without a log, which means nothing.
        self.found.lock().leftovers.insert((to, id.clone()));
        // No log may outlast its mark, by a loss of power either.
        let writes = vec![marks::put(id, Mark::Future(generation))];
        storage::commit(&**dir, WriteSet { writes, sync: true }).wait()?;
        let family = dir.create(std::slice::from_ref(id))?[0];
        self.found.lock().leftovers.remove(&(to, id.clone()));
        info!(partition = %partition.name(), from = %partition.dir_path().display(), to = %dir.path().display(),
            "the log begins to move");
        self.go_on(partition, FutureLog { at: to, family, generation }).inspect_err(|_| {
            self.found.lock().leftovers.insert((to, id.clone()));
        })
    }

    /// Goes on with a move whose future log is there. Where the log is not open yet that was found at the start.
    pub(super) fn go_on_if_moving(&self, partition: &Arc<Partition>) {
        let Some(future) = self.found.lock().futures.remove(&partition.id) else { return };
        if let Err(failure) = self.go_on(partition, future) {
            warn!(partition = %partition.name(), dir = %self.dirs[future.at].dir.path().display(), %failure,
                "the log does not go on to move until the next start");
            self.found.lock().futures.insert(partition.id.clone(), future);
        }
    }

    fn go_on(&self, partition: &Arc<Partition>, future: FutureLog) -> Result<(), StorageError> {
        let ReplicaDir { dir, tail, .. } = &self.dirs[future.at];
        let (id, now) = (&partition.id, self.clock.now_ms());
        let config = (self.config_of)(&id.topic).log;
        let open = |dir, tail| PartitionLog::open(dir, id.clone(), future.family, config, tail, now);
        let mut log = open(Arc::clone(dir), Arc::clone(tail))?;
        // What a kill took from the end of the present log was not acknowledged, and its offsets are given again, maybe
        // in the same term: nothing would show that the logs part.
        let end = partition.view().log_end_offset;
        if log.log_end_offset() > end {
            dir.settle(future.family)?;
            let mut writes = Vec::new();
            log.truncate_to(end, now, &mut writes)?;
            storage::commit(&**dir, WriteSet { writes, sync: true }).wait()?;
        }
        let home = Home {
            at: future.at,
            dir: Arc::clone(dir),
            family: future.family,
            tail: Arc::clone(tail),
            generation: future.generation,
        };
        let upkeep = Upkeep { cleaner: Arc::clone(&self.cleaner), flush: Arc::clone(&self.flush_timers[future.at]) };
        let filled = Partition::new(Arc::clone(&self.surroundings), id.clone(), home, upkeep, log);
        self.moves
            .under_way
            .lock()
            .insert(id.clone(), Move::new(Arc::clone(partition), filled, Arc::clone(&self.moves.kept)));
        self.moves.news[future.at].notify_one();
        Ok(())
    }

    /// Ends a move, and deletes what was copied. Returns when no step of it is under way.
    fn end_move(&self, ended: &Move) {
        let future = ended.future.lock().take();
        self.moves.under_way.lock().retain(|_, it| !std::ptr::eq(&raw const **it, ended));
        ended.current.keep_no_more();
        let (partition, dir) = (ended.current.name(), self.dirs[ended.to].dir.path());
        if let Some(future) = future {
            info!(partition, dir = %dir.display(), "the log does not move there any more");
            self.leave(ended, &Stepped::Over, future);
        }
        if let Err(failure) = self.clear_leftovers(&ended.current.id) {
            warn!(partition, dir = %dir.display(), %failure, "the log that was being filled is not deleted yet");
        }
    }

    /// Notes what is left on the disk of a move that is over, which nobody can know yet.
    fn leave(&self, ended: &Move, how: &Stepped, other: Arc<Partition>) {
        match how {
            Stepped::Went | Stepped::Waits(_) => {}
            Stepped::Moved => self.moves.left.lock().push(Left { log: other, since_ms: self.surroundings.now_ms() }),
            Stepped::Refused | Stepped::Over => {
                // Nothing is written to it any more.
                other.close();
                other.with_log(PartitionLog::close);
                self.found.lock().leftovers.insert((ended.to, other.id.clone()));
            }
        }
    }

    /// Deletes what is left of moves of this partition, with the marks. Synced: after a loss of power it would be there
    /// again, beside a log that has moved on since and did not take its place.
    pub(super) fn clear_leftovers(&self, id: &PartitionId) -> Result<(), StorageError> {
        let of = |(_, known): &&(usize, PartitionId)| known.topic_id == id.topic_id && known.partition == id.partition;
        let leftovers: Vec<(usize, PartitionId)> = self.found.lock().leftovers.iter().filter(of).cloned().collect();
        for leftover in leftovers {
            let dir = &self.dirs[leftover.0].dir;
            // Whatever was queued for it is written before the wipe, or the wipe would leave it behind.
            storage::barrier(&**dir)?;
            dir.delete(std::slice::from_ref(&leftover.1))?;
            storage::commit(&**dir, WriteSet { writes: vec![marks::remove(id)], sync: true }).wait()?;
            self.found.lock().leftovers.remove(&leftover);
        }
        Ok(())
    }

    /// Ends what moves of a partition that is to be deleted, and deletes what there is of it besides its log. What
    /// cannot be deleted now is at the next start.
    pub(super) fn forget_moves(&self, is_it: impl Fn(&PartitionId) -> bool) {
        let ending: Vec<Arc<Move>> = {
            let under_way = self.moves.under_way.lock();
            under_way.iter().filter(|(id, _)| is_it(id)).map(|(_, it)| Arc::clone(it)).collect()
        };
        ending.iter().for_each(|it| self.end_move(it));
        self.moves.again.lock().retain(|id, _| !is_it(id));
        self.delete_left(|left| is_it(&left.id), true);
        let ids: Vec<PartitionId> = {
            let mut found = self.found.lock();
            let futures: Vec<_> = found.futures.extract_if(|id, _| is_it(id)).collect();
            found.leftovers.extend(futures.into_iter().map(|(id, future)| (future.at, id)));
            found.leftovers.iter().map(|(_, id)| id).filter(|id| is_it(id)).cloned().collect()
        };
        for id in ids {
            if let Err(failure) = self.clear_leftovers(&id) {
                warn!(topic = %id.topic, partition = %id.partition, %failure, "a copy is not deleted yet");
            }
        }
    }

    /// Of logs that were deleted in a directory, with their generations: no mark speaks of them any more, and no loss
    /// of power brings them back, maybe beside others that are made elsewhere.
    pub(super) fn unmark(&self, at: usize, deleted: &[(&PartitionId, u64)]) {
        let marked = deleted.iter().filter(|(_, generation)| *generation > 0);
        let writes: Vec<_> = marked.clone().map(|(id, _)| marks::remove(id)).collect();
        let dir = &self.dirs[at].dir;
        if let Err(failure) = storage::commit(&**dir, WriteSet { writes, sync: true }).wait() {
            warn!(dir = %dir.path().display(), %failure, "marks of deleted logs are still there");
            self.found.lock().leftovers.extend(marked.map(|(id, _)| (at, PartitionId::clone(id))));
        }
    }

    /// Deletes those of the logs that were left which are meant and, unless it is `now`, not read any more. True: some
    /// are left.
    fn delete_left(&self, is_meant: impl Fn(&Partition) -> bool, now: bool) -> bool {
        let monotonic_ms = self.surroundings.now_ms();
        let may = |left: &Left| now || left.log.reads() == 0 || monotonic_ms - left.since_ms >= READERS_MAX_MS;
        let mut all = self.moves.left.lock();
        let (going, staying): (Vec<Left>, Vec<Left>) = all.drain(..).partition(|left| is_meant(&left.log) && may(left));
        *all = staying;
        let any_left = all.iter().any(|left| is_meant(&left.log));
        drop(all);
        for Left { log, .. } in going {
            log.with_log(PartitionLog::close);
            let home = log.home();
            self.found.lock().leftovers.insert((home.at, log.id.clone()));
            match self.clear_leftovers(&log.id) {
                Ok(()) => {
                    info!(partition = %log.name(), dir = %home.dir.path().display(), "the log that was left is deleted")
                }
                Err(failure) => warn!(partition = %log.name(), dir = %home.dir.path().display(), %failure,
                    "the log that was left is not deleted before the next start"),
            }
        }
        any_left
    }

    /// Moves what is to be moved to a directory, and deletes what was left there, as long as the broker runs.
    pub(super) async fn run_moves(self: Arc<Self>, at: usize) {
        loop {
            let replicas = Arc::clone(&self);
            let pause = task::blocking(move || replicas.step_moves(at)).await;
            let more = self.moves.news[at].notified();
            match pause {
                Some(pause) => drop(tokio::time::timeout(pause, more).await),
                None => more.await,
            }
        }
    }

    /// One step of each move to a directory. Gives how long to wait for the next; `None`: there is nothing to do.
    /// Blocking.
    pub(super) fn step_moves(&self, at: usize) -> Option<Duration> {
        let mut pause: Option<Duration> = None;
        let mut again_in = |wait: Duration| pause = Some(pause.map_or(wait, |known| known.min(wait)));
        let throttle = &self.surroundings.throttles.log_dirs;
        // One look for all of them, as there may be thousands.
        let held_back = throttle.is_used_up(self.surroundings.now_ms());
        if held_back {
            again_in(HELD_PAUSE);
        }
        if self.begin_again(at) {
            again_in(READERS_PAUSE);
        }
        for it in self.moves.to(at).into_iter().filter(|_| !held_back) {
            let ended = |how: &Stepped, other: Arc<Partition>| self.leave(&it, how, other);
            match it.step(throttle, ended, self.clock.now_ms(), self.surroundings.now_ms()) {
                Stepped::Went => again_in(Duration::ZERO),
                Stepped::Waits(wait) => again_in(wait),
                Stepped::Moved => {
                    self.moves.under_way.lock().retain(|_, known| !Arc::ptr_eq(known, &it));
                    self.moves.news.iter().for_each(Notify::notify_one);
                }
                Stepped::Refused => {
                    self.give_up_refused(&it);
                    again_in(READERS_PAUSE);
                }
                Stepped::Over => {
                    self.moves.under_way.lock().retain(|_, known| !Arc::ptr_eq(known, &it));
                    it.current.keep_no_more();
                }
            }
        }
        // Another request may have it deleted, or have begun a move to its place.
        if !self.moves.left.lock().is_empty()
            && let Some(_alone) = self.changing.try_lock()
            && self.delete_left(|left| left.home().at == at, false)
        {
            again_in(READERS_PAUSE);
        } else if self.moves.left.lock().iter().any(|left| left.log.home().at == at) {
            again_in(READERS_PAUSE);
        }
        pause
    }

    /// The future log could not take the place. What of it is on the disk is not known, and may be of what the present
    /// log has taken back since: it is made anew.
    fn give_up_refused(&self, refused: &Arc<Move>) {
        let _alone = self.changing.lock();
        if !self.moves.all().iter().any(|known| Arc::ptr_eq(known, refused)) {
            return;
        }
        let id = &refused.current.id;
        self.moves.under_way.lock().retain(|_, known| !Arc::ptr_eq(known, refused));
        self.moves.again.lock().insert(id.clone(), refused.to);
    }

    /// Begins moves to a directory anew. True: some are to be tried again.
    fn begin_again(&self, at: usize) -> bool {
        let to_here = |(id, to): (&PartitionId, &usize)| (*to == at).then(|| id.clone());
        let ids: Vec<PartitionId> = self.moves.again.lock().iter().filter_map(to_here).collect();
        if ids.is_empty() {
            return false;
        }
        // Another request may hold it, and wait for a step.
        let Some(_alone) = self.changing.try_lock() else { return true };
        for id in ids {
            let partition = self.get(id.topic.as_str(), id.partition).filter(|partition| partition.id == id);
            let begun = match &partition {
                Some(partition) if self.moves.again.lock().contains_key(&id) => self.dirs[at].usable().and_then(|()| {
                    let home = partition.home();
                    if home.at == at { Ok(()) } else { self.begin_move(partition, at) }
                }),
                _ => Ok(()),
            };
            match begun {
                Err(StorageError::Full { .. }) => continue,
                Err(failure) => warn!(topic = %id.topic, partition = %id.partition, %failure,
                    "the log does not move until it is asked for again"),
                Ok(()) => {}
            }
            self.moves.again.lock().remove(&id);
        }
        self.moves.again.lock().values().any(|to| *to == at)
    }

    /// Ends all moves for this process; they go on at the next start. Blocking.
    pub(super) fn close_moves(&self) {
        let moves: Vec<Arc<Move>> = self.moves.under_way.lock().drain().map(|(_, it)| it).collect();
        let futures = moves.iter().filter_map(|it| it.future.lock().take());
        let recorded: Vec<_> = futures
            .map(|future| {
                let recorded = future.change_log(|log, _, writes| log.checkpoint(writes));
                future.close();
                (future, recorded)
            })
            .collect();
        for (future, recorded) in recorded {
            if let Err(error) = recorded.and_then(Changed::written) {
                warn!(partition = %future.name(), %error, "a log that moves stopped without a checkpoint");
            }
        }
    }
}

impl ReplicaDir {
    /// Whether a client means this directory.
    fn goes_by(&self, path: &Path) -> bool {
        self.dir.path() == path || self.configured.as_deref() == Some(path)
    }

    fn usable(&self) -> Result<(), StorageError> {
        match self.dir.failure() {
            None => Ok(()),
            Some(reason) => Err(StorageError::Stopped { dir: self.dir.path(), reason }),
        }
    }
}
