//! Group coordinator: groups, their offsets; and the transaction coordinator's log.
//!
//! Rows only: a name, its type, default, legal values, scope of change, effect and one sentence. Source: Kafka 3.9
//! `KafkaConfig`; the sentences are ours.

use super::setting::*;

/// Kafka's two assignors.
const ASSIGNORS: &str = "org.apache.kafka.coordinator.group.assignor.UniformAssignor,\
    org.apache.kafka.coordinator.group.assignor.RangeAssignor";

/// The rows, in the order a reader looks for them.
pub(crate) const ROWS: &[Setting] = settings! {
    "group.min.session.timeout.ms" Int "6000" [Any] ReadOnly => Honoured,
        "Shortest session time-out a member may ask for.";
    "group.max.session.timeout.ms" Int "1800000" [Any] ReadOnly => Honoured,
        "Longest session time-out a member may ask for.";
    "group.initial.rebalance.delay.ms" Int "3000" [Any] ReadOnly => Honoured,
        "How long an empty group waits for more members before its first rebalance.";
    "group.max.size" Int "2147483647" [AtLeast(1)] ReadOnly => Honoured,
        "Most members of a group.";
    "group.coordinator.rebalance.protocols" List "classic"
        [EachOf(&["consumer", "classic", "share", "unknown"])] ReadOnly => NoEffect,
        "Rebalance protocols that are offered.";
    "group.coordinator.threads" Int "1" [AtLeast(1)] ReadOnly => NoEffect,
        "Threads of the group coordinator.";
    "group.coordinator.append.linger.ms" Int "10" [AtLeast(0)] ReadOnly => NoEffect,
        "How long the coordinator gathers records.";
    "group.coordinator.new.enable" Boolean "false" [Any] ReadOnly internal => NoEffect,
        "Whether Kafka's newer group coordinator is used.";
    "group.consumer.assignors" List ASSIGNORS
        [Any] ReadOnly => NoEffect,
        "Server-side assignors of KIP-848 groups.";
    "group.consumer.heartbeat.interval.ms" Int "5000" [AtLeast(1)] ReadOnly => NoEffect,
        "Heartbeat interval of KIP-848 members.";
    "group.consumer.max.heartbeat.interval.ms" Int "15000" [AtLeast(1)] ReadOnly => NoEffect,
        "Longest such interval.";
    "group.consumer.min.heartbeat.interval.ms" Int "5000" [AtLeast(1)] ReadOnly => NoEffect,
        "Shortest such interval.";
    "group.consumer.session.timeout.ms" Int "45000" [AtLeast(1)] ReadOnly => NoEffect,
        "Session time-out of KIP-848 members.";
    "group.consumer.max.session.timeout.ms" Int "60000" [AtLeast(1)] ReadOnly => NoEffect,
        "Longest such time-out.";
    "group.consumer.min.session.timeout.ms" Int "45000" [AtLeast(1)] ReadOnly => NoEffect,
        "Shortest such time-out.";
    "group.consumer.max.size" Int "2147483647" [AtLeast(1)] ReadOnly => NoEffect,
        "Most members of a KIP-848 group.";
    "group.consumer.migration.policy" Text "disabled"
        [OneOfAnyCase(&["DISABLED", "DOWNGRADE", "UPGRADE", "BIDIRECTIONAL"])] ReadOnly internal => NoEffect,
        "Whether classic groups turn into KIP-848 groups and back.";
    "group.share.enable" Boolean "false" [Any] ReadOnly internal => NoEffect,
        "Whether share groups are offered.";
    "group.share.delivery.count.limit" Int "5" [Between(2, 10)] ReadOnly => NoEffect,
        "How often a record is delivered to a share group.";
    "group.share.heartbeat.interval.ms" Int "5000" [AtLeast(1)] ReadOnly => NoEffect,
        "Heartbeat interval of share group members.";
    "group.share.max.groups" Short "10" [Between(1, 100)] ReadOnly => NoEffect,
        "Most share groups.";
    "group.share.max.heartbeat.interval.ms" Int "15000" [AtLeast(1)] ReadOnly => NoEffect,
        "Longest such heartbeat interval.";
    "group.share.max.record.lock.duration.ms" Int "60000" [Between(30000, 3600000)] ReadOnly => NoEffect,
        "Longest lock on a record of a share group.";
    "group.share.max.session.timeout.ms" Int "60000" [AtLeast(1)] ReadOnly => NoEffect,
        "Longest session time-out in share groups.";
    "group.share.max.size" Short "200" [Between(10, 1000)] ReadOnly => NoEffect,
        "Most members of a share group.";
    "group.share.min.heartbeat.interval.ms" Int "5000" [AtLeast(1)] ReadOnly => NoEffect,
        "Shortest heartbeat interval in share groups.";
    "group.share.min.record.lock.duration.ms" Int "15000" [Between(1000, 30000)] ReadOnly => NoEffect,
        "Shortest lock on a record of a share group.";
    "group.share.min.session.timeout.ms" Int "45000" [AtLeast(1)] ReadOnly => NoEffect,
        "Shortest session time-out in share groups.";
    "group.share.partition.max.record.locks" Int "200" [Between(100, 10000)] ReadOnly => NoEffect,
        "Records of a partition that may be locked at once.";
    "group.share.record.lock.duration.ms" Int "30000" [Between(1000, 60000)] ReadOnly => NoEffect,
        "Lock on a record of a share group.";
    "group.share.session.timeout.ms" Int "45000" [AtLeast(1)] ReadOnly => NoEffect,
        "Session time-out of share group members.";
    "offset.metadata.max.bytes" Int "4096" [Any] ReadOnly => Honoured,
        "Largest metadata that may be committed beside an offset.";
    "offsets.commit.required.acks" Short "-1" [Any] ReadOnly => NoEffect,
        "Acknowledgements a commit waits for; deprecated.";
    "offsets.commit.timeout.ms" Int "5000" [AtLeast(1)] ReadOnly => NoEffect,
        "Longest wait until a commit is replicated.";
    "offsets.load.buffer.size" Int "5242880" [AtLeast(1)] ReadOnly => NoEffect,
        "Bytes read at a time when offsets are loaded.";
    "offsets.retention.minutes" Int "10080" [AtLeast(1)] ReadOnly => Honoured,
        "How long offsets of a group without members are kept.";
    "offsets.retention.check.interval.ms" Long "600000" [AtLeast(1)] ReadOnly => Honoured,
        "Interval of the search for expired offsets.";
    "offsets.topic.compression.codec" Int "0" [Any] ReadOnly => NoEffect,
        "Codec number of the offsets topic's batches.";
    "offsets.topic.num.partitions" Int "50" [AtLeast(1)] ReadOnly => Honoured,
        "Partitions of the offsets topic.";
    "offsets.topic.replication.factor" Short "3" [AtLeast(1)] ReadOnly => Honoured,
        "Replicas of the offsets topic; 1 on a node that coordinates itself.";
    "offsets.topic.segment.bytes" Int "104857600" [AtLeast(1)] ReadOnly => Honoured,
        "Segment size of the offsets topic.";
    "transaction.abort.timed.out.transaction.cleanup.interval.ms" Int "10000" [AtLeast(1)] ReadOnly => Honoured,
        "Interval of the search for transactions that timed out.";
    "transaction.max.timeout.ms" Int "900000" [AtLeast(1)] ReadOnly => Honoured,
        "Longest time-out a transactional producer may ask for.";
    "transaction.partition.verification.enable" Boolean "true" [Any] ClusterWide => Honoured,
        "Whether a transactional write checks that its partition was added.";
    "transaction.remove.expired.transaction.cleanup.interval.ms" Int "3600000" [AtLeast(1)] ReadOnly => Honoured,
        "Interval of the search for expired transactional ids.";
    "transaction.state.log.load.buffer.size" Int "5242880" [AtLeast(1)] ReadOnly => NoEffect,
        "Bytes read at a time when transactions are loaded.";
    "transaction.state.log.min.isr" Int "2" [AtLeast(1)] ReadOnly => Honoured,
        "Replicas of the transaction log that must be in sync.";
    "transaction.state.log.num.partitions" Int "50" [AtLeast(1)] ReadOnly => Honoured,
        "Partitions of the transaction log.";
    "transaction.state.log.replication.factor" Short "3" [AtLeast(1)] ReadOnly => Honoured,
        "Replicas of the transaction log.";
    "transaction.state.log.segment.bytes" Int "104857600" [AtLeast(1)] ReadOnly => Honoured,
        "Segment size of the transaction log.";
    "transactional.id.expiration.ms" Int "604800000" [AtLeast(1)] ReadOnly => Honoured,
        "Time after which an unused transactional id is forgotten.";
};
