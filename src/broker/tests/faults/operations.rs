//! The rows of the table: what each operation needs, does, and shows afterwards.

use std::time::Duration;

use super::client::{Client, Seen, batch};
use super::rig::{Rig, SOON, soon};
use super::table::Column;
use crate::record::BatchBuilder;
use crate::types::{ProducerEpoch, ProducerId};

/// Where the faults of a row strike.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// The log directory.
    pub(super) dir: usize,
    /// Whose reads fail.
    pub(super) topic: &'static str,
    /// Writes to the coordination at and below this path.
    pub(super) path: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Produce { acks: i16 },
    ProduceAlone,
    ProduceMany,
    Fetch,
    ListOffsets,
    CreateTopic,
    CreateTopicTree,
    DeleteTopic,
    DeleteTopicTree,
    GrowTopic,
    AutoCreation,
    AlterConfig,
    CommitOffsets,
    JoinGroup,
    InitProducer,
    InitIdempotentProducer,
    AddOffsets,
    EndTransaction,
    Retention,
    DeleteRecords,
    Compaction,
    Restart,
    Election,
}

use Operation::*;

/// The rows, in the order of the table.
pub(super) const OPERATIONS: &[(&str, Operation)] = &[
    ("produce, acks=1", Produce { acks: 1 }),
    ("produce, acks=all", Produce { acks: -1 }),
    ("produce, the only directory", ProduceAlone),
    ("produce, two partitions", ProduceMany),
    ("fetch", Fetch),
    ("list offsets by time", ListOffsets),
    ("create topic: its logs", CreateTopic),
    ("create topic: the tree", CreateTopicTree),
    ("delete topic: its logs", DeleteTopic),
    ("delete topic: the tree", DeleteTopicTree),
    ("grow topic", GrowTopic),
    ("auto-creation", AutoCreation),
    ("alter config", AlterConfig),
    ("commit offsets", CommitOffsets),
    ("join group", JoinGroup),
    ("init producer, transactional", InitProducer),
    ("init producer, idempotent", InitIdempotentProducer),
    ("add offsets to transaction", AddOffsets),
    ("end transaction", EndTransaction),
    ("retention", Retention),
    ("delete records", DeleteRecords),
    ("compaction", Compaction),
    ("restart", Restart),
    ("controller election", Election),
];

const GROUP: &str = "g";
const TRANSACTION: &str = "x";
/// Settings with which all that is written is old enough for the cleaner at once, when it comes to compact.
const OLD_AT_ONCE: &[(&str, &str)] =
    &[("segment.ms", "1"), ("min.cleanable.dirty.ratio", "0.0"), ("delete.retention.ms", "1")];
/// With this one a log is more urgent for the cleaner than any without it.
const MOST_URGENT: (&str, &str) = ("max.compaction.lag.ms", "1");

impl Operation {
    /// How many log directories it is about.
    pub(super) fn dirs(self) -> usize {
        if self == ProduceAlone { 1 } else { 2 }
    }

    /// What must be there before the fault.
    pub(super) async fn prepare(self, rig: &Rig) -> Target {
        let mut client = rig.client().await;
        let of = |rig: &Rig, topic: &'static str, path| Target { dir: rig.dir_of(topic, 0), topic, path };
        match self {
            Produce { .. } | Fetch | ListOffsets => {
                self.make_t(rig, &mut client, 1, &[]).await;
                of(rig, "t", "/brokers/topics/t")
            }
            ProduceAlone => {
                rig.make("t", 1, &[]).await;
                rig.produce(&mut client, "t", -1).await;
                of(rig, "t", "/brokers/topics/t")
            }
            ProduceMany => {
                self.make_t(rig, &mut client, 2, &[]).await;
                assert_ne!(rig.dir_of("t", 0), rig.dir_of("t", 1), "one partition meets the fault, the other does not");
                Target { dir: 1, topic: "t", path: "/brokers/topics/t" }
            }
            CreateTopic => Target { dir: 1, topic: "t", path: "/brokers/topics/t/partitions" },
            CreateTopicTree => Target { dir: 0, topic: "t", path: "/brokers/topics" },
            AutoCreation => Target { dir: 1, topic: "t", path: "/brokers/topics" },
            DeleteTopic => {
                self.make_t(rig, &mut client, 1, &[]).await;
                of(rig, "t", "/brokers/topics/t")
            }
            DeleteTopicTree => {
                self.make_t(rig, &mut client, 1, &[]).await;
                Target { dir: 0, topic: "t", path: "/admin/delete_topics" }
            }
            GrowTopic => {
                self.make_t(rig, &mut client, 1, &[]).await;
                // The next partition goes where there are fewest, which shall not be the directory of the tree.
                rig.make("pad", 1, &[]).await;
                Target { dir: 1, topic: "t", path: "/brokers/topics/t" }
            }
            AlterConfig => {
                self.make_t(rig, &mut client, 1, &[]).await;
                Target { dir: 0, topic: "t", path: "/config" }
            }
            CommitOffsets | JoinGroup => {
                self.make_t(rig, &mut client, 1, &[]).await;
                rig.make("pad", 1, &[]).await;
                self.commit(rig, &mut client).await;
                assert_ne!(rig.dir_of("__consumer_offsets", 0), 0);
                of(rig, "__consumer_offsets", "/brokers")
            }
            InitProducer | AddOffsets | EndTransaction => self.prepare_transactions(rig, &mut client).await,
            InitIdempotentProducer => Target { dir: 0, topic: "t", path: "/latest_producer_id_block" },
            Retention | DeleteRecords => {
                self.make_t(rig, &mut client, 1, &[("segment.bytes", "200")]).await;
                for _ in 0..9 {
                    assert_eq!(rig.produce(&mut client, "t", -1).await, "NONE");
                }
                rig.forget("t");
                of(rig, "t", "/brokers/topics/t")
            }
            Compaction => {
                for name in ["t", "pad", "u"] {
                    // The cleaner comes to the one that the fault is about before it comes to the other.
                    let urgent = (name == "t").then_some(MOST_URGENT);
                    let settings: Vec<_> = OLD_AT_ONCE.iter().copied().chain(urgent).collect();
                    rig.make(name, 1, &settings).await;
                    self.write_keys(rig, &mut client, name).await;
                }
                assert_eq!(rig.dir_of("u", 0), 1, "beside it, in the same directory");
                of(rig, "t", "/brokers/topics/t")
            }
            Restart => {
                self.make_t(rig, &mut client, 1, &[]).await;
                rig.make("pad", 1, &[]).await;
                self.commit(rig, &mut client).await;
                of(rig, "t", "/brokers/ids/1")
            }
            Election => Target { dir: 0, topic: "other", path: "/controller" },
        }
    }

    /// The topic with a record in each partition. With two partitions the first lies in the second directory.
    async fn make_t(self, rig: &Rig, client: &mut Client, partitions: i32, settings: &[(&str, &str)]) {
        rig.make("t", partitions, settings).await;
        rig.produce_to(client, "t", -1, partitions as usize).await;
        assert_eq!(rig.dir_of("t", 0), 1);
    }

    async fn commit(self, rig: &Rig, client: &mut Client) {
        soon("a coordinator", async || (client.find_coordinator(GROUP, 0).await == "NONE").then_some(())).await;
        soon("a commit", async || (client.commit(GROUP, "t", 7).await == "NONE").then_some(())).await;
        rig.committed(GROUP, "t", 7);
    }

    async fn prepare_transactions(self, rig: &Rig, client: &mut Client) -> Target {
        self.make_t(rig, client, 1, &[]).await;
        rig.make("pad", 1, &[]).await;
        soon("a coordinator", async || (client.find_coordinator(TRANSACTION, 1).await == "NONE").then_some(())).await;
        let target = Target { dir: 1, topic: "__transaction_state", path: "/latest_producer_id_block" };
        assert_eq!(rig.dir_of("__transaction_state", 0), target.dir);
        if self == InitProducer {
            // Its log is read by then, and there is a block of producer ids.
            soon("another producer", async || (client.init_producer(Some("w")).await.0 == "NONE").then_some(())).await;
            return target;
        }
        rig.make("pad2", 1, &[]).await;
        self.commit(rig, client).await;
        let producer = soon("a producer", async || {
            let (code, producer) = client.init_producer(Some(TRANSACTION)).await;
            (code == "NONE").then_some(producer)
        })
        .await;
        soon("a partition in it", async || {
            (client.add_partition(TRANSACTION, producer, "t").await == "NONE").then_some(())
        })
        .await;
        let value = rig.value();
        let builder = BatchBuilder::new().producer(ProducerId(producer.id), ProducerEpoch(producer.epoch), 0);
        let builder = builder.transactional();
        let record = batch(None, Some(&value), builder, rig.clock.now_ms());
        assert_eq!(client.produce_in_transaction(TRANSACTION, "t", record).await.0, "NONE");
        *rig.transaction.lock() = Some((producer, value));
        target
    }

    /// Keys `a` and `b` in one batch, `c`, the deletion of `a`, and something behind it.
    async fn write_keys(self, rig: &Rig, client: &mut Client, name: &str) {
        let keyed = |records: &[(&str, Option<&str>)]| {
            let mut builder = BatchBuilder::new();
            for (key, value) in records {
                builder.append(rig.clock.now_ms(), Some(key.as_bytes()), value.map(str::as_bytes));
            }
            builder.finish().bytes.freeze()
        };
        let batches: &[&[(&str, Option<&str>)]] =
            &[&[("a", Some("a1")), ("b", Some("b1"))], &[("c", Some("c1"))], &[("a", None)], &[("z", Some("z1"))]];
        for records in batches {
            assert_eq!(client.produce(name, -1, vec![keyed(records)]).await[0].0, "NONE");
        }
        rig.deleted(name, "a");
    }

    /// Does it, and answers what the client is told. `gives_up`: a strike of the fault is as good as an answer.
    pub(super) async fn act(self, rig: &Rig, client: &mut Client, gives_up: &(dyn Fn() -> bool + Sync)) -> String {
        match self {
            Produce { acks } => rig.produce(client, "t", acks).await,
            ProduceAlone => rig.produce(client, "t", -1).await,
            ProduceMany => rig.produce_to(client, "t", -1, 2).await,
            Fetch => {
                let (code, seen, ..) = client.fetch("t", 0, 0).await;
                if code == "NONE" { format!("NONE, {} record(s)", seen.len().min(1)) } else { code }
            }
            ListOffsets => client.list_offset("t", 1).await.0,
            CreateTopic | CreateTopicTree => client.create("t", 1, &[]).await,
            DeleteTopic | DeleteTopicTree => {
                // Whatever the answer, it may be gone.
                rig.forget("t");
                client.delete("t").await
            }
            GrowTopic => client.grow("t", 2).await,
            AutoCreation => {
                let (topic, partitions) = client.metadata("t", true).await;
                [topic].into_iter().chain(partitions).collect::<Vec<_>>().join(", ")
            }
            AlterConfig => client.alter("t", "max.message.bytes", "100").await,
            CommitOffsets => {
                let offset = rig.next_commit();
                let code = client.commit(GROUP, "t", offset).await;
                if code == "NONE" {
                    rig.committed(GROUP, "t", offset);
                }
                code
            }
            JoinGroup => client.join("j", "m").await,
            InitProducer => client.init_producer(Some("y")).await.0,
            InitIdempotentProducer => client.init_producer(None).await.0,
            AddOffsets => {
                let producer = rig.transaction.lock().as_ref().expect("prepared").0;
                client.add_offsets(TRANSACTION, producer, GROUP).await
            }
            EndTransaction => {
                let producer = rig.transaction.lock().as_ref().expect("prepared").0;
                client.end_transaction(TRANSACTION, producer, true).await
            }
            Retention => {
                alter(client, "t", "retention.bytes", "400").await;
                let moved = async |client: &mut Client| client.list_offset("t", -2).await.1 > 0;
                until(client, moved, gives_up).await.map_or("kept", |()| "moved").into()
            }
            DeleteRecords => client.delete_records("t", 4).await,
            Compaction => {
                for name in ["t", "u"] {
                    alter(client, name, "cleanup.policy", "compact").await;
                }
                let compacted = async |client: &mut Client| is_compacted(client, "t").await;
                until(client, compacted, gives_up).await.map_or("kept", |()| "compacted").into()
            }
            Restart => match rig.restart(true).await {
                Ok(()) => {
                    let mut client = rig.client().await;
                    let (fetched, ..) = client.fetch("t", 0, 0).await;
                    let produced = rig.produce(&mut client, "t", -1).await;
                    format!("fetch {fetched}, produce {produced}")
                }
                Err(_) => "no start".into(),
            },
            Election => {
                rig.expire().await;
                let name = format!("e{}", rig.next_commit());
                let made = async |client: &mut Client| client.create(&name, 1, &[]).await == "NONE";
                until(client, made, gives_up).await.map_or("nobody", |()| "elected").into()
            }
        }
    }

    /// What others see of it.
    pub(super) async fn shows(self, rig: &Rig, client: &mut Client, answer: &str, column: Column) -> String {
        match self {
            Produce { .. } | ProduceAlone => is_present(rig, client, 0, column).await,
            ProduceMany => {
                let first = is_present(rig, client, 0, column).await;
                format!("{first}, {}", is_present(rig, client, 1, column).await)
            }
            CreateTopic | CreateTopicTree | DeleteTopic | DeleteTopicTree | AutoCreation | GrowTopic => {
                let mut state = async || {
                    let (topic, partitions) = client.metadata("t", false).await;
                    [topic].into_iter().chain(partitions).collect::<Vec<_>>().join(", ")
                };
                // The answer does not wait for what comes by itself: another try, or another directory.
                let comes = [Column::Slow, Column::UnreadableOnce, Column::Stopped].contains(&column);
                if comes && matches!(self, CreateTopic | AutoCreation | GrowTopic) {
                    // The first partition lay in the directory that stopped; the new one lies in the other.
                    let lost = (self == GrowTopic && column == Column::Stopped).then_some("LEADER_NOT_AVAILABLE");
                    let expected = ["NONE", lost.unwrap_or("NONE")].into_iter().chain(std::iter::repeat("NONE"));
                    let settled = async || {
                        let state = state().await;
                        state
                            .split(", ")
                            .zip(expected.clone())
                            .all(|(code, expected)| code == expected)
                            .then_some(state)
                    };
                    return soon("the topic is as whole as it can be", settled).await;
                }
                state().await
            }
            AlterConfig => {
                let in_force = async |client: &mut Client| {
                    let large = format!("{:500}", rig.value());
                    let large = batch(None, Some(&large), BatchBuilder::new(), rig.clock.now_ms());
                    client.produce("t", -1, vec![large]).await.remove(0).0 == "MESSAGE_TOO_LARGE"
                };
                // Open logs take it over after the answer.
                present(until(client, in_force, &|| answer != "NONE").await.is_some())
            }
            CommitOffsets => match client.committed(GROUP, "t").await {
                Ok(offset) => present(offset > 7),
                Err(code) => code,
            },
            EndTransaction => {
                let value = rig.transaction.lock().as_ref().expect("prepared").1.clone();
                let seen = async |client: &mut Client| {
                    let all = client.read_all("t", 0).await.unwrap_or_default();
                    all.iter().any(|record| record.value.as_ref() == Some(&value))
                };
                // Its markers are written after the answer.
                present(until(client, seen, &|| answer != "NONE").await.is_some())
            }
            // The other log, which the fault is not about where it is about a single one.
            Compaction => {
                let compacted = async |client: &mut Client| is_compacted(client, "u").await;
                let gives_up = || column.strikes_everything();
                let other = until(client, compacted, &gives_up).await;
                format!("the other {}", other.map_or("kept", |()| "compacted"))
            }
            Retention | DeleteRecords if column == Column::Stopped => {
                let offline = async || Some(client.list_offset("t", -1).await.0).filter(|code| is_offline(code));
                soon("the replica is offline", offline).await
            }
            Retention => client.list_offset("t", -1).await.1.to_string(),
            DeleteRecords => {
                // A start that was refused for want of space goes back when the log is opened anew.
                let back = async |client: &mut Client| client.list_offset("t", -2).await.1 == 0;
                if column == Column::NoSpace {
                    until(client, back, &|| false).await;
                }
                client.list_offset("t", -2).await.1.to_string()
            }
            Fetch
            | ListOffsets
            | JoinGroup
            | InitProducer
            | InitIdempotentProducer
            | AddOffsets
            | Restart
            | Election => "–".into(),
        }
    }

    /// What has to come true once the fault is gone, before the general checks.
    pub(super) async fn settle(self, rig: &Rig, client: &mut Client) {
        if self == EndTransaction {
            let (_, value) = rig.transaction.lock().clone().expect("prepared");
            let offset = soon("the committed record is seen", async || {
                let all = client.read_all("t", 0).await.ok()?;
                Some(all.iter().find(|record| record.value.as_ref() == Some(&value))?.offset)
            })
            .await;
            rig.acknowledged("t", 0, offset, &value);
        }
        if matches!(self, DeleteTopic | DeleteTopicTree) {
            soon("the name is free", async || (client.create("t", 1, &[]).await == "NONE").then_some(())).await;
        }
        if self == Compaction {
            // Tombstones go at last, and nothing that they hid may come back then.
            for name in ["t", "u"] {
                soon("the tombstone goes", async || {
                    let filler = batch(Some("z"), Some(&rig.value()), BatchBuilder::new(), rig.clock.now_ms());
                    client.produce(name, -1, vec![filler]).await;
                    let all = client.read_all(name, 0).await.ok()?;
                    let tombstone = |record: &Seen| record.key.as_deref() == Some("a") && record.value.is_none();
                    (!all.iter().any(tombstone)).then_some(())
                })
                .await;
            }
        }
    }

    /// Topics that were made are of use after a restart at the latest, all their partitions.
    pub(super) async fn check_use(self, rig: &Rig) {
        let partitions = match self {
            CreateTopic | CreateTopicTree | AutoCreation => 1,
            GrowTopic => 2,
            _ => return,
        };
        let mut client = rig.client().await;
        soon("the topic is of use", async || {
            let answer = rig.produce_to(&mut client, "t", -1, partitions).await;
            answer.split(", ").all(|code| code == "NONE").then_some(())
        })
        .await;
    }

    /// The operation once more after the fault; of a topic that was made, whether it is of use as well.
    pub(super) async fn again(self, rig: &Rig, client: &mut Client) -> String {
        let answer = self.act(rig, client, &|| false).await;
        let partitions = match self {
            CreateTopic | CreateTopicTree | AutoCreation => 1,
            GrowTopic => 2,
            _ => return answer,
        };
        format!("{answer}, then {}", rig.produce_to(client, "t", -1, partitions).await)
    }
}

/// Sets what lets background work begin. The tree has no part in its faults, but for a session that is lost.
async fn alter(client: &mut Client, name: &str, key: &str, value: &str) {
    soon("the setting is taken", async || (client.alter(name, key, value).await == "NONE").then_some(())).await;
}

async fn is_compacted(client: &mut Client, name: &str) -> bool {
    let all = client.read_all(name, 0).await;
    all.is_ok_and(|all| !all.iter().any(|record| record.value.as_deref() == Some("a1")))
}

/// Whether a second record of `t` is there. Of a directory that fails beside another the replicas go offline a moment
/// later.
async fn is_present(rig: &Rig, client: &mut Client, partition: i32, column: Column) -> String {
    let mut look = async || rig.is_present(client, "t", partition, 1).await;
    if column == Column::Stopped && rig.dir_of("t", partition) == 1 {
        let offline = async || Some(look().await).filter(|code| is_offline(code));
        return soon("the replica is offline", offline).await;
    }
    look().await
}

fn is_offline(code: &str) -> bool {
    code == "KAFKA_STORAGE_ERROR"
}

fn present(is: bool) -> String {
    if is { "present".into() } else { "absent".into() }
}

/// Waits for it. `None`: it gave up, and a little later it was still not so.
async fn until(
    client: &mut Client,
    mut done: impl AsyncFnMut(&mut Client) -> bool,
    gives_up: &(dyn Fn() -> bool + Sync),
) -> Option<()> {
    /// After a strike, for what goes on by itself in spite of it.
    const GRACE: Duration = Duration::from_millis(1500);
    let mut deadline = None;
    let end = tokio::time::Instant::now() + SOON;
    loop {
        if done(client).await {
            return Some(());
        }
        if tokio::time::Instant::now() > end {
            return None;
        }
        if gives_up()
            && tokio::time::Instant::now() > *deadline.get_or_insert_with(|| tokio::time::Instant::now() + GRACE)
        {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
