//! The connection to an external ZooKeeper.
//!
//! Rows only: a name, its type, default, legal values, scope of change, effect and one sentence. Source: Kafka 3.9
//! `KafkaConfig`; the sentences are ours.

use super::super::setting::*;

/// The rows, in the order a reader looks for them.
pub(crate) const ROWS: &[Setting] = settings! {
    "zookeeper.connect" Text null [Any] ReadOnly => Honoured,
        "ZooKeeper servers as `host:port,…/chroot`; without them the node coordinates itself.";
    "zookeeper.session.timeout.ms" Int "18000" [Any] ReadOnly => Honoured,
        "Time without contact after which ZooKeeper ends the broker's session.";
    "zookeeper.connection.timeout.ms" Int null [Any] ReadOnly => Honoured,
        "Longest wait for the first connection; without it the session time-out.";
    "zookeeper.max.in.flight.requests" Int "10" [AtLeast(1)] ReadOnly => Honoured,
        "Requests to ZooKeeper that may be under way at once.";
    "zookeeper.set.acl" Boolean "false"
        [Any] ReadOnly => Honoured,
        "Whether znodes are protected by access control lists.";
    "zookeeper.ssl.client.enable" Boolean "false" [Any] ReadOnly => Honoured,
        "Whether TLS is used towards ZooKeeper.";
    "zookeeper.clientCnxnSocket" Text null [Any] ReadOnly => Honoured,
        "Socket class of ZooKeeper's Java client.";
    "zookeeper.ssl.cipher.suites" List null [Any] ReadOnly => Honoured,
        "Cipher suites towards ZooKeeper.";
    "zookeeper.ssl.crl.enable" Boolean "false" [Any] ReadOnly => Honoured,
        "Whether revocation lists are read for ZooKeeper's certificate.";
    "zookeeper.ssl.enabled.protocols" List null [Any] ReadOnly => Honoured,
        "TLS versions towards ZooKeeper.";
    "zookeeper.ssl.endpoint.identification.algorithm" Text "HTTPS" [Any] ReadOnly => Honoured,
        "How the host name in ZooKeeper's certificate is checked.";
    "zookeeper.ssl.keystore.location" Text null [Any] ReadOnly => Honoured,
        "Key store for TLS to ZooKeeper.";
    "zookeeper.ssl.keystore.password" Password null [Any] ReadOnly => Honoured,
        "Password of that key store.";
    "zookeeper.ssl.keystore.type" Text null [Any] ReadOnly => Honoured,
        "Type of that key store.";
    "zookeeper.ssl.ocsp.enable" Boolean "false" [Any] ReadOnly => Honoured,
        "Whether OCSP is asked about ZooKeeper's certificate.";
    "zookeeper.ssl.protocol" Text "TLSv1.2" [Any] ReadOnly => Honoured,
        "TLS version ZooKeeper's connection starts with.";
    "zookeeper.ssl.truststore.location" Text null [Any] ReadOnly => Honoured,
        "Trust store for TLS to ZooKeeper.";
    "zookeeper.ssl.truststore.password" Password null [Any] ReadOnly => Honoured,
        "Password of that trust store.";
    "zookeeper.ssl.truststore.type" Text null [Any] ReadOnly => Honoured,
        "Type of that trust store.";
    "zookeeper.metadata.migration.enable" Boolean "false"
        [Any] ReadOnly => Refused("migration to KRaft is not supported"),
        "Whether the cluster is being moved to KRaft.";
    "zookeeper.metadata.migration.min.batch.size" Int "200" [AtLeast(1)] ReadOnly internal => NoEffect,
        "Records per batch of a migration to KRaft.";
    "password.encoder.secret" Password null
        [Any] ReadOnly => Honoured,
        "Secret that encrypts dynamic passwords in ZooKeeper.";
    "password.encoder.old.secret" Password null
        [Any] ReadOnly => Honoured,
        "Former secret, while it is being replaced.";
    "password.encoder.cipher.algorithm" Text "AES/CBC/PKCS5Padding" [Any] ReadOnly => Honoured,
        "Cipher for dynamic passwords.";
    "password.encoder.iterations" Int "4096" [AtLeast(1024)] ReadOnly => Honoured,
        "Iterations of the key derivation for dynamic passwords.";
    "password.encoder.key.length" Int "128" [AtLeast(8)] ReadOnly => Honoured,
        "Key length for dynamic passwords.";
    "password.encoder.keyfactory.algorithm" Text null [Any] ReadOnly => Honoured,
        "Key derivation for dynamic passwords.";
};
