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
mod identity;
mod leadership;
mod links;
mod lost_dir;
mod meta;
mod moved;
mod over_zookeeper;
mod parts;
mod patience;
mod refused;
mod running;
mod seams;
mod serving;
mod sockets;
mod strays;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use self::hand_over::HandOver;
use self::http::HttpServer;
use self::identity::{coordinate, identify, registrar};
use self::links::Links;
use self::parts::Parts;
pub use self::refused::StartError;
use self::refused::failed;
use self::seams::Seams;
use self::serving::{Counted, Serving, audience};
use self::sockets::Sockets;
use crate::api::context::Audience;
use crate::clock::SharedClock;
use crate::config::Config;
use crate::controller::{ControllerHandle, ControllerParts, ControllerSettings};
use crate::coordination::SharedCoordination;
use crate::metrics::ListenerMetrics;
use crate::net::listener::ConnectionLimits;
use crate::observe::health::Phase;
use crate::observe::sources::{DirState, Sources};
use crate::observe::watched::Watched;
use crate::replica::fetcher::Fetchers;
use crate::replica::maintenance;
use crate::replica::manager::ReplicaManager;
use crate::storage::SharedLogDir;
use crate::task;
use crate::types::BrokerId;

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

/// How long the controller may take to end. It waits for an answer when ZooKeeper is gone; what it then writes is
/// fenced, as ever.
const CONTROLLER_PATIENCE: Duration = Duration::from_millis(500);

/// Waits for a part of the start, as long as there is a log directory to go on with.
async fn unless_failed<T>(
    failures: &watch::Receiver<Option<Arc<str>>>,
    part: impl Future<Output = Result<T, StartError>>,
) -> Result<T, StartError> {
    let mut failures = failures.clone();
    tokio::select! {
        biased;
        done = part => done,
        Ok(line) = failures.wait_for(Option::is_some) => Err(failed(line.as_deref().unwrap_or_default())),
    }
}

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
        let identify = || identify(&config, &dirs, stored.clone(), &*coordination, &clock).boxed();
        let identity = patience::over_losses(&config, coordination.session(), identify).await?;
        let sockets = Sockets::bind(&config).await.map_err(failed)?;
        let (stopping, stopped) = watch::channel(false);
        let mut parts = Parts::build(&config, &clock, &dirs, &coordination, &identity, &stopped).await?;
        let counts = sockets.counts();
        watched.on_wired(sources(&parts, states, &counts));
        starting("the broker registers");
        let addresses = sockets.addresses();
        let endpoints = sockets.endpoints(&config);
        let limits = running::connection_limits(&parts.handles.config.current());
        let limits = ConnectionLimits::new(limits, running::quota_windows(&config));
        let entities = parts.dynamic_config.quotas();
        limits.set_addresses(task::blocking(move || running::address_limits(&entities)).await);
        let serving = Serving::new(&config, &parts.handles, &limits, &parts.authority, &stopped);
        let counted = sockets.listeners.into_iter().zip(counts);
        let (of_brokers, of_clients): (Vec<Counted>, Vec<Counted>) =
            counted.partition(|((name, _), _)| audience(&config, name) == Audience::Brokers);
        let registrar = Arc::new(registrar(&config, &clock, &dirs, &coordination, &identity, endpoints, &parts.epoch));
        let registered = async { registrar.register().await.map_err(failed) };
        unless_failed(&failures, registered).await?;
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
        let complete = first_image::await_complete(&parts.image, &*coordination, identity.broker_id, &controller);
        let complete = unless_failed(&failures, complete).await?;
        first_image::await_epochs(&parts.replicas).await;
        dirs.boot_notes().keep(&parts.replicas, stopped.clone()).await;
        let transactions = Arc::clone(&parts.handles.transactions);
        match complete {
            true => transactions.on_image_complete(),
            false => drop(task::spawn(first_image::await_rest(
                Arc::clone(&parts.image),
                Arc::clone(&coordination),
                move || transactions.on_image_complete(),
            ))),
        }
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
        tls: Arc::clone(&parts.handles.tls),
        quotas: Arc::clone(&parts.handles.quotas),
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
    let tls = Arc::clone(&parts.handles.tls);
    let (replicas, quotas) = (Arc::clone(&parts.replicas), Arc::clone(&parts.handles.quotas));
    running::follow(Arc::clone(&running), dynamic, replicas, Arc::clone(limits), tls, quotas);
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
