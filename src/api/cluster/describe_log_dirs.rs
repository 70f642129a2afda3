//! DescribeLogDirs (35), versions 1–4: the log directories of this broker, and how large the logs in them are.
//!
//! Behaviour
//! - Needs DESCRIBE of the cluster: CLUSTER_AUTHORIZATION_FAILED (31), before version 3 no directories.
//! - All partitions that have a log here, or of those named the ones that do; others are left out. A directory is told
//!   even if it holds none of them.
//! - A size is that of the log's batches, as Kafka's is that of its segment files. A log that is being moved is told
//!   twice: where it is, and as a future one where it moves to, with how many offsets that lacks.
//! - A directory that has failed: KAFKA_STORAGE_ERROR (56), without logs; its sizes are −1.
//! - Sizes of the file system that would not fit are the largest number there is.
//!
//! Versions: 2 flexible; 3 an error of the whole answer, for want of permission; 4 total and usable bytes (KIP-827).
//! Ignored: nothing. Source: Kafka 3.9 `KafkaApis.handleDescribeLogDirsRequest`, `ReplicaManager.describeLogDirs`.

use std::collections::{BTreeMap, HashSet};
use std::ops::RangeInclusive;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName as WireTopicName};
use kafka_protocol::protocol::StrBytes;
use tracing::warn;

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};
use crate::replica::log_dirs::{LogDescription, LogDirDescription};
use crate::task;
use crate::types::TopicName;
use crate::types::acl::{Operation, ResourceType};

/// Of a directory that has failed, or whose file system does not tell.
const UNKNOWN_BYTES: i64 = -1;
const VERSION_ERROR: i16 = 3;

pub(crate) struct DescribeLogDirs;

impl Handler for DescribeLogDirs {
    type Req = DescribeLogDirsRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=4;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Describe, ResourceType::Cluster)]);

    async fn handle(ctx: RequestContext, req: DescribeLogDirsRequest) -> Reply<DescribeLogDirsResponse> {
        if !ctx.may_on_cluster(Operation::Describe) {
            let refused = ResponseError::ClusterAuthorizationFailed.code();
            let response = DescribeLogDirsResponse::default();
            // Before there was a place for it, clients took an empty answer for it.
            return Reply::Now(if ctx.version >= VERSION_ERROR { response.with_error_code(refused) } else { response });
        }
        Reply::Later(task::blocking(move || respond(&ctx, &req)).boxed())
    }
}

fn respond(ctx: &RequestContext, req: &DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let named: Option<HashSet<(&str, i32)>> = req.topics.as_ref().map(|topics| {
        let of_topic = topics.iter().map(|named| (named.topic.as_str(), &named.partitions));
        of_topic.flat_map(|(name, partitions)| partitions.iter().map(move |&index| (name, index))).collect()
    });
    let dirs = ctx.handles.replicas.describe_log_dirs(|topic, partition| {
        named.as_ref().is_none_or(|named| named.contains(&(topic.as_str(), partition.0)))
    });
    DescribeLogDirsResponse::default().with_results(dirs.into_iter().map(result).collect())
}

fn result(dir: LogDirDescription) -> DescribeLogDirsResult {
    let result = DescribeLogDirsResult::default().with_log_dir(StrBytes::from_string(dir.path.display().to_string()));
    let contents = match dir.contents {
        Ok(contents) => contents,
        Err(failure) => {
            warn!(dir = %dir.path.display(), %failure, "the log directory cannot be described");
            return result
                .with_error_code(ResponseError::KafkaStorageError.code())
                .with_total_bytes(UNKNOWN_BYTES)
                .with_usable_bytes(UNKNOWN_BYTES);
        }
    };
    let mut topics: BTreeMap<TopicName, Vec<DescribeLogDirsPartition>> = BTreeMap::new();
    for log in contents.logs {
        let partition = partition(&log);
        topics.entry(log.topic).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(name, mut partitions)| {
        partitions.sort_unstable_by_key(|partition| partition.partition_index);
        DescribeLogDirsTopic::default()
            .with_name(WireTopicName(StrBytes::from_string(name.to_string())))
            .with_partitions(partitions)
    });
    let bytes = |of_disk: Option<u64>| of_disk.map_or(UNKNOWN_BYTES, clamped);
    result
        .with_topics(topics.collect())
        .with_total_bytes(bytes(contents.disk.map(|disk| disk.total)))
        .with_usable_bytes(bytes(contents.disk.map(|disk| disk.usable)))
}

fn partition(log: &LogDescription) -> DescribeLogDirsPartition {
    DescribeLogDirsPartition::default()
        .with_partition_index(log.partition.0)
        .with_partition_size(clamped(log.size_bytes))
        .with_offset_lag(log.offset_lag)
        .with_is_future_key(log.is_future)
}

fn clamped(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
