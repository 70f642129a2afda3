//! Settings of logs: what is taken, how it is kept, and what goes when. They are set for topics; that those of the
//! broker come to the same is shown in `running`.

use kafka_protocol::messages::CreateTopicsRequest;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};

use super::*;
use crate::record::for_each_record;
use crate::types::{ProducerEpoch, ProducerId};

/// A topic's own settings.
type Own<'a> = &'a [(&'a str, &'a str)];

/// A broker that looks after its logs all the time.
async fn busy() -> Probe {
    let often = [
        "log.retention.check.interval.ms=20",
        "log.initial.task.delay.ms=0",
        "log.cleaner.backoff.ms=20",
        "producer.id.expiration.ms=50",
    ];
    Probe::start(&often).await
}

impl Probe {
    /// Makes a topic with these settings of its own.
    async fn topic(&mut self, name: &str, settings: Own<'_>) {
        let config = |(name, value): &(&str, &str)| {
            let value = Some(StrBytes::from_string((*value).to_owned()));
            CreatableTopicConfig::default().with_name(StrBytes::from_string((*name).to_owned())).with_value(value)
        };
        let one = CreatableTopic::default()
            .with_name(topic(name))
            .with_num_partitions(1)
            .with_replication_factor(1)
            .with_configs(settings.iter().map(config).collect());
        let request = CreateTopicsRequest::default().with_topics(vec![one]).with_timeout_ms(30_000);
        assert_eq!(self.call(&request, 7).await.topics[0].error_code, 0, "{name}");
    }
}

const INVALID_TIMESTAMP: i16 = 32;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_topic_does_not_allow_is_refused() {
    let mut probe = Probe::start(&[]).await;
    let hour_ago = now_ms() - 60 * MINUTE_MS;
    probe.topic("plain", &[]).await;
    assert_eq!(probe.produce_at("plain", hour_ago, None, Some("v")).await, 0);
    assert_eq!(probe.produce_at("plain", now_ms() + 60 * MINUTE_MS, None, Some(&"v".repeat(500))).await, 0);
    probe.topic("compact", &[("cleanup.policy", "compact")]).await;
    assert_eq!(probe.produce_at("compact", hour_ago, None, Some("v")).await, 87, "INVALID_RECORD: no key");
    probe.topic("small", &[("max.message.bytes", "300")]).await;
    assert_eq!(probe.produce_at("small", hour_ago, None, Some(&"v".repeat(500))).await, 10, "MESSAGE_TOO_LARGE");
    probe.topic("before", &[("message.timestamp.before.max.ms", "60000")]).await;
    assert_eq!(probe.produce_at("before", hour_ago, None, Some("v")).await, INVALID_TIMESTAMP);
    probe.topic("after", &[("message.timestamp.after.max.ms", "60000")]).await;
    assert_eq!(probe.produce_at("after", now_ms() + 60 * MINUTE_MS, None, Some("v")).await, INVALID_TIMESTAMP);
    probe.topic("older", &[("message.timestamp.difference.max.ms", "60000")]).await;
    assert_eq!(probe.produce_at("older", hour_ago, None, Some("v")).await, INVALID_TIMESTAMP);
    probe.topic("stamped", &[("message.timestamp.type", "LogAppendTime")]).await;
    let stamped =
        probe.call(&produce("stamped", &["v"]), 9).await.responses[0].partition_responses[0].log_append_time_ms;
    assert!(stamped >= hour_ago, "{stamped}");
    probe.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn batches_are_kept_in_the_topics_codec_and_level() {
    let mut probe = Probe::start(&[]).await;
    let text: String = (0..400).map(|n| format!("key-{n} value-{} ", n * 7919 % 1000)).collect();
    let mut kept = Vec::new();
    let of_codec = [
        ("plain", &[][..]),
        ("gzip1", &[("compression.type", "gzip"), ("compression.gzip.level", "1")]),
        ("gzip9", &[("compression.type", "gzip"), ("compression.gzip.level", "9")]),
        ("zstd1", &[("compression.type", "zstd"), ("compression.zstd.level", "1")]),
        ("zstd19", &[("compression.type", "zstd"), ("compression.zstd.level", "19")]),
    ];
    for (name, settings) in of_codec {
        probe.topic(name, settings).await;
        assert_eq!(probe.produce(name, &[&text]).await, 0);
        let batch = probe.fetched(name).await;
        // The low bits of the attributes.
        kept.push((batch[22] & 7, batch.len()));
    }
    probe.broker.stop().await;
    assert_eq!(kept.iter().map(|(codec, _)| *codec).collect::<Vec<_>>(), [0, 1, 1, 4, 4]);
    let size = |at: usize| kept[at].1;
    assert!((1..5).all(|at| size(at) < size(0)) && size(1) != size(2) && size(3) != size(4), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_go_when_their_topic_lets_them() {
    let mut probe = busy().await;
    let hour_ago = now_ms() - 60 * MINUTE_MS;
    let half_an_hour = ("retention.ms", "1800000");
    let cases: [(&str, Own<'_>, i64); 7] = [
        ("plain", &[], 0),
        ("by_time", &[half_an_hour], 0),
        ("by_time_of_small", &[half_an_hour, ("segment.ms", "60000")], 1),
        ("by_time_of_all", &[("retention.ms", "1")], 2),
        ("by_size", &[("retention.bytes", "50")], 0),
        ("by_size_of_small", &[("retention.bytes", "50"), ("segment.bytes", "100")], 1),
        ("kept", &[half_an_hour, ("segment.ms", "60000"), ("cleanup.policy", "compact")], 0),
    ];
    for (name, settings, start) in cases {
        probe.topic(name, settings).await;
        // Retention may come between the two: a segment that is to stay must not be old as a whole then.
        let timestamps = if start == 0 { [now_ms(), hour_ago] } else { [hour_ago, now_ms()] };
        for timestamp in timestamps {
            assert_eq!(probe.produce_at(name, timestamp, Some(name), Some("v")).await, 0, "{name}");
        }
    }
    for (name, _, start) in cases {
        let partition = probe.partition(name);
        eventually(name, async || partition.view().log_start_offset.0 >= start).await;
        tokio::time::sleep(Duration::from_millis(60)).await;
        assert_eq!(partition.view().log_start_offset.0, start, "{name}");
    }
    probe.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_wrote_long_ago_is_forgotten() {
    for (mut probe, forgets) in
        [(busy().await, true), (Probe::start(&["log.retention.check.interval.ms=20"]).await, false)]
    {
        probe.create("t").await;
        let mut batch = BatchBuilder::new().producer(ProducerId(41), ProducerEpoch(0), 0);
        batch.append(now_ms(), None, Some(b"v"));
        assert_eq!(probe.produce_batch("t", batch).await, 0);
        let partition = probe.partition("t");
        let known = || partition.with_log(|log| log.active_producers().count()) == 1;
        if forgets {
            eventually("it is forgotten", async || !known()).await;
        } else {
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(known());
        }
        probe.broker.stop().await;
    }
}

/// Keys and values of a log, in order.
async fn records(probe: &mut Probe, name: &str) -> Vec<(String, Option<String>)> {
    let mut bytes = probe.fetched(name).await;
    let mut found = Vec::new();
    while bytes.len() > 12 {
        let length = 12 + u32::from_be_bytes(bytes[8..12].try_into().unwrap()) as usize;
        let batch = bytes.split_to(length);
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        for_each_record(&batch, 1 << 20, |record| {
            found.push((record.key.map(text).unwrap_or_default(), record.value.map(text)));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compaction_begins_when_its_topic_lets_it() {
    let mut probe = busy().await;
    let compact = ("cleanup.policy", "compact");
    let (often, at_all) = (("segment.ms", "1"), ("min.cleanable.dirty.ratio", "0"));
    let never = ("min.cleanable.dirty.ratio", "1");
    let cases: [(&str, Own<'_>, bool); 5] = [
        ("compacted", &[compact, often, at_all], true),
        ("clean_enough", &[compact, often, never], false),
        ("overdue", &[compact, often, never, ("max.compaction.lag.ms", "1")], true),
        ("too_young", &[compact, often, at_all, ("min.compaction.lag.ms", "86400000")], false),
        ("tombstone_kept", &[compact, often, at_all, ("delete.retention.ms", "86400000")], true),
    ];
    let hour_ago = now_ms() - 60 * MINUTE_MS;
    for (name, settings, _) in cases {
        probe.topic(name, settings).await;
        for (at, (key, value)) in [("a", Some("1")), ("a", Some("2")), ("b", None), ("c", Some("3"))].iter().enumerate()
        {
            assert_eq!(probe.produce_at(name, hour_ago + 10 * at as i64, Some(key), *value).await, 0, "{name}");
        }
    }
    for (name, _, compacted) in cases {
        if compacted {
            eventually(name, async || records(&mut probe, name).await[0] == ("a".into(), Some("2".into()))).await;
        }
    }
    // All were looked at meanwhile.
    for (name, _, compacted) in cases {
        let first = records(&mut probe, name).await[0].clone();
        assert_eq!(first == ("a".into(), Some("2".into())), compacted, "{name}");
    }
    let tombstone = ("b".to_owned(), None);
    assert!(records(&mut probe, "tombstone_kept").await.contains(&tombstone));
    probe.topic("tombstone_gone", &[compact, often, at_all, ("delete.retention.ms", "0")]).await;
    for (at, (key, value)) in [("b", None), ("c", Some("3")), ("c", Some("4"))].iter().enumerate() {
        assert_eq!(probe.produce_at("tombstone_gone", hour_ago + 10 * at as i64, Some(key), *value).await, 0);
    }
    eventually("the tombstone goes", async || !records(&mut probe, "tombstone_gone").await.contains(&tombstone)).await;
    probe.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_cleaner_nothing_is_compacted() {
    let mut probe =
        Probe::start(&["log.cleaner.enable=false", "log.cleaner.backoff.ms=20", "log.cleanup.policy=compact"]).await;
    probe.topic("t", &[("segment.ms", "1"), ("min.cleanable.dirty.ratio", "0")]).await;
    for at in 0..4 {
        assert_eq!(probe.produce_at("t", now_ms() - MINUTE_MS + 10 * at, Some("a"), Some("v")).await, 0);
    }
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(records(&mut probe, "t").await.len(), 4);
    probe.broker.stop().await;
}
