//! AlterReplicaLogDirs (34), versions 1–2: partitions move between the log directories of this broker.
//!
//! Behaviour
//! - Needs ALTER of the cluster: CLUSTER_AUTHORIZATION_FAILED (31) for each partition.
//! - An answer says that the move has begun, or that there is nothing to move; how far it is DescribeLogDirs tells.
//!   Another directory than that of a move under way ends it, and the present one does nothing besides.
//! - A directory that is not among `log.dirs`: LOG_DIR_NOT_FOUND (57). One that has failed, a partition that is
//!   offline, or a move while any directory has failed: KAFKA_STORAGE_ERROR (56).
//! - A partition without a replica here: REPLICA_NOT_AVAILABLE (9), or UNKNOWN_TOPIC_OR_PARTITION (3) if nobody has it.
//!   When it comes it is made in the directory that was named last.
//! - A topic whose name leaves no room for Kafka's names of directories that are being filled: INVALID_TOPIC_EXCEPTION
//!   (17). Kept as it is: the same request gets the same answer.
//! - A partition that is named with several directories moves to the last.
//!
//! Versions: 2 flexible. Ignored: nothing. Source: Kafka 3.9 `KafkaApis.handleAlterReplicaLogDirsRequest`,
//! `ReplicaManager.alterReplicaLogDirs`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use futures_util::FutureExt;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use kafka_protocol::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse, TopicName as WireTopicName};
use kafka_protocol::protocol::StrBytes;
use tracing::warn;

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};
use crate::replica::alter_log_dirs::AlterLogDirError;
use crate::task;
use crate::types::acl::{Operation, ResourceType};
use crate::types::{TopicName, TopicPartition};

/// Of a name in a file system, and what Kafka's name of such a directory has besides those of topic and partition.
const FILE_NAME_MAX: usize = 255;
const FUTURE_DIR_REST: usize = "-".len() + ".".len() + 32 + "-future".len();

pub(crate) struct AlterReplicaLogDirs;

impl Handler for AlterReplicaLogDirs {
    type Req = AlterReplicaLogDirsRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=2;
    const AUTHORIZATION: Authorization = Authorization::Of(&[(Operation::Alter, ResourceType::Cluster)]);

    async fn handle(ctx: RequestContext, req: AlterReplicaLogDirsRequest) -> Reply<AlterReplicaLogDirsResponse> {
        let mut asked: BTreeMap<TopicPartition, PathBuf> = BTreeMap::new();
        for dir in &req.dirs {
            let names = dir.topics.iter().flat_map(|topic| {
                topic.partitions.iter().map(|index| TopicPartition::new(topic.name.as_str(), *index))
            });
            asked.extend(names.map(|name| (name, PathBuf::from(dir.path.as_str()))));
        }
        if !ctx.may_on_cluster(Operation::Alter) {
            let refused = ResponseError::ClusterAuthorizationFailed.code();
            return Reply::Now(respond(asked.into_keys().map(|name| (name, refused))));
        }
        let alter = move || respond(asked.into_iter().map(|(name, to)| (name.clone(), alter(&ctx, &name, &to))));
        Reply::Later(task::blocking(alter).boxed())
    }
}

/// The error code. Blocking.
fn alter(ctx: &RequestContext, name: &TopicPartition, to: &std::path::Path) -> i16 {
    if name.topic.as_str().len() + name.partition.to_string().len() + FUTURE_DIR_REST > FILE_NAME_MAX {
        return ResponseError::InvalidTopicException.code();
    }
    let Err(refused) = ctx.handles.replicas.alter_log_dir(name, to) else { return 0 };
    let error = match &refused {
        AlterLogDirError::NoSuchDir(_) => ResponseError::LogDirNotFound,
        AlterLogDirError::NotHere => {
            let image = ctx.handles.image.current();
            let known = image.partition(name.topic.as_str(), name.partition).is_some();
            if known { ResponseError::ReplicaNotAvailable } else { ResponseError::UnknownTopicOrPartition }
        }
        AlterLogDirError::Offline | AlterLogDirError::Storage(_) => ResponseError::KafkaStorageError,
    };
    warn!(topic = %name.topic, partition = %name.partition, dir = %to.display(), %refused,
        "the log directory is not altered");
    error.code()
}

fn respond(outcomes: impl Iterator<Item = (TopicPartition, i16)>) -> AlterReplicaLogDirsResponse {
    let mut topics: BTreeMap<TopicName, Vec<AlterReplicaLogDirPartitionResult>> = BTreeMap::new();
    for (name, error_code) in outcomes {
        let result = AlterReplicaLogDirPartitionResult::default()
            .with_partition_index(name.partition.0)
            .with_error_code(error_code);
        topics.entry(name.topic).or_default().push(result);
    }
    let topics = topics.into_iter().map(|(name, partitions)| {
        AlterReplicaLogDirTopicResult::default()
            .with_topic_name(WireTopicName(StrBytes::from_string(name.to_string())))
            .with_partitions(partitions)
    });
    AlterReplicaLogDirsResponse::default().with_results(topics.collect())
}
