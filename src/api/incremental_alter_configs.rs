//! IncrementalAlterConfigs (44), versions 0–1: change single settings of topics and of brokers while they run.
//!
//! Behaviour
//! - Any broker serves it. A resource that is named twice: INVALID_REQUEST (42) for both.
//! - SET (0), DELETE (1); APPEND (2) and SUBTRACT (3) for lists alone, else INVALID_CONFIG (40).
//! - Who may be named, what is checked and what then happens: see `alter`.
//! - validate_only checks everything and writes nothing.
//!
//! Versions: 1 flexible. Ignored: nothing.
//! Source: Kafka 3.9 `ConfigAdminManager.preprocess`, `ZkAdminManager.incrementalAlterConfigs`.

use std::ops::RangeInclusive;

use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use super::alter::{RowOf, alter, check_settings, invalid_config, invalid_request, named_twice};
use super::context::{Handles, RequestContext};
use super::handler::{Handler, Reply};
use super::refusal::Refusal;
use super::repeated::repeated;
use crate::cluster::znodes::config::Overrides;
use crate::config::setting::{Kind, Setting};

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

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
                true => Err(named_twice()),
                false => change(&ctx.handles, resource, req.validate_only).await,
            };
            responses.push(respond(resource, result));
        }
        Reply::Now(IncrementalAlterConfigsResponse::default().with_responses(responses))
    }
}

fn identity(resource: &AlterConfigsResource) -> (i8, &str) {
    (resource.resource_type, &resource.resource_name)
}

async fn change(handles: &Handles, resource: &AlterConfigsResource, validate_only: bool) -> Result<(), Refusal> {
    let lacks_value = |change: &AlterableConfig| change.config_operation != DELETE && change.value.is_none();
    check_settings(resource.configs.iter().map(|change| (change.name.as_str(), lacks_value(change))))?;
    let change = |have: &Overrides, row_of| changed(have.clone(), &resource.configs, row_of);
    alter(handles, resource.resource_type, &resource.resource_name, validate_only, change).await
}

/// The overrides after the changes; values are not checked yet.
fn changed(mut overrides: Overrides, changes: &[AlterableConfig], row_of: RowOf) -> Result<Overrides, Refusal> {
    for change in changes {
        let name = change.name.as_str();
        let value = change.value.as_deref().unwrap_or_default();
        let row = row_of(name)?;
        match change.config_operation {
            SET => {
                overrides.insert(name.to_owned(), value.to_owned());
            }
            DELETE => {
                overrides.remove(name);
            }
            APPEND | SUBTRACT => {
                let row = row.ok_or_else(|| invalid_config(format!("Unknown config name: {name}")))?;
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
    use crate::api::alter::row_for;
    use crate::api::strings::{opt_text, text};
    use crate::cluster::znodes::config::Entity;

    fn change(name: &str, operation: i8, value: Option<&str>) -> AlterableConfig {
        AlterableConfig::default().with_name(text(name)).with_config_operation(operation).with_value(opt_text(value))
    }

    fn changed_of_topic(overrides: Overrides, changes: &[AlterableConfig]) -> Result<Overrides, Refusal> {
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
        assert_eq!(code(changed_of_topic(Overrides::new(), &[change("retention.ms", 9, Some("1"))])), 42);
    }

    #[test]
    fn what_is_unknown_of_a_broker_is_set_but_does_not_grow() {
        let row_of = row_for(&Entity::Broker(None));
        let set = changed(Overrides::new(), &[change("nobody.knows", SET, Some("1"))], row_of).unwrap();
        assert_eq!(set["nobody.knows"], "1");
        assert_eq!(code(changed(set, &[change("nobody.knows", APPEND, Some("1"))], row_of)), 40);
    }
}
