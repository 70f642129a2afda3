//! One topic's settings: the broker's defaults, overlaid by what was set for the topic.
//!
//! The rows are in `topic_rows`. Values are checked as Kafka checks them, with its texts, since CreateTopics and
//! IncrementalAlterConfigs send them to clients. Source: Kafka 3.9 `LogConfig`, `ServerTopicConfigSynonyms`.

use std::collections::BTreeMap;

use super::precedence::Settings;
use super::setting::{Effect, Setting, Value};
use super::topic_rows::ROWS;
use super::{ConfigError, broker};

/// The effective settings of one topic.
#[derive(Debug, Clone, PartialEq)]
pub struct TopicConfig {
    /// `cleanup.policy` contains `compact`.
    pub compact: bool,
    /// `cleanup.policy` contains `delete`. Neither: nothing is ever removed.
    pub delete: bool,
    /// Negative: records never become too old.
    pub retention_ms: i64,
    /// Negative: a partition never becomes too large.
    pub retention_bytes: i64,
    pub segment_bytes: u32,
    pub segment_ms: i64,
    /// Largest batch, after compression.
    pub max_message_bytes: u32,
    pub min_insync_replicas: i32,
    pub compression_type: CompressionType,
    /// −1: the codec's own default.
    pub compression_gzip_level: i32,
    pub compression_zstd_level: i32,
    pub message_timestamp_type: TimestampType,
    /// How far in the past a timestamp may lie; `i64::MAX`: no bound.
    pub message_timestamp_before_max_ms: i64,
    /// How far in the future a timestamp may lie; `i64::MAX`: no bound.
    pub message_timestamp_after_max_ms: i64,
    pub delete_retention_ms: i64,
    pub min_compaction_lag_ms: i64,
    pub max_compaction_lag_ms: i64,
    /// Between 0 and 1.
    pub min_cleanable_dirty_ratio: f64,
    /// Records between two syncs; 1: each write is synced before its acknowledgement.
    pub flush_messages: i64,
    pub flush_ms: i64,
    pub unclean_leader_election_enable: bool,
    /// `partition:broker`, or `*`.
    pub leader_throttled_replicas: Vec<String>,
    pub follower_throttled_replicas: Vec<String>,
}

/// `compression.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressionType {
    /// Whatever the producer chose.
    Producer,
    Uncompressed,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// `message.timestamp.type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// Every row of a topic.
pub(crate) fn rows() -> impl Iterator<Item = &'static Setting> {
    ROWS.iter()
}

/// The row of a name; `None` for a name Kafka does not know.
pub(crate) fn row(name: &str) -> Option<&'static Setting> {
    ROWS.iter().find(|row| row.name == name)
}

impl TopicConfig {
    /// The settings of a topic that has these of its own over the broker's defaults.
    ///
    /// # Errors
    /// [`ConfigError::Topic`] with Kafka's text: an unknown name, a value that is not legal, or two that contradict.
    pub(crate) fn over(defaults: &TopicValues, overrides: &BTreeMap<String, String>) -> Result<Self, ConfigError> {
        let mut values = defaults.clone();
        for (name, text) in overrides {
            let row = row(name).ok_or_else(|| ConfigError::Topic(format!("Unknown topic config name: {name}")))?;
            let value = row.parse(text).map_err(ConfigError::Topic)?;
            if let Effect::Refused(reason) = row.effect
                && row.default.is_none_or(|default| row.parse(default).as_ref() != Ok(&value))
            {
                return Err(ConfigError::Topic(format!("Invalid value {text} for configuration {name}: {reason}")));
            }
            values.0.insert(row.name, value);
        }
        let config = Self::of(&values);
        if config.min_compaction_lag_ms > config.max_compaction_lag_ms {
            return Err(ConfigError::Topic(format!(
                "conflict topic config setting min.compaction.lag.ms ({}) > max.compaction.lag.ms ({})",
                config.min_compaction_lag_ms, config.max_compaction_lag_ms
            )));
        }
        Ok(config)
    }

    fn of(values: &TopicValues) -> Self {
        let policies = values.list("cleanup.policy");
        let has = |policy: &str| policies.iter().any(|have| have == policy);
        // The older bound counts where the newer one was left alone. Source: LogConfig.getMessageTimestampBeforeMaxMs.
        let difference = values.integer("message.timestamp.difference.max.ms");
        let bound = |name: &str| match values.integer(name) {
            i64::MAX => difference,
            bound => bound,
        };
        Self {
            compact: has("compact"),
            delete: has("delete"),
            retention_ms: values.integer("retention.ms"),
            retention_bytes: values.integer("retention.bytes"),
            segment_bytes: values.count("segment.bytes"),
            segment_ms: values.integer("segment.ms"),
            max_message_bytes: values.count("max.message.bytes"),
            min_insync_replicas: values.int("min.insync.replicas"),
            compression_type: values.compression_type(),
            compression_gzip_level: values.int("compression.gzip.level"),
            compression_zstd_level: values.int("compression.zstd.level"),
            message_timestamp_type: match values.text("message.timestamp.type") {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            message_timestamp_before_max_ms: bound("message.timestamp.before.max.ms"),
            message_timestamp_after_max_ms: bound("message.timestamp.after.max.ms"),
            delete_retention_ms: values.integer("delete.retention.ms"),
            min_compaction_lag_ms: values.integer("min.compaction.lag.ms"),
            max_compaction_lag_ms: values.integer("max.compaction.lag.ms"),
            min_cleanable_dirty_ratio: values.double("min.cleanable.dirty.ratio"),
            flush_messages: values.integer("flush.messages"),
            flush_ms: values.integer("flush.ms"),
            unclean_leader_election_enable: values.boolean("unclean.leader.election.enable"),
            leader_throttled_replicas: values.list("leader.replication.throttled.replicas").to_vec(),
            follower_throttled_replicas: values.list("follower.replication.throttled.replicas").to_vec(),
        }
    }
}

/// Kafka's defaults.
impl Default for TopicConfig {
    fn default() -> Self {
        Self::of(&TopicValues::of_broker(&Settings::default()))
    }
}

/// The broker's settings that stand behind a topic's, first one first, each with the factor to the topic's unit.
/// Source: Kafka `ServerTopicConfigSynonyms.ALL_TOPIC_CONFIG_SYNONYMS`.
pub(crate) fn synonyms(topic_setting: &str) -> &'static [(&'static str, i64)] {
    const HOUR: i64 = 3_600_000;
    match topic_setting {
        "segment.bytes" => &[("log.segment.bytes", 1)],
        "segment.ms" => &[("log.roll.ms", 1), ("log.roll.hours", HOUR)],
        "segment.jitter.ms" => &[("log.roll.jitter.ms", 1), ("log.roll.jitter.hours", HOUR)],
        "segment.index.bytes" => &[("log.index.size.max.bytes", 1)],
        "flush.messages" => &[("log.flush.interval.messages", 1)],
        "flush.ms" => &[("log.flush.interval.ms", 1), ("log.flush.scheduler.interval.ms", 1)],
        "retention.bytes" => &[("log.retention.bytes", 1)],
        "retention.ms" => &[("log.retention.ms", 1), ("log.retention.minutes", 60_000), ("log.retention.hours", HOUR)],
        "max.message.bytes" => &[("message.max.bytes", 1)],
        "index.interval.bytes" => &[("log.index.interval.bytes", 1)],
        "delete.retention.ms" => &[("log.cleaner.delete.retention.ms", 1)],
        "min.compaction.lag.ms" => &[("log.cleaner.min.compaction.lag.ms", 1)],
        "max.compaction.lag.ms" => &[("log.cleaner.max.compaction.lag.ms", 1)],
        "file.delete.delay.ms" => &[("log.segment.delete.delay.ms", 1)],
        "min.cleanable.dirty.ratio" => &[("log.cleaner.min.cleanable.ratio", 1)],
        "cleanup.policy" => &[("log.cleanup.policy", 1)],
        "unclean.leader.election.enable" => &[("unclean.leader.election.enable", 1)],
        "min.insync.replicas" => &[("min.insync.replicas", 1)],
        "compression.type" => &[("compression.type", 1)],
        "compression.gzip.level" => &[("compression.gzip.level", 1)],
        "compression.lz4.level" => &[("compression.lz4.level", 1)],
        "compression.zstd.level" => &[("compression.zstd.level", 1)],
        "preallocate" => &[("log.preallocate", 1)],
        "message.format.version" => &[("log.message.format.version", 1)],
        "message.timestamp.type" => &[("log.message.timestamp.type", 1)],
        "message.timestamp.difference.max.ms" => &[("log.message.timestamp.difference.max.ms", 1)],
        "message.timestamp.before.max.ms" => &[("log.message.timestamp.before.max.ms", 1)],
        "message.timestamp.after.max.ms" => &[("log.message.timestamp.after.max.ms", 1)],
        "message.downconversion.enable" => &[("log.message.downconversion.enable", 1)],
        "local.retention.ms" => &[("log.local.retention.ms", 1)],
        "local.retention.bytes" => &[("log.local.retention.bytes", 1)],
        _ => &[],
    }
}

/// A checked value for every row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TopicValues(pub(crate) BTreeMap<&'static str, Value>);

impl TopicValues {
    /// The defaults that a broker with these checked settings gives its topics.
    pub(crate) fn of_broker(settings: &Settings) -> Self {
        Self(rows().map(|row| (row.name, default_of(row, settings))).collect())
    }

    fn value(&self, name: &str) -> &Value {
        self.0.get(name).expect("every row of a topic has a value, and only names of rows are asked for")
    }

    fn integer(&self, name: &str) -> i64 {
        match self.value(name) {
            Value::Integer(number) => *number,
            other => unreachable!("{name} is a number in its row, not {other:?}"),
        }
    }

    /// Of a row that allows no negative number.
    fn count(&self, name: &str) -> u32 {
        u32::try_from(self.integer(name)).expect("its row allows an int that is not negative")
    }

    fn int(&self, name: &str) -> i32 {
        i32::try_from(self.integer(name)).expect("its row is an int")
    }

    fn double(&self, name: &str) -> f64 {
        match self.value(name) {
            Value::Double(number) => *number,
            other => unreachable!("{name} is a double in its row, not {other:?}"),
        }
    }

    fn boolean(&self, name: &str) -> bool {
        *self.value(name) == Value::Boolean(true)
    }

    fn list(&self, name: &str) -> &[String] {
        match self.value(name) {
            Value::List(list) => list,
            other => unreachable!("{name} is a list in its row, not {other:?}"),
        }
    }

    fn text(&self, name: &str) -> &str {
        match self.value(name) {
            Value::Text(text) => text,
            other => unreachable!("{name} is a text in its row, not {other:?}"),
        }
    }

    fn compression_type(&self) -> CompressionType {
        match self.text("compression.type") {
            "uncompressed" => CompressionType::Uncompressed,
            "gzip" => CompressionType::Gzip,
            "snappy" => CompressionType::Snappy,
            "lz4" => CompressionType::Lz4,
            "zstd" => CompressionType::Zstd,
            _ => CompressionType::Producer,
        }
    }
}

/// The first of the broker's settings behind a topic's that is given, else the first that has a default.
fn default_of(row: &'static Setting, settings: &Settings) -> Value {
    let behind = synonyms(row.name).iter().filter_map(|(name, factor)| Some((broker::row(name)?, *factor)));
    let given =
        |(row, factor): (&'static Setting, i64)| Some((row.parse(&settings.given(row.name)?.value).ok()?, factor));
    let default = |(row, factor): (&'static Setting, i64)| Some((row.parse(row.default?).ok()?, factor));
    let found = behind.clone().find_map(given).or_else(|| behind.clone().find_map(default));
    match found {
        // Kafka's KafkaConfig.logRetentionTimeMillis: whatever is negative means for ever.
        Some((Value::Integer(number), _)) if row.name == "retention.ms" && number < 0 => Value::Integer(-1),
        Some((Value::Integer(number), factor)) => Value::Integer(number.saturating_mul(factor)),
        Some((value, _)) => value,
        None => row.parse(row.default.unwrap_or_default()).expect("the default of a row is legal"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::config;
    use super::*;

    fn overrides(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn refusal(pairs: &[(&str, &str)]) -> String {
        config(&[]).of_topic(&overrides(pairs)).expect_err("refused").to_string()
    }

    #[test]
    fn every_topic_key_of_kafka_3_9_has_one_row() {
        let names: std::collections::BTreeSet<_> = rows().map(|row| row.name).collect();
        assert_eq!((names.len(), rows().count()), (36, 36));
        for row in rows() {
            assert!(row.documentation.ends_with('.'));
            let default = row.default.expect("a topic's setting has a default");
            assert_eq!(Ok(default_of(row, &Settings::default())), row.parse(default), "{}", row.name);
        }
    }

    #[test]
    fn a_topic_has_the_brokers_default_until_it_has_its_own() {
        let broker =
            config(&[("log.retention.hours", "1"), ("message.max.bytes", "5000"), ("log.cleanup.policy", "compact")]);
        let plain = broker.of_topic(&overrides(&[])).expect("legal");
        assert_eq!((plain.retention_ms, plain.max_message_bytes), (3_600_000, 5000));
        assert!(plain.compact && !plain.delete);
        let own = broker.of_topic(&overrides(&[("retention.ms", "7"), ("cleanup.policy", "compact,delete")]));
        let own = own.expect("legal");
        assert_eq!(own.retention_ms, 7);
        assert!(own.compact && own.delete);
    }

    #[test]
    fn the_finer_unit_wins_and_negative_retention_is_for_ever() {
        let of = |given: &[(&str, &str)]| config(given).topic_defaults.retention_ms;
        assert_eq!(of(&[("log.retention.hours", "1"), ("log.retention.minutes", "2")]), 120_000);
        assert_eq!(of(&[("log.retention.minutes", "2"), ("log.retention.ms", "3")]), 3);
        assert_eq!(of(&[("log.retention.hours", "-1")]), -1);
        assert_eq!(config(&[("log.flush.scheduler.interval.ms", "9")]).topic_defaults.flush_ms, 9);
    }

    #[test]
    fn what_kafka_refuses_is_refused_in_its_words() {
        assert_eq!(refusal(&[("foo", "1")]), "Unknown topic config name: foo");
        assert_eq!(
            refusal(&[("retention.ms", "-2")]),
            "Invalid value -2 for configuration retention.ms: Value must be at least -1"
        );
        assert_eq!(
            refusal(&[("min.compaction.lag.ms", "5"), ("max.compaction.lag.ms", "3")]),
            "conflict topic config setting min.compaction.lag.ms (5) > max.compaction.lag.ms (3)"
        );
        assert!(refusal(&[("remote.storage.enable", "true")]).contains("tiered storage"));
    }

    #[test]
    fn the_older_timestamp_bound_counts_where_the_newer_ones_are_open() {
        let pairs = [("message.timestamp.difference.max.ms", "5"), ("message.timestamp.after.max.ms", "7")];
        let config = config(&[]).of_topic(&overrides(&pairs)).expect("legal");
        assert_eq!((config.message_timestamp_before_max_ms, config.message_timestamp_after_max_ms), (5, 7));
    }
}
