//! IncrementalAlterConfigs (44), versions 0–1: change single settings of topics and of brokers while they run.
//!
//! Behaviour
//! - Any broker serves it.
//! - SET (0), DELETE (1); APPEND (2) and SUBTRACT (3) for lists alone, else INVALID_CONFIG (40).
//! - Which resources may be named, what is checked and what then happens: see `alter`.
//! - validate_only checks everything and writes nothing.
//!
//! Versions: 1 flexible. Ignored: nothing.
//! Source: Kafka 3.9 `ConfigAdminManager.preprocess`, `ZkAdminManager.incrementalAlterConfigs`.

use std::ops::RangeInclusive;

use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::alter::{Answered, alter};
use crate::api::shared::changes::{Base, Change, Resource};
use crate::types::acl::{Operation, ResourceType};

pub(crate) struct IncrementalAlterConfigs;

impl Handler for IncrementalAlterConfigs {
    type Req = IncrementalAlterConfigsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=1;
    const AUTHORIZATION: Authorization = Authorization::Of(&[
        (Operation::AlterConfigs, ResourceType::Topic),
        (Operation::AlterConfigs, ResourceType::Cluster),
    ]);

    async fn handle(
        ctx: RequestContext,
        req: IncrementalAlterConfigsRequest,
    ) -> Reply<IncrementalAlterConfigsResponse> {
        let resources = req.resources.iter().map(resource).collect();
        let responses = alter(&ctx, resources, Base::Existing, req.validate_only, respond).await;
        Reply::Now(IncrementalAlterConfigsResponse::default().with_responses(responses))
    }
}

fn resource(asked: &AlterConfigsResource) -> Resource<'_> {
    let changes = asked.configs.iter().map(|change| Change {
        name: &change.name,
        operation: change.config_operation,
        value: change.value.as_deref(),
    });
    Resource { kind: asked.resource_type, name: &asked.resource_name, changes: changes.collect() }
}

fn respond((kind, name, error_code, message): Answered) -> AlterConfigsResourceResponse {
    AlterConfigsResourceResponse::default()
        .with_resource_type(kind)
        .with_resource_name(name)
        .with_error_code(error_code)
        .with_error_message(message)
}
