//! SEAM: ZooKeeper's data model. Nodes with data and versions, ephemerals, sequences, multi with check, one-shot
//! watches.
//!
//! Knows nothing of brokers or topics. Two implementations, `zookeeper/` (a real ensemble) and `embedded/` (the same
//! tree in this process, kept in the log directory), pass the one suite in `contract.rs`.
//!
//! Contract
//! - A lost connection leaves the outcome of a write unknown: `CoordinationError::Unknown`. The caller settles it by
//!   reading again; nothing here retries a write.
//! - Watches fire once. Re-arm by reading again, and treat "changed" as "read again".
//! - Every call returns within its time-out.
//! - When a session expires all its ephemerals are gone and every later call answers `SessionExpired`; the owner asks
//!   for a new session with `reconnect`.

#[cfg(test)]
mod contract;
pub(crate) mod embedded;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod zookeeper;

use std::fmt::Debug;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use tokio::sync::{oneshot, watch};

/// Why a call was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CoordinationError {
    #[error("no node {0}")]
    NoNode(String),
    #[error("node {0} exists")]
    NodeExists(String),
    #[error("node {0} has another version")]
    BadVersion(String),
    #[error("node {0} has children")]
    NotEmpty(String),
    #[error("ephemeral node {0} cannot have children")]
    NoChildrenForEphemerals(String),
    /// The request may or may not have been applied.
    #[error("the outcome is unknown: {0}")]
    Unknown(String),
    /// Nothing was applied and the session is gone.
    #[error("the session expired")]
    SessionExpired,
    /// Any other refusal: authentication, an oversized node, a closed client.
    #[error("{0}")]
    Refused(String),
}

/// What ZooKeeper says about a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Stat {
    /// Transaction that created it; a broker's epoch.
    pub(crate) czxid: i64,
    pub(crate) mzxid: i64,
    /// Data version, from 0.
    pub(crate) version: i32,
    /// Session that owns it, 0 for a persistent node.
    pub(crate) ephemeral_owner: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CreateMode {
    Persistent,
    Ephemeral,
    /// Ten decimal digits are appended to the path.
    PersistentSequential,
}

/// One operation of a multi. Versions: −1 matches any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Check { path: String, version: i32 },
    Create { path: String, data: Bytes, mode: CreateMode },
    Set { path: String, data: Bytes, version: i32 },
    Delete { path: String, version: i32 },
}

impl Op {
    /// The node it is about; without the sequence, if it makes one.
    pub(crate) fn path(&self) -> &str {
        match self {
            Op::Check { path, .. } | Op::Create { path, .. } | Op::Set { path, .. } | Op::Delete { path, .. } => path,
        }
    }
}

/// What an operation of a multi answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OpResult {
    Checked,
    /// Path with the sequence, where there is one.
    Created(String),
    Set(Stat),
    Deleted,
}

/// A refused multi: which operation (0-based) and why. Nothing of it was applied, unless `error` is `Unknown`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("operation {index}: {error}")]
pub(crate) struct MultiError {
    pub(crate) index: usize,
    pub(crate) error: CoordinationError,
}

/// A one-shot watch: resolves once, when what was read has changed (or the session was lost, which counts as changed).
pub(crate) type Changed = oneshot::Receiver<()>;

/// State of the session as its owner sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Session {
    /// Connected, with this session id.
    Connected(i64),
    /// Cut off; the session may still live.
    Disconnected(i64),
    /// All ephemerals are gone. Ends with `reconnect`.
    Expired,
    /// Closed by us.
    Closed,
}

/// Result of a call.
pub(crate) type Answer<'a, T> = BoxFuture<'a, Result<T, CoordinationError>>;

/// The agreed store. Paths are absolute, below the chroot.
pub(crate) trait Coordination: Debug + Send + Sync + 'static {
    /// Creates one node. The parent must exist. Answers the path (with its sequence) and the new node's stat.
    fn create<'a>(&'a self, path: &'a str, data: Bytes, mode: CreateMode) -> Answer<'a, (String, Stat)>;
    /// Data and stat; `None` if there is no such node.
    fn get<'a>(&'a self, path: &'a str) -> Answer<'a, Option<(Bytes, Stat)>>;
    /// The same, with a watch on data, deletion and (if it is absent) creation.
    fn get_and_watch<'a>(&'a self, path: &'a str) -> Answer<'a, (Option<(Bytes, Stat)>, Changed)>;
    /// Names of the children, sorted; `NoNode` if the node is absent.
    fn children<'a>(&'a self, path: &'a str) -> Answer<'a, Vec<String>>;
    /// The same, with a watch on the list of children. The node must exist.
    fn children_and_watch<'a>(&'a self, path: &'a str) -> Answer<'a, (Vec<String>, Changed)>;
    /// Replaces data if the version matches (−1: any).
    fn set<'a>(&'a self, path: &'a str, data: Bytes, version: i32) -> Answer<'a, Stat>;
    /// Deletes a node without children if the version matches (−1: any).
    fn delete<'a>(&'a self, path: &'a str, version: i32) -> Answer<'a, ()>;
    /// All or nothing.
    fn multi<'a>(&'a self, ops: Vec<Op>) -> BoxFuture<'a, Result<Vec<OpResult>, MultiError>>;
    /// Many independent multis, pipelined or synced once; answers in order.
    fn multi_all<'a>(&'a self, batches: Vec<Vec<Op>>) -> BoxFuture<'a, Vec<Result<Vec<OpResult>, MultiError>>>;
    /// The session's state, as it changes.
    fn session(&self) -> watch::Receiver<Session>;
    /// A new session after `Expired`; waits until connected or the time-out.
    fn reconnect(&self) -> Answer<'_, ()>;
    /// Ends the session, so that its ephemerals are gone when this returns.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A shared store.
pub(crate) type SharedCoordination = Arc<dyn Coordination>;

/// Creates persistent, empty nodes and every missing parent; existing nodes are left as they are. One round of writes.
pub(crate) async fn ensure_paths(store: &dyn Coordination, paths: &[&str]) -> Result<(), CoordinationError> {
    let mut wanted = Vec::new();
    for path in paths {
        let ends = path.match_indices('/').skip(1).map(|(at, _)| at).chain([path.len()]);
        wanted.extend(ends.map(|end| &path[..end]).filter(|path| *path != "/"));
    }
    let create =
        |path: &&str| vec![Op::Create { path: (*path).to_owned(), data: Bytes::new(), mode: CreateMode::Persistent }];
    for result in store.multi_all(wanted.iter().map(create).collect()).await {
        match result.map_err(|refused| refused.error) {
            Ok(_) | Err(CoordinationError::NodeExists(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// [`ensure_paths`] for one path.
pub(crate) async fn ensure_path(store: &dyn Coordination, path: &str) -> Result<(), CoordinationError> {
    ensure_paths(store, &[path]).await
}

/// Most bytes of one write request, a multi being one. A ZooKeeper server drops the whole connection over 1 MiB
/// (`jute.maxbuffer`), so the check comes before; the embedded tree keeps the same bound, lest a cluster refuse what
/// one node took.
pub(crate) const REQUEST_BYTES_MAX: usize = 1_000_000;

/// Bytes of an operation besides its path and data, generously.
const OP_OVERHEAD_BYTES: usize = 64;

/// Refuses a request that a ZooKeeper server would drop the connection for.
fn check_size(ops: &[Op]) -> Result<(), CoordinationError> {
    let bytes = |op: &Op| match op {
        Op::Check { path, .. } | Op::Delete { path, .. } => path.len() + OP_OVERHEAD_BYTES,
        Op::Create { path, data, .. } | Op::Set { path, data, .. } => path.len() + data.len() + OP_OVERHEAD_BYTES,
    };
    let total: usize = ops.iter().map(bytes).sum();
    if total > REQUEST_BYTES_MAX {
        return Err(CoordinationError::Refused(format!(
            "{total} bytes are more than {REQUEST_BYTES_MAX} in one request"
        )));
    }
    Ok(())
}

/// Refuses a path that ZooKeeper refuses. Source: ZooKeeper `PathUtils.validatePath`.
fn check_path(path: &str) -> Result<(), CoordinationError> {
    let refuse = |why: &str| Err(CoordinationError::Refused(format!("path {path:?} {why}")));
    let Some(below) = path.strip_prefix('/') else { return refuse("does not start with /") };
    if below.is_empty() {
        return Ok(());
    }
    if below.split('/').any(|name| matches!(name, "" | "." | "..")) {
        return refuse("has an empty or relative part");
    }
    let control = |c: char| matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}');
    let illegal = |c: char| control(c) || matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..='\u{ffff}');
    if below.contains(illegal) { refuse("has a character that is not allowed") } else { Ok(()) }
}
