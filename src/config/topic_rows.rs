//! Settings of one topic.
//!
//! Rows only: a name, its type, default, legal values, scope of change, effect and one sentence. Source: Kafka 3.9
//! `LogConfig`; the sentences are ours.

use super::setting::*;

/// The rows, in the order a reader looks for them.
pub(crate) const ROWS: &[Setting] = settings! {
    "cleanup.policy" List "delete" [EachOf(&["compact", "delete"])] PerTopic => Honoured,
        "What happens to old records: `delete`, `compact` or both.";
    "compression.gzip.level" Int "-1" [GzipLevel] PerTopic => Honoured,
        "Level used when the topic's codec is gzip.";
    "compression.lz4.level" Int "9" [Between(1, 17)] PerTopic => NoEffect,
        "Level used when the topic's codec is lz4.";
    "compression.type" Text "producer"
        [OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"])] PerTopic => Honoured,
        "Codec stored batches have; `producer` keeps what the client chose.";
    "compression.zstd.level" Int "3" [Between(-131072, 22)] PerTopic => Honoured,
        "Level used when the topic's codec is zstd.";
    "delete.retention.ms" Long "86400000" [AtLeast(0)] PerTopic => Honoured,
        "How long tombstones stay in a compacted topic.";
    "file.delete.delay.ms" Long "60000" [AtLeast(0)] PerTopic => NoEffect,
        "Delay before the file of a deleted segment is removed.";
    "flush.messages" Long "9223372036854775807" [AtLeast(1)] PerTopic => Honoured,
        "Records of a partition after which they are synced to disk; 1 syncs before each acknowledgement.";
    "flush.ms" Long "9223372036854775807" [AtLeast(0)] PerTopic => Honoured,
        "Longest time before records are synced to disk.";
    "follower.replication.throttled.replicas" List "" [ThrottledReplicas] PerTopic => Honoured,
        "Replicas whose replication is throttled on the follower's side.";
    "index.interval.bytes" Int "4096" [AtLeast(0)] PerTopic => NoEffect,
        "Bytes between two entries of the offset index.";
    "leader.replication.throttled.replicas" List "" [ThrottledReplicas] PerTopic => Honoured,
        "Replicas whose replication is throttled on the leader's side.";
    "local.retention.bytes" Long "-2" [AtLeast(-2)] PerTopic => NoEffect,
        "Local size at which records leave the local disk when tiered storage is on.";
    "local.retention.ms" Long "-2" [AtLeast(-2)] PerTopic => NoEffect,
        "Age at which records leave the local disk when tiered storage is on.";
    "max.compaction.lag.ms" Long "9223372036854775807" [AtLeast(1)] PerTopic => Honoured,
        "Time after which a record must be compacted.";
    "max.message.bytes" Int "1048588" [AtLeast(0)] PerTopic => Honoured,
        "Largest record batch that is accepted, in bytes after compression.";
    "message.downconversion.enable" Boolean "true" [Any] PerTopic => NoEffect,
        "Whether batches are converted for consumers of Kafka 0.10 and older.";
    "message.format.version" Text "3.0-IV1" [MetadataVersion] PerTopic => NoEffect,
        "Message format of old brokers; ignored since Kafka 3.0.";
    "message.timestamp.after.max.ms" Long "9223372036854775807" [AtLeast(0)] PerTopic => Honoured,
        "How far a record's timestamp may lie in the future.";
    "message.timestamp.before.max.ms" Long "9223372036854775807" [AtLeast(0)] PerTopic => Honoured,
        "How far a record's timestamp may lie in the past.";
    "message.timestamp.difference.max.ms" Long "9223372036854775807" [AtLeast(0)] PerTopic => Honoured,
        "Largest allowed distance between a record's timestamp and the broker's clock; deprecated.";
    "message.timestamp.type" Text "CreateTime" [OneOf(&["CreateTime", "LogAppendTime"])] PerTopic => Honoured,
        "Whether a record's timestamp is the client's (`CreateTime`) or the broker's (`LogAppendTime`).";
    "min.cleanable.dirty.ratio" Double "0.5" [BetweenDoubles(0.0, 1.0)] PerTopic => Honoured,
        "Share of uncompacted bytes from which a partition is compacted.";
    "min.compaction.lag.ms" Long "0" [AtLeast(0)] PerTopic => Honoured,
        "Time a record stays uncompacted at least.";
    "min.insync.replicas" Int "1" [AtLeast(1)] PerTopic => Honoured,
        "Replicas that must be in sync for a write with acks=all.";
    "preallocate" Boolean "false" [Any] PerTopic => NoEffect,
        "Whether segment files are allocated in advance.";
    "remote.log.copy.disable" Boolean "false" [Any] PerTopic => NoEffect,
        "Whether copying to remote storage is off for this topic.";
    "remote.log.delete.on.disable" Boolean "false" [Any] PerTopic => NoEffect,
        "Whether remote data is deleted when tiered storage is turned off.";
    "remote.storage.enable" Boolean "false" [Any] PerTopic => Refused("tiered storage is not supported yet"),
        "Whether tiered storage is on for this topic.";
    "retention.bytes" Long "-1" [Any] PerTopic => Honoured,
        "Size per partition above which the oldest segments are deleted, -1 for none.";
    "retention.ms" Long "604800000" [AtLeast(-1)] PerTopic => Honoured,
        "Age at which records may be deleted, -1 for never.";
    "segment.bytes" Int "1073741824" [AtLeast(14)] PerTopic => Honoured,
        "Bytes after which a new segment begins.";
    "segment.index.bytes" Int "10485760" [AtLeast(4)] PerTopic => NoEffect,
        "Largest offset index of a segment.";
    "segment.jitter.ms" Long "0" [AtLeast(0)] PerTopic => NoEffect,
        "Largest random time taken off the age at which a segment ends.";
    "segment.ms" Long "604800000" [AtLeast(1)] PerTopic => Honoured,
        "Age after which a new segment begins.";
    "unclean.leader.election.enable" Boolean "false" [Any] PerTopic => Honoured,
        "Whether a replica that is not in sync may become leader, at the price of records.";
};
