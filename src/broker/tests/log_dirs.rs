//! What a broker tells of its log directories (DescribeLogDirs), and moves between them (AlterReplicaLogDirs).

use std::collections::BTreeMap;

use kafka_protocol::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_log_dirs_response::DescribeLogDirsResult;
use kafka_protocol::messages::{AlterReplicaLogDirsRequest, DescribeLogDirsRequest, DescribeLogDirsResponse};
use kafka_protocol::protocol::StrBytes;

use super::super::Broker;
use super::starts::break_dir;
use super::{WireClient, config_of, create, produce, topic};
use crate::types::PartitionIndex;

fn all() -> DescribeLogDirsRequest {
    DescribeLogDirsRequest::default().with_topics(None)
}

/// Sizes by topic and partition.
fn sizes<'a>(dirs: impl IntoIterator<Item = &'a DescribeLogDirsResult>) -> BTreeMap<(String, i32), i64> {
    let topics = dirs.into_iter().flat_map(|dir| &dir.topics);
    let of_topic = topics.flat_map(|topic| {
        topic.partitions.iter().map(|partition| {
            assert_eq!((partition.offset_lag, partition.is_future_key), (0, false));
            ((topic.name.to_string(), partition.partition_index), partition.partition_size)
        })
    });
    of_topic.collect()
}

fn dir<'a>(answer: &'a DescribeLogDirsResponse, broker: &Broker, at: usize) -> &'a DescribeLogDirsResult {
    let path = broker.dirs[at].path().display().to_string();
    answer.results.iter().find(|result| result.log_dir.as_str() == path).expect("every directory is told")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_directories_are_told_with_their_logs_and_one_that_failed_without() {
    let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let paths = places.each_ref().map(|place| place.path().display().to_string()).join(",");
    let settings = ["broker.id=1", "klamm.disk.reserve.bytes=0", "num.partitions=4"];
    let broker = Broker::start(config_of(&paths, &settings)).await.unwrap();
    let mut client = WireClient::connect(&broker).await;
    for name in ["t", "u"] {
        create(&mut client, name).await;
    }
    let request = produce("t", &["value"]);
    let batch = request.topic_data[0].partition_data[0].records.as_ref().unwrap().len() as i64;
    for _ in 0..3 {
        assert_eq!(client.call(&request, 9).await.responses[0].partition_responses[0].error_code, 0);
    }
    for version in 1..=4 {
        let answer = client.call(&all(), version).await;
        assert_eq!((answer.error_code, answer.results.len()), (0, 2));
        let of_dirs = [0, 1].map(|at| sizes([dir(&answer, &broker, at)]).len());
        assert_eq!(of_dirs, [4, 4], "the logs are spread over both");
        let told = sizes(&answer.results);
        assert_eq!(told.len(), 8);
        assert_eq!(told[&("t".to_owned(), 0)], 3 * batch, "all that was produced");
        assert_eq!(told.values().sum::<i64>(), 3 * batch);
        for result in &answer.results {
            assert_eq!(result.error_code, 0);
            let known = result.usable_bytes > 0 && result.usable_bytes <= result.total_bytes;
            assert!(if version >= 4 { known } else { result.total_bytes == -1 }, "{result:?}");
        }
    }
    let named =
        |name, partitions| DescribableLogDirTopic::default().with_topic(topic(name)).with_partitions(partitions);
    let some = vec![named("t", vec![0, 9]), named("u", vec![1]), named("u", vec![2, 2]), named("none", vec![0])];
    let answer = client.call(&DescribeLogDirsRequest::default().with_topics(Some(some)), 4).await;
    assert_eq!(
        sizes(&answer.results).keys().map(|(name, index)| format!("{name}-{index}")).collect::<Vec<_>>(),
        ["t-0", "u-1", "u-2"]
    );
    assert_eq!(answer.results.len(), 2, "also what holds none of them");
    let nothing = client.call(&DescribeLogDirsRequest::default().with_topics(Some(vec![])), 4).await;
    assert!(nothing.results.len() == 2 && sizes(&nothing.results).is_empty());

    break_dir(&broker, 1);
    let answer = client.call(&all(), 4).await;
    let failed = dir(&answer, &broker, 1);
    assert_eq!((failed.error_code, failed.topics.len(), failed.total_bytes, failed.usable_bytes), (56, 0, -1, -1));
    let good = dir(&answer, &broker, 0);
    assert_eq!((good.error_code, sizes([good]).len()), (0, 4));
    broker.stop().await;
}

/// Asks for partition 0 of a topic to move.
fn alter(name: &str, to: &str) -> AlterReplicaLogDirsRequest {
    let asked = AlterReplicaLogDirTopic::default().with_name(topic(name)).with_partitions(vec![0]);
    let path = StrBytes::from_string(to.to_owned());
    AlterReplicaLogDirsRequest::default()
        .with_dirs(vec![AlterReplicaLogDir::default().with_path(path).with_topics(vec![asked])])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_moves_while_it_is_written_to_and_others_are_told_why_not() {
    let places = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let paths = places.each_ref().map(|place| place.path().display().to_string()).join(",");
    let settings = ["broker.id=1", "klamm.disk.reserve.bytes=0"];
    let broker = Broker::start(config_of(&paths, &settings)).await.unwrap();
    let mut client = WireClient::connect(&broker).await;
    create(&mut client, "t").await;
    let path = |broker: &Broker, at: usize| broker.dirs[at].path().display().to_string();
    let home = |broker: &Broker| broker.replicas.get("t", PartitionIndex(0)).unwrap().home().at;
    let long = "x".repeat(214);
    for version in [1, 2] {
        let outcomes = [
            ("t", path(&broker, home(&broker)), 0),
            ("t", "/no/such".to_owned(), 57),
            ("t", "relative".to_owned(), 57),
            ("unknown", path(&broker, 0), 3),
            (&long, path(&broker, 0), 17),
        ];
        for (name, to, expected) in outcomes {
            let answer = client.call(&alter(name, &to), version).await;
            let partitions = &answer.results[0].partitions;
            let told = (answer.results[0].topic_name.as_str(), partitions[0].partition_index, partitions[0].error_code);
            assert_eq!(told, (name, 0, expected), "{to}");
        }
    }
    let (request, mut sent) = (produce("t", &["value"]), 0);
    for round in 0..4 {
        let to = 1 - home(&broker);
        let answer = client.call(&alter("t", &path(&broker, to)), 2).await;
        assert_eq!(answer.results[0].partitions[0].error_code, 0);
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while home(&broker) != to || sent < 20 * (round + 1) {
            assert!(std::time::Instant::now() < deadline);
            assert_eq!(client.call(&request, 9).await.responses[0].partition_responses[0].error_code, 0);
            sent += 1;
        }
        // What was left goes by itself.
        while broker.dirs.iter().filter(|dir| !dir.partitions().is_empty()).count() > 1 {
            assert!(std::time::Instant::now() < deadline);
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let answer = client.call(&all(), 4).await;
        assert_eq!(sizes([dir(&answer, &broker, to)]).len(), 1);
    }
    let at = home(&broker);
    broker.stop().await;
    let broker = Broker::start(config_of(&paths, &settings)).await.unwrap();
    assert_eq!(home(&broker), at);
    let partition = broker.replicas.get("t", PartitionIndex(0)).unwrap();
    assert_eq!(partition.view().high_watermark.0, sent);
    let mut client = WireClient::connect(&broker).await;
    break_dir(&broker, 1 - at);
    let refused = client.call(&alter("t", &path(&broker, 1 - at)), 2).await;
    assert_eq!(refused.results[0].partitions[0].error_code, 56);
    broker.stop().await;
}
