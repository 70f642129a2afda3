//! A whole broker over directories and a coordination that fail by a script, what it was asked to keep, and the checks
//! that hold after any fault.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tempfile::TempDir;

use super::client::{Client, Producer, batch};
use crate::broker::seams::Seams;
use crate::broker::tests::config_of;
use crate::broker::{Broker, Fatal, StartError};
use crate::clock::{SharedClock, SystemClock};
use crate::coordination::embedded::EmbeddedCoordination;
use crate::coordination::testing::{Faults as StoreFaults, FaultyCoordination};
use crate::record::BatchBuilder;
use crate::storage::LogDir;
use crate::storage::testing::faulty::{Faults as DirFaults, FaultyDir};
use crate::storage::testing::memory::MemoryDir;

/// How long anything may take that is bound to happen.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// Kafka's settings with which background work comes at once, on one partition of each internal topic.
const SETTINGS: &[&str] = &[
    "broker.id=1",
    "klamm.tail.bytes=0",
    "group.initial.rebalance.delay.ms=0",
    "offsets.topic.num.partitions=1",
    "transaction.state.log.num.partitions=1",
    "log.initial.task.delay.ms=0",
    "log.retention.check.interval.ms=20",
    "log.cleaner.backoff.ms=20",
];

/// A log directory's disk, which outlives the broker, and its script.
struct Disk {
    contents: Mutex<Arc<MemoryDir>>,
    faults: Arc<DirFaults>,
}

/// What a client was told, to be held against what it finds.
#[derive(Debug, Default)]
struct Ledger {
    /// Topic, partition, offset and value of records that were acknowledged.
    acknowledged: Vec<(String, i32, i64, String)>,
    /// Group and topic, and the last offset whose commit was acknowledged.
    committed: BTreeMap<(String, String), i64>,
    /// Topic and key of records whose deletion was acknowledged.
    deleted: Vec<(String, String)>,
}

pub(super) struct Rig {
    _home: TempDir,
    home: PathBuf,
    disks: Arc<Vec<Disk>>,
    pub(super) store: Arc<StoreFaults>,
    tree: Arc<Mutex<Option<Arc<EmbeddedCoordination>>>>,
    broker: tokio::sync::Mutex<Option<Broker>>,
    address: Mutex<std::net::SocketAddr>,
    ledger: Mutex<Ledger>,
    values: AtomicU64,
    /// The transactional producer, once there is one, and the value of the record in its open transaction.
    pub(super) transaction: Mutex<Option<(Producer, String)>>,
    pub(super) clock: SharedClock,
}

/// Tries until it answers `Some`, or until it should have.
pub(super) async fn soon<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + SOON;
    loop {
        if let Some(found) = attempt().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

impl Rig {
    /// A broker with the topics that every check needs. The first of its directories holds the tree and `other`.
    pub(super) async fn start(dirs: usize) -> Self {
        let home_dir = tempfile::tempdir().unwrap();
        let home = home_dir.path().canonicalize().unwrap();
        let disk = |_| Disk { contents: Mutex::new(MemoryDir::open()), faults: Arc::default() };
        let disks = Arc::new((0..dirs).map(disk).collect());
        let (store, tree) = (Arc::new(StoreFaults::default()), Arc::new(Mutex::new(None)));
        let clock: SharedClock = Arc::new(SystemClock);
        let broker = start_over(&home, &disks, &store, &tree).await.unwrap();
        let address = Mutex::new(broker.addresses()[0]);
        let broker = tokio::sync::Mutex::new(Some(broker));
        let rig = Self {
            _home: home_dir,
            home,
            disks,
            store,
            tree,
            broker,
            address,
            ledger: Mutex::default(),
            values: AtomicU64::default(),
            transaction: Mutex::default(),
            clock,
        };
        rig.make("other", 1, &[]).await;
        let mut client = rig.client().await;
        assert_eq!(rig.produce(&mut client, "other", -1).await, "NONE");
        rig
    }

    pub(super) fn dir(&self, at: usize) -> &DirFaults {
        &self.disks[at].faults
    }

    pub(super) async fn client(&self) -> Client {
        let address = *self.address.lock();
        Client::connect(address).await
    }

    /// Makes a topic before there is any fault.
    pub(super) async fn make(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        assert_eq!(self.client().await.create(name, partitions, settings).await, "NONE");
    }

    /// The directory that holds the partition.
    pub(super) fn dir_of(&self, name: &str, partition: i32) -> usize {
        let holds = |disk: &Disk| {
            let partitions = disk.contents.lock().partitions();
            partitions.iter().any(|(id, _)| id.topic.as_str() == name && id.partition.0 == partition)
        };
        self.disks.iter().position(holds).unwrap_or_else(|| panic!("no directory holds {name}-{partition}"))
    }

    /// A value that nobody else writes.
    pub(super) fn value(&self) -> String {
        format!("v{}", self.values.fetch_add(1, Ordering::SeqCst))
    }

    /// An offset to commit, or a number for a name, above all before it.
    pub(super) fn next_commit(&self) -> i64 {
        100 + self.values.fetch_add(1, Ordering::SeqCst) as i64
    }

    /// Whether a partition holds more records than so many: `present`, `absent`, or the code of who reads it. A log
    /// that is being opened anew may refuse a reader once or twice.
    pub(super) async fn is_present(&self, client: &mut Client, name: &str, partition: i32, before: usize) -> String {
        let until = tokio::time::Instant::now() + Duration::from_secs(1);
        loop {
            match client.read_all(name, partition).await {
                Ok(seen) if seen.len() > before => return "present".into(),
                Ok(_) => return "absent".into(),
                Err(code) if code == "KAFKA_STORAGE_ERROR" && tokio::time::Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(code) => return code,
            }
        }
    }

    /// Notes a record that was acknowledged.
    pub(super) fn acknowledged(&self, name: &str, partition: i32, offset: i64, value: &str) {
        self.ledger.lock().acknowledged.push((name.into(), partition, offset, value.into()));
    }

    pub(super) fn committed(&self, group: &str, name: &str, offset: i64) {
        self.ledger.lock().committed.insert((group.into(), name.into()), offset);
    }

    pub(super) fn deleted(&self, name: &str, key: &str) {
        self.ledger.lock().deleted.push((name.into(), key.into()));
    }

    /// Nothing more is demanded of a topic that is deleted, or whose records may go.
    pub(super) fn forget(&self, name: &str) {
        let mut ledger = self.ledger.lock();
        ledger.acknowledged.retain(|(topic, ..)| topic != name);
        ledger.deleted.retain(|(topic, _)| topic != name);
    }

    /// Appends a record to partition 0 and answers its code.
    pub(super) async fn produce(&self, client: &mut Client, name: &str, acks: i16) -> String {
        self.produce_to(client, name, acks, 1).await
    }

    /// Appends a record to each of the first partitions of a topic and answers their codes.
    pub(super) async fn produce_to(&self, client: &mut Client, name: &str, acks: i16, partitions: usize) -> String {
        let values: Vec<String> = (0..partitions).map(|_| self.value()).collect();
        let now = self.clock.now_ms();
        let batches = values.iter().map(|value| batch(None, Some(value), BatchBuilder::new(), now)).collect();
        let answers = client.produce(name, acks, batches).await;
        for (at, ((code, offset), value)) in answers.iter().zip(&values).enumerate() {
            if code == "NONE" {
                self.acknowledged(name, at as i32, *offset, value);
            }
        }
        answers.into_iter().map(|(code, _)| code).collect::<Vec<_>>().join(", ")
    }

    /// Whether a broker runs.
    pub(super) async fn runs(&self) -> bool {
        self.broker.lock().await.is_some()
    }

    /// What those see who have nothing to do with the fault: `serve`, `read` (but not write), or `none`.
    pub(super) async fn others(&self) -> &'static str {
        if !self.runs().await {
            return "none";
        }
        let mut reader = self.client().await.patient_for(OTHERS_PATIENCE);
        if reader.read_all("other", 0).await.is_err() {
            return "none";
        }
        let mut writer = self.client().await.patient_for(OTHERS_PATIENCE);
        if self.produce(&mut writer, "other", -1).await == "NONE" { "serve" } else { "read" }
    }

    /// The session of this broker expires.
    pub(super) async fn expire(&self) {
        let tree = self.tree.lock().clone().expect("a broker has started");
        tree.expire().await;
    }

    /// Ends the broker without asking, as a kill would, or in order, and starts another on what is on disk.
    pub(super) async fn restart(&self, killed: bool) -> Result<(), StartError> {
        let old = self.broker.lock().await.take();
        if killed {
            for disk in self.disks.iter() {
                disk.faults.detach();
                let mut contents = disk.contents.lock();
                *contents = contents.killed();
            }
            // What it still does cannot reach the new one's disks; it must end all the same.
            self.end(old).await;
        } else {
            self.end(old).await;
            for disk in self.disks.iter() {
                let mut contents = disk.contents.lock();
                *contents = contents.reopen();
            }
        }
        let broker = start_over(&self.home, &self.disks, &self.store, &self.tree).await?;
        *self.address.lock() = broker.addresses()[0];
        *self.broker.lock().await = Some(broker);
        Ok(())
    }

    async fn end(&self, broker: Option<Broker>) {
        if let Some(broker) = broker {
            tokio::time::timeout(SOON, broker.stop()).await.expect("a stop ends, whatever failed before");
        }
    }

    /// Whether the broker wants to end, and why.
    pub(super) async fn fatal(&self) -> Option<Fatal> {
        let fatal = self.broker.lock().await.as_ref()?.fatal();
        tokio::time::timeout(Duration::ZERO, fatal).await.ok()
    }

    /// What must hold once the fault is gone, and after a kill as well.
    pub(super) async fn check(&self, when: &str) {
        soon("the others are served", async || (self.others().await == "serve").then_some(())).await;
        let topics: Vec<(String, i32)> = {
            let ledger = self.ledger.lock();
            let mut topics: Vec<_> = ledger.acknowledged.iter().map(|(name, at, ..)| (name.clone(), *at)).collect();
            topics.extend(ledger.deleted.iter().map(|(name, _)| (name.clone(), 0)));
            topics.sort();
            topics.dedup();
            topics
        };
        let mut client = self.client().await;
        for (name, partition) in topics {
            let what = format!("{name}-{partition} is read {when}");
            let seen = soon(&what, async || client.read_all(&name, partition).await.ok()).await;
            let ledger = self.ledger.lock();
            let mut values: Vec<&str> = seen.iter().filter_map(|record| record.value.as_deref()).collect();
            values.sort_unstable();
            let doubled: Vec<&[&str]> = values.windows(2).filter(|pair| pair[0] == pair[1]).collect();
            assert!(doubled.is_empty(), "{name}-{partition} {when}: twice: {doubled:?}");
            for (of, at, offset, value) in &ledger.acknowledged {
                if (of, at) == (&name, &partition) {
                    let found = seen.iter().find(|record| record.offset == *offset);
                    let found = found.and_then(|record| record.value.as_deref());
                    assert_eq!(found, Some(value.as_str()), "{name}-{partition} {when}: acknowledged at {offset}");
                }
            }
            for (of, key) in &ledger.deleted {
                let last = seen.iter().rfind(|record| record.key.as_ref() == Some(key));
                let back = last.filter(|record| of == &name && record.value.is_some());
                assert!(back.is_none(), "{name} {when}: the deleted key {key} is back: {back:?}");
            }
        }
        let committed = self.ledger.lock().committed.clone();
        for ((group, name), offset) in committed {
            let found = soon("the group answers", async || client.committed(&group, &name).await.ok()).await;
            assert_eq!(found, offset, "{group} {when}: acknowledged commit for {name}");
        }
    }

    /// Names are of use: one can be taken, given back and taken again.
    pub(super) async fn check_names(&self, name: &str) {
        let mut client = self.client().await;
        for _ in 0..2 {
            soon("a topic can be made", async || (client.create(name, 1, &[]).await == "NONE").then_some(())).await;
            let value = self.value();
            let record = batch(None, Some(&value), BatchBuilder::new(), self.clock.now_ms());
            soon("it takes records", async || {
                (client.produce(name, -1, vec![record.clone()]).await[0].0 == "NONE").then_some(())
            })
            .await;
            soon("it can be deleted", async || (client.delete(name).await == "NONE").then_some(())).await;
        }
    }
}

/// How long somebody waits who has nothing to do with a fault.
const OTHERS_PATIENCE: Duration = Duration::from_secs(4);

async fn start_over(
    home: &Path,
    disks: &Arc<Vec<Disk>>,
    store: &Arc<StoreFaults>,
    tree: &Arc<Mutex<Option<Arc<EmbeddedCoordination>>>>,
) -> Result<Broker, StartError> {
    let log_dirs: Vec<String> = (0..disks.len()).map(|at| home.join(at.to_string()).display().to_string()).collect();
    let (disks, store, shown) = (Arc::clone(disks), Arc::clone(store), Arc::clone(tree));
    let seams = Seams {
        clock: Arc::new(SystemClock),
        open_dir: Box::new(move |path, _| {
            let at: usize = path.file_name().and_then(|name| name.to_str()?.parse().ok()).expect("its number");
            let Disk { contents, faults } = &disks[at];
            let contents = contents.lock().clone();
            Ok(FaultyDir::under(contents, path.to_owned(), Arc::clone(faults)) as _)
        }),
        embedded: Box::new(move |opened| {
            let opened = Arc::new(opened);
            *shown.lock() = Some(Arc::clone(&opened));
            FaultyCoordination::under(opened, store)
        }),
    };
    Broker::start_over(config_of(&log_dirs.join(","), SETTINGS), seams).await
}
