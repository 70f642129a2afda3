//! Which virtual segments have outlived `retention.ms` or `retention.bytes`. Pure; the log moves its start.
//! Source: Kafka 3.9 `UnifiedLog.deleteOldSegments`.

use crate::clock::UnixMs;
use crate::log::config::LogConfig;
use crate::log::state::segments::{Segment, Segments};
use crate::types::Offset;

/// The new log start that retention asks for, or `None` to leave it. Only whole segments go, oldest first, never
/// beyond the high watermark; the active one goes too if all of it has outlived its time.
pub(in crate::log) fn new_log_start(
    segments: &Segments,
    config: &LogConfig,
    now: UnixMs,
    high_watermark: Offset,
) -> Option<Offset> {
    if !config.delete {
        return None;
    }
    let by_time = |segment: &Segment| {
        config.retention_ms >= 0 && now.saturating_sub(segment.largest_timestamp()) > config.retention_ms
    };
    let mut excess_bytes = match u64::try_from(config.retention_bytes) {
        Ok(limit) => segments.size_bytes().saturating_sub(limit),
        Err(_) => 0,
    };
    let mut new_start = None;
    let mut in_time_order = true;
    for segment in segments.iter() {
        if segment.is_empty() || segment.end_offset > high_watermark {
            break;
        }
        in_time_order = in_time_order && by_time(segment);
        let by_size = excess_bytes > 0 && excess_bytes >= segment.bytes;
        if !in_time_order && !by_size {
            break;
        }
        excess_bytes = excess_bytes.saturating_sub(segment.bytes);
        new_start = Some(segment.end_offset);
    }
    new_start
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    /// Three closed segments of 100 bytes (youngest records 1000, 2000, 3000) and an active one of 50 (4000).
    fn segments() -> Segments {
        let mut segments = Segments::new(VecDeque::new(), Segment::empty(Offset(0), 0));
        for (base, timestamp) in [(0, 1000), (10, 2000), (20, 3000)] {
            segments.push(Offset(base + 9), 100, timestamp, 0);
            segments.roll(0);
        }
        segments.push(Offset(34), 50, 4000, 0);
        segments
    }

    fn start(config: &LogConfig, now: UnixMs, high_watermark: i64) -> Option<i64> {
        new_log_start(&segments(), config, now, Offset(high_watermark)).map(|offset| offset.0)
    }

    fn config(retention_ms: i64, retention_bytes: i64) -> LogConfig {
        LogConfig { retention_ms, retention_bytes, ..LogConfig::default() }
    }

    #[test]
    fn segments_go_when_their_youngest_record_is_too_old() {
        assert_eq!(start(&config(500, -1), 1500, 35), None);
        assert_eq!(start(&config(500, -1), 1501, 35), Some(10));
        assert_eq!(start(&config(500, -1), 2501, 35), Some(20));
        assert_eq!(start(&config(500, -1), 9999, 35), Some(35), "the active one too");
        assert_eq!(start(&config(-1, -1), i64::MAX, 35), None);
    }

    #[test]
    fn segments_go_while_the_log_stays_above_its_size() {
        assert_eq!(start(&config(-1, 350), 0, 35), None);
        assert_eq!(start(&config(-1, 251), 0, 35), None, "a whole segment must be too much");
        assert_eq!(start(&config(-1, 250), 0, 35), Some(10));
        assert_eq!(start(&config(-1, 50), 0, 35), Some(30));
        assert_eq!(start(&config(-1, 0), 0, 35), Some(35));
    }

    #[test]
    fn nothing_goes_beyond_the_high_watermark_or_without_the_delete_policy() {
        assert_eq!(start(&config(0, 0), 9999, 25), Some(20));
        assert_eq!(start(&LogConfig { delete: false, compact: true, ..config(0, 0) }, 9999, 35), None);
    }
}
