//! What AlterConfigs and IncrementalAlterConfigs share: the change, its checks, the write and its effect.
//!
//! Behaviour
//! - Needs ALTER_CONFIGS of the topic, TOPIC_AUTHORIZATION_FAILED (29), or on the cluster,
//!   CLUSTER_AUTHORIZATION_FAILED (31), which is asked after the change was found to be legal.
//! - Topic (2): an empty name: INVALID_REQUEST (42); unknown: UNKNOWN_TOPIC_OR_PARTITION (3). What the change leads to
//!   is checked as a whole: INVALID_CONFIG (40).
//! - Broker (4): an empty name means all brokers, else this broker's number; another's, or what cannot change while a
//!   broker runs, or a value that is not legal: INVALID_REQUEST. Unknown names are taken.
//! - A change is written together with the note to every broker, and holds on this one when the answer leaves; logs
//!   that are open take it over a moment later. So do connections to come with what a listener's stores of keys hold,
//!   also where their files have changed and nothing else: they are read whenever something is set for this broker.
//!   Stores that cannot be used: INVALID_REQUEST.
//! - Broker logger (8): by IncrementalAlterConfigs alone, see `loggers`. Other types: INVALID_REQUEST.
//! - A resource that is named twice: INVALID_REQUEST for both.
//! - The same setting twice, or null where a value is needed: INVALID_REQUEST.
//!
//! Source: Kafka 3.9 `ConfigAdminManager.preprocess`, `ZkAdminManager.alterConfigs`.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::protocol::StrBytes;
use tracing::warn;

use crate::api::context::{Handles, RequestContext};
use crate::api::shared::changes::{
    APPEND, Base, Change, DELETE, Resource, SET, SUBTRACT, check_is_me, invalid_config, invalid_request,
};
use crate::api::shared::loggers;
use crate::api::shared::refusal::{Refusal, wire_outcome};
use crate::api::shared::repeated::repeated;
use crate::cluster::admin::AdminError;
use crate::cluster::znodes::config::{Entity, Overrides};
use crate::config::setting::{Kind, Setting};
use crate::config::{Config, DynamicLevel, broker, topic};
use crate::task;
use crate::types::TopicName;
use crate::types::acl::{Operation, ResourceType};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
/// How often a change is tried while others change the same.
const ATTEMPTS: usize = 5;

/// Kind, name, error code and text of a resource's answer.
pub(in crate::api) type Answered = (i8, StrBytes, i16, Option<StrBytes>);

/// Changes the settings of every resource and answers for each, in order.
pub(in crate::api) async fn alter<A>(
    ctx: &RequestContext,
    resources: Vec<Resource<'_>>,
    base: Base,
    validate_only: bool,
    answer: impl Fn(Answered) -> A,
) -> Vec<A> {
    let results = alter_all(ctx, &resources, base, validate_only).await;
    let answered = resources.iter().zip(results).map(|(resource, result)| {
        let (error_code, message) = wire_outcome(result);
        answer((resource.kind, resource.name.clone(), error_code, message))
    });
    answered.collect()
}

async fn alter_all(
    ctx: &RequestContext,
    resources: &[Resource<'_>],
    base: Base,
    validate_only: bool,
) -> Vec<Result<(), Refusal>> {
    let twice = repeated(resources.iter().map(Resource::identity));
    let mut results = Vec::with_capacity(resources.len());
    for resource in resources {
        results.push(match twice.contains(&resource.identity()) {
            true => Err(invalid_request("Each resource must appear at most once.")),
            false => alter_one(ctx, resource, base, validate_only).await,
        });
    }
    results
}

/// Tries several times if others change the same meanwhile.
async fn alter_one(
    ctx: &RequestContext,
    resource: &Resource<'_>,
    base: Base,
    validate_only: bool,
) -> Result<(), Refusal> {
    let handles = &*ctx.handles;
    check_changes(&resource.changes)?;
    if resource.kind == BROKER_LOGGER {
        authorize(ctx, resource)?;
        return loggers::alter(handles, resource, base, validate_only);
    }
    if resource.kind == TOPIC {
        // Whether there is such a topic is not told to those who may not change it.
        authorize(ctx, resource)?;
    }
    let entity = entity(handles, resource.kind, resource.name)?;
    for attempt in 1.. {
        let existing = handles.admin.read_overrides(&entity).await?;
        let config = handles.config.current();
        let decoded = match &entity {
            Entity::Broker(_) => config.decoded(existing.overrides.clone()).0,
            _ => existing.overrides.clone(),
        };
        let base = if base == Base::Existing { decoded.clone() } else { Overrides::new() };
        let overrides = changed(base, &resource.changes, row_for(&entity))?;
        let leads_to = check(&config, &entity, &overrides)?;
        if resource.kind != TOPIC {
            authorize(ctx, resource)?;
        }
        if let Some(leads_to) = leads_to {
            let tls = Arc::clone(&handles.tls);
            task::blocking(move || tls.check(&leads_to)).await.map_err(invalid_request)?;
        }
        if validate_only {
            return Ok(());
        }
        if overrides == decoded && decoded.len() == existing.overrides.len() {
            take_stores(handles, &entity).await;
            return Ok(());
        }
        let stored = match &entity {
            Entity::Broker(_) => config.encoded(overrides, || handles.clock.random()),
            _ => overrides,
        };
        match handles.admin.set_overrides(&entity, &existing, stored).await {
            Ok(()) => break,
            Err(AdminError::Raced(_)) if attempt < ATTEMPTS => {}
            Err(error) => return Err(error.into()),
        }
    }
    let reloaded = match &entity {
        Entity::Topic(name) => handles.dynamic_config.reload_topics(&[TopicName::new(name)]).await,
        Entity::Broker(_) => handles.dynamic_config.reload_brokers().await,
        others => handles.dynamic_config.reload_entities(std::slice::from_ref(others)).await,
    };
    if let Err(error) = reloaded {
        // It is stored, and the feed tells this broker as it tells the others.
        warn!(entity = entity.entity_path(), %error, "new settings hold once the store can be read");
    }
    if matches!(entity, Entity::Broker(_)) {
        handles.config.apply(handles.dynamic_config.brokers());
    }
    take_stores(handles, &entity).await;
    Ok(())
}

fn authorize(ctx: &RequestContext, resource: &Resource<'_>) -> Result<(), Refusal> {
    let (may, error) = match resource.kind {
        TOPIC => {
            let may = ctx.may(Operation::AlterConfigs, ResourceType::Topic, resource.name);
            (may, ResponseError::TopicAuthorizationFailed)
        }
        _ => (ctx.may_on_cluster(Operation::AlterConfigs), ResponseError::ClusterAuthorizationFailed),
    };
    if may { Ok(()) } else { Err(Refusal::bare(error)) }
}

/// Has listeners over TLS read their stores, if they or their files are others now.
async fn take_stores(handles: &Handles, entity: &Entity) {
    if matches!(entity, Entity::Broker(Some(_))) {
        let (tls, config) = (Arc::clone(&handles.tls), handles.config.current());
        task::blocking(move || tls.take(&config)).await;
    }
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
        BROKER => check_is_me(me, name).map(|()| Entity::Broker(Some(me))),
        CLIENT_METRICS => Err(invalid_request(
            "AlterConfigs is only supported for topics and brokers, but resource type is CLIENT_METRICS",
        )),
        other => Err(invalid_request(format!("Unknown resource type {other}"))),
    }
}

/// The row of a setting; `None`: it is unknown, and taken all the same.
type RowOf = fn(&str) -> Result<Option<&'static Setting>, Refusal>;

fn row_for(entity: &Entity) -> RowOf {
    match entity {
        Entity::Topic(_) => |name| match topic::row(name) {
            Some(row) => Ok(Some(row)),
            None => Err(invalid_config(format!("Unknown topic config name: {name}"))),
        },
        // Credentials and quotas have keys of their own.
        _ => |name| Ok(broker::row(name)),
    }
}

/// Whether these may be all that is set for the entity; of brokers, the settings that this would lead to.
fn check(config: &Config, entity: &Entity, overrides: &Overrides) -> Result<Option<Config>, Refusal> {
    let level = match entity {
        Entity::Topic(name) => {
            let effective = config.of_topic(overrides);
            return effective.map(|_| None).map_err(|error| {
                let resource = format!("ConfigResource(type=TOPIC, name='{name}')");
                invalid_config(format!("Invalid config value for resource {resource}: {error}"))
            });
        }
        Entity::Broker(None) => DynamicLevel::AllBrokers,
        Entity::Broker(Some(_)) => DynamicLevel::ThisBroker,
        _ => return Err(invalid_request("Unknown resource type")),
    };
    config.check_dynamic(level, overrides).map(Some).map_err(|error| invalid_request(error.to_string()))
}

/// What is refused before the resource is looked at.
fn check_changes(changes: &[Change<'_>]) -> Result<(), Refusal> {
    let lacks_value = |change: &&Change<'_>| change.operation != DELETE && change.value.is_none();
    let nulls: Vec<&str> = changes.iter().filter(lacks_value).map(|change| change.name).collect();
    if !nulls.is_empty() {
        return Err(invalid_request(format!("Null value not supported for : {}", nulls.join(", "))));
    }
    match repeated(changes.iter().map(|change| change.name)).is_empty() {
        true => Ok(()),
        false => Err(invalid_request("Error due to duplicate config keys")),
    }
}

/// The overrides after the changes; values are not checked yet.
fn changed(mut overrides: Overrides, changes: &[Change<'_>], row_of: RowOf) -> Result<Overrides, Refusal> {
    for change in changes {
        let (name, value) = (change.name, change.value.unwrap_or_default());
        match change.operation {
            SET => {
                row_of(name)?;
                overrides.insert(name.to_owned(), value.to_owned());
            }
            DELETE => {
                overrides.remove(name);
            }
            APPEND | SUBTRACT => {
                // Kafka fails to look the type of an unknown name up.
                let unknown = || Refusal::bare(ResponseError::UnknownServerError);
                let row = row_of(name).ok().flatten().ok_or_else(unknown)?;
                let list = combined(row, overrides.get(name), value, change.operation)?;
                overrides.insert(name.to_owned(), list);
            }
            other => return Err(invalid_request(format!("Unknown operation type {other}"))),
        }
    }
    Ok(overrides)
}

/// A list with elements added at its end or taken out of it.
fn combined(row: &Setting, have: Option<&String>, value: &str, operation: i8) -> Result<String, Refusal> {
    if row.kind != Kind::List {
        let verb = if operation == APPEND { "append" } else { "subtract" };
        return Err(invalid_config(format!("Config value {verb} is not allowed for config key: {}", row.name)));
    }
    let elements = |text: &str| -> Vec<String> {
        text.split(',').map(|element| element.trim().to_owned()).filter(|element| !element.is_empty()).collect()
    };
    let mut list = elements(have.map_or(row.default.unwrap_or_default(), String::as_str));
    for element in elements(value) {
        match operation {
            APPEND if !list.contains(&element) => list.push(element),
            APPEND => {}
            _ => list.retain(|have| *have != element),
        }
    }
    Ok(list.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change<'a>(name: &'a str, operation: i8, value: Option<&'a str>) -> Change<'a> {
        Change { name, operation, value }
    }

    fn changed_of_topic(overrides: Overrides, changes: &[Change<'_>]) -> Result<Overrides, Refusal> {
        changed(overrides, changes, row_for(&Entity::Topic("t".into())))
    }

    fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> i16 {
        result.unwrap_err().error.code()
    }

    #[test]
    fn set_and_delete_change_what_they_name_alone() {
        let have = Overrides::from([("retention.ms".into(), "1".into()), ("segment.ms".into(), "2".into())]);
        let changes = [change("retention.ms", DELETE, None), change("cleanup.policy", SET, Some("compact"))];
        let want = Overrides::from([("cleanup.policy".into(), "compact".into()), ("segment.ms".into(), "2".into())]);
        assert_eq!(changed_of_topic(have, &changes).unwrap(), want);
    }

    #[test]
    fn lists_grow_and_shrink_from_the_default_where_nothing_is_set() {
        let both = changed_of_topic(Overrides::new(), &[change("cleanup.policy", APPEND, Some("compact"))]).unwrap();
        assert_eq!(both["cleanup.policy"], "delete,compact");
        let again = changed_of_topic(both, &[change("cleanup.policy", APPEND, Some("delete"))]).unwrap();
        assert_eq!(again["cleanup.policy"], "delete,compact");
        let one = changed_of_topic(again, &[change("cleanup.policy", SUBTRACT, Some("delete"))]).unwrap();
        assert_eq!(one["cleanup.policy"], "compact");
    }

    #[test]
    fn what_is_no_list_neither_grows_nor_shrinks() {
        assert_eq!(code(changed_of_topic(Overrides::new(), &[change("retention.ms", APPEND, Some("1"))])), 40);
        assert_eq!(code(changed_of_topic(Overrides::new(), &[change("retention.ms", SUBTRACT, Some("1"))])), 40);
    }

    #[test]
    fn unknown_settings_and_operations_are_refused() {
        assert_eq!(code(changed_of_topic(Overrides::new(), &[change("retention.eons", SET, Some("1"))])), 40);
        assert_eq!(code(changed_of_topic(Overrides::new(), &[change("retention.eons", APPEND, Some("1"))])), -1);
        assert!(changed_of_topic(Overrides::new(), &[change("retention.eons", DELETE, None)]).unwrap().is_empty());
        assert_eq!(code(changed_of_topic(Overrides::new(), &[change("retention.ms", 9, Some("1"))])), 42);
    }

    #[test]
    fn what_is_unknown_of_a_broker_is_set_but_does_not_grow() {
        let row_of = row_for(&Entity::Broker(None));
        let set = changed(Overrides::new(), &[change("nobody.knows", SET, Some("1"))], row_of).unwrap();
        assert_eq!(set["nobody.knows"], "1");
        assert_eq!(code(changed(set, &[change("nobody.knows", APPEND, Some("1"))], row_of)), -1);
    }

    #[test]
    fn null_values_and_settings_named_twice_are_refused() {
        assert_eq!(code(check_changes(&[change("retention.ms", SET, None)])), 42);
        assert!(check_changes(&[change("retention.ms", DELETE, None)]).is_ok());
        let twice = [change("retention.ms", SET, Some("1")), change("retention.ms", DELETE, None)];
        assert_eq!(code(check_changes(&twice)), 42);
    }
}
