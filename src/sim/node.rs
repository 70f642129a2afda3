//! One broker: put together as the composition root does it, without sockets and coordinators.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::chance::Chance;
use super::net::{Ends, Net, NetController, NetLeaders, NetLinks};
use super::store::SimStore;
use super::topics::PLACES;
use crate::clock::{Clock, SharedClock, UnixMs};
use crate::cluster::control::{BrokerLink, Endpoint, LiveBroker};
use crate::cluster::dynamic_config::DynamicConfig;
use crate::cluster::epochs_before;
use crate::cluster::image::ImagePublisher;
use crate::cluster::registration::{OwnSessions, Registrar, SharedBrokerEpoch};
use crate::cluster::running_config::RunningConfig;
use crate::config::{Config, Inputs, Machine};
use crate::controller::{ControllerHandle, ControllerParts, ControllerSettings, seat};
use crate::coordination::Coordination;
use crate::log::config::LogConfig;
use crate::log::reading::tail::Tail;
use crate::replica::alter_partition::{self, IsrChanges};
use crate::replica::control::{LeadershipListener, ReplicaControl};
use crate::replica::fetcher::Fetchers;
use crate::replica::follower_fetch::FollowerFetches;
use crate::replica::manager::{ReplicaConfig, ReplicaDir, ReplicaManager};
use crate::replica::session_cache::Sessions;
use crate::replica::surroundings::Surroundings;
use crate::replica::testing::fetcher_settings;
use crate::replica::throttle::Throttles;
use crate::storage::testing::memory::MemoryDir;
use crate::storage::{LogDir as _, SharedLogDir};
use crate::task::testing::Process;
use crate::types::{BrokerId, LeaderEpoch, PartitionIndex, TopicName, TopicPartition};

/// Copies that an acks=all write needs.
pub(super) const MIN_INSYNC_REPLICAS: usize = 2;
/// As ZooKeeper keeps a session that is not heard of.
pub(super) const SESSION: Duration = Duration::from_secs(6);

/// Fewer than a broker may come to have in a run, so that some are refused or evicted.
const FETCH_SESSIONS_MAX: usize = 3;

/// How long a follower may lag.
const LAG_MAX: Duration = Duration::from_secs(3);

/// Time since the run began.
#[derive(Debug)]
struct SimClock {
    began: Instant,
    chance: Chance,
}

impl Clock for SimClock {
    fn now_ms(&self) -> UnixMs {
        1_700_000_000_000 + self.monotonic_ms()
    }

    fn monotonic_ms(&self) -> i64 {
        self.began.elapsed().as_millis() as i64
    }

    fn random(&self) -> u128 {
        (u128::from(self.chance.next()) << 64) | u128::from(self.chance.next())
    }
}

/// A clock for whatever runs in this run.
pub(super) fn clock(began: Instant, chance: &Chance) -> SharedClock {
    Arc::new(SimClock { began, chance: chance.clone() })
}

#[derive(Debug)]
struct Nobody;

impl LeadershipListener for Nobody {
    fn on_leading(&self, _: &TopicName, _: PartitionIndex, _: LeaderEpoch) {}
    fn on_resigned(&self, _: &TopicName, _: PartitionIndex) {}
    fn on_topics_deleted(&self, _: &[TopicName]) {}
}

/// What a broker's process is made of, and what outlives it.
#[derive(Debug, Clone)]
pub(super) struct Boot {
    pub(super) id: BrokerId,
    pub(super) chance: Chance,
    pub(super) clock: SharedClock,
    pub(super) net: Arc<Net>,
    pub(super) store: Arc<SimStore>,
    pub(super) disk: Arc<MemoryDir>,
    /// Remembered on its disk.
    pub(super) sessions: Arc<OwnSessions>,
    /// The disk writes nothing for now.
    pub(super) stalled: Arc<AtomicBool>,
    /// The power was gone since the last start.
    pub(super) may_lack_ends: bool,
}

/// A broker that has registered.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) replicas: Arc<ReplicaManager>,
    pub(super) image: Arc<ImagePublisher>,
    pub(super) controller: ControllerHandle,
}

fn defaults() -> Config {
    Config::load(&Inputs::default(), Machine::for_test()).expect("the defaults are legal")
}

impl Boot {
    /// Starts it, within its process. `None`: another session holds its id for too long, or the tree cannot be reached.
    pub(super) async fn run(self, process: Arc<Process>) -> Option<Node> {
        drop(process.spawn(drive_disk(Arc::clone(&self.disk), self.chance.clone(), Arc::clone(&self.stalled))));
        let store = Arc::clone(&self.store) as Arc<dyn Coordination>;
        let tail = Tail::new(1 << 20);
        let dir = Arc::clone(&self.disk) as SharedLogDir;
        let dirs = vec![ReplicaDir { dir, tail, may_lack_ends: self.may_lack_ends, configured: None }];
        // Some ten batches each.
        let log = LogConfig { segment_bytes: 1000, ..LogConfig::default() };
        let config = move |_: &TopicName| ReplicaConfig { log, min_insync_replicas: MIN_INSYNC_REPLICAS };
        let image = Arc::new(ImagePublisher::default());
        let surroundings = Arc::new(Surroundings {
            me: self.id,
            clock: Arc::clone(&self.clock),
            image: Arc::clone(&image),
            lag_max: LAG_MAX,
            throttles: Throttles::default(),
        });
        let replicas = ReplicaManager::new(surroundings, dirs, Arc::new(config)).ok()?;
        if self.may_lack_ends {
            let here = self.disk.partitions().into_iter();
            let here = here.map(|(id, _)| TopicPartition { topic: id.topic, partition: id.partition }).collect();
            replicas.know_epochs(epochs_before::read(&*store, here).await.ok()?);
        }
        drop(process.spawn(upkeep(Arc::clone(&replicas), self.chance.clone())));
        let settings = DynamicConfig::start(Arc::clone(&store), self.id, Arc::clone(&self.clock)).await.ok()?;
        let epoch = SharedBrokerEpoch::default();
        let leaders = Arc::new(NetLeaders { net: Arc::clone(&self.net), me: self.id });
        let clock = Arc::clone(&self.clock);
        let fetchers = Fetchers::new(self.id, epoch.clone(), leaders, Arc::clone(&clock), fetcher_settings());
        let control = ReplicaControl::new(
            Arc::clone(&replicas),
            Arc::clone(&image),
            fetchers,
            settings,
            Arc::new(Nobody),
            epoch.clone(),
        );
        let to_controller =
            Arc::new(NetController { net: Arc::clone(&self.net), me: self.id, image: image.subscribe() });
        let changes = Arc::new(IsrChanges::default());
        alter_partition::start(Arc::clone(&replicas), Arc::clone(&changes), to_controller, epoch.clone());
        let sessions = Arc::new(Sessions::new(FETCH_SESSIONS_MAX));
        let fetches = FollowerFetches::new(Arc::clone(&replicas), changes, sessions);
        let (controller, seat) = seat();
        let ends = Ends {
            process,
            control: Arc::clone(&control) as _,
            isr: Arc::new(controller.clone()),
            fetches,
            replicas: Arc::clone(&replicas),
        };
        let net = Arc::clone(&self.net);
        let registrar = Arc::new(Registrar {
            store: Arc::clone(&store),
            broker: self.registration(),
            clock: Arc::clone(&clock),
            session_timeout: SESSION,
            sessions: self.sessions,
            epoch,
        });
        registrar.register().await.ok()?;
        // Not before: without an epoch of its own it could not tell what is meant for its former registration.
        net.plug(self.id, ends);
        seat.start(ControllerParts {
            store,
            registrar,
            links: Arc::new(NetLinks { net: self.net, me: self.id, own: Arc::clone(&control) as Arc<dyn BrokerLink> }),
            image: image.subscribe(),
            inventory: Arc::clone(&replicas) as _,
            clock,
            settings: ControllerSettings {
                broker: self.id,
                eligible: true,
                delete_topic_enable: true,
                config: RunningConfig::new(Arc::new(defaults())),
            },
        });
        Some(Node { replicas, image, controller })
    }

    fn registration(&self) -> LiveBroker {
        let endpoint = Endpoint {
            listener: "PLAINTEXT".into(),
            security_protocol: "PLAINTEXT".into(),
            host: "localhost".into(),
            port: 9000 + self.id.0 as u16,
        };
        LiveBroker { id: self.id, endpoints: vec![endpoint], rack: None }
    }
}

/// Retention and high watermarks, as `maintenance` has them, in an order that can be repeated.
async fn upkeep(replicas: Arc<ReplicaManager>, chance: Chance) {
    loop {
        sleep(chance.millis(200, 2000)).await;
        for place in PLACES {
            let Some(partition) = replicas.get(place.topic, place.index) else { continue };
            if partition.is_in_doubt() || partition.open_anew(0).is_err() {
                continue;
            }
            let retained = partition.change_log(|log, view, writes| log.retain(0, view.high_watermark, writes));
            // What is not written this time is so the next.
            if let Ok(changed) = retained {
                drop(changed.recorded().await);
            }
            if let Ok(changed) = partition.checkpoint_high_watermark() {
                drop(changed.recorded().await);
            }
        }
    }
}

/// Writes what is queued, some sets at a time, each time after a while.
async fn drive_disk(disk: Arc<MemoryDir>, chance: Chance, stalled: Arc<AtomicBool>) {
    loop {
        disk.has_queued().await;
        sleep(chance.micros(30, 1200)).await;
        while stalled.load(Ordering::SeqCst) {
            sleep(Duration::from_millis(10)).await;
        }
        for _ in 0..=chance.below(4) {
            disk.step();
        }
    }
}
