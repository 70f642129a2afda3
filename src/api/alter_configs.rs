//! AlterConfigs (33), versions 0–2: replace all settings that a topic or a broker has of its own.
//!
//! Behaviour
//! - Any broker serves it. A resource that is named twice: INVALID_REQUEST (42) for both.
//! - What is not named goes back to its default.
//! - Who may be named, what is checked and what then happens: see `alter`.
//! - validate_only checks everything and writes nothing.
//!
//! Versions: 2 flexible. Ignored: nothing.
//! Source: Kafka 3.9 `ZkAdminManager.alterConfigs`; deprecated there, and still what its `kafka-configs` uses for
//! brokers.

use std::ops::RangeInclusive;

use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use super::alter::{RowOf, alter, check_settings, named_twice};
use super::context::{Handles, RequestContext};
use super::handler::{Handler, Reply};
use super::refusal::Refusal;
use super::repeated::repeated;
use crate::cluster::znodes::config::Overrides;

pub(crate) struct AlterConfigs;

impl Handler for AlterConfigs {
    type Req = AlterConfigsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;

    async fn handle(ctx: RequestContext, req: AlterConfigsRequest) -> Reply<AlterConfigsResponse> {
        let twice = repeated(req.resources.iter().map(identity));
        let mut responses = Vec::with_capacity(req.resources.len());
        for resource in &req.resources {
            let result = match twice.contains(&identity(resource)) {
                true => Err(named_twice()),
                false => replace(&ctx.handles, resource, req.validate_only).await,
            };
            responses.push(respond(resource, result));
        }
        Reply::Now(AlterConfigsResponse::default().with_responses(responses))
    }
}

fn identity(resource: &AlterConfigsResource) -> (i8, &str) {
    (resource.resource_type, &resource.resource_name)
}

async fn replace(handles: &Handles, resource: &AlterConfigsResource, validate_only: bool) -> Result<(), Refusal> {
    let settings = || resource.configs.iter().map(|setting| (setting.name.as_str(), setting.value.as_deref()));
    check_settings(settings().map(|(name, value)| (name, value.is_none())))?;
    let change = |_: &Overrides, row_of: RowOf| {
        let named = |(name, value): (&str, Option<&str>)| {
            row_of(name).map(|_| (name.to_owned(), value.unwrap_or_default().to_owned()))
        };
        settings().map(named).collect()
    };
    alter(handles, resource.resource_type, &resource.resource_name, validate_only, change).await
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
