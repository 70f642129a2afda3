//! Logs that are not open, judged by what the coordination tree says of their topics.

use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

use super::found::{self, FoundLog};
use super::manager::{ReplicaManager, write};
use crate::clock::UnixMs;
use crate::storage::{PartitionId, StorageError};
use crate::types::TopicName;

/// What the coordination tree says of a log's topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is there, or what is there under its name cannot be told from it.
    Known,
    /// A topic of its name is there, with another id.
    Replaced,
    /// Nothing is there under its name.
    Gone,
}

/// A log whose topic is not in the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stray {
    pub(crate) id: PartitionId,
    pub(crate) dir: PathBuf,
    pub(crate) since: UnixMs,
    /// When it may be deleted; `None`: never, as long as a topic of its name exists.
    pub(crate) until: Option<UnixMs>,
}

/// What a look at the logs that are not open gave.
#[derive(Debug, Default)]
pub(crate) struct Strays {
    pub(crate) kept: Vec<Stray>,
    pub(crate) deleted: Vec<PartitionId>,
    /// A mark or a deletion was not written; it is tried again at the next look.
    pub(crate) failed: Vec<(PartitionId, StorageError)>,
}

impl ReplicaManager {
    /// Names of the topics that logs on disk belong to which are not open.
    pub(crate) fn unopened_topics(&self) -> HashSet<TopicName> {
        self.found.lock().logs.keys().map(|id| id.topic.clone()).collect()
    }

    /// Judges the logs that are not open by what the coordination tree says of their topics. A stray is deleted once
    /// nothing has been there under its name for `retention_ms`; it comes back when its topic does. Blocking. Source:
    /// ours; Kafka 3.9 `LogManager.addStrayLog` keeps them for ever.
    pub(crate) fn judge_strays(&self, standing: impl Fn(&PartitionId) -> Standing, retention_ms: i64) -> Strays {
        let _alone = self.changing.lock();
        let now = self.clock.now_ms();
        let unopened: BTreeMap<PartitionId, FoundLog> =
            self.found.lock().logs.iter().map(|(id, found)| (id.clone(), *found)).collect();
        let mut strays = Strays::default();
        for (id, found) in unopened {
            let place = &self.dirs[found.at];
            let standing = standing(&id);
            let marked = match (standing, found.stray_since) {
                (Standing::Known, None) => continue,
                (Standing::Known, Some(_)) => self.put_mark(&id, found, None),
                (Standing::Replaced | Standing::Gone, None) => self.put_mark(&id, found, Some(now)),
                (Standing::Replaced | Standing::Gone, Some(_)) => Ok(()),
            };
            if let Err(failure) = marked {
                strays.failed.push((id, failure));
                continue;
            }
            let since = found.stray_since.unwrap_or(now);
            let until = match standing {
                Standing::Known => continue,
                Standing::Replaced => None,
                Standing::Gone => Some(since.saturating_add(retention_ms)),
            };
            if until.is_none_or(|until| now < until) {
                strays.kept.push(Stray { id, dir: place.dir.path(), since, until });
                continue;
            }
            let deleted = place.dir.delete(std::slice::from_ref(&id));
            match deleted.and_then(|()| write(&*place.dir, vec![found::unmark(&id)])) {
                Ok(()) => {
                    self.forget(std::slice::from_ref(&id));
                    self.unmark(found.at, &[(&id, found.generation)]);
                    self.forget_moves(|moving| *moving == id);
                    strays.deleted.push(id);
                }
                Err(failure) => strays.failed.push((id, failure)),
            }
        }
        strays
    }

    fn put_mark(&self, id: &PartitionId, place: FoundLog, since: Option<UnixMs>) -> Result<(), StorageError> {
        let mark = since.map_or_else(|| found::unmark(id), |since| found::mark(id, since));
        write(&*self.dirs[place.at].dir, vec![mark])?;
        self.found.lock().logs.insert(id.clone(), FoundLog { stray_since: since, ..place });
        Ok(())
    }
}
