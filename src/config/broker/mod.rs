//! Every setting of a broker, by theme: all of Kafka 3.9's, and klamm's own.
//!
//! A new setting is one row in the file of its theme.

mod klamm;
mod kraft;
mod listeners;
mod log;
mod metrics;
mod remote;
mod replication;
mod security;
mod server;
mod zookeeper;

use super::group;
use super::setting::Setting;

/// The tables, in the order a reader looks for them.
const TABLES: [&[Setting]; 11] = [
    server::ROWS,
    listeners::ROWS,
    log::ROWS,
    group::ROWS,
    replication::ROWS,
    zookeeper::ROWS,
    security::ROWS,
    kraft::ROWS,
    remote::ROWS,
    metrics::ROWS,
    klamm::ROWS,
];

/// Principals that may do everything. The authorizer reads it; Kafka's table does not have it.
pub(crate) const SUPER_USERS: &str = "super.users";

/// Whether everybody may do everything to a resource without ACLs. As [`SUPER_USERS`].
pub(crate) const ALLOW_EVERYONE: &str = "allow.everyone.if.no.acl.found";

/// What belongs to the authorizer.
pub(crate) const OF_AUTHORIZER: [&str; 2] = [SUPER_USERS, ALLOW_EVERYONE];

/// Every row.
pub(crate) fn rows() -> impl Iterator<Item = &'static Setting> {
    TABLES.into_iter().flatten()
}

/// The row of a name; `None` for a name Kafka does not know.
pub(crate) fn row(name: &str) -> Option<&'static Setting> {
    rows().find(|row| row.name == name)
}

/// The same of a name that is no key of `server.properties`, and may be set while the broker runs.
pub(crate) fn dynamic_row(name: &str) -> Option<&'static Setting> {
    replication::DYNAMIC.iter().find(|row| row.name == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::setting::{Effect, Scope};
    use super::*;

    #[test]
    fn every_key_of_kafka_3_9_has_one_row() {
        let kafkas: Vec<_> = rows().filter(|row| !row.name.starts_with("klamm.")).collect();
        assert_eq!(kafkas.iter().filter(|row| !row.internal).count(), 314, "documented keys");
        assert_eq!(kafkas.iter().filter(|row| row.internal).count(), 14, "internal keys");
        assert_eq!(kafkas.iter().filter(|row| row.scope == Scope::ClusterWide).count(), 52);
        assert_eq!(kafkas.iter().filter(|row| row.scope == Scope::PerBroker).count(), 37);
        let names: BTreeSet<_> = rows().map(|row| row.name).collect();
        assert_eq!(names.len(), rows().count(), "a name stands twice");
    }

    #[test]
    fn every_default_is_legal_and_every_row_says_what_it_is() {
        for row in rows().chain(replication::DYNAMIC) {
            assert!(row.documentation.ends_with('.'), "{}", row.name);
            if let Some(default) = row.default {
                row.parse(default).unwrap_or_else(|error| panic!("{error}"));
            }
        }
    }

    #[test]
    fn nothing_that_protects_is_silently_ignored() {
        for name in [
            "create.topic.policy.class.name",
            "alter.config.policy.class.name",
            "client.quota.callback.class",
            "sasl.kerberos.service.name",
            "sasl.login.class",
            "ssl.engine.factory.class",
            "ssl.provider",
        ] {
            assert!(matches!(row(name).map(|row| row.effect), Some(Effect::Refused(_))), "{name}");
        }
    }
}
