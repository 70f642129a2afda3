//! Metrics of the broker itself.
//!
//! Rows only: a name, its type, default, legal values, scope of change, effect and one sentence. Source: Kafka 3.9
//! `KafkaConfig`; the sentences are ours.

use super::super::setting::*;

/// The rows, in the order a reader looks for them.
pub(crate) const ROWS: &[Setting] = settings! {
    "metric.reporters" List "" [Any] ClusterWide => NoEffect,
        "Java classes that report metrics.";
    "auto.include.jmx.reporter" Boolean "true" [Any] ReadOnly => NoEffect,
        "Whether JMX is among the reporters.";
    "kafka.metrics.reporters" List "" [Any] ReadOnly => NoEffect,
        "Java classes that report the older metrics.";
    "kafka.metrics.polling.interval.secs" Int "10" [AtLeast(1)] ReadOnly => NoEffect,
        "Interval at which those poll.";
    "metrics.num.samples" Int "2" [AtLeast(1)] ReadOnly => NoEffect,
        "Samples a metric is computed from.";
    "metrics.recording.level" Text "INFO" [Any] ReadOnly => NoEffect,
        "Level of detail of metrics.";
    "metrics.sample.window.ms" Long "30000" [AtLeast(1)] ReadOnly => NoEffect,
        "Time a sample covers.";
};
