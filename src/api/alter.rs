//! What AlterConfigs and IncrementalAlterConfigs share: whose settings change, the checks, the write and its effect.
//!
//! Behaviour
//! - Topic (2): an empty name: INVALID_REQUEST (42); unknown: UNKNOWN_TOPIC_OR_PARTITION (3). What the change leads to
//!   is checked as a whole: INVALID_CONFIG (40).
//! - Broker (4): an empty name means all brokers, else this broker's number; another's, or what cannot change while a
//!   broker runs, or a value that is not legal: INVALID_REQUEST. Names nobody knows are taken.
//! - A change is written together with the note to every broker, and holds on this one when the answer leaves; logs
//!   that are open take it over a moment later.
//! - Broker logger (8) and others: INVALID_REQUEST.
//! - The same setting twice, or null where a value is needed: INVALID_REQUEST.
//!
//! Source: Kafka 3.9 `ConfigAdminManager.preprocess`, `ZkAdminManager.alterConfigs`.

use kafka_protocol::ResponseError;

use super::context::Handles;
use super::refusal::Refusal;
use super::repeated::repeated;
use crate::cluster::admin::AdminError;
use crate::cluster::znodes::config::{Entity, Overrides};
use crate::config::setting::Setting;
use crate::config::{Config, DynamicLevel, TopicConfig, broker, topic};
use crate::types::{BrokerId, TopicName};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const CLIENT_METRICS: i8 = 16;
/// How often a change is tried while others change the same.
const ATTEMPTS: usize = 5;

/// The row of a setting; `None`: one that nobody knows and that is taken all the same.
pub(super) type RowOf = fn(&str) -> Result<Option<&'static Setting>, Refusal>;

/// Changes somebody's settings from those that there are now, several times if others do so meanwhile.
pub(super) async fn alter(
    handles: &Handles,
    resource_type: i8,
    resource_name: &str,
    validate_only: bool,
    change: impl Fn(&Overrides, RowOf) -> Result<Overrides, Refusal>,
) -> Result<(), Refusal> {
    let entity = entity(handles, resource_type, resource_name)?;
    for attempt in 1.. {
        let existing = handles.admin.read_overrides(&entity).await?;
        let overrides = change(&existing.overrides, row_for(&entity))?;
        check(&handles.config.current(), &entity, &overrides)?;
        if validate_only || overrides == existing.overrides {
            return Ok(());
        }
        match handles.admin.set_overrides(&entity, &existing, overrides).await {
            Ok(()) => break,
            Err(AdminError::Raced(_)) if attempt < ATTEMPTS => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The feed tells the others, and this broker as well should the read fail now.
    match entity {
        Entity::Topic(name) => drop(handles.dynamic_config.reload_topics(&[TopicName::new(&name)]).await),
        Entity::Broker(_) => {
            drop(handles.dynamic_config.reload_brokers().await);
            handles.config.apply(&handles.dynamic_config.current());
        }
    }
    Ok(())
}

/// Whose settings are to change.
fn entity(handles: &Handles, resource_type: i8, name: &str) -> Result<Entity, Refusal> {
    let me = handles.broker_id;
    match resource_type {
        TOPIC if name.is_empty() => Err(invalid_request("Default topic resources are not allowed.")),
        TOPIC if handles.image.current().topic(name).is_none() => {
            let message = format!("The topic '{name}' does not exist.");
            Err(Refusal::new(ResponseError::UnknownTopicOrPartition, message))
        }
        TOPIC => Ok(Entity::Topic(name.to_owned())),
        BROKER if name.is_empty() => Ok(Entity::Broker(None)),
        BROKER => match name.parse() {
            Ok(number) if BrokerId(number) == me => Ok(Entity::Broker(Some(me))),
            Ok(number) => Err(invalid_request(format!("Unexpected broker id, expected {me}, but received {number}"))),
            Err(_) => Err(invalid_request(format!("Node id must be an integer, but it is: {name}"))),
        },
        CLIENT_METRICS => Err(invalid_request(
            "AlterConfigs is only supported for topics and brokers, but resource type is CLIENT_METRICS",
        )),
        other => Err(invalid_request(format!("Unknown resource type {other}"))),
    }
}

pub(super) fn row_for(entity: &Entity) -> RowOf {
    match entity {
        Entity::Topic(_) => |name| match topic::row(name) {
            Some(row) => Ok(Some(row)),
            None => Err(invalid_config(format!("Unknown topic config name: {name}"))),
        },
        Entity::Broker(_) => |name| Ok(broker::row(name)),
    }
}

/// Whether these may be all that is set for the entity.
fn check(config: &Config, entity: &Entity, overrides: &Overrides) -> Result<(), Refusal> {
    let level = match entity {
        Entity::Topic(name) => {
            let effective = TopicConfig::effective(config, overrides);
            return effective.map(drop).map_err(|error| {
                let resource = format!("ConfigResource(type=TOPIC, name='{name}')");
                invalid_config(format!("Invalid config value for resource {resource}: {error}"))
            });
        }
        Entity::Broker(None) => DynamicLevel::AllBrokers,
        Entity::Broker(Some(_)) => DynamicLevel::ThisBroker,
    };
    config.check_dynamic(level, overrides).map_err(|error| invalid_request(error.to_string()))
}

/// What is refused before the resource is looked at: settings that come twice, and those that lack a value.
pub(super) fn check_settings<'a>(settings: impl Iterator<Item = (&'a str, bool)> + Clone) -> Result<(), Refusal> {
    let nulls: Vec<&str> = settings.clone().filter(|(_, lacks_value)| *lacks_value).map(|(name, _)| name).collect();
    if !nulls.is_empty() {
        return Err(invalid_request(format!("Null value not supported for : {}", nulls.join(", "))));
    }
    match repeated(settings.map(|(name, _)| name)).is_empty() {
        true => Ok(()),
        false => Err(invalid_request("Error due to duplicate config keys")),
    }
}

/// For each resource that the request names more than once.
pub(super) fn named_twice() -> Refusal {
    invalid_request("Each resource must appear at most once.")
}

pub(super) fn invalid_request(message: impl Into<String>) -> Refusal {
    Refusal::new(ResponseError::InvalidRequest, message)
}

pub(super) fn invalid_config(message: impl Into<String>) -> Refusal {
    Refusal::new(ResponseError::InvalidConfig, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_values_and_settings_named_twice_are_refused() {
        let code = |settings: &[(&str, bool)]| {
            check_settings(settings.iter().copied()).map_err(|refusal| refusal.error.code()).err()
        };
        assert_eq!(code(&[("a", false), ("b", false)]), None);
        assert_eq!(code(&[("a", true)]), Some(42));
        assert_eq!(code(&[("a", false), ("a", false)]), Some(42));
    }

    #[test]
    fn a_topic_has_no_settings_that_nobody_knows() {
        assert!(row_for(&Entity::Topic("t".into()))("retention.eons").is_err());
        assert_eq!(row_for(&Entity::Broker(None))("nobody.knows").unwrap().map(|row| row.name), None);
    }
}
