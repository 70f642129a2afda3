//! Opening, following and closing sessions.

use std::time::Duration;

use tracing::info;
use zookeeper_client as zk;

use super::{Published, ZookeeperConfig, error};
use crate::coordination::{CoordinationError, Session};
use crate::task;

/// Pause between two tries to open a session.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Opens a session within the connection time-out and makes the chroot.
pub(super) async fn open(config: &ZookeeperConfig) -> Result<zk::Client, CoordinationError> {
    let timeout = config.connection_timeout;
    match tokio::time::timeout(timeout, open_unbounded(config)).await {
        Ok(opened) => opened,
        Err(_) => Err(CoordinationError::Unknown(format!("no session with {} in {timeout:?}", config.connect))),
    }
}

async fn open_unbounded(config: &ZookeeperConfig) -> Result<zk::Client, CoordinationError> {
    let (hosts, chroot) = split_chroot(&config.connect);
    let connector = zk::Client::connector().with_session_timeout(config.session_timeout);
    let mut client = loop {
        // The crate gives up after the session's time-out; ours may be longer.
        match connector.clone().connect(hosts).await.map_err(|refused| error::on(hosts, refused)) {
            Ok(client) => break client,
            Err(CoordinationError::Unknown(_)) => tokio::time::sleep(CONNECT_PAUSE).await,
            Err(refused) => return Err(refused),
        }
    };
    if let Some(chroot) = chroot {
        let options = zk::CreateMode::Persistent.with_acls(zk::Acls::anyone_all());
        client.mkdir(chroot, &options).await.map_err(|refused| error::on(chroot, refused))?;
        client = client
            .chroot(chroot.to_owned())
            .map_err(|_| CoordinationError::Refused(format!("{chroot:?} cannot be a chroot")))?;
    }
    info!(session = %client.session_id(), timeout = ?client.session_timeout(), "connected to ZooKeeper");
    Ok(client)
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

/// Ends a session, and waits until the ensemble has confirmed it. Without a connection there is no server to ask, and
/// the session ends by itself later.
pub(super) async fn close(client: zk::Client, timeout: Duration) {
    let mut watcher = client.state_watcher();
    if client.state() == zk::SessionState::Disconnected || client.state().is_terminated() {
        return;
    }
    // The session ends when no request can be made any more.
    drop(client);
    let closed = async {
        loop {
            let state = watcher.changed().await;
            if state == zk::SessionState::Disconnected || state.is_terminated() {
                return;
            }
        }
    };
    // Late is as good as cut off.
    let _ = tokio::time::timeout(timeout, closed).await;
}
