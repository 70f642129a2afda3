//! Composition: builds the seams from settings, wires the handles, and holds the order of start and stop.
//!
//! Start: pages over HTTP, if they are asked for → lock and open log directories → coordination → identity → listening
//! sockets → register → accept brokers, beside an external ZooKeeper → contend for the controller → first metadata
//! image → let clients in → ready. The image comes from a controller that may be elsewhere, so brokers are heard before
//! it. Whatever fails on the way ends the start with one line.
//! Stop: the controller moves away what this broker leads → no more accepts → what is in flight is answered →
//! coordinators → replicas → storage → session → pages.
//! Decides nothing itself.

mod boot;
mod dirs;
mod first_image;
mod hand_over;
mod http;
mod leadership;
mod links;
mod lost_dir;
mod meta;
mod moved;
mod running;
mod seams;
mod sockets;
mod strays;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};
use uuid::Uuid;

use self::dirs::Dirs;
use self::hand_over::HandOver;
use self::http::HttpServer;
use self::leadership::Leadership;
use self::links::Links;
use self::seams::{Embedded, Seams};
use self::sockets::Sockets;
use crate::api;
use crate::api::context::{Audience, Handles};
use crate::api::dispatch::Origin;
use crate::api::gate::Gate;
use crate::api::replies::Replies;
use crate::clock::SharedClock;
use crate::cluster::admin::ClusterAdmin;
use crate::cluster::auto_create::AutoCreation;
use crate::cluster::control::{BrokerLink, Endpoint, LiveBroker};
use crate::cluster::dynamic_config::DynamicConfig;
use crate::cluster::image::ImagePublisher;
use crate::cluster::producer_ids::ProducerIds;
use crate::cluster::registration::{self, OwnSessions, Registrar, SharedBrokerEpoch};
use crate::cluster::running_config::RunningConfig;
use crate::config::{self, Config};
use crate::controller::{self, ControllerHandle, ControllerParts, ControllerSeat, ControllerSettings};
use crate::coordination::SharedCoordination;
use crate::coordination::embedded::EmbeddedCoordination;
use crate::coordination::zookeeper::{ZookeeperConfig, ZookeeperCoordination};
use crate::coordinator::group::GroupCoordinator;
use crate::coordinator::group::config::GroupConfig;
use crate::coordinator::markers::LocalMarkers;
use crate::coordinator::replica_writer::ReplicaWriter;
use crate::coordinator::routed_markers::RoutedMarkers;
use crate::coordinator::routed_verification::RoutedVerification;
use crate::coordinator::transaction::TransactionCoordinator;
use crate::coordinator::transaction::config::TransactionConfig;
use crate::metrics::{ListenerMetrics, RequestMetrics};
use crate::net::admission::Admission;
use crate::net::connection::Settings;
use crate::net::listener::{self, ConnectionLimits};
use crate::net::write_queue::WriteQueues;
use crate::observe::health::Phase;
use crate::observe::sources::{DirState, Sources};
use crate::observe::watched::Watched;
use crate::peer::fetch::RemoteLeaders;
use crate::peer::markers::RemoteMarkers;
use crate::peer::verify::RemoteVerification;
use crate::peer::{Peers, controller_link};
use crate::replica::alter_partition::{self, IsrChanges};
use crate::replica::control::ReplicaControl;
use crate::replica::fetcher::Fetchers;
use crate::replica::follower_fetch::FollowerFetches;
use crate::replica::maintenance;
use crate::replica::manager::ReplicaManager;
use crate::replica::session_cache::Sessions;
use crate::storage::SharedLogDir;
use crate::task;
use crate::types::limits::BROKERS_REQUEST_BYTES_MAX;
use crate::types::{BrokerId, TopicId};

/// Why a broker did not start, in one line.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

/// Any complaint of a room becomes the one line with which the start ends.
fn failed(error: impl std::fmt::Display) -> StartError {
    StartError(error.to_string())
}

/// Why a broker that runs cannot go on, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fatal {
    /// Its id is another broker's by now. It is to be stopped in order.
    Identity(String),
    /// No log directory is left that takes writes, or not the one with the cluster's state. The process is to end at
    /// once, as Kafka halts.
    LogDirs(String),
}

/// A running broker.
#[derive(Debug)]
pub struct Broker {
    id: BrokerId,
    addresses: Vec<SocketAddr>,
    stopping: watch::Sender<bool>,
    accepting: Vec<JoinHandle<()>>,
    replicas: Arc<ReplicaManager>,
    dirs: Vec<SharedLogDir>,
    coordination: SharedCoordination,
    controller: ControllerHandle,
    hand_over: Option<HandOver>,
    fetchers: Arc<Fetchers>,
    failures: watch::Receiver<Option<Arc<str>>>,
    watched: Arc<Watched>,
    http: Option<HttpServer>,
}

/// How long connections may take to answer what is in flight when the broker stops.
const DRAIN_PATIENCE: Duration = Duration::from_millis(300);

/// Fetches per core that read from storage at the same time: enough to keep a disk busy while each waits for it.
const STORAGE_READS_PER_CORE: usize = 8;

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// How long the controller may take to end. It waits for an answer when ZooKeeper is gone; what it then writes is
/// fenced, as ever.
const CONTROLLER_PATIENCE: Duration = Duration::from_millis(500);

impl Broker {
    /// Starts a broker and returns when it answers Metadata, produce and group requests.
    ///
    /// # Errors
    /// One line that says what is wrong and where; nothing was changed that a second start would trip over.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        Self::start_over(config, Seams::default()).await
    }

    /// [`Self::start`] over seams of the caller's choice.
    async fn start_over(config: Config, seams: Seams) -> Result<Self, StartError> {
        let config = Arc::new(config);
        let Seams { clock, open_dir, embedded } = seams;
        let watched = Watched::new(Arc::clone(&clock));
        let http = HttpServer::start(&config, &watched).await.map_err(failed)?;
        let starting = |what| watched.health.set(Phase::Starting(what));
        let for_dirs = Arc::clone(&config);
        let (dirs, stored) = task::blocking(move || dirs::open(&for_dirs, &open_dir)).await.map_err(failed)?;
        let states: Vec<_> = dirs.dirs.iter().map(|(dir, _)| DirState::new(dir.path())).collect();
        let (failures, failed_dirs) = dirs::watch_failures(&dirs.dirs, config.zookeeper.is_none(), &states);
        starting("the coordination is being reached");
        let coordination = coordinate(&config, &dirs, embedded).await?;
        let identity = identify(&config, &dirs, stored, &*coordination, &clock).await?;
        let sockets = Sockets::bind(&config).await.map_err(failed)?;
        let (stopping, stopped) = watch::channel(false);
        let mut parts = Parts::build(&config, &clock, &dirs, &coordination, &identity, &stopped).await?;
        let counts = sockets.counts();
        watched.on_wired(sources(&parts, states, &counts));
        starting("the broker registers");
        let addresses = sockets.addresses();
        let endpoints = sockets.endpoints(&config);
        let limits = ConnectionLimits::new(running::connection_limits(&parts.handles.config.current()));
        let serving = Serving::new(&config, &parts.handles, &limits, &stopped);
        let counted = sockets.listeners.into_iter().zip(counts);
        let (of_brokers, of_clients): (Vec<Counted>, Vec<Counted>) =
            counted.partition(|((name, _), _)| audience(&config, name) == Audience::Brokers);
        let registrar = Arc::new(registrar(&config, &clock, &dirs, &coordination, &identity, endpoints, &parts.epoch));
        registrar.register().await.map_err(failed)?;
        // Not before: without an epoch of its own it could not tell what is meant for its former registration (I-14).
        let mut accepting = serving.accept(of_brokers);
        task::spawn(dirs::report_failures(failed_dirs, Arc::downgrade(&registrar), Arc::downgrade(&parts.replicas)));
        let controller = parts.handles.controller.clone();
        let seat = parts.seat.take().expect("built with one, taken here alone");
        seat.start(ControllerParts {
            store: Arc::clone(&coordination),
            registrar,
            links: Arc::new(Links { own: Arc::clone(&parts.control) as _, peers: parts.peers.clone() }),
            image: parts.image.subscribe(),
            inventory: Arc::clone(&parts.replicas) as _,
            clock: Arc::clone(&clock),
            settings: ControllerSettings {
                broker: identity.broker_id,
                eligible: config.zookeeper.as_ref().is_none_or(|zookeeper| zookeeper.controller_eligible),
                delete_topic_enable: config.delete_topic_enable,
                config: Arc::clone(&parts.handles.config),
            },
        });
        starting("the controller has not told of all partitions yet");
        let complete =
            first_image::await_complete(&parts.image, &*coordination, identity.broker_id, &controller).await?;
        if first_image::await_epochs(&parts.replicas).await && complete {
            dirs.remember_boot(&parts.replicas.dirs_in_doubt());
        }
        parts.handles.transactions.on_image_complete();
        begin_chores(&config, &clock, &coordination, &parts, &limits);
        parts.handles.gate.open();
        accepting.extend(serving.accept(of_clients));
        watched.health.set(Phase::Running);
        say_ready(identity.broker_id, &addresses);
        let dirs = dirs.dirs.into_iter().map(|(dir, _)| dir).collect();
        Ok(Self {
            id: identity.broker_id,
            addresses,
            stopping,
            accepting,
            replicas: parts.replicas,
            dirs,
            coordination,
            controller,
            hand_over: parts.hand_over,
            fetchers: parts.fetchers,
            failures,
            watched,
            http,
        })
    }

    /// Where `/metrics`, `/livez` and `/readyz` are served, if they are.
    pub fn http_address(&self) -> Option<SocketAddr> {
        Some(self.http.as_ref()?.address)
    }

    /// Bound addresses in the order of `listeners`; with port 0 in the settings these hold the ports that were given.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Resolves with the reason when the broker cannot go on.
    pub fn fatal(&self) -> impl Future<Output = Fatal> + use<> {
        let (mut status, mut failures) = (self.controller.subscribe(), self.failures.clone());
        let identity = async move {
            match status.wait_for(|status| status.fatal.is_some()).await.map(|status| status.fatal.clone()) {
                Ok(Some(reason)) => Fatal::Identity(reason),
                Ok(None) | Err(_) => std::future::pending().await,
            }
        };
        let log_dirs = async move {
            match failures.wait_for(Option::is_some).await.map(|line| line.clone()) {
                Ok(Some(line)) => Fatal::LogDirs(line.to_string()),
                Ok(None) | Err(_) => std::future::pending().await,
            }
        };
        async move {
            tokio::select! {
                fatal = identity => fatal,
                fatal = log_dirs => fatal,
            }
        }
    }

    /// Orderly stop: answers or closes what is in flight, flushes, and gives up the session.
    pub async fn stop(self) {
        info!(target: "kafka.server.KafkaServer", "[KafkaServer id={}] shutting down", self.id);
        self.watched.health.set(Phase::Stopping);
        if let Some(hand_over) = &self.hand_over {
            hand_over.run().await;
        }
        self.stopping.send_replace(true);
        for accepting in self.accepting {
            let _ = accepting.await;
        }
        // Connections hold a receiver each: when the last is gone the channel says so.
        let _ = tokio::time::timeout(DRAIN_PATIENCE, self.stopping.closed()).await;
        if tokio::time::timeout(CONTROLLER_PATIENCE, self.controller.stop()).await.is_err() {
            warn!("the controller waits for ZooKeeper; stopping without it");
        }
        self.fetchers.stop_all().await;
        let (replicas, dirs) = (Arc::clone(&self.replicas), self.dirs);
        task::blocking(move || {
            replicas.close();
            // The embedded tree lies in the first directory, which closes last.
            for dir in dirs.iter().skip(1) {
                dir.close();
            }
        })
        .await;
        self.coordination.close().await;
        let replicas = self.replicas;
        task::blocking(move || {
            if let Some(first) = replicas.dirs().next() {
                first.close();
            }
        })
        .await;
        info!(target: "kafka.server.KafkaServer", "[KafkaServer id={}] shut down completed", self.id);
        drop(self.http);
    }
}

/// What whoever watches the broker looks at.
fn sources(parts: &Parts, dirs: Vec<Arc<DirState>>, listeners: &[Arc<ListenerMetrics>]) -> Sources {
    Sources {
        image: Arc::clone(&parts.image),
        controller: parts.handles.controller.clone(),
        replicas: Arc::clone(&parts.replicas),
        groups: Arc::clone(&parts.handles.groups),
        transactions: Arc::clone(&parts.handles.transactions),
        requests: Arc::clone(&parts.handles.requests),
        listeners: listeners.to_vec(),
        dirs,
    }
}

/// Begins what a broker does by itself, now and then. The limits follow the settings.
fn begin_chores(
    config: &Config,
    clock: &SharedClock,
    coordination: &SharedCoordination,
    parts: &Parts,
    limits: &Arc<ConnectionLimits>,
) {
    let (tree, replicas) = (Arc::clone(coordination), Arc::clone(&parts.replicas));
    task::spawn(strays::watch(tree, replicas, Arc::clone(clock), config.stray_retention_ms));
    let running = Arc::clone(&parts.handles.config);
    let dynamic = Arc::clone(&parts.dynamic_config);
    running::follow(Arc::clone(&running), dynamic, Arc::clone(&parts.replicas), Arc::clone(limits));
    maintenance::start(Arc::clone(&parts.replicas), Arc::clone(clock), running::periods(running));
}

/// The lines that whoever starts a broker waits for: the first under ZooKeeper (testcontainers for Python, and for Java
/// before its KRaft modules), the others under KRaft (testcontainers for Java and Go; for Python and Rust, Strimzi,
/// Kafka's system tests). They cannot know which of the two they start, so all are said, in this order.
///
/// Before them comes Kafka's line that tells the port, for callers that let the system choose one.
fn say_ready(id: BrokerId, addresses: &[SocketAddr]) {
    for address in addresses {
        info!(target: "kafka.network.DataPlaneAcceptor", "Awaiting socket connections on {address}.");
    }
    info!(target: "kafka.server.KafkaServer", "[KafkaServer id={id}] started");
    info!(
        target: "kafka.server.BrokerLifecycleManager",
        "[BrokerLifecycleManager id={id}] The broker has been unfenced. Transitioning from RECOVERY to RUNNING."
    );
    info!(target: "kafka.server.KafkaRaftServer", "[KafkaRaftServer nodeId={id}] Kafka Server started");
}

/// Who this broker is.
struct Identity {
    broker_id: BrokerId,
    cluster_id: Arc<str>,
}

async fn coordinate(config: &Config, dirs: &Dirs, embedded: Embedded) -> Result<SharedCoordination, StartError> {
    let Some(zookeeper) = &config.zookeeper else {
        let first = Arc::clone(&dirs.dirs[0].0);
        let opened = task::blocking(move || EmbeddedCoordination::open(first)).await;
        return Ok(embedded(opened.map_err(failed)?));
    };
    moved::refuse_embedded_tree(dirs, zookeeper).await?;
    let connected = ZookeeperCoordination::connect(zookeeper_settings(zookeeper)).await;
    connected.map(|store| Arc::new(store) as SharedCoordination).map_err(|error| {
        StartError(format!("ZooKeeper at {}{} cannot be used: {error}", zookeeper.connect, zookeeper.chroot))
    })
}

fn zookeeper_settings(zookeeper: &config::ZookeeperConfig) -> ZookeeperConfig {
    ZookeeperConfig {
        session_timeout: millis(i64::from(zookeeper.session_timeout_ms)),
        connection_timeout: millis(i64::from(zookeeper.connection_timeout_ms)),
        max_in_flight: zookeeper.max_in_flight_requests,
        ..ZookeeperConfig::new(format!("{}{}", zookeeper.connect, zookeeper.chroot))
    }
}

async fn identify(
    config: &Config,
    dirs: &Dirs,
    stored: dirs::Stored,
    store: &dyn crate::coordination::Coordination,
    clock: &SharedClock,
) -> Result<Identity, StartError> {
    if let Some(id) = &stored.cluster_id {
        refuse_lost_tree(config, dirs, id, store).await?;
    }
    let proposed = match stored.cluster_id.clone().or_else(|| config.cluster_id.clone()) {
        Some(id) => id,
        None => new_cluster_id(clock),
    };
    let cluster_id = registration::cluster_id(store, &proposed).await.map_err(failed)?;
    let broker_id = match config.broker_id.or(stored.broker_id) {
        Some(id) => id,
        None if config.broker_id_generation_enable => {
            registration::sequence_id(store, config.reserved_broker_max_id).await.map_err(failed)?
        }
        None => return Err(StartError("broker.id is not set and broker.id.generation.enable is false".into())),
    };
    if !config.allow_empty_log_dir {
        lost_dir::refuse(dirs, store, broker_id).await?;
    }
    dirs.claim(broker_id, &cluster_id).map_err(failed)?;
    registration::ensure_top_level_paths(store, broker_id).await.map_err(failed)?;
    Ok(Identity { broker_id, cluster_id: Arc::from(cluster_id) })
}

/// Refuses log directories of a cluster beside an agreed store that holds none. An empty tree knows no topics, so that
/// every log here would be deleted as a stray. Kafka gives the empty tree an id of its own and then refuses the
/// directory; we leave no id behind.
///
/// One directory alone with the embedded tree in it and without logs is no such case: a loss of power early in the
/// first start takes all but `meta.properties`. Later a log is never on disk before the tree that knows it.
async fn refuse_lost_tree(
    config: &Config,
    dirs: &Dirs,
    id: &str,
    store: &dyn crate::coordination::Coordination,
) -> Result<(), StartError> {
    let logs = dirs.dirs.iter().any(|(dir, _)| !dir.partitions().is_empty());
    let lost = config.zookeeper.is_some() || dirs.paths.len() > 1 || logs;
    if !lost || registration::existing_cluster_id(store).await.map_err(failed)?.is_some() {
        return Ok(());
    }
    let first = dirs.paths[0].display();
    Err(StartError(match &config.zookeeper {
        Some(zookeeper) => format!(
            "ZooKeeper at {}{} holds no cluster, but meta.properties in {first} says cluster.id={id}. Configured \
             zookeeper.connect may be wrong, or ZooKeeper has lost its data.",
            zookeeper.connect, zookeeper.chroot
        ),
        None => format!(
            "The first of log.dirs, {first}, holds no cluster, but meta.properties says cluster.id={id}. What the \
             cluster knows is kept in the first directory: it must stay the first, and must not be replaced."
        ),
    }))
}

/// A random UUID in the text form of topic ids, as Kafka makes its cluster ids.
fn new_cluster_id(clock: &SharedClock) -> String {
    let id = uuid::Builder::from_random_bytes(clock.random().to_be_bytes()).into_uuid();
    TopicId(Uuid::from_bytes(*id.as_bytes())).to_string()
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn registrar(
    config: &Config,
    clock: &SharedClock,
    dirs: &Dirs,
    store: &SharedCoordination,
    identity: &Identity,
    endpoints: Vec<Endpoint>,
    epoch: &SharedBrokerEpoch,
) -> Registrar {
    let sessions = match config.zookeeper {
        Some(_) => OwnSessions::open(&dirs.paths[0], dirs.is_same_boot()),
        None => OwnSessions::in_memory(),
    };
    let session_timeout_ms = config.zookeeper.as_ref().map_or(0, |zookeeper| zookeeper.session_timeout_ms);
    Registrar {
        store: Arc::clone(store),
        broker: LiveBroker { id: identity.broker_id, endpoints, rack: config.broker_rack.clone() },
        clock: Arc::clone(clock),
        session_timeout: millis(i64::from(session_timeout_ms)),
        sessions: Arc::new(sessions),
        epoch: epoch.clone(),
    }
}

/// The rooms of a broker, wired.
struct Parts {
    image: Arc<ImagePublisher>,
    dynamic_config: Arc<DynamicConfig>,
    replicas: Arc<ReplicaManager>,
    control: Arc<ReplicaControl>,
    epoch: SharedBrokerEpoch,
    peers: Peers,
    fetchers: Arc<Fetchers>,
    hand_over: Option<HandOver>,
    /// Taken when the controller starts.
    seat: Option<ControllerSeat>,
    handles: Arc<Handles>,
}

impl Parts {
    async fn build(
        config: &Arc<Config>,
        clock: &SharedClock,
        dirs: &Dirs,
        store: &SharedCoordination,
        identity: &Identity,
        stopped: &watch::Receiver<bool>,
    ) -> Result<Self, StartError> {
        let image = Arc::new(ImagePublisher::default());
        let dynamic_config =
            DynamicConfig::start(Arc::clone(store), identity.broker_id, Arc::clone(clock)).await.map_err(failed)?;
        let running = RunningConfig::new(Arc::clone(config));
        running.apply(dynamic_config.brokers());
        let config_of = running::topic_settings(&running, &dynamic_config);
        let surroundings = running::surroundings(config, identity.broker_id, clock, &image);
        let of_replicas = dirs.for_replicas();
        let replicas = task::blocking(move || ReplicaManager::new(surroundings, of_replicas, config_of)).await;
        let replicas = replicas.map_err(failed)?;
        let writer = ReplicaWriter::new(Arc::clone(&replicas), Arc::clone(clock));
        let groups = GroupCoordinator::new(group_config(config), writer.clone(), Arc::clone(clock), Arc::clone(&image));
        let groups = Arc::new(groups);
        let epoch = SharedBrokerEpoch::default();
        let peers = links::peers(config, identity.broker_id, &image, clock);
        let markers = LocalMarkers::new(Arc::clone(&replicas), Arc::clone(&groups), Arc::clone(clock));
        let remote = RemoteMarkers::new(&peers);
        let routed = RoutedMarkers::new(identity.broker_id, Arc::clone(&image), markers.clone(), remote);
        let (controller, seat) = controller::seat();
        let blocks = controller_link::producer_ids(&peers, Arc::new(controller.clone()));
        let producer_ids = ProducerIds::new(identity.broker_id, epoch.clone(), blocks);
        let shutdown = controller_link::shutdown(&peers, Arc::new(controller.clone()));
        let changes = Arc::new(IsrChanges::default());
        let slots = usize::try_from(config.max_incremental_fetch_session_cache_slots).unwrap_or(0);
        let sessions = Arc::new(Sessions::new(slots));
        let follower_fetches = FollowerFetches::new(Arc::clone(&replicas), Arc::clone(&changes), Arc::clone(&sessions));
        let isr = controller_link::isr(&peers, Arc::new(controller.clone()));
        alter_partition::start(Arc::clone(&replicas), changes, isr, epoch.clone());
        let hand_over = HandOver::new(config, identity.broker_id, &epoch, &image, shutdown);
        let transactions = Arc::new(TransactionCoordinator::new(
            transaction_config(config),
            writer,
            routed,
            Arc::clone(clock),
            Arc::clone(&image),
            Arc::clone(&producer_ids),
        ));
        let (remote, local) = (RemoteVerification::new(&peers), Arc::clone(&transactions));
        let verification = RoutedVerification::new(identity.broker_id, Arc::clone(&image), local, remote);
        let (of_groups, of_transactions) = (Arc::clone(&groups), Arc::clone(&transactions));
        let listener = Arc::new(Leadership { groups: of_groups, transactions: of_transactions });
        let (manager, settings) = (Arc::clone(&replicas), Arc::clone(&dynamic_config));
        let leaders = RemoteLeaders::new(&peers);
        let of_fetchers = running::fetcher_settings(config);
        let fetchers = Fetchers::new(identity.broker_id, epoch.clone(), leaders, Arc::clone(clock), of_fetchers);
        let following = Arc::clone(&fetchers);
        let control = ReplicaControl::new(manager, Arc::clone(&image), following, settings, listener, epoch.clone());
        let admin = ClusterAdmin::new(Arc::clone(store));
        let auto_creation = AutoCreation::new(admin.clone(), Arc::clone(&image), Arc::clone(config), Arc::clone(clock));
        let handles = Arc::new(Handles {
            broker_id: identity.broker_id,
            cluster_id: Arc::clone(&identity.cluster_id),
            config: running,
            clock: Arc::clone(clock),
            image: Arc::clone(&image),
            dynamic_config: Arc::clone(&dynamic_config),
            admin,
            auto_creation,
            producer_ids,
            control: Arc::clone(&control) as Arc<dyn BrokerLink>,
            controller,
            replicas: Arc::clone(&replicas),
            follower_fetches,
            groups,
            markers,
            transactions,
            verification,
            gate: Gate::new(stopped.clone()),
            sessions,
            replies: Replies::new(config.reply_bytes, STORAGE_READS_PER_CORE * cores()),
            requests: Arc::new(RequestMetrics::new(api::counted())),
        });
        let seat = Some(seat);
        Ok(Self { image, dynamic_config, replicas, control, fetchers, epoch, peers, hand_over, seat, handles })
    }
}

fn group_config(config: &Config) -> GroupConfig {
    GroupConfig {
        session_timeout_ms_min: config.group_min_session_timeout_ms,
        session_timeout_ms_max: config.group_max_session_timeout_ms,
        group_size_max: usize::try_from(config.group_max_size).unwrap_or(usize::MAX),
        initial_rebalance_delay_ms: config.group_initial_rebalance_delay_ms,
        offset_metadata_units_max: usize::try_from(config.offset_metadata_max_bytes).unwrap_or(usize::MAX),
        offsets_retention_ms: config.offsets_retention_ms,
        offsets_retention_check_interval_ms: config.offsets_retention_check_interval_ms,
    }
}

fn transaction_config(config: &Config) -> TransactionConfig {
    TransactionConfig {
        timeout_ms_max: config.transaction_max_timeout_ms,
        abort_check_interval_ms: i64::from(config.transaction_abort_check_interval_ms),
        expiration_ms: i64::from(config.transactional_id_expiration_ms),
        expiration_check_interval_ms: i64::from(config.transactional_id_expiration_check_interval_ms),
    }
}

/// Who speaks through the listener of this name.
fn audience(config: &Config, listener: &str) -> Audience {
    match config.zookeeper {
        None => Audience::Alone,
        Some(_) if listener == config.inter_broker_listener => Audience::Brokers,
        Some(_) if Some(listener) == config.control_plane_listener.as_deref() => Audience::Brokers,
        Some(_) => Audience::Clients,
    }
}

/// A listener by name, and what is counted for it.
type Counted = ((String, TcpListener), Arc<ListenerMetrics>);

/// Lets connections in, with one budget for all of them.
struct Serving {
    handles: Arc<Handles>,
    admission: Arc<Admission>,
    of_brokers: Arc<Admission>,
    write_queues: Arc<WriteQueues>,
    limits: Arc<ConnectionLimits>,
    config: Arc<Config>,
    stopped: watch::Receiver<bool>,
}

impl Serving {
    fn new(
        config: &Arc<Config>,
        handles: &Arc<Handles>,
        limits: &Arc<ConnectionLimits>,
        stopped: &watch::Receiver<bool>,
    ) -> Self {
        Self {
            handles: Arc::clone(handles),
            admission: Admission::new(usize::try_from(config.queued_max_request_bytes).unwrap_or(usize::MAX)),
            of_brokers: Admission::new(BROKERS_REQUEST_BYTES_MAX),
            write_queues: WriteQueues::new(usize::try_from(config.reply_bytes).unwrap_or(usize::MAX)),
            limits: Arc::clone(limits),
            config: Arc::clone(config),
            stopped: stopped.clone(),
        }
    }

    fn accept(&self, listeners: Vec<Counted>) -> Vec<JoinHandle<()>> {
        listeners.into_iter().map(|((name, socket), counts)| self.accept_one(&name, socket, counts)).collect()
    }

    fn accept_one(&self, name: &str, socket: TcpListener, counts: Arc<ListenerMetrics>) -> JoinHandle<()> {
        let audience = audience(&self.config, name);
        let settings = Settings {
            origin: Origin {
                handles: Arc::clone(&self.handles),
                listener: Arc::from(name),
                audience,
                peer: UNKNOWN_PEER,
            },
            admission: Arc::clone(&self.admission),
            of_brokers: (audience == Audience::Brokers).then(|| Arc::clone(&self.of_brokers)),
            write_queues: Arc::clone(&self.write_queues),
            frame_bytes_max: self.config.socket_request_max_bytes as usize,
            idle_max: self.config.connections_max_idle_ms.map_or(NEVER, millis),
            stopping: self.stopped.clone(),
        };
        let settings_of = move |peer| {
            let mut settings = settings.clone();
            settings.origin.peer = peer;
            settings
        };
        task::spawn(listener::accept(socket, settings_of, Arc::clone(&self.limits), counts, self.stopped.clone()))
    }
}

/// Before a connection says from where it comes.
const UNKNOWN_PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Long enough to mean "never" and short enough for the timer.
const NEVER: Duration = Duration::from_secs(60 * 60 * 24 * 365);
