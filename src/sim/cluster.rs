//! A run: three brokers, their load, and what befalls them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::chance::Chance;
use super::check::{Seen, compare};
use super::load::{Acks, History, Producer};
use super::net::Net;
use super::node::{Boot, Node, SESSION, clock};
use super::store::SimStore;
use super::topics::{self, COMES, MOVES, PLACES, Place, STAYS, two_of_three};
use crate::clock::SharedClock;
use crate::cluster::admin::ClusterAdmin;
use crate::cluster::registration::{OwnSessions, ensure_top_level_paths};
use crate::cluster::znodes::{brokers, partition_state};
use crate::controller::{ControllerHandle, ElectionType, Wishes};
use crate::coordination::Coordination;
use crate::coordination::embedded::EmbeddedCoordination;
use crate::coordination::embedded::testing::TreeDir;
use crate::replica::delete_records::delete_records;
use crate::storage::testing::memory::MemoryDir;
use crate::storage::{LogDir, PartitionId};
use crate::task::testing::{Process, outside};
use crate::types::{BrokerId, LeaderEpoch};

pub(super) const BROKERS: [BrokerId; 3] = [BrokerId(1), BrokerId(2), BrokerId(3)];

/// How long a cluster without faults may take to be whole again.
const PATIENCE: Duration = Duration::from_secs(60);

/// The brokers that run, as a client may ask them.
#[derive(Debug, Default)]
pub(super) struct Live(Mutex<BTreeMap<BrokerId, (u64, Option<Node>)>>);

impl Live {
    pub(super) fn nodes(&self) -> Vec<(BrokerId, Node)> {
        self.0.lock().iter().filter_map(|(id, (_, node))| Some((*id, node.clone()?))).collect()
    }

    fn is_up(&self, id: BrokerId) -> bool {
        matches!(self.0.lock().get(&id), Some((_, Some(_))))
    }

    /// The leader and its epoch, as some broker knows them.
    pub(super) fn leader(&self, place: Place, chance: &Chance) -> Option<(BrokerId, LeaderEpoch)> {
        let nodes = self.nodes();
        let at = chance.below(nodes.len().max(1) as u64) as usize;
        let image = nodes.get(at)?.1.image.current();
        let state = image.partition(place.topic, place.index)?;
        Some((state.leader?, state.leader_epoch))
    }

    /// A process of this number begins, or ends.
    fn set(&self, id: BrokerId, process: u64, node: Option<Node>) {
        let mut live = self.0.lock();
        match live.get(&id) {
            Some((newer, _)) if *newer > process => {}
            _ => drop(live.insert(id, (process, node))),
        }
    }
}

/// A broker, whether it runs or not.
#[derive(Debug)]
struct Member {
    number: u64,
    process: Arc<Process>,
    disk: Arc<MemoryDir>,
    store: Arc<SimStore>,
    sessions: Arc<OwnSessions>,
    stalled: Arc<AtomicBool>,
    /// It lost power, and is not in every ISR again.
    lost_power: bool,
}

/// What may befall a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    PowerLoss,
    Cut,
    CutOneWay,
    Resets,
    HealNet,
    Expire,
    CutFromTree,
    Stall,
    /// The disk's reserve is reached.
    Full,
    /// Not a fault: a client has records deleted.
    DeleteRecords,
    /// Not a fault: replicas move, or a move is taken back.
    Reassign,
    /// Preferred leaders are asked for.
    Prefer,
    /// A topic is deleted.
    Delete,
    /// It is made again.
    Create,
}

const FAULTS: [Fault; 15] = [
    Fault::Kill,
    Fault::PowerLoss,
    Fault::Cut,
    Fault::CutOneWay,
    Fault::Resets,
    Fault::HealNet,
    Fault::Expire,
    Fault::CutFromTree,
    Fault::Stall,
    Fault::Full,
    Fault::DeleteRecords,
    Fault::Reassign,
    Fault::Prefer,
    Fault::Delete,
    Fault::Create,
];

/// A fault that is built in on purpose: a run that does not find it finds nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Plant {
    #[default]
    Nothing,
    /// The controller does not see that a broker was away between two terms (rule B1 of the design).
    BounceUnseen,
    /// A follower asks for more before what it has is written.
    FetchAhead,
    /// A follower does not say under which epoch its last batch was written, so that no leader sees it diverge.
    EpochUnsaid,
}

/// A cluster in a run.
#[derive(Debug)]
pub(super) struct Cluster {
    chance: Chance,
    clock: SharedClock,
    net: Arc<Net>,
    /// A session that is never disturbed.
    pub(super) tree: Arc<EmbeddedCoordination>,
    pub(super) live: Arc<Live>,
    members: BTreeMap<BrokerId, Member>,
    plant: Plant,
}

/// Runs a seed for so long, with faults all the while; then without, until the cluster is whole. Answers the hash of
/// what happened and how many records were acknowledged.
pub(super) async fn run(seed: u64, faults_for: Duration, plant: Plant) -> (u64, usize) {
    let chance = Chance::new(seed);
    let mut cluster = Cluster::start(&chance, plant).await;
    let history = History::default();
    let (stop, stopped) = watch::channel(false);
    let mut producers = Vec::new();
    let places =
        PLACES.into_iter().map(|place| (place, Acks::All)).chain([(PLACES[0], Acks::All), (PLACES[1], Acks::Leader)]);
    for (id, (place, acks)) in (0..).zip(places) {
        let producer = Producer {
            id,
            place,
            acks,
            chance: chance.clone(),
            net: Arc::clone(&cluster.net),
            live: Arc::clone(&cluster.live),
            history: Arc::clone(&history),
            epoch: LeaderEpoch(0),
            transactional: id == 1,
        };
        producers.push(outside(producer.run(stopped.clone())));
    }
    let mut seen = Seen::default();
    let until = Instant::now() + faults_for;
    while Instant::now() < until {
        sleep(chance.millis(50, 500)).await;
        cluster.befall().await;
        seen.look(&cluster).await;
    }
    cluster.heal().await;
    stop.send_replace(true);
    for producer in producers {
        timeout(PATIENCE, producer).await.expect("a record is acknowledged at last").expect("no producer panics");
    }
    cluster.await_equal().await;
    seen.look(&cluster).await;
    let acked = std::mem::take(&mut *history.lock());
    compare(&cluster, &acked).await;
    for id in BROKERS {
        cluster.kill(id);
    }
    (chance.trace().0, acked.len())
}

impl Cluster {
    async fn start(chance: &Chance, plant: Plant) -> Self {
        let tree = TreeDir::new().store();
        ensure_top_level_paths(&*tree, BROKERS[0]).await.expect("the tree answers");
        let mut cluster = Self {
            chance: chance.clone(),
            clock: clock(Instant::now(), chance),
            net: Net::new(chance.clone(), plant),
            tree: Arc::clone(&tree),
            live: Arc::default(),
            members: BTreeMap::new(),
            plant,
        };
        for id in BROKERS {
            let disk = MemoryDir::open().stepped();
            cluster.boot(id, 1, disk, Arc::new(OwnSessions::in_memory()), false);
        }
        topics::create_all(&ClusterAdmin::new(tree), chance).await;
        // One that could not start, since an answer was lost, starts again.
        cluster.heal().await;
        cluster
    }

    /// Starts a broker's process.
    fn boot(&mut self, id: BrokerId, number: u64, disk: Arc<MemoryDir>, sessions: Arc<OwnSessions>, lost_power: bool) {
        let process = Arc::new(Process::default());
        let store = SimStore::new(self.tree.connect(), self.chance.clone(), 2000, self.plant);
        let stalled = Arc::new(AtomicBool::new(false));
        let boot = Boot {
            id,
            chance: self.chance.clone(),
            clock: Arc::clone(&self.clock),
            net: Arc::clone(&self.net),
            store: Arc::clone(&store),
            disk: Arc::clone(&disk),
            sessions: Arc::clone(&sessions),
            stalled: Arc::clone(&stalled),
            may_lack_ends: lost_power,
        };
        self.live.set(id, number, None);
        let booted = process.spawn(boot.run(Arc::clone(&process)));
        let (live, ended) = (Arc::clone(&self.live), Arc::clone(&process));
        drop(outside(async move {
            match booted.await {
                Ok(Some(node)) => live.set(id, number, Some(node)),
                // It could not start, as when its session is lost on the way, and ends.
                Ok(None) | Err(_) => ended.kill(),
            }
        }));
        let lost_power = lost_power || self.members.get(&id).is_some_and(|member| member.lost_power);
        self.members.insert(id, Member { number, process, disk, store, sessions, stalled, lost_power });
    }

    /// `kill -9`: its session lives on until it is noticed.
    fn kill(&mut self, id: BrokerId) {
        let member = &self.members[&id];
        self.net.unplug(id);
        self.live.set(id, member.number + 1, None);
        member.process.kill();
        member.disk.kill();
        let store = Arc::clone(&member.store);
        drop(outside(async move {
            sleep(SESSION).await;
            store.expire().await;
        }));
    }

    /// After [`Self::kill`]: with what was written, or with what a loss of power left of it.
    fn restart(&mut self, id: BrokerId, lost_power: bool) {
        let member = &self.members[&id];
        let number = member.number + 2;
        let (disk, sessions) = if lost_power {
            let kept = self.chance.below(member.disk.unsynced_sets() as u64 + 1) as usize;
            // Another boot of the machine: what this broker's sessions were does not count (rule B2 of the design).
            (member.disk.after_power_loss_but(kept).stepped(), Arc::new(OwnSessions::in_memory()))
        } else {
            (member.disk.stepped(), Arc::clone(&member.sessions))
        };
        self.boot(id, number, disk, sessions, lost_power);
    }

    /// Whether its log may lack what it was counted for: it lost power and has not caught up yet.
    pub(super) fn lacks_ends(&self, id: BrokerId) -> bool {
        self.members[&id].lost_power
    }

    /// One draw of what happens.
    async fn befall(&mut self) {
        let Some(fault) = self.chance.pick(&FAULTS) else { return };
        let Some(victim) = self.chance.pick(&BROKERS) else { return };
        let other = BROKERS[(victim.0 as usize + self.chance.below(2) as usize) % 3];
        let whole = self.is_whole().await;
        for id in BROKERS {
            if whole && self.members[&id].lost_power && self.has_caught_up(id).await {
                self.members.get_mut(&id).expect("one of three").lost_power = false;
            }
        }
        let recovering = self.members.values().any(|member| member.lost_power);
        self.chance.note(&format!("{fault:?} {victim} {other} {whole}"));
        match fault {
            // Who is down comes back, now and then.
            Fault::Kill | Fault::PowerLoss if !self.live.is_up(victim) => {
                if self.members[&victim].process.is_idle() {
                    self.restart(victim, false);
                }
            }
            // While one replica may lack its end all others are needed: with them gone no protocol helps.
            Fault::Kill if !recovering => self.kill(victim),
            Fault::PowerLoss if whole && !recovering && self.is_undisturbed().await => {
                self.kill(victim);
                self.restart(victim, true);
            }
            Fault::Cut => {
                self.net.cut(victim, other);
                self.net.cut(other, victim);
            }
            Fault::CutOneWay => self.net.cut(victim, other),
            Fault::Resets => *self.net.resets.lock() = 20,
            Fault::HealNet => self.net.heal(),
            Fault::Expire if !recovering => self.members[&victim].store.expire().await,
            Fault::CutFromTree if !recovering && !self.members[&victim].store.is_cut_off() => {
                self.cut_from_tree(victim);
            }
            Fault::Stall => self.stall(victim),
            Fault::Full => self.fill_disk(victim),
            Fault::DeleteRecords => self.delete_records(),
            Fault::Reassign if !recovering => self.reassign(),
            Fault::Prefer if !recovering => self.prefer(),
            Fault::Delete => drop(ClusterAdmin::new(self.tree.clone()).mark_for_deletion(&[COMES.into()]).await),
            Fault::Create => topics::create(&ClusterAdmin::new(self.tree.clone()), COMES, &self.chance).await,
            Fault::Reassign | Fault::Prefer => {}
            Fault::Kill | Fault::PowerLoss | Fault::Expire | Fault::CutFromTree => {}
        }
    }

    /// The broker hears nothing of the tree for a while; if that is too long, its session is gone when it does.
    fn cut_from_tree(&self, victim: BrokerId) {
        let store = Arc::clone(&self.members[&victim].store);
        let long = self.chance.millis(100, 9000);
        store.cut_off(true);
        drop(outside(async move {
            sleep(long.min(SESSION)).await;
            if long >= SESSION {
                store.expire().await;
                sleep(long - SESSION).await;
            }
            store.cut_off(false);
        }));
    }

    /// Whoever takes itself for the controller.
    fn controller(&self) -> Option<ControllerHandle> {
        self.live.nodes().into_iter().map(|(_, node)| node.controller).find(ControllerHandle::is_active)
    }

    fn reassign(&self) {
        let Some(place) = self.chance.pick(&PLACES).filter(|place| place.topic == MOVES) else { return };
        let wish = (!self.chance.one_in(5)).then(|| two_of_three(&self.chance));
        self.chance.note(&format!("reassign {place} {wish:?}"));
        let Some(controller) = self.controller() else { return };
        drop(outside(async move {
            // The controller may go before it answers.
            let _ = controller.reassign(Wishes::from([(place.partition(), wish)]), true).await;
        }));
    }

    fn prefer(&self) {
        let Some(controller) = self.controller() else { return };
        drop(outside(async move {
            let all = PLACES.iter().map(Place::partition).collect();
            let _ = controller.elect_leaders(ElectionType::Preferred, all).await;
        }));
    }

    fn stall(&self, victim: BrokerId) {
        let stalled = Arc::clone(&self.members[&victim].stalled);
        let long = self.chance.millis(50, 3000);
        stalled.store(true, Ordering::SeqCst);
        drop(outside(async move {
            sleep(long).await;
            stalled.store(false, Ordering::SeqCst);
        }));
    }

    fn fill_disk(&self, victim: BrokerId) {
        let disk = Arc::clone(&self.members[&victim].disk);
        let long = self.chance.millis(50, 6000);
        disk.set_full(true);
        drop(outside(async move {
            sleep(long).await;
            disk.set_full(false);
        }));
    }

    /// Where nothing is compared but what is left.
    fn delete_records(&self) {
        let Some(place) = self.chance.pick(&PLACES).filter(|place| place.topic != STAYS) else { return };
        let led = |(_, node): (BrokerId, Node)| {
            let partition = node.replicas.get(place.topic, place.index)?;
            partition.view().leading.then_some(partition)
        };
        let Some(partition) = self.live.nodes().into_iter().find_map(led) else { return };
        let view = partition.view();
        let above = self.chance.below((view.high_watermark.0 - view.log_start_offset.0).unsigned_abs() + 1);
        let to = view.log_start_offset + above as i64;
        self.chance.note(&format!("delete records of {place} below {to}"));
        // A disk that is full may refuse it.
        drop(delete_records(&partition, Some(to), 0));
    }

    /// No faults any more; what is down comes up.
    async fn heal(&mut self) {
        self.chance.note("healed");
        self.net.heal();
        for id in BROKERS {
            self.members[&id].store.cut_off(false);
            self.members[&id].stalled.store(false, Ordering::SeqCst);
            self.members[&id].disk.set_full(false);
        }
        let deadline = Instant::now() + PATIENCE;
        while !(BROKERS.iter().all(|id| self.live.is_up(*id)) && self.is_whole().await) {
            assert!(Instant::now() < deadline, "the cluster is not whole again: {}", self.describe().await);
            for id in BROKERS {
                if !self.live.is_up(id) && self.members[&id].process.is_idle() {
                    self.restart(id, false);
                }
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// All replicas end where their leader does, with nothing that could be taken back, and nothing is left on disk of
    /// topics that are gone. A replica that a reassignment took from a broker that was down, or without a session, may
    /// stay with it.
    async fn await_equal(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let homes = topics::homes(&self.tree).await;
            let nodes = self.live.nodes();
            let equal = homes.iter().all(|(place, home)| {
                let mut ends: Vec<_> = nodes
                    .iter()
                    .filter(|(id, _)| home.replicas.contains(id))
                    .filter_map(|(_, node)| node.replicas.get(place.topic, place.index))
                    .map(|replica| (replica.view().log_end_offset, replica.view().high_watermark))
                    .collect();
                let all_there = ends.len() == home.replicas.len();
                ends.dedup();
                // Two that end alike above their high watermarks may still have to find out that they part.
                all_there && ends.len() == 1 && ends[0].0 == ends[0].1
            });
            let on_disk = self.members.values().flat_map(|member| member.disk.partitions());
            let is_there = |id: &PartitionId| homes.values().any(|home| home.topic_id == id.topic_id);
            let left: Vec<_> = on_disk.map(|(id, _)| id).filter(|id| !is_there(id)).collect();
            if equal && left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "equal: {equal}, left: {left:?}, {}", self.describe().await);
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Every partition has a leader that is up, all replicas in sync and where they are to be; no topic is on its way
    /// out.
    async fn is_whole(&self) -> bool {
        let marked = self.tree.children("/admin/delete_topics").await.expect("the tree answers");
        if !marked.is_empty() {
            return false;
        }
        for (place, home) in topics::homes(&self.tree).await {
            let path = partition_state::path(place.topic, place.index);
            let Some((data, _)) = self.tree.get(&path).await.expect("the tree answers") else { return false };
            let node = partition_state::decode(&path, &data).expect("a controller wrote it");
            let led = node.leader.is_some_and(|leader| {
                let replica = self.live.nodes().into_iter().find(|(id, _)| *id == leader);
                let replica = replica.and_then(|(_, node)| node.replicas.get(place.topic, place.index));
                replica.is_some_and(|replica| replica.view().leading && replica.id.topic_id == home.topic_id)
            });
            if !led || home.moving || node.isr.len() < home.replicas.len() {
                return false;
            }
        }
        true
    }

    /// Whether all brokers are up, no session is about to be lost, and every registration has been seen by a
    /// controller: one that has not counts as a restart, so that whoever registered leaves the ISR to whoever loses its
    /// power.
    async fn is_undisturbed(&self) -> bool {
        if !BROKERS.iter().all(|id| self.live.is_up(*id) && !self.members[id].store.is_cut_off()) {
            return false;
        }
        let mut registered = BTreeMap::new();
        for id in BROKERS {
            let Some((_, stat)) = self.tree.get(&brokers::path(id)).await.expect("the tree answers") else {
                return false;
            };
            registered.insert(id, stat.czxid);
        }
        for (place, home) in topics::homes(&self.tree).await {
            let path = partition_state::path(place.topic, place.index);
            let Some((_, state)) = self.tree.get(&path).await.expect("the tree answers") else { return false };
            if home.replicas.iter().any(|id| registered[id] > state.mzxid) {
                return false;
            }
        }
        true
    }

    /// Whether a broker is up and has all that its leaders have shown. The tree may name it as in sync before that: it
    /// knows nothing of a loss of power.
    async fn has_caught_up(&self, id: BrokerId) -> bool {
        let nodes: BTreeMap<_, _> = self.live.nodes().into_iter().collect();
        topics::homes(&self.tree).await.iter().filter(|(_, home)| home.replicas.contains(&id)).all(|(place, _)| {
            let view = |node: &Node| node.replicas.get(place.topic, place.index).map(|replica| replica.view());
            let Some(own) = nodes.get(&id).and_then(view) else { return false };
            let leading = nodes.values().filter_map(view).filter(|view| view.leading);
            let latest = leading.max_by_key(|view| view.leader_epoch);
            latest.is_some_and(|it| it.leader_epoch == own.leader_epoch && own.log_end_offset >= it.high_watermark)
        })
    }

    /// For whoever looks for the reason.
    async fn describe(&self) -> String {
        let mut lines = vec![String::new()];
        let homes = topics::homes(&self.tree).await;
        for place in PLACES {
            let path = partition_state::path(place.topic, place.index);
            let state = self.tree.get(&path).await.ok().flatten();
            let state = state.map(|(data, stat)| (data, stat.version));
            lines.push(format!("{place}: {state:?} {:?}", homes.get(&place)));
            for (id, node) in self.live.nodes() {
                let replica = node.replicas.get(place.topic, place.index);
                lines.push(format!("  {id}: {:?}", replica.map(|replica| (replica.view(), replica.role()))));
            }
        }
        lines.push(format!("leaving: {:?}", self.tree.children("/admin/delete_topics").await));
        let up: Vec<_> = BROKERS.iter().map(|id| (id.0, self.live.is_up(*id))).collect();
        lines.push(format!("up: {up:?}, ids: {:?}", self.tree.children("/brokers/ids").await));
        lines.join("\n")
    }
}
