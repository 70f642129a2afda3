//! Identity, threads, requests and sockets of one broker.
//!
//! Rows only: a name, its type, default, legal values, scope of change, effect and one sentence. Source: Kafka 3.9
//! `KafkaConfig`; the sentences are ours.

use super::super::setting::*;

/// The rows, in the order a reader looks for them.
pub(crate) const ROWS: &[Setting] = settings! {
    "broker.id" Int "-1" [Any] ReadOnly => Honoured,
        "Number of this broker in its cluster; -1 lets the cluster give one.";
    "broker.id.generation.enable" Boolean "true" [Any] ReadOnly => Honoured,
        "Whether a broker without a number gets one from the cluster.";
    "reserved.broker.max.id" Int "1000" [AtLeast(0)] ReadOnly => Honoured,
        "Largest number that may be configured by hand; generated ones lie above it.";
    "broker.rack" Text null [Any] ReadOnly => Honoured,
        "Rack, zone or row the broker stands in; used to spread replicas.";
    "num.partitions" Int "1" [AtLeast(1)] ReadOnly => Honoured,
        "Partitions of a topic that is created without a count.";
    "default.replication.factor" Int "1" [Any] ReadOnly => Honoured,
        "Replicas of a topic that is created without a count.";
    "auto.create.topics.enable" Boolean "true" [Any] ReadOnly => Honoured,
        "Whether asking for metadata of an unknown topic creates it.";
    "delete.topic.enable" Boolean "true" [Any] ReadOnly => Honoured,
        "Whether topics may be deleted through the admin API.";
    "message.max.bytes" Int "1048588" [AtLeast(0)] ClusterWide => Honoured,
        "Largest record batch that is accepted, in bytes after compression.";
    "min.insync.replicas" Int "1" [AtLeast(1)] ClusterWide => Honoured,
        "Replicas that must be in sync for a write with acks=all.";
    "compression.type" Text "producer"
        [OneOf(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"])] ClusterWide => Honoured,
        "Codec stored batches have; `producer` keeps what the client chose.";
    "compression.gzip.level" Int "-1" [GzipLevel] ClusterWide => Honoured,
        "Level used when the topic's codec is gzip.";
    "compression.lz4.level" Int "9" [Between(1, 17)] ClusterWide => NoEffect,
        "Level used when the topic's codec is lz4.";
    "compression.zstd.level" Int "3" [Between(-131072, 22)] ClusterWide => Honoured,
        "Level used when the topic's codec is zstd.";
    "unclean.leader.election.enable" Boolean "false" [Any] ClusterWide => Honoured,
        "Whether a replica that is not in sync may become leader, at the price of records.";
    "request.timeout.ms" Int "30000" [Any] ReadOnly => Honoured,
        "How long a request between brokers may take before it has failed.";
    "fetch.max.bytes" Int "57671680" [AtLeast(1024)] ReadOnly => Honoured,
        "Largest fetch response, in bytes, whatever the client asks.";
    "max.incremental.fetch.session.cache.slots" Int "1000" [AtLeast(0)] ReadOnly => Honoured,
        "Fetch sessions that are kept at the same time.";
    "max.request.partition.size.limit" Int "2000" [AtLeast(1)] ReadOnly => Honoured,
        "Most partitions one DescribeTopicPartitions response may list.";
    "queued.max.requests" Int "500" [AtLeast(1)] ReadOnly => NoEffect,
        "Requests that may wait for an I/O thread before sockets are no longer read.";
    "queued.max.request.bytes" Long "-1" [Any] ReadOnly => Honoured,
        "Bytes of requests that may be in work at the same time; -1 lets klamm choose a bound.";
    "num.network.threads" Int "3" [AtLeast(1)] ClusterWide => NoEffect,
        "Threads that read and write sockets.";
    "num.io.threads" Int "8" [AtLeast(1)] ClusterWide => NoEffect,
        "Threads that work on requests.";
    "background.threads" Int "10" [AtLeast(1)] ClusterWide => NoEffect,
        "Threads for housekeeping.";
    "controlled.shutdown.enable" Boolean "true" [Any] ReadOnly => Honoured,
        "Whether leadership is handed over before the broker stops.";
    "controlled.shutdown.max.retries" Int "3" [Any] ReadOnly => Honoured,
        "How often handing over leadership is tried again.";
    "controlled.shutdown.retry.backoff.ms" Long "5000" [Any] ReadOnly => Honoured,
        "Pause between two such tries.";
    "controller.socket.timeout.ms" Int "30000" [Any] ReadOnly => Honoured,
        "Socket time-out of the controller's requests to brokers.";
    "socket.send.buffer.bytes" Int "102400" [Any] ReadOnly => Honoured,
        "SO_SNDBUF of client sockets; -1 keeps the system's value. With the default quick clients get more of what the \
         kernel sends from files.";
    "socket.receive.buffer.bytes" Int "102400" [Any] ReadOnly => Honoured,
        "SO_RCVBUF of client sockets; -1 keeps the system's value.";
    "socket.request.max.bytes" Int "104857600" [AtLeast(1)] ReadOnly => Honoured,
        "Largest request frame that is read.";
    "socket.listen.backlog.size" Int "50" [AtLeast(1)] ReadOnly => NoEffect,
        "Connections that may wait to be accepted; klamm lets as many wait as the system allows.";
    "socket.connection.setup.timeout.ms" Long "10000" [Any] ReadOnly => NoEffect,
        "First time-out for setting up a connection to another broker.";
    "socket.connection.setup.timeout.max.ms" Long "30000" [Any] ReadOnly => NoEffect,
        "Largest time-out for setting up a connection to another broker.";
    "connections.max.idle.ms" Long "600000" [Any] ReadOnly => Honoured,
        "Time without traffic after which a connection is closed.";
    "max.connections" Int "2147483647" [AtLeast(0)] ClusterWide => Honoured,
        "Connections this broker holds at the same time.";
    "max.connections.per.ip" Int "2147483647" [AtLeast(0)] ClusterWide => Honoured,
        "Connections from one address at the same time.";
    "max.connections.per.ip.overrides" Text "" [Any] ClusterWide => Honoured,
        "Exceptions to max.connections.per.ip, as `host:count` separated by commas.";
    "max.connection.creation.rate" Int "2147483647" [AtLeast(0)] ClusterWide => Honoured,
        "Connections that are accepted per second.";
    "connection.failed.authentication.delay.ms" Int "100" [AtLeast(0)] ReadOnly => Honoured,
        "Delay before a connection that failed to authenticate is closed.";
    "delete.records.purgatory.purge.interval.requests" Int "1" [Any] ReadOnly => NoEffect,
        "Purge interval of Kafka's purgatory for DeleteRecords.";
    "fetch.purgatory.purge.interval.requests" Int "1000" [Any] ReadOnly => NoEffect,
        "Purge interval of Kafka's purgatory for Fetch.";
    "producer.purgatory.purge.interval.requests" Int "1000" [Any] ReadOnly => NoEffect,
        "Purge interval of Kafka's purgatory for Produce.";
    "producer.id.expiration.ms" Int "86400000" [AtLeast(1)] ClusterWide => Honoured,
        "Time after which the state of a producer that no longer writes is dropped.";
    "producer.id.expiration.check.interval.ms" Int "600000" [AtLeast(1)] ReadOnly internal => NoEffect,
        "Interval of the search for expired producers.";
    "server.max.startup.time.ms" Long "9223372036854775807" [AtLeast(0)] ReadOnly internal => NoEffect,
        "Longest time the start may take.";
    "unstable.api.versions.enable" Boolean "false" [Any] ReadOnly internal => NoEffect,
        "Whether request versions that are not final yet are announced.";
    "unstable.feature.versions.enable" Boolean "false" [Any] ReadOnly internal => NoEffect,
        "Whether feature versions that are not final yet are accepted.";
    "telemetry.max.bytes" Int "1048576" [AtLeast(1)] ReadOnly => NoEffect,
        "Largest client metrics push, in bytes.";
};
