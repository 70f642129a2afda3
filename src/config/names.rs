//! What the name of a setting says: its row, whose it is, and whether its value may be shown.
//!
//! A name may stand behind a listener's prefix: `listener.name.NAME.KEY` or `listener.name.NAME.MECHANISM.KEY`, NAME
//! and MECHANISM in small letters. Source: Kafka 3.9 `DynamicBrokerConfig`, `SslConfigs`.

use super::broker;
use super::setting::Setting;

/// Begins every setting of one listener.
pub(crate) const PREFIX: &str = "listener.name.";

/// The row of exactly this name, not of what stands behind a listener's prefix.
pub(crate) fn own_row(name: &str) -> Option<&'static Setting> {
    broker::row(name).or_else(|| broker::dynamic_row(name))
}

/// The row of a name, also of one that is only set while a broker runs, or behind a listener's prefix:
/// `listener.name.NAME.KEY` or `listener.name.NAME.MECHANISM.KEY`.
pub(crate) fn row_of(name: &str) -> Option<&'static Setting> {
    own_row(name).or_else(|| {
        let mut rest = name.strip_prefix(PREFIX)?;
        loop {
            rest = rest.split_once('.')?.1;
            if let Some(row) = broker::row(rest) {
                return Some(row);
            }
        }
    })
}

/// The value is a secret, or may be one: nobody knows the name.
pub(crate) fn is_secret(name: &str) -> bool {
    row_of(name).is_none_or(Setting::is_sensitive)
}

/// The stores of keys and certificates, which change while a broker runs, for one listener each. Source: Kafka 3.9
/// `SslConfigs.RECONFIGURABLE_CONFIGS`.
pub(crate) const STORES: [&str; 10] = [
    "ssl.key.password",
    "ssl.keystore.certificate.chain",
    "ssl.keystore.key",
    "ssl.keystore.location",
    "ssl.keystore.password",
    "ssl.keystore.type",
    "ssl.truststore.certificates",
    "ssl.truststore.location",
    "ssl.truststore.password",
    "ssl.truststore.type",
];

/// Of these a listener's own values may be set for all brokers. Source: Kafka 3.9
/// `DynamicBrokerConfig.ClusterLevelListenerConfigs`.
pub(crate) const OF_LISTENERS_AND_ALL: [&str; 3] =
    ["max.connections", "max.connection.creation.rate", "num.network.threads"];

/// What changes while a broker runs behind a listener's prefix alone.
pub(crate) fn is_only_of_listeners(name: &str) -> bool {
    STORES.contains(&name)
}

/// The listener in small letters, and the rest, of a name behind a listener's prefix.
pub(crate) fn of_listener(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix(PREFIX)?.split_once('.')
}

/// Whether a listener's own value is looked at.
pub(crate) fn may_be_of_listener(row: &Setting) -> bool {
    ["ssl.", "sasl."].iter().any(|family| row.name.starts_with(family))
        || ["connections.max.reauth.ms", "max.connections", "max.connection.creation.rate"].contains(&row.name)
}
