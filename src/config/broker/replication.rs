//! Replicas, leaders and the quotas between brokers.
//!
//! Rows only: a name, its type, default, legal values, scope of change, effect and one sentence. Source: Kafka 3.9
//! `KafkaConfig`; the sentences are ours.

use super::super::setting::*;

/// The rows, in the order a reader looks for them.
pub(crate) const ROWS: &[Setting] = settings! {
    "num.replica.fetchers" Int "1" [Any] ClusterWide => Honoured,
        "Threads that fetch from one other broker.";
    "replica.fetch.backoff.ms" Int "1000" [AtLeast(0)] ReadOnly => Honoured,
        "Pause after a fetch from a leader failed.";
    "replica.fetch.max.bytes" Int "1048576" [AtLeast(0)] ReadOnly => Honoured,
        "Bytes asked per partition when fetching from a leader.";
    "replica.fetch.min.bytes" Int "1" [Any] ReadOnly => Honoured,
        "Bytes a leader gathers before it answers a follower.";
    "replica.fetch.response.max.bytes" Int "10485760" [AtLeast(0)] ReadOnly => Honoured,
        "Bytes asked per response when fetching from a leader.";
    "replica.fetch.wait.max.ms" Int "500" [Any] ReadOnly => Honoured,
        "Longest wait of a follower's fetch.";
    "replica.high.watermark.checkpoint.interval.ms" Long "5000" [Any] ReadOnly => Honoured,
        "Interval at which high watermarks are recorded.";
    "replica.lag.time.max.ms" Long "30000" [Any] ReadOnly => Honoured,
        "Time after which a follower that does not catch up is out of sync.";
    "replica.selector.class" Text null [Any] ReadOnly => Honoured,
        "Class that chooses the replica a consumer reads from; none but Kafka's RackAwareReplicaSelector.";
    "replica.socket.receive.buffer.bytes" Int "65536" [Any] ReadOnly => NoEffect,
        "SO_RCVBUF of connections to leaders.";
    "replica.socket.timeout.ms" Int "30000" [Any] ReadOnly => Honoured,
        "Socket time-out of connections to leaders.";
    "auto.leader.rebalance.enable" Boolean "true" [Any] ReadOnly => Honoured,
        "Whether leadership goes back to the preferred replicas by itself.";
    "leader.imbalance.check.interval.seconds" Long "300" [AtLeast(1)] ReadOnly => Honoured,
        "Interval of the search for misplaced leadership.";
    "leader.imbalance.per.broker.percentage" Int "10" [Any] ReadOnly => Honoured,
        "Share of misplaced leadership a broker may have.";
    "unclean.leader.election.interval.ms" Long "300000" [AtLeast(1)] ReadOnly internal => NoEffect,
        "Interval of the search for partitions that need an unclean election.";
    "inter.broker.protocol.version" Text "3.9-IV0" [MetadataVersion] ReadOnly => Honoured,
        "Version of the protocol between brokers.";
    "replication.quota.window.num" Int "11" [AtLeast(1)] ReadOnly => Honoured,
        "Samples kept for replication quotas.";
    "replication.quota.window.size.seconds" Int "1" [AtLeast(1)] ReadOnly => Honoured,
        "Length of each replication quota sample.";
    "quota.window.num" Int "11" [AtLeast(1)] ReadOnly => Honoured,
        "Samples kept for client quotas.";
    "quota.window.size.seconds" Int "1" [AtLeast(1)] ReadOnly => Honoured,
        "Length of each client quota sample.";
    "controller.quota.window.num" Int "11" [AtLeast(1)] ReadOnly => Honoured,
        "Samples kept for the quota on topic changes.";
    "controller.quota.window.size.seconds" Int "1" [AtLeast(1)] ReadOnly => Honoured,
        "Length of each such sample.";
};

/// What is set while a broker runs or not at all, so that Kafka's table of settings does not have it. Source: Kafka 3.9
/// `QuotaConfigs.brokerQuotaConfigs`, `DynamicConfig.Broker`.
pub(crate) const DYNAMIC: &[Setting] = settings! {
    "leader.replication.throttled.rate" Long "9223372036854775807" [AtLeast(0)] ClusterWide => Honoured,
        "Bytes a second that a leader sends to the replicas that its topics throttle.";
    "follower.replication.throttled.rate" Long "9223372036854775807" [AtLeast(0)] ClusterWide => Honoured,
        "Bytes a second that a follower fetches of the replicas that its topics throttle.";
    "replica.alter.log.dirs.io.max.bytes.per.second" Long "9223372036854775807" [AtLeast(0)] ClusterWide => Honoured,
        "Bytes a second for moves between log directories.";
};
