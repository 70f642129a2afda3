//! The settings of the group coordinator, with Kafka's names in the comments and Kafka's defaults.

/// Settings of the group coordinator. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupConfig {
    /// `group.min.session.timeout.ms`
    pub(crate) session_timeout_ms_min: i32,
    /// `group.max.session.timeout.ms`
    pub(crate) session_timeout_ms_max: i32,
    /// `group.max.size`, members
    pub(crate) group_size_max: usize,
    /// `group.initial.rebalance.delay.ms`
    pub(crate) initial_rebalance_delay_ms: i32,
    /// `offset.metadata.max.bytes`; Kafka compares it with the number of UTF-16 units, and so do we.
    pub(crate) offset_metadata_units_max: usize,
    /// `offsets.retention.minutes`, in milliseconds
    pub(crate) offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub(crate) offsets_retention_check_interval_ms: i64,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 1_800_000,
            group_size_max: i32::MAX as usize,
            initial_rebalance_delay_ms: 3_000,
            offset_metadata_units_max: 4_096,
            offsets_retention_ms: 10_080 * 60 * 1_000,
            offsets_retention_check_interval_ms: 600_000,
        }
    }
}
