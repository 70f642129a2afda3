//! What a log needs to know of its topic's settings. Names, units and defaults are Kafka's.

use crate::config::{self, TopicConfig};
use crate::record::{ProduceRules, TimestampType, TopicCompression};
use crate::types::limits::DECOMPRESSED_BATCH_BYTES_MAX;

/// Effective settings of one topic. Any value is legal; the config room has checked what a user wrote.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct LogConfig {
    /// `segment.bytes`
    pub(crate) segment_bytes: u64,
    /// `segment.ms`
    pub(crate) segment_ms: i64,
    /// `retention.ms`; −1: no limit.
    pub(crate) retention_ms: i64,
    /// `retention.bytes`; −1: no limit.
    pub(crate) retention_bytes: i64,
    /// `cleanup.policy` contains `delete`.
    pub(crate) delete: bool,
    /// `cleanup.policy` contains `compact`.
    pub(crate) compact: bool,
    /// `delete.retention.ms`
    pub(crate) delete_retention_ms: i64,
    /// `min.compaction.lag.ms`
    pub(crate) min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`
    pub(crate) max_compaction_lag_ms: i64,
    /// `min.cleanable.dirty.ratio`, 0 to 1.
    pub(crate) min_cleanable_dirty_ratio: f64,
    /// `max.message.bytes`
    pub(crate) max_message_bytes: usize,
    /// `message.timestamp.type`
    pub(crate) message_timestamp_type: TimestampType,
    /// `message.timestamp.before.max.ms`
    pub(crate) timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`
    pub(crate) timestamp_after_max_ms: i64,
    /// `compression.type` with its level.
    pub(crate) compression: TopicCompression,
    /// `flush.messages`; 1 syncs before the acknowledgement.
    pub(crate) flush_messages: i64,
    /// `flush.ms`
    pub(crate) flush_ms: i64,
    /// The broker's `producer.id.expiration.ms`.
    pub(crate) producer_id_expiration_ms: i64,
}

impl Default for LogConfig {
    /// Kafka 3.9's defaults.
    fn default() -> Self {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * DAY_MS,
            retention_ms: 7 * DAY_MS,
            retention_bytes: -1,
            delete: true,
            compact: false,
            delete_retention_ms: DAY_MS,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: i64::MAX,
            min_cleanable_dirty_ratio: 0.5,
            max_message_bytes: 1_048_588,
            message_timestamp_type: TimestampType::CreateTime,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: i64::MAX,
            compression: TopicCompression::Producer,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            producer_id_expiration_ms: DAY_MS,
        }
    }
}

impl LogConfig {
    /// From a topic's effective settings and the broker's `producer.id.expiration.ms`.
    pub(crate) fn of(topic: &TopicConfig, producer_id_expiration_ms: i64) -> Self {
        Self {
            segment_bytes: u64::from(topic.segment_bytes),
            segment_ms: topic.segment_ms,
            retention_ms: topic.retention_ms,
            retention_bytes: topic.retention_bytes,
            delete: topic.delete,
            compact: topic.compact,
            delete_retention_ms: topic.delete_retention_ms,
            min_compaction_lag_ms: topic.min_compaction_lag_ms,
            max_compaction_lag_ms: topic.max_compaction_lag_ms,
            min_cleanable_dirty_ratio: topic.min_cleanable_dirty_ratio,
            max_message_bytes: topic.max_message_bytes as usize,
            message_timestamp_type: match topic.message_timestamp_type {
                config::TimestampType::CreateTime => TimestampType::CreateTime,
                config::TimestampType::LogAppendTime => TimestampType::LogAppendTime,
            },
            timestamp_before_max_ms: topic.message_timestamp_before_max_ms,
            timestamp_after_max_ms: topic.message_timestamp_after_max_ms,
            compression: match topic.compression_type {
                config::CompressionType::Producer => TopicCompression::Producer,
                config::CompressionType::Uncompressed => TopicCompression::Uncompressed,
                config::CompressionType::Gzip => TopicCompression::Gzip(topic.compression_gzip_level),
                config::CompressionType::Snappy => TopicCompression::Snappy,
                config::CompressionType::Lz4 => TopicCompression::Lz4,
                config::CompressionType::Zstd => TopicCompression::Zstd(topic.compression_zstd_level),
            },
            flush_messages: topic.flush_messages,
            flush_ms: topic.flush_ms,
            producer_id_expiration_ms,
        }
    }

    /// The rules of this topic for a produced batch.
    pub(crate) fn produce_rules(&self, zstd_allowed: bool) -> ProduceRules {
        ProduceRules {
            max_message_bytes: self.max_message_bytes,
            segment_bytes: usize::try_from(self.segment_bytes).unwrap_or(usize::MAX),
            compacted: self.compact,
            message_timestamp_type: self.message_timestamp_type,
            timestamp_before_max_ms: self.timestamp_before_max_ms,
            timestamp_after_max_ms: self.timestamp_after_max_ms,
            compression: self.compression,
            decompressed_bytes_max: DECOMPRESSED_BATCH_BYTES_MAX,
            zstd_allowed,
            check_records: true,
        }
    }

    /// Age at which a segment is closed. Compacted topics close it in time for their compaction lag.
    /// Source: Kafka `LogConfig.maxSegmentMs`.
    pub(super) fn roll_ms(&self) -> i64 {
        if self.compact { self.segment_ms.min(self.max_compaction_lag_ms) } else { self.segment_ms }
    }
}
