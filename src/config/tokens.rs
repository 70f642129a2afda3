//! What delegation tokens are signed with, and how long they live.
//!
//! Without a secret there are none, as in Kafka. All brokers have the same one. `delegation.token.master.key` is its
//! former name, and counts where the new one is not set. Source: Kafka 3.9 `KafkaConfig.tokenAuthEnabled`.

use super::reader::Reader;
use super::secret::Secret;

/// The settings of tokens, where there are any.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenConfig {
    pub secret: Secret,
    /// How long a token lives without being renewed, in milliseconds.
    pub expiry_ms: i64,
    pub max_lifetime_ms: i64,
    /// How often those that have expired are looked for.
    pub check_interval_ms: i64,
}

pub(super) fn resolve(reader: &Reader<'_>) -> Option<TokenConfig> {
    let secret = reader.text("delegation.token.secret.key").or_else(|| reader.text("delegation.token.master.key"));
    let settings = TokenConfig {
        secret: Secret::new(secret.unwrap_or_default()),
        expiry_ms: reader.long("delegation.token.expiry.time.ms"),
        max_lifetime_ms: reader.long("delegation.token.max.lifetime.ms"),
        check_interval_ms: reader.long("delegation.token.expiry.check.interval.ms"),
    };
    (!settings.secret.reveal().is_empty()).then_some(settings)
}
