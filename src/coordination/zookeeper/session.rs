//! Opening, following and closing sessions, and removing what earlier sessions of ours have left behind.
//!
//! A crash leaves ephemerals that live until their session expires, 18 s by default. The crate cannot be given the
//! password of a session that another process has opened, so the old session cannot be closed from here; but anyone may
//! delete an ephemeral, and its owner is a number. So the numbers of our sessions are kept in a file, and after
//! connecting, those nodes that belong to one of them are deleted. The lock on the log directory that holds the file
//! proves that their process is gone.
//!
//! The file holds one session id per line, in decimal; all that may still have ephemerals.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tracing::{info, warn};
use zookeeper_client as zk;

use super::{Published, ZookeeperConfig, error};
use crate::coordination::{CoordinationError, Session};
use crate::task;

/// Most ids that the file remembers. Each start adds one and a successful start removes all others, so more than one
/// are there only after starts that died halfway.
const SESSIONS_REMEMBERED: usize = 32;

/// Sessions of ours that may still have ephemerals.
#[derive(Debug)]
pub(super) struct Leftovers {
    file: Option<PathBuf>,
    sessions: Vec<i64>,
}

impl Leftovers {
    /// From the file; what cannot be read is treated as nothing, which costs the wait for the expiry and no more.
    pub(super) async fn read(file: Option<PathBuf>) -> Leftovers {
        task::blocking(move || {
            let text = file.as_deref().map(std::fs::read_to_string);
            let sessions = match &text {
                Some(Ok(text)) => text.lines().filter_map(|line| line.trim().parse().ok()).collect(),
                Some(Err(error)) if error.kind() != io::ErrorKind::NotFound => {
                    warn!(%error, "the ids of earlier sessions cannot be read; their ephemerals stay until they expire");
                    Vec::new()
                }
                Some(Err(_)) | None => Vec::new(),
            };
            Leftovers { file, sessions }
        })
        .await
    }

    /// Remembers a session before it creates anything.
    async fn add(&mut self, session: i64) {
        self.sessions.push(session);
        let surplus = self.sessions.len().saturating_sub(SESSIONS_REMEMBERED);
        self.sessions.drain(..surplus);
        self.write().await;
    }

    /// Nothing but this session can still have ephemerals.
    async fn keep_only(&mut self, session: i64) {
        self.sessions = vec![session];
        self.write().await;
    }

    /// The session was closed: nothing is left of ours.
    pub(super) async fn forget(&mut self) {
        self.sessions.clear();
        self.write().await;
    }

    async fn write(&self) {
        let Some(file) = self.file.clone() else { return };
        let text: String = self.sessions.iter().map(|session| format!("{session}\n")).collect();
        if let Err(error) = task::blocking(move || replace(&file, &text)).await {
            warn!(%error, "the session's id cannot be kept; after a crash its ephemerals stay until it expires");
        }
    }
}

/// Writes a file whole or not at all, as far as other processes can see. Not synced: after a loss of power an old file
/// costs the wait for the expiry and no more.
fn replace(file: &Path, text: &str) -> io::Result<()> {
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, text)?;
    std::fs::rename(&fresh, file)
}

/// Opens a session within the connection time-out, makes the chroot and removes leftovers.
pub(super) async fn open(config: &ZookeeperConfig, leftovers: &mut Leftovers) -> Result<zk::Client, CoordinationError> {
    let timeout = config.connection_timeout;
    match tokio::time::timeout(timeout, open_unbounded(config, leftovers)).await {
        Ok(opened) => opened,
        Err(_) => Err(CoordinationError::Unknown(format!("no session with {} in {timeout:?}", config.connect))),
    }
}

async fn open_unbounded(config: &ZookeeperConfig, leftovers: &mut Leftovers) -> Result<zk::Client, CoordinationError> {
    let (hosts, chroot) = split_chroot(&config.connect);
    let connector = zk::Client::connector().with_session_timeout(config.session_timeout);
    let mut client = connector.connect(hosts).await.map_err(|refused| error::on(hosts, refused))?;
    let id = client.session_id().0;
    leftovers.add(id).await;
    if let Some(chroot) = chroot {
        let options = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
        client.mkdir(chroot, &options).await.map_err(|refused| error::on(chroot, refused))?;
        client = client
            .chroot(chroot.to_owned())
            .map_err(|_| CoordinationError::Refused(format!("{chroot:?} cannot be a chroot")))?;
    }
    for path in &config.own_ephemerals {
        remove_leftover(&client, path, &leftovers.sessions, id).await.map_err(|refused| error::on(path, refused))?;
    }
    leftovers.keep_only(id).await;
    info!(session = %client.session_id(), timeout = ?client.session_timeout(), "connected to ZooKeeper");
    Ok(client)
}

/// Deletes a node if it belongs to an earlier session of ours.
///
/// ZooKeeper cannot compare an owner and delete in one step. If the old session expires and another process takes the
/// node between the two requests, its fresh node goes instead: it then sees a deletion that it has not asked for, which
/// every user of an ephemeral must expect anyway.
async fn remove_leftover(client: &zk::Client, path: &str, earlier: &[i64], current: i64) -> Result<(), zk::Error> {
    let Some(stat) = client.check_stat(path).await? else { return Ok(()) };
    let owner = stat.ephemeral_owner;
    if owner == 0 || owner == current || !earlier.contains(&owner) {
        return Ok(());
    }
    match client.delete(path, Some(stat.version)).await {
        Ok(()) => {
            info!(path, session = format!("{owner:#x}"), "removed what an earlier session of ours had left behind");
            Ok(())
        }
        Err(zk::Error::NoNode | zk::Error::BadVersion) => Ok(()),
        Err(refused) => Err(refused),
    }
}

/// Splits `hosts/chroot`; a slash that belongs to `tcp://` is no chroot.
fn split_chroot(connect: &str) -> (&str, Option<&str>) {
    let from = connect.rfind("://").map_or(0, |scheme| scheme + 3);
    match connect[from..].find('/') {
        Some(at) => {
            let (hosts, chroot) = connect.split_at(from + at);
            (hosts, (chroot != "/").then_some(chroot))
        }
        None => (connect, None),
    }
}

/// Publishes the session's state until it ends.
pub(super) fn follow(client: &zk::Client, published: &Published) {
    let id = client.session_id().0;
    let mut watcher = client.state_watcher();
    let published = Published::clone(published);
    published.send_replace(state_of(client.state(), id));
    task::spawn(async move {
        loop {
            let state = watcher.changed().await;
            let session = state_of(state, id);
            // `Closed` is final and belongs to `close`.
            published.send_if_modified(|now| {
                let differs = *now != session && *now != Session::Closed;
                if differs {
                    *now = session;
                }
                differs
            });
            if state.is_terminated() {
                return;
            }
        }
    });
}

/// A client that ended without us asking is as good as expired: a new one is needed.
fn state_of(state: zk::SessionState, id: i64) -> Session {
    match state {
        zk::SessionState::SyncConnected | zk::SessionState::ConnectedReadOnly => Session::Connected(id),
        zk::SessionState::Disconnected => Session::Disconnected(id),
        zk::SessionState::Expired | zk::SessionState::AuthFailed | zk::SessionState::Closed => Session::Expired,
    }
}

/// Ends a session: answers whether the ensemble has confirmed it in time. Without a connection there is nobody to ask,
/// so that is not waited for: the session then ends by itself, and a later start of ours removes its ephemerals.
pub(super) async fn close(client: zk::Client, timeout: Duration) -> bool {
    let mut watcher = client.state_watcher();
    if client.state() == zk::SessionState::Disconnected || client.state().is_terminated() {
        return false;
    }
    // The session ends when nobody can make requests any more.
    drop(client);
    let closed = async {
        loop {
            let state = watcher.changed().await;
            if state == zk::SessionState::Disconnected || state.is_terminated() {
                return state == zk::SessionState::Closed;
            }
        }
    };
    tokio::time::timeout(timeout, closed).await.unwrap_or(false)
}
