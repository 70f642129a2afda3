//! Opens the log directories: each checked, locked and recovered before anything else looks at it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use tokio::sync::watch;

use super::boot::{Boot, BootNote, BootNotes};
use super::meta::{MetaError, MetaProperties};
use super::seams::OpenDir;
use crate::cluster::registration::Registrar;
use crate::config::Config;
use crate::log::reading::tail::Tail;
use crate::observe::sources::DirState;
use crate::replica::manager::{ReplicaDir, ReplicaManager};
use crate::replica::marks;
use crate::storage::rocksdb::{BootRecord, CachedBytes, DirectoryOptions, OpenError, RESERVE_BY_DISK};
use crate::storage::{SharedLogDir, StorageError};
use crate::types::{BrokerId, TopicPartition};

/// Why a log directory cannot be used. Nothing in it was touched.
#[derive(Debug, thiserror::Error)]
pub(super) enum DirError {
    #[error("log directory {path} cannot be made or read: {error}")]
    Io { path: PathBuf, error: io::Error },
    #[error(transparent)]
    Meta(#[from] MetaErrorOpaque),
    #[error("{0}")]
    Open(String),
}

/// A complaint about `meta.properties`, already worded.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct MetaErrorOpaque(String);

impl From<MetaError> for DirError {
    fn from(error: MetaError) -> Self {
        Self::Meta(MetaErrorOpaque(error.to_string()))
    }
}

impl From<OpenError> for DirError {
    fn from(error: OpenError) -> Self {
        Self::Open(error.to_string())
    }
}

/// Open log directories with the tail each of them keeps in memory.
pub(super) struct Dirs {
    pub(super) paths: Vec<PathBuf>,
    pub(super) dirs: Vec<(SharedLogDir, Arc<Tail>)>,
    /// As the settings name them, absolute.
    configured: Vec<Option<PathBuf>>,
    /// Under which boot each of them is written to.
    notes: Vec<Arc<BootNote>>,
    /// Which of them have never been a broker's.
    is_new: Vec<bool>,
    /// Which of them were last written to under another boot than this one, or have lost something otherwise.
    may_lack_ends: Vec<bool>,
}

/// What `meta.properties` of all directories agree on.
#[derive(Debug, Clone, Default)]
pub(super) struct Stored {
    pub(super) broker_id: Option<BrokerId>,
    pub(super) cluster_id: Option<String>,
}

/// Opens every directory of `log.dirs` by `open_dir`. Blocking.
pub(super) fn open(config: &Config, open_dir: &OpenDir) -> Result<(Dirs, Stored), DirError> {
    let mut stored = Stored::default();
    let mut dirs = Vec::with_capacity(config.log_dirs.len());
    let mut paths = Vec::with_capacity(config.log_dirs.len());
    let mut is_new = Vec::with_capacity(config.log_dirs.len());
    for path in &config.log_dirs {
        let path = make(path)?;
        let meta = MetaProperties::read(&path)?;
        is_new.push(meta.is_none());
        if let Some(meta) = meta {
            if let (Some(id), Some(cluster)) = (stored.broker_id, &stored.cluster_id) {
                meta.check(&path, id, cluster)?;
            }
            stored.broker_id = stored.broker_id.or(meta.broker_id);
            stored.cluster_id = stored.cluster_id.or(meta.cluster_id);
        }
        paths.push(path);
    }
    // A directory of another broker is refused before RocksDB writes into it.
    if let (Some(configured), Some(id)) = (config.broker_id, stored.broker_id) {
        for path in &paths {
            if let Some(meta) = MetaProperties::read(path)? {
                meta.check(path, configured, meta.cluster_id.as_deref().unwrap_or_default())?;
            }
        }
        debug_assert_eq!(configured, id, "checked above");
    }
    let options = options(config, paths.len());
    let boot = Boot::of(config.boot_id.as_deref());
    let mut may_lack_ends = Vec::with_capacity(paths.len());
    let mut notes = Vec::with_capacity(paths.len());
    for path in &paths {
        let note = Arc::new(BootNote::new(boot.clone(), path));
        let record = Some(Arc::clone(&note) as Arc<dyn BootRecord>);
        let dir = open_dir(path, DirectoryOptions { record, ..options.clone() })?;
        may_lack_ends.push(note.read().is_none());
        dirs.push((dir, Tail::new(config.tail_bytes / paths.len())));
        notes.push(note);
    }
    let configured = config.log_dirs.iter().map(|path| std::path::absolute(path).ok()).collect();
    Ok((Dirs { paths, dirs, configured, notes, is_new, may_lack_ends }, stored))
}

/// Options of each of so many directories.
pub(super) fn options(config: &Config, directories: usize) -> DirectoryOptions {
    DirectoryOptions {
        write_buffer_bytes: config.rocksdb_write_buffer_bytes / directories,
        table_bytes: (config.rocksdb_write_buffer_bytes / directories) as u64,
        table_piece_bytes: config.table_piece_bytes,
        cached: config.page_cache.map(|of_all| CachedBytes {
            max: of_all.max / directories as u64,
            at_once: of_all.at_once / directories as u64,
        }),
        files_bypass_page_cache: config.files_bypass_page_cache,
        disk_reserve_bytes: config.disk_reserve_bytes.unwrap_or(RESERVE_BY_DISK),
        ..DirectoryOptions::default()
    }
}

fn make(path: &Path) -> Result<PathBuf, DirError> {
    let io = |error| DirError::Io { path: path.to_owned(), error };
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    fs::create_dir_all(path).map_err(io)?;
    for made in missing {
        // What is acknowledged must not go with the name of a new directory.
        if let Some(parent) = made.parent() {
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            fs::File::open(parent).and_then(|parent| parent.sync_all()).map_err(io)?;
        }
    }
    // Unreadable is found out now, with a clear line, and not in the middle of recovery.
    fs::read_dir(path).map_err(io)?;
    fs::canonicalize(path).map_err(io)
}

/// Where a log directory lies that has failed, and why it did.
pub(super) type FailedDir = (PathBuf, Arc<str>);

/// Why there is no going on, once there is none: every directory has failed, or the one that the embedded tree lies in.
/// Source: Kafka 3.9 `LogManager.handleLogDirFailure`, which halts where no directory is left, and for the metadata
/// log's in any case. `states`, in the order of `dirs`, are told of each.
///
/// The second holds the other directories that have failed so far, with the reason, in that order.
pub(super) fn watch_failures(
    dirs: &[(SharedLogDir, Arc<Tail>)],
    tree_in_first: bool,
    states: &[Arc<DirState>],
) -> (watch::Receiver<Option<Arc<str>>>, watch::Receiver<Vec<FailedDir>>) {
    let (tell, told) = watch::channel(None);
    let (failed, all_failed) = watch::channel(Vec::new());
    let left = Arc::new(AtomicUsize::new(dirs.len()));
    for (at, ((dir, _), state)) in dirs.iter().zip(states).enumerate() {
        let (tell, left, path, failed) = (tell.clone(), Arc::clone(&left), dir.path(), failed.clone());
        let state = Arc::clone(state);
        dir.when_failed(Box::new(move |reason| {
            state.on_failed();
            let is_last = left.fetch_sub(1, Ordering::AcqRel) == 1;
            let line = if is_last {
                format!("all log directories have failed, {} as the last: {reason}", path.display())
            } else if at == 0 && tree_in_first {
                format!("the log directory with the cluster's state, {}, has failed: {reason}", path.display())
            } else {
                return failed.send_modify(|failed: &mut Vec<FailedDir>| failed.push((path, reason)));
            };
            tell.send_if_modified(|told| {
                let is_first = told.is_none();
                told.get_or_insert_with(|| line.into());
                is_first
            });
        }));
    }
    (told, all_failed)
}

/// Takes the replicas of directories that fail offline, and has the controller told (C12). Ends with the broker, which
/// is held weakly: what the report goes to may lie in the directory that it is about.
pub(super) async fn report_failures(
    mut failed: watch::Receiver<Vec<FailedDir>>,
    registrar: Weak<Registrar>,
    replicas: Weak<ReplicaManager>,
) {
    let mut seen = 0;
    while failed.changed().await.is_ok() {
        let failed = failed.borrow_and_update().clone();
        let (Some(registrar), Some(replicas)) = (registrar.upgrade(), replicas.upgrade()) else { return };
        for (dir, reason) in failed.iter().skip(std::mem::replace(&mut seen, failed.len())) {
            replicas.on_dir_failed(dir, reason);
        }
        registrar.report_failed_dir().await;
    }
}

impl Dirs {
    /// As the replicas want them.
    pub(super) fn for_replicas(&self) -> Vec<ReplicaDir> {
        let dirs = self.dirs.iter().zip(&self.may_lack_ends).zip(&self.configured);
        dirs.map(|(((dir, tail), &may_lack_ends), configured)| ReplicaDir {
            dir: Arc::clone(dir),
            tail: Arc::clone(tail),
            may_lack_ends,
            configured: configured.clone(),
        })
        .collect()
    }

    /// The partitions that have logs here, strays included; copies that are not whole yet are none. Blocking.
    ///
    /// # Errors
    /// A directory cannot be read.
    pub(super) fn partitions(&self) -> Result<Vec<TopicPartition>, StorageError> {
        let mut found = Vec::new();
        for (dir, _) in &self.dirs {
            let futures = marks::futures(&**dir)?;
            let logs = dir.partitions().into_iter().filter(|(id, _)| !futures.contains(&(id.topic_id, id.partition)));
            found.extend(logs.map(|(id, _)| TopicPartition { topic: id.topic, partition: id.partition }));
        }
        Ok(found)
    }

    /// The first of those that have never been a broker's.
    pub(super) fn first_new(&self) -> Option<&Path> {
        self.paths.iter().zip(&self.is_new).find(|(_, is_new)| **is_new).map(|(path, _)| path.as_path())
    }

    /// Whether no log may lack its end: all directories were last written to under the present boot of the machine, and
    /// nothing in them is in doubt.
    pub(super) fn are_whole(&self) -> bool {
        let is_whole = |(dir, _): &(SharedLogDir, _)| {
            !dir.partitions().into_iter().any(|(_, family)| dir.end(family).may_lack_end(false))
        };
        !self.may_lack_ends.contains(&true) && self.dirs.iter().all(is_whole)
    }

    /// Where it is noted under which boot they are written to.
    pub(super) fn boot_notes(&self) -> BootNotes {
        BootNotes { notes: self.notes.clone(), said: false }
    }

    /// Writes `meta.properties` where it is missing and refuses a directory of another cluster.
    pub(super) fn claim(&self, broker_id: BrokerId, cluster_id: &str) -> Result<(), DirError> {
        for path in &self.paths {
            match MetaProperties::read(path)? {
                Some(meta) => {
                    meta.check(path, broker_id, cluster_id)?;
                    if meta.broker_id.is_none() || meta.cluster_id.is_none() {
                        MetaProperties::write(path, broker_id, cluster_id)?;
                    }
                }
                None => MetaProperties::write(path, broker_id, cluster_id)?,
            }
        }
        Ok(())
    }
}
