//! Loggers, whose levels may change while the broker runs.
//!
//! Source: Kafka 3.9 `Log4jController`, `LogLevelConfig`. The loggers are this broker's own: those that write lines
//! under Kafka's names, and one for each room of the code. Nothing of it outlives the process, as in Kafka.

use std::fmt;

/// The logger above all others.
pub const ROOT: &str = "root";

/// Every logger that has a level of its own, in order.
pub const LOGGERS: &[&str] = &[
    "kafka.authorizer.logger",
    "kafka.cluster.Partition",
    "kafka.network.DataPlaneAcceptor",
    "kafka.server.BrokerLifecycleManager",
    "kafka.server.KafkaConfig",
    "kafka.server.KafkaRaftServer",
    "kafka.server.KafkaServer",
    "klamm",
    "klamm::api",
    "klamm::broker",
    "klamm::cluster",
    "klamm::controller",
    "klamm::coordination",
    "klamm::coordinator",
    "klamm::log",
    "klamm::net",
    "klamm::observe",
    "klamm::peer",
    "klamm::replica",
    "klamm::security",
    "klamm::storage",
    "rocksdb",
    ROOT,
    "zookeeper_client",
];

/// What a logger lets through, under log4j's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Off,
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    /// What a client may set; FATAL is ERROR here, where nothing is fatal without being told elsewhere.
    pub fn settable(name: &str) -> Option<Self> {
        Some(match name {
            "TRACE" => Self::Trace,
            "DEBUG" => Self::Debug,
            "INFO" => Self::Info,
            "WARN" => Self::Warn,
            "ERROR" | "FATAL" => Self::Error,
            _ => return None,
        })
    }

    /// log4j's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "OFF",
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
            Self::Trace => "TRACE",
        }
    }
}

/// The levels of all loggers of this process.
pub trait LoggerLevels: fmt::Debug + Send + Sync {
    /// What the logger lets through now: by its own level, or that of the nearest logger above it.
    fn level(&self, logger: &str) -> Level;

    /// Sets the logger's level, or with `None` takes back what was set.
    fn set(&self, logger: &str, level: Option<Level>);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loggers_are_in_order_and_levels_are_read_as_they_are_shown() {
        assert!(LOGGERS.is_sorted());
        for name in ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"] {
            assert_eq!(Level::settable(name).map(Level::name), Some(name));
        }
        assert_eq!([Level::settable("OFF"), Level::settable("LOUD"), Level::settable("info")], [None, None, None]);
    }
}
