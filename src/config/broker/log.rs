//! How partitions are kept: segments, retention, compaction, flushing.
//!
//! Rows only: a name, its type, default, legal values, scope of change, effect and one sentence. Source: Kafka 3.9
//! `KafkaConfig`; the sentences are ours.

use super::super::setting::*;

/// The rows, in the order a reader looks for them.
pub(crate) const ROWS: &[Setting] = settings! {
    "log.dir" Text "/tmp/kafka-logs" [Any] ReadOnly => Honoured,
        "Directory of the data when log.dirs is not set.";
    "log.dirs" Text null [Any] ReadOnly => Honoured,
        "Directories of the data, separated by commas.";
    "log.dir.failure.timeout.ms" Long "30000" [AtLeast(1)] ReadOnly => NoEffect,
        "How long a failed log directory may go unreported before the broker stops.";
    "log.segment.bytes" Int "1073741824" [AtLeast(14)] ClusterWide => Honoured,
        "Bytes after which a new segment begins.";
    "log.roll.ms" Long null [Any] ClusterWide => Honoured,
        "Age after which a new segment begins; without it log.roll.hours counts.";
    "log.roll.hours" Int "168" [AtLeast(1)] ReadOnly => Honoured,
        "Age in hours after which a new segment begins.";
    "log.roll.jitter.ms" Long null [Any] ClusterWide => NoEffect,
        "Largest random time taken off the age at which a segment ends.";
    "log.roll.jitter.hours" Int "0" [AtLeast(0)] ReadOnly => NoEffect,
        "The same in hours, used without log.roll.jitter.ms.";
    "log.retention.ms" Long null [Any] ClusterWide => Honoured,
        "Age at which records may be deleted, -1 for never; without it the minutes count, then the hours.";
    "log.retention.minutes" Int null [Any] ReadOnly => Honoured,
        "Age in minutes at which records may be deleted.";
    "log.retention.hours" Int "168" [Any] ReadOnly => Honoured,
        "Age in hours at which records may be deleted.";
    "log.retention.bytes" Long "-1" [Any] ClusterWide => Honoured,
        "Size per partition above which the oldest segments are deleted, -1 for none.";
    "log.retention.check.interval.ms" Long "300000" [AtLeast(1)] ReadOnly => Honoured,
        "Interval of the search for records to delete.";
    "log.segment.delete.delay.ms" Long "60000" [AtLeast(0)] ClusterWide => NoEffect,
        "Delay before the file of a deleted segment is removed.";
    "log.index.size.max.bytes" Int "10485760" [AtLeast(4)] ClusterWide => NoEffect,
        "Largest offset index of a segment.";
    "log.index.interval.bytes" Int "4096" [AtLeast(0)] ClusterWide => NoEffect,
        "Bytes between two entries of the offset index.";
    "log.flush.interval.messages" Long "9223372036854775807" [AtLeast(1)] ClusterWide => Honoured,
        "Records of a partition after which they are synced to disk; 1 syncs before each acknowledgement.";
    "log.flush.interval.ms" Long null [Any] ClusterWide => Honoured,
        "Longest time before records are synced to disk; the sync is one for the whole log directory.";
    "log.flush.scheduler.interval.ms" Long "9223372036854775807" [Any] ReadOnly => Honoured,
        "Stands in for log.flush.interval.ms when that is not set.";
    "log.flush.offset.checkpoint.interval.ms" Int "60000" [AtLeast(0)] ReadOnly => NoEffect,
        "Interval at which Kafka records its recovery point.";
    "log.flush.start.offset.checkpoint.interval.ms" Int "60000" [AtLeast(0)] ReadOnly => NoEffect,
        "Interval at which Kafka records log start offsets.";
    "log.initial.task.delay.ms" Long "30000" [AtLeast(0)] ReadOnly internal => Honoured,
        "Delay before the first round of retention and housekeeping.";
    "log.preallocate" Boolean "false" [Any] ClusterWide => NoEffect,
        "Whether segment files are allocated in advance.";
    "log.cleanup.policy" List "delete" [EachOf(&["compact", "delete"])] ClusterWide => Honoured,
        "What happens to old records: `delete`, `compact` or both.";
    "log.cleaner.enable" Boolean "true" [Any] ReadOnly => Honoured,
        "Whether compacted topics are compacted.";
    "log.cleaner.threads" Int "1" [AtLeast(0)] ClusterWide => NoEffect,
        "Threads that compact.";
    "log.cleaner.backoff.ms" Long "15000" [AtLeast(0)] ClusterWide => Honoured,
        "Pause when there is nothing to compact.";
    "log.cleaner.dedupe.buffer.size" Long "134217728" [Any] ClusterWide => NoEffect,
        "Memory for the map of keys while compacting, over all threads.";
    "log.cleaner.io.buffer.size" Int "524288" [AtLeast(0)] ClusterWide => NoEffect,
        "Memory for compaction's read and write buffers, over all threads.";
    "log.cleaner.io.buffer.load.factor" Double "0.9" [Any] ClusterWide => NoEffect,
        "How full the map of keys may get.";
    "log.cleaner.io.max.bytes.per.second" Double "1.7976931348623157E308" [Any] ClusterWide => NoEffect,
        "Bound on the bytes compaction reads and writes per second.";
    "log.cleaner.min.cleanable.ratio" Double "0.5" [BetweenDoubles(0.0, 1.0)] ClusterWide => Honoured,
        "Share of uncompacted bytes from which a partition is compacted.";
    "log.cleaner.delete.retention.ms" Long "86400000" [AtLeast(0)] ClusterWide => Honoured,
        "How long tombstones stay in a compacted topic.";
    "log.cleaner.min.compaction.lag.ms" Long "0" [AtLeast(0)] ClusterWide => Honoured,
        "Time a record stays uncompacted at least.";
    "log.cleaner.max.compaction.lag.ms" Long "9223372036854775807" [AtLeast(1)] ClusterWide => Honoured,
        "Time after which a record must be compacted.";
    "log.message.format.version" Text "3.0-IV1" [MetadataVersion] ReadOnly => NoEffect,
        "Message format of old brokers; ignored since Kafka 3.0.";
    "log.message.timestamp.type" Text "CreateTime" [OneOf(&["CreateTime", "LogAppendTime"])] ClusterWide => Honoured,
        "Whether a record's timestamp is the client's (`CreateTime`) or the broker's (`LogAppendTime`).";
    "log.message.timestamp.difference.max.ms" Long "9223372036854775807" [AtLeast(0)] ClusterWide => Honoured,
        "Largest allowed distance between a record's timestamp and the broker's clock; deprecated.";
    "log.message.timestamp.before.max.ms" Long "9223372036854775807" [AtLeast(0)] ClusterWide => Honoured,
        "How far a record's timestamp may lie in the past.";
    "log.message.timestamp.after.max.ms" Long "9223372036854775807" [AtLeast(0)] ClusterWide => Honoured,
        "How far a record's timestamp may lie in the future.";
    "log.message.downconversion.enable" Boolean "true" [Any] ClusterWide => NoEffect,
        "Whether batches are converted for consumers of Kafka 0.10 and older.";
    "log.local.retention.ms" Long "-2" [AtLeast(-2)] ClusterWide => NoEffect,
        "Age at which records leave the local disk when tiered storage is on.";
    "log.local.retention.bytes" Long "-2" [AtLeast(-2)] ClusterWide => NoEffect,
        "Local size at which records leave the local disk when tiered storage is on.";
    "num.recovery.threads.per.data.dir" Int "1" [AtLeast(1)] ClusterWide => NoEffect,
        "Threads per directory that recover at start and flush at stop.";
    "num.replica.alter.log.dirs.threads" Int null [Any] ReadOnly => NoEffect,
        "Threads that move replicas between directories.";
    "alter.log.dirs.replication.quota.window.num" Int "11" [AtLeast(1)] ReadOnly => Honoured,
        "Samples kept for the quota on moves between directories.";
    "alter.log.dirs.replication.quota.window.size.seconds" Int "1" [AtLeast(1)] ReadOnly => Honoured,
        "Length of each such sample.";
};
