//! Settings of KRaft, which klamm does not need: one node coordinates itself.
//!
//! Rows only: a name, its type, default, legal values, scope of change, effect and one sentence. Source: Kafka 3.9
//! `KafkaConfig`; the sentences are ours.

use super::super::setting::*;

/// The rows, in the order a reader looks for them.
pub(crate) const ROWS: &[Setting] = settings! {
    "process.roles" List "" [EachOf(&["broker", "controller"])] ReadOnly => Honoured,
        "Roles of a KRaft node; `broker,controller` means one node that coordinates itself.";
    "node.id" Int "-1" [Any] ReadOnly => Honoured,
        "Number of a KRaft node; the same as broker.id.";
    "controller.listener.names" Text null [Any] ReadOnly => Honoured,
        "Listeners that only KRaft controllers use; klamm does not open them.";
    "controller.quorum.voters" List "" [Any] ReadOnly => Honoured,
        "Members of the KRaft quorum; only this node itself is accepted.";
    "controller.quorum.bootstrap.servers" List "" [Any] ReadOnly => Kraft,
        "Controllers to ask for the KRaft quorum.";
    "controller.quorum.append.linger.ms" Int "25" [Any] ReadOnly => Kraft,
        "How long a KRaft leader gathers records.";
    "controller.quorum.election.backoff.max.ms" Int "1000" [Any] ReadOnly => Kraft,
        "Longest pause between two KRaft elections.";
    "controller.quorum.election.timeout.ms" Int "1000" [Any] ReadOnly => Kraft,
        "Time without a KRaft leader before an election.";
    "controller.quorum.fetch.timeout.ms" Int "2000" [Any] ReadOnly => Kraft,
        "Time without a successful fetch before a KRaft election.";
    "controller.quorum.request.timeout.ms" Int "2000" [Any] ReadOnly => Kraft,
        "Time-out of KRaft requests.";
    "controller.quorum.retry.backoff.ms" Int "20" [Any] ReadOnly => Kraft,
        "Pause before a KRaft request is tried again.";
    "broker.heartbeat.interval.ms" Int "2000" [Any] ReadOnly => Kraft,
        "Interval of a KRaft broker's heartbeats.";
    "broker.session.timeout.ms" Int "9000" [Any] ReadOnly => Kraft,
        "Time without heartbeats after which a KRaft broker is fenced.";
    "initial.broker.registration.timeout.ms" Int "60000" [Any] ReadOnly => Kraft,
        "Longest wait for registration with a KRaft controller.";
    "metadata.log.dir" Text null [Any] ReadOnly => Kraft,
        "Directory of the KRaft metadata log.";
    "metadata.log.segment.bytes" Int "1073741824" [AtLeast(12)] ReadOnly => Kraft,
        "Segment size of the KRaft metadata log.";
    "metadata.log.segment.min.bytes" Int "8388608" [AtLeast(12)] ReadOnly internal => Kraft,
        "Smallest segment size of the KRaft metadata log.";
    "metadata.log.segment.ms" Long "604800000" [Any] ReadOnly => Kraft,
        "Segment age of the KRaft metadata log.";
    "metadata.log.max.record.bytes.between.snapshots" Long "20971520" [AtLeast(1)] ReadOnly => Kraft,
        "Bytes of KRaft metadata between two snapshots.";
    "metadata.log.max.snapshot.interval.ms" Long "3600000" [AtLeast(0)] ReadOnly => Kraft,
        "Time between two KRaft snapshots.";
    "metadata.max.idle.interval.ms" Int "500" [AtLeast(0)] ReadOnly => Kraft,
        "Interval of no-op records in the KRaft metadata log.";
    "metadata.max.retention.bytes" Long "104857600" [Any] ReadOnly => Kraft,
        "Size of KRaft metadata that is kept.";
    "metadata.max.retention.ms" Long "604800000" [Any] ReadOnly => Kraft,
        "Age of KRaft metadata that is kept.";
    "eligible.leader.replicas.enable" Boolean "false" [Any] ReadOnly => Kraft,
        "Whether KRaft keeps eligible leader replicas.";
    "sasl.mechanism.controller.protocol" Text "GSSAPI" [Any] ReadOnly => Refused("SASL is not supported yet"),
        "SASL mechanism towards KRaft controllers.";
};
