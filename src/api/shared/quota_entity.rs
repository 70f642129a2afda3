//! Whom limits are set for, on the wire and in the store.
//!
//! Source: Kafka 3.9 `ZkAdminManager.parseAndSanitizeQuotaEntity`, `QuotaConfigs`.

use std::net::ToSocketAddrs;

use super::changes::invalid_request;
use super::refusal::Refusal;
use crate::cluster::znodes::config::{Entity, EntityName, Overrides};
use crate::config::numbers::read_double;
use crate::task;

pub(in crate::api) const USER: &str = "user";
pub(in crate::api) const CLIENT: &str = "client-id";
pub(in crate::api) const IP: &str = "ip";

/// A limit, by the type of its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Limit {
    Long(&'static str),
    Double(&'static str),
    Int(&'static str),
}

impl Limit {
    fn key(self) -> &'static str {
        match self {
            Self::Long(key) | Self::Double(key) | Self::Int(key) => key,
        }
    }

    /// Kafka's `ConfigDef.Type`.
    pub(in crate::api) fn type_name(self) -> &'static str {
        match self {
            Self::Long(_) => "LONG",
            Self::Double(_) => "DOUBLE",
            Self::Int(_) => "INT",
        }
    }
}

const OF_CLIENTS: &[Limit] = &[
    Limit::Long("producer_byte_rate"),
    Limit::Long("consumer_byte_rate"),
    Limit::Double("request_percentage"),
    Limit::Double("controller_mutation_rate"),
];
const OF_IPS: &[Limit] = &[Limit::Int("connection_creation_rate")];

/// A user, a client, a user's client, or an address.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::api) struct QuotaEntity {
    pub(in crate::api) user: Option<EntityName>,
    pub(in crate::api) client: Option<EntityName>,
    pub(in crate::api) ip: Option<EntityName>,
}

impl QuotaEntity {
    /// From its types and names; null stands for the default.
    pub(in crate::api) fn read<'a>(parts: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> Result<Self, Refusal> {
        let mut entity = Self::default();
        for (kind, name) in parts {
            let place = match kind {
                USER => &mut entity.user,
                CLIENT => &mut entity.client,
                IP => &mut entity.ip,
                other => return Err(invalid_request(format!("Unhandled client quota entity type: {other}"))),
            };
            if name == Some("") {
                return Err(invalid_request(format!("Empty {kind} not supported")));
            }
            *place = Some(name.map_or(EntityName::Default, |name| EntityName::Named(name.to_owned())));
        }
        if entity == Self::default() {
            return Err(invalid_request("Invalid empty client quota entity"));
        }
        if entity.ip.is_some() && (entity.user.is_some() || entity.client.is_some()) {
            let why = "Invalid quota entity combination, IP entity should not be used with user/client ID entity.";
            return Err(invalid_request(why));
        }
        Ok(entity)
    }

    /// Where its limits lie in the store. Looks up the host that an address may be named by.
    pub(in crate::api) async fn stored(&self) -> Result<Entity, Refusal> {
        let entity = self.entity()?;
        if let (Entity::Ip(host), false) = (&entity, self.ip == Some(EntityName::Default)) {
            let asked = host.clone();
            if !task::blocking(move || (asked.as_str(), 0).to_socket_addrs().is_ok()).await {
                return Err(invalid_request(format!("{host} is not a valid IP or resolvable host.")));
            }
        }
        Ok(entity)
    }

    fn entity(&self) -> Result<Entity, Refusal> {
        Ok(match (&self.user, &self.client, &self.ip) {
            (Some(user), Some(client), _) => Entity::UserClient { user: user.path(), client: client.path() },
            (Some(user), None, _) => Entity::User(user.path()),
            (None, Some(client), _) => Entity::Client(client.path()),
            (None, None, Some(ip)) => Entity::Ip(ip.path()),
            (None, None, None) => return Err(invalid_request("Invalid client quota entity type")),
        })
    }

    /// What is stored for; `None`: it has no limits, or its name cannot be read.
    pub(in crate::api) fn of(entity: &Entity) -> Option<Self> {
        let name = |path: &str| EntityName::from_path(path).map(Some);
        Some(match entity {
            Entity::Topic(_) | Entity::Broker(_) => return None,
            Entity::User(user) => Self { user: name(user)?, ..Self::default() },
            Entity::Client(client) => Self { client: name(client)?, ..Self::default() },
            Entity::UserClient { user, client } => Self { user: name(user)?, client: name(client)?, ip: None },
            Entity::Ip(ip) => Self { ip: name(ip)?, ..Self::default() },
        })
    }

    /// Its parts with their types.
    pub(in crate::api) fn parts(&self) -> impl Iterator<Item = (&'static str, &EntityName)> {
        let all = [(USER, &self.user), (CLIENT, &self.client), (IP, &self.ip)];
        all.into_iter().filter_map(|(kind, name)| Some((kind, name.as_ref()?)))
    }

    /// The limit of this name, if such an entity has it.
    pub(in crate::api) fn limit(&self, key: &str) -> Option<Limit> {
        self.all_limits().iter().copied().find(|limit| limit.key() == key)
    }

    fn all_limits(&self) -> &'static [Limit] {
        if self.ip.is_some() { OF_IPS } else { OF_CLIENTS }
    }
}

/// The limits among what is stored for the entity.
pub(in crate::api) fn limits(entity: &QuotaEntity, overrides: &Overrides) -> Vec<(&'static str, f64)> {
    let value = |limit: &Limit| Some((limit.key(), read_double(overrides.get(limit.key())?)?));
    entity.all_limits().iter().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parts: &[(&str, Option<&str>)]) -> Result<QuotaEntity, String> {
        QuotaEntity::read(parts.iter().copied()).map_err(|refusal| refusal.message.expect("a text"))
    }

    #[test]
    fn an_entity_lies_where_kafka_puts_it() {
        let path = |parts| read(parts).expect("an entity").entity().expect("a place").path();
        assert_eq!(path(&[("user", Some("a b"))]), "/config/users/a%20b");
        assert_eq!(path(&[("client-id", Some("app")), ("user", None)]), "/config/users/<default>/clients/app");
        assert_eq!(path(&[("client-id", None)]), "/config/clients/<default>");
        assert_eq!(path(&[("ip", Some("10.0.0.1"))]), "/config/ips/10.0.0.1");
        for parts in [&[("user", Some("a*b"))][..], &[("client-id", None)], &[("ip", None)]] {
            let entity = read(parts).expect("an entity");
            assert_eq!(QuotaEntity::of(&entity.entity().expect("a place")), Some(entity));
        }
    }

    #[tokio::test]
    async fn what_kafka_refuses_is_refused_in_its_words() {
        let refused = |parts| read(parts).expect_err("refused");
        assert_eq!(refused(&[]), "Invalid empty client quota entity");
        assert_eq!(refused(&[("planet", Some("mars"))]), "Unhandled client quota entity type: planet");
        assert_eq!(refused(&[("user", Some(""))]), "Empty user not supported");
        assert!(refused(&[("ip", None), ("user", None)]).starts_with("Invalid quota entity combination"));
        let no_host = read(&[("ip", Some("no such host!"))]).expect("read").stored().await.expect_err("no address");
        assert_eq!(no_host.message.as_deref(), Some("no%20such%20host%21 is not a valid IP or resolvable host."));
    }
}
