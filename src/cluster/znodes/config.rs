//! `/config/<type>/<name>`: overrides of one entity. `/config/changes/config_change_*`: the feed of what changed.
//!
//! `{"version":1,"config":{"retention.ms":"1000"}}`, values are text. Names are URL-encoded, `<default>` stands for
//! all. A change is `{"version":2,"entity_path":"topics/T"}`; version 1, `{"version":1,"entity_type":"topics",
//! "entity_name":"T"}`, is read as well. A topic's node is written before `/brokers/topics/T` and deleted after it.
//! A user's settings hold SCRAM credentials, `"SCRAM-SHA-256":"salt=…,stored_key=…,server_key=…,iterations=4096"`.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{ZnodeError, from_json, to_json};
use crate::types::BrokerId;

pub(crate) const CHANGES: &str = "/config/changes";
/// Prefix of a change, which the store follows by ten digits.
pub(crate) const CHANGE_PREFIX: &str = "/config/changes/config_change_";

/// The name that stands for every entity of a type.
pub(crate) const DEFAULT_ENTITY: &str = "<default>";

/// Overrides by property name.
pub(crate) type Overrides = BTreeMap<String, String>;

/// An entity whose configs a broker follows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Entity {
    Topic(String),
    /// `None`: the default of all brokers.
    Broker(Option<BrokerId>),
    /// The name as it stands in paths, see [`sanitized`]; [`DEFAULT_ENTITY`] for all users.
    User(String),
    /// A client of any user. Names as they stand in paths, here and below.
    Client(String),
    /// A client of one user, or of all users that have no settings of their own.
    UserClient {
        user: String,
        client: String,
    },
    /// An address that clients come from.
    Ip(String),
}

/// A name as it may stand in a path: URL-encoded, spaces and asterisks too. Source: Kafka 3.9 `Sanitizer.sanitize`.
pub(crate) fn sanitized(name: &str) -> String {
    let mut path = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' => path.push(char::from(byte)),
            byte => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

/// The name that stands in a path; `None`: it is none. Source: Kafka 3.9 `Sanitizer.desanitize`.
pub(crate) fn desanitized(path: &str) -> Option<String> {
    let mut name = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                u8::try_from(16 * high + low).ok()?
            }
            b'+' => b' ',
            byte => byte,
        });
    }
    String::from_utf8(name).ok()
}

/// A user, a client or an address, as paths name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntityName {
    /// All that have no settings of their own.
    Default,
    Named(String),
}

impl EntityName {
    pub(crate) fn path(&self) -> String {
        match self {
            Self::Default => DEFAULT_ENTITY.to_owned(),
            Self::Named(name) => sanitized(name),
        }
    }

    /// `None`: the path is no name's.
    pub(crate) fn from_path(path: &str) -> Option<Self> {
        if path == DEFAULT_ENTITY { Some(Self::Default) } else { desanitized(path).map(Self::Named) }
    }
}

impl Entity {
    /// The user of this name, which is not empty.
    pub(crate) fn user(name: &str) -> Self {
        Self::User(sanitized(name))
    }

    /// `topics/T`, `brokers/1`, `brokers/<default>`.
    pub(crate) fn entity_path(&self) -> String {
        match self {
            Self::Topic(name) => format!("topics/{name}"),
            Self::Broker(Some(id)) => format!("brokers/{id}"),
            Self::Broker(None) => format!("brokers/{DEFAULT_ENTITY}"),
            Self::User(name) => format!("users/{name}"),
            Self::Client(name) => format!("clients/{name}"),
            Self::UserClient { user, client } => format!("users/{user}/clients/{client}"),
            Self::Ip(name) => format!("ips/{name}"),
        }
    }

    /// Nodes above it that are made with it, the topmost first; without data.
    pub(crate) fn parents(&self) -> Vec<String> {
        match self {
            Self::UserClient { user, .. } => {
                vec![format!("/config/users/{user}"), format!("/config/users/{user}/clients")]
            }
            _ => Vec::new(),
        }
    }

    pub(crate) fn path(&self) -> String {
        format!("/config/{}", self.entity_path())
    }

    /// Whether its node goes with its last setting: nobody bounds the number of users, clients and addresses that ever
    /// had one. Source: Kafka 3.9 `AdminZkClient`, as it behaves.
    pub(crate) fn goes_when_empty(&self) -> bool {
        match self {
            Self::User(_) | Self::Client(_) | Self::UserClient { .. } | Self::Ip(_) => true,
            Self::Topic(_) | Self::Broker(_) => false,
        }
    }

    /// `None` for entities that we do not follow. Names of topics need no decoding: a legal one has no character that
    /// Kafka's Sanitizer changes.
    fn parse(entity_path: &str) -> Option<Self> {
        match entity_path.split_once('/')? {
            ("topics", name) => Some(Self::Topic(name.into())),
            ("brokers", DEFAULT_ENTITY) => Some(Self::Broker(None)),
            ("brokers", id) => id.parse().ok().map(|id| Self::Broker(Some(BrokerId(id)))),
            ("users", name) => match name.split_once('/') {
                None => Some(Self::User(name.into())),
                Some((user, rest)) => {
                    let client = rest.strip_prefix("clients/").filter(|client| !client.contains('/'))?;
                    Some(Self::UserClient { user: user.into(), client: client.into() })
                }
            },
            ("clients", name) => Some(Self::Client(name.into())),
            ("ips", name) => Some(Self::Ip(name.into())),
            _ => None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Json {
    version: i32,
    config: Overrides,
}

#[derive(Serialize, Deserialize)]
struct ChangeJson {
    version: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    entity_path: Option<String>,
    #[serde(default, skip_serializing)]
    entity_type: Option<String>,
    #[serde(default, skip_serializing)]
    entity_name: Option<String>,
}

pub(crate) fn encode(overrides: &Overrides) -> Bytes {
    to_json(&Json { version: 1, config: overrides.clone() })
}

pub(crate) fn decode(path: &str, data: &[u8]) -> Result<Overrides, ZnodeError> {
    if data.is_empty() {
        return Ok(Overrides::new());
    }
    from_json::<Json>(path, data).map(|json| json.config)
}

pub(crate) fn encode_change(entity: &Entity) -> Bytes {
    to_json(&ChangeJson { version: 2, entity_path: Some(entity.entity_path()), entity_type: None, entity_name: None })
}

/// `None`: an entity that we do not follow.
pub(crate) fn decode_change(path: &str, data: &[u8]) -> Result<Option<Entity>, ZnodeError> {
    let json: ChangeJson = from_json(path, data)?;
    let entity_path = match (json.entity_path, json.entity_type, json.entity_name) {
        (Some(entity_path), _, _) => entity_path,
        (None, Some(kind), Some(name)) => format!("{kind}/{name}"),
        _ => return Err(ZnodeError::new(path, "names no entity")),
    };
    Ok(Entity::parse(&entity_path))
}

/// Number of a change, by which the feed is ordered; `None` if the name is no change's.
pub(crate) fn change_number(name: &str) -> Option<i64> {
    name.strip_prefix("config_change_")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden() {
        let text = r#"{"version":1,"config":{"retention.ms":"1000"}}"#;
        let overrides = Overrides::from([("retention.ms".into(), "1000".into())]);
        assert_eq!(encode(&overrides), text);
        assert_eq!(decode("p", text.as_bytes()), Ok(overrides));
        assert_eq!(encode(&Overrides::new()), r#"{"version":1,"config":{}}"#);
        assert_eq!(Entity::Topic("T".into()).path(), "/config/topics/T");
    }

    #[test]
    fn changes_name_an_entity_in_both_versions() {
        let topic = Entity::Topic("T".into());
        assert_eq!(encode_change(&topic), r#"{"version":2,"entity_path":"topics/T"}"#);
        assert_eq!(decode_change("p", &encode_change(&topic)), Ok(Some(topic.clone())));
        let v1 = br#"{"version":1,"entity_type":"topics","entity_name":"T"}"#;
        assert_eq!(decode_change("p", v1), Ok(Some(topic)));
        let defaults = br#"{"version":2,"entity_path":"brokers/<default>"}"#;
        assert_eq!(decode_change("p", defaults), Ok(Some(Entity::Broker(None))));
        for (path, entity) in [
            ("users/u/clients/c", Entity::UserClient { user: "u".into(), client: "c".into() }),
            ("users/<default>", Entity::User(DEFAULT_ENTITY.into())),
            ("clients/c", Entity::Client("c".into())),
            ("ips/10.0.0.1", Entity::Ip("10.0.0.1".into())),
        ] {
            let change = format!(r#"{{"version":2,"entity_path":"{path}"}}"#);
            assert_eq!(decode_change("p", change.as_bytes()), Ok(Some(entity.clone())));
            assert_eq!(encode_change(&entity), change);
        }
        let others = br#"{"version":2,"entity_path":"users/u/planets/c"}"#;
        assert_eq!(decode_change("p", others), Ok(None));
        let user = Entity::user("a b");
        assert_eq!(encode_change(&user), r#"{"version":2,"entity_path":"users/a%20b"}"#);
        assert_eq!(decode_change("p", &encode_change(&user)), Ok(Some(user)));
    }

    /// As Kafka 3.9 writes them.
    #[test]
    fn names_stand_in_paths_url_encoded() {
        for (name, path) in
            [("alice", "alice"), ("a b*~/<", "a%20b%2A%7E%2F%3C"), ("CN=\u{e9},O", "CN%3D%C3%A9%2CO"), (".-_", ".-_")]
        {
            assert_eq!(sanitized(name), path);
            assert_eq!(desanitized(path).as_deref(), Some(name));
        }
        assert_eq!(desanitized("a+b").as_deref(), Some("a b"));
        assert_eq!(
            [desanitized("%"), desanitized("%4"), desanitized("%zz"), desanitized("%ff")],
            [None, None, None, None]
        );
    }

    #[test]
    fn changes_are_numbered_by_their_names() {
        assert_eq!(change_number("config_change_0000000012"), Some(12));
        assert_eq!(change_number("other"), None);
    }
}
