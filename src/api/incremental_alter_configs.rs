//! IncrementalAlterConfigs (44), versions 0–1: change single settings of topics.
//!
//! Behaviour
//! - Any broker serves it. A resource that is named twice: INVALID_REQUEST (42) for both.
//! - SET (0), DELETE (1); APPEND (2) and SUBTRACT (3) for lists alone, else INVALID_CONFIG (40). The same setting
//!   twice, or null where a value is needed: INVALID_REQUEST.
//! - Topic (2): an empty name: INVALID_REQUEST; unknown: UNKNOWN_TOPIC_OR_PARTITION (3). What the change leads to is
//!   checked as a whole: INVALID_CONFIG. It is written together with the note to every broker, and holds on this one
//!   when the answer leaves.
//! - Broker (4), broker logger (8) and others: INVALID_REQUEST; nothing of a broker changes while it runs.
//! - validate_only checks everything and writes nothing.
//!
//! Versions: 1 flexible. Ignored: nothing.
//! Source: Kafka 3.9 `ConfigAdminManager.preprocess`, `ZkAdminManager.incrementalAlterConfigs`.

use std::ops::RangeInclusive;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::context::{Handles, RequestContext};
use super::handler::{Handler, Reply};
use super::refusal::Refusal;
use super::repeated::repeated;
use crate::cluster::admin::AdminError;
use crate::cluster::znodes::config::Overrides;
use crate::config::setting::{Kind, Setting};
use crate::config::{TopicConfig, topic};
use crate::types::TopicName;

const TOPIC: i8 = 2;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;
/// How often a change is tried while others change the same topic.
const ATTEMPTS: usize = 5;

pub(crate) struct IncrementalAlterConfigs;

impl Handler for IncrementalAlterConfigs {
    type Req = IncrementalAlterConfigsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=1;

    async fn handle(
        ctx: RequestContext,
        req: IncrementalAlterConfigsRequest,
    ) -> Reply<IncrementalAlterConfigsResponse> {
        let twice = repeated(req.resources.iter().map(identity));
        let mut responses = Vec::with_capacity(req.resources.len());
        for resource in &req.resources {
            let result = match twice.contains(&identity(resource)) {
                true => Err(invalid_request("Each resource must appear at most once.")),
                false => alter(&ctx.handles, resource, req.validate_only).await,
            };
            responses.push(respond(resource, result));
        }
        Reply::Now(IncrementalAlterConfigsResponse::default().with_responses(responses))
    }
}

fn identity(resource: &AlterConfigsResource) -> (i8, &str) {
    (resource.resource_type, &resource.resource_name)
}

async fn alter(handles: &Handles, resource: &AlterConfigsResource, validate_only: bool) -> Result<(), Refusal> {
    check_changes(&resource.configs)?;
    let name = resource.resource_name.as_str();
    match resource.resource_type {
        TOPIC if name.is_empty() => return Err(invalid_request("Default topic resources are not allowed.")),
        TOPIC => {}
        _ => return Err(invalid_request("Only settings of topics can be changed while the broker runs.")),
    }
    if handles.image.current().topic(name).is_none() {
        let message = format!("The topic '{name}' does not exist.");
        return Err(Refusal::new(ResponseError::UnknownTopicOrPartition, message));
    }
    let topic = TopicName::new(name);
    for attempt in 1.. {
        let existing = handles.admin.read_overrides(&topic).await?;
        let overrides = changed(existing.overrides.clone(), &resource.configs)?;
        TopicConfig::effective(&handles.config, &overrides).map_err(|error| invalid_config(error.to_string()))?;
        if validate_only || overrides == existing.overrides {
            return Ok(());
        }
        match handles.admin.set_overrides(&topic, &existing, overrides).await {
            Ok(()) => break,
            Err(AdminError::Raced(_)) if attempt < ATTEMPTS => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The feed tells the others, and this broker as well should the read fail now.
    let _ = handles.dynamic_config.reload_topics(&[topic]).await;
    Ok(())
}

/// What Kafka refuses before it looks at the resource.
fn check_changes(changes: &[AlterableConfig]) -> Result<(), Refusal> {
    let needs_value = |change: &&AlterableConfig| change.config_operation != DELETE && change.value.is_none();
    let nulls: Vec<&str> = changes.iter().filter(needs_value).map(|change| change.name.as_str()).collect();
    if !nulls.is_empty() {
        return Err(invalid_request(format!("Null value not supported for : {}", nulls.join(", "))));
    }
    match repeated(changes.iter().map(|change| change.name.as_str())).is_empty() {
        true => Ok(()),
        false => Err(invalid_request("Error due to duplicate config keys")),
    }
}

/// The overrides after the changes; values are not checked yet.
fn changed(mut overrides: Overrides, changes: &[AlterableConfig]) -> Result<Overrides, Refusal> {
    for change in changes {
        let name = change.name.as_str();
        let value = change.value.as_deref().unwrap_or_default();
        let row = topic::row(name).ok_or_else(|| invalid_config(format!("Unknown topic config name: {name}")))?;
        match change.config_operation {
            SET => {
                overrides.insert(name.to_owned(), value.to_owned());
            }
            DELETE => {
                overrides.remove(name);
            }
            APPEND | SUBTRACT => {
                let list = combined(row, overrides.get(name), value, change.config_operation)?;
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

fn invalid_request(message: impl Into<String>) -> Refusal {
    Refusal::new(ResponseError::InvalidRequest, message)
}

fn invalid_config(message: impl Into<String>) -> Refusal {
    Refusal::new(ResponseError::InvalidConfig, message)
}

fn respond(resource: &AlterConfigsResource, result: Result<(), Refusal>) -> AlterConfigsResourceResponse {
    let response = AlterConfigsResourceResponse::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone())
        .with_error_message(None);
    match result {
        Ok(()) => response,
        Err(refusal) => response.with_error_code(refusal.error.code()).with_error_message(refusal.wire_message()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::strings::{opt_text, text};

    fn change(name: &str, operation: i8, value: Option<&str>) -> AlterableConfig {
        AlterableConfig::default().with_name(text(name)).with_config_operation(operation).with_value(opt_text(value))
    }

    fn code<T: std::fmt::Debug>(result: Result<T, Refusal>) -> i16 {
        result.unwrap_err().error.code()
    }

    #[test]
    fn set_and_delete_change_what_they_name_alone() {
        let have = Overrides::from([("retention.ms".into(), "1".into()), ("segment.ms".into(), "2".into())]);
        let changes = [change("retention.ms", DELETE, None), change("cleanup.policy", SET, Some("compact"))];
        let want = Overrides::from([("cleanup.policy".into(), "compact".into()), ("segment.ms".into(), "2".into())]);
        assert_eq!(changed(have, &changes).unwrap(), want);
    }

    #[test]
    fn lists_grow_and_shrink_from_the_default_where_nothing_is_set() {
        let both = changed(Overrides::new(), &[change("cleanup.policy", APPEND, Some("compact"))]).unwrap();
        assert_eq!(both["cleanup.policy"], "delete,compact");
        let again = changed(both, &[change("cleanup.policy", APPEND, Some("delete"))]).unwrap();
        assert_eq!(again["cleanup.policy"], "delete,compact");
        let one = changed(again, &[change("cleanup.policy", SUBTRACT, Some("delete"))]).unwrap();
        assert_eq!(one["cleanup.policy"], "compact");
    }

    #[test]
    fn what_is_no_list_neither_grows_nor_shrinks() {
        assert_eq!(code(changed(Overrides::new(), &[change("retention.ms", APPEND, Some("1"))])), 40);
        assert_eq!(code(changed(Overrides::new(), &[change("retention.ms", SUBTRACT, Some("1"))])), 40);
    }

    #[test]
    fn unknown_settings_and_operations_are_refused() {
        assert_eq!(code(changed(Overrides::new(), &[change("retention.eons", SET, Some("1"))])), 40);
        assert_eq!(code(changed(Overrides::new(), &[change("retention.ms", 9, Some("1"))])), 42);
    }

    #[test]
    fn null_values_and_settings_named_twice_are_refused() {
        assert_eq!(code(check_changes(&[change("retention.ms", SET, None)])), 42);
        assert!(check_changes(&[change("retention.ms", DELETE, None)]).is_ok());
        let twice = [change("retention.ms", SET, Some("1")), change("retention.ms", DELETE, None)];
        assert_eq!(code(check_changes(&twice)), 42);
    }
}
