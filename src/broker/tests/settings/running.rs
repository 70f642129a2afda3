//! Settings of a broker that its topics take over, given at the start or while it runs, and those that say how often.

use super::super::clients::set;
use super::*;
use crate::broker::running::{periods, surroundings};
use crate::clock::SharedClock;
use crate::cluster::running_config::RunningConfig;
use crate::log::config::LogConfig;
use crate::record::{TimestampType, TopicCompression};
use crate::types::BrokerId;

/// A broker's setting with a value that is not the default, the topic's setting that it stands behind, and what an
/// open log has of it. The effect of each is shown in `logs` and `flush`.
type Row = (&'static str, &'static str, &'static str, fn(&LogConfig) -> bool);

const WHILE_RUNNING: [Row; 20] = [
    ("log.segment.bytes", "segment.bytes", "1001", |log| log.segment_bytes == 1001),
    ("log.roll.ms", "segment.ms", "1002", |log| log.segment_ms == 1002),
    ("log.retention.ms", "retention.ms", "1003", |log| log.retention_ms == 1003),
    ("log.retention.bytes", "retention.bytes", "1004", |log| log.retention_bytes == 1004),
    ("log.flush.interval.messages", "flush.messages", "1005", |log| log.flush_messages == 1005),
    ("log.flush.interval.ms", "flush.ms", "100600", |log| log.flush_ms == 100_600),
    ("log.cleanup.policy", "cleanup.policy", "compact", |log| log.compact && !log.delete),
    ("log.cleaner.min.cleanable.ratio", "min.cleanable.dirty.ratio", "0.25", |log| {
        (log.min_cleanable_dirty_ratio - 0.25).abs() < 1e-9
    }),
    ("log.cleaner.delete.retention.ms", "delete.retention.ms", "1007", |log| log.delete_retention_ms == 1007),
    ("log.cleaner.min.compaction.lag.ms", "min.compaction.lag.ms", "1008", |log| log.min_compaction_lag_ms == 1008),
    ("log.cleaner.max.compaction.lag.ms", "max.compaction.lag.ms", "1009", |log| log.max_compaction_lag_ms == 1009),
    ("message.max.bytes", "max.message.bytes", "1010", |log| log.max_message_bytes == 1010),
    ("log.message.timestamp.type", "message.timestamp.type", "LogAppendTime", |log| {
        log.message_timestamp_type == TimestampType::LogAppendTime
    }),
    ("log.message.timestamp.before.max.ms", "message.timestamp.before.max.ms", "1011", |log| {
        log.timestamp_before_max_ms == 1011
    }),
    ("log.message.timestamp.difference.max.ms", "message.timestamp.difference.max.ms", "1012", |log| {
        log.timestamp_after_max_ms == 1012
    }),
    ("compression.type", "compression.type", "gzip", |log| matches!(log.compression, TopicCompression::Gzip(_))),
    ("compression.gzip.level", "compression.gzip.level", "7", |log| log.compression == TopicCompression::Gzip(7)),
    // The one that comes last counts of those that exclude each other.
    ("log.message.timestamp.after.max.ms", "message.timestamp.after.max.ms", "1013", |log| {
        log.timestamp_after_max_ms == 1013
    }),
    ("compression.type", "compression.type", "zstd", |log| matches!(log.compression, TopicCompression::Zstd(_))),
    ("compression.zstd.level", "compression.zstd.level", "9", |log| log.compression == TopicCompression::Zstd(9)),
];

fn log_config(probe: &Probe, topic: &str) -> LogConfig {
    probe.partition(topic).with_log(|log| *log.config())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_logs_take_over_what_is_set_while_they_run() {
    let mut probe = Probe::start(&[]).await;
    for topic in ["own", "defaults"] {
        probe.create(topic).await;
    }
    let by_default = log_config(&probe, "own");
    assert!(WHILE_RUNNING.iter().all(|(_, _, _, is_set)| !is_set(&by_default)));
    for (_, name, value, is_set) in WHILE_RUNNING {
        probe.set("own", name, value).await;
        eventually(name, async || is_set(&log_config(&probe, "own"))).await;
    }
    assert_eq!(log_config(&probe, "defaults"), by_default);
    for (name, _, value, is_set) in WHILE_RUNNING {
        probe.set("", name, value).await;
        eventually(name, async || is_set(&log_config(&probe, "defaults"))).await;
    }
    probe.set("", "producer.id.expiration.ms", "1014").await;
    let expiration = || log_config(&probe, "own").producer_id_expiration_ms;
    eventually("producer.id.expiration.ms", async || expiration() == 1014).await;
    probe.broker.stop().await;
}

#[test]
fn what_is_set_at_the_start_is_what_topics_have() {
    let of = |settings: &[&str]| {
        let config = load(Path::new("d"), settings).unwrap();
        LogConfig::of(&config.of_topic(&Default::default()).unwrap(), 0)
    };
    let by_default = of(&[]);
    for (name, _, value, is_set) in WHILE_RUNNING {
        let codec = match name {
            "compression.gzip.level" => "compression.type=gzip",
            "compression.zstd.level" => "compression.type=zstd",
            _ => "num.partitions=1",
        };
        assert!(is_set(&of(&[codec, &format!("{name}={value}")])) && !is_set(&by_default), "{name}");
    }
    const HOUR_MS: i64 = 60 * MINUTE_MS;
    assert_eq!(of(&["log.roll.hours=2"]).segment_ms, 2 * HOUR_MS);
    assert_eq!(of(&["log.retention.hours=3"]).retention_ms, 3 * HOUR_MS);
    assert_eq!(of(&["log.retention.minutes=4"]).retention_ms, 4 * MINUTE_MS);
}

#[test]
fn chores_are_done_as_often_as_is_set() {
    let settings = [
        "log.initial.task.delay.ms=1001",
        "log.retention.check.interval.ms=1002",
        "log.cleaner.backoff.ms=1003",
        "replica.high.watermark.checkpoint.interval.ms=1004",
        "log.cleaner.enable=false",
    ];
    let config = RunningConfig::new(Arc::new(load(Path::new("d"), &settings).unwrap()));
    let periods = periods(config)();
    assert_eq!(periods.initial_delay, Duration::from_millis(1001));
    assert_eq!(periods.retention, Duration::from_millis(1002));
    assert_eq!(periods.cleaner_backoff, Duration::from_millis(1003));
    assert_eq!(periods.high_watermarks, Duration::from_millis(1004));
    assert!(!periods.cleaner_enabled);
}

/// What comes of it once it lags is `replica/leading_tests.rs`'.
#[test]
fn a_follower_may_lag_for_as_long_as_is_set() {
    let config = load(Path::new("d"), &["replica.lag.time.max.ms=1005"]).unwrap();
    let clock: SharedClock = Arc::new(SystemClock);
    let around = surroundings(&config, BrokerId(1), &clock, &Arc::default());
    assert_eq!((around.lag_max, around.lag_ms()), (Duration::from_millis(1005), 1005));
}

/// Kafka opens and closes listeners while it runs; here a restart does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_are_not_changed_while_a_broker_runs() {
    let mut probe = Probe::start(&[]).await;
    for (name, value) in [
        ("listeners", "PLAINTEXT://127.0.0.1:0"),
        ("advertised.listeners", "PLAINTEXT://example.test:1"),
        ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,X:PLAINTEXT"),
    ] {
        assert_eq!(set(&mut probe.client, "1", name, value).await, 42, "INVALID_REQUEST: {name}");
    }
    probe.broker.stop().await;
}
