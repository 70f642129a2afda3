//! A real ZooKeeper ensemble behind the seam, through crate zookeeper-client.
//!
//! One-shot watches only (the crate's persistent watches die with a reconnect), a time-out of our own on every call
//! (the crate has none), at most [`ZookeeperConfig::max_in_flight`] requests at a time, and one `Unknown` for every way
//! in which the crate reports a cut connection. Retries nothing. Knows nothing of what the nodes mean.
//!
//! Requests of one session reach the ensemble in the order of the calls, and a call that ran out of time may still be
//! on its way. So after an `Unknown` the next read first sends a `sync`, and so it does behind a new client: what it
//! then sees is settled.

mod error;
mod session;
mod settling;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use tokio::sync::{Semaphore, watch as published};
use zookeeper_client as zk;

use self::settling::Settling;
use super::{
    Answer, Changed, Coordination, CoordinationError, CreateMode, MultiError, Op, OpResult, Session, Stat, check_path,
    check_size,
};
use crate::config::Secret;

/// Where the ensemble is and how long we wait for it.
#[derive(Debug, Clone)]
pub(crate) struct ZookeeperConfig {
    /// `host:port,host:port/chroot`. Source: Kafka `zookeeper.connect`. The chroot is created if it is missing.
    pub(crate) connect: String,
    /// Asked of the ensemble, which may clamp it. Source: Kafka `zookeeper.session.timeout.ms`.
    pub(crate) session_timeout: Duration,
    /// How long connecting may take. Source: Kafka `zookeeper.connection.timeout.ms`, by default the session time-out.
    pub(crate) connection_timeout: Duration,
    /// How long a call may take before its outcome is unknown.
    pub(crate) request_timeout: Duration,
    /// Source: Kafka `zookeeper.max.in.flight.requests`.
    pub(crate) max_in_flight: usize,
    /// Who this process is there, proved by SASL DIGEST-MD5; `None`: nobody.
    pub(crate) login: Option<Login>,
    /// Who may do what to nodes that are made here; `None`: everybody everything.
    pub(crate) acls: Option<NodeAcls>,
    /// `None`: by TCP and nothing else.
    pub(crate) way: Option<Arc<dyn Way>>,
}

/// How hosts are reached that the crate cannot reach by itself: over TLS. It lives as long as the sessions.
pub(crate) trait Way: std::fmt::Debug + Send + Sync {
    /// `host:port,…`: where the crate connects to in place of the hosts of [`ZookeeperConfig::connect`].
    fn hosts(&self) -> &str;

    /// Why the last connections came to nothing, for a line or an error; `None`: they did not.
    fn failure(&self) -> Option<String>;
}

/// A name and its password.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) username: String,
    pub(crate) password: Secret,
}

/// Whoever made a node may do everything to it, everybody may read it; but for these.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NodeAcls {
    /// The node that everybody may do everything to; what lies below it is like all others.
    pub(crate) open: &'static str,
    /// Nodes whose paths begin so are for those who made them alone.
    pub(crate) hidden: &'static [&'static str],
}

impl ZookeeperConfig {
    /// Kafka's defaults for everything but the address.
    pub(crate) fn new(connect: impl Into<String>) -> ZookeeperConfig {
        const SESSION_TIMEOUT: Duration = Duration::from_secs(18);
        ZookeeperConfig {
            connect: connect.into(),
            session_timeout: SESSION_TIMEOUT,
            connection_timeout: SESSION_TIMEOUT,
            request_timeout: SESSION_TIMEOUT,
            max_in_flight: 10,
            login: None,
            acls: None,
            way: None,
        }
    }

    /// Who may do what to a node that is made at this path, below the chroot.
    fn acls_of(&self, path: &str) -> zk::Acls<'static> {
        match self.acls {
            None => zk::Acls::anyone_all(),
            Some(acls) if path == acls.open => zk::Acls::anyone_all(),
            Some(acls) if acls.hidden.iter().any(|hidden| path.starts_with(hidden)) => zk::Acls::creator_all(),
            Some(_) => zk::Acls::new(&CREATOR_AND_READERS),
        }
    }
}

static CREATOR_AND_READERS: [zk::Acl; 2] =
    [zk::Acl::new_const(zk::Permission::ALL, "auth", ""), zk::Acl::new_const(zk::Permission::READ, "world", "anyone")];

/// How long the end of a session is waited for. One that hangs must not hold up the stop of the process.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// One session at a time with an ensemble. The runtime that calls `connect` must live as long as this.
#[derive(Debug)]
pub(crate) struct ZookeeperCoordination {
    config: ZookeeperConfig,
    live: Arc<session::Live>,
    permits: Semaphore,
    /// Held while a session is opened.
    connecting: tokio::sync::Mutex<()>,
}

/// A call whose caller goes away, with its client's connection say, has an outcome that is as unknown to all others as
/// that of a call without an answer.
struct GivenUp<'a> {
    settling: &'a Settling,
    answered: bool,
}

impl Drop for GivenUp<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.settling.raise();
        }
    }
}

impl ZookeeperCoordination {
    /// Opens a session and creates the chroot.
    pub(crate) async fn connect(config: ZookeeperConfig) -> Result<ZookeeperCoordination, CoordinationError> {
        let client = session::open(&config).await?;
        Ok(ZookeeperCoordination {
            permits: Semaphore::new(config.max_in_flight.max(1)),
            live: session::Live::new(&config, client),
            config,
            connecting: tokio::sync::Mutex::new(()),
        })
    }

    /// Runs one request within the time-out and the bound on requests in flight.
    async fn call<T, F>(&self, request: impl FnOnce(zk::Client) -> F + Send) -> Result<T, MultiError>
    where
        F: Future<Output = Result<T, MultiError>> + Send,
    {
        let work = async {
            let _permit = self.permits.acquire().await.expect("this semaphore is never closed");
            let client = self.live.client().await.map_err(error::first)?;
            request(client).await
        };
        let mut given_up = GivenUp { settling: &self.live.settling, answered: false };
        let result = tokio::time::timeout(self.config.request_timeout, work).await.unwrap_or_else(|_| {
            let message = format!("no answer in {:?}", self.config.request_timeout);
            Err(error::first(CoordinationError::Unknown(message)))
        });
        given_up.answered = true;
        if matches!(result, Err(MultiError { error: CoordinationError::Unknown(_), .. })) {
            self.live.settling.raise();
        }
        result
    }

    /// [`Self::call`] for what concerns one node.
    async fn on_node<T, F>(
        &self,
        path: &str,
        request: impl FnOnce(zk::Client) -> F + Send,
    ) -> Result<T, CoordinationError>
    where
        F: Future<Output = Result<T, zk::Error>> + Send,
    {
        check_path(path)?;
        let request =
            |client| request(client).map(|result| result.map_err(|refused| error::first(error::on(path, refused))));
        self.call(request).await.map_err(|refused| refused.error)
    }

    /// [`Self::on_node`] for reads: settles first what is unknown.
    async fn read<T, F>(&self, path: &str, request: impl FnOnce(zk::Client) -> F + Send) -> Result<T, CoordinationError>
    where
        F: Future<Output = Result<T, zk::Error>> + Send,
    {
        let settling = &self.live.settling;
        let settled = |client: zk::Client| async move {
            // Only now: the client is the one that the request goes by.
            if let Some(doubts) = settling.due() {
                client.sync("/").await?;
                settling.settle(doubts);
            }
            request(client).await
        };
        self.on_node(path, settled).await
    }

    async fn commit(&self, ops: &[Op]) -> Result<Vec<OpResult>, MultiError> {
        check_size(ops).map_err(error::first)?;
        for (index, op) in ops.iter().enumerate() {
            check_op(op).map_err(|error| MultiError { index, error })?;
        }
        self.call(|client| async move {
            let mut writer = client.new_multi_writer();
            for (index, op) in ops.iter().enumerate() {
                self.add(&mut writer, op)
                    .map_err(|refused| MultiError { index, error: error::on(op.path(), refused) })?;
            }
            let results = writer.commit().await.map_err(|refused| error::of_multi(ops, refused))?;
            results.into_iter().map(result_of).collect::<Result<_, _>>().map_err(error::first)
        })
        .await
    }

    /// [`Self::commit`] for one of many: once one has no answer no more are sent, or a server that hangs would be
    /// waited for as often as there are batches.
    async fn commit_unless(&self, hung: &AtomicBool, ops: &[Op]) -> Result<Vec<OpResult>, MultiError> {
        if hung.load(Ordering::Relaxed) {
            return Err(error::first(CoordinationError::Unknown(
                "it was not sent, since others have no answer".into(),
            )));
        }
        let result = self.commit(ops).await;
        if matches!(result, Err(MultiError { error: CoordinationError::Unknown(_), .. })) {
            hung.store(true, Ordering::Relaxed);
        }
        result
    }

    fn add(&self, writer: &mut zk::MultiWriter<'_>, op: &Op) -> Result<(), zk::Error> {
        match op {
            Op::Check { path, version } => writer.add_check_version(path, *version),
            Op::Create { path, data, mode } => writer.add_create(path, data, &self.options(*mode, path)),
            Op::Set { path, data, version } => writer.add_set_data(path, data, Some(*version)),
            Op::Delete { path, version } => writer.add_delete(path, Some(*version)),
        }
    }

    fn options(&self, mode: CreateMode, path: &str) -> zk::CreateOptions<'static> {
        let mode = match mode {
            CreateMode::Persistent => zk::CreateMode::Persistent,
            CreateMode::Ephemeral => zk::CreateMode::Ephemeral,
            CreateMode::PersistentSequential => zk::CreateMode::PersistentSequential,
        };
        mode.with_acls(self.config.acls_of(path))
    }

    async fn end(&self) {
        // Calls in flight hold the client a little longer, each within its time-out.
        let client = self.live.take();
        let last = *self.live.state().borrow();
        if let Some(client) = client
            && let Session::Connected(_) | Session::Disconnected(_) = last
        {
            session::close(client, self.config.request_timeout.min(CLOSE_PATIENCE)).await;
        }
        self.live.state().send_replace(Session::Closed);
    }
}

fn check_op(op: &Op) -> Result<(), CoordinationError> {
    match op {
        Op::Create { path, mode: CreateMode::PersistentSequential, .. } => check_path(&format!("{path}0")),
        _ => check_path(op.path()),
    }
}

fn result_of(result: zk::MultiWriteResult) -> Result<OpResult, CoordinationError> {
    match result {
        zk::MultiWriteResult::Check => Ok(OpResult::Checked),
        zk::MultiWriteResult::Create { path, .. } => Ok(OpResult::Created(path)),
        zk::MultiWriteResult::SetData { stat } => Ok(OpResult::Set(stat_of(&stat))),
        zk::MultiWriteResult::Delete => Ok(OpResult::Deleted),
        other => Err(CoordinationError::Unknown(format!("an answer of a kind unknown to us: {other:?}"))),
    }
}

fn stat_of(stat: &zk::Stat) -> Stat {
    Stat { czxid: stat.czxid, mzxid: stat.mzxid, version: stat.version, ephemeral_owner: stat.ephemeral_owner }
}

impl Coordination for ZookeeperCoordination {
    fn create<'a>(&'a self, path: &'a str, data: Bytes, mode: CreateMode) -> Answer<'a, (String, Stat)> {
        async move {
            let op = Op::Create { path: path.to_owned(), data, mode };
            check_op(&op)?;
            check_size(std::slice::from_ref(&op))?;
            let Op::Create { data, .. } = op else { unreachable!("made above") };
            let options = self.options(mode, path);
            let create = |client: zk::Client| async move {
                let created = client.create(path, &data, &options).await;
                created.map_err(|refused| error::first(error::on(path, refused)))
            };
            let (stat, sequence) = self.call(create).await.map_err(|refused| refused.error)?;
            let sequential = mode == CreateMode::PersistentSequential;
            Ok((if sequential { format!("{path}{sequence}") } else { path.to_owned() }, stat_of(&stat)))
        }
        .boxed()
    }

    fn get<'a>(&'a self, path: &'a str) -> Answer<'a, Option<(Bytes, Stat)>> {
        self.read(path, move |client| async move {
            match client.get_data(path).await {
                Ok((data, stat)) => Ok(Some((data.into(), stat_of(&stat)))),
                Err(zk::Error::NoNode) => Ok(None),
                Err(refused) => Err(refused),
            }
        })
        .boxed()
    }

    fn get_and_watch<'a>(&'a self, path: &'a str) -> Answer<'a, (Option<(Bytes, Stat)>, Changed)> {
        self.read(path, move |client| async move {
            loop {
                match client.get_and_watch_data(path).await {
                    Ok((data, stat, watcher)) => {
                        return Ok((Some((data.into(), stat_of(&stat))), watch::changed(watcher)));
                    }
                    Err(zk::Error::NoNode) => {}
                    Err(refused) => return Err(refused),
                }
                // Only `exists` watches what is absent. A node made between the two requests is read again.
                let (None, watcher) = client.check_and_watch_stat(path).await? else { continue };
                return Ok((None, watch::changed(watcher)));
            }
        })
        .boxed()
    }

    fn children<'a>(&'a self, path: &'a str) -> Answer<'a, Vec<String>> {
        self.read(path, move |client| async move {
            let mut names = client.list_children(path).await?;
            names.sort_unstable();
            Ok(names)
        })
        .boxed()
    }

    fn children_and_watch<'a>(&'a self, path: &'a str) -> Answer<'a, (Vec<String>, Changed)> {
        self.read(path, move |client| async move {
            let (mut names, watcher) = client.list_and_watch_children(path).await?;
            names.sort_unstable();
            Ok((names, watch::changed(watcher)))
        })
        .boxed()
    }

    fn set<'a>(&'a self, path: &'a str, data: Bytes, version: i32) -> Answer<'a, Stat> {
        async move {
            let op = Op::Set { path: path.to_owned(), data, version };
            check_size(std::slice::from_ref(&op))?;
            let Op::Set { data, .. } = op else { unreachable!("made above") };
            let set = |client: zk::Client| async move { client.set_data(path, &data, Some(version)).await };
            Ok(stat_of(&self.on_node(path, set).await?))
        }
        .boxed()
    }

    fn delete<'a>(&'a self, path: &'a str, version: i32) -> Answer<'a, ()> {
        self.on_node(path, move |client| async move { client.delete(path, Some(version)).await }).boxed()
    }

    fn multi<'a>(&'a self, ops: Vec<Op>) -> BoxFuture<'a, Result<Vec<OpResult>, MultiError>> {
        async move { self.commit(&ops).await }.boxed()
    }

    fn multi_all<'a>(&'a self, batches: Vec<Vec<Op>>) -> BoxFuture<'a, Vec<Result<Vec<OpResult>, MultiError>>> {
        // One session keeps their order. The time of each begins when it may be sent.
        async move {
            let hung = AtomicBool::new(false);
            let hung = &hung;
            let commits = stream::iter(batches).map(|ops| async move { self.commit_unless(hung, &ops).await });
            commits.buffered(self.config.max_in_flight.max(1)).collect().await
        }
        .boxed()
    }

    fn session(&self) -> published::Receiver<Session> {
        self.live.state().subscribe()
    }

    fn reconnect(&self) -> Answer<'_, ()> {
        async move {
            let _one_at_a_time = self.connecting.lock().await;
            if *self.live.state().borrow() != Session::Expired {
                return Ok(());
            }
            let client = session::open(&self.config).await?;
            self.live.replace(&self.config, client)
        }
        .boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.end().boxed()
    }
}
