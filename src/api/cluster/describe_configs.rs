//! DescribeConfigs (32), versions 1–4: settings of topics and of this broker, with their sources.
//!
//! Behaviour
//! - Needs DESCRIBE_CONFIGS of the topic, TOPIC_AUTHORIZATION_FAILED (29), or on the cluster,
//!   CLUSTER_AUTHORIZATION_FAILED (31).
//! - Topic (2): what the store has now over this broker's defaults. Unknown: UNKNOWN_TOPIC_OR_PARTITION (3); an illegal
//!   name: INVALID_TOPIC_EXCEPTION (17).
//! - Broker (4): an empty name means what was set for all brokers while they run; this broker's number, everything;
//!   another number: INVALID_REQUEST (42), ask that broker. Both as the broker runs: a stored value that is not legal
//!   does not show.
//! - Broker logger (8): this broker's loggers with their levels. Other types: INVALID_REQUEST.
//! - A resource that is named twice is answered once.
//! - No names, or null, means all settings; unknown names are left out. Synonyms and documentation come when asked for.
//!   What is secret is null and marked sensitive.
//!
//! Versions: 1 synonyms and sources; 3 types and documentation (KIP-569); 4 flexible. Ignored: nothing.
//! Source: Kafka 3.9 `ConfigHelper.describeConfigs`.

use std::collections::HashSet;
use std::ops::RangeInclusive;

use futures_util::stream::{self, StreamExt};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use kafka_protocol::messages::{DescribeConfigsRequest, DescribeConfigsResponse};

use crate::api::authorization::Authorization;
use crate::api::context::{Handles, RequestContext};
use crate::api::handler::{Handler, Reply};
use crate::api::shared::refusal::Refusal;
use crate::api::shared::strings::{opt_text, text};
use crate::cluster::dynamic_config::DynamicConfigError;
use crate::cluster::znodes::config::Entity;
use crate::config::{ConfigEntry, ConfigError, describe};
use crate::types::TopicName;
use crate::types::acl::{Operation, ResourceType};
use crate::types::limits::COORDINATION_READS_IN_FLIGHT_MAX;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const CLIENT_METRICS: i8 = 16;
const VERSION_TYPES: i16 = 3;

pub(crate) struct DescribeConfigs;

impl Handler for DescribeConfigs {
    type Req = DescribeConfigsRequest;
    const VERSIONS: RangeInclusive<i16> = 1..=4;
    const AUTHORIZATION: Authorization = Authorization::Of(&[
        (Operation::DescribeConfigs, ResourceType::Topic),
        (Operation::DescribeConfigs, ResourceType::Cluster),
    ]);
    const FRAME_BYTES_MAX: usize = 2 << 20;

    async fn handle(ctx: RequestContext, req: DescribeConfigsRequest) -> Reply<DescribeConfigsResponse> {
        let shown = Shown { synonyms: req.include_synonyms, documentation: req.include_documentation };
        let mut seen = HashSet::new();
        let mut resources = req.resources;
        resources.retain(|resource| seen.insert(identity(resource)));
        // A topic's settings are read from the store, which may be elsewhere.
        let results = stream::iter(resources)
            .map(|resource| answer(ctx.clone(), shown, resource))
            .buffered(COORDINATION_READS_IN_FLIGHT_MAX)
            .collect()
            .await;
        Reply::Now(DescribeConfigsResponse::default().with_results(results))
    }
}

/// What was asked for beside the values.
#[derive(Debug, Clone, Copy)]
struct Shown {
    synonyms: bool,
    documentation: bool,
}

async fn answer(ctx: RequestContext, shown: Shown, resource: DescribeConfigsResource) -> DescribeConfigsResult {
    let entries = match may_describe(&ctx, &resource) {
        Ok(()) => describe_resource(&ctx.handles, &resource).await,
        Err(refusal) => Err(refusal),
    };
    respond(ctx.version, shown, &resource, entries)
}

fn may_describe(ctx: &RequestContext, resource: &DescribeConfigsResource) -> Result<(), Refusal> {
    let (may, error) = match resource.resource_type {
        TOPIC => {
            let may = ctx.may(Operation::DescribeConfigs, ResourceType::Topic, resource.resource_name.as_str());
            (may, ResponseError::TopicAuthorizationFailed)
        }
        _ => (ctx.may_on_cluster(Operation::DescribeConfigs), ResponseError::ClusterAuthorizationFailed),
    };
    if may { Ok(()) } else { Err(Refusal::new(error, error.to_string())) }
}

/// What tells resources apart. A broker's number has many spellings, each of them worth a long answer.
fn identity(resource: &DescribeConfigsResource) -> (i8, String) {
    let name = resource.resource_name.as_str();
    let name = match (resource.resource_type, name.parse::<i32>()) {
        (BROKER | BROKER_LOGGER, Ok(number)) => number.to_string(),
        _ => name.to_owned(),
    };
    (resource.resource_type, name)
}

async fn describe_resource(handles: &Handles, resource: &DescribeConfigsResource) -> Result<Vec<ConfigEntry>, Refusal> {
    let name = resource.resource_name.as_str();
    let me = handles.broker_id;
    match resource.resource_type {
        TOPIC => describe_topic(handles, name).await,
        BROKER if name.is_empty() => Ok(describe::describe_cluster_default(&handles.config.current())),
        BROKER if broker_number(name)? == me.0 => Ok(describe::describe_broker(&handles.config.current())),
        BROKER => Err(Refusal::new(
            ResponseError::InvalidRequest,
            format!("Unexpected broker id, expected {me} or empty string, but received {name}"),
        )),
        BROKER_LOGGER if name.is_empty() => {
            Err(Refusal::new(ResponseError::InvalidRequest, "Broker id must not be empty"))
        }
        BROKER_LOGGER if broker_number(name)? == me.0 => Ok(describe::describe_loggers(&*handles.loggers)),
        BROKER_LOGGER => Err(Refusal::new(
            ResponseError::InvalidRequest,
            format!("Unexpected broker id, expected {me} but received {name}"),
        )),
        CLIENT_METRICS if name.is_empty() => {
            Err(Refusal::new(ResponseError::InvalidRequest, "Client metrics subscription name must not be empty"))
        }
        CLIENT_METRICS => Err(Refusal::new(
            ResponseError::InvalidRequest,
            "Config type client-metrics is only supported on KRaft clusters",
        )),
        _ => Err(Refusal::bare(ResponseError::InvalidRequest)),
    }
}

async fn describe_topic(handles: &Handles, name: &str) -> Result<Vec<ConfigEntry>, Refusal> {
    TopicName::check(name).map_err(|why| Refusal::new(ResponseError::InvalidTopicException, why))?;
    if handles.image.current().topic(name).is_none() {
        // Kafka leaves the text of this one empty.
        return Err(Refusal::new(ResponseError::UnknownTopicOrPartition, ""));
    }
    let overrides = match handles.dynamic_config.read(&Entity::Topic(name.into())).await {
        Ok(overrides) => overrides,
        // While the store is away, what was last known is better than nothing.
        Err(DynamicConfigError::Coordination(_)) => (*handles.dynamic_config.topic(name)).clone(),
        Err(DynamicConfigError::Znode(error)) => {
            return Err(Refusal::new(ResponseError::UnknownServerError, error.to_string()));
        }
    };
    describe::describe_topic(&handles.config.current(), &overrides).map_err(|error| unreadable(&error))
}

/// A value was stored that no broker would have accepted.
fn unreadable(error: &ConfigError) -> Refusal {
    Refusal::new(ResponseError::UnknownServerError, error.to_string())
}

fn broker_number(name: &str) -> Result<i32, Refusal> {
    name.parse().map_err(|_| {
        Refusal::new(ResponseError::InvalidRequest, format!("Broker id must be an integer, but it is: {name}"))
    })
}

fn respond(
    version: i16,
    shown: Shown,
    resource: &DescribeConfigsResource,
    entries: Result<Vec<ConfigEntry>, Refusal>,
) -> DescribeConfigsResult {
    let result = DescribeConfigsResult::default()
        .with_resource_type(resource.resource_type)
        .with_resource_name(resource.resource_name.clone())
        .with_error_message(None);
    let entries = match entries {
        Ok(entries) => entries,
        Err(refusal) => {
            let message = refusal.wire_message();
            return result.with_error_code(refusal.error.code()).with_error_message(message);
        }
    };
    let names: HashSet<&str> = resource.configuration_keys.iter().flatten().map(|name| name.as_str()).collect();
    let wanted = entries.into_iter().filter(|entry| names.is_empty() || names.contains(entry.name.as_str()));
    result.with_configs(wanted.map(|entry| wire_entry(version, shown, entry)).collect())
}

fn wire_entry(version: i16, shown: Shown, entry: ConfigEntry) -> DescribeConfigsResourceResult {
    let synonyms = entry.synonyms.iter().filter(|_| shown.synonyms).map(|synonym| {
        DescribeConfigsSynonym::default()
            .with_name(text(synonym.name.as_str()))
            .with_value(opt_text(synonym.value.as_deref()))
            .with_source(synonym.source.wire())
    });
    let result = DescribeConfigsResourceResult::default()
        .with_synonyms(synonyms.collect())
        .with_value(opt_text(entry.value.as_deref()))
        .with_read_only(entry.read_only)
        .with_config_source(entry.source.wire())
        .with_is_sensitive(entry.sensitive)
        .with_name(text(entry.name));
    if version < VERSION_TYPES {
        return result;
    }
    let documentation = entry.documentation.filter(|_| shown.documentation);
    result.with_config_type(entry.wire_type).with_documentation(opt_text(documentation))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Inputs, Machine};

    #[test]
    fn one_broker_is_one_resource_however_it_is_spelt() {
        let named = |kind, name| {
            identity(&DescribeConfigsResource::default().with_resource_type(kind).with_resource_name(name))
        };
        assert_eq!(named(BROKER, text("1")), named(BROKER, text("+01")));
        assert_ne!(named(TOPIC, text("1")), named(TOPIC, text("01")));
    }

    #[test]
    fn answers_encode_in_every_version_and_show_what_was_asked_for() {
        let machine = Machine::for_test();
        let config = Config::load(&Inputs::default(), machine).unwrap();
        let entries = describe::describe_topic(&config, &[("retention.ms".into(), "5".into())].into()).unwrap();
        let resource = DescribeConfigsResource::default()
            .with_resource_type(TOPIC)
            .with_configuration_keys(Some(vec![text("retention.ms"), text("nonsense")]));
        let shown = Shown { synonyms: true, documentation: true };
        for version in DescribeConfigs::VERSIONS {
            let found = respond(version, shown, &resource, Ok(entries.clone()));
            assert_eq!((found.configs.len(), found.configs[0].value.as_deref()), (1, Some("5")));
            let documented = found.configs[0].documentation.as_ref().is_some_and(|text| !text.is_empty());
            assert_eq!(documented, version >= VERSION_TYPES);
            let refused = respond(version, shown, &resource, Err(Refusal::bare(ResponseError::InvalidRequest)));
            let response = DescribeConfigsResponse::default().with_results(vec![found, refused]);
            crate::wire::codec::encode_response(&response, version).unwrap();
        }
    }
}
