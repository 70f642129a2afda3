//! The settings of the transaction coordinator, with Kafka's names in the comments and Kafka's defaults.

/// Settings of the transaction coordinator. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TransactionConfig {
    /// `transaction.max.timeout.ms`
    pub(crate) timeout_ms_max: i32,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`
    pub(crate) abort_check_interval_ms: i64,
    /// `transactional.id.expiration.ms`
    pub(crate) expiration_ms: i64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`
    pub(crate) expiration_check_interval_ms: i64,
}

impl Default for TransactionConfig {
    fn default() -> Self {
        Self {
            timeout_ms_max: 900_000,
            abort_check_interval_ms: 10_000,
            expiration_ms: 7 * 24 * 60 * 60 * 1_000,
            expiration_check_interval_ms: 3_600_000,
        }
    }
}
