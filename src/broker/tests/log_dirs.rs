//! What a broker tells of its log directories (DescribeLogDirs).

use std::collections::BTreeMap;

use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_log_dirs_response::DescribeLogDirsResult;
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};

use super::super::Broker;
use super::starts::break_dir;
use super::{WireClient, config_of, create, produce, topic};

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
