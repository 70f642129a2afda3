//! What was set for users and clients, and which of it holds for a request.
//!
//! Source: Kafka 3.9 `ClientQuotaManager.DefaultQuotaCallback`: eight places, the first that is set holds; whoever
//! finds its limit in the same place shares one count, but each named user or client has its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::cluster::znodes::config::{Entity, EntityName, Overrides};
use crate::config::numbers::read_double;

/// What is limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Kind {
    /// Bytes of produce requests, each second.
    Produce,
    /// Bytes of fetched records, each second.
    Fetch,
    /// Percent of one thread's time.
    Request,
    /// Partitions that are made or go, each second.
    Mutation,
}

impl Kind {
    pub(crate) const ALL: [Self; 4] = [Self::Produce, Self::Fetch, Self::Request, Self::Mutation];

    /// The setting's name.
    pub(crate) fn key(self) -> &'static str {
        match self {
            Self::Produce => "producer_byte_rate",
            Self::Fetch => "consumer_byte_rate",
            Self::Request => "request_percentage",
            Self::Mutation => "controller_mutation_rate",
        }
    }

    /// What Kafka's metrics call it. Source: Kafka 3.9 `QuotaType`.
    pub(crate) fn resource(self) -> &'static str {
        match self {
            Self::Produce => "Produce",
            Self::Fetch => "Fetch",
            Self::Request => "Request",
            Self::Mutation => "ControllerMutation",
        }
    }
}

/// Who a limit is for, in one of its two parts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Whom {
    /// The place does not ask.
    Any,
    /// All that have no place of their own.
    Default,
    Named(Arc<str>),
}

/// A place where limits are set: a user, a client, or a user's client.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Place {
    pub(crate) user: Whom,
    pub(crate) client: Whom,
}

/// Whose count a request is part of; an empty name stands for all.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Counted {
    pub(crate) user: Arc<str>,
    pub(crate) client: Arc<str>,
}

impl Counted {
    /// Of its names.
    pub(crate) fn bytes(&self) -> usize {
        self.user.len() + self.client.len()
    }
}

/// All limits that are set.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Quotas {
    places: BTreeMap<Place, BTreeMap<Kind, f64>>,
}

impl Quotas {
    /// From the places and their settings; what is no number, or no limit of ours, is left out.
    pub(crate) fn new<'a>(places: impl IntoIterator<Item = (Place, &'a BTreeMap<String, String>)>) -> Self {
        let read = |settings: &BTreeMap<String, String>| -> BTreeMap<Kind, f64> {
            let limit = |kind: Kind| Some((kind, read_double(settings.get(kind.key())?)?));
            Kind::ALL.into_iter().filter_map(limit).collect()
        };
        let places = places.into_iter().map(|(place, settings)| (place, read(settings)));
        Self { places: places.filter(|(_, limits)| !limits.is_empty()).collect() }
    }

    /// From what is stored for users, clients and users' clients; addresses have other limits.
    pub(crate) fn stored(entities: &[(Entity, Arc<Overrides>)]) -> Self {
        let places = entities.iter().filter_map(|(entity, overrides)| Some((place(entity)?, &**overrides)));
        Self::new(places)
    }

    /// Whether this is limited for anybody: else it need not be counted.
    pub(crate) fn limit(&self, kind: Kind) -> bool {
        self.places.values().any(|limits| limits.contains_key(&kind))
    }

    /// The limit that holds, and whose count it bounds. `None`: there is no limit.
    pub(crate) fn of(&self, kind: Kind, user: &Arc<str>, client: &Arc<str>) -> Option<(f64, Counted)> {
        let named = |name: &Arc<str>| Whom::Named(Arc::clone(name));
        let everyone: Arc<str> = Arc::from("");
        let both = || Counted { user: Arc::clone(user), client: Arc::clone(client) };
        let of_user = || Counted { user: Arc::clone(user), client: Arc::clone(&everyone) };
        let of_client = || Counted { user: Arc::clone(&everyone), client: Arc::clone(client) };
        let places: [(Whom, Whom, &dyn Fn() -> Counted); 8] = [
            (named(user), named(client), &both),
            (named(user), Whom::Default, &both),
            (named(user), Whom::Any, &of_user),
            (Whom::Default, named(client), &both),
            (Whom::Default, Whom::Default, &both),
            (Whom::Default, Whom::Any, &of_user),
            (Whom::Any, named(client), &of_client),
            (Whom::Any, Whom::Default, &of_client),
        ];
        places.into_iter().find_map(|(user, client, counted)| {
            let limit = *self.places.get(&Place { user, client })?.get(&kind)?;
            Some((limit, counted()))
        })
    }
}

fn place(entity: &Entity) -> Option<Place> {
    let whom = |path: &str| {
        Some(match EntityName::from_path(path)? {
            EntityName::Default => Whom::Default,
            EntityName::Named(name) => Whom::Named(name.into()),
        })
    };
    Some(match entity {
        Entity::User(user) => Place { user: whom(user)?, client: Whom::Any },
        Entity::Client(client) => Place { user: Whom::Any, client: whom(client)? },
        Entity::UserClient { user, client } => Place { user: whom(user)?, client: whom(client)? },
        Entity::Topic(_) | Entity::Broker(_) | Entity::Ip(_) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::znodes::config::DEFAULT_ENTITY;

    #[test]
    fn limits_come_from_where_they_are_stored() {
        let set = |rate: &str| Arc::new(BTreeMap::from([("producer_byte_rate".to_owned(), rate.to_owned())]));
        let limits = Quotas::stored(&[
            (Entity::User("a%20b".into()), set("1")),
            (Entity::UserClient { user: DEFAULT_ENTITY.into(), client: "app".into() }, set("2")),
            (Entity::Client(DEFAULT_ENTITY.into()), set("3")),
            (Entity::Ip("10.0.0.1".into()), set("4")),
        ]);
        let of = |user: &str, client: &str| Some(limits.of(Kind::Produce, &user.into(), &client.into())?.0);
        assert_eq!([of("a b", "app"), of("c", "app"), of("c", "d")], [Some(1.0), Some(2.0), Some(3.0)]);
    }

    fn named(name: &str) -> Whom {
        Whom::Named(name.into())
    }

    #[test]
    fn the_most_particular_place_that_is_set_holds() {
        use Whom::{Any, Default};
        let places = [
            (named("alice"), named("app"), "1"),
            (named("alice"), Default, "2"),
            (named("bob"), Any, "3"),
            (Default, named("app"), "4"),
            (Default, Any, "6"),
            (Any, named("app"), "7"),
            (Any, Default, "8"),
        ];
        let settings: Vec<_> = places
            .iter()
            .map(|(_, _, value)| BTreeMap::from([("producer_byte_rate".to_owned(), (*value).to_owned())]))
            .collect();
        let places = places.iter().map(|(user, client, _)| Place { user: user.clone(), client: client.clone() });
        let limits = Quotas::new(places.zip(&settings));
        let of = |user: &str, client: &str| {
            let (limit, counted) = limits.of(Kind::Produce, &user.into(), &client.into()).expect("a limit");
            (limit, counted.user.to_string(), counted.client.to_string())
        };
        let expect = |limit: f64, user: &str, client: &str| (limit, user.to_owned(), client.to_owned());
        assert_eq!(of("alice", "app"), expect(1.0, "alice", "app"));
        assert_eq!(of("alice", "other"), expect(2.0, "alice", "other"));
        assert_eq!(of("bob", "app"), expect(3.0, "bob", ""));
        assert_eq!(of("carol", "app"), expect(4.0, "carol", "app"));
        assert_eq!(of("carol", "other"), expect(6.0, "carol", ""));
        assert_eq!(limits.of(Kind::Fetch, &"alice".into(), &"app".into()), None);
    }

    #[test]
    fn clients_are_counted_whoever_uses_them() {
        let settings = BTreeMap::from([("consumer_byte_rate".to_owned(), "5".to_owned())]);
        let limits = Quotas::new([(Place { user: Whom::Any, client: Whom::Default }, &settings)]);
        let (limit, counted) = limits.of(Kind::Fetch, &"alice".into(), &"app".into()).expect("a limit");
        assert_eq!((limit, &*counted.user, &*counted.client), (5.0, "", "app"));
        let nothing = BTreeMap::from([("SCRAM-SHA-256".to_owned(), "salt=".to_owned())]);
        assert_eq!(Quotas::new([(Place { user: named("u"), client: Whom::Any }, &nothing)]), Quotas::default());
        assert!(limits.limit(Kind::Fetch) && !limits.limit(Kind::Request));
    }
}
