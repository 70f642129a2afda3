//! This broker in the cluster: the cluster's id, its own number, its ephemeral registration and its broker epoch.
//!
//! A broker registers once per session and never beside another one with the same number. A node left behind by an
//! earlier session of the same log directory is ours to delete: the holder of that directory's lock knows that the
//! process behind the old session is gone, so a restart after a crash does not wait for its expiry. That is our own
//! addition; Kafka refuses to start until the old session has expired.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::control::{Endpoint, LiveBroker};
use super::znodes::notifications::{self, LOG_DIR_EVENT_PREFIX};
use super::znodes::{self, ZnodeError, brokers, cluster_id, producer_ids};
use crate::clock::SharedClock;
use crate::coordination::{
    Coordination, CoordinationError, CreateMode, Op, OpResult, Session, SharedCoordination, Stat, ensure_path,
    ensure_paths,
};
use crate::types::{BrokerEpoch, BrokerId};

/// Pause before a call whose outcome was unknown is settled by reading again.
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Pause before a note that could not be written is tried again.
const REPORT_PAUSE: Duration = Duration::from_secs(1);

/// Sessions that are remembered per log directory.
const SESSIONS_REMEMBERED: usize = 16;

#[derive(Debug, thiserror::Error)]
pub(crate) enum RegistrationError {
    #[error(
        "broker id {id} is already registered by another live broker, or one whose session has not ended yet, at {at} \
         (session 0x{session:x}): stop that broker, or give this one another broker.id"
    )]
    AlreadyRegistered { id: BrokerId, at: String, session: i64 },
    #[error("the advertised listener {at} is already registered by broker {by}")]
    EndpointTaken { at: String, by: BrokerId },
    #[error(transparent)]
    Znode(#[from] ZnodeError),
    #[error(transparent)]
    Coordination(#[from] CoordinationError),
}

/// Creates what every broker expects to find. Safe to repeat, and to race with others.
/// Source: Kafka 3.9 `KafkaZkClient.createTopLevelPaths`.
pub(crate) async fn ensure_top_level_paths(store: &dyn Coordination, id: BrokerId) -> Result<(), CoordinationError> {
    ensure_paths(store, &znodes::TOP_LEVEL_PATHS).await?;
    let first = producer_ids::next(None).expect("there is a first block");
    match store.create(producer_ids::PATH, producer_ids::encode(id, &first), CreateMode::Persistent).await {
        Ok(_) | Err(CoordinationError::NodeExists(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The cluster's id, if it has one yet.
pub(crate) async fn existing_cluster_id(store: &dyn Coordination) -> Result<Option<String>, RegistrationError> {
    match store.get(cluster_id::PATH).await? {
        Some((data, _)) => Ok(Some(cluster_id::decode(&data)?)),
        None => Ok(None),
    }
}

/// The cluster's id; `proposed` becomes it when this is the first broker.
pub(crate) async fn cluster_id(store: &dyn Coordination, proposed: &str) -> Result<String, RegistrationError> {
    let create = |path: &str, data| vec![Op::Create { path: path.into(), data, mode: CreateMode::Persistent }];
    loop {
        if let Some(id) = existing_cluster_id(store).await? {
            return Ok(id);
        }
        let parent = create(cluster_id::CLUSTER, Bytes::new());
        let node = create(cluster_id::PATH, cluster_id::encode(proposed));
        // Whether it was ours or another broker's that came through, the next look tells.
        for refused in store.multi_all(vec![parent, node]).await.into_iter().filter_map(Result::err) {
            match refused.error {
                CoordinationError::NodeExists(_) => {}
                CoordinationError::Unknown(_) => sleep(RETRY_PAUSE).await,
                error => return Err(error.into()),
            }
        }
    }
}

/// A number for a broker whose `broker.id` is negative, above `reserved_max` (`reserved.broker.max.id`).
/// Source: Kafka 3.9 `KafkaZkClient.generateBrokerSequenceId`.
pub(crate) async fn sequence_id(store: &dyn Coordination, reserved_max: i32) -> Result<BrokerId, CoordinationError> {
    ensure_path(store, brokers::SEQUENCE).await?;
    let stat = store.set(brokers::SEQUENCE, Bytes::new(), -1).await?;
    Ok(BrokerId(stat.version.saturating_add(reserved_max)))
}

/// The broker epoch, shared by the rooms that send or check it. A control request with a smaller one is stale.
#[derive(Debug, Clone)]
pub(crate) struct SharedBrokerEpoch(Arc<AtomicI64>);

impl Default for SharedBrokerEpoch {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(BrokerEpoch::NONE.0)))
    }
}

impl SharedBrokerEpoch {
    pub(crate) fn get(&self) -> BrokerEpoch {
        BrokerEpoch(self.0.load(Ordering::SeqCst))
    }

    fn set(&self, epoch: BrokerEpoch) {
        self.0.store(epoch.0, Ordering::SeqCst);
    }
}

/// Sessions of the processes that held this log directory, the present one included: one per line, decimal, in a file
/// there. All but the present one are dead, because the directory is locked.
#[derive(Debug)]
pub(crate) struct OwnSessions {
    path: Option<PathBuf>,
    ids: Mutex<Vec<i64>>,
}

impl OwnSessions {
    /// Name of the file inside a log directory.
    pub(crate) const FILE: &'static str = "sessions.klamm";

    /// Reads the file of a locked log directory; a missing or malformed one counts as empty, and so does one of before
    /// the machine's last boot. After that the end of a log may be lost, so this broker must not stand in for the one
    /// it was before the others have seen that one go: it waits for the old session to expire, as Kafka does (B2).
    pub(crate) fn open(log_dir: &Path, is_same_boot: bool) -> Self {
        let path = log_dir.join(Self::FILE);
        let text = match is_same_boot {
            true => std::fs::read_to_string(&path).unwrap_or_default(),
            false => String::new(),
        };
        let ids = text.lines().filter_map(|line| line.trim().parse().ok()).collect();
        Self { path: Some(path), ids: Mutex::new(ids) }
    }

    /// Knows only the sessions of this process; for a store whose sessions end with the process.
    pub(crate) fn in_memory() -> Self {
        Self { path: None, ids: Mutex::default() }
    }

    pub(crate) fn contains(&self, session: i64) -> bool {
        self.ids.lock().contains(&session)
    }

    /// Must return before the session owns a node, or a crash in between would leave a node that is not known to be
    /// ours. One that cannot be kept, on a disk that is full or has failed, is no worse: the next start waits for the
    /// old session's expiry, as after a loss of power, for which it is not synced either.
    fn remember(&self, session: i64) {
        let mut ids = self.ids.lock();
        if ids.contains(&session) {
            return;
        }
        ids.push(session);
        let excess = ids.len().saturating_sub(SESSIONS_REMEMBERED);
        ids.drain(..excess);
        let Some(path) = &self.path else { return };
        let text: String = ids.iter().map(|id| format!("{id}\n")).collect();
        let new = path.with_extension("new");
        if let Err(error) = std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, path)) {
            warn!(path = %path.display(), %error, "the session's id cannot be kept; the next start waits for its expiry");
        }
    }
}

/// Registers this broker, and again after each expiry.
#[derive(Debug)]
pub(crate) struct Registrar {
    pub(crate) store: SharedCoordination,
    pub(crate) broker: LiveBroker,
    pub(crate) clock: SharedClock,
    /// How long another owner's node is waited for: after that, half of it and a second its owner is alive.
    pub(crate) session_timeout: Duration,
    pub(crate) sessions: Arc<OwnSessions>,
    pub(crate) epoch: SharedBrokerEpoch,
}

/// What one attempt found.
enum Attempt {
    Registered(BrokerEpoch),
    Again,
    Foreign { at: String, session: i64, gone: crate::coordination::Changed },
}

impl Registrar {
    /// Registers under the present session; the broker epoch is set when this returns.
    ///
    /// A node of a dead session of ours is replaced. One of another owner is waited for as long as its session could
    /// outlive its process, then it is [`RegistrationError::AlreadyRegistered`].
    /// Source: Kafka 3.9 `KafkaZkClient.registerBroker`, `CheckedEphemeral`.
    pub(crate) async fn register(&self) -> Result<BrokerEpoch, RegistrationError> {
        self.refuse_taken_endpoints().await?;
        // ZooKeeper ends a session up to one tick late (`ExpiryQueue`), which is half the time-out at most, unless
        // `minSessionTimeout` says otherwise.
        let deadline = Instant::now() + self.session_timeout * 3 / 2 + Duration::from_secs(1);
        loop {
            match self.attempt().await {
                Ok(Attempt::Registered(epoch)) => {
                    self.epoch.set(epoch);
                    info!(broker = %self.broker.id, broker_epoch = %epoch, "registered");
                    return Ok(epoch);
                }
                Ok(Attempt::Again) => {}
                Ok(Attempt::Foreign { at, session, gone }) => {
                    warn!(broker = %self.broker.id, at, "this id is registered; waiting for that session");
                    tokio::select! {
                        _ = gone => {}
                        () = sleep_until(deadline) => {
                            return Err(RegistrationError::AlreadyRegistered { id: self.broker.id, at, session });
                        }
                    }
                }
                Err(RegistrationError::Coordination(CoordinationError::Unknown(reason)))
                    if Instant::now() < deadline =>
                {
                    warn!(reason, "registering was cut off; trying again");
                    sleep(RETRY_PAUSE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A new session after an expiry, and a registration in it. Tries until it has one or another broker has taken
    /// over.
    pub(crate) async fn register_anew(&self) -> Result<BrokerEpoch, RegistrationError> {
        loop {
            let result = match self.store.reconnect().await {
                Ok(()) => self.register().await,
                Err(error) => Err(error.into()),
            };
            match result {
                Err(RegistrationError::Coordination(error)) => {
                    warn!(%error, "no new session yet");
                    sleep(Duration::from_secs(1)).await;
                }
                settled => return settled,
            }
        }
    }

    /// Notes for the controller that a log directory of this broker has failed; it asks for all replicas then and hears
    /// which are lost. Tries until the note is on record; a second one does no harm.
    /// Source: Kafka 3.9 `KafkaZkClient.propagateLogDirEvent`.
    pub(crate) async fn report_failed_dir(&self) {
        let data = notifications::encode_log_dir_event(self.broker.id);
        loop {
            match self.store.create(LOG_DIR_EVENT_PREFIX, data.clone(), CreateMode::PersistentSequential).await {
                Ok(_) => return,
                Err(_) if *self.store.session().borrow() == Session::Closed => return,
                Err(error) => {
                    warn!(%error, "a failed log directory could not be noted for the controller; trying again");
                    sleep(REPORT_PAUSE).await;
                }
            }
        }
    }

    async fn attempt(&self) -> Result<Attempt, RegistrationError> {
        let session = connected(&*self.store).await?;
        self.sessions.remember(session);
        let path = brokers::path(self.broker.id);
        let data = brokers::encode(&self.broker, self.clock.now_ms());
        let registration = vec![
            Op::Create { path: path.clone(), data: Bytes::new(), mode: CreateMode::Ephemeral },
            Op::Set { path: path.clone(), data: data.clone(), version: 0 },
        ];
        match self.store.multi(registration).await {
            Ok(results) => match results.last() {
                Some(OpResult::Set(stat)) => Ok(Attempt::Registered(BrokerEpoch(stat.czxid))),
                _ => Err(CoordinationError::Unknown("a set was not answered as one".into()).into()),
            },
            Err(refused) if matches!(refused.error, CoordinationError::NodeExists(_)) => {
                self.existing(&path, data, session).await
            }
            Err(refused) => Err(refused.error.into()),
        }
    }

    /// Decides about the node that was in the way.
    async fn existing(&self, path: &str, data: Bytes, session: i64) -> Result<Attempt, RegistrationError> {
        let (node, gone) = self.store.get_and_watch(path).await?;
        let Some((found, Stat { czxid, version, ephemeral_owner, .. })) = node else { return Ok(Attempt::Again) };
        if ephemeral_owner == session {
            // Our own create, whose answer was lost.
            self.store.set(path, data, -1).await?;
            return Ok(Attempt::Registered(BrokerEpoch(czxid)));
        }
        if self.sessions.contains(ephemeral_owner) {
            info!(path, session = ephemeral_owner, "deleting the registration of an earlier process of this directory");
            return match self.store.delete(path, version).await {
                Ok(()) | Err(CoordinationError::NoNode(_) | CoordinationError::BadVersion(_)) => Ok(Attempt::Again),
                Err(error) => Err(error.into()),
            };
        }
        let at = match brokers::decode(self.broker.id, &found) {
            Ok(broker) => broker.endpoints.iter().map(address).collect::<Vec<_>>().join(", "),
            Err(error) => error.to_string(),
        };
        Ok(Attempt::Foreign { at, session: ephemeral_owner, gone })
    }

    /// Source: Kafka 3.9 `KafkaServer.checkEndpoints`, by way of `createBrokerInfo`.
    async fn refuse_taken_endpoints(&self) -> Result<(), RegistrationError> {
        for name in self.store.children(brokers::IDS).await? {
            let Some(id) = name.parse().ok().map(BrokerId).filter(|id| *id != self.broker.id) else { continue };
            let Some((data, _)) = self.store.get(&brokers::path(id)).await? else { continue };
            let Ok(other) = brokers::decode(id, &data) else { continue };
            let mut taken = other.endpoints.iter().map(address);
            if let Some(at) = taken.find(|at| self.broker.endpoints.iter().any(|mine| address(mine) == *at)) {
                return Err(RegistrationError::EndpointTaken { at, by: id });
            }
        }
        Ok(())
    }
}

fn address(endpoint: &Endpoint) -> String {
    format!("{}:{}", endpoint.host, endpoint.port)
}

/// The session's id, once there is a connection.
async fn connected(store: &dyn Coordination) -> Result<i64, CoordinationError> {
    let mut session = store.session();
    loop {
        match *session.borrow_and_update() {
            Session::Connected(id) => return Ok(id),
            Session::Disconnected(_) => {}
            Session::Expired => return Err(CoordinationError::SessionExpired),
            Session::Closed => return Err(CoordinationError::Refused("the session was closed".into())),
        }
        if session.changed().await.is_err() {
            return Err(CoordinationError::Refused("the session was closed".into()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::clock::testing::ManualClock;
    use crate::coordination::embedded::EmbeddedCoordination;
    use crate::coordination::embedded::testing::TreeDir;

    fn registrar(store: &Arc<EmbeddedCoordination>, id: i32, port: u16) -> Registrar {
        let endpoint = Endpoint {
            listener: "PLAINTEXT".into(),
            security_protocol: "PLAINTEXT".into(),
            host: "localhost".into(),
            port,
        };
        Registrar {
            store: store.clone(),
            broker: LiveBroker { id: BrokerId(id), endpoints: vec![endpoint], rack: None },
            clock: Arc::new(ManualClock::new(1, 1)),
            session_timeout: Duration::from_secs(6),
            sessions: Arc::new(OwnSessions::in_memory()),
            epoch: SharedBrokerEpoch::default(),
        }
    }

    async fn store() -> Arc<EmbeddedCoordination> {
        let store = TreeDir::new().store();
        ensure_top_level_paths(&*store, BrokerId(1)).await.unwrap();
        store
    }

    #[tokio::test]
    async fn broker_epoch_is_the_creating_transaction_and_the_data_version_is_1() {
        let store = store().await;
        let registrar = registrar(&store, 1, 9092);
        let epoch = registrar.register().await.unwrap();
        let (_, stat) = store.get("/brokers/ids/1").await.unwrap().unwrap();
        assert_eq!((stat.czxid, stat.version), (epoch.0, 1));
        assert_eq!(registrar.epoch.get(), epoch);
        assert_eq!(registrar.register().await.unwrap(), epoch, "a repeated request changes nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn second_broker_with_the_same_id_is_refused_once_a_session_would_surely_have_ended() {
        let store = store().await;
        registrar(&store, 1, 9092).register().await.unwrap();
        let second = registrar(&Arc::new(store.connect()), 1, 9093);
        let before = tokio::time::Instant::now();
        let error = second.register().await.unwrap_err();
        assert!(matches!(error, RegistrationError::AlreadyRegistered { .. }), "{error}");
        assert!(error.to_string().contains("localhost:9092"), "{error}");
        assert!((10_000..10_100).contains(&before.elapsed().as_millis()), "{:?}", before.elapsed());
    }

    #[tokio::test]
    async fn restart_after_a_crash_replaces_its_own_node_at_once() {
        let store = store().await;
        let dir = tempfile::tempdir().unwrap();
        let with_file =
            |store| Registrar { sessions: Arc::new(OwnSessions::open(dir.path(), true)), ..registrar(store, 1, 9092) };
        let first = with_file(&store).register().await.unwrap();
        let second = with_file(&Arc::new(store.connect())).register().await.unwrap();
        assert!(second > first);
    }

    /// The note only spares the next start a wait.
    #[tokio::test]
    async fn a_session_that_cannot_be_noted_is_registered_all_the_same() {
        let store = store().await;
        let dir = tempfile::tempdir().unwrap();
        let sessions = Arc::new(OwnSessions::open(dir.path(), true));
        drop(dir);
        let registrar = Registrar { sessions, ..registrar(&store, 1, 9092) };
        assert_eq!(registrar.register().await.unwrap(), registrar.epoch.get());
    }

    /// B2: after a loss of power the broker was back before anybody had seen it go, and led on with less than it had.
    #[tokio::test(start_paused = true)]
    async fn b2_restart_after_another_boot_waits_until_its_old_session_is_gone() {
        let store = store().await;
        let dir = tempfile::tempdir().unwrap();
        let with_file = |store, is_same_boot| Registrar {
            sessions: Arc::new(OwnSessions::open(dir.path(), is_same_boot)),
            ..registrar(store, 1, 9092)
        };
        let first = with_file(&store, true).register().await.unwrap();
        let later = Arc::new(store.connect());
        let again = with_file(&later, false);
        let mut waiting = pin!(again.register());
        assert!(tokio::time::timeout(Duration::from_secs(5), &mut waiting).await.is_err());
        store.close().await;
        assert!(waiting.await.unwrap() > first);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_directory_is_noted_for_the_controller() {
        let store = store().await;
        registrar(&store, 7, 9092).report_failed_dir().await;
        let names = store.children(notifications::LOG_DIR_EVENTS).await.unwrap();
        let (data, _) = store.get(&format!("{}/{}", notifications::LOG_DIR_EVENTS, names[0])).await.unwrap().unwrap();
        assert_eq!((names.len(), data), (1, Bytes::from_static(br#"{"version":1,"broker":7,"event":1}"#)));
    }

    #[tokio::test]
    async fn expiry_brings_a_larger_epoch() {
        let store = store().await;
        let registrar = registrar(&store, 1, 9092);
        let first = registrar.register().await.unwrap();
        store.expire().await;
        let second = registrar.register_anew().await.unwrap();
        assert!(second > first);
        assert_eq!(registrar.epoch.get(), second);
    }

    #[tokio::test]
    async fn taken_endpoint_is_refused() {
        let store = store().await;
        registrar(&store, 1, 9092).register().await.unwrap();
        let error = registrar(&Arc::new(store.connect()), 2, 9092).register().await.unwrap_err();
        assert!(matches!(error, RegistrationError::EndpointTaken { by: BrokerId(1), .. }), "{error}");
    }

    #[tokio::test]
    async fn first_broker_gives_the_cluster_its_id() {
        let store = store().await;
        assert_eq!(cluster_id(&*store, "one").await.unwrap(), "one");
        assert_eq!(cluster_id(&*store, "two").await.unwrap(), "one");
    }

    #[tokio::test]
    async fn sequence_ids_rise_above_the_reserved_ones() {
        let store = store().await;
        assert_eq!(sequence_id(&*store, 1000).await.unwrap(), BrokerId(1001));
        assert_eq!(sequence_id(&*store, 1000).await.unwrap(), BrokerId(1002));
    }
}
