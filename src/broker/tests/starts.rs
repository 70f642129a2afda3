//! Starts that meet something odd: another broker, an empty directory or tree, damaged logs, topics changed meanwhile.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};
use kafka_protocol::messages::{MetadataRequest, OffsetForLeaderEpochRequest};

use super::super::{Broker, Fatal, dirs, seams};
use super::{
    WireClient, config, config_of, create, delete_below, fetch, produce, start, start_with, topic, while_down,
};
use crate::cluster::znodes::topics;
use crate::coordination::{Coordination, CreateMode};
use crate::storage::rocksdb::RocksDirectory;
use crate::storage::testing::faulty::FaultyDir;
use crate::storage::{self, StorageError, Write, WriteSet, contract, keys};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_is_refused_while_another_broker_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let refused = Broker::start(config_of(&dir.path().display().to_string(), &[])).await.unwrap_err().to_string();
    assert!(refused.contains("in use by another broker"), "{refused}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_first_directory_is_refused_and_the_logs_of_the_others_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let of = |dirs: [&str; 2]| {
        let dirs = dirs.map(|name| dir.path().join(name).display().to_string()).join(",");
        Broker::start(config_of(&dirs, &[]))
    };
    of(["a", "b"]).await.unwrap().stop().await;
    for wrong in [["b", "a"], ["c", "a"]] {
        let refused = of(wrong).await.unwrap_err().to_string();
        assert!(refused.contains("must stay the first"), "{refused}");
    }
    of(["a", "b"]).await.unwrap().stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_was_deleted_while_the_broker_was_down_goes_and_all_else_stays() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start_with(dir.path(), &["num.partitions=40"]).await;
    let mut client = WireClient::connect(&broker).await;
    for name in ["doomed", "kept"] {
        create(&mut client, name).await;
        assert_eq!(client.call(&produce(name, &["a"]), 9).await.responses[0].partition_responses[0].error_code, 0);
    }
    broker.stop().await;
    let logs = while_down(dir.path(), async |tree| delete_below(tree, &topics::path("doomed")).await).await;
    assert_eq!(logs, ["doomed", "kept"]);

    let broker = start(dir.path()).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    broker.stop().await;
    let logs = while_down(dir.path(), async |_| ()).await;
    assert_eq!(logs, ["doomed", "kept"], "a day is not over");

    let broker = start_with(dir.path(), &["klamm.stray.retention.ms=0"]).await;
    let logs = || broker.dirs[0].partitions().into_iter().map(|(id, _)| id.topic.to_string());
    // One pass judges all of them.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    while logs().any(|topic| topic == "doomed") {
        assert!(tokio::time::Instant::now() < deadline, "its logs are still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(logs().filter(|topic| topic == "kept").count(), 40);
    let mut client = WireClient::connect(&broker).await;
    let fetched = client.call(&fetch("kept", 0), 12).await;
    assert_eq!(fetched.responses[0].partitions[0].high_watermark, 1);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_tree_beside_logs_is_refused_and_nothing_is_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    create(&mut WireClient::connect(&broker).await, "t").await;
    broker.stop().await;
    while_down(dir.path(), async |tree| {
        for child in tree.children("/").await.unwrap() {
            delete_below(tree, &format!("/{child}")).await;
        }
    })
    .await;
    let refused = Broker::start(config(dir.path(), &[])).await.unwrap_err().to_string();
    assert!(refused.contains("meta.properties"), "{refused}");
    assert_eq!(while_down(dir.path(), async |_| ()).await, ["t"]);
}

/// B3: the broker came back without what it had led, and led on with nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn b3_a_lost_directory_is_refused_unless_that_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let of = |settings: &[&str]| {
        let dirs = ["a", "b"].map(|name| dir.path().join(name).display().to_string()).join(",");
        Broker::start(config_of(&dirs, &[&["num.partitions=20"], settings].concat()))
    };
    let broker = of(&[]).await.unwrap();
    create(&mut WireClient::connect(&broker).await, "t").await;
    let lost = broker.dirs[1].partitions().len();
    assert!(lost > 0, "both directories are used");
    broker.stop().await;
    std::fs::rename(dir.path().join("b"), dir.path().join("unmounted")).unwrap();
    for _ in 0..2 {
        let refused = of(&[]).await.unwrap_err().to_string();
        assert!(refused.contains(&format!("none of log.dirs has {lost} partitions")), "{refused}");
    }
    std::fs::remove_dir_all(dir.path().join("b")).unwrap();
    std::fs::rename(dir.path().join("unmounted"), dir.path().join("b")).unwrap();
    of(&[]).await.unwrap().stop().await;
    std::fs::remove_dir_all(dir.path().join("b")).unwrap();
    let broker = of(&["klamm.allow.empty.log.dir=true"]).await.unwrap();
    assert_eq!(broker.dirs.iter().map(|dir| dir.partitions().len()).sum::<usize>(), 20);
    broker.stop().await;
}

/// A log directory whose growing tables have no place to lie in: the first large batch stops it.
pub(super) fn break_dir(broker: &Broker, at: usize) {
    let dir = &broker.dirs[at];
    let growing = dir.path().join("growing");
    std::fs::write(&growing, b"").expect("write");
    let family = dir.create(&[contract::partition("broken", 0)]).expect("create")[0];
    for offset in 0.. {
        let large = vec![0; 64 << 10];
        match contract::commit(&**dir, vec![contract::batch(family, offset, &large)], false) {
            Ok(()) => assert!(offset < 100, "a table is begun sooner"),
            Err(error) => return assert!(matches!(error, StorageError::Stopped { .. }), "{error}"),
        }
    }
}

/// C12: nobody told the controller, and clients went on asking the broker for what it could not write.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn c12_partitions_of_a_failed_directory_have_no_leader() {
    let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let paths = places.each_ref().map(|place| place.path().display().to_string()).join(",");
    let settings = ["broker.id=1", "klamm.disk.reserve.bytes=0", "num.partitions=8"];
    let broker = Broker::start(config_of(&paths, &settings)).await.unwrap();
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    let lost = broker.dirs[1].partitions().len();
    assert!(lost > 0 && lost < 8);
    break_dir(&broker, 1);
    let named = MetadataRequestTopic::default().with_name(Some(topic("t")));
    let request = MetadataRequest::default().with_topics(Some(vec![named]));
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let answer = client.call(&request, 12).await;
        let leaderless = answer.topics[0].partitions.iter().filter(|partition| partition.leader_id.0 == -1).count();
        if leaderless == lost {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{leaderless} of {lost}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // A consumer that stayed would never hear of another leader.
    let there = broker.dirs[1].partitions().into_iter().map(|(id, _)| id);
    let lost: BTreeSet<i32> = there.filter(|id| id.topic.as_str() == "t").map(|id| id.partition.0).collect();
    for partition in 0..8 {
        let mut request = fetch("t", 0).with_max_wait_ms(0);
        request.topics[0].partitions[0].partition = partition;
        let code = client.call(&request, 12).await.responses[0].partitions[0].error_code;
        assert_eq!(code, if lost.contains(&partition) { 56 } else { 0 }, "{partition}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_whose_last_log_directory_failed_cannot_go_on() {
    let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let paths = places.each_ref().map(|place| place.path().display().to_string()).join(",");
    let settings = ["broker.id=1", "klamm.disk.reserve.bytes=0"];
    let broker = Broker::start(config_of(&paths, &settings)).await.unwrap();
    break_dir(&broker, 1);
    let beside = tokio::time::timeout(Duration::from_millis(200), broker.fatal()).await;
    assert!(beside.is_err(), "there is another: {beside:?}");
    break_dir(&broker, 0);
    let fatal = tokio::time::timeout(Duration::from_secs(30), broker.fatal()).await.expect("it is told");
    assert!(matches!(&fatal, Fatal::LogDirs(line) if line.contains("all log directories")), "{fatal:?}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_does_not_outlive_the_directory_with_the_clusters_state() {
    let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let paths = places.each_ref().map(|place| place.path().display().to_string()).join(",");
    let broker = Broker::start(config_of(&paths, &["broker.id=1", "klamm.disk.reserve.bytes=0"])).await.unwrap();
    break_dir(&broker, 0);
    let fatal = tokio::time::timeout(Duration::from_secs(30), broker.fatal()).await.expect("it is told");
    assert!(matches!(&fatal, Fatal::LogDirs(line) if line.contains("cluster's state")), "{fatal:?}");
    broker.stop().await;
}

/// It would have met a tree that knows none of its topics, and its logs would have gone as strays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_coordinates_itself_is_never_half_moved_to_zookeeper() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    assert_eq!(produced(&mut client, "t", &["a"]).await, (0, 0));
    broker.stop().await;
    let fresh = tempfile::tempdir().unwrap();
    let (old, other) = (dir.path().display().to_string(), fresh.path().display().to_string());
    for dirs in [old.clone(), format!("{old},{other}"), format!("{other},{old}")] {
        // Nobody listens there: it is refused before ZooKeeper is asked.
        let config = config_of(&dirs, &["zookeeper.connect=127.0.0.1:1/k", "klamm.disk.reserve.bytes=0"]);
        let refused = Broker::start(config).await.unwrap_err().to_string();
        assert!(refused.contains("a node that coordinates itself, and zookeeper.connect=127.0.0.1:1/k"), "{refused}");
        assert!(refused.contains(&old) && refused.contains("empty log.dirs") && !refused.contains('\n'), "{refused}");
    }
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    assert_eq!(produced(&mut client, "t", &["b"]).await, (0, 1), "it goes on as it was");
    broker.stop().await;
}

async fn produced(client: &mut WireClient, name: &str, values: &[&str]) -> (i16, i64) {
    let answer = client.call(&produce(name, values), 9).await;
    let answer = &answer.responses[0].partition_responses[0];
    (answer.error_code, answer.base_offset)
}

/// Id, leader and leader epoch of a topic's only partition.
async fn described(client: &mut WireClient, name: &str) -> (uuid::Uuid, i32, i32) {
    let topics = vec![MetadataRequestTopic::default().with_name(Some(topic(name)))];
    let answer = client.call(&MetadataRequest::default().with_topics(Some(topics)), 12).await;
    let partition = &answer.topics[0].partitions[0];
    (answer.topics[0].topic_id, partition.leader_id.0, partition.leader_epoch)
}

/// One damaged log took all partitions offline, and with two directories a retry made it anew, empty.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_offline_alone_and_nothing_is_made_in_its_place() {
    const KAFKA_STORAGE_ERROR: i16 = 56;
    let dir = tempfile::tempdir().unwrap();
    let dirs = ["a", "b"].map(|name| dir.path().join(name).display().to_string()).join(",");
    let config = || config_of(&dirs, &["klamm.disk.reserve.bytes=0"]);
    let broker = Broker::start(config()).await.unwrap();
    let mut client = WireClient::connect(&broker).await;
    for name in ["bad", "good", "more"] {
        create(&mut client, name).await;
        assert_eq!(produced(&mut client, name, &["a"]).await, (0, 0));
    }
    broker.stop().await;
    let logs = |dirs: &[crate::storage::SharedLogDir]| {
        dirs.iter()
            .map(|dir| dir.partitions().into_iter().map(|(id, _)| id).collect::<BTreeSet<_>>())
            .collect::<Vec<_>>()
    };
    let before = {
        let (opened, _) = dirs::open(&config(), &seams::Seams::default().open_dir).unwrap();
        let opened: Vec<_> = opened.dirs.into_iter().map(|(dir, _)| dir).collect();
        let before = logs(&opened);
        for dir in opened.iter().rev() {
            let bad = dir.partitions().into_iter().map(|(id, _)| id).find(|id| id.topic.as_str() == "bad");
            if let Some(id) = bad {
                let key = keys::side(id.topic_id, id.partition, 0x80, b"check");
                let rubbish =
                    WriteSet { writes: vec![Write::Side { key, value: Bytes::from_static(&[9]) }], sync: false };
                storage::commit(&**dir, rubbish).await.unwrap();
            }
            dir.close();
        }
        before
    };
    for _ in 0..2 {
        let broker = Broker::start(config()).await.unwrap();
        let mut client = WireClient::connect(&broker).await;
        assert_eq!(produced(&mut client, "bad", &["b"]).await.0, KAFKA_STORAGE_ERROR);
        let fetched = client.call(&fetch("bad", 0), 12).await;
        assert_eq!(fetched.responses[0].partitions[0].error_code, KAFKA_STORAGE_ERROR);
        for name in ["good", "more"] {
            let fetched = client.call(&fetch(name, 0), 12).await;
            assert_eq!(fetched.responses[0].partitions[0].error_code, 0, "{name}");
            assert_eq!(produced(&mut client, name, &["b"]).await.0, 0);
        }
        assert_eq!(logs(&broker.dirs), before);
        broker.stop().await;
    }
}

/// Where that was while the broker registered it went on for ever, and neither ran nor ended.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_whose_only_directory_fails_ends_whichever_write_that_is() {
    let mut failed = 0;
    for n in 0.. {
        let dir = tempfile::tempdir().unwrap();
        let open_dir = move |path: &Path, options| {
            let (dir, faults) = FaultyDir::around(RocksDirectory::open(path, options)?);
            faults.fail_commit(n);
            Ok(dir as _)
        };
        let seams = seams::Seams { open_dir: Box::new(open_dir), ..seams::Seams::default() };
        let starting = Broker::start_over(config(dir.path(), &[]), seams);
        let started = tokio::time::timeout(Duration::from_secs(60), starting).await;
        match started.unwrap_or_else(|_| panic!("write {n} fails, and the start waits")) {
            Err(_) => failed += 1,
            Ok(broker) => {
                broker.stop().await;
                break;
            }
        }
    }
    assert!(failed >= 3, "{failed}");
}

/// A topic's node that had lost its id got another one: an empty log, and the old one was deleted as a stray.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_whose_node_lost_its_id_keeps_its_records() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    assert_eq!(produced(&mut client, "t", &["a"]).await, (0, 0));
    let (id, ..) = described(&mut client, "t").await;
    broker.stop().await;
    while_down(dir.path(), async |tree| {
        let old_tools = Bytes::from_static(br#"{"version":1,"partitions":{"0":[1]}}"#);
        tree.set(&topics::path("t"), old_tools, -1).await.unwrap();
    })
    .await;
    let broker = start_with(dir.path(), &["klamm.stray.retention.ms=0"]).await;
    let mut client = WireClient::connect(&broker).await;
    assert_eq!(described(&mut client, "t").await, (id, 1, 0));
    assert_eq!(produced(&mut client, "t", &["b"]).await, (0, 1));
    broker.stop().await;
}

/// A topic that was made anew under the same name begins empty, and the old one is kept beside it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_anew_while_the_broker_was_down_begins_empty_beside_the_old_log() {
    let dir = tempfile::tempdir().unwrap();
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    assert_eq!(produced(&mut client, "t", &["a", "b"]).await, (0, 0));
    let (old, ..) = described(&mut client, "t").await;
    broker.stop().await;
    let node = |id: uuid::Uuid| {
        let text = crate::types::TopicId(id);
        let (adding, removing) = (r#""adding_replicas":{}"#, r#""removing_replicas":{}"#);
        Bytes::from(format!(r#"{{"version":3,"topic_id":"{text}","partitions":{{"0":[1]}},{adding},{removing}}}"#))
    };
    let anew = uuid::Uuid::from_u128(77 << 64 | 5);
    while_down(dir.path(), async |tree| {
        delete_below(tree, &topics::path("t")).await;
        tree.create(&topics::path("t"), node(anew), CreateMode::Persistent).await.unwrap();
    })
    .await;
    let broker = start_with(dir.path(), &["klamm.stray.retention.ms=0"]).await;
    let mut client = WireClient::connect(&broker).await;
    assert_eq!(described(&mut client, "t").await.0, anew);
    assert_eq!(produced(&mut client, "t", &["c"]).await, (0, 0));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(broker.dirs[0].partitions().len(), 2, "a topic of its name exists");
    broker.stop().await;
    while_down(dir.path(), async |tree| {
        delete_below(tree, &topics::path("t")).await;
        tree.create(&topics::path("t"), node(old), CreateMode::Persistent).await.unwrap();
    })
    .await;
    let broker = start(dir.path()).await;
    let mut client = WireClient::connect(&broker).await;
    let fetched = client.call(&fetch("t", 0), 12).await;
    assert_eq!(fetched.responses[0].partitions[0].high_watermark, 2, "it comes back with its id");
    broker.stop().await;
}

/// After a power loss a log may end earlier, and a consumer beyond its end missed what came after: no epoch told it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_boot_gives_new_leader_epochs_and_a_restart_alone_none() {
    let dir = tempfile::tempdir().unwrap();
    let mut epoch = 0;
    for (boot, raised) in [("one", false), ("one", false), ("two", true), ("two", false), ("one", true)] {
        let broker = start_with(dir.path(), &[&format!("klamm.boot.id={boot}")]).await;
        let mut client = WireClient::connect(&broker).await;
        create(&mut client, "t").await;
        epoch += i32::from(raised);
        assert_eq!(described(&mut client, "t").await.2, epoch, "{boot}");
        let (error, offset) = produced(&mut client, "t", &["a"]).await;
        assert_eq!(error, 0);
        if raised {
            // What a consumer asks that has read under the epoch before (KIP-320).
            let wanted =
                OffsetForLeaderPartition::default().with_current_leader_epoch(epoch).with_leader_epoch(epoch - 1);
            let wanted = OffsetForLeaderTopic::default().with_topic(topic("t")).with_partitions(vec![wanted]);
            let answer = client.call(&OffsetForLeaderEpochRequest::default().with_topics(vec![wanted]), 4).await;
            assert_eq!(answer.topics[0].partitions[0].end_offset, offset);
        }
        broker.stop().await;
    }
}
