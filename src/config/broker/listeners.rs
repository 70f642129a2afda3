//! Listeners and who may speak to whom.
//!
//! Rows only: a name, its type, default, legal values, scope of change, effect and one sentence. Source: Kafka 3.9
//! `KafkaConfig`; the sentences are ours.

use super::super::setting::*;

/// The rows, in the order a reader looks for them.
pub(crate) const ROWS: &[Setting] = settings! {
    "listeners" Text "PLAINTEXT://:9092" [Any] PerBroker => Honoured,
        "Addresses the broker listens on, as `NAME://host:port`; no host means all interfaces.";
    "advertised.listeners" Text null [Any] PerBroker => Honoured,
        "Addresses clients are told to connect to; without it those of `listeners`.";
    "listener.security.protocol.map" Text "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT"
        [Any] PerBroker => Honoured,
        "Security protocol of each listener name.";
    "inter.broker.listener.name" Text null [Any] ReadOnly => Honoured,
        "Listener through which brokers speak to each other.";
    "security.inter.broker.protocol" Text "PLAINTEXT"
        [OneOf(&["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"])] ReadOnly => Honoured,
        "Chooses the listener between brokers by its protocol; not beside inter.broker.listener.name.";
    "control.plane.listener.name" Text null [Any] ReadOnly => Honoured,
        "Separate listener for the controller's requests.";
    "early.start.listeners" Text null [Any] ReadOnly => NoEffect,
        "Listeners that open before the authorizer is ready.";
};
