//! AlterConfigs (33), versions 0–2: replace all settings that a topic or a broker has of its own.
//!
//! Behaviour
//! - Any broker serves it.
//! - What is not named goes back to its default.
//! - Which resources may be named, what is checked and what then happens: see `alter`.
//! - validate_only checks everything and writes nothing.
//!
//! Versions: 2 flexible. Ignored: nothing.
//! Source: Kafka 3.9 `ZkAdminManager.alterConfigs`; deprecated there, and still what its `kafka-configs` uses for
//! brokers.

use std::ops::RangeInclusive;

use kafka_protocol::messages::alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse};

use crate::api::authorization::Authorization;
use crate::api::context::RequestContext;
use crate::api::handler::{Handler, Reply};
use crate::api::shared::alter::{Answered, alter};
use crate::api::shared::changes::{Base, Change, Resource, SET};
use crate::types::acl::{Operation, ResourceType};

pub(crate) struct AlterConfigs;

impl Handler for AlterConfigs {
    type Req = AlterConfigsRequest;
    const VERSIONS: RangeInclusive<i16> = 0..=2;
    const AUTHORIZATION: Authorization = Authorization::Of(&[
        (Operation::AlterConfigs, ResourceType::Topic),
        (Operation::AlterConfigs, ResourceType::Cluster),
    ]);

    async fn handle(ctx: RequestContext, req: AlterConfigsRequest) -> Reply<AlterConfigsResponse> {
        let resources = req.resources.iter().map(resource).collect();
        let responses = alter(&ctx, resources, Base::Nothing, req.validate_only, respond).await;
        Reply::Now(AlterConfigsResponse::default().with_responses(responses))
    }
}

fn resource(asked: &AlterConfigsResource) -> Resource<'_> {
    let set = asked.configs.iter().map(|setting| Change {
        name: &setting.name,
        operation: SET,
        value: setting.value.as_deref(),
    });
    Resource { kind: asked.resource_type, name: &asked.resource_name, changes: set.collect() }
}

fn respond((kind, name, error_code, message): Answered) -> AlterConfigsResourceResponse {
    AlterConfigsResourceResponse::default()
        .with_resource_type(kind)
        .with_resource_name(name)
        .with_error_code(error_code)
        .with_error_message(message)
}
