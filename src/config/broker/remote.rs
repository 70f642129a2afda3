//! Tiered storage, which is not supported yet.
//!
//! Rows only: a name, its type, default, legal values, scope of change, effect and one sentence. Source: Kafka 3.9
//! `KafkaConfig`; the sentences are ours.

use super::super::setting::*;

/// Kafka's own manager.
const METADATA_MANAGER: &str = "org.apache.kafka.server.log.remote.metadata.storage.\
    TopicBasedRemoteLogMetadataManager";

/// The rows, in the order a reader looks for them.
pub(crate) const ROWS: &[Setting] = settings! {
    "remote.log.storage.system.enable" Boolean "false" [Any] ReadOnly => Refused("tiered storage is not supported yet"),
        "Whether tiered storage is on.";
    "remote.fetch.max.wait.ms" Int "500" [AtLeast(1)] ClusterWide => NoEffect,
        "Longest wait for a read from remote storage.";
    "remote.log.index.file.cache.total.size.bytes" Long "1073741824" [AtLeast(1)] ClusterWide => NoEffect,
        "Disk space for cached remote indexes.";
    "remote.log.manager.copier.thread.pool.size" Int "-1" [ThreadPoolSize] ReadOnly => NoEffect,
        "Threads that copy segments to remote storage.";
    "remote.log.manager.expiration.thread.pool.size" Int "-1" [ThreadPoolSize] ReadOnly => NoEffect,
        "Threads that delete expired remote segments.";
    "remote.log.manager.copy.max.bytes.per.second" Long "9223372036854775807" [AtLeast(1)] ClusterWide => NoEffect,
        "Bound on bytes copied to remote storage per second.";
    "remote.log.manager.copy.quota.window.num" Int "11" [AtLeast(1)] ReadOnly => NoEffect,
        "Samples kept for the quota on copies.";
    "remote.log.manager.copy.quota.window.size.seconds" Int "1" [AtLeast(1)] ReadOnly => NoEffect,
        "Length of each copy quota sample.";
    "remote.log.manager.fetch.max.bytes.per.second" Long "9223372036854775807" [AtLeast(1)] ClusterWide => NoEffect,
        "Bound on bytes read from remote storage per second.";
    "remote.log.manager.fetch.quota.window.num" Int "11" [AtLeast(1)] ReadOnly => NoEffect,
        "Samples kept for the quota on remote reads.";
    "remote.log.manager.fetch.quota.window.size.seconds" Int "1" [AtLeast(1)] ReadOnly => NoEffect,
        "Length of each remote read quota sample.";
    "remote.log.manager.task.interval.ms" Long "30000" [AtLeast(1)] ReadOnly => NoEffect,
        "Interval of the remote log tasks.";
    "remote.log.manager.task.retry.backoff.max.ms" Long "30000" [AtLeast(1)] ReadOnly internal => NoEffect,
        "Longest pause before a remote log task is tried again.";
    "remote.log.manager.task.retry.backoff.ms" Long "500" [AtLeast(1)] ReadOnly internal => NoEffect,
        "First pause before a remote log task is tried again.";
    "remote.log.manager.task.retry.jitter" Double "0.2" [BetweenDoubles(0.0, 0.5)] ReadOnly internal => NoEffect,
        "Random share of that pause.";
    "remote.log.manager.thread.pool.size" Int "10" [AtLeast(1)] ReadOnly => NoEffect,
        "Threads of remote log tasks.";
    "remote.log.metadata.custom.metadata.max.bytes" Int "128" [AtLeast(0)] ReadOnly => NoEffect,
        "Largest custom metadata of a remote segment.";
    "remote.log.metadata.manager.class.name" Text METADATA_MANAGER
        [NotEmpty] ReadOnly => NoEffect,
        "Class that keeps the metadata of remote segments.";
    "remote.log.metadata.manager.class.path" Text null [Any] ReadOnly => NoEffect,
        "Class path of that class.";
    "remote.log.metadata.manager.impl.prefix" Text "rlmm.config." [NotEmpty] ReadOnly => NoEffect,
        "Prefix of that class's own settings.";
    "remote.log.metadata.manager.listener.name" Text null [NotEmpty] ReadOnly => NoEffect,
        "Listener through which that class connects.";
    "remote.log.reader.max.pending.tasks" Int "100" [AtLeast(1)] ReadOnly => NoEffect,
        "Remote reads that may wait.";
    "remote.log.reader.threads" Int "10" [AtLeast(1)] ReadOnly => NoEffect,
        "Threads that read from remote storage.";
    "remote.log.storage.manager.class.name" Text null [NotEmpty] ReadOnly => NoEffect,
        "Class that stores remote segments.";
    "remote.log.storage.manager.class.path" Text null [Any] ReadOnly => NoEffect,
        "Class path of that class.";
    "remote.log.storage.manager.impl.prefix" Text "rsm.config." [NotEmpty] ReadOnly => NoEffect,
        "Prefix of that class's own settings.";
};
