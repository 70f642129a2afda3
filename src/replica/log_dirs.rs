//! What lies in the log directories, for whoever looks after the disks.
//!
//! Source: Kafka 3.9 `ReplicaManager.describeLogDirs`.

use std::path::PathBuf;
use std::sync::Arc;

use super::manager::ReplicaManager;
use super::partition::Partition;
use crate::storage::{DiskBytes, StorageError};
use crate::types::{PartitionIndex, TopicName};

/// One log directory.
#[derive(Debug)]
pub(crate) struct LogDirDescription {
    pub(crate) path: PathBuf,
    /// `Err`: it has failed, and what lies in it is out of reach.
    pub(crate) contents: Result<LogDirContents, StorageError>,
}

#[derive(Debug)]
pub(crate) struct LogDirContents {
    /// `None`: the file system does not tell.
    pub(crate) disk: Option<DiskBytes>,
    /// In no particular order.
    pub(crate) logs: Vec<LogDescription>,
}

/// One log that is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogDescription {
    pub(crate) topic: TopicName,
    pub(crate) partition: PartitionIndex,
    /// What the log's batches add up to, from the virtual segment that holds the log start to the log end: what Kafka's
    /// `UnifiedLog.size` counts of its segment files. What the disk has of them differs: side records, indexes and what
    /// is not reclaimed yet come on top. A number that is kept, so nothing is read for it.
    pub(crate) size_bytes: u64,
    /// By how many offsets the log end lies behind the high watermark; that of a future log behind the present one's.
    pub(crate) offset_lag: i64,
    /// It is being filled, and takes the place of the partition's log when it is level.
    pub(crate) is_future: bool,
}

impl ReplicaManager {
    /// Every log directory with those of its logs that `is_wanted` names. Logs that are not open, strays among them,
    /// are left out. Asks the file system, so it may block.
    pub(crate) fn describe_log_dirs(
        &self,
        is_wanted: impl Fn(&TopicName, PartitionIndex) -> bool,
    ) -> Vec<LogDirDescription> {
        let is_wanted = |partition: &Arc<Partition>| is_wanted(&partition.id.topic, partition.id.partition);
        let open = self.all().into_iter().filter(&is_wanted).map(|log| (log.home().at, describe_log(&log)));
        let mut wanted: Vec<(usize, LogDescription)> = open.collect();
        for it in self.moves.all().into_iter().filter(|it| is_wanted(&it.current)) {
            wanted.extend(it.filled().map(|future| (it.to, describe_future(&it.current, &future))));
        }
        let describe = |(at, dir): (usize, &crate::storage::SharedLogDir)| {
            let path = dir.path();
            let contents = match dir.failure() {
                Some(reason) => Err(StorageError::Stopped { dir: path.clone(), reason }),
                None => {
                    let here = wanted.iter().filter(|(of, _)| *of == at).map(|(_, log)| log.clone());
                    Ok(LogDirContents { disk: dir.disk(), logs: here.collect() })
                }
            };
            LogDirDescription { path, contents }
        };
        self.dirs().enumerate().map(describe).collect()
    }
}

fn describe_log(partition: &Partition) -> LogDescription {
    let figures = partition.figures();
    let behind = partition.view().high_watermark - figures.log_end_offset;
    LogDescription {
        topic: partition.id.topic.clone(),
        partition: partition.id.partition,
        size_bytes: figures.size_bytes,
        offset_lag: behind.max(0),
        is_future: false,
    }
}

fn describe_future(current: &Partition, future: &Partition) -> LogDescription {
    let behind = current.view().log_end_offset.0 - future.view().log_end_offset.0;
    LogDescription { offset_lag: behind, is_future: true, ..describe_log(future) }
}
