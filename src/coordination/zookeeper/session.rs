//! Opening, keeping and closing sessions.
//!
//! The crate takes a session for expired by itself once it has been cut off for 7/5 of its time-out. Only the ensemble
//! may say so: while nobody answers nobody expires a session either, and an ensemble that was gone gives every session
//! its whole time-out again when it is back. So a session that the crate gives up is taken up again with a new client
//! of the same session, until a server answers; Kafka's client does the same. Watches do not survive that: they count
//! as changed.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch as published;
use tracing::{info, warn};
use zookeeper_client as zk;

use super::settling::Settling;
use super::{ZookeeperConfig, error};
use crate::coordination::{CoordinationError, Session};
use crate::task;

/// Pause between two tries to open a session.
const CONNECT_PAUSE: Duration = Duration::from_millis(100);

/// Pause between two tries to take a session up again, which may go on for hours.
const TAKE_UP_PAUSE: Duration = Duration::from_millis(500);

/// Fewest hosts in the list that the crate gets. It pauses for 50 ms times the place in the list, and doubles another
/// pause with every round through it, up to many seconds; a list that names its hosts again and again keeps the pauses
/// below two seconds within the time-outs that are usual.
const HOSTS_MIN: usize = 24;

/// The client of the moment and what is known of its session; over all sessions.
#[derive(Debug)]
pub(super) struct Live {
    /// `None` once closed. A client that has ended by itself stays until its session has been taken up again.
    client: Mutex<Option<zk::Client>>,
    state: published::Sender<Session>,
    pub(super) settling: Settling,
}

impl Live {
    /// Begins with this client.
    pub(super) fn new(config: &ZookeeperConfig, client: zk::Client) -> Arc<Live> {
        let state = published::Sender::new(state_of(client.state(), client.session_id().0));
        let live = Arc::new(Live { client: Mutex::new(Some(client.clone())), state, settling: Settling::default() });
        follow(&live, config, &client);
        live
    }

    /// State of the session, as it changes.
    pub(super) fn state(&self) -> &published::Sender<Session> {
        &self.state
    }

    /// A client to send a request with; waits while a session is being taken up again.
    pub(super) async fn client(&self) -> Result<zk::Client, CoordinationError> {
        let mut state = self.state.subscribe();
        loop {
            match *state.borrow_and_update() {
                Session::Expired => return Err(CoordinationError::SessionExpired),
                Session::Closed => return Err(error::closed()),
                Session::Connected(_) | Session::Disconnected(_) => {}
            }
            let client = self.client.lock().clone().ok_or_else(error::closed)?;
            if !client.state().is_terminated() {
                return Ok(client);
            }
            state.changed().await.map_err(|_| error::closed())?;
        }
    }

    /// Goes on with a new client, of the same session or of a new one. Refused once closed: dropping the only client
    /// ends its session.
    pub(super) fn replace(
        self: &Arc<Live>,
        config: &ZookeeperConfig,
        client: zk::Client,
    ) -> Result<(), CoordinationError> {
        let mut current = self.client.lock();
        if current.is_none() {
            return Err(error::closed());
        }
        // Its server may lag behind the one before; first, so that nobody reads by it without a sync.
        self.settling.raise();
        *current = Some(client.clone());
        self.publish(state_of(client.state(), client.session_id().0));
        drop(current);
        follow(self, config, &client);
        Ok(())
    }

    /// Whether the crate has given the session up.
    #[cfg(test)]
    pub(super) fn client_is_terminated(&self) -> bool {
        self.client.lock().as_ref().is_some_and(|client| client.state().is_terminated())
    }

    /// Takes the client away for good.
    pub(super) fn take(&self) -> Option<zk::Client> {
        self.client.lock().take()
    }

    /// `Closed` is final and belongs to [`ZookeeperCoordination::end`](super::ZookeeperCoordination).
    fn publish(&self, session: Session) {
        self.state.send_if_modified(|now| {
            let differs = *now != session && *now != Session::Closed;
            if differs {
                *now = session;
            }
            differs
        });
    }
}

/// Opens a session within the connection time-out and makes the chroot.
pub(super) async fn open(config: &ZookeeperConfig) -> Result<zk::Client, CoordinationError> {
    let timeout = config.connection_timeout;
    match tokio::time::timeout(timeout, open_unbounded(config)).await {
        Ok(opened) => opened,
        Err(_) => {
            let why = config.way.as_ref().and_then(|way| way.failure()).map(|why| format!(": {why}"));
            let why = why.unwrap_or_default();
            Err(CoordinationError::Unknown(format!("no session with {} in {timeout:?}{why}", config.connect)))
        }
    }
}

async fn open_unbounded(config: &ZookeeperConfig) -> Result<zk::Client, CoordinationError> {
    let (hosts, chroot) = split_chroot(&config.connect);
    let mut client = loop {
        match connect(config, None).await {
            Ok(client) => break client,
            Err(refused) if may_pass(&refused) => tokio::time::sleep(CONNECT_PAUSE).await,
            Err(refused) => return Err(error::at_open(hosts, refused)),
        }
    };
    if let Some(chroot) = chroot {
        let options = zk::CreateMode::Persistent.with_acls(config.acls_of(chroot));
        client.mkdir(chroot, &options).await.map_err(|refused| error::at_open(chroot, refused))?;
        client = below(client, chroot)?;
    }
    info!(session = %client.session_id(), timeout = ?client.session_timeout(), "connected to ZooKeeper");
    Ok(client)
}

/// Asks each host once.
async fn connect(config: &ZookeeperConfig, session: Option<zk::SessionInfo>) -> Result<zk::Client, zk::Error> {
    let hosts = config.way.as_ref().map_or_else(|| split_chroot(&config.connect).0, |way| way.hosts());
    let mut connector = zk::Client::connector().with_session_timeout(config.session_timeout).with_fail_eagerly();
    if let Some(session) = session {
        connector = connector.with_session(session);
    }
    if let Some(login) = &config.login {
        let (username, password) = (login.username.clone(), login.password.reveal().to_owned());
        connector = connector.with_sasl(zk::SaslOptions::digest_md5(username, password));
    }
    connector.connect(&repeated(hosts)).await
}

/// Names the hosts so often that they are [`HOSTS_MIN`].
fn repeated(hosts: &str) -> String {
    let times = HOSTS_MIN.div_ceil(hosts.split(',').count());
    vec![hosts; times].join(",")
}

fn below(client: zk::Client, chroot: &str) -> Result<zk::Client, CoordinationError> {
    let refused = |_| CoordinationError::Refused(format!("{chroot:?} cannot be a chroot"));
    client.chroot(chroot.to_owned()).map_err(refused)
}

/// Nobody answered, or not in time, or with what could not be understood: another try may go better.
fn may_pass(refused: &zk::Error) -> bool {
    match refused {
        zk::Error::NoHosts => true,
        zk::Error::SessionExpired => false,
        other => matches!(error::on("/", other.clone()), CoordinationError::Unknown(_)),
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

/// Publishes the session's state until it ends, and takes the session up again where only the crate has given it up.
fn follow(live: &Arc<Live>, config: &ZookeeperConfig, client: &zk::Client) {
    let id = client.session_id().0;
    let session = client.session().clone();
    let mut watcher = client.state_watcher();
    // The last owner's drop must end the session, so nothing here keeps a client.
    let live = Arc::downgrade(live);
    let config = config.clone();
    task::spawn(async move {
        // It may have changed before it was watched, and after its end it changes no more.
        let mut state = watcher.state();
        loop {
            let Some(live) = live.upgrade() else { return };
            let before = *live.state.borrow();
            let now = state_of(state, id);
            live.publish(now);
            match (before, now) {
                (Session::Connected(_), Session::Disconnected(_)) => {
                    warn!(session = %session.id(), "the connection to ZooKeeper is lost");
                }
                (Session::Disconnected(_), Session::Connected(_)) => {
                    info!(session = %session.id(), "connected to ZooKeeper again");
                }
                _ => {}
            }
            if state == zk::SessionState::AuthFailed {
                return;
            }
            drop(live);
            if state.is_terminated() {
                break;
            }
            state = watcher.changed().await;
        }
        take_up(&live, &config, session).await;
    });
}

/// Connects with the session until a server takes it or says that it has expired.
async fn take_up(live: &Weak<Live>, config: &ZookeeperConfig, session: zk::SessionInfo) {
    loop {
        // Whoever closes takes the client first.
        if live.upgrade().is_none_or(|live| live.client.lock().is_none()) {
            return;
        }
        let connected = connect(config, Some(session.clone())).await;
        let Some(live) = live.upgrade() else { return };
        match connected {
            Ok(client) => {
                let (_, chroot) = split_chroot(&config.connect);
                let client = match chroot {
                    Some(chroot) => below(client, chroot).expect("it was one before"),
                    None => client,
                };
                let id = client.session_id();
                match live.replace(config, client) {
                    Ok(()) => info!(session = %id, "connected to ZooKeeper again"),
                    Err(closed) => info!(session = %id, reason = %closed, "the session with ZooKeeper ends"),
                }
                return;
            }
            Err(refused) if may_pass(&refused) => {}
            Err(refused) => {
                warn!(session = %session.id(), error = %refused, "the session with ZooKeeper is over");
                live.publish(Session::Expired);
                return;
            }
        }
        tokio::time::sleep(TAKE_UP_PAUSE).await;
    }
}

/// A client that ended without us asking says nothing about its session.
fn state_of(state: zk::SessionState, id: i64) -> Session {
    match state {
        zk::SessionState::SyncConnected | zk::SessionState::ConnectedReadOnly => Session::Connected(id),
        zk::SessionState::Disconnected | zk::SessionState::Expired | zk::SessionState::Closed => {
            Session::Disconnected(id)
        }
        zk::SessionState::AuthFailed => Session::Expired,
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
