//! Kafka's settings: every key of Kafka 3.9 as one row of a table, and the typed result the broker works with.
//!
//! - `setting` is what a row is; `broker`, `group` and `topic` hold the rows.
//! - `sources` and `properties` read files, the environment and the command line; `precedence` decides who wins.
//! - `names` tells a name's row; `reader` reads checked values, `listener_reader` as one listener has them.
//! - [`Config`] (`resolve`, `rules`, `listeners`, `tls`, `zookeeper`, `zookeeper_tls`) is what a broker runs with;
//!   [`TopicConfig`] what one topic has.
//! - `loggers` are those whose level may change.
//! - `sasl` says which mechanisms a listener offers, `oauth` how it judges tokens, `own_tokens` what this broker's
//!   own say, `token_source` where it is given others; `jaas` reads the text that holds their keys, `java_options`
//!   where that lies; `web_url` is an address on the web.
//! - `describe` shows both to DescribeConfigs; `dynamic` says what may be set while a broker runs.
//!
//! A setting is never ignored in silence: it is honoured, or a line says that it has no effect, or it ends the start.
//! Nothing here changes after the start but through [`Config::with_dynamic`], which makes a new `Config`.

use std::path::PathBuf;

pub mod authorizer;
pub(crate) mod broker;
pub mod describe;
pub mod dynamic;
mod group;
pub(crate) mod jaas;
mod java_options;
mod kraft_mode;
mod listener_reader;
pub mod listeners;
pub mod loggers;
pub mod machine;
mod names;
pub(crate) mod numbers;
pub(crate) mod oauth;
pub(crate) mod own_tokens;
pub mod password;
pub mod precedence;
mod properties;
pub mod protocol;
mod reader;
pub mod resolve;
mod rules;
pub(crate) mod sasl;
pub mod secret;
pub mod selector;
pub mod setting;
pub mod sources;
#[cfg(test)]
pub(crate) mod testing;
pub mod tls;
pub(crate) mod token_source;
pub mod tokens;
pub mod topic;
mod topic_rows;
pub(crate) mod web_url;
pub mod zookeeper;
mod zookeeper_tls;

pub use authorizer::AuthorizerConfig;
pub use describe::{ConfigEntry, ConfigSource, Synonym};
pub use dynamic::DynamicLevel;
pub use listeners::{HttpListener, Listener, SecurityProtocol};
pub use machine::Machine;
pub use protocol::ProtocolVersion;
pub use resolve::{Config, Inputs};
pub use rules::PageCacheBytes;
pub use secret::Secret;
pub use selector::ReplicaSelector;
pub use tls::{ClientAuth, TlsSettings};
pub use topic::{CompressionType, TimestampType, TopicConfig};
pub use zookeeper::ZookeeperConfig;

/// Why a configuration is not one.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("Cannot read {}: {error}", path.display())]
    Unreadable { path: PathBuf, error: std::io::Error },
    #[error("Cannot read {}: {why}", path.display())]
    Syntax { path: PathBuf, why: String },
    #[error("--override {0}: a setting is written as key=value")]
    Override(String),
    /// A value that its row does not allow; `why` names the key and the value in Kafka's words.
    #[error("{why} ({origin})")]
    Invalid { why: String, origin: sources::Source },
    /// A value that must not be ignored and cannot be honoured.
    #[error("{name}={value} is refused: {reason} ({origin})")]
    Refused { name: String, value: String, origin: sources::Source, reason: &'static str },
    /// What cannot be set while a broker runs, in Kafka's words; INVALID_REQUEST towards clients.
    #[error("{0}")]
    Dynamic(String),
    /// A topic's setting, in Kafka's words; INVALID_CONFIG towards clients.
    #[error("{0}")]
    Topic(String),
}
