//! Who a broker is, and where what the cluster agrees on lies.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::dirs::{self, Dirs};
use super::lost_dir;
use super::moved;
use super::over_zookeeper;
use super::refused::{StartError, failed};
use super::seams::Embedded;
use crate::clock::SharedClock;
use crate::cluster::control::{Endpoint, LiveBroker};
use crate::cluster::epochs_before;
use crate::cluster::registration::{self, OwnSessions, Registrar, SharedBrokerEpoch};
use crate::config::Config;
use crate::coordination::SharedCoordination;
use crate::coordination::embedded::EmbeddedCoordination;
use crate::task;
use crate::types::{BrokerId, LeaderEpoch, TopicId, TopicPartition};

/// Who this broker is.
pub(super) struct Identity {
    pub(super) broker_id: BrokerId,
    pub(super) cluster_id: Arc<str>,
    /// Leader epochs of the partitions here before this process registers; asked where their logs may lack their ends.
    pub(super) epochs_before: Vec<(TopicPartition, LeaderEpoch)>,
}

pub(super) async fn coordinate(
    config: &Config,
    dirs: &Dirs,
    embedded: Embedded,
) -> Result<SharedCoordination, StartError> {
    let Some(zookeeper) = &config.zookeeper else {
        let first = Arc::clone(&dirs.dirs[0].0);
        let opened = task::blocking(move || EmbeddedCoordination::open(first)).await;
        return Ok(embedded(opened.map_err(failed)?));
    };
    moved::refuse_embedded_tree(dirs, zookeeper).await?;
    over_zookeeper::connect(zookeeper).await
}

pub(super) async fn identify(
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
    // The embedded tree may have lost its end with the logs, and says nothing certain then.
    let epochs_before = match config.zookeeper.is_none() || dirs.are_whole() {
        true => Vec::new(),
        false => epochs_before::read(store, dirs.partitions().map_err(failed)?).await.map_err(failed)?,
    };
    Ok(Identity { broker_id, cluster_id: Arc::from(cluster_id), epochs_before })
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

pub(super) fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

pub(super) fn registrar(
    config: &Config,
    clock: &SharedClock,
    dirs: &Dirs,
    store: &SharedCoordination,
    identity: &Identity,
    endpoints: Vec<Endpoint>,
    epoch: &SharedBrokerEpoch,
) -> Registrar {
    let sessions = match config.zookeeper {
        Some(_) => OwnSessions::open(&dirs.paths[0], dirs.are_whole()),
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
